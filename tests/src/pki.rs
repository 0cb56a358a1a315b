//! Certificates as they should be, and as they should not.

use std::fs;
use std::path::Path;

use rcgen::string::Ia5String;
use rcgen::{
    CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType, SerialNumber,
};
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use sealbus::pki;
use sealbus_protocol::binding::TlsScheme;
use sealbus_protocol::identity::Principal;
use time::{Duration, OffsetDateTime};

/// An authority that issues what `sealbus` issues, and anything else.
pub struct Authority {
    product: pki::Authority,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// A new authority.
    #[must_use]
    pub fn new(common_name: &str) -> Self {
        let product = pki::Authority::new(common_name).expect("an authority can be made");
        let key = KeyPair::from_pem(&product.key_pem()).expect("the authority's key is PEM");
        let issuer =
            Issuer::from_ca_cert_pem(product.certificate_pem(), key).expect("the authority can issue");
        Self { product, issuer }
    }

    /// Its certificate.
    #[must_use]
    pub fn pem(&self) -> &str {
        self.product.certificate_pem()
    }

    /// Its certificate and key, to be misused as a leaf's.
    #[must_use]
    pub fn own_credential(&self) -> Credential {
        Credential::new(self.pem(), &self.product.key_pem())
    }

    /// A certificate for a broker that is reached under these names.
    #[must_use]
    pub fn broker(&self, names: &[&str]) -> Credential {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        Credential::issued(&self.product.issue_broker(&names).expect("a broker's certificate can be issued"))
    }

    /// A certificate for a principal with a SPIFFE id.
    #[must_use]
    pub fn client(&self, principal: &Principal) -> Credential {
        Credential::issued(
            &self.product.issue_client(principal, &[]).expect("a client's certificate can be issued"),
        )
    }

    /// A client's certificate without any name, changed before it is signed.
    #[must_use]
    pub fn client_with(&self, change: impl FnOnce(&mut CertificateParams)) -> Credential {
        let mut parameters = client_parameters();
        change(&mut parameters);
        let key = KeyPair::generate().expect("a key can be drawn");
        let certificate = parameters.signed_by(&key, &self.issuer).expect("the certificate can be made");
        let mut credential = Credential::new(&certificate.pem(), &key.serialize_pem());
        credential.serial = parameters.serial_number;
        credential
    }

    /// The list of what is revoked, PEM. Numbers must grow.
    #[must_use]
    pub fn revocation_list(&self, number: u64, revoked: &[SerialNumber]) -> String {
        self.product.revocation_list(number, revoked).expect("a revocation list can be made")
    }
}

/// A certificate that nobody but its own key has signed.
#[must_use]
pub fn self_signed(principal: &str) -> Credential {
    let mut parameters = client_parameters();
    parameters.subject_alt_names = vec![uri(principal)];
    let key = KeyPair::generate().expect("a key can be drawn");
    let certificate = parameters.self_signed(&key).expect("the certificate can be made");
    Credential::new(&certificate.pem(), &key.serialize_pem())
}

/// A URI among a certificate's names.
#[must_use]
pub fn uri(name: &str) -> SanType {
    SanType::URI(Ia5String::try_from(name).expect("URIs in certificates are ASCII"))
}

/// A DNS name among a certificate's names.
#[must_use]
pub fn dns(name: &str) -> SanType {
    SanType::DnsName(Ia5String::try_from(name).expect("DNS names in certificates are ASCII"))
}

/// The moment this many seconds from now.
#[must_use]
pub fn seconds_from_now(seconds: i64) -> OffsetDateTime {
    OffsetDateTime::now_utc() + Duration::seconds(seconds)
}

fn client_parameters() -> CertificateParams {
    let mut serial = [0; 16];
    getrandom::fill(&mut serial).expect("the system gives randomness");
    serial[0] = serial[0] & 0x7f | 0x40;
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = DistinguishedName::new();
    parameters.is_ca = IsCa::ExplicitNoCa;
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    parameters.use_authority_key_identifier_extension = true;
    parameters.not_before = seconds_from_now(-300);
    parameters.not_after = seconds_from_now(86_400);
    parameters.serial_number = Some(SerialNumber::from_slice(&serial));
    parameters
}

/// A certificate chain with its key.
#[derive(Clone)]
pub struct Credential {
    certificate_pem: String,
    key_pem: String,
    /// The leaf's serial number, where the harness has drawn it.
    serial: Option<SerialNumber>,
}

impl Credential {
    fn new(certificate_pem: &str, key_pem: &str) -> Self {
        Self { certificate_pem: certificate_pem.to_owned(), key_pem: key_pem.to_owned(), serial: None }
    }

    fn issued(issued: &pki::Issued) -> Self {
        let mut credential = Self::new(issued.certificate_pem(), issued.key_pem());
        credential.serial = Some(issued.serial().clone());
        credential
    }

    /// The chain, leaf first.
    #[must_use]
    pub fn chain(&self) -> Vec<CertificateDer<'static>> {
        let chain = CertificateDer::pem_slice_iter(self.certificate_pem.as_bytes());
        chain.collect::<Result<_, _>>().expect("the chain is PEM")
    }

    /// The private key.
    #[must_use]
    pub fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes()).expect("the key is PEM")
    }

    /// The private key as text, to be looked for where it must not be.
    #[must_use]
    pub fn key_pem(&self) -> &str {
        &self.key_pem
    }

    /// The leaf's serial number.
    ///
    /// # Panics
    /// When it is not known.
    #[must_use]
    pub fn serial(&self) -> SerialNumber {
        self.serial.clone().expect("the serial number of what the harness issues is known")
    }

    /// What the key signs in a key binding, with its scheme.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> (TlsScheme, Vec<u8>) {
        let key = any_supported_type(&self.key()).expect("the key is of a kind that TLS uses");
        let scheme = rustls::SignatureScheme::ECDSA_NISTP256_SHA256;
        let signer = key.choose_scheme(&[scheme]).expect("keys of the harness are P-256");
        (TlsScheme::EcdsaP256, signer.sign(message).expect("a P-256 key signs"))
    }

    /// Writes `tls.crt` and `tls.key` into a folder, which is created, for the owner alone.
    pub fn write_to(&self, folder: &Path) {
        fs::create_dir_all(folder).expect("the folder can be created");
        for (name, text) in [("tls.crt", &self.certificate_pem), ("tls.key", &self.key_pem)] {
            let path = folder.join(name);
            let _ = fs::remove_file(&path);
            pki::write_new(&path, text.as_bytes()).expect("the file can be written");
        }
    }
}
