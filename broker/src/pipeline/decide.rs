//! The decisions of one session, by the policy that it has adopted, and kept for as long as they stay the same.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;
use std::sync::Arc;

use sealbus_protocol::frame::Generation;
use sealbus_protocol::policy::{Act, Denial, FilterPermit, Name, Permit, StreamPermit, StreamVerb, Subject};
use sealbus_protocol::topic::{Topic, TopicFilter};

use crate::party::Party;
use crate::policy::PolicyInForce;

/// Decisions that are kept for one verb. When there are more topics they are made anew, which takes a microsecond.
const KEPT_MAX: usize = 4_096;

/// Permit or denial.
pub(super) type Decision = Result<Permit, Denial>;

/// The decisions of one session.
#[derive(Debug)]
pub(super) struct Decisions {
    party: Arc<Party>,
    policy: Arc<PolicyInForce>,
    subject: Subject,
    publish: HashMap<Topic, Kept>,
    subscribe: HashMap<Topic, Kept>,
    streams: HashMap<OnStream, Kept>,
}

/// What is wanted of a stream's topic.
type OnStream = (StreamVerb, Name, Topic);

/// A decision holds from the moment for which it was made until the rules could say something else.
#[derive(Debug)]
struct Kept {
    decided_ms: u64,
    decision: Decision,
}

/// A topic, and what somebody wants with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Want {
    Publish,
    Subscribe,
}

impl Decisions {
    /// The decisions of this party by this policy.
    pub(super) fn new(party: Arc<Party>, policy: Arc<PolicyInForce>) -> Self {
        let subject = policy.compiled.subject(&party.principal);
        let (publish, subscribe, streams) = (HashMap::new(), HashMap::new(), HashMap::new());
        Self { party, policy, subject, publish, subscribe, streams }
    }

    /// Decides by this policy from now on. Nothing that was decided before is kept.
    pub(super) fn adopt(&mut self, policy: Arc<PolicyInForce>) {
        *self = Self::new(Arc::clone(&self.party), policy);
    }

    /// The policy.
    pub(super) fn policy(&self) -> &Arc<PolicyInForce> {
        &self.policy
    }

    /// The rules about the session's principal.
    pub(super) fn subject(&self) -> &Subject {
        &self.subject
    }

    /// What peers are told of the policy.
    pub(super) fn generation(&self) -> Generation {
        Generation {
            generation: self.policy.generation,
            policy_version: self.policy.compiled.version(),
            policy_hash: self.policy.hash,
        }
    }

    /// Decides about a topic. This is the one place where that is done: for OPEN, for each batch that comes in, and
    /// for each that goes out.
    pub(super) fn on_topic(&mut self, want: Want, topic: &Topic, now_ms: u64) -> &Decision {
        let kept = match want {
            Want::Publish => &mut self.publish,
            Want::Subscribe => &mut self.subscribe,
        };
        let decide = || {
            let act = match want {
                Want::Publish => Act::Publish(topic),
                Want::Subscribe => Act::Subscribe(topic),
            };
            let decision = self.subject.decide(act, &self.party.context_at(now_ms));
            Kept { decided_ms: now_ms, decision }
        };
        keep(kept, topic.clone(), now_ms, decide)
    }

    /// Decides about a topic of a stream's history. This is the one place where that is done: for what is replayed,
    /// consumed, redelivered, and for dead letters.
    pub(super) fn on_history(
        &mut self,
        verb: StreamVerb,
        stream: &Name,
        topic: &Topic,
        now_ms: u64,
    ) -> &Decision {
        let decide = || {
            let act = match verb {
                StreamVerb::Replay => Act::Replay(stream, topic),
                StreamVerb::Consume => Act::Consume(stream, topic),
            };
            let decision = self.subject.decide(act, &self.party.context_at(now_ms));
            Kept { decided_ms: now_ms, decision }
        };
        keep(&mut self.streams, (verb, stream.clone(), topic.clone()), now_ms, decide)
    }

    /// Decides about reading a stream at all, or what of it a filter matches. What is delivered is decided topic by
    /// topic.
    pub(super) fn on_stream(
        &self,
        verb: StreamVerb,
        stream: &Name,
        filter: Option<&TopicFilter>,
        now_ms: u64,
    ) -> Result<StreamPermit, Denial> {
        self.subject.decide_stream(verb, stream, filter, &self.party.context_at(now_ms))
    }

    /// Decides about a filter. What is delivered for it is decided topic by topic.
    pub(super) fn on_filter(&self, filter: &TopicFilter, now_ms: u64) -> Result<FilterPermit, Denial> {
        self.subject.decide_filter(filter, &self.party.context_at(now_ms))
    }

    /// Decides about something else than topics.
    pub(super) fn on_bus(&self, act: Act<'_>, now_ms: u64) -> Decision {
        self.subject.decide(act, &self.party.context_at(now_ms))
    }
}

/// The kept decision, made anew when it does not hold any more.
fn keep<K: Eq + Hash>(
    kept: &mut HashMap<K, Kept>,
    key: K,
    now_ms: u64,
    decide: impl Fn() -> Kept,
) -> &Decision {
    if kept.len() >= KEPT_MAX && !kept.contains_key(&key) {
        kept.clear();
    }
    let kept = match kept.entry(key) {
        Entry::Vacant(entry) => entry.insert(decide()),
        Entry::Occupied(entry) => {
            let kept = entry.into_mut();
            if !kept.holds_at(now_ms) {
                *kept = decide();
            }
            kept
        }
    };
    &kept.decision
}

impl Kept {
    fn holds_at(&self, now_ms: u64) -> bool {
        let expires_ms = match &self.decision {
            Ok(permit) => permit.expires_ms(),
            Err(denial) => denial.expires_ms(),
        };
        self.decided_ms <= now_ms && expires_ms.is_none_or(|expires_ms| now_ms < expires_ms)
    }
}

#[cfg(test)]
mod tests {
    use sealbus_protocol::identity::Principal;
    use sealbus_protocol::ids::PolicyHash;
    use sealbus_protocol::policy::{CompiledPolicy, Policy};

    use super::*;

    fn policy(generation: u64, text: &str) -> Arc<PolicyInForce> {
        let compiled = CompiledPolicy::compile(Policy::parse(text).unwrap(), 0).unwrap();
        Arc::new(PolicyInForce {
            generation,
            hash: PolicyHash::ZERO,
            compiled,
            document: text.as_bytes().into(),
        })
    }

    fn party() -> Arc<Party> {
        let principal = Principal::parse("spiffe://a.example/anna").unwrap();
        Arc::new(Party { principal, source: [127, 0, 0, 1].into(), zone: "internal".into() })
    }

    const TIMED: &str = r#"
version = 1
[[allow]]
id = "for-a-while"
who = ["spiffe://a.example/anna"]
verbs = ["publish"]
topics = ["a/#"]
when = { from = "1970-01-01T00:00:10Z", until = "1970-01-01T00:00:20Z" }
"#;

    #[test]
    fn a_kept_decision_ends_when_the_rules_say_so_and_when_the_clock_goes_back() {
        let mut decisions = Decisions::new(party(), policy(1, TIMED));
        let topic = Topic::parse("a/b").unwrap();
        for (now_ms, expected) in
            [(9_999, false), (10_000, true), (19_999, true), (20_000, false), (15_000, true)]
        {
            assert_eq!(decisions.on_topic(Want::Publish, &topic, now_ms).is_ok(), expected, "{now_ms}");
            assert!(decisions.on_topic(Want::Subscribe, &topic, now_ms).is_err(), "another verb");
        }
    }

    #[test]
    fn nothing_is_kept_beyond_its_policy() {
        let mut decisions = Decisions::new(party(), policy(1, TIMED));
        let topic = Topic::parse("a/b").unwrap();
        assert!(decisions.on_topic(Want::Publish, &topic, 15_000).is_ok());
        decisions.adopt(policy(2, "version = 2"));
        assert!(decisions.on_topic(Want::Publish, &topic, 15_000).is_err());
        assert_eq!(decisions.generation().generation, 2);
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut decisions = Decisions::new(party(), policy(1, TIMED));
        for index in 0..3 * KEPT_MAX {
            let topic = Topic::parse(&format!("a/{index}")).unwrap();
            assert!(decisions.on_topic(Want::Publish, &topic, 15_000).is_ok());
            assert!(decisions.publish.len() <= KEPT_MAX);
        }
    }
}
