//! DELIVER, LAGGED and SKIPPED: how batches get out, and what is said of those that do not.

use std::num::NonZeroU32;

use bytes::{Bytes, BytesMut};

use crate::ids::StreamId;
use crate::limits::{BATCH_MESSAGES_MAX, RANGES_MAX, TOPIC_BYTES_MAX};
use crate::topic::Topic;
use crate::wire::{DecodeError, Reader, Write};

use super::codec::{Frame, PayloadError, decode_count, decode_offset, encode_offset, no_flags, rest_of};
use super::header::FrameType;
use super::names::{Alias, SubscriptionId};

const FLAG_NAMES_TOPIC: u8 = 1;
const FLAG_STORED: u8 = 2;
const FLAG_RANGES: u8 = 4;
const FLAGS_KNOWN: u8 = FLAG_NAMES_TOPIC | FLAG_STORED | FLAG_RANGES;

/// What a delivery alias stands for: a topic within the stream that its producer signed it for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct StreamTopic {
    /// The topic.
    pub topic: Topic,
    /// The stream that goes into the topic's digest; zero when the topic is live only.
    pub stream: StreamId,
}

impl From<Topic> for StreamTopic {
    fn from(topic: Topic) -> Self {
        Self { topic, stream: StreamId::ZERO }
    }
}

/// What the broker signed of a stored batch, in the leaf of the stream's Merkle log, beside its offset and time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredAt {
    /// The policy that it was accepted under.
    pub policy_version: u64,
    /// Its leaf.
    pub leaf_index: u64,
}

/// Records of a batch that follow each other and have been delivered equally often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordRange {
    /// The first record, from 0.
    pub first: u32,
    /// How many.
    pub count: NonZeroU32,
    /// How often they have been delivered, this time included.
    pub deliveries: NonZeroU32,
}

/// Carries a batch to a subscriber.
///
/// ```text
///   0                 4       8        16
///   +-----------------+-------+--------+-----------+---------------------------------+-----------------------------+
///   | subscription id | alias | offset | broker_ms | u16 len, topic | stream_id (16) | policy_version | leaf_index |
///   +-----------------+-------+--------+-----------+---------------------------------+-----------------------------+
///                               as ACK               flag 1: what the alias is         flag 2: it is stored
///   +---------------------------------------------+-----------+
///   | u16 n, n x: first u32|count u32|deliveries  | batch ... |
///   +---------------------------------------------+-----------+
///     flag 4: only these records are handed out
/// ```
///
/// Flag 1 gives the alias its topic and stream, from this frame on; an alias may be given anew. Both are compared with
/// the digest that the producer signed, so a broker cannot pass a batch off as another topic's. Flag 2: the batch is
/// kept in a stream, and has an offset; `broker_ms` is the time in its leaf. Flag 4: the subscription is one of a
/// durable consumer, or reads dead letters; it needs flag 2. The ranges are in order and do not touch the same record
/// twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deliver {
    /// The subscription that wanted it.
    pub subscription: SubscriptionId,
    /// Stands for topic and stream.
    pub alias: Alias,
    /// Offset of its first message in its stream; none when it is live only.
    pub offset: Option<u64>,
    /// The broker's clock when it was accepted, milliseconds since 1970.
    pub broker_ms: u64,
    /// Topic and stream, when the alias is given with this frame.
    pub topic: Option<StreamTopic>,
    /// What its leaf says of it; none when it is live only.
    pub stored: Option<StoredAt>,
    /// The records to hand out, from 1 to [`RANGES_MAX`] ranges; none for all of them.
    pub ranges: Option<Vec<RecordRange>>,
    /// The batch, as its producer sent it.
    pub batch: Bytes,
}

impl Frame for Deliver {
    const KIND: FrameType = FrameType::Deliver;

    fn flags(&self) -> u8 {
        let flag = |is_set, flag| if is_set { flag } else { 0 };
        flag(self.topic.is_some(), FLAG_NAMES_TOPIC)
            | flag(self.stored.is_some(), FLAG_STORED)
            | flag(self.ranges.is_some(), FLAG_RANGES)
    }

    fn encode_payload(&self, out: &mut BytesMut) {
        assert!(self.stored.is_none() || self.offset.is_some(), "what is stored has an offset");
        assert!(self.ranges.is_none() || self.stored.is_some(), "ranges are of what is stored");
        out.u32(self.subscription.0);
        out.u32(self.alias.0);
        out.u64(encode_offset(self.offset));
        out.u64(self.broker_ms);
        if let Some(named) = &self.topic {
            out.bytes16(named.topic.as_str().as_bytes());
            out.raw(named.stream.as_bytes());
        }
        if let Some(stored) = &self.stored {
            out.u64(stored.policy_version);
            out.u64(stored.leaf_index);
        }
        if let Some(ranges) = &self.ranges {
            assert!((1..=RANGES_MAX).contains(&ranges.len()), "DELIVER is built within its limit");
            out.u16(u16::try_from(ranges.len()).expect("ranges are within their limit"));
            for range in ranges {
                out.u32(range.first);
                out.u32(range.count.get());
                out.u32(range.deliveries.get());
            }
        }
    }

    fn batch(&self) -> Option<&Bytes> {
        Some(&self.batch)
    }

    fn decode_payload(flags: u8, payload: &Bytes) -> Result<Self, PayloadError> {
        let has = |flag| flags & flag != 0;
        if flags & !FLAGS_KNOWN != 0 || has(FLAG_RANGES) && !has(FLAG_STORED) {
            return Err(PayloadError::Flags);
        }
        let mut reader = Reader::new(payload);
        let subscription = SubscriptionId(reader.u32("subscription id")?);
        let alias = Alias(reader.u32("alias")?);
        let offset = decode_offset(reader.u64("offset")?);
        if has(FLAG_STORED) && offset.is_none() {
            return Err(DecodeError::Value { field: "offset" }.into());
        }
        let broker_ms = reader.u64("broker_ms")?;
        let topic = has(FLAG_NAMES_TOPIC).then(|| decode_topic(&mut reader)).transpose()?;
        let stored = has(FLAG_STORED).then(|| decode_stored(&mut reader)).transpose()?;
        let ranges = has(FLAG_RANGES).then(|| decode_ranges(&mut reader)).transpose()?;
        let batch = rest_of(payload, &reader);
        Ok(Self { subscription, alias, offset, broker_ms, topic, stored, ranges, batch })
    }
}

fn decode_topic(reader: &mut Reader<'_>) -> Result<StreamTopic, PayloadError> {
    let name = reader.text16("topic", TOPIC_BYTES_MAX)?;
    let topic = Topic::parse(name).map_err(|_| PayloadError::Name("topic"))?;
    Ok(StreamTopic { topic, stream: StreamId::new(reader.array("stream_id")?) })
}

fn decode_stored(reader: &mut Reader<'_>) -> Result<StoredAt, DecodeError> {
    Ok(StoredAt { policy_version: reader.u64("policy_version")?, leaf_index: reader.u64("leaf_index")? })
}

/// That a range lies within the batch shows when the batch is decoded; here, that it lies within the largest.
fn decode_ranges(reader: &mut Reader<'_>) -> Result<Vec<RecordRange>, DecodeError> {
    let not_zero = |value, field| NonZeroU32::new(value).ok_or(DecodeError::Value { field });
    let count = decode_count(reader, "ranges", RANGES_MAX)?;
    if count == 0 {
        return Err(DecodeError::Value { field: "ranges" });
    }
    let mut ranges = Vec::with_capacity(count);
    let mut end = 0;
    for _ in 0..count {
        let range = RecordRange {
            first: reader.u32("first")?,
            count: not_zero(reader.u32("count")?, "count")?,
            deliveries: not_zero(reader.u32("deliveries")?, "deliveries")?,
        };
        let next = range.first.checked_add(range.count.get()).filter(|next| *next <= BATCH_MESSAGES_MAX);
        match next {
            Some(next) if range.first >= end => end = next,
            Some(_) | None => return Err(DecodeError::Value { field: "ranges" }),
        }
        ranges.push(range);
    }
    Ok(ranges)
}

/// Says exactly how many messages a subscriber lost because it was slow. Stands where they would have.
///
/// ```text
///   0                 4
///   +-----------------+--------+
///   | subscription id | missed |
///   +-----------------+--------+
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lagged {
    /// The subscription.
    pub subscription: SubscriptionId,
    /// Messages that were not delivered; at least 1.
    pub missed: u64,
}

impl Frame for Lagged {
    const KIND: FrameType = FrameType::Lagged;

    fn encode_payload(&self, out: &mut BytesMut) {
        out.u32(self.subscription.0);
        out.u64(self.missed);
    }

    fn decode_payload(flags: u8, payload: &Bytes) -> Result<Self, PayloadError> {
        no_flags(flags)?;
        let mut reader = Reader::new(payload);
        let subscription = SubscriptionId(reader.u32("subscription id")?);
        let missed = reader.u64("missed")?;
        reader.finish()?;
        if missed == 0 {
            return Err(DecodeError::Value { field: "missed" }.into());
        }
        Ok(Self { subscription, missed })
    }
}

/// Why offsets do not come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SkippedWhy {
    /// They are older than the stream keeps.
    Trimmed,
    /// What was stored there can no longer be read as it was written.
    Damaged,
    /// A right was withdrawn: the reader's, while it was reading, and CLOSED follows; or that of their producer, which
    /// is revoked as from a moment before they were stored.
    Withdrawn,
}

/// Says which offsets of a stream a replay or durable consumer does not get. Stands where they would have.
///
/// ```text
///   0                 4          8      16
///   +-----------------+----------+------+----+
///   | subscription id | why, u32 | from | to |   from `from` up to, but not including, `to`
///   +-----------------+----------+------+----+
///                       1 trimmed   2 damaged   3 withdrawn
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Skipped {
    /// The subscription.
    pub subscription: SubscriptionId,
    /// Why.
    pub why: SkippedWhy,
    /// The first offset that does not come.
    pub from: u64,
    /// The first after it that does; greater than `from`.
    pub to: u64,
}

impl Frame for Skipped {
    const KIND: FrameType = FrameType::Skipped;

    fn encode_payload(&self, out: &mut BytesMut) {
        out.u32(self.subscription.0);
        out.u32(match self.why {
            SkippedWhy::Trimmed => 1,
            SkippedWhy::Damaged => 2,
            SkippedWhy::Withdrawn => 3,
        });
        out.u64(self.from);
        out.u64(self.to);
    }

    fn decode_payload(flags: u8, payload: &Bytes) -> Result<Self, PayloadError> {
        no_flags(flags)?;
        let mut reader = Reader::new(payload);
        let subscription = SubscriptionId(reader.u32("subscription id")?);
        let why = match reader.u32("why")? {
            1 => SkippedWhy::Trimmed,
            2 => SkippedWhy::Damaged,
            3 => SkippedWhy::Withdrawn,
            _ => return Err(DecodeError::Value { field: "why" }.into()),
        };
        let from = reader.u64("from")?;
        let to = reader.u64("to")?;
        reader.finish()?;
        if from >= to {
            return Err(DecodeError::Value { field: "to" }.into());
        }
        Ok(Self { subscription, why, from, to })
    }
}
