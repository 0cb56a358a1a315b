//! Time: the only file of the broker that asks the system for it.
//!
//! Two kinds, never mixed. Milliseconds of Unix time are compared with certificates, policies and the clocks of peers;
//! they may jump. A [`Tick`] only ever grows and is for waiting.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use sealbus_protocol::session::Tick;

/// Where the broker gets its time from.
pub trait Clock: Send + Sync + 'static {
    /// Milliseconds of Unix time.
    fn now_ms(&self) -> u64;

    /// A moment that never comes before one given earlier.
    fn tick(&self) -> Tick;
}

/// The system's clocks.
#[derive(Debug)]
pub struct SystemClock {
    started: Instant,
}

impl SystemClock {
    /// A clock whose first tick is now.
    #[must_use]
    pub fn new() -> Self {
        Self { started: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    /// A system that believes to be before 1970 gets 0, at which no certificate of ours is valid: it refuses.
    fn now_ms(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    fn tick(&self) -> Tick {
        Tick(u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX))
    }
}

/// A clock that stands still until it is told otherwise: for tests and simulation.
#[derive(Debug)]
pub struct ManualClock {
    now_ms: AtomicU64,
    tick_ms: AtomicU64,
}

impl ManualClock {
    /// A clock that shows this Unix time, and tick 0.
    #[must_use]
    pub const fn new(now_ms: u64) -> Self {
        Self { now_ms: AtomicU64::new(now_ms), tick_ms: AtomicU64::new(0) }
    }

    /// Lets this much time pass, for both kinds of time.
    pub fn advance(&self, ms: u64) {
        self.now_ms.fetch_add(ms, Ordering::SeqCst);
        self.tick_ms.fetch_add(ms, Ordering::SeqCst);
    }

    /// Sets the Unix time, as an operator or a time server may; ticks do not notice.
    pub fn set(&self, now_ms: u64) {
        self.now_ms.store(now_ms, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now_ms(&self) -> u64 {
        self.now_ms.load(Ordering::SeqCst)
    }

    fn tick(&self) -> Tick {
        Tick(self.tick_ms.load(Ordering::SeqCst))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_clock_moves_no_tick() {
        let clock = ManualClock::new(1_000);
        clock.advance(50);
        clock.set(10);
        assert_eq!((clock.now_ms(), clock.tick()), (10, Tick(50)));
    }

    #[test]
    fn the_system_is_past_the_year_2020_and_ticks_forward() {
        let clock = SystemClock::new();
        assert!(clock.now_ms() > 1_577_836_800_000);
        let earlier = clock.tick();
        assert!(clock.tick() >= earlier);
    }
}
