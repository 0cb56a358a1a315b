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
//! `[limits]`, `[storage]`, `[audit]` and `[log]` are optional, and so is each of their keys, save that a policy with
//! streams needs `[storage] log_key`. A key that is not known is an error
//! that names the nearest one. Every listener is written out in full: no key has a fallback from another listener, and
//! no key turns TLS, client certificates, revocation, the audit log or the refusal by default off (FAILURES T51).
//! `document` alone knows TOML, `read` knows what may stand in the file, `error` says what was found instead.

mod document;
mod error;
mod limits;
mod read;
mod settings;

#[cfg(test)]
mod tests;

pub use error::{ConfigError, ConfigFault};
pub use limits::{
    AuditConfig, CLIENT_HELLO_BYTES_MAX, CLIENT_HELLO_TIMEOUT_MS, CONFIG_BYTES_MAX, DESCRIPTORS_RESERVED,
    LISTENERS_MAX, LimitsConfig, NEWCOMERS_MAX, StorageConfig,
};
pub use settings::{Config, ListenerConfig, LogConfig, LogFormat, Revocation};
