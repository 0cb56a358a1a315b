//! The outbox of a session: what its publishers have left for it, within a bound.
//!
//! ```text
//!   publishers                    one lane per subscription                 the session's task
//!   push(lanes, batch) ----> | batch | batch | missed 3, batch |  ----> take: LAGGED 3, then the batch
//!                            | batch |  .. and missed 7 after it   ----> take: .. then LAGGED 7
//! ```
//!
//! A push never waits. When the outbox is full the batch is not kept, and its messages are counted *in the place
//! where they would have been*: delivered and missed add up to what was published, always. A lane whose subscription
//! has no credit is parked, and does not stand in the way of the others.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::task::Waker;

use bytes::Bytes;
use sealbus_protocol::ids::StreamId;
use sealbus_protocol::topic::Topic;

use crate::bindings::Binding;
use crate::locks::lock;
use crate::party::Party;

/// What a queued batch costs besides its bytes: its place, its share of the topic, and the like. It bounds what a
/// flood of the smallest batches can hold.
const OVERHEAD_BYTES: usize = 256;

/// Places that an empty lane keeps, so that a quiet subscription holds next to nothing.
const PLACES_KEPT: usize = 16;

/// A batch on its way to its subscribers: made once, shared by all of them.
#[derive(Debug)]
pub(crate) struct Published {
    /// Its topic.
    pub(crate) topic: Topic,
    /// The batch, as its producer sent it.
    pub(crate) batch: Bytes,
    /// Messages in it.
    pub(crate) messages: u32,
    /// When it was accepted, milliseconds since 1970.
    pub(crate) broker_ms: u64,
    /// Generation of the policy that it was accepted under.
    pub(crate) generation: u64,
    /// Who published it, and from where.
    pub(crate) producer: Arc<Party>,
    /// What binds its key.
    pub(crate) binding: Arc<Binding>,
    /// Its place in the stream that keeps it; none when it is live only.
    pub(crate) kept: Option<Kept>,
}

/// A batch's place in the stream that keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kept {
    /// The stream.
    pub(crate) stream: StreamId,
    /// Offset of its first message.
    pub(crate) offset: u64,
    /// What its leaf says of the policy.
    pub(crate) policy_version: u64,
    /// Its place in the stream's tree.
    pub(crate) leaf_index: u64,
}

/// A subscription, by a number that its session never uses twice. The client's own id may be used again, and what was
/// queued for the subscription before must not reach the one after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct LaneId(pub(crate) u64);

/// What a session takes out of its outbox.
#[derive(Debug)]
pub(crate) enum Taken {
    /// A batch.
    Batch(LaneId, Arc<Published>),
    /// Messages that would have been here.
    Missed(LaneId, u64),
}

/// Whether a subscription may receive a batch now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Credit {
    /// It may.
    Left,
    /// Not before CREDIT.
    Spent,
}

/// The queue of one session, shared with its publishers.
#[derive(Debug)]
pub(crate) struct Outbox {
    shared: Mutex<Shared>,
}

#[derive(Debug)]
struct Shared {
    queue: Queue,
    waker: Option<Waker>,
    /// Whether the session has taken all that it could. One that waits for its connection instead is not woken by a
    /// batch: it looks here by itself when the connection moves, and costs its publishers nothing until then.
    is_hungry: bool,
}

impl Outbox {
    /// An outbox that keeps at most this many bytes.
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { shared: Mutex::new(Shared { queue: Queue::new(bytes_max), waker: None, is_hungry: true }) }
    }

    /// Whom to wake. To be called before looking for anything that could be signalled, so that nothing is overlooked.
    pub(crate) fn register(&self, waker: &Waker) {
        let mut shared = lock(&self.shared);
        if !shared.waker.as_ref().is_some_and(|known| known.will_wake(waker)) {
            shared.waker = Some(waker.clone());
        }
    }

    /// Wakes the session: something else than a batch wants its attention.
    pub(crate) fn wake(&self) {
        let waker = lock(&self.shared).waker.take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Adds a subscription.
    pub(crate) fn open(&self, lane: LaneId) {
        lock(&self.shared).queue.open(lane);
    }

    /// Drops a subscription and what is queued for it.
    pub(crate) fn close(&self, lane: LaneId) {
        lock(&self.shared).queue.close(lane);
    }

    /// Leaves a batch for these subscriptions. One lock and at most one wake-up, however many they are.
    pub(crate) fn push(&self, lanes: &[LaneId], published: &Arc<Published>) {
        let waker = {
            let mut shared = lock(&self.shared);
            for lane in lanes {
                shared.queue.push(*lane, published);
            }
            if shared.queue.ready.is_empty() || !std::mem::take(&mut shared.is_hungry) {
                return;
            }
            shared.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// The next thing to send.
    pub(crate) fn take(&self, credit: impl FnMut(LaneId) -> Credit) -> Option<Taken> {
        let mut shared = lock(&self.shared);
        let taken = shared.queue.take(credit);
        shared.is_hungry = taken.is_none();
        taken
    }

    /// Lets a parked subscription go on.
    pub(crate) fn credited(&self, lane: LaneId) {
        lock(&self.shared).queue.credited(lane);
    }

    /// Whether nothing is queued and nothing missed is still to be told.
    pub(crate) fn is_drained(&self) -> bool {
        lock(&self.shared).queue.is_drained()
    }
}

/// The queue itself: pure.
#[derive(Debug)]
struct Queue {
    lanes: HashMap<LaneId, Lane>,
    /// Lanes that have something to take, in turn. Each stands here at most once.
    ready: VecDeque<LaneId>,
    bytes: usize,
    bytes_max: usize,
}

#[derive(Debug, Default)]
struct Lane {
    items: VecDeque<Item>,
    /// Messages missed after the last item.
    missed: u64,
    turn: Turn,
}

#[derive(Debug)]
struct Item {
    missed_before: u64,
    published: Arc<Published>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Turn {
    /// Nothing to take.
    #[default]
    None,
    /// In the list of ready lanes.
    Ready,
    /// A batch waits for credit.
    Parked,
}

impl Queue {
    fn new(bytes_max: usize) -> Self {
        Self { lanes: HashMap::new(), ready: VecDeque::new(), bytes: 0, bytes_max }
    }

    fn open(&mut self, id: LaneId) {
        self.lanes.insert(id, Lane::default());
    }

    fn close(&mut self, id: LaneId) {
        if let Some(lane) = self.lanes.remove(&id) {
            let held: usize = lane.items.iter().map(|item| cost(&item.published)).sum();
            self.bytes = self.bytes.saturating_sub(held);
            self.ready.retain(|ready| *ready != id);
        }
    }

    fn push(&mut self, id: LaneId, published: &Arc<Published>) {
        let Some(lane) = self.lanes.get_mut(&id) else { return };
        let bytes = self.bytes.saturating_add(cost(published));
        if bytes > self.bytes_max {
            lane.missed = lane.missed.saturating_add(u64::from(published.messages));
            if lane.missed == 0 {
                return;
            }
        } else {
            self.bytes = bytes;
            let missed_before = std::mem::take(&mut lane.missed);
            lane.items.push_back(Item { missed_before, published: Arc::clone(published) });
        }
        if lane.turn == Turn::None {
            lane.turn = Turn::Ready;
            self.ready.push_back(id);
        }
    }

    fn take(&mut self, mut credit: impl FnMut(LaneId) -> Credit) -> Option<Taken> {
        while let Some(id) = self.ready.pop_front() {
            let Some(lane) = self.lanes.get_mut(&id) else { continue };
            let Some(first) = lane.items.front_mut() else {
                // The lane has drained: what was missed at its end is told now, not when something follows.
                lane.turn = Turn::None;
                match std::mem::take(&mut lane.missed) {
                    0 => continue,
                    missed => return Some(Taken::Missed(id, missed)),
                }
            };
            match std::mem::take(&mut first.missed_before) {
                0 => {}
                missed => {
                    self.ready.push_front(id);
                    return Some(Taken::Missed(id, missed));
                }
            }
            match credit(id) {
                Credit::Left => {}
                Credit::Spent => {
                    lane.turn = Turn::Parked;
                    continue;
                }
            }
            let Item { published, .. } = lane.items.pop_front().expect("the lane has a first item");
            self.bytes = self.bytes.saturating_sub(cost(&published));
            if lane.items.is_empty() && lane.missed == 0 {
                lane.turn = Turn::None;
                lane.items.shrink_to(PLACES_KEPT);
            } else {
                self.ready.push_back(id);
            }
            return Some(Taken::Batch(id, published));
        }
        None
    }

    fn credited(&mut self, id: LaneId) {
        if let Some(lane) = self.lanes.get_mut(&id)
            && lane.turn == Turn::Parked
        {
            lane.turn = Turn::Ready;
            self.ready.push_back(id);
        }
    }

    fn is_drained(&self) -> bool {
        self.lanes.values().all(|lane| lane.turn == Turn::None)
    }
}

fn cost(published: &Published) -> usize {
    published.batch.len().saturating_add(OVERHEAD_BYTES)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use proptest::prelude::*;
    use sealbus_protocol::identity::Principal;

    use super::*;

    fn published(messages: u32, bytes: usize) -> Arc<Published> {
        let producer = Party {
            principal: Principal::parse("spiffe://a.example/p").unwrap(),
            source: [127, 0, 0, 1].into(),
            zone: "internal".into(),
        };
        Arc::new(Published {
            topic: Topic::parse("a/b").unwrap(),
            batch: vec![0; bytes].into(),
            messages,
            broker_ms: 0,
            generation: 1,
            binding: Binding::testing(&producer.principal),
            producer: Arc::new(producer),
            kept: None,
        })
    }

    fn drain(queue: &mut Queue) -> Vec<(u64, Option<u64>)> {
        let mut found = Vec::new();
        while let Some(taken) = queue.take(|_| Credit::Left) {
            found.push(match taken {
                Taken::Batch(lane, published) => (lane.0, Some(u64::from(published.messages))),
                Taken::Missed(lane, missed) => (lane.0, Some(missed + 1_000)),
            });
        }
        found
    }

    #[test]
    fn what_was_missed_is_told_where_it_would_have_been() {
        let mut queue = Queue::new(2 * (OVERHEAD_BYTES + 10));
        queue.open(LaneId(1));
        for messages in [1, 2, 3, 4] {
            queue.push(LaneId(1), &published(messages, 10));
        }
        // Room for one again: the gap stands before it.
        assert!(matches!(queue.take(|_| Credit::Left), Some(Taken::Batch(_, batch)) if batch.messages == 1));
        queue.push(LaneId(1), &published(5, 10));
        queue.push(LaneId(1), &published(6, 10));
        assert_eq!(drain(&mut queue), [(1, Some(2)), (1, Some(1_007)), (1, Some(5)), (1, Some(1_006))]);
        assert!(queue.is_drained());
        assert_eq!(queue.bytes, 0);
    }

    #[test]
    fn a_lane_without_credit_does_not_hold_up_another() {
        let mut queue = Queue::new(100_000);
        queue.open(LaneId(1));
        queue.open(LaneId(2));
        for _ in 0..3 {
            queue.push(LaneId(1), &published(1, 10));
            queue.push(LaneId(2), &published(2, 10));
        }
        let spent = |lane| if lane == LaneId(1) { Credit::Spent } else { Credit::Left };
        for _ in 0..3 {
            assert!(matches!(queue.take(spent), Some(Taken::Batch(LaneId(2), _))));
        }
        assert!(queue.take(spent).is_none());
        assert!(!queue.is_drained());
        queue.push(LaneId(1), &published(1, 10));
        assert!(queue.take(|_| Credit::Left).is_none(), "parked until it is credited");
        queue.credited(LaneId(1));
        assert_eq!(drain(&mut queue).len(), 4);
    }

    #[test]
    fn a_closed_lane_gives_its_room_back() {
        let mut queue = Queue::new(2 * (OVERHEAD_BYTES + 10));
        queue.open(LaneId(1));
        queue.open(LaneId(2));
        queue.push(LaneId(1), &published(1, 10));
        queue.push(LaneId(1), &published(1, 10));
        queue.close(LaneId(1));
        assert_eq!(queue.bytes, 0);
        queue.push(LaneId(1), &published(1, 10));
        queue.push(LaneId(2), &published(7, 10));
        assert_eq!(drain(&mut queue), [(2, Some(7))]);
    }

    #[test]
    fn a_batch_that_never_fits_is_missed_at_once() {
        let mut queue = Queue::new(300);
        queue.open(LaneId(1));
        queue.push(LaneId(1), &published(9, 1_000));
        assert_eq!(drain(&mut queue), [(1, Some(1_009))]);
        queue.push(LaneId(1), &published(0, 1_000));
        assert!(queue.is_drained(), "a lost heartbeat is no lost message");
    }

    #[test]
    fn many_pushes_wake_once() {
        struct Counter(AtomicUsize);
        impl Wake for Counter {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Ordering::SeqCst);
            }
        }
        let counter = Arc::new(Counter(AtomicUsize::new(0)));
        let outbox = Outbox::new(1 << 20);
        let woken = || counter.0.load(Ordering::SeqCst);
        let register = || outbox.register(&Waker::from(Arc::clone(&counter)));
        outbox.open(LaneId(1));
        outbox.open(LaneId(2));
        register();
        for _ in 0..10 {
            outbox.push(&[LaneId(1), LaneId(2)], &published(1, 10));
        }
        assert_eq!(woken(), 1);
        // It was polled, has taken some, and waits for its connection.
        register();
        assert!(outbox.take(|_| Credit::Left).is_some());
        outbox.push(&[LaneId(1)], &published(1, 10));
        assert_eq!(woken(), 1, "it will look again by itself");
        while outbox.take(|_| Credit::Left).is_some() {}
        outbox.push(&[LaneId(1)], &published(1, 10));
        assert_eq!(woken(), 2);
        register();
        outbox.wake();
        assert_eq!(woken(), 3, "a signal always wakes");
    }

    #[derive(Debug, Clone)]
    enum Step {
        Push { lane: u64, bytes: usize },
        Take,
        Starve,
        Credit { lane: u64 },
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..3u64, 0..400usize).prop_map(|(lane, bytes)| Step::Push { lane, bytes }),
            2 => Just(Step::Take),
            1 => Just(Step::Starve),
            1 => (0..3u64).prop_map(|lane| Step::Credit { lane }),
        ]
    }

    proptest! {
        /// Message `n` of a lane is the `n`-th that was pushed to it: each is either delivered in its place, or
        /// counted in its place.
        #[test]
        fn delivered_and_missed_are_what_was_published_and_in_order(
            steps in proptest::collection::vec(step(), 0..200),
            bytes_max in 300..3_000usize,
        ) {
            let mut queue = Queue::new(bytes_max);
            (0..3).for_each(|lane| queue.open(LaneId(lane)));
            let mut pushed = [0u64; 3];
            let mut told = [0u64; 3];
            let mut note = |taken: Taken| match taken {
                Taken::Missed(LaneId(lane), missed) => {
                    assert!(missed > 0);
                    told[lane as usize] += missed;
                }
                // The batch's own bytes say which message it is.
                Taken::Batch(LaneId(lane), published) => {
                    assert_eq!(published.broker_ms, told[lane as usize]);
                    told[lane as usize] += 1;
                }
            };
            for step in steps {
                match step {
                    Step::Push { lane, bytes } => {
                        let mut batch = Arc::into_inner(published(1, bytes)).unwrap();
                        batch.broker_ms = pushed[lane as usize];
                        pushed[lane as usize] += 1;
                        queue.push(LaneId(lane), &Arc::new(batch));
                    }
                    Step::Take => {
                        if let Some(taken) = queue.take(|_| Credit::Left) {
                            note(taken);
                        }
                    }
                    Step::Starve => {
                        if let Some(taken) = queue.take(|_| Credit::Spent) {
                            prop_assert!(matches!(taken, Taken::Missed(..)));
                            note(taken);
                        }
                    }
                    Step::Credit { lane } => queue.credited(LaneId(lane)),
                }
                prop_assert!(queue.bytes <= bytes_max);
            }
            (0..3).for_each(|lane| queue.credited(LaneId(lane)));
            while let Some(taken) = queue.take(|_| Credit::Left) {
                note(taken);
            }
            prop_assert_eq!(told, pushed);
            prop_assert_eq!(queue.bytes, 0);
            prop_assert!(queue.is_drained());
        }
    }
}
