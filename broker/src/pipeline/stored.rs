//! From a stream to the wire: how a batch that is kept gets out, whoever reads it.
//!
//! Replays, durable consumers, redeliveries and dead letters all end here, so that the reader's right is decided in one
//! place, by the policy of this moment and on the batch's own topic. Whether its producer might publish was judged when
//! the batch was appended and is not judged again: history does not change when somebody leaves. What a revoked
//! principal published from the moment of its revocation on is withheld.

use std::num::NonZeroU32;

use sealbus_protocol::frame::{RecordRange, SkippedWhy, StoredAt, SubscriptionId};
use sealbus_protocol::ids::StreamId;
use sealbus_protocol::policy::{Name, StreamVerb};
use sealbus_protocol::session::{BrokerSession, Delivery};

use super::client::Client;
use crate::consumers::delivery::HandedRange;
use crate::storage::page::Proven;
use crate::storage::stream::store::{DeadRange, SkipReason};

/// Whom a batch of a stream is for.
#[derive(Debug)]
pub(super) struct Addressee {
    /// The subscription.
    pub(super) id: SubscriptionId,
    /// The stream whose rules decide.
    pub(super) stream: Name,
    /// The stream that the batches were signed for.
    pub(super) stream_id: StreamId,
    /// The right that it is by.
    pub(super) verb: StreamVerb,
}

/// What became of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Delivered {
    /// It was framed.
    Yes,
    /// The reader may not have it.
    Denied,
    /// Its producer had been revoked when it was appended: nobody gets it.
    Withheld,
}

impl Client {
    /// Delivers a batch of a stream, or these records of it, if the reader may have it now. A dead letter names its own
    /// records, unless others are asked for.
    pub(super) fn deliver_stored(
        &mut self,
        wire: &mut BrokerSession,
        to: &Addressee,
        proven: &Proven,
        ranges: Option<&[RecordRange]>,
    ) -> Delivered {
        let Proven { stored, key } = proven;
        let now_ms = self.bus.clock.now_ms();
        if self.decisions.on_history(to.verb, &to.stream, &stored.topic, now_ms).is_err() {
            return Delivered::Denied;
        }
        // Of a dead letter, the reader is told what was true of the batch in the stream that signed for it.
        let origin = stored.origin.as_deref();
        let (append_ms, policy_version, leaf_index) = match origin {
            None => (stored.append_ms, stored.policy_version, stored.leaf_index),
            Some(origin) => (origin.append_ms, origin.policy_version, origin.leaf_index),
        };
        if self.decisions.policy().compiled.revoked(&key.principal, append_ms).is_some() {
            return Delivered::Withheld;
        }
        self.announce_stored(wire, key);
        let given_up: Option<Vec<RecordRange>> =
            origin.map(|origin| origin.ranges.iter().copied().filter_map(range_of_dead).collect());
        wire.deliver(&Delivery {
            subscription: to.id,
            topic: &stored.topic,
            stream: to.stream_id,
            offset: Some(stored.offset),
            broker_ms: append_ms,
            stored: Some(StoredAt { policy_version, leaf_index }),
            ranges: ranges.or(given_up.as_deref()),
            batch: &stored.batch,
        });
        self.traffic.delivered = self.traffic.delivered.saturating_add(u64::from(stored.messages));
        self.bus.counts.delivered(stored.messages);
        Delivered::Yes
    }
}

/// Records that a consumer hands out, as the wire has them; none when they are none.
pub(super) fn range_of_handed(range: HandedRange) -> Option<RecordRange> {
    let HandedRange { first, count, deliveries } = range;
    range_of_dead(DeadRange { first, count, deliveries })
}

/// Records that were given up, as the wire has them; none when they are none.
fn range_of_dead(range: DeadRange) -> Option<RecordRange> {
    let DeadRange { first, count, deliveries } = range;
    Some(RecordRange { first, count: NonZeroU32::new(count)?, deliveries: NonZeroU32::new(deliveries)? })
}

/// What the wire calls the reason for which offsets do not come.
pub(super) const fn skipped_why(why: SkipReason) -> SkippedWhy {
    match why {
        SkipReason::Trimmed => SkippedWhy::Trimmed,
        SkipReason::Damaged => SkippedWhy::Damaged,
    }
}
