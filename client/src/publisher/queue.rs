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
        let record_len =
            RECORD_HEAD_LEN + message.key.len() + message.headers.encoded().len() + message.payload.len();
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
mod tests {
    use super::*;

    const LIMITS: QueueLimits =
        QueueLimits { batch_bytes_max: 1_000, pending_bytes_max: 2_000, publish_timeout_ms: 10_000 };

    fn queue() -> Queue<u32> {
        Queue::new(LIMITS)
    }

    fn push_at<'q>(
        queue: &'q mut Queue<u32>,
        at_ms: u64,
        payload: &[u8],
    ) -> Result<Pushed<'q, u32>, EnqueueError> {
        let message = NewMessage { published_ms: at_ms, key: &[], headers: Headers::NONE, payload };
        queue.push(message, || Tick(at_ms), || u32::try_from(at_ms).unwrap())
    }

    fn taken(queue: &mut Queue<u32>, take: Take) -> Option<u32> {
        match queue.take(take) {
            Taken::Batch(collected) => Some(collected.batch.count()),
            Taken::Growing | Taken::Nothing => None,
        }
    }

    #[test]
    fn an_idle_line_takes_the_first_message_at_once() {
        let mut queue = queue();
        assert_eq!(push_at(&mut queue, 0, b"one").unwrap().notice, Notice::Due);
        assert_eq!(taken(&mut queue, Take::Any), Some(1));
        assert!(matches!(queue.take(Take::Any), Taken::Nothing));
        assert_eq!(push_at(&mut queue, 0, b"two").unwrap().notice, Notice::Due);
    }

    #[test]
    fn a_busy_line_takes_only_what_is_full() {
        let mut queue = queue();
        for _ in 0..3 {
            push_at(&mut queue, 0, &[0; 200]).unwrap();
        }
        assert!(matches!(queue.take(Take::Full), Taken::Growing));
        let fourth = push_at(&mut queue, 0, &[0; 200]).unwrap();
        assert_eq!(
            (fourth.notice, fourth.index),
            (Notice::Due, 0),
            "a batch became full, so the line must be told"
        );
        assert_eq!(taken(&mut queue, Take::Full), Some(3));
        assert_eq!(taken(&mut queue, Take::Full), None);
        assert_eq!(taken(&mut queue, Take::Any), Some(1));
    }

    #[test]
    fn notice_is_given_once_for_many_messages() {
        let mut queue = queue();
        let notices: Vec<_> = (0..5).map(|_| push_at(&mut queue, 0, b"x").unwrap().notice).collect();
        assert_eq!(notices, [Notice::Due, Notice::None, Notice::None, Notice::None, Notice::None]);
    }

    #[test]
    fn pending_bytes_are_bounded_until_the_answer() {
        let mut queue = queue();
        push_at(&mut queue, 0, &[0; 988]).unwrap();
        push_at(&mut queue, 0, &[0; 988]).unwrap();
        assert!(matches!(
            push_at(&mut queue, 0, b"more"),
            Err(EnqueueError::Full { pending_bytes_max: 2_000 })
        ));
        let Taken::Batch(first) = queue.take(Take::Full) else { panic!("a full batch waits") };
        assert!(push_at(&mut queue, 0, b"more").is_err(), "sent is not answered");
        queue.settle(first.cargo.number, 1_000, None);
        push_at(&mut queue, 0, b"more").unwrap();
    }

    #[test]
    fn a_message_above_all_limits_fits_an_empty_queue() {
        let mut queue = queue();
        push_at(&mut queue, 0, &[0; 5_000]).unwrap();
        assert_eq!(taken(&mut queue, Take::Full), Some(1));
    }

    #[test]
    fn an_old_batch_takes_no_more_messages() {
        let mut queue = queue();
        let first = *push_at(&mut queue, 0, b"x").unwrap().ticket;
        assert_eq!(*push_at(&mut queue, 1_000, b"x").unwrap().ticket, first);
        assert_ne!(*push_at(&mut queue, 1_001, b"x").unwrap().ticket, first);
    }

    #[test]
    fn what_cannot_be_sent_leaves_no_trace() {
        let mut queue = queue();
        let oversized = vec![0; sealbus_protocol::limits::PAYLOAD_BYTES_MAX + 1];
        assert!(matches!(push_at(&mut queue, 0, &oversized), Err(EnqueueError::Message(_))));
        assert!(queue.is_settled() && !queue.has_batches());
        push_at(&mut queue, 0, b"x").unwrap();
        assert!(push_at(&mut queue, 0, &oversized).is_err());
        assert_eq!(taken(&mut queue, Take::Any), Some(1));
    }

    #[test]
    fn a_flush_waits_for_what_came_before_it_and_for_nothing_else() {
        let mut queue = queue();
        push_at(&mut queue, 0, &[0; 988]).unwrap();
        let mark = queue.flush_mark();
        push_at(&mut queue, 0, b"later").unwrap();
        assert!(!queue.is_flushed(mark));
        queue.settle(BatchNumber(0), 1_000, Some(&PublishError::Lost));
        assert!(queue.is_flushed(mark));
        assert_eq!(queue.take_failure(), Some(PublishError::Lost));
        assert_eq!(queue.take_failure(), None);
    }

    #[test]
    fn deadlines_expire_in_order() {
        let mut queue = queue();
        push_at(&mut queue, 0, b"x").unwrap();
        push_at(&mut queue, 5_000, b"x").unwrap();
        assert_eq!(queue.deadline(), Some(Tick(10_000)));
        assert_eq!(queue.take_expired_at(Some(Tick(9_999))).len(), 0);
        assert_eq!(queue.take_expired_at(Some(Tick(10_000))).len(), 1);
        assert_eq!(queue.deadline(), Some(Tick(15_000)));
        assert_eq!(queue.take_expired_at(None).len(), 1);
    }

    #[test]
    fn notice_is_given_again_once_nothing_waits_however_it_went() {
        let mut queue = queue();
        push_at(&mut queue, 0, b"x").unwrap();
        queue.rest();
        assert_eq!(push_at(&mut queue, 0, b"x").unwrap().notice, Notice::None, "something waits");
        assert_eq!(queue.take_expired_at(Some(Tick(10_000))).len(), 1);
        assert_eq!(push_at(&mut queue, 0, b"x").unwrap().notice, Notice::Due);
        assert_eq!(taken(&mut queue, Take::Any), Some(1));
        queue.rest();
        assert_eq!(
            push_at(&mut queue, 0, b"x").unwrap().notice,
            Notice::Due,
            "taken, and not asked for more"
        );
    }

    #[test]
    fn a_closed_queue_says_why() {
        let mut queue = queue();
        queue.close(&CloseReason::ByBroker);
        queue.close(&CloseReason::ByCaller);
        assert_eq!(push_at(&mut queue, 0, b"x").unwrap_err(), EnqueueError::Closed(CloseReason::ByBroker));
    }
}
