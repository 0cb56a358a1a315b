//! `policy.json`.

use sealbus_protocol::policy::{
    Act, CompiledPolicy, Context, Denial, DenialRule, Name, Narrowed, Policy, PolicyError, RuleId,
    StreamVerb, decide, decide_filter,
};
use serde_json::{Value, json};

use crate::build::{filter, list, number, principal, text, topic};

pub(crate) const FILE: &str = include_str!("../../vectors/policy.json");

/// 28 May 2026; the documents' own tests do not depend on it.
const NOW_MS: u64 = 1_780_000_000_000;

fn words(rules: &[RuleId]) -> Vec<&str> {
    rules.iter().map(RuleId::as_str).collect()
}

fn denied(denial: &Denial) -> Value {
    let (why, rule) = match denial.rule() {
        DenialRule::Default => ("default", None),
        DenialRule::Deny(rule) => ("deny", Some(rule)),
        DenialRule::Revoked(rule) => ("revoked", Some(rule)),
        DenialRule::Reserved => ("reserved", None),
    };
    let rules: Vec<RuleId> = rule.into_iter().cloned().collect();
    json!({ "decision": "denied", "why": why, "rules": words(&rules), "expires_ms": denial.expires_ms() })
}

fn granted(narrowed: Narrowed, rules: &[RuleId], expires_ms: Option<u64>) -> Value {
    let decision = match narrowed {
        Narrowed::No => "permitted",
        Narrowed::Yes => "narrowed",
    };
    json!({ "decision": decision, "rules": words(rules), "expires_ms": expires_ms })
}

fn answer(policy: &CompiledPolicy, question: &Value) -> Value {
    let who = principal(&question["who"]);
    let context = Context {
        source: text(&question["source"]).parse().expect("an address"),
        zone: question["zone"].as_str(),
        now_ms: number(&question["now_ms"]),
    };
    let stream = question["stream"].as_str().map(|name| Name::parse(name).expect("a name"));
    let reads = match text(&question["verb"]) {
        "replay" => Some(StreamVerb::Replay),
        "consume" => Some(StreamVerb::Consume),
        _ => None,
    };
    if let (Some(stream), Some(verb), true) = (&stream, reads, question["topic"].is_null()) {
        let filter = question["filter"].is_string().then(|| filter(&question["filter"]));
        return match policy.subject(&who).decide_stream(verb, stream, filter.as_ref(), &context) {
            Err(denial) => denied(&denial),
            Ok(permit) => granted(permit.narrowed(), permit.rules(), permit.expires_ms()),
        };
    }
    if question["filter"].is_string() {
        return match decide_filter(policy, &who, &filter(&question["filter"]), &context) {
            Err(denial) => denied(&denial),
            Ok(permit) => granted(permit.narrowed(), permit.rules(), permit.expires_ms()),
        };
    }
    let topic = question["topic"].is_string().then(|| topic(&question["topic"]));
    let act = match (text(&question["verb"]), &topic, &stream) {
        ("publish", Some(topic), None) => Act::Publish(topic),
        ("subscribe", Some(topic), None) => Act::Subscribe(topic),
        ("replay", Some(topic), Some(stream)) => Act::Replay(stream, topic),
        ("consume", Some(topic), Some(stream)) => Act::Consume(stream, topic),
        ("describe", None, Some(stream)) => Act::Describe(stream),
        ("admin", None, None) => Act::Admin,
        (verb, ..) => {
            assert_eq!(verb, "audit");
            Act::Audit
        }
    };
    match decide(policy, &who, act, &context) {
        Err(denial) => denied(&denial),
        Ok(permit) => json!({
            "decision": "permitted", "rules": [permit.rule().as_str()], "expires_ms": permit.expires_ms(),
        }),
    }
}

#[test]
fn policies_decide_so() {
    let file = crate::parse(FILE);
    let mut questions = 0;
    for case in list(&file["decide"]) {
        let policy = Policy::parse(text(&case["document"])).expect("a policy");
        let policy = CompiledPolicy::compile(policy, NOW_MS).expect("its tests pass");
        assert_eq!(policy.version(), number(&case["version"]));
        for question in list(&case["questions"]) {
            assert_eq!(answer(&policy, question), question["expect"], "{question}");
            questions += 1;
        }
    }
    assert_eq!(questions, 113);
}

#[test]
fn streams_are_read_so() {
    let case = &crate::parse(FILE)["streams"];
    let policy = Policy::parse(text(&case["document"])).expect("a policy");
    let policy = CompiledPolicy::compile(policy, NOW_MS).expect("its tests pass");
    let read = policy.streams().iter().map(|stream| {
        json!({
            "name": stream.name().as_str(), "id": stream.id().to_string(), "durability": stream.durability().as_str(),
            "topics": stream.topics().iter().map(ToString::to_string).collect::<Vec<_>>(),
            "age_ms": stream.retention().age_ms, "bytes": stream.retention().bytes,
            "messages": stream.retention().messages,
        })
    });
    assert_eq!(read.collect::<Value>(), case["streams"]);
    let topics = list(&case["stream_of"]);
    assert_eq!(topics.len(), 13);
    for of in topics {
        let found = policy.stream_of(&topic(&of["topic"])).map(|stream| stream.name().as_str());
        assert_eq!(found, of["stream"].as_str(), "{of}");
    }
}

#[test]
fn documents_are_refused_at_this_line() {
    let file = crate::parse(FILE);
    let cases = list(&file["refuse"]);
    assert_eq!(cases.len(), 57);
    for case in cases {
        let name = text(&case["name"]);
        let error = Policy::parse(text(&case["document"])).expect_err(name);
        assert_eq!(error.line() as u64, number(&case["line"]), "{name}: {error}");
    }
}

#[test]
fn documents_fail_their_own_tests() {
    let file = crate::parse(FILE);
    let cases = list(&file["tests"]);
    assert_eq!(cases.len(), 6);
    for case in cases {
        let name = text(&case["name"]);
        let policy = Policy::parse(text(&case["document"])).expect(name);
        let PolicyError::Tests(failures) = CompiledPolicy::compile(policy, NOW_MS).expect_err(name);
        assert_eq!(failures.len() as u64, number(&case["failures"]), "{name}");
    }
}
