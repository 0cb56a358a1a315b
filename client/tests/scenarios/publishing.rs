use std::future::Future as _;
use std::time::Duration;

use sealbus_client::{Code, Durability, EnqueueError, Event, Json, Outgoing, PublishError};

use crate::fake::{Fake, Reaction, Say, payloads};
use crate::pki::Pki;
use crate::{PATIENCE, client, connected, event, payload, proxy};

#[tokio::test]
async fn messages_are_accepted_in_order_with_receipts() {
    let pki = Pki::new();
    let fake = Fake::start(&pki).await;
    let bus = connected(&pki, &fake, "orders").await;
    let publisher = bus.publisher("a").await.unwrap();
    let receipt = publisher.publish("0").await.unwrap();
    assert_eq!((receipt.sequence(), receipt.durability(), receipt.offset()), (0, Durability::Live, None));
    let receipts = publisher.publish_all((1..1_000).map(|index| index.to_string())).await.unwrap();
    assert!(receipts.iter().map(sealbus_client::Receipt::sequence).eq(1..1_000));
    let expected: Vec<Vec<u8>> = (0..1_000).map(|index: u32| index.to_string().into_bytes()).collect();
    assert_eq!(fake.payloads("a"), expected);
    let batches = fake.state(|state| state.accepted.len());
    assert!(batches < 200, "a busy line makes large batches, not {batches} of them");
}

#[tokio::test]
async fn keys_headers_and_json_arrive() {
    let pki = Pki::new();
    let fake = Fake::start(&pki).await;
    let bus = connected(&pki, &fake, "orders").await;
    let mut subscription = bus.subscribe("a").await.unwrap();
    let publisher = bus.publisher("a").await.unwrap();
    publisher.publish(Outgoing::new("x").key("k").header("traceparent", "t").header("b", "2")).await.unwrap();
    publisher.publish(Json(&vec![1, 2, 3])).await.unwrap();
    let message = subscription.next().await.unwrap().unwrap();
    assert_eq!((message.key(), message.header("traceparent")), (&b"k"[..], Some(&b"t"[..])));
    assert_eq!(message.headers().count(), 2);
    assert_eq!(message.producer().as_str(), "spiffe://bus.example/orders");
    assert!(message.published_ms().abs_diff(crate::fake::now_ms()) < 60_000);
    let message = subscription.next().await.unwrap().unwrap();
    assert_eq!(message.json::<Vec<u32>>().unwrap(), [1, 2, 3]);
    assert_eq!(message.sequence(), 1);
}

#[tokio::test]
async fn a_lost_acknowledgement_is_asked_for_with_the_same_bytes() {
    let pki = Pki::new();
    let fake = Fake::start(&pki).await;
    let bus = connected(&pki, &fake, "orders").await;
    let publisher = bus.publisher("a").await.unwrap();
    publisher.publish("zero").await.unwrap();
    fake.state(|state| state.script.reactions.push_back(Reaction::AcceptAndCut));
    let receipt = publisher.publish("one").await.unwrap();
    assert_eq!(receipt.sequence(), 1);
    let received = fake.state(|state| state.received.clone());
    assert_eq!(received.len(), 3);
    assert_eq!(received[1], received[2]);
    assert_eq!(fake.payloads("a"), [&b"zero"[..], b"one"]);
}

#[tokio::test]
async fn cuts_at_any_byte_lose_nothing_and_repeat_nothing() {
    let pki = Pki::new();
    for seed in 0..6_usize {
        let fake = Fake::start(&pki).await;
        let lives = (1..12).map(|index| 3_000 + (seed * 7_919 + index * 104_729) % 40_000).collect();
        let address = proxy::start(fake.address, lives).await;
        let bus = client(&pki, &fake, "orders")
            .server(format!("localhost:{}", address.port()))
            .batch_bytes_max(4_096)
            .publish_timeout(Duration::from_secs(60))
            .connect()
            .await;
        // A cut within the very first handshake is the caller's to see.
        let Ok(bus) = bus else { continue };
        let publisher = bus.publisher("a").await.unwrap();
        let messages = 400_u32;
        let sending = publisher.publish_all((0..messages).map(|index| format!("{index:0>500}")));
        let receipts = tokio::time::timeout(PATIENCE, sending).await.expect("it ends").unwrap();
        assert_eq!(receipts.len(), messages as usize);
        let accepted: Vec<u32> = fake
            .payloads("a")
            .iter()
            .map(|payload| std::str::from_utf8(payload).unwrap().parse().unwrap())
            .collect();
        assert!(accepted.iter().copied().eq(0..messages), "seed {seed}: {} messages", accepted.len());
        assert!(fake.state(|state| state.hellos) > 3, "the wire did break");
    }
}

#[tokio::test]
async fn after_a_final_refusal_later_messages_go_through_in_a_new_incarnation() {
    let pki = Pki::new();
    let fake = Fake::start(&pki).await;
    let bus = connected(&pki, &fake, "orders").await;
    let mut events = bus.events();
    let publisher = bus.publisher("a").await.unwrap();
    let bystander = bus.publisher("b").await.unwrap();
    bystander.publish("b0").await.unwrap();
    publisher.publish("zero").await.unwrap();
    fake.state(|state| state.script.reactions.push_back(Reaction::Refuse(Code::Time)));
    let refused = publisher.publish("one").await.unwrap_err();
    assert_eq!(refused.code(), Some(Code::Time));
    let receipt = publisher.publish("two").await.unwrap();
    assert_eq!(receipt.sequence(), 0, "sequences begin anew");
    assert_eq!(bystander.publish("b1").await.unwrap().sequence(), 0);
    let new = event(&mut events, |event| matches!(event, Event::NewIncarnation { .. })).await;
    let Event::NewIncarnation { incarnation_id, because } = new else { unreachable!() };
    assert_eq!((incarnation_id, because.code()), (receipt.incarnation(), Code::Time));
    assert_eq!(fake.payloads("a"), [b"zero".to_vec(), b"two".to_vec()]);
    assert_eq!(fake.payloads("b"), [b"b0", b"b1"]);
}

#[tokio::test]
async fn what_came_behind_a_refused_batch_is_signed_anew_in_order() {
    let pki = Pki::new();
    let fake = Fake::start(&pki).await;
    let bus = client(&pki, &fake, "orders").batch_bytes_max(4_096).connect().await.unwrap();
    let publisher = bus.publisher("a").await.unwrap();
    publisher.publish("first").await.unwrap();
    fake.state(|state| {
        state.script.reactions.extend([Reaction::Accept, Reaction::Accept, Reaction::Refuse(Code::Seal)]);
    });
    let pending: Vec<_> =
        (0..50).map(|index| publisher.enqueue(format!("{index:0>1000}")).unwrap()).collect();
    let mut kept = vec![b"first".to_vec()];
    let mut refused = 0;
    for (index, receipt) in pending.into_iter().enumerate() {
        match receipt.await {
            Ok(_) => kept.push(format!("{index:0>1000}").into_bytes()),
            Err(error) => {
                assert_eq!(error.code(), Some(Code::Seal));
                refused += 1;
            }
        }
    }
    assert!((1..10).contains(&refused), "one batch was refused, {refused} messages");
    assert_eq!(fake.payloads("a"), kept);
}

#[tokio::test]
async fn a_withdrawn_right_fails_messages_without_a_reconnect_until_it_is_back() {
    let pki = Pki::new();
    let fake = Fake::start(&pki).await;
    let bus = connected(&pki, &fake, "orders").await;
    let publisher = bus.publisher("a").await.unwrap();
    publisher.publish("zero").await.unwrap();
    fake.state(|state| {
        state.script.denied.insert("a".into());
        state.script.reactions.push_back(Reaction::Refuse(Code::Denied));
    });
    for _ in 0..3 {
        assert_eq!(publisher.publish("no").await.unwrap_err().code(), Some(Code::Denied));
    }
    assert_eq!(fake.state(|state| state.hellos), 1, "denials cost nobody a reconnect");
    assert_eq!(bus.publisher("a").await.unwrap_err().code(), Some(Code::Denied));
    fake.state(|state| state.script.denied.clear());
    publisher.publish("two").await.unwrap();
    assert_eq!(fake.payloads("a"), [b"zero".to_vec(), b"two".to_vec()]);
}

#[tokio::test]
async fn a_refusal_that_passes_is_waited_out() {
    let pki = Pki::new();
    let fake = Fake::start(&pki).await;
    let bus = connected(&pki, &fake, "orders").await;
    let publisher = bus.publisher("a").await.unwrap();
    fake.state(|state| state.script.reactions.push_back(Reaction::Refuse(Code::AuditUnavailable)));
    assert_eq!(publisher.publish("one").await.unwrap().sequence(), 0);
    let received = fake.state(|state| state.received.clone());
    assert_eq!(received.len(), 2);
    assert_eq!(received[0], received[1]);
}

#[tokio::test]
async fn a_silent_broker_does_not_hold_a_publisher_beyond_its_deadline() {
    let pki = Pki::new();
    let fake = Fake::start(&pki).await;
    let bus =
        client(&pki, &fake, "orders").publish_timeout(Duration::from_millis(300)).connect().await.unwrap();
    let publisher = bus.publisher("a").await.unwrap();
    fake.state(|state| state.script.reactions.push_back(Reaction::Silence));
    let error = tokio::time::timeout(PATIENCE, publisher.publish("one")).await.unwrap().unwrap_err();
    assert_eq!(error, PublishError::Unanswered { after_ms: 300 });
    assert_eq!(publisher.flush().await, Err(PublishError::Unanswered { after_ms: 300 }));
    assert_eq!(publisher.flush().await, Ok(()));
    // The request is still unanswered, and closing does not wait for it again.
    bus.close().await.unwrap();
}

#[tokio::test]
async fn requests_have_deadlines_too() {
    let pki = Pki::new();
    let fake = Fake::start(&pki).await;
    let bus =
        client(&pki, &fake, "orders").request_timeout(Duration::from_millis(100)).connect().await.unwrap();
    fake.state(|state| state.script.mute = true);
    assert!(bus.publisher("a").await.is_err());
    assert!(bus.subscribe("a").await.is_err());
    assert!(bus.reload_policy().await.is_err());
}

#[tokio::test]
async fn pending_bytes_are_bounded_and_room_comes_back() {
    let pki = Pki::new();
    let fake = Fake::start(&pki).await;
    let bus = client(&pki, &fake, "orders").pending_bytes_max(64 * 1_024).connect().await.unwrap();
    let publisher = bus.publisher("a").await.unwrap();
    publisher.publish("first").await.unwrap();
    fake.state(|state| state.script.reactions.push_back(Reaction::Silence));
    let payload = vec![0; 10_000];
    let accepted = (0..20).take_while(|_| publisher.enqueue(&payload[..]).is_ok()).count();
    assert_eq!(accepted, 6);
    assert!(matches!(publisher.enqueue(&payload[..]), Err(EnqueueError::Full { .. })));
    while fake.state(|state| state.received.len()) < 2 {
        tokio::task::yield_now().await;
    }
    let waiting = publisher.enqueue_when_ready(&payload[..]);
    // The connection is cut and made anew, and the broker answers then.
    fake.say(&Say::Cut);
    tokio::time::timeout(PATIENCE, waiting).await.unwrap().unwrap().await.unwrap();
}

#[tokio::test]
async fn one_topic_has_one_sequence_whoever_opens_it() {
    let pki = Pki::new();
    let fake = Fake::start(&pki).await;
    let bus = connected(&pki, &fake, "orders").await;
    for round in 0..3 {
        let one = bus.publisher("a").await.unwrap();
        let two = bus.publisher("a").await.unwrap();
        assert_eq!(one.publish("x").await.unwrap().sequence(), 2 * round);
        assert_eq!(two.publish("x").await.unwrap().sequence(), 2 * round + 1);
    }
}

#[tokio::test]
async fn a_draining_broker_is_left_and_publishing_goes_on_elsewhere() {
    let pki = Pki::new();
    let fake = Fake::start(&pki).await;
    let bus = connected(&pki, &fake, "orders").await;
    let mut events = bus.events();
    let publisher = bus.publisher("a").await.unwrap();
    publisher.publish("one").await.unwrap();
    fake.say(&Say::Drain(50));
    event(&mut events, |event| matches!(event, Event::Draining { deadline_ms: 50 })).await;
    publisher.publish("two").await.unwrap();
    assert_eq!(fake.state(|state| state.hellos), 2);
    assert_eq!(fake.payloads("a"), [b"one", b"two"]);
}

#[tokio::test]
async fn a_message_that_waits_goes_with_the_next_one_and_none_is_cut() {
    let pki = Pki::new();
    let fake = Fake::start(&pki).await;
    let bus = connected(&pki, &fake, "orders").await;
    let mut subscription = bus.subscribe("a").await.unwrap();
    let publisher = bus.publisher("a").await.unwrap();
    // Dropped after the first poll: the message is queued all the same.
    {
        let mut publish = std::pin::pin!(publisher.publish("dropped"));
        std::future::poll_fn(|cx| {
            assert!(publish.as_mut().poll(cx).is_pending());
            std::task::Poll::Ready(())
        })
        .await;
    }
    publisher.publish("kept").await.unwrap();
    assert_eq!(payload(&mut subscription).await, "dropped");
    assert_eq!(payload(&mut subscription).await, "kept");
    let largest = vec![7; sealbus_protocol::limits::PAYLOAD_BYTES_MAX];
    publisher.publish(&largest[..]).await.unwrap();
    let message = subscription.next().await.unwrap().unwrap();
    assert_eq!(message.payload(), largest);
    assert!(matches!(publisher.publish(vec![0; largest.len() + 1]).await, Err(PublishError::Message(_))));
    assert_eq!(payloads(&fake.state(|state| state.received[0].clone()))[0], b"dropped");
}

/// Far more than may wait for an acknowledgement at a time, among them one that is no message.
#[tokio::test]
async fn a_series_waits_for_room_and_stops_before_what_cannot_be_sent() {
    let pki = Pki::new();
    let fake = Fake::start(&pki).await;
    let bus = client(&pki, &fake, "orders")
        .batch_bytes_max(4_096)
        .pending_bytes_max(65_536)
        .connect()
        .await
        .unwrap();
    let publisher = bus.publisher("a").await.unwrap();
    let queued = publisher.enqueue_all((0..500).map(|index| format!("{index:0>200}"))).await.unwrap();
    assert_eq!(queued, 500);
    let good = (500..600).map(|index| Outgoing::new(format!("{index:0>200}")));
    let bad = std::iter::once(Outgoing::new("x".to_owned()).header("Capital", "no"));
    let never = std::iter::once(Outgoing::new("never".to_owned()));
    let stopped = publisher.enqueue_all(good.chain(bad).chain(never)).await.unwrap_err();
    assert_eq!(stopped.queued, 100);
    assert!(matches!(stopped.error, PublishError::Message(_)), "{stopped}");
    publisher.flush().await.unwrap();
    let expected: Vec<Vec<u8>> = (0..600).map(|index| format!("{index:0>200}").into_bytes()).collect();
    assert_eq!(fake.payloads("a"), expected);
}

/// On one thread: a publisher that never waits for anything must not keep its own connection from sending.
#[tokio::test]
async fn a_series_lets_the_connection_have_its_turn() {
    let pki = Pki::new();
    let fake = Fake::start(&pki).await;
    let bus = client(&pki, &fake, "orders").batch_bytes_max(4_096).connect().await.unwrap();
    let publisher = bus.publisher("a").await.unwrap();
    // About a hundred batches, and room for all of them: nothing but courtesy makes the series pause.
    let mut seen = Vec::new();
    let messages = (0..2_000).map(|index| {
        if index % 500 == 0 {
            seen.push(fake.state(|state| state.received.len()));
        }
        format!("{index:0>200}")
    });
    publisher.enqueue_all(messages).await.unwrap();
    assert!(seen.last() > seen.first(), "the broker received nothing meanwhile: {seen:?}");
    publisher.flush().await.unwrap();
    assert_eq!(fake.payloads("a").len(), 2_000);
}
