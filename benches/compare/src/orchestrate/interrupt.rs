//! Ctrl-C and SIGTERM: the measurement that runs is ended, its broker stopped, and the folder removed.
//!
//! Whatever happens to this process, its children end with it: see [`crate::child`].

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::process::{Pid, Signal, kill_process};
use tokio::signal::unix::{SignalKind, signal};

use crate::failure::Failure;

/// Whether this process was told to end.
#[derive(Debug, Clone, Default)]
pub(crate) struct Interrupt {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    told: AtomicBool,
    /// The load that is waited for.
    load: Mutex<Option<Pid>>,
}

impl Interrupt {
    /// Listens from here on.
    pub(crate) fn listen() -> Result<Self, Failure> {
        let failed = |error| Failure::new("listen for signals", error);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().map_err(failed)?;
        let entered = runtime.enter();
        let mut interrupted = signal(SignalKind::interrupt()).map_err(failed)?;
        let mut terminated = signal(SignalKind::terminate()).map_err(failed)?;
        drop(entered);
        let interrupt = Self::default();
        let told = interrupt.clone();
        // Never waited for: it sleeps until the process ends.
        std::thread::spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    _ = interrupted.recv() => {}
                    _ = terminated.recv() => {}
                }
            });
            told.handle_signal();
        });
        Ok(interrupt)
    }

    /// A load with this process id runs now.
    pub(super) fn handle_started(&self, process: u32) {
        *self.load() = i32::try_from(process).ok().and_then(Pid::from_raw);
        if self.shared.told.load(Ordering::SeqCst) {
            self.kill_load();
        }
    }

    /// It is about to be waited for, after which its process id may be another's.
    pub(super) fn handle_ended(&self) {
        *self.load() = None;
    }

    /// # Errors
    /// [`Failure`] when this process was told to end.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        if self.shared.told.load(Ordering::SeqCst) {
            return Err(Failure::new("measure to the end", "interrupted"));
        }
        Ok(())
    }

    fn handle_signal(&self) {
        self.shared.told.store(true, Ordering::SeqCst);
        self.kill_load();
    }

    fn kill_load(&self) {
        if let Some(pid) = *self.load() {
            // It may have ended by itself meanwhile: it is not reaped yet, so that nobody else has its id.
            let _ = kill_process(pid, Signal::KILL);
        }
    }

    fn load(&self) -> std::sync::MutexGuard<'_, Option<Pid>> {
        self.shared.load.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_load_that_runs_is_ended_and_one_that_starts_later_too() {
        let start = || Command::new("sleep").arg("600").spawn().unwrap();
        let interrupt = Interrupt::default();
        assert!(interrupt.check().is_ok());
        let mut first = start();
        interrupt.handle_started(first.id());
        interrupt.handle_signal();
        assert!(!first.wait().unwrap().success());
        interrupt.handle_ended();
        assert!(interrupt.check().is_err());
        let mut second = start();
        interrupt.handle_started(second.id());
        assert!(!second.wait().unwrap().success());
    }
}
