//! How a writer thread learns which of its streams have something to write.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use sealbus_protocol::ids::StreamId;

use super::handle::Stream;
use crate::locks::lock;

/// Streams with something to write, in the order in which they said so. Each is in it at most once.
#[derive(Default)]
pub(super) struct Inbox {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    ready: VecDeque<Arc<Stream>>,
    members: HashMap<StreamId, Arc<Stream>>,
    condition: Condition,
}

#[derive(Default, Clone, PartialEq, Eq)]
enum Condition {
    #[default]
    Serving,
    /// The thread leaves when nothing is ready.
    Ending,
    /// The thread is gone without having been asked to.
    Dead(Arc<str>),
}

/// What a wait ended with.
pub(super) enum Taken {
    /// This stream has something to do.
    Stream(Arc<Stream>),
    /// Nothing came in the time.
    Silence,
    /// Nothing will come any more.
    End,
}

impl Inbox {
    pub(super) fn push(&self, stream: Arc<Stream>) {
        lock(&self.state).ready.push_back(stream);
        self.changed.notify_one();
    }

    /// The next stream; waits for one at most this long.
    pub(super) fn take(&self, wait_ms: Option<u64>) -> Taken {
        let mut state = lock(&self.state);
        loop {
            if let Some(stream) = state.ready.pop_front() {
                return Taken::Stream(stream);
            }
            if state.condition != Condition::Serving {
                return Taken::End;
            }
            state = match wait_ms {
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(wait_ms) => {
                    let wait = Duration::from_millis(wait_ms);
                    let waited = self.changed.wait_timeout(state, wait);
                    let (state, outcome) = waited.unwrap_or_else(PoisonError::into_inner);
                    if outcome.timed_out() && state.ready.is_empty() && state.condition == Condition::Serving
                    {
                        return Taken::Silence;
                    }
                    state
                }
            };
        }
    }

    /// Makes a stream one of this thread's; refused, with the reason, when the thread is gone.
    pub(super) fn join(&self, stream: &Arc<Stream>) -> Result<(), Arc<str>> {
        let mut state = lock(&self.state);
        if let Condition::Dead(reason) = &state.condition {
            return Err(Arc::clone(reason));
        }
        state.members.insert(stream.id(), Arc::clone(stream));
        Ok(())
    }

    pub(super) fn leave(&self, id: StreamId) {
        lock(&self.state).members.remove(&id);
    }

    pub(super) fn end(&self) {
        let mut state = lock(&self.state);
        if state.condition == Condition::Serving {
            state.condition = Condition::Ending;
        }
        self.changed.notify_all();
    }

    /// The thread is gone: gives the streams that it leaves behind.
    pub(super) fn die(&self, reason: &Arc<str>) -> Vec<Arc<Stream>> {
        let mut state = lock(&self.state);
        state.condition = Condition::Dead(Arc::clone(reason));
        state.ready.clear();
        std::mem::take(&mut state.members).into_values().collect()
    }
}
