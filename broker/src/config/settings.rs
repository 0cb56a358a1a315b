//! A configuration, complete and checked.

use std::net::SocketAddr;
use std::path::PathBuf;

use sealbus_protocol::identity::PrincipalSource;
use sealbus_protocol::ids::BusId;

use super::limits::{AuditConfig, LimitsConfig, StorageConfig};

/// A configuration that has been checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The bus that the broker serves: 32 hex digits, not all zero. Required.
    pub bus_id: BusId,
    /// Where the broker keeps what it keeps. Created when it is not there. Required.
    pub data_dir: PathBuf,
    /// The policy document. Required.
    pub policy: PathBuf,
    /// Where connections are accepted: one to [`LISTENERS_MAX`](super::LISTENERS_MAX).
    pub listeners: Vec<ListenerConfig>,
    /// `[limits]`.
    pub limits: LimitsConfig,
    /// `[storage]`.
    pub storage: StorageConfig,
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
