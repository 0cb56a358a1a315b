//! A simulated file system as those who use it see it, with the journal of what they did.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use super::content::Content;
use super::disk::{DataChange, Disk, Inode, NameChange, Names, Node, Op};
use crate::vfs::fault::{Faults, Operation};

/// A file that is longer is a mistake of whoever writes it.
const FILE_BYTES_MAX: u64 = 1 << 40;

/// What is free on a disk without a set capacity.
const FREE_BYTES_WITHOUT_CAPACITY: u64 = 1 << 40;

/// The disk is kept after every so many operations, so that going back to one of them does not mean doing all of those
/// before it again.
const OPERATIONS_PER_CHECKPOINT: usize = 64;

/// Whether syncs do what they say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Syncs {
    #[default]
    Honest,
    Ignored,
}

#[derive(Default)]
pub(super) struct State {
    names: Arc<Names>,
    contents: BTreeMap<Inode, Content>,
    next_inode: Inode,
    disk: Disk,
    journal: Vec<Op>,
    checkpoints: Vec<Disk>,
    pub(super) faults: Faults,
    pub(super) capacity: Option<u64>,
    pub(super) data_syncs: Syncs,
    pub(super) directory_syncs: Syncs,
    pub(super) locks: BTreeSet<PathBuf>,
}

impl State {
    /// A disk on which all of this is for good.
    pub(super) fn new(names: Arc<Names>, mut contents: BTreeMap<Inode, Content>) -> Self {
        for node in names.values() {
            if let Node::File(inode) = node {
                contents.entry(*inode).or_default();
            }
        }
        let next_inode = contents.keys().next_back().map_or(1, |last| last.saturating_add(1));
        let disk = Disk::new(Arc::clone(&names), contents.clone());
        Self { names, contents, next_inode, checkpoints: vec![disk.clone()], disk, ..Self::default() }
    }

    /// The names and contents as they are seen now.
    pub(super) fn seen(&self) -> (Arc<Names>, BTreeMap<Inode, Content>) {
        let named: BTreeSet<Inode> = self
            .names
            .values()
            .filter_map(|node| match node {
                Node::File(inode) => Some(*inode),
                Node::Directory => None,
            })
            .collect();
        let contents = self.contents.iter().filter(|(inode, _)| named.contains(inode));
        (Arc::clone(&self.names), contents.map(|(inode, content)| (*inode, content.clone())).collect())
    }

    pub(super) fn journal(&self) -> &[Op] {
        &self.journal
    }

    /// The disk as it was when this many operations had been done.
    pub(super) fn disk_after(&self, operations: usize) -> Disk {
        let operations = operations.min(self.journal.len());
        let index = (operations / OPERATIONS_PER_CHECKPOINT).min(self.checkpoints.len().saturating_sub(1));
        let mut disk = self.checkpoints.get(index).cloned().unwrap_or_default();
        let done = index * OPERATIONS_PER_CHECKPOINT;
        for (number, op) in self.journal.iter().enumerate().take(operations).skip(done) {
            disk.apply(number + 1, op);
        }
        disk
    }

    /// Writes into the journal what has just been done.
    fn record(&mut self, op: Op) {
        self.journal.push(op);
        let operations = self.journal.len();
        if let Some(op) = self.journal.last() {
            self.disk.apply(operations, op);
        }
        if operations.is_multiple_of(OPERATIONS_PER_CHECKPOINT) {
            self.disk.forget_nameless();
            self.checkpoints.push(self.disk.clone());
        }
    }

    pub(super) fn node(&self, path: &Path) -> io::Result<Node> {
        self.names.get(&key(path)?).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    pub(super) fn file(&self, path: &Path) -> io::Result<Inode> {
        match self.node(path)? {
            Node::File(inode) => Ok(inode),
            Node::Directory => Err(io::ErrorKind::IsADirectory.into()),
        }
    }

    pub(super) fn directory(&self, path: &Path) -> io::Result<PathBuf> {
        let key = key(path)?;
        match (self.names.get(&key), is_root(&key)) {
            (Some(Node::Directory), _) | (None, true) => Ok(key),
            (Some(Node::File(_)), _) => Err(io::ErrorKind::NotADirectory.into()),
            (None, false) => Err(io::ErrorKind::NotFound.into()),
        }
    }

    pub(super) fn paths(&self) -> Vec<PathBuf> {
        let files = self.names.iter().filter(|(_, node)| matches!(node, Node::File(_)));
        files.map(|(path, _)| path.clone()).collect()
    }

    pub(super) fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        let directory = self.directory(directory)?;
        let within = self.names.keys().filter(|path| path.parent() == Some(&directory));
        let names = within.filter_map(|path| path.file_name()?.to_str().map(str::to_owned));
        let mut names: Vec<String> = names.collect();
        names.sort_unstable();
        Ok(names)
    }

    pub(super) fn create(&mut self, path: &Path) -> io::Result<Inode> {
        let key = self.free_name(path)?;
        let inode = self.next_inode;
        self.next_inode += 1;
        self.contents.insert(inode, Content::default());
        self.change_names(NameChange::Create(key, Node::File(inode)));
        Ok(inode)
    }

    /// Creates one directory, which is there for good afterwards.
    pub(super) fn create_dir(&mut self, path: &Path) -> io::Result<()> {
        let key = self.free_name(path)?;
        let above = key.parent().map(Path::to_owned).unwrap_or_default();
        self.change_names(NameChange::Create(key, Node::Directory));
        self.sync_dir(&above)
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let inode = self.file(from)?;
        let to = key(to)?;
        if let Some(Node::Directory) = self.names.get(&to) {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        let from = key(from)?;
        if from != to {
            self.change_names(NameChange::Rename { from, to, inode });
        }
        Ok(())
    }

    pub(super) fn remove(&mut self, path: &Path) -> io::Result<()> {
        self.file(path)?;
        self.change_names(NameChange::Remove(key(path)?));
        Ok(())
    }

    pub(super) fn sync_dir(&mut self, directory: &Path) -> io::Result<()> {
        let directory = self.directory(directory)?;
        match self.directory_syncs {
            Syncs::Honest => self.record(Op::SyncDir(directory)),
            Syncs::Ignored => self.record(Op::SyncIgnored),
        }
        Ok(())
    }

    pub(super) fn fail_sync_dir(&mut self, directory: &Path) -> io::Result<()> {
        let directory = self.directory(directory)?;
        self.record(Op::SyncDirFailed(directory));
        Ok(())
    }

    pub(super) fn content(&self, inode: Inode) -> io::Result<&Content> {
        // A handle outlives its file only when the whole state was put back to another.
        self.contents.get(&inode).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Writes as much as there is room for, and fails when that is not everything.
    pub(super) fn write(&mut self, inode: Inode, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let len = self.content(inode)?.len();
        let end = offset.saturating_add(bytes.len() as u64);
        if end > FILE_BYTES_MAX {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let room = len.saturating_add(self.free_bytes()).saturating_sub(offset);
        let (written, lost) = bytes.split_at(usize::try_from(room).unwrap_or(usize::MAX).min(bytes.len()));
        if !written.is_empty() {
            self.change_data(inode, DataChange::Write { offset, bytes: written.into() });
        }
        if lost.is_empty() { Ok(()) } else { Err(rustix::io::Errno::NOSPC.into()) }
    }

    pub(super) fn truncate(&mut self, inode: Inode, len: u64) -> io::Result<()> {
        self.content(inode)?;
        if len > FILE_BYTES_MAX {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.change_data(inode, DataChange::Truncate(len));
        Ok(())
    }

    pub(super) fn sync_data(&mut self, inode: Inode) -> io::Result<()> {
        self.content(inode)?;
        match self.data_syncs {
            Syncs::Honest => self.record(Op::SyncData(inode)),
            Syncs::Ignored => self.record(Op::SyncIgnored),
        }
        Ok(())
    }

    /// The next sync of this file, with the failure that is due.
    pub(super) fn try_sync_data(&mut self, inode: Inode) -> io::Result<()> {
        if let Err(error) = self.faults.next(Operation::Sync) {
            self.record(Op::SyncDataFailed(inode));
            return Err(error);
        }
        self.sync_data(inode)
    }

    pub(super) fn forget_cached(&mut self, inode: Inode) {
        if !self.disk.has_lost(inode) {
            return;
        }
        self.record(Op::Forgotten(inode));
        if let Some(content) = self.disk.content_without_lost(inode) {
            self.contents.insert(inode, content);
        }
    }

    pub(super) fn free_bytes(&self) -> u64 {
        let Some(capacity) = self.capacity else {
            return FREE_BYTES_WITHOUT_CAPACITY;
        };
        let used = self.names.values().map(|node| match node {
            Node::File(inode) => self.contents.get(inode).map_or(0, Content::len),
            Node::Directory => 0,
        });
        capacity.saturating_sub(used.sum())
    }

    /// Gives a file this content, or takes it away, for good and past everybody.
    pub(super) fn tamper(&mut self, path: &Path, content: Option<Content>) -> io::Result<()> {
        let key = key(path)?;
        let file = match content {
            Some(content) => {
                let inode = match self.names.get(&key) {
                    Some(Node::File(inode)) => *inode,
                    Some(Node::Directory) => return Err(io::ErrorKind::IsADirectory.into()),
                    None => {
                        let key = self.free_name(path)?;
                        self.next_inode += 1;
                        let inode = self.next_inode - 1;
                        Arc::make_mut(&mut self.names).insert(key, Node::File(inode));
                        inode
                    }
                };
                self.contents.insert(inode, content.clone());
                Some((inode, content))
            }
            None => {
                self.file(path)?;
                Arc::make_mut(&mut self.names).remove(&key);
                None
            }
        };
        self.record(Op::Tampered(key, file));
        Ok(())
    }

    /// A name that nothing has, in a directory that is there.
    fn free_name(&self, path: &Path) -> io::Result<PathBuf> {
        let key = key(path)?;
        if self.names.contains_key(&key) || is_root(&key) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if let Some(above) = key.parent() {
            self.directory(above)?;
        }
        Ok(key)
    }

    fn change_names(&mut self, change: NameChange) {
        change.apply(Arc::make_mut(&mut self.names));
        self.record(Op::Name(change));
    }

    fn change_data(&mut self, inode: Inode, change: DataChange) {
        if let Some(content) = self.contents.get_mut(&inode) {
            change.apply(content);
        }
        self.record(Op::Data(inode, change));
    }
}

/// The one way in which a path is written here: from the root, without detours.
pub(super) fn key(path: &Path) -> io::Result<PathBuf> {
    let mut key = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(name) => key.push(name),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    format!("{} goes upwards", path.display()),
                ));
            }
        }
    }
    Ok(key)
}

fn is_root(key: &Path) -> bool {
    key.parent().is_none()
}
