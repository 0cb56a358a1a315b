//! The receiving half of the core: which reader is which subscription on this connection, and what comes for it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use sealbus_protocol::frame::{
    ConsumerKey, FrameType, Lagged, Narrowed, Ready, RequestId, Skipped, Start, SubscriptionId, What,
};
use sealbus_protocol::refusal::{Action, Refusal};
use sealbus_protocol::session::{ClientSession, Delivered, SessionError, Tick};

use crate::error::{CloseReason, SubscribeError};
use crate::event::Event;
use crate::subscription::feed::{Began, Consumer, Feed, Skip, Unverified};
use crate::subscription::reader::FeedGuard;
use crate::subscription::settle::Settler;
use crate::subscription::want::Want;

use super::command::ReadReply;
use super::core::{Asked, Core, Timer, overdrawn};
use super::wake::FeedId;

/// How long a refusal that may pass is waited out before a subscription is made again.
const RESUBSCRIBE_PAUSE_MS: u64 = 500;

/// Every reader of this bus.
#[derive(Debug, Default)]
pub(super) struct Feeds {
    slots: BTreeMap<FeedId, Slot>,
    by_subscription: HashMap<SubscriptionId, FeedId>,
    feed_next: u64,
}

#[derive(Debug)]
struct Slot {
    feed: Arc<Feed>,
    /// What it is called on this connection, once it has been asked for.
    subscription: Option<SubscriptionId>,
    /// Whether it is in effect there.
    is_ready: bool,
    /// Who waits for it to be in effect for the first time; its consumer does not exist before.
    reply: Option<ReadReply>,
}

impl Core {
    pub(super) fn read(&mut self, want: Want, reply: ReadReply, now: Tick) {
        let max = usize::try_from(self.limits.subscriptions_max).unwrap_or(usize::MAX);
        if self.feeds.slots.len() >= max {
            return drop(reply.send(Err(SubscribeError::TooManySubscriptions { max })));
        }
        let id = FeedId(self.feeds.feed_next);
        self.feeds.feed_next = self.feeds.feed_next.wrapping_add(1);
        let (credit_bytes, timeout) = (self.options.credit_bytes, self.options.request_timeout);
        let feed = Feed::new(id, want, credit_bytes, Arc::clone(&self.wake), timeout);
        let slot = Slot { feed, subscription: None, is_ready: false, reply: Some(reply) };
        self.feeds.slots.insert(id, slot);
        self.subscribe_feed_at(id, now);
    }

    /// Asks the broker for a subscription, when there is a connection.
    fn subscribe_feed_at(&mut self, id: FeedId, now: Tick) {
        let (Some(session), Some(slot)) = (&mut self.session, self.feeds.slots.get_mut(&id)) else { return };
        if slot.subscription.is_some() {
            return;
        }
        if slot.reply.as_ref().is_some_and(ReadReply::is_closed) {
            // Whoever asked has stopped waiting before there was a connection.
            self.feeds.slots.remove(&id);
            return;
        }
        match ask(session, &slot.feed) {
            Ok((request, subscription)) => {
                slot.subscription = Some(subscription);
                self.feeds.by_subscription.insert(subscription, id);
                self.requests.insert(request, Asked::Read(id));
            }
            Err(_) => self.arm(now.after_ms(RESUBSCRIBE_PAUSE_MS), Timer::Feed(id)),
        }
    }

    pub(super) fn resubscribe_all_at(&mut self, now: Tick) {
        for id in self.feeds.ids() {
            self.subscribe_feed_at(id, now);
        }
    }

    pub(super) fn handle_feed_timeout_at(&mut self, id: FeedId, now: Tick) {
        self.subscribe_feed_at(id, now);
    }

    pub(super) fn handle_ready_at(
        &mut self,
        id: FeedId,
        ready: Ready,
        now: Tick,
    ) -> Result<(), SessionError> {
        let Some(slot) = self.feeds.slots.get_mut(&id) else { return Ok(()) };
        match (&slot.feed.want, ready.start) {
            (Want::Live(_), None) => {}
            (Want::Replay(_) | Want::Consume(_), Some(start)) => {
                if slot.feed.handle_began(Began { start, narrowed: ready.narrowed }).is_err() {
                    self.end_feed(id, &CloseReason::OtherStream);
                    return Ok(());
                }
            }
            (Want::Live(_), Some(_)) | (Want::Replay(_) | Want::Consume(_), None) => {
                let awaited = "READY of a stream for a stream, and of none for live messages";
                return Err(SessionError::Unexpected { kind: FrameType::Ready, awaited });
            }
        }
        slot.is_ready = true;
        match ready.narrowed {
            Narrowed::No => {}
            Narrowed::Yes => self.events.tell(&Event::Narrowed { filter: slot.feed.filter.clone() }),
        }
        if let Some(reply) = slot.reply.take() {
            // An answer that nobody awaits is dropped, and the guard in it ends the subscription.
            let _ = reply.send(Ok((FeedGuard(Arc::clone(&slot.feed)), ready)));
        }
        // What was dealt with while there was no connection.
        self.settle_at(id, now);
        Ok(())
    }

    pub(super) fn handle_subscribe_refused_at(&mut self, id: FeedId, refusal: Refusal, now: Tick) {
        let Some(slot) = self.feeds.slots.get_mut(&id) else { return };
        slot.is_ready = false;
        if let Some(subscription) = slot.subscription.take() {
            self.feeds.by_subscription.remove(&subscription);
        }
        if let Some(reply) = slot.reply.take() {
            let _ = reply.send(Err(SubscribeError::Refused(refusal)));
            self.feeds.slots.remove(&id);
        } else if refusal.action() == Action::Retry {
            self.arm(now.after_ms(RESUBSCRIBE_PAUSE_MS), Timer::Feed(id));
        } else {
            slot.feed.close(&CloseReason::Refused(refusal));
            self.feeds.slots.remove(&id);
        }
    }

    pub(super) fn handle_deliver(&mut self, delivered: Delivered) -> Result<(), SessionError> {
        let Some(slot) = self.slot_of(delivered.subscription) else { return Ok(()) };
        let unverified = Unverified { delivered, connection: self.connection, generation: self.generation };
        slot.feed.handle_deliver(unverified).map_err(overdrawn)
    }

    pub(super) fn handle_lagged(&self, lagged: Lagged) {
        let Some(slot) = self.slot_of(lagged.subscription) else { return };
        slot.feed.handle_lagged(lagged.missed);
        self.events.tell(&Event::Lagged { filter: slot.feed.filter.clone(), missed: lagged.missed });
    }

    pub(super) fn handle_skipped(&self, skipped: Skipped) -> Result<(), SessionError> {
        let Some(slot) = self.slot_of(skipped.subscription) else { return Ok(()) };
        let Skipped { from, to, why, .. } = skipped;
        slot.feed.handle_skipped(Skip { from, to, why }).map_err(|_| SessionError::Unexpected {
            kind: FrameType::Skipped,
            awaited: "batches among so many offsets that do not come",
        })
    }

    pub(super) fn handle_closed(&mut self, what: What) {
        match what {
            What::Alias(_) => {}
            What::Subscription(subscription) => {
                if let Some(id) = self.feeds.by_subscription.remove(&subscription)
                    && let Some(slot) = self.feeds.slots.remove(&id)
                {
                    slot.feed.finish();
                }
            }
        }
    }

    pub(super) fn handle_feed_changed(&mut self, id: FeedId) {
        let Some(slot) = self.feeds.slots.get(&id) else { return };
        let news = slot.feed.take_news();
        match (news.consumer, slot.subscription, &mut self.session) {
            (Consumer::Present, Some(subscription), Some(session)) => {
                session.credit(subscription, news.credit_bytes)
            }
            (Consumer::Present, None, _) | (Consumer::Present, _, None) => {}
            (Consumer::Gone, _, _) => {
                self.settle_last(id);
                self.end_feed(id, &CloseReason::ByCaller);
            }
        }
    }

    /// Ends a subscription of ours.
    fn end_feed(&mut self, id: FeedId, reason: &CloseReason) {
        let Some(slot) = self.feeds.slots.remove(&id) else { return };
        if let (Some(subscription), Some(session)) = (slot.subscription, &mut self.session) {
            session.close_subscription(subscription);
            self.feeds.by_subscription.remove(&subscription);
        }
        slot.feed.close(reason);
    }

    pub(super) fn disconnect_feeds(&mut self) {
        self.feeds.by_subscription.clear();
        for slot in self.feeds.slots.values_mut() {
            slot.subscription = None;
            slot.is_ready = false;
        }
    }

    pub(super) fn close_feeds(&mut self, reason: &CloseReason) {
        self.feeds.by_subscription.clear();
        for slot in std::mem::take(&mut self.feeds.slots).into_values() {
            slot.feed.close(reason);
            if let Some(reply) = slot.reply {
                let _ = reply.send(Err(SubscribeError::Closed(reason.clone())));
            }
        }
    }

    pub(super) fn settler_of(&self, id: FeedId) -> Option<Arc<Settler>> {
        self.feeds.slots.get(&id)?.feed.settler.clone()
    }

    /// Where verdicts of a durable consumer go, when it is in effect on this connection.
    pub(super) fn settling_subscription(&self, id: FeedId) -> Option<(Arc<Settler>, SubscriptionId)> {
        let slot = self.feeds.slots.get(&id).filter(|slot| slot.is_ready)?;
        Some((slot.feed.settler.clone()?, slot.subscription?))
    }

    fn slot_of(&self, subscription: SubscriptionId) -> Option<&Slot> {
        self.feeds.slots.get(self.feeds.by_subscription.get(&subscription)?)
    }
}

impl Feeds {
    pub(super) fn ids(&self) -> Vec<FeedId> {
        self.slots.keys().copied().collect()
    }
}

/// Asks for what a feed wants. A history that was begun goes on where its reader is.
fn ask(session: &mut ClientSession, feed: &Feed) -> Result<(RequestId, SubscriptionId), SessionError> {
    let begin = feed.begin();
    match feed.want.clone() {
        Want::Live(filter) => session.subscribe(filter, begin.credit_bytes),
        Want::Replay(want) => {
            let from = begin.position.map_or(want.from, Start::Offset);
            session.replay(want.stream, from, want.until, want.filter, begin.credit_bytes)
        }
        Want::Consume(want) => {
            let consumer = ConsumerKey { stream: want.stream, consumer: want.consumer };
            session.consume(consumer, want.from, want.settings, want.filter, begin.credit_bytes)
        }
    }
}
