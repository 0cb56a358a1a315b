//! One loop over everything that can wake the connection's task: handles, the socket both ways, and the clock.
//!
//! The loop is a single `poll`: no part of it can be dropped half-way, and the transport is never split.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf as _, BufMut as _};
use sealbus_protocol::session::{ClientSession, Tick};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep, sleep_until};

use super::command::Command;
use super::core::{Core, End};
use super::wake::{Note, Wake};

/// Bytes that wait to be written while more is still read. A broker that asks (PING) and does not read the answers
/// could otherwise fill this process's memory; batches alone never reach it.
const UNSENT_BYTES_MAX: usize = 4 * 1_024 * 1_024;

/// Reads of one turn, so that a fast broker cannot keep the task from its other work.
const READS_PER_TURN: usize = 32;

/// What wakes the task besides its socket.
pub(super) struct Inputs {
    commands: mpsc::Receiver<Command>,
    wake: Arc<Wake>,
    notes: Vec<Note>,
    timer: Pin<Box<Sleep>>,
    all_dropped: bool,
}

impl Inputs {
    pub(super) fn new(commands: mpsc::Receiver<Command>, wake: Arc<Wake>) -> Self {
        let timer = Box::pin(sleep_until(Instant::now()));
        Self { commands, wake, notes: Vec::new(), timer, all_dropped: false }
    }

    /// Hands the core all that handles have asked for.
    fn poll_handles(&mut self, core: &mut Core, now: Tick, cx: &mut Context<'_>) {
        while !self.all_dropped
            && let Poll::Ready(command) = self.commands.poll_recv(cx)
        {
            match command {
                Some(command) => core.handle_command_at(command, now),
                None => {
                    self.all_dropped = true;
                    core.handle_all_dropped();
                }
            }
        }
        while self.wake.poll_notes(cx, &mut self.notes).is_ready() {
            for note in self.notes.drain(..) {
                core.handle_note_at(note, now);
            }
        }
    }

    /// Sets the timer to the core's next moment; ready when that is now.
    fn poll_timer(&mut self, core: &Core, cx: &mut Context<'_>) -> Poll<()> {
        let Some(next) = core.poll_timeout() else { return Poll::Pending };
        let next = core.ticker.instant(next);
        if self.timer.deadline() != next {
            self.timer.as_mut().reset(next);
        }
        self.timer.as_mut().poll(cx)
    }
}

/// Lets the core work without a connection until `until` is done. None when the bus was closed meanwhile and
/// everything has its answer.
pub(super) async fn work_until<F: Future>(
    core: &mut Core,
    inputs: &mut Inputs,
    until: F,
) -> Option<F::Output> {
    let mut until = pin!(until);
    poll_fn(|cx| {
        loop {
            let now = core.ticker.tick();
            inputs.poll_handles(core, now, cx);
            // Without a session there is none to break.
            let _ = core.handle_timeout_at(now);
            if core.is_closed() {
                return Poll::Ready(None);
            }
            if let Poll::Ready(output) = until.as_mut().poll(cx) {
                return Poll::Ready(Some(output));
            }
            if inputs.poll_timer(core, cx).is_pending() {
                return Poll::Pending;
            }
        }
    })
    .await
}

/// Drives the core's session over a transport until it ends, or until `until` is done.
pub(super) async fn serve<T, F>(
    core: &mut Core,
    inputs: &mut Inputs,
    transport: &mut T,
    mut until: Pin<&mut F>,
) -> Served<F::Output>
where
    T: AsyncRead + AsyncWrite + Unpin,
    F: Future,
{
    let mut flushed = true;
    poll_fn(|cx| {
        loop {
            let now = core.ticker.tick();
            inputs.poll_handles(core, now, cx);
            if let Err(error) = core.handle_timeout_at(now) {
                return Poll::Ready(Served::Ended(broken(core, &error)));
            }
            let read = match poll_read(core, transport, now, cx) {
                Ok(read) => read,
                Err(end) => return Poll::Ready(Served::Ended(core.end_with(end))),
            };
            core.pump_at(now);
            if let Some(end) = core.poll_end() {
                return Poll::Ready(Served::Ended(end));
            }
            if let Poll::Ready(output) = until.as_mut().poll(cx) {
                return Poll::Ready(Served::Interrupted(output));
            }
            let wrote = match poll_write(core, transport, &mut flushed, cx) {
                Ok(wrote) => wrote,
                Err(error) => {
                    let end = core.end_with(lost(&error));
                    return Poll::Ready(Served::Ended(end));
                }
            };
            match read {
                Progress::Full => {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Progress::Some | Progress::None => {}
            }
            let idle = matches!((&read, &wrote), (Progress::None, Progress::None));
            if idle && inputs.poll_timer(core, cx).is_pending() {
                return Poll::Pending;
            }
        }
    })
    .await
}

/// Why [`serve`] returned.
pub(super) enum Served<O> {
    Ended(End),
    Interrupted(O),
}

/// What a turn of reading or writing did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    None,
    Some,
    /// As much as one turn may; there is probably more.
    Full,
}

fn poll_read<T: AsyncRead + Unpin>(
    core: &mut Core,
    transport: &mut T,
    now: Tick,
    cx: &mut Context<'_>,
) -> Result<Progress, End> {
    for turn in 0..READS_PER_TURN {
        let Some(session) = &mut core.session else { return Ok(Progress::None) };
        if session.outgoing().remaining() > UNSENT_BYTES_MAX {
            return Ok(if turn == 0 { Progress::None } else { Progress::Some });
        }
        let space_len = session.space_len();
        let read = {
            let mut space = session.space().limit(space_len);
            pin!(transport.read_buf(&mut space)).poll(cx)
        };
        match read {
            Poll::Pending => {
                session.release();
                return Ok(if turn == 0 { Progress::None } else { Progress::Some });
            }
            Poll::Ready(Ok(0)) => return Err(End::Lost("the broker closed the connection".into())),
            Poll::Ready(Ok(_)) => handle_input_at(core, now)?,
            Poll::Ready(Err(error)) => return Err(lost(&error)),
        }
    }
    Ok(Progress::Full)
}

fn handle_input_at(core: &mut Core, now: Tick) -> Result<(), End> {
    if let Some(session) = &mut core.session {
        session.handle_input_at(now);
    }
    while let Some(session) = &mut core.session {
        let handled = match session.poll_event() {
            Ok(Some(event)) => core.handle_event_at(event, now),
            Ok(None) => return Ok(()),
            Err(error) => Err(error),
        };
        handled.map_err(|error| broken(core, &error))?;
    }
    Ok(())
}

/// A broker that is gone leaves no farewell; what TLS says of that is for those who build it.
fn lost(error: &io::Error) -> End {
    End::Lost(match error.kind() {
        io::ErrorKind::UnexpectedEof => "the connection ended without a farewell".into(),
        _ => error.to_string(),
    })
}

/// The broker broke the protocol: it is told, as well as it can be.
fn broken(core: &mut Core, error: &sealbus_protocol::session::SessionError) -> End {
    if let Some(session) = &mut core.session {
        session.fail(error.refusal());
    }
    End::Lost(format!("the broker broke the protocol: {error}"))
}

fn poll_write<T: AsyncWrite + Unpin>(
    core: &mut Core,
    transport: &mut T,
    flushed: &mut bool,
    cx: &mut Context<'_>,
) -> io::Result<Progress> {
    let Some(session) = &mut core.session else { return Ok(Progress::None) };
    let mut progress = Progress::None;
    while session.outgoing().has_remaining() {
        match pin!(transport.write_buf(session.outgoing())).poll(cx) {
            Poll::Pending => return Ok(progress),
            Poll::Ready(written) => {
                if written? == 0 {
                    return Err(io::ErrorKind::WriteZero.into());
                }
                *flushed = false;
                progress = Progress::Some;
            }
        }
    }
    if !*flushed && let Poll::Ready(done) = Pin::new(&mut *transport).poll_flush(cx) {
        done?;
        *flushed = true;
    }
    Ok(progress)
}

/// Writes what is left and closes: the last words of a session, for as long as somebody may want to wait for them.
pub(super) async fn farewell<T: AsyncWrite + Unpin>(
    session: &mut ClientSession,
    transport: &mut T,
) -> io::Result<()> {
    while session.outgoing().has_remaining() {
        transport.write_buf(session.outgoing()).await?;
    }
    transport.shutdown().await
}
