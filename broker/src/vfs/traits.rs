//! What the broker needs of files, whoever provides them.

use std::io;
use std::path::Path;

/// What the broker needs of a file system.
pub trait Vfs: Send + Sync + 'static {
    /// The whole content of a file of at most `bytes_max` bytes.
    ///
    /// # Errors
    /// What the system says, or [`io::ErrorKind::FileTooLarge`].
    fn read(&self, path: &Path, bytes_max: u64) -> io::Result<Vec<u8>>;

    /// The permission bits of a file, of the one that a link leads to.
    ///
    /// # Errors
    /// What the system says.
    fn mode(&self, path: &Path) -> io::Result<u32>;

    /// Creates a directory and those above it, for this user alone, unless it is there.
    ///
    /// # Errors
    /// What the system says.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;

    /// Opens a file for reading and for writing at its end. One that is not there is created, and is there after a
    /// power loss. Afterwards it is for this user alone, whatever it was before.
    ///
    /// # Errors
    /// What the system says.
    fn open_append(&self, path: &Path) -> io::Result<Box<dyn AppendFile>>;

    /// Takes a lock that only one holder in the system can have, without waiting for it.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] when another holds it; otherwise what the system says.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>>;
}

/// A file that grows at its end.
pub trait AppendFile: Send {
    /// Writes all of `bytes` at the end. After an error the file may hold any part of them.
    ///
    /// # Errors
    /// What the system says.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Returns once everything appended survives a power loss. An error must not be retried: the system may have
    /// dropped the pages that it could not write.
    ///
    /// # Errors
    /// What the system says.
    fn sync_data(&mut self) -> io::Result<()>;

    /// Bytes of the file, as far as this handle knows.
    fn len(&self) -> u64;

    /// Whether the file holds nothing.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Cuts the file to this many bytes.
    ///
    /// # Errors
    /// What the system says.
    fn truncate(&mut self, len: u64) -> io::Result<()>;

    /// Reads from `offset` into `buf`, and says how many bytes: 0 at the end.
    ///
    /// # Errors
    /// What the system says.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize>;
}

/// A lock that is held until it is dropped, and that the system gives back when the process ends, however it ends.
pub trait Lock: Send + Sync {}
