//! What a reader asks the broker for, on every connection anew.

use sealbus_protocol::frame::{ConsumerSettings, Start, Until};
use sealbus_protocol::policy::Name;
use sealbus_protocol::stream_name::StreamName;
use sealbus_protocol::topic::TopicFilter;

/// Live messages, a history, or a share of a durable consumer's work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Want {
    Live(TopicFilter),
    Replay(ReplayWant),
    Consume(ConsumeWant),
}

/// A stream from a place on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ReplayWant {
    pub(crate) stream: StreamName,
    pub(crate) filter: Option<TopicFilter>,
    pub(crate) from: Start,
    pub(crate) until: Until,
}

/// A durable consumer, to be created or joined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ConsumeWant {
    pub(crate) stream: Name,
    pub(crate) consumer: Name,
    pub(crate) filter: Option<TopicFilter>,
    pub(crate) from: Start,
    pub(crate) settings: ConsumerSettings,
}

impl Want {
    /// The filter; none for all that there is of a stream.
    pub(crate) const fn filter(&self) -> Option<&TopicFilter> {
        match self {
            Self::Live(filter) => Some(filter),
            Self::Replay(ReplayWant { filter, .. }) | Self::Consume(ConsumeWant { filter, .. }) => {
                filter.as_ref()
            }
        }
    }

    /// The stream; none for live messages, whatever captures them.
    pub(crate) fn stream(&self) -> Option<StreamName> {
        match self {
            Self::Live(_) => None,
            Self::Replay(want) => Some(want.stream.clone()),
            Self::Consume(want) => Some(want.stream.clone().into()),
        }
    }
}
