//! What a policy speaks of must be served by some listener.
//!
//! A condition on a zone that no listener has never holds, and nobody has a principal of a trust domain that no
//! listener serves. Where that is a slip of the pen, a denial denies nothing and a revocation revokes nobody, and
//! nothing would ever say so: the policy is refused instead. Pure: a policy and the listeners come in.

use std::collections::BTreeSet;
use std::fmt;

use sealbus_protocol::policy::{Member, Policy, Who};
use sealbus_protocol::spelling::nearest;

use crate::config::ListenerConfig;

/// A policy speaks of what no listener serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotServed {
    speaker: String,
    unserved: Unserved,
    found: String,
    known: BTreeSet<String>,
}

/// What no listener serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unserved {
    /// A zone: no listener's `zone` is this.
    Zone,
    /// A SPIFFE trust domain: no listener's `trust_domain` is this.
    TrustDomain,
}

impl NotServed {
    /// What it is.
    #[must_use]
    pub const fn unserved(&self) -> Unserved {
        self.unserved
    }

    /// The name that the policy gives.
    #[must_use]
    pub fn found(&self) -> &str {
        &self.found
    }
}

impl fmt::Display for NotServed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { speaker, unserved, found, known } = self;
        let (what, whose, all) = match unserved {
            Unserved::Zone => ("zone", "has", "zones"),
            Unserved::TrustDomain => ("trust domain", "serves", "trust domains"),
        };
        write!(f, "{speaker} the {what} \"{found}\", which no listener {whose}")?;
        if known.is_empty() {
            return f.write_str("; there is no listener");
        }
        let names: Vec<_> = known.iter().map(|name| format!("\"{name}\"")).collect();
        write!(f, "; the listeners' {all} are {}", names.join(", "))?;
        match nearest(found, known.iter().map(String::as_str)) {
            Some(meant) => write!(f, ", did you mean \"{meant}\"?"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for NotServed {}

/// Checks every zone and every SPIFFE trust domain of rules, roles and revocations.
///
/// # Errors
/// [`NotServed`] with the first that no listener has.
pub(super) fn check(policy: &Policy, listeners: &[ListenerConfig]) -> Result<(), NotServed> {
    let served = Served::new(listeners);
    for role in policy.roles() {
        for member in role.members() {
            served.trust_domain(member.trust_domain(), || {
                format!("role \"{}\" has the member {member} of", role.name())
            })?;
        }
    }
    for rule in policy.rules() {
        let named = || format!("line {}: rule \"{}\"", rule.line(), rule.id());
        for who in rule.who() {
            match who {
                Who::Member(member) => served.member(member, named)?,
                // Its members were checked with the role.
                Who::Role(_) => {}
            }
        }
        if let Some(zone) = rule.when().zone() {
            served.zone(zone.as_str(), || format!("{} is for", named()))?;
        }
    }
    for revocation in policy.revocations() {
        let principal = revocation.principal();
        served.trust_domain(principal.trust_domain(), || {
            format!("{} is about {principal} of", revocation.id())
        })?;
    }
    Ok(())
}

struct Served<'a> {
    zones: BTreeSet<&'a str>,
    trust_domains: BTreeSet<&'a str>,
}

impl<'a> Served<'a> {
    fn new(listeners: &'a [ListenerConfig]) -> Self {
        Self {
            zones: listeners.iter().map(|listener| listener.zone.as_str()).collect(),
            trust_domains: listeners.iter().map(|listener| listener.trust_domain.as_str()).collect(),
        }
    }

    fn member(&self, member: &Member, rule: impl Fn() -> String) -> Result<(), NotServed> {
        self.trust_domain(member.trust_domain(), || format!("{} is about {member} of", rule()))
    }

    /// Principals of other sources have no trust domain in their names.
    fn trust_domain(&self, found: Option<&str>, speaker: impl Fn() -> String) -> Result<(), NotServed> {
        found.map_or(Ok(()), |found| known(&self.trust_domains, Unserved::TrustDomain, found, speaker))
    }

    fn zone(&self, found: &str, speaker: impl Fn() -> String) -> Result<(), NotServed> {
        known(&self.zones, Unserved::Zone, found, speaker)
    }
}

fn known(
    known: &BTreeSet<&str>,
    unserved: Unserved,
    found: &str,
    speaker: impl Fn() -> String,
) -> Result<(), NotServed> {
    if known.contains(found) {
        return Ok(());
    }
    let known = known.iter().map(|&name| name.to_owned()).collect();
    Err(NotServed { speaker: speaker(), unserved, found: found.to_owned(), known })
}

#[cfg(test)]
mod tests {
    use sealbus_protocol::identity::PrincipalSource;

    use super::*;
    use crate::config::Revocation;

    fn listener(zone: &str, trust_domain: &str) -> ListenerConfig {
        ListenerConfig {
            address: ([127, 0, 0, 1], 0).into(),
            zone: zone.to_owned(),
            principal: PrincipalSource::Spiffe,
            trust_domain: trust_domain.to_owned(),
            certificate: "broker.pem".into(),
            key: "broker.key".into(),
            client_ca: "ca.pem".into(),
            revocation: Revocation::ShortLived,
        }
    }

    fn judge(text: &str) -> Result<(), String> {
        let listeners = [listener("zone-0", "acme.example"), listener("dmz", "partner.example")];
        let policy = Policy::parse(&format!("version = 1\n{text}")).unwrap();
        check(&policy, &listeners).map_err(|error| error.to_string())
    }

    fn rule(effect: &str, who: &str, when: &str) -> String {
        format!(
            "[[{effect}]]\nid = \"night\"\nwho = [\"{who}\"]\nverbs = [\"publish\"]\ntopics = [\"#\"]\nwhen = {{ {when} }}\n"
        )
    }

    #[test]
    fn what_a_listener_serves_is_accepted() {
        for text in [
            String::new(),
            rule("allow", "spiffe://acme.example/a", "zone = \"zone-0\""),
            rule("deny", "spiffe://partner.example/*", "zone = \"dmz\""),
            // Sources whose names hold no trust domain.
            rule("deny", "dns:host.elsewhere.example", "source = [\"10.0.0.0/8\"]"),
            rule("deny", "cn:somebody", "source = [\"10.0.0.0/8\"]"),
            "[roles]\nall = [\"spiffe://acme.example/*\", \"cn:somebody\"]\n".to_owned(),
            "[[revoke]]\nprincipal = \"spiffe://partner.example/eve\"\n".to_owned(),
            "[[revoke]]\nprincipal = \"dns:eve.example\"\n".to_owned(),
        ] {
            assert_eq!(judge(&text), Ok(()), "{text}");
        }
    }

    #[test]
    fn a_slip_of_the_pen_is_refused_with_what_was_meant() {
        let zones = "which no listener has; the listeners' zones are \"dmz\", \"zone-0\"";
        let domains = "which no listener serves; the listeners' trust domains are \"acme.example\", \"partner.example\"";
        for (text, expected) in [
            (
                rule("deny", "spiffe://acme.example/a", "zone = \"zone0\""),
                format!(
                    "line 2: rule \"night\" is for the zone \"zone0\", {zones}, did you mean \"zone-0\"?"
                ),
            ),
            (
                rule("allow", "spiffe://acme.example/a", "zone = \"DMZ\""),
                format!("line 2: rule \"night\" is for the zone \"DMZ\", {zones}, did you mean \"dmz\"?"),
            ),
            (
                rule("allow", "spiffe://acme.example/a", "zone = \"internal\""),
                format!("line 2: rule \"night\" is for the zone \"internal\", {zones}"),
            ),
            (
                rule("deny", "spiffe://acme.exmaple/a", "zone = \"dmz\""),
                format!(
                    "line 2: rule \"night\" is about spiffe://acme.exmaple/a of the trust domain \"acme.exmaple\", \
                     {domains}, did you mean \"acme.example\"?"
                ),
            ),
            (
                rule("allow", "spiffe://acme.example.net/x/*", "zone = \"dmz\""),
                format!(
                    "line 2: rule \"night\" is about spiffe://acme.example.net/x/* of the trust domain \
                     \"acme.example.net\", {domains}, did you mean \"acme.example\"?"
                ),
            ),
            (
                "[roles]\nall = [\"spiffe://acme.example/*\", \"spiffe://q/*\"]\n".to_owned(),
                format!("role \"all\" has the member spiffe://q/* of the trust domain \"q\", {domains}"),
            ),
            (
                "[[revoke]]\nprincipal = \"spiffe://partner.exmple/eve\"\n".to_owned(),
                format!(
                    "revoke[0] is about spiffe://partner.exmple/eve of the trust domain \"partner.exmple\", {domains}, \
                     did you mean \"partner.example\"?"
                ),
            ),
        ] {
            assert_eq!(judge(&text), Err(expected), "{text}");
        }
    }
}
