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

use std::sync::Arc;

use super::capture::StreamTable;
use super::name::Name;
use super::permit::{Denial, DenialRule, FilterPermit, Narrowed, Permit, StreamPermit};
use super::reach::Reach;
use super::rule::{Effect, Rule, RuleId};
use super::stream::Stream;
use super::verb::{StreamVerb, Verb};
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
    /// Receive messages of a topic from the history of the stream that keeps them.
    Replay(&'a Name, &'a Topic),
    /// Receive messages of a topic through a durable consumer of the stream that keeps them.
    Consume(&'a Name, &'a Topic),
    /// See the settings and the state of a stream.
    Describe(&'a Name),
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
            Self::Replay(..) => Verb::Replay,
            Self::Consume(..) => Verb::Consume,
            Self::Describe(_) => Verb::Describe,
            Self::Admin => Verb::Admin,
            Self::Audit => Verb::Audit,
        }
    }

    /// The topic of the act.
    #[must_use]
    pub const fn topic(self) -> Option<&'a Topic> {
        match self {
            Self::Publish(topic)
            | Self::Subscribe(topic)
            | Self::Replay(_, topic)
            | Self::Consume(_, topic) => Some(topic),
            Self::Describe(_) | Self::Admin | Self::Audit => None,
        }
    }

    /// The stream of the act.
    #[must_use]
    pub const fn stream(self) -> Option<&'a Name> {
        match self {
            Self::Replay(stream, _) | Self::Consume(stream, _) | Self::Describe(stream) => Some(stream),
            Self::Publish(_) | Self::Subscribe(_) | Self::Admin | Self::Audit => None,
        }
    }

    /// Whether a rule with the act's verb is about what the act is about.
    fn concerns(self, rule: &Rule) -> bool {
        let is_on = |topic| rule.filters.iter().any(|filter| filter.matches(topic));
        match self {
            Self::Publish(topic) | Self::Subscribe(topic) => is_on(topic),
            // Topics narrow a rule about streams; without any it is about all that the streams keep.
            Self::Replay(stream, topic) | Self::Consume(stream, topic) => {
                rule.streams.contains(stream) && (rule.filters.is_empty() || is_on(topic))
            }
            Self::Describe(stream) => rule.streams.contains(stream),
            Self::Admin | Self::Audit => true,
        }
    }

    fn is_reserved(self) -> bool {
        self.topic().is_some_and(Topic::is_reserved)
    }
}

/// A principal as one policy sees it: the rules that are about it, and no others. A session keeps one for as long as
/// the policy is in force.
#[derive(Debug, Clone)]
pub struct Subject {
    principal: Principal,
    revocation: Option<EarliestRevocation>,
    streams: Arc<StreamTable>,
    publish: RuleList,
    subscribe: RuleList,
    replay: RuleList,
    consume: RuleList,
    describe: RuleList,
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
        streams: Arc<StreamTable>,
        rules: impl Iterator<Item = &'r Arc<Rule>>,
    ) -> Self {
        let [publish, subscribe, replay, consume, describe, admin, audit] = Default::default();
        let mut subject = Self {
            principal,
            revocation,
            streams,
            publish,
            subscribe,
            replay,
            consume,
            describe,
            admin,
            audit,
        };
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

    /// Decides whether the principal may read a stream at all, or of it what `filter` matches. Like that about a
    /// subscription, the answer is about the filter only: what is delivered is decided topic by topic, with
    /// [`Act::Replay`] or [`Act::Consume`]. A stream that the policy does not have is one that no rule names.
    ///
    /// # Errors
    /// The [`Denial`], when no rule allows any of it or one rule denies all of it.
    pub fn decide_stream(
        &self,
        verb: StreamVerb,
        stream: &Name,
        filter: Option<&TopicFilter>,
        context: &Context<'_>,
    ) -> Result<StreamPermit, Denial> {
        self.judge_stream(verb, stream, filter, &context.into())
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
        let list = self.rules(act.verb());
        // Both lists are walked to their ends: the rules that do not decide now may decide later.
        let mut first = |rules: &[Arc<Rule>]| {
            let mut first = None;
            for rule in rules.iter().filter(|rule| act.concerns(rule)) {
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
                stream: act.stream().cloned(),
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
        let expiry = self.judge_before_rules(filter.is_reserved(), circumstances.now_ms)?;
        let reach = |rule: &Rule| Reach::of(&rule.filters, filter);
        let granted = self.rules(Verb::Subscribe).judge(reach, expiry, circumstances)?;
        Ok(FilterPermit {
            principal: self.principal.clone(),
            filter: filter.clone(),
            narrowed: granted.narrowed,
            rules: granted.rules,
            expires_ms: granted.expires_ms,
        })
    }

    pub(super) fn judge_stream(
        &self,
        verb: StreamVerb,
        stream: &Name,
        filter: Option<&TopicFilter>,
        circumstances: &Circumstances<'_>,
    ) -> Result<StreamPermit, Denial> {
        let is_reserved = filter.is_some_and(TopicFilter::is_reserved);
        let expiry = self.judge_before_rules(is_reserved, circumstances.now_ms)?;
        let captured = self.streams.by_name(stream.as_str()).map(Stream::topics).unwrap_or_default();
        let reach = |rule: &Rule| {
            rule.streams.contains(stream).then(|| Reach::of_stream(&rule.filters, captured, filter)).flatten()
        };
        let granted = self.rules(verb.into()).judge(reach, expiry, circumstances)?;
        Ok(StreamPermit {
            principal: self.principal.clone(),
            verb,
            stream: stream.clone(),
            filter: filter.cloned(),
            narrowed: granted.narrowed,
            rules: granted.rules,
            expires_ms: granted.expires_ms,
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
            Verb::Replay => &self.replay,
            Verb::Consume => &self.consume,
            Verb::Describe => &self.describe,
            Verb::Admin => &self.admin,
            Verb::Audit => &self.audit,
        }
    }

    fn rules_mut(&mut self, verb: Verb) -> &mut RuleList {
        match verb {
            Verb::Publish => &mut self.publish,
            Verb::Subscribe => &mut self.subscribe,
            Verb::Replay => &mut self.replay,
            Verb::Consume => &mut self.consume,
            Verb::Describe => &mut self.describe,
            Verb::Admin => &mut self.admin,
            Verb::Audit => &mut self.audit,
        }
    }
}

/// What a rule list grants of something that has more than one topic.
struct Granted {
    narrowed: Narrowed,
    rules: Vec<RuleId>,
    expires_ms: Option<u64>,
}

impl RuleList {
    /// Decides about something of which rules may reach a part.
    fn judge(
        &self,
        reach: impl Fn(&Rule) -> Option<Reach>,
        mut expiry: Expiry,
        circumstances: &Circumstances<'_>,
    ) -> Result<Granted, Denial> {
        let mut reaches = |rules: &[Arc<Rule>]| -> Vec<(RuleId, Reach)> {
            rules
                .iter()
                .filter_map(|rule| Some((rule, reach(rule)?)))
                .filter(|(rule, _)| expiry.note(rule.when.standing(rule.effect, circumstances)))
                .map(|(rule, reach)| (rule.id.clone(), reach))
                .collect()
        };
        let (denies, allows) = (reaches(&self.denies), reaches(&self.allows));
        let expires_ms = expiry.0;
        if let Some((rule, _)) = denies.iter().find(|(_, reach)| *reach == Reach::All) {
            return Err(Denial { rule: DenialRule::Deny(rule.clone()), expires_ms });
        }
        if allows.is_empty() {
            return Err(Denial { rule: DenialRule::Default, expires_ms });
        }
        let whole = denies.is_empty() && allows.iter().any(|(_, reach)| *reach == Reach::All);
        Ok(Granted {
            narrowed: if whole { Narrowed::No } else { Narrowed::Yes },
            rules: allows.into_iter().map(|(rule, _)| rule).collect(),
            expires_ms,
        })
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
