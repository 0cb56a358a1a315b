//! A file system that fails when it is told to: for tests.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::fault::{Fault, Faults, Operation};
use super::traits::{AppendFile, DataFile, Lock, Vfs};

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
    /// Files elsewhere neither fail nor count.
    below: PathBuf,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    faults: Faults,
    free_bytes: Option<u64>,
    synced: u64,
    syncs_held: bool,
    syncs_waiting: u64,
}

impl FaultyVfs {
    /// A file system that behaves like `inner` but for these faults.
    pub fn new(inner: impl Vfs, faults: impl IntoIterator<Item = Fault>) -> Self {
        // Every path starts with the empty one.
        Self::below(inner, "", faults)
    }

    /// As [`FaultyVfs::new`], but only what is at or below `path` fails, is held and counts.
    pub fn below(inner: impl Vfs, path: impl Into<PathBuf>, faults: impl IntoIterator<Item = Fault>) -> Self {
        let mut state = State::default();
        for fault in faults {
            state.faults.add(fault);
        }
        Self {
            inner: Arc::new(inner),
            below: path.into(),
            shared: Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() }),
        }
    }

    /// Lets the nth operation of this kind from now on fail, 1 being the next.
    pub fn fail_nth(&self, operation: Operation, nth: u64, errno: i32) {
        self.shared.lock().faults.add_from_now(Fault { operation, nth, errno });
    }

    /// Lets the nth operation of this kind from now on and all after it fail, until [`FaultyVfs::heal`].
    pub fn fail_from(&self, operation: Operation, nth: u64, errno: i32) {
        self.shared.lock().faults.add_lasting(Fault { operation, nth, errno });
    }

    /// Nothing fails any more, and the free space is again what the file system says.
    pub fn heal(&self) {
        let mut state = self.shared.lock();
        state.faults.heal();
        state.free_bytes = None;
    }

    /// What this file system says that is free. It does not keep to it: let writes fail for that.
    pub fn set_free_bytes(&self, free_bytes: u64) {
        self.shared.lock().free_bytes = Some(free_bytes);
    }

    /// Operations of this kind so far, failed ones among them.
    #[must_use]
    pub fn done(&self, operation: Operation) -> u64 {
        self.shared.lock().faults.done(operation)
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
        self.done(Operation::Append)
    }

    /// Syncs so far, failed ones among them.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.done(Operation::Sync)
    }

    /// What fails for this path, when it is one of ours.
    fn shared_for(&self, path: &Path) -> Option<&Arc<Shared>> {
        path.starts_with(&self.below).then_some(&self.shared)
    }

    fn check(&self, path: &Path, operation: Operation) -> io::Result<()> {
        self.shared_for(path).map_or(Ok(()), |shared| shared.check(operation))
    }

    fn data_file(&self, path: &Path, inner: Arc<dyn DataFile>) -> Arc<dyn DataFile> {
        match self.shared_for(path) {
            Some(shared) => Arc::new(FaultyDataFile { inner, shared: Arc::clone(shared) }),
            None => inner,
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check(&self, operation: Operation) -> io::Result<()> {
        self.lock().faults.next(operation)
    }

    /// Counts a sync, waits while they are held, and fails or does it.
    fn sync(&self, sync: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let mut state = self.lock();
        let fault = state.faults.next(Operation::Sync);
        state.syncs_waiting += 1;
        self.changed.notify_all();
        while state.syncs_held {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.syncs_waiting -= 1;
        drop(state);
        fault?;
        sync()?;
        self.lock().synced += 1;
        self.changed.notify_all();
        Ok(())
    }
}

impl Vfs for FaultyVfs {
    fn read(&self, path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
        self.check(path, Operation::Read)?;
        self.inner.read(path, bytes_max)
    }

    fn mode(&self, path: &Path) -> io::Result<u32> {
        self.inner.mode(path)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.inner.create_dir_all(path)
    }

    fn open_append(&self, path: &Path) -> io::Result<Box<dyn AppendFile>> {
        self.check(path, Operation::Open)?;
        let inner = self.inner.open_append(path)?;
        match self.shared_for(path) {
            Some(shared) => Ok(Box::new(FaultyAppendFile { inner, shared: Arc::clone(shared) })),
            None => Ok(inner),
        }
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>> {
        self.inner.lock(path)
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DataFile>> {
        self.check(path, Operation::Create)?;
        Ok(self.data_file(path, self.inner.create(path)?))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DataFile>> {
        self.check(path, Operation::OpenData)?;
        Ok(self.data_file(path, self.inner.open(path)?))
    }

    fn open_read(&self, path: &Path) -> io::Result<Arc<dyn DataFile>> {
        self.check(path, Operation::OpenRead)?;
        Ok(self.data_file(path, self.inner.open_read(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.check(to, Operation::Rename)?;
        self.inner.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.check(path, Operation::Remove)?;
        self.inner.remove(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.inner.list(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.check(dir, Operation::SyncDir)?;
        self.inner.sync_dir(dir)
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        let set = self.shared_for(dir).and_then(|shared| shared.lock().free_bytes);
        set.map_or_else(|| self.inner.free_bytes(dir), Ok)
    }
}

struct FaultyDataFile {
    inner: Arc<dyn DataFile>,
    shared: Arc<Shared>,
}

impl DataFile for FaultyDataFile {
    fn write_at(&self, offset: u64, slices: &[IoSlice<'_>]) -> io::Result<()> {
        let whole = self.shared.check(Operation::Write);
        if let Err(error) = self.shared.check(Operation::TornWrite) {
            let bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.iter()).copied().collect();
            let (half, _) = bytes.split_at(bytes.len() / 2);
            self.inner.write_at(offset, &[IoSlice::new(half)])?;
            return Err(error);
        }
        whole?;
        self.inner.write_at(offset, slices)
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.shared.check(Operation::Read)?;
        self.inner.read_at(offset, buf)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.shared.sync(|| self.inner.sync_data())
    }

    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.shared.check(Operation::Truncate)?;
        self.inner.truncate(len)
    }

    fn forget_cached(&self) {
        self.inner.forget_cached();
    }
}

struct FaultyAppendFile {
    inner: Box<dyn AppendFile>,
    shared: Arc<Shared>,
}

impl AppendFile for FaultyAppendFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let whole = self.shared.check(Operation::Append);
        if let Err(error) = self.shared.check(Operation::TornAppend) {
            let (half, _) = bytes.split_at(bytes.len() / 2);
            self.inner.append(half)?;
            return Err(error);
        }
        whole?;
        self.inner.append(bytes)
    }

    fn sync_data(&mut self) -> io::Result<()> {
        self.shared.sync(|| self.inner.sync_data())
    }

    fn len(&self) -> u64 {
        self.inner.len()
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.shared.check(Operation::Truncate)?;
        self.inner.truncate(len)
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.inner.read_at(offset, buf)
    }
}
