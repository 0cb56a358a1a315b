//! Acknowledgements on their way to the broker: many messages, few frames.
//!
//! ```text
//!   message.ack() ──┐                                               ┌──> SETTLE, up to 64 ranges
//!   message.ack() ──┼── | 3..7 ack | 9 nack 5 s | 12 ack | ... | ──┤
//!   message.nack() ─┘     offsets that follow each other are one    └──> again after a reconnect, if it was not sent
//!
//!   message.ack_sync() ── | 8 ack, awaited | ───────────────────────────> SETTLE of this alone, and SETTLED or REFUSED
//! ```
//!
//! A verdict whose answer is awaited travels alone: what the broker says then is said of that message and of no other.
//! Were it sent together with others, one of them that has been given to somebody else would refuse all, and whoever
//! waits would undo what was in fact settled.
//!
//! Bounded: when the connection is slow or gone, an acknowledgement waits for room until the request deadline. What
//! has been sent and was not asked to be answered may be lost with the connection; then the message is delivered again,
//! as everything that nobody acknowledged.

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sealbus_protocol::frame::{SettleItem, Settlement};
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, timeout_at};

use crate::clock;
use crate::connection::wake::{FeedId, Wake};
use crate::error::{CloseReason, SettleError};
use crate::sync::locked;

/// Ranges that wait for the connection before acknowledgements have to: a consumer's own bound on unacknowledged
/// messages, scattered as badly as can be.
const QUEUED_MAX: usize = 1_024;

/// Ranges of one frame, and what is sent without waiting for more. Beyond, a frame costs little beside its items.
pub(crate) const FRAME_ITEMS_MAX: usize = 64;

pub(crate) type Waiter = oneshot::Sender<Result<(), SettleError>>;

/// What the messages of one durable consumer share with the connection.
#[derive(Debug)]
pub(crate) struct Settler {
    feed: FeedId,
    state: Mutex<State>,
    /// Told when there is room again, or never will be.
    changed: Notify,
    wake: Arc<Wake>,
    timeout: Duration,
}

#[derive(Debug, Default)]
struct State {
    items: VecDeque<Queued>,
    urgency: Urgency,
    /// Whether the connection knows that something waits, and how urgent it is.
    noted: Option<Urgency>,
    ended: Option<CloseReason>,
}

/// Whether what waits may wait a little longer, to go with more.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Urgency {
    #[default]
    MayWait,
    Now,
}

/// A verdict, and who waits to hear that it is on the broker's disk.
#[derive(Debug)]
struct Queued {
    item: SettleItem,
    waiter: Option<Waiter>,
}

/// What goes into one frame, and who waits for its answer: then it is a single item.
#[derive(Debug)]
pub(crate) struct Settling {
    pub(crate) items: Vec<SettleItem>,
    pub(crate) waiter: Option<Waiter>,
}

impl Settling {
    /// Tells whoever waits for the frame's answer.
    pub(crate) fn answer(self, answer: Result<(), SettleError>) {
        answer_to(self.waiter, answer);
    }
}

/// What became of a push.
enum Pushed {
    Done,
    Full,
}

impl Settler {
    pub(crate) fn new(feed: FeedId, wake: Arc<Wake>, timeout: Duration) -> Self {
        Self { feed, state: Mutex::default(), changed: Notify::new(), wake, timeout }
    }

    /// Queues a verdict, as soon as there is room for it.
    pub(crate) async fn settle(&self, offset: u64, settlement: Settlement) -> Result<(), SettleError> {
        let deadline = Instant::now() + self.timeout;
        self.push_until(deadline, offset, settlement, &mut None).await
    }

    /// Queues a verdict and waits until the broker has it on the disk.
    pub(crate) async fn settle_durably(
        &self,
        offset: u64,
        settlement: Settlement,
    ) -> Result<(), SettleError> {
        let deadline = Instant::now() + self.timeout;
        let (waiter, answer) = oneshot::channel();
        self.push_until(deadline, offset, settlement, &mut Some(waiter)).await?;
        match timeout_at(deadline, answer).await {
            Ok(Ok(answer)) => answer,
            // The connection's task is gone, and with it the waiter.
            Ok(Err(_)) => Err(SettleError::Closed(self.end_reason())),
            Err(_) => Err(self.too_late()),
        }
    }

    async fn push_until(
        &self,
        deadline: Instant,
        offset: u64,
        settlement: Settlement,
        waiter: &mut Option<Waiter>,
    ) -> Result<(), SettleError> {
        loop {
            let changed = self.changed.notified();
            match self.push(offset, settlement, waiter)? {
                Pushed::Done => return Ok(()),
                Pushed::Full => timeout_at(deadline, changed).await.map_err(|_| self.too_late())?,
            }
        }
    }

    fn push(
        &self,
        offset: u64,
        settlement: Settlement,
        waiter: &mut Option<Waiter>,
    ) -> Result<Pushed, SettleError> {
        let mut state = locked(&self.state);
        if let Some(reason) = &state.ended {
            return Err(SettleError::Closed(reason.clone()));
        }
        let is_awaited = waiter.is_some();
        if !state.append(offset, settlement, waiter) {
            return Ok(Pushed::Full);
        }
        if is_awaited || state.items.len() >= FRAME_ITEMS_MAX {
            state.urgency = Urgency::Now;
        }
        self.note(state);
        Ok(Pushed::Done)
    }

    /// The consumer waits for its next message: nothing more is to be expected soon.
    pub(crate) fn handle_idle(&self) {
        let mut state = locked(&self.state);
        if !state.items.is_empty() {
            state.urgency = Urgency::Now;
            self.note(state);
        }
    }

    fn note(&self, mut state: std::sync::MutexGuard<'_, State>) {
        if state.noted < Some(state.urgency) {
            state.noted = Some(state.urgency);
            drop(state);
            self.wake.settle_due(self.feed);
        }
    }

    /// Whether something waits, and how urgent it is.
    pub(crate) fn urgency(&self) -> Option<Urgency> {
        let state = locked(&self.state);
        (!state.items.is_empty()).then_some(state.urgency)
    }

    /// What goes into the next frame.
    pub(crate) fn take(&self) -> Option<Settling> {
        let mut state = locked(&self.state);
        let first = state.items.pop_front()?;
        let mut settling = Settling { items: vec![first.item], waiter: first.waiter };
        if settling.waiter.is_none() {
            let together = state.items.iter().take(FRAME_ITEMS_MAX - 1);
            let count = together.take_while(|queued| queued.waiter.is_none()).count();
            settling.items.extend(state.items.drain(..count).map(|queued| queued.item));
        }
        if state.items.is_empty() {
            state.urgency = Urgency::MayWait;
            state.noted = None;
        }
        drop(state);
        self.changed.notify_waiters();
        Some(settling)
    }

    /// A frame could not be sent, or its answer was lost with the connection: it goes first with the next one. To
    /// settle a second time changes nothing.
    pub(crate) fn give_back(&self, settling: Settling) {
        let mut state = locked(&self.state);
        if let Some(reason) = &state.ended {
            let reason = reason.clone();
            drop(state);
            return settling.answer(Err(SettleError::Closed(reason)));
        }
        let Settling { items, mut waiter } = settling;
        for item in items.into_iter().rev() {
            state.items.push_front(Queued { item, waiter: waiter.take() });
        }
        state.urgency = Urgency::Now;
        state.noted = Some(Urgency::Now);
    }

    /// Nothing can be settled any more.
    pub(crate) fn end(&self, reason: &CloseReason) {
        let mut state = locked(&self.state);
        state.ended.get_or_insert_with(|| reason.clone());
        let items = std::mem::take(&mut state.items);
        drop(state);
        for queued in items {
            answer_to(queued.waiter, Err(SettleError::Closed(reason.clone())));
        }
        self.changed.notify_waiters();
    }

    fn end_reason(&self) -> CloseReason {
        locked(&self.state).ended.clone().unwrap_or(CloseReason::ByCaller)
    }

    fn too_late(&self) -> SettleError {
        SettleError::Timeout { after_ms: clock::milliseconds(self.timeout) }
    }
}

impl State {
    /// Adds a verdict, to the range before it where it can and nobody waits; false when there is no room. The waiter is
    /// taken only when there is.
    fn append(&mut self, offset: u64, settlement: Settlement, waiter: &mut Option<Waiter>) -> bool {
        if let (None, Some(Queued { item: last, waiter: None })) = (&waiter, self.items.back_mut())
            && last.settlement == settlement
            && last.offset.checked_add(u64::from(last.count.get())) == Some(offset)
            && let Some(count) = last.count.checked_add(1)
        {
            last.count = count;
            return true;
        }
        if self.items.len() >= QUEUED_MAX {
            return false;
        }
        let item = SettleItem { offset, count: NonZeroU32::MIN, settlement };
        self.items.push_back(Queued { item, waiter: waiter.take() });
        true
    }
}

fn answer_to(waiter: Option<Waiter>, answer: Result<(), SettleError>) {
    if let Some(waiter) = waiter {
        // Who has stopped waiting chose so.
        let _ = waiter.send(answer);
    }
}

#[cfg(test)]
mod tests {
    use sealbus_protocol::refusal::{Code, Refusal};

    use super::*;

    fn settler() -> Settler {
        Settler::new(FeedId(1), Arc::default(), Duration::from_secs(1))
    }

    fn nack(delay_ms: u32) -> Settlement {
        Settlement::Nack { delay_ms }
    }

    fn taken(settler: &Settler) -> Vec<(u64, u32, Settlement)> {
        let items = settler.take().map(|settling| settling.items).unwrap_or_default();
        items.into_iter().map(|item| (item.offset, item.count.get(), item.settlement)).collect()
    }

    #[tokio::test]
    async fn offsets_that_follow_each_other_are_one_item() {
        let settler = settler();
        for offset in [3, 4, 5, 9, 10] {
            settler.settle(offset, Settlement::Ack).await.unwrap();
        }
        settler.settle(11, nack(0)).await.unwrap();
        settler.settle(12, nack(5)).await.unwrap();
        assert_eq!(settler.urgency(), Some(Urgency::MayWait));
        let expected = [(3, 3, Settlement::Ack), (9, 2, Settlement::Ack), (11, 1, nack(0)), (12, 1, nack(5))];
        assert_eq!(taken(&settler), expected);
        assert_eq!(settler.urgency(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_queue_makes_acknowledgements_wait_and_says_so_in_the_end() {
        let settler = settler();
        for offset in 0..QUEUED_MAX as u64 {
            settler.settle(2 * offset, Settlement::Ack).await.unwrap();
        }
        let late = settler.settle(u64::MAX, Settlement::Ack).await;
        assert_eq!(late, Err(SettleError::Timeout { after_ms: 1_000 }));
        let settle = settler.settle(u64::MAX, Settlement::Ack);
        let (settled, first) = tokio::join!(settle, async { taken(&settler) });
        assert_eq!((settled, first.len()), (Ok(()), FRAME_ITEMS_MAX), "room lets it in");
    }

    /// What the broker says of one message must not be taken for an answer about another.
    #[tokio::test]
    async fn a_verdict_that_is_awaited_travels_alone_and_has_its_own_answer() {
        let settler = settler();
        for offset in 0..FRAME_ITEMS_MAX as u64 {
            settler.settle(2 * offset, Settlement::Ack).await.unwrap();
        }
        let refused = || Refusal::new(Code::Conflict, "it is with somebody else");
        let waits = async {
            tokio::join!(
                settler.settle_durably(1_000, Settlement::Ack),
                settler.settle_durably(1_001, Settlement::Ack),
                settler.settle(1_002, Settlement::Ack),
            )
        };
        let connection = async {
            assert_eq!(settler.urgency(), Some(Urgency::Now));
            let plain = settler.take().unwrap();
            assert_eq!((plain.items.len(), plain.waiter.is_some()), (FRAME_ITEMS_MAX, false));
            settler.give_back(plain);
            assert_eq!(settler.take().unwrap().items.len(), FRAME_ITEMS_MAX);
            let first = settler.take().unwrap();
            settler.give_back(first);
            let first = settler.take().unwrap();
            assert_eq!((first.items.len(), first.items[0].offset), (1, 1_000));
            let second = settler.take().unwrap();
            assert_eq!((second.items.len(), second.items[0].offset), (1, 1_001));
            let last = settler.take().unwrap();
            assert_eq!((last.items[0].offset, last.waiter.is_some()), (1_002, false));
            second.answer(Ok(()));
            first.answer(Err(SettleError::Refused(refused())));
        };
        let ((first, second, third), ()) = tokio::join!(waits, connection);
        assert_eq!(first, Err(SettleError::Refused(refused())));
        assert_eq!((second, third), (Ok(()), Ok(())));
    }

    #[tokio::test]
    async fn an_end_answers_everybody() {
        let settler = settler();
        let end = async { settler.end(&CloseReason::ByBroker) };
        let (waited, ()) = tokio::join!(settler.settle_durably(1, Settlement::Ack), end);
        let closed = Err(SettleError::Closed(CloseReason::ByBroker));
        assert_eq!(waited, closed);
        assert_eq!(settler.settle(2, Settlement::Ack).await, closed);
    }
}
