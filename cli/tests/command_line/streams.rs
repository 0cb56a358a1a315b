//! What a stream keeps: read again, listed, counted.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::Stdio;

use serde_json::Value;

use crate::support::{FLIGHTS, Process, bus, done, grant, run, sealbus, serve};

/// Rules and a stream, for tests about what streams keep.
pub(crate) const STREAM: &str = r#"
[[stream]]
name = "flights"
id = "0f0e0d0c0b0a09080706050403020100"
topics = ["flights/#"]
retention = { age = "7d", bytes = "20GiB" }

[[allow]]
id = "board-publishes"
who = ["spiffe://bus.local/board"]
verbs = ["publish"]
topics = ["flights/#"]

[[allow]]
id = "reports-read"
who = ["spiffe://bus.local/reports"]
verbs = ["replay", "consume", "describe"]
streams = ["flights"]
"#;

pub(crate) const BOARD: &str = "bus/identities/board";
pub(crate) const REPORTS: &str = "bus/identities/reports";
pub(crate) const OPERATOR: &str = "bus/identities/operator";

/// A bus with a stream, who publishes to it, and who reads it.
pub(crate) fn streaming_bus(home: &Path) {
    bus(home, &["board", "reports"]);
    grant(home, STREAM);
}

/// Publishes the flights of the day.
pub(crate) fn publish_flights(home: &Path) {
    let template = "flights/{origin}/{carrier}";
    let published = run(home, &["--context", BOARD, "pub", "--jsonl", FLIGHTS, "--topic-template", template]);
    assert_eq!(published.stderr.lines().last(), Some("842 acknowledged"), "{}", published.stderr);
}

pub(crate) fn objects(lines: &str) -> Vec<Value> {
    lines.lines().map(|line| serde_json::from_str(line).expect("each line is JSON")).collect()
}

#[test]
fn a_replay_is_the_input_also_after_a_restart() {
    let home = tempfile::tempdir().unwrap();
    streaming_bus(home.path());
    let broker = serve(home.path());
    publish_flights(home.path());
    broker.signal(rustix::process::Signal::KILL);
    drop(broker);
    let _broker = serve(home.path());
    let replay = run(home.path(), &["--context", REPORTS, "replay", "flights", "-o", "jsonl"]);
    assert_eq!(replay.code, 0, "{}", replay.stderr);
    assert!(replay.stderr.starts_with("READY flights 0 to 842\n"), "{}", replay.stderr);
    let summary = "received 842, trimmed 0, unreadable 0, gaps 0, rejected 0\n";
    assert!(replay.stderr.ends_with(summary), "{}", replay.stderr);

    let source = fs::read_to_string(FLIGHTS).unwrap();
    let mut sent = BTreeMap::<String, Vec<&str>>::new();
    for line in source.lines() {
        let flight: Value = serde_json::from_str(line).unwrap();
        let (origin, carrier) = (flight["origin"].as_str().unwrap(), flight["carrier"].as_str().unwrap());
        sent.entry(format!("flights/{origin}/{carrier}")).or_default().push(line);
    }
    let mut came = BTreeMap::<String, Vec<&str>>::new();
    for (offset, line) in replay.stdout.lines().enumerate() {
        let message: Value = serde_json::from_str(line).unwrap();
        assert_eq!(message["offset"], offset, "{line}");
        assert_eq!((&message["stream"], &message["deliveries"]), (&"flights".into(), &1.into()));
        assert_eq!(message["producer"], "spiffe://bus.local/board");
        let (_, payload) = line.split_once("\"json\":").unwrap();
        let topic = message["topic"].as_str().unwrap().to_owned();
        came.entry(topic).or_default().push(payload.strip_suffix('}').unwrap());
    }
    assert_eq!(came, sent, "each topic's flights, in their order, byte for byte");
    let distinct: HashSet<&str> = came.values().flatten().copied().collect();
    assert_eq!(distinct.len(), 842);
}

#[test]
fn a_replay_begins_and_ends_where_it_is_told() {
    let home = tempfile::tempdir().unwrap();
    streaming_bus(home.path());
    let _broker = serve(home.path());
    publish_flights(home.path());
    let offsets = |arguments: &[&str]| -> Vec<u64> {
        let all = [&["--context", REPORTS, "replay", "flights", "-o", "jsonl"], arguments].concat();
        objects(&done(home.path(), &all)).iter().map(|message| message["offset"].as_u64().unwrap()).collect()
    };
    assert_eq!(offsets(&["--from", "last:2"]), [840, 841]);
    assert_eq!(offsets(&["--from", "offset:100", "--count", "3"]), [100, 101, 102]);
    assert_eq!(offsets(&["--from", "end"]), [0_u64; 0]);
    assert_eq!(offsets(&["--from", "1h"]).len(), 842);
    assert_eq!(offsets(&["--from", "time:2013-01-01T00:00:00Z"]).len(), 842);
    assert_eq!(offsets(&["--from", "2999-01-01T00:00:00Z"]).len(), 0);
    assert_eq!(offsets(&["--filter", "flights/JFK/+"]).len(), 297);
    let raw = done(home.path(), &["--context", REPORTS, "replay", "flights", "--raw", "--from", "last:1"]);
    assert!(raw.starts_with('{') && raw.ends_with("}\n"), "{raw}");

    let follow =
        ["--context", REPORTS, "replay", "flights", "--from", "last:1", "--follow", "--raw", "--count", "2"];
    let mut follow = Process::start(sealbus(home.path(), &follow).stdout(Stdio::piped()));
    let mut stdout = BufReader::new(follow.child.stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    assert_eq!(line, raw, "the history first");
    done(home.path(), &["--context", BOARD, "pub", "flights/JFK/B6", "what comes later"]);
    line.clear();
    stdout.read_line(&mut line).unwrap();
    assert_eq!(line, "what comes later\n", "and then what is published");
    assert_eq!(follow.end().code, 0);
}

#[test]
fn what_cannot_be_replayed_is_refused_with_what_to_do() {
    let home = tempfile::tempdir().unwrap();
    streaming_bus(home.path());
    let _broker = serve(home.path());
    for (who, stream) in [(BOARD, "flights"), (REPORTS, "nothing")] {
        let refused = run(home.path(), &["--context", who, "replay", stream]);
        assert_eq!((refused.code, refused.stdout.as_str()), (1, ""));
        assert!(refused.stderr.contains("DENIED"), "{}", refused.stderr);
        assert!(
            refused.stderr.contains(&format!("`sealbus policy can-i replay {stream}`")),
            "{}",
            refused.stderr
        );
    }
    let usage = run(home.path(), &["--context", REPORTS, "replay", "flights", "--from", "yesterday"]);
    assert_eq!(usage.code, 2);
    assert!(usage.stderr.contains("last:N"), "{}", usage.stderr);
    let hidden = run(home.path(), &["--context", BOARD, "stream", "list"]);
    assert_eq!((hidden.code, hidden.stdout.lines().count()), (0, 1), "only the heads: {}", hidden.stdout);
    let hidden = run(home.path(), &["--context", BOARD, "stream", "show", "flights"]);
    assert_eq!(hidden.code, 1);
    assert!(hidden.stderr.contains("`sealbus stream list`"), "{}", hidden.stderr);
    let stats = run(home.path(), &["--context", REPORTS, "stats"]);
    assert_eq!(stats.code, 1);
    assert!(stats.stderr.contains("the verb `admin`"), "{}", stats.stderr);
}

#[test]
fn streams_and_counts_are_shown_in_every_form() {
    let home = tempfile::tempdir().unwrap();
    streaming_bus(home.path());
    let _broker = serve(home.path());
    publish_flights(home.path());
    let consume =
        ["--context", REPORTS, "consume", "flights", "--name", "bill\u{2e}ing", "--count", "2", "--raw"];
    done(home.path(), &consume);

    let list = done(home.path(), &["--context", REPORTS, "stream", "list"]);
    assert!(list.starts_with("stream   state  topics"), "{list}");
    assert!(list.contains("\nflights  open   flights/#  842       0..842"), "{list}");
    let show = done(home.path(), &["--context", REPORTS, "stream", "show", "flights"]);
    for row in [
        "id          0f0e0d0c0b0a09080706050403020100\n",
        "retention   7d, 20.0 GiB\n",
        "durability  fsync\n",
    ] {
        assert!(show.contains(row), "{row} in {show}");
    }
    let json: Value = serde_json::from_str(&done(
        home.path(),
        &["--context", REPORTS, "stream", "show", "flights", "-o", "json"],
    ))
    .unwrap();
    assert_eq!((&json["first"], &json["end"], &json["consumers"]), (&0.into(), &842.into(), &1.into()));
    assert_eq!(
        json["retention"],
        serde_json::json!({"age_ms": 604_800_000, "bytes": 21_474_836_480_u64, "messages": null})
    );
    let lines = done(home.path(), &["--context", REPORTS, "stream", "list", "-o", "jsonl"]);
    assert_eq!(objects(&lines)[0]["name"], "flights");

    let table = done(home.path(), &["--context", OPERATOR, "stats"]);
    assert!(table.contains("published  842 messages"), "{table}");
    assert!(table.contains("\nflights  bill.ing  840"), "{table}");
    let json: Value =
        serde_json::from_str(&done(home.path(), &["--context", OPERATOR, "stats", "-o", "json"])).unwrap();
    assert_eq!((&json["broker"]["published"], &json["consumers"][0]["lag"]), (&842.into(), &840.into()));
    let kinds: Vec<Value> = objects(&done(home.path(), &["--context", OPERATOR, "stats", "-o", "jsonl"]))
        .iter()
        .map(|object| object["kind"].clone())
        .collect();
    assert_eq!(kinds, ["broker", "stream", "consumer"]);
}

#[test]
fn the_prometheus_text_is_one() {
    let home = tempfile::tempdir().unwrap();
    streaming_bus(home.path());
    let _broker = serve(home.path());
    publish_flights(home.path());
    done(home.path(), &["--context", REPORTS, "consume", "flights", "--name", "billing", "--count", "1"]);
    let text = done(home.path(), &["--context", OPERATOR, "stats", "-o", "prom"]);
    let (mut helped, mut typed) = (HashSet::new(), HashSet::new());
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, words) = help.split_once(' ').unwrap();
            assert!(helped.insert(name) && words.ends_with('.'), "{line}");
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap();
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            assert!(typed.insert(name) && helped.contains(name), "{line}");
        } else {
            let (sample, value) = line.rsplit_once(' ').unwrap();
            let name = sample.split('{').next().unwrap();
            assert!(typed.contains(name), "{line}");
            value.parse::<f64>().unwrap();
        }
    }
    for line in [
        "sealbus_published_messages_total 842",
        "sealbus_stream_end_offset{stream=\"flights\"} 842",
        "sealbus_stream_state{stream=\"flights\",state=\"open\"} 1",
        "sealbus_consumer_lag_messages{stream=\"flights\",consumer=\"billing\"} 841",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
    }
}

#[test]
fn a_durable_bench_stands_beside_a_bare_loop() {
    let home = tempfile::tempdir().unwrap();
    let arguments =
        ["bench", "pubsub", "--durable", "--messages", "1500", "--size", "1024", "--json", "--dir", "."];
    let report: Value = serde_json::from_str(&done(home.path(), &arguments)).unwrap();
    assert_eq!((&report["durability"], &report["size_bytes"]), (&"fsync".into(), &1024.into()));
    let runs = report["runs"].as_array().unwrap();
    assert_eq!(runs.iter().map(|run| run["publishers"].as_u64().unwrap()).collect::<Vec<_>>(), [1, 8]);
    for run in runs {
        assert_eq!((&run["messages_acknowledged"], &run["messages_stored"]), (&1500.into(), &1500.into()));
        assert!(run["log"]["bytes_written"].as_u64().unwrap() > 1500 * 1024, "{run}");
        assert!(run["log"]["syncs"].as_u64().unwrap() >= 1, "{run}");
        for number in [
            &run["messages_per_second"],
            &run["bare_loop"]["messages_per_second"],
            &run["ratio_to_bare_loop"],
        ] {
            assert!(number.as_f64().unwrap() > 0.0, "{run}");
        }
    }
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0, "nothing is left");
}
