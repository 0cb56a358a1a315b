//! How many refusals a client may cause before it has to wait. Pure.

use sealbus_protocol::session::Tick;

/// Refusals at once: all batches that a client may have unacknowledged on sixteen topics, as when a grant is
/// withdrawn.
const BURST: u64 = 1_024;

/// Refusals in a second, in the long run.
const PER_SECOND: u64 = 64;

/// A bucket of refusals that fills again with time. A client that has emptied it is not read from for a while, which
/// costs nobody but itself.
#[derive(Debug)]
pub(crate) struct Patience {
    left: u64,
    filled: Tick,
}

impl Patience {
    /// A full bucket.
    pub(crate) const fn new_at(now: Tick) -> Self {
        Self { left: BURST, filled: now }
    }

    /// Takes a refusal out.
    pub(crate) fn spend_at(&mut self, now: Tick) {
        self.fill_at(now);
        self.left = self.left.saturating_sub(1);
    }

    /// When the client may be read from again; none when it may now.
    pub(crate) fn poll_wait_at(&mut self, now: Tick) -> Option<Tick> {
        self.fill_at(now);
        (self.left == 0).then(|| self.filled.after_ms(1_000 / PER_SECOND + 1))
    }

    fn fill_at(&mut self, now: Tick) {
        let more = now.since(self.filled).saturating_mul(PER_SECOND) / 1_000;
        if more > 0 {
            self.left = self.left.saturating_add(more).min(BURST);
            self.filled = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_ends_and_comes_back() {
        let mut patience = Patience::new_at(Tick(0));
        for _ in 0..BURST {
            assert_eq!(patience.poll_wait_at(Tick(0)), None);
            patience.spend_at(Tick(0));
        }
        let until = patience.poll_wait_at(Tick(0)).unwrap();
        assert!(patience.poll_wait_at(until).is_none());
        patience.spend_at(until);
        assert!(patience.poll_wait_at(until).is_some());
        assert!(patience.poll_wait_at(until.after_ms(60_000)).is_none());
        assert_eq!(patience.left, BURST);
    }
}
