//! Streams at their limits: many of them, many readers, readers that do not read, and a disk that is full. FAILURES T60,
//! T62.

#![allow(clippy::panic, reason = "what helps a test fails the test")]

use std::fmt::Write as _;
use std::fs;
use std::num::NonZeroU32;

use rustix::fs::statvfs;
use sealbus_client::{Code, Start, StreamHealth};
use sealbus_protocol::frame::{ConsumerChoices, ConsumerSettings, Until};
use sealbus_protocol::limits::UNACKNOWLEDGED_MAX;
use sealbus_protocol::session::ClientEvent;
use sealbus_tests::audit::event;
use sealbus_tests::member::CREDIT;
use sealbus_tests::reading::{ORDERS, next_consumed, next_replayed, numbered, publish, replayed, text};
use sealbus_tests::wait::{eventually_async, within};
use sealbus_tests::{BrokerProcess, Member, OPERATOR, TestBus, allow, allow_stream, sealbus_program, stream};

fn policy() -> String {
    stream("orders", ORDERS, "orders/#", "")
        + &allow("write", "shop", "publish", "orders/#")
        + &allow("live", "screen", "subscribe", "#")
        + &allow_stream("read", "auditor", "replay", "orders")
        + &allow_stream("work", "billing", "consume", "orders")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_streams_are_opened_and_each_keeps_what_it_is_given() {
    const STREAMS: u32 = 1_000;
    let bus = TestBus::new();
    let mut rules = allow("write", "shop", "publish", "#");
    let mut names = String::new();
    for index in 0..STREAMS {
        let (name, id) = (format!("s{index}"), format!("{:032x}", 0x5eed_0000_u64 + u64::from(index)));
        rules += &stream(&name, &id, &format!("{name}/#"), "");
        write!(names, "\"{name}\", ").expect("a string takes everything");
    }
    rules += &format!(
        "\n[[allow]]\nid = \"read\"\nwho = [\"spiffe://bus.test/auditor\"]\nverbs = [\"replay\"]\nstreams = [{names}]\n"
    );
    bus.write_policy(&rules);
    let mut broker = bus.serve(sealbus_program!()).await;
    let shop = bus.connect(broker.address(), "shop").await;
    let some = [0, 1, 499, STREAMS - 1];
    for index in some {
        assert_eq!(publish(&shop, &format!("s{index}/x"), 0..3).await, [0, 1, 2]);
    }
    drop(shop);
    broker.kill();
    let broker = bus.serve(sealbus_program!()).await;
    let operator = bus.connect(broker.address(), OPERATOR).await;
    let infos = within("the list", operator.streams(None)).await.expect("an operator may ask");
    assert_eq!(infos.len(), usize::try_from(STREAMS).unwrap());
    assert!(infos.iter().all(|info| info.health == StreamHealth::Open));
    let auditor = bus.connect(broker.address(), "auditor").await;
    for index in some {
        assert_eq!(replayed(&auditor, &format!("s{index}")).await, numbered(0..3));
    }
    assert!(broker.rss_kib() < 256 * 1_024, "{} KiB", broker.rss_kib());
    assert!(broker.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn many_readers_at_once_each_get_everything() {
    const CLIENTS: usize = 8;
    const READERS: usize = 25;
    let bus = TestBus::new();
    bus.write_policy(&policy());
    let broker = bus.serve(sealbus_program!()).await;
    let shop = bus.connect(broker.address(), "shop").await;
    publish(&shop, "orders/eu", 0..50).await;
    let (mut reading, mut buses) = (Vec::new(), Vec::new());
    for index in 0..CLIENTS {
        let auditor = bus.connect(broker.address(), "auditor").await;
        let billing = bus.connect(broker.address(), "billing").await;
        for reader in 0..READERS {
            let mut replay = auditor.replay("orders").await.expect("it may");
            let name = format!("c{index}-{reader}");
            let mut consumer = billing.consume("orders", &name).await.expect("it may");
            reading.push(tokio::spawn(async move {
                for number in 0..100_u64 {
                    let message = next_replayed(&mut replay).await.expect("it goes on");
                    assert_eq!((message.offset(), text(&message)), (Some(number), number.to_string()));
                    let message = next_consumed(&mut consumer).await;
                    assert_eq!((message.offset(), text(&message)), (Some(number), number.to_string()));
                    message.ack().await.expect("it is queued");
                }
            }));
        }
        // What they have queued is sent for as long as there is a bus.
        buses.push(billing);
    }
    publish(&shop, "orders/eu", 50..100).await;
    for reader in reading {
        reader.await.expect("each gets everything");
    }
    let operator = bus.connect(broker.address(), OPERATOR).await;
    eventually_async("all is settled", async || {
        let infos = operator.consumers(Some("orders")).await.ok()?;
        assert_eq!(infos.len(), CLIENTS * READERS);
        infos.iter().all(|info| info.position == 100).then_some(())
    })
    .await;
}

/// How much more memory the broker may hold for those who do not read: less than the stream once. 32 pages of 256 KiB and
/// a batch more, what is framed for each of four sessions, and what the allocator keeps of what was free are 57 to
/// 80 MiB, as the threads happen to run. Without a bound it is the stream for each session, 480 MiB.
const MEMORY_KIB_MAX: u64 = 120 * 1_024;

/// The same for one member that does not read: 12 to 14 MiB are found. Without a bound it is the stream.
const MEMBER_MEMORY_KIB_MAX: u64 = 48 * 1_024;

/// Bytes of a batch, and batches: 120 MiB, many times what may be held.
const LARGE_BYTES: usize = 900_000;
const LARGE_BATCHES: u64 = 140;

async fn with_much_in_its_stream(bus: &TestBus) -> BrokerProcess {
    bus.write_policy(&policy());
    let broker = bus.serve(sealbus_program!()).await;
    bus.listen_on(broker.address().port());
    let shop = bus.connect(broker.address(), "shop").await;
    let publisher = shop.publisher("orders/eu").await.expect("the topic opens");
    for _ in 0..LARGE_BATCHES {
        within("publishing", publisher.publish(vec![b'x'; LARGE_BYTES])).await.expect("it is kept");
    }
    assert!(broker.terminate().await.success());
    bus.serve(sealbus_program!()).await
}

/// P10.
#[tokio::test(flavor = "multi_thread")]
async fn replays_that_are_not_read_cost_little_and_hold_nobody_up() {
    let bus = TestBus::new();
    let broker = with_much_in_its_stream(&bus).await;
    let screen = bus.connect(broker.address(), "screen").await;
    let mut live = screen.subscribe("orders/#").await.expect("it may");
    let shop = bus.connect(broker.address(), "shop").await;
    let before = broker.rss_kib();
    let mut deaf = Vec::new();
    for _ in 0..4 {
        let mut member = Member::open(&bus, broker.address(), "auditor").await;
        for _ in 0..8 {
            member
                .session
                .replay("orders", Start::Earliest, Until::Live, None, CREDIT)
                .await
                .expect("it may");
        }
        deaf.push(member);
    }
    let offsets = publish(&shop, "orders/us", 0..200).await;
    assert_eq!(offsets, (LARGE_BATCHES..LARGE_BATCHES + 200).collect::<Vec<_>>());
    for offset in offsets {
        let message = within("live", live.try_next()).await.expect("it proves itself").expect("it goes on");
        assert_eq!(message.offset(), Some(offset), "a live subscriber is not held up");
    }
    let auditor = bus.connect(broker.address(), "auditor").await;
    let mut replay = auditor.replay("orders").filter("orders/us").until_end().await.expect("it may");
    let mut found = 0;
    while next_replayed(&mut replay).await.is_some() {
        found += 1;
    }
    assert_eq!(found, 200, "nor is another replay");
    let grown = broker.rss_kib().saturating_sub(before);
    assert!(grown < MEMORY_KIB_MAX, "{grown} KiB for readers that do not read");
    drop(deaf);
}

/// FAILURES T62: also for a member that gives credit for everything, and takes nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_is_not_read_costs_little_and_holds_nobody_up() {
    let bus = TestBus::new();
    let broker = with_much_in_its_stream(&bus).await;
    let before = broker.rss_kib();
    let mut deaf = Member::open(&bus, broker.address(), "billing").await;
    let choices = ConsumerChoices {
        unacknowledged_max: NonZeroU32::new(UNACKNOWLEDGED_MAX),
        ..ConsumerChoices::default()
    };
    let settings = ConsumerSettings::new(choices).expect("the settings are good");
    deaf.session.consume(("orders", "deaf"), settings, None, CREDIT).await.expect("it may");
    // Another consumer gets everything meanwhile, so that this one has had its time.
    let billing = bus.connect(broker.address(), "billing").await;
    let mut quick = billing.consume("orders", "quick").await.expect("it may");
    for offset in 0..LARGE_BATCHES {
        let message = next_consumed(&mut quick).await;
        assert_eq!(message.offset(), Some(offset));
        message.ack().await.expect("it is queued");
    }
    let shop = bus.connect(broker.address(), "shop").await;
    publish(&shop, "orders/us", 0..20).await;
    let grown = broker.rss_kib().saturating_sub(before);
    assert!(grown < MEMBER_MEMORY_KIB_MAX, "{grown} KiB for a member that does not read");
    // It gets everything once it reads.
    let mut next = 0;
    while next < LARGE_BATCHES {
        if let ClientEvent::Deliver(delivered) = deaf.event().await {
            assert_eq!(delivered.offset, Some(next));
            next += 1;
        }
    }
}

/// FAILURES T60: publishers are refused with a code of their own, everything else goes on, and so does the stream when
/// there is room again.
#[tokio::test(flavor = "multi_thread")]
async fn on_a_full_disk_publishers_are_refused_and_everybody_else_goes_on() {
    let bus = TestBus::with_storage("reserve = \"16MiB\"\nsegment_bytes = \"1MiB\"\n");
    bus.write_policy(&policy());
    let (config, data) = (bus.config(), bus.path("data"));
    let Some(broker) = BrokerProcess::start_with_disk(sealbus_program!(), &config, &data, 64).await else {
        eprintln!("skipped: nothing can be mounted here");
        return;
    };
    let mut shop = Member::open(&bus, broker.address(), "shop").await;
    for offset in 0..20 {
        let ack = shop.publish("orders/eu", b"x").await.expect("there is room");
        assert_eq!(ack.receipt.offset, Some(offset));
    }
    let billing = bus.connect(broker.address(), "billing").await;
    let mut consumer = billing.consume("orders", "billing").await.expect("it may");
    let operator = bus.connect(broker.address(), OPERATOR).await;
    let disk = broker.disk(&data);
    let filler = disk.join("filler");
    for round in 0..2 {
        let seen = statvfs(&disk).expect("the disk is seen");
        let free = usize::try_from(seen.f_bavail * seen.f_frsize).unwrap();
        assert!((32 << 20..=64 << 20).contains(&free), "it is the broker's own disk: {free} bytes are free");
        // A quarter of the reserve is left: the broker keeps that for itself.
        fs::write(&filler, vec![b'x'; free - (4 << 20)]).expect("there is room");
        let opened = shop.session.open_for("orders/eu").await.expect("it may");
        let mut kept = None;
        let (refusal, refused) = eventually_async("a publisher is refused", async || {
            let batch = shop.producer.batch_in(opened.stream, "orders/eu", &[b"x"]);
            match shop.session.publish_for_ack(opened.alias, batch.clone()).await {
                Ok(ack) => {
                    kept = ack.receipt.offset;
                    None
                }
                Err(refusal) => Some((refusal, batch)),
            }
        })
        .await;
        assert_eq!(refusal.code(), Code::StorageFull, "{refusal}");
        let infos = operator.streams(Some("orders")).await.expect("an operator may ask");
        assert_eq!(infos[0].health, StreamHealth::Full);
        assert_eq!(
            kept.map_or(infos[0].end, |kept| kept + 1),
            infos[0].end,
            "what was acknowledged is there"
        );
        let full = || bus_lines(&disk, "stream-full");
        eventually_async("the audit line", async || (full() > round).then_some(())).await;
        // Readers, consumers and administration go on.
        let auditor = bus.connect(broker.address(), "auditor").await;
        assert_eq!(u64::try_from(replayed(&auditor, "orders").await.len()).unwrap(), infos[0].end);
        for _ in 0..10 {
            next_consumed(&mut consumer).await.ack_sync().await.expect("there is room for cursors");
        }
        assert!(operator.stats().await.expect("an operator may ask").disk_free < 16 << 20);
        assert!(operator.reload_policy().await.is_ok());
        let again = shop.session.publish_for_ack(opened.alias, refused.clone()).await.expect_err("still");
        assert_eq!(again.code(), Code::StorageFull);

        fs::remove_file(&filler).expect("it can be removed");
        let ack = eventually_async("it goes on by itself", async || {
            shop.session.publish_for_ack(opened.alias, refused.clone()).await.ok()
        })
        .await;
        assert_eq!(ack.receipt.offset, Some(infos[0].end), "what was refused took no offset");
        eventually_async("the audit line", async || {
            (bus_lines(&disk, "stream-resumed") > round).then_some(())
        })
        .await;
    }
}

/// Lines of an event in the audit log on the broker's own disk.
fn bus_lines(disk: &std::path::Path, wanted: &str) -> usize {
    let log = sealbus_tests::AuditLog::at(disk.join("audit/audit.jsonl"));
    log.matching(|line| event(line) == wanted).len()
}
