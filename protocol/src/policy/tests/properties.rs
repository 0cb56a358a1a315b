//! The compiled policy against the naive reading, over small alphabets so that rules overlap.

use proptest::prelude::*;

use super::super::{Act, CompiledPolicy, Context, DenialRule, Name, Narrowed, StreamVerb, Verb};
use super::naive::{Answer, Question, Spec, SpecRule, SpecStream, filter_matches};
use super::{compiled, filter, principal, topic};

const PRINCIPALS: [&str; 6] = [
    "spiffe://acme.example/a",
    "spiffe://acme.example/a/b",
    "spiffe://acme.example/a/b/c",
    "spiffe://acme.example/ab",
    "spiffe://other.example/a/b",
    "dns:a.example",
];
const MEMBERS: [&str; 9] = [
    "spiffe://acme.example/a",
    "spiffe://acme.example/a/b",
    "spiffe://acme.example/ab",
    "spiffe://other.example/a/b",
    "dns:a.example",
    "spiffe://acme.example/*",
    "spiffe://acme.example/a/*",
    "spiffe://acme.example/a/b/*",
    "spiffe://other.example/*",
];
const ROLES: [&str; 2] = ["role:one", "role:two"];
const TOPICS: [&str; 12] = ["x", "y", "x/y", "x/x", "y/x", "x/y/x", "/", "x/", "/x", "$x", "$x/y", "x/$x"];
const FILTERS: [&str; 14] =
    ["x", "y", "+", "#", "x/#", "x/+", "+/x", "+/#", "x/y", "x/y/#", "/+", "+/+", "/#", "x/+/x"];
const STREAMS: [(&str, &[&str]); 3] = [("xs", &["x/#"]), ("ys", &["y", "y/x"]), ("rest", &["/", "/x"])];
const SOURCES: [(&str, &str); 3] =
    [("10.1.0.0/16", "10.1."), ("10.2.0.0/16", "10.2."), ("2001:db8::/32", "2001:db8:")];
const ADDRESSES: [&str; 4] = ["10.1.0.1", "::ffff:10.1.0.1", "10.2.3.4", "2001:db8::1"];
const ZONES: [&str; 2] = ["inside", "outside"];
/// Moments of rules lie in 1..=6 and those of questions in 0..=7, so that every border is met from both sides.
const MOMENTS_S: std::ops::RangeInclusive<u64> = 1..=6;
const QUESTIONS_S: std::ops::RangeInclusive<u64> = 0..=7;

fn some_of(items: &'static [&'static str], count: usize) -> impl Strategy<Value = Vec<&'static str>> {
    prop::collection::vec(prop::sample::select(items), 1..=count)
}

fn any_who() -> impl Strategy<Value = Vec<&'static str>> {
    let all: Vec<&'static str> = MEMBERS.into_iter().chain(ROLES).collect();
    prop::collection::vec(prop::sample::select(all), 1..=2)
}

fn any_verbs() -> impl Strategy<Value = Vec<&'static str>> {
    let topics = some_of(&["publish", "subscribe"], 2);
    let history = some_of(&["replay", "consume"], 2);
    let streams = some_of(&["replay", "consume", "describe"], 3);
    let bus = some_of(&["admin", "audit"], 2);
    prop_oneof![4 => topics, 4 => history, 1 => streams, 1 => bus]
}

/// The streams of every document.
fn streams() -> Vec<SpecStream> {
    STREAMS.into_iter().map(|(name, topics)| SpecStream { name, topics: topics.to_vec() }).collect()
}

fn any_streams() -> impl Strategy<Value = Vec<&'static str>> {
    let names: Vec<&'static str> = STREAMS.into_iter().map(|(name, _)| name).collect();
    prop::collection::vec(prop::sample::select(names), 1..=2)
}

fn is_captured(stream: &str, topic: &str) -> bool {
    let is_in = |(_, filters): (_, &[&str])| filters.iter().any(|filter| filter_matches(filter, topic));
    STREAMS.into_iter().filter(|(name, _)| *name == stream).any(is_in)
}

/// A rule may not be narrowed to what its streams do not keep, nor may one that describes be narrowed.
fn narrowing(verbs: &[&str], topics: Vec<&'static str>, streams: &[&str]) -> Vec<&'static str> {
    let is_kept = |filter: &&str| {
        TOPICS.into_iter().any(|topic| {
            filter_matches(filter, topic) && streams.iter().any(|stream| is_captured(stream, topic))
        })
    };
    match verbs {
        ["publish" | "subscribe", ..] => topics,
        _ if verbs.contains(&"describe") => Vec::new(),
        _ => topics.into_iter().filter(is_kept).collect(),
    }
}

fn any_interval() -> impl Strategy<Value = (Option<u64>, Option<u64>)> {
    let moment = || prop::option::weighted(0.3, MOMENTS_S);
    (moment(), moment()).prop_map(|interval| match interval {
        (Some(from), Some(until)) if until <= from => (Some(from), None),
        other => other,
    })
}

prop_compose! {
    fn any_rule()(
        effect in prop_oneof![2 => Just("allow"), 1 => Just("deny")],
        who in any_who(),
        verbs in any_verbs(),
        topics in some_of(&FILTERS, 3),
        is_whole in prop::bool::weighted(0.4),
        streams in any_streams(),
        source in prop::option::weighted(0.2, prop::sample::select(&SOURCES[..])),
        zone in prop::option::weighted(0.2, prop::sample::select(&ZONES[..])),
        (from_s, until_s) in any_interval(),
    ) -> SpecRule {
        let takes_topics = ["publish", "subscribe"].contains(&verbs[0]);
        let topics = if is_whole && !takes_topics { Vec::new() } else { narrowing(&verbs, topics, &streams) };
        SpecRule { effect, who, verbs, topics, streams, source, zone, from_s, until_s }
    }
}

prop_compose! {
    fn any_spec()(
        one in some_of(&MEMBERS, 3),
        two in some_of(&MEMBERS, 3),
        rules in prop::collection::vec(any_rule(), 0..10),
        revocations in prop::collection::vec(
            (prop::sample::select(&PRINCIPALS[..]), prop::option::of(MOMENTS_S)), 0..3),
    ) -> Spec {
        Spec { roles: vec![("one", one), ("two", two)], streams: streams(), rules, revocations }
    }
}

prop_compose! {
    fn any_place()(
        who in prop::sample::select(&PRINCIPALS[..]),
        source in prop::sample::select(&ADDRESSES[..]),
        zone in prop::option::of(prop::sample::select(&ZONES[..])),
    ) -> (&'static str, &'static str, Option<&'static str>) {
        (who, source, zone)
    }
}

/// An act: a verb, a topic and a stream.
type SpecAct = (&'static str, Option<&'static str>, Option<&'static str>);

/// Every act over the alphabets, also on topics that the stream does not keep.
fn acts() -> impl Iterator<Item = SpecAct> {
    let verbs = ["publish", "subscribe"];
    let on_topics = TOPICS.into_iter().flat_map(move |topic| verbs.map(|verb| (verb, Some(topic), None)));
    let on_streams = STREAMS.into_iter().flat_map(|(stream, _)| {
        let verbs = ["replay", "consume"];
        let on_topics =
            TOPICS.into_iter().flat_map(move |topic| verbs.map(|verb| (verb, Some(topic), Some(stream))));
        on_topics.chain([("describe", None, Some(stream))])
    });
    on_topics.chain(on_streams).chain([("admin", None, None), ("audit", None, None)])
}

/// The compiled answer in the words of the naive one, and the moment until which it holds.
fn ask(policy: &CompiledPolicy, question: Question<'_>) -> (Answer, Option<u64>) {
    let name = question.topic.map(topic);
    let stream = question.stream.map(|name| Name::parse(name).unwrap());
    let act = match (question.verb, &name, &stream) {
        ("publish", Some(topic), None) => Act::Publish(topic),
        ("subscribe", Some(topic), None) => Act::Subscribe(topic),
        ("replay", Some(topic), Some(stream)) => Act::Replay(stream, topic),
        ("consume", Some(topic), Some(stream)) => Act::Consume(stream, topic),
        ("describe", None, Some(stream)) => Act::Describe(stream),
        ("admin", None, None) => Act::Admin,
        ("audit", None, None) => Act::Audit,
        other => panic!("{other:?}"),
    };
    let who = principal(question.who);
    match policy.subject(&who).decide(act, &context(question)) {
        Ok(permit) => {
            assert_eq!(
                (permit.principal(), permit.verb(), permit.topic(), permit.stream()),
                (&who, act.verb(), name.as_ref(), stream.as_ref())
            );
            (Answer::Permitted(permit.rule().to_string()), permit.expires_ms())
        }
        Err(denial) => (Answer::Refused(denial.to_string()), denial.expires_ms()),
    }
}

fn context(question: Question<'_>) -> Context<'_> {
    Context { source: question.source.parse().unwrap(), zone: question.zone, now_ms: question.now_s * 1_000 }
}

/// Every way to ask for a stream, or for what a filter matches of it.
fn readings()
-> impl Iterator<Item = (StreamVerb, (&'static str, &'static [&'static str]), Option<&'static str>)> {
    let requests = || FILTERS.into_iter().chain(TOPICS).map(Some).chain([None]);
    let verbs = [StreamVerb::Replay, StreamVerb::Consume];
    STREAMS.into_iter().flat_map(move |stream| {
        verbs.into_iter().flat_map(move |verb| requests().map(move |asked| (verb, stream, asked)))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn compiled_decisions_agree_with_the_naive_reading(spec in any_spec(), (who, source, zone) in any_place()) {
        let policy = compiled(&spec.document());
        prop_assert_eq!(policy.rule_count(), spec.rules.len());
        for now_s in QUESTIONS_S {
            for (verb, topic, stream) in acts() {
                let question = Question { who, verb, topic, stream, source, zone, now_s };
                prop_assert_eq!(ask(&policy, question).0, spec.decide(question), "{:?}", question);
            }
        }
    }

    #[test]
    fn a_decision_stays_as_it_is_until_it_expires(spec in any_spec(), (who, source, zone) in any_place()) {
        let policy = compiled(&spec.document());
        for (verb, topic, stream) in acts() {
            for now_s in QUESTIONS_S {
                let question = Question { who, verb, topic, stream, source, zone, now_s };
                let (answer, expires_ms) = ask(&policy, question);
                prop_assert!(expires_ms.is_none_or(|expires_ms| expires_ms > now_s * 1_000));
                let kept = (now_s..=*QUESTIONS_S.end()).take_while(|later| expires_ms.is_none_or(|end| later * 1_000 < end));
                for later in kept {
                    let asked_again = Question { now_s: later, ..question };
                    prop_assert_eq!(&spec.decide(asked_again), &answer, "{:?} at {}", question, later);
                }
            }
        }
    }

    /// What a filter's decision promises about the topics under it.
    #[test]
    fn a_filter_is_decided_as_its_topics_are(
        spec in any_spec(),
        (who, source, zone) in any_place(),
        now_s in QUESTIONS_S,
    ) {
        let policy = compiled(&spec.document());
        let subject = policy.subject(&principal(who));
        for requested in FILTERS.into_iter().chain(TOPICS) {
            let question = |topic| Question { who, verb: "subscribe", topic: Some(topic), stream: None, source, zone, now_s };
            let mut answers = TOPICS
                .into_iter()
                .filter(|topic| filter_matches(requested, topic))
                .map(|topic| spec.decide(question(topic)));
            let decided = subject.decide_filter(&filter(requested), &context(question("x")));
            match decided {
                Ok(permit) if permit.narrowed() == Narrowed::No => {
                    prop_assert!(answers.all(|answer| matches!(answer, Answer::Permitted(_))), "{}", requested);
                }
                Ok(permit) => {
                    prop_assert!(!permit.rules().is_empty());
                }
                Err(denial) => {
                    let expected = Answer::Refused(denial.to_string());
                    match denial.rule() {
                        DenialRule::Default => prop_assert!(answers.all(|answer| matches!(answer, Answer::Refused(_)))),
                        DenialRule::Deny(_) => prop_assert!(answers.all(|answer| matches!(answer, Answer::Refused(_)))),
                        DenialRule::Revoked(_) | DenialRule::Reserved => prop_assert!(answers.all(|answer| answer == expected)),
                    }
                }
            }
        }
    }

    /// A filter without wildcards is decided as the topic that it is.
    #[test]
    fn an_exact_filter_is_decided_as_its_topic(
        spec in any_spec(),
        (who, source, zone) in any_place(),
        now_s in QUESTIONS_S,
    ) {
        let policy = compiled(&spec.document());
        let subject = policy.subject(&principal(who));
        for name in TOPICS {
            let question = Question { who, verb: "subscribe", topic: Some(name), stream: None, source, zone, now_s };
            let (answer, expires_ms) = ask(&policy, question);
            match (subject.decide_filter(&filter(name), &context(question)), answer) {
                (Ok(permit), Answer::Permitted(rule)) => {
                    prop_assert_eq!(permit.narrowed(), Narrowed::No);
                    prop_assert_eq!(permit.rules()[0].as_str(), rule);
                    prop_assert_eq!(permit.expires_ms(), expires_ms);
                }
                (Err(denial), Answer::Refused(why)) => {
                    prop_assert_eq!(denial.to_string(), why);
                    prop_assert_eq!(denial.expires_ms(), expires_ms);
                }
                (found, answer) => prop_assert!(false, "{:?} but {:?}", found, answer),
            }
        }
    }

    /// What a decision about a stream promises about the topics that it keeps.
    #[test]
    fn a_stream_is_decided_as_its_topics_are(
        spec in any_spec(),
        (who, source, zone) in any_place(),
        now_s in QUESTIONS_S,
    ) {
        let policy = compiled(&spec.document());
        let subject = policy.subject(&principal(who));
        for (verb, (stream, _), requested) in readings() {
            let question = |topic| {
                let verb = Verb::from(verb).as_str();
                Question { who, verb, topic: Some(topic), stream: Some(stream), source, zone, now_s }
            };
            let mut answers = TOPICS
                .into_iter()
                .filter(|topic| is_captured(stream, topic))
                .filter(|topic| requested.is_none_or(|filter| filter_matches(filter, topic)))
                .map(|topic| spec.decide(question(topic)));
            let name = Name::parse(stream).unwrap();
            let asked = requested.map(filter);
            match subject.decide_stream(verb, &name, asked.as_ref(), &context(question("x"))) {
                Ok(permit) => {
                    prop_assert_eq!(
                        (permit.verb(), permit.stream(), permit.filter()),
                        (verb, &name, asked.as_ref())
                    );
                    prop_assert!(!permit.rules().is_empty());
                    if permit.narrowed() == Narrowed::No {
                        let all = answers.all(|answer| matches!(answer, Answer::Permitted(_)));
                        prop_assert!(all, "{:?} of {}", requested, stream);
                    }
                }
                Err(denial) => match denial.rule() {
                    DenialRule::Default | DenialRule::Deny(_) => {
                        let none = answers.all(|answer| matches!(answer, Answer::Refused(_)));
                        prop_assert!(none, "{:?} of {}", requested, stream);
                    }
                    DenialRule::Revoked(_) => {
                        let expected = Answer::Refused(denial.to_string());
                        prop_assert!(answers.all(|answer| answer == expected));
                    }
                    DenialRule::Reserved => prop_assert!(requested.is_some_and(|filter| filter.starts_with('$'))),
                },
            }
        }
    }

    #[test]
    fn a_decision_about_a_stream_stays_as_it_is_until_it_expires(
        spec in any_spec(),
        (who, source, zone) in any_place(),
    ) {
        let policy = compiled(&spec.document());
        let subject = policy.subject(&principal(who));
        for (verb, (stream, _), requested) in readings() {
            let name = Name::parse(stream).unwrap();
            let asked = requested.map(filter);
            let decide = |now_s: u64| {
                let context = Context { source: source.parse().unwrap(), zone, now_ms: now_s * 1_000 };
                match subject.decide_stream(verb, &name, asked.as_ref(), &context) {
                    Ok(permit) => (Ok((permit.narrowed(), permit.rules().to_vec())), permit.expires_ms()),
                    Err(denial) => (Err(denial.rule().clone()), denial.expires_ms()),
                }
            };
            for now_s in QUESTIONS_S {
                let (answer, expires_ms) = decide(now_s);
                prop_assert!(expires_ms.is_none_or(|expires_ms| expires_ms > now_s * 1_000));
                let kept = (now_s..=*QUESTIONS_S.end()).take_while(|later| expires_ms.is_none_or(|end| later * 1_000 < end));
                for later in kept {
                    prop_assert_eq!(&decide(later).0, &answer, "{:?} of {} at {}", requested, stream, later);
                }
            }
        }
    }

    #[test]
    fn a_topic_is_in_the_stream_that_captures_it(spec in any_spec()) {
        let policy = compiled(&spec.document());
        for name in TOPICS {
            let expected = STREAMS.into_iter().map(|(stream, _)| stream).find(|stream| is_captured(stream, name));
            let name = topic(name);
            prop_assert_eq!(policy.stream_of(&name).map(|stream| stream.name().as_str()), expected);
            prop_assert_eq!(policy.stream_of(&name), policy.policy().stream_of(&name));
        }
    }
}
