//! What opening a stream finds: the tree as it is, compared with the checkpoint that was signed over it.
//!
//! ```text
//!   records        0 ........... C ............. W ........ end
//!   checkpoint     |-------------|                                the file; the watermark knows it too
//!   watermark      |-----------------------------|                right edge of the tree
//!   C >= W: the root is met while the tree grows to the end.   C < W: the watermark remembers the root.
//! ```
//!
//! A log that does not lead to its checkpoint was changed behind our back: it can be read, but nothing is added to it,
//! since every further checkpoint would contradict the one that others have seen.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sealbus_protocol::limits::NOTE_BYTES_MAX;
use sealbus_protocol::tlog::{Checkpoint, CompactRange, Hash, SignedNote, stream_origin};

use super::record::leaf_digest;
use super::settings::StreamOptions;
use super::store::{SignedCheckpoint, StreamDamage, StreamEvent};
use super::tree::{Grown, KeptState, grow};
use crate::storage::log::{
    Cut, Damage, IndexOutcome, Log, LogError, LogOptions, Lost, OwnerState, ReadError,
};
use crate::vfs::Vfs;

/// The file with the newest checkpoint, in the stream's directory.
pub const CHECKPOINT_FILE: &str = "checkpoint";

/// What opening found, besides the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// Damage, for the operators and the audit log.
    pub events: Vec<StreamEvent>,
    /// A torn tail that was cut: nobody had been told that it was kept.
    pub cut: Option<Cut>,
    /// Why nothing may be appended; none when all is well.
    pub stopped: Option<Arc<str>>,
    /// The tree as the watermark has it: its nodes are right whatever has become of the leaves below.
    pub edge: CompactRange,
}

/// Why a stream cannot be opened at all.
#[derive(Debug)]
pub enum OpenError {
    /// Its directory cannot be made.
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Its checkpoint cannot be read.
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Its log cannot be opened.
    Log(LogError),
    /// Its log cannot be read.
    Read(ReadError),
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory { path, source } => write!(f, "could not make {}: {source}", path.display()),
            Self::Checkpoint { path, source } => write!(f, "could not read {}: {source}", path.display()),
            Self::Log(error) => error.fmt(f),
            Self::Read(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for OpenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Directory { source, .. } | Self::Checkpoint { source, .. } => Some(source),
            Self::Log(error) => Some(error),
            Self::Read(error) => Some(error),
        }
    }
}

impl From<LogError> for OpenError {
    fn from(error: LogError) -> Self {
        Self::Log(error)
    }
}

impl From<ReadError> for OpenError {
    fn from(error: ReadError) -> Self {
        Self::Read(error)
    }
}

/// A tree that was brought to the log's end.
pub(super) struct Recovered {
    pub(super) tree: CompactRange,
    pub(super) edge: CompactRange,
    pub(super) checkpoint: Option<SignedCheckpoint>,
    pub(super) kept_policy_version: u64,
    pub(super) damage: Vec<StreamDamage>,
    pub(super) stopped: Option<Arc<str>>,
}

pub(super) fn recover(
    vfs: &dyn Vfs,
    dir: &Path,
    options: &StreamOptions,
    log: &Log,
    state: Option<&OwnerState>,
) -> Result<Recovered, OpenError> {
    let mut damage = Vec::new();
    let end_record = log.end_record();
    let kept = kept_state(state, end_record, &mut damage);
    let found = read_checkpoint(vfs, dir, options, &mut damage)?;
    let reader = log.reader();
    let size = found.as_ref().map(|checkpoint| checkpoint.size);
    let Grown { tree, root_at, lost } = grow(kept.tree.clone(), &reader, end_record, size)?;
    if lost > 0 {
        damage.push(StreamDamage::Log(format!("the hashes of {lost} records are lost with them")));
    }
    let mut recovered = Recovered {
        tree,
        edge: kept.tree.clone(),
        checkpoint: None,
        kept_policy_version: kept.policy_version,
        damage,
        stopped: None,
    };
    match (found, kept.checkpoint) {
        (None, None) => {}
        (None, Some((size, _))) => {
            let text = format!("the checkpoint over {size} batches is gone from the disk");
            recovered.damage.push(StreamDamage::CheckpointLost(text));
        }
        (Some(found), known) => {
            let root = match root_at {
                Some(root) => Some(root),
                None => root_below(&found, &kept, end_record, log)?,
            };
            recovered.judge(found, known, root, end_record);
        }
    }
    Ok(recovered)
}

impl Recovered {
    /// `root` is that of our tree at the checkpoint's size, when it has that many records.
    fn judge(
        &mut self,
        found: SignedCheckpoint,
        known: Option<(u64, Hash)>,
        root: Option<Hash>,
        end_record: u64,
    ) {
        let SignedCheckpoint { size, .. } = found;
        if root != Some(found.root) {
            let text: String = match root {
                None => format!("the checkpoint is over {size} batches, the log has {end_record}"),
                Some(_) => {
                    format!("the log's first {size} batches are not those that the checkpoint is over")
                }
            };
            self.stopped = Some(text.as_str().into());
            self.damage.push(StreamDamage::HistoryRewritten(text));
            self.checkpoint = Some(found);
            return;
        }
        if let Some((newest, _)) = known
            && size < newest
        {
            let text = format!(
                "the checkpoint over {size} batches is older than the one over {newest} that was signed"
            );
            self.damage.push(StreamDamage::CheckpointLost(text));
        }
        self.checkpoint = Some(found);
    }
}

/// The root at a size below the watermark's: remembered by it, or else made from all digests.
fn root_below(
    found: &SignedCheckpoint,
    kept: &KeptState,
    end_record: u64,
    log: &Log,
) -> Result<Option<Hash>, ReadError> {
    if found.size > end_record {
        return Ok(None);
    }
    match kept.checkpoint {
        Some((size, root)) if size == found.size => Ok(Some(root)),
        Some(_) | None => Ok(Some(grow(CompactRange::new(), &log.reader(), found.size, None)?.tree.root())),
    }
}

/// What the watermark kept; nothing when there is none, or none that fits the log. The tree then grows from its start.
fn kept_state(state: Option<&OwnerState>, end_record: u64, damage: &mut Vec<StreamDamage>) -> KeptState {
    let nothing = KeptState { policy_version: 0, checkpoint: None, tree: CompactRange::new() };
    let Some(state) = state else { return nothing };
    match KeptState::decode(&state.bytes) {
        Ok(kept) if kept.tree.size() == state.record && state.record <= end_record => kept,
        Ok(kept) => {
            damage.push(StreamDamage::Log(format!(
                "the watermark's tree has {} leaves at record {} of {end_record}",
                kept.tree.size(),
                state.record
            )));
            nothing
        }
        Err(error) => {
            damage.push(StreamDamage::Log(format!("the watermark's tree cannot be read: {error}")));
            nothing
        }
    }
}

/// The checkpoint in the stream's directory. One that is not ours is damage, and as good as none. So is one that is longer
/// than what a session can be sent.
fn read_checkpoint(
    vfs: &dyn Vfs,
    dir: &Path,
    options: &StreamOptions,
    damage: &mut Vec<StreamDamage>,
) -> Result<Option<SignedCheckpoint>, OpenError> {
    let path = dir.join(CHECKPOINT_FILE);
    let bytes = match vfs.read(&path, NOTE_BYTES_MAX as u64) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) if error.kind() == io::ErrorKind::FileTooLarge => {
            let text = format!("the checkpoint has more than {NOTE_BYTES_MAX} bytes");
            damage.push(StreamDamage::CheckpointLost(text));
            return Ok(None);
        }
        Err(source) => return Err(OpenError::Checkpoint { path, source }),
    };
    let opened = match &options.signer {
        Some(signer) => Checkpoint::open(&bytes, &signer.verifier()),
        // Without the key nobody adds to the checkpoint either; its size and root are compared all the same.
        None => SignedNote::parse(&bytes)
            .map_err(sealbus_protocol::tlog::CheckpointError::Note)
            .and_then(|note| Checkpoint::parse(note.text_unverified())),
    };
    let refused = match opened {
        Ok(checkpoint) if *checkpoint.origin() == stream_origin(&options.bus_id, &options.stream_id) => {
            let note = String::from_utf8(bytes).expect("a note that was parsed is text");
            let (size, root) = (checkpoint.size(), *checkpoint.root());
            return Ok(Some(SignedCheckpoint { note, size, root }));
        }
        Ok(checkpoint) => format!("the checkpoint is of another log, {}", checkpoint.origin()),
        Err(error) => error.to_string(),
    };
    damage.push(StreamDamage::CheckpointLost(refused));
    Ok(None)
}

/// How the stream's log is kept.
pub(super) fn log_options(options: &StreamOptions) -> LogOptions {
    LogOptions {
        bus_id: options.bus_id,
        log_id: options.stream_id,
        segment_bytes: options.segment_bytes,
        digest: Some(|frame, options| leaf_digest(frame, options.bus_id, options.log_id)),
        salt: options.salt,
    }
}

/// What the log found, as the stream reports it.
pub(super) fn reported(damage: &Damage) -> StreamDamage {
    let text = describe(damage);
    match damage {
        Damage::Index { outcome: IndexOutcome::Rebuilt, .. } => StreamDamage::IndexRebuilt(text),
        Damage::Index { outcome: IndexOutcome::Left | IndexOutcome::Lost, .. }
        | Damage::Corrupt(_)
        | Damage::Truncated(_)
        | Damage::Missing(_)
        | Damage::Header { .. }
        | Damage::Watermarks => StreamDamage::Log(text),
    }
}

/// What the log found, for people.
pub(super) fn describe(damage: &Damage) -> String {
    let lost = |lost: &Lost| {
        let Lost { offsets, records } = lost;
        let (offsets_end, records_end) = (offsets.end, records.end);
        format!("offsets {} to {offsets_end}, records {} to {records_end}", offsets.start, records.start)
    };
    match damage {
        Damage::Corrupt(range) => format!("corrupt frames at {}", lost(range)),
        Damage::Truncated(range) => format!("the log was cut: frames are missing at {}", lost(range)),
        Damage::Missing(range) => format!("whole segments are missing at {}", lost(range)),
        Damage::Header { base_offset } => format!("the header of the segment at offset {base_offset} is bad"),
        Damage::Index { base_offset, outcome: IndexOutcome::Rebuilt } => {
            format!("the index of the segment at offset {base_offset} was bad and has been made again")
        }
        Damage::Index { base_offset, outcome: IndexOutcome::Left } => {
            format!("the index of the segment at offset {base_offset} is bad; the next start makes it again")
        }
        Damage::Index { base_offset, outcome: IndexOutcome::Lost } => {
            format!("the index of the segment at offset {base_offset} is lost")
        }
        Damage::Watermarks => {
            "both watermarks are bad; a shortened log would not have been noticed".to_owned()
        }
    }
}
