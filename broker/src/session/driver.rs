//! The driver: one turn after the other until nothing moves.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Buf as _;
use sealbus_protocol::frame::Hello;
use sealbus_protocol::refusal::{Code, Refusal};
use sealbus_protocol::session::{BrokerEvent, BrokerSession, SessionError, Tick};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::timer::Timer;
use crate::admission::Slot;
use crate::audit::{CutReason, Event};
use crate::bus::Bus;
use crate::pipeline::{self, Client, Ended, Filled, Peer};
use crate::port::Port;
use crate::sessions::{Barrier, Control};

/// Bytes that wait to be written while more is still read. Deliveries alone never reach it, so that a slow subscriber
/// is still heard; a peer that asks and does not read the answers does.
const UNSENT_BYTES_MAX: usize = 2 * 1_024 * 1_024;

/// Bytes of one read: a TLS record has no more.
const READ_BYTES: usize = 16 * 1_024;

/// Reads in one turn. Between turns the session looks at its signals.
const READS_PER_TURN: usize = 16;

/// Turns in one go, so that a session with endless work lets others have the thread.
const TURNS_MAX: usize = 8;

/// Slices of one vectored write.
const SLICES: usize = 64;

/// Milliseconds in which a peer may take what is left for it when its session ends, and close its side.
const CLOSE_MS: u64 = 1_000;

/// What a session begins with.
pub(crate) struct Setting {
    pub(crate) bus: Arc<Bus>,
    pub(crate) port: Arc<Port>,
    pub(crate) peer: Peer,
    /// Given back when HELLO has been judged.
    pub(crate) slot: Slot,
    /// Until when HELLO must have come.
    pub(crate) deadline: Tick,
}

/// A session on its connection. The fields are dropped in their order: the connection is closed before the session is
/// taken off the bus.
pub(crate) struct Driver<S> {
    io: S,
    wire: BrokerSession,
    timer: Timer,
    bus: Arc<Bus>,
    port: Arc<Port>,
    peer: Peer,
    stage: Stage,
    ending: Option<Ending>,
    marker: Option<Marker>,
    /// Barriers that are passed when nothing more will be written.
    until_silent: Vec<Arc<Barrier>>,
    /// Whether to leave when all is written.
    is_finishing: bool,
    has_heard_end: bool,
    /// Bytes given to TLS so far, and those of them that are known to be with the kernel.
    written: u64,
    flushed: u64,
}

enum Stage {
    Greeting { deadline: Tick, slot: Option<Slot> },
    Serving(Box<Client>),
}

/// A GENERATION marker that is on its way.
struct Marker {
    /// It ends here in the stream of all bytes written.
    at: u64,
    barrier: Arc<Barrier>,
}

struct Ending {
    deadline: Tick,
    step: Step,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// What is framed is written.
    Writing,
    /// TLS and the connection are shut down in our direction.
    Closing,
    /// The peer may still send, which is thrown away: closing now would take from it what it has not yet read.
    Lingering,
}

/// Whether a session goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
enum Going {
    On,
    Over,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Driver<S> {
    pub(crate) fn new(io: S, setting: Setting) -> Self {
        let Setting { bus, port, peer, slot, deadline } = setting;
        let now = bus.clock.tick();
        Self {
            io,
            wire: BrokerSession::new_at(now),
            timer: Timer::new_at(now),
            bus,
            port,
            peer,
            stage: Stage::Greeting { deadline, slot: Some(slot) },
            ending: None,
            marker: None,
            until_silent: Vec::new(),
            is_finishing: false,
            has_heard_end: false,
            written: 0,
            flushed: 0,
        }
    }

    /// Goes on until nothing moves. Ready when the session is over.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // First of all, so that nothing signalled after this is overlooked.
        if let Stage::Serving(client) = &self.stage {
            client.handle().outbox.register(cx.waker());
        }
        if self.timer.poll(cx).is_ready() && self.handle_time() == Going::Over {
            return Poll::Ready(());
        }
        for _ in 0..TURNS_MAX {
            if self.handle_signals() == Going::Over {
                return Poll::Ready(());
            }
            let mut moved = false;
            if self.is_open() {
                moved |= self.take_in(cx);
            }
            if self.is_open() {
                moved |= self.fill();
            }
            match self.put_out(cx) {
                Ok(wrote) => moved |= wrote,
                Err(error) => {
                    self.note_end(Ended::Closed(format!("writing failed: {error}")));
                    return Poll::Ready(());
                }
            }
            moved |= self.settle_marker();
            self.finish();
            match self.end(cx) {
                Going::On => {}
                Going::Over => return Poll::Ready(()),
            }
            if !moved {
                self.wire.release();
                self.arm(cx);
                return Poll::Pending;
            }
        }
        self.arm(cx);
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Whether requests are read and batches framed.
    const fn is_open(&self) -> bool {
        self.ending.is_none() && self.marker.is_none()
    }

    /// Does what others have told the session.
    fn handle_signals(&mut self) -> Going {
        let Stage::Serving(client) = &mut self.stage else { return Going::On };
        let Some(control) = client.handle().take_signals() else { return Going::On };
        let Control { policy, tls, drain, finish, cut, kill, answer } = control;
        if let Some(why) = kill {
            client.end(Ended::Cut(why));
            return Going::Over;
        }
        let id = client.handle().id;
        if let Some((request, answer)) = answer
            && self.ending.is_none()
        {
            client.answer_admin(&mut self.wire, request, answer);
        }
        if let Some((deadline_ms, barrier)) = drain {
            client.close_intake();
            self.wire.drain(deadline_ms);
            barrier.arrive(id);
        }
        self.is_finishing |= finish;
        if let Some(barrier) = policy
            && self.adopt(barrier) == Going::Over
        {
            return Going::Over;
        }
        if let Some(barrier) = tls {
            self.recheck(barrier);
        }
        if let Some(why) = cut {
            let code = match why {
                CutReason::Fenced => Code::Fenced,
                _ => Code::Session,
            };
            self.cut(why, code);
        }
        Going::On
    }

    /// Another policy is in force. From here on nothing is decided by the one before; what was, is already framed, and
    /// the marker goes behind it.
    fn adopt(&mut self, barrier: Arc<Barrier>) -> Going {
        let Stage::Serving(client) = &mut self.stage else { return Going::On };
        match &self.ending {
            // What is still being written was decided by the policy before. There is no marker after the last frame,
            // so it is not written.
            Some(Ending { step: Step::Writing | Step::Closing, .. }) => return Going::Over,
            Some(Ending { step: Step::Lingering, .. }) => {
                barrier.arrive(client.handle().id);
                return Going::On;
            }
            None => {}
        }
        let before = client.generation();
        let revoked = client.adopt();
        let now = client.generation();
        if before != now {
            self.wire.generation(&now);
        }
        let at = self.written.saturating_add(self.wire.outgoing().remaining() as u64);
        // A marker that is still on its way is covered by this one.
        if let Some(earlier) = self.marker.replace(Marker { at, barrier }) {
            self.until_silent.push(earlier.barrier);
        }
        if let Some(rule) = revoked {
            self.cut(CutReason::PrincipalRevoked(rule), Code::Denied);
        }
        Going::On
    }

    /// Certificates, roots or revocation lists have changed: the peer's own are judged by the new ones.
    fn recheck(&mut self, barrier: Arc<Barrier>) {
        let Stage::Serving(client) = &mut self.stage else { return };
        let id = client.handle().id;
        let checked = self.port.tls.load().check_peer(&self.peer.chain, self.bus.clock.now_ms());
        match checked {
            Ok(_) => barrier.arrive(id),
            Err(error) => {
                self.until_silent.push(barrier);
                self.cut(CutReason::CertificateRefused(error.to_string()), Code::Binding);
            }
        }
    }

    /// Looks at everything that time brings.
    fn handle_time(&mut self) -> Going {
        let now = self.bus.clock.tick();
        if let Some(ending) = &self.ending {
            return if now >= ending.deadline { Going::Over } else { Going::On };
        }
        if let Err(error) = self.wire.handle_timeout_at(now) {
            self.break_off(&error);
            return Going::On;
        }
        match &mut self.stage {
            Stage::Greeting { deadline, .. } if now >= *deadline => {
                let refusal = Refusal::new(Code::Limit, "hello: it did not come in time");
                self.refuse_greeting(refusal);
            }
            Stage::Greeting { .. } => {}
            Stage::Serving(client) => {
                if self.bus.clock.now_ms() > client.ends_ms() {
                    self.cut(CutReason::CertificateExpired, Code::Binding);
                } else if let Some(rule) = client.revoked() {
                    self.cut(CutReason::PrincipalRevoked(rule), Code::Denied);
                } else if let Err(refusal) = client.summarise() {
                    self.fail(refusal);
                }
            }
        }
        Going::On
    }

    fn arm(&mut self, cx: &mut Context<'_>) {
        let now = self.bus.clock.tick();
        let due = match &self.ending {
            Some(ending) => ending.deadline,
            None => {
                let now_ms = self.bus.clock.now_ms();
                let at_ms = |at_ms: u64| now.after_ms(at_ms.saturating_sub(now_ms).saturating_add(1));
                let of_stage = match &mut self.stage {
                    Stage::Greeting { deadline, .. } => *deadline,
                    Stage::Serving(client) => {
                        let revoked = client.revocation_due_ms().map(at_ms);
                        let patient = client.patience.poll_wait_at(now);
                        [revoked, patient, client.summary_due()]
                            .into_iter()
                            .flatten()
                            .fold(at_ms(client.ends_ms()), Tick::min)
                    }
                };
                self.wire.poll_timeout().min(of_stage)
            }
        };
        self.timer.arm(now, due, cx);
    }

    /// Reads and answers, for one turn. Returns whether anything came.
    fn take_in(&mut self, cx: &mut Context<'_>) -> bool {
        let mut moved = false;
        for _ in 0..READS_PER_TURN {
            if !self.handle_events(cx) {
                return moved;
            }
            match self.poll_read(cx) {
                Poll::Pending => return moved,
                Poll::Ready(Ok(0)) => {
                    self.handle_closed("the client closed the connection".to_owned());
                    return true;
                }
                Poll::Ready(Ok(_)) => {
                    moved = true;
                    self.wire.handle_input_at(self.bus.clock.tick());
                }
                Poll::Ready(Err(error)) => {
                    self.handle_closed(format!("reading failed: {error}"));
                    return true;
                }
            }
        }
        self.handle_events(cx);
        true
    }

    /// Reads straight into the session's memory. The room is zeroed first, a record's worth at most: to do without
    /// takes either unsafe code or a feature of the runtime that this crate does not have.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let room = self.wire.space_len().min(READ_BYTES);
        let space = self.wire.space();
        let before = space.len();
        space.resize(before.saturating_add(room), 0);
        let mut read = ReadBuf::new(space.get_mut(before..).unwrap_or_default());
        let polled = Pin::new(&mut self.io).poll_read(cx, &mut read);
        let len = read.filled().len();
        space.truncate(before.saturating_add(len));
        polled.map_ok(|()| len)
    }

    /// Nothing more comes. What is framed is still written: the peer may have closed its direction only.
    fn handle_closed(&mut self, reason: String) {
        self.has_heard_end = true;
        match self.stage {
            Stage::Greeting { .. } => self.refuse_greeting(Refusal::new(Code::Session, format!("hello: {reason}"))),
            Stage::Serving(_) => {
                self.note_end(Ended::Closed(reason));
                self.begin_ending();
            }
        }
    }

    /// Answers what has been read. Returns whether more may be read.
    fn handle_events(&mut self, cx: &mut Context<'_>) -> bool {
        while self.is_open() && self.wire.outgoing().remaining() < UNSENT_BYTES_MAX {
            if let Stage::Serving(client) = &mut self.stage
                && client.patience.poll_wait_at(self.bus.clock.tick()).is_some()
            {
                return false;
            }
            match self.wire.poll_event() {
                Ok(Some(BrokerEvent::Hello(hello))) => self.handle_hello(&hello, cx),
                Ok(Some(BrokerEvent::Failed(refusal))) => {
                    self.note_end(Ended::Closed(format!("the client gave up: {refusal}")));
                    self.begin_ending();
                }
                Ok(Some(event)) => {
                    if let Stage::Serving(client) = &mut self.stage
                        && let Err(refusal) = client.handle_event(&mut self.wire, event)
                    {
                        self.fail(refusal);
                    }
                }
                Ok(None) => return true,
                Err(error) => self.break_off(&error),
            }
        }
        false
    }

    fn handle_hello(&mut self, hello: &Hello, cx: &mut Context<'_>) {
        match pipeline::admit(&self.bus, &self.port, &self.peer, hello) {
            Ok((client, welcome)) => {
                client.handle().outbox.register(cx.waker());
                self.wire.welcome(&welcome);
                // The handshake's slot is free with this.
                self.stage = Stage::Serving(Box::new(client));
            }
            Err(refusal) => self.refuse_greeting(refusal),
        }
    }

    fn fill(&mut self) -> bool {
        match &mut self.stage {
            Stage::Serving(client) => client.fill(&mut self.wire) == Filled::Some,
            Stage::Greeting { .. } => false,
        }
    }

    /// Writes and flushes as much as the connection takes. Returns whether it took anything.
    fn put_out(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        let mut moved = false;
        loop {
            let outgoing = self.wire.outgoing();
            if outgoing.has_remaining() {
                let mut slices = [IoSlice::new(&[]); SLICES];
                let filled = outgoing.chunks_vectored(&mut slices);
                let slices = slices.get(..filled).unwrap_or_default();
                match Pin::new(&mut self.io).poll_write_vectored(cx, slices) {
                    Poll::Pending => return Ok(moved),
                    Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                    Poll::Ready(Ok(len)) => {
                        outgoing.advance(len);
                        self.written = self.written.saturating_add(len as u64);
                        moved = true;
                    }
                    Poll::Ready(Err(error)) => return Err(error),
                }
            } else if self.flushed < self.written {
                match Pin::new(&mut self.io).poll_flush(cx) {
                    Poll::Pending => return Ok(moved),
                    Poll::Ready(Ok(())) => self.flushed = self.written,
                    Poll::Ready(Err(error)) => return Err(error),
                }
            } else {
                return Ok(moved);
            }
        }
    }

    /// The marker is a fact once the kernel has all bytes up to its end. Returns whether it became one now.
    fn settle_marker(&mut self) -> bool {
        let Stage::Serving(client) = &self.stage else { return false };
        let flushed = self.flushed;
        let Some(marker) = self.marker.take_if(|marker| marker.at <= flushed) else { return false };
        marker.barrier.arrive(client.handle().id);
        true
    }

    /// Leaves when that was asked for and nothing is left to do.
    fn finish(&mut self) {
        if !self.is_finishing || !self.is_open() || self.wire.unanswered() > 0 || !self.is_all_sent() {
            return;
        }
        if let Stage::Serving(client) = &mut self.stage
            && client.is_drained()
        {
            client.end(Ended::Closed("the broker shut down".to_owned()));
            self.begin_ending();
        }
    }

    fn is_all_sent(&mut self) -> bool {
        !self.wire.outgoing().has_remaining() && self.flushed == self.written
    }

    /// Takes the steps of the end, once it has begun.
    fn end(&mut self, cx: &mut Context<'_>) -> Going {
        while let Some(step) = self.ending.as_ref().map(|ending| ending.step) {
            let next = match step {
                Step::Writing if self.is_all_sent() => Step::Closing,
                Step::Writing => return Going::On,
                Step::Closing => match Pin::new(&mut self.io).poll_shutdown(cx) {
                    Poll::Pending => return Going::On,
                    Poll::Ready(Ok(())) if !self.has_heard_end => Step::Lingering,
                    Poll::Ready(Ok(()) | Err(_)) => return Going::Over,
                },
                Step::Lingering => {
                    self.pass_silent_barriers();
                    let mut scratch = [0; 4_096];
                    let mut thrown_away = ReadBuf::new(&mut scratch);
                    match Pin::new(&mut self.io).poll_read(cx, &mut thrown_away) {
                        Poll::Pending => return Going::On,
                        Poll::Ready(Ok(())) if !thrown_away.filled().is_empty() => Step::Lingering,
                        Poll::Ready(Ok(()) | Err(_)) => return Going::Over,
                    }
                }
            };
            if let Some(ending) = &mut self.ending {
                ending.step = next;
            }
        }
        Going::On
    }

    fn pass_silent_barriers(&mut self) {
        if let Stage::Serving(client) = &self.stage {
            self.until_silent.drain(..).for_each(|barrier| barrier.arrive(client.handle().id));
        }
    }

    fn begin_ending(&mut self) {
        if self.ending.is_none() {
            let deadline = self.bus.clock.tick().after_ms(CLOSE_MS);
            self.ending = Some(Ending { deadline, step: Step::Writing });
        }
    }

    fn note_end(&mut self, ended: Ended) {
        if let Stage::Serving(client) = &mut self.stage {
            client.end(ended);
        }
    }

    /// The broker ends the session, and tells the peer why.
    fn cut(&mut self, why: CutReason, code: Code) {
        if self.ending.is_none() {
            self.wire.fail(Refusal::new(code, why.to_string()));
            if matches!(why, CutReason::PrincipalRevoked(_) | CutReason::CertificateRefused(_)) {
                self.bus.note_cut();
            }
            self.note_end(Ended::Cut(why));
            self.begin_ending();
        }
    }

    /// The session cannot go on for this reason.
    fn fail(&mut self, refusal: Refusal) {
        let ended = match refusal.code() {
            Code::AuditUnavailable => Ended::Cut(CutReason::AuditUnavailable),
            _ => Ended::Closed(refusal.to_string()),
        };
        self.wire.fail(refusal);
        self.note_end(ended);
        self.begin_ending();
    }

    /// The peer broke the protocol.
    fn break_off(&mut self, error: &SessionError) {
        match self.stage {
            Stage::Greeting { .. } => self.refuse_greeting(error.refusal()),
            Stage::Serving(_) => self.fail(error.refusal()),
        }
    }

    /// The peer is not welcome.
    fn refuse_greeting(&mut self, refusal: Refusal) {
        let event = Event::SessionRefused {
            source: self.peer.source,
            principal: Some(self.peer.leaf.principal().clone()),
            code: refusal.code(),
            reason: refusal.reason().to_owned(),
        };
        if let Err(error) = self.bus.audit.record(event) {
            tracing::error!(error = %error, source = %self.peer.source, "a refused session is not in the audit log");
        }
        if let Stage::Greeting { slot, .. } = &mut self.stage {
            *slot = None;
        }
        self.wire.fail(refusal);
        self.begin_ending();
    }
}
