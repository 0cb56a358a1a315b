//! Real departures into a stream whose broker is killed twice meanwhile: each is there, once, in order, as it was sent.

#![allow(clippy::panic, reason = "what helps a test fails the test")]

use std::collections::{HashMap, HashSet};
use std::path::Path;

use sealbus_client::Bus;
use sealbus_tests::flights::{self, TOPIC_TEMPLATE};
use sealbus_tests::reading::checkpoint_of;
use sealbus_tests::wait::{eventually_async, within};
use sealbus_tests::{BrokerProcess, OPERATOR, TestBus, allow, allow_stream, sealbus_program, stream};
use serde_json::Value;

const FLIGHTS: &str = "f11907000000000000000000000000f1";

/// Where the broker is killed: at the first look that finds the stream beyond.
const KILLED_BEYOND: [u64; 2] = [4_000, 14_000];

fn policy() -> String {
    stream("flights", FLIGHTS, "flights/#", "")
        + &allow("in", "board", "publish", "flights/+/+")
        + &allow_stream("out", "display", "replay", "flights")
}

/// Waits until the stream has grown beyond an offset, and says where it ends.
async fn grown_beyond(operator: &Bus, offset: u64) -> u64 {
    eventually_async("the stream grows", async || {
        let streams = within("the streams", operator.streams(Some("flights"))).await.ok()?;
        streams.first().map(|stream| stream.end).filter(|end| *end > offset)
    })
    .await
}

async fn kill_beyond(bus: &TestBus, program: &Path, mut broker: BrokerProcess, offset: u64) -> BrokerProcess {
    let operator = bus.connect(broker.address(), OPERATOR).await;
    let end = grown_beyond(&operator, offset).await;
    assert!(end < 27_004, "it is killed in the middle, not at {end}");
    broker.kill();
    bus.serve(program).await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_flight_of_a_month_survives_a_broker_that_is_killed_twice() {
    let program = sealbus_program!();
    let bus = TestBus::new();
    bus.write_policy(&policy());
    let mut broker = bus.serve(program).await;
    bus.listen_on(broker.address().port());
    let path = flights::january(bus.folder());
    let sent = flights::read(&path);
    assert_eq!(sent.len(), 27_004);

    let file = path.to_str().expect("the path is UTF-8");
    let arguments = ["pub", "--jsonl", file, "--topic-template", TOPIC_TEMPLATE];
    let mut board = bus.run(program, broker.address(), "board", &arguments);
    for offset in KILLED_BEYOND {
        broker = kill_beyond(&bus, program, broker, offset).await;
    }
    assert!(board.await_end().await.success(), "{}", board.stderr());
    let said = board.stderr();
    assert_eq!(said.lines().last(), Some("27004 acknowledged"), "{said}");

    let mut display = bus.run(
        program,
        broker.address(),
        "display",
        &["replay", "flights", "--from", "earliest", "-o", "jsonl"],
    );
    assert!(display.await_end().await.success(), "{}", display.stderr());
    let lines = sealbus_tests::eventually("all lines are read", || {
        let lines = display.stdout_lines();
        (lines.len() >= sent.len()).then_some(lines)
    })
    .await;
    assert_eq!(lines.len(), sent.len());

    let mut of_topic: HashMap<&str, Vec<&Value>> = HashMap::new();
    for (topic, flight) in &sent {
        of_topic.entry(topic).or_default().push(flight);
    }
    let mut places: HashMap<String, usize> = HashMap::new();
    let mut distinct = HashSet::new();
    for (offset, line) in lines.iter().enumerate() {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert_eq!(line["offset"].as_u64(), u64::try_from(offset).ok(), "offsets are dense: {line}");
        assert_eq!(line["producer"], "spiffe://bus.test/board");
        let topic = line["topic"].as_str().expect("a line names its topic");
        let place = places.entry(topic.to_owned()).or_default();
        let expected = of_topic.get(topic).and_then(|flights| flights.get(*place));
        assert_eq!(Some(&&line["json"]), expected, "{topic}: in order, none lost, none twice");
        assert!(distinct.insert((topic.to_owned(), *place)));
        *place += 1;
    }
    assert_eq!((places.len(), distinct.len()), (of_topic.len(), sent.len()));

    let display = bus.connect(broker.address(), "display").await;
    let streams = bus.connect(broker.address(), OPERATOR).await.streams(Some("flights")).await.unwrap();
    let checkpoint = checkpoint_of(&display, "flights", streams[0].records).await;
    assert_eq!(checkpoint.size(), streams[0].records, "each batch is in the signed history, once");
}

/// Nothing is acknowledged twice or under two offsets, seen from within the client: what receipts say is what is kept.
#[tokio::test(flavor = "multi_thread")]
async fn receipts_name_the_offsets_under_which_a_day_of_flights_is_found_after_two_kills() {
    let program = sealbus_program!();
    let bus = TestBus::new();
    bus.write_policy(&policy());
    let mut broker = bus.serve(program).await;
    bus.listen_on(broker.address().port());
    let sent = flights::read(&flights::first_of_january());
    let board = bus.connect(broker.address(), "board").await;
    let mut publishers = HashMap::new();
    for (topic, _) in &sent {
        if !publishers.contains_key(topic.as_str()) {
            let publisher = within("opening", board.publisher(topic)).await.expect("the topic opens");
            publishers.insert(topic.as_str(), publisher);
        }
    }
    let mut said = HashMap::new();
    for (index, (topic, flight)) in sent.iter().enumerate() {
        let text = flight.to_string();
        let publisher = &publishers[topic.as_str()];
        let receipt = publisher.enqueue_when_ready(text.clone()).await.expect("there is room");
        if index == 100 || index == 600 {
            // This one is on its way, or not yet, or durable already.
            broker.kill();
            broker = bus.serve(program).await;
        }
        let receipt = within("publishing", receipt).await.expect("it is kept");
        let offset = receipt.offset().expect("a stream gives offsets");
        assert_eq!(said.insert(offset, (topic.clone(), text)), None, "no offset is given twice");
    }
    let display = bus.connect(broker.address(), "display").await;
    let mut replay = display.replay("flights").until_end().await.expect("it may be read");
    let mut found = 0;
    while let Some(message) = within("replaying", replay.try_next()).await.expect("it proves itself") {
        let offset = message.offset().expect("what is stored has an offset");
        let (topic, text) = said.get(&offset).expect("nothing is kept that was not acknowledged");
        assert_eq!((message.topic().as_str(), message.payload()), (topic.as_str(), text.as_bytes()));
        found += 1;
    }
    assert_eq!(found, sent.len());
}
