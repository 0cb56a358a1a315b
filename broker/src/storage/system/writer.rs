//! The one thread that writes the system logs.
//!
//! ```text
//!   append(log, records, done) --> bounded queue --> thread: append all, one sync for each log, then tell everybody
//! ```
//!
//! The first job goes at once; the next group forms while the disk syncs. A failed sync stops its log for good, with
//! the reason: the system may have dropped the pages that it could not write. A disk that is full stops nothing.

use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use sealbus_protocol::ids::BusId;
use sealbus_protocol::session::Tick;

use super::cursors::{CursorAppendError, CursorLog, CursorsError, RecoveredCursors, append_frames};
use super::frame::{Completion, SystemError, SystemFrame, SystemLog};
use super::queue::{Job, Queue, Taken};
use crate::clock::Clock;
use crate::locks::lock;
use crate::storage::log::{Log, LogError, LogOptions, LogReader, Recovery, random_salt};
use crate::vfs::Vfs;

/// Bytes after which a segment of a system log is full. They are read whole at every start.
const SEGMENT_BYTES: u64 = 4 * 1_024 * 1_024;

/// How long a log may have grown before its watermark says so.
const WATERMARK_WITHIN_MS: u64 = 1_000;

/// The broker's own logs. Shared by reference; closed by [`SystemLogs::close`], or when it is dropped.
pub struct SystemLogs {
    queue: Arc<Queue>,
    readers: Readers,
    stopped: Arc<Stopped>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What opening found in each of them.
#[derive(Debug)]
pub struct RecoveredSystem {
    /// Where the consumers stood.
    pub cursors: RecoveredCursors,
    /// What was found in `$policy`.
    pub policy: Recovery,
    /// What was found in `$keys`.
    pub keys: Recovery,
    /// What was found in `$producers`.
    pub producers: Recovery,
}

/// A system log cannot be opened.
#[derive(Debug)]
pub struct SystemOpenError {
    log: SystemLog,
    fault: OpenFault,
}

#[derive(Debug)]
enum OpenFault {
    Directory(std::io::Error),
    Log(CursorsError),
    Thread(std::io::Error),
}

impl fmt::Display for SystemOpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let log = self.log;
        match &self.fault {
            OpenFault::Directory(error) => write!(f, "the directory of {log} cannot be created: {error}"),
            OpenFault::Log(error) => write!(f, "{log} cannot be opened: {error}"),
            OpenFault::Thread(error) => write!(f, "the thread of the system logs does not start: {error}"),
        }
    }
}

impl std::error::Error for SystemOpenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.fault {
            OpenFault::Directory(error) | OpenFault::Thread(error) => Some(error),
            OpenFault::Log(error) => Some(error),
        }
    }
}

struct Readers {
    policy: LogReader,
    keys: LogReader,
    cursors: LogReader,
    producers: LogReader,
}

/// Why each log has stopped, if it has.
#[derive(Default)]
struct Stopped([Mutex<Option<Arc<str>>>; SystemLog::ALL.len()]);

impl Stopped {
    fn of(&self, log: SystemLog) -> &Mutex<Option<Arc<str>>> {
        let [policy, keys, cursors, producers] = &self.0;
        match log {
            SystemLog::Policy => policy,
            SystemLog::Keys => keys,
            SystemLog::Cursors => cursors,
            SystemLog::Producers => producers,
        }
    }

    fn reason(&self, log: SystemLog) -> Option<Arc<str>> {
        lock(self.of(log)).clone()
    }

    fn stop(&self, log: SystemLog, reason: &Arc<str>) {
        lock(self.of(log)).get_or_insert_with(|| Arc::clone(reason));
    }
}

impl SystemLogs {
    /// Opens the logs, each in a directory of its own below `dir`, and starts the thread that writes them.
    ///
    /// # Errors
    /// [`SystemOpenError`] when one of them cannot be opened. Damage is no error: it is in what was recovered.
    pub fn open(
        vfs: &Arc<dyn Vfs>,
        dir: &Path,
        bus_id: BusId,
        clock: Arc<dyn Clock>,
    ) -> Result<(Self, RecoveredSystem), SystemOpenError> {
        let open = |which| {
            let opened = prepare(vfs, dir, bus_id, which);
            let opened = opened.and_then(|(dir, options)| {
                Log::open(Arc::clone(vfs), &dir, options)
                    .map_err(|error| OpenFault::Log(CursorsError::Log(error)))
            });
            opened.map_err(|fault| SystemOpenError { log: which, fault })
        };
        let (policy_log, policy) = open(SystemLog::Policy)?;
        let (keys_log, keys) = open(SystemLog::Keys)?;
        let (producers_log, producers) = open(SystemLog::Producers)?;
        let opened = prepare(vfs, dir, bus_id, SystemLog::Cursors).and_then(|(dir, options)| {
            CursorLog::open(Arc::clone(vfs), &dir, options).map_err(OpenFault::Log)
        });
        let (mut cursors_log, cursors) =
            opened.map_err(|fault| SystemOpenError { log: SystemLog::Cursors, fault })?;

        let readers = Readers {
            policy: policy_log.reader(),
            keys: keys_log.reader(),
            cursors: cursors_log.log().reader(),
            producers: producers_log.reader(),
        };
        let (queue, stopped) = (Arc::new(Queue::new()), Arc::new(Stopped::default()));
        let writer = Writer {
            policy: Slot::new(SystemLog::Policy, Opened::Plain(policy_log)),
            keys: Slot::new(SystemLog::Keys, Opened::Plain(keys_log)),
            cursors: Slot::new(SystemLog::Cursors, Opened::Cursors(cursors_log)),
            producers: Slot::new(SystemLog::Producers, Opened::Plain(producers_log)),
            queue: Arc::clone(&queue),
            stopped: Arc::clone(&stopped),
            clock,
        };
        let thread = std::thread::Builder::new()
            .name("sealbus-system".to_owned())
            .spawn(move || writer.run())
            .map_err(|error| SystemOpenError { log: SystemLog::Policy, fault: OpenFault::Thread(error) })?;
        let logs = Self { queue, readers, stopped, thread: Mutex::new(Some(thread)) };
        Ok((logs, RecoveredSystem { cursors, policy, keys, producers }))
    }

    /// Appends records and tells `done` once they are durable, or why they are not. Never waits.
    pub fn append(&self, log: SystemLog, frames: Vec<SystemFrame>, done: Completion) {
        if let Err((job, error)) = self.queue.push(Job::Append { log, frames, done }) {
            match job {
                Job::Append { done, .. } => done(Err(error)),
                Job::Trim { .. } => {}
            }
        }
    }

    /// Has whole segments removed that end at or below this offset: its owner has written anew what it needs of them,
    /// and that is durable. It is done later, or not at all when the disk refuses; then it can be asked for again.
    pub fn trim(&self, log: SystemLog, before_offset: u64) {
        // A trim that finds no room in the queue is asked for again with the next one.
        let _ = self.queue.push(Job::Trim { log, before_offset });
    }

    /// Reads what is durable in a log.
    #[must_use]
    pub fn reader(&self, log: SystemLog) -> LogReader {
        let reader = match log {
            SystemLog::Policy => &self.readers.policy,
            SystemLog::Keys => &self.readers.keys,
            SystemLog::Cursors => &self.readers.cursors,
            SystemLog::Producers => &self.readers.producers,
        };
        reader.clone()
    }

    /// Why a log has stopped, if it has.
    #[must_use]
    pub fn stopped(&self, log: SystemLog) -> Option<Arc<str>> {
        self.stopped.reason(log)
    }

    /// Takes no more, writes what waits, and returns once that is durable. It blocks.
    pub fn close(&self) {
        self.queue.close();
        let thread = lock(&self.thread).take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            let reason: Arc<str> = "the thread of the system logs panicked".into();
            SystemLog::ALL.iter().for_each(|log| self.stopped.stop(*log, &reason));
        }
    }
}

impl Drop for SystemLogs {
    fn drop(&mut self) {
        self.close();
    }
}

impl fmt::Debug for SystemLogs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SystemLogs")
    }
}

fn prepare(
    vfs: &Arc<dyn Vfs>,
    dir: &Path,
    bus_id: BusId,
    which: SystemLog,
) -> Result<(std::path::PathBuf, LogOptions), OpenFault> {
    let dir = dir.join(which.directory());
    vfs.create_dir_all(&dir).map_err(OpenFault::Directory)?;
    let log_id = which.log_id();
    let options =
        LogOptions { bus_id, log_id, segment_bytes: SEGMENT_BYTES, digest: None, salt: random_salt };
    Ok((dir, options))
}

struct Writer {
    policy: Slot,
    keys: Slot,
    cursors: Slot,
    producers: Slot,
    queue: Arc<Queue>,
    stopped: Arc<Stopped>,
    clock: Arc<dyn Clock>,
}

impl Writer {
    fn run(mut self) {
        loop {
            let wait_ms = self.watermark_due_in_ms();
            match self.queue.take(wait_ms) {
                Taken::Jobs(jobs) => self.write(jobs),
                Taken::Silence => {}
                Taken::End => break,
            }
            let now = self.clock.tick();
            let stopped = Arc::clone(&self.stopped);
            for slot in self.slots() {
                if slot.grown_since.is_some_and(|since| now.since(since) >= WATERMARK_WITHIN_MS) {
                    slot.write_watermark(&stopped);
                }
            }
        }
        let stopped = Arc::clone(&self.stopped);
        for slot in self.slots() {
            if slot.grown_since.is_some() {
                slot.write_watermark(&stopped);
            }
        }
    }

    fn watermark_due_in_ms(&mut self) -> Option<u64> {
        let now = self.clock.tick();
        let since = self.slots().into_iter().filter_map(|slot| slot.grown_since).min()?;
        Some(WATERMARK_WITHIN_MS.saturating_sub(now.since(since)))
    }

    fn write(&mut self, jobs: Vec<Job>) {
        let (now_ms, now) = (self.clock.now_ms(), self.clock.tick());
        let stopped = Arc::clone(&self.stopped);
        for job in jobs {
            match job {
                Job::Append { log, frames, done } => self.slot(log).append(&frames, now_ms, done, &stopped),
                Job::Trim { log, before_offset } => self.slot(log).trim(before_offset, &stopped),
            }
        }
        for slot in self.slots() {
            slot.sync(now_ms, now, &stopped);
        }
    }

    fn slot(&mut self, log: SystemLog) -> &mut Slot {
        match log {
            SystemLog::Policy => &mut self.policy,
            SystemLog::Keys => &mut self.keys,
            SystemLog::Cursors => &mut self.cursors,
            SystemLog::Producers => &mut self.producers,
        }
    }

    fn slots(&mut self) -> [&mut Slot; SystemLog::ALL.len()] {
        [&mut self.policy, &mut self.keys, &mut self.cursors, &mut self.producers]
    }
}

/// A log and those who wait for its next sync.
struct Slot {
    which: SystemLog,
    log: Opened,
    waiting: Vec<(Range<u64>, Completion)>,
    grown_since: Option<Tick>,
}

enum Opened {
    Plain(Log),
    Cursors(CursorLog),
}

impl Slot {
    const fn new(which: SystemLog, log: Opened) -> Self {
        Self { which, log, waiting: Vec::new(), grown_since: None }
    }

    fn append(&mut self, frames: &[SystemFrame], now_ms: u64, done: Completion, stopped: &Stopped) {
        if let Some(reason) = stopped.reason(self.which) {
            return done(Err(SystemError::Stopped(reason)));
        }
        let appended = match &mut self.log {
            Opened::Plain(log) => {
                append_frames(log, frames.iter(), now_ms).map_err(|error| SystemError::of(&error))
            }
            Opened::Cursors(log) => log.append(frames, now_ms).map_err(|error| match error {
                CursorAppendError::Record(error) => SystemError::Refused(error.to_string().into()),
                CursorAppendError::Log(error) => SystemError::of(&error),
            }),
        };
        match appended {
            Ok(records) => self.waiting.push((records, done)),
            Err(error) => {
                if let SystemError::Stopped(reason) = &error {
                    stopped.stop(self.which, reason);
                }
                done(Err(error));
            }
        }
    }

    fn sync(&mut self, now_ms: u64, now: Tick, stopped: &Stopped) {
        if self.waiting.is_empty() {
            return;
        }
        let synced = match &mut self.log {
            Opened::Plain(log) => log.sync(),
            Opened::Cursors(log) => log.sync(now_ms),
        };
        // A sync that failed is not tried again, whatever the log says of itself.
        let outcome = synced.map_err(|error| self.stop(&error, stopped));
        self.grown_since.get_or_insert(now);
        for (records, done) in self.waiting.drain(..) {
            done(outcome.clone().map(|()| records));
        }
    }

    fn trim(&mut self, before_offset: u64, stopped: &Stopped) {
        let trimmed = self.log().trim(before_offset);
        if let Err(error) = trimmed
            && !error.is_usable()
        {
            self.stop(&error, stopped);
        }
    }

    fn write_watermark(&mut self, stopped: &Stopped) {
        self.grown_since = None;
        if stopped.reason(self.which).is_some() {
            return;
        }
        if let Err(error) = self.log().write_watermark()
            && !error.is_usable()
        {
            self.stop(&error, stopped);
        }
    }

    fn stop(&self, error: &LogError, stopped: &Stopped) -> SystemError {
        let reason: Arc<str> = error.to_string().into();
        stopped.stop(self.which, &reason);
        SystemError::Stopped(stopped.reason(self.which).unwrap_or(reason))
    }

    const fn log(&mut self) -> &mut Log {
        match &mut self.log {
            Opened::Plain(log) => log,
            Opened::Cursors(cursors) => cursors.log(),
        }
    }
}
