//! What a policy's own tests expect of it.

use std::fmt;
use std::net::IpAddr;

use super::name::Name;
use crate::identity::Principal;
use crate::topic::{Topic, TopicFilter};

/// One `[[test]]`: what must be so for one principal, checked before the policy takes effect.
///
/// A test that names no source or zone speaks about all of them: `can` means from everywhere, `cannot` from nowhere.
#[derive(Debug, Clone)]
pub struct PolicyTest {
    pub(super) line: usize,
    pub(super) who: Principal,
    pub(super) expectations: Vec<Expectation>,
    pub(super) source: Option<IpAddr>,
    pub(super) zone: Option<Name>,
    pub(super) at_ms: Option<u64>,
}

impl PolicyTest {
    /// The line of the document where it begins, from 1.
    #[must_use]
    pub fn line(&self) -> usize {
        self.line
    }

    /// The principal that it is about.
    #[must_use]
    pub fn who(&self) -> &Principal {
        &self.who
    }

    /// What must be so, at least one thing.
    #[must_use]
    pub fn expectations(&self) -> &[Expectation] {
        &self.expectations
    }
}

/// One line of a test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expectation {
    /// Whether the act must be permitted.
    pub outcome: Outcome,
    /// The act.
    pub act: ExpectedAct,
}

/// What a test expects of a decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The act is permitted, and for a filter all of it.
    Can,
    /// The act is refused, and for a filter all of it.
    Cannot,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Can => "can",
            Self::Cannot => "cannot",
        })
    }
}

/// What a test tries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExpectedAct {
    /// To publish on a topic.
    Publish(Topic),
    /// To subscribe to a filter.
    Subscribe(TopicFilter),
    /// To replay a stream, whatever of it.
    Replay(Name),
    /// To join a durable consumer of a stream, whatever of it.
    Consume(Name),
    /// To see the settings and the state of a stream.
    Describe(Name),
    /// To administer.
    Admin,
    /// To read the audit log.
    Audit,
}

impl fmt::Display for ExpectedAct {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Publish(topic) => write!(f, "publish on {topic}"),
            Self::Subscribe(filter) => write!(f, "subscribe to {filter}"),
            Self::Replay(stream) => write!(f, "replay the stream {stream}"),
            Self::Consume(stream) => write!(f, "consume the stream {stream}"),
            Self::Describe(stream) => write!(f, "describe the stream {stream}"),
            Self::Admin => f.write_str("use the verb admin"),
            Self::Audit => f.write_str("use the verb audit"),
        }
    }
}
