//! Who acts: the one name of a peer, in the form that its certificate source gives it.

use std::fmt;
use std::sync::Arc;

use crate::limits::PRINCIPAL_BYTES_MAX;

/// Where in a certificate a listener or a trust domain reads the principal. One source each, and no fallback from
/// one to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PrincipalSource {
    /// The only URI in the subject alternative names, a SPIFFE ID.
    Spiffe,
    /// The only DNS name in the subject alternative names.
    Dns,
    /// The only common name of the subject.
    CommonName,
}

impl PrincipalSource {
    /// The word that configuration files use.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Spiffe => "spiffe",
            Self::Dns => "dns",
            Self::CommonName => "cn",
        }
    }
}

impl fmt::Display for PrincipalSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A principal: `spiffe://<trust-domain>/<path>`, `dns:<name>` or `cn:<name>`.
///
/// Opaque: it is compared byte for byte and never interpolated into a pattern. Cloning shares the text.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Principal {
    text: Arc<str>,
}

impl Principal {
    /// Parses the text form.
    ///
    /// # Errors
    /// [`PrincipalError`] says which rule of its source the text breaks.
    pub fn parse(text: &str) -> Result<Self, PrincipalError> {
        if text.len() > PRINCIPAL_BYTES_MAX {
            return Err(PrincipalError::TooLong { found: text.len() });
        }
        if let Some(rest) = text.strip_prefix("spiffe://") {
            check_spiffe(rest)?;
        } else if let Some(name) = text.strip_prefix("dns:") {
            check_dns(name)?;
        } else if let Some(name) = text.strip_prefix("cn:") {
            check_common_name(name)?;
        } else {
            return Err(PrincipalError::Source);
        }
        Ok(Self { text: text.into() })
    }

    /// The text form.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The source whose form this has.
    #[must_use]
    pub fn source(&self) -> PrincipalSource {
        if self.text.starts_with("spiffe://") {
            PrincipalSource::Spiffe
        } else if self.text.starts_with("dns:") {
            PrincipalSource::Dns
        } else {
            PrincipalSource::CommonName
        }
    }

    /// The SPIFFE trust domain, when the source is SPIFFE.
    #[must_use]
    pub fn trust_domain(&self) -> Option<&str> {
        let rest = self.text.strip_prefix("spiffe://")?;
        Some(rest.split_once('/').map_or(rest, |(domain, _)| domain))
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Principal({:?})", &*self.text)
    }
}

/// Why a text is not a principal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PrincipalError {
    /// It begins with none of `spiffe://`, `dns:` and `cn:`.
    Source,
    /// It is longer than [`PRINCIPAL_BYTES_MAX`].
    TooLong {
        /// Its bytes.
        found: usize,
    },
    /// The SPIFFE trust domain is empty or has a character outside `[a-z0-9._-]`.
    TrustDomain,
    /// The SPIFFE path is missing or has an empty or relative segment, or a character outside `[A-Za-z0-9._-]`.
    Path,
    /// The DNS name is not a sequence of lower-case labels, or holds a wildcard.
    DnsName,
    /// The common name is empty, or holds a control or invisible character or one of `* # + > / $ { }`.
    CommonName,
}

impl fmt::Display for PrincipalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Source => f.write_str("a principal begins with spiffe://, dns: or cn:"),
            Self::TooLong { found } => {
                write!(f, "a principal has at most {PRINCIPAL_BYTES_MAX} bytes, found {found}")
            }
            Self::TrustDomain => f.write_str("a SPIFFE trust domain is made of a-z, 0-9, '.', '_' and '-'"),
            Self::Path => f.write_str(
                "a SPIFFE path has segments of letters, digits, '.', '_' and '-', none of them empty, '.' or '..'",
            ),
            Self::DnsName => f.write_str("a DNS principal is one lower-case host name without wildcard"),
            Self::CommonName => f.write_str(
                "a common name is not empty and has no control or invisible character and none of * # + > / $ { }",
            ),
        }
    }
}

impl std::error::Error for PrincipalError {}

/// Checks a SPIFFE trust domain alone, as a listener's configuration names it.
///
/// # Errors
/// [`PrincipalError::TrustDomain`].
pub fn check_trust_domain(domain: &str) -> Result<(), PrincipalError> {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte);
    if domain.is_empty() || domain.len() > 255 || !domain.bytes().all(allowed) {
        return Err(PrincipalError::TrustDomain);
    }
    Ok(())
}

/// The character set of SPIFFE leaves no room for port, query, fragment, user information or percent-encoding.
fn check_spiffe(rest: &str) -> Result<(), PrincipalError> {
    let (domain, path) = rest.split_once('/').ok_or(PrincipalError::Path)?;
    check_trust_domain(domain)?;
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let segment_holds = |segment: &str| {
        !segment.is_empty() && segment != "." && segment != ".." && segment.bytes().all(allowed)
    };
    if !path.split('/').all(segment_holds) {
        return Err(PrincipalError::Path);
    }
    Ok(())
}

/// Lower case only: DNS compares without case, principals byte for byte.
fn check_dns(name: &str) -> Result<(), PrincipalError> {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte);
    let label_holds = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(allowed)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if name.len() > 253 || !name.split('.').all(label_holds) {
        return Err(PrincipalError::DnsName);
    }
    Ok(())
}

fn check_common_name(name: &str) -> Result<(), PrincipalError> {
    let refused = |character: char| is_disruptive(character) || "*#+>/${}".contains(character);
    if name.is_empty() || name.chars().any(refused) {
        return Err(PrincipalError::CommonName);
    }
    Ok(())
}

/// Control characters, and those that are invisible or turn the direction of the text around them: with one of these
/// two names can look alike to a person, or one name can rewrite the line of a log that it stands in.
pub(super) fn is_disruptive(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{feff}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_source_has_its_form() {
        for (text, expected) in [
            ("spiffe://acme.example/billing", Ok(PrincipalSource::Spiffe)),
            ("spiffe://acme.example/ns/a/sa/B_1.c-2", Ok(PrincipalSource::Spiffe)),
            ("dns:orders.acme.example", Ok(PrincipalSource::Dns)),
            ("cn:Orders Service", Ok(PrincipalSource::CommonName)),
            ("cn:Zoë", Ok(PrincipalSource::CommonName)),
            ("", Err(PrincipalError::Source)),
            ("Spiffe://acme.example/a", Err(PrincipalError::Source)),
            ("https://acme.example/a", Err(PrincipalError::Source)),
            ("spiffe://acme.example", Err(PrincipalError::Path)),
            ("spiffe://acme.example/", Err(PrincipalError::Path)),
            ("spiffe://acme.example/a/", Err(PrincipalError::Path)),
            ("spiffe://acme.example//a", Err(PrincipalError::Path)),
            ("spiffe://acme.example/a/../b", Err(PrincipalError::Path)),
            ("spiffe://acme.example/a/./b", Err(PrincipalError::Path)),
            ("spiffe://acme.example/a%2fb", Err(PrincipalError::Path)),
            ("spiffe://acme.example/a?b", Err(PrincipalError::Path)),
            ("spiffe://acme.example/a#b", Err(PrincipalError::Path)),
            ("spiffe://acme.example/*", Err(PrincipalError::Path)),
            ("spiffe://acme.example:443/a", Err(PrincipalError::TrustDomain)),
            ("spiffe://u@acme.example/a", Err(PrincipalError::TrustDomain)),
            ("spiffe://Acme.example/a", Err(PrincipalError::TrustDomain)),
            ("spiffe:///a", Err(PrincipalError::TrustDomain)),
            ("dns:", Err(PrincipalError::DnsName)),
            ("dns:*.acme.example", Err(PrincipalError::DnsName)),
            ("dns:Orders.example", Err(PrincipalError::DnsName)),
            ("dns:a..b", Err(PrincipalError::DnsName)),
            ("cn:", Err(PrincipalError::CommonName)),
            ("cn:#", Err(PrincipalError::CommonName)),
            ("cn:a\0b", Err(PrincipalError::CommonName)),
            ("cn:a\nb", Err(PrincipalError::CommonName)),
            ("cn:a\u{85}b", Err(PrincipalError::CommonName)),
            ("cn:a\u{202e}b", Err(PrincipalError::CommonName)),
            ("cn:a\u{200b}b", Err(PrincipalError::CommonName)),
            ("cn:\u{5e9}\u{5dc}", Ok(PrincipalSource::CommonName)),
            ("cn:${user}", Err(PrincipalError::CommonName)),
        ] {
            assert_eq!(Principal::parse(text).map(|principal| principal.source()), expected, "{text:?}");
        }
    }

    #[test]
    fn length_is_bounded() {
        let long = format!("spiffe://a/{}", "b".repeat(PRINCIPAL_BYTES_MAX));
        assert_eq!(Principal::parse(&long), Err(PrincipalError::TooLong { found: long.len() }));
    }

    #[test]
    fn the_trust_domain_is_the_authority() {
        let principal = Principal::parse("spiffe://acme.example/a/b").unwrap();
        assert_eq!(principal.trust_domain(), Some("acme.example"));
        assert_eq!(Principal::parse("dns:a.b").unwrap().trust_domain(), None);
    }
}
