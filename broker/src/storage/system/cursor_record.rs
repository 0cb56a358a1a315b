//! The records of `$cursors`.
//!
//! ```text
//!   kind 16, a consumer as it stands
//!   0           16      18
//!   +-----------+-------+------+---------+--------+-------------+-------------+--------------------+
//!   | stream id | u16 n | name | u16 n   | filter | u32 ack_    | u32 max_    | u32 unacknowledged |
//!   |           |       |      | 0: all  |        | wait_ms     | deliver, 0: | _max               |
//!   |           |       |      |         |        |             | unlimited   |                    |
//!   +-----------+-------+------+---------+--------+-------------+-------------+--------------------+
//!   | u16 n | n x u32 backoff_ms | u64 position | u32 n | n x (u64 start, u64 end) of what is settled |
//!   +-------+--------------------+--------------+-------+---------------------------------------------+
//!   | u32 n | n x (u64 offset, u32 records, u32 deliveries) of what was handed out more than once     |
//!   +-------+-----------------------------------------------------------------------------------------+
//!
//!   kind 17, a consumer that was removed
//!   | stream id (16) | u16 n | name |
//! ```
//!
//! All numbers are big-endian. Each record says all there is to know of its consumer, settings included, so that the
//! newest one of each is enough: any that are lost before it cost nothing, and writing the newest ones anew is all
//! that it takes to let the older part of the log go.

use std::fmt;
use std::num::NonZeroU32;
use std::ops::Range;

use sealbus_protocol::ids::StreamId;
use sealbus_protocol::limits::{POLICY_NAME_BYTES_MAX, TOPIC_BYTES_MAX};
use sealbus_protocol::policy::Name;
use sealbus_protocol::topic::TopicFilter;
use sealbus_protocol::wire::{DecodeError, Reader, Write as _};

use super::consumer::{
    AskedSettings, BACKOFF_STEPS_MAX, CURSOR_COUNTS_MAX, CURSOR_RANGES_MAX, ConsumerKey, ConsumerSettings,
    Cursor, CursorError, DeliveryCount, MaxDeliver, SettingsError,
};
use super::frame::SystemFrame;

/// The kind of a frame that holds a consumer as it stands.
pub const KIND_CONSUMER: u8 = 16;

/// The kind of a frame that says that a consumer was removed.
pub const KIND_REMOVED: u8 = 17;

/// Bytes of a settled range, and of a delivery count.
const ENTRY_BYTES: usize = 16;

/// What a frame of the log may hold.
const FRAME_PAYLOAD_BYTES_MAX: usize = 2 * 1_024 * 1_024;

const _: () = assert!(
    (CURSOR_RANGES_MAX + CURSOR_COUNTS_MAX) * ENTRY_BYTES + TOPIC_BYTES_MAX + 4 * BACKOFF_STEPS_MAX + 1_024
        <= FRAME_PAYLOAD_BYTES_MAX
);

/// A consumer as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptConsumer {
    /// Which one.
    pub key: ConsumerKey,
    /// Its settings.
    pub settings: ConsumerSettings,
    /// Where it stands.
    pub cursor: Cursor,
}

/// A record of `$cursors`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CursorChange {
    /// A consumer was created, or has moved, and stands like this.
    Stands(KeptConsumer),
    /// A consumer was removed.
    Removed(ConsumerKey),
}

impl CursorChange {
    /// The consumer that it is about.
    #[must_use]
    pub const fn key(&self) -> &ConsumerKey {
        match self {
            Self::Stands(kept) => &kept.key,
            Self::Removed(key) => key,
        }
    }

    /// The record.
    #[must_use]
    pub fn encode(&self) -> SystemFrame {
        let mut payload = Vec::with_capacity(128);
        payload.raw(self.key().stream.as_bytes());
        payload.bytes16(self.key().name.as_str().as_bytes());
        let kind = match self {
            Self::Stands(kept) => {
                write_settings(&mut payload, &kept.settings);
                write_cursor(&mut payload, &kept.cursor);
                KIND_CONSUMER
            }
            Self::Removed(_) => KIND_REMOVED,
        };
        SystemFrame { kind, flags: 0, payload: payload.into() }
    }

    /// The change that a record holds.
    ///
    /// # Errors
    /// [`CursorRecordError`] when it holds none.
    pub fn decode(kind: u8, flags: u8, payload: &[u8]) -> Result<Self, CursorRecordError> {
        if flags != 0 {
            return Err(CursorRecordError::Flags(flags));
        }
        let mut reader = Reader::new(payload);
        let stream = StreamId::new(reader.array("stream id")?);
        let name = Name::parse(reader.text16("name", POLICY_NAME_BYTES_MAX)?);
        let name = name.map_err(|_| DecodeError::Value { field: "name" })?;
        let key = ConsumerKey { stream, name };
        let change = match kind {
            KIND_CONSUMER => {
                let settings = read_settings(&mut reader)?;
                let cursor = read_cursor(&mut reader)?;
                Self::Stands(KeptConsumer { key, settings, cursor })
            }
            KIND_REMOVED => Self::Removed(key),
            other => return Err(CursorRecordError::Kind(other)),
        };
        reader.finish()?;
        Ok(change)
    }
}

fn write_settings(out: &mut Vec<u8>, settings: &ConsumerSettings) {
    out.bytes16(settings.filter().map_or("", TopicFilter::as_str).as_bytes());
    out.u32(settings.ack_wait_ms());
    out.u32(match settings.max_deliver() {
        MaxDeliver::Unlimited => 0,
        MaxDeliver::Times(times) => times.get(),
    });
    out.u32(settings.unacknowledged_max());
    out.u16(u16::try_from(settings.backoff_ms().len()).expect("the steps of a backoff are bounded"));
    settings.backoff_ms().iter().for_each(|step| out.u32(*step));
}

fn read_settings(reader: &mut Reader<'_>) -> Result<ConsumerSettings, CursorRecordError> {
    let filter = reader.text16("filter", TOPIC_BYTES_MAX)?;
    let filter = (!filter.is_empty()).then(|| TopicFilter::parse(filter)).transpose();
    let filter = filter.map_err(|_| DecodeError::Value { field: "filter" })?;
    let ack_wait_ms = Some(reader.u32("ack_wait_ms")?);
    let max_deliver = NonZeroU32::new(reader.u32("max_deliver")?);
    let max_deliver = Some(max_deliver.map_or(MaxDeliver::Unlimited, MaxDeliver::Times));
    let unacknowledged_max = Some(reader.u32("unacknowledged_max")?);
    let steps = usize::from(reader.u16("backoff steps")?);
    bounded("backoff steps", steps, BACKOFF_STEPS_MAX)?;
    let backoff_ms = (0..steps).map(|_| reader.u32("backoff_ms")).collect::<Result<_, _>>()?;
    let asked =
        AskedSettings { filter, ack_wait_ms, max_deliver, backoff_ms: Some(backoff_ms), unacknowledged_max };
    Ok(ConsumerSettings::new(asked)?)
}

fn write_cursor(out: &mut Vec<u8>, cursor: &Cursor) {
    let len = |len: usize| u32::try_from(len).expect("the parts of a cursor are bounded");
    out.reserve((cursor.settled().len() + cursor.counts().len()) * ENTRY_BYTES + 16);
    out.u64(cursor.position());
    out.u32(len(cursor.settled().len()));
    for Range { start, end } in cursor.settled() {
        out.u64(*start);
        out.u64(*end);
    }
    out.u32(len(cursor.counts().len()));
    for DeliveryCount { offset, records, deliveries } in cursor.counts() {
        out.u64(*offset);
        out.u32(*records);
        out.u32(*deliveries);
    }
}

fn read_cursor(reader: &mut Reader<'_>) -> Result<Cursor, CursorRecordError> {
    let position = reader.u64("position")?;
    let ranges = read_len(reader, "settled ranges", CURSOR_RANGES_MAX)?;
    let settled = (0..ranges).map(|_| Ok(reader.u64("start")?..reader.u64("end")?));
    let settled = settled.collect::<Result<_, DecodeError>>()?;
    let counts = read_len(reader, "delivery counts", CURSOR_COUNTS_MAX)?;
    let counts = (0..counts).map(|_| {
        let (offset, records) = (reader.u64("offset")?, reader.u32("records")?);
        Ok(DeliveryCount { offset, records, deliveries: reader.u32("deliveries")? })
    });
    let counts = counts.collect::<Result<_, DecodeError>>()?;
    Ok(Cursor::new(position, settled, counts)?)
}

/// A number of entries, for which there are as many bytes.
fn read_len(reader: &mut Reader<'_>, field: &'static str, max: usize) -> Result<usize, DecodeError> {
    let found = usize::try_from(reader.u32(field)?).unwrap_or(usize::MAX);
    bounded(field, found, max)?;
    let (needed, left) = (found * ENTRY_BYTES, reader.rest().len());
    if needed > left {
        return Err(DecodeError::Short { field, needed, left });
    }
    Ok(found)
}

fn bounded(field: &'static str, found: usize, max: usize) -> Result<(), DecodeError> {
    if found > max { Err(DecodeError::TooLong { field, max, found }) } else { Ok(()) }
}

/// Why a record of `$cursors` is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CursorRecordError {
    /// Its kind is not known.
    Kind(u8),
    /// Its flags are not known.
    Flags(u8),
    /// A field is missing or wrong.
    Field(DecodeError),
    /// Settings that no consumer has.
    Settings(SettingsError),
    /// A cursor that no consumer has.
    Cursor(CursorError),
}

impl From<DecodeError> for CursorRecordError {
    fn from(error: DecodeError) -> Self {
        Self::Field(error)
    }
}

impl From<SettingsError> for CursorRecordError {
    fn from(error: SettingsError) -> Self {
        Self::Settings(error)
    }
}

impl From<CursorError> for CursorRecordError {
    fn from(error: CursorError) -> Self {
        Self::Cursor(error)
    }
}

impl fmt::Display for CursorRecordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kind(kind) => write!(f, "a cursor record of kind {kind} is not known to this version"),
            Self::Flags(flags) => write!(f, "cursor record flags {flags:#04x} are not known to this version"),
            Self::Field(error) => write!(f, "in a cursor record {error}"),
            Self::Settings(error) => write!(f, "in a cursor record {error}"),
            Self::Cursor(error) => write!(f, "in a cursor record {error}"),
        }
    }
}

impl std::error::Error for CursorRecordError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> ConsumerKey {
        ConsumerKey { stream: StreamId::new([7; 16]), name: Name::parse(name).unwrap() }
    }

    fn changes() -> Vec<CursorChange> {
        let small = KeptConsumer {
            key: key("a"),
            settings: ConsumerSettings::new(AskedSettings::default()).unwrap(),
            cursor: Cursor::at(u64::MAX),
        };
        let counts = vec![
            DeliveryCount { offset: 10, records: 1, deliveries: 2 },
            DeliveryCount { offset: 12, records: 3, deliveries: u32::MAX },
        ];
        let large = KeptConsumer {
            key: key("billing.v2"),
            settings: ConsumerSettings::new(AskedSettings {
                filter: Some(TopicFilter::parse("orders.*.paid").unwrap()),
                ack_wait_ms: Some(1_000),
                max_deliver: Some(MaxDeliver::Unlimited),
                backoff_ms: Some(vec![1, 2, 3]),
                unacknowledged_max: Some(9),
            })
            .unwrap(),
            cursor: Cursor::new(10, vec![11..12, 15..u64::MAX], counts).unwrap(),
        };
        vec![CursorChange::Stands(small), CursorChange::Stands(large), CursorChange::Removed(key("a"))]
    }

    #[test]
    fn records_come_back_as_they_were_written() {
        for change in changes() {
            let SystemFrame { kind, flags, payload } = change.encode();
            assert_eq!(CursorChange::decode(kind, flags, &payload), Ok(change));
        }
    }

    #[test]
    fn every_truncation_and_every_trailing_byte_is_refused() {
        for change in changes() {
            let SystemFrame { kind, payload, .. } = change.encode();
            for len in 0..payload.len() {
                assert!(CursorChange::decode(kind, 0, &payload[..len]).is_err(), "{len} bytes of {change:?}");
            }
            let longer = [&payload[..], &[0]].concat();
            let trailing = CursorRecordError::Field(DecodeError::Trailing { extra: 1 });
            assert_eq!(CursorChange::decode(kind, 0, &longer), Err(trailing));
        }
    }

    #[test]
    fn unknown_kinds_and_flags_are_refused() {
        let payload = CursorChange::Removed(key("a")).encode().payload;
        assert_eq!(CursorChange::decode(18, 0, &payload), Err(CursorRecordError::Kind(18)));
        assert_eq!(CursorChange::decode(KIND_REMOVED, 1, &payload), Err(CursorRecordError::Flags(1)));
    }

    #[test]
    fn counts_are_judged_before_memory_is_set_aside() {
        let CursorChange::Stands(kept) = changes().remove(0) else { unreachable!() };
        let mut payload = Vec::new();
        payload.raw(kept.key.stream.as_bytes());
        payload.bytes16(b"a");
        write_settings(&mut payload, &kept.settings);
        payload.u64(5);
        let start = payload.clone();
        for (declared, error) in [
            (u32::MAX, DecodeError::TooLong { field: "settled ranges", max: 65_537, found: 0xffff_ffff }),
            (2, DecodeError::Short { field: "settled ranges", needed: 32, left: 16 }),
        ] {
            let mut payload = start.clone();
            payload.u32(declared);
            payload.raw(&[0; 16]);
            assert_eq!(
                CursorChange::decode(KIND_CONSUMER, 0, &payload),
                Err(CursorRecordError::Field(error))
            );
        }
    }

    #[test]
    fn what_no_consumer_can_be_is_refused() {
        let good = changes().remove(1).encode().payload;
        // A settled range that starts at the position.
        let range = [11_u64.to_be_bytes(), 12_u64.to_be_bytes()].concat();
        let at = good.windows(16).position(|window| window == range).unwrap();
        let mut bad = good.to_vec();
        bad[at + 7] = 10;
        let settled = CursorRecordError::Cursor(CursorError::Settled { at: 10 });
        assert_eq!(CursorChange::decode(KIND_CONSUMER, 0, &bad), Err(settled));

        let mut bad = good.to_vec();
        let wait = good.windows(4).position(|window| window == 1_000_u32.to_be_bytes()).unwrap();
        bad[wait..wait + 4].fill(0xff);
        assert!(matches!(CursorChange::decode(KIND_CONSUMER, 0, &bad), Err(CursorRecordError::Settings(_))));
    }
}
