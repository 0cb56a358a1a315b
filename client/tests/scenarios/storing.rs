//! Publishing to streams, and administering them.

use std::time::Duration;

use sealbus_client::{Code, Durability, Event, Name, PublishError, Question, RequestError, Start, StreamId};

use crate::fake::{Fake, Reaction, Say};
use crate::fake_stream::Stream;
use crate::pki::Pki;
use crate::{client, connected, event, reconnected};

async fn with_stream(pki: &Pki) -> Fake {
    let fake = Fake::start(pki).await;
    fake.state(|state| drop(state.streams.insert("orders".into(), Stream::new("a/#"))));
    fake
}

#[tokio::test]
async fn what_is_kept_has_an_offset_and_a_level() {
    let pki = Pki::new();
    let fake = with_stream(&pki).await;
    let bus = connected(&pki, &fake, "orders").await;
    let publisher = bus.publisher("a/b").await.unwrap();
    for offset in 0..3 {
        let receipt = publisher.publish("x").await.unwrap();
        assert_eq!((receipt.offset(), receipt.durability()), (Some(offset), Durability::Fsync));
    }
}

#[tokio::test]
async fn a_lost_acknowledgement_of_a_stream_is_answered_by_the_same_bytes_and_the_same_offset() {
    let pki = Pki::new();
    let fake = with_stream(&pki).await;
    let bus = connected(&pki, &fake, "orders").await;
    let publisher = bus.publisher("a/b").await.unwrap();
    publisher.publish("zero").await.unwrap();
    fake.state(|state| state.script.reactions.push_back(Reaction::AcceptAndCut));
    let receipt = publisher.publish("one").await.unwrap();
    assert_eq!((receipt.sequence(), receipt.offset()), (1, Some(1)));
    let received = fake.state(|state| state.received.clone());
    assert_eq!((received.len(), &received[1]), (3, &received[2]));
    assert_eq!(fake.payloads("a/b"), [&b"zero"[..], b"one"]);
    assert_eq!(fake.state(|state| state.streams["orders"].end()), 2);
}

/// The broker knows from its log what it has; the client sends the rest byte for byte.
#[tokio::test]
async fn what_a_restarted_broker_has_not_stored_is_sent_again() {
    let pki = Pki::new();
    let fake = with_stream(&pki).await;
    let bus = connected(&pki, &fake, "orders").await;
    let publisher = bus.publisher("a/b").await.unwrap();
    publisher.publish("0").await.unwrap();
    fake.state(|state| state.script.reactions.push_back(Reaction::Silence));
    let pending = publisher.enqueue("1").unwrap();
    while fake.state(|state| state.received.len()) < 2 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    fake.say(&Say::Cut);
    assert_eq!(pending.await.unwrap().offset(), Some(1));
    let received = fake.state(|state| state.received.clone());
    assert_eq!(received[1], received[2]);
    assert_eq!(
        fake.state(|state| state.incarnations.windows(2).filter(|pair| pair[0] != pair[1]).count()),
        0
    );
}

#[tokio::test]
async fn a_stream_that_becomes_another_is_published_to_under_a_new_incarnation() {
    let pki = Pki::new();
    let fake = with_stream(&pki).await;
    let bus = connected(&pki, &fake, "orders").await;
    let mut events = bus.events();
    let publisher = bus.publisher("a/b").await.unwrap();
    let before = publisher.publish("before").await.unwrap();
    fake.state(|state| state.streams.get_mut("orders").unwrap().id = StreamId::new([9; 16]));
    fake.say(&Say::Cut);
    reconnected(&mut events).await;
    let after = publisher.publish("after").await.unwrap();
    assert_ne!(after.incarnation(), before.incarnation());
    assert_eq!((after.sequence(), after.offset()), (0, Some(1)));
    let told = event(&mut events, |event| matches!(event, Event::NewIncarnation { .. })).await;
    assert!(matches!(told, Event::NewIncarnation { because, .. } if because.code() == Code::Binding));
}

#[tokio::test]
async fn a_topic_that_a_stream_captures_later_is_signed_for_it() {
    let pki = Pki::new();
    let fake = Fake::start(&pki).await;
    let bus = connected(&pki, &fake, "orders").await;
    let mut events = bus.events();
    let publisher = bus.publisher("a/b").await.unwrap();
    assert_eq!(publisher.publish("live").await.unwrap().offset(), None);
    fake.state(|state| drop(state.streams.insert("orders".into(), Stream::new("a/#"))));
    fake.say(&Say::Cut);
    reconnected(&mut events).await;
    assert_eq!(publisher.publish("kept").await.unwrap().offset(), Some(0));
}

#[tokio::test]
async fn a_full_disk_is_waited_out() {
    let pki = Pki::new();
    let fake = with_stream(&pki).await;
    let bus = connected(&pki, &fake, "orders").await;
    let publisher = bus.publisher("a/b").await.unwrap();
    let refuse = |code| fake.state(|state| state.script.reactions.push_back(Reaction::Refuse(code)));
    refuse(Code::StorageFull);
    refuse(Code::Limit);
    assert_eq!(publisher.publish("x").await.unwrap().offset(), Some(0));
    let received = fake.state(|state| state.received.clone());
    assert!(
        received.len() == 3 && received.iter().all(|batch| *batch == received[0]),
        "the same bytes each time"
    );
}

#[tokio::test]
async fn a_disk_that_stays_full_is_the_answer_at_the_deadline() {
    let pki = Pki::new();
    let fake = with_stream(&pki).await;
    let deadline = Duration::from_millis(600);
    let bus = client(&pki, &fake, "orders").publish_timeout(deadline).connect().await.unwrap();
    let publisher = bus.publisher("a/b").await.unwrap();
    fake.state(|state| state.script.reactions.extend([Reaction::Refuse(Code::StorageFull); 50]));
    let first = publisher.publish("x").await.unwrap_err();
    assert_eq!(first.code(), Some(Code::StorageFull));
    assert!(matches!(first, PublishError::Refused(_)), "{first}");
    fake.state(|state| state.script.reactions.clear());
    assert_eq!(publisher.publish("y").await.unwrap().offset(), Some(0), "it goes on by itself");
}

/// The very first batch of a line goes alone, so nothing else looks at the queue after it.
#[tokio::test]
async fn after_a_first_message_that_was_refused_for_good_the_next_one_goes_through() {
    let pki = Pki::new();
    let fake = with_stream(&pki).await;
    let bus = connected(&pki, &fake, "orders").await;
    let publisher = bus.publisher("a/b").await.unwrap();
    fake.state(|state| state.script.reactions.push_back(Reaction::Refuse(Code::Time)));
    assert_eq!(publisher.publish("x").await.unwrap_err().code(), Some(Code::Time));
    assert_eq!(publisher.publish("y").await.unwrap().offset(), Some(0));
}

#[tokio::test]
async fn streams_and_consumers_are_listed_page_by_page() {
    let pki = Pki::new();
    let fake = Fake::start(&pki).await;
    let bus = connected(&pki, &fake, "operator").await;
    let streams = bus.streams(None).await.unwrap();
    assert_eq!(
        streams.iter().map(|stream| stream.name.to_string()).collect::<Vec<_>>(),
        ["orders", "payments"]
    );
    let consumers = bus.consumers(Some("orders")).await.unwrap();
    assert_eq!(consumers.iter().map(|found| found.name.as_str()).collect::<Vec<_>>(), ["audit", "billing"]);
    assert_eq!(bus.reset_consumer("orders", "billing", Start::Offset(7)).await, Ok(7));
    assert_eq!(bus.stats().await.unwrap().uptime_ms, 17);
    let question = Question::Replay(Name::parse("orders").unwrap());
    assert!(bus.can_i(None, question).await.unwrap().is_permitted());
    assert!(matches!(bus.streams(Some("a b")).await, Err(RequestError::Stream(_))));
    assert!(matches!(bus.consumers(Some("$dead/a/b")).await, Err(RequestError::Name(_))));
}
