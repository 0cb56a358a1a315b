//! How publishers and subscriptions wake the connection: they leave a note and go on.
//!
//! Every note is bounded by what leaves it: a line by its full batches, a feed and its verdicts by flags of their own, a key
//! by the one batch that waits for it.

use std::sync::Mutex;
use std::task::{Context, Poll, Waker};

use sealbus_protocol::ids::Kid;

use crate::sync::locked;

/// Names a topic's line within one bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct LineId(pub(crate) u32);

/// Names a subscription within one bus, across its connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct FeedId(pub(crate) u64);

/// The notes that wait for the connection.
#[derive(Debug, Default)]
pub(crate) struct Wake {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    notes: Vec<Note>,
    waker: Option<Waker>,
}

/// What the connection is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Note {
    /// A topic has a batch to take.
    BatchDue(LineId),
    /// One of a topic's handles is gone.
    PublisherDropped(LineId),
    /// A feed has credit to return, or its consumer is gone.
    FeedChanged(FeedId),
    /// A durable consumer has verdicts to send.
    SettleDue(FeedId),
    /// A key binding is needed.
    BindingWanted(Kid),
}

impl Wake {
    pub(crate) fn batch_due(&self, line: LineId) {
        self.leave(Note::BatchDue(line));
    }

    pub(crate) fn publisher_dropped(&self, line: LineId) {
        self.leave(Note::PublisherDropped(line));
    }

    pub(crate) fn feed_changed(&self, feed: FeedId) {
        self.leave(Note::FeedChanged(feed));
    }

    pub(crate) fn settle_due(&self, feed: FeedId) {
        self.leave(Note::SettleDue(feed));
    }

    pub(crate) fn binding_wanted(&self, kid: Kid) {
        self.leave(Note::BindingWanted(kid));
    }

    fn leave(&self, note: Note) {
        let mut state = locked(&self.state);
        state.notes.push(note);
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Takes all notes, in the order in which they were left; `into` keeps its memory from turn to turn.
    pub(crate) fn poll_notes(&self, cx: &mut Context<'_>, into: &mut Vec<Note>) -> Poll<()> {
        let mut state = locked(&self.state);
        if state.notes.is_empty() {
            state.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        std::mem::swap(&mut state.notes, into);
        Poll::Ready(())
    }
}
