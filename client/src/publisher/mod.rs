//! Publishing to one topic.
//!
//! Read [`handle`] for what a program holds and [`series`] for many messages at a time, [`queue`] for how messages become
//! batches, [`entry`] and [`line`] for what becomes of a batch once it is signed, and [`receipt`] for how the answer
//! reaches whoever published.

pub(crate) mod content;
pub(crate) mod entry;
mod handle;
pub(crate) mod line;
pub(crate) mod queue;
pub(crate) mod receipt;
mod series;

pub use self::content::{IntoMessage, Json, MessageError, Outgoing};
pub use self::handle::Publisher;
pub(crate) use self::handle::{Handle, PublisherShared};
pub use self::receipt::{PendingReceipt, Receipt};
