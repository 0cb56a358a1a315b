//! CHECKPOINT_GET and CHECKPOINT: how a stream's history is proven to whoever asks.

use bytes::{Bytes, BytesMut};

use crate::limits::{NOTE_BYTES_MAX, PROOF_HASHES_MAX};
use crate::stream_name::StreamName;
use crate::wire::{Reader, Write};

use super::codec::{Frame, PayloadError, decode_count, no_flags};
use super::header::FrameType;
use super::names::RequestId;
use super::replay::decode_stream;

/// On the wire, "no leaf".
const NO_LEAF: u64 = u64::MAX;

/// Asks for the newest checkpoint of a stream, and for proofs that lead to it.
///
/// ```text
///   0            4          12           20
///   +------------+----------+------------+----------------------+
///   | request id | old_size | leaf_index | u16 len, stream name |
///   +------------+----------+------------+----------------------+
///                  0: none    all ones: none
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckpointGet {
    /// Names this request.
    pub request: RequestId,
    /// Size of an older checkpoint, of which it is to be proven that the newest continues it; 0 for none.
    pub old_size: u64,
    /// A leaf of which it is to be proven that it is in the tree.
    pub leaf_index: Option<u64>,
    /// The stream.
    pub stream: StreamName,
}

impl Frame for CheckpointGet {
    const KIND: FrameType = FrameType::CheckpointGet;

    fn encode_payload(&self, out: &mut BytesMut) {
        out.u32(self.request.0);
        out.u64(self.old_size);
        out.u64(self.leaf_index.unwrap_or(NO_LEAF));
        out.bytes16(self.stream.to_string().as_bytes());
    }

    fn decode_payload(flags: u8, payload: &Bytes) -> Result<Self, PayloadError> {
        no_flags(flags)?;
        let mut reader = Reader::new(payload);
        let request = RequestId(reader.u32("request id")?);
        let old_size = reader.u64("old_size")?;
        let leaf_index = Some(reader.u64("leaf_index")?).filter(|index| *index != NO_LEAF);
        let stream = decode_stream(&mut reader)?;
        reader.finish()?;
        Ok(Self { request, old_size, leaf_index, stream })
    }
}

/// The newest checkpoint of a stream, and the proofs that were asked for. The client trusts none of it before it has
/// verified the note's signature and computed the root from the proofs.
///
/// ```text
///   0            4      12
///   +------------+------+----------------------+---------------------------+-------------------------+---------------+
///   | request id | size | u16 n, n x 32 prefix | u16 n, n x 32 consistency | u16 n, n x 32 inclusion | u16 len, note |
///   +------------+------+----------------------+---------------------------+-------------------------+---------------+
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckpointReply {
    /// The request that this answers.
    pub request: RequestId,
    /// Leaves of the tree that the checkpoint is of; the note says it too, signed.
    pub size: u64,
    /// The compact range of `old_size` leaves, largest subtree first; empty when `old_size` is 0.
    pub prefix: Vec<[u8; 32]>,
    /// RFC 6962 consistency proof from `old_size` to `size`; empty when none was asked for, or they are equal.
    pub consistency: Vec<[u8; 32]>,
    /// RFC 6962 inclusion proof of the leaf; empty when none was asked for, or the tree has one leaf.
    pub inclusion: Vec<[u8; 32]>,
    /// The signed note.
    pub note: String,
}

impl Frame for CheckpointReply {
    const KIND: FrameType = FrameType::Checkpoint;

    fn encode_payload(&self, out: &mut BytesMut) {
        assert!(self.note.len() <= NOTE_BYTES_MAX, "a note is built within its limit");
        out.u32(self.request.0);
        out.u64(self.size);
        encode_hashes(&self.prefix, out);
        encode_hashes(&self.consistency, out);
        encode_hashes(&self.inclusion, out);
        out.bytes16(self.note.as_bytes());
    }

    fn decode_payload(flags: u8, payload: &Bytes) -> Result<Self, PayloadError> {
        no_flags(flags)?;
        let mut reader = Reader::new(payload);
        let reply = Self {
            request: RequestId(reader.u32("request id")?),
            size: reader.u64("size")?,
            prefix: decode_hashes(&mut reader, "prefix")?,
            consistency: decode_hashes(&mut reader, "consistency")?,
            inclusion: decode_hashes(&mut reader, "inclusion")?,
            note: reader.text16("note", NOTE_BYTES_MAX)?.to_owned(),
        };
        reader.finish()?;
        Ok(reply)
    }
}

fn encode_hashes(hashes: &[[u8; 32]], out: &mut BytesMut) {
    assert!(hashes.len() <= PROOF_HASHES_MAX, "a tree of 2^64 leaves has no longer proof");
    out.u16(u16::try_from(hashes.len()).expect("a proof is within its limit"));
    hashes.iter().for_each(|hash| out.raw(hash));
}

fn decode_hashes(reader: &mut Reader<'_>, field: &'static str) -> Result<Vec<[u8; 32]>, PayloadError> {
    let count = decode_count(reader, field, PROOF_HASHES_MAX)?;
    let mut hashes = Vec::with_capacity(count);
    for _ in 0..count {
        hashes.push(reader.array(field)?);
    }
    Ok(hashes)
}
