//! History that proves itself: RFC 6962 Merkle trees over SHA-256 and C2SP signed notes.
//!
//! Nothing here is a format of our own except the leaf: a tree, its checkpoints and its proofs are what Go's
//! `x/mod/sumdb` and every other tool of that family read. The tree says *what* a log contains, a checkpoint says *who*
//! vouches for it, and a consistency proof says that an older checkpoint was not taken back.
//!
//! ```text
//!   batch record -> leaf (420 bytes) -> tree -> checkpoint (origin, size, root) -> signed note
//!                                        |                                             |
//!                                        '-- inclusion and consistency proofs          '-- tlog-proof: one leaf, offline
//! ```
//!
//! Read [`tree`] for the hashes and the compact range that a log keeps, [`path`] for the proofs, [`leaf`] for what of a
//! batch is hashed, [`note`] and [`checkpoint`] for what is signed, [`proof`] for the text that carries one leaf's
//! proof. Verification takes sizes, hashes and texts from anybody: it allocates nothing by a declared size and does at
//! most 64 steps for any of them.
//!
//! Not in here: tiles and entry bundles, witnesses' cosignatures (their lines are carried and ignored), and where the
//! nodes of a tree are kept: whoever proves hands in a function that finds them.

pub mod base64;
pub mod checkpoint;
pub mod leaf;
pub mod limits;
pub mod note;
pub mod path;
pub mod proof;
pub mod tree;

pub use checkpoint::{Checkpoint, CheckpointError, stream_origin};
pub use leaf::{LEAF_LEN, LeafFields};
pub use note::{LogKey, NoteError, NoteName, NoteSigner, SignedNote, VerifierKey};
pub use path::{
    ProveError, VerifyError, consistency_proof, inclusion_proof, prefix_at, verify_consistency,
    verify_inclusion,
};
pub use proof::{ProofError, TlogProof};
pub use tree::{CompactRange, Hash, leaf_hash, node_hash, root_of};
