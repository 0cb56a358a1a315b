//! Streams: what is acknowledged is there after the broker was killed, once, in order, and proves itself; and which
//! streams there are is the policy's to say, while they run. FAILURES T61.

#![allow(clippy::panic, clippy::unwrap_used, reason = "what helps a test fails the test")]

use std::collections::BTreeSet;

use bytes::Bytes;
use sealbus_client::{Bus, Code, Durability, Event, PublishError, Start};
use sealbus_protocol::batch::accept::Receipt;
use sealbus_protocol::frame::Freshness;
use sealbus_protocol::ids::StreamId;
use sealbus_protocol::limits::STARTED_BEHIND_MS_MAX;
use sealbus_tests::audit::{event, mentions};
use sealbus_tests::producer::now_ms;
use sealbus_tests::raw::RawEnd;
use sealbus_tests::reading::{ORDERS, checkpoint_of, next_consumed, numbered, publish, replayed, text};
use sealbus_tests::wait::{eventually_async, within};
use sealbus_tests::{
    BrokerProcess, Member, OPERATOR, Producer, RawSession, TestBus, TlsOptions, allow, allow_stream,
    eventually, sealbus_program, stream,
};

fn policy() -> String {
    stream("orders", ORDERS, "orders/#", "")
        + &allow("write", "shop", "publish", "orders/#")
        + &allow("live", "screen", "subscribe", "#")
        + &allow_stream("read", "auditor", "replay", "orders")
        + &allow_stream("work", "billing", "consume", "orders")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_is_there_after_the_broker_was_killed() {
    let program = sealbus_program!();
    let bus = TestBus::new();
    bus.write_policy(&policy());
    let mut broker = bus.serve(program).await;
    bus.listen_on(broker.address().port());
    let shop = bus.connect(broker.address(), "shop").await;
    let mut screen =
        bus.connect(broker.address(), "screen").await.subscribe("orders/#").await.expect("it may");
    let offsets = publish(&shop, "orders/eu", 0..50).await;
    assert_eq!(offsets, (0..50).collect::<Vec<_>>());
    for number in 0..50 {
        let message = within("live", screen.try_next()).await.expect("it proves itself").expect("it comes");
        assert_eq!((message.offset(), message.payload()), (Some(number), number.to_string().as_bytes()));
    }
    broker.kill();
    let broker = bus.serve(program).await;
    assert_eq!(publish(&shop, "orders/us", 50..60).await, (50..60).collect::<Vec<_>>());
    let auditor = bus.connect(broker.address(), "auditor").await;
    assert_eq!(replayed(&auditor, "orders").await, numbered(0..60));
    assert!(checkpoint_of(&auditor, "orders", 1).await.size() <= 60);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_durable_consumer_gets_everything_at_least_once_and_goes_on_where_it_stood() {
    let program = sealbus_program!();
    let bus = TestBus::new();
    bus.write_policy(&policy());
    let mut broker = bus.serve(program).await;
    bus.listen_on(broker.address().port());
    let shop = bus.connect(broker.address(), "shop").await;
    publish(&shop, "orders/eu", 0..20).await;
    let billing = bus.connect(broker.address(), "billing").await;
    let mut consumer = billing.consume("orders", "billing").from(Start::Earliest).await.expect("it may");
    let mut seen = BTreeSet::new();
    for _ in 0..10 {
        let message =
            within("consuming", consumer.try_next()).await.expect("it proves itself").expect("it comes");
        assert_eq!(message.deliveries(), 1);
        seen.insert(message.offset().expect("it is stored"));
        within("ack", message.ack_sync()).await.expect("it is durable");
    }
    assert_eq!(seen, (0..10).collect());
    broker.kill();
    let _broker = bus.serve(program).await;
    while seen.len() < 20 {
        let message =
            within("consuming", consumer.try_next()).await.expect("it proves itself").expect("it comes");
        let offset = message.offset().expect("it is stored");
        assert!(offset >= 10, "what was acknowledged durably does not come back: {offset}");
        seen.insert(offset);
        message.ack().await.expect("it is queued");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn receipts_name_how_durable_a_message_is() {
    let bus = TestBus::new();
    let of = |name: &str, id: &str, settings: &str| stream(name, id, &format!("{name}/#"), settings);
    let rules = of("sure", "51000000000000000000000000000001", "")
        + &of("soon", "51000000000000000000000000000002", "durability = \"interval\"")
        + &of("some", "51000000000000000000000000000003", "durability = \"memory\"")
        + &of("said", "51000000000000000000000000000004", "durability = \"fsync\"")
        + &allow("write", "shop", "publish", "#")
        + "\n[[allow]]\nid = \"read\"\nwho = [\"spiffe://bus.test/auditor\"]\nverbs = [\"replay\"]\nstreams = [\"sure\", \
           \"soon\", \"some\", \"said\"]\n";
    let broker = bus.serve_with(sealbus_program!(), &rules).await;
    let shop = bus.connect(broker.address(), "shop").await;
    let levels = [
        ("sure", Durability::Fsync),
        ("soon", Durability::Interval),
        ("some", Durability::Memory),
        ("said", Durability::Fsync),
    ];
    let operator = bus.connect(broker.address(), OPERATOR).await;
    for (name, durability) in levels {
        let publisher = shop.publisher(&format!("{name}/x")).await.expect("the topic opens");
        for offset in 0..10 {
            let receipt =
                within("publishing", publisher.publish(offset.to_string())).await.expect("it is kept");
            assert_eq!((receipt.durability(), receipt.offset()), (durability, Some(offset)), "{name}");
        }
        let infos = operator.streams(Some(name)).await.expect("an operator may ask");
        assert_eq!(infos[0].durability, durability);
    }
    let publisher = shop.publisher("nowhere/x").await.expect("the topic opens");
    let receipt = within("publishing", publisher.publish("x")).await.expect("it is taken");
    assert_eq!((receipt.durability(), receipt.offset()), (Durability::Live, None));
    // A stop that was asked for loses nothing of any level.
    assert!(broker.terminate().await.success());
    let broker = bus.serve(sealbus_program!()).await;
    let auditor = bus.connect(broker.address(), "auditor").await;
    for (name, _) in levels {
        assert_eq!(replayed(&auditor, name).await, numbered(0..10), "{name}");
    }
}

fn receipt(offset: u64) -> Receipt {
    Receipt { durability: Durability::Fsync, offset: Some(offset) }
}

/// FAILURES T61: whatever was acknowledged is a duplicate afterwards, at its old offset; also what was taken and whose
/// acknowledgement was lost with the broker.
#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_is_sent_again_after_a_kill_is_a_duplicate_at_its_old_offset() {
    let bus = TestBus::new();
    let mut broker = bus.serve_with(sealbus_program!(), &policy()).await;
    let mut shop = Member::open(&bus, broker.address(), "shop").await;
    let stream: StreamId = ORDERS.parse().expect("it is an id");
    let topics = ["orders/eu", "orders/us"];
    let mut sent: Vec<(&str, u64, Bytes)> = Vec::new();
    for round in 0..4_u64 {
        for topic in topics {
            let opened = shop.session.open_for(topic).await.expect("it may");
            assert_eq!(opened.stream, stream);
            let mine = || sent.iter().filter(|(of, ..)| *of == topic);
            let resume = opened.resume.map(|resume| resume.next_seq);
            // Three messages a batch, three batches a round.
            assert_eq!(
                resume.unwrap_or(0),
                u64::try_from(mine().count() * 3).unwrap(),
                "it is told where it stands"
            );
            for (_, offset, batch) in mine() {
                let ack =
                    shop.session.publish_for_ack(opened.alias, batch.clone()).await.expect("it was accepted");
                assert_eq!(
                    (ack.freshness, ack.receipt),
                    (Freshness::Duplicate, receipt(*offset)),
                    "round {round}"
                );
            }
            for _ in 0..3 {
                let batch = shop.producer.batch_in(stream, topic, &[b"a", b"b", b"c"]);
                let ack =
                    shop.session.publish_for_ack(opened.alias, batch.clone()).await.expect("it is good");
                let offset = u64::try_from(sent.len() * 3).unwrap();
                assert_eq!(
                    (ack.freshness, ack.receipt),
                    (Freshness::New, receipt(offset)),
                    "offsets are dense"
                );
                sent.push((topic, offset, batch));
            }
        }
        match round {
            // As a stop is, a stop is a kill for whoever is connected.
            2 => assert!(broker.terminate().await.success()),
            _ => broker.kill(),
        }
        broker = bus.serve(sealbus_program!()).await;
        shop.reconnect(&bus, broker.address()).await;
    }
    let auditor = bus.connect(broker.address(), "auditor").await;
    assert_eq!(replayed(&auditor, "orders").await.len(), sent.len() * 3);
}

/// FAILURES T61: both answers come, both say the same offset, in the order of the questions; and the batch is there once.
#[tokio::test(flavor = "multi_thread")]
async fn a_duplicate_that_comes_at_once_is_answered_after_the_first_and_like_it() {
    use sealbus_protocol::session::ClientEvent;
    let bus = TestBus::new();
    let mut broker = bus.serve_with(sealbus_program!(), &policy()).await;
    let stream: StreamId = ORDERS.parse().expect("it is an id");
    for round in 0..5 {
        let mut shop = Member::open(&bus, broker.address(), "shop").await;
        let opened = shop.session.open_for("orders/eu").await.expect("it may");
        let batch = shop.producer.batch_in(stream, "orders/eu", &[b"x"]);
        for _ in 0..3 {
            shop.session.session.publish(opened.alias, batch.clone()).expect("few requests are open");
        }
        for expected in [Freshness::New, Freshness::Duplicate, Freshness::Duplicate] {
            match shop.event().await {
                ClientEvent::Ack(ack) => assert_eq!((ack.freshness, ack.receipt), (expected, receipt(round))),
                other => panic!("{other:?}"),
            }
        }
        broker.kill();
        broker = bus.serve(sealbus_program!()).await;
        let auditor = bus.connect(broker.address(), "auditor").await;
        assert_eq!(u64::try_from(replayed(&auditor, "orders").await.len()).unwrap(), round + 1);
    }
}

/// A new incarnation begins now; one that the stream knows goes on however long ago it began.
#[tokio::test(flavor = "multi_thread")]
async fn an_incarnation_that_a_stream_knows_goes_on_after_a_restart_however_old_it_is() {
    let bus = TestBus::new();
    let mut broker = bus.serve_with(sealbus_program!(), &policy()).await;
    // Seconds are left of the five minutes in which it may begin.
    let started_ms = now_ms() - STARTED_BEHIND_MS_MAX + 4_000;
    let credential = bus.credential("shop");
    let mut producer = Producer::new(bus.bus_id(), &bus.principal("shop"), &credential);
    producer.context.started_ms = started_ms;
    let options = TlsOptions::of(&credential);
    let open = async |address, producer: &Producer| {
        RawSession::open_with(&bus, address, &options, producer, producer.hello())
            .await
            .map(|(session, _)| session)
    };
    let mut session =
        open(broker.address(), &producer).await.unwrap_or_else(|end| panic!("it is new: {end}"));
    let opened = session.open_for("orders/eu").await.expect("it may");
    let batch = producer.batch_in(opened.stream, "orders/eu", &[b"0"]);
    let ack = session.publish_for_ack(opened.alias, batch.clone()).await.expect("it is good");
    assert_eq!(ack.receipt, receipt(0));
    broker.kill();
    let broker = bus.serve(sealbus_program!()).await;
    eventually("its five minutes are over", || (now_ms() > started_ms + STARTED_BEHIND_MS_MAX).then_some(()))
        .await;

    let mut stranger = Producer::new(bus.bus_id(), &bus.principal("shop"), &credential);
    stranger.context.started_ms = started_ms;
    match open(broker.address(), &stranger).await {
        Err(RawEnd::Refused(refusal)) => assert_eq!(refusal.code(), Code::Time, "{refusal}"),
        Err(end) => panic!("{end}"),
        Ok(_) => panic!("nobody knows that one"),
    }
    let mut session =
        open(broker.address(), &producer).await.unwrap_or_else(|end| panic!("it is known: {end}"));
    let opened = session.open_for("orders/eu").await.expect("it may");
    assert_eq!(opened.resume.map(|resume| resume.next_seq), Some(1));
    let ack = session.publish_for_ack(opened.alias, batch).await.expect("it was accepted");
    assert_eq!((ack.freshness, ack.receipt), (Freshness::Duplicate, receipt(0)));
    let batch = producer.batch_in(opened.stream, "orders/eu", &[b"1"]);
    assert_eq!(session.publish_for_ack(opened.alias, batch).await.expect("it is good").receipt, receipt(1));
}

async fn reload(bus: &TestBus, operator: &Bus, rules: &str) -> Result<usize, String> {
    bus.write_policy(rules);
    let reloaded = within("the reload", operator.reload_policy()).await;
    reloaded.map(|report| usize::try_from(report.sessions_cut).unwrap()).map_err(|error| error.to_string())
}

/// A topic moves into a stream, out of it, and into another one, while somebody publishes to it without a pause.
#[tokio::test(flavor = "multi_thread")]
async fn a_topic_moves_into_a_stream_and_out_again_and_its_publisher_goes_on() {
    const OTHER: &str = "0badcafe0badcafe0badcafe0badcafe";
    let bus = TestBus::new();
    let rules = allow("write", "shop", "publish", "orders/#") + &allow("live", "screen", "subscribe", "#");
    let with = |id: &str| {
        rules.clone()
            + &stream("orders", id, "orders/#", "")
            + &allow_stream("read", "auditor", "replay", "orders")
    };
    let broker = bus.serve_with(sealbus_program!(), &rules).await;
    let operator = bus.connect(broker.address(), OPERATOR).await;
    let shop = bus.connect(broker.address(), "shop").await;
    let mut events = shop.events();
    let publisher = shop.publisher("orders/eu").await.expect("the topic opens");
    let (mut number, mut lost) = (0_u64, 0);
    let mut kept: Vec<(&str, u64, String)> = Vec::new();
    for (id, rules) in [
        (None, rules.clone()),
        (Some(ORDERS), with(ORDERS)),
        (None, rules.clone()),
        (Some(ORDERS), with(ORDERS)),
        (Some(OTHER), with(OTHER)),
        (Some(ORDERS), with(ORDERS)),
    ] {
        let reloading = reload(&bus, &operator, &rules);
        let publishing = async {
            let mut receipts = Vec::new();
            for _ in 0..60 {
                match within("publishing", publisher.publish(number.to_string())).await {
                    Ok(receipt) => receipts.push((number, receipt)),
                    // Under way when the topic moved: under its old sequence nothing can be asked any more.
                    Err(PublishError::Lost) => lost += 1,
                    Err(error) => panic!("{number}: {error}"),
                }
                number += 1;
            }
            receipts
        };
        let (reloaded, receipts) = tokio::join!(reloading, publishing);
        reloaded.expect("the policy is good");
        // The last ones are under the new policy in any case: its call has returned.
        let receipt = within("publishing", publisher.publish(number.to_string())).await.expect("it goes on");
        assert_eq!(receipt.offset().is_some(), id.is_some(), "the new policy holds");
        for (number, receipt) in receipts.into_iter().chain([(number, receipt)]) {
            if let Some(offset) = receipt.offset() {
                // Which stream it was: that of now or that of before. It is looked up below.
                kept.push((id.unwrap_or("before"), offset, number.to_string()));
            }
        }
        number += 1;
    }
    assert!(lost <= 5, "one message is under way at a time, and the topic moves five times: {lost}");
    let mut found = BTreeSet::new();
    for id in [OTHER, ORDERS] {
        reload(&bus, &operator, &with(id)).await.expect("the policy is good");
        let auditor = bus.connect(broker.address(), "auditor").await;
        let messages = replayed(&auditor, "orders").await;
        let offsets: Vec<u64> = messages.iter().map(|(offset, _)| *offset).collect();
        assert_eq!(offsets, (0..u64::try_from(offsets.len()).unwrap()).collect::<Vec<_>>(), "dense");
        for message in messages {
            assert!(found.insert(message.clone()), "{message:?} is in one stream, once");
        }
    }
    for (during, offset, payload) in kept {
        assert!(
            found.contains(&(offset, payload.clone())),
            "{payload} at {offset}, acknowledged during {during}"
        );
    }
    drop(shop.close().await);
    while let Some(event) = events.next().await {
        if let Event::Lost { from, to, .. } = event {
            lost -= to - from + 1;
        }
    }
    assert_eq!(lost, 0, "each is told of, once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_cut_with_a_reason_to_come_back_when_a_stream_captures_its_topic() {
    let bus = TestBus::new();
    let rules = allow("write", "shop", "publish", "#") + &allow("live", "screen", "subscribe", "#");
    let broker = bus.serve_with(sealbus_program!(), &rules).await;
    let operator = bus.connect(broker.address(), OPERATOR).await;
    let mut shop = Member::open(&bus, broker.address(), "shop").await;
    let mut other = Member::open(&bus, broker.address(), "shop").await;
    shop.session.open_for("orders/eu").await.expect("it may");
    other.session.open_for("bills/eu").await.expect("it may");
    let mut screen = Member::open(&bus, broker.address(), "screen").await;
    screen.session.subscribe("#", 1 << 30).await.expect("it may");
    let cut = reload(&bus, &operator, &(rules.clone() + &stream("orders", ORDERS, "orders/#", ""))).await;
    assert_eq!(cut, Ok(1), "the one whose topic it is, and nobody else");
    match shop.session.ended().await {
        RawEnd::Refused(refusal) => assert_eq!(refusal.code(), Code::Draining, "{refusal}"),
        end => panic!("{end}"),
    }
    bus.audit().await_line("the cut", |line| event(line) == "session-cut" && mentions(line, "shop")).await;
    other.publish("bills/eu", b"x").await.expect("it goes on");
    assert_eq!(
        Member::open(&bus, broker.address(), "shop")
            .await
            .publish("orders/eu", b"x")
            .await
            .expect("it may")
            .receipt,
        receipt(0)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_whose_streams_do_not_fit_is_refused_and_nothing_changes() {
    let bus = TestBus::new();
    let broker = bus.serve_with(sealbus_program!(), &policy()).await;
    let operator = bus.connect(broker.address(), OPERATOR).await;
    let shop = bus.connect(broker.address(), "shop").await;
    publish(&shop, "orders/eu", 0..5).await;
    let (before, sessions) = (operator.policy(), operator.stats().await.expect("it may").sessions);
    let second = |name: &str, id: &str, filter: &str| policy() + &stream(name, id, filter, "");
    let fresh = "00000000000000000000000000000abc";
    for (what, rules, said) in [
        ("the same topics", second("bills", fresh, "orders/#"), "orders/#"),
        ("some of its topics", second("bills", fresh, "+/eu"), "+/eu"),
        ("the same name", second("orders", fresh, "bills/#"), "orders"),
        ("the same id", second("bills", ORDERS, "bills/#"), ORDERS),
        ("no id", second("bills", &"0".repeat(32), "bills/#"), "id"),
        ("a system's name", second("$bills", fresh, "bills/#"), "bills"),
        ("the bus's own topics", second("bills", fresh, "$sys/#"), "$sys"),
        ("everything", second("bills", fresh, "#"), "#"),
        ("a rule about no stream", policy() + &allow_stream("bad", "x", "replay", "nothing"), "nothing"),
    ] {
        let error = reload(&bus, &operator, &rules).await.expect_err(what);
        assert!(error.contains(said), "{what}: {error}");
        assert_eq!(operator.policy(), before, "{what}");
    }
    let streams = operator.streams(None).await.expect("it may");
    assert_eq!(streams.len(), 1);
    assert_eq!(publish(&shop, "orders/eu", 5..8).await, [5, 6, 7], "nobody was cut");
    assert_eq!(operator.stats().await.expect("it may").sessions, sessions);
    let refused = bus.audit().matching(|line| event(line) == "policy-refused").len();
    assert_eq!(refused, 9);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_with_streams_needs_a_log_key() {
    let bus = TestBus::new();
    bus.write_policy(&policy());
    let config = bus.config();
    let whole = std::fs::read_to_string(&config).expect("there is a configuration");
    std::fs::write(&config, whole.replace("log_key = \"log.key\"\n", "")).expect("it can be written");
    let said = BrokerProcess::start_refused(sealbus_program!(), &config).await;
    assert!(said.contains("log_key"), "{said}");
    // Nor is such a policy taken while it runs.
    bus.write_policy("");
    let broker = bus.serve(sealbus_program!()).await;
    let operator = bus.connect(broker.address(), OPERATOR).await;
    let error = reload(&bus, &operator, &policy()).await.expect_err("there is no key");
    assert!(error.contains("log_key"), "{error}");
    // A key that others can read, and one that is none.
    std::fs::write(&config, whole).expect("it can be written");
    drop(operator);
    assert!(broker.terminate().await.success());
    bus.write_policy(&policy());
    let key = bus.path("log.key");
    let good = std::fs::read(&key).expect("there is a key");
    std::fs::write(&key, "no key").expect("it can be written");
    assert!(BrokerProcess::start_refused(sealbus_program!(), &config).await.contains("log.key"));
    std::fs::write(&key, good).expect("it can be written");
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    std::fs::set_permissions(&key, open).expect("the mode can be set");
    assert!(BrokerProcess::start_refused(sealbus_program!(), &config).await.contains("log.key"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_retention_and_durability_takes_effect_while_the_stream_runs() {
    let bus = TestBus::with_storage("segment_bytes = \"64KiB\"\n");
    let with = |settings: &str| {
        stream("orders", ORDERS, "orders/#", settings)
            + &allow("write", "shop", "publish", "orders/#")
            + &allow_stream("read", "auditor", "replay", "orders")
    };
    let broker = bus.serve_with(sealbus_program!(), &with("")).await;
    let operator = bus.connect(broker.address(), OPERATOR).await;
    let shop = bus.connect(broker.address(), "shop").await;
    let publisher = shop.publisher("orders/eu").await.expect("the topic opens");
    for _ in 0..50 {
        let receipt = within("publishing", publisher.publish(vec![b'x'; 10_000])).await.expect("it is kept");
        assert_eq!(receipt.durability(), Durability::Fsync);
    }
    let info = async || operator.streams(Some("orders")).await.expect("it may").remove(0);
    assert_eq!((info().await.first, info().await.end), (0, 50));
    let rules = with("retention = { messages = 20 }\ndurability = \"interval\"");
    assert_eq!(reload(&bus, &operator, &rules).await, Ok(0), "nobody is cut for it");
    let receipt = within("publishing", publisher.publish("x")).await.expect("it is kept");
    assert_eq!((receipt.durability(), receipt.offset()), (Durability::Interval, Some(50)));
    let trimmed =
        eventually_async("the old ones go", async || Some(info().await).filter(|info| info.first > 0)).await;
    assert!(trimmed.first <= 31 && trimmed.end == 51, "no more than it must: {}", trimmed.first);
    assert_eq!(trimmed.retention.messages.map(|messages| messages.get()), Some(20));
    bus.audit().await_line("the trim", |line| event(line) == "stream-trimmed").await;
    let auditor = bus.connect(broker.address(), "auditor").await;
    let found = replayed(&auditor, "orders").await;
    assert!(found.first().is_some_and(|(offset, _)| (1..=31).contains(offset)) && found.len() >= 20);
}

/// What is captured is still delivered live, once it is durable, and a consumer gets it from the stream.
#[tokio::test(flavor = "multi_thread")]
async fn live_subscribers_of_a_stream_get_what_is_kept_with_its_offset() {
    let bus = TestBus::new();
    let broker = bus.serve_with(sealbus_program!(), &policy()).await;
    let screen = bus.connect(broker.address(), "screen").await;
    let mut screen = screen.subscribe("orders/+").await.expect("it may");
    let billing = bus.connect(broker.address(), "billing").await;
    let mut billing = billing.consume("orders", "billing").from(Start::End).await.expect("it may");
    let shop = bus.connect(broker.address(), "shop").await;
    publish(&shop, "orders/eu", 0..20).await;
    for number in 0..20 {
        let live = within("live", screen.try_next()).await.expect("it proves itself").expect("it goes on");
        let kept = next_consumed(&mut billing).await;
        assert_eq!((live.offset(), text(&live)), (Some(number), number.to_string()));
        assert_eq!((kept.offset(), text(&kept)), (Some(number), number.to_string()));
        assert_eq!(live.stream_id(), kept.stream_id());
        kept.ack().await.expect("it is queued");
    }
}
