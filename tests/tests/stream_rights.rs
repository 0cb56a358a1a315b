//! Who may read what a stream keeps: decided for each batch that is delivered, from wherever it comes, and a change is a
//! fact when its call returns. FAILURES T31, T36 to T39.

#![allow(clippy::panic, reason = "what helps a test fails the test")]

use std::collections::BTreeSet;
use std::num::NonZeroU32;

use sealbus_client::{Code, DeliveryError, Missing, Replay, Start};
use sealbus_protocol::frame::{
    ConsumerSettings, Operation, SettleItem, Settlement, SubscriptionId, Sync, Until, What,
};
use sealbus_protocol::refusal::Refusal;
use sealbus_protocol::session::ClientEvent;
use sealbus_tests::audit::{event, mentions};
use sealbus_tests::member::CREDIT;
use sealbus_tests::producer::now_ms;
use sealbus_tests::reading::{
    ORDERS, checkpoint_of, next_consumed, next_replayed, numbered, publish, replayed, text,
};
use sealbus_tests::wait::{eventually_async, within};
use sealbus_tests::{Member, OPERATOR, TestBus, allow, allow_stream, sealbus_program, stream};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

fn base() -> String {
    stream("orders", ORDERS, "orders/#", "") + &allow("write", "shop", "publish", "orders/#")
}

/// A rule about a stream that is narrowed by a topic.
fn narrowed(kind: &str, id: &str, who: &str, verbs: &str, topic: &str) -> String {
    format!(
        "\n[[{kind}]]\nid = \"{id}\"\nwho = [\"spiffe://bus.test/{who}\"]\nverbs = [\"{verbs}\"]\nstreams = \
         [\"orders\"]\ntopics = [\"{topic}\"]\n"
    )
}

/// A refusal, without what was asked for: it must not tell what exists.
fn without_name(refusal: &Refusal, name: &str) -> (Code, String) {
    (refusal.code(), refusal.reason().replace(name, "..."))
}

/// FAILURES T36.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_grant_a_stream_is_not_told_from_one_that_is_not_there() {
    let bus = TestBus::new();
    let rules = base()
        + &allow("live", "screen", "subscribe", "#")
        + &allow_stream("work", "billing", "consume", "orders")
        + &allow_stream("read", "auditor", "replay", "orders");
    let broker = bus.serve_with(sealbus_program!(), &rules).await;
    let shop = bus.connect(broker.address(), "shop").await;
    publish(&shop, "orders/eu", 0..3).await;
    let billing = bus.connect(broker.address(), "billing").await;
    drop(billing.consume("orders", "billing").await.expect("it may"));
    let log = bus.audit();
    // Neither publishing nor listening live is reading history, and one way of reading it is not the other.
    for (who, may_consume, may_replay) in [
        ("nobody", false, false),
        ("shop", false, false),
        ("screen", false, false),
        ("auditor", false, true),
        ("billing", true, false),
    ] {
        let mut member = Member::open(&bus, broker.address(), who).await;
        let mut answers = Vec::new();
        for name in ["orders", "nothing"] {
            let mut refusals = Vec::new();
            let dead = format!("$dead/{name}/billing");
            for stream in [name, dead.as_str()] {
                let answer = member.session.replay(stream, Start::Earliest, Until::End, None, CREDIT).await;
                match answer {
                    Err(refusal) => refusals.push(without_name(&refusal, name)),
                    Ok(ready) => {
                        assert!(may_replay && name == "orders", "{who} replays {stream}");
                        member.delivered_until_closed(ready.subscription).await;
                    }
                }
                if !(may_replay || may_consume) {
                    let refusal = member.session.checkpoint(stream, 0, None).await.expect_err(who);
                    refusals.push(without_name(&refusal, name));
                }
            }
            let answer =
                member.session.consume((name, "billing"), ConsumerSettings::default(), None, CREDIT).await;
            match answer {
                Err(refusal) => refusals.push(without_name(&refusal, name)),
                Ok(_) => assert!(may_consume && name == "orders", "{who} consumes {name}"),
            }
            // Whoever may read the stream is told that its consumer has given nothing up.
            let is_told = |code: Code| code == Code::Limit && may_replay && name == "orders";
            assert!(
                refusals.iter().all(|(code, _)| *code == Code::Denied || is_told(*code)),
                "{who}: {refusals:?}"
            );
            answers.push(refusals);
        }
        if !(may_replay || may_consume) {
            assert_eq!(answers[0], answers[1], "{who}: a denied stream and an absent one answer alike");
        }
        let client = bus.connect(broker.address(), who).await;
        for name in [None, Some("orders"), Some("nothing")] {
            assert_eq!(client.streams(name).await.expect("the question may be asked"), [], "{who}");
            assert_eq!(client.consumers(name).await.expect("the question may be asked"), [], "{who}");
        }
    }
    let line = log.await_line("a denial", |line| event(line) == "denied" && mentions(line, "nobody")).await;
    assert!(mentions(&line, "orders") || mentions(&line, "nothing"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_that_topics_narrow_delivers_those_alone() {
    let bus = TestBus::new();
    let rules = base()
        + &narrowed("allow", "eu", "auditor", "replay\", \"consume", "orders/eu/#")
        + &allow_stream("see", "auditor", "describe", "orders");
    let broker = bus.serve_with(sealbus_program!(), &rules).await;
    let shop = bus.connect(broker.address(), "shop").await;
    for number in 0..30 {
        let topic = ["orders/eu", "orders/us", "orders/eu/north"][usize::try_from(number % 3).unwrap()];
        publish(&shop, topic, number..number + 1).await;
    }
    let expected: Vec<u64> = (0..30).filter(|number| number % 3 != 1).collect();
    let auditor = bus.connect(broker.address(), "auditor").await;
    let replay = auditor.replay("orders").until_end().await.expect("some of it may be read");
    assert!(replay.narrowed());
    assert_eq!(offsets(replay).await, expected);
    let replay =
        auditor.replay("orders").filter("orders/eu/#").until_end().await.expect("all of this may be read");
    assert!(!replay.narrowed());
    assert_eq!(offsets(replay).await, expected);
    let error = auditor.replay("orders").filter("orders/us").await.expect_err("none of this may be read");
    assert_eq!(error.code(), Some(Code::Denied), "{error}");
    // A member of a group must be allowed all that the group gets.
    for filter in [None, Some("#"), Some("orders/#"), Some("orders/+"), Some("orders/us")] {
        let mut builder = auditor.consume("orders", "billing");
        if let Some(filter) = filter {
            builder = builder.filter(filter);
        }
        let error = builder.await.expect_err("not all of this may be read");
        assert_eq!(error.code(), Some(Code::Denied), "{filter:?}: {error}");
    }
    assert_eq!(auditor.consumers(Some("orders")).await.expect("it may"), [], "nothing was created");
    let mut consumer = auditor.consume("orders", "billing").filter("orders/eu/#").await.expect("all of this");
    for offset in expected {
        assert_eq!(next_consumed(&mut consumer).await.offset(), Some(offset));
    }
}

async fn offsets(mut replay: Replay) -> Vec<u64> {
    let mut offsets = Vec::new();
    while let Some(message) = next_replayed(&mut replay).await {
        offsets.push(message.offset().expect("what is stored has an offset"));
    }
    offsets
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deny_beats_every_allow_in_history_too() {
    let bus = TestBus::new();
    let rules = base()
        + &allow_stream("read", "auditor", "replay\", \"consume", "orders")
        + &allow_stream("all", "spiffe://bus.test/*", "replay\", \"consume", "orders")
        + &narrowed("deny", "secret", "auditor", "replay\", \"consume", "orders/secret/#");
    let broker = bus.serve_with(sealbus_program!(), &rules).await;
    let shop = bus.connect(broker.address(), "shop").await;
    for number in 0..20 {
        publish(&shop, if number % 2 == 0 { "orders/eu" } else { "orders/secret/x" }, number..number + 1)
            .await;
    }
    let expected: Vec<u64> = (0..20).filter(|number| number % 2 == 0).collect();
    let auditor = bus.connect(broker.address(), "auditor").await;
    let replay = auditor.replay("orders").until_end().await.expect("some of it may be read");
    assert!(replay.narrowed());
    assert_eq!(offsets(replay).await, expected);
    for filter in ["orders/secret/#", "orders/secret/x", "orders/secret/+"] {
        let error = auditor.replay("orders").filter(filter).await.expect_err(filter);
        assert_eq!(error.code(), Some(Code::Denied), "{error}");
    }
    let error = auditor.consume("orders", "billing").await.expect_err("a part of it is denied");
    assert_eq!(error.code(), Some(Code::Denied), "{error}");
    let other = bus.connect(broker.address(), "other").await;
    assert_eq!(replayed(&other, "orders").await, numbered(0..20), "the deny is about one principal");
}

/// FAILURES T37, P4: in the middle of history, and at its live end.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_replay_follows_the_marker_of_the_policy_that_withdraws_it() {
    let bus = TestBus::new();
    let granted = base() + &allow_stream("read", "auditor", "replay", "orders");
    let broker = bus.serve_with(sealbus_program!(), &granted).await;
    let operator = bus.connect(broker.address(), OPERATOR).await;
    let shop = bus.connect(broker.address(), "shop").await;
    let publisher = shop.publisher("orders/eu").await.expect("the topic opens");
    let large = vec![b'x'; 50_000];
    for _ in 0..200 {
        within("publishing", publisher.publish(large.clone())).await.expect("it is kept");
    }
    for (what, from) in [("history", Start::Earliest), ("the live end", Start::End)] {
        let mut auditor = Member::open(&bus, broker.address(), "auditor").await;
        let ready = auditor.session.replay("orders", from, Until::Live, None, CREDIT).await.expect("it may");
        if from == Start::Earliest {
            assert!(matches!(auditor.event().await, ClientEvent::Deliver(_)), "{what}");
        }
        let publishing = async {
            for _ in 0..50 {
                within("publishing", publisher.publish(large.clone())).await.expect("it is kept");
            }
        };
        let reading = async {
            let (mut marked, mut closed, mut delivered) = (false, false, 0);
            while !closed {
                match auditor.event().await {
                    ClientEvent::Deliver(_) => {
                        assert!(!marked, "{what}: a delivery follows the marker");
                        delivered += 1;
                    }
                    ClientEvent::Generation(_) => marked = true,
                    ClientEvent::Closed(What::Subscription(id)) => {
                        assert_eq!(id, ready.subscription);
                        closed = true;
                    }
                    _ => {}
                }
            }
            delivered
        };
        let reloading = async {
            bus.reload(&operator, &base()).await;
            // It is a fact: what is asked for now is asked under the new rules.
            let other = bus.connect(broker.address(), "auditor").await;
            assert_eq!(other.replay("orders").await.expect_err("withdrawn").code(), Some(Code::Denied));
        };
        let (_, delivered, ()) = tokio::join!(publishing, reading, reloading);
        assert!(delivered < 600, "{what}");
        within("publishing", publisher.publish(large.clone())).await.expect("it is kept");
        // Whatever the broker still had to say would come before the answer.
        match auditor.session.replay("orders", Start::Earliest, Until::Live, None, CREDIT).await {
            Err(refusal) => assert_eq!(refusal.code(), Code::Denied),
            Ok(_) => panic!("{what}: it was withdrawn"),
        }
        bus.reload(&operator, &granted).await;
    }
}

/// FAILURES T37: what a member has in hand goes to those who may still have it.
#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_loses_its_right_leaves_its_work_to_the_others() {
    let bus = TestBus::new();
    let of = |who: &str| allow_stream(who, who, "consume", "orders");
    let broker = bus.serve_with(sealbus_program!(), &(base() + &of("leaver") + &of("stayer"))).await;
    let operator = bus.connect(broker.address(), OPERATOR).await;
    let shop = bus.connect(broker.address(), "shop").await;
    publish(&shop, "orders/eu", 0..10).await;
    let mut leaver = Member::open(&bus, broker.address(), "leaver").await;
    let joined = leaver.session.consume(("orders", "work"), ConsumerSettings::default(), None, CREDIT).await;
    let subscription = joined.expect("it may").subscription;
    for _ in 0..10 {
        assert!(matches!(leaver.event().await, ClientEvent::Deliver(_)));
    }
    let stayer = bus.connect(broker.address(), "stayer").await;
    let mut staying = stayer.consume("orders", "work").await.expect("it may");
    let leaving = async {
        let mut marked = false;
        loop {
            match leaver.event().await {
                ClientEvent::Deliver(_) => assert!(!marked, "a delivery follows the marker"),
                ClientEvent::Generation(_) => marked = true,
                ClientEvent::Closed(What::Subscription(id)) if id == subscription => return,
                _ => {}
            }
        }
    };
    let rules = base() + &of("stayer");
    tokio::join!(bus.reload(&operator, &rules), leaving);
    let mut inherited = BTreeSet::new();
    while inherited.len() < 10 {
        let message = next_consumed(&mut staying).await;
        assert_eq!(message.deliveries(), 2);
        inherited.insert(message.offset().expect("it is stored"));
        message.ack_sync().await.expect("it is durable");
    }
    assert_eq!(inherited, (0..10).collect());
    publish(&shop, "orders/eu", 10..12).await;
    for offset in 10..12 {
        assert_eq!(next_consumed(&mut staying).await.offset(), Some(offset), "and so does what follows");
    }
    let refused = leaver.session.consume(("orders", "work"), ConsumerSettings::default(), None, CREDIT).await;
    assert_eq!(refused.expect_err("withdrawn").code(), Code::Denied);
}

/// FAILURES T37: a part that is withdrawn goes at once, and the replay goes on with the rest.
#[tokio::test(flavor = "multi_thread")]
async fn a_grant_that_is_narrowed_meanwhile_is_narrowed_from_the_marker_on() {
    let bus = TestBus::new();
    let broker = bus
        .serve_with(
            sealbus_program!(),
            &(base() + &allow_stream("read", "auditor", "replay\", \"consume", "orders")),
        )
        .await;
    let operator = bus.connect(broker.address(), OPERATOR).await;
    let shop = bus.connect(broker.address(), "shop").await;
    let (eu, us) = (shop.publisher("orders/eu").await.unwrap(), shop.publisher("orders/us").await.unwrap());
    let mut auditor = Member::open(&bus, broker.address(), "auditor").await;
    let ready =
        auditor.session.replay("orders", Start::Earliest, Until::Live, None, CREDIT).await.expect("it may");
    let consumer = bus.connect(broker.address(), "auditor").await;
    let mut consumer = consumer.consume("orders", "work").await.expect("it may");
    let publishing = async {
        for number in 0..100 {
            let publisher = if number % 2 == 0 { &eu } else { &us };
            within("publishing", publisher.publish(number.to_string())).await.expect("it is kept");
        }
        within("publishing", eu.publish("last")).await.expect("it is kept");
    };
    let narrowing = async {
        let rules = base() + &narrowed("allow", "eu", "auditor", "replay\", \"consume", "orders/eu");
        bus.reload(&operator, &rules).await;
        within("publishing", us.publish("secret")).await.expect("it is kept");
        within("publishing", eu.publish("later")).await.expect("it is kept");
    };
    let reading = async {
        let mut marked = false;
        loop {
            match auditor.event().await {
                ClientEvent::Deliver(delivered) => {
                    assert_eq!(delivered.subscription, ready.subscription);
                    assert!(!marked || delivered.topic.as_str() == "orders/eu", "after the marker");
                    if delivered.batch.ends_with(b"later") {
                        return;
                    }
                }
                ClientEvent::Generation(_) => marked = true,
                ClientEvent::Closed(_) => panic!("a part of it may still be read"),
                _ => {}
            }
        }
    };
    tokio::join!(
        async {
            publishing.await;
            narrowing.await
        },
        reading
    );
    // A member that is not allowed everything any more is none.
    let ended = within("the end of the membership", async {
        loop {
            match consumer.next().await {
                Some(Err(DeliveryError::Closed(reason))) => return reason,
                Some(Ok(message)) => assert_ne!(text(&message), "secret"),
                Some(Err(error)) => panic!("{error}"),
                None => panic!("it ends with a reason"),
            }
        }
    })
    .await;
    assert!(ended.to_string().contains("the broker ended it"), "{ended}");
}

/// FAILURES T38.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_producer_published_after_it_was_revoked_is_withheld_and_its_history_before_is_not() {
    let bus = TestBus::new();
    let rules = base()
        + &allow("thief", "thief", "publish", "orders/#")
        + &allow_stream("read", "auditor", "replay\", \"consume", "orders");
    let broker = bus.serve_with(sealbus_program!(), &rules).await;
    let operator = bus.connect(broker.address(), OPERATOR).await;
    let (shop, thief) =
        (bus.connect(broker.address(), "shop").await, bus.connect(broker.address(), "thief").await);
    publish(&thief, "orders/eu", 0..5).await;
    let stolen_ms = now_ms() + 2;
    while now_ms() <= stolen_ms {
        std::hint::spin_loop();
    }
    publish(&thief, "orders/eu", 5..10).await;
    publish(&shop, "orders/eu", 10..12).await;
    let auditor = bus.connect(broker.address(), "auditor").await;
    assert_eq!(replayed(&auditor, "orders").await, numbered(0..12), "nobody knows yet");
    let from = OffsetDateTime::from_unix_timestamp_nanos(i128::from(stolen_ms) * 1_000_000).unwrap();
    let from = from.format(&Rfc3339).unwrap();
    let revoked =
        rules + &format!("\n[[revoke]]\nprincipal = \"spiffe://bus.test/thief\"\nfrom = \"{from}\"\n");
    bus.reload(&operator, &revoked).await;

    let expected: Vec<u64> = (0..5).chain(10..12).collect();
    let mut reader = Member::open(&bus, broker.address(), "auditor").await;
    let ready =
        reader.session.replay("orders", Start::Earliest, Until::End, None, CREDIT).await.expect("it may");
    let delivered: Vec<u64> = reader
        .delivered_until_closed(ready.subscription)
        .await
        .into_iter()
        .map(|(_, offset)| offset)
        .collect();
    assert_eq!(delivered, expected);
    let mut replay = auditor.replay("orders").until_end().await.expect("it may");
    let (mut found, mut missing) = (Vec::new(), Vec::new());
    loop {
        match within("replaying", replay.try_next()).await {
            Ok(Some(message)) => found.push(message.offset().expect("it is stored")),
            Ok(None) => break,
            Err(DeliveryError::Skipped { from, to, .. }) => missing.push((from..to).collect::<Vec<_>>()),
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(
        (found, missing.concat()),
        (expected.clone(), vec![5, 6, 7, 8, 9]),
        "the client says what is missing"
    );
    let mut consumer = auditor.consume("orders", "work").await.expect("it may");
    let (mut found, mut missing) = (Vec::new(), 0);
    while found.len() < expected.len() {
        match within("consuming", consumer.try_next()).await {
            Ok(Some(message)) => {
                found.push(message.offset().expect("it is stored"));
                message.ack_sync().await.expect("it is durable");
            }
            Err(DeliveryError::Skipped { from, to, why: Missing::Withdrawn }) => missing += to - from,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((found, missing), (expected, 5), "the consumer is told what is missing");
    let info = eventually_async("the consumer is done", async || {
        operator.consumers(Some("orders")).await.ok()?.into_iter().find(|info| info.position == 12)
    })
    .await;
    assert_eq!((info.unacknowledged, info.dead), (0, 0));
    // Its bytes are still part of the history that is signed.
    assert!(checkpoint_of(&auditor, "orders", 12).await.size() >= 12);
    let refused = Member::open(&bus, broker.address(), "shop").await.publish("orders/eu", b"x").await;
    assert_eq!(refused.expect("the shop goes on").receipt.offset, Some(12));
    let error = bus.try_connect(broker.address(), "thief").await.expect_err("it is revoked");
    assert!(error.to_string().contains("revoked"), "{error}");
}

/// FAILURES T31: dead letters are read by the rules of the stream that they came from, on their own topics.
#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_read_by_the_rights_of_their_stream() {
    let bus = TestBus::new();
    let rules = base()
        + &allow_stream("work", "billing", "consume", "orders")
        + &allow_stream("read", "auditor", "replay", "orders")
        + &narrowed("allow", "eu", "european", "replay", "orders/eu");
    let broker = bus.serve_with(sealbus_program!(), &rules).await;
    let operator = bus.connect(broker.address(), OPERATOR).await;
    let shop = bus.connect(broker.address(), "shop").await;
    publish(&shop, "orders/eu", 0..1).await;
    publish(&shop, "orders/us", 1..2).await;
    let billing = bus.connect(broker.address(), "billing").await;
    let mut consumer = billing.consume("orders", "billing").max_deliver(1).await.expect("it may");
    for _ in 0..2 {
        next_consumed(&mut consumer).await.nack(std::time::Duration::ZERO).await.expect("it is queued");
    }
    eventually_async("two dead letters", async || {
        operator.consumers(Some("orders")).await.ok()?.into_iter().find(|info| info.dead == 2)
    })
    .await;
    let dead = "$dead/orders/billing";
    let payloads = async |who: &str| {
        let bus = bus.connect(broker.address(), who).await;
        let mut replay = bus.replay(dead).until_end().await?;
        let mut payloads = Vec::new();
        while let Some(message) = next_replayed(&mut replay).await {
            payloads.push(text(&message));
        }
        Ok::<_, sealbus_client::SubscribeError>(payloads)
    };
    assert_eq!(payloads("auditor").await.expect("it may"), ["0", "1"]);
    assert_eq!(payloads("european").await.expect("it may"), ["0"]);
    // Not even whoever refused them: to consume is not to replay.
    for who in ["billing", "shop", "nobody"] {
        assert_eq!(payloads(who).await.expect_err(who).code(), Some(Code::Denied));
    }
    let mut auditor = Member::open(&bus, broker.address(), "auditor").await;
    let ready =
        auditor.session.replay(dead, Start::Earliest, Until::Live, None, CREDIT).await.expect("it may");
    let ending = async {
        let mut marked = false;
        loop {
            match auditor.event().await {
                ClientEvent::Deliver(_) => assert!(!marked, "a delivery follows the marker"),
                ClientEvent::Generation(_) => marked = true,
                ClientEvent::Closed(What::Subscription(id)) if id == ready.subscription => return,
                _ => {}
            }
        }
    };
    let rules = base();
    tokio::join!(bus.reload(&operator, &rules), ending);
    assert_eq!(payloads("auditor").await.expect_err("withdrawn").code(), Some(Code::Denied));
}

fn ack(offset: u64) -> SettleItem {
    SettleItem { offset, count: NonZeroU32::MIN, settlement: Settlement::Ack }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_settles_or_moves_what_another_has_in_hand() {
    let bus = TestBus::new();
    let of = |who: &str| allow_stream(who, who, "consume\", \"describe", "orders");
    let broker = bus.serve_with(sealbus_program!(), &(base() + &of("one") + &of("two"))).await;
    let operator = bus.connect(broker.address(), OPERATOR).await;
    let shop = bus.connect(broker.address(), "shop").await;
    publish(&shop, "orders/eu", 0..5).await;
    let mut one = Member::open(&bus, broker.address(), "one").await;
    let mut two = Member::open(&bus, broker.address(), "two").await;
    let settings = ConsumerSettings::default;
    let of_one = one.session.consume(("orders", "of-one"), settings(), None, CREDIT).await.expect("it may");
    let of_two = two.session.consume(("orders", "of-two"), settings(), None, CREDIT).await.expect("it may");
    for _ in 0..5 {
        assert!(matches!(one.event().await, ClientEvent::Deliver(_)));
        assert!(matches!(two.event().await, ClientEvent::Deliver(_)));
    }
    let unacknowledged = async |name: &str| {
        let infos = operator.consumers(Some("orders")).await.expect("an operator may ask");
        infos.into_iter().find(|info| info.name.as_str() == name).expect("it is there").unacknowledged
    };
    // Subscriptions are a session's own: two's has the same number as one's.
    assert_eq!(of_one.subscription, of_two.subscription);
    two.session.settle(of_two.subscription, (0..5).map(ack).collect()).await.expect("its own");
    assert_eq!((unacknowledged("of-one").await, unacknowledged("of-two").await), (5, 0));
    // A member of the same consumer settles what it has itself.
    let shared = two.session.consume(("orders", "of-one"), settings(), None, CREDIT).await.expect("it may");
    let refusal = two.session.settle(shared.subscription, (0..5).map(ack).collect()).await;
    assert_eq!(refusal.expect_err("they are with another").code(), Code::Conflict);
    assert_eq!(unacknowledged("of-one").await, 5);
    // A subscription that is none, or is no consumer's.
    let refused = settle_past(&mut two, SubscriptionId(9_999)).await;
    assert_eq!(refused.code(), Code::Session, "{refused}");

    let client = bus.connect(broker.address(), "one").await;
    let error =
        client.reset_consumer("orders", "of-two", Start::Earliest).await.expect_err("it is no operator");
    assert_eq!(error.code(), Some(Code::Denied));
    let error =
        client.reset_consumer("orders", "of-one", Start::Earliest).await.expect_err("not its own either");
    assert_eq!(error.code(), Some(Code::Denied));
    assert_eq!(client.stats().await.expect_err("it is no operator").code(), Some(Code::Denied));
    let line = bus
        .audit()
        .await_line("a denial", |line| event(line) == "admin-denied" && mentions(line, "one"))
        .await;
    assert!(mentions(&line, "reset") || mentions(&line, "stats"), "{line}");
    assert!(operator.stats().await.expect("an operator may").published >= 5);
    let unknown =
        operator.reset_consumer("orders", "nobody", Start::Earliest).await.expect_err("there is none");
    assert_eq!(unknown.code(), Some(Code::Limit));

    assert_eq!(operator.reset_consumer("orders", "of-one", Start::Offset(2)).await.expect("it may"), 2);
    // What was in hand counts for nothing now; it comes again as if for the first time, to either.
    one.session.settle(of_one.subscription, (0..2).map(ack).collect()).await.expect("it is passed over");
    let info = operator.consumers(Some("orders")).await.expect("it may");
    let info = info.iter().find(|info| info.name.as_str() == "of-one").expect("it is there");
    assert_eq!(info.position, 2);
    for from in [Start::Offset(6), Start::Offset(u64::MAX)] {
        let error = operator.reset_consumer("orders", "of-one", from).await.expect_err("beyond the end");
        assert_eq!(error.code(), Some(Code::Limit), "{error}");
    }
}

/// A SETTLE that the client's half would not send.
async fn settle_past(member: &mut Member, subscription: SubscriptionId) -> Refusal {
    use bytes::Buf as _;
    use sealbus_protocol::frame::{Frame as _, Settle};
    // The request's number is one that the session knows: that of a question which is asked at the same moment.
    let request = member.session.session.admin(Operation::Stats).expect("few requests are open");
    let settle = Settle { request, subscription, sync: Sync::Yes, items: vec![ack(0)] };
    let outgoing = member.session.session.outgoing();
    outgoing.advance(outgoing.remaining());
    member.session.client.send(&settle.encode()).await.expect("the broker reads");
    loop {
        match member.event().await {
            ClientEvent::Refused(refused) => return refused.refusal,
            ClientEvent::Deliver(_) => {}
            other => panic!("{other:?}"),
        }
    }
}
