//! Live messages.

use std::fmt;
use std::sync::Arc;

use sealbus_protocol::frame::Narrowed;

use crate::bus::BusShared;

use super::methods::stream_of_messages;
use super::reader::{FeedGuard, Reader};

/// A stream of live messages whose producers are proven.
///
/// It survives reconnects: what was published meanwhile shows as [`crate::DeliveryError::Gap`]. It ends after
/// [`crate::DeliveryError::Closed`], or at once when this program closes the bus. Dropping it ends the subscription
/// without blocking.
pub struct Subscription {
    reader: Reader,
    narrowed: Narrowed,
}

stream_of_messages!(Subscription);

impl Subscription {
    pub(crate) fn new(guard: FeedGuard, bus: Arc<BusShared>, narrowed: Narrowed) -> Self {
        Self { reader: Reader::new(guard, bus), narrowed }
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription").field("filter", self.filter()).finish_non_exhaustive()
    }
}
