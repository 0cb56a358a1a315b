//! Accepting connections: limits first, then TLS within a deadline, then a session.
//!
//! ```text
//!   accept -> enter (Admission) -> slot -> TLS 1.3, client certificate -> ALPN -> principal -> session::run
//!      |          |                  |                  |
//!      |          '------------------'------------------'--- refused: an audit event that says why, in words
//!      '- no descriptors left: wait a little, then go on
//! ```

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::CertificateDer;
use sealbus_protocol::proof::{EXPORTER_LABEL, EXPORTER_LEN, Exporter};
use sealbus_protocol::refusal::Code;
use sealbus_protocol::session::ALPN;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinError, JoinSet};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::admission::{Admission, Pending, Place};
use crate::audit::Event;
use crate::bus::Bus;
use crate::pipeline::Peer;
use crate::port::Port;
use crate::session::{self, ReadAhead, Setting};
use crate::shutdown::Shutdown;
use crate::telemetry;
use crate::tls::{HandshakeFailure, describe_handshake_error};

/// Bytes that rustls may hold of what is written to it: a vectored write of a full outgoing buffer, and a batch.
const TLS_BUFFER_BYTES: usize = 512 * 1_024;

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
                    Ok((place, pending)) => {
                        let (port, bus) = (Arc::clone(&port), Arc::clone(&bus));
                        connections.spawn(serve(stream, source, port, bus, place, pending));
                    }
                    Err(turned_away) => {
                        record_failure(&bus, &port, source, turned_away.word(), turned_away.to_string());
                    }
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
    place: Place,
    pending: Pending,
) {
    let timeout_ms = bus.limits.handshake_timeout_ms;
    let timeout = Duration::from_millis(timeout_ms);
    let Ok(slot) = tokio::time::timeout(timeout, pending.slot()).await else {
        let detail = "no handshake slot became free in time".to_owned();
        return record_failure(&bus, &port, source, "handshakes-limit", detail);
    };
    let deadline = bus.clock.tick().after_ms(timeout_ms);
    // Small frames wait for nobody; large ones are written in one piece anyway.
    if let Err(error) = stream.set_nodelay(true) {
        return record_handshake(&bus, &port, source, &describe_handshake_error(&error));
    }
    let handshake = tokio::time::timeout(timeout, handshake(stream, source, &port, &bus)).await;
    match handshake {
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

/// Why a connection does not become a session.
enum Refused {
    Handshake(HandshakeFailure),
    /// An event says it already.
    Recorded,
}

async fn handshake(
    stream: TcpStream,
    source: SocketAddr,
    port: &Port,
    bus: &Bus,
) -> Result<(TlsStream<ReadAhead<TcpStream>>, Peer), Refused> {
    let tls = port.tls.load_full();
    let acceptor = TlsAcceptor::from(Arc::clone(tls.server()));
    let mut stream = acceptor
        .accept(ReadAhead::new(stream))
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
    let leaf = tls.check_peer(&chain, bus.clock.now_ms()).map_err(|error| {
        let (code, reason) = (Code::Binding, error.to_string());
        record(bus, Event::SessionRefused { source, principal: None, code, reason });
        Refused::Recorded
    })?;
    let zone = Arc::clone(&port.zone);
    Ok((stream, Peer { source, zone, chain, leaf, exporter, tls }))
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
