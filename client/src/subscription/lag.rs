//! Which gaps are news. Pure.
//!
//! A broker that drops messages of a slow consumer says how many, and the producers' sequences show the same loss a
//! second time. A gap that the lag explains is not reported again; what is missing beyond it is.

/// Messages that the broker said it dropped, and that no gap has used up yet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct LagAccount {
    unexplained: u64,
}

impl LagAccount {
    /// The broker said that it dropped messages.
    pub(super) fn handle_lagged(&mut self, missed: u64) {
        self.unexplained = self.unexplained.saturating_add(missed);
    }

    /// A producer's sequence has a gap: how much of it is news.
    pub(super) fn handle_gap(&mut self, missed: u64) -> u64 {
        let explained = missed.min(self.unexplained);
        self.unexplained -= explained;
        missed - explained
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lag_explains_gaps_up_to_its_sum() {
        let mut account = LagAccount::default();
        assert_eq!(account.handle_gap(3), 3, "nothing was said to be lost");
        account.handle_lagged(2);
        account.handle_lagged(3);
        assert_eq!(account.handle_gap(4), 0);
        assert_eq!(account.handle_gap(4), 3, "only one of them was announced");
        assert_eq!(account.handle_gap(1), 1);
    }
}
