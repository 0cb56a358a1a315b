//! `policy.json`.

use sealbus_protocol::policy::{
    Act, CompiledPolicy, Context, Denial, DenialRule, Narrowed, Policy, PolicyError, RuleId, decide,
    decide_filter,
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

fn answer(policy: &CompiledPolicy, question: &Value) -> Value {
    let who = principal(&question["who"]);
    let context = Context {
        source: text(&question["source"]).parse().expect("an address"),
        zone: question["zone"].as_str(),
        now_ms: number(&question["now_ms"]),
    };
    if question["filter"].is_string() {
        return match decide_filter(policy, &who, &filter(&question["filter"]), &context) {
            Err(denial) => denied(&denial),
            Ok(permit) => json!({
                "decision": match permit.narrowed() {
                    Narrowed::No => "permitted",
                    Narrowed::Yes => "narrowed",
                },
                "rules": words(permit.rules()),
                "expires_ms": permit.expires_ms(),
            }),
        };
    }
    let topic = question["topic"].is_string().then(|| topic(&question["topic"]));
    let act = match (text(&question["verb"]), &topic) {
        ("publish", Some(topic)) => Act::Publish(topic),
        ("subscribe", Some(topic)) => Act::Subscribe(topic),
        ("admin", None) => Act::Admin,
        (verb, _) => {
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
    assert_eq!(questions, 71);
}

#[test]
fn documents_are_refused_at_this_line() {
    let file = crate::parse(FILE);
    let cases = list(&file["refuse"]);
    assert_eq!(cases.len(), 36);
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
