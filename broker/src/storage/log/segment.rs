//! The names of a log's files and the header of a segment.
//!
//! ```text
//! 0             8           12       16       24       40       56            64             72             80   92    96
//! | SBSEG1\0\0 | version u32 | 0 u32 | salt u64 | bus_id | log_id | base_offset | first_record | previous_len | zeros | crc |
//!
//! crc = CRC-32C over the 92 bytes in front
//! ```

use std::path::{Path, PathBuf};

use sealbus_protocol::ids::{BusId, StreamId};

use super::fields::{Fields, Filled, checked, checked_but_for_one_bit};
use super::frame::Salt;
use super::types::LogOptions;

/// Bytes of a segment's header.
pub(super) const SEGMENT_HEADER_LEN: usize = 96;

/// The same as a place in the file: that of the first frame.
pub(super) const FIRST_FRAME_AT: u64 = SEGMENT_HEADER_LEN as u64;

const MAGIC: [u8; 8] = *b"SBSEG1\0\0";

/// The version that this program reads and writes.
pub(super) const VERSION: u32 = 1;

/// Where a segment begins, which is its name. Two may begin at one offset when only frames without offsets are between.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct SegmentName {
    pub(super) base_offset: u64,
    pub(super) first_record: u64,
}

/// The kinds of file that belong to a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FileKind {
    Log,
    Index,
}

/// Whose file it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) bus_id: BusId,
    pub(super) log_id: StreamId,
}

/// A header whose checksum holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub(super) owner: Owner,
    pub(super) name: SegmentName,
    pub(super) salt: Salt,
    /// Bytes of the segment before; 0 for the first.
    pub(super) previous_len: u64,
}

/// Why bytes are no header that can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HeaderFault {
    /// They are not what was written.
    Bad,
    /// They were written by a program of another version.
    Version(u32),
}

impl SegmentName {
    /// The first one of a log.
    pub(super) const FIRST: Self = Self { base_offset: 0, first_record: 0 };

    pub(super) fn path(self, dir: &Path, kind: FileKind) -> PathBuf {
        let extension = match kind {
            FileKind::Log => "log",
            FileKind::Index => "idx",
        };
        dir.join(format!("{:020}-{:020}.{extension}", self.base_offset, self.first_record))
    }

    /// The name that this is, when it is one of ours.
    pub(super) fn parse(name: &str) -> Option<(Self, FileKind)> {
        let (stem, extension) = name.split_once('.')?;
        let (base, record) = stem.split_once('-')?;
        let number = |text: &str| {
            let plain = text.len() == 20 && text.bytes().all(|byte| byte.is_ascii_digit());
            if plain { text.parse().ok() } else { None }
        };
        let kind = match extension {
            "log" => FileKind::Log,
            "idx" => FileKind::Index,
            _ => return None,
        };
        Some((Self { base_offset: number(base)?, first_record: number(record)? }, kind))
    }
}

impl Owner {
    pub(super) fn of(options: &LogOptions) -> Self {
        Self { bus_id: options.bus_id, log_id: options.log_id }
    }
}

impl SegmentHeader {
    pub(super) fn encode(&self) -> [u8; SEGMENT_HEADER_LEN] {
        Filled::new()
            .put(&MAGIC)
            .put(&VERSION.to_be_bytes())
            .put(&[0; 4])
            .put(&self.salt.0.to_be_bytes())
            .put(self.owner.bus_id.as_bytes())
            .put(self.owner.log_id.as_bytes())
            .put(&self.name.base_offset.to_be_bytes())
            .put(&self.name.first_record.to_be_bytes())
            .put(&self.previous_len.to_be_bytes())
            .sealed()
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, HeaderFault> {
        let front = bytes.get(..SEGMENT_HEADER_LEN).and_then(checked).ok_or(HeaderFault::Bad)?;
        let mut fields = Fields::new(front);
        let mut parse = || {
            if fields.array()? != MAGIC {
                return None;
            }
            let version = fields.u32()?;
            let _zero = fields.u32()?;
            let salt = Salt(fields.u64()?);
            let owner = Owner { bus_id: BusId::new(fields.array()?), log_id: StreamId::new(fields.array()?) };
            let name = SegmentName { base_offset: fields.u64()?, first_record: fields.u64()? };
            Some((version, Self { owner, name, salt, previous_len: fields.u64()? }))
        };
        match parse().ok_or(HeaderFault::Bad)? {
            (VERSION, header) => Ok(header),
            (version, _) => Err(HeaderFault::Version(version)),
        }
    }

    /// The header that this must have been if one bit of it has turned over.
    pub(super) fn decode_but_for_one_bit(bytes: &[u8]) -> Option<Self> {
        let whole = checked_but_for_one_bit(bytes.first_chunk::<SEGMENT_HEADER_LEN>()?)?;
        Self::decode(&whole).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> SegmentHeader {
        SegmentHeader {
            owner: Owner { bus_id: BusId::new([1; 16]), log_id: StreamId::new([2; 16]) },
            name: SegmentName { base_offset: 77, first_record: 5 },
            salt: Salt(9),
            previous_len: 4_096,
        }
    }

    #[test]
    fn a_header_comes_back_and_no_part_of_it_does() {
        let bytes = header().encode();
        assert_eq!(SegmentHeader::decode(&bytes), Ok(header()));
        for len in 0..bytes.len() {
            assert_eq!(SegmentHeader::decode(&bytes[..len]), Err(HeaderFault::Bad), "{len}");
            assert_eq!(SegmentHeader::decode_but_for_one_bit(&bytes[..len]), None, "{len}");
        }
    }

    #[test]
    fn a_flipped_bit_is_found_and_the_header_before_it_is_known() {
        for bit in 0..SEGMENT_HEADER_LEN * 8 {
            let mut bytes = header().encode();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(SegmentHeader::decode(&bytes), Err(HeaderFault::Bad), "{bit}");
            assert_eq!(SegmentHeader::decode_but_for_one_bit(&bytes), Some(header()), "{bit}");
            let two = (bit + 100) % (SEGMENT_HEADER_LEN * 8);
            bytes[two / 8] ^= 1 << (two % 8);
            assert_eq!(SegmentHeader::decode_but_for_one_bit(&bytes), None, "{bit}");
        }
    }

    #[test]
    fn another_version_is_told_apart_from_damage() {
        let mut bytes = header().encode();
        bytes[11] = 2;
        let crc = crc32c::crc32c(&bytes[..92]).to_be_bytes();
        bytes[92..].copy_from_slice(&crc);
        assert_eq!(SegmentHeader::decode(&bytes), Err(HeaderFault::Version(2)));
    }

    #[test]
    fn only_names_that_we_give_are_ours() {
        let name = SegmentName { base_offset: 12, first_record: u64::MAX };
        let path = name.path(Path::new(""), FileKind::Log);
        assert_eq!(SegmentName::parse(path.to_str().unwrap()), Some((name, FileKind::Log)));
        for foreign in [
            "notes.txt",
            "00000000000000000012-00000000000000000003.log.damaged",
            "00000000000000000012-00000000000000000003.idx.tmp",
            "12-3.log",
            "0000000000000000001+-00000000000000000003.log",
            "99999999999999999999-00000000000000000003.log",
            "00000000000000000012.log",
            "watermark.a",
        ] {
            assert_eq!(SegmentName::parse(foreign), None, "{foreign}");
        }
    }
}
