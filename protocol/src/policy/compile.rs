//! A policy made ready for decisions.

use std::fmt;

use super::check::{TestFailure, run_tests};
use super::decide::{Act, Subject};
use super::index::Index;
use super::permit::{Denial, FilterPermit, Permit};
use super::rule::{Policy, RuleId, Summary};
use super::stream::Stream;
use super::when::Context;
use crate::identity::Principal;
use crate::ids::StreamId;
use crate::topic::{Topic, TopicFilter};

/// A policy that passes its own tests, indexed by principal. Immutable: a change is another one.
#[derive(Debug)]
pub struct CompiledPolicy {
    policy: Policy,
    index: Index,
}

impl CompiledPolicy {
    /// Indexes a policy and runs its tests, those without a time of their own at `now_ms`.
    ///
    /// # Errors
    /// [`PolicyError::Tests`] with every expectation that is not met.
    pub fn compile(policy: Policy, now_ms: u64) -> Result<Self, PolicyError> {
        let index = Index::new(&policy);
        let failures = run_tests(&policy, &index, now_ms);
        if failures.is_empty() { Ok(Self { policy, index }) } else { Err(PolicyError::Tests(failures)) }
    }

    /// The version that the document states.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.policy.version()
    }

    /// Rules, allows and denies together.
    #[must_use]
    pub fn rule_count(&self) -> usize {
        self.policy.rules().len()
    }

    /// What the policy holds, in numbers.
    #[must_use]
    pub fn summary(&self) -> Summary {
        self.policy.summary()
    }

    /// The policy itself.
    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The streams, in the order of the document.
    #[must_use]
    pub fn streams(&self) -> &[Stream] {
        self.policy.streams()
    }

    /// The stream of this name.
    #[must_use]
    pub fn stream(&self, name: &str) -> Option<&Stream> {
        self.index.streams().by_name(name)
    }

    /// The stream of this id.
    #[must_use]
    pub fn stream_by_id(&self, id: StreamId) -> Option<&Stream> {
        self.index.streams().by_id(id)
    }

    /// The stream that keeps the messages of `topic`; `None` for a topic that is live only.
    #[must_use]
    pub fn stream_of(&self, topic: &Topic) -> Option<&Stream> {
        self.index.streams().of_topic(topic)
    }

    /// The principal with the rules about it, for a session to keep. The cost is that of the principal's own rules,
    /// not of the policy.
    #[must_use]
    pub fn subject(&self, principal: &Principal) -> Subject {
        self.index.subject(principal)
    }

    /// The revocation of `principal` that holds at `now_ms`.
    #[must_use]
    pub fn revoked(&self, principal: &Principal, now_ms: u64) -> Option<RuleId> {
        let revocation = self.index.revocation(principal)?;
        (revocation.from_ms <= now_ms).then(|| revocation.rule.clone())
    }
}

/// Decides one act of one principal. A session that decides more than once keeps the [`Subject`] instead.
///
/// # Errors
/// The [`Denial`], which names what spoke against it.
pub fn decide(
    policy: &CompiledPolicy,
    principal: &Principal,
    act: Act<'_>,
    context: &Context<'_>,
) -> Result<Permit, Denial> {
    policy.subject(principal).decide(act, context)
}

/// Decides one subscription of one principal. A session that decides more than once keeps the [`Subject`] instead.
///
/// # Errors
/// The [`Denial`], which names what spoke against it.
pub fn decide_filter(
    policy: &CompiledPolicy,
    principal: &Principal,
    filter: &TopicFilter,
    context: &Context<'_>,
) -> Result<FilterPermit, Denial> {
    policy.subject(principal).decide_filter(filter, context)
}

/// Why a well-formed policy is refused as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PolicyError {
    /// Expectations of its own tests are not met; at least one.
    Tests(Vec<TestFailure>),
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Tests(failures) = self;
        write!(f, "the policy fails {} expectation(s) of its own tests", failures.len())?;
        let mut separator = ": ";
        for failure in failures {
            write!(f, "{separator}{failure}")?;
            separator = "; ";
        }
        Ok(())
    }
}

impl std::error::Error for PolicyError {}
