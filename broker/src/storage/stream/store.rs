//! What a stream is to the rest of the broker: the trait [`StreamStore`] and the values that pass through it.
//!
//! ```text
//!   publish --append--> ticket ... the group is durable ... observer (fan-out), waiters: fate(ticket) --> ACK or REFUSED
//!   reader  --tail----> from memory, never blocks      --read--> from the disk, off the runtime's threads
//! ```
//!
//! A store keeps opaque signed batches and need not be trusted with them: whoever reads one verifies it. Nothing is
//! visible before it has reached the stream's level of durability, and what is visible never goes away but by
//! retention. `conformance` holds what every implementation must do.

use std::any::Any;
use std::fmt;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use sealbus_protocol::batch::accept::{Accepted, Durability, SequenceState};
use sealbus_protocol::frame::InstanceKind;
use sealbus_protocol::ids::StreamId;
use sealbus_protocol::tlog::Hash;
use sealbus_protocol::topic::Topic;

pub use super::events::{StreamDamage, StreamEvent, TrimReason};

/// One stream, as the broker's sessions see it. Cheap to share; every method may be called from any thread.
pub trait StreamStore: Send + Sync {
    /// Takes a batch into the stream, at the offset that the ticket names. It is neither durable nor visible yet: its
    /// waiter is told when [`StreamStore::fate`] has an answer. Never waits for the disk.
    ///
    /// Must be called with the batch's sequence locked, and the sequence must be committed before it is unlocked:
    /// when the batch cannot be kept after all, the store locks the sequence and withdraws it.
    ///
    /// # Errors
    /// [`AppendError`]; the batch has not been taken and the sequence must not be moved.
    fn append(&self, batch: NewBatch, now_ms: u64) -> Result<Ticket, AppendError>;

    /// Takes a batch that could not be handed out into this stream of dead letters. As [`StreamStore::append`], but no
    /// sequence moves.
    ///
    /// # Errors
    /// [`AppendError`]; nothing has been taken.
    fn append_dead_letter(&self, letter: NewDeadLetter, now_ms: u64) -> Result<Ticket, AppendError>;

    /// A ticket for a batch that was judged a duplicate of the one at `offset`: its fate is the fate of the first.
    /// Must be called with the sequence locked, as the judgement was.
    ///
    /// # Errors
    /// [`AppendError`] when the first is not durable and the stream takes nothing more.
    fn again(&self, offset: u64, waiter: Arc<dyn Waiter>) -> Result<Ticket, AppendError>;

    /// What has become of an appended batch. Once it is not [`Fate::Pending`] it does not change.
    fn fate(&self, ticket: &Ticket) -> Fate;

    /// What can be read.
    fn bounds(&self) -> Bounds;

    /// Whether the stream takes batches.
    fn state(&self) -> StreamState;

    /// Its level of durability, as the receipt of a batch that was just appended names it. Whatever the level becomes
    /// later, the batch is not [`Fate::Kept`] before it has reached the one that this says.
    fn durability(&self) -> Durability;

    /// Batches from the one that holds `from` onwards, when they are in memory. Never blocks.
    ///
    /// A batch without messages comes with the batch that follows it and is never the last one.
    fn tail(&self, from: u64, bytes_max: usize) -> Tail;

    /// Batches from the one that holds `from` onwards: at least one unless nothing follows. Reads the disk, so that
    /// it must not be called on the runtime's threads.
    ///
    /// # Errors
    /// [`StoreError`] when the disk cannot be read. Damage is no error: what is damaged is skipped and named.
    fn read(&self, from: u64, bytes_max: usize) -> Result<StoredPage, StoreError>;

    /// Has `waiter` told after each commit, checkpoint and change of state, until the guard is dropped.
    fn watch(&self, waiter: Arc<dyn Waiter>) -> WatchGuard;

    /// The first offset whose batch was appended at `time_ms` or later; the end when there is none.
    ///
    /// # Errors
    /// [`StoreError`] when the disk cannot be read.
    fn offset_at(&self, time_ms: u64) -> Result<u64, StoreError>;

    /// Removes whole segments that end at or below `before`, and says where the stream begins now. May block.
    ///
    /// # Errors
    /// [`StoreError`] when the disk refuses.
    fn trim(&self, before: u64) -> Result<u64, StoreError>;

    /// The newest signed checkpoint; none until the first was signed.
    fn checkpoint(&self) -> Option<Arc<SignedCheckpoint>>;

    /// The proof that the tree of `size` batches extends the one of `old_size`. May block.
    ///
    /// # Errors
    /// [`StoreError`] when the sizes are not of this tree, or the disk cannot be read.
    fn consistency(&self, old_size: u64, size: u64) -> Result<ConsistencyAnswer, StoreError>;

    /// The proof that batch record `leaf` is in the tree of `size` batches. May block.
    ///
    /// # Errors
    /// [`StoreError`] when it is not, or the disk cannot be read.
    fn inclusion(&self, leaf: u64, size: u64) -> Result<Vec<Hash>, StoreError>;

    /// Counts and sizes.
    fn stats(&self) -> StreamStats;
}

/// A batch that is kept, as readers get it. Shared, never copied.
#[derive(Debug, Clone)]
pub struct Stored {
    /// Offset of its first message.
    pub offset: u64,
    /// Its place among the batches of the stream: the index of its leaf.
    pub leaf_index: u64,
    /// When it was appended, milliseconds since 1970. Never goes back within a stream.
    pub append_ms: u64,
    /// The policy that was in force. Never goes back within a stream.
    pub policy_version: u64,
    /// The record of `$keys` that holds its producer's binding.
    pub key_record: u64,
    /// Its topic.
    pub topic: Topic,
    /// Offsets that it takes: its messages, or those that a dead letter hands over.
    pub messages: u32,
    /// Preamble, signature and body, as they arrived.
    pub batch: Bytes,
    /// Whether its producer's instance id is configured, and so fences.
    pub instance_kind: InstanceKind,
    /// Where a dead letter comes from; none in a stream of its own.
    pub origin: Option<Arc<Origin>>,
}

impl Stored {
    /// The offset after its last message.
    #[must_use]
    pub fn next_offset(&self) -> u64 {
        self.offset.saturating_add(u64::from(self.messages))
    }
}

/// Where a dead letter was stored first, and which of its records were not settled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// Offset of its first message in that stream.
    pub offset: u64,
    /// Its leaf there.
    pub leaf_index: u64,
    /// When it was appended there: the moment as of which its certificates are judged.
    pub append_ms: u64,
    /// The policy in force then.
    pub policy_version: u64,
    /// Which records, and how often they were delivered.
    pub ranges: Vec<DeadRange>,
}

/// Records of a batch that were delivered as often as they may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeadRange {
    /// The first record, counted from 0 within the batch.
    pub first: u32,
    /// How many.
    pub count: u32,
    /// How often they were delivered.
    pub deliveries: u32,
}

/// A batch to keep: the proof that it may be kept, and whom to tell.
pub struct NewBatch {
    /// The judged batch.
    pub accepted: Accepted,
    /// Its topic.
    pub topic: Topic,
    /// The record of `$keys` that holds its producer's binding.
    pub key_record: u64,
    /// Whether its producer's instance id is configured.
    pub instance_kind: InstanceKind,
    /// The policy in force.
    pub policy_version: u64,
    /// Handed to the observer with the batch, for fan-out.
    pub context: Arc<dyn Any + Send + Sync>,
    /// Its sequence, to be withdrawn from when the batch cannot be kept.
    pub sequence: Arc<Mutex<SequenceState>>,
    /// Told once its fate is known.
    pub waiter: Arc<dyn Waiter>,
}

impl fmt::Debug for NewBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewBatch")
            .field("topic", &self.topic)
            .field("batch", self.accepted.batch())
            .finish_non_exhaustive()
    }
}

/// A dead letter to keep. The batch was accepted when it was stored first.
pub struct NewDeadLetter {
    /// The batch as its stream keeps it.
    pub stored: Arc<Stored>,
    /// Which of its records were not settled: at least one, in order, within the batch.
    pub ranges: Vec<DeadRange>,
    /// Handed to the observer.
    pub context: Arc<dyn Any + Send + Sync>,
    /// Told once its fate is known.
    pub waiter: Arc<dyn Waiter>,
}

impl fmt::Debug for NewDeadLetter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewDeadLetter")
            .field("stored", &self.stored)
            .field("ranges", &self.ranges)
            .finish_non_exhaustive()
    }
}

/// The place of an appended batch. An offset alone would not do: a batch without messages takes none, and the offset
/// of one that could not be kept is given to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    pub(super) offset: u64,
    /// Records that must be visible before the batch is.
    pub(super) end_record: u64,
    /// How often batches had been withdrawn when it was appended.
    pub(super) epoch: u64,
}

impl Ticket {
    /// Offset of the batch's first message, for its receipt.
    #[must_use]
    pub const fn offset(&self) -> u64 {
        self.offset
    }
}

/// What has become of an appended batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// It is on its way.
    Pending,
    /// It has reached the stream's level of durability and is visible.
    Kept,
    /// There was no room for it on the disk; its sequence has been withdrawn, so that it may be sent again.
    Withdrawn,
    /// The stream stopped first. It may or may not be found after a restart.
    Stopped(Arc<str>),
}

/// Somebody who waits for commits. Called on the writer's thread: it must not block.
pub trait Waiter: Send + Sync {
    /// Batches were committed or withdrawn, or the stream's state changed: look at it. Told once for each group,
    /// however many batches of it one waiter waits for.
    fn committed(&self);
}

/// What the broker does with what a stream does. Called on the writer's thread, in the order of offsets and before
/// waiters are told.
pub trait CommitObserver: Send + Sync {
    /// These batches are visible now.
    fn committed(&self, stream: StreamId, batches: &[(Arc<Stored>, Arc<dyn Any + Send + Sync>)]);

    /// Something that operators or the audit log should know.
    fn event(&self, stream: StreamId, event: &StreamEvent);
}

/// What can be read: `first..end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// The oldest offset that is kept.
    pub first: u64,
    /// The offset after the newest visible message. Only grows.
    pub end: u64,
}

/// Whether a stream takes batches. It can be read in any state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StreamState {
    /// It does.
    Open,
    /// Not until there is room on the disk.
    Full,
    /// Not until the broker is started again, and the reason was mended.
    Stopped(Arc<str>),
    /// The broker is shutting down, or the policy has no such stream any more.
    Closed,
}

/// Why a batch is not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AppendError {
    /// The disk is full.
    Full,
    /// Writing failed in a way that only a restart mends.
    Stopped {
        /// What failed.
        reason: Arc<str>,
    },
    /// Too much waits to be written.
    Busy,
    /// The stream is being closed.
    Closed,
}

impl fmt::Display for AppendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("the disk is full; the stream goes on by itself when there is room"),
            Self::Stopped { reason } => write!(f, "the stream has stopped: {reason}"),
            Self::Busy => f.write_str("too much waits to be written; send it again later"),
            Self::Closed => f.write_str("the stream is being closed"),
        }
    }
}

impl std::error::Error for AppendError {}

/// What memory holds of a stream's newest batches.
#[derive(Debug, Clone)]
pub enum Tail {
    /// These follow.
    Here(Vec<Arc<Stored>>),
    /// Nothing follows yet.
    AtEnd,
    /// They must be read.
    OnDisk,
}

/// Batches from the disk.
#[derive(Debug, Clone)]
pub struct StoredPage {
    /// In the order of offsets.
    pub batches: Vec<Arc<Stored>>,
    /// Where to read on.
    pub next: u64,
    /// Offsets that will not come, in order.
    pub skipped: Vec<SkippedOffsets>,
}

/// Offsets that cannot be read any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SkippedOffsets {
    /// The first.
    pub from: u64,
    /// The one after the last.
    pub to: u64,
    /// Why.
    pub why: SkipReason,
}

/// Why offsets cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SkipReason {
    /// Retention removed them.
    Trimmed,
    /// They are damaged.
    Damaged,
}

/// A checkpoint and the tree that it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedCheckpoint {
    /// The signed note.
    pub note: String,
    /// Batches in the tree.
    pub size: u64,
    /// Its root.
    pub root: Hash,
}

/// That one tree extends another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsistencyAnswer {
    /// The compact range of the older tree, from its largest subtree down.
    pub prefix: Vec<Hash>,
    /// The RFC 6962 consistency proof.
    pub proof: Vec<Hash>,
}

/// Counts and sizes of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamStats {
    /// What can be read.
    pub bounds: Bounds,
    /// Batch records ever visible.
    pub records: u64,
    /// Bytes on the disk.
    pub bytes: u64,
    /// Segments on the disk.
    pub segments: u32,
    /// Ranges that are damaged.
    pub damaged: u32,
    /// Groups written since the start.
    pub appends: u64,
    /// Syncs since the start.
    pub syncs: u64,
    /// How long the last sync took.
    pub last_sync_micros: u64,
    /// How often all of it was read since the start, to find what a disk has lost.
    pub scrubs: u64,
    /// Batches under the newest checkpoint.
    pub checkpoint_size: u64,
    /// Its root; that of the empty tree when there is none.
    pub checkpoint_root: Hash,
    /// Whether it takes batches.
    pub state: StreamState,
}

/// Why something about a stream cannot be answered.
#[derive(Debug)]
pub enum StoreError {
    /// The disk does not answer.
    Disk(String),
    /// A proof was asked for a tree or a leaf that there is not.
    NoSuchTree {
        /// The size or leaf that was asked for.
        asked: u64,
        /// Batches in the stream.
        size: u64,
    },
    /// The hashes that are kept do not lead to the checkpoint: some are damaged.
    Unproven {
        /// Batches under the checkpoint.
        size: u64,
    },
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disk(text) => f.write_str(text),
            Self::NoSuchTree { asked, size } => {
                write!(f, "a proof about {asked} was asked for, the stream has {size} batches")
            }
            Self::Unproven { size } => {
                write!(
                    f,
                    "the kept hashes do not lead to the checkpoint over {size} batches: some are damaged"
                )
            }
        }
    }
}

impl std::error::Error for StoreError {}

/// Ends a watch when it is dropped.
#[must_use = "a watch ends when its guard is dropped"]
pub struct WatchGuard {
    end: Option<Box<dyn FnOnce() + Send + Sync>>,
}

impl WatchGuard {
    /// A guard that calls `end` once.
    pub fn new(end: impl FnOnce() + Send + Sync + 'static) -> Self {
        Self { end: Some(Box::new(end)) }
    }
}

impl Drop for WatchGuard {
    fn drop(&mut self) {
        if let Some(end) = self.end.take() {
            end();
        }
    }
}

impl fmt::Debug for WatchGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WatchGuard")
    }
}
