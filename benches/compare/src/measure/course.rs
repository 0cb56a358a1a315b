//! How far the publisher of a topic may be ahead of its subscribers: the same for every subject, so that no broker is
//! asked to hold more than another, and a broker that drops from slow connections has no reason to.
//!
//! ```text
//!   sent ............................... |<------ ahead ------>|
//!   slowest subscriber's count ......... |                     |
//!                                        stays at most AHEAD_BYTES_MAX of payload
//! ```

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::timeout;

/// Bytes of payload that a publisher may be ahead of the slowest subscriber of its topic.
pub(super) const AHEAD_BYTES_MAX: usize = 4 * 1_024 * 1_024;

/// Bytes of payload that are published in one go.
const CHUNK_BYTES: usize = 128 * 1_024;

/// Chunks that a publisher may be ahead at least: it publishes one while the others are on their way.
const CHUNKS_AHEAD: u64 = 4;

/// How long nothing may come before what has not come does not hold up the publisher any more.
const STALL_TIMEOUT: Duration = Duration::from_secs(1);

/// Counters without a waiter.
const NOBODY: u64 = u64::MAX;

/// The counters of one topic.
#[derive(Debug)]
pub(crate) struct Course {
    sent: AtomicU64,
    subscribers: Vec<Subscriber>,
    ahead_max: u64,
    chunk: u32,
    /// The count of the slowest subscriber at which the publisher wants to be woken.
    wake_at: AtomicU64,
    room: Notify,
    stopped: AtomicBool,
}

#[derive(Debug, Default)]
struct Subscriber {
    received: AtomicU64,
    /// What is not waited for any more.
    written_off: AtomicU64,
}

/// What a publisher does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Publish so many.
    Publish(u32),
    /// Nothing more.
    Stop,
}

impl Course {
    pub(crate) fn new(size_bytes: usize, subscribers: u32) -> Self {
        let size_bytes = size_bytes.max(1);
        Self {
            sent: AtomicU64::new(0),
            subscribers: (0..subscribers).map(|_| Subscriber::default()).collect(),
            ahead_max: (AHEAD_BYTES_MAX / size_bytes) as u64,
            chunk: u32::try_from((CHUNK_BYTES / size_bytes).max(1)).unwrap_or(u32::MAX),
            wake_at: AtomicU64::new(NOBODY),
            room: Notify::new(),
            stopped: AtomicBool::new(false),
        }
    }

    /// The same, with the publisher never more than so many messages ahead.
    #[must_use]
    pub(crate) fn at_most_ahead(self, messages: u64) -> Self {
        let ahead_max = self.ahead_max.min(messages.max(CHUNKS_AHEAD));
        let chunk = u64::from(self.chunk).min(ahead_max / CHUNKS_AHEAD);
        Self { ahead_max, chunk: u32::try_from(chunk).unwrap_or(u32::MAX), ..self }
    }

    /// Waits until the publisher may publish a chunk.
    pub(crate) async fn turn(&self) -> Turn {
        loop {
            if self.stopped.load(Ordering::SeqCst) {
                return Turn::Stop;
            }
            let (sent, slowest) = (self.sent.load(Ordering::SeqCst), self.slowest());
            let ahead = sent.saturating_sub(slowest);
            if ahead.saturating_add(u64::from(self.chunk)) <= self.ahead_max {
                return Turn::Publish(self.chunk);
            }
            // A quarter of the way at a time: to be woken for every chunk would be a good part of the cost of a message.
            let wake_at = sent.saturating_sub(self.ahead_max / 4 * 3);
            self.wake_at.store(wake_at, Ordering::SeqCst);
            // Looked at again behind the store: a subscriber that went on before it did not see it.
            if self.slowest() < wake_at
                && !self.stopped.load(Ordering::SeqCst)
                && timeout(STALL_TIMEOUT, self.room.notified()).await.is_err()
                && self.slowest() == slowest
            {
                self.write_off(sent);
            }
            self.wake_at.store(NOBODY, Ordering::SeqCst);
        }
    }

    /// So many more are published.
    pub(crate) fn handle_sent(&self, messages: u32) {
        self.sent.fetch_add(u64::from(messages), Ordering::SeqCst);
    }

    /// So many more have come to the subscriber of this index.
    pub(crate) fn handle_received(&self, subscriber: usize, messages: u64) {
        let Some(counter) = self.subscribers.get(subscriber) else { return };
        counter.received.fetch_add(messages, Ordering::SeqCst);
        // What comes after it had been given up stands in for itself, so that nobody is ahead by it twice.
        let late = |given_up: u64| (given_up > 0).then(|| given_up.saturating_sub(messages));
        let _ = counter.written_off.fetch_update(Ordering::SeqCst, Ordering::SeqCst, late);
        if self.wake_at.load(Ordering::SeqCst) <= self.slowest() {
            self.room.notify_one();
        }
    }

    /// Nothing more is published.
    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
        self.room.notify_one();
    }

    /// What all subscribers together have received.
    pub(crate) fn received(&self) -> u64 {
        self.subscribers.iter().map(|subscriber| subscriber.received.load(Ordering::Relaxed)).sum()
    }

    /// What all subscribers together should have received.
    pub(crate) fn due(&self) -> u64 {
        self.sent.load(Ordering::SeqCst).saturating_mul(self.subscribers.len() as u64)
    }

    fn slowest(&self) -> u64 {
        let counts = self.subscribers.iter().map(|Subscriber { received, written_off }| {
            received.load(Ordering::SeqCst).saturating_add(written_off.load(Ordering::SeqCst))
        });
        counts.min().unwrap_or(0)
    }

    /// What has not come by now is not waited for. It counts as lost at the end if it never comes.
    fn write_off(&self, sent: u64) {
        for Subscriber { received, written_off } in &self.subscribers {
            written_off.store(sent.saturating_sub(received.load(Ordering::SeqCst)), Ordering::SeqCst);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    const SIZE_BYTES: usize = 128 * 1_024;

    /// Publishes until there is no more room; gives how much that was.
    async fn fill(course: &Course) -> u64 {
        let mut published = 0;
        while let Ok(Turn::Publish(messages)) = timeout(Duration::from_millis(1), course.turn()).await {
            course.handle_sent(messages);
            published += u64::from(messages);
        }
        published
    }

    #[tokio::test(start_paused = true)]
    async fn a_publisher_is_never_further_ahead_of_the_slowest_than_allowed() {
        let course = Course::new(SIZE_BYTES, 2);
        assert_eq!(fill(&course).await, 32);
        course.handle_received(0, 32);
        assert_eq!(fill(&course).await, 0, "the other has received nothing");
        course.handle_received(1, 8);
        assert_eq!(fill(&course).await, 8);
        assert_eq!((course.received(), course.due()), (40, 80));
    }

    #[tokio::test(start_paused = true)]
    async fn a_publisher_that_waits_is_woken_by_room_and_by_the_end() {
        let course = Arc::new(Course::new(SIZE_BYTES, 1));
        fill(&course).await;
        for stops in [false, true] {
            let waiting = Arc::clone(&course);
            let waiting = tokio::spawn(async move { waiting.turn().await });
            tokio::task::yield_now().await;
            assert!(!waiting.is_finished());
            if stops {
                course.stop();
                assert_eq!(waiting.await.unwrap(), Turn::Stop);
            } else {
                course.handle_received(0, 8);
                assert_eq!(waiting.await.unwrap(), Turn::Publish(1));
                course.handle_sent(8);
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_lost_does_not_stop_the_publisher_for_ever_and_still_counts() {
        let course = Course::new(SIZE_BYTES, 1);
        fill(&course).await;
        course.handle_received(0, 5);
        assert_eq!(fill(&course).await, 5);
        assert_eq!(course.turn().await, Turn::Publish(1), "after a second");
        assert_eq!(course.due() - course.received(), 32);
    }

    #[tokio::test(start_paused = true)]
    async fn a_publisher_may_be_held_back_further() {
        let course = Course::new(128, 1).at_most_ahead(100);
        assert_eq!(fill(&course).await, 100);
        let course = Course::new(SIZE_BYTES, 1).at_most_ahead(100);
        assert_eq!(fill(&course).await, 32, "and never less");
        let course = Course::new(128, 1).at_most_ahead(0);
        assert_eq!(fill(&course).await, 4);
    }

    #[test]
    fn every_size_has_a_chunk_and_several_of_them_fit() {
        for size_bytes in [0, 1, 128, 16 * 1_024, 256 * 1_024] {
            let course = Course::new(size_bytes, 1);
            assert!(course.chunk >= 1 && u64::from(course.chunk) * 4 <= course.ahead_max, "{size_bytes}");
        }
    }
}
