//! Where a topic's batches go: found once, kept by the publisher until something changes.

use std::collections::HashMap;
use std::sync::Arc;

use sealbus_protocol::identity::Principal;
use sealbus_protocol::policy::{Act, Subject};
use sealbus_protocol::topic::Topic;

use crate::outbox::{LaneId, Outbox, Published};
use crate::policy::PolicyInForce;
use crate::router::{Router, Subscriber};

/// The sessions that may receive a topic and want to, by one state of the router and one policy.
#[derive(Debug, Default)]
pub(super) struct Route {
    found: Option<Found>,
    targets: Vec<Target>,
}

/// What a route was found by. While it is the same the route is.
#[derive(Debug, Clone, Copy)]
struct Found {
    router: u64,
    generation: u64,
    at_ms: u64,
    expires_ms: Option<u64>,
}

/// A session and those of its subscriptions that match.
#[derive(Debug)]
struct Target {
    outbox: Arc<Outbox>,
    lanes: Vec<LaneId>,
}

impl Route {
    /// Leaves a batch for everybody on the route, which is found anew when it is out of date.
    pub(super) fn push(
        &mut self,
        router: &Router,
        policy: &PolicyInForce,
        published: &Arc<Published>,
        now_ms: u64,
    ) {
        if !self.is_current(router, policy, now_ms) {
            *self = Self::find(router, policy, &published.topic, now_ms);
        }
        for target in &self.targets {
            target.outbox.push(&target.lanes, published);
        }
    }

    fn is_current(&self, router: &Router, policy: &PolicyInForce, now_ms: u64) -> bool {
        self.found.is_some_and(|found| {
            found.router == router.version()
                && found.generation == policy.generation
                && found.at_ms <= now_ms
                && found.expires_ms.is_none_or(|expires_ms| now_ms < expires_ms)
        })
    }

    /// A subscriber that may not see the topic is left out, so that a narrowed subscription costs nothing on topics
    /// that it does not cover. The subscriber's own session decides again: this is thrift, that is the rule.
    fn find(router: &Router, policy: &PolicyInForce, topic: &Topic, now_ms: u64) -> Self {
        let (version, subscribers) = router.matches(topic);
        let mut subjects: HashMap<Principal, Subject> = HashMap::new();
        let mut targets: Vec<Target> = Vec::new();
        let mut index_of: HashMap<*const Outbox, usize> = HashMap::new();
        let mut expires_ms: Option<u64> = None;
        for subscriber in subscribers {
            let Subscriber { lane, party, outbox } = &*subscriber;
            let subject = subjects
                .entry(party.principal.clone())
                .or_insert_with(|| policy.compiled.subject(&party.principal));
            let decision = subject.decide(Act::Subscribe(topic), &party.context_at(now_ms));
            let (may, until_ms) = match &decision {
                Ok(permit) => (true, permit.expires_ms()),
                Err(denial) => (false, denial.expires_ms()),
            };
            expires_ms = match (expires_ms, until_ms) {
                (Some(one), Some(two)) => Some(one.min(two)),
                (one, two) => one.or(two),
            };
            if may {
                let index = *index_of.entry(Arc::as_ptr(outbox)).or_insert_with(|| {
                    targets.push(Target { outbox: Arc::clone(outbox), lanes: Vec::new() });
                    targets.len() - 1
                });
                targets[index].lanes.push(*lane);
            }
        }
        let found = Found { router: version, generation: policy.generation, at_ms: now_ms, expires_ms };
        Self { found: Some(found), targets }
    }
}
