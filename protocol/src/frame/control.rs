//! CLOSE, CLOSED, GENERATION, BINDING_GET, BINDING, PING, PONG, DRAIN and ERROR.

use bytes::{Bytes, BytesMut};

use crate::ids::{Kid, PolicyHash};
use crate::limits::BINDING_BYTES_MAX;
use crate::refusal::Refusal;
use crate::wire::{DecodeError, Reader, Write};

use super::codec::{Frame, PayloadError, frame_error, no_flags};
use super::deframer::RawFrame;
use super::header::{FrameError, FrameHeader, FrameType};
use super::names::{Alias, RequestId, SubscriptionId};
use super::publish::{decode_refusal, encode_refusal};

/// What CLOSE and CLOSED speak of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// A publish alias.
    Alias(Alias),
    /// A subscription.
    Subscription(SubscriptionId),
}

impl What {
    fn encode(self, out: &mut BytesMut) {
        let (kind, id) = match self {
            Self::Alias(alias) => (0, alias.0),
            Self::Subscription(subscription) => (1, subscription.0),
        };
        out.u32(kind);
        out.u32(id);
    }

    fn decode(flags: u8, payload: &Bytes) -> Result<Self, PayloadError> {
        no_flags(flags)?;
        let mut reader = Reader::new(payload);
        let kind = reader.u32("what")?;
        let id = reader.u32("id")?;
        reader.finish()?;
        match kind {
            0 => Ok(Self::Alias(Alias(id))),
            1 => Ok(Self::Subscription(SubscriptionId(id))),
            _ => Err(DecodeError::Value { field: "what" }.into()),
        }
    }
}

/// Ends a publish alias or a subscription.
///
/// ```text
///   0                              4
///   +------------------------------+----+
///   | 0 alias, 1 subscription, u32 | id |
///   +------------------------------+----+
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Close(pub What);

impl Frame for Close {
    const KIND: FrameType = FrameType::Close;

    fn encode_payload(&self, out: &mut BytesMut) {
        self.0.encode(out);
    }

    fn decode_payload(flags: u8, payload: &Bytes) -> Result<Self, PayloadError> {
        What::decode(flags, payload).map(Self)
    }
}

/// Nothing more follows on it: the id may be used again. Same bytes as [`Close`], which it answers; a broker also sends
/// it unasked, when a replay has come to its end or the right to a subscription is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Closed(pub What);

impl Frame for Closed {
    const KIND: FrameType = FrameType::Closed;

    fn encode_payload(&self, out: &mut BytesMut) {
        self.0.encode(out);
    }

    fn decode_payload(flags: u8, payload: &Bytes) -> Result<Self, PayloadError> {
        What::decode(flags, payload).map(Self)
    }
}

/// Marks the place in the stream from which on a new policy holds.
///
/// ```text
///   0            8                16
///   +------------+----------------+------------------+
///   | generation | policy_version | policy hash (32) |
///   +------------+----------------+------------------+
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Generation {
    /// Counts the policies that this broker process has put in force.
    pub generation: u64,
    /// The policy's own version.
    pub policy_version: u64,
    /// SHA-256 of its document.
    pub policy_hash: PolicyHash,
}

impl Frame for Generation {
    const KIND: FrameType = FrameType::Generation;

    fn encode_payload(&self, out: &mut BytesMut) {
        out.u64(self.generation);
        out.u64(self.policy_version);
        out.raw(self.policy_hash.as_bytes());
    }

    fn decode_payload(flags: u8, payload: &Bytes) -> Result<Self, PayloadError> {
        no_flags(flags)?;
        let mut reader = Reader::new(payload);
        let generation = Self {
            generation: reader.u64("generation")?,
            policy_version: reader.u64("policy_version")?,
            policy_hash: PolicyHash::new(reader.array("policy hash")?),
        };
        reader.finish()?;
        Ok(generation)
    }
}

/// Asks what binds a key to a certificate.
///
/// ```text
///   0            4
///   +------------+----------+
///   | request id | kid (32) |
///   +------------+----------+
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BindingGet {
    /// Names this request.
    pub request: RequestId,
    /// The key.
    pub kid: Kid,
}

impl Frame for BindingGet {
    const KIND: FrameType = FrameType::BindingGet;

    fn encode_payload(&self, out: &mut BytesMut) {
        out.u32(self.request.0);
        out.raw(self.kid.as_bytes());
    }

    fn decode_payload(flags: u8, payload: &Bytes) -> Result<Self, PayloadError> {
        no_flags(flags)?;
        let mut reader = Reader::new(payload);
        let get = Self { request: RequestId(reader.u32("request id")?), kid: Kid::new(reader.array("kid")?) };
        reader.finish()?;
        Ok(get)
    }
}

/// A key binding, asked for or sent ahead of a key's first delivery.
///
/// ```text
///   0                 4
///   +-----------------+------------------+
///   | request id or 0 | u16 len, binding |
///   +-----------------+------------------+
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BindingReply {
    /// The request that this answers; none when it was not asked for.
    pub request: Option<RequestId>,
    /// The binding's bytes. The client verifies them against its own roots.
    pub binding: Bytes,
}

impl Frame for BindingReply {
    const KIND: FrameType = FrameType::Binding;

    fn encode_payload(&self, out: &mut BytesMut) {
        out.u32(self.request.map_or(0, |request| request.0));
        out.bytes16(&self.binding);
    }

    fn decode_payload(flags: u8, payload: &Bytes) -> Result<Self, PayloadError> {
        no_flags(flags)?;
        let mut reader = Reader::new(payload);
        let request = reader.u32("request id")?;
        let binding = payload.slice_ref(reader.bytes16("binding", BINDING_BYTES_MAX)?);
        reader.finish()?;
        Ok(Self { request: (request != 0).then_some(RequestId(request)), binding })
    }
}

/// PING and PONG: eight bytes that come back as they went.
///
/// ```text
///   0
///   +-------------+
///   | nonce (u64) |
///   +-------------+
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nonce(pub u64);

impl Nonce {
    /// PING with these bytes.
    pub fn encode_ping(self, out: &mut BytesMut) {
        out.raw(&FrameHeader { kind: FrameType::Ping, flags: 0, payload_len: 8 }.encode());
        out.u64(self.0);
    }

    /// PONG with these bytes.
    pub fn encode_pong(self, out: &mut BytesMut) {
        out.raw(&FrameHeader { kind: FrameType::Pong, flags: 0, payload_len: 8 }.encode());
        out.u64(self.0);
    }

    pub(super) fn decode_as(raw: &RawFrame) -> Result<Self, FrameError> {
        let decode = || {
            no_flags(raw.header.flags)?;
            let mut reader = Reader::new(&raw.payload);
            let nonce = reader.u64("nonce")?;
            reader.finish()?;
            Ok(Self(nonce))
        };
        decode().map_err(|error| frame_error(raw.header.kind, raw.header.flags, error))
    }
}

/// The broker is shutting down: no new requests are taken, what was taken is finished.
///
/// ```text
///   0
///   +-------------------+
///   | deadline_ms (u32) |   until the connection is closed
///   +-------------------+
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drain {
    /// Milliseconds until the connection is closed.
    pub deadline_ms: u32,
}

impl Frame for Drain {
    const KIND: FrameType = FrameType::Drain;

    fn encode_payload(&self, out: &mut BytesMut) {
        out.u32(self.deadline_ms);
    }

    fn decode_payload(flags: u8, payload: &Bytes) -> Result<Self, PayloadError> {
        no_flags(flags)?;
        let mut reader = Reader::new(payload);
        let deadline_ms = reader.u32("deadline_ms")?;
        reader.finish()?;
        Ok(Self { deadline_ms })
    }
}

/// The last frame of a connection: why it ends.
///
/// ```text
///   0      2        3      4
///   +------+--------+------+-----------------+
///   | code | action | zero | u16 len, reason |
///   +------+--------+------+-----------------+
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorFrame(pub Refusal);

impl Frame for ErrorFrame {
    const KIND: FrameType = FrameType::Error;

    fn encode_payload(&self, out: &mut BytesMut) {
        encode_refusal(&self.0, out);
    }

    fn decode_payload(flags: u8, payload: &Bytes) -> Result<Self, PayloadError> {
        no_flags(flags)?;
        let mut reader = Reader::new(payload);
        let refusal = decode_refusal(&mut reader)?;
        reader.finish()?;
        Ok(Self(refusal))
    }
}
