//! The records of a body: one message each, with its key, headers and payload.

use std::fmt;

use crate::limits::{HEADERS_BYTES_MAX, HEADERS_MAX, KEY_BYTES_MAX, PAYLOAD_BYTES_MAX};
use crate::wire::{DecodeError, Reader, Write};

use super::preamble::RECORD_HEAD_LEN;
use super::span::RecordHead;

/// Bytes of the three lengths that a record begins with.
const LENGTHS_LEN: usize = 8;

/// One message as it lies in a body.
///
/// ```text
///   0             4         6             8               12
///   +-------------+---------+-------------+---------------+-----+---------+---------+
///   | payload_len | key_len | headers_len | time_delta_ms | key | headers | payload |
///   | u32         | u16     | u16         | i32           |     |         |         |
///   +-------------+---------+-------------+---------------+-----+---------+---------+
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// Milliseconds from the batch's `created_ms` to the moment the message was published.
    pub time_delta_ms: i32,
    /// What messages of one kind share; empty when there is none.
    pub key: &'a [u8],
    /// The headers.
    pub headers: Headers<'a>,
    /// The payload.
    pub payload: &'a [u8],
}

impl<'a> Record<'a> {
    /// Bytes that the record takes in a body.
    #[must_use]
    pub const fn encoded_len(&self) -> usize {
        RECORD_HEAD_LEN + self.key.len() + self.headers.encoded.len() + self.payload.len()
    }

    /// Appends the record to a body.
    ///
    /// # Errors
    /// [`RecordError`] when key or payload exceed their limits; nothing is appended then.
    pub fn encode(&self, body: &mut impl Write) -> Result<(), RecordError> {
        self.check()?;
        // One piece, and nothing for what is not there: this is done for every message.
        let mut head = [0; RECORD_HEAD_LEN];
        head[..LENGTHS_LEN].copy_from_slice(&self.lengths());
        head[LENGTHS_LEN..].copy_from_slice(&self.time_delta_ms.to_be_bytes());
        body.raw(&head);
        if !self.key.is_empty() {
            body.raw(self.key);
        }
        if !self.headers.encoded.is_empty() {
            body.raw(self.headers.encoded);
        }
        body.raw(self.payload);
        Ok(())
    }

    /// The first eight bytes of a record that is within its limits.
    fn lengths(&self) -> [u8; LENGTHS_LEN] {
        let payload_len = u32::try_from(self.payload.len()).expect("a payload is at most a megabyte");
        let key_len = u16::try_from(self.key.len()).expect("a key is at most 4 KiB");
        let headers_len = u16::try_from(self.headers.encoded.len()).expect("headers are at most 16 KiB");
        let mut lengths = [0; LENGTHS_LEN];
        lengths[..4].copy_from_slice(&payload_len.to_be_bytes());
        lengths[4..6].copy_from_slice(&key_len.to_be_bytes());
        lengths[6..].copy_from_slice(&headers_len.to_be_bytes());
        lengths
    }

    /// Whether a batch could hold the message at all. Headers are within their limit by their type.
    pub(super) fn check(&self) -> Result<(), RecordError> {
        check_len("payload", self.payload.len(), PAYLOAD_BYTES_MAX)?;
        check_len("key", self.key.len(), KEY_BYTES_MAX)
    }

    fn decode(reader: &mut Reader<'a>) -> Result<Self, RecordError> {
        let head = RecordHead::decode(reader.array("record head")?);
        check_len("payload", head.payload_len, PAYLOAD_BYTES_MAX)?;
        check_len("key", head.key_len, KEY_BYTES_MAX)?;
        let key = reader.take("key", head.key_len)?;
        let headers = Headers::parse(reader.take("headers", head.headers_len)?)?;
        let payload = reader.take("payload", head.payload_len)?;
        Ok(Self { time_delta_ms: head.time_delta_ms, key, headers, payload })
    }
}

/// Headers of one message: names in lower case, sorted, unique.
///
/// ```text
///   +----------+------+-----------+-------+
///   | name_len | name | value_len | value |  repeated, at most 64 times
///   | u8       |      | u16       |       |
///   +----------+------+-----------+-------+
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Headers<'a> {
    encoded: &'a [u8],
}

impl<'a> Headers<'a> {
    /// No headers.
    pub const NONE: Headers<'static> = Headers { encoded: &[] };

    /// Parses encoded headers.
    ///
    /// # Errors
    /// [`RecordError`] when they are too many or too long, or a name is not lower case, sorted and unique.
    #[inline]
    pub fn parse(encoded: &'a [u8]) -> Result<Self, RecordError> {
        // Most messages have none.
        if encoded.is_empty() {
            return Ok(Self::NONE);
        }
        Self::parse_some(encoded)
    }

    fn parse_some(encoded: &'a [u8]) -> Result<Self, RecordError> {
        check_len("headers", encoded.len(), HEADERS_BYTES_MAX)?;
        let mut reader = Reader::new(encoded);
        let mut previous: &[u8] = &[];
        let mut count = 0;
        while !reader.rest().is_empty() {
            let (name, _) = next_header(&mut reader)?;
            check_name(name)?;
            if count > 0 && name <= previous {
                return Err(RecordError::HeaderOrder);
            }
            count += 1;
            if count > HEADERS_MAX {
                return Err(RecordError::TooManyHeaders);
            }
            previous = name;
        }
        Ok(Self { encoded })
    }

    /// The headers, in order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> + use<'a> {
        let mut reader = Reader::new(self.encoded);
        std::iter::from_fn(move || {
            if reader.rest().is_empty() {
                return None;
            }
            let (name, value) = next_header(&mut reader).ok()?;
            Some((std::str::from_utf8(name).ok()?, value))
        })
    }

    /// The value of one header.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<&'a [u8]> {
        self.iter().find(|(candidate, _)| *candidate == name).map(|(_, value)| value)
    }

    /// The headers as they are in the record.
    #[must_use]
    pub const fn encoded(&self) -> &'a [u8] {
        self.encoded
    }
}

impl fmt::Debug for Headers<'_> {
    /// Names only: values are content.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter().map(|(name, _)| name)).finish()
    }
}

/// Headers that are being put together, kept in the form that the wire wants.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct HeadersBuf {
    encoded: Vec<u8>,
}

impl HeadersBuf {
    /// Encodes headers given in any order.
    ///
    /// # Errors
    /// [`RecordError`] for a name that is not allowed or given twice, and above the limits.
    pub fn new<'h>(headers: impl IntoIterator<Item = (&'h str, &'h [u8])>) -> Result<Self, RecordError> {
        let mut sorted: Vec<(&str, &[u8])> = headers.into_iter().collect();
        sorted.sort_unstable_by_key(|(name, _)| *name);
        let mut encoded = Vec::new();
        for (name, value) in sorted {
            check_name(name.as_bytes())?;
            check_len("headers", encoded.len() + value.len(), HEADERS_BYTES_MAX)?;
            encoded.u8(u8::try_from(name.len()).map_err(|_| RecordError::HeaderName)?);
            encoded.raw(name.as_bytes());
            encoded.bytes16(value);
        }
        Headers::parse(&encoded)?;
        Ok(Self { encoded })
    }

    /// The headers.
    #[must_use]
    pub fn headers(&self) -> Headers<'_> {
        Headers { encoded: &self.encoded }
    }
}

impl fmt::Debug for HeadersBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.headers().fmt(f)
    }
}

/// The records of a body, in order. Ends after the last, or after the first that does not parse.
#[derive(Debug, Clone)]
pub struct Records<'a> {
    reader: Reader<'a>,
}

impl<'a> Records<'a> {
    /// The records of `body`.
    #[must_use]
    pub const fn new(body: &'a [u8]) -> Self {
        Self { reader: Reader::new(body) }
    }

    /// Bytes that have not been read yet.
    #[must_use]
    pub const fn remaining(&self) -> usize {
        self.reader.rest().len()
    }

    /// Passes over what follows with the lengths of `record`, at most `max` of them, and says how many those were.
    /// Each is as good as `record` is: only headers have rules beyond their length, and with headers none is passed.
    ///
    /// Messages of one producer are mostly of one shape. Read one by one, each head must have come from memory before it
    /// is known where the next one lies; here that is known beforehand, and they are fetched side by side.
    pub(super) fn pass_alike(&mut self, record: &Record<'_>, max: u32) -> u32 {
        if !record.headers.encoded.is_empty() {
            return 0;
        }
        let len = record.encoded_len();
        let lengths = record.lengths();
        let rest = self.reader.rest();
        let alike =
            rest.chunks_exact(len).zip(0..max).take_while(|(next, _)| next.starts_with(&lengths)).count();
        self.reader = Reader::new(rest.get(alike * len..).expect("so many whole records lie in it"));
        u32::try_from(alike).expect("at most max")
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, RecordError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.reader.rest().is_empty() {
            return None;
        }
        let record = Record::decode(&mut self.reader);
        if record.is_err() {
            self.reader = Reader::new(&[]);
        }
        Some(record)
    }
}

/// Why bytes are not a record, or a message cannot be made into one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordError {
    /// A part exceeds its limit.
    TooLong {
        /// The part.
        part: &'static str,
        /// Its limit in bytes.
        max: usize,
        /// Its bytes.
        found: usize,
    },
    /// More headers than a message may have.
    TooManyHeaders,
    /// A header name is empty, too long, or has a character outside `[a-z0-9._-]`.
    HeaderName,
    /// Header names are not sorted, or one stands twice.
    HeaderOrder,
    /// The body holds another number of records than the preamble declares.
    Count,
    /// A field is missing or cut.
    Field(DecodeError),
}

impl fmt::Display for RecordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong { part, max, found } => write!(f, "{part} of {found} bytes, the limit is {max}"),
            Self::TooManyHeaders => write!(f, "more than {HEADERS_MAX} headers"),
            Self::HeaderName => {
                f.write_str("a header name has 1 to 255 characters of a-z, 0-9, '.', '_' and '-'")
            }
            Self::HeaderOrder => f.write_str("header names are not sorted and unique"),
            Self::Count => f.write_str("the body holds another number of records than the preamble declares"),
            Self::Field(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for RecordError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Field(error) => Some(error),
            Self::TooLong { .. }
            | Self::TooManyHeaders
            | Self::HeaderName
            | Self::HeaderOrder
            | Self::Count => None,
        }
    }
}

impl From<DecodeError> for RecordError {
    fn from(error: DecodeError) -> Self {
        Self::Field(error)
    }
}

fn next_header<'a>(reader: &mut Reader<'a>) -> Result<(&'a [u8], &'a [u8]), RecordError> {
    let name_len = usize::from(reader.u8("header name length")?);
    let name = reader.take("header name", name_len)?;
    let value = reader.bytes16("header value", HEADERS_BYTES_MAX)?;
    Ok((name, value))
}

/// A closed character set: no case variants, no padding, nothing that another protocol could read as a line end.
fn check_name(name: &[u8]) -> Result<(), RecordError> {
    let allowed = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(byte);
    if name.is_empty() || name.len() > usize::from(u8::MAX) || !name.iter().all(allowed) {
        return Err(RecordError::HeaderName);
    }
    Ok(())
}

const fn check_len(part: &'static str, found: usize, max: usize) -> Result<(), RecordError> {
    if found > max {
        return Err(RecordError::TooLong { part, max, found });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(headers: &[(&str, &[u8])]) -> Vec<u8> {
        let mut out = Vec::new();
        for (name, value) in headers {
            out.u8(name.len() as u8);
            out.raw(name.as_bytes());
            out.bytes16(value);
        }
        out
    }

    #[test]
    fn records_round_trip() {
        let headers =
            HeadersBuf::new([("traceparent", &b"00-1"[..]), ("content-type", b"application/json")]).unwrap();
        let records = [
            Record { time_delta_ms: -3, key: b"k", headers: headers.headers(), payload: b"payload" },
            Record { time_delta_ms: 0, key: b"", headers: Headers::NONE, payload: b"" },
        ];
        let mut body = Vec::new();
        for record in &records {
            record.encode(&mut body).unwrap();
        }
        assert_eq!(body.len(), records.iter().map(Record::encoded_len).sum::<usize>());
        let decoded: Result<Vec<_>, _> = Records::new(&body).collect();
        assert_eq!(decoded.unwrap(), records);
    }

    #[test]
    fn a_cut_record_is_refused_at_every_place() {
        let headers = HeadersBuf::new([("a", &b"1"[..])]).unwrap();
        let mut body = Vec::new();
        Record { time_delta_ms: 0, key: b"key", headers: headers.headers(), payload: b"payload" }
            .encode(&mut body)
            .unwrap();
        for len in 1..body.len() {
            let last = Records::new(&body[..len]).last();
            assert!(matches!(last, Some(Err(_))), "cut at {len}");
        }
    }

    #[test]
    fn lengths_that_lie_are_refused_before_anything_is_read() {
        let mut body = vec![0xff; 4];
        body.extend([0; 8]);
        assert_eq!(
            Records::new(&body).next(),
            Some(Err(RecordError::TooLong { part: "payload", max: PAYLOAD_BYTES_MAX, found: 0xffff_ffff }))
        );
    }

    #[test]
    fn header_names_have_one_form() {
        for (headers, expected) in [
            (encoded(&[("a", b""), ("b", b"")]), None),
            (encoded(&[("b", b""), ("a", b"")]), Some(RecordError::HeaderOrder)),
            (encoded(&[("a", b""), ("a", b"")]), Some(RecordError::HeaderOrder)),
            (encoded(&[("Principal", b"")]), Some(RecordError::HeaderName)),
            (encoded(&[("principal ", b"")]), Some(RecordError::HeaderName)),
            (encoded(&[("a\r\nb", b"")]), Some(RecordError::HeaderName)),
            (encoded(&[("", b"")]), Some(RecordError::HeaderName)),
        ] {
            assert_eq!(Headers::parse(&headers).err(), expected, "{headers:?}");
        }
    }

    #[test]
    fn headers_are_counted_and_measured() {
        let names: Vec<String> = (0..=HEADERS_MAX).map(|number| format!("h{number:03}")).collect();
        let all: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), &b""[..])).collect();
        assert!(Headers::parse(&encoded(&all[..HEADERS_MAX])).is_ok());
        assert_eq!(Headers::parse(&encoded(&all)), Err(RecordError::TooManyHeaders));
        let long = vec![0; HEADERS_BYTES_MAX + 1];
        assert!(matches!(HeadersBuf::new([("a", long.as_slice())]), Err(RecordError::TooLong { .. })));
    }

    #[test]
    fn headers_are_found_by_name() {
        let headers = HeadersBuf::new([("b", &b"2"[..]), ("a", b"1")]).unwrap();
        assert_eq!(headers.headers().value("b"), Some(&b"2"[..]));
        assert_eq!(headers.headers().value("c"), None);
        assert_eq!(headers.headers().iter().map(|(name, _)| name).collect::<Vec<_>>(), ["a", "b"]);
    }

    #[test]
    fn a_payload_above_its_limit_is_not_encoded() {
        let mut body = Vec::new();
        let payload = vec![0; PAYLOAD_BYTES_MAX + 1];
        let record = Record { time_delta_ms: 0, key: b"", headers: Headers::NONE, payload: &payload };
        assert!(record.encode(&mut body).is_err());
        assert!(body.is_empty());
    }
}
