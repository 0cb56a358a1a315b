//! A frame: 40 bytes and a payload.
//!
//! ```text
//! 0        4        8       10     11      12      16       24        32       40
//! | len u32 | crc u32 | 0x5EA1 | kind | flags | count | offset | synced  | time_ms | payload (len bytes)
//!
//! crc = CRC-32C over salt || header without the crc || payload
//! ```
//!
//! The checksum covers the place of the frame (`offset`) and the segment (`salt`), so that old bytes, zeros and blocks
//! that landed elsewhere never pass for a frame.
//!
//! `synced` is the offset below which everything was durable when the frame was written. So a whole frame anywhere
//! proves that everything below its `synced` had been promised, and a bad frame there is damage and not a torn tail. As
//! frames may take no offsets, an offset cannot tell whether such ones directly in front were durable as well: the highest
//! flag says that *everything* in front was.

use std::io::IoSlice;

use super::fields::{Fields, Filled};
use super::limits::FRAME_PAYLOAD_BYTES_MAX;
use super::types::{FrameView, NewFrame};

/// Bytes of a header.
pub(super) const HEADER_LEN: usize = 40;

/// What stands at [`MAGIC_AT`] in each header.
pub(super) const MAGIC: [u8; 2] = [0x5e, 0xa1];

/// Where the magic stands in a header.
pub(super) const MAGIC_AT: usize = 8;

/// The flag that is the log's own.
pub(super) const FLAG_DURABLE_BEFORE: u8 = 0x80;

/// The random number of a segment, which is in the checksum of each of its frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Salt(pub(super) u64);

/// What a frame proves about those in front of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Before {
    /// All of them were durable when it was written.
    Durable,
    /// Those below its `synced` were.
    BelowSynced,
}

/// A header whose fields are possible. Whether they are true is the checksum's to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FrameHeader {
    pub(super) payload_len: usize,
    pub(super) kind: u8,
    /// The owner's.
    pub(super) flags: u8,
    pub(super) before: Before,
    pub(super) count: u32,
    pub(super) offset: u64,
    pub(super) synced: u64,
    pub(super) time_ms: u64,
}

/// Why bytes are no frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FrameFault {
    /// They end before it does.
    Short,
    /// No header looks like this.
    Magic,
    /// It announces more than a frame can have.
    Length,
    /// Its offsets go beyond the last, or more is durable than there was.
    Offsets,
    /// They are not what was written.
    Checksum,
}

impl FrameHeader {
    /// Bytes of the frame.
    pub(super) fn frame_len(&self) -> usize {
        HEADER_LEN.saturating_add(self.payload_len)
    }

    /// The offset after its last. Decoding has checked that there is one.
    pub(super) fn end(&self) -> u64 {
        self.offset.saturating_add(u64::from(self.count))
    }

    pub(super) fn view<'a>(&self, record: u64, payload: &'a [u8]) -> FrameView<'a> {
        FrameView {
            kind: self.kind,
            flags: self.flags,
            count: self.count,
            offset: self.offset,
            record,
            synced: self.synced,
            time_ms: self.time_ms,
            payload,
        }
    }

    /// The header of a frame with this content. The caller has checked the length of the content.
    pub(super) fn encode(frame: &NewFrame<'_>, place: Place, salt: Salt) -> [u8; HEADER_LEN] {
        let len = u32::try_from(frame.payload_bytes()).expect("the length of a payload was checked");
        let flag = match place.before {
            Before::Durable => FLAG_DURABLE_BEFORE,
            Before::BelowSynced => 0,
        };
        let header = |crc: u32| {
            Filled::<HEADER_LEN>::new()
                .put(&len.to_be_bytes())
                .put(&crc.to_be_bytes())
                .put(&MAGIC)
                .put(&[frame.kind, frame.flags | flag])
                .put(&frame.count.to_be_bytes())
                .put(&place.offset.to_be_bytes())
                .put(&place.synced.to_be_bytes())
                .put(&place.time_ms.to_be_bytes())
                .bytes()
        };
        let seed = checksum_of_header(&header(0), salt);
        header(frame.payload.iter().fold(seed, |crc, part| crc32c::crc32c_append(crc, part)))
    }

    /// The fields of a header, and its checksum, which has not been compared yet.
    pub(super) fn parse(bytes: &[u8; HEADER_LEN]) -> Result<(Self, u32), FrameFault> {
        let mut fields = Fields::new(bytes);
        let mut parse = || {
            Some((
                (fields.u32()?, fields.u32()?, fields.array::<2>()?),
                (fields.u8()?, fields.u8()?, fields.u32()?),
                (fields.u64()?, fields.u64()?, fields.u64()?),
            ))
        };
        let ((len, crc, magic), (kind, flags, count), (offset, synced, time_ms)) =
            parse().expect("a header has forty bytes");
        if magic != MAGIC {
            return Err(FrameFault::Magic);
        }
        let payload_len = usize::try_from(len).map_err(|_| FrameFault::Length)?;
        if payload_len > FRAME_PAYLOAD_BYTES_MAX {
            return Err(FrameFault::Length);
        }
        if offset.checked_add(u64::from(count)).is_none() || synced > offset {
            return Err(FrameFault::Offsets);
        }
        let before = if flags & FLAG_DURABLE_BEFORE == 0 { Before::BelowSynced } else { Before::Durable };
        let flags = flags & !FLAG_DURABLE_BEFORE;
        Ok((Self { payload_len, kind, flags, before, count, offset, synced, time_ms }, crc))
    }

    /// The frame at the front of `bytes`, when it is whole.
    pub(super) fn decode(bytes: &[u8], salt: Salt) -> Result<(Self, &[u8]), FrameFault> {
        let (head, rest) = bytes.split_first_chunk().ok_or(FrameFault::Short)?;
        let (header, crc) = Self::parse(head)?;
        let payload = rest.get(..header.payload_len).ok_or(FrameFault::Short)?;
        if crc32c::crc32c_append(checksum_of_header(head, salt), payload) != crc {
            return Err(FrameFault::Checksum);
        }
        Ok((header, payload))
    }
}

/// Where and when a new frame goes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) offset: u64,
    pub(super) synced: u64,
    pub(super) before: Before,
    pub(super) time_ms: u64,
}

/// The checksum so far, once salt and header have gone through.
pub(super) fn checksum_of_header(head: &[u8; HEADER_LEN], salt: Salt) -> u32 {
    let (len, rest) = head.split_at(4);
    let (_, rest) = rest.split_at(4);
    let crc = crc32c::crc32c(&salt.0.to_be_bytes());
    crc32c::crc32c_append(crc32c::crc32c_append(crc, len), rest)
}

/// The parts of a group of frames, to be written as they are.
pub(super) fn slices<'a>(heads: &'a [[u8; HEADER_LEN]], frames: &'a [NewFrame<'a>]) -> Vec<IoSlice<'a>> {
    let parts = frames.iter().map(|frame| frame.payload.len().saturating_add(1)).sum();
    let mut slices = Vec::with_capacity(parts);
    for (head, frame) in heads.iter().zip(frames) {
        slices.push(IoSlice::new(head));
        slices.extend(frame.payload.iter().filter(|part| !part.is_empty()).map(|part| IoSlice::new(part)));
    }
    slices
}

#[cfg(test)]
mod tests {
    use super::*;

    const SALT: Salt = Salt(0x0123_4567_89ab_cdef);
    const PLACE: Place =
        Place { offset: 1_000, synced: 990, before: Before::Durable, time_ms: 1_700_000_000_000 };

    fn encoded(payload: &[&[u8]]) -> Vec<u8> {
        let frame = NewFrame { kind: 1, flags: 3, count: 7, time_ms: 0, payload };
        [FrameHeader::encode(&frame, PLACE, SALT).as_slice(), &payload.concat()].concat()
    }

    #[test]
    fn a_frame_comes_back_as_it_was_written() {
        for payload in [&[b"".as_slice()][..], &[], &[b"abc"], &[b"ab", b"", b"cdef"]] {
            let bytes = encoded(payload);
            let (header, content) = FrameHeader::decode(&bytes, SALT).unwrap();
            assert_eq!(content, payload.concat());
            assert_eq!((header.kind, header.flags, header.count, header.before), (1, 3, 7, Before::Durable));
            assert_eq!((header.offset, header.end(), header.synced), (1_000, 1_007, 990));
            assert_eq!((header.time_ms, header.frame_len()), (PLACE.time_ms, bytes.len()));
        }
    }

    #[test]
    fn the_layout_is_the_one_that_is_drawn() {
        let bytes = encoded(&[b"xyz"]);
        assert_eq!(bytes[..4], [0, 0, 0, 3]);
        assert_eq!(bytes[8..12], [0x5e, 0xa1, 1, 0x83]);
        assert_eq!(bytes[12..16], [0, 0, 0, 7]);
        assert_eq!(bytes[16..24], 1_000_u64.to_be_bytes());
        assert_eq!(bytes[24..32], 990_u64.to_be_bytes());
        assert_eq!(bytes[32..40], PLACE.time_ms.to_be_bytes());
        let covered = [SALT.0.to_be_bytes().as_slice(), &bytes[..4], &bytes[8..]].concat();
        assert_eq!(bytes[4..8], crc32c::crc32c(&covered).to_be_bytes());
    }

    #[test]
    fn no_truncation_passes() {
        let bytes = encoded(&[b"some payload"]);
        for len in 0..bytes.len() {
            assert_eq!(FrameHeader::decode(&bytes[..len], SALT), Err(FrameFault::Short), "{len}");
        }
    }

    #[test]
    fn no_flipped_bit_passes() {
        let bytes = encoded(&[b"some payload that is long enough to have a middle"]);
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(FrameHeader::decode(&flipped, SALT).is_err(), "{bit}");
        }
    }

    #[test]
    fn a_frame_of_another_segment_does_not_pass() {
        let bytes = encoded(&[b"abc"]);
        assert_eq!(FrameHeader::decode(&bytes, Salt(SALT.0 ^ 1)), Err(FrameFault::Checksum));
        assert_eq!(FrameHeader::decode(&[0; 4_096], SALT), Err(FrameFault::Magic));
    }

    #[test]
    fn a_length_is_judged_before_anything_is_read() {
        let mut bytes = encoded(&[b"abc"]);
        bytes[..4].copy_from_slice(&(FRAME_PAYLOAD_BYTES_MAX as u32 + 1).to_be_bytes());
        assert_eq!(FrameHeader::decode(&bytes, SALT), Err(FrameFault::Length));
    }
}
