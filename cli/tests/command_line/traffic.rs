//! A broker in its own process, and messages through it.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{self, FLIGHTS, Process, done, grant, ran, run, sealbus, serve};

const GRANTS: &str = r#"
[[allow]]
id = "board-publishes"
who = ["spiffe://bus.local/board"]
verbs = ["publish"]
topics = ["flights/#"]

[[allow]]
id = "display-reads"
who = ["spiffe://bus.local/display"]
verbs = ["subscribe"]
topics = ["flights/#"]
"#;

/// A bus with the identities `board` and `display`, granted what they need.
fn bus(home: &Path) {
    support::bus(home, &["board", "display"]);
    grant(home, GRANTS);
}

fn subscribe(home: &Path, arguments: &[&str]) -> Process {
    let all = [&["--context", "bus/identities/display", "sub", "flights/#"], arguments].concat();
    let mut subscriber = Process::start(sealbus(home, &all).stdout(Stdio::piped()));
    subscriber.wait_for("READY flights/#");
    subscriber
}

const BOARD: &str = "bus/identities/board";
const OPERATOR: &str = "bus/identities/operator";

#[test]
fn every_flight_arrives_verified_in_order_and_as_it_was_published() {
    let home = tempfile::tempdir().unwrap();
    bus(home.path());
    let broker = serve(home.path());
    let subscriber = subscribe(home.path(), &["-o", "jsonl", "--count", "842"]);
    let published = run(
        home.path(),
        &[
            "--context",
            BOARD,
            "pub",
            "--jsonl",
            FLIGHTS,
            "--topic-template",
            "flights/{origin}/{carrier}",
            "--key-template",
            "{tailnum}",
            "--header",
            "content-type=application/json",
        ],
    );
    assert_eq!(published.code, 0, "{}", published.stderr);
    assert_eq!(published.stderr.lines().last(), Some("842 acknowledged"));
    let received = subscriber.end();
    assert_eq!(received.code, 0, "{}", received.stderr);
    assert!(
        received.stderr.ends_with("received 842, missed by lag 0, gaps 0, rejected 0\n"),
        "{}",
        received.stderr
    );

    let source = fs::read_to_string(FLIGHTS).unwrap();
    let flights: Vec<&str> = source.lines().collect();
    let lines: Vec<&str> = received.stdout.lines().collect();
    assert_eq!(lines.len(), flights.len());
    let mut by_topic = std::collections::HashMap::<String, Vec<&str>>::new();
    for flight in &flights {
        let value: Value = serde_json::from_str(flight).unwrap();
        let topic =
            format!("flights/{}/{}", value["origin"].as_str().unwrap(), value["carrier"].as_str().unwrap());
        by_topic.entry(topic).or_default().push(flight);
    }
    let mut next = std::collections::HashMap::<String, usize>::new();
    for line in lines {
        let value: Value = serde_json::from_str(line).unwrap();
        let topic = value["topic"].as_str().unwrap();
        let place = next.entry(topic.to_owned()).or_default();
        let flight = by_topic[topic][*place];
        assert_eq!(value["sequence"], *place, "{line}");
        assert!(line.ends_with(&format!("\"json\":{flight}}}")), "{line}");
        assert_eq!(value["producer"], "spiffe://bus.local/board");
        assert_eq!(value["key"], value["json"]["tailnum"]);
        assert_eq!(value["headers"], serde_json::json!({"content-type": "application/json"}));
        assert_eq!(value["offset"], Value::Null);
        *place += 1;
    }
    drop(broker);
}

#[test]
fn payloads_come_from_arguments_files_and_lines() {
    let home = tempfile::tempdir().unwrap();
    bus(home.path());
    let _broker = serve(home.path());
    let subscriber = subscribe(home.path(), &["--raw", "--count", "6"]);
    fs::write(home.path().join("payload"), "from a file").unwrap();
    let publish = |arguments: &[&str], stdin: &str| {
        let all = [&["--context", BOARD, "pub", "flights/x"], arguments].concat();
        let mut child = sealbus(home.path(), &all)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(stdin.as_bytes()).unwrap();
        let ran = ran(child.wait_with_output().unwrap());
        assert_eq!(ran.code, 0, "{arguments:?}: {}", ran.stderr);
        ran.stderr.lines().last().unwrap().to_owned()
    };
    assert_eq!(publish(&["an argument"], ""), "1 acknowledged");
    assert_eq!(publish(&["--file", "payload"], ""), "1 acknowledged");
    assert_eq!(publish(&[], "all of stdin"), "1 acknowledged");
    assert_eq!(publish(&["--lines"], "one\r\n\ntwo\nthree"), "3 acknowledged");
    let received = subscriber.end();
    assert_eq!(received.stdout, "an argument\nfrom a file\nall of stdin\none\ntwo\nthree\n");
}

#[test]
fn a_line_that_does_not_fill_the_template_ends_or_is_skipped() {
    let home = tempfile::tempdir().unwrap();
    bus(home.path());
    let _broker = serve(home.path());
    fs::write(
        home.path().join("bad.jsonl"),
        "{\"origin\":\"JFK\"}\n{\"origin\":\"a/b\"}\nnonsense\n{\"origin\":null}\n{\"origin\":\"EWR\"}\n",
    )
    .unwrap();
    let arguments =
        ["--context", BOARD, "pub", "--jsonl", "bad.jsonl", "--topic-template", "flights/{origin}"];
    let strict = run(home.path(), &arguments);
    assert_eq!(strict.code, 1);
    assert!(strict.stderr.contains("1 acknowledged\n"), "{}", strict.stderr);
    assert!(strict.stderr.contains("cannot publish line 2 of bad.jsonl"), "{}", strict.stderr);
    assert!(strict.stderr.contains("because of '/'"), "{}", strict.stderr);
    let skipping = run(home.path(), &[&arguments[..], &["--skip-bad"]].concat());
    assert_eq!(skipping.code, 0, "{}", skipping.stderr);
    assert_eq!(skipping.stderr.lines().last(), Some("2 acknowledged, 3 lines skipped"));
}

#[test]
fn what_is_not_granted_is_refused_with_the_code_and_the_rule() {
    let home = tempfile::tempdir().unwrap();
    bus(home.path());
    let _broker = serve(home.path());
    let publish = run(home.path(), &["--context", "bus/identities/display", "pub", "flights/x", "hello"]);
    assert_eq!(publish.code, 1);
    assert!(publish.stderr.contains("0 acknowledged\n"), "{}", publish.stderr);
    assert!(publish.stderr.contains("DENIED"), "{}", publish.stderr);
    assert!(publish.stderr.contains("no rule allows it"), "{}", publish.stderr);
    let subscribe = run(home.path(), &["--context", BOARD, "sub", "flights/#", "--for", "1"]);
    assert_eq!((subscribe.code, subscribe.stdout.as_str()), (1, ""));
    assert!(subscribe.stderr.contains("DENIED"), "{}", subscribe.stderr);
    let audit = run(home.path(), &["--context", BOARD, "audit", "tail"]);
    assert_eq!(audit.code, 1);
    assert!(audit.stderr.contains("the verb `audit`"), "{}", audit.stderr);
}

#[test]
fn the_policy_is_asked_and_reloaded_and_a_bad_one_keeps_the_old() {
    let home = tempfile::tempdir().unwrap();
    bus(home.path());
    let _broker = serve(home.path());
    let asked = ["--context", BOARD, "policy", "can-i", "publish", "other/x"];
    let denied = run(home.path(), &asked);
    assert_eq!((denied.code, denied.stdout.starts_with("denied: spiffe://bus.local/board")), (1, true));
    grant(
        home.path(),
        "\n[[allow]]\nid = \"board-publishes-others\"\nwho = [\"spiffe://bus.local/board\"]\nverbs = [\"publish\"]\n\
         topics = [\"other/#\"]\n",
    );
    let reloaded = done(home.path(), &["--context", OPERATOR, "policy", "reload", "-o", "json"]);
    let reloaded: Value = serde_json::from_str(&reloaded).unwrap();
    assert_eq!((&reloaded["rules_before"], &reloaded["rules_after"]), (&3.into(), &4.into()));
    let permitted = done(home.path(), &asked);
    assert!(permitted.contains("board-publishes-others"), "{permitted}");
    let of_another = [
        "--context",
        OPERATOR,
        "policy",
        "can-i",
        "subscribe",
        "flights/x",
        "--as",
        "spiffe://bus.local/display",
    ];
    assert!(done(home.path(), &of_another).contains("display-reads"));

    grant(home.path(), "\n[[alow]]\nid = \"typo\"\n");
    let refused = run(home.path(), &["--context", OPERATOR, "policy", "reload"]);
    assert_eq!(refused.code, 1);
    assert!(refused.stderr.contains("alow"), "{}", refused.stderr);
    assert_eq!(run(home.path(), &asked).code, 0, "the old policy is in force");
    let not_granted = run(home.path(), &["--context", BOARD, "policy", "reload"]);
    assert_eq!(not_granted.code, 1);
    assert!(not_granted.stderr.contains("DENIED"), "{}", not_granted.stderr);
}

#[test]
fn the_audit_log_is_tailed() {
    let home = tempfile::tempdir().unwrap();
    bus(home.path());
    let _broker = serve(home.path());
    run(home.path(), &["--context", BOARD, "pub", "forbidden", "hello"]);
    let until = Instant::now() + Duration::from_secs(30);
    let all = loop {
        let all = done(home.path(), &["--context", OPERATOR, "audit", "tail", "-n", "1000", "-o", "jsonl"]);
        if all.contains("\"event\":\"denied\"") {
            break all;
        }
        assert!(Instant::now() < until, "{all}");
    };
    let sequence: Vec<u64> = all
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["unmapped"]["seq"].as_u64().unwrap())
        .collect();
    assert_eq!(sequence, (0..sequence.len() as u64).collect::<Vec<_>>());
    let tail = done(home.path(), &["--context", OPERATOR, "audit", "tail", "-n", "3"]);
    assert_eq!(tail.lines().count(), 4, "{tail}");
    assert!(tail.starts_with("seq "), "{tail}");
    let mut follow = Process::start(
        sealbus(home.path(), &["--context", OPERATOR, "audit", "tail", "-n", "0", "-f"])
            .stdout(Stdio::piped()),
    );
    let mut stdout = BufReader::new(follow.child.stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    assert!(line.starts_with("seq "), "{line}");
    run(home.path(), &["--context", BOARD, "pub", "forbidden/again", "hello"]);
    while !line.contains("forbidden/again") {
        line.clear();
        assert_ne!(stdout.read_line(&mut line).unwrap(), 0);
    }
    follow.signal(rustix::process::Signal::INT);
    assert_eq!(follow.end().code, 0);
}

#[test]
fn publisher_and_subscriber_outlive_a_broker_that_is_killed() {
    let home = tempfile::tempdir().unwrap();
    bus(home.path());
    let broker = serve(home.path());
    let subscriber = subscribe(home.path(), &["--raw"]);
    let mut publisher = sealbus(home.path(), &["--context", BOARD, "pub", "flights/x", "--lines"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = publisher.stdin.take().unwrap();
    let mut stderr = BufReader::new(publisher.stderr.take().unwrap());
    writeln!(lines, "before").unwrap();
    // Only what has been acknowledged is known to have been delivered, so that the kill comes after the first delivery.
    let mut subscriber = subscriber;
    let mut received = BufReader::new(subscriber.child.stdout.take().unwrap());
    let mut line = String::new();
    received.read_line(&mut line).unwrap();
    assert_eq!(line, "before\n");
    drop(broker);
    writeln!(lines, "while it is down").unwrap();
    let _broker = serve(home.path());
    subscriber.wait_for("connected: session");
    // A live topic has no history: what is published before the subscriber is back is a gap to it. Lines are published
    // until one arrives.
    let mut sent = 2_u64;
    let arrived = std::thread::spawn(move || {
        let mut line = String::new();
        received.read_line(&mut line).map(|_| line)
    });
    let until = Instant::now() + Duration::from_secs(30);
    while !arrived.is_finished() {
        assert!(Instant::now() < until, "nothing arrived");
        writeln!(lines, "after").unwrap();
        sent += 1;
        std::thread::sleep(Duration::from_millis(20));
    }
    drop(lines);
    let mut said = String::new();
    stderr.read_to_string(&mut said).unwrap();
    assert!(publisher.wait().unwrap().success(), "{said}");
    assert_eq!(said.lines().last(), Some(format!("{sent} acknowledged").as_str()));
    assert!(!arrived.join().unwrap().unwrap().is_empty());
    subscriber.signal(rustix::process::Signal::TERM);
    let ended = subscriber.end();
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert!(ended.stderr.contains("rejected 0"), "{}", ended.stderr);
}

#[test]
fn a_subscriber_ends_in_time_and_a_broker_when_it_is_asked() {
    let home = tempfile::tempdir().unwrap();
    bus(home.path());
    let broker = serve(home.path());
    let quiet = subscribe(home.path(), &["--for", "1"]).end();
    assert_eq!((quiet.code, quiet.stdout.as_str()), (0, ""));
    assert!(quiet.stderr.ends_with("received 0, missed by lag 0, gaps 0, rejected 0\n"), "{}", quiet.stderr);
    broker.signal(rustix::process::Signal::TERM);
    let ended = broker.end();
    assert_eq!(ended.code, 0, "{}", ended.stderr);
}

#[test]
fn a_bench_prints_one_object_and_loses_nothing() {
    let home = tempfile::tempdir().unwrap();
    let pubsub =
        done(home.path(), &["bench", "pubsub", "--messages", "2000", "--subscribers", "2", "--json"]);
    let pubsub: Value = serde_json::from_str(&pubsub).unwrap();
    assert_eq!(
        (&pubsub["published"], &pubsub["delivered"], &pubsub["missed"]),
        (&2000.into(), &4000.into(), &0.into())
    );
    assert!(pubsub["latency_us"]["p99"].as_f64().unwrap() > 0.0, "{pubsub}");
    assert!(pubsub["broker"]["resident_mib"].as_f64().unwrap() > 1.0, "{pubsub}");
    let latency = done(home.path(), &["bench", "latency", "--rate", "200", "--seconds", "1", "--json"]);
    let latency: Value = serde_json::from_str(&latency).unwrap();
    assert_eq!(latency["delivered"], 200);
}
