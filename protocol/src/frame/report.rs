//! What RESULT tells of streams, consumers and the broker.

use std::num::NonZeroU64;

use bytes::BytesMut;

use crate::batch::accept::Durability;
use crate::ids::StreamId;
use crate::limits::{CONTROL_FRAME_BYTES_MAX, REASON_BYTES_MAX, STREAM_FILTERS_MAX, TOPIC_BYTES_MAX};
use crate::policy::Name;
use crate::stream_name::StreamName;
use crate::topic::TopicFilter;
use crate::wire::{DecodeError, Reader, Write};

use super::codec::{PayloadError, decode_count};
use super::consume::decode_name;
use super::replay::{decode_filter, decode_stream, encode_filter};

/// Bytes of a list in one RESULT; the frame's limit less its fixed fields.
const LIST_BYTES_MAX: usize = CONTROL_FRAME_BYTES_MAX - 64;

/// Whether a list goes on behind what was told of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum More {
    /// This was the end of it.
    No,
    /// Ask again, with the name of the last one.
    Yes,
}

/// Something that RESULT lists.
pub(super) trait Listed: Sized {
    fn encode(&self, out: &mut BytesMut);
    fn decode(reader: &mut Reader<'_>) -> Result<Self, PayloadError>;
}

/// As many as one RESULT holds, from the front.
pub(super) fn page_of<T: Listed>(all: impl IntoIterator<Item = T>) -> (Vec<T>, More) {
    let mut encoded = BytesMut::new();
    let mut page = Vec::new();
    for item in all {
        item.encode(&mut encoded);
        if encoded.len() > LIST_BYTES_MAX || page.len() == usize::from(u16::MAX) {
            return (page, More::Yes);
        }
        page.push(item);
    }
    (page, More::No)
}

/// Whether there is more, a zero byte, the number, and so many items.
pub(super) fn encode_list<T: Listed>(items: &[T], more: More, out: &mut BytesMut) {
    out.u8(match more {
        More::No => 0,
        More::Yes => 1,
    });
    out.u8(0);
    out.u16(u16::try_from(items.len()).expect("a page is within its limit"));
    items.iter().for_each(|item| item.encode(out));
}

pub(super) fn decode_list<T: Listed>(reader: &mut Reader<'_>) -> Result<(Vec<T>, More), PayloadError> {
    let more = match reader.u8("more")? {
        0 => More::No,
        1 => More::Yes,
        _ => return Err(DecodeError::Value { field: "more" }.into()),
    };
    reader.zeros("zero", 1)?;
    // No memory is set aside by the number: an item has a hundred bytes, and they may not be there.
    let items = (0..reader.u16("items")?).map(|_| T::decode(reader)).collect::<Result<_, _>>()?;
    Ok((items, more))
}

/// Whether a stream takes what is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamHealth {
    /// It does.
    Open,
    /// The disk has no room; it will when there is.
    Full,
    /// Not until the broker is started again.
    Stopped,
}

/// How long a stream keeps what it has. What is none is not a reason to drop anything.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RetentionInfo {
    /// Milliseconds.
    pub age_ms: Option<NonZeroU64>,
    /// Bytes on the disk.
    pub bytes: Option<NonZeroU64>,
    /// Messages.
    pub messages: Option<NonZeroU64>,
}

/// One stream.
///
/// ```text
///   u16 len, name | stream_id (16) | u16 n, n x: u16 len, filter | durability u8 | state u8 | zero (2)
///   u16 len, reason | first u64 | end u64 | records u64 | bytes u64 | segments u32 | damaged u32
///   checkpoint_size u64 | checkpoint_root (32) | age_ms u64 | bytes u64 | messages u64 | consumers u32
/// ```
///
/// `durability` as in ACK; `state` 1 open, 2 full, 3 stopped; a retention of 0 is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamInfo {
    /// What it is called.
    pub name: StreamName,
    /// What it is called in digests and leaves.
    pub id: StreamId,
    /// What it keeps.
    pub topics: Vec<TopicFilter>,
    /// How durable an acknowledged batch is.
    pub durability: Durability,
    /// Whether it takes what is published.
    pub health: StreamHealth,
    /// Why not; empty when it does.
    pub reason: String,
    /// The oldest offset that is kept.
    pub first: u64,
    /// The offset that the next message will have.
    pub end: u64,
    /// Batches that were ever stored: the leaves of its Merkle log.
    pub records: u64,
    /// Bytes on the disk.
    pub bytes: u64,
    /// Files.
    pub segments: u32,
    /// Ranges of offsets that can no longer be read.
    pub damaged: u32,
    /// Leaves of the newest checkpoint; 0 before the first.
    pub checkpoint_size: u64,
    /// Its root; zero before the first.
    pub checkpoint_root: [u8; 32],
    /// How long it keeps what it has.
    pub retention: RetentionInfo,
    /// Durable consumers that read it.
    pub consumers: u32,
}

impl Listed for StreamInfo {
    fn encode(&self, out: &mut BytesMut) {
        assert!(self.topics.len() <= STREAM_FILTERS_MAX, "a policy bounds the filters of a stream");
        out.bytes16(self.name.to_string().as_bytes());
        out.raw(self.id.as_bytes());
        out.u16(u16::try_from(self.topics.len()).expect("filters are within their limit"));
        self.topics.iter().for_each(|filter| out.bytes16(filter.as_str().as_bytes()));
        out.u8(self.durability as u8);
        out.u8(match self.health {
            StreamHealth::Open => 1,
            StreamHealth::Full => 2,
            StreamHealth::Stopped => 3,
        });
        out.u16(0);
        out.bytes16(&self.reason.as_bytes()[..self.reason.floor_char_boundary(REASON_BYTES_MAX)]);
        [self.first, self.end, self.records, self.bytes].into_iter().for_each(|number| out.u64(number));
        out.u32(self.segments);
        out.u32(self.damaged);
        out.u64(self.checkpoint_size);
        out.raw(&self.checkpoint_root);
        let RetentionInfo { age_ms, bytes, messages } = self.retention;
        [age_ms, bytes, messages].into_iter().for_each(|limit| out.u64(limit.map_or(0, NonZeroU64::get)));
        out.u32(self.consumers);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, PayloadError> {
        Ok(Self {
            name: decode_stream(reader)?,
            id: StreamId::new(reader.array("stream_id")?),
            topics: decode_topics(reader)?,
            durability: Durability::from_wire(reader.u8("durability")?)
                .ok_or(DecodeError::Value { field: "durability" })?,
            health: match reader.u8("state")? {
                1 => StreamHealth::Open,
                2 => StreamHealth::Full,
                3 => StreamHealth::Stopped,
                _ => return Err(DecodeError::Value { field: "state" }.into()),
            },
            reason: {
                reader.zeros("zero", 2)?;
                reader.text16("reason", REASON_BYTES_MAX)?.to_owned()
            },
            first: reader.u64("first")?,
            end: reader.u64("end")?,
            records: reader.u64("records")?,
            bytes: reader.u64("bytes")?,
            segments: reader.u32("segments")?,
            damaged: reader.u32("damaged")?,
            checkpoint_size: reader.u64("checkpoint_size")?,
            checkpoint_root: reader.array("checkpoint_root")?,
            retention: RetentionInfo {
                age_ms: NonZeroU64::new(reader.u64("age_ms")?),
                bytes: NonZeroU64::new(reader.u64("bytes")?),
                messages: NonZeroU64::new(reader.u64("messages")?),
            },
            consumers: reader.u32("consumers")?,
        })
    }
}

fn decode_topics(reader: &mut Reader<'_>) -> Result<Vec<TopicFilter>, PayloadError> {
    let count = decode_count(reader, "topics", STREAM_FILTERS_MAX)?;
    let mut topics = Vec::with_capacity(count);
    for _ in 0..count {
        let text = reader.text16("filter", TOPIC_BYTES_MAX)?;
        topics.push(TopicFilter::parse(text).map_err(|_| PayloadError::Name("filter"))?);
    }
    Ok(topics)
}

/// One durable consumer.
///
/// ```text
///   u16 len, stream | u16 len, consumer | u16 len, filter (empty: everything) | position u64 | end u64
///   unacknowledged u32 | redelivering u32 | members u32 | lag u64 | delivered u64 | acknowledged u64 | dead u64
///   ack_wait_ms u32 | max_deliver u32 (0: without limit) | unacknowledged_max u32
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerInfo {
    /// The stream that it reads.
    pub stream: Name,
    /// What it is called.
    pub name: Name,
    /// What it wants of the stream; none for everything.
    pub filter: Option<TopicFilter>,
    /// Everything below this offset is settled.
    pub position: u64,
    /// End of the stream.
    pub end: u64,
    /// Messages that are given out and not settled.
    pub unacknowledged: u32,
    /// Messages that wait to be given out again.
    pub redelivering: u32,
    /// Sessions that have joined it.
    pub members: u32,
    /// Messages that are not settled.
    pub lag: u64,
    /// Messages given out, each time counted.
    pub delivered: u64,
    /// Messages acknowledged.
    pub acknowledged: u64,
    /// Messages given up on.
    pub dead: u64,
    /// Milliseconds until an unacknowledged delivery is given out again.
    pub ack_wait_ms: u32,
    /// Deliveries of one message before it becomes a dead letter; 0 without a limit.
    pub max_deliver: u32,
    /// Messages that may be unacknowledged at a time.
    pub unacknowledged_max: u32,
}

impl Listed for ConsumerInfo {
    fn encode(&self, out: &mut BytesMut) {
        out.bytes16(self.stream.as_str().as_bytes());
        out.bytes16(self.name.as_str().as_bytes());
        encode_filter(self.filter.as_ref(), out);
        out.u64(self.position);
        out.u64(self.end);
        [self.unacknowledged, self.redelivering, self.members].into_iter().for_each(|number| out.u32(number));
        [self.lag, self.delivered, self.acknowledged, self.dead]
            .into_iter()
            .for_each(|number| out.u64(number));
        [self.ack_wait_ms, self.max_deliver, self.unacknowledged_max]
            .into_iter()
            .for_each(|number| out.u32(number));
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, PayloadError> {
        Ok(Self {
            stream: decode_name(reader, "stream")?,
            name: decode_name(reader, "consumer")?,
            filter: decode_filter(reader)?,
            position: reader.u64("position")?,
            end: reader.u64("end")?,
            unacknowledged: reader.u32("unacknowledged")?,
            redelivering: reader.u32("redelivering")?,
            members: reader.u32("members")?,
            lag: reader.u64("lag")?,
            delivered: reader.u64("delivered")?,
            acknowledged: reader.u64("acknowledged")?,
            dead: reader.u64("dead")?,
            ack_wait_ms: reader.u32("ack_wait_ms")?,
            max_deliver: reader.u32("max_deliver")?,
            unacknowledged_max: reader.u32("unacknowledged_max")?,
        })
    }
}

/// The broker, since its start.
///
/// ```text
///   uptime_ms u64 | sessions u32 | subscriptions u32 | streams u32 | consumers u32
///   published u64 | published_bytes u64 | delivered u64 | acknowledged_batches u64 | refused u64
///   disk_free u64 | disk_reserve u64 | data_bytes u64 | audit_lines u64
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BrokerStats {
    /// Milliseconds since it was started.
    pub uptime_ms: u64,
    /// Connections that are served.
    pub sessions: u32,
    /// Subscriptions, replays and consumers' members among them.
    pub subscriptions: u32,
    /// Streams.
    pub streams: u32,
    /// Durable consumers.
    pub consumers: u32,
    /// Messages accepted.
    pub published: u64,
    /// Bytes of their batches.
    pub published_bytes: u64,
    /// Messages delivered.
    pub delivered: u64,
    /// Batches acknowledged to their producers.
    pub acknowledged_batches: u64,
    /// Requests refused.
    pub refused: u64,
    /// Bytes that the disk has left for the broker.
    pub disk_free: u64,
    /// Bytes of it that are kept for what must go on when it is full.
    pub disk_reserve: u64,
    /// Bytes of the streams.
    pub data_bytes: u64,
    /// Lines of the audit log.
    pub audit_lines: u64,
}

impl BrokerStats {
    pub(super) fn encode(&self, out: &mut BytesMut) {
        out.u64(self.uptime_ms);
        [self.sessions, self.subscriptions, self.streams, self.consumers]
            .into_iter()
            .for_each(|number| out.u32(number));
        [self.published, self.published_bytes, self.delivered, self.acknowledged_batches, self.refused]
            .into_iter()
            .for_each(|number| out.u64(number));
        [self.disk_free, self.disk_reserve, self.data_bytes, self.audit_lines]
            .into_iter()
            .for_each(|number| out.u64(number));
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            uptime_ms: reader.u64("uptime_ms")?,
            sessions: reader.u32("sessions")?,
            subscriptions: reader.u32("subscriptions")?,
            streams: reader.u32("streams")?,
            consumers: reader.u32("consumers")?,
            published: reader.u64("published")?,
            published_bytes: reader.u64("published_bytes")?,
            delivered: reader.u64("delivered")?,
            acknowledged_batches: reader.u64("acknowledged_batches")?,
            refused: reader.u64("refused")?,
            disk_free: reader.u64("disk_free")?,
            disk_reserve: reader.u64("disk_reserve")?,
            data_bytes: reader.u64("data_bytes")?,
            audit_lines: reader.u64("audit_lines")?,
        })
    }
}
