//! The messages of one topic that wait to be signed, and the account of all that wait for an answer. Pure.
//!
//! ```text
//!   push ──> | open batch | ──(full, or old)──> | full batches | ──take──> signed, in flight ──settle──> forgotten
//!            '-------------------------take, when the line is idle-------^
//!            '------------------------ pending_bytes -----------------------------------------'
//! ```
//!
//! The lock around this is the only thing that a message costs besides its bytes.

use std::collections::{BTreeSet, VecDeque};

use sealbus_protocol::batch::Headers;
use sealbus_protocol::batch::produce::{OpenBatch, PushError};
use sealbus_protocol::refusal::Refusal;
use sealbus_protocol::session::Tick;

use crate::error::{CloseReason, EnqueueError, PublishError};

use super::content::MessageError;

/// What a message adds to a body besides its own bytes.
const RECORD_HEAD_LEN: usize = sealbus_protocol::batch::preamble::RECORD_HEAD_LEN;

/// The share of the publish deadline after which a batch takes no more messages, so that one that comes late still
/// has nearly all of its own time: messages of one batch share one deadline.
const COLLECTING_SHARE: u64 = 10;

/// How much may be collected, and how long it may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct QueueLimits {
    pub(crate) batch_bytes_max: usize,
    pub(crate) pending_bytes_max: usize,
    pub(crate) publish_timeout_ms: u64,
}

/// Batches are numbered in the order in which they were begun, across incarnations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct BatchNumber(pub(crate) u64);

/// What goes with a batch from its first message to its answer.
#[derive(Debug, Clone)]
pub(crate) struct Cargo<T> {
    pub(crate) number: BatchNumber,
    pub(crate) ticket: T,
    pub(crate) deadline: Tick,
}

/// Messages that wait to be signed together.
#[derive(Debug)]
pub(crate) struct Collected<T> {
    pub(crate) batch: OpenBatch,
    pub(crate) created_ms: u64,
    pub(crate) cargo: Cargo<T>,
}

/// A message's parts, as they go into a batch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NewMessage<'a> {
    pub(crate) published_ms: u64,
    pub(crate) key: &'a [u8],
    pub(crate) headers: Headers<'a>,
    pub(crate) payload: &'a [u8],
}

impl NewMessage<'_> {
    /// Bytes that it takes in a batch.
    const fn record_len(&self) -> usize {
        RECORD_HEAD_LEN + self.key.len() + self.headers.encoded().len() + self.payload.len()
    }
}

/// How far a series of messages came.
#[derive(Debug)]
pub(crate) struct PushedAll {
    /// Messages that were taken.
    pub(crate) count: usize,
    /// Whether the connection must be told.
    pub(crate) notice: Notice,
    /// Why the one behind them was not.
    pub(crate) error: Option<EnqueueError>,
}

/// Where a message went.
#[derive(Debug)]
pub(crate) struct Pushed<'q, T> {
    pub(crate) ticket: &'q T,
    pub(crate) index: u32,
    /// Whether the connection must be told.
    pub(crate) notice: Notice,
}

/// What a push means for the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Notice {
    /// It knows already that there is something to take.
    None,
    /// There is something to take that it does not know of: the first message, or a batch that became full.
    Due,
}

impl Notice {
    /// What two pushes mean together.
    pub(crate) const fn or(self, other: Self) -> Self {
        match (self, other) {
            (Self::Due, _) | (_, Self::Due) => Self::Due,
            (Self::None, Self::None) => Self::None,
        }
    }
}

/// Which batches may be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Take {
    /// Any: the line is idle enough.
    Any,
    /// Only full ones.
    Full,
}

/// What was there to take.
#[derive(Debug)]
pub(crate) enum Taken<T> {
    /// The oldest batch.
    Batch(Collected<T>),
    /// Only one that still grows.
    Growing,
    /// Nothing. The next push gives notice again.
    Nothing,
}

/// The queue of one topic. `T` is what the waiting messages of a batch share.
#[derive(Debug)]
pub(crate) struct Queue<T> {
    limits: QueueLimits,
    open: Option<Collected<T>>,
    full: VecDeque<Collected<T>>,
    pending_bytes: usize,
    /// Bytes of the batch before: what the next one will probably need.
    room_bytes: usize,
    number_next: u64,
    unsettled: BTreeSet<BatchNumber>,
    failure: Option<PublishError>,
    /// Why nothing is accepted at present, as the line last heard.
    holding: Option<Refusal>,
    noticed: bool,
    closed: Option<CloseReason>,
}

impl<T: Clone> Queue<T> {
    pub(crate) const fn new(limits: QueueLimits) -> Self {
        Self {
            limits,
            open: None,
            full: VecDeque::new(),
            pending_bytes: 0,
            room_bytes: 0,
            number_next: 0,
            unsettled: BTreeSet::new(),
            failure: None,
            holding: None,
            noticed: false,
            closed: None,
        }
    }

    /// Adds a message to the open batch, or to a new one.
    pub(crate) fn push(
        &mut self,
        message: NewMessage<'_>,
        now: impl FnOnce() -> Tick,
        new_ticket: impl FnOnce() -> T,
    ) -> Result<Pushed<'_, T>, EnqueueError> {
        if let Some(reason) = &self.closed {
            return Err(EnqueueError::Closed(reason.clone()));
        }
        let record_len = message.record_len();
        if self.pending_bytes.saturating_add(record_len) > self.limits.pending_bytes_max
            && self.pending_bytes > 0
        {
            return Err(EnqueueError::Full { pending_bytes_max: self.limits.pending_bytes_max });
        }
        let mut filled = false;
        if self.open.as_ref().is_some_and(|open| self.takes_no_more(open, record_len, message.published_ms)) {
            self.complete();
            filled = true;
        }
        let open = match &mut self.open {
            Some(open) => open,
            None => {
                let begun = self.begin(message.published_ms, now(), new_ticket());
                self.open.insert(begun)
            }
        };
        let pushed = open.batch.push(message.published_ms, message.key, message.headers, message.payload);
        if let Err(error) = pushed {
            // A fresh batch that took nothing is forgotten with its number; nobody waits for it.
            if let Some(fresh) = self.open.take_if(|open| open.batch.count() == 0) {
                self.unsettled.remove(&fresh.cargo.number);
            }
            return Err(match error {
                PushError::Message(error) => EnqueueError::Message(MessageError::Record(error)),
                PushError::Full => EnqueueError::Full { pending_bytes_max: self.limits.pending_bytes_max },
            });
        }
        self.pending_bytes += record_len;
        let index = open.batch.count() - 1;
        if open.batch.bytes_len() >= self.limits.batch_bytes_max {
            self.complete();
            filled = true;
        }
        let notice = if filled || !self.noticed { Notice::Due } else { Notice::None };
        self.noticed = true;
        let last = self.open.as_ref().or(self.full.back()).expect("the message is in one of them");
        Ok(Pushed { ticket: &last.cargo.ticket, index, notice })
    }

    /// Adds messages until all are in or one is not taken, as [`Queue::push`] would one after the other. `note` is told
    /// the ticket, the place of the first and the number of those that lie side by side.
    pub(crate) fn push_all(
        &mut self,
        messages: &[NewMessage<'_>],
        now: impl Fn() -> Tick,
        new_ticket: impl Fn() -> T,
        mut note: impl FnMut(&T, u32, u32),
    ) -> PushedAll {
        let mut all = PushedAll { count: 0, notice: Notice::None, error: None };
        while let Some((message, rest)) = messages.get(all.count..).and_then(<[_]>::split_first) {
            let (first, notice) = match self.push(*message, &now, &new_ticket) {
                Ok(pushed) => (pushed.index, pushed.notice),
                Err(error) => return PushedAll { error: Some(error), ..all },
            };
            let beside = self.push_beside(message.published_ms, rest);
            let last = self.open.as_ref().or(self.full.back()).expect("the message is in one of them");
            note(&last.cargo.ticket, first, beside.saturating_add(1));
            all.notice = all.notice.or(notice);
            all.count += 1 + beside as usize;
        }
        all
    }

    /// Adds messages to the open batch as long as that takes no decision: it stays open, and nobody needs to be told.
    fn push_beside(&mut self, published_ms: u64, messages: &[NewMessage<'_>]) -> u32 {
        let Some(open) = &mut self.open else { return 0 };
        let before = open.batch.count();
        let mut pending_bytes = self.pending_bytes;
        for message in messages {
            let record_len = message.record_len();
            let fits = open.batch.bytes_len() + record_len < self.limits.batch_bytes_max
                && pending_bytes + record_len <= self.limits.pending_bytes_max
                && message.published_ms == published_ms;
            // What the batch refuses is tried once more, and refused, as a message of its own.
            if !fits || open.batch.push(published_ms, message.key, message.headers, message.payload).is_err()
            {
                break;
            }
            pending_bytes += record_len;
        }
        self.pending_bytes = pending_bytes;
        open.batch.count() - before
    }

    /// The open batch takes no more. The next one probably needs as much room.
    fn complete(&mut self) {
        if let Some(full) = self.open.take() {
            self.room_bytes = full.batch.bytes_len();
            self.full.push_back(full);
        }
    }

    fn takes_no_more(&self, open: &Collected<T>, record_len: usize, now_ms: u64) -> bool {
        let collecting_ms_max = self.limits.publish_timeout_ms / COLLECTING_SHARE;
        open.batch.bytes_len() + record_len > self.limits.batch_bytes_max
            || open.batch.count() >= sealbus_protocol::limits::BATCH_MESSAGES_MAX
            || now_ms.abs_diff(open.created_ms) > collecting_ms_max
    }

    fn begin(&mut self, created_ms: u64, now: Tick, ticket: T) -> Collected<T> {
        let number = BatchNumber(self.number_next);
        self.number_next += 1;
        self.unsettled.insert(number);
        let deadline = now.after_ms(self.limits.publish_timeout_ms);
        let batch = OpenBatch::with_room(created_ms, self.room_bytes);
        Collected { batch, created_ms, cargo: Cargo { number, ticket, deadline } }
    }

    /// The oldest batch, if it may be taken.
    pub(crate) fn take(&mut self, take: Take) -> Taken<T> {
        if let Some(collected) = self.full.pop_front() {
            return Taken::Batch(collected);
        }
        if self.open.is_none() {
            self.noticed = false;
            return Taken::Nothing;
        }
        match (take, self.open.take()) {
            (Take::Any, Some(open)) => {
                self.room_bytes = open.batch.bytes_len();
                Taken::Batch(open)
            }
            (_, open) => {
                self.open = open;
                Taken::Growing
            }
        }
    }

    /// All batches that wait and whose deadline has passed, or simply all.
    pub(crate) fn take_expired_at(&mut self, now: Option<Tick>) -> Vec<Collected<T>> {
        let is_expired = |collected: &Collected<T>| now.is_none_or(|now| collected.cargo.deadline <= now);
        let mut expired = Vec::new();
        while self.full.front().is_some_and(is_expired) {
            expired.extend(self.full.pop_front());
        }
        if self.full.is_empty() {
            expired.extend(self.open.take_if(|open| is_expired(open)));
        }
        self.rest();
        expired
    }

    /// Nobody looks here until there is notice: when nothing waits, the next push gives it again. Otherwise a message
    /// could wait unseen, and without its deadline.
    pub(crate) fn rest(&mut self) {
        if !self.has_batches() {
            self.noticed = false;
        }
    }

    /// A batch has its answer: its bytes make room. `bytes` are those of its messages.
    pub(crate) fn settle(&mut self, number: BatchNumber, bytes: usize, error: Option<&PublishError>) {
        if !self.unsettled.remove(&number) {
            return;
        }
        self.pending_bytes = self.pending_bytes.saturating_sub(bytes);
        if let (Some(error), None) = (error, &self.failure) {
            self.failure = Some(error.clone());
        }
    }

    /// The broker accepts nothing at present, for this reason, or does again.
    pub(crate) fn set_holding(&mut self, holding: Option<&Refusal>) {
        self.holding = holding.cloned();
    }

    /// What a message is told that could not be sent in time.
    pub(crate) fn not_sent(&self) -> PublishError {
        PublishError::NotSent { after_ms: self.limits.publish_timeout_ms, last: self.holding.clone() }
    }

    /// The earliest deadline among the batches that wait here.
    pub(crate) fn deadline(&self) -> Option<Tick> {
        self.full.front().or(self.open.as_ref()).map(|collected| collected.cargo.deadline)
    }

    /// Whether anything waits to be signed.
    pub(crate) fn has_batches(&self) -> bool {
        !self.full.is_empty() || self.open.is_some()
    }

    /// Whether every batch has its answer.
    pub(crate) fn is_settled(&self) -> bool {
        self.unsettled.is_empty()
    }

    /// The last batch that has been begun: a flush waits for all up to it.
    pub(crate) fn flush_mark(&self) -> Option<BatchNumber> {
        self.unsettled.last().copied()
    }

    /// Whether all batches up to the mark have their answer.
    pub(crate) fn is_flushed(&self, mark: Option<BatchNumber>) -> bool {
        mark.is_none_or(|mark| self.unsettled.first().is_none_or(|first| *first > mark))
    }

    /// The first failure since it was last asked for.
    pub(crate) fn take_failure(&mut self) -> Option<PublishError> {
        self.failure.take()
    }

    /// Takes no message any more.
    pub(crate) fn close(&mut self, reason: &CloseReason) {
        self.closed.get_or_insert_with(|| reason.clone());
    }
}

#[cfg(test)]
mod tests;
