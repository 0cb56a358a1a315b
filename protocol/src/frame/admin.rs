//! ADMIN and RESULT: administration over the same port, session and checks as everything else.

use bytes::{Bytes, BytesMut};

use crate::identity::Principal;
use crate::ids::PolicyHash;
use crate::limits::{CONTROL_FRAME_BYTES_MAX, PRINCIPAL_BYTES_MAX, REASON_BYTES_MAX, TOPIC_BYTES_MAX};
use crate::topic::Topic;
use crate::wire::{DecodeError, Reader, Write};

use super::codec::{Frame, PayloadError, no_flags};
use super::header::FrameType;
use super::names::RequestId;

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
}

/// An administrative request.
///
/// ```text
///   0            4           8
///   +------------+-----------+------------------+
///   | request id | operation | its fields       |
///   +------------+-----------+------------------+
///   1 policy reload   -
///   2 can-i           u32 verb | u16 len, principal (empty: mine) | u16 len, topic (empty without one)
///   3 audit read      u64 from index | u32 lines at most
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
}

impl Frame for AdminRequest {
    const KIND: FrameType = FrameType::Admin;

    fn encode_payload(&self, out: &mut BytesMut) {
        out.u32(self.request.0);
        match &self.operation {
            Operation::PolicyReload => out.u32(1),
            Operation::CanI { principal, question } => {
                out.u32(2);
                let (verb, topic) = match question {
                    Question::Publish(topic) => (1, topic.as_str()),
                    Question::Subscribe(topic) => (2, topic.as_str()),
                    Question::Admin => (3, ""),
                    Question::Audit => (4, ""),
                };
                out.u32(verb);
                out.bytes16(principal.as_ref().map_or("", Principal::as_str).as_bytes());
                out.bytes16(topic.as_bytes());
            }
            Operation::AuditRead { from, lines_max } => {
                out.u32(3);
                out.u64(*from);
                out.u32(*lines_max);
            }
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
    let name = reader.text16("topic", TOPIC_BYTES_MAX)?;
    let topic = || Topic::parse(name).map_err(|_| PayloadError::Name("topic"));
    let question = match (verb, name) {
        (1, _) => Question::Publish(topic()?),
        (2, _) => Question::Subscribe(topic()?),
        (3, "") => Question::Admin,
        (4, "") => Question::Audit,
        _ => return Err(DecodeError::Value { field: "verb" }.into()),
    };
    Ok(Operation::CanI { principal, question })
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
            _ => return Err(DecodeError::Value { field: "operation" }.into()),
        };
        reader.finish()?;
        Ok(Self { request, outcome })
    }
}
