//! The one writer of a log.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::{FrameRefused, LogError};
use super::frame::{Before, FLAG_DURABLE_BEFORE, FrameHeader, HEADER_LEN, Place, slices};
use super::layout::{Digest, Entry, EntryKind, entry_due};
use super::limits::{FRAME_PAYLOAD_BYTES_MAX, GROUP_BYTES_MAX, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN};
use super::read::LogReader;
use super::recover::recover;
use super::scan::Mark;
use super::segment::{FIRST_FRAME_AT, FileKind, SegmentName};
use super::site::Site;
use super::table::{Digests, Shared};
use super::types::{Damage, LogOptions, NewFrame, OwnerState, Recovery, SegmentInfo, SegmentPhase};
use super::watermark::Watermarks;
use crate::vfs::Vfs;

/// A segmented log, open for writing. Whoever holds it must be the only one: the directory is locked by its owner.
pub struct Log {
    pub(super) shared: Arc<Shared>,
    pub(super) watermarks: Watermarks,
    pub(super) end: Mark,
    pub(super) synced: Mark,
    pub(super) last_time_ms: u64,
    pub(super) state: Option<OwnerState>,
    /// As the state was when the active segment began.
    pub(super) state_before_segment: Option<OwnerState>,
    /// A state that was not taken has so many bytes.
    pub(super) state_refused: Option<usize>,
    poisoned: Option<String>,
    cut: Cut,
    pub(super) roll: Roll,
    show: Show,
    /// Trimmed segments whose files could not be removed yet.
    pub(super) leftover: Vec<SegmentName>,
}

/// Whether the active segment was cut back and the disk has not been told to keep it so. Until it has, what was cut could
/// come back behind newer frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    Durable,
    Pending,
}

/// Whether the active segment has been said to be complete. Then nothing is added to it any more, even when the next one
/// could not be made: the files may already say where it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Roll {
    NotBegun,
    Begun,
}

/// What readers see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Show {
    Synced,
    Written,
}

impl Log {
    /// Opens the log in this directory, or makes one. What a power loss left half done is made good first, and is
    /// durable when this returns; what is damaged is reported.
    ///
    /// # Errors
    /// When the disk does not do it, or the files are another log's or another version's.
    pub fn open(
        vfs: Arc<dyn Vfs>,
        dir: &Path,
        mut options: LogOptions,
    ) -> Result<(Self, Recovery), LogError> {
        options.segment_bytes = options.segment_bytes.clamp(SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX);
        let recovered = recover(&Site { vfs: &*vfs, dir, options: &options })?;
        let recovery =
            Recovery { damage: recovered.damage.all(), cut: recovered.cut, state: recovered.state.clone() };
        let end = recovered.table.active.end;
        let first_record = recovered.table.active.name.first_record;
        let shared = Shared::new(vfs, dir, options, recovered.damage, recovered.table);
        let log = Self {
            shared: Arc::new(shared),
            watermarks: recovered.watermarks,
            end,
            synced: end,
            last_time_ms: recovered.last_time_ms,
            state_before_segment: recovered.state.clone().filter(|state| state.record <= first_record),
            state: recovered.state,
            state_refused: None,
            poisoned: None,
            cut: Cut::Durable,
            roll: Roll::NotBegun,
            show: Show::Synced,
            leftover: Vec::new(),
        };
        Ok((log, recovery))
    }

    /// Appends frames with one write, and gives their offsets. They are not durable yet. A full segment is completed
    /// first, which makes everything in front durable.
    ///
    /// # Errors
    /// When a frame cannot be written or the disk does not do it. An error that says so leaves the log as it was.
    pub fn append(&mut self, frames: &[NewFrame<'_>]) -> Result<Range<u64>, LogError> {
        self.check_usable()?;
        let bytes = self.judge(frames)?;
        if frames.is_empty() {
            return Ok(self.end.offset..self.end.offset);
        }
        let full = self.end.position.saturating_add(bytes) > self.shared.options.segment_bytes;
        if self.roll == Roll::Begun || (full && self.end.position > FIRST_FRAME_AT) {
            self.roll()?;
        }
        if self.cut == Cut::Pending {
            self.sync()?;
        }
        let (places, marks) = self.place(frames);
        let (file, salt) = {
            let table = self.shared.table();
            (Arc::clone(&table.active_file), table.active.salt)
        };
        let heads: Vec<[u8; HEADER_LEN]> = frames
            .iter()
            .zip(&places)
            .map(|(frame, place)| FrameHeader::encode(frame, *place, salt))
            .collect();
        let written = file.write_at(self.end.position, &slices(&heads, frames));
        if let Err(source) = written {
            let error = LogError::usable("write to", &self.active_path(), source);
            return match file.truncate(self.end.position) {
                Ok(()) => {
                    self.cut = Cut::Pending;
                    Err(error)
                }
                Err(source) => self.poison(LogError::fatal("cut back", &self.active_path(), source)),
            };
        }
        let digests = self.digests(frames, &heads);
        Ok(self.took(&marks, &heads, digests))
    }

    /// Returns once everything that was appended is durable, and lets readers see it.
    ///
    /// # Errors
    /// When the disk does not do it. The log is poisoned then: what the disk has is unknown.
    pub fn sync(&mut self) -> Result<(), LogError> {
        self.check_usable()?;
        if self.synced == self.end && self.cut == Cut::Durable {
            return Ok(());
        }
        let file = Arc::clone(&self.shared.table().active_file);
        if let Err(source) = file.sync_data() {
            return self.poison(LogError::fatal("sync", &self.active_path(), source));
        }
        self.cut = Cut::Durable;
        self.synced = self.end;
        self.shared.table_mut().visible = self.end;
        Ok(())
    }

    /// Cuts back to the durable end, for good.
    ///
    /// # Errors
    /// When the disk does not do it. The log is poisoned then.
    pub fn discard_unsynced(&mut self) -> Result<(), LogError> {
        self.check_usable()?;
        if self.synced == self.end && self.cut == Cut::Durable {
            return Ok(());
        }
        let file = {
            let mut table = self.shared.table_mut();
            table.active.cut(self.synced);
            table.visible = self.synced;
            table.cuts = table.cuts.wrapping_add(1);
            Arc::clone(&table.active_file)
        };
        self.end = self.synced;
        let cut = file.truncate(self.end.position).and_then(|()| file.sync_data());
        match cut {
            Ok(()) => {
                self.cut = Cut::Durable;
                Ok(())
            }
            Err(source) => self.poison(LogError::fatal("cut back", &self.active_path(), source)),
        }
    }

    /// Lets readers see frames as soon as they are written: for streams that promise no more than that.
    pub fn show_unsynced(&mut self) {
        self.show = Show::Written;
        self.shared.table_mut().visible = self.end;
    }

    /// Something to read the log with.
    #[must_use]
    pub fn reader(&self) -> LogReader {
        LogReader::new(Arc::clone(&self.shared))
    }

    /// The offset after the last.
    #[must_use]
    pub fn end_offset(&self) -> u64 {
        self.end.offset
    }

    /// The record after the last.
    #[must_use]
    pub fn end_record(&self) -> u64 {
        self.end.record
    }

    /// The offset after the last durable one.
    #[must_use]
    pub fn synced_offset(&self) -> u64 {
        self.synced.offset
    }

    /// The record after the last durable one.
    #[must_use]
    pub fn synced_record(&self) -> u64 {
        self.synced.record
    }

    /// The first offset that is not trimmed.
    #[must_use]
    pub fn first_offset(&self) -> u64 {
        self.shared.table().first_offset
    }

    /// When the last frame was appended.
    #[must_use]
    pub fn last_time_ms(&self) -> u64 {
        self.last_time_ms
    }

    /// Bytes of all segments.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.shared.table().bytes()
    }

    /// The record with which the active segment begins: those in front are in complete ones, or trimmed.
    #[must_use]
    pub fn sealed_record(&self) -> u64 {
        self.shared.table().active.name.first_record
    }

    /// The segments, in order.
    #[must_use]
    pub fn segments(&self) -> Vec<SegmentInfo> {
        let table = self.shared.table();
        let sealed = table.sealed.iter().map(|segment| segment.info(SegmentPhase::Sealed));
        sealed.chain([table.active.info(SegmentPhase::Active)]).collect()
    }

    /// All damage that is known.
    #[must_use]
    pub fn damage(&self) -> Vec<Damage> {
        self.shared.damage.all()
    }

    /// Damage that was found since the last call, by opening or by any reader.
    #[must_use]
    pub fn take_new_damage(&self) -> Vec<Damage> {
        self.shared.damage.take_new()
    }

    /// The failure that stopped the log.
    #[must_use]
    pub fn poisoned(&self) -> Option<&str> {
        self.poisoned.as_deref()
    }

    /// What the frames need, in bytes, if they can be written.
    fn judge(&self, frames: &[NewFrame<'_>]) -> Result<u64, LogError> {
        let (mut bytes, mut end) = (0_u64, self.end.offset);
        for frame in frames {
            let payload = frame.payload_bytes();
            if payload > FRAME_PAYLOAD_BYTES_MAX {
                return Err(LogError::Frame(FrameRefused::TooLong { bytes: payload }));
            }
            if frame.flags & FLAG_DURABLE_BEFORE != 0 {
                return Err(LogError::Frame(FrameRefused::ReservedFlag));
            }
            // The last number is no offset: it stands for none.
            end = end
                .checked_add(u64::from(frame.count))
                .filter(|end| *end < u64::MAX)
                .ok_or(LogError::Frame(FrameRefused::OffsetsExhausted))?;
            bytes = bytes.saturating_add((payload as u64).saturating_add(HEADER_LEN as u64));
        }
        if bytes > GROUP_BYTES_MAX {
            return Err(LogError::Frame(FrameRefused::GroupTooLong { bytes }));
        }
        Ok(bytes)
    }

    /// Where and when each frame goes, and the mark of each.
    fn place(&self, frames: &[NewFrame<'_>]) -> (Vec<Place>, Vec<Mark>) {
        let mut before =
            if self.synced.record == self.end.record { Before::Durable } else { Before::BelowSynced };
        let (mut mark, mut time_ms) = (self.end, self.last_time_ms);
        let mut placed = (Vec::with_capacity(frames.len()), Vec::with_capacity(frames.len()));
        for frame in frames {
            time_ms = time_ms.max(frame.time_ms);
            placed.0.push(Place { offset: mark.offset, synced: self.synced.offset, before, time_ms });
            placed.1.push(mark);
            before = Before::BelowSynced;
            let len = frame.payload_bytes().saturating_add(HEADER_LEN) as u64;
            mark = Mark {
                offset: mark.offset.saturating_add(u64::from(frame.count)),
                record: mark.record.saturating_add(1),
                position: mark.position.saturating_add(len),
            };
        }
        placed
    }

    fn digests(&self, frames: &[NewFrame<'_>], heads: &[[u8; HEADER_LEN]]) -> Vec<Digest> {
        let Some(digest) = self.shared.options.digest else { return Vec::new() };
        let digest_of = |(number, (frame, head)): (usize, (&NewFrame<'_>, &[u8; HEADER_LEN]))| {
            let (header, _) = FrameHeader::parse(head).expect("a header that was just encoded parses");
            let joined;
            let payload = match frame.payload {
                [] => &[],
                [one] => *one,
                parts => {
                    joined = parts.concat();
                    &joined
                }
            };
            let record = self.end.record.saturating_add(number as u64);
            digest(&header.view(record, payload), &self.shared.options)
        };
        frames.iter().zip(heads).enumerate().map(digest_of).collect()
    }

    /// Takes what was written into account.
    fn took(&mut self, marks: &[Mark], heads: &[[u8; HEADER_LEN]], digests: Vec<Digest>) -> Range<u64> {
        let from = self.end.offset;
        let mut table = self.shared.table_mut();
        for (mark, head) in marks.iter().zip(heads) {
            let (header, _) = FrameHeader::parse(head).expect("a header that was just encoded parses");
            if table.active.end.position == FIRST_FRAME_AT {
                table.active.first_time_ms = header.time_ms;
            }
            if entry_due(&table.active.entries, mark.position) {
                let entry = Entry { kind: EntryKind::Frames, mark: *mark, time_ms: header.time_ms };
                table.active.entries.push(entry);
            }
            self.last_time_ms = header.time_ms;
            self.end = Mark {
                offset: header.end(),
                record: mark.record.saturating_add(1),
                position: mark.position.saturating_add(header.frame_len() as u64),
            };
            table.active.end = self.end;
            table.active.last_time_ms = header.time_ms;
        }
        if let Digests::Memory(kept) = &mut table.active.digests {
            kept.extend(digests);
        }
        match self.show {
            Show::Written => table.visible = self.end,
            Show::Synced => {}
        }
        from..self.end.offset
    }

    pub(super) fn check_usable(&self) -> Result<(), LogError> {
        match &self.poisoned {
            Some(reason) => Err(LogError::Poisoned { reason: reason.clone() }),
            None => Ok(()),
        }
    }

    /// Passes a result on, and remembers an error after which the log cannot be used.
    pub(super) fn judged<T>(&mut self, result: Result<T, LogError>) -> Result<T, LogError> {
        match result {
            Err(error) if !error.is_usable() => self.poison(error),
            passed => passed,
        }
    }

    fn poison<T>(&mut self, error: LogError) -> Result<T, LogError> {
        self.poisoned = Some(error.to_string());
        Err(error)
    }

    fn active_path(&self) -> PathBuf {
        self.shared.table().active.name.path(&self.shared.dir, FileKind::Log)
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log")
            .field("dir", &self.shared.dir)
            .field("end", &self.end)
            .field("synced", &self.synced)
            .field("poisoned", &self.poisoned)
            .finish_non_exhaustive()
    }
}
