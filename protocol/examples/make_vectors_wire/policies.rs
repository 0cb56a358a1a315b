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

pub(crate) fn vectors() -> Value {
    json!({
        "about": "Policies, as SPEC.md describes them. 'decide': from the document, the decision about each question; a \
                  question with a filter is about a subscription, and 'narrowed' says that some of it is permitted. \
                  'expires_ms' is the first moment at which the decision could be another. 'refuse': documents that \
                  are refused as a whole, with the line of the fault; 'tests': documents that fail their own tests.",
        "decide": [
            { "name": "the example", "document": EXAMPLE, "version": 7, "questions": example() },
            { "name": "no rules", "document": "version = 1\n", "version": 1, "questions": [
                topic(ANNA, "publish", "a", denied("default", None)),
                act(ANNA, "admin", denied("default", None)),
                filter(ANNA, "#", denied("default", None)),
            ] },
            { "name": "conditions", "document": CONDITIONS, "version": 1, "questions": conditions() },
        ],
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
        "who": who, "verb": verb, "topic": topic, "filter": filter, "source": "127.0.0.1", "zone": null,
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

/// A document of one rule, whose lines begin at line 2.
fn rule(lines: &str) -> String {
    format!("version = 1\n[[allow]]\n{lines}\n")
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
        ("streams: not in this version", "version = 1\n[[stream]]\nname = \"a\"\n".to_owned(), 2),
        ("limits: not in this version", "version = 1\n[[limit]]\n".to_owned(), 2),
        ("a verb that is not in this version", rule(&format!("id = \"a\"\n{who}\nverbs = [\"replay\"]")), 5),
        ("a rule on streams: not in this version", rule(&format!("{whole}\nstreams = [\"a\"]")), 7),
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
