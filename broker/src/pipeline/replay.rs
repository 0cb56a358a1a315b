//! REPLAY: a stream's history, and then what follows it.
//!
//! ```text
//!   REPLAY --> place --> decide: may it read any of the stream? --> where to begin --> READY
//!                                                                   (a moment: asked of the disk)
//!   fill   --> page --> decide again, on the batch's own topic --> BINDING once --> DELIVER, SKIPPED ... CLOSED
//! ```
//!
//! What is delivered is decided batch by batch ([`super::stored`]); what is read, and when, is [`super::reading`]'s.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use bytes::Buf as _;
use sealbus_protocol::frame::{
    Replay, RequestId, Skipped, SkippedWhy, Start, StreamStart, SubscriptionId, Until,
};
use sealbus_protocol::ids::StreamId;
use sealbus_protocol::policy::{Name, Narrowed, StreamVerb, Verb};
use sealbus_protocol::refusal::{Code, Refusal};
use sealbus_protocol::session::BrokerSession;
use sealbus_protocol::stream_name::StreamName;

use super::client::Client;
use super::deliver::FRAMED_BYTES;
use super::reading::{Look, Reading, Turn};
use super::refuse::denied;
use super::stored::{Addressee, Delivered, skipped_why};
use crate::audit::{Event, Target};
use crate::letters::Letter;
use crate::outbox::LaneId;
use crate::storage::page::{Entry, Page, Proven, Source};
use crate::storage::stream::store::{Bounds, SkippedOffsets, StoreError, Waiter};
use crate::telemetry;

/// A replay whose beginning is being looked for.
#[derive(Debug)]
pub(super) struct Beginning {
    pub(super) request: RequestId,
    narrowed: Narrowed,
}

impl Client {
    pub(super) fn replay(&mut self, wire: &mut BrokerSession, replay: Replay) -> Result<(), Refusal> {
        let Replay { request, subscription: id, credit_bytes: _, from, until, stream: name, filter } = replay;
        let asked = (request, id);
        let place = match self.place_for_subscription("replay") {
            Ok(place) => place,
            Err(refusal) => {
                self.refuse_subscription(wire, asked, refusal);
                return Ok(());
            }
        };
        let governing = name.governing().clone();
        let now_ms = self.bus.clock.now_ms();
        let permit = match self.decisions.on_stream(StreamVerb::Replay, &governing, filter.as_ref(), now_ms) {
            Ok(permit) => permit,
            Err(denial) => {
                let refusal = denied("replay", &name, &denial);
                let target = Target::Stream(name.to_string());
                let rule = denial.rule().clone();
                return self.refuse_denied_subscription(wire, asked, target, (Verb::Replay, rule), refusal);
            }
        };
        let Some((stream_id, source)) = self.source_of(&name) else {
            self.refuse_subscription(wire, asked, not_there(&name));
            return Ok(());
        };
        let bounds = source.bounds();
        let lane = self.new_lane(id);
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
            source: source.clone(),
            filter,
            until: match until {
                Until::Live => None,
                Until::End => Some(bounds.end),
            },
            next: bounds.first,
            page: VecDeque::new(),
            page_next: bounds.first,
            leaf_next: 0,
            turn: Turn::Disk,
            _place: place,
        };
        self.readings.insert(lane, reading);
        self.beginnings.insert(lane, Beginning { request, narrowed: permit.narrowed() });
        let at = match from {
            Start::Earliest => bounds.first,
            Start::Offset(offset) => offset,
            Start::Last(messages) => bounds.end.saturating_sub(messages).max(bounds.first),
            Start::End => bounds.end,
            Start::Time(time_ms) => {
                self.ask(lane, source, move |source| source.store().offset_at(time_ms), Letter::Begin);
                return Ok(());
            }
        };
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
        // The end that READY names is the one that is kept to, whatever was committed while the begin was looked up.
        reading.until = reading.until.map(|_| end);
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

    /// Delivers from one replay, as much as fits, and says what it waits for then. Returns whether anything was framed.
    fn step_replay(&mut self, wire: &mut BrokerSession, lane: LaneId) -> bool {
        let mut framed = false;
        loop {
            let Some(reading) = self.readings.get_mut(lane) else { return framed };
            if !wire.has_credit(reading.id) {
                self.readings.park(lane);
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
            match reading.next_entry() {
                Some(Entry::Batch(proven)) => {
                    // Whole, also when it begins before the place: whoever asked for an offset passes over the others.
                    reading.next = proven.stored.next_offset();
                    framed |= self.deliver_read(wire, lane, &proven);
                }
                Some(Entry::Skipped(SkippedOffsets { from, to, why })) => {
                    reading.next = to;
                    wire.skipped(&Skipped { subscription: reading.id, why: skipped_why(why), from, to });
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
    fn turn_page(&mut self, lane: LaneId) -> bool {
        let Some(reading) = self.readings.get_mut(lane) else { return false };
        match reading.look(|| Arc::clone(&self.handle) as Arc<dyn Waiter>) {
            Look::Page(page) => {
                reading.take_page(page);
                true
            }
            Look::AtEnd(guard) => {
                reading.turn = Turn::Tail { _guard: guard };
                false
            }
            Look::OnDisk => {
                reading.turn = Turn::Disk;
                let (source, from) = (reading.source.clone(), reading.page_next);
                self.ask(lane, source, move |source| source.read(from), Letter::Page);
                false
            }
        }
    }

    /// A page has been read. When it could not be, the session is over: an end of the subscription alone would look
    /// like the end of the stream.
    pub(super) fn handle_page(&mut self, lane: LaneId, page: Result<Page, String>) -> Result<(), Refusal> {
        let Some(reading) = self.readings.get_mut(lane) else { return Ok(()) };
        match page {
            Ok(page) => {
                reading.take_page(page);
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

    /// Has something looked up for a reading, on a thread that may block. The answer comes as a letter.
    fn ask<T: Send + 'static>(
        &self,
        lane: LaneId,
        source: Source,
        look: impl FnOnce(&Source) -> Result<T, StoreError> + Send + 'static,
        letter: impl FnOnce(LaneId, Result<T, String>) -> Letter + Send + 'static,
    ) {
        let handle = Arc::clone(&self.handle);
        tokio::task::spawn_blocking(move || {
            let found = look(&source).map_err(|error| error.to_string());
            handle.post(letter(lane, found));
        });
    }

    /// Delivers what a replay has read, if it is wanted and the reader may have it. Returns whether anything was framed.
    fn deliver_read(&mut self, wire: &mut BrokerSession, lane: LaneId, proven: &Proven) -> bool {
        let Some(Reading { id, stream, stream_id, filter, .. }) = self.readings.get_mut(lane) else {
            return false;
        };
        if filter.as_ref().is_some_and(|filter| !filter.matches(&proven.stored.topic)) {
            return false;
        }
        let to =
            Addressee { id: *id, stream: stream.clone(), stream_id: *stream_id, verb: StreamVerb::Replay };
        match self.deliver_stored(wire, &to, proven, None) {
            Delivered::Yes => true,
            Delivered::Denied => false,
            Delivered::Withheld => {
                let (from, to) = (proven.stored.offset, proven.stored.next_offset());
                self.skip_withheld(wire, lane, from..to)
            }
        }
    }

    /// Says that offsets do not come because their producer was revoked. Returns whether there was anything to say.
    fn skip_withheld(&mut self, wire: &mut BrokerSession, lane: LaneId, offsets: Range<u64>) -> bool {
        let Some(reading) = self.readings.get_mut(lane).filter(|_| !offsets.is_empty()) else { return false };
        let Range { start: from, end: to } = offsets;
        wire.skipped(&Skipped { subscription: reading.id, why: SkippedWhy::Withdrawn, from, to });
        true
    }

    /// Judges all readings by the policy that was just adopted. One that may not read its stream at all any more ends:
    /// the peer sees CLOSED where more would have come.
    pub(super) fn recheck_readings(&mut self, wire: &mut BrokerSession) {
        let now_ms = self.bus.clock.now_ms();
        let denied: Vec<(LaneId, SubscriptionId)> = self
            .readings
            .iter()
            .filter(|(_, Reading { stream, stream_id, filter, .. })| {
                !self.is_stream(stream, *stream_id)
                    || self.decisions.on_stream(StreamVerb::Replay, stream, filter.as_ref(), now_ms).is_err()
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
        if let Some(Beginning { request, .. }) = self.beginnings.remove(&lane) {
            self.forget_reading(lane);
            let reason = "the right to read the stream was withdrawn";
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
    fn forget_reading(&mut self, lane: LaneId) {
        self.beginnings.remove(&lane);
        if let Some(reading) = self.readings.remove(lane) {
            self.lanes.remove(&reading.id);
        }
    }

    /// Whether the adopted policy still gives this name to this stream: its rules are about whichever has the name.
    pub(super) fn is_stream(&self, name: &Name, id: StreamId) -> bool {
        self.decisions.policy().compiled.stream(name.as_str()).is_some_and(|stream| stream.id() == id)
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
}

/// What a reader is told who may read the stream, of which there is nothing.
fn not_there(name: &StreamName) -> Refusal {
    match name {
        StreamName::Plain(_) => Refusal::new(Code::Internal, format!("replay {name}: it is not open here")),
        StreamName::DeadLetters { .. } => {
            Refusal::new(Code::Limit, format!("replay {name}: nothing has been given up there"))
        }
    }
}
