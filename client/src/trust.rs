//! `trust.toml`: what a client takes from its own configuration and from nobody else.
//!
//! ```toml
//! bus_id = "32 hex digits"
//! broker_roots = "ca.pem"        # who may be the broker
//!
//! [[trust_domain]]               # whose producers are believed
//! name = "bus.example"
//! principal = "spiffe"           # spiffe, dns or cn
//! roots = "ca.pem"
//!
//! [log]                          # may be left out: without it no checkpoint is believed
//! key = "44 letters of base64"   # the Ed25519 key that signs the broker's checkpoints
//! ```
//!
//! Paths are relative to the file. Keys that are not known are refused, with the nearest one that is.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use sealbus_protocol::identity::{PrincipalSource, TrustDomain, TrustError, TrustStore};
use sealbus_protocol::ids::{BusId, ParseIdError};
use sealbus_protocol::keys::{KeyError, PUBLIC_KEY_LEN, VerifyingKey};
use sealbus_protocol::spelling::nearest;
use sealbus_protocol::tlog::base64;
use toml::{Table, Value};

/// Bytes of the trust file and of each file of roots. A thousand roots fit.
const FILE_BYTES_MAX: u64 = 4 * 1_024 * 1_024;

const KEYS: &[&str] = &["bus_id", "broker_roots", "trust_domain", "log"];
const DOMAIN_KEYS: &[&str] = &["name", "principal", "roots"];
const LOG_KEYS: &[&str] = &["key"];

/// Which bus, whose broker, and whose producers are believed. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Trust {
    bus_id: BusId,
    broker_roots: Arc<RootCertStore>,
    producers: Arc<TrustStore>,
    log_key: Option<[u8; PUBLIC_KEY_LEN]>,
}

impl Trust {
    /// Reads a trust file and the roots that it names.
    ///
    /// # Errors
    /// [`TrustFileError`] names the file and what is wrong with it.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, TrustFileError> {
        let path = path.as_ref();
        let bytes = read(path)?;
        let refuse = |problem| TrustFileError::Content { path: path.into(), problem };
        let text = std::str::from_utf8(&bytes).map_err(|_| refuse(Problem::Text))?;
        let table: Table = text.parse().map_err(|error| refuse(Problem::Toml(error)))?;
        let base = path.parent().unwrap_or(Path::new("."));
        let document = Document::parse(&table).map_err(refuse)?;

        let broker_roots = broker_roots(&base.join(document.broker_roots))?;
        let domains = document.domains.iter().map(|domain| {
            let roots = certificates(&base.join(domain.roots))?;
            TrustDomain::new(domain.name, domain.source, &roots)
                .map_err(|error| refuse(Problem::Trust(error)))
        });
        let domains = domains.collect::<Result<Vec<_>, _>>()?;
        let producers = TrustStore::new(domains).map_err(|error| refuse(Problem::Trust(error)))?;
        Ok(Self {
            bus_id: document.bus_id,
            broker_roots: Arc::new(broker_roots),
            producers: Arc::new(producers),
            log_key: document.log_key,
        })
    }

    /// The bus that is meant.
    #[must_use]
    pub const fn bus_id(&self) -> BusId {
        self.bus_id
    }

    /// Whose producers are believed.
    #[must_use]
    pub fn producers(&self) -> &TrustStore {
        &self.producers
    }

    /// The key that signs the broker's checkpoints, when the file names one.
    #[must_use]
    pub const fn log_key(&self) -> Option<&[u8; PUBLIC_KEY_LEN]> {
        self.log_key.as_ref()
    }

    /// Believes checkpoints that this Ed25519 key signs, instead of the key that the file names.
    ///
    /// # Errors
    /// [`KeyError`] when the bytes are not a key, or a weak one.
    pub fn with_log_key(mut self, key: [u8; PUBLIC_KEY_LEN]) -> Result<Self, KeyError> {
        VerifyingKey::parse(&key)?;
        self.log_key = Some(key);
        Ok(self)
    }

    pub(crate) const fn shared_producers(&self) -> &Arc<TrustStore> {
        &self.producers
    }

    pub(crate) const fn broker_roots(&self) -> &Arc<RootCertStore> {
        &self.broker_roots
    }
}

/// The file's words, checked for form.
struct Document<'a> {
    bus_id: BusId,
    broker_roots: &'a str,
    domains: Vec<Domain<'a>>,
    log_key: Option<[u8; PUBLIC_KEY_LEN]>,
}

struct Domain<'a> {
    name: &'a str,
    source: PrincipalSource,
    roots: &'a str,
}

impl<'a> Document<'a> {
    fn parse(table: &'a Table) -> Result<Self, Problem> {
        check_keys(table, KEYS)?;
        let domains = match table.get("trust_domain") {
            Some(Value::Array(domains)) => domains.iter().map(Domain::parse).collect::<Result<_, _>>()?,
            Some(_) => return Err(Problem::Kind { key: "trust_domain", expected: "an array of tables" }),
            None => Vec::new(),
        };
        let bus_id = string(table, "bus_id")?.parse().map_err(Problem::BusId)?;
        let log_key = match table.get("log") {
            Some(Value::Table(log)) => Some(log_key(log)?),
            Some(_) => return Err(Problem::Kind { key: "log", expected: "a table" }),
            None => None,
        };
        Ok(Self { bus_id, broker_roots: string(table, "broker_roots")?, domains, log_key })
    }
}

impl<'a> Domain<'a> {
    fn parse(value: &'a Value) -> Result<Self, Problem> {
        let Value::Table(table) = value else {
            return Err(Problem::Kind { key: "trust_domain", expected: "an array of tables" });
        };
        check_keys(table, DOMAIN_KEYS)?;
        let source = match string(table, "principal")? {
            "spiffe" => PrincipalSource::Spiffe,
            "dns" => PrincipalSource::Dns,
            "cn" => PrincipalSource::CommonName,
            found => return Err(Problem::Principal { found: found.to_owned() }),
        };
        Ok(Self { name: string(table, "name")?, source, roots: string(table, "roots")? })
    }
}

fn log_key(table: &Table) -> Result<[u8; PUBLIC_KEY_LEN], Problem> {
    check_keys(table, LOG_KEYS)?;
    let bytes = base64::decode(string(table, "key")?).map_err(|_| Problem::LogKey)?;
    let key = bytes.try_into().map_err(|_| Problem::LogKey)?;
    VerifyingKey::parse(&key).map_err(|_| Problem::LogKey)?;
    Ok(key)
}

fn check_keys(table: &Table, known: &'static [&'static str]) -> Result<(), Problem> {
    match table.keys().find(|key| !known.contains(&key.as_str())) {
        None => Ok(()),
        Some(found) => {
            Err(Problem::Unknown { found: found.clone(), nearest: nearest(found, known.iter().copied()) })
        }
    }
}

fn string<'a>(table: &'a Table, key: &'static str) -> Result<&'a str, Problem> {
    match table.get(key) {
        Some(Value::String(text)) => Ok(text),
        Some(_) => Err(Problem::Kind { key, expected: "a string" }),
        None => Err(Problem::Absent { key }),
    }
}

fn broker_roots(path: &Path) -> Result<RootCertStore, TrustFileError> {
    let mut store = RootCertStore::empty();
    for certificate in certificates(path)? {
        store.add(certificate).map_err(|error| TrustFileError::BrokerRoot { path: path.into(), error })?;
    }
    Ok(store)
}

/// The certificates of a PEM file; one at least, and every one of them whole.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TrustFileError> {
    let pem = read(path)?;
    match CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>() {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) | Err(_) => Err(TrustFileError::Roots { path: path.into() }),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TrustFileError> {
    let unreadable = |error| TrustFileError::Read { path: path.into(), error };
    let file = File::open(path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(TrustFileError::TooLong { path: path.into() });
    }
    Ok(bytes)
}

/// Why a trust file cannot be used.
#[derive(Debug)]
pub enum TrustFileError {
    /// A file cannot be read.
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// A file is far longer than such a file is.
    TooLong {
        /// The file.
        path: PathBuf,
    },
    /// The trust file does not say what it should.
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: Problem,
    },
    /// A file of roots holds no PEM certificate, or a broken one.
    Roots {
        /// The file.
        path: PathBuf,
    },
    /// A broker root does not serve as one.
    BrokerRoot {
        /// The file.
        path: PathBuf,
        /// What was found.
        error: rustls::Error,
    },
}

/// What is wrong with the words of a trust file.
#[derive(Debug)]
pub enum Problem {
    /// It is not UTF-8.
    Text,
    /// It is not TOML.
    Toml(toml::de::Error),
    /// A key that is not known.
    Unknown {
        /// The key.
        found: String,
        /// The nearest one that is known, if one is near.
        nearest: Option<&'static str>,
    },
    /// A key that must be there is not.
    Absent {
        /// The key.
        key: &'static str,
    },
    /// A value of another kind than its key has.
    Kind {
        /// The key.
        key: &'static str,
        /// What was expected.
        expected: &'static str,
    },
    /// The bus id is not 32 hex digits.
    BusId(ParseIdError),
    /// No source of principals has this name.
    Principal {
        /// The name.
        found: String,
    },
    /// The trust domains do not make a trust store.
    Trust(TrustError),
    /// The log's key is not an Ed25519 key in base64.
    LogKey,
}

impl fmt::Display for TrustFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read { path, error } => write!(f, "cannot read {}: {error}", path.display()),
            Self::TooLong { path } => write!(f, "{} is longer than {FILE_BYTES_MAX} bytes", path.display()),
            Self::Content { path, problem } => write!(f, "{} cannot be used: {problem}", path.display()),
            Self::Roots { path } => write!(f, "{} holds no PEM certificate", path.display()),
            Self::BrokerRoot { path, error } => {
                write!(f, "a certificate in {} does not serve as a root: {error}", path.display())
            }
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text => f.write_str("it is not UTF-8"),
            Self::Toml(error) => write!(f, "{error}"),
            Self::Unknown { found, nearest: Some(nearest) } => {
                write!(f, "unknown key {found:?}; did you mean {nearest:?}?")
            }
            Self::Unknown { found, nearest: None } => write!(f, "unknown key {found:?}"),
            Self::Absent { key } => write!(f, "the key {key:?} is missing"),
            Self::Kind { key, expected } => write!(f, "{key:?} must be {expected}"),
            Self::BusId(error) => write!(f, "bus_id: {error}"),
            Self::Principal { found } => {
                write!(f, "principal {found:?} is not known; one of spiffe, dns and cn was expected")
            }
            Self::Trust(error) => write!(f, "{error}"),
            Self::LogKey => f.write_str("the log's key is not the base64 of a 32-byte Ed25519 public key"),
        }
    }
}

impl std::error::Error for TrustFileError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Read { error, .. } => Some(error),
            Self::BrokerRoot { error, .. } => Some(error),
            Self::Content { problem, .. } => problem.source(),
            Self::TooLong { .. } | Self::Roots { .. } => None,
        }
    }
}

impl Problem {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Toml(error) => Some(error),
            Self::BusId(error) => Some(error),
            Self::Trust(error) => Some(error),
            Self::Text
            | Self::Unknown { .. }
            | Self::Absent { .. }
            | Self::Kind { .. }
            | Self::Principal { .. }
            | Self::LogKey => None,
        }
    }
}
