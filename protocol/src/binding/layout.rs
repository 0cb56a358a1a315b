//! The bytes of a key binding, taken apart.

use bytes::Bytes;
use rustls_pki_types::CertificateDer;

use crate::identity::{Principal, Validity};
use crate::keys::{PUBLIC_KEY_LEN, SIGNATURE_LEN};
use crate::limits::{BINDING_BYTES_MAX, CERTIFICATE_BYTES_MAX, CHAIN_CERTIFICATES_MAX, PRINCIPAL_BYTES_MAX};
use crate::wire::{DecodeError, Reader};

use super::scheme::TlsScheme;

/// The bytes that a key binding begins with. The digit is its version.
pub const MAGIC: &[u8; 4] = b"SBK1";

/// Bytes of the leaf's signature. RSA with 8,192 bits, the largest that is verified here, makes as many.
pub const TLS_SIGNATURE_BYTES_MAX: usize = 1_024;

/// The kem of a binding that has none.
pub(super) const KEM_NONE: u16 = 0;

/// X-Wing, by its HPKE number.
pub(super) const KEM_X_WING: u16 = 0x647a;

/// Bytes of an X-Wing public key.
pub(super) const X_WING_KEY_LEN: usize = 1_216;

/// A key binding that has the right form. Everything that it says is a claim.
///
/// It keeps the bytes that arrived, and its parts are slices of them: cloning copies no bytes.
#[derive(Debug, Clone)]
pub struct KeyBinding {
    pub(super) bytes: Bytes,
    pub(super) principal: Principal,
    pub(super) validity: Validity,
    pub(super) key: [u8; PUBLIC_KEY_LEN],
    pub(super) kem: Option<KemKey>,
    pub(super) chain: Vec<Bytes>,
    pub(super) scheme: TlsScheme,
    pub(super) tls_signature: Bytes,
}

/// A public key for sealing to its owner. Kept as it is; nothing here uses it yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KemKey {
    /// X-Wing (ML-KEM-768 with X25519), 1,216 bytes.
    XWing(Bytes),
}

impl KeyBinding {
    /// Decodes a binding that arrived.
    ///
    /// # Errors
    /// [`DecodeError`] when the bytes are not exactly one binding of this version.
    pub fn decode(bytes: Bytes) -> Result<Self, DecodeError> {
        if bytes.len() > BINDING_BYTES_MAX {
            let found = bytes.len();
            return Err(DecodeError::TooLong { field: "key binding", max: BINDING_BYTES_MAX, found });
        }
        let mut reader = Reader::new(&bytes);
        if reader.array("binding magic")? != *MAGIC {
            return Err(DecodeError::Value { field: "binding magic" });
        }
        reader.zeros("binding flags", 2)?;
        let validity = Validity {
            not_before_ms: reader.u64("binding not_before_ms")?,
            not_after_ms: reader.u64("binding not_after_ms")?,
        };
        if validity.not_before_ms > validity.not_after_ms {
            return Err(DecodeError::Value { field: "binding not_after_ms" });
        }
        let principal = Principal::parse(reader.text16("binding principal", PRINCIPAL_BYTES_MAX)?)
            .map_err(|_| DecodeError::Value { field: "binding principal" })?;
        let key = reader.array("binding signing key")?;
        let kem = decode_kem(&bytes, &mut reader)?;
        let chain = decode_chain(&bytes, &mut reader)?;
        let scheme = TlsScheme::from_code(reader.u16("binding signature scheme")?)
            .ok_or(DecodeError::Value { field: "binding signature scheme" })?;
        let tls_signature = reader.bytes16("binding tls signature", TLS_SIGNATURE_BYTES_MAX)?;
        let tls_signature = bytes.slice_ref(tls_signature);
        reader.take("binding possession signature", SIGNATURE_LEN)?;
        reader.finish()?;
        Ok(Self { principal, validity, key, kem, chain, scheme, tls_signature, bytes })
    }

    /// The bytes that arrived.
    #[must_use]
    pub const fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Who claims the key.
    #[must_use]
    pub const fn principal(&self) -> &Principal {
        &self.principal
    }

    /// When the binding claims to hold.
    #[must_use]
    pub const fn validity(&self) -> Validity {
        self.validity
    }

    /// The certificates, leaf first.
    pub fn chain(&self) -> impl ExactSizeIterator<Item = CertificateDer<'_>> {
        self.chain.iter().map(|certificate| CertificateDer::from(&**certificate))
    }

    /// All that the Ed25519 key signs, and its signature.
    pub(super) fn split_possession(&self) -> (&[u8], &[u8; SIGNATURE_LEN]) {
        self.bytes.split_last_chunk().expect("a decoded binding ends with a signature")
    }

    /// All that the leaf's key signs: what comes before the scheme.
    pub(super) fn signed_by_leaf(&self) -> &[u8] {
        let after = 2 + 2 + self.tls_signature.len() + SIGNATURE_LEN;
        let (before, _) = self.bytes.split_at(self.bytes.len() - after);
        before
    }
}

fn decode_kem(bytes: &Bytes, reader: &mut Reader<'_>) -> Result<Option<KemKey>, DecodeError> {
    let kem = reader.u16("binding kem")?;
    let key = reader.bytes16("binding kem key", X_WING_KEY_LEN)?;
    match (kem, key.len()) {
        (KEM_NONE, 0) => Ok(None),
        (KEM_X_WING, X_WING_KEY_LEN) => Ok(Some(KemKey::XWing(bytes.slice_ref(key)))),
        (KEM_NONE | KEM_X_WING, _) => Err(DecodeError::Value { field: "binding kem key" }),
        _ => Err(DecodeError::Value { field: "binding kem" }),
    }
}

fn decode_chain(bytes: &Bytes, reader: &mut Reader<'_>) -> Result<Vec<Bytes>, DecodeError> {
    let count = usize::from(reader.u8("binding certificates")?);
    if count > CHAIN_CERTIFICATES_MAX {
        let max = CHAIN_CERTIFICATES_MAX;
        return Err(DecodeError::TooLong { field: "binding certificates", max, found: count });
    }
    if count == 0 {
        return Err(DecodeError::Value { field: "binding certificates" });
    }
    (0..count)
        .map(|_| reader.bytes32("binding certificate", CERTIFICATE_BYTES_MAX))
        .map(|certificate| certificate.map(|certificate| bytes.slice_ref(certificate)))
        .collect()
}
