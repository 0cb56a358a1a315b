//! The one thread that writes the log: encode, append, sync, answer.
//!
//! ```text
//!  take --> encode all --> one append --> somebody waits, or sync_within_ms have passed? --> sync --> show, answer
//!   ^                                                                                                    |
//!   '----------------------------------------------------------------------------------------------------'
//! ```
//!
//! What nobody waits for gathers in the queue for a moment first. Everything that waits shares one append and one sync (group commit). The first error ends the thread: a failed
//! sync must not be retried, since the system may have dropped the pages that it could not write.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use sealbus_protocol::session::Tick;

use super::encode::{Stamp, encode};
use super::event::Class;
use super::file::{LogReader, LogWriter};
use super::queue::{Entry, Queue, Taken, Waiter};
use crate::clock::Clock;
use crate::config::AuditConfig;

pub(super) struct Writer {
    log: LogWriter,
    reader: Arc<Mutex<LogReader>>,
    queue: Arc<Queue>,
    clock: Arc<dyn Clock>,
    sync_within_ms: u64,
    unsynced_since: Option<Tick>,
}

/// Whether appended lines may wait for others before they are synced.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Urgency {
    Now,
    Soon,
}

impl Writer {
    pub(super) fn new(
        log: LogWriter,
        reader: Arc<Mutex<LogReader>>,
        queue: Arc<Queue>,
        clock: Arc<dyn Clock>,
        config: &AuditConfig,
    ) -> Self {
        Self { log, reader, queue, clock, sync_within_ms: config.sync_within_ms, unsynced_since: None }
    }

    /// Writes until the queue ends or a write fails.
    pub(super) fn run(mut self) {
        loop {
            let outcome = match self.queue.take(&*self.clock, self.sync_due_in_ms()) {
                Taken::Entries(entries) => self.write(entries),
                Taken::Silence => self.sync(),
                Taken::End => {
                    if let Err(failure) = self.sync() {
                        self.queue.fail(&failure.to_string());
                    }
                    return;
                }
            };
            if let Err(failure) = outcome {
                self.queue.fail(&failure.to_string());
                return;
            }
        }
    }

    /// How long the oldest line that is not synced may still wait.
    fn sync_due_in_ms(&self) -> Option<u64> {
        let since = self.unsynced_since?;
        Some(self.sync_within_ms.saturating_sub(self.clock.tick().since(since)))
    }

    fn write(&mut self, entries: Vec<Entry>) -> Result<(), WriteFailure> {
        let mut lines = Vec::new();
        let mut lens = Vec::with_capacity(entries.len());
        let mut waiters: Vec<Waiter> = Vec::new();
        let mut urgency = Urgency::Soon;
        for (seq, entry) in (self.log.next_seq()..).zip(entries) {
            let before = lines.len();
            let stamp = Stamp { seq, time_ms: entry.time_ms };
            encode(&entry.event, stamp, entry.span.as_ref(), &mut lines);
            lens.push(lines.len() - before);
            if entry.waiter.is_some() || entry.event.class() == Class::S0 {
                urgency = Urgency::Now;
            }
            waiters.extend(entry.waiter);
        }
        let written = self.write_lines(&lines, &lens, urgency);
        let answer = match &written {
            Ok(()) => Ok(()),
            Err(failure) => {
                // The log refuses before anybody learns that it failed.
                self.queue.fail(&failure.to_string());
                Err(self.queue.unavailable())
            }
        };
        for waiter in waiters {
            // Whoever waited may have gone.
            let _ = waiter.send(answer.clone());
        }
        written
    }

    fn write_lines(&mut self, lines: &[u8], lens: &[usize], urgency: Urgency) -> Result<(), WriteFailure> {
        self.log.append(lines, lens).map_err(WriteFailure::Append)?;
        let since = *self.unsynced_since.get_or_insert_with(|| self.clock.tick());
        let overdue = self.clock.tick().since(since) >= self.sync_within_ms;
        if urgency == Urgency::Now || overdue { self.sync() } else { Ok(()) }
    }

    fn sync(&mut self) -> Result<(), WriteFailure> {
        if self.unsynced_since.is_none() {
            return Ok(());
        }
        self.log.sync().map_err(WriteFailure::Sync)?;
        self.unsynced_since = None;
        self.log.publish(&mut self.reader.lock().unwrap_or_else(PoisonError::into_inner));
        Ok(())
    }
}

/// Why the log cannot be written any more.
#[derive(Debug)]
enum WriteFailure {
    Append(io::Error),
    Sync(io::Error),
}

impl fmt::Display for WriteFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Append(error) => write!(f, "appending lines failed: {error}"),
            Self::Sync(error) => write!(f, "syncing lines failed: {error}"),
        }
    }
}

/// A thread that panics must not leave others waiting for it, or believing that the log is written.
impl Drop for Writer {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.queue.fail("the audit thread panicked");
        }
    }
}
