//! Durable consumers: which record is with whom, what is settled, and how that survives.
//!
//! ```text
//!   registry   Consumers: by stream and name; members, wake-ups, what must be written
//!     driver   the task that reads for a consumer and hands over what its group gives out
//!     flusher  the thread that has it written, ten times a second or when somebody waits
//!     group    one consumer: a state machine without time, locks or disk
//!       assignment, delivery, member, ranges, remembered   its parts
//! ```
//!
//! Read [`group`] first. What is kept of a consumer is `storage::system`'s.

pub mod assignment;
pub mod changes;
pub mod delivery;
pub mod driver;
pub mod flusher;
pub mod group;
pub mod limits;
pub mod member;
pub mod ranges;
pub mod registry;
pub(crate) mod undertaker;

mod remembered;

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
