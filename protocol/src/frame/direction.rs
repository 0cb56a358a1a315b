//! What each side may receive.

use super::admin::{AdminRequest, AdminResult};
use super::checkpoint::{CheckpointGet, CheckpointReply};
use super::codec::decode;
use super::consume::Consume;
use super::control::{BindingGet, BindingReply, Close, Closed, Drain, ErrorFrame, Generation, Nonce};
use super::deframer::RawFrame;
use super::deliver::{Deliver, Lagged, Skipped};
use super::handshake::{Hello, Welcome};
use super::header::{FrameError, FrameType};
use super::publish::{Ack, Open, Opened, Publish, Refused};
use super::replay::Replay;
use super::settle::{Settle, Settled};
use super::subscribe::{Credit, Ready, Subscribe};

/// A frame that a broker may receive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientFrame {
    /// HELLO.
    Hello(Box<Hello>),
    /// OPEN.
    Open(Open),
    /// PUBLISH.
    Publish(Publish),
    /// SUBSCRIBE.
    Subscribe(Subscribe),
    /// REPLAY.
    Replay(Replay),
    /// CONSUME.
    Consume(Consume),
    /// SETTLE.
    Settle(Settle),
    /// CLOSE.
    Close(Close),
    /// CREDIT.
    Credit(Credit),
    /// BINDING_GET.
    BindingGet(BindingGet),
    /// CHECKPOINT_GET.
    CheckpointGet(CheckpointGet),
    /// ADMIN.
    Admin(AdminRequest),
    /// PING.
    Ping(Nonce),
    /// PONG.
    Pong(Nonce),
    /// ERROR.
    Error(ErrorFrame),
}

impl ClientFrame {
    /// Parses a frame that came from a client.
    ///
    /// # Errors
    /// [`FrameError`] when it is malformed or goes the other way.
    pub fn decode(raw: &RawFrame) -> Result<Self, FrameError> {
        match raw.header.kind {
            FrameType::Hello => decode(raw).map(|hello| Self::Hello(Box::new(hello))),
            FrameType::Open => decode(raw).map(Self::Open),
            FrameType::Publish => decode(raw).map(Self::Publish),
            FrameType::Subscribe => decode(raw).map(Self::Subscribe),
            FrameType::Replay => decode(raw).map(Self::Replay),
            FrameType::Consume => decode(raw).map(Self::Consume),
            FrameType::Settle => decode(raw).map(Self::Settle),
            FrameType::Close => decode(raw).map(Self::Close),
            FrameType::Credit => decode(raw).map(Self::Credit),
            FrameType::BindingGet => decode(raw).map(Self::BindingGet),
            FrameType::CheckpointGet => decode(raw).map(Self::CheckpointGet),
            FrameType::Admin => decode(raw).map(Self::Admin),
            FrameType::Ping => Nonce::decode_as(raw).map(Self::Ping),
            FrameType::Pong => Nonce::decode_as(raw).map(Self::Pong),
            FrameType::Error => decode(raw).map(Self::Error),
            kind @ (FrameType::Welcome
            | FrameType::Opened
            | FrameType::Ack
            | FrameType::Refused
            | FrameType::Ready
            | FrameType::Closed
            | FrameType::Deliver
            | FrameType::Lagged
            | FrameType::Generation
            | FrameType::Binding
            | FrameType::AdminResult
            | FrameType::Drain
            | FrameType::Skipped
            | FrameType::Settled
            | FrameType::Checkpoint) => Err(FrameError::Direction { kind }),
        }
    }

    /// What the frame is.
    #[must_use]
    pub const fn kind(&self) -> FrameType {
        match self {
            Self::Hello(_) => FrameType::Hello,
            Self::Open(_) => FrameType::Open,
            Self::Publish(_) => FrameType::Publish,
            Self::Subscribe(_) => FrameType::Subscribe,
            Self::Replay(_) => FrameType::Replay,
            Self::Consume(_) => FrameType::Consume,
            Self::Settle(_) => FrameType::Settle,
            Self::Close(_) => FrameType::Close,
            Self::Credit(_) => FrameType::Credit,
            Self::BindingGet(_) => FrameType::BindingGet,
            Self::CheckpointGet(_) => FrameType::CheckpointGet,
            Self::Admin(_) => FrameType::Admin,
            Self::Ping(_) => FrameType::Ping,
            Self::Pong(_) => FrameType::Pong,
            Self::Error(_) => FrameType::Error,
        }
    }
}

/// A frame that a client may receive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BrokerFrame {
    /// WELCOME.
    Welcome(Box<Welcome>),
    /// OPENED.
    Opened(Opened),
    /// ACK.
    Ack(Ack),
    /// REFUSED.
    Refused(Refused),
    /// READY.
    Ready(Ready),
    /// CLOSED.
    Closed(Closed),
    /// DELIVER.
    Deliver(Deliver),
    /// LAGGED.
    Lagged(Lagged),
    /// SKIPPED.
    Skipped(Skipped),
    /// SETTLED.
    Settled(Settled),
    /// CHECKPOINT.
    Checkpoint(Box<CheckpointReply>),
    /// GENERATION.
    Generation(Generation),
    /// BINDING.
    Binding(BindingReply),
    /// RESULT.
    AdminResult(AdminResult),
    /// PING.
    Ping(Nonce),
    /// PONG.
    Pong(Nonce),
    /// DRAIN.
    Drain(Drain),
    /// ERROR.
    Error(ErrorFrame),
}

impl BrokerFrame {
    /// Parses a frame that came from a broker.
    ///
    /// # Errors
    /// [`FrameError`] when it is malformed or goes the other way.
    pub fn decode(raw: &RawFrame) -> Result<Self, FrameError> {
        match raw.header.kind {
            FrameType::Welcome => decode(raw).map(|welcome| Self::Welcome(Box::new(welcome))),
            FrameType::Opened => decode(raw).map(Self::Opened),
            FrameType::Ack => decode(raw).map(Self::Ack),
            FrameType::Refused => decode(raw).map(Self::Refused),
            FrameType::Ready => decode(raw).map(Self::Ready),
            FrameType::Closed => decode(raw).map(Self::Closed),
            FrameType::Deliver => decode(raw).map(Self::Deliver),
            FrameType::Lagged => decode(raw).map(Self::Lagged),
            FrameType::Skipped => decode(raw).map(Self::Skipped),
            FrameType::Settled => decode(raw).map(Self::Settled),
            FrameType::Checkpoint => decode(raw).map(|reply| Self::Checkpoint(Box::new(reply))),
            FrameType::Generation => decode(raw).map(Self::Generation),
            FrameType::Binding => decode(raw).map(Self::Binding),
            FrameType::AdminResult => decode(raw).map(Self::AdminResult),
            FrameType::Ping => Nonce::decode_as(raw).map(Self::Ping),
            FrameType::Pong => Nonce::decode_as(raw).map(Self::Pong),
            FrameType::Drain => decode(raw).map(Self::Drain),
            FrameType::Error => decode(raw).map(Self::Error),
            kind @ (FrameType::Hello
            | FrameType::Open
            | FrameType::Publish
            | FrameType::Subscribe
            | FrameType::Replay
            | FrameType::Consume
            | FrameType::Close
            | FrameType::Settle
            | FrameType::Credit
            | FrameType::BindingGet
            | FrameType::Admin
            | FrameType::CheckpointGet) => Err(FrameError::Direction { kind }),
        }
    }

    /// What the frame is.
    #[must_use]
    pub const fn kind(&self) -> FrameType {
        match self {
            Self::Welcome(_) => FrameType::Welcome,
            Self::Opened(_) => FrameType::Opened,
            Self::Ack(_) => FrameType::Ack,
            Self::Refused(_) => FrameType::Refused,
            Self::Ready(_) => FrameType::Ready,
            Self::Closed(_) => FrameType::Closed,
            Self::Deliver(_) => FrameType::Deliver,
            Self::Lagged(_) => FrameType::Lagged,
            Self::Skipped(_) => FrameType::Skipped,
            Self::Settled(_) => FrameType::Settled,
            Self::Checkpoint(_) => FrameType::Checkpoint,
            Self::Generation(_) => FrameType::Generation,
            Self::Binding(_) => FrameType::Binding,
            Self::AdminResult(_) => FrameType::AdminResult,
            Self::Ping(_) => FrameType::Ping,
            Self::Pong(_) => FrameType::Pong,
            Self::Drain(_) => FrameType::Drain,
            Self::Error(_) => FrameType::Error,
        }
    }
}
