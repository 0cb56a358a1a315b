//! Payloads that show when they were damaged.

/// So many bytes, not all alike, and the same ones each time.
pub(crate) fn payload(size_bytes: usize) -> Vec<u8> {
    // 251 is prime: no part of a payload looks like the part that is a power of two later.
    (0..=250).cycle().take(size_bytes).collect()
}

/// A moment at the beginning of a payload, nanoseconds after some start.
pub(super) fn stamp(payload: &mut [u8], moment_ns: u64) {
    if let Some(place) = payload.first_chunk_mut() {
        *place = moment_ns.to_be_bytes();
    }
}

/// The moment at the beginning of a payload that is otherwise this one.
pub(super) fn stamp_of(received: &[u8], expected: &[u8]) -> Option<u64> {
    let (moment_ns, rest) = received.split_first_chunk()?;
    let (_, expected_rest) = expected.split_first_chunk::<{ size_of::<u64>() }>()?;
    (rest == expected_rest).then(|| u64::from_be_bytes(*moment_ns))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_read_back_and_damage_is_seen() {
        let expected = payload(256);
        let mut sent = expected.clone();
        stamp(&mut sent, 1 << 40);
        assert_eq!(stamp_of(&sent, &expected), Some(1 << 40));
        sent[200] ^= 1;
        assert_eq!(stamp_of(&sent, &expected), None);
        assert_eq!(stamp_of(&sent[..7], &expected), None);
        assert_eq!(stamp_of(&expected[..255], &expected), None);
    }
}
