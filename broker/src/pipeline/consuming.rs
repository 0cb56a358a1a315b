//! CONSUME and SETTLE: durable consumers.
//!
//! ```text
//!   CONSUME --> place --> decide: may it have all that it asks for? --> find or create, durable --> join --> READY
//!   driver  --Letter--> decide again, on the batch's own topic --> BINDING once --> DELIVER with ranges
//!   SETTLE  --> the group; with flag 1 SETTLED once $cursors is durable
//! ```
//!
//! A consumer gives its records to any of its members, so that each has to be allowed all of what its filter matches: a
//! narrower grant is a refusal. A member that loses the right leaves, and what it had goes to the others.

use std::sync::Arc;

use sealbus_protocol::frame::{
    Consume, RecordRange, RequestId, Settle, SettleItem, Settlement, Skipped, SkippedWhy, StreamStart,
    SubscriptionId, Sync,
};
use sealbus_protocol::policy::{DenialRule, Narrowed, RuleId, StreamVerb, Verb};
use sealbus_protocol::refusal::{Code, Refusal};
use sealbus_protocol::session::BrokerSession;
use sealbus_protocol::topic::TopicFilter;

use super::client::Client;
use super::consumer::{asked_of, find_or_create, join_refusal};
use super::refuse::denied;
use super::stored::{Addressee, Delivered, range_of_handed, skipped_why};
use crate::audit::{Event, Target};
use crate::consumers::driver::{HandedBatch, Recipient, Running};
use crate::consumers::member::MemberId;
use crate::consumers::registry::Consumer;
use crate::letters::Letter;
use crate::outbox::LaneId;
use crate::quotas::SubscriptionPlace;
use crate::sessions::Handle;
use crate::storage::page::Source;
use crate::storage::stream::store::{SkippedOffsets, Waiter};
use crate::storage::system::ConsumerKey;

/// How long a delivery that could not be made is kept back from the next member.
const WITHDRAWN_MS: u64 = 100;

/// Bytes that a consumer may hand a session before they are framed. Credit is the client's own word: this, and not
/// that, bounds what waits in memory for a member that does not read.
const AHEAD_BYTES_MAX: i64 = 256 * 1_024;

/// A session's place in a durable consumer.
#[derive(Debug)]
pub(super) struct Membership {
    to: Addressee,
    consumer: Arc<Consumer>,
    member: MemberId,
    /// The consumer's: a member must be allowed all that it matches.
    filter: Option<TopicFilter>,
    /// What hands over to it.
    running: Arc<Running>,
    /// Credit that the client has given and the consumer does not know of yet.
    held_back: u64,
    /// Bytes that the consumer may hand over, or has and which are not framed. It may have gone over by a batch.
    ahead: i64,
    /// Its place among those of the principal, until it is dropped.
    _place: SubscriptionPlace,
}

/// Somebody who waits to become a member.
#[derive(Debug)]
pub(super) struct Joining {
    request: RequestId,
    to: Addressee,
    filter: Option<TopicFilter>,
    credit_bytes: u64,
    rules: Vec<RuleId>,
    source: Source,
    place: SubscriptionPlace,
}

/// Where a session takes what a consumer gives it.
struct Seat {
    handle: Arc<Handle>,
    lane: LaneId,
}

impl Recipient for Seat {
    fn hand_over(&self, batch: HandedBatch) {
        self.handle.post(Letter::Handed(self.lane, Box::new(batch)));
    }

    fn skip(&self, skipped: SkippedOffsets) {
        self.handle.post(Letter::Skipped(self.lane, skipped));
    }
}

impl Client {
    pub(super) fn consume(&mut self, wire: &mut BrokerSession, consume: Consume) -> Result<(), Refusal> {
        let Consume { request, subscription: id, credit_bytes, from, settings, stream, consumer, filter } =
            consume;
        let asked = (request, id);
        let place = match self.place_for_subscription("consume") {
            Ok(place) => place,
            Err(refusal) => {
                self.refuse_subscription(wire, asked, refusal);
                return Ok(());
            }
        };
        let now_ms = self.bus.clock.now_ms();
        let decided = self.decisions.on_stream(StreamVerb::Consume, &stream, filter.as_ref(), now_ms);
        let rules = match decided {
            Ok(permit) if permit.narrowed() == Narrowed::No => permit.rules().to_vec(),
            Ok(_) => {
                let reason = format!(
                    "consume {stream}: the rules allow part of what is asked for, and a member must be allowed all \
                     of it; ask for less with a filter"
                );
                let (target, refusal) =
                    (Target::Stream(stream.to_string()), Refusal::new(Code::Denied, reason));
                let by = (Verb::Consume, DenialRule::Default);
                return self.refuse_denied_subscription(wire, asked, target, by, refusal);
            }
            Err(denial) => {
                let refusal = denied("consume", &stream, &denial);
                let (target, rule) = (Target::Stream(stream.to_string()), denial.rule().clone());
                return self.refuse_denied_subscription(wire, asked, target, (Verb::Consume, rule), refusal);
            }
        };
        let stream_id = self.decisions.policy().compiled.stream(stream.as_str()).map(|stream| stream.id());
        let Some((stream_id, source)) = stream_id.and_then(|id| Some((id, self.bus.storage.source(id)?)))
        else {
            let refusal = Refusal::new(Code::Internal, format!("consume {stream}: it is not open here"));
            self.refuse_subscription(wire, asked, refusal);
            return Ok(());
        };
        let lane = self.new_lane(id);
        let key = ConsumerKey { stream: stream_id, name: consumer };
        let settings = asked_of(&settings, filter.clone());
        let to = Addressee { id, stream, stream_id, verb: StreamVerb::Consume };
        let (bus, handle, reader) = (Arc::clone(&self.bus), Arc::clone(&self.handle), source.clone());
        self.joinings.insert(lane, Joining { request, to, filter, credit_bytes, rules, source, place });
        tokio::spawn(async move {
            let joined = find_or_create(&bus, reader, key, settings, from).await;
            handle.post(Letter::Joined(lane, joined));
        });
        Ok(())
    }

    /// The consumer is there, and durable if it is new.
    pub(super) fn handle_joined(
        &mut self,
        wire: &mut BrokerSession,
        lane: LaneId,
        joined: Result<Arc<Consumer>, Refusal>,
    ) -> Result<(), Refusal> {
        let Some(joining) = self.joinings.remove(&lane) else { return Ok(()) };
        let Joining { request, to, filter, credit_bytes, rules, source, place } = joining;
        let member = MemberId { session: self.handle.id.0, lane: lane.0 };
        let seat = Arc::new(Seat { handle: Arc::clone(&self.handle), lane }) as Arc<dyn Recipient>;
        let attended = joined.and_then(|consumer| {
            if !self.may_consume(&to, filter.as_ref()) {
                let reason = "consume: the right to the stream was withdrawn";
                return Err(Refusal::new(Code::Denied, reason));
            }
            let running = self.bus.drivers.attend(&consumer, &source, &self.bus.clock, (member, seat));
            let waker = Arc::clone(&running) as Arc<dyn Waiter>;
            match consumer.join(member, 0, waker) {
                Ok(()) => Ok((consumer, running)),
                Err(error) => {
                    running.dismiss(member);
                    Err(join_refusal(&to.stream, &error))
                }
            }
        });
        let (consumer, running) = match attended {
            Ok(attended) => attended,
            Err(refusal) => {
                self.lanes.remove(&to.id);
                self.refuse_subscription(wire, (request, to.id), refusal);
                return Ok(());
            }
        };
        let (position, end) = (consumer.info(0).position, source.bounds().end);
        let start = StreamStart { stream_id: to.stream_id, offset: position, end };
        wire.ready(request, to.id, Narrowed::No, self.decisions.policy().generation, Some(start));
        let event = Event::Consuming {
            actor: self.actor(),
            stream: to.stream.to_string(),
            consumer: consumer.key().name.to_string(),
            rules,
        };
        let mut membership = Membership {
            to,
            consumer,
            member,
            filter,
            running,
            held_back: credit_bytes,
            ahead: 0,
            _place: place,
        };
        membership.pass_credit_on();
        self.memberships.insert(lane, membership);
        self.record_act(event)
    }

    /// Records that the consumer gives this session.
    pub(super) fn handle_handed(&mut self, wire: &mut BrokerSession, lane: LaneId, batch: &HandedBatch) {
        let HandedBatch { proven, handed } = batch;
        // The membership is taken out for the moment in which the rest of the session is needed.
        let Some(mut membership) = self.memberships.remove(&lane) else { return };
        let batch_bytes = proven.stored.batch.len() as u64;
        let ranges: Vec<RecordRange> = handed.ranges.iter().copied().filter_map(range_of_handed).collect();
        match self.deliver_stored(wire, &membership.to, proven, Some(&ranges)) {
            Delivered::Yes => {
                membership.ahead = membership.ahead.saturating_sub_unsigned(batch_bytes);
                self.memberships.insert(lane, membership);
            }
            Delivered::Withheld => {
                let (from, to) = (proven.stored.offset, proven.stored.next_offset());
                membership.consumer.act(|group| {
                    group.skip(from..to);
                    // It did not cost the client anything, who would never give it back.
                    group.credit(membership.member, batch_bytes);
                });
                membership.running.committed();
                if from < to {
                    let (subscription, why) = (membership.to.id, SkippedWhy::Withdrawn);
                    wire.skipped(&Skipped { subscription, why, from, to });
                }
                self.memberships.insert(lane, membership);
            }
            Delivered::Denied => {
                let retry_at = self.bus.clock.tick().after_ms(WITHDRAWN_MS);
                membership.consumer.act(|group| group.withdraw(membership.member, handed, retry_at));
                let id = membership.to.id;
                self.memberships.insert(lane, membership);
                self.leave(lane);
                self.lanes.remove(&id);
                wire.close_subscription(id);
            }
        }
    }

    /// Offsets that nobody gets.
    pub(super) fn handle_skipped(&self, wire: &mut BrokerSession, lane: LaneId, skipped: SkippedOffsets) {
        if let Some(membership) = self.memberships.get(&lane) {
            let SkippedOffsets { from, to, why } = skipped;
            wire.skipped(&Skipped { subscription: membership.to.id, why: skipped_why(why), from, to });
        }
    }

    /// A member may be given more.
    pub(super) fn credit_consumer(&mut self, lane: LaneId, bytes: u64) {
        if let Some(membership) = self.memberships.get_mut(&lane) {
            membership.held_back = membership.held_back.saturating_add(bytes);
        } else if let Some(joining) = self.joinings.get_mut(&lane) {
            joining.credit_bytes = joining.credit_bytes.saturating_add(bytes);
        }
    }

    /// Lets consumers hand over more, as far as there is credit and what they handed over before is framed.
    pub(super) fn pass_credit_on(&mut self) {
        self.memberships.values_mut().for_each(Membership::pass_credit_on);
    }

    pub(super) fn settle(&mut self, wire: &mut BrokerSession, settle: Settle) -> Result<(), Refusal> {
        let Settle { request, subscription, sync, items } = settle;
        let lane = self.lanes.get(&subscription);
        let Some(membership) = lane.and_then(|lane| self.memberships.get(lane)) else {
            // It may have lost its right a moment ago. What it would have settled is delivered again elsewhere.
            let reason = format!("settle: subscription {} is no member of a consumer", subscription.0);
            self.refuse(wire, request, Refusal::new(Code::Denied, reason));
            return Ok(());
        };
        let (member, now) = (membership.member, self.bus.clock.tick());
        let are_settled = membership.consumer.act(|group| {
            let mut are_settled = true;
            for SettleItem { offset, count, settlement } in items {
                match settlement {
                    Settlement::Ack => {
                        group.ack(member, offset, count.get());
                        are_settled &= group.is_settled(offset, count.get());
                    }
                    Settlement::Nack { delay_ms } => {
                        group.nack(member, offset, count.get(), delay_ms, now);
                    }
                }
            }
            are_settled
        });
        // There may be room for more, or something to hand out again.
        membership.running.committed();
        if sync == Sync::Yes && !are_settled {
            // They were handed out before a reconnect, or are with another member by now: they come again, which who
            // waits for the answer must not be told otherwise.
            let reason =
                "settle: some of the messages were not with this member any more, and are delivered again";
            self.refuse(wire, request, Refusal::new(Code::Conflict, reason));
            return Ok(());
        }
        if sync == Sync::Yes {
            let handle = Arc::clone(&self.handle);
            self.bus.consumers.when_durable(Box::new(move |kept| {
                handle.post(Letter::Settled(request, kept.map_err(|error| error.to_string())));
            }));
        }
        Ok(())
    }

    pub(super) fn handle_settled(
        &mut self,
        wire: &mut BrokerSession,
        request: RequestId,
        outcome: Result<(), String>,
    ) {
        match outcome {
            Ok(()) => wire.settled(request),
            Err(reason) => {
                let reason = format!("settle: the cursor is not durable: {reason}");
                self.refuse(wire, request, Refusal::new(Code::Internal, reason));
            }
        }
    }

    /// Judges all memberships by the policy that was just adopted.
    pub(super) fn recheck_memberships(&mut self, wire: &mut BrokerSession) {
        let denied: Vec<(LaneId, SubscriptionId)> = self
            .memberships
            .iter()
            .filter(|(_, Membership { to, filter, .. })| !self.may_consume(to, filter.as_ref()))
            .map(|(lane, membership)| (*lane, membership.to.id))
            .collect();
        for (lane, id) in denied {
            self.leave(lane);
            self.lanes.remove(&id);
            wire.close_subscription(id);
        }
    }

    /// Whether a member may have all that its consumer gives out.
    fn may_consume(&self, to: &Addressee, filter: Option<&TopicFilter>) -> bool {
        let permit = self.decisions.on_stream(to.verb, &to.stream, filter, self.bus.clock.now_ms());
        self.is_stream(&to.stream, to.stream_id)
            && permit.is_ok_and(|permit| permit.narrowed() == Narrowed::No)
    }

    /// Gives up a place among the members of a consumer, or the wish for one. Says whether there was either.
    pub(super) fn leave(&mut self, lane: LaneId) -> bool {
        let Some(membership) = self.memberships.remove(&lane) else { return false };
        membership.running.dismiss(membership.member);
        membership.consumer.leave(membership.member);
        true
    }

    /// Gives up the wish for a place among the members of a consumer. Returns the request that is not answered yet.
    pub(super) fn give_up_joining(&mut self, lane: LaneId) -> Option<RequestId> {
        self.joinings.remove(&lane).map(|joining| joining.request)
    }

    /// Gives up all of its places.
    pub(super) fn leave_all(&mut self) {
        self.joinings.clear();
        let lanes: Vec<LaneId> = self.memberships.keys().copied().collect();
        for lane in lanes {
            self.leave(lane);
        }
    }
}

impl Membership {
    fn pass_credit_on(&mut self) {
        let room = u64::try_from(AHEAD_BYTES_MAX.saturating_sub(self.ahead)).unwrap_or(0);
        let bytes = self.held_back.min(room);
        if bytes > 0 {
            self.held_back -= bytes;
            self.ahead = self.ahead.saturating_add_unsigned(bytes);
            self.consumer.act(|group| group.credit(self.member, bytes));
            self.running.committed();
        }
    }
}
