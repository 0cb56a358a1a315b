//! What a listener holds, and what it says of a peer.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use rustls::server::danger::ClientCertVerifier;
use rustls_pki_types::{CertificateDer, UnixTime};
use sealbus_protocol::binding::{BindingError, KeyBinding, VerifiedBinding};
use sealbus_protocol::identity::{
    ChainError, TrustDomain, TrustStore, Validity, VerifiedChain, VerifiedLeaf,
};

use super::handshake::HandshakeFailure;

/// How long a certificate of a listener with `revocation = "short-lived"` may live: 24 hours, as SPIRE issues them.
/// It is how long a stolen one is of use, since nothing revokes it.
pub const SHORT_LIVED_MS_MAX: u64 = 24 * 60 * 60 * 1_000;

/// All that a listener needs to tell friend from stranger, made from its files at one moment. It never changes: a
/// reload makes another one.
pub struct TlsMaterial {
    pub(super) server: Arc<ServerConfig>,
    pub(super) trust: TrustStore,
    pub(super) verifier: Arc<dyn ClientCertVerifier>,
    pub(super) rule: RevocationRule,
    pub(super) certificate: Validity,
}

/// What stands in for a certificate's revocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RevocationRule {
    /// The verifier has lists.
    Lists,
    /// The certificate's life is short.
    ShortLife,
}

impl TlsMaterial {
    /// What accepts connections.
    #[must_use]
    pub const fn server(&self) -> &Arc<ServerConfig> {
        &self.server
    }

    /// Whose certificates are accepted, and where they name their principal. It knows no revocation: to judge a chain,
    /// use [`TlsMaterial::check_peer`] or [`TlsMaterial::check_binding`].
    #[must_use]
    pub fn domain(&self) -> &TrustDomain {
        self.trust.domains().first().expect("a trust store is never empty")
    }

    /// When the broker's own certificate is valid.
    #[must_use]
    pub const fn certificate_validity(&self) -> Validity {
        self.certificate
    }

    /// Judges the chain of a TLS client, leaf first: up to this listener's roots, naming one principal of its domain,
    /// not revoked, or short-lived. After the handshake, and for every live session when certificates, roots or lists
    /// have changed.
    ///
    /// # Errors
    /// [`PeerError`] says what does not hold.
    pub fn check_peer(&self, chain: &[CertificateDer<'_>], now_ms: u64) -> Result<VerifiedLeaf, PeerError> {
        let leaf = self.domain().verify_at(chain, now_ms).map_err(PeerError::Chain)?;
        self.check_revocation(chain, leaf.validity(), now_ms)?;
        Ok(leaf)
    }

    /// Judges the chain of a TLS client with which this material's own server has just shaken hands, and of no other:
    /// what its lists say of the chain was asked then. Otherwise as [`TlsMaterial::check_peer`].
    ///
    /// # Errors
    /// [`PeerError`] says what does not hold.
    pub(crate) fn check_accepted(
        &self,
        chain: Vec<CertificateDer<'static>>,
        now_ms: u64,
    ) -> Result<VerifiedChain, PeerError> {
        let chain = self.domain().verify_chain_at(chain, now_ms).map_err(PeerError::Chain)?;
        match self.rule {
            RevocationRule::Lists => {}
            RevocationRule::ShortLife => check_short_life(chain.leaf().validity())?,
        }
        Ok(chain)
    }

    /// Judges a key binding that came on a connection whose chain this material has accepted: as
    /// [`TlsMaterial::check_binding`], but the same certificates are not judged twice within one greeting.
    ///
    /// # Errors
    /// [`BindingRefused`] says what does not hold.
    pub(crate) fn check_binding_of(
        &self,
        accepted: &VerifiedChain,
        binding: &KeyBinding,
        now_ms: u64,
    ) -> Result<VerifiedBinding, BindingRefused> {
        match binding.verify_by_chain_at(accepted, now_ms) {
            Some(verified) => verified.map_err(BindingRefused::Binding),
            None => self.check_binding(binding, now_ms),
        }
    }

    /// Judges a key binding by this listener's roots, and its certificates like those of a TLS client.
    ///
    /// # Errors
    /// [`BindingRefused`] says what does not hold.
    pub fn check_binding(
        &self,
        binding: &KeyBinding,
        now_ms: u64,
    ) -> Result<VerifiedBinding, BindingRefused> {
        let verified = binding.verify_at(&self.trust, now_ms).map_err(BindingRefused::Binding)?;
        let chain: Vec<CertificateDer<'_>> = binding.chain().collect();
        self.check_revocation(&chain, verified.leaf().validity(), now_ms)
            .map_err(BindingRefused::Revocation)?;
        Ok(verified)
    }

    /// What a trust domain does not know of a chain that leads to its roots.
    fn check_revocation(
        &self,
        chain: &[CertificateDer<'_>],
        validity: Validity,
        now_ms: u64,
    ) -> Result<(), PeerError> {
        match self.rule {
            RevocationRule::Lists => {
                let (leaf, above) = chain.split_first().ok_or(PeerError::Chain(ChainError::Empty))?;
                let now = UnixTime::since_unix_epoch(Duration::from_millis(now_ms));
                self.verifier
                    .verify_client_cert(leaf, above, now)
                    .map(|_| ())
                    .map_err(|error| PeerError::Revocation(HandshakeFailure::from_tls(&error)))
            }
            RevocationRule::ShortLife => check_short_life(validity),
        }
    }
}

fn check_short_life(validity: Validity) -> Result<(), PeerError> {
    let life_ms = validity.not_after_ms.saturating_sub(validity.not_before_ms);
    if life_ms > SHORT_LIVED_MS_MAX {
        return Err(PeerError::LongLived { life_ms });
    }
    Ok(())
}

impl fmt::Debug for TlsMaterial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsMaterial")
            .field("domain", &self.domain().name())
            .field("rule", &self.rule)
            .field("certificate", &self.certificate)
            .finish_non_exhaustive()
    }
}

/// Why a client's certificates are not accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerError {
    /// They do not prove a principal of the listener's domain.
    Chain(ChainError),
    /// One is revoked, or nobody says that it is not.
    Revocation(HandshakeFailure),
    /// The leaf lives longer than certificates without revocation may.
    LongLived {
        /// How long it lives.
        life_ms: u64,
    },
}

impl PeerError {
    /// One word for the error, the same in every version: for audit records.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Chain(error) => error.word(),
            Self::Revocation(failure) => failure.reason(),
            Self::LongLived { .. } => "long-lived",
        }
    }
}

impl fmt::Display for PeerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Chain(error) => error.fmt(f),
            Self::Revocation(failure) => failure.fmt(f),
            Self::LongLived { life_ms } => write!(
                f,
                "the certificate lives {} s, and without revocation lists at most {} s are accepted",
                life_ms / 1_000,
                SHORT_LIVED_MS_MAX / 1_000
            ),
        }
    }
}

impl std::error::Error for PeerError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Chain(error) => Some(error),
            Self::Revocation(_) | Self::LongLived { .. } => None,
        }
    }
}

/// Why a key binding is not accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BindingRefused {
    /// It does not hold.
    Binding(BindingError),
    /// It holds, but its certificates are not accepted any more.
    Revocation(PeerError),
}

impl BindingRefused {
    /// One word for the error, the same in every version: for audit records.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Binding(error) => error.word(),
            Self::Revocation(error) => error.word(),
        }
    }
}

impl fmt::Display for BindingRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Binding(error) => error.fmt(f),
            Self::Revocation(error) => write!(f, "the key binding's certificates are refused: {error}"),
        }
    }
}

impl std::error::Error for BindingRefused {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Binding(error) => Some(error),
            Self::Revocation(error) => Some(error),
        }
    }
}
