//! A bus's certificates in a temporary folder, and clients that know their way around TLS.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType,
    SerialNumber, date_time_ymd,
};
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use sealbus_protocol::identity::PrincipalSource;
use tempfile::TempDir;

use super::{TlsError, TlsMaterial, load};
use crate::clock::ManualClock;
use crate::config::{ListenerConfig, Revocation};
use crate::vfs::OsVfs;

/// 1 January 2026: when every test takes place, unless it says otherwise.
pub(super) const AT_MS: u64 = 1_767_225_600_000;

pub(super) const ORDERS: &str = "spiffe://acme.example/orders";

pub(super) type Ca = CertifiedIssuer<'static, KeyPair>;

/// A certificate, those above it, and its key.
pub(super) struct Identity {
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) key: KeyPair,
}

/// The files of one listener, each of which a test may spoil.
pub(super) struct Bus {
    pub(super) dir: TempDir,
    pub(super) ca: Ca,
    pub(super) config: ListenerConfig,
    pub(super) clock: Arc<ManualClock>,
}

pub(super) fn ca(name: &str) -> Ca {
    let mut params = params();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ca::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A certificate without any name, from 2020 to 2040.
pub(super) fn params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2040, 1, 1);
    params.distinguished_name = DistinguishedName::new();
    params
}

/// A client's certificate.
pub(super) fn client_params(uri: &str) -> CertificateParams {
    let mut params = params();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.subject_alt_names.push(SanType::URI(uri.try_into().unwrap()));
    params
}

pub(super) fn issue(params: &CertificateParams, ca: &Ca) -> Identity {
    let key = KeyPair::generate().unwrap();
    Identity { chain: vec![params.signed_by(&key, ca).unwrap().der().clone()], key }
}

pub(super) fn server_params() -> CertificateParams {
    let mut params = params();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.subject_alt_names.push(SanType::DnsName("localhost".try_into().unwrap()));
    params
}

/// A list of this issuer, PEM, that runs out at the start of `until_year`.
pub(super) fn revocation_list(ca: &Ca, revoked: &[u64], until_year: i32) -> rcgen::CertificateRevocationList {
    let revoked = revoked.iter().map(|serial| RevokedCertParams {
        serial_number: SerialNumber::from(*serial),
        revocation_time: date_time_ymd(2024, 1, 1),
        reason_code: None,
        invalidity_date: None,
    });
    let params = CertificateRevocationListParams {
        this_update: date_time_ymd(2020, 1, 1),
        next_update: date_time_ymd(until_year, 1, 1),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: revoked.collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    params.signed_by(ca).unwrap()
}

impl Bus {
    /// A listener whose list revokes nobody.
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let ca = ca("Acme CA");
        let path = |name: &str| dir.path().join(name);
        let config = ListenerConfig {
            address: "127.0.0.1:0".parse().unwrap(),
            zone: "internal".to_owned(),
            principal: PrincipalSource::Spiffe,
            trust_domain: "acme.example".to_owned(),
            certificate: path("broker.pem"),
            key: path("broker.key"),
            client_ca: path("ca.pem"),
            revocation: Revocation::Crl(path("ca.crl")),
        };
        let bus = Self { dir, ca, config, clock: Arc::new(ManualClock::new(AT_MS)) };
        bus.issue_server(&server_params());
        bus.write("ca.pem", bus.ca.pem());
        bus.revoke(&[], 2030);
        bus
    }

    /// One whose certificates are short-lived instead.
    pub(super) fn short_lived() -> Self {
        let mut bus = Self::new();
        bus.config.revocation = Revocation::ShortLived;
        bus
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(super) fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.path(name), content).unwrap();
    }

    pub(super) fn set_mode(&self, name: &str, mode: u32) {
        fs::set_permissions(self.path(name), Permissions::from_mode(mode)).unwrap();
    }

    pub(super) fn issue_server(&self, params: &CertificateParams) {
        let key = KeyPair::generate().unwrap();
        self.write("broker.pem", params.signed_by(&key, &self.ca).unwrap().pem());
        self.write("broker.key", key.serialize_pem());
        self.set_mode("broker.key", 0o600);
    }

    pub(super) fn revoke(&self, serials: &[u64], until_year: i32) {
        self.write("ca.crl", revocation_list(&self.ca, serials, until_year).pem().unwrap());
    }

    pub(super) fn load(&self) -> Result<TlsMaterial, TlsError> {
        let clock = Arc::clone(&self.clock);
        load(&OsVfs, &self.config, clock)
    }

    /// What is wrong with the files, without the path that they are in.
    pub(super) fn problem(&self) -> String {
        let error = self.load().unwrap_err();
        let shown = error.to_string();
        shown.replace(&format!("{}/", self.dir.path().display()), "")
    }

    pub(super) fn client(&self) -> Identity {
        issue(&client_params(ORDERS), &self.ca)
    }

    pub(super) fn client_with_serial(&self, serial: u64) -> Identity {
        let mut params = client_params(ORDERS);
        params.serial_number = Some(serial.into());
        issue(&params, &self.ca)
    }

    /// A client that trusts the bus.
    pub(super) fn client_config(&self, identity: Option<&Identity>, alpn: &[&[u8]]) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.ca.der().clone()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match identity {
            None => builder.with_no_client_auth(),
            Some(Identity { chain, key }) => {
                let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
                builder.with_client_auth_cert(chain.clone(), key).unwrap()
            }
        };
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        config
    }
}
