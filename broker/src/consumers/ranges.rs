//! A set of offsets, kept as the ranges that it consists of.

use std::collections::BTreeMap;
use std::ops::Range;

/// Offsets, as disjoint ranges that do not touch. Adding what is there already changes nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RangeSet {
    /// The end of each range, by its start.
    ends: BTreeMap<u64, u64>,
    /// Offsets in all of them.
    offsets: u64,
}

impl RangeSet {
    /// Adds the offsets of a range.
    pub fn insert(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let Range { mut start, mut end } = range;
        // Whatever overlaps or touches becomes one with it: at most one range begins before it, the others inside.
        if let Some((&before, &before_end)) = self.ends.range(..=start).next_back()
            && before_end >= start
        {
            start = before;
            end = end.max(before_end);
            self.remove(before, before_end);
        }
        while let Some((&inside, &inside_end)) = self.ends.range(start..=end).next() {
            end = end.max(inside_end);
            self.remove(inside, inside_end);
        }
        self.ends.insert(start, end);
        self.offsets += end - start;
    }

    /// Takes out the range that `position` is in or at the start of, with all that lies below it, and gives the first
    /// offset from `position` on that is not in the set.
    pub fn drain_to(&mut self, position: u64) -> u64 {
        let mut position = position;
        while let Some((&start, &end)) = self.ends.first_key_value()
            && start <= position
        {
            self.remove(start, end);
            position = position.max(end);
        }
        position
    }

    /// The first offset from this one on that is not in the set.
    #[must_use]
    pub fn next_gap(&self, offset: u64) -> u64 {
        let before = self.ends.range(..=offset).next_back();
        before.map_or(offset, |(_, &end)| end.max(offset))
    }

    /// The parts of a range that are not in the set, in order.
    pub fn gaps(&self, within: Range<u64>) -> Vec<Range<u64>> {
        let mut gaps = Vec::new();
        let mut at = within.start;
        let before = self.ends.range(..within.start).next_back();
        for (&start, &end) in before.into_iter().chain(self.ends.range(within.clone())) {
            if start > at {
                gaps.push(at..start);
            }
            at = at.max(end);
        }
        if at < within.end {
            gaps.push(at..within.end);
        }
        gaps
    }

    /// The ranges, in order.
    pub fn iter(&self) -> impl Iterator<Item = Range<u64>> {
        self.ends.iter().map(|(&start, &end)| start..end)
    }

    /// How many ranges there are.
    #[must_use]
    pub fn ranges(&self) -> usize {
        self.ends.len()
    }

    /// How many offsets there are in them.
    #[must_use]
    pub const fn offsets(&self) -> u64 {
        self.offsets
    }

    fn remove(&mut self, start: u64, end: u64) {
        self.ends.remove(&start);
        self.offsets -= end - start;
    }
}

impl FromIterator<Range<u64>> for RangeSet {
    fn from_iter<I: IntoIterator<Item = Range<u64>>>(ranges: I) -> Self {
        let mut set = Self::default();
        ranges.into_iter().for_each(|range| set.insert(range));
        set
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ranges_that_touch_become_one() {
        let mut set = RangeSet::default();
        set.insert(5..7);
        set.insert(9..10);
        set.insert(7..9);
        assert_eq!(set.gaps(0..20), [0..5, 10..20]);
        assert_eq!((set.ranges(), set.offsets()), (1, 5));
    }

    #[test]
    fn the_whole_range_of_offsets_has_no_overflow() {
        let mut set = RangeSet::default();
        set.insert(0..u64::MAX);
        set.insert(u64::MAX - 1..u64::MAX);
        assert_eq!((set.offsets(), set.gaps(0..u64::MAX)), (u64::MAX, Vec::new()));
        assert_eq!(set.drain_to(3), u64::MAX);
        assert_eq!((set.ranges(), set.offsets()), (0, 0));
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_set_of_single_offsets(
            ranges in proptest::collection::vec((0u64..64, 0u64..12), 0..40),
            position in 0u64..70,
            within in (0u64..64, 0u64..64),
        ) {
            let mut set = RangeSet::default();
            let mut naive = BTreeSet::new();
            for (start, len) in ranges {
                set.insert(start..start + len);
                naive.extend(start..start + len);
                prop_assert_eq!(set.iter().flatten().collect::<Vec<_>>(), naive.iter().copied().collect::<Vec<_>>());
                prop_assert_eq!(set.offsets(), naive.len() as u64);
                let ranges: Vec<_> = set.iter().collect();
                prop_assert!(ranges.windows(2).all(|pair| pair[0].end < pair[1].start));
            }
            let within = within.0..within.0 + within.1;
            let gaps: Vec<u64> = set.gaps(within.clone()).into_iter().flatten().collect();
            prop_assert_eq!(gaps, within.filter(|offset| !naive.contains(offset)).collect::<Vec<_>>());

            let mut expected = position;
            while naive.contains(&expected) {
                expected += 1;
            }
            prop_assert_eq!(set.next_gap(position), expected);
            prop_assert_eq!(set.drain_to(position), expected);
            naive.retain(|offset| *offset > expected);
            prop_assert_eq!(set.iter().flatten().collect::<Vec<_>>(), naive.into_iter().collect::<Vec<_>>());
        }
    }
}
