//! Choices that look random and follow from a seed.

/// Numbers from a seed: SplitMix64.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// At most `most` of these, in their order, among them the first `always` ones.
    pub(super) fn sample<T>(&mut self, items: Vec<T>, always: usize, most: usize) -> Vec<T> {
        let mut wanted = most.saturating_sub(always);
        let mut left = items.len().saturating_sub(always);
        if wanted >= left {
            return items;
        }
        let mut items = items.into_iter();
        let mut chosen: Vec<T> = items.by_ref().take(always).collect();
        for item in items {
            // Each of those left is as likely as any other to be among those still wanted.
            if self.below(left as u64) < wanted as u64 {
                chosen.push(item);
                wanted -= 1;
            }
            left -= 1;
        }
        chosen
    }

    fn below(&mut self, bound: u64) -> u64 {
        // The bounds are small against 2^64, so that the bias does not matter here.
        self.next() % bound.max(1)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_keeps_the_first_and_the_order_and_follows_from_the_seed() {
        let sample = |seed, most| Random::new(seed).sample((0..100).collect::<Vec<u32>>(), 2, most);
        for seed in 0..50 {
            let chosen = sample(seed, 10);
            assert_eq!((chosen.len(), &chosen[..2]), (10, &[0, 1][..]));
            assert!(chosen.is_sorted() && chosen.windows(2).all(|pair| pair[0] < pair[1]));
            assert_eq!(chosen, sample(seed, 10));
        }
        assert_ne!(sample(1, 10), sample(2, 10));
        assert_eq!(sample(1, 100).len(), 100);
        assert_eq!(sample(1, 1), [0, 1], "what is always there is more than was asked for");
    }
}
