//! Durable consumers: at least once, until it is acknowledged.

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::time::Duration;

use sealbus_client::{
    Bus, CloseReason, Code, Consumer, DeliveryError, Event, Message, Publisher, RejectionCode, SettleError,
    StreamId, SubscribeError,
};
use sealbus_protocol::frame::Settlement;

use crate::fake::{Fake, Reaction, Say};
use crate::fake_stream::{Kept, ORDERS, Stream};
use crate::pki::Pki;
use crate::{PATIENCE, client, connected, event, reconnected};

struct Scene {
    _pki: Pki,
    fake: Fake,
    bus: Bus,
    publisher: Publisher,
}

impl Scene {
    async fn with(messages: u32) -> Self {
        let pki = Pki::new();
        let fake = Fake::start(&pki).await;
        fake.state(|state| drop(state.streams.insert("orders".into(), Stream::new("a/#"))));
        let producer = connected(&pki, &fake, "producer").await;
        let bus =
            client(&pki, &fake, "consumer").request_timeout(Duration::from_secs(2)).connect().await.unwrap();
        let publisher = producer.publisher("a/b").await.unwrap();
        publisher.publish("0").await.unwrap();
        // The rest shares few batches, so that ranges lie within them.
        publisher.publish_all((1..messages).map(|index| index.to_string())).await.unwrap();
        Self { _pki: pki, fake, bus, publisher }
    }

    fn settlements(&self) -> Vec<(u64, Settlement)> {
        self.fake.state(|state| state.streams["orders"].groups["billing"].settlements.clone())
    }

    /// Waits until so many verdicts have come.
    async fn settled(&self, count: usize) -> Vec<(u64, Settlement)> {
        let come = async {
            while self.settlements().len() < count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, come).await.expect("the verdicts come");
        self.settlements()
    }
}

async fn message(consumer: &mut Consumer) -> Message {
    let next = tokio::time::timeout(PATIENCE, consumer.next()).await.expect("a message comes");
    next.expect("it goes on").expect("it is a message")
}

async fn offsets(consumer: &mut Consumer, count: usize) -> Vec<u64> {
    let mut offsets = Vec::new();
    for _ in 0..count {
        offsets.push(message(consumer).await.offset().unwrap());
    }
    offsets
}

#[tokio::test]
async fn what_is_acknowledged_is_not_delivered_again_and_the_rest_is() {
    let scene = Scene::with(10).await;
    let mut events = scene.bus.events();
    let mut billing = scene.bus.consume("orders", "billing").await.unwrap();
    assert_eq!((billing.stream().as_str(), billing.name().as_str()), ("orders", "billing"));
    assert_eq!(billing.stream_id(), ORDERS);
    for _ in 0..10 {
        let message = message(&mut billing).await;
        assert_eq!(message.deliveries(), 1);
        if message.offset().unwrap() % 3 != 0 {
            message.ack().await.unwrap();
        }
    }
    assert_eq!(scene.settled(6).await.len(), 6);
    scene.fake.say(&Say::Cut);
    reconnected(&mut events).await;
    for offset in [0, 3, 6, 9] {
        let message = message(&mut billing).await;
        assert_eq!((message.offset(), message.deliveries()), (Some(offset), 2), "ranges are handed out");
        assert_eq!(message.payload(), offset.to_string().as_bytes());
    }
}

#[tokio::test]
async fn acknowledgements_share_frames() {
    let scene = Scene::with(200).await;
    let mut billing = scene.bus.consume("orders", "billing").await.unwrap();
    for _ in 0..200 {
        message(&mut billing).await.ack().await.unwrap();
    }
    let settled = scene.settled(200).await;
    assert!(settled.iter().all(|(_, settlement)| *settlement == Settlement::Ack));
    assert_eq!(settled.iter().map(|(offset, _)| *offset).collect::<BTreeSet<_>>().len(), 200);
    let frames = scene.fake.state(|state| state.settles);
    assert!(frames < 100, "{frames} frames for 200 acknowledgements");
}

#[tokio::test]
async fn a_message_that_is_given_back_comes_again_with_its_delay_told() {
    let scene = Scene::with(1).await;
    let mut billing = scene.bus.consume("orders", "billing").await.unwrap();
    message(&mut billing).await.nack(Duration::from_millis(1_500)).await.unwrap();
    let again = message(&mut billing).await;
    assert_eq!((again.offset(), again.deliveries()), (Some(0), 2));
    assert_eq!(scene.settlements(), [(0, Settlement::Nack { delay_ms: 1_500 })]);
    again.ack_sync().await.unwrap();
    assert_eq!(scene.settlements().last(), Some(&(0, Settlement::Ack)));
}

#[tokio::test]
async fn a_synced_acknowledgement_is_on_the_disk_when_it_returns() {
    let scene = Scene::with(3).await;
    let mut billing = scene.bus.consume("orders", "billing").await.unwrap();
    for offset in 0..3 {
        message(&mut billing).await.ack_sync().await.unwrap();
        assert_eq!(scene.settlements().last(), Some(&(offset, Settlement::Ack)));
    }
}

/// The broker has it, and the connection breaks before it can say so.
#[tokio::test]
async fn a_synced_acknowledgement_survives_a_reconnect() {
    let scene = Scene::with(2).await;
    let mut billing = scene.bus.consume("orders", "billing").await.unwrap();
    let (first, second) = (message(&mut billing).await, message(&mut billing).await);
    scene.fake.state(|state| state.script.settling.push_back(Reaction::AcceptAndCut));
    first.ack_sync().await.unwrap();
    second.ack_sync().await.unwrap();
    let settled: BTreeSet<u64> = scene.settlements().iter().map(|(offset, _)| *offset).collect();
    assert_eq!(settled, [0, 1].into());
    assert_eq!(scene.fake.state(|state| state.consumes), 2, "the group was joined again");
}

#[tokio::test]
async fn what_becomes_of_an_acknowledgement_is_said() {
    let scene = Scene::with(2).await;
    let mut events = scene.bus.events();
    let mut billing = scene.bus.consume("orders", "billing").await.unwrap();
    let message = message(&mut billing).await;
    scene.fake.state(|state| state.script.settling.push_back(Reaction::Refuse(Code::Internal)));
    assert_eq!(message.ack_sync().await.unwrap_err().code(), Some(Code::Internal));
    scene.fake.state(|state| state.script.settling.push_back(Reaction::Refuse(Code::Denied)));
    message.ack().await.unwrap();
    let told = event(&mut events, |event| matches!(event, Event::SettleRefused { .. })).await;
    assert!(matches!(told, Event::SettleRefused { refusal } if refusal.code() == Code::Denied));
    scene.fake.state(|state| state.script.settling.push_back(Reaction::Silence));
    assert_eq!(message.ack_sync().await, Err(SettleError::Timeout { after_ms: 2_000 }));
    let mut live = scene.bus.subscribe("live").await.unwrap();
    let publisher = scene.bus.publisher("live").await.unwrap();
    publisher.publish("x").await.unwrap();
    assert_eq!(live.next().await.unwrap().unwrap().ack().await, Err(SettleError::NotConsumed));
}

#[tokio::test]
async fn a_consumer_that_is_dropped_sends_what_was_acknowledged_and_leaves() {
    let scene = Scene::with(5).await;
    let mut billing = scene.bus.consume("orders", "billing").await.unwrap();
    let mut last = None;
    for _ in 0..5 {
        let message = message(&mut billing).await;
        message.ack().await.unwrap();
        last = Some(message);
    }
    drop(billing);
    assert_eq!(scene.settled(5).await.len(), 5);
    let late = last.unwrap().ack().await;
    assert_eq!(late, Err(SettleError::Closed(CloseReason::ByCaller)));
}

#[tokio::test]
async fn closing_the_bus_sends_what_was_acknowledged() {
    let scene = Scene::with(5).await;
    let mut billing = scene.bus.consume("orders", "billing").await.unwrap();
    for _ in 0..5 {
        message(&mut billing).await.ack().await.unwrap();
    }
    scene.bus.clone().close().await.unwrap();
    assert_eq!(scene.settled(5).await.len(), 5);
    assert!(billing.next().await.is_none());
}

#[tokio::test]
async fn another_batch_at_a_delivered_offset_is_a_rewrite_and_the_same_elsewhere_a_replay() {
    let scene = Scene::with(1).await;
    scene.publisher.publish("1").await.unwrap();
    scene.fake.state(|state| state.script.withhold = true);
    let mut billing = scene.bus.consume("orders", "billing").await.unwrap();
    let kept = |index: usize| scene.fake.state(|state| state.streams["orders"].kept[index].clone());
    // In whatever order, and again: that is how work is shared out.
    for index in [1, 0, 1] {
        scene.fake.say(&Say::Stored(kept(index)));
        assert_eq!(offsets(&mut billing, 1).await, [index as u64]);
    }
    for (lie, code) in [
        (Kept { offset: 0, ..kept(1) }, RejectionCode::Rewrite),
        (Kept { offset: 7, ..kept(1) }, RejectionCode::Replay),
    ] {
        scene.fake.say(&Say::Stored(lie));
        let told = tokio::time::timeout(PATIENCE, billing.next()).await.unwrap().unwrap();
        assert!(
            matches!(&told, Err(DeliveryError::Rejected(rejection)) if rejection.code == code),
            "{told:?}"
        );
    }
}

/// Offsets of another stream mean other messages: what was queued for the old one must not settle them.
#[tokio::test]
async fn verdicts_about_one_stream_never_reach_another_of_its_name() {
    let scene = Scene::with(3).await;
    let mut billing = scene.bus.consume("orders", "billing").await.unwrap();
    let held = message(&mut billing).await;
    scene.fake.state(|state| {
        state.streams.get_mut("orders").unwrap().id = StreamId::new([9; 16]);
        state.script.settling.push_back(Reaction::AcceptAndCut);
    });
    // Its frame is read, and the connection cut; it is given back, to be sent again where it may be.
    assert_eq!(held.ack_sync().await, Err(SettleError::Closed(CloseReason::OtherStream)));
    assert_eq!(scene.fake.state(|state| state.settles), 1);
    let end = async {
        loop {
            if let Err(error) = billing.next().await.unwrap() {
                return error;
            }
        }
    };
    let end = tokio::time::timeout(PATIENCE, end).await.unwrap();
    assert_eq!(end, DeliveryError::Closed(CloseReason::OtherStream));
}

#[tokio::test]
async fn settings_are_checked_before_anything_is_asked() {
    let scene = Scene::with(1).await;
    let consume = || scene.bus.consume("orders", "billing");
    let crowded = consume().unacknowledged_max(NonZeroU32::new(70_000).unwrap()).await;
    assert!(matches!(crowded, Err(SubscribeError::Settings(_))));
    assert!(matches!(consume().backoff([Duration::ZERO; 17]).await, Err(SubscribeError::Settings(_))));
    assert!(matches!(scene.bus.consume("$dead/orders/x", "billing").await, Err(SubscribeError::Name(_))));
    assert!(matches!(scene.bus.consume("orders", "").await, Err(SubscribeError::Name(_))));
    assert_eq!(scene.bus.consume("secrets", "billing").await.unwrap_err().code(), Some(Code::Denied));
    let backoff = [1, 5].map(Duration::from_secs);
    let settled =
        consume().ack_wait(Duration::from_secs(9)).max_deliver(0).backoff(backoff).filter("a/#").await;
    assert_eq!(settled.unwrap().filter().as_str(), "a/#");
}
