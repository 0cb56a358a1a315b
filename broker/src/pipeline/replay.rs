//! REPLAY: a stream's history, and then what follows it.
//!
//! ```text
//!   REPLAY --> place --> decide: may it read any of the stream? --> where to begin --> READY
//!                                                                   (a moment: asked of the disk)
//!   fill   --> page --> decide again, on the batch's own topic --> BINDING once --> DELIVER, SKIPPED ... CLOSED
//! ```
//!
//! A reader's right is judged by the policy of this moment, batch by batch, like everything that is delivered. Whether
//! its producer might publish was judged when the batch was appended and is not judged again: history does not change
//! when somebody leaves. What a revoked principal published from the moment of its revocation on is withheld.

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::slice;
use std::sync::Arc;

use bytes::Buf as _;
use sealbus_protocol::frame::{
    RecordRange, Replay, RequestId, Skipped, SkippedWhy, Start, StoredAt, StreamStart, SubscriptionId, Until,
};
use sealbus_protocol::ids::StreamId;
use sealbus_protocol::policy::{Name, Narrowed, StreamVerb, Verb};
use sealbus_protocol::refusal::{Code, Refusal};
use sealbus_protocol::session::{BrokerSession, Delivery};
use sealbus_protocol::stream_name::StreamName;

use super::client::Client;
use super::deliver::FRAMED_BYTES;
use super::publish::denied;
use super::reading::{Reading, Turn};
use crate::audit::{Event, Target};
use crate::letters::Letter;
use crate::outbox::LaneId;
use crate::storage::page::{Entry, Glance, Page, Proven, Source};
use crate::storage::stream::store::{Bounds, SkipReason, SkippedOffsets, Stored, Waiter};
use crate::telemetry;

/// Whom a batch of a stream is for.
#[derive(Debug)]
pub(super) struct Recipient {
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

/// A replay whose beginning is being looked for.
#[derive(Debug)]
pub(super) struct Beginning {
    pub(super) request: RequestId,
    pub(super) narrowed: Narrowed,
}

impl Client {
    pub(super) fn replay(&mut self, wire: &mut BrokerSession, replay: Replay) -> Result<(), Refusal> {
        let Replay { request, subscription: id, credit_bytes: _, from, until, stream: name, filter } = replay;
        let place = match self.place_for_subscription("replay") {
            Ok(place) => place,
            Err(refusal) => return self.refuse_reading(wire, (request, id), refusal),
        };
        let governing = name.governing().clone();
        let now_ms = self.bus.clock.now_ms();
        let permit = match self.decisions.on_stream(StreamVerb::Replay, &governing, filter.as_ref(), now_ms) {
            Ok(permit) => permit,
            Err(denial) => {
                let refusal = denied("replay", &name, &denial);
                let target = Target::Stream(name.to_string());
                let rule = denial.rule().clone();
                self.record(Event::Denied { actor: self.actor(), verb: Verb::Replay, target, rule })?;
                return self.refuse_reading(wire, (request, id), refusal);
            }
        };
        let Some((stream_id, source)) = self.source_of(&name) else {
            let refusal = match &name {
                StreamName::Plain(_) => {
                    Refusal::new(Code::Internal, format!("replay {name}: it is not open here"))
                }
                StreamName::DeadLetters { .. } => {
                    Refusal::new(Code::Limit, format!("replay {name}: nothing has been given up there"))
                }
            };
            return self.refuse_reading(wire, (request, id), refusal);
        };
        let bounds = source.bounds();
        let until = match until {
            Until::Live => None,
            Until::End => Some(bounds.end),
        };
        let lane = LaneId(self.lane_next);
        self.lane_next = self.lane_next.saturating_add(1);
        self.lanes.insert(id, lane);
        self.record_act(Event::Replaying {
            actor: self.actor(),
            stream: name.to_string(),
            from: bounds.first,
            narrowed: permit.narrowed(),
            rules: permit.rules().to_vec(),
        })?;
        let reading = Reading {
            id,
            stream: governing,
            stream_id,
            source,
            filter,
            until,
            next: bounds.first,
            page: VecDeque::new(),
            page_next: bounds.first,
            turn: Turn::Disk,
            _place: place,
        };
        let beginning = Beginning { request, narrowed: permit.narrowed() };
        self.beginnings.insert(lane, beginning);
        let at = match from {
            Start::Earliest => bounds.first,
            Start::Offset(offset) => offset,
            Start::Last(messages) => bounds.end.saturating_sub(messages).max(bounds.first),
            Start::End => bounds.end,
            Start::Time(time_ms) => {
                self.ask(lane, &reading, move |source| source.store().offset_at(time_ms), Letter::Begin);
                self.readings.insert(lane, reading);
                return Ok(());
            }
        };
        self.readings.insert(lane, reading);
        self.begin_reading(wire, lane, Ok(at));
        Ok(())
    }

    /// Where the reading of a lane begins is known.
    pub(super) fn begin_reading(&mut self, wire: &mut BrokerSession, lane: LaneId, at: Result<u64, String>) {
        let Some(Beginning { request, narrowed }) = self.beginnings.remove(&lane) else { return };
        let generation = self.decisions.policy().generation;
        let Some(reading) = self.readings.get_mut(lane) else { return };
        let id = reading.id;
        let Bounds { first, end } = reading.source.bounds();
        let offset = match at {
            Ok(offset) if offset <= end => offset,
            Ok(offset) => {
                let reason = format!("replay {}: offset {offset} is beyond its end, {end}", reading.stream);
                self.forget_reading(lane);
                return wire.refuse_subscription(request, id, Refusal::new(Code::Limit, reason));
            }
            Err(reason) => {
                let reason = format!("replay {}: {reason}", reading.stream);
                self.forget_reading(lane);
                return wire.refuse_subscription(request, id, Refusal::new(Code::Internal, reason));
            }
        };
        let start = StreamStart { stream_id: reading.stream_id, offset: offset.max(first), end };
        (reading.next, reading.page_next) = (start.offset, start.offset);
        wire.ready(request, id, narrowed, generation, Some(start));
        if offset < first {
            wire.skipped(&Skipped { subscription: id, why: SkippedWhy::Trimmed, from: offset, to: first });
        }
        self.readings.make_ready(lane);
    }

    /// Delivers to the readings that can go on, until enough waits to be written. Returns whether anything was framed.
    pub(super) fn fill_readings(&mut self, wire: &mut BrokerSession) -> bool {
        let mut framed = false;
        while wire.outgoing().remaining() < FRAMED_BYTES {
            let Some(lane) = self.readings.next_ready() else { break };
            framed |= self.step_replay(wire, lane);
        }
        framed
    }

    /// Delivers from one replay, as much as fits, and says what it waits for then.
    fn step_replay(&mut self, wire: &mut BrokerSession, lane: LaneId) -> bool {
        let mut framed = false;
        loop {
            let Some(reading) = self.readings.get_mut(lane) else { return framed };
            if !wire.has_credit(reading.id) {
                reading.turn = Turn::Parked;
                return framed;
            }
            if wire.outgoing().remaining() >= FRAMED_BYTES {
                self.readings.make_ready(lane);
                return framed;
            }
            if reading.until.is_some_and(|until| reading.next >= until) {
                let id = reading.id;
                self.forget_reading(lane);
                wire.close_subscription(id);
                return true;
            }
            match reading.page.pop_front() {
                Some(Entry::Batch(proven)) => {
                    let Stored { offset, messages, .. } = *proven.stored;
                    // A reading may begin within a batch: then it is for the records from there on.
                    let before = u32::try_from(reading.next.saturating_sub(offset)).unwrap_or(u32::MAX);
                    let rest = NonZeroU32::new(messages.saturating_sub(before))
                        .filter(|_| before > 0)
                        .map(|count| RecordRange { first: before, count, deliveries: NonZeroU32::MIN });
                    reading.next = proven.stored.next_offset();
                    framed |= self.deliver_read(wire, lane, &proven, rest.as_ref().map(slice::from_ref));
                }
                Some(Entry::Skipped(SkippedOffsets { from, to, why })) => {
                    reading.next = to;
                    wire.skipped(&Skipped { subscription: reading.id, why: skip_why(why), from, to });
                    framed = true;
                }
                None => {
                    if !self.turn_page(lane) {
                        return framed;
                    }
                }
            }
        }
    }

    /// Gets the next page of a reading from memory, or says what it waits for. Returns whether there is one.
    pub(super) fn turn_page(&mut self, lane: LaneId) -> bool {
        let handle = Arc::clone(&self.handle);
        let Some(reading) = self.readings.get_mut(lane) else { return false };
        let mut glance = reading.source.glance(reading.page_next);
        if let Glance::AtEnd = glance {
            // Whatever is committed between the look and the watch would be missed: so look again.
            let guard = reading.source.watch(handle as Arc<dyn Waiter>);
            glance = reading.source.glance(reading.page_next);
            if let Glance::AtEnd = glance {
                reading.turn = Turn::Tail { _guard: guard };
                return false;
            }
        }
        match glance {
            Glance::Page(page) => {
                take_page(reading, page);
                true
            }
            Glance::AtEnd | Glance::OnDisk => {
                reading.turn = Turn::Disk;
                let from = reading.page_next;
                let Some(reading) = self.readings.get_mut(lane) else { return false };
                let source = reading.source.clone();
                let handle = Arc::clone(&self.handle);
                tokio::task::spawn_blocking(move || {
                    let page = source.read(from).map(Arc::new).map_err(|error| error.to_string());
                    handle.post(Letter::Page(lane, page));
                });
                false
            }
        }
    }

    /// A page has been read. When it could not be, the session is over: an end of the subscription alone would look
    /// like the end of the stream.
    pub(super) fn handle_page(
        &mut self,
        lane: LaneId,
        page: Result<Arc<Page>, String>,
    ) -> Result<(), Refusal> {
        let Some(reading) = self.readings.get_mut(lane) else { return Ok(()) };
        match page {
            Ok(page) => {
                take_page(reading, Arc::unwrap_or_clone(page));
                self.readings.make_ready(lane);
                Ok(())
            }
            Err(reason) => {
                let reason = format!("stream {} cannot be read: {reason}", reading.stream);
                tracing::error!({ telemetry::ERROR } = %reason, "reading failed");
                Err(Refusal::new(Code::Internal, reason))
            }
        }
    }

    /// Has something looked up for a reading, on a thread that may block.
    pub(super) fn ask<T: Send + 'static, E: ToString + Send + 'static>(
        &self,
        lane: LaneId,
        reading: &Reading,
        look: impl FnOnce(Source) -> Result<T, E> + Send + 'static,
        letter: impl FnOnce(LaneId, Result<T, String>) -> Letter + Send + 'static,
    ) {
        let (source, handle) = (reading.source.clone(), Arc::clone(&self.handle));
        tokio::task::spawn_blocking(move || {
            let found = look(source).map_err(|error| error.to_string());
            handle.post(letter(lane, found));
        });
    }

    /// Delivers what a replay has read, if it is wanted and the reader may have it. Returns whether anything was framed.
    fn deliver_read(
        &mut self,
        wire: &mut BrokerSession,
        lane: LaneId,
        proven: &Proven,
        ranges: Option<&[RecordRange]>,
    ) -> bool {
        let Some(Reading { id, stream, stream_id, filter, .. }) = self.readings.get_mut(lane) else {
            return false;
        };
        if filter.as_ref().is_some_and(|filter| !filter.matches(&proven.stored.topic)) {
            return false;
        }
        let to =
            Recipient { id: *id, stream: stream.clone(), stream_id: *stream_id, verb: StreamVerb::Replay };
        self.deliver_stored(wire, &to, proven, ranges) == Delivered::Yes
    }

    /// Delivers a batch of a stream, if the reader may have it now. The one place where that is decided and done, for
    /// replays, durable consumers, redeliveries and dead letters.
    pub(super) fn deliver_stored(
        &mut self,
        wire: &mut BrokerSession,
        to: &Recipient,
        proven: &Proven,
        ranges: Option<&[RecordRange]>,
    ) -> Delivered {
        let Proven { stored, key } = proven;
        let now_ms = self.bus.clock.now_ms();
        if self.decisions.on_history(to.verb, &to.stream, &stored.topic, now_ms).is_err() {
            return Delivered::Denied;
        }
        let origin = stored.origin.as_deref();
        let append_ms = origin.map_or(stored.append_ms, |origin| origin.append_ms);
        if self.decisions.policy().compiled.revoked(&key.principal, append_ms).is_some() {
            return Delivered::Withheld;
        }
        self.announce_stored(wire, key);
        let of_letter: Vec<RecordRange> = origin
            .map(|origin| &*origin.ranges)
            .unwrap_or_default()
            .iter()
            .filter_map(|range| {
                let (count, deliveries) = (NonZeroU32::new(range.count)?, NonZeroU32::new(range.deliveries)?);
                Some(RecordRange { first: range.first, count, deliveries })
            })
            .collect();
        wire.deliver(&Delivery {
            subscription: to.id,
            topic: &stored.topic,
            stream: to.stream_id,
            offset: Some(stored.offset),
            broker_ms: append_ms,
            stored: Some(StoredAt {
                policy_version: origin.map_or(stored.policy_version, |origin| origin.policy_version),
                leaf_index: origin.map_or(stored.leaf_index, |origin| origin.leaf_index),
            }),
            ranges: ranges.or_else(|| origin.map(|_| &*of_letter)),
            batch: &stored.batch,
        });
        self.traffic.delivered = self.traffic.delivered.saturating_add(u64::from(stored.messages));
        self.bus.counts.delivered(stored.messages);
        Delivered::Yes
    }

    /// Judges all readings by the policy that was just adopted. One that may not read its stream at all any more ends:
    /// the peer sees CLOSED where more would have come.
    pub(super) fn recheck_readings(&mut self, wire: &mut BrokerSession) {
        let now_ms = self.bus.clock.now_ms();
        let denied: Vec<(LaneId, SubscriptionId)> = self
            .readings
            .iter()
            .filter(|(_, Reading { stream, filter, .. })| {
                self.decisions.on_stream(StreamVerb::Replay, stream, filter.as_ref(), now_ms).is_err()
            })
            .map(|(lane, reading)| (lane, reading.id))
            .collect();
        for (lane, id) in denied {
            self.withdraw_reading(wire, lane, id);
        }
    }

    /// Ends a reading whose right was withdrawn. One that was to end somewhere says what of it does not come: CLOSED
    /// alone would look like its end.
    fn withdraw_reading(&mut self, wire: &mut BrokerSession, lane: LaneId, id: SubscriptionId) {
        let reason = "the right to read the stream was withdrawn";
        if let Some(Beginning { request, .. }) = self.beginnings.remove(&lane) {
            self.forget_reading(lane);
            return wire.refuse_subscription(request, id, Refusal::new(Code::Denied, reason));
        }
        let left = self.readings.get_mut(lane).and_then(|reading| Some(reading.next..reading.until?));
        self.forget_reading(lane);
        if let Some(left) = left.filter(|left| !left.is_empty()) {
            let (from, to) = (left.start, left.end);
            wire.skipped(&Skipped { subscription: id, why: SkippedWhy::Withdrawn, from, to });
        }
        wire.close_subscription(id);
    }

    /// Takes a reading off the session.
    pub(super) fn forget_reading(&mut self, lane: LaneId) {
        self.beginnings.remove(&lane);
        if let Some(reading) = self.readings.remove(lane) {
            self.lanes.remove(&reading.id);
        }
    }

    /// The stream of a name, and where it is read.
    fn source_of(&self, name: &StreamName) -> Option<(StreamId, Source)> {
        let id = self.decisions.policy().compiled.stream(name.governing().as_str())?.id();
        let source = match name {
            StreamName::Plain(_) => self.bus.storage.source(id)?,
            StreamName::DeadLetters { consumer, .. } => self.bus.storage.dead_letters(id, consumer)?,
        };
        Some((id, source))
    }

    pub(super) fn refuse_reading(
        &mut self,
        wire: &mut BrokerSession,
        (request, id): (RequestId, SubscriptionId),
        refusal: Refusal,
    ) -> Result<(), Refusal> {
        self.patience.spend_at(self.bus.clock.tick());
        wire.refuse_subscription(request, id, refusal);
        Ok(())
    }
}

fn take_page(reading: &mut Reading, page: Page) {
    // A page begins with the batch that holds the offset, which may begin before it.
    reading.page_next = page.next;
    reading.page.extend(page.entries);
}

pub(super) const fn skip_why(why: SkipReason) -> SkippedWhy {
    match why {
        SkipReason::Trimmed => SkippedWhy::Trimmed,
        SkipReason::Damaged => SkippedWhy::Damaged,
    }
}
