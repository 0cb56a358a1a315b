//! The one principal that a leaf certificate names.
//!
//! One source is asked and no other: a certificate without the name that its listener or trust domain reads is refused,
//! whatever other names it has. Exactly one name of that kind is allowed, because "the first" is a different name to
//! every reader.

use std::fmt;

use super::certificate::{Authority, CertificateError, CertificateFacts};
use super::principal::{Principal, PrincipalError, PrincipalSource};

/// Characters of a certificate's name that a refusal repeats.
const SHOWN_CHARACTERS_MAX: usize = 100;

/// The principal that this leaf certificate states in the given source. A claim until its chain has been verified:
/// for that, [`super::TrustStore`].
///
/// # Errors
/// [`IdentityError`] says what was found instead of exactly one well-formed name in a certificate that is not a CA's.
pub fn principal_of(leaf_der: &[u8], source: PrincipalSource) -> Result<Principal, IdentityError> {
    CertificateFacts::parse(leaf_der)?.principal(source)
}

impl CertificateFacts<'_> {
    /// The principal that this certificate, as a leaf, states in the given source.
    ///
    /// # Errors
    /// As [`principal_of`].
    pub fn principal(&self, source: PrincipalSource) -> Result<Principal, IdentityError> {
        match self.authority {
            Authority::EndEntity => {}
            Authority::Ca => return Err(IdentityError::Ca),
        }
        let (prefix, name) = match source {
            PrincipalSource::Spiffe => ("", only(source, &self.uri_names)?),
            PrincipalSource::Dns => ("dns:", only(source, &self.dns_names)?),
            PrincipalSource::CommonName => {
                let value = only(source, &self.common_names)?;
                ("cn:", value.text().ok_or(IdentityError::StringType { tag: value.tag() })?)
            }
        };
        let refuse = |error| IdentityError::Name { source, shown: shown(name), error };
        let principal = Principal::parse(&format!("{prefix}{name}")).map_err(refuse)?;
        // A URI may well read "dns:orders": a name of one source must not pass for a name of another.
        if principal.source() != source {
            return Err(refuse(PrincipalError::Source));
        }
        Ok(principal)
    }
}

/// Why a leaf certificate does not name a principal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IdentityError {
    /// It cannot be read.
    Certificate(CertificateError),
    /// It belongs to a certificate authority.
    Ca,
    /// It has none, or more than one, of the names that the source reads.
    Names {
        /// The source that was asked.
        source: PrincipalSource,
        /// How many names of that kind it has.
        found: usize,
    },
    /// Its common name is of a string type that is not read here, or not what its type allows.
    StringType {
        /// The DER tag of the type.
        tag: u8,
    },
    /// Its only name is not a principal of that source.
    Name {
        /// The source that was asked.
        source: PrincipalSource,
        /// The beginning of the name, escaped.
        shown: Box<str>,
        /// Which rule it breaks.
        error: PrincipalError,
    },
}

impl IdentityError {
    /// One word for the error, the same in every version: for audit records and test vectors.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Certificate(_) => "leaf-unreadable",
            Self::Ca => "leaf-ca",
            Self::Names { .. } => "leaf-names",
            Self::StringType { .. } => "leaf-string-type",
            Self::Name { .. } => "leaf-name",
        }
    }
}

impl fmt::Display for IdentityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Certificate(error) => error.fmt(f),
            Self::Ca => f.write_str("the certificate is a certificate authority's, which nobody acts as"),
            Self::Names { source, found } => {
                write!(f, "the certificate has {found} {}, exactly one was expected", noun(*source))
            }
            Self::StringType { tag } => write!(
                f,
                "the certificate's common name is not a well-formed UTF8String or PrintableString (tag {tag:02x})"
            ),
            Self::Name { source, shown, error } => {
                write!(
                    f,
                    "the certificate's only name among its {}, \"{shown}\", is refused: {error}",
                    noun(*source)
                )
            }
        }
    }
}

impl std::error::Error for IdentityError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Certificate(error) => Some(error),
            Self::Name { error, .. } => Some(error),
            Self::Ca | Self::Names { .. } | Self::StringType { .. } => None,
        }
    }
}

impl From<CertificateError> for IdentityError {
    fn from(error: CertificateError) -> Self {
        Self::Certificate(error)
    }
}

fn only<T: Copy>(source: PrincipalSource, names: &[T]) -> Result<T, IdentityError> {
    match names {
        [name] => Ok(*name),
        _ => Err(IdentityError::Names { source, found: names.len() }),
    }
}

const fn noun(source: PrincipalSource) -> &'static str {
    match source {
        PrincipalSource::Spiffe => "URI names",
        PrincipalSource::Dns => "DNS names",
        PrincipalSource::CommonName => "common names",
    }
}

fn shown(name: &str) -> Box<str> {
    let mut text: String = name.chars().take(SHOWN_CHARACTERS_MAX).flat_map(char::escape_debug).collect();
    if name.chars().nth(SHOWN_CHARACTERS_MAX).is_some() {
        text.push('…');
    }
    text.into()
}
