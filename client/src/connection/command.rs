//! What handles ask of the connection's task.

use sealbus_protocol::frame::{CheckpointReply, Operation, Outcome, Ready};
use sealbus_protocol::stream_name::StreamName;
use sealbus_protocol::topic::Topic;
use tokio::sync::oneshot;

use crate::error::{CloseError, OpenError, RequestError, SubscribeError};
use crate::publisher::Handle;
use crate::subscription::reader::FeedGuard;
use crate::subscription::want::Want;

/// Commands that wait for the task before callers have to: each is answered soon or has a deadline of its own.
pub(crate) const COMMANDS_MAX: usize = 64;

pub(crate) type OpenReply = oneshot::Sender<Result<Handle, OpenError>>;
/// A READY that says where a stream begins exactly when one was asked for.
pub(crate) type ReadReply = oneshot::Sender<Result<(FeedGuard, Ready), SubscribeError>>;
pub(crate) type AdministerReply = oneshot::Sender<Result<Outcome, RequestError>>;
pub(crate) type CheckpointAnswer = oneshot::Sender<Result<Box<CheckpointReply>, RequestError>>;
pub(crate) type CloseReply = oneshot::Sender<Result<(), CloseError>>;

/// A command, with where its answer goes. An answer that nobody awaits any more is dropped, and what it holds undoes
/// itself.
#[derive(Debug)]
pub(crate) enum Command {
    /// Open a topic for publishing.
    Open { topic: Topic, reply: OpenReply },
    /// Read: live messages, a history, or a share of a durable consumer's work.
    Read { want: Want, reply: ReadReply },
    /// Ask something that is answered once.
    Inquire(Inquiry),
    /// Flush, then close.
    Close { reply: CloseReply },
}

/// A question that is answered once, by one frame.
#[derive(Debug)]
pub(crate) enum Inquiry {
    /// Administer.
    Administer { operation: Operation, reply: AdministerReply },
    /// A stream's newest checkpoint, with proofs.
    Checkpoint { want: CheckpointWant, reply: CheckpointAnswer },
}

/// Which checkpoint, and which proofs that lead to it.
#[derive(Debug, Clone)]
pub(crate) struct CheckpointWant {
    pub(crate) stream: StreamName,
    /// Size of the one before it that is known; 0 for none.
    pub(crate) old_size: u64,
    pub(crate) leaf_index: Option<u64>,
}
