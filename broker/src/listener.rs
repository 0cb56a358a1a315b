//! Accepting connections: limits first, then TLS within a deadline, then a session.
//!
//! ```text
//!   accept -> enter (Admission) -> ClientHello -> slot -> TLS 1.3, client certificate -> ALPN -> principal -> session::run
//!      |          |                    |           |                  |
//!      |          '--------------------'-----------'------------------'--- refused: an audit event that says why, in words
//!      '- no descriptors left: wait a little, then go on
//! ```
//!
//! The ClientHello is read before anything is rationed, within a deadline of its own, and in no more memory than its
//! bytes need: a connection that says nothing costs its descriptor and a task. Everything up to HELLO shares one
//! deadline, which begins when the connection is accepted.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::server::{Accepted, Acceptor};
use rustls_pki_types::CertificateDer;
use sealbus_protocol::proof::{EXPORTER_LABEL, EXPORTER_LEN, Exporter};
use sealbus_protocol::refusal::Code;
use sealbus_protocol::session::ALPN;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinError, JoinSet};
use tokio::time::timeout;
use tokio_rustls::StartHandshake;
use tokio_rustls::server::TlsStream;

use crate::admission::{Admission, Newcomer, TurnedAway};
use crate::audit::Event;
use crate::bus::Bus;
use crate::config::{CLIENT_HELLO_BYTES_MAX, CLIENT_HELLO_TIMEOUT_MS};
use crate::pipeline::Peer;
use crate::port::Port;
use crate::session::{self, ReadAhead, Setting};
use crate::shutdown::Shutdown;
use crate::telemetry;
use crate::tls::{HandshakeFailure, describe_handshake_error};

/// Bytes that rustls may hold of what is written to it: a vectored write of a full outgoing buffer, and a batch.
const TLS_BUFFER_BYTES: usize = 512 * 1_024;

/// Bytes of a ClientHello that are read at once: all of it, nearly always.
const CLIENT_HELLO_READ_BYTES: usize = 4 * 1_024;

/// Milliseconds to wait when the system has no descriptor or memory for a connection. Each one that ends gives some
/// back, and asking again at once would only burn the processor.
const BACK_OFF_MS: u64 = 100;

/// Accepts connections until the broker leaves. Returns those that are still served.
pub(crate) async fn listen(
    socket: TcpListener,
    port: Arc<Port>,
    bus: Arc<Bus>,
    admission: Arc<Admission>,
    shutdown: Shutdown,
) -> JoinSet<()> {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = shutdown.wait() => return connections,
            Some(ended) = connections.join_next(), if !connections.is_empty() => note_panic(ended),
            accepted = socket.accept() => match accepted {
                Ok((stream, source)) => match admission.enter(source.ip()) {
                    Ok(newcomer) => {
                        let (port, bus) = (Arc::clone(&port), Arc::clone(&bus));
                        connections.spawn(serve(stream, source, port, bus, newcomer));
                    }
                    Err(turned_away) => record_turned_away(&bus, &port, source, turned_away),
                },
                Err(error) => {
                    tracing::warn!(
                        { telemetry::ERROR } = %error,
                        { telemetry::LISTENER } = %port.address,
                        "a connection could not be accepted"
                    );
                    tokio::time::sleep(Duration::from_millis(BACK_OFF_MS)).await;
                }
            },
        }
    }
}

fn note_panic(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!({ telemetry::ERROR } = %error, "a connection's task failed; the connection is closed");
    }
}

/// Serves one connection from its first byte to its last.
async fn serve(
    stream: TcpStream,
    source: SocketAddr,
    port: Arc<Port>,
    bus: Arc<Bus>,
    mut newcomer: Newcomer,
) {
    let timeout_ms = bus.limits.handshake_timeout_ms;
    let deadline = bus.clock.tick().after_ms(timeout_ms);
    let left = |bus: &Bus| Duration::from_millis(deadline.since(bus.clock.tick()));
    let hello_timeout = Duration::from_millis(CLIENT_HELLO_TIMEOUT_MS.min(timeout_ms));
    let hello = tokio::select! {
        hello = timeout(hello_timeout, client_hello(&stream)) => hello.unwrap_or(Err(HandshakeFailure::Timeout)),
        () = newcomer.asked_to_leave() => {
            return record_turned_away(&bus, &port, source, TurnedAway::Newcomers);
        }
    };
    let hello = match hello {
        Ok(hello) => hello,
        Err(failure) => return record_handshake(&bus, &port, source, &failure),
    };
    let (place, pending) = match newcomer.said_hello() {
        Ok(entered) => entered,
        Err(turned_away) => return record_turned_away(&bus, &port, source, turned_away),
    };
    let Ok(slot) = timeout(left(&bus), pending.slot()).await else {
        let detail = "no handshake slot became free in time".to_owned();
        return record_failure(&bus, &port, source, "handshakes-limit", detail);
    };
    // Small frames wait for nobody; large ones are written in one piece anyway.
    if let Err(error) = stream.set_nodelay(true) {
        return record_handshake(&bus, &port, source, &describe_handshake_error(&error));
    }
    match timeout(left(&bus), handshake(hello, stream, source, &port, &bus)).await {
        Ok(Ok((stream, peer))) => {
            let setting = Setting { bus, port, peer, slot, deadline };
            session::run(stream, setting).await;
        }
        Ok(Err(Refused::Handshake(failure))) => record_handshake(&bus, &port, source, &failure),
        Ok(Err(Refused::Recorded)) => {}
        Err(_) => record_handshake(&bus, &port, source, &HandshakeFailure::Timeout),
    }
    drop(place);
}

/// Reads the whole ClientHello. Nothing is set aside before its first byte is here. What is lost when this is dropped
/// half-way is the connection.
async fn client_hello(stream: &TcpStream) -> Result<Box<Accepted>, HandshakeFailure> {
    let failed = |error: io::Error| describe_handshake_error(&error);
    stream.readable().await.map_err(failed)?;
    let mut acceptor = Box::new(Acceptor::default());
    let mut read_bytes = 0_usize;
    loop {
        read_bytes = read_bytes.saturating_add(read_some(stream, &mut acceptor).map_err(failed)?);
        match acceptor.accept() {
            Ok(Some(accepted)) => return Ok(Box::new(accepted)),
            Ok(None) if read_bytes >= CLIENT_HELLO_BYTES_MAX => {
                return Err(HandshakeFailure::Other(format!(
                    "a ClientHello has at most {CLIENT_HELLO_BYTES_MAX} bytes, and this one goes on"
                )));
            }
            Ok(None) => stream.readable().await.map_err(failed)?,
            Err((error, mut alert)) => {
                let mut bytes = Vec::new();
                // A new connection has room for an alert, and if it is gone nobody misses it.
                let _ = alert.write_all(&mut bytes).and_then(|()| stream.try_write(&bytes));
                return Err(failed(io::Error::new(io::ErrorKind::InvalidData, error)));
            }
        }
    }
}

/// Takes in what is there, 0 bytes when that is nothing. Not asynchronous, so that no task keeps the buffer.
fn read_some(stream: &TcpStream, acceptor: &mut Acceptor) -> io::Result<usize> {
    let mut buffer = [0; CLIENT_HELLO_READ_BYTES];
    let count = match stream.try_read(&mut buffer) {
        Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
        Ok(count) => count,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(0),
        Err(error) => return Err(error),
    };
    let mut bytes = buffer.get(..count).unwrap_or_default();
    while !bytes.is_empty() && acceptor.read_tls(&mut bytes)? > 0 {}
    Ok(count)
}

/// Why a connection does not become a session.
enum Refused {
    Handshake(HandshakeFailure),
    /// An event says it already.
    Recorded,
}

async fn handshake(
    hello: Box<Accepted>,
    stream: TcpStream,
    source: SocketAddr,
    port: &Port,
    bus: &Bus,
) -> Result<(TlsStream<ReadAhead<TcpStream>>, Peer), Refused> {
    let tls = port.tls.load_full();
    let mut stream = StartHandshake::from_parts(*hello, ReadAhead::new(stream))
        .into_stream(Arc::clone(tls.server()))
        .await
        .map_err(|error| Refused::Handshake(describe_handshake_error(&error)))?;
    let (_, connection) = stream.get_mut();
    connection.set_buffer_limit(Some(TLS_BUFFER_BYTES));
    // rustls refuses another protocol, but accepts a client that asks for none.
    if connection.alpn_protocol() != Some(ALPN) {
        return Err(Refused::Handshake(HandshakeFailure::Alpn));
    }
    let chain: Vec<CertificateDer<'static>> = connection
        .peer_certificates()
        .map(|chain| chain.iter().map(|certificate| certificate.clone().into_owned()).collect())
        .ok_or(Refused::Handshake(HandshakeFailure::NoCertificate))?;
    let exporter = connection
        .export_keying_material([0; EXPORTER_LEN], EXPORTER_LABEL, None)
        .map(Exporter::new)
        .map_err(|error| Refused::Handshake(HandshakeFailure::Other(error.to_string())))?;
    let chain = tls.check_accepted(chain, bus.clock.now_ms()).map_err(|error| {
        let (code, reason) = (Code::Binding, error.to_string());
        record(bus, Event::SessionRefused { source, principal: None, code, reason });
        Refused::Recorded
    })?;
    let zone = Arc::clone(&port.zone);
    Ok((stream, Peer { source, zone, chain, exporter, tls }))
}

fn record_turned_away(bus: &Bus, port: &Port, source: SocketAddr, turned_away: TurnedAway) {
    record_failure(bus, port, source, turned_away.word(), turned_away.to_string());
}

fn record_handshake(bus: &Bus, port: &Port, source: SocketAddr, failure: &HandshakeFailure) {
    record_failure(bus, port, source, failure.reason(), failure.to_string());
}

fn record_failure(bus: &Bus, port: &Port, source: SocketAddr, reason: &'static str, detail: String) {
    tracing::debug!(
        { telemetry::SOURCE } = %source,
        { telemetry::LISTENER } = %port.address,
        { telemetry::REASON } = reason,
        "a handshake failed"
    );
    record(bus, Event::HandshakeFailed { source, listener: port.address, reason, detail });
}

/// The connection is refused already, and cannot be refused more when the log fails.
fn record(bus: &Bus, event: Event) {
    if let Err(error) = bus.audit.record(event) {
        tracing::error!({ telemetry::ERROR } = %error, "a refused connection is not in the audit log");
    }
}
