//! The file beside a sealed segment: where its frames are, and the digests that outlive them.
//!
//! ```text
//! 0             8              12          16       32       48            56             64           72           80
//! | SBIDX1\0\0 | version u32 | flags u32 | bus_id | log_id | base_offset | first_record | end_offset | end_record | ...
//! 80        88     96             104            112           116             120            128            136   160
//! ... bytes | salt | first_time_ms | last_time_ms | entries u32 | state len u32 | state offset | state record | 0 | crc |
//!
//! digests   blocks of 64 x 32 bytes (the last one shorter), each with its own crc, when flag 1 is set
//! body      entries x (kind u8 | offset u64 | record u64 | position u64 | time_ms u64) | state | crc
//! ```
//!
//! Header and body are read when the log is opened, the digests a block at a time when they are asked for. A checksum of
//! a block covers its number, so that no block passes for another.

use std::io;
use std::path::Path;

use sealbus_protocol::ids::{BusId, StreamId};

use super::fields::{Fields, Filled, checked};
use super::frame::Salt;
use super::layout::{Digest, Entry, EntryKind, SEGMENT_RECORDS_MAX};
use super::limits::{INDEX_BODY_BYTES_MAX, STATE_BYTES_MAX};
use super::scan::Mark;
use super::segment::{Owner, SegmentName, VERSION};
use super::types::OwnerState;
use crate::vfs::{DataFile, Vfs};

const MAGIC: [u8; 8] = *b"SBIDX1\0\0";

const INDEX_HEADER_LEN: usize = 160;

/// Bytes of an entry.
const ENTRY_LEN: u64 = 33;

/// Digests with one checksum.
pub(super) const BLOCK_DIGESTS: u64 = 64;

const DIGEST_LEN: u64 = 32;
const CRC_LEN: u64 = 4;
const FLAG_DIGESTS: u32 = 1;

/// What an index file says, but for the digests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Index {
    pub(super) name: SegmentName,
    pub(super) salt: Salt,
    pub(super) end: Mark,
    pub(super) first_time_ms: u64,
    pub(super) last_time_ms: u64,
    pub(super) digests: DigestsKept,
    pub(super) entries: Vec<Entry>,
    /// As it was given last before the segment began.
    pub(super) state: Option<OwnerState>,
}

/// Whether there are digests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DigestsKept {
    Yes,
    No,
}

/// Why a file is no index that can be used.
#[derive(Debug)]
pub(super) enum IndexFault {
    /// There is none.
    Absent,
    /// It is not what was written, or of another segment or version.
    Bad,
    /// The disk did not read it.
    Io(io::Error),
}

impl Index {
    /// The file, with these digests.
    pub(super) fn encode(&self, owner: Owner, digests: &[Digest]) -> Vec<u8> {
        let (flags, digests) = match self.digests {
            DigestsKept::Yes => (FLAG_DIGESTS, digests),
            DigestsKept::No => (0, [].as_slice()),
        };
        let (offset, record, state) = match &self.state {
            Some(state) => (state.offset, state.record, state.bytes.as_slice()),
            None => (u64::MAX, u64::MAX, [].as_slice()),
        };
        let count =
            |len: usize| u32::try_from(len).expect("a segment's bounds bound its entries").to_be_bytes();
        let header: [u8; INDEX_HEADER_LEN] = Filled::new()
            .put(&MAGIC)
            .put(&VERSION.to_be_bytes())
            .put(&flags.to_be_bytes())
            .put(owner.bus_id.as_bytes())
            .put(owner.log_id.as_bytes())
            .put(&self.name.base_offset.to_be_bytes())
            .put(&self.name.first_record.to_be_bytes())
            .put(&self.end.offset.to_be_bytes())
            .put(&self.end.record.to_be_bytes())
            .put(&self.end.position.to_be_bytes())
            .put(&self.salt.0.to_be_bytes())
            .put(&self.first_time_ms.to_be_bytes())
            .put(&self.last_time_ms.to_be_bytes())
            .put(&count(self.entries.len()))
            .put(&count(state.len()))
            .put(&offset.to_be_bytes())
            .put(&record.to_be_bytes())
            .sealed();
        let mut bytes = header.to_vec();
        for (number, block) in digests.chunks(BLOCK_DIGESTS as usize).enumerate() {
            let content = block.concat();
            bytes.extend_from_slice(&content);
            bytes.extend_from_slice(&block_checksum(number as u64, &content).to_be_bytes());
        }
        let mut body = Vec::new();
        for entry in &self.entries {
            body.push(entry.kind.code());
            for number in [entry.mark.offset, entry.mark.record, entry.mark.position, entry.time_ms] {
                body.extend_from_slice(&number.to_be_bytes());
            }
        }
        body.extend_from_slice(state);
        bytes.extend_from_slice(&body);
        bytes.extend_from_slice(&crc32c::crc32c(&body).to_be_bytes());
        bytes
    }

    /// Reads the index of a segment.
    pub(super) fn read(
        vfs: &dyn Vfs,
        path: &Path,
        owner: Owner,
        name: SegmentName,
    ) -> Result<Self, IndexFault> {
        let file = vfs.open_read(path)?;
        let mut header = [0; INDEX_HEADER_LEN];
        read_exact(&*file, 0, &mut header)?;
        let (mut index, entries, state_len) =
            Self::decode_header(&header, owner, name).ok_or(IndexFault::Bad)?;
        let digests = digests_len(index.records_with_digests());
        let body_len = u64::from(entries) * ENTRY_LEN + u64::from(state_len) + CRC_LEN;
        let body_at = INDEX_HEADER_LEN as u64 + digests;
        if body_len > INDEX_BODY_BYTES_MAX || file.len()? != body_at + body_len {
            return Err(IndexFault::Bad);
        }
        let mut body = vec![0; usize::try_from(body_len).map_err(|_| IndexFault::Bad)?];
        read_exact(&*file, body_at, &mut body)?;
        index.decode_body(&body, entries).ok_or(IndexFault::Bad)?;
        Ok(index)
    }

    /// Records of the segment. Decoding has judged it.
    pub(super) fn records(&self) -> u64 {
        self.end.record.saturating_sub(self.name.first_record)
    }

    /// Records whose digests are in the file.
    pub(super) fn records_with_digests(&self) -> u64 {
        match self.digests {
            DigestsKept::Yes => self.records(),
            DigestsKept::No => 0,
        }
    }

    fn decode_header(
        bytes: &[u8; INDEX_HEADER_LEN],
        owner: Owner,
        name: SegmentName,
    ) -> Option<(Self, u32, u32)> {
        let mut fields = Fields::new(checked(bytes)?);
        let known = fields.array()? == MAGIC && fields.u32()? == VERSION;
        let digests = match fields.u32()? {
            0 => DigestsKept::No,
            FLAG_DIGESTS => DigestsKept::Yes,
            _ => return None,
        };
        let found = Owner { bus_id: BusId::new(fields.array()?), log_id: StreamId::new(fields.array()?) };
        let named = SegmentName { base_offset: fields.u64()?, first_record: fields.u64()? };
        let end = Mark { offset: fields.u64()?, record: fields.u64()?, position: fields.u64()? };
        let salt = Salt(fields.u64()?);
        let (first_time_ms, last_time_ms) = (fields.u64()?, fields.u64()?);
        let (entries, state_len) = (fields.u32()?, fields.u32()?);
        let (offset, record) = (fields.u64()?, fields.u64()?);
        let records = end.record.checked_sub(name.first_record)?;
        let plausible = end.offset >= name.base_offset
            && (records <= SEGMENT_RECORDS_MAX || digests == DigestsKept::No)
            && state_len as usize <= STATE_BYTES_MAX;
        if !known || found != owner || named != name || !plausible {
            return None;
        }
        let state = ((offset, record) != (u64::MAX, u64::MAX)).then(|| OwnerState {
            bytes: Vec::new(),
            offset,
            record,
        });
        let index =
            Self { name, salt, end, first_time_ms, last_time_ms, digests, entries: Vec::new(), state };
        Some((index, entries, state_len))
    }

    /// Entries go up in everything: what finds a frame by them relies on it.
    fn decode_body(&mut self, body: &[u8], entries: u32) -> Option<()> {
        let mut fields = Fields::new(checked(body)?);
        let mut last: Option<Mark> = None;
        for _ in 0..entries {
            let kind = EntryKind::of_code(fields.u8()?)?;
            let mark = Mark { offset: fields.u64()?, record: fields.u64()?, position: fields.u64()? };
            let entry = Entry { kind, mark, time_ms: fields.u64()? };
            let follows = match last {
                None => mark.offset == self.name.base_offset && mark.record == self.name.first_record,
                Some(last) => last.precedes(mark),
            };
            if !follows || !mark.precedes(self.end) {
                return None;
            }
            last = Some(mark);
            self.entries.push(entry);
        }
        if let Some(state) = &mut self.state {
            state.bytes = fields.rest().to_vec();
        }
        Some(())
    }
}

impl Mark {
    fn precedes(self, other: Self) -> bool {
        self.offset <= other.offset && self.record <= other.record && self.position <= other.position
    }
}

impl EntryKind {
    fn code(self) -> u8 {
        match self {
            Self::Frames => 1,
            Self::Corrupt => 2,
            Self::Truncated => 3,
        }
    }

    fn of_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::Frames),
            2 => Some(Self::Corrupt),
            3 => Some(Self::Truncated),
            _ => None,
        }
    }
}

/// A block of digests of a file whose header was read: those from `number * BLOCK_DIGESTS` on, of `records` in all.
pub(super) fn read_digests(
    file: &dyn DataFile,
    number: u64,
    records: u64,
) -> Result<Vec<Digest>, IndexFault> {
    let first = number.checked_mul(BLOCK_DIGESTS).filter(|first| *first < records).ok_or(IndexFault::Bad)?;
    let count = records.saturating_sub(first).min(BLOCK_DIGESTS);
    let at = INDEX_HEADER_LEN as u64 + digests_len(first);
    let mut bytes = vec![0; usize::try_from(count * DIGEST_LEN + CRC_LEN).map_err(|_| IndexFault::Bad)?];
    read_exact(file, at, &mut bytes)?;
    let (content, crc) = bytes.split_last_chunk().ok_or(IndexFault::Bad)?;
    if block_checksum(number, content) != u32::from_be_bytes(*crc) {
        return Err(IndexFault::Bad);
    }
    let (digests, _) = content.as_chunks();
    Ok(digests.to_vec())
}

/// Bytes that so many digests take, with their checksums.
fn digests_len(records: u64) -> u64 {
    let records = records.min(SEGMENT_RECORDS_MAX);
    records * DIGEST_LEN + records.div_ceil(BLOCK_DIGESTS) * CRC_LEN
}

fn block_checksum(number: u64, content: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&number.to_be_bytes()), content)
}

fn read_exact(file: &dyn DataFile, offset: u64, buf: &mut [u8]) -> Result<(), IndexFault> {
    let mut filled = 0;
    while let Some(rest) = buf.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read_at(offset.saturating_add(filled as u64), rest)? {
            0 => return Err(IndexFault::Bad),
            read => filled = filled.saturating_add(read),
        }
    }
    Ok(())
}

impl From<io::Error> for IndexFault {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::Absent,
            _ => Self::Io(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::segment::FileKind;
    use super::*;
    use crate::vfs::{OsVfs, replace};

    fn owner() -> Owner {
        Owner { bus_id: BusId::new([1; 16]), log_id: StreamId::new([2; 16]) }
    }

    fn index(records: u64) -> Index {
        let name = SegmentName { base_offset: 100, first_record: 10 };
        let mark = |offset, record, position| Mark { offset, record, position };
        let entry = |kind, mark| Entry { kind, mark, time_ms: 6 };
        Index {
            name,
            salt: Salt(3),
            end: mark(500, 10 + records, 70_000),
            first_time_ms: 4,
            last_time_ms: 5,
            digests: DigestsKept::Yes,
            entries: vec![
                entry(EntryKind::Frames, mark(100, 10, 96)),
                entry(EntryKind::Corrupt, mark(200, 11, 900)),
                entry(EntryKind::Frames, mark(200, 11, 1_900)),
                entry(EntryKind::Truncated, mark(500, 12, 70_000)),
            ],
            state: Some(OwnerState { bytes: vec![7; 99], offset: 90, record: 9 }),
        }
    }

    fn digests(records: u64) -> Vec<Digest> {
        (0..records).map(|n| [n as u8; 32]).collect()
    }

    #[test]
    fn an_index_comes_back_with_its_digests() {
        let dir = tempfile::tempdir().unwrap();
        for records in [2, 63, 64, 65, 129] {
            let index = index(records);
            let path = index.name.path(dir.path(), FileKind::Index);
            replace(&OsVfs, &path, &index.encode(owner(), &digests(records))).unwrap();
            assert_eq!(Index::read(&OsVfs, &path, owner(), index.name).unwrap(), index);
            let file = OsVfs.open(&path).unwrap();
            let mut found = Vec::new();
            for block in 0..records.div_ceil(64) {
                found.extend(read_digests(&*file, block, records).unwrap());
            }
            assert_eq!(found, digests(records));
            assert!(matches!(read_digests(&*file, records.div_ceil(64), records), Err(IndexFault::Bad)));
        }
    }

    #[test]
    fn no_flipped_bit_or_truncation_passes_anywhere() {
        let dir = tempfile::tempdir().unwrap();
        let index = index(65);
        let path = index.name.path(dir.path(), FileKind::Index);
        let bytes = index.encode(owner(), &digests(65));
        replace(&OsVfs, &path, &bytes).unwrap();
        let file = OsVfs.open(&path).unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            file.write_at(0, &[io::IoSlice::new(&flipped)]).unwrap();
            let head = Index::read(&OsVfs, &path, owner(), index.name);
            let blocks = [0, 1].map(|block| read_digests(&*file, block, 65).is_err());
            let bad = [head.is_err(), blocks[0], blocks[1]];
            assert_eq!(bad.iter().filter(|bad| **bad).count(), 1, "{bit}");
        }
        for len in 0..bytes.len() as u64 {
            file.write_at(0, &[io::IoSlice::new(&bytes)]).unwrap();
            file.truncate(len).unwrap();
            assert!(Index::read(&OsVfs, &path, owner(), index.name).is_err(), "{len}");
        }
    }

    #[test]
    fn the_index_of_another_segment_or_log_is_bad() {
        let dir = tempfile::tempdir().unwrap();
        let index = index(3);
        let path = index.name.path(dir.path(), FileKind::Index);
        replace(&OsVfs, &path, &index.encode(owner(), &digests(3))).unwrap();
        let other = SegmentName { base_offset: 101, ..index.name };
        assert!(matches!(Index::read(&OsVfs, &path, owner(), other), Err(IndexFault::Bad)));
        let stranger = Owner { log_id: StreamId::new([9; 16]), ..owner() };
        assert!(matches!(Index::read(&OsVfs, &path, stranger, index.name), Err(IndexFault::Bad)));
        let absent = path.with_extension("none");
        assert!(matches!(Index::read(&OsVfs, &absent, owner(), index.name), Err(IndexFault::Absent)));
    }
}
