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

use std::future::Future;
use std::num::NonZeroU32;
use std::sync::Arc;

use sealbus_protocol::frame::admin::ConsumerKey as WireKey;
use sealbus_protocol::frame::{
    Consume, ConsumerInfo, ConsumerSettings, MaxDeliver as WireMaxDeliver, Outcome, RecordRange,
    RequestId, Settle, SettleItem, Settlement, Skipped, Start, StreamStart, SubscriptionId, Sync,
};
use sealbus_protocol::policy::{Name, Narrowed, RuleId, StreamVerb, Verb};
use sealbus_protocol::refusal::{Code, Refusal};
use sealbus_protocol::session::BrokerSession;
use sealbus_protocol::topic::TopicFilter;

use super::client::Client;
use super::publish::denied;
use super::replay::{Delivered, Recipient, skip_why};
use crate::audit::{Event, Target};
use crate::bus::Bus;
use crate::consumers::driver::{HandedBatch, Recipient as Taker, Running};
use crate::consumers::member::MemberId;
use crate::consumers::registry::{Consumer, JoinError, Origin};
use crate::letters::Letter;
use crate::outbox::LaneId;
use crate::quotas::SubscriptionPlace;
use crate::sessions::Handle;
use crate::storage::page::Source;
use crate::storage::stream::store::{Bounds, SkippedOffsets, Waiter};
use crate::storage::system::{AskedSettings, ConsumerKey, MaxDeliver};

/// How long a delivery that could not be made is kept back from the next member.
const WITHDRAWN_MS: u64 = 100;

/// A session's place in a durable consumer.
#[derive(Debug)]
pub(super) struct Membership {
    to: Recipient,
    consumer: Arc<Consumer>,
    member: MemberId,
    filter: Option<TopicFilter>,
    running: Arc<Running>,
    _place: SubscriptionPlace,
}

/// Somebody who waits to become a member.
#[derive(Debug)]
pub(super) struct Joining {
    request: RequestId,
    to: Recipient,
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

impl Taker for Seat {
    fn hand_over(&self, batch: HandedBatch) {
        self.handle.post(Letter::Handed(self.lane, Box::new(batch)));
    }

    fn skip(&self, skipped: SkippedOffsets) {
        self.handle.post(Letter::Skipped(self.lane, skipped));
    }
}

impl Client {
    pub(super) fn consume(&mut self, wire: &mut BrokerSession, consume: Consume) -> Result<(), Refusal> {
        let Consume { request, subscription: id, credit_bytes, from, settings, stream, consumer, filter } = consume;
        let place = match self.place_for_subscription("consume") {
            Ok(place) => place,
            Err(refusal) => return self.refuse_reading(wire, (request, id), refusal),
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
                return self.refuse_reading(wire, (request, id), Refusal::new(Code::Denied, reason));
            }
            Err(denial) => {
                let refusal = denied("consume", &stream, &denial);
                let (target, rule) = (Target::Stream(stream.to_string()), denial.rule().clone());
                self.record(Event::Denied { actor: self.actor(), verb: Verb::Consume, target, rule })?;
                return self.refuse_reading(wire, (request, id), refusal);
            }
        };
        let stream_id = self.decisions.policy().compiled.stream(stream.as_str()).map(|stream| stream.id());
        let Some((stream_id, source)) = stream_id.and_then(|id| Some((id, self.bus.storage.source(id)?))) else {
            let refusal = Refusal::new(Code::Internal, format!("consume {stream}: it is not open here"));
            return self.refuse_reading(wire, (request, id), refusal);
        };
        let lane = LaneId(self.lane_next);
        self.lane_next = self.lane_next.saturating_add(1);
        self.lanes.insert(id, lane);
        let key = ConsumerKey { stream: stream_id, name: consumer };
        let asked = asked_of(&settings, filter.clone());
        let to = Recipient { id, stream, stream_id, verb: StreamVerb::Consume };
        let (bus, handle, reader) = (Arc::clone(&self.bus), Arc::clone(&self.handle), source.clone());
        self.joinings.insert(lane, Joining { request, to, filter, credit_bytes, rules, source, place });
        tokio::spawn(async move {
            let joined = find_or_create(&bus, reader, key, asked, from).await;
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
        let seat = Arc::new(Seat { handle: Arc::clone(&self.handle), lane }) as Arc<dyn Taker>;
        let attended = joined.and_then(|consumer| {
            let running = self.bus.drivers.attend(&consumer, &source, &self.bus.clock, (member, seat));
            let waker = Arc::clone(&running) as Arc<dyn Waiter>;
            match consumer.join(member, credit_bytes, waker) {
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
                return self.refuse_reading(wire, (request, to.id), refusal);
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
        running.committed();
        self.memberships.insert(lane, Membership { to, consumer, member, filter, running, _place: place });
        self.record_act(event)
    }

    /// Records that the consumer gives this session.
    pub(super) fn handle_handed(&mut self, wire: &mut BrokerSession, lane: LaneId, batch: &HandedBatch) {
        let HandedBatch { proven, handed } = batch;
        // The membership is taken out for the moment in which the rest of the session is needed.
        let Some(membership) = self.memberships.remove(&lane) else { return };
        let ranges: Vec<RecordRange> = handed
            .ranges
            .iter()
            .filter_map(|range| {
                let (count, deliveries) = (NonZeroU32::new(range.count)?, NonZeroU32::new(range.deliveries)?);
                Some(RecordRange { first: range.first, count, deliveries })
            })
            .collect();
        match self.deliver_stored(wire, &membership.to, proven, Some(&ranges)) {
            Delivered::Yes => {
                self.memberships.insert(lane, membership);
            }
            Delivered::Withheld => {
                let (from, to) = (proven.stored.offset, proven.stored.next_offset());
                membership.consumer.act(|group| group.skip(from..to));
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
            wire.skipped(&Skipped { subscription: membership.to.id, why: skip_why(why), from, to });
        }
    }

    pub(super) fn credit_consumer(&mut self, lane: LaneId, bytes: u64) {
        if let Some(membership) = self.memberships.get(&lane) {
            membership.consumer.act(|group| group.credit(membership.member, bytes));
            membership.running.committed();
        }
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
        membership.consumer.act(|group| {
            for SettleItem { offset, count, settlement } in items {
                match settlement {
                    Settlement::Ack => group.ack(member, offset, count.get()),
                    Settlement::Nack { delay_ms } => group.nack(member, offset, count.get(), delay_ms, now),
                };
            }
        });
        // There may be room for more, or something to hand out again.
        membership.running.committed();
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
        let now_ms = self.bus.clock.now_ms();
        let denied: Vec<(LaneId, SubscriptionId)> = self
            .memberships
            .iter()
            .filter(|(_, Membership { to, filter, .. })| {
                let permit = self.decisions.on_stream(to.verb, &to.stream, filter.as_ref(), now_ms);
                !permit.is_ok_and(|permit| permit.narrowed() == Narrowed::No)
            })
            .map(|(lane, membership)| (*lane, membership.to.id))
            .collect();
        for (lane, id) in denied {
            self.leave(lane);
            self.lanes.remove(&id);
            wire.close_subscription(id);
        }
    }

    /// Gives up a place among the members of a consumer, or the wish for one. Says whether there was either.
    pub(super) fn leave(&mut self, lane: LaneId) -> bool {
        let joined = self.joinings.remove(&lane).is_some();
        let Some(membership) = self.memberships.remove(&lane) else { return joined };
        membership.running.dismiss(membership.member);
        membership.consumer.leave(membership.member);
        true
    }

    pub(super) fn leave_all(&mut self) {
        self.joinings.clear();
        let lanes: Vec<LaneId> = self.memberships.keys().copied().collect();
        for lane in lanes {
            self.leave(lane);
        }
    }

    /// All consumers of streams that the policy has.
    pub(super) fn consumer_infos(&self) -> Vec<ConsumerInfo> {
        let policy = self.decisions.policy();
        let streams = policy.compiled.policy().streams();
        let of = |stream: &sealbus_protocol::policy::Stream| {
            let end = self.bus.storage.stream(stream.id()).map_or(0, |store| store.bounds().end);
            let name = stream.name().clone();
            let consumers = self.bus.consumers.list(Some(stream.id()));
            consumers.into_iter().map(move |consumer| info_of(name.clone(), &consumer, end)).collect::<Vec<_>>()
        };
        streams.iter().flat_map(of).collect()
    }

    /// Moves a consumer. Decided before, by the verb `admin`.
    pub(super) fn reset_consumer(
        &self,
        key: &WireKey,
        from: Start,
    ) -> impl Future<Output = Result<Outcome, Refusal>> + Send + use<> {
        let bus = Arc::clone(&self.bus);
        let stream = self.decisions.policy().compiled.stream(key.stream.as_str()).map(|stream| stream.id());
        let (name, shown) = (key.consumer.clone(), format!("{} of {}", key.consumer, key.stream));
        async move {
            let missing = || Refusal::new(Code::Limit, format!("consumer reset: there is no consumer {shown}"));
            let stream = stream.ok_or_else(missing)?;
            let consumer = bus.consumers.find(&ConsumerKey { stream, name }).ok_or_else(missing)?;
            let source = bus.storage.source(stream).ok_or_else(missing)?;
            let position = position_of(source, from).await?;
            consumer.act(|group| group.reset(position));
            consumer.wake();
            durable(&bus).await?;
            Ok(Outcome::ConsumerReset { position })
        }
    }
}

/// Finds or creates a consumer, and returns when it is durable.
async fn find_or_create(
    bus: &Arc<Bus>,
    source: Source,
    key: ConsumerKey,
    asked: AskedSettings,
    from: Start,
) -> Result<Arc<Consumer>, Refusal> {
    let position = match bus.consumers.find(&key) {
        Some(_) => 0,
        None => position_of(source, from).await?,
    };
    let refuse = |error| join_refusal(&key.name, &error);
    let (consumer, origin) = bus.consumers.find_or_create(&key, asked, position).map_err(refuse)?;
    match origin {
        Origin::Found => {}
        Origin::Created => durable(bus).await?,
    }
    Ok(consumer)
}

/// Returns when all that was settled, created or reset until now is durable.
async fn durable(bus: &Bus) -> Result<(), Refusal> {
    let (done, kept) = tokio::sync::oneshot::channel();
    bus.consumers.when_durable(Box::new(move |outcome| {
        // Whoever asked may have gone.
        let _ = done.send(outcome);
    }));
    let refuse = |reason: String| Refusal::new(Code::Internal, format!("consumer: it is not durable: {reason}"));
    match kept.await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(refuse(error.to_string())),
        Err(_) => Err(refuse("the broker is stopping".to_owned())),
    }
}

/// The offset at which reading begins. Within what is kept.
async fn position_of(source: Source, from: Start) -> Result<u64, Refusal> {
    let Bounds { first, end } = source.bounds();
    let position = match from {
        Start::Earliest => first,
        Start::Offset(offset) => offset,
        Start::Last(messages) => end.saturating_sub(messages),
        Start::End => end,
        Start::Time(time_ms) => {
            let looked = tokio::task::spawn_blocking(move || source.store().offset_at(time_ms)).await;
            let refuse = |reason: String| Refusal::new(Code::Internal, format!("consumer: {reason}"));
            looked
                .map_err(|_| refuse("looking for its beginning failed".to_owned()))?
                .map_err(|error| refuse(error.to_string()))?
        }
    };
    if position > end {
        let reason = format!("consumer: offset {position} is beyond the stream's end, {end}");
        return Err(Refusal::new(Code::Limit, reason));
    }
    Ok(position.max(first))
}

fn asked_of(settings: &ConsumerSettings, filter: Option<TopicFilter>) -> AskedSettings {
    let choices = settings.choices();
    AskedSettings {
        filter,
        ack_wait_ms: choices.ack_wait_ms.map(NonZeroU32::get),
        max_deliver: choices.max_deliver.map(|max_deliver| match max_deliver {
            WireMaxDeliver::Times(times) => MaxDeliver::Times(times),
            WireMaxDeliver::NoLimit => MaxDeliver::Unlimited,
        }),
        backoff_ms: (!choices.backoff_ms.is_empty()).then(|| choices.backoff_ms.clone()),
        unacknowledged_max: choices.unacknowledged_max.map(NonZeroU32::get),
    }
}

fn join_refusal(on: &Name, error: &JoinError) -> Refusal {
    let code = match error {
        JoinError::Conflict(_) => Code::Conflict,
        JoinError::Settings(_) => Code::Format,
        JoinError::TooManyConsumers | JoinError::TooManyMembers | JoinError::Removed => Code::Limit,
        JoinError::AlreadyMember => Code::Internal,
    };
    Refusal::new(code, format!("consume {on}: {error}"))
}

fn info_of(stream: Name, consumer: &Consumer, end: u64) -> ConsumerInfo {
    let info = consumer.info(end);
    let number = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
    ConsumerInfo {
        stream,
        name: info.key.name.clone(),
        filter: info.settings.filter().cloned(),
        position: info.position,
        end,
        unacknowledged: number(info.unacknowledged),
        redelivering: number(info.redelivering),
        members: number(info.members as u64),
        lag: info.lag,
        delivered: info.totals.delivered,
        acknowledged: info.totals.acknowledged,
        dead: info.totals.dead,
        ack_wait_ms: info.settings.ack_wait_ms(),
        max_deliver: match info.settings.max_deliver() {
            MaxDeliver::Unlimited => 0,
            MaxDeliver::Times(times) => times.get(),
        },
        unacknowledged_max: info.settings.unacknowledged_max(),
    }
}
