//! How a consumer judges what is delivered: one order, each refusal with its own code. Nothing here believes the
//! broker.
//!
//! ```text
//!   FORMAT -> BINDING -> SEAL -> BINDING -> SIGNATURE -> REWRITE, REPLAY, TIME -> REPLAY, EQUIVOCATION, CHAIN
//!   (decode)  bus, topic,        key, by    hash, then   where it is stored:     the producer's own sequence,
//!             stream, filter     our roots  Ed25519      offsets, leaf's times   but not where work is shared out
//! ```
//!
//! A live batch is judged by this process's clock. A stored one is judged at the time at which it was appended, which
//! is what the broker says; [`Dated`] tells when that matters.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::task::{Context, Poll, ready};

use sealbus_protocol::batch::read::{Place, SequenceError, SequenceReader};
use sealbus_protocol::batch::{Batch, Seal, VerifiedBatch};
use sealbus_protocol::frame::RecordRange;
use sealbus_protocol::ids::{BusId, Kid};
use sealbus_protocol::session::Delivered;
use sealbus_protocol::topic::TopicFilter;

use crate::message::{Dated, Dating, Delivery, LeafPlace};
use crate::rejection::{Rejection, RejectionCode};

use super::bindings::{Keyring, KnownKey, Lookup, Moment};
use super::feed::{Feed, Unverified};
use super::history::{History, Hole, Standing};
use super::offsets::{Arrival, Order};

/// What a reader judges by.
pub(super) struct Judge {
    bus_id: BusId,
    keyring: Arc<Keyring>,
    sequences: SequenceReader,
    /// Set when a stream is read and has begun.
    pub(super) history: Option<History>,
}

/// A delivery that proves itself, and its place.
pub(super) enum Judged {
    /// It was handed out before.
    Again,
    Fresh(Fresh),
}

/// What is to be handed out.
pub(super) struct Fresh {
    pub(super) delivery: Arc<Delivery>,
    /// The records to hand out; none for all.
    pub(super) ranges: Option<Vec<RecordRange>>,
    /// Offsets that are missing before it, without an explanation.
    pub(super) hole: Option<Hole>,
    /// Sequence numbers of its producer that are missing before it.
    pub(super) missed: u64,
}

type Refused = (RejectionCode, String);

impl Judge {
    pub(super) fn new(bus_id: BusId, keyring: Arc<Keyring>) -> Self {
        Self { bus_id, keyring, sequences: SequenceReader::new(), history: None }
    }

    /// What comes from here on comes on a new connection. Of a stream, what comes again is known by its offset.
    pub(super) fn handle_reconnected(&mut self) {
        if self.history.is_none() {
            self.sequences.handle_reconnected();
        }
    }

    /// Judges a delivery. Pending while the broker is asked for a key binding; nothing has changed then.
    pub(super) fn poll_judge_at(
        &mut self,
        feed: &Feed,
        unverified: &Unverified,
        now_ms: u64,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Judged, Rejection>> {
        let delivered = &unverified.delivered;
        let refuse = |kid, (code, reason)| {
            Poll::Ready(Err(Rejection { code, topic: delivered.topic.clone(), reason, kid }))
        };
        let batch = match Batch::decode(delivered.batch.clone()) {
            Ok(batch) => batch,
            Err(error) => return refuse(None, (RejectionCode::Format, error.to_string())),
        };
        let kid = batch.preamble().kid;
        let leaf = match self.check_before_key(&batch, delivered, &feed.filter) {
            Ok(leaf) => leaf,
            Err(refused) => return refuse(Some(kid), refused),
        };
        let judged_ms = match (&self.history, leaf) {
            (Some(_), Some(leaf)) => leaf.append_ms,
            (Some(_) | None, _) => now_ms,
        };
        let known = match ready!(self.keyring.poll_lookup(kid, Moment { judged_ms, now_ms }, cx)) {
            Lookup::Known(known) => known,
            Lookup::Unbelieved(reason) => return refuse(Some(kid), (RejectionCode::Binding, reason)),
        };
        let batch = match batch.verify(&known.key) {
            Ok(batch) => batch,
            Err(error) => return refuse(Some(kid), (RejectionCode::Signature, error.to_string())),
        };
        let (hole, missed) = match self.place(&batch, leaf, unverified) {
            Ok(Placed::Again) => return Poll::Ready(Ok(Judged::Again)),
            Ok(Placed::Fresh { hole, missed }) => (hole, missed),
            Err(refused) => return refuse(Some(kid), refused),
        };
        let delivery = Arc::new(self.delivery(batch, known, leaf, feed, unverified, now_ms));
        Poll::Ready(Ok(Judged::Fresh(Fresh { delivery, ranges: delivered.ranges.clone(), hole, missed })))
    }

    /// Everything that needs no key. Gives the leaf of a stored batch.
    fn check_before_key(
        &self,
        batch: &Batch,
        delivered: &Delivered,
        filter: &TopicFilter,
    ) -> Result<Option<LeafPlace>, Refused> {
        let leaf = delivered.stored.map(|stored| LeafPlace {
            leaf_index: stored.leaf_index,
            append_ms: delivered.broker_ms,
            policy_version: stored.policy_version,
        });
        self.check_wholeness(delivered)?;
        check_ranges(batch, delivered.ranges.as_deref())?;
        if self.history.is_some() && (leaf.is_none() || delivered.offset.is_none()) {
            return Err((RejectionCode::Format, "it comes from a stream and has no place in it".into()));
        }
        self.check_purpose(batch, delivered, filter)?;
        Ok(leaf)
    }

    /// Some records of a batch are the work that a group shares out, or what it gave up. Whoever listens or reads
    /// history gets batches whole: a broker that hands out less of one withholds what nobody would miss.
    fn check_wholeness(&self, delivered: &Delivered) -> Result<(), Refused> {
        match (self.history.as_ref().map(History::order), &delivered.ranges) {
            (_, None) | (Some(Order::Shared | Order::DeadLetters), Some(_)) => Ok(()),
            (None | Some(Order::Log), Some(_)) => {
                Err((RejectionCode::Format, "only some of its records are to be handed out".into()))
            }
        }
    }

    /// Whether the batch was made for this bus and for the topic and stream that the broker names, and was asked for.
    fn check_purpose(
        &self,
        batch: &Batch,
        delivered: &Delivered,
        filter: &TopicFilter,
    ) -> Result<(), Refused> {
        let (preamble, stream_id) = (batch.preamble(), delivered.stream_id);
        if preamble.bus_id != self.bus_id {
            let reason = format!("it was made for bus {}, this is bus {}", preamble.bus_id, self.bus_id);
            return Err((RejectionCode::Binding, reason));
        }
        if let Some(expected) = self.history.as_ref().and_then(History::expected_stream_id)
            && stream_id != expected
        {
            let reason = format!("it was made for stream {stream_id}, stream {expected} is being read");
            return Err((RejectionCode::Binding, reason));
        }
        if preamble.topic != delivered.topic.digest(&stream_id) {
            return Err((RejectionCode::Binding, "it was made for another topic or stream".into()));
        }
        if !filter.matches(&delivered.topic) {
            let reason = format!("its topic is not among those that {filter} asks for");
            return Err((RejectionCode::Binding, reason));
        }
        if preamble.seal != Seal::None {
            let reason = "it is sealed; sealed streams are not in this version".into();
            return Err((RejectionCode::Seal, reason));
        }
        Ok(())
    }

    /// Finds the place of a verified batch in its stream and in its producer's sequence, and moves both past it.
    fn place(
        &mut self,
        batch: &VerifiedBatch,
        leaf: Option<LeafPlace>,
        unverified: &Unverified,
    ) -> Result<Placed, Refused> {
        let delivered = &unverified.delivered;
        let first_seq = batch.batch().preamble().first_seq;
        let in_sequence = |error: SequenceError| (code_of(error), error.to_string());
        let (Some(history), Some(leaf), Some(offset)) = (&mut self.history, leaf, delivered.offset) else {
            return Ok(match self.sequences.handle(batch).map_err(in_sequence)? {
                Place::Again => Placed::Again,
                Place::AfterGap { missed } => Placed::Fresh { hole: None, missed },
                Place::Next | Place::Joined => Placed::Fresh { hole: None, missed: 0 },
            });
        };
        let arrival = Arrival {
            offset,
            messages: history.offsets_of(messages_of(batch.batch()), delivered.ranges.as_deref()),
            digest: batch.batch().digest(),
            connection: unverified.connection,
        };
        let hole = match history.handle(arrival, leaf)? {
            Standing::Again => return Ok(Placed::Again),
            Standing::Fresh { hole } => hole,
        };
        let missed = match history.order() {
            Order::Log => {
                let place = self.sequences.handle(batch).map_err(in_sequence)?;
                history.missed(place, first_seq)
            }
            // A group shares the work, and dead letters are a choice of it: sequences have holes there.
            Order::DeadLetters | Order::Shared => 0,
        };
        Ok(Placed::Fresh { hole, missed })
    }

    fn delivery(
        &self,
        batch: VerifiedBatch,
        known: KnownKey,
        leaf: Option<LeafPlace>,
        feed: &Feed,
        unverified: &Unverified,
        now_ms: u64,
    ) -> Delivery {
        let delivered = &unverified.delivered;
        let judged = match &self.history {
            None => Dated::Live,
            Some(_) if known.validity.holds_at(now_ms) => Dated::Current,
            Some(_) => Dated::BrokerDated,
        };
        let not_after_ms = known.validity.not_after_ms;
        Delivery {
            batch,
            topic: delivered.topic.clone(),
            producer: known.principal,
            generation: unverified.generation,
            stream_id: delivered.stream_id,
            offset: delivered.offset,
            leaf,
            stream: self.history.as_ref().map(|history| history.stream().clone()),
            settler: feed.settler.clone(),
            dating: Dating { judged, not_after_ms, witnessed: AtomicBool::new(false) },
        }
    }
}

enum Placed {
    Again,
    Fresh { hole: Option<Hole>, missed: u64 },
}

/// Whether the records that are to be handed out are in the batch.
fn check_ranges(batch: &Batch, ranges: Option<&[RecordRange]>) -> Result<(), Refused> {
    let messages = messages_of(batch);
    let Some(last) = ranges.and_then(<[RecordRange]>::last) else { return Ok(()) };
    // The frame's parser has seen that they are in order.
    match last.first.checked_add(last.count.get()) {
        Some(end) if end <= messages => Ok(()),
        Some(_) | None => {
            let reason = format!(
                "{} records from {} on are to be handed out of a batch of {messages}",
                last.count, last.first
            );
            Err((RejectionCode::Format, reason))
        }
    }
}

fn messages_of(batch: &Batch) -> u32 {
    batch.preamble().content.messages()
}

const fn code_of(error: SequenceError) -> RejectionCode {
    match error {
        SequenceError::Replay { .. } => RejectionCode::Replay,
        SequenceError::Equivocation { .. } => RejectionCode::Equivocation,
        SequenceError::Chain { .. } => RejectionCode::Chain,
    }
}

/// The key that a rejection names, for logs.
pub(super) fn kid_text(kid: Option<Kid>) -> String {
    kid.map_or_else(|| "unreadable".into(), |kid| kid.to_string())
}
