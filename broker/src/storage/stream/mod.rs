//! Streams: batches on a log, with a Merkle tree over them.
//!
//! ```text
//!   handle      Streams, Stream: what sessions share       append, tail, bounds, watch: memory only
//!     writer    the threads: group commit, levels, disk full, checkpoints
//!       core    one stream, single-threaded: log + tree + producers + retention
//! ```
//!
//! Read [`store`] for what a stream promises, then `core`, `writer`, `handle`.

pub mod conformance;
mod core;
mod events;
mod handle;
mod inbox;
mod intake;
mod nodes;
mod opening;
mod overlay;
mod paging;
mod producers;
mod record;
mod retention;
mod settings;
pub mod store;
mod streams;
mod tail;
mod tree;
mod upkeep;
mod verify;
mod visible;
mod writer;

#[cfg(test)]
mod tests;

pub use self::core::{MAINTAIN_MS, StreamCore};
pub use handle::Stream;
pub use intake::{GROUP_BYTES_MAX, QUEUE_BYTES_MAX};
pub use opening::{CHECKPOINT_FILE, OpenError, Opened};
pub use producers::{ProducerSnapshot, REMEMBERED_MS, RecoveredClaim, RecoveredProducer};
pub use record::{
    DEAD_RANGES_MAX, KIND_BATCH, KIND_DEAD_LETTER, NewRecord, RecordError, decode, decode_view, leaf_digest,
};
pub use retention::{Moment, SEGMENTS_PER_PASS_MAX};
pub use settings::{
    INTERVAL_MS_DEFAULT, Level, RESERVE_BYTES_DEFAULT, Retention, SEGMENT_BYTES_DEFAULT, Snapshots,
    StreamOptions, TAIL_BYTES_DEFAULT,
};
pub use streams::{Streams, StreamsParts};
pub use verify::{
    CheckpointFinding, Fault, KeyJudge, KeyQuestion, Verdict, VerifyError, VerifyOptions, VerifyProgress,
    VerifyReport, verify_stream,
};
