//! The driver: one turn after the other until nothing moves.

use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf as _, BufMut as _};
use sealbus_protocol::frame::Hello;
use sealbus_protocol::refusal::{Code, Refusal};
use sealbus_protocol::session::{BrokerEvent, BrokerSession, Tick};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};

use super::ending::Ending;
use super::signals::Marker;
use super::timer::Timer;
use crate::admission::Slot;
use crate::audit::CutReason;
use crate::bus::Bus;
use crate::pipeline::{self, Client, Ended, Filled, Peer};
use crate::port::Port;
use crate::sessions::Barrier;

/// Bytes that wait to be written while more is still read. Deliveries alone never reach it, so that a slow subscriber
/// is still heard; a peer that asks and does not read the answers does.
const UNSENT_BYTES_MAX: usize = 2 * 1_024 * 1_024;

/// Bytes of one read: a TLS record has no more.
const READ_BYTES: usize = 16 * 1_024;

/// Reads in one turn: what a vectored write of a peer brings.
const READS_PER_TURN: usize = 16;

/// Requests in one turn. Between turns the session looks at its signals, and the dearest request, a batch with its
/// signature, takes a tenth of a millisecond or, if it is a large one, half of one.
const REQUESTS_PER_TURN: usize = 16;

/// Turns in one go, so that a session with endless work lets others have the thread.
const TURNS_MAX: usize = 4;

/// Slices of one vectored write.
const SLICES: usize = 64;

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
    pub(super) io: S,
    pub(super) wire: BrokerSession,
    timer: Timer,
    pub(super) bus: Arc<Bus>,
    pub(super) port: Arc<Port>,
    pub(super) peer: Peer,
    pub(super) stage: Stage,
    pub(super) ending: Option<Ending>,
    pub(super) marker: Option<Marker>,
    /// Barriers that are passed when nothing more will be written.
    pub(super) until_silent: Vec<Arc<Barrier>>,
    /// Whether to leave when all is written.
    pub(super) is_finishing: bool,
    pub(super) has_heard_end: bool,
    /// Requests that may still be answered in this turn.
    requests_left: usize,
    /// Bytes given to TLS so far, and those of them that are known to be with the kernel.
    pub(super) written: u64,
    pub(super) flushed: u64,
}

pub(super) enum Stage {
    Greeting { deadline: Tick, slot: Option<Slot> },
    Serving(Box<Client>),
}

/// What one turn of reading brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Taken {
    None,
    Some,
    /// As much as one turn may. There is probably more, and those who wait for what came are to have the thread first.
    Full,
}

/// Whether a session goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(super) enum Going {
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
            requests_left: 0,
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
            let mut taken = Taken::None;
            if self.is_open() {
                taken = self.take_in(cx);
                moved |= taken != Taken::None;
            }
            if self.is_open() {
                moved |= self.handle_news();
            }
            if self.is_open() {
                moved |= self.fill();
            }
            match self.put_out(cx) {
                Ok(wrote) => moved |= wrote,
                Err(error) => {
                    self.note_end(Ended::Closed(end_of("writing", &error)));
                    return Poll::Ready(());
                }
            }
            moved |= self.settle_marker();
            moved |= self.finish();
            match self.end(cx) {
                Going::On => {}
                Going::Over => return Poll::Ready(()),
            }
            if !moved {
                self.wire.release();
                self.arm(cx);
                return Poll::Pending;
            }
            if taken == Taken::Full {
                break;
            }
        }
        self.arm(cx);
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Whether requests are read and batches framed.
    pub(super) const fn is_open(&self) -> bool {
        self.ending.is_none() && self.marker.is_none()
    }

    /// Looks at everything that time brings.
    fn handle_time(&mut self) -> Going {
        let now = self.bus.clock.tick();
        if self.handle_marker_timeout_at(now) == Going::Over {
            return Going::Over;
        }
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
                    self.cut(CutReason::CertificateExpired);
                } else if let Some(rule) = client.revoked() {
                    self.cut(CutReason::PrincipalRevoked(rule));
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
        let due = self.marker.as_ref().map_or(due, |marker| due.min(marker.deadline));
        self.timer.arm(now, due, cx);
    }

    /// Reads and answers, for one turn.
    fn take_in(&mut self, cx: &mut Context<'_>) -> Taken {
        let mut moved = false;
        self.requests_left = REQUESTS_PER_TURN;
        for _ in 0..READS_PER_TURN {
            if !self.handle_events(cx) {
                return self.taken(moved);
            }
            match self.poll_read(cx) {
                Poll::Pending => return self.taken(moved),
                Poll::Ready(Ok(0)) => {
                    self.handle_closed("the client closed the connection".to_owned());
                    return Taken::Some;
                }
                Poll::Ready(Ok(_)) => {
                    moved = true;
                    self.wire.handle_input_at(self.bus.clock.tick());
                }
                Poll::Ready(Err(error)) => {
                    self.handle_closed(end_of("reading", &error));
                    return Taken::Some;
                }
            }
        }
        self.handle_events(cx);
        Taken::Full
    }

    const fn taken(&self, moved: bool) -> Taken {
        if moved || self.requests_left < REQUESTS_PER_TURN { Taken::Some } else { Taken::None }
    }

    /// Reads straight into the session's memory.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let room = self.wire.space_len().min(READ_BYTES);
        let mut space = self.wire.space().limit(room);
        pin!(self.io.read_buf(&mut space)).poll(cx)
    }

    /// Answers what has been read. Returns whether more may be read.
    fn handle_events(&mut self, cx: &mut Context<'_>) -> bool {
        while self.is_open() && self.wire.outgoing().remaining() < UNSENT_BYTES_MAX {
            if let Stage::Serving(client) = &mut self.stage
                && (client.is_congested() || client.patience.poll_wait_at(self.bus.clock.tick()).is_some())
            {
                return false;
            }
            let Some(left) = self.requests_left.checked_sub(1) else { return false };
            self.requests_left = left;
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
                Ok(None) => {
                    self.requests_left = left.saturating_add(1);
                    return true;
                }
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

    /// Takes in what threads and tasks have brought. Returns whether anything moved.
    fn handle_news(&mut self) -> bool {
        let Stage::Serving(client) = &mut self.stage else { return false };
        match client.handle_news(&mut self.wire) {
            Ok(filled) => filled == Filled::Some,
            Err(refusal) => {
                self.fail(refusal);
                true
            }
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
}

/// How a connection ended, for the audit log. A peer that is simply gone is no failure of anybody's, and what the TLS
/// library says of it is for those who build it.
fn end_of(doing: &str, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => "the connection ended without a farewell".to_owned(),
        _ => format!("{doing} failed: {error}"),
    }
}
