//! What a peer meets before it is known: TLS 1.3 with a certificate of this listener's authority and `sealbus/1`, or an
//! alert and one audit line that says why.

#![allow(clippy::panic, reason = "what helps a test fails the test")]

use std::net::SocketAddr;
use std::process::{Command, Stdio};

use rcgen::ExtendedKeyUsagePurpose;
use rustix::process::Signal;
use rustls::HandshakeKind;
use rustls::client::Resumption;
use sealbus_protocol::frame::{HEADER_LEN, Hello};
use sealbus_tests::audit::{event, mentions, reason, source_port};
use sealbus_tests::pki::{seconds_from_now, self_signed, uri};
use sealbus_tests::raw::{attempt, speak_plainly};
use sealbus_tests::{
    Authority, BrokerProcess, Credential, Ending, Producer, RawClient, RawSession, TestBus, TlsOptions,
    sealbus_program,
};
use serde_json::Value;

/// Every failure its own line: flood control has tests of its own.
const SETTINGS: &str = "[audit]\nsingles_per_second_max = 1000\n";

const ANNA: &str = "spiffe://bus.test/anna";

fn failed(line: &Value) -> bool {
    event(line) == "handshake-failed"
}

/// A good client gets in, which also puts everything before it into the audit log.
async fn good_client_gets_in(bus: &TestBus, broker: &BrokerProcess, name: &str) {
    let credential = bus.credential(name);
    let producer = Producer::new(bus.bus_id(), &bus.principal(name), &credential);
    let opened = RawSession::open(bus, broker.address(), &credential, &producer).await;
    let (_, welcome) = opened.unwrap_or_else(|end| panic!("{name} is a good client, and met {end}"));
    assert_eq!(welcome.principal, bus.principal(name));
    let log = bus.audit();
    log.await_line("a good session", |line| event(line) == "session-opened" && mentions(line, name)).await;
}

/// FAILURES T5, T7, T10.
#[tokio::test(flavor = "multi_thread")]
async fn each_certificate_that_is_not_good_gets_an_alert_and_one_line() {
    let bus = TestBus::with(SETTINGS);
    let authority = bus.authority();
    let foreign = Authority::new("another authority");
    let namesake = Authority::new("authority of the bus under test");
    let named = |change: fn(&mut rcgen::CertificateParams)| {
        authority.client_with(|parameters| {
            parameters.subject_alt_names.push(uri(ANNA));
            change(parameters);
        })
    };
    let revoked = bus.credential("revoked");
    bus.revoke(revoked.serial());
    let cases: Vec<(&str, Option<Credential>, &str)> = vec![
        ("no certificate", None, "no-certificate"),
        ("a foreign authority", Some(foreign.client(&bus.principal("anna"))), "unknown-issuer"),
        (
            "a foreign authority of the same name",
            Some(namesake.client(&bus.principal("anna"))),
            "bad-certificate",
        ),
        ("self-signed", Some(self_signed(ANNA)), "unknown-issuer"),
        ("expired", Some(named(|p| p.not_after = seconds_from_now(-60))), "expired"),
        ("not yet valid", Some(named(|p| p.not_before = seconds_from_now(3_600))), "not-yet-valid"),
        (
            "for servers only",
            Some(named(|p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth])),
            "bad-certificate",
        ),
        ("the broker's own", Some(bus.broker_credential().clone()), "bad-certificate"),
        ("the authority's own", Some(authority.own_credential()), "bad-certificate"),
        ("revoked", Some(revoked), "revoked"),
    ];
    let broker = bus.serve(sealbus_program!()).await;
    let mut ports = Vec::new();
    for (name, credential, reason) in &cases {
        let options = TlsOptions { credential: credential.clone(), ..TlsOptions::anonymous() };
        let (port, received, ending) = attempt(&bus, broker.address(), &options).await;
        assert!(matches!(ending, Ending::Alert(_)), "{name}: {ending:?}");
        assert_eq!(received, b"", "{name}: nothing but the alert is sent");
        ports.push((*name, port, *reason));
    }
    good_client_gets_in(&bus, &broker, "anna").await;
    let lines = bus.audit().lines();
    for (name, port, expected) in ports {
        let of_case: Vec<_> = lines.iter().filter(|line| source_port(line) == u64::from(port)).collect();
        assert_eq!(of_case.len(), 1, "{name}: exactly one line, found {of_case:?}");
        assert!(failed(of_case[0]), "{name}: {}", of_case[0]);
        assert_eq!(reason(of_case[0]), expected, "{name}: {}", of_case[0]);
    }
    assert_eq!(lines.iter().filter(|line| failed(line)).count(), cases.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_asks_for_another_protocol_or_none_is_refused() {
    let bus = TestBus::with(SETTINGS);
    let broker = bus.serve(sealbus_program!()).await;
    let credential = bus.credential("anna");
    for protocols in [
        vec![],
        vec![b"h2".to_vec()],
        vec![b"sealbus/2".to_vec()],
        vec![b"mqtt".to_vec(), b"sealbus".to_vec()],
    ] {
        let options = TlsOptions { protocols: protocols.clone(), ..TlsOptions::of(&credential) };
        let (port, received, _) = attempt(&bus, broker.address(), &options).await;
        assert_eq!(received, b"", "{protocols:?}");
        let log = bus.audit();
        let line = log.await_line("alpn", |line| source_port(line) == u64::from(port)).await;
        assert_eq!((event(&line), reason(&line)), ("handshake-failed", "alpn"), "{protocols:?}");
    }
    good_client_gets_in(&bus, &broker, "anna").await;
    assert_eq!(bus.audit().matching(failed).len(), 4);
}

/// FAILURES T22: one protocol, and nothing that answers to another.
#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_not_tls_get_at_most_an_alert() {
    let bus = TestBus::with(SETTINGS);
    let broker = bus.serve(sealbus_program!()).await;
    let cases: [(&str, &[u8]); 6] = [
        ("http", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        ("http/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        ("mqtt", b"\x10\x0e\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x01x"),
        ("redis", b"*1\r\n$4\r\nPING\r\n"),
        ("nats", b"CONNECT {\"verbose\":true}\r\nPING\r\n"),
        ("our own frames without tls", b"\x01\x00\x00\x00\x00\x00\x00\x10aaaaaaaaaaaaaaaa"),
    ];
    for (name, bytes) in cases {
        let (port, received) = speak_plainly(broker.address(), bytes).await;
        // An alert record: type 21, and seven bytes in all.
        let alert_at_most = received.is_empty() || (received.len() == 7 && received[0] == 21);
        assert!(alert_at_most, "{name}: {received:?}");
        let log = bus.audit();
        let line = log.await_line(name, |line| source_port(line) == u64::from(port)).await;
        assert_eq!((event(&line), reason(&line)), ("handshake-failed", "not-tls"), "{name}: {line}");
    }
    good_client_gets_in(&bus, &broker, "anna").await;
    assert_eq!(bus.audit().matching(failed).len(), cases.len());
}

/// As a person would look: nothing of this harness is between.
#[tokio::test(flavor = "multi_thread")]
async fn openssl_without_a_certificate_with_a_foreign_one_and_with_tls_1_2_gets_an_alert() {
    if Command::new("openssl").arg("version").output().is_err() {
        println!("skipped: there is no openssl here, and the other tests say the same without it");
        return;
    }
    let bus = TestBus::with(SETTINGS);
    Authority::new("foreign").client(&bus.principal("anna")).write_to(&bus.path("foreign"));
    let broker = bus.serve(sealbus_program!()).await;
    let (certificate, key) = (bus.identity("anna").join("tls.crt"), bus.identity("anna").join("tls.key"));
    let (foreign_certificate, foreign_key) = (bus.path("foreign/tls.crt"), bus.path("foreign/tls.key"));
    let text = |path: &std::path::Path| path.to_str().expect("temporary paths are UTF-8").to_owned();
    let good = ["-cert".to_owned(), text(&certificate), "-key".to_owned(), text(&key)];
    let foreign = ["-cert".to_owned(), text(&foreign_certificate), "-key".to_owned(), text(&foreign_key)];
    let cases: [(&str, Vec<String>, &str, &str); 3] = [
        ("no certificate", vec!["-tls1_3".to_owned()], "no-certificate", "alert certificate required"),
        ("foreign", [&["-tls1_3".to_owned()], &foreign[..]].concat(), "unknown-issuer", "alert unknown ca"),
        (
            "tls 1.2",
            [&["-tls1_2".to_owned()], &good[..]].concat(),
            "protocol-version",
            "alert protocol version",
        ),
    ];
    for (count, (name, arguments, expected, alert)) in cases.iter().enumerate() {
        let said = openssl(broker.address(), arguments).await;
        assert!(said.to_lowercase().contains(alert), "{name}: {said}");
        let log = bus.audit();
        let lines = log.await_count(name, count + 1, failed).await;
        assert_eq!(lines.len(), count + 1, "{name}: one line for each");
        assert_eq!(reason(&lines[count]), *expected, "{name}: {}", lines[count]);
    }
    good_client_gets_in(&bus, &broker, "anna").await;
    assert_eq!(bus.audit().matching(failed).len(), cases.len());
}

async fn openssl(address: SocketAddr, arguments: &[String]) -> String {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-connect", &address.to_string(), "-alpn", "sealbus/1"]).args(arguments);
    // Its end of stdin must not end it before it has read the alert.
    command.args(["-ign_eof"]).stdin(Stdio::null());
    let mut process = sealbus_tests::Process::start("openssl", &mut command);
    process.await_end().await;
    process.stdout() + &process.stderr()
}

/// FAILURES T9: a resumed session would not meet the verifier.
#[tokio::test(flavor = "multi_thread")]
async fn no_ticket_is_given_and_each_handshake_is_a_full_one() {
    let bus = TestBus::with(SETTINGS);
    let broker = bus.serve(sealbus_program!()).await;
    let credential = bus.credential("anna");
    let keeping =
        TlsOptions { resumption: Resumption::in_memory_sessions(16), ..TlsOptions::of(&credential) };
    let config = keeping.config(&bus);
    for round in 0..3 {
        let producer = Producer::new(bus.bus_id(), &bus.principal("anna"), &credential);
        let client = RawClient::connect_with(broker.address(), config.clone(), None).await.unwrap();
        let mut session = RawSession::new(client);
        let mut hello: Hello = producer.hello();
        session.prove(&mut hello, &producer);
        session.session.hello(&hello);
        // WELCOME comes after any ticket would have.
        session.next().await.unwrap();
        let (_, connection) = session.client.stream.get_ref();
        assert_eq!(connection.handshake_kind(), Some(HandshakeKind::Full), "round {round}");
        assert_eq!(connection.tls13_tickets_received(), 0, "round {round}");
        assert!(!connection.is_early_data_accepted(), "round {round}");
    }
}

/// FAILURES T8, T9, T14.
#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_is_revoked_ends_its_session_and_opens_no_other() {
    let bus = TestBus::with(SETTINGS);
    let broker = bus.serve(sealbus_program!()).await;
    let (credential, other) = (bus.credential("anna"), bus.credential("ben"));
    let producer = Producer::new(bus.bus_id(), &bus.principal("anna"), &credential);
    let keeping =
        TlsOptions { resumption: Resumption::in_memory_sessions(16), ..TlsOptions::of(&credential) };
    let (mut session, _) =
        RawSession::open_with(&bus, broker.address(), &keeping, &producer, producer.hello()).await.unwrap();
    let bystander = Producer::new(bus.bus_id(), &bus.principal("ben"), &other);
    let (mut untouched, _) = RawSession::open(&bus, broker.address(), &other, &bystander).await.unwrap();

    bus.revoke(credential.serial());
    broker.signal(Signal::HUP);
    let end = session.ended().await;
    let log = bus.audit();
    let cut = log.await_line("the session is cut", |line| event(line) == "session-cut").await;
    assert_eq!(reason(&cut), "certificate-refused", "{cut} (the client met: {end})");
    assert!(mentions(&cut, ANNA));

    let (port, _, ending) = attempt(&bus, broker.address(), &keeping).await;
    assert!(matches!(ending, Ending::Alert(_)), "{ending:?}");
    let line = log.await_line("the refusal", |line| source_port(line) == u64::from(port)).await;
    assert_eq!(reason(&line), "revoked");
    assert!(
        untouched.subscribe("x", 1_000).await.is_err(),
        "the other session lives, and its policy says no"
    );
}

/// FAILURES T7, T8, T27: what cannot be read changes nothing, and certainly does not mean "anybody".
#[tokio::test(flavor = "multi_thread")]
async fn files_that_are_not_good_are_refused_at_start_and_change_nothing_later() {
    let bad: [(&str, &str); 6] = [
        ("ca.pem", ""),
        ("ca.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
        ("crl.pem", ""),
        ("crl.pem", "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n"),
        ("broker/tls.crt", ""),
        ("broker/tls.key", "no key\n"),
    ];
    for (file, content) in bad {
        let bus = TestBus::with(SETTINGS);
        bus.write(file, content);
        let said = BrokerProcess::start_refused(sealbus_program!(), &bus.config()).await;
        let name = file.rsplit('/').next().unwrap_or(file);
        assert!(said.contains(name), "{file}: the refusal names the file: {said}");
    }
    let bus = TestBus::with(SETTINGS);
    let broker = bus.serve(sealbus_program!()).await;
    for (count, (file, content)) in bad.into_iter().enumerate() {
        let path = bus.path(file);
        let kept = std::fs::read_to_string(&path).unwrap();
        bus.write(file, content);
        broker.signal(Signal::HUP);
        let log = bus.audit();
        log.await_count(file, count + 1, |line| event(line) == "tls-refused").await;
        let (_, _, ending) = attempt(&bus, broker.address(), &TlsOptions::anonymous()).await;
        assert!(
            matches!(ending, Ending::Alert(_)),
            "{file}: nobody gets in without a certificate: {ending:?}"
        );
        good_client_gets_in(&bus, &broker, &format!("client-{count}")).await;
        std::fs::write(&path, kept).unwrap();
    }
}

/// FAILURES T51: every listener is written out in full, and nothing turns a protection off.
#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_that_leaves_something_out_opens_nothing() {
    let without = |key: &'static str| {
        move |text: &str| {
            let kept = text.lines().filter(|line| !line.starts_with(key));
            kept.map(|line| format!("{line}\n")).collect::<String>()
        }
    };
    let with = |line: &'static str| move |text: &str| format!("{text}{line}\n");
    type Change = Box<dyn Fn(&str) -> String>;
    let cases: Vec<(&str, Change)> = vec![
        ("no client_ca", Box::new(without("client_ca"))),
        ("no certificate", Box::new(without("certificate"))),
        ("no key", Box::new(without("key"))),
        ("no revocation", Box::new(without("revocation"))),
        ("no crl", Box::new(without("crl"))),
        ("no principal", Box::new(without("principal"))),
        ("no trust domain", Box::new(without("trust_domain"))),
        ("no policy", Box::new(without("policy"))),
        ("no bus", Box::new(without("bus_id"))),
        ("anonymous", Box::new(with("allow_anonymous = true"))),
        ("no tls", Box::new(with("tls = false"))),
        ("a second listener in part", Box::new(with("[[listener]]\naddress = \"127.0.0.1:0\""))),
        ("nothing", Box::new(|_: &str| String::new())),
    ];
    for (name, change) in cases {
        let bus = TestBus::new();
        let text = std::fs::read_to_string(bus.config()).unwrap();
        let changed = change(&text);
        assert_ne!(changed, text, "{name}");
        bus.write("sealbus.toml", &changed);
        let said = BrokerProcess::start_refused(sealbus_program!(), &bus.config()).await;
        assert!(said.contains("sealbus.toml"), "{name}: {said}");
        assert!(!bus.path("data/audit").exists(), "{name}: nothing was begun");
    }
}

/// A key that others can read is as good as published.
#[tokio::test(flavor = "multi_thread")]
async fn a_private_key_that_others_can_read_is_refused() {
    use std::os::unix::fs::PermissionsExt as _;
    let bus = TestBus::new();
    let key = bus.path("broker/tls.key");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o640)).unwrap();
    let said = BrokerProcess::start_refused(sealbus_program!(), &bus.config()).await;
    assert!(said.contains("0640"), "{said}");
}

/// A TLS record that lies about its length costs no more than it is.
#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_record_that_lies_about_its_length_is_refused() {
    let bus = TestBus::with(SETTINGS);
    let broker = bus.serve(sealbus_program!()).await;
    // A record of 65,535 bytes, where TLS allows 16,384 and a little.
    let (port, received) = speak_plainly(broker.address(), &[22, 3, 1, 0xff, 0xff, 1, 0, 0, 0]).await;
    assert!(received.len() < HEADER_LEN, "{received:?}");
    let log = bus.audit();
    let line = log.await_line("the lie", |line| source_port(line) == u64::from(port)).await;
    assert_eq!((event(&line), reason(&line)), ("handshake-failed", "not-tls"));
    good_client_gets_in(&bus, &broker, "anna").await;
}
