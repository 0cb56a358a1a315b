//! HELLO and WELCOME: who the client is, what both speak, and within which limits.

use bytes::{Bytes, BytesMut};

use crate::identity::Principal;
use crate::ids::{BusId, IncarnationId, InstanceId, Kid, PolicyHash};
use crate::keys::SIGNATURE_LEN;
use crate::limits::{BINDING_BYTES_MAX, PRINCIPAL_BYTES_MAX};
use crate::wire::{DecodeError, Reader, Write};

use super::codec::{Frame, PayloadError, no_flags};
use super::header::FrameType;

/// Bytes of the client's name and version.
pub const AGENT_BYTES_MAX: usize = 128;

/// Whether an instance id is random per process, or configured and therefore fences its predecessors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InstanceKind {
    /// Random: two of them never meet.
    Random,
    /// Configured: a newer incarnation ends the older.
    Configured,
}

/// The first frame of a connection.
///
/// ```text
///   0        16          17          18             20         28                32
///   +--------+-----------+-----------+--------------+----------+-----------------+
///   | bus_id | minor_min | minor_max | instance u16 | features | frame_bytes_max |
///   +--------+-----------+-----------+--------------+----------+-----------------+
///  32            48           56               72         104
///   +-------------+------------+----------------+----------+-------------------+-----------------+------------+
///   | instance_id | started_ms | incarnation_id | kid (32) | u16 len, binding  | u16 len, agent  | proof (64) |
///   +-------------+------------+----------------+----------+-------------------+-----------------+------------+
/// ```
///
/// The proof is an Ed25519 signature over `"sealbus/1 session\0" || exporter || bus_id || fields`, where fields is
/// everything between `bus_id` and the proof: it binds version, features and limits to this one TLS session too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// The bus that the client means.
    pub bus_id: BusId,
    /// Lowest minor version that the client speaks.
    pub minor_min: u8,
    /// Highest minor version that it speaks.
    pub minor_max: u8,
    /// Whether the instance id fences.
    pub instance_kind: InstanceKind,
    /// Feature bits; unknown ones are ignored by the broker and left out of WELCOME.
    pub features: u64,
    /// Bytes of the longest frame payload that the client takes.
    pub frame_bytes_max: u32,
    /// The process or replica.
    pub instance_id: InstanceId,
    /// Start of the incarnation, milliseconds since 1970.
    pub started_ms: u64,
    /// The incarnation.
    pub incarnation_id: IncarnationId,
    /// The signing key of this incarnation.
    pub kid: Kid,
    /// What binds that key to the certificate; empty when the broker is known to have it.
    pub binding: Bytes,
    /// The client's name and version, for logs.
    pub agent: String,
    /// The session proof.
    pub proof: [u8; SIGNATURE_LEN],
}

impl Hello {
    /// The bytes between `bus_id` and the proof, which the proof covers.
    #[must_use]
    pub fn fields(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(256 + self.binding.len());
        out.u8(self.minor_min);
        out.u8(self.minor_max);
        out.u16(match self.instance_kind {
            InstanceKind::Random => 0,
            InstanceKind::Configured => 1,
        });
        out.u64(self.features);
        out.u32(self.frame_bytes_max);
        out.raw(self.instance_id.as_bytes());
        out.u64(self.started_ms);
        out.raw(self.incarnation_id.as_bytes());
        out.raw(self.kid.as_bytes());
        out.bytes16(&self.binding);
        out.bytes16(self.agent.as_bytes());
        out.freeze()
    }
}

impl Frame for Hello {
    const KIND: FrameType = FrameType::Hello;

    fn encode_payload(&self, out: &mut BytesMut) {
        out.raw(self.bus_id.as_bytes());
        out.raw(&self.fields());
        out.raw(&self.proof);
    }

    fn decode_payload(flags: u8, payload: &Bytes) -> Result<Self, PayloadError> {
        no_flags(flags)?;
        let mut reader = Reader::new(payload);
        let hello = Self {
            bus_id: BusId::new(reader.array("bus_id")?),
            minor_min: reader.u8("minor_min")?,
            minor_max: reader.u8("minor_max")?,
            instance_kind: match reader.u16("instance kind")? {
                0 => InstanceKind::Random,
                1 => InstanceKind::Configured,
                _ => return Err(DecodeError::Value { field: "instance kind" }.into()),
            },
            features: reader.u64("features")?,
            frame_bytes_max: reader.u32("frame_bytes_max")?,
            instance_id: InstanceId::new(reader.array("instance_id")?),
            started_ms: reader.u64("started_ms")?,
            incarnation_id: IncarnationId::new(reader.array("incarnation_id")?),
            kid: Kid::new(reader.array("kid")?),
            binding: payload.slice_ref(reader.bytes16("binding", BINDING_BYTES_MAX)?),
            agent: reader.text16("agent", AGENT_BYTES_MAX)?.to_owned(),
            proof: reader.array("proof")?,
        };
        reader.finish()?;
        Ok(hello)
    }
}

/// Whether the broker remembers the incarnation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IncarnationState {
    /// Seen for the first time in this life of the broker.
    New,
    /// Resumed: OPENED says where each topic goes on.
    Resumed,
}

/// What the broker grants to a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the longest frame payload that the broker takes.
    pub frame_bytes_max: u32,
    /// Bytes of a batch.
    pub batch_bytes_max: u32,
    /// Bytes of one message's payload.
    pub payload_bytes_max: u32,
    /// Publish topics open at a time.
    pub topics_max: u32,
    /// Subscriptions open at a time.
    pub subscriptions_max: u32,
}

/// The broker's answer to HELLO.
///
/// ```text
///   0       1             2      4          12
///   +-------+-------------+------+----------+-----------------+-----------------+-------------------+
///   | minor | incarnation | zero | features | frame_bytes_max | batch_bytes_max | payload_bytes_max |
///   +-------+-------------+------+----------+-----------------+-----------------+-------------------+
///  24            28                  32           40           48           56               64
///   +------------+-------------------+------------+------------+------------+----------------+------------------+
///   | topics_max | subscriptions_max | session_id | broker_ms  | generation | policy_version | policy hash (32) |
///   +------------+-------------------+------------+------------+------------+----------------+------------------+
///  96
///   +--------------------+
///   | u16 len, principal |
///   +--------------------+
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Welcome {
    /// The minor version that both speak from here on.
    pub minor: u8,
    /// Whether the incarnation was known.
    pub incarnation: IncarnationState,
    /// Features that both have.
    pub features: u64,
    /// The limits of this connection.
    pub limits: Limits,
    /// Names the connection in the broker's logs and audit events.
    pub session_id: u64,
    /// The broker's clock, milliseconds since 1970.
    pub broker_ms: u64,
    /// Counts the policies that this broker process has put in force.
    pub generation: u64,
    /// Version of the policy in force.
    pub policy_version: u64,
    /// SHA-256 of its document.
    pub policy_hash: PolicyHash,
    /// Who the broker takes the client for.
    pub principal: Principal,
}

impl Frame for Welcome {
    const KIND: FrameType = FrameType::Welcome;

    fn encode_payload(&self, out: &mut BytesMut) {
        out.u8(self.minor);
        out.u8(match self.incarnation {
            IncarnationState::New => 0,
            IncarnationState::Resumed => 1,
        });
        out.u16(0);
        out.u64(self.features);
        out.u32(self.limits.frame_bytes_max);
        out.u32(self.limits.batch_bytes_max);
        out.u32(self.limits.payload_bytes_max);
        out.u32(self.limits.topics_max);
        out.u32(self.limits.subscriptions_max);
        out.u64(self.session_id);
        out.u64(self.broker_ms);
        out.u64(self.generation);
        out.u64(self.policy_version);
        out.raw(self.policy_hash.as_bytes());
        out.bytes16(self.principal.as_str().as_bytes());
    }

    fn decode_payload(flags: u8, payload: &Bytes) -> Result<Self, PayloadError> {
        no_flags(flags)?;
        let mut reader = Reader::new(payload);
        let minor = reader.u8("minor")?;
        let incarnation = match reader.u8("incarnation")? {
            0 => IncarnationState::New,
            1 => IncarnationState::Resumed,
            _ => return Err(DecodeError::Value { field: "incarnation" }.into()),
        };
        reader.zeros("zero", 2)?;
        let welcome = Self {
            minor,
            incarnation,
            features: reader.u64("features")?,
            limits: Limits {
                frame_bytes_max: reader.u32("frame_bytes_max")?,
                batch_bytes_max: reader.u32("batch_bytes_max")?,
                payload_bytes_max: reader.u32("payload_bytes_max")?,
                topics_max: reader.u32("topics_max")?,
                subscriptions_max: reader.u32("subscriptions_max")?,
            },
            session_id: reader.u64("session_id")?,
            broker_ms: reader.u64("broker_ms")?,
            generation: reader.u64("generation")?,
            policy_version: reader.u64("policy_version")?,
            policy_hash: PolicyHash::new(reader.array("policy hash")?),
            principal: Principal::parse(reader.text16("principal", PRINCIPAL_BYTES_MAX)?)
                .map_err(|_| PayloadError::Name("principal"))?,
        };
        reader.finish()?;
        Ok(welcome)
    }
}
