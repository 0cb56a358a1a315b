//! What stands for a record when it is proven, also after it is trimmed.

use std::collections::HashMap;
use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use super::error::ReadError;
use super::index_file::{BLOCK_DIGESTS, Index, IndexFault, read_digests};
use super::layout::{Digest, NO_DIGEST};
use super::limits::DIGESTS_MAX;
use super::read::LogReader;
use super::segment::{FileKind, Owner, SegmentName};
use super::table::{Digests, Table};
use super::types::{Damage, IndexOutcome};
use crate::vfs::DataFile;

/// Where the digests of some records are.
enum Source {
    /// They were in memory.
    Here(Vec<Option<Digest>>),
    /// In the index file of a segment that holds so many records; it is there itself, or trimmed.
    File(SegmentName, Frames),
    /// Nobody kept any for the records up to this one.
    Nowhere(u64),
}

/// Whether the frames of a segment are there as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Frames {
    Kept,
    Trimmed,
}

/// An index file that is being read.
struct OpenIndex {
    file: Arc<dyn DataFile>,
    name: SegmentName,
    records: u64,
}

impl LogReader {
    /// The digest of a record. None for one that is lost, or when none are kept.
    ///
    /// # Errors
    /// When the disk does not read.
    pub fn digest(&self, record: u64) -> Result<Option<[u8; 32]>, ReadError> {
        Ok(self.digests(record..record.saturating_add(1))?.pop().flatten())
    }

    /// The digests of records, in order, trimmed ones too: as many as there are of the range, and not more than a
    /// million at a time.
    ///
    /// # Errors
    /// When the disk does not read.
    pub fn digests(&self, records: Range<u64>) -> Result<Vec<Option<[u8; 32]>>, ReadError> {
        let end = records.end.min(self.end_record()).min(records.start.saturating_add(DIGESTS_MAX));
        let mut found: Vec<Option<Digest>> = Vec::new();
        let mut at = records.start;
        while at < end {
            let source = Source::of(&self.shared.table(), at, end);
            let more = match source {
                Source::Here(digests) => digests,
                Source::Nowhere(up_to) => none_for(at..up_to.min(end)),
                Source::File(name, frames) => self.in_file(name, frames, at..end)?,
            };
            if more.is_empty() {
                break;
            }
            at = at.saturating_add(more.len() as u64);
            found.extend(more);
        }
        Ok(found)
    }

    /// Those of the range that an index file has, at least one. What the file does not tell any more, the frames do.
    fn in_file(
        &self,
        name: SegmentName,
        frames: Frames,
        records: Range<u64>,
    ) -> Result<Vec<Option<Digest>>, ReadError> {
        let index = match self.open_index(name) {
            Ok(index) => index,
            Err(IndexFault::Io(source)) => {
                return Err(ReadError::Io { path: name.path(&self.shared.dir, FileKind::Index), source });
            }
            Err(IndexFault::Absent | IndexFault::Bad) => {
                let end = self.end_of(name).min(records.end).max(records.start.saturating_add(1));
                return self.instead(name, frames, records.start..end);
            }
        };
        let last = index.name.first_record.saturating_add(index.records);
        let mut found = Vec::new();
        let mut at = records.start;
        while at < records.end.min(last) {
            let within = at.saturating_sub(index.name.first_record);
            let number = within / BLOCK_DIGESTS;
            let block_end = index
                .name
                .first_record
                .saturating_add(number.saturating_add(1).saturating_mul(BLOCK_DIGESTS))
                .min(last)
                .min(records.end);
            let skip = usize::try_from(within % BLOCK_DIGESTS).unwrap_or(usize::MAX);
            let take = usize::try_from(block_end.saturating_sub(at)).unwrap_or(0);
            match read_digests(&*index.file, number, index.records) {
                Ok(block) => found.extend(block.iter().skip(skip).take(take).map(|digest| present(*digest))),
                Err(IndexFault::Io(source)) => {
                    let path = name.path(&self.shared.dir, FileKind::Index);
                    return Err(ReadError::Io { path, source });
                }
                Err(IndexFault::Absent | IndexFault::Bad) => {
                    found.extend(self.instead(name, frames, at..block_end)?);
                }
            }
            at = block_end;
        }
        if found.is_empty() {
            // The file ends before the next one begins: records in between are lost.
            let end = self.end_of(name).min(records.end).max(records.start.saturating_add(1));
            return Ok(none_for(records.start..end));
        }
        Ok(found)
    }

    /// The digests as the frames themselves give them, if they are there.
    fn instead(
        &self,
        name: SegmentName,
        frames: Frames,
        records: Range<u64>,
    ) -> Result<Vec<Option<Digest>>, ReadError> {
        let outcome = match frames {
            Frames::Kept => IndexOutcome::Left,
            Frames::Trimmed => IndexOutcome::Lost,
        };
        self.shared.damage.note(Damage::Index { base_offset: name.base_offset, outcome });
        let mut digests: HashMap<u64, Digest> = HashMap::new();
        if let (Some(digest), Frames::Kept) = (self.shared.options.digest, frames) {
            self.scan(records.start, &mut |frame| {
                if frame.record >= records.end {
                    return ControlFlow::Break(());
                }
                digests.insert(frame.record, digest(frame, &self.shared.options));
                ControlFlow::Continue(())
            })?;
        }
        Ok(records.map(|record| digests.get(&record).copied()).collect())
    }

    fn open_index(&self, name: SegmentName) -> Result<OpenIndex, IndexFault> {
        let shared = &self.shared;
        let path = name.path(&shared.dir, FileKind::Index);
        let index = Index::read(&*shared.vfs, &path, Owner::of(&shared.options), name)?;
        Ok(OpenIndex { file: shared.vfs.open_read(&path)?, name, records: index.records_with_digests() })
    }

    /// Where the segment behind this one begins.
    fn end_of(&self, name: SegmentName) -> u64 {
        let table = self.shared.table();
        let sealed = table.sealed.iter().map(|segment| segment.name);
        let names = table.index_only.iter().copied().chain(sealed).chain([table.active.name]);
        names
            .map(|name| name.first_record)
            .filter(|first| *first > name.first_record)
            .min()
            .unwrap_or(u64::MAX)
    }
}

impl Source {
    fn of(table: &Table, at: u64, end: u64) -> Self {
        let sealed = table.sealed.partition_point(|segment| segment.end.record <= at);
        let segment = match table.sealed.get(sealed) {
            None => &table.active,
            Some(segment) => segment,
        };
        if segment.name.first_record > at {
            let below = table.index_only.partition_point(|name| name.first_record <= at);
            let behind =
                table.index_only.get(below).map_or(segment.name.first_record, |name| name.first_record);
            return match below.checked_sub(1).and_then(|last| table.index_only.get(last)) {
                Some(name) => Self::File(*name, Frames::Trimmed),
                None => Self::Nowhere(behind.min(segment.name.first_record)),
            };
        }
        match &segment.digests {
            Digests::None => Self::Nowhere(segment.end.record),
            Digests::File => Self::File(segment.name, Frames::Kept),
            Digests::Memory(digests) => {
                let skip = at.saturating_sub(segment.name.first_record);
                let take = end.min(segment.end.record).saturating_sub(at);
                let (skip, take) = (usize::try_from(skip), usize::try_from(take));
                let digests = digests.iter().skip(skip.unwrap_or(usize::MAX)).take(take.unwrap_or(0));
                Self::Here(digests.map(|digest| present(*digest)).collect())
            }
        }
    }
}

fn present(digest: Digest) -> Option<Digest> {
    (digest != NO_DIGEST).then_some(digest)
}

fn none_for(records: Range<u64>) -> Vec<Option<Digest>> {
    records.map(|_| None).collect()
}
