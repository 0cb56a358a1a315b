//! Policy documents, and what they decide.

use serde_json::{Value, json};

const ANNA: &str = "spiffe://acme.example/anna";
const BEN: &str = "spiffe://acme.example/ben";
/// 28 May 2026.
const NOW_MS: u64 = 1_780_000_000_000;

const EXAMPLE: &str = r##"version = 7

[roles]
senders = ["spiffe://acme.example/anna", "dns:orders.acme.example"]
inside = ["spiffe://acme.example/ns/*"]

[[allow]]
id = "orders-send"
who = ["role:senders"]
verbs = ["publish"]
topics = ["orders/+/created", "invoices/#"]

[[allow]]
id = "orders-read"
who = ["spiffe://acme.example/*"]
verbs = ["subscribe"]
topics = ["orders/#"]

[[allow]]
id = "bills-read"
who = ["spiffe://acme.example/anna"]
verbs = ["subscribe"]
topics = ["bills/+"]

[[deny]]
id = "secret"
who = ["role:inside", "spiffe://acme.example/anna"]
verbs = ["subscribe", "publish"]
topics = ["orders/secret/#"]

[[allow]]
id = "secret-read"
who = ["spiffe://acme.example/anna"]
verbs = ["subscribe"]
topics = ["orders/secret/#"]

[[allow]]
id = "everything"
who = ["spiffe://acme.example/ben"]
verbs = ["publish", "subscribe"]
topics = ["#", "+/#"]

[[allow]]
id = "operate"
who = ["spiffe://acme.example/ben"]
verbs = ["admin"]
when = { zone = "internal" }

[[revoke]]
principal = "spiffe://acme.example/carl"

[[revoke]]
principal = "spiffe://acme.example/dora"
from = "2026-11-01T00:00:00Z"

[[test]]
who = "spiffe://acme.example/anna"
can = { publish = ["orders/eu/created"] }
cannot = { subscribe = ["orders/secret/#"], admin = true }
"##;

const CONDITIONS: &str = r##"version = 1

[[allow]]
id = "yes"
who = ["spiffe://acme.example/anna"]
verbs = ["publish"]
topics = ["#"]
when = { source = ["10.20.0.0/16", "2001:db8::/32"], zone = "internal", from = "2026-01-01T02:00:00+02:00", until = "2027-01-01T00:00:00Z" }

[[deny]]
id = "maintenance"
who = ["spiffe://acme.example/anna"]
verbs = ["publish"]
topics = ["#"]
when = { from = "2026-06-01T00:00:00Z", until = "2026-06-02T00:00:00Z" }
"##;

const STREAMS: &str = r##"version = 3

[[stream]]
name = "orders"
id = "7b0c1d2e3f405162738495a6b7c8d9ea"
topics = ["orders/eu/#", "orders/us/#"]
retention = { age = "7d", bytes = "20GiB", messages = 1000000 }

[[stream]]
name = "bills"
id = "0102030405060708090a0b0c0d0e0f10"
topics = ["bills/+"]
retention = { age = "90m", bytes = 65536 }
durability = "interval"
seal = "off"

[[stream]]
name = "metrics"
id = "ffffffffffffffffffffffffffffffff"
topics = ["metrics/+/cpu", "metrics"]
durability = "memory"

[[allow]]
id = "anna-reads-orders"
who = ["spiffe://acme.example/anna"]
verbs = ["replay", "consume"]
streams = ["orders"]

[[allow]]
id = "anna-replays-bills"
who = ["spiffe://acme.example/anna"]
verbs = ["replay"]
topics = ["bills/eu", "+/us"]
streams = ["bills"]

[[deny]]
id = "secret"
who = ["spiffe://acme.example/*"]
verbs = ["replay"]
topics = ["orders/+/secret/#"]
streams = ["orders"]

[[allow]]
id = "ben-reads-all-of-orders"
who = ["spiffe://acme.example/ben"]
verbs = ["consume"]
topics = ["orders/#"]
streams = ["orders", "orders"]
when = { until = "2027-01-01T00:00:00Z" }

[[allow]]
id = "ben-describes"
who = ["spiffe://acme.example/ben"]
verbs = ["describe", "replay"]
streams = ["metrics", "bills"]

[[allow]]
id = "carl-receives"
who = ["spiffe://acme.example/carl"]
verbs = ["subscribe"]
topics = ["#"]

[[revoke]]
principal = "spiffe://acme.example/dora"

[[test]]
who = "spiffe://acme.example/anna"
can = { replay = ["orders", "bills"], consume = ["orders"] }
cannot = { consume = ["bills", "metrics"], describe = ["orders"], subscribe = ["#"] }
"##;

pub(crate) fn vectors() -> Value {
    json!({
        "about": "Policies, as SPEC.md describes them. 'decide': from the document, the decision about each question; a \
                  question with a filter is about a subscription, one with a stream and no topic about reading it at \
                  all (with a filter: what that matches of it), and 'narrowed' says that some of it is permitted. \
                  'expires_ms' is the first moment at which the decision could be another. 'streams': the settings \
                  that the document gives each stream, and 'stream_of' the stream of a topic, null for none. \
                  'refuse': documents that are refused as a whole, with the line of the fault; 'tests': documents that \
                  fail their own tests.",
        "decide": [
            { "name": "the example", "document": EXAMPLE, "version": 7, "questions": example() },
            { "name": "no rules", "document": "version = 1\n", "version": 1, "questions": [
                topic(ANNA, "publish", "a", denied("default", None)),
                act(ANNA, "admin", denied("default", None)),
                filter(ANNA, "#", denied("default", None)),
            ] },
            { "name": "conditions", "document": CONDITIONS, "version": 1, "questions": conditions() },
            { "name": "streams", "document": STREAMS, "version": 3, "questions": on_streams() },
        ],
        "streams": streams(),
        "refuse": refuse(),
        "tests": tests(),
    })
}

fn permitted(rule: &str) -> Value {
    json!({ "decision": "permitted", "rules": [rule], "expires_ms": null })
}

fn narrowed(rules: &[&str]) -> Value {
    json!({ "decision": "narrowed", "rules": rules, "expires_ms": null })
}

fn denied(why: &str, rule: Option<&str>) -> Value {
    json!({ "decision": "denied", "why": why, "rules": Vec::from_iter(rule), "expires_ms": null })
}

fn at(mut question: Value, now_ms: u64, expires_ms: Option<u64>) -> Value {
    question["now_ms"] = now_ms.into();
    question["expect"]["expires_ms"] = expires_ms.into();
    question
}

fn from(mut question: Value, source: &str, zone: Option<&str>) -> Value {
    question["source"] = source.into();
    question["zone"] = zone.into();
    question
}

fn question(who: &str, verb: &str, topic: Option<&str>, filter: Option<&str>, expect: Value) -> Value {
    let mut question = json!({
        "who": who, "verb": verb, "topic": topic, "filter": filter, "stream": null, "source": "127.0.0.1", "zone": null,
        "now_ms": NOW_MS,
    });
    question["expect"] = expect;
    question
}

fn topic(who: &str, verb: &str, name: &str, expect: Value) -> Value {
    question(who, verb, Some(name), None, expect)
}

fn filter(who: &str, text: &str, expect: Value) -> Value {
    question(who, "subscribe", None, Some(text), expect)
}

fn act(who: &str, verb: &str, expect: Value) -> Value {
    question(who, verb, None, None, expect)
}

fn example() -> Value {
    let dns = "dns:orders.acme.example";
    let (below, carl, dora) =
        ("spiffe://acme.example/ns/x", "spiffe://acme.example/carl", "spiffe://acme.example/dora");
    let none = || denied("default", None);
    let reserved = || denied("reserved", None);
    let secret = || denied("deny", Some("secret"));
    let november = 1_793_491_200_000;
    json!([
        topic(ANNA, "publish", "orders/eu/created", permitted("orders-send")),
        topic(dns, "publish", "orders/eu/created", permitted("orders-send")),
        topic(ANNA, "publish", "invoices", permitted("orders-send")),
        topic(ANNA, "publish", "invoices/1/2", permitted("orders-send")),
        topic(ANNA, "publish", "orders/eu/deleted", none()),
        topic(ANNA, "publish", "orders/eu/x/created", none()),
        topic(ANNA, "publish", "Invoices", none()),
        topic("dns:acme.example", "publish", "invoices", none()),
        topic("cn:senders", "publish", "invoices", none()),
        topic("spiffe://acme.example/anna/b", "publish", "invoices", none()),
        topic("spiffe://acme.example/Anna", "publish", "invoices", none()),
        topic("spiffe://acme.example.evil/anna", "subscribe", "orders/eu", none()),
        topic(ANNA, "subscribe", "orders/eu", permitted("orders-read")),
        topic(below, "subscribe", "orders/eu", permitted("orders-read")),
        topic(ANNA, "subscribe", "orders/secret/a", secret()),
        topic(ANNA, "subscribe", "orders/secret", secret()),
        topic(below, "subscribe", "orders/secret", secret()),
        topic("spiffe://acme.example/ns", "subscribe", "orders/secret", permitted("orders-read")),
        topic(BEN, "subscribe", "orders/secret", permitted("orders-read")),
        topic(BEN, "publish", "anything/at/all", permitted("everything")),
        topic(BEN, "publish", "$sys/a", reserved()),
        topic(BEN, "subscribe", "$sys", reserved()),
        topic(BEN, "subscribe", "a/$sys", permitted("everything")),
        act(BEN, "admin", none()),
        from(act(BEN, "admin", permitted("operate")), "10.0.0.1", Some("internal")),
        from(act(BEN, "admin", none()), "10.0.0.1", Some("external")),
        act(BEN, "audit", none()),
        act(ANNA, "admin", none()),
        topic(carl, "subscribe", "orders/eu", denied("revoked", Some("revoke[0]"))),
        topic(carl, "subscribe", "$sys", denied("revoked", Some("revoke[0]"))),
        act(carl, "admin", denied("revoked", Some("revoke[0]"))),
        filter(carl, "orders/#", denied("revoked", Some("revoke[0]"))),
        at(topic(dora, "subscribe", "orders/eu", permitted("orders-read")), november - 1, Some(november)),
        at(topic(dora, "publish", "orders/eu", none()), november - 1, Some(november)),
        at(topic(dora, "publish", "$sys", reserved()), november - 1, Some(november)),
        at(topic(dora, "subscribe", "orders/eu", denied("revoked", Some("revoke[1]"))), november, None),
        filter(ANNA, "orders/eu/#", permitted("orders-read")),
        filter(ANNA, "orders/eu", permitted("orders-read")),
        filter(ANNA, "bills/+", permitted("bills-read")),
        filter(ANNA, "orders/#", narrowed(&["orders-read", "secret-read"])),
        filter(ANNA, "orders/+", narrowed(&["orders-read", "secret-read"])),
        filter(ANNA, "#", narrowed(&["orders-read", "bills-read", "secret-read"])),
        filter(ANNA, "bills/#", narrowed(&["bills-read"])),
        filter(ANNA, "+/eu", narrowed(&["orders-read", "bills-read"])),
        filter(ANNA, "+", narrowed(&["orders-read"])),
        filter(ANNA, "orders/secret", secret()),
        filter(ANNA, "orders/secret/+/a", secret()),
        filter(ANNA, "bills", none()),
        filter(ANNA, "bills/+/+", none()),
        filter(ANNA, "other/#", none()),
        filter(
            BEN,
            "#",
            json!({ "decision": "permitted", "rules": ["orders-read", "everything"], "expires_ms": null })
        ),
        filter(BEN, "$sys/#", reserved()),
        filter(BEN, "$share/g/#", reserved()),
    ])
}

fn conditions() -> Value {
    let (begin, end) = (1_767_225_600_000_u64, 1_798_761_600_000_u64);
    let (break_begins, break_ends) = (1_780_272_000_000_u64, 1_780_358_400_000_u64);
    let yes = || permitted("yes");
    let none = || denied("default", None);
    let no = || denied("deny", Some("maintenance"));
    let ask = |source: &str, zone: Option<&str>, now_ms: u64, expect: Value, expires_ms: Option<u64>| {
        at(from(topic(ANNA, "publish", "a", expect), source, zone), now_ms, expires_ms)
    };
    let inside = Some("internal");
    json!([
        ask("10.20.1.1", inside, begin - 1, none(), Some(begin)),
        ask("10.20.1.1", inside, begin, yes(), Some(break_begins)),
        ask("::ffff:10.20.1.1", inside, begin, yes(), Some(break_begins)),
        ask("2001:db8::1", inside, begin, yes(), Some(break_begins)),
        ask("2001:db9::1", inside, begin, none(), Some(break_begins)),
        ask("10.20.1.1", inside, break_begins - 1, yes(), Some(break_begins)),
        ask("10.20.1.1", inside, break_begins, no(), Some(break_ends)),
        ask("10.21.1.1", inside, break_begins, no(), Some(break_ends)),
        ask("10.20.1.1", inside, break_ends, yes(), Some(end)),
        ask("10.20.1.1", inside, end - 1, yes(), Some(end)),
        ask("10.20.1.1", inside, end, none(), None),
        ask("10.21.1.1", inside, begin, none(), Some(break_begins)),
        ask("10.20.1.1", Some("external"), begin, none(), Some(break_begins)),
        ask("10.20.1.1", Some("Internal"), begin, none(), Some(break_begins)),
        ask("10.20.1.1", None, begin, none(), Some(break_begins)),
    ])
}

/// A question about a stream: one of its topics, or all of it, or what a filter matches of it.
fn of(mut question: Value, stream: &str) -> Value {
    question["stream"] = stream.into();
    question
}

fn on_streams() -> Value {
    let (carl, dora) = ("spiffe://acme.example/carl", "spiffe://acme.example/dora");
    let none = || denied("default", None);
    let secret = || denied("deny", Some("secret"));
    let revoked = || denied("revoked", Some("revoke[0]"));
    let reserved = || denied("reserved", None);
    let year = |mut question: Value| {
        question["expect"]["expires_ms"] = 1_798_761_600_000_u64.into();
        question
    };
    let on = |who: &str, verb: &str, stream: &str, name: &str, expect: Value| {
        of(topic(who, verb, name, expect), stream)
    };
    let all = |who: &str, verb: &str, stream: &str, expect: Value| of(act(who, verb, expect), stream);
    let some = |who: &str, verb: &str, stream: &str, text: &str, expect: Value| {
        of(question(who, verb, None, Some(text), expect), stream)
    };
    json!([
        on(ANNA, "replay", "orders", "orders/eu/1", permitted("anna-reads-orders")),
        on(ANNA, "consume", "orders", "orders/us", permitted("anna-reads-orders")),
        on(ANNA, "replay", "orders", "orders/eu/secret", secret()),
        on(ANNA, "replay", "orders", "orders/us/secret/a/b", secret()),
        on(ANNA, "consume", "orders", "orders/eu/secret", permitted("anna-reads-orders")),
        on(ANNA, "replay", "bills", "bills/eu", permitted("anna-replays-bills")),
        on(ANNA, "replay", "bills", "bills/us", permitted("anna-replays-bills")),
        on(ANNA, "replay", "bills", "bills/fr", none()),
        on(ANNA, "consume", "bills", "bills/eu", none()),
        on(ANNA, "replay", "metrics", "metrics/a/cpu", none()),
        topic(ANNA, "subscribe", "orders/eu/1", none()),
        topic(ANNA, "publish", "orders/eu/1", none()),
        on(carl, "replay", "orders", "orders/eu/1", none()),
        on(carl, "consume", "orders", "orders/eu/1", none()),
        topic(carl, "subscribe", "orders/eu/1", permitted("carl-receives")),
        year(on(BEN, "consume", "orders", "orders/eu/1", permitted("ben-reads-all-of-orders"))),
        on(BEN, "replay", "orders", "orders/eu/1", none()),
        on(BEN, "replay", "bills", "bills/fr", permitted("ben-describes")),
        on(BEN, "replay", "bills", "$sys/a", reserved()),
        on(dora, "replay", "orders", "orders/eu/1", revoked()),
        all(BEN, "describe", "metrics", permitted("ben-describes")),
        all(BEN, "describe", "orders", none()),
        all(BEN, "describe", "nothing", none()),
        all(dora, "describe", "orders", revoked()),
        all(ANNA, "replay", "orders", narrowed(&["anna-reads-orders"])),
        all(ANNA, "consume", "orders", permitted("anna-reads-orders")),
        all(ANNA, "replay", "bills", narrowed(&["anna-replays-bills"])),
        all(ANNA, "consume", "bills", none()),
        all(ANNA, "replay", "nothing", none()),
        all(carl, "replay", "orders", none()),
        all(dora, "consume", "orders", revoked()),
        year(all(BEN, "consume", "orders", permitted("ben-reads-all-of-orders"))),
        all(BEN, "replay", "metrics", permitted("ben-describes")),
        some(ANNA, "replay", "orders", "orders/eu/open/#", permitted("anna-reads-orders")),
        some(ANNA, "replay", "orders", "orders/eu/#", narrowed(&["anna-reads-orders"])),
        some(ANNA, "replay", "orders", "orders/eu/secret", secret()),
        some(ANNA, "replay", "orders", "orders/+/secret/+", secret()),
        some(ANNA, "consume", "orders", "orders/+/secret/+", permitted("anna-reads-orders")),
        some(ANNA, "replay", "bills", "bills/eu", permitted("anna-replays-bills")),
        some(ANNA, "replay", "bills", "bills/fr", none()),
        some(ANNA, "replay", "bills", "#", narrowed(&["anna-replays-bills"])),
        some(ANNA, "replay", "orders", "$sys/#", reserved()),
    ])
}

fn streams() -> Value {
    let stream = |name: &str, id: &str, topics: &[&str], retention: [Option<u64>; 3], durability: &str| {
        let [age_ms, bytes, messages] = retention;
        json!({
            "name": name, "id": id, "topics": topics, "durability": durability, "age_ms": age_ms, "bytes": bytes,
            "messages": messages,
        })
    };
    let of = |topic: &str, stream: Option<&str>| json!({ "topic": topic, "stream": stream });
    json!({
        "document": STREAMS,
        "streams": [
            stream(
                "orders",
                "7b0c1d2e3f405162738495a6b7c8d9ea",
                &["orders/eu/#", "orders/us/#"],
                [Some(604_800_000), Some(21_474_836_480), Some(1_000_000)],
                "fsync",
            ),
            stream(
                "bills",
                "0102030405060708090a0b0c0d0e0f10",
                &["bills/+"],
                [Some(5_400_000), Some(65_536), None],
                "interval",
            ),
            stream("metrics", "ffffffffffffffffffffffffffffffff", &["metrics/+/cpu", "metrics"], [None; 3], "memory"),
        ],
        "stream_of": [
            of("orders/eu", Some("orders")),
            of("orders/us/a/b", Some("orders")),
            of("orders/fr", None),
            of("orders", None),
            of("bills/1", Some("bills")),
            of("bills", None),
            of("bills/1/2", None),
            of("metrics", Some("metrics")),
            of("metrics/a/cpu", Some("metrics")),
            of("metrics//cpu", Some("metrics")),
            of("metrics/a/ram", None),
            of("$sys/metrics", None),
            of("$dead/orders/billing", None),
        ],
    })
}

/// A document of one rule, whose lines begin at line 2.
fn rule(lines: &str) -> String {
    format!("version = 1\n[[allow]]\n{lines}\n")
}

/// A document of one stream, with some lines replaced, which begins at line 2.
fn stream(replaced: &[(&str, &str)]) -> String {
    let mut text = "version = 1\n[[stream]]\n".to_owned();
    for (key, value) in [
        ("name", "\"orders\""),
        ("id", "\"000000000000000000000000000000ea\""),
        ("topics", "[\"orders/#\"]"),
        ("retention", "{ age = \"7d\" }"),
        ("durability", "\"fsync\""),
        ("seal", "\"off\""),
    ] {
        let other = replaced.iter().find(|(other, _)| *other == key);
        text += &format!("{key} = {}\n", other.map_or(value, |(_, other)| other));
    }
    text
}

/// A second stream, which begins at line 9.
fn second(name: &str, id_end: &str, topic: &str) -> String {
    format!("[[stream]]\nname = \"{name}\"\nid = \"{}{id_end}\"\ntopics = [\"{topic}\"]\n", "0".repeat(30))
}

/// A document of one stream and of one rule on streams, which begins at line 9.
fn on_stream(streams: &str, verb: &str, topics: &str) -> String {
    let who = "who = [\"spiffe://acme.example/anna\"]";
    format!(
        "{}[[allow]]\nid = \"a\"\n{who}\nverbs = [\"{verb}\"]\nstreams = [{streams}]\n{topics}\n",
        stream(&[])
    )
}

fn refuse() -> Value {
    let who = "who = [\"spiffe://acme.example/anna\"]";
    let whole = format!("id = \"a\"\n{who}\nverbs = [\"publish\"]\ntopics = [\"#\"]");
    [
        ("nothing", String::new(), 1),
        ("no version", "[roles]\n".to_owned(), 1),
        ("version 0", "version = 0\n".to_owned(), 1),
        ("version in quotes", "version = \"1\"\n".to_owned(), 1),
        ("not TOML", "version = 1\nversion = 2\n".to_owned(), 2),
        ("an unknown key", "version = 1\nalow = 1\n".to_owned(), 2),
        ("an unknown key of a rule", rule(&format!("{whole}\nverb = 1")), 7),
        ("no id", rule(&format!("{who}\nverbs = [\"admin\"]")), 2),
        ("an id with a space", rule(&whole.replace("\"a\"", "\"a b\"")), 3),
        ("an id twice", rule(&format!("{whole}\n[[deny]]\n{whole}")), 8),
        ("nobody", rule("id = \"a\"\nwho = []\nverbs = [\"admin\"]"), 4),
        ("a role that is not defined", rule("id = \"a\"\nwho = [\"role:x\"]\nverbs = [\"admin\"]"), 4),
        ("a star for everybody", rule("id = \"a\"\nwho = [\"*\"]\nverbs = [\"admin\"]"), 4),
        (
            "a star inside a path",
            rule("id = \"a\"\nwho = [\"spiffe://acme.example/*/a\"]\nverbs = [\"admin\"]"),
            4,
        ),
        ("a role within a role", "version = 1\n[roles]\na = [\"cn:x\"]\nb = [\"role:a\"]\n".to_owned(), 4),
        ("an unknown verb", rule(&format!("id = \"a\"\n{who}\nverbs = [\"write\"]")), 5),
        (
            "verbs with and without topics",
            rule(&format!("id = \"a\"\n{who}\nverbs = [\"publish\", \"admin\"]\ntopics = [\"#\"]")),
            5,
        ),
        ("publish without topics", rule(&format!("id = \"a\"\n{who}\nverbs = [\"publish\"]")), 2),
        ("admin with topics", rule(&format!("id = \"a\"\n{who}\nverbs = [\"admin\"]\ntopics = [\"#\"]")), 6),
        ("a filter that is none", rule(&whole.replace("\"#\"", "\"a#\"")), 6),
        ("a reserved filter", rule(&whole.replace("\"#\"", "\"$sys/#\"")), 6),
        ("no condition", rule(&format!("{whole}\nwhen = {{}}")), 7),
        ("a network without its bits", rule(&format!("{whole}\nwhen = {{ source = [\"10.0.0.1\"] }}")), 7),
        (
            "a network with bits beyond its prefix",
            rule(&format!("{whole}\nwhen = {{ source = [\"10.0.0.1/8\"] }}")),
            7,
        ),
        ("a time without a zone", rule(&format!("{whole}\nwhen = {{ until = \"2026-01-01T00:00:00\" }}")), 7),
        ("a time without quotes", rule(&format!("{whole}\nwhen = {{ until = 2026-01-01T00:00:00Z }}")), 7),
        (
            "an end before the beginning",
            rule(&format!(
                "{whole}\nwhen = {{ from = \"2027-01-01T00:00:00Z\", until = \"2026-01-01T00:00:00Z\" }}"
            )),
            7,
        ),
        (
            "a revocation of a path",
            "version = 1\n[[revoke]]\nprincipal = \"spiffe://acme.example/*\"\n".to_owned(),
            3,
        ),
        ("a test that expects nothing", "version = 1\n[[test]]\nwho = \"cn:x\"\n".to_owned(), 2),
        (
            "a test that expects the false",
            "version = 1\n[[test]]\nwho = \"cn:x\"\ncan = { admin = false }\n".to_owned(),
            4,
        ),
        ("operators: not in this version", "version = 1\n[operators]\n".to_owned(), 2),
        ("limits: not in this version", "version = 1\n[[limit]]\n".to_owned(), 2),
        ("a verb that is not in this version", rule(&format!("id = \"a\"\n{who}\nverbs = [\"delete\"]")), 5),
        ("publish with streams", rule(&format!("{whole}\nstreams = [\"a\"]")), 7),
        ("replay without streams", rule(&format!("id = \"a\"\n{who}\nverbs = [\"replay\"]")), 2),
        ("a stream without an id", "version = 1\n[[stream]]\nname = \"a\"\ntopics = [\"a\"]\n".to_owned(), 2),
        ("a stream of the bus", stream(&[("name", "\"$keys\"")]), 3),
        ("an id of zeros", stream(&[("id", "\"00000000000000000000000000000000\"")]), 4),
        ("an id in capitals", stream(&[("id", "\"7B0C1D2E3F405162738495A6B7C8D9EA\"")]), 4),
        ("a stream without topics", stream(&[("topics", "[]")]), 5),
        ("a stream of reserved topics", stream(&[("topics", "[\"a\", \"$sys/#\"]")]), 5),
        ("a retention without a bound", stream(&[("retention", "{}")]), 6),
        ("an age without a unit", stream(&[("retention", "{ age = \"7\" }")]), 6),
        ("an age of two units", stream(&[("retention", "{ age = \"1d12h\" }")]), 6),
        ("a decimal unit", stream(&[("retention", "{ bytes = \"20GB\" }")]), 6),
        ("no messages", stream(&[("retention", "{ messages = 0 }")]), 6),
        ("an unknown durability", stream(&[("durability", "\"none\"")]), 7),
        ("a sealed stream: not in this version", stream(&[("seal", "\"required\"")]), 8),
        ("an unknown key of a stream", format!("{}subjects = 1\n", stream(&[])), 9),
        ("a name twice", format!("{}{}", stream(&[]), second("orders", "02", "bills")), 10),
        ("an id of a stream twice", format!("{}{}", stream(&[]), second("bills", "ea", "bills")), 11),
        ("a topic in two streams", format!("{}{}", stream(&[]), second("bills", "02", "+/eu")), 12),
        ("a stream that is not there", on_stream("\"order\"", "replay", ""), 13),
        (
            "topics that the stream does not keep",
            on_stream("\"orders\"", "replay", "topics = [\"bills\"]"),
            14,
        ),
        ("describe with topics", on_stream("\"orders\"", "describe", "topics = [\"orders/#\"]"), 14),
        (
            "a test about a stream that is not there",
            "version = 1\n[[test]]\nwho = \"cn:x\"\ncannot = { replay = [\"a\"] }\n".to_owned(),
            4,
        ),
        (
            "a revocation of a kid: not in this version",
            "version = 1\n[[revoke]]\nkid = \"00\"\n".to_owned(),
            3,
        ),
    ]
    .into_iter()
    .map(|(name, document, line)| json!({ "name": name, "document": document, "line": line }))
    .collect()
}

fn tests() -> Value {
    let base = "version = 1\n[[allow]]\nid = \"a\"\nwho = [\"cn:x\"]\nverbs = [\"subscribe\"]\ntopics = [\"a/#\"]\nwhen = { zone = \"internal\" }\n[[test]]\nwho = \"cn:x\"\n";
    [
        ("a right that is not there", "zone = \"internal\"\ncan = { subscribe = [\"b\"] }\n", 1),
        ("a filter that is permitted in part", "zone = \"internal\"\ncan = { subscribe = [\"#\"] }\n", 1),
        ("a filter that is not refused as a whole", "cannot = { subscribe = [\"#\"] }\n", 1),
        ("permitted from some places only", "can = { subscribe = [\"a\"] }\n", 1),
        ("refused from some places only", "cannot = { subscribe = [\"a\"] }\n", 1),
        ("three expectations, two not met", "can = { publish = [\"a\", \"b\"] }\ncannot = { audit = true }\n", 2),
    ]
    .into_iter()
    .map(|(name, test, failures)| json!({ "name": name, "document": format!("{base}{test}"), "failures": failures }))
    .collect()
}
