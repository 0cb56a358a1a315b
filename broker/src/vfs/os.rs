//! The operating system's files.

use std::fmt;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use super::traits::{AppendFile, Lock, Vfs};

/// The file system of the operating system.
#[derive(Debug, Clone, Copy, Default)]
pub struct OsVfs;

/// Who else may touch what we create: nobody.
const FILE_MODE: u32 = 0o600;
const DIRECTORY_MODE: u32 = 0o700;

impl Vfs for OsVfs {
    fn read(&self, path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
        let file = File::open(path)?;
        let mut bytes = Vec::new();
        file.take(bytes_max.saturating_add(1)).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > bytes_max {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!("the file has more than {bytes_max} bytes"),
            ));
        }
        Ok(bytes)
    }

    fn mode(&self, path: &Path) -> io::Result<u32> {
        Ok(fs::metadata(path)?.permissions().mode() & 0o7777)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        if path.is_dir() {
            return Ok(());
        }
        fs::DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(path)?;
        sync_parent(path)
    }

    fn open_append(&self, path: &Path) -> io::Result<Box<dyn AppendFile>> {
        let mut options = OpenOptions::new();
        options.read(true).append(true).mode(FILE_MODE);
        let file = match options.clone().create_new(true).open(path) {
            Ok(file) => {
                file.sync_all()?;
                sync_parent(path)?;
                file
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => options.open(path)?,
            Err(error) => return Err(error),
        };
        let metadata = file.metadata()?;
        if metadata.permissions().mode() & 0o077 != 0 {
            file.set_permissions(fs::Permissions::from_mode(FILE_MODE))?;
        }
        Ok(Box::new(OsFile { file, len: metadata.len() }))
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>> {
        // The content does not matter and is left alone, so that a second start changes nothing for the first.
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(FILE_MODE)
            .open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Box::new(OsLock { _file: file })),
            Err(TryLockError::WouldBlock) => Err(io::Error::new(
                io::ErrorKind::WouldBlock,
                format!("another process holds the lock {}", path.display()),
            )),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

struct OsFile {
    file: File,
    len: u64,
}

impl AppendFile for OsFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let written = self.file.write_all(bytes);
        match written {
            Ok(()) => self.len = self.len.saturating_add(bytes.len() as u64),
            // Some of it may have been written; the old length stands if not even that can be found out.
            Err(_) => self.len = self.file.metadata().map_or(self.len, |metadata| metadata.len()),
        }
        written
    }

    fn sync_data(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn len(&self) -> u64 {
        self.len
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.file.set_len(len)?;
        self.len = len;
        Ok(())
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.file.read_at(buf, offset) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                done => return done,
            }
        }
    }
}

struct OsLock {
    _file: File,
}

impl Lock for OsLock {}

impl fmt::Debug for dyn Lock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lock")
    }
}

/// A new name is in its directory after a power loss only once the directory itself was synced.
fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    };
    File::open(parent)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_over_the_limit_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        fs::write(&path, [0; 11]).unwrap();
        assert_eq!(OsVfs.read(&path, 10).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        assert_eq!(OsVfs.read(&path, 11).unwrap().len(), 11);
        assert_eq!(OsVfs.read(&path, u64::MAX).unwrap().len(), 11);
        assert_eq!(OsVfs.read(&dir.path().join("b"), 10).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    /// FAILURES T48.
    #[test]
    fn what_is_created_is_for_this_user_alone() {
        let dir = tempfile::tempdir().unwrap();
        let below = dir.path().join("data/audit");
        OsVfs.create_dir_all(&below).unwrap();
        OsVfs.create_dir_all(&below).unwrap();
        assert_eq!(OsVfs.mode(&below).unwrap(), 0o700);
        assert_eq!(OsVfs.mode(&dir.path().join("data")).unwrap(), 0o700);
        OsVfs.open_append(&below.join("log")).unwrap();
        assert_eq!(OsVfs.mode(&below.join("log")).unwrap(), 0o600);
        let _lock = OsVfs.lock(&below.join("LOCK")).unwrap();
        assert_eq!(OsVfs.mode(&below.join("LOCK")).unwrap(), 0o600);
    }

    #[test]
    fn an_open_file_is_closed_to_others_when_it_was_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        fs::write(&path, "abc").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let file = OsVfs.open_append(&path).unwrap();
        assert_eq!((OsVfs.mode(&path).unwrap(), file.len(), file.is_empty()), (0o600, 3, false));
    }

    #[test]
    fn appended_bytes_come_after_what_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut file = OsVfs.open_append(&path).unwrap();
        file.append(b"abc").unwrap();
        drop(file);
        let mut file = OsVfs.open_append(&path).unwrap();
        file.append(b"def").unwrap();
        file.sync_data().unwrap();
        let mut buf = [0; 8];
        assert_eq!((file.len(), file.read_at(2, &mut buf).unwrap(), &buf[..4]), (6, 4, &b"cdef"[..]));
        assert_eq!(file.read_at(6, &mut buf).unwrap(), 0);
        file.truncate(1).unwrap();
        file.append(b"z").unwrap();
        assert_eq!((file.len(), OsVfs.read(&path, 9).unwrap()), (2, b"az".to_vec()));
    }

    #[test]
    fn a_lock_has_one_holder_and_comes_back_when_it_leaves() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("LOCK");
        let first = OsVfs.lock(&path).unwrap();
        let second = OsVfs.lock(&path).unwrap_err();
        assert_eq!(second.kind(), io::ErrorKind::WouldBlock);
        assert_eq!(second.to_string(), format!("another process holds the lock {}", path.display()));
        drop(first);
        OsVfs.lock(&path).unwrap();
    }
}
