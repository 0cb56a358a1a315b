//! How a frame becomes bytes and bytes become a frame.

use bytes::{Bytes, BytesMut};

use crate::wire::{DecodeError, Reader, Write};

use super::deframer::RawFrame;
use super::header::{FrameError, FrameHeader, FrameType, HEADER_LEN};

/// A frame that has one type and one form.
pub trait Frame: Sized {
    /// Its type.
    const KIND: FrameType;

    /// The flags that this value needs.
    fn flags(&self) -> u8 {
        0
    }

    /// Appends the payload, except for a batch at its end.
    fn encode_payload(&self, out: &mut BytesMut);

    /// The batch at the end of the payload, which is sent from where it lies.
    fn batch(&self) -> Option<&Bytes> {
        None
    }

    /// Parses the payload.
    ///
    /// # Errors
    /// [`PayloadError`] says what is wrong with it.
    fn decode_payload(flags: u8, payload: &Bytes) -> Result<Self, PayloadError>;

    /// Appends the whole frame, except for a batch at its end.
    fn encode_head(&self, out: &mut BytesMut) {
        let start = out.len();
        out.raw(&[0; HEADER_LEN]);
        self.encode_payload(out);
        let payload_len = out.len() - start - HEADER_LEN + self.batch().map_or(0, Bytes::len);
        let header = FrameHeader { kind: Self::KIND, flags: self.flags(), payload_len };
        out[start..start + HEADER_LEN].copy_from_slice(&header.encode());
    }

    /// The whole frame in one piece, for tests and vectors.
    fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        self.encode_head(&mut out);
        if let Some(batch) = self.batch() {
            out.raw(batch);
        }
        out.freeze()
    }
}

/// Why a payload is not the frame's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PayloadError {
    /// A flag that the frame does not know.
    Flags,
    /// A field is missing, too long, or has a value that is not allowed.
    Field(DecodeError),
    /// A topic, filter, principal, stream or consumer breaks its rules.
    Name(&'static str),
}

impl From<DecodeError> for PayloadError {
    fn from(error: DecodeError) -> Self {
        Self::Field(error)
    }
}

pub(super) fn decode<F: Frame>(raw: &RawFrame) -> Result<F, FrameError> {
    let kind = raw.header.kind;
    F::decode_payload(raw.header.flags, &raw.payload)
        .map_err(|error| frame_error(kind, raw.header.flags, error))
}

pub(super) fn frame_error(kind: FrameType, flags: u8, error: PayloadError) -> FrameError {
    match error {
        PayloadError::Flags => FrameError::Flags { kind, found: flags },
        PayloadError::Field(error) => FrameError::Payload { kind, error },
        PayloadError::Name(field) => FrameError::Name { kind, field },
    }
}

/// Refuses every flag: most frames have none.
pub(super) fn no_flags(flags: u8) -> Result<(), PayloadError> {
    if flags == 0 { Ok(()) } else { Err(PayloadError::Flags) }
}

/// What is left of the payload, sharing its memory.
pub(super) fn rest_of(payload: &Bytes, reader: &Reader<'_>) -> Bytes {
    payload.slice(payload.len() - reader.rest().len()..)
}

/// A u16 that counts what follows, compared with its limit before memory is set aside for so many.
pub(super) fn decode_count(
    reader: &mut Reader<'_>,
    field: &'static str,
    max: usize,
) -> Result<usize, DecodeError> {
    let found = usize::from(reader.u16(field)?);
    if found > max { Err(DecodeError::TooLong { field, max, found }) } else { Ok(found) }
}

/// `0` for none, otherwise the value plus one: offsets are dense from 0 and never reach the last u64.
pub(super) fn encode_offset(offset: Option<u64>) -> u64 {
    offset.map_or(0, |offset| offset.saturating_add(1))
}

pub(super) fn decode_offset(wire: u64) -> Option<u64> {
    wire.checked_sub(1)
}
