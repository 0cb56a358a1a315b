//! What a reader of a stream gets: batches, each with what binds its producer's key.

use std::fmt;
use std::sync::Arc;

use super::stream::store::{
    Bounds, SkipReason, SkippedOffsets, StoreError, Stored, StreamStore, Tail, Waiter, WatchGuard,
};
use super::system::keys::{KeyDirectory, KeyError, StoredKey};

/// Bytes of batches that a reader takes at a time. It keeps one page, so that this is what a slow one costs.
const PAGE_BYTES: usize = 256 * 1_024;

/// A piece of a stream.
#[derive(Debug, Clone)]
pub struct Page {
    /// In the order of offsets.
    pub entries: Vec<Entry>,
    /// Where to read on.
    pub next: u64,
}

/// What stands at some offsets of a stream.
#[derive(Debug, Clone)]
pub enum Entry {
    /// A batch.
    Batch(Proven),
    /// Nothing any more.
    Skipped(SkippedOffsets),
}

/// A batch and what binds the key that it is signed with.
#[derive(Debug, Clone)]
pub struct Proven {
    /// The batch.
    pub stored: Arc<Stored>,
    /// The binding.
    pub key: Arc<StoredKey>,
}

/// A stream with its keys, for reading.
#[derive(Clone)]
pub struct Source {
    store: Arc<dyn StreamStore>,
    keys: Arc<KeyDirectory>,
}

/// What memory has for a reader.
#[derive(Debug)]
pub enum Glance {
    /// These follow.
    Page(Page),
    /// Nothing follows yet.
    AtEnd,
    /// They must be read, on a thread that may block.
    OnDisk,
}

impl Source {
    /// A stream and the keys of its producers.
    #[must_use]
    pub const fn new(store: Arc<dyn StreamStore>, keys: Arc<KeyDirectory>) -> Self {
        Self { store, keys }
    }

    /// The stream.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn StreamStore> {
        &self.store
    }

    /// What can be read.
    #[must_use]
    pub fn bounds(&self) -> Bounds {
        self.store.bounds()
    }

    /// Has `waiter` told after each commit.
    pub fn watch(&self, waiter: Arc<dyn Waiter>) -> WatchGuard {
        self.store.watch(waiter)
    }

    /// What follows, as far as memory knows. Never blocks.
    #[must_use]
    pub fn glance(&self, from: u64) -> Glance {
        let batches = match self.store.tail(from, PAGE_BYTES) {
            Tail::Here(batches) => batches,
            Tail::AtEnd => return Glance::AtEnd,
            Tail::OnDisk => return Glance::OnDisk,
        };
        let next = batches.last().map_or(from, |last| last.next_offset());
        let proven = |stored: Arc<Stored>| {
            self.keys.cached(stored.key_record).map(|key| Entry::Batch(Proven { stored, key }))
        };
        match batches.into_iter().map(proven).collect() {
            Some(entries) => Glance::Page(Page { entries, next }),
            None => Glance::OnDisk,
        }
    }

    /// What follows. May block.
    ///
    /// # Errors
    /// [`StoreError`] when the disk does not answer, be it for the stream or for a key: nothing is passed over that may be
    /// read a moment later. A batch whose key record is damaged cannot be proven to anybody: it is skipped and named like
    /// a damaged batch.
    pub fn read(&self, from: u64) -> Result<Page, StoreError> {
        let page = self.store.read(from, PAGE_BYTES)?;
        let mut entries: Vec<Entry> = page.skipped.into_iter().map(Entry::Skipped).collect();
        for stored in page.batches {
            entries.push(match self.keys.load(stored.key_record) {
                Ok(key) => Entry::Batch(Proven { stored, key }),
                Err(error @ KeyError::Read { .. }) => return Err(StoreError::Disk(error.to_string())),
                Err(KeyError::Missing { .. } | KeyError::Malformed { .. }) => {
                    Entry::Skipped(SkippedOffsets {
                        from: stored.offset,
                        to: stored.next_offset(),
                        why: SkipReason::Damaged,
                    })
                }
            });
        }
        // A stable sort: a batch without messages stays before the one that has its offset.
        entries.sort_by_key(Entry::offset);
        Ok(Page { entries, next: page.next })
    }
}

impl Entry {
    /// The first offset that it is about.
    #[must_use]
    pub fn offset(&self) -> u64 {
        match self {
            Self::Batch(proven) => proven.stored.offset,
            Self::Skipped(skipped) => skipped.from,
        }
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").field("bounds", &self.bounds()).finish_non_exhaustive()
    }
}
