//! The thread that reads everything once a day, so that a disk's decay is found while there is still a backup.
//!
//! Complete segments are otherwise read only when somebody asks for them. It goes slowly, one log after the other, and
//! mends nothing: what it finds is reported like any damage.

use std::fmt;
use std::io;
use std::ops::ControlFlow;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::storage::Storage;
use crate::locks::lock;
use crate::storage::stream::store::{StreamDamage, StreamEvent};
use crate::storage::system::SystemLog;

/// How long after the start the first pass begins: a broker that is started anew every day is looked at all the same,
/// and a start has its own reading to do.
const FIRST_AFTER_MS: u64 = 60 * 60 * 1_000;

/// How long after a pass the next one begins. Backups are daily: what decayed since the last one is still whole there.
const AGAIN_AFTER_MS: u64 = 24 * 60 * 60 * 1_000;

/// How long it rests after each mebibyte. A slow disk gives one in 10 ms, so that it takes a sixth of that disk's time
/// and still reads more than a terabyte a day.
const REST_MS: u64 = 50;

/// The thread. Keep it for as long as the broker lives, and [`Scrubber::stop`] it before the storage is closed.
pub struct Scrubber {
    stopping: Arc<Stopping>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Stopping {
    is_asked: Mutex<bool>,
    asked: Condvar,
}

impl Scrubber {
    /// Starts the thread.
    ///
    /// # Errors
    /// What the system says when it gives no thread.
    pub fn start(storage: Arc<Storage>) -> io::Result<Self> {
        let stopping = Arc::new(Stopping::default());
        let thread = {
            let stopping = Arc::clone(&stopping);
            let thread = thread::Builder::new().name("sealbus-scrub".to_owned());
            thread.spawn(move || run(&storage, &stopping))?
        };
        Ok(Self { stopping, thread: Some(thread) })
    }

    /// Ends the pass that it is at. Blocks for as long as reading a mebibyte takes.
    pub fn stop(mut self) {
        self.finish();
    }

    fn finish(&mut self) {
        *lock(&self.stopping.is_asked) = true;
        self.stopping.asked.notify_all();
        if let Some(thread) = self.thread.take() {
            // A panic was reported where it happened; nothing is left to be done about it here.
            let _ = thread.join();
        }
    }
}

impl Drop for Scrubber {
    fn drop(&mut self) {
        self.finish();
    }
}

impl fmt::Debug for Scrubber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Scrubber")
    }
}

impl Stopping {
    /// Rests, and says whether to go on.
    fn rest(&self, rest_ms: u64) -> ControlFlow<()> {
        let waited =
            self.asked
                .wait_timeout_while(lock(&self.is_asked), Duration::from_millis(rest_ms), |asked| !*asked);
        let (is_asked, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if *is_asked { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

fn run(storage: &Storage, stopping: &Stopping) {
    let mut wait_ms = FIRST_AFTER_MS;
    while stopping.rest(wait_ms).is_continue() {
        storage.scrub_while(&mut || stopping.rest(REST_MS));
        wait_ms = AGAIN_AFTER_MS;
    }
}

impl Storage {
    /// Reads every log whole, one after the other, for as long as it is told to go on. Blocks.
    pub(super) fn scrub_while(&self, go_on: &mut dyn FnMut() -> ControlFlow<()>) {
        // Asked before each: one with nothing in it would not ask.
        for stream in self.streams.all() {
            if go_on().is_break() {
                return;
            }
            if let Err(error) = stream.scrub_while(go_on) {
                let text = StreamDamage::Log(error.to_string());
                self.findings.add(stream.id(), stream.name(), StreamEvent::Damaged(text));
            }
        }
        for log in SystemLog::ALL {
            if go_on().is_break() {
                return;
            }
            if let Err(error) = self.system.reader(log).scrub_while(go_on) {
                self.findings.add_system(format!("{log}: {error}"));
            }
        }
    }
}
