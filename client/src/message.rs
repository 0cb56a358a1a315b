//! What a reader hands out: verified messages.

use std::fmt;
use std::ops::Range;
use std::str;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use sealbus_protocol::batch::{Headers, RecordSpan, VerifiedBatch};
use sealbus_protocol::frame::Settlement;
use sealbus_protocol::identity::Principal;
use sealbus_protocol::ids::{IncarnationId, Kid, StreamId};
use sealbus_protocol::stream_name::StreamName;
use sealbus_protocol::topic::Topic;
use serde::de::DeserializeOwned;

use crate::error::SettleError;
use crate::subscription::settle::Settler;

/// A message whose producer is proven. A slice of its batch: cloning copies no bytes.
#[derive(Clone)]
pub struct Message {
    delivery: Arc<Delivery>,
    place: RecordPlace,
}

/// What the messages of one delivered batch have in common.
#[derive(Debug)]
pub(crate) struct Delivery {
    pub(crate) batch: VerifiedBatch,
    pub(crate) topic: Topic,
    pub(crate) producer: Principal,
    pub(crate) generation: u64,
    /// The stream that is signed with the topic; zero when the topic is live only.
    pub(crate) stream_id: StreamId,
    /// Offset of its first message, as the broker says.
    pub(crate) offset: Option<u64>,
    /// Its leaf in the stream's log, as the broker says.
    pub(crate) leaf: Option<LeafPlace>,
    /// The stream that was read, when it was not a live subscription.
    pub(crate) stream: Option<StreamName>,
    /// Where verdicts go, when it came to a durable consumer.
    pub(crate) settler: Option<Arc<Settler>>,
    pub(crate) dating: Dating,
}

/// What the leaf of a stored batch says beside the batch itself, and where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LeafPlace {
    pub(crate) leaf_index: u64,
    pub(crate) append_ms: u64,
    pub(crate) policy_version: u64,
}

/// How it is known that a batch was signed while its certificate held.
#[derive(Debug)]
pub(crate) struct Dating {
    /// As it was when the batch was judged.
    pub(crate) judged: Dated,
    /// The last moment of the certificate that it was judged by.
    pub(crate) not_after_ms: u64,
    /// Set once it has been proven that the batch was in the log while the certificate held.
    pub(crate) witnessed: AtomicBool,
}

/// How it is known that a message was signed while its producer's certificate held.
///
/// Certificates of stored messages are judged at the time at which they were appended, and that time is what the broker
/// says. For a certificate that holds now, it does not matter whether that was true. For one that has ended since it does:
/// a broker that got hold of an old key could date what it signs back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dated {
    /// It came live, and its certificate held by this process's own clock.
    Live,
    /// It comes from a stream, and its certificate still held by this process's own clock when it was judged.
    Current,
    /// Its certificate had ended by then. That it was appended before is what the broker says, and nobody else.
    BrokerDated,
    /// As [`Dated::BrokerDated`] or [`Dated::Current`], and [`crate::Bus::prove`] has shown that the message is in a
    /// history of which this bus had seen a checkpoint, covering it, while the certificate held.
    Witnessed,
}

impl Dated {
    /// The word that output uses.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Current => "current",
            Self::BrokerDated => "broker-dated",
            Self::Witnessed => "witnessed",
        }
    }
}

/// Where a record's parts lie in its batch, and what the broker says of it alone.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct RecordPlace {
    pub(crate) index: u32,
    pub(crate) offset: Option<u64>,
    pub(crate) deliveries: u32,
    pub(crate) span: RecordSpan,
}

impl Message {
    pub(crate) const fn new(delivery: Arc<Delivery>, place: RecordPlace) -> Self {
        Self { delivery, place }
    }

    /// Makes it another message of the same batch.
    pub(crate) const fn move_to(&mut self, place: RecordPlace) {
        self.place = place;
    }

    pub(crate) fn delivery(&self) -> &Delivery {
        &self.delivery
    }

    /// The topic that its producer published it to.
    #[must_use]
    pub fn topic(&self) -> &Topic {
        &self.delivery.topic
    }

    /// Who published it: proven by signature and certificate, by this process's own roots.
    #[must_use]
    pub fn producer(&self) -> &Principal {
        &self.delivery.producer
    }

    /// The payload.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        self.slice(self.place.span.payload())
    }

    /// The payload, sharing the memory of its batch.
    #[must_use]
    pub fn payload_bytes(&self) -> Bytes {
        self.delivery.batch.batch().bytes().slice(self.place.span.payload())
    }

    /// The payload, read as JSON.
    ///
    /// # Errors
    /// [`serde_json::Error`] when it is not what `T` wants.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_slice(self.payload())
    }

    /// The key; empty when the producer gave none.
    #[must_use]
    pub fn key(&self) -> &[u8] {
        self.slice(self.place.span.key())
    }

    /// The headers, in order of their names.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.parsed_headers().iter()
    }

    /// The value of one header.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.parsed_headers().value(name)
    }

    /// Its sequence number, from 0 in its producer's incarnation and topic.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.delivery.batch.batch().preamble().first_seq.saturating_add(u64::from(self.place.index))
    }

    /// The producer's incarnation: one life of its process.
    #[must_use]
    pub fn incarnation_id(&self) -> IncarnationId {
        self.delivery.batch.batch().preamble().incarnation_id
    }

    /// The key that signed it.
    #[must_use]
    pub fn kid(&self) -> Kid {
        self.delivery.batch.batch().preamble().kid
    }

    /// When it was published by its producer's clock, milliseconds since 1970.
    #[must_use]
    pub fn published_ms(&self) -> u64 {
        self.delivery
            .batch
            .batch()
            .preamble()
            .created_ms
            .saturating_add_signed(i64::from(self.place.span.time_delta_ms))
    }

    /// Its offset in its stream, as the broker says; none when the topic is live only. Of dead letters, its offset
    /// among them.
    #[must_use]
    pub fn offset(&self) -> Option<u64> {
        self.place.offset
    }

    /// The stream that it was read from; none when it came to a live subscription.
    #[must_use]
    pub fn stream(&self) -> Option<&StreamName> {
        self.delivery.stream.as_ref()
    }

    /// The stream that its producer signed it for; none when its topic is live only.
    #[must_use]
    pub fn stream_id(&self) -> Option<StreamId> {
        Some(self.delivery.stream_id).filter(|stream_id| !stream_id.is_zero())
    }

    /// When it was appended to its stream by the broker's clock, milliseconds since 1970; none when it was not.
    #[must_use]
    pub fn appended_ms(&self) -> Option<u64> {
        self.delivery.leaf.map(|leaf| leaf.append_ms)
    }

    /// How often it has been delivered to its durable consumer, this time included, as the broker says; 1 elsewhere.
    #[must_use]
    pub fn deliveries(&self) -> u32 {
        self.place.deliveries
    }

    /// How it is known that it was signed while its producer's certificate held.
    #[must_use]
    pub fn dated(&self) -> Dated {
        let dating = &self.delivery.dating;
        if dating.witnessed.load(Ordering::Relaxed) { Dated::Witnessed } else { dating.judged }
    }

    /// Says that the message has been dealt with: it is not delivered again. Durable within a tenth of a second;
    /// [`Message::ack_sync`] waits for that.
    ///
    /// Returns once it is queued. Cancel-safe: dropped before that, nothing is acknowledged.
    ///
    /// # Errors
    /// [`SettleError`] when the message did not come to a durable consumer, or there was no room for the
    /// acknowledgement within the request deadline. The message is then delivered again.
    pub async fn ack(&self) -> Result<(), SettleError> {
        let (settler, offset) = self.settler()?;
        settler.settle(offset, Settlement::Ack).await
    }

    /// As [`Message::ack`], and returns once the broker has it on the disk: the message is not delivered again.
    ///
    /// Cancel-safe in this sense: dropped while it waits for the answer, the message is acknowledged all the same.
    ///
    /// # Errors
    /// [`SettleError`], also when the broker does not answer within the request deadline: then it may be durable or not.
    /// A message that came before a reconnect, or whose `ack_wait` is over, is not this member's any more unless it has
    /// come again: then the acknowledgement is refused ([`crate::Code::Conflict`]).
    pub async fn ack_sync(&self) -> Result<(), SettleError> {
        let (settler, offset) = self.settler()?;
        settler.settle_durably(offset, Settlement::Ack).await
    }

    /// Says that the message could not be dealt with: it is delivered again, to whichever member of the group, and not
    /// before the delay has passed. Delays are counted in whole milliseconds, up to 49 days.
    ///
    /// Returns once it is queued. Cancel-safe as [`Message::ack`].
    ///
    /// # Errors
    /// [`SettleError`] as of [`Message::ack`].
    pub async fn nack(&self, delay: Duration) -> Result<(), SettleError> {
        let (settler, offset) = self.settler()?;
        let delay_ms = u32::try_from(delay.as_millis()).unwrap_or(u32::MAX);
        settler.settle(offset, Settlement::Nack { delay_ms }).await
    }

    fn settler(&self) -> Result<(&Settler, u64), SettleError> {
        match (&self.delivery.settler, self.place.offset) {
            (Some(settler), Some(offset)) => Ok((settler, offset)),
            (Some(_) | None, _) => Err(SettleError::NotConsumed),
        }
    }

    /// The policy generation that was in force on the connection when it was delivered, as the broker says.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.delivery.generation
    }

    fn slice(&self, range: Range<usize>) -> &[u8] {
        self.delivery.batch.batch().bytes().get(range).expect("the ranges were measured in this very batch")
    }

    fn parsed_headers(&self) -> Headers<'_> {
        Headers::parse(self.slice(self.place.span.headers()))
            .expect("the headers were parsed when the batch was decoded")
    }
}

impl fmt::Debug for Message {
    /// Never the content.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("topic", self.topic())
            .field("producer", self.producer())
            .field("sequence", &self.sequence())
            .field("payload_bytes", &self.place.span.payload().len())
            .finish_non_exhaustive()
    }
}
