//! The checkpoint in a stream's directory, before it is compared with the tree.

use std::io;
use std::path::Path;

use sealbus_protocol::limits::NOTE_BYTES_MAX;
use sealbus_protocol::tlog::{Checkpoint, CheckpointError, SignedNote, VerifierKey, stream_origin};

use super::question::VerifyOptions;
use super::report::VerifyError;
use crate::storage::stream::opening::CHECKPOINT_FILE;
use crate::vfs::Vfs;

/// What the file says before it is compared with the tree.
pub(super) enum Signed {
    Missing,
    Refused(String),
    Checkpoint(Checkpoint),
}

impl Signed {
    pub(super) fn size(&self) -> Option<u64> {
        match self {
            Self::Checkpoint(checkpoint) => Some(checkpoint.size()),
            Self::Missing | Self::Refused(_) => None,
        }
    }
}

pub(super) fn read_checkpoint(
    vfs: &dyn Vfs,
    dir: &Path,
    options: &VerifyOptions,
    verifier: Option<&VerifierKey>,
) -> Result<Signed, VerifyError> {
    let path = dir.join(CHECKPOINT_FILE);
    let bytes = match vfs.read(&path, NOTE_BYTES_MAX as u64) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Signed::Missing),
        Err(error) if error.kind() == io::ErrorKind::FileTooLarge => {
            return Ok(Signed::Refused(format!("the checkpoint has more than {NOTE_BYTES_MAX} bytes")));
        }
        Err(source) => return Err(VerifyError::Directory { path, source }),
    };
    let opened = match verifier {
        Some(verifier) => Checkpoint::open(&bytes, verifier),
        None => SignedNote::parse(&bytes)
            .map_err(CheckpointError::Note)
            .and_then(|note| Checkpoint::parse(note.text_unverified())),
    };
    Ok(match opened {
        Ok(checkpoint) if *checkpoint.origin() == stream_origin(&options.bus_id, &options.stream_id) => {
            Signed::Checkpoint(checkpoint)
        }
        Ok(checkpoint) => {
            Signed::Refused(format!("the checkpoint is of another log, {}", checkpoint.origin()))
        }
        Err(error) => Signed::Refused(error.to_string()),
    })
}
