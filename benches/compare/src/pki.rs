//! The certificates that all peers share: one authority, a server, a client.
//!
//! ```text
//!   DIR/ca.pem                     the authority; both sides believe it and nobody else
//!       server.pem  server.key     localhost and 127.0.0.1
//!       client.pem  client.key     spiffe://compare.local/load
//! ```
//!
//! The keys are P-256, as those of `sealbus init` are, so that a handshake costs each peer the same. Sealbus itself uses
//! the files that its own `init` makes.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{ClientConfig, RootCertStore, ServerConfig, version};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use sealbus::pki::Authority;

use crate::failure::Failure;

/// The principal of all clients.
const CLIENT: &str = "spiffe://compare.local/load";

/// Certificates and keys in a folder.
#[derive(Debug, Clone)]
pub struct Pki {
    folder: PathBuf,
}

impl Pki {
    /// Makes everything anew in an existing folder.
    ///
    /// # Errors
    /// [`Failure`] when something cannot be made or written.
    pub fn create(folder: &Path) -> Result<Self, Failure> {
        let failed = |error: &dyn std::fmt::Display| {
            Failure::new(format!("make certificates in {}", folder.display()), error)
        };
        let authority = Authority::new("compare").map_err(|error| failed(&error))?;
        let names = ["localhost", "127.0.0.1"].map(str::to_owned);
        let server = authority.issue_broker(&names).map_err(|error| failed(&error))?;
        let principal = sealbus_client::Principal::parse(CLIENT).expect("the constant is a principal");
        let client = authority.issue_client(&principal, &[]).map_err(|error| failed(&error))?;
        for (part, issued) in [("server", server), ("client", client)] {
            let issuing = folder.join(format!("{part}-issued"));
            fs::create_dir(&issuing).map_err(|error| failed(&error))?;
            issued.write_to(&issuing).map_err(|error| failed(&error))?;
            for (from, to) in [("tls.crt", "pem"), ("tls.key", "key")] {
                fs::rename(issuing.join(from), folder.join(format!("{part}.{to}")))
                    .map_err(|error| failed(&error))?;
            }
            fs::remove_dir(&issuing).map_err(|error| failed(&error))?;
        }
        let pki = Self::at(folder);
        fs::write(pki.authority(), authority.certificate_pem()).map_err(|error| failed(&error))?;
        Ok(pki)
    }

    /// What [`Pki::create`] has made there.
    #[must_use]
    pub fn at(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    /// The folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The authority's certificate.
    #[must_use]
    pub fn authority(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    /// The server's certificate.
    #[must_use]
    pub fn server_certificate(&self) -> PathBuf {
        self.folder.join("server.pem")
    }

    /// The server's key.
    #[must_use]
    pub fn server_key(&self) -> PathBuf {
        self.folder.join("server.key")
    }

    /// TLS as the raw clients speak it: 1.3, a client certificate, nothing resumed.
    ///
    /// # Errors
    /// [`Failure`] when the files cannot be used.
    pub fn client_config(&self) -> Result<Arc<ClientConfig>, Failure> {
        let failed = |error: &dyn std::fmt::Display| Failure::new("set up TLS for clients", error);
        let (chain, key) = self.identity("client")?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&version::TLS13])
            .map_err(|error| failed(&error))?
            .with_root_certificates(self.roots()?)
            .with_client_auth_cert(chain, key)
            .map_err(|error| failed(&error))?;
        config.resumption = Resumption::disabled();
        Ok(Arc::new(config))
    }

    /// TLS as the relay speaks it: 1.3, client certificates required, nothing resumed.
    ///
    /// # Errors
    /// [`Failure`] when the files cannot be used.
    pub fn server_config(&self) -> Result<Arc<ServerConfig>, Failure> {
        let failed = |error: &dyn std::fmt::Display| Failure::new("set up TLS for the relay", error);
        let (chain, key) = self.identity("server")?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(self.roots()?), Arc::clone(&provider))
                .build()
                .map_err(|error| failed(&error))?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&version::TLS13])
            .map_err(|error| failed(&error))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)
            .map_err(|error| failed(&error))?;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Arc::new(config))
    }

    fn roots(&self) -> Result<RootCertStore, Failure> {
        let path = self.authority();
        let failed = |error: &dyn std::fmt::Display| Failure::new(format!("read {}", path.display()), error);
        let mut roots = RootCertStore::empty();
        let certificate = CertificateDer::from_pem_file(&path).map_err(|error| failed(&error))?;
        roots.add(certificate).map_err(|error| failed(&error))?;
        Ok(roots)
    }

    fn identity(
        &self,
        part: &str,
    ) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), Failure> {
        let read = |extension: &str| self.folder.join(format!("{part}.{extension}"));
        let failed = |path: &Path, error: &dyn std::fmt::Display| {
            Failure::new(format!("read {}", path.display()), error)
        };
        let (chain_path, key_path) = (read("pem"), read("key"));
        let chain = CertificateDer::pem_file_iter(&chain_path)
            .and_then(Iterator::collect)
            .map_err(|error| failed(&chain_path, &error))?;
        let key = PrivateKeyDer::from_pem_file(&key_path).map_err(|error| failed(&key_path, &error))?;
        Ok((chain, key))
    }
}
