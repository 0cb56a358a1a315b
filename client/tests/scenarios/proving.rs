//! Checkpoints: what a broker signed once holds for ever.

use std::time::Duration;

use sealbus_client::{Bus, CheckpointError, Code, Dated, Event, Message, ProveError, Publisher};
use sealbus_protocol::tlog::{TlogProof, VerifierKey, stream_origin};

use crate::fake::{Fake, now_ms};
use crate::fake_stream::{Lie, ORDERS, Stream, log_key};
use crate::pki::{BUS_ID, Pki};
use crate::{client, connected, event};

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
        let consumer = client(&pki, &fake, "consumer").trust(pki.trust_with_log());
        let bus = consumer.request_timeout(Duration::from_secs(2)).connect().await.unwrap();
        let publisher = producer.publisher("a/b").await.unwrap();
        let scene = Self { _pki: pki, fake, bus, publisher };
        scene.publish(messages).await;
        scene
    }

    async fn publish(&self, messages: u32) {
        for _ in 0..messages {
            self.publisher.publish("x").await.unwrap();
        }
    }

    fn lie(&self, lie: Lie) {
        self.fake.state(|state| state.streams.get_mut("orders").unwrap().lies.push_back(lie));
    }

    async fn messages(&self) -> Vec<Message> {
        let mut replay = self.bus.replay("orders").until_end().await.unwrap();
        let mut messages = Vec::new();
        while let Some(message) = replay.try_next().await.unwrap() {
            messages.push(message);
        }
        messages
    }
}

#[tokio::test]
async fn a_growing_log_is_believed_from_checkpoint_to_checkpoint() {
    let scene = Scene::with(3).await;
    for (grown, size) in [(0, 3), (0, 3), (5, 8), (1, 9)] {
        scene.publish(grown).await;
        let checkpoint = scene.bus.checkpoint("orders").await.unwrap();
        assert_eq!((checkpoint.size(), checkpoint.stream_id()), (size, ORDERS));
        assert_eq!(checkpoint.origin(), stream_origin(&BUS_ID, &ORDERS).as_str());
        assert!(checkpoint.note().contains(&format!("\n{size}\n")));
    }
}

#[tokio::test]
async fn a_message_is_proven_to_be_in_the_log_and_others_can_check_it() {
    let scene = Scene::with(7).await;
    let key = VerifierKey::new(stream_origin(&BUS_ID, &ORDERS), &log_key().public()).unwrap();
    for (index, message) in (0..).zip(scene.messages().await) {
        assert_eq!(message.dated(), Dated::Current);
        let proof = scene.bus.prove(&message).await.unwrap();
        assert_eq!((proof.index(), proof.checkpoint().size()), (index, 7));
        assert!(proof.first_seen_ms().abs_diff(now_ms()) < 60_000);
        assert_eq!(message.dated(), Dated::Witnessed);
        let text = proof.to_tlog_proof();
        let parsed = TlogProof::parse(text.as_bytes()).unwrap();
        assert_eq!((parsed.index(), parsed.path().len()), (index, proof.hashes().len()));
        assert_eq!(parsed.checkpoint_unverified().to_string(), proof.checkpoint().note());
        assert!(parsed.verify(&sealbus_protocol::tlog::leaf_hash(b"another"), &key).is_err());
    }
}

#[tokio::test]
async fn a_forged_checkpoint_is_not_believed() {
    let scene = Scene::with(3).await;
    scene.lie(Lie::Forged);
    assert!(matches!(scene.bus.checkpoint("orders").await, Err(CheckpointError::Signature(_))));
    assert_eq!(scene.bus.checkpoint("orders").await.unwrap().size(), 3);
}

#[tokio::test]
async fn a_history_that_was_cut_or_rewritten_is_told_with_the_evidence() {
    let scene = Scene::with(4).await;
    let mut events = scene.bus.events();
    let first = scene.bus.checkpoint("orders").await.unwrap();
    scene.lie(Lie::Cut(2));
    let cut = scene.bus.checkpoint("orders").await.unwrap_err();
    assert!(
        matches!(&cut, CheckpointError::RolledBack { seen: 4, found: 2, older, .. } if older == first.note())
    );
    let told = event(&mut events, |event| matches!(event, Event::CheckpointInconsistent { .. })).await;
    let Event::CheckpointInconsistent { stream, older, newer } = told else { unreachable!() };
    assert_eq!((stream.to_string(), older), ("orders".into(), first.note().to_owned()));
    assert!(newer.contains("\n2\n"));
    // Of one size with another root, and of a larger one that does not continue it.
    for grown in [0, 3] {
        scene.publish(grown).await;
        scene.lie(Lie::Rewritten);
        let rewritten = scene.bus.checkpoint("orders").await;
        assert!(matches!(rewritten, Err(CheckpointError::Inconsistent { .. })), "{rewritten:?}");
        event(&mut events, |event| matches!(event, Event::CheckpointInconsistent { .. })).await;
    }
    assert_eq!(scene.bus.checkpoint("orders").await.unwrap().size(), 7, "the true history goes on");
}

#[tokio::test]
async fn what_the_broker_says_of_a_message_must_be_what_it_signed() {
    let scene = Scene::with(4).await;
    let messages = scene.messages().await;
    scene.lie(Lie::OtherLeaf);
    assert!(matches!(scene.bus.prove(&messages[1]).await, Err(ProveError::NotIncluded(_))));
    assert_eq!(messages[1].dated(), Dated::Current);
    // It was appended at another time than the leaf says.
    scene.fake.state(|state| state.streams.get_mut("orders").unwrap().kept[3].append_ms += 1);
    let lied_to = scene.messages().await;
    scene.fake.state(|state| state.streams.get_mut("orders").unwrap().kept[3].append_ms -= 1);
    assert!(matches!(scene.bus.prove(&lied_to[3]).await, Err(ProveError::NotIncluded(_))));
    scene.bus.prove(&messages[3]).await.unwrap();
}

#[tokio::test]
async fn a_proof_waits_for_the_checkpoint_that_has_the_message() {
    let scene = Scene::with(4).await;
    let last = scene.messages().await.pop().unwrap();
    scene.lie(Lie::Cut(2));
    scene.lie(Lie::Cut(3));
    assert_eq!(scene.bus.prove(&last).await.unwrap().checkpoint().size(), 4);
}

#[tokio::test]
async fn without_a_key_a_name_or_a_place_nothing_is_proven() {
    let scene = Scene::with(1).await;
    assert!(matches!(scene.bus.checkpoint("a b").await, Err(CheckpointError::Stream(_))));
    assert_eq!(scene.bus.checkpoint("secrets").await.unwrap_err().code(), Some(Code::Denied));
    let mut live = scene.bus.subscribe("live").await.unwrap();
    scene.bus.publisher("live").await.unwrap().publish("x").await.unwrap();
    let message = live.next().await.unwrap().unwrap();
    assert_eq!(message.dated(), Dated::Live);
    assert_eq!(scene.bus.prove(&message).await, Err(ProveError::NoPlace));
    let keyless = connected(&scene._pki, &scene.fake, "keyless").await;
    assert_eq!(keyless.checkpoint("orders").await, Err(CheckpointError::NoLogKey));
}
