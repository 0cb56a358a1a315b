//! Decisions as tables.

use super::super::{
    Act, CompiledPolicy, Context, DenialRule, Narrowed, Policy, PolicyError, decide, decide_filter,
};
use super::{ANNA, BEN, NOW_MS, anywhere, compiled, filter, principal, topic};
use crate::limits::TOPIC_LEVELS_MAX;

/// `Ok` with the rule that allows, `Err` with the words that refuse.
fn publish(policy: &CompiledPolicy, who: &str, name: &str) -> Result<String, String> {
    let decided = decide(policy, &principal(who), Act::Publish(&topic(name)), &anywhere());
    decided.map(|permit| permit.rule().to_string()).map_err(|denial| denial.to_string())
}

fn subscribe(policy: &CompiledPolicy, who: &str, name: &str) -> Result<String, String> {
    let decided = decide(policy, &principal(who), Act::Subscribe(&topic(name)), &anywhere());
    decided.map(|permit| permit.rule().to_string()).map_err(|denial| denial.to_string())
}

const BY_DEFAULT: &str = "no rule allows it";
const RESERVED: &str = "names that begin with $ are the bus's own";

/// FAILURES T26, the other half: no rules, no access.
#[test]
fn a_document_without_rules_denies_everything() {
    let policy = compiled("version = 1");
    assert_eq!(publish(&policy, ANNA, "a"), Err(BY_DEFAULT.to_owned()));
    assert_eq!(subscribe(&policy, ANNA, "a"), Err(BY_DEFAULT.to_owned()));
    for act in [Act::Admin, Act::Audit] {
        let denial = decide(&policy, &principal(ANNA), act, &anywhere()).unwrap_err();
        assert_eq!((denial.rule(), denial.expires_ms()), (&DenialRule::Default, None));
    }
    assert!(decide_filter(&policy, &principal(ANNA), &filter("#"), &anywhere()).is_err());
}

#[test]
fn a_rule_allows_its_verbs_on_its_topics_to_its_principals() {
    let policy = compiled(&format!(
        r##"version = 1
        [[allow]]
        id = "anna-sends"
        who = ["{ANNA}"]
        verbs = ["publish"]
        topics = ["orders/+/created", "invoices/#"]
        [[allow]]
        id = "anna-rules"
        who = ["{ANNA}"]
        verbs = ["admin"]
        "##
    ));
    let ok = Ok("anna-sends".to_owned());
    let no = Err(BY_DEFAULT.to_owned());
    for (who, name, expected) in [
        (ANNA, "orders/eu/created", &ok),
        (ANNA, "invoices", &ok),
        (ANNA, "invoices/1/2", &ok),
        (ANNA, "orders/eu/deleted", &no),
        (ANNA, "orders/eu/x/created", &no),
        (ANNA, "orders", &no),
        (BEN, "invoices", &no),
        ("spiffe://acme.example/anna/b", "invoices", &no),
        ("spiffe://acme.example/ann", "invoices", &no),
        ("spiffe://acme.example/Anna", "invoices", &no),
        ("spiffe://acme.example.evil/anna", "invoices", &no),
        ("dns:acme.example", "invoices", &no),
    ] {
        assert_eq!(&publish(&policy, who, name), expected, "{who} {name}");
        assert_eq!(&subscribe(&policy, who, name), &no, "{who} {name}");
    }
    let admin = decide(&policy, &principal(ANNA), Act::Admin, &anywhere()).unwrap();
    assert_eq!((admin.rule().as_str(), admin.topic()), ("anna-rules", None));
    assert!(decide(&policy, &principal(ANNA), Act::Audit, &anywhere()).is_err());
    assert!(decide(&policy, &principal(BEN), Act::Admin, &anywhere()).is_err());
}

#[test]
fn a_deny_wins_over_an_allow_before_and_after_it() {
    let allow = |id: &str| {
        format!("[[allow]]\nid = \"{id}\"\nwho = [\"{ANNA}\"]\nverbs = [\"publish\"]\ntopics = [\"#\"]\n")
    };
    let deny = "[[deny]]\nid = \"no\"\nwho = [\"spiffe://acme.example/*\"]\nverbs = [\"publish\"]\ntopics = [\"a/#\"]\n";
    let denied = Err("denied by rule \"no\"".to_owned());
    for document in [
        format!("version = 1\n{}{deny}", allow("yes")),
        format!("version = 1\n{deny}{}", allow("yes")),
        format!("version = 1\n{}{deny}{}", allow("yes"), allow("again")),
    ] {
        let policy = compiled(&document);
        assert_eq!(publish(&policy, ANNA, "a/b"), denied);
        assert_eq!(publish(&policy, ANNA, "a"), denied);
        assert_eq!(publish(&policy, ANNA, "b"), Ok("yes".to_owned()));
    }
}

/// FAILURES T27: without the allow the deny still stands (a broker once forgot denies with the last allow).
#[test]
fn removing_an_allow_leaves_the_deny() {
    let policy = compiled(&format!(
        "version = 2\n[[deny]]\nid = \"no\"\nwho = [\"{ANNA}\"]\nverbs = [\"publish\"]\ntopics = [\"#\"]"
    ));
    assert_eq!(publish(&policy, ANNA, "a"), Err("denied by rule \"no\"".to_owned()));
    assert_eq!(policy.rule_count(), 1);
}

#[test]
fn a_prefix_is_about_those_strictly_below_it() {
    let policy = compiled(
        r##"version = 1
        [[allow]]
        id = "below"
        who = ["spiffe://acme.example/ns/a/*"]
        verbs = ["publish"]
        topics = ["#"]
        [[allow]]
        id = "domain"
        who = ["spiffe://other.example/*"]
        verbs = ["publish"]
        topics = ["#"]
        "##,
    );
    for (who, expected) in [
        ("spiffe://acme.example/ns/a/x", Ok("below")),
        ("spiffe://acme.example/ns/a/x/y", Ok("below")),
        ("spiffe://acme.example/ns/a", Err(BY_DEFAULT)),
        ("spiffe://acme.example/ns/ab/x", Err(BY_DEFAULT)),
        ("spiffe://acme.example/ns/A/x", Err(BY_DEFAULT)),
        ("spiffe://acme.example/x/ns/a/x", Err(BY_DEFAULT)),
        ("spiffe://other.example/x", Ok("domain")),
        ("spiffe://other.example/x/y", Ok("domain")),
        ("spiffe://other.example.evil/x", Err(BY_DEFAULT)),
        ("spiffe://another.example/x", Err(BY_DEFAULT)),
    ] {
        assert_eq!(publish(&policy, who, "t"), expected.map(str::to_owned).map_err(str::to_owned), "{who}");
    }
}

#[test]
fn a_role_stands_for_its_members() {
    let policy = compiled(&format!(
        r##"version = 1
        [roles]
        one = ["{ANNA}", "dns:a.example"]
        two = ["spiffe://acme.example/ns/*"]
        unused = ["cn:Orders"]
        [[allow]]
        id = "roles"
        who = ["role:one", "role:two"]
        verbs = ["subscribe"]
        topics = ["a"]
        "##
    ));
    for (who, expected) in [
        (ANNA, Ok("roles")),
        ("dns:a.example", Ok("roles")),
        ("spiffe://acme.example/ns/x", Ok("roles")),
        (BEN, Err(BY_DEFAULT)),
        ("cn:Orders", Err(BY_DEFAULT)),
        ("cn:one", Err(BY_DEFAULT)),
        ("spiffe://acme.example/ns", Err(BY_DEFAULT)),
    ] {
        assert_eq!(subscribe(&policy, who, "a"), expected.map(str::to_owned).map_err(str::to_owned), "{who}");
    }
}

/// FAILURES T4: what looks like a pattern in an identity is a character, and what is not one cannot be an identity.
#[test]
fn an_identity_never_acts_as_a_pattern() {
    let policy = compiled(
        r##"version = 1
        [[allow]]
        id = "exact"
        who = ["dns:a.b.example", "cn:Orders.Service?", "spiffe://acme.example/a.c"]
        verbs = ["publish"]
        topics = ["+/x"]
        "##,
    );
    for (who, allowed) in [
        ("dns:a.b.example", true),
        ("dns:a-b.example", false),
        ("cn:Orders.Service?", true),
        ("cn:OrdersXService?", false),
        ("cn:Orders.Servic", false),
        ("cn:.", false),
        ("cn:[a-z]", false),
        ("cn:%u", false),
        ("spiffe://acme.example/a.c", true),
        ("spiffe://acme.example/abc", false),
    ] {
        assert_eq!(publish(&policy, who, "t/x").is_ok(), allowed, "{who}");
    }
    for text in
        ["cn:#", "cn:+", "cn:*", "cn:>", "cn:${who}", "dns:*.example", "spiffe://acme.example/*", "*", "#"]
    {
        assert!(crate::identity::Principal::parse(text).is_err(), "{text}");
    }
}

/// FAILURES T25 and T28: no rule, verb or wildcard reaches the bus's own names, though somebody may everything else;
/// and there is no group to subscribe through, past a deny.
#[test]
fn reserved_names_are_refused_to_everybody() {
    let policy = compiled(&format!(
        r##"version = 1
        [[allow]]
        id = "all"
        who = ["{ANNA}"]
        verbs = ["publish", "subscribe"]
        topics = ["#", "+", "+/#"]
        "##
    ));
    for name in
        ["$", "$sys", "$sys/a", "$SYS/a", "$policy", "$keys", "$dead/orders/billing", "$share/g/a", "$x/y/z"]
    {
        assert_eq!(publish(&policy, ANNA, name), Err(RESERVED.to_owned()), "{name}");
        assert_eq!(subscribe(&policy, ANNA, name), Err(RESERVED.to_owned()), "{name}");
        assert_eq!(publish(&policy, BEN, name), Err(RESERVED.to_owned()), "{name}");
    }
    for requested in ["$sys", "$sys/#", "$+", "$share/g/#"]
        .into_iter()
        .filter_map(|text| crate::topic::TopicFilter::parse(text).ok())
    {
        let denial = decide_filter(&policy, &principal(ANNA), &requested, &anywhere()).unwrap_err();
        assert_eq!(denial.rule(), &DenialRule::Reserved, "{requested}");
    }
    assert_eq!(publish(&policy, ANNA, "a/$sys"), Ok("all".to_owned()));
    let permit = decide_filter(&policy, &principal(ANNA), &filter("#"), &anywhere()).unwrap();
    assert_eq!(permit.narrowed(), Narrowed::No);
}

#[test]
fn conditions_are_judged_at_the_moment_and_the_place() {
    let policy = compiled(&format!(
        r##"version = 1
        [[allow]]
        id = "yes"
        who = ["{ANNA}"]
        verbs = ["publish"]
        topics = ["#"]
        when = {{ source = ["10.20.0.0/16", "2001:db8::/32"], zone = "internal", from = "2026-01-01T02:00:00+02:00", until = "2027-01-01T00:00:00Z" }}
        [[deny]]
        id = "maintenance"
        who = ["{ANNA}"]
        verbs = ["publish"]
        topics = ["#"]
        when = {{ from = "2026-06-01T00:00:00Z", until = "2026-06-02T00:00:00Z" }}
        "##
    ));
    let (from, until) = (1_767_225_600_000, 1_798_761_600_000);
    let (break_begins, break_ends) = (1_780_272_000_000, 1_780_358_400_000);
    let default = Err(BY_DEFAULT.to_owned());
    let yes = Ok("yes".to_owned());
    let no = Err("denied by rule \"maintenance\"".to_owned());
    for (source, zone, now_ms, expected, expires_ms) in [
        ("10.20.1.1", Some("internal"), from - 1, &default, Some(from)),
        ("10.20.1.1", Some("internal"), from, &yes, Some(break_begins)),
        ("::ffff:10.20.1.1", Some("internal"), from, &yes, Some(break_begins)),
        ("2001:db8::1", Some("internal"), from, &yes, Some(break_begins)),
        ("10.20.1.1", Some("internal"), break_begins - 1, &yes, Some(break_begins)),
        ("10.20.1.1", Some("internal"), break_begins, &no, Some(break_ends)),
        ("10.21.1.1", Some("internal"), break_begins, &no, Some(break_ends)),
        ("10.20.1.1", Some("internal"), break_ends, &yes, Some(until)),
        ("10.20.1.1", Some("internal"), until - 1, &yes, Some(until)),
        ("10.20.1.1", Some("internal"), until, &default, None),
        ("10.21.1.1", Some("internal"), from, &default, Some(break_begins)),
        ("10.20.1.1", Some("external"), from, &default, Some(break_begins)),
        ("10.20.1.1", None, from, &default, Some(break_begins)),
    ] {
        let context = Context { source: source.parse().unwrap(), zone, now_ms };
        let decided = decide(&policy, &principal(ANNA), Act::Publish(&topic("a")), &context);
        let found_expires = match &decided {
            Ok(permit) => permit.expires_ms(),
            Err(denial) => denial.expires_ms(),
        };
        let found = decided.map(|permit| permit.rule().to_string()).map_err(|denial| denial.to_string());
        assert_eq!((&found, found_expires), (expected, expires_ms), "{context:?}");
    }
}

#[test]
fn a_revocation_beats_everything_from_its_moment() {
    let policy = compiled(&format!(
        r##"version = 1
        [[allow]]
        id = "yes"
        who = ["spiffe://acme.example/*"]
        verbs = ["publish", "subscribe"]
        topics = ["#"]
        [[revoke]]
        principal = "{ANNA}"
        from = "2026-11-01T00:00:00Z"
        [[revoke]]
        principal = "{ANNA}"
        from = "2026-10-01T00:00:00Z"
        [[revoke]]
        principal = "{BEN}"
        "##
    ));
    let from = 1_790_812_800_000;
    let anna = policy.subject(&principal(ANNA));
    let at = |now_ms| Context { now_ms, ..anywhere() };
    let (name, everything) = (topic("a"), filter("#"));
    let permit = anna.decide(Act::Publish(&name), &at(from - 1)).unwrap();
    assert_eq!(permit.expires_ms(), Some(from));
    assert_eq!(anna.decide_filter(&everything, &at(from - 1)).unwrap().expires_ms(), Some(from));
    assert_eq!((anna.revoked(from - 1), anna.revocation_due_ms(from - 1)), (None, Some(from)));
    for now_ms in [from, from + 1, u64::MAX] {
        let expected = DenialRule::Revoked(anna.revoked(now_ms).unwrap().clone());
        assert_eq!(expected.to_string(), "the principal is revoked by \"revoke[1]\"");
        for act in [Act::Publish(&name), Act::Subscribe(&topic("$sys")), Act::Admin, Act::Audit] {
            let denial = anna.decide(act, &at(now_ms)).unwrap_err();
            assert_eq!((denial.rule(), denial.expires_ms()), (&expected, None));
        }
        assert_eq!(anna.decide_filter(&everything, &at(now_ms)).unwrap_err().rule(), &expected);
        assert_eq!(anna.revocation_due_ms(now_ms), None);
    }
    assert_eq!(policy.revoked(&principal(BEN), 0).map(|rule| rule.to_string()), Some("revoke[2]".to_owned()));
    assert_eq!(policy.revoked(&principal(ANNA), from - 1), None);
    assert_eq!(policy.revoked(&principal("spiffe://acme.example/carl"), u64::MAX), None);
}

/// FAILURES T24: a wide subscription is narrowed, and what a deny covers stays refused topic by topic.
#[test]
fn a_wildcard_that_overlaps_a_deny_does_not_reach_what_it_denies() {
    let policy = compiled(&format!(
        r##"version = 1
        [[allow]]
        id = "orders"
        who = ["{ANNA}"]
        verbs = ["subscribe"]
        topics = ["orders/#"]
        [[allow]]
        id = "bills"
        who = ["{ANNA}"]
        verbs = ["subscribe"]
        topics = ["bills/+"]
        [[deny]]
        id = "secret"
        who = ["spiffe://acme.example/*"]
        verbs = ["subscribe"]
        topics = ["orders/secret/#"]
        "##
    ));
    let denied = "denied by rule \"secret\"";
    for (requested, expected) in [
        ("orders/eu/#", Ok((Narrowed::No, vec!["orders"]))),
        ("orders/eu", Ok((Narrowed::No, vec!["orders"]))),
        ("bills/+", Ok((Narrowed::No, vec!["bills"]))),
        ("orders/#", Ok((Narrowed::Yes, vec!["orders"]))),
        ("orders/+", Ok((Narrowed::Yes, vec!["orders"]))),
        ("#", Ok((Narrowed::Yes, vec!["orders", "bills"]))),
        ("bills/#", Ok((Narrowed::Yes, vec!["bills"]))),
        ("+/eu", Ok((Narrowed::Yes, vec!["orders", "bills"]))),
        ("orders/secret", Err(denied)),
        ("orders/secret/#", Err(denied)),
        ("orders/secret/+/a", Err(denied)),
        ("bills", Err(BY_DEFAULT)),
        ("bills/+/+", Err(BY_DEFAULT)),
        ("+", Ok((Narrowed::Yes, vec!["orders"]))),
        ("other/#", Err(BY_DEFAULT)),
    ] {
        let decided = decide_filter(&policy, &principal(ANNA), &filter(requested), &anywhere());
        let found = decided.map(|permit| {
            (permit.narrowed(), permit.rules().iter().map(ToString::to_string).collect::<Vec<_>>())
        });
        let expected =
            expected.map(|(narrowed, rules)| (narrowed, rules.into_iter().map(str::to_owned).collect()));
        assert_eq!(
            found.map_err(|denial| denial.to_string()),
            expected.map_err(str::to_owned),
            "{requested}"
        );
    }
    assert_eq!(subscribe(&policy, ANNA, "orders/secret/a"), Err(denied.to_owned()));
    assert_eq!(subscribe(&policy, ANNA, "orders/eu"), Ok("orders".to_owned()));
}

#[test]
fn a_filter_decision_expires_with_the_rules_that_touch_it() {
    let policy = compiled(&format!(
        r##"version = 1
        [[allow]]
        id = "now"
        who = ["{ANNA}"]
        verbs = ["subscribe"]
        topics = ["a/#"]
        [[allow]]
        id = "other"
        who = ["{ANNA}"]
        verbs = ["subscribe"]
        topics = ["b/#"]
        when = {{ until = "2026-12-01T00:00:00Z" }}
        [[deny]]
        id = "later"
        who = ["{ANNA}"]
        verbs = ["subscribe"]
        topics = ["a/b"]
        when = {{ from = "2027-01-01T00:00:00Z" }}
        "##
    ));
    for (requested, narrowed, expires_ms) in [
        ("a/#", Narrowed::No, Some(1_798_761_600_000)),
        ("a/c", Narrowed::No, None),
        ("b/#", Narrowed::No, Some(1_796_083_200_000)),
        ("#", Narrowed::Yes, Some(1_796_083_200_000)),
    ] {
        let permit = decide_filter(&policy, &principal(ANNA), &filter(requested), &anywhere()).unwrap();
        assert_eq!((permit.narrowed(), permit.expires_ms()), (narrowed, expires_ms), "{requested}");
    }
}

/// FAILURES T30: the cost of a decision does not grow with the policy, only with the subject's own rules, and the
/// deepest filters cost no more than their length.
#[test]
fn ten_thousand_rules_cost_a_subject_its_own() {
    let deep = vec!["+"; TOPIC_LEVELS_MAX].join("/");
    let mut document = "version = 1\n".to_owned();
    for number in 0..10_000 {
        document += &format!(
            "[[allow]]\nid = \"rule-{number}\"\nwho = [\"dns:service-{number}.example\"]\nverbs = [\"publish\"]\ntopics = [\"{deep}\"]\n"
        );
    }
    let policy = compiled(&document);
    assert_eq!(policy.rule_count(), 10_000);
    let name = topic(&vec!["a"; TOPIC_LEVELS_MAX].join("/"));
    for _ in 0..100 {
        for number in (0..10_000).step_by(100) {
            let who = principal(&format!("dns:service-{number}.example"));
            let permit = decide(&policy, &who, Act::Publish(&name), &anywhere()).unwrap();
            assert_eq!(permit.rule().as_str(), format!("rule-{number}"));
        }
    }
}

fn failures(text: &str) -> Vec<String> {
    match CompiledPolicy::compile(Policy::parse(text).unwrap(), NOW_MS) {
        Ok(_) => Vec::new(),
        Err(PolicyError::Tests(failures)) => failures.iter().map(ToString::to_string).collect(),
    }
}

const TESTED: &str = r##"version = 1
[[allow]]
id = "reads"
who = ["spiffe://acme.example/anna"]
verbs = ["subscribe"]
topics = ["orders/#"]
[[deny]]
id = "secret"
who = ["spiffe://acme.example/*"]
verbs = ["subscribe"]
topics = ["orders/secret"]
[[allow]]
id = "inside"
who = ["spiffe://acme.example/anna"]
verbs = ["publish"]
topics = ["orders/+"]
when = { source = ["10.0.0.0/8"], zone = "internal", until = "2027-01-01T00:00:00Z" }
[[allow]]
id = "operates"
who = ["spiffe://acme.example/anna"]
verbs = ["admin"]
[[deny]]
id = "outside"
who = ["spiffe://acme.example/anna"]
verbs = ["admin"]
when = { zone = "external" }
[[test]]
"##;

#[test]
fn a_test_that_the_policy_meets_passes() {
    for test in [
        "who = 'spiffe://acme.example/anna'\ncan = { subscribe = ['orders/eu', 'orders/eu/#'] }",
        "who = 'spiffe://acme.example/anna'\ncannot = { subscribe = ['orders/secret', 'bills/#', '$sys/#', '$sys'], publish = ['bills'], audit = true }",
        "who = 'spiffe://acme.example/ben'\ncannot = { subscribe = ['#'], publish = ['orders/eu'], admin = true, audit = true }",
        "who = 'spiffe://acme.example/anna'\nsource = '10.1.1.1'\nzone = 'internal'\ncan = { publish = ['orders/eu'], admin = true }",
        "who = 'spiffe://acme.example/anna'\nsource = '::ffff:10.1.1.1'\nzone = 'internal'\ncan = { publish = ['orders/eu'] }",
        "who = 'spiffe://acme.example/anna'\nsource = '11.1.1.1'\ncannot = { publish = ['orders/eu'] }",
        "who = 'spiffe://acme.example/anna'\nzone = 'external'\ncannot = { publish = ['orders/eu'], admin = true }",
        "who = 'spiffe://acme.example/anna'\nat = '2027-01-01T00:00:00Z'\ncannot = { publish = ['orders/eu'] }",
    ] {
        assert_eq!(failures(&format!("{TESTED}{test}")), Vec::<String>::new(), "{test}");
    }
}

#[test]
fn a_test_that_the_policy_does_not_meet_refuses_it() {
    let place = "; this depends on where the principal connects: name `source` or `zone` in the test, which otherwise \
                 speaks about all of them";
    for (test, expected) in [
        (
            "who = 'spiffe://acme.example/ben'\ncan = { subscribe = ['orders/eu'] }",
            "line 27: test[0] expects that spiffe://acme.example/ben can subscribe to orders/eu, but no rule allows it".to_owned(),
        ),
        (
            "who = 'spiffe://acme.example/anna'\ncannot = { subscribe = ['orders/eu'] }",
            "line 27: test[0] expects that spiffe://acme.example/anna cannot subscribe to orders/eu, but rule \"reads\" allows it".to_owned(),
        ),
        (
            "who = 'spiffe://acme.example/anna'\ncan = { subscribe = ['orders/#'] }",
            "line 27: test[0] expects that spiffe://acme.example/anna can subscribe to orders/#, but only some of it is allowed, by \"reads\"".to_owned(),
        ),
        (
            "who = 'spiffe://acme.example/anna'\ncannot = { subscribe = ['#'] }",
            "line 27: test[0] expects that spiffe://acme.example/anna cannot subscribe to #, but only some of it is allowed, by \"reads\"".to_owned(),
        ),
        (
            "who = 'spiffe://acme.example/anna'\ncan = { subscribe = ['orders/secret'] }",
            "line 27: test[0] expects that spiffe://acme.example/anna can subscribe to orders/secret, but denied by rule \"secret\"".to_owned(),
        ),
        (
            "who = 'spiffe://acme.example/anna'\ncan = { publish = ['orders/eu'] }",
            format!("line 27: test[0] expects that spiffe://acme.example/anna can publish on orders/eu, but no rule allows it{place}"),
        ),
        (
            "who = 'spiffe://acme.example/anna'\ncannot = { publish = ['orders/eu'] }",
            format!("line 27: test[0] expects that spiffe://acme.example/anna cannot publish on orders/eu, but rule \"inside\" allows it{place}"),
        ),
        (
            "who = 'spiffe://acme.example/anna'\nsource = '10.1.1.1'\ncan = { publish = ['orders/eu'] }",
            format!("line 27: test[0] expects that spiffe://acme.example/anna can publish on orders/eu, but no rule allows it{place}"),
        ),
        (
            "who = 'spiffe://acme.example/anna'\ncan = { admin = true }",
            format!("line 27: test[0] expects that spiffe://acme.example/anna can use the verb admin, but denied by rule \"outside\"{place}"),
        ),
        (
            "who = 'spiffe://acme.example/anna'\nsource = '10.1.1.1'\nzone = 'internal'\nat = '2027-01-01T00:00:00Z'\ncan = { publish = ['orders/eu'] }",
            "line 27: test[0] expects that spiffe://acme.example/anna can publish on orders/eu, but no rule allows it".to_owned(),
        ),
    ] {
        assert_eq!(failures(&format!("{TESTED}{test}")), vec![expected], "{test}");
    }
}

#[test]
fn every_failure_of_a_test_is_told() {
    let test = "who = 'spiffe://acme.example/ben'\ncan = { subscribe = ['a', 'b'], admin = true }\n[[test]]\nwho = 'cn:x'\ncan = { audit = true }";
    let found = failures(&format!("{TESTED}{test}"));
    assert_eq!(found.len(), 4);
    assert!(found[3].starts_with("line 30: test[1]"), "{}", found[3]);
    let error =
        CompiledPolicy::compile(Policy::parse(&format!("{TESTED}{test}")).unwrap(), NOW_MS).unwrap_err();
    assert!(error.to_string().starts_with("the policy fails 4 expectation(s) of its own tests: line 27"));
}
