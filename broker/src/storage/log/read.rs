//! Reading a log while it is written: only what is durable, and only what still is what was written.

use std::fmt;
use std::io;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use super::error::ReadError;
use super::frame::{FrameHeader, HEADER_LEN};
use super::layout::{EntryKind, Layout};
use super::limits::FRUITLESS_BLOCKS_MAX;
use super::scan::{Mark, Stretch, Unreadable, scan};
use super::segment::{FileKind, SegmentName};
use super::table::{Block, Key, Shared, Spot};
use super::types::{Damage, FrameView, Lost, OwnedFrame, Page, SkipReason, Skipped};

/// Bytes of a page when everything is gone through.
const SCAN_PAGE_BYTES: usize = 1_024 * 1_024;

/// Reads a log. Clones are cheap, and each remembers for itself where it read last.
pub struct LogReader {
    pub(super) shared: Arc<Shared>,
    /// Where the last page ended within a block, so that the next one need not find its way there.
    last: Mutex<Option<Reached>>,
}

/// A place between frames that a page came to.
#[derive(Debug, Clone, Copy)]
struct Reached {
    segment: SegmentName,
    mark: Mark,
    cuts: u64,
}

/// What a block holds.
struct Loaded {
    frames: Vec<OwnedFrame>,
    /// The place after each of them.
    ends: Vec<Mark>,
    lost: Vec<Lost>,
}

/// How much of a block went into a page.
enum Taken {
    All,
    /// Up to here. None when the page had been full before.
    Full(Option<Mark>),
}

/// Why a block could not be loaded.
enum LoadFault {
    /// It is not there any more, or not that any more: the table must be asked again.
    Moved,
    /// Its file is not there although it should be.
    Missing,
    Read(ReadError),
}

impl LogReader {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, last: Mutex::default() }
    }

    /// Whole frames that take offsets, from the one that covers `from` onwards. A page ends before the frame that would
    /// make it longer than `bytes_max`, but has at least one frame if there is any; at the end of the log it is empty.
    ///
    /// # Errors
    /// When the disk does not read. Damage is no error: it is skipped, and the page says so.
    pub fn read(&self, from: u64, bytes_max: usize) -> Result<Page, ReadError> {
        self.page(Key::Offset(from), bytes_max)
    }

    /// The same by record, so that frames without offsets come too.
    ///
    /// # Errors
    /// As [`LogReader::read`].
    pub fn read_records(&self, from_record: u64, bytes_max: usize) -> Result<Page, ReadError> {
        self.page(Key::Record(from_record), bytes_max)
    }

    /// The first offset whose frame was appended at or after this moment; the end when there is none.
    ///
    /// # Errors
    /// As [`LogReader::read`].
    pub fn offset_at(&self, time_ms: u64) -> Result<u64, ReadError> {
        let from_record = self.shared.table().locate_time(time_ms);
        let mut found = None;
        self.scan(from_record, &mut |frame| {
            if frame.time_ms < time_ms {
                return ControlFlow::Continue(());
            }
            found = Some(frame.offset);
            ControlFlow::Break(())
        })?;
        Ok(found.unwrap_or_else(|| self.end_offset()).max(self.first_offset()))
    }

    /// The offset from which on there are at most `n`.
    #[must_use]
    pub fn offset_of_last(&self, n: u64) -> u64 {
        let table = self.shared.table();
        table.visible.offset.saturating_sub(n).max(table.first_offset)
    }

    /// The first offset that is not trimmed.
    #[must_use]
    pub fn first_offset(&self) -> u64 {
        self.shared.table().first_offset
    }

    /// The first record that is not trimmed.
    #[must_use]
    pub fn first_record(&self) -> u64 {
        self.shared.table().first_record
    }

    /// The offset after the last that can be read.
    #[must_use]
    pub fn end_offset(&self) -> u64 {
        self.shared.table().visible.offset
    }

    /// The record after the last that can be read.
    #[must_use]
    pub fn end_record(&self) -> u64 {
        self.shared.table().visible.record
    }

    /// Bytes of all segments.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.shared.table().bytes()
    }

    /// Shows every whole frame from this record on, until told to stop.
    ///
    /// # Errors
    /// As [`LogReader::read`].
    pub fn scan(
        &self,
        from_record: u64,
        visit: &mut dyn FnMut(&FrameView<'_>) -> ControlFlow<()>,
    ) -> Result<(), ReadError> {
        let mut from = from_record;
        loop {
            let page = self.read_records(from, SCAN_PAGE_BYTES)?;
            for frame in &page.frames {
                if visit(&frame.view()).is_break() {
                    return Ok(());
                }
            }
            if page.next_record <= from {
                return Ok(());
            }
            from = page.next_record;
        }
    }

    /// Damage that was found since the last call, by opening or by any reader.
    #[must_use]
    pub fn take_new_damage(&self) -> Vec<Damage> {
        self.shared.damage.take_new()
    }

    fn page(&self, from: Key, bytes_max: usize) -> Result<Page, ReadError> {
        let mut page = Page::default();
        let (mut at, mut bytes, mut fruitless) = (from, 0_usize, 0_usize);
        let mut reached: Option<Mark> = None;
        let mut end: Option<Mark> = None;
        while fruitless < FRUITLESS_BLOCKS_MAX {
            let spot = self.shared.table().locate(at);
            let (to, why) = match spot {
                Spot::End(mark) => {
                    end = Some(mark);
                    break;
                }
                Spot::Trimmed(to) => (to, SkipReason::Trimmed),
                Spot::Hole(to) => (to, SkipReason::Damaged),
                Spot::Block(block) if block.kind != EntryKind::Frames => (block.end, SkipReason::Damaged),
                Spot::Block(block) => match self.load(&block, at) {
                    Ok(loaded) => {
                        let before = page.frames.len();
                        let countable = loaded.lost.is_empty();
                        if let Taken::Full(last) = page.take(loaded, at, bytes_max, &mut bytes) {
                            self.remember(&block, last.filter(|_| countable));
                            reached = last.or(reached);
                            break;
                        }
                        fruitless = if page.frames.len() > before { 0 } else { fruitless.saturating_add(1) };
                        reached = Some(block.end);
                        at = at.with(at.of(block.end));
                        continue;
                    }
                    Err(LoadFault::Moved) => {
                        fruitless = fruitless.saturating_add(1);
                        continue;
                    }
                    Err(LoadFault::Missing) => {
                        let lost = Lost {
                            offsets: block.start.offset..block.end.offset,
                            records: block.start.record..block.end.record,
                        };
                        self.shared.damage.note(Damage::Missing(lost));
                        (block.end, SkipReason::Damaged)
                    }
                    Err(LoadFault::Read(error)) => return Err(error),
                },
            };
            let from_offset = match at {
                Key::Offset(offset) => offset,
                Key::Record(_) => reached.map_or(to.offset, |reached| reached.offset),
            };
            page.skip(from_offset, to.offset, why);
            reached = Some(to);
            at = at.with(at.of(to));
            fruitless = fruitless.saturating_add(1);
        }
        (page.next, page.next_record) = match (from, reached.or(end)) {
            (Key::Offset(from), Some(reached)) => (reached.offset.max(from), reached.record),
            (Key::Record(from), Some(reached)) => (reached.offset, reached.record.max(from)),
            // The table changed each time it was asked. The caller asks again.
            (Key::Offset(from), None) => (from, self.first_record()),
            (Key::Record(from), None) => (self.first_offset(), from),
        };
        Ok(page)
    }

    /// Reads a block and says what is whole in it and what is not. With a key, frames in front of it are left out when
    /// it is known where to begin.
    fn load(&self, block: &Block, at: Key) -> Result<Loaded, LoadFault> {
        let start = self.start_in(block, at);
        let file = match self.shared.file(block) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let gone = self.shared.table().first_record >= block.end.record;
                return Err(if gone { LoadFault::Moved } else { LoadFault::Missing });
            }
            Err(source) => return Err(self.failed(block, source)),
        };
        let stretch = Stretch {
            salt: block.salt,
            start,
            end_position: block.end.position,
            end_offset: block.end.offset,
        };
        let mut frames = Vec::new();
        let mut walked = scan(&*file, &stretch, Unreadable::Damage, &mut |header, payload| {
            frames.push(OwnedFrame::of(header, payload));
        })
        .map_err(|source| self.failed(block, source))?;
        let file_len = file.len().map_err(|source| self.failed(block, source))?;
        walked.close(block.end, file_len);
        if !walked.gaps.is_empty() && self.shared.table().cuts != block.cuts {
            return Err(LoadFault::Moved);
        }
        let layout = Layout::of(&walked, &[], Some(block.end), file_len);
        let mut ends = Vec::with_capacity(frames.len());
        for ((frame, at), record) in frames.iter_mut().zip(&walked.frames).zip(&layout.records) {
            frame.record = *record;
            let record = record.saturating_add(1);
            ends.push(Mark { offset: at.end_offset, record, position: at.end_position });
        }
        for (kind, lost) in &layout.lost {
            self.shared.damage.note(Damage::of_gap(*kind, lost.clone()));
        }
        Ok(Loaded { frames, ends, lost: layout.lost.into_iter().map(|(_, lost)| lost).collect() })
    }

    fn failed(&self, block: &Block, source: io::Error) -> LoadFault {
        LoadFault::Read(ReadError::Io { path: block.name.path(&self.shared.dir, FileKind::Log), source })
    }

    /// Where to begin in a block: where the last page ended, when that is on the way.
    fn start_in(&self, block: &Block, at: Key) -> Mark {
        let last = *self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let on_the_way = |last: &Reached| {
            last.segment == block.name
                && last.cuts == block.cuts
                && last.mark.position > block.start.position
                && last.mark.position < block.end.position
                && at.of(last.mark) <= at.value()
        };
        last.filter(on_the_way).map_or(block.start, |last| last.mark)
    }

    fn remember(&self, block: &Block, reached: Option<Mark>) {
        let reached = reached.map(|mark| Reached { segment: block.name, mark, cuts: block.cuts });
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = reached;
    }
}

impl Clone for LogReader {
    fn clone(&self) -> Self {
        Self::new(Arc::clone(&self.shared))
    }
}

impl fmt::Debug for LogReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogReader").field("dir", &self.shared.dir).finish_non_exhaustive()
    }
}

impl Page {
    /// Takes what is wanted of a block, in order, until the page is full.
    fn take(&mut self, loaded: Loaded, at: Key, bytes_max: usize, bytes: &mut usize) -> Taken {
        let mut last = None;
        let mut lost = loaded.lost.into_iter().peekable();
        for (frame, end) in loaded.frames.into_iter().zip(loaded.ends) {
            let wanted = match at {
                Key::Offset(from) => frame.count > 0 && frame.end() > from,
                Key::Record(from) => frame.record >= from,
            };
            let len = frame.payload.len().saturating_add(HEADER_LEN);
            if wanted && !self.frames.is_empty() && bytes.saturating_add(len) > bytes_max {
                return Taken::Full(last);
            }
            while let Some(lost) = lost.next_if(|lost| lost.records.start <= frame.record) {
                self.skip_lost(&lost, at);
            }
            last = Some(end);
            if wanted {
                *bytes = bytes.saturating_add(len);
                self.frames.push(frame);
            }
        }
        lost.for_each(|lost| self.skip_lost(&lost, at));
        Taken::All
    }

    fn skip_lost(&mut self, lost: &Lost, at: Key) {
        let from = match at {
            Key::Offset(from) => lost.offsets.start.max(from),
            Key::Record(from) if lost.records.end <= from => lost.offsets.end,
            Key::Record(_) => lost.offsets.start,
        };
        self.skip(from, lost.offsets.end, SkipReason::Damaged);
    }

    /// Adds offsets that will not come, to the last ones when they go on from there.
    fn skip(&mut self, from: u64, to: u64, why: SkipReason) {
        if from >= to {
            return;
        }
        match self.skipped.last_mut().filter(|last| last.to == from && last.why == why) {
            Some(last) => last.to = to,
            None => self.skipped.push(Skipped { from, to, why }),
        }
    }
}

impl OwnedFrame {
    fn of(header: &FrameHeader, payload: &[u8]) -> Self {
        Self {
            kind: header.kind,
            flags: header.flags,
            count: header.count,
            offset: header.offset,
            record: 0,
            synced: header.synced,
            time_ms: header.time_ms,
            payload: Bytes::copy_from_slice(payload),
        }
    }
}
