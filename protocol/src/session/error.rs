//! Why a session ends, and what the peer is told.

use std::fmt;

use crate::frame::{Alias, FrameError, FrameType, RequestId, SubscriptionId};
use crate::limits::{
    REQUESTS_OUTSTANDING_MAX, SILENCE_MS_MAX, SUBSCRIPTIONS_PER_CONNECTION_MAX, TOPICS_PER_CONNECTION_MAX,
};
use crate::refusal::{Code, Refusal};

/// Why a session cannot go on. The peer is told with ERROR, and the connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionError {
    /// The bytes are not a frame.
    Frame(FrameError),
    /// A frame that this state does not await.
    Unexpected {
        /// The frame.
        kind: FrameType,
        /// What is awaited, in words.
        awaited: &'static str,
    },
    /// An alias that is not open.
    UnknownAlias(Alias),
    /// A subscription that is not open.
    UnknownSubscription(SubscriptionId),
    /// A subscription id that is in use.
    SubscriptionInUse(SubscriptionId),
    /// SETTLE of a subscription that is not one of a durable consumer.
    NotAConsumer(SubscriptionId),
    /// An answer to a request that was not made, or of another kind; or a request with the id 0, which is none.
    UnknownRequest(RequestId),
    /// More publish topics than a connection may hold.
    TooManyTopics,
    /// More subscriptions than a connection may hold.
    TooManySubscriptions,
    /// More unanswered requests than a connection may have.
    TooManyRequests,
    /// Nothing was heard for too long.
    Silence {
        /// For how long, in milliseconds.
        ms: u64,
    },
}

impl SessionError {
    /// What the peer is told.
    #[must_use]
    pub fn refusal(&self) -> Refusal {
        let code = match self {
            Self::Frame(FrameError::TooLong { .. })
            | Self::TooManyTopics
            | Self::TooManySubscriptions
            | Self::TooManyRequests
            | Self::Silence { .. } => Code::Limit,
            Self::Frame(
                FrameError::UnknownType { .. }
                | FrameError::Reserved { .. }
                | FrameError::Flags { .. }
                | FrameError::Direction { .. }
                | FrameError::Payload { .. }
                | FrameError::Name { .. },
            ) => Code::Format,
            Self::Unexpected { .. }
            | Self::UnknownAlias(_)
            | Self::UnknownSubscription(_)
            | Self::SubscriptionInUse(_)
            | Self::NotAConsumer(_)
            | Self::UnknownRequest(_) => Code::Session,
        };
        Refusal::new(code, self.to_string())
    }
}

impl fmt::Display for SessionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Frame(error) => error.fmt(f),
            Self::Unexpected { kind, awaited } => write!(f, "{kind} came while {awaited} was awaited"),
            Self::UnknownAlias(alias) => write!(f, "alias {alias} is not open"),
            Self::UnknownSubscription(id) => write!(f, "subscription {id} is not open"),
            Self::SubscriptionInUse(id) => write!(f, "subscription {id} is in use"),
            Self::NotAConsumer(id) => write!(f, "subscription {id} is not one of a durable consumer"),
            Self::UnknownRequest(id) => write!(f, "request {id} does not exist"),
            Self::TooManyTopics => {
                write!(f, "more than {TOPICS_PER_CONNECTION_MAX} topics on one connection")
            }
            Self::TooManySubscriptions => {
                write!(f, "more than {SUBSCRIPTIONS_PER_CONNECTION_MAX} subscriptions on one connection")
            }
            Self::TooManyRequests => {
                write!(f, "more than {REQUESTS_OUTSTANDING_MAX} unanswered requests on one connection")
            }
            Self::Silence { ms } => {
                write!(f, "nothing was heard for {ms} ms (the limit is {SILENCE_MS_MAX})")
            }
        }
    }
}

impl std::error::Error for SessionError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Frame(error) => Some(error),
            Self::Unexpected { .. }
            | Self::UnknownAlias(_)
            | Self::UnknownSubscription(_)
            | Self::SubscriptionInUse(_)
            | Self::NotAConsumer(_)
            | Self::UnknownRequest(_)
            | Self::TooManyTopics
            | Self::TooManySubscriptions
            | Self::TooManyRequests
            | Self::Silence { .. } => None,
        }
    }
}

impl From<FrameError> for SessionError {
    fn from(error: FrameError) -> Self {
        Self::Frame(error)
    }
}
