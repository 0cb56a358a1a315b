//! A slow consumer is alone with it (P10), and is told exactly what it missed.

use sealbus_protocol::session::ClientEvent;

use crate::harness::{Bus, allow, payloads_of, policy};

fn open_policy() -> String {
    policy(
        1,
        &[
            allow("anna-writes", "anna", "publish", &["t/#"]),
            allow("ben-reads", "ben", "subscribe", &["t/#"]),
        ],
    )
}

/// Message `n` holds the number `n`: what is delivered and what is missed must be all of them, each in its place.
#[test]
fn delivered_and_missed_are_all_that_was_published_each_in_its_place() {
    const BATCHES: u64 = 400;
    const MESSAGES: u64 = 5;
    let bus = Bus::start_with(&open_policy(), |config| config.limits.outbox_bytes_max = 4_000);
    let mut ben = bus.client("ben");
    let subscription = ben.subscribe_with("t/#", 1).unwrap().subscription;
    let mut anna = bus.client("anna");
    let mut publisher = anna.publisher("t/1");
    let mut next = 0u64;
    let mut publish = |count: u64| {
        for _ in 0..count {
            let payloads: Vec<[u8; 8]> = (next..next + MESSAGES).map(u64::to_be_bytes).collect();
            next += MESSAGES;
            let payloads: Vec<&[u8]> = payloads.iter().map(|payload| &payload[..]).collect();
            anna.publish(&mut publisher, &payloads).unwrap();
        }
    };
    publish(BATCHES);
    ben.session.credit(subscription, u64::from(u32::MAX));
    ben.flush();
    let (mut expected, mut missed, mut delivered) = (0, 0, 0);
    while expected < BATCHES * MESSAGES {
        match ben.event() {
            ClientEvent::Lagged(lagged) => {
                assert!(lagged.missed > 0);
                missed += lagged.missed;
                expected += lagged.missed;
            }
            ClientEvent::Deliver(batch) => {
                for payload in payloads_of(&batch.batch) {
                    assert_eq!(u64::from_be_bytes(payload.try_into().unwrap()), expected);
                    expected += 1;
                    delivered += 1;
                }
            }
            ClientEvent::Binding(_) => {}
            other => panic!("found {other:?}"),
        }
    }
    assert_eq!(delivered + missed, BATCHES * MESSAGES);
    assert!(delivered > 0 && missed > 0, "{delivered} delivered, {missed} missed");
    ben.expect_silence();
    // It goes on as if nothing had been.
    publish(1);
    let (_, payloads) = ben.payloads();
    assert_eq!(payloads[0], expected.to_be_bytes());
}

/// A stopped subscriber loses what does not fit and keeps its connection; its neighbour loses nothing.
#[test]
fn a_stopped_subscriber_catches_up_with_an_exact_count() {
    let bus = Bus::start_with(&open_policy(), |config| config.limits.outbox_bytes_max = 2 * 1_024 * 1_024);
    let mut stopped = bus.client("ben");
    stopped.subscribe("t/#").unwrap();
    let mut quick = bus.client("ben");
    quick.subscribe("t/#").unwrap();
    let mut anna = bus.client("anna");
    let mut publisher = anna.publisher("t/1");
    const BATCHES: u64 = 60;
    for number in 0..BATCHES {
        let mut payload = vec![0; 900_000];
        payload[..8].copy_from_slice(&number.to_be_bytes());
        anna.publish(&mut publisher, &[&payload, b"second"]).unwrap();
        assert_eq!(quick.payloads().1.len(), 2);
    }
    let (mut received, mut missed) = (0, 0);
    while received + missed < 2 * BATCHES {
        match stopped.event() {
            ClientEvent::Deliver(batch) => {
                let payloads = payloads_of(&batch.batch);
                let number = u64::from_be_bytes(payloads[0][..8].try_into().unwrap());
                assert_eq!(2 * number, received + missed);
                received += 2;
            }
            ClientEvent::Lagged(lagged) => missed += lagged.missed,
            ClientEvent::Binding(_) => {}
            other => panic!("found {other:?}"),
        }
    }
    assert!(received > 0 && missed > 0, "{received} received, {missed} missed");
    assert_eq!(received + missed, 2 * BATCHES);
}
