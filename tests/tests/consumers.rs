//! Durable consumers: at least once, to one member at a time, until it is acknowledged or given up, and across kills.
//! FAILURES T31, T49, T62.

#![allow(clippy::panic, reason = "what helps a test fails the test")]

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use sealbus_client::{Bus, Code, ConsumeBuilder, Consumer, DeliveryError, Message, Start};
use sealbus_protocol::frame::{
    ConsumerChoices, ConsumerSettings, SettleItem, Settlement, SubscriptionId, Until,
};
use sealbus_protocol::session::ClientEvent;
use sealbus_tests::audit::event;
use sealbus_tests::member::CREDIT;
use sealbus_tests::raw::RawEnd;
use sealbus_tests::reading::{
    ORDERS, checkpoint_of, next_consumed, next_replayed, numbered, publish, replayed, text,
};
use sealbus_tests::wait::{eventually_async, within};
use sealbus_tests::{Member, OPERATOR, TestBus, allow, allow_stream, sealbus_program, stream};

fn policy() -> String {
    stream("orders", ORDERS, "orders/#", "")
        + &allow("write", "shop", "publish", "orders/#")
        + &allow_stream("read", "auditor", "replay", "orders")
        + &allow_stream("work", "billing", "consume", "orders")
        + &allow_stream("see", "billing", "describe", "orders")
}

/// A consumer's member that reads everything from the beginning.
fn member(bus: &Bus) -> ConsumeBuilder {
    bus.consume("orders", "billing").from(Start::Earliest)
}

fn offset(message: &Message) -> u64 {
    message.offset().expect("what is stored has an offset")
}

const fn many(count: u32) -> NonZeroU32 {
    NonZeroU32::new(count).expect("tests want some")
}

/// The consumer as administration shows it, once `is_so`.
async fn shown(
    operator: &Bus,
    is_so: impl Fn(&sealbus_client::ConsumerInfo) -> bool,
) -> sealbus_client::ConsumerInfo {
    eventually_async("the consumer is so", async || {
        let infos = operator.consumers(Some("orders")).await.ok()?;
        infos.into_iter().find(|info| info.name.as_str() == "billing" && is_so(info))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn members_share_the_work_and_each_record_goes_to_one() {
    let bus = TestBus::new();
    let broker = bus.serve_with(sealbus_program!(), &policy()).await;
    let (one, two) =
        (bus.connect(broker.address(), "billing").await, bus.connect(broker.address(), "billing").await);
    let (mut one, mut two) = (member(&one).await.expect("it may"), member(&two).await.expect("it may"));
    let shop = bus.connect(broker.address(), "shop").await;
    publish(&shop, "orders/eu", 0..100).await;
    let mut seen = [BTreeSet::new(), BTreeSet::new()];
    while seen[0].len() + seen[1].len() < 100 {
        let (place, message) = within("work", async {
            tokio::select! {
                message = one.try_next() => (0, message),
                message = two.try_next() => (1, message),
            }
        })
        .await;
        let message = message.expect("it proves itself").expect("it goes on");
        assert_eq!(message.deliveries(), 1);
        assert!(seen[place].insert(offset(&message)));
        message.ack().await.expect("it is queued");
    }
    assert!(seen[0].is_disjoint(&seen[1]), "each record to one member");
    assert!(
        seen.iter().all(|seen| seen.len() >= 20),
        "both have their share: {} and {}",
        seen[0].len(),
        seen[1].len()
    );
    let operator = bus.connect(broker.address(), OPERATOR).await;
    let info = shown(&operator, |info| info.position == 100).await;
    assert_eq!((info.members, info.unacknowledged, info.lag, info.acknowledged), (2, 0, 0, 100));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_member_had_when_it_died_goes_to_the_others() {
    let bus = TestBus::new();
    let broker = bus.serve_with(sealbus_program!(), &policy()).await;
    let shop = bus.connect(broker.address(), "shop").await;
    publish(&shop, "orders/eu", 0..10).await;
    let mut dies = Member::open(&bus, broker.address(), "billing").await;
    let joined = dies.session.consume(("orders", "billing"), ConsumerSettings::default(), None, CREDIT).await;
    let subscription = joined.expect("it may").subscription;
    let mut had = BTreeSet::new();
    while had.len() < 10 {
        if let ClientEvent::Deliver(delivered) = dies.event().await {
            assert_eq!(delivered.subscription, subscription);
            had.insert(delivered.offset.expect("it is stored"));
        }
    }
    let billing = bus.connect(broker.address(), "billing").await;
    let mut heir = member(&billing).await.expect("it may");
    // Its connection ends without a word.
    drop(dies);
    let mut inherited = BTreeSet::new();
    while inherited.len() < 10 {
        let message = next_consumed(&mut heir).await;
        assert_eq!(message.deliveries(), 2, "it is told that it was delivered before");
        inherited.insert(offset(&message));
        message.ack_sync().await.expect("it is durable");
    }
    assert_eq!(inherited, had);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_acknowledged_in_time_is_delivered_again() {
    let bus = TestBus::new();
    let broker = bus.serve_with(sealbus_program!(), &policy()).await;
    let shop = bus.connect(broker.address(), "shop").await;
    publish(&shop, "orders/eu", 0..3).await;
    let billing = bus.connect(broker.address(), "billing").await;
    let wait = Duration::from_millis(200);
    let mut consumer = member(&billing).ack_wait(wait).max_deliver(0).await.expect("it may");
    let begun = Instant::now();
    let mut first = Vec::new();
    for _ in 0..3 {
        first.push(next_consumed(&mut consumer).await);
    }
    assert!(first.iter().all(|message| message.deliveries() == 1));
    first[1].ack_sync().await.expect("it is durable");
    let mut again = BTreeSet::new();
    while again.len() < 2 {
        let message = next_consumed(&mut consumer).await;
        assert!(message.deliveries() > 1);
        assert!(begun.elapsed() >= wait, "not before its time");
        again.insert(offset(&message));
        message.ack_sync().await.expect("it is durable");
    }
    assert_eq!(again, BTreeSet::from([0, 2]), "and what was acknowledged is not");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nack_with_a_delay_is_delivered_again_after_it_and_not_before() {
    let bus = TestBus::new();
    let broker = bus.serve_with(sealbus_program!(), &policy()).await;
    let shop = bus.connect(broker.address(), "shop").await;
    publish(&shop, "orders/eu", 0..2).await;
    let billing = bus.connect(broker.address(), "billing").await;
    let mut consumer = member(&billing).await.expect("it may");
    let (zero, one) = (next_consumed(&mut consumer).await, next_consumed(&mut consumer).await);
    let (given_back, delay) = (Instant::now(), Duration::from_millis(400));
    zero.nack(delay).await.expect("it is queued");
    one.nack(Duration::ZERO).await.expect("it is queued");
    let next = next_consumed(&mut consumer).await;
    assert_eq!((offset(&next), next.deliveries()), (1, 2), "without a delay it comes at once");
    next.ack_sync().await.expect("it is durable");
    let next = next_consumed(&mut consumer).await;
    assert_eq!((offset(&next), next.deliveries()), (0, 2));
    assert!(given_back.elapsed() >= delay, "not before its time");
    next.ack_sync().await.expect("it is durable");
}

/// FAILURES T31.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_delivered_too_often_becomes_a_dead_letter_that_still_proves_itself() {
    let bus = TestBus::new();
    let mut broker = bus.serve_with(sealbus_program!(), &policy()).await;
    let shop = bus.connect(broker.address(), "shop").await;
    // Of one batch only a record in its middle is given up.
    let publisher = shop.publisher("orders/eu").await.expect("the topic opens");
    within("publishing", publisher.publish_all((0..20).map(|number: u64| number.to_string())))
        .await
        .expect("kept");
    let billing = bus.connect(broker.address(), "billing").await;
    let mut consumer = member(&billing).max_deliver(3).await.expect("it may");
    let mut settled = BTreeSet::new();
    let mut refused = 0;
    while settled.len() < 19 || refused < 3 {
        let message = next_consumed(&mut consumer).await;
        if offset(&message) == 7 {
            refused += 1;
            assert_eq!(message.deliveries(), refused);
            message.nack(Duration::ZERO).await.expect("it is queued");
        } else if settled.insert(offset(&message)) {
            message.ack().await.expect("it is queued");
        }
    }
    let operator = bus.connect(broker.address(), OPERATOR).await;
    let info = shown(&operator, |info| info.dead == 1).await;
    assert_eq!((info.position, info.unacknowledged, info.lag), (20, 0, 0));
    bus.audit().await_line("a dead letter", |line| event(line) == "dead-lettered").await;
    for _ in 0..2 {
        let auditor = bus.connect(broker.address(), "auditor").await;
        let mut dead = auditor.replay("$dead/orders/billing").until_end().await.expect("it may be read");
        let letter = next_replayed(&mut dead).await.expect("there is one");
        assert_eq!((text(&letter), letter.deliveries()), ("7".to_owned(), 3));
        assert_eq!(letter.producer(), &bus.principal("shop"), "its producer's signature still proves it");
        assert_eq!(letter.sequence(), 7);
        assert!(next_replayed(&mut dead).await.is_none(), "and nothing else of its batch");
        assert_eq!(replayed(&auditor, "orders").await, numbered(0..20), "the original stays where it was");
        broker.kill();
        broker = bus.serve(sealbus_program!()).await;
    }
}

/// FAILURES T62.
#[tokio::test(flavor = "multi_thread")]
async fn a_group_has_no_more_in_hand_than_it_may() {
    let bus = TestBus::new();
    let broker = bus.serve_with(sealbus_program!(), &policy()).await;
    let shop = bus.connect(broker.address(), "shop").await;
    publish(&shop, "orders/eu", 0..30).await;
    let mut hoarder = Member::open(&bus, broker.address(), "billing").await;
    let choices = ConsumerChoices { unacknowledged_max: Some(many(7)), ..ConsumerChoices::default() };
    let settings = ConsumerSettings::new(choices).expect("the settings are good");
    let joined = hoarder.session.consume(("orders", "billing"), settings, None, CREDIT).await;
    let subscription = joined.expect("it may").subscription;
    let operator = bus.connect(broker.address(), OPERATOR).await;
    let mut next = 0;
    for round in 0..4 {
        for _ in 0..7 {
            let delivered = next_delivered(&mut hoarder).await;
            assert_eq!(delivered, next);
            next += 1;
        }
        let info = shown(&operator, |info| info.unacknowledged == 7).await;
        assert_eq!((info.delivered, info.position), (7 * (round + 1), 7 * round));
        settle(&mut hoarder, subscription, round * 7, 7).await;
    }
}

async fn next_delivered(member: &mut Member) -> u64 {
    loop {
        if let ClientEvent::Deliver(delivered) = member.event().await {
            return delivered.offset.expect("it is stored");
        }
    }
}

async fn settle(member: &mut Member, subscription: SubscriptionId, offset: u64, count: u32) {
    let item = SettleItem { offset, count: many(count), settlement: Settlement::Ack };
    member
        .session
        .session
        .settle(subscription, vec![item], sealbus_protocol::frame::Sync::No)
        .expect("few are open");
    member.session.flush().await.expect("the broker reads");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_settings_of_a_consumer_are_those_that_it_was_created_with() {
    let bus = TestBus::new();
    let mut broker = bus.serve_with(sealbus_program!(), &policy()).await;
    let billing = bus.connect(broker.address(), "billing").await;
    let create =
        || billing.consume("orders", "billing").filter("orders/eu/#").ack_wait(Duration::from_secs(7));
    drop(create().await.expect("it is created"));
    for _ in 0..2 {
        for (other, asked) in [
            ("filter", billing.consume("orders", "billing").filter("orders/us/#")),
            ("no filter", billing.consume("orders", "billing")),
            ("ack_wait", create().ack_wait(Duration::from_secs(8))),
            ("max_deliver", create().max_deliver(9)),
            ("backoff", create().backoff([Duration::from_secs(1)])),
            ("unacknowledged_max", create().unacknowledged_max(many(9))),
        ] {
            let error = within("joining", asked.start()).await.expect_err(other);
            assert_eq!(error.code(), Some(Code::Conflict), "{other}: {error}");
        }
        drop(within("joining", create().start()).await.expect("as it was created"));
        drop(
            within("joining", billing.consume("orders", "billing").filter("orders/eu/#").start())
                .await
                .expect("what is left out is as it is"),
        );
        broker.kill();
        broker = bus.serve(sealbus_program!()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_leaves_out_what_does_not_match_and_the_position_passes_it() {
    let bus = TestBus::new();
    let broker = bus.serve_with(sealbus_program!(), &policy()).await;
    let shop = bus.connect(broker.address(), "shop").await;
    for number in 0..10 {
        publish(&shop, if number % 2 == 0 { "orders/eu" } else { "orders/us" }, number..number + 1).await;
    }
    let billing = bus.connect(broker.address(), "billing").await;
    let mut consumer = member(&billing).filter("orders/us").await.expect("it may");
    for expected in [1, 3, 5, 7, 9] {
        let message = next_consumed(&mut consumer).await;
        assert_eq!((offset(&message), message.topic().as_str()), (expected, "orders/us"));
        message.ack_sync().await.expect("it is durable");
    }
    let operator = bus.connect(broker.address(), OPERATOR).await;
    let info = shown(&operator, |info| info.position == 10).await;
    assert_eq!((info.lag, info.delivered), (0, 5));
}

/// Every answer of `ack_sync` before the kill holds after it; what was not acknowledged comes again.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_durably_stays_so_when_the_broker_is_killed() {
    let bus = TestBus::new();
    let mut broker = bus.serve_with(sealbus_program!(), &policy()).await;
    let shop = bus.connect(broker.address(), "shop").await;
    publish(&shop, "orders/eu", 0..40).await;
    let mut left: BTreeSet<u64> = (0..40).collect();
    for round in 0..4 {
        let billing = bus.connect(broker.address(), "billing").await;
        let mut consumer = member(&billing).await.expect("it may");
        for step in 0..10 {
            let message = next_consumed(&mut consumer).await;
            assert!(
                left.contains(&offset(&message)),
                "round {round}: {} was acknowledged durably",
                offset(&message)
            );
            // Every other one: holes must survive too.
            if step % 2 == 0 {
                message.ack_sync().await.expect("it is durable");
                left.remove(&offset(&message));
            }
        }
        broker.kill();
        broker = bus.serve(sealbus_program!()).await;
    }
    let billing = bus.connect(broker.address(), "billing").await;
    let mut consumer = member(&billing).await.expect("it may");
    while !left.is_empty() {
        let message = next_consumed(&mut consumer).await;
        assert!(left.remove(&offset(&message)), "{} was acknowledged durably", offset(&message));
        message.ack_sync().await.expect("it is durable");
    }
}

/// `ack()` is durable within 100 ms: here once an operator sees it in the cursor's position after a clean stop.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_stays_so_when_the_broker_is_stopped() {
    let bus = TestBus::new();
    let broker = bus.serve_with(sealbus_program!(), &policy()).await;
    let shop = bus.connect(broker.address(), "shop").await;
    publish(&shop, "orders/eu", 0..10).await;
    let billing = bus.connect(broker.address(), "billing").await;
    let mut consumer = member(&billing).await.expect("it may");
    for _ in 0..10 {
        next_consumed(&mut consumer).await.ack().await.expect("it is queued");
    }
    let operator = bus.connect(broker.address(), OPERATOR).await;
    shown(&operator, |info| info.position == 10).await;
    assert!(broker.terminate().await.success());
    let broker = bus.serve(sealbus_program!()).await;
    let operator = bus.connect(broker.address(), OPERATOR).await;
    assert_eq!(shown(&operator, |_| true).await.position, 10);
}

/// A member that acknowledges late, when its record waits for another delivery, is believed.
#[tokio::test(flavor = "multi_thread")]
async fn a_late_acknowledgement_counts() {
    let bus = TestBus::new();
    let broker = bus.serve_with(sealbus_program!(), &policy()).await;
    let shop = bus.connect(broker.address(), "shop").await;
    publish(&shop, "orders/eu", 0..1).await;
    let billing = bus.connect(broker.address(), "billing").await;
    let pause = Duration::from_secs(600);
    let builder = member(&billing).ack_wait(Duration::from_millis(100)).backoff([pause]);
    let mut consumer = builder.await.expect("it may");
    let message = next_consumed(&mut consumer).await;
    let operator = bus.connect(broker.address(), OPERATOR).await;
    shown(&operator, |info| info.redelivering == 1).await;
    message.ack_sync().await.expect("it is durable");
    let info = shown(&operator, |_| true).await;
    assert_eq!((info.position, info.unacknowledged, info.redelivering), (1, 0, 0));
}

/// FAILURES T49: offsets and counts at the edges neither panic nor settle what they do not name.
#[tokio::test(flavor = "multi_thread")]
async fn offsets_at_the_edges_of_their_numbers_hurt_nobody() {
    let bus = TestBus::new();
    let broker = bus.serve_with(sealbus_program!(), &policy()).await;
    let shop = bus.connect(broker.address(), "shop").await;
    publish(&shop, "orders/eu", 0..5).await;
    let mut billing = Member::open(&bus, broker.address(), "billing").await;
    let joined =
        billing.session.consume(("orders", "billing"), ConsumerSettings::default(), None, CREDIT).await;
    let subscription = joined.expect("it may").subscription;
    for expected in 0..5 {
        assert_eq!(next_delivered(&mut billing).await, expected);
    }
    let item = |offset, count, settlement| SettleItem { offset, count: many(count), settlement };
    let mut items = Vec::new();
    let edges =
        [(5, 1), (5, u32::MAX), (1 << 32, 2), (u64::MAX - 1, 1), (u64::MAX - u64::from(u32::MAX), u32::MAX)];
    for (offset, count) in edges {
        for _ in 0..2 {
            items.push(item(offset, count, Settlement::Ack));
            items.push(item(offset, count, Settlement::Nack { delay_ms: 0 }));
            items.push(item(offset, count, Settlement::Nack { delay_ms: u32::MAX }));
        }
    }
    let refusal = billing.session.settle(subscription, items).await.expect_err("nobody has such records");
    assert_eq!(refusal.code(), Code::Conflict, "{refusal}");
    let operator = bus.connect(broker.address(), OPERATOR).await;
    let info = shown(&operator, |_| true).await;
    assert_eq!(
        (info.position, info.unacknowledged, info.redelivering),
        (0, 5, 0),
        "nothing of it was settled"
    );
    // Offsets that cannot be are no SETTLE.
    for (offset, count) in [(u64::MAX, 1), (u64::MAX - 1, 2), (u64::MAX, u32::MAX)] {
        let mut liar = Member::open(&bus, broker.address(), "billing").await;
        let settings = ConsumerSettings::default();
        let joined = liar.session.consume(("orders", "liar"), settings, None, 0).await.expect("it may");
        let items = vec![item(offset, count, Settlement::Ack)];
        liar.session
            .session
            .settle(joined.subscription, items, sealbus_protocol::frame::Sync::Yes)
            .expect("few");
        match liar.session.ended().await {
            RawEnd::Refused(refusal) => assert_eq!(refusal.code(), Code::Format, "{refusal}"),
            end => panic!("{offset}, {count}: {end}"),
        }
    }
    // A count that reaches beyond what was handed out settles what it covers.
    let refusal = billing.session.settle(subscription, vec![item(3, u32::MAX, Settlement::Ack)]).await;
    assert_eq!(refusal.expect_err("some of them are not there").code(), Code::Conflict);
    assert_eq!(shown(&operator, |_| true).await.unacknowledged, 3);
    billing.session.settle(subscription, vec![item(0, 3, Settlement::Ack)]).await.expect("it is durable");
    assert_eq!(shown(&operator, |_| true).await.position, 5);

    let mut auditor = Member::open(&bus, broker.address(), "auditor").await;
    for (from, begins) in [
        (Start::Offset(0), Some(0)),
        (Start::Offset(4), Some(4)),
        (Start::Offset(5), Some(5)),
        (Start::Offset(6), None),
        (Start::Offset(u64::MAX), None),
        (Start::Last(0), Some(5)),
        (Start::Last(2), Some(3)),
        (Start::Last(u64::MAX), Some(0)),
        (Start::Time(0), Some(0)),
        (Start::Time(u64::MAX), Some(5)),
        (Start::Earliest, Some(0)),
        (Start::End, Some(5)),
    ] {
        let ready = auditor.session.replay("orders", from, Until::End, None, CREDIT).await;
        match (ready, begins) {
            (Ok(ready), Some(begins)) => {
                let start = ready.start.expect("a replay says where it begins");
                assert_eq!((start.offset, start.end), (begins, 5), "{from:?}");
                let delivered = auditor.delivered_until_closed(ready.subscription).await;
                let offsets: Vec<u64> = delivered.into_iter().map(|(_, offset)| offset).collect();
                assert_eq!(offsets, (begins..5).collect::<Vec<_>>(), "{from:?}");
            }
            (Err(refusal), None) => assert_eq!(refusal.code(), Code::Limit, "{from:?}: {refusal}"),
            (ready, begins) => panic!("{from:?}: {ready:?} in place of {begins:?}"),
        }
    }
    for (old_size, leaf) in [(0, None), (6, None), (u64::MAX, None), (0, Some(u64::MAX - 1)), (1, Some(5))] {
        let auditor_sees = bus.connect(broker.address(), "auditor").await;
        checkpoint_of(&auditor_sees, "orders", 5).await;
        // What cannot be proven is not: the asker sees the size.
        let reply = auditor.session.checkpoint("orders", old_size, leaf).await.expect("it may");
        assert_eq!((reply.size, reply.inclusion.len()), (5, 0), "{old_size}, {leaf:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reading_from_what_retention_has_removed_begins_where_the_stream_does_and_says_so() {
    let bus = TestBus::with_storage("segment_bytes = \"64KiB\"\n");
    bus.write_policy(
        &(stream("orders", ORDERS, "orders/#", "retention = { messages = 10 }")
            + &allow("write", "shop", "publish", "orders/#")
            + &allow_stream("read", "auditor", "replay\", \"consume", "orders")),
    );
    let broker = bus.serve(sealbus_program!()).await;
    let shop = bus.connect(broker.address(), "shop").await;
    let publisher = shop.publisher("orders/eu").await.expect("the topic opens");
    let operator = bus.connect(broker.address(), OPERATOR).await;
    let mut end = 0;
    let first = eventually_async("retention removes", async || {
        within("publishing", publisher.publish(vec![b'x'; 20_000])).await.expect("it is kept");
        end += 1;
        operator
            .streams(Some("orders"))
            .await
            .ok()?
            .first()
            .map(|stream| stream.first)
            .filter(|first| *first > 0)
    })
    .await;
    let auditor = bus.connect(broker.address(), "auditor").await;
    let mut replay = auditor.replay("orders").from(Start::Offset(0)).until_end().await.expect("it may");
    match within("a word", replay.try_next()).await {
        Err(DeliveryError::Skipped { from, to, .. }) => assert!(from == 0 && to >= first, "{from} to {to}"),
        other => panic!("{other:?} in place of what is missing"),
    }
    let mut consumer: Consumer =
        auditor.consume("orders", "late").from(Start::Offset(0)).await.expect("it may");
    assert!(offset(&next_consumed(&mut consumer).await) >= first);
    drop(publisher);
    assert!(end > first);
}
