//! What can go wrong with a log as a whole. Damage to frames is no error: it is reported and skipped.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use sealbus_protocol::ids::StreamId;

/// Why the log did not do what it was told.
#[derive(Debug)]
pub enum LogError {
    /// There is no room on the disk.
    Full {
        /// What was attempted.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
        /// Whether the log is as it was before, and can be used.
        usable: bool,
    },
    /// The disk did not do it.
    Io {
        /// What was attempted.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
        /// Whether the log is as it was before, and can be used.
        usable: bool,
    },
    /// An earlier failure left it unknown what is on the disk. Only opening the log again finds out.
    Poisoned {
        /// That failure.
        reason: String,
    },
    /// A frame that cannot be written. The log is as it was before.
    Frame(FrameRefused),
    /// The files are another log's. They were not touched.
    Foreign {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        found: StreamId,
    },
    /// The files are of a version that this program does not know. They were not touched.
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
}

/// Why a frame cannot be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameRefused {
    /// It has too many bytes.
    TooLong {
        /// As many.
        bytes: usize,
    },
    /// All the frames of one call have too many bytes together.
    GroupTooLong {
        /// As many.
        bytes: u64,
    },
    /// Its flags have the bit that is the log's own.
    ReservedFlag,
    /// There are no offsets left.
    OffsetsExhausted,
    /// The owner's state has too many bytes for the watermark.
    StateTooLong {
        /// As many.
        bytes: usize,
    },
}

/// Why nothing could be read.
#[derive(Debug)]
pub enum ReadError {
    /// The disk did not do it.
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl LogError {
    /// Whether the log is as it was before, and can be used.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        match self {
            Self::Full { usable, .. } | Self::Io { usable, .. } => *usable,
            Self::Frame(_) => true,
            Self::Poisoned { .. } | Self::Foreign { .. } | Self::Version { .. } => false,
        }
    }

    /// Whether there is no room on the disk.
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Full { .. })
    }

    /// The log is as it was before.
    pub(in crate::storage) fn usable(doing: &'static str, path: &Path, source: io::Error) -> Self {
        Self::sorted(doing, path, source, true)
    }

    /// The log is not to be used any more.
    pub(super) fn fatal(doing: &'static str, path: &Path, source: io::Error) -> Self {
        Self::sorted(doing, path, source, false)
    }

    fn sorted(doing: &'static str, path: &Path, source: io::Error, usable: bool) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::Full { doing, path, source, usable }
            }
            _ => Self::Io { doing, path, source, usable },
        }
    }
}

impl fmt::Display for LogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full { doing, path, source, .. } => {
                write!(f, "no room to {doing} {}: {source}", path.display())
            }
            Self::Io { doing, path, source, .. } => {
                write!(f, "could not {doing} {}: {source}", path.display())
            }
            Self::Poisoned { reason } => write!(f, "the log stopped after a failure: {reason}"),
            Self::Frame(refused) => refused.fmt(f),
            Self::Foreign { path, found } => {
                write!(f, "{} belongs to the stream {found}, not to this one", path.display())
            }
            Self::Version { path, found } => {
                write!(
                    f,
                    "{} has the format version {found}, which this program does not know",
                    path.display()
                )
            }
        }
    }
}

impl Error for LogError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Full { source, .. } | Self::Io { source, .. } => Some(source),
            Self::Poisoned { .. } | Self::Frame(_) | Self::Foreign { .. } | Self::Version { .. } => None,
        }
    }
}

impl fmt::Display for FrameRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong { bytes } => write!(f, "a frame of {bytes} bytes is too long for the log"),
            Self::GroupTooLong { bytes } => write!(f, "{bytes} bytes are too many for one write to the log"),
            Self::ReservedFlag => f.write_str("the highest flag of a frame is the log's own"),
            Self::OffsetsExhausted => f.write_str("the log has no offsets left"),
            Self::StateTooLong { bytes } => {
                write!(f, "a state of {bytes} bytes does not fit into the watermark")
            }
        }
    }
}

impl Error for FrameRefused {}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { path, source } => write!(f, "could not read {}: {source}", path.display()),
        }
    }
}

impl Error for ReadError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
        }
    }
}
