//! The preamble: the 296 signed bytes that say whose batch this is, where it belongs and what comes before it.

use std::fmt;

use crate::ids::{BusId, ContentHash, IncarnationId, InstanceId, Kid, PreambleDigest, TopicDigest};
use crate::keys;
use crate::limits::{BATCH_BYTES_MAX, BATCH_MESSAGES_MAX};
use crate::wire::{DecodeError, Reader, Write};

use super::record::RecordError;

/// Bytes of a preamble.
pub const PREAMBLE_LEN: usize = 296;

/// Bytes before the body: preamble and signature.
pub const HEAD_LEN: usize = PREAMBLE_LEN + keys::SIGNATURE_LEN;

/// Bytes of the body's largest form, with the head in place.
pub const BODY_BYTES_MAX: usize = BATCH_BYTES_MAX - HEAD_LEN;

/// Bytes of a record without key, headers and payload; also the least that a message adds to a body.
pub const RECORD_HEAD_LEN: usize = 12;

const MAGIC: [u8; 4] = *b"SBB1";
const SUITE_ED25519_BLAKE3: u8 = 1;
const AEAD_TAG_LEN: usize = 16;
const FLAG_HEARTBEAT: u16 = 1;
const FLAG_LAST: u16 = 2;

/// How a body is protected from those who may not read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seal {
    /// Anybody who sees the batch can read it.
    None,
    /// ChaCha20-Poly1305 under the batch's own content key.
    ChaCha20Poly1305 {
        /// The sealing fields of the preamble.
        with: Sealing,
    },
    /// AES-256-GCM under the batch's own content key.
    Aes256Gcm {
        /// The sealing fields of the preamble.
        with: Sealing,
    },
}

/// The preamble's fields that only a sealed batch fills.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sealing {
    /// Epoch of the stream's key pair, from 1.
    pub key_epoch: u32,
    /// Makes the content key unique to the batch.
    pub salt: [u8; 32],
    /// The SenderKey record that the content key comes from.
    pub sender_key: [u8; 32],
}

impl Seal {
    const fn wire(&self) -> u8 {
        match self {
            Self::None => 0,
            Self::ChaCha20Poly1305 { .. } => 1,
            Self::Aes256Gcm { .. } => 2,
        }
    }

    const fn sealing(&self) -> Option<&Sealing> {
        match self {
            Self::None => None,
            Self::ChaCha20Poly1305 { with } | Self::Aes256Gcm { with } => Some(with),
        }
    }
}

/// What a batch holds: messages, or a sign of life that takes one sequence number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// This many messages, from 1 to [`BATCH_MESSAGES_MAX`].
    Messages(u32),
    /// No message and no body.
    Heartbeat,
}

impl Content {
    /// Sequence numbers that the batch takes.
    #[must_use]
    pub const fn sequence_span(self) -> u64 {
        match self {
            Self::Messages(count) => count as u64,
            Self::Heartbeat => 1,
        }
    }

    /// Messages in the batch.
    #[must_use]
    pub const fn messages(self) -> u32 {
        match self {
            Self::Messages(count) => count,
            Self::Heartbeat => 0,
        }
    }
}

/// Whether the producer goes on with this incarnation on this topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Position {
    /// More may follow.
    Open,
    /// Nothing follows.
    Last,
}

/// A decoded preamble. Its fields have passed every check that needs no context.
///
/// ```text
///   0        4     5     6       8                24
///   +--------+-----+-----+-------+----------------+--------------------------------+
///   | "SBB1" |suite|seal | flags | bus_id         | topic digest (32)              |
///   +--------+-----+-----+-------+----------------+--------------------------------+
///  56               64               96               112            120
///   +----------------+----------------+----------------+--------------+----------------+
///   | policy_version | kid (32)       | instance_id    | started_ms   | incarnation_id |
///   +----------------+----------------+----------------+--------------+----------------+
/// 136         144     148        152         156        160          168
///   +----------+-------+----------+-----------+----------+------------+-------------+
///   |first_seq | count | body_len | key_epoch | reserved | created_ms | salt (32)   |
///   +----------+-------+----------+-----------+----------+------------+-------------+
/// 200               232             264                 296
///   +----------------+---------------+-------------------+
///   |sender_key (32) | prev (32)     | content hash (32) |
///   +----------------+---------------+-------------------+
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preamble {
    /// How the body is sealed.
    pub seal: Seal,
    /// Messages or heartbeat.
    pub content: Content,
    /// Whether the producer goes on.
    pub position: Position,
    /// The bus that the batch was made for.
    pub bus_id: BusId,
    /// The topic, within its stream, that it was made for.
    pub topic: TopicDigest,
    /// The policy that the producer held; 0 when it holds none.
    pub policy_version: u64,
    /// The signing key.
    pub kid: Kid,
    /// The producer's process or replica.
    pub instance_id: InstanceId,
    /// Start of the incarnation, milliseconds since 1970.
    pub started_ms: u64,
    /// The incarnation, within which sequences count.
    pub incarnation_id: IncarnationId,
    /// Sequence number of the first message, from 0 per incarnation and topic.
    pub first_seq: u64,
    /// Bytes of the body.
    pub body_len: u32,
    /// The producer's clock, milliseconds since 1970.
    pub created_ms: u64,
    /// Digest of the preamble before this one; zero for the first.
    pub prev: PreambleDigest,
    /// BLAKE3 of the body as transmitted.
    pub content_hash: ContentHash,
}

impl Preamble {
    /// Decodes a preamble and checks all that can be checked without context.
    ///
    /// # Errors
    /// [`FormatError`] for an unknown version, suite, seal or flag, a reserved field that is not zero, or fields that
    /// contradict each other.
    pub fn decode(bytes: &[u8; PREAMBLE_LEN]) -> Result<Self, FormatError> {
        let mut reader = Reader::new(bytes);
        if reader.array::<4>("magic")? != MAGIC {
            return Err(FormatError::Magic);
        }
        let suite = reader.u8("suite")?;
        if suite != SUITE_ED25519_BLAKE3 {
            return Err(FormatError::Suite { found: suite });
        }
        let seal = reader.u8("seal")?;
        let flags = reader.u16("flags")?;
        let bus_id = BusId::new(reader.array("bus_id")?);
        let topic = TopicDigest::new(reader.array("topic digest")?);
        let policy_version = reader.u64("policy_version")?;
        let kid = Kid::new(reader.array("kid")?);
        let instance_id = InstanceId::new(reader.array("instance_id")?);
        let started_ms = reader.u64("started_ms")?;
        let incarnation_id = IncarnationId::new(reader.array("incarnation_id")?);
        let first_seq = reader.u64("first_seq")?;
        let count = reader.u32("count")?;
        let body_len = reader.u32("body_len")?;
        let key_epoch = reader.u32("key_epoch")?;
        reader.zeros("reserved", 4)?;
        let created_ms = reader.u64("created_ms")?;
        let sealing =
            Sealing { key_epoch, salt: reader.array("salt")?, sender_key: reader.array("sender_key")? };
        let prev = PreambleDigest::new(reader.array("prev")?);
        let content_hash = ContentHash::new(reader.array("content hash")?);
        reader.finish()?;

        let preamble = Self {
            seal: decode_seal(seal, sealing)?,
            content: decode_content(flags, count)?,
            position: if flags & FLAG_LAST == 0 { Position::Open } else { Position::Last },
            bus_id,
            topic,
            policy_version,
            kid,
            instance_id,
            started_ms,
            incarnation_id,
            first_seq,
            body_len,
            created_ms,
            prev,
            content_hash,
        };
        preamble.check()?;
        Ok(preamble)
    }

    /// The 296 bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; PREAMBLE_LEN] {
        let mut out = Vec::with_capacity(PREAMBLE_LEN);
        out.raw(&MAGIC);
        out.u8(SUITE_ED25519_BLAKE3);
        out.u8(self.seal.wire());
        out.u16(self.flags());
        out.raw(self.bus_id.as_bytes());
        out.raw(self.topic.as_bytes());
        out.u64(self.policy_version);
        out.raw(self.kid.as_bytes());
        out.raw(self.instance_id.as_bytes());
        out.u64(self.started_ms);
        out.raw(self.incarnation_id.as_bytes());
        out.u64(self.first_seq);
        out.u32(self.content.messages());
        out.u32(self.body_len);
        let sealing = self.seal.sealing();
        out.u32(sealing.map_or(0, |sealing| sealing.key_epoch));
        out.u32(0);
        out.u64(self.created_ms);
        out.raw(&sealing.map_or([0; 32], |sealing| sealing.salt));
        out.raw(&sealing.map_or([0; 32], |sealing| sealing.sender_key));
        out.raw(self.prev.as_bytes());
        out.raw(self.content_hash.as_bytes());
        out.try_into().expect("the fields of a preamble have fixed sizes that add up to 296")
    }

    /// The sequence number that follows this batch.
    ///
    /// Cannot overflow: [`Preamble::decode`] refuses a batch that reaches the end of the number space.
    #[must_use]
    pub const fn next_seq(&self) -> u64 {
        self.first_seq.saturating_add(self.content.sequence_span())
    }

    const fn flags(&self) -> u16 {
        let heartbeat = match self.content {
            Content::Heartbeat => FLAG_HEARTBEAT,
            Content::Messages(_) => 0,
        };
        let last = match self.position {
            Position::Last => FLAG_LAST,
            Position::Open => 0,
        };
        heartbeat | last
    }

    /// Fields that must agree with each other.
    fn check(&self) -> Result<(), FormatError> {
        let body_len = usize::try_from(self.body_len).unwrap_or(usize::MAX);
        if body_len > BODY_BYTES_MAX {
            return Err(FormatError::BodyTooLong { found: self.body_len });
        }
        let tag = if self.seal == Seal::None { 0 } else { AEAD_TAG_LEN as u64 };
        let least = RECORD_HEAD_LEN as u64 * u64::from(self.content.messages()) + tag;
        let length_fits = match self.content {
            Content::Messages(_) => u64::from(self.body_len) >= least,
            Content::Heartbeat => self.body_len == 0 && self.seal == Seal::None,
        };
        if !length_fits {
            return Err(FormatError::BodyLength { count: self.content.messages(), found: self.body_len });
        }
        if self.first_seq.checked_add(self.content.sequence_span()).is_none() {
            return Err(FormatError::SequenceExhausted);
        }
        if (self.first_seq == 0) != self.prev.is_zero() {
            return Err(FormatError::ChainStart);
        }
        Ok(())
    }
}

/// The digest that the next batch of the same incarnation and topic carries as `prev`.
#[must_use]
pub fn preamble_digest(preamble: &[u8; PREAMBLE_LEN]) -> PreambleDigest {
    PreambleDigest::new(keys::derive("sealbus/1 preamble", &[preamble]))
}

fn decode_seal(seal: u8, sealing: Sealing) -> Result<Seal, FormatError> {
    let blank = sealing.key_epoch == 0 && sealing.salt == [0; 32] && sealing.sender_key == [0; 32];
    let filled = sealing.key_epoch != 0 && sealing.salt != [0; 32] && sealing.sender_key != [0; 32];
    match seal {
        0 if blank => Ok(Seal::None),
        1 if filled => Ok(Seal::ChaCha20Poly1305 { with: sealing }),
        2 if filled => Ok(Seal::Aes256Gcm { with: sealing }),
        0..=2 => Err(FormatError::SealFields),
        _ => Err(FormatError::Seal { found: seal }),
    }
}

fn decode_content(flags: u16, count: u32) -> Result<Content, FormatError> {
    if flags & !(FLAG_HEARTBEAT | FLAG_LAST) != 0 {
        return Err(FormatError::Flags { found: flags });
    }
    match (flags & FLAG_HEARTBEAT != 0, count) {
        (true, 0) => Ok(Content::Heartbeat),
        (false, 1..=BATCH_MESSAGES_MAX) => Ok(Content::Messages(count)),
        (_, found) => Err(FormatError::Count { found }),
    }
}

/// Why bytes are not a batch: the code FORMAT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FormatError {
    /// The batch does not begin with `SBB1`.
    Magic,
    /// The suite is not known to this version.
    Suite {
        /// The suite.
        found: u8,
    },
    /// The seal is not known to this version.
    Seal {
        /// The seal.
        found: u8,
    },
    /// Epoch, salt and sender key are not all zero without a seal, or not all set with one.
    SealFields,
    /// A flag that this version does not know.
    Flags {
        /// The flags.
        found: u16,
    },
    /// Messages in a heartbeat, none in a batch, or more than a batch may hold.
    Count {
        /// The count.
        found: u32,
    },
    /// The body is longer than a batch may be.
    BodyTooLong {
        /// Its declared bytes.
        found: u32,
    },
    /// The body cannot hold the messages that the count declares, or a heartbeat has one.
    BodyLength {
        /// Messages declared.
        count: u32,
        /// Body bytes declared.
        found: u32,
    },
    /// The sequence number space ends inside the batch.
    SequenceExhausted,
    /// Only the batch at sequence 0 has no predecessor.
    ChainStart,
    /// A field is missing or has a value that is not allowed.
    Field(DecodeError),
    /// The batch has another length than its preamble says.
    Length {
        /// Bytes that the preamble implies.
        expected: usize,
        /// Bytes found.
        found: usize,
    },
    /// A record of the body does not parse.
    Record {
        /// Its place in the batch, from 0.
        index: u32,
        /// What is wrong with it.
        error: RecordError,
    },
}

impl fmt::Display for FormatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Magic => f.write_str("the batch does not begin with SBB1"),
            Self::Suite { found } => write!(f, "suite {found} is not known to this version"),
            Self::Seal { found } => write!(f, "seal {found} is not known to this version"),
            Self::SealFields => f.write_str("epoch, salt and sender key do not agree with the seal"),
            Self::Flags { found } => write!(f, "flags {found:#06x} are not known to this version"),
            Self::Count { found } => {
                write!(
                    f,
                    "a batch of {found} messages (1 to {BATCH_MESSAGES_MAX} allowed, 0 in a heartbeat only)"
                )
            }
            Self::BodyTooLong { found } => {
                write!(f, "a body of {found} bytes, the limit is {BODY_BYTES_MAX}")
            }
            Self::BodyLength { count, found } => {
                write!(f, "a body of {found} bytes cannot hold {count} messages")
            }
            Self::SequenceExhausted => f.write_str("the sequence numbers end inside the batch"),
            Self::ChainStart => f.write_str("only the batch at sequence 0 has no predecessor"),
            Self::Field(error) => error.fmt(f),
            Self::Length { expected, found } => {
                write!(f, "the batch is {found} bytes long, its preamble says {expected}")
            }
            Self::Record { index, error } => write!(f, "record {index}: {error}"),
        }
    }
}

impl std::error::Error for FormatError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Field(error) => Some(error),
            Self::Record { error, .. } => Some(error),
            Self::Magic
            | Self::Suite { .. }
            | Self::Seal { .. }
            | Self::SealFields
            | Self::Flags { .. }
            | Self::Count { .. }
            | Self::BodyTooLong { .. }
            | Self::BodyLength { .. }
            | Self::SequenceExhausted
            | Self::ChainStart
            | Self::Length { .. } => None,
        }
    }
}

impl From<DecodeError> for FormatError {
    fn from(error: DecodeError) -> Self {
        Self::Field(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn preamble() -> Preamble {
        Preamble {
            seal: Seal::None,
            content: Content::Messages(2),
            position: Position::Open,
            bus_id: BusId::new([1; 16]),
            topic: TopicDigest::new([2; 32]),
            policy_version: 3,
            kid: Kid::new([4; 32]),
            instance_id: InstanceId::new([5; 16]),
            started_ms: 6,
            incarnation_id: IncarnationId::new([7; 16]),
            first_seq: 8,
            body_len: 30,
            created_ms: 9,
            prev: PreambleDigest::new([10; 32]),
            content_hash: ContentHash::new([11; 32]),
        }
    }

    fn edit(at: usize, bytes: &[u8]) -> Result<Preamble, FormatError> {
        let mut encoded = preamble().encode();
        encoded[at..at + bytes.len()].copy_from_slice(bytes);
        Preamble::decode(&encoded)
    }

    #[test]
    fn every_form_round_trips() {
        let sealing = Sealing { key_epoch: 1, salt: [12; 32], sender_key: [13; 32] };
        let forms = [
            preamble(),
            Preamble { first_seq: 0, prev: PreambleDigest::ZERO, ..preamble() },
            Preamble { content: Content::Heartbeat, body_len: 0, ..preamble() },
            Preamble { position: Position::Last, ..preamble() },
            Preamble { seal: Seal::ChaCha20Poly1305 { with: sealing }, body_len: 40, ..preamble() },
            Preamble { seal: Seal::Aes256Gcm { with: sealing }, body_len: 40, ..preamble() },
        ];
        for form in forms {
            assert_eq!(Preamble::decode(&form.encode()), Ok(form));
        }
    }

    #[test]
    fn fields_stand_where_the_specification_puts_them() {
        let bytes = preamble().encode();
        assert_eq!(&bytes[..8], b"SBB1\x01\x00\x00\x00");
        for (at, len, value) in
            [(8, 16, 1), (24, 32, 2), (64, 32, 4), (96, 16, 5), (120, 16, 7), (232, 32, 10)]
        {
            assert_eq!(&bytes[at..at + len], vec![value; len].as_slice(), "offset {at}");
        }
        assert_eq!(bytes[56..64], 3u64.to_be_bytes());
        assert_eq!(bytes[112..120], 6u64.to_be_bytes());
        assert_eq!(bytes[136..144], 8u64.to_be_bytes());
        assert_eq!(bytes[144..148], 2u32.to_be_bytes());
        assert_eq!(bytes[148..152], 30u32.to_be_bytes());
        assert_eq!(bytes[160..168], 9u64.to_be_bytes());
        assert_eq!(bytes[264..], [11; 32]);
    }

    #[test]
    fn what_a_version_does_not_know_is_refused() {
        assert_eq!(edit(0, b"SBB2"), Err(FormatError::Magic));
        assert_eq!(edit(4, &[2]), Err(FormatError::Suite { found: 2 }));
        assert_eq!(edit(5, &[3]), Err(FormatError::Seal { found: 3 }));
        assert_eq!(edit(6, &[0, 4]), Err(FormatError::Flags { found: 4 }));
        assert_eq!(edit(6, &[0x80, 0]), Err(FormatError::Flags { found: 0x8000 }));
        assert_eq!(edit(159, &[1]), Err(FormatError::Field(DecodeError::Value { field: "reserved" })));
    }

    #[test]
    fn fields_that_contradict_each_other_are_refused() {
        assert_eq!(edit(5, &[1]), Err(FormatError::SealFields), "sealed without key fields");
        assert_eq!(edit(152, &[0, 0, 0, 1]), Err(FormatError::SealFields), "epoch without seal");
        assert_eq!(edit(168, &[1]), Err(FormatError::SealFields), "salt without seal");
        assert_eq!(edit(200, &[1]), Err(FormatError::SealFields), "sender key without seal");
        assert_eq!(edit(144, &[0; 4]), Err(FormatError::Count { found: 0 }), "no message");
        assert_eq!(edit(144, &[0, 1, 0, 1]), Err(FormatError::Count { found: 65_537 }));
        assert_eq!(edit(6, &[0, 1]), Err(FormatError::Count { found: 2 }), "heartbeat with messages");
        assert_eq!(edit(148, &[0, 0, 0, 23]), Err(FormatError::BodyLength { count: 2, found: 23 }));
        assert_eq!(edit(148, &[0xff; 4]), Err(FormatError::BodyTooLong { found: u32::MAX }));
        assert_eq!(edit(136, &[0xff; 8]), Err(FormatError::SequenceExhausted));
        assert_eq!(edit(136, &[0; 8]), Err(FormatError::ChainStart), "a predecessor before sequence 0");
        assert_eq!(edit(232, &[0; 32]), Err(FormatError::ChainStart), "no predecessor after sequence 0");
    }

    #[test]
    fn a_count_without_a_body_is_refused_before_anything_is_set_aside() {
        assert_eq!(edit(144, &[0, 1, 0, 0]), Err(FormatError::BodyLength { count: 65_536, found: 30 }));
    }

    #[test]
    fn digests_of_different_preambles_differ() {
        let one = preamble();
        let other = Preamble { first_seq: 9, ..preamble() };
        assert_ne!(preamble_digest(&one.encode()), preamble_digest(&other.encode()));
    }
}
