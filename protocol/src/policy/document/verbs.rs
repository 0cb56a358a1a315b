//! The verbs of a rule.

use super::error::{DocumentError, DocumentFault};
use super::tree::Value;
use crate::policy::verb::{Verb, VerbObject};

/// Verbs of later versions.
pub(super) const VERBS_NOT_YET: [&str; 2] = ["manage-keys", "delete"];

/// What a rule is about: one of these, since all of its verbs are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RuleObject {
    Topics,
    Streams,
    Bus,
}

impl RuleObject {
    const fn of(verb: Verb) -> Self {
        match verb.object() {
            VerbObject::Topics => Self::Topics,
            VerbObject::History | VerbObject::Streams => Self::Streams,
            VerbObject::Bus => Self::Bus,
        }
    }
}

/// The verbs of a rule, each once, and what they are about.
pub(super) fn verbs(value: &Value<'_>) -> Result<(Vec<Verb>, RuleObject), DocumentError> {
    let (mut verbs, mut objects) = (Vec::new(), Vec::new());
    for item in value.list("a list of verbs")? {
        let verb = verb(&item)?;
        if !verbs.contains(&verb) {
            verbs.push(verb);
            objects.push(RuleObject::of(verb));
        }
    }
    match objects.as_slice() {
        [object, others @ ..] if others.iter().all(|other| other == object) => Ok((verbs, *object)),
        _ => {
            let hint = "write one rule for each kind";
            Err(value.error(DocumentFault::MixedVerbs).with_hint(hint))
        }
    }
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
