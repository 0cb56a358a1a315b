//! What a client asks of the broker.

use bytes::Bytes;

use crate::frame::{
    AdminRequest, Alias, BindingGet, CheckpointGet, Consume, Credit, Hello, Replay, RequestId, Settle,
    Subscribe, What,
};
use crate::refusal::Refusal;
use crate::topic::Topic;

/// What a client asks of the broker, and the methods of [`BrokerSession`](super::BrokerSession) that answer it. Each
/// event that carries a request id is answered exactly once, but for a SETTLE that wants no answer.
#[derive(Debug)]
pub enum BrokerEvent {
    /// The client says who it is. Answered by `welcome` or `fail`.
    Hello(Box<Hello>),
    /// It wants to publish to a topic. Answered by `opened` or `refuse`.
    Open {
        /// The request.
        request: RequestId,
        /// The topic.
        topic: Topic,
    },
    /// A batch. Answered by `ack` or `refuse`.
    Publish {
        /// The request.
        request: RequestId,
        /// An open alias.
        alias: Alias,
        /// The batch's bytes, not yet looked at.
        batch: Bytes,
    },
    /// It wants live messages. Answered by `ready` or `refuse_subscription`.
    Subscribe(Subscribe),
    /// It wants a stream's history. Answered as SUBSCRIBE.
    Replay(Replay),
    /// It joins a durable consumer. Answered as SUBSCRIBE.
    Consume(Consume),
    /// It says what became of deliveries of a durable consumer, on a subscription that is open. Answered by `settled`
    /// when an answer is wanted, otherwise not at all; `refuse` is good for both.
    Settle(Settle),
    /// A publish alias or a subscription ends. CLOSED has been queued; nothing may be delivered on it any more.
    Close(What),
    /// More may be delivered on a subscription.
    Credit(Credit),
    /// It wants a key binding. Answered by `binding` or `refuse`.
    BindingGet(BindingGet),
    /// It wants the newest checkpoint of a stream. Answered by `checkpoint` or `refuse`.
    CheckpointGet(CheckpointGet),
    /// It administers. Answered by `admin_result` or `refuse`.
    Admin(AdminRequest),
    /// It gives up, for this reason; the connection ends.
    Failed(Refusal),
}
