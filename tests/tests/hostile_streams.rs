//! Durable streams among those who mean harm: members that do not read, rights that end in the middle, streams that are
//! replaced under their name. FAILURES T31, T37, T62.

#![allow(clippy::panic, reason = "what helps a test fails the test")]

use std::num::NonZeroU32;

use sealbus_client::{Bus, Start as From};
use sealbus_protocol::frame::{
    ConsumerChoices, ConsumerKey, ConsumerSettings, Credit, Frame as _, MaxDeliver, SettleItem, Settlement,
    Start, Until, What,
};
use sealbus_protocol::policy::Name;
use sealbus_protocol::session::ClientEvent;
use sealbus_protocol::stream_name::StreamName;
use sealbus_tests::member::CREDIT;
use sealbus_tests::reading::{ORDERS, next_consumed, next_replayed, publish, text};
use sealbus_tests::wait::{eventually_async, within};
use sealbus_tests::{Member, OPERATOR, TestBus, allow, allow_stream, sealbus_program, stream};

/// The id of a stream that takes the name of another.
const OTHER: &str = "ffeeddccbbaa99887766554433221100";

/// More than a batch of a small message has.
const SMALL_BATCH_BYTES: u64 = 2_000;

/// What the broker's memory may grow by, whatever a member does: the bounds of a session, and what an allocator keeps.
const MEMORY_KIB_MAX: u64 = 24 * 1_024;

fn writing(id: &str) -> String {
    stream("orders", id, "orders/#", "") + &allow("write", "shop", "publish", "orders/#")
}

fn reading() -> String {
    allow_stream("read", "auditor", "replay", "orders")
        + &allow_stream("work", "billing", "consume", "orders")
}

/// So many messages of so many bytes.
async fn publish_large(bus: &Bus, count: usize, payload_bytes: usize) {
    let publisher = bus.publisher("orders/eu").await.expect("the topic opens");
    let payload = vec![b'x'; payload_bytes];
    for _ in 0..count {
        within("publishing", publisher.publish(payload.clone())).await.expect("it is kept");
    }
}

fn key(consumer: &str) -> ConsumerKey {
    let name = |name: &str| Name::parse(name).expect("tests name good consumers");
    ConsumerKey { stream: name("orders"), consumer: name(consumer) }
}

async fn delivered_offset(member: &mut Member) -> u64 {
    loop {
        match member.event().await {
            ClientEvent::Deliver(delivered) => {
                return delivered.offset.expect("what is stored has an offset");
            }
            ClientEvent::Generation(_) | ClientEvent::Skipped(_) => {}
            other => panic!("in place of a delivery: {other:?}"),
        }
    }
}

/// FAILURES T62: credit is the member's own word, and must not be what bounds the broker's memory.
#[tokio::test(flavor = "multi_thread")]
async fn members_with_endless_credit_that_read_nothing_cost_the_broker_no_memory() {
    const BATCHES: usize = 80;
    let bus = TestBus::new();
    let mut broker = bus.serve_with(sealbus_program!(), &(writing(ORDERS) + &reading())).await;
    let shop = bus.connect(broker.address(), "shop").await;
    publish_large(&shop, BATCHES, 900_000).await;
    drop(shop);
    // Whatever is delivered now was read from the disk.
    broker.kill();
    broker = bus.serve(sealbus_program!()).await;
    let good = bus.connect(broker.address(), "billing").await;
    let mut work = good.consume("orders", "good").from(From::Earliest).await.expect("it may");
    next_consumed(&mut work).await;
    let before = broker.rss_kib();
    let mut silent = Vec::new();
    for index in 0..2 {
        let mut member = Member::open(&bus, broker.address(), "billing").await;
        let settings = ConsumerSettings::default();
        let begun = member.session.session.consume(
            key(&format!("silent-{index}")),
            Start::Earliest,
            settings,
            None,
            u64::MAX,
        );
        begun.expect("few requests are open");
        member.session.flush().await.expect("the broker reads");
        silent.push(member);
    }
    // Long enough for everything to be handed out to them.
    for _ in 1..BATCHES {
        next_consumed(&mut work).await.ack_sync().await.expect("it is durable");
    }
    let after = broker.rss_kib();
    assert!(after < before + MEMORY_KIB_MAX, "{after} KiB, before it was {before} KiB");
    // They were waited for, and get everything once they read.
    for member in &mut silent {
        let mut delivered = 0;
        while delivered < BATCHES {
            if let ClientEvent::Deliver(_) = member.event().await {
                delivered += 1;
            }
        }
    }
}

/// Reads a stream to its end once more, on the same session: whatever came before it has had its turn.
async fn auditing(reader: &mut Member) {
    let ready =
        reader.session.replay("orders", Start::Earliest, Until::End, None, CREDIT).await.expect("it may");
    reader.delivered_until_closed(ready.subscription).await;
}

/// The same of replays: what was read ahead of a reader without credit is not kept for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_replays_without_credit_cost_the_broker_no_memory() {
    const REPLAYS: usize = 800;
    /// Pages that are being read at the same moment, and a quarter of what the replays would keep.
    const PAGES_KIB_MAX: u64 = 60 * 1_024;
    let bus = TestBus::new();
    let mut broker = bus.serve_with(sealbus_program!(), &(writing(ORDERS) + &reading())).await;
    let shop = bus.connect(broker.address(), "shop").await;
    publish_large(&shop, 16, 60_000).await;
    // Far enough behind the end that memory has none of the first.
    publish_large(&shop, 20, 900_000).await;
    drop(shop);
    broker.kill();
    broker = bus.serve(sealbus_program!()).await;
    let mut reader = Member::open(&bus, broker.address(), "auditor").await;
    let before = broker.rss_kib();
    let mut subscriptions = Vec::new();
    for _ in 0..REPLAYS {
        let ready = reader.session.replay("orders", Start::Earliest, Until::Live, None, 1).await;
        subscriptions.push(ready.expect("it may").subscription);
    }
    // What the last of them asked for has been read when this is answered, and for a while nothing moves.
    auditing(&mut reader).await;
    let after = broker.rss_kib();
    assert!(after < before + PAGES_KIB_MAX, "{after} KiB, before it was {before} KiB");
    // Each goes on where it stood, with nothing lost or twice.
    let last = *subscriptions.last().expect("there are some");
    reader.session.session.credit(last, CREDIT);
    let mut offsets = Vec::new();
    while offsets.last() != Some(&35) {
        if let ClientEvent::Deliver(delivered) = reader.event().await
            && delivered.subscription == last
        {
            offsets.push(delivered.offset.expect("it is stored"));
        }
    }
    let first = *offsets.first().expect("there are some");
    assert!(first <= 1, "{first}");
    assert_eq!(offsets, (first..36).collect::<Vec<_>>());
}

/// What nobody may have must not be paid for by a member: its credit would be gone, and nothing would return it.
#[tokio::test(flavor = "multi_thread")]
async fn withheld_messages_of_a_revoked_producer_use_up_nobodys_credit() {
    let bus = TestBus::new();
    let rules = writing(ORDERS) + &reading() + &allow("thief", "thief", "publish", "orders/#");
    let broker = bus.serve_with(sealbus_program!(), &rules).await;
    let operator = bus.connect(broker.address(), OPERATOR).await;
    let thief = bus.connect(broker.address(), "thief").await;
    publish(&thief, "orders/eu", 0..50).await;
    drop(thief);
    let revoke = "\n[[revoke]]\nprincipal = \"spiffe://bus.test/thief\"\nfrom = \"2020-01-01T00:00:00Z\"\n";
    bus.reload(&operator, &(rules + revoke)).await;
    let shop = bus.connect(broker.address(), "shop").await;
    publish(&shop, "orders/eu", 50..51).await;
    let mut billing = Member::open(&bus, broker.address(), "billing").await;
    let settings = ConsumerSettings::default();
    billing.session.consume(("orders", "work"), settings, None, SMALL_BATCH_BYTES).await.expect("it may");
    assert_eq!(delivered_offset(&mut billing).await, 50);
    let info = eventually_async("what is withheld is settled", async || {
        operator.consumers(Some("orders")).await.ok()?.into_iter().find(|info| info.position == 50)
    })
    .await;
    assert_eq!((info.unacknowledged, info.dead), (1, 0));
}

/// Rights name a stream, and a stream is what has its id: a policy that gives the name to another withdraws the first.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_reads_on_in_a_stream_whose_name_was_given_to_another() {
    let bus = TestBus::new();
    let broker = bus.serve_with(sealbus_program!(), &(writing(ORDERS) + &reading())).await;
    let operator = bus.connect(broker.address(), OPERATOR).await;
    let shop = bus.connect(broker.address(), "shop").await;
    publish(&shop, "orders/eu", 0..10).await;
    drop(shop);
    let mut auditor = Member::open(&bus, broker.address(), "auditor").await;
    let replay =
        auditor.session.replay("orders", Start::Earliest, Until::Live, None, 1).await.expect("it may");
    assert_eq!(delivered_offset(&mut auditor).await, 0);
    let mut billing = Member::open(&bus, broker.address(), "billing").await;
    let settings = ConsumerSettings::default();
    let joined = billing.session.consume(("orders", "work"), settings, None, 1).await.expect("it may");
    assert_eq!(delivered_offset(&mut billing).await, 0);

    let rules = writing(OTHER) + &reading();
    bus.reload(&operator, &rules).await;
    for (who, member, subscription) in
        [("auditor", &mut auditor, replay.subscription), ("billing", &mut billing, joined.subscription)]
    {
        member.session.session.credit(subscription, CREDIT);
        loop {
            match member.event().await {
                ClientEvent::Deliver(delivered) => {
                    panic!("{who} reads on at {:?}", delivered.offset)
                }
                ClientEvent::Closed(What::Subscription(id)) if id == subscription => break,
                _ => {}
            }
        }
    }
    let shop = bus.connect(broker.address(), "shop").await;
    assert_eq!(publish(&shop, "orders/eu", 0..1).await, [0], "another stream");
}

/// A letter is delivered with the records that were given up, wherever in it reading begins.
#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_the_same_from_whichever_offset_they_are_read() {
    let bus = TestBus::new();
    let broker = bus.serve_with(sealbus_program!(), &(writing(ORDERS) + &reading())).await;
    let operator = bus.connect(broker.address(), OPERATOR).await;
    let mut shop = Member::open(&bus, broker.address(), "shop").await;
    let opened = shop.session.open_for("orders/eu").await.expect("it may");
    let payloads: Vec<String> = (0..10).map(|number| number.to_string()).collect();
    let payloads: Vec<&[u8]> = payloads.iter().map(String::as_bytes).collect();
    let batch = shop.producer.batch_in(opened.stream, "orders/eu", &payloads);
    shop.session.publish(opened.alias, batch).await.expect("it is kept");
    let mut billing = Member::open(&bus, broker.address(), "billing").await;
    let once = MaxDeliver::Times(NonZeroU32::MIN);
    let choices = ConsumerChoices { max_deliver: Some(once), ..ConsumerChoices::default() };
    let settings = ConsumerSettings::new(choices).expect("the settings are good");
    let joined = billing.session.consume(("orders", "work"), settings, None, CREDIT).await.expect("it may");
    assert_eq!(delivered_offset(&mut billing).await, 0);
    let item = |offset, count, settlement| SettleItem {
        offset,
        count: NonZeroU32::new(count).expect("tests want some"),
        settlement,
    };
    let items = vec![
        item(0, 5, Settlement::Ack),
        item(5, 3, Settlement::Nack { delay_ms: 0 }),
        item(8, 2, Settlement::Ack),
    ];
    billing.session.settle(joined.subscription, items).await.expect("it is durable");
    eventually_async("a dead letter", async || {
        operator.consumers(Some("orders")).await.ok()?.into_iter().find(|info| info.dead == 3)
    })
    .await;
    let auditor = bus.connect(broker.address(), "auditor").await;
    for begin in 0..3_u64 {
        let mut replay =
            auditor.replay("$dead/orders/work").from(From::Offset(begin)).until_end().await.expect("it may");
        let mut found = Vec::new();
        while let Some(message) = next_replayed(&mut replay).await {
            found.push((message.offset().expect("it is stored"), text(&message)));
        }
        let expected: Vec<_> = (begin..3).map(|offset| (offset, (offset + 5).to_string())).collect();
        assert_eq!(found, expected, "from {begin}");
    }
}

/// Credit counts from the moment at which the broker has it.
#[tokio::test(flavor = "multi_thread")]
async fn credit_that_comes_before_a_consumer_is_ready_is_not_lost() {
    let bus = TestBus::new();
    let broker = bus.serve_with(sealbus_program!(), &(writing(ORDERS) + &reading())).await;
    let shop = bus.connect(broker.address(), "shop").await;
    publish(&shop, "orders/eu", 0..1).await;
    let mut billing = Member::open(&bus, broker.address(), "billing").await;
    let session = &mut billing.session.session;
    let begun = session.consume(key("work"), Start::Earliest, ConsumerSettings::default(), None, 0);
    let (_, subscription) = begun.expect("few requests are open");
    let credit = Credit { subscription, bytes: SMALL_BATCH_BYTES }.encode();
    // Both in one write, if the connection takes them: the consumer is being made when the credit is read.
    billing.session.send_past(&credit).await.expect("the broker reads");
    loop {
        match billing.event().await {
            ClientEvent::Ready(ready) => assert_eq!(ready.subscription, subscription),
            ClientEvent::Deliver(delivered) => break assert_eq!(delivered.offset, Some(0)),
            other => panic!("in place of a delivery: {other:?}"),
        }
    }
}

/// FAILURES T37, T39: what is still being looked up when a right ends is decided again when it is found.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_for_while_the_right_is_withdrawn_is_granted_before_the_marker_or_not_at_all() {
    const ASKED: usize = 200;
    let bus = TestBus::new();
    let both = allow_stream("both", "auditor", "replay\", \"consume", "orders");
    let broker = bus.serve_with(sealbus_program!(), &(writing(ORDERS) + &both)).await;
    let operator = bus.connect(broker.address(), OPERATOR).await;
    let shop = bus.connect(broker.address(), "shop").await;
    publish(&shop, "orders/eu", 0..20).await;
    let witness = bus.connect(broker.address(), "auditor").await;
    sealbus_tests::reading::checkpoint_of(&witness, "orders", 20).await;
    drop(witness);
    let mut refused_late = 0;
    for round in 0..4 {
        let mut auditor = Member::open(&bus, broker.address(), "auditor").await;
        let session = &mut auditor.session.session;
        let stream = || StreamName::parse("orders").expect("it is a name");
        for index in 0..ASKED {
            session.replay(stream(), Start::Time(0), Until::End, None, 0).expect("few requests are open");
            let (key, settings) = (key(&format!("c-{round}-{index}")), ConsumerSettings::default());
            session.consume(key, Start::Time(0), settings, None, 0).expect("few requests are open");
            if index % 20 == 0 {
                session.checkpoint_get(stream(), 3, Some(2)).expect("few requests are open");
            }
        }
        let answering = async {
            let (mut answers, mut marked, mut after) = (0, false, 0);
            while answers < 2 * ASKED + ASKED / 20 {
                match auditor.event().await {
                    ClientEvent::Ready(ready) => {
                        assert!(!marked, "READY of {:?} follows the marker", ready.subscription);
                        answers += 1;
                    }
                    ClientEvent::Checkpoint(_) => {
                        assert!(!marked, "a checkpoint follows the marker");
                        answers += 1;
                    }
                    ClientEvent::Refused(_) => {
                        (answers, after) = (answers + 1, after + usize::from(marked));
                    }
                    ClientEvent::Generation(_) => marked = true,
                    _ => {}
                }
            }
            after
        };
        let without = writing(ORDERS);
        let withdrawing = bus.reload(&operator, &without);
        let (after, ()) = tokio::join!(answering, withdrawing);
        refused_late += after;
        bus.reload(&operator, &(writing(ORDERS) + &both)).await;
    }
    assert!(refused_late > 0, "the policy changed while something was looked up");
}
