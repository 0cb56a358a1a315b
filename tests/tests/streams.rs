//! Streams: what is acknowledged is there after the broker was killed, once, in order, and proves itself.

#![allow(clippy::panic, reason = "what helps a test fails the test")]

use std::collections::BTreeSet;
use std::time::Duration;

use sealbus_client::{Bus, Durability, Start};
use sealbus_tests::wait::within;
use sealbus_tests::{TestBus, allow, allow_stream, sealbus_program, stream};

const ORDERS: &str = "00112233445566778899aabbccddeeff";

fn policy() -> String {
    stream("orders", ORDERS, "orders/#", "")
        + &allow("write", "shop", "publish", "orders/#")
        + &allow("live", "screen", "subscribe", "#")
        + &allow_stream("read", "auditor", "replay", "orders")
        + &allow_stream("work", "billing", "consume", "orders")
}

async fn publish(bus: &Bus, topic: &str, range: std::ops::Range<u64>) -> Vec<u64> {
    let publisher = bus.publisher(topic).await.expect("the topic opens");
    let mut offsets = Vec::new();
    for number in range {
        let receipt = within("publishing", publisher.publish(number.to_string())).await.expect("it is kept");
        assert_eq!(receipt.durability(), Durability::Fsync);
        offsets.push(receipt.offset().expect("a stream gives offsets"));
    }
    offsets
}

async fn replayed(bus: &Bus) -> Vec<(u64, String)> {
    let mut replay = bus.replay("orders").from(Start::Earliest).until_end().await.expect("it may be read");
    let mut found = Vec::new();
    while let Some(message) = within("replaying", replay.try_next()).await.expect("it proves itself") {
        let text = String::from_utf8(message.payload().to_vec()).expect("the payload is text");
        found.push((message.offset().expect("what is stored has an offset"), text));
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_is_there_after_the_broker_was_killed() {
    let program = sealbus_program!();
    let bus = TestBus::new();
    bus.write_policy(&policy());
    let mut broker = bus.serve(program).await;
    bus.listen_on(broker.address().port());
    let shop = bus.connect(broker.address(), "shop").await;
    let mut screen = bus.connect(broker.address(), "screen").await.subscribe("orders/#").await.expect("it may");
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
    let found = replayed(&auditor).await;
    assert_eq!(found, (0..60).map(|number| (number, number.to_string())).collect::<Vec<_>>());
    let checkpoint = within("checkpoint", async {
        loop {
            // It is signed within a second.
            if let Ok(checkpoint) = auditor.checkpoint("orders").await
                && checkpoint.size() > 0
            {
                return checkpoint;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    assert!(checkpoint.size() <= 60);
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
        let message = within("consuming", consumer.try_next()).await.expect("it proves itself").expect("it comes");
        assert_eq!(message.deliveries(), 1);
        seen.insert(message.offset().expect("it is stored"));
        within("ack", message.ack_sync()).await.expect("it is durable");
    }
    assert_eq!(seen, (0..10).collect());
    broker.kill();
    let _broker = bus.serve(program).await;
    while seen.len() < 20 {
        let message = within("consuming", consumer.try_next()).await.expect("it proves itself").expect("it comes");
        let offset = message.offset().expect("it is stored");
        assert!(offset >= 10, "what was acknowledged durably does not come back: {offset}");
        seen.insert(offset);
        message.ack().await.expect("it is queued");
    }
}
