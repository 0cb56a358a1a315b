//! What of a stored batch is a leaf of its stream's tree.

use super::tree::{Hash, leaf_hash};
use crate::batch::PREAMBLE_LEN;
use crate::ids::{BusId, StreamId};
use crate::keys::SIGNATURE_LEN;

/// Bytes of a leaf.
pub const LEAF_LEN: usize = FIELDS_LEN + PREAMBLE_LEN + SIGNATURE_LEN;

const FIELDS_LEN: usize = 60;

/// What the broker adds to a batch when it keeps it. With the batch's preamble and signature this is the leaf; the
/// content hash in the preamble stands for the body, which may go (retention) while the leaf stays.
///
/// ```text
/// 0      4        20          36            44          52               60         356         420
/// | SBL1 | bus_id | stream_id | base_offset | append_ms | policy_version | preamble | signature |
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeafFields {
    /// The bus: leaves of one mean nothing on another.
    pub bus_id: BusId,
    /// The stream.
    pub stream_id: StreamId,
    /// Offset of the batch's first message.
    pub base_offset: u64,
    /// When the broker appended it, by its own clock; never before the leaf that precedes.
    pub append_ms: u64,
    /// The policy under which it was accepted; never below that of the leaf that precedes.
    pub policy_version: u64,
}

impl LeafFields {
    /// The bytes that are hashed.
    #[must_use]
    pub fn leaf_bytes(
        &self,
        preamble: &[u8; PREAMBLE_LEN],
        signature: &[u8; SIGNATURE_LEN],
    ) -> [u8; LEAF_LEN] {
        let mut leaf = [0; LEAF_LEN];
        let mut rest = leaf.as_mut_slice();
        let fields: [&[u8]; 8] = [
            b"SBL1",
            self.bus_id.as_bytes(),
            self.stream_id.as_bytes(),
            &self.base_offset.to_be_bytes(),
            &self.append_ms.to_be_bytes(),
            &self.policy_version.to_be_bytes(),
            preamble,
            signature,
        ];
        for field in fields {
            let (place, after) = rest.split_at_mut(field.len());
            place.copy_from_slice(field);
            rest = after;
        }
        assert!(rest.is_empty(), "the fields are as long as the leaf");
        leaf
    }

    /// The leaf's hash in the tree.
    #[must_use]
    pub fn leaf_hash(&self, preamble: &[u8; PREAMBLE_LEN], signature: &[u8; SIGNATURE_LEN]) -> Hash {
        leaf_hash(&self.leaf_bytes(preamble, signature))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_stands_in_its_place() {
        let fields = LeafFields {
            bus_id: BusId::new([1; 16]),
            stream_id: StreamId::new([2; 16]),
            base_offset: 0x0303_0303_0303_0303,
            append_ms: 0x0404_0404_0404_0404,
            policy_version: 0x0505_0505_0505_0505,
        };
        let leaf = fields.leaf_bytes(&[6; PREAMBLE_LEN], &[7; SIGNATURE_LEN]);
        assert_eq!(LEAF_LEN, 420);
        let expected: Vec<u8> = [(1_u8, 16), (2, 16), (3, 8), (4, 8), (5, 8), (6, 296), (7, 64)]
            .into_iter()
            .fold(b"SBL1".to_vec(), |mut bytes, (byte, len)| {
                bytes.resize(bytes.len() + len, byte);
                bytes
            });
        assert_eq!(leaf[..], expected);
        assert_eq!(fields.leaf_hash(&[6; PREAMBLE_LEN], &[7; SIGNATURE_LEN]), leaf_hash(&expected));
    }
}
