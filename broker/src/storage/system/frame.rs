//! What goes into the system logs, and what they are called.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use sealbus_protocol::ids::StreamId;

use crate::storage::log::LogError;

/// One of the broker's own logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SystemLog {
    /// Every policy that was in force.
    Policy,
    /// The key bindings of producers.
    Keys,
    /// Where durable consumers stand.
    Cursors,
    /// Where producers' sequences stand.
    Producers,
}

impl SystemLog {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Policy, Self::Keys, Self::Cursors, Self::Producers];

    /// Its directory below that of the system logs.
    #[must_use]
    pub const fn directory(self) -> &'static str {
        match self {
            Self::Policy => "policy",
            Self::Keys => "keys",
            Self::Cursors => "cursors",
            Self::Producers => "producers",
        }
    }

    /// The id in its files. No stream of a policy has one that reads as text with a `$` in front.
    #[must_use]
    pub const fn log_id(self) -> StreamId {
        StreamId::new(match self {
            Self::Policy => *b"$policy\0\0\0\0\0\0\0\0\0",
            Self::Keys => *b"$keys\0\0\0\0\0\0\0\0\0\0\0",
            Self::Cursors => *b"$cursors\0\0\0\0\0\0\0\0",
            Self::Producers => *b"$producers\0\0\0\0\0\0",
        })
    }
}

impl fmt::Display for SystemLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "${}", self.directory())
    }
}

/// A record of a system log. It takes one offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SystemFrame {
    /// What the payload is.
    pub kind: u8,
    /// The kind's own.
    pub flags: u8,
    /// The payload.
    pub payload: Bytes,
}

/// Told once what became of an append: the numbers of the records, which are durable then. Called on the system
/// logs' thread, or at once by the caller's when nothing was taken: it must not block.
pub type Completion = Box<dyn FnOnce(Result<Range<u64>, SystemError>) + Send>;

/// Why records were not kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SystemError {
    /// Too much waits to be written. Nothing was taken.
    Busy,
    /// The disk has no room, or did not do it this time. The log is as it was before.
    NotNow(Arc<str>),
    /// A record cannot be written, whatever the disk says.
    Refused(Arc<str>),
    /// The log has stopped, for this reason, until the broker is started again. The records may be there then.
    Stopped(Arc<str>),
    /// The broker is shutting down. Nothing was taken.
    Closed,
}

impl SystemError {
    /// How a log's error is told.
    #[must_use]
    pub fn of(error: &LogError) -> Self {
        let text: Arc<str> = error.to_string().into();
        match error {
            LogError::Frame(_) => Self::Refused(text),
            LogError::Full { .. }
            | LogError::Io { .. }
            | LogError::Poisoned { .. }
            | LogError::Foreign { .. }
            | LogError::Version { .. } => {
                if error.is_usable() {
                    Self::NotNow(text)
                } else {
                    Self::Stopped(text)
                }
            }
        }
    }
}

impl fmt::Display for SystemError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Busy => f.write_str("too much waits for the system logs; try again later"),
            Self::NotNow(reason) => write!(f, "the system log could not be written this time: {reason}"),
            Self::Refused(reason) => write!(f, "the system log cannot hold the record: {reason}"),
            Self::Stopped(reason) => write!(f, "the system log has stopped: {reason}"),
            Self::Closed => f.write_str("the system logs are being closed"),
        }
    }
}

impl std::error::Error for SystemError {}
