//! The Merkle tree of a stream: its right edge, which the watermark keeps, and its nodes, from which proofs are made.
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

use std::cell::Cell;
use std::ops::Range;

use sealbus_protocol::tlog::{
    CompactRange, Hash, ProveError, consistency_proof, inclusion_proof, leaf_hash, node_hash, prefix_at,
};
use sealbus_protocol::wire::{DecodeError, Reader, Write as _};

use super::store::{ConsistencyAnswer, StoreError};
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
fn digests(reader: &LogReader, records: Range<u64>) -> Result<Vec<Option<Hash>>, ReadError> {
    let count = usize::try_from(records.end.saturating_sub(records.start)).unwrap_or(usize::MAX);
    let found = reader.digests(records)?;
    assert_eq!(found.len(), count, "a log answers for each record that it was asked for");
    Ok(found.into_iter().map(|digest| digest.map(Hash::new)).collect())
}

/// Levels below this are computed from the leaves when they are asked for: at most 128 of them for one node.
const CACHED_FROM: u8 = 8;

/// The upper nodes of the tree, as far as proofs have needed them. They never change.
///
/// 32 bytes for each 128 records, made from the digests at the first proof after a start.
#[derive(Debug, Default)]
pub(super) struct NodeCache {
    /// `levels[n]` has the nodes of level `CACHED_FROM + n` from the left on.
    levels: Vec<Vec<Hash>>,
}

impl NodeCache {
    pub(super) fn inclusion(
        &mut self,
        reader: &LogReader,
        leaf: u64,
        size: u64,
        root: Option<Hash>,
    ) -> Result<Vec<Hash>, StoreError> {
        self.prove(reader, size, root, |nodes| inclusion_proof(leaf, size, nodes))
    }

    pub(super) fn consistency(
        &mut self,
        reader: &LogReader,
        old_size: u64,
        size: u64,
        root: Option<Hash>,
    ) -> Result<ConsistencyAnswer, StoreError> {
        self.prove(reader, size, root, |nodes| {
            Ok(ConsistencyAnswer {
                prefix: prefix_at(old_size, nodes)?.hashes().to_vec(),
                proof: consistency_proof(old_size, size, nodes)?,
            })
        })
    }

    /// Makes a proof about the tree of `size`. With the root of a checkpoint at hand the nodes are first shown to lead
    /// to it, so that a damaged index never becomes a proof that contradicts what was signed.
    fn prove<T>(
        &mut self,
        reader: &LogReader,
        size: u64,
        root: Option<Hash>,
        proof: impl FnOnce(&dyn Fn(u8, u64) -> Option<Hash>) -> Result<T, ProveError>,
    ) -> Result<T, StoreError> {
        self.extend(reader, size)?;
        let failed: Cell<Option<StoreError>> = Cell::new(None);
        let nodes = |level: u8, index: u64| match self.node(reader, level, index) {
            Ok(node) => Some(node),
            Err(error) => {
                failed.set(Some(error));
                None
            }
        };
        let rooted = match root {
            None => Ok(true),
            Some(root) => prefix_at(size, &nodes).map(|range| range.root() == root),
        };
        let made = rooted.and_then(|rooted| if rooted { proof(&nodes).map(Some) } else { Ok(None) });
        match (made, failed.take()) {
            (Ok(Some(proof)), _) => Ok(proof),
            (Ok(None), _) => {
                // What was cached may come from a file that was damaged since: the next proof reads it anew.
                self.levels.clear();
                Err(StoreError::Unproven { size })
            }
            (Err(_), Some(error)) => Err(error),
            (Err(_), None) => Err(StoreError::NoSuchTree { asked: size, size: reader.end_record() }),
        }
    }

    fn node(&self, reader: &LogReader, level: u8, index: u64) -> Result<Hash, StoreError> {
        if let Some(cached) = level.checked_sub(CACHED_FROM) {
            let nodes = self.levels.get(usize::from(cached));
            let place = usize::try_from(index).unwrap_or(usize::MAX);
            return nodes
                .and_then(|nodes| nodes.get(place))
                .copied()
                .ok_or(StoreError::NoSuchTree { asked: index, size: reader.end_record() });
        }
        let first = index << level;
        subtree(reader, first..first.saturating_add(1 << level))
    }

    /// Adds the nodes that a tree of this size has.
    fn extend(&mut self, reader: &LogReader, size: u64) -> Result<(), StoreError> {
        let mut above = size >> CACHED_FROM;
        let mut cached = 0_usize;
        while above > 0 {
            if self.levels.len() == cached {
                self.levels.push(Vec::new());
            }
            let known = self.levels.get(cached).map_or(0, Vec::len);
            for index in known as u64..above {
                let node = match cached.checked_sub(1).and_then(|below| self.levels.get(below)) {
                    None => {
                        let first = index << CACHED_FROM;
                        subtree(reader, first..first.saturating_add(1 << CACHED_FROM))?
                    }
                    Some(below) => {
                        let left = usize::try_from(index).unwrap_or(usize::MAX).saturating_mul(2);
                        match below.get(left..left.saturating_add(2)) {
                            Some([left, right]) => node_hash(left, right),
                            _ => return Err(StoreError::NoSuchTree { asked: size, size: known as u64 }),
                        }
                    }
                };
                if let Some(nodes) = self.levels.get_mut(cached) {
                    nodes.push(node);
                }
            }
            above >>= 1;
            cached = cached.saturating_add(1);
        }
        Ok(())
    }
}

/// The root over some leaves whose number is a power of two.
fn subtree(reader: &LogReader, records: Range<u64>) -> Result<Hash, StoreError> {
    let leaves = digests(reader, records.clone()).map_err(|error| StoreError::Disk(error.to_string()))?;
    let leaves = records.zip(leaves).map(|(record, leaf)| leaf.unwrap_or_else(|| lost_leaf(record)));
    let mut range = CompactRange::new();
    range.extend(leaves);
    Ok(range.root())
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
