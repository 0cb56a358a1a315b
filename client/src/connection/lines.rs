//! The lines of a bus: which topics there are, who holds them, and whose turn it is.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use sealbus_protocol::batch::preamble::HEAD_LEN;
use sealbus_protocol::frame::Alias;
use sealbus_protocol::session::Tick;
use sealbus_protocol::topic::Topic;

use crate::error::{CloseReason, PublishError};
use crate::publisher::entry::Settled;
use crate::publisher::line::Line;
use crate::publisher::queue::Collected;
use crate::publisher::receipt::Ticket;
use crate::publisher::{Handle, PublisherShared};
use crate::sync::locked;

use super::command::OpenReply;
use super::wake::LineId;

/// Unacknowledged batches on a connection below which a batch does not wait to grow.
pub(super) const UNACKNOWLEDGED_IDLE: usize = 2;

/// Every topic that this bus publishes to.
#[derive(Debug, Default)]
pub(super) struct Lines {
    pub(super) slots: BTreeMap<LineId, Slot>,
    pub(super) by_topic: HashMap<Topic, LineId>,
    pub(super) line_next: u32,
    /// Lines that may have a batch to send, in turn.
    pub(super) ready: VecDeque<LineId>,
    /// Lines whose batch still grows, until the connection is idle enough.
    pub(super) growing: VecDeque<LineId>,
    pub(super) unacknowledged: usize,
}

#[derive(Debug)]
pub(super) struct Slot {
    pub(super) shared: Arc<PublisherShared>,
    pub(super) line: Line<Arc<Ticket>>,
    /// Openings that somebody holds.
    pub(super) handles: usize,
    pub(super) door: Door,
    pub(super) waiting: Vec<OpenReply>,
    pub(super) is_ready: bool,
    pub(super) is_growing: bool,
    pub(super) timer: Option<Tick>,
}

/// Whether the topic is open on this connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Door {
    Closed,
    Opening,
    Open(Alias),
    /// Refused with leave to try again, then.
    Shut {
        until: Tick,
    },
}

impl Lines {
    pub(super) fn make_ready(&mut self, id: LineId) {
        if let Some(slot) = self.slots.get_mut(&id)
            && !std::mem::replace(&mut slot.is_ready, true)
        {
            self.ready.push_back(id);
        }
    }

    pub(super) fn make_growing(&mut self, id: LineId) {
        if let Some(slot) = self.slots.get_mut(&id)
            && !std::mem::replace(&mut slot.is_growing, true)
        {
            self.growing.push_back(id);
        }
    }

    /// The line whose turn it is: those with something to send first, growing batches only when the line is idle.
    pub(super) fn next_turn(&mut self) -> Option<LineId> {
        if let Some(id) = self.ready.pop_front() {
            if let Some(slot) = self.slots.get_mut(&id) {
                slot.is_ready = false;
            }
            return Some(id);
        }
        if self.unacknowledged >= UNACKNOWLEDGED_IDLE {
            return None;
        }
        let id = self.growing.pop_front()?;
        if let Some(slot) = self.slots.get_mut(&id) {
            slot.is_growing = false;
        }
        Some(id)
    }

    /// Nothing of the line can be sent now: its next message gives notice.
    pub(super) fn rest(&self, id: LineId) {
        if let Some(slot) = self.slots.get(&id) {
            locked(&slot.shared.queue).rest();
        }
    }

    /// Takes no message any more; what is queued goes on.
    pub(super) fn close(&self, reason: &CloseReason) {
        for slot in self.slots.values() {
            locked(&slot.shared.queue).close(reason);
        }
    }

    /// Whether every batch has its answer.
    pub(super) fn are_settled(&self) -> bool {
        self.slots.values().all(|slot| locked(&slot.shared.queue).is_settled())
    }

    /// Whether a new incarnation would lose no answer that may still come.
    pub(super) fn can_restart(&self) -> bool {
        self.slots.values().all(|slot| slot.line.can_restart())
    }
}

impl Slot {
    pub(super) fn has_batches(&self) -> bool {
        locked(&self.shared.queue).has_batches()
    }

    /// Whether nobody holds the topic and nothing waits on it.
    pub(super) fn is_dormant(&self) -> bool {
        self.handles == 0
            && self.waiting.is_empty()
            && self.line.is_empty()
            && locked(&self.shared.queue).is_settled()
    }

    pub(super) fn settle(&self, settled: impl IntoIterator<Item = Settled<Arc<Ticket>>>) {
        let mut any = false;
        for Settled { cargo, bytes, outcome } in settled {
            locked(&self.shared.queue).settle(cargo.number, bytes, outcome.as_ref().err());
            cargo.ticket.settle(outcome);
            any = true;
        }
        if any {
            self.shared.changed.notify_waiters();
        }
    }

    /// Lets the queue know why nothing is accepted, for those who wait in it.
    pub(super) fn tell_holding(&self) {
        locked(&self.shared.queue).set_holding(self.line.holding());
    }

    /// Fails batches that were never signed.
    pub(super) fn fail(&self, collected: Vec<Collected<Arc<Ticket>>>, error: &PublishError) {
        self.settle(collected.into_iter().map(|collected| Settled {
            bytes: collected.batch.bytes_len().saturating_sub(HEAD_LEN),
            cargo: collected.cargo,
            outcome: Err(error.clone()),
        }));
    }

    pub(super) fn answer(&mut self, reply: OpenReply) {
        self.handles += 1;
        // An answer that nobody awaits is dropped, and the handle in it says so.
        let _ = reply.send(Ok(Handle::new(Arc::clone(&self.shared))));
    }
}
