//! All durable consumers of the broker, by stream and name.
//!
//! Each has a lock of its own. Whoever acts on one does it through [`Consumer::act`], which sees to the rest: what has
//! changed is marked to be written, and what has a tick is waited for. Nothing here waits for a disk.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Bound;
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use sealbus_protocol::ids::StreamId;
use sealbus_protocol::policy::Name;
use sealbus_protocol::session::Tick;

use super::changes::{Batch, Changes, DurableWaiter};
use super::group::{Group, MemberError, Totals};
use super::limits::CONSUMERS_PER_STREAM_MAX;
use super::member::MemberId;
use crate::locks::{lock, read, write};
use crate::storage::stream::store::Waiter;
use crate::storage::system::{
    AskedSettings, Conflict, ConsumerKey, ConsumerSettings, Cursor, CursorChange, KeptConsumer,
    SettingsError, SystemError,
};

/// The consumers of the broker.
#[derive(Default)]
pub struct Consumers {
    by_key: RwLock<BTreeMap<ConsumerKey, Arc<Consumer>>>,
    board: Arc<Board>,
}

/// What consumers tell of themselves, so that nobody must ask each of them.
#[derive(Default)]
struct Board {
    changes: Changes,
    attention: Mutex<Attention>,
}

#[derive(Default)]
struct Attention {
    /// When each consumer that has a tick has the next.
    timers: BTreeSet<(Tick, ConsumerKey)>,
    /// Consumers with records to bury.
    dead: BTreeSet<ConsumerKey>,
    /// Whose turn it was last.
    buried_last: Option<ConsumerKey>,
    undertaker: Option<Arc<dyn Waiter>>,
}

impl Attention {
    fn next_dead(&mut self) -> Option<ConsumerKey> {
        let after = self.buried_last.take().map_or(Bound::Unbounded, Bound::Excluded);
        let next = self.dead.range((after, Bound::Unbounded)).next().or(self.dead.first()).cloned();
        self.buried_last.clone_from(&next);
        next
    }
}

/// One durable consumer.
pub struct Consumer {
    key: ConsumerKey,
    board: Arc<Board>,
    state: Mutex<State>,
}

struct State {
    group: Group,
    wakers: BTreeMap<MemberId, Arc<dyn Waiter>>,
    /// What stands on the board of it.
    timer: Option<Tick>,
    is_removed: bool,
}

/// Whether a consumer was there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// It was.
    Found,
    /// It was created. Nobody must be told before that is durable, see [`Consumers::when_durable`]: a consumer that a
    /// power loss takes away would begin somewhere else the next time.
    Created,
}

/// Why somebody cannot consume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JoinError {
    /// The settings are outside their limits.
    Settings(SettingsError),
    /// The consumer has others.
    Conflict(Conflict),
    /// The stream has as many consumers as it may have.
    TooManyConsumers,
    /// The group has as many members as it may have.
    TooManyMembers,
    /// It is a member already.
    AlreadyMember,
    /// The consumer was removed just now: it can be created again.
    Removed,
}

impl fmt::Display for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Settings(error) => error.fmt(f),
            Self::Conflict(conflict) => conflict.fmt(f),
            Self::TooManyConsumers => {
                write!(f, "the stream has {CONSUMERS_PER_STREAM_MAX} consumers, which is the limit")
            }
            Self::TooManyMembers => f.write_str("the consumer has as many members as it may have"),
            Self::AlreadyMember => f.write_str("this session's lane is a member of the consumer already"),
            Self::Removed => f.write_str("the consumer was removed just now"),
        }
    }
}

impl std::error::Error for JoinError {}

/// What administration sees of a consumer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerInfo {
    /// Which one.
    pub key: ConsumerKey,
    /// Its settings.
    pub settings: ConsumerSettings,
    /// Everything below is settled.
    pub position: u64,
    /// Records that were handed out and are not settled.
    pub unacknowledged: u64,
    /// Those of them that wait for another delivery.
    pub redelivering: u64,
    /// Members.
    pub members: usize,
    /// Messages of the stream that are not settled.
    pub lag: u64,
    /// What has happened since the broker was started.
    pub totals: Totals,
}

impl Consumers {
    /// The consumers that were kept. `end_of` says where a stream ends; consumers of streams that are not there any
    /// more stay, so that they go on when the stream comes back ([`Consumers::handle_stream_opened`]).
    #[must_use]
    pub fn restore(kept: Vec<KeptConsumer>, end_of: impl Fn(StreamId) -> Option<u64>) -> Self {
        let consumers = Self::default();
        {
            let mut by_key = write(&consumers.by_key);
            for KeptConsumer { key, settings, cursor } in kept {
                let end = end_of(key.stream).unwrap_or(u64::MAX);
                let group = Group::restore(settings, &cursor, end);
                by_key.insert(key.clone(), Consumer::new(key, Arc::clone(&consumers.board), group));
            }
        }
        consumers
    }

    /// A consumer that exists.
    #[must_use]
    pub fn find(&self, key: &ConsumerKey) -> Option<Arc<Consumer>> {
        read(&self.by_key).get(key).cloned()
    }

    /// A consumer with these settings, which begins at `position` if it is not there yet.
    ///
    /// # Errors
    /// [`JoinError`]; among others when it is there with other settings than those that are asked for.
    pub fn find_or_create(
        &self,
        key: &ConsumerKey,
        asked: AskedSettings,
        position: u64,
    ) -> Result<(Arc<Consumer>, Origin), JoinError> {
        if let Some(consumer) = self.find(key) {
            consumer.check(&asked)?;
            return Ok((consumer, Origin::Found));
        }
        let mut by_key = write(&self.by_key);
        // Another may have been faster.
        if let Some(consumer) = by_key.get(key) {
            consumer.check(&asked)?;
            return Ok((Arc::clone(consumer), Origin::Found));
        }
        if of_stream(&by_key, key.stream).count() >= CONSUMERS_PER_STREAM_MAX {
            return Err(JoinError::TooManyConsumers);
        }
        let settings = ConsumerSettings::new(asked).map_err(JoinError::Settings)?;
        let group = Group::restore(settings, &Cursor::at(position), position);
        let consumer = Consumer::new(key.clone(), Arc::clone(&self.board), group);
        by_key.insert(key.clone(), Arc::clone(&consumer));
        self.board.changes.mark(key);
        Ok((consumer, Origin::Created))
    }

    /// Removes a consumer, with its members. Durable as any change.
    pub fn remove(&self, key: &ConsumerKey) -> Option<Arc<Consumer>> {
        let consumer = write(&self.by_key).remove(key)?;
        let wakers = {
            let mut state = lock(&consumer.state);
            state.is_removed = true;
            let timer = state.timer.take();
            let mut attention = lock(&self.board.attention);
            timer.map(|tick| attention.timers.remove(&(tick, key.clone())));
            attention.dead.remove(key);
            self.board.changes.mark(key);
            std::mem::take(&mut state.wakers)
        };
        wakers.values().for_each(|waker| waker.committed());
        Some(consumer)
    }

    /// The consumers of a stream, or all of them.
    #[must_use]
    pub fn list(&self, stream: Option<StreamId>) -> Vec<Arc<Consumer>> {
        let by_key = read(&self.by_key);
        match stream {
            Some(stream) => of_stream(&by_key, stream).cloned().collect(),
            None => by_key.values().cloned().collect(),
        }
    }

    /// Has `done` told when everything that was settled, created or reset until now is durable.
    pub fn when_durable(&self, done: DurableWaiter) {
        self.board.changes.when_durable(done);
    }

    /// Who is told when there are dead letters to take from [`Consumers::poll_dead`].
    pub fn set_undertaker(&self, waiter: Arc<dyn Waiter>) {
        lock(&self.board.attention).undertaker = Some(waiter);
    }

    /// A consumer with records to bury, which [`Group::poll_dead`] gives. Each in turn: one whose records never end must
    /// not keep those of the others from being buried.
    #[must_use]
    pub fn poll_dead(&self) -> Option<Arc<Consumer>> {
        loop {
            let key = lock(&self.board.attention).next_dead()?;
            if let Some(consumer) = self.find(&key) {
                return Some(consumer);
            }
            lock(&self.board.attention).dead.remove(&key);
        }
    }

    /// Does what is due by now in every consumer, wakes a member of each that has something to do then, and says when
    /// the next thing is due.
    pub fn handle_timeouts_at(&self, now: Tick) -> Option<Tick> {
        let due: Vec<ConsumerKey> = {
            let attention = lock(&self.board.attention);
            let due = attention.timers.iter().take_while(|(tick, _)| *tick <= now);
            due.map(|(_, key)| key.clone()).collect()
        };
        for consumer in due.iter().filter_map(|key| self.find(key)) {
            consumer.act(|group| group.handle_timeout_at(now));
            consumer.wake();
        }
        lock(&self.board.attention).timers.first().map(|(tick, _)| *tick)
    }

    /// A stream was opened after the consumers were restored, and ends here. See [`Group::truncate`].
    pub fn handle_stream_opened(&self, stream: StreamId, end: u64) {
        self.list(Some(stream)).iter().for_each(|consumer| consumer.act(|group| group.truncate(end)));
    }

    /// What must be written: each consumer that has changed, as it stands now. To be answered with
    /// [`Consumers::flushed`].
    pub fn take_changes(&self) -> (Batch, Vec<CursorChange>) {
        let batch = self.board.changes.take();
        let changes = batch.keys.iter().map(|key| match self.find(key) {
            Some(consumer) => {
                let state = lock(&consumer.state);
                CursorChange::Stands(KeptConsumer {
                    key: key.clone(),
                    settings: state.group.settings().clone(),
                    cursor: state.group.snapshot(),
                })
            }
            None => CursorChange::Removed(key.clone()),
        });
        let changes = changes.collect();
        (batch, changes)
    }

    /// What was taken is durable, or could not be written. Then it is taken again, and those who wait are told.
    pub fn flushed(&self, batch: Batch, outcome: &Result<(), SystemError>) {
        self.board.changes.finish(batch, outcome);
    }

    /// Returns when somebody waits for something to be durable, or after this long. Not before it is over in any case
    /// when the last write has failed: those who wait would only be told the same again.
    pub(super) fn await_flush(&self, within: Duration, last: &Result<(), SystemError>) {
        match last {
            Ok(()) => self.board.changes.await_waiter(within),
            Err(_) => self.board.changes.rest(within),
        }
    }

    /// Nobody may wait any more: the broker is shutting down. What has changed can still be written.
    pub fn close(&self) {
        self.board.changes.close();
    }

    /// Whether it was closed.
    #[must_use]
    pub(super) fn is_closed(&self) -> bool {
        self.board.changes.is_closed()
    }
}

impl fmt::Debug for Consumers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumers").field("consumers", &read(&self.by_key).len()).finish_non_exhaustive()
    }
}

impl Consumer {
    fn new(key: ConsumerKey, board: Arc<Board>, group: Group) -> Arc<Self> {
        let state = State { group, wakers: BTreeMap::new(), timer: None, is_removed: false };
        Arc::new(Self { key, board, state: Mutex::new(state) })
    }

    /// Which one it is.
    #[must_use]
    pub const fn key(&self) -> &ConsumerKey {
        &self.key
    }

    /// Lets a member in, with so many bytes of credit. `waker` is told when there may be something for the group to
    /// do: then [`Group::poll_assignment`] is to be asked, by any member and on behalf of all.
    ///
    /// # Errors
    /// [`JoinError`].
    pub fn join(&self, member: MemberId, credit_bytes: u64, waker: Arc<dyn Waiter>) -> Result<(), JoinError> {
        let mut state = lock(&self.state);
        if state.is_removed {
            return Err(JoinError::Removed);
        }
        state.group.join(member, credit_bytes).map_err(|error| match error {
            MemberError::Full => JoinError::TooManyMembers,
            MemberError::Already => JoinError::AlreadyMember,
        })?;
        state.wakers.insert(member, waker);
        Ok(())
    }

    /// Lets a member go. What it had is for the others, one of whom is woken.
    pub fn leave(&self, member: MemberId) {
        lock(&self.state).wakers.remove(&member);
        self.act(|group| group.leave(member));
        self.wake();
    }

    /// Acts on the group. What it changes will be written, and what is due will be done. `work` runs under the lock of
    /// this consumer: it must not wait, nor act on another.
    pub fn act<R>(&self, work: impl FnOnce(&mut Group) -> R) -> R {
        let mut state = lock(&self.state);
        let result = work(&mut state.group);
        let undertaker = self.post(&mut state);
        drop(state);
        if let Some(undertaker) = undertaker {
            undertaker.committed();
        }
        result
    }

    /// Wakes the member whose turn it is.
    pub fn wake(&self) {
        let waker = {
            let state = lock(&self.state);
            let next = state.group.next_member();
            next.and_then(|member| state.wakers.get(&member)).cloned()
        };
        if let Some(waker) = waker {
            waker.committed();
        }
    }

    /// Whether it was removed. Its members should be told and leave.
    #[must_use]
    pub fn is_removed(&self) -> bool {
        lock(&self.state).is_removed
    }

    /// What administration sees of it, in a stream that ends at `end`.
    #[must_use]
    pub fn info(&self, end: u64) -> ConsumerInfo {
        let state = lock(&self.state);
        let group = &state.group;
        ConsumerInfo {
            key: self.key.clone(),
            settings: group.settings().clone(),
            position: group.position(),
            unacknowledged: group.unacknowledged(),
            redelivering: group.redelivering(),
            members: group.members().count(),
            lag: group.lag(end),
            totals: group.totals(),
        }
    }

    fn check(&self, asked: &AskedSettings) -> Result<(), JoinError> {
        let conflict = asked.conflict_with(lock(&self.state).group.settings());
        conflict.map_or(Ok(()), |conflict| Err(JoinError::Conflict(conflict)))
    }

    /// Brings the board up to date; says whom to tell about new dead letters.
    fn post(&self, state: &mut State) -> Option<Arc<dyn Waiter>> {
        if state.is_removed {
            return None;
        }
        if state.group.take_changed() {
            self.board.changes.mark(&self.key);
        }
        let (timer, has_dead) = (state.group.poll_timeout(), state.group.has_dead());
        let mut attention = lock(&self.board.attention);
        if timer != state.timer {
            if let Some(before) = state.timer {
                attention.timers.remove(&(before, self.key.clone()));
            }
            attention.timers.extend(timer.map(|tick| (tick, self.key.clone())));
            state.timer = timer;
        }
        if has_dead == attention.dead.contains(&self.key) {
            None
        } else if has_dead {
            attention.dead.insert(self.key.clone());
            attention.undertaker.clone()
        } else {
            attention.dead.remove(&self.key);
            None
        }
    }
}

impl fmt::Debug for Consumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Consumer({})", self.key)
    }
}

fn of_stream(
    by_key: &BTreeMap<ConsumerKey, Arc<Consumer>>,
    stream: StreamId,
) -> impl Iterator<Item = &Arc<Consumer>> {
    // No name sorts before this one.
    let first = Name::parse("-").expect("a hyphen is a name");
    let from = ConsumerKey { stream, name: first };
    let range = by_key.range((Bound::Included(from), Bound::Unbounded));
    range.take_while(move |(key, _)| key.stream == stream).map(|(_, consumer)| consumer)
}
