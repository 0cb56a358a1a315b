//! The verbs, and what each is about.

use std::fmt;

/// What a principal may do, or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verb {
    /// Send messages on topics.
    Publish,
    /// Receive messages of topics as they are sent.
    Subscribe,
    /// Read the history of streams.
    Replay,
    /// Take part in the durable consumers of streams.
    Consume,
    /// See the settings and the state of streams.
    Describe,
    /// Reload the policy, revoke, drain.
    Admin,
    /// Read the audit log.
    Audit,
}

/// What a verb is about, and so what a rule with it names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum VerbObject {
    /// Topics: a rule names `topics`.
    Topics,
    /// What streams keep: a rule names `streams`, and perhaps `topics` to narrow them.
    History,
    /// Streams as a whole: a rule names `streams`.
    Streams,
    /// The bus: a rule names neither.
    Bus,
}

impl Verb {
    /// Every verb of this version.
    pub const ALL: [Self; 7] = [
        Self::Publish,
        Self::Subscribe,
        Self::Replay,
        Self::Consume,
        Self::Describe,
        Self::Admin,
        Self::Audit,
    ];

    /// The word that documents and logs use.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Subscribe => "subscribe",
            Self::Replay => "replay",
            Self::Consume => "consume",
            Self::Describe => "describe",
            Self::Admin => "admin",
            Self::Audit => "audit",
        }
    }

    /// What the verb is about.
    #[must_use]
    pub const fn object(self) -> VerbObject {
        match self {
            Self::Publish | Self::Subscribe => VerbObject::Topics,
            Self::Replay | Self::Consume => VerbObject::History,
            Self::Describe => VerbObject::Streams,
            Self::Admin | Self::Audit => VerbObject::Bus,
        }
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A verb with which somebody reads what a stream keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StreamVerb {
    /// [`Verb::Replay`].
    Replay,
    /// [`Verb::Consume`].
    Consume,
}

impl From<StreamVerb> for Verb {
    fn from(verb: StreamVerb) -> Self {
        match verb {
            StreamVerb::Replay => Self::Replay,
            StreamVerb::Consume => Self::Consume,
        }
    }
}

impl fmt::Display for StreamVerb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Verb::from(*self).fmt(f)
    }
}
