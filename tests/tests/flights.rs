//! Real departures through the program: every one, in order, none lost, none twice.

#![allow(clippy::panic, reason = "what helps a test fails the test")]

use std::collections::HashMap;
use std::path::Path;

use sealbus_tests::flights::{self, TOPIC_TEMPLATE};
use sealbus_tests::{TestBus, allow, sealbus_program};
use serde_json::Value;

async fn all_arrive(flights_file: &Path, expected_count: usize) {
    let program = sealbus_program!();
    let bus = TestBus::new();
    bus.write_policy(
        &(allow("in", "board", "publish", "flights/+/+")
            + &allow("out", "display", "subscribe", "flights/#")),
    );
    let broker = bus.serve(program).await;
    let sent = flights::read(flights_file);
    assert_eq!(sent.len(), expected_count);

    let count = expected_count.to_string();
    let mut display = bus.run(
        program,
        broker.address(),
        "display",
        &["sub", "flights/#", "-o", "jsonl", "--count", &count],
    );
    display.await_stderr("READY").await;
    let file = flights_file.to_str().expect("the path is UTF-8");
    let mut board = bus.run(
        program,
        broker.address(),
        "board",
        &["pub", "--jsonl", file, "--topic-template", TOPIC_TEMPLATE],
    );
    assert!(board.await_end().await.success(), "{}", board.stderr());
    let said = board.stderr();
    assert_eq!(said.lines().last(), Some(format!("{expected_count} acknowledged").as_str()), "{said}");
    assert!(display.await_end().await.success(), "{}", display.stderr());

    let mut of_topic: HashMap<&str, Vec<&Value>> = HashMap::new();
    for (topic, flight) in &sent {
        of_topic.entry(topic).or_default().push(flight);
    }
    let lines = sealbus_tests::eventually("all lines are read", || {
        let lines = display.stdout_lines();
        (lines.len() >= expected_count).then_some(lines)
    })
    .await;
    assert_eq!(lines.len(), expected_count);
    let mut next: HashMap<String, usize> = HashMap::new();
    for line in &lines {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        let topic = line["topic"].as_str().expect("a line names its topic");
        let place = next.entry(topic.to_owned()).or_default();
        assert_eq!(line["producer"], "spiffe://bus.test/board");
        assert_eq!(
            line["sequence"].as_u64(),
            u64::try_from(*place).ok(),
            "{topic}: in order, none lost, none twice"
        );
        assert_eq!(
            Some(&&line["json"]),
            of_topic.get(topic).and_then(|flights| flights.get(*place)),
            "{topic}"
        );
        *place += 1;
    }
    assert_eq!(next.len(), of_topic.len());
    assert!(
        display.stderr().contains(&format!("received {expected_count}, missed by lag 0, gaps 0, rejected 0"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn every_flight_of_a_day_arrives_in_order_and_once() {
    all_arrive(&flights::first_of_january(), 842).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_flight_of_a_month_arrives_in_order_and_once() {
    let folder = tempfile::tempdir().unwrap();
    all_arrive(&flights::january(folder.path()), 27_004).await;
}

/// A line that cannot be published is told by its number, and nothing after it is sent.
#[tokio::test(flavor = "multi_thread")]
async fn a_line_that_is_not_good_stops_the_run_and_says_where() {
    let program = sealbus_program!();
    let bus = TestBus::new();
    bus.write_policy(&allow("in", "board", "publish", "flights/+/+"));
    let broker = bus.serve(program).await;
    for (name, bad) in [
        ("no json", "{\"origin\":\"JFK\",\"carrier\":"),
        ("no object", "17"),
        ("no carrier", "{\"origin\":\"JFK\"}"),
        ("a level that is none", "{\"origin\":\"JFK\",\"carrier\":\"B6/x/y\"}"),
        ("a wildcard", "{\"origin\":\"#\",\"carrier\":\"+\"}"),
        ("a topic that is not granted", "{\"origin\":\"JFK\",\"carrier\":\"\\u0000\"}"),
    ] {
        let good = "{\"origin\":\"JFK\",\"carrier\":\"B6\"}\n";
        let path = bus.path("lines.jsonl");
        std::fs::write(&path, format!("{good}{good}{bad}\n{good}")).unwrap();
        let arguments = ["pub", "--jsonl", path.to_str().unwrap(), "--topic-template", TOPIC_TEMPLATE];
        let mut board = bus.run(program, broker.address(), "board", &arguments);
        assert_eq!(board.await_end().await.code(), Some(1), "{name}: {}", board.stderr());
        let said = board.stderr();
        assert!(said.contains("2 acknowledged"), "{name}: {said}");
        assert!(said.contains("line 3"), "{name}: {said}");
    }
}
