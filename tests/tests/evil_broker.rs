//! A broker that was taken over: it has the real certificate and everything that ever passed through it, and still
//! cannot forge, alter, move or replay a message. FAILURES T11, T54 to T56, T63.

#![allow(clippy::panic, reason = "what helps a test fails the test")]

use std::time::Duration;

use bytes::Bytes;
use sealbus_client::{
    Bus, ConnectError, DeliveryError, Event, Message, Reconnect, RejectionCode, Subscription,
};
use sealbus_protocol::batch::HEAD_LEN;
use sealbus_protocol::frame::{FrameType, SubscriptionId};
use sealbus_protocol::ids::BusId;
use sealbus_protocol::session::ClientEvent;
use sealbus_tests::producer::record;
use sealbus_tests::wait::within;
use sealbus_tests::{
    Authority, Credential, EvilBroker, EvilSession, Producer, RawSession, TestBus, allow, sealbus_program,
};

const TOPIC: &str = "flights/JFK/B6";

/// What a broker sees of a producer: its key binding, and its batches.
struct Captured {
    binding: Bytes,
    batches: Vec<Bytes>,
}

/// Lets a real broker pass some batches on, and keeps what it passed on.
async fn capture(bus: &TestBus, producer: &mut Producer, credential: &Credential) -> Captured {
    bus.write_policy(&(allow("in", "board", "publish", "#") + &allow("out", "tap", "subscribe", "#")));
    let broker = bus.serve(sealbus_program!()).await;
    let tap = bus.credential("tap");
    let listener = Producer::new(bus.bus_id(), &bus.principal("tap"), &tap);
    let (mut session, _) =
        RawSession::open(bus, broker.address(), &tap, &listener).await.expect("the tap is a member");
    session.subscribe("#", 1 << 30).await.expect("the tap may listen");
    let (mut sender, _) =
        RawSession::open(bus, broker.address(), credential, producer).await.expect("the board is a member");
    let alias = sender.open_topic(TOPIC).await.expect("the board may publish");
    let mut captured = Captured { binding: Bytes::new(), batches: Vec::new() };
    for number in 0..6 {
        let payloads = [format!("departure {number}, on time"), format!("departure {number}, delayed")];
        let batch = producer.batch(TOPIC, &[payloads[0].as_bytes(), payloads[1].as_bytes()]);
        sender.publish(alias, batch.clone()).await.expect("the batch is good");
        captured.batches.push(batch);
    }
    for sent in &captured.batches {
        loop {
            match session.next().await.expect("the tap listens") {
                ClientEvent::Binding(binding) => captured.binding = binding.binding,
                ClientEvent::Deliver(delivered) => {
                    assert_eq!(delivered.batch, *sent, "a broker passes on what it was sent, byte for byte");
                    break;
                }
                _ => {}
            }
        }
    }
    assert_eq!(captured.binding, *producer.binding());
    captured
}

/// The stage: a bus whose broker was taken over, and a consumer that does not know.
struct Stage {
    bus: TestBus,
    board: Producer,
    captured: Captured,
    evil: EvilBroker,
}

/// One consumer on the stage.
struct Scene {
    subscription: Subscription,
    session: EvilSession,
    id: SubscriptionId,
    client: Bus,
}

impl Stage {
    async fn set() -> Self {
        let bus = TestBus::new();
        let credential = bus.credential("board");
        let mut board = Producer::new(bus.bus_id(), &bus.principal("board"), &credential);
        let captured = capture(&bus, &mut board, &credential).await;
        let evil = EvilBroker::start(&bus).await;
        Self { bus, board, captured, evil }
    }

    /// A consumer that has subscribed to everything, and was sent the board's key binding.
    async fn scene(&self) -> Scene {
        let mut scene = self.scene_without_binding().await;
        scene.session.announce(&self.captured.binding).await;
        scene
    }

    async fn scene_without_binding(&self) -> Scene {
        let connecting = Box::pin(self.client());
        let (client, mut session) = tokio::join!(connecting, Box::pin(self.evil.accept()));
        let client = client.expect("the evil broker has the broker's certificate");
        let (subscription, id) =
            tokio::join!(Box::pin(client.subscribe("#")), Box::pin(session.subscribed()));
        Scene { subscription: subscription.expect("it is granted"), session, id, client }
    }

    async fn client(&self) -> Result<Bus, ConnectError> {
        let quickly =
            Reconnect { initial: Duration::from_millis(1), max: Duration::from_millis(5), attempts: None };
        let builder = sealbus_client::builder()
            .server(self.evil.address().to_string())
            .identity(self.bus.client_identity("display"))
            .trust(self.bus.trust())
            .reconnect(quickly);
        within("connecting", builder.connect()).await
    }
}

impl Scene {
    async fn deliver(&mut self, batch: &Bytes) {
        self.session.deliver(self.id, TOPIC, batch).await;
    }

    async fn next(&mut self) -> Result<Message, DeliveryError> {
        let delivery = async {
            tokio::select! {
                delivery = self.subscription.next() => delivery,
                () = self.session.know_no_keys() => None,
            }
        };
        within("a delivery", delivery).await.expect("the subscription goes on")
    }

    /// Ends the client, so that it does not come back in the place of the next.
    async fn end(self) {
        let Self { client, session, subscription, .. } = self;
        let _ = within("the client closes", client.close()).await;
        drop((session, subscription));
    }

    async fn accepts(&mut self, batch: &Bytes, first: &str) {
        self.deliver(batch).await;
        self.receives(first).await;
        self.next().await.expect("the second message of the batch");
    }

    async fn receives(&mut self, payload: &str) {
        let message = self.next().await.unwrap_or_else(|error| panic!("{payload:?} was refused: {error}"));
        assert_eq!(message.payload(), payload.as_bytes());
        assert_eq!(message.producer().as_str(), "spiffe://bus.test/board");
        assert_eq!(message.topic().as_str(), TOPIC);
    }

    async fn rejects(&mut self, what: &str, batch: &Bytes, code: RejectionCode) {
        self.deliver(batch).await;
        self.has_rejected(what, &[code]).await;
    }

    async fn has_rejected(&mut self, what: &str, codes: &[RejectionCode]) {
        match self.next().await {
            Err(DeliveryError::Rejected(rejection)) => {
                assert!(codes.contains(&rejection.code), "{what}: {rejection}");
                assert!(!rejection.reason.is_empty(), "{what}");
            }
            Err(other) => panic!("{what}: {other}"),
            Ok(message) => panic!("{what}: handed out as {message:?}"),
        }
    }
}

fn first(number: u32) -> String {
    format!("departure {number}, on time")
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_that_are_passed_on_as_they_were_are_accepted() {
    let stage = Stage::set().await;
    let mut scene = stage.scene().await;
    for (number, batch) in (0..).zip(&stage.captured.batches) {
        scene.accepts(batch, &first(number)).await;
    }
}

/// FAILURES T56: every byte of a batch is signed, hashed, or is the signature.
#[tokio::test(flavor = "multi_thread")]
async fn a_batch_with_any_byte_altered_is_refused() {
    let stage = Stage::set().await;
    let mut scene = stage.scene().await;
    let batch = &stage.captured.batches[0];
    for at in 0..batch.len() {
        let mut altered = batch.to_vec();
        altered[at] ^= 0x20;
        scene.deliver(&altered.into()).await;
        let codes =
            [RejectionCode::Format, RejectionCode::Binding, RejectionCode::Signature, RejectionCode::Seal];
        scene.has_rejected(&format!("byte {at}"), &codes).await;
    }
    // By where it is, the code is the one that a person would look for.
    for (what, at, code) in [
        ("the magic", 0, RejectionCode::Format),
        ("the bus", 8, RejectionCode::Binding),
        ("the topic", 24, RejectionCode::Binding),
        ("the key", 64, RejectionCode::Binding),
        ("the time", 167, RejectionCode::Signature),
        ("the content hash", 264, RejectionCode::Signature),
        ("the signature", 296, RejectionCode::Signature),
        ("the payload", batch.len() - 1, RejectionCode::Signature),
    ] {
        let mut altered = batch.to_vec();
        altered[at] ^= 1;
        scene.rejects(what, &altered.into(), code).await;
    }
    for (what, bytes) in [
        ("nothing", Bytes::new()),
        ("half", batch.slice(..batch.len() / 2)),
        ("a byte less", batch.slice(..batch.len() - 1)),
        ("a byte more", [&batch[..], b"x"].concat().into()),
        ("without its signature", [&batch[..HEAD_LEN - 64], &batch[HEAD_LEN..]].concat().into()),
    ] {
        scene.rejects(what, &bytes, RejectionCode::Format).await;
    }
    scene.accepts(batch, &first(0)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_accepted_once_and_in_its_order() {
    let stage = Stage::set().await;
    let batches = &stage.captured.batches;
    let mut scene = stage.scene().await;
    scene.accepts(&batches[0], &first(0)).await;
    scene.rejects("the same again", &batches[0], RejectionCode::Replay).await;
    scene.accepts(&batches[1], &first(1)).await;
    scene.rejects("an old one", &batches[0], RejectionCode::Replay).await;
    scene.rejects("the last one", &batches[1], RejectionCode::Replay).await;
    // The second before the first of two: one gap, and no way back.
    scene.deliver(&batches[3]).await;
    match scene.next().await {
        Err(DeliveryError::Gap { missed, producer, .. }) => {
            assert_eq!((missed, producer), (2, stage.bus.principal("board")));
        }
        other => panic!("a gap was expected: {other:?}"),
    }
    scene.receives(&first(3)).await;
    scene.next().await.unwrap();
    scene.rejects("the one that was left out", &batches[2], RejectionCode::Replay).await;
    scene.accepts(&batches[4], &first(4)).await;
}

/// What is held back is missed, with its count.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_withheld_is_a_gap_with_its_count() {
    let stage = Stage::set().await;
    let batches = &stage.captured.batches;
    let mut scene = stage.scene().await;
    scene.accepts(&batches[0], &first(0)).await;
    scene.deliver(&batches[5]).await;
    match scene.next().await {
        Err(DeliveryError::Gap { topic, producer, missed }) => {
            assert_eq!((topic.as_str(), producer.as_str(), missed), (TOPIC, "spiffe://bus.test/board", 8));
        }
        other => panic!("a gap was expected: {other:?}"),
    }
    scene.receives(&first(5)).await;
    scene.end().await;

    // A lag that is told explains as much as it says, and is not reported twice.
    let mut scene = stage.scene().await;
    scene.accepts(&batches[0], &first(0)).await;
    scene.session.lagged(scene.id, 4).await;
    match scene.next().await {
        Err(DeliveryError::Lagged { missed: 4 }) => {}
        other => panic!("a lag was expected: {other:?}"),
    }
    scene.accepts(&batches[3], &first(3)).await;
    scene.end().await;

    // One that tells less than is missing hides nothing.
    let mut scene = stage.scene().await;
    scene.accepts(&batches[0], &first(0)).await;
    scene.session.lagged(scene.id, 1).await;
    match scene.next().await {
        Err(DeliveryError::Lagged { missed: 1 }) => {}
        other => panic!("a lag was expected: {other:?}"),
    }
    scene.deliver(&batches[3]).await;
    match scene.next().await {
        Err(DeliveryError::Gap { missed: 3..=4, .. }) => {}
        other => panic!("a gap was expected: {other:?}"),
    }
}

/// FAILURES T55, T56.
#[tokio::test(flavor = "multi_thread")]
async fn a_batch_of_another_topic_or_bus_is_refused() {
    let mut stage = Stage::set().await;
    let mut scene = stage.scene().await;
    for topic in ["flights/JFK/DL", "flights", "flights/JFK/B6/x", "alarms"] {
        scene.session.deliver(scene.id, topic, &stage.captured.batches[0]).await;
        scene.has_rejected(topic, &[RejectionCode::Binding]).await;
    }
    // The same producer on another bus, with the same key.
    let context = stage.board.context.clone();
    stage.board.context.bus_id = BusId::new([3; 16]);
    let elsewhere = stage.board.batch("elsewhere", &[b"x"]);
    stage.board.context = context;
    scene.session.deliver(scene.id, "elsewhere", &elsewhere).await;
    scene.has_rejected("another bus", &[RejectionCode::Binding]).await;
    scene.accepts(&stage.captured.batches[0], &first(0)).await;
}

/// A consumer of one thing is not fed another, however well signed.
#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_was_not_asked_for_is_refused() {
    let mut stage = Stage::set().await;
    let connecting = Box::pin(stage.client());
    let (client, mut session) = tokio::join!(connecting, Box::pin(stage.evil.accept()));
    let client = client.expect("the evil broker has the broker's certificate");
    let asked = Box::pin(client.subscribe("flights/JFK/+"));
    let (subscription, id) = tokio::join!(asked, Box::pin(session.subscribed()));
    let subscription = subscription.expect("it is granted");
    session.announce(&stage.captured.binding).await;
    let mut scene = Scene { subscription, session, id, client };
    for topic in ["flights/EWR/B6", "flights", "flights/JFK", "flights/JFK/B6/1"] {
        let other = stage.board.batch(topic, &[b"not asked for"]);
        scene.session.deliver(id, topic, &other).await;
        scene.has_rejected(topic, &[RejectionCode::Binding]).await;
    }
    scene.accepts(&stage.captured.batches[0], &first(0)).await;
}

/// Insiders have good certificates too, for themselves.
#[tokio::test(flavor = "multi_thread")]
async fn another_member_cannot_speak_as_the_producer() {
    let stage = Stage::set().await;
    let mut scene = stage.scene().await;
    let credential = stage.bus.credential("mallory");
    let mallory = Producer::new(stage.bus.bus_id(), &stage.bus.principal("mallory"), &credential);
    scene.session.announce(mallory.binding()).await;
    let batch = &stage.captured.batches[0];
    let body: Bytes = record(&[], b"departure 0, cancelled").into();

    let forged = mallory
        .resign(batch, &body, |preamble| preamble.content = sealbus_protocol::batch::Content::Messages(1));
    scene.rejects("the board's name, mallory's signature", &forged, RejectionCode::Signature).await;

    // In its own name it may say it; the consumer sees whose word it is.
    let own = mallory.resign(batch, &body, |preamble| {
        preamble.content = sealbus_protocol::batch::Content::Messages(1);
        preamble.kid = mallory.context.kid;
    });
    scene.deliver(&own).await;
    let message = scene.next().await.unwrap();
    assert_eq!(message.producer().as_str(), "spiffe://bus.test/mallory");
    scene.accepts(batch, &first(0)).await;
}

/// FAILURES T34: a broker that invents producers.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_believed_only_with_a_binding_to_our_own_roots() {
    let stage = Stage::set().await;
    let (bus, board) = (&stage.bus, stage.bus.principal("board"));
    let foreign = Authority::new("authority of the bus under test").client(&board);
    let expired = bus.authority().client_with(|parameters| {
        parameters.subject_alt_names.push(sealbus_tests::pki::uri(board.as_str()));
        parameters.not_after = sealbus_tests::pki::seconds_from_now(-60);
    });
    let of_server = bus.broker_credential().clone();
    let mallory = bus.credential("mallory");
    let self_signed = sealbus_tests::pki::self_signed(board.as_str());
    for (what, credential) in [
        ("a foreign authority", &foreign),
        ("a certificate that has ended", &expired),
        ("the broker's own certificate", &of_server),
        ("another member's certificate", &mallory),
        ("a certificate that signed itself", &self_signed),
        ("the authority's own certificate", &bus.authority().own_credential()),
    ] {
        let mut liar = Producer::new(bus.bus_id(), &board, credential);
        let mut scene = stage.scene_without_binding().await;
        scene.session.announce(liar.binding()).await;
        let batch = liar.batch(TOPIC, &[b"departure 0, cancelled"]);
        scene.rejects(what, &batch, RejectionCode::Binding).await;
        // A key that was refused does not stand in the way of the true one.
        scene.session.announce(&stage.captured.binding).await;
        scene.accepts(&stage.captured.batches[0], &first(0)).await;
        scene.end().await;
    }
    // No binding at all, and one of which any byte was altered.
    let mut scene = stage.scene_without_binding().await;
    scene.rejects("no binding", &stage.captured.batches[0], RejectionCode::Binding).await;
    scene.end().await;
    let binding = &stage.captured.binding;
    for at in (0..binding.len()).step_by(7) {
        let mut altered = binding.to_vec();
        altered[at] ^= 1;
        let mut scene = stage.scene_without_binding().await;
        scene.session.announce(&altered.into()).await;
        scene
            .rejects(&format!("byte {at} of the binding"), &stage.captured.batches[0], RejectionCode::Binding)
            .await;
        scene.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_batches_for_one_place_are_the_producers_fault_and_told() {
    let stage = Stage::set().await;
    let mut scene = stage.scene().await;
    let batch = &stage.captured.batches[0];
    scene.accepts(batch, &first(0)).await;
    let body: Bytes = [record(&[], b"one"), record(&[], b"two")].concat().into();
    let second = stage.board.resign(batch, &body, |_| {});
    scene.rejects("a second batch for one place", &second, RejectionCode::Equivocation).await;
    let unchained = stage.board.resign(&stage.captured.batches[1], &body, |preamble| {
        preamble.prev = sealbus_protocol::ids::PreambleDigest::new([1; 32]);
    });
    scene.rejects("next by number and of another chain", &unchained, RejectionCode::Chain).await;
    scene.accepts(&stage.captured.batches[1], &first(1)).await;
}

/// FAILURES T63: whatever a broker says, the client neither panics nor forgets: it tells, and connects anew.
#[tokio::test(flavor = "multi_thread")]
async fn frames_that_are_malformed_or_not_asked_for_end_the_connection_and_not_the_client() {
    let stage = Stage::set().await;
    let Scene { mut subscription, mut session, mut id, client } = stage.scene().await;
    let mut events = client.events();
    let frame = |kind: u8, payload: &[u8]| {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&[kind, 0, 0, 0], &length[..], payload].concat()
    };
    let mut lies: Vec<(String, Vec<u8>)> = Vec::new();
    for kind in 0..=0x1c_u8 {
        lies.push((format!("three bytes as type {kind:#04x}"), frame(kind, &[1, 2, 3])));
        lies.push((format!("4 GiB of type {kind:#04x}"), vec![kind, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]));
        lies.push((format!("reserved bytes of type {kind:#04x}"), vec![kind, 0, 1, 1, 0, 0, 0, 0]));
    }
    let ones = [1; 64];
    lies.extend([
        ("ACK of nothing".to_owned(), frame(FrameType::Ack as u8, &[&ones[..4], &[0; 20]].concat())),
        ("READY of nothing".to_owned(), frame(FrameType::Ready as u8, &[&ones[..8], &[0; 12]].concat())),
        ("LAGGED of nothing".to_owned(), frame(FrameType::Lagged as u8, &[&[9; 4], &ones[..8]].concat())),
        (
            "a delivery to nobody".to_owned(),
            frame(FrameType::Deliver as u8, &[&[9; 4], &[0; 24][..]].concat()),
        ),
        ("CLOSED of nothing".to_owned(), frame(FrameType::Closed as u8, &[0, 0, 0, 1, 9, 9, 9, 9])),
        ("a flag".to_owned(), vec![FrameType::Deliver as u8, 0x80, 0, 0, 0, 0, 0, 0]),
    ]);
    for (what, bytes) in lies {
        session.send(&bytes).await;
        within(&what, session.gone()).await;
        // The client says so, comes back, and makes its subscription anew.
        let told = async {
            loop {
                if let Event::Disconnected { reason } = events.next().await.expect("the events go on") {
                    return reason;
                }
            }
        };
        let reason = within(&what, told).await;
        assert!(!reason.is_empty(), "{what}");
        session = within(&what, stage.evil.accept()).await;
        id = within(&what, session.subscribed()).await;
    }
    session.announce(&stage.captured.binding).await;
    session.deliver(id, TOPIC, &stage.captured.batches[0]).await;
    let message = within("a good message", subscription.next()).await.unwrap().unwrap();
    assert_eq!(message.payload(), first(0).as_bytes());
}

/// FAILURES T11: the name and the authority are checked on every connection.
#[tokio::test(flavor = "multi_thread")]
async fn a_broker_of_another_name_or_authority_is_not_spoken_to() {
    let mut stage = Stage::set().await;
    let foreign = Authority::new("authority of the bus under test").broker(&["localhost", "127.0.0.1"]);
    let elsewhere = stage.bus.authority().broker(&["elsewhere.test", "127.0.0.2"]);
    let member = stage.bus.credential("mallory");
    let impostors =
        [("a foreign authority's", &foreign), ("another host's", &elsewhere), ("a member's", &member)];
    for (what, credential) in impostors {
        let evil = EvilBroker::start_as(&stage.bus, credential).await;
        let server = evil.address().to_string();
        let connecting =
            sealbus_client::connect(&server, stage.bus.client_identity("display"), stage.bus.trust());
        let (connected, accepted) = tokio::join!(within(what, connecting), evil.accept_tls());
        assert!(matches!(connected, Err(ConnectError::Tls { .. })), "{what}: {connected:?}");
        assert!(accepted.is_err(), "{what}: nothing was said after the handshake");
    }
    // The same when a connection that was good is made anew.
    let Scene { mut subscription, mut session, client, .. } = stage.scene().await;
    for (what, credential) in impostors {
        stage.evil.show(&stage.bus, credential);
        drop(session);
        for _ in 0..3 {
            assert!(stage.evil.accept_tls().await.is_err(), "{what}: the client spoke to an impostor");
        }
        stage.evil.show(&stage.bus, &stage.bus.broker_credential().clone());
        session = stage.accept_after_impostors().await;
        let id = session.subscribed().await;
        session.announce(&stage.captured.binding).await;
        let fresh = stage.board.batch(TOPIC, &[what.as_bytes()]);
        session.deliver(id, TOPIC, &fresh).await;
        loop {
            match within(what, subscription.next()).await.unwrap() {
                Ok(message) => {
                    assert_eq!(message.payload(), what.as_bytes());
                    break;
                }
                // What the board published while nobody listened.
                Err(DeliveryError::Gap { .. }) => {}
                Err(error) => panic!("{what}: {error}"),
            }
        }
    }
    drop(client);
}

impl Stage {
    /// The next connection that gets through; attempts that met the impostor may still be in the queue.
    async fn accept_after_impostors(&self) -> EvilSession {
        loop {
            if let Ok(stream) = self.evil.accept_tls().await {
                let mut session = EvilSession::new(stream);
                let hello = session.hello().await;
                session.welcome(&hello).await;
                return session;
            }
        }
    }
}
