//! What is in a log's directory, before anything is decided or touched.

use std::io;
use std::path::{Path, PathBuf};

use sealbus_protocol::ids::StreamId;

use super::error::LogError;
use super::frame::Salt;
use super::index_file::{Index, IndexFault};
use super::segment::{FileKind, HeaderFault, Owner, SEGMENT_HEADER_LEN, SegmentHeader, SegmentName};
use super::site::{Site, settle};
use super::types::OwnerState;
use super::watermark::Watermark;

/// The files that are ours.
pub(super) struct Survey {
    /// In order.
    pub(super) segments: Vec<Found>,
    /// Index files without a segment, in order.
    pub(super) index_only: Vec<SegmentName>,
    /// Segments that the watermark says are trimmed, whose removal was cut short.
    pub(super) trimmed: Vec<SegmentName>,
    /// Files with the name of a segment of which nothing shows that they are ours. They are left alone.
    pub(super) unexplained: Vec<SegmentName>,
}

/// A segment that was found.
pub(super) struct Found {
    pub(super) name: SegmentName,
    pub(super) len: u64,
    pub(super) header: Header,
    pub(super) index: Result<Index, IndexFault>,
}

/// What the header of a segment is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Header {
    /// As it was written.
    Whole(Salt),
    /// Damaged by one bit, so that it is known what it was.
    OneBit(Salt),
    /// Not what was written, or that of another segment.
    Bad,
}

impl Survey {
    pub(super) fn of(site: &Site<'_>, watermark: Option<&Watermark>) -> Result<Self, LogError> {
        let names = site
            .vfs
            .list(site.dir)
            .map_err(|source| LogError::fatal("list the directory", site.dir, source))?;
        let (mut logs, mut indexes) = (Vec::new(), Vec::new());
        for (name, kind) in names.iter().filter_map(|name| SegmentName::parse(name)) {
            match kind {
                FileKind::Log => logs.push(name),
                FileKind::Index => indexes.push(name),
            }
        }
        logs.sort();
        indexes.sort();
        let trimmed = take_trimmed(&mut logs, watermark);
        indexes.retain(|name| logs.binary_search(name).is_err());
        let mut survey = Self { segments: Vec::new(), index_only: indexes, trimmed, unexplained: Vec::new() };
        if let Some(last) = logs.last() {
            // Its header may never have reached the disk.
            let path = last.path(site.dir, FileKind::Log);
            let settled = site.vfs.open(&path).and_then(|file| settle(&*file));
            settled.map_err(|source| LogError::fatal("sync the segment", &path, source))?;
        }
        let mut stranger = None;
        for name in logs {
            let found = Found::read(site, name, &mut stranger)?;
            if found.is_explained(survey.segments.last(), watermark) {
                survey.segments.push(found);
            } else {
                survey.unexplained.push(name);
            }
        }
        let ours = watermark.is_some() || survey.segments.iter().any(|found| found.header != Header::Bad);
        match stranger.filter(|_| !ours) {
            Some((path, found)) => Err(LogError::Foreign { path, found }),
            None => Ok(survey),
        }
    }

    /// The owner's state in the newest index file that has one: older than the watermark's, and good enough without it.
    pub(super) fn state(&self) -> Option<OwnerState> {
        self.segments.iter().rev().find_map(|found| found.index.as_ref().ok()?.state.clone())
    }
}

impl Found {
    fn read(
        site: &Site<'_>,
        name: SegmentName,
        stranger: &mut Option<(PathBuf, StreamId)>,
    ) -> Result<Self, LogError> {
        let path = name.path(site.dir, FileKind::Log);
        let (bytes, len) = read_header(site, &path)
            .map_err(|source| LogError::fatal("read the header of the segment", &path, source))?;
        let owner = Owner::of(site.options);
        let right = |header: &SegmentHeader| header.owner == owner && header.name == name;
        let header = match SegmentHeader::decode(&bytes) {
            Ok(header) if right(&header) => Header::Whole(header.salt),
            Ok(header) => {
                if header.owner != owner {
                    *stranger = Some((path, header.owner.log_id));
                }
                Header::Bad
            }
            Err(HeaderFault::Version(found)) => return Err(LogError::Version { path, found }),
            Err(HeaderFault::Bad) => SegmentHeader::decode_but_for_one_bit(&bytes)
                .filter(right)
                .map_or(Header::Bad, |header| Header::OneBit(header.salt)),
        };
        let index = Index::read(site.vfs, &name.path(site.dir, FileKind::Index), owner, name);
        Ok(Self { name, len, header, index })
    }

    /// Whether anything shows that it is a segment of this log: its header, its index, the end of the segment in front,
    /// or the watermark.
    fn is_explained(&self, previous: Option<&Self>, watermark: Option<&Watermark>) -> bool {
        let ends_here = |index: &Index| {
            index.end.offset == self.name.base_offset && index.end.record == self.name.first_record
        };
        let follows = match previous {
            Some(previous) => previous.index.as_ref().is_ok_and(ends_here),
            None => self.name == SegmentName::FIRST,
        };
        let known = watermark.is_some_and(|watermark| {
            let end = SegmentName { base_offset: watermark.end_offset, first_record: watermark.end_record };
            watermark.segment == self.name || end == self.name
        });
        self.header != Header::Bad || self.index.is_ok() || follows || known
    }

    /// The salt of its frames, from whatever knows it.
    pub(super) fn salt(&self, watermark: Option<&Watermark>) -> Option<Salt> {
        match self.header {
            Header::Whole(salt) | Header::OneBit(salt) => Some(salt),
            Header::Bad => {
                let index = self.index.as_ref().ok().map(|index| index.salt);
                let marked = watermark.filter(|watermark| watermark.segment == self.name);
                index.or(marked.map(|watermark| watermark.salt))
            }
        }
    }
}

/// Takes out the segments that are below the first offset as a whole. The last one stays: it is the one that grows.
fn take_trimmed(logs: &mut Vec<SegmentName>, watermark: Option<&Watermark>) -> Vec<SegmentName> {
    let first_offset = watermark.map_or(0, |watermark| watermark.first_offset);
    let first_record = watermark.map_or(0, |watermark| watermark.first_record);
    let below = |next: &SegmentName| next.base_offset <= first_offset && next.first_record <= first_record;
    let trimmed = logs.iter().skip(1).take_while(|next| below(next)).count();
    logs.drain(..trimmed).collect()
}

/// Whether a file has the header of a segment of ours. One that has not is not removed, whatever its name is.
pub(super) fn is_ours(site: &Site<'_>, name: SegmentName) -> bool {
    let owner = Owner::of(site.options);
    read_header(site, &name.path(site.dir, FileKind::Log))
        .is_ok_and(|(bytes, _)| SegmentHeader::decode(&bytes).is_ok_and(|header| header.owner == owner))
}

/// The first bytes of a file, and how many it has.
fn read_header(site: &Site<'_>, path: &Path) -> io::Result<(Vec<u8>, u64)> {
    let file = site.vfs.open(path)?;
    let mut bytes = vec![0; SEGMENT_HEADER_LEN];
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read_at(filled as u64, rest)? {
            0 => break,
            read => filled = filled.saturating_add(read),
        }
    }
    bytes.truncate(filled);
    Ok((bytes, file.len()?))
}
