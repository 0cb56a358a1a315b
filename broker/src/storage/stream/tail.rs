//! The newest batches of a stream, in memory: what readers at the end get without touching the disk. Pure.
//!
//! ```text
//!   disk                        | tail                                |
//!   ... batches that readers    | front           visible end         |
//!   read with pread             | dropped oldest first, when there    |
//!                               | is more than the limit              |
//! ```

use std::collections::VecDeque;
use std::sync::Arc;

use super::store::{Stored, Tail};

/// What a batch costs in memory besides its bytes: the entry, the names, the allocations. Counted, so that many small
/// batches do not hold many times the limit.
const ENTRY_BYTES: usize = 256;

/// The batches from some offset to the visible end.
#[derive(Debug)]
pub(super) struct TailBuffer {
    batches: VecDeque<Arc<Stored>>,
    /// Everything from here on is in `batches`.
    start: u64,
    end: u64,
    bytes: usize,
    bytes_max: usize,
}

impl TailBuffer {
    /// Nothing is in memory of a stream that ends here.
    pub(super) fn new(end: u64, bytes_max: usize) -> Self {
        Self { batches: VecDeque::new(), start: end, end, bytes: 0, bytes_max }
    }

    pub(super) const fn end(&self) -> u64 {
        self.end
    }

    /// Adds what became visible, in order, and drops the oldest: whatever is visible can be read from the disk, too.
    pub(super) fn push(&mut self, batches: impl IntoIterator<Item = Arc<Stored>>) {
        for stored in batches {
            assert_eq!(stored.offset, self.end, "offsets are dense");
            self.end = stored.next_offset();
            self.bytes = self.bytes.saturating_add(cost(&stored));
            self.batches.push_back(stored);
        }
        while self.bytes > self.bytes_max
            && self.batches.len() > 1
            && let Some(oldest) = self.batches.front()
        {
            // A batch without messages is read with the one that follows it: whoever wants that whole reads the disk.
            let after = if oldest.messages == 0 { 1 } else { 0 };
            self.start = self.start.max(oldest.next_offset().saturating_add(after));
            self.bytes = self.bytes.saturating_sub(cost(oldest));
            self.batches.pop_front();
        }
    }

    /// The batches from the one that holds `from` onwards: at least one, and as many as fit `bytes_max`.
    pub(super) fn read(&self, from: u64, bytes_max: usize) -> Tail {
        if from >= self.end {
            return Tail::AtEnd;
        }
        if from < self.start {
            return Tail::OnDisk;
        }
        // The batches without messages before the one that holds `from` come with it.
        let at =
            self.batches.partition_point(|stored| stored.next_offset() < from || is_behind(stored, from));
        let mut bytes = 0_usize;
        let mut taken = Vec::new();
        let mut whole = 0;
        for stored in self.batches.range(at..) {
            bytes = bytes.saturating_add(stored.batch.len());
            if bytes > bytes_max && whole > 0 {
                break;
            }
            taken.push(Arc::clone(stored));
            if stored.messages > 0 {
                whole = taken.len();
            }
        }
        taken.truncate(whole);
        Tail::Here(taken)
    }
}

/// Whether a batch with messages ends at or before `from`. One without them, at `from`, is not behind.
fn is_behind(stored: &Stored, from: u64) -> bool {
    stored.messages > 0 && stored.next_offset() <= from
}

fn cost(stored: &Stored) -> usize {
    stored.batch.len().saturating_add(ENTRY_BYTES)
}

#[cfg(test)]
mod tests {
    use sealbus_protocol::frame::InstanceKind;
    use sealbus_protocol::topic::Topic;

    use super::*;

    fn stored(offset: u64, messages: u32) -> Arc<Stored> {
        Arc::new(Stored {
            offset,
            leaf_index: 0,
            append_ms: 0,
            policy_version: 0,
            key_record: 0,
            topic: Topic::parse("a").unwrap(),
            messages,
            batch: vec![0; 100].into(),
            instance_kind: InstanceKind::Random,
            origin: None,
        })
    }

    fn shape(tail: &Tail) -> Vec<(u64, u32)> {
        match tail {
            Tail::Here(batches) => batches.iter().map(|stored| (stored.offset, stored.messages)).collect(),
            Tail::AtEnd | Tail::OnDisk => panic!("{tail:?}"),
        }
    }

    #[test]
    fn the_oldest_go_and_are_then_on_disk() {
        let mut tail = TailBuffer::new(10, 4 * 356);
        assert!(matches!(tail.read(10, 1), Tail::AtEnd));
        for offset in (10..30).step_by(2) {
            tail.push([stored(offset, 2)]);
        }
        assert_eq!(tail.end(), 30);
        assert!(matches!(tail.read(21, 1), Tail::OnDisk));
        assert_eq!(shape(&tail.read(22, 1_000)), [(22, 2), (24, 2), (26, 2), (28, 2)]);
        assert_eq!(shape(&tail.read(25, 1)), [(24, 2)], "at least the one around the offset");
        assert_eq!(shape(&tail.read(22, 250)), [(22, 2), (24, 2)]);
        assert!(matches!(tail.read(30, 1), Tail::AtEnd));
    }

    #[test]
    fn a_sign_of_life_comes_with_what_follows_and_never_half() {
        let mut tail = TailBuffer::new(0, 3 * 356);
        tail.push([stored(0, 0), stored(0, 1), stored(1, 0)]);
        assert_eq!(shape(&tail.read(0, 1)), [(0, 0), (0, 1)]);
        assert!(matches!(tail.read(1, 1), Tail::AtEnd), "nothing follows yet");
        tail.push([stored(1, 0)]);
        assert!(matches!(tail.read(0, 1), Tail::OnDisk), "its first sign of life is gone");
        tail.push([stored(1, 1)]);
        assert_eq!(shape(&tail.read(1, 1)), [(1, 0), (1, 0), (1, 1)]);
        tail.push([stored(2, 1)]);
        assert!(matches!(tail.read(1, 1), Tail::OnDisk));
        assert_eq!(shape(&tail.read(2, 1)), [(2, 1)]);
    }
}
