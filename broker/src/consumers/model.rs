//! A group against a naive model: one entry for each record, no ranges, no indexes.

use std::num::NonZeroU32;

use proptest::prelude::*;
use sealbus_protocol::session::Tick;

use super::delivery::{DeadLetter, HandedOut};
use super::group::{BatchMeta, Group, Handled, Matches, What};
use super::member::MemberId;
use crate::storage::system::{AskedSettings, ConsumerSettings, Cursor, MaxDeliver};

const ACK_WAIT_MS: u64 = 100;
const UNACKNOWLEDGED_MAX: u32 = 8;
const BACKOFF_MS: u64 = 30;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Unread,
    /// To be handed out, not before then.
    Free(Tick),
    Held(MemberId, Tick),
    /// To be buried, not before then.
    Dead(Tick),
    Burying,
    Settled,
}

#[derive(Debug, Clone, Copy)]
struct Record {
    state: State,
    deliveries: u32,
    before: Option<MemberId>,
    batch: usize,
}

#[derive(Debug, Clone, Copy)]
struct Batch {
    offset: u64,
    records: u32,
    matches: bool,
}

#[derive(Debug, Clone)]
enum Step {
    Publish { records: u32, matches: bool },
    Join(u64, u64),
    Leave(u64),
    Credit(u64, u64),
    Poll { batches: usize },
    Ack(u64, u64, u32),
    Nack(u64, u64, u32, u32),
    Advance(u64),
    TakeDead,
    Bury { succeeds: bool },
    Withdraw,
    Skip(u64, u64),
    Save,
    Crash,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0u32..12, prop::bool::weighted(0.8)).prop_map(|(records, matches)| Step::Publish { records, matches }),
        2 => (0u64..3, 0u64..500).prop_map(|(member, credit)| Step::Join(member, credit)),
        1 => (0u64..3).prop_map(Step::Leave),
        2 => (0u64..3, 0u64..500).prop_map(|(member, credit)| Step::Credit(member, credit)),
        8 => (1usize..4).prop_map(|batches| Step::Poll { batches }),
        6 => (0u64..3, 0u64..60, 0u32..12).prop_map(|(member, offset, count)| Step::Ack(member, offset, count)),
        3 => (0u64..3, 0u64..60, 0u32..12, prop_oneof![Just(0u32), Just(50)])
            .prop_map(|(member, offset, count, delay)| Step::Nack(member, offset, count, delay)),
        3 => (0u64..80).prop_map(Step::Advance),
        2 => Just(Step::TakeDead),
        2 => any::<bool>().prop_map(|succeeds| Step::Bury { succeeds }),
        1 => Just(Step::Withdraw),
        1 => (0u64..60, 0u64..6).prop_map(|(from, len)| Step::Skip(from, len)),
        2 => Just(Step::Save),
        1 => Just(Step::Crash),
    ];
    prop::collection::vec(step, 1..120)
}

fn member(session: u64) -> MemberId {
    MemberId { session, lane: 7 }
}

fn settings(max_deliver: MaxDeliver) -> ConsumerSettings {
    ConsumerSettings::new(AskedSettings {
        ack_wait_ms: Some(ACK_WAIT_MS as u32),
        max_deliver: Some(max_deliver),
        backoff_ms: Some(vec![BACKOFF_MS as u32]),
        unacknowledged_max: Some(UNACKNOWLEDGED_MAX),
        ..AskedSettings::default()
    })
    .unwrap()
}

struct World {
    group: Group,
    max_deliver: MaxDeliver,
    now: Tick,
    batches: Vec<Batch>,
    records: Vec<Record>,
    /// A cursor, and the records as they were when it was made.
    saved: (Cursor, Vec<Record>),
    handed_out: Vec<(MemberId, HandedOut)>,
    letters: Vec<DeadLetter>,
}

impl World {
    fn new(max_deliver: MaxDeliver) -> Self {
        Self {
            group: Group::restore(settings(max_deliver), &Cursor::at(0), 0),
            max_deliver,
            now: Tick(0),
            batches: Vec::new(),
            records: Vec::new(),
            saved: (Cursor::at(0), Vec::new()),
            handed_out: Vec::new(),
            letters: Vec::new(),
        }
    }

    fn end(&self) -> u64 {
        self.records.len() as u64
    }

    /// Records of a range that is partly or wholly beyond the stream.
    fn slice(&mut self, offset: u64, count: u64) -> &mut [Record] {
        let start = (offset as usize).min(self.records.len());
        let end = (offset.saturating_add(count) as usize).min(self.records.len());
        &mut self.records[start..end]
    }

    fn lapsed(&self, record: Record, holder: MemberId, delay_ms: u64) -> Record {
        let delay_ms = if delay_ms == 0 { BACKOFF_MS } else { delay_ms };
        let state = if self.max_deliver.is_reached_by(record.deliveries) {
            State::Dead(self.now)
        } else {
            State::Free(self.now.after_ms(delay_ms))
        };
        Record { state, before: Some(holder), ..record }
    }

    fn time_passes(&mut self) {
        for index in 0..self.records.len() {
            if let State::Held(holder, deadline) = self.records[index].state
                && deadline <= self.now
            {
                self.records[index] = self.lapsed(self.records[index], holder, 0);
            }
        }
    }

    fn handed_out(&mut self, to: MemberId, handed_out: &HandedOut) {
        assert!(!handed_out.ranges.is_empty());
        let now = self.now;
        for range in &handed_out.ranges {
            let offset = handed_out.batch + u64::from(range.first);
            for record in self.slice(offset, range.count.into()) {
                assert!(matches!(record.state, State::Free(due) if due <= now), "{record:?} was not free");
                assert_eq!(range.deliveries, record.deliveries + 1);
                record.deliveries += 1;
                record.state = State::Held(to, now.after_ms(ACK_WAIT_MS));
            }
        }
        self.handed_out.push((to, handed_out.clone()));
    }

    fn poll(&mut self, batches: usize) -> bool {
        let Some(assignment) = self.group.poll_assignment(self.now, self.end()) else { return false };
        self.time_passes();
        match assignment.what {
            What::Redeliver(handed_out) => self.handed_out(assignment.member, &handed_out),
            What::NewFrom { from, lease } => {
                let unread = self.records.iter().position(|record| record.state == State::Unread);
                assert_eq!(Some(from as usize), unread, "the first that was not read");
                let at = self.records[from as usize].batch;
                for index in at..(at + batches).min(self.batches.len()) {
                    if !self.bring(index, lease) {
                        break;
                    }
                }
                self.group.finish_read(lease);
            }
        }
        true
    }

    fn bring(&mut self, index: usize, lease: super::group::Lease) -> bool {
        let Batch { offset, records, matches } = self.batches[index];
        let meta = BatchMeta {
            offset,
            records,
            bytes: 10 * records,
            matches: if matches { Matches::Whole } else { Matches::None },
        };
        let handled = self.group.handle_batch(lease, &meta, self.now);
        if handled == Handled::Blocked {
            assert!(matches);
            return false;
        }
        let (now, max_deliver) = (self.now, self.max_deliver);
        for record in self.slice(offset, records.into()) {
            if record.state == State::Unread {
                record.state = match matches {
                    false => State::Settled,
                    true if max_deliver.is_reached_by(record.deliveries) => State::Dead(now),
                    true => State::Free(now),
                };
            }
        }
        match handled {
            Handled::Assigned(to, handed_out) => {
                assert_eq!(handed_out.batch, offset);
                self.handed_out(to, &handed_out);
            }
            Handled::Nothing => {}
            other @ (Handled::Blocked | Handled::Stale | Handled::Gap { .. }) => panic!("{other:?}"),
        }
        // Small batches fit into one delivery: nothing of one is left over.
        assert!(self.slice(offset, records.into()).iter().all(
            |r| !matches!(r.state, State::Free(at) if at == now && r.before.is_none() && r.deliveries == 0)
        ));
        true
    }

    fn take_dead(&mut self) -> bool {
        let Some(letter) = self.group.poll_dead() else { return false };
        let now = self.now;
        for range in &letter.ranges {
            for record in self.slice(letter.batch + u64::from(range.first), range.count.into()) {
                assert!(matches!(record.state, State::Dead(due) if due <= now), "{record:?} is not dead");
                assert_eq!(record.deliveries, range.deliveries);
                record.state = State::Burying;
            }
        }
        self.letters.push(letter);
        true
    }

    fn bury(&mut self, succeeds: bool) {
        let Some(letter) = self.letters.pop() else { return };
        let later = self.now.after_ms(20);
        let mut count = 0;
        for range in &letter.ranges {
            for record in self.slice(letter.batch + u64::from(range.first), range.count.into()) {
                if record.state == State::Burying {
                    record.state = if succeeds { State::Settled } else { State::Dead(later) };
                    count += 1;
                }
            }
        }
        if succeeds {
            assert_eq!(self.group.buried(&letter), count);
            assert_eq!(self.group.buried(&letter), 0, "once");
        } else {
            self.group.not_buried(&letter, later);
        }
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Publish { records, matches } => {
                let batch = self.batches.len();
                self.batches.push(Batch { offset: self.end(), records, matches });
                let record = Record { state: State::Unread, deliveries: 0, before: None, batch };
                self.records.extend(std::iter::repeat_n(record, records as usize));
            }
            Step::Join(session, credit) => {
                let is_new = !self.group.members().any(|known| known == member(session));
                assert_eq!(self.group.join(member(session), credit).is_ok(), is_new);
            }
            Step::Leave(session) => {
                self.group.leave(member(session));
                for index in 0..self.records.len() {
                    let record = self.records[index];
                    if matches!(record.state, State::Held(holder, _) if holder == member(session)) {
                        let is_dead = self.max_deliver.is_reached_by(record.deliveries);
                        let state = if is_dead { State::Dead(self.now) } else { State::Free(self.now) };
                        self.records[index] = Record { state, before: Some(member(session)), ..record };
                    }
                }
            }
            Step::Credit(session, bytes) => self.group.credit(member(session), bytes),
            Step::Poll { batches } => {
                self.poll(batches);
            }
            Step::Ack(session, offset, count) => {
                let mut settled = 0;
                for record in self.slice(offset, count.into()) {
                    let may = match record.state {
                        State::Held(holder, _) => {
                            holder == member(session) || record.before == Some(member(session))
                        }
                        State::Free(_) | State::Dead(_) => record.before == Some(member(session)),
                        State::Unread | State::Burying | State::Settled => false,
                    };
                    if may {
                        record.state = State::Settled;
                        settled += 1;
                    }
                }
                assert_eq!(self.group.ack(member(session), offset, count), settled);
            }
            Step::Nack(session, offset, count, delay_ms) => {
                let mut returned = 0;
                let end = offset.saturating_add(count.into()).min(self.end());
                for index in offset..end {
                    let record = self.records[index as usize];
                    if matches!(record.state, State::Held(holder, _) if holder == member(session)) {
                        self.records[index as usize] = self.lapsed(record, member(session), delay_ms.into());
                        returned += 1;
                    }
                }
                assert_eq!(self.group.nack(member(session), offset, count, delay_ms, self.now), returned);
            }
            Step::Advance(ms) => {
                self.now = self.now.after_ms(ms);
                self.time_passes();
                self.group.handle_timeout_at(self.now);
                assert!(self.group.poll_timeout().is_none_or(|tick| tick > self.now));
            }
            Step::TakeDead => {
                self.take_dead();
            }
            Step::Bury { succeeds } => self.bury(succeeds),
            Step::Withdraw => {
                let Some((to, handed_out)) = self.handed_out.pop() else { return };
                let later = self.now.after_ms(5);
                self.group.withdraw(to, &handed_out, later);
                for range in &handed_out.ranges {
                    for record in self.slice(handed_out.batch + u64::from(range.first), range.count.into()) {
                        if matches!(record.state, State::Held(holder, _) if holder == to) {
                            record.state = State::Free(later);
                            record.deliveries -= 1;
                        }
                    }
                }
            }
            Step::Skip(from, len) => {
                // What a stream skips lies in it.
                let len = len.min(self.end().saturating_sub(from));
                self.group.skip(from..from + len);
                self.slice(from, len).iter_mut().for_each(|record| record.state = State::Settled);
            }
            Step::Save => self.saved = (self.group.snapshot(), self.records.clone()),
            Step::Crash => self.crash(),
        }
    }

    /// The stream keeps what was published; of the consumer there is what was saved.
    fn crash(&mut self) {
        let (cursor, records) = self.saved.clone();
        for (index, record) in self.records.iter_mut().enumerate() {
            let Some(saved) = records.get(index) else {
                *record = Record { state: State::Unread, deliveries: 0, before: None, ..*record };
                continue;
            };
            let state = if saved.state == State::Settled { State::Settled } else { State::Unread };
            let deliveries = if saved.deliveries > 1 { saved.deliveries } else { 0 };
            *record = Record { state, deliveries, before: None, ..*saved };
        }
        let end = self.records.len() as u64;
        self.group = Group::restore(settings(self.max_deliver), &cursor, end);
        self.saved = (self.group.snapshot(), self.records.clone());
        assert_eq!(self.saved.0, cursor, "what was restored is what is kept");
        self.handed_out.clear();
        self.letters.clear();
    }

    fn check(&self) {
        self.group.assert_whole();
        let unsettled = self.records.iter().filter(|record| record.state != State::Settled).count() as u64;
        assert_eq!(self.group.lag(self.end()), unsettled);
        let position = self.records.iter().position(|record| record.state != State::Settled);
        assert_eq!(self.group.position(), position.map_or(self.end(), |at| at as u64));
        let is_out = |record: &&Record| !matches!(record.state, State::Settled | State::Unread);
        let out = self.records.iter().filter(is_out).count() as u64;
        assert_eq!(self.group.unacknowledged(), out);
        let largest = self.batches.iter().map(|batch| batch.records).max().unwrap_or_default();
        assert!(out <= u64::from(UNACKNOWLEDGED_MAX.max(largest)), "memory is bounded");
    }

    /// Somebody who acknowledges everything comes: in the end everything is settled.
    fn drain(&mut self) {
        (0..3).for_each(|session| self.step(&Step::Leave(session)));
        self.group.join(member(9), u64::MAX).unwrap();
        for _ in 0..10_000 {
            if self.group.position() == self.end() {
                return;
            }
            while self.take_dead() {}
            while !self.letters.is_empty() {
                self.bury(true);
            }
            if !self.poll(1) {
                self.step(&Step::Advance(10));
            }
            for (to, handed_out) in std::mem::take(&mut self.handed_out) {
                for range in handed_out.ranges {
                    let step = Step::Ack(to.session, handed_out.batch + u64::from(range.first), range.count);
                    self.step(&step);
                }
            }
            self.check();
        }
        panic!("records are left over: {:?}", self.records);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn a_group_agrees_with_one_entry_for_each_record(steps in steps(), max_deliver in 0u32..4) {
        let max_deliver = NonZeroU32::new(max_deliver).map_or(MaxDeliver::Unlimited, MaxDeliver::Times);
        let mut world = World::new(max_deliver);
        for step in &steps {
            world.step(step);
            world.check();
        }
        world.drain();
        assert!(world.records.iter().all(|record| record.state == State::Settled));
        assert_eq!(world.group.snapshot(), Cursor::at(world.end()));
    }
}
