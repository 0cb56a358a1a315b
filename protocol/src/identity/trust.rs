//! Whose word is taken: certificate roots, each for one trust domain and for nothing else.
//!
//! ```text
//! stated principal ──> its trust domain ──> that domain's roots ──> chain at that time ──> leaf names the principal
//! ```
//!
//! The principal picks the roots, never the other way round, so that a root of domain B issues nothing for domain A.
//! There is no "verify nothing": a domain without roots, or with a root that cannot be read, cannot be made.
//! As everywhere, a root counts for its name and key; its own dates are not looked at.

use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::{CertificateDer, SignatureVerificationAlgorithm, TrustAnchor, UnixTime};
use webpki::{
    CertRevocationList, EndEntityCert, ExpirationPolicy, KeyUsage, OwnedCertRevocationList,
    RevocationCheckDepth, RevocationOptionsBuilder, UnknownStatusPolicy, aws_lc_rs,
};

use crate::limits::{CERTIFICATE_BYTES_MAX, CHAIN_CERTIFICATES_MAX};

use super::certificate::{Authority, CertificateFacts, ClientAuth, SerialNumber};
use super::leaf::IdentityError;
use super::principal::{Principal, PrincipalSource, check_trust_domain};
use super::trust_error::{ChainError, RootProblem, TrustError};
use super::validity::Validity;

/// The signatures that may be on certificates and CRLs. Nothing with SHA-1, no RSA key below 2,048 bits, no P-521.
const CERTIFICATE_SIGNATURES: &[&dyn SignatureVerificationAlgorithm] = &[
    aws_lc_rs::ECDSA_P256_SHA256,
    aws_lc_rs::ECDSA_P256_SHA384,
    aws_lc_rs::ECDSA_P384_SHA256,
    aws_lc_rs::ECDSA_P384_SHA384,
    aws_lc_rs::ED25519,
    aws_lc_rs::RSA_PSS_2048_8192_SHA256_LEGACY_KEY,
    aws_lc_rs::RSA_PSS_2048_8192_SHA384_LEGACY_KEY,
    aws_lc_rs::RSA_PSS_2048_8192_SHA512_LEGACY_KEY,
    aws_lc_rs::RSA_PKCS1_2048_8192_SHA256,
    aws_lc_rs::RSA_PKCS1_2048_8192_SHA384,
    aws_lc_rs::RSA_PKCS1_2048_8192_SHA512,
];

/// Some roots, and the principals that they may issue certificates for.
#[derive(Debug)]
pub struct TrustDomain {
    name: Box<str>,
    source: PrincipalSource,
    roots: Vec<TrustAnchor<'static>>,
    revocation_lists: Vec<CertRevocationList<'static>>,
}

impl TrustDomain {
    /// A domain with these root certificates. For SPIFFE the name is the trust domain of its principals; for the
    /// other sources it is only what people call it.
    ///
    /// # Errors
    /// [`TrustError`] when the name is not one, when there is no root, or when one of them is not a CA certificate.
    pub fn new(
        name: &str,
        source: PrincipalSource,
        roots: &[CertificateDer<'_>],
    ) -> Result<Self, TrustError> {
        check_trust_domain(name).map_err(|_| TrustError::Name { name: name.into() })?;
        if roots.is_empty() {
            return Err(TrustError::NoRoot { domain: name.into() });
        }
        let roots = roots.iter().enumerate().map(|(place, root)| {
            let invalid = |problem| TrustError::Root { domain: name.into(), place, problem };
            let facts =
                CertificateFacts::parse(root).map_err(|error| invalid(RootProblem::Certificate(error)))?;
            match facts.authority {
                Authority::Ca => {}
                Authority::EndEntity => return Err(invalid(RootProblem::NotCa)),
            }
            webpki::anchor_from_trusted_cert(root)
                .map(|anchor| anchor.to_owned())
                .map_err(|error| invalid(RootProblem::Anchor(error)))
        });
        let roots = roots.collect::<Result<_, _>>()?;
        Ok(Self { name: name.into(), source, roots, revocation_lists: Vec::new() })
    }

    /// Checks revocation by these lists from now on: every certificate of a chain must be covered by a list that its
    /// issuer signed and that has not run out.
    ///
    /// # Errors
    /// [`TrustError::NoRevocationList`] when there is none, which would mean "no check".
    pub fn with_revocation_lists(
        mut self,
        lists: impl IntoIterator<Item = OwnedCertRevocationList>,
    ) -> Result<Self, TrustError> {
        self.revocation_lists = lists.into_iter().map(CertRevocationList::from).collect();
        if self.revocation_lists.is_empty() {
            return Err(TrustError::NoRevocationList { domain: self.name });
        }
        Ok(self)
    }

    /// What the domain is called; for SPIFFE, the trust domain.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where its certificates state their principal.
    #[must_use]
    pub const fn source(&self) -> PrincipalSource {
        self.source
    }

    /// Verifies a chain, leaf first, up to this domain's roots at this time, for use as a TLS client, and reads from
    /// its leaf the principal that it belongs to.
    ///
    /// # Errors
    /// [`ChainError`] says what does not hold.
    pub fn verify_at(&self, chain: &[CertificateDer<'_>], at_ms: u64) -> Result<VerifiedLeaf, ChainError> {
        let (leaf, intermediates) = split(chain)?;
        let facts = CertificateFacts::parse(leaf).map_err(IdentityError::from)?;
        let principal = facts.principal(self.source)?;
        if principal.trust_domain().is_some_and(|domain| domain != &*self.name) {
            return Err(ChainError::ForeignDomain { domain: self.name.clone(), found: principal });
        }
        // The path verifier accepts a leaf without extended key usage; the design does not.
        match facts.client_auth {
            ClientAuth::Named => {}
            ClientAuth::Absent => return Err(ChainError::NotForClients),
        }
        self.verify_path(leaf, intermediates, at_ms)?;
        Ok(VerifiedLeaf {
            principal,
            validity: facts.validity,
            serial: facts.serial,
            issuer: facts.issuer.into(),
        })
    }

    /// As [`TrustDomain::verify_at`], and keeps the chain with what was found.
    ///
    /// # Errors
    /// [`ChainError`] says what does not hold.
    pub fn verify_chain_at(
        &self,
        certificates: Vec<CertificateDer<'static>>,
        at_ms: u64,
    ) -> Result<VerifiedChain, ChainError> {
        let leaf = self.verify_at(&certificates, at_ms)?;
        Ok(VerifiedChain { certificates, leaf, verified_at_ms: at_ms })
    }

    fn verify_path(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        at_ms: u64,
    ) -> Result<(), ChainError> {
        let leaf = EndEntityCert::try_from(leaf).map_err(ChainError::from_path)?;
        let lists: Vec<&CertRevocationList<'_>> = self.revocation_lists.iter().collect();
        // The builder refuses exactly the empty list, which stands for a domain whose revocation is not by CRL.
        let revocation = RevocationOptionsBuilder::new(&lists).ok().map(|options| {
            options
                .with_depth(RevocationCheckDepth::Chain)
                .with_status_policy(UnknownStatusPolicy::Deny)
                .with_expiration_policy(ExpirationPolicy::Enforce)
                .build()
        });
        leaf.verify_for_usage(
            CERTIFICATE_SIGNATURES,
            &self.roots,
            intermediates,
            UnixTime::since_unix_epoch(Duration::from_millis(at_ms)),
            KeyUsage::client_auth(),
            revocation,
            None,
        )
        .map_err(ChainError::from_path)?;
        Ok(())
    }
}

/// Every trust domain that a process believes in. It comes from the process's own configuration and from nobody else.
#[derive(Debug)]
pub struct TrustStore {
    domains: Vec<TrustDomain>,
}

impl TrustStore {
    /// A store of these domains.
    ///
    /// # Errors
    /// [`TrustError`] when there is none, or when a principal could belong to two of them: two SPIFFE domains of one
    /// name, two domains whose principals are DNS names, or two whose principals are common names.
    pub fn new(domains: Vec<TrustDomain>) -> Result<Self, TrustError> {
        if domains.is_empty() {
            return Err(TrustError::NoDomain);
        }
        let mut earlier = domains.iter();
        while let Some(domain) = earlier.next_back() {
            let clashes = |other: &TrustDomain| {
                other.source == domain.source
                    && match domain.source {
                        PrincipalSource::Spiffe => other.name == domain.name,
                        PrincipalSource::Dns | PrincipalSource::CommonName => true,
                    }
            };
            if earlier.clone().any(clashes) {
                return Err(TrustError::SecondDomain { name: domain.name.clone(), source: domain.source });
            }
        }
        Ok(Self { domains })
    }

    /// The domains.
    #[must_use]
    pub fn domains(&self) -> &[TrustDomain] {
        &self.domains
    }

    /// The domain that this principal would belong to.
    #[must_use]
    pub fn domain_of(&self, principal: &Principal) -> Option<&TrustDomain> {
        self.domains.iter().find(|domain| {
            domain.source == principal.source()
                && principal.trust_domain().is_none_or(|name| name == &*domain.name)
        })
    }

    /// Verifies that this chain, leaf first, belonged at this time to the principal that somebody states: up to the
    /// roots of that principal's own domain, and with a leaf that names it.
    ///
    /// # Errors
    /// [`ChainError`] says what does not hold.
    pub fn verify_as_at(
        &self,
        stated: &Principal,
        chain: &[CertificateDer<'_>],
        at_ms: u64,
    ) -> Result<VerifiedLeaf, ChainError> {
        let domain =
            self.domain_of(stated).ok_or_else(|| ChainError::UnknownDomain { principal: stated.clone() })?;
        let leaf = domain.verify_at(chain, at_ms)?;
        if leaf.principal != *stated {
            return Err(ChainError::OtherPrincipal { stated: stated.clone(), found: leaf.principal });
        }
        Ok(leaf)
    }

    /// Verifies a chain whose leaf states its principal in this source, as a TLS listener meets it: up to the roots of
    /// the domain that the leaf itself names.
    ///
    /// # Errors
    /// [`ChainError`] says what does not hold.
    pub fn verify_from_at(
        &self,
        source: PrincipalSource,
        chain: &[CertificateDer<'_>],
        at_ms: u64,
    ) -> Result<VerifiedLeaf, ChainError> {
        let (leaf, _) = split(chain)?;
        let stated = super::principal_of(leaf, source)?;
        self.verify_as_at(&stated, chain, at_ms)
    }
}

/// A chain that has been verified, with what is known of its leaf. Nothing else makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedChain {
    certificates: Vec<CertificateDer<'static>>,
    leaf: VerifiedLeaf,
    verified_at_ms: u64,
}

impl VerifiedChain {
    /// For which moment it was verified.
    #[must_use]
    pub const fn verified_at_ms(&self) -> u64 {
        self.verified_at_ms
    }

    /// The certificates, leaf first.
    #[must_use]
    pub fn certificates(&self) -> &[CertificateDer<'static>] {
        &self.certificates
    }

    /// What is known of the leaf.
    #[must_use]
    pub const fn leaf(&self) -> &VerifiedLeaf {
        &self.leaf
    }
}

/// What is known of a leaf certificate whose chain has been verified. Nothing else makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedLeaf {
    principal: Principal,
    validity: Validity,
    serial: SerialNumber,
    issuer: Arc<str>,
}

impl VerifiedLeaf {
    /// Whose certificate it is.
    #[must_use]
    pub const fn principal(&self) -> &Principal {
        &self.principal
    }

    /// The dates between which it is valid.
    #[must_use]
    pub const fn validity(&self) -> Validity {
        self.validity
    }

    /// Its serial number, unique for its issuer.
    #[must_use]
    pub const fn serial(&self) -> SerialNumber {
        self.serial
    }

    /// Who issued it, as text for people.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.issuer
    }
}

/// The leaf and what is above it, once their number and sizes are known to be bounded.
fn split<'c, 'd>(
    chain: &'c [CertificateDer<'d>],
) -> Result<(&'c CertificateDer<'d>, &'c [CertificateDer<'d>]), ChainError> {
    if chain.len() > CHAIN_CERTIFICATES_MAX {
        return Err(ChainError::TooMany { found: chain.len() });
    }
    for (place, certificate) in chain.iter().enumerate() {
        if certificate.len() > CERTIFICATE_BYTES_MAX {
            return Err(ChainError::TooLong { place, found: certificate.len() });
        }
    }
    chain.split_first().ok_or(ChainError::Empty)
}
