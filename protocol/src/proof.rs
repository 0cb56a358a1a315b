//! The session proof: the signing key speaks on this very TLS connection.
//!
//! ```text
//! Ed25519 over  "sealbus/1 session\0" | 32 exporter | 16 bus_id | fields
//! ```
//!
//! `exporter` is what both ends of one TLS connection, and nobody else, derive from it (RFC 8446 section 7.5) under
//! the label below, so that a proof that was overheard or forwarded means nothing on another connection. `fields` are
//! the bytes of HELLO between `bus_id` and the proof, as they are on the wire.

use std::fmt;

use zeroize::Zeroize;

use crate::ids::BusId;
use crate::keys::{Purpose, SIGNATURE_LEN, SignatureError, SigningKey, VerifyingKey};

/// The label under which both ends export, without context.
pub const EXPORTER_LABEL: &[u8] = b"EXPORTER-sealbus-session";

/// Bytes that are exported.
pub const EXPORTER_LEN: usize = 32;

/// What one TLS connection exports for the session proof. Wiped when dropped; prints nothing of itself.
#[derive(Clone)]
pub struct Exporter([u8; EXPORTER_LEN]);

impl Exporter {
    /// The bytes that the TLS library exported.
    #[must_use]
    pub const fn new(bytes: [u8; EXPORTER_LEN]) -> Self {
        Self(bytes)
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for Exporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Exporter(..)")
    }
}

/// Proves that `key` opens a session with these fields, on this bus, on this connection.
#[must_use]
pub fn sign(key: &SigningKey, exporter: &Exporter, bus_id: &BusId, fields: &[u8]) -> [u8; SIGNATURE_LEN] {
    key.sign(Purpose::Session, &[&exporter.0, bus_id.as_bytes(), fields])
}

/// Verifies a proof that [`sign`] made.
///
/// # Errors
/// [`SignatureError`] when another key made it, or the same for other fields, another bus or another connection.
pub fn verify(
    key: &VerifyingKey,
    exporter: &Exporter,
    bus_id: &BusId,
    fields: &[u8],
    proof: &[u8; SIGNATURE_LEN],
) -> Result<(), SignatureError> {
    key.verify(Purpose::Session, &[&exporter.0, bus_id.as_bytes(), fields], proof)
}

#[cfg(test)]
mod tests {
    use zeroize::Zeroizing;

    use super::*;

    #[test]
    fn a_proof_holds_for_one_key_connection_bus_and_hello() {
        let key = SigningKey::from_seed(&Zeroizing::new([7; 32]));
        let other = SigningKey::from_seed(&Zeroizing::new([8; 32]));
        let exporter = Exporter::new([1; 32]);
        let bus = BusId::new([2; 16]);
        let proof = sign(&key, &exporter, &bus, b"fields");
        let public = key.verifying_key();
        assert_eq!(verify(&public, &exporter, &bus, b"fields", &proof), Ok(()));
        for (case, found) in [
            ("another key", verify(&other.verifying_key(), &exporter, &bus, b"fields", &proof)),
            ("another connection", verify(&public, &Exporter::new([3; 32]), &bus, b"fields", &proof)),
            ("another bus", verify(&public, &exporter, &BusId::new([3; 16]), b"fields", &proof)),
            ("other fields", verify(&public, &exporter, &bus, b"fieldz", &proof)),
            ("fewer fields", verify(&public, &exporter, &bus, b"field", &proof)),
            ("no fields", verify(&public, &exporter, &bus, b"", &proof)),
        ] {
            assert_eq!(found, Err(SignatureError), "{case}");
        }
    }

    #[test]
    fn every_byte_of_a_proof_counts() {
        let key = SigningKey::from_seed(&Zeroizing::new([7; 32]));
        let (exporter, bus) = (Exporter::new([1; 32]), BusId::new([2; 16]));
        let proof = sign(&key, &exporter, &bus, b"fields");
        for byte in 0..proof.len() {
            let mut forged = proof;
            forged[byte] ^= 0x80;
            assert!(
                verify(&key.verifying_key(), &exporter, &bus, b"fields", &forged).is_err(),
                "byte {byte}"
            );
        }
    }

    #[test]
    fn an_exporter_prints_nothing() {
        assert_eq!(format!("{:?}", Exporter::new([0xab; 32])), "Exporter(..)");
    }
}
