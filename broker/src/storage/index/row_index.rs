//! The index over any rows: watermarks, tallies, and what each update does to which row.

use std::sync::Mutex;

use bytes::Bytes;
use sealbus_protocol::ids::{BusId, Kid, StreamId};
use sealbus_protocol::wire::Write as _;

use super::codec;
use super::error::{Damage, IndexError};
use super::rows::{Changes, RowKey, Rows, SCHEMA_KEY, Table, log_prefix, logs_prefix, table_prefix};
use super::store::Index;
use super::tally::Tally;
use super::types::{CursorKey, KeyEntry, KeyPlace, ProducerEntry, ProducerKey, Update};
use super::watermark::Watermark;
use crate::locks::lock;

/// An index over rows. Every row of a log is counted in the tally that stands beside the log's watermark.
#[derive(Debug)]
pub struct RowIndex<R> {
    pub(super) rows: R,
    /// Held while rows are read and written again, so that a tally is changed by one at a time.
    applying: Mutex<()>,
}

/// What an index held when it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// Nothing: it was made now.
    Nothing,
    /// Rows, all of which are as they were written.
    Rows,
}

impl<R: Rows> RowIndex<R> {
    /// The index over these rows, after every one of them was looked at.
    ///
    /// # Errors
    /// [`IndexError`] when they cannot be read, are of another version or bus, do not decode, or are not those that
    /// were written.
    pub fn open(rows: R, bus_id: &BusId) -> Result<(Self, Held), IndexError> {
        let held = match rows.row(SCHEMA_KEY)? {
            Some(schema) => {
                codec::check_schema(&schema, bus_id)?;
                check(&rows)?;
                Held::Rows
            }
            None => {
                rows.scan(&[], &mut |_, _| Err(Damage::NoSchema.into()))?;
                rows.write([(SCHEMA_KEY.to_vec(), Some(codec::encode_schema(bus_id)))].into())?;
                rows.flush()?;
                Held::Nothing
            }
        };
        Ok((Self { rows, applying: Mutex::new(()) }, held))
    }

    fn standing(&self, log: &StreamId) -> Result<Option<(Watermark, Tally)>, IndexError> {
        let row = self.rows.row(&RowKey::Watermark.encode(log))?;
        Ok(row.map(|value| codec::decode_watermark(log, &value)).transpose()?)
    }

    /// Shows the rows of one table of a log, decoded.
    fn load<T>(
        &self,
        prefix: &[u8],
        row: impl Fn(RowKey, &[u8]) -> Result<Option<T>, Damage>,
    ) -> Result<Vec<T>, IndexError> {
        let mut loaded = Vec::new();
        self.rows.scan(prefix, &mut |key, value| {
            let (_, key) = RowKey::decode(key)?;
            loaded.push(row(key, value)?.ok_or(Damage::Key)?);
            Ok(())
        })?;
        Ok(loaded)
    }
}

impl<R: Rows> Index for RowIndex<R> {
    fn logs(&self) -> Result<Vec<StreamId>, IndexError> {
        let mut logs: Vec<StreamId> = Vec::new();
        self.rows.scan(logs_prefix(), &mut |key, _| {
            let (log, _) = RowKey::decode(key)?;
            if logs.last() != Some(&log) {
                logs.push(log);
            }
            Ok(())
        })?;
        Ok(logs)
    }

    fn watermark(&self, log: &StreamId) -> Result<Option<Watermark>, IndexError> {
        Ok(self.standing(log)?.map(|(watermark, _)| watermark))
    }

    fn load_keys(&self, log: &StreamId) -> Result<Vec<(KeyPlace, KeyEntry)>, IndexError> {
        self.load(&table_prefix(log, Table::Keys), |key, value| match key {
            RowKey::Key(place) => Ok(Some((place, codec::decode_key(value)?))),
            RowKey::Watermark | RowKey::Cursor(_) | RowKey::Producer(_) | RowKey::Time(_) => Ok(None),
        })
    }

    fn load_key(&self, log: &StreamId, kid: &Kid) -> Result<Vec<(u64, KeyEntry)>, IndexError> {
        let mut prefix = table_prefix(log, Table::Keys);
        prefix.raw(kid.as_bytes());
        self.load(&prefix, |key, value| match key {
            RowKey::Key(place) => Ok(Some((place.record, codec::decode_key(value)?))),
            RowKey::Watermark | RowKey::Cursor(_) | RowKey::Producer(_) | RowKey::Time(_) => Ok(None),
        })
    }

    fn load_cursors(&self, log: &StreamId) -> Result<Vec<(CursorKey, Bytes)>, IndexError> {
        self.load(&table_prefix(log, Table::Cursors), |key, value| match key {
            RowKey::Cursor(key) => Ok(Some((key, Bytes::copy_from_slice(codec::decode_cursor(value)?)))),
            RowKey::Watermark | RowKey::Key(_) | RowKey::Producer(_) | RowKey::Time(_) => Ok(None),
        })
    }

    fn load_producers(&self, log: &StreamId) -> Result<Vec<(ProducerKey, ProducerEntry)>, IndexError> {
        self.load(&table_prefix(log, Table::Producers), |key, value| match key {
            RowKey::Producer(key) => Ok(Some((key, codec::decode_producer(value)?))),
            RowKey::Watermark | RowKey::Key(_) | RowKey::Cursor(_) | RowKey::Time(_) => Ok(None),
        })
    }

    fn load_times(&self, log: &StreamId) -> Result<Vec<(u64, u64)>, IndexError> {
        self.load(&table_prefix(log, Table::Times), |key, value| match key {
            RowKey::Time(minute) => Ok(Some((minute, codec::decode_offset(value)?))),
            RowKey::Watermark | RowKey::Key(_) | RowKey::Cursor(_) | RowKey::Producer(_) => Ok(None),
        })
    }

    fn offset_by(&self, log: &StreamId, minute: u64) -> Result<Option<(u64, u64)>, IndexError> {
        let (first, last) = (RowKey::Time(0).encode(log), RowKey::Time(minute).encode(log));
        let Some((key, value)) = self.rows.last_within(&first, &last)? else { return Ok(None) };
        match RowKey::decode(&key)? {
            (_, RowKey::Time(minute)) => Ok(Some((minute, codec::decode_offset(&value)?))),
            (_, RowKey::Watermark | RowKey::Key(_) | RowKey::Cursor(_) | RowKey::Producer(_)) => {
                Err(Damage::Key.into())
            }
        }
    }

    fn apply(&self, log: &StreamId, updates: &[Update], watermark: &Watermark) -> Result<(), IndexError> {
        let _one_at_a_time = lock(&self.applying);
        let (kept, tally) = self.standing(log)?.unzip();
        if let Some(kept) = kept.filter(|kept| kept.end_record > watermark.end_record) {
            return Err(IndexError::Backwards { kept: kept.end_record, given: watermark.end_record });
        }
        let mut plan =
            Plan { rows: &self.rows, log, changes: Changes::new(), tally: tally.unwrap_or_default() };
        updates.iter().try_for_each(|update| plan.follow(update))?;
        let Plan { mut changes, tally, .. } = plan;
        changes.insert(RowKey::Watermark.encode(log), Some(codec::encode_watermark(log, watermark, tally)));
        self.rows.write(changes)
    }

    fn clear(&self, log: &StreamId) -> Result<(), IndexError> {
        let _one_at_a_time = lock(&self.applying);
        let mut changes = Changes::new();
        self.rows.scan(&log_prefix(log), &mut |key, _| {
            changes.insert(key.to_vec(), None);
            Ok(())
        })?;
        self.rows.write(changes)
    }

    fn flush(&self) -> Result<(), IndexError> {
        self.rows.flush()
    }
}

/// What some updates will write.
struct Plan<'a, R> {
    rows: &'a R,
    log: &'a StreamId,
    changes: Changes,
    /// Of the log's rows as they will be.
    tally: Tally,
}

impl<R: Rows> Plan<'_, R> {
    fn follow(&mut self, update: &Update) -> Result<(), IndexError> {
        match update {
            Update::Key { place, entry } => {
                self.set(&RowKey::Key(place.clone()), Some(codec::encode_key(entry)))
            }
            Update::KeyForgotten { place } => self.set(&RowKey::Key(place.clone()), None),
            Update::Cursor { key, cursor } => {
                self.set(&RowKey::Cursor(key.clone()), Some(codec::encode_cursor(cursor)?))
            }
            Update::CursorForgotten { key } => self.set(&RowKey::Cursor(key.clone()), None),
            Update::Producer { key, entry } => {
                self.set(&RowKey::Producer(key.clone()), Some(codec::encode_producer(entry)?))
            }
            Update::ProducerForgotten { key } => self.set(&RowKey::Producer(key.clone()), None),
            Update::Time { minute, first_offset } => {
                let key = RowKey::Time(*minute);
                let lowest = match self.row(&key.encode(self.log))? {
                    Some(value) => codec::decode_offset(&value)?.min(*first_offset),
                    None => *first_offset,
                };
                self.set(&key, Some(codec::encode_offset(lowest)))
            }
            Update::TimesForgottenBefore { minute } => self.forget_times(*minute),
        }
    }

    /// The row as it will be.
    fn row(&self, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError> {
        match self.changes.get(key) {
            Some(change) => Ok(change.clone()),
            None => self.rows.row(key),
        }
    }

    fn set(&mut self, key: &RowKey, value: Option<Vec<u8>>) -> Result<(), IndexError> {
        let key = key.encode(self.log);
        if let Some(before) = self.row(&key)? {
            self.tally.remove(&key, &before);
        }
        if let Some(value) = &value {
            self.tally.add(&key, value);
        }
        self.changes.insert(key, value);
        Ok(())
    }

    fn forget_times(&mut self, before: u64) -> Result<(), IndexError> {
        let prefix = table_prefix(self.log, Table::Times);
        let mut minutes = Vec::new();
        let mut see = |key: &[u8]| -> Result<(), IndexError> {
            if let (_, RowKey::Time(minute)) = RowKey::decode(key)?
                && minute < before
            {
                minutes.push(minute);
            }
            Ok(())
        };
        self.rows.scan(&prefix, &mut |key, _| see(key))?;
        self.changes.keys().filter(|key| key.starts_with(&prefix)).try_for_each(|key| see(key))?;
        minutes.into_iter().try_for_each(|minute| self.set(&RowKey::Time(minute), None))
    }
}

/// Looks at every row: whether it decodes, and whether the rows of each log are those of its tally.
fn check(rows: &impl Rows) -> Result<(), IndexError> {
    let mut log: Option<LogCheck> = None;
    rows.scan(&[], &mut |key, value| {
        if key == SCHEMA_KEY {
            return Ok(());
        }
        let (id, row) = RowKey::decode(key)?;
        check_value(&id, &row, value)?;
        if log.as_ref().is_none_or(|log| log.id != id) {
            if let Some(done) = log.take() {
                done.finish()?;
            }
            log = Some(LogCheck { id, expected: None, found: Tally::default() });
        }
        let log = log.as_mut().expect("a log was begun when its first row came");
        if row == RowKey::Watermark {
            log.expected = Some(codec::decode_watermark(&id, value)?.1);
        } else {
            log.found.add(key, value);
        }
        Ok(())
    })?;
    log.map_or(Ok(()), LogCheck::finish)
}

/// The rows of one log while they are looked at.
struct LogCheck {
    id: StreamId,
    expected: Option<Tally>,
    found: Tally,
}

impl LogCheck {
    fn finish(self) -> Result<(), IndexError> {
        match self.expected {
            None => Err(Damage::NoWatermark.into()),
            Some(expected) if expected != self.found => Err(Damage::Tally.into()),
            Some(_) => Ok(()),
        }
    }
}

fn check_value(log: &StreamId, key: &RowKey, value: &[u8]) -> Result<(), Damage> {
    match key {
        RowKey::Watermark => codec::decode_watermark(log, value).map(drop),
        RowKey::Key(_) => codec::decode_key(value).map(drop),
        RowKey::Cursor(_) => codec::decode_cursor(value).map(drop),
        RowKey::Producer(_) => codec::decode_producer(value).map(drop),
        RowKey::Time(_) => codec::decode_offset(value).map(drop),
    }
}
