//! The text as tables and values that know where they stand. This file knows TOML and nothing of configurations.

use std::fmt::{self, Display};
use std::ops::RangeInclusive;
use std::str::FromStr;

use sealbus_protocol::policy::{QuantityError, parse_bytes};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{ConfigError, ConfigFault, Place, Section};

/// The text, for telling line and column.
pub(super) struct Source<'t> {
    text: &'t str,
}

impl<'t> Source<'t> {
    pub(super) const fn new(text: &'t str) -> Self {
        Self { text }
    }

    /// Parses the text.
    pub(super) fn parse(&self) -> Result<Spanned<DeTable<'t>>, ConfigError> {
        DeTable::parse(self.text).map_err(|error| {
            let message = error.message().split_whitespace().collect::<Vec<_>>().join(" ");
            let place = error.span().map(|span| self.place(span.start));
            ConfigError::new(Section::Top, place, ConfigFault::Syntax { message })
        })
    }

    fn place(&self, at: usize) -> Place {
        let before = self.text.get(..at).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |at| at.saturating_add(1));
        let line = before.matches('\n').count().saturating_add(1);
        let column = before.get(line_start..).unwrap_or_default().chars().count().saturating_add(1);
        Place { line, column }
    }
}

/// A part of the file.
pub(super) struct Table<'t> {
    entries: Vec<Entry<'t>>,
    at: usize,
    section: Section,
    source: &'t Source<'t>,
}

/// A key and what it holds.
struct Entry<'t> {
    key: &'t str,
    key_at: usize,
    value: &'t Spanned<DeValue<'t>>,
}

/// A value under one of our keys.
pub(super) struct Value<'t> {
    key: &'static str,
    toml: &'t Spanned<DeValue<'t>>,
    section: Section,
    source: &'t Source<'t>,
}

impl<'t> Table<'t> {
    pub(super) fn new(toml: &'t DeTable<'t>, at: usize, section: Section, source: &'t Source<'t>) -> Self {
        let entry = |(key, value): (&'t Spanned<_>, &'t Spanned<DeValue<'t>>)| Entry {
            key: AsRef::<str>::as_ref(key.get_ref()),
            key_at: key.span().start,
            value,
        };
        let mut entries: Vec<Entry<'t>> = toml.iter().map(entry).collect();
        // In the order of the file, so that the error is the first one that a reader meets.
        entries.sort_by_key(|entry| entry.key_at);
        Self { entries, at, section, source }
    }

    /// Refuses every key that is not `known`, those of other versions by name.
    pub(super) fn allow_only(
        &self,
        known: &[&'static str],
        not_yet: &[&'static str],
    ) -> Result<(), ConfigError> {
        for entry in &self.entries {
            if not_yet.contains(&entry.key) {
                let fault = ConfigFault::NotInThisVersion { found: entry.key.to_owned() };
                return Err(self.error_at(entry.key_at, fault));
            }
            if !known.contains(&entry.key) {
                let fault = ConfigFault::UnknownKey { found: entry.key.to_owned() };
                return Err(self.error_at(entry.key_at, fault).suggesting(entry.key, known));
            }
        }
        Ok(())
    }

    pub(super) fn optional(&self, key: &'static str) -> Option<Value<'t>> {
        let entry = self.entries.iter().find(|entry| entry.key == key)?;
        Some(Value { key, toml: entry.value, section: self.section, source: self.source })
    }

    pub(super) fn required(&self, key: &'static str) -> Result<Value<'t>, ConfigError> {
        self.optional(key).ok_or_else(|| self.error(ConfigFault::Missing { key }))
    }

    /// An error about the table as a whole.
    pub(super) fn error(&self, fault: ConfigFault) -> ConfigError {
        match self.section {
            // The whole file has no line.
            Section::Top => ConfigError::new(self.section, None, fault),
            Section::Named(_) => self.error_at(self.at, fault),
        }
    }

    fn error_at(&self, at: usize, fault: ConfigFault) -> ConfigError {
        ConfigError::new(self.section, Some(self.source.place(at)), fault)
    }
}

impl<'t> Value<'t> {
    /// A text.
    pub(super) fn text(&self) -> Result<&'t str, ConfigError> {
        match self.toml.get_ref() {
            DeValue::String(text) if !text.is_empty() => Ok(text),
            _ => Err(self.unexpected("a text that is not empty")),
        }
    }

    /// A text that is parsed.
    pub(super) fn parsed<T: FromStr>(&self, expected: impl Display) -> Result<T, ConfigError> {
        self.text()?.parse().map_err(|_| self.unexpected(expected))
    }

    /// One of some words.
    pub(super) fn word<T: Copy>(&self, words: &[(&'static str, T)]) -> Result<T, ConfigError> {
        let known: Vec<&'static str> = words.iter().map(|(word, _)| *word).collect();
        let expected = || format!("one of \"{}\"", known.join("\", \""));
        let DeValue::String(text) = self.toml.get_ref() else { return Err(self.unexpected(expected())) };
        words
            .iter()
            .find(|(word, _)| word == text)
            .map(|(_, meaning)| *meaning)
            .ok_or_else(|| self.unexpected(expected()).suggesting(text, &known))
    }

    /// A whole number in a range.
    pub(super) fn number<T>(&self, range: RangeInclusive<T>) -> Result<T, ConfigError>
    where
        T: TryFrom<u64> + PartialOrd + Display,
    {
        let number = match self.toml.get_ref() {
            DeValue::Integer(integer) => u64::from_str_radix(integer.as_str(), integer.radix()).ok(),
            _ => None,
        };
        number.and_then(|number| T::try_from(number).ok()).filter(|number| range.contains(number)).ok_or_else(
            || self.unexpected(format_args!("a whole number from {} to {}", range.start(), range.end())),
        )
    }

    /// An amount of bytes in a range: a text with a unit, or a number.
    pub(super) fn bytes(&self, range: RangeInclusive<u64>) -> Result<u64, ConfigError> {
        let bytes = match self.toml.get_ref() {
            DeValue::String(text) => parse_bytes(text).ok(),
            DeValue::Integer(integer) => u64::from_str_radix(integer.as_str(), integer.radix()).ok(),
            _ => None,
        };
        bytes.filter(|bytes| range.contains(bytes)).ok_or_else(|| {
            let (least, most) = (Amount(*range.start()), Amount(*range.end()));
            let expected = format_args!("an amount of bytes from {least} to {most}, as in \"64MiB\"");
            let error = self.unexpected(expected);
            match self.toml.get_ref() {
                DeValue::String(text) => match QuantityError::Bytes.meant(text) {
                    Some(meant) => error.with_hint(format!("did you mean `{meant}`?")),
                    None => error,
                },
                _ => error,
            }
        })
    }

    /// A section.
    pub(super) fn table(&self, section: &'static str) -> Result<Table<'t>, ConfigError> {
        match self.toml.get_ref() {
            DeValue::Table(table) => {
                Ok(Table::new(table, self.toml.span().start, Section::Named(section), self.source))
            }
            _ => Err(self.unexpected(format_args!("a section, {section}"))),
        }
    }

    /// Sections of one name.
    pub(super) fn tables(&self, section: &'static str) -> Result<Vec<Table<'t>>, ConfigError> {
        let unexpected = || self.unexpected(format_args!("one section or more, {section}"));
        let DeValue::Array(array) = self.toml.get_ref() else { return Err(unexpected()) };
        let table = |value: &'t Spanned<DeValue<'t>>| match value.get_ref() {
            DeValue::Table(table) => {
                Ok(Table::new(table, value.span().start, Section::Named(section), self.source))
            }
            _ => Err(unexpected()),
        };
        array.iter().map(table).collect()
    }

    /// Something else belongs here.
    pub(super) fn unexpected(&self, expected: impl Display) -> ConfigError {
        let found = match self.toml.get_ref() {
            DeValue::String(text) => format!("\"{text}\""),
            DeValue::Integer(integer) => integer.as_str().to_owned(),
            DeValue::Float(_) => "a number with a point".to_owned(),
            DeValue::Boolean(truth) => truth.to_string(),
            DeValue::Datetime(_) => "a date".to_owned(),
            DeValue::Array(_) => "a list".to_owned(),
            DeValue::Table(_) => "a section".to_owned(),
        };
        self.error(ConfigFault::Value { key: self.key, expected: expected.to_string(), found })
    }

    /// An error about this value.
    pub(super) fn error(&self, fault: ConfigFault) -> ConfigError {
        ConfigError::new(self.section, Some(self.source.place(self.toml.span().start)), fault)
    }
}

/// Bytes, as they are written: in the largest unit that takes a whole number of them.
struct Amount(u64);

impl Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
        match units.into_iter().find(|(_, bits)| self.0 > 0 && self.0.trailing_zeros() >= *bits) {
            Some((unit, bits)) => write!(f, "{} {unit}", self.0 >> bits),
            None => write!(f, "{} bytes", self.0),
        }
    }
}
