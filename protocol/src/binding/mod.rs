//! The key binding: a certificate's owner says which Ed25519 key signs its messages.
//!
//! ```text
//!       4  magic "SBK1"                                        ┐
//!       2  flags, 0                                            │
//!       8  not_before_ms                                       │
//!       8  not_after_ms                                        │
//!   2 + n  principal, UTF-8                                    │ signed by the leaf's key, behind
//!      32  Ed25519 public key                                  │ 64 x 0x20 | "sealbus/1 key binding\0"
//!       2  kem: 0 none, 0x647a X-Wing                          │
//!   2 + n  kem public key: 0 or 1,216 bytes                    │
//!       1  certificates, 1 to 4                                │
//!   4 + n  certificate DER, leaf first, so many times          ┘ ┐
//!       2  TLS SignatureScheme                                   │ all of this and all above is signed by the
//!   2 + n  signature by the leaf's key, at most 1,024 bytes      ┘ Ed25519 key, as "sealbus/1 key possession\0"
//!      64  Ed25519 signature
//! ```
//!
//! The leaf signs all before the scheme; the Ed25519 key signs the scheme and the leaf's signature too, so that no byte
//! of a binding is free. A binding is made once ([`BindingRequest`]), and then only carried, never encoded again.
//! Decoding ([`KeyBinding::decode`]) says that the bytes have this form; whether they are true is for
//! [`KeyBinding::verify_at`], which alone makes a [`VerifiedBinding`].

mod layout;
mod request;
mod scheme;
mod verified;

#[cfg(test)]
mod tests;

pub use layout::{KemKey, KeyBinding, MAGIC, TLS_SIGNATURE_BYTES_MAX};
pub use request::{BindingRequest, BindingRequestError};
pub use scheme::TlsScheme;
pub use verified::{BindingError, CHAIN_FRESH_MS, VerifiedBinding};
