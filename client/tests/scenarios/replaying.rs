//! Histories: from a place on, across reconnects, and against a broker that tells another one.

use sealbus_client::{
    Bus, CloseReason, Code, Dated, DeliveryError, Event, Missing, Publisher, Rejection, RejectionCode,
    Replay, Start, StreamId, SubscribeError, Topic,
};
use sealbus_protocol::frame::{RecordRange, SkippedWhy};
use std::num::NonZeroU32;

use crate::fake::{Fake, Say};
use crate::fake_stream::{Kept, ORDERS, Stream};
use crate::pki::Pki;
use crate::{PATIENCE, connected, event, reconnected};

struct Scene {
    pki: Pki,
    fake: Fake,
    bus: Bus,
    publisher: Publisher,
}

impl Scene {
    async fn new() -> Self {
        let pki = Pki::new();
        let fake = Fake::start(&pki).await;
        fake.state(|state| drop(state.streams.insert("orders".into(), Stream::new("a/#"))));
        let producer = connected(&pki, &fake, "producer").await;
        let bus = connected(&pki, &fake, "consumer").await;
        let publisher = producer.publisher("a/b").await.unwrap();
        Self { pki, fake, bus, publisher }
    }

    /// With so many messages, each in a batch of its own.
    async fn with(messages: u32) -> Self {
        let scene = Self::new().await;
        for index in 0..messages {
            scene.publish(index).await;
        }
        scene
    }

    async fn publish(&self, index: u32) {
        let receipt = self.publisher.publish(index.to_string()).await.unwrap();
        assert_eq!(receipt.offset(), Some(u64::from(index)));
    }

    fn kept(&self, index: usize) -> Kept {
        self.fake.state(|state| state.streams["orders"].kept[index].clone())
    }

    fn withhold(&self) {
        self.fake.state(|state| state.script.withhold = true);
    }

    fn say(&self, kept: Kept) {
        self.fake.say(&Say::Stored(kept));
    }
}

async fn next(replay: &mut Replay) -> Option<Result<(u64, String), DeliveryError>> {
    let next = tokio::time::timeout(PATIENCE, replay.next()).await.expect("something comes");
    next.map(|next| {
        next.map(|message| {
            (message.offset().unwrap(), String::from_utf8(message.payload().to_vec()).unwrap())
        })
    })
}

async fn message(replay: &mut Replay) -> (u64, String) {
    next(replay).await.expect("it goes on").expect("it is a message")
}

async fn error(replay: &mut Replay) -> DeliveryError {
    next(replay).await.expect("it goes on").expect_err("nothing is handed out")
}

async fn rejection(replay: &mut Replay) -> Rejection {
    match error(replay).await {
        DeliveryError::Rejected(rejection) => rejection,
        other => panic!("{other}"),
    }
}

async fn rest(replay: &mut Replay) -> Vec<u64> {
    let mut offsets = Vec::new();
    while let Some(next) = next(replay).await {
        offsets.push(next.unwrap().0);
    }
    offsets
}

#[tokio::test]
async fn a_history_comes_whole_and_in_order_and_then_goes_on() {
    let scene = Scene::with(3).await;
    let mut replay = scene.bus.replay("orders").await.unwrap();
    assert_eq!((replay.stream_id(), replay.range()), (ORDERS, 0..3));
    for index in 0..3 {
        assert_eq!(message(&mut replay).await, (index, index.to_string()));
    }
    scene.publish(3).await;
    let message = replay.next().await.unwrap().unwrap();
    assert_eq!((message.offset(), message.deliveries()), (Some(3), 1));
    assert_eq!(message.stream().unwrap().to_string(), "orders");
    assert_eq!(message.stream_id(), Some(ORDERS));
    assert_eq!(message.dated(), Dated::Current);
    assert!(message.appended_ms().unwrap().abs_diff(crate::fake::now_ms()) < 60_000);
    assert!(message.ack().await.is_err(), "a replay has nothing to acknowledge");
}

#[tokio::test]
async fn a_replay_begins_where_it_is_told_and_ends_at_the_end() {
    let scene = Scene::with(6).await;
    let ends =
        async |start| rest(&mut scene.bus.replay("orders").from(start).until_end().await.unwrap()).await;
    assert_eq!(ends(Start::Earliest).await, [0, 1, 2, 3, 4, 5]);
    assert_eq!(ends(Start::Offset(4)).await, [4, 5]);
    assert_eq!(ends(Start::Last(2)).await, [4, 5]);
    assert_eq!(ends(Start::Time(0)).await, [0, 1, 2, 3, 4, 5]);
    assert_eq!(ends(Start::Time(u64::MAX)).await, [0; 0]);
    assert_eq!(ends(Start::End).await, [0; 0]);
    let mut filtered = scene.bus.replay("orders").filter("a/c").until_end().start().await.unwrap();
    assert_eq!(rest(&mut filtered).await, [0; 0]);
}

#[tokio::test]
async fn reading_that_begins_within_a_batch_hands_out_the_rest_of_it() {
    let scene = Scene::new().await;
    scene.publisher.publish("0").await.unwrap();
    let batch: Vec<String> = (1..6).map(|index| index.to_string()).collect();
    scene.publisher.publish_all(batch).await.unwrap();
    let batches = scene.fake.state(|state| state.streams["orders"].kept.len());
    assert!(batches < 6, "there is a batch of several messages");
    let mut replay = scene.bus.replay("orders").from(Start::Offset(4)).until_end().await.unwrap();
    assert_eq!(message(&mut replay).await, (4, "4".into()));
    assert_eq!(rest(&mut replay).await, [5]);
}

#[tokio::test]
async fn a_replay_goes_on_after_a_reconnect_without_gap_or_duplicate() {
    let scene = Scene::with(5).await;
    let mut events = scene.bus.events();
    let mut replay = scene.bus.replay("orders").await.unwrap();
    for index in 0..3 {
        assert_eq!(message(&mut replay).await.0, index);
    }
    // Two more lie here unread; they are asked for again.
    scene.fake.say(&Say::Cut);
    reconnected(&mut events).await;
    for index in 5..8 {
        scene.publish(index).await;
    }
    for index in 3..8 {
        assert_eq!(message(&mut replay).await.0, index);
    }
    let replays = scene.fake.state(|state| state.replays.clone());
    assert_eq!(replays, [Start::Earliest, Start::Offset(3)]);
}

/// The connection breaks again and again while the history is read.
#[tokio::test]
async fn cuts_in_the_middle_of_a_history_lose_nothing_and_repeat_nothing() {
    let scene = Scene::with(60).await;
    let mut replay = scene.bus.replay("orders").until_end().await.unwrap();
    for index in 0..60 {
        assert_eq!(message(&mut replay).await.0, index);
        if index % 7 == 0 {
            scene.fake.say(&Say::Cut);
        }
    }
    assert_eq!(next(&mut replay).await, None);
}

#[tokio::test]
async fn what_was_trimmed_or_damaged_is_told_in_its_place() {
    let scene = Scene::with(6).await;
    scene.fake.state(|state| state.streams.get_mut("orders").unwrap().first = 2);
    let mut events = scene.bus.events();
    let mut replay = scene.bus.replay("orders").from(Start::Offset(0)).await.unwrap();
    let trimmed = DeliveryError::Skipped { from: 0, to: 2, why: Missing::Trimmed };
    assert_eq!(error(&mut replay).await, trimmed);
    event(&mut events, |event| matches!(event, Event::Skipped { to: 2, why: Missing::Trimmed, .. })).await;
    for index in 2..6 {
        assert_eq!(message(&mut replay).await.0, index, "what is missing of the sequence is explained");
    }
    scene.fake.say(&Say::Skipped { from: 6, to: 9, why: SkippedWhy::Damaged });
    let damaged = DeliveryError::Skipped { from: 6, to: 9, why: Missing::Damaged };
    assert_eq!(error(&mut replay).await, damaged);
}

#[tokio::test]
async fn offsets_that_are_left_out_without_a_word_are_told() {
    let scene = Scene::with(6).await;
    scene.withhold();
    let mut replay = scene.bus.replay("orders").await.unwrap();
    scene.say(scene.kept(0));
    scene.say(scene.kept(4));
    assert_eq!(message(&mut replay).await.0, 0);
    let silent = DeliveryError::Skipped { from: 1, to: 4, why: Missing::Unexplained };
    assert_eq!(error(&mut replay).await, silent);
    assert_eq!(message(&mut replay).await.0, 4, "the same loss is not told twice");
}

/// One offset is missing and three sequence numbers: both are told before the message, in whichever way it is taken.
#[tokio::test]
async fn two_losses_are_both_told_before_the_message_behind_them() {
    let scene = Scene::with(6).await;
    scene.withhold();
    for by_batch in [false, true] {
        let mut replay = scene.bus.replay("orders").await.unwrap();
        scene.say(scene.kept(0));
        scene.say(Kept { offset: 2, ..scene.kept(4) });
        assert_eq!(message(&mut replay).await.0, 0);
        let mut told = Vec::new();
        for _ in 0..2 {
            told.push(if by_batch {
                let next =
                    tokio::time::timeout(PATIENCE, replay.next_batch()).await.expect("something comes");
                next.expect("it goes on").expect_err("nothing is handed out")
            } else {
                error(&mut replay).await
            });
        }
        assert_eq!(told[0], DeliveryError::Skipped { from: 1, to: 2, why: Missing::Unexplained });
        assert!(matches!(told[1], DeliveryError::Gap { missed: 2, .. }), "{:?}", told[1]);
        assert_eq!(message(&mut replay).await, (2, "4".to_owned()));
    }
}

/// A filter leaves offsets out, so only the producer's sequence can tell.
#[tokio::test]
async fn under_a_filter_the_sequence_tells_what_is_left_out() {
    let scene = Scene::with(6).await;
    scene.withhold();
    let mut replay = scene.bus.replay("orders").filter("a/b").await.unwrap();
    scene.say(scene.kept(2));
    assert!(
        matches!(error(&mut replay).await, DeliveryError::Gap { missed: 2, .. }),
        "its begin was left out"
    );
    assert_eq!(message(&mut replay).await.0, 2);
    scene.say(scene.kept(4));
    assert!(matches!(error(&mut replay).await, DeliveryError::Gap { missed: 1, .. }));
    assert_eq!(message(&mut replay).await.0, 4);
}

#[tokio::test]
async fn a_history_that_goes_back_is_caught() {
    let scene = Scene::with(4).await;
    scene.withhold();
    let mut replay = scene.bus.replay("orders").await.unwrap();
    for index in 0..3 {
        scene.say(scene.kept(index));
        assert_eq!(message(&mut replay).await.0, index as u64);
    }
    scene.say(scene.kept(1));
    assert_eq!(rejection(&mut replay).await.code, RejectionCode::Replay);
    // The same batch, as if it were news.
    scene.say(Kept { offset: 3, ..scene.kept(1) });
    assert_eq!(rejection(&mut replay).await.code, RejectionCode::Replay);
    scene.say(scene.kept(3));
    assert_eq!(message(&mut replay).await.0, 3, "the replay goes on");
}

#[tokio::test]
async fn a_rewritten_history_is_caught_also_after_a_reconnect() {
    let scene = Scene::with(4).await;
    scene.withhold();
    let mut events = scene.bus.events();
    let mut replay = scene.bus.replay("orders").await.unwrap();
    for index in 0..2 {
        scene.say(scene.kept(index));
        assert_eq!(message(&mut replay).await.0, index as u64);
    }
    scene.say(Kept { offset: 1, ..scene.kept(2) });
    let first = rejection(&mut replay).await;
    assert_eq!((first.code, first.code.as_str()), (RejectionCode::Rewrite, "REWRITE"));
    scene.fake.say(&Say::Cut);
    reconnected(&mut events).await;
    drop(scene.bus.subscribe("fence").await.unwrap());
    scene.say(Kept { offset: 0, ..scene.kept(3) });
    assert_eq!(rejection(&mut replay).await.code, RejectionCode::Rewrite);
    scene.say(scene.kept(1));
    scene.say(scene.kept(2));
    assert_eq!(message(&mut replay).await.0, 2, "what comes again is passed over");
}

#[tokio::test]
async fn a_batch_of_another_stream_topic_or_time_is_caught() {
    let scene = Scene::with(3).await;
    scene.withhold();
    let mut replay = scene.bus.replay("orders").await.unwrap();
    let other = StreamId::new([9; 16]);
    scene.say(Kept { stream_id: other, ..scene.kept(0) });
    let rejected = rejection(&mut replay).await;
    assert_eq!(rejected.code, RejectionCode::Binding);
    assert!(rejected.reason.contains("is being read"), "{rejected}");
    scene.say(Kept { topic: Topic::parse("a/c").unwrap(), ..scene.kept(0) });
    assert_eq!(rejection(&mut replay).await.code, RejectionCode::Binding);
    scene.say(scene.kept(0));
    assert_eq!(message(&mut replay).await.0, 0);
    let mut early = scene.kept(1);
    early.append_ms -= 60_000;
    scene.say(early);
    assert_eq!(rejection(&mut replay).await.code, RejectionCode::Time);
    let mut older = scene.kept(1);
    older.at.policy_version = 0;
    scene.say(older);
    assert_eq!(rejection(&mut replay).await.code, RejectionCode::Time);
    scene.say(scene.kept(1));
    assert_eq!(message(&mut replay).await.0, 1);
}

#[tokio::test]
async fn records_that_are_not_in_the_batch_are_not_handed_out() {
    let scene = Scene::with(1).await;
    scene.withhold();
    let mut replay = scene.bus.replay("orders").await.unwrap();
    for (first, count) in [(0, 2), (1, 1), (60_000, 5)] {
        let count = NonZeroU32::new(count).unwrap();
        let ranges = Some(vec![RecordRange { first, count, deliveries: NonZeroU32::MIN }]);
        scene.say(Kept { ranges, ..scene.kept(0) });
        assert_eq!(rejection(&mut replay).await.code, RejectionCode::Format, "{first}");
    }
    scene.say(scene.kept(0));
    assert_eq!(message(&mut replay).await.0, 0);
}

/// The certificate is judged at the time of the append: one that began later signed nothing then.
#[tokio::test]
async fn a_batch_dated_before_its_certificate_is_refused() {
    let scene = Scene::with(1).await;
    scene.withhold();
    let mut replay = scene.bus.replay("orders").await.unwrap();
    let long_ago = 1_000_000_000_000;
    scene.say(Kept { append_ms: long_ago, ..scene.kept(0) });
    assert_eq!(rejection(&mut replay).await.code, RejectionCode::Binding);
    scene.say(scene.kept(0));
    assert_eq!(message(&mut replay).await.0, 0);
}

#[tokio::test]
async fn another_stream_under_the_name_ends_the_replay() {
    let scene = Scene::with(2).await;
    let mut replay = scene.bus.replay("orders").await.unwrap();
    assert_eq!(message(&mut replay).await.0, 0);
    assert_eq!(message(&mut replay).await.0, 1);
    scene.fake.state(|state| state.streams.get_mut("orders").unwrap().id = StreamId::new([9; 16]));
    scene.fake.say(&Say::Cut);
    assert_eq!(error(&mut replay).await, DeliveryError::Closed(CloseReason::OtherStream));
    assert_eq!(next(&mut replay).await, None);
}

#[tokio::test]
async fn a_replay_that_is_closed_before_its_end_says_so() {
    let scene = Scene::with(2).await;
    scene.withhold();
    let mut replay = scene.bus.replay("orders").await.unwrap();
    scene.fake.say(&Say::CloseSubscriptions);
    assert_eq!(error(&mut replay).await, DeliveryError::Closed(CloseReason::ByBroker));
    let mut short = scene.bus.replay("orders").until_end().await.unwrap();
    assert_eq!(
        error(&mut short).await,
        DeliveryError::Closed(CloseReason::ByBroker),
        "two messages are missing"
    );
}

#[tokio::test]
async fn what_may_not_be_read_is_refused_and_so_is_what_has_no_name() {
    let scene = Scene::with(1).await;
    assert_eq!(scene.bus.replay("secrets").await.unwrap_err().code(), Some(Code::Denied));
    assert!(matches!(scene.bus.replay("a b").await, Err(SubscribeError::Stream(_))));
    assert!(matches!(scene.bus.replay("orders").filter("a/#/b").await, Err(SubscribeError::Filter(_))));
    let mut replay = scene.bus.replay("orders").await.unwrap();
    assert_eq!(message(&mut replay).await.0, 0);
    scene.fake.state(|state| assert!(state.script.denied.insert("orders".into())));
    scene.fake.say(&Say::Cut);
    let DeliveryError::Closed(reason) = error(&mut replay).await else { panic!("it is final") };
    assert_eq!(reason.code(), Some(Code::Denied));
    drop(scene.pki);
}

/// A live subscription gets what a stream keeps too, signed for that stream.
#[tokio::test]
async fn a_live_delivery_of_a_stream_is_judged_for_that_stream() {
    let scene = Scene::with(1).await;
    let mut live = scene.bus.subscribe("a/#").await.unwrap();
    let kept = scene.kept(0);
    scene.fake.say(&Say::Deliver { topic: kept.topic.clone(), batch: kept.batch });
    let told = tokio::time::timeout(PATIENCE, live.next()).await.unwrap().unwrap();
    assert!(
        matches!(&told, Err(DeliveryError::Rejected(rejection)) if rejection.code == RejectionCode::Binding),
        "signed for a stream, delivered for none: {told:?}"
    );
}
