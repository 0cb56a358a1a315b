//! A writer thread: group commit for some streams, and what they need with time.
//!
//! ```text
//!   take a stream that has something queued --> take the group --> one write --> one fdatasync (level fsync)
//!     ^                                                              |               |
//!     |                     everything that came meanwhile          no room:        show it, tell the observer,
//!     '---- is the next group; nothing waits for a timer --------   withdraw        then whoever waits
//! ```
//!
//! The thread owns when things happen; what happens is the core's. Nothing here sleeps: it waits for work, or for the
//! next moment at which some stream is due. Should it panic, every stream of it stops and says so.

use std::any::Any;
use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, MutexGuard};

use sealbus_protocol::ids::StreamId;
use sealbus_protocol::session::Tick;

use super::core::StreamCore;
use super::handle::Stream;
use super::inbox::{Inbox, Taken};
use super::intake::{Queued, Undo, Wake};
use super::record::NewRecord;
use super::retention::Moment;
use super::settings::Level;
use super::store::{Stored, StreamEvent, StreamState, StreamStore as _, Waiter};
use crate::clock::Clock;
use crate::locks::lock;
use crate::storage::log::LogError;
use crate::vfs::Vfs;

/// How old the known free space may be while a stream is written to.
const SAMPLE_MS: u64 = 250;

/// How long a full stream waits before it looks whether there is room.
const RETRY_MS: u64 = 500;

/// How often a stream that does not grow is looked at, for retention by age.
const IDLE_MS: u64 = 10_000;

pub(super) struct Writer {
    vfs: Arc<dyn Vfs>,
    clock: Arc<dyn Clock>,
    /// Where free space is asked for.
    dir: PathBuf,
    inbox: Arc<Inbox>,
    paces: HashMap<StreamId, Pace>,
    /// When which stream is due, soonest first.
    timers: BTreeSet<(Tick, StreamId)>,
    /// Free bytes of the disk, and when that was.
    free: Option<(u64, Tick)>,
}

/// What a stream needs with time.
struct Pace {
    stream: Arc<Stream>,
    due: Option<Tick>,
    unsynced_since: Option<Tick>,
    retry_at: Option<Tick>,
    appends: u64,
    syncs: u64,
    last_sync_micros: u64,
}

/// What is left of a queued record once it has been written.
type Rest = (Option<Undo>, Arc<dyn Any + Send + Sync>, Arc<dyn Waiter>);

impl Writer {
    pub(super) fn new(vfs: Arc<dyn Vfs>, clock: Arc<dyn Clock>, dir: PathBuf, inbox: Arc<Inbox>) -> Self {
        Self { vfs, clock, dir, inbox, paces: HashMap::new(), timers: BTreeSet::new(), free: None }
    }

    /// Writes until the inbox ends.
    pub(super) fn run(mut self) {
        let _guard = PanicGuard { inbox: Arc::clone(&self.inbox) };
        loop {
            let tick = self.clock.tick();
            while let Some((due, id)) = self.timers.first().copied()
                && due <= tick
            {
                self.timers.pop_first();
                let stream = self.paces.get_mut(&id).map(|pace| {
                    pace.due = None;
                    Arc::clone(&pace.stream)
                });
                if let Some(stream) = stream {
                    self.turn(&stream);
                }
            }
            let wait_ms = self.timers.first().map(|(due, _)| due.since(self.clock.tick()));
            match self.inbox.take(wait_ms) {
                Taken::Stream(stream) => self.turn(&stream),
                Taken::Silence => {}
                Taken::End => return,
            }
        }
    }

    /// Writes one group of a stream, if there is one, and does what is due.
    fn turn(&mut self, stream: &Arc<Stream>) {
        if stream.is_closed() {
            // Its log may have another owner by now.
            return;
        }
        let group = lock(&stream.intake).take();
        let mut pace = self.paces.remove(&stream.id()).unwrap_or_else(|| Pace::new(Arc::clone(stream)));
        if !group.is_empty() {
            self.look_at_disk(&mut pace);
            self.write(&mut pace, group);
        }
        self.care(&mut pace);
        if lock(&stream.intake).settle() == Wake::Writer {
            self.inbox.push(Arc::clone(stream));
        } else if stream.is_closing() {
            self.close(&mut pace);
            return;
        }
        self.schedule(pace);
    }

    fn write(&mut self, pace: &mut Pace, group: Vec<Queued>) {
        let promised = group.iter().map(|queued| queued.level).reduce(Level::stricter);
        let (records, rest): (Vec<NewRecord>, Vec<Rest>) = group
            .into_iter()
            .map(|Queued { record, undo, context, waiter, level: _ }| (record, (undo, context, waiter)))
            .unzip();
        let stream = Arc::clone(&pace.stream);
        if matches!(stream.state(), StreamState::Stopped(_)) {
            stream.tell(rest.into_iter().map(|(.., waiter)| waiter).collect());
            return;
        }
        let mut core = lock(&stream.core);
        let written = core.append_group(&records).and_then(|stored| {
            pace.appends = pace.appends.saturating_add(1);
            // The policy may have changed since these were queued; their receipts have not.
            let level = core.options().level;
            match promised.map_or(level, |promised| promised.stricter(level)) {
                Level::Fsync => self.sync(pace, &mut core)?,
                Level::Interval => {
                    pace.unsynced_since.get_or_insert_with(|| self.clock.tick());
                }
                Level::Memory => {}
            }
            Ok(stored)
        });
        match written {
            Ok(stored) => {
                drop(core);
                pace.count();
                show(&stream, stored, rest);
            }
            Err(error) if error.is_full() && error.is_usable() => self.withdraw(pace, core, rest),
            Err(error) => {
                drop(core);
                stream.stop(&error.to_string().into());
                stream.tell(rest.into_iter().map(|(.., waiter)| waiter).collect());
            }
        }
    }

    fn sync(&self, pace: &mut Pace, core: &mut StreamCore) -> Result<(), LogError> {
        let before = self.clock.tick();
        pace.unsynced_since = None;
        core.commit()?;
        pace.syncs = pace.syncs.saturating_add(1);
        pace.last_sync_micros = self.clock.tick().since(before).saturating_mul(1_000);
        Ok(())
    }

    /// There was no room for a group: it and everything behind it is given back, the newest first.
    fn withdraw(&self, pace: &mut Pace, core: MutexGuard<'_, StreamCore>, rest: Vec<Rest>) {
        let stream = Arc::clone(&pace.stream);
        let (end, end_record) = (core.bounds().end, core.end_record());
        drop(core);
        let was = stream.state();
        let queued = lock(&stream.intake).withdraw(end, end_record);
        let behind = queued.into_iter().map(|Queued { undo, context, waiter, .. }| (undo, context, waiter));
        let all: Vec<Rest> = rest.into_iter().chain(behind).collect();
        for (undo, ..) in all.iter().rev() {
            if let Some(Undo { sequence, accepted }) = undo {
                lock(sequence).withdraw(accepted);
            }
        }
        lock(&stream.visible).withdrawn();
        pace.retry_at = Some(self.clock.tick().after_ms(RETRY_MS));
        if was == StreamState::Open {
            stream.report(&[StreamEvent::Full]);
        }
        stream.tell(all.into_iter().map(|(.., waiter)| waiter).collect());
    }

    /// Refuses publishers when little room is left. What is queued already is still written: it fits the reserve.
    fn look_at_disk(&mut self, pace: &mut Pace) {
        let tick = self.clock.tick();
        let Some(free) = self.free_bytes(tick, SAMPLE_MS) else { return };
        if free < pace.stream.reserve_bytes && pace.stream.state() == StreamState::Open {
            self.refuse(pace);
        }
    }

    fn refuse(&self, pace: &mut Pace) {
        let stream = &pace.stream;
        let was = stream.state();
        lock(&stream.intake).refuse(StreamState::Full);
        pace.retry_at = Some(self.clock.tick().after_ms(RETRY_MS));
        if was == StreamState::Open {
            stream.report(&[StreamEvent::Full]);
            stream.tell(Vec::new());
        }
    }

    /// Free bytes that are known to be at most so old; none when the system does not say.
    fn free_bytes(&mut self, tick: Tick, age_ms: u64) -> Option<u64> {
        match self.free {
            Some((free, at)) if tick.since(at) < age_ms => Some(free),
            Some(_) | None => {
                let free = self.vfs.free_bytes(&self.dir).ok()?;
                self.free = Some((free, tick));
                Some(free)
            }
        }
    }

    /// What is due: the sync of an interval, watermark, checkpoint, retention, and whether there is room again.
    fn care(&mut self, pace: &mut Pace) {
        let stream = Arc::clone(&pace.stream);
        if matches!(stream.state(), StreamState::Stopped(_)) {
            // Nothing is written to it any more; what its readers come across is said all the same.
            let mut events = Vec::new();
            let mut core = lock(&stream.core);
            core.take_damage(&mut events);
            pace.measure(&core);
            drop(core);
            stream.report(&events);
            return;
        }
        let tick = self.clock.tick();
        let now = Moment { now_ms: self.clock.now_ms(), tick };
        let mut events = Vec::new();
        let done = {
            let mut core = lock(&stream.core);
            let synced = match pace.unsynced_since {
                Some(since) if tick.since(since) >= core.options().interval_ms => self.sync(pace, &mut core),
                Some(_) | None => Ok(()),
            };
            core.set_snapshot_record(stream.snapshot_record());
            let done = synced.and_then(|()| core.maintain(now, stream.hold(), &mut events));
            pace.measure(&core);
            done
        };
        stream.report(&events);
        if events.iter().any(|event| matches!(event, StreamEvent::CheckpointSigned { .. })) {
            stream.tell(Vec::new());
        }
        match done {
            Ok(()) => {}
            Err(error) if error.is_full() && error.is_usable() => self.refuse(pace),
            Err(error) => stream.stop(&error.to_string().into()),
        }
        self.look_for_room(pace, tick);
    }

    fn look_for_room(&mut self, pace: &mut Pace, tick: Tick) {
        if pace.retry_at.is_none_or(|retry_at| tick < retry_at) {
            return;
        }
        // A little more than the reserve, so that a stream does not open and close with every batch.
        let reserve_bytes = pace.stream.reserve_bytes;
        let enough = reserve_bytes.saturating_add(reserve_bytes / 16);
        if self.free_bytes(tick, 1).is_none_or(|free| free < enough) {
            pace.retry_at = Some(tick.after_ms(RETRY_MS));
            return;
        }
        pace.retry_at = None;
        lock(&pace.stream.intake).resume();
        pace.stream.report(&[StreamEvent::Resumed]);
        pace.stream.tell(Vec::new());
    }

    /// The last of a stream: durable, under a watermark, vouched for.
    fn close(&mut self, pace: &mut Pace) {
        let stream = &pace.stream;
        if let Some(due) = pace.due {
            self.timers.remove(&(due, stream.id()));
        }
        if !matches!(stream.state(), StreamState::Stopped(_)) {
            let mut events = Vec::new();
            let closed = {
                let mut core = lock(&stream.core);
                let closed = core.close(&mut events);
                pace.measure(&core);
                closed
            };
            stream.report(&events);
            if let Err(error) = closed {
                stream.stop(&error.to_string().into());
            }
        }
        stream.tell(Vec::new());
        self.inbox.leave(stream.id());
        stream.closed();
    }

    fn schedule(&mut self, mut pace: Pace) {
        let tick = self.clock.tick();
        let id = pace.stream.id();
        if let Some(due) = pace.due.take() {
            self.timers.remove(&(due, id));
        }
        if !matches!(pace.stream.state(), StreamState::Stopped(_)) {
            let core = lock(&pace.stream.core);
            let mut due = tick.after_ms(IDLE_MS);
            if let Some(in_ms) = core.maintain_due_in_ms(tick) {
                due = due.min(tick.after_ms(in_ms));
            }
            if let Some(since) = pace.unsynced_since {
                due = due.min(since.after_ms(core.options().interval_ms));
            }
            if let Some(retry_at) = pace.retry_at {
                due = due.min(retry_at);
            }
            drop(core);
            // Never at once: what was tried in this turn is tried again later.
            let due = due.max(tick.after_ms(1));
            pace.due = Some(due);
            self.timers.insert((due, id));
        }
        self.paces.insert(id, pace);
    }
}

impl Pace {
    const fn new(stream: Arc<Stream>) -> Self {
        Self {
            stream,
            due: None,
            unsynced_since: None,
            retry_at: None,
            appends: 0,
            syncs: 0,
            last_sync_micros: 0,
        }
    }

    /// What grows with each group.
    fn count(&self) {
        let gauges = &mut lock(&self.stream.visible).gauges;
        gauges.appends = self.appends;
        gauges.syncs = self.syncs;
        gauges.last_sync_micros = self.last_sync_micros;
    }

    /// What is looked at once a turn.
    fn measure(&self, core: &StreamCore) {
        self.count();
        let mut visible = lock(&self.stream.visible);
        visible.trimmed(core.bounds().first);
        visible.checkpoint = core.checkpoint().cloned();
        visible.gauges.bytes = core.bytes();
        visible.gauges.segments = u32::try_from(core.segment_count()).unwrap_or(u32::MAX);
        visible.gauges.damaged = core.damaged();
        visible.gauges.sealed_record = core.sealed_record();
    }
}

/// Shows what has reached its level: to readers, then to the observer, then to whoever waits.
fn show(stream: &Stream, stored: Vec<Arc<Stored>>, rest: Vec<Rest>) {
    lock(&stream.visible).show(&stored);
    let (contexts, waiters): (Vec<_>, Vec<_>) =
        rest.into_iter().map(|(_, context, waiter)| (context, waiter)).unzip();
    let batches: Vec<_> = stored.into_iter().zip(contexts).collect();
    stream.observer.committed(stream.id(), &batches);
    stream.tell(waiters);
}

/// Stops the streams of a thread that ends in a panic.
struct PanicGuard {
    inbox: Arc<Inbox>,
}

impl Drop for PanicGuard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let reason: Arc<str> = "its writer thread has panicked".into();
            for stream in self.inbox.die(&reason) {
                stream.stop(&reason);
                stream.closed();
            }
        }
    }
}
