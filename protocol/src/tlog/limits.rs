//! The bounds of trees, notes and proofs. Each is compared before anything is kept for what it bounds.

/// Leaves of a tree. One more would need a level that no node index of 64 bits can address; nobody gets there.
pub const TREE_SIZE_MAX: u64 = 1 << 63;

/// Hashes of an inclusion proof: one for each level below the root of the largest tree.
pub const INCLUSION_HASHES_MAX: usize = 63;

/// Hashes of a consistency proof: as for inclusion, and the node at which the older tree ends.
pub const CONSISTENCY_HASHES_MAX: usize = 64;

/// Bytes of an encoded compact range: its size and one hash for each bit that a size may have.
pub const COMPACT_RANGE_BYTES_MAX: usize = 8 + 64 * 32;

/// Bytes of a note's key name, which is a checkpoint's origin too. Ours have 72; names of hosts have at most 253.
pub const NOTE_NAME_BYTES_MAX: usize = 255;

/// Bytes of a signed note. A checkpoint with sixteen cosignatures of the largest known kind (ML-DSA-44) fits.
pub const NOTE_BYTES_MAX: usize = 64 * 1_024;

/// Signature lines of a note. The specification wants at least sixteen to be accepted.
pub const NOTE_SIGNATURES_MAX: usize = 64;

/// Bytes of what an application may add to a `tlog-proof`. We add nothing; others add a few hundred bytes.
pub const PROOF_EXTRA_BYTES_MAX: usize = 16 * 1_024;

/// Bytes of a `tlog-proof`: its note, its extra as base64, its hashes as lines, and the words around them.
pub const PROOF_BYTES_MAX: usize =
    NOTE_BYTES_MAX + 2 * PROOF_EXTRA_BYTES_MAX + INCLUSION_HASHES_MAX * 45 + 256;

const _: () = assert!(COMPACT_RANGE_BYTES_MAX <= 2_100);
