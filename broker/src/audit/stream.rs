//! What is worth an audit line about streams themselves: their storage, and the work of their consumers.

use std::fmt;

/// Something that happened to a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StreamChange {
    /// Its directory was made: it begins at offset 0.
    Created,
    /// It was opened by the broker that starts.
    Opened {
        /// The first offset that is kept.
        first: u64,
        /// The offset after the last.
        end: u64,
    },
    /// Bytes below what was acknowledged are not what was written. They are kept, and never served.
    Damaged(String),
    /// Something that can be derived from the log was lost and has been made anew.
    Repaired(String),
    /// Nothing is appended any more, for this reason.
    Stopped(String),
    /// There is no room on the disk: publishers are refused.
    Full,
    /// There is room again.
    Resumed,
    /// A segment is complete.
    SegmentSealed {
        /// Its first offset.
        from: u64,
        /// The offset after its last.
        to: u64,
        /// Its bytes.
        bytes: u64,
    },
    /// The oldest segments were removed, by retention or by hand.
    Trimmed {
        /// The stream began here.
        from: u64,
        /// It begins here now.
        to: u64,
        /// Why, in a word.
        why: &'static str,
    },
    /// A consumer was given records often enough: they are in its dead letters now.
    DeadLettered {
        /// The consumer.
        consumer: String,
        /// Offset of the batch that holds them.
        offset: u64,
        /// How many they are.
        records: u64,
    },
}

impl StreamChange {
    /// The event's name, the same in every version.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Created => "stream-created",
            Self::Opened { .. } => "stream-opened",
            Self::Damaged(_) => "stream-damaged",
            Self::Repaired(_) => "stream-repaired",
            Self::Stopped(_) => "stream-stopped",
            Self::Full => "stream-full",
            Self::Resumed => "stream-resumed",
            Self::SegmentSealed { .. } => "segment-sealed",
            Self::Trimmed { .. } => "stream-trimmed",
            Self::DeadLettered { .. } => "dead-lettered",
        }
    }

    /// What went wrong, in a sentence, when something did.
    #[must_use]
    pub fn fault(&self) -> Option<&str> {
        match self {
            Self::Damaged(reason) | Self::Repaired(reason) | Self::Stopped(reason) => Some(reason),
            Self::Full => Some("there is no room on the disk above the reserve"),
            Self::Created
            | Self::Opened { .. }
            | Self::Resumed
            | Self::SegmentSealed { .. }
            | Self::Trimmed { .. }
            | Self::DeadLettered { .. } => None,
        }
    }
}

impl fmt::Display for StreamChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.fault() {
            Some(fault) => write!(f, "{}: {fault}", self.name()),
            None => f.write_str(self.name()),
        }
    }
}
