//! The thread that has cursors written, and that lets time pass for the consumers.
//!
//! ```text
//!   every 50 ms, or at once when somebody waits:   timeouts --> take changes --> append to $cursors --> tell them
//! ```
//!
//! A write that fails loses nothing but time: what has changed stays marked and is written the next time, and those
//! who wait for it are told. Acknowledgements go on being taken meanwhile, since a lost one costs only a redelivery.

use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::thread::JoinHandle;
use std::time::Duration;

use super::limits::{FLUSH_RETRY_MS, FLUSH_WITHIN_MS};
use super::registry::Consumers;
use crate::clock::Clock;
use crate::storage::system::{CursorChange, SystemError, SystemLog, SystemLogs};

/// The thread. Keep it for as long as the broker lives, and [`CursorFlusher::stop`] it before the system logs.
#[derive(Debug)]
pub struct CursorFlusher {
    consumers: Arc<Consumers>,
    thread: Option<JoinHandle<()>>,
}

impl CursorFlusher {
    /// Starts the thread.
    ///
    /// # Errors
    /// What the system says when it gives no thread.
    pub fn start(
        consumers: Arc<Consumers>,
        logs: Arc<SystemLogs>,
        clock: Arc<dyn Clock>,
    ) -> std::io::Result<Self> {
        let thread = {
            let consumers = Arc::clone(&consumers);
            let thread = std::thread::Builder::new().name("sealbus-cursors".to_owned());
            thread.spawn(move || run(&consumers, &logs, &*clock))?
        };
        Ok(Self { consumers, thread: Some(thread) })
    }

    /// Writes what has changed, once more, and returns when that is durable or has failed. It blocks.
    pub fn stop(mut self) {
        self.finish();
    }

    fn finish(&mut self) {
        self.consumers.close();
        if let Some(thread) = self.thread.take() {
            // A panic was reported where it happened; nothing is left to be done about it here.
            let _ = thread.join();
        }
    }
}

impl Drop for CursorFlusher {
    fn drop(&mut self) {
        self.finish();
    }
}

fn run(consumers: &Consumers, logs: &SystemLogs, clock: &dyn Clock) {
    let mut last = Ok(());
    loop {
        let within_ms = if last.is_ok() { FLUSH_WITHIN_MS } else { FLUSH_RETRY_MS };
        consumers.await_flush(Duration::from_millis(within_ms), &last);
        // Asked before the changes are taken, so that the last round sees all that came before the end.
        let is_last = consumers.is_closed();
        consumers.handle_timeouts_at(clock.tick());
        last = flush(consumers, logs);
        if is_last {
            return;
        }
    }
}

/// Writes what has changed, and returns once it is durable.
fn flush(consumers: &Consumers, logs: &SystemLogs) -> Result<(), SystemError> {
    let (batch, changes) = consumers.take_changes();
    let outcome = if changes.is_empty() {
        // One flush ends before the next begins: what those who wait have marked was written by an earlier one.
        Ok(())
    } else {
        let (done, finished) = sync_channel(1);
        let frames = changes.iter().map(CursorChange::encode).collect();
        let tell = move |outcome: Result<_, _>| {
            // The other end waits below.
            let _ = done.send(outcome.map(|_| ()));
        };
        logs.append(SystemLog::Cursors, frames, Box::new(tell));
        finished.recv().unwrap_or(Err(SystemError::Closed))
    };
    consumers.flushed(batch, &outcome);
    outcome
}
