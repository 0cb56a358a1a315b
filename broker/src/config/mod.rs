//! The configuration, `sealbus.toml`: read once at the edge, checked as a whole, complete afterwards.
//!
//! ```toml
//! bus_id = "5f1c0e0f9a3b4c5d6e7f809102132435"   # drawn by `sealbus init`
//! data_dir = "data"                             # paths are relative to this file
//! policy = "policy.toml"
//!
//! [[listener]]
//! address = "127.0.0.1:7433"
//! zone = "internal"
//! principal = "spiffe"                          # or "dns", or "cn"
//! trust_domain = "acme.example"
//! certificate = "broker.pem"
//! key = "broker.key"
//! client_ca = "ca.pem"
//! revocation = "crl"                            # or "short-lived"
//! crl = "ca.crl"
//! ```
//!
//! `[limits]`, `[audit]` and `[log]` are optional, and so is each of their keys. A key that is not known is an error
//! that names the nearest one. Every listener is written out in full: no key has a fallback from another listener, and
//! no key turns TLS, client certificates, revocation, the audit log or the refusal by default off (FAILURES T51).
//! `document` alone knows TOML, `read` knows what may stand in the file, `error` says what was found instead.

mod document;
mod error;
mod limits;
mod read;

#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use sealbus_protocol::identity::PrincipalSource;
use sealbus_protocol::ids::BusId;

use crate::vfs::Vfs;

pub use error::{ConfigError, ConfigFault};
pub use limits::{AuditConfig, CONFIG_BYTES_MAX, LISTENERS_MAX, LimitsConfig};

/// A configuration that has been checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The bus that the broker serves: 32 hex digits, not all zero. Required.
    pub bus_id: BusId,
    /// Where the broker keeps what it keeps. Created when it is not there. Required.
    pub data_dir: PathBuf,
    /// The policy document. Required.
    pub policy: PathBuf,
    /// Where connections are accepted: one to [`LISTENERS_MAX`].
    pub listeners: Vec<ListenerConfig>,
    /// `[limits]`.
    pub limits: LimitsConfig,
    /// `[audit]`.
    pub audit: AuditConfig,
    /// `[log]`.
    pub log: LogConfig,
}

/// A place where connections are accepted, always over TLS with client certificates. Every key is required, but `crl`
/// exactly when `revocation = "crl"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerConfig {
    /// Address and port; port 0 takes a free one.
    pub address: SocketAddr,
    /// What policies call this place, in `when.zone`.
    pub zone: String,
    /// Where in a client's certificate its principal is read: `principal = "spiffe"`, `"dns"` or `"cn"`.
    pub principal: PrincipalSource,
    /// The SPIFFE trust domain that the roots speak for; for other sources only a label.
    pub trust_domain: String,
    /// The broker's certificate and those above it, PEM, leaf first.
    pub certificate: PathBuf,
    /// The private key of that certificate, PEM, readable by nobody but its owner.
    pub key: PathBuf,
    /// The roots of client certificates, PEM.
    pub client_ca: PathBuf,
    /// How revoked certificates are known.
    pub revocation: Revocation,
}

/// How revoked client certificates are known. There is no third way, and none to switch it off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Revocation {
    /// `revocation = "crl"`: by lists in this file, PEM or DER, for the whole chain.
    Crl(PathBuf),
    /// `revocation = "short-lived"`: no leaf lives longer than
    /// [`SHORT_LIVED_MS_MAX`](crate::tls::SHORT_LIVED_MS_MAX).
    ShortLived,
}

/// `[log]`: what operators read. The audit log is another thing, and has no filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    /// `format`, `"text"` by default.
    pub format: LogFormat,
    /// `filter`, `"info"` by default: directives as `tracing-subscriber` reads them.
    pub filter: String,
}

/// The form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// `"text"`: for people.
    Text,
    /// `"json"`: one object to a line.
    Json,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { format: LogFormat::Text, filter: "info".to_owned() }
    }
}

impl Config {
    /// Reads a configuration from its file.
    ///
    /// # Errors
    /// [`ConfigError`] names the file, the line and the column.
    pub fn load(vfs: &dyn Vfs, path: &Path) -> Result<Self, ConfigError> {
        let bytes = vfs
            .read(path, CONFIG_BYTES_MAX)
            .map_err(|error| ConfigError::of_file(ConfigFault::Read(error)).in_file(path))?;
        let text = std::str::from_utf8(&bytes).map_err(|error| {
            ConfigError::of_file(ConfigFault::NotUtf8 { at: error.valid_up_to() }).in_file(path)
        })?;
        let base = path.parent().unwrap_or_else(|| Path::new(""));
        Self::parse(text, base).map_err(|error| error.in_file(path))
    }

    /// Reads a configuration whose relative paths are relative to `base`.
    ///
    /// # Errors
    /// [`ConfigError`] with the first fault that a reader meets, its line and its column.
    pub fn parse(text: &str, base: &Path) -> Result<Self, ConfigError> {
        read::config(text, base)
    }
}
