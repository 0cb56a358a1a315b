//! What is worth an audit line: a closed list, built by those who decide and act.
//!
//! Fields are domain types, so that nothing unchecked gets in; the few texts are escaped and cut by the encoder. There
//! is no field for payloads, keys, tokens or whole certificates, because none may be in the log (FAILURES T50).

use std::fmt;
use std::net::SocketAddr;

use sealbus_protocol::batch::HEAD_LEN;
use sealbus_protocol::identity::{Principal, SerialNumber};
use sealbus_protocol::ids::{BusId, Kid, PolicyHash, StreamId};
use sealbus_protocol::policy::{DenialRule, Narrowed, RuleId, Verb};
use sealbus_protocol::refusal::Code;
use sealbus_protocol::topic::{Topic, TopicFilter};

use super::stream::StreamChange;

/// A session's number in this broker's life, the same in log and audit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub u64);

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Who acts, on which connection, from where. Cloning copies no text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    /// The session.
    pub session: SessionId,
    /// Whose session it is.
    pub principal: Principal,
    /// Where it comes from.
    pub source: SocketAddr,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The broker starts; durable before it listens.
    BrokerStarted {
        /// The broker's version.
        version: &'static str,
        /// The bus that it serves.
        bus: BusId,
        /// How the life before ended.
        previous: PreviousRun,
    },
    /// The broker stops, of its own will: the last event of a clean life.
    BrokerStopped,
    /// A policy comes into force: the first of this life, or another one.
    PolicyReloaded {
        /// The generation that begins.
        generation: u64,
        /// What was in force; nothing at the start.
        before: Option<PolicyFacts>,
        /// What is in force now.
        after: PolicyFacts,
        /// Who wanted it.
        by: Initiator,
    },
    /// A policy was refused, and the one in force stays.
    PolicyRefused {
        /// Why.
        reason: String,
        /// Who wanted it.
        by: Initiator,
    },
    /// Certificates, roots and revocation lists were read again and are in force.
    TlsReloaded {
        /// Who wanted it.
        by: Initiator,
    },
    /// Certificates, roots or revocation lists were refused, and those in force stay.
    TlsRefused {
        /// Why.
        reason: String,
        /// Who wanted it.
        by: Initiator,
    },
    /// A connection ended before its peer was known.
    HandshakeFailed {
        /// Where it came from.
        source: SocketAddr,
        /// Where it arrived.
        listener: SocketAddr,
        /// One word, the same in every version; see [`crate::tls::HandshakeFailure::reason`].
        reason: &'static str,
        /// A sentence.
        detail: String,
    },
    /// TLS was established and the session refused.
    SessionRefused {
        /// Where it came from.
        source: SocketAddr,
        /// Whom the certificate names, when it names a principal.
        principal: Option<Principal>,
        /// What the peer was told.
        code: Code,
        /// A sentence.
        reason: String,
    },
    /// A session begins.
    SessionOpened {
        /// Who.
        actor: Actor,
        /// The certificate's serial number.
        serial: SerialNumber,
        /// The certificate's issuer, as text for people.
        issuer: String,
        /// The signing key that the session proved.
        kid: Kid,
        /// What the client says that it is.
        agent: String,
        /// The zone of the listener.
        zone: String,
    },
    /// A session ended as sessions do.
    SessionClosed {
        /// Who.
        actor: Actor,
        /// A sentence.
        reason: String,
        /// What went through it.
        traffic: SessionTraffic,
    },
    /// The broker ended a session.
    SessionCut {
        /// Who.
        actor: Actor,
        /// Why.
        why: CutReason,
    },
    /// A subscription begins.
    Subscribed {
        /// Who.
        actor: Actor,
        /// To what.
        filter: TopicFilter,
        /// Whether it gets less than it asked for.
        narrowed: Narrowed,
        /// The rules that allow it.
        rules: Vec<RuleId>,
    },
    /// A subscription ended.
    Unsubscribed {
        /// Who.
        actor: Actor,
        /// To what.
        filter: TopicFilter,
    },
    /// A session begins to read a stream's history.
    Replaying {
        /// Who.
        actor: Actor,
        /// The stream, or the dead letters of one of its consumers.
        stream: String,
        /// The offset that it begins at.
        from: u64,
        /// Whether it gets less than it asked for.
        narrowed: Narrowed,
        /// The rules that allow it.
        rules: Vec<RuleId>,
    },
    /// A session joins a durable consumer.
    Consuming {
        /// Who.
        actor: Actor,
        /// The stream.
        stream: String,
        /// The consumer.
        consumer: String,
        /// The rules that allow it.
        rules: Vec<RuleId>,
    },
    /// Something happened to a stream.
    Stream {
        /// Its name.
        name: String,
        /// Its id.
        id: StreamId,
        /// What happened.
        change: StreamChange,
    },
    /// The index was not what the logs say, and has been moved aside and made anew.
    IndexRebuilt {
        /// What was found.
        reason: String,
    },
    /// A session opened a topic to publish on it.
    Opened {
        /// Who.
        actor: Actor,
        /// The topic.
        topic: Topic,
        /// The rule that allows it.
        rule: RuleId,
    },
    /// The policy refused an act.
    Denied {
        /// Who.
        actor: Actor,
        /// What.
        verb: Verb,
        /// On what.
        target: Target,
        /// What spoke against it.
        rule: DenialRule,
    },
    /// A batch was refused, for another reason than the policy.
    BatchRefused {
        /// Who.
        actor: Actor,
        /// The topic.
        topic: Topic,
        /// What the peer was told.
        code: Code,
        /// A sentence.
        reason: String,
    },
    /// A producer signed two batches under one sequence number: evidence against it.
    Equivocation {
        /// Who.
        actor: Actor,
        /// The topic.
        topic: Topic,
        /// The sequence number.
        first_seq: u64,
        /// Preamble and signature of the accepted batch, when they are still known.
        accepted_head: Option<BatchHead>,
        /// Preamble and signature of the other one.
        refused_head: BatchHead,
    },
    /// An administrative act was done.
    AdminDone {
        /// Who.
        actor: Actor,
        /// What, as in `policy reload`.
        operation: &'static str,
    },
    /// The policy refused an administrative act.
    AdminDenied {
        /// Who.
        actor: Actor,
        /// What.
        operation: &'static str,
        /// What spoke against it.
        rule: DenialRule,
    },
    /// What a session published on a topic since the last of these.
    PublishSummary {
        /// Who.
        actor: Actor,
        /// The topic.
        topic: Topic,
        /// What was accepted and what was not.
        traffic: PublishTraffic,
    },
}

/// How the broker's life before this one ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PreviousRun {
    /// There was none: the log was empty.
    None,
    /// It stopped of its own will, and said so.
    Stopped,
    /// It did not say so. What happened after the last line is not in the log.
    Unclean {
        /// The index of the last line that was kept.
        last_seq: Option<u64>,
        /// Bytes of a half-written line that were cut.
        cut_bytes: u64,
    },
}

/// A policy, as a change of it is recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PolicyFacts {
    /// The version that the document states.
    pub version: u64,
    /// SHA-256 of the document.
    pub hash: PolicyHash,
    /// Rules, allows and denies together.
    pub rules: usize,
}

/// Who wanted a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Initiator {
    /// A session with the verb `admin`.
    Session(Actor),
    /// Whoever may signal the process, or started it.
    Process,
}

/// What went through a session.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SessionTraffic {
    /// Messages accepted from it.
    pub published: u64,
    /// Messages written to it.
    pub delivered: u64,
}

/// What a session published on one topic.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PublishTraffic {
    /// Messages accepted.
    pub messages: u64,
    /// Bytes of the batches that they came in.
    pub bytes: u64,
    /// Batches refused.
    pub refused: u64,
}

/// Why the broker ended a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CutReason {
    /// The policy in force revokes the principal, by this entry.
    PrincipalRevoked(RuleId),
    /// The certificate is no longer accepted, as this sentence says: revoked, or of roots that were taken away.
    CertificateRefused(String),
    /// The certificate ended.
    CertificateExpired,
    /// The GENERATION marker could not be placed in time.
    MarkerTimeout,
    /// A newer incarnation of the same instance took over.
    Fenced,
    /// The same incarnation connected anew.
    Superseded,
    /// The broker shut down before the session had finished.
    Drained,
    /// Another stream than before captures a topic that it publishes on: it has to open the topic anew.
    StreamsChanged,
    /// The audit log could not take what the session did.
    AuditUnavailable,
}

impl CutReason {
    /// One word, the same in every version.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::PrincipalRevoked(_) => "principal-revoked",
            Self::CertificateRefused(_) => "certificate-refused",
            Self::CertificateExpired => "certificate-expired",
            Self::MarkerTimeout => "marker-timeout",
            Self::Fenced => "fenced",
            Self::Superseded => "superseded",
            Self::Drained => "drained",
            Self::StreamsChanged => "streams-changed",
            Self::AuditUnavailable => "audit-unavailable",
        }
    }
}

impl fmt::Display for CutReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PrincipalRevoked(rule) => write!(f, "the principal is revoked by \"{rule}\""),
            Self::CertificateRefused(why) => write!(f, "the certificate is no longer accepted: {why}"),
            Self::CertificateExpired => f.write_str("the certificate has ended"),
            Self::MarkerTimeout => f.write_str("the policy change could not be told to the peer in time"),
            Self::Fenced => f.write_str("a newer incarnation of the same instance took over"),
            Self::Superseded => f.write_str("the same incarnation connected anew"),
            Self::Drained => f.write_str("the broker shut down before the session had finished"),
            Self::StreamsChanged => f.write_str("another stream than before captures a topic of the session"),
            Self::AuditUnavailable => f.write_str("the audit log could not take what the session did"),
        }
    }
}

/// What an act was on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// One topic.
    Topic(Topic),
    /// The topics that a filter matches.
    Filter(TopicFilter),
    /// A stream, or the dead letters of one of its consumers.
    Stream(String),
    /// The bus itself.
    Bus,
}

/// Preamble and signature of a batch, as it arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchHead(Box<[u8; HEAD_LEN]>);

impl BatchHead {
    /// The head of a batch.
    #[must_use]
    pub fn new(head: &[u8; HEAD_LEN]) -> Self {
        Self(Box::new(*head))
    }

    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &*self.0
    }
}

/// How soon an event must be on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Before what it records has an effect.
    S0,
    /// Within a second; if it cannot be queued, the connection that it concerns is refused.
    S1,
    /// A summary, of counts that were kept in memory so far.
    S2,
}

impl Event {
    /// How soon it must be on the disk.
    #[must_use]
    pub const fn class(&self) -> Class {
        match self {
            Self::BrokerStarted { .. }
            | Self::BrokerStopped
            | Self::PolicyReloaded { .. }
            | Self::PolicyRefused { .. }
            | Self::TlsReloaded { .. }
            | Self::TlsRefused { .. }
            | Self::AdminDone { .. } => Class::S0,
            Self::HandshakeFailed { .. }
            | Self::SessionRefused { .. }
            | Self::SessionOpened { .. }
            | Self::SessionClosed { .. }
            | Self::SessionCut { .. }
            | Self::Subscribed { .. }
            | Self::Unsubscribed { .. }
            | Self::Replaying { .. }
            | Self::Consuming { .. }
            | Self::Stream { .. }
            | Self::IndexRebuilt { .. }
            | Self::Opened { .. }
            | Self::Denied { .. }
            | Self::BatchRefused { .. }
            | Self::Equivocation { .. }
            | Self::AdminDenied { .. } => Class::S1,
            Self::PublishSummary { .. } => Class::S2,
        }
    }
}
