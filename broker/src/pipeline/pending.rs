//! Batches that a stream has taken and not yet made as durable as it promises: their acknowledgements wait here.
//!
//! ```text
//!   PUBLISH --append--> | 17..20 | 20..25 | 25..31 |      one queue per stream, in the order of its offsets
//!                         durable  durable   not yet
//!                          ACK      ACK
//! ```
//!
//! The stream's writer wakes the session after each group; the session then asks the stream what became of the first
//! ones of each queue. Nothing is acknowledged by anybody else, so that an answer is always the session's own to give.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use sealbus_protocol::frame::{Ack, RequestId};
use sealbus_protocol::ids::StreamId;
use sealbus_protocol::refusal::{Code, Refusal};

use crate::storage::stream::store::{AppendError, Fate, StreamStore, Ticket};

/// Bytes of batches that may await their disk before the session takes no more in. It is several group commits, which
/// take a few mebibytes each: a client is never held up while the disk keeps pace, and one session that is faster than
/// its disk cannot fill a stream's queue for all others.
const BYTES_MAX: usize = 16 * 1_024 * 1_024;

/// The acknowledgements of one session that wait for a disk.
#[derive(Debug, Default)]
pub(super) struct Pending {
    queues: HashMap<StreamId, Queue>,
    bytes: usize,
}

struct Queue {
    store: Arc<dyn StreamStore>,
    waiting: VecDeque<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    ticket: Ticket,
    ack: Ack,
    bytes: usize,
}

/// The answer to a batch.
pub(super) enum Answer {
    /// It is as durable as its stream promises.
    Kept(Ack),
    /// It was not kept.
    Refused(RequestId, Refusal),
}

impl Pending {
    /// Holds an acknowledgement back until its batch is durable.
    pub(super) fn push(
        &mut self,
        stream: StreamId,
        store: &Arc<dyn StreamStore>,
        ticket: Ticket,
        ack: Ack,
        bytes: usize,
    ) {
        self.bytes = self.bytes.saturating_add(bytes);
        let queue = self
            .queues
            .entry(stream)
            .or_insert_with(|| Queue { store: Arc::clone(store), waiting: VecDeque::new() });
        queue.waiting.push_back(Waiting { ticket, ack, bytes });
    }

    /// Whether the session should wait for the disk before it takes more in.
    pub(super) const fn is_full(&self) -> bool {
        self.bytes >= BYTES_MAX
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.queues.is_empty()
    }

    /// The answers that can be given now.
    pub(super) fn take_settled(&mut self) -> Vec<Answer> {
        let mut answers = Vec::new();
        self.queues.retain(|_, queue| {
            while let Some(first) = queue.waiting.front() {
                let refused = match queue.store.fate(&first.ticket) {
                    Fate::Pending => break,
                    Fate::Kept => None,
                    Fate::Withdrawn => Some(AppendError::Full),
                    Fate::Stopped(reason) => Some(AppendError::Stopped { reason }),
                };
                let Some(Waiting { ack, bytes, .. }) = queue.waiting.pop_front() else { break };
                self.bytes = self.bytes.saturating_sub(bytes);
                answers.push(match refused {
                    None => Answer::Kept(ack),
                    Some(error) => Answer::Refused(ack.request, refusal_of(&error)),
                });
            }
            !queue.waiting.is_empty()
        });
        answers
    }
}

/// What a producer is told whose batch a stream does not take, or does not keep.
pub(super) fn refusal_of(error: &AppendError) -> Refusal {
    let code = match error {
        AppendError::Full => Code::StorageFull,
        AppendError::Stopped { .. } => Code::Internal,
        AppendError::Busy => Code::Limit,
        AppendError::Closed => Code::Draining,
    };
    Refusal::new(code, format!("publish: {error}"))
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queue").field("waiting", &self.waiting).finish_non_exhaustive()
    }
}
