//! The index in memory: for simulation, which decides what a crash leaves of it, and for a broker whose disk refuses
//! the other one.

use std::collections::BTreeMap;
use std::sync::RwLock;

use sealbus_protocol::ids::BusId;

use super::error::IndexError;
use super::row_index::{Held, RowIndex};
use super::rows::{Changes, Row, Rows, Visit};
use crate::locks::{read, write};

/// An index in memory.
pub type MemoryIndex = RowIndex<MemoryRows>;

/// Rows in memory. Nothing is ever flushed, since nothing is ever kept.
#[derive(Debug, Default)]
pub struct MemoryRows(RwLock<BTreeMap<Vec<u8>, Vec<u8>>>);

/// What an index in memory held at some moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemorySnapshot(BTreeMap<Vec<u8>, Vec<u8>>);

impl MemoryIndex {
    /// An index that holds nothing.
    #[must_use]
    pub fn fresh(bus_id: &BusId) -> Self {
        let (index, _) =
            Self::open(MemoryRows::default(), bus_id).expect("memory without rows can be read and written");
        index
    }

    /// What it holds now. Opened again later, this is a stale index.
    #[must_use]
    pub fn snapshot(&self) -> MemorySnapshot {
        MemorySnapshot(read(&self.rows.0).clone())
    }

    /// An index as it was at the moment of a snapshot, looked at as one on the disk is.
    ///
    /// # Errors
    /// [`IndexError`] when the snapshot was damaged.
    pub fn reopen(snapshot: MemorySnapshot, bus_id: &BusId) -> Result<(Self, Held), IndexError> {
        Self::open(MemoryRows(RwLock::new(snapshot.0)), bus_id)
    }
}

impl MemorySnapshot {
    /// Bits of all keys and values.
    #[must_use]
    pub fn bits(&self) -> usize {
        self.0.iter().fold(0, |sum, (key, value)| sum + 8 * (key.len() + value.len()))
    }

    /// Flips one bit of a key or a value.
    #[must_use]
    pub fn with_bit_flipped(&self, bit: usize) -> Self {
        let mut left = bit;
        let mut rows = BTreeMap::new();
        for (key, value) in &self.0 {
            let (mut key, mut value) = (key.clone(), value.clone());
            for part in [&mut key, &mut value] {
                if let Some(byte) = part.get_mut(left / 8) {
                    *byte ^= 1 << (left % 8);
                    left = usize::MAX;
                } else {
                    left = left.saturating_sub(part.len() * 8);
                }
            }
            rows.insert(key, value);
        }
        Self(rows)
    }

    /// Leaves one row out.
    #[must_use]
    pub fn without_row(&self, number: usize) -> Self {
        let kept = self.0.iter().enumerate().filter(|(place, _)| *place != number);
        Self(kept.map(|(_, (key, value))| (key.clone(), value.clone())).collect())
    }

    /// Takes one row over from another moment.
    pub fn take_row_of(&mut self, other: &Self, key: &[u8]) {
        match other.0.get(key) {
            Some(value) => self.0.insert(key.to_vec(), value.clone()),
            None => self.0.remove(key),
        };
    }

    /// Rows, the schema's included.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.0.len()
    }
}

impl Rows for MemoryRows {
    fn row(&self, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError> {
        Ok(read(&self.0).get(key).cloned())
    }

    fn scan(&self, prefix: &[u8], visit: &mut Visit<'_>) -> Result<(), IndexError> {
        let rows = read(&self.0);
        rows.range(prefix.to_vec()..)
            .take_while(|(key, _)| key.starts_with(prefix))
            .try_for_each(|(key, value)| visit(key, value))
    }

    fn last_within(&self, first: &[u8], last: &[u8]) -> Result<Option<Row>, IndexError> {
        let rows = read(&self.0);
        let found = rows.range(first.to_vec()..=last.to_vec()).next_back();
        Ok(found.map(|(key, value)| (key.clone(), value.clone())))
    }

    fn write(&self, changes: Changes) -> Result<(), IndexError> {
        let mut rows = write(&self.0);
        for (key, value) in changes {
            match value {
                Some(value) => rows.insert(key, value),
                None => rows.remove(&key),
            };
        }
        Ok(())
    }

    fn flush(&self) -> Result<(), IndexError> {
        Ok(())
    }
}
