//! The fixed-size names of things: bus, stream, incarnation, key.
//!
//! Each is its own type, so that a key id cannot stand where a digest is meant, and each prints as lower-case hex.

use std::fmt;
use std::str::FromStr;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $bytes:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name([u8; $bytes]);

        impl $name {
            /// Bytes of the identifier.
            pub const LEN: usize = $bytes;
            /// The all-zero value, which the formats use for "none".
            pub const ZERO: Self = Self([0; $bytes]);

            /// The identifier with these bytes.
            #[must_use]
            pub const fn new(bytes: [u8; $bytes]) -> Self {
                Self(bytes)
            }

            /// Its bytes, as they are on the wire.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; $bytes] {
                &self.0
            }

            /// Whether this is the all-zero value.
            #[must_use]
            pub fn is_zero(&self) -> bool {
                *self == Self::ZERO
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_hex(f, &self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                parse_hex(text).map(Self)
            }
        }
    };
}

id!(
    /// A bus: random, drawn once by `sealbus init`. Signatures of one bus mean nothing on another.
    BusId, 16
);
id!(
    /// A stream; all zero for topics that are live only.
    StreamId, 16
);
id!(
    /// One producer process or replica: random unless configured.
    InstanceId, 16
);
id!(
    /// One life of a client process: fresh randomness at its start, kept across reconnects.
    IncarnationId, 16
);
id!(
    /// A signing key of one principal: `derive_key("sealbus/1 key id", u16 len || principal || Ed25519 key)`.
    Kid, 32
);
id!(
    /// A topic within a stream: `derive_key("sealbus/1 topic", stream_id || topic)`.
    TopicDigest, 32
);
id!(
    /// A batch's place in its producer's chain: `derive_key("sealbus/1 preamble", preamble)`.
    PreambleDigest, 32
);
id!(
    /// BLAKE3 of a batch's body as transmitted.
    ContentHash, 32
);
id!(
    /// SHA-256 of a policy document, as WELCOME and GENERATION carry it.
    PolicyHash, 32
);

/// Why a text is not an identifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParseIdError {
    /// The text has another number of bytes than the identifier has hex digits.
    Length {
        /// Hex digits that the identifier has.
        expected: usize,
        /// Bytes that the text has.
        found: usize,
    },
    /// A byte that is not a lower-case hex digit.
    Digit {
        /// Its offset.
        at: usize,
    },
}

impl fmt::Display for ParseIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length { expected, found } => {
                write!(f, "an identifier of {expected} hex digits was expected, found {found} bytes")
            }
            Self::Digit { at } => write!(f, "no lower-case hex digit stands at byte {at}, counted from 0"),
        }
    }
}

impl std::error::Error for ParseIdError {}

fn write_hex(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

fn parse_hex<const N: usize>(text: &str) -> Result<[u8; N], ParseIdError> {
    if text.len() != 2 * N {
        return Err(ParseIdError::Length { expected: 2 * N, found: text.len() });
    }
    let mut bytes = [0; N];
    for (index, pair) in text.as_bytes().chunks_exact(2).enumerate() {
        let high = hex_digit(pair[0]).ok_or(ParseIdError::Digit { at: 2 * index })?;
        let low = hex_digit(pair[1]).ok_or(ParseIdError::Digit { at: 2 * index + 1 })?;
        bytes[index] = high << 4 | low;
    }
    Ok(bytes)
}

/// One spelling per value: capitals are refused, so that two texts never name one thing.
fn hex_digit(character: u8) -> Option<u8> {
    match character {
        b'0'..=b'9' => Some(character - b'0'),
        b'a'..=b'f' => Some(character - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_round_trips() {
        let id = BusId::new([0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef, 0, 1, 2, 3, 4, 5, 6, 0xff]);
        assert_eq!(id.to_string(), "0123456789abcdef000102030405".to_owned() + "06ff");
        assert_eq!(id.to_string().parse(), Ok(id));
    }

    #[test]
    fn other_spellings_are_refused() {
        assert_eq!("".parse::<BusId>(), Err(ParseIdError::Length { expected: 32, found: 0 }));
        assert_eq!("0123456789ABCDEF0001020304050607".parse::<BusId>(), Err(ParseIdError::Digit { at: 10 }));
        assert_eq!("0123456789abcdeg0001020304050607".parse::<BusId>(), Err(ParseIdError::Digit { at: 15 }));
        assert!("é123456789abcdef000102030405060".parse::<BusId>().is_err());
    }
}
