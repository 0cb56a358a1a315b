//! Why configured roots are no trust domain, and why a chain proves nothing.

use std::fmt;

use rustls_pki_types::UnixTime;

use crate::limits::{CERTIFICATE_BYTES_MAX, CHAIN_CERTIFICATES_MAX};

use super::certificate::CertificateError;
use super::leaf::IdentityError;
use super::principal::{Principal, PrincipalSource};

/// Why roots are not a trust domain, or domains not a store. The fault is in the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TrustError {
    /// The domain's name has characters that no trust domain has.
    Name {
        /// The name.
        name: Box<str>,
    },
    /// The domain has no root.
    NoRoot {
        /// The domain.
        domain: Box<str>,
    },
    /// One of the domain's roots cannot be one.
    Root {
        /// The domain.
        domain: Box<str>,
        /// Which root, from 0.
        place: usize,
        /// What is wrong with it.
        problem: RootProblem,
    },
    /// Revocation by list was asked for, with no list.
    NoRevocationList {
        /// The domain.
        domain: Box<str>,
    },
    /// The store has no domain.
    NoDomain,
    /// Two domains claim the same principals.
    SecondDomain {
        /// The later one's name.
        name: Box<str>,
        /// The source that both read.
        source: PrincipalSource,
    },
}

/// What is wrong with a root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RootProblem {
    /// It is not a certificate that we read.
    Certificate(CertificateError),
    /// It may not issue certificates.
    NotCa,
    /// The path verifier refuses it.
    Anchor(webpki::Error),
}

impl fmt::Display for TrustError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name { name } => {
                write!(
                    f,
                    "{name:?} does not name a trust domain, which is made of a-z, 0-9, '.', '_' and '-'"
                )
            }
            Self::NoRoot { domain } => write!(f, "trust domain {domain} has no root certificate"),
            Self::Root { domain, place, problem } => {
                write!(f, "root certificate {} of trust domain {domain} is refused: {problem}", place + 1)
            }
            Self::NoRevocationList { domain } => {
                write!(f, "trust domain {domain} asks for revocation by list and has no list")
            }
            Self::NoDomain => {
                f.write_str("no trust domain is configured, so that nobody could be recognised")
            }
            Self::SecondDomain { name, source } => {
                write!(f, "trust domain {name} claims principals of source {source} that another one has")
            }
        }
    }
}

impl std::error::Error for TrustError {}

impl fmt::Display for RootProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Certificate(error) => error.fmt(f),
            Self::NotCa => f.write_str("it is not a certificate authority's"),
            Self::Anchor(error) => write!(f, "it does not serve as a root ({error})"),
        }
    }
}

/// Why a chain does not prove a principal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChainError {
    /// It has no certificate.
    Empty,
    /// It has more than [`CHAIN_CERTIFICATES_MAX`] certificates.
    TooMany {
        /// How many.
        found: usize,
    },
    /// A certificate in it is longer than [`CERTIFICATE_BYTES_MAX`].
    TooLong {
        /// Its place, from 0, the leaf.
        place: usize,
        /// Its bytes.
        found: usize,
    },
    /// There are no roots for the principal's trust domain.
    UnknownDomain {
        /// The principal.
        principal: Principal,
    },
    /// The leaf does not name a principal.
    Identity(IdentityError),
    /// The leaf names a principal of another trust domain than the one whose roots were asked.
    ForeignDomain {
        /// The domain whose roots were asked.
        domain: Box<str>,
        /// The principal that the leaf names.
        found: Principal,
    },
    /// The leaf names another principal than the one that was stated.
    OtherPrincipal {
        /// The one that was stated.
        stated: Principal,
        /// The one that the leaf names.
        found: Principal,
    },
    /// The leaf, or a certificate above it, is not for use by TLS clients.
    NotForClients,
    /// A certificate of the chain is not valid any more.
    Expired {
        /// When it ended.
        not_after_ms: u64,
    },
    /// A certificate of the chain is not valid yet.
    NotYetValid {
        /// When it begins.
        not_before_ms: u64,
    },
    /// The chain does not lead to a root of the domain.
    UnknownIssuer,
    /// A certificate's signature does not verify by its issuer's key.
    Signature,
    /// A certificate, a list or a key is of an algorithm that is not accepted.
    Algorithm,
    /// A certificate was revoked.
    Revoked,
    /// No revocation list speaks for a certificate of the chain.
    RevocationUnknown,
    /// The revocation list that speaks for a certificate has run out.
    RevocationListExpired {
        /// When a newer one was due.
        next_update_ms: u64,
    },
    /// An issuer may not issue for the leaf's names.
    NameConstraint,
    /// A certificate that may not issue stands where an issuer should, or further from the leaf than it may.
    IssuerNotCa,
    /// The path verifier refuses it for another reason.
    Path(webpki::Error),
}

impl ChainError {
    /// One word for the error, the same in every version: for audit records and test vectors.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Empty | Self::TooMany { .. } | Self::TooLong { .. } => "chain-size",
            Self::UnknownDomain { .. } => "unknown-domain",
            Self::Identity(error) => error.word(),
            Self::ForeignDomain { .. } => "foreign-domain",
            Self::OtherPrincipal { .. } => "other-principal",
            Self::NotForClients => "not-for-clients",
            Self::Expired { .. } => "expired",
            Self::NotYetValid { .. } => "not-yet-valid",
            Self::UnknownIssuer => "unknown-issuer",
            Self::Signature => "chain-signature",
            Self::Algorithm => "algorithm",
            Self::Revoked => "revoked",
            Self::RevocationUnknown => "revocation-unknown",
            Self::RevocationListExpired { .. } => "revocation-list-expired",
            Self::NameConstraint => "name-constraint",
            Self::IssuerNotCa => "issuer-not-ca",
            Self::Path(_) => "path",
        }
    }

    /// The verifier's errors are open-ended; those that a person meets get words of their own.
    pub(super) fn from_path(error: webpki::Error) -> Self {
        use webpki::Error as Path;
        match error {
            Path::CertExpired { not_after, .. } => Self::Expired { not_after_ms: unix_ms(not_after) },
            Path::CertNotValidYet { not_before, .. } => {
                Self::NotYetValid { not_before_ms: unix_ms(not_before) }
            }
            Path::RequiredEkuNotFoundContext(_) | Path::EmptyEkuExtension => Self::NotForClients,
            Path::UnknownIssuer => Self::UnknownIssuer,
            Path::InvalidSignatureForPublicKey | Path::InvalidCrlSignatureForPublicKey => Self::Signature,
            Path::UnsupportedSignatureAlgorithmContext(_)
            | Path::UnsupportedSignatureAlgorithmForPublicKeyContext(_)
            | Path::UnsupportedCrlSignatureAlgorithmContext(_)
            | Path::UnsupportedCrlSignatureAlgorithmForPublicKeyContext(_) => Self::Algorithm,
            Path::CertRevoked => Self::Revoked,
            Path::UnknownRevocationStatus => Self::RevocationUnknown,
            Path::CrlExpired { next_update, .. } => {
                Self::RevocationListExpired { next_update_ms: unix_ms(next_update) }
            }
            Path::NameConstraintViolation => Self::NameConstraint,
            Path::EndEntityUsedAsCa | Path::PathLenConstraintViolated => Self::IssuerNotCa,
            Path::CaUsedAsEndEntity => Self::Identity(IdentityError::Ca),
            other => Self::Path(other),
        }
    }
}

impl fmt::Display for ChainError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("the certificate chain is empty"),
            Self::TooMany { found } => {
                write!(f, "a chain has at most {CHAIN_CERTIFICATES_MAX} certificates, found {found}")
            }
            Self::TooLong { place, found } => write!(
                f,
                "certificate {place} of the chain has {found} bytes, the limit is {CERTIFICATE_BYTES_MAX}"
            ),
            Self::UnknownDomain { principal } => {
                write!(f, "no root is configured for the trust domain of {principal}")
            }
            Self::Identity(error) => error.fmt(f),
            Self::ForeignDomain { domain, found } => {
                write!(f, "the certificate names {found}, for whom the roots of {domain} do not speak")
            }
            Self::OtherPrincipal { stated, found } => {
                write!(f, "{stated} was stated, the certificate names {found}")
            }
            Self::NotForClients => f.write_str("the certificate is not for use by tls clients"),
            Self::Expired { not_after_ms } => {
                write!(f, "a certificate of the chain ended at unix time {}", not_after_ms / 1_000)
            }
            Self::NotYetValid { not_before_ms } => {
                write!(f, "a certificate of the chain begins at unix time {}", not_before_ms / 1_000)
            }
            Self::UnknownIssuer => f.write_str("the chain does not lead to a root of its trust domain"),
            Self::Signature => f.write_str("a signature in the chain does not verify"),
            Self::Algorithm => {
                f.write_str("a signature in the chain is of an algorithm that is not accepted")
            }
            Self::Revoked => f.write_str("a certificate of the chain was revoked"),
            Self::RevocationUnknown => {
                f.write_str("no revocation list speaks for a certificate of the chain")
            }
            Self::RevocationListExpired { next_update_ms } => {
                write!(f, "the revocation list ran out at unix time {}", next_update_ms / 1_000)
            }
            Self::NameConstraint => {
                f.write_str("an issuer in the chain may not issue for the certificate's names")
            }
            Self::IssuerNotCa => f.write_str("a certificate in the chain may not issue the one before it"),
            Self::Path(error) => write!(f, "the chain is refused ({error})"),
        }
    }
}

impl std::error::Error for ChainError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Identity(error) => Some(error),
            Self::Path(error) => Some(error),
            Self::Empty
            | Self::TooMany { .. }
            | Self::TooLong { .. }
            | Self::UnknownDomain { .. }
            | Self::ForeignDomain { .. }
            | Self::OtherPrincipal { .. }
            | Self::NotForClients
            | Self::Expired { .. }
            | Self::NotYetValid { .. }
            | Self::UnknownIssuer
            | Self::Signature
            | Self::Algorithm
            | Self::Revoked
            | Self::RevocationUnknown
            | Self::RevocationListExpired { .. }
            | Self::NameConstraint
            | Self::IssuerNotCa => None,
        }
    }
}

impl From<IdentityError> for ChainError {
    fn from(error: IdentityError) -> Self {
        Self::Identity(error)
    }
}

fn unix_ms(time: UnixTime) -> u64 {
    time.as_secs().saturating_mul(1_000)
}
