//! Checkpoints and proofs as they are handed out: verified.

use sealbus_protocol::ids::StreamId;
use sealbus_protocol::tlog::{self, Hash, SignedNote, TlogProof};

/// The state of a stream's log at a moment: how many batches it holds, and the root of their tree. Signed by the
/// broker's log key, and consistent with every one that this bus saw of the stream before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    stream_id: StreamId,
    checkpoint: tlog::Checkpoint,
    note: String,
}

impl Checkpoint {
    pub(super) const fn new(stream_id: StreamId, checkpoint: tlog::Checkpoint, note: String) -> Self {
        Self { stream_id, checkpoint, note }
    }

    /// The stream.
    #[must_use]
    pub const fn stream_id(&self) -> StreamId {
        self.stream_id
    }

    /// The log's name, and its key's: `BUS_ID/stream/STREAM_ID`.
    #[must_use]
    pub fn origin(&self) -> &str {
        self.checkpoint.origin().as_str()
    }

    /// How many batches it holds.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.checkpoint.size()
    }

    /// The root of their RFC 6962 tree.
    #[must_use]
    pub const fn root(&self) -> &[u8; 32] {
        self.checkpoint.root().as_bytes()
    }

    /// The signed note (C2SP tlog-checkpoint), as the broker sent it: what other tools verify.
    #[must_use]
    pub fn note(&self) -> &str {
        &self.note
    }

    pub(super) const fn tree_root(&self) -> &Hash {
        self.checkpoint.root()
    }
}

/// The proof that a message's batch is in its stream's log: verified, and as good elsewhere as here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InclusionProof {
    checkpoint: Checkpoint,
    index: u64,
    hashes: Vec<Hash>,
    first_seen_ms: u64,
}

impl InclusionProof {
    pub(super) const fn new(
        checkpoint: Checkpoint,
        index: u64,
        hashes: Vec<Hash>,
        first_seen_ms: u64,
    ) -> Self {
        Self { checkpoint, index, hashes, first_seen_ms }
    }

    /// The checkpoint that it leads to.
    #[must_use]
    pub const fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// The batch's place in the log, from 0.
    #[must_use]
    pub const fn index(&self) -> u64 {
        self.index
    }

    /// The siblings from the leaf to the root.
    pub fn hashes(&self) -> impl ExactSizeIterator<Item = &[u8; 32]> {
        self.hashes.iter().map(Hash::as_bytes)
    }

    /// When this bus first saw a checkpoint with the batch in it, by this process's clock in milliseconds since 1970:
    /// it was in the log by then, whatever the broker says.
    #[must_use]
    pub const fn first_seen_ms(&self) -> u64 {
        self.first_seen_ms
    }

    /// The proof as a text of its own (C2SP tlog-proof v1), checkpoint included.
    #[must_use]
    pub fn to_tlog_proof(&self) -> String {
        let note = SignedNote::parse(self.checkpoint.note.as_bytes()).expect("a verified note parses");
        let proof = TlogProof::new(self.index, self.hashes.clone(), note);
        proof.expect("a proof that was verified is no longer than proofs are").to_string()
    }
}
