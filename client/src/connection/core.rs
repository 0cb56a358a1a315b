//! What the connection's task decides: commands, notes, the broker's events and moments come in; frames, answers and
//! an end come out. No I/O, and no waiting.
//!
//! ```text
//!                     .------------------ connection lost ------------------.
//!                     v                                                      |
//!   Disconnected --- welcome ---> Connected --- a spoiled line has more ---> Switching --- answered ---> new incarnation
//!        ^                            |
//!        '------ lost, drained -------'
//! ```
//!
//! Topics, subscriptions and what was queued outlive connections. [`super::publishing`] and [`super::subscribing`]
//! hold the two halves.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;

use bytes::Buf as _;
use sealbus_protocol::batch::produce::ProducerContext;
use sealbus_protocol::frame::{Generation, Limits, Refused, RequestId, Welcome};
use sealbus_protocol::ids::Kid;
use sealbus_protocol::refusal::{Code, Refusal};
use sealbus_protocol::session::{ClientEvent, ClientSession, SessionError, Tick};

use crate::builder::Options;
use crate::bus::{PolicySeen, Seen};
use crate::clock::{self, Ticker};
use crate::error::{CloseError, CloseReason, ConnectError, PublishError, RequestError, SettleError};
use crate::event::{Event, EventHub};
use crate::subscription::bindings::Keyring;
use crate::subscription::feed::Overdrawn;
use crate::subscription::settle::{Settler, Settling};

use super::command::{AdministerReply, CheckpointAnswer, CloseReply, Command};
use super::inquiring::Inquiries;
use super::keys::Keys;
use super::lines::Lines;
use super::subscribing::Feeds;
use super::wake::{FeedId, LineId, Note, Wake};

/// Bytes of frames that may wait for the socket before no more batches are signed: signing ahead of the socket would
/// only hold memory.
const OUTGOING_BYTES_MAX: usize = 1_024 * 1_024;

/// Requests that may await their answer before no more batches are sent; the rest is for everything else.
const PUBLISHES_OUTSTANDING_MAX: usize = sealbus_protocol::limits::REQUESTS_OUTSTANDING_MAX / 2;

/// The connection's mind.
pub(super) struct Core {
    pub(super) options: Options,
    pub(super) ticker: Ticker,
    pub(super) keys: Arc<Keys>,
    pub(super) context: ProducerContext,
    pub(super) wake: Arc<Wake>,
    pub(super) events: Arc<EventHub>,
    pub(super) keyring: Arc<Keyring>,
    pub(super) seen: Arc<Seen>,
    pub(super) session: Option<ClientSession>,
    pub(super) requests: HashMap<RequestId, Asked>,
    pub(super) limits: Limits,
    /// Counts the connections of the bus, so that consumers know what came on which.
    pub(super) connection: u64,
    pub(super) generation: u64,
    pub(super) lines: Lines,
    pub(super) feeds: Feeds,
    /// Set while the broker shuts down: when it closes the connection.
    pub(super) draining: Option<Tick>,
    /// Set when a line cannot go on in this incarnation and has more to send.
    pub(super) incarnation_wanted: Option<Refusal>,
    timers: BinaryHeap<Reverse<(Tick, Timer)>>,
    pub(super) inquiries: Inquiries,
    closing: Option<Closing>,
    end: Option<End>,
}

/// What an answer is awaited for.
#[derive(Debug)]
pub(super) enum Asked {
    Open(LineId),
    Publish { line: LineId, first_seq: u64 },
    Read(FeedId),
    Binding(Kid),
    Administer(AdministerReply),
    Checkpoint(CheckpointAnswer),
    Settle { settler: Arc<Settler>, settling: Settling },
}

/// What happens at a moment. One that is out of date does nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// A batch's deadline, a resend, or another attempt to open.
    Line(LineId),
    /// Another attempt to subscribe.
    Feed(FeedId),
    /// Verdicts have waited for more to go with them.
    Settle(FeedId),
    /// A key binding was asked for and has not come.
    Binding(Kid),
    /// The broker's own deadline for its shutdown.
    Drain,
}

#[derive(Debug)]
struct Closing {
    reply: Option<CloseReply>,
}

/// Why a connection ends.
#[derive(Debug)]
pub(super) enum End {
    /// The bus is closed and everything has its answer.
    Closed,
    /// Publishing goes on under a new incarnation.
    NewIncarnation(Refusal),
    /// The connection broke, or the broker ended it, or broke the protocol.
    Lost(String),
    /// The broker will not take this client back.
    Final(Refusal),
}

/// What a core is made from.
pub(super) struct CoreParts {
    pub(super) options: Options,
    pub(super) ticker: Ticker,
    pub(super) keys: Arc<Keys>,
    pub(super) context: ProducerContext,
    pub(super) wake: Arc<Wake>,
    pub(super) events: Arc<EventHub>,
    pub(super) keyring: Arc<Keyring>,
    pub(super) seen: Arc<Seen>,
    pub(super) limits: Limits,
}

impl Core {
    pub(super) fn new(parts: CoreParts) -> Self {
        let CoreParts { options, ticker, keys, context, wake, events, keyring, seen, limits } = parts;
        Self {
            connection: 0,
            generation: seen.policy().generation,
            options,
            ticker,
            keys,
            context,
            wake,
            events,
            keyring,
            seen,
            session: None,
            requests: HashMap::new(),
            limits,
            lines: Lines::default(),
            feeds: Feeds::default(),
            draining: None,
            incarnation_wanted: None,
            timers: BinaryHeap::new(),
            inquiries: Inquiries::default(),
            closing: None,
            end: None,
        }
    }

    /// A session serves: everything that is to be is made anew on it.
    pub(super) fn handle_welcome_at(&mut self, session: ClientSession, welcome: &Welcome, now: Tick) {
        self.session = Some(session);
        self.connection += 1;
        self.limits = welcome.limits;
        self.draining = None;
        self.handle_policy(PolicySeen {
            generation: welcome.generation,
            version: welcome.policy_version,
            hash: welcome.policy_hash,
        });
        tracing::info!(session = welcome.session_id, generation = welcome.generation, "connected");
        self.events.tell(&Event::Connected { session: welcome.session_id, generation: welcome.generation });
        self.reopen_lines(now);
        self.resubscribe_all_at(now);
        for kid in self.keyring.unanswered() {
            self.ask_binding(kid);
        }
        self.inquire_waiting();
    }

    /// The connection is gone.
    pub(super) fn handle_disconnected(&mut self, reason: &str) {
        tracing::info!(reason, "disconnected");
        self.events.tell(&Event::Disconnected { reason: reason.to_owned() });
        self.session = None;
        self.draining = None;
        self.end = None;
        for (_, asked) in self.requests.drain() {
            asked.refuse(RequestError::Disconnected);
        }
        self.disconnect_lines();
        self.disconnect_feeds();
    }

    /// Begins a new incarnation: what was not accepted in the one before it is signed anew.
    pub(super) fn begin_incarnation(&mut self, because: Refusal) -> Result<(), ConnectError> {
        let now_ms = clock::now_ms();
        self.context = self.keys.incarnation(self.context.bus_id, now_ms, Some(&self.context))?;
        self.incarnation_wanted = None;
        tracing::warn!(incarnation = %self.context.incarnation_id, because = %because, "a new incarnation begins");
        let incarnation_id = self.context.incarnation_id;
        self.events.tell(&Event::NewIncarnation { incarnation_id, because });
        self.restart_lines();
        Ok(())
    }

    /// Something that a handle asks for.
    pub(super) fn handle_command_at(&mut self, command: Command, now: Tick) {
        match command {
            Command::Open { topic, reply } => self.open(topic, reply, now),
            Command::Read { want, reply } => self.read(want, reply, now),
            Command::Inquire(inquiry) => self.inquire(inquiry),
            Command::Close { reply } => self.close(Some(reply)),
        }
    }

    /// Nobody holds the bus any more: what is queued is still sent.
    pub(super) fn handle_all_dropped(&mut self) {
        if self.closing.is_none() {
            self.close(None);
        }
    }

    fn close(&mut self, reply: Option<CloseReply>) {
        self.lines.close(&CloseReason::ByCaller);
        match &mut self.closing {
            None => self.closing = Some(Closing { reply }),
            // Two handles closed at once: the second is told that it is closed, which is what it wanted.
            Some(_) => drop(reply.map(|reply| reply.send(Ok(())))),
        }
    }

    pub(super) fn handle_note_at(&mut self, note: Note, now: Tick) {
        match note {
            Note::BatchDue(line) => self.handle_batch_due_at(line, now),
            Note::PublisherDropped(line) => self.handle_publisher_dropped(line),
            Note::FeedChanged(feed) => self.handle_feed_changed(feed),
            Note::SettleDue(feed) => self.handle_settle_due_at(feed, now),
            Note::BindingWanted(kid) => {
                let timeout_ms = clock::milliseconds(self.options.request_timeout);
                self.arm(now.after_ms(timeout_ms), Timer::Binding(kid));
                self.ask_binding(kid);
            }
        }
    }

    /// Something that the broker says.
    pub(super) fn handle_event_at(&mut self, event: ClientEvent, now: Tick) -> Result<(), SessionError> {
        match event {
            ClientEvent::Welcome(_) => {}
            ClientEvent::Opened(opened) => {
                if let Some(Asked::Open(line)) = self.requests.remove(&opened.request) {
                    self.handle_opened(line, &opened);
                }
            }
            ClientEvent::Ack(ack) => {
                if let Some(Asked::Publish { line, first_seq }) = self.requests.remove(&ack.request) {
                    self.handle_ack(line, first_seq, &ack);
                }
            }
            ClientEvent::Refused(refused) => self.handle_refused_at(refused, now),
            ClientEvent::Ready(ready) => {
                if let Some(Asked::Read(feed)) = self.requests.remove(&ready.request) {
                    self.handle_ready_at(feed, ready, now)?;
                }
            }
            ClientEvent::Settled(settled) => {
                if let Some(Asked::Settle { settling, .. }) = self.requests.remove(&settled.request) {
                    settling.answer(Ok(()));
                }
            }
            ClientEvent::Checkpoint(reply) => {
                if let Some(Asked::Checkpoint(answer)) = self.requests.remove(&reply.request) {
                    // Nobody may be waiting any more, which is theirs to choose.
                    let _ = answer.send(Ok(reply));
                }
            }
            ClientEvent::Skipped(skipped) => self.handle_skipped(skipped)?,
            ClientEvent::Closed(what) => self.handle_closed(what),
            ClientEvent::Deliver(delivered) => self.handle_deliver(delivered)?,
            ClientEvent::Lagged(lagged) => self.handle_lagged(lagged),
            ClientEvent::Generation(generation) => self.handle_generation(&generation),
            ClientEvent::Binding(reply) => {
                self.keyring.handle_binding(reply.binding);
                if let Some(Asked::Binding(kid)) =
                    reply.request.and_then(|request| self.requests.remove(&request))
                {
                    self.keyring.handle_answer(kid, None);
                }
            }
            ClientEvent::AdminResult(result) => {
                if let Some(Asked::Administer(reply)) = self.requests.remove(&result.request) {
                    let _ = reply.send(Ok(result.outcome));
                }
            }
            ClientEvent::Drain(drain) => {
                self.events.tell(&Event::Draining { deadline_ms: drain.deadline_ms });
                // Not longer than publishers can wait: nothing new is sent to a broker that is going.
                let patience_ms = clock::milliseconds(self.options.publish_timeout) / 2;
                let deadline = now.after_ms(u64::from(drain.deadline_ms).min(patience_ms));
                self.draining = Some(deadline);
                self.arm(deadline, Timer::Drain);
            }
            ClientEvent::Failed(refusal) if refusal.code() == Code::Fenced => {
                self.end_now(End::Final(refusal))
            }
            ClientEvent::Failed(refusal) => {
                self.end_now(End::Lost(format!("the broker ended the session: {refusal}")));
            }
        }
        Ok(())
    }

    fn handle_refused_at(&mut self, refused: Refused, now: Tick) {
        let Refused { request, refusal } = refused;
        if !request.is_awaited() {
            // Verdicts that nobody waits for. What they were about is delivered again.
            tracing::warn!(refusal = %refusal, "acknowledgements were refused");
            return self.events.tell(&Event::SettleRefused { refusal });
        }
        match self.requests.remove(&request) {
            None => {}
            Some(Asked::Open(line)) => self.handle_open_refused_at(line, refusal, now),
            Some(Asked::Publish { line, first_seq }) => {
                self.handle_publish_refused_at(line, first_seq, refusal, now);
            }
            Some(Asked::Read(feed)) => self.handle_subscribe_refused_at(feed, refusal, now),
            Some(Asked::Binding(kid)) => self.keyring.handle_answer(kid, Some(refusal.to_string())),
            Some(Asked::Settle { settling, .. }) => {
                settling.answer(Err(SettleError::Refused(refusal)));
            }
            Some(asked @ (Asked::Administer(_) | Asked::Checkpoint(_))) => {
                asked.refuse(RequestError::Refused(refusal));
            }
        }
    }

    fn handle_generation(&mut self, generation: &Generation) {
        let policy = PolicySeen {
            generation: generation.generation,
            version: generation.policy_version,
            hash: generation.policy_hash,
        };
        self.handle_policy(policy);
    }

    fn handle_policy(&mut self, policy: PolicySeen) {
        self.generation = policy.generation;
        if self.seen.policy() != policy {
            self.seen.handle_policy(policy);
            let PolicySeen { generation, version, hash } = policy;
            self.events.tell(&Event::PolicyChanged { generation, version, hash });
        }
    }

    /// Asks the broker for a key binding; without a connection, or room for a request, its timer answers.
    fn ask_binding(&mut self, kid: Kid) {
        let Some(session) = &mut self.session else { return };
        if let Ok(request) = session.binding_get(kid) {
            self.requests.insert(request, Asked::Binding(kid));
        }
    }

    pub(super) fn arm(&mut self, at: Tick, timer: Timer) {
        self.timers.push(Reverse((at, timer)));
    }

    /// When [`Core::handle_timeout_at`] wants to be called next.
    pub(super) fn poll_timeout(&self) -> Option<Tick> {
        let timer = self.timers.peek().map(|Reverse((at, _))| *at);
        let session = self.session.as_ref().map(ClientSession::poll_timeout);
        [timer, session].into_iter().flatten().min()
    }

    /// Does what is due.
    pub(super) fn handle_timeout_at(&mut self, now: Tick) -> Result<(), SessionError> {
        while let Some(Reverse((at, timer))) = self.timers.peek().copied()
            && at <= now
        {
            self.timers.pop();
            match timer {
                Timer::Line(line) => self.handle_line_timeout_at(line, now),
                Timer::Feed(feed) => self.handle_feed_timeout_at(feed, now),
                Timer::Settle(feed) => self.settle_at(feed, now),
                Timer::Binding(kid) => {
                    if self.keyring.unanswered().contains(&kid) {
                        self.keyring.handle_answer(kid, Some("the broker did not send one in time".into()));
                    }
                }
                Timer::Drain => {
                    if self.draining.is_some_and(|deadline| deadline <= now) {
                        self.end_now(End::Lost("the broker is shutting down".into()));
                    }
                }
            }
        }
        match &mut self.session {
            Some(session) if session.poll_timeout() <= now => session.handle_timeout_at(now),
            Some(_) | None => Ok(()),
        }
    }

    pub(super) fn end_now(&mut self, end: End) {
        self.end.get_or_insert(end);
    }

    /// The connection ends: for this reason, unless a better one was known before. A broker that says why and hangs up
    /// is both heard and lost.
    pub(super) fn end_with(&mut self, end: End) -> End {
        self.end.take().unwrap_or(end)
    }

    /// Why the connection should end now, when it should.
    pub(super) fn poll_end(&mut self) -> Option<End> {
        if let Some(end) = self.end.take() {
            return Some(end);
        }
        if self.closing.is_some() && self.lines.are_settled() {
            self.settle_all();
            return Some(End::Closed);
        }
        if self.incarnation_wanted.is_some() && self.lines.can_restart() {
            return self.incarnation_wanted.take().map(End::NewIncarnation);
        }
        None
    }

    /// Whether the bus is closed and everything has its answer, connected or not.
    pub(super) fn is_closed(&self) -> bool {
        self.closing.is_some() && self.lines.are_settled()
    }

    /// Whether the bytes and requests that wait leave room for another batch.
    pub(super) fn has_room(&mut self) -> bool {
        let outgoing = self.session.as_mut().map_or(usize::MAX, |session| session.outgoing().remaining());
        outgoing < OUTGOING_BYTES_MAX && self.requests.len() < PUBLISHES_OUTSTANDING_MAX
    }

    /// The bus has ended: everybody is told.
    pub(super) fn finish(mut self, reason: &CloseReason) {
        tracing::info!(reason = %reason, "the bus has ended");
        self.seen.handle_end(reason);
        let failure = self.abandon_lines(&PublishError::Closed(reason.clone()));
        self.close_feeds(reason);
        for kid in self.keyring.unanswered() {
            self.keyring.handle_answer(kid, Some("the bus has ended".into()));
        }
        self.events.end();
        let Some(reply) = self.closing.and_then(|closing| closing.reply) else { return };
        let _ = reply.send(match (reason, failure) {
            (CloseReason::ByCaller, None) => Ok(()),
            (CloseReason::ByCaller, Some(failure)) => Err(CloseError::Unflushed(failure)),
            (reason, _) => Err(CloseError::Ended(reason.clone())),
        });
    }
}

/// What the peer is told when it sends more than it may.
pub(super) const fn overdrawn(_: Overdrawn) -> SessionError {
    SessionError::Unexpected {
        kind: sealbus_protocol::frame::FrameType::Deliver,
        awaited: "credit for another batch",
    }
}
