//! A disk that hangs, fails or is full, below one stream of a broker that is otherwise well: what is acknowledged is
//! durable, what is not durable is not acknowledged, and nobody else notices. FAILURES T60, T61.

#![allow(clippy::panic, reason = "what helps a test fails the test")]

use std::sync::Arc;

use sealbus_broker::config::Config;
use sealbus_broker::vfs::{FaultyVfs, Operation, OsVfs};
use sealbus_broker::{Broker, Parts};
use sealbus_client::{Bus, Code, Start, StreamHealth};
use sealbus_protocol::batch::accept::{Durability, Receipt};
use sealbus_protocol::frame::admin::Question;
use sealbus_protocol::frame::{Freshness, Operation as Admin, Outcome, Until};
use sealbus_protocol::ids::StreamId;
use sealbus_protocol::session::ClientEvent;
use sealbus_tests::audit::{event, mentions};
use sealbus_tests::member::CREDIT;
use sealbus_tests::reading::{ORDERS, numbered, publish, replayed};
use sealbus_tests::wait::{eventually_async, within};
use sealbus_tests::{Member, OPERATOR, TestBus, allow, allow_stream, stream};

const BILLS: &str = "b1115000000000000000000000000001";

const EIO: i32 = 5;
const ENOSPC: i32 = 28;

/// A broker in this process, with a disk of its own below the stream `orders`.
struct OnBadDisk {
    bus: TestBus,
    broker: Broker,
    disk: FaultyVfs,
}

impl OnBadDisk {
    async fn start() -> Self {
        let bus = TestBus::new();
        bus.write_policy(
            &(stream("orders", ORDERS, "orders/#", "")
                + &stream("bills", BILLS, "bills/#", "")
                + &allow("write", "shop", "publish\", \"subscribe", "#")
                + &allow_stream("read", "shop", "replay\", \"consume", "orders")),
        );
        let disk = FaultyVfs::below(OsVfs, bus.stream_dir(ORDERS), []);
        let config = Config::load(&OsVfs, &bus.config()).expect("the configuration is good");
        let parts = Parts { clock: Parts::system().clock, vfs: Arc::new(disk.clone()) };
        let broker = within("the start", Broker::start(config, parts)).await.expect("it starts");
        Self { bus, broker, disk }
    }

    async fn member(&self) -> Member {
        Member::open(&self.bus, self.broker.addresses()[0], "shop").await
    }

    async fn connect(&self, name: &str) -> Bus {
        self.bus.connect(self.broker.addresses()[0], name).await
    }

    /// Waits until a sync hangs.
    async fn held(&self) {
        let disk = self.disk.clone();
        let held = tokio::task::spawn_blocking(move || disk.await_held_sync());
        within("a sync", held).await.expect("the wait ends");
    }

    async fn health(&self) -> StreamHealth {
        let operator = self.connect(OPERATOR).await;
        operator.streams(Some("orders")).await.expect("an operator may ask")[0].health
    }
}

/// FAILURES T61, P7: the disk hangs; a batch, the same batch once more, and a question come in that order. The question
/// is answered, the batches are not; nobody is shown them, live or from the stream. Then the disk goes on.
#[tokio::test(flavor = "multi_thread")]
async fn neither_a_batch_nor_its_duplicate_is_acknowledged_or_shown_before_it_is_durable() {
    let on = OnBadDisk::start().await;
    let (mut shop, mut reader) = (on.member().await, on.member().await);
    let stream: StreamId = ORDERS.parse().expect("it is an id");
    let opened = shop.session.open_for("orders/eu").await.expect("it may");
    reader.session.subscribe("orders/#", CREDIT).await.expect("it may");
    reader.session.replay("orders", Start::Earliest, Until::Live, None, CREDIT).await.expect("it may");
    let answered = async |member: &mut Member| {
        let question = Admin::CanI { principal: None, question: Question::Admin };
        member.session.session.admin(question).expect("few requests are open");
        match member.event().await {
            ClientEvent::AdminResult(result) => assert!(matches!(result.outcome, Outcome::Decided { .. })),
            other => panic!("{other:?} comes before the answer"),
        }
    };
    for round in 0..3 {
        let receipt = Receipt { durability: Durability::Fsync, offset: Some(round) };
        let batch = shop.producer.batch_in(stream, "orders/eu", &[b"x"]);
        on.disk.hold_syncs();
        for _ in 0..2 {
            shop.session.session.publish(opened.alias, batch.clone()).expect("few requests are open");
        }
        shop.session.flush().await.expect("the broker reads");
        on.held().await;
        answered(&mut shop).await;
        answered(&mut reader).await;
        // Another stream has another disk, and its own turn.
        on.disk.release_syncs();
        for freshness in [Freshness::New, Freshness::Duplicate] {
            match shop.event().await {
                ClientEvent::Ack(ack) => assert_eq!((ack.freshness, ack.receipt), (freshness, receipt)),
                other => panic!("{other:?}"),
            }
        }
        for _ in 0..2 {
            match reader.event().await {
                ClientEvent::Deliver(delivered) => assert_eq!(delivered.offset, Some(round)),
                other => panic!("{other:?}"),
            }
        }
    }
    within("the end", on.broker.shutdown()).await.expect("it ends");
}

/// A failed sync is never tried again: the stream stops with the reason, its readers go on, and nobody is told that
/// anything was kept. A start recovers.
#[tokio::test(flavor = "multi_thread")]
async fn a_sync_that_fails_stops_the_stream_and_nothing_else() {
    let on = OnBadDisk::start().await;
    let shop = on.connect("shop").await;
    publish(&shop, "orders/eu", 0..10).await;
    let mut member = on.member().await;
    on.disk.fail_nth(Operation::Sync, 1, EIO);
    let refusal = member.publish("orders/us", b"x").await.expect_err("it is not durable");
    assert_eq!(refusal.code(), Code::Internal, "{refusal}");
    let again = member.publish("orders/us", b"x").await.expect_err("it is never tried again");
    assert_eq!(again.code(), Code::Internal, "{again}");
    assert_eq!(on.health().await, StreamHealth::Stopped);
    on.bus
        .audit()
        .await_line("the stop", |line| event(line) == "stream-stopped" && mentions(line, "orders"))
        .await;
    assert_eq!(replayed(&shop, "orders").await, numbered(0..10), "readers go on");
    assert_eq!(publish(&shop, "bills/eu", 0..3).await, [0, 1, 2], "and so does the other stream");
    let OnBadDisk { bus, broker, .. } = on;
    drop((shop, member));
    within("the end", broker.shutdown()).await.expect("it ends");
    let config = Config::load(&OsVfs, &bus.config()).expect("the configuration is good");
    let broker = within("the start", Broker::start(config, Parts::system())).await.expect("it starts");
    let shop = bus.connect(broker.addresses()[0], "shop").await;
    let found = replayed(&shop, "orders").await;
    assert_eq!(found[..10], numbered(0..10), "what was acknowledged is there");
    let next = u64::try_from(found.len()).unwrap();
    assert_eq!(publish(&shop, "orders/eu", 0..1).await, [next]);
    within("the end", broker.shutdown()).await.expect("it ends");
}

/// The write itself meets a full disk: what was refused leaves no trace, is tried again by whoever sent it, and is
/// there once.
#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_meets_a_full_disk_is_refused_and_the_stream_goes_on_when_there_is_room() {
    for operation in [Operation::Write, Operation::TornWrite] {
        let on = OnBadDisk::start().await;
        let shop = on.connect("shop").await;
        publish(&shop, "orders/eu", 0..10).await;
        let mut member = on.member().await;
        let opened = member.session.open_for("orders/us").await.expect("it may");
        on.disk.set_free_bytes(0);
        on.disk.fail_from(operation, 1, ENOSPC);
        let batch = member.producer.batch_in(opened.stream, "orders/us", &[b"10"]);
        let refusal =
            member.session.publish_for_ack(opened.alias, batch.clone()).await.expect_err("it is full");
        assert_eq!(refusal.code(), Code::StorageFull, "{refusal}");
        assert_eq!(on.health().await, StreamHealth::Full);
        on.bus.audit().await_line("it is full", |line| event(line) == "stream-full").await;
        assert_eq!(replayed(&shop, "orders").await, numbered(0..10), "readers go on");
        let refusal = member.session.publish_for_ack(opened.alias, batch.clone()).await.expect_err("still");
        assert_eq!(refusal.code(), Code::StorageFull, "{refusal}");
        on.disk.heal();
        // The very same bytes: a refused batch takes no sequence number and no offset.
        let ack = eventually_async("it goes on", async || {
            member.session.publish_for_ack(opened.alias, batch.clone()).await.ok()
        })
        .await;
        assert_eq!((ack.freshness, ack.receipt.offset), (Freshness::New, Some(10)));
        on.bus.audit().await_line("it goes on", |line| event(line) == "stream-resumed").await;
        assert_eq!(replayed(&shop, "orders").await, numbered(0..11));
        within("the end", on.broker.shutdown()).await.expect("it ends");
    }
}

/// The real client waits a full disk out: its messages are there once the disk has room, none twice.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_waits_until_there_is_room() {
    let on = OnBadDisk::start().await;
    let shop = on.connect("shop").await;
    publish(&shop, "orders/eu", 0..3).await;
    on.disk.set_free_bytes(0);
    on.disk.fail_from(Operation::Write, 1, ENOSPC);
    let publisher = shop.publisher("orders/eu").await.expect("the topic opens");
    let mut pending = Vec::new();
    for number in 3..30_u64 {
        pending
            .push(publisher.enqueue_when_ready(number.to_string()).await.expect("there is room in memory"));
    }
    eventually_async("it is full", async || (on.health().await == StreamHealth::Full).then_some(())).await;
    on.disk.heal();
    for (offset, receipt) in (3..).zip(pending) {
        let receipt = within("publishing", receipt).await.expect("it is kept after all");
        assert_eq!(receipt.offset(), Some(offset));
    }
    assert_eq!(replayed(&shop, "orders").await, numbered(0..30));
    within("the end", on.broker.shutdown()).await.expect("it ends");
}

/// An operator who looks for a stream that could not be opened must find it, and why. The next policy opens it.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_cannot_be_opened_is_shown_with_the_reason() {
    let OnBadDisk { bus, broker, disk } = OnBadDisk::start().await;
    let shop = bus.connect(broker.addresses()[0], "shop").await;
    publish(&shop, "orders/eu", 0..10).await;
    drop(shop);
    within("the end", broker.shutdown()).await.expect("it ends");
    disk.fail_from(Operation::Read, 1, EIO);
    let config = Config::load(&OsVfs, &bus.config()).expect("the configuration is good");
    let parts = Parts { clock: Parts::system().clock, vfs: Arc::new(disk.clone()) };
    let broker = within("the start", Broker::start(config, parts)).await.expect("the others are well");
    let operator = bus.connect(broker.addresses()[0], OPERATOR).await;
    let streams = operator.streams(None).await.expect("an operator may ask");
    let [bills, orders] = &streams[..] else { panic!("{streams:?}") };
    assert_eq!((bills.health, &*bills.reason), (StreamHealth::Open, ""));
    assert_eq!((orders.health, orders.end), (StreamHealth::Stopped, 0));
    assert!(orders.reason.contains("cannot be opened"), "{}", orders.reason);
    let shop = bus.connect(broker.addresses()[0], "shop").await;
    let refused = shop.replay("orders").await.expect_err("it is shut");
    assert!(refused.to_string().contains("orders"), "{refused}");
    disk.heal();
    operator.reload_policy().await.expect("the policy is good");
    assert_eq!(operator.streams(Some("orders")).await.expect("it may")[0].health, StreamHealth::Open);
    assert_eq!(replayed(&shop, "orders").await, numbered(0..10));
    within("the end", broker.shutdown()).await.expect("it ends");
}
