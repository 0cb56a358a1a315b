//! The eight bytes in front of every frame.

use std::fmt;

use crate::limits::{CONTROL_FRAME_BYTES_MAX, FRAME_BYTES_MAX};
use crate::wire::DecodeError;

/// Bytes of a frame header.
pub const HEADER_LEN: usize = 8;

/// What a frame is. The numbers are on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum FrameType {
    /// Client: who I am and what I speak. The first frame, once.
    Hello = 0x01,
    /// Broker: agreed versions, limits, the policy in force.
    Welcome = 0x02,
    /// Client: I want to publish to this topic.
    Open = 0x03,
    /// Broker: use this alias; here is where the sequence goes on.
    Opened = 0x04,
    /// Client: a batch.
    Publish = 0x05,
    /// Broker: a batch was accepted.
    Ack = 0x06,
    /// Broker: a request was refused.
    Refused = 0x07,
    /// Client: live messages from now on.
    Subscribe = 0x08,
    /// Client: history of a stream, then live.
    Replay = 0x09,
    /// Client: join a durable consumer.
    Consume = 0x0a,
    /// Broker: a subscription is in effect.
    Ready = 0x0b,
    /// Client: end of a publish alias or a subscription.
    Close = 0x0c,
    /// Broker: nothing more follows on it.
    Closed = 0x0d,
    /// Broker: a batch for a subscription.
    Deliver = 0x0e,
    /// Client: acknowledge or return deliveries of a durable consumer.
    Settle = 0x0f,
    /// Client: more bytes may be delivered.
    Credit = 0x10,
    /// Broker: this many messages were dropped because the subscriber was slow.
    Lagged = 0x11,
    /// Broker: from here on the policy of this generation holds.
    Generation = 0x12,
    /// Client: what binds this key?
    BindingGet = 0x13,
    /// Broker: this does.
    Binding = 0x14,
    /// Client: administration.
    Admin = 0x15,
    /// Broker: the answer to it.
    AdminResult = 0x16,
    /// Either: are you there?
    Ping = 0x17,
    /// Either: I am.
    Pong = 0x18,
    /// Broker: shutting down; finish and go elsewhere.
    Drain = 0x19,
    /// Either: the reason why the connection ends now.
    Error = 0x1a,
    /// Broker: these offsets of a stream will not come.
    Skipped = 0x1b,
    /// Broker: what was settled is on the disk.
    Settled = 0x1c,
    /// Client: what is the newest checkpoint of a stream, and what proves that it continues an older one?
    CheckpointGet = 0x1d,
    /// Broker: this one, and these proofs.
    Checkpoint = 0x1e,
}

impl FrameType {
    const ALL: [Self; 30] = [
        Self::Hello,
        Self::Welcome,
        Self::Open,
        Self::Opened,
        Self::Publish,
        Self::Ack,
        Self::Refused,
        Self::Subscribe,
        Self::Replay,
        Self::Consume,
        Self::Ready,
        Self::Close,
        Self::Closed,
        Self::Deliver,
        Self::Settle,
        Self::Credit,
        Self::Lagged,
        Self::Generation,
        Self::BindingGet,
        Self::Binding,
        Self::Admin,
        Self::AdminResult,
        Self::Ping,
        Self::Pong,
        Self::Drain,
        Self::Error,
        Self::Skipped,
        Self::Settled,
        Self::CheckpointGet,
        Self::Checkpoint,
    ];

    /// The type with this number, when there is one.
    #[must_use]
    pub fn from_wire(number: u8) -> Option<Self> {
        // The numbers run from 1 without a hole.
        Self::ALL.get(usize::from(number).checked_sub(1)?).copied()
    }

    /// The word that documentation and logs use.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hello => "HELLO",
            Self::Welcome => "WELCOME",
            Self::Open => "OPEN",
            Self::Opened => "OPENED",
            Self::Publish => "PUBLISH",
            Self::Ack => "ACK",
            Self::Refused => "REFUSED",
            Self::Subscribe => "SUBSCRIBE",
            Self::Replay => "REPLAY",
            Self::Consume => "CONSUME",
            Self::Ready => "READY",
            Self::Close => "CLOSE",
            Self::Closed => "CLOSED",
            Self::Deliver => "DELIVER",
            Self::Settle => "SETTLE",
            Self::Credit => "CREDIT",
            Self::Lagged => "LAGGED",
            Self::Generation => "GENERATION",
            Self::BindingGet => "BINDING_GET",
            Self::Binding => "BINDING",
            Self::Admin => "ADMIN",
            Self::AdminResult => "RESULT",
            Self::Ping => "PING",
            Self::Pong => "PONG",
            Self::Drain => "DRAIN",
            Self::Error => "ERROR",
            Self::Skipped => "SKIPPED",
            Self::Settled => "SETTLED",
            Self::CheckpointGet => "CHECKPOINT_GET",
            Self::Checkpoint => "CHECKPOINT",
        }
    }

    /// Bytes that the payload may have: only two frames carry a batch.
    #[must_use]
    pub const fn payload_bytes_max(self) -> usize {
        match self {
            Self::Publish | Self::Deliver => FRAME_BYTES_MAX,
            Self::Hello
            | Self::Welcome
            | Self::Open
            | Self::Opened
            | Self::Ack
            | Self::Refused
            | Self::Subscribe
            | Self::Replay
            | Self::Consume
            | Self::Ready
            | Self::Close
            | Self::Closed
            | Self::Settle
            | Self::Credit
            | Self::Lagged
            | Self::Generation
            | Self::BindingGet
            | Self::Binding
            | Self::Admin
            | Self::AdminResult
            | Self::Ping
            | Self::Pong
            | Self::Drain
            | Self::Error
            | Self::Skipped
            | Self::Settled
            | Self::CheckpointGet
            | Self::Checkpoint => CONTROL_FRAME_BYTES_MAX,
        }
    }
}

impl fmt::Display for FrameType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A frame header whose type is known and whose length is within the type's limit.
///
/// ```text
///   0      1       2      4             8
///   +------+-------+------+-------------+----------------+
///   | type | flags | zero | length u32  | payload ...    |
///   +------+-------+------+-------------+----------------+
///                                       '--- length -----'
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader {
    /// What the frame is.
    pub kind: FrameType,
    /// Its flags; each frame says which it knows.
    pub flags: u8,
    /// Bytes of the payload that follows.
    pub payload_len: usize,
}

impl FrameHeader {
    /// Decodes a header; `payload_bytes_max` is the limit of the moment, which may be lower than the type's.
    ///
    /// # Errors
    /// [`FrameError`] for an unknown type, a reserved byte that is not zero, or a length above the limit.
    pub fn decode(bytes: &[u8; HEADER_LEN], payload_bytes_max: usize) -> Result<Self, FrameError> {
        let [kind, flags, zero_high, zero_low, length @ ..] = *bytes;
        let kind = FrameType::from_wire(kind).ok_or(FrameError::UnknownType { found: kind })?;
        if zero_high != 0 || zero_low != 0 {
            return Err(FrameError::Reserved { kind });
        }
        let payload_len = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        let max = kind.payload_bytes_max().min(payload_bytes_max);
        if payload_len > max {
            return Err(FrameError::TooLong { kind, max, found: payload_len });
        }
        Ok(Self { kind, flags, payload_len })
    }

    /// The eight bytes.
    ///
    /// # Panics
    /// When the payload is longer than a frame may be: whoever builds one keeps to the limits.
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        assert!(self.payload_len <= self.kind.payload_bytes_max(), "a frame is built within its limit");
        let length = u32::try_from(self.payload_len).expect("a frame is at most a little over a megabyte");
        let [a, b, c, d] = length.to_be_bytes();
        [self.kind as u8, self.flags, 0, 0, a, b, c, d]
    }
}

/// Why bytes are not a frame. The connection cannot go on: where the next frame begins is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameError {
    /// No frame has this type.
    UnknownType {
        /// The type.
        found: u8,
    },
    /// The two bytes after the flags are not zero.
    Reserved {
        /// The frame.
        kind: FrameType,
    },
    /// The declared length exceeds the limit of the frame or of the moment.
    TooLong {
        /// The frame.
        kind: FrameType,
        /// The limit in bytes.
        max: usize,
        /// What was declared.
        found: usize,
    },
    /// A flag that the frame does not know.
    Flags {
        /// The frame.
        kind: FrameType,
        /// The flags.
        found: u8,
    },
    /// The frame is not sent in this direction.
    Direction {
        /// The frame.
        kind: FrameType,
    },
    /// The payload is not what the frame's type says.
    Payload {
        /// The frame.
        kind: FrameType,
        /// What is wrong with it.
        error: DecodeError,
    },
    /// A text in the payload breaks the rules of topics, filters, principals, streams or consumers.
    Name {
        /// The frame.
        kind: FrameType,
        /// The field.
        field: &'static str,
    },
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownType { found } => write!(f, "no frame has type {found:#04x}"),
            Self::Reserved { kind } => write!(f, "{kind} has reserved bytes that are not zero"),
            Self::TooLong { kind, max, found } => {
                write!(f, "{kind} declares {found} bytes, the limit here is {max}")
            }
            Self::Flags { kind, found } => write!(f, "{kind} has unknown flags {found:#04x}"),
            Self::Direction { kind } => write!(f, "{kind} is not sent in this direction"),
            Self::Payload { kind, error } => write!(f, "{kind}: {error}"),
            Self::Name { kind, field } => write!(f, "{kind}: {field} is not a valid name"),
        }
    }
}

impl std::error::Error for FrameError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Payload { error, .. } => Some(error),
            Self::UnknownType { .. }
            | Self::Reserved { .. }
            | Self::TooLong { .. }
            | Self::Flags { .. }
            | Self::Direction { .. }
            | Self::Name { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_have_one_number_each() {
        for (index, kind) in FrameType::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, index + 1);
            assert_eq!(FrameType::from_wire(kind as u8), Some(kind));
        }
        assert_eq!(FrameType::from_wire(0), None);
        assert_eq!(FrameType::from_wire(0x1f), None);
        assert_eq!(FrameType::from_wire(0xff), None);
    }

    #[test]
    fn headers_round_trip() {
        let header = FrameHeader { kind: FrameType::Publish, flags: 0, payload_len: FRAME_BYTES_MAX };
        assert_eq!(FrameHeader::decode(&header.encode(), FRAME_BYTES_MAX), Ok(header));
    }

    #[test]
    fn lengths_are_judged_by_type_and_by_moment() {
        let four_gib = [FrameType::Publish as u8, 0, 0, 0, 0xff, 0xff, 0xff, 0xff];
        assert!(matches!(FrameHeader::decode(&four_gib, usize::MAX), Err(FrameError::TooLong { .. })));
        let ping = [FrameType::Ping as u8, 0, 0, 0, 0, 0x02, 0, 1];
        assert!(matches!(FrameHeader::decode(&ping, usize::MAX), Err(FrameError::TooLong { .. })));
        let hello = [FrameType::Hello as u8, 0, 0, 0, 0, 0, 0x40, 1];
        assert!(FrameHeader::decode(&hello, usize::MAX).is_ok());
        assert!(matches!(
            FrameHeader::decode(&hello, 0x4000),
            Err(FrameError::TooLong { kind: FrameType::Hello, max: 0x4000, found: 0x4001 })
        ));
    }

    #[test]
    fn reserved_bytes_and_types_are_refused() {
        assert!(matches!(FrameHeader::decode(&[0; 8], 10), Err(FrameError::UnknownType { found: 0 })));
        assert!(matches!(
            FrameHeader::decode(&[1, 0, 0, 1, 0, 0, 0, 0], 10),
            Err(FrameError::Reserved { kind: FrameType::Hello })
        ));
    }
}
