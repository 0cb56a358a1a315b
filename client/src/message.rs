//! What a subscription hands out: verified messages, and the reasons why something was not one.

use std::fmt;
use std::ops::Range;
use std::str;
use std::sync::Arc;

use bytes::Bytes;
use sealbus_protocol::batch::{Headers, VerifiedBatch};
use sealbus_protocol::identity::Principal;
use sealbus_protocol::ids::{IncarnationId, Kid};
use sealbus_protocol::refusal::Code;
use sealbus_protocol::topic::Topic;
use serde::de::DeserializeOwned;

use crate::error::CloseReason;

/// A message whose producer is proven. A slice of its batch: cloning copies no bytes.
#[derive(Clone)]
pub struct Message {
    delivery: Arc<Delivery>,
    index: u32,
    time_delta_ms: i32,
    key: Range<usize>,
    headers: Range<usize>,
    payload: Range<usize>,
}

/// What the messages of one delivered batch have in common.
#[derive(Debug)]
pub(crate) struct Delivery {
    pub(crate) batch: VerifiedBatch,
    pub(crate) topic: Topic,
    pub(crate) producer: Principal,
    pub(crate) offset: Option<u64>,
    pub(crate) generation: u64,
}

/// Where a record's parts lie in its batch.
pub(crate) struct RecordPlace {
    pub(crate) index: u32,
    pub(crate) time_delta_ms: i32,
    pub(crate) key: Range<usize>,
    pub(crate) headers: Range<usize>,
    pub(crate) payload: Range<usize>,
}

impl Message {
    pub(crate) fn new(delivery: Arc<Delivery>, place: RecordPlace) -> Self {
        let RecordPlace { index, time_delta_ms, key, headers, payload } = place;
        Self { delivery, index, time_delta_ms, key, headers, payload }
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
        self.slice(&self.payload)
    }

    /// The payload, sharing the memory of its batch.
    #[must_use]
    pub fn payload_bytes(&self) -> Bytes {
        self.delivery.batch.batch().bytes().slice(self.payload.clone())
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
        self.slice(&self.key)
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
        self.delivery.batch.batch().preamble().first_seq.saturating_add(u64::from(self.index))
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
        self.delivery.batch.batch().preamble().created_ms.saturating_add_signed(i64::from(self.time_delta_ms))
    }

    /// Its offset in its stream, as the broker says; none when the topic is live only.
    #[must_use]
    pub fn offset(&self) -> Option<u64> {
        self.delivery.offset.map(|offset| offset.saturating_add(u64::from(self.index)))
    }

    /// The policy generation that was in force on the connection when it was delivered, as the broker says.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.delivery.generation
    }

    fn slice(&self, range: &Range<usize>) -> &[u8] {
        self.delivery
            .batch
            .batch()
            .bytes()
            .get(range.clone())
            .expect("the ranges were measured in this very batch")
    }

    fn parsed_headers(&self) -> Headers<'_> {
        Headers::parse(self.slice(&self.headers)).expect("the headers were parsed when the batch was decoded")
    }
}

impl fmt::Debug for Message {
    /// Never the content.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("topic", self.topic())
            .field("producer", self.producer())
            .field("sequence", &self.sequence())
            .field("payload_bytes", &self.payload.len())
            .finish_non_exhaustive()
    }
}

/// What a subscription yields in place of a message. The stream goes on after every one but [`DeliveryError::Closed`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeliveryError {
    /// This consumer was too slow, and the broker dropped messages here.
    Lagged {
        /// Exactly how many, as the broker says.
        missed: u64,
    },
    /// Sequence numbers of a producer are missing here that no lag explains. After a reconnect, this is what was
    /// published meanwhile.
    Gap {
        /// The topic.
        topic: Topic,
        /// The producer.
        producer: Principal,
        /// How many sequence numbers are missing.
        missed: u64,
    },
    /// A batch that does not prove itself. Nothing of it is handed out.
    Rejected(Rejection),
    /// The subscription has ended for good.
    Closed(CloseReason),
}

impl fmt::Display for DeliveryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lagged { missed } => {
                write!(f, "{missed} messages were dropped here because this consumer was slow")
            }
            Self::Gap { topic, producer, missed } => {
                write!(f, "{missed} messages of {producer} on {topic} are missing here")
            }
            Self::Rejected(rejection) => rejection.fmt(f),
            Self::Closed(reason) => write!(f, "the subscription has ended: {reason}"),
        }
    }
}

impl std::error::Error for DeliveryError {}

/// A batch that was delivered and not believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// What was found wrong.
    pub code: RejectionCode,
    /// The topic that the broker named.
    pub topic: Topic,
    /// The sentence for a person.
    pub reason: String,
    /// The key that the batch names, when it could be read.
    pub kid: Option<Kid>,
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: a batch on {} was refused: {}", self.code, self.topic, self.reason)
    }
}

impl std::error::Error for Rejection {}

/// What a consumer finds wrong with a batch, in the words that brokers use too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RejectionCode {
    /// The bytes are not a batch.
    Format,
    /// It was made for another bus, stream or topic, or nothing that we believe binds its key to a principal.
    Binding,
    /// Content hash or signature does not verify.
    Signature,
    /// It was delivered before.
    Replay,
    /// Its producer signed two batches for one place.
    Equivocation,
    /// It is not chained to the batch before it.
    Chain,
    /// It is sealed, and this version does not open sealed batches.
    Seal,
}

impl RejectionCode {
    /// The word that documentation, logs and output use.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Format => Code::Format.as_str(),
            Self::Binding => Code::Binding.as_str(),
            Self::Signature => Code::Signature.as_str(),
            // No broker says this to anybody: it is what a consumer says of a broker.
            Self::Replay => "REPLAY",
            Self::Equivocation => Code::Equivocation.as_str(),
            Self::Chain => Code::Chain.as_str(),
            Self::Seal => Code::Seal.as_str(),
        }
    }
}

impl fmt::Display for RejectionCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
