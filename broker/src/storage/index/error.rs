//! What can go wrong with the index. None of it loses anything: the logs have it all.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// Why the index did not do something.
#[derive(Debug)]
pub enum IndexError {
    /// The engine below said no.
    Engine {
        /// What was attempted.
        doing: &'static str,
        /// What it said.
        source: ::sled::Error,
    },
    /// The engine below panicked. It is not called again.
    Panicked {
        /// What was attempted.
        doing: &'static str,
    },
    /// It failed before, and is not called again.
    Failed {
        /// What was attempted now.
        doing: &'static str,
    },
    /// What it holds cannot have been written like that.
    Damaged {
        /// What is wrong.
        what: Damage,
    },
    /// A watermark below the one that is kept: the log must be cleared first.
    Backwards {
        /// Records that were followed.
        kept: u64,
        /// Records that the new one speaks of.
        given: u64,
    },
    /// A row that is larger than its kind may be.
    TooLarge {
        /// What.
        what: &'static str,
        /// The limit.
        max: usize,
        /// What was given.
        found: usize,
    },
    /// The directory of a damaged index could not be moved aside.
    Aside {
        /// The directory.
        dir: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// What is wrong with the rows of an index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Damage {
    /// A row's key is none that is written.
    Key,
    /// A row's value does not decode.
    Value {
        /// Of which table.
        table: &'static str,
    },
    /// The rows of a log are not those that its watermark was written with.
    Tally,
    /// Rows of a log without a watermark.
    NoWatermark,
    /// There is no schema version.
    NoSchema,
    /// It is of another version.
    Version {
        /// Which.
        found: u32,
    },
    /// It is of another bus.
    OtherBus,
}

impl fmt::Display for IndexError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Engine { doing, source } => write!(f, "the index failed to {doing}: {source}"),
            Self::Panicked { doing } => write!(f, "the index failed to {doing}: its engine panicked"),
            Self::Failed { doing } => write!(f, "the index does not {doing}: it failed before"),
            Self::Damaged { what } => write!(f, "the index is damaged: {what}"),
            Self::Backwards { kept, given } => {
                write!(f, "the index has followed {kept} records and cannot go back to {given}")
            }
            Self::TooLarge { what, max, found } => {
                write!(f, "the index keeps {what} of at most {max}, this one has {found}")
            }
            Self::Aside { dir, source } => {
                write!(f, "the damaged index {} could not be moved aside: {source}", dir.display())
            }
        }
    }
}

impl std::error::Error for IndexError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Engine { source, .. } => Some(source),
            Self::Aside { source, .. } => Some(source),
            Self::Panicked { .. }
            | Self::Failed { .. }
            | Self::Damaged { .. }
            | Self::Backwards { .. }
            | Self::TooLarge { .. } => None,
        }
    }
}

impl From<Damage> for IndexError {
    fn from(what: Damage) -> Self {
        Self::Damaged { what }
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key => f.write_str("a row has a key that is never written"),
            Self::Value { table } => write!(f, "a row of the {table} does not decode"),
            Self::Tally => f.write_str("the rows of a log are not those that its watermark was written with"),
            Self::NoWatermark => f.write_str("a log has rows and no watermark"),
            Self::NoSchema => f.write_str("it does not say of which version it is"),
            Self::Version { found } => write!(f, "it is of version {found}"),
            Self::OtherBus => f.write_str("it is of another bus"),
        }
    }
}
