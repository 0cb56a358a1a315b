//! OPEN, OPENED, PUBLISH, ACK and REFUSED: how a batch gets in.

use bytes::{Bytes, BytesMut};

use crate::batch::accept::{Durability, Receipt, ResumePoint};
use crate::ids::{PreambleDigest, StreamId};
use crate::limits::{REASON_BYTES_MAX, TOPIC_BYTES_MAX};
use crate::refusal::{Action, Code, Refusal};
use crate::topic::Topic;
use crate::wire::{DecodeError, Reader, Write};

use super::codec::{Frame, PayloadError, decode_offset, encode_offset, no_flags, rest_of};
use super::header::FrameType;
use super::names::{Alias, RequestId};

/// Asks for an alias to publish to a topic.
///
/// ```text
///   0            4
///   +------------+----------------+
///   | request id | u16 len, topic |
///   +------------+----------------+
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Open {
    /// Names this request.
    pub request: RequestId,
    /// The topic.
    pub topic: Topic,
}

impl Frame for Open {
    const KIND: FrameType = FrameType::Open;

    fn encode_payload(&self, out: &mut BytesMut) {
        out.u32(self.request.0);
        out.bytes16(self.topic.as_str().as_bytes());
    }

    fn decode_payload(flags: u8, payload: &Bytes) -> Result<Self, PayloadError> {
        no_flags(flags)?;
        let mut reader = Reader::new(payload);
        let request = RequestId(reader.u32("request id")?);
        let topic = Topic::parse(reader.text16("topic", TOPIC_BYTES_MAX)?)
            .map_err(|_| PayloadError::Name("topic"))?;
        reader.finish()?;
        Ok(Self { request, topic })
    }
}

/// Grants an alias, and says where the producer's sequence goes on.
///
/// ```text
///   0            4       8                24      28         36
///   +------------+-------+----------------+-------+----------+------------------+
///   | request id | alias | stream_id (16) | known | next_seq | last digest (32) |
///   +------------+-------+----------------+-------+----------+------------------+
///                          zero: live only  u32     both zero unless known is 1
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// The request that this answers.
    pub request: RequestId,
    /// The alias to use in PUBLISH.
    pub alias: Alias,
    /// The stream that captures the topic; zero when it is live only.
    pub stream: StreamId,
    /// Where this incarnation goes on; none when the broker knows nothing of it.
    pub resume: Option<ResumePoint>,
}

impl Frame for Opened {
    const KIND: FrameType = FrameType::Opened;

    fn encode_payload(&self, out: &mut BytesMut) {
        out.u32(self.request.0);
        out.u32(self.alias.0);
        out.raw(self.stream.as_bytes());
        out.u32(u32::from(self.resume.is_some()));
        out.u64(self.resume.map_or(0, |resume| resume.next_seq));
        out.raw(self.resume.map_or(PreambleDigest::ZERO, |resume| resume.last).as_bytes());
    }

    fn decode_payload(flags: u8, payload: &Bytes) -> Result<Self, PayloadError> {
        no_flags(flags)?;
        let mut reader = Reader::new(payload);
        let request = RequestId(reader.u32("request id")?);
        let alias = Alias(reader.u32("alias")?);
        let stream = StreamId::new(reader.array("stream_id")?);
        let known = reader.u32("known")?;
        let point = ResumePoint {
            next_seq: reader.u64("next_seq")?,
            last: PreambleDigest::new(reader.array("last digest")?),
        };
        reader.finish()?;
        let blank = point.next_seq == 0 && point.last.is_zero();
        let resume = match known {
            0 if blank => None,
            1 if !blank => Some(point),
            _ => return Err(DecodeError::Value { field: "known" }.into()),
        };
        Ok(Self { request, alias, stream, resume })
    }
}

/// Carries a batch to the broker.
///
/// ```text
///   0            4       8
///   +------------+-------+-----------+
///   | request id | alias | batch ... |
///   +------------+-------+-----------+
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publish {
    /// Names this request.
    pub request: RequestId,
    /// The topic.
    pub alias: Alias,
    /// The batch.
    pub batch: Bytes,
}

impl Frame for Publish {
    const KIND: FrameType = FrameType::Publish;

    fn encode_payload(&self, out: &mut BytesMut) {
        out.u32(self.request.0);
        out.u32(self.alias.0);
    }

    fn batch(&self) -> Option<&Bytes> {
        Some(&self.batch)
    }

    fn decode_payload(flags: u8, payload: &Bytes) -> Result<Self, PayloadError> {
        no_flags(flags)?;
        let mut reader = Reader::new(payload);
        let request = RequestId(reader.u32("request id")?);
        let alias = Alias(reader.u32("alias")?);
        Ok(Self { request, alias, batch: rest_of(payload, &reader) })
    }
}

/// Whether an acknowledgement is the first for its batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// Accepted now.
    New,
    /// Accepted before; this answers a retry.
    Duplicate,
}

/// Says that a batch was accepted, and how durable it is.
///
/// ```text
///   0            4       5       6      8        16
///   +------------+-------+-------+------+--------+-----------+
///   | request id | level | fresh | zero | offset | broker_ms |
///   +------------+-------+-------+------+--------+-----------+
///                  1..4    0 new         0: none, otherwise offset + 1
///                          1 duplicate
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ack {
    /// The request that this answers.
    pub request: RequestId,
    /// How durable the batch is, and where it is.
    pub receipt: Receipt,
    /// Whether it was accepted now or before.
    pub freshness: Freshness,
    /// The broker's clock when it was accepted, milliseconds since 1970.
    pub broker_ms: u64,
}

impl Frame for Ack {
    const KIND: FrameType = FrameType::Ack;

    fn encode_payload(&self, out: &mut BytesMut) {
        out.u32(self.request.0);
        out.u8(self.receipt.durability as u8);
        out.u8(match self.freshness {
            Freshness::New => 0,
            Freshness::Duplicate => 1,
        });
        out.u16(0);
        out.u64(encode_offset(self.receipt.offset));
        out.u64(self.broker_ms);
    }

    fn decode_payload(flags: u8, payload: &Bytes) -> Result<Self, PayloadError> {
        no_flags(flags)?;
        let mut reader = Reader::new(payload);
        let request = RequestId(reader.u32("request id")?);
        let durability =
            Durability::from_wire(reader.u8("level")?).ok_or(DecodeError::Value { field: "level" })?;
        let freshness = match reader.u8("fresh")? {
            0 => Freshness::New,
            1 => Freshness::Duplicate,
            _ => return Err(DecodeError::Value { field: "fresh" }.into()),
        };
        reader.zeros("zero", 2)?;
        let offset = decode_offset(reader.u64("offset")?);
        let broker_ms = reader.u64("broker_ms")?;
        reader.finish()?;
        Ok(Self { request, receipt: Receipt { durability, offset }, freshness, broker_ms })
    }
}

/// Refuses a request; the connection goes on.
///
/// ```text
///   0            4      6        7      8
///   +------------+------+--------+------+-----------------+
///   | request id | code | action | zero | u16 len, reason |
///   +------------+------+--------+------+-----------------+
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The request that this answers.
    pub request: RequestId,
    /// What was found wrong.
    pub refusal: Refusal,
}

impl Frame for Refused {
    const KIND: FrameType = FrameType::Refused;

    fn encode_payload(&self, out: &mut BytesMut) {
        out.u32(self.request.0);
        encode_refusal(&self.refusal, out);
    }

    fn decode_payload(flags: u8, payload: &Bytes) -> Result<Self, PayloadError> {
        no_flags(flags)?;
        let mut reader = Reader::new(payload);
        let request = RequestId(reader.u32("request id")?);
        let refusal = decode_refusal(&mut reader)?;
        reader.finish()?;
        Ok(Self { request, refusal })
    }
}

/// Code, action, a zero byte and the reason; REFUSED and ERROR share it.
pub(super) fn encode_refusal(refusal: &Refusal, out: &mut BytesMut) {
    out.u16(refusal.code() as u16);
    out.u8(refusal.action() as u8);
    out.u8(0);
    out.bytes16(refusal.reason().as_bytes());
}

/// The action on the wire says the same as the code, for whoever reads a capture; it must be the code's own.
pub(super) fn decode_refusal(reader: &mut Reader<'_>) -> Result<Refusal, PayloadError> {
    let code = Code::from_wire(reader.u16("code")?).ok_or(DecodeError::Value { field: "code" })?;
    let action = Action::from_wire(reader.u8("action")?);
    if action != Some(code.action()) {
        return Err(DecodeError::Value { field: "action" }.into());
    }
    reader.zeros("zero", 1)?;
    Ok(Refusal::new(code, reader.text16("reason", REASON_BYTES_MAX)?))
}
