//! Choices that a seed repeats.

use std::cell::Cell;

/// A stream of numbers from a seed (SplitMix64): good enough to choose with, and the same everywhere.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// The numbers of this seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub const fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number of `from..=to`.
    pub fn between(&mut self, from: u64, to: u64) -> u64 {
        let width = to.saturating_sub(from).saturating_add(1);
        from.saturating_add(self.number().checked_rem(width).unwrap_or_default())
    }

    /// Whether something happens that does so once in `times`.
    pub fn one_in(&mut self, times: u64) -> bool {
        self.between(1, times.max(1)) == 1
    }

    /// One of these.
    ///
    /// # Panics
    /// When there are none.
    pub fn pick<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        let last = choices.len().checked_sub(1).expect("there is something to choose from");
        let place = usize::try_from(self.between(0, last as u64)).unwrap_or_default();
        choices.get(place).expect("the place is one of theirs")
    }

    /// So many bytes. They are not all alike, so that a lost sector never looks like one that was written.
    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(len.saturating_add(8));
        while bytes.len() < len {
            bytes.extend(self.number().to_be_bytes());
        }
        bytes.truncate(len);
        bytes
    }
}

thread_local! {
    static SALTS: Cell<u64> = const { Cell::new(1) };
}

/// Makes the salts of this thread those of a seed.
pub fn seed_salts(seed: u64) {
    SALTS.set(Random::new(seed).number());
}

/// The next salt of this thread: what a segment is given in place of the system's randomness.
#[must_use]
pub fn salt() -> u64 {
    let mut random = Random::new(SALTS.get());
    let salt = random.number();
    SALTS.set(salt);
    salt
}
