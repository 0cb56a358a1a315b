//! What waits for the thread of the system logs.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::frame::{Completion, SystemError, SystemFrame, SystemLog};
use crate::locks::lock;

/// Jobs that may wait. Each is somebody's request, and those are bounded too: this holds for many of them at once.
const JOBS_MAX: usize = 16_384;

/// Bytes that may wait.
const BYTES_MAX: usize = 32 * 1_024 * 1_024;

/// Jobs that are taken at once: one sync for all of them.
const TAKE_MAX: usize = 1_024;

/// Something to do for the thread.
pub(super) enum Job {
    /// Append these, sync, and say so.
    Append { log: SystemLog, frames: Vec<SystemFrame>, done: Completion },
    /// Remove whole segments below this offset.
    Trim { log: SystemLog, before_offset: u64 },
}

impl Job {
    fn bytes(&self) -> usize {
        match self {
            Self::Append { frames, .. } => {
                frames.iter().fold(0, |sum, frame| sum.saturating_add(frame.payload.len()))
            }
            Self::Trim { .. } => 0,
        }
    }
}

/// What the thread does next.
pub(super) enum Taken {
    /// These.
    Jobs(Vec<Job>),
    /// Nothing came for as long as it was willing to wait.
    Silence,
    /// Nothing more will come.
    End,
}

pub(super) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    waiting: VecDeque<Job>,
    bytes: usize,
    is_open: bool,
}

impl Queue {
    pub(super) fn new() -> Self {
        let state = State { waiting: VecDeque::new(), bytes: 0, is_open: true };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Adds a job. One that cannot be taken comes back, with the reason.
    pub(super) fn push(&self, job: Job) -> Result<(), (Job, SystemError)> {
        let mut state = lock(&self.state);
        if !state.is_open {
            return Err((job, SystemError::Closed));
        }
        let bytes = state.bytes.saturating_add(job.bytes());
        if state.waiting.len() >= JOBS_MAX || (bytes > BYTES_MAX && !state.waiting.is_empty()) {
            return Err((job, SystemError::Busy));
        }
        state.bytes = bytes;
        state.waiting.push_back(job);
        self.changed.notify_one();
        Ok(())
    }

    /// Takes what waits. Waits for something, at most `wait_ms` when that is given.
    pub(super) fn take(&self, wait_ms: Option<u64>) -> Taken {
        let mut state = lock(&self.state);
        loop {
            if !state.waiting.is_empty() {
                let count = state.waiting.len().min(TAKE_MAX);
                let jobs: Vec<Job> = state.waiting.drain(..count).collect();
                state.bytes -= jobs.iter().map(Job::bytes).sum::<usize>();
                return Taken::Jobs(jobs);
            }
            if !state.is_open {
                return Taken::End;
            }
            state = match wait_ms {
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(wait_ms) => {
                    let waited = self.changed.wait_timeout(state, Duration::from_millis(wait_ms));
                    let (state, outcome) = waited.unwrap_or_else(PoisonError::into_inner);
                    if outcome.timed_out() && state.waiting.is_empty() && state.is_open {
                        return Taken::Silence;
                    }
                    state
                }
            };
        }
    }

    /// Takes no more jobs; what waits can still be taken.
    pub(super) fn close(&self) {
        lock(&self.state).is_open = false;
        self.changed.notify_one();
    }
}
