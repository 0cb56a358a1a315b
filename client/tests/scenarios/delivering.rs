use bytes::Bytes;
use sealbus_client::{
    Bus, CloseReason, Code, DeliveryError, Event, Publisher, Rejection, RejectionCode, Subscription, Topic,
};
use sealbus_protocol::batch::{HEAD_LEN, PREAMBLE_LEN};

use crate::fake::{Fake, Say};
use crate::pki::Pki;
use crate::{PATIENCE, client, connected, event, payload};

/// A producer and a consumer, and a broker that keeps batches back for the test to deliver.
struct Scene {
    pki: Pki,
    fake: Fake,
    bus: Bus,
    publisher: Publisher,
    subscription: Subscription,
}

impl Scene {
    async fn new() -> Self {
        let pki = Pki::new();
        let fake = Fake::start(&pki).await;
        let producer = connected(&pki, &fake, "producer").await;
        let bus = connected(&pki, &fake, "consumer").await;
        let publisher = producer.publisher("a/b").await.unwrap();
        let subscription = bus.subscribe("a/+").await.unwrap();
        fake.state(|state| state.script.withhold = true);
        Self { pki, fake, bus, publisher, subscription }
    }

    /// Publishes a message, and hands its batch to the test.
    async fn batch(&self, payload: &str) -> Bytes {
        self.publisher.publish(payload).await.unwrap();
        self.fake.state(|state| state.accepted.last().unwrap().1.clone())
    }

    fn deliver(&self, batch: &Bytes) {
        self.deliver_on("a/b", batch);
    }

    fn deliver_on(&self, topic: &str, batch: &Bytes) {
        self.fake.say(&Say::Deliver { topic: Topic::parse(topic).unwrap(), batch: batch.clone() });
    }

    async fn error(&mut self) -> DeliveryError {
        let next = tokio::time::timeout(PATIENCE, self.subscription.next()).await.expect("something comes");
        next.expect("the stream goes on").expect_err("nothing is handed out")
    }

    async fn rejection(&mut self) -> Rejection {
        match self.error().await {
            DeliveryError::Rejected(rejection) => rejection,
            other => panic!("{other}"),
        }
    }
}

#[tokio::test]
async fn an_altered_byte_is_caught_wherever_it_is() {
    let mut scene = Scene::new().await;
    let first = scene.batch("first").await;
    scene.deliver(&first);
    assert_eq!(payload(&mut scene.subscription).await, "first");
    let batch = scene.batch("payload").await;
    let flip = |at: usize| {
        let mut bytes = batch.to_vec();
        bytes[at] ^= 1;
        Bytes::from(bytes)
    };
    // The payload, the signature, the time of creation.
    for at in [batch.len() - 1, PREAMBLE_LEN + 5, 167] {
        scene.deliver(&flip(at));
        assert_eq!(scene.rejection().await.code, RejectionCode::Signature, "byte {at}");
    }
    // The bus, the topic, the key, the format.
    for (at, code) in
        [(10, RejectionCode::Binding), (30, RejectionCode::Binding), (70, RejectionCode::Binding)]
    {
        scene.deliver(&flip(at));
        assert_eq!(scene.rejection().await.code, code, "byte {at}");
    }
    for at in [0, 4, 5, 157, HEAD_LEN] {
        scene.deliver(&flip(at));
        assert_eq!(scene.rejection().await.code, RejectionCode::Format, "byte {at}");
    }
    scene.deliver(&batch);
    assert_eq!(payload(&mut scene.subscription).await, "payload", "the stream goes on");
}

#[tokio::test]
async fn a_replayed_batch_is_caught() {
    let mut scene = Scene::new().await;
    let mut events = scene.bus.events();
    let batch = scene.batch("once").await;
    scene.deliver(&batch);
    assert_eq!(payload(&mut scene.subscription).await, "once");
    scene.deliver(&batch);
    let rejection = scene.rejection().await;
    assert_eq!(rejection.code, RejectionCode::Replay);
    assert_eq!(rejection.code.as_str(), "REPLAY");
    let told = event(&mut events, |event| matches!(event, Event::Rejected(_))).await;
    assert_eq!(told, Event::Rejected(rejection));
}

/// A producer that lost its acknowledgement sends the same bytes to a broker that was restarted and does not know them.
#[tokio::test]
async fn what_comes_again_after_a_reconnect_is_passed_over_and_is_no_forgery() {
    let mut scene = Scene::new().await;
    let mut events = scene.bus.events();
    let (first, second) = (scene.batch("first").await, scene.batch("second").await);
    scene.deliver(&first);
    assert_eq!(payload(&mut scene.subscription).await, "first");
    scene.fake.say(&Say::Cut);
    event(&mut events, |event| matches!(event, Event::Connected { .. })).await;
    // When this one is in effect, the one that was made anew before it is.
    drop(scene.bus.subscribe("fence").await.unwrap());
    scene.deliver(&first);
    scene.deliver(&second);
    assert_eq!(payload(&mut scene.subscription).await, "second");
    scene.deliver(&first);
    assert_eq!(
        scene.rejection().await.code,
        RejectionCode::Replay,
        "the sequence has moved on this connection"
    );
}

#[tokio::test]
async fn a_batch_moved_to_another_topic_is_caught() {
    let mut scene = Scene::new().await;
    let batch = scene.batch("here").await;
    scene.deliver_on("a/c", &batch);
    let rejection = scene.rejection().await;
    assert_eq!((rejection.code, rejection.topic.as_str()), (RejectionCode::Binding, "a/c"));
    assert!(rejection.reason.contains("another topic"), "{rejection}");
}

#[tokio::test]
async fn a_key_that_nothing_binds_is_refused() {
    let mut scene = Scene::new().await;
    scene.fake.state(|state| state.script.hide_bindings = true);
    let batch = scene.batch("whose").await;
    scene.deliver(&batch);
    let rejection = scene.rejection().await;
    assert_eq!(rejection.code, RejectionCode::Binding);
    assert!(rejection.reason.contains("no such key is known here"), "{rejection}");
}

#[tokio::test]
async fn a_key_that_was_not_announced_is_asked_for() {
    let mut scene = Scene::new().await;
    scene.fake.state(|state| state.script.hide_bindings = true);
    let batch = scene.batch("asked").await;
    scene.deliver(&batch);
    // Nobody reads yet, so nobody has asked.
    tokio::task::yield_now().await;
    scene.fake.state(|state| state.script.hide_bindings = false);
    assert_eq!(payload(&mut scene.subscription).await, "asked");
}

#[tokio::test]
async fn a_producer_that_leads_to_another_root_is_refused() {
    let mut scene = Scene::new().await;
    let foreign = client(&scene.pki, &scene.fake, "x").identity(scene.pki.foreign_identity("producer"));
    let foreign = foreign.connect().await.expect("this broker believes it");
    foreign.publisher("a/b").await.unwrap().publish("believe me").await.unwrap();
    let batch = scene.fake.state(|state| state.accepted.last().unwrap().1.clone());
    scene.deliver(&batch);
    let rejection = scene.rejection().await;
    assert_eq!(rejection.code, RejectionCode::Binding);
    assert!(rejection.reason.contains("spiffe://bus.example/producer"), "{rejection}");
}

#[tokio::test]
async fn a_gap_is_reported_with_its_exact_size() {
    let mut scene = Scene::new().await;
    let first = scene.batch("0").await;
    for index in 1..4 {
        scene.batch(&index.to_string()).await;
    }
    let last = scene.batch("4").await;
    scene.deliver(&first);
    scene.deliver(&last);
    assert_eq!(payload(&mut scene.subscription).await, "0");
    let DeliveryError::Gap { missed: 3, producer, .. } = scene.error().await else {
        panic!("three are missing")
    };
    assert_eq!(producer.as_str(), "spiffe://bus.example/producer");
    assert_eq!(payload(&mut scene.subscription).await, "4");
}

#[tokio::test]
async fn lag_is_told_in_its_place_and_explains_the_gap() {
    let mut scene = Scene::new().await;
    let first = scene.batch("0").await;
    scene.batch("1").await;
    scene.batch("2").await;
    let last = scene.batch("3").await;
    scene.deliver(&first);
    scene.fake.say(&Say::Lagged(2));
    scene.deliver(&last);
    assert_eq!(payload(&mut scene.subscription).await, "0");
    assert_eq!(scene.error().await, DeliveryError::Lagged { missed: 2 });
    assert_eq!(payload(&mut scene.subscription).await, "3", "the same loss is not told twice");
}

#[tokio::test]
async fn what_was_published_during_a_reconnect_shows_as_a_gap() {
    let mut scene = Scene::new().await;
    let mut events = scene.bus.events();
    let first = scene.batch("0").await;
    scene.deliver(&first);
    assert_eq!(payload(&mut scene.subscription).await, "0");
    scene.fake.say(&Say::Cut);
    event(&mut events, |event| matches!(event, Event::Connected { .. })).await;
    drop(scene.bus.subscribe("fence").await.unwrap());
    scene.batch("1").await;
    let last = scene.batch("2").await;
    scene.deliver(&last);
    assert!(matches!(scene.error().await, DeliveryError::Gap { missed: 1, .. }));
    assert_eq!(payload(&mut scene.subscription).await, "2");
}

#[tokio::test]
async fn a_policy_change_marks_its_place_among_the_messages() {
    let mut scene = Scene::new().await;
    let mut events = scene.bus.events();
    let (before, after) = (scene.batch("before").await, scene.batch("after").await);
    scene.deliver(&before);
    scene.fake.say(&Say::Generation(2));
    scene.deliver(&after);
    let generations = [(); 2].map(|()| 0);
    for (expected, _) in (1..).zip(generations) {
        assert_eq!(scene.subscription.next().await.unwrap().unwrap().generation(), expected);
    }
    let told = event(&mut events, |event| matches!(event, Event::PolicyChanged { .. })).await;
    assert!(matches!(told, Event::PolicyChanged { generation: 2, version: 2, .. }));
    assert_eq!(scene.bus.policy().generation, 2);
}

#[tokio::test]
async fn a_refused_filter_is_an_error_and_a_narrowed_one_says_so() {
    let pki = Pki::new();
    let fake = Fake::start(&pki).await;
    let bus = connected(&pki, &fake, "consumer").await;
    let mut events = bus.events();
    fake.state(|state| {
        state.script.denied.insert("secret/#".into());
        state.script.narrowed = true;
    });
    assert_eq!(bus.subscribe("secret/#").await.unwrap_err().code(), Some(Code::Denied));
    assert!(bus.subscribe("a/#").await.unwrap().narrowed());
    event(&mut events, |event| matches!(event, Event::Narrowed { .. })).await;
    assert!(bus.subscribe("a/#/b").await.is_err());
}

#[tokio::test]
async fn a_subscription_that_is_refused_after_a_reconnect_ends_with_the_reason() {
    let mut scene = Scene::new().await;
    scene.fake.state(|state| assert!(state.script.denied.insert("a/+".into())));
    scene.fake.say(&Say::Cut);
    let DeliveryError::Closed(reason) = scene.error().await else { panic!("it is final") };
    assert_eq!(reason.code(), Some(Code::Denied));
    assert!(scene.subscription.next().await.is_none());
}

#[tokio::test]
async fn a_subscription_that_the_broker_closes_ends() {
    let mut scene = Scene::new().await;
    scene.fake.say(&Say::CloseSubscriptions);
    assert_eq!(scene.error().await, DeliveryError::Closed(CloseReason::ByBroker));
}

#[tokio::test]
async fn more_than_the_credit_flows_as_it_is_consumed() {
    let pki = Pki::new();
    let fake = Fake::start(&pki).await;
    let producer = client(&pki, &fake, "producer").batch_bytes_max(16 * 1_024).connect().await.unwrap();
    let bus = client(&pki, &fake, "consumer").credit_bytes(64 * 1_024).connect().await.unwrap();
    let mut subscription = bus.subscribe("#").await.unwrap();
    let publisher = producer.publisher("a").await.unwrap();
    for index in 0..200_u32 {
        // One by one, and read one by one: this broker pays no heed to credit, so the test keeps within it.
        publisher.publish(vec![0; 5_000]).await.unwrap();
        let message = subscription.next().await.unwrap().unwrap();
        assert_eq!(message.sequence(), u64::from(index));
    }
}

#[tokio::test]
async fn messages_are_slices_of_their_batch() {
    let mut scene = Scene::new().await;
    let batch = scene.batch("slice").await;
    scene.deliver(&batch);
    let message = scene.subscription.next().await.unwrap().unwrap();
    let again = message.clone();
    assert_eq!(message.payload().as_ptr(), again.payload_bytes().as_ptr());
    assert_eq!(message.payload_bytes(), "slice");
    assert!(!format!("{message:?}").contains("slice"), "content is not printed");
}
