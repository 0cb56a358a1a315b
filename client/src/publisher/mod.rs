//! Publishing to one topic.
//!
//! Read [`queue`] for how messages become batches, [`entry`] and [`line`] for what becomes of a batch once it is signed, and
//! [`receipt`] for how the answer reaches whoever published.

pub(crate) mod content;
pub(crate) mod entry;
pub(crate) mod line;
pub(crate) mod queue;
pub(crate) mod receipt;

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sealbus_protocol::topic::Topic;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use crate::bus::BusShared;
use crate::clock::{self, Ticker};
use crate::connection::wake::{LineId, Wake};
use crate::error::{EnqueueError, PublishAllError, PublishError};
use crate::sync::locked;

use self::queue::{NewMessage, Notice, Queue};
use self::receipt::Ticket;

pub use self::content::{IntoMessage, Json, MessageError, Outgoing};
pub use self::receipt::{PendingReceipt, Receipt};

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

    /// Publishes a series of messages and waits until all are accepted. Much faster than one `publish` after the
    /// other: the messages travel in few batches.
    ///
    /// Cancel-safe in the sense of [`Publisher::publish`]: what was queued is sent.
    ///
    /// # Errors
    /// [`PublishAllError`] for the first message that is not known to have been accepted.
    pub async fn publish_all<M, I>(&self, messages: I) -> Result<Vec<Receipt>, PublishAllError>
    where
        M: IntoMessage,
        I: IntoIterator<Item = M>,
    {
        let mut pending = Vec::new();
        let mut stopped = None;
        for message in messages {
            match self.enqueue_when_ready(message).await {
                Ok(receipt) => pending.push(receipt),
                Err(error) => {
                    stopped = Some(error);
                    break;
                }
            }
        }
        let mut accepted = Vec::with_capacity(pending.len());
        for receipt in pending {
            match receipt.await {
                Ok(receipt) => accepted.push(receipt),
                Err(error) => return Err(PublishAllError { index: accepted.len(), accepted, error }),
            }
        }
        match stopped {
            None => Ok(accepted),
            Some(error) => Err(PublishAllError { index: accepted.len(), accepted, error }),
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

    fn shared(&self) -> &PublisherShared {
        &self.handle.shared
    }

    fn push<P: AsRef<[u8]>>(&self, parts: &content::Parts<P>) -> Result<PendingReceipt, EnqueueError> {
        let shared = self.shared();
        let message = NewMessage {
            published_ms: clock::now_ms(),
            key: &parts.key,
            headers: parts.headers.headers(),
            payload: parts.payload.as_ref(),
        };
        let pushed = locked(&shared.queue).push(message, || shared.ticker.tick(), Ticket::new)?;
        match pushed.notice {
            Notice::Due => shared.wake.batch_due(shared.line),
            Notice::None => {}
        }
        Ok(PendingReceipt::new(pushed.ticket, pushed.index))
    }

    fn not_sent(&self) -> PublishError {
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

fn prepare<M: IntoMessage>(message: M) -> Result<content::Parts<M::Payload>, MessageError> {
    message.into_message()?.into_parts()
}

fn without_room(error: EnqueueError) -> PublishError {
    match error {
        EnqueueError::Message(error) => PublishError::Message(error),
        EnqueueError::Closed(reason) => PublishError::Closed(reason),
        EnqueueError::Full { .. } => PublishError::NotSent { after_ms: 0, last: None },
    }
}
