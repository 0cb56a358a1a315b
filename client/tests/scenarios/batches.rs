//! Messages taken a batch at a time, and one at a time in between.

use std::time::Duration;

use sealbus_client::{Bus, Consumer, DeliveryError, MessageBatch, Subscription};

use crate::fake::{Fake, Say};
use crate::fake_stream::Stream;
use crate::pki::Pki;
use crate::{PATIENCE, client, connected, payload, reconnected};

/// Messages of each series.
const SERIES: u32 = 25;

struct Scene {
    _pki: Pki,
    fake: Fake,
    producer: Bus,
    bus: Bus,
}

impl Scene {
    async fn new() -> Self {
        let pki = Pki::new();
        let fake = Fake::start(&pki).await;
        let producer = connected(&pki, &fake, "producer").await;
        let bus =
            client(&pki, &fake, "consumer").request_timeout(Duration::from_secs(2)).connect().await.unwrap();
        Self { _pki: pki, fake, producer, bus }
    }

    /// Publishes the numbers from there on, in few batches.
    async fn publish(&self, first: u32) {
        let publisher = self.producer.publisher("a/b").await.unwrap();
        publisher.publish_all((first..first + SERIES).map(|index| index.to_string())).await.unwrap();
    }
}

/// What is left of the batch, or the next one.
async fn batch(subscription: &mut Subscription) -> MessageBatch<'_> {
    let next = tokio::time::timeout(PATIENCE, subscription.next_batch()).await.expect("a batch comes");
    next.expect("it goes on").expect("it is a batch")
}

/// All of it.
async fn rest_of_batch(subscription: &mut Subscription) -> Vec<String> {
    let mut batch = batch(subscription).await;
    assert_eq!(batch.topic().as_str(), "a/b");
    assert!(format!("{:?}", batch.producer()).contains("producer"));
    let mut payloads = Vec::new();
    while let Some(message) = batch.next_message() {
        payloads.push(String::from_utf8(message.payload().to_vec()).unwrap());
    }
    payloads
}

fn numbers(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

#[tokio::test]
async fn both_ways_of_taking_messages_may_be_mixed_and_lose_none() {
    let scene = Scene::new().await;
    let mut subscription = scene.bus.subscribe("#").await.unwrap();
    let mut found = Vec::new();
    for series in 0..4 {
        scene.publish(series * SERIES).await;
        let end = ((series + 1) * SERIES) as usize;
        while found.len() < end {
            found.push(payload(&mut subscription).await);
            if found.len() == end {
                break;
            }
            // Two of a batch, and the rest of it stays where it is.
            let mut batch = batch(&mut subscription).await;
            for _ in 0..2 {
                let Some(message) = batch.next_message() else { break };
                found.push(String::from_utf8(message.payload().to_vec()).unwrap());
            }
            if found.len() < end && found.len().is_multiple_of(2) {
                let rest = rest_of_batch(&mut subscription).await;
                assert!(!rest.is_empty(), "a batch that is given has a message");
                found.extend(rest);
            }
        }
    }
    assert_eq!(found, numbers(0..4 * SERIES));
}

#[tokio::test]
async fn a_batch_that_was_asked_for_and_not_read_is_still_there() {
    let scene = Scene::new().await;
    let mut subscription = scene.bus.subscribe("#").await.unwrap();
    scene.publish(0).await;
    for _ in 0..3 {
        let _unread = batch(&mut subscription).await;
    }
    let mut found = vec![payload(&mut subscription).await];
    while found.len() < SERIES as usize {
        found.extend(rest_of_batch(&mut subscription).await);
    }
    assert_eq!(found, numbers(0..SERIES));
}

#[tokio::test]
async fn a_message_that_is_kept_outlives_its_batch() {
    let scene = Scene::new().await;
    let mut subscription = scene.bus.subscribe("#").await.unwrap();
    scene.publish(0).await;
    let mut kept = Vec::new();
    while kept.len() < SERIES as usize {
        let mut batch = batch(&mut subscription).await;
        while let Some(message) = batch.next_message() {
            kept.push(message.clone());
        }
    }
    drop(subscription);
    for (sequence, message) in kept.iter().enumerate() {
        assert_eq!(message.payload(), sequence.to_string().as_bytes());
        assert_eq!(message.sequence(), sequence as u64);
        assert_eq!((message.key(), message.headers().count()), (&b""[..], 0));
    }
}

#[tokio::test]
async fn what_stands_between_batches_is_told_in_its_place() {
    let scene = Scene::new().await;
    let mut subscription = scene.bus.subscribe("#").await.unwrap();
    scene.publish(0).await;
    let mut found = Vec::new();
    while found.len() < SERIES as usize {
        found.extend(rest_of_batch(&mut subscription).await);
    }
    scene.fake.say(&Say::CloseSubscriptions);
    let closed = tokio::time::timeout(PATIENCE, subscription.next_batch()).await.unwrap().unwrap();
    assert!(matches!(closed, Err(DeliveryError::Closed(_))), "{closed:?}");
    assert!(subscription.next_batch().await.is_none(), "that was the end");
}

/// Only some records of a batch are this member's: the others are not lent either.
#[tokio::test]
async fn a_member_is_lent_its_own_share_and_acknowledges_it() {
    let scene = Scene::new().await;
    scene.fake.state(|state| drop(state.streams.insert("orders".into(), Stream::new("a/#"))));
    scene.publish(0).await;
    let mut events = scene.bus.events();
    let mut billing = scene.bus.consume("orders", "billing").await.unwrap();
    let lent = take_all(&mut billing, SERIES, |offset| !offset.is_multiple_of(3)).await;
    assert_eq!(lent, (0..u64::from(SERIES)).map(|offset| (offset, 1)).collect::<Vec<_>>());
    let acknowledged = (0..SERIES).filter(|offset| !offset.is_multiple_of(3)).count();
    let settled = async {
        while scene.fake.state(|state| state.streams["orders"].groups["billing"].settlements.len())
            < acknowledged
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, settled).await.expect("the verdicts come");
    scene.fake.say(&Say::Cut);
    reconnected(&mut events).await;
    let left = SERIES - u32::try_from(acknowledged).unwrap();
    let again = take_all(&mut billing, left, |_| true).await;
    let expected = (0..u64::from(SERIES)).filter(|offset| offset.is_multiple_of(3)).map(|offset| (offset, 2));
    assert_eq!(again, expected.collect::<Vec<_>>());
}

/// So many messages, as offsets and times delivered; those are acknowledged that are to be.
async fn take_all(member: &mut Consumer, count: u32, is_done: impl Fn(u64) -> bool) -> Vec<(u64, u32)> {
    let mut found = Vec::new();
    while found.len() < count as usize {
        let next = tokio::time::timeout(PATIENCE, member.next_batch()).await.expect("a batch comes");
        let mut batch = next.unwrap().unwrap();
        while let Some(message) = batch.next_message() {
            let offset = message.offset().unwrap();
            assert_eq!(message.payload(), offset.to_string().as_bytes());
            if is_done(offset) {
                message.ack().await.unwrap();
            }
            found.push((offset, message.deliveries()));
        }
    }
    found
}
