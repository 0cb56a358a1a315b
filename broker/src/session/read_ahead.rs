//! Reads ahead under TLS, while there is much to read.
//!
//! rustls asks its transport for 4 KiB at a time, which on a busy connection is a system call for each quarter of a
//! record. This adaptor reads far more at once. The memory is lent by the thread for as long as a read goes on: a
//! connection that has nothing to read holds none of it, and a small message is read as if the adaptor were not there.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes that are read at once on a busy connection.
const AHEAD_BYTES: usize = 128 * 1_024;

/// Buffers that a thread keeps to lend. A connection has one only while it is polled, so that two would be rare.
const KEPT_BUFFERS: usize = 4;

thread_local! {
    static BUFFERS: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
}

/// A transport that reads ahead.
#[derive(Debug)]
pub(crate) struct ReadAhead<S> {
    inner: S,
    ahead: Option<Ahead>,
    /// Whether the last read filled all the room that it was given: then there is more.
    is_busy: bool,
}

/// Bytes that were read and not yet asked for: `start..end` of the buffer.
#[derive(Debug)]
struct Ahead {
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
}

impl<S> ReadAhead<S> {
    /// Reads ahead of `inner`.
    pub(crate) const fn new(inner: S) -> Self {
        Self { inner, ahead: None, is_busy: false }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ReadAhead<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Some(ahead) = &mut this.ahead {
            ahead.hand_out(out);
            if ahead.start == ahead.end {
                this.give_back();
            }
            return Poll::Ready(Ok(()));
        }
        if !this.is_busy || out.remaining() >= AHEAD_BYTES {
            let room = out.remaining();
            ready!(Pin::new(&mut this.inner).poll_read(cx, out))?;
            this.is_busy = room > 0 && out.remaining() == 0;
            return Poll::Ready(Ok(()));
        }
        let mut buffer = borrow();
        let mut read = ReadBuf::new(&mut buffer);
        let polled = Pin::new(&mut this.inner).poll_read(cx, &mut read);
        let end = read.filled().len();
        let mut ahead = Ahead { buffer, start: 0, end };
        ahead.hand_out(out);
        this.is_busy = end == AHEAD_BYTES;
        this.ahead = Some(ahead);
        if this.ahead.as_ref().is_some_and(|ahead| ahead.start == ahead.end) {
            this.give_back();
        }
        polled
    }
}

impl Ahead {
    fn hand_out(&mut self, out: &mut ReadBuf<'_>) {
        let unread = self.buffer.get(self.start..self.end).unwrap_or_default();
        let len = unread.len().min(out.remaining());
        out.put_slice(unread.get(..len).unwrap_or_default());
        self.start = self.start.saturating_add(len);
    }
}

impl<S> ReadAhead<S> {
    fn give_back(&mut self) {
        if let Some(ahead) = self.ahead.take() {
            BUFFERS.with_borrow_mut(|buffers| {
                if buffers.len() < KEPT_BUFFERS {
                    buffers.push(ahead.buffer);
                }
            });
        }
    }
}

fn borrow() -> Box<[u8]> {
    BUFFERS.with_borrow_mut(Vec::pop).unwrap_or_else(|| vec![0; AHEAD_BYTES].into())
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ReadAhead<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    /// A transport that has these bytes, gives at most so many at once, and then nothing for now.
    struct Source {
        bytes: Vec<u8>,
        at: usize,
        step: usize,
        reads: usize,
    }

    impl AsyncRead for Source {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            out: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            let len = self.step.min(out.remaining()).min(self.bytes.len() - self.at);
            if len == 0 {
                return Poll::Pending;
            }
            let at = self.at;
            out.put_slice(&self.bytes[at..at + len]);
            self.at += len;
            self.reads += 1;
            Poll::Ready(Ok(()))
        }
    }

    fn read_all(reader: &mut ReadAhead<Source>, room: usize) -> Vec<u8> {
        let mut found = Vec::new();
        let mut room = vec![0; room];
        let mut cx = Context::from_waker(Waker::noop());
        loop {
            let mut out = ReadBuf::new(&mut room);
            match Pin::new(&mut *reader).poll_read(&mut cx, &mut out) {
                Poll::Ready(Ok(())) => found.extend_from_slice(out.filled()),
                Poll::Ready(Err(error)) => panic!("{error}"),
                Poll::Pending => return found,
            }
        }
    }

    #[test]
    fn bytes_come_out_as_they_went_in_whatever_is_asked_for() {
        let bytes: Vec<u8> = (0..600_000u32).map(|at| (at % 251) as u8).collect();
        for (room, step) in
            [(1_000, 1_000_000), (4_096, 1_000_000), (4_096, 5_000), (200_000, 1_000_000), (7, 9)]
        {
            let source = Source { bytes: bytes.clone(), at: 0, step, reads: 0 };
            let mut reader = ReadAhead::new(source);
            assert_eq!(read_all(&mut reader, room), bytes, "room {room}, step {step}");
            assert!(reader.ahead.is_none(), "nothing is held while there is nothing to read");
        }
    }

    #[test]
    fn much_is_read_with_few_calls() {
        let source = Source { bytes: vec![7; 1 << 20], at: 0, step: usize::MAX, reads: 0 };
        let mut reader = ReadAhead::new(source);
        assert_eq!(read_all(&mut reader, 4_096).len(), 1 << 20);
        assert!(reader.inner.reads <= 10, "{} reads", reader.inner.reads);
    }
}
