//! Opening the index on the disk, whatever is found there.
//!
//! An index that cannot be opened, or that holds anything which was not written so, is renamed and an empty one made:
//! the broker starts, and somebody can look at what was left. Of those at most three are kept.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, unlinkat};
use sealbus_protocol::ids::BusId;

use super::error::IndexError;
use super::on_sled::{SledIndex, SledRows};
use super::row_index::{Held, RowIndex};
use crate::vfs::Vfs;

/// Damaged indexes that are kept to be looked at.
const DAMAGED_KEPT: usize = 3;

/// What was found when the index was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Opened {
    /// There was none.
    Fresh,
    /// Every row of it is as it was written. What it is worth for a log, [`super::Watermark::judge`] says.
    Kept,
    /// It was no index of ours, or damaged. An empty one is in its place.
    MovedAside {
        /// What was wrong with it.
        reason: String,
        /// Where it is now.
        to: PathBuf,
    },
}

impl fmt::Display for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fresh => f.write_str("a new index was made"),
            Self::Kept => f.write_str("the index is as it was written"),
            Self::MovedAside { reason, to } => write!(f, "{reason}; it was moved to {}", to.display()),
        }
    }
}

/// Opens the index in `dir`, or makes one. `dir` and its parent are on the disk of this machine: sled knows no other.
///
/// # Errors
/// [`IndexError`] when not even an empty one can be made: the disk is full or not ours to write. A broker then goes on
/// with one in memory.
pub fn open_or_rebuild(vfs: &dyn Vfs, dir: &Path, bus_id: &BusId) -> Result<(SledIndex, Opened), IndexError> {
    let there = vfs.list(dir).is_ok_and(|names| !names.is_empty());
    match open(vfs, dir, bus_id) {
        Ok((index, Held::Rows)) => return Ok((index, Opened::Kept)),
        Ok((index, Held::Nothing)) if !there => return Ok((index, Opened::Fresh)),
        // Something was there, and nothing is left of it: an engine that begins anew on what it cannot read.
        Ok((index, Held::Nothing)) => drop(index),
        Err(error) if !there => return Err(error),
        Err(error) => {
            let opened = Opened::MovedAside { reason: error.to_string(), to: move_aside(vfs, dir)? };
            return open(vfs, dir, bus_id).map(|(index, _)| (index, opened));
        }
    }
    let reason = "the index was there and held nothing".to_owned();
    let opened = Opened::MovedAside { reason, to: move_aside(vfs, dir)? };
    open(vfs, dir, bus_id).map(|(index, _)| (index, opened))
}

fn open(vfs: &dyn Vfs, dir: &Path, bus_id: &BusId) -> Result<(SledIndex, Held), IndexError> {
    // sled makes a directory that everybody may enter, and files that everybody may read. Where this fails, sled does.
    let _ = vfs.create_dir_all(dir);
    RowIndex::open(SledRows::open(dir)?, bus_id)
}

/// Renames the directory, and removes the oldest of those that were renamed before.
fn move_aside(vfs: &dyn Vfs, dir: &Path) -> Result<PathBuf, IndexError> {
    let failed = |source| IndexError::Aside { dir: dir.to_owned(), source };
    let (Some(parent), Some(name)) = (dir.parent(), dir.file_name().and_then(|name| name.to_str())) else {
        return Err(failed(io::ErrorKind::InvalidInput.into()));
    };
    let prefix = format!("{name}.damaged-");
    let numbers = |names: Vec<String>| -> Vec<u64> {
        let mut numbers: Vec<u64> =
            names.iter().filter_map(|name| name.strip_prefix(&prefix)?.parse().ok()).collect();
        numbers.sort_unstable();
        numbers
    };
    let older = numbers(vfs.list(parent).map_err(failed)?);
    let number = older.last().map_or(1, |last| last.saturating_add(1));
    let to = parent.join(format!("{prefix}{number}"));
    vfs.rename(dir, &to).map_err(failed)?;
    vfs.sync_dir(parent).map_err(failed)?;
    let surplus = older.len().saturating_add(1).saturating_sub(DAMAGED_KEPT);
    for number in older.into_iter().take(surplus) {
        // One that cannot be removed is in nobody's way: the next time tries again.
        let _ = remove_database(vfs, &parent.join(format!("{prefix}{number}")));
    }
    Ok(to)
}

/// Removes what sled makes: files, and one directory with files.
fn remove_database(vfs: &dyn Vfs, dir: &Path) -> io::Result<()> {
    for name in vfs.list(dir)? {
        let path = dir.join(name);
        if vfs.remove(&path).is_err() {
            for name in vfs.list(&path)? {
                vfs.remove(&path.join(name))?;
            }
            remove_empty_dir(&path)?;
        }
    }
    remove_empty_dir(dir)
}

/// The storage has no use for this but here: nothing else of the broker's makes directories that go again.
fn remove_empty_dir(dir: &Path) -> io::Result<()> {
    unlinkat(CWD, dir, AtFlags::REMOVEDIR).map_err(io::Error::from)
}
