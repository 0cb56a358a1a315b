//! SUBSCRIBE, READY, DELIVER, CREDIT and LAGGED: how batches get out.

use bytes::{Bytes, BytesMut};

use crate::limits::TOPIC_BYTES_MAX;
use crate::policy::Narrowed;
use crate::topic::{Topic, TopicFilter};
use crate::wire::{DecodeError, Reader, Write};

use super::codec::{Frame, PayloadError, decode_offset, encode_offset, no_flags, rest_of};
use super::header::FrameType;
use super::names::{Alias, RequestId, SubscriptionId};

const FLAG_NAMES_TOPIC: u8 = 1;

/// Asks for live messages from now on.
///
/// ```text
///   0            4                 8              16
///   +------------+-----------------+--------------+-----------------+
///   | request id | subscription id | credit, bytes | u16 len, filter |
///   +------------+-----------------+--------------+-----------------+
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscribe {
    /// Names this request.
    pub request: RequestId,
    /// Names the subscription, from here to CLOSED.
    pub subscription: SubscriptionId,
    /// Bytes of batches that may be delivered before more credit comes.
    pub credit_bytes: u64,
    /// What is wanted.
    pub filter: TopicFilter,
}

impl Frame for Subscribe {
    const KIND: FrameType = FrameType::Subscribe;

    fn encode_payload(&self, out: &mut BytesMut) {
        out.u32(self.request.0);
        out.u32(self.subscription.0);
        out.u64(self.credit_bytes);
        out.bytes16(self.filter.as_str().as_bytes());
    }

    fn decode_payload(flags: u8, payload: &Bytes) -> Result<Self, PayloadError> {
        no_flags(flags)?;
        let mut reader = Reader::new(payload);
        let subscribe = Self {
            request: RequestId(reader.u32("request id")?),
            subscription: SubscriptionId(reader.u32("subscription id")?),
            credit_bytes: reader.u64("credit")?,
            filter: TopicFilter::parse(reader.text16("filter", TOPIC_BYTES_MAX)?)
                .map_err(|_| PayloadError::Name("filter"))?,
        };
        reader.finish()?;
        Ok(subscribe)
    }
}

/// Says that a subscription is in effect: what is acknowledged to a producer after this is delivered.
///
/// ```text
///   0            4                 8          12
///   +------------+-----------------+----------+------------+
///   | request id | subscription id | narrowed | generation |
///   +------------+-----------------+----------+------------+
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ready {
    /// The request that this answers.
    pub request: RequestId,
    /// The subscription.
    pub subscription: SubscriptionId,
    /// Whether the grant is smaller than the filter.
    pub narrowed: Narrowed,
    /// The policy generation that decided.
    pub generation: u64,
}

impl Frame for Ready {
    const KIND: FrameType = FrameType::Ready;

    fn encode_payload(&self, out: &mut BytesMut) {
        out.u32(self.request.0);
        out.u32(self.subscription.0);
        out.u32(match self.narrowed {
            Narrowed::No => 0,
            Narrowed::Yes => 1,
        });
        out.u64(self.generation);
    }

    fn decode_payload(flags: u8, payload: &Bytes) -> Result<Self, PayloadError> {
        no_flags(flags)?;
        let mut reader = Reader::new(payload);
        let ready = Self {
            request: RequestId(reader.u32("request id")?),
            subscription: SubscriptionId(reader.u32("subscription id")?),
            narrowed: match reader.u32("narrowed")? {
                0 => Narrowed::No,
                1 => Narrowed::Yes,
                _ => return Err(DecodeError::Value { field: "narrowed" }.into()),
            },
            generation: reader.u64("generation")?,
        };
        reader.finish()?;
        Ok(ready)
    }
}

/// Carries a batch to a subscriber.
///
/// ```text
///   0                 4       8        16
///   +-----------------+-------+--------+-----------+------------------+-----------+
///   | subscription id | alias | offset | broker_ms | u16 len, topic   | batch ... |
///   +-----------------+-------+--------+-----------+------------------+-----------+
///                               as ACK               only with flag 1
/// ```
///
/// Flag 1 gives the alias its topic, from this frame on; an alias may be given anew. The name is compared with the
/// digest that the producer signed, so a broker cannot pass a batch off as another topic's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deliver {
    /// The subscription that wanted it.
    pub subscription: SubscriptionId,
    /// Stands for the topic.
    pub alias: Alias,
    /// Offset of its first message in its stream; none when it is live only.
    pub offset: Option<u64>,
    /// The broker's clock when it was accepted, milliseconds since 1970.
    pub broker_ms: u64,
    /// The topic, when the alias is given with this frame.
    pub topic: Option<Topic>,
    /// The batch, as its producer sent it.
    pub batch: Bytes,
}

impl Frame for Deliver {
    const KIND: FrameType = FrameType::Deliver;

    fn flags(&self) -> u8 {
        if self.topic.is_some() { FLAG_NAMES_TOPIC } else { 0 }
    }

    fn encode_payload(&self, out: &mut BytesMut) {
        out.u32(self.subscription.0);
        out.u32(self.alias.0);
        out.u64(encode_offset(self.offset));
        out.u64(self.broker_ms);
        if let Some(topic) = &self.topic {
            out.bytes16(topic.as_str().as_bytes());
        }
    }

    fn batch(&self) -> Option<&Bytes> {
        Some(&self.batch)
    }

    fn decode_payload(flags: u8, payload: &Bytes) -> Result<Self, PayloadError> {
        if flags & !FLAG_NAMES_TOPIC != 0 {
            return Err(PayloadError::Flags);
        }
        let mut reader = Reader::new(payload);
        let subscription = SubscriptionId(reader.u32("subscription id")?);
        let alias = Alias(reader.u32("alias")?);
        let offset = decode_offset(reader.u64("offset")?);
        let broker_ms = reader.u64("broker_ms")?;
        let topic = if flags & FLAG_NAMES_TOPIC == 0 {
            None
        } else {
            let name = reader.text16("topic", TOPIC_BYTES_MAX)?;
            Some(Topic::parse(name).map_err(|_| PayloadError::Name("topic"))?)
        };
        Ok(Self { subscription, alias, offset, broker_ms, topic, batch: rest_of(payload, &reader) })
    }
}

/// Lets the broker deliver more.
///
/// ```text
///   0                 4
///   +-----------------+-------+
///   | subscription id | bytes |
///   +-----------------+-------+
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Credit {
    /// The subscription.
    pub subscription: SubscriptionId,
    /// Bytes of batches that may be delivered on top of what was granted before.
    pub bytes: u64,
}

impl Frame for Credit {
    const KIND: FrameType = FrameType::Credit;

    fn encode_payload(&self, out: &mut BytesMut) {
        out.u32(self.subscription.0);
        out.u64(self.bytes);
    }

    fn decode_payload(flags: u8, payload: &Bytes) -> Result<Self, PayloadError> {
        no_flags(flags)?;
        let mut reader = Reader::new(payload);
        let credit = Self {
            subscription: SubscriptionId(reader.u32("subscription id")?),
            bytes: reader.u64("bytes")?,
        };
        reader.finish()?;
        Ok(credit)
    }
}

/// Says exactly how many messages a subscriber lost because it was slow. Stands where they would have.
///
/// ```text
///   0                 4
///   +-----------------+--------+
///   | subscription id | missed |
///   +-----------------+--------+
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lagged {
    /// The subscription.
    pub subscription: SubscriptionId,
    /// Messages that were not delivered; at least 1.
    pub missed: u64,
}

impl Frame for Lagged {
    const KIND: FrameType = FrameType::Lagged;

    fn encode_payload(&self, out: &mut BytesMut) {
        out.u32(self.subscription.0);
        out.u64(self.missed);
    }

    fn decode_payload(flags: u8, payload: &Bytes) -> Result<Self, PayloadError> {
        no_flags(flags)?;
        let mut reader = Reader::new(payload);
        let subscription = SubscriptionId(reader.u32("subscription id")?);
        let missed = reader.u64("missed")?;
        reader.finish()?;
        if missed == 0 {
            return Err(DecodeError::Value { field: "missed" }.into());
        }
        Ok(Self { subscription, missed })
    }
}
