//! The members of a group, and whose turn it is.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

/// A member of a group: one lane of one session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MemberId {
    /// Its session.
    pub session: u64,
    /// Its lane there.
    pub lane: u64,
}

impl MemberId {
    const FIRST: Self = Self { session: 0, lane: 0 };
}

/// Who is there, and how many bytes each may still get.
#[derive(Debug, Default)]
pub(super) struct Members {
    /// Credit may be overdrawn by one batch, as everywhere on the wire, so it is signed.
    credit: BTreeMap<MemberId, i64>,
    /// Those with credit.
    ready: BTreeSet<MemberId>,
    /// Who was given something last; the turn goes on after it.
    last: Option<MemberId>,
}

impl Members {
    pub(super) fn len(&self) -> usize {
        self.credit.len()
    }

    pub(super) fn contains(&self, member: MemberId) -> bool {
        self.credit.contains_key(&member)
    }

    pub(super) fn insert(&mut self, member: MemberId, credit_bytes: u64) {
        self.credit.insert(member, 0);
        self.add(member, credit_bytes);
    }

    pub(super) fn remove(&mut self, member: MemberId) {
        self.credit.remove(&member);
        self.ready.remove(&member);
    }

    /// Adds to a member's credit.
    pub(super) fn add(&mut self, member: MemberId, bytes: u64) {
        let Some(credit) = self.credit.get_mut(&member) else { return };
        *credit = credit.saturating_add_unsigned(bytes);
        if *credit > 0 {
            self.ready.insert(member);
        }
    }

    /// The next with credit, in turn after the one who was given something last.
    pub(super) fn next(&self) -> Option<MemberId> {
        let after = self.last.map_or(Bound::Included(MemberId::FIRST), Bound::Excluded);
        self.ready.range((after, Bound::Unbounded)).next().or(self.ready.first()).copied()
    }

    /// Takes from a member's credit, and passes the turn on.
    pub(super) fn spend(&mut self, member: MemberId, bytes: u32) {
        self.last = Some(member);
        let Some(credit) = self.credit.get_mut(&member) else { return };
        *credit = credit.saturating_sub_unsigned(u64::from(bytes));
        if *credit <= 0 {
            self.ready.remove(&member);
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = MemberId> {
        self.credit.keys().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(session: u64) -> MemberId {
        MemberId { session, lane: 1 }
    }

    #[test]
    fn the_turn_goes_round_among_those_with_credit() {
        let mut members = Members::default();
        for session in 0..4 {
            members.insert(member(session), if session == 2 { 0 } else { 100 });
        }
        let mut turns = Vec::new();
        for _ in 0..6 {
            let next = members.next().unwrap();
            members.spend(next, 1);
            turns.push(next.session);
        }
        assert_eq!(turns, [0, 1, 3, 0, 1, 3]);
        members.remove(member(0));
        assert_eq!(members.next(), Some(member(1)), "the one whose turn it was has left");
    }

    #[test]
    fn credit_is_overdrawn_by_one_batch_at_most_and_never_overflows() {
        let mut members = Members::default();
        members.insert(member(1), 1);
        members.spend(member(1), u32::MAX);
        assert_eq!(members.next(), None);
        members.add(member(1), u64::from(u32::MAX) - 1);
        assert_eq!(members.next(), None, "still overdrawn");
        members.add(member(1), 1);
        assert_eq!(members.next(), Some(member(1)));
        members.add(member(1), u64::MAX);
        members.add(member(1), u64::MAX);
        assert_eq!(members.credit[&member(1)], i64::MAX);
        members.add(member(9), 5);
        assert_eq!(members.len(), 1, "credit makes no member");
    }
}
