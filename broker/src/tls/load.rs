//! From a listener's files to its TLS material, all of it or nothing.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, VerifierBuilderError, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::time_provider::TimeProvider;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::{Error as PemError, PemObject};
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, UnixTime};
use sealbus_protocol::identity::{Authority, CertificateFacts, TrustDomain, TrustStore, Validity};
use sealbus_protocol::session::ALPN;

use super::error::{FileProblem, TlsError};
use super::material::{RevocationRule, TlsMaterial};
use crate::clock::Clock;
use crate::config::{ListenerConfig, Revocation};
use crate::vfs::Vfs;

/// Bytes of a file with certificates or a key. A bundle of a hundred roots has 200 KiB.
const CERTIFICATES_BYTES_MAX: u64 = 1_024 * 1_024;

/// Bytes of a file with revocation lists. A million entries have about 40 MiB.
const REVOCATION_LISTS_BYTES_MAX: u64 = 64 * 1_024 * 1_024;

/// How every DER object begins that is longer than 127 bytes, and no PEM file: a SEQUENCE with a long length.
const DER_SEQUENCE: u8 = 0x30;

/// Reads a listener's files. The TLS stack asks `clock` for the time of every handshake.
///
/// # Errors
/// [`TlsError`] names the file and what is wrong with it.
pub fn load(
    vfs: &dyn Vfs,
    listener: &ListenerConfig,
    clock: Arc<dyn Clock>,
) -> Result<TlsMaterial, TlsError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let (certified, certificate) = load_identity(vfs, listener, &provider, clock.now_ms())?;
    let roots = load_certificates(vfs, &listener.client_ca)?;
    let domain = TrustDomain::new(&listener.trust_domain, listener.principal, &roots)
        .map_err(|error| TlsError::new(&listener.client_ca, FileProblem::Roots(error)))?;
    let trust = TrustStore::new(vec![domain])
        .map_err(|error| TlsError::new(&listener.client_ca, FileProblem::Roots(error)))?;
    let (verifier, rule) = load_verifier(vfs, listener, roots, &provider)?;

    let mut server = ServerConfig::builder_with_details(provider, Arc::new(HandshakeTime(clock)))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| TlsError::new(&listener.certificate, FileProblem::Refused(error)))?
        .with_client_cert_verifier(Arc::clone(&verifier))
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    server.alpn_protocols = vec![ALPN.to_vec()];
    server.session_storage = Arc::new(NoServerSessionStorage {});
    server.send_tls13_tickets = 0;
    server.max_early_data_size = 0;
    Ok(TlsMaterial { server: Arc::new(server), trust, verifier, rule, certificate })
}

/// The broker's own certificate and key.
fn load_identity(
    vfs: &dyn Vfs,
    listener: &ListenerConfig,
    provider: &CryptoProvider,
    now_ms: u64,
) -> Result<(CertifiedKey, Validity), TlsError> {
    let chain = load_certificates(vfs, &listener.certificate)?;
    let of_certificate = |problem| TlsError::new(&listener.certificate, problem);
    let leaf = chain.first().ok_or_else(|| of_certificate(FileProblem::NoCertificate))?;
    let validity = check_own_leaf(leaf, now_ms).map_err(of_certificate)?;

    let of_key = |problem| TlsError::new(&listener.key, problem);
    let key = load_key(vfs, &listener.key)?;
    let key = provider.key_provider.load_private_key(key).map_err(|_| of_key(FileProblem::Key))?;
    let certified = CertifiedKey::new(chain, key);
    certified
        .keys_match()
        .map_err(|_| of_key(FileProblem::KeyMismatch { certificate: listener.certificate.clone() }))?;
    Ok((certified, validity))
}

fn check_own_leaf(leaf: &CertificateDer<'_>, now_ms: u64) -> Result<Validity, FileProblem> {
    let facts = CertificateFacts::parse(leaf).map_err(FileProblem::Certificate)?;
    match facts.authority {
        Authority::EndEntity => {}
        Authority::Ca => return Err(FileProblem::Authority),
    }
    let Validity { not_before_ms, not_after_ms } = facts.validity;
    if now_ms > not_after_ms {
        return Err(FileProblem::Expired { not_after_ms });
    }
    if now_ms < not_before_ms {
        return Err(FileProblem::NotYetValid { not_before_ms });
    }
    Ok(facts.validity)
}

/// The permissions come first: a key that others could read is not read at all, and is to be replaced.
fn load_key(vfs: &dyn Vfs, path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let refuse = |problem| TlsError::new(path, problem);
    let mode = vfs.mode(path).map_err(|error| refuse(FileProblem::Read(error)))?;
    if mode & 0o077 != 0 {
        return Err(refuse(FileProblem::Exposed { mode }));
    }
    let pem = vfs.read(path, CERTIFICATES_BYTES_MAX).map_err(|error| refuse(FileProblem::Read(error)))?;
    PrivateKeyDer::from_pem_slice(&pem).map_err(|error| match error {
        PemError::NoItemsFound => refuse(FileProblem::NoKey),
        // The parser's own words can repeat parts of the file.
        _ => refuse(FileProblem::Pem),
    })
}

/// At least one certificate.
fn load_certificates(vfs: &dyn Vfs, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let refuse = |problem| TlsError::new(path, problem);
    let pem = vfs.read(path, CERTIFICATES_BYTES_MAX).map_err(|error| refuse(FileProblem::Read(error)))?;
    let certificates: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .map_err(|_| refuse(FileProblem::Pem))?;
    if certificates.is_empty() {
        return Err(refuse(FileProblem::NoCertificate));
    }
    Ok(certificates)
}

/// The verifier that the handshake asks. With lists it judges every certificate of a chain by them, refuses one that
/// no list speaks for, and believes no list that has run out.
fn load_verifier(
    vfs: &dyn Vfs,
    listener: &ListenerConfig,
    roots: Vec<CertificateDer<'static>>,
    provider: &Arc<CryptoProvider>,
) -> Result<(Arc<dyn ClientCertVerifier>, RevocationRule), TlsError> {
    let mut store = RootCertStore::empty();
    for root in roots {
        store.add(root).map_err(|error| TlsError::new(&listener.client_ca, FileProblem::Refused(error)))?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(store), Arc::clone(provider));
    let (builder, rule, path) = match &listener.revocation {
        Revocation::Crl(path) => {
            let lists = load_revocation_lists(vfs, path)?;
            (builder.with_crls(lists).enforce_revocation_expiration(), RevocationRule::Lists, path)
        }
        Revocation::ShortLived => (builder, RevocationRule::ShortLife, &listener.client_ca),
    };
    match builder.build() {
        Ok(verifier) => Ok((verifier, rule)),
        Err(VerifierBuilderError::InvalidCrl(error)) => {
            Err(TlsError::new(path, FileProblem::RevocationList(error.into())))
        }
        // Only "no roots" is left, of a type that may grow.
        Err(_) => Err(TlsError::new(&listener.client_ca, FileProblem::NoCertificate)),
    }
}

/// At least one list, PEM or DER.
fn load_revocation_lists(
    vfs: &dyn Vfs,
    path: &Path,
) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
    let refuse = |problem| TlsError::new(path, problem);
    let bytes =
        vfs.read(path, REVOCATION_LISTS_BYTES_MAX).map_err(|error| refuse(FileProblem::Read(error)))?;
    if bytes.first() == Some(&DER_SEQUENCE) {
        return Ok(vec![CertificateRevocationListDer::from(bytes)]);
    }
    let lists: Vec<_> = CertificateRevocationListDer::pem_slice_iter(&bytes)
        .collect::<Result<_, _>>()
        .map_err(|_| refuse(FileProblem::Pem))?;
    if lists.is_empty() {
        return Err(refuse(FileProblem::NoRevocationList));
    }
    Ok(lists)
}

/// The broker's clock, for the TLS stack, which would otherwise ask the system.
struct HandshakeTime(Arc<dyn Clock>);

impl TimeProvider for HandshakeTime {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_millis(self.0.now_ms())))
    }
}

impl fmt::Debug for HandshakeTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HandshakeTime")
    }
}
