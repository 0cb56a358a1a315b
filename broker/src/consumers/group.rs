//! A durable consumer as a state machine: who has which record, what is settled, what comes next.
//!
//! ```text
//!       settled           handed out, not settled, or settled in between            not read yet
//!   ----------------|--------------------------------------------------------|---------------------->
//!                position                                                   next                 end of the stream
//! ```
//!
//! Ticks and offsets come in, assignments come out: nothing here waits, locks or reads. Records are delivered at
//! least once. A record is settled by an acknowledgement, by a dead letter that is kept, or by a skip, and by nothing
//! else; the position never passes one that is not. A record is with one member at a time; a new batch goes whole to
//! one member, each to the next in turn that has credit.
//!
//! Whoever drives it polls for assignments until there is none. One that says [`What::NewFrom`] is a lease to read:
//! its holder brings what it reads, in order, to [`Group::handle_batch`] or [`Group::skip`], and gives the lease back.
//!
//! Late acknowledgements count: a member may settle what it has, and what it had last before whoever has it now. All
//! other acknowledgements are ignored, which costs nothing but another delivery.

use std::ops::Range;

use sealbus_protocol::session::Tick;

pub use super::assignment::{Assignment, BatchMeta, Handled, Lease, Matches, MemberError, Totals, What};
use super::delivery::{DeadLetter, HandedOut, Outstanding, Reach, Run, State};
use super::limits::{MEMBERS_PER_GROUP_MAX, NACK_DELAY_MS_MAX, SETTLED_RANGES_MAX};
use super::member::{MemberId, Members};
use super::ranges::RangeSet;
use super::remembered::Remembered;
use crate::storage::stream::store::DeadRange;
use crate::storage::system::{CURSOR_COUNTS_MAX, CURSOR_RANGES_MAX, ConsumerSettings, Cursor};

/// A durable consumer.
#[derive(Debug)]
pub struct Group {
    settings: ConsumerSettings,
    /// Everything below is settled.
    position: u64,
    /// What is settled above, below `next` or by a skip ahead of it.
    settled: RangeSet,
    outstanding: Outstanding,
    /// Everything below is settled or outstanding.
    next: u64,
    /// How often records from `next` on were handed out before the broker was started.
    remembered: Remembered,
    members: Members,
    lease: Option<(Lease, MemberId)>,
    leases: u64,
    /// Records of the batch that there was no room for.
    room_wanted: u32,
    /// Redeliveries and new batches take turns, so that neither starves the other.
    prefers_new: bool,
    totals: Totals,
    is_changed: bool,
}

impl Group {
    /// A consumer that goes on where its cursor stands, in a stream that ends at `end`, see [`Group::truncate`].
    #[must_use]
    pub fn restore(settings: ConsumerSettings, cursor: &Cursor, end: u64) -> Self {
        let mut group = Self {
            settings,
            position: cursor.position(),
            settled: cursor.settled().iter().cloned().collect(),
            outstanding: Outstanding::default(),
            next: cursor.position(),
            remembered: Remembered::new(cursor.counts().iter().copied()),
            members: Members::default(),
            lease: None,
            leases: 0,
            room_wanted: 0,
            prefers_new: false,
            totals: Totals::default(),
            is_changed: false,
        };
        group.truncate(end);
        group
    }

    /// The stream turns out to end here. One of a lower durability may have lost what the consumer had settled
    /// already; its offsets are given to other records then, which must not pass as settled. To be called when a
    /// stream is opened, before anything is read of it.
    pub fn truncate(&mut self, end: u64) {
        if self.next <= end && self.settled.iter().all(|range| range.end <= end) {
            return;
        }
        self.outstanding.change(end..u64::MAX, |_| true, |_| None);
        self.settled = self.settled.iter().map(|range| range.start.min(end)..range.end.min(end)).collect();
        self.remembered = Remembered::new(self.remembered.iter().filter(|count| count.offsets().end <= end));
        self.position = self.position.min(end);
        self.next = self.next.min(end);
        self.lease = None;
        self.room_wanted = 0;
        self.is_changed = true;
    }

    /// A member joins, and may get so many bytes.
    ///
    /// # Errors
    /// [`MemberError`].
    pub fn join(&mut self, member: MemberId, credit_bytes: u64) -> Result<(), MemberError> {
        if self.members.contains(member) {
            return Err(MemberError::Already);
        }
        if self.members.len() >= MEMBERS_PER_GROUP_MAX {
            return Err(MemberError::Full);
        }
        self.members.insert(member, credit_bytes);
        Ok(())
    }

    /// A member leaves, or was made to. What it has is handed to others at once, and counts as delivered.
    pub fn leave(&mut self, member: MemberId) {
        self.members.remove(member);
        if self.lease.is_some_and(|(_, holder)| holder == member) {
            self.lease = None;
        }
        let max_deliver = self.settings.max_deliver();
        self.outstanding.change_held_by(member, |run| {
            let state = if max_deliver.is_reached_by(run.deliveries) { State::Dead } else { State::Due };
            Run { state, before: Some(member), ..run }
        });
    }

    /// A member may get so many bytes more.
    pub fn credit(&mut self, member: MemberId, bytes: u64) {
        self.members.add(member, bytes);
    }

    /// The next thing to do, in a stream that ends at `end`.
    pub fn poll_assignment(&mut self, now: Tick, end: u64) -> Option<Assignment> {
        self.handle_timeout_at(now);
        let member = self.members.next()?;
        let due = self.outstanding.first_due(0);
        let can_read = self.can_read(end);
        let what = match due {
            Some(first) if !(self.prefers_new && can_read) => {
                self.prefers_new = true;
                What::Redeliver(self.hand_out(first, member, now))
            }
            Some(_) | None => {
                self.prefers_new = false;
                if !can_read {
                    return None;
                }
                self.leases += 1;
                let lease = Lease(self.leases);
                self.lease = Some((lease, member));
                What::NewFrom { from: self.next, lease }
            }
        };
        Some(Assignment { member, what })
    }

    /// A batch was read under a lease. It must hold the record that comes next, which need not be its first.
    pub fn handle_batch(&mut self, lease: Lease, batch: &BatchMeta, now: Tick) -> Handled {
        if self.lease.is_none_or(|(held, _)| held != lease) {
            return Handled::Stale;
        }
        let Some(end) = batch.offset.checked_add(batch.records.into()) else {
            return Handled::Gap { expected: self.next };
        };
        if batch.offset > self.next {
            return Handled::Gap { expected: self.next };
        }
        if end <= self.next {
            return Handled::Nothing;
        }
        match batch.matches {
            Matches::None => {
                self.settle(self.next..end);
                self.read_up_to(end);
                Handled::Nothing
            }
            Matches::Whole => self.take_batch(batch, end, now),
        }
    }

    /// The reader has brought what it read, or could not read.
    pub fn finish_read(&mut self, lease: Lease) {
        if self.lease.is_some_and(|(held, _)| held == lease) {
            self.lease = None;
        }
    }

    /// A member has done with records. Says how many are settled by that.
    pub fn ack(&mut self, member: MemberId, offset: u64, records: u32) -> u64 {
        let Some(range) = offsets(offset, records) else { return 0 };
        let settled = self.outstanding.change_of(member, range, Reach::Settleable, |_| None);
        let count = count(&settled);
        self.totals.acknowledged += count;
        settled.into_iter().for_each(|range| self.settle(range));
        count
    }

    /// A member gives records back, to be handed out again after this delay; after the backoff when it names none.
    /// Says how many it had.
    pub fn nack(&mut self, member: MemberId, offset: u64, records: u32, delay_ms: u32, now: Tick) -> u64 {
        let Some(range) = offsets(offset, records) else { return 0 };
        let settings = &self.settings;
        let returned = self.outstanding.change_of(member, range, Reach::Held, |run| {
            Some(lapsed(settings, run, member, delay_ms.min(NACK_DELAY_MS_MAX), now))
        });
        count(&returned)
    }

    /// A delivery did not reach its member: it does not count, and is tried again, not before `retry_at`.
    pub fn withdraw(&mut self, member: MemberId, handed_out: &HandedOut, retry_at: Tick) {
        let bytes = self.outstanding.batch_bytes(handed_out.batch);
        let mut withdrawn = 0;
        for range in &handed_out.ranges {
            let Some(start) = handed_out.batch.checked_add(range.first.into()) else { continue };
            let Some(range) = offsets(start, range.count) else { continue };
            let taken_back = self.outstanding.change_of(member, range, Reach::Held, |run| {
                let deliveries = run.deliveries.saturating_sub(1);
                Some(Run { deliveries, state: State::Waiting { due: retry_at }, ..run })
            });
            withdrawn += count(&taken_back);
        }
        if withdrawn > 0 {
            self.totals.delivered = self.totals.delivered.saturating_sub(withdrawn);
            self.members.add(member, bytes.into());
        }
    }

    /// Does what is due by now: an `ack_wait` that is over, a delay, a burial that is tried again.
    pub fn handle_timeout_at(&mut self, now: Tick) {
        let settings = &self.settings;
        self.outstanding.change_timed_out_at(now, |run| match run.state {
            State::Flying { member, .. } => lapsed(settings, run, member, 0, now),
            State::Waiting { .. } => Run { state: State::Due, ..run },
            State::Unburied { .. } => Run { state: State::Dead, ..run },
            // These have no tick.
            State::Due | State::Dead | State::Burying => run,
        });
    }

    /// When [`Group::handle_timeout_at`] has something to do.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Tick> {
        self.outstanding.next_tick()
    }

    /// The next records to keep as a dead letter. Answer with [`Group::buried`] once it is durable, or with
    /// [`Group::not_buried`].
    pub fn poll_dead(&mut self) -> Option<DeadLetter> {
        self.outstanding.take_dead()
    }

    /// Whether [`Group::poll_dead`] has something.
    #[must_use]
    pub fn has_dead(&self) -> bool {
        self.outstanding.has_dead()
    }

    /// A dead letter is durable: its records are settled. Says how many.
    pub fn buried(&mut self, letter: &DeadLetter) -> u64 {
        let settled = self.change_burying(letter, |_| None);
        let count = count(&settled);
        self.totals.dead += count;
        settled.into_iter().for_each(|range| self.settle(range));
        count
    }

    /// A dead letter could not be kept: its records stay as they are, and it is tried again, not before `retry_at`.
    pub fn not_buried(&mut self, letter: &DeadLetter, retry_at: Tick) {
        self.change_burying(letter, |run| Some(Run { state: State::Unburied { due: retry_at }, ..run }));
    }

    /// Records will not be handed out: they were trimmed or damaged. Settles them, whoever has them.
    pub fn skip(&mut self, offsets: Range<u64>) {
        let from = offsets.start.max(self.position);
        if from >= offsets.end {
            return;
        }
        self.outstanding.change(from..offsets.end, |_| true, |_| None);
        self.settle(from..offsets.end);
        if from <= self.next {
            self.read_up_to(self.next.max(offsets.end));
        }
    }

    /// An administrator moves the consumer. Everything from there on is handed out, as if for the first time;
    /// acknowledgements of what was handed out before count for nothing.
    pub fn reset(&mut self, position: u64) {
        self.position = position;
        self.next = position;
        self.settled = RangeSet::default();
        self.outstanding = Outstanding::default();
        self.remembered = Remembered::default();
        self.lease = None;
        self.room_wanted = 0;
        self.is_changed = true;
    }

    /// What must be kept, for [`Group::restore`]. Counts of records that were handed out once are not in it: most
    /// never need them, and forgetting one only hands a record out once more.
    #[must_use]
    pub fn snapshot(&self) -> Cursor {
        let outstanding = self.outstanding.counts().filter(|count| count.deliveries > 1);
        let counts = outstanding.chain(self.remembered.iter()).take(CURSOR_COUNTS_MAX);
        let settled = self.settled.iter().take(CURSOR_RANGES_MAX);
        Cursor::new(self.position, settled.collect(), counts.collect())
            .expect("a group keeps its ranges and counts in order")
    }

    /// Whether [`Group::snapshot`] would give something else than when this was asked last.
    pub fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.is_changed)
    }

    /// Messages of a stream that ends at `end` that are not settled.
    #[must_use]
    pub const fn lag(&self, end: u64) -> u64 {
        end.saturating_sub(self.position).saturating_sub(self.settled.offsets())
    }

    /// Its settings.
    #[must_use]
    pub const fn settings(&self) -> &ConsumerSettings {
        &self.settings
    }

    /// Everything below is settled.
    #[must_use]
    pub const fn position(&self) -> u64 {
        self.position
    }

    /// Whether all of these are settled: whoever acknowledged them may be told that they do not come again.
    #[must_use]
    pub fn is_settled(&self, offset: u64, records: u32) -> bool {
        let Some(range) = offsets(offset, records) else { return false };
        self.settled.next_gap(range.start.max(self.position)) >= range.end
    }

    /// Records that are handed out, or were, and are not settled.
    #[must_use]
    pub const fn unacknowledged(&self) -> u64 {
        self.outstanding.records()
    }

    /// Those of them that wait to be handed out again.
    #[must_use]
    pub fn redelivering(&self) -> u64 {
        self.outstanding.redelivering()
    }

    /// Who is there.
    pub fn members(&self) -> impl Iterator<Item = MemberId> {
        self.members.iter()
    }

    /// The member whose turn it is.
    #[must_use]
    pub fn next_member(&self) -> Option<MemberId> {
        self.members.next()
    }

    /// What has happened since it was restored.
    #[must_use]
    pub const fn totals(&self) -> Totals {
        self.totals
    }

    fn can_read(&self, end: u64) -> bool {
        self.lease.is_none() && self.next < end && self.has_room_for(self.room_wanted.max(1))
    }

    /// One batch goes out however large it is; otherwise the bound holds to the record.
    fn has_room_for(&self, records: u32) -> bool {
        let unacknowledged = self.outstanding.records();
        let max = u64::from(self.settings.unacknowledged_max());
        let is_within = unacknowledged.saturating_add(records.into()) <= max;
        unacknowledged == 0 || (is_within && self.settled.ranges() < SETTLED_RANGES_MAX)
    }

    fn take_batch(&mut self, batch: &BatchMeta, end: u64, now: Tick) -> Handled {
        let gaps = self.settled.gaps(self.next..end);
        let records = u32::try_from(count(&gaps)).expect("a batch has fewer records than 2^32");
        if records == 0 {
            self.read_up_to(end);
            return Handled::Nothing;
        }
        let member = self.members.next();
        let Some(member) = member.filter(|_| self.has_room_for(records)) else {
            self.room_wanted = records;
            self.lease = None;
            return Handled::Blocked;
        };
        for part in gaps.into_iter().flat_map(|gap| self.remembered.split(gap)) {
            let max_deliver = self.settings.max_deliver();
            let is_dead = max_deliver.is_reached_by(part.deliveries);
            let run = Run {
                records: part.records,
                batch: batch.offset,
                deliveries: part.deliveries,
                state: if is_dead { State::Dead } else { State::Due },
                before: None,
            };
            self.outstanding.add(batch.offset, batch.bytes, part.offset, run);
        }
        let first = self.outstanding.first_due(self.next).filter(|first| *first < end);
        self.read_up_to(end);
        match first {
            Some(first) => Handled::Assigned(member, self.hand_out(first, member, now)),
            None => Handled::Nothing,
        }
    }

    fn hand_out(&mut self, first: u64, member: MemberId, now: Tick) -> HandedOut {
        let deadline = now.after_ms(self.settings.ack_wait_ms().into());
        let handed_out = self.outstanding.hand_out(first, member, deadline);
        self.members.spend(member, self.outstanding.batch_bytes(handed_out.batch));
        self.totals.delivered += handed_out.records();
        self.is_changed |= handed_out.ranges.iter().any(|range| range.deliveries > 1);
        handed_out
    }

    fn change_burying(
        &mut self,
        letter: &DeadLetter,
        becomes: impl Fn(Run) -> Option<Run>,
    ) -> Vec<Range<u64>> {
        let mut changed = Vec::new();
        for DeadRange { first, count, .. } in &letter.ranges {
            let start = letter.batch.checked_add((*first).into());
            let Some(range) = start.and_then(|start| offsets(start, *count)) else { continue };
            let is_burying = |run: &Run| run.batch == letter.batch && run.state == State::Burying;
            changed.extend(self.outstanding.change(range, is_burying, &becomes));
        }
        changed
    }

    fn settle(&mut self, range: Range<u64>) {
        self.settled.insert(range);
        self.position = self.settled.drain_to(self.position);
        self.is_changed = true;
        if self.position > self.next {
            self.read_up_to(self.position);
        }
    }

    fn read_up_to(&mut self, next: u64) {
        self.next = self.settled.next_gap(next.max(self.position));
        self.remembered.forget_below(self.next);
        self.room_wanted = 0;
    }

    #[cfg(test)]
    pub(super) fn assert_whole(&self) {
        let mut all = self.settled.clone();
        let mut records = 0;
        for (range, run) in self.outstanding.runs() {
            assert_eq!(all.gaps(range.clone()), std::slice::from_ref(&range), "in one place at a time");
            assert!(run.batch <= range.start);
            records += range.end - range.start;
            all.insert(range);
        }
        assert_eq!(records, self.outstanding.records());
        assert_eq!(all.gaps(self.position..self.next), Vec::new(), "nothing is skipped");
        assert!(self.settled.iter().all(|range| range.start > self.position));
        assert!(self.position <= self.next);
        assert!(self.outstanding.runs().count() as u64 <= self.outstanding.records());
    }
}

/// What becomes of records that a member had and did not settle.
fn lapsed(settings: &ConsumerSettings, run: Run, member: MemberId, delay_ms: u32, now: Tick) -> Run {
    let delay_ms = if delay_ms == 0 { settings.backoff_after_ms(run.deliveries) } else { delay_ms };
    let state = if settings.max_deliver().is_reached_by(run.deliveries) {
        State::Dead
    } else if delay_ms == 0 {
        State::Due
    } else {
        State::Waiting { due: now.after_ms(delay_ms.into()) }
    };
    Run { state, before: Some(member), ..run }
}

/// Nothing when they are none, or beyond the last offset: no such records were handed out.
fn offsets(start: u64, records: u32) -> Option<Range<u64>> {
    let end = start.checked_add(records.into())?;
    (records > 0).then_some(start..end)
}

fn count(ranges: &[Range<u64>]) -> u64 {
    ranges.iter().map(|range| range.end - range.start).sum()
}
