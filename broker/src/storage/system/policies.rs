//! `$policy`: every policy that was ever in force, whole, in the order in which they came.
//!
//! ```text
//!   frames of kind 33, one item each; a document longer than a part has several
//!   0           8            40         48       52        56
//!   +-----------+------------+----------+--------+---------+----------------------+
//!   | version   | hash (32)  | at_ms    | part   | parts   | bytes of the document |
//!   +-----------+------------+----------+--------+---------+----------------------+
//!     u64         SHA-256 of   u64        u32      u32
//!                 the document
//! ```
//!
//! A policy is durable here before it comes into force: what a batch says of the policy that it was accepted under can
//! be looked up for as long as the batch is kept.

use bytes::{Bytes, BytesMut};
use sealbus_protocol::ids::PolicyHash;
use sealbus_protocol::limits::POLICY_BYTES_MAX;
use sealbus_protocol::wire::{DecodeError, Reader, Write as _};

/// The kind of a frame that holds a policy, or a part of one.
pub const POLICY_FRAME: u8 = 33;

/// Bytes of one part: well within a frame.
const PART_BYTES: usize = 1_024 * 1_024;

/// Parts of the longest document.
const PARTS_MAX: u32 = (POLICY_BYTES_MAX / PART_BYTES) as u32 + 1;

/// A part of a policy, as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyPart {
    /// The version that the document states.
    pub version: u64,
    /// SHA-256 of the whole document.
    pub hash: PolicyHash,
    /// When it was put in force, milliseconds since 1970.
    pub at_ms: u64,
    /// Which part, from 0.
    pub part: u32,
    /// How many there are.
    pub parts: u32,
    /// The part.
    pub bytes: Bytes,
}

/// The payloads of the records that hold a policy.
#[must_use]
pub fn encode_policy(version: u64, hash: PolicyHash, at_ms: u64, document: &[u8]) -> Vec<Bytes> {
    let parts = document.chunks(PART_BYTES).collect::<Vec<_>>();
    let count = u32::try_from(parts.len()).unwrap_or(u32::MAX);
    (0..count)
        .zip(parts)
        .map(|(part, bytes)| {
            let mut out = BytesMut::with_capacity(64 + bytes.len());
            out.u64(version);
            out.raw(hash.as_bytes());
            out.u64(at_ms);
            out.u32(part);
            out.u32(count);
            out.raw(bytes);
            out.freeze()
        })
        .collect()
}

/// Reads a record.
///
/// # Errors
/// [`DecodeError`] when it is not one of ours.
pub fn decode_policy(payload: &Bytes) -> Result<PolicyPart, DecodeError> {
    let mut reader = Reader::new(payload);
    let part = PolicyPart {
        version: reader.u64("version")?,
        hash: PolicyHash::new(reader.array("hash")?),
        at_ms: reader.u64("at_ms")?,
        part: reader.u32("part")?,
        parts: reader.u32("parts")?,
        bytes: payload.slice_ref(reader.rest()),
    };
    let in_order = part.part < part.parts && part.parts <= PARTS_MAX;
    if !in_order || part.bytes.is_empty() || part.bytes.len() > PART_BYTES {
        return Err(DecodeError::Value { field: "part" });
    }
    Ok(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_document_comes_back_from_its_parts() {
        let document: Vec<u8> = (0..PART_BYTES * 2 + 17).map(|index| index as u8).collect();
        let hash = PolicyHash::new([7; 32]);
        let records = encode_policy(9, hash, 1_000, &document);
        assert_eq!(records.len(), 3);
        let parts: Vec<PolicyPart> = records.iter().map(|record| decode_policy(record).unwrap()).collect();
        assert!(parts.iter().all(|part| (part.version, part.hash, part.parts) == (9, hash, 3)));
        assert_eq!(parts.iter().flat_map(|part| part.bytes.to_vec()).collect::<Vec<u8>>(), document);
        for cut in 0..=56 {
            assert!(decode_policy(&records[0].slice(..cut)).is_err(), "{cut}");
        }
    }

    #[test]
    fn parts_out_of_their_number_are_refused() {
        let record = encode_policy(9, PolicyHash::ZERO, 1_000, b"version = 9");
        for (part, parts) in [(1, 1), (0, 0), (7, 3), (0, PARTS_MAX + 1)] {
            let mut bytes = record[0].to_vec();
            bytes[48..52].copy_from_slice(&u32::to_be_bytes(part));
            bytes[52..56].copy_from_slice(&u32::to_be_bytes(parts));
            assert!(decode_policy(&bytes.into()).is_err(), "{part} of {parts}");
        }
    }
}
