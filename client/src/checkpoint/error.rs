//! Why a history is not believed.

use std::fmt;

use sealbus_protocol::keys::KeyError;
use sealbus_protocol::refusal::Code;
use sealbus_protocol::stream_name::StreamNameError;
use sealbus_protocol::tlog::{self, VerifyError};

use crate::error::RequestError;

/// Why there is no checkpoint that may be believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CheckpointError {
    /// The text is not the name of a stream.
    Stream(StreamNameError),
    /// The trust file names no log key, so no checkpoint is believed.
    NoLogKey,
    /// The broker gave none.
    Request(RequestError),
    /// The note is of another bus, or of no stream.
    Origin {
        /// The log that it names.
        found: String,
    },
    /// The log key cannot be used.
    Key(KeyError),
    /// The note is malformed, or the log key did not sign it.
    Signature(tlog::CheckpointError),
    /// The broker says another size than it signed.
    Size {
        /// What is signed.
        signed: u64,
        /// What it says.
        said: u64,
    },
    /// The log is smaller than it was. The notes are the evidence.
    RolledBack {
        /// The size that was seen.
        seen: u64,
        /// The size now.
        found: u64,
        /// The note that was seen first.
        older: String,
        /// The note of now.
        newer: String,
    },
    /// The log is not a continuation of what was seen, or was not proven to be. The notes are the evidence: of one size
    /// with two roots they prove it by themselves.
    Inconsistent {
        /// The note that was seen first.
        older: String,
        /// The note that was not proven to continue it.
        newer: String,
        /// What the proof came to.
        error: VerifyError,
    },
    /// More logs than this bus can have.
    TooManyLogs {
        /// The limit.
        max: usize,
    },
}

impl CheckpointError {
    /// The broker's code, where it refused.
    #[must_use]
    pub const fn code(&self) -> Option<Code> {
        match self {
            Self::Request(error) => error.code(),
            Self::Stream(_)
            | Self::NoLogKey
            | Self::Origin { .. }
            | Self::Key(_)
            | Self::Signature(_)
            | Self::Size { .. }
            | Self::RolledBack { .. }
            | Self::Inconsistent { .. }
            | Self::TooManyLogs { .. } => None,
        }
    }
}

impl fmt::Display for CheckpointError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stream(error) => write!(f, "cannot ask for a checkpoint: {error}"),
            Self::NoLogKey => {
                f.write_str("cannot believe a checkpoint: the trust file names no key ([log] key = \"..\")")
            }
            Self::Request(error) => write!(f, "the broker gave no checkpoint: {error}"),
            Self::Origin { found } => {
                write!(f, "the checkpoint is of {found:?}, which is no stream of this bus")
            }
            Self::Key(error) => write!(f, "the log key cannot be used: {error}"),
            Self::Signature(error) => write!(f, "the checkpoint is not believed: {error}"),
            Self::Size { signed, said } => {
                write!(f, "the checkpoint is signed for {signed} batches, the broker says {said}")
            }
            Self::RolledBack { seen, found, .. } => {
                write!(f, "the history was cut: the log had {seen} batches and now has {found}")
            }
            Self::Inconsistent { error, .. } => {
                write!(f, "the history does not continue what was seen before: {error}")
            }
            Self::TooManyLogs { max } => write!(f, "cannot follow another log: the limit is {max}"),
        }
    }
}

impl std::error::Error for CheckpointError {}

/// Why a message is not proven to be in its stream's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProveError {
    /// It was not read from a stream, or is a dead letter: its place in a log is not known.
    NoPlace,
    /// There is no checkpoint to prove it by.
    Checkpoint(CheckpointError),
    /// The checkpoint is of another stream than the message.
    OtherStream,
    /// No checkpoint with the message in it came within the request deadline. Brokers sign one a second.
    NotYet {
        /// Batches in the newest.
        size: u64,
        /// The batch's place.
        index: u64,
    },
    /// The proof does not lead from the message to the checkpoint: the broker says something else about it than it
    /// signed.
    NotIncluded(VerifyError),
}

impl fmt::Display for ProveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoPlace => {
                f.write_str("the message was not read from a stream, so it has no place in a log")
            }
            Self::Checkpoint(error) => error.fmt(f),
            Self::OtherStream => {
                f.write_str("another stream has the name of the one that the message is from")
            }
            Self::NotYet { size, index } => {
                write!(f, "the newest checkpoint has {size} batches, the message is in batch {index}, from 0")
            }
            Self::NotIncluded(error) => write!(f, "the message is not proven to be in its stream: {error}"),
        }
    }
}

impl std::error::Error for ProveError {}

impl From<CheckpointError> for ProveError {
    fn from(error: CheckpointError) -> Self {
        Self::Checkpoint(error)
    }
}
