//! What happens to a stream besides batches, for operators and the audit log.

use std::fmt;
use std::sync::Arc;

/// What happens to a stream besides batches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StreamEvent {
    /// Something below the durable end cannot be read, or was changed.
    Damaged(StreamDamage),
    /// Nothing is appended any more.
    Stopped(Arc<str>),
    /// The disk is full: publishers are refused until there is room.
    Full,
    /// There is room again.
    Resumed,
    /// A segment is complete.
    SegmentSealed {
        /// Its first offset.
        base_offset: u64,
        /// The offset after its last.
        end_offset: u64,
        /// Its bytes.
        bytes: u64,
    },
    /// Segments were removed.
    Trimmed {
        /// The stream began here.
        from: u64,
        /// It begins here now.
        to: u64,
        /// Why.
        why: TrimReason,
    },
    /// Retention was put off: the clock and the ticks disagree about how much time has passed.
    ClockJumped {
        /// Milliseconds by the clock since the last pass; below 0 when it went back.
        clock_ms: i64,
        /// Milliseconds that really passed.
        tick_ms: u64,
    },
    /// A checkpoint was signed and kept.
    CheckpointSigned {
        /// Batches under it.
        size: u64,
    },
}

/// Why segments are removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrimReason {
    /// An administrator said so.
    Asked,
    /// They are older than the stream keeps.
    Age,
    /// The stream has more bytes than it keeps.
    Bytes,
    /// The stream has more messages than it keeps.
    Messages,
}

/// What is wrong with a stream's past.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StreamDamage {
    /// The log found this.
    Log(String),
    /// An index file was bad and has been made again. Nothing is lost by it; the disk that did it wants to be looked at.
    IndexRebuilt(String),
    /// A record has a whole frame that does not hold a batch.
    Record {
        /// Its offset.
        offset: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// The stream does not lead to the checkpoint that was signed over it.
    HistoryRewritten(String),
    /// The newest checkpoint is gone or was put back to an older one; the log is whole.
    CheckpointLost(String),
}

impl fmt::Display for StreamDamage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Log(text)
            | Self::IndexRebuilt(text)
            | Self::HistoryRewritten(text)
            | Self::CheckpointLost(text) => f.write_str(text),
            Self::Record { offset, reason } => write!(f, "the record at offset {offset}: {reason}"),
        }
    }
}
