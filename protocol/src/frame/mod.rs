//! Frames: what travels on a connection, and in which direction.
//!
//! Read [`header`] for the eight bytes in front, [`deframer`] for how a stream is cut, then the frames by subject.
//! [`ClientFrame`] and [`BrokerFrame`] are what each side may receive: a frame that goes the other way does not
//! parse, so no code behind the parser has to think of it.

pub mod admin;
pub mod checkpoint;
pub mod codec;
pub mod consume;
pub mod control;
pub mod deframer;
pub mod deliver;
pub mod direction;
pub mod handshake;
pub mod header;
pub mod names;
pub mod publish;
pub mod replay;
pub mod report;
pub mod settle;
pub mod subscribe;

pub use admin::{AdminRequest, AdminResult, ConsumerKey, Operation, Outcome};
pub use checkpoint::{CheckpointGet, CheckpointReply};
pub use codec::{Frame, PayloadError};
pub use consume::{Consume, ConsumerChoices, ConsumerSettings, MaxDeliver, SettingsError};
pub use control::{BindingGet, BindingReply, Close, Closed, Drain, ErrorFrame, Generation, Nonce, What};
pub use deframer::{Deframer, RawFrame};
pub use deliver::{Deliver, Lagged, RecordRange, Skipped, SkippedWhy, StoredAt, StreamTopic};
pub use direction::{BrokerFrame, ClientFrame};
pub use handshake::{Hello, IncarnationState, InstanceKind, Limits, Welcome};
pub use header::{FrameError, FrameHeader, FrameType, HEADER_LEN};
pub use names::{Alias, RequestId, SubscriptionId};
pub use publish::{Ack, Freshness, Open, Opened, Publish, Refused};
pub use replay::{Replay, Start, Until};
pub use report::{BrokerStats, ConsumerInfo, More, RetentionInfo, StreamHealth, StreamInfo};
pub use settle::{Settle, SettleItem, Settled, Settlement, Sync};
pub use subscribe::{Credit, Ready, StreamStart, Subscribe};

pub use crate::policy::Narrowed;

#[cfg(test)]
mod tests;
