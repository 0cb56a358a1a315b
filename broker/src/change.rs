//! A change of what is in force: what is asked for, and what came of it.
//!
//! Changes are made one after the other by one task (`reload`), so that there is one answer to the question which
//! came first. Whoever wants one sends a [`ChangeRequest`] and waits.

use std::fmt;
use std::net::SocketAddr;

use sealbus_protocol::ids::PolicyHash;
use tokio::sync::oneshot;

use crate::audit::{AuditUnavailable, Initiator};
use crate::policy::PolicyLoadError;
use crate::storage::whole::StorageError;
use crate::tls::TlsError;

/// Changes that may wait for their turn. More are refused: nobody needs them.
pub(crate) const CHANGES_WAITING_MAX: usize = 16;

/// Somebody wants the policy and the TLS files read again.
#[derive(Debug)]
pub(crate) struct ChangeRequest {
    /// Who.
    pub(crate) by: Initiator,
    /// Where the outcome goes.
    pub(crate) reply: oneshot::Sender<Result<ReloadReport, ReloadError>>,
}

/// What is in force since a reload, on every connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReloadReport {
    /// The generation that began.
    pub generation: u64,
    /// The policy's version.
    pub version: u64,
    /// SHA-256 of its document.
    pub hash: PolicyHash,
    /// Rules of the policy before it.
    pub rules_before: usize,
    /// Rules of this one.
    pub rules_after: usize,
    /// Sessions that were ended by the change.
    pub sessions_cut: usize,
}

/// Why a reload did not happen, or not as a whole. What is refused stays as it was.
#[derive(Debug)]
pub enum ReloadError {
    /// The policy was refused; the one before stays in force.
    Policy(PolicyLoadError),
    /// A listener's certificates, roots or revocation lists were refused; those of all listeners stay in force. The
    /// policy, being good, is in force.
    Tls {
        /// The listener.
        listener: SocketAddr,
        /// What is wrong.
        error: Box<TlsError>,
    },
    /// The policy is good, and its streams cannot be opened, or it cannot be kept; the one before stays in force.
    Storage(StorageError),
    /// The change could not be recorded, so it was not made.
    Audit(AuditUnavailable),
    /// Too many changes wait already.
    Busy,
    /// The broker is shutting down.
    Stopping,
}

impl fmt::Display for ReloadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Policy(error) => write!(f, "the policy stays as it was: {error}"),
            Self::Tls { listener, error } => {
                write!(
                    f,
                    "certificates, roots and revocation lists stay as they were: listener {listener}: {error}"
                )
            }
            Self::Storage(error) => write!(f, "the policy stays as it was: {error}"),
            Self::Audit(error) => write!(f, "nothing was changed: {error}"),
            Self::Busy => write!(f, "{CHANGES_WAITING_MAX} changes wait already"),
            Self::Stopping => f.write_str("the broker is shutting down"),
        }
    }
}

impl std::error::Error for ReloadError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Policy(error) => Some(error),
            Self::Tls { error, .. } => Some(error),
            Self::Storage(error) => Some(error),
            Self::Audit(error) => Some(error),
            Self::Busy | Self::Stopping => None,
        }
    }
}
