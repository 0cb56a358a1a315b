//! What may stand in a policy document, and what it means.
//!
//! ```text
//!  version = 7
//!  [roles]      NAME = [MEMBER ..]
//!  [[allow]]    id = NAME, who = [WHO ..], verbs = [VERB ..], topics = [FILTER ..]
//!  [[deny]]     when = { source = [NETWORK ..], zone = NAME, from = TIME, until = TIME }
//!  [[revoke]]   principal = PRINCIPAL, from = TIME
//!  [[test]]     who = PRINCIPAL, source = ADDRESS, zone = NAME, at = TIME
//!               can, cannot = { publish = [TOPIC ..], subscribe = [FILTER ..], admin = true, audit = true }
//!
//!  MEMBER       PRINCIPAL, or spiffe://DOMAIN/[PATH/]*
//!  WHO          MEMBER, or role:NAME
//! ```
//!
//! What later versions add is known by name and refused by name, never passed over.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::error::{DocumentError, DocumentFault};
use super::tree::{Entry, Table, Value};
use crate::identity::{Principal, PrincipalError, check_trust_domain};
use crate::limits::PRINCIPAL_BYTES_MAX;
use crate::policy::expectation::{Expectation, ExpectedAct, Outcome, PolicyTest};
use crate::policy::rule::{
    Effect, Member, Name, Policy, PrincipalPrefix, Revocation, Role, Rule, RuleId, Verb, Who,
};
use crate::policy::when::{Network, NetworkError, When};
use crate::topic::{Topic, TopicFilter};

/// Verbs of later versions.
const VERBS_NOT_YET: [&str; 5] = ["replay", "consume", "manage-keys", "delete", "describe"];

/// The roles that the document defines, by name: a rule may only name one of them.
type Roles = BTreeMap<Name, Vec<Member>>;

/// Reads the whole document.
pub(super) fn policy(document: &Table<'_>) -> Result<Policy, DocumentError> {
    let known = ["version", "roles", "allow", "deny", "revoke", "test"];
    document.allow_only(&known, &["operators", "stream", "limit"])?;
    let version = version(document.required("version")?)?;
    let roles = document.optional("roles").map_or(Ok(Roles::new()), roles)?;
    Ok(Policy {
        version,
        rules: rules(document, &roles)?,
        revocations: each(document, "revoke", "tables under [[revoke]]", revocation)?,
        tests: each(document, "test", "tables under [[test]]", |_, table| test(table))?,
        roles: roles.into_iter().map(|(name, members)| Role { name, members }).collect(),
    })
}

fn version(value: &Value<'_>) -> Result<u64, DocumentError> {
    match value.unsigned("a whole number")? {
        Some(version @ 1..) => Ok(version),
        Some(0) | None => Err(value.error(DocumentFault::Version)),
    }
}

/// Reads every table of an array of tables.
fn each<T>(
    document: &Table<'_>,
    key: &str,
    expected: &'static str,
    read: impl Fn(usize, &Table<'_>) -> Result<T, DocumentError>,
) -> Result<Vec<T>, DocumentError> {
    let Some(value) = document.optional(key) else {
        return Ok(Vec::new());
    };
    let tables = value.list(expected)?;
    tables.iter().enumerate().map(|(index, table)| read(index, &table.table()?)).collect()
}

fn roles(value: &Value<'_>) -> Result<Roles, DocumentError> {
    let role = |entry: &Entry<'_>| {
        let fault = |_| entry.error(DocumentFault::Name { found: entry.key.to_owned() });
        let name = Name::parse(entry.key).map_err(fault)?;
        let members = entry.value.list("a list of principals")?;
        let members =
            members.iter().map(|item| member(item, item.text("a principal")?)).collect::<Result<_, _>>()?;
        Ok((name, members))
    };
    value.table()?.entries().iter().map(role).collect()
}

/// Allows and denies are two arrays in TOML and one list to a reader, in the order of the document.
fn rules(document: &Table<'_>, roles: &Roles) -> Result<Vec<Rule>, DocumentError> {
    let mut tables = Vec::new();
    for (key, effect) in [("allow", Effect::Allow), ("deny", Effect::Deny)] {
        let expected = match effect {
            Effect::Allow => "tables under [[allow]]",
            Effect::Deny => "tables under [[deny]]",
        };
        if let Some(value) = document.optional(key) {
            tables.extend(value.list(expected)?.into_iter().map(|table| (effect, table)));
        }
    }
    tables.sort_by_key(|(_, table)| table.at);
    let mut lines_of_ids = HashMap::new();
    let mut rules = Vec::with_capacity(tables.len());
    for (effect, value) in &tables {
        let table = value.table()?;
        let rule = rule(*effect, &table, roles)?;
        if let Some(first_line) = lines_of_ids.insert(rule.id.clone(), rule.line) {
            let fault = DocumentFault::DuplicateId { found: rule.id.as_str().to_owned(), first_line };
            return Err(table.required("id")?.error(fault));
        }
        rules.push(rule);
    }
    Ok(rules)
}

fn rule(effect: Effect, table: &Table<'_>, roles: &Roles) -> Result<Rule, DocumentError> {
    table.allow_only(&["id", "who", "verbs", "topics", "when"], &["streams"])?;
    let id = RuleId::of_rule(name(table.required("id")?, "a name for the rule")?);
    let who = table.required("who")?.list("a list of principals and roles")?;
    let who = who.iter().map(|item| whom(item, roles)).collect::<Result<_, _>>()?;
    let (verbs, takes_topics) = verbs(table.required("verbs")?)?;
    let filters = match (takes_topics, table.optional("topics")) {
        (true, None) => return Err(table.error(DocumentFault::Missing { key: "topics" })),
        (false, None) => Vec::new(),
        (false, Some(topics)) => return Err(topics.error(DocumentFault::UnwantedTopics)),
        (true, Some(topics)) => rule_filters(topics)?,
    };
    let when = table.optional("when").map_or(Ok(When::default()), when)?;
    Ok(Rule { id, line: table.line(), effect, who, verbs, filters, when })
}

/// The verbs of a rule, each once, and whether they take topics.
fn verbs(value: &Value<'_>) -> Result<(Vec<Verb>, bool), DocumentError> {
    let mut verbs = Vec::new();
    for item in value.list("a list of verbs")? {
        let verb = verb(&item)?;
        if !verbs.contains(&verb) {
            verbs.push(verb);
        }
    }
    let takes_topics = verbs.iter().any(|verb| verb.takes_topics());
    if takes_topics && !verbs.iter().all(|verb| verb.takes_topics()) {
        let hint = "write two rules, one with topics and one without";
        return Err(value.error(DocumentFault::MixedVerbs).with_hint(hint));
    }
    Ok((verbs, takes_topics))
}

fn verb(value: &Value<'_>) -> Result<Verb, DocumentError> {
    let found = value.text("a verb")?;
    if let Some(verb) = Verb::ALL.into_iter().find(|verb| verb.as_str() == found) {
        return Ok(verb);
    }
    if VERBS_NOT_YET.contains(&found) {
        return Err(value.error(DocumentFault::NotInThisVersion { found: found.to_owned() }));
    }
    let known = Verb::ALL.into_iter().map(Verb::as_str);
    Err(value.error(DocumentFault::UnknownVerb { found: found.to_owned() }).suggesting(found, known))
}

fn whom(value: &Value<'_>, roles: &Roles) -> Result<Who, DocumentError> {
    let found = value.text("a principal or a role")?;
    let role_names = || roles.keys().map(Name::as_str);
    let Some(role) = found.strip_prefix("role:") else {
        let meant = |error: DocumentError| match role_names().find(|role| *role == found) {
            Some(role) => error.with_hint(format!("did you mean `role:{role}`?")),
            None => error,
        };
        return member(value, found).map(Who::Member).map_err(meant);
    };
    match Name::parse(role) {
        Ok(name) if roles.contains_key(&name) => Ok(Who::Role(name)),
        Ok(_) | Err(_) => {
            let error = value.error(DocumentFault::UnknownRole { found: role.to_owned() });
            Err(error.suggesting(role, role_names()))
        }
    }
}

/// A principal, or a SPIFFE path with `/*` after it. The star is taken off before anything is compared; everywhere
/// else a principal's own check refuses it, so that no identity can be read as a pattern nor a pattern as an identity.
fn member(value: &Value<'_>, found: &str) -> Result<Member, DocumentError> {
    let parsed = match found.strip_suffix("/*") {
        Some(path) => principal_prefix(path).map(Member::Below),
        None => Principal::parse(found).map(Member::Exactly),
    };
    parsed.map_err(|cause| {
        let error = principal_error(value, found, cause);
        if found.starts_with("role:") {
            error.with_hint("roles do not nest: name the principals themselves")
        } else if found.contains('*') {
            error.with_hint("the only pattern is a whole path of SPIFFE, as in `spiffe://acme.example/ns/*`")
        } else {
            error
        }
    })
}

fn principal_prefix(path: &str) -> Result<PrincipalPrefix, PrincipalError> {
    let rest = path.strip_prefix("spiffe://").ok_or(PrincipalError::Source)?;
    if path.len() > PRINCIPAL_BYTES_MAX {
        return Err(PrincipalError::TooLong { found: path.len() });
    }
    if rest.contains('/') {
        Principal::parse(path)?;
    } else {
        check_trust_domain(rest)?;
    }
    Ok(PrincipalPrefix(format!("{path}/").into()))
}

fn principal(value: &Value<'_>) -> Result<Principal, DocumentError> {
    let found = value.text("a principal")?;
    Principal::parse(found).map_err(|cause| {
        let error = principal_error(value, found, cause);
        if found.starts_with("role:") || found.contains('*') {
            error.with_hint("exactly one principal belongs here, neither a role nor a pattern")
        } else {
            error
        }
    })
}

fn principal_error(value: &Value<'_>, found: &str, cause: PrincipalError) -> DocumentError {
    value.error(DocumentFault::Principal { found: found.to_owned(), cause })
}

fn rule_filters(value: &Value<'_>) -> Result<Vec<TopicFilter>, DocumentError> {
    let read = |item: &Value<'_>| {
        let filter = filter(item)?;
        if filter.is_reserved() {
            return Err(item.error(DocumentFault::ReservedFilter { found: filter.as_str().to_owned() }));
        }
        Ok(filter)
    };
    value.list("a list of topic filters")?.iter().map(read).collect()
}

fn filter(value: &Value<'_>) -> Result<TopicFilter, DocumentError> {
    let found = value.text("a topic filter")?;
    TopicFilter::parse(found)
        .map_err(|cause| value.error(DocumentFault::Topic { found: found.to_owned(), cause }))
}

fn topic(value: &Value<'_>) -> Result<Topic, DocumentError> {
    let found = value.text("a topic")?;
    Topic::parse(found).map_err(|cause| value.error(DocumentFault::Topic { found: found.to_owned(), cause }))
}

fn when(value: &Value<'_>) -> Result<When, DocumentError> {
    let table = value.table()?;
    table.allow_only(&["source", "zone", "from", "until"], &[])?;
    if table.entries().is_empty() {
        let hint = "leave it out for a rule that always holds";
        return Err(value.error(DocumentFault::NoCondition).with_hint(hint));
    }
    let source = match table.optional("source") {
        Some(networks) => {
            networks.list("a list of networks")?.iter().map(network).collect::<Result<_, _>>()?
        }
        None => Vec::new(),
    };
    let zone = table.optional("zone").map(|zone| name(zone, "the name of a zone")).transpose()?;
    let from_ms = table.optional("from").map(time_ms).transpose()?;
    let until_ms = table.optional("until").map(time_ms).transpose()?;
    if let (Some(from_ms), Some(until_ms)) = (from_ms, until_ms)
        && until_ms <= from_ms
    {
        return Err(table.required("until")?.error(DocumentFault::NeverHolds));
    }
    Ok(When { source, zone, from_ms, until_ms })
}

fn network(value: &Value<'_>) -> Result<Network, DocumentError> {
    let found = value.text("a network")?;
    Network::parse(found).map_err(|cause| {
        let error = value.error(DocumentFault::Network { found: found.to_owned(), cause });
        match cause {
            NetworkError::HostBits { network } => error.with_hint(format!("did you mean `{network}`?")),
            NetworkError::NoPrefix | NetworkError::Address | NetworkError::PrefixBits => error,
        }
    })
}

fn address(value: &Value<'_>) -> Result<IpAddr, DocumentError> {
    let found = value.text("an address")?;
    found.parse().map_err(|_| value.error(DocumentFault::Address { found: found.to_owned() }))
}

fn name(value: &Value<'_>, expected: &'static str) -> Result<Name, DocumentError> {
    let found = value.text(expected)?;
    Name::parse(found).map_err(|_| value.error(DocumentFault::Name { found: found.to_owned() }))
}

/// Milliseconds since 1970. A finer time is refused rather than rounded: a rule must not hold a moment too long.
fn time_ms(value: &Value<'_>) -> Result<u64, DocumentError> {
    let found = value.text("a time in quotes")?;
    let parsed = OffsetDateTime::parse(found, &Rfc3339).ok();
    let whole_ms = parsed.filter(|time| time.nanosecond() % 1_000_000 == 0);
    let since_1970 = whole_ms.and_then(|time| u64::try_from(time.unix_timestamp_nanos() / 1_000_000).ok());
    since_1970.ok_or_else(|| value.error(DocumentFault::Time { found: found.to_owned() }))
}

fn revocation(index: usize, table: &Table<'_>) -> Result<Revocation, DocumentError> {
    table.allow_only(&["principal", "from"], &["kid", "serial", "issuer"])?;
    Ok(Revocation {
        id: RuleId::of_revocation(index),
        principal: principal(table.required("principal")?)?,
        from_ms: table.optional("from").map_or(Ok(0), time_ms)?,
    })
}

fn test(table: &Table<'_>) -> Result<PolicyTest, DocumentError> {
    table.allow_only(&["who", "can", "cannot", "source", "zone", "at"], &[])?;
    let who = principal(table.required("who")?)?;
    let mut expected = Vec::new();
    for (key, outcome) in [("can", Outcome::Can), ("cannot", Outcome::Cannot)] {
        if let Some(value) = table.optional(key) {
            expectations(value, outcome, &mut expected)?;
        }
    }
    if expected.is_empty() {
        let hint = "say `can = { .. }` or `cannot = { .. }`";
        return Err(table.error(DocumentFault::NoExpectation).with_hint(hint));
    }
    Ok(PolicyTest {
        line: table.line(),
        who,
        expectations: expected,
        source: table.optional("source").map(address).transpose()?,
        zone: table.optional("zone").map(|zone| name(zone, "the name of a zone")).transpose()?,
        at_ms: table.optional("at").map(time_ms).transpose()?,
    })
}

fn expectations(
    value: &Value<'_>,
    outcome: Outcome,
    expected: &mut Vec<Expectation>,
) -> Result<(), DocumentError> {
    let table = value.table()?;
    table.allow_only(&Verb::ALL.map(Verb::as_str), &VERBS_NOT_YET)?;
    if table.entries().is_empty() {
        return Err(value.error(DocumentFault::NoExpectation));
    }
    for verb in Verb::ALL {
        let Some(value) = table.optional(verb.as_str()) else { continue };
        let acts = match verb {
            Verb::Publish => {
                let topics = value.list("a list of topics")?;
                topics.iter().map(|item| topic(item).map(ExpectedAct::Publish)).collect::<Result<_, _>>()?
            }
            Verb::Subscribe => {
                let filters = value.list("a list of topic filters")?;
                filters
                    .iter()
                    .map(|item| filter(item).map(ExpectedAct::Subscribe))
                    .collect::<Result<_, _>>()?
            }
            Verb::Admin => vec![asserted(value, ExpectedAct::Admin)?],
            Verb::Audit => vec![asserted(value, ExpectedAct::Audit)?],
        };
        expected.extend(acts.into_iter().map(|act| Expectation { outcome, act }));
    }
    Ok(())
}

/// `can = { admin = false }` reads as the opposite of what it would test.
fn asserted(value: &Value<'_>, act: ExpectedAct) -> Result<ExpectedAct, DocumentError> {
    if value.is_true() {
        return Ok(act);
    }
    Err(value.error(DocumentFault::NotTrue).with_hint("use `cannot` for what must be refused"))
}
