//! Base64 with the standard alphabet and padding (RFC 4648 section 4), strictly: one text for each byte string.
//!
//! Lenient decoders take missing padding, line breaks and unused bits that are not zero. Two texts for one signature
//! are two notes for one checkpoint, so none of that is taken here.

use std::fmt;

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// The text form of some bytes.
#[must_use]
pub fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3).saturating_mul(4));
    for group in bytes.chunks(3) {
        let byte = |index: usize| u32::from(group.get(index).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for place in 0..4 {
            let letter = if place <= group.len() {
                let index = bits >> (18 - 6 * place) & 0x3f;
                ALPHABET.get(index as usize).copied().expect("six bits index an alphabet of 64")
            } else {
                b'='
            };
            text.push(char::from(letter));
        }
    }
    text
}

/// The bytes that a text stands for. Takes three bytes of memory for four of the text: whoever calls has bounded it.
///
/// # Errors
/// [`Base64Error`] when the text is not exactly what [`encode`] gives.
pub fn decode(text: &str) -> Result<Vec<u8>, Base64Error> {
    let (groups, rest) = text.as_bytes().as_chunks::<4>();
    if !rest.is_empty() {
        return Err(Base64Error::Length { found: text.len() });
    }
    let mut bytes = Vec::with_capacity(groups.len().saturating_mul(3));
    for (number, group) in groups.iter().enumerate() {
        let last = number + 1 == groups.len();
        let padding = match group {
            [_, _, b'=', b'='] if last => 2,
            [_, _, _, b'='] if last => 1,
            _ => 0,
        };
        let mut bits = 0_u32;
        for (place, letter) in group.iter().enumerate() {
            let six = if place >= 4 - padding { 0 } else { six_bits(*letter).ok_or(Base64Error::Letter)? };
            bits = bits << 6 | six;
        }
        let [_, first, second, third] = bits.to_be_bytes();
        let unused = match padding {
            2 => u32::from(second) << 8 | u32::from(third),
            1 => u32::from(third),
            _ => 0,
        };
        if unused != 0 {
            return Err(Base64Error::UnusedBits);
        }
        bytes.extend([first, second, third].into_iter().take(3 - padding));
    }
    Ok(bytes)
}

/// Why a text is not the base64 of any bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Base64Error {
    /// Its length is not a multiple of four.
    Length {
        /// Bytes that the text has.
        found: usize,
    },
    /// A letter outside the alphabet, or padding before the end.
    Letter,
    /// Bits that stand for nothing are not zero.
    UnusedBits,
}

impl fmt::Display for Base64Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length { found } => {
                write!(f, "base64 comes in groups of four letters, found {found} letters")
            }
            Self::Letter => f.write_str("a letter is not of the base64 alphabet"),
            Self::UnusedBits => f.write_str("the unused bits of the last base64 letter are not zero"),
        }
    }
}

impl std::error::Error for Base64Error {}

fn six_bits(letter: u8) -> Option<u32> {
    let value = match letter {
        b'A'..=b'Z' => letter - b'A',
        b'a'..=b'z' => letter - b'a' + 26,
        b'0'..=b'9' => letter - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    };
    Some(u32::from(value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// RFC 4648 section 10.
    #[test]
    fn the_vectors_of_the_standard() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(encode(bytes.as_bytes()), text);
            assert_eq!(decode(text).as_deref(), Ok(bytes.as_bytes()));
        }
        assert_eq!(encode(&[0xfb, 0xff, 0xfe]), "+//+");
    }

    #[test]
    fn other_texts_for_the_same_bytes_are_refused() {
        for (text, error) in [
            ("Zg", Base64Error::Length { found: 2 }),
            ("Zg=", Base64Error::Length { found: 3 }),
            ("Zm9v\n", Base64Error::Length { found: 5 }),
            ("Zh==", Base64Error::UnusedBits),
            ("Zm9=", Base64Error::UnusedBits),
            ("Zg==Zg==", Base64Error::Letter),
            ("Z===", Base64Error::Letter),
            ("====", Base64Error::Letter),
            ("Zg=A", Base64Error::Letter),
            ("Zm-v", Base64Error::Letter),
            ("Zm v", Base64Error::Letter),
        ] {
            assert_eq!(decode(text), Err(error), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_decoded_is_encoded_alike(text in "[A-Za-z0-9+/=]{0,12}") {
            if let Ok(bytes) = decode(&text) {
                prop_assert_eq!(encode(&bytes), text);
            }
        }

        #[test]
        fn bytes_round_trip(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            prop_assert_eq!(decode(&encode(&bytes)), Ok(bytes));
        }
    }
}
