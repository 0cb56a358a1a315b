//! Receipts: what a message's publisher is told, and how it waits to be told.
//!
//! ```text
//!   message ──┐
//!   message ──┼── one ticket per batch ──(ack, refusal, deadline)──> all of them at once
//!   message ──┘
//! ```
//!
//! A ticket is shared by the messages of one batch, so that a message costs no allocation and no channel.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use sealbus_protocol::batch::accept::Durability;
use sealbus_protocol::ids::IncarnationId;

use crate::error::PublishError;
use crate::sync::locked;

/// Proof that the broker accepted a message: what it said about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    batch: BatchReceipt,
    index: u32,
}

impl Receipt {
    /// The message's sequence number, in this incarnation and topic.
    #[must_use]
    pub const fn sequence(&self) -> u64 {
        self.batch.first_seq.saturating_add(self.index as u64)
    }

    /// How far the message is from being lost.
    #[must_use]
    pub const fn durability(&self) -> Durability {
        self.batch.durability
    }

    /// The message's offset in its stream; none when the topic is live only.
    #[must_use]
    pub fn offset(&self) -> Option<u64> {
        self.batch.offset.map(|offset| offset.saturating_add(u64::from(self.index)))
    }

    /// The incarnation of this client that it was published under.
    #[must_use]
    pub const fn incarnation(&self) -> IncarnationId {
        self.batch.incarnation_id
    }

    /// The broker's clock when it was accepted, milliseconds since 1970.
    #[must_use]
    pub const fn broker_ms(&self) -> u64 {
        self.batch.broker_ms
    }
}

/// What an acknowledgement says of a whole batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BatchReceipt {
    pub(crate) first_seq: u64,
    pub(crate) durability: Durability,
    pub(crate) offset: Option<u64>,
    pub(crate) incarnation_id: IncarnationId,
    pub(crate) broker_ms: u64,
}

/// A receipt that is still to come. It may be dropped: the message is sent all the same.
///
/// Cancel-safe: a dropped wait loses nothing but the answer.
#[must_use = "a receipt that nobody waits for may as well be dropped by name"]
pub struct PendingReceipt {
    ticket: Arc<Ticket>,
    index: u32,
    slot: Option<usize>,
}

impl PendingReceipt {
    pub(crate) const fn new(ticket: Arc<Ticket>, index: u32) -> Self {
        Self { ticket, index, slot: None }
    }
}

impl Future for PendingReceipt {
    type Output = Result<Receipt, PublishError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let mut state = locked(&this.ticket.state);
        match &mut *state {
            TicketState::Settled(Ok(batch)) => Poll::Ready(Ok(Receipt { batch: *batch, index: this.index })),
            TicketState::Settled(Err(error)) => Poll::Ready(Err(error.clone())),
            TicketState::Waiting(wakers) => {
                match this.slot.and_then(|slot| wakers.get_mut(slot)) {
                    Some(waker) => waker.clone_from(cx.waker()),
                    None => {
                        this.slot = Some(wakers.len());
                        wakers.push(cx.waker().clone());
                    }
                }
                Poll::Pending
            }
        }
    }
}

impl fmt::Debug for PendingReceipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PendingReceipt").field("index", &self.index).finish_non_exhaustive()
    }
}

/// What the messages of one batch wait for.
#[derive(Debug)]
pub(crate) struct Ticket {
    state: Mutex<TicketState>,
}

#[derive(Debug)]
enum TicketState {
    /// At most one waker for each message of the batch.
    Waiting(Vec<Waker>),
    Settled(Result<BatchReceipt, PublishError>),
}

impl Ticket {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { state: Mutex::new(TicketState::Waiting(Vec::new())) })
    }

    /// Tells everybody who waits. Only the first answer counts.
    pub(crate) fn settle(&self, outcome: Result<BatchReceipt, PublishError>) {
        let mut state = locked(&self.state);
        if let TicketState::Waiting(wakers) = &mut *state {
            let wakers = std::mem::take(wakers);
            *state = TicketState::Settled(outcome);
            drop(state);
            wakers.into_iter().for_each(Waker::wake);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BATCH: BatchReceipt = BatchReceipt {
        first_seq: 10,
        durability: Durability::Live,
        offset: Some(100),
        incarnation_id: IncarnationId::ZERO,
        broker_ms: 7,
    };

    #[tokio::test]
    async fn all_messages_of_a_batch_are_told_at_once() {
        let ticket = Ticket::new();
        let waits: Vec<_> =
            (0..3).map(|index| tokio::spawn(PendingReceipt::new(Arc::clone(&ticket), index))).collect();
        tokio::task::yield_now().await;
        ticket.settle(Ok(BATCH));
        for (index, wait) in (0u64..).zip(waits) {
            let receipt = wait.await.unwrap().unwrap();
            assert_eq!((receipt.sequence(), receipt.offset()), (10 + index, Some(100 + index)));
        }
    }

    #[tokio::test]
    async fn only_the_first_answer_counts() {
        let ticket = Ticket::new();
        ticket.settle(Err(PublishError::Lost));
        ticket.settle(Ok(BATCH));
        assert_eq!(PendingReceipt::new(ticket, 0).await, Err(PublishError::Lost));
    }
}
