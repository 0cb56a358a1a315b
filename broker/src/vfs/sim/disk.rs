//! What is on a simulated disk for good, and what may still be lost.
//!
//! ```text
//! create, rename, remove ──> name changes ──sync_dir──> names         (of one directory)
//! write, truncate ─────────> data changes ──sync_data─> contents      (of one file)
//! ```
//!
//! A change that was not synced may be there after a power loss, or not, whatever became of those before it. A change
//! whose sync has failed may be there as well, but no later sync brings it there: the system has forgotten that it was
//! never written.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::content::Content;

/// The number of a file, whatever its names are.
pub(super) type Inode = u64;

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Node {
    Directory,
    File(Inode),
}

/// All names, by whole path: those above come before those below.
pub(super) type Names = BTreeMap<PathBuf, Node>;

/// One write-class operation, as it was done.
#[derive(Clone)]
pub(super) enum Op {
    Name(NameChange),
    Data(Inode, DataChange),
    SyncData(Inode),
    SyncDir(PathBuf),
    /// It failed: what it should have kept is kept or lost, and no later sync changes that.
    SyncDataFailed(Inode),
    SyncDirFailed(PathBuf),
    /// The disk said yes and did nothing.
    SyncIgnored,
    /// What a failed sync left in memory was dropped.
    Forgotten(Inode),
    /// Somebody changed the disk behind our back, for good: the file has this content, or is gone.
    Tampered(PathBuf, Option<(Inode, Content)>),
}

/// A change of the names in one directory.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum NameChange {
    Create(PathBuf, Node),
    Rename { from: PathBuf, to: PathBuf, inode: Inode },
    Remove(PathBuf),
}

/// A change of the bytes of one file.
#[derive(Clone)]
pub(super) enum DataChange {
    Write { offset: u64, bytes: Arc<[u8]> },
    Truncate(u64),
}

/// A change that is not on the disk for good.
#[derive(Clone)]
pub(super) struct Pending<T> {
    /// Which operation it was, from 1.
    pub(super) operation: usize,
    pub(super) change: T,
    sync: Sync,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Sync {
    ToCome,
    Failed,
}

/// A data change and whose it is.
pub(super) type FileChange = (Inode, DataChange);

/// A disk in the middle of its life.
#[derive(Clone, Default)]
pub(super) struct Disk {
    pub(super) names: Arc<Names>,
    pub(super) contents: BTreeMap<Inode, Content>,
    pub(super) name_changes: Vec<Pending<NameChange>>,
    pub(super) data_changes: Vec<Pending<FileChange>>,
}

impl Disk {
    pub(super) fn new(names: Arc<Names>, contents: BTreeMap<Inode, Content>) -> Self {
        Self { names, contents, ..Self::default() }
    }

    /// Does one operation, the `operation`th from 1.
    pub(super) fn apply(&mut self, operation: usize, op: &Op) {
        match op {
            Op::Name(change) => {
                if let NameChange::Create(_, Node::File(inode)) = change {
                    self.contents.insert(*inode, Content::default());
                }
                let change = change.clone();
                self.name_changes.push(Pending { operation, change, sync: Sync::ToCome });
            }
            Op::Data(inode, change) => {
                let change = (*inode, change.clone());
                self.data_changes.push(Pending { operation, change, sync: Sync::ToCome });
            }
            Op::SyncData(inode) => self.sync_data(*inode),
            Op::SyncDir(directory) => self.sync_dir(directory),
            Op::SyncDataFailed(inode) => {
                let of_file = self.data_changes.iter_mut().filter(|pending| pending.change.0 == *inode);
                of_file.for_each(|pending| pending.sync = Sync::Failed);
            }
            Op::SyncDirFailed(directory) => {
                let within =
                    self.name_changes.iter_mut().filter(|pending| pending.change.directory() == directory);
                within.for_each(|pending| pending.sync = Sync::Failed);
            }
            Op::SyncIgnored => {}
            Op::Forgotten(inode) => {
                self.data_changes.retain(|pending| pending.change.0 != *inode || pending.sync == Sync::ToCome)
            }
            Op::Tampered(path, file) => self.tamper(path, file.as_ref()),
        }
    }

    /// Whether a failed sync of this file left something in memory that no sync will keep.
    pub(super) fn has_lost(&self, inode: Inode) -> bool {
        self.data_changes.iter().any(|pending| pending.change.0 == inode && pending.sync == Sync::Failed)
    }

    /// The content of a file as it is read when the system holds in memory only what a sync can still keep.
    pub(super) fn content_without_lost(&self, inode: Inode) -> Option<Content> {
        let mut content = self.contents.get(&inode)?.clone();
        for pending in &self.data_changes {
            if pending.change.0 == inode && pending.sync == Sync::ToCome {
                pending.change.1.apply(&mut content);
            }
        }
        Some(content)
    }

    /// The content of a file as it is seen when nothing was lost.
    pub(super) fn content_with_all(&self, inode: Inode) -> Content {
        let mut content = self.contents.get(&inode).cloned().unwrap_or_default();
        let of_file = self.data_changes.iter().filter(|pending| pending.change.0 == inode);
        of_file.for_each(|pending| pending.change.1.apply(&mut content));
        content
    }

    /// Forgets the files that no name leads to any more, nor can again.
    pub(super) fn forget_nameless(&mut self) {
        let named: Vec<Inode> = self.nameable();
        self.contents.retain(|inode, _| named.binary_search(inode).is_ok());
        self.data_changes.retain(|pending| named.binary_search(&pending.change.0).is_ok());
    }

    /// Files that have a name in one of the states in which this disk may be found, sorted.
    fn nameable(&self) -> Vec<Inode> {
        let settled = self.names.values().filter_map(|node| match node {
            Node::File(inode) => Some(*inode),
            Node::Directory => None,
        });
        let pending = self.name_changes.iter().filter_map(|pending| match &pending.change {
            NameChange::Create(_, Node::File(inode)) | NameChange::Rename { inode, .. } => Some(*inode),
            NameChange::Create(_, Node::Directory) | NameChange::Remove(_) => None,
        });
        let mut inodes: Vec<Inode> = settled.chain(pending).collect();
        inodes.sort_unstable();
        inodes
    }

    fn sync_data(&mut self, inode: Inode) {
        let (synced, rest) =
            std::mem::take(&mut self.data_changes).into_iter().partition(|pending| pending.change.0 == inode);
        self.data_changes = rest;
        let synced: Vec<Pending<FileChange>> = synced;
        let Some(content) = self.contents.get_mut(&inode) else {
            return;
        };
        for pending in synced.into_iter().filter(|pending| pending.sync == Sync::ToCome) {
            pending.change.1.apply(content);
        }
    }

    fn sync_dir(&mut self, directory: &Path) {
        let (synced, rest) = std::mem::take(&mut self.name_changes)
            .into_iter()
            .partition(|pending| pending.change.directory() == directory);
        self.name_changes = rest;
        let synced: Vec<Pending<NameChange>> = synced;
        let names = Arc::make_mut(&mut self.names);
        for pending in synced.into_iter().filter(|pending| pending.sync == Sync::ToCome) {
            pending.change.apply(names);
        }
    }

    fn tamper(&mut self, path: &Path, file: Option<&(Inode, Content)>) {
        self.name_changes.retain(|pending| !pending.change.touches(path));
        let names = Arc::make_mut(&mut self.names);
        match file {
            Some((inode, content)) => {
                names.insert(path.to_owned(), Node::File(*inode));
                self.contents.insert(*inode, content.clone());
                self.data_changes.retain(|pending| pending.change.0 != *inode);
            }
            None => {
                names.remove(path);
            }
        }
    }
}

impl NameChange {
    pub(super) fn apply(&self, names: &mut Names) {
        match self {
            Self::Create(path, node) => {
                names.insert(path.clone(), *node);
            }
            Self::Rename { from, to, inode } => {
                names.remove(from);
                names.insert(to.clone(), Node::File(*inode));
            }
            Self::Remove(path) => {
                names.remove(path);
            }
        }
    }

    fn directory(&self) -> &Path {
        let (Self::Create(path, _) | Self::Rename { to: path, .. } | Self::Remove(path)) = self;
        path.parent().unwrap_or(path)
    }

    fn touches(&self, path: &Path) -> bool {
        match self {
            Self::Create(name, _) | Self::Remove(name) => name == path,
            Self::Rename { from, to, .. } => from == path || to == path,
        }
    }
}

impl DataChange {
    pub(super) fn apply(&self, content: &mut Content) {
        match self {
            Self::Write { offset, bytes } => content.write(*offset, bytes),
            Self::Truncate(len) => content.truncate(*len),
        }
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(NameChange::Create(path, Node::Directory)) => {
                write!(f, "create the directory {}", path.display())
            }
            Self::Name(NameChange::Create(path, Node::File(inode))) => {
                write!(f, "create {} as file {inode}", path.display())
            }
            Self::Name(NameChange::Rename { from, to, inode }) => {
                write!(f, "rename {} (file {inode}) to {}", from.display(), to.display())
            }
            Self::Name(NameChange::Remove(path)) => write!(f, "remove {}", path.display()),
            Self::Data(inode, DataChange::Write { offset, bytes }) => {
                write!(f, "write {} bytes at {offset} of file {inode}", bytes.len())
            }
            Self::Data(inode, DataChange::Truncate(len)) => write!(f, "cut file {inode} to {len} bytes"),
            Self::SyncData(inode) => write!(f, "sync file {inode}"),
            Self::SyncDir(path) => write!(f, "sync the directory {}", path.display()),
            Self::SyncDataFailed(inode) => write!(f, "fail to sync file {inode}"),
            Self::SyncDirFailed(path) => write!(f, "fail to sync the directory {}", path.display()),
            Self::SyncIgnored => f.write_str("ignore a sync"),
            Self::Forgotten(inode) => write!(f, "drop from memory what of file {inode} could not be synced"),
            Self::Tampered(path, Some(_)) => write!(f, "tamper with {}", path.display()),
            Self::Tampered(path, None) => write!(f, "take {} away", path.display()),
        }
    }
}
