//! How long a client has to wait before it is heard again. Pure.

use sealbus_protocol::session::Tick;

/// Refusals at once: all batches that a client may have unacknowledged on sixteen topics, as when a grant is
/// withdrawn.
const BURST: u64 = 1_024;

/// Refusals in a second, in the long run.
const PER_SECOND: u64 = 64;

/// A bucket of refusals that fills again with time, and the rest that a client needs when its principal has done more
/// than may be recorded. A client that has to wait is not read from for a while, which costs nobody but itself.
#[derive(Debug)]
pub(crate) struct Patience {
    left: u64,
    filled: Tick,
    /// When what the client did is paid for.
    rest: Option<Tick>,
}

impl Patience {
    /// A full bucket.
    pub(crate) const fn new_at(now: Tick) -> Self {
        Self { left: BURST, filled: now, rest: None }
    }

    /// Takes a refusal out.
    pub(crate) fn spend_at(&mut self, now: Tick) {
        self.fill_at(now);
        self.left = self.left.saturating_sub(1);
    }

    /// From now on the client is not heard before this moment.
    pub(crate) fn rest_until(&mut self, until: Tick) {
        self.rest = self.rest.max(Some(until));
    }

    /// When the client may be read from again; none when it may now.
    pub(crate) fn poll_wait_at(&mut self, now: Tick) -> Option<Tick> {
        self.fill_at(now);
        self.rest.take_if(|until| *until <= now);
        let refusal = (self.left == 0).then(|| self.filled.after_ms(1_000 / PER_SECOND + 1));
        refusal.max(self.rest)
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

    #[test]
    fn a_client_rests_until_the_later_of_both_moments() {
        let mut patience = Patience::new_at(Tick(0));
        patience.rest_until(Tick(50));
        patience.rest_until(Tick(40));
        assert_eq!(patience.poll_wait_at(Tick(49)), Some(Tick(50)));
        assert_eq!(patience.poll_wait_at(Tick(50)), None);
        (0..BURST).for_each(|_| patience.spend_at(Tick(50)));
        let refused = patience.poll_wait_at(Tick(50)).unwrap();
        patience.rest_until(Tick(51));
        assert_eq!(patience.poll_wait_at(Tick(50)), Some(refused));
        patience.rest_until(refused.after_ms(1_000));
        assert_eq!(patience.poll_wait_at(refused), Some(refused.after_ms(1_000)));
    }
}
