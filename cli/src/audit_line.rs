//! A line of the audit log, as a row for people. The line itself is OCSF; `-o jsonl` prints it as it is.

use std::fmt::Write as _;

use serde_json::Value;

use crate::text::rfc3339_ms;

/// The columns, in order.
pub(crate) const HEADS: [&str; 6] = ["seq", "time", "event", "who", "what", "why"];

/// What a row shows of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AuditLine {
    pub(crate) seq: u64,
    pub(crate) time_ms: u64,
    /// The event's own name, as in `session-opened`.
    pub(crate) event: String,
    /// The principal, or where it came from when nobody was named.
    pub(crate) who: String,
    /// The act and what it was on.
    pub(crate) what: String,
    /// The rule, the code and the sentence.
    pub(crate) why: String,
}

impl AuditLine {
    /// Reads a line; none when it is not one.
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let event: Value = serde_json::from_str(line).ok()?;
        let text = |pointer: &str| event.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let number = |pointer: &str| event.pointer(pointer).and_then(Value::as_u64);
        let name = text("/unmapped/event");
        let principal =
            [text("/actor/user/name"), text("/user/name")].into_iter().find(|name| !name.is_empty());
        let source = text("/src_endpoint/ip");
        let who = match principal {
            Some(principal) if principal != "unknown" => principal.to_owned(),
            Some(_) | None if !source.is_empty() => source.to_owned(),
            Some(_) | None => "the broker".to_owned(),
        };
        Some(Self {
            seq: number("/unmapped/seq")?,
            time_ms: number("/time")?,
            event: name.to_owned(),
            who,
            what: what(&event),
            why: why(&event),
        })
    }

    /// The row.
    pub(crate) fn cells(&self) -> [String; 6] {
        [
            self.seq.to_string(),
            rfc3339_ms(self.time_ms),
            self.event.clone(),
            self.who.clone(),
            self.what.clone(),
            self.why.clone(),
        ]
    }
}

fn what(event: &Value) -> String {
    let text = |pointer: &str| event.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let number = |pointer: &str| event.pointer(pointer).and_then(Value::as_u64);
    let mut what = text("/api/operation").to_owned();
    let resource = text("/resources/0/name");
    if !resource.is_empty() {
        what = format!("{what} {resource}").trim_start().to_owned();
    }
    if let (Some(version), true) = (event.pointer("/entity_result/version"), what.is_empty()) {
        let version = version.as_str().map_or_else(|| version.to_string(), str::to_owned);
        what = format!("policy version {version}");
        if let Some(generation) = number("/unmapped/generation") {
            let _ = write!(what, ", generation {generation}");
        }
        match (number("/unmapped/rules_before"), number("/unmapped/rules_after")) {
            (Some(before), Some(after)) => {
                let _ = write!(what, ", {before} → {after} rules");
            }
            (None, Some(after)) => {
                let _ = write!(what, ", {after} rules");
            }
            (_, None) => {}
        }
    }
    for (name, pointer) in [
        ("published", "/unmapped/published"),
        ("delivered", "/unmapped/delivered"),
        ("messages", "/unmapped/messages"),
    ] {
        if let Some(count) = number(pointer) {
            let separator = if what.is_empty() { "" } else { ", " };
            let _ = write!(what, "{separator}{count} {name}");
        }
    }
    what
}

fn why(event: &Value) -> String {
    let text = |pointer: &str| event.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let mut parts = Vec::new();
    for pointer in ["/unmapped/code", "/unmapped/reason"] {
        let word = text(pointer);
        if !word.is_empty() {
            parts.push(word.to_owned());
        }
    }
    let rules: Vec<&str> = match event.pointer("/unmapped/rules").and_then(Value::as_array) {
        Some(rules) => rules.iter().filter_map(Value::as_str).collect(),
        None => [text("/unmapped/rule")].into_iter().filter(|rule| !rule.is_empty()).collect(),
    };
    let detail = text("/status_detail");
    // A denial's sentence names its rule, or says that there is none.
    if !rules.is_empty() && detail.is_empty() {
        parts.push(format!("rule {}", rules.join(", ")));
    }
    if event.pointer("/unmapped/narrowed") == Some(&Value::Bool(true)) {
        parts.push("narrowed".to_owned());
    }
    if !detail.is_empty() {
        parts.push(detail.to_owned());
    }
    if let Some(count) = event.pointer("/count").and_then(Value::as_u64) {
        parts.push(format!("{count} times"));
    }
    parts.join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_denial_says_who_what_and_which_rule() {
        let line = r#"{"time":1357034400007,"status_detail":"no rule allows it","actor":{"user":{"name":"spiffe://a/b"}},
            "api":{"operation":"publish"},"resources":[{"type":"topic","name":"flights/JFK/B6"}],
            "unmapped":{"seq":7,"event":"denied","session":3,"code":"DENIED","rule":"(default)"}}"#;
        let line = AuditLine::parse(line).unwrap();
        assert_eq!(
            line.cells().join("|"),
            "7|2013-01-01T10:00:00.007Z|denied|spiffe://a/b|publish flights/JFK/B6|DENIED: no rule allows it"
        );
    }

    #[test]
    fn a_peer_without_a_name_is_its_address() {
        let line = r#"{"time":1,"status_detail":"unknown issuer","src_endpoint":{"ip":"127.0.0.1","port":9},
            "unmapped":{"seq":1,"event":"handshake-failed","reason":"unknown-issuer"}}"#;
        let line = AuditLine::parse(line).unwrap();
        assert_eq!((line.who.as_str(), line.why.as_str()), ("127.0.0.1", "unknown-issuer: unknown issuer"));
    }

    #[test]
    fn what_is_no_line_is_no_row() {
        for text in ["", "{}", "[]", "{\"time\":1}", "nonsense"] {
            assert_eq!(AuditLine::parse(text), None, "{text}");
        }
    }
}
