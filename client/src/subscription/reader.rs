//! What subscriptions, replays and durable consumers have in common: batches are taken from the feed, judged, and
//! handed out message by message.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use sealbus_protocol::frame::Until;

use crate::bus::BusShared;
use crate::clock;
use crate::error::CloseReason;
use crate::event::Event;
use crate::message::Message;
use crate::rejection::{DeliveryError, Missing, Rejection};

use super::feed::{Began, Feed, Item, Skip, Unverified};
use super::history::{History, Hole};
use super::lag::LagAccount;
use super::offsets::Order;
use super::reading::{Counting, MessageBatch, Reading};
use super::verify::{Fresh, Judge, Judged, kid_text};
use super::want::Want;

/// Reads one feed to its end.
pub(super) struct Reader {
    guard: FeedGuard,
    bus: Arc<BusShared>,
    judge: Judge,
    /// The connection that was last heard of.
    connection: u64,
    lag: LagAccount,
    /// What must be said before the messages that are being handed out.
    told_next: VecDeque<DeliveryError>,
    reading: Option<Reading>,
    /// A batch whose key binding is being asked for.
    awaiting: Option<Unverified>,
    ended: bool,
}

/// Tells the connection when the reader is gone.
#[derive(Debug)]
pub(crate) struct FeedGuard(pub(crate) Arc<Feed>);

impl Drop for FeedGuard {
    fn drop(&mut self) {
        self.0.consumer_dropped();
    }
}

impl Reader {
    pub(super) fn new(guard: FeedGuard, bus: Arc<BusShared>) -> Self {
        let judge = Judge::new(bus.bus_id, Arc::clone(&bus.keyring));
        Self {
            guard,
            bus,
            judge,
            connection: 0,
            lag: LagAccount::default(),
            told_next: VecDeque::new(),
            reading: None,
            awaiting: None,
            ended: false,
        }
    }

    pub(super) fn feed(&self) -> &Feed {
        &self.guard.0
    }

    /// The next message or what stands in its place; none at the end.
    pub(super) fn poll_message(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Message, DeliveryError>>> {
        loop {
            if self.told_next.is_empty()
                && let Some(message) = self.reading.as_mut().and_then(Reading::next)
            {
                return Poll::Ready(Some(Ok(message.clone())));
            }
            match ready!(self.poll_reading(cx)) {
                Some(Ok(())) => {}
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            }
        }
    }

    /// What is left of the batch that is being handed out, or the next one; none at the end.
    pub(super) async fn next_batch(&mut self) -> Option<Result<MessageBatch<'_>, DeliveryError>> {
        match poll_fn(|cx| self.poll_reading(cx)).await? {
            Ok(()) => self.reading.as_mut().map(|reading| Ok(MessageBatch::new(reading))),
            Err(error) => Some(Err(error)),
        }
    }

    /// Ready when there is a batch that has a message left, or something to be said before it; none at the end.
    fn poll_reading(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<(), DeliveryError>>> {
        loop {
            if let Some(error) = self.told_next.pop_front() {
                return Poll::Ready(Some(Err(error)));
            }
            if self.reading.as_mut().is_some_and(Reading::has_next) {
                return Poll::Ready(Some(Ok(())));
            }
            self.reading = None;
            if self.ended {
                return Poll::Ready(None);
            }
            let item = match self.awaiting.take() {
                Some(unverified) => Item::Batch(unverified),
                None => ready!(self.guard.0.poll_pop(cx)),
            };
            match item {
                Item::Batch(unverified) => {
                    if self.poll_judge(&unverified, cx).is_pending() {
                        self.awaiting = Some(unverified);
                        return Poll::Pending;
                    }
                }
                Item::Began(began) => self.handle_began(&began),
                Item::Lagged(missed) => {
                    self.lag.handle_lagged(missed);
                    self.told_next.push_back(DeliveryError::Lagged { missed });
                }
                Item::Skipped(skip) => self.handle_skipped(skip),
                Item::Finished => self.handle_finished(),
                Item::Closed(reason) => self.handle_closed(reason),
            }
        }
    }

    fn handle_began(&mut self, began: &Began) {
        let Began { start, narrowed } = *began;
        let want = &self.guard.0.want;
        match &mut self.judge.history {
            None => self.judge.history = History::begin(want, start, narrowed),
            Some(history) => history.cover(want, narrowed),
        }
    }

    fn handle_skipped(&mut self, skip: Skip) {
        let Some(history) = &mut self.judge.history else { return };
        let Some(hole) = history.handle_skipped(skip) else { return };
        self.guard.0.set_position(history.position());
        self.tell_missing(hole, skip.why.into());
    }

    fn tell_missing(&mut self, hole: Hole, why: Missing) {
        self.lag.handle_lagged(hole.messages());
        let Hole { from, to } = hole;
        if let Some(history) = &self.judge.history {
            tracing::warn!(stream = %history.stream(), from, to, why = why.as_str(), "offsets are missing");
            self.bus.events.tell(&Event::Skipped { stream: history.stream().clone(), from, to, why });
        }
        self.told_next.push_back(DeliveryError::Skipped { from, to, why });
    }

    /// The broker has closed it and gave no reason, which is how a replay ends that was to end.
    fn handle_finished(&mut self) {
        let was_to_end = matches!(&self.guard.0.want, Want::Replay(want) if want.until == Until::End);
        let is_finished = was_to_end && self.judge.history.as_ref().is_some_and(History::is_finished);
        self.handle_closed(if is_finished { CloseReason::ByCaller } else { CloseReason::ByBroker });
    }

    fn handle_closed(&mut self, reason: CloseReason) {
        self.ended = true;
        match reason {
            CloseReason::ByCaller => {}
            reason @ (CloseReason::Refused(_)
            | CloseReason::ByBroker
            | CloseReason::OtherStream
            | CloseReason::GaveUp { .. }) => self.told_next.push_back(DeliveryError::Closed(reason)),
        }
    }

    /// Judges a batch and begins to hand it out, or says why not.
    fn poll_judge(&mut self, unverified: &Unverified, cx: &mut Context<'_>) -> Poll<()> {
        if unverified.connection != self.connection {
            self.connection = unverified.connection;
            self.judge.handle_reconnected();
        }
        let judged = self.judge.poll_judge_at(&self.guard.0, unverified, clock::now_ms(), cx);
        match ready!(judged) {
            Ok(Judged::Again) => {
                let topic = &unverified.delivered.topic;
                tracing::debug!(topic = %topic, "a batch came again after a reconnect and is passed over");
            }
            Ok(Judged::Fresh(fresh)) => self.handle_fresh(fresh),
            Err(rejection) => self.handle_rejected(rejection),
        }
        Poll::Ready(())
    }

    fn handle_rejected(&mut self, rejection: Rejection) {
        tracing::warn!(
            code = rejection.code.as_str(),
            topic = %rejection.topic,
            kid = kid_text(rejection.kid),
            "a delivered batch was refused"
        );
        if let Some(history) = &mut self.judge.history {
            history.handle_rejected();
        }
        self.bus.events.tell(&Event::Rejected(rejection.clone()));
        self.told_next.push_back(DeliveryError::Rejected(rejection));
    }

    fn handle_fresh(&mut self, fresh: Fresh) {
        let Fresh { delivery, ranges, hole, missed } = fresh;
        if let Some(hole) = hole {
            self.tell_missing(hole, Missing::Unexplained);
        }
        let missed = self.lag.handle_gap(missed);
        if missed > 0 {
            let (topic, producer) = (delivery.topic.clone(), delivery.producer.clone());
            self.bus.events.tell(&Event::Gap { topic: topic.clone(), producer: producer.clone(), missed });
            self.told_next.push_back(DeliveryError::Gap { topic, producer, missed });
        }
        let counting = match &self.judge.history {
            Some(history) if history.order() == Order::DeadLetters => Counting::HandedOut,
            Some(_) | None => Counting::Records,
        };
        let first = self.judge.history.as_ref().map_or(0, History::first);
        if let Some(history) = &self.judge.history {
            self.guard.0.set_position(history.position());
        }
        self.reading = Some(Reading::new(delivery, ranges, first, counting));
    }
}
