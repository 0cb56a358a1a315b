//! What a broker tells a client.

use bytes::Bytes;

use crate::frame::{
    Ack, AdminResult, BindingReply, CheckpointReply, Drain, Generation, Lagged, Opened, Ready, RecordRange,
    Refused, Settled, Skipped, StoredAt, SubscriptionId, Welcome, What,
};
use crate::ids::StreamId;
use crate::refusal::Refusal;
use crate::topic::Topic;

/// What a broker tells a client.
#[derive(Debug)]
pub enum ClientEvent {
    /// The session serves from here on.
    Welcome(Box<Welcome>),
    /// A publish alias is granted.
    Opened(Opened),
    /// A batch was accepted.
    Ack(Ack),
    /// A request was refused.
    Refused(Refused),
    /// A subscription is in effect.
    Ready(Ready),
    /// An alias or subscription has ended: CLOSE was answered, or the broker ended it of itself.
    Closed(What),
    /// A batch for a subscription, not yet verified.
    Deliver(Delivered),
    /// Messages were lost because this client was slow.
    Lagged(Lagged),
    /// These offsets of a stream do not come.
    Skipped(Skipped),
    /// A SETTLE is on the broker's disk.
    Settled(Settled),
    /// A stream's checkpoint, not yet verified.
    Checkpoint(Box<CheckpointReply>),
    /// From here on another policy holds.
    Generation(Generation),
    /// A key binding, not yet verified.
    Binding(BindingReply),
    /// The answer to an administrative request.
    AdminResult(AdminResult),
    /// The broker is shutting down.
    Drain(Drain),
    /// The broker gives up, for this reason; the connection ends.
    Failed(Refusal),
}

/// A delivery with its alias resolved. What the broker says of it is not proven.
#[derive(Debug, Clone)]
pub struct Delivered {
    /// The subscription that it is for.
    pub subscription: SubscriptionId,
    /// The topic that the broker names.
    pub topic: Topic,
    /// The stream that the broker names; zero when the topic is live only. The producer's digest covers both.
    pub stream_id: StreamId,
    /// Offset of its first message in its stream, as the broker says.
    pub offset: Option<u64>,
    /// When the broker says that it accepted it, milliseconds since 1970.
    pub broker_ms: u64,
    /// What the broker says of its leaf; none when it is live only.
    pub stored: Option<StoredAt>,
    /// The records to hand out, in order; none for all of them. Whether the batch has so many is not known here.
    pub ranges: Option<Vec<RecordRange>>,
    /// The batch's bytes.
    pub batch: Bytes,
}
