//! The TLS signature schemes with which a certificate's key may sign a binding.

use rustls_pki_types::SignatureVerificationAlgorithm;
use webpki::aws_lc_rs;

/// A TLS 1.3 SignatureScheme (RFC 8446 section 4.2.3) that a binding may name: what TLS 1.3 itself lets a client sign
/// with, without P-521.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsScheme {
    /// `ecdsa_secp256r1_sha256`
    EcdsaP256,
    /// `ecdsa_secp384r1_sha384`
    EcdsaP384,
    /// `ed25519`
    Ed25519,
    /// `rsa_pss_rsae_sha256`
    RsaPssSha256,
    /// `rsa_pss_rsae_sha384`
    RsaPssSha384,
    /// `rsa_pss_rsae_sha512`
    RsaPssSha512,
}

impl TlsScheme {
    /// Every scheme, in the order in which they are offered to a key that can do several.
    pub const ALL: [Self; 6] = [
        Self::Ed25519,
        Self::EcdsaP256,
        Self::EcdsaP384,
        Self::RsaPssSha256,
        Self::RsaPssSha384,
        Self::RsaPssSha512,
    ];

    /// The scheme with this number.
    #[must_use]
    pub fn from_code(code: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|scheme| scheme.code() == code)
    }

    /// The scheme's number in TLS.
    #[must_use]
    pub const fn code(self) -> u16 {
        match self {
            Self::EcdsaP256 => 0x0403,
            Self::EcdsaP384 => 0x0503,
            Self::Ed25519 => 0x0807,
            Self::RsaPssSha256 => 0x0804,
            Self::RsaPssSha384 => 0x0805,
            Self::RsaPssSha512 => 0x0806,
        }
    }

    pub(super) const fn algorithm(self) -> &'static dyn SignatureVerificationAlgorithm {
        match self {
            Self::EcdsaP256 => aws_lc_rs::ECDSA_P256_SHA256,
            Self::EcdsaP384 => aws_lc_rs::ECDSA_P384_SHA384,
            Self::Ed25519 => aws_lc_rs::ED25519,
            Self::RsaPssSha256 => aws_lc_rs::RSA_PSS_2048_8192_SHA256_LEGACY_KEY,
            Self::RsaPssSha384 => aws_lc_rs::RSA_PSS_2048_8192_SHA384_LEGACY_KEY,
            Self::RsaPssSha512 => aws_lc_rs::RSA_PSS_2048_8192_SHA512_LEGACY_KEY,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn six_numbers_are_schemes_and_no_other() {
        let known = [0x0403, 0x0503, 0x0804, 0x0805, 0x0806, 0x0807];
        for code in 0..=u16::MAX {
            let found = TlsScheme::from_code(code);
            assert_eq!(found.is_some(), known.contains(&code), "{code:04x}");
            assert_eq!(found.map_or(code, TlsScheme::code), code);
        }
    }
}
