//! Making batches: records are collected in an [`OpenBatch`], and a [`ProducerChain`] signs it into its place.

use std::fmt;

use bytes::{Bytes, BytesMut};

use crate::ids::{BusId, ContentHash, IncarnationId, InstanceId, Kid, PreambleDigest, TopicDigest};
use crate::keys::{Purpose, SigningKey};
use crate::limits::{BATCH_BYTES_MAX, BATCH_MESSAGES_MAX};
use crate::memory;

use super::preamble::{Content, HEAD_LEN, PREAMBLE_LEN, Position, Preamble, Seal, preamble_digest};
use super::record::{Headers, Record, RecordError};

/// Messages that wait to be signed together. The head's place is kept free, so that signing moves no byte of them.
#[derive(Clone)]
pub struct OpenBatch {
    bytes: BytesMut,
    count: u32,
    created_ms: u64,
}

impl OpenBatch {
    /// An empty batch, begun at `created_ms` (milliseconds since 1970).
    #[must_use]
    pub fn new(created_ms: u64) -> Self {
        Self { bytes: BytesMut::zeroed(HEAD_LEN), count: 0, created_ms }
    }

    /// An empty batch with room for `bytes_len` bytes, head included, for those who expect that many.
    #[must_use]
    pub fn with_room(created_ms: u64, bytes_len: usize) -> Self {
        let mut bytes = memory::of(bytes_len.clamp(HEAD_LEN, BATCH_BYTES_MAX));
        bytes.resize(HEAD_LEN, 0);
        Self { bytes, count: 0, created_ms }
    }

    /// Adds a message that was published at `now_ms`.
    ///
    /// # Errors
    /// [`PushError::Full`] when the batch has no room left for it (begin another one), or [`PushError::Message`]
    /// when no batch could hold it. Nothing is added then.
    #[inline]
    pub fn push(
        &mut self,
        now_ms: u64,
        key: &[u8],
        headers: Headers<'_>,
        payload: &[u8],
    ) -> Result<(), PushError> {
        let record = Record { time_delta_ms: delta_ms(self.created_ms, now_ms), key, headers, payload };
        // First, since a message that no batch holds would find every batch full.
        record.check().map_err(PushError::Message)?;
        if self.count == BATCH_MESSAGES_MAX || self.bytes.len() + record.encoded_len() > BATCH_BYTES_MAX {
            return Err(PushError::Full);
        }
        record.encode(&mut self.bytes).map_err(PushError::Message)?;
        self.count += 1;
        Ok(())
    }

    /// Messages collected so far.
    #[must_use]
    pub const fn count(&self) -> u32 {
        self.count
    }

    /// Bytes that the batch would have if it were signed now.
    #[must_use]
    pub fn bytes_len(&self) -> usize {
        self.bytes.len()
    }
}

impl fmt::Debug for OpenBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenBatch").field("count", &self.count).field("bytes", &self.bytes.len()).finish()
    }
}

/// Why a message was not added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PushError {
    /// The batch has no room left; a new one has.
    Full,
    /// The message exceeds what any batch may hold.
    Message(RecordError),
}

impl fmt::Display for PushError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("the batch is full"),
            Self::Message(error) => write!(f, "the message cannot be sent: {error}"),
        }
    }
}

impl std::error::Error for PushError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Message(error) => Some(error),
            Self::Full => None,
        }
    }
}

/// What all batches of one incarnation have in common.
#[derive(Debug, Clone)]
pub struct ProducerContext {
    /// The bus.
    pub bus_id: BusId,
    /// The signing key's id.
    pub kid: Kid,
    /// The process or replica.
    pub instance_id: InstanceId,
    /// Start of the incarnation, milliseconds since 1970.
    pub started_ms: u64,
    /// The incarnation.
    pub incarnation_id: IncarnationId,
    /// The policy that the producer holds; 0 when none.
    pub policy_version: u64,
}

/// The end of one (incarnation, topic) chain: where the next batch goes.
///
/// Signing takes the chain by `&mut` and always moves it, so that two preambles for one sequence number are never
/// signed.
#[derive(Debug)]
pub struct ProducerChain {
    topic: TopicDigest,
    next_seq: u64,
    prev: PreambleDigest,
}

impl ProducerChain {
    /// The chain of a topic that has no batch yet.
    #[must_use]
    pub const fn new(topic: TopicDigest) -> Self {
        Self { topic, next_seq: 0, prev: PreambleDigest::ZERO }
    }

    /// Sequence number of the next message.
    #[must_use]
    pub const fn next_seq(&self) -> u64 {
        self.next_seq
    }

    /// Signs the collected messages into the next place of the chain.
    ///
    /// # Panics
    /// When the batch is empty: a heartbeat says so by name.
    #[must_use]
    pub fn sign(&mut self, open: OpenBatch, context: &ProducerContext, key: &SigningKey) -> SignedBatch {
        assert!(open.count > 0, "an empty batch is not signed");
        self.sign_content(open, Content::Messages, context, key)
    }

    /// Signs a heartbeat: a sign of life that takes one sequence number.
    #[must_use]
    pub fn sign_heartbeat(
        &mut self,
        now_ms: u64,
        context: &ProducerContext,
        key: &SigningKey,
    ) -> SignedBatch {
        self.sign_content(OpenBatch::new(now_ms), |_| Content::Heartbeat, context, key)
    }

    fn sign_content(
        &mut self,
        open: OpenBatch,
        content: impl FnOnce(u32) -> Content,
        context: &ProducerContext,
        key: &SigningKey,
    ) -> SignedBatch {
        let mut bytes = open.bytes;
        let body = &bytes[HEAD_LEN..];
        let preamble = Preamble {
            seal: Seal::None,
            content: content(open.count),
            position: Position::Open,
            bus_id: context.bus_id,
            topic: self.topic,
            policy_version: context.policy_version,
            kid: context.kid,
            instance_id: context.instance_id,
            started_ms: context.started_ms,
            incarnation_id: context.incarnation_id,
            first_seq: self.next_seq,
            body_len: u32::try_from(body.len()).expect("a batch is at most a megabyte"),
            created_ms: open.created_ms,
            prev: self.prev,
            content_hash: ContentHash::new(*blake3::hash(body).as_bytes()),
        };
        let encoded = preamble.encode();
        let signature = key.sign(Purpose::Batch, &[&encoded]);
        bytes[..PREAMBLE_LEN].copy_from_slice(&encoded);
        bytes[PREAMBLE_LEN..HEAD_LEN].copy_from_slice(&signature);
        self.prev = preamble_digest(&encoded);
        self.next_seq = preamble.next_seq();
        SignedBatch {
            bytes: memory::freeze(bytes),
            first_seq: preamble.first_seq,
            count: open.count,
            digest: self.prev,
        }
    }
}

/// A batch as its producer keeps it until it is acknowledged: a retry sends the same bytes.
#[derive(Clone)]
pub struct SignedBatch {
    bytes: Bytes,
    first_seq: u64,
    count: u32,
    digest: PreambleDigest,
}

impl SignedBatch {
    /// The whole batch.
    #[must_use]
    pub const fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Sequence number of the first message.
    #[must_use]
    pub const fn first_seq(&self) -> u64 {
        self.first_seq
    }

    /// Messages in the batch.
    #[must_use]
    pub const fn count(&self) -> u32 {
        self.count
    }

    /// Digest of the preamble.
    #[must_use]
    pub const fn digest(&self) -> PreambleDigest {
        self.digest
    }
}

impl fmt::Debug for SignedBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignedBatch").field("first_seq", &self.first_seq).field("count", &self.count).finish()
    }
}

/// A clock that jumps further than an i32 can say is cut to what it can.
fn delta_ms(created_ms: u64, now_ms: u64) -> i32 {
    let delta = i128::from(now_ms) - i128::from(created_ms);
    i32::try_from(delta).unwrap_or(if delta < 0 { i32::MIN } else { i32::MAX })
}

#[cfg(test)]
mod tests {
    use super::super::signed::Batch;
    use super::super::testing::Producer;
    use super::*;
    use crate::limits::PAYLOAD_BYTES_MAX;

    #[test]
    fn batches_chain_to_each_other() {
        let mut producer = Producer::new("orders/eu");
        let first = producer.batch(&[b"one", b"two"]);
        let second = producer.batch(&[b"three"]);
        assert_eq!(first.preamble().first_seq, 0);
        assert!(first.preamble().prev.is_zero());
        assert_eq!(second.preamble().first_seq, 2);
        assert_eq!(second.preamble().prev, first.digest());
    }

    #[test]
    fn a_heartbeat_takes_one_sequence_number() {
        let mut producer = Producer::new("orders/eu");
        let heartbeat = producer.chain.sign_heartbeat(1_000_000, &producer.context, &producer.key);
        let heartbeat = Batch::decode(heartbeat.bytes().clone()).unwrap();
        assert_eq!(heartbeat.preamble().content, Content::Heartbeat);
        assert_eq!(producer.batch(&[b"one"]).preamble().first_seq, 1);
    }

    #[test]
    fn a_batch_is_full_by_bytes_and_by_count() {
        let mut open = OpenBatch::new(0);
        let payload = vec![0; PAYLOAD_BYTES_MAX];
        open.push(0, b"", Headers::NONE, &payload).unwrap();
        assert_eq!(open.push(0, b"", Headers::NONE, &payload), Err(PushError::Full));
        assert_eq!(open.count(), 1);
        let mut small = OpenBatch::new(0);
        for _ in 0..BATCH_MESSAGES_MAX {
            small.push(0, b"", Headers::NONE, b"").unwrap();
        }
        assert_eq!(small.push(0, b"", Headers::NONE, b""), Err(PushError::Full));
    }

    #[test]
    fn a_message_that_no_batch_could_hold_says_so() {
        for payload_len in [PAYLOAD_BYTES_MAX + 1, BATCH_BYTES_MAX, 2 * BATCH_BYTES_MAX] {
            let payload = vec![0; payload_len];
            for mut open in [OpenBatch::new(0), nearly_full()] {
                let refused = open.push(0, b"", Headers::NONE, &payload);
                assert!(
                    matches!(refused, Err(PushError::Message(RecordError::TooLong { .. }))),
                    "{payload_len}"
                );
            }
        }
    }

    fn nearly_full() -> OpenBatch {
        let mut open = OpenBatch::new(0);
        open.push(0, b"", Headers::NONE, &vec![0; PAYLOAD_BYTES_MAX]).unwrap();
        open
    }

    #[test]
    fn a_clock_that_jumps_is_cut_to_what_the_field_holds() {
        assert_eq!(delta_ms(10, 3), -7);
        assert_eq!(delta_ms(0, u64::MAX), i32::MAX);
        assert_eq!(delta_ms(u64::MAX, 0), i32::MIN);
    }
}
