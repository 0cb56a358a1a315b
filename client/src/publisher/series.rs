//! Series of messages: queued many at a time, with one lock and one look at the clock for all of them.

use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::task::Poll;

use tokio::time::{Instant, timeout_at};

use crate::clock;
use crate::error::{EnqueueAllError, EnqueueError, PublishAllError, PublishError};
use crate::sync::locked;

use super::content::{IntoMessage, Parts};
use super::handle::{Publisher, prepare, without_room};
use super::queue::{NewMessage, Notice, PushedAll};
use super::receipt::{PendingReceipt, Receipt, Ticket};

/// Messages that are queued under one lock: as many as make it cheap, and so few that nobody else waits long for it.
const TOGETHER_MAX: usize = 64;

/// Messages of a series that lie side by side in one batch.
struct Run {
    ticket: Arc<Ticket>,
    first: u32,
    count: u32,
}

impl Publisher {
    /// Publishes a series of messages and waits until all are accepted. Much faster than one `publish` after the
    /// other: the messages travel in few batches. As in [`Publisher::enqueue_all`], up to 64 are taken at a time.
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
        let mut runs: Vec<Run> = Vec::new();
        let queued = self.queue_all(messages.into_iter(), |ticket, first, count| match runs.last_mut() {
            Some(run) if Arc::ptr_eq(&run.ticket, ticket) => run.count += count,
            Some(_) | None => runs.push(Run { ticket: Arc::clone(ticket), first, count }),
        });
        let stopped = queued.await.err();
        let mut accepted = Vec::new();
        for Run { ticket, first, count } in runs {
            for index in (first..).take(count as usize) {
                match PendingReceipt::new(Arc::clone(&ticket), index).await {
                    Ok(receipt) => accepted.push(receipt),
                    Err(error) => return Err(PublishAllError { index: accepted.len(), accepted, error }),
                }
            }
        }
        match stopped {
            None => Ok(accepted),
            Some(stopped) => Err(PublishAllError { index: accepted.len(), accepted, error: stopped.error }),
        }
    }

    /// Queues a series of messages, waiting for room where there is none, and returns how many they were. It does not
    /// wait for their acknowledgements: [`Publisher::flush`] does, and has the first failure among them.
    ///
    /// Up to 64 messages are taken from the series before the first of them is queued: a series that waits between its
    /// messages is better published one by one.
    ///
    /// The fastest way to publish: a message costs little more than its bytes. Where each must be told apart, use
    /// [`Publisher::enqueue`] and keep its receipt. Lets other tasks have their turn whenever a batch is full.
    ///
    /// Cancel-safe: dropped before it returns, what was queued is sent, and of the rest nothing.
    ///
    /// # Errors
    /// [`EnqueueAllError`] says how many were queued, and why the next one was not.
    // The bounds are here and not left to each caller's task: the compiler cannot see there that a series of borrowed
    // payloads may move between threads.
    pub fn enqueue_all<M, I>(
        &self,
        messages: I,
    ) -> impl Future<Output = Result<usize, EnqueueAllError>> + Send
    where
        M: IntoMessage + Send,
        I: IntoIterator<Item = M, IntoIter: Send>,
    {
        self.queue_all(messages.into_iter(), |_, _, _| {})
    }

    /// Queues all messages; `note` is told the ticket, the place of the first, and how many lie side by side.
    async fn queue_all<M: IntoMessage>(
        &self,
        mut messages: impl Iterator<Item = M>,
        mut note: impl FnMut(&Arc<Ticket>, u32, u32),
    ) -> Result<usize, EnqueueAllError> {
        let mut together = Vec::with_capacity(messages.size_hint().0.clamp(1, TOGETHER_MAX));
        let mut queued = 0;
        loop {
            // The caller's iterator and conversions run before the lock is taken.
            let mut bad = None;
            while together.len() < TOGETHER_MAX
                && bad.is_none()
                && let Some(message) = messages.next()
            {
                match prepare(message) {
                    Ok(parts) => together.push(parts),
                    Err(error) => bad = Some(PublishError::Message(error)),
                }
            }
            let is_last = together.len() < TOGETHER_MAX;
            self.queue_together(&mut together, &mut queued, &mut note)
                .await
                .map_err(|error| EnqueueAllError { queued, error })?;
            if let Some(error) = bad {
                return Err(EnqueueAllError { queued, error });
            }
            if is_last {
                return Ok(queued);
            }
        }
    }

    /// Queues these messages, waiting for room where there is none, and counts them. They are lent as if to be changed,
    /// since that asks nothing of a payload but that it may be sent between threads.
    async fn queue_together<P: AsRef<[u8]>>(
        &self,
        messages: &mut Vec<Parts<P>>,
        queued: &mut usize,
        note: &mut impl FnMut(&Arc<Ticket>, u32, u32),
    ) -> Result<(), PublishError> {
        let shared = self.shared();
        let (mut deadline, mut next) = (None, 0);
        while next < messages.len() {
            let changed = shared.changed.notified();
            let PushedAll { count, notice, error } =
                self.push_many(messages.get(next..).unwrap_or_default(), note);
            *queued += count;
            next += count;
            if notice == Notice::Due {
                shared.wake.batch_due(shared.line);
            }
            match error {
                None if notice == Notice::Due => give_way().await,
                None => {}
                Some(EnqueueError::Full { .. }) => {
                    // Each message has the whole deadline to itself.
                    if count > 0 {
                        deadline = None;
                    }
                    let deadline = *deadline.get_or_insert_with(|| Instant::now() + shared.publish_timeout);
                    timeout_at(deadline, changed).await.map_err(|_| self.not_sent())?;
                }
                Some(error) => return Err(without_room(error)),
            }
        }
        messages.clear();
        Ok(())
    }

    /// Queues as many as there is room for.
    fn push_many<P: AsRef<[u8]>>(
        &self,
        messages: &[Parts<P>],
        note: &mut impl FnMut(&Arc<Ticket>, u32, u32),
    ) -> PushedAll {
        let shared = self.shared();
        let published_ms = clock::now_ms();
        // Nothing of the caller's runs under the lock, not even what lends a payload's bytes.
        let messages: Vec<NewMessage<'_>> =
            messages.iter().map(|parts| parts.as_message(published_ms)).collect();
        let mut queue = locked(&shared.queue);
        queue.push_all(&messages, || shared.ticker.tick(), Ticket::new, note)
    }
}

/// Goes to the end of the queue of tasks, where another thread may take it up. The connection, which has just been
/// woken, is the next to run on this one, and on this one only: a publisher without a pause would keep it waiting.
async fn give_way() {
    let mut has_waited = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut has_waited, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
