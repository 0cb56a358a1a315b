//! A session acts as exactly one principal, from the one source that its listener names: which certificates are whom,
//! and which are nobody, on live listeners. FAILURES T1 to T5.

#![allow(clippy::panic, reason = "what helps a test fails the test")]

use rcgen::string::{Ia5String, TeletexString};
use rcgen::{CertificateParams, CustomExtension, DnType, DnValue, ExtendedKeyUsagePurpose, SanType};
use sealbus_protocol::identity::{Principal, PrincipalSource};
use sealbus_tests::audit::{event, mentions};
use sealbus_tests::pki::{dns, uri};
use sealbus_tests::{Producer, RawSession, TestBus, allow, sealbus_program};

const SPIFFE: usize = 0;
const DNS: usize = 1;
const CN: usize = 2;

type Change = fn(&mut CertificateParams);

/// Which listener is asked, what the certificate has, and whom WELCOME names.
type Case = (&'static str, usize, Change, Option<&'static str>);

fn names<const N: usize>(parameters: &mut CertificateParams, names: [SanType; N]) {
    parameters.subject_alt_names.extend(names);
}

fn common_name(parameters: &mut CertificateParams, name: impl Into<DnValue>) {
    parameters.distinguished_name.push(DnType::CommonName, name);
}

/// Subject alternative names as raw bytes, where the generator would refuse them.
fn raw_names(parameters: &mut CertificateParams, general_names: &[u8]) {
    let mut content = vec![0x30, u8::try_from(general_names.len()).expect("short names")];
    content.extend(general_names);
    parameters.custom_extensions.push(CustomExtension::from_oid_content(&[2, 5, 29, 17], content));
}

/// Who is nobody comes first.
const CASES: &[Case] = &[
    ("no name", SPIFFE, |_| {}, None),
    ("a dns name is no spiffe id", SPIFFE, |p| names(p, [dns("orders.bus.test")]), None),
    ("a common name is no spiffe id", SPIFFE, |p| common_name(p, "spiffe://bus.test/orders"), None),
    (
        "two uris",
        SPIFFE,
        |p| names(p, [uri("spiffe://bus.test/orders"), uri("spiffe://bus.test/billing")]),
        None,
    ),
    (
        "spiffe is not the first uri",
        SPIFFE,
        |p| names(p, [uri("https://bus.test/"), uri("spiffe://bus.test/orders")]),
        None,
    ),
    (
        "spiffe is not the only uri",
        SPIFFE,
        |p| names(p, [uri("spiffe://bus.test/orders"), uri("https://bus.test/")]),
        None,
    ),
    (
        "the same uri twice",
        SPIFFE,
        |p| names(p, [uri("spiffe://bus.test/a"), uri("spiffe://bus.test/a")]),
        None,
    ),
    ("another trust domain", SPIFFE, |p| names(p, [uri("spiffe://other.test/orders")]), None),
    ("a trust domain below ours", SPIFFE, |p| names(p, [uri("spiffe://x.bus.test/orders")]), None),
    ("our trust domain as a user", SPIFFE, |p| names(p, [uri("spiffe://bus.test@other.test/orders")]), None),
    ("a star", SPIFFE, |p| names(p, [uri("spiffe://bus.test/*")]), None),
    ("a star in a segment", SPIFFE, |p| names(p, [uri("spiffe://bus.test/or*")]), None),
    ("a hash", SPIFFE, |p| names(p, [uri("spiffe://bus.test/#")]), None),
    ("a plus", SPIFFE, |p| names(p, [uri("spiffe://bus.test/+")]), None),
    ("dots", SPIFFE, |p| names(p, [uri("spiffe://bus.test/x/../operator")]), None),
    ("an empty segment", SPIFFE, |p| names(p, [uri("spiffe://bus.test//operator")]), None),
    ("a closing slash", SPIFFE, |p| names(p, [uri("spiffe://bus.test/operator/")]), None),
    ("percent-encoded", SPIFFE, |p| names(p, [uri("spiffe://bus.test/%6fperator")]), None),
    ("a percent-encoded slash", SPIFFE, |p| names(p, [uri("spiffe://bus.test/x%2foperator")]), None),
    ("a query", SPIFFE, |p| names(p, [uri("spiffe://bus.test/orders?operator")]), None),
    ("upper-case scheme", SPIFFE, |p| names(p, [uri("SPIFFE://bus.test/operator")]), None),
    ("upper-case domain", SPIFFE, |p| names(p, [uri("spiffe://BUS.test/operator")]), None),
    ("NUL in a uri", SPIFFE, |p| names(p, [uri("spiffe://bus.test/operator\0x")]), None),
    ("newline in a uri", SPIFFE, |p| names(p, [uri("spiffe://bus.test/operator\nx")]), None),
    ("the form of another source", SPIFFE, |p| names(p, [uri("cn:operator")]), None),
    ("names that are not ascii", SPIFFE, |p| raw_names(p, b"\x86\x02\xc3\xb6"), None),
    (
        "no extended key usage",
        SPIFFE,
        |p| {
            names(p, [uri("spiffe://bus.test/orders")]);
            p.extended_key_usages.clear();
        },
        None,
    ),
    ("a common name is no dns name", DNS, |p| common_name(p, "orders.bus.test"), None),
    ("a uri is no dns name", DNS, |p| names(p, [uri("spiffe://bus.test/orders")]), None),
    ("two dns names", DNS, |p| names(p, [dns("a.bus.test"), dns("b.bus.test")]), None),
    ("a dns wildcard", DNS, |p| names(p, [dns("*.bus.test")]), None),
    ("NUL in a dns name", DNS, |p| names(p, [dns("operator.bus.test\0.other.test")]), None),
    ("newline in a dns name", DNS, |p| names(p, [dns("operator.bus.test\n")]), None),
    ("an upper-case dns name", DNS, |p| names(p, [dns("Operator.bus.test")]), None),
    ("a uri is no common name", CN, |p| names(p, [uri("spiffe://bus.test/orders")]), None),
    (
        "two common names",
        CN,
        |p| {
            common_name(p, "orders");
            p.distinguished_name.push(DnType::CustomDnType(vec![2, 5, 4, 3]), "operator");
        },
        None,
    ),
    ("NUL in a common name", CN, |p| common_name(p, "operator\0x"), None),
    ("newline in a common name", CN, |p| common_name(p, "operator\nx"), None),
    ("an escape in a common name", CN, |p| common_name(p, "operator\u{1b}[2J"), None),
    ("a direction mark in a common name", CN, |p| common_name(p, "\u{202e}rotarepo"), None),
    ("star as a common name", CN, |p| common_name(p, "*"), None),
    ("hash as a common name", CN, |p| common_name(p, "#"), None),
    ("plus as a common name", CN, |p| common_name(p, "+"), None),
    ("greater as a common name", CN, |p| common_name(p, ">"), None),
    ("slash in a common name", CN, |p| common_name(p, "orders/operator"), None),
    ("a template as a common name", CN, |p| common_name(p, "${user}"), None),
    ("a second attribute spelt in a common name", CN, |p| common_name(p, "orders+CN=operator"), None),
    (
        "a common name of a string type that readers disagree about",
        CN,
        |p| {
            let name = TeletexString::try_from("operator").expect("ASCII is Teletex");
            common_name(p, DnValue::TeletexString(name));
        },
        None,
    ),
    (
        "a spiffe id",
        SPIFFE,
        |p| names(p, [uri("spiffe://bus.test/orders")]),
        Some("spiffe://bus.test/orders"),
    ),
    (
        "a spiffe id among names of other kinds",
        SPIFFE,
        |p| {
            common_name(p, "operator");
            let mail = Ia5String::try_from("operator@bus.test").expect("mail is ASCII");
            names(
                p,
                [dns("operator.bus.test"), SanType::Rfc822Name(mail), uri("spiffe://bus.test/ns/a.b-c_d")],
            );
        },
        Some("spiffe://bus.test/ns/a.b-c_d"),
    ),
    (
        "for servers as well",
        SPIFFE,
        |p| {
            names(p, [uri("spiffe://bus.test/both")]);
            p.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        },
        Some("spiffe://bus.test/both"),
    ),
    (
        "a dns name, whatever else there is",
        DNS,
        |p| {
            common_name(p, "operator");
            names(p, [dns("orders.bus.test"), uri("spiffe://bus.test/operator")]);
        },
        Some("dns:orders.bus.test"),
    ),
    (
        "a common name, whatever else there is",
        CN,
        |p| {
            common_name(p, "Orders Service");
            p.distinguished_name.push(DnType::OrganizationName, "x,CN=operator");
            names(p, [dns("operator.bus.test")]);
        },
        Some("cn:Orders Service"),
    ),
    ("a common name beyond ascii", CN, |p| common_name(p, "Zoë"), Some("cn:Zoë")),
];

#[tokio::test(flavor = "multi_thread")]
async fn each_certificate_is_exactly_one_principal_or_nobody() {
    let sources = [PrincipalSource::Spiffe, PrincipalSource::Dns, PrincipalSource::CommonName];
    let bus = TestBus::with_listeners(&sources, "[audit]\nsingles_per_second_max = 1000\n");
    let broker = bus.serve(sealbus_program!()).await;
    for (name, listener, change, expected) in CASES {
        let credential = bus.authority().client_with(change);
        // Who is nobody tries to pass as whom it would like to be.
        let wanted = expected
            .unwrap_or(["spiffe://bus.test/operator", "dns:operator.bus.test", "cn:operator"][*listener]);
        let principal = Principal::parse(wanted).unwrap();
        let producer = Producer::new(bus.bus_id(), &principal, &credential);
        let address = broker.addresses()[*listener];
        let before = bus.audit().lines().len();
        match (RawSession::open(&bus, address, &credential, &producer).await, expected) {
            (Ok((_, welcome)), Some(expected)) => assert_eq!(welcome.principal.as_str(), *expected, "{name}"),
            (Ok((_, welcome)), None) => panic!("{name}: nobody was welcomed as {}", welcome.principal),
            (Err(end), Some(expected)) => panic!("{name}: {expected} was refused: {end}"),
            (Err(_), None) => {
                // One line says why, and does not take the peer's word for who it is.
                let log = bus.audit();
                let lines = log.await_count(name, before + 1, |_| true).await;
                let new = &lines[before..];
                assert_eq!(new.len(), 1, "{name}: {new:?}");
                assert!(
                    ["session-refused", "handshake-failed"].contains(&event(&new[0])),
                    "{name}: {}",
                    new[0]
                );
                assert!(new[0]["user"]["name"].as_str() != Some(wanted), "{name}: {}", new[0]);
            }
        }
        if expected.is_some() {
            let log = bus.audit();
            log.await_line(name, |line| event(line) == "session-opened" && mentions(line, wanted)).await;
            // Its end is in the log before the next case counts lines.
            log.await_line(name, |line| event(line) == "session-closed" && mentions(line, wanted)).await;
        }
    }
}

/// A key binding is the certificate's of this connection, or nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_cannot_borrow_a_binding() {
    let bus = TestBus::new();
    let broker = bus.serve(sealbus_program!()).await;
    let (anna, ben) = (bus.credential("anna"), bus.credential("ben"));
    let of_ben = Producer::new(bus.bus_id(), &bus.principal("ben"), &ben);

    // Ben's binding, as it can be seen on the wire, on Anna's connection: even with his signing key.
    let end =
        RawSession::open(&bus, broker.address(), &anna, &of_ben).await.err().expect("a borrowed binding");
    assert!(end.to_string().starts_with("BINDING"), "{end}");

    // A binding that states Ben, made with Anna's certificate.
    let forged = Producer::new(bus.bus_id(), &bus.principal("ben"), &anna);
    let end = RawSession::open(&bus, broker.address(), &anna, &forged).await.err().expect("a forged binding");
    assert!(end.to_string().starts_with("BINDING"), "{end}");

    // Anna's own binding, and a key id that is not its key's.
    let own = Producer::new(bus.bus_id(), &bus.principal("anna"), &anna);
    let mut hello = own.hello();
    hello.kid = of_ben.hello().kid;
    let options = sealbus_tests::TlsOptions::of(&anna);
    let end = RawSession::open_with(&bus, broker.address(), &options, &own, hello)
        .await
        .err()
        .expect("another kid");
    assert!(end.to_string().starts_with("BINDING"), "{end}");

    // Anna's own binding, and a proof by another key.
    let end = RawSession::open_with(&bus, broker.address(), &options, &of_ben, own.hello()).await.err();
    assert!(end.expect("a proof by another key").to_string().starts_with("SESSION"));

    // HELLO for another bus.
    let mut hello = own.hello();
    hello.bus_id = sealbus_protocol::ids::BusId::new([9; 16]);
    let end = RawSession::open_with(&bus, broker.address(), &options, &own, hello).await.err();
    assert!(end.expect("another bus").to_string().starts_with("BINDING"));

    let (_, welcome) = RawSession::open(&bus, broker.address(), &anna, &own).await.unwrap();
    assert_eq!(welcome.principal, bus.principal("anna"));
}

/// A proof that was seen on one connection means nothing on another.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_proof_does_not_travel() {
    let bus = TestBus::new();
    let broker = bus.serve(sealbus_program!()).await;
    let anna = bus.credential("anna");
    let producer = Producer::new(bus.bus_id(), &bus.principal("anna"), &anna);
    let options = sealbus_tests::TlsOptions::of(&anna);
    let connect = || sealbus_tests::RawClient::connect(&bus, broker.address(), &options);
    let first = RawSession::new(connect().await.unwrap());
    let mut hello = producer.hello();
    first.prove(&mut hello, &producer);
    let mut second = RawSession::new(connect().await.unwrap());
    second.session.hello(&hello);
    let end = second.ended().await;
    assert!(end.to_string().starts_with("SESSION"), "{end}");
    // On its own connection it is good.
    let mut first = first;
    first.session.hello(&hello);
    first.next().await.unwrap();
}

/// FAILURES T4: a principal is opaque, and a rule for one is for no other.
#[tokio::test(flavor = "multi_thread")]
async fn a_rule_for_a_path_reaches_whole_segments_only() {
    let bus = TestBus::new();
    bus.write_policy(&allow("below", "spiffe://bus.test/ns/*", "publish", "t"));
    let broker = bus.serve(sealbus_program!()).await;
    for (name, allowed) in
        [("ns/a", true), ("ns/a/b", true), ("ns", false), ("nsx", false), ("ns-a", false), ("x/ns/a", false)]
    {
        let principal = Principal::parse(&format!("spiffe://bus.test/{name}")).unwrap();
        let credential = bus.authority().client(&principal);
        let producer = Producer::new(bus.bus_id(), &principal, &credential);
        let (mut session, _) =
            RawSession::open(&bus, broker.address(), &credential, &producer).await.unwrap();
        assert_eq!(session.open_topic("t").await.is_ok(), allowed, "{name}");
    }
}
