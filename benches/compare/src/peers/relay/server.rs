//! The relay's server: a task for each connection, with the buffers of Sealbus's broker.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::Ipv4Addr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Poll, ready};

use tokio::io::{AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::Receiver;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::frames::{EMPTY_FRAME, LENGTH_BYTES, PUBLISHER, ROLE_BYTES_MAX, SUBSCRIBER};
use super::topics::{Chunk, Topics};
use crate::failure::Failure;
use crate::pki::Pki;
use crate::read_ahead::ReadAhead;

/// Bytes that are read at once on a busy connection: as in the broker.
const READ_AHEAD_BYTES: usize = 128 * 1024;

/// Bytes that wait, encrypted, for a connection: as in the broker.
const TLS_BUFFER_BYTES: usize = 512 * 1024;

/// Bytes of a chunk on a busy connection; it is passed on with fewer as soon as no more is there.
const CHUNK_BYTES: usize = 64 * 1024;

/// Chunks that are given to TLS at once, so that one piece has at most 256 KiB.
const CHUNKS_AT_ONCE: usize = 4;

/// A connection that has shaken hands.
type Stream = TlsStream<ReadAhead<TcpStream>>;

/// Serves until the process is ended. The runtime is that of `sealbus serve`.
///
/// # Errors
/// [`Failure`] when it cannot begin.
pub fn serve(port: u16, pki: &Pki) -> Result<(), Failure> {
    let acceptor = TlsAcceptor::from(pki.server_config()?);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new("start the runtime", error))?;
    runtime
        .block_on(async {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
            // Accepting on a task of its own: the thread that waits here is none of the workers.
            tokio::spawn(accept(listener, acceptor)).await.map_err(io::Error::other)?
        })
        .map_err(|error| Failure::new(format!("relay on port {port}"), error))
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor) -> io::Result<()> {
    let topics = Arc::new(Topics::default());
    loop {
        let (stream, _) = listener.accept().await?;
        let (acceptor, topics) = (acceptor.clone(), Arc::clone(&topics));
        tokio::spawn(async move {
            // A connection that fails is missed by its client, and the log of the relay is read when something is amiss.
            if let Err(error) = converse(stream, &acceptor, &topics).await {
                eprintln!("a connection ended: {error}");
            }
        });
    }
}

async fn converse(stream: TcpStream, acceptor: &TlsAcceptor, topics: &Topics) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = acceptor.accept(ReadAhead::new(stream, READ_AHEAD_BYTES)).await?;
    stream.get_mut().1.set_buffer_limit(Some(TLS_BUFFER_BYTES));
    let greeting = match read_frame(&mut stream).await {
        // The start of this program is seen by a connection that says nothing.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
        greeting => greeting?,
    };
    if !greeting.is_empty() {
        return Err(unexpected("an empty frame"));
    }
    stream.write_all(&EMPTY_FRAME).await?;
    stream.flush().await?;
    let role = match read_frame(&mut stream).await {
        // Somebody who wanted to know how long a login takes.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
        role => role?,
    };
    let role = String::from_utf8(role).map_err(|_| unexpected("a role and a topic"))?;
    if let Some(topic) = role.strip_prefix(PUBLISHER) {
        publish(stream, topic, topics).await
    } else if let Some(topic) = role.strip_prefix(SUBSCRIBER) {
        subscribe(stream, topics.subscribe(topic)).await
    } else {
        Err(unexpected("a role and a topic"))
    }
}

fn unexpected(expected: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("expected {expected}"))
}

/// A frame of a connection's beginning.
async fn read_frame(stream: &mut Stream) -> io::Result<Vec<u8>> {
    let mut len = [0; LENGTH_BYTES];
    stream.read_exact(&mut len).await?;
    let len = usize::try_from(u32::from_be_bytes(len)).unwrap_or(usize::MAX);
    if len > ROLE_BYTES_MAX {
        return Err(unexpected("at most 256 bytes"));
    }
    let mut frame = vec![0; len];
    stream.read_exact(&mut frame).await?;
    Ok(frame)
}

/// Passes on what comes until the publisher closes.
async fn publish(mut stream: Stream, topic: &str, topics: &Topics) -> io::Result<()> {
    let publishing =
        topics.publish(topic).ok_or_else(|| unexpected("no second publisher of one topic at a time"))?;
    loop {
        let chunk = read_chunk(&mut stream).await?;
        if chunk.is_empty() {
            // The topic is free before the client hears of it.
            drop(publishing);
            return stream.shutdown().await;
        }
        publishing.send(&Arc::new(chunk)).await;
    }
}

/// What is there, up to a whole chunk; empty when the publisher has closed.
async fn read_chunk(stream: &mut Stream) -> io::Result<Vec<u8>> {
    let mut chunk = Vec::with_capacity(CHUNK_BYTES);
    poll_fn(|cx| {
        while chunk.len() < CHUNK_BYTES {
            match pin!(stream.read_buf(&mut chunk)).poll(cx) {
                Poll::Ready(Ok(1..)) => {}
                // An end or an error is still there when what came before it is passed on.
                _ if !chunk.is_empty() => break,
                Poll::Ready(Ok(0)) => break,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(Ok(()))
    })
    .await?;
    Ok(chunk)
}

/// Writes what the publishers leave until the subscriber closes.
async fn subscribe(mut stream: Stream, mut outbox: Receiver<Chunk>) -> io::Result<()> {
    stream.write_all(&EMPTY_FRAME).await?;
    stream.flush().await?;
    let mut chunks = Vec::with_capacity(CHUNKS_AT_ONCE);
    let mut nothing = [0; 1];
    loop {
        tokio::select! {
            biased;
            // The topic's list has the other end, and the topic is never forgotten.
            _ = outbox.recv_many(&mut chunks, CHUNKS_AT_ONCE) => {
                write(&mut stream, &chunks).await?;
                chunks.clear();
            }
            heard = stream.read(&mut nothing) => return match heard? {
                0 => stream.shutdown().await,
                _ => Err(unexpected("a subscriber that says nothing more")),
            },
        }
    }
}

/// Writes chunks in as few pieces as the connection allows.
async fn write(stream: &mut Stream, chunks: &[Chunk]) -> io::Result<()> {
    let mut slices: Vec<IoSlice<'_>> = chunks.iter().map(|chunk| IoSlice::new(chunk)).collect();
    let mut slices = slices.as_mut_slice();
    poll_fn(|cx| {
        while !slices.is_empty() {
            let count = ready!(Pin::new(&mut *stream).poll_write_vectored(cx, slices))?;
            if count == 0 {
                return Poll::Ready(Err(io::Error::from(io::ErrorKind::WriteZero)));
            }
            IoSlice::advance_slices(&mut slices, count);
        }
        Poll::Ready(Ok(()))
    })
    .await?;
    stream.flush().await
}
