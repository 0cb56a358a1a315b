//! ADMIN and RESULT: administration over the same port, session and checks as everything else.

use bytes::{Bytes, BytesMut};

use crate::identity::Principal;
use crate::ids::PolicyHash;
use crate::limits::{
    CONTROL_FRAME_BYTES_MAX, POLICY_NAME_BYTES_MAX, PRINCIPAL_BYTES_MAX, REASON_BYTES_MAX,
    STREAM_NAME_BYTES_MAX, TOPIC_BYTES_MAX,
};
use crate::policy::Name;
use crate::stream_name::StreamName;
use crate::topic::Topic;
use crate::wire::{DecodeError, Reader, Write};

use super::codec::{Frame, PayloadError, no_flags};
use super::consume::decode_name;
use super::header::FrameType;
use super::names::RequestId;
use super::replay::Start;
use super::report::{BrokerStats, ConsumerInfo, More, StreamInfo, decode_list, encode_list, page_of};

/// Bytes of audit lines in one RESULT; the frame's limit less its fixed fields.
pub const AUDIT_BYTES_MAX: usize = CONTROL_FRAME_BYTES_MAX - 64;

/// The acts that can be asked about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    /// May the principal publish to this topic?
    Publish(Topic),
    /// May it receive this topic?
    Subscribe(Topic),
    /// May it administer?
    Admin,
    /// May it read the audit log?
    Audit,
    /// May it read this stream's history, or part of it?
    Replay(Name),
    /// May it have a durable consumer on this stream, or part of it?
    Consume(Name),
    /// May it see what this stream and its consumers are?
    Describe(Name),
}

/// An administrative request.
///
/// ```text
///   0            4           8
///   +------------+-----------+------------------+
///   | request id | operation | its fields       |
///   +------------+-----------+------------------+
///   1 policy reload   -
///   2 can-i           u32 verb | u16 len, principal (empty: mine) | u16 len, topic or stream (empty without one)
///   3 audit read      u64 from index | u32 lines at most
///   4 streams         u16 len, stream (empty: all) | u16 len, after (empty: from the first)
///   5 consumers       u16 len, stream (empty: all) | u16 len, after: stream | u16 len, after: consumer
///   6 consumer reset  u16 len, stream | u16 len, consumer | from u8 | zero (7) | value u64      as in REPLAY
///   7 stats           -
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminRequest {
    /// Names this request.
    pub request: RequestId,
    /// What is asked.
    pub operation: Operation,
}

/// What an administrator asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// Read the policy file and the TLS files again. Needs the verb `admin`.
    PolicyReload,
    /// Decide without acting. Anybody may ask about itself; about others with the verb `admin`.
    CanI {
        /// Whom it is about; none for the session's own principal.
        principal: Option<Principal>,
        /// The act.
        question: Question,
    },
    /// Read lines of the audit log. Needs the verb `audit`.
    AuditRead {
        /// Index of the first line.
        from: u64,
        /// Lines at most; fewer come when they do not fit a frame.
        lines_max: u32,
    },
    /// List streams, in the order of their names. Needs the verb `describe` on each, or `admin`.
    Streams {
        /// Only this one.
        name: Option<StreamName>,
        /// Only those behind this one: more than fit one answer are asked for piece by piece.
        after: Option<StreamName>,
    },
    /// List durable consumers, in the order of their streams and names. Needs the verb `describe` on each stream, or
    /// `admin`.
    Consumers {
        /// Only those of this stream.
        stream: Option<Name>,
        /// Only those behind this one.
        after: Option<ConsumerKey>,
    },
    /// Let a durable consumer begin anew, at this place. Needs the verb `admin`.
    ConsumerReset {
        /// The consumer.
        consumer: ConsumerKey,
        /// Where it begins.
        from: Start,
    },
    /// Count what the broker does. Needs the verb `admin`.
    Stats,
}

/// A durable consumer: consumers of two streams may have one name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConsumerKey {
    /// The stream that it reads.
    pub stream: Name,
    /// What it is called.
    pub consumer: Name,
}

impl Frame for AdminRequest {
    const KIND: FrameType = FrameType::Admin;

    fn encode_payload(&self, out: &mut BytesMut) {
        out.u32(self.request.0);
        match &self.operation {
            Operation::PolicyReload => out.u32(1),
            Operation::CanI { principal, question } => {
                out.u32(2);
                let (verb, what) = match question {
                    Question::Publish(topic) => (1, topic.as_str()),
                    Question::Subscribe(topic) => (2, topic.as_str()),
                    Question::Admin => (3, ""),
                    Question::Audit => (4, ""),
                    Question::Replay(stream) => (5, stream.as_str()),
                    Question::Consume(stream) => (6, stream.as_str()),
                    Question::Describe(stream) => (7, stream.as_str()),
                };
                out.u32(verb);
                out.bytes16(principal.as_ref().map_or("", Principal::as_str).as_bytes());
                out.bytes16(what.as_bytes());
            }
            Operation::AuditRead { from, lines_max } => {
                out.u32(3);
                out.u64(*from);
                out.u32(*lines_max);
            }
            Operation::Streams { name, after } => {
                out.u32(4);
                for name in [name, after] {
                    out.bytes16(name.as_ref().map(StreamName::to_string).unwrap_or_default().as_bytes());
                }
            }
            Operation::Consumers { stream, after } => {
                out.u32(5);
                let after = after.as_ref();
                for name in [stream.as_ref(), after.map(|key| &key.stream), after.map(|key| &key.consumer)] {
                    out.bytes16(name.map_or("", Name::as_str).as_bytes());
                }
            }
            Operation::ConsumerReset { consumer, from } => {
                let (from, value) = from.wire();
                out.u32(6);
                out.bytes16(consumer.stream.as_str().as_bytes());
                out.bytes16(consumer.consumer.as_str().as_bytes());
                out.u8(from);
                out.raw(&[0; 7]);
                out.u64(value);
            }
            Operation::Stats => out.u32(7),
        }
    }

    fn decode_payload(flags: u8, payload: &Bytes) -> Result<Self, PayloadError> {
        no_flags(flags)?;
        let mut reader = Reader::new(payload);
        let request = RequestId(reader.u32("request id")?);
        let operation = match reader.u32("operation")? {
            1 => Operation::PolicyReload,
            2 => decode_can_i(&mut reader)?,
            3 => Operation::AuditRead { from: reader.u64("from")?, lines_max: reader.u32("lines")? },
            4 => Operation::Streams {
                name: decode_stream_or_none(&mut reader, "stream")?,
                after: decode_stream_or_none(&mut reader, "after")?,
            },
            5 => Operation::Consumers {
                stream: decode_name_or_none(&mut reader, "stream")?,
                after: decode_after(&mut reader)?,
            },
            6 => decode_reset(&mut reader)?,
            7 => Operation::Stats,
            _ => return Err(DecodeError::Value { field: "operation" }.into()),
        };
        reader.finish()?;
        Ok(Self { request, operation })
    }
}

fn decode_can_i(reader: &mut Reader<'_>) -> Result<Operation, PayloadError> {
    let verb = reader.u32("verb")?;
    let principal = match reader.text16("principal", PRINCIPAL_BYTES_MAX)? {
        "" => None,
        text => Some(Principal::parse(text).map_err(|_| PayloadError::Name("principal"))?),
    };
    let what = reader.text16("topic or stream", TOPIC_BYTES_MAX)?;
    let topic = || Topic::parse(what).map_err(|_| PayloadError::Name("topic"));
    let stream = || Name::parse(what).map_err(|_| PayloadError::Name("stream"));
    let question = match (verb, what) {
        (1, _) => Question::Publish(topic()?),
        (2, _) => Question::Subscribe(topic()?),
        (3, "") => Question::Admin,
        (4, "") => Question::Audit,
        (5, _) => Question::Replay(stream()?),
        (6, _) => Question::Consume(stream()?),
        (7, _) => Question::Describe(stream()?),
        _ => return Err(DecodeError::Value { field: "verb" }.into()),
    };
    Ok(Operation::CanI { principal, question })
}

fn decode_reset(reader: &mut Reader<'_>) -> Result<Operation, PayloadError> {
    let consumer =
        ConsumerKey { stream: decode_name(reader, "stream")?, consumer: decode_name(reader, "consumer")? };
    let from = reader.u8("from")?;
    reader.zeros("zero", 7)?;
    let from = Start::from_wire(from, reader.u64("value")?)?;
    Ok(Operation::ConsumerReset { consumer, from })
}

fn decode_after(reader: &mut Reader<'_>) -> Result<Option<ConsumerKey>, PayloadError> {
    match (decode_name_or_none(reader, "after")?, decode_name_or_none(reader, "after")?) {
        (None, None) => Ok(None),
        (Some(stream), Some(consumer)) => Ok(Some(ConsumerKey { stream, consumer })),
        (Some(_), None) | (None, Some(_)) => Err(DecodeError::Value { field: "after" }.into()),
    }
}

fn decode_stream_or_none(
    reader: &mut Reader<'_>,
    field: &'static str,
) -> Result<Option<StreamName>, PayloadError> {
    match reader.text16(field, STREAM_NAME_BYTES_MAX)? {
        "" => Ok(None),
        text => StreamName::parse(text).map(Some).map_err(|_| PayloadError::Name(field)),
    }
}

fn decode_name_or_none(reader: &mut Reader<'_>, field: &'static str) -> Result<Option<Name>, PayloadError> {
    match reader.text16(field, POLICY_NAME_BYTES_MAX)? {
        "" => Ok(None),
        text => Name::parse(text).map(Some).map_err(|_| PayloadError::Name(field)),
    }
}

/// The answer to an [`AdminRequest`] that was not refused.
///
/// ```text
///   0            4           8
///   +------------+-----------+------------------+
///   | request id | operation | its fields       |
///   +------------+-----------+------------------+
///   1 policy reload   u64 generation | u64 version | hash (32) | u32 rules before | u32 rules after | u32 sessions cut
///   2 can-i           u32 0 denied, 1 permitted | u16 len, why
///   3 audit read      u64 index of the first line | u64 next index | u32 len, lines, each ended by \n
///   4 streams         u8 1: there are more | zero u8 | u16 n, n x StreamInfo
///   5 consumers       u8 1: there are more | zero u8 | u16 n, n x ConsumerInfo
///   6 consumer reset  u64 position
///   7 stats           BrokerStats
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminResult {
    /// The request that this answers.
    pub request: RequestId,
    /// What came of it.
    pub outcome: Outcome,
}

/// What came of an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The policy that is in force now, on every connection.
    PolicyReloaded {
        /// Its generation.
        generation: u64,
        /// Its version.
        version: u64,
        /// SHA-256 of its document.
        hash: PolicyHash,
        /// Rules of the policy before it.
        rules_before: u32,
        /// Rules of this one.
        rules_after: u32,
        /// Sessions that were closed because of it.
        sessions_cut: u32,
    },
    /// A decision, with the rule that made it.
    Decided {
        /// Permitted or denied.
        decision: Decision,
        /// The rule, in words.
        why: String,
    },
    /// Lines of the audit log.
    AuditLines {
        /// Index of the first line.
        from: u64,
        /// Index to ask for next; before `from` when the log ends there.
        next: u64,
        /// The lines, each ended by a line feed.
        lines: Bytes,
    },
    /// Streams, as many as fit; [`Outcome::streams`] sees to that.
    Streams {
        /// In the order of their names.
        streams: Vec<StreamInfo>,
        /// Whether there are more behind them.
        more: More,
    },
    /// Durable consumers, as many as fit; [`Outcome::consumers`] sees to that.
    Consumers {
        /// In the order of their streams and names.
        consumers: Vec<ConsumerInfo>,
        /// Whether there are more behind them.
        more: More,
    },
    /// A durable consumer begins anew.
    ConsumerReset {
        /// The offset at which it does.
        position: u64,
    },
    /// What the broker does.
    Stats(Box<BrokerStats>),
}

impl Outcome {
    /// Streams, in the order of their names: as many of them as one RESULT holds.
    pub fn streams(all: impl IntoIterator<Item = StreamInfo>) -> Self {
        let (streams, more) = page_of(all);
        Self::Streams { streams, more }
    }

    /// Durable consumers, in the order of their streams and names: as many of them as one RESULT holds.
    pub fn consumers(all: impl IntoIterator<Item = ConsumerInfo>) -> Self {
        let (consumers, more) = page_of(all);
        Self::Consumers { consumers, more }
    }
}

/// Permitted or denied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// It may.
    Permitted,
    /// It may not.
    Denied,
}

impl Frame for AdminResult {
    const KIND: FrameType = FrameType::AdminResult;

    fn encode_payload(&self, out: &mut BytesMut) {
        out.u32(self.request.0);
        match &self.outcome {
            Outcome::PolicyReloaded {
                generation,
                version,
                hash,
                rules_before,
                rules_after,
                sessions_cut,
            } => {
                out.u32(1);
                out.u64(*generation);
                out.u64(*version);
                out.raw(hash.as_bytes());
                out.u32(*rules_before);
                out.u32(*rules_after);
                out.u32(*sessions_cut);
            }
            Outcome::Decided { decision, why } => {
                out.u32(2);
                out.u32(match decision {
                    Decision::Denied => 0,
                    Decision::Permitted => 1,
                });
                out.bytes16(&why.as_bytes()[..why.floor_char_boundary(REASON_BYTES_MAX)]);
            }
            Outcome::AuditLines { from, next, lines } => {
                out.u32(3);
                out.u64(*from);
                out.u64(*next);
                out.bytes32(lines);
            }
            Outcome::Streams { streams, more } => {
                out.u32(4);
                encode_list(streams, *more, out);
            }
            Outcome::Consumers { consumers, more } => {
                out.u32(5);
                encode_list(consumers, *more, out);
            }
            Outcome::ConsumerReset { position } => {
                out.u32(6);
                out.u64(*position);
            }
            Outcome::Stats(stats) => {
                out.u32(7);
                stats.encode(out);
            }
        }
    }

    fn decode_payload(flags: u8, payload: &Bytes) -> Result<Self, PayloadError> {
        no_flags(flags)?;
        let mut reader = Reader::new(payload);
        let request = RequestId(reader.u32("request id")?);
        let outcome = match reader.u32("operation")? {
            1 => Outcome::PolicyReloaded {
                generation: reader.u64("generation")?,
                version: reader.u64("version")?,
                hash: PolicyHash::new(reader.array("hash")?),
                rules_before: reader.u32("rules before")?,
                rules_after: reader.u32("rules after")?,
                sessions_cut: reader.u32("sessions cut")?,
            },
            2 => Outcome::Decided {
                decision: match reader.u32("decision")? {
                    0 => Decision::Denied,
                    1 => Decision::Permitted,
                    _ => return Err(DecodeError::Value { field: "decision" }.into()),
                },
                why: reader.text16("why", REASON_BYTES_MAX)?.to_owned(),
            },
            3 => Outcome::AuditLines {
                from: reader.u64("from")?,
                next: reader.u64("next")?,
                lines: payload.slice_ref(reader.bytes32("lines", AUDIT_BYTES_MAX)?),
            },
            4 => {
                let (streams, more) = decode_list(&mut reader)?;
                Outcome::Streams { streams, more }
            }
            5 => {
                let (consumers, more) = decode_list(&mut reader)?;
                Outcome::Consumers { consumers, more }
            }
            6 => Outcome::ConsumerReset { position: reader.u64("position")? },
            7 => Outcome::Stats(Box::new(BrokerStats::decode(&mut reader)?)),
            _ => return Err(DecodeError::Value { field: "operation" }.into()),
        };
        reader.finish()?;
        Ok(Self { request, outcome })
    }
}
