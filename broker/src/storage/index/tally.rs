//! The sum over all rows of a log, by which lost, changed and left-over rows are noticed.

use sha2::{Digest as _, Sha256};

/// How many rows, and the sum of their hashes modulo 2^128. The order in which they came does not matter, so that one
/// row can be taken out and put in. It guards against accidents, not against somebody who computes it anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Rows.
    pub rows: u64,
    /// Sum of the first sixteen bytes of SHA-256 over each.
    pub sum: u128,
}

impl Tally {
    /// A row is there.
    pub fn add(&mut self, key: &[u8], value: &[u8]) {
        self.rows = self.rows.wrapping_add(1);
        self.sum = self.sum.wrapping_add(hash(key, value));
    }

    /// A row is not there any more. One that never was makes a tally that no rows have.
    pub fn remove(&mut self, key: &[u8], value: &[u8]) {
        self.rows = self.rows.wrapping_sub(1);
        self.sum = self.sum.wrapping_sub(hash(key, value));
    }
}

fn hash(key: &[u8], value: &[u8]) -> u128 {
    let len = u64::try_from(key.len()).expect("a length in memory fits 64 bits");
    let hash = Sha256::new().chain_update(len.to_be_bytes()).chain_update(key).chain_update(value).finalize();
    let (head, _) = hash.as_slice().split_first_chunk().expect("a hash has sixteen bytes");
    u128::from_be_bytes(*head)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_does_not_matter_and_every_byte_does() {
        let mut one = Tally::default();
        one.add(b"a", b"1");
        one.add(b"b", b"2");
        let mut other = Tally::default();
        other.add(b"b", b"2");
        other.add(b"c", b"3");
        other.add(b"a", b"1");
        other.remove(b"c", b"3");
        assert_eq!(one, other);
        for (key, value) in [(&b"b"[..], &b"3"[..]), (b"c", b"2"), (b"b2", b""), (b"", b"b2")] {
            let mut changed = one;
            changed.remove(b"b", b"2");
            changed.add(key, value);
            assert_ne!(one, changed);
        }
    }
}
