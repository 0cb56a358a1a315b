//! Where a stored batch may stand among the offsets of its stream. Pure.
//!
//! ```text
//!   offset   0     3        8    10
//!            | b0  |   b1   | b2 |            next = 10
//!            '-----'--------'----'
//!   at 10: next          at 12: after a gap of 2          at 3: b1 again, or a rewrite
//! ```
//!
//! A stream never gives one offset twice. So the same batch at the same offset is a redelivery, another batch there is
//! a rewrite of history, and the same batch elsewhere is a replay of it.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;

use sealbus_protocol::ids::PreambleDigest;

/// Batches that are remembered with their offsets: as many as a durable consumer leaves unacknowledged when it does
/// not say otherwise, and with a message each the most that comes again after a reconnect.
const SEEN_MAX: usize = 1_024;

/// In which order the batches of a stream come to a reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// The log from a place on: each batch once, offsets rising.
    Log,
    /// Dead letters from a place on: offsets rise, but a batch is there as often as messages of it were given up.
    DeadLetters,
    /// As work is shared out among a group, and shared out again.
    Shared,
}

/// A verified batch, where the broker says that it stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct Arrival {
    pub(super) offset: u64,
    /// Offsets that it takes.
    pub(super) messages: u32,
    pub(super) digest: PreambleDigest,
    /// Counts the connections of the bus.
    pub(super) connection: u64,
}

impl Arrival {
    /// The offset behind it; none when offsets do not reach that far.
    fn end(self) -> Option<u64> {
        self.offset.checked_add(u64::from(self.messages))
    }
}

/// A batch's place, when nothing is wrong with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OffsetPlace {
    /// To be handed out.
    Next,
    /// To be handed out; offsets before it did not come.
    AfterGap {
        /// The first offset that is missing.
        from: u64,
    },
    /// It came before, on an earlier connection, and is not to be handed out a second time.
    Again,
}

/// What is wrong with a batch's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OffsetError {
    /// The history goes back.
    Back { offset: u64, expected: u64 },
    /// The same batch stood elsewhere before.
    Elsewhere { offset: u64, before: u64 },
    /// Another batch stood there before.
    Rewrite { offset: u64 },
    /// Its offsets do not end within those that there are.
    End { offset: u64 },
}

impl fmt::Display for OffsetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Back { offset, expected } => {
                write!(f, "it stands at offset {offset}; the history was read up to {expected} before")
            }
            Self::Elsewhere { offset, before } => {
                write!(f, "it stands at offset {offset}, and stood at offset {before} before")
            }
            Self::Rewrite { offset } => write!(f, "another batch stood at offset {offset} before"),
            Self::End { offset } => write!(f, "offsets from {offset} on cannot be counted"),
        }
    }
}

/// Follows the offsets of one stream.
#[derive(Debug)]
pub(super) struct OffsetReader {
    order: Order,
    /// The offset after everything that was read; where it begins, before anything was.
    next: u64,
    seen: BTreeMap<u64, Seen>,
    ages: VecDeque<u64>,
    places: HashMap<PreambleDigest, u64>,
}

#[derive(Debug)]
struct Seen {
    end: u64,
    digest: PreambleDigest,
    connection: u64,
}

impl OffsetReader {
    pub(super) fn new(order: Order, begin: u64) -> Self {
        Self { order, next: begin, seen: BTreeMap::new(), ages: VecDeque::new(), places: HashMap::new() }
    }

    /// The offset that reading goes on from.
    pub(super) const fn next(&self) -> u64 {
        self.next
    }

    /// Offsets up to there will not come.
    pub(super) fn skip_to(&mut self, to: u64) {
        self.next = self.next.max(to);
    }

    /// Judges the place of a verified batch. [`OffsetReader::advance`] moves past it.
    pub(super) fn judge(&self, arrival: Arrival) -> Result<OffsetPlace, OffsetError> {
        let offset = arrival.offset;
        let end = arrival.end().ok_or(OffsetError::End { offset })?;
        if let Some(seen) = self.seen.get(&offset) {
            return self.judge_again(seen, arrival);
        }
        if arrival.messages > 0 {
            self.check_free(offset, end)?;
        }
        if let Some(before) = self.places.get(&arrival.digest) {
            return Err(OffsetError::Elsewhere { offset, before: *before });
        }
        match self.order {
            Order::Shared => Ok(OffsetPlace::Next),
            Order::Log | Order::DeadLetters => self.judge_rising(offset, end),
        }
    }

    /// Moves past a batch whose place is in order, and remembers it.
    pub(super) fn advance(&mut self, arrival: Arrival) {
        let Some(end) = arrival.end() else { return };
        self.next = self.next.max(end);
        if arrival.messages > 0 && !self.seen.contains_key(&arrival.offset) {
            self.remember(end, arrival);
        }
    }

    fn judge_again(&self, seen: &Seen, arrival: Arrival) -> Result<OffsetPlace, OffsetError> {
        let offset = arrival.offset;
        if seen.digest != arrival.digest {
            return Err(OffsetError::Rewrite { offset });
        }
        match self.order {
            Order::Shared => Ok(OffsetPlace::Next),
            Order::Log | Order::DeadLetters if seen.connection < arrival.connection => Ok(OffsetPlace::Again),
            Order::Log | Order::DeadLetters => Err(OffsetError::Back { offset, expected: self.next }),
        }
    }

    /// Whether no batch that is remembered takes any of these offsets.
    fn check_free(&self, offset: u64, end: u64) -> Result<(), OffsetError> {
        let before = self.seen.range(..offset).next_back();
        let overlaps = before.is_some_and(|(_, seen)| seen.end > offset)
            || self.seen.range(offset..end).next().is_some();
        if overlaps { Err(OffsetError::Rewrite { offset }) } else { Ok(()) }
    }

    fn judge_rising(&self, offset: u64, end: u64) -> Result<OffsetPlace, OffsetError> {
        if offset > self.next {
            return Ok(OffsetPlace::AfterGap { from: self.next });
        }
        // Reading may begin in the middle of a batch, which is delivered whole; later it stands between two.
        let begins_within = self.seen.is_empty() && end > self.next;
        if offset == self.next || begins_within {
            return Ok(OffsetPlace::Next);
        }
        Err(OffsetError::Back { offset, expected: self.next })
    }

    fn remember(&mut self, end: u64, arrival: Arrival) {
        let Arrival { offset, digest, connection, .. } = arrival;
        if self.ages.len() == SEEN_MAX
            && let Some(oldest) = self.ages.pop_front()
            && let Some(seen) = self.seen.remove(&oldest)
        {
            self.places.remove(&seen.digest);
        }
        self.ages.push_back(offset);
        self.seen.insert(offset, Seen { end, digest, connection });
        match self.order {
            Order::Log | Order::Shared => drop(self.places.insert(digest, offset)),
            Order::DeadLetters => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(offset: u64, messages: u32, digest: u8) -> Arrival {
        Arrival { offset, messages, digest: PreambleDigest::new([digest; 32]), connection: 1 }
    }

    fn handle(offsets: &mut OffsetReader, arrival: Arrival) -> Result<OffsetPlace, OffsetError> {
        let place = offsets.judge(arrival)?;
        offsets.advance(arrival);
        Ok(place)
    }

    fn again(arrival: Arrival) -> Arrival {
        Arrival { connection: 2, ..arrival }
    }

    #[test]
    fn batches_that_follow_each_other_are_next_and_gaps_name_their_begin() {
        let mut offsets = OffsetReader::new(Order::Log, 0);
        assert_eq!(handle(&mut offsets, batch(0, 3, 1)), Ok(OffsetPlace::Next));
        assert_eq!(handle(&mut offsets, batch(3, 1, 2)), Ok(OffsetPlace::Next));
        assert_eq!(handle(&mut offsets, batch(9, 1, 3)), Ok(OffsetPlace::AfterGap { from: 4 }));
        offsets.skip_to(20);
        assert_eq!(handle(&mut offsets, batch(20, 1, 4)), Ok(OffsetPlace::Next));
    }

    #[test]
    fn a_heartbeat_takes_no_offset() {
        let mut offsets = OffsetReader::new(Order::Log, 0);
        for (arrival, digest) in
            [(0, 1), (0, 2)].map(|(messages, digest)| (batch(0, messages, digest), digest))
        {
            assert_eq!(handle(&mut offsets, arrival), Ok(OffsetPlace::Next), "{digest}");
        }
        assert_eq!(handle(&mut offsets, batch(0, 1, 3)), Ok(OffsetPlace::Next));
        assert_eq!(offsets.next(), 1);
    }

    #[test]
    fn a_history_that_goes_back_is_refused_and_another_one_is_a_rewrite() {
        let mut offsets = OffsetReader::new(Order::Log, 10);
        handle(&mut offsets, batch(10, 2, 1)).unwrap();
        assert_eq!(
            handle(&mut offsets, batch(10, 2, 1)),
            Err(OffsetError::Back { offset: 10, expected: 12 })
        );
        assert_eq!(handle(&mut offsets, batch(10, 2, 2)), Err(OffsetError::Rewrite { offset: 10 }));
        assert_eq!(handle(&mut offsets, batch(11, 1, 3)), Err(OffsetError::Rewrite { offset: 11 }));
        assert_eq!(handle(&mut offsets, batch(9, 2, 3)), Err(OffsetError::Rewrite { offset: 9 }));
        assert_eq!(handle(&mut offsets, batch(9, 1, 3)), Err(OffsetError::Back { offset: 9, expected: 12 }));
        assert_eq!(
            handle(&mut offsets, batch(12, 2, 1)),
            Err(OffsetError::Elsewhere { offset: 12, before: 10 })
        );
        assert_eq!(offsets.next(), 12, "nothing of that moves it");
    }

    #[test]
    fn what_comes_again_after_a_reconnect_is_passed_over() {
        let mut offsets = OffsetReader::new(Order::Log, 0);
        handle(&mut offsets, batch(0, 2, 1)).unwrap();
        assert_eq!(handle(&mut offsets, again(batch(0, 2, 1))), Ok(OffsetPlace::Again));
        assert_eq!(handle(&mut offsets, again(batch(0, 2, 9))), Err(OffsetError::Rewrite { offset: 0 }));
        assert_eq!(handle(&mut offsets, again(batch(2, 2, 2))), Ok(OffsetPlace::Next));
    }

    #[test]
    fn reading_may_begin_within_a_batch_and_only_begin() {
        let mut offsets = OffsetReader::new(Order::Log, 5);
        assert!(handle(&mut offsets, batch(2, 3, 1)).is_err(), "it ends before the begin");
        assert_eq!(handle(&mut offsets, batch(3, 4, 2)), Ok(OffsetPlace::Next));
        assert!(handle(&mut offsets, batch(6, 4, 3)).is_err());
    }

    #[test]
    fn a_group_gets_its_work_in_any_order_and_again() {
        let mut offsets = OffsetReader::new(Order::Shared, 0);
        for arrival in [batch(7, 2, 1), batch(3, 2, 2), batch(7, 2, 1), batch(9, 1, 3)] {
            assert_eq!(handle(&mut offsets, arrival), Ok(OffsetPlace::Next));
        }
        assert_eq!(handle(&mut offsets, batch(3, 2, 9)), Err(OffsetError::Rewrite { offset: 3 }));
        assert_eq!(handle(&mut offsets, batch(4, 1, 9)), Err(OffsetError::Rewrite { offset: 4 }));
        assert_eq!(
            handle(&mut offsets, batch(20, 2, 2)),
            Err(OffsetError::Elsewhere { offset: 20, before: 3 })
        );
    }

    #[test]
    fn one_batch_may_be_there_twice_among_dead_letters() {
        let mut offsets = OffsetReader::new(Order::DeadLetters, 0);
        assert_eq!(handle(&mut offsets, batch(0, 1, 1)), Ok(OffsetPlace::Next));
        assert_eq!(handle(&mut offsets, batch(1, 2, 1)), Ok(OffsetPlace::Next));
        assert!(handle(&mut offsets, batch(1, 2, 1)).is_err());
    }

    #[test]
    fn memory_is_bounded_and_offsets_do_not_overflow() {
        let mut offsets = OffsetReader::new(Order::Shared, 0);
        for offset in 0..2 * SEEN_MAX as u64 {
            let mut digest = [0; 32];
            digest[..8].copy_from_slice(&offset.to_be_bytes());
            let digest = PreambleDigest::new(digest);
            handle(&mut offsets, Arrival { offset, messages: 1, digest, connection: 1 }).unwrap();
        }
        assert_eq!(
            (offsets.seen.len(), offsets.places.len(), offsets.ages.len()),
            (SEEN_MAX, SEEN_MAX, SEEN_MAX)
        );
        assert_eq!(handle(&mut offsets, batch(u64::MAX, 1, 7)), Err(OffsetError::End { offset: u64::MAX }));
    }
}
