//! The stored form of a batch and of a dead letter: what stands in a frame's payload.
//!
//! ```text
//!   kind 1, a batch (flag 1: its producer's instance id is configured)
//!   0                8         16        18
//!   +----------------+---------+---------+-------+-------------------------------+
//!   | policy_version | binding | len u16 | topic | preamble | signature | body   |
//!   +----------------+---------+---------+-------+-------------------------------+
//!
//!   kind 2, a dead letter (flags as above)
//!   0               8           16               24           32        40      42
//!   +---------------+-----------+----------------+------------+---------+-------+----------------------------------+
//!   | origin offset | append_ms | policy_version | leaf_index | binding | n u16 | n x (first, count, deliveries)   |
//!   +---------------+-----------+----------------+------------+---------+-------+----------------------------------+
//!   | len u16 | topic | preamble | signature | body  |
//!   +---------+-------+-------------------------------+
//! ```
//!
//! All numbers are big-endian; `binding` is a record of `$keys`. The frame's own fields say the rest: `count` is the
//! offsets that it takes, `time_ms` when it was appended. A record whose fields contradict its frame is damaged.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use sealbus_protocol::batch::{Batch, HEAD_LEN, PREAMBLE_LEN};
use sealbus_protocol::frame::InstanceKind;
use sealbus_protocol::ids::{BusId, StreamId};
use sealbus_protocol::keys::SIGNATURE_LEN;
use sealbus_protocol::limits::{BATCH_BYTES_MAX, BATCH_MESSAGES_MAX, TOPIC_BYTES_MAX};
use sealbus_protocol::tlog::{Hash, LeafFields, leaf_hash};
use sealbus_protocol::topic::Topic;
use sealbus_protocol::wire::{DecodeError, Reader, Write as _};

use super::store::{DeadRange, Origin, Stored};
use crate::storage::log::{FrameView, OwnedFrame};

/// A frame that holds a batch.
pub const KIND_BATCH: u8 = 1;

/// A frame that holds a dead letter.
pub const KIND_DEAD_LETTER: u8 = 2;

/// The producer's instance id is configured.
const FLAG_CONFIGURED: u8 = 1;

/// Ranges of one dead letter: a batch whose every second record failed has more, and gets a second letter.
pub const DEAD_RANGES_MAX: usize = 4_096;

/// Where `count` stands in a preamble, and where `body_len` does.
const PREAMBLE_COUNT: Range<usize> = 144..148;
const PREAMBLE_BODY_LEN: Range<usize> = 148..152;

/// A record to append.
#[derive(Debug, Clone)]
pub struct NewRecord {
    /// The batch's topic.
    pub topic: Topic,
    /// The record of `$keys` that holds its producer's binding.
    pub key_record: u64,
    /// Whether its producer's instance id is configured.
    pub instance_kind: InstanceKind,
    /// The policy in force. One below that of the last record is raised to it.
    pub policy_version: u64,
    /// Offsets that it takes.
    pub messages: u32,
    /// The batch, which has passed every check.
    pub batch: Bytes,
    /// Where a dead letter comes from.
    pub origin: Option<Arc<Origin>>,
    /// The clock when it came. One before the last record's is raised to it.
    pub now_ms: u64,
}

impl NewRecord {
    /// A batch as its producer signed it.
    #[must_use]
    pub fn of_batch(
        batch: &Batch,
        topic: Topic,
        key_record: u64,
        instance_kind: InstanceKind,
        policy_version: u64,
        now_ms: u64,
    ) -> Self {
        let messages = batch.preamble().content.messages();
        let batch = batch.bytes().clone();
        Self { topic, key_record, instance_kind, policy_version, messages, batch, origin: None, now_ms }
    }
}

/// Why a frame's payload is no stored batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordError {
    /// Its kind is not known.
    Kind(u8),
    /// A flag of it is not known.
    Flags(u8),
    /// A field is missing or wrong.
    Field(DecodeError),
    /// The batch is shorter than a head, longer than a batch, or of another length than its head says.
    BatchLength(usize),
    /// The frame takes another number of offsets than its batch has messages.
    Count {
        /// Offsets of the frame.
        frame: u32,
        /// Messages that the record holds or hands over.
        record: u64,
    },
    /// The ranges of a dead letter are empty, out of order or beyond the batch.
    Ranges,
}

impl fmt::Display for RecordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kind(kind) => write!(f, "a record of kind {kind} is not known to this version"),
            Self::Flags(flags) => write!(f, "record flags {flags:#04x} are not known to this version"),
            Self::Field(error) => error.fmt(f),
            Self::BatchLength(len) => write!(f, "a batch of {len} bytes"),
            Self::Count { frame, record } => {
                write!(f, "the frame takes {frame} offsets, its record holds {record} messages")
            }
            Self::Ranges => f.write_str("the ranges of a dead letter are empty, out of order or too long"),
        }
    }
}

impl std::error::Error for RecordError {}

impl From<DecodeError> for RecordError {
    fn from(error: DecodeError) -> Self {
        Self::Field(error)
    }
}

/// The parts of a frame before the batch's own bytes, which are written as they are.
#[derive(Debug)]
pub(super) struct RecordHead {
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) bytes: Vec<u8>,
}

/// Encodes what stands before the batch.
pub(super) fn encode_head(stored: &Stored) -> RecordHead {
    let flags = match stored.instance_kind {
        InstanceKind::Random => 0,
        InstanceKind::Configured => FLAG_CONFIGURED,
    };
    let mut bytes = Vec::with_capacity(18 + stored.topic.as_str().len());
    let kind = match &stored.origin {
        None => {
            bytes.u64(stored.policy_version);
            bytes.u64(stored.key_record);
            KIND_BATCH
        }
        Some(origin) => {
            bytes.u64(origin.offset);
            bytes.u64(origin.append_ms);
            bytes.u64(origin.policy_version);
            bytes.u64(origin.leaf_index);
            bytes.u64(stored.key_record);
            assert!(origin.ranges.len() <= DEAD_RANGES_MAX, "the ranges were checked when they came");
            bytes.u16(u16::try_from(origin.ranges.len()).expect("ranges are bounded by their limit"));
            for range in &origin.ranges {
                bytes.u32(range.first);
                bytes.u32(range.count);
                bytes.u32(range.deliveries);
            }
            KIND_DEAD_LETTER
        }
    };
    bytes.bytes16(stored.topic.as_str().as_bytes());
    RecordHead { kind, flags, bytes }
}

/// Decodes a whole frame; the batch shares the frame's bytes.
///
/// # Errors
/// [`RecordError`] when the payload is no stored batch.
pub fn decode(frame: &OwnedFrame) -> Result<Stored, RecordError> {
    let view = FrameView {
        kind: frame.kind,
        flags: frame.flags,
        count: frame.count,
        offset: frame.offset,
        record: frame.record,
        synced: frame.synced,
        time_ms: frame.time_ms,
        payload: &frame.payload,
    };
    let parsed = parse(&view)?;
    // `batch` is the rest of the payload, so that its length says where it begins.
    let at = frame.payload.len().saturating_sub(parsed.batch.len());
    Ok(parsed.into_stored(&view, frame.payload.slice(at..)))
}

/// As [`decode`], of a frame that is only lent: the batch is copied.
///
/// # Errors
/// [`RecordError`] when the payload is no stored batch.
pub fn decode_view(frame: &FrameView<'_>) -> Result<Stored, RecordError> {
    let parsed = parse(frame)?;
    let batch = Bytes::copy_from_slice(parsed.batch);
    Ok(parsed.into_stored(frame, batch))
}

/// The leaf hash of a record. Given to the log, which keeps it for every record, so that a proof outlives the body.
/// A payload that is no batch hashes as bytes that no batch has: nothing proves it to be one.
#[must_use]
pub fn leaf_digest(frame: &FrameView<'_>, bus_id: BusId, stream_id: StreamId) -> [u8; 32] {
    let Ok(parsed) = parse(frame) else {
        return *leaf_hash(b"not a batch").as_bytes();
    };
    *hash_of(parsed.policy_version, parsed.batch, frame, bus_id, stream_id).as_bytes()
}

/// The leaf hash of a stored batch of this stream.
pub(super) fn leaf_of(stored: &Stored, bus_id: BusId, stream_id: StreamId) -> Hash {
    let fields = LeafFields {
        bus_id,
        stream_id,
        base_offset: stored.offset,
        append_ms: stored.append_ms,
        policy_version: stored.policy_version,
    };
    let (preamble, signature) = head_of(&stored.batch);
    fields.leaf_hash(preamble, signature)
}

fn hash_of(
    policy_version: u64,
    batch: &[u8],
    frame: &FrameView<'_>,
    bus_id: BusId,
    stream_id: StreamId,
) -> Hash {
    let fields =
        LeafFields { bus_id, stream_id, base_offset: frame.offset, append_ms: frame.time_ms, policy_version };
    let (preamble, signature) = head_of(batch);
    fields.leaf_hash(preamble, signature)
}

fn head_of(batch: &[u8]) -> (&[u8; PREAMBLE_LEN], &[u8; SIGNATURE_LEN]) {
    let split = batch.split_first_chunk::<PREAMBLE_LEN>();
    let (preamble, rest) = split.expect("a stored batch has a whole head");
    (preamble, rest.first_chunk().expect("a stored batch has a whole head"))
}

struct Parsed<'a> {
    policy_version: u64,
    key_record: u64,
    instance_kind: InstanceKind,
    topic: Topic,
    origin: Option<Origin>,
    batch: &'a [u8],
}

impl Parsed<'_> {
    fn into_stored(self, frame: &FrameView<'_>, batch: Bytes) -> Stored {
        Stored {
            offset: frame.offset,
            leaf_index: frame.record,
            append_ms: frame.time_ms,
            policy_version: self.policy_version,
            key_record: self.key_record,
            topic: self.topic,
            messages: frame.count,
            batch,
            instance_kind: self.instance_kind,
            origin: self.origin.map(Arc::new),
        }
    }
}

fn parse<'a>(frame: &FrameView<'a>) -> Result<Parsed<'a>, RecordError> {
    let instance_kind = match frame.flags {
        0 => InstanceKind::Random,
        FLAG_CONFIGURED => InstanceKind::Configured,
        other => return Err(RecordError::Flags(other)),
    };
    let mut reader = Reader::new(frame.payload);
    let (policy_version, key_record, origin) = match frame.kind {
        KIND_BATCH => (reader.u64("policy_version")?, reader.u64("binding")?, None),
        KIND_DEAD_LETTER => {
            let (origin, key_record) = parse_origin(&mut reader)?;
            (origin.policy_version, key_record, Some(origin))
        }
        other => return Err(RecordError::Kind(other)),
    };
    let topic = Topic::parse(reader.text16("topic", TOPIC_BYTES_MAX)?)
        .map_err(|_| RecordError::Field(DecodeError::Value { field: "topic" }))?;
    let batch = reader.rest();
    if !(HEAD_LEN..=BATCH_BYTES_MAX).contains(&batch.len()) {
        return Err(RecordError::BatchLength(batch.len()));
    }
    let field = |at: Range<usize>| Some(u32::from_be_bytes(batch.get(at)?.try_into().ok()?));
    let messages = field(PREAMBLE_COUNT).expect("a head holds a count");
    let body_len = field(PREAMBLE_BODY_LEN).expect("a head holds a length");
    if usize::try_from(body_len).ok() != batch.len().checked_sub(HEAD_LEN) {
        return Err(RecordError::BatchLength(batch.len()));
    }
    let taken = match &origin {
        None => u64::from(messages),
        Some(origin) => records_of(&origin.ranges, messages).ok_or(RecordError::Ranges)?,
    };
    if taken != u64::from(frame.count) {
        return Err(RecordError::Count { frame: frame.count, record: taken });
    }
    Ok(Parsed { policy_version, key_record, instance_kind, topic, origin, batch })
}

fn parse_origin(reader: &mut Reader<'_>) -> Result<(Origin, u64), RecordError> {
    let offset = reader.u64("origin offset")?;
    let append_ms = reader.u64("append_ms")?;
    let policy_version = reader.u64("policy_version")?;
    let leaf_index = reader.u64("leaf_index")?;
    let key_record = reader.u64("binding")?;
    let found = usize::from(reader.u16("ranges")?);
    if found > DEAD_RANGES_MAX {
        return Err(DecodeError::TooLong { field: "ranges", max: DEAD_RANGES_MAX, found }.into());
    }
    let mut ranges = Vec::with_capacity(found);
    for _ in 0..found {
        ranges.push(DeadRange {
            first: reader.u32("first")?,
            count: reader.u32("count")?,
            deliveries: reader.u32("deliveries")?,
        });
    }
    Ok((Origin { offset, leaf_index, append_ms, policy_version, ranges }, key_record))
}

/// How many records the ranges name; none when they are not in order and within a batch of so many.
pub(super) fn records_of(ranges: &[DeadRange], messages: u32) -> Option<u64> {
    if ranges.is_empty() || ranges.len() > DEAD_RANGES_MAX || messages > BATCH_MESSAGES_MAX {
        return None;
    }
    let mut free_from = 0;
    let mut total = 0_u64;
    for range in ranges {
        let end = range.first.checked_add(range.count)?;
        if range.count == 0 || range.first < free_from || end > messages {
            return None;
        }
        free_from = end;
        total = total.checked_add(u64::from(range.count))?;
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::stream::conformance::Author;

    const STREAM: StreamId = StreamId::new([0x57; 16]);

    fn batch() -> Stored {
        Stored {
            offset: 40,
            leaf_index: 9,
            append_ms: 1_000,
            policy_version: 7,
            key_record: 3,
            topic: Topic::parse("orders/eu").unwrap(),
            messages: 5,
            batch: Author::new(1, "orders/eu", STREAM).sign(5, 10),
            instance_kind: InstanceKind::Configured,
            origin: None,
        }
    }

    fn letter() -> Stored {
        let ranges = vec![
            DeadRange { first: 0, count: 1, deliveries: 5 },
            DeadRange { first: 3, count: 2, deliveries: 9 },
        ];
        let origin = Origin { offset: 11, leaf_index: 2, append_ms: 900, policy_version: 7, ranges };
        Stored { messages: 3, origin: Some(Arc::new(origin)), instance_kind: InstanceKind::Random, ..batch() }
    }

    fn payload(stored: &Stored) -> Vec<u8> {
        [encode_head(stored).bytes.as_slice(), &stored.batch].concat()
    }

    fn frame<'a>(stored: &Stored, payload: &'a [u8]) -> FrameView<'a> {
        let RecordHead { kind, flags, .. } = encode_head(stored);
        FrameView {
            kind,
            flags,
            count: stored.messages,
            offset: stored.offset,
            record: stored.leaf_index,
            synced: 0,
            time_ms: stored.append_ms,
            payload,
        }
    }

    #[test]
    fn both_forms_round_trip() {
        for stored in [batch(), letter()] {
            let payload = payload(&stored);
            let found = decode_view(&frame(&stored, &payload)).unwrap();
            assert_eq!(format!("{found:?}"), format!("{stored:?}"));
            assert_eq!(payload, self::payload(&found));
        }
    }

    #[test]
    fn fields_stand_where_the_picture_puts_them() {
        let stored = batch();
        let bytes = payload(&stored);
        assert_eq!(bytes[..18], [&[0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 3][..], &[0, 9]].concat());
        assert_eq!(&bytes[18..27], b"orders/eu");
        assert_eq!(bytes[27..], stored.batch);
        let bytes = payload(&letter());
        assert_eq!(
            (bytes[7], bytes[14..16].to_vec(), bytes[23], bytes[31], bytes[39]),
            (11, vec![3, 132], 7, 2, 3)
        );
        assert_eq!(bytes[40..54], [0, 2, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 5]);
    }

    #[test]
    fn every_cut_and_every_addition_is_refused() {
        for stored in [batch(), letter()] {
            let mut payload = payload(&stored);
            for len in 0..payload.len() {
                assert!(decode_view(&frame(&stored, &payload[..len])).is_err(), "{len} bytes");
            }
            payload.push(0);
            assert!(decode_view(&frame(&stored, &payload)).is_err());
        }
    }

    #[test]
    fn a_record_that_contradicts_its_frame_is_refused() {
        let stored = batch();
        let payload = payload(&stored);
        let good = frame(&stored, &payload);
        let refused = |frame: FrameView<'_>| decode_view(&frame).unwrap_err();
        assert_eq!(refused(FrameView { kind: 3, ..good }), RecordError::Kind(3));
        assert_eq!(refused(FrameView { flags: 2, ..good }), RecordError::Flags(2));
        assert_eq!(refused(FrameView { count: 4, ..good }), RecordError::Count { frame: 4, record: 5 });
    }

    #[test]
    fn ranges_are_in_order_within_the_batch_and_name_something() {
        let range = |first, count| DeadRange { first, count, deliveries: 1 };
        assert_eq!(records_of(&[range(0, 2), range(2, 1), range(4, 1)], 5), Some(4));
        for ranges in [
            vec![],
            vec![range(0, 0)],
            vec![range(0, 6)],
            vec![range(u32::MAX, 1)],
            vec![range(2, 1), range(1, 1)],
            vec![range(0, 2), range(1, 1)],
        ] {
            assert_eq!(records_of(&ranges, 5), None, "{ranges:?}");
        }
        let many = vec![range(0, 1); DEAD_RANGES_MAX + 1];
        assert_eq!(records_of(&many, 5), None);
    }

    /// SECURITY section 4: what of a record is a leaf.
    #[test]
    fn any_other_place_or_time_is_another_leaf() {
        let bus_id = BusId::new([1; 16]);
        let stored = batch();
        let payload = payload(&stored);
        let leaf = leaf_of(&stored, bus_id, STREAM);
        assert_eq!(leaf_digest(&frame(&stored, &payload), bus_id, STREAM), *leaf.as_bytes());
        let others = [
            Stored { offset: 41, ..stored.clone() },
            Stored { append_ms: 1_001, ..stored.clone() },
            Stored { policy_version: 8, ..stored.clone() },
        ];
        assert!(others.iter().all(|other| leaf_of(other, bus_id, STREAM) != leaf));
        assert_ne!(leaf_of(&stored, BusId::new([2; 16]), STREAM), leaf);
        assert_ne!(leaf_of(&stored, bus_id, StreamId::new([1; 16])), leaf);
    }
}
