//! What a program holds of a topic that it publishes to.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sealbus_protocol::topic::Topic;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use crate::bus::BusShared;
use crate::clock::{self, Ticker};
use crate::connection::wake::{LineId, Wake};
use crate::error::{EnqueueError, PublishError};
use crate::sync::locked;

use super::content::{IntoMessage, MessageError, Parts};
use super::queue::{Notice, Queue};
use super::receipt::{PendingReceipt, Receipt, Ticket};

/// Publishes to one topic. Cloning gives another handle to the same queue, and so does opening the topic again.
///
/// Messages of one publisher arrive in the order in which they were queued. When the last handle is dropped, what is
/// queued is still sent.
#[derive(Clone)]
pub struct Publisher {
    handle: Arc<Handle>,
    /// Keeps the connection alive.
    _bus: Arc<BusShared>,
}

/// What the handles of one topic share with the connection.
#[derive(Debug)]
pub(crate) struct PublisherShared {
    pub(crate) topic: Topic,
    pub(crate) line: LineId,
    pub(crate) queue: Mutex<Queue<Arc<Ticket>>>,
    /// Told whenever batches get their answer: there may be room, and a flush may be done.
    pub(crate) changed: Notify,
    pub(crate) wake: Arc<Wake>,
    pub(crate) ticker: Ticker,
    pub(crate) publish_timeout: Duration,
}

/// One opening of a topic. The connection counts them, to know when nobody publishes there any more.
#[derive(Debug)]
pub(crate) struct Handle {
    shared: Arc<PublisherShared>,
}

impl Handle {
    pub(crate) const fn new(shared: Arc<PublisherShared>) -> Self {
        Self { shared }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.wake.publisher_dropped(self.shared.line);
    }
}

impl Publisher {
    pub(crate) fn new(handle: Handle, bus: Arc<BusShared>) -> Self {
        Self { handle: Arc::new(handle), _bus: bus }
    }

    /// The topic.
    #[must_use]
    pub fn topic(&self) -> &Topic {
        &self.shared().topic
    }

    /// Publishes a message and waits until the broker has accepted it.
    ///
    /// Cancel-safe in this sense: dropped before the first poll it does nothing; dropped while it waits for room the
    /// message is not queued; dropped later the message is sent all the same, and only the answer is lost.
    ///
    /// # Errors
    /// [`PublishError`] when it is not known to have been accepted within the publish deadline.
    pub async fn publish<M: IntoMessage>(&self, message: M) -> Result<Receipt, PublishError> {
        self.enqueue_when_ready(message).await?.await
    }

    /// Queues a message without waiting. The receipt may be awaited or dropped.
    ///
    /// # Errors
    /// [`EnqueueError::Full`] when as many bytes as the publisher may hold wait for their acknowledgement.
    pub fn enqueue<M: IntoMessage>(&self, message: M) -> Result<PendingReceipt, EnqueueError> {
        let parts = prepare(message).map_err(EnqueueError::Message)?;
        self.push(&parts)
    }

    /// Queues a message as soon as there is room for it.
    ///
    /// Cancel-safe: dropped before it returns, the message is not queued.
    ///
    /// # Errors
    /// [`PublishError::NotSent`] when there was no room before the publish deadline.
    pub async fn enqueue_when_ready<M: IntoMessage>(
        &self,
        message: M,
    ) -> Result<PendingReceipt, PublishError> {
        let parts = prepare(message).map_err(PublishError::Message)?;
        match self.push(&parts) {
            Err(EnqueueError::Full { .. }) => {}
            pushed => return pushed.map_err(without_room),
        }
        let shared = self.shared();
        let deadline = Instant::now() + shared.publish_timeout;
        loop {
            let changed = shared.changed.notified();
            match self.push(&parts) {
                Err(EnqueueError::Full { .. }) => {}
                pushed => return pushed.map_err(without_room),
            }
            timeout_at(deadline, changed).await.map_err(|_| self.not_sent())?;
        }
    }

    /// Waits until every message that was queued before has its answer.
    ///
    /// Cancel-safe: nothing is lost but the wait.
    ///
    /// # Errors
    /// The first failure since the last flush, also when somebody was told of it by its receipt.
    pub async fn flush(&self) -> Result<(), PublishError> {
        self.shared().flush().await
    }

    pub(super) fn shared(&self) -> &PublisherShared {
        &self.handle.shared
    }

    fn push<P: AsRef<[u8]>>(&self, parts: &Parts<P>) -> Result<PendingReceipt, EnqueueError> {
        let shared = self.shared();
        let message = parts.as_message(clock::now_ms());
        let mut queue = locked(&shared.queue);
        let pushed = queue.push(message, || shared.ticker.tick(), Ticket::new)?;
        let (receipt, notice) = (PendingReceipt::new(Arc::clone(pushed.ticket), pushed.index), pushed.notice);
        drop(queue);
        match notice {
            Notice::Due => shared.wake.batch_due(shared.line),
            Notice::None => {}
        }
        Ok(receipt)
    }

    pub(super) fn not_sent(&self) -> PublishError {
        locked(&self.shared().queue).not_sent()
    }
}

impl PublisherShared {
    /// Every batch gets its answer by its deadline, so this ends without one of its own.
    async fn flush(&self) -> Result<(), PublishError> {
        let mark = locked(&self.queue).flush_mark();
        loop {
            let changed = self.changed.notified();
            {
                let mut queue = locked(&self.queue);
                if queue.is_flushed(mark) {
                    return queue.take_failure().map_or(Ok(()), Err);
                }
            }
            changed.await;
        }
    }
}

impl fmt::Debug for Publisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publisher").field("topic", self.topic()).finish_non_exhaustive()
    }
}

pub(super) fn prepare<M: IntoMessage>(message: M) -> Result<Parts<M::Payload>, MessageError> {
    message.into_message()?.into_parts()
}

pub(super) fn without_room(error: EnqueueError) -> PublishError {
    match error {
        EnqueueError::Message(error) => PublishError::Message(error),
        EnqueueError::Closed(reason) => PublishError::Closed(reason),
        EnqueueError::Full { .. } => PublishError::NotSent { after_ms: 0, last: None },
    }
}
