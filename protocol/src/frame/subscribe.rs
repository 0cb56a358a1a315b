//! SUBSCRIBE, READY and CREDIT: how a subscription begins, and how fast it may run.

use bytes::{Bytes, BytesMut};

use crate::ids::StreamId;
use crate::limits::TOPIC_BYTES_MAX;
use crate::policy::Narrowed;
use crate::topic::TopicFilter;
use crate::wire::{DecodeError, Reader, Write};

use super::codec::{Frame, PayloadError, no_flags};
use super::header::FrameType;
use super::names::{RequestId, SubscriptionId};

/// On the wire, "no offset": the subscription is not one of a stream.
const LIVE: u64 = u64::MAX;

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

/// Where a replay or a durable consumer begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamStart {
    /// The stream; never zero.
    pub stream_id: StreamId,
    /// Offset of the first message that follows; never the last u64.
    pub offset: u64,
    /// End of the stream at this moment: the offset that the next message will have; never the last u64.
    pub end: u64,
}

/// Says that a subscription is in effect: what is acknowledged to a producer after this is delivered.
///
/// ```text
///   0            4                 8          12           20               36       44
///   +------------+-----------------+----------+------------+----------------+--------+-----+
///   | request id | subscription id | narrowed | generation | stream_id (16) | offset | end |
///   +------------+-----------------+----------+------------+----------------+--------+-----+
///                                                live only: zero              all ones
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
    /// Where it begins; none when it answers SUBSCRIBE.
    pub start: Option<StreamStart>,
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
        let live = StreamStart { stream_id: StreamId::ZERO, offset: LIVE, end: LIVE };
        let start = self.start.unwrap_or(live);
        out.raw(start.stream_id.as_bytes());
        out.u64(start.offset);
        out.u64(start.end);
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
            start: decode_start(&mut reader)?,
        };
        reader.finish()?;
        Ok(ready)
    }
}

/// All three fields say live, or none of them.
fn decode_start(reader: &mut Reader<'_>) -> Result<Option<StreamStart>, DecodeError> {
    let start = StreamStart {
        stream_id: StreamId::new(reader.array("stream_id")?),
        offset: reader.u64("offset")?,
        end: reader.u64("end")?,
    };
    match (start.stream_id.is_zero(), start.offset == LIVE, start.end == LIVE) {
        (true, true, true) => Ok(None),
        (false, false, false) => Ok(Some(start)),
        _ => Err(DecodeError::Value { field: "stream_id" }),
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
