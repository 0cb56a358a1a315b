//! From the outbox to the wire: how a batch gets out.
//!
//! Every batch is decided about again, by the policy that the session has adopted. A batch that was accepted under an
//! earlier policy than that is also asked whether its producer may still publish it: what waited in an outbox when a
//! right was withdrawn, of the sender or of the receiver, is not written after the marker that says so.

use std::sync::Arc;

use bytes::Buf as _;
use sealbus_protocol::policy::Act;
use sealbus_protocol::session::{BrokerSession, Delivery};

use super::client::Client;
use super::decide::Want;
use crate::outbox::{Credit, LaneId, Published, Taken};

/// Bytes that wait to be written while more is still framed. What is framed can neither be taken back nor overtaken
/// by a marker, so that it is little; a vectored write takes this much at once.
const FRAMED_BYTES: usize = 256 * 1_024;

/// Keys whose bindings a session is remembered to have been sent. When there are more, they are sent again.
const ANNOUNCED_MAX: usize = 16_384;

/// Whether anything was framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Filled {
    /// Something was.
    Some,
    /// Nothing: the outbox has nothing that may be sent, or enough waits to be written.
    Nothing,
}

impl Client {
    /// Frames what the outbox holds, until enough waits to be written.
    pub(crate) fn fill(&mut self, wire: &mut BrokerSession) -> Filled {
        let mut filled = Filled::Nothing;
        while wire.outgoing().remaining() < FRAMED_BYTES {
            let subscriptions = &self.subscriptions;
            let credit = |lane| match subscriptions.get(&lane) {
                Some(subscription) if !wire.has_credit(subscription.id) => Credit::Spent,
                Some(_) | None => Credit::Left,
            };
            let Some(taken) = self.handle.outbox.take(credit) else { return filled };
            filled = Filled::Some;
            match taken {
                Taken::Batch(lane, published) => self.deliver(wire, lane, &published),
                Taken::Missed(lane, missed) => {
                    if let Some(subscription) = self.subscriptions.get(&lane) {
                        wire.lagged(subscription.id, missed);
                    }
                }
            }
        }
        filled
    }

    /// Whether everything that was accepted for this session has been framed.
    pub(crate) fn is_drained(&self) -> bool {
        self.handle.outbox.is_drained()
    }

    fn deliver(&mut self, wire: &mut BrokerSession, lane: LaneId, published: &Arc<Published>) {
        let Some(subscription) = self.subscriptions.get(&lane) else { return };
        let now_ms = self.bus.clock.now_ms();
        if self.decisions.on_topic(Want::Subscribe, &published.topic, now_ms).is_err() {
            return;
        }
        let policy = self.decisions.policy();
        if published.generation < policy.generation {
            let producer = &published.producer;
            let subject = policy.compiled.subject(&producer.principal);
            if subject.decide(Act::Publish(&published.topic), &producer.context_at(now_ms)).is_err() {
                return;
            }
        }
        let binding = &published.binding;
        if binding.is_revoked() {
            return;
        }
        if self.announced.get(&binding.kid).is_none_or(|serial| *serial < binding.serial) {
            if self.announced.len() >= ANNOUNCED_MAX {
                self.announced.clear();
            }
            self.announced.insert(binding.kid, binding.serial);
            wire.announce_binding(binding.bytes.clone());
        }
        wire.deliver(&Delivery {
            subscription: subscription.id,
            topic: &published.topic,
            offset: None,
            broker_ms: published.broker_ms,
            batch: &published.batch,
        });
        self.traffic.delivered = self.traffic.delivered.saturating_add(u64::from(published.messages));
    }
}
