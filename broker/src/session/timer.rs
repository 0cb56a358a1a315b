//! The one timer of a session: armed for the earliest thing that is due, and moved only when that comes sooner.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use sealbus_protocol::session::Tick;
use tokio::time::Sleep;

/// A timer that compares due times by the broker's clock, and only sleeps by the runtime's. What is due later than the
/// moment it is armed for is found when that moment comes: a session that hears something every second does not move
/// its timer every second.
#[derive(Debug)]
pub(super) struct Timer {
    sleep: Pin<Box<Sleep>>,
    armed_for: Tick,
}

/// At least so long, so that a clock that stands still is not asked without end.
const SLEEP_MS_MIN: u64 = 1;

impl Timer {
    /// A timer that goes off at once.
    pub(super) fn new_at(now: Tick) -> Self {
        Self { sleep: Box::pin(tokio::time::sleep(Duration::ZERO)), armed_for: now }
    }

    /// Whether it went off since it was armed.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.sleep.as_mut().poll(cx)
    }

    /// Arms it for this moment, unless it goes off sooner anyway. Afterwards it wakes the task.
    pub(super) fn arm(&mut self, now: Tick, due: Tick, cx: &mut Context<'_>) {
        if self.sleep.is_elapsed() || due < self.armed_for {
            let sleep_ms = due.since(now).max(SLEEP_MS_MIN);
            self.sleep.as_mut().set(tokio::time::sleep(Duration::from_millis(sleep_ms)));
            self.armed_for = due;
        }
        if self.poll(cx).is_ready() {
            cx.waker().wake_by_ref();
        }
    }
}
