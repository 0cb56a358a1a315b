//! A read buffer under TLS.
//!
//! rustls takes at most 4 KiB from a socket at a time. This reads 128 KiB at once and hands them on in pieces, so that
//! a busy connection makes a small part of the system calls. The memory is taken only while bytes are in it: an idle
//! connection holds none.

use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, BufMut as _, BytesMut};
use sealbus_protocol::memory;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};

const BUFFER_BYTES: usize = 128 * 1_024;

/// A transport whose reads are buffered. Writes pass through.
#[derive(Debug)]
pub(crate) struct Buffered<T> {
    inner: T,
    /// Bytes that were read and not asked for yet. Without any, it has no memory.
    ahead: BytesMut,
}

impl<T> Buffered<T> {
    pub(crate) fn new(inner: T) -> Self {
        Self { inner, ahead: BytesMut::new() }
    }

    /// Hands on what is buffered.
    fn take(&mut self, into: &mut ReadBuf<'_>) {
        let count = self.ahead.len().min(into.remaining());
        into.put_slice(self.ahead.get(..count).unwrap_or_default());
        self.ahead.advance(count);
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Buffered<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.ahead.is_empty() {
            memory::give_back(std::mem::take(&mut this.ahead));
            let mut ahead = memory::of(BUFFER_BYTES);
            let read = {
                let mut space = (&mut ahead).limit(BUFFER_BYTES);
                pin!(this.inner.read_buf(&mut space)).poll(cx)
            };
            if !matches!(read, Poll::Ready(Ok(1..))) {
                memory::give_back(ahead);
                ready!(read)?;
                return Poll::Ready(Ok(()));
            }
            this.ahead = ahead;
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
        assert_eq!(buffered.ahead.capacity(), 0, "an idle connection holds no buffer");
        drop(peer);
        assert_eq!(buffered.read(&mut byte).await.unwrap(), 0);
    }
}
