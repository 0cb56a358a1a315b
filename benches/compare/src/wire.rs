//! What a peer's protocol must be able to say, without sockets: bytes in, bytes out.
//!
//! ```text
//!   login, subscribe, publish ...  ──> out ──> TLS ──> broker
//!   Ready, Message, Acknowledged  <── receive <── input <── TLS <──
//! ```

use std::fmt;

/// The topic of every durable workload. One level for NATS, two for the others; a peer that has to declare what it keeps
/// declares this.
pub const DURABLE_TOPIC: &str = "load/durable";

/// The protocol of one peer, without I/O: bytes to send are appended to `out`, bytes that came are taken from `input`.
pub trait Wire: Send + 'static {
    /// Whether the server speaks a plaintext line before TLS, as NATS does. The line is read and thrown away.
    const GREETS_IN_PLAINTEXT: bool;

    /// What a new connection says first; [`Received::Ready`], once, when it was accepted and may publish and subscribe.
    fn login(&mut self, out: &mut Vec<u8>);

    /// Asks for a topic; [`Received::Ready`], once, when it is in force.
    fn subscribe(&mut self, topic: &str, out: &mut Vec<u8>);

    /// Live, at most once. Nothing need be received for it, and what is received may be ignored. From its second
    /// call on, on one connection, the same call appends the same bytes: many copies of one message are encoded once.
    fn publish(&mut self, topic: &str, payload: &[u8], out: &mut Vec<u8>);

    /// What the peer calls durable; [`Received::Acknowledged`] for each, in whatever portions.
    fn publish_durable(&mut self, topic: &str, payload: &[u8], out: &mut Vec<u8>);

    /// Takes whole items and returns how many bytes were taken; the rest is given again with more behind it. Answers
    /// that the protocol demands go to `out`.
    ///
    /// # Errors
    /// [`WireError`] when the peer refuses or what came is not its protocol.
    fn receive<'a>(
        &mut self,
        input: &'a [u8],
        out: &mut Vec<u8>,
        sink: &mut impl FnMut(Received<'a>),
    ) -> Result<usize, WireError>;
}

/// What came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Received<'a> {
    /// The answer to a login or a subscription.
    Ready,
    /// The payload of a message.
    Message(&'a [u8]),
    /// So many durable publishes more are acknowledged.
    Acknowledged(u32),
}

/// Why a conversation cannot go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WireError {
    /// What came is not the protocol.
    Malformed {
        /// What belongs there.
        expected: &'static str,
        /// What is there; at most a line of it.
        found: String,
    },
    /// The peer said no.
    Refused {
        /// In its words.
        said: String,
    },
}

impl WireError {
    /// Characters that an error repeats of what came.
    const FOUND_CHARACTERS_MAX: usize = 120;

    /// `expected` belongs where `found` stands.
    #[must_use]
    pub fn malformed(expected: &'static str, found: &[u8]) -> Self {
        Self::Malformed { expected, found: Self::readable(found) }
    }

    /// The peer said no, in these words.
    #[must_use]
    pub fn refused(said: &[u8]) -> Self {
        Self::Refused { said: Self::readable(said) }
    }

    fn readable(bytes: &[u8]) -> String {
        let text = String::from_utf8_lossy(bytes);
        text.chars().take(Self::FOUND_CHARACTERS_MAX).flat_map(char::escape_default).collect()
    }
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed { expected, found } => write!(f, "expected {expected}, found \"{found}\""),
            Self::Refused { said } => write!(f, "the peer refused: \"{said}\""),
        }
    }
}

impl std::error::Error for WireError {}
