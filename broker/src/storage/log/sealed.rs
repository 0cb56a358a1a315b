//! Opens a sealed segment: by its index file when that is good, else by going through it.

use super::error::LogError;
use super::frame::Salt;
use super::index_file::{DigestsKept, Index};
use super::layout::{Entry, EntryKind, Layout};
use super::limits::SEGMENT_FILE_BYTES_MAX;
use super::scan::{Gap, Mark, Scan, Stretch, Unreadable, scan};
use super::segment::{FIRST_FRAME_AT, FileKind};
use super::site::Site;
use super::survey::{Found, Header};
use super::table::{Digests, Segment};
use super::types::{Damage, IndexOutcome, Lost};
use super::watermark::Watermark;
use crate::vfs::DataFile;

/// A segment that was gone through, with the digests of its whole frames.
pub(super) struct Walked {
    pub(super) scan: Scan,
    pub(super) digests: Vec<[u8; 32]>,
}

/// Opens a segment of which it is known where it ends: where the next one begins.
pub(super) fn open_sealed(
    site: &Site<'_>,
    found: &Found,
    next: Mark,
    watermark: Option<&Watermark>,
    note: &mut dyn FnMut(Damage),
) -> Result<Segment, LogError> {
    let base_offset = found.name.base_offset;
    match found.header {
        Header::Whole(_) => {}
        Header::OneBit(_) | Header::Bad => note(Damage::Header { base_offset }),
    }
    let segment = match found.index.as_ref().ok().filter(|index| fits(site, found, index, next)) {
        Some(index) => {
            let mut segment = Segment::of_index(index.clone());
            if found.len < segment.end.position {
                shorten(site, found, &mut segment)?;
            }
            segment
        }
        None => {
            note(Damage::Index { base_offset, outcome: IndexOutcome::Rebuilt });
            rebuild(site, found, next, watermark)?
        }
    };
    segment.known_damage().into_iter().for_each(note);
    Ok(segment)
}

/// Whether an index file tells what this program needs about the segment as it is.
fn fits(site: &Site<'_>, found: &Found, index: &Index, next: Mark) -> bool {
    let salt = match found.header {
        Header::Whole(salt) | Header::OneBit(salt) => salt == index.salt,
        Header::Bad => true,
    };
    let digests = site.options.digest.is_none() || index.digests == DigestsKept::Yes;
    salt && digests && index.end.offset <= next.offset && index.end.record <= next.record
}

/// Goes through a segment whose index file is lost, and makes the file again. When that cannot be written, what it would
/// say is kept in memory.
fn rebuild(
    site: &Site<'_>,
    found: &Found,
    next: Mark,
    watermark: Option<&Watermark>,
) -> Result<Segment, LogError> {
    let path = found.name.path(site.dir, FileKind::Log);
    let file = site.vfs.open_read(&path);
    let file = file.map_err(|source| LogError::fatal("open the segment", &path, source))?;
    let mut walked = walk(site, found, &*file, next.offset, watermark)?;
    let frames = walked.scan.frames.len();
    walked.scan.close(next, found.len);
    let end = Mark { position: walked.scan.position_after(frames), ..next };
    let layout = Layout::of(&walked.scan, &[], Some(end), found.len);
    let mut segment = Segment::of_layout(site, found, &layout, &walked, watermark);
    if site.seal(&segment, None).is_ok() && site.options.digest.is_some() {
        segment.digests = Digests::File;
    }
    Ok(segment)
}

/// Goes through all of a segment.
pub(super) fn walk(
    site: &Site<'_>,
    found: &Found,
    file: &dyn DataFile,
    end_offset: u64,
    watermark: Option<&Watermark>,
) -> Result<Walked, LogError> {
    let len = file.len().map_err(|source| {
        LogError::fatal("measure the segment", &found.name.path(site.dir, FileKind::Log), source)
    })?;
    let end_position = len.min(SEGMENT_FILE_BYTES_MAX);
    let start = found.name.start();
    let Some(salt) = found.salt(watermark) else {
        let mut scan = Scan { start, frames: Vec::new(), gaps: Vec::new() };
        if end_position > FIRST_FRAME_AT {
            scan.gaps.push(Gap {
                frames_before: 0,
                position: FIRST_FRAME_AT,
                end_position,
                frames_likely: 1,
            });
        }
        return Ok(Walked { scan, digests: Vec::new() });
    };
    let mut digests = Vec::new();
    let stretch = Stretch { salt, start, end_position, end_offset };
    let scan = scan(file, &stretch, Unreadable::Fail, &mut |header, payload| {
        if let Some(digest) = site.options.digest {
            digests.push(digest(&header.view(0, payload), site.options));
        }
    })
    .map_err(|source| {
        LogError::fatal("read the segment", &found.name.path(site.dir, FileKind::Log), source)
    })?;
    Ok(Walked { scan, digests })
}

/// The file has become shorter than its index file says: finds the last whole frame, and marks what is lost behind it. The
/// index file stays as it is, since it knows more than the segment now.
fn shorten(site: &Site<'_>, found: &Found, segment: &mut Segment) -> Result<(), LogError> {
    let path = found.name.path(site.dir, FileKind::Log);
    let after = segment.entries.partition_point(|entry| entry.mark.position <= found.len);
    segment.entries.truncate(after.max(1));
    let last = segment.entries.last().copied();
    let from = last.map_or(found.name.start(), |entry| entry.mark);
    let stretch =
        Stretch { salt: segment.salt, start: from, end_position: found.len, end_offset: segment.end.offset };
    let mut end = from;
    if last.is_some_and(|entry| entry.kind == EntryKind::Frames) {
        let failed = |source| LogError::fatal("read the segment", &path, source);
        let file = site.vfs.open_read(&path).map_err(failed)?;
        let scan = scan(&*file, &stretch, Unreadable::Fail, &mut |_, _| {}).map_err(failed)?;
        let whole = scan.gaps.first().map_or(scan.frames.len(), |gap| gap.frames_before);
        end = Mark {
            offset: scan.offset_after(whole),
            record: from.record.saturating_add(whole as u64),
            position: scan.position_after(whole),
        };
    }
    // When nothing of the block is left, the loss begins where it did.
    if segment.entries.last().is_some_and(|entry| entry.mark.record == end.record) {
        segment.entries.pop();
    }
    let time_ms = last.map_or(0, |entry| entry.time_ms);
    segment.entries.push(Entry { kind: EntryKind::Truncated, mark: end, time_ms });
    Ok(())
}

impl Scan {
    /// Puts a gap at the end of a walk that did not come to where the stretch is known to end.
    pub(super) fn close(&mut self, end: Mark, file_len: u64) {
        let frames = self.frames.len();
        let counted = self.start.record.saturating_add(frames as u64);
        // Behind a gap frames cannot be counted from the start.
        if self.offset_after(frames) < end.offset || (self.gaps.is_empty() && counted < end.record) {
            self.end_in_a_gap(file_len);
        }
    }

    /// Makes sure that there is a gap at the end, for frames that are known to have been there.
    pub(super) fn end_in_a_gap(&mut self, file_len: u64) {
        let frames_before = self.frames.len();
        if self.gaps.last().is_none_or(|gap| gap.frames_before != frames_before) {
            let position = self.position_after(frames_before).max(file_len.min(SEGMENT_FILE_BYTES_MAX));
            self.gaps.push(Gap { frames_before, position, end_position: position, frames_likely: 0 });
        }
    }
}

impl Segment {
    /// A segment from what going through it told. It gets the salt that its frames verified with.
    pub(super) fn of_layout(
        site: &Site<'_>,
        found: &Found,
        layout: &Layout,
        walked: &Walked,
        watermark: Option<&Watermark>,
    ) -> Self {
        Self {
            name: found.name,
            salt: found.salt(watermark).unwrap_or(Salt(0)),
            end: layout.end,
            first_time_ms: layout.first_time_ms,
            last_time_ms: layout.last_time_ms,
            entries: layout.entries.clone(),
            digests: match site.options.digest {
                Some(_) => Digests::Memory(layout.digests(found.name.first_record, &walked.digests)),
                None => Digests::None,
            },
        }
    }

    /// The damage that its entries tell of.
    pub(super) fn known_damage(&self) -> Vec<Damage> {
        let ends = self.entries.iter().skip(1).map(|entry| entry.mark).chain([self.end]);
        let gaps = self.entries.iter().zip(ends).filter(|(entry, _)| entry.kind != EntryKind::Frames);
        gaps.map(|(entry, end)| {
            let lost =
                Lost { offsets: entry.mark.offset..end.offset, records: entry.mark.record..end.record };
            Damage::of_gap(entry.kind, lost)
        })
        .collect()
    }
}
