//! Why something that is kept cannot be opened.

use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::storage::log_key::LogKeyError;
use crate::storage::system::SystemOpenError;

/// Why something that is kept cannot be opened.
#[derive(Debug)]
pub enum StorageError {
    /// A directory cannot be made, or its threads not be started.
    Dir(PathBuf, io::Error),
    /// The policy has streams, and no key is configured that signs their checkpoints.
    NoLogKey,
    /// The key cannot be had.
    LogKey(LogKeyError),
    /// One of the broker's own logs cannot be opened.
    System(SystemOpenError),
    /// One of the broker's own logs cannot be read.
    Read(&'static str, String),
    /// Something was not kept.
    NotKept(&'static str, String),
    /// A stream cannot be opened.
    Stream(String, String),
}

impl fmt::Display for StorageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dir(path, error) => write!(f, "{}: {error}", path.display()),
            Self::NoLogKey => f.write_str(
                "the policy has streams, and [storage] log_key names no key to sign their checkpoints with",
            ),
            Self::LogKey(error) => error.fmt(f),
            Self::System(error) => error.fmt(f),
            Self::Read(log, error) => write!(f, "{log} cannot be read: {error}"),
            Self::NotKept(log, error) => write!(f, "{log}: {error}"),
            Self::Stream(name, error) => write!(f, "stream {name}: {error}"),
        }
    }
}

impl std::error::Error for StorageError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Dir(_, error) => Some(error),
            Self::LogKey(error) => Some(error),
            Self::System(error) => Some(error),
            Self::NoLogKey | Self::Read(..) | Self::NotKept(..) | Self::Stream(..) => None,
        }
    }
}
