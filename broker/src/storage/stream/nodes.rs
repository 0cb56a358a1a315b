//! The nodes of a stream's tree, from which proofs are made.
//!
//! ```text
//!   level 8 and above   kept once a proof has needed them; they never change
//!   below               computed from the leaves' digests when they are asked for: at most 256 for one node
//!   edge                the watermark's subtrees at the start: right, whatever became of the leaves below
//! ```
//!
//! Nothing is proven before the nodes were shown to lead to the root that was signed. When they do not, leaves were
//! damaged whose hashes are in the tree; then the edge's nodes stand in for the subtrees that they were in. What lies
//! within such a subtree and would need a hash that is lost cannot be proven any more, and is not.

use std::cell::Cell;
use std::ops::Range;

use sealbus_protocol::tlog::{
    CompactRange, Hash, ProveError, consistency_proof, inclusion_proof, node_hash, prefix_at,
};

use super::store::{ConsistencyAnswer, StoreError};
use super::tree::{digests, lost_leaf};
use crate::storage::log::LogReader;

/// Levels below this are computed from the leaves when they are asked for.
const CACHED_FROM: u8 = 8;

/// Digests that are read at once.
const CHUNK: u64 = 4_096;

/// The nodes that are known.
#[derive(Debug, Default)]
pub(super) struct NodeCache {
    /// `levels[n]` has the nodes of level `CACHED_FROM + n` from the left on; none where a hash is lost. 32 bytes for each
    /// 128 records, made from the digests at the first proof after a start.
    levels: Vec<Vec<Option<Hash>>>,
    /// The watermark's tree at the start, until it was looked at.
    edge: Option<CompactRange>,
    /// Its subtrees that the digests on the disk do not lead to.
    remembered: Vec<Remembered>,
}

/// A node whose leaves are not all known.
#[derive(Debug, Clone, Copy)]
struct Remembered {
    level: u8,
    index: u64,
    hash: Hash,
}

/// How some leaves stand to a node that is remembered.
enum Beside {
    Apart,
    Within,
    Around,
}

impl NodeCache {
    /// Nothing is known but the edge.
    pub(super) fn new(edge: CompactRange) -> Self {
        Self { levels: Vec::new(), edge: Some(edge), remembered: Vec::new() }
    }

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
        proof: impl Fn(&dyn Fn(u8, u64) -> Option<Hash>) -> Result<T, ProveError>,
    ) -> Result<T, StoreError> {
        match self.try_prove(reader, size, root, &proof) {
            Err(StoreError::Unproven { .. }) if self.take_edge(reader)? => {
                self.try_prove(reader, size, root, &proof)
            }
            proven => proven,
        }
    }

    fn try_prove<T>(
        &mut self,
        reader: &LogReader,
        size: u64,
        root: Option<Hash>,
        proof: &impl Fn(&dyn Fn(u8, u64) -> Option<Hash>) -> Result<T, ProveError>,
    ) -> Result<T, StoreError> {
        self.extend(reader, size)?;
        let failed: Cell<Option<StoreError>> = Cell::new(None);
        let nodes = |level: u8, index: u64| match self.node(reader, level, index) {
            Ok(Some(node)) => Some(node),
            Ok(None) => {
                failed.set(Some(StoreError::Unproven { size }));
                None
            }
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

    /// Looks, once, which of the edge's subtrees the digests do not lead to. Says whether there are any.
    fn take_edge(&mut self, reader: &LogReader) -> Result<bool, StoreError> {
        let Some(edge) = self.edge.take() else { return Ok(false) };
        let mut first = 0_u64;
        let levels = (0..u64::BITS).rev().filter(|level| edge.size() & (1 << level) != 0);
        for (level, hash) in levels.zip(edge.hashes()) {
            let leaves = first..first.saturating_add(1 << level);
            let level = u8::try_from(level).expect("a size has 64 bits");
            first = leaves.end;
            if subtree(reader, leaves.clone())? != *hash {
                self.remembered.push(Remembered { level, index: leaves.start >> level, hash: *hash });
            }
        }
        self.levels.clear();
        Ok(!self.remembered.is_empty())
    }

    /// A node; none when it needs the hash of a leaf that is lost.
    fn node(&self, reader: &LogReader, level: u8, index: u64) -> Result<Option<Hash>, StoreError> {
        let Some(cached) = level.checked_sub(CACHED_FROM) else { return self.low_node(reader, level, index) };
        let nodes = self.levels.get(usize::from(cached));
        let place = usize::try_from(index).unwrap_or(usize::MAX);
        nodes
            .and_then(|nodes| nodes.get(place))
            .copied()
            .ok_or(StoreError::NoSuchTree { asked: index, size: reader.end_record() })
    }

    /// A node that is computed from its leaves.
    fn low_node(&self, reader: &LogReader, level: u8, index: u64) -> Result<Option<Hash>, StoreError> {
        if let Some(hash) = self.remembered_at(level, index) {
            return Ok(Some(hash));
        }
        let leaves = leaves_of(level, index);
        match self.beside(&leaves) {
            Beside::Apart => subtree(reader, leaves).map(Some),
            Beside::Within => whole_subtree(reader, leaves),
            Beside::Around => {
                let below = level.saturating_sub(1);
                let (left, right) = (index.saturating_mul(2), index.saturating_mul(2).saturating_add(1));
                let (left, right) =
                    (self.low_node(reader, below, left)?, self.low_node(reader, below, right)?);
                Ok(left.zip(right).map(|(left, right)| node_hash(&left, &right)))
            }
        }
    }

    fn remembered_at(&self, level: u8, index: u64) -> Option<Hash> {
        let found = self.remembered.iter().find(|node| (node.level, node.index) == (level, index));
        found.map(|node| node.hash)
    }

    fn beside(&self, leaves: &Range<u64>) -> Beside {
        for node in &self.remembered {
            let of_node = leaves_of(node.level, node.index);
            if of_node.start <= leaves.start && leaves.end <= of_node.end {
                return Beside::Within;
            }
            if leaves.start <= of_node.start && of_node.end <= leaves.end {
                return Beside::Around;
            }
        }
        Beside::Apart
    }

    /// Adds the nodes that a tree of this size has.
    fn extend(&mut self, reader: &LogReader, size: u64) -> Result<(), StoreError> {
        let mut above = size >> CACHED_FROM;
        let mut cached = 0_u8;
        while above > 0 {
            let (place, level) = (usize::from(cached), CACHED_FROM.saturating_add(cached));
            if self.levels.len() == place {
                self.levels.push(Vec::new());
            }
            let known = self.levels.get(place).map_or(0, Vec::len);
            for index in known as u64..above {
                let node = match place.checked_sub(1) {
                    None => self.low_node(reader, level, index)?,
                    Some(below) => match self.remembered_at(level, index) {
                        Some(hash) => Some(hash),
                        None => self
                            .joined(below, index)
                            .ok_or(StoreError::NoSuchTree { asked: size, size: known as u64 })?,
                    },
                };
                if let Some(nodes) = self.levels.get_mut(place) {
                    nodes.push(node);
                }
            }
            above >>= 1;
            cached = cached.saturating_add(1);
        }
        Ok(())
    }

    /// The parent of two nodes that are kept; none within when one of them is lost.
    fn joined(&self, below: usize, index: u64) -> Option<Option<Hash>> {
        let left = usize::try_from(index).unwrap_or(usize::MAX).saturating_mul(2);
        match self.levels.get(below)?.get(left..left.saturating_add(2))? {
            [left, right] => Some(left.zip(*right).map(|(left, right)| node_hash(&left, &right))),
            _ => None,
        }
    }
}

fn leaves_of(level: u8, index: u64) -> Range<u64> {
    let first = index << level;
    first..first.saturating_add(1 << level)
}

/// The root over some leaves whose number is a power of two. Lost ones have the stand-in that they have in the tree when
/// it was grown over them.
fn subtree(reader: &LogReader, records: Range<u64>) -> Result<Hash, StoreError> {
    let mut range = CompactRange::new();
    let mut first = records.start;
    while first < records.end {
        let chunk = first..records.end.min(first.saturating_add(CHUNK));
        first = chunk.end;
        let leaves = digests(reader, chunk.clone()).map_err(|error| StoreError::Disk(error.to_string()))?;
        range.extend(chunk.zip(leaves).map(|(record, leaf)| leaf.unwrap_or_else(|| lost_leaf(record))));
    }
    Ok(range.root())
}

/// The same; none when one of them is lost. They are few: a node that is kept is not below one that is remembered.
fn whole_subtree(reader: &LogReader, records: Range<u64>) -> Result<Option<Hash>, StoreError> {
    let leaves = digests(reader, records).map_err(|error| StoreError::Disk(error.to_string()))?;
    let leaves: Option<Vec<Hash>> = leaves.into_iter().collect();
    Ok(leaves.map(|leaves| {
        let mut range = CompactRange::new();
        range.extend(leaves);
        range.root()
    }))
}
