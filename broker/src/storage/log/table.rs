//! The segments of a log, which the writer changes and the readers look at.
//!
//! The lock is held to find a place and never while the disk is read. What a reader has found stays good without it:
//! sealed segments do not change, frames below the visible end neither, and a segment that is trimmed away in between is
//! seen to be so when its file is gone.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::damage::DamageList;
use super::frame::Salt;
use super::index_file::{DigestsKept, Index};
use super::layout::{Digest, Entry, EntryKind};
use super::limits::OPEN_SEGMENTS_MAX;
use super::scan::Mark;
use super::segment::{FIRST_FRAME_AT, FileKind, SegmentName};
use super::types::{LogOptions, OwnerState, SegmentInfo, SegmentPhase};
use crate::vfs::{DataFile, Vfs};

/// What a log and its readers share.
pub(super) struct Shared {
    pub(super) vfs: Arc<dyn Vfs>,
    pub(super) dir: PathBuf,
    pub(super) options: LogOptions,
    pub(super) damage: DamageList,
    table: RwLock<Table>,
    /// Files of sealed segments, the one used last at the end.
    open: Mutex<Vec<(SegmentName, Arc<dyn DataFile>)>>,
}

/// The segments.
pub(super) struct Table {
    pub(super) sealed: Vec<Arc<Segment>>,
    pub(super) active: Segment,
    pub(super) active_file: Arc<dyn DataFile>,
    /// What readers may see ends here.
    pub(super) visible: Mark,
    /// What is below is trimmed.
    pub(super) first_offset: u64,
    /// What is below is trimmed.
    pub(super) first_record: u64,
    /// How often something that readers could see was taken back: what they hold of it may be gone.
    pub(super) cuts: u64,
    /// Segments of which only the index file is left, in order.
    pub(super) index_only: Vec<SegmentName>,
}

/// A segment. The active one grows at its end.
pub(super) struct Segment {
    pub(super) name: SegmentName,
    pub(super) salt: Salt,
    pub(super) end: Mark,
    pub(super) first_time_ms: u64,
    pub(super) last_time_ms: u64,
    pub(super) entries: Vec<Entry>,
    pub(super) digests: Digests,
}

/// Where the digests of a segment's records are.
pub(super) enum Digests {
    /// Nobody wanted any.
    None,
    /// Here.
    Memory(Vec<Digest>),
    /// In its index file.
    File,
}

/// What is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    /// The frame that covers this offset.
    Offset(u64),
    /// The frame with this record.
    Record(u64),
}

/// What is at a place.
pub(super) enum Spot {
    /// Nothing yet: what may be seen ends here.
    End(Mark),
    /// Nothing any more, up to here.
    Trimmed(Mark),
    /// Nothing although there was something, up to here.
    Hole(Mark),
    /// Something to read.
    Block(Block),
}

/// The part of a segment from one entry to the next.
pub(super) struct Block {
    pub(super) name: SegmentName,
    pub(super) salt: Salt,
    pub(super) kind: EntryKind,
    pub(super) start: Mark,
    pub(super) end: Mark,
    /// The file, when it is the active one's.
    pub(super) file: Option<Arc<dyn DataFile>>,
    /// As the table said it when the block was found.
    pub(super) cuts: u64,
}

impl Key {
    pub(super) fn of(self, mark: Mark) -> u64 {
        match self {
            Self::Offset(_) => mark.offset,
            Self::Record(_) => mark.record,
        }
    }

    pub(super) fn value(self) -> u64 {
        match self {
            Self::Offset(value) | Self::Record(value) => value,
        }
    }

    pub(super) fn with(self, value: u64) -> Self {
        match self {
            Self::Offset(_) => Self::Offset(value),
            Self::Record(_) => Self::Record(value),
        }
    }
}

impl Segment {
    pub(super) fn empty(name: SegmentName, salt: Salt, options: &LogOptions) -> Self {
        Self {
            name,
            salt,
            end: name.start(),
            first_time_ms: 0,
            last_time_ms: 0,
            entries: Vec::new(),
            digests: if options.digest.is_some() { Digests::Memory(Vec::new()) } else { Digests::None },
        }
    }

    pub(super) fn of_index(index: Index) -> Self {
        Self {
            name: index.name,
            salt: index.salt,
            end: index.end,
            first_time_ms: index.first_time_ms,
            last_time_ms: index.last_time_ms,
            entries: index.entries,
            digests: match index.digests {
                DigestsKept::Yes => Digests::File,
                DigestsKept::No => Digests::None,
            },
        }
    }

    /// What its index file says.
    pub(super) fn index(&self, state: Option<OwnerState>) -> Index {
        Index {
            name: self.name,
            salt: self.salt,
            end: self.end,
            first_time_ms: self.first_time_ms,
            last_time_ms: self.last_time_ms,
            digests: match self.digests {
                Digests::None => DigestsKept::No,
                Digests::Memory(_) | Digests::File => DigestsKept::Yes,
            },
            entries: self.entries.clone(),
            state,
        }
    }

    /// Cuts it back to a place at which it ended before.
    pub(super) fn cut(&mut self, end: Mark) {
        self.entries.retain(|entry| entry.mark.record < end.record);
        if let Digests::Memory(digests) = &mut self.digests {
            let kept = end.record.saturating_sub(self.name.first_record);
            digests.truncate(usize::try_from(kept).unwrap_or(usize::MAX));
        }
        self.end = end;
    }

    pub(super) fn info(&self, phase: SegmentPhase) -> SegmentInfo {
        SegmentInfo {
            base_offset: self.name.base_offset,
            end_offset: self.end.offset,
            first_record: self.name.first_record,
            end_record: self.end.record,
            bytes: self.end.position,
            first_time_ms: self.first_time_ms,
            last_time_ms: self.last_time_ms,
            phase,
        }
    }

    /// The block in which `key` is. The caller knows that it lies before `end`.
    fn block(&self, key: Key, end: Mark, file: Option<Arc<dyn DataFile>>, cuts: u64) -> Block {
        let after = self.entries.partition_point(|entry| key.of(entry.mark) <= key.value());
        let (kind, start) = after
            .checked_sub(1)
            .and_then(|at| self.entries.get(at))
            .map_or((EntryKind::Frames, self.name.start()), |entry| (entry.kind, entry.mark));
        // Frames behind what may be seen have entries as well.
        let within = |next: &Mark| next.offset < end.offset || next.record < end.record;
        let next = self.entries.get(after).map(|entry| entry.mark).filter(within);
        Block { name: self.name, salt: self.salt, kind, start, end: next.unwrap_or(end), file, cuts }
    }
}

impl SegmentName {
    /// The place of a segment's first frame.
    pub(super) fn start(self) -> Mark {
        Mark { offset: self.base_offset, record: self.first_record, position: FIRST_FRAME_AT }
    }
}

impl Table {
    /// What is at the place of `key`.
    pub(super) fn locate(&self, key: Key) -> Spot {
        let value = key.value();
        if value >= key.of(self.visible) {
            return Spot::End(self.visible);
        }
        let first = Mark { offset: self.first_offset, record: self.first_record, position: 0 };
        if value < key.of(first) {
            return Spot::Trimmed(Mark {
                offset: first.offset.min(self.visible.offset),
                record: first.record.min(self.visible.record),
                ..first
            });
        }
        let at = self.sealed.partition_point(|segment| key.of(segment.end) <= value);
        let (start, block) = match self.sealed.get(at) {
            Some(segment) => (segment.name.start(), segment.block(key, segment.end, None, self.cuts)),
            None => {
                let file = Some(Arc::clone(&self.active_file));
                (self.active.name.start(), self.active.block(key, self.visible, file, self.cuts))
            }
        };
        if key.of(start) > value { Spot::Hole(start) } else { Spot::Block(block) }
    }

    /// A key for the first frame that may have been appended at or after this moment.
    pub(super) fn locate_time(&self, time_ms: u64) -> u64 {
        let before = self.sealed.partition_point(|segment| segment.last_time_ms < time_ms);
        let segment = self.sealed.get(before).map_or(&self.active, |segment| segment);
        let after = segment.entries.partition_point(|entry| entry.time_ms < time_ms);
        let entry = after.checked_sub(1).and_then(|at| segment.entries.get(at));
        entry.map_or(segment.name.first_record, |entry| entry.mark.record)
    }

    pub(super) fn bytes(&self) -> u64 {
        let sealed = self.sealed.iter().fold(0_u64, |sum, segment| sum.saturating_add(segment.end.position));
        sealed.saturating_add(self.active.end.position)
    }
}

impl Shared {
    pub(super) fn new(
        vfs: Arc<dyn Vfs>,
        dir: &Path,
        options: LogOptions,
        damage: DamageList,
        table: Table,
    ) -> Self {
        let (dir, table) = (dir.to_owned(), RwLock::new(table));
        Self { vfs, dir, options, damage, table, open: Mutex::default() }
    }

    /// To look at. A writer that panicked while changing would have been changing plain values, each of them whole.
    pub(super) fn table(&self) -> RwLockReadGuard<'_, Table> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// To change: the writer's alone.
    pub(super) fn table_mut(&self) -> RwLockWriteGuard<'_, Table> {
        self.table.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The file of a block. Opening one goes to the disk, so that no lock is held for it.
    pub(super) fn file(&self, block: &Block) -> io::Result<Arc<dyn DataFile>> {
        if let Some(file) = &block.file {
            return Ok(Arc::clone(file));
        }
        let known = {
            let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            let at = open.iter().position(|(name, _)| *name == block.name);
            let known = at.map(|at| open.remove(at));
            open.extend(known.clone());
            known
        };
        if let Some((_, file)) = known {
            return Ok(file);
        }
        let file = self.vfs.open_read(&block.name.path(&self.dir, FileKind::Log))?;
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.push((block.name, Arc::clone(&file)));
        let surplus = open.len().saturating_sub(OPEN_SEGMENTS_MAX);
        open.drain(..surplus);
        Ok(file)
    }

    /// Closes the files of segments that are gone.
    pub(super) fn close(&self, gone: &[SegmentName]) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|(name, _)| !gone.contains(name));
    }
}
