//! A raw connection to a peer: TLS, and the protocol on it, both directions owned by whoever holds it.
//!
//! ```text
//!   send ─────────────────────┬──> TLS ──> TCP     while this takes no more,
//!   answers (PONG) ───────────┘
//!   Message, Ready, .. <── window <── TLS <── 256 KiB <── TCP     this is read
//! ```

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead as _, AsyncReadExt as _, AsyncWrite as _, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::read_ahead::ReadAhead;
use crate::window::Window;
use crate::wire::{Received, Wire, WireError};

/// Bytes that are read at once, under TLS and above it.
const READ_BYTES_MAX: usize = 256 * 1024;

/// Bytes that wait, encrypted, for the connection: as in Sealbus.
const TLS_BUFFER_BYTES: usize = 512 * 1024;

/// Bytes that are given to TLS at once.
const WRITE_BYTES_MAX: usize = 256 * 1024;

/// Bytes of messages that may come while nobody receives. It is reached only by a connection that publishes to itself.
const EARLY_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Bytes of a greeting in front of TLS.
const GREETING_BYTES_MAX: usize = 16 * 1024;

/// Bytes that are read at once to be forgotten.
const DRAIN_BYTES: usize = 16 * 1024;

/// A connection and its protocol, without what the callers want of it.
#[derive(Debug)]
pub(crate) struct Link<W> {
    pub(crate) wire: W,
    stream: TlsStream<ReadAhead<TcpStream>>,
    incoming: Window,
    /// What the protocol demands to be said. It is sent between messages, and its head may be on its way already.
    answers: Vec<u8>,
    /// What has been answered and nobody has asked about yet.
    pub(crate) ready: u32,
    pub(crate) acknowledged: u32,
}

impl<W: Wire> Link<W> {
    /// Connects and shakes hands; nothing of the protocol is said yet.
    pub(crate) async fn connect(
        wire: W,
        address: SocketAddr,
        tls: &Arc<ClientConfig>,
    ) -> Result<Self, Broken> {
        let stream = shake_hands::<W>(address, tls).await?;
        let incoming = Window::new(READ_BYTES_MAX);
        Ok(Self { wire, stream, incoming, answers: Vec::new(), ready: 0, acknowledged: 0 })
    }

    /// Sends, and waits until nothing of it waits here. What comes while the connection takes no more is taken in.
    pub(crate) async fn send(&mut self, mut bytes: &[u8], early: &mut Early) -> Result<(), Broken> {
        let mut has_begun = false;
        poll_fn(|cx| {
            loop {
                let sent = if has_begun || self.answers.is_empty() {
                    has_begun = true;
                    self.poll_send(&mut bytes, cx)
                } else {
                    self.poll_answer(cx)
                };
                match sent {
                    Poll::Ready(Ok(())) if has_begun => {
                        // One who only publishes hears refusals and questions here, and nowhere else.
                        return match self.poll_take_in_early(early, cx) {
                            Poll::Ready(heard) => Poll::Ready(heard),
                            Poll::Pending => Poll::Ready(Ok(())),
                        };
                    }
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error.into())),
                    Poll::Pending => {
                        ready!(self.poll_read(cx))?;
                        self.take_items(&mut |payload| early.keep(payload))?;
                        early.check()?;
                    }
                }
            }
        })
        .await
    }

    /// Says that nothing more will be sent.
    pub(crate) async fn shut_down(&mut self) -> Result<(), Broken> {
        Ok(self.stream.shutdown().await?)
    }

    /// Reads and forgets until the peer has closed its side, in whatever way.
    pub(crate) async fn drain(&mut self) {
        let mut rest = vec![0; DRAIN_BYTES];
        while self.stream.read(&mut rest).await.is_ok_and(|count| count > 0) {}
    }

    /// Ready when all of it is with the system.
    fn poll_send(&mut self, bytes: &mut &[u8], cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut stream = Pin::new(&mut self.stream);
        while !bytes.is_empty() {
            let piece = bytes.get(..WRITE_BYTES_MAX).unwrap_or(bytes);
            let count = ready!(stream.as_mut().poll_write(cx, piece))?;
            *bytes = bytes.get(count..).unwrap_or_default();
        }
        stream.poll_flush(cx)
    }

    /// Ready when all answers are with the system.
    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut stream = Pin::new(&mut self.stream);
        while !self.answers.is_empty() {
            let count = ready!(stream.as_mut().poll_write(cx, &self.answers))?;
            self.answers.drain(..count.min(self.answers.len()));
        }
        stream.poll_flush(cx)
    }

    /// As [`Link::poll_take_in`], for a caller that waits for something else than messages.
    pub(crate) fn poll_take_in_early(
        &mut self,
        early: &mut Early,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Broken>> {
        ready!(self.poll_take_in(&mut |payload| early.keep(payload), cx))?;
        Poll::Ready(early.check())
    }

    /// Reads what is there, at least something, and takes all whole items of it. Returns how many messages were shown.
    pub(crate) fn poll_take_in(
        &mut self,
        sink: &mut impl FnMut(&[u8]),
        cx: &mut Context<'_>,
    ) -> Poll<Result<u32, Broken>> {
        if !self.answers.is_empty()
            && let Poll::Ready(Err(error)) = self.poll_answer(cx)
        {
            return Poll::Ready(Err(error.into()));
        }
        ready!(self.poll_read(cx))?;
        Poll::Ready(self.take_items(sink))
    }

    /// Reads what is there, at least something, and not more than fills the window.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        let mut came = 0_usize;
        while came < READ_BYTES_MAX / 2 {
            let mut room = ReadBuf::new(self.incoming.room());
            if room.remaining() == 0 {
                break;
            }
            match Pin::new(&mut self.stream).poll_read(cx, &mut room) {
                Poll::Ready(Ok(())) if !room.filled().is_empty() => {}
                // Whatever it is, it is still so when what came before it is taken.
                _ if came > 0 => break,
                Poll::Ready(Ok(())) => return Poll::Ready(Err(Broken::Closed)),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error.into())),
                Poll::Pending => return Poll::Pending,
            }
            let count = room.filled().len();
            self.incoming.put(count);
            came = came.saturating_add(count);
        }
        if came == 0 {
            let found = WireError::malformed("an item of at most 256 KiB", self.incoming.unread());
            return Poll::Ready(Err(found.into()));
        }
        Poll::Ready(Ok(()))
    }

    fn take_items(&mut self, sink: &mut impl FnMut(&[u8])) -> Result<u32, Broken> {
        let Self { wire, incoming, answers, ready, acknowledged, .. } = self;
        let mut messages = 0_u32;
        let taken = wire.receive(incoming.unread(), answers, &mut |received| match received {
            Received::Message(payload) => {
                messages = messages.saturating_add(1);
                sink(payload);
            }
            Received::Ready => *ready = ready.saturating_add(1),
            Received::Acknowledged(count) => *acknowledged = acknowledged.saturating_add(count),
        })?;
        incoming.take(taken);
        Ok(messages)
    }
}

/// A connection that has shaken hands.
async fn shake_hands<W: Wire>(
    address: SocketAddr,
    tls: &Arc<ClientConfig>,
) -> Result<TlsStream<ReadAhead<TcpStream>>, Broken> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    if W::GREETS_IN_PLAINTEXT {
        skip_greeting(&mut stream).await?;
    }
    let name = ServerName::try_from("localhost").expect("the constant is a name");
    let transport = ReadAhead::new(stream, READ_BYTES_MAX);
    let mut stream = TlsConnector::from(Arc::clone(tls)).connect(name, transport).await?;
    stream.get_mut().1.set_buffer_limit(Some(TLS_BUFFER_BYTES));
    Ok(stream)
}

/// Reads a line and forgets it: nobody can know yet who has written it.
async fn skip_greeting(stream: &mut TcpStream) -> Result<(), Broken> {
    let mut greeting = Vec::with_capacity(1024);
    while greeting.len() < GREETING_BYTES_MAX {
        if stream.read_buf(&mut greeting).await? == 0 {
            return Err(Broken::Closed);
        }
        match greeting.iter().position(|byte| *byte == b'\n') {
            Some(end) if end + 1 == greeting.len() => return Ok(()),
            // It has to wait for our side of the handshake.
            Some(_) => return Err(WireError::malformed("one line in front of TLS", &greeting).into()),
            None => {}
        }
    }
    Err(WireError::malformed("a line of at most 16 KiB in front of TLS", &greeting).into())
}

/// Messages that came while nobody received.
#[derive(Debug, Default)]
pub(crate) struct Early {
    messages: VecDeque<Vec<u8>>,
    bytes: usize,
}

impl Early {
    pub(crate) fn keep(&mut self, payload: &[u8]) {
        self.bytes = self.bytes.saturating_add(payload.len());
        self.messages.push_back(payload.to_owned());
    }

    fn check(&self) -> Result<(), Broken> {
        if self.bytes <= EARLY_BYTES_MAX { Ok(()) } else { Err(Broken::TooEarly) }
    }

    /// Shows all, and returns whether there were any.
    pub(crate) fn show(&mut self, sink: &mut impl FnMut(&[u8])) -> bool {
        self.bytes = 0;
        let any = !self.messages.is_empty();
        for payload in self.messages.drain(..) {
            sink(&payload);
        }
        any
    }
}

/// Why a connection is of no more use.
#[derive(Debug)]
pub(crate) enum Broken {
    Connection(io::Error),
    Protocol(WireError),
    Closed,
    NoAnswer(Duration),
    TooEarly,
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        Self::Connection(error)
    }
}

impl From<WireError> for Broken {
    fn from(error: WireError) -> Self {
        Self::Protocol(error)
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connection(error) => error.fmt(f),
            Self::Protocol(error) => error.fmt(f),
            Self::Closed => f.write_str("it has closed the connection"),
            Self::NoAnswer(waited) => write!(f, "no answer in {} s", waited.as_secs()),
            Self::TooEarly => write!(f, "more than {EARLY_BYTES_MAX} bytes came and were not received"),
        }
    }
}
