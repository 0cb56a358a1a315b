//! Certificates for one test, in a temporary folder.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    IsCa, KeyPair, KeyUsagePurpose, SanType, date_time_ymd,
};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::PrivateKeyDer;
use sealbus_client::{BusId, Identity, Trust};
use sealbus_protocol::identity::{PrincipalSource, TrustDomain, TrustStore};
use tempfile::TempDir;

pub(crate) type Issuer = CertifiedIssuer<'static, KeyPair>;

pub(crate) const BUS_ID: BusId = BusId::new([0xb5; 16]);

/// A CA, and a folder for what it issues.
pub(crate) struct Pki {
    pub(crate) dir: TempDir,
    pub(crate) ca: Issuer,
    pub(crate) foreign: Issuer,
}

impl Pki {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let pki = Self { ca: root("bus"), foreign: root("foreign"), dir };
        fs::write(pki.path("ca.pem"), pki.ca.pem()).unwrap();
        fs::write(pki.path("foreign.pem"), pki.foreign.pem()).unwrap();
        pki
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// `spiffe://bus.example/NAME`, by this CA.
    pub(crate) fn identity(&self, name: &str) -> Identity {
        Identity::from_dir(self.issue(name, &format!("spiffe://bus.example/{name}"), &self.ca)).unwrap()
    }

    pub(crate) fn foreign_identity(&self, name: &str) -> Identity {
        let uri = format!("spiffe://bus.example/{name}");
        Identity::from_dir(self.issue(&format!("foreign-{name}"), &uri, &self.foreign)).unwrap()
    }

    /// Writes an identity's folder.
    pub(crate) fn issue(&self, folder: &str, uri: &str, issuer: &Issuer) -> PathBuf {
        let mut params = leaf_params(ExtendedKeyUsagePurpose::ClientAuth);
        params.subject_alt_names.push(SanType::URI(uri.try_into().unwrap()));
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, issuer).unwrap();
        let dir = self.path(folder);
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("tls.crt"), certificate.pem()).unwrap();
        fs::write(dir.join("tls.key"), key.serialize_pem()).unwrap();
        chmod(&dir.join("tls.key"), 0o600);
        dir
    }

    pub(crate) fn trust(&self) -> Trust {
        self.trust_in(BUS_ID, "ca.pem", "ca.pem")
    }

    pub(crate) fn trust_in(&self, bus_id: BusId, broker_roots: &str, producer_roots: &str) -> Trust {
        let text = format!(
            "bus_id = \"{bus_id}\"\nbroker_roots = \"{broker_roots}\"\n\n[[trust_domain]]\nname = \"bus.example\"\n\
             principal = \"spiffe\"\nroots = \"{producer_roots}\"\n"
        );
        let path = self.path("trust.toml");
        fs::write(&path, text).unwrap();
        Trust::from_file(path).unwrap()
    }

    /// As [`Pki::trust`], and believes the log key of the scripted broker.
    pub(crate) fn trust_with_log(&self) -> Trust {
        self.trust().with_log_key(crate::fake_stream::log_key().public()).unwrap()
    }

    /// Whom a broker of this PKI believes. The foreign CA is one of them: brokers may believe more than consumers.
    pub(crate) fn broker_trust(&self) -> TrustStore {
        let roots = [self.ca.der().clone(), self.foreign.der().clone()];
        let domain = TrustDomain::new("bus.example", PrincipalSource::Spiffe, &roots).unwrap();
        TrustStore::new(vec![domain]).unwrap()
    }

    /// A broker's TLS for these names, with its certificate by this issuer.
    pub(crate) fn server(&self, names: &[SanType], issuer: &Issuer, alpn: &[u8]) -> Arc<ServerConfig> {
        let mut params = leaf_params(ExtendedKeyUsagePurpose::ServerAuth);
        params.subject_alt_names.extend_from_slice(names);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, issuer).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(self.ca.der().clone()).unwrap();
        roots.add(self.foreign.der().clone()).unwrap();
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .build()
            .unwrap();
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            )
            .unwrap();
        config.alpn_protocols = vec![alpn.to_vec()];
        config.send_tls13_tickets = 0;
        Arc::new(config)
    }
}

pub(crate) fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

pub(crate) fn localhost() -> Vec<SanType> {
    vec![SanType::DnsName("localhost".try_into().unwrap()), SanType::IpAddress([127, 0, 0, 1].into())]
}

fn root(name: &str) -> Issuer {
    let mut params = leaf_params(ExtendedKeyUsagePurpose::ClientAuth);
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.extended_key_usages.clear();
    Issuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn leaf_params(usage: ExtendedKeyUsagePurpose) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2040, 1, 1);
    params.distinguished_name = DistinguishedName::new();
    params.extended_key_usages = vec![usage];
    params
}
