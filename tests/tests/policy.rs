//! Nothing is allowed that no rule allows, on the concrete topic, at publish and at each delivery; and a change is a
//! fact when its call returns. FAILURES T24, T26 to T29, T36, T37.

#![allow(clippy::panic, reason = "what helps a test fails the test")]

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use sealbus_client::{Question, Topic};
use sealbus_protocol::frame::SubscriptionId;
use sealbus_protocol::identity::PrincipalSource;
use sealbus_protocol::refusal::{Code, Refusal};
use sealbus_protocol::session::ClientEvent;
use sealbus_tests::audit::{code, event, mentions, reason};
use sealbus_tests::raw::RawEnd;
use sealbus_tests::{
    BrokerProcess, Credential, OPERATOR, Producer, RawSession, TestBus, TlsOptions, allow, deny, eventually,
    sealbus_program,
};
use time::format_description::well_known::Rfc3339;

/// More credit than a test needs.
const CREDIT: u64 = 1 << 40;

struct Member {
    producer: Producer,
    session: RawSession,
}

impl Member {
    async fn open(bus: &TestBus, broker: &BrokerProcess, name: &str) -> Self {
        let credential = bus.credential(name);
        Self::open_with(bus, broker, name, &TlsOptions::of(&credential), &credential).await
    }

    async fn open_with(
        bus: &TestBus,
        broker: &BrokerProcess,
        name: &str,
        options: &TlsOptions,
        credential: &Credential,
    ) -> Self {
        let producer = Producer::new(bus.bus_id(), &bus.principal(name), credential);
        let hello = producer.hello();
        let opened = RawSession::open_with(bus, broker.address(), options, &producer, hello).await;
        let (session, _) = opened.unwrap_or_else(|end| panic!("{name} cannot connect: {end}"));
        Self { producer, session }
    }

    async fn publish(&mut self, topic: &str, payload: &[u8]) -> Result<(), Refusal> {
        let alias = self.session.open_topic(topic).await?;
        let batch = self.producer.batch(topic, &[payload]);
        self.session.publish(alias, batch).await
    }

    /// The topics of what is delivered, up to and including this one.
    async fn delivered_until(&mut self, last: &str) -> Vec<String> {
        let mut topics = Vec::new();
        loop {
            match self.session.next().await.expect("the session goes on") {
                ClientEvent::Deliver(delivered) => {
                    topics.push(delivered.topic.as_str().to_owned());
                    if delivered.topic.as_str() == last {
                        return topics;
                    }
                }
                ClientEvent::Lagged(lagged) => panic!("{lagged:?}"),
                _ => {}
            }
        }
    }
}

/// FAILURES T36: a refusal, without what was asked for: it must not tell what exists.
fn without_name(refusal: &Refusal, name: &str) -> (Code, String) {
    (refusal.code(), refusal.reason().replace(name, "..."))
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_rule_there_is_no_access_and_no_telling_what_exists() {
    let bus = TestBus::new();
    bus.write_policy(
        &(allow("in", "producer", "publish", "secret/#")
            + &allow("out", "consumer", "subscribe", "secret/#")),
    );
    let broker = bus.serve(sealbus_program!()).await;
    let mut producer = Member::open(&bus, &broker, "producer").await;
    let mut consumer = Member::open(&bus, &broker, "consumer").await;
    consumer.session.subscribe("secret/#", CREDIT).await.unwrap();
    producer.publish("secret/alive", b"x").await.unwrap();
    consumer.delivered_until("secret/alive").await;

    let mut nobody = Member::open(&bus, &broker, "nobody").await;
    let mut publish = Vec::new();
    let mut subscribe = Vec::new();
    for topic in ["secret/alive", "secret/absent"] {
        publish.push(without_name(&nobody.session.open_topic(topic).await.expect_err(topic), topic));
        subscribe.push(without_name(&nobody.session.subscribe(topic, CREDIT).await.expect_err(topic), topic));
    }
    for answers in [&publish, &subscribe] {
        assert_eq!(answers[0].0, Code::Denied);
        assert_eq!(answers[0], answers[1], "a denied topic and an absent topic answer alike");
    }
    for filter in ["#", "+/+", "secret/#"] {
        assert_eq!(nobody.session.subscribe(filter, CREDIT).await.expect_err(filter).code(), Code::Denied);
    }
    // Being allowed one verb is not being allowed the other.
    assert_eq!(
        producer.session.subscribe("secret/#", CREDIT).await.expect_err("subscribe").code(),
        Code::Denied
    );
    assert_eq!(consumer.session.open_topic("secret/alive").await.expect_err("publish").code(), Code::Denied);
    let log = bus.audit();
    let line = log.await_line("a denial", |line| event(line) == "denied" && mentions(line, "nobody")).await;
    assert_eq!(line["unmapped"]["rule"], "(default)");
    assert_eq!((line["action_id"].as_u64(), code(&line)), (Some(2), "DENIED"));
}

/// FAILURES T24: overlapping wildcards. What counts is the topic of the message.
#[tokio::test(flavor = "multi_thread")]
async fn a_deny_beats_every_allow_on_the_concrete_topic_at_delivery() {
    let bus = TestBus::new();
    let consumer = [
        allow("all", "consumer", "subscribe", "orders/#"),
        allow("plain", "consumer", "subscribe", "orders/secret/plans"),
        deny("secret", "consumer", "subscribe", "orders/secret/#"),
        deny("cards", "consumer", "subscribe", "orders/+/cards"),
    ];
    bus.write_policy(&(consumer.concat() + &allow("in", "producer", "publish", "#")));
    let broker = bus.serve(sealbus_program!()).await;
    let mut producer = Member::open(&bus, &broker, "producer").await;
    for filter in ["#", "orders/#", "orders/+/+", "+/+/plans", "+/eu/#"] {
        let mut consumer = Member::open(&bus, &broker, "consumer").await;
        consumer
            .session
            .subscribe(filter, CREDIT)
            .await
            .unwrap_or_else(|refusal| panic!("{filter}: {refusal}"));
        for topic in [
            "orders/secret",
            "orders/secret/plans",
            "orders/secret/cards",
            "orders/eu/cards",
            "others/eu/plans",
        ] {
            producer.publish(topic, b"forbidden").await.unwrap();
        }
        producer.publish("orders/eu/plans", b"allowed").await.unwrap();
        assert_eq!(consumer.delivered_until("orders/eu/plans").await, ["orders/eu/plans"], "{filter}");
    }
    let mut consumer = Member::open(&bus, &broker, "consumer").await;
    for filter in ["orders/secret/#", "orders/secret/plans", "orders/+/cards", "others/#"] {
        let refusal = consumer.session.subscribe(filter, CREDIT).await.expect_err(filter);
        assert_eq!(refusal.code(), Code::Denied, "{filter}: no overlap is a refusal");
    }
}

/// FAILURES T28.
#[tokio::test(flavor = "multi_thread")]
async fn names_that_begin_with_a_dollar_are_beyond_every_rule() {
    let bus = TestBus::with("[audit]\nsingles_per_second_max = 1000\n");
    bus.write_policy(&(allow("in", "anna", "publish", "#") + &allow("out", "anna", "subscribe", "#")));
    let broker = bus.serve(sealbus_program!()).await;
    let mut anna = Member::open(&bus, &broker, "anna").await;
    for topic in ["$sys", "$sys/x", "$policy", "$keys/x", "$", "$/x"] {
        assert_eq!(anna.session.open_topic(topic).await.expect_err(topic).code(), Code::Denied, "{topic}");
        assert_eq!(
            anna.session.subscribe(topic, CREDIT).await.expect_err(topic).code(),
            Code::Denied,
            "{topic}"
        );
    }
    for filter in ["$sys/#", "$sys/+", "$audit/#"] {
        assert_eq!(
            anna.session.subscribe(filter, CREDIT).await.expect_err(filter).code(),
            Code::Denied,
            "{filter}"
        );
    }
    for filter in ["#", "+/#", "+"] {
        anna.session.subscribe(filter, CREDIT).await.unwrap_or_else(|refusal| panic!("{filter}: {refusal}"));
    }
    // By a rule of its own, and not for want of one.
    let log = bus.audit();
    let denials = log.await_count("denials", 15, |line| event(line) == "denied").await;
    assert!(denials.iter().all(|line| line["unmapped"]["rule"] == "(reserved)"), "{denials:?}");
    // A dollar elsewhere is a letter like any other.
    anna.publish("a/$sys", b"x").await.unwrap();
    // And a policy cannot grant them: naming one is a mistake that is told.
    let operator = bus.connect(broker.address(), OPERATOR).await;
    bus.write_policy(&allow("sys", "anna", "subscribe", "$sys/#"));
    operator.reload_policy().await.expect_err("a rule about the bus's own names");
}

/// FAILURES T26.
#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_is_not_one_refuses_to_start_and_never_means_allow() {
    let bad: [(&str, Option<&[u8]>); 8] = [
        ("empty", Some(b"")),
        ("a comment", Some(b"# nothing here\n")),
        ("no text", Some(&[0xff, 0xfe, 0, 1])),
        ("absent", None),
        ("half a table", Some(b"version = 1\n[[allow]\n")),
        ("an unknown key", Some(b"version = 1\nalow = []\n")),
        ("a stream without an id", Some(b"version = 1\n[[stream]]\nname = \"orders\"\n")),
        (
            "a test that fails",
            Some(b"version = 1\n[[test]]\nwho = \"spiffe://bus.test/anna\"\ncan = { publish = [\"t\"] }\n"),
        ),
    ];
    for (name, content) in bad {
        let bus = TestBus::new();
        let path = bus.path("policy.toml");
        match content {
            Some(content) => std::fs::write(&path, content).unwrap(),
            None => std::fs::remove_file(&path).unwrap(),
        }
        let said = BrokerProcess::start_refused(sealbus_program!(), &bus.config()).await;
        assert!(said.contains("policy"), "{name}: {said}");
    }
    // One that others cannot be read as: a folder in its place.
    let bus = TestBus::new();
    std::fs::remove_file(bus.path("policy.toml")).unwrap();
    std::fs::create_dir(bus.path("policy.toml")).unwrap();
    BrokerProcess::start_refused(sealbus_program!(), &bus.config()).await;
}

/// FAILURES T27.
#[tokio::test(flavor = "multi_thread")]
async fn a_bad_policy_changes_nothing_and_says_why() {
    let bus = TestBus::new();
    let version = bus.write_policy(&allow("in", "anna", "publish", "t"));
    let broker = bus.serve(sealbus_program!()).await;
    let operator = bus.connect(broker.address(), OPERATOR).await;
    let before = operator.policy();
    assert_eq!(before.version, version);
    let log = bus.audit();
    let bad = ["", "# nothing\n", "version = 9\n[[allow]]\nid = \"x\"\n", "version = 9\n[[limit]]\n"];
    for (count, text) in bad.into_iter().enumerate() {
        bus.write_policy_text(text);
        let error = operator.reload_policy().await.expect_err(text);
        let said = error.to_string();
        assert!(said.contains("policy"), "{text:?}: {said}");
        log.await_count("the refusal", count + 1, |line| event(line) == "policy-refused").await;
        // By signal as well.
        let mut anna = Member::open(&bus, &broker, "anna").await;
        anna.publish("t", b"x").await.unwrap_or_else(|refusal| panic!("{text:?}: {refusal}"));
        assert_eq!(anna.session.open_topic("u").await.expect_err("u").code(), Code::Denied, "{text:?}");
    }
    broker.signal(rustix::process::Signal::HUP);
    log.await_count("the refusal by signal", bad.len() + 1, |line| event(line) == "policy-refused").await;
    assert_eq!(operator.policy(), before);

    let version =
        bus.write_policy(&(allow("in", "anna", "publish", "t") + &allow("u", "anna", "publish", "u")));
    let report = operator.reload_policy().await.unwrap();
    assert_eq!((report.policy.version, report.policy.generation), (version, before.generation + 1));
    assert_eq!((report.rules_before, report.rules_after), (2, 3));
    let line =
        log.await_line("the change", |line| line["unmapped"]["generation"] == report.policy.generation).await;
    assert_eq!(
        (line["unmapped"]["rules_before"].as_u64(), line["unmapped"]["rules_after"].as_u64()),
        (Some(2), Some(3))
    );
    assert_eq!(line["entity"]["uid"], before.hash.to_string());
    assert_eq!(line["entity_result"]["uid"], report.policy.hash.to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_administer_changes_nothing() {
    let bus = TestBus::new();
    bus.write_policy("");
    let broker = bus.serve(sealbus_program!()).await;
    let anna = bus.connect(broker.address(), "anna").await;
    bus.write_policy(&allow("in", "anna", "publish", "t"));
    assert_eq!(anna.reload_policy().await.expect_err("reload").code(), Some(Code::Denied));
    assert_eq!(anna.read_audit(0, 10).await.expect_err("audit").code(), Some(Code::Denied));
    let ben = bus.principal("ben");
    let topic = || Question::Publish(Topic::parse("t").unwrap());
    assert_eq!(anna.can_i(Some(&ben), topic()).await.expect_err("can-i").code(), Some(Code::Denied));
    let answer = anna.can_i(None, topic()).await.expect("about itself anybody may ask");
    assert!(!answer.is_permitted(), "the file alone changes nothing: {}", answer.why);
    let log = bus.audit();
    let lines = log.await_count("denials", 3, |line| event(line) == "admin-denied").await;
    assert!(lines.iter().all(|line| mentions(line, "spiffe://bus.test/anna")), "{lines:?}");

    let operator = bus.connect(broker.address(), OPERATOR).await;
    operator.reload_policy().await.unwrap();
    assert!(operator.can_i(Some(&bus.principal("anna")), topic()).await.unwrap().is_permitted());
    assert!(anna.can_i(None, topic()).await.unwrap().is_permitted());
    assert!(operator.read_audit(0, 10).await.unwrap().lines.len() > 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn conditions_are_judged_by_where_a_session_comes_from_and_when() {
    let bus = TestBus::with_listeners(&[PrincipalSource::Spiffe, PrincipalSource::Spiffe], "");
    let when = |id: &str, topic: &str, when: &str| {
        allow(id, "anna", "publish", topic) + &format!("when = {{ {when} }}\n")
    };
    let rules = [
        when("here", "source/here", "source = [\"127.0.0.1/32\"]"),
        when("there", "source/there", "source = [\"127.0.0.2/32\", \"10.0.0.0/8\"]"),
        when("first", "zone/first", "zone = \"zone-0\""),
        when("second", "zone/second", "zone = \"zone-1\""),
        when("past", "time/past", "until = \"2020-01-01T00:00:00Z\""),
        when("future", "time/future", "from = \"2100-01-01T00:00:00Z\""),
        when("now", "time/now", "from = \"2020-01-01T00:00:00Z\", until = \"2100-01-01T00:00:00Z\""),
        when("both", "both", "zone = \"zone-0\", source = [\"127.0.0.2/32\"]"),
    ];
    bus.write_policy(&rules.concat());
    let broker = bus.serve(sealbus_program!()).await;
    let credential = bus.credential("anna");
    let elsewhere: IpAddr = Ipv4Addr::new(127, 0, 0, 2).into();
    for (listener, source, allowed) in [
        (0, None, ["source/here", "zone/first", "time/now", ""]),
        (0, Some(elsewhere), ["source/there", "zone/first", "time/now", "both"]),
        (1, None, ["source/here", "zone/second", "time/now", ""]),
        (1, Some(elsewhere), ["source/there", "zone/second", "time/now", ""]),
    ] {
        let producer = Producer::new(bus.bus_id(), &bus.principal("anna"), &credential);
        let options = TlsOptions { source, ..TlsOptions::of(&credential) };
        let address = broker.addresses()[listener];
        let opened = RawSession::open_with(&bus, address, &options, &producer, producer.hello()).await;
        let (mut session, _) = opened.unwrap_or_else(|end| panic!("{listener}, {source:?}: {end}"));
        for topic in [
            "source/here",
            "source/there",
            "zone/first",
            "zone/second",
            "time/past",
            "time/future",
            "time/now",
            "both",
        ] {
            let is_allowed = session.open_topic(topic).await.is_ok();
            assert_eq!(
                is_allowed,
                allowed.contains(&topic),
                "{topic} on listener {listener} from {source:?}"
            );
        }
    }
}

/// A grant that runs out does so on sessions that are open, for what is published and for what is delivered.
#[tokio::test(flavor = "multi_thread")]
async fn a_grant_ends_at_its_moment_also_for_open_sessions() {
    let bus = TestBus::new();
    let broker = bus.serve(sealbus_program!()).await;
    let mut producer = Member::open(&bus, &broker, "producer").await;
    let mut consumer = Member::open(&bus, &broker, "consumer").await;
    let operator = bus.connect(broker.address(), OPERATOR).await;
    let until = sealbus_tests::pki::seconds_from_now(4).replace_nanosecond(0).unwrap();
    let until_ms = u64::try_from(until.unix_timestamp()).unwrap() * 1_000;
    let when = format!("when = {{ until = \"{}\" }}\n", until.format(&Rfc3339).unwrap());
    let rules = [
        allow("in", "producer", "publish", "brief") + &when,
        allow("in-always", "producer", "publish", "always"),
        allow("out", "consumer", "subscribe", "always") + &when,
        allow("out-end", "consumer", "subscribe", "end"),
        allow("in-end", "producer", "publish", "end"),
    ];
    bus.write_policy(&rules.concat());
    operator.reload_policy().await.unwrap();
    consumer.session.subscribe("#", CREDIT).await.unwrap();
    let brief = producer.session.open_topic("brief").await.expect("there are seconds left");
    let always = producer.session.open_topic("always").await.unwrap();
    let mut accepted = 0_u32;
    let refusal = loop {
        let batch = producer.producer.batch("brief", &[b"x"]);
        let before_ms = sealbus_tests::producer::now_ms();
        match producer.session.publish(brief, batch).await {
            Ok(()) => assert!(before_ms < until_ms, "accepted when the grant had ended"),
            Err(refusal) => break refusal,
        }
        accepted += 1;
        producer.session.publish(always, producer.producer.batch("always", &[b"x"])).await.unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    };
    assert!(accepted > 0);
    assert_eq!(refusal.code(), Code::Denied, "{refusal}");
    assert!(sealbus_tests::producer::now_ms() >= until_ms, "the grant ended before its moment");
    for _ in 0..20 {
        producer
            .session
            .publish(always, producer.producer.batch("always", &[b"late"]))
            .await
            .expect("this has no end");
    }
    producer.publish("end", b"x").await.unwrap();
    loop {
        match consumer.session.next().await.unwrap() {
            ClientEvent::Deliver(delivered) if delivered.topic.as_str() == "end" => break,
            ClientEvent::Deliver(delivered) => {
                assert!(!contains(&delivered.batch, b"late"), "delivered when the grant had ended");
            }
            _ => {}
        }
    }
}

fn contains(bytes: &Bytes, wanted: &[u8]) -> bool {
    bytes.windows(wanted.len()).any(|window| window == wanted)
}

/// Reads everything that a session is told, and checks it against what each generation allows.
struct Watcher {
    /// Deliveries on the topic that is granted and withdrawn.
    delivered: AtomicU64,
    /// The last generation whose marker was seen.
    generation: AtomicU64,
    violations: AtomicU64,
    done: AtomicBool,
}

/// In odd generations of the test the grant is there.
const fn is_granted(first: u64, generation: u64) -> bool {
    (generation - first).is_multiple_of(2)
}

async fn watch(watcher: Arc<Watcher>, mut session: RawSession, subscription: SubscriptionId, first: u64) {
    let mut generation = first;
    loop {
        match session.next().await {
            Ok(ClientEvent::Generation(marker)) => {
                generation = marker.generation;
                watcher.generation.store(generation, Ordering::SeqCst);
            }
            Ok(ClientEvent::Deliver(delivered)) => {
                let len = u64::try_from(delivered.batch.len()).expect("batches are small");
                session.session.credit(subscription, len);
                if delivered.topic.as_str() == "flow/a" {
                    watcher.delivered.fetch_add(1, Ordering::SeqCst);
                    if !is_granted(first, generation) {
                        watcher.violations.fetch_add(1, Ordering::SeqCst);
                    }
                } else if delivered.topic.as_str() == "always/end" {
                    watcher.done.store(true, Ordering::SeqCst);
                    return;
                }
            }
            Ok(ClientEvent::Lagged(_) | ClientEvent::Binding(_)) => {}
            Ok(other) => panic!("the consumer is told {other:?}"),
            Err(end) => panic!("the consumer's session ended: {end}"),
        }
    }
}

/// P4: a change is a fact. Fifty times, under load: after the marker nothing that the new policy forbids comes, and
/// after the call nothing that it forbids is accepted.
#[tokio::test(flavor = "multi_thread")]
async fn a_withdrawn_grant_is_a_fact_when_its_call_returns() {
    // A machine that is busy with other tests may need longer than 50 ms for a marker; being cut is another test.
    let bus = TestBus::with("[limits]\nmarker_timeout_ms = 10000\n");
    let fixed = [
        allow("load", "load", "publish", "flow/a"),
        allow("always-out", "consumer", "subscribe", "always/#"),
        allow("always-in", "load", "publish", "always/#"),
    ]
    .concat();
    let granted = fixed.clone()
        + &allow("in", "producer", "publish", "flow/b")
        + &allow("out", "consumer", "subscribe", "flow/#");
    bus.write_policy(&granted);
    let broker = bus.serve(sealbus_program!()).await;
    let operator = bus.connect(broker.address(), OPERATOR).await;
    let first = operator.policy().generation;

    let watcher = Arc::new(Watcher {
        delivered: AtomicU64::new(0),
        generation: AtomicU64::new(first),
        violations: AtomicU64::new(0),
        done: AtomicBool::new(false),
    });
    let mut consumer = Member::open(&bus, &broker, "consumer").await.session;
    let subscription = consumer.subscribe("#", 64 * 1_024).await.unwrap();
    let watching = tokio::spawn(watch(Arc::clone(&watcher), consumer, subscription, first));

    let mut load = Member::open(&bus, &broker, "load").await;
    let flow = load.session.open_topic("flow/a").await.unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let stopping = Arc::clone(&stop);
    let loading = tokio::spawn(async move {
        let mut published = 0_u64;
        while !stopping.load(Ordering::SeqCst) {
            let batch = load.producer.batch("flow/a", &[b"x", b"y", b"z"]);
            load.session.publish(flow, batch).await.expect("this grant is never withdrawn");
            published += 1;
        }
        load.publish("always/end", b"end").await.expect("this one neither");
        published
    });

    let mut producer = Member::open(&bus, &broker, "producer").await;
    let alias = producer.session.open_topic("flow/b").await.unwrap();
    for flip in 0..50 {
        let batch = producer.producer.batch("flow/b", &[b"x"]);
        // Something flows before the grant goes, so that there is something to stop.
        let seen = watcher.delivered.load(Ordering::SeqCst);
        eventually("messages flow", || (watcher.delivered.load(Ordering::SeqCst) > seen).then_some(())).await;

        bus.write_policy(&fixed);
        let report = operator.reload_policy().await.unwrap();
        let refusal =
            producer.session.publish(alias, batch.clone()).await.expect_err("accepted after the call");
        assert_eq!(refusal.code(), Code::Denied, "flip {flip}: {refusal}");
        eventually("the marker", || {
            (watcher.generation.load(Ordering::SeqCst) >= report.policy.generation).then_some(())
        })
        .await;

        bus.write_policy(&granted);
        operator.reload_policy().await.unwrap();
        producer
            .session
            .publish(alias, batch)
            .await
            .unwrap_or_else(|refusal| panic!("flip {flip}: {refusal}"));
    }
    stop.store(true, Ordering::SeqCst);
    let published = loading.await.unwrap();
    eventually("the consumer has seen the end", || watcher.done.load(Ordering::SeqCst).then_some(())).await;
    watching.await.unwrap();
    assert_eq!(
        watcher.violations.load(Ordering::SeqCst),
        0,
        "deliveries after the marker, of {published} batches"
    );
}

/// FAILURES T37: what waits in an outbox when the grant goes is not delivered after the marker, to the last message.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_queued_when_a_grant_goes_stays_unread() {
    let bus = TestBus::with("[limits]\nmarker_timeout_ms = 10000\n");
    let fixed = allow("in", "producer", "publish", "#") + &allow("end", "consumer", "subscribe", "end");
    bus.write_policy(&(fixed.clone() + &allow("out", "consumer", "subscribe", "queued/#")));
    let broker = bus.serve(sealbus_program!()).await;
    let operator = bus.connect(broker.address(), OPERATOR).await;
    let mut consumer = Member::open(&bus, &broker, "consumer").await;
    let mut producer = Member::open(&bus, &broker, "producer").await;
    // Credit for one byte is credit for one batch; the others wait.
    let queued = consumer.session.subscribe("queued/#", 1).await.unwrap();
    consumer.session.subscribe("end", CREDIT).await.unwrap();
    for _ in 0..20 {
        producer.publish("queued/a", b"x").await.unwrap();
    }
    assert_eq!(consumer.delivered_until("queued/a").await.len(), 1);
    bus.write_policy(&fixed);
    operator.reload_policy().await.unwrap();
    consumer.session.session.credit(queued, CREDIT);
    consumer.session.flush().await.unwrap();
    producer.publish("end", b"x").await.unwrap();
    assert_eq!(consumer.delivered_until("end").await, ["end"]);

    // The grant comes back: what was published without it does not come back with it.
    bus.write_policy(&(fixed + &allow("out", "consumer", "subscribe", "queued/#")));
    operator.reload_policy().await.unwrap();
    producer.publish("queued/b", b"x").await.unwrap();
    producer.publish("end", b"x").await.unwrap();
    let topics = consumer.delivered_until("end").await;
    assert!(!topics.contains(&"queued/a".to_owned()), "{topics:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_principal_is_cut_and_stays_out() {
    let bus = TestBus::new();
    let rules = allow("in", "anna", "publish", "t") + &allow("ben", "ben", "publish", "t");
    bus.write_policy(&rules);
    let broker = bus.serve(sealbus_program!()).await;
    let operator = bus.connect(broker.address(), OPERATOR).await;
    let (mut anna, mut ben) =
        (Member::open(&bus, &broker, "anna").await, Member::open(&bus, &broker, "ben").await);
    anna.publish("t", b"x").await.unwrap();
    bus.write_policy(&(rules + "\n[[revoke]]\nprincipal = \"spiffe://bus.test/anna\"\n"));
    let report = operator.reload_policy().await.unwrap();
    assert_eq!(report.sessions_cut, 1);
    // The call has returned: she is out, not on her way out.
    match anna.session.ended().await {
        RawEnd::Refused(refusal) => assert_eq!(refusal.code(), Code::Denied, "{refusal}"),
        RawEnd::Protocol(_) | RawEnd::Ended(_) => {}
    }
    let credential = bus.credential("anna");
    let producer = Producer::new(bus.bus_id(), &bus.principal("anna"), &credential);
    match RawSession::open(&bus, broker.address(), &credential, &producer).await {
        Err(RawEnd::Refused(refusal)) => assert_eq!(refusal.code(), Code::Denied, "{refusal}"),
        Err(end) => panic!("the broker says nothing but {end}"),
        Ok(_) => panic!("a revoked principal was welcomed"),
    }
    ben.publish("t", b"x").await.expect("others go on");
    let log = bus.audit();
    let cut = log.await_line("the cut", |line| event(line) == "session-cut").await;
    assert_eq!(reason(&cut), "principal-revoked");
    log.await_line("the refusal", |line| event(line) == "session-refused" && mentions(line, "anna")).await;
}
