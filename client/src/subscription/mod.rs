//! Receiving: streams of verified messages, live, from a history, or as a share of a durable consumer's work.
//!
//! Read [`want`] for what is asked of the broker, [`feed`] for how batches come from the connection, [`bindings`] for
//! whose keys are believed, [`verify`] for the order in which a batch is judged, [`history`] and [`offsets`] for what
//! is held against a stream, and [`reader`] and [`reading`] for how messages come out. All judging happens in the
//! consumer's task.

pub(crate) mod bindings;
pub(crate) mod consume;
pub(crate) mod feed;
mod history;
mod lag;
mod live;
mod methods;
mod offsets;
pub(crate) mod reader;
mod reading;
pub(crate) mod replay;
pub(crate) mod settle;
mod verify;
pub(crate) mod want;

pub use self::consume::{ConsumeBuilder, Consumer};
pub use self::live::Subscription;
pub use self::reading::MessageBatch;
pub use self::replay::{Replay, ReplayBuilder};
