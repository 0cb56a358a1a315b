//! Where a record and its parts lie in a batch.

use std::ops::Range;

use super::preamble::RECORD_HEAD_LEN;

/// What stands before a record's parts.
pub(super) struct RecordHead {
    pub(super) payload_len: usize,
    pub(super) key_len: usize,
    pub(super) headers_len: usize,
    pub(super) time_delta_ms: i32,
}

impl RecordHead {
    pub(super) fn decode(head: [u8; RECORD_HEAD_LEN]) -> Self {
        let [p0, p1, p2, p3, k0, k1, h0, h1, t0, t1, t2, t3] = head;
        Self {
            payload_len: usize::try_from(u32::from_be_bytes([p0, p1, p2, p3])).unwrap_or(usize::MAX),
            key_len: usize::from(u16::from_be_bytes([k0, k1])),
            headers_len: usize::from(u16::from_be_bytes([h0, h1])),
            time_delta_ms: i32::from_be_bytes([t0, t1, t2, t3]),
        }
    }
}

/// Where the parts of a record lie in its batch, counted in bytes from the batch's begin.
///
/// ```text
///           key_at   headers_at   payload_at       end
///   +------+--------+------------+----------------+
///   | head | key    | headers    | payload        |
///   +------+--------+------------+----------------+
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RecordSpan {
    /// Milliseconds from the batch's `created_ms` to the moment the message was published.
    pub time_delta_ms: i32,
    key_at: u32,
    headers_at: u32,
    payload_at: u32,
    end: u32,
}

impl RecordSpan {
    /// The key.
    #[must_use]
    pub const fn key(&self) -> Range<usize> {
        self.key_at as usize..self.headers_at as usize
    }

    /// The headers.
    #[must_use]
    pub const fn headers(&self) -> Range<usize> {
        self.headers_at as usize..self.payload_at as usize
    }

    /// The payload.
    #[must_use]
    pub const fn payload(&self) -> Range<usize> {
        self.payload_at as usize..self.end as usize
    }

    /// The record behind this one begins here.
    pub(super) const fn end(&self) -> u32 {
        self.end
    }

    /// The span of the record that begins at `at` in a batch whose records have all been parsed; none at its end.
    pub(super) fn find(batch: &[u8], at: u32) -> Option<Self> {
        let head = RecordHead::decode(*batch.get(at as usize..)?.first_chunk()?);
        let key_at = at.checked_add(u32::try_from(RECORD_HEAD_LEN).ok()?)?;
        let headers_at = key_at.checked_add(u32::try_from(head.key_len).ok()?)?;
        let payload_at = headers_at.checked_add(u32::try_from(head.headers_len).ok()?)?;
        let end = payload_at.checked_add(u32::try_from(head.payload_len).ok()?)?;
        (end as usize <= batch.len()).then_some(Self {
            time_delta_ms: head.time_delta_ms,
            key_at,
            headers_at,
            payload_at,
            end,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::{Headers, HeadersBuf, Record, Records};
    use super::*;

    #[test]
    fn spans_are_where_the_records_are() {
        let headers = HeadersBuf::new([("a", &b"1"[..])]).unwrap();
        let mut bytes = vec![0xee; 7];
        for (key, payload) in [(&b"k"[..], &b"payload"[..]), (b"", b""), (b"key", b"p")] {
            Record { time_delta_ms: -2, key, headers: headers.headers(), payload }
                .encode(&mut bytes)
                .unwrap();
        }
        let mut at = 7;
        for record in Records::new(&bytes[7..]) {
            let record = record.unwrap();
            let span = RecordSpan::find(&bytes, at).unwrap();
            assert_eq!(&bytes[span.key()], record.key);
            assert_eq!(&bytes[span.headers()], record.headers.encoded());
            assert_eq!(&bytes[span.payload()], record.payload);
            assert_eq!(span.time_delta_ms, record.time_delta_ms);
            at = span.end;
        }
        assert_eq!(at as usize, bytes.len());
        assert_eq!(RecordSpan::find(&bytes, at), None);
    }

    #[test]
    fn nothing_is_found_outside_the_batch() {
        let mut bytes = Vec::new();
        let record = Record { time_delta_ms: 0, key: b"", headers: Headers::NONE, payload: b"12" };
        record.encode(&mut bytes).unwrap();
        for len in 0..bytes.len() {
            assert_eq!(RecordSpan::find(&bytes[..len], 0), None, "cut at {len}");
        }
        assert_eq!(RecordSpan::find(&bytes, u32::MAX), None);
        bytes[..4].fill(0xff);
        assert_eq!(RecordSpan::find(&bytes, 0), None, "a length that lies");
    }
}
