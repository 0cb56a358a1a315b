//! Making a key binding, in two steps, because the TLS key is held elsewhere.
//!
//! ```text
//! BindingRequest::new ──> tls_message ──> (the TLS key signs it) ──> finish ──> the binding's bytes
//! ```

use std::fmt;

use bytes::Bytes;
use rustls_pki_types::CertificateDer;

use crate::identity::{Principal, Validity};
use crate::keys::{Purpose, SigningKey};
use crate::limits::{BINDING_BYTES_MAX, CERTIFICATE_BYTES_MAX, CHAIN_CERTIFICATES_MAX};
use crate::wire::Write as _;

use super::layout::{KEM_NONE, KEM_X_WING, KemKey, MAGIC, TLS_SIGNATURE_BYTES_MAX, X_WING_KEY_LEN};
use super::scheme::TlsScheme;

/// A binding that still lacks its two signatures.
///
/// Only sizes are checked here. Whether the chain leads anywhere, and whether the leaf is this principal's, is judged
/// by whoever receives the binding; a client that wants to know before can ask [`super::layout::KeyBinding::verify_at`].
#[derive(Debug)]
pub struct BindingRequest<'k> {
    signing_key: &'k SigningKey,
    prefix: Vec<u8>,
}

impl<'k> BindingRequest<'k> {
    /// Binds `signing_key` to `principal`, whose certificate chain this is, leaf first.
    ///
    /// # Errors
    /// [`BindingRequestError`] when the chain or the dates cannot stand in a binding.
    pub fn new(
        principal: &Principal,
        signing_key: &'k SigningKey,
        validity: Validity,
        chain: &[CertificateDer<'_>],
    ) -> Result<Self, BindingRequestError> {
        Self::with_kem(principal, signing_key, validity, None, chain)
    }

    /// The same, with a key for sealing.
    ///
    /// # Errors
    /// As [`BindingRequest::new`], and when the key does not have its type's length.
    pub fn with_kem(
        principal: &Principal,
        signing_key: &'k SigningKey,
        validity: Validity,
        kem: Option<&KemKey>,
        chain: &[CertificateDer<'_>],
    ) -> Result<Self, BindingRequestError> {
        check_chain(chain)?;
        if validity.not_before_ms > validity.not_after_ms {
            return Err(BindingRequestError::Dates);
        }
        let mut prefix = Vec::with_capacity(BINDING_BYTES_MAX);
        prefix.raw(MAGIC);
        prefix.u16(0);
        prefix.u64(validity.not_before_ms);
        prefix.u64(validity.not_after_ms);
        prefix.bytes16(principal.as_str().as_bytes());
        prefix.raw(signing_key.verifying_key().as_bytes());
        match kem {
            None => {
                prefix.u16(KEM_NONE);
                prefix.bytes16(&[]);
            }
            Some(KemKey::XWing(key)) if key.len() == X_WING_KEY_LEN => {
                prefix.u16(KEM_X_WING);
                prefix.bytes16(key);
            }
            Some(KemKey::XWing(key)) => return Err(BindingRequestError::KemKey { found: key.len() }),
        }
        prefix.u8(u8::try_from(chain.len()).expect("a checked chain has at most four certificates"));
        chain.iter().for_each(|certificate| prefix.bytes32(certificate));
        Ok(Self { signing_key, prefix })
    }

    /// What the TLS key signs. It begins like a TLS 1.3 CertificateVerify, with another label, so that a signature on
    /// one is never a signature on the other.
    #[must_use]
    pub fn tls_message(&self) -> Vec<u8> {
        tls_message(&self.prefix)
    }

    /// The binding, with the TLS key's signature and the signing key's own.
    ///
    /// # Errors
    /// [`BindingRequestError`] when the signature or the whole is too long.
    pub fn finish(self, scheme: TlsScheme, tls_signature: &[u8]) -> Result<Bytes, BindingRequestError> {
        if tls_signature.len() > TLS_SIGNATURE_BYTES_MAX {
            return Err(BindingRequestError::SignatureTooLong { found: tls_signature.len() });
        }
        let Self { signing_key, prefix: mut bytes } = self;
        bytes.u16(scheme.code());
        bytes.bytes16(tls_signature);
        let possession = signing_key.sign(Purpose::KeyPossession, &[&bytes]);
        bytes.raw(&possession);
        if bytes.len() > BINDING_BYTES_MAX {
            return Err(BindingRequestError::TooLong { found: bytes.len() });
        }
        Ok(bytes.into())
    }
}

/// `64 x 0x20 | "sealbus/1 key binding\0" | all before the scheme`
pub(super) fn tls_message(prefix: &[u8]) -> Vec<u8> {
    let label = Purpose::KeyBinding.label();
    let mut message = Vec::with_capacity(PADDING.len() + label.len() + prefix.len());
    message.raw(&PADDING);
    message.raw(label);
    message.raw(prefix);
    message
}

/// As in TLS 1.3 (RFC 8446 section 4.4.3): no message of an older protocol begins so.
const PADDING: [u8; 64] = [0x20; 64];

/// Why a binding cannot be made. The fault is ours or our certificate's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BindingRequestError {
    /// The chain is empty or has more than [`CHAIN_CERTIFICATES_MAX`] certificates.
    Chain {
        /// How many it has.
        found: usize,
    },
    /// A certificate is longer than [`CERTIFICATE_BYTES_MAX`].
    CertificateTooLong {
        /// Its place in the chain, from 0, the leaf.
        place: usize,
        /// Its bytes.
        found: usize,
    },
    /// The dates end before they begin.
    Dates,
    /// The key for sealing does not have the length of its type.
    KemKey {
        /// Its bytes.
        found: usize,
    },
    /// The TLS key's signature is longer than [`TLS_SIGNATURE_BYTES_MAX`].
    SignatureTooLong {
        /// Its bytes.
        found: usize,
    },
    /// The whole binding is longer than [`BINDING_BYTES_MAX`].
    TooLong {
        /// Its bytes.
        found: usize,
    },
}

impl fmt::Display for BindingRequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Chain { found } => write!(
                f,
                "a key binding carries 1 to {CHAIN_CERTIFICATES_MAX} certificates, the chain has {found}"
            ),
            Self::CertificateTooLong { place, found } => write!(
                f,
                "certificate {place} of the chain has {found} bytes, a key binding takes {CERTIFICATE_BYTES_MAX}"
            ),
            Self::Dates => f.write_str("the key binding would end before it begins"),
            Self::KemKey { found } => {
                write!(f, "the sealing key has {found} bytes, its type has another number")
            }
            Self::SignatureTooLong { found } => write!(
                f,
                "the tls key's signature has {found} bytes, a key binding takes {TLS_SIGNATURE_BYTES_MAX}"
            ),
            Self::TooLong { found } => {
                write!(f, "the key binding has {found} bytes, the limit is {BINDING_BYTES_MAX}")
            }
        }
    }
}

impl std::error::Error for BindingRequestError {}

fn check_chain(chain: &[CertificateDer<'_>]) -> Result<(), BindingRequestError> {
    if !(1..=CHAIN_CERTIFICATES_MAX).contains(&chain.len()) {
        return Err(BindingRequestError::Chain { found: chain.len() });
    }
    for (place, certificate) in chain.iter().enumerate() {
        if certificate.len() > CERTIFICATE_BYTES_MAX {
            return Err(BindingRequestError::CertificateTooLong { place, found: certificate.len() });
        }
    }
    Ok(())
}
