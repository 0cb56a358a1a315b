//! What can be found again in the logs, kept where it is found sooner: the rebuildable index.
//!
//! Nothing in here is the truth. Each row comes from the records of one log and is worth as much as the watermark that
//! was written with it: the number of records that the index has followed, and the digest of the last one. Who opens a
//! log asks [`Watermark::judge`] whether the index has followed *this* log; if so it goes on from there, if not it
//! clears the log's rows and follows it from the beginning. Losing the index costs time and nothing else.
//!
//! ```text
//!   log ---- records ----> owner of the log -- updates + watermark, atomically --> Index
//!                                                                                   |  RowIndex: rows, tallies
//!                                                                                   v
//!                                                                     SledRows (the disk) | MemoryRows (simulation)
//! ```
//!
//! sled 0.34 does not promise that its flush survives a power cut, nor that it refuses what it wrote half; it may panic on what
//! it reads. So every call is fenced, and the watermark carries a tally of all rows of its log: rows that were lost,
//! kept too long or changed are found when the index is opened, before anybody believes them.
//!
//! Read [`types`] for what is kept, [`store`] for the trait, [`row_index`] for how rows and tallies make one, [`open`] for how a
//! damaged one is moved aside. [`codec`] is the only place that knows bincode, [`on_sled`] the only one that knows sled.

pub mod codec;
pub mod error;
pub mod memory;
pub mod on_sled;
pub mod open;
pub mod row_index;
pub mod rows;
pub mod store;
pub mod tally;
#[cfg(test)]
mod tests;
pub mod types;
pub mod watermark;

pub use error::IndexError;
pub use memory::{MemoryIndex, MemorySnapshot};
pub use on_sled::SledIndex;
pub use open::{Opened, open_or_rebuild};
pub use store::Index;
pub use types::{CursorKey, KeyEntry, KeyPlace, ProducerEntry, ProducerKey, Update, minute_of};
pub use watermark::{Disagreement, LogEnd, Standing, Watermark};
