//! All that a broker keeps, opened and closed together.
//!
//! ```text
//!   data_dir/streams/<id>/   the policy's streams, and dead letters, each a log with its tree
//!            system/         $policy, $keys, $cursors, $producers
//!            index/          what can be made again from the logs
//! ```
//!
//! The order matters: a policy is durable before its streams are opened under it, a key before the first batch that it
//! signs, a snapshot of producers before their batches are trimmed. `storage` opens and closes, `streams` follows the
//! policy; the others are named for what they keep.

mod error;
mod findings;
mod keys;
mod policies;
mod producers;
mod scrub;
mod storage;
mod streams;

#[cfg(test)]
mod tests;

pub use error::StorageError;
pub use findings::Finding;
pub use scrub::Scrubber;
pub use storage::{Recovered, Storage, StorageParts};
pub use streams::{OpenedStream, Unopened, stream_dir};
