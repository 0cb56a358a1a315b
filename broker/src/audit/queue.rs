//! The bounded room between those who record and the thread that writes.
//!
//! The lock is held for a push or a take, never for a write. What changes things has room of its own at the end, so
//! that no flood keeps an operator from revoking.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sealbus_protocol::session::Tick;
use tokio::sync::oneshot;

use super::event::{Class, Event};
use super::flood::{Flood, HELD_MS_MAX, Span, Verdict};
use super::handle::AuditUnavailable;
use crate::clock::Clock;
use crate::config::AuditConfig;

/// Room for events that somebody waits for, beyond the room for all.
const DURABLE_RESERVE: usize = 64;

/// Events that the thread takes at a time: enough to share one sync, few enough to bound its buffer (1 MiB or so).
const TAKE_MAX: usize = 1_024;

/// How long the thread lets events gather that nobody waits for. On a busy broker each would otherwise wake it by itself,
/// which costs more than writing it. They are promised to survive a power loss within a second, and what a killed broker
/// had not written yet grows by this.
const GATHER: Duration = Duration::from_millis(2);

/// The last lines of sessions that wait behind the room for all: those of 64 sessions with every topic that a session may
/// have, 32 MiB at worst. When a broker stops, all of its sessions end at once.
pub(super) const LAST_MAX: usize = 65_536;

/// How much of the room for all an event may find taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Room {
    /// All of it but one place.
    All,
    /// Half of it but one place: the event can come later, and leaves the rest to those that cannot.
    Half,
}

/// How an event's recording is answered.
pub(super) type Waiter = oneshot::Sender<Result<(), AuditUnavailable>>;

/// An event on its way to the disk.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) time_ms: u64,
    pub(super) event: Event,
    pub(super) span: Option<Span>,
    pub(super) waiter: Option<Waiter>,
}

pub(super) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
    events_max: usize,
    /// Events that are not made to wait for more of them.
    gathered_max: usize,
}

struct State {
    waiting: VecDeque<Entry>,
    /// What follows when less than half of the room is taken.
    last: VecDeque<Entry>,
    /// Whether somebody waits for one of them, or one must not wait itself.
    is_urgent: bool,
    flood: Flood,
    held_since: Option<Tick>,
    condition: Condition,
}

#[derive(Debug, Clone)]
enum Condition {
    Open,
    Closed,
    Failed(Arc<str>),
}

/// What the thread does next.
pub(super) enum Taken {
    /// Write these, at least one.
    Entries(Vec<Entry>),
    /// Nothing came for as long as it was willing to wait.
    Silence,
    /// Nothing more will come.
    End,
}

impl Queue {
    pub(super) fn new(config: &AuditConfig) -> Self {
        Self {
            state: Mutex::new(State {
                waiting: VecDeque::new(),
                last: VecDeque::new(),
                is_urgent: false,
                flood: Flood::new(config.singles_per_second_max),
                held_since: None,
                condition: Condition::Open,
            }),
            changed: Condvar::new(),
            events_max: config.queue_events_max,
            gathered_max: TAKE_MAX.min(config.queue_events_max / 2),
        }
    }

    /// Adds an event that may be counted with others of its kind.
    pub(super) fn push(
        &self,
        time_ms: u64,
        tick: Tick,
        event: Event,
        room: Room,
    ) -> Result<(), AuditUnavailable> {
        let events_max = match room {
            Room::All => self.events_max,
            Room::Half => self.events_max / 2,
        };
        let mut state = self.lock();
        state.condition.check()?;
        match state.flood.admit_at(event, time_ms, tick) {
            Verdict::Single(event) => {
                if state.waiting.len() >= events_max {
                    return Err(AuditUnavailable::QueueFull);
                }
                state.is_urgent |= event.class() == Class::S0;
                state.waiting.push_back(Entry { time_ms, event, span: None, waiter: None });
                if state.waiting.len() > 1 && state.may_gather(self.gathered_max) {
                    // The thread knows of the first.
                    return Ok(());
                }
            }
            Verdict::Held => {
                if state.held_since.is_some() {
                    return Ok(());
                }
                state.held_since = Some(tick);
            }
        }
        self.changed.notify_one();
        Ok(())
    }

    /// Adds an event that could come later if there were anybody left to bring it.
    pub(super) fn push_last(&self, time_ms: u64, event: Event) -> Result<(), AuditUnavailable> {
        let mut state = self.lock();
        state.condition.check()?;
        let entry = Entry { time_ms, event, span: None, waiter: None };
        if state.last.is_empty() && state.waiting.len() < self.events_max / 2 {
            state.waiting.push_back(entry);
            self.changed.notify_one();
        } else if state.last.len() < LAST_MAX {
            // The thread has work, and looks here when it takes some.
            state.last.push_back(entry);
        } else {
            return Err(AuditUnavailable::QueueFull);
        }
        Ok(())
    }

    /// Adds an event that somebody waits for.
    pub(super) fn push_durable(
        &self,
        time_ms: u64,
        event: Event,
        waiter: Waiter,
    ) -> Result<(), AuditUnavailable> {
        let mut state = self.lock();
        state.condition.check()?;
        if state.waiting.len() >= self.events_max.saturating_add(DURABLE_RESERVE) {
            return Err(AuditUnavailable::QueueFull);
        }
        state.is_urgent = true;
        state.waiting.push_back(Entry { time_ms, event, span: None, waiter: Some(waiter) });
        self.changed.notify_one();
        Ok(())
    }

    /// Takes what waits, and what flood control has held for long enough. Waits for something, at most `wait_ms` when
    /// that is given.
    pub(super) fn take(&self, clock: &dyn Clock, wait_ms: Option<u64>) -> Taken {
        let mut state = self.lock();
        let mut has_gathered = false;
        loop {
            let tick = clock.tick();
            if state.held_for(tick).is_some_and(|held_ms| held_ms >= HELD_MS_MAX) {
                state.release_held(clock.now_ms());
            }
            state.admit_last(self.events_max / 2);
            if !state.waiting.is_empty() {
                if !std::mem::replace(&mut has_gathered, true) {
                    let may_gather = |state: &mut State| state.may_gather(self.gathered_max);
                    let gathered = self.changed.wait_timeout_while(state, GATHER, may_gather);
                    (state, _) = gathered.unwrap_or_else(PoisonError::into_inner);
                    continue;
                }
                let count = state.waiting.len().min(TAKE_MAX);
                let entries = state.waiting.drain(..count).collect();
                state.is_urgent &= !state.waiting.is_empty();
                return Taken::Entries(entries);
            }
            match &state.condition {
                Condition::Open => {}
                Condition::Closed if state.held_since.is_some() => {
                    state.release_held(clock.now_ms());
                    continue;
                }
                Condition::Closed | Condition::Failed(_) => return Taken::End,
            }
            let held_left_ms = state.held_for(tick).map(|held_ms| HELD_MS_MAX.saturating_sub(held_ms));
            state = match (wait_ms, held_left_ms) {
                (None, None) => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                (wait_ms, held_left_ms) => {
                    let limit_ms = wait_ms.unwrap_or(u64::MAX).min(held_left_ms.unwrap_or(u64::MAX));
                    let (state, outcome) = self
                        .changed
                        .wait_timeout(state, Duration::from_millis(limit_ms))
                        .unwrap_or_else(PoisonError::into_inner);
                    if outcome.timed_out() && wait_ms == Some(limit_ms) && state.waiting.is_empty() {
                        return Taken::Silence;
                    }
                    state
                }
            };
        }
    }

    /// Takes no more events; what waits can still be taken.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        if let Condition::Open = state.condition {
            state.condition = Condition::Closed;
        }
        self.changed.notify_one();
    }

    /// Takes no more events, and refuses those that wait. The first reason stands.
    pub(super) fn fail(&self, reason: &str) {
        let mut state = self.lock();
        if !matches!(state.condition, Condition::Failed(_)) {
            state.condition = Condition::Failed(reason.into());
        }
        let refused: Vec<Entry> = state.waiting.drain(..).collect();
        state.last.clear();
        drop(state);
        for waiter in refused.into_iter().filter_map(|entry| entry.waiter) {
            // Nobody may be waiting any more.
            let _ = waiter.send(Err(self.unavailable()));
        }
        self.changed.notify_one();
    }

    pub(super) fn is_open(&self) -> bool {
        self.lock().condition.check().is_ok()
    }

    /// Why nothing is taken.
    pub(super) fn unavailable(&self) -> AuditUnavailable {
        self.lock().condition.check().err().unwrap_or(AuditUnavailable::Stopped)
    }

    /// Whether everything that was taken was written, once it has stopped.
    pub(super) fn outcome(&self) -> Result<(), AuditUnavailable> {
        match &self.lock().condition {
            Condition::Open | Condition::Closed => Ok(()),
            Condition::Failed(reason) => Err(AuditUnavailable::Failed { reason: Arc::clone(reason) }),
        }
    }

    /// A panic elsewhere leaves the state whole: every change of it is one statement that cannot panic half-way.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Whether what waits may wait for more to share the thread's turn.
    fn may_gather(&self, gathered_max: usize) -> bool {
        !self.is_urgent && self.waiting.len() < gathered_max && matches!(self.condition, Condition::Open)
    }

    /// Moves last lines to what waits, up to so many there.
    fn admit_last(&mut self, waiting_max: usize) {
        let room = waiting_max.saturating_sub(self.waiting.len());
        let count = self.last.len().min(room);
        self.waiting.extend(self.last.drain(..count));
    }

    fn held_for(&self, tick: Tick) -> Option<u64> {
        self.held_since.map(|since| tick.since(since))
    }

    fn release_held(&mut self, now_ms: u64) {
        self.held_since = None;
        let entries = self.flood.drain().into_iter();
        self.waiting.extend(entries.map(|(event, span)| Entry {
            time_ms: now_ms,
            event,
            span: Some(span),
            waiter: None,
        }));
    }
}

impl Condition {
    fn check(&self) -> Result<(), AuditUnavailable> {
        match self {
            Self::Open => Ok(()),
            Self::Closed => Err(AuditUnavailable::Stopped),
            Self::Failed(reason) => Err(AuditUnavailable::Failed { reason: Arc::clone(reason) }),
        }
    }
}

#[cfg(test)]
mod tests {
    use sealbus_protocol::topic::TopicFilter;

    use super::super::samples::{actor, actor_of, admin_done, denied, principal, topic};
    use super::*;
    use crate::clock::ManualClock;

    const EVENTS_MAX: usize = 64;

    fn queue() -> Queue {
        let config = AuditConfig { queue_events_max: EVENTS_MAX, ..AuditConfig::default() };
        Queue::new(&config)
    }

    fn push(queue: &Queue, event: Event) {
        queue.push(0, Tick(0), event, Room::All).unwrap();
    }

    fn may_gather(queue: &Queue) -> bool {
        queue.lock().may_gather(queue.gathered_max)
    }

    fn taken(queue: &Queue) -> usize {
        match queue.take(&ManualClock::new(0), Some(0)) {
            Taken::Entries(entries) => entries.len(),
            Taken::Silence | Taken::End => 0,
        }
    }

    /// Longer in the queue is only what may be: never what somebody waits for, or what has an effect that waits for it.
    #[test]
    fn only_what_nobody_waits_for_gathers() {
        let queue = queue();
        push(&queue, denied(actor(), topic()));
        assert!(may_gather(&queue));
        push(&queue, admin_done());
        assert!(!may_gather(&queue), "its effect waits for it");
        assert_eq!(taken(&queue), 2);
        push(&queue, denied(actor_of(principal()), topic()));
        assert!(may_gather(&queue), "the urgent one is gone");
        let (waiter, _receiver) = oneshot::channel();
        queue.push_durable(0, denied(actor(), topic()), waiter).unwrap();
        assert!(!may_gather(&queue), "somebody waits");
        assert_eq!(taken(&queue), 2);
        push(&queue, denied(actor(), topic()));
        queue.close();
        assert!(!may_gather(&queue), "the broker stops");
    }

    #[test]
    fn half_a_queue_does_not_wait_for_more() {
        let queue = queue();
        for session in 0..EVENTS_MAX / 2 {
            assert!(may_gather(&queue), "{session}");
            push(
                &queue,
                Event::Unsubscribed {
                    actor: actor(),
                    filter: TopicFilter::parse(&session.to_string()).unwrap(),
                },
            );
        }
        assert!(!may_gather(&queue));
    }
}
