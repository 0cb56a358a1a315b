//! The values of a policy document: principals, filters, conditions, names and times.

use std::net::IpAddr;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::error::{DocumentError, DocumentFault};
use super::tree::Value;
use crate::identity::{Principal, PrincipalError, check_trust_domain};
use crate::limits::PRINCIPAL_BYTES_MAX;
use crate::policy::name::Name;
use crate::policy::rule::{Member, PrincipalPrefix};
use crate::policy::when::{Network, NetworkError, When};
use crate::topic::{Topic, TopicFilter};

/// A principal, or a SPIFFE path with `/*` after it. The star is taken off before anything is compared; everywhere
/// else a principal's own check refuses it, so that no identity can be read as a pattern nor a pattern as an identity.
pub(super) fn member(value: &Value<'_>, found: &str) -> Result<Member, DocumentError> {
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

pub(super) fn principal(value: &Value<'_>) -> Result<Principal, DocumentError> {
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

/// Filters that a rule or a stream may have.
pub(super) fn open_filters(value: &Value<'_>) -> Result<Vec<TopicFilter>, DocumentError> {
    let read = |item: &Value<'_>| {
        let filter = filter(item)?;
        if filter.is_reserved() {
            return Err(item.error(DocumentFault::ReservedFilter { found: filter.as_str().to_owned() }));
        }
        Ok(filter)
    };
    value.list("a list of topic filters")?.iter().map(read).collect()
}

pub(super) fn filter(value: &Value<'_>) -> Result<TopicFilter, DocumentError> {
    let found = value.text("a topic filter")?;
    TopicFilter::parse(found)
        .map_err(|cause| value.error(DocumentFault::Topic { found: found.to_owned(), cause }))
}

pub(super) fn topic(value: &Value<'_>) -> Result<Topic, DocumentError> {
    let found = value.text("a topic")?;
    Topic::parse(found).map_err(|cause| value.error(DocumentFault::Topic { found: found.to_owned(), cause }))
}

pub(super) fn when(value: &Value<'_>) -> Result<When, DocumentError> {
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

pub(super) fn address(value: &Value<'_>) -> Result<IpAddr, DocumentError> {
    let found = value.text("an address")?;
    found.parse().map_err(|_| value.error(DocumentFault::Address { found: found.to_owned() }))
}

pub(super) fn name(value: &Value<'_>, expected: &'static str) -> Result<Name, DocumentError> {
    let found = value.text(expected)?;
    Name::parse(found).map_err(|_| value.error(DocumentFault::Name { found: found.to_owned() }))
}

/// Milliseconds since 1970. A finer time is refused rather than rounded: a rule must not hold a moment too long.
pub(super) fn time_ms(value: &Value<'_>) -> Result<u64, DocumentError> {
    let found = value.text("a time in quotes")?;
    let parsed = OffsetDateTime::parse(found, &Rfc3339).ok();
    let whole_ms = parsed.filter(|time| time.nanosecond() % 1_000_000 == 0);
    let since_1970 = whole_ms.and_then(|time| u64::try_from(time.unix_timestamp_nanos() / 1_000_000).ok());
    since_1970.ok_or_else(|| value.error(DocumentFault::Time { found: found.to_owned() }))
}
