//! The queue between the connection and one subscription's consumer, bounded by credit in bytes.
//!
//! ```text
//!   connection ──deliver──> | batch | lagged | batch | ... | ──pop──> consumer
//!        ^                                                              |
//!        '------------------------ credit, in quarters <----------------'
//! ```
//!
//! The broker may overdraw its credit by one batch. One that does more breaks the protocol, so that no broker can
//! fill this process's memory.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use sealbus_protocol::batch::HEAD_LEN;
use sealbus_protocol::session::Delivered;
use sealbus_protocol::topic::TopicFilter;

use crate::connection::wake::{FeedId, Wake};
use crate::error::CloseReason;
use crate::sync::locked;

/// Credit is returned when this share of it has been consumed, so that it costs few frames.
const RETURNED_SHARE: u64 = 4;

/// What the connection and one consumer share.
#[derive(Debug)]
pub(crate) struct Feed {
    pub(crate) id: FeedId,
    pub(crate) filter: TopicFilter,
    credit_bytes: u64,
    state: Mutex<State>,
    wake: Arc<Wake>,
}

/// What comes out of a feed.
#[derive(Debug)]
pub(crate) enum Item {
    /// A batch that nobody has verified.
    Batch(Unverified),
    /// The broker dropped messages here.
    Lagged(u64),
    /// Nothing more will come.
    Closed(CloseReason),
}

/// A delivery, the connection that it came on, and the policy generation in force there.
#[derive(Debug)]
pub(crate) struct Unverified {
    pub(crate) delivered: Delivered,
    /// Counts the connections of the bus.
    pub(crate) connection: u64,
    pub(crate) generation: u64,
}

#[derive(Debug, Default)]
struct State {
    items: VecDeque<Item>,
    queued_bytes: u64,
    /// What the broker may still send; negative when it has overdrawn.
    credit_left: i64,
    returned_bytes: u64,
    waker: Option<Waker>,
    consumer: Consumer,
    /// Whether the connection has a note that it has not read yet.
    noted: bool,
    closed: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Consumer {
    #[default]
    Present,
    Gone,
}

/// The broker sent more than it had credit for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Overdrawn;

/// What a feed has for the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FeedNews {
    pub(crate) credit_bytes: u64,
    pub(crate) consumer: Consumer,
}

impl Feed {
    pub(crate) fn new(id: FeedId, filter: TopicFilter, credit_bytes: u64, wake: Arc<Wake>) -> Arc<Self> {
        Arc::new(Self { id, filter, credit_bytes, state: Mutex::default(), wake })
    }

    /// The credit for a subscription that is made now, given what is still queued from the one before.
    pub(crate) fn begin_credit(&self) -> u64 {
        let mut state = locked(&self.state);
        let credit = self.credit_bytes.saturating_sub(state.queued_bytes);
        state.credit_left = signed(credit);
        state.returned_bytes = 0;
        credit
    }

    pub(crate) fn handle_deliver(&self, batch: Unverified) -> Result<(), Overdrawn> {
        let mut state = locked(&self.state);
        if state.credit_left <= 0 {
            return Err(Overdrawn);
        }
        let cost = cost(&batch);
        state.credit_left = state.credit_left.saturating_sub(signed(cost));
        state.queued_bytes = state.queued_bytes.saturating_add(cost);
        state.push(Item::Batch(batch));
        Ok(())
    }

    /// Lags that follow each other are one, so that a broker cannot fill the queue with them.
    pub(crate) fn handle_lagged(&self, missed: u64) {
        let mut state = locked(&self.state);
        match state.items.back_mut() {
            Some(Item::Lagged(before)) => *before = before.saturating_add(missed),
            _ => state.push(Item::Lagged(missed)),
        }
    }

    pub(crate) fn close(&self, reason: CloseReason) {
        let mut state = locked(&self.state);
        if !std::mem::replace(&mut state.closed, true) {
            state.push(Item::Closed(reason));
        }
    }

    /// What the connection was noted about.
    pub(crate) fn take_news(&self) -> FeedNews {
        let mut state = locked(&self.state);
        state.noted = false;
        let credit_bytes = std::mem::take(&mut state.returned_bytes);
        state.credit_left = state.credit_left.saturating_add(signed(credit_bytes));
        FeedNews { credit_bytes, consumer: state.consumer }
    }

    /// The next item. Taking a batch makes room for others.
    pub(crate) fn poll_pop(&self, cx: &mut Context<'_>) -> Poll<Item> {
        let mut state = locked(&self.state);
        let Some(item) = state.items.pop_front() else {
            state.waker = Some(cx.waker().clone());
            return Poll::Pending;
        };
        if let Item::Batch(batch) = &item {
            let cost = cost(batch);
            state.queued_bytes = state.queued_bytes.saturating_sub(cost);
            state.returned_bytes = state.returned_bytes.saturating_add(cost);
            if state.returned_bytes >= self.credit_bytes / RETURNED_SHARE && !state.noted {
                state.noted = true;
                drop(state);
                self.wake.feed_changed(self.id);
            }
        }
        Poll::Ready(item)
    }

    /// The consumer is gone; the connection is told, and nobody waits.
    pub(crate) fn consumer_dropped(&self) {
        let mut state = locked(&self.state);
        state.consumer = Consumer::Gone;
        state.items.clear();
        state.queued_bytes = 0;
        state.noted = true;
        drop(state);
        self.wake.feed_changed(self.id);
    }
}

impl State {
    fn push(&mut self, item: Item) {
        self.items.push_back(item);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// A batch costs its bytes, and never less than the smallest batch has, so that empty ones fill no queue either.
fn cost(batch: &Unverified) -> u64 {
    batch.delivered.batch.len().max(HEAD_LEN) as u64
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use bytes::Bytes;
    use sealbus_protocol::frame::SubscriptionId;
    use sealbus_protocol::topic::Topic;

    use super::*;

    fn feed(credit_bytes: u64) -> Arc<Feed> {
        let filter = TopicFilter::parse("#").unwrap();
        let feed = Feed::new(FeedId(1), filter, credit_bytes, Arc::default());
        assert_eq!(feed.begin_credit(), credit_bytes);
        feed
    }

    fn batch(len: usize) -> Unverified {
        let delivered = Delivered {
            subscription: SubscriptionId(1),
            topic: Topic::parse("a").unwrap(),
            offset: None,
            broker_ms: 0,
            batch: Bytes::from(vec![0; len]),
        };
        Unverified { delivered, connection: 1, generation: 1 }
    }

    fn pop(feed: &Feed) -> Option<Item> {
        match feed.poll_pop(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(item) => Some(item),
            Poll::Pending => None,
        }
    }

    #[test]
    fn credit_may_be_overdrawn_by_one_batch_and_no_more() {
        let feed = feed(1_000);
        feed.handle_deliver(batch(999)).unwrap();
        feed.handle_deliver(batch(100_000)).unwrap();
        assert_eq!(feed.handle_deliver(batch(360)), Err(Overdrawn));
    }

    #[test]
    fn empty_batches_cost_something() {
        let feed = feed(3_600);
        let taken = (0..100).take_while(|_| feed.handle_deliver(batch(0)).is_ok()).count();
        assert_eq!(taken, 10);
    }

    #[test]
    fn credit_returns_as_batches_are_consumed() {
        let feed = feed(4_000);
        feed.handle_deliver(batch(400)).unwrap();
        feed.handle_deliver(batch(700)).unwrap();
        assert!(matches!(pop(&feed), Some(Item::Batch(_))));
        assert!(matches!(pop(&feed), Some(Item::Batch(_))));
        assert_eq!(feed.take_news(), FeedNews { credit_bytes: 1_100, consumer: Consumer::Present });
        assert_eq!(feed.take_news().credit_bytes, 0);
    }

    #[test]
    fn a_new_subscription_gets_credit_for_what_is_not_queued() {
        let feed = feed(4_000);
        feed.handle_deliver(batch(1_500)).unwrap();
        assert_eq!(feed.begin_credit(), 2_500);
    }

    #[test]
    fn lags_that_follow_each_other_are_one_and_stand_in_their_place() {
        let feed = feed(100_000);
        feed.handle_lagged(1);
        feed.handle_lagged(2);
        feed.handle_deliver(batch(400)).unwrap();
        feed.handle_lagged(4);
        assert!(matches!(pop(&feed), Some(Item::Lagged(3))));
        assert!(matches!(pop(&feed), Some(Item::Batch(_))));
        assert!(matches!(pop(&feed), Some(Item::Lagged(4))));
        assert!(pop(&feed).is_none());
    }

    #[test]
    fn a_feed_closes_once() {
        let feed = feed(1);
        feed.close(CloseReason::ByBroker);
        feed.close(CloseReason::ByCaller);
        assert!(matches!(pop(&feed), Some(Item::Closed(CloseReason::ByBroker))));
        assert!(pop(&feed).is_none());
    }
}
