//! Why nothing is read, and why what was read is not settled.

use std::fmt;

use sealbus_protocol::frame::SettingsError;
use sealbus_protocol::policy::NameError;
use sealbus_protocol::refusal::{Code, Refusal};
use sealbus_protocol::stream_name::StreamNameError;
use sealbus_protocol::topic::TopicError;

use super::close::CloseReason;

/// Why a subscription, replay or durable consumer is not in effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SubscribeError {
    /// The text is not a topic filter.
    Filter(TopicError),
    /// The text is not the name of a stream.
    Stream(StreamNameError),
    /// The text is not the name of a stream or consumer.
    Name(NameError),
    /// A consumer's settings exceed their limits.
    Settings(SettingsError),
    /// The broker refused.
    Refused(Refusal),
    /// Too many of them are open.
    TooManySubscriptions {
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

impl SubscribeError {
    /// The broker's code, where it refused.
    #[must_use]
    pub const fn code(&self) -> Option<Code> {
        match self {
            Self::Refused(refusal) => Some(refusal.code()),
            Self::Closed(reason) => reason.code(),
            Self::Filter(_)
            | Self::Stream(_)
            | Self::Name(_)
            | Self::Settings(_)
            | Self::TooManySubscriptions { .. }
            | Self::Timeout { .. } => None,
        }
    }
}

impl fmt::Display for SubscribeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Filter(error) => write!(f, "cannot subscribe: {error}"),
            Self::Stream(error) => write!(f, "cannot read that stream: {error}"),
            Self::Name(error) => write!(f, "cannot join that consumer: {error}"),
            Self::Settings(error) => write!(f, "cannot create that consumer: {error}"),
            Self::Refused(refusal) => write!(f, "the broker refused the subscription: {refusal}"),
            Self::TooManySubscriptions { max } => write!(f, "cannot subscribe again: the limit is {max}"),
            Self::Timeout { after_ms } => write!(f, "the subscription was not ready within {after_ms} ms"),
            Self::Closed(reason) => write!(f, "the bus is closed: {reason}"),
        }
    }
}

impl std::error::Error for SubscribeError {}

/// Why a message is not known to have been acknowledged or given back. It is delivered again when it was not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SettleError {
    /// It did not come to a durable consumer, so there is nothing to acknowledge.
    NotConsumed,
    /// The broker refused.
    Refused(Refusal),
    /// There was no room for it, or no answer came in time. It may still be carried out.
    Timeout {
        /// The deadline.
        after_ms: u64,
    },
    /// The consumer that it came to is closed, or the bus.
    Closed(CloseReason),
}

impl SettleError {
    /// The broker's code, where it refused.
    #[must_use]
    pub const fn code(&self) -> Option<Code> {
        match self {
            Self::Refused(refusal) => Some(refusal.code()),
            Self::Closed(reason) => reason.code(),
            Self::NotConsumed | Self::Timeout { .. } => None,
        }
    }
}

impl fmt::Display for SettleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotConsumed => f.write_str("the message did not come to a durable consumer"),
            Self::Refused(refusal) => write!(f, "the broker refused the acknowledgement: {refusal}"),
            Self::Timeout { after_ms } => {
                write!(f, "the acknowledgement was not sent, or not answered, within {after_ms} ms")
            }
            Self::Closed(reason) => write!(f, "the consumer is closed: {reason}"),
        }
    }
}

impl std::error::Error for SettleError {}
