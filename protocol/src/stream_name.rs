//! What a stream is called: by its operators, or by the bus for the dead letters of a consumer.

use std::fmt;

use crate::limits::STREAM_NAME_BYTES_MAX;
use crate::policy::Name;

const DEAD_LETTERS: &str = "$dead/";

/// The name of a stream. Its parts can only be made by parsing them, so each value is one that can be written and read.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum StreamName {
    /// A stream that the policy defines.
    Plain(Name),
    /// `$dead/STREAM/CONSUMER`: what a durable consumer gave up on. The bus's own; it is read with REPLAY.
    DeadLetters {
        /// The stream that the messages came from.
        stream: Name,
        /// The consumer that gave up.
        consumer: Name,
    },
}

impl StreamName {
    /// Parses a stream's name.
    ///
    /// # Errors
    /// [`StreamNameError`] when it is neither a name nor `$dead/`, a name, `/` and a name.
    pub fn parse(text: &str) -> Result<Self, StreamNameError> {
        if text.len() > STREAM_NAME_BYTES_MAX {
            return Err(StreamNameError);
        }
        let name = |text| Name::parse(text).map_err(|_| StreamNameError);
        let Some(dead) = text.strip_prefix(DEAD_LETTERS) else { return name(text).map(Self::Plain) };
        let (stream, consumer) = dead.split_once('/').ok_or(StreamNameError)?;
        Ok(Self::DeadLetters { stream: name(stream)?, consumer: name(consumer)? })
    }

    /// The stream of the policy whose rules hold for this one: itself, or where the dead letters came from.
    #[must_use]
    pub const fn governing(&self) -> &Name {
        match self {
            Self::Plain(name) | Self::DeadLetters { stream: name, .. } => name,
        }
    }
}

impl From<Name> for StreamName {
    fn from(name: Name) -> Self {
        Self::Plain(name)
    }
}

impl fmt::Display for StreamName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain(name) => name.fmt(f),
            Self::DeadLetters { stream, consumer } => write!(f, "{DEAD_LETTERS}{stream}/{consumer}"),
        }
    }
}

/// A text that is no [`StreamName`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamNameError;

impl fmt::Display for StreamNameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "a stream is called by a name of letters, digits, '.', '_' and '-', or by $dead/STREAM/CONSUMER",
        )
    }
}

impl std::error::Error for StreamNameError {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::POLICY_NAME_BYTES_MAX;

    #[test]
    fn names_come_back_as_they_were_written() {
        let longest = "n".repeat(POLICY_NAME_BYTES_MAX);
        for text in
            ["orders", "a.b_c-9", "$dead/orders/billing", &longest, &format!("$dead/{longest}/{longest}")]
        {
            assert_eq!(StreamName::parse(text).map(|name| name.to_string()), Ok(text.to_owned()));
        }
        let dead = StreamName::parse("$dead/orders/billing").unwrap();
        assert_eq!(dead.governing().as_str(), "orders");
        assert!(matches!(dead, StreamName::DeadLetters { consumer, .. } if consumer.as_str() == "billing"));
    }

    #[test]
    fn other_spellings_are_refused() {
        let too_long = "n".repeat(POLICY_NAME_BYTES_MAX + 1);
        let dead_too_long = format!("$dead/{too_long}/a");
        for text in [
            "",
            "$",
            "$dead",
            "$dead/",
            "$dead/a",
            "$dead//",
            "$dead/a/",
            "$dead//a",
            "$dead/a/b/c",
            "$DEAD/a/b",
            "$keys",
            "a/b",
            "a b",
            "é",
            "a\n",
            "$dead/$dead/a",
            &too_long,
            &dead_too_long,
        ] {
            assert_eq!(StreamName::parse(text), Err(StreamNameError), "{text:?}");
        }
    }
}
