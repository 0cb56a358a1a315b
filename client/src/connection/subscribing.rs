//! The receiving half of the core: which subscription is which on this connection, and what comes for it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use sealbus_protocol::frame::{Lagged, Narrowed, Ready, SubscriptionId, What};
use sealbus_protocol::refusal::{Action, Refusal};
use sealbus_protocol::session::{Delivered, SessionError, Tick};
use sealbus_protocol::topic::TopicFilter;

use crate::error::{CloseReason, SubscribeError};
use crate::event::Event;
use crate::subscription::FeedGuard;
use crate::subscription::feed::{Consumer, Feed, Unverified};

use super::command::SubscribeReply;
use super::core::{Asked, Core, Timer, overdrawn};
use super::wake::FeedId;

/// How long a refusal that may pass is waited out before a subscription is made again.
const RESUBSCRIBE_PAUSE_MS: u64 = 500;

/// Every subscription of this bus.
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
    /// Who waits for it to be in effect for the first time; its consumer does not exist before.
    reply: Option<SubscribeReply>,
}

impl Core {
    pub(super) fn subscribe(&mut self, filter: TopicFilter, reply: SubscribeReply, now: Tick) {
        let max = usize::try_from(self.limits.subscriptions_max).unwrap_or(usize::MAX);
        if self.feeds.slots.len() >= max {
            return drop(reply.send(Err(SubscribeError::TooManySubscriptions { max })));
        }
        let id = FeedId(self.feeds.feed_next);
        self.feeds.feed_next = self.feeds.feed_next.wrapping_add(1);
        let feed = Feed::new(id, filter, self.options.credit_bytes, Arc::clone(&self.wake));
        self.feeds.slots.insert(id, Slot { feed, subscription: None, reply: Some(reply) });
        self.subscribe_feed_at(id, now);
    }

    /// Asks the broker for a subscription, when there is a connection.
    fn subscribe_feed_at(&mut self, id: FeedId, now: Tick) {
        let (Some(session), Some(slot)) = (&mut self.session, self.feeds.slots.get_mut(&id)) else { return };
        if slot.subscription.is_some() {
            return;
        }
        if slot.reply.as_ref().is_some_and(SubscribeReply::is_closed) {
            // Whoever asked has stopped waiting before there was a connection.
            self.feeds.slots.remove(&id);
            return;
        }
        match session.subscribe(slot.feed.filter.clone(), slot.feed.begin_credit()) {
            Ok((request, subscription)) => {
                slot.subscription = Some(subscription);
                self.feeds.by_subscription.insert(subscription, id);
                self.requests.insert(request, Asked::Subscribe(id));
            }
            Err(_) => self.arm(now.after_ms(RESUBSCRIBE_PAUSE_MS), Timer::Feed(id)),
        }
    }

    pub(super) fn resubscribe_all_at(&mut self, now: Tick) {
        let ids: Vec<FeedId> = self.feeds.slots.keys().copied().collect();
        for id in ids {
            self.subscribe_feed_at(id, now);
        }
    }

    pub(super) fn handle_feed_timeout_at(&mut self, id: FeedId, now: Tick) {
        self.subscribe_feed_at(id, now);
    }

    pub(super) fn handle_ready(&mut self, id: FeedId, ready: &Ready) {
        let Some(slot) = self.feeds.slots.get_mut(&id) else { return };
        match ready.narrowed {
            Narrowed::No => {}
            Narrowed::Yes => self.events.tell(&Event::Narrowed { filter: slot.feed.filter.clone() }),
        }
        if let Some(reply) = slot.reply.take() {
            // An answer that nobody awaits is dropped, and the guard in it ends the subscription.
            let _ = reply.send(Ok((FeedGuard(Arc::clone(&slot.feed)), ready.narrowed)));
        }
    }

    pub(super) fn handle_subscribe_refused_at(&mut self, id: FeedId, refusal: Refusal, now: Tick) {
        let Some(slot) = self.feeds.slots.get_mut(&id) else { return };
        if let Some(subscription) = slot.subscription.take() {
            self.feeds.by_subscription.remove(&subscription);
        }
        if let Some(reply) = slot.reply.take() {
            let _ = reply.send(Err(SubscribeError::Refused(refusal)));
            self.feeds.slots.remove(&id);
        } else if refusal.action() == Action::Retry {
            self.arm(now.after_ms(RESUBSCRIBE_PAUSE_MS), Timer::Feed(id));
        } else {
            slot.feed.close(CloseReason::Refused(refusal));
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

    pub(super) fn handle_closed(&mut self, what: What) {
        match what {
            What::Alias(_) => {}
            What::Subscription(subscription) => {
                if let Some(id) = self.feeds.by_subscription.remove(&subscription)
                    && let Some(slot) = self.feeds.slots.remove(&id)
                {
                    slot.feed.close(CloseReason::ByBroker);
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
            (Consumer::Gone, subscription, session) => {
                if let (Some(subscription), Some(session)) = (subscription, session) {
                    session.close_subscription(subscription);
                    self.feeds.by_subscription.remove(&subscription);
                }
                self.feeds.slots.remove(&id);
            }
        }
    }

    pub(super) fn disconnect_feeds(&mut self) {
        self.feeds.by_subscription.clear();
        for slot in self.feeds.slots.values_mut() {
            slot.subscription = None;
        }
    }

    pub(super) fn close_feeds(&mut self, reason: &CloseReason) {
        self.feeds.by_subscription.clear();
        for slot in std::mem::take(&mut self.feeds.slots).into_values() {
            slot.feed.close(reason.clone());
            if let Some(reply) = slot.reply {
                let _ = reply.send(Err(SubscribeError::Closed(reason.clone())));
            }
        }
    }

    fn slot_of(&self, subscription: SubscriptionId) -> Option<&Slot> {
        self.feeds.slots.get(self.feeds.by_subscription.get(&subscription)?)
    }
}
