//! The files of a stream with another checkpoint beside them: one that somebody has kept since he saw it.

use std::io;
use std::path::Path;
use std::sync::Arc;

use sealbus_broker::storage::stream::CHECKPOINT_FILE;
use sealbus_broker::vfs::{AppendFile, DataFile, Lock, Vfs};

/// A file system in which every checkpoint is the one that is held.
pub(super) struct HeldCheckpoint {
    pub(super) inner: Arc<dyn Vfs>,
    pub(super) note: Vec<u8>,
}

impl Vfs for HeldCheckpoint {
    fn read(&self, path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
        match path.file_name() {
            Some(name) if name == CHECKPOINT_FILE => Ok(self.note.clone()),
            Some(_) | None => self.inner.read(path, bytes_max),
        }
    }

    fn mode(&self, path: &Path) -> io::Result<u32> {
        self.inner.mode(path)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.inner.create_dir_all(path)
    }

    fn open_append(&self, path: &Path) -> io::Result<Box<dyn AppendFile>> {
        self.inner.open_append(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>> {
        self.inner.lock(path)
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DataFile>> {
        self.inner.create(path)
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DataFile>> {
        self.inner.open(path)
    }

    fn open_read(&self, path: &Path) -> io::Result<Arc<dyn DataFile>> {
        self.inner.open_read(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.inner.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.inner.remove(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.inner.list(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.inner.sync_dir(dir)
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        self.inner.free_bytes(dir)
    }
}
