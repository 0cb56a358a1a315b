//! What a writer does besides writing frames: completing segments, saying how far the log is durable, trimming it.

use std::io;
use std::mem;
use std::sync::Arc;

use super::error::{FrameRefused, LogError};
use super::limits::STATE_BYTES_MAX;
use super::segment::{FIRST_FRAME_AT, FileKind, SegmentName};
use super::site::Site;
use super::table::{Digests, Segment};
use super::types::{OwnerState, TrimReport};
use super::watermark::Watermark;
use super::writer::{Log, Roll};
use crate::vfs::DataFile;

impl Log {
    /// Gives what is to be kept with the next watermarks. It must describe everything below the durable end as it is
    /// now. One that is too long is not taken, which the next watermark says.
    pub fn set_state(&mut self, state: Vec<u8>) {
        if state.len() > STATE_BYTES_MAX {
            self.state_refused = Some(state.len());
            return;
        }
        self.state_refused = None;
        self.state =
            Some(OwnerState { bytes: state, offset: self.synced.offset, record: self.synced.record });
    }

    /// Makes known on the disk how far the log is durable: at least once a second while it grows, and at the end.
    ///
    /// # Errors
    /// When the disk does not do it, or the state was too long.
    pub fn write_watermark(&mut self) -> Result<(), LogError> {
        self.check_usable()?;
        if let Some(bytes) = self.state_refused {
            return Err(LogError::Frame(FrameRefused::StateTooLong { bytes }));
        }
        let watermark = self.shared.table().watermark(self.synced, self.last_time_ms, self.state.clone());
        self.write(&watermark)
    }

    /// Removes the sealed segments that end at or below this offset, from the front. Their index files stay.
    ///
    /// # Errors
    /// When the disk does not do it.
    pub fn trim(&mut self, before_offset: u64) -> Result<TrimReport, LogError> {
        self.check_usable()?;
        let (gone, watermark) = {
            let table = self.shared.table();
            let gone = table.sealed.iter().take_while(|segment| segment.end.offset <= before_offset);
            let gone: Vec<Arc<Segment>> = gone.map(Arc::clone).collect();
            let first = table.sealed.get(gone.len()).map_or(table.active.name, |segment| segment.name);
            let mut watermark = table.watermark(self.synced, self.last_time_ms, self.state.clone());
            if !gone.is_empty() {
                watermark.first_offset = first.base_offset;
                watermark.first_record = first.first_record;
            }
            (gone, watermark)
        };
        let mut report = TrimReport { segments: 0, bytes: 0, first_offset: watermark.first_offset };
        if !gone.is_empty() {
            self.write(&watermark)?;
            let mut table = self.shared.table_mut();
            table.sealed.drain(..gone.len());
            table.first_offset = watermark.first_offset;
            table.first_record = watermark.first_record;
            for segment in &gone {
                report.segments = report.segments.saturating_add(1);
                report.bytes = report.bytes.saturating_add(segment.end.position);
                table.index_only.push(segment.name);
                self.leftover.push(segment.name);
            }
            drop(table);
            // In both: with the older one alone, what is trimmed would look lost.
            self.write(&watermark)?;
        }
        self.remove_leftover()?;
        Ok(report)
    }

    /// Completes the active segment now, unless nothing is in it: so that an old or superseded part can be trimmed although
    /// it never filled a segment.
    ///
    /// # Errors
    /// As [`Log::append`].
    pub fn complete_segment(&mut self) -> Result<(), LogError> {
        self.check_usable()?;
        if self.end.position > FIRST_FRAME_AT { self.roll() } else { Ok(()) }
    }

    /// Completes the active segment and begins the next. Each step is durable before the one that relies on it: the
    /// frames before the index file, that before the next segment's name, that before the watermark, and all of it before
    /// the first frame goes there. So a later segment proves that the earlier ones are complete.
    pub(super) fn roll(&mut self) -> Result<(), LogError> {
        self.sync()?;
        self.roll = Roll::Begun;
        let begun = self.begin_segment();
        let (segment, file) = self.judged(begun)?;
        let end = segment.end;
        let state_before = self.state.clone();
        let watermark = {
            let table = self.shared.table();
            Watermark {
                segment: segment.name,
                bytes: end.position,
                salt: segment.salt,
                ..table.watermark(end, self.last_time_ms, state_before.clone())
            }
        };
        self.write(&watermark)?;
        let mut table = self.shared.table_mut();
        let mut complete = mem::replace(&mut table.active, segment);
        if let Digests::Memory(_) = complete.digests {
            complete.digests = Digests::File;
        }
        if complete.end.position == FIRST_FRAME_AT {
            complete.last_time_ms = self.last_time_ms;
        }
        table.sealed.push(Arc::new(complete));
        table.active_file = file;
        table.visible = end;
        drop(table);
        self.end = end;
        self.synced = end;
        self.state_before_segment = state_before;
        self.roll = Roll::NotBegun;
        Ok(())
    }

    fn begin_segment(&self) -> Result<(Segment, Arc<dyn DataFile>), LogError> {
        let shared = &self.shared;
        let site = Site { vfs: &*shared.vfs, dir: &shared.dir, options: &shared.options };
        site.seal(&shared.table().active, self.state_before_segment.clone())?;
        site.create_segment(SegmentName::at(self.end), self.end.position)
    }

    fn write(&mut self, watermark: &Watermark) -> Result<(), LogError> {
        let written = self.watermarks.write(&*self.shared.vfs, watermark);
        self.judged(written)
    }

    /// Removes the files of trimmed segments. What cannot be removed is tried again next time.
    fn remove_leftover(&mut self) -> Result<(), LogError> {
        if self.leftover.is_empty() {
            return Ok(());
        }
        let shared = Arc::clone(&self.shared);
        shared.close(&self.leftover);
        self.leftover.retain(|name| {
            let removed = shared.vfs.remove(&name.path(&shared.dir, FileKind::Log));
            removed.is_err_and(|error| error.kind() != io::ErrorKind::NotFound)
        });
        let site = Site { vfs: &*shared.vfs, dir: &shared.dir, options: &shared.options };
        let synced = site.sync_dir();
        self.judged(synced)
    }
}
