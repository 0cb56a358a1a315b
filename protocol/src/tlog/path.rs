//! Inclusion and consistency proofs: made from a tree's nodes, verified from nothing but hashes (RFC 6962 section 2.1,
//! verified as RFC 9162 sections 2.1.3.2 and 2.1.4.2 say).
//!
//! A tree is not held in memory to prove something of it: whoever proves hands in a function from `(level, index)` to
//! the hash of the perfect subtree over the leaves `index << level .. (index + 1) << level`. A proof asks it for at most
//! 128 nodes. Both provers and both verifiers go down the tree in a loop, one level at a time.

use std::fmt;

use super::limits::{CONSISTENCY_HASHES_MAX, INCLUSION_HASHES_MAX, TREE_SIZE_MAX};
use super::tree::{CompactRange, Hash, node_hash};

/// Finds the hash of the perfect subtree at `(level, index)`; `None` when it is not kept.
pub type Nodes<'a> = dyn Fn(u8, u64) -> Option<Hash> + 'a;

/// Proves that the tree of `size` leaves has the leaf `index`: the siblings from the leaf to the root.
///
/// # Errors
/// [`ProveError`] when there is no such leaf, or a node that is needed is not to be had.
pub fn inclusion_proof(index: u64, size: u64, nodes: &Nodes<'_>) -> Result<Vec<Hash>, ProveError> {
    if index >= size || size > TREE_SIZE_MAX {
        return Err(ProveError::Outside { index, size });
    }
    let mut path = Vec::with_capacity(INCLUSION_HASHES_MAX);
    let (mut start, mut end) = (0, size);
    while end - start > 1 {
        let middle = start + split(end - start);
        if index < middle {
            path.push(subtree(middle, end, nodes)?);
            end = middle;
        } else {
            path.push(subtree(start, middle, nodes)?);
            start = middle;
        }
    }
    path.reverse();
    Ok(path)
}

/// Proves that the tree of `size` leaves begins with the tree of `old_size`. Empty when they are one, and when the old
/// one is empty: every tree begins with that.
///
/// # Errors
/// [`ProveError`] when the old tree is the larger, or a node that is needed is not to be had.
pub fn consistency_proof(old_size: u64, size: u64, nodes: &Nodes<'_>) -> Result<Vec<Hash>, ProveError> {
    if old_size > size || size > TREE_SIZE_MAX {
        return Err(ProveError::Shrunk { old_size, size });
    }
    if old_size == 0 || old_size == size {
        return Ok(Vec::new());
    }
    let mut path = Vec::with_capacity(CONSISTENCY_HASHES_MAX);
    let (mut start, mut end) = (0, size);
    while end != old_size {
        let middle = start + split(end - start);
        if old_size <= middle {
            path.push(subtree(middle, end, nodes)?);
            end = middle;
        } else {
            path.push(subtree(start, middle, nodes)?);
            start = middle;
        }
    }
    // The subtree at which the old tree ends: the verifier has it already when it is the old tree itself.
    if start != 0 {
        path.push(subtree(start, end, nodes)?);
    }
    path.reverse();
    Ok(path)
}

/// The compact range of the first `size` leaves, from the nodes of a tree that has at least as many.
///
/// # Errors
/// [`ProveError`] when a node that is needed is not to be had.
pub fn prefix_at(size: u64, nodes: &Nodes<'_>) -> Result<CompactRange, ProveError> {
    if size > TREE_SIZE_MAX {
        return Err(ProveError::Outside { index: size, size: TREE_SIZE_MAX });
    }
    let hashes = perfect_subtrees(0, size, nodes)?;
    Ok(CompactRange::from_parts(size, hashes)
        .expect("a range is cut into a subtree for each bit of its size"))
}

/// Verifies that the tree of `size` leaves and this root has `leaf` at `index`.
///
/// # Errors
/// [`VerifyError`] when the proof does not lead from the leaf to the root in as many steps as the two numbers ask for.
pub fn verify_inclusion(
    index: u64,
    size: u64,
    leaf: &Hash,
    root: &Hash,
    proof: &[Hash],
) -> Result<(), VerifyError> {
    if index >= size || size > TREE_SIZE_MAX {
        return Err(VerifyError::Outside { index, size });
    }
    let mut walk = Walk { place: index, last: size - 1 };
    let mut hash = *leaf;
    for sibling in proof {
        hash = match walk.up()? {
            Side::Left => node_hash(sibling, &hash),
            Side::Right => node_hash(&hash, sibling),
        };
    }
    walk.finish()?;
    if hash == *root { Ok(()) } else { Err(VerifyError::Root) }
}

/// Verifies that the tree of `size` leaves and the root `root` begins with the tree of `old_size` and `old_root`.
///
/// # Errors
/// [`VerifyError`] when the proof does not lead to both roots in as many steps as the two sizes ask for.
pub fn verify_consistency(
    old_size: u64,
    size: u64,
    old_root: &Hash,
    root: &Hash,
    proof: &[Hash],
) -> Result<(), VerifyError> {
    if old_size > size || size > TREE_SIZE_MAX {
        return Err(VerifyError::Shrunk { old_size, size });
    }
    if old_size == 0 || old_size == size {
        let same = if old_size == 0 { Hash::empty_root() } else { *root };
        return match (proof.is_empty(), *old_root == same) {
            (false, _) => Err(VerifyError::TooManyHashes),
            (true, false) => Err(VerifyError::OldRoot),
            (true, true) if size == 0 && *root != *old_root => Err(VerifyError::Root),
            (true, true) => Ok(()),
        };
    }
    // Up to where the old tree's right edge leaves the perfect subtree at its end.
    let levels = (old_size - 1).trailing_ones();
    let mut walk = Walk { place: (old_size - 1) >> levels, last: (size - 1) >> levels };
    let (first, rest) = if old_size.is_power_of_two() {
        (old_root, proof)
    } else {
        proof.split_first().ok_or(VerifyError::TooFewHashes)?
    };
    let (mut old, mut new) = (*first, *first);
    for sibling in rest {
        match walk.up()? {
            Side::Left => {
                old = node_hash(sibling, &old);
                new = node_hash(sibling, &new);
            }
            Side::Right => new = node_hash(&new, sibling),
        }
    }
    walk.finish()?;
    if old != *old_root {
        return Err(VerifyError::OldRoot);
    }
    if new == *root { Ok(()) } else { Err(VerifyError::Root) }
}

/// Why a proof cannot be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProveError {
    /// The tree has no such leaf.
    Outside {
        /// The leaf.
        index: u64,
        /// The tree's size.
        size: u64,
    },
    /// The older tree is the larger one.
    Shrunk {
        /// Leaves of the older tree.
        old_size: u64,
        /// Leaves of the newer tree.
        size: u64,
    },
    /// A node of the tree is not kept any more, or not yet.
    Missing {
        /// Its height above the leaves.
        level: u8,
        /// Its number on that level.
        index: u64,
    },
}

impl fmt::Display for ProveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Outside { index, size } => write!(f, "leaf {index} is not in a tree of {size} leaves"),
            Self::Shrunk { old_size, size } => {
                write!(f, "a tree of {old_size} leaves is not the beginning of one of {size}")
            }
            Self::Missing { level, index } => {
                write!(f, "node {index} of level {level} of the tree is not kept")
            }
        }
    }
}

impl std::error::Error for ProveError {}

/// Why a proof does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VerifyError {
    /// The tree has no such leaf.
    Outside {
        /// The leaf.
        index: u64,
        /// The tree's size.
        size: u64,
    },
    /// The older tree is the larger one.
    Shrunk {
        /// Leaves of the older tree.
        old_size: u64,
        /// Leaves of the newer tree.
        size: u64,
    },
    /// The proof ends before the root.
    TooFewHashes,
    /// The proof goes on after the root.
    TooManyHashes,
    /// The proof does not lead to the older root.
    OldRoot,
    /// The proof does not lead to the root.
    Root,
}

impl fmt::Display for VerifyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Outside { index, size } => write!(f, "leaf {index} is not in a tree of {size} leaves"),
            Self::Shrunk { old_size, size } => {
                write!(f, "a tree of {old_size} leaves is not the beginning of one of {size}")
            }
            Self::TooFewHashes => f.write_str("the proof has too few hashes for the tree's size"),
            Self::TooManyHashes => f.write_str("the proof has too many hashes for the tree's size"),
            Self::OldRoot => f.write_str("the proof does not lead to the older root"),
            Self::Root => f.write_str("the proof does not lead to the root"),
        }
    }
}

impl std::error::Error for VerifyError {}

/// The way from a leaf up to the root of a tree whose right edge may be ragged.
struct Walk {
    /// Number of the current node on its level.
    place: u64,
    /// Number of the last node on that level.
    last: u64,
}

/// On which side of the current node its sibling stands.
enum Side {
    Left,
    Right,
}

impl Walk {
    /// Goes up to the next node that has a sibling, and past it.
    fn up(&mut self) -> Result<Side, VerifyError> {
        if self.last == 0 {
            return Err(VerifyError::TooManyHashes);
        }
        // The last node of a level has no sibling to its right: it goes up alone until it is itself a right child.
        let side = if self.place == self.last && self.place & 1 == 0 {
            let levels = self.place.trailing_zeros();
            self.place >>= levels;
            self.last >>= levels;
            Side::Left
        } else if self.place & 1 == 1 {
            Side::Left
        } else {
            Side::Right
        };
        self.place >>= 1;
        self.last >>= 1;
        Ok(side)
    }

    fn finish(self) -> Result<(), VerifyError> {
        if self.last == 0 { Ok(()) } else { Err(VerifyError::TooFewHashes) }
    }
}

/// Where a tree of `size > 1` leaves is cut: the largest power of two below its size.
fn split(size: u64) -> u64 {
    1 << (size - 1).ilog2()
}

/// The root over the leaves `start..end`, `start` being a place at which the tree is cut.
fn subtree(start: u64, end: u64, nodes: &Nodes<'_>) -> Result<Hash, ProveError> {
    let hashes = perfect_subtrees(start, end, nodes)?;
    Ok(hashes.into_iter().rev().reduce(|right, left| node_hash(&left, &right)).expect("no cut is empty"))
}

/// The perfect subtrees that make up `start..end`, largest first. At most one for each bit of its length.
fn perfect_subtrees(mut start: u64, end: u64, nodes: &Nodes<'_>) -> Result<Vec<Hash>, ProveError> {
    let mut hashes = Vec::new();
    while start < end {
        let bits = (end - start).ilog2();
        let level = u8::try_from(bits).expect("a u64 has 64 bits");
        let index = start >> level;
        hashes.push(nodes(level, index).ok_or(ProveError::Missing { level, index })?);
        start += 1 << level;
    }
    Ok(hashes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tlog::tree::{leaf_hash, root_of};
    use proptest::prelude::*;

    /// RFC 6962 section 2.1, word for word: the root, the audit path, the consistency proof.
    mod naive {
        use super::*;

        pub(super) fn root(leaves: &[Hash]) -> Hash {
            match leaves {
                [] => Hash::empty_root(),
                [leaf] => *leaf,
                _ => {
                    let (left, right) = leaves.split_at(cut(leaves));
                    node_hash(&root(left), &root(right))
                }
            }
        }

        pub(super) fn path(index: usize, leaves: &[Hash]) -> Vec<Hash> {
            if leaves.len() == 1 {
                return Vec::new();
            }
            let (left, right) = leaves.split_at(cut(leaves));
            let (mut path, sibling) = if index < left.len() {
                (self::path(index, left), root(right))
            } else {
                (self::path(index - left.len(), right), root(left))
            };
            path.push(sibling);
            path
        }

        pub(super) fn proof(old: usize, leaves: &[Hash]) -> Vec<Hash> {
            if old == 0 { Vec::new() } else { subproof(old, leaves, true) }
        }

        fn subproof(old: usize, leaves: &[Hash], whole: bool) -> Vec<Hash> {
            if old == leaves.len() {
                return if whole { Vec::new() } else { vec![root(leaves)] };
            }
            let (left, right) = leaves.split_at(cut(leaves));
            let (mut proof, sibling) = if old <= left.len() {
                (subproof(old, left, whole), root(right))
            } else {
                (subproof(old - left.len(), right, false), root(left))
            };
            proof.push(sibling);
            proof
        }

        fn cut(leaves: &[Hash]) -> usize {
            let mut cut = 1;
            while cut * 2 < leaves.len() {
                cut *= 2;
            }
            cut
        }
    }

    fn leaves(count: usize) -> Vec<Hash> {
        (0..count).map(|index| leaf_hash(&index.to_be_bytes())).collect()
    }

    fn nodes(leaves: &[Hash]) -> impl Fn(u8, u64) -> Option<Hash> {
        |level, index| {
            let (start, len) = (usize::try_from(index << level).unwrap(), 1_usize << level);
            Some(naive::root(leaves.get(start..start + len)?))
        }
    }

    fn size(leaves: &[Hash]) -> u64 {
        leaves.len() as u64
    }

    #[test]
    fn proofs_of_every_small_tree_are_the_standards_and_verify() {
        let all = leaves(40);
        for count in 1..=all.len() {
            let leaves = &all[..count];
            let root = naive::root(leaves);
            assert_eq!(root_of(leaves.iter().copied()), root);
            for (index, leaf) in leaves.iter().enumerate() {
                let proof = inclusion_proof(index as u64, size(leaves), &nodes(leaves)).unwrap();
                assert_eq!(proof, naive::path(index, leaves), "leaf {index} of {count}");
                assert_eq!(verify_inclusion(index as u64, size(leaves), leaf, &root, &proof), Ok(()));
            }
            for old in 0..=count {
                let old_root = naive::root(&leaves[..old]);
                let proof = consistency_proof(old as u64, size(leaves), &nodes(leaves)).unwrap();
                assert_eq!(proof, naive::proof(old, leaves), "{old} to {count}");
                assert_eq!(verify_consistency(old as u64, size(leaves), &old_root, &root, &proof), Ok(()));
                let prefix = prefix_at(old as u64, &nodes(leaves)).unwrap();
                assert_eq!((prefix.size(), prefix.root()), (old as u64, old_root));
            }
        }
    }

    #[test]
    fn what_lies_outside_a_tree_has_no_proof() {
        let none = |_: u8, _: u64| -> Option<Hash> { panic!("no node is needed") };
        assert_eq!(inclusion_proof(0, 0, &none), Err(ProveError::Outside { index: 0, size: 0 }));
        assert_eq!(inclusion_proof(7, 7, &none), Err(ProveError::Outside { index: 7, size: 7 }));
        assert_eq!(consistency_proof(8, 7, &none), Err(ProveError::Shrunk { old_size: 8, size: 7 }));
        assert!(inclusion_proof(0, TREE_SIZE_MAX + 1, &none).is_err());
        assert!(consistency_proof(1, u64::MAX, &none).is_err());
        assert!(prefix_at(u64::MAX, &none).is_err());
        let hash = leaf_hash(b"");
        assert_eq!(
            verify_inclusion(0, 0, &hash, &hash, &[]),
            Err(VerifyError::Outside { index: 0, size: 0 })
        );
        assert_eq!(
            verify_consistency(2, 1, &hash, &hash, &[]),
            Err(VerifyError::Shrunk { old_size: 2, size: 1 })
        );
        assert!(verify_inclusion(0, u64::MAX, &hash, &hash, &[hash; 64]).is_err());
        assert!(verify_consistency(1, u64::MAX, &hash, &hash, &[hash; 64]).is_err());
    }

    #[test]
    fn a_node_that_is_not_kept_is_named() {
        let leaves = leaves(7);
        let without = |level: u8, index: u64| {
            if (level, index) == (1, 2) { None } else { nodes(&leaves)(level, index) }
        };
        assert_eq!(inclusion_proof(6, 7, &without), Err(ProveError::Missing { level: 1, index: 2 }));
        assert_eq!(inclusion_proof(4, 7, &without).map(|proof| proof.len()), Ok(3));
    }

    #[test]
    fn the_empty_tree_begins_every_tree_and_no_other_root_is_empty() {
        let (empty, root) = (Hash::empty_root(), leaf_hash(b"a"));
        assert_eq!(verify_consistency(0, 1, &empty, &root, &[]), Ok(()));
        assert_eq!(verify_consistency(0, 0, &empty, &empty, &[]), Ok(()));
        assert_eq!(verify_consistency(0, 0, &empty, &root, &[]), Err(VerifyError::Root));
        assert_eq!(verify_consistency(0, 1, &root, &root, &[]), Err(VerifyError::OldRoot));
        assert_eq!(verify_consistency(0, 1, &empty, &root, &[root]), Err(VerifyError::TooManyHashes));
        assert_eq!(verify_consistency(5, 5, &root, &root, &[root]), Err(VerifyError::TooManyHashes));
        assert_eq!(verify_consistency(5, 5, &empty, &root, &[]), Err(VerifyError::OldRoot));
    }

    /// Trees that are too large to be built: all leaves alike, so that a subtree's hash depends on its level only.
    #[test]
    fn the_largest_sizes_are_proven_and_verified() {
        let mut levels = vec![leaf_hash(b"alike")];
        for level in 0..63 {
            levels.push(node_hash(&levels[level], &levels[level]));
        }
        let nodes = |level: u8, _: u64| levels.get(usize::from(level)).copied();
        let sizes = [
            1,
            2,
            3,
            (1 << 31) - 1,
            1 << 32,
            (1 << 32) + 1,
            (1 << 53) + 1,
            (1 << 62) - 1,
            1 << 62,
            (1 << 62) + 1,
            0x5555_5555_5555_5555,
            0x7aaa_aaaa_aaaa_aaaa,
            TREE_SIZE_MAX - 1,
            TREE_SIZE_MAX,
        ];
        for size in sizes {
            let root = prefix_at(size, &nodes).unwrap().root();
            for index in [0, 1, size / 3, size / 2, size.saturating_sub(2), size - 1] {
                let index = index.min(size - 1);
                let proof = inclusion_proof(index, size, &nodes).unwrap();
                assert!(proof.len() <= INCLUSION_HASHES_MAX);
                assert_eq!(
                    verify_inclusion(index, size, &levels[0], &root, &proof),
                    Ok(()),
                    "{index} of {size}"
                );
                assert!(verify_inclusion(index, size, &levels[1], &root, &proof).is_err());
            }
            for old in sizes.into_iter().filter(|old| *old <= size) {
                let old_root = prefix_at(old, &nodes).unwrap().root();
                let proof = consistency_proof(old, size, &nodes).unwrap();
                assert!(proof.len() <= CONSISTENCY_HASHES_MAX);
                assert_eq!(
                    verify_consistency(old, size, &old_root, &root, &proof),
                    Ok(()),
                    "{old} to {size}"
                );
                if old != size {
                    assert!(verify_consistency(old, size, &root, &root, &proof).is_err());
                    assert!(verify_consistency(old, size, &old_root, &old_root, &proof).is_err());
                }
            }
        }
    }

    proptest! {
        #[test]
        fn a_changed_proof_does_not_verify(
            count in 1_usize..200, index in any::<prop::sample::Index>(), bit in any::<prop::sample::Index>(),
        ) {
            let leaves = leaves(count);
            let root = naive::root(&leaves);
            let index = index.index(count);
            let proof = naive::path(index, &leaves);
            let (at, size) = (index as u64, size(&leaves));
            let verify = |proof: &[Hash]| verify_inclusion(at, size, &leaves[index], &root, proof);
            prop_assert_eq!(verify(&proof), Ok(()));
            prop_assert_eq!(inclusion_proof(at, size, &nodes(&leaves)), Ok(proof.clone()));
            let mut longer = proof.clone();
            longer.push(root);
            prop_assert_eq!(verify(&longer), Err(VerifyError::TooManyHashes));
            if let Some((_, shorter)) = proof.split_last() {
                prop_assert_eq!(verify(shorter), Err(VerifyError::TooFewHashes));
                let bit = bit.index(proof.len() * 256);
                let mut bytes = *proof[bit / 256].as_bytes();
                bytes[bit % 256 / 8] ^= 1 << (bit % 8);
                let mut other = proof.clone();
                other[bit / 256] = Hash::new(bytes);
                prop_assert_eq!(verify(&other), Err(VerifyError::Root));
                // At another place the same hashes lead elsewhere.
                for place in (0..size).filter(|place| *place != at) {
                    prop_assert!(verify_inclusion(place, size, &leaves[index], &root, &proof).is_err());
                }
            }
        }

        #[test]
        fn a_rewritten_history_has_no_consistency_proof(
            count in 2_usize..200, old in any::<prop::sample::Index>(), rewritten in any::<prop::sample::Index>(),
        ) {
            let before = leaves(count);
            let old = 1 + old.index(count - 1);
            let mut after = before.clone();
            after[rewritten.index(old)] = leaf_hash(b"rewritten");
            let (old_root, new_root) = (naive::root(&before[..old]), naive::root(&after));
            let proof = consistency_proof(old as u64, size(&after), &nodes(&after)).unwrap();
            prop_assert_eq!(&proof, &naive::proof(old, &after));
            prop_assert!(verify_consistency(old as u64, size(&after), &old_root, &new_root, &proof).is_err());
            let honest = naive::proof(old, &before);
            prop_assert!(verify_consistency(old as u64, size(&after), &old_root, &new_root, &honest).is_err());
            let root = naive::root(&before);
            prop_assert_eq!(verify_consistency(old as u64, size(&before), &old_root, &root, &honest), Ok(()));
        }
    }
}
