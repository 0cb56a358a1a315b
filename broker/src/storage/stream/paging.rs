//! Pages of a stream from the disk.
//!
//! A batch without messages takes no offset, yet a reader that follows its producer's sequence must see it: it comes
//! with the batch that follows it. Readers name offsets, so that where the next page begins among such records is
//! remembered for the pages that were read last, and looked up otherwise.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use super::record::decode;
use super::store::{Bounds, SkipReason, SkippedOffsets, StoreError, Stored, StoredPage};
use crate::locks::lock;
use crate::storage::log::{LogReader, OwnedFrame, Page, ReadError, SkipReason as LogSkip, Skipped};

/// Ends of pages that are remembered: as many readers go through one stream at a time without a second look.
const PLACES_KEPT: usize = 256;

/// Records without messages that are handed out with one batch. A stream of nothing but signs of life is not held in
/// memory for the sake of what may follow.
const EMPTY_MAX: usize = 4_096;

/// At which record the page begins that follows some offset.
#[derive(Debug, Default)]
pub(super) struct Places(VecDeque<(u64, u64)>);

impl Places {
    fn find(&self, offset: u64) -> Option<u64> {
        self.0.iter().rev().find(|(known, _)| *known == offset).map(|(_, record)| *record)
    }

    fn keep(&mut self, offset: u64, record: u64) {
        if self.0.len() == PLACES_KEPT {
            self.0.pop_front();
        }
        self.0.push_back((offset, record));
    }
}

/// Batches from the one that holds `from` onwards, as far as they are visible.
pub(super) fn read_page(
    reader: &LogReader,
    places: &Mutex<Places>,
    bounds: Bounds,
    end_record: u64,
    from: u64,
    bytes_max: usize,
) -> Result<StoredPage, StoreError> {
    let mut collected = Collected {
        page: StoredPage { batches: Vec::new(), next: from, skipped: Vec::new() },
        whole: 0,
        bounds,
        end_record,
        after: None,
    };
    if from >= bounds.end {
        return Ok(collected.page);
    }
    let known = lock(places).find(from);
    let mut page =
        match known.map_or_else(|| record_after(reader, from, bounds), |record| Ok(Some(record)))? {
            Some(record) => reader.read_records(record, bytes_max),
            None => reader.read(from, bytes_max),
        }
        .map_err(|error| disk(&error))?;
    let mut asked = known;
    loop {
        let Page { frames, next_record, skipped, next } = page;
        // A page is bounded work and may give nothing although more follows.
        let moved = asked.map_or(next > from, |record| next_record > record);
        let is_end = frames.is_empty() && skipped.is_empty() && !moved;
        asked = Some(next_record);
        collected.add(frames, &skipped);
        if collected.whole > 0 || !collected.page.skipped.is_empty() || is_end {
            break;
        }
        page = reader.read_records(next_record, bytes_max).map_err(|error| disk(&error))?;
    }
    let Collected { mut page, whole, after, .. } = collected;
    page.batches.truncate(whole);
    if let Some(record) = after {
        lock(places).keep(page.next, record);
    }
    Ok(page)
}

/// The record with which a page from this offset begins, when the one before it tells: none when that is gone.
fn record_after(reader: &LogReader, from: u64, bounds: Bounds) -> Result<Option<u64>, StoreError> {
    if from == 0 {
        return Ok(Some(0).filter(|_| bounds.first == 0));
    }
    let Some(before) = from.checked_sub(1).filter(|before| *before >= bounds.first) else {
        return Ok(None);
    };
    let page = reader.read(before, 1).map_err(|error| disk(&error))?;
    Ok(page
        .frames
        .first()
        .filter(|frame| page.skipped.is_empty() && frame.offset <= before)
        .map(|frame| if frame.end() > from { frame.record } else { frame.record.saturating_add(1) }))
}

struct Collected {
    page: StoredPage,
    /// Batches up to the last one with messages.
    whole: usize,
    bounds: Bounds,
    end_record: u64,
    /// The record that follows the last whole one.
    after: Option<u64>,
}

impl Collected {
    fn add(&mut self, frames: Vec<OwnedFrame>, skipped: &[Skipped]) {
        let mut skipped = skipped.iter().peekable();
        for frame in frames {
            while let Some(gap) = skipped.next_if(|gap| gap.from <= frame.offset) {
                self.skip(gap);
            }
            if frame.record >= self.end_record {
                return;
            }
            match decode(&frame) {
                Ok(stored) => self.keep(stored, frame.record),
                // A whole frame that holds no batch: nobody can make anything of it.
                Err(_) if frame.count == 0 => {}
                Err(_) => self.skip_offsets(SkippedOffsets {
                    from: frame.offset,
                    to: frame.end(),
                    why: SkipReason::Damaged,
                }),
            }
        }
        skipped.for_each(|gap| self.skip(gap));
    }

    fn keep(&mut self, stored: Stored, record: u64) {
        if stored.messages == 0 && self.page.batches.len().saturating_sub(self.whole) >= EMPTY_MAX {
            return;
        }
        let is_whole = stored.messages > 0;
        let next = stored.next_offset();
        self.page.batches.push(Arc::new(stored));
        if is_whole {
            self.whole = self.page.batches.len();
            self.page.next = self.page.next.max(next);
            self.after = Some(record.saturating_add(1));
        }
    }

    fn skip(&mut self, gap: &Skipped) {
        let why = match gap.why {
            LogSkip::Trimmed => SkipReason::Trimmed,
            LogSkip::Damaged => SkipReason::Damaged,
        };
        self.skip_offsets(SkippedOffsets { from: gap.from, to: gap.to, why });
    }

    fn skip_offsets(&mut self, gap: SkippedOffsets) {
        let to = gap.to.min(self.bounds.end);
        if gap.from < to && to > self.page.next {
            self.page.skipped.push(SkippedOffsets { from: gap.from.max(self.page.next), to, ..gap });
            self.page.next = to;
            // Where the records go on behind a gap is for the log to say.
            self.after = None;
        }
    }
}

fn disk(error: &ReadError) -> StoreError {
    StoreError::Disk(error.to_string())
}
