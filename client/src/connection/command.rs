//! What handles ask of the connection's task.

use sealbus_protocol::frame::{Narrowed, Operation, Outcome};
use sealbus_protocol::topic::{Topic, TopicFilter};
use tokio::sync::oneshot;

use crate::error::{CloseError, OpenError, RequestError, SubscribeError};
use crate::publisher::Handle;
use crate::subscription::FeedGuard;

/// Commands that wait for the task before callers have to: each is answered soon or has a deadline of its own.
pub(crate) const COMMANDS_MAX: usize = 64;

pub(crate) type OpenReply = oneshot::Sender<Result<Handle, OpenError>>;
pub(crate) type SubscribeReply = oneshot::Sender<Result<(FeedGuard, Narrowed), SubscribeError>>;
pub(crate) type AdministerReply = oneshot::Sender<Result<Outcome, RequestError>>;
pub(crate) type CloseReply = oneshot::Sender<Result<(), CloseError>>;

/// A command, with where its answer goes. An answer that nobody awaits any more is dropped, and what it holds undoes
/// itself.
#[derive(Debug)]
pub(crate) enum Command {
    /// Open a topic for publishing.
    Open { topic: Topic, reply: OpenReply },
    /// Subscribe.
    Subscribe { filter: TopicFilter, reply: SubscribeReply },
    /// Administer.
    Administer { operation: Operation, reply: AdministerReply },
    /// Flush, then close.
    Close { reply: CloseReply },
}
