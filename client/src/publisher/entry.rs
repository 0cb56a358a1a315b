//! One signed batch of a line, from its signature to its answer.

use sealbus_protocol::batch::preamble::HEAD_LEN;
use sealbus_protocol::batch::produce::SignedBatch;
use sealbus_protocol::refusal::Refusal;

use crate::error::PublishError;

use super::queue::Cargo;
use super::receipt::BatchReceipt;

/// A signed batch that has no answer yet, and its place.
#[derive(Debug)]
pub(super) struct Entry<T> {
    pub(super) batch: SignedBatch,
    pub(super) cargo: Cargo<T>,
    pub(super) standing: Standing,
    pub(super) waiters: Waiters,
    pub(super) doubt: Doubt,
}

/// Whether a refusal proves that a batch was never accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Doubt {
    None,
    /// It was sent, and the broker forgot the sequence before it answered: it may have been accepted before that.
    Forgotten,
}

/// What the broker may know of a batch.
#[derive(Debug)]
pub(super) enum Standing {
    /// To be sent for the first time.
    Unsent,
    /// Sent on a connection that broke before the answer: it may have been accepted. To be sent again.
    Unknown,
    /// Sent, and the answer is awaited.
    Sent,
    /// Refused with leave to try again.
    Held(Refusal),
    /// Not accepted, and no longer possible in this incarnation.
    Orphaned,
}

/// Whether anybody still waits for a batch's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Waiters {
    Waiting,
    /// The deadline has passed; the batch only keeps its place.
    Told,
}

/// A batch that has its answer.
#[derive(Debug)]
pub(crate) struct Settled<T> {
    pub(crate) cargo: Cargo<T>,
    /// Bytes of its messages.
    pub(crate) bytes: usize,
    pub(crate) outcome: Result<BatchReceipt, PublishError>,
}

impl<T> Entry<T> {
    pub(super) fn body_len(&self) -> usize {
        self.batch.bytes().len().saturating_sub(HEAD_LEN)
    }

    /// Settles a batch that is not accepted now, with what that proves.
    pub(super) fn settle_unaccepted(self, error: PublishError) -> Option<Settled<T>> {
        let error = match self.doubt {
            Doubt::None => error,
            Doubt::Forgotten => PublishError::Lost,
        };
        self.settle(Err(error))
    }

    pub(super) fn settle(self, outcome: Result<BatchReceipt, PublishError>) -> Option<Settled<T>> {
        match self.waiters {
            Waiters::Told => None,
            Waiters::Waiting => Some(Settled { bytes: self.body_len(), cargo: self.cargo, outcome }),
        }
    }
}
