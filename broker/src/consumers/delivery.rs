//! The records of a consumer that were handed out and are not settled, as runs of records in the same state.
//!
//! ```text
//!              hand out            ack_wait over, nack, leave
//!   Due -------------------> Flying -------------------------> Waiting --(its tick)--> Due
//!    ^                         |   \                              (at once: Due)
//!    '---- a new batch         |    '--- handed out max_deliver times ---> Dead --> Burying ---> settled
//!                              |                                             ^         |
//!                             ack: settled                                   '-- Unburied: could not be kept
//! ```
//!
//! A run lies within one batch. Runs that have become alike are joined, so that there are never more of them than
//! records; what is settled is not in here.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use sealbus_protocol::session::Tick;

use super::limits::RANGES_PER_DELIVERY_MAX;
use super::member::MemberId;
use crate::storage::stream::store::DeadRange;
use crate::storage::system::DeliveryCount;

/// Records of one batch that are handed out together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandedOut {
    /// Offset of the batch's first record.
    pub batch: u64,
    /// Which of its records, in order.
    pub ranges: Vec<HandedRange>,
}

impl HandedOut {
    /// How many records.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.ranges.iter().map(|range| u64::from(range.count)).sum()
    }
}

/// Records of a batch that follow one another and were handed out equally often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HandedRange {
    /// The first, counted from 0 within the batch.
    pub first: u32,
    /// How many.
    pub count: u32,
    /// How often they have been handed out, with this time: from 1.
    pub deliveries: u32,
}

/// Records that were handed out as often as they may be, to be kept as a dead letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Offset of the batch's first record.
    pub batch: u64,
    /// Which of its records, in order.
    pub ranges: Vec<DeadRange>,
}

/// What the table needs to know of a batch.
#[derive(Debug, Clone, Copy)]
struct Batch {
    /// What handing it out takes of a member's credit.
    bytes: u32,
    /// Records that are not settled.
    left: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// With a member until then.
    Flying { member: MemberId, deadline: Tick },
    /// To be handed out, not before then.
    Waiting { due: Tick },
    /// To be handed out.
    Due,
    /// To be buried.
    Dead,
    /// Being written to the dead letters.
    Burying,
    /// To be buried, not before then.
    Unburied { due: Tick },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) records: u32,
    /// Offset of its batch's first record.
    pub(super) batch: u64,
    pub(super) deliveries: u32,
    pub(super) state: State,
    /// Who had it last, before whoever has it now. That member's acknowledgement may be late, and still counts.
    pub(super) before: Option<MemberId>,
}

impl Run {
    /// Whether two runs that touch are one.
    fn joins(&self, other: &Self) -> bool {
        let Self { records: _, batch, deliveries, state, before } = *self;
        batch == other.batch
            && deliveries == other.deliveries
            && state == other.state
            && before == other.before
    }

    fn end(&self, start: u64) -> u64 {
        // A batch whose offsets would overflow was refused when it came.
        start + u64::from(self.records)
    }

    /// Whether this member may settle it: it has it, or had it last. What is being buried is decided.
    pub(super) fn may_be_settled_by(&self, member: MemberId) -> bool {
        match self.state {
            State::Flying { member: holder, .. } => holder == member || self.before == Some(member),
            State::Waiting { .. } | State::Due | State::Dead | State::Unburied { .. } => {
                self.before == Some(member)
            }
            State::Burying => false,
        }
    }

    pub(super) fn is_held_by(&self, member: MemberId) -> bool {
        matches!(self.state, State::Flying { member: holder, .. } if holder == member)
    }
}

/// All runs of a consumer, and where to find those that something must be done about.
#[derive(Debug, Default)]
pub(super) struct Outstanding {
    /// By the offset of their first record.
    runs: BTreeMap<u64, Run>,
    batches: BTreeMap<u64, Batch>,
    records: u64,
    timers: BTreeSet<(Tick, u64)>,
    due: BTreeSet<u64>,
    dead: BTreeSet<u64>,
    flying: BTreeSet<(MemberId, u64)>,
    /// By who had them before whoever has them now.
    had: BTreeSet<(MemberId, u64)>,
}

/// Which runs a member's word reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// Those that it has.
    Held,
    /// Those that it may settle: also those that it had last.
    Settleable,
}

impl Outstanding {
    /// Records that are not settled.
    pub(super) const fn records(&self) -> u64 {
        self.records
    }

    pub(super) fn batch_bytes(&self, batch: u64) -> u32 {
        self.batches.get(&batch).map_or(0, |batch| batch.bytes)
    }

    /// Adds records of a new batch.
    pub(super) fn add(&mut self, batch: u64, bytes: u32, start: u64, run: Run) {
        let entry = self.batches.entry(batch).or_insert(Batch { bytes, left: 0 });
        entry.left += run.records;
        self.records += u64::from(run.records);
        self.insert(start, run);
    }

    /// The first record, at or after `from`, that is to be handed out.
    pub(super) fn first_due(&self, from: u64) -> Option<u64> {
        self.due.range(from..).next().copied()
    }

    /// Hands out the due records of the batch that the record at `first` is in, as many pieces of it as one delivery
    /// can name.
    pub(super) fn hand_out(&mut self, first: u64, member: MemberId, deadline: Tick) -> HandedOut {
        let batch = self.runs.get(&first).map_or(first, |run| run.batch);
        let ranges = self.take_pieces(first, batch, PieceKind::Due, |run| Run {
            deliveries: run.deliveries.saturating_add(1),
            state: State::Flying { member, deadline },
            ..run
        });
        let ranges = ranges.into_iter().map(|(first, run)| HandedRange {
            first,
            count: run.records,
            deliveries: run.deliveries,
        });
        HandedOut { batch, ranges: ranges.collect() }
    }

    /// The next records to bury.
    pub(super) fn take_dead(&mut self) -> Option<DeadLetter> {
        let first = *self.dead.first()?;
        let batch = self.runs.get(&first)?.batch;
        let ranges =
            self.take_pieces(first, batch, PieceKind::Dead, |run| Run { state: State::Burying, ..run });
        let ranges = ranges.into_iter().map(|(first, run)| DeadRange {
            first,
            count: run.records,
            deliveries: run.deliveries,
        });
        Some(DeadLetter { batch, ranges: ranges.collect() })
    }

    pub(super) fn has_dead(&self) -> bool {
        !self.dead.is_empty()
    }

    /// Changes those runs in a range that `picks` picks, or the parts of them that lie in it. What becomes nothing is
    /// settled. Gives the offsets that were changed.
    pub(super) fn change(
        &mut self,
        range: Range<u64>,
        picks: impl Fn(&Run) -> bool,
        mut becomes: impl FnMut(Run) -> Option<Run>,
    ) -> Vec<Range<u64>> {
        let begins_before = self.runs.range(..range.start).next_back();
        let inside = self.runs.range(range.clone());
        let touched = begins_before.into_iter().chain(inside);
        let touched = touched.filter(|(start, run)| run.end(**start) > range.start && picks(run));
        let starts: Vec<u64> = touched.map(|(&start, _)| start).collect();
        self.change_parts(starts, range, &mut becomes)
    }

    /// As [`Outstanding::change`], of what a member may speak about. It looks at nothing else, so that a word about
    /// everything costs what the member has and not what the group has: members send many of them.
    pub(super) fn change_of(
        &mut self,
        member: MemberId,
        range: Range<u64>,
        reach: Reach,
        mut becomes: impl FnMut(Run) -> Option<Run>,
    ) -> Vec<Range<u64>> {
        let within = |index: &BTreeSet<(MemberId, u64)>| -> Vec<u64> {
            let begins_before = index.range((member, 0)..(member, range.start)).next_back();
            let inside = index.range((member, range.start)..(member, range.end));
            begins_before.into_iter().chain(inside).map(|(_, start)| *start).collect()
        };
        let mut starts = within(&self.flying);
        if reach == Reach::Settleable {
            starts.extend(within(&self.had));
            starts.sort_unstable();
            starts.dedup();
        }
        let is_touched = |start: &u64| {
            self.runs.get(start).is_some_and(|run| {
                let may = match reach {
                    Reach::Held => run.is_held_by(member),
                    Reach::Settleable => run.may_be_settled_by(member),
                };
                may && run.end(*start) > range.start
            })
        };
        starts.retain(is_touched);
        self.change_parts(starts, range, &mut becomes)
    }

    /// Changes the runs that begin there, or the parts of them that lie in a range.
    fn change_parts(
        &mut self,
        starts: Vec<u64>,
        range: Range<u64>,
        becomes: &mut impl FnMut(Run) -> Option<Run>,
    ) -> Vec<Range<u64>> {
        let mut changed = Vec::with_capacity(starts.len());
        for start in starts {
            // Joining only ever moves the start of a run that was changed already, never of one that is still to come.
            let Some(run) = self.take(start) else { continue };
            let part = start.max(range.start)..run.end(start).min(range.end);
            self.insert_part(start, start..part.start, run);
            self.insert_part(start, part.end..run.end(start), run);
            match becomes(Run { records: records_in(&part), ..run }) {
                Some(run) => self.insert(part.start, run),
                None => self.settled(run.batch, &part),
            }
            changed.push(part);
        }
        changed
    }

    /// As [`Outstanding::change`], of everything that a member has.
    pub(super) fn change_held_by(
        &mut self,
        member: MemberId,
        mut becomes: impl FnMut(Run) -> Run,
    ) -> Vec<Range<u64>> {
        let held = self.flying.range((member, 0)..=(member, u64::MAX));
        let starts: Vec<u64> = held.map(|(_, start)| *start).collect();
        self.change_at(starts, &mut becomes)
    }

    /// Changes everything whose tick has come.
    pub(super) fn change_timed_out_at(&mut self, now: Tick, mut becomes: impl FnMut(Run) -> Run) {
        let over: Vec<u64> = self.timers.range(..=(now, u64::MAX)).map(|(_, start)| *start).collect();
        self.change_at(over, &mut becomes);
    }

    /// The next tick at which something changes by itself.
    pub(super) fn next_tick(&self) -> Option<Tick> {
        self.timers.first().map(|(tick, _)| *tick)
    }

    /// Records that have been handed out and wait for the next time.
    pub(super) fn redelivering(&self) -> u64 {
        let waits =
            |run: &&Run| run.deliveries > 0 && matches!(run.state, State::Waiting { .. } | State::Due);
        self.runs.values().filter(waits).map(|run| u64::from(run.records)).sum()
    }

    /// How often each record has been handed out, in order of offsets.
    pub(super) fn counts(&self) -> impl Iterator<Item = DeliveryCount> {
        self.runs.iter().map(|(&offset, run)| DeliveryCount {
            offset,
            records: run.records,
            deliveries: run.deliveries,
        })
    }

    #[cfg(test)]
    pub(super) fn runs(&self) -> impl Iterator<Item = (Range<u64>, &Run)> {
        self.runs.iter().map(|(&start, run)| (start..run.end(start), run))
    }

    /// Up to as many runs of a batch as one delivery can name, from `first` on, each changed; with their place in it.
    fn take_pieces(
        &mut self,
        first: u64,
        batch: u64,
        kind: PieceKind,
        mut becomes: impl FnMut(Run) -> Run,
    ) -> Vec<(u32, Run)> {
        let index = match kind {
            PieceKind::Due => &self.due,
            PieceKind::Dead => &self.dead,
        };
        let of_batch = |start: &&u64| self.runs.get(*start).is_some_and(|run| run.batch == batch);
        let starts = index.range(first..).take_while(of_batch).take(RANGES_PER_DELIVERY_MAX);
        let starts: Vec<u64> = starts.copied().collect();
        let mut pieces = Vec::with_capacity(starts.len());
        for start in starts {
            let Some(run) = self.take(start) else { continue };
            let run = becomes(run);
            self.insert(start, run);
            let place =
                u32::try_from(start.saturating_sub(batch)).expect("a batch has fewer records than 2^32");
            pieces.push((place, run));
        }
        pieces
    }

    fn change_at(&mut self, starts: Vec<u64>, becomes: &mut impl FnMut(Run) -> Run) -> Vec<Range<u64>> {
        let mut changed = Vec::with_capacity(starts.len());
        for start in starts {
            let Some(run) = self.take(start) else { continue };
            changed.push(start..run.end(start));
            self.insert(start, becomes(run));
        }
        changed
    }

    fn settled(&mut self, batch: u64, part: &Range<u64>) {
        self.records -= u64::from(records_in(part));
        let entry =
            self.batches.get_mut(&batch).expect("a batch is known while records of it are not settled");
        entry.left -= records_in(part);
        if entry.left == 0 {
            self.batches.remove(&batch);
        }
    }

    fn insert_part(&mut self, start: u64, part: Range<u64>, run: Run) {
        debug_assert!(part.start >= start, "a part begins in its run");
        if !part.is_empty() {
            self.insert(part.start, Run { records: records_in(&part), ..run });
        }
    }

    /// Inserts a run, joined with its neighbours when they are alike.
    fn insert(&mut self, start: u64, run: Run) {
        let (mut start, mut run) = (start, run);
        if let Some((&left, before)) = self.runs.range(..start).next_back()
            && before.end(left) == start
            && before.joins(&run)
        {
            run.records += before.records;
            self.take(left);
            start = left;
        }
        if let Some(after) = self.runs.get(&run.end(start))
            && after.joins(&run)
        {
            let right = run.end(start);
            run.records += after.records;
            self.take(right);
        }
        if let Some(before) = run.before {
            self.had.insert((before, start));
        }
        match run.state {
            State::Flying { member, deadline } => {
                self.flying.insert((member, start));
                self.timers.insert((deadline, start));
            }
            State::Waiting { due } | State::Unburied { due } => {
                self.timers.insert((due, start));
            }
            State::Due => {
                self.due.insert(start);
            }
            State::Dead => {
                self.dead.insert(start);
            }
            State::Burying => {}
        }
        self.runs.insert(start, run);
    }

    fn take(&mut self, start: u64) -> Option<Run> {
        let run = self.runs.remove(&start)?;
        if let Some(before) = run.before {
            self.had.remove(&(before, start));
        }
        match run.state {
            State::Flying { member, deadline } => {
                self.flying.remove(&(member, start));
                self.timers.remove(&(deadline, start));
            }
            State::Waiting { due } | State::Unburied { due } => {
                self.timers.remove(&(due, start));
            }
            State::Due => {
                self.due.remove(&start);
            }
            State::Dead => {
                self.dead.remove(&start);
            }
            State::Burying => {}
        }
        Some(run)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PieceKind {
    Due,
    Dead,
}

fn records_in(part: &Range<u64>) -> u32 {
    u32::try_from(part.end - part.start)
        .expect("a run lies within a batch, which has fewer records than 2^32")
}
