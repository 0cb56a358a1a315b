//! Rows: keys, values, and where each table's rows stand.
//!
//! ```text
//!   0
//!   | 0 | "schema"                                                         version and bus
//!   | 1 | log id (16) | 0 |                                                watermark and tally of the log
//!   | 1 | log id (16) | 1 | kid (32) | u64 record                          key directory
//!   | 1 | log id (16) | 2 | stream id (16) | consumer's name               cursors
//!   | 1 | log id (16) | 3 | incarnation id (16) | topic                    producers' sequences
//!   | 1 | log id (16) | 4 | u64 minute                                     time index
//! ```
//!
//! All rows of a log stand together, its watermark in front.

use std::collections::BTreeMap;

use sealbus_protocol::ids::{IncarnationId, Kid, StreamId};
use sealbus_protocol::policy::Name;
use sealbus_protocol::topic::Topic;
use sealbus_protocol::wire::{Reader, Write as _};

use super::error::{Damage, IndexError};
use super::types::{CursorKey, KeyPlace, ProducerKey};

/// The row that says what all others are.
pub const SCHEMA_KEY: &[u8] = b"\0schema";

const LOG_ROW: u8 = 1;

/// A row: its key and its value.
pub type Row = (Vec<u8>, Vec<u8>);

/// What rows are written at once: the new value, or none when the row goes.
pub type Changes = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// Is shown rows in the order of their keys.
pub type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> Result<(), IndexError> + 'a;

/// An ordered map of bytes that can change several rows at once.
pub trait Rows: Send + Sync {
    /// The value of a row.
    ///
    /// # Errors
    /// [`IndexError`] when the rows cannot be read.
    fn row(&self, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError>;

    /// Shows every row whose key begins like this. What `visit` answers ends it.
    ///
    /// # Errors
    /// What `visit` says, or [`IndexError`] when the rows cannot be read.
    fn scan(&self, prefix: &[u8], visit: &mut Visit<'_>) -> Result<(), IndexError>;

    /// The last row from `first` to `last`, both included.
    ///
    /// # Errors
    /// [`IndexError`] when the rows cannot be read.
    fn last_within(&self, first: &[u8], last: &[u8]) -> Result<Option<Row>, IndexError>;

    /// Writes all changes or none.
    ///
    /// # Errors
    /// [`IndexError`] when they cannot be written.
    fn write(&self, changes: Changes) -> Result<(), IndexError>;

    /// Asks for what was written to be kept.
    ///
    /// # Errors
    /// [`IndexError`] when it cannot be.
    fn flush(&self) -> Result<(), IndexError>;
}

/// The tables of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Table {
    /// How far the log was followed.
    Watermark = 0,
    /// The key directory.
    Keys = 1,
    /// Consumers' cursors.
    Cursors = 2,
    /// Producers' sequences.
    Producers = 3,
    /// First offset of each minute.
    Times = 4,
}

impl Table {
    /// What it is called.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Watermark => "watermarks",
            Self::Keys => "key directory",
            Self::Cursors => "cursors",
            Self::Producers => "producers",
            Self::Times => "time index",
        }
    }
}

/// How all keys of a log begin.
#[must_use]
pub fn log_prefix(log: &StreamId) -> Vec<u8> {
    let mut key = Vec::with_capacity(1 + StreamId::LEN);
    key.raw(&[LOG_ROW]);
    key.raw(log.as_bytes());
    key
}

/// How all keys of a table of a log begin.
#[must_use]
pub fn table_prefix(log: &StreamId, table: Table) -> Vec<u8> {
    let mut key = log_prefix(log);
    key.raw(&[table as u8]);
    key
}

/// How the keys of all logs begin.
#[must_use]
pub const fn logs_prefix() -> &'static [u8] {
    &[LOG_ROW]
}

/// The key of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RowKey {
    /// Of the watermark.
    Watermark,
    /// Of a binding.
    Key(KeyPlace),
    /// Of a cursor.
    Cursor(CursorKey),
    /// Of a producer's sequence.
    Producer(ProducerKey),
    /// Of a minute.
    Time(u64),
}

impl RowKey {
    /// In which table the row stands.
    #[must_use]
    pub const fn table(&self) -> Table {
        match self {
            Self::Watermark => Table::Watermark,
            Self::Key(_) => Table::Keys,
            Self::Cursor(_) => Table::Cursors,
            Self::Producer(_) => Table::Producers,
            Self::Time(_) => Table::Times,
        }
    }

    /// The bytes of the key.
    #[must_use]
    pub fn encode(&self, log: &StreamId) -> Vec<u8> {
        let mut key = table_prefix(log, self.table());
        match self {
            Self::Watermark => {}
            Self::Key(KeyPlace { kid, record }) => {
                key.raw(kid.as_bytes());
                key.raw(&record.to_be_bytes());
            }
            Self::Cursor(CursorKey { stream, consumer }) => {
                key.raw(stream.as_bytes());
                key.raw(consumer.as_str().as_bytes());
            }
            Self::Producer(ProducerKey { incarnation_id, topic }) => {
                key.raw(incarnation_id.as_bytes());
                key.raw(topic.as_str().as_bytes());
            }
            Self::Time(minute) => key.raw(&minute.to_be_bytes()),
        }
        key
    }

    /// The log and the key that these bytes are of.
    ///
    /// # Errors
    /// [`Damage::Key`] when they are of none.
    pub fn decode(bytes: &[u8]) -> Result<(StreamId, Self), Damage> {
        Self::try_decode(bytes).ok_or(Damage::Key)
    }

    fn try_decode(bytes: &[u8]) -> Option<(StreamId, Self)> {
        let mut reader = Reader::new(bytes);
        if reader.u8("row").ok()? != LOG_ROW {
            return None;
        }
        let log = StreamId::new(reader.array("log").ok()?);
        let key = match reader.u8("table").ok()? {
            0 => Self::Watermark,
            1 => {
                let kid = Kid::new(reader.array("kid").ok()?);
                Self::Key(KeyPlace { kid, record: reader.u64("record").ok()? })
            }
            2 => {
                let stream = StreamId::new(reader.array("stream").ok()?);
                let consumer = Name::parse(rest(&mut reader)?).ok()?;
                Self::Cursor(CursorKey { stream, consumer })
            }
            3 => {
                let incarnation_id = IncarnationId::new(reader.array("incarnation").ok()?);
                let topic = Topic::parse(rest(&mut reader)?).ok()?;
                Self::Producer(ProducerKey { incarnation_id, topic })
            }
            4 => Self::Time(reader.u64("minute").ok()?),
            _ => return None,
        };
        reader.finish().ok()?;
        Some((log, key))
    }
}

fn rest<'a>(reader: &mut Reader<'a>) -> Option<&'a str> {
    let len = reader.rest().len();
    std::str::from_utf8(reader.take("text", len).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_round_trip_and_nothing_is_left_over() {
        let log = StreamId::new([9; 16]);
        let keys = [
            RowKey::Watermark,
            RowKey::Key(KeyPlace { kid: Kid::new([1; 32]), record: 7 }),
            RowKey::Cursor(CursorKey {
                stream: StreamId::new([2; 16]),
                consumer: Name::parse("billing").unwrap(),
            }),
            RowKey::Producer(ProducerKey {
                incarnation_id: IncarnationId::new([3; 16]),
                topic: Topic::parse("orders/eu/created").unwrap(),
            }),
            RowKey::Time(29_000_000),
        ];
        for key in keys {
            let bytes = key.encode(&log);
            assert_eq!(RowKey::decode(&bytes), Ok((log, key.clone())));
            assert!(bytes.starts_with(&log_prefix(&log)));
            // Texts are as long as the key is: cut, they are other texts. Everything else is refused.
            for len in 0..bytes.len() {
                assert_ne!(RowKey::decode(&bytes[..len]), Ok((log, key.clone())), "{key:?}, {len} bytes");
            }
            let longer = [&bytes[..], &[0]].concat();
            assert_eq!(RowKey::decode(&longer), Err(Damage::Key), "{key:?}");
        }
        assert_eq!(RowKey::decode(SCHEMA_KEY), Err(Damage::Key));
        let mut other = RowKey::Time(1).encode(&log);
        other[17] = 5;
        assert_eq!(RowKey::decode(&other), Err(Damage::Key));
    }
}
