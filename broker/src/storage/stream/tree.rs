//! The Merkle tree of a stream: its right edge, which the watermark keeps. Proofs are made by [`super::nodes`].
//!
//! ```text
//!   watermark: right edge of the tree of W records, and the newest checkpoint that was signed by then
//!        |
//!        '--> + the digests of records W.. = the tree of today, compared with the checkpoint on the way
//! ```
//!
//! A record whose bytes were damaged before any watermark covered it has lost its leaf. No checkpoint covers it either,
//! since the watermark is always written first, so that a stand-in takes its place: the stream goes on, and the record
//! can be proven to be lost.

use std::ops::Range;

use sealbus_protocol::tlog::{CompactRange, Hash, leaf_hash};
use sealbus_protocol::wire::{DecodeError, Reader, Write as _};

use crate::storage::log::{LogReader, ReadError};

/// What the watermark keeps for the stream.
///
/// ```text
///   0         4                12                20                52
///   +---------+----------------+-----------------+-----------------+--------------------+
///   | 1 (u32) | policy_version | checkpoint size | checkpoint root | compact range      |
///   +---------+----------------+-----------------+-----------------+--------------------+
/// ```
///
/// A size of 0 says that no checkpoint was signed yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KeptState {
    pub(super) policy_version: u64,
    pub(super) checkpoint: Option<(u64, Hash)>,
    pub(super) tree: CompactRange,
}

const STATE_VERSION: u32 = 1;

impl KeptState {
    pub(super) fn encode(&self) -> Vec<u8> {
        let (size, root) = self.checkpoint.unwrap_or((0, Hash::new([0; Hash::LEN])));
        let mut bytes = Vec::with_capacity(64);
        bytes.u32(STATE_VERSION);
        bytes.u64(self.policy_version);
        bytes.u64(size);
        bytes.raw(root.as_bytes());
        bytes.raw(&self.tree.encode());
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        if reader.u32("state version")? != STATE_VERSION {
            return Err(DecodeError::Value { field: "state version" });
        }
        let policy_version = reader.u64("policy_version")?;
        let size = reader.u64("checkpoint size")?;
        let root = Hash::new(reader.array("checkpoint root")?);
        let tree = CompactRange::decode(reader.rest())?;
        if size > tree.size() || (size == 0 && root != Hash::new([0; Hash::LEN])) {
            return Err(DecodeError::Value { field: "checkpoint size" });
        }
        let checkpoint = (size > 0).then_some((size, root));
        Ok(Self { policy_version, checkpoint, tree })
    }
}

/// Digests that are read at once.
const CHUNK: u64 = 4_096;

/// The stand-in for the leaf of a record that was lost.
pub(super) fn lost_leaf(record: u64) -> Hash {
    let mut bytes = b"sealbus/1 lost record\0".to_vec();
    bytes.u64(record);
    leaf_hash(&bytes)
}

/// A tree that was grown over a log's digests.
#[derive(Debug)]
pub(super) struct Grown {
    pub(super) tree: CompactRange,
    /// The root when the tree had the size that was asked for, if it came by it.
    pub(super) root_at: Option<Hash>,
    /// Records with a stand-in.
    pub(super) lost: u64,
}

/// Grows a tree over the records that follow it, and looks at the root on the way.
pub(super) fn grow(
    mut tree: CompactRange,
    reader: &LogReader,
    end_record: u64,
    look_at: Option<u64>,
) -> Result<Grown, ReadError> {
    let mut root_at = (look_at == Some(tree.size())).then(|| tree.root());
    let mut lost = 0_u64;
    while tree.size() < end_record {
        let chunk = tree.size()..end_record.min(tree.size().saturating_add(CHUNK));
        for (record, digest) in chunk.clone().zip(digests(reader, chunk)?) {
            let leaf = digest.unwrap_or_else(|| {
                lost = lost.saturating_add(1);
                lost_leaf(record)
            });
            tree.push(leaf);
            if look_at == Some(tree.size()) {
                root_at = Some(tree.root());
            }
        }
    }
    Ok(Grown { tree, root_at, lost })
}

/// One for each record, whatever the reader gives.
pub(super) fn digests(reader: &LogReader, records: Range<u64>) -> Result<Vec<Option<Hash>>, ReadError> {
    let count = usize::try_from(records.end.saturating_sub(records.start)).unwrap_or(usize::MAX);
    let found = reader.digests(records)?;
    assert_eq!(found.len(), count, "a log answers for each record that it was asked for");
    Ok(found.into_iter().map(|digest| digest.map(Hash::new)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> KeptState {
        let mut tree = CompactRange::new();
        tree.extend((0..7_u8).map(|leaf| leaf_hash(&[leaf])));
        KeptState { policy_version: 3, checkpoint: Some((5, leaf_hash(b"root"))), tree }
    }

    #[test]
    fn a_kept_state_round_trips_and_fits_the_watermark() {
        for state in [state(), KeptState { checkpoint: None, ..state() }] {
            assert_eq!(KeptState::decode(&state.encode()).unwrap(), state);
        }
        let tree = CompactRange::from_parts((1 << 63) - 1, vec![leaf_hash(b""); 63]).unwrap();
        assert!(KeptState { tree, ..state() }.encode().len() <= 3_900);
    }

    #[test]
    fn every_cut_and_addition_is_refused() {
        let bytes = state().encode();
        for len in 0..bytes.len() {
            assert!(KeptState::decode(&bytes[..len]).is_err(), "{len} bytes");
        }
        assert!(KeptState::decode(&[bytes.as_slice(), &[0]].concat()).is_err());
        let beyond = KeptState { checkpoint: Some((8, leaf_hash(b"root"))), ..state() };
        assert!(KeptState::decode(&beyond.encode()).is_err(), "a checkpoint over more than the tree");
    }
}
