//! `stream verify`: streams that are whole, and streams that somebody has changed.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::streams::{BOARD, REPORTS, publish_flights, streaming_bus};
use crate::support::{Process, Ran, done, run, serve};

fn stop(broker: Process) {
    broker.signal(rustix::process::Signal::TERM);
    assert_eq!(broker.end().code, 0);
}

fn stream_dir(home: &Path) -> PathBuf {
    home.join("bus/data/streams/0f0e0d0c0b0a09080706050403020100")
}

fn segment(home: &Path) -> PathBuf {
    let files = fs::read_dir(stream_dir(home)).expect("the stream has a folder");
    let mut logs = files.map(|file| file.expect("the folder is readable").path());
    logs.find(|path| path.extension().is_some_and(|extension| extension == "log"))
        .expect("there is a segment")
}

fn offline(home: &Path, arguments: &[&str]) -> Ran {
    run(home, &[&["stream", "verify", "flights", "--dir", "bus"], arguments].concat())
}

fn json(ran: &Ran) -> Value {
    serde_json::from_str(&ran.stdout).expect("the output is JSON")
}

/// Every file below a folder, with its bytes.
fn contents(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).expect("the folder is readable") {
        let path = entry.expect("the folder is readable").path();
        if path.is_dir() {
            all.extend(contents(&path));
        } else {
            all.push((path.clone(), fs::read(&path).expect("the file is readable")));
        }
    }
    all.sort();
    all
}

fn copy(from: &Path, to: &Path) {
    for (path, bytes) in contents(from) {
        let target = to.join(path.strip_prefix(from).expect("it is below"));
        fs::create_dir_all(target.parent().expect("a file is in a folder")).expect("the folder can be made");
        fs::write(target, bytes).expect("the file can be written");
    }
}

#[test]
fn a_whole_stream_is_whole_over_the_network_and_in_its_files() {
    let home = tempfile::tempdir().unwrap();
    streaming_bus(home.path());
    let broker = serve(home.path());
    publish_flights(home.path());
    let online = run(home.path(), &["--context", REPORTS, "stream", "verify", "flights", "-o", "json"]);
    assert_eq!(online.code, 0, "{}\n{}", online.stdout, online.stderr);
    let online = json(&online);
    assert_eq!(
        (&online["verdict"], &online["messages"], &online["end"]),
        (&"whole".into(), &842.into(), &842.into())
    );
    assert_eq!(online["checkpoint"]["batches"], online["batches"], "every batch is under the checkpoint");

    let in_use = offline(home.path(), &[]);
    assert_eq!(in_use.code, 1);
    assert!(in_use.stderr.contains("a broker is using them"), "{}", in_use.stderr);
    stop(broker);
    let before = contents(&home.path().join("bus/data"));
    let table = offline(home.path(), &[]);
    assert_eq!(table.code, 0, "{}\n{}", table.stdout, table.stderr);
    assert!(table.stdout.starts_with("check       result  found\n"), "{}", table.stdout);
    assert_eq!(
        table.stdout.lines().last(),
        Some("flights is whole: every batch is there, as its producer and the broker have signed it")
    );
    let found = json(&offline(home.path(), &["-o", "jsonl"]));
    assert_eq!(found["checkpoint"]["root"], online["checkpoint"]["root"], "the same root, both ways");
    assert_eq!((&found["messages"], &found["batches"]), (&842.into(), &online["batches"]));
    let by_data =
        run(home.path(), &["--trust", "bus/trust.toml", "stream", "verify", "flights", "--dir", "bus/data"]);
    assert_eq!(by_data.stdout, table.stdout);
    let by_id = run(home.path(), &["stream", "verify", "0f0e0d0c0b0a09080706050403020100", "--dir", "bus"]);
    assert_eq!(by_id.code, 0, "{}", by_id.stderr);
    assert!(contents(&home.path().join("bus/data")) == before, "a check changes nothing");
}

#[test]
fn one_flipped_byte_is_found_wherever_it_is() {
    let home = tempfile::tempdir().unwrap();
    streaming_bus(home.path());
    let broker = serve(home.path());
    publish_flights(home.path());
    stop(broker);
    let segment = segment(home.path());
    let good = fs::read(&segment).unwrap();
    for place in [good.len() / 10, good.len() / 2, good.len() - 1] {
        let mut bad = good.clone();
        bad[place] ^= 0x01;
        fs::write(&segment, &bad).unwrap();
        let found = offline(home.path(), &["-o", "json"]);
        assert_eq!(found.code, 2, "byte {place}: {}\n{}", found.stdout, found.stderr);
        let found = json(&found);
        assert_eq!(found["verdict"], "tampered", "{found}");
        assert!(found["problem_count"].as_u64().unwrap() > 0, "{found}");
        assert!(found["messages"].as_u64().unwrap() < 842, "what is touched is not counted: {found}");
    }
    let mut bad = good.clone();
    bad[good.len() / 2] ^= 0x01;
    fs::write(&segment, &bad).unwrap();
    let told = offline(home.path(), &[]).stdout;
    assert!(told.contains("BAD"), "{told}");
    assert!(told.ends_with("what was stored is not there as it was signed\n"), "{told}");

    let _broker = serve(home.path());
    let online = run(home.path(), &["--context", REPORTS, "stream", "verify", "flights"]);
    assert_eq!(online.code, 2, "{}\n{}", online.stdout, online.stderr);
    assert!(online.stdout.contains("damaged on the broker's disk"), "{}", online.stdout);
    let replay = run(home.path(), &["--context", REPORTS, "replay", "flights", "--raw"]);
    assert_eq!(replay.code, 1, "what is gone is no success: {}", replay.stderr);
    assert!(replay.stderr.contains("skipped: offsets"), "{}", replay.stderr);
    assert!(replay.stdout.lines().count() < 842);
}

#[test]
fn an_older_copy_is_told_from_what_it_was_by_a_checkpoint_that_was_kept() {
    let home = tempfile::tempdir().unwrap();
    streaming_bus(home.path());
    let broker = serve(home.path());
    publish_flights(home.path());
    stop(broker);
    let older = json(&offline(home.path(), &["-o", "json"]));
    fs::write(home.path().join("older"), older["checkpoint"]["note"].as_str().unwrap()).unwrap();
    copy(&home.path().join("bus/data"), &home.path().join("backup"));
    let broker = serve(home.path());
    done(home.path(), &["--context", BOARD, "pub", "flights/x", "one more"]);
    stop(broker);
    let newer = json(&offline(home.path(), &["-o", "json"]));
    fs::write(home.path().join("newer"), newer["checkpoint"]["note"].as_str().unwrap()).unwrap();
    assert_eq!(newer["messages"], 843);

    assert_eq!(offline(home.path(), &["--checkpoint", "older"]).code, 0, "it leads from what was seen");
    assert_eq!(offline(home.path(), &["--checkpoint", "newer"]).code, 0);
    let backup = |held: &str| {
        let arguments = [
            "--trust",
            "bus/trust.toml",
            "stream",
            "verify",
            "flights",
            "--dir",
            "backup",
            "--checkpoint",
            held,
        ];
        run(home.path(), &arguments)
    };
    assert_eq!(backup("older").code, 0);
    let rolled_back = backup("newer");
    assert_eq!(rolled_back.code, 3, "{}\n{}", rolled_back.stdout, rolled_back.stderr);
    assert!(rolled_back.stdout.contains("flights is rolled back"), "{}", rolled_back.stdout);
    fs::write(
        home.path().join("forged"),
        older["checkpoint"]["note"].as_str().unwrap().replace("\n842", "\n841"),
    )
    .unwrap();
    let mut forged = fs::read(home.path().join("forged")).unwrap();
    let last = forged.len() - 4;
    forged[last] = if forged[last] == b'A' { b'B' } else { b'A' };
    fs::write(home.path().join("forged"), forged).unwrap();
    assert_eq!(backup("forged").code, 2, "a note that the log key did not sign");
}

#[test]
fn without_a_log_key_nobody_vouches_for_the_whole() {
    let home = tempfile::tempdir().unwrap();
    streaming_bus(home.path());
    let broker = serve(home.path());
    publish_flights(home.path());
    let trust = home.path().join("bus/trust.toml");
    let text = fs::read_to_string(&trust).unwrap();
    fs::write(&trust, text.split("[log]").next().unwrap()).unwrap();
    let online = run(home.path(), &["--context", REPORTS, "stream", "verify", "flights"]);
    assert_eq!(online.code, 4, "{}\n{}", online.stdout, online.stderr);
    assert!(online.stdout.contains("flights is incomplete"), "{}", online.stdout);
    stop(broker);
    assert_eq!(offline(home.path(), &[]).code, 4);
}

#[test]
fn what_is_not_there_is_said() {
    let home = tempfile::tempdir().unwrap();
    streaming_bus(home.path());
    stop(serve(home.path()));
    let unknown = run(home.path(), &["stream", "verify", "orders", "--dir", "bus"]);
    assert_eq!((unknown.code, unknown.stdout.as_str()), (1, ""));
    assert!(unknown.stderr.contains("it has: flights"), "{}", unknown.stderr);
    let nowhere = run(home.path(), &["stream", "verify", "flights", "--dir", "bus/ca"]);
    assert_eq!(nowhere.code, 1);
    assert!(nowhere.stderr.contains("name a bus folder"), "{}", nowhere.stderr);
    let empty = offline(home.path(), &[]);
    assert_eq!(empty.code, 0, "an empty stream is whole: {}\n{}", empty.stdout, empty.stderr);
}

#[test]
fn what_retention_has_removed_is_told_and_the_rest_is_proven() {
    let home = tempfile::tempdir().unwrap();
    streaming_bus(home.path());
    let change = |file: &str, from: &str, to: &str| {
        let path = home.path().join(file);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{from} in {text}");
        fs::write(&path, text.replace(from, to)).unwrap();
    };
    change(
        "bus/policy.toml",
        "{ age = \"7d\", bytes = \"20GiB\" }\n\n[[allow]]\nid = \"board",
        "{ messages = 300 }\n\n[[allow]]\nid = \"board",
    );
    change("bus/sealbus.toml", "[storage]\n", "[storage]\nsegment_bytes = \"64KiB\"\n");
    let broker = serve(home.path());
    publish_flights(home.path());
    let until = Instant::now() + Duration::from_secs(30);
    let first = loop {
        let show = ["--context", REPORTS, "stream", "show", "flights", "-o", "json"];
        let show: Value = serde_json::from_str(&done(home.path(), &show)).unwrap();
        match show["first"].as_u64() {
            Some(first) if first > 0 => break first,
            _ => assert!(Instant::now() < until, "{show}"),
        }
    };
    let online = run(home.path(), &["--context", REPORTS, "stream", "verify", "flights"]);
    assert_eq!(online.code, 4, "{}\n{}", online.stdout, online.stderr);
    assert!(online.stdout.contains(&format!("were removed before offset {first}")), "{}", online.stdout);
    let replay =
        run(home.path(), &["--context", REPORTS, "replay", "flights", "--from", "offset:0", "--raw"]);
    assert_eq!(replay.code, 0, "{}", replay.stderr);
    assert!(replay.stderr.contains(&format!("trimmed {first}, unreadable 0")), "{}", replay.stderr);
    assert_eq!(replay.stdout.lines().count() as u64, 842 - first);
    stop(broker);
    let found = offline(home.path(), &["-o", "json"]);
    assert_eq!(found.code, 4, "{}\n{}", found.stdout, found.stderr);
    let found = json(&found);
    assert_eq!((&found["first"], &found["messages"]), (&first.into(), &(842 - first).into()));
    let checkpoint =
        &found["checks"].as_array().unwrap().iter().find(|check| check["check"] == "checkpoint").unwrap();
    assert_eq!(checkpoint["result"], "good", "the leaves of what is gone are there: {found}");
}
