//! A file system that fails when it is told to: for tests.

use std::io;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::traits::{AppendFile, Lock, Vfs};

/// What may be made to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// An append that leaves nothing, as when the disk is full.
    Append,
    /// An append that leaves half of its bytes.
    TornAppend,
    /// A sync.
    Sync,
    /// Opening a file for appending.
    Open,
}

/// One failure to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// What fails.
    pub operation: Operation,
    /// Which one of its kind, from 1, across all files.
    pub nth: u64,
    /// With which error of the system.
    pub errno: i32,
}

/// What came of waiting for a sync.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Synced {
    /// There was one.
    More,
    /// There was none in the time.
    NotInTime,
}

/// Another file system with faults. Clones share the count and the faults.
#[derive(Clone)]
pub struct FaultyVfs {
    inner: Arc<dyn Vfs>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    faults: Vec<Fault>,
    opens: u64,
    appends: u64,
    syncs: u64,
    synced: u64,
    syncs_held: bool,
    syncs_waiting: u64,
}

impl FaultyVfs {
    /// A file system that behaves like `inner` but for these faults.
    pub fn new(inner: impl Vfs, faults: impl IntoIterator<Item = Fault>) -> Self {
        let state = State { faults: faults.into_iter().collect(), ..State::default() };
        Self {
            inner: Arc::new(inner),
            shared: Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() }),
        }
    }

    /// Lets every sync from now on wait, as on a disk that hangs, until [`FaultyVfs::release_syncs`].
    pub fn hold_syncs(&self) {
        self.shared.lock().syncs_held = true;
    }

    /// Lets syncs go on.
    pub fn release_syncs(&self) {
        self.shared.lock().syncs_held = false;
        self.shared.changed.notify_all();
    }

    /// Returns once a sync waits for [`FaultyVfs::release_syncs`].
    pub fn await_held_sync(&self) {
        let mut state = self.shared.lock();
        while state.syncs_waiting == 0 {
            state = self.shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Syncs that have succeeded so far. Whatever a reader of the files finds after this call was there by then.
    #[must_use]
    pub fn synced(&self) -> u64 {
        self.shared.lock().synced
    }

    /// Returns once more than `seen` syncs have succeeded, and says whether they did within this time.
    #[must_use]
    pub fn await_synced(&self, seen: u64, timeout: Duration) -> Synced {
        let state = self.shared.lock();
        let waited = self.shared.changed.wait_timeout_while(state, timeout, |state| state.synced <= seen);
        let waited = waited.unwrap_or_else(PoisonError::into_inner);
        if waited.1.timed_out() { Synced::NotInTime } else { Synced::More }
    }

    /// Appends so far, failed ones among them.
    #[must_use]
    pub fn appends(&self) -> u64 {
        self.shared.lock().appends
    }

    /// Syncs so far, failed ones among them.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.shared.lock().syncs
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn fault(&self, operation: Operation, nth: u64) -> Option<io::Error> {
        let fault = self.faults.iter().find(|fault| fault.operation == operation && fault.nth == nth)?;
        Some(io::Error::from_raw_os_error(fault.errno))
    }
}

impl Vfs for FaultyVfs {
    fn read(&self, path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
        self.inner.read(path, bytes_max)
    }

    fn mode(&self, path: &Path) -> io::Result<u32> {
        self.inner.mode(path)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.inner.create_dir_all(path)
    }

    fn open_append(&self, path: &Path) -> io::Result<Box<dyn AppendFile>> {
        {
            let mut state = self.shared.lock();
            state.opens += 1;
            if let Some(error) = state.fault(Operation::Open, state.opens) {
                return Err(error);
            }
        }
        let inner = self.inner.open_append(path)?;
        Ok(Box::new(FaultyFile { inner, shared: Arc::clone(&self.shared) }))
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>> {
        self.inner.lock(path)
    }
}

struct FaultyFile {
    inner: Box<dyn AppendFile>,
    shared: Arc<Shared>,
}

impl AppendFile for FaultyFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let (whole, torn) = {
            let mut state = self.shared.lock();
            state.appends += 1;
            (state.fault(Operation::Append, state.appends), state.fault(Operation::TornAppend, state.appends))
        };
        if let Some(error) = torn {
            let (half, _) = bytes.split_at(bytes.len() / 2);
            self.inner.append(half)?;
            return Err(error);
        }
        match whole {
            Some(error) => Err(error),
            None => self.inner.append(bytes),
        }
    }

    fn sync_data(&mut self) -> io::Result<()> {
        let mut state = self.shared.lock();
        state.syncs += 1;
        let fault = state.fault(Operation::Sync, state.syncs);
        state.syncs_waiting += 1;
        self.shared.changed.notify_all();
        while state.syncs_held {
            state = self.shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.syncs_waiting -= 1;
        drop(state);
        if let Some(error) = fault {
            return Err(error);
        }
        self.inner.sync_data()?;
        self.shared.lock().synced += 1;
        self.shared.changed.notify_all();
        Ok(())
    }

    fn len(&self) -> u64 {
        self.inner.len()
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.inner.truncate(len)
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.inner.read_at(offset, buf)
    }
}
