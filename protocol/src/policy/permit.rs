//! What a decision gives: the proof of a right, or the refusal. Only `decide` makes them.

use std::fmt;

use super::name::Name;
use super::rule::RuleId;
use super::verb::{StreamVerb, Verb};
use crate::identity::Principal;
use crate::topic::{Topic, TopicFilter};

/// Proof that the policy lets a principal do something. Only a decision makes one, and it says what for, so that a
/// permit for one topic or stream cannot be shown for another.
///
/// ```compile_fail,E0451
/// # use sealbus_protocol::policy::{Permit, RuleId, Verb};
/// # fn forge(principal: sealbus_protocol::identity::Principal, rule: RuleId) -> Permit {
/// Permit { principal, verb: Verb::Admin, topic: None, stream: None, rule, expires_ms: None }
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permit {
    pub(super) principal: Principal,
    pub(super) verb: Verb,
    pub(super) topic: Option<Topic>,
    pub(super) stream: Option<Name>,
    pub(super) rule: RuleId,
    pub(super) expires_ms: Option<u64>,
}

impl Permit {
    /// Who may.
    #[must_use]
    pub fn principal(&self) -> &Principal {
        &self.principal
    }

    /// What they may do.
    #[must_use]
    pub fn verb(&self) -> Verb {
        self.verb
    }

    /// On which topic, for verbs that take topics.
    #[must_use]
    pub fn topic(&self) -> Option<&Topic> {
        self.topic.as_ref()
    }

    /// On which stream, for verbs that take streams.
    #[must_use]
    pub fn stream(&self) -> Option<&Name> {
        self.stream.as_ref()
    }

    /// The first rule that allows it.
    #[must_use]
    pub fn rule(&self) -> &RuleId {
        &self.rule
    }

    /// The first moment at which the decision could be another, by the policy as it is.
    #[must_use]
    pub fn expires_ms(&self) -> Option<u64> {
        self.expires_ms
    }
}

/// Proof that the policy lets a principal receive some of what a filter matches. Each delivery still needs a
/// [`Permit`] of its own for its topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilterPermit {
    pub(super) principal: Principal,
    pub(super) filter: TopicFilter,
    pub(super) narrowed: Narrowed,
    pub(super) rules: Vec<RuleId>,
    pub(super) expires_ms: Option<u64>,
}

impl FilterPermit {
    /// Who may.
    #[must_use]
    pub fn principal(&self) -> &Principal {
        &self.principal
    }

    /// What they asked for.
    #[must_use]
    pub fn filter(&self) -> &TopicFilter {
        &self.filter
    }

    /// Whether they may get less than they asked for.
    #[must_use]
    pub fn narrowed(&self) -> Narrowed {
        self.narrowed
    }

    /// The rules that allow some of it, at least one, in the order of the document.
    #[must_use]
    pub fn rules(&self) -> &[RuleId] {
        &self.rules
    }

    /// The first moment at which the decision could be another, by the policy as it is.
    #[must_use]
    pub fn expires_ms(&self) -> Option<u64> {
        self.expires_ms
    }
}

/// Proof that the policy lets a principal read some of what a stream keeps. Each delivery still needs a [`Permit`] of
/// its own for its topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamPermit {
    pub(super) principal: Principal,
    pub(super) verb: StreamVerb,
    pub(super) stream: Name,
    pub(super) filter: Option<TopicFilter>,
    pub(super) narrowed: Narrowed,
    pub(super) rules: Vec<RuleId>,
    pub(super) expires_ms: Option<u64>,
}

impl StreamPermit {
    /// Who may.
    #[must_use]
    pub fn principal(&self) -> &Principal {
        &self.principal
    }

    /// In which way.
    #[must_use]
    pub fn verb(&self) -> StreamVerb {
        self.verb
    }

    /// Which stream.
    #[must_use]
    pub fn stream(&self) -> &Name {
        &self.stream
    }

    /// What of it they asked for; `None` for everything.
    #[must_use]
    pub fn filter(&self) -> Option<&TopicFilter> {
        self.filter.as_ref()
    }

    /// Whether they may get less than they asked for.
    #[must_use]
    pub fn narrowed(&self) -> Narrowed {
        self.narrowed
    }

    /// The rules that allow some of it, at least one, in the order of the document.
    #[must_use]
    pub fn rules(&self) -> &[RuleId] {
        &self.rules
    }

    /// The first moment at which the decision could be another, by the policy as it is.
    #[must_use]
    pub fn expires_ms(&self) -> Option<u64> {
        self.expires_ms
    }
}

/// Whether a subscription or a reading of a stream is granted as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Narrowed {
    /// One rule allows all of it, and none denies any of it.
    No,
    /// Some of it may be filtered out, topic by topic.
    Yes,
}

/// The refusal of an act.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    pub(super) rule: DenialRule,
    pub(super) expires_ms: Option<u64>,
}

impl Denial {
    /// What spoke against it.
    #[must_use]
    pub fn rule(&self) -> &DenialRule {
        &self.rule
    }

    /// The first moment at which the decision could be another, by the policy as it is.
    #[must_use]
    pub fn expires_ms(&self) -> Option<u64> {
        self.expires_ms
    }
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.rule.fmt(f)
    }
}

impl std::error::Error for Denial {}

/// What spoke against an act.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum DenialRule {
    /// No rule allows it.
    Default,
    /// This rule denies it.
    Deny(RuleId),
    /// The principal is revoked, by this entry.
    Revoked(RuleId),
    /// The topic or filter begins with `$`.
    Reserved,
}

impl fmt::Display for DenialRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("no rule allows it"),
            Self::Deny(rule) => write!(f, "denied by rule \"{rule}\""),
            Self::Revoked(rule) => write!(f, "the principal is revoked by \"{rule}\""),
            Self::Reserved => f.write_str("names that begin with $ are the bus's own"),
        }
    }
}
