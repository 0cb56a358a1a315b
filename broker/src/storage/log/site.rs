//! Makes and completes the files of segments.

use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;

use super::error::LogError;
use super::frame::Salt;
use super::layout::Digest;
use super::segment::{FIRST_FRAME_AT, FileKind, Owner, SegmentHeader, SegmentName};
use super::table::{Digests, Segment};
use super::types::{LogOptions, OwnerState};
use crate::vfs::{DataFile, Vfs, replace};

/// Names that damaged files may take one after the other. Each takes a start of the broker on a damaged disk.
const ASIDE_MAX: usize = 1_000;

/// Where a log is.
#[derive(Clone, Copy)]
pub(super) struct Site<'a> {
    pub(super) vfs: &'a dyn Vfs,
    pub(super) dir: &'a Path,
    pub(super) options: &'a LogOptions,
}

/// Makes what is read of a file from now on what is on the disk, and that durable. Memory may hold more than the disk took:
/// what an earlier life of this process could not sync is dropped first, what it only did not sync is synced.
pub(super) fn settle(file: &dyn DataFile) -> io::Result<()> {
    file.forget_cached();
    file.sync_data()?;
    file.forget_cached();
    Ok(())
}

impl Site<'_> {
    /// Makes a segment whose header and name are durable when this returns. After an error that leaves the log usable,
    /// the name may be there without a whole header; making it again takes it over.
    pub(super) fn create_segment(
        &self,
        name: SegmentName,
        previous_len: u64,
    ) -> Result<(Segment, Arc<dyn DataFile>), LogError> {
        let path = name.path(self.dir, FileKind::Log);
        let usable = |doing, source| LogError::usable(doing, &path, source);
        let fatal = |doing, source| LogError::fatal(doing, &path, source);
        let file = match self.vfs.create(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => self.take_over(name, &path)?,
            created => created.map_err(|source| usable("create the segment", source))?,
        };
        let salt = Salt((self.options.salt)());
        let header = SegmentHeader { owner: Owner::of(self.options), name, salt, previous_len };
        file.write_at(0, &[IoSlice::new(&header.encode())])
            .map_err(|source| usable("write the header of the segment", source))?;
        file.sync_data().map_err(|source| fatal("sync the segment", source))?;
        self.sync_dir()?;
        Ok((Segment::empty(name, salt, self.options), file))
    }

    /// A file that has the name of a new segment. When it has no room for a frame, it is one that we began to make;
    /// otherwise it is not ours to overwrite.
    fn take_over(&self, name: SegmentName, path: &Path) -> Result<Arc<dyn DataFile>, LogError> {
        let usable = |doing, source| LogError::usable(doing, path, source);
        let file = self.vfs.open(path).map_err(|source| usable("open the segment", source))?;
        if file.len().map_err(|source| usable("measure the segment", source))? <= FIRST_FRAME_AT {
            return Ok(file);
        }
        self.set_aside(name)?;
        self.vfs.create(path).map_err(|source| usable("create the segment", source))
    }

    /// Gives a damaged file a name under which it is kept and never looked at.
    pub(super) fn set_aside(&self, name: SegmentName) -> Result<(), LogError> {
        let path = name.path(self.dir, FileKind::Log);
        let usable = |source| LogError::usable("set aside the damaged file", &path, source);
        let taken = self.vfs.list(self.dir).map_err(usable)?;
        let aside = (1..=ASIDE_MAX)
            .map(|number| path.with_extension(format!("log.damaged{number}")))
            .find(|path| !taken.iter().any(|name| path.ends_with(name)))
            .ok_or_else(|| usable(io::Error::other("too many damaged files were set aside before")))?;
        self.vfs.rename(&path, &aside).map_err(usable)?;
        self.sync_dir()
    }

    /// Writes the index file of a complete segment.
    pub(super) fn seal(&self, segment: &Segment, state: Option<OwnerState>) -> Result<(), LogError> {
        let none: &[Digest] = &[];
        let digests = match &segment.digests {
            Digests::Memory(digests) => digests,
            Digests::None | Digests::File => none,
        };
        let path = segment.name.path(self.dir, FileKind::Index);
        let bytes = segment.index(state).encode(Owner::of(self.options), digests);
        replace(self.vfs, &path, &bytes).map_err(|source| {
            // Without room nothing was replaced. After anything else it is unknown what a sync has left.
            match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                    LogError::usable("write the index", &path, source)
                }
                _ => LogError::fatal("write the index", &path, source),
            }
        })
    }

    pub(super) fn sync_dir(&self) -> Result<(), LogError> {
        self.vfs.sync_dir(self.dir).map_err(|source| LogError::fatal("sync the directory", self.dir, source))
    }
}
