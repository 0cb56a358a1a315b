//! What waits to be written to a stream: the queue between sessions and the writer. Pure.
//!
//! ```text
//!             room                 sync or write failed
//!   Open <------------ Full           any --------------> Stopped     (for good)
//!     '---------------->'             any --close-------> Closed      (what is queued is still written)
//!        no room
//! ```
//!
//! A batch gets its offset when it is queued. When it cannot be written after all, everything behind it goes with it,
//! its offsets are given anew, and the *epoch* grows: a ticket of an older epoch never stands for a batch of a newer.

use std::any::Any;
use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex};

use sealbus_protocol::batch::accept::{Accepted, SequenceState};

use super::record::NewRecord;
use super::settings::Level;
use super::store::{AppendError, StreamState, Ticket, Waiter};

/// Bytes that may wait to be written. A disk that hangs for a second at full speed has so many; beyond that the
/// publishers are told, who keep what they sent.
pub const QUEUE_BYTES_MAX: usize = 64 * 1_024 * 1_024;

/// Bytes that are written and synced together. More would only delay those who came first.
pub const GROUP_BYTES_MAX: usize = 8 * 1_024 * 1_024;

/// What an entry costs besides its batch.
const ENTRY_BYTES: usize = 512;

/// A record that waits.
pub(super) struct Queued {
    pub(super) record: NewRecord,
    /// The sequence that moved for it, and by what.
    pub(super) undo: Option<Undo>,
    pub(super) context: Arc<dyn Any + Send + Sync>,
    pub(super) waiter: Arc<dyn Waiter>,
    /// What its receipt promises, whatever the stream's level is by the time it is written.
    pub(super) level: Level,
}

/// How a sequence goes back to where it was before a batch.
pub(super) struct Undo {
    pub(super) sequence: Arc<Mutex<SequenceState>>,
    pub(super) accepted: Box<Accepted>,
}

impl Queued {
    fn cost(&self) -> usize {
        self.record.batch.len().saturating_add(ENTRY_BYTES)
    }
}

impl fmt::Debug for Queued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queued").field("record", &self.record).finish_non_exhaustive()
    }
}

/// Whether the writer has to be woken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wake {
    /// It does not know of the queue yet.
    Writer,
    /// It does.
    Nobody,
}

#[derive(Debug)]
pub(super) struct Intake {
    state: StreamState,
    queue: VecDeque<Queued>,
    bytes: usize,
    /// Of the next batch.
    next_offset: u64,
    next_record: u64,
    epoch: u64,
    /// Those who wait for a batch that somebody else appended.
    others: Vec<Others>,
    is_announced: bool,
}

struct Others {
    end_record: u64,
    waiter: Arc<dyn Waiter>,
}

impl fmt::Debug for Others {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Others({})", self.end_record)
    }
}

impl Intake {
    pub(super) const fn new(state: StreamState, next_offset: u64, next_record: u64) -> Self {
        Self {
            state,
            queue: VecDeque::new(),
            bytes: 0,
            next_offset,
            next_record,
            epoch: 0,
            others: Vec::new(),
            is_announced: false,
        }
    }

    pub(super) const fn state(&self) -> &StreamState {
        &self.state
    }

    /// Gives a record its place at the end.
    pub(super) fn push(&mut self, queued: Queued) -> Result<(Ticket, Wake), AppendError> {
        self.check_open()?;
        let cost = queued.cost();
        if self.bytes.saturating_add(cost) > QUEUE_BYTES_MAX {
            return Err(AppendError::Busy);
        }
        let offset = self.next_offset;
        self.next_offset = offset.saturating_add(u64::from(queued.record.messages));
        self.next_record = self.next_record.saturating_add(1);
        self.bytes = self.bytes.saturating_add(cost);
        self.queue.push_back(queued);
        Ok((Ticket { offset, end_record: self.next_record, epoch: self.epoch }, self.announce()))
    }

    /// A ticket for everything that was queued so far, and somebody to tell.
    pub(super) fn join(&mut self, offset: u64, waiter: Arc<dyn Waiter>) -> Result<Ticket, AppendError> {
        self.check_open()?;
        self.others.push(Others { end_record: self.next_record, waiter });
        Ok(Ticket { offset, end_record: self.next_record, epoch: self.epoch })
    }

    /// Has the writer come by although nothing is queued.
    pub(super) const fn announce(&mut self) -> Wake {
        if self.is_announced {
            return Wake::Nobody;
        }
        self.is_announced = true;
        Wake::Writer
    }

    /// The next group, oldest first.
    pub(super) fn take(&mut self) -> Vec<Queued> {
        let mut group = Vec::new();
        let mut bytes = 0_usize;
        while let Some(next) = self.queue.front() {
            bytes = bytes.saturating_add(next.cost());
            if bytes > GROUP_BYTES_MAX && !group.is_empty() {
                break;
            }
            self.bytes = self.bytes.saturating_sub(next.cost());
            group.extend(self.queue.pop_front());
        }
        group
    }

    /// The writer leaves, unless more has come since.
    pub(super) fn settle(&mut self) -> Wake {
        self.is_announced = !self.queue.is_empty();
        if self.is_announced { Wake::Writer } else { Wake::Nobody }
    }

    /// Those of `join` whose batches are visible.
    pub(super) fn take_others(&mut self, end_record: u64) -> Vec<Arc<dyn Waiter>> {
        let all = std::mem::take(&mut self.others);
        let (told, left): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|other| other.end_record <= end_record);
        self.others = left;
        told.into_iter().map(|other| other.waiter).collect()
    }

    /// There is no room: nothing more is taken, and what waits is given back, to be withdrawn. The next offset is that
    /// of the log's end again.
    pub(super) fn withdraw(&mut self, next_offset: u64, next_record: u64) -> Vec<Queued> {
        self.refuse(StreamState::Full);
        self.next_offset = next_offset;
        self.next_record = next_record;
        self.epoch = self.epoch.saturating_add(1);
        self.bytes = 0;
        std::mem::take(&mut self.queue).into()
    }

    /// Nothing more is taken, for good; what waits is given back, only to be told.
    pub(super) fn stop(&mut self, reason: Arc<str>) -> Vec<Queued> {
        self.state = StreamState::Stopped(reason);
        self.bytes = 0;
        std::mem::take(&mut self.queue).into()
    }

    /// Nothing more is taken while this state lasts; what waits is still written.
    pub(super) fn refuse(&mut self, state: StreamState) {
        match self.state {
            StreamState::Open | StreamState::Full => self.state = state,
            StreamState::Stopped(_) | StreamState::Closed => {}
        }
    }

    /// There is room again.
    pub(super) fn resume(&mut self) {
        if self.state == StreamState::Full {
            self.state = StreamState::Open;
        }
    }

    fn check_open(&self) -> Result<(), AppendError> {
        match &self.state {
            StreamState::Open => Ok(()),
            StreamState::Full => Err(AppendError::Full),
            StreamState::Stopped(reason) => Err(AppendError::Stopped { reason: Arc::clone(reason) }),
            StreamState::Closed => Err(AppendError::Closed),
        }
    }
}
