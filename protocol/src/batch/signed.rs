//! A whole batch: its bytes, and the proof that its producer made them.

use std::fmt;

use bytes::Bytes;

use crate::ids::{ContentHash, PreambleDigest};
use crate::keys::{Purpose, SIGNATURE_LEN, VerifyingKey};
use crate::limits::BATCH_BYTES_MAX;

use super::preamble::{FormatError, HEAD_LEN, PREAMBLE_LEN, Preamble, Seal, preamble_digest};
use super::record::{Record, RecordError, Records};
use super::span::RecordSpan;

/// Where the first record begins.
const RECORDS_AT: u32 = {
    assert!(HEAD_LEN <= u32::MAX as usize);
    HEAD_LEN as u32
};

/// A batch whose bytes are well formed: the preamble parses, the length is right, and an unsealed body holds exactly
/// the records that the preamble declares. Who made it is not known yet.
#[derive(Clone)]
pub struct Batch {
    bytes: Bytes,
    preamble: Preamble,
}

impl Batch {
    /// Parses the bytes of one batch. They are kept as they are; cloning shares them.
    ///
    /// # Errors
    /// [`FormatError`] says what is wrong with them.
    pub fn decode(bytes: Bytes) -> Result<Self, FormatError> {
        if bytes.len() > BATCH_BYTES_MAX {
            return Err(FormatError::Length { expected: BATCH_BYTES_MAX, found: bytes.len() });
        }
        let Some((head, body)) = bytes.split_first_chunk::<PREAMBLE_LEN>() else {
            return Err(FormatError::Length { expected: HEAD_LEN, found: bytes.len() });
        };
        let preamble = Preamble::decode(head)?;
        let body_len = usize::try_from(preamble.body_len).unwrap_or(usize::MAX);
        let expected = HEAD_LEN.saturating_add(body_len);
        if bytes.len() != expected {
            return Err(FormatError::Length { expected, found: bytes.len() });
        }
        if preamble.seal == Seal::None {
            check_records(preamble.content.messages(), &body[SIGNATURE_LEN..])?;
        }
        Ok(Self { bytes, preamble })
    }

    /// The preamble.
    #[must_use]
    pub const fn preamble(&self) -> &Preamble {
        &self.preamble
    }

    /// The whole batch, as it arrived.
    #[must_use]
    pub const fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The 296 bytes that the signature covers.
    #[must_use]
    pub fn preamble_bytes(&self) -> &[u8; PREAMBLE_LEN] {
        self.bytes.first_chunk().expect("decode has seen a whole head")
    }

    /// The signature over the preamble.
    #[must_use]
    pub fn signature(&self) -> &[u8; SIGNATURE_LEN] {
        self.bytes[PREAMBLE_LEN..].first_chunk().expect("decode has seen a whole head")
    }

    /// The body as transmitted.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        &self.bytes[HEAD_LEN..]
    }

    /// The digest that the next batch of this incarnation and topic chains to.
    #[must_use]
    pub fn digest(&self) -> PreambleDigest {
        preamble_digest(self.preamble_bytes())
    }

    /// Verifies content hash and signature: the proof that the holder of `key` made exactly these bytes.
    ///
    /// Whether the key is the one that the preamble names, and whose it is, is for the caller to know: `key` is
    /// looked up by [`Preamble::kid`].
    ///
    /// # Errors
    /// [`VerifyError`] when either does not hold.
    pub fn verify(self, key: &VerifyingKey) -> Result<VerifiedBatch, VerifyError> {
        if ContentHash::new(*blake3::hash(self.body()).as_bytes()) != self.preamble.content_hash {
            return Err(VerifyError::ContentHash);
        }
        key.verify(Purpose::Batch, &[self.preamble_bytes()], self.signature())
            .map_err(|_| VerifyError::Signature)?;
        Ok(VerifiedBatch(self))
    }
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch").field("preamble", &self.preamble).finish_non_exhaustive()
    }
}

/// A batch whose content hash and signature have been verified. Only [`Batch::verify`] makes one.
#[derive(Debug, Clone)]
pub struct VerifiedBatch(Batch);

impl VerifiedBatch {
    /// The batch.
    #[must_use]
    pub const fn batch(&self) -> &Batch {
        &self.0
    }

    /// The messages of an unsealed body, in order. A sealed body yields none.
    pub fn records(&self) -> impl Iterator<Item = Record<'_>> {
        let body = if self.0.preamble.seal == Seal::None { self.0.body() } else { &[] };
        Records::new(body).map_while(Result::ok)
    }

    /// Where the record after `before` lies, the first when there is none before; none at the end, and in a sealed body.
    /// Cheaper than [`VerifiedBatch::records`] for those who want places: nothing is parsed a second time.
    #[must_use]
    pub fn span_after(&self, before: Option<&RecordSpan>) -> Option<RecordSpan> {
        if self.0.preamble.seal != Seal::None {
            return None;
        }
        let at = before.map_or(RECORDS_AT, RecordSpan::end);
        RecordSpan::find(&self.0.bytes, at)
    }
}

/// Why a well-formed batch proves nothing: the code SIGNATURE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VerifyError {
    /// The body is not the one that the preamble commits to.
    ContentHash,
    /// The preamble was not signed by this key.
    Signature,
}

impl fmt::Display for VerifyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ContentHash => "the body is not the one that its producer signed (content hash differs)",
            Self::Signature => "the signature of the preamble does not verify under its producer's key",
        })
    }
}

impl std::error::Error for VerifyError {}

/// Whether a body holds `declared` records and nothing else.
fn check_records(declared: u32, body: &[u8]) -> Result<(), FormatError> {
    let mut records = Records::new(body);
    let mut index = 0;
    // One more than declared is enough to know.
    while index <= declared
        && let Some(record) = records.next()
    {
        let record = record.map_err(|error| FormatError::Record { index, error })?;
        index += 1;
        index += records.pass_alike(&record, declared.saturating_sub(index));
    }
    if index != declared {
        return Err(FormatError::Record { index, error: RecordError::Count });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::Index;

    use super::super::record::{Headers, HeadersBuf, Record};
    use super::super::testing::Producer;
    use super::*;

    #[test]
    fn any_flipped_bit_is_refused() {
        let mut producer = Producer::new("orders/eu");
        let batch = producer.batch(&[b"one", b"two"]);
        let key = producer.key.verifying_key();
        assert!(batch.clone().verify(&key).is_ok());
        for at in 0..batch.bytes().len() {
            for bit in 0..8 {
                let mut bytes = batch.bytes().to_vec();
                bytes[at] ^= 1 << bit;
                let refused = match Batch::decode(bytes.into()) {
                    Err(_) => true,
                    Ok(batch) => batch.verify(&key).is_err(),
                };
                assert!(refused, "byte {at} bit {bit}");
            }
        }
    }

    #[test]
    fn any_cut_and_any_addition_is_refused() {
        let batch = Producer::new("orders/eu").batch(&[b"one", b"two"]);
        for len in 0..batch.bytes().len() {
            assert!(Batch::decode(batch.bytes().slice(..len)).is_err(), "cut at {len}");
        }
        let mut longer = batch.bytes().to_vec();
        longer.push(0);
        assert!(matches!(Batch::decode(longer.into()), Err(FormatError::Length { .. })));
    }

    #[test]
    fn records_cannot_be_swapped_dropped_doubled_or_added() {
        let mut producer = Producer::new("orders/eu");
        let batch = producer.batch(&[b"one", b"two", b"six"]);
        let key = producer.key.verifying_key();
        let (head, body) = batch.bytes().split_at(HEAD_LEN);
        let record = |index: usize| &body[index * 15..(index + 1) * 15];
        for order in [vec![1, 0, 2], vec![0, 1], vec![0, 0, 1, 2], vec![0, 1, 1], vec![0, 1, 2, 2]] {
            let mut bytes = head.to_vec();
            order.iter().for_each(|index| bytes.extend(record(*index)));
            let refused = Batch::decode(bytes.into()).map_or(true, |batch| batch.verify(&key).is_err());
            assert!(refused, "{order:?}");
        }
    }

    #[test]
    fn a_body_with_another_number_of_records_is_refused() {
        let batch = Producer::new("orders/eu").batch(&[b"one", b"two"]);
        let mut bytes = batch.bytes().to_vec();
        bytes[144..148].copy_from_slice(&1u32.to_be_bytes());
        assert!(matches!(
            Batch::decode(bytes.into()),
            Err(FormatError::Record { error: RecordError::Count, .. })
        ));
    }

    #[test]
    fn a_verified_batch_hands_out_its_messages() {
        let mut producer = Producer::new("orders/eu");
        let key = producer.key.verifying_key();
        let verified = producer.batch(&[b"one", b"two"]).verify(&key).unwrap();
        let payloads: Vec<_> = verified.records().map(|record| record.payload).collect();
        assert_eq!(payloads, [b"one", b"two"]);
    }

    /// The rule of `check_records`, with every record read in full.
    fn check_one_by_one(declared: u32, body: &[u8]) -> Result<(), FormatError> {
        let mut index = 0;
        for record in Records::new(body).take(declared as usize + 1) {
            record.map_err(|error| FormatError::Record { index, error })?;
            index += 1;
        }
        if index == declared { Ok(()) } else { Err(FormatError::Record { index, error: RecordError::Count }) }
    }

    proptest! {
        #[test]
        fn records_of_one_shape_are_checked_like_any_others(
            shapes in vec((0usize..4, 0usize..3, 0usize..2, any::<i32>()), 0..12),
            repeats in 1usize..6,
            changed in proptest::option::of((any::<Index>(), any::<u8>())),
            cut in 0usize..4,
            off in -2i64..=2,
        ) {
            let with = HeadersBuf::new([("a", &b"1"[..])]).unwrap();
            let mut body = Vec::new();
            for (payload, key, headers, time_delta_ms) in &shapes {
                let headers = if *headers == 0 { Headers::NONE } else { with.headers() };
                for _ in 0..repeats {
                    let (key, payload) = (&b"key"[..*key], &b"payload"[..*payload]);
                    Record { time_delta_ms: *time_delta_ms, key, headers, payload }.encode(&mut body).unwrap();
                }
            }
            if let Some((at, value)) = changed && !body.is_empty() {
                let at = at.index(body.len());
                body[at] = value;
            }
            body.truncate(body.len() - cut.min(body.len()));
            let declared = ((shapes.len() * repeats) as i64 + off).max(0) as u32;
            prop_assert_eq!(check_records(declared, &body), check_one_by_one(declared, &body), "{:?}", body);
        }
    }
}
