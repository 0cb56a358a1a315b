//! The operating system's files.

use std::fmt;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, IoSlice, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::Advice;

use super::replace::{check_one_directory, directory_of};
use super::traits::{AppendFile, DataFile, Lock, Vfs};

/// The file system of the operating system.
#[derive(Debug, Clone, Copy, Default)]
pub struct OsVfs;

/// Who else may touch what we create: nobody.
const FILE_MODE: u32 = 0o600;
const DIRECTORY_MODE: u32 = 0o700;

/// What Linux takes in one vectored write (its `IOV_MAX`).
const SLICES_MAX: usize = 1024;

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
        // Each level is a name in the one above it, and is kept there by a sync of its own.
        self.create_dir_all(directory_of(path))?;
        match fs::DirBuilder::new().mode(DIRECTORY_MODE).create(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
            created => created?,
        }
        self.sync_dir(directory_of(path))
    }

    fn open_append(&self, path: &Path) -> io::Result<Box<dyn AppendFile>> {
        let mut options = OpenOptions::new();
        options.read(true).append(true).mode(FILE_MODE);
        let file = match options.clone().create_new(true).open(path) {
            Ok(file) => {
                file.sync_all()?;
                self.sync_dir(directory_of(path))?;
                file
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => options.open(path)?,
            Err(error) => return Err(error),
        };
        close_to_others(&file)?;
        let len = file.metadata()?.len();
        Ok(Box::new(OsAppendFile { file, len }))
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

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DataFile>> {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create_new(true).mode(FILE_MODE).open(path)?;
        Ok(Arc::new(OsDataFile { file }))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DataFile>> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        close_to_others(&file)?;
        Ok(Arc::new(OsDataFile { file }))
    }

    fn open_read(&self, path: &Path) -> io::Result<Arc<dyn DataFile>> {
        Ok(Arc::new(OsDataFile { file: File::open(path)? }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        check_one_directory(from, to)?;
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(dir)? {
            names.extend(entry?.file_name().into_string().ok());
        }
        names.sort_unstable();
        Ok(names)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        let found = rustix::fs::statvfs(dir)?;
        Ok(found.f_bavail.saturating_mul(found.f_frsize))
    }
}

struct OsDataFile {
    file: File,
}

impl DataFile for OsDataFile {
    fn write_at(&self, offset: u64, slices: &[IoSlice<'_>]) -> io::Result<()> {
        write_all_at(offset, slices, |slices, offset| Ok(rustix::io::pwritev(&self.file, slices, offset)?))
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        read_at(&self.file, offset, buf)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn forget_cached(&self) {
        // Pages that are still dirty stay, and a system without this call keeps everything: checksums judge what is
        // read in any case.
        let _ = rustix::fs::fadvise(&self.file, 0, None, Advice::DontNeed);
    }
}

struct OsAppendFile {
    file: File,
    len: u64,
}

impl AppendFile for OsAppendFile {
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
        read_at(&self.file, offset, buf)
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

/// Whoever made it, and with whatever mode: from now on it is for this user alone.
fn close_to_others(file: &File) -> io::Result<()> {
    if file.metadata()?.permissions().mode() & 0o077 == 0 {
        return Ok(());
    }
    file.set_permissions(fs::Permissions::from_mode(FILE_MODE))
}

fn read_at(file: &File, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
    loop {
        match file.read_at(buf, offset) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

/// Writes until everything is written. `write` takes no more slices than the system does and may write a part.
fn write_all_at(
    mut offset: u64,
    slices: &[IoSlice<'_>],
    mut write: impl FnMut(&[IoSlice<'_>], u64) -> io::Result<usize>,
) -> io::Result<()> {
    let mut slices: Vec<IoSlice<'_>> =
        slices.iter().filter(|slice| !slice.is_empty()).map(|slice| IoSlice::new(slice)).collect();
    let mut rest = slices.as_mut_slice();
    while !rest.is_empty() {
        let taken = rest.get(..SLICES_MAX).unwrap_or(rest);
        match write(taken, offset) {
            Ok(0) => {
                return Err(io::Error::new(
                    io::ErrorKind::WriteZero,
                    format!("the system wrote nothing at {offset} and did not say why"),
                ));
            }
            Ok(written) => {
                offset = offset.saturating_add(written as u64);
                IoSlice::advance_slices(&mut rest, written);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
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

    /// A system that writes `most` bytes at a time and is interrupted before each.
    fn written_in_parts(slices: &[IoSlice<'_>], most: usize) -> (Vec<u8>, usize) {
        let (mut file, mut calls) = (Vec::new(), 0);
        write_all_at(7, slices, |slices, offset| {
            calls += 1;
            assert!(slices.len() <= SLICES_MAX);
            assert_eq!(offset, 7 + file.len() as u64);
            if calls % 2 == 1 {
                return Err(io::ErrorKind::Interrupted.into());
            }
            let bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.iter()).copied().take(most).collect();
            file.extend_from_slice(&bytes);
            Ok(bytes.len())
        })
        .unwrap();
        (file, calls)
    }

    #[test]
    fn a_write_goes_on_until_everything_is_written() {
        let bytes: Vec<u8> = (0..=255).cycle().take(3000).collect();
        let singly: Vec<IoSlice<'_>> = bytes.chunks(1).map(IoSlice::new).collect();
        let coarse: Vec<IoSlice<'_>> = bytes.chunks(700).map(IoSlice::new).collect();
        for (slices, most, calls) in
            [(&singly, 5000, 6), (&coarse, 5000, 2), (&coarse, 699, 10), (&singly, 1, 6000)]
        {
            assert_eq!(written_in_parts(slices, most), (bytes.clone(), calls), "{most} bytes at a time");
        }
        let empty = [IoSlice::new(&[]), IoSlice::new(&[])];
        assert_eq!(written_in_parts(&empty, 1), (Vec::new(), 0));
    }

    #[test]
    fn a_write_that_writes_nothing_or_fails_is_an_error() {
        let slices = [IoSlice::new(b"abc")];
        let error = write_all_at(9, &slices, |_, _| Ok(0)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WriteZero);
        assert_eq!(error.to_string(), "the system wrote nothing at 9 and did not say why");
        let error = write_all_at(0, &slices, |_, _| Err(io::ErrorKind::StorageFull.into())).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }

    /// FAILURES T48.
    #[test]
    fn data_files_are_for_this_user_alone_too() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("segment");
        let file = OsVfs.create(&path).unwrap();
        assert_eq!(OsVfs.mode(&path).unwrap(), 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o664)).unwrap();
        OsVfs.open(&path).unwrap();
        assert_eq!(OsVfs.mode(&path).unwrap(), 0o600);
        file.write_at(0, &[IoSlice::new(b"abc")]).unwrap();
        file.sync_data().unwrap();
        file.forget_cached();
        assert_eq!(OsVfs.read(&path, 3).unwrap(), b"abc");
        assert!(OsVfs.free_bytes(dir.path()).unwrap() > 0);
    }
}
