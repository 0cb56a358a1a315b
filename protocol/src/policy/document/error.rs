//! What is wrong with a document, where, and what its writer may have meant.

use std::error::Error;
use std::fmt;

use crate::identity::PrincipalError;
use crate::limits::{POLICY_BYTES_MAX, POLICY_NAME_BYTES_MAX};
use crate::policy::name::NameError;
use crate::policy::quantity::QuantityError;
use crate::policy::verb::Verb;
use crate::policy::when::NetworkError;
use crate::spelling::nearest;
use crate::topic::TopicError;

/// Why a text is not a policy document: the first fault in it, and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DocumentError {
    // Boxed, so that the many functions that return one stay cheap when there is none.
    inner: Box<Inner>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Inner {
    line: usize,
    column: usize,
    path: String,
    fault: DocumentFault,
    hint: Option<String>,
}

impl DocumentError {
    pub(super) fn new(line: usize, column: usize, path: String, fault: DocumentFault) -> Self {
        Self { inner: Box::new(Inner { line, column, path, fault, hint: None }) }
    }

    /// The same error, with a word of advice.
    pub(super) fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.inner.hint = Some(hint.into());
        self
    }

    /// The same error, with the candidate that is nearest to `found` as its hint, when one is near.
    pub(super) fn suggesting<'c>(self, found: &str, candidates: impl Iterator<Item = &'c str>) -> Self {
        match nearest(found, candidates) {
            Some(candidate) => self.with_hint(format!("did you mean `{candidate}`?")),
            None => self,
        }
    }

    /// The line, from 1.
    #[must_use]
    pub fn line(&self) -> usize {
        self.inner.line
    }

    /// The column in characters, from 1.
    #[must_use]
    pub fn column(&self) -> usize {
        self.inner.column
    }

    /// The place in the document's structure, as in `allow[2].verbs[0]`; empty for the document itself.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.inner.path
    }

    /// What is wrong.
    #[must_use]
    pub fn fault(&self) -> &DocumentFault {
        &self.inner.fault
    }

    /// What the writer may have meant, or may do.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        self.inner.hint.as_deref()
    }
}

impl fmt::Display for DocumentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { line, column, path, fault, hint } = &*self.inner;
        write!(f, "line {line}, column {column}: ")?;
        if !path.is_empty() {
            write!(f, "{path}: ")?;
        }
        fault.fmt(f)?;
        match hint {
            Some(hint) => write!(f, "; {hint}"),
            None => Ok(()),
        }
    }
}

impl Error for DocumentError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &self.inner.fault {
            DocumentFault::Principal { cause, .. } => Some(cause),
            DocumentFault::Topic { cause, .. } => Some(cause),
            DocumentFault::Network { cause, .. } => Some(cause),
            DocumentFault::Quantity { cause, .. } => Some(cause),
            DocumentFault::TooLarge { .. }
            | DocumentFault::Syntax { .. }
            | DocumentFault::Missing { .. }
            | DocumentFault::UnknownKey { .. }
            | DocumentFault::NotInThisVersion { .. }
            | DocumentFault::Kind { .. }
            | DocumentFault::EmptyList
            | DocumentFault::Version
            | DocumentFault::Name { .. }
            | DocumentFault::DuplicateId { .. }
            | DocumentFault::UnknownRole { .. }
            | DocumentFault::UnknownVerb { .. }
            | DocumentFault::MixedVerbs
            | DocumentFault::UnwantedTopics { .. }
            | DocumentFault::UnwantedStreams { .. }
            | DocumentFault::UnknownStream { .. }
            | DocumentFault::DuplicateStream { .. }
            | DocumentFault::TooMany { .. }
            | DocumentFault::StreamsOverlap { .. }
            | DocumentFault::NotCaptured { .. }
            | DocumentFault::StreamId { .. }
            | DocumentFault::Word { .. }
            | DocumentFault::Count
            | DocumentFault::NoBound
            | DocumentFault::ReservedFilter { .. }
            | DocumentFault::Address { .. }
            | DocumentFault::Time { .. }
            | DocumentFault::NeverHolds
            | DocumentFault::NoCondition
            | DocumentFault::NoExpectation
            | DocumentFault::NotTrue => None,
        }
    }
}

/// What is wrong at one place of a document. Texts of the document are kept as they are and printed escaped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DocumentFault {
    /// The document is longer than [`POLICY_BYTES_MAX`].
    TooLarge {
        /// Its bytes.
        found: usize,
    },
    /// The text is not TOML.
    Syntax {
        /// What the TOML parser says.
        message: String,
    },
    /// A key is missing that must be there.
    Missing {
        /// The key.
        key: &'static str,
    },
    /// A key has no meaning here.
    UnknownKey {
        /// The key.
        found: String,
    },
    /// The grammar knows this, and this version does not implement it.
    NotInThisVersion {
        /// The key or verb.
        found: String,
    },
    /// A value is of another kind.
    Kind {
        /// What belongs here.
        expected: &'static str,
        /// What stands here.
        found: &'static str,
    },
    /// A list has no items.
    EmptyList,
    /// The version is not a whole number from 1.
    Version,
    /// A name is empty, too long, or has characters that names do not have.
    Name {
        /// The name.
        found: String,
    },
    /// Two rules have one id.
    DuplicateId {
        /// The id.
        found: String,
        /// Where the other one begins.
        first_line: usize,
    },
    /// A rule names a role that the document does not define.
    UnknownRole {
        /// The role.
        found: String,
    },
    /// A text is neither a principal nor one of the forms that may stand here.
    Principal {
        /// The text.
        found: String,
        /// The rule of its source that it breaks.
        cause: PrincipalError,
    },
    /// A word is no verb.
    UnknownVerb {
        /// The word.
        found: String,
    },
    /// One rule has verbs on topics, verbs on streams and verbs on the bus, or two of these kinds.
    MixedVerbs,
    /// A rule with a verb that takes no topics names some.
    UnwantedTopics {
        /// The verb.
        verb: Verb,
    },
    /// A rule with a verb that takes no streams names some.
    UnwantedStreams {
        /// The verb.
        verb: Verb,
    },
    /// A rule or a test names a stream that the document does not have.
    UnknownStream {
        /// The stream.
        found: String,
    },
    /// Two streams have one name or one id.
    DuplicateStream {
        /// `name` or `id`.
        key: &'static str,
        /// Which.
        found: String,
        /// Where the other one begins.
        first_line: usize,
    },
    /// There are more of something than a policy may have.
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many there may be.
        max: usize,
        /// How many there are.
        found: usize,
    },
    /// Two streams would keep one topic.
    StreamsOverlap {
        /// A filter of the second.
        found: String,
        /// The first stream.
        other: String,
        /// Where it begins.
        other_line: usize,
        /// Its filter.
        other_filter: String,
    },
    /// A rule on streams is narrowed to topics that none of them keeps.
    NotCaptured {
        /// The filter.
        found: String,
    },
    /// A text is no id of a stream.
    StreamId {
        /// The text.
        found: String,
    },
    /// A word is none of those that may stand here.
    Word {
        /// Those that may.
        expected: &'static str,
        /// The word.
        found: String,
    },
    /// A text is no span of time or no amount of bytes.
    Quantity {
        /// The text.
        found: String,
        /// What is wrong with it.
        cause: QuantityError,
    },
    /// A number of messages is not a whole number from 1.
    Count,
    /// `retention` is empty.
    NoBound,
    /// A text is not a topic or not a filter.
    Topic {
        /// The text.
        found: String,
        /// What is wrong with it.
        cause: TopicError,
    },
    /// A filter of a rule or a stream begins with `$`.
    ReservedFilter {
        /// The filter.
        found: String,
    },
    /// A text is not a network.
    Network {
        /// The text.
        found: String,
        /// What is wrong with it.
        cause: NetworkError,
    },
    /// A text is not an address.
    Address {
        /// The text.
        found: String,
    },
    /// A text is not a time.
    Time {
        /// The text.
        found: String,
    },
    /// `until` is not after `from`.
    NeverHolds,
    /// `when` is empty.
    NoCondition,
    /// A test expects nothing.
    NoExpectation,
    /// A test's `admin` or `audit` is not `true`.
    NotTrue,
}

impl fmt::Display for DocumentFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge { found } => {
                write!(f, "a policy document has at most {POLICY_BYTES_MAX} bytes, found {found}")
            }
            Self::Syntax { message } => write!(f, "not TOML: {message}"),
            Self::Missing { key } => write!(f, "{key} is missing"),
            Self::UnknownKey { found } => write!(f, "unknown key `{}`", shown(found)),
            Self::NotInThisVersion { found } => write!(f, "`{}` is not in this version", shown(found)),
            Self::Kind { expected, found } => write!(f, "{expected} was expected, found {found}"),
            Self::EmptyList => f.write_str("the list is empty"),
            Self::Version => f.write_str("a version is a whole number from 1"),
            Self::Name { found } => write!(f, "{NameError}, found \"{}\"", shown(found)),
            Self::DuplicateId { found, first_line } => {
                write!(f, "the rule of line {first_line} is also called \"{}\"", shown(found))
            }
            Self::UnknownRole { found } => write!(f, "unknown role \"{}\"", shown(found)),
            Self::Principal { found, cause } => write!(f, "{cause}, found \"{}\"", shown(found)),
            Self::UnknownVerb { found } => write!(f, "unknown verb \"{}\"", shown(found)),
            Self::MixedVerbs => f.write_str(
                "publish and subscribe are about topics, replay, consume and describe about streams, admin and audit \
                 about the bus, and this rule has verbs of two kinds",
            ),
            Self::UnwantedTopics { verb } => write!(f, "the verb {verb} takes no topics"),
            Self::UnwantedStreams { verb } => write!(f, "the verb {verb} takes no streams"),
            Self::UnknownStream { found } => write!(f, "unknown stream \"{}\"", shown(found)),
            Self::DuplicateStream { key, found, first_line } => {
                write!(f, "the stream of line {first_line} has the same {key}, \"{}\"", shown(found))
            }
            Self::TooMany { what, max, found } => write!(f, "at most {max} {what}, found {found}"),
            Self::StreamsOverlap { found, other, other_line, other_filter } => write!(
                f,
                "a topic is kept by one stream at most, and \"{}\" shares topics with \"{}\" of the stream \"{}\", \
                 line {other_line}",
                shown(found),
                shown(other_filter),
                shown(other)
            ),
            Self::NotCaptured { found } => {
                write!(f, "no stream of this rule keeps topics of \"{}\", so it would never hold", shown(found))
            }
            Self::StreamId { found } => write!(
                f,
                "the id of a stream has 32 lower-case hex digits, not all of them zero, found \"{}\"",
                shown(found)
            ),
            Self::Word { expected, found } => write!(f, "{expected} was expected, found \"{}\"", shown(found)),
            Self::Quantity { found, cause } => write!(f, "{cause}, found \"{}\"", shown(found)),
            Self::Count => f.write_str("a number of messages is a whole number from 1"),
            Self::NoBound => f.write_str("`retention` has no bound"),
            Self::Topic { found, cause } => write!(f, "{cause}, in \"{}\"", shown(found)),
            Self::ReservedFilter { found } => {
                write!(
                    f,
                    "no rule or stream reaches names that begin with $, which are the bus's own, found \"{}\"",
                    shown(found)
                )
            }
            Self::Network { found, cause } => write!(f, "{cause}, found \"{}\"", shown(found)),
            Self::Address { found } => {
                write!(f, "an IPv4 or IPv6 address was expected, found \"{}\"", shown(found))
            }
            Self::Time { found } => write!(
                f,
                "a time as in \"2027-01-01T00:00:00Z\" was expected, from 1970 and in whole milliseconds, found \"{}\"",
                shown(found)
            ),
            Self::NeverHolds => f.write_str("`until` is not after `from`, so the rule would never hold"),
            Self::NoCondition => f.write_str("`when` has no condition"),
            Self::NoExpectation => f.write_str("the test expects nothing"),
            Self::NotTrue => f.write_str("`true` was expected"),
        }
    }
}

/// A text of the document as it may be printed: on one line, without control characters, and not for ever.
pub(super) fn shown(text: &str) -> String {
    const CHARACTERS_MAX: usize = POLICY_NAME_BYTES_MAX;
    let mut shown: String = text.chars().take(CHARACTERS_MAX).flat_map(char::escape_debug).collect();
    if text.chars().nth(CHARACTERS_MAX).is_some() {
        shown.push_str("..");
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    /// FAILURES T44 and T45.
    #[test]
    fn texts_are_printed_on_one_line() {
        assert_eq!(shown("a\r\nb\u{1b}[2J\u{202e}\u{85}"), "a\\r\\nb\\u{1b}[2J\\u{202e}\\u{85}");
        assert!(shown(&"a".repeat(1_000)).len() < 70);
    }
}
