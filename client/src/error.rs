//! What can go wrong, one small enum for each operation.
//!
//! Where the broker refused, `code()` gives the code of its refusal, so that programs can act on it. Errors of
//! publishing are `Clone`: one refused batch answers many callers.

use std::fmt;
use std::io;

use sealbus_protocol::batch::RecordError;
use sealbus_protocol::binding::BindingRequestError;
use sealbus_protocol::identity::Principal;
use sealbus_protocol::policy::NameError;
use sealbus_protocol::refusal::{Code, Refusal};
use sealbus_protocol::session::SessionError;
use sealbus_protocol::stream_name::StreamNameError;
use sealbus_protocol::topic::TopicError;

use crate::identity::IdentityError;
use crate::publisher::{MessageError, Receipt};

mod close;
mod reading;

pub use self::close::CloseReason;
pub use self::reading::{SettleError, SubscribeError};

/// Why no connection was made.
#[derive(Debug)]
pub enum ConnectError {
    /// The builder was not told something that it needs.
    Missing {
        /// What it needs.
        what: &'static str,
    },
    /// An option is outside its range.
    Option {
        /// The option.
        name: &'static str,
        /// What is allowed, in words.
        allowed: &'static str,
    },
    /// The server is not written as `host:port`.
    Server {
        /// What was given.
        server: String,
    },
    /// The certificate, its key or the TLS options cannot be used.
    Identity(IdentityError),
    /// The key binding cannot be made.
    Binding(BindingRequestError),
    /// The system gives no random bytes.
    Entropy(getrandom::Error),
    /// The network refused.
    Network {
        /// The server.
        server: String,
        /// What the system said.
        error: io::Error,
    },
    /// One side refused the other's certificate, or TLS failed otherwise.
    Tls {
        /// The server.
        server: String,
        /// What was found.
        error: io::Error,
    },
    /// The server speaks TLS but not this protocol.
    NotSealbus {
        /// The server.
        server: String,
    },
    /// The deadline passed.
    Timeout {
        /// The server.
        server: String,
        /// The deadline.
        after_ms: u64,
    },
    /// The broker refused the session.
    Refused(Refusal),
    /// The broker broke the protocol.
    Protocol(SessionError),
    /// The broker takes us for somebody else than our certificate says.
    Principal {
        /// Whom our certificate names.
        ours: Principal,
        /// Whom the broker named.
        found: Principal,
    },
}

impl ConnectError {
    /// The broker's code, where it refused.
    #[must_use]
    pub const fn code(&self) -> Option<Code> {
        match self {
            Self::Refused(refusal) => Some(refusal.code()),
            Self::Missing { .. }
            | Self::Option { .. }
            | Self::Server { .. }
            | Self::Identity(_)
            | Self::Binding(_)
            | Self::Entropy(_)
            | Self::Network { .. }
            | Self::Tls { .. }
            | Self::NotSealbus { .. }
            | Self::Timeout { .. }
            | Self::Protocol(_)
            | Self::Principal { .. } => None,
        }
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { what } => write!(f, "cannot connect: the builder was given no {what}"),
            Self::Option { name, allowed } => write!(f, "cannot connect: {name} must be {allowed}"),
            Self::Server { server } => write!(f, "cannot connect to {server:?}: host:port was expected"),
            Self::Identity(error) => write!(f, "cannot connect: {error}"),
            Self::Binding(error) => write!(f, "cannot bind the signing key to the certificate: {error}"),
            Self::Entropy(error) => write!(f, "the system gives no random bytes: {error}"),
            Self::Network { server, error } => write!(f, "cannot connect to {server}: {error}"),
            Self::Tls { server, error } => write!(f, "cannot connect to {server}: tls failed: {error}"),
            Self::NotSealbus { server } => {
                write!(f, "cannot connect to {server}: it speaks tls but not sealbus/1")
            }
            Self::Timeout { server, after_ms } => {
                write!(f, "cannot connect to {server}: no session within {after_ms} ms")
            }
            Self::Refused(refusal) => write!(f, "the broker refused the session: {refusal}"),
            Self::Protocol(error) => write!(f, "the broker broke the protocol: {error}"),
            Self::Principal { ours, found } => {
                write!(f, "the broker takes us for {found}, our certificate says {ours}")
            }
        }
    }
}

impl std::error::Error for ConnectError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Identity(error) => Some(error),
            Self::Binding(error) => Some(error),
            Self::Entropy(error) => Some(error),
            Self::Network { error, .. } | Self::Tls { error, .. } => Some(error),
            Self::Refused(refusal) => Some(refusal),
            Self::Protocol(error) => Some(error),
            Self::Missing { .. }
            | Self::Option { .. }
            | Self::Server { .. }
            | Self::NotSealbus { .. }
            | Self::Timeout { .. }
            | Self::Principal { .. } => None,
        }
    }
}

impl From<IdentityError> for ConnectError {
    fn from(error: IdentityError) -> Self {
        Self::Identity(error)
    }
}

/// Why a topic is not open for publishing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OpenError {
    /// The text is not a topic.
    Topic(TopicError),
    /// The broker refused.
    Refused(Refusal),
    /// Too many topics are open, or were used by this client since it started.
    TooManyTopics {
        /// The limit.
        max: usize,
    },
    /// No answer came in time.
    Timeout {
        /// The deadline.
        after_ms: u64,
    },
    /// The bus is closed.
    Closed(CloseReason),
}

impl OpenError {
    /// The broker's code, where it refused.
    #[must_use]
    pub const fn code(&self) -> Option<Code> {
        match self {
            Self::Refused(refusal) => Some(refusal.code()),
            Self::Closed(reason) => reason.code(),
            Self::Topic(_) | Self::TooManyTopics { .. } | Self::Timeout { .. } => None,
        }
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Topic(error) => write!(f, "cannot publish there: {error}"),
            Self::Refused(refusal) => write!(f, "the broker refused the topic: {refusal}"),
            Self::TooManyTopics { max } => write!(f, "cannot open another topic: the limit is {max}"),
            Self::Timeout { after_ms } => write!(f, "the topic was not opened within {after_ms} ms"),
            Self::Closed(reason) => write!(f, "the bus is closed: {reason}"),
        }
    }
}

impl std::error::Error for OpenError {}

/// Why a message is not known to have been accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PublishError {
    /// The message cannot be sent as it is.
    Message(MessageError),
    /// The broker refused it.
    Refused(Refusal),
    /// It could not be sent before its deadline. It was not accepted and will not be sent any more.
    NotSent {
        /// The deadline.
        after_ms: u64,
        /// Why the broker took nothing when it was last asked, where it said so.
        last: Option<Refusal>,
    },
    /// It was sent, and no answer came before its deadline. It may have been accepted, or may still be.
    Unanswered {
        /// The deadline.
        after_ms: u64,
    },
    /// The broker forgot this client's sequence before it answered. It may have been accepted.
    Lost,
    /// The bus is closed.
    Closed(CloseReason),
}

impl PublishError {
    /// The broker's code, where it refused.
    #[must_use]
    pub const fn code(&self) -> Option<Code> {
        match self {
            Self::Refused(refusal) | Self::NotSent { last: Some(refusal), .. } => Some(refusal.code()),
            Self::Closed(reason) => reason.code(),
            Self::Message(_) | Self::NotSent { last: None, .. } | Self::Unanswered { .. } | Self::Lost => {
                None
            }
        }
    }
}

impl fmt::Display for PublishError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Message(error) => write!(f, "{error}"),
            Self::Refused(refusal) => write!(f, "the broker refused the message: {refusal}"),
            Self::NotSent { after_ms, last: None } => {
                write!(f, "the message could not be sent within {after_ms} ms")
            }
            Self::NotSent { after_ms, last: Some(refusal) } => {
                write!(
                    f,
                    "the message could not be sent within {after_ms} ms; the broker last said: {refusal}"
                )
            }
            Self::Unanswered { after_ms } => {
                write!(f, "no answer within {after_ms} ms; whether the message was accepted is not known")
            }
            Self::Lost => f.write_str(
                "the broker forgot this client's sequence; whether the message was accepted is not known",
            ),
            Self::Closed(reason) => write!(f, "the bus is closed: {reason}"),
        }
    }
}

impl std::error::Error for PublishError {}

/// Why a message was not queued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EnqueueError {
    /// As many bytes as the publisher may hold wait for their acknowledgement.
    Full {
        /// The limit.
        pending_bytes_max: usize,
    },
    /// The message cannot be sent as it is.
    Message(MessageError),
    /// The bus is closed.
    Closed(CloseReason),
}

impl fmt::Display for EnqueueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full { pending_bytes_max } => {
                write!(
                    f,
                    "{pending_bytes_max} bytes wait for their acknowledgement; there is no room for more"
                )
            }
            Self::Message(error) => write!(f, "{error}"),
            Self::Closed(reason) => write!(f, "the bus is closed: {reason}"),
        }
    }
}

impl std::error::Error for EnqueueError {}

/// Why not all messages of [`crate::Publisher::publish_all`] are known to have been accepted.
#[derive(Debug)]
pub struct PublishAllError {
    /// Receipts of the messages before the first that failed.
    pub accepted: Vec<Receipt>,
    /// Which message failed first, from 0. Later ones may have been accepted or not.
    pub index: usize,
    /// Why.
    pub error: PublishError,
}

impl fmt::Display for PublishAllError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "message {} of the series: {}", self.index, self.error)
    }
}

impl std::error::Error for PublishAllError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

/// Why not all messages of [`crate::Publisher::enqueue_all`] were queued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnqueueAllError {
    /// How many were. They are sent, and the next flush tells what became of them.
    pub queued: usize,
    /// Why the next one was not.
    pub error: PublishError,
}

impl fmt::Display for EnqueueAllError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "message {} of the series: {}", self.queued, self.error)
    }
}

impl std::error::Error for EnqueueAllError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

/// Why a request has no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RequestError {
    /// The broker refused.
    Refused(Refusal),
    /// The connection broke after the request was sent. It may have been carried out.
    Disconnected,
    /// The broker answered another question.
    OtherAnswer,
    /// No answer came in time. The request may have been carried out.
    Timeout {
        /// The deadline.
        after_ms: u64,
    },
    /// Too many requests wait already.
    TooMany,
    /// The text is not the name of a stream.
    Stream(StreamNameError),
    /// The text is not the name of a stream or consumer.
    Name(NameError),
    /// The bus is closed.
    Closed(CloseReason),
}

impl RequestError {
    /// The broker's code, where it refused.
    #[must_use]
    pub const fn code(&self) -> Option<Code> {
        match self {
            Self::Refused(refusal) => Some(refusal.code()),
            Self::Closed(reason) => reason.code(),
            Self::Disconnected
            | Self::OtherAnswer
            | Self::Timeout { .. }
            | Self::TooMany
            | Self::Stream(_)
            | Self::Name(_) => None,
        }
    }
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(refusal) => write!(f, "the broker refused the request: {refusal}"),
            Self::Disconnected => f.write_str("the connection broke before the request was answered"),
            Self::OtherAnswer => f.write_str("the broker answered another question than was asked"),
            Self::Timeout { after_ms } => write!(f, "the request was not answered within {after_ms} ms"),
            Self::TooMany => f.write_str("too many requests wait for their answer"),
            Self::Stream(error) => write!(f, "cannot ask for that stream: {error}"),
            Self::Name(error) => write!(f, "cannot ask for that: {error}"),
            Self::Closed(reason) => write!(f, "the bus is closed: {reason}"),
        }
    }
}

impl std::error::Error for RequestError {}

/// Why a bus was not closed in good order. It is closed all the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CloseError {
    /// Some messages are not known to have been accepted: the first failure that nobody was told by a flush.
    Unflushed(PublishError),
    /// The bus had ended before.
    Ended(CloseReason),
}

impl fmt::Display for CloseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unflushed(error) => write!(f, "closed with messages that were not acknowledged: {error}"),
            Self::Ended(reason) => write!(f, "the bus had ended before: {reason}"),
        }
    }
}

impl std::error::Error for CloseError {}

impl From<RecordError> for MessageError {
    fn from(error: RecordError) -> Self {
        Self::Record(error)
    }
}
