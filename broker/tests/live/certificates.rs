//! Certificates that are refused, and those that stop being good while their session lives.

use sealbus_protocol::refusal::Code;
use sealbus_protocol::session::{ALPN, ClientEvent};

use crate::harness::{Bus, Client, Identity, Incarnation, allow, ca, policy};

/// The alert, or the end, comes with the first read after the handshake.
fn expect_refused(client: std::io::Result<Client>) {
    if let Ok(mut client) = client {
        let found = client.event_within(crate::harness::PATIENCE);
        assert!(found.is_err(), "found {found:?}");
    }
}

#[test]
fn strangers_are_turned_away_and_the_log_says_why() {
    let bus = Bus::start(&policy(1, &[]));
    let foreign = ca("Foreign CA");
    expect_refused(Client::connect(bus.address(), &bus.ca, None, &[ALPN]));
    bus.audit_has(&["no-certificate"]);
    expect_refused(Client::connect(
        bus.address(),
        &bus.ca,
        Some(&Identity::issue(&foreign, "anna", 1)),
        &[ALPN],
    ));
    bus.audit_has(&["unknown-issuer"]);
    expect_refused(Client::connect(bus.address(), &bus.ca, Some(&bus.identity("anna")), &[]));
    expect_refused(Client::connect(bus.address(), &bus.ca, Some(&bus.identity("anna")), &[b"h2"]));
    bus.audit_has(&["alpn"]);
    bus.client("anna");
}

#[test]
fn a_reload_of_the_revocation_list_cuts_the_session_it_names_and_no_other() {
    let bus = Bus::start(&policy(1, &[]));
    let lost = Incarnation::new(Identity::issue(&bus.ca, "anna", 77));
    let mut anna = bus.client_as(&lost);
    let mut ben = bus.client("ben");
    bus.revoke(&[77]);
    let report = bus.reload().unwrap();
    assert_eq!(report.sessions_cut, 1);
    assert_eq!(anna.expect_failure().code(), Code::Binding);
    assert!(matches!(ben.event(), ClientEvent::Generation(_)));
    ben.expect_silence();
    expect_refused(Client::connect(bus.address(), &bus.ca, Some(&lost.identity), &[ALPN]));
    bus.audit_has(&["certificate-refused", "spiffe://acme.example/anna"]);
    // Her other certificate is good, but a binding by the revoked one is not.
    let renewed = Identity::issue(&bus.ca, "anna", 78);
    let mut by_lost = Incarnation::new(renewed.clone());
    by_lost.binding = lost.identity.bind(&by_lost.signing_key);
    let mut client = bus.connect(&by_lost);
    client.greet(&by_lost);
    assert_eq!(client.expect_failure().code(), Code::Binding);
    bus.client_as(&Incarnation::new(renewed));
}

/// What a producer left in an outbox before its certificate was revoked is not delivered after the reload returned.
#[test]
fn nothing_of_a_revoked_producer_is_delivered_after_the_reload() {
    let bus = Bus::start(&policy(
        1,
        &[
            allow("anna-writes", "anna", "publish", &["t/#"]),
            allow("ben-reads", "ben", "subscribe", &["t/#"]),
        ],
    ));
    let mut ben = bus.client("ben");
    let subscription = ben.subscribe_with("t/#", 1).unwrap().subscription;
    let lost = Incarnation::new(Identity::issue(&bus.ca, "anna", 77));
    let mut anna = bus.client_as(&lost);
    let mut publisher = anna.publisher("t/1");
    // One is delivered, overdrawing the credit; the others wait.
    for _ in 0..5 {
        anna.publish(&mut publisher, &[b"before"]).unwrap();
    }
    assert_eq!(ben.payloads().1, [b"before"]);
    bus.revoke(&[77]);
    bus.reload().unwrap();
    ben.session.credit(subscription, 1_000_000);
    ben.flush();
    assert!(matches!(ben.event(), ClientEvent::Generation(_)));
    ben.expect_silence();
    // Her next certificate is good, and so is what she signs from then on.
    let mut anna = bus.client_as(&Incarnation::new(Identity::issue(&bus.ca, "anna", 78)));
    let mut publisher = anna.publisher("t/1");
    anna.publish(&mut publisher, &[b"after"]).unwrap();
    assert_eq!(ben.payloads().1, [b"after"]);
}

#[test]
fn a_bad_revocation_list_changes_nothing() {
    let bus = Bus::start(&policy(1, &[]));
    bus.client("anna");
    for bad in ["", "garbage", "-----BEGIN X509 CRL-----\n-----END X509 CRL-----\n"] {
        bus.write("ca.crl", bad);
        assert!(bus.reload().is_err());
        bus.client("anna");
    }
}
