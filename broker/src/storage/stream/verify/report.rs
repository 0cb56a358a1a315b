//! What a check of a stream says.

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::PathBuf;

use sealbus_protocol::tlog::Hash;

use crate::storage::log::{LogError, ReadError};

/// Why a stream cannot be checked.
#[derive(Debug)]
pub enum VerifyError {
    /// The directory cannot be read.
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The log cannot be opened.
    Log(LogError),
    /// The log cannot be read.
    Read(ReadError),
    /// The log key is no key.
    LogKey,
}

impl fmt::Display for VerifyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory { path, source } => write!(f, "could not read {}: {source}", path.display()),
            Self::Log(error) => error.fmt(f),
            Self::Read(error) => error.fmt(f),
            Self::LogKey => f.write_str("the log key is no Ed25519 key, or a weak one"),
        }
    }
}

impl std::error::Error for VerifyError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Directory { source, .. } => Some(source),
            Self::Log(error) => Some(error),
            Self::Read(error) => Some(error),
            Self::LogKey => None,
        }
    }
}

/// Something that is not as it must be, other than damage that the log finds by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The record; none when it is about the whole.
    pub record: Option<u64>,
    /// Its offset.
    pub offset: Option<u64>,
    /// What is wrong.
    pub what: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.record, self.offset) {
            (Some(record), Some(offset)) => write!(f, "record {record} at offset {offset}: {}", self.what),
            _ => f.write_str(&self.what),
        }
    }
}

/// What the checkpoint says of the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CheckpointFinding {
    /// There is none.
    Missing,
    /// It is not a checkpoint of this stream by this key.
    Refused(String),
    /// It is over more records than the stream has: the stream was cut.
    Beyond {
        /// Batches under it.
        size: u64,
    },
    /// It is over other batches than these: the stream was rewritten.
    Contradicted {
        /// Batches under it.
        size: u64,
        /// Its root.
        signed: Hash,
        /// The root of as many batches here.
        found: Hash,
    },
    /// Records under it are lost without even a leaf: what is left can neither confirm nor contradict it.
    Unprovable {
        /// Batches under it.
        size: u64,
    },
    /// The stream begins with exactly what it is over.
    Confirmed {
        /// Batches under it.
        size: u64,
        /// Its root.
        root: Hash,
    },
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifyReport {
    /// Offsets that are kept.
    pub offsets: Range<u64>,
    /// Records that the stream has had.
    pub records: u64,
    /// Records that retention removed; only their leaves are left.
    pub trimmed_records: u64,
    /// Records that are not there any more although they should be, without even a leaf.
    pub lost_records: u64,
    /// Batches whose signature verifies under a key that was good then.
    pub verified: u64,
    /// Messages in them.
    pub messages: u64,
    /// Bytes of the records that were read.
    pub bytes: u64,
    /// Producers' incarnations that were met.
    pub incarnations: u64,
    /// When the first and the last batch that are kept were appended.
    pub times_ms: Option<(u64, u64)>,
    /// The root over all records.
    pub root: Hash,
    /// What the checkpoint says.
    pub checkpoint: CheckpointFinding,
    /// What the log found damaged, in words.
    pub damage: Vec<String>,
    /// What else is wrong, the first thousand.
    pub faults: Vec<Fault>,
    /// How many there are.
    pub fault_count: u64,
    /// Bytes of a torn tail, of which nobody had been told that it was kept.
    pub torn_bytes: u64,
}

/// The report in one word, worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The stream is not what was signed: by its producers, or by the broker over all of it.
    Altered,
    /// Parts of it are damaged or gone; what is left is what was signed.
    Damaged,
    /// All is well, but no checkpoint vouches for it.
    Unvouched,
    /// All is well.
    Whole,
}

impl VerifyReport {
    /// The report in one word.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        match self.checkpoint {
            CheckpointFinding::Contradicted { .. }
            | CheckpointFinding::Beyond { .. }
            | CheckpointFinding::Refused(_) => Verdict::Altered,
            _ if self.fault_count > 0 => Verdict::Altered,
            _ if !self.damage.is_empty() || self.lost_records > 0 => Verdict::Damaged,
            CheckpointFinding::Unprovable { .. } => Verdict::Damaged,
            CheckpointFinding::Missing if self.records > 0 => Verdict::Unvouched,
            CheckpointFinding::Missing | CheckpointFinding::Confirmed { .. } => Verdict::Whole,
        }
    }
}
