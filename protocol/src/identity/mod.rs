//! From a verified certificate to exactly one principal.
//!
//! Read in this order: [`Principal`] (the name of a peer), [`CertificateFacts`] (what a certificate says),
//! [`principal_of`] (the one principal that it says), [`TrustStore`] (whose word that is taken on). A principal that
//! came out of a [`VerifiedLeaf`] is proven; one that was only parsed is a claim.

mod certificate;
mod der;
mod distinguished_name;
mod leaf;
mod principal;
mod trust;
mod trust_error;
mod validity;

#[cfg(test)]
mod matrix;
#[cfg(test)]
pub(crate) mod test_pki;

pub use certificate::{
    AttributeValue, Authority, CertificateError, CertificateFacts, ClientAuth, SerialNumber,
};
pub use der::DerError;
pub use leaf::{IdentityError, principal_of};
pub use principal::{Principal, PrincipalError, PrincipalSource, check_trust_domain};
pub use trust::{TrustDomain, TrustStore, VerifiedChain, VerifiedLeaf};
pub use trust_error::{ChainError, RootProblem, TrustError};
pub use validity::Validity;
