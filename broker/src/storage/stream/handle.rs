//! A stream as the broker's sessions share it: memory for whoever appends or reads at the end, the disk for the rest.
//!
//! ```text
//!   sessions -> intake (one short lock) -> writer -> core -> visible (one short lock) -> readers
//!                                                       '-> log reader: pread, no lock of ours
//! ```
//!
//! The core's lock is held across syncs: only the writer and what may block (`trim`, `producers`) take it.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};

use sealbus_protocol::batch::accept::Durability;
use sealbus_protocol::ids::StreamId;
use sealbus_protocol::tlog::Hash;

use super::core::StreamCore;
use super::inbox::Inbox;
use super::intake::{Intake, Queued, Undo, Wake};
use super::nodes::NodeCache;
use super::opening::Opened;
use super::paging::{Places, read_page};
use super::producers::ProducerSnapshot;
use super::record::{NewRecord, records_of};
use super::settings::{Level, Retention, Snapshots};
use super::store::{
    AppendError, Bounds, CommitObserver, ConsistencyAnswer, Fate, NewBatch, NewDeadLetter, Origin,
    SignedCheckpoint, StoreError, StoredPage, StreamEvent, StreamState, StreamStats, StreamStore, Tail,
    Ticket, TrimReason, Waiter, WatchGuard,
};
use super::visible::Visible;
use crate::locks::lock;
use crate::storage::log::LogReader;

/// No consumer holds anything back.
const NO_HOLD: u64 = u64::MAX;

/// A stream that is open. Made by [`Streams::open`](super::Streams::open).
pub struct Stream {
    pub(super) id: StreamId,
    name: String,
    snapshots: Snapshots,
    level: Mutex<Level>,
    hold: AtomicU64,
    /// What is before this record is in a durable snapshot of the producers.
    snapshot_record: AtomicU64,
    pub(super) reserve_bytes: u64,
    pub(super) core: Mutex<StreamCore>,
    pub(super) intake: Mutex<Intake>,
    pub(super) visible: Mutex<Visible>,
    pub(super) reader: LogReader,
    places: Mutex<Places>,
    nodes: Mutex<NodeCache>,
    pub(super) watchers: Arc<Mutex<Watchers>>,
    pub(super) observer: Arc<dyn CommitObserver>,
    inbox: Arc<Inbox>,
    itself: Weak<Self>,
    closing: Mutex<Closing>,
    closing_changed: Condvar,
}

/// How far closing has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Closing {
    Not,
    Asked,
    Done,
}

/// Whom to tell after each commit.
#[derive(Default)]
pub(super) struct Watchers {
    next: u64,
    waiters: VecDeque<(u64, Arc<dyn Waiter>)>,
}

impl Stream {
    pub(super) fn new(
        core: StreamCore,
        opened: &Opened,
        observer: Arc<dyn CommitObserver>,
        inbox: Arc<Inbox>,
    ) -> Arc<Self> {
        let Opened { stopped, edge, .. } = opened;
        let state = stopped.clone().map_or(StreamState::Open, StreamState::Stopped);
        let bounds = core.bounds();
        let options = core.options().clone();
        let mut visible =
            Visible::new(bounds, core.end_record(), options.tail_bytes, core.checkpoint().cloned());
        if let Some(reason) = stopped {
            visible.stopped(Arc::clone(reason));
        }
        Arc::new_cyclic(|itself| Self {
            id: options.stream_id,
            name: options.name.clone(),
            snapshots: options.snapshots,
            level: Mutex::new(options.level),
            hold: AtomicU64::new(NO_HOLD),
            snapshot_record: AtomicU64::new(0),
            reserve_bytes: options.reserve_bytes,
            intake: Mutex::new(Intake::new(state, bounds.end, core.end_record())),
            visible: Mutex::new(visible),
            reader: core.reader(),
            places: Mutex::default(),
            nodes: Mutex::new(NodeCache::new(edge.clone())),
            watchers: Arc::default(),
            observer,
            inbox,
            itself: Weak::clone(itself),
            closing: Mutex::new(Closing::Not),
            closing_changed: Condvar::new(),
            core: Mutex::new(core),
        })
    }

    /// The stream's id.
    #[must_use]
    pub const fn id(&self) -> StreamId {
        self.id
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether its owner keeps snapshots of its producers.
    #[must_use]
    pub const fn snapshots(&self) -> Snapshots {
        self.snapshots
    }

    /// Where its slowest durable consumer stands; none when there is no such consumer.
    pub fn set_hold(&self, offset: Option<u64>) {
        self.hold.store(offset.unwrap_or(NO_HOLD), Ordering::Relaxed);
    }

    /// Changes what the policy says of it. May block.
    ///
    /// A lower level counts for what is appended from now on: what is queued keeps the one that its receipt names. A
    /// higher one is named by receipts only when everything that was written under the lower one is as durable.
    pub fn configure(&self, retention: Retention, level: Level) {
        let raised = {
            let mut core = lock(&self.core);
            let before = core.options().level;
            core.configure(retention, level);
            let is_raised = before != level && before.stricter(level) == level;
            if is_raised && !self.is_closed() { core.commit() } else { Ok(()) }
        };
        if let Err(error) = raised {
            self.stop(&error.to_string().into());
        }
        *lock(&self.level) = level;
        self.wake();
    }

    /// Producers by what is durable. May block.
    ///
    /// # Errors
    /// [`StoreError`] when the disk refuses; the stream has stopped then.
    pub fn producers(&self) -> Result<ProducerSnapshot, StoreError> {
        let mut core = lock(&self.core);
        if self.is_closed() {
            return Err(closed());
        }
        let snapshot = core.producers();
        drop(core);
        snapshot.map_err(|error| {
            let reason: Arc<str> = error.to_string().into();
            self.stop(&reason);
            StoreError::Disk(reason.to_string())
        })
    }

    /// Takes nothing more, and asks the writer to finish.
    pub(super) fn close(&self) {
        lock(&self.intake).refuse(StreamState::Closed);
        {
            let mut closing = lock(&self.closing);
            if *closing == Closing::Not {
                *closing = Closing::Asked;
            }
        }
        self.wake();
    }

    pub(super) fn is_closing(&self) -> bool {
        *lock(&self.closing) == Closing::Asked
    }

    /// Whether the log is another's by now.
    pub(super) fn is_closed(&self) -> bool {
        *lock(&self.closing) == Closing::Done
    }

    pub(super) fn closed(&self) {
        *lock(&self.closing) = Closing::Done;
        self.closing_changed.notify_all();
    }

    pub(super) fn await_closed(&self) {
        let mut closing = lock(&self.closing);
        while *closing != Closing::Done {
            closing = self.closing_changed.wait(closing).unwrap_or_else(PoisonError::into_inner);
        }
    }

    pub(super) fn hold(&self) -> Option<u64> {
        Some(self.hold.load(Ordering::Relaxed)).filter(|hold| *hold != NO_HOLD)
    }

    pub(super) fn snapshot_record(&self) -> u64 {
        self.snapshot_record.load(Ordering::Relaxed)
    }

    pub(super) fn note_snapshot(&self, record: u64) {
        self.snapshot_record.fetch_max(record, Ordering::Relaxed);
    }

    pub(super) fn level(&self) -> Level {
        *lock(&self.level)
    }

    /// Has the writer look at this stream.
    pub(super) fn wake(&self) {
        let wake = lock(&self.intake).announce();
        self.announce(wake);
    }

    fn announce(&self, wake: Wake) {
        match wake {
            Wake::Nobody => {}
            Wake::Writer => {
                if let Some(itself) = self.itself.upgrade() {
                    self.inbox.push(itself);
                }
            }
        }
    }

    /// Nothing is appended any more; what waited is told.
    pub(super) fn stop(&self, reason: &Arc<str>) {
        let queued = {
            let mut intake = lock(&self.intake);
            if matches!(intake.state(), StreamState::Stopped(_)) {
                return;
            }
            intake.stop(Arc::clone(reason))
        };
        lock(&self.visible).stopped(Arc::clone(reason));
        self.observer.event(self.id, &StreamEvent::Stopped(Arc::clone(reason)));
        self.tell(queued.into_iter().map(|queued| queued.waiter).collect());
    }

    pub(super) fn report(&self, events: &[StreamEvent]) {
        events.iter().for_each(|event| self.observer.event(self.id, event));
    }

    /// Tells these, whoever joined them, and all who watch; each once.
    pub(super) fn tell(&self, mut waiters: Vec<Arc<dyn Waiter>>) {
        let settled = match self.state() {
            StreamState::Open => lock(&self.visible).end_record(),
            StreamState::Full | StreamState::Stopped(_) | StreamState::Closed => u64::MAX,
        };
        waiters.extend(lock(&self.intake).take_others(settled));
        waiters.extend(lock(&self.watchers).waiters.iter().map(|(_, waiter)| Arc::clone(waiter)));
        waiters.sort_by_key(address);
        waiters.dedup_by_key(|waiter| address(waiter));
        waiters.iter().for_each(|waiter| waiter.committed());
    }

    fn push(&self, queued: Queued) -> Result<Ticket, AppendError> {
        let (ticket, wake) = lock(&self.intake).push(queued)?;
        self.announce(wake);
        Ok(ticket)
    }

    /// The root that proofs about this size must lead to, when it is that of the checkpoint.
    fn signed_root(&self, size: u64) -> Option<Hash> {
        self.checkpoint().filter(|checkpoint| checkpoint.size == size).map(|checkpoint| checkpoint.root)
    }

    fn check_size(&self, asked: u64) -> Result<(), StoreError> {
        let size = lock(&self.visible).end_record().min(self.reader.end_record());
        if asked > size {
            return Err(StoreError::NoSuchTree { asked, size });
        }
        Ok(())
    }
}

/// Where a waiter is, so that each is told once.
fn address(waiter: &Arc<dyn Waiter>) -> usize {
    Arc::as_ptr(waiter).cast::<()>() as usize
}

fn closed() -> StoreError {
    StoreError::Disk("the stream is closed".to_owned())
}

impl StreamStore for Stream {
    fn append(&self, batch: NewBatch, now_ms: u64) -> Result<Ticket, AppendError> {
        let NewBatch {
            accepted,
            topic,
            key_record,
            instance_kind,
            policy_version,
            context,
            sequence,
            waiter,
        } = batch;
        let record =
            NewRecord::of_batch(accepted.batch(), topic, key_record, instance_kind, policy_version, now_ms);
        self.push(Queued {
            record,
            undo: Some(Undo { sequence, accepted: Box::new(accepted) }),
            context,
            waiter,
            level: self.level(),
        })
    }

    fn append_dead_letter(&self, letter: NewDeadLetter, now_ms: u64) -> Result<Ticket, AppendError> {
        let NewDeadLetter { stored, ranges, context, waiter } = letter;
        let total =
            records_of(&ranges, stored.messages).expect("a dead letter's ranges are within its batch");
        let origin = Origin {
            offset: stored.offset,
            leaf_index: stored.leaf_index,
            append_ms: stored.append_ms,
            policy_version: stored.policy_version,
            ranges,
        };
        let record = NewRecord {
            topic: stored.topic.clone(),
            key_record: stored.key_record,
            instance_kind: stored.instance_kind,
            policy_version: stored.policy_version,
            messages: u32::try_from(total).expect("a batch's messages can be counted by its format"),
            batch: stored.batch.clone(),
            origin: Some(Arc::new(origin)),
            now_ms,
        };
        self.push(Queued { record, undo: None, context, waiter, level: self.level() })
    }

    fn again(&self, offset: u64, waiter: Arc<dyn Waiter>) -> Result<Ticket, AppendError> {
        if offset < self.bounds().end {
            // A withdrawal of this one would have needed the sequence that the caller holds.
            return Ok(Ticket { offset, end_record: 0, epoch: u64::MAX });
        }
        lock(&self.intake).join(offset, waiter)
    }

    fn fate(&self, ticket: &Ticket) -> Fate {
        lock(&self.visible).fate(ticket)
    }

    fn bounds(&self) -> Bounds {
        lock(&self.visible).bounds()
    }

    fn state(&self) -> StreamState {
        lock(&self.intake).state().clone()
    }

    fn durability(&self) -> Durability {
        self.level().durability()
    }

    fn tail(&self, from: u64, bytes_max: usize) -> Tail {
        lock(&self.visible).tail(from, bytes_max)
    }

    fn read(&self, from: u64, bytes_max: usize) -> Result<StoredPage, StoreError> {
        let (bounds, end_record) = {
            let visible = lock(&self.visible);
            (visible.bounds(), visible.end_record())
        };
        let page = read_page(&self.reader, &self.places, bounds, end_record, from, bytes_max)?;
        if !page.skipped.is_empty() {
            // What the log found on the way is reported by the writer.
            self.wake();
        }
        Ok(page)
    }

    fn watch(&self, waiter: Arc<dyn Waiter>) -> WatchGuard {
        let place = {
            let mut watchers = lock(&self.watchers);
            let place = watchers.next;
            watchers.next = place.wrapping_add(1);
            watchers.waiters.push_back((place, waiter));
            place
        };
        let watchers = Arc::downgrade(&self.watchers);
        WatchGuard::new(move || {
            if let Some(watchers) = watchers.upgrade() {
                lock(&watchers).waiters.retain(|(other, _)| *other != place);
            }
        })
    }

    fn offset_at(&self, time_ms: u64) -> Result<u64, StoreError> {
        let offset = self.reader.offset_at(time_ms).map_err(|error| StoreError::Disk(error.to_string()))?;
        let Bounds { first, end } = self.bounds();
        Ok(offset.clamp(first.min(end), end))
    }

    fn trim(&self, before: u64) -> Result<u64, StoreError> {
        let before = before.min(self.bounds().end);
        let mut events = Vec::new();
        let trimmed = {
            let mut core = lock(&self.core);
            if self.is_closed() {
                return Err(closed());
            }
            core.set_snapshot_record(self.snapshot_record());
            let trimmed = core.trim(before, TrimReason::Asked, &mut events);
            lock(&self.visible).trimmed(core.bounds().first);
            trimmed
        };
        self.report(&events);
        trimmed.map_err(|error| {
            if !error.is_usable() {
                self.stop(&error.to_string().into());
            }
            StoreError::Disk(error.to_string())
        })
    }

    fn checkpoint(&self) -> Option<Arc<SignedCheckpoint>> {
        lock(&self.visible).checkpoint.clone()
    }

    fn consistency(&self, old_size: u64, size: u64) -> Result<ConsistencyAnswer, StoreError> {
        self.check_size(size)?;
        if old_size > size {
            return Err(StoreError::NoSuchTree { asked: old_size, size });
        }
        if old_size == 0 {
            // Every tree continues the empty one: whoever begins gets the checkpoint, whatever has been damaged below.
            return Ok(ConsistencyAnswer { prefix: Vec::new(), proof: Vec::new() });
        }
        lock(&self.nodes).consistency(&self.reader, old_size, size, self.signed_root(size))
    }

    fn inclusion(&self, leaf: u64, size: u64) -> Result<Vec<Hash>, StoreError> {
        self.check_size(size)?;
        if leaf >= size {
            return Err(StoreError::NoSuchTree { asked: leaf, size });
        }
        lock(&self.nodes).inclusion(&self.reader, leaf, size, self.signed_root(size))
    }

    fn stats(&self) -> StreamStats {
        let state = self.state();
        lock(&self.visible).stats(state)
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream").field("id", &self.id).field("name", &self.name).finish_non_exhaustive()
    }
}
