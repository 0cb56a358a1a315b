//! The bounded room between those who record and the thread that writes.
//!
//! The lock is held for a push or a take, never for a write. What changes things has room of its own at the end, so
//! that no flood keeps an operator from revoking.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sealbus_protocol::session::Tick;
use tokio::sync::oneshot;

use super::event::Event;
use super::flood::{Flood, HELD_MS_MAX, Span, Verdict};
use super::handle::AuditUnavailable;
use crate::clock::Clock;
use crate::config::AuditConfig;

/// Room for events that somebody waits for, beyond the room for all.
const DURABLE_RESERVE: usize = 64;

/// Events that the thread takes at a time: enough to share one sync, few enough to bound its buffer (1 MiB or so).
const TAKE_MAX: usize = 1_024;

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
}

struct State {
    waiting: VecDeque<Entry>,
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
                flood: Flood::new(config.singles_per_second_max),
                held_since: None,
                condition: Condition::Open,
            }),
            changed: Condvar::new(),
            events_max: config.queue_events_max,
        }
    }

    /// Adds an event that may be counted with others of its kind.
    pub(super) fn push(&self, time_ms: u64, tick: Tick, event: Event) -> Result<(), AuditUnavailable> {
        let mut state = self.lock();
        state.condition.check()?;
        match state.flood.admit_at(event, time_ms, tick) {
            Verdict::Single(event) => {
                if state.waiting.len() >= self.events_max {
                    return Err(AuditUnavailable::QueueFull);
                }
                state.waiting.push_back(Entry { time_ms, event, span: None, waiter: None });
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
        state.waiting.push_back(Entry { time_ms, event, span: None, waiter: Some(waiter) });
        self.changed.notify_one();
        Ok(())
    }

    /// Takes what waits, and what flood control has held for long enough. Waits for something, at most `wait_ms` when
    /// that is given.
    pub(super) fn take(&self, clock: &dyn Clock, wait_ms: Option<u64>) -> Taken {
        let mut state = self.lock();
        loop {
            let tick = clock.tick();
            if state.held_for(tick).is_some_and(|held_ms| held_ms >= HELD_MS_MAX) {
                state.release_held(clock.now_ms());
            }
            if !state.waiting.is_empty() {
                let count = state.waiting.len().min(TAKE_MAX);
                return Taken::Entries(state.waiting.drain(..count).collect());
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
