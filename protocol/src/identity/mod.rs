//! From a verified certificate to exactly one principal.

mod principal;

pub use principal::{Principal, PrincipalError, PrincipalSource, check_trust_domain};
