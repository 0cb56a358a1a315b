//! What a policy says, as values that have been checked. None of them can be made but by the document's parser, and
//! none of them knows the document's syntax.

use std::fmt;
use std::sync::Arc;

use super::expectation::PolicyTest;
use super::name::Name;
use super::stream::Stream;
use super::verb::Verb;
use super::when::When;
use crate::identity::Principal;
use crate::topic::{Topic, TopicFilter};

/// A policy that has been read and checked, in the order of its document. [`super::CompiledPolicy`] makes decisions
/// from it.
#[derive(Debug, Clone)]
pub struct Policy {
    pub(super) version: u64,
    pub(super) roles: Vec<Role>,
    pub(super) streams: Vec<Stream>,
    pub(super) rules: Vec<Rule>,
    pub(super) revocations: Vec<Revocation>,
    pub(super) tests: Vec<PolicyTest>,
}

impl Policy {
    /// The version that the document states, at least 1.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The roles, in the order of their names.
    #[must_use]
    pub fn roles(&self) -> &[Role] {
        &self.roles
    }

    /// The streams, in the order of the document. No topic is captured by two of them.
    #[must_use]
    pub fn streams(&self) -> &[Stream] {
        &self.streams
    }

    /// The stream that keeps the messages of `topic`. Every filter is asked; [`super::CompiledPolicy`] has a table.
    #[must_use]
    pub fn stream_of(&self, topic: &Topic) -> Option<&Stream> {
        self.streams.iter().find(|stream| stream.captures(topic))
    }

    /// The rules, allows and denies together, in the order of the document.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// The revoked principals, in the order of the document.
    #[must_use]
    pub fn revocations(&self) -> &[Revocation] {
        &self.revocations
    }

    /// The tests, in the order of the document.
    #[must_use]
    pub fn tests(&self) -> &[PolicyTest] {
        &self.tests
    }

    /// What the policy holds, in numbers.
    #[must_use]
    pub fn summary(&self) -> Summary {
        let of_effect = |effect| self.rules.iter().filter(|rule| rule.effect == effect).count();
        Summary {
            version: self.version,
            allows: of_effect(Effect::Allow),
            denies: of_effect(Effect::Deny),
            roles: self.roles.len(),
            streams: self.streams.len(),
            revocations: self.revocations.len(),
            tests: self.tests.len(),
        }
    }
}

/// What a policy holds, in numbers: what `policy check` prints, and what the audit log keeps of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// The policy's version.
    pub version: u64,
    /// Rules that allow.
    pub allows: usize,
    /// Rules that deny.
    pub denies: usize,
    /// Roles.
    pub roles: usize,
    /// Streams.
    pub streams: usize,
    /// Revocations.
    pub revocations: usize,
    /// Tests.
    pub tests: usize,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { version, allows, denies, roles, streams, revocations, tests } = self;
        write!(
            f,
            "version {version}: {allows} allow, {denies} deny, {roles} roles, {streams} streams, {revocations} \
             revocations, {tests} tests"
        )
    }
}

/// Which way a rule speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Effect {
    /// It permits, unless another rule denies.
    Allow,
    /// It refuses, whatever other rules say.
    Deny,
}

/// The name of a rule, as decisions and the audit log carry it; `revoke[0]` for the first revocation. Cloning shares
/// the text.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RuleId(Arc<str>);

impl RuleId {
    pub(super) fn of_rule(name: Name) -> Self {
        Self(name.0)
    }

    /// Names cannot hold brackets, so that no rule is called like a revocation.
    pub(super) fn of_revocation(index: usize) -> Self {
        Self(format!("revoke[{index}]").into())
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RuleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for RuleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RuleId({})", self.0)
    }
}

/// Some principals, without roles: one, or all below a SPIFFE path. There is no other pattern.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Member {
    /// This one, byte for byte.
    Exactly(Principal),
    /// Every one strictly below this path.
    Below(PrincipalPrefix),
}

impl Member {
    /// The SPIFFE trust domain, when its principals have one.
    #[must_use]
    pub fn trust_domain(&self) -> Option<&str> {
        match self {
            Self::Exactly(principal) => principal.trust_domain(),
            Self::Below(prefix) => Some(prefix.trust_domain()),
        }
    }
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exactly(principal) => principal.fmt(f),
            Self::Below(prefix) => prefix.fmt(f),
        }
    }
}

/// A SPIFFE path and its closing slash: `spiffe://acme.example/ns/a/`, written with a `*` after it in documents.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PrincipalPrefix(pub(super) Arc<str>);

impl PrincipalPrefix {
    /// The SPIFFE trust domain.
    #[must_use]
    pub fn trust_domain(&self) -> &str {
        let rest = self.0.strip_prefix("spiffe://").unwrap_or(&self.0);
        rest.split_once('/').map_or(rest, |(domain, _)| domain)
    }
}

impl fmt::Display for PrincipalPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}*", self.0)
    }
}

/// Whom a rule is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Who {
    /// Principals that it names itself.
    Member(Member),
    /// The members of a role, which the policy has.
    Role(Name),
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Member(member) => member.fmt(f),
            Self::Role(name) => write!(f, "role:{name}"),
        }
    }
}

/// A name for several principals. Roles do not nest.
#[derive(Debug, Clone)]
pub struct Role {
    pub(super) name: Name,
    pub(super) members: Vec<Member>,
}

impl Role {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// Its members, at least one.
    #[must_use]
    pub fn members(&self) -> &[Member] {
        &self.members
    }
}

/// One `[[allow]]` or `[[deny]]`.
#[derive(Debug, Clone)]
pub struct Rule {
    pub(super) id: RuleId,
    pub(super) line: usize,
    pub(super) effect: Effect,
    pub(super) who: Vec<Who>,
    pub(super) verbs: Vec<Verb>,
    pub(super) filters: Vec<TopicFilter>,
    pub(super) streams: Vec<Name>,
    pub(super) when: When,
}

impl Rule {
    /// Its name.
    #[must_use]
    pub fn id(&self) -> &RuleId {
        &self.id
    }

    /// The line of the document where it begins, from 1.
    #[must_use]
    pub fn line(&self) -> usize {
        self.line
    }

    /// Which way it speaks.
    #[must_use]
    pub fn effect(&self) -> Effect {
        self.effect
    }

    /// Whom it is about, at least one.
    #[must_use]
    pub fn who(&self) -> &[Who] {
        &self.who
    }

    /// Its verbs, at least one; all of them take topics, or all take streams, or none takes either.
    #[must_use]
    pub fn verbs(&self) -> &[Verb] {
        &self.verbs
    }

    /// Its topics: at least one when its verbs take topics. When they take streams, those that it is narrowed to, or
    /// none when it is about the streams as a whole. Otherwise none.
    #[must_use]
    pub fn filters(&self) -> &[TopicFilter] {
        &self.filters
    }

    /// Its streams, which the policy has: at least one when its verbs take streams, otherwise none.
    #[must_use]
    pub fn streams(&self) -> &[Name] {
        &self.streams
    }

    /// Its conditions.
    #[must_use]
    pub fn when(&self) -> &When {
        &self.when
    }
}

/// One `[[revoke]]`: a principal that may do nothing any more, whatever the rules say.
#[derive(Debug, Clone)]
pub struct Revocation {
    pub(super) id: RuleId,
    pub(super) principal: Principal,
    pub(super) from_ms: u64,
}

impl Revocation {
    /// Its name, by its place in the document.
    #[must_use]
    pub fn id(&self) -> &RuleId {
        &self.id
    }

    /// Who is revoked.
    #[must_use]
    pub fn principal(&self) -> &Principal {
        &self.principal
    }

    /// The moment from which it holds; 0 when the document names none.
    #[must_use]
    pub fn from_ms(&self) -> u64 {
        self.from_ms
    }
}
