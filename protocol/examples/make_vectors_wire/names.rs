//! Topics, filters, principals, and what matches what.

use sealbus_protocol::ids::StreamId;
use sealbus_protocol::topic::Topic;
use serde_json::{Value, json};

pub(crate) fn vectors() -> Value {
    json!({
        "about": "Names, as SPEC.md describes them. 'topics', 'filters', 'principals': which texts are one. 'matches': \
                  whether the filter matches the topic. 'pairs': whether two filters share a topic ('overlaps', the \
                  same both ways), and whether the first matches all that the second matches ('covers'). 'digests': \
                  topics as batches carry them.",
        "topics": texts(&topics()),
        "filters": texts(&filters()),
        "principals": principals(),
        "matches": matches(),
        "pairs": pairs(),
        "digests": digests(),
    })
}

fn texts(cases: &[(String, bool)]) -> Value {
    cases.iter().map(|(text, valid)| json!({ "text": text, "valid": valid })).collect()
}

fn case(text: &str, valid: bool) -> (String, bool) {
    (text.to_owned(), valid)
}

fn topics() -> Vec<(String, bool)> {
    let mut cases = limits();
    cases.extend(
        [
            "a",
            "/",
            "//",
            "a/b",
            "a//b",
            "/a",
            "a/",
            " ",
            "a b",
            "é/日本",
            "$sys/a",
            "a/$b",
            "*",
            ">",
            "a/\u{a0}",
        ]
        .map(|text| case(text, true)),
    );
    cases.extend(
        ["", "+", "#", "a/+", "a/#", "a+b", "$sys/#", "a\0", "a\nb", "a\u{7f}", "a\u{85}", "\u{1b}[2J"]
            .map(|text| case(text, false)),
    );
    cases
}

fn filters() -> Vec<(String, bool)> {
    let mut cases = limits();
    cases.extend(
        ["#", "+", "/", "a", "+/+", "/+", "+/", "a/#", "+/#", "/#", "a/+/b", "a//#", "$sys/#", "*"]
            .map(|text| case(text, true)),
    );
    cases.extend(
        ["", "a+", "+a", "++", "##", "a/b#", "a/#b", "#/", "#/a", "a/#/b", "a/#/#", "a/\0", "a/\r\nb"]
            .map(|text| case(text, false)),
    );
    cases
}

/// 1,024 bytes and 64 levels, and one more of each.
fn limits() -> Vec<(String, bool)> {
    vec![
        ("é".repeat(512), true),
        (format!("{}a", "é".repeat(512)), false),
        ("/".repeat(63), true),
        ("/".repeat(64), false),
    ]
}

fn principals() -> Value {
    let mut cases: Vec<(String, bool)> = [
        "spiffe://acme.example/billing",
        "spiffe://acme.example/ns/a/sa/B_1.c-2",
        "spiffe://acme.example/...",
        "dns:orders.acme.example",
        "dns:localhost",
        "dns:_sip.a-b.example",
        "cn:Orders Service",
        "cn:Zoë",
        "cn:a?b.[c]",
    ]
    .map(|text| case(text, true))
    .into();
    cases.extend(
        [
            "",
            "orders",
            "https://acme.example/a",
            "Spiffe://acme.example/a",
            "spiffe://acme.example",
            "spiffe://acme.example/",
            "spiffe://acme.example/a/",
            "spiffe://acme.example//a",
            "spiffe://acme.example/a/../b",
            "spiffe://acme.example/a/./b",
            "spiffe://acme.example/a%2fb",
            "spiffe://acme.example/a?b",
            "spiffe://acme.example/a#b",
            "spiffe://acme.example/*",
            "spiffe://acme.example/é",
            "spiffe://acme.example:443/a",
            "spiffe://u@acme.example/a",
            "spiffe://Acme.example/a",
            "spiffe:///a",
            "dns:",
            "dns:*.acme.example",
            "dns:Orders.example",
            "dns:a..b",
            "dns:a.b.",
            "dns:-a.b",
            "cn:",
            "cn:#",
            "cn:a+b",
            "cn:a/b",
            "cn:${user}",
            "cn:a\0b",
            "cn:a\nb",
            "cn:a\u{85}b",
            "cn:a\u{202e}b",
            "cn:a\u{200b}b",
        ]
        .map(|text| case(text, false)),
    );
    cases.push((format!("cn:{}", "a".repeat(2_045)), true));
    cases.push((format!("cn:{}", "a".repeat(2_046)), false));
    texts(&cases)
}

fn matches() -> Value {
    [
        ("a", "a", true),
        ("a", "A", false),
        ("a", "a/", false),
        ("a", "ab", false),
        ("a/b", "a/b", true),
        ("a//b", "a/b", false),
        ("+", "a", true),
        ("+", "/", false),
        ("+", "a/b", false),
        ("+/+", "/", true),
        ("+/+", "/a", true),
        ("/+", "/a", true),
        ("a/+", "a/", true),
        ("a/+", "a", false),
        ("a/+/c", "a/b/c", true),
        ("a/+/c", "a//c", true),
        ("a/+/c", "a/b/b/c", false),
        ("#", "a", true),
        ("#", "/", true),
        ("#", "a/b/c", true),
        ("a/#", "a", true),
        ("a/#", "a/", true),
        ("a/#", "a/b/c", true),
        ("a/#", "ab", false),
        ("a/#", "b/a", false),
        ("+/#", "a", true),
        ("+/b/#", "a/b", true),
        ("*", "a", false),
        (">", "a", false),
        ("é", "e\u{301}", false),
        ("#", "$sys/a", false),
        ("+/a", "$sys/a", false),
        ("+/#", "$sys/a", false),
        ("+", "$sys", false),
        ("$sys/#", "$sys/a", true),
        ("$sys/+", "$sys/a", true),
        ("a/#", "a/$sys", true),
        ("a/+", "a/$sys", true),
        ("/#", "/$sys", true),
    ]
    .into_iter()
    .map(|(filter, topic, matches)| json!({ "filter": filter, "topic": topic, "matches": matches }))
    .collect()
}

fn pairs() -> Value {
    [
        ("#", "#", true, true),
        ("#", "+/#", true, true),
        ("+/#", "#", true, true),
        ("+/+/#", "#", true, false),
        ("#", "$sys/#", false, false),
        ("$sys/#", "$sys/+", true, true),
        ("$sys/#", "#", false, false),
        ("a/#", "a", true, true),
        ("a/#", "a/+", true, true),
        ("a/#", "a/#", true, true),
        ("a/#", "+", true, false),
        ("a/+/#", "a/#", true, false),
        ("a/+", "a/#", true, false),
        ("a/+", "a/b", true, true),
        ("a/+", "+/b", true, false),
        ("a/+", "b/+", false, false),
        ("a/b", "a/+", true, false),
        ("a/b", "a/b/c", false, false),
        ("a/b/#", "a", false, false),
        ("a/+/c", "a/b/#", true, false),
        ("+", "#", true, false),
        ("+/b", "a/b", true, true),
        ("/#", "+", false, false),
        ("/#", "+/+", true, false),
        ("/+/#", "/#", true, true),
        ("+/a", "$sys/a", false, false),
    ]
    .into_iter()
    .map(|(one, two, overlaps, covers)| json!({ "one": one, "two": two, "overlaps": overlaps, "covers": covers }))
    .collect()
}

fn digests() -> Value {
    let streams = [StreamId::ZERO, StreamId::new([0x5e; 16])];
    ["orders/eu/created", "orders/eu", "/", "é/日本"]
        .into_iter()
        .flat_map(|name| streams.map(|stream| (name, stream)))
        .map(|(name, stream)| {
            let digest = Topic::parse(name).expect("a topic").digest(&stream);
            json!({ "topic": name, "stream_id": stream.to_string(), "digest": digest.to_string() })
        })
        .collect()
}
