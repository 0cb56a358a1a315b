//! TLS 1.3 with certificates on both sides, and what a verified client certificate proves.
//!
//! ```text
//!  files --load--> TlsMaterial --server--> handshake --check_peer--> VerifiedLeaf (principal, dates)
//!                                      \--describe_handshake_error--> HandshakeFailure (for log and audit)
//! ```
//!
//! No resumption and no early data: a resumed session would not meet the verifier, and a revoked certificate would be
//! accepted (FAILURES T9). Nothing here is optional: a file that is missing, empty or not what it should be is an
//! error, and the caller keeps the material that it has (FAILURES T7, T8).

mod error;
mod handshake;
mod load;
mod material;

#[cfg(test)]
mod test_pki;
#[cfg(test)]
mod tests;

pub use error::{FileProblem, TlsError};
pub use handshake::{DETAIL_CHARACTERS_MAX, HandshakeFailure, describe_handshake_error};
pub use load::load;
pub use material::{BindingRefused, PeerError, SHORT_LIVED_MS_MAX, TlsMaterial};
