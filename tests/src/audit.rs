//! The audit log, as a reader finds it on the disk.

use std::path::PathBuf;

use serde_json::Value;

use crate::wait::eventually;

/// The lines of a broker's audit log.
#[derive(Debug, Clone)]
pub struct AuditLog {
    path: PathBuf,
}

impl AuditLog {
    /// The log in this file.
    #[must_use]
    pub fn at(path: PathBuf) -> Self {
        Self { path }
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &PathBuf {
        &self.path
    }

    /// Its whole text; empty before there is one.
    #[must_use]
    pub fn text(&self) -> String {
        match std::fs::read(&self.path) {
            Ok(bytes) => String::from_utf8(bytes).expect("an audit log is UTF-8"),
            Err(_) => String::new(),
        }
    }

    /// Every whole line.
    ///
    /// # Panics
    /// When one is not a JSON object.
    #[must_use]
    pub fn lines(&self) -> Vec<Value> {
        let text = self.text();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let parse = |line: &str| {
            let value: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
            assert!(value.is_object(), "an audit line is an object: {line}");
            value
        };
        whole.split('\n').filter(|_| !whole.is_empty()).map(parse).collect()
    }

    /// The lines for which `wanted` holds.
    #[must_use]
    pub fn matching(&self, wanted: impl Fn(&Value) -> bool) -> Vec<Value> {
        self.lines().into_iter().filter(wanted).collect()
    }

    /// Waits for a line for which `wanted` holds.
    pub async fn await_line(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        eventually(&format!("audit line: {what}"), || self.lines().into_iter().find(&wanted)).await
    }

    /// Waits until there are this many lines for which `wanted` holds.
    pub async fn await_count(&self, what: &str, count: usize, wanted: impl Fn(&Value) -> bool) -> Vec<Value> {
        eventually(&format!("{count} audit lines: {what}"), || {
            let found = self.matching(&wanted);
            (found.len() >= count).then_some(found)
        })
        .await
    }
}

/// Whether a line anywhere in it says this text.
#[must_use]
pub fn mentions(line: &Value, text: &str) -> bool {
    match line {
        Value::String(found) => found.contains(text),
        Value::Array(items) => items.iter().any(|item| mentions(item, text)),
        Value::Object(fields) => fields.values().any(|field| mentions(field, text)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// The number of a line's class.
#[must_use]
pub fn class_uid(line: &Value) -> u64 {
    line["class_uid"].as_u64().unwrap_or_default()
}

/// The number of a line's type.
#[must_use]
pub fn type_uid(line: &Value) -> u64 {
    line["type_uid"].as_u64().unwrap_or_default()
}

/// The broker's own name of a line's event.
#[must_use]
pub fn event(line: &Value) -> &str {
    line["unmapped"]["event"].as_str().unwrap_or_default()
}

/// The word for why, where an event has one.
#[must_use]
pub fn reason(line: &Value) -> &str {
    line["unmapped"]["reason"].as_str().unwrap_or_default()
}

/// The code of a refusal.
#[must_use]
pub fn code(line: &Value) -> &str {
    line["unmapped"]["code"].as_str().unwrap_or_default()
}

/// The port that a line's peer came from.
#[must_use]
pub fn source_port(line: &Value) -> u64 {
    line["src_endpoint"]["port"].as_u64().unwrap_or_default()
}
