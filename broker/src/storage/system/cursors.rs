//! `$cursors`: where the durable consumers stand.
//!
//! ```text
//!   appended:   A=1  B=1  A=2  A=3  B=2  B removed  A=4 | A=4' (written anew)  A=5
//!                                                       |
//!                                 synced first, then everything before it is trimmed
//! ```
//!
//! The newest record of each consumer stands for it, so that the log can be made shorter without a moment at which
//! something is missing: the newest record of each is written anew at the end, synced, and only then do the segments
//! before go. A crash in between leaves both, and they say the same.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::{ControlFlow, Range};
use std::path::Path;
use std::sync::Arc;

use super::consumer::ConsumerKey;
use super::cursor_record::{CursorChange, CursorRecordError, KeptConsumer};
use super::frame::SystemFrame;
use crate::storage::log::{Log, LogError, LogOptions, NewFrame, ReadError, Recovery};
use crate::vfs::Vfs;

/// Bytes that are written anew in one append.
const REWRITE_BYTES: usize = 1_024 * 1_024;

/// What a record costs on the disk besides its payload.
const FRAME_OVERHEAD_BYTES: u64 = 64;

/// The log, and the newest record of each consumer.
pub struct CursorLog {
    log: Log,
    newest: BTreeMap<ConsumerKey, SystemFrame>,
    /// Bytes of the newest records.
    newest_bytes: u64,
    segment_bytes: u64,
    /// Bytes of the log above which it is made shorter.
    shorten_above: u64,
}

/// What opening found.
#[derive(Debug, Default)]
pub struct RecoveredCursors {
    /// The consumers as they stood.
    pub consumers: Vec<KeptConsumer>,
    /// Whole records that are none of this version. Their consumers stand where the record before says; one without
    /// such a record is missing.
    pub refused: Vec<RefusedRecord>,
    /// What the log itself found.
    pub recovery: Recovery,
}

/// A whole record that cannot be understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RefusedRecord {
    /// Its number.
    pub record: u64,
    /// Why.
    pub error: CursorRecordError,
}

impl fmt::Display for RefusedRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "record {} of $cursors was not understood: {}", self.record, self.error)
    }
}

/// Why `$cursors` cannot be opened.
#[derive(Debug)]
pub enum CursorsError {
    /// The log cannot be opened.
    Log(LogError),
    /// It cannot be read.
    Read(ReadError),
}

impl fmt::Display for CursorsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Log(error) => error.fmt(f),
            Self::Read(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for CursorsError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Log(error) => Some(error),
            Self::Read(error) => Some(error),
        }
    }
}

impl CursorLog {
    /// Opens the log and reads where everybody stands.
    ///
    /// # Errors
    /// [`CursorsError`] when the disk refuses. Damage is no error: it is in what was recovered.
    pub fn open(
        vfs: Arc<dyn Vfs>,
        dir: &Path,
        options: LogOptions,
    ) -> Result<(Self, RecoveredCursors), CursorsError> {
        let segment_bytes = options.segment_bytes;
        let (log, recovery) = Log::open(vfs, dir, options).map_err(CursorsError::Log)?;
        let mut cursors = Self {
            log,
            newest: BTreeMap::new(),
            newest_bytes: 0,
            segment_bytes,
            shorten_above: segment_bytes.saturating_mul(2),
        };
        let mut found: BTreeMap<ConsumerKey, KeptConsumer> = BTreeMap::new();
        let mut refused = Vec::new();
        let reader = cursors.log.reader();
        let read = reader.scan(0, &mut |frame| {
            match CursorChange::decode(frame.kind, frame.flags, frame.payload) {
                Ok(change) => {
                    cursors.follow(&change, change.encode());
                    match change {
                        CursorChange::Stands(kept) => {
                            found.insert(kept.key.clone(), kept);
                        }
                        CursorChange::Removed(key) => {
                            found.remove(&key);
                        }
                    }
                }
                Err(error) => refused.push(RefusedRecord { record: frame.record, error }),
            }
            ControlFlow::Continue(())
        });
        read.map_err(CursorsError::Read)?;
        cursors.shorten_above = cursors.next_threshold();
        let consumers = found.into_values().collect();
        Ok((cursors, RecoveredCursors { consumers, refused, recovery }))
    }

    /// Appends records, which must be [`CursorChange::encode`]d. They are durable after [`CursorLog::sync`].
    ///
    /// # Errors
    /// [`CursorAppendError`]; no record was appended when the log is usable still.
    pub fn append(&mut self, frames: &[SystemFrame], now_ms: u64) -> Result<Range<u64>, CursorAppendError> {
        let decoded = frames.iter().map(|frame| {
            CursorChange::decode(frame.kind, frame.flags, &frame.payload).map_err(CursorAppendError::Record)
        });
        let changes: Vec<CursorChange> = decoded.collect::<Result<_, _>>()?;
        let first = self.log.end_record();
        append_frames(&mut self.log, frames.iter(), now_ms).map_err(CursorAppendError::Log)?;
        for (change, frame) in changes.iter().zip(frames) {
            self.follow(change, frame.clone());
        }
        Ok(first..self.log.end_record())
    }

    /// Makes everything appended durable, and the log shorter when it has grown enough.
    ///
    /// # Errors
    /// [`LogError`]; the log has stopped.
    pub fn sync(&mut self, now_ms: u64) -> Result<(), LogError> {
        self.log.sync()?;
        if self.log.bytes() <= self.shorten_above {
            return Ok(());
        }
        match self.shorten(now_ms) {
            Ok(()) => self.shorten_above = self.next_threshold(),
            // What was to be durable is. A log that is too long for a while loses nothing.
            Err(error) if error.is_usable() => {
                self.shorten_above = self.log.bytes().saturating_add(self.segment_bytes);
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// The log itself, for what is the same for all logs.
    pub const fn log(&mut self) -> &mut Log {
        &mut self.log
    }

    fn shorten(&mut self, now_ms: u64) -> Result<(), LogError> {
        let before = self.log.end_offset();
        let frames: Vec<&SystemFrame> = self.newest.values().collect();
        let mut from = 0;
        while from < frames.len() {
            let mut bytes = 0;
            let rest = frames.iter().skip(from);
            let fits = rest.take_while(|frame| {
                let is_first = bytes == 0;
                bytes += frame.payload.len() + FRAME_OVERHEAD_BYTES as usize;
                is_first || bytes <= REWRITE_BYTES
            });
            let fits = fits.count();
            append_frames(&mut self.log, frames.iter().skip(from).take(fits).copied(), now_ms)?;
            from += fits;
        }
        self.log.sync()?;
        self.log.trim(before)?;
        Ok(())
    }

    /// What is left after it was made shorter: the newest records, and the segment that they begin in. From there it
    /// may grow by as much as the newest records are, or by a part of a segment.
    fn next_threshold(&self) -> u64 {
        self.segment_bytes.saturating_mul(2).max(self.newest_bytes.saturating_mul(3))
    }

    fn follow(&mut self, change: &CursorChange, frame: SystemFrame) {
        let added = payload_bytes(&frame);
        let before = match change {
            CursorChange::Stands(kept) => {
                self.newest_bytes += added;
                self.newest.insert(kept.key.clone(), frame)
            }
            CursorChange::Removed(key) => self.newest.remove(key),
        };
        if let Some(before) = before {
            self.newest_bytes -= payload_bytes(&before);
        }
    }
}

impl fmt::Debug for CursorLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CursorLog").field("consumers", &self.newest.len()).finish_non_exhaustive()
    }
}

/// Why records were not appended to `$cursors`.
#[derive(Debug)]
pub enum CursorAppendError {
    /// A record that is none.
    Record(CursorRecordError),
    /// The log refused.
    Log(LogError),
}

impl fmt::Display for CursorAppendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Record(error) => error.fmt(f),
            Self::Log(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for CursorAppendError {}

/// Appends records to a log, each with one offset.
pub(super) fn append_frames<'a>(
    log: &mut Log,
    frames: impl Iterator<Item = &'a SystemFrame>,
    now_ms: u64,
) -> Result<Range<u64>, LogError> {
    let frames: Vec<&SystemFrame> = frames.collect();
    let payloads: Vec<[&[u8]; 1]> = frames.iter().map(|frame| [&frame.payload[..]]).collect();
    let time_ms = now_ms.max(log.last_time_ms());
    let new = frames.iter().zip(&payloads).map(|(frame, payload)| NewFrame {
        kind: frame.kind,
        flags: frame.flags,
        count: 1,
        time_ms,
        payload,
    });
    let first = log.end_record();
    log.append(&new.collect::<Vec<_>>())?;
    Ok(first..log.end_record())
}

fn payload_bytes(frame: &SystemFrame) -> u64 {
    (frame.payload.len() as u64).saturating_add(FRAME_OVERHEAD_BYTES)
}
