//! Documents: what is read, and far more of what is refused.

use proptest::prelude::*;

use super::super::{DocumentFault, Effect, Policy, Verb};
use crate::limits::{POLICY_BYTES_MAX, POLICY_NAME_BYTES_MAX};

const WHOLE: &str = r##"# Everything that has effect in this version.
version = 7

[roles]
billing = ["spiffe://acme.example/billing", "spiffe://acme.example/billing-batch"]
ops = ["spiffe://acme.example/ops/*"]

[[allow]]
id = "billing-reads-orders"
who = ["role:billing", "dns:reports.acme.example"]
verbs = ["subscribe", "publish", "subscribe"]
topics = ["orders/+/created"]
when = { source = ["10.20.0.0/16"], zone = "internal", until = "2027-01-01T00:00:00Z" }

[[deny]]
id = "no-secrets"
who = ["spiffe://acme.example/*"]
verbs = ["subscribe"]
topics = ["orders/secret/#"]
[deny.when]
zone = "external"

[[allow]]
id = "ops"
who = ["role:ops"]
verbs = ["admin", "audit"]

[[stream]]
name = "orders"
id = "7b0c1d2e3f405162738495a6b7c8d9ea"
topics = ["orders/#"]
retention = { age = "7d", bytes = "20GiB", messages = 1_000_000 }
durability = "interval"
seal = "off"

[[allow]]
id = "billing-consumes-orders"
who = ["role:billing"]
verbs = ["consume", "replay"]
topics = ["orders/+/created", "+/eu/#"]
streams = ["orders"]

[[revoke]]
principal = "spiffe://acme.example/old-reports"
from = "2026-11-01T00:00:00.250+01:00"

[[test]]
who = "spiffe://acme.example/intruder"
cannot = { publish = ["orders/eu/created"], replay = ["orders"], admin = true }
"##;

#[test]
fn the_whole_grammar_is_read() {
    let policy = Policy::parse(WHOLE).unwrap();
    assert_eq!(
        policy.summary().to_string(),
        "version 7: 3 allow, 1 deny, 2 roles, 1 streams, 1 revocations, 1 tests"
    );
    let rules: Vec<_> =
        policy.rules().iter().map(|rule| (rule.id().as_str(), rule.effect(), rule.line())).collect();
    assert_eq!(
        rules,
        [
            ("billing-reads-orders", Effect::Allow, 8),
            ("no-secrets", Effect::Deny, 15),
            ("ops", Effect::Allow, 23),
            ("billing-consumes-orders", Effect::Allow, 36)
        ]
    );
    let [first, second, third, fourth] = policy.rules() else { panic!() };
    assert_eq!(first.verbs(), [Verb::Subscribe, Verb::Publish]);
    assert_eq!(
        first.who().iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["role:billing", "dns:reports.acme.example"]
    );
    assert_eq!(first.filters()[0].as_str(), "orders/+/created");
    assert_eq!(first.when().until_ms(), Some(1_798_761_600_000));
    assert_eq!(first.when().source()[0].to_string(), "10.20.0.0/16");
    assert_eq!(second.who()[0].to_string(), "spiffe://acme.example/*");
    assert_eq!(second.when().zone().map(ToString::to_string), Some("external".to_owned()));
    assert_eq!((third.verbs(), third.filters().len()), (&[Verb::Admin, Verb::Audit][..], 0));
    assert_eq!((fourth.verbs(), fourth.filters().len()), (&[Verb::Consume, Verb::Replay][..], 2));
    assert_eq!(fourth.streams(), [policy.streams()[0].name().clone()]);
    assert_eq!(policy.revocations()[0].from_ms(), 1_793_487_600_250);
    assert_eq!(policy.tests()[0].expectations().len(), 3);
    assert_eq!(policy.roles()[0].members().len(), 2);
    super::compiled(WHOLE);
}

#[test]
fn a_document_may_begin_with_a_byte_order_mark_and_end_lines_as_windows_does() {
    let text = format!("\u{feff}{}", WHOLE.replace('\n', "\r\n"));
    assert_eq!(Policy::parse(&text).unwrap().rules()[1].line(), 15);
}

/// FAILURES T26: a document that says nothing is refused, and never means that everything is allowed.
#[test]
fn an_empty_document_is_refused() {
    for text in ["", " ", "\n\n", "# nothing but a comment", "# one\n\n# two\n", "\u{feff}", "[roles]\n"] {
        let error = Policy::parse(text).unwrap_err();
        assert_eq!(error.fault(), &DocumentFault::Missing { key: "version" }, "{text:?}");
        assert_eq!(error.to_string(), "line 1, column 1: version is missing");
    }
}

/// FAILURES T26 and T27: every prefix of a document is either refused or, where it ends between sections, holds no
/// rule that the whole does not. There is no half-read rule, as long as what may be left out of one stands before what
/// may not, as `topics` before `streams`.
#[test]
fn a_torn_document_holds_no_rule_that_the_whole_does_not() {
    let whole = Policy::parse(WHOLE).unwrap();
    for end in (0..WHOLE.len()).filter(|end| WHOLE.is_char_boundary(*end)) {
        let Ok(torn) = Policy::parse(&WHOLE[..end]) else { continue };
        for (rule, expected) in torn.rules().iter().zip(whole.rules()) {
            assert_eq!(
                (rule.id(), rule.verbs(), rule.filters()),
                (expected.id(), expected.verbs(), expected.filters())
            );
            assert_eq!(rule.streams(), expected.streams());
        }
    }
}

#[test]
fn a_document_has_a_size() {
    let text = format!("version = 1\n#{}", "a".repeat(POLICY_BYTES_MAX));
    assert_eq!(Policy::parse(&text).unwrap_err().fault(), &DocumentFault::TooLarge { found: text.len() });
}

/// A document with one rule, in which one line is replaced.
fn with_line(key: &str, line: &str) -> String {
    let lines = [
        ("id", r#"id = "a""#),
        ("who", r#"who = ["dns:a"]"#),
        ("verbs", r#"verbs = ["publish"]"#),
        ("topics", r#"topics = ["a/#"]"#),
        ("when", r#"when = { zone = "z" }"#),
    ];
    let lines = lines.map(|(name, standard)| if name == key { line } else { standard });
    format!("version = 1\n[roles]\nbilling = [\"dns:b\"]\n[[allow]]\n{}\n", lines.join("\n"))
}

#[test]
fn the_standard_rule_is_valid() {
    assert!(Policy::parse(&with_line("", "")).is_ok());
}

#[test]
fn faults_of_rules_are_told_with_place_and_hint() {
    let lines = [
        // Keys.
        (
            "topics",
            r#"topic = ["a"]"#,
            "line 8, column 1: allow[0].topic: unknown key `topic`; did you mean `topics`?",
        ),
        (
            "when",
            r#"whom = ["a"]"#,
            "line 9, column 1: allow[0].whom: unknown key `whom`; did you mean `who`?",
        ),
        (
            "when",
            r#"Topics = ["a"]"#,
            "line 9, column 1: allow[0].Topics: unknown key `Topics`; did you mean `topics`?",
        ),
        ("when", r#"priority = 1"#, "line 9, column 1: allow[0].priority: unknown key `priority`"),
        ("when", "\"a\\nb\" = 1", "line 9, column 1: allow[0].a\\nb: unknown key `a\\nb`"),
        (
            "when",
            r#"streams = ["orders"]"#,
            "line 9, column 11: allow[0].streams: the verb publish takes no streams",
        ),
        ("id", "", "line 4, column 1: allow[0]: id is missing"),
        ("who", "", "line 4, column 1: allow[0]: who is missing"),
        ("verbs", "", "line 4, column 1: allow[0]: verbs is missing"),
        ("topics", "", "line 4, column 1: allow[0]: topics is missing"),
        // Names.
        (
            "id",
            r#"id = """#,
            "line 5, column 6: allow[0].id: a name has 1 to 64 letters, digits, '.', '_' and '-', found \"\"",
        ),
        (
            "id",
            r#"id = "a b""#,
            "line 5, column 6: allow[0].id: a name has 1 to 64 letters, digits, '.', '_' and '-', found \"a b\"",
        ),
        (
            "id",
            r#"id = "revoke[0]""#,
            "line 5, column 6: allow[0].id: a name has 1 to 64 letters, digits, '.', '_' and '-', found \"revoke[0]\"",
        ),
        (
            "id",
            r#"id = "a\u001b[2J""#,
            "line 5, column 6: allow[0].id: a name has 1 to 64 letters, digits, '.', '_' and '-', found \"a\\u{1b}[2J\"",
        ),
        (
            "id",
            r#"id = 7"#,
            "line 5, column 6: allow[0].id: a name for the rule was expected, found a number",
        ),
        // Who.
        (
            "who",
            r#"who = "dns:a""#,
            "line 6, column 7: allow[0].who: a list of principals and roles was expected, found a text",
        ),
        ("who", r#"who = []"#, "line 6, column 7: allow[0].who: the list is empty"),
        (
            "who",
            r#"who = [1]"#,
            "line 6, column 8: allow[0].who[0]: a principal or a role was expected, found a number",
        ),
        (
            "who",
            r#"who = ["dns:a", "billing"]"#,
            "line 6, column 17: allow[0].who[1]: a principal begins with spiffe://, dns: or cn:, found \"billing\"; did you mean `role:billing`?",
        ),
        (
            "who",
            r#"who = ["role:biling"]"#,
            "line 6, column 8: allow[0].who[0]: unknown role \"biling\"; did you mean `billing`?",
        ),
        ("who", r#"who = ["role:"]"#, "line 6, column 8: allow[0].who[0]: unknown role \"\""),
        ("who", r#"who = ["role:*"]"#, "line 6, column 8: allow[0].who[0]: unknown role \"*\""),
        (
            "who",
            r#"who = ["Role:billing"]"#,
            "line 6, column 8: allow[0].who[0]: a principal begins with spiffe://, dns: or cn:, found \"Role:billing\"",
        ),
        (
            "who",
            r#"who = [""]"#,
            "line 6, column 8: allow[0].who[0]: a principal begins with spiffe://, dns: or cn:, found \"\"",
        ),
        // Verbs.
        ("verbs", r#"verbs = []"#, "line 7, column 9: allow[0].verbs: the list is empty"),
        (
            "verbs",
            r#"verbs = ["publish", "subscrbe"]"#,
            "line 7, column 21: allow[0].verbs[1]: unknown verb \"subscrbe\"; did you mean `subscribe`?",
        ),
        (
            "verbs",
            r#"verbs = ["Publish"]"#,
            "line 7, column 10: allow[0].verbs[0]: unknown verb \"Publish\"; did you mean `publish`?",
        ),
        ("verbs", r#"verbs = ["*"]"#, "line 7, column 10: allow[0].verbs[0]: unknown verb \"*\""),
        ("verbs", r#"verbs = ["write"]"#, "line 7, column 10: allow[0].verbs[0]: unknown verb \"write\""),
        ("verbs", r#"verbs = ["replay"]"#, "line 4, column 1: allow[0]: streams is missing"),
        (
            "verbs",
            r#"verbs = ["delete"]"#,
            "line 7, column 10: allow[0].verbs[0]: `delete` is not in this version",
        ),
        (
            "verbs",
            r#"verbs = ["manage-keys"]"#,
            "line 7, column 10: allow[0].verbs[0]: `manage-keys` is not in this version",
        ),
        (
            "verbs",
            r#"verbs = ["publish", "admin"]"#,
            "line 7, column 9: allow[0].verbs: publish and subscribe are about topics, replay, consume and describe about streams, admin and audit about the bus, and this rule has verbs of two kinds; write one rule for each kind",
        ),
        (
            "verbs",
            r#"verbs = ["audit"]"#,
            "line 8, column 10: allow[0].topics: the verb audit takes no topics",
        ),
        // Topics.
        ("topics", r#"topics = []"#, "line 8, column 10: allow[0].topics: the list is empty"),
        (
            "topics",
            r##"topics = "#""##,
            "line 8, column 10: allow[0].topics: a list of topic filters was expected, found a text",
        ),
        (
            "topics",
            r##"topics = ["a", "é", "é/#/b"]"##,
            "line 8, column 21: allow[0].topics[2]: the wildcard # is the last level of a filter, found one with levels after it at byte 3, in \"é/#/b\"",
        ),
        (
            "topics",
            r#"topics = ["a+"]"#,
            "line 8, column 11: allow[0].topics[0]: the wildcards + and # stand for whole levels, found one beside other text at byte 1, in \"a+\"",
        ),
        (
            "topics",
            r#"topics = [""]"#,
            "line 8, column 11: allow[0].topics[0]: a topic is not empty, in \"\"",
        ),
        (
            "topics",
            r#"topics = ["a\nb"]"#,
            "line 8, column 11: allow[0].topics[0]: a topic has no control characters, since it is written to logs and terminals, found U+000A at byte 1, in \"a\\nb\"",
        ),
        (
            "topics",
            r##"topics = ["$sys/#"]"##,
            "line 8, column 11: allow[0].topics[0]: no rule or stream reaches names that begin with $, which are the bus's own, found \"$sys/#\"",
        ),
        // When.
        (
            "when",
            r#"when = {}"#,
            "line 9, column 8: allow[0].when: `when` has no condition; leave it out for a rule that always holds",
        ),
        ("when", r#"when = "always""#, "line 9, column 8: allow[0].when: a table was expected, found a text"),
        (
            "when",
            r#"when = { sources = ["10.0.0.0/8"] }"#,
            "line 9, column 10: allow[0].when.sources: unknown key `sources`; did you mean `source`?",
        ),
        ("when", r#"when = { source = [] }"#, "line 9, column 19: allow[0].when.source: the list is empty"),
        (
            "when",
            r#"when = { source = "10.0.0.0/8" }"#,
            "line 9, column 19: allow[0].when.source: a list of networks was expected, found a text",
        ),
        (
            "when",
            r#"when = { source = ["10.0.0.1"] }"#,
            "line 9, column 20: allow[0].when.source[0]: a network has a prefix length, as in 10.20.0.0/16 or 10.20.0.1/32, found \"10.0.0.1\"",
        ),
        (
            "when",
            r#"when = { source = ["10.0.0.1/8"] }"#,
            "line 9, column 20: allow[0].when.source[0]: the address has bits beyond its prefix; the network around it is 10.0.0.0/8, found \"10.0.0.1/8\"; did you mean `10.0.0.0/8`?",
        ),
        (
            "when",
            r#"when = { source = ["10.0.0.0/33"] }"#,
            "line 9, column 20: allow[0].when.source[0]: a prefix length is a number up to 32 for IPv4 and 128 for IPv6, found \"10.0.0.0/33\"",
        ),
        (
            "when",
            r#"when = { source = ["localhost/8"] }"#,
            "line 9, column 20: allow[0].when.source[0]: a network begins with an IPv4 or IPv6 address, found \"localhost/8\"",
        ),
        (
            "when",
            r#"when = { zone = "" }"#,
            "line 9, column 17: allow[0].when.zone: a name has 1 to 64 letters, digits, '.', '_' and '-', found \"\"",
        ),
        (
            "when",
            r#"when = { zone = ["z"] }"#,
            "line 9, column 17: allow[0].when.zone: the name of a zone was expected, found a list",
        ),
        (
            "when",
            r#"when = { until = 2027-01-01T00:00:00Z }"#,
            "line 9, column 18: allow[0].when.until: a time in quotes was expected, found a time without quotes",
        ),
        (
            "when",
            r#"when = { until = 1798761600 }"#,
            "line 9, column 18: allow[0].when.until: a time in quotes was expected, found a number",
        ),
        (
            "when",
            r#"when = { from = "2027-01-01T00:00:00Z", until = "2027-01-01T02:00:00+02:00" }"#,
            "line 9, column 49: allow[0].when.until: `until` is not after `from`, so the rule would never hold",
        ),
    ];
    for (key, line, expected) in lines {
        assert_eq!(Policy::parse(&with_line(key, line)).unwrap_err().to_string(), expected, "{line}");
    }
}

#[test]
fn times_that_are_none_are_refused() {
    for text in [
        "",
        "tomorrow",
        "2027-01-01",
        "2027-01-01T00:00:00",
        "2027-01-01 00:00",
        "2027-13-01T00:00:00Z",
        "2027-02-29T00:00:00Z",
        "2027-01-01T24:00:00Z",
        "2027-01-01T00:00:00+25:00",
        "1969-12-31T23:59:59Z",
        "1970-01-01T00:00:00+01:00",
        "-0001-01-01T00:00:00Z",
        "2027-01-01T00:00:00.0001Z",
        "2027-01-01T00:00:00Z ",
        "1798761600",
    ] {
        let error =
            Policy::parse(&with_line("when", &format!("when = {{ until = \"{text}\" }}"))).unwrap_err();
        assert_eq!(error.fault(), &DocumentFault::Time { found: text.to_owned() }, "{text}");
        assert_eq!((error.line(), error.column(), error.path()), (9, 18, "allow[0].when.until"));
    }
    for text in [
        "1970-01-01T00:00:00Z",
        "2027-01-01T00:00:00.123Z",
        "2027-01-01T00:00:00-11:30",
        "9999-12-31T23:59:59Z",
    ] {
        assert!(
            Policy::parse(&with_line("when", &format!("when = {{ until = \"{text}\" }}"))).is_ok(),
            "{text}"
        );
    }
}

/// FAILURES T4: in a rule too, there is one pattern and no other, and nothing is put into it.
#[test]
fn other_patterns_of_principals_are_refused() {
    for text in [
        "*",
        "/*",
        "**",
        "#",
        "spiffe://*",
        "spiffe:///*",
        "spiffe://*/*",
        "spiffe://acme*/*",
        "spiffe://acme.example*",
        "spiffe://acme.example/a*",
        "spiffe://acme.example/*/a",
        "spiffe://acme.example/*/*",
        "spiffe://acme.example/**",
        "spiffe://acme.example//*",
        "spiffe://acme.example/a//*",
        "spiffe://acme.example/../*",
        "spiffe://acme.example/a?",
        "spiffe://acme.example/#",
        "spiffe://Acme.example/*",
        "spiffe://acme.example/%u",
        "spiffe://acme.example/${role}",
        "spiffe://acme.example/",
        "spiffe://acme.example",
        "dns:*",
        "dns:*.example",
        "dns:a/*",
        "cn:*",
        "cn:a/*",
        "cn:a*",
        "role:one/*",
        "spiffe://acme.example/a/* ",
        " spiffe://acme.example/a",
        "spiffe://acme.example/a\\n",
    ] {
        let error = Policy::parse(&with_line("who", &format!("who = [\"{text}\"]"))).unwrap_err();
        assert_eq!((error.line(), error.column(), error.path()), (6, 8, "allow[0].who[0]"), "{text}");
        assert!(
            matches!(error.fault(), DocumentFault::Principal { .. } | DocumentFault::UnknownRole { .. }),
            "{text}: {error}"
        );
    }
    for text in ["spiffe://acme.example/*", "spiffe://acme.example/a/*", "spiffe://acme.example/a/b.c/*"] {
        assert!(Policy::parse(&with_line("who", &format!("who = [\"{text}\"]"))).is_ok(), "{text}");
    }
}

#[test]
fn faults_of_other_sections_are_told_with_their_place() {
    for (text, expected) in [
        ("version = 0", "line 1, column 11: version: a version is a whole number from 1"),
        ("version = -1", "line 1, column 11: version: a version is a whole number from 1"),
        ("version = 18446744073709551616", "line 1, column 11: version: a version is a whole number from 1"),
        (
            "version = 1.0",
            "line 1, column 11: version: a whole number was expected, found a number with a fraction",
        ),
        ("version = \"1\"", "line 1, column 11: version: a whole number was expected, found a text"),
        ("verson = 1", "line 1, column 1: verson: unknown key `verson`; did you mean `version`?"),
        (
            "version = 1\n\n  operators = { threshold = 1 }",
            "line 3, column 3: operators: `operators` is not in this version",
        ),
        (
            "version = 1\n[[strem]]\nname = \"a\"",
            "line 2, column 3: strem: unknown key `strem`; did you mean `stream`?",
        ),
        ("version = 1\n[[limit]]", "line 2, column 3: limit: `limit` is not in this version"),
        ("version = 1\n[[alow]]", "line 2, column 3: alow: unknown key `alow`; did you mean `allow`?"),
        ("version = 1\n[defaults]\nallow = true", "line 2, column 2: defaults: unknown key `defaults`"),
        (
            "version = 1\nallow = true",
            "line 2, column 9: allow: tables under [[allow]] was expected, found true or false",
        ),
        ("version = 1\nallow = []", "line 2, column 9: allow: the list is empty"),
        ("version = 1\nallow = [1]", "line 2, column 10: allow[0]: a table was expected, found a number"),
        (
            "version = 1\n[allow]\nid = \"a\"",
            "line 2, column 1: allow: tables under [[allow]] was expected, found a table",
        ),
        (
            "version = 1\n[roles]\n\"a b\" = [\"dns:a\"]",
            "line 3, column 1: roles.a b: a name has 1 to 64 letters, digits, '.', '_' and '-', found \"a b\"",
        ),
        ("version = 1\n[roles]\na = []", "line 3, column 5: roles.a: the list is empty"),
        (
            "version = 1\n[roles]\na = \"dns:a\"",
            "line 3, column 5: roles.a: a list of principals was expected, found a text",
        ),
        (
            "version = 1\n[roles]\na = [\"dns:a\"]\nb = [\"role:a\"]",
            "line 4, column 6: roles.b[0]: a principal begins with spiffe://, dns: or cn:, found \"role:a\"; roles do not nest: name the principals themselves",
        ),
        (
            "version = 1\n[roles]\na = [\"dns:A\"]",
            "line 3, column 6: roles.a[0]: a DNS principal is one lower-case host name without wildcard, found \"dns:A\"",
        ),
        ("version = 1\n[[revoke]]", "line 2, column 1: revoke[0]: principal is missing"),
        (
            "version = 1\n[[revoke]]\nkid = \"00\"",
            "line 3, column 1: revoke[0].kid: `kid` is not in this version",
        ),
        (
            "version = 1\n[[revoke]]\nserial = 1",
            "line 3, column 1: revoke[0].serial: `serial` is not in this version",
        ),
        (
            "version = 1\n[[revoke]]\nissuer = \"a\"",
            "line 3, column 1: revoke[0].issuer: `issuer` is not in this version",
        ),
        (
            "version = 1\n[[revoke]]\nprincipal = \"role:a\"",
            "line 3, column 13: revoke[0].principal: a principal begins with spiffe://, dns: or cn:, found \"role:a\"; exactly one principal belongs here, neither a role nor a pattern",
        ),
        (
            "version = 1\n[[revoke]]\nprincipal = \"spiffe://a/*\"",
            "line 3, column 13: revoke[0].principal: a SPIFFE path has segments of letters, digits, '.', '_' and '-', none of them empty, '.' or '..', found \"spiffe://a/*\"; exactly one principal belongs here, neither a role nor a pattern",
        ),
        (
            "version = 1\n[[revoke]]\nprincipal = \"dns:a\"\nuntil = \"2027-01-01T00:00:00Z\"",
            "line 4, column 1: revoke[0].until: unknown key `until`",
        ),
        (
            "version = 1\n[[test]]\nwho = \"dns:a\"",
            "line 2, column 1: test[0]: the test expects nothing; say `can = { .. }` or `cannot = { .. }`",
        ),
        ("version = 1\n[[test]]\ncan = { audit = true }", "line 2, column 1: test[0]: who is missing"),
        (
            "version = 1\n[[test]]\nwho = [\"dns:a\"]",
            "line 3, column 7: test[0].who: a principal was expected, found a list",
        ),
        (
            "version = 1\n[[test]]\nwho = \"dns:a\"\ncan = {}",
            "line 4, column 7: test[0].can: the test expects nothing",
        ),
        (
            "version = 1\n[[test]]\nwho = \"dns:a\"\ncannot = { delete = [\"a\"] }",
            "line 4, column 12: test[0].cannot.delete: `delete` is not in this version",
        ),
        (
            "version = 1\n[[test]]\nwho = \"dns:a\"\ncan = { publsh = [\"a\"] }",
            "line 4, column 9: test[0].can.publsh: unknown key `publsh`; did you mean `publish`?",
        ),
        (
            "version = 1\n[[test]]\nwho = \"dns:a\"\ncan = { publish = [\"a/#\"] }",
            "line 4, column 20: test[0].can.publish[0]: a topic name has no wildcard, found one at byte 2; only filters may hold + and #, in \"a/#\"",
        ),
        (
            "version = 1\n[[test]]\nwho = \"dns:a\"\ncan = { subscribe = [] }",
            "line 4, column 21: test[0].can.subscribe: the list is empty",
        ),
        (
            "version = 1\n[[test]]\nwho = \"dns:a\"\ncan = { admin = false }",
            "line 4, column 17: test[0].can.admin: `true` was expected; use `cannot` for what must be refused",
        ),
        (
            "version = 1\n[[test]]\nwho = \"dns:a\"\nsource = \"10.0.0.0/8\"\ncan = { audit = true }",
            "line 4, column 10: test[0].source: an IPv4 or IPv6 address was expected, found \"10.0.0.0/8\"",
        ),
        (
            "version = 1\n[[test]]\nwho = \"dns:a\"\nat = \"now\"\ncan = { audit = true }",
            "line 4, column 6: test[0].at: a time as in \"2027-01-01T00:00:00Z\" was expected, from 1970 and in whole milliseconds, found \"now\"",
        ),
    ] {
        assert_eq!(Policy::parse(text).unwrap_err().to_string(), expected, "{text}");
    }
}

#[test]
fn ids_are_unique_over_allows_and_denies() {
    let rule = |kind: &str, id: &str| {
        format!("[[{kind}]]\nid = \"{id}\"\nwho = [\"dns:a\"]\nverbs = [\"publish\"]\ntopics = [\"a\"]\n")
    };
    for (first, second) in [("allow", "allow"), ("deny", "deny"), ("allow", "deny"), ("deny", "allow")] {
        let error =
            Policy::parse(&format!("version = 1\n{}{}", rule(first, "a"), rule(second, "a"))).unwrap_err();
        assert_eq!(error.fault(), &DocumentFault::DuplicateId { found: "a".to_owned(), first_line: 2 });
        assert_eq!((error.line(), error.column()), (8, 6));
    }
    assert!(Policy::parse(&format!("version = 1\n{}{}", rule("allow", "a"), rule("deny", "A"))).is_ok());
}

#[test]
fn what_is_not_toml_is_refused_with_its_place() {
    for (text, line, column) in [
        ("version = 1\nversion = 2", 2, 1),
        ("version = 1\n[roles]\n[roles]", 3, 2),
        ("version = ", 1, 11),
        ("version", 1, 8),
        ("version = 1\n[[allow]", 2, 9),
        ("version = 1\nwho = \"a", 2, 9),
        ("<?xml?>", 1, 8),
        ("{\"version\": 1}", 1, 1),
    ] {
        let error = Policy::parse(text).unwrap_err();
        assert!(matches!(error.fault(), DocumentFault::Syntax { .. }), "{text}: {error}");
        assert_eq!((error.line(), error.column()), (line, column), "{text}: {error}");
    }
    for depth in [100, 10_000] {
        assert!(Policy::parse(&format!("version = {}", "[".repeat(depth))).is_err());
        assert!(Policy::parse(&format!("version = 1\n{} = 1", vec!["a"; depth].join("."))).is_err());
    }
}

/// FAILURES T44 and T45: an error is one line and holds nothing that drives a terminal, and it is short.
#[test]
fn errors_are_one_printable_line() {
    let hostile = "\\r\\n\\u001b[2J\\u0007\\u0085\\u202e";
    for line in [
        format!("id = \"{hostile}\""),
        format!("who = [\"{hostile}\"]"),
        format!("who = [\"role:{hostile}\"]"),
        format!("verbs = [\"{hostile}\"]"),
        format!("topics = [\"{hostile}\"]"),
        format!("when = {{ zone = \"{hostile}\" }}"),
        format!("when = {{ until = \"{hostile}\" }}"),
        format!("when = {{ source = [\"{hostile}\"] }}"),
        format!("\"{hostile}\" = 1"),
        format!("\"{}\" = 1", "a".repeat(100_000)),
        format!("id = \"{}\"", "a".repeat(100_000)),
        "id = \"\u{1b}[2J\"".to_owned(),
    ] {
        let key = line.split(' ').next().filter(|word| !word.starts_with('"')).unwrap_or("when");
        let error = Policy::parse(&with_line(key, &line)).unwrap_err().to_string();
        assert!(
            !error.chars().any(|character| character.is_control() || character == '\u{202e}'),
            "{error:?}"
        );
        assert!(error.len() < 600, "{error}");
    }
}

#[test]
fn names_have_a_length() {
    let name = "a".repeat(POLICY_NAME_BYTES_MAX);
    assert!(Policy::parse(&with_line("id", &format!("id = \"{name}\""))).is_ok());
    assert!(Policy::parse(&with_line("id", &format!("id = \"{name}a\""))).is_err());
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in any::<String>()) {
        let _ = Policy::parse(&text).map_err(|error| error.to_string());
    }

    /// One byte of a good document changed: it is read or refused with a place inside the text, and never panics.
    #[test]
    fn a_changed_document_is_read_or_refused_with_a_place(at in 0..WHOLE.len(), byte in 0_u8..128) {
        let mut bytes = WHOLE.as_bytes().to_vec();
        bytes[at] = byte;
        let text = String::from_utf8(bytes).expect("the document and the byte are ASCII");
        if let Err(error) = Policy::parse(&text) {
            prop_assert!((1..=text.split('\n').count()).contains(&error.line()));
            prop_assert!(error.column() >= 1);
            prop_assert!(!error.to_string().chars().any(char::is_control));
        }
    }
}
