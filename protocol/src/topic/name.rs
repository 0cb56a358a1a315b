//! Topic names, and the rules that names and filters share.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use crate::ids::{StreamId, TopicDigest};
use crate::keys::derive;
use crate::limits::{TOPIC_BYTES_MAX, TOPIC_LEVELS_MAX};

/// An exact topic name. Cloning shares the text.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Topic {
    pub(super) text: Arc<str>,
}

impl Topic {
    /// Parses a topic name.
    ///
    /// # Errors
    /// [`TopicError`] says which rule the text breaks, and where.
    pub fn parse(text: &str) -> Result<Self, TopicError> {
        check_common(text)?;
        match text.find(['+', '#']) {
            Some(at) => Err(TopicError::WildcardInName { at }),
            None => Ok(Self { text: text.into() }),
        }
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The levels of the name, in order: at least one, some of them perhaps empty.
    pub fn levels(&self) -> impl DoubleEndedIterator<Item = &str> + Clone {
        self.text.split('/')
    }

    /// Whether the name begins with `$`, which no client may name.
    #[must_use]
    pub fn is_reserved(&self) -> bool {
        self.text.starts_with('$')
    }

    /// What a batch carries in place of the name: bound to the stream, all zero for topics that are live only.
    #[must_use]
    pub fn digest(&self, stream: &StreamId) -> TopicDigest {
        TopicDigest::new(derive("sealbus/1 topic", &[stream.as_bytes(), self.text.as_bytes()]))
    }
}

/// Hash, order and equality are those of the text, so that a map of topics can be asked with a `&str`.
impl Borrow<str> for Topic {
    fn borrow(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Topic({:?})", &*self.text)
    }
}

/// Why a text is not a topic, or not a topic filter. Positions are byte offsets in the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TopicError {
    /// It is empty.
    Empty,
    /// It is longer than [`TOPIC_BYTES_MAX`].
    TooLong {
        /// Its bytes.
        found: usize,
    },
    /// It has more levels than [`TOPIC_LEVELS_MAX`].
    TooManyLevels {
        /// Its levels.
        found: usize,
    },
    /// It holds a control character (U+0000 to U+001F, U+007F to U+009F).
    Control {
        /// Where.
        at: usize,
        /// Which.
        character: char,
    },
    /// A topic name holds `+` or `#`.
    WildcardInName {
        /// Where.
        at: usize,
    },
    /// `+` or `#` in a filter shares its level with something else.
    PartialWildcard {
        /// Where the wildcard stands.
        at: usize,
    },
    /// `#` in a filter is not the last level.
    HashNotLast {
        /// Where.
        at: usize,
    },
}

impl fmt::Display for TopicError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("a topic is not empty"),
            Self::TooLong { found } => {
                write!(f, "a topic has at most {TOPIC_BYTES_MAX} bytes, found {found}")
            }
            Self::TooManyLevels { found } => {
                write!(f, "a topic has at most {TOPIC_LEVELS_MAX} levels, found {found}")
            }
            Self::Control { at, character } => write!(
                f,
                "a topic has no control characters, since it is written to logs and terminals, found U+{:04X} at \
                 byte {at}",
                u32::from(*character)
            ),
            Self::WildcardInName { at } => {
                write!(
                    f,
                    "a topic name has no wildcard, found one at byte {at}; only filters may hold + and #"
                )
            }
            Self::PartialWildcard { at } => {
                write!(
                    f,
                    "the wildcards + and # stand for whole levels, found one beside other text at byte {at}"
                )
            }
            Self::HashNotLast { at } => {
                write!(
                    f,
                    "the wildcard # is the last level of a filter, found one with levels after it at byte {at}"
                )
            }
        }
    }
}

impl std::error::Error for TopicError {}

/// What names and filters have in common. The length is judged first, so that the rest is bounded work.
pub(super) fn check_common(text: &str) -> Result<(), TopicError> {
    if text.is_empty() {
        return Err(TopicError::Empty);
    }
    if text.len() > TOPIC_BYTES_MAX {
        return Err(TopicError::TooLong { found: text.len() });
    }
    if let Some((at, character)) = text.char_indices().find(|(_, character)| character.is_control()) {
        return Err(TopicError::Control { at, character });
    }
    let levels = text.split('/').count();
    if levels > TOPIC_LEVELS_MAX {
        return Err(TopicError::TooManyLevels { found: levels });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::filter::TopicFilter;
    use super::*;

    #[test]
    fn names_are_those_of_mqtt_5() {
        for text in [
            "a",
            "/",
            "//",
            "a/b",
            "a//b",
            "/a",
            "a/",
            " ",
            "a b",
            "é/日本",
            "orders/eu/created",
            "$sys/a",
            "a/$b",
            "*",
            "a/>",
            "**",
        ] {
            assert_eq!(Topic::parse(text).map(|topic| topic.to_string()), Ok(text.to_owned()));
        }
    }

    /// FAILURES T29: a topic that is spelled like a pattern is refused, never taken literally.
    #[test]
    fn invalid_names_are_refused_with_their_place() {
        for (text, expected) in [
            ("", TopicError::Empty),
            ("+", TopicError::WildcardInName { at: 0 }),
            ("#", TopicError::WildcardInName { at: 0 }),
            ("a/+", TopicError::WildcardInName { at: 2 }),
            ("a/#", TopicError::WildcardInName { at: 2 }),
            ("a/b+", TopicError::WildcardInName { at: 3 }),
            ("é#", TopicError::WildcardInName { at: 2 }),
            ("$sys/#", TopicError::WildcardInName { at: 5 }),
        ] {
            assert_eq!(Topic::parse(text), Err(expected), "{text:?}");
        }
    }

    /// FAILURES T44 and T45: nothing in a name can end a log line or drive a terminal.
    #[test]
    fn control_characters_are_refused() {
        let refused = (0..=0x1f_u32).chain(0x7f..=0x9f).map(|code| char::from_u32(code).unwrap());
        for character in refused {
            let text = format!("a/{character}b");
            let expected = TopicError::Control { at: 2, character };
            assert_eq!(Topic::parse(&text), Err(expected));
            assert_eq!(TopicFilter::parse(&text), Err(expected));
        }
        for character in ['\u{20}', '\u{7e}', '\u{a0}'] {
            assert!(Topic::parse(&format!("a/{character}b")).is_ok(), "{character:?}");
        }
        assert!(!Topic::parse("a\u{1b}[2J").unwrap_err().to_string().contains('\u{1b}'));
    }

    #[test]
    fn length_and_depth_are_bounded() {
        let longest = "é".repeat(TOPIC_BYTES_MAX / 2);
        assert!(Topic::parse(&longest).is_ok());
        let found = TOPIC_BYTES_MAX + 1;
        assert_eq!(Topic::parse(&format!("{longest}a")), Err(TopicError::TooLong { found }));
        assert_eq!(TopicFilter::parse(&format!("{longest}a")), Err(TopicError::TooLong { found }));
        let deepest = "/".repeat(TOPIC_LEVELS_MAX - 1);
        assert_eq!(Topic::parse(&deepest).unwrap().levels().count(), TOPIC_LEVELS_MAX);
        let found = TOPIC_LEVELS_MAX + 1;
        assert_eq!(Topic::parse(&format!("{deepest}/")), Err(TopicError::TooManyLevels { found }));
        assert_eq!(TopicFilter::parse(&format!("{deepest}/#")), Err(TopicError::TooManyLevels { found }));
    }

    /// FAILURES T28 and T43: padding or another case does not make a name ours, nor ours a client's.
    #[test]
    fn only_a_leading_dollar_is_reserved() {
        for (text, reserved) in [
            ("$", true),
            ("$sys", true),
            ("$SYS/a", true),
            ("a/$sys", false),
            ("/$sys", false),
            (" $sys", false),
        ] {
            assert_eq!(Topic::parse(text).unwrap().is_reserved(), reserved, "{text:?}");
            assert_eq!(TopicFilter::parse(text).unwrap().is_reserved(), reserved, "{text:?}");
        }
    }

    #[test]
    fn the_digest_binds_stream_and_name() {
        let topic = Topic::parse("orders/eu").unwrap();
        let stream = StreamId::new([7; 16]);
        assert_ne!(topic.digest(&stream), topic.digest(&StreamId::ZERO));
        assert_ne!(topic.digest(&stream), Topic::parse("orders/e").unwrap().digest(&stream));
        let expected = blake3::derive_key(
            "sealbus/1 topic",
            b"\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07orders/eu",
        );
        assert_eq!(topic.digest(&stream).as_bytes(), &expected);
    }

    #[test]
    fn a_map_of_topics_is_asked_with_text() {
        let map = std::collections::HashMap::from([(Topic::parse("a/b").unwrap(), 1)]);
        assert_eq!(map.get("a/b"), Some(&1));
    }
}
