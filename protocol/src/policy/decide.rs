//! The decision: one principal, one act, one moment, and the rule that spoke.
//!
//! ```text
//!  revoked?  -> Denial(Revoked)     before anything else
//!  $...?     -> Denial(Reserved)    no rule reaches the bus's own names
//!  any deny? -> Denial(Deny)        wherever it stands in the document
//!  an allow? -> Permit              the first one names the permit
//!  nothing   -> Denial(Default)
//! ```
//!
//! A decision also says until when it stays the same. It may be kept from the moment for which it was made until
//! then, for as long as the same policy is in force and the source and zone are the same, and no longer.

use std::fmt;
use std::sync::Arc;

use super::rule::{Effect, Rule, RuleId, Verb};
use super::when::{Circumstances, Context, Standing};
use crate::identity::Principal;
use crate::topic::{Topic, TopicFilter};

/// What somebody wants to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act<'a> {
    /// Send messages on a topic.
    Publish(&'a Topic),
    /// Receive messages of a topic.
    Subscribe(&'a Topic),
    /// Administer the bus.
    Admin,
    /// Read the audit log.
    Audit,
}

impl<'a> Act<'a> {
    /// The verb that a rule must have to speak about the act.
    #[must_use]
    pub const fn verb(self) -> Verb {
        match self {
            Self::Publish(_) => Verb::Publish,
            Self::Subscribe(_) => Verb::Subscribe,
            Self::Admin => Verb::Admin,
            Self::Audit => Verb::Audit,
        }
    }

    /// The topic of the act.
    #[must_use]
    pub const fn topic(self) -> Option<&'a Topic> {
        match self {
            Self::Publish(topic) | Self::Subscribe(topic) => Some(topic),
            Self::Admin | Self::Audit => None,
        }
    }

    fn is_reserved(self) -> bool {
        self.topic().is_some_and(Topic::is_reserved)
    }
}

/// Proof that the policy lets a principal do something. Only a decision makes one, and it says what for, so that a
/// permit for one topic cannot be shown for another.
///
/// ```compile_fail,E0451
/// # use sealbus_protocol::policy::{Permit, RuleId, Verb};
/// # fn forge(principal: sealbus_protocol::identity::Principal, rule: RuleId) -> Permit {
/// Permit { principal, verb: Verb::Admin, topic: None, rule, expires_ms: None }
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permit {
    principal: Principal,
    verb: Verb,
    topic: Option<Topic>,
    rule: RuleId,
    expires_ms: Option<u64>,
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
    principal: Principal,
    filter: TopicFilter,
    narrowed: Narrowed,
    rules: Vec<RuleId>,
    expires_ms: Option<u64>,
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

/// Whether a subscription is granted as a whole.
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
    rule: DenialRule,
    expires_ms: Option<u64>,
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

/// A principal as one policy sees it: the rules that are about it, and no others. A session keeps one for as long as
/// the policy is in force.
#[derive(Debug, Clone)]
pub struct Subject {
    principal: Principal,
    revocation: Option<EarliestRevocation>,
    publish: RuleList,
    subscribe: RuleList,
    admin: RuleList,
    audit: RuleList,
}

/// The rules about one principal and one verb, each list in the order of the document.
#[derive(Debug, Clone, Default)]
struct RuleList {
    denies: Vec<Arc<Rule>>,
    allows: Vec<Arc<Rule>>,
}

/// The revocation of a principal that holds first. It never ends, so that no other matters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct EarliestRevocation {
    pub(super) from_ms: u64,
    pub(super) rule: RuleId,
}

impl Subject {
    /// The subject of these rules, which must be about the principal, in the order of the document.
    pub(super) fn new<'r>(
        principal: Principal,
        revocation: Option<EarliestRevocation>,
        rules: impl Iterator<Item = &'r Arc<Rule>>,
    ) -> Self {
        let [publish, subscribe, admin, audit] = Default::default();
        let mut subject = Self { principal, revocation, publish, subscribe, admin, audit };
        for rule in rules {
            for verb in Verb::ALL.into_iter().filter(|verb| rule.verbs.contains(verb)) {
                let list = subject.rules_mut(verb);
                match rule.effect {
                    Effect::Allow => list.allows.push(Arc::clone(rule)),
                    Effect::Deny => list.denies.push(Arc::clone(rule)),
                }
            }
        }
        subject
    }

    /// Who it is.
    #[must_use]
    pub fn principal(&self) -> &Principal {
        &self.principal
    }

    /// Decides whether the principal may do `act`.
    ///
    /// # Errors
    /// The [`Denial`], which names what spoke against it.
    pub fn decide(&self, act: Act<'_>, context: &Context<'_>) -> Result<Permit, Denial> {
        self.judge(act, &context.into())
    }

    /// Decides whether the principal may subscribe to `filter`. The answer is about the filter only: what is
    /// delivered is decided topic by topic, with [`Act::Subscribe`].
    ///
    /// # Errors
    /// The [`Denial`], when no rule allows any of it or one rule denies all of it.
    pub fn decide_filter(&self, filter: &TopicFilter, context: &Context<'_>) -> Result<FilterPermit, Denial> {
        self.judge_filter(filter, &context.into())
    }

    /// The revocation that holds at `now_ms`, for which a session must end.
    #[must_use]
    pub fn revoked(&self, now_ms: u64) -> Option<&RuleId> {
        self.revocation
            .as_ref()
            .filter(|revocation| revocation.from_ms <= now_ms)
            .map(|revocation| &revocation.rule)
    }

    /// The moment of a revocation that does not hold yet at `now_ms`, so that a session can be ended on time.
    #[must_use]
    pub fn revocation_due_ms(&self, now_ms: u64) -> Option<u64> {
        self.revocation.as_ref().map(|revocation| revocation.from_ms).filter(|from_ms| *from_ms > now_ms)
    }

    pub(super) fn judge(&self, act: Act<'_>, circumstances: &Circumstances<'_>) -> Result<Permit, Denial> {
        let mut expiry = self.judge_before_rules(act.is_reserved(), circumstances.now_ms)?;
        let concerns = |rule: &Rule| match act.topic() {
            Some(topic) => rule.filters.iter().any(|filter| filter.matches(topic)),
            None => true,
        };
        let list = self.rules(act.verb());
        // Both lists are walked to their ends: the rules that do not decide now may decide later.
        let mut first = |rules: &[Arc<Rule>]| {
            let mut first = None;
            for rule in rules.iter().filter(|rule| concerns(rule)) {
                if expiry.note(rule.when.standing(rule.effect, circumstances)) && first.is_none() {
                    first = Some(rule.id.clone());
                }
            }
            first
        };
        let (deny, allow) = (first(&list.denies), first(&list.allows));
        let expires_ms = expiry.0;
        match (deny, allow) {
            (Some(rule), Some(_) | None) => Err(Denial { rule: DenialRule::Deny(rule), expires_ms }),
            (None, None) => Err(Denial { rule: DenialRule::Default, expires_ms }),
            (None, Some(rule)) => Ok(Permit {
                principal: self.principal.clone(),
                verb: act.verb(),
                topic: act.topic().cloned(),
                rule,
                expires_ms,
            }),
        }
    }

    pub(super) fn judge_filter(
        &self,
        filter: &TopicFilter,
        circumstances: &Circumstances<'_>,
    ) -> Result<FilterPermit, Denial> {
        let mut expiry = self.judge_before_rules(filter.is_reserved(), circumstances.now_ms)?;
        let list = self.rules(Verb::Subscribe);
        let mut reaches = |rules: &[Arc<Rule>]| -> Vec<(RuleId, Reach)> {
            let reach = |rule: &Arc<Rule>| Some((Arc::clone(rule), Reach::of(&rule.filters, filter)?));
            rules
                .iter()
                .filter_map(reach)
                .filter(|(rule, _)| expiry.note(rule.when.standing(rule.effect, circumstances)))
                .map(|(rule, reach)| (rule.id.clone(), reach))
                .collect()
        };
        let (denies, allows) = (reaches(&list.denies), reaches(&list.allows));
        let expires_ms = expiry.0;
        if let Some((rule, _)) = denies.iter().find(|(_, reach)| *reach == Reach::All) {
            return Err(Denial { rule: DenialRule::Deny(rule.clone()), expires_ms });
        }
        if allows.is_empty() {
            return Err(Denial { rule: DenialRule::Default, expires_ms });
        }
        let whole = denies.is_empty() && allows.iter().any(|(_, reach)| *reach == Reach::All);
        Ok(FilterPermit {
            principal: self.principal.clone(),
            filter: filter.clone(),
            narrowed: if whole { Narrowed::No } else { Narrowed::Yes },
            rules: allows.into_iter().map(|(rule, _)| rule).collect(),
            expires_ms,
        })
    }

    /// What no rule can change. A revocation that is due later bounds every decision.
    fn judge_before_rules(&self, is_reserved: bool, now_ms: u64) -> Result<Expiry, Denial> {
        if let Some(rule) = self.revoked(now_ms) {
            return Err(Denial { rule: DenialRule::Revoked(rule.clone()), expires_ms: None });
        }
        let expires_ms = self.revocation_due_ms(now_ms);
        if is_reserved {
            return Err(Denial { rule: DenialRule::Reserved, expires_ms });
        }
        Ok(Expiry(expires_ms))
    }

    fn rules(&self, verb: Verb) -> &RuleList {
        match verb {
            Verb::Publish => &self.publish,
            Verb::Subscribe => &self.subscribe,
            Verb::Admin => &self.admin,
            Verb::Audit => &self.audit,
        }
    }

    fn rules_mut(&mut self, verb: Verb) -> &mut RuleList {
        match verb {
            Verb::Publish => &mut self.publish,
            Verb::Subscribe => &mut self.subscribe,
            Verb::Admin => &mut self.admin,
            Verb::Audit => &mut self.audit,
        }
    }
}

/// How much of a requested filter a rule speaks about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    Some,
    All,
}

impl Reach {
    /// `None` when no filter of the rule shares a topic with the requested one.
    fn of(filters: &[TopicFilter], requested: &TopicFilter) -> Option<Self> {
        if filters.iter().any(|filter| filter.covers(requested)) {
            return Some(Self::All);
        }
        filters.iter().any(|filter| filter.overlaps(requested)).then_some(Self::Some)
    }
}

/// The earliest moment at which what was seen so far could change.
struct Expiry(Option<u64>);

impl Expiry {
    /// Takes note of a rule's standing, and tells whether the rule holds.
    fn note(&mut self, standing: Standing) -> bool {
        let (holds, changes_ms) = match standing {
            Standing::Holds { until_ms } => (true, until_ms),
            Standing::Later { from_ms } => (false, Some(from_ms)),
            Standing::Never => (false, None),
        };
        self.0 = match (self.0, changes_ms) {
            (Some(one), Some(two)) => Some(one.min(two)),
            (one, two) => one.or(two),
        };
        holds
    }
}
