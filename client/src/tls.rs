//! TLS as this client speaks it: 1.3 only, certificates on both sides, nothing resumed.

use std::sync::Arc;

use rustls::client::Resumption;
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, version};
use rustls_pki_types::ServerName;
use sealbus_protocol::session::ALPN;

use crate::error::ConnectError;
use crate::identity::{Identity, IdentityError};
use crate::trust::Trust;

/// The configuration for one identity. The broker's certificate is verified on every connection, by the roots and for
/// the name that this program was given. Nothing is resumed: a resumed session skips that.
pub(crate) fn client_config(identity: &Identity, trust: &Trust) -> Result<Arc<ClientConfig>, IdentityError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&version::TLS13])
        .map_err(IdentityError::Tls)?;
    let resolver = SingleCertAndKey::from(Arc::clone(identity.certified_key()));
    let mut config = builder
        .with_root_certificates(Arc::clone(trust.broker_roots()))
        .with_client_cert_resolver(Arc::new(resolver));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// Where the broker is, and what its certificate must name.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    /// As it was given, for errors.
    pub(crate) text: String,
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) name: ServerName<'static>,
}

impl Server {
    /// Parses `host:port`; an IPv6 address stands in brackets.
    pub(crate) fn parse(text: &str) -> Result<Self, ConnectError> {
        let refuse = || ConnectError::Server { server: text.to_owned() };
        let (host, port) = text.rsplit_once(':').ok_or_else(refuse)?;
        let host = match host.strip_prefix('[') {
            Some(rest) => rest.strip_suffix(']').ok_or_else(refuse)?,
            None if host.contains(':') => return Err(refuse()),
            None => host,
        };
        let port = port.parse().map_err(|_| refuse())?;
        let name = ServerName::try_from(host.to_owned()).map_err(|_| refuse())?;
        Ok(Self { text: text.to_owned(), host: host.to_owned(), port, name })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_host_and_port() {
        for (text, expected) in [
            ("bus.acme.example:7433", Some(("bus.acme.example", 7_433))),
            ("127.0.0.1:1", Some(("127.0.0.1", 1))),
            ("[::1]:7433", Some(("::1", 7_433))),
            ("bus.acme.example", None),
            ("::1:7433", None),
            ("[::1:7433", None),
            ("bus:70000", None),
            ("bus:", None),
            (":7433", None),
            ("b us:7433", None),
        ] {
            let server = Server::parse(text).ok();
            assert_eq!(server.as_ref().map(|server| (server.host.as_str(), server.port)), expected, "{text}");
        }
    }
}
