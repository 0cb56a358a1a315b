//! Frames: what travels on a connection, and in which direction.
//!
//! Read [`header`] for the eight bytes in front, [`deframer`] for how a stream is cut, then the frames by subject.
//! [`ClientFrame`] and [`BrokerFrame`] are what each side may receive: a frame that goes the other way does not
//! parse, so no code behind the parser has to think of it.

pub mod admin;
pub mod codec;
pub mod control;
pub mod deframer;
pub mod direction;
pub mod handshake;
pub mod header;
pub mod names;
pub mod publish;
pub mod subscribe;

pub use admin::{AdminRequest, AdminResult, Operation, Outcome};
pub use codec::{Frame, PayloadError};
pub use control::{
    BindingGet, BindingReply, Close, Closed, Drain, ErrorFrame, Generation, Later, Nonce, What,
};
pub use deframer::{Deframer, RawFrame};
pub use direction::{BrokerFrame, ClientFrame};
pub use handshake::{Hello, IncarnationState, InstanceKind, Limits, Welcome};
pub use header::{FrameError, FrameHeader, FrameType, HEADER_LEN};
pub use names::{Alias, RequestId, SubscriptionId};
pub use publish::{Ack, Freshness, Open, Opened, Publish, Refused};
pub use subscribe::{Credit, Deliver, Lagged, Ready, Subscribe};

pub use crate::policy::Narrowed;

#[cfg(test)]
mod tests;
