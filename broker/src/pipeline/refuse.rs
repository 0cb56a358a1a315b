//! What a client is told that does not get what it asks for, and what the audit log is told of it.
//!
//! A refusal costs the broker more than it costs the sender, so that each is taken from the session's patience. What the
//! policy denies is in the audit log before it is answered.

use std::fmt::Display;

use sealbus_protocol::frame::{RequestId, SubscriptionId};
use sealbus_protocol::policy::{Denial, DenialRule, Verb};
use sealbus_protocol::refusal::{Code, Refusal};
use sealbus_protocol::session::BrokerSession;

use super::client::Client;
use crate::audit::{Event, Target};

/// What a denied client is told: what was attempted, on what, and which rule spoke.
pub(super) fn denied(attempt: &str, on: impl Display, denial: &Denial) -> Refusal {
    Refusal::new(Code::Denied, format!("{attempt} {on}: {denial}"))
}

impl Client {
    /// Refuses what the policy denies, and records by which rule.
    pub(super) fn refuse_denied(
        &mut self,
        wire: &mut BrokerSession,
        request: RequestId,
        target: Target,
        (verb, rule): (Verb, DenialRule),
        refusal: Refusal,
    ) -> Result<(), Refusal> {
        self.record(Event::Denied { actor: self.actor(), verb, target, rule })?;
        self.refuse(wire, request, refusal);
        Ok(())
    }

    /// As [`Client::refuse_denied`], of a request that would have begun a subscription.
    pub(super) fn refuse_denied_subscription(
        &mut self,
        wire: &mut BrokerSession,
        asked: (RequestId, SubscriptionId),
        target: Target,
        (verb, rule): (Verb, DenialRule),
        refusal: Refusal,
    ) -> Result<(), Refusal> {
        self.record(Event::Denied { actor: self.actor(), verb, target, rule })?;
        self.refuse_subscription(wire, asked, refusal);
        Ok(())
    }

    /// Refuses a request that would have begun a subscription, whose id is free again.
    pub(super) fn refuse_subscription(
        &mut self,
        wire: &mut BrokerSession,
        (request, id): (RequestId, SubscriptionId),
        refusal: Refusal,
    ) {
        self.patience.spend_at(self.bus.clock.tick());
        self.bus.counts.refused();
        wire.refuse_subscription(request, id, refusal);
    }
}
