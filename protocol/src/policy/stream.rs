//! Streams: which topics are kept, for how long, and how surely.

use std::fmt;

use super::name::Name;
use crate::ids::StreamId;
use crate::topic::{Topic, TopicFilter};

/// One `[[stream]]`: topics whose messages are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stream {
    pub(super) line: usize,
    pub(super) name: Name,
    pub(super) id: StreamId,
    pub(super) topics: Vec<TopicFilter>,
    pub(super) retention: Retention,
    pub(super) durability: Durability,
}

impl Stream {
    /// The line of the document where it begins, from 1.
    #[must_use]
    pub fn line(&self) -> usize {
        self.line
    }

    /// Its name, which no other stream of the policy has.
    #[must_use]
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// Its id, never all zero, which no other stream of the policy has. Signatures of one id mean nothing in another.
    #[must_use]
    pub fn id(&self) -> StreamId {
        self.id
    }

    /// What it captures, at least one filter. No other stream has one that overlaps.
    #[must_use]
    pub fn topics(&self) -> &[TopicFilter] {
        &self.topics
    }

    /// What may be dropped from its beginning.
    #[must_use]
    pub fn retention(&self) -> Retention {
        self.retention
    }

    /// When a message counts as kept.
    #[must_use]
    pub fn durability(&self) -> Durability {
        self.durability
    }

    /// Whether messages of `topic` are kept in it.
    #[must_use]
    pub fn captures(&self, topic: &Topic) -> bool {
        self.topics.iter().any(|filter| filter.matches(topic))
    }
}

/// How much a stream keeps. What any of the bounds lets go may be dropped, oldest first; without bounds nothing is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Retention {
    /// Milliseconds for which a message is kept at least.
    pub age_ms: Option<u64>,
    /// Bytes of the newest messages that are kept at least.
    pub bytes: Option<u64>,
    /// Newest messages that are kept at least.
    pub messages: Option<u64>,
}

/// When a message counts as kept, and so is acknowledged and delivered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Durability {
    /// When the disk says that it has it.
    #[default]
    Fsync,
    /// When it is written; the disk is asked for it a moment later, and a power cut may take the last moments.
    Interval,
    /// When it is written; the disk takes it when it likes.
    Memory,
}

impl Durability {
    /// Every level.
    pub const ALL: [Self; 3] = [Self::Fsync, Self::Interval, Self::Memory];

    /// The word that documents and logs use.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fsync => "fsync",
            Self::Interval => "interval",
            Self::Memory => "memory",
        }
    }
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
