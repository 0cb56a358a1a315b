//! Keys that sign notes, drawn by `sealbus init`.

use sealbus_protocol::keys::SigningKey;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::pki::PkiError;
use crate::{base64, text};

/// An Ed25519 key in the line forms of C2SP signed notes. The broker's signs the checkpoints of streams; with the
/// operator's, a later version signs policies.
///
/// ```text
///   PRIVATE+KEY+name+hex8+base64(01 seed)     hex8: the first four bytes of SHA-256(name 0a 01 public key)
///   name+hex8+base64(01 public key)
/// ```
pub(super) struct SigningKeyLines {
    /// The private line, for a file that nobody else may read.
    pub(super) private: Zeroizing<String>,
    /// The verifier's line.
    pub(super) public: String,
    /// The public key alone, in base64.
    pub(super) public_key: String,
}

/// The type byte of Ed25519 in signed notes.
const ED25519: u8 = 0x01;

impl SigningKeyLines {
    /// A fresh key.
    pub(super) fn new(name: &str) -> Result<Self, PkiError> {
        let mut seed = Zeroizing::new([0; 32]);
        getrandom::fill(&mut *seed).map_err(PkiError::Random)?;
        Ok(Self::of_seed(name, &seed))
    }

    fn of_seed(name: &str, seed: &Zeroizing<[u8; 32]>) -> Self {
        let public = *SigningKey::from_seed(seed).verifying_key().as_bytes();
        let mut hash = Sha256::new();
        hash.update(name.as_bytes());
        hash.update([b'\n', ED25519]);
        hash.update(public);
        let id = text::hex(hash.finalize().get(..4).expect("a SHA-256 has more than four bytes"));
        let typed = |key: &[u8; 32]| {
            let mut bytes = Zeroizing::new(Vec::with_capacity(33));
            bytes.push(ED25519);
            bytes.extend_from_slice(key);
            Zeroizing::new(base64::encode(&bytes))
        };
        Self {
            private: Zeroizing::new(format!("PRIVATE+KEY+{name}+{id}+{}\n", *typed(seed))),
            public: format!("{name}+{id}+{}", *typed(&public)),
            public_key: base64::encode(&public),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The keys of a C2SP signed note: the private one and its verifier line.
    #[test]
    fn a_signing_key_has_the_lines_that_other_tools_read() {
        let seed: [u8; 32] = std::array::from_fn(|index| u8::try_from(index).unwrap());
        let lines = SigningKeyLines::of_seed("broker.example/audit", &Zeroizing::new(seed));
        assert_eq!(
            lines.public,
            "broker.example/audit+ba46f2a9+AQOhB7/zzhC+HXDdGOdLwJln5NYwm6UNXx3chmQSVTG4"
        );
        assert_eq!(
            *lines.private,
            "PRIVATE+KEY+broker.example/audit+ba46f2a9+AQABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f\n"
        );
        assert_eq!(lines.public_key, "A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg=");
    }
}
