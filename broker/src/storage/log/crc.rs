//! Checksums of any part of a buffer without going through that part again.
//!
//! Where a frame is damaged, the next whole one is looked for at every place that looks like a header. A payload may be
//! made of such places, each announcing two mebibytes: to go through these for each of them would let a publisher choose
//! how long a recovery takes. Checksums of prefixes, which are linear, answer for each in constant time.

/// x^1, x^2, x^4, ... modulo the polynomial of CRC-32C, bits reversed.
const POWERS: [u32; 32] = powers();

const POLYNOMIAL: u32 = 0x82f6_3b78;

/// Bytes from one remembered prefix to the next.
const STEP: usize = 256;

/// The checksums of a buffer's prefixes, as far as they were asked for. Good for one buffer until it changes.
#[derive(Default)]
pub(super) struct Prefixes {
    /// Of the first `n * STEP` bytes.
    known: Vec<u32>,
}

impl Prefixes {
    /// To be called when the buffer is another.
    pub(super) fn clear(&mut self) {
        self.known.clear();
    }

    /// The checksum of what `seed` is the checksum of, followed by this part of the buffer. `None` when the buffer ends
    /// before.
    pub(super) fn append(&mut self, bytes: &[u8], seed: u32, from: usize, to: usize) -> Option<u32> {
        let len = to.checked_sub(from)?;
        let before = self.prefix(bytes, from)?;
        Some(shift(before ^ seed, len) ^ self.prefix(bytes, to)?)
    }

    fn prefix(&mut self, bytes: &[u8], end: usize) -> Option<u32> {
        let rest = bytes.get(end - end % STEP..end)?;
        let missing = bytes.get(self.known.len().saturating_sub(1) * STEP..end).unwrap_or_default();
        let mut crc = self.known.pop().unwrap_or(0);
        self.known.push(crc);
        for chunk in missing.chunks_exact(STEP) {
            crc = crc32c::crc32c_append(crc, chunk);
            self.known.push(crc);
        }
        self.known.get(end / STEP).map(|known| crc32c::crc32c_append(*known, rest))
    }
}

/// What a checksum contributes once this many bytes follow.
fn shift(crc: u32, len: usize) -> u32 {
    let mut factor = 1 << 31;
    // In bits: three powers on.
    for (bit, power) in POWERS.iter().skip(3).enumerate() {
        if len >> bit & 1 == 1 {
            factor = multiply(*power, factor);
        }
    }
    multiply(factor, crc)
}

/// The product of two polynomials modulo that of CRC-32C, bits reversed.
const fn multiply(a: u32, mut b: u32) -> u32 {
    let mut product = 0;
    let mut mask = 1 << 31;
    while mask != 0 {
        if a & mask != 0 {
            product ^= b;
        }
        b = if b & 1 == 1 { (b >> 1) ^ POLYNOMIAL } else { b >> 1 };
        mask >>= 1;
    }
    product
}

const fn powers() -> [u32; 32] {
    let mut powers = [0; 32];
    let mut power = 1 << 30;
    let mut n = 0;
    while n < powers.len() {
        powers[n] = power;
        power = multiply(power, power);
        n += 1;
    }
    powers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_has_the_checksum_that_going_through_it_gives() {
        let bytes: Vec<u8> = (0..4_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        let mut prefixes = Prefixes::default();
        let seed = crc32c::crc32c(b"what was before");
        for from in (0..bytes.len()).step_by(37).chain([255, 256, 257, 4_000]) {
            for to in [from, from + 1, from + 255, from + 256, from + 1_000, bytes.len()] {
                let plain = bytes.get(from..to).map(|part| crc32c::crc32c_append(seed, part));
                assert_eq!(prefixes.append(&bytes, seed, from, to), plain, "{from}..{to}");
            }
        }
        assert_eq!(prefixes.append(&bytes, seed, 5, 4), None);
        assert_eq!(prefixes.append(&bytes, seed, 5, 4_001), None);
    }
}
