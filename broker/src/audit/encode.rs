//! One line of JSON for each event, in the schema of OCSF 1.3.0.
//!
//! ```text
//!  time, class, activity, type, severity, status  |  metadata  |  the fields of the class  |  unmapped: ours
//! ```
//!
//! Keys are in fixed order, there are no floats, every text is escaped and bounded, and no text of a peer is ever put
//! into another one. What OCSF has no place for is in `unmapped`, which always begins with the line's index (`seq`)
//! and the event's own name.

mod json;
mod labels;

use std::net::SocketAddr;

use sealbus_protocol::identity::Principal;
use sealbus_protocol::policy::{DenialRule, Narrowed, RuleId};
use sealbus_protocol::refusal::Code;

use super::event::{Actor, CutReason, Event, Initiator, PolicyFacts, PreviousRun, Target};
use super::flood::Span;
use super::stream::StreamChange;
use json::{Object, Truncated};
use labels::{Disposition, Labels, Suspicion, labels, suspicion};

/// Bytes of a principal.
const PRINCIPAL_BYTES: usize = 256;

/// Bytes of a topic or filter.
const TOPIC_BYTES: usize = 512;

/// Bytes of a sentence.
const REASON_BYTES: usize = 512;

/// Bytes of a certificate's issuer.
const ISSUER_BYTES: usize = 256;

/// Bytes of what a client says that it is.
const AGENT_BYTES: usize = 128;

/// Rules of one subscription.
const RULES: usize = 16;

/// Where a line stands in the log, and when its event happened.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stamp {
    /// The line's index, from 0.
    pub(super) seq: u64,
    /// Milliseconds since 1970.
    pub(super) time_ms: u64,
}

/// Appends the line of an event, with its line feed.
pub(super) fn encode(event: &Event, stamp: Stamp, span: Option<&Span>, out: &mut Vec<u8>) {
    let labels = labels(event);
    json::object(out, |line| {
        write_base(line, &labels, stamp.time_ms, span);
        write_class(line, event);
        line.object("unmapped", |unmapped| {
            unmapped.number("seq", stamp.seq);
            unmapped.word("event", labels.name);
            write_unmapped(unmapped, event);
            if let Some(span) = span {
                unmapped.shown("aggregated_from", span.origin);
            }
            if unmapped.truncated() == Truncated::Yes {
                unmapped.truth("is_truncated");
            }
        });
    });
    out.push(b'\n');
}

/// What every event has.
fn write_base(line: &mut Object<'_>, labels: &Labels, time_ms: u64, span: Option<&Span>) {
    let class_uid = labels.class as u64;
    line.number("time", time_ms);
    line.number("class_uid", class_uid);
    line.number("category_uid", class_uid / 1_000);
    line.number("activity_id", labels.activity);
    line.number("type_uid", class_uid * 100 + labels.activity);
    line.number("severity_id", labels.severity as u64);
    line.number("status_id", labels.status as u64);
    if let Some(disposition) = labels.disposition {
        let action_id = match disposition {
            Disposition::Allowed => 1,
            Disposition::Dropped
            | Disposition::AccessRevoked
            | Disposition::Rejected
            | Disposition::Unauthorized => 2,
        };
        line.number("action_id", action_id);
        line.number("disposition_id", disposition as u64);
    }
    if let Some(span) = span {
        line.number("count", span.count);
        line.number("start_time", span.start_ms);
        line.number("end_time", span.end_ms);
    }
    line.object("metadata", |metadata| {
        metadata.object("product", |product| {
            product.word("name", "sealbus");
            product.word("vendor_name", "sealbus");
            product.word("version", env!("CARGO_PKG_VERSION"));
        });
        metadata.word("version", "1.3.0");
        if labels.disposition.is_some() {
            metadata.words("profiles", ["security_control"].into_iter(), 1);
        }
    });
}

/// What the event's class asks for.
fn write_class(line: &mut Object<'_>, event: &Event) {
    match event {
        Event::BrokerStarted { version, .. } => write_app(line, version),
        Event::BrokerStopped => write_app(line, env!("CARGO_PKG_VERSION")),
        Event::PolicyReloaded { before, after, by, .. } => {
            write_initiator(line, by);
            line.object("entity", |entity| write_policy(entity, before.as_ref().unwrap_or(after)));
            line.object("entity_result", |entity| write_policy(entity, after));
        }
        Event::PolicyRefused { reason, by } => {
            write_refusal(line, reason);
            write_initiator(line, by);
            line.object("entity", |entity| write_entity(entity, "policy"));
        }
        Event::TlsReloaded { by } => {
            write_initiator(line, by);
            line.object("entity", |entity| write_entity(entity, "tls"));
        }
        Event::TlsRefused { reason, by } => {
            write_refusal(line, reason);
            write_initiator(line, by);
            line.object("entity", |entity| write_entity(entity, "tls"));
        }
        Event::HandshakeFailed { source, listener, detail, .. } => {
            write_refusal(line, detail);
            write_endpoint(line, "src_endpoint", *source);
            write_endpoint(line, "dst_endpoint", *listener);
        }
        Event::SessionRefused { source, principal, reason, .. } => {
            write_refusal(line, reason);
            write_authentication(line, principal.as_ref(), *source);
        }
        Event::SessionOpened { actor, serial, issuer, .. } => {
            write_authentication(line, Some(&actor.principal), actor.source);
            line.object("certificate", |certificate| {
                certificate.text("issuer", issuer, ISSUER_BYTES);
                certificate.shown("serial_number", serial);
            });
        }
        Event::SessionClosed { actor, reason, .. } => {
            write_refusal(line, reason);
            write_authentication(line, Some(&actor.principal), actor.source);
        }
        Event::SessionCut { actor, why } => {
            write_refusal(line, &why.to_string());
            write_authentication(line, Some(&actor.principal), actor.source);
        }
        Event::Subscribed { actor, filter, .. } => {
            write_call(line, actor, "subscribe", Some(("filter", filter.as_str())));
        }
        Event::Unsubscribed { actor, filter } => {
            write_call(line, actor, "unsubscribe", Some(("filter", filter.as_str())));
        }
        Event::Replaying { actor, stream, .. } => {
            write_call(line, actor, "replay", Some(("stream", stream)));
        }
        Event::Consuming { actor, stream, .. } => {
            write_call(line, actor, "consume", Some(("stream", stream)));
        }
        Event::Stream { name, id, change } => {
            if let Some(fault) = change.fault() {
                write_refusal(line, fault);
            }
            write_initiator(line, &Initiator::Process);
            line.object("entity", |entity| {
                entity.word("type", "stream");
                entity.text("name", name, TOPIC_BYTES);
                entity.shown("uid", id);
            });
        }
        Event::IndexRebuilt { reason } => {
            write_refusal(line, reason);
            write_initiator(line, &Initiator::Process);
            line.object("entity", |entity| write_entity(entity, "index"));
        }
        Event::Opened { actor, topic, .. } | Event::PublishSummary { actor, topic, .. } => {
            write_call(line, actor, "publish", Some(("topic", topic.as_str())));
        }
        Event::Denied { actor, verb, target, rule } => {
            write_refusal(line, &rule.to_string());
            let resource = match target {
                Target::Topic(topic) => Some(("topic", topic.as_str())),
                Target::Filter(filter) => Some(("filter", filter.as_str())),
                Target::Stream(stream) => Some(("stream", stream.as_str())),
                Target::Bus => None,
            };
            write_call(line, actor, verb.as_str(), resource);
        }
        Event::BatchRefused { actor, topic, code, reason } => {
            write_refusal(line, reason);
            if let Suspicion::Attack = suspicion(*code) {
                write_finding(line, "a batch that may be forged, moved or replayed");
            }
            write_call(line, actor, "publish", Some(("topic", topic.as_str())));
        }
        Event::Equivocation { actor, topic, .. } => {
            write_finding(line, "two signed batches under one sequence number");
            write_call(line, actor, "publish", Some(("topic", topic.as_str())));
        }
        Event::AdminDone { actor, operation } => write_call(line, actor, operation, None),
        Event::AdminDenied { actor, operation, rule } => {
            write_refusal(line, &rule.to_string());
            write_call(line, actor, operation, None);
        }
    }
}

/// What OCSF has no place for.
fn write_unmapped(unmapped: &mut Object<'_>, event: &Event) {
    if let Some(actor) = actor_of(event) {
        unmapped.number("session", actor.session.0);
    }
    match event {
        Event::BrokerStarted { bus, previous, .. } => {
            unmapped.shown("bus", bus);
            write_previous(unmapped, *previous);
        }
        Event::PolicyReloaded { generation, before, after, .. } => {
            unmapped.number("generation", *generation);
            if let Some(before) = before {
                unmapped.number("rules_before", before.rules as u64);
            }
            unmapped.number("rules_after", after.rules as u64);
        }
        Event::HandshakeFailed { reason, .. } => unmapped.word("reason", reason),
        Event::SessionRefused { code, .. } | Event::BatchRefused { code, .. } => {
            unmapped.word("code", code.as_str());
        }
        Event::SessionOpened { kid, agent, zone, .. } => {
            unmapped.shown("kid", kid);
            unmapped.text("agent", agent, AGENT_BYTES);
            unmapped.text("zone", zone, AGENT_BYTES);
        }
        Event::SessionClosed { traffic, .. } => {
            unmapped.number("published", traffic.published);
            unmapped.number("delivered", traffic.delivered);
        }
        Event::SessionCut { why, .. } => {
            unmapped.word("reason", why.word());
            if let CutReason::PrincipalRevoked(rule) = why {
                unmapped.word("rule", rule.as_str());
            }
        }
        Event::Subscribed { narrowed, rules, .. } => {
            if let Narrowed::Yes = narrowed {
                unmapped.truth("narrowed");
            }
            unmapped.words("rules", rules.iter().map(RuleId::as_str), RULES);
        }
        Event::Replaying { from, narrowed, rules, .. } => {
            unmapped.number("from", *from);
            if let Narrowed::Yes = narrowed {
                unmapped.truth("narrowed");
            }
            unmapped.words("rules", rules.iter().map(RuleId::as_str), RULES);
        }
        Event::Consuming { consumer, rules, .. } => {
            unmapped.text("consumer", consumer, TOPIC_BYTES);
            unmapped.words("rules", rules.iter().map(RuleId::as_str), RULES);
        }
        Event::Stream { change, .. } => write_stream_change(unmapped, change),
        Event::Opened { rule, .. } => unmapped.word("rule", rule.as_str()),
        Event::Denied { rule, .. } | Event::AdminDenied { rule, .. } => {
            unmapped.word("code", Code::Denied.as_str());
            unmapped.word("rule", rule_name(rule));
        }
        Event::Equivocation { first_seq, accepted_head, refused_head, .. } => {
            unmapped.word("code", Code::Equivocation.as_str());
            unmapped.number("first_seq", *first_seq);
            if let Some(head) = accepted_head {
                unmapped.hex("accepted_head", head.as_bytes());
            }
            unmapped.hex("refused_head", refused_head.as_bytes());
        }
        Event::PublishSummary { traffic, .. } => {
            unmapped.number("messages", traffic.messages);
            unmapped.number("bytes", traffic.bytes);
            unmapped.number("refused", traffic.refused);
        }
        Event::BrokerStopped
        | Event::PolicyRefused { .. }
        | Event::TlsReloaded { .. }
        | Event::TlsRefused { .. }
        | Event::Unsubscribed { .. }
        | Event::IndexRebuilt { .. }
        | Event::AdminDone { .. } => {}
    }
}

/// Whose act the event is.
fn actor_of(event: &Event) -> Option<&Actor> {
    match event {
        Event::SessionOpened { actor, .. }
        | Event::SessionClosed { actor, .. }
        | Event::SessionCut { actor, .. }
        | Event::Subscribed { actor, .. }
        | Event::Unsubscribed { actor, .. }
        | Event::Replaying { actor, .. }
        | Event::Consuming { actor, .. }
        | Event::Opened { actor, .. }
        | Event::Denied { actor, .. }
        | Event::BatchRefused { actor, .. }
        | Event::Equivocation { actor, .. }
        | Event::AdminDone { actor, .. }
        | Event::AdminDenied { actor, .. }
        | Event::PublishSummary { actor, .. } => Some(actor),
        Event::PolicyReloaded { by, .. }
        | Event::PolicyRefused { by, .. }
        | Event::TlsReloaded { by }
        | Event::TlsRefused { by, .. } => match by {
            Initiator::Session(actor) => Some(actor),
            Initiator::Process => None,
        },
        Event::BrokerStarted { .. }
        | Event::BrokerStopped
        | Event::HandshakeFailed { .. }
        | Event::Stream { .. }
        | Event::IndexRebuilt { .. }
        | Event::SessionRefused { .. } => None,
    }
}

fn write_stream_change(unmapped: &mut Object<'_>, change: &StreamChange) {
    match change {
        StreamChange::Opened { first: from, end: to } => {
            unmapped.number("from", *from);
            unmapped.number("to", *to);
        }
        StreamChange::Trimmed { from, to, why } => {
            unmapped.number("from", *from);
            unmapped.number("to", *to);
            unmapped.word("reason", why);
        }
        StreamChange::SegmentSealed { from, to, bytes } => {
            unmapped.number("from", *from);
            unmapped.number("to", *to);
            unmapped.number("bytes", *bytes);
        }
        StreamChange::DeadLettered { consumer, offset, records } => {
            unmapped.text("consumer", consumer, TOPIC_BYTES);
            unmapped.number("offset", *offset);
            unmapped.number("records", *records);
        }
        StreamChange::Created
        | StreamChange::Damaged(_)
        | StreamChange::Repaired(_)
        | StreamChange::Stopped(_)
        | StreamChange::Full
        | StreamChange::Resumed => {}
    }
}

fn write_app(line: &mut Object<'_>, version: &str) {
    line.object("app", |app| {
        app.word("name", "sealbus-broker");
        app.word("vendor_name", "sealbus");
        app.word("version", version);
    });
}

fn write_refusal(line: &mut Object<'_>, reason: &str) {
    line.text("status_detail", reason, REASON_BYTES);
}

fn write_initiator(line: &mut Object<'_>, by: &Initiator) {
    match by {
        Initiator::Session(actor) => {
            write_actor(line, &actor.principal);
            write_endpoint(line, "src_endpoint", actor.source);
        }
        Initiator::Process => line.object("actor", |actor| actor.word("app_name", "sealbus-broker")),
    }
}

fn write_entity(entity: &mut Object<'_>, kind: &'static str) {
    entity.word("type", kind);
    entity.word("name", kind);
}

fn write_policy(entity: &mut Object<'_>, policy: &PolicyFacts) {
    write_entity(entity, "policy");
    entity.shown("uid", policy.hash);
    entity.shown("version", policy.version);
}

fn write_authentication(line: &mut Object<'_>, principal: Option<&Principal>, source: SocketAddr) {
    line.object("user", |user| match principal {
        Some(principal) => user.text("name", principal.as_str(), PRINCIPAL_BYTES),
        // No principal is called so: each begins with its source.
        None => user.word("name", "unknown"),
    });
    line.object("service", |service| service.word("name", "sealbus"));
    write_endpoint(line, "src_endpoint", source);
    line.number("auth_protocol_id", 99);
    line.word("auth_protocol", "mTLS/TLS1.3");
}

fn write_call(
    line: &mut Object<'_>,
    actor: &Actor,
    operation: &'static str,
    resource: Option<(&'static str, &str)>,
) {
    write_actor(line, &actor.principal);
    line.object("api", |api| api.word("operation", operation));
    write_endpoint(line, "src_endpoint", actor.source);
    if let Some((kind, name)) = resource {
        line.list_of_one("resources", |resource| {
            resource.word("type", kind);
            resource.text("name", name, TOPIC_BYTES);
        });
    }
}

fn write_actor(line: &mut Object<'_>, principal: &Principal) {
    line.object("actor", |actor| {
        actor.object("user", |user| user.text("name", principal.as_str(), PRINCIPAL_BYTES));
    });
}

fn write_endpoint(line: &mut Object<'_>, key: &'static str, address: SocketAddr) {
    line.object(key, |endpoint| {
        endpoint.shown("ip", address.ip().to_canonical());
        endpoint.number("port", u64::from(address.port()));
    });
}

/// The line's index is the finding's name as well: `seq` in `unmapped`.
fn write_finding(line: &mut Object<'_>, title: &'static str) {
    line.object("finding_info", |finding| {
        finding.word("title", title);
        finding.word("uid", "unmapped.seq");
    });
}

fn write_previous(unmapped: &mut Object<'_>, previous: PreviousRun) {
    match previous {
        PreviousRun::None => unmapped.word("previous", "none"),
        PreviousRun::Stopped => unmapped.word("previous", "stopped"),
        PreviousRun::Unclean { last_seq, cut_bytes } => {
            unmapped.word("previous", "unclean");
            if let Some(last_seq) = last_seq {
                unmapped.number("last_seq", last_seq);
            }
            unmapped.number("cut_bytes", cut_bytes);
        }
    }
}

/// The rule's name, or in brackets, which no rule's name has alone, what spoke instead of a rule.
fn rule_name(rule: &DenialRule) -> &str {
    match rule {
        DenialRule::Default => "(default)",
        DenialRule::Deny(rule) | DenialRule::Revoked(rule) => rule.as_str(),
        DenialRule::Reserved => "(reserved)",
    }
}

#[cfg(test)]
mod tests;
