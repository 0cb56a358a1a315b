//! The publishing half of the core: every topic's line, whose turn it is, and when it may send.
//!
//! Self-clocked: with fewer than two unacknowledged batches on the connection, whatever is collected goes at once;
//! otherwise a batch grows until an acknowledgement returns or it is full. So an idle line adds no delay, and a busy
//! one makes large batches, without a timer.

use std::sync::{Arc, Mutex};

use sealbus_protocol::frame::{Ack, Opened};
use sealbus_protocol::ids::StreamId;
use sealbus_protocol::limits::SEQUENCE_STATES_PER_PRINCIPAL_MAX;
use sealbus_protocol::refusal::{Action, Code, Refusal};
use sealbus_protocol::session::Tick;
use sealbus_protocol::topic::Topic;
use tokio::sync::Notify;

use crate::clock;
use crate::error::{OpenError, PublishError};
use crate::event::Event;
use crate::publisher::PublisherShared;
use crate::publisher::line::{Line, LostSpan};
use crate::publisher::queue::{Queue, QueueLimits, Take, Taken};
use crate::sync::locked;

use super::command::OpenReply;
use super::core::{Asked, Core, End, Timer};
use super::lines::{Door, Slot, UNACKNOWLEDGED_IDLE};
use super::wake::LineId;

/// How long a refusal to open that may pass is waited out.
const REOPEN_PAUSE_MS: u64 = 500;

/// Topics that one incarnation may have published to: a broker forgets the oldest beyond, and so would the sequence.
const LINES_MAX: usize = SEQUENCE_STATES_PER_PRINCIPAL_MAX;

/// What serving a line came to.
enum Served {
    /// A batch was sent; there may be more.
    Sent,
    /// Only a batch that still grows.
    Growing,
    /// Nothing that could be sent now; whatever changes that makes the line ready again.
    Nothing,
}

impl Core {
    pub(super) fn open(&mut self, topic: Topic, reply: OpenReply, now: Tick) {
        let id = match self.lines.by_topic.get(&topic) {
            Some(id) => *id,
            None => match self.add_line(topic) {
                Ok(id) => id,
                Err(error) => return drop(reply.send(Err(error))),
            },
        };
        let Some(slot) = self.lines.slots.get_mut(&id) else { return };
        match slot.door {
            Door::Open(_) => slot.answer(reply),
            Door::Closed | Door::Opening | Door::Shut { .. } => {
                slot.waiting.retain(|waiting| !waiting.is_closed());
                slot.waiting.push(reply);
                self.open_line_at(id, now);
            }
        }
    }

    fn add_line(&mut self, topic: Topic) -> Result<LineId, OpenError> {
        let topics_max = usize::try_from(self.limits.topics_max).unwrap_or(usize::MAX);
        let open = self.lines.slots.values().filter(|slot| !slot.is_dormant()).count();
        if open >= topics_max {
            return Err(OpenError::TooManyTopics { max: topics_max });
        }
        if self.lines.slots.len() >= LINES_MAX {
            return Err(OpenError::TooManyTopics { max: LINES_MAX });
        }
        let id = LineId(self.lines.line_next);
        self.lines.line_next = self.lines.line_next.wrapping_add(1);
        let publish_timeout_ms = clock::milliseconds(self.options.publish_timeout);
        let granted = usize::try_from(self.limits.batch_bytes_max).unwrap_or(usize::MAX);
        let queue = Queue::new(QueueLimits {
            batch_bytes_max: self.options.batch_bytes_max.min(granted),
            pending_bytes_max: self.options.pending_bytes_max,
            publish_timeout_ms,
        });
        let line = Line::new(topic.digest(&StreamId::ZERO), publish_timeout_ms);
        let shared = Arc::new(PublisherShared {
            topic: topic.clone(),
            line: id,
            queue: Mutex::new(queue),
            changed: Notify::new(),
            wake: Arc::clone(&self.wake),
            ticker: self.ticker,
            publish_timeout: self.options.publish_timeout,
        });
        let slot = Slot {
            shared,
            line,
            handles: 0,
            door: Door::Closed,
            waiting: Vec::new(),
            is_ready: false,
            is_growing: false,
            timer: None,
        };
        self.lines.by_topic.insert(topic, id);
        self.lines.slots.insert(id, slot);
        Ok(id)
    }

    /// Asks the broker for the topic, when there is a connection and it was not asked before.
    fn open_line_at(&mut self, id: LineId, now: Tick) {
        let (Some(session), Some(slot)) = (&mut self.session, self.lines.slots.get_mut(&id)) else { return };
        match slot.door {
            Door::Closed => {}
            Door::Shut { until } if until <= now => {}
            Door::Opening | Door::Open(_) | Door::Shut { .. } => return,
        }
        if let Ok(request) = session.open(slot.shared.topic.clone()) {
            slot.door = Door::Opening;
            self.requests.insert(request, Asked::Open(id));
        } else {
            slot.door = Door::Shut { until: now.after_ms(REOPEN_PAUSE_MS) };
            self.arm(now.after_ms(REOPEN_PAUSE_MS), Timer::Line(id));
        }
    }

    pub(super) fn reopen_lines(&mut self, now: Tick) {
        let ids: Vec<LineId> =
            self.lines.slots.iter().filter(|(_, slot)| !slot.is_dormant()).map(|(id, _)| *id).collect();
        for id in ids {
            self.open_line_at(id, now);
        }
    }

    pub(super) fn handle_opened(&mut self, id: LineId, opened: &Opened) {
        let Some(slot) = self.lines.slots.get_mut(&id) else { return };
        slot.door = Door::Open(opened.alias);
        slot.line.handle_topic(slot.shared.topic.digest(&opened.stream));
        slot.line.handle_opened(opened.resume);
        for reply in std::mem::take(&mut slot.waiting) {
            slot.answer(reply);
        }
        self.lines.make_ready(id);
    }

    pub(super) fn handle_open_refused_at(&mut self, id: LineId, refusal: Refusal, now: Tick) {
        let Some(slot) = self.lines.slots.get_mut(&id) else { return };
        if refusal.action() == Action::Retry {
            let until = now.after_ms(REOPEN_PAUSE_MS);
            slot.door = Door::Shut { until };
            self.arm(until, Timer::Line(id));
            return;
        }
        slot.door = Door::Closed;
        for reply in std::mem::take(&mut slot.waiting) {
            let _ = reply.send(Err(OpenError::Refused(refusal.clone())));
        }
        let error = PublishError::Refused(refusal);
        let settled = slot.line.fail_unsent(&error);
        slot.settle(settled);
        let mut queue = locked(&slot.shared.queue);
        let unsigned = queue.take_expired_at(None);
        drop(queue);
        slot.fail(unsigned, &error);
        self.forget_if_dormant(id);
    }

    pub(super) fn handle_batch_due_at(&mut self, id: LineId, now: Tick) {
        self.arm_line_at(id, now);
        self.lines.make_ready(id);
        self.open_line_at(id, now);
    }

    pub(super) fn handle_publisher_dropped(&mut self, id: LineId) {
        if let Some(slot) = self.lines.slots.get_mut(&id) {
            slot.handles = slot.handles.saturating_sub(1);
        }
        self.forget_if_dormant(id);
    }

    /// Closes a topic that nobody publishes to. Its sequence is kept as long as the incarnation lasts: a number that
    /// was used is never used again.
    fn forget_if_dormant(&mut self, id: LineId) {
        let Some(slot) = self.lines.slots.get_mut(&id) else { return };
        if !slot.is_dormant() {
            return;
        }
        if let (Door::Open(alias), Some(session)) = (slot.door, &mut self.session) {
            session.close_alias(alias);
            slot.door = Door::Closed;
        }
        if slot.line.is_unused() && slot.door == Door::Closed {
            self.lines.by_topic.remove(&slot.shared.topic);
            self.lines.slots.remove(&id);
        }
    }

    pub(super) fn handle_ack(&mut self, id: LineId, first_seq: u64, ack: &Ack) {
        self.lines.unacknowledged = self.lines.unacknowledged.saturating_sub(1);
        let Some(slot) = self.lines.slots.get_mut(&id) else { return };
        let settled = slot.line.handle_ack(first_seq, ack, &self.context);
        slot.settle(settled);
        slot.tell_holding();
        self.lines.make_ready(id);
        self.forget_if_dormant(id);
    }

    pub(super) fn handle_publish_refused_at(
        &mut self,
        id: LineId,
        first_seq: u64,
        refusal: Refusal,
        now: Tick,
    ) {
        self.lines.unacknowledged = self.lines.unacknowledged.saturating_sub(1);
        if refusal.code() == Code::Fenced {
            return self.end_now(End::Final(refusal));
        }
        let Some(slot) = self.lines.slots.get_mut(&id) else { return };
        let settled = slot.line.handle_refused_at(first_seq, refusal, now);
        slot.settle(settled);
        slot.tell_holding();
        // A spoiled line asks for its topic again before it costs everybody a new incarnation: a right that was
        // withdrawn is then refused there, without one.
        if let (Some(_), Door::Open(alias), Some(session)) =
            (slot.line.spoiled(), slot.door, &mut self.session)
        {
            session.close_alias(alias);
            slot.door = Door::Closed;
        }
        self.arm_line_at(id, now);
        self.lines.make_ready(id);
        self.forget_if_dormant(id);
    }

    pub(super) fn disconnect_lines(&mut self) {
        self.lines.unacknowledged = 0;
        self.lines.ready.clear();
        self.lines.growing.clear();
        for slot in self.lines.slots.values_mut() {
            slot.door = Door::Closed;
            slot.is_ready = false;
            slot.is_growing = false;
            slot.line.handle_disconnected();
        }
    }

    pub(super) fn restart_lines(&mut self) {
        for slot in self.lines.slots.values_mut() {
            let restarted = slot.line.restart(&self.context, &self.keys.signing_key);
            slot.settle(restarted.settled);
            for LostSpan { from, to } in restarted.lost {
                self.events.tell(&Event::Lost { topic: slot.shared.topic.clone(), from, to });
            }
        }
        self.lines.slots.retain(|_, slot| !slot.is_dormant());
        self.lines.by_topic.retain(|_, id| self.lines.slots.contains_key(id));
    }

    /// Sends what may be sent.
    pub(super) fn pump_at(&mut self, now: Tick) {
        while self.has_room()
            && let Some(id) = self.lines.next_turn()
        {
            match self.serve_at(id, now) {
                Served::Sent => self.lines.make_ready(id),
                Served::Growing => self.lines.make_growing(id),
                Served::Nothing => self.lines.rest(id),
            }
        }
    }

    /// Gives a line its turn: one batch.
    fn serve_at(&mut self, id: LineId, now: Tick) -> Served {
        let (Some(session), Some(slot)) = (&mut self.session, self.lines.slots.get_mut(&id)) else {
            return Served::Nothing;
        };
        let Door::Open(alias) = slot.door else {
            if slot.line.has_orphans() || !slot.line.is_empty() || slot.has_batches() {
                self.open_line_at(id, now);
            }
            return Served::Nothing;
        };
        if slot.line.can_sign() && self.incarnation_wanted.is_none() && self.draining.is_none() {
            let unsent = slot.line.has_unsent();
            let take = if self.lines.unacknowledged < UNACKNOWLEDGED_IDLE { Take::Any } else { Take::Full };
            if !unsent {
                match locked(&slot.shared.queue).take(take) {
                    Taken::Batch(collected) => {
                        slot.line.sign(collected, &self.context, &self.keys.signing_key);
                    }
                    Taken::Growing => return Served::Growing,
                    Taken::Nothing => return Served::Nothing,
                }
            }
        }
        if let Some(transmit) = slot.line.poll_transmit_at(now) {
            let Ok(request) = session.publish(alias, transmit.bytes) else {
                slot.line.handle_unsent(transmit.first_seq);
                return Served::Nothing;
            };
            self.requests.insert(request, Asked::Publish { line: id, first_seq: transmit.first_seq });
            self.lines.unacknowledged += 1;
            return Served::Sent;
        }
        if let Some(because) = slot.line.spoiled()
            && (slot.line.has_orphans() || slot.has_batches())
        {
            self.incarnation_wanted.get_or_insert_with(|| because.clone());
        }
        Served::Nothing
    }

    pub(super) fn handle_line_timeout_at(&mut self, id: LineId, now: Tick) {
        let Some(slot) = self.lines.slots.get_mut(&id) else { return };
        if slot.timer.is_some_and(|timer| timer <= now) {
            slot.timer = None;
        }
        let settled = slot.line.handle_timeout_at(now);
        slot.settle(settled);
        let mut queue = locked(&slot.shared.queue);
        let (expired, not_sent) = (queue.take_expired_at(Some(now)), queue.not_sent());
        drop(queue);
        slot.fail(expired, &not_sent);
        self.arm_line_at(id, now);
        self.lines.make_ready(id);
        self.open_line_at(id, now);
        self.forget_if_dormant(id);
    }

    /// Arms a line's timer for the next moment that matters to it, unless an earlier one is armed.
    fn arm_line_at(&mut self, id: LineId, now: Tick) {
        let Some(slot) = self.lines.slots.get_mut(&id) else { return };
        let queued = locked(&slot.shared.queue).deadline();
        let next = [slot.line.deadline(), slot.line.resend_at(), queued].into_iter().flatten().min();
        // What is due already was just done, or waits for the topic to be open: it needs no timer, and one that is
        // due would be served for ever.
        if let Some(next) = next.map(|next| next.max(now.after_ms(1)))
            && slot.timer.is_none_or(|timer| next < timer)
        {
            slot.timer = Some(next);
            self.arm(next, Timer::Line(id));
        }
    }

    /// The bus has ended: every message has its answer, and the first failure that no flush was told is returned.
    pub(super) fn abandon_lines(&mut self, error: &PublishError) -> Option<PublishError> {
        let PublishError::Closed(reason) = error else { return None };
        self.lines.close(reason);
        let mut failure = None;
        for slot in self.lines.slots.values_mut() {
            let settled = slot.line.abandon(error);
            slot.settle(settled);
            let unsigned = locked(&slot.shared.queue).take_expired_at(None);
            slot.fail(unsigned, error);
            for reply in std::mem::take(&mut slot.waiting) {
                let _ = reply.send(Err(OpenError::Closed(reason.clone())));
            }
            slot.shared.changed.notify_waiters();
            if failure.is_none() {
                failure = locked(&slot.shared.queue).take_failure();
            }
        }
        failure
    }
}
