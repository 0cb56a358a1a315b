//! What the broker needs of files, whoever provides them.

use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;

/// What the broker needs of a file system.
///
/// A name in a directory and the bytes of the file behind it become durable apart: [`DataFile::sync_data`] keeps the
/// bytes, [`Vfs::sync_dir`] keeps the name.
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

    /// Creates a directory and those above it, for this user alone, unless it is there. What it creates is there after
    /// a power loss.
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

    /// A new file for reading and writing, for this user alone. It is in its directory for good only after
    /// [`Vfs::sync_dir`].
    ///
    /// # Errors
    /// [`io::ErrorKind::AlreadyExists`] when the name is taken; otherwise what the system says.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DataFile>>;

    /// A file that is there, for reading and writing. Afterwards it is for this user alone, whatever it was before.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] when it is not there; otherwise what the system says.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DataFile>>;

    /// A file that is there, for reading alone. Nothing of it is changed, its permissions neither, so that this does on
    /// a file system that takes no writes any more. Writing to it fails.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] when it is not there; otherwise what the system says.
    fn open_read(&self, path: &Path) -> io::Result<Arc<dyn DataFile>>;

    /// Gives a file another name in the same directory, in place of whatever has that name. For good only after
    /// [`Vfs::sync_dir`]; until then, the old name or the new one is there after a power loss.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidInput`] for two directories; otherwise what the system says.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file. For good only after [`Vfs::sync_dir`].
    ///
    /// # Errors
    /// What the system says.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// The names in a directory, of files and of directories, sorted. Names that are not UTF-8 cannot be ours and are
    /// left out.
    ///
    /// # Errors
    /// What the system says.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;

    /// Returns once the names in this directory survive a power loss. Never retried after an error.
    ///
    /// # Errors
    /// What the system says.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Bytes that this user can still write on the file system of this directory.
    ///
    /// # Errors
    /// What the system says.
    fn free_bytes(&self, dir: &Path) -> io::Result<u64>;
}

/// A file that is written and read at any place. All handles of one file see the same bytes.
pub trait DataFile: Send + Sync {
    /// Writes all of `slices`, one after the other, from `offset` on. After an error the file may hold any part of
    /// them. Writing nothing does nothing.
    ///
    /// # Errors
    /// What the system says; [`io::ErrorKind::WriteZero`] when it takes no more bytes and does not say why.
    fn write_at(&self, offset: u64, slices: &[IoSlice<'_>]) -> io::Result<()>;

    /// Reads from `offset` into `buf`, and says how many bytes: 0 at the end. Fewer than asked for is no sign of the
    /// end.
    ///
    /// # Errors
    /// What the system says.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize>;

    /// Returns once the bytes written so far, and the length, survive a power loss. An error must not be retried: the
    /// system may have dropped the pages that it could not write, and would call the second try a success.
    ///
    /// # Errors
    /// What the system says.
    fn sync_data(&self) -> io::Result<()>;

    /// Bytes of the file.
    ///
    /// # Errors
    /// What the system says.
    fn len(&self) -> io::Result<u64>;

    /// Whether the file holds nothing.
    ///
    /// # Errors
    /// What the system says.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Cuts the file to this many bytes, or fills it up with zeros.
    ///
    /// # Errors
    /// What the system says.
    fn truncate(&self, len: u64) -> io::Result<()>;

    /// Drops what the system keeps of this file in memory, so that reads after a failed sync come from the disk. It
    /// does what it can and says nothing.
    fn forget_cached(&self);
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
