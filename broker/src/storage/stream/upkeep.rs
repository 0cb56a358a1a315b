//! What the owner of a stream does for it now and then: snapshots of its producers, its place for the index, a look at
//! every byte.

use std::ops::ControlFlow;

use super::handle::Stream;
use super::store::StoreError;
use crate::locks::lock;
use crate::storage::log::{ReadError, ScrubReport};

impl Stream {
    /// A snapshot of the producers up to this record is durable: what is before it may be trimmed. Never blocks.
    pub fn set_snapshot_record(&self, record: u64) {
        self.note_snapshot(record);
        self.wake();
    }

    /// The record with which the growing segment begins, as the writer saw it last.
    #[must_use]
    pub fn sealed_record(&self) -> u64 {
        lock(&self.visible).gauges.sealed_record
    }

    /// Where the stream stood when such a snapshot was made: the offset after its last record, and that record's digest.
    ///
    /// # Errors
    /// [`StoreError`] when the disk cannot be read.
    pub fn place_of(&self, record: u64) -> Result<Option<(u64, [u8; 32])>, StoreError> {
        let Some(last) = record.checked_sub(1) else { return Ok(Some((0, [0; 32]))) };
        let fail = |error: ReadError| StoreError::Disk(error.to_string());
        let mut end_offset = None;
        self.reader
            .scan(last, &mut |frame| {
                end_offset =
                    (frame.record == last).then(|| frame.offset.saturating_add(u64::from(frame.count)));
                ControlFlow::Break(())
            })
            .map_err(fail)?;
        let digest = self.reader.digest(last).map_err(fail)?;
        Ok(end_offset.zip(digest))
    }

    /// The digest of a record, as far as it is known.
    #[must_use]
    pub fn digest_of(&self, record: u64) -> Option<[u8; 32]> {
        self.reader.digest(record).ok().flatten()
    }

    /// Reads all of it, for as long as it is told to go on. What is found is reported like any damage. Blocks.
    ///
    /// # Errors
    /// [`StoreError`] when the disk cannot be read.
    pub fn scrub_while(&self, go_on: &mut dyn FnMut() -> ControlFlow<()>) -> Result<ScrubReport, StoreError> {
        let mut stopped = false;
        let mut asked = || {
            let told = go_on();
            stopped = told.is_break();
            told
        };
        let looked = self.reader.scrub_while(&mut asked);
        if looked.is_ok() && !stopped {
            let gauges = &mut lock(&self.visible).gauges;
            gauges.scrubs = gauges.scrubs.saturating_add(1);
        }
        // The writer reports what the log has found.
        self.wake();
        looked.map_err(|error| StoreError::Disk(error.to_string()))
    }
}
