//! History that is proven, not believed: checkpoints of streams, and proofs that messages are in them.
//!
//! Read [`ledger`] for what is believed and why, [`ask`] for how it is asked for.

mod ask;
mod error;
mod ledger;
mod types;

pub(crate) use self::ledger::Ledger;

pub use self::error::{CheckpointError, ProveError};
pub use self::types::{Checkpoint, InclusionProof};
