//! T63: whatever a broker sends, the client neither panics nor fills its memory, and goes on with the next connection.

use bytes::Bytes;
use sealbus_client::{Code, Event, Refusal, Topic};
use sealbus_protocol::batch::accept::{Durability, Receipt, ResumePoint};
use sealbus_protocol::frame::admin::Decision;
use sealbus_protocol::frame::{
    Ack, AdminResult, Alias, BindingReply, CheckpointReply, Closed, Deliver, Drain, ErrorFrame, Frame as _,
    FrameType, Freshness, Generation, HEADER_LEN, Lagged, Narrowed, Opened, Outcome, Ready, Refused,
    RequestId, Settled, Skipped, SkippedWhy, StreamStart, StreamTopic, SubscriptionId, What,
};
use sealbus_protocol::ids::{PolicyHash, PreambleDigest, StreamId};

use crate::fake::{Fake, Say};
use crate::fake_stream::Stream;
use crate::pki::Pki;
use crate::{client, connected, event, payload};

/// One whole frame of every type that a broker sends after WELCOME.
fn frames() -> Vec<Vec<u8>> {
    let refusal = || Refusal::new(Code::Limit, "why");
    let request = RequestId(1);
    let subscription = SubscriptionId(1);
    let resume = Some(ResumePoint { next_seq: u64::MAX, last: PreambleDigest::new([1; 32]) });
    let receipt = Receipt { durability: Durability::Fsync, offset: Some(u64::MAX - 1) };
    let deliver = |topic: Option<Topic>, batch| Deliver {
        subscription,
        alias: Alias(0),
        offset: Some(7),
        broker_ms: u64::MAX,
        topic: topic.map(StreamTopic::from),
        stored: None,
        ranges: None,
        batch,
    };
    let topic = Topic::parse("a").unwrap();
    [
        Opened { request, alias: Alias(u32::MAX), stream: StreamId::new([3; 16]), resume }.encode(),
        Ack { request, receipt, freshness: Freshness::Duplicate, broker_ms: 0 }.encode(),
        Refused { request, refusal: refusal() }.encode(),
        Ready { request, subscription, narrowed: Narrowed::Yes, generation: 0, start: None }.encode(),
        Ready {
            request,
            subscription,
            narrowed: Narrowed::No,
            generation: 0,
            start: Some(StreamStart { stream_id: StreamId::new([3; 16]), offset: 7, end: 3 }),
        }
        .encode(),
        Skipped { subscription, why: SkippedWhy::Damaged, from: 0, to: u64::MAX }.encode(),
        Settled { request }.encode(),
        CheckpointReply {
            request,
            size: u64::MAX,
            prefix: vec![[1; 32]; 64],
            consistency: Vec::new(),
            inclusion: vec![[2; 32]],
            note: "no note".into(),
        }
        .encode(),
        Closed(What::Alias(Alias(9))).encode(),
        Closed(What::Subscription(subscription)).encode(),
        deliver(Some(topic), Bytes::from_static(b"not a batch")).encode(),
        deliver(None, Bytes::new()).encode(),
        Lagged { subscription, missed: u64::MAX }.encode(),
        Generation { generation: 0, policy_version: 0, policy_hash: PolicyHash::ZERO }.encode(),
        BindingReply { request: None, binding: Bytes::from_static(b"SBK1 no binding") }.encode(),
        BindingReply { request: Some(request), binding: Bytes::new() }.encode(),
        AdminResult { request, outcome: Outcome::Decided { decision: Decision::Denied, why: "no".into() } }
            .encode(),
        Drain { deadline_ms: u32::MAX }.encode(),
        ErrorFrame(refusal()).encode(),
    ]
    .map(|frame| frame.to_vec())
    .into()
}

/// After whatever was sent, a new request works: on this connection or on the next.
async fn assert_alive(bus: &sealbus_client::Bus) {
    let mut subscription = bus.subscribe("alive").await.expect("the bus goes on");
    let publisher = bus.publisher("alive").await.expect("the bus goes on");
    publisher.publish("yes").await.expect("the bus goes on");
    // A reconnect between subscribing and publishing may have lost it; then the stream says nothing, so only its
    // absence of panics is asserted here.
    let _ = tokio::time::timeout(std::time::Duration::from_millis(200), subscription.next()).await;
}

#[tokio::test]
async fn every_frame_that_nobody_asked_for_is_survived() {
    let pki = Pki::new();
    let fake = Fake::start(&pki).await;
    for frame in frames() {
        let bus = connected(&pki, &fake, "orders").await;
        let _subscription = bus.subscribe("a").await.unwrap();
        fake.say(&Say::Raw(frame));
        assert_alive(&bus).await;
    }
}

#[tokio::test]
async fn truncated_frames_and_lying_lengths_are_survived() {
    let pki = Pki::new();
    let fake = Fake::start(&pki).await;
    let bus = connected(&pki, &fake, "orders").await;
    let mut events = bus.events();
    for frame in frames() {
        let mut lies = Vec::new();
        // A shorter payload under an honest header of its own.
        for len in [0, 1, (frame.len() - HEADER_LEN) / 2, frame.len() - HEADER_LEN - 1] {
            let mut shorter = frame[..HEADER_LEN + len].to_vec();
            shorter[4..8].copy_from_slice(&u32::try_from(len).unwrap().to_be_bytes());
            lies.push(shorter);
        }
        // Trailing bytes, unknown flags, reserved bytes, and lengths beyond every limit.
        let mut longer = [&frame[..], &[0]].concat();
        longer[4..8].copy_from_slice(&u32::try_from(frame.len() - HEADER_LEN + 1).unwrap().to_be_bytes());
        lies.push(longer);
        for (at, value) in [(1, 0xff), (2, 1), (4, 0xff), (5, 0xff)] {
            let mut lie = frame.clone();
            lie[at] = value;
            lies.push(lie);
        }
        for mut lie in lies {
            // Whatever the frame meant to the client, this ends the connection for sure.
            lie.extend_from_slice(&[0; HEADER_LEN]);
            lie.extend_from_slice(&[0xff; 16]);
            fake.say(&Say::Raw(lie));
            event(&mut events, |event| matches!(event, Event::Disconnected { .. })).await;
            event(&mut events, |event| matches!(event, Event::Connected { .. })).await;
            drop(bus.subscribe("fence").await.unwrap());
        }
    }
    assert_alive(&bus).await;
}

#[tokio::test]
async fn frames_that_only_clients_send_end_the_connection() {
    let pki = Pki::new();
    let fake = Fake::start(&pki).await;
    let bus = connected(&pki, &fake, "orders").await;
    let mut events = bus.events();
    for kind in
        [FrameType::Hello, FrameType::Welcome, FrameType::Publish, FrameType::Subscribe, FrameType::Admin]
    {
        fake.say(&Say::Raw(vec![kind as u8, 0, 0, 0, 0, 0, 0, 0]));
        let told = event(&mut events, |event| matches!(event, Event::Disconnected { .. })).await;
        let Event::Disconnected { reason } = told else { unreachable!() };
        assert!(reason.contains("broke the protocol"), "{reason}");
        event(&mut events, |event| matches!(event, Event::Connected { .. })).await;
        drop(bus.subscribe("fence").await.unwrap());
    }
}

#[tokio::test]
async fn a_broker_that_pays_no_heed_to_credit_is_cut_off() {
    let pki = Pki::new();
    let fake = Fake::start(&pki).await;
    let bus = client(&pki, &fake, "orders").credit_bytes(4_096).connect().await.unwrap();
    let mut events = bus.events();
    let mut subscription = bus.subscribe("a").await.unwrap();
    let topic = Topic::parse("a").unwrap();
    for _ in 0..50 {
        fake.say(&Say::Deliver { topic: topic.clone(), batch: Bytes::from(vec![0; 1_000]) });
    }
    let told = event(&mut events, |event| matches!(event, Event::Disconnected { .. })).await;
    let Event::Disconnected { reason } = told else { unreachable!() };
    assert!(reason.contains("credit"), "{reason}");
    // What was within the credit is still there to be refused, each by itself.
    let mut refused = 0;
    while let Ok(Some(Err(_))) =
        tokio::time::timeout(std::time::Duration::from_millis(100), subscription.next()).await
    {
        refused += 1;
    }
    assert!((1..=6).contains(&refused), "{refused}");
}

/// Reports cost no credit, so their number is bounded otherwise.
#[tokio::test]
async fn a_broker_that_skips_without_end_fills_no_memory() {
    let pki = Pki::new();
    let fake = Fake::start(&pki).await;
    fake.state(|state| drop(state.streams.insert("orders".into(), Stream::new("a"))));
    let bus = connected(&pki, &fake, "orders").await;
    let mut events = bus.events();
    let mut replay = bus.replay("orders").await.unwrap();
    for index in 0..1_500 {
        fake.say(&Say::Skipped { from: 10 * index, to: 10 * index + 1, why: SkippedWhy::Damaged });
    }
    let told = event(&mut events, |event| matches!(event, Event::Disconnected { .. })).await;
    let Event::Disconnected { reason } = told else { unreachable!() };
    assert!(reason.contains("broke the protocol"), "{reason}");
    // The replay goes on with the next connection.
    event(&mut events, |event| matches!(event, Event::Connected { .. })).await;
    bus.publisher("a").await.unwrap().publish("kept").await.unwrap();
    let kept = async {
        loop {
            if let Ok(message) = replay.next().await.unwrap() {
                return message;
            }
        }
    };
    let kept = tokio::time::timeout(crate::PATIENCE, kept).await.unwrap();
    assert_eq!((kept.payload(), kept.offset()), (&b"kept"[..], Some(0)));
}

#[tokio::test]
async fn garbage_bindings_harm_no_good_one() {
    let pki = Pki::new();
    let fake = Fake::start(&pki).await;
    let bus = connected(&pki, &fake, "orders").await;
    let mut subscription = bus.subscribe("a").await.unwrap();
    for byte in 0..=255 {
        let binding = Bytes::from(vec![byte; 1_000]);
        fake.say(&Say::Raw(BindingReply { request: None, binding }.encode().to_vec()));
    }
    bus.publisher("a").await.unwrap().publish("good").await.unwrap();
    assert_eq!(payload(&mut subscription).await, "good");
}
