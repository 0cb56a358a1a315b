use std::time::Duration;

use rcgen::SanType;
use sealbus_client::{
    CloseReason, Code, ConnectError, DeliveryError, Event, Identity, IdentityError, Question, Reconnect,
    Refusal, RequestError, Topic, Trust, TrustFileError,
};

use crate::fake::{Fake, Say};
use crate::pki::{BUS_ID, Pki, chmod, localhost};
use crate::{PATIENCE, client, connected, event, payload};

#[tokio::test]
async fn a_session_says_who_we_are_and_what_holds() {
    let pki = Pki::new();
    let fake = Fake::start(&pki).await;
    let bus = connected(&pki, &fake, "orders").await;
    assert_eq!(bus.principal().as_str(), "spiffe://bus.example/orders");
    assert_eq!((bus.policy().generation, bus.policy().version), (1, 1));
    let answer = bus.can_i(None, Question::Publish(Topic::parse("a").unwrap())).await.unwrap();
    assert!(answer.is_permitted());
    let page = bus.read_audit(5, 10).await.unwrap();
    assert_eq!((page.from, page.next, page.lines.len()), (5, 7, 2));
    let refused = bus.reload_policy().await.unwrap_err();
    assert_eq!(refused.code(), Some(Code::Denied));
    bus.close().await.unwrap();
}

#[tokio::test]
async fn a_broker_with_a_certificate_for_another_host_is_refused() {
    let pki = Pki::new();
    let other = [SanType::DnsName("elsewhere.example".try_into().unwrap())];
    let fake = Fake::start_with(&pki, pki.server(&other, &pki.ca, b"sealbus/1")).await;
    let error = client(&pki, &fake, "orders").connect().await.unwrap_err();
    assert!(matches!(error, ConnectError::Tls { .. }), "{error}");
    assert_eq!(fake.state(|state| state.hellos), 0, "nothing is said to such a broker");
}

#[tokio::test]
async fn a_broker_of_another_ca_is_refused() {
    let pki = Pki::new();
    let fake = Fake::start_with(&pki, pki.server(&localhost(), &pki.foreign, b"sealbus/1")).await;
    let error = client(&pki, &fake, "orders").connect().await.unwrap_err();
    assert!(matches!(error, ConnectError::Tls { .. }), "{error}");
}

#[tokio::test]
async fn a_server_of_another_protocol_is_refused() {
    let pki = Pki::new();
    for alpn in [&b"h2"[..], b"sealbus/2"] {
        let fake = Fake::start_with(&pki, pki.server(&localhost(), &pki.ca, alpn)).await;
        assert!(client(&pki, &fake, "orders").connect().await.is_err());
    }
}

#[tokio::test]
async fn a_client_of_another_ca_reads_why_it_is_refused() {
    let pki = Pki::new();
    let strict = Pki::new();
    // This broker believes another PKI's clients; its own certificate is from ours.
    let mut tls = (*strict.server(&localhost(), &strict.ca, b"sealbus/1")).clone();
    tls.cert_resolver = pki.server(&localhost(), &pki.ca, b"sealbus/1").cert_resolver.clone();
    let fake = Fake::start_with(&strict, tls.into()).await;
    let error = client(&pki, &fake, "orders").connect().await.unwrap_err();
    assert!(matches!(error, ConnectError::Tls { .. }), "{error}");
    assert!(error.to_string().contains("alert"), "{error}");
}

#[tokio::test]
async fn another_bus_is_refused() {
    let pki = Pki::new();
    let fake = Fake::start(&pki).await;
    let trust = pki.trust_in(sealbus_client::BusId::new([9; 16]), "ca.pem", "ca.pem");
    let error = client(&pki, &fake, "orders").trust(trust).connect().await.unwrap_err();
    assert_eq!(error.code(), Some(Code::Binding));
}

#[tokio::test]
async fn nobody_there_is_an_error_at_once_and_a_silent_server_after_the_deadline() {
    let pki = Pki::new();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = listener.local_addr().unwrap();
    let builder = sealbus_client::builder()
        .identity(pki.identity("orders"))
        .trust(pki.trust())
        .connect_timeout(Duration::from_millis(100));
    let error = builder.clone().server(silent.to_string()).connect().await.unwrap_err();
    assert!(matches!(error, ConnectError::Timeout { after_ms: 100, .. }), "{error}");
    drop(listener);
    let error = builder.clone().server(silent.to_string()).connect().await.unwrap_err();
    assert!(matches!(error, ConnectError::Network { .. }), "{error}");
    let error = builder.server("nowhere").connect().await.unwrap_err();
    assert!(matches!(error, ConnectError::Server { .. }), "{error}");
}

#[tokio::test]
async fn options_outside_their_range_are_refused() {
    let pki = Pki::new();
    let fake = Fake::start(&pki).await;
    assert!(matches!(
        client(&pki, &fake, "orders").batch_bytes_max(2 << 20).connect().await,
        Err(ConnectError::Option { name: "batch_bytes_max", .. })
    ));
    assert!(matches!(
        sealbus_client::builder().connect().await,
        Err(ConnectError::Missing { what: "server" })
    ));
}

#[tokio::test]
async fn a_broken_connection_is_made_anew_and_told() {
    let pki = Pki::new();
    let fake = Fake::start(&pki).await;
    let bus = connected(&pki, &fake, "orders").await;
    let mut events = bus.events();
    let mut subscription = bus.subscribe("a/#").await.unwrap();
    let publisher = bus.publisher("a/b").await.unwrap();
    publisher.publish("one").await.unwrap();
    assert_eq!(payload(&mut subscription).await, "one");
    fake.say(&Say::Cut);
    event(&mut events, |event| matches!(event, Event::Disconnected { .. })).await;
    event(&mut events, |event| matches!(event, Event::Reconnecting { attempt: 1, .. })).await;
    event(&mut events, |event| matches!(event, Event::Connected { .. })).await;
    let again = bus.subscribe("a/b").await.unwrap();
    publisher.publish("two").await.unwrap();
    assert_eq!(payload(&mut subscription).await, "two");
    assert!(!again.narrowed());
    let incarnations = fake.state(|state| state.incarnations.clone());
    assert_eq!(incarnations.len(), 2);
    assert_eq!(incarnations[0], incarnations[1], "a reconnect resumes the incarnation");
}

#[tokio::test]
async fn a_bus_gives_up_after_its_attempts_and_says_so_everywhere() {
    let pki = Pki::new();
    let fake = Fake::start(&pki).await;
    let reconnect =
        Reconnect { initial: Duration::from_millis(1), max: Duration::from_millis(2), attempts: Some(3) };
    let bus = client(&pki, &fake, "orders").reconnect(reconnect).connect().await.unwrap();
    let mut subscription = bus.subscribe("#").await.unwrap();
    let publisher = bus.publisher("a").await.unwrap();
    fake.state(|state| {
        let draining = Refusal::new(Code::Draining, "not now");
        state.script.hello_refusals.extend(std::iter::repeat_n(draining, 100));
    });
    fake.say(&Say::Cut);
    let end = tokio::time::timeout(PATIENCE, subscription.next()).await.unwrap();
    let Some(Err(DeliveryError::Closed(CloseReason::GaveUp { attempts: 3, .. }))) = end else {
        panic!("{end:?}")
    };
    assert!(subscription.next().await.is_none());
    assert!(publisher.publish("x").await.is_err());
    assert!(matches!(bus.reload_policy().await, Err(RequestError::Closed(CloseReason::GaveUp { .. }))));
}

#[tokio::test]
async fn a_fenced_client_does_not_come_back() {
    let pki = Pki::new();
    let fake = Fake::start(&pki).await;
    let bus = connected(&pki, &fake, "orders").await;
    let mut subscription = bus.subscribe("#").await.unwrap();
    fake.say(&Say::Error(Refusal::new(Code::Fenced, "a newer incarnation took over")));
    let end = tokio::time::timeout(PATIENCE, subscription.next()).await.unwrap();
    let Some(Err(DeliveryError::Closed(reason))) = end else { panic!("{end:?}") };
    assert_eq!(reason.code(), Some(Code::Fenced));
    assert_eq!(fake.state(|state| state.hellos), 1);
}

#[tokio::test]
async fn a_broker_that_does_not_know_an_old_incarnation_gets_a_new_one() {
    let pki = Pki::new();
    let fake = Fake::start(&pki).await;
    let bus = connected(&pki, &fake, "orders").await;
    let mut events = bus.events();
    let publisher = bus.publisher("a").await.unwrap();
    publisher.publish("one").await.unwrap();
    fake.state(|state| {
        state.script.hello_refusals.push_back(Refusal::new(Code::Time, "the incarnation began long ago"));
    });
    fake.forget();
    fake.say(&Say::Cut);
    event(&mut events, |event| matches!(event, Event::NewIncarnation { .. })).await;
    let receipt = publisher.publish("two").await.unwrap();
    assert_eq!(receipt.sequence(), 0);
    assert_eq!(fake.payloads("a"), [b"one", b"two"]);
}

#[tokio::test]
async fn closing_flushes_and_everything_else_finds_the_bus_closed() {
    let pki = Pki::new();
    let fake = Fake::start(&pki).await;
    let bus = connected(&pki, &fake, "orders").await;
    let publisher = bus.publisher("a").await.unwrap();
    let mut subscription = bus.subscribe("nothing").await.unwrap();
    for index in 0..100 {
        drop(publisher.enqueue(format!("{index}")).unwrap());
    }
    bus.clone().close().await.unwrap();
    assert_eq!(fake.payloads("a").len(), 100);
    assert!(subscription.next().await.is_none(), "a close by this program is a clean end");
    assert!(publisher.publish("late").await.is_err());
    assert!(bus.publisher("b").await.is_err());
    assert!(bus.close().await.is_err());
}

#[tokio::test]
async fn what_is_queued_is_sent_after_the_last_handle_is_dropped() {
    let pki = Pki::new();
    let fake = Fake::start(&pki).await;
    let bus = connected(&pki, &fake, "orders").await;
    let publisher = bus.publisher("a").await.unwrap();
    let receipts: Vec<_> = (0..50).map(|index| publisher.enqueue(format!("{index}")).unwrap()).collect();
    drop((publisher, bus));
    for receipt in receipts {
        receipt.await.unwrap();
    }
    assert_eq!(fake.payloads("a").len(), 50);
}

#[tokio::test]
async fn a_renewed_certificate_is_bound_to_the_same_key() {
    let pki = Pki::new();
    let fake = Fake::start(&pki).await;
    let bus = connected(&pki, &fake, "orders").await;
    let mut events = bus.events();
    let mut subscription = bus.subscribe("#").await.unwrap();
    let publisher = bus.publisher("a").await.unwrap();
    publisher.publish("one").await.unwrap();
    payload(&mut subscription).await;
    pki.issue("orders", "spiffe://bus.example/orders", &pki.ca);
    fake.say(&Say::Cut);
    event(&mut events, |event| matches!(event, Event::IdentityReloaded)).await;
    event(&mut events, |event| matches!(event, Event::Connected { .. })).await;
    drop(bus.subscribe("other").await.unwrap());
    publisher.publish("two").await.unwrap();
    assert_eq!(payload(&mut subscription).await, "two");
}

#[test]
fn identities_are_checked_when_they_are_read() {
    let pki = Pki::new();
    let dir = pki.issue("one", "spiffe://bus.example/one", &pki.ca);
    chmod(&dir.join("tls.key"), 0o640);
    assert!(matches!(Identity::from_dir(&dir), Err(IdentityError::Exposed { mode: 0o640, .. })));
    chmod(&dir.join("tls.key"), 0o600);
    assert!(!format!("{:?}", Identity::from_dir(&dir).unwrap()).contains("PRIVATE"));
    let other = pki.issue("two", "spiffe://bus.example/two", &pki.ca);
    assert!(matches!(
        Identity::from_files(dir.join("tls.crt"), other.join("tls.key")),
        Err(IdentityError::Mismatch { .. })
    ));
    assert!(matches!(Identity::from_dir(pki.path("none")), Err(IdentityError::Read { .. })));
    std::fs::write(dir.join("tls.crt"), "no certificate").unwrap();
    assert!(matches!(Identity::from_dir(&dir), Err(IdentityError::Certificate { .. })));
}

#[test]
fn trust_files_are_read_strictly() {
    let pki = Pki::new();
    assert_eq!(pki.trust().bus_id(), BUS_ID);
    let good = format!(
        "bus_id = \"{BUS_ID}\"\nbroker_roots = \"ca.pem\"\n[[trust_domain]]\nname = \"bus.example\"\n\
         principal = \"spiffe\"\nroots = \"ca.pem\"\n"
    );
    for (find, replace, expected) in [
        ("broker_roots =", "broker_rots =", "did you mean \"broker_roots\"?"),
        ("principal =", "principle =", "did you mean \"principal\"?"),
        ("\"spiffe\"", "\"uri\"", "one of spiffe, dns and cn"),
        ("\"spiffe\"", "7", "must be a string"),
        ("roots = \"ca.pem\"", "roots = \"none.pem\"", "none.pem"),
        ("roots = \"ca.pem\"", "roots = \"trust.toml\"", "no PEM certificate"),
        ("bus_id = \"b5", "bus_id = \"B5", "lower-case hex"),
        ("[[trust_domain]]", "[trust_domain]", "an array of tables"),
        ("name = \"bus.example\"", "name = \"Bus Example\"", "trust domain"),
        ("bus_id", "[bus_id", "cannot be used"),
    ] {
        std::fs::write(pki.path("trust.toml"), good.replacen(find, replace, 1)).unwrap();
        let error = Trust::from_file(pki.path("trust.toml")).unwrap_err().to_string();
        assert!(error.contains(expected), "{replace}: {error}");
    }
    std::fs::write(pki.path("trust.toml"), good.split("[[").next().unwrap()).unwrap();
    let error = Trust::from_file(pki.path("trust.toml")).unwrap_err();
    assert!(error.to_string().contains("no trust domain"), "{error}");
    assert!(matches!(Trust::from_file(pki.path("none.toml")), Err(TrustFileError::Read { .. })));
}
