//! Whose a session is, and how it ends: nobody takes it over, a newer one of the same instance does, and none outlives
//! its certificate. FAILURES T13, T20, T40, T43.

#![allow(clippy::panic, reason = "what helps a test fails the test")]

use bytes::Bytes;
use sealbus_protocol::batch::HEAD_LEN;
use sealbus_protocol::frame::{Hello, InstanceKind};
use sealbus_protocol::refusal::Code;
use sealbus_tests::audit::{event, mentions, reason};
use sealbus_tests::pki::{seconds_from_now, uri};
use sealbus_tests::producer::record;
use sealbus_tests::raw::RawEnd;
use sealbus_tests::wait::within;
use sealbus_tests::{
    BrokerProcess, Credential, Producer, RawSession, TestBus, TlsOptions, allow, sealbus_program,
};

/// A member of the bus with a certificate and an incarnation.
struct Member {
    credential: Credential,
    producer: Producer,
}

impl Member {
    fn new(bus: &TestBus, name: &str) -> Self {
        let credential = bus.credential(name);
        let producer = Producer::new(bus.bus_id(), &bus.principal(name), &credential);
        Self { credential, producer }
    }

    async fn open(&self, bus: &TestBus, broker: &BrokerProcess) -> RawSession {
        self.open_as(bus, broker, self.producer.hello()).await.unwrap_or_else(|end| panic!("refused: {end}"))
    }

    async fn open_as(
        &self,
        bus: &TestBus,
        broker: &BrokerProcess,
        hello: Hello,
    ) -> Result<RawSession, RawEnd> {
        let options = TlsOptions::of(&self.credential);
        let opened = RawSession::open_with(bus, broker.address(), &options, &self.producer, hello).await;
        opened.map(|(session, _)| session)
    }

    fn configured(&self, started_ms: u64) -> Hello {
        let mut hello = self.producer.hello();
        hello.instance_kind = InstanceKind::Configured;
        hello.started_ms = started_ms;
        hello
    }
}

fn refused(end: Result<RawSession, RawEnd>, code: Code) {
    match end {
        Err(RawEnd::Refused(refusal)) => assert_eq!(refusal.code(), code, "{refusal}"),
        Err(end) => panic!("the broker says nothing but {end}"),
        Ok(_) => panic!("the broker welcomes what it should refuse with {code}"),
    }
}

async fn bus_with_publishers() -> (TestBus, BrokerProcess) {
    let bus = TestBus::new();
    let rules =
        ["anna", "ben"].map(|name| allow(&format!("{name}-publishes"), name, "publish", "t/#")).concat();
    bus.write_policy(&(rules + &allow("cleo-reads", "cleo", "subscribe", "t/#")));
    let broker = bus.serve(sealbus_program!()).await;
    (bus, broker)
}

/// FAILURES T40.
#[tokio::test(flavor = "multi_thread")]
async fn another_principal_takes_over_neither_incarnation_nor_instance() {
    let (bus, broker) = bus_with_publishers().await;
    let (mut anna, ben) = (Member::new(&bus, "anna"), Member::new(&bus, "ben"));
    let mut session =
        anna.open_as(&bus, &broker, anna.configured(anna.producer.context.started_ms)).await.unwrap();
    let alias = session.open_topic("t/a").await.unwrap();
    session.publish(alias, anna.producer.batch("t/a", &[b"one"])).await.unwrap();

    let mut hello = ben.producer.hello();
    hello.incarnation_id = anna.producer.context.incarnation_id;
    refused(ben.open_as(&bus, &broker, hello).await, Code::Session);
    // The same with everything of Anna's that can be seen, but for her keys.
    let mut hello = ben.configured(anna.producer.context.started_ms);
    hello.instance_id = anna.producer.context.instance_id;
    hello.incarnation_id = anna.producer.context.incarnation_id;
    refused(ben.open_as(&bus, &broker, hello).await, Code::Session);
    // A later incarnation of an instance of the same name is another instance: it fences nobody.
    let mut hello = ben.configured(anna.producer.context.started_ms + 1_000);
    hello.instance_id = anna.producer.context.instance_id;
    let _ben = ben.open_as(&bus, &broker, hello).await;

    session.publish(alias, anna.producer.batch("t/a", &[b"two"])).await.expect("Anna's session goes on");
}

/// The same principal with another key, process or start is another incarnation, whatever it calls itself.
#[tokio::test(flavor = "multi_thread")]
async fn an_incarnation_keeps_its_key_instance_and_start() {
    let (bus, broker) = bus_with_publishers().await;
    let anna = Member::new(&bus, "anna");
    let session = anna.open(&bus, &broker).await;
    type Change = fn(&mut Hello);
    let changes: [Change; 3] = [
        |hello| hello.instance_id = sealbus_protocol::ids::InstanceId::new([1; 16]),
        |hello| hello.started_ms += 1,
        |hello| hello.instance_kind = InstanceKind::Configured,
    ];
    for change in changes {
        let mut hello = anna.producer.hello();
        change(&mut hello);
        refused(anna.open_as(&bus, &broker, hello).await, Code::Session);
    }
    let other_key = Member::new(&bus, "anna");
    let mut hello = other_key.producer.hello();
    hello.incarnation_id = anna.producer.context.incarnation_id;
    hello.instance_id = anna.producer.context.instance_id;
    hello.started_ms = anna.producer.context.started_ms;
    refused(other_key.open_as(&bus, &broker, hello).await, Code::Session);
    drop(session);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_incarnation_on_a_new_connection_ends_the_old_one_and_resumes() {
    let (bus, broker) = bus_with_publishers().await;
    let mut anna = Member::new(&bus, "anna");
    let mut first = anna.open(&bus, &broker).await;
    let alias = first.open_topic("t/a").await.unwrap();
    let batch = anna.producer.batch("t/a", &[b"one"]);
    first.publish(alias, batch.clone()).await.unwrap();
    let mut second = anna.open(&bus, &broker).await;
    first.ended().await;
    let log = bus.audit();
    let cut = log.await_line("the first is cut", |line| event(line) == "session-cut").await;
    assert_eq!(reason(&cut), "superseded");
    let alias = second.open_topic("t/a").await.unwrap();
    second.publish(alias, batch).await.expect("the same batch once more is acknowledged once more");
    second.publish(alias, anna.producer.batch("t/a", &[b"two"])).await.expect("and the next one is next");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_incarnation_of_a_configured_instance_fences_the_older() {
    let (bus, broker) = bus_with_publishers().await;
    let (older, newer) = (Member::new(&bus, "anna"), Member::new(&bus, "anna"));
    let instance = older.producer.context.instance_id;
    let started_ms = older.producer.context.started_ms;
    let mut first = older.open_as(&bus, &broker, older.configured(started_ms)).await.unwrap();
    let mut hello = newer.configured(started_ms + 1);
    hello.instance_id = instance;
    let mut second = newer.open_as(&bus, &broker, hello).await.unwrap();
    match first.ended().await {
        RawEnd::Refused(refusal) => assert_eq!(refusal.code(), Code::Fenced, "{refusal}"),
        RawEnd::Protocol(_) | RawEnd::Ended(_) => {}
    }
    let log = bus.audit();
    let cut = log.await_line("the older is cut", |line| event(line) == "session-cut").await;
    assert_eq!(reason(&cut), "fenced");
    refused(older.open_as(&bus, &broker, older.configured(started_ms)).await, Code::Fenced);
    second.open_topic("t/a").await.expect("the newer one goes on");
}

/// Two of a random instance never meet, even if they were given one name.
#[tokio::test(flavor = "multi_thread")]
async fn a_random_instance_fences_nobody() {
    let (bus, broker) = bus_with_publishers().await;
    let (one, two) = (Member::new(&bus, "anna"), Member::new(&bus, "anna"));
    let mut first = one.open(&bus, &broker).await;
    let mut hello = two.producer.hello();
    hello.instance_id = one.producer.context.instance_id;
    hello.started_ms += 1;
    let _second = two.open_as(&bus, &broker, hello).await.unwrap();
    first.open_topic("t/a").await.expect("the first goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_incarnation_that_began_at_another_time_is_refused() {
    let (bus, broker) = bus_with_publishers().await;
    const SIX_MINUTES_MS: u64 = 6 * 60 * 1_000;
    for started_ms in [0, Member::new(&bus, "anna").producer.context.started_ms - SIX_MINUTES_MS, u64::MAX] {
        let anna = Member::new(&bus, "anna");
        let mut hello = anna.producer.hello();
        hello.started_ms = started_ms;
        refused(anna.open_as(&bus, &broker, hello).await, Code::Time);
    }
    Member::new(&bus, "anna").open(&bus, &broker).await;
}

/// FAILURES T13.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_ends_when_its_certificate_does() {
    let (bus, broker) = bus_with_publishers().await;
    let lasting = Member::new(&bus, "ben");
    let mut other = lasting.open(&bus, &broker).await;
    let credential = bus.authority().client_with(|parameters| {
        parameters.subject_alt_names.push(uri("spiffe://bus.test/anna"));
        parameters.not_after = seconds_from_now(5);
    });
    let producer = Producer::new(bus.bus_id(), &bus.principal("anna"), &credential);
    let anna = Member { credential, producer };
    let mut session = anna.open(&bus, &broker).await;
    session.open_topic("t/a").await.expect("the certificate is good for some seconds");
    session.ended().await;
    let log = bus.audit();
    let cut = log.await_line("the session is cut", |line| event(line) == "session-cut").await;
    assert_eq!(reason(&cut), "certificate-expired");
    assert!(mentions(&cut, "spiffe://bus.test/anna"));
    assert!(anna.open_as(&bus, &broker, anna.producer.hello()).await.is_err(), "and does not come back");
    other.open_topic("t/b").await.expect("others go on");
}

/// FAILURES T43: a header is content. No spelling of one makes a producer.
#[tokio::test(flavor = "multi_thread")]
async fn headers_never_say_who_a_producer_is() {
    let (bus, broker) = bus_with_publishers().await;
    let mut anna = Member::new(&bus, "anna");
    let cleo = bus.connect(broker.address(), "cleo").await;
    let mut messages = cleo.subscribe("t/#").await.unwrap();
    let mut session = anna.open(&bus, &broker).await;
    let alias = session.open_topic("t/a").await.unwrap();
    type Headers = &'static [(&'static [u8], &'static [u8])];
    let malformed: [Headers; 10] = [
        &[(b"Principal", b"ben")],
        &[(b"PRINCIPAL", b"ben")],
        &[(b"principal ", b"ben")],
        &[(b" principal", b"ben")],
        &[(b"prin\0cipal", b"ben")],
        &[(b"principal\r\nx", b"ben")],
        &[(b"princip\xc3\xa4l", b"ben")],
        &[(b"", b"ben")],
        &[(b"principal", b"anna"), (b"principal", b"ben")],
        &[(b"sender", b"anna"), (b"principal", b"ben")],
    ];
    let good = anna.producer.batch("t/a", &[b"honest"]);
    for headers in malformed {
        let batch = anna.producer.resign(&good, &record(headers, b"dishonest"), |_| {});
        let refusal = session.publish(alias, batch).await.expect_err("a header that is not well formed");
        assert_eq!(refusal.code(), Code::Format, "{headers:?}: {refusal}");
    }
    // Well formed, and no more than what the producer says.
    let claims: Headers =
        &[(b"principal", b"spiffe://bus.test/ben"), (b"producer", b"spiffe://bus.test/ben")];
    let batch = anna.producer.resign(&good, &record(claims, b"claiming"), |_| {});
    session.publish(alias, batch).await.expect("a header is content");
    let message = within("the message", messages.next()).await.unwrap().unwrap();
    assert_eq!(message.payload(), b"claiming");
    assert_eq!(message.header("principal"), Some(&b"spiffe://bus.test/ben"[..]));
    assert_eq!(*message.producer(), bus.principal("anna"), "the certificate says who it was");
}

/// FAILURES T56, at the broker: each mistake has its code, none of them takes a sequence number, and the good batch
/// is accepted afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_is_not_this_sessions_is_refused_with_its_code() {
    let (bus, broker) = bus_with_publishers().await;
    let (mut anna, mut ben) = (Member::new(&bus, "anna"), Member::new(&bus, "ben"));
    let mut session = anna.open(&bus, &broker).await;
    let alias = session.open_topic("t/a").await.unwrap();
    let good = anna.producer.batch("t/a", &[b"good"]);
    let body = good.slice(HEAD_LEN..);
    let flipped = |at: usize| {
        let mut bytes = good.to_vec();
        bytes[at] ^= 1;
        Bytes::from(bytes)
    };
    let mine = &anna.producer;
    let later = sealbus_tests::producer::now_ms() + 10 * 60 * 1_000;
    let cases: Vec<(&str, Bytes, Code)> = vec![
        ("no bytes", Bytes::new(), Code::Format),
        ("another magic", flipped(0), Code::Format),
        ("a byte short", good.slice(..good.len() - 1), Code::Format),
        (
            "another bus",
            mine.resign(&good, &body, |p| p.bus_id = sealbus_protocol::ids::BusId::new([1; 16])),
            Code::Binding,
        ),
        ("another topic", ben.producer.batch("t/b", &[b"good"]), Code::Binding),
        ("another producer's", ben.producer.batch("t/a", &[b"good"]), Code::Session),
        (
            "another incarnation's",
            mine.resign(&good, &body, |p| {
                p.incarnation_id = sealbus_protocol::ids::IncarnationId::new([1; 16])
            }),
            Code::Session,
        ),
        ("from the future", mine.resign(&good, &body, |p| p.created_ms = later), Code::Time),
        ("from the past", mine.resign(&good, &body, |p| p.created_ms = 1), Code::Time),
        ("another payload", flipped(good.len() - 1), Code::Signature),
        ("another signature", flipped(HEAD_LEN - 1), Code::Signature),
    ];
    for (name, batch, code) in cases {
        let refusal = session.publish(alias, batch).await.expect_err(name);
        assert_eq!(refusal.code(), code, "{name}: {refusal}");
    }
    session.publish(alias, good.clone()).await.expect("the good batch still has its place");
    let elsewhere = sealbus_protocol::ids::PreambleDigest::new([1; 32]);
    let ahead = anna.producer.resign(&good, &body, |p| {
        p.first_seq = 7;
        p.prev = elsewhere;
    });
    assert_eq!(session.publish(alias, ahead).await.expect_err("ahead").code(), Code::Gap);
    let unchained = anna.producer.resign(&good, &body, |p| {
        p.first_seq = 1;
        p.prev = elsewhere;
    });
    assert_eq!(session.publish(alias, unchained).await.expect_err("unchained").code(), Code::Chain);
    let second = anna.producer.resign(&good, &record(&[], b"evil"), |_| {});
    assert_eq!(session.publish(alias, second).await.expect_err("a second one").code(), Code::Equivocation);
    session.publish(alias, good).await.expect("a retry is acknowledged again");
    let log = bus.audit();
    let evidence = log.await_line("the evidence", |line| event(line) == "equivocation").await;
    assert!(evidence["unmapped"]["refused_head"].as_str().is_some_and(|head| head.len() == 2 * HEAD_LEN));
    assert!(evidence["unmapped"]["accepted_head"].as_str().is_some_and(|head| head.len() == 2 * HEAD_LEN));
}
