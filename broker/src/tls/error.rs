//! What is wrong with a listener's files.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use sealbus_protocol::identity::{CertificateError, TrustError};

/// Why a listener has no TLS material. Names the file, and never repeats what is in it (FAILURES T50).
#[derive(Debug)]
pub struct TlsError {
    path: PathBuf,
    problem: FileProblem,
}

/// What is wrong with a file.
#[derive(Debug)]
pub enum FileProblem {
    /// It cannot be read.
    Read(io::Error),
    /// It is not well-formed PEM.
    Pem,
    /// It holds no certificate.
    NoCertificate,
    /// It holds no private key.
    NoKey,
    /// It holds no revocation list, which would mean "nothing is revoked".
    NoRevocationList,
    /// Others than its owner may read or change it.
    Exposed {
        /// Its permission bits.
        mode: u32,
    },
    /// Its private key is of a kind that is not supported, or damaged.
    Key,
    /// Its private key is not that of the certificate.
    KeyMismatch {
        /// The certificate's file.
        certificate: PathBuf,
    },
    /// Its first certificate is not one that we read.
    Certificate(CertificateError),
    /// Its first certificate is a certificate authority's.
    Authority,
    /// Its first certificate has ended.
    Expired {
        /// When.
        not_after_ms: u64,
    },
    /// Its first certificate has not begun.
    NotYetValid {
        /// When it begins.
        not_before_ms: u64,
    },
    /// Its certificates do not serve as roots.
    Roots(TrustError),
    /// The TLS stack refuses what it holds.
    Refused(rustls::Error),
    /// One of its revocation lists is damaged or of a kind that is not supported.
    RevocationList(rustls::Error),
}

impl TlsError {
    pub(super) fn new(path: &Path, problem: FileProblem) -> Self {
        Self { path: path.to_owned(), problem }
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is wrong with it.
    #[must_use]
    pub const fn problem(&self) -> &FileProblem {
        &self.problem
    }
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.problem)
    }
}

impl fmt::Display for FileProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(error) => write!(f, "cannot be read: {error}"),
            Self::Pem => f.write_str("is not well-formed pem"),
            Self::NoCertificate => f.write_str("holds no certificate in pem form"),
            Self::NoKey => f.write_str("holds no private key in pem form"),
            Self::NoRevocationList => f.write_str("holds no revocation list in pem or der form"),
            Self::Exposed { mode } => write!(
                f,
                "has the mode {mode:04o}, and a private key must be out of reach for group and others: chmod 600"
            ),
            Self::Key => f.write_str("the private key is damaged or of a kind that is not supported"),
            Self::KeyMismatch { certificate } => {
                write!(f, "the private key does not belong to the certificate in {}", certificate.display())
            }
            Self::Certificate(error) => write!(f, "the first certificate is refused: {error}"),
            Self::Authority => f.write_str(
                "the first certificate is a certificate authority's, the broker's own was expected",
            ),
            Self::Expired { not_after_ms } => {
                write!(f, "the broker's certificate ended at unix time {}", not_after_ms / 1_000)
            }
            Self::NotYetValid { not_before_ms } => {
                write!(f, "the broker's certificate begins at unix time {}", not_before_ms / 1_000)
            }
            Self::Roots(error) => error.fmt(f),
            Self::Refused(error) => write!(f, "is refused by the tls stack: {error}"),
            Self::RevocationList(error) => {
                write!(f, "a revocation list is damaged or of a kind that is not supported: {error}")
            }
        }
    }
}

impl std::error::Error for TlsError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.problem {
            FileProblem::Read(error) => Some(error),
            FileProblem::Certificate(error) => Some(error),
            FileProblem::Roots(error) => Some(error),
            FileProblem::Refused(error) => Some(error),
            FileProblem::RevocationList(error) => Some(error),
            FileProblem::Pem
            | FileProblem::NoCertificate
            | FileProblem::NoKey
            | FileProblem::NoRevocationList
            | FileProblem::Exposed { .. }
            | FileProblem::Key
            | FileProblem::KeyMismatch { .. }
            | FileProblem::Authority
            | FileProblem::Expired { .. }
            | FileProblem::NotYetValid { .. } => None,
        }
    }
}
