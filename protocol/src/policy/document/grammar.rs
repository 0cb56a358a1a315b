//! What may stand in a policy document, and what it means.
//!
//! ```text
//!  version = 7
//!  [roles]      NAME = [MEMBER ..]
//!  [[stream]]   name = NAME, id = HEX, topics = [FILTER ..], durability = fsync | interval | memory, seal = off
//!               retention = { age = SPAN, bytes = AMOUNT, messages = NUMBER }
//!  [[allow]]    id = NAME, who = [WHO ..], verbs = [VERB ..], topics = [FILTER ..], streams = [NAME ..]
//!  [[deny]]     when = { source = [NETWORK ..], zone = NAME, from = TIME, until = TIME }
//!  [[revoke]]   principal = PRINCIPAL, from = TIME
//!  [[test]]     who = PRINCIPAL, source = ADDRESS, zone = NAME, at = TIME
//!               can, cannot = { publish = [TOPIC ..], subscribe = [FILTER ..], replay = [NAME ..], consume = [NAME ..],
//!                               describe = [NAME ..], admin = true, audit = true }
//!
//!  MEMBER       PRINCIPAL, or spiffe://DOMAIN/[PATH/]*
//!  WHO          MEMBER, or role:NAME
//! ```
//!
//! What later versions add is known by name and refused by name, never passed over.

use std::collections::{BTreeMap, HashMap};

use super::error::{DocumentError, DocumentFault};
use super::expectations;
use super::streams::{self, stream_names};
use super::tree::{Entry, Table, Value};
use super::values::{member, name, open_filters, principal, time_ms, when};
use super::verbs::{RuleObject, verbs};
use crate::policy::name::Name;
use crate::policy::rule::{Effect, Member, Policy, Revocation, Role, Rule, RuleId, Who};
use crate::policy::stream::Stream;
use crate::policy::verb::{Verb, VerbObject};
use crate::policy::when::When;
use crate::topic::TopicFilter;

/// The roles that the document defines, by name: a rule may only name one of them.
type Roles = BTreeMap<Name, Vec<Member>>;

/// Reads the whole document.
pub(super) fn policy(document: &Table<'_>) -> Result<Policy, DocumentError> {
    let known = ["version", "roles", "stream", "allow", "deny", "revoke", "test"];
    document.allow_only(&known, &["operators", "limit"])?;
    let version = version(document.required("version")?)?;
    let roles = document.optional("roles").map_or(Ok(Roles::new()), roles)?;
    let streams = document.optional("stream").map_or(Ok(Vec::new()), streams::streams)?;
    let test = |_, table: &Table<'_>| expectations::test(table, &streams);
    Ok(Policy {
        version,
        rules: rules(document, &roles, &streams)?,
        revocations: each(document, "revoke", "tables under [[revoke]]", revocation)?,
        tests: each(document, "test", "tables under [[test]]", test)?,
        streams,
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
fn rules(document: &Table<'_>, roles: &Roles, streams: &[Stream]) -> Result<Vec<Rule>, DocumentError> {
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
        let rule = rule(*effect, &table, roles, streams)?;
        if let Some(first_line) = lines_of_ids.insert(rule.id.clone(), rule.line) {
            let fault = DocumentFault::DuplicateId { found: rule.id.as_str().to_owned(), first_line };
            return Err(table.required("id")?.error(fault));
        }
        rules.push(rule);
    }
    Ok(rules)
}

fn rule(effect: Effect, table: &Table<'_>, roles: &Roles, streams: &[Stream]) -> Result<Rule, DocumentError> {
    table.allow_only(&["id", "who", "verbs", "topics", "streams", "when"], &[])?;
    let id = RuleId::of_rule(name(table.required("id")?, "a name for the rule")?);
    let who = table.required("who")?.list("a list of principals and roles")?;
    let who = who.iter().map(|item| whom(item, roles)).collect::<Result<_, _>>()?;
    let (verbs, object) = verbs(table.required("verbs")?)?;
    let (filters, streams) = match object {
        RuleObject::Topics => {
            refuse_streams(table, &verbs)?;
            (open_filters(table.required("topics")?)?, Vec::new())
        }
        RuleObject::Streams => on_streams(table, &verbs, streams)?,
        RuleObject::Bus => {
            refuse_topics(table, &verbs)?;
            refuse_streams(table, &verbs)?;
            (Vec::new(), Vec::new())
        }
    };
    let when = table.optional("when").map_or(Ok(When::default()), when)?;
    Ok(Rule { id, line: table.line(), effect, who, verbs, filters, streams, when })
}

/// The topics and the streams of a rule on streams. A rule that is narrowed to what its streams do not have would
/// never speak, and the one that was meant to forbid would allow.
fn on_streams(
    table: &Table<'_>,
    verbs: &[Verb],
    streams: &[Stream],
) -> Result<(Vec<TopicFilter>, Vec<Name>), DocumentError> {
    let named = stream_names(table.required("streams")?, streams)?;
    refuse_topics(table, verbs)?;
    let Some(topics) = table.optional("topics") else { return Ok((Vec::new(), named)) };
    let filters = open_filters(topics)?;
    let captured = || streams.iter().filter(|stream| named.contains(&stream.name)).flat_map(Stream::topics);
    for (filter, item) in filters.iter().zip(topics.list("a list of topic filters")?) {
        if !captured().any(|captured| captured.overlaps(filter)) {
            return Err(item.error(DocumentFault::NotCaptured { found: filter.as_str().to_owned() }));
        }
    }
    Ok((filters, named))
}

fn refuse_topics(table: &Table<'_>, verbs: &[Verb]) -> Result<(), DocumentError> {
    let takes_none = |verb: &Verb| match verb.object() {
        VerbObject::Topics | VerbObject::History => false,
        VerbObject::Streams | VerbObject::Bus => true,
    };
    match (table.optional("topics"), verbs.iter().copied().find(takes_none)) {
        (Some(topics), Some(verb)) => Err(topics.error(DocumentFault::UnwantedTopics { verb })),
        (Some(_) | None, _) => Ok(()),
    }
}

fn refuse_streams(table: &Table<'_>, verbs: &[Verb]) -> Result<(), DocumentError> {
    let takes_none = |verb: &Verb| match verb.object() {
        VerbObject::History | VerbObject::Streams => false,
        VerbObject::Topics | VerbObject::Bus => true,
    };
    match (table.optional("streams"), verbs.iter().copied().find(takes_none)) {
        (Some(streams), Some(verb)) => Err(streams.error(DocumentFault::UnwantedStreams { verb })),
        (Some(_) | None, _) => Ok(()),
    }
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

fn revocation(index: usize, table: &Table<'_>) -> Result<Revocation, DocumentError> {
    table.allow_only(&["principal", "from"], &["kid", "serial", "issuer"])?;
    Ok(Revocation {
        id: RuleId::of_revocation(index),
        principal: principal(table.required("principal")?)?,
        from_ms: table.optional("from").map_or(Ok(0), time_ms)?,
    })
}
