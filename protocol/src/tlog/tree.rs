//! The hashes of an RFC 6962 tree, and the compact range: all that a growing log must remember of it.
//!
//! ```text
//!   leaf = SHA-256(0x00 || entry)      node = SHA-256(0x01 || left || right)      empty tree = SHA-256("")
//!
//!   size 7 = 4 + 2 + 1                 root
//!                                     /    \
//!                                  h0        .         a compact range keeps h0, h1, h2: the perfect trees
//!                               /     \    /   \       that the bits of the size name, largest first
//!                              .       . h1     h2
//!                             / \     / \ / \
//!                            0   1   2  3 4  5   6
//! ```

use std::fmt;

use sha2::{Digest as _, Sha256};

use super::limits::{COMPACT_RANGE_BYTES_MAX, TREE_SIZE_MAX};
use crate::wire::{DecodeError, Reader, Write as _};

/// A SHA-256 hash of the tree: of a leaf, a node or the whole. Which of them is in the prefix byte that was hashed,
/// so that none passes for another.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Hash([u8; 32]);

impl Hash {
    /// Bytes of a hash.
    pub const LEN: usize = 32;

    /// The hash with these bytes.
    #[must_use]
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The root of the tree without leaves.
    #[must_use]
    pub fn empty_root() -> Self {
        Self(Sha256::digest([]).into())
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hash({self})")
    }
}

/// The hash of an entry as a leaf.
#[must_use]
pub fn leaf_hash(entry: &[u8]) -> Hash {
    Hash(Sha256::new().chain_update([0]).chain_update(entry).finalize().into())
}

/// The hash of two subtrees side by side.
#[must_use]
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    Hash(Sha256::new().chain_update([1]).chain_update(left.0).chain_update(right.0).finalize().into())
}

/// The root over some leaf hashes, in one pass and without keeping them.
#[must_use]
pub fn root_of(leaves: impl IntoIterator<Item = Hash>) -> Hash {
    let mut range = CompactRange::new();
    range.extend(leaves);
    range.root()
}

/// The perfect subtrees that a tree of some size begins with: enough to append to it and to know its root.
///
/// ```text
/// 0        8
/// | size   | one hash of 32 bytes for each bit that is set in size, highest bit first
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CompactRange {
    size: u64,
    /// As many as `size` has bits set; the largest subtree first.
    hashes: Vec<Hash>,
}

impl CompactRange {
    /// That of the tree without leaves.
    #[must_use]
    pub const fn new() -> Self {
        Self { size: 0, hashes: Vec::new() }
    }

    /// That of a tree of `size` leaves, from its subtrees, largest first.
    ///
    /// # Errors
    /// [`RangeError`] when there are not as many subtrees as the size has bits set, or the size is above
    /// [`TREE_SIZE_MAX`].
    pub fn from_parts(size: u64, hashes: Vec<Hash>) -> Result<Self, RangeError> {
        if size > TREE_SIZE_MAX {
            return Err(RangeError::Size { found: size });
        }
        let expected = subtrees(size);
        if hashes.len() != expected {
            return Err(RangeError::Hashes { size, expected, found: hashes.len() });
        }
        Ok(Self { size, hashes })
    }

    /// Leaves of the tree.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Its perfect subtrees, largest first.
    #[must_use]
    pub fn hashes(&self) -> &[Hash] {
        &self.hashes
    }

    /// Appends a leaf by its hash.
    pub fn push(&mut self, leaf: Hash) {
        // Adding one to the size carries through its trailing ones: each carry joins two subtrees of one size.
        let mut joined = leaf;
        for _ in 0..self.size.trailing_ones() {
            let left = self.hashes.pop().expect("there is a subtree for each bit that is set in the size");
            joined = node_hash(&left, &joined);
        }
        self.hashes.push(joined);
        self.size =
            self.size.checked_add(1).expect("nobody appends 2^63 leaves to a tree that had at most as many");
    }

    /// The root of the tree.
    #[must_use]
    pub fn root(&self) -> Hash {
        self.hashes
            .iter()
            .rev()
            .copied()
            .reduce(|right, left| node_hash(&left, &right))
            .unwrap_or_else(Hash::empty_root)
    }

    /// The bytes that [`CompactRange::decode`] reads.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(8 + self.hashes.len() * Hash::LEN);
        bytes.raw(&self.size.to_be_bytes());
        self.hashes.iter().for_each(|hash| bytes.raw(hash.as_bytes()));
        bytes
    }

    /// Reads what [`CompactRange::encode`] wrote. Whether the hashes are those of any tree only a root can tell.
    ///
    /// # Errors
    /// [`DecodeError`] when the size is above [`TREE_SIZE_MAX`] or the hashes are not as many as it asks for.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        if bytes.len() > COMPACT_RANGE_BYTES_MAX {
            return Err(DecodeError::TooLong {
                field: "compact range",
                max: COMPACT_RANGE_BYTES_MAX,
                found: bytes.len(),
            });
        }
        let mut reader = Reader::new(bytes);
        let size = reader.u64("tree size")?;
        if size > TREE_SIZE_MAX {
            return Err(DecodeError::Value { field: "tree size" });
        }
        let hashes =
            (0..subtrees(size)).map(|_| reader.array("subtree").map(Hash)).collect::<Result<_, _>>()?;
        reader.finish()?;
        Ok(Self { size, hashes })
    }
}

impl Extend<Hash> for CompactRange {
    /// Appends the leaves that follow, by their hashes.
    fn extend<I: IntoIterator<Item = Hash>>(&mut self, leaves: I) {
        leaves.into_iter().for_each(|leaf| self.push(leaf));
    }
}

/// Why some hashes are not the compact range of a size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RangeError {
    /// The size is above what a tree may have.
    Size {
        /// The size.
        found: u64,
    },
    /// Another number of hashes than the size has bits set.
    Hashes {
        /// The size.
        size: u64,
        /// The hashes that it asks for.
        expected: usize,
        /// The hashes that are there.
        found: usize,
    },
}

impl fmt::Display for RangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Size { found } => write!(f, "a tree of {found} leaves is larger than any may be"),
            Self::Hashes { size, expected, found } => {
                write!(
                    f,
                    "a tree of {size} leaves begins with {expected} perfect subtrees, found {found} hashes"
                )
            }
        }
    }
}

impl std::error::Error for RangeError {}

fn subtrees(size: u64) -> usize {
    usize::try_from(size.count_ones()).expect("64 bits can be counted")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaves(count: u64) -> Vec<Hash> {
        (0..count).map(|index| leaf_hash(&index.to_be_bytes())).collect()
    }

    #[test]
    fn a_range_round_trips_and_goes_on_growing() {
        let leaves = leaves(300);
        let mut range = CompactRange::new();
        for leaf in &leaves {
            range.push(*leaf);
            assert_eq!(CompactRange::decode(&range.encode()).as_ref(), Ok(&range));
            let parts = CompactRange::from_parts(range.size(), range.hashes().to_vec());
            assert_eq!(parts.as_ref(), Ok(&range));
            let mut resumed = CompactRange::decode(&range.encode()).unwrap();
            resumed.extend(leaves[usize::try_from(range.size()).unwrap()..].iter().copied());
            assert_eq!(resumed.root(), root_of(leaves.iter().copied()));
        }
    }

    #[test]
    fn every_truncation_and_every_addition_is_refused() {
        let mut range = CompactRange::new();
        range.extend(leaves(7));
        let mut bytes = range.encode();
        for len in 0..bytes.len() {
            assert!(CompactRange::decode(&bytes[..len]).is_err(), "{len} bytes");
        }
        bytes.push(0);
        assert_eq!(CompactRange::decode(&bytes), Err(DecodeError::Trailing { extra: 1 }));
        bytes.resize(COMPACT_RANGE_BYTES_MAX + 1, 0);
        assert!(matches!(CompactRange::decode(&bytes), Err(DecodeError::TooLong { .. })));
    }

    #[test]
    fn another_bit_anywhere_is_refused_or_is_another_root() {
        let mut range = CompactRange::new();
        range.extend(leaves(7));
        let bytes = range.encode();
        for bit in 0..bytes.len() * 8 {
            let mut other = bytes.clone();
            other[bit / 8] ^= 1 << (bit % 8);
            match CompactRange::decode(&other) {
                Err(_) => assert!(bit < 64, "bit {bit}"),
                Ok(other) => {
                    assert_ne!((other.size(), other.root()), (range.size(), range.root()), "bit {bit}")
                }
            }
        }
    }

    #[test]
    fn the_largest_tree_can_be_read_and_a_larger_one_not() {
        let largest = CompactRange::from_parts(TREE_SIZE_MAX, vec![leaf_hash(b"")]).unwrap();
        assert_eq!(largest.root(), leaf_hash(b""));
        assert_eq!(CompactRange::decode(&largest.encode()), Ok(largest.clone()));
        let mut grown = largest;
        grown.push(leaf_hash(b"one more"));
        assert_eq!(grown.hashes().len(), 2);
        assert_eq!(
            CompactRange::from_parts(TREE_SIZE_MAX + 1, grown.hashes().to_vec()),
            Err(RangeError::Size { found: TREE_SIZE_MAX + 1 })
        );
        assert_eq!(CompactRange::decode(&grown.encode()), Err(DecodeError::Value { field: "tree size" }));

        let nearly = CompactRange::from_parts(TREE_SIZE_MAX - 1, vec![leaf_hash(b""); 63]).unwrap();
        assert_eq!(CompactRange::decode(&nearly.encode()).as_ref(), Ok(&nearly));
        let mut full = nearly;
        full.push(leaf_hash(b""));
        assert_eq!((full.size(), full.hashes().len()), (TREE_SIZE_MAX, 1));
    }

    #[test]
    fn hashes_must_be_as_many_as_the_size_asks_for() {
        assert_eq!(
            CompactRange::from_parts(3, vec![leaf_hash(b"")]),
            Err(RangeError::Hashes { size: 3, expected: 2, found: 1 })
        );
        assert!(CompactRange::from_parts(0, vec![leaf_hash(b"")]).is_err());
        assert_eq!(CompactRange::from_parts(0, Vec::new()), Ok(CompactRange::new()));
    }
}
