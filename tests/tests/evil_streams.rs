//! A broker that was taken over, and the history that it tells: what it moves, dates otherwise, leaves out or invents is
//! refused or told of, and never handed out as if nothing were wrong. FAILURES T55, T56, T63.

#![allow(clippy::panic, reason = "what helps a test fails the test")]

use std::num::NonZeroU32;
use std::time::Duration;

use bytes::Bytes;
use sealbus_client::{Bus, CloseReason, DeliveryError, Reconnect, Replay, Start};
use sealbus_protocol::frame::{RecordRange, Skipped, SkippedWhy, StoredAt, StreamStart, SubscriptionId};
use sealbus_protocol::ids::StreamId;
use sealbus_protocol::session::Delivery;
use sealbus_protocol::topic::Topic;
use sealbus_tests::producer::now_ms;
use sealbus_tests::wait::within;
use sealbus_tests::{EvilBroker, EvilSession, Producer, TestBus};

const STREAM: StreamId = StreamId::new([3; 16]);
const OTHER: StreamId = StreamId::new([4; 16]);
const TOPIC: &str = "orders/eu";

/// The stream, as an honest broker would begin it.
const BEGIN: StreamStart = StreamStart { stream_id: STREAM, offset: 0, end: 6 };

/// A bus, a producer that the broker knows everything of, and the broker.
struct Stage {
    bus: TestBus,
    evil: EvilBroker,
    shop: Producer,
    /// Three batches of two messages for the stream, and one of each kind that is not.
    batches: Vec<Bytes>,
    of_other_stream: Bytes,
    of_other_topic: Bytes,
}

/// A client that replays the stream from the evil broker.
struct Scene {
    client: Bus,
    session: EvilSession,
    replay: Replay,
    id: SubscriptionId,
    began_ms: u64,
}

/// Where the broker says that a batch stands.
#[derive(Clone)]
struct Lie {
    batch: Bytes,
    topic: &'static str,
    stream: StreamId,
    offset: u64,
    later_ms: i64,
    stored: Option<StoredAt>,
    ranges: Option<Vec<RecordRange>>,
}

impl Stage {
    async fn set() -> Self {
        let bus = TestBus::new();
        let credential = bus.credential("shop");
        let mut shop = Producer::new(bus.bus_id(), &bus.principal("shop"), &credential);
        let batches = (0..3)
            .map(|number| {
                let payloads = [format!("{number} a"), format!("{number} b")];
                shop.batch_in(STREAM, TOPIC, &[payloads[0].as_bytes(), payloads[1].as_bytes()])
            })
            .collect();
        let of_other_stream = shop.batch_in(OTHER, TOPIC, &[b"other stream"]);
        let of_other_topic = shop.batch_in(STREAM, "orders/us", &[b"other topic"]);
        let evil = EvilBroker::start(&bus).await;
        Self { bus, evil, shop, batches, of_other_stream, of_other_topic }
    }

    async fn scene(&self) -> Scene {
        let quickly =
            Reconnect { initial: Duration::from_millis(1), max: Duration::from_millis(5), attempts: None };
        let connecting = sealbus_client::builder()
            .server(self.evil.address().to_string())
            .identity(self.bus.client_identity("auditor"))
            .trust(self.bus.trust())
            .reconnect(quickly)
            .connect();
        let (client, mut session) =
            tokio::join!(within("connecting", Box::pin(connecting)), Box::pin(self.evil.accept()));
        let client = client.expect("the evil broker has the broker's certificate");
        let replaying = client.replay("orders").from(Start::Earliest).until_end();
        let began_ms = now_ms();
        let (replay, id) = tokio::join!(
            async { within("a replay", Box::pin(std::future::IntoFuture::into_future(replaying))).await },
            Box::pin(session.began(BEGIN))
        );
        session.announce(self.shop.binding()).await;
        Scene { client, session, replay: replay.expect("it is granted"), id, began_ms }
    }

    /// A batch where it belongs.
    fn truth(&self, number: usize) -> Lie {
        let index = u64::try_from(number).expect("there are few");
        Lie {
            batch: self.batches[number].clone(),
            topic: TOPIC,
            stream: STREAM,
            offset: 2 * index,
            later_ms: 0,
            stored: Some(StoredAt { policy_version: 7, leaf_index: index }),
            ranges: None,
        }
    }
}

impl Scene {
    async fn deliver(&mut self, lie: &Lie) {
        let topic = Topic::parse(lie.topic).expect("tests name good topics");
        let (id, broker_ms) = (self.id, self.began_ms.saturating_add_signed(lie.later_ms));
        self.session
            .say(|wire| {
                wire.deliver(&Delivery {
                    subscription: id,
                    topic: &topic,
                    stream: lie.stream,
                    offset: Some(lie.offset),
                    broker_ms,
                    stored: lie.stored,
                    ranges: lie.ranges.as_deref(),
                    batch: &lie.batch,
                });
            })
            .await;
    }

    async fn skipped(&mut self, from: u64, to: u64, why: SkippedWhy) {
        let skipped = Skipped { subscription: self.id, why, from, to };
        self.session.say(|wire| wire.skipped(&skipped)).await;
    }

    /// What the application is handed or told next, in a few words.
    async fn told(&mut self) -> String {
        match within("a delivery", self.replay.try_next()).await {
            Ok(Some(message)) => String::from_utf8_lossy(message.payload()).into_owned(),
            Ok(None) => "end".to_owned(),
            Err(DeliveryError::Rejected(rejection)) => format!("refused {}", rejection.code.as_str()),
            Err(DeliveryError::Skipped { from, to, why }) => format!("{from}..{to} {}", why.as_str()),
            Err(DeliveryError::Gap { missed, .. }) => format!("gap {missed}"),
            Err(DeliveryError::Closed(reason)) => format!("closed: {reason}"),
            Err(error) => panic!("{error}"),
        }
    }

    async fn expect(&mut self, what: &str, told: &[&str]) {
        for expected in told {
            assert_eq!(self.told().await, *expected, "{what}");
        }
    }

    /// Ends the client, so that it does not come back in the place of the next.
    async fn end(self) {
        let Self { client, replay, mut session, .. } = self;
        drop(replay);
        drop(client);
        session.gone().await;
    }
}

fn only(first: u32, count: u32) -> Option<Vec<RecordRange>> {
    let count = NonZeroU32::new(count).expect("tests want some");
    Some(vec![RecordRange { first, count, deliveries: NonZeroU32::MIN }])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_history_is_told_in_its_order_whole_and_in_its_own_time_or_not_without_a_word() {
    let stage = Stage::set().await;
    let (first, second, third) = (stage.truth(0), stage.truth(1), stage.truth(2));
    let policy = |policy_version, leaf_index| Some(StoredAt { policy_version, leaf_index });
    let cases: Vec<(&str, Lie, &[&str])> = vec![
        ("what follows", second.clone(), &["1 a", "1 b"]),
        ("the same once more", first.clone(), &["refused REPLAY"]),
        ("the same elsewhere", Lie { offset: 2, ..first.clone() }, &["refused REPLAY"]),
        ("another in its place", Lie { offset: 0, ..second.clone() }, &["refused REWRITE"]),
        ("another across it", Lie { offset: 1, ..second.clone() }, &["refused REWRITE"]),
        ("offsets left out", Lie { offset: 5, ..second.clone() }, &["2..5 unexplained", "1 a", "1 b"]),
        ("a batch left out", third.clone(), &["2..4 unexplained", "2 a", "2 b"]),
        (
            "a batch left out and its offsets too",
            Lie { offset: 2, ..third.clone() },
            &["gap 2", "2 a", "2 b"],
        ),
        ("the end of all offsets", Lie { offset: u64::MAX - 1, ..second.clone() }, &["refused FORMAT"]),
        ("an earlier time", Lie { later_ms: -1, ..second.clone() }, &["refused TIME"]),
        ("an earlier policy", Lie { stored: policy(6, 1), ..second.clone() }, &["refused TIME"]),
        ("a time before its key", Lie { later_ms: -864_000_000, ..second.clone() }, &["refused BINDING"]),
        ("no place at all", Lie { stored: None, ..second.clone() }, &["refused FORMAT"]),
        (
            "another stream's",
            Lie { batch: stage.of_other_stream.clone(), stream: OTHER, ..second.clone() },
            &["refused BINDING"],
        ),
        (
            "another stream's, under this one's name",
            Lie { batch: stage.of_other_stream.clone(), ..second.clone() },
            &["refused BINDING"],
        ),
        (
            "another topic's",
            Lie { batch: stage.of_other_topic.clone(), ..second.clone() },
            &["refused BINDING"],
        ),
        ("records that it does not have", Lie { ranges: only(1, 2), ..second.clone() }, &["refused FORMAT"]),
        // Of a group's work some records may be handed out. History is whole.
        ("some of its records", Lie { ranges: only(0, 1), ..second.clone() }, &["refused FORMAT"]),
    ];
    for (what, lie, told) in cases {
        let mut scene = stage.scene().await;
        scene.deliver(&first).await;
        scene.expect(what, &["0 a", "0 b"]).await;
        scene.deliver(&lie).await;
        scene.expect(what, told).await;
        scene.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_broker_says_that_it_has_no_more_is_told_and_does_not_come_after_all() {
    let stage = Stage::set().await;
    let mut scene = stage.scene().await;
    scene.deliver(&stage.truth(0)).await;
    scene.skipped(2, 4, SkippedWhy::Trimmed).await;
    scene.skipped(0, 2, SkippedWhy::Damaged).await;
    scene.skipped(4, u64::MAX, SkippedWhy::Damaged).await;
    scene.deliver(&stage.truth(1)).await;
    let end = format!("4..{} damaged", u64::MAX);
    scene.expect("skipping", &["0 a", "0 b", "2..4 trimmed", &end, "refused REPLAY"]).await;
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_history_that_ends_too_early_has_not_ended() {
    let stage = Stage::set().await;
    for delivered in 0..=3 {
        let mut scene = stage.scene().await;
        for number in 0..delivered {
            scene.deliver(&stage.truth(number)).await;
        }
        let id = scene.id;
        scene.session.say(|wire| wire.close_subscription(id)).await;
        for number in 0..delivered {
            let (a, b) = (format!("{number} a"), format!("{number} b"));
            scene.expect("what came", &[&a, &b]).await;
        }
        let told = scene.told().await;
        assert_eq!(told == "end", delivered == 3, "after {delivered} of 3 batches: {told}");
        scene.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_reconnect_it_is_the_same_stream_and_goes_on_where_it_was_read_to() {
    let stage = Stage::set().await;
    let lies = [
        ("the same", BEGIN, vec!["1 a", "1 b"]),
        ("another stream", StreamStart { stream_id: OTHER, ..BEGIN }, vec!["closed"]),
        ("further on", StreamStart { offset: 4, ..BEGIN }, vec!["2..4 unexplained", "2 a"]),
        ("an end that comes sooner", StreamStart { end: 2, ..BEGIN }, vec!["closed"]),
    ];
    for (what, start, told) in lies {
        let mut scene = stage.scene().await;
        scene.deliver(&stage.truth(0)).await;
        scene.expect(what, &["0 a", "0 b"]).await;
        let Scene { client, session, mut replay, began_ms, .. } = scene;
        drop(session);
        let begun = async {
            let mut session = stage.evil.accept().await;
            let id = session.began(start).await;
            session.announce(stage.shop.binding()).await;
            (session, id)
        };
        let (session, id) = {
            let next = Box::pin(replay.try_next());
            tokio::select! {
                begun = begun => begun,
                next = next => panic!("{what}: {next:?}"),
            }
        };
        let mut scene = Scene { client, session, replay, id, began_ms };
        match what {
            "the same" => scene.deliver(&stage.truth(1)).await,
            "further on" => scene.deliver(&stage.truth(2)).await,
            "another stream" => {}
            _ => scene.session.say(|wire| wire.close_subscription(id)).await,
        }
        for expected in told {
            let found = scene.told().await;
            assert!(found.starts_with(expected), "{what}: {found}");
            if what == "another stream" {
                assert_eq!(found, format!("closed: {}", CloseReason::OtherStream));
            }
        }
        scene.end().await;
    }
}

/// FAILURES T63: words that cost the broker no credit fill no memory.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_words_that_cost_nothing_ends_the_connection() {
    let stage = Stage::set().await;
    let mut scene = stage.scene().await;
    let id = scene.id;
    for round in 0..200_u64 {
        scene
            .session
            .say(|wire| {
                for index in 0..1_000 {
                    let from = 3 * (1_000 * round + index);
                    let why = SkippedWhy::Damaged;
                    wire.skipped(&Skipped { subscription: id, why, from, to: from + 1 });
                }
            })
            .await;
    }
    scene.session.gone().await;
}
