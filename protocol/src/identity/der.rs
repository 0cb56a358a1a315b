//! A strict reader of DER, as much of it as a certificate needs.
//!
//! It takes one element at a time from the front of a borrowed byte string: no recursion, no allocation, nothing
//! kept. Whatever has two encodings is refused in all but the shortest (indefinite and padded lengths, booleans other
//! than 00 and ff), because two parsers that read one certificate differently are two identities.

use std::fmt;

/// The tags that occur in the parts of a certificate that are read here.
pub(super) mod tag {
    pub(in crate::identity) const BOOLEAN: u8 = 0x01;
    pub(in crate::identity) const INTEGER: u8 = 0x02;
    pub(in crate::identity) const BIT_STRING: u8 = 0x03;
    pub(in crate::identity) const OCTET_STRING: u8 = 0x04;
    pub(in crate::identity) const OID: u8 = 0x06;
    pub(in crate::identity) const UTF8_STRING: u8 = 0x0c;
    pub(in crate::identity) const PRINTABLE_STRING: u8 = 0x13;
    pub(in crate::identity) const IA5_STRING: u8 = 0x16;
    pub(in crate::identity) const UTC_TIME: u8 = 0x17;
    pub(in crate::identity) const GENERALIZED_TIME: u8 = 0x18;
    pub(in crate::identity) const SEQUENCE: u8 = 0x30;
    pub(in crate::identity) const SET: u8 = 0x31;
    /// `[0] EXPLICIT`, a certificate's version.
    pub(in crate::identity) const VERSION: u8 = 0xa0;
    /// `[3] EXPLICIT`, a certificate's extensions.
    pub(in crate::identity) const EXTENSIONS: u8 = 0xa3;
    /// `[2] IMPLICIT IA5String` in a GeneralName: a DNS name.
    pub(in crate::identity) const DNS_NAME: u8 = 0x82;
    /// `[6] IMPLICIT IA5String` in a GeneralName: a URI.
    pub(in crate::identity) const URI: u8 = 0x86;
}

/// Why bytes are not DER, or not the element that belongs there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DerError {
    /// They end inside an element, or where one is missing.
    Short,
    /// A tag of several bytes, which nothing in a certificate has.
    HighTag,
    /// A length that is indefinite, not in its shortest form, or above 65,535.
    Length,
    /// Another element than the one that belongs there.
    Tag {
        /// The tag byte that belongs there.
        expected: u8,
        /// The tag byte that is there.
        found: u8,
    },
    /// Something follows the last element.
    Trailing,
    /// The content does not have the form that its type prescribes.
    Content,
}

impl fmt::Display for DerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Short => f.write_str("it ends where an element should go on"),
            Self::HighTag => f.write_str("it has a tag of several bytes"),
            Self::Length => f.write_str("it has a length that is indefinite, padded or above 65535"),
            Self::Tag { expected, found } => write!(f, "tag {expected:02x} was expected, found {found:02x}"),
            Self::Trailing => f.write_str("something follows its last element"),
            Self::Content => f.write_str("its content does not have the form of its type"),
        }
    }
}

impl std::error::Error for DerError {}

/// One element: its tag, its content, and both with the length between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Element<'a> {
    pub(super) tag: u8,
    pub(super) content: &'a [u8],
    pub(super) encoded: &'a [u8],
}

/// Takes elements from the front of a byte string.
#[derive(Debug, Clone)]
pub(super) struct DerReader<'a> {
    rest: &'a [u8],
}

impl<'a> DerReader<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next element, whatever it is.
    pub(super) fn element(&mut self) -> Result<Element<'a>, DerError> {
        let start = self.rest;
        let [tag, first, after @ ..] = start else { return Err(DerError::Short) };
        if tag & 0x1f == 0x1f {
            return Err(DerError::HighTag);
        }
        let (len, after) = length(*first, after)?;
        let (content, rest) = after.split_at_checked(len).ok_or(DerError::Short)?;
        let (encoded, _) = start.split_at(start.len() - rest.len());
        self.rest = rest;
        Ok(Element { tag: *tag, content, encoded })
    }

    /// The content of the next element, which must have this tag.
    pub(super) fn expect(&mut self, tag: u8) -> Result<&'a [u8], DerError> {
        let element = self.element()?;
        if element.tag != tag {
            return Err(DerError::Tag { expected: tag, found: element.tag });
        }
        Ok(element.content)
    }

    /// The content of the next element when it has this tag.
    pub(super) fn optional(&mut self, tag: u8) -> Result<Option<&'a [u8]>, DerError> {
        if self.rest.first() == Some(&tag) { self.expect(tag).map(Some) } else { Ok(None) }
    }

    /// The next element, a BOOLEAN that is FALSE when it is left out.
    pub(super) fn optional_boolean(&mut self) -> Result<bool, DerError> {
        match self.optional(tag::BOOLEAN)? {
            None | Some([0x00]) => Ok(false),
            Some([0xff]) => Ok(true),
            Some(_) => Err(DerError::Content),
        }
    }

    /// The next element, an INTEGER in its shortest form, as its content.
    pub(super) fn integer(&mut self) -> Result<&'a [u8], DerError> {
        match self.expect(tag::INTEGER)? {
            [] | [0x00, 0x00..=0x7f, ..] | [0xff, 0x80..=0xff, ..] => Err(DerError::Content),
            content => Ok(content),
        }
    }

    /// The end.
    pub(super) fn finish(self) -> Result<(), DerError> {
        if self.rest.is_empty() { Ok(()) } else { Err(DerError::Trailing) }
    }
}

/// The length that begins with `first`, and what follows it. Two bytes of length hold eight times what the protocol
/// lets a certificate have.
fn length(first: u8, after: &[u8]) -> Result<(usize, &[u8]), DerError> {
    match first {
        0x00..=0x7f => Ok((usize::from(first), after)),
        0x81 => {
            let (len, after) = after.split_first().ok_or(DerError::Short)?;
            if *len < 0x80 { Err(DerError::Length) } else { Ok((usize::from(*len), after)) }
        }
        0x82 => {
            let (len, after) = after.split_first_chunk().ok_or(DerError::Short)?;
            let len = u16::from_be_bytes(*len);
            if len < 0x100 { Err(DerError::Length) } else { Ok((usize::from(len), after)) }
        }
        _ => Err(DerError::Length),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_length_has_one_encoding() {
        for (bytes, expected) in [
            (&[0x04, 0x00][..], Ok(0)),
            (&[0x04, 0x01, 7], Ok(1)),
            (&[], Err(DerError::Short)),
            (&[0x04], Err(DerError::Short)),
            (&[0x04, 0x02, 7], Err(DerError::Short)),
            (&[0x04, 0x81], Err(DerError::Short)),
            (&[0x04, 0x81, 0x01, 7], Err(DerError::Length)),
            (&[0x04, 0x82, 0x00, 0x80], Err(DerError::Length)),
            (&[0x04, 0x82, 0x01], Err(DerError::Short)),
            (&[0x04, 0x83, 0x01, 0x00, 0x00], Err(DerError::Length)),
            (&[0x04, 0x80, 0x00, 0x00], Err(DerError::Length)),
            (&[0x1f, 0x01, 0x00], Err(DerError::HighTag)),
        ] {
            assert_eq!(
                DerReader::new(bytes).element().map(|found| found.content.len()),
                expected,
                "{bytes:?}"
            );
        }
        let mut long = vec![0x04, 0x81, 0x80];
        long.resize(3 + 0x80, 7);
        assert_eq!(DerReader::new(&long).expect(tag::OCTET_STRING).map(<[u8]>::len), Ok(0x80));
    }

    #[test]
    fn booleans_and_integers_have_one_form() {
        assert_eq!(DerReader::new(&[]).optional_boolean(), Ok(false));
        assert_eq!(DerReader::new(&[1, 1, 0xff]).optional_boolean(), Ok(true));
        assert_eq!(DerReader::new(&[1, 1, 0x01]).optional_boolean(), Err(DerError::Content));
        assert_eq!(DerReader::new(&[1, 0]).optional_boolean(), Err(DerError::Content));
        assert_eq!(DerReader::new(&[2, 1, 0]).integer(), Ok(&[0][..]));
        assert_eq!(DerReader::new(&[2, 0]).integer(), Err(DerError::Content));
        assert_eq!(DerReader::new(&[2, 2, 0, 0x7f]).integer(), Err(DerError::Content));
        assert_eq!(DerReader::new(&[2, 2, 0, 0x80]).integer(), Ok(&[0, 0x80][..]));
    }

    #[test]
    fn what_follows_the_end_is_refused() {
        let mut reader = DerReader::new(&[5, 0, 9]);
        assert_eq!(reader.element().map(|found| found.encoded), Ok(&[5, 0][..]));
        assert_eq!(reader.finish(), Err(DerError::Trailing));
    }
}
