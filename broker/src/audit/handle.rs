//! What the rest of the broker sees of the audit log.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use tokio::sync::oneshot;

use super::event::{Event, PreviousRun};
use super::file::{AuditPage, LogReader, OpenError, ReadError, open};
use super::queue::{Queue, Room};
use super::writer::Writer;
use crate::clock::Clock;
use crate::config::AuditConfig;
use crate::vfs::Vfs;

/// The audit log, to write to and to read from. Cloning shares it.
#[derive(Clone)]
pub struct Audit {
    queue: Arc<Queue>,
    clock: Arc<dyn Clock>,
    reader: Arc<Mutex<LogReader>>,
    previous: PreviousRun,
}

/// The thread that writes. Keep it for as long as the broker lives, and [`AuditThread::stop`] it last.
pub struct AuditThread {
    queue: Arc<Queue>,
    thread: Option<JoinHandle<()>>,
}

impl Audit {
    /// Opens the log in `dir`, which is created when it is not there, cuts a half-written last line, and starts the
    /// thread that writes.
    ///
    /// # Errors
    /// [`AuditStartError`] when the log cannot be opened, or is damaged before its end.
    pub fn start(
        vfs: &dyn Vfs,
        clock: Arc<dyn Clock>,
        config: &AuditConfig,
        dir: &Path,
    ) -> Result<(Self, AuditThread), AuditStartError> {
        let path = dir.join(FILE_NAME);
        let refuse = |fault| AuditStartError { path: path.clone(), fault };
        vfs.create_dir_all(dir).map_err(|error| refuse(StartFault::Open(OpenError::Io(error))))?;
        let opened = open(vfs, &path).map_err(|error| refuse(StartFault::Open(error)))?;
        let reader = Arc::new(Mutex::new(opened.reader));
        let queue = Arc::new(Queue::new(config));
        let writer =
            Writer::new(opened.writer, Arc::clone(&reader), Arc::clone(&queue), Arc::clone(&clock), config);
        let thread = std::thread::Builder::new()
            .name("sealbus-audit".to_owned())
            .spawn(move || writer.run())
            .map_err(|error| refuse(StartFault::Thread(error)))?;
        let audit = Self { queue: Arc::clone(&queue), clock, reader, previous: opened.previous };
        Ok((audit, AuditThread { queue, thread: Some(thread) }))
    }

    /// How the life before this one ended, for [`Event::BrokerStarted`].
    #[must_use]
    pub const fn previous_run(&self) -> PreviousRun {
        self.previous
    }

    /// Records what is about to be done, and returns once the record survives a power loss. It has room in the queue
    /// that a flood of other events cannot take. Dropping the future does not withdraw the event.
    ///
    /// # Errors
    /// [`AuditUnavailable`]: then it must not be done. The event may be in the log all the same.
    pub async fn record_durable(&self, event: Event) -> Result<(), AuditUnavailable> {
        let (sender, receiver) = oneshot::channel();
        self.queue.push_durable(self.clock.now_ms(), event, sender)?;
        // A sender that is dropped unanswered went down with the thread.
        receiver.await.unwrap_or_else(|_| Err(self.queue.unavailable()))
    }

    /// Records what happened. Never waits; the record survives a power loss within a second. Events of one source and
    /// reason beyond a few in a second are counted and recorded together.
    ///
    /// # Errors
    /// [`AuditUnavailable`]: then the connection concerned must be refused or closed.
    pub fn record(&self, event: Event) -> Result<(), AuditUnavailable> {
        self.queue.push(self.clock.now_ms(), self.clock.tick(), event, Room::All)
    }

    /// As [`Audit::record`], for what can be recorded later as well: it is refused while half of the queue is taken, so
    /// that the other half is for events that cannot wait. Not for what flood control counts: it would count each try.
    ///
    /// # Errors
    /// [`AuditUnavailable::QueueFull`]: then it is for the caller to come again. Otherwise as [`Audit::record`].
    pub fn record_unless_busy(&self, event: Event) -> Result<(), AuditUnavailable> {
        self.queue.push(self.clock.now_ms(), self.clock.tick(), event, Room::Half)
    }

    /// Records what a session has left to say when it ends. It comes when less than half of the queue is taken, and has
    /// room of its own until then, for 65,536 events.
    ///
    /// # Errors
    /// [`AuditUnavailable`]: then it is not in the log.
    pub fn record_last(&self, event: Event) -> Result<(), AuditUnavailable> {
        self.queue.push_last(self.clock.now_ms(), event)
    }

    /// Whether the log can be written, as far as is known. If not, no session may begin and nothing may change.
    #[must_use]
    pub fn is_available(&self) -> bool {
        self.queue.is_open()
    }

    /// Lines that survive a power loss; the index of the next.
    #[must_use]
    pub fn durable_lines(&self) -> u64 {
        self.reader.lock().unwrap_or_else(PoisonError::into_inner).durable_lines()
    }

    /// Reads lines from index `from`, counted from 0: as many as there are and as fit, whole lines, none that could
    /// still be lost. It reads the disk.
    ///
    /// # Errors
    /// [`ReadError`]; among others when `bytes_max` does not hold the line, for which [`super::LINE_BYTES_MAX`] is
    /// always enough.
    pub fn read(&self, from: u64, lines_max: u32, bytes_max: usize) -> Result<AuditPage, ReadError> {
        self.reader.lock().unwrap_or_else(PoisonError::into_inner).read(from, lines_max, bytes_max)
    }
}

impl fmt::Debug for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Audit").field("is_available", &self.is_available()).finish_non_exhaustive()
    }
}

impl AuditThread {
    /// Takes no more events, writes those that wait, and returns once they survive a power loss. It blocks.
    ///
    /// # Errors
    /// [`AuditUnavailable::Failed`] when some of them could not be written.
    pub fn stop(mut self) -> Result<(), AuditUnavailable> {
        self.queue.close();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            self.queue.fail("the audit thread panicked");
        }
        self.queue.outcome()
    }
}

/// Without [`AuditThread::stop`] the thread still writes what waits, and then ends; nobody learns whether it could.
impl Drop for AuditThread {
    fn drop(&mut self) {
        self.queue.close();
    }
}

impl fmt::Debug for AuditThread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AuditThread")
    }
}

/// The log's file in its directory.
const FILE_NAME: &str = "audit.jsonl";

/// Why an event was not recorded. Whatever it was about must not go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuditUnavailable {
    /// As many events wait as may.
    QueueFull,
    /// A write failed earlier, and none will be tried again until the broker is started anew.
    Failed {
        /// What failed.
        reason: Arc<str>,
    },
    /// The log was stopped.
    Stopped,
}

impl fmt::Display for AuditUnavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::QueueFull => f.write_str("the audit log cannot keep up: its queue is full"),
            Self::Failed { reason } => {
                write!(f, "the audit log failed and takes nothing until the broker is restarted: {reason}")
            }
            Self::Stopped => f.write_str("the audit log was stopped"),
        }
    }
}

impl std::error::Error for AuditUnavailable {}

/// Why there is no audit log, and therefore no broker.
#[derive(Debug)]
pub struct AuditStartError {
    path: PathBuf,
    fault: StartFault,
}

#[derive(Debug)]
enum StartFault {
    Open(OpenError),
    Thread(io::Error),
}

impl fmt::Display for AuditStartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "audit log {}: ", self.path.display())?;
        match &self.fault {
            StartFault::Open(error) => error.fmt(f),
            StartFault::Thread(error) => write!(f, "its thread cannot be started: {error}"),
        }
    }
}

impl std::error::Error for AuditStartError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.fault {
            StartFault::Open(error) => Some(error),
            StartFault::Thread(error) => Some(error),
        }
    }
}
