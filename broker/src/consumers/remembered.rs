//! Delivery counts from before the broker was started, until their records are read again.

use std::ops::Range;

use crate::storage::system::DeliveryCount;

/// Counts of records that have not been read yet, in order of offsets. All others have been handed out never, as far
/// as is known.
#[derive(Debug, Default)]
pub(super) struct Remembered {
    counts: std::collections::VecDeque<DeliveryCount>,
}

impl Remembered {
    pub(super) fn new(counts: impl Iterator<Item = DeliveryCount>) -> Self {
        Self { counts: counts.collect() }
    }

    /// Cuts a range of offsets, which holds fewer than 2^32, into parts that were handed out equally often.
    pub(super) fn split(&self, range: Range<u64>) -> Vec<DeliveryCount> {
        let mut parts = Vec::new();
        let mut at = range.start;
        let mut push = |offsets: Range<u64>, deliveries| {
            if !offsets.is_empty() {
                let records = u32::try_from(offsets.end - offsets.start);
                let records = records.expect("a part of a batch has fewer records than 2^32");
                parts.push(DeliveryCount { offset: offsets.start, records, deliveries });
            }
        };
        for count in &self.counts {
            let counted = count.offsets().start.max(at)..count.offsets().end.min(range.end);
            if counted.is_empty() {
                continue;
            }
            push(at..counted.start, 0);
            at = counted.end;
            push(counted, count.deliveries);
        }
        push(at..range.end, 0);
        parts
    }

    /// What lies below has been read.
    pub(super) fn forget_below(&mut self, offset: u64) {
        while let Some(first) = self.counts.front_mut() {
            let offsets = first.offsets();
            if offsets.end > offset {
                if offsets.start < offset {
                    first.offset = offset;
                    let records = u32::try_from(offsets.end - offset);
                    first.records = records.expect("a part is not larger than the whole");
                }
                return;
            }
            self.counts.pop_front();
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = DeliveryCount> {
        self.counts.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(offset: u64, records: u32, deliveries: u32) -> DeliveryCount {
        DeliveryCount { offset, records, deliveries }
    }

    #[test]
    fn a_range_is_cut_where_the_counts_change() {
        let counts = [count(10, 5, 2), count(15, 1, 3), count(20, 100, 4)];
        let mut remembered = Remembered::new(counts.into_iter());
        let parts = remembered.split(8..25);
        assert_eq!(
            parts,
            [count(8, 2, 0), count(10, 5, 2), count(15, 1, 3), count(16, 4, 0), count(20, 5, 4)]
        );
        assert_eq!(remembered.split(11..13), [count(11, 2, 2)]);
        assert_eq!(remembered.split(0..3), [count(0, 3, 0)]);
        remembered.forget_below(25);
        assert_eq!(remembered.iter().collect::<Vec<_>>(), [count(25, 95, 4)]);
        remembered.forget_below(u64::MAX);
        assert_eq!(remembered.iter().count(), 0);
    }
}
