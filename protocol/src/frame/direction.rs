//! What each side may receive.

use super::admin::{AdminRequest, AdminResult};
use super::codec::decode;
use super::control::{BindingGet, BindingReply, Close, Closed, Drain, ErrorFrame, Generation, Later, Nonce};
use super::deframer::RawFrame;
use super::handshake::{Hello, Welcome};
use super::header::{FrameError, FrameType};
use super::publish::{Ack, Open, Opened, Publish, Refused};
use super::subscribe::{Credit, Deliver, Lagged, Ready, Subscribe};

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
    /// REPLAY, CONSUME or SETTLE, which are not in this version.
    Later(Later),
    /// CLOSE.
    Close(Close),
    /// CREDIT.
    Credit(Credit),
    /// BINDING_GET.
    BindingGet(BindingGet),
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
            FrameType::Replay | FrameType::Consume | FrameType::Settle => {
                Later::decode_any(raw).map(Self::Later)
            }
            FrameType::Close => decode(raw).map(Self::Close),
            FrameType::Credit => decode(raw).map(Self::Credit),
            FrameType::BindingGet => decode(raw).map(Self::BindingGet),
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
            | FrameType::Drain) => Err(FrameError::Direction { kind }),
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
            Self::Later(later) => later.kind,
            Self::Close(_) => FrameType::Close,
            Self::Credit(_) => FrameType::Credit,
            Self::BindingGet(_) => FrameType::BindingGet,
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
            | FrameType::Admin) => Err(FrameError::Direction { kind }),
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
