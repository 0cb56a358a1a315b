//! `policy check`, `policy can-i --file`, completions, and how errors read.

use std::fs;

use crate::support::{done, run, sealbus};

const GOOD: &str = r#"version = 7

[[allow]]
id = "display-reads-jfk"
who = ["spiffe://bus.local/display"]
verbs = ["subscribe"]
topics = ["flights/JFK/+"]
when = { source = ["10.0.0.0/8"], zone = "inside" }

[[deny]]
id = "nobody-publishes"
who = ["spiffe://bus.local/*"]
verbs = ["publish"]
topics = ["flights/secret"]
"#;

#[test]
fn a_good_policy_is_summed_up() {
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join("policy.toml"), GOOD).unwrap();
    let said = done(home.path(), &["policy", "check", "policy.toml"]);
    assert!(said.starts_with("policy.toml: good\nversion  7\nallow    1\ndeny     1\n"), "{said}");
    let json = done(home.path(), &["policy", "check", "policy.toml", "-o", "json"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json["version"], &json["allow"]), (&7.into(), &1.into()));
}

#[test]
fn a_fault_is_shown_with_its_line_and_a_caret() {
    let home = tempfile::tempdir().unwrap();
    fs::write(
        home.path().join("policy.toml"),
        GOOD.replace("verbs = [\"subscribe\"]", "verbs = [\"subscrbe\"]"),
    )
    .unwrap();
    let ran = run(home.path(), &["policy", "check", "policy.toml"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (1, ""));
    let expected =
        "error: cannot use the policy policy.toml\n  found: line 6, column 10: allow[0].verbs[0]: ";
    assert!(ran.stderr.starts_with(expected), "{}", ran.stderr);
    assert!(
        ran.stderr.contains("         6 | verbs = [\"subscrbe\"]\n           |          ^\n"),
        "{}",
        ran.stderr
    );
    assert!(ran.stderr.ends_with("  try:   did you mean `subscribe`?\n"), "{}", ran.stderr);
}

#[test]
fn tests_that_fail_are_all_told() {
    let home = tempfile::tempdir().unwrap();
    let failing = format!(
        "{GOOD}\n[[test]]\nwho = \"spiffe://bus.local/display\"\ncan = {{ admin = true, publish = [\"flights/secret\"] }}\n"
    );
    fs::write(home.path().join("policy.toml"), failing).unwrap();
    let ran = run(home.path(), &["policy", "check", "policy.toml"]);
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("2 expectation(s) of its own tests are not met"), "{}", ran.stderr);
    assert!(ran.stderr.contains("denied by rule \"nobody-publishes\""), "{}", ran.stderr);
    assert!(ran.stderr.contains("no rule allows it"), "{}", ran.stderr);
}

#[test]
fn a_file_answers_who_may_do_what() {
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join("policy.toml"), GOOD).unwrap();
    let ask = |arguments: &[&str]| {
        let all =
            [&["policy", "can-i", "--file", "policy.toml", "--as", "spiffe://bus.local/display"], arguments]
                .concat();
        let ran = run(home.path(), &all);
        (ran.code, ran.stdout)
    };
    let inside = ["--source", "10.1.2.3", "--zone", "inside"];
    assert_eq!(
        ask(&[&["subscribe", "flights/JFK/B6"], &inside[..]].concat()),
        (
            0,
            "permitted: spiffe://bus.local/display may subscribe to flights/JFK/B6: allowed by rule \
             \"display-reads-jfk\"\n"
                .to_owned()
        )
    );
    assert_eq!(ask(&["subscribe", "flights/JFK/B6"]).0, 1, "from elsewhere");
    let (code, said) = ask(&[&["subscribe", "flights/#"], &inside[..]].concat());
    assert_eq!(code, 0);
    assert!(said.contains("but only some of what the filter matches"), "{said}");
    assert_eq!(
        ask(&["publish", "flights/secret"]),
        (
            1,
            "denied: spiffe://bus.local/display may not publish to flights/secret: denied by rule \
             \"nobody-publishes\"\n"
                .to_owned()
        )
    );
    assert_eq!(
        ask(&["admin"]),
        (1, "denied: spiffe://bus.local/display may not administer the bus: no rule allows it\n".to_owned())
    );
    for usage in [
        &["publish"][..],
        &["replay"],
        &["describe", "a/b"],
        &["admin", "topic"],
        &["publish", "flights/+"],
        &["juggle", "x"],
    ] {
        assert_eq!(ask(usage).0, 2, "{usage:?}");
    }
}

const STREAMS: &str = r#"version = 1

[[stream]]
name = "flights"
id = "7b0c1d2e3f405162738495a6b7c8d9ea"
topics = ["flights/#"]

[[allow]]
id = "display-replays-jfk"
who = ["spiffe://bus.local/display"]
verbs = ["replay"]
streams = ["flights"]
topics = ["flights/JFK/+"]
"#;

#[test]
fn a_file_answers_who_may_read_a_stream() {
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join("policy.toml"), STREAMS).unwrap();
    let ask = |arguments: &[&str]| {
        let who = ["policy", "can-i", "--file", "policy.toml", "--as", "spiffe://bus.local/display"];
        let ran = run(home.path(), &[&who[..], arguments].concat());
        (ran.code, ran.stdout)
    };
    let may = "permitted: spiffe://bus.local/display may replay the stream flights: allowed by rule \
               \"display-replays-jfk\", but only some of what the stream keeps\n";
    assert_eq!(ask(&["replay", "flights"]), (0, may.to_owned()));
    for verb in ["consume", "describe"] {
        let may_not = format!(
            "denied: spiffe://bus.local/display may not {verb} the stream flights: no rule allows it\n"
        );
        assert_eq!(ask(&[verb, "flights"]), (1, may_not));
    }
    assert_eq!(ask(&["replay", "nothing"]).0, 1);
    let ran = run(home.path(), &["policy", "check", "policy.toml"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stdout.contains("\nstreams  1\n"), "{}", ran.stdout);
    assert_eq!(
        ran.stderr,
        "remark: line 3: no rule allows anybody to publish on topics of the stream \"flights\"\n"
    );
}

#[test]
fn a_new_stream_is_an_entry_that_a_policy_takes() {
    let home = tempfile::tempdir().unwrap();
    let new = |arguments: &[&str]| run(home.path(), &[&["stream", "new"], arguments].concat());
    let first = new(&["orders", "--topics", "orders/#", "--topics", "bills/+", "--retention-age", "7d"]);
    assert_eq!(first.code, 0, "{}", first.stderr);
    assert!(first.stderr.contains("sealbus policy reload"), "{}", first.stderr);
    fs::write(home.path().join("policy.toml"), format!("version = 1\n{}", first.stdout)).unwrap();
    assert!(done(home.path(), &["policy", "check", "policy.toml"]).contains("\nstreams  1\n"));
    let second = new(&["orders", "--topics", "orders/#", "--topics", "bills/+", "--retention-age", "7d"]);
    assert_ne!(first.stdout, second.stdout, "each entry has an id of its own");
    for (arguments, found) in [
        (&["orders"][..], "--topics"),
        (&["$keys", "--topics", "a"], "streams that begin with $ are the bus's own"),
        (&["orders", "--topics", "$sys/#"], "names that begin with $"),
        (&["orders", "--topics", "a#"], "the wildcards + and # stand for whole levels"),
        (&["orders", "--topics", "a", "--retention-bytes", "20GB"], "did you mean 20GiB?"),
        (&["orders", "--topics", "a", "--retention-age", "1w"], "a span of time is"),
        (&["orders", "--topics", "a", "--retention-messages", "0"], "--retention-messages"),
        (&["orders", "--topics", "a", "--durability", "none"], "fsync, interval, memory"),
    ] {
        let ran = new(arguments);
        assert_eq!((ran.code, ran.stdout.as_str()), (2, ""), "{arguments:?}");
        assert!(ran.stderr.contains(found), "{arguments:?}: {}", ran.stderr);
    }
}

#[test]
fn shells_get_completions_and_help_has_the_exit_codes() {
    let home = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish"] {
        assert!(done(home.path(), &["completions", shell]).contains("sealbus"), "{shell}");
    }
    let help = done(home.path(), &["--help"]);
    assert!(help.contains("Exit codes:\n  0  done"), "{help}");
    assert_eq!(run(home.path(), &["no-such-command"]).code, 2);
    assert_eq!(run(home.path(), &["pub"]).code, 2);
}

#[test]
fn a_broker_that_is_not_there_is_an_error_that_says_what_to_do() {
    let home = tempfile::tempdir().unwrap();
    done(home.path(), &["init", "bus", "--address", "127.0.0.1:1"]);
    let ran = run(home.path(), &["--context", "bus/identities/operator", "pub", "a/b", "hello"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (1, ""));
    assert!(
        ran.stderr
            .starts_with("error: cannot connect to 127.0.0.1:1 with the identity in bus/identities/operator"),
        "{}",
        ran.stderr
    );
    assert!(ran.stderr.contains("\n  try:   is the broker running there"), "{}", ran.stderr);
    let missing = run(home.path(), &["serve", "--config", "nowhere.toml"]);
    assert_eq!(missing.code, 1);
    assert!(missing.stderr.contains("nowhere.toml"), "{}", missing.stderr);
}

#[test]
fn a_reader_that_has_gone_is_no_error() {
    let home = tempfile::tempdir().unwrap();
    let mut child =
        sealbus(home.path(), &["completions", "bash"]).stdout(std::process::Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    assert!(child.wait().unwrap().success());
}
