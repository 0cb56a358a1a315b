//! A read buffer under TLS.
//!
//! rustls takes at most 4 KiB from a socket at a time. This reads 64 KiB at once and hands them on in pieces, so that
//! a busy connection makes a sixteenth of the system calls. The buffer is lent only while bytes are in it: an idle
//! connection holds none.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

const BUFFER_BYTES: usize = 64 * 1_024;

/// A transport whose reads are buffered. Writes pass through.
#[derive(Debug)]
pub(crate) struct Buffered<T> {
    inner: T,
    buffer: Option<Box<[u8]>>,
    begin: usize,
    end: usize,
}

impl<T> Buffered<T> {
    pub(crate) const fn new(inner: T) -> Self {
        Self { inner, buffer: None, begin: 0, end: 0 }
    }

    /// Hands on what is buffered.
    fn take(&mut self, into: &mut ReadBuf<'_>) {
        let buffered =
            self.buffer.as_deref().and_then(|buffer| buffer.get(self.begin..self.end)).unwrap_or_default();
        let count = buffered.len().min(into.remaining());
        let (now, _) = buffered.split_at(count);
        into.put_slice(now);
        self.begin += count;
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Buffered<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.begin == this.end {
            let buffer = this.buffer.get_or_insert_with(|| vec![0; BUFFER_BYTES].into());
            let mut space = ReadBuf::new(buffer);
            let read = Pin::new(&mut this.inner).poll_read(cx, &mut space);
            let filled = space.filled().len();
            if !matches!(read, Poll::Ready(Ok(()))) {
                this.buffer = None;
            }
            ready!(read)?;
            (this.begin, this.end) = (0, filled);
        }
        this.take(into);
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Buffered<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
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
    async fn bytes_come_through_in_order_and_the_buffer_is_given_back() {
        let (mut peer, ours) = tokio::io::duplex(200_000);
        let mut buffered = Buffered::new(ours);
        let sent: Vec<u8> = (0..150_000u32).map(|byte| byte.to_le_bytes()[0]).collect();
        peer.write_all(&sent).await.unwrap();
        let mut found = vec![0; sent.len()];
        for piece in found.chunks_mut(4_096) {
            buffered.read_exact(piece).await.unwrap();
        }
        assert_eq!(found, sent);
        let mut byte = [0];
        assert!(tokio::time::timeout(std::time::Duration::ZERO, buffered.read(&mut byte)).await.is_err());
        assert!(buffered.buffer.is_none(), "an idle connection holds no buffer");
        drop(peer);
        assert_eq!(buffered.read(&mut byte).await.unwrap(), 0);
    }
}
