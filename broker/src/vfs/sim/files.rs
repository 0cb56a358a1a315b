//! Handles of simulated files, and locks.

use std::io::{self, IoSlice};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::disk::Inode;
use super::state::State;
use crate::vfs::fault::Operation;
use crate::vfs::traits::{AppendFile, DataFile, Lock};

/// A state that several handles have in common.
#[derive(Clone, Default)]
pub(super) struct Shared(Arc<Mutex<State>>);

impl Shared {
    pub(super) fn new(state: State) -> Self {
        Self(Arc::new(Mutex::new(state)))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) struct SimDataFile {
    pub(super) shared: Shared,
    pub(super) inode: Inode,
    pub(super) access: Access,
}

/// What a handle was opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    ReadAndWrite,
    Read,
}

impl Access {
    /// What Linux says to a write through a handle that was opened for reading.
    fn check_write(self) -> io::Result<()> {
        match self {
            Self::ReadAndWrite => Ok(()),
            Self::Read => Err(rustix::io::Errno::BADF.into()),
        }
    }
}

impl DataFile for SimDataFile {
    fn write_at(&self, offset: u64, slices: &[IoSlice<'_>]) -> io::Result<()> {
        self.access.check_write()?;
        let bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.iter()).copied().collect();
        let mut state = self.shared.lock();
        let whole = state.faults.next(Operation::Write);
        if let Err(error) = state.faults.next(Operation::TornWrite) {
            state.write(self.inode, offset, half_of(&bytes))?;
            return Err(error);
        }
        whole?;
        state.write(self.inode, offset, &bytes)
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let mut state = self.shared.lock();
        state.faults.next(Operation::Read)?;
        Ok(state.content(self.inode)?.read(offset, buf))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.shared.lock().try_sync_data(self.inode)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.shared.lock().content(self.inode)?.len())
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.access.check_write()?;
        let mut state = self.shared.lock();
        state.faults.next(Operation::Truncate)?;
        state.truncate(self.inode, len)
    }

    fn forget_cached(&self) {
        self.shared.lock().forget_cached(self.inode);
    }
}

pub(super) struct SimAppendFile {
    pub(super) shared: Shared,
    pub(super) inode: Inode,
    pub(super) len: u64,
}

impl AppendFile for SimAppendFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.shared.lock();
        let end = state.content(self.inode)?.len();
        let whole = state.faults.next(Operation::Append);
        let torn = state.faults.next(Operation::TornAppend);
        let appended = match (torn, whole) {
            (Err(error), _) => state.write(self.inode, end, half_of(bytes)).and(Err(error)),
            (Ok(()), Err(error)) => Err(error),
            (Ok(()), Ok(())) => state.write(self.inode, end, bytes),
        };
        self.len = state.content(self.inode)?.len();
        appended
    }

    fn sync_data(&mut self) -> io::Result<()> {
        self.shared.lock().try_sync_data(self.inode)
    }

    fn len(&self) -> u64 {
        self.len
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        let mut state = self.shared.lock();
        state.faults.next(Operation::Truncate)?;
        state.truncate(self.inode, len)?;
        self.len = len;
        Ok(())
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        Ok(self.shared.lock().content(self.inode)?.read(offset, buf))
    }
}

pub(super) struct SimLock {
    pub(super) shared: Shared,
    pub(super) key: PathBuf,
}

impl Lock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        self.shared.lock().locks.remove(&self.key);
    }
}

fn half_of(bytes: &[u8]) -> &[u8] {
    bytes.split_at(bytes.len() / 2).0
}
