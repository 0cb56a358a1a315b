//! Reads ahead under TLS, while there is much to read.
//!
//! rustls asks its transport for 4 KiB at a time, which on a busy connection is a system call for each quarter of a
//! record. This reads far more at once, as the broker and the client of Sealbus do in their own ways, so that neither the
//! raw clients nor the relay are slower for a reason that has nothing to do with what is compared.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::window::Window;

/// A transport that reads ahead. Writes pass through.
#[derive(Debug)]
pub(crate) struct ReadAhead<S> {
    inner: S,
    ahead: Window,
    /// Whether the last read brought all that was asked for, or more: then there is much.
    is_busy: bool,
}

impl<S> ReadAhead<S> {
    /// Reads at most so many bytes of `inner` at once.
    pub(crate) const fn new(inner: S, bytes_max: usize) -> Self {
        Self { inner, ahead: Window::new(bytes_max), is_busy: false }
    }

    fn hand_out(&mut self, out: &mut ReadBuf<'_>) {
        let unread = self.ahead.unread();
        let count = unread.len().min(out.remaining());
        out.put_slice(unread.get(..count).unwrap_or_default());
        self.ahead.take(count);
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ReadAhead<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.ahead.unread().is_empty() {
            let asked = out.remaining();
            if !this.is_busy {
                ready!(Pin::new(&mut this.inner).poll_read(cx, out))?;
                this.is_busy = asked > 0 && out.remaining() == 0;
                return Poll::Ready(Ok(()));
            }
            let mut room = ReadBuf::new(this.ahead.room());
            ready!(Pin::new(&mut this.inner).poll_read(cx, &mut room))?;
            let count = room.filled().len();
            this.ahead.put(count);
            this.is_busy = count >= asked;
        }
        this.hand_out(out);
        Poll::Ready(Ok(()))
    }
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
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn bytes_come_out_as_they_went_in_whatever_is_asked_for() {
        let sent: Vec<u8> = (0..600_000_u32).map(|at| u8::try_from(at % 251).unwrap()).collect();
        for room in [7, 1_000, 4_096, 200_000] {
            let (mut near, far) = tokio::io::duplex(100_000);
            let writing = {
                let sent = sent.clone();
                tokio::spawn(async move { near.write_all(&sent).await.unwrap() })
            };
            let mut reader = ReadAhead::new(far, 128 * 1024);
            let mut came = Vec::new();
            let mut piece = vec![0; room];
            loop {
                match reader.read(&mut piece).await.unwrap() {
                    0 => break,
                    count => came.extend_from_slice(&piece[..count]),
                }
            }
            writing.await.unwrap();
            assert!(came == sent, "room {room}");
        }
    }
}
