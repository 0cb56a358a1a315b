//! Administration over a session.

use sealbus_protocol::frame::admin::{Decision, Question};
use sealbus_protocol::frame::{Operation, Outcome};
use sealbus_protocol::refusal::{Code, Refusal};
use sealbus_protocol::session::ClientEvent;

use crate::harness::{Bus, Client, allow, policy, principal, topic};

fn text(version: u64) -> String {
    policy(
        version,
        &[
            allow("ops-administer", "ops", "admin", &[]),
            allow("ops-audit", "ops", "audit", &[]),
            allow("anna-writes", "anna", "publish", &["t/#"]),
        ],
    )
}

fn ask(client: &mut Client, operation: Operation) -> Result<Outcome, Refusal> {
    let request = client.session.admin(operation).unwrap();
    client.flush();
    loop {
        match client.event() {
            ClientEvent::AdminResult(result) if result.request == request => return Ok(result.outcome),
            ClientEvent::Refused(refused) if refused.request == request => return Err(refused.refusal),
            ClientEvent::Generation(_) => {}
            other => panic!("found {other:?}"),
        }
    }
}

#[test]
fn who_has_the_verb_reloads_and_who_has_not_is_told_why() {
    let bus = Bus::start(&text(1));
    let mut ops = bus.client("ops");
    let mut anna = bus.client("anna");
    let refusal = ask(&mut anna, Operation::PolicyReload).unwrap_err();
    assert_eq!(refusal.code(), Code::Denied);
    bus.write("policy.toml", &text(2));
    let Outcome::PolicyReloaded {
        generation: 2,
        version: 2,
        rules_before: 3,
        rules_after: 3,
        sessions_cut: 0,
        ..
    } = ask(&mut ops, Operation::PolicyReload).unwrap()
    else {
        panic!("the second policy is in force")
    };
    assert!(matches!(anna.event(), ClientEvent::Generation(_)), "on every connection");
    bus.write("policy.toml", "version = \"three\"");
    let refusal = ask(&mut ops, Operation::PolicyReload).unwrap_err();
    assert!(refusal.reason().contains("policy.toml") && refusal.reason().contains("version"), "{refusal}");
    bus.audit_has(&["policy reload", "spiffe://acme.example/anna"]);
}

#[test]
fn anybody_may_ask_about_itself_and_administrators_about_others() {
    let bus = Bus::start(&text(1));
    let mut anna = bus.client("anna");
    let mut ops = bus.client("ops");
    let can = |principal, question| Operation::CanI { principal, question };
    for (name, expected, rule) in
        [("t/1", Decision::Permitted, "anna-writes"), ("u", Decision::Denied, "no rule")]
    {
        let question = Question::Publish(topic(name));
        for answer in [
            ask(&mut anna, can(None, question.clone())),
            ask(&mut anna, can(Some(principal("anna")), question.clone())),
            ask(&mut ops, can(Some(principal("anna")), question.clone())),
        ] {
            let Outcome::Decided { decision, why } = answer.unwrap() else { panic!("a decision") };
            assert_eq!(decision, expected);
            assert!(why.contains(rule), "{why}");
        }
    }
    let about_another = can(Some(principal("ops")), Question::Admin);
    assert_eq!(ask(&mut anna, about_another).unwrap_err().code(), Code::Denied);
}

#[test]
fn the_audit_log_is_read_with_its_own_verb() {
    let mut bus = Bus::start(&text(1));
    let mut ops = bus.client("ops");
    bus.audit_has(&["300201", "ops"]);
    let Outcome::AuditLines { from: 0, next, lines } =
        ask(&mut ops, Operation::AuditRead { from: 0, lines_max: 2 }).unwrap()
    else {
        panic!("lines")
    };
    assert_eq!((next, lines.iter().filter(|byte| **byte == b'\n').count()), (2, 2));
    let mut anna = bus.client("anna");
    let refusal = ask(&mut anna, Operation::AuditRead { from: 0, lines_max: 2 }).unwrap_err();
    assert_eq!(refusal.code(), Code::Denied);
    bus.audit_has(&["audit read", "spiffe://acme.example/anna"]);
    // Following the log does not write to it: it says once that the session reads.
    for _ in 0..3 {
        ask(&mut ops, Operation::AuditRead { from: 1, lines_max: 1 }).unwrap();
    }
    bus.shutdown();
    let log = std::fs::read_to_string(bus.path("data/audit/audit.jsonl")).unwrap();
    let reads = log.lines().filter(|line| line.contains("audit read") && line.contains("acme.example/ops"));
    assert_eq!(reads.count(), 1, "{log}");
}
