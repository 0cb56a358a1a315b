//! A certificate authority in a folder: for development, for the demo and the tests.
//!
//! ```text
//!   Authority --issue_broker--> tls.crt, tls.key   SAN: the broker's names          serverAuth
//!             --issue_client--> tls.crt, tls.key   SAN: one spiffe://domain/name    clientAuth
//!             --revocation_list--> crl.pem         runs as long as the authority itself
//! ```
//!
//! Keys are P-256. What is written is written for its owner alone (0600) and never over something that exists. With a
//! PKI of your own none of this is needed: broker and clients read ordinary PEM files.

use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevocationReason,
    RevokedCertParams, SanType, SerialNumber,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use sealbus_protocol::identity::{CertificateFacts, Principal};
use time::{Duration, OffsetDateTime};
use zeroize::Zeroizing;

/// How long an authority lasts, and with it its revocation list.
const AUTHORITY_DAYS: i64 = 3_650;

/// How long a certificate lasts that an authority issues.
const LEAF_DAYS: i64 = 365;

/// How far in the past a certificate begins, so that a peer whose clock is a little behind accepts a new one.
const CLOCK_SLACK: Duration = Duration::minutes(5);

/// Bytes of a serial number; RFC 5280 allows 20.
const SERIAL_LEN: usize = 16;

/// A certificate authority that can issue.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate_pem: String,
    not_after: OffsetDateTime,
}

impl Authority {
    /// A new authority with this common name.
    ///
    /// # Errors
    /// [`PkiError::Make`] when the system gives no randomness or the name cannot stand in a certificate.
    pub fn new(common_name: &str) -> Result<Self, PkiError> {
        let making = |error| PkiError::Make { what: "an authority", error };
        let key = KeyPair::generate().map_err(making)?;
        let now = OffsetDateTime::now_utc();
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name = named(common_name);
        parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        parameters.not_before = now - CLOCK_SLACK;
        parameters.not_after = now + Duration::days(AUTHORITY_DAYS);
        parameters.serial_number = Some(serial()?);
        let certificate = parameters.self_signed(&key).map_err(making)?;
        Ok(Self {
            certificate_pem: certificate.pem(),
            not_after: parameters.not_after,
            issuer: Issuer::new(parameters, key),
        })
    }

    /// The authority with this certificate and key, both PEM.
    ///
    /// # Errors
    /// [`PkiError::Read`] when either cannot be read.
    pub fn from_pem(certificate_pem: &str, key_pem: &str) -> Result<Self, PkiError> {
        let reading =
            |what| move |error: &dyn fmt::Display| PkiError::Read { what, found: error.to_string() };
        let key = KeyPair::from_pem(key_pem).map_err(|error| reading("the authority's key")(&error))?;
        let certificate = reading("the authority's certificate");
        let der = CertificateDer::from_pem_slice(certificate_pem.as_bytes())
            .map_err(|error| certificate(&error))?;
        let facts = CertificateFacts::parse(&der).map_err(|error| certificate(&error))?;
        let not_after_s = i64::try_from(facts.validity.not_after_ms / 1_000).unwrap_or(i64::MAX);
        let not_after =
            OffsetDateTime::from_unix_timestamp(not_after_s).map_err(|error| certificate(&error))?;
        let issuer = Issuer::from_ca_cert_der(&der, key).map_err(|error| certificate(&error))?;
        Ok(Self { issuer, certificate_pem: certificate_pem.to_owned(), not_after })
    }

    /// The authority's certificate.
    #[must_use]
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// The authority's private key.
    #[must_use]
    pub fn key_pem(&self) -> Zeroizing<String> {
        Zeroizing::new(self.issuer.key().serialize_pem())
    }

    /// A list of revoked certificates that lasts as long as the authority. `number` must grow from list to list.
    ///
    /// # Errors
    /// [`PkiError::Make`].
    pub fn revocation_list(&self, number: u64, revoked: &[SerialNumber]) -> Result<String, PkiError> {
        let making = |error| PkiError::Make { what: "a revocation list", error };
        let now = OffsetDateTime::now_utc();
        let entry = |serial: &SerialNumber| RevokedCertParams {
            serial_number: serial.clone(),
            revocation_time: now - CLOCK_SLACK,
            reason_code: Some(RevocationReason::Unspecified),
            invalidity_date: None,
        };
        let parameters = CertificateRevocationListParams {
            this_update: now - CLOCK_SLACK,
            next_update: self.not_after,
            crl_number: SerialNumber::from(number),
            issuing_distribution_point: None,
            revoked_certs: revoked.iter().map(entry).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = parameters.signed_by(&self.issuer).map_err(making)?;
        list.pem().map_err(making)
    }

    /// A certificate for a broker that is reached under these names, each a DNS name or an IP address.
    ///
    /// # Errors
    /// [`PkiError::Name`] when one of them is neither, otherwise [`PkiError::Make`].
    pub fn issue_broker(&self, names: &[String]) -> Result<Issued, PkiError> {
        let mut parameters = self.leaf("sealbus broker")?;
        parameters.subject_alt_names = names.iter().map(|name| host_name(name)).collect::<Result<_, _>>()?;
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.sign(parameters)
    }

    /// A certificate for a principal with a SPIFFE id, and with these host names too when it also serves.
    ///
    /// # Errors
    /// [`PkiError::Name`] when a name cannot stand in a certificate, otherwise [`PkiError::Make`].
    pub fn issue_client(&self, principal: &Principal, hosts: &[String]) -> Result<Issued, PkiError> {
        let id = principal.as_str();
        let uri = Ia5String::try_from(id).map_err(|_| PkiError::Name { found: id.to_owned() })?;
        let last = id.rsplit('/').next().unwrap_or(id);
        let mut parameters = self.leaf(last)?;
        parameters.subject_alt_names = vec![SanType::URI(uri)];
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        if !hosts.is_empty() {
            parameters.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        }
        for host in hosts {
            parameters.subject_alt_names.push(host_name(host)?);
        }
        self.sign(parameters)
    }

    fn leaf(&self, common_name: &str) -> Result<CertificateParams, PkiError> {
        let now = OffsetDateTime::now_utc();
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name = named(common_name);
        parameters.is_ca = IsCa::ExplicitNoCa;
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        parameters.use_authority_key_identifier_extension = true;
        parameters.not_before = now - CLOCK_SLACK;
        parameters.not_after = (now + Duration::days(LEAF_DAYS)).min(self.not_after);
        parameters.serial_number = Some(serial()?);
        Ok(parameters)
    }

    fn sign(&self, parameters: CertificateParams) -> Result<Issued, PkiError> {
        let making = |error| PkiError::Make { what: "a certificate", error };
        let key = KeyPair::generate().map_err(making)?;
        let certificate = parameters.signed_by(&key, &self.issuer).map_err(making)?;
        let serial = parameters.serial_number.expect("every leaf is given a serial number");
        Ok(Issued {
            certificate_pem: certificate.pem(),
            key_pem: Zeroizing::new(key.serialize_pem()),
            serial,
        })
    }
}

/// A certificate with its key.
#[derive(Clone)]
pub struct Issued {
    certificate_pem: String,
    key_pem: Zeroizing<String>,
    serial: SerialNumber,
}

impl Issued {
    /// The certificate. Its issuer is a root, so that it is the whole chain.
    #[must_use]
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// The private key, PKCS #8.
    #[must_use]
    pub fn key_pem(&self) -> &str {
        &self.key_pem
    }

    /// The certificate's serial number, for a revocation list.
    #[must_use]
    pub fn serial(&self) -> &SerialNumber {
        &self.serial
    }

    /// Writes `tls.crt` and `tls.key` into a folder that exists, the two names under which programs look for them.
    ///
    /// # Errors
    /// [`PkiError::Write`]; an existing file is one.
    pub fn write_to(&self, folder: &Path) -> Result<(), PkiError> {
        write_new(&folder.join("tls.crt"), self.certificate_pem.as_bytes())?;
        write_new(&folder.join("tls.key"), self.key_pem.as_bytes())
    }
}

impl fmt::Debug for Issued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issued").field("serial", &self.serial).finish_non_exhaustive()
    }
}

/// Writes a file that did not exist, readable and writable by its owner alone, and waits until it is on the disk.
///
/// # Errors
/// [`PkiError::Write`]; an existing file is one.
pub fn write_new(path: &Path, bytes: &[u8]) -> Result<(), PkiError> {
    let failed = |error| PkiError::Write { path: path.to_owned(), error };
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(failed)
}

/// Why a certificate, a key or a list could not be made, read or written.
#[derive(Debug)]
pub enum PkiError {
    /// Something could not be made.
    Make {
        /// What.
        what: &'static str,
        /// Why.
        error: rcgen::Error,
    },
    /// Something could not be read.
    Read {
        /// What.
        what: &'static str,
        /// What was found instead.
        found: String,
    },
    /// A name that cannot stand in a certificate.
    Name {
        /// The name.
        found: String,
    },
    /// The system gives no randomness.
    Random(getrandom::Error),
    /// A file could not be written.
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

impl fmt::Display for PkiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Make { what, error } => write!(f, "making {what} failed: {error}"),
            Self::Read { what, found } => write!(f, "{what} cannot be read: {found}"),
            Self::Name { found } => write!(f, "\"{found}\" is neither a DNS name nor an IP address"),
            Self::Random(error) => write!(f, "the system gives no randomness: {error}"),
            Self::Write { path, error } if error.kind() == io::ErrorKind::AlreadyExists => {
                write!(f, "{} exists, and is not written over", path.display())
            }
            Self::Write { path, error } => write!(f, "writing {} failed: {error}", path.display()),
        }
    }
}

impl std::error::Error for PkiError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Make { error, .. } => Some(error),
            Self::Write { error, .. } => Some(error),
            Self::Random(error) => Some(error),
            Self::Read { .. } | Self::Name { .. } => None,
        }
    }
}

fn named(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}

fn host_name(name: &str) -> Result<SanType, PkiError> {
    if let Ok(address) = name.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(address));
    }
    let invalid = || PkiError::Name { found: name.to_owned() };
    rustls_pki_types::DnsName::try_from(name).map_err(|_| invalid())?;
    Ok(SanType::DnsName(Ia5String::try_from(name).map_err(|_| invalid())?))
}

/// Random, positive, and never zero: what two authorities of one name issue must not collide in a revocation list.
fn serial() -> Result<SerialNumber, PkiError> {
    let mut bytes = [0; SERIAL_LEN];
    getrandom::fill(&mut bytes).map_err(PkiError::Random)?;
    if let Some(first) = bytes.first_mut() {
        *first = *first & 0x3f | 0x40;
    }
    Ok(SerialNumber::from(bytes.to_vec()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use rustls_pki_types::CertificateDer;
    use sealbus_protocol::identity::{PrincipalSource, TrustDomain};

    use super::*;

    fn der(pem: &str) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
    }

    fn now_ms() -> u64 {
        crate::text::now_ms()
    }

    #[test]
    fn a_client_certificate_names_its_principal_up_to_its_authority() {
        let authority = Authority::new("test").unwrap();
        let principal = Principal::parse("spiffe://bus.local/billing").unwrap();
        let issued = authority.issue_client(&principal, &[]).unwrap();
        let domain =
            TrustDomain::new("bus.local", PrincipalSource::Spiffe, &[der(authority.certificate_pem())])
                .unwrap();
        let leaf = domain.verify_at(&[der(issued.certificate_pem())], now_ms()).unwrap();
        assert_eq!(leaf.principal(), &principal);
        assert_eq!(leaf.serial().as_bytes(), issued.serial().to_bytes());
    }

    #[test]
    fn an_authority_read_back_from_its_files_issues_under_the_same_name() {
        let made = Authority::new("test").unwrap();
        let read = Authority::from_pem(made.certificate_pem(), &made.key_pem()).unwrap();
        let principal = Principal::parse("spiffe://bus.local/billing").unwrap();
        let issued = read.issue_client(&principal, &["bus.example".to_owned()]).unwrap();
        let domain =
            TrustDomain::new("bus.local", PrincipalSource::Spiffe, &[der(made.certificate_pem())]).unwrap();
        assert!(domain.verify_at(&[der(issued.certificate_pem())], now_ms()).is_ok());
    }

    #[test]
    fn another_authority_of_the_same_name_is_not_believed() {
        let [ours, theirs] = ["test", "test"].map(|name| Authority::new(name).unwrap());
        let principal = Principal::parse("spiffe://bus.local/billing").unwrap();
        let issued = theirs.issue_client(&principal, &[]).unwrap();
        let domain =
            TrustDomain::new("bus.local", PrincipalSource::Spiffe, &[der(ours.certificate_pem())]).unwrap();
        assert!(domain.verify_at(&[der(issued.certificate_pem())], now_ms()).is_err());
    }

    #[test]
    fn a_broker_has_the_names_that_it_was_given_and_no_others_are_taken() {
        let authority = Authority::new("test").unwrap();
        let names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
        let issued = authority.issue_broker(&names).unwrap();
        let der = der(issued.certificate_pem());
        assert_eq!(CertificateFacts::parse(&der).unwrap().dns_names, ["localhost"]);
        for bad in ["", "bus local", "https://bus", "büs"] {
            assert!(authority.issue_broker(&[bad.to_owned()]).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn files_are_their_owners_alone_and_never_written_over() {
        let folder = tempfile::tempdir().unwrap();
        let issued = Authority::new("test").unwrap().issue_broker(&["localhost".to_owned()]).unwrap();
        issued.write_to(folder.path()).unwrap();
        for name in ["tls.crt", "tls.key"] {
            let mode = std::fs::metadata(folder.path().join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
        let error = issued.write_to(folder.path()).unwrap_err();
        assert!(error.to_string().contains("is not written over"), "{error}");
        assert!(!format!("{issued:?}").contains("PRIVATE"));
    }
}
