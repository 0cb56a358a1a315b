//! What must be written of the consumers, and who waits for it.
//!
//! ```text
//!   changed(key) --> dirty --take--> being written --finish(Ok)--> durable: those who waited before the take are told
//!     ^                                    |
//!     '----------- finish(Err) ------------'
//! ```

use std::collections::BTreeSet;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::limits::SYNC_WAITERS_MAX;
use crate::locks::lock;
use crate::storage::system::{ConsumerKey, SystemError};

/// Told once: everything that was settled when it was handed over is durable, or could not be made so.
pub type DurableWaiter = Box<dyn FnOnce(Result<(), SystemError>) + Send>;

/// What was taken to be written.
#[must_use = "those who wait are told when it is finished"]
pub struct Batch {
    /// The consumers whose state is to be written.
    pub(super) keys: BTreeSet<ConsumerKey>,
    waiters: Vec<DurableWaiter>,
}

/// Everything that is to be written.
#[derive(Debug, Default)]
pub(super) struct Changes {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    dirty: BTreeSet<ConsumerKey>,
    waiters: Vec<DurableWaiter>,
    is_closed: bool,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("dirty", &self.dirty).finish_non_exhaustive()
    }
}

impl Changes {
    /// A consumer's state has to be written. Must be called before the lock of the consumer is given up, so that
    /// whoever waits from then on waits for it too.
    pub(super) fn mark(&self, key: &ConsumerKey) {
        let mut state = lock(&self.state);
        if !state.dirty.contains(key) {
            state.dirty.insert(key.clone());
        }
    }

    /// Has `done` told when all that is marked now is durable.
    pub(super) fn when_durable(&self, done: DurableWaiter) {
        let refused = {
            let mut state = lock(&self.state);
            if state.is_closed {
                SystemError::Closed
            } else if state.waiters.len() >= SYNC_WAITERS_MAX {
                SystemError::Busy
            } else {
                state.waiters.push(done);
                self.changed.notify_all();
                return;
            }
        };
        done(Err(refused));
    }

    pub(super) fn take(&self) -> Batch {
        let mut state = lock(&self.state);
        Batch { keys: std::mem::take(&mut state.dirty), waiters: std::mem::take(&mut state.waiters) }
    }

    /// What was taken was written, or was not. What was not is written again.
    pub(super) fn finish(&self, batch: Batch, outcome: &Result<(), SystemError>) {
        if outcome.is_err() {
            lock(&self.state).dirty.extend(batch.keys);
        }
        batch.waiters.into_iter().for_each(|done| done(outcome.clone()));
    }

    /// Returns when somebody waits, or after this long, or when nothing more will come.
    pub(super) fn await_waiter(&self, within: Duration) {
        let is_quiet = |state: &mut State| state.waiters.is_empty() && !state.is_closed;
        let waited = self.changed.wait_timeout_while(lock(&self.state), within, is_quiet);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    /// Returns after this long, or when nothing more will come.
    pub(super) fn rest(&self, length: Duration) {
        let waited = self.changed.wait_timeout_while(lock(&self.state), length, |state| !state.is_closed);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    /// Nobody can begin to wait any more; what is marked can still be taken.
    pub(super) fn close(&self) {
        lock(&self.state).is_closed = true;
        self.changed.notify_all();
    }

    pub(super) fn is_closed(&self) -> bool {
        lock(&self.state).is_closed
    }
}
