//! Reading and writing big-endian fields of bounded objects.
//!
//! A [`Reader`] never panics and never allocates: each call takes what it names from the front or says what is
//! missing. An object is decoded when [`Reader::finish`] has seen that nothing is left over, so that one value has
//! exactly one encoding.

use std::fmt;

/// Why bytes are not the object that they should be. The bytes come from a peer: every variant is an answer, not a
/// surprise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DecodeError {
    /// The object ends before this field does.
    Short {
        /// The field that was being read.
        field: &'static str,
        /// Bytes that the field needs.
        needed: usize,
        /// Bytes that were left.
        left: usize,
    },
    /// A declared length or count exceeds its limit.
    TooLong {
        /// The field that declared it.
        field: &'static str,
        /// The limit.
        max: usize,
        /// What was declared.
        found: usize,
    },
    /// Bytes follow the end of the object.
    Trailing {
        /// How many.
        extra: usize,
    },
    /// A field has a value that this version does not know or does not allow.
    Value {
        /// The field.
        field: &'static str,
    },
    /// A text is not UTF-8.
    Utf8 {
        /// The field.
        field: &'static str,
    },
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Short { field, needed, left } => {
                write!(f, "{field} needs {needed} bytes, {left} are left")
            }
            Self::TooLong { field, max, found } => write!(f, "{field} is {found}, the limit is {max}"),
            Self::Trailing { extra } => write!(f, "{extra} bytes follow the end"),
            Self::Value { field } => write!(f, "{field} has a value that is not allowed"),
            Self::Utf8 { field } => write!(f, "{field} is not UTF-8"),
        }
    }
}

impl std::error::Error for DecodeError {}

/// Takes fields from the front of a byte string.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// A reader at the start of `bytes`.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// What has not been read yet.
    #[must_use]
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The next `len` bytes.
    ///
    /// # Errors
    /// [`DecodeError::Short`] when fewer are left.
    pub fn take(&mut self, field: &'static str, len: usize) -> Result<&'a [u8], DecodeError> {
        let Some((taken, rest)) = self.rest.split_at_checked(len) else {
            return Err(DecodeError::Short { field, needed: len, left: self.rest.len() });
        };
        self.rest = rest;
        Ok(taken)
    }

    /// The next `N` bytes, as an array.
    ///
    /// # Errors
    /// [`DecodeError::Short`] when fewer are left.
    pub fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], DecodeError> {
        let Some((taken, rest)) = self.rest.split_first_chunk::<N>() else {
            return Err(DecodeError::Short { field, needed: N, left: self.rest.len() });
        };
        self.rest = rest;
        Ok(*taken)
    }

    /// One byte.
    ///
    /// # Errors
    /// [`DecodeError::Short`] at the end.
    pub fn u8(&mut self, field: &'static str) -> Result<u8, DecodeError> {
        self.array::<1>(field).map(|[byte]| byte)
    }

    /// A big-endian u16.
    ///
    /// # Errors
    /// [`DecodeError::Short`] near the end.
    pub fn u16(&mut self, field: &'static str) -> Result<u16, DecodeError> {
        self.array(field).map(u16::from_be_bytes)
    }

    /// A big-endian u32.
    ///
    /// # Errors
    /// [`DecodeError::Short`] near the end.
    pub fn u32(&mut self, field: &'static str) -> Result<u32, DecodeError> {
        self.array(field).map(u32::from_be_bytes)
    }

    /// A big-endian u64.
    ///
    /// # Errors
    /// [`DecodeError::Short`] near the end.
    pub fn u64(&mut self, field: &'static str) -> Result<u64, DecodeError> {
        self.array(field).map(u64::from_be_bytes)
    }

    /// A field that must be zero in this version.
    ///
    /// # Errors
    /// [`DecodeError::Value`] when a byte of it is not.
    pub fn zeros(&mut self, field: &'static str, len: usize) -> Result<(), DecodeError> {
        if self.take(field, len)?.iter().any(|byte| *byte != 0) {
            return Err(DecodeError::Value { field });
        }
        Ok(())
    }

    /// Bytes behind their u16 length.
    ///
    /// # Errors
    /// [`DecodeError::TooLong`] above `max`, [`DecodeError::Short`] when they are not all there.
    pub fn bytes16(&mut self, field: &'static str, max: usize) -> Result<&'a [u8], DecodeError> {
        let len = usize::from(self.u16(field)?);
        self.bounded(field, len, max)
    }

    /// Bytes behind their u32 length.
    ///
    /// # Errors
    /// [`DecodeError::TooLong`] above `max`, [`DecodeError::Short`] when they are not all there.
    pub fn bytes32(&mut self, field: &'static str, max: usize) -> Result<&'a [u8], DecodeError> {
        let len = usize::try_from(self.u32(field)?).unwrap_or(usize::MAX);
        self.bounded(field, len, max)
    }

    /// UTF-8 text behind its u16 length in bytes.
    ///
    /// # Errors
    /// As [`Reader::bytes16`], and [`DecodeError::Utf8`].
    pub fn text16(&mut self, field: &'static str, max: usize) -> Result<&'a str, DecodeError> {
        std::str::from_utf8(self.bytes16(field, max)?).map_err(|_| DecodeError::Utf8 { field })
    }

    /// The end of the object.
    ///
    /// # Errors
    /// [`DecodeError::Trailing`] when something is left.
    pub fn finish(self) -> Result<(), DecodeError> {
        match self.rest.len() {
            0 => Ok(()),
            extra => Err(DecodeError::Trailing { extra }),
        }
    }

    fn bounded(&mut self, field: &'static str, len: usize, max: usize) -> Result<&'a [u8], DecodeError> {
        if len > max {
            return Err(DecodeError::TooLong { field, max, found: len });
        }
        self.take(field, len)
    }
}

/// Appends fields to a byte string; the mirror of [`Reader`].
///
/// Lengths are asserted, not truncated: whoever builds an object has parsed its parts into types that are within
/// their limits.
pub trait Write {
    /// Appends bytes as they are.
    fn raw(&mut self, bytes: &[u8]);

    /// Appends one byte.
    fn u8(&mut self, value: u8) {
        self.raw(&[value]);
    }

    /// Appends a big-endian u16.
    fn u16(&mut self, value: u16) {
        self.raw(&value.to_be_bytes());
    }

    /// Appends a big-endian u32.
    fn u32(&mut self, value: u32) {
        self.raw(&value.to_be_bytes());
    }

    /// Appends a big-endian u64.
    fn u64(&mut self, value: u64) {
        self.raw(&value.to_be_bytes());
    }

    /// Appends a u16 length and the bytes.
    ///
    /// # Panics
    /// When the bytes are more than a u16 can count: their type bounds them.
    fn bytes16(&mut self, bytes: &[u8]) {
        self.u16(u16::try_from(bytes.len()).expect("a field behind a u16 length is bounded by its type"));
        self.raw(bytes);
    }

    /// Appends a u32 length and the bytes.
    ///
    /// # Panics
    /// When the bytes are more than a u32 can count: their type bounds them.
    fn bytes32(&mut self, bytes: &[u8]) {
        self.u32(u32::try_from(bytes.len()).expect("a field behind a u32 length is bounded by its type"));
        self.raw(bytes);
    }
}

impl Write for Vec<u8> {
    fn raw(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

impl Write for bytes::BytesMut {
    fn raw(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_come_back_as_they_were_written() {
        let mut out = Vec::new();
        out.u8(1);
        out.u16(0x0203);
        out.u32(0x0405_0607);
        out.u64(8);
        out.bytes16(b"ab");
        out.bytes32("ü".as_bytes());
        let mut reader = Reader::new(&out);
        assert_eq!(reader.u8("a"), Ok(1));
        assert_eq!(reader.u16("b"), Ok(0x0203));
        assert_eq!(reader.u32("c"), Ok(0x0405_0607));
        assert_eq!(reader.u64("d"), Ok(8));
        assert_eq!(reader.text16("e", 2), Ok("ab"));
        assert_eq!(reader.bytes32("f", 2), Ok("ü".as_bytes()));
        assert_eq!(reader.finish(), Ok(()));
    }

    #[test]
    fn a_length_above_its_limit_is_refused_before_the_bytes_are_looked_for() {
        let mut reader = Reader::new(&[0xff, 0xff, 0xff, 0xff]);
        assert_eq!(
            reader.bytes32("body", 10),
            Err(DecodeError::TooLong { field: "body", max: 10, found: 0xffff_ffff })
        );
    }

    #[test]
    fn what_is_left_over_is_refused() {
        let mut reader = Reader::new(&[1, 2]);
        assert_eq!(reader.u8("a"), Ok(1));
        assert_eq!(reader.finish(), Err(DecodeError::Trailing { extra: 1 }));
    }

    #[test]
    fn reserved_bytes_must_be_zero() {
        assert_eq!(Reader::new(&[0, 0]).zeros("reserved", 2), Ok(()));
        assert_eq!(Reader::new(&[0, 1]).zeros("reserved", 2), Err(DecodeError::Value { field: "reserved" }));
        assert!(matches!(Reader::new(&[0]).zeros("reserved", 2), Err(DecodeError::Short { .. })));
    }
}
