//! From bytes to frames. The length is judged before memory is set aside for it, and a payload is read straight
//! into the memory that it keeps.

use bytes::{Buf as _, Bytes, BytesMut};

use crate::limits::{FRAME_BYTES_MAX, UNAUTHENTICATED_BYTES_MAX};
use crate::memory;

use super::header::{FrameError, FrameHeader, HEADER_LEN};

/// Bytes set aside for small frames. Larger ones get memory of their own, at most a quarter
/// larger than they are.
pub const STAGING_BYTES: usize = 16 * 1_024;

/// A frame as it was cut from the stream: a known type, a length within its limit, a payload not yet looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawFrame {
    /// Its header.
    pub header: FrameHeader,
    /// Its payload.
    pub payload: Bytes,
}

/// Cuts a stream of bytes into frames.
///
/// ```text
///   staging:  | header | payload | header | payload | header | pay...      small frames, copied out
///   large:    | payload ............................ |                     one frame, filled in place
/// ```
///
/// A payload never keeps memory alive that other frames share: small ones are copied out of the staging buffer, so
/// that a queued message of a hundred bytes holds a hundred bytes.
#[derive(Debug)]
pub struct Deframer {
    staging: BytesMut,
    large: Option<Large>,
    payload_bytes_max: usize,
}

#[derive(Debug)]
struct Large {
    header: FrameHeader,
    payload: BytesMut,
}

impl Deframer {
    /// A deframer for a peer that has not proven who it is: one small frame at a time.
    #[must_use]
    pub fn unauthenticated() -> Self {
        Self {
            staging: BytesMut::new(),
            large: None,
            payload_bytes_max: UNAUTHENTICATED_BYTES_MAX - HEADER_LEN,
        }
    }

    /// From here on frames may have the length that their type allows.
    pub fn authenticate(&mut self) {
        self.payload_bytes_max = FRAME_BYTES_MAX;
    }

    /// Where the next bytes of the stream go, with room for at least one. The caller appends what it has read, at
    /// most the room that is there, and then calls [`Deframer::poll_frame`] until it yields nothing.
    pub fn space(&mut self) -> &mut BytesMut {
        if let Some(large) = &mut self.large {
            return &mut large.payload;
        }
        if self.staging.capacity() == self.staging.len() {
            self.staging.reserve(STAGING_BYTES);
        }
        &mut self.staging
    }

    /// Bytes that [`Deframer::space`] takes now: never more than the frame that is being filled still wants. 0 only
    /// while whole frames have not been taken out: then nothing may be read.
    #[must_use]
    pub fn space_len(&self) -> usize {
        match &self.large {
            Some(large) => large.header.payload_len.saturating_sub(large.payload.len()),
            None => STAGING_BYTES.saturating_sub(self.staging.len()),
        }
    }

    /// The next whole frame; none when more bytes are needed.
    ///
    /// # Errors
    /// [`FrameError`] from the header alone, before the payload has arrived. The stream cannot be read further.
    pub fn poll_frame(&mut self) -> Result<Option<RawFrame>, FrameError> {
        if let Some(large) = self.large.take_if(|large| large.payload.len() >= large.header.payload_len) {
            return Ok(Some(RawFrame { header: large.header, payload: memory::freeze(large.payload) }));
        }
        if self.large.is_some() {
            return Ok(None);
        }
        let Some(bytes) = self.staging.first_chunk::<HEADER_LEN>() else { return Ok(None) };
        let header = FrameHeader::decode(bytes, self.payload_bytes_max)?;
        let whole = HEADER_LEN + header.payload_len;
        if self.staging.len() >= whole {
            let payload = Bytes::copy_from_slice(&self.staging[HEADER_LEN..whole]);
            self.staging.advance(whole);
            return Ok(Some(RawFrame { header, payload }));
        }
        if whole > STAGING_BYTES {
            let mut payload = memory::of(header.payload_len);
            payload.extend_from_slice(&self.staging[HEADER_LEN..]);
            self.staging.clear();
            self.large = Some(Large { header, payload });
        }
        Ok(None)
    }

    /// Bytes held for frames that are not whole yet.
    #[must_use]
    pub fn buffered(&self) -> usize {
        self.staging.len() + self.large.as_ref().map_or(0, |large| large.payload.len())
    }

    /// Gives the staging memory back while nothing is in it, so that an idle connection holds none.
    pub fn release(&mut self) {
        if self.staging.is_empty() {
            self.staging = BytesMut::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::header::FrameType;
    use super::*;

    fn frame(kind: FrameType, payload: &[u8]) -> Vec<u8> {
        let header = FrameHeader { kind, flags: 0, payload_len: payload.len() };
        [&header.encode()[..], payload].concat()
    }

    /// Feeds a stream in pieces of `step` bytes and collects the frames.
    fn feed(deframer: &mut Deframer, mut stream: &[u8], step: usize) -> Result<Vec<RawFrame>, FrameError> {
        let mut frames = Vec::new();
        while !stream.is_empty() {
            let take = step.min(deframer.space_len()).min(stream.len());
            let (now, later) = stream.split_at(take);
            deframer.space().extend_from_slice(now);
            stream = later;
            while let Some(frame) = deframer.poll_frame()? {
                frames.push(frame);
            }
        }
        Ok(frames)
    }

    #[test]
    fn frames_come_out_however_the_stream_is_cut() {
        let payloads = [vec![1; 3], vec![], vec![2; STAGING_BYTES], vec![3; 100_000], vec![4; 8]];
        let stream: Vec<u8> =
            payloads.iter().flat_map(|payload| frame(FrameType::Publish, payload)).collect();
        for step in [1, 7, 8, 9, 4_096, 16_384, 1_000_000] {
            let mut deframer = Deframer::unauthenticated();
            deframer.authenticate();
            let frames = feed(&mut deframer, &stream, step).unwrap();
            let found: Vec<&[u8]> = frames.iter().map(|frame| &frame.payload[..]).collect();
            assert_eq!(found, payloads, "step {step}");
            assert_eq!(deframer.buffered(), 0);
        }
    }

    #[test]
    fn a_length_that_lies_is_refused_from_the_header_alone() {
        let mut deframer = Deframer::unauthenticated();
        let header = [FrameType::Publish as u8, 0, 0, 0, 0xff, 0xff, 0xff, 0xff];
        assert!(feed(&mut deframer, &header, 8).is_err());
        assert!(deframer.staging.capacity() <= 2 * STAGING_BYTES);
    }

    #[test]
    fn an_unauthenticated_peer_is_held_to_one_small_frame() {
        let mut deframer = Deframer::unauthenticated();
        let largest = UNAUTHENTICATED_BYTES_MAX - HEADER_LEN;
        assert_eq!(feed(&mut deframer, &frame(FrameType::Hello, &vec![0; largest]), 1_000).unwrap().len(), 1);
        let too_long = frame(FrameType::Hello, &vec![0; largest + 1]);
        assert!(feed(&mut deframer, &too_long, 1_000).is_err());
    }

    #[test]
    fn space_is_never_more_than_what_is_wanted() {
        let mut deframer = Deframer::unauthenticated();
        deframer.authenticate();
        assert_eq!(deframer.space_len(), STAGING_BYTES);
        let large = frame(FrameType::Publish, &vec![7; 50_000]);
        feed(&mut deframer, &large[..10_000], 10_000).unwrap();
        assert_eq!(deframer.space_len(), 50_000 - (10_000 - HEADER_LEN));
        assert_eq!(feed(&mut deframer, &large[10_000..], 50_000).unwrap().len(), 1);
    }

    #[test]
    fn a_small_payload_keeps_only_its_own_memory() {
        let mut deframer = Deframer::unauthenticated();
        deframer.authenticate();
        let stream: Vec<u8> = (0..100).flat_map(|_| frame(FrameType::Publish, &[9; 100])).collect();
        let frames = feed(&mut deframer, &stream, STAGING_BYTES).unwrap();
        assert_eq!(frames.len(), 100);
        deframer.release();
        assert_eq!(deframer.staging.capacity(), 0);
    }
}
