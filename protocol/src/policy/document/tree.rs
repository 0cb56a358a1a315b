//! A TOML document as tables, lists and texts that know where they stand.

use std::borrow::Cow;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{DocumentError, DocumentFault, shown};

/// The text, and where its lines begin.
pub(super) struct Source<'t> {
    pub(super) text: &'t str,
    pub(super) line_starts: Vec<usize>,
}

impl<'t> Source<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        let after_breaks = text.match_indices('\n').map(|(at, _)| at.saturating_add(1));
        Self { text, line_starts: std::iter::once(0).chain(after_breaks).collect() }
    }

    /// Line and column of a byte, both from 1, the column in characters.
    pub(super) fn place(&self, at: usize) -> (usize, usize) {
        let line = self.line_starts.partition_point(|start| *start <= at);
        let start = line.checked_sub(1).and_then(|index| self.line_starts.get(index)).copied().unwrap_or(0);
        let before = self.text.get(start..at).map_or(0, |before| before.chars().count());
        (line, before.saturating_add(1))
    }

    pub(super) fn error(&self, at: usize, path: &str, fault: DocumentFault) -> DocumentError {
        let (line, column) = self.place(at);
        DocumentError::new(line, column, path.to_owned(), fault)
    }
}

/// A table of the document, its keys in the order of the document.
pub(super) struct Table<'t> {
    pub(super) entries: Vec<Entry<'t>>,
    pub(super) at: usize,
    pub(super) path: String,
    pub(super) source: &'t Source<'t>,
}

/// A key and what it holds.
pub(super) struct Entry<'t> {
    pub(super) key: &'t str,
    pub(super) key_at: usize,
    pub(super) value: Value<'t>,
}

/// A value of the document that knows where it stands.
pub(super) struct Value<'t> {
    pub(super) toml: &'t DeValue<'t>,
    pub(super) at: usize,
    pub(super) path: String,
    pub(super) source: &'t Source<'t>,
}

impl<'t> Table<'t> {
    pub(super) fn new(toml: &'t DeTable<'t>, at: usize, path: String, source: &'t Source<'t>) -> Self {
        let entry = |(key, value): (&'t Spanned<_>, &'t Spanned<DeValue<'t>>)| {
            let name: &'t str = AsRef::<str>::as_ref(key.get_ref());
            let value =
                Value { toml: value.get_ref(), at: value.span().start, path: join(&path, name), source };
            Entry { key: name, key_at: key.span().start, value }
        };
        let mut entries: Vec<Entry<'t>> = toml.iter().map(entry).collect();
        entries.sort_by_key(|entry| entry.key_at);
        Self { entries, at, path, source }
    }

    /// The table's entries, in the order of the document.
    pub(super) fn entries(&self) -> &[Entry<'t>] {
        &self.entries
    }

    /// The value under `key`.
    pub(super) fn optional(&self, key: &str) -> Option<&Value<'t>> {
        self.entries.iter().find(|entry| entry.key == key).map(|entry| &entry.value)
    }

    /// The value under `key`, which must be there.
    pub(super) fn required(&self, key: &'static str) -> Result<&Value<'t>, DocumentError> {
        self.optional(key).ok_or_else(|| self.error(DocumentFault::Missing { key }))
    }

    /// Refuses every key that is not `known`, those of other versions by name.
    pub(super) fn allow_only(
        &self,
        known: &[&'static str],
        not_yet: &[&'static str],
    ) -> Result<(), DocumentError> {
        for entry in &self.entries {
            if not_yet.contains(&entry.key) {
                return Err(entry.error(DocumentFault::NotInThisVersion { found: entry.key.to_owned() }));
            }
            if !known.contains(&entry.key) {
                let fault = DocumentFault::UnknownKey { found: entry.key.to_owned() };
                return Err(entry.error(fault).suggesting(entry.key, known.iter().copied()));
            }
        }
        Ok(())
    }

    /// The line on which the table begins, from 1.
    pub(super) fn line(&self) -> usize {
        self.source.place(self.at).0
    }

    pub(super) fn error(&self, fault: DocumentFault) -> DocumentError {
        self.source.error(self.at, &self.path, fault)
    }
}

impl Entry<'_> {
    /// An error about the key itself.
    pub(super) fn error(&self, fault: DocumentFault) -> DocumentError {
        self.value.source.error(self.key_at, &self.value.path, fault)
    }
}

impl<'t> Value<'t> {
    /// The value as a table.
    pub(super) fn table(&self) -> Result<Table<'t>, DocumentError> {
        match self.toml {
            DeValue::Table(table) => Ok(Table::new(table, self.at, self.path.clone(), self.source)),
            _ => Err(self.kind_error("a table")),
        }
    }

    /// The value as a list with at least one item.
    pub(super) fn list(&self, expected: &'static str) -> Result<Vec<Value<'t>>, DocumentError> {
        let DeValue::Array(items) = self.toml else {
            return Err(self.kind_error(expected));
        };
        if items.is_empty() {
            return Err(self.error(DocumentFault::EmptyList));
        }
        let item = |(index, item): (usize, &'t Spanned<DeValue<'t>>)| Value {
            toml: item.get_ref(),
            at: item.span().start,
            path: format!("{}[{index}]", self.path),
            source: self.source,
        };
        Ok(items.iter().enumerate().map(item).collect())
    }

    /// The value as a text.
    pub(super) fn text(&self, expected: &'static str) -> Result<&'t str, DocumentError> {
        match self.toml {
            DeValue::String(text) => Ok(text),
            _ => Err(self.kind_error(expected)),
        }
    }

    /// The value as a number; `None` when it is a whole number that does not fit.
    pub(super) fn unsigned(&self, expected: &'static str) -> Result<Option<u64>, DocumentError> {
        match self.toml {
            DeValue::Integer(digits) => Ok(u64::from_str_radix(digits.as_str(), digits.radix()).ok()),
            _ => Err(self.kind_error(expected)),
        }
    }

    /// The value as an amount: a text, or a number as its digits.
    pub(super) fn amount(&self, expected: &'static str) -> Result<Cow<'t, str>, DocumentError> {
        match self.toml {
            DeValue::String(text) => Ok(Cow::Borrowed(text)),
            DeValue::Integer(digits) => Ok(match u64::from_str_radix(digits.as_str(), digits.radix()) {
                Ok(number) => number.to_string().into(),
                Err(_) => Cow::Borrowed(digits.as_str()),
            }),
            _ => Err(self.kind_error(expected)),
        }
    }

    /// Whether the value is the word `true`.
    pub(super) fn is_true(&self) -> bool {
        matches!(self.toml, DeValue::Boolean(true))
    }

    pub(super) fn kind_error(&self, expected: &'static str) -> DocumentError {
        let found = match self.toml {
            DeValue::String(_) => "a text",
            DeValue::Integer(_) => "a number",
            DeValue::Float(_) => "a number with a fraction",
            DeValue::Boolean(_) => "true or false",
            DeValue::Datetime(_) => "a time without quotes",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        };
        self.error(DocumentFault::Kind { expected, found })
    }

    pub(super) fn error(&self, fault: DocumentFault) -> DocumentError {
        self.source.error(self.at, &self.path, fault)
    }
}

/// A key with other characters than those of bare keys is escaped, since the path is printed.
pub(super) fn join(path: &str, key: &str) -> String {
    let separator = if path.is_empty() { "" } else { "." };
    format!("{path}{separator}{}", shown(key))
}
