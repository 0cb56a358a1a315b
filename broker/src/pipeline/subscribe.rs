//! SUBSCRIBE and its end.
//!
//! READY is queued after the subscription is in the router's table: whatever is published after a client has seen it
//! finds the subscription.

use std::sync::Arc;

use sealbus_protocol::frame::{Subscribe, SubscriptionId};
use sealbus_protocol::policy::Verb;
use sealbus_protocol::refusal::{Code, Refusal};
use sealbus_protocol::session::BrokerSession;
use sealbus_protocol::topic::TopicFilter;

use super::client::Client;
use super::refuse::denied;
use crate::audit::{Event, Target};
use crate::outbox::LaneId;
use crate::quotas::SubscriptionPlace;
use crate::router::Subscriber;

/// A subscription of the session.
#[derive(Debug)]
pub(super) struct Subscription {
    /// What the client calls it.
    pub(super) id: SubscriptionId,
    /// What it wants.
    pub(super) filter: TopicFilter,
    /// Its place among those of the principal.
    pub(super) place: SubscriptionPlace,
}

impl Client {
    pub(super) fn subscribe(
        &mut self,
        wire: &mut BrokerSession,
        subscribe: Subscribe,
    ) -> Result<(), Refusal> {
        let Subscribe { request, subscription: id, filter, credit_bytes: _ } = subscribe;
        let place = match self.place_for_subscription("subscribe") {
            Ok(place) => place,
            Err(refusal) => {
                self.refuse_subscription(wire, (request, id), refusal);
                return Ok(());
            }
        };
        let permit = match self.decisions.on_filter(&filter, self.bus.clock.now_ms()) {
            Ok(permit) => permit,
            Err(denial) => {
                let refusal = denied("subscribe to", &filter, &denial);
                let denied = (Verb::Subscribe, denial.rule().clone());
                let target = Target::Filter(filter);
                return self.refuse_denied_subscription(wire, (request, id), target, denied, refusal);
            }
        };
        self.record_act(Event::Subscribed {
            actor: self.actor(),
            filter: filter.clone(),
            narrowed: permit.narrowed(),
            rules: permit.rules().to_vec(),
        })?;
        let lane = self.new_lane(id);
        let outbox = &self.handle.outbox;
        outbox.open(lane);
        let subscriber = Subscriber { lane, party: Arc::clone(&self.party), outbox: Arc::clone(outbox) };
        self.bus.router.subscribe(&filter, self.handle.id, subscriber);
        self.subscriptions.insert(lane, Subscription { id, filter, place });
        wire.ready(request, id, permit.narrowed(), self.decisions.policy().generation, None);
        Ok(())
    }

    pub(super) fn unsubscribe(
        &mut self,
        wire: &mut BrokerSession,
        id: SubscriptionId,
    ) -> Result<(), Refusal> {
        let Some(lane) = self.lanes.remove(&id) else { return Ok(()) };
        let begun = self.beginnings.remove(&lane).map(|beginning| beginning.request);
        if let Some(request) = begun.or_else(|| self.give_up_joining(lane)) {
            // Each request is answered once, also that of a subscription which its client no longer wants.
            self.refuse(wire, request, Refusal::new(Code::Limit, "it was closed before it was ready"));
        }
        if self.readings.remove(lane).is_some() {
            return Ok(());
        }
        if self.leave(lane) {
            return Ok(());
        }
        let Some(subscription) = self.subscriptions.remove(&lane) else { return Ok(()) };
        let Subscription { id: _, filter, place } = subscription;
        self.bus.router.unsubscribe(&filter, self.handle.id, lane);
        self.handle.outbox.close(lane);
        drop(place);
        self.record_act(Event::Unsubscribed { actor: self.actor(), filter })
    }

    /// The lane of a new subscription.
    pub(super) fn new_lane(&mut self, id: SubscriptionId) -> LaneId {
        let lane = LaneId(self.lane_next);
        self.lane_next = self.lane_next.saturating_add(1);
        self.lanes.insert(id, lane);
        lane
    }

    /// A place among the subscriptions of the bus and of the principal, or why there is none.
    pub(super) fn place_for_subscription(&self, attempt: &str) -> Result<SubscriptionPlace, Refusal> {
        if let Some(refusal) = self.closed_to_requests() {
            return Err(refusal);
        }
        let max = self.bus.limits.subscriptions_max;
        if self.bus.quotas.subscriptions() >= max {
            let reason = format!("{attempt}: the bus has {max} subscriptions, which is its limit");
            return Err(Refusal::new(Code::Limit, reason));
        }
        self.place.subscribe().map_err(|error| Refusal::new(Code::Limit, format!("{attempt}: {error}")))
    }
}
