//! A disk that forgets the syncs of some files: if the campaign did not notice, these syncs would be tested by nobody.

use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;

use sealbus_broker::vfs::{AppendFile, DataFile, Lock, SimVfs, Vfs};

/// Which files' syncs do nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forgets {
    /// Those of segments.
    Segments,
    /// Those of index files.
    Indexes,
    /// Those of watermarks.
    Watermarks,
    /// Those of checkpoints.
    Checkpoints,
    /// Those of directories.
    Directories,
}

impl Forgets {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Segments, Self::Indexes, Self::Watermarks, Self::Checkpoints, Self::Directories];

    /// A file that is replaced is synced under its temporary name.
    fn is_of(self, path: &Path) -> bool {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        match self {
            Self::Segments => name.ends_with(".log"),
            Self::Indexes => name.contains(".idx"),
            Self::Watermarks => name.starts_with("watermark."),
            Self::Checkpoints => name.starts_with("checkpoint"),
            Self::Directories => false,
        }
    }
}

/// The disk.
pub struct Forgetful {
    disk: SimVfs,
    forgets: Forgets,
}

impl Forgetful {
    /// A disk that forgets these.
    #[must_use]
    pub const fn new(disk: SimVfs, forgets: Forgets) -> Self {
        Self { disk, forgets }
    }

    fn file(&self, path: &Path, file: Arc<dyn DataFile>) -> Arc<dyn DataFile> {
        if self.forgets.is_of(path) { Arc::new(ForgetfulFile(file)) } else { file }
    }
}

struct ForgetfulFile(Arc<dyn DataFile>);

impl DataFile for ForgetfulFile {
    fn write_at(&self, offset: u64, slices: &[IoSlice<'_>]) -> io::Result<()> {
        self.0.write_at(offset, slices)
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read_at(offset, buf)
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.0.truncate(len)
    }

    fn forget_cached(&self) {
        self.0.forget_cached();
    }
}

impl Vfs for Forgetful {
    fn read(&self, path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
        self.disk.read(path, bytes_max)
    }

    fn mode(&self, path: &Path) -> io::Result<u32> {
        self.disk.mode(path)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.disk.create_dir_all(path)
    }

    fn open_append(&self, path: &Path) -> io::Result<Box<dyn AppendFile>> {
        self.disk.open_append(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>> {
        self.disk.lock(path)
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DataFile>> {
        self.disk.create(path).map(|file| self.file(path, file))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DataFile>> {
        self.disk.open(path).map(|file| self.file(path, file))
    }

    fn open_read(&self, path: &Path) -> io::Result<Arc<dyn DataFile>> {
        self.disk.open_read(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk.remove(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.disk.list(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        match self.forgets {
            Forgets::Directories => Ok(()),
            Forgets::Segments | Forgets::Indexes | Forgets::Watermarks | Forgets::Checkpoints => {
                self.disk.sync_dir(dir)
            }
        }
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        self.disk.free_bytes(dir)
    }
}
