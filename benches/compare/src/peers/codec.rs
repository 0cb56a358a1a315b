//! What the text protocols have in common: lines, and pieces of a known length.

use crate::wire::WireError;

/// The end of a line.
const END: &[u8; 2] = b"\r\n";

/// Something at the front of what came, without its end, and what is behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cut<'a> {
    pub(super) item: &'a [u8],
    pub(super) behind: &'a [u8],
}

impl<'a> Cut<'a> {
    /// A line that is shorter than this; nothing when it is not all there.
    pub(super) fn line(input: &'a [u8], bytes_max: usize) -> Result<Option<Self>, WireError> {
        let within = input.get(..bytes_max).unwrap_or(input);
        let Some(end) = within.iter().position(|byte| *byte == b'\r') else {
            return if within.len() < bytes_max {
                Ok(None)
            } else {
                Err(WireError::malformed("the end of a line", input))
            };
        };
        Self::bytes_and_end(input, end)
    }

    /// So many bytes and the end of a line behind them; nothing when they are not all there.
    pub(super) fn bytes_and_end(input: &'a [u8], count: usize) -> Result<Option<Self>, WireError> {
        match input.split_at_checked(count) {
            None => Ok(None),
            Some((item, [b'\r', b'\n', behind @ ..])) => Ok(Some(Self { item, behind })),
            Some((_, end)) if END.starts_with(end) => Ok(None),
            Some((_, end)) => Err(WireError::malformed("the end of a line", end)),
        }
    }
}

/// Digits and nothing else; nothing when it is more than 64 bits hold.
pub(super) fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |value, byte| {
        let digit = char::from(*byte).to_digit(10)?;
        value.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_cut_when_its_end_is_there() {
        assert_eq!(Cut::line(b"", 8), Ok(None));
        assert_eq!(Cut::line(b"ab", 8), Ok(None));
        assert_eq!(Cut::line(b"ab\r", 8), Ok(None));
        assert_eq!(Cut::line(b"ab\r\nc", 8), Ok(Some(Cut { item: b"ab", behind: b"c" })));
        assert_eq!(Cut::line(b"\r\n", 8), Ok(Some(Cut { item: b"", behind: b"" })));
        assert!(Cut::line(b"ab\rc", 8).is_err());
        assert!(Cut::line(b"12345678", 8).is_err(), "a line without an end has one some time, or is refused");
    }

    #[test]
    fn a_piece_may_hold_ends_of_lines() {
        assert_eq!(Cut::bytes_and_end(b"\r\n\r\n.", 2), Ok(Some(Cut { item: b"\r\n", behind: b"." })));
        assert_eq!(Cut::bytes_and_end(b"\r\n\r", 2), Ok(None));
        assert!(Cut::bytes_and_end(b"\r\nx", 2).is_err());
    }

    #[test]
    fn a_number_is_digits_that_fit() {
        assert_eq!(decimal(b"18446744073709551615"), Some(u64::MAX));
        for wrong in [b"".as_slice(), b"-1", b"+1", b"1 ", b"x", b"18446744073709551616"] {
            assert_eq!(decimal(wrong), None, "{}", wrong.escape_ascii());
        }
    }
}
