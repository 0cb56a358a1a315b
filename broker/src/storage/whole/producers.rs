//! Snapshots of the streams' producers in `$producers`: before a stream is trimmed, and no more of them than are needed.
//!
//! ```text
//!   $producers   | a 3 | b 7 | a 9 | c 2 | a 15 | b 20 |      a, b, c: streams. The newest of each counts: c 2, a 15, b 20.
//!                |<--- trimmed --->|                           What is before the oldest of those may go.
//! ```
//!
//! A stream that rests, or that the policy no longer has, would hold its place for ever: when the log is much longer than
//! what counts of it, the oldest that counts is written anew.

use std::collections::HashMap;
use std::ops::{ControlFlow, Range};
use std::sync::{Arc, Mutex};

use sealbus_protocol::ids::StreamId;

use super::storage::Storage;
use crate::locks::lock;
use crate::storage::log::{LogReader, ReadError};
use crate::storage::stream::store::StreamStore as _;
use crate::storage::stream::{ProducerSnapshot, Stream};
use crate::storage::system::producers::{PRODUCERS_FRAME, Snapshots, decode_producers, encode_producers};
use crate::storage::system::{SystemError, SystemFrame, SystemLog};
use crate::telemetry;

/// Bytes up to which `$producers` is left as it is: two segments, the last of which cannot be removed.
const BYTES_MIN: u64 = 8 * 1_024 * 1_024;

/// How many times longer than what counts of it `$producers` may be. Writing anew costs what counts, so that this often
/// is cheap.
const TIMES_MAX: u64 = 3;

/// What is in `$producers`.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// The newest durable snapshot of each stream.
    kept: HashMap<StreamId, Place>,
    /// Snapshots on their way: up to which record of the stream.
    asked: HashMap<StreamId, u64>,
    /// Everything before this offset was asked to be removed.
    trimmed: u64,
}

/// A snapshot in `$producers`.
#[derive(Debug, Clone, Copy, Default)]
struct Place {
    /// Everything before this record of the stream is in it.
    record: u64,
    /// Where its first part is.
    offset: u64,
    bytes: u64,
}

impl Ledger {
    /// Reads `$producers`: what counts of it, and where that is. What cannot be understood is told to `refused`.
    pub(super) fn read(
        reader: &LogReader,
        refused: &mut dyn FnMut(String),
    ) -> Result<(Self, Snapshots), ReadError> {
        let (mut ledger, mut snapshots) = (Self::default(), Snapshots::default());
        let mut begun: HashMap<StreamId, Place> = HashMap::new();
        reader.scan(0, &mut |frame| {
            if frame.kind != PRODUCERS_FRAME {
                return ControlFlow::Continue(());
            }
            match decode_producers(frame.payload) {
                Ok(part) => {
                    let place = begun.entry(part.stream).or_default();
                    if part.part == 0 {
                        *place = Place { record: part.record, offset: frame.offset, bytes: 0 };
                    }
                    place.bytes = place.bytes.saturating_add(frame.payload.len() as u64);
                    let place = *place;
                    if let Some(stream) = snapshots.take_in(part) {
                        ledger.kept.insert(stream, place);
                    }
                }
                Err(error) => refused(format!("$producers, record {}: {error}", frame.record)),
            }
            ControlFlow::Continue(())
        })?;
        Ok((ledger, snapshots))
    }

    /// The record up to which there is a durable snapshot of a stream.
    pub(super) fn record(&self, stream: StreamId) -> u64 {
        self.kept.get(&stream).map_or(0, |place| place.record)
    }

    /// The same with what is on its way.
    fn asked(&self, stream: StreamId) -> u64 {
        self.asked.get(&stream).copied().unwrap_or_default().max(self.record(stream))
    }

    /// The snapshot that counts and is furthest back; none that is being written anew.
    fn oldest(&self) -> Option<StreamId> {
        let settled = self.kept.iter().filter(|(stream, _)| !self.asked.contains_key(stream));
        settled.min_by_key(|(_, place)| place.offset).map(|(stream, _)| *stream)
    }

    /// Where the first snapshot that counts begins, when that is further on than it was.
    fn take_superseded(&mut self) -> Option<u64> {
        let first = self.kept.values().map(|place| place.offset).min()?;
        let is_further = first > self.trimmed;
        self.trimmed = first.max(self.trimmed);
        is_further.then_some(first)
    }

    fn bytes(&self) -> u64 {
        self.kept.values().map(|place| place.bytes).fold(0, u64::saturating_add)
    }

    fn settle(&mut self, stream: StreamId, place: Place) {
        self.asked.remove(&stream);
        self.kept.insert(stream, place);
    }
}

impl Storage {
    /// Keeps the producers of each stream that has completed a segment since they were kept, so that it may be trimmed,
    /// and `$producers` short. Blocks.
    pub fn keep_producers(&self) {
        for stream in self.captured() {
            if stream.sealed_record() > lock(&self.ledger).asked(stream.id()) {
                self.keep_producers_of(&stream);
            }
        }
        self.shorten_producers();
    }

    /// Keeps them all, as they are now. Blocks.
    pub(super) fn keep_all_producers(&self) {
        for stream in self.captured() {
            if stream.stats().records > lock(&self.ledger).asked(stream.id()) {
                self.keep_producers_of(&stream);
            }
        }
    }

    fn keep_producers_of(&self, stream: &Stream) {
        if let Ok(snapshot) = stream.producers() {
            self.write_snapshot(stream.id(), &snapshot);
        }
    }

    pub(super) fn write_snapshot(&self, id: StreamId, snapshot: &ProducerSnapshot) {
        let payloads = encode_producers(id, snapshot);
        let bytes = payloads.iter().map(|payload| payload.len() as u64).fold(0, u64::saturating_add);
        let frames = payloads
            .into_iter()
            .map(|payload| SystemFrame { kind: PRODUCERS_FRAME, flags: 0, payload })
            .collect();
        let record = snapshot.record;
        lock(&self.ledger).asked.insert(id, record);
        let (ledger, stream): (Arc<Mutex<Ledger>>, _) = (Arc::clone(&self.ledger), self.streams.find(id));
        let done = move |kept: Result<Range<u64>, SystemError>| match kept {
            Ok(records) => {
                // Each record of this log takes one offset, so that these numbers are offsets as well.
                lock(&ledger).settle(id, Place { record, offset: records.start, bytes });
                if let Some(stream) = stream {
                    stream.set_snapshot_record(record);
                }
            }
            Err(error) => {
                lock(&ledger).asked.remove(&id);
                tracing::error!({ telemetry::ERROR } = %error, { telemetry::STREAM } = %id, "producers were not kept");
            }
        };
        self.system.append(SystemLog::Producers, frames, Box::new(done));
    }

    fn shorten_producers(&self) {
        let reader = self.system.reader(SystemLog::Producers);
        let (superseded, oldest) = {
            let mut ledger = lock(&self.ledger);
            let bytes_max = BYTES_MIN.max(ledger.bytes().saturating_mul(TIMES_MAX));
            (ledger.take_superseded(), ledger.oldest().filter(|_| reader.bytes() > bytes_max))
        };
        if let Some(before_offset) = superseded {
            self.system.trim(SystemLog::Producers, before_offset);
        }
        let Some(id) = oldest else { return };
        match self.streams.find(id) {
            Some(stream) => self.keep_producers_of(&stream),
            None => {
                let snapshot = lock(&self.snapshots).find(id).cloned();
                if let Some(snapshot) = snapshot {
                    self.write_snapshot(id, &snapshot);
                }
            }
        }
    }
}
