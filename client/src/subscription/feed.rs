//! The queue between the connection and one reader, bounded by credit in bytes.
//!
//! ```text
//!   connection ──deliver──> | began | batch | skipped | batch | ... | ──pop──> reader
//!        ^                                                                       |
//!        '------------- credit, in quarters; the place to go on from <-----------'
//! ```
//!
//! The broker may overdraw its credit by one batch. One that does more breaks the protocol, so that no broker can
//! fill this process's memory.
//!
//! Live messages that wait here outlive their connection. What waits of a stream does not: a replay asks again from
//! the place up to which its reader has judged, and a durable consumer's work is given out anew.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use sealbus_protocol::batch::HEAD_LEN;
use sealbus_protocol::frame::{Narrowed, SkippedWhy, StreamStart};
use sealbus_protocol::ids::StreamId;
use sealbus_protocol::session::Delivered;
use sealbus_protocol::topic::TopicFilter;

use crate::connection::wake::{FeedId, Wake};
use crate::error::CloseReason;
use crate::sync::locked;

use super::settle::Settler;
use super::want::Want;

/// Credit is returned when this share of it has been consumed, so that it costs few frames.
const RETURNED_SHARE: u64 = 4;

/// Reports of skipped offsets that wait here, besides one for each batch. They cost no credit, and an honest broker's are
/// joined where they touch: what it withholds of a revoked producer may stand between any two batches, and no two of
/// its reports elsewhere.
const SKIPPED_MAX: usize = 1_024;

/// What the connection and one reader share.
#[derive(Debug)]
pub(crate) struct Feed {
    pub(crate) id: FeedId,
    pub(crate) want: Want,
    /// What is wanted, also where that is everything.
    pub(crate) filter: TopicFilter,
    /// Where a durable consumer's verdicts go.
    pub(crate) settler: Option<Arc<Settler>>,
    credit_bytes: u64,
    state: Mutex<State>,
    wake: Arc<Wake>,
}

/// What comes out of a feed.
#[derive(Debug)]
pub(crate) enum Item {
    /// A stream is read from here on: for the first time, or on another connection.
    Began(Began),
    /// A batch that nobody has verified.
    Batch(Unverified),
    /// The broker dropped messages here.
    Lagged(u64),
    /// Offsets that will not come.
    Skipped(Skip),
    /// The broker has closed it without a reason: a replay that was to end has ended.
    Finished,
    /// Nothing more will come.
    Closed(CloseReason),
}

/// Where reading of a stream begins or goes on, as the broker says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Began {
    pub(crate) start: StreamStart,
    pub(crate) narrowed: Narrowed,
}

/// Offsets that will not come, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Skip {
    pub(crate) from: u64,
    pub(crate) to: u64,
    pub(crate) why: SkippedWhy,
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
    skipped: usize,
    batches: usize,
    /// The stream that is read; none before one has begun.
    stream_id: Option<StreamId>,
    /// The offset up to which the reader has judged; none before a stream has begun.
    position: Option<u64>,
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

/// What a feed begins with on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Begin {
    pub(crate) credit_bytes: u64,
    /// The offset to go on from; none when nothing has begun.
    pub(crate) position: Option<u64>,
}

/// The broker sent more than it had credit for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Overdrawn;

/// The stream is not the one that was read before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OtherStream;

/// What a feed has for the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FeedNews {
    pub(crate) credit_bytes: u64,
    pub(crate) consumer: Consumer,
}

impl Feed {
    pub(crate) fn new(
        id: FeedId,
        want: Want,
        credit_bytes: u64,
        wake: Arc<Wake>,
        settle_timeout: Duration,
    ) -> Arc<Self> {
        let everything = || TopicFilter::parse("#").expect("a hash alone is a filter");
        let filter = want.filter().cloned().unwrap_or_else(everything);
        let settler = match &want {
            Want::Live(_) | Want::Replay(_) => None,
            Want::Consume(_) => Some(Arc::new(Settler::new(id, Arc::clone(&wake), settle_timeout))),
        };
        Arc::new(Self { id, want, filter, settler, credit_bytes, state: Mutex::default(), wake })
    }

    /// Begins on a connection: with credit, given what is still queued from the one before, and where to go on.
    pub(crate) fn begin(&self) -> Begin {
        let mut state = locked(&self.state);
        match self.want {
            Want::Live(_) => {}
            Want::Replay(_) | Want::Consume(_) => {
                state.items.clear();
                state.queued_bytes = 0;
                (state.skipped, state.batches) = (0, 0);
            }
        }
        let credit_bytes = self.credit_bytes.saturating_sub(state.queued_bytes);
        state.credit_left = signed(credit_bytes);
        state.returned_bytes = 0;
        Begin { credit_bytes, position: state.position }
    }

    /// A stream is read from here on. One that has become another cannot be gone on with: its offsets mean other
    /// messages, and verdicts about the old ones must not reach them.
    pub(crate) fn handle_began(&self, began: Began) -> Result<(), OtherStream> {
        let mut state = locked(&self.state);
        let stream_id = *state.stream_id.get_or_insert(began.start.stream_id);
        if stream_id != began.start.stream_id {
            return Err(OtherStream);
        }
        state.position.get_or_insert(began.start.offset);
        state.push(Item::Began(began));
        Ok(())
    }

    /// The reader has judged everything up to there.
    pub(crate) fn set_position(&self, position: u64) {
        let mut state = locked(&self.state);
        state.position = state.position.max(Some(position));
    }

    pub(crate) fn handle_deliver(&self, batch: Unverified) -> Result<(), Overdrawn> {
        let mut state = locked(&self.state);
        if state.credit_left <= 0 {
            return Err(Overdrawn);
        }
        let cost = cost(&batch);
        state.credit_left = state.credit_left.saturating_sub(signed(cost));
        state.queued_bytes = state.queued_bytes.saturating_add(cost);
        state.batches += 1;
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

    /// Skips that follow each other are one; more than fit are a broker's attempt to fill memory.
    pub(crate) fn handle_skipped(&self, skip: Skip) -> Result<(), Overdrawn> {
        let mut state = locked(&self.state);
        if let Some(Item::Skipped(before)) = state.items.back_mut()
            && before.why == skip.why
            && before.to == skip.from
        {
            before.to = skip.to;
            return Ok(());
        }
        if state.skipped >= SKIPPED_MAX.saturating_add(state.batches) {
            return Err(Overdrawn);
        }
        state.skipped += 1;
        state.push(Item::Skipped(skip));
        Ok(())
    }

    /// The broker has closed it and gave no reason.
    pub(crate) fn finish(&self) {
        self.push_last(Item::Finished, &CloseReason::ByBroker);
    }

    pub(crate) fn close(&self, reason: &CloseReason) {
        self.push_last(Item::Closed(reason.clone()), reason);
    }

    fn push_last(&self, item: Item, reason: &CloseReason) {
        let mut state = locked(&self.state);
        if !std::mem::replace(&mut state.closed, true) {
            state.push(item);
        }
        drop(state);
        if let Some(settler) = &self.settler {
            settler.end(reason);
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
            drop(state);
            if let Some(settler) = &self.settler {
                settler.handle_idle();
            }
            return Poll::Pending;
        };
        match &item {
            Item::Batch(batch) => {
                let cost = cost(batch);
                state.batches = state.batches.saturating_sub(1);
                state.queued_bytes = state.queued_bytes.saturating_sub(cost);
                state.returned_bytes = state.returned_bytes.saturating_add(cost);
                if state.returned_bytes >= self.credit_bytes / RETURNED_SHARE && !state.noted {
                    state.noted = true;
                    drop(state);
                    self.wake.feed_changed(self.id);
                }
            }
            Item::Skipped(_) => state.skipped = state.skipped.saturating_sub(1),
            Item::Began(_) | Item::Lagged(_) | Item::Finished | Item::Closed(_) => {}
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
    use sealbus_protocol::frame::{Start, SubscriptionId, Until};
    use sealbus_protocol::stream_name::StreamName;
    use sealbus_protocol::topic::Topic;

    use super::super::want::ReplayWant;

    use super::*;

    fn feed(credit_bytes: u64) -> Arc<Feed> {
        feed_of(Want::Live(TopicFilter::parse("#").unwrap()), credit_bytes)
    }

    fn replay(credit_bytes: u64) -> Arc<Feed> {
        let stream = StreamName::parse("orders").unwrap();
        let want = ReplayWant { stream, filter: None, from: Start::Earliest, until: Until::Live };
        feed_of(Want::Replay(want), credit_bytes)
    }

    fn feed_of(want: Want, credit_bytes: u64) -> Arc<Feed> {
        let feed = Feed::new(FeedId(1), want, credit_bytes, Arc::default(), Duration::from_secs(1));
        assert_eq!(feed.begin(), Begin { credit_bytes, position: None });
        feed
    }

    fn batch(len: usize) -> Unverified {
        let delivered = Delivered {
            subscription: SubscriptionId(1),
            topic: Topic::parse("a").unwrap(),
            stream_id: StreamId::ZERO,
            offset: None,
            broker_ms: 0,
            stored: None,
            ranges: None,
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
        assert_eq!(feed.begin().credit_bytes, 2_500);
    }

    #[test]
    fn a_replay_begins_again_where_its_reader_has_judged() {
        let feed = replay(4_000);
        let start = StreamStart { stream_id: StreamId::new([3; 16]), offset: 7, end: 20 };
        feed.handle_began(Began { start, narrowed: Narrowed::No }).unwrap();
        feed.handle_deliver(batch(1_500)).unwrap();
        feed.handle_deliver(batch(1_500)).unwrap();
        assert!(matches!(pop(&feed), Some(Item::Began(_))));
        assert!(matches!(pop(&feed), Some(Item::Batch(_))));
        assert_eq!(feed.begin(), Begin { credit_bytes: 4_000, position: Some(7) }, "nothing was judged");
        assert!(pop(&feed).is_none(), "what waited is asked for again");
        feed.set_position(9);
        feed.set_position(8);
        assert_eq!(feed.begin().position, Some(9));
        let other = StreamStart { stream_id: StreamId::new([4; 16]), ..start };
        assert_eq!(feed.handle_began(Began { start: other, narrowed: Narrowed::No }), Err(OtherStream));
    }

    #[test]
    fn skips_that_touch_are_one_and_others_are_bounded() {
        let feed = replay(4_000);
        let skip = |from, to| Skip { from, to, why: SkippedWhy::Trimmed };
        feed.handle_skipped(skip(0, 5)).unwrap();
        feed.handle_skipped(skip(5, 9)).unwrap();
        feed.handle_skipped(Skip { why: SkippedWhy::Damaged, ..skip(9, 10) }).unwrap();
        assert!(matches!(pop(&feed), Some(Item::Skipped(found)) if found == skip(0, 9)));
        let skips = (0..2 * SKIPPED_MAX as u64).map(|index| skip(20 * index, 20 * index + 1));
        let taken = skips.map(|skip| feed.handle_skipped(skip)).take_while(Result::is_ok).count();
        assert_eq!(taken, SKIPPED_MAX - 1);
    }

    #[test]
    fn what_is_withheld_between_any_two_batches_is_no_flood() {
        let feed = replay(10_000_000);
        let skip = |from| Skip { from, to: from + 1, why: SkippedWhy::Withdrawn };
        for index in 0..3 * SKIPPED_MAX as u64 {
            feed.handle_deliver(batch(400)).unwrap();
            feed.handle_skipped(skip(2 * index)).unwrap();
        }
        while pop(&feed).is_some() {}
        let taken = (0..).map(|index| feed.handle_skipped(skip(2 * index))).take_while(Result::is_ok).count();
        assert_eq!(taken, SKIPPED_MAX, "none of those batches is there any more");
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
        feed.close(&CloseReason::ByBroker);
        feed.close(&CloseReason::ByCaller);
        feed.finish();
        assert!(matches!(pop(&feed), Some(Item::Closed(CloseReason::ByBroker))));
        assert!(pop(&feed).is_none());
    }
}
