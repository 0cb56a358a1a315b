//! A file that is replaced whole: after a power loss at any moment there is the old content or the new, nothing else.

use std::ffi::OsString;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};

use super::traits::Vfs;

/// Puts `bytes` in the place of whatever `path` holds, for good: a file beside it is written and synced, takes the name,
/// and the directory is synced.
///
/// # Errors
/// What the system says. The old content is then still there, unless only the last sync failed: then it may be either.
pub fn replace(vfs: &dyn Vfs, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let beside = beside(path)?;
    let replaced = write_beside(vfs, &beside, bytes).and_then(|()| vfs.rename(&beside, path));
    if let Err(error) = replaced {
        // What is left of it would be replaced by the next attempt; on a full disk its bytes are wanted now. Why it
        // failed matters more than whether this succeeds.
        let _ = vfs.remove(&beside);
        return Err(error);
    }
    vfs.sync_dir(directory_of(path))
}

/// The directory in which this path is a name.
pub(super) fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    }
}

/// Two directories cannot be synced at one moment, so that a file between them could be in both or in neither.
pub(super) fn check_one_directory(from: &Path, to: &Path) -> io::Result<()> {
    if directory_of(from) == directory_of(to) {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::InvalidInput,
        format!("{} and {} are not in one directory", from.display(), to.display()),
    ))
}

fn write_beside(vfs: &dyn Vfs, beside: &Path, bytes: &[u8]) -> io::Result<()> {
    let file = match vfs.create(beside) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            // An attempt before this one ended half-way.
            vfs.remove(beside)?;
            vfs.create(beside)?
        }
        created => created?,
    };
    file.write_at(0, &[IoSlice::new(bytes)])?;
    file.sync_data()
}

fn beside(path: &Path) -> io::Result<PathBuf> {
    let Some(name) = path.file_name() else {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{} is not the name of a file", path.display()),
        ));
    };
    let mut beside = OsString::from(name);
    beside.push(".tmp");
    Ok(path.with_file_name(beside))
}
