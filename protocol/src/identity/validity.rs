//! A span of time in which a certificate or a key binding counts.

/// From `not_before_ms` to `not_after_ms`, both included, in milliseconds of Unix time. One that ends before it
/// begins holds no moment at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Validity {
    /// The first moment.
    pub not_before_ms: u64,
    /// The last moment.
    pub not_after_ms: u64,
}

impl Validity {
    /// Whether the moment lies in the span.
    #[must_use]
    pub const fn holds_at(&self, at_ms: u64) -> bool {
        self.not_before_ms <= at_ms && at_ms <= self.not_after_ms
    }

    /// Whether the whole span lies in the other.
    #[must_use]
    pub const fn lies_within(&self, outer: &Self) -> bool {
        outer.not_before_ms <= self.not_before_ms
            && self.not_before_ms <= self.not_after_ms
            && self.not_after_ms <= outer.not_after_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_belong_to_the_span() {
        let span = Validity { not_before_ms: 10, not_after_ms: 20 };
        assert_eq!([9, 10, 20, 21].map(|at_ms| span.holds_at(at_ms)), [false, true, true, false]);
    }

    #[test]
    fn a_span_within_another_exceeds_neither_end() {
        let outer = Validity { not_before_ms: 10, not_after_ms: 20 };
        for (not_before_ms, not_after_ms, expected) in
            [(10, 20, true), (12, 13, true), (9, 20, false), (10, 21, false), (15, 14, false), (0, 5, false)]
        {
            assert_eq!(Validity { not_before_ms, not_after_ms }.lies_within(&outer), expected);
        }
    }
}
