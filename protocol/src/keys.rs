//! Ed25519 and BLAKE3, under the names that this protocol gives them.
//!
//! Every derivation and every signature has a label of its own with a version in it, so that bytes signed for one
//! purpose mean nothing for another. Verification is `verify_strict` everywhere: the lenient form accepts weak keys,
//! and two verifiers that disagree about a batch would make a poison pill of it.

use std::fmt;

use ed25519_dalek::Signer as _;
use zeroize::Zeroizing;

use crate::identity::Principal;
use crate::ids::Kid;
use crate::wire::Write;

/// Bytes of an Ed25519 signature.
pub const SIGNATURE_LEN: usize = 64;

/// Bytes of an Ed25519 public key.
pub const PUBLIC_KEY_LEN: usize = 32;

/// What a signature is for. The label's bytes come before what is signed, with their closing NUL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A batch's preamble, signed by the producer.
    Batch,
    /// The session proof in HELLO.
    Session,
    /// A key binding: the TLS key speaks for the signing key.
    KeyBinding,
    /// A key binding: the signing key speaks for itself.
    KeyPossession,
}

impl Purpose {
    /// The bytes that come before what is signed.
    #[must_use]
    pub const fn label(self) -> &'static [u8] {
        match self {
            Self::Batch => b"sealbus/1 batch\0",
            Self::Session => b"sealbus/1 session\0",
            Self::KeyBinding => b"sealbus/1 key binding\0",
            Self::KeyPossession => b"sealbus/1 key possession\0",
        }
    }
}

/// A private signing key. Wiped when dropped; prints nothing of itself.
pub struct SigningKey(ed25519_dalek::SigningKey);

impl SigningKey {
    /// The key with this 32-byte seed, which must come from the system's random generator.
    #[must_use]
    pub fn from_seed(seed: &Zeroizing<[u8; 32]>) -> Self {
        Self(ed25519_dalek::SigningKey::from_bytes(seed))
    }

    /// The public half.
    #[must_use]
    pub fn verifying_key(&self) -> VerifyingKey {
        VerifyingKey(self.0.verifying_key())
    }

    /// Signs `parts`, in order, for one purpose.
    #[must_use]
    pub fn sign(&self, purpose: Purpose, parts: &[&[u8]]) -> [u8; SIGNATURE_LEN] {
        self.0.sign(&labelled(purpose, parts)).to_bytes()
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey(..)")
    }
}

/// A public signing key that is a valid point and not a weak one. Parsing costs microseconds: keep it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct VerifyingKey(ed25519_dalek::VerifyingKey);

impl VerifyingKey {
    /// Parses 32 bytes.
    ///
    /// # Errors
    /// [`KeyError`] when they are not a point of the curve, or one of small order, under which signatures on
    /// anything could be made.
    pub fn parse(bytes: &[u8; PUBLIC_KEY_LEN]) -> Result<Self, KeyError> {
        let key = ed25519_dalek::VerifyingKey::from_bytes(bytes).map_err(|_| KeyError::NotAPoint)?;
        if key.is_weak() {
            return Err(KeyError::Weak);
        }
        Ok(Self(key))
    }

    /// The key's bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; PUBLIC_KEY_LEN] {
        self.0.as_bytes()
    }

    /// Verifies a signature over `parts`, strictly.
    ///
    /// # Errors
    /// [`SignatureError`] when it was made by another key, for another purpose, over other bytes, or in a form that
    /// only a lenient verifier accepts.
    pub fn verify(
        &self,
        purpose: Purpose,
        parts: &[&[u8]],
        signature: &[u8; SIGNATURE_LEN],
    ) -> Result<(), SignatureError> {
        let signature = ed25519_dalek::Signature::from_bytes(signature);
        self.0.verify_strict(&labelled(purpose, parts), &signature).map_err(|_| SignatureError)
    }

    /// The key id that this key has as a key of `principal`.
    #[must_use]
    pub fn kid(&self, principal: &Principal) -> Kid {
        let mut input = Vec::with_capacity(2 + principal.as_str().len() + PUBLIC_KEY_LEN);
        input.bytes16(principal.as_str().as_bytes());
        input.raw(self.as_bytes());
        Kid::new(derive("sealbus/1 key id", &[&input]))
    }
}

impl fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("VerifyingKey(")?;
        self.as_bytes().iter().take(4).try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str("..)")
    }
}

/// `derive_key(label, parts)`: BLAKE3 in key derivation mode.
#[must_use]
pub fn derive(label: &'static str, parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key(label);
    for part in parts {
        hasher.update(part);
    }
    *hasher.finalize().as_bytes()
}

/// Why 32 bytes are not a signing key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyError {
    /// They do not encode a point of the curve.
    NotAPoint,
    /// They encode a point of small order.
    Weak,
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotAPoint => "the Ed25519 key is not a point of the curve",
            Self::Weak => "the Ed25519 key is weak (a point of small order)",
        })
    }
}

impl std::error::Error for KeyError {}

/// A signature that does not verify. Why is not said: nobody can learn anything from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SignatureError;

impl fmt::Display for SignatureError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the signature does not verify")
    }
}

impl std::error::Error for SignatureError {}

fn labelled(purpose: Purpose, parts: &[&[u8]]) -> Vec<u8> {
    let label = purpose.label();
    let mut message = Vec::with_capacity(label.len() + parts.iter().map(|part| part.len()).sum::<usize>());
    message.raw(label);
    parts.iter().for_each(|part| message.raw(part));
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The identity and the other points of small order, and one that is no point at all.
    #[test]
    fn weak_keys_and_non_points_are_refused() {
        let mut identity = [0; 32];
        identity[0] = 1;
        let order_four = [0; 32];
        let order_eight = [
            0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67, 0x0f,
            0x2a, 0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03, 0x7a,
        ];
        assert_eq!(VerifyingKey::parse(&identity), Err(KeyError::Weak));
        assert_eq!(VerifyingKey::parse(&order_four), Err(KeyError::Weak));
        assert_eq!(VerifyingKey::parse(&order_eight), Err(KeyError::Weak));
        let mut two = [0; 32];
        two[0] = 2;
        assert_eq!(VerifyingKey::parse(&two), Err(KeyError::NotAPoint));
    }

    #[test]
    fn a_signature_holds_for_its_purpose_and_its_bytes_only() {
        let key = SigningKey::from_seed(&Zeroizing::new([7; 32]));
        let signature = key.sign(Purpose::Batch, &[b"ab", b"c"]);
        let public = key.verifying_key();
        assert_eq!(public.verify(Purpose::Batch, &[b"abc"], &signature), Ok(()));
        assert_eq!(public.verify(Purpose::Session, &[b"abc"], &signature), Err(SignatureError));
        assert_eq!(public.verify(Purpose::Batch, &[b"abd"], &signature), Err(SignatureError));
        for byte in 0..SIGNATURE_LEN {
            let mut forged = signature;
            forged[byte] ^= 1;
            assert_eq!(public.verify(Purpose::Batch, &[b"abc"], &forged), Err(SignatureError), "byte {byte}");
        }
    }

    #[test]
    fn a_private_key_prints_nothing() {
        let key = SigningKey::from_seed(&Zeroizing::new([7; 32]));
        assert_eq!(format!("{key:?}"), "SigningKey(..)");
    }

    #[test]
    fn one_key_has_another_id_for_each_principal() {
        let key = SigningKey::from_seed(&Zeroizing::new([7; 32])).verifying_key();
        let anna = Principal::parse("spiffe://a.example/anna").unwrap();
        let ben = Principal::parse("spiffe://a.example/ben").unwrap();
        assert_ne!(key.kid(&anna), key.kid(&ben));
    }
}
