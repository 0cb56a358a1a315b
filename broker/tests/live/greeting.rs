//! HELLO, and who is not welcome.

use std::time::Duration;

use sealbus_protocol::frame::{Frame as _, Hello, InstanceKind, Open, RequestId};
use sealbus_protocol::ids::{BusId, IncarnationId};
use sealbus_protocol::refusal::{Code, Refusal};
use sealbus_protocol::session::ClientEvent;

use crate::harness::{Bus, Incarnation, PATIENCE, allow, now_ms, policy, random, topic};

fn bus() -> Bus {
    Bus::start(&policy(1, &[allow("anna-writes", "anna", "publish", &["t/#"])]))
}

/// What becomes of a HELLO that `spoil` has made dishonest, proven anew or not.
fn refused(bus: &Bus, incarnation: &Incarnation, spoil: impl FnOnce(&mut Hello), prove: bool) -> Refusal {
    let mut client = bus.connect(incarnation);
    let mut hello = client.hello(incarnation);
    spoil(&mut hello);
    if prove {
        client.prove(&mut hello, &incarnation.signing_key);
    }
    client.session.hello(&hello);
    client.flush();
    client.expect_failure()
}

#[test]
fn each_lie_in_hello_has_its_code() {
    let bus = bus();
    let anna = Incarnation::new(bus.identity("anna"));
    let ben = Incarnation::new(bus.identity("ben"));
    let code = |spoil: &dyn Fn(&mut Hello), prove| refused(&bus, &anna, |hello| spoil(hello), prove).code();

    assert_eq!(code(&|hello| hello.proof[0] ^= 1, false), Code::Session);
    assert_eq!(code(&|hello| hello.agent.push('!'), false), Code::Session, "the proof covers every field");
    assert_eq!(code(&|hello| hello.bus_id = BusId::new([9; 16]), true), Code::Binding);
    for (min, max) in [(1, 1), (1, 0), (255, 255)] {
        let spoil = |hello: &mut Hello| (hello.minor_min, hello.minor_max) = (min, max);
        assert_eq!(code(&spoil, true), Code::Unsupported, "{min} to {max}");
    }
    assert_eq!(code(&|hello| hello.frame_bytes_max = 1_000, true), Code::Limit);
    // Ben's key, which he did bind: anna's certificate does not speak for it.
    assert_eq!(
        code(
            &|hello| {
                hello.kid = ben.context.kid;
                hello.binding = ben.binding.clone();
            },
            true
        ),
        Code::Binding
    );
    assert_eq!(code(&|hello| hello.kid = ben.context.kid, true), Code::Binding, "her binding, his key id");
    assert_eq!(code(&|hello| hello.binding = bytes::Bytes::from_static(b"SBK1"), true), Code::Binding);
    assert_eq!(code(&|hello| hello.binding = bytes::Bytes::new(), true), Code::Binding, "not known here");
    for started_ms in [0, now_ms() - 600_000, now_ms() + 600_000, u64::MAX] {
        assert_eq!(code(&|hello| hello.started_ms = started_ms, true), Code::Time, "{started_ms}");
    }
    // After all of this she is still welcome, and then without her binding too.
    drop(bus.client_as(&anna));
    let mut client = bus.connect(&anna);
    let mut hello = client.hello(&anna);
    hello.binding = bytes::Bytes::new();
    client.prove(&mut hello, &anna.signing_key);
    client.session.hello(&hello);
    client.flush();
    assert_eq!(client.expect_welcome().principal, anna.identity.principal);
    bus.audit_has(&["BINDING", "spiffe://acme.example/ben"]);
}

/// A proof is for one TLS connection: one that was overheard opens nothing.
#[test]
fn a_proof_of_another_connection_is_refused() {
    let bus = bus();
    let anna = Incarnation::new(bus.identity("anna"));
    let overheard = bus.connect(&anna).hello(&anna);
    let mut client = bus.connect(&anna);
    client.session.hello(&overheard);
    client.flush();
    assert_eq!(client.expect_failure().code(), Code::Session);
}

#[test]
fn nothing_comes_before_hello_and_hello_comes_once() {
    let bus = bus();
    let anna = Incarnation::new(bus.identity("anna"));
    let open = Open { request: RequestId(1), topic: topic("t/1") }.encode();
    let mut client = bus.connect(&anna);
    client.send_raw(&open);
    let refusal = client.expect_failure();
    assert_eq!(refusal.code(), Code::Session);
    assert!(refusal.reason().contains("HELLO was awaited"), "{refusal}");

    let mut client = bus.client_as(&anna);
    let again = client.hello(&anna).encode();
    client.send_raw(&again);
    assert_eq!(client.expect_failure().code(), Code::Session);
}

#[test]
fn hello_must_come_in_time_and_in_bounds() {
    let bus = Bus::start_with(&policy(1, &[]), |config| config.limits.handshake_timeout_ms = 300);
    let anna = Incarnation::new(bus.identity("anna"));
    let mut silent = bus.connect(&anna);
    assert_eq!(silent.expect_failure().code(), Code::Limit);
    // One that dribbles is not given more time.
    let mut slow = bus.connect(&anna);
    // A byte every ten milliseconds: whole after seconds, of which it is given less than one.
    let hello = slow.hello(&anna).encode();
    let refusal = hello.iter().find_map(|byte| {
        slow.send_raw(&[*byte]);
        match slow.event_within(Duration::from_millis(10)).unwrap() {
            None => None,
            Some(ClientEvent::Failed(refusal)) => Some(refusal),
            Some(other) => panic!("ERROR was expected, found {other:?}"),
        }
    });
    assert_eq!(refusal.expect("it is not waited for to the end").code(), Code::Limit);
    // One that declares a megabyte is not waited for.
    let mut liar = bus.connect(&anna);
    liar.send_raw(&[1, 0, 0, 0, 0, 0x10, 0, 0]);
    assert_eq!(liar.expect_failure().code(), Code::Limit);
}

#[test]
fn an_incarnation_of_another_principal_is_refused() {
    let bus = bus();
    let anna = Incarnation::new(bus.identity("anna"));
    let mut hers = bus.client_as(&anna);
    let ben = Incarnation::new(bus.identity("ben"));
    let id = anna.context.incarnation_id;
    let instance = anna.context.instance_id;
    let started_ms = anna.context.started_ms;
    let refusal = refused(
        &bus,
        &ben,
        |hello| {
            hello.incarnation_id = id;
            hello.instance_id = instance;
            hello.started_ms = started_ms;
        },
        true,
    );
    assert_eq!(refusal.code(), Code::Session);
    let mut publisher = hers.publisher("t/1");
    hers.publish(&mut publisher, &[b"still here"]).unwrap();
}

#[test]
fn the_same_client_on_a_new_connection_ends_the_old_one() {
    let bus = bus();
    let anna = Incarnation::new(bus.identity("anna"));
    let mut old = bus.client_as(&anna);
    let mut new = bus.client_as(&anna);
    assert_eq!(old.expect_failure().code(), Code::Session);
    new.publisher("t/1");
    bus.audit_has(&["superseded"]);
}

#[test]
fn a_configured_instance_fences_its_elder() {
    let bus = bus();
    let mut elder = Incarnation::new(bus.identity("anna"));
    elder.kind = InstanceKind::Configured;
    let mut younger = Incarnation::new(elder.identity.clone());
    younger.kind = InstanceKind::Configured;
    younger.context.instance_id = elder.context.instance_id;
    younger.context.incarnation_id = IncarnationId::new(random());
    younger.context.started_ms = elder.context.started_ms + 1;
    let mut old = bus.client_as(&elder);
    let mut new = bus.client_as(&younger);
    assert_eq!(old.expect_failure().code(), Code::Fenced);
    let mut back = bus.connect(&elder);
    back.greet(&elder);
    assert_eq!(back.expect_failure().code(), Code::Fenced);
    new.publisher("t/1");
}

#[test]
fn a_revoked_principal_is_refused_and_a_live_one_is_cut() {
    let bus = bus();
    let mut anna = bus.client("anna");
    let mut ben = bus.client("ben");
    let revoked = policy(2, &["[[revoke]]\nprincipal = \"spiffe://acme.example/anna\"\n\n".to_owned()]);
    let report = bus.reload_policy(&revoked);
    assert_eq!(report.sessions_cut, 1);
    assert_eq!(anna.expect_failure().code(), Code::Denied);
    assert!(matches!(ben.event(), ClientEvent::Generation(_)));
    let again = Incarnation::new(bus.identity("anna"));
    let mut client = bus.connect(&again);
    client.greet(&again);
    assert_eq!(client.expect_failure().code(), Code::Denied);
    bus.audit_has(&["principal-revoked"]);
    ben.expect_silence();
}

/// A revocation that is due later needs no reload.
#[test]
fn a_revocation_that_falls_due_cuts_the_session_then() {
    let bus = bus();
    let mut anna = bus.client("anna");
    let due_ms = now_ms() + 1_500;
    let due = (due_ms / 1_000, due_ms % 1_000);
    let from = rfc3339(due.0);
    bus.reload_policy(&policy(
        2,
        &[format!("[[revoke]]\nprincipal = \"spiffe://acme.example/anna\"\nfrom = \"{from}\"\n\n")],
    ));
    assert!(matches!(anna.event(), ClientEvent::Generation(_)));
    let ended = anna.event_within(PATIENCE).unwrap();
    assert!(
        matches!(ended, Some(ClientEvent::Failed(ref refusal)) if refusal.code() == Code::Denied),
        "{ended:?}"
    );
}

/// Seconds since 1970, written as policies write them (the days by the civil calendar).
fn rfc3339(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", rest / 3_600, rest / 60 % 60, rest % 60)
}
