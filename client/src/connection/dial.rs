//! One attempt to reach the broker: TCP, then TLS.

use std::future::Future;
use std::io;
use std::sync::Arc;

use sealbus_protocol::proof::{EXPORTER_LABEL, EXPORTER_LEN, Exporter};
use sealbus_protocol::session::ALPN;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::error::ConnectError;
use crate::identity::Identity;
use crate::tls::{Server, client_config};
use crate::trust::Trust;

use super::buffered::Buffered;

/// Bytes that TLS may hold encrypted and unsent.
const TLS_BUFFER_BYTES: usize = 512 * 1_024;

/// A connection that has passed TLS.
pub(super) struct Link<T> {
    pub(super) transport: T,
    pub(super) exporter: Exporter,
}

/// What makes connections: TLS, or a pipe in tests.
pub(super) trait Dial: Send + Sync + 'static {
    type Transport: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// Where to, for errors.
    fn server(&self) -> &str;

    /// One attempt, as this identity.
    fn dial(
        &self,
        identity: &Identity,
    ) -> impl Future<Output = Result<Link<Self::Transport>, ConnectError>> + Send;
}

/// Makes TLS connections to one server.
#[derive(Debug)]
pub(super) struct TlsDialer {
    pub(super) server: Server,
    pub(super) trust: Trust,
}

impl Dial for TlsDialer {
    type Transport = TlsStream<Buffered<TcpStream>>;

    fn server(&self) -> &str {
        &self.server.text
    }

    async fn dial(&self, identity: &Identity) -> Result<Link<Self::Transport>, ConnectError> {
        let server = || self.server.text.clone();
        let config = client_config(identity, &self.trust)?;
        let socket = TcpStream::connect((self.server.host.as_str(), self.server.port))
            .await
            .map_err(|error| ConnectError::Network { server: server(), error })?;
        socket.set_nodelay(true).map_err(|error| ConnectError::Network { server: server(), error })?;
        let connector = TlsConnector::from(config);
        let mut stream = connector
            .connect(self.server.name.clone(), Buffered::new(socket))
            .await
            .map_err(|error| failed(server(), error))?;
        let (_, tls) = stream.get_mut();
        // Compared here too: rustls accepts a server that chooses no protocol at all.
        if tls.alpn_protocol() != Some(ALPN) {
            return Err(ConnectError::NotSealbus { server: server() });
        }
        tls.set_buffer_limit(Some(TLS_BUFFER_BYTES));
        let exported = tls
            .export_keying_material([0; EXPORTER_LEN], EXPORTER_LABEL, None)
            .map_err(|error| ConnectError::Tls { server: server(), error: io::Error::other(error) })?;
        Ok(Link { transport: stream, exporter: Exporter::new(exported) })
    }
}

/// Sorts an error of a connection: TLS reports its own as invalid data.
pub(super) fn failed(server: String, error: io::Error) -> ConnectError {
    let is_tls = error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>());
    if is_tls { ConnectError::Tls { server, error } } else { ConnectError::Network { server, error } }
}

/// So that a dialer can be shared by attempts that overlap.
impl<D: Dial> Dial for Arc<D> {
    type Transport = D::Transport;

    fn server(&self) -> &str {
        (**self).server()
    }

    fn dial(
        &self,
        identity: &Identity,
    ) -> impl Future<Output = Result<Link<Self::Transport>, ConnectError>> + Send {
        (**self).dial(identity)
    }
}
