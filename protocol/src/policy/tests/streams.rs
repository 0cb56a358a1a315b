//! Streams: what a document may say of them, and what is decided about them.

use super::super::{
    Act, CompiledPolicy, DenialRule, Durability, Name, Narrowed, Policy, PolicyError, Retention, StreamVerb,
    decide,
};
use super::{ANNA, BEN, NOW_MS, anywhere, compiled, filter, principal, topic};
use crate::ids::StreamId;
use crate::limits::{STREAM_FILTERS_MAX, STREAMS_MAX};

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

/// A document with one stream, in which one line is replaced.
fn with_line(key: &str, line: &str) -> String {
    let lines = [
        ("name", r#"name = "orders""#),
        ("id", r#"id = "7b0c1d2e3f405162738495a6b7c8d9ea""#),
        ("topics", r##"topics = ["orders/#"]"##),
        ("retention", r#"retention = { age = "7d" }"#),
        ("durability", r#"durability = "fsync""#),
        ("seal", r#"seal = "off""#),
    ];
    let lines = lines.map(|(name, standard)| if name == key { line } else { standard });
    format!("version = 1\n[[stream]]\n{}\n", lines.join("\n"))
}

fn error(text: &str) -> String {
    Policy::parse(text).unwrap_err().to_string()
}

#[test]
fn a_stream_needs_a_name_an_id_and_topics() {
    let text = "version = 1\n[[stream]]\nname = \"orders\"\nid = \"7b0c1d2e3f405162738495a6b7c8d9ea\"\n\
                topics = [\"orders/#\", \"bills/+\"]\n";
    let policy = Policy::parse(text).unwrap();
    let [stream] = policy.streams() else { panic!() };
    assert_eq!((stream.name().as_str(), stream.line()), ("orders", 2));
    assert_eq!(stream.id().to_string(), "7b0c1d2e3f405162738495a6b7c8d9ea");
    assert_eq!(stream.topics(), [filter("orders/#"), filter("bills/+")]);
    assert_eq!((stream.retention(), stream.durability()), (Retention::default(), Durability::Fsync));
    for key in ["name", "id", "topics"] {
        let message = error(&with_line(key, ""));
        assert!(message.starts_with(&format!("line 2, column 1: stream[0]: {key} is missing")), "{message}");
    }
    for key in ["retention", "durability", "seal"] {
        assert!(Policy::parse(&with_line(key, "")).is_ok(), "{key}");
    }
}

#[test]
fn settings_of_a_stream_are_read() {
    let retention =
        |line: &str| Policy::parse(&with_line("retention", line)).unwrap().streams()[0].retention();
    for (line, age_ms, bytes, messages) in [
        ("retention = { age = \"45s\" }", Some(45_000), None, None),
        ("retention = { age = \"30m\" }", Some(1_800_000), None, None),
        ("retention = { bytes = \"20GiB\" }", None, Some(21_474_836_480), None),
        ("retention = { bytes = 1_000_000 }", None, Some(1_000_000), None),
        ("retention = { bytes = 0x1000 }", None, Some(4_096), None),
        ("retention = { messages = 1 }", None, None, Some(1)),
        (
            "retention = { age = \"12h\", bytes = \"512KiB\", messages = 1000000 }",
            Some(43_200_000),
            Some(524_288),
            Some(1_000_000),
        ),
    ] {
        assert_eq!(retention(line), Retention { age_ms, bytes, messages }, "{line}");
    }
    for level in Durability::ALL {
        let policy = Policy::parse(&with_line("durability", &format!("durability = \"{level}\""))).unwrap();
        assert_eq!(policy.streams()[0].durability(), level);
    }
}

#[test]
fn faults_of_streams_are_told_with_place_and_hint() {
    let span = "a span of time is a whole number from 1 and s, m, h or d, as in 30m or 7d";
    let amount =
        "an amount of bytes is a whole number from 1, alone or with KiB, MiB, GiB or TiB, as in 20GiB";
    let id = "the id of a stream has 32 lower-case hex digits, not all of them zero";
    let fresh = "`sealbus stream new NAME` prints an entry with a fresh id";
    let zero = "0".repeat(32);
    for (key, line, expected) in [
        ("seal", "sael = \"off\"", "line 8, column 1: stream[0].sael: unknown key `sael`; did you mean `seal`?".to_owned()),
        ("seal", "subjects = [\"a\"]", "line 8, column 1: stream[0].subjects: unknown key `subjects`".to_owned()),
        (
            "seal",
            "seal = \"required\"",
            "line 8, column 8: stream[0].seal: `seal = required` is not in this version".to_owned(),
        ),
        (
            "seal",
            "seal = \"optional\"",
            "line 8, column 8: stream[0].seal: `seal = optional` is not in this version".to_owned(),
        ),
        (
            "seal",
            "seal = \"of\"",
            "line 8, column 8: stream[0].seal: off, optional or required was expected, found \"of\"; did you mean `off`?"
                .to_owned(),
        ),
        ("seal", "seal = false", "line 8, column 8: stream[0].seal: off, optional or required was expected, found true or false".to_owned()),
        (
            "name",
            "name = \"$keys\"",
            "line 3, column 8: stream[0].name: a name has 1 to 64 letters, digits, '.', '_' and '-', found \"$keys\"; \
             streams that begin with $ are the bus's own"
                .to_owned(),
        ),
        (
            "name",
            "name = \"a/b\"",
            "line 3, column 8: stream[0].name: a name has 1 to 64 letters, digits, '.', '_' and '-', found \"a/b\"".to_owned(),
        ),
        ("id", "", format!("line 2, column 1: stream[0]: id is missing; {fresh}")),
        ("id", "id = \"\"", format!("line 4, column 6: stream[0].id: {id}, found \"\"; {fresh}")),
        ("id", "id = 7", format!("line 4, column 6: stream[0].id: the id of the stream, in quotes was expected, found a number; {fresh}")),
        ("id", &format!("id = \"{zero}\""), format!("line 4, column 6: stream[0].id: {id}, found \"{zero}\"; {fresh}")),
        (
            "id",
            "id = \"7B0C1D2E3F405162738495A6B7C8D9EA\"",
            format!("line 4, column 6: stream[0].id: {id}, found \"7B0C1D2E3F405162738495A6B7C8D9EA\"; {fresh}"),
        ),
        ("topics", "topics = []", "line 5, column 10: stream[0].topics: the list is empty".to_owned()),
        (
            "topics",
            "topics = \"orders/#\"",
            "line 5, column 10: stream[0].topics: a list of topic filters was expected, found a text".to_owned(),
        ),
        (
            "topics",
            "topics = [\"a\", \"$sys/#\"]",
            "line 5, column 16: stream[0].topics[1]: no rule or stream reaches names that begin with $, which are the \
             bus's own, found \"$sys/#\""
                .to_owned(),
        ),
        (
            "retention",
            "retention = {}",
            "line 6, column 13: stream[0].retention: `retention` has no bound; leave it out for a stream that is kept for ever"
                .to_owned(),
        ),
        ("retention", "retention = \"7d\"", "line 6, column 13: stream[0].retention: a table was expected, found a text".to_owned()),
        (
            "retention",
            "retention = { agee = \"7d\" }",
            "line 6, column 15: stream[0].retention.agee: unknown key `agee`; did you mean `age`?".to_owned(),
        ),
        (
            "retention",
            "retention = { age = 7 }",
            "line 6, column 21: stream[0].retention.age: a span of time in quotes was expected, found a number".to_owned(),
        ),
        ("retention", "retention = { age = \"0d\" }", format!("line 6, column 21: stream[0].retention.age: {span}, found \"0d\"")),
        ("retention", "retention = { age = \"1w\" }", format!("line 6, column 21: stream[0].retention.age: {span}, found \"1w\"")),
        (
            "retention",
            "retention = { age = \"7D\" }",
            format!("line 6, column 21: stream[0].retention.age: {span}, found \"7D\"; did you mean `7d`?"),
        ),
        (
            "retention",
            "retention = { bytes = \"20GB\" }",
            format!("line 6, column 23: stream[0].retention.bytes: {amount}, found \"20GB\"; did you mean `20GiB`?"),
        ),
        ("retention", "retention = { bytes = 0 }", format!("line 6, column 23: stream[0].retention.bytes: {amount}, found \"0\"")),
        ("retention", "retention = { bytes = -1 }", format!("line 6, column 23: stream[0].retention.bytes: {amount}, found \"-1\"")),
        (
            "retention",
            "retention = { bytes = 1.5 }",
            "line 6, column 23: stream[0].retention.bytes: an amount of bytes was expected, found a number with a fraction"
                .to_owned(),
        ),
        (
            "retention",
            "retention = { messages = 0 }",
            "line 6, column 26: stream[0].retention.messages: a number of messages is a whole number from 1".to_owned(),
        ),
        (
            "retention",
            "retention = { messages = \"1000\" }",
            "line 6, column 26: stream[0].retention.messages: a whole number was expected, found a text".to_owned(),
        ),
        (
            "durability",
            "durability = \"fsnyc\"",
            "line 7, column 14: stream[0].durability: fsync, interval or memory was expected, found \"fsnyc\"; did you mean \
             `fsync`?"
                .to_owned(),
        ),
        (
            "durability",
            "durability = \"none\"",
            "line 7, column 14: stream[0].durability: fsync, interval or memory was expected, found \"none\"".to_owned(),
        ),
        (
            "durability",
            "durability = true",
            "line 7, column 14: stream[0].durability: a level of durability was expected, found true or false".to_owned(),
        ),
    ] {
        assert_eq!(error(&with_line(key, line)), expected, "{line}");
    }
    assert_eq!(error("version = 1\nstream = []"), "line 2, column 10: stream: the list is empty");
    assert_eq!(
        error("version = 1\n[stream]\nname = \"a\""),
        "line 2, column 1: stream: tables under [[stream]] was expected, found a table"
    );
}

fn stream(name: &str, id: u64, topics: &[&str]) -> String {
    format!("[[stream]]\nname = \"{name}\"\nid = \"{id:032x}\"\ntopics = {topics:?}\n")
}

#[test]
fn names_and_ids_of_streams_are_unique() {
    let document = |second: String| format!("version = 1\n{}{second}", stream("a", 1, &["a/#"]));
    assert_eq!(
        error(&document(stream("a", 2, &["b"]))),
        "line 7, column 8: stream[1].name: the stream of line 2 has the same name, \"a\""
    );
    assert_eq!(
        error(&document(stream("b", 1, &["b"]))),
        format!(
            "line 8, column 6: stream[1].id: the stream of line 2 has the same id, \"{:032x}\"; one id is one history: \
             `sealbus stream new NAME` draws another",
            1
        )
    );
    assert!(Policy::parse(&document(stream("A", 2, &["b"]))).is_ok());
}

#[test]
fn a_topic_is_kept_by_one_stream() {
    for (one, other, shares) in [
        (&["orders/#"][..], &["orders/eu"][..], Some(("orders/eu", "orders/#"))),
        (&["orders/eu"], &["orders/#"], Some(("orders/#", "orders/eu"))),
        (&["orders/#"], &["orders"], Some(("orders", "orders/#"))),
        (&["#"], &["a"], Some(("a", "#"))),
        (&["a"], &["#"], Some(("#", "a"))),
        (&["+/eu"], &["orders/+"], Some(("orders/+", "+/eu"))),
        (&["a", "b/+/c"], &["d", "b/x/#"], Some(("b/x/#", "b/+/c"))),
        (&["orders/#"], &["order"], None),
        (&["orders/+"], &["orders", "orders/a/b"], None),
        (&["+"], &["+/+/#"], None),
        (&["/#"], &["+"], None),
        // Within one stream they may.
        (&["a/#", "a/b"], &["c"], None),
    ] {
        let text = format!("version = 1\n{}{}", stream("one", 1, one), stream("other", 2, other));
        let found = Policy::parse(&text).map(|_| ()).map_err(|error| error.to_string());
        match shares {
            None => assert_eq!(found, Ok(()), "{one:?} {other:?}"),
            Some((filter, theirs)) => {
                let message = found.unwrap_err();
                let sentence = format!(
                    "a topic is kept by one stream at most, and \"{filter}\" shares topics with \"{theirs}\" of the stream \
                     \"one\", line 2"
                );
                assert!(message.starts_with("line 9, column "), "{message}");
                assert!(message.contains("stream[1].topics["), "{message}");
                assert!(message.ends_with(&sentence), "{message}");
            }
        }
    }
}

#[test]
fn streams_and_their_filters_are_counted() {
    let many = |count: usize| -> String {
        (1..=count).map(|id| stream(&format!("s{id}"), id as u64, &[&format!("s/{id}/#")])).collect()
    };
    let policy = Policy::parse(&format!("version = 1\n{}", many(STREAMS_MAX))).unwrap();
    assert_eq!(policy.summary().streams, STREAMS_MAX);
    assert_eq!(
        error(&format!("version = 1\n{}", many(STREAMS_MAX + 1))),
        "line 2, column 1: stream: at most 1024 streams, found 1025"
    );
    let filters: Vec<String> = (0..=STREAM_FILTERS_MAX).map(|number| format!("t/{number}")).collect();
    let filters: Vec<&str> = filters.iter().map(String::as_str).collect();
    assert!(Policy::parse(&format!("version = 1\n{}", stream("a", 1, &filters[1..]))).is_ok());
    assert_eq!(
        error(&format!("version = 1\n{}", stream("a", 1, &filters))),
        "line 5, column 10: stream[0].topics: at most 64 topic filters of one stream, found 65"
    );
}

/// As many streams with as many filters as fit a document are read, and each topic finds its own.
#[test]
fn the_largest_policy_finds_the_stream_of_a_topic() {
    let mut text = "version = 1\n".to_owned();
    for id in 1..=STREAMS_MAX {
        let filters: Vec<String> =
            (0..STREAM_FILTERS_MAX).map(|number| format!("acme/{id}/{number}/#")).collect();
        let filters: Vec<&str> = filters.iter().map(String::as_str).collect();
        text += &stream(&format!("s{id}"), id as u64, &filters);
    }
    let policy = compiled(&text);
    for id in (1..=STREAMS_MAX).step_by(37) {
        let found = policy.stream_of(&topic(&format!("acme/{id}/63/a/b"))).unwrap();
        assert_eq!(found.name().as_str(), format!("s{id}"));
        assert_eq!(policy.stream(found.name().as_str()), Some(found));
        assert_eq!(policy.stream_by_id(found.id()), Some(found));
        assert_eq!(policy.stream_of(&topic(&format!("acme/{id}/64"))), None);
    }
    assert_eq!(policy.stream("s0"), None);
    assert_eq!(policy.stream_by_id(StreamId::ZERO), None);
    assert_eq!(policy.stream_of(&topic("$sys/a")), None);
}

const STREAMS: &str = "version = 1\n\
    [[stream]]\nname = \"orders\"\nid = \"00000000000000000000000000000001\"\ntopics = [\"orders/eu/#\", \"orders/us/#\"]\n\
    [[stream]]\nname = \"bills\"\nid = \"00000000000000000000000000000002\"\ntopics = [\"bills/+\"]\n";

fn rule(effect: &str, id: &str, who: &str, rest: &str) -> String {
    format!("[[{effect}]]\nid = \"{id}\"\nwho = [\"{who}\"]\n{rest}\n")
}

#[test]
fn faults_of_rules_on_streams_are_told_with_place_and_hint() {
    let kinds = "publish and subscribe are about topics, replay, consume and describe about streams, admin and audit about \
                 the bus, and this rule has verbs of two kinds; write one rule for each kind";
    for (rest, expected) in [
        ("verbs = [\"replay\"]", "line 10, column 1: allow[0]: streams is missing".to_owned()),
        ("verbs = [\"replay\"]\ntopics = [\"orders/#\"]", "line 10, column 1: allow[0]: streams is missing".to_owned()),
        ("verbs = [\"describe\"]\nstreams = []", "line 14, column 11: allow[0].streams: the list is empty".to_owned()),
        (
            "verbs = [\"consume\"]\nstreams = \"orders\"",
            "line 14, column 11: allow[0].streams: a list of streams was expected, found a text".to_owned(),
        ),
        (
            "verbs = [\"replay\"]\nstreams = [\"bills\", \"ordres\"]",
            "line 14, column 21: allow[0].streams[1]: unknown stream \"ordres\"; did you mean `orders`?".to_owned(),
        ),
        ("verbs = [\"replay\"]\nstreams = [\"$keys\"]", "line 14, column 12: allow[0].streams[0]: unknown stream \"$keys\"".to_owned()),
        ("verbs = [\"replay\"]\nstreams = [\"#\"]", "line 14, column 12: allow[0].streams[0]: unknown stream \"#\"".to_owned()),
        (
            "verbs = [\"describe\"]\nstreams = [\"orders\"]\ntopics = [\"orders/#\"]",
            "line 15, column 10: allow[0].topics: the verb describe takes no topics".to_owned(),
        ),
        (
            "verbs = [\"replay\", \"describe\"]\nstreams = [\"orders\"]\ntopics = [\"orders/#\"]",
            "line 15, column 10: allow[0].topics: the verb describe takes no topics".to_owned(),
        ),
        (
            "verbs = [\"publish\"]\ntopics = [\"a\"]\nstreams = [\"orders\"]",
            "line 15, column 11: allow[0].streams: the verb publish takes no streams".to_owned(),
        ),
        ("verbs = [\"audit\"]\nstreams = [\"orders\"]", "line 14, column 11: allow[0].streams: the verb audit takes no streams".to_owned()),
        (
            "verbs = [\"subscribe\", \"replay\"]\nstreams = [\"orders\"]\ntopics = [\"a\"]",
            format!("line 13, column 9: allow[0].verbs: {kinds}"),
        ),
        ("verbs = [\"describe\", \"audit\"]\nstreams = [\"orders\"]", format!("line 13, column 9: allow[0].verbs: {kinds}")),
        (
            "verbs = [\"replay\"]\nstreams = [\"orders\"]\ntopics = [\"orders/eu/#\", \"bills/+\"]",
            "line 15, column 26: allow[0].topics[1]: no stream of this rule keeps topics of \"bills/+\", so it would never hold"
                .to_owned(),
        ),
        (
            "verbs = [\"consume\"]\nstreams = [\"bills\"]\ntopics = [\"$sys/#\"]",
            "line 15, column 11: allow[0].topics[0]: no rule or stream reaches names that begin with $, which are the bus's own, \
             found \"$sys/#\""
                .to_owned(),
        ),
        (
            "verbs = [\"delete\"]\nstreams = [\"orders\"]",
            "line 13, column 10: allow[0].verbs[0]: `delete` is not in this version".to_owned(),
        ),
        (
            "verbs = [\"manage-keys\"]\nstreams = [\"orders\"]",
            "line 13, column 10: allow[0].verbs[0]: `manage-keys` is not in this version".to_owned(),
        ),
    ] {
        assert_eq!(error(&format!("{STREAMS}{}", rule("allow", "r", ANNA, rest))), expected, "{rest}");
    }
    let good = "verbs = [\"replay\", \"consume\"]\nstreams = [\"orders\", \"bills\", \"orders\"]\ntopics = [\"bills/+\", \"#\"]";
    let policy = Policy::parse(&format!("{STREAMS}{}", rule("allow", "r", ANNA, good))).unwrap();
    assert_eq!(policy.rules()[0].streams(), [name("orders"), name("bills")]);
    assert_eq!(
        error(&format!("{STREAMS}[[test]]\nwho = \"{ANNA}\"\ncan = {{ replay = [\"order\"] }}\n")),
        "line 12, column 19: test[0].can.replay[0]: unknown stream \"order\"; did you mean `orders`?"
    );
}

fn decided(policy: &CompiledPolicy, who: &str, act: Act<'_>) -> Result<String, String> {
    let decided = decide(policy, &principal(who), act, &anywhere());
    decided.map(|permit| permit.rule().to_string()).map_err(|denial| denial.to_string())
}

fn joined(
    policy: &CompiledPolicy,
    verb: StreamVerb,
    stream: &str,
    requested: Option<&str>,
) -> Result<(Narrowed, Vec<String>), String> {
    let requested = requested.map(filter);
    let decided =
        policy.subject(&principal(ANNA)).decide_stream(verb, &name(stream), requested.as_ref(), &anywhere());
    let words = |permit: super::super::StreamPermit| {
        (permit.narrowed(), permit.rules().iter().map(ToString::to_string).collect())
    };
    decided.map(words).map_err(|denial| denial.to_string())
}

const BY_DEFAULT: &str = "no rule allows it";

#[test]
fn a_right_on_a_stream_is_that_right_on_that_stream() {
    let policy = compiled(&format!(
        "{STREAMS}{}{}{}",
        rule("allow", "replays", ANNA, "verbs = [\"replay\"]\nstreams = [\"orders\"]"),
        rule("allow", "describes", ANNA, "verbs = [\"describe\"]\nstreams = [\"bills\"]"),
        rule("allow", "receives", BEN, "verbs = [\"subscribe\"]\ntopics = [\"#\"]"),
    ));
    let (orders, bills, eu, bill) = (name("orders"), name("bills"), topic("orders/eu/1"), topic("bills/1"));
    let no = || Err(BY_DEFAULT.to_owned());
    for (who, act, expected) in [
        (ANNA, Act::Replay(&orders, &eu), Ok("replays".to_owned())),
        (ANNA, Act::Consume(&orders, &eu), no()),
        (ANNA, Act::Describe(&orders), no()),
        (ANNA, Act::Replay(&bills, &bill), no()),
        (ANNA, Act::Describe(&bills), Ok("describes".to_owned())),
        (ANNA, Act::Subscribe(&eu), no()),
        (ANNA, Act::Publish(&eu), no()),
        // To receive what comes is no right to what has been.
        (BEN, Act::Subscribe(&eu), Ok("receives".to_owned())),
        (BEN, Act::Replay(&orders, &eu), no()),
        (BEN, Act::Consume(&orders, &eu), no()),
        (BEN, Act::Describe(&orders), no()),
    ] {
        assert_eq!(decided(&policy, who, act), expected, "{who} {act:?}");
    }
    let permit = decide(&policy, &principal(ANNA), Act::Replay(&orders, &eu), &anywhere()).unwrap();
    assert_eq!((permit.stream(), permit.topic()), (Some(&orders), Some(&eu)));
    assert_eq!(
        joined(&policy, StreamVerb::Replay, "orders", None),
        Ok((Narrowed::No, vec!["replays".to_owned()]))
    );
    assert_eq!(joined(&policy, StreamVerb::Consume, "orders", None), Err(BY_DEFAULT.to_owned()));
    // FAILURES T36: a stream that is forbidden and one that is not there are one answer.
    assert_eq!(joined(&policy, StreamVerb::Replay, "bills", None), Err(BY_DEFAULT.to_owned()));
    assert_eq!(joined(&policy, StreamVerb::Replay, "nothing", None), Err(BY_DEFAULT.to_owned()));
}

#[test]
fn a_rule_that_is_narrowed_speaks_of_its_topics_only() {
    let policy = compiled(&format!(
        "{STREAMS}{}{}",
        rule("allow", "all", ANNA, "verbs = [\"replay\", \"consume\"]\nstreams = [\"orders\"]"),
        rule(
            "deny",
            "secret",
            ANNA,
            "verbs = [\"replay\"]\nstreams = [\"orders\"]\ntopics = [\"orders/+/secret/#\"]"
        ),
    ));
    let orders = name("orders");
    let denied = Err("denied by rule \"secret\"".to_owned());
    let ok = Ok("all".to_owned());
    for (level, expected) in
        [("orders/eu/secret", &denied), ("orders/us/secret/a", &denied), ("orders/eu", &ok)]
    {
        let topic = topic(level);
        assert_eq!(&decided(&policy, ANNA, Act::Replay(&orders, &topic)), expected, "{level}");
        assert_eq!(decided(&policy, ANNA, Act::Consume(&orders, &topic)), ok, "{level}");
    }
    let all = |narrowed| Ok((narrowed, vec!["all".to_owned()]));
    for (requested, expected) in [
        (None, all(Narrowed::Yes)),
        (Some("#"), all(Narrowed::Yes)),
        (Some("orders/eu/open/#"), all(Narrowed::No)),
        (Some("orders/+/+"), all(Narrowed::Yes)),
        (Some("orders/eu/secret"), Err("denied by rule \"secret\"".to_owned())),
        (Some("orders/+/secret/#"), Err("denied by rule \"secret\"".to_owned())),
        (Some("$sys/#"), Err("names that begin with $ are the bus's own".to_owned())),
    ] {
        assert_eq!(joined(&policy, StreamVerb::Replay, "orders", requested), expected, "{requested:?}");
    }
    assert_eq!(joined(&policy, StreamVerb::Consume, "orders", Some("orders/+/secret/#")), all(Narrowed::No));
}

#[test]
fn a_rule_reaches_all_of_a_stream_that_covers_what_it_keeps() {
    for (topics, expected) in [
        ("", Narrowed::No),
        ("topics = [\"orders/#\"]", Narrowed::No),
        ("topics = [\"orders/eu/#\", \"orders/us/#\"]", Narrowed::No),
        ("topics = [\"orders/eu/#\"]", Narrowed::Yes),
        ("topics = [\"orders/eu/a\"]", Narrowed::Yes),
    ] {
        let body = format!("verbs = [\"consume\"]\nstreams = [\"orders\"]\n{topics}");
        let policy = compiled(&format!("{STREAMS}{}", rule("allow", "some", ANNA, &body)));
        let found = joined(&policy, StreamVerb::Consume, "orders", None).map(|(narrowed, _)| narrowed);
        assert_eq!(found, Ok(expected), "{topics}");
        let deny = rule("deny", "no", ANNA, &body);
        let all = rule("allow", "all", ANNA, "verbs = [\"consume\"]\nstreams = [\"orders\"]");
        let policy = compiled(&format!("{STREAMS}{all}{deny}"));
        let found = joined(&policy, StreamVerb::Consume, "orders", None).map(|(narrowed, _)| narrowed);
        let expected = match expected {
            Narrowed::No => Err("denied by rule \"no\"".to_owned()),
            Narrowed::Yes => Ok(Narrowed::Yes),
        };
        assert_eq!(found, expected, "deny {topics}");
    }
}

/// FAILURES T37: what the principal may not read any more, a revocation takes at its moment, and every decision that
/// was kept says when.
#[test]
fn a_revocation_takes_streams_too() {
    let body = "verbs = [\"replay\", \"consume\", \"describe\"]\nstreams = [\"orders\"]";
    let policy = compiled(&format!(
        "{STREAMS}{}[[revoke]]\nprincipal = \"{ANNA}\"\nfrom = \"2026-11-01T00:00:00Z\"\n",
        rule("allow", "all", ANNA, body)
    ));
    let from_ms = 1_793_491_200_000;
    let (anna, orders, eu) = (policy.subject(&principal(ANNA)), name("orders"), topic("orders/eu"));
    let at = |now_ms| super::super::Context { now_ms, ..anywhere() };
    for act in [Act::Replay(&orders, &eu), Act::Consume(&orders, &eu), Act::Describe(&orders)] {
        assert_eq!(anna.decide(act, &at(from_ms - 1)).unwrap().expires_ms(), Some(from_ms));
        assert!(matches!(anna.decide(act, &at(from_ms)).unwrap_err().rule(), DenialRule::Revoked(_)));
    }
    for verb in [StreamVerb::Replay, StreamVerb::Consume] {
        let permit = anna.decide_stream(verb, &orders, None, &at(from_ms - 1)).unwrap();
        assert_eq!(permit.expires_ms(), Some(from_ms));
        let denial = anna.decide_stream(verb, &orders, None, &at(from_ms)).unwrap_err();
        assert!(matches!(denial.rule(), DenialRule::Revoked(_)));
    }
}

#[test]
fn tests_speak_of_streams() {
    let document = |test: &str| {
        format!(
            "{STREAMS}{}{}[[test]]\nwho = \"{ANNA}\"\n{test}\n",
            rule(
                "allow",
                "some",
                ANNA,
                "verbs = [\"consume\"]\nstreams = [\"orders\"]\ntopics = [\"orders/eu/#\"]"
            ),
            rule("allow", "all", ANNA, "verbs = [\"replay\", \"describe\"]\nstreams = [\"orders\"]"),
        )
    };
    for (test, failures) in [
        ("can = { consume = [\"orders\"], replay = [\"orders\"], describe = [\"orders\"] }", vec![]),
        ("cannot = { consume = [\"bills\"], replay = [\"bills\"], describe = [\"bills\"] }", vec![]),
        (
            "can = { replay = [\"orders\", \"bills\"] }",
            vec![format!(
                "line 21: test[0] expects that {ANNA} can replay the stream bills, but no rule allows it"
            )],
        ),
        (
            "cannot = { consume = [\"orders\"] }",
            vec![format!(
                "line 21: test[0] expects that {ANNA} cannot consume the stream orders, but only some of it is allowed, by \
                 \"some\""
            )],
        ),
        (
            "cannot = { describe = [\"orders\"], replay = [\"orders\"] }",
            vec![
                format!(
                    "line 21: test[0] expects that {ANNA} cannot replay the stream orders, but rule \"all\" allows it"
                ),
                format!(
                    "line 21: test[0] expects that {ANNA} cannot describe the stream orders, but rule \"all\" allows it"
                ),
            ],
        ),
    ] {
        let found = match CompiledPolicy::compile(Policy::parse(&document(test)).unwrap(), NOW_MS) {
            Ok(_) => Vec::new(),
            Err(PolicyError::Tests(failures)) => failures.iter().map(ToString::to_string).collect(),
        };
        assert_eq!(found, failures, "{test}");
    }
}

#[test]
fn a_stream_without_readers_or_writers_is_remarked_on() {
    let advice = |rules: &str| -> Vec<String> {
        let policy = Policy::parse(&format!("{STREAMS}{rules}")).unwrap();
        policy.advice().iter().map(ToString::to_string).collect()
    };
    let reads = rule("allow", "reads", ANNA, "verbs = [\"consume\"]\nstreams = [\"orders\"]");
    let writes = rule("allow", "writes", ANNA, "verbs = [\"publish\"]\ntopics = [\"bills/#\"]");
    let denies = rule("deny", "denies", ANNA, "verbs = [\"replay\"]\nstreams = [\"bills\"]");
    let nobody_reads = "line 6: no rule allows anybody to replay or consume the stream \"bills\"";
    let nobody_writes = "line 2: no rule allows anybody to publish on topics of the stream \"orders\"";
    assert_eq!(advice(&format!("{reads}{writes}{denies}")), [nobody_writes, nobody_reads]);
    let everything = rule("allow", "publishes", ANNA, "verbs = [\"publish\"]\ntopics = [\"#\"]");
    assert_eq!(advice(&format!("{reads}{everything}")), [nobody_reads]);
    assert_eq!(advice("").len(), 4);
}
