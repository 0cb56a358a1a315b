//! What the broker has done since it started, in numbers. Counted without locks; each number is right, and two of them
//! may be of moments a little apart.

use std::sync::atomic::{AtomicU64, Ordering};

/// The numbers that are counted on. Relaxed: none of them orders anything.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    published: AtomicU64,
    published_bytes: AtomicU64,
    batches: AtomicU64,
    delivered: AtomicU64,
    refused: AtomicU64,
}

/// The numbers of one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counted {
    /// Messages accepted.
    pub(crate) published: u64,
    /// Bytes of the batches that they came in.
    pub(crate) published_bytes: u64,
    /// Batches accepted.
    pub(crate) batches: u64,
    /// Messages delivered.
    pub(crate) delivered: u64,
    /// Requests refused.
    pub(crate) refused: u64,
}

impl Counts {
    /// A batch was accepted.
    pub(crate) fn published(&self, messages: u32, bytes: usize) {
        self.published.fetch_add(u64::from(messages), Ordering::Relaxed);
        self.published_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.batches.fetch_add(1, Ordering::Relaxed);
    }

    /// Messages were framed for a subscriber.
    pub(crate) fn delivered(&self, messages: u32) {
        self.delivered.fetch_add(u64::from(messages), Ordering::Relaxed);
    }

    /// A request was refused.
    pub(crate) fn refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// The numbers of this moment.
    pub(crate) fn now(&self) -> Counted {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Counted {
            published: read(&self.published),
            published_bytes: read(&self.published_bytes),
            batches: read(&self.batches),
            delivered: read(&self.delivered),
            refused: read(&self.refused),
        }
    }
}
