//! How far a log is durable, written twice in turn: what tells a shortened log from a short one.
//!
//! ```text
//! 0             8              16       32           40           48        56             64             72      80
//! | SBWM1\0\0\0 | sequence u64 | log_id | end_offset | end_record | time_ms | segment base | segment first| bytes | salt ...
//! 80     88             96             104            112            120       122          4092  4096
//! ... salt | first_offset | first_record | state offset | state record | len u16 | state ... 0 | crc |
//!
//! crc = CRC-32C over the 4092 bytes in front
//! ```
//!
//! `segment`, `bytes` and `salt` are of the segment in which the durable end lies: the salt is here again so that a damaged
//! header takes no frame with it. The owner's state has its own place because it may be older than the durable end.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sealbus_protocol::ids::StreamId;

use super::error::LogError;
use super::fields::{Fields, Filled, checked};
use super::frame::Salt;
use super::limits::STATE_BYTES_MAX;
use super::segment::SegmentName;
use super::site::settle;
use super::types::OwnerState;
use crate::vfs::{DataFile, Vfs};

/// Bytes of a watermark: one page, which disks write as one if they can.
pub(super) const WATERMARK_LEN: usize = 4_096;

const MAGIC: [u8; 8] = *b"SBWM1\0\0\0";

/// What is known to be durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Watermark {
    pub(super) end_offset: u64,
    pub(super) end_record: u64,
    pub(super) time_ms: u64,
    pub(super) segment: SegmentName,
    /// Bytes of that segment that are durable.
    pub(super) bytes: u64,
    pub(super) salt: Salt,
    /// What is below is trimmed.
    pub(super) first_offset: u64,
    pub(super) first_record: u64,
    pub(super) state: Option<OwnerState>,
}

/// Why bytes are no watermark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WatermarkFault {
    /// They are not what was written.
    Bad,
    /// It is another log's.
    Foreign(StreamId),
}

impl Watermark {
    pub(super) fn encode(&self, sequence: u64, log_id: StreamId) -> [u8; WATERMARK_LEN] {
        let (offset, record, state) = match &self.state {
            Some(state) => (state.offset, state.record, state.bytes.as_slice()),
            None => (u64::MAX, u64::MAX, [].as_slice()),
        };
        let len = u16::try_from(state.len()).expect("the length of a state was checked when it was set");
        Filled::new()
            .put(&MAGIC)
            .put(&sequence.to_be_bytes())
            .put(log_id.as_bytes())
            .put(&self.end_offset.to_be_bytes())
            .put(&self.end_record.to_be_bytes())
            .put(&self.time_ms.to_be_bytes())
            .put(&self.segment.base_offset.to_be_bytes())
            .put(&self.segment.first_record.to_be_bytes())
            .put(&self.bytes.to_be_bytes())
            .put(&self.salt.0.to_be_bytes())
            .put(&self.first_offset.to_be_bytes())
            .put(&self.first_record.to_be_bytes())
            .put(&offset.to_be_bytes())
            .put(&record.to_be_bytes())
            .put(&len.to_be_bytes())
            .put(state)
            .sealed()
    }

    pub(super) fn decode(bytes: &[u8], log_id: StreamId) -> Result<(u64, Self), WatermarkFault> {
        if bytes.len() != WATERMARK_LEN {
            return Err(WatermarkFault::Bad);
        }
        let mut fields = Fields::new(checked(bytes).ok_or(WatermarkFault::Bad)?);
        let mut parse = || {
            if fields.array()? != MAGIC {
                return None;
            }
            let sequence = fields.u64()?;
            let found = StreamId::new(fields.array()?);
            let (end_offset, end_record, time_ms) = (fields.u64()?, fields.u64()?, fields.u64()?);
            let segment = SegmentName { base_offset: fields.u64()?, first_record: fields.u64()? };
            let (bytes, salt) = (fields.u64()?, Salt(fields.u64()?));
            let (first_offset, first_record) = (fields.u64()?, fields.u64()?);
            let (offset, record) = (fields.u64()?, fields.u64()?);
            let len = usize::from(fields.u16()?);
            let state = fields.bytes(len).filter(|_| len <= STATE_BYTES_MAX)?;
            // The place of no state can be no place of one: there is no offset after the last.
            let state = ((offset, record) != (u64::MAX, u64::MAX)).then(|| OwnerState {
                bytes: state.to_vec(),
                offset,
                record,
            });
            let watermark = Self {
                end_offset,
                end_record,
                time_ms,
                segment,
                bytes,
                salt,
                first_offset,
                first_record,
                state,
            };
            Some((sequence, found, watermark))
        };
        match parse().ok_or(WatermarkFault::Bad)? {
            (sequence, found, watermark) if found == log_id => Ok((sequence, watermark)),
            (_, found, _) => Err(WatermarkFault::Foreign(found)),
        }
    }
}

/// The two files.
pub(super) struct Watermarks {
    log_id: StreamId,
    sequence: u64,
    /// The one to be written next is the first of them.
    slots: [Slot; 2],
}

struct Slot {
    path: PathBuf,
    file: Option<Arc<dyn DataFile>>,
    content: Content,
}

/// What a slot holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Content {
    /// A watermark with this sequence.
    Whole(u64),
    /// Nothing that could be used.
    Nothing,
}

impl Watermarks {
    /// Reads both, from the disk itself, and gives the newer one. One that is bad tells nothing: it may have been being
    /// written when the power went.
    pub(super) fn load(
        vfs: &dyn Vfs,
        dir: &Path,
        log_id: StreamId,
    ) -> Result<(Self, Option<Watermark>), LogError> {
        let mut newest: Option<(u64, Watermark)> = None;
        let mut foreign = None;
        let mut slots = Vec::new();
        for name in ["watermark.a", "watermark.b"] {
            let path = dir.join(name);
            let (file, bytes) = read_slot(vfs, &path)
                .map_err(|source| LogError::fatal("read the watermark", &path, source))?
                .unzip();
            let bytes = bytes.unwrap_or_default();
            let content = match Watermark::decode(&bytes, log_id) {
                Ok((sequence, watermark)) => {
                    if newest.as_ref().is_none_or(|(known, _)| *known < sequence) {
                        newest = Some((sequence, watermark));
                    }
                    Content::Whole(sequence)
                }
                Err(WatermarkFault::Bad) => Content::Nothing,
                Err(WatermarkFault::Foreign(found)) => {
                    foreign = Some((path.clone(), found));
                    Content::Nothing
                }
            };
            slots.push(Slot { path, file, content });
        }
        if let (None, Some((path, found))) = (&newest, foreign) {
            return Err(LogError::Foreign { path, found });
        }
        let mut slots: [Slot; 2] = slots.try_into().ok().expect("there are two watermarks");
        slots.sort_by_key(|slot| slot.content.age());
        let sequence = newest.as_ref().map_or(0, |(sequence, _)| *sequence);
        Ok((Self { log_id, sequence, slots }, newest.map(|(_, watermark)| watermark)))
    }

    /// Whether both hold a watermark.
    pub(super) fn both_whole(&self) -> bool {
        self.slots.iter().all(|slot| slot.content != Content::Nothing)
    }

    /// Writes the older of the two, and returns once it is durable. After an error that leaves the log usable the newer
    /// one is untouched and the older is written again next time.
    pub(super) fn write(&mut self, vfs: &dyn Vfs, watermark: &Watermark) -> Result<(), LogError> {
        let sequence = self.sequence.saturating_add(1);
        let bytes = watermark.encode(sequence, self.log_id);
        let [slot, _] = &mut self.slots;
        let fatal = |doing, source| LogError::fatal(doing, &slot.path, source);
        slot.content = Content::Nothing;
        let (file, entry) = match &slot.file {
            Some(file) => (Arc::clone(file), Entry::Durable),
            None => (
                create_or_open(vfs, &slot.path)
                    .map_err(|source| LogError::usable("create the watermark", &slot.path, source))?,
                Entry::New,
            ),
        };
        file.write_at(0, &[IoSlice::new(&bytes)])
            .map_err(|source| LogError::usable("write the watermark", &slot.path, source))?;
        file.sync_data().map_err(|source| fatal("sync the watermark", source))?;
        if entry == Entry::New {
            let dir = slot.path.parent().unwrap_or(Path::new("."));
            vfs.sync_dir(dir).map_err(|source| fatal("sync the directory of", source))?;
            slot.file = Some(file);
        }
        slot.content = Content::Whole(sequence);
        self.sequence = sequence;
        self.slots.swap(0, 1);
        Ok(())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Entry {
    New,
    Durable,
}

impl Content {
    /// The smaller is written first.
    fn age(self) -> u64 {
        match self {
            Self::Whole(sequence) => sequence.saturating_add(1),
            Self::Nothing => 0,
        }
    }
}

/// A file and what it holds.
type ReadSlot = (Arc<dyn DataFile>, Vec<u8>);

/// The file, if there is one, and what it holds on the disk: a watermark that is believed must still be there after the
/// other one was torn.
fn read_slot(vfs: &dyn Vfs, path: &Path) -> io::Result<Option<ReadSlot>> {
    let file = match vfs.open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    settle(&*file)?;
    let mut bytes = vec![0; WATERMARK_LEN];
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read_at(filled as u64, rest)? {
            0 => break,
            read => filled = filled.saturating_add(read),
        }
    }
    bytes.truncate(filled);
    Ok(Some((file, bytes)))
}

fn create_or_open(vfs: &dyn Vfs, path: &Path) -> io::Result<Arc<dyn DataFile>> {
    match vfs.create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => vfs.open(path),
        created => created,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vfs::OsVfs;

    const LOG: StreamId = StreamId::new([7; 16]);

    fn watermark(end_offset: u64) -> Watermark {
        Watermark {
            end_offset,
            end_record: 3,
            time_ms: 4,
            segment: SegmentName { base_offset: 5, first_record: 1 },
            bytes: 6,
            salt: Salt(8),
            first_offset: 9,
            first_record: 10,
            state: Some(OwnerState { bytes: vec![1; STATE_BYTES_MAX], offset: 11, record: 12 }),
        }
    }

    #[test]
    fn a_watermark_comes_back_and_no_flipped_bit_or_shorter_one_does() {
        let bytes = watermark(2).encode(99, LOG);
        assert_eq!(Watermark::decode(&bytes, LOG), Ok((99, watermark(2))));
        let without = Watermark { state: None, ..watermark(2) };
        assert_eq!(Watermark::decode(&without.encode(1, LOG), LOG), Ok((1, without)));
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Watermark::decode(&flipped, LOG), Err(WatermarkFault::Bad), "{bit}");
        }
        for len in 0..bytes.len() {
            assert_eq!(Watermark::decode(&bytes[..len], LOG), Err(WatermarkFault::Bad), "{len}");
        }
        let other = StreamId::new([8; 16]);
        assert_eq!(Watermark::decode(&bytes, other), Err(WatermarkFault::Foreign(LOG)));
    }

    #[test]
    fn they_are_written_in_turn_and_the_newer_whole_one_counts() {
        let dir = tempfile::tempdir().unwrap();
        let load = || Watermarks::load(&OsVfs, dir.path(), LOG).unwrap();
        let (mut marks, found) = load();
        assert_eq!((found, marks.both_whole()), (None, false));
        for end in 1..=5 {
            marks.write(&OsVfs, &watermark(end)).unwrap();
            assert_eq!(load().1.unwrap().end_offset, end);
        }
        assert!(marks.both_whole());
        // The fifth went to the first file.
        let a = dir.path().join("watermark.a");
        OsVfs.open(&a).unwrap().write_at(100, &[IoSlice::new(b"torn")]).unwrap();
        let (mut marks, found) = load();
        assert_eq!((found.unwrap().end_offset, marks.both_whole()), (4, false));
        // The bad one is written, not the good one.
        marks.write(&OsVfs, &watermark(6)).unwrap();
        assert!(marks.both_whole());
        OsVfs.open(&a).unwrap().truncate(4_000).unwrap();
        assert_eq!(load().1.unwrap().end_offset, 4);
    }

    #[test]
    fn the_watermark_of_another_log_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (mut marks, _) = Watermarks::load(&OsVfs, dir.path(), LOG).unwrap();
        marks.write(&OsVfs, &watermark(1)).unwrap();
        let other = Watermarks::load(&OsVfs, dir.path(), StreamId::new([8; 16]));
        assert!(matches!(other, Err(LogError::Foreign { found: LOG, .. })));
    }
}
