//! What looks like an oversight in a policy that is otherwise good.

use std::fmt;

use super::name::Name;
use super::rule::{Effect, Policy};
use super::stream::Stream;
use super::verb::Verb;

/// Something that is no fault, and that the policy's writer may not have meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Advice {
    /// No rule allows anybody to replay or consume this stream.
    NobodyReads {
        /// The stream.
        stream: Name,
        /// The line of the document where it begins, from 1.
        line: usize,
    },
    /// No rule allows anybody to publish on a topic that this stream captures.
    NobodyWrites {
        /// The stream.
        stream: Name,
        /// The line of the document where it begins, from 1.
        line: usize,
    },
}

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NobodyReads { stream, line } => {
                write!(f, "line {line}: no rule allows anybody to replay or consume the stream \"{stream}\"")
            }
            Self::NobodyWrites { stream, line } => {
                write!(
                    f,
                    "line {line}: no rule allows anybody to publish on topics of the stream \"{stream}\""
                )
            }
        }
    }
}

impl Policy {
    /// What looks like an oversight, in the order of the document's streams.
    #[must_use]
    pub fn advice(&self) -> Vec<Advice> {
        let mut advice = Vec::new();
        for stream in &self.streams {
            if !self.allows_reading(stream) {
                advice.push(Advice::NobodyReads { stream: stream.name.clone(), line: stream.line });
            }
            if !self.allows_writing(stream) {
                advice.push(Advice::NobodyWrites { stream: stream.name.clone(), line: stream.line });
            }
        }
        advice
    }

    fn allows_reading(&self, stream: &Stream) -> bool {
        self.rules.iter().any(|rule| {
            rule.effect == Effect::Allow
                && rule.verbs.iter().any(|verb| matches!(verb, Verb::Replay | Verb::Consume))
                && rule.streams.contains(&stream.name)
        })
    }

    fn allows_writing(&self, stream: &Stream) -> bool {
        self.rules.iter().any(|rule| {
            rule.effect == Effect::Allow
                && rule.verbs.contains(&Verb::Publish)
                && rule.filters.iter().any(|one| stream.topics.iter().any(|other| one.overlaps(other)))
        })
    }
}
