//! Judging a key binding: six conditions, each with its own refusal, all of them by the verifier's own roots.

use std::fmt;

use bytes::Bytes;
use rustls_pki_types::CertificateDer;
use webpki::EndEntityCert;

use crate::identity::{ChainError, Principal, TrustStore, Validity, VerifiedChain, VerifiedLeaf};
use crate::ids::Kid;
use crate::keys::{KeyError, Purpose, VerifyingKey};

use super::layout::{KemKey, KeyBinding};
use super::request::tls_message;
use super::scheme::TlsScheme;

/// How long a chain that was verified stands for itself: a greeting that comes at once comes within this.
pub const CHAIN_FRESH_MS: u64 = 1_000;

impl KeyBinding {
    /// Verifies that at this time the principal that the binding states did bind this key: the binding holds then, the
    /// key is not weak and signed it, the chain leads to our roots for the principal's domain and belongs to that
    /// principal, the dates lie within the leaf's, and the leaf's key signed it.
    ///
    /// # Errors
    /// [`BindingError`] names the first of these that fails, cheap conditions first.
    pub fn verify_at(&self, trust: &TrustStore, at_ms: u64) -> Result<VerifiedBinding, BindingError> {
        let key = self.verify_key_at(at_ms)?;
        let chain: Vec<CertificateDer<'_>> = self.chain().collect();
        let leaf = trust.verify_as_at(&self.principal, &chain, at_ms).map_err(BindingError::Chain)?;
        self.verify_by_leaf(key, leaf)
    }

    /// As [`KeyBinding::verify_at`] by the roots that have just verified this chain: a binding that was made with the very
    /// certificates of its connection needs no second look at them within [`CHAIN_FRESH_MS`]. None when its chain is
    /// another one, or not that of the principal that it states, or was verified longer ago, so that something above the
    /// leaf may have run out; then it is to be verified by the roots themselves.
    pub fn verify_by_chain_at(
        &self,
        chain: &VerifiedChain,
        at_ms: u64,
    ) -> Option<Result<VerifiedBinding, BindingError>> {
        let is_same = self.chain().eq(chain.certificates().iter().cloned())
            && *chain.leaf().principal() == self.principal
            && chain.verified_at_ms().abs_diff(at_ms) <= CHAIN_FRESH_MS
            && chain.leaf().validity().holds_at(at_ms);
        is_same.then(|| self.verify_by_leaf(self.verify_key_at(at_ms)?, chain.leaf().clone()))
    }

    /// What needs no certificate.
    fn verify_key_at(&self, at_ms: u64) -> Result<VerifyingKey, BindingError> {
        if !self.validity.holds_at(at_ms) {
            return Err(BindingError::NotCurrent { at_ms, validity: self.validity });
        }
        let key = VerifyingKey::parse(&self.key).map_err(BindingError::Key)?;
        let (signed, possession) = self.split_possession();
        key.verify(Purpose::KeyPossession, &[signed], possession).map_err(|_| BindingError::Possession)?;
        Ok(key)
    }

    /// What the binding's own leaf must say of it.
    fn verify_by_leaf(&self, key: VerifyingKey, leaf: VerifiedLeaf) -> Result<VerifiedBinding, BindingError> {
        if !self.validity.lies_within(&leaf.validity()) {
            return Err(BindingError::OutsideLeaf { validity: self.validity, leaf: leaf.validity() });
        }
        self.verify_tls_signature(&self.chain().next().expect("a verified chain has a leaf"))?;
        let kid = key.kid(&self.principal);
        Ok(VerifiedBinding {
            bytes: self.bytes.clone(),
            leaf,
            validity: self.validity,
            key,
            kid,
            kem: self.kem.clone(),
        })
    }

    fn verify_tls_signature(&self, leaf: &CertificateDer<'_>) -> Result<(), BindingError> {
        let refuse = |_| BindingError::TlsSignature { scheme: self.scheme };
        let leaf = EndEntityCert::try_from(leaf).map_err(refuse)?;
        let message = tls_message(self.signed_by_leaf());
        leaf.verify_signature(self.scheme.algorithm(), &message, &self.tls_signature).map_err(|error| {
            match error {
                webpki::Error::UnsupportedSignatureAlgorithmForPublicKeyContext(_) => {
                    BindingError::SchemeUnfit { scheme: self.scheme }
                }
                other => refuse(other),
            }
        })?;
        match self.scheme {
            TlsScheme::Ed25519 => verify_strictly(&leaf, &message, &self.tls_signature)
                .ok_or(BindingError::TlsSignature { scheme: self.scheme }),
            TlsScheme::EcdsaP256
            | TlsScheme::EcdsaP384
            | TlsScheme::RsaPssSha256
            | TlsScheme::RsaPssSha384
            | TlsScheme::RsaPssSha512 => Ok(()),
        }
    }
}

/// Ed25519 once more, by the one strict verifier of this protocol. Libraries disagree about weak keys, and a binding
/// that one reader takes and another refuses would split them for every batch under its key.
fn verify_strictly(leaf: &EndEntityCert<'_>, message: &[u8], signature: &[u8]) -> Option<()> {
    let public_key_info = leaf.subject_public_key_info();
    let key = public_key_info.strip_prefix(ED25519_KEY_PREFIX)?.try_into().ok()?;
    let key = ed25519_dalek::VerifyingKey::from_bytes(key).ok()?;
    let signature = ed25519_dalek::Signature::from_bytes(signature.try_into().ok()?);
    key.verify_strict(message, &signature).ok()
}

/// `SEQUENCE { SEQUENCE { 1.3.101.112 }, BIT STRING of 32 bytes }` up to the key (RFC 8410 section 4).
const ED25519_KEY_PREFIX: &[u8] = &[0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// A key binding that was true at the time for which it was verified. Nothing else makes one. Cloning copies no bytes.
#[derive(Debug, Clone)]
pub struct VerifiedBinding {
    bytes: Bytes,
    leaf: VerifiedLeaf,
    validity: Validity,
    key: VerifyingKey,
    kid: Kid,
    kem: Option<KemKey>,
}

impl VerifiedBinding {
    /// Whose key it is.
    #[must_use]
    pub const fn principal(&self) -> &Principal {
        self.leaf.principal()
    }

    /// The key that verifies the principal's batches and session proofs.
    #[must_use]
    pub const fn key(&self) -> &VerifyingKey {
        &self.key
    }

    /// The key's id, as a key of this principal.
    #[must_use]
    pub const fn kid(&self) -> Kid {
        self.kid
    }

    /// When the binding holds. Holding then does not say that the leaf was not revoked since.
    #[must_use]
    pub const fn validity(&self) -> Validity {
        self.validity
    }

    /// The leaf certificate behind it.
    #[must_use]
    pub const fn leaf(&self) -> &VerifiedLeaf {
        &self.leaf
    }

    /// The principal's key for sealing, if it has one.
    #[must_use]
    pub const fn kem(&self) -> Option<&KemKey> {
        self.kem.as_ref()
    }

    /// The binding's bytes, as they arrived.
    #[must_use]
    pub const fn bytes(&self) -> &Bytes {
        &self.bytes
    }
}

/// Why a key binding is not believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BindingError {
    /// It does not hold at the time in question.
    NotCurrent {
        /// The time in question.
        at_ms: u64,
        /// When it holds.
        validity: Validity,
    },
    /// Its signing key is not a key.
    Key(KeyError),
    /// Its signing key did not sign it.
    Possession,
    /// Its chain does not prove the principal that it states.
    Chain(ChainError),
    /// Its dates exceed its leaf's.
    OutsideLeaf {
        /// When the binding holds.
        validity: Validity,
        /// When the leaf is valid.
        leaf: Validity,
    },
    /// The signature scheme is not one for the leaf's key.
    SchemeUnfit {
        /// The scheme.
        scheme: TlsScheme,
    },
    /// The leaf's key did not sign it.
    TlsSignature {
        /// The scheme.
        scheme: TlsScheme,
    },
}

impl BindingError {
    /// One word for the error, the same in every version: for audit records and test vectors.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::NotCurrent { .. } => "not-current",
            Self::Key(KeyError::NotAPoint) => "not-a-key",
            Self::Key(KeyError::Weak) => "weak-key",
            Self::Possession => "possession",
            Self::Chain(error) => error.word(),
            Self::OutsideLeaf { .. } => "outside-leaf",
            Self::SchemeUnfit { .. } => "scheme-unfit",
            Self::TlsSignature { .. } => "tls-signature",
        }
    }
}

impl fmt::Display for BindingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotCurrent { at_ms, validity } => write!(
                f,
                "the key binding holds from {} to {} ms, which {at_ms} ms is not in",
                validity.not_before_ms, validity.not_after_ms
            ),
            Self::Key(error) => write!(f, "the key binding's key is refused: {error}"),
            Self::Possession => f.write_str("the key binding is not signed by the key that it binds"),
            Self::Chain(error) => write!(f, "the key binding's certificates are refused: {error}"),
            Self::OutsideLeaf { validity, leaf } => write!(
                f,
                "the key binding holds from {} to {} ms, its certificate only from {} to {} ms",
                validity.not_before_ms, validity.not_after_ms, leaf.not_before_ms, leaf.not_after_ms
            ),
            Self::SchemeUnfit { scheme } => write!(
                f,
                "the key binding names signature scheme {:04x}, which is not for its certificate's key",
                scheme.code()
            ),
            Self::TlsSignature { scheme } => write!(
                f,
                "the key binding is not signed by its certificate's key (scheme {:04x})",
                scheme.code()
            ),
        }
    }
}

impl std::error::Error for BindingError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Key(error) => Some(error),
            Self::Chain(error) => Some(error),
            Self::NotCurrent { .. }
            | Self::Possession
            | Self::OutsideLeaf { .. }
            | Self::SchemeUnfit { .. }
            | Self::TlsSignature { .. } => None,
        }
    }
}
