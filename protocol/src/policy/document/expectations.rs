//! `[[test]]`: what a policy expects of itself.

use super::error::{DocumentError, DocumentFault};
use super::streams::stream_names;
use super::tree::{Table, Value};
use super::values::{address, filter, name, principal, time_ms, topic};
use super::verbs::VERBS_NOT_YET;
use crate::policy::expectation::{Expectation, ExpectedAct, Outcome, PolicyTest};
use crate::policy::name::Name;
use crate::policy::stream::Stream;
use crate::policy::verb::Verb;

/// Reads one test. What it says of a stream that there is not would be true of any policy.
pub(super) fn test(table: &Table<'_>, streams: &[Stream]) -> Result<PolicyTest, DocumentError> {
    table.allow_only(&["who", "can", "cannot", "source", "zone", "at"], &[])?;
    let who = principal(table.required("who")?)?;
    let mut expected = Vec::new();
    for (key, outcome) in [("can", Outcome::Can), ("cannot", Outcome::Cannot)] {
        if let Some(value) = table.optional(key) {
            expectations(value, outcome, streams, &mut expected)?;
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
    streams: &[Stream],
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
            Verb::Replay => on_each(value, streams, ExpectedAct::Replay)?,
            Verb::Consume => on_each(value, streams, ExpectedAct::Consume)?,
            Verb::Describe => on_each(value, streams, ExpectedAct::Describe)?,
            Verb::Admin => vec![asserted(value, ExpectedAct::Admin)?],
            Verb::Audit => vec![asserted(value, ExpectedAct::Audit)?],
        };
        expected.extend(acts.into_iter().map(|act| Expectation { outcome, act }));
    }
    Ok(())
}

fn on_each(
    value: &Value<'_>,
    streams: &[Stream],
    act: fn(Name) -> ExpectedAct,
) -> Result<Vec<ExpectedAct>, DocumentError> {
    Ok(stream_names(value, streams)?.into_iter().map(act).collect())
}

/// `can = { admin = false }` reads as the opposite of what it would test.
fn asserted(value: &Value<'_>, act: ExpectedAct) -> Result<ExpectedAct, DocumentError> {
    if value.is_true() {
        return Ok(act);
    }
    Err(value.error(DocumentFault::NotTrue).with_hint("use `cannot` for what must be refused"))
}
