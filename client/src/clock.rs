//! The only file that asks the system for the time.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sealbus_protocol::session::Tick;
use tokio::time::Instant;

/// Milliseconds since 1970. A clock before 1970 reads as 0, which every judge refuses.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// A monotonic clock whose zero is the moment at which it was made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ticker {
    start: Instant,
}

impl Ticker {
    pub(crate) fn new() -> Self {
        Self { start: Instant::now() }
    }

    pub(crate) fn tick(&self) -> Tick {
        Tick(milliseconds(self.start.elapsed()))
    }

    /// When this moment is. One millisecond later than its number says, because ticks are cut to whole
    /// milliseconds: a timer must not fire before the tick that it waits for.
    pub(crate) fn instant(&self, tick: Tick) -> Instant {
        self.start + Duration::from_millis(tick.0.saturating_add(1))
    }
}

pub(crate) fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
