//! REPLAY: a stream's history, and then what follows it.

use bytes::{Bytes, BytesMut};

use crate::limits::{STREAM_NAME_BYTES_MAX, TOPIC_BYTES_MAX};
use crate::stream_name::StreamName;
use crate::topic::TopicFilter;
use crate::wire::{DecodeError, Reader, Write};

use super::codec::{Frame, PayloadError, no_flags};
use super::header::FrameType;
use super::names::{RequestId, SubscriptionId};

/// Where reading of a stream begins. What has been trimmed meanwhile is reported by SKIPPED.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Start {
    /// The oldest message that is kept.
    Earliest,
    /// This offset.
    Offset(u64),
    /// The first message that was stored at this moment or later, milliseconds since 1970.
    Time(u64),
    /// So many messages before the end of this moment, as far as they are kept.
    Last(u64),
    /// What follows from now on.
    End,
}

impl Start {
    /// The kind and the value, which stand apart from each other in the frames.
    pub(super) const fn wire(self) -> (u8, u64) {
        match self {
            Self::Earliest => (1, 0),
            Self::Offset(offset) => (2, offset),
            Self::Time(time_ms) => (3, time_ms),
            Self::Last(messages) => (4, messages),
            Self::End => (5, 0),
        }
    }

    pub(super) const fn from_wire(kind: u8, value: u64) -> Result<Self, DecodeError> {
        match (kind, value) {
            (1, 0) => Ok(Self::Earliest),
            (2, offset) => Ok(Self::Offset(offset)),
            (3, time_ms) => Ok(Self::Time(time_ms)),
            (4, messages) => Ok(Self::Last(messages)),
            (5, 0) => Ok(Self::End),
            _ => Err(DecodeError::Value { field: "from" }),
        }
    }
}

/// Where a replay ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Until {
    /// It goes on with what is stored later, until it is closed.
    Live,
    /// At the end that the stream had when the replay began; the broker closes it there.
    End,
}

/// Asks for a stream's messages from a place on.
///
/// ```text
///   0            4                 8              16     17      18     20      28
///   +------------+-----------------+--------------+------+-------+------+-------+----------------------+-----------------+
///   | request id | subscription id | credit, bytes | from | until | zero | value | u16 len, stream name | u16 len, filter |
///   +------------+-----------------+--------------+------+-------+------+-------+----------------------+-----------------+
///     from   1 earliest   2 offset   3 time, ms   4 last so many   5 end        value: zero for 1 and 5
///     until  0 goes on live   1 stops at the end of this moment                 filter: empty for everything
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replay {
    /// Names this request.
    pub request: RequestId,
    /// Names the subscription, from here to CLOSED.
    pub subscription: SubscriptionId,
    /// Bytes of batches that may be delivered before more credit comes.
    pub credit_bytes: u64,
    /// Where it begins.
    pub from: Start,
    /// Where it ends.
    pub until: Until,
    /// The stream.
    pub stream: StreamName,
    /// What is wanted of it; none for everything.
    pub filter: Option<TopicFilter>,
}

impl Frame for Replay {
    const KIND: FrameType = FrameType::Replay;

    fn encode_payload(&self, out: &mut BytesMut) {
        let (from, value) = self.from.wire();
        out.u32(self.request.0);
        out.u32(self.subscription.0);
        out.u64(self.credit_bytes);
        out.u8(from);
        out.u8(match self.until {
            Until::Live => 0,
            Until::End => 1,
        });
        out.u16(0);
        out.u64(value);
        out.bytes16(self.stream.to_string().as_bytes());
        encode_filter(self.filter.as_ref(), out);
    }

    fn decode_payload(flags: u8, payload: &Bytes) -> Result<Self, PayloadError> {
        no_flags(flags)?;
        let mut reader = Reader::new(payload);
        let request = RequestId(reader.u32("request id")?);
        let subscription = SubscriptionId(reader.u32("subscription id")?);
        let credit_bytes = reader.u64("credit")?;
        let from = reader.u8("from")?;
        let until = match reader.u8("until")? {
            0 => Until::Live,
            1 => Until::End,
            _ => return Err(DecodeError::Value { field: "until" }.into()),
        };
        reader.zeros("zero", 2)?;
        let from = Start::from_wire(from, reader.u64("value")?)?;
        let stream = decode_stream(&mut reader)?;
        let filter = decode_filter(&mut reader)?;
        reader.finish()?;
        Ok(Self { request, subscription, credit_bytes, from, until, stream, filter })
    }
}

/// A stream's name behind its length.
pub(super) fn decode_stream(reader: &mut Reader<'_>) -> Result<StreamName, PayloadError> {
    StreamName::parse(reader.text16("stream", STREAM_NAME_BYTES_MAX)?)
        .map_err(|_| PayloadError::Name("stream"))
}

/// A filter behind its length, which is zero for everything.
pub(super) fn encode_filter(filter: Option<&TopicFilter>, out: &mut BytesMut) {
    out.bytes16(filter.map_or("", TopicFilter::as_str).as_bytes());
}

pub(super) fn decode_filter(reader: &mut Reader<'_>) -> Result<Option<TopicFilter>, PayloadError> {
    match reader.text16("filter", TOPIC_BYTES_MAX)? {
        "" => Ok(None),
        text => TopicFilter::parse(text).map(Some).map_err(|_| PayloadError::Name("filter")),
    }
}
