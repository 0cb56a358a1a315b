//! From the outbox to the wire: how a batch gets out.
//!
//! Every batch is decided about again, by the policy that the session has adopted. A batch that was accepted under an
//! earlier policy than that is also asked whether its producer may still publish it: what waited in an outbox when a
//! right was withdrawn, of the sender or of the receiver, is not written after the marker that says so.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::{Buf as _, Bytes};
use sealbus_protocol::frame::StoredAt;
use sealbus_protocol::ids::{Kid, StreamId};
use sealbus_protocol::policy::Act;
use sealbus_protocol::session::{BrokerSession, Delivery};

use super::client::Client;
use super::decide::Want;
use crate::outbox::{Credit, Kept, LaneId, Published, Taken};
use crate::storage::system::keys::StoredKey;

/// Bytes that wait to be written while more is still framed. What is framed can neither be taken back nor overtaken
/// by a marker, so that it is little; a vectored write takes this much at once.
pub(super) const FRAMED_BYTES: usize = 256 * 1_024;

/// Keys whose bindings a session is remembered to have been sent. When there are more, they are sent again.
const ANNOUNCED_MAX: usize = 16_384;

/// The binding of a kid that the peer was sent last; its bytes are shared with whoever else holds it. A key that is
/// bound anew, or was bound otherwise when an old batch was signed with it, is announced again.
pub(super) type Announced = Bytes;

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
        if wire.outgoing().remaining() < FRAMED_BYTES {
            self.pass_credit_on();
        }
        let mut filled = if self.fill_readings(wire) { Filled::Some } else { Filled::Nothing };
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
        self.handle.outbox.is_drained() && self.pending.is_empty()
    }

    /// Sends what bound a key when a batch was stored.
    pub(super) fn announce_stored(&mut self, wire: &mut BrokerSession, key: &StoredKey) {
        announce(&mut self.announced, wire, key.kid, &key.bytes);
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
        announce(&mut self.announced, wire, binding.kid, &binding.bytes);
        let kept = published.kept;
        wire.deliver(&Delivery {
            subscription: subscription.id,
            topic: &published.topic,
            stream: kept.map_or(StreamId::ZERO, |kept| kept.stream),
            offset: kept.map(|kept| kept.offset),
            broker_ms: published.broker_ms,
            stored: kept
                .map(|Kept { policy_version, leaf_index, .. }| StoredAt { policy_version, leaf_index }),
            ranges: None,
            batch: &published.batch,
        });
        self.traffic.delivered = self.traffic.delivered.saturating_add(u64::from(published.messages));
        self.bus.counts.delivered(published.messages);
    }
}

/// Sends what binds a key, unless the peer was sent just that.
fn announce(announced: &mut HashMap<Kid, Announced>, wire: &mut BrokerSession, kid: Kid, binding: &Bytes) {
    // Nearly always it is the very same one, and then no byte of it is looked at.
    let is_same = |known: &Bytes| std::ptr::eq(&raw const **known, &raw const **binding) || known == binding;
    if announced.get(&kid).is_some_and(is_same) {
        return;
    }
    if announced.len() >= ANNOUNCED_MAX {
        announced.clear();
    }
    announced.insert(kid, binding.clone());
    wire.announce_binding(binding.clone());
}
