//! Spans of time and amounts of bytes as people write them: `7d`, `30m`, `20GiB`.
//!
//! One unit, in whole numbers, and one spelling: `1d12h`, `1.5GiB`, `07d` and `20GB` are refused, the last because it
//! means one thing to disks and another to memory.

use std::fmt;

use crate::spelling::nearest;

/// Units of time, and their milliseconds.
const TIME_UNITS: [(&str, u64); 4] = [("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// Units of bytes. A number without a unit counts bytes.
const BYTE_UNITS: [(&str, u64); 5] =
    [("", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40)];

/// Parses a span of time: a number from 1 and `s`, `m`, `h` or `d`. Gives milliseconds.
///
/// # Errors
/// [`QuantityError`] when the number or the unit is none.
pub fn parse_duration_ms(text: &str) -> Result<u64, QuantityError> {
    parse(text, &TIME_UNITS).ok_or(QuantityError::Time)
}

/// Parses an amount of bytes: a number from 1, and `KiB`, `MiB`, `GiB`, `TiB` or nothing.
///
/// # Errors
/// [`QuantityError`] when the number or the unit is none.
pub fn parse_bytes(text: &str) -> Result<u64, QuantityError> {
    parse(text, &BYTE_UNITS).ok_or(QuantityError::Bytes)
}

fn parse(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits_end = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at_checked(digits_end)?;
    if digits.starts_with('0') {
        return None;
    }
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    digits.parse::<u64>().ok()?.checked_mul(*factor)
}

/// Why a text is no quantity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QuantityError {
    /// It is no span of time.
    Time,
    /// It is no amount of bytes.
    Bytes,
}

impl QuantityError {
    /// What the writer of `text` may have meant: the same number with the nearest unit.
    #[must_use]
    pub fn meant(self, text: &str) -> Option<String> {
        let units: &[(&str, u64)] = match self {
            Self::Time => &TIME_UNITS,
            Self::Bytes => &BYTE_UNITS,
        };
        let digits_end = text.find(|character: char| !character.is_ascii_digit())?;
        let (digits, unit) = text.split_at_checked(digits_end)?;
        let (unit, mut named) = (unit.trim_start(), units.iter().map(|(name, _)| *name));
        if !unit.bytes().all(|byte| byte.is_ascii_alphabetic()) {
            return None;
        }
        let unit = match self {
            // Of one letter, any other is as near.
            Self::Time => named.find(|name| name.eq_ignore_ascii_case(unit))?,
            Self::Bytes => nearest(unit, named.filter(|name| !name.is_empty()))?,
        };
        let meant = format!("{digits}{unit}");
        (meant != text && parse(&meant, units).is_some()).then_some(meant)
    }
}

impl fmt::Display for QuantityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Time => "a span of time is a whole number from 1 and s, m, h or d, as in 30m or 7d",
            Self::Bytes => {
                "an amount of bytes is a whole number from 1, alone or with KiB, MiB, GiB or TiB, as in 20GiB"
            }
        })
    }
}

impl std::error::Error for QuantityError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_of_time_have_one_number_and_one_unit() {
        for (text, expected) in [
            ("1s", 1_000),
            ("45s", 45_000),
            ("30m", 1_800_000),
            ("12h", 43_200_000),
            ("7d", 604_800_000),
            ("213503982334d", 18_446_744_073_657_600_000),
        ] {
            assert_eq!(parse_duration_ms(text), Ok(expected), "{text}");
        }
        for text in [
            "",
            "s",
            "7",
            "0d",
            "07d",
            "-1d",
            "+1d",
            "1.5h",
            "7 d",
            " 7d",
            "7d ",
            "7D",
            "7days",
            "1d12h",
            "7w",
            "7ms",
            "7µs",
            "٧d",
            "213503982335d",
            "99999999999999999999s",
        ] {
            assert_eq!(parse_duration_ms(text), Err(QuantityError::Time), "{text}");
        }
    }

    #[test]
    fn amounts_of_bytes_have_one_number_and_a_unit_of_two_or_none() {
        for (text, expected) in [
            ("1", 1),
            ("1048576", 1_048_576),
            ("512KiB", 524_288),
            ("64MiB", 67_108_864),
            ("20GiB", 21_474_836_480),
            ("2TiB", 2_199_023_255_552),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(parse_bytes(text), Ok(expected), "{text}");
        }
        for text in [
            "",
            "KiB",
            "0",
            "0GiB",
            "01GiB",
            "-1",
            "+1",
            "1.5GiB",
            "20 GiB",
            "20GB",
            "20G",
            "20gib",
            "20gIb",
            "1e9",
            "1_000",
            "0x10",
            "20B",
            "18446744073709551616",
            "16777216TiB",
        ] {
            assert_eq!(parse_bytes(text), Err(QuantityError::Bytes), "{text}");
        }
    }

    #[test]
    fn a_unit_that_is_nearly_one_is_known() {
        for (cause, text, expected) in [
            (QuantityError::Bytes, "20GB", Some("20GiB")),
            (QuantityError::Bytes, "20gib", Some("20GiB")),
            (QuantityError::Bytes, "20 MiB", Some("20MiB")),
            (QuantityError::Bytes, "20GiB", None),
            (QuantityError::Bytes, "0GB", None),
            (QuantityError::Bytes, "GB", None),
            (QuantityError::Bytes, "1.5GiB", None),
            (QuantityError::Time, "7D", Some("7d")),
            (QuantityError::Time, "7 d", Some("7d")),
            (QuantityError::Time, "1w", None),
            (QuantityError::Time, "7", None),
            (QuantityError::Time, "", None),
        ] {
            assert_eq!(cause.meant(text).as_deref(), expected, "{text}");
        }
    }
}
