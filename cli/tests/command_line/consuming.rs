//! Durable consumers: printed and acknowledged, handed to commands, given back, begun anew.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::Value;

use crate::streams::{BOARD, OPERATOR, REPORTS, objects, publish_flights, streaming_bus};
use crate::support::{Ran, done, run, serve};

fn publish(home: &Path, topic: &str, payload: &str) {
    done(home, &["--context", BOARD, "pub", topic, payload]);
}

fn consume(home: &Path, arguments: &[&str]) -> Ran {
    run(home, &[&["--context", REPORTS, "consume", "flights"], arguments].concat())
}

fn shown(home: &Path, name: &str) -> Value {
    let arguments = ["--context", REPORTS, "consumer", "show", "flights", name, "-o", "json"];
    serde_json::from_str(&done(home, &arguments)).expect("the output is JSON")
}

#[test]
fn what_was_printed_is_acknowledged_and_comes_once() {
    let home = tempfile::tempdir().unwrap();
    streaming_bus(home.path());
    let broker = serve(home.path());
    publish_flights(home.path());
    let first = consume(home.path(), &["--name", "billing", "--no-wait", "-o", "jsonl"]);
    assert_eq!(first.code, 0, "{}", first.stderr);
    assert!(first.stderr.ends_with("acknowledged 842, given back 0\n"), "{}", first.stderr);
    let offsets: Vec<u64> =
        objects(&first.stdout).iter().map(|message| message["offset"].as_u64().unwrap()).collect();
    assert_eq!(offsets, (0..842).collect::<Vec<_>>());
    let again = consume(home.path(), &["--name", "billing", "--no-wait"]);
    assert_eq!((again.code, again.stdout.as_str()), (0, ""), "{}", again.stderr);
    let info = shown(home.path(), "billing");
    assert_eq!(
        (&info["position"], &info["lag"], &info["acknowledged"]),
        (&842.into(), &0.into(), &842.into())
    );

    broker.signal(rustix::process::Signal::KILL);
    drop(broker);
    let _broker = serve(home.path());
    let after = consume(home.path(), &["--name", "billing", "--no-wait"]);
    assert_eq!((after.code, after.stdout.as_str()), (0, ""), "what was acknowledged outlives kill -9");
    let other = consume(
        home.path(),
        &["--name", "audit", "--filter", "flights/JFK/+", "--from", "last:200", "--no-wait", "--raw"],
    );
    assert_eq!(other.code, 0, "{}", other.stderr);
    let lines = other.stdout.lines().count();
    assert!(0 < lines && lines < 200, "{lines}");
}

#[test]
fn a_consumer_is_listed_and_begins_anew() {
    let home = tempfile::tempdir().unwrap();
    streaming_bus(home.path());
    let _broker = serve(home.path());
    for payload in ["one", "two", "three"] {
        publish(home.path(), "flights/x", payload);
    }
    let taken = consume(
        home.path(),
        &["--name", "billing", "--raw", "--no-wait", "--ack-wait", "45s", "--max-deliver", "7"],
    );
    assert_eq!((taken.code, taken.stdout.as_str()), (0, "one\ntwo\nthree\n"), "{}", taken.stderr);
    let conflict = consume(home.path(), &["--name", "billing", "--no-wait", "--ack-wait", "46s"]);
    assert_eq!(conflict.code, 1);
    assert!(conflict.stderr.contains("CONFLICT"), "{}", conflict.stderr);
    assert!(conflict.stderr.contains("`sealbus consumer show flights billing`"), "{}", conflict.stderr);
    let list = done(home.path(), &["--context", REPORTS, "consumer", "list", "flights"]);
    assert!(list.contains("\nflights  billing   #       3         0"), "{list}");
    let info = shown(home.path(), "billing");
    assert_eq!((&info["ack_wait_ms"], &info["max_deliver"]), (&45_000.into(), &7.into()));
    assert_eq!(info["filter"], Value::Null);

    let reset = ["consumer", "reset", "flights", "billing", "--to", "offset:1"];
    let denied = run(home.path(), &[&["--context", REPORTS], &reset[..]].concat());
    assert_eq!(denied.code, 1);
    assert!(denied.stderr.contains("`admin`"), "{}", denied.stderr);
    let reset = done(home.path(), &[&["--context", OPERATOR], &reset[..], &["-o", "json"]].concat());
    assert_eq!(serde_json::from_str::<Value>(&reset).unwrap()["position"], 1);
    let again = consume(home.path(), &["--name", "billing", "--raw", "--no-wait"]);
    assert_eq!(again.stdout, "two\nthree\n", "{}", again.stderr);
    let missing = run(home.path(), &["--context", REPORTS, "consumer", "show", "flights", "nobody"]);
    assert_eq!(missing.code, 1);
    assert!(missing.stderr.contains("`sealbus consumer list`"), "{}", missing.stderr);
}

#[test]
fn a_command_gets_the_payload_on_stdin_and_the_rest_as_variables() {
    let home = tempfile::tempdir().unwrap();
    streaming_bus(home.path());
    let _broker = serve(home.path());
    publish(home.path(), "flights/JFK/B6", "{\"flight\":725}\n");
    done(home.path(), &["--context", BOARD, "pub", "flights/EWR/UA", "second", "--key", "N 14228"]);
    let command = "printf '%s|' \"$SEALBUS_STREAM\" \"$SEALBUS_CONSUMER\" \"$SEALBUS_OFFSET\" \"$SEALBUS_TOPIC\" \
                   \"$SEALBUS_PRODUCER\" \"$SEALBUS_SEQUENCE\" \"$SEALBUS_DELIVERIES\" \"${SEALBUS_KEY-none}\"; cat; echo";
    let ran = consume(home.path(), &["--name", "mailer", "--count", "2", "--exec", command]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert_eq!(
        ran.stdout,
        "flights|mailer|0|flights/JFK/B6|spiffe://bus.local/board|0|1|none|{\"flight\":725}\n\n\
         flights|mailer|1|flights/EWR/UA|spiffe://bus.local/board|0|1|N 14228|second\n"
    );
    assert_eq!(shown(home.path(), "mailer")["lag"], 0);
}

/// Whoever may publish must not be able to run anything here.
#[test]
fn nothing_of_a_message_becomes_a_command() {
    let home = tempfile::tempdir().unwrap();
    streaming_bus(home.path());
    let _broker = serve(home.path());
    let evil = "$(touch pwned); `touch pwned`; ' \" | touch pwned #";
    done(
        home.path(),
        &["--context", BOARD, "pub", "flights/$(touch pwned);`touch pwned`", evil, "--key", evil],
    );
    let ran = consume(
        home.path(),
        &[
            "--name",
            "mailer",
            "--count",
            "1",
            "--exec",
            "echo \"$SEALBUS_TOPIC\"; cat; echo; echo $SEALBUS_KEY",
        ],
    );
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert_eq!(ran.stdout, format!("flights/$(touch pwned);`touch pwned`\n{evil}\n{evil}\n"));
    assert!(!home.path().join("pwned").exists());
}

#[test]
fn a_command_that_fails_gives_the_message_back_until_it_is_a_dead_letter() {
    let home = tempfile::tempdir().unwrap();
    streaming_bus(home.path());
    let _broker = serve(home.path());
    publish(home.path(), "flights/good", "fine");
    publish(home.path(), "flights/bad", "broken");
    let handler = home.path().join("handle");
    fs::write(&handler, "#!/bin/sh\n[ \"$(cat)\" = fine ]\n").unwrap();
    fs::set_permissions(&handler, fs::Permissions::from_mode(0o755)).unwrap();
    let ran = consume(
        home.path(),
        &["--name", "mailer", "--max-deliver", "2", "--backoff", "1s", "--count", "3", "--exec", "./handle"],
    );
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    for delivery in [1, 2] {
        let told =
            format!("given back: offset 1 on flights/bad, delivery {delivery}: the command ended with 1\n");
        assert!(ran.stderr.contains(&told), "{}", ran.stderr);
    }
    assert!(ran.stderr.ends_with("acknowledged 1, given back 2\n"), "{}", ran.stderr);
    let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
    let info = loop {
        let info = shown(home.path(), "mailer");
        if info["dead_letters"] == 1 {
            break info;
        }
        assert!(std::time::Instant::now() < until, "{info}");
    };
    assert_eq!(info["lag"], 0, "{info}");
    let dead = done(home.path(), &["--context", REPORTS, "replay", "$dead/flights/mailer", "--raw"]);
    assert_eq!(dead, "broken\n");
    let unknown =
        consume(home.path(), &["--name", "other", "--count", "1", "--exec", "./nothing-of-that-name"]);
    assert_eq!(unknown.code, 1);
    assert!(unknown.stderr.contains("the command ended with 127"), "{}", unknown.stderr);
}
