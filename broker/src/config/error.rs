//! What is wrong with a configuration, where, and what its writer may have meant.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use sealbus_protocol::spelling::nearest;

/// Why a file is no configuration: the first fault in it, and its place.
#[derive(Debug)]
pub struct ConfigError {
    // Boxed, so that the many functions that return one stay cheap when there is none.
    inner: Box<Inner>,
}

#[derive(Debug)]
struct Inner {
    file: Option<PathBuf>,
    section: Section,
    place: Option<Place>,
    fault: ConfigFault,
    hint: Option<String>,
}

/// Line and column, both from 1, the column in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) line: usize,
    pub(super) column: usize,
}

/// A part of the file, as its heading is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Section {
    /// What stands before the first heading.
    Top,
    /// A heading.
    Named(&'static str),
}

/// What is wrong.
#[derive(Debug)]
pub enum ConfigFault {
    /// The file cannot be read.
    Read(io::Error),
    /// The file is not UTF-8 from this byte on.
    NotUtf8 {
        /// The byte's offset.
        at: usize,
    },
    /// The text is not TOML.
    Syntax {
        /// What the TOML parser says.
        message: String,
    },
    /// A key has no meaning here.
    UnknownKey {
        /// The key.
        found: String,
    },
    /// The design knows this, and this version does not.
    NotInThisVersion {
        /// The key.
        found: String,
    },
    /// A key is missing that must be there.
    Missing {
        /// The key.
        key: &'static str,
    },
    /// A value is of another kind, or not one of those that the key takes.
    Value {
        /// The key.
        key: &'static str,
        /// What belongs there.
        expected: String,
        /// What stands there.
        found: String,
    },
    /// Two keys do not go together.
    Conflict {
        /// What does not go together, in words.
        message: String,
    },
}

impl ConfigError {
    pub(super) fn new(section: Section, place: Option<Place>, fault: ConfigFault) -> Self {
        Self { inner: Box::new(Inner { file: None, section, place, fault, hint: None }) }
    }

    pub(super) fn of_file(fault: ConfigFault) -> Self {
        Self::new(Section::Top, None, fault)
    }

    pub(super) fn in_file(mut self, file: &Path) -> Self {
        self.inner.file = Some(file.to_owned());
        self
    }

    /// The same error with the candidate that is nearest to `found` as its hint, when one is near.
    pub(super) fn suggesting(mut self, found: &str, candidates: &[&'static str]) -> Self {
        self.inner.hint = nearest(found, candidates.iter().copied())
            .map(|candidate| format!("did you mean `{candidate}`?"));
        self
    }

    /// The same error, with a word of advice.
    pub(super) fn with_hint(mut self, hint: String) -> Self {
        self.inner.hint = Some(hint);
        self
    }

    /// What is wrong.
    #[must_use]
    pub fn fault(&self) -> &ConfigFault {
        &self.inner.fault
    }

    /// The line, from 1, where there is one.
    #[must_use]
    pub fn line(&self) -> Option<usize> {
        self.inner.place.map(|place| place.line)
    }

    /// The column in characters, from 1, where there is one.
    #[must_use]
    pub fn column(&self) -> Option<usize> {
        self.inner.place.map(|place| place.column)
    }

    /// What the writer may have meant.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        self.inner.hint.as_deref()
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { file, section, place, fault, hint } = &*self.inner;
        if let Some(file) = file {
            write!(f, "configuration {}: ", file.display())?;
        }
        fault.fmt(f)?;
        if let Section::Named(section) = section {
            write!(f, " in {section}")?;
        }
        if let Some(Place { line, column }) = place {
            write!(f, ", line {line}, column {column}")?;
        }
        match hint {
            Some(hint) => write!(f, ": {hint}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for ConfigFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(error) => write!(f, "cannot be read: {error}"),
            Self::NotUtf8 { at } => write!(f, "not UTF-8 at byte {at}"),
            Self::Syntax { message } => write!(f, "not TOML: {message}"),
            Self::UnknownKey { found } => write!(f, "unknown key `{}`", shown(found)),
            Self::NotInThisVersion { found } => write!(f, "`{}` is not in this version", shown(found)),
            Self::Missing { key } => write!(f, "`{key}` is missing"),
            Self::Value { key, expected, found } => {
                write!(f, "`{key}` is {expected}, found {}", shown(found))
            }
            Self::Conflict { message } => f.write_str(message),
        }
    }
}

impl std::error::Error for ConfigError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.inner.fault {
            ConfigFault::Read(error) => Some(error),
            ConfigFault::NotUtf8 { .. }
            | ConfigFault::Syntax { .. }
            | ConfigFault::UnknownKey { .. }
            | ConfigFault::NotInThisVersion { .. }
            | ConfigFault::Missing { .. }
            | ConfigFault::Value { .. }
            | ConfigFault::Conflict { .. } => None,
        }
    }
}

/// Characters of the file that an error repeats.
const SHOWN_CHARACTERS_MAX: usize = 80;

/// A text of the file as it may be printed: on one line, without control characters, and not for ever.
fn shown(text: &str) -> String {
    let escape = |character: char| -> String {
        if character.is_control() { character.escape_default().collect() } else { character.into() }
    };
    let mut shown: String = text.chars().take(SHOWN_CHARACTERS_MAX).map(escape).collect();
    if text.chars().nth(SHOWN_CHARACTERS_MAX).is_some() {
        shown.push_str("..");
    }
    shown
}
