//! Which part of the storage did not do what it was told, and what it said.

use std::fmt;

use sealbus_broker::storage::log::LogError;
use sealbus_broker::storage::system::SystemLog;

/// A part of the storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// A stream.
    Stream(usize),
    /// A log of the broker's own.
    System(SystemLog),
}

/// Something did not do what it was told.
#[derive(Debug, Clone)]
pub struct Refused {
    /// Which part.
    pub part: Part,
    /// What it said.
    pub text: String,
    /// Whether it said that there is no room.
    pub is_full: bool,
    /// Whether it said that it can be used as before.
    pub is_usable: bool,
}

impl Refused {
    pub(super) fn by(part: Part, error: &LogError) -> Self {
        Self { part, text: error.to_string(), is_full: error.is_full(), is_usable: error.is_usable() }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stream(number) => write!(f, "stream {number}"),
            Self::System(log) => log.fmt(f),
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.part, self.text)
    }
}
