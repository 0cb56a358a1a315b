//! A file system that can be looked at as if it were one's own: what is written stays in memory.
//!
//! Opening a log mends it: a torn tail is cut, a lost index is made again. Somebody who only checks a stream must leave
//! every byte as it is, so that the check opens the log through this.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use crate::locks::lock;
use crate::vfs::{AppendFile, DataFile, Lock, Vfs};

/// Another file system, and what was changed over it.
pub(super) struct Overlay {
    inner: Arc<dyn Vfs>,
    /// None: removed.
    changed: Mutex<BTreeMap<PathBuf, Option<Arc<OverlayFile>>>>,
}

impl Overlay {
    pub(super) fn new(inner: Arc<dyn Vfs>) -> Self {
        Self { inner, changed: Mutex::default() }
    }

    /// The file as it is to be seen; handles of one file share it.
    fn file(&self, path: &Path) -> io::Result<Arc<OverlayFile>> {
        let mut changed = lock(&self.changed);
        match changed.get(path) {
            Some(Some(file)) => Ok(Arc::clone(file)),
            Some(None) => Err(ErrorKind::NotFound.into()),
            None => {
                let base = self.inner.open_read(path)?;
                let len = base.len()?;
                let state = State { len, base_len: len, writes: Vec::new() };
                let file = Arc::new(OverlayFile { base: Some(base), state: Mutex::new(state) });
                changed.insert(path.to_owned(), Some(Arc::clone(&file)));
                Ok(file)
            }
        }
    }
}

impl Vfs for Overlay {
    fn read(&self, path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
        let known = lock(&self.changed).get(path).cloned();
        let file = match known {
            None => return self.inner.read(path, bytes_max),
            Some(None) => return Err(ErrorKind::NotFound.into()),
            Some(Some(file)) => file,
        };
        let len = file.len()?;
        if len > bytes_max {
            return Err(ErrorKind::FileTooLarge.into());
        }
        let mut bytes = vec![0; usize::try_from(len).map_err(|_| ErrorKind::FileTooLarge)?];
        let mut filled = 0_usize;
        while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match file.read_at(filled as u64, rest)? {
                0 => break,
                count => filled = filled.saturating_add(count),
            }
        }
        bytes.truncate(filled);
        Ok(bytes)
    }

    fn mode(&self, path: &Path) -> io::Result<u32> {
        match lock(&self.changed).get(path) {
            Some(Some(_)) => Ok(0o600),
            Some(None) => Err(ErrorKind::NotFound.into()),
            None => self.inner.mode(path),
        }
    }

    fn create_dir_all(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }

    fn open_append(&self, _path: &Path) -> io::Result<Box<dyn AppendFile>> {
        Err(ErrorKind::Unsupported.into())
    }

    fn lock(&self, _path: &Path) -> io::Result<Box<dyn Lock>> {
        Err(ErrorKind::Unsupported.into())
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DataFile>> {
        if self.mode(path).is_ok() {
            return Err(ErrorKind::AlreadyExists.into());
        }
        let file = Arc::new(OverlayFile { base: None, state: Mutex::default() });
        lock(&self.changed).insert(path.to_owned(), Some(Arc::clone(&file)));
        Ok(file)
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DataFile>> {
        self.file(path).map(|file| file as Arc<dyn DataFile>)
    }

    fn open_read(&self, path: &Path) -> io::Result<Arc<dyn DataFile>> {
        self.open(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let file = self.file(from)?;
        let mut changed = lock(&self.changed);
        changed.insert(to.to_owned(), Some(file));
        changed.insert(from.to_owned(), None);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.mode(path)?;
        lock(&self.changed).insert(path.to_owned(), None);
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names = self.inner.list(dir)?;
        for (path, file) in lock(&self.changed).iter().filter(|(path, _)| path.parent() == Some(dir)) {
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
            names.retain(|known| known != name);
            if file.is_some() {
                names.push(name.to_owned());
            }
        }
        names.sort();
        Ok(names)
    }

    fn sync_dir(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        self.inner.free_bytes(dir)
    }
}

/// A file, and what was written over it.
struct OverlayFile {
    base: Option<Arc<dyn DataFile>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    len: u64,
    /// Bytes of the base that have not been cut off.
    base_len: u64,
    /// In the order in which they came.
    writes: Vec<(u64, Vec<u8>)>,
}

impl DataFile for OverlayFile {
    fn write_at(&self, offset: u64, slices: &[IoSlice<'_>]) -> io::Result<()> {
        let bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
        let mut state = lock(&self.state);
        state.len = state.len.max(offset.saturating_add(bytes.len() as u64));
        state.writes.push((offset, bytes));
        Ok(())
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let state = lock(&self.state);
        let count = usize::try_from(state.len.saturating_sub(offset)).unwrap_or(usize::MAX).min(buf.len());
        let Some(buf) = buf.get_mut(..count) else { return Ok(0) };
        buf.fill(0);
        let from_base =
            usize::try_from(state.base_len.saturating_sub(offset)).unwrap_or(usize::MAX).min(count);
        if let (Some(base), Some(mut rest)) = (&self.base, buf.get_mut(..from_base)) {
            let mut at = offset;
            while !rest.is_empty() {
                let read = base.read_at(at, rest)?;
                if read == 0 {
                    break;
                }
                at = at.saturating_add(read as u64);
                rest = rest.get_mut(read..).unwrap_or_default();
            }
        }
        for (start, bytes) in &state.writes {
            for (byte, place) in bytes.iter().zip(*start..) {
                let inside = place.checked_sub(offset).and_then(|at| buf.get_mut(usize::try_from(at).ok()?));
                if let Some(inside) = inside {
                    *inside = *byte;
                }
            }
        }
        Ok(count)
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(lock(&self.state).len)
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        let mut state = lock(&self.state);
        state.len = len;
        state.base_len = state.base_len.min(len);
        for (start, bytes) in &mut state.writes {
            bytes.truncate(usize::try_from(len.saturating_sub(*start)).unwrap_or(usize::MAX));
        }
        Ok(())
    }

    fn forget_cached(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vfs::OsVfs;

    fn content(vfs: &dyn Vfs, path: &Path) -> Vec<u8> {
        vfs.read(path, 1_000).unwrap()
    }

    #[test]
    fn changes_are_seen_and_leave_the_files_as_they_are() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two, three) = (dir.path().join("one"), dir.path().join("two"), dir.path().join("three"));
        for path in [&one, &two] {
            OsVfs.create(path).unwrap().write_at(0, &[IoSlice::new(b"0123456789")]).unwrap();
        }
        let overlay = Overlay::new(Arc::new(OsVfs));
        let file = overlay.open(&one).unwrap();
        file.truncate(4).unwrap();
        file.write_at(6, &[IoSlice::new(b"ab"), IoSlice::new(b"c")]).unwrap();
        assert_eq!(content(&overlay, &one), b"0123\0\0abc");
        let mut part = [0; 3];
        assert_eq!((overlay.open(&one).unwrap().read_at(5, &mut part).unwrap(), &part), (3, b"\0ab"));
        overlay.create(&three).unwrap().write_at(0, &[IoSlice::new(b"new")]).unwrap();
        overlay.rename(&three, &two).unwrap();
        assert_eq!(overlay.create(&one).err().map(|error| error.kind()), Some(ErrorKind::AlreadyExists));
        assert_eq!(content(&overlay, &two), b"new");
        overlay.remove(&one).unwrap();
        assert_eq!(overlay.list(dir.path()).unwrap(), ["two"]);
        assert_eq!(overlay.open(&one).err().map(|error| error.kind()), Some(ErrorKind::NotFound));
        assert_eq!(OsVfs.list(dir.path()).unwrap(), ["one", "two"]);
        assert_eq!(
            (content(&OsVfs, &one), content(&OsVfs, &two)),
            (b"0123456789".to_vec(), b"0123456789".to_vec())
        );
    }
}
