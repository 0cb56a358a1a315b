//! The simulated file system as tests and the broker see it.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::content::{Content, ContentDigest};
use super::crash::{CrashStates, Limits, digest};
use super::disk::{Inode, Names, Node};
use super::files::{Access, Shared, SimAppendFile, SimDataFile, SimLock};
use super::state::{State, Syncs, key};
use crate::vfs::fault::{Fault, Operation};
use crate::vfs::replace::{check_one_directory, directory_of};
use crate::vfs::traits::{AppendFile, DataFile, Lock, Vfs};

/// A file system in memory. Clones are the same file system; paths begin at its root, whether or not they say so.
#[derive(Clone, Default)]
pub struct SimVfs {
    shared: Shared,
}

/// All names and contents of a moment, cheap to keep.
#[derive(Clone)]
pub struct Snapshot {
    names: Arc<Names>,
    contents: BTreeMap<Inode, Content>,
}

impl SimVfs {
    /// An empty file system, whose root is there.
    #[must_use]
    pub fn new() -> Self {
        Self::of(Arc::default(), BTreeMap::new())
    }

    /// A file system of its own with everything of a snapshot, all of it for good, no operations done.
    #[must_use]
    pub fn from_snapshot(snapshot: &Snapshot) -> Self {
        Self::of(Arc::clone(&snapshot.names), snapshot.contents.clone())
    }

    pub(super) fn of(names: Arc<Names>, contents: BTreeMap<Inode, Content>) -> Self {
        Self { shared: Shared::new(State::new(names, contents)) }
    }

    /// How many write-class operations were done so far: created, written, cut, renamed, removed, synced. Those that
    /// failed count when they left something.
    #[must_use]
    pub fn operations(&self) -> usize {
        self.shared.lock().journal().len()
    }

    /// All operations so far, in words; the first is operation 1.
    #[must_use]
    pub fn journal(&self) -> Vec<String> {
        self.shared.lock().journal().iter().map(ToString::to_string).collect()
    }

    /// The states in which the disk may be found when power is lost after so many operations, the last of which may be
    /// half done: each state once, as a file system of its own in which everything is for good.
    ///
    /// What was acknowledged when [`SimVfs::operations`] gave n must be in every state of n operations or more. A sync
    /// that is cut off half-way leads to a state of the operation before it.
    #[must_use]
    pub fn crash_states(&self, operations: usize, limits: Limits) -> CrashStates {
        let state = self.shared.lock();
        let operations = operations.min(state.journal().len());
        let last = operations.checked_sub(1).and_then(|index| state.journal().get(index));
        let last = last.map_or_else(|| "nothing done yet".to_owned(), ToString::to_string);
        CrashStates::new(state.disk_after(operations), operations, last, limits)
    }

    /// What tells this state from others without comparing them: all names and contents as they are seen now.
    #[must_use]
    pub fn digest(&self) -> [u8; 16] {
        let (names, contents) = self.shared.lock().seen();
        let digest: ContentDigest = digest(&names, &contents);
        digest
    }

    /// As [`SimVfs::digest`], of what is below a directory.
    ///
    /// # Errors
    /// When there is no such directory.
    pub fn digest_below(&self, dir: &Path) -> io::Result<[u8; 16]> {
        let (dir, (names, contents)) = {
            let state = self.shared.lock();
            (state.directory(dir)?, state.seen())
        };
        let below = names.iter().filter(|(path, _)| path.starts_with(&dir));
        Ok(digest(&below.map(|(path, node)| (path.clone(), *node)).collect(), &contents))
    }

    /// Lets the nth operation of this kind from now on fail, 1 being the next. A write leaves nothing or, as
    /// [`Operation::TornWrite`], half; what a failed sync should have kept no later sync keeps.
    pub fn fail_nth(&self, operation: Operation, nth: u64, errno: i32) {
        self.shared.lock().faults.add_from_now(Fault { operation, nth, errno });
    }

    /// Lets the nth operation of this kind from now on and all after it fail, until [`SimVfs::heal`].
    pub fn fail_from(&self, operation: Operation, nth: u64, errno: i32) {
        self.shared.lock().faults.add_lasting(Fault { operation, nth, errno });
    }

    /// Nothing fails any more. The capacity stays.
    pub fn heal(&self) {
        self.shared.lock().faults.heal();
    }

    /// Operations of this kind so far, failed ones among them.
    #[must_use]
    pub fn done(&self, operation: Operation) -> u64 {
        self.shared.lock().faults.done(operation)
    }

    /// Bytes that all files together may have. A write over it leaves what there was room for.
    pub fn set_capacity(&self, capacity: Option<u64>) {
        self.shared.lock().capacity = capacity;
    }

    /// Whether syncs of files and directories say yes and do nothing: a test that passes on such a disk proves nothing.
    pub fn skip_syncs(&self, skip: bool) {
        let mut state = self.shared.lock();
        state.data_syncs = syncs(skip);
        state.directory_syncs = syncs(skip);
    }

    /// As [`SimVfs::skip_syncs`], for directories only.
    pub fn skip_directory_syncs(&self, skip: bool) {
        self.shared.lock().directory_syncs = syncs(skip);
    }

    /// The whole paths of all files, sorted.
    #[must_use]
    pub fn files(&self) -> Vec<PathBuf> {
        self.shared.lock().paths()
    }

    /// Turns over one bit of a file, for good, past everybody. It counts as an operation, as do the three below.
    ///
    /// # Errors
    /// When there is no such file or it has no such bit.
    pub fn flip_bit(&self, path: &Path, bit: u64) -> io::Result<()> {
        self.tamper(path, |content| {
            if bit / 8 >= content.len() {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    format!("{} has {} bytes and no bit {bit}", path.display(), content.len()),
                ));
            }
            content.flip(bit);
            Ok(())
        })
    }

    /// Cuts or lengthens a file, for good, past everybody.
    ///
    /// # Errors
    /// When there is no such file.
    pub fn truncate_file(&self, path: &Path, len: u64) -> io::Result<()> {
        self.tamper(path, |content| {
            content.truncate(len);
            Ok(())
        })
    }

    /// Takes a file away, for good, past everybody.
    ///
    /// # Errors
    /// When there is no such file.
    pub fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.shared.lock().tamper(path, None)
    }

    /// Puts a file there, new or in place of what it held, for good, past everybody.
    ///
    /// # Errors
    /// When there is no such directory, or a directory of this name.
    pub fn write_file(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut content = Content::default();
        content.write(0, bytes);
        self.shared.lock().tamper(path, Some(content))
    }

    /// Everything as it is seen now, synced or not.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let (names, contents) = self.shared.lock().seen();
        Snapshot { names, contents }
    }

    /// Puts everything back as it was, for good. The journal begins anew, faults, capacity and locks are gone, and
    /// handles from before must not be used any more.
    pub fn restore(&self, snapshot: &Snapshot) {
        *self.shared.lock() = State::new(Arc::clone(&snapshot.names), snapshot.contents.clone());
    }

    fn tamper(&self, path: &Path, change: impl FnOnce(&mut Content) -> io::Result<()>) -> io::Result<()> {
        let mut state = self.shared.lock();
        let inode = state.file(path)?;
        let mut content = state.content(inode)?.clone();
        change(&mut content)?;
        state.tamper(path, Some(content))
    }

    fn data_file(&self, inode: Inode) -> Arc<dyn DataFile> {
        Arc::new(SimDataFile { shared: self.shared.clone(), inode, access: Access::ReadAndWrite })
    }
}

impl Vfs for SimVfs {
    fn read(&self, path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
        let mut state = self.shared.lock();
        state.faults.next(Operation::Read)?;
        let content = state.content(state.file(path)?)?;
        match usize::try_from(content.len()) {
            Ok(len) if content.len() <= bytes_max => {
                let mut bytes = vec![0; len];
                content.read(0, &mut bytes);
                Ok(bytes)
            }
            Ok(_) | Err(_) => Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!("the file has more than {bytes_max} bytes"),
            )),
        }
    }

    fn mode(&self, path: &Path) -> io::Result<u32> {
        Ok(match self.shared.lock().node(path)? {
            Node::Directory => 0o700,
            Node::File(_) => 0o600,
        })
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut state = self.shared.lock();
        let key = key(path)?;
        let mut above: Vec<&Path> = key.ancestors().filter(|path| path.parent().is_some()).collect();
        above.reverse();
        for directory in above {
            match state.directory(directory) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => state.create_dir(directory)?,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn open_append(&self, path: &Path) -> io::Result<Box<dyn AppendFile>> {
        let mut state = self.shared.lock();
        state.faults.next(Operation::Open)?;
        let inode = match state.file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let inode = state.create(path)?;
                state.sync_data(inode)?;
                state.sync_dir(directory_of(path))?;
                inode
            }
            found => found?,
        };
        let len = state.content(inode)?.len();
        Ok(Box::new(SimAppendFile { shared: self.shared.clone(), inode, len }))
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>> {
        let mut state = self.shared.lock();
        match state.file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => state.create(path)?,
            found => found?,
        };
        let key = key(path)?;
        if !state.locks.insert(key.clone()) {
            return Err(io::Error::new(
                io::ErrorKind::WouldBlock,
                format!("another process holds the lock {}", path.display()),
            ));
        }
        drop(state);
        Ok(Box::new(SimLock { shared: self.shared.clone(), key }))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DataFile>> {
        let mut state = self.shared.lock();
        state.faults.next(Operation::Create)?;
        let inode = state.create(path)?;
        drop(state);
        Ok(self.data_file(inode))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DataFile>> {
        let mut state = self.shared.lock();
        state.faults.next(Operation::OpenData)?;
        let inode = state.file(path)?;
        drop(state);
        Ok(self.data_file(inode))
    }

    fn open_read(&self, path: &Path) -> io::Result<Arc<dyn DataFile>> {
        let mut state = self.shared.lock();
        state.faults.next(Operation::OpenRead)?;
        let inode = state.file(path)?;
        drop(state);
        Ok(Arc::new(SimDataFile { shared: self.shared.clone(), inode, access: Access::Read }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        check_one_directory(from, to)?;
        let mut state = self.shared.lock();
        state.faults.next(Operation::Rename)?;
        state.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.shared.lock();
        state.faults.next(Operation::Remove)?;
        state.remove(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.shared.lock().list(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.shared.lock();
        if let Err(error) = state.faults.next(Operation::SyncDir) {
            state.fail_sync_dir(dir)?;
            return Err(error);
        }
        state.sync_dir(dir)
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        let state = self.shared.lock();
        state.directory(dir)?;
        Ok(state.free_bytes())
    }
}

impl fmt::Debug for SimVfs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimVfs").field("operations", &self.operations()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot").field("files", &self.contents.len()).finish_non_exhaustive()
    }
}

fn syncs(skip: bool) -> Syncs {
    if skip { Syncs::Ignored } else { Syncs::Honest }
}
