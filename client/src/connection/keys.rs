//! The signing key of this process, and what binds it to the certificate.

use bytes::Bytes;
use rustls::SignatureScheme;
use sealbus_protocol::batch::produce::ProducerContext;
use sealbus_protocol::binding::{BindingRequest, TlsScheme};
use sealbus_protocol::frame::InstanceKind;
use sealbus_protocol::identity::{CertificateFacts, Principal, TrustStore, principal_of};
use sealbus_protocol::ids::{BusId, IncarnationId, InstanceId, Kid};
use sealbus_protocol::keys::SigningKey;
use zeroize::Zeroizing;

use crate::error::ConnectError;
use crate::identity::{Identity, IdentityError};

/// A fresh signing key, and whose it is. It lives as long as the process holds the bus, across incarnations and
/// renewed certificates.
#[derive(Debug)]
pub(super) struct Keys {
    pub(super) signing_key: SigningKey,
    pub(super) kid: Kid,
    pub(super) principal: Principal,
    pub(super) instance_id: InstanceId,
    pub(super) instance_kind: InstanceKind,
}

impl Keys {
    /// Draws the key, and an instance id unless one is configured.
    pub(super) fn draw(
        identity: &Identity,
        trust: &TrustStore,
        instance_id: Option<InstanceId>,
        now_ms: u64,
    ) -> Result<Self, ConnectError> {
        let principal = own_principal(identity, trust, now_ms)?;
        let mut seed = Zeroizing::new([0; 32]);
        getrandom::fill(&mut *seed).map_err(ConnectError::Entropy)?;
        let signing_key = SigningKey::from_seed(&seed);
        let kid = signing_key.verifying_key().kid(&principal);
        let (instance_id, instance_kind) = match instance_id {
            Some(configured) => (configured, InstanceKind::Configured),
            None => (InstanceId::new(random()?), InstanceKind::Random),
        };
        Ok(Self { signing_key, kid, principal, instance_id, instance_kind })
    }

    /// A fresh incarnation, later than the one before it: a broker fences by this order.
    pub(super) fn incarnation(
        &self,
        bus_id: BusId,
        now_ms: u64,
        before: Option<&ProducerContext>,
    ) -> Result<ProducerContext, ConnectError> {
        let started_ms = before.map_or(now_ms, |before| now_ms.max(before.started_ms.saturating_add(1)));
        Ok(ProducerContext {
            bus_id,
            kid: self.kid,
            instance_id: self.instance_id,
            started_ms,
            incarnation_id: IncarnationId::new(random()?),
            // This client holds no verified policy.
            policy_version: 0,
        })
    }

    /// Binds the signing key to the identity's certificate, for as long as that lasts.
    pub(super) fn bind(&self, identity: &Identity) -> Result<Bytes, ConnectError> {
        let leaf =
            identity.chain().first().ok_or(IdentityError::Nobody { reason: "there is none".into() })?;
        let facts = CertificateFacts::parse(leaf).map_err(nobody)?;
        let named = facts.principal(self.principal.source()).map_err(nobody)?;
        if named != self.principal {
            let reason = format!("it names {named}, this client began as {}", self.principal);
            return Err(IdentityError::Nobody { reason }.into());
        }
        let request =
            BindingRequest::new(&self.principal, &self.signing_key, facts.validity, identity.chain())
                .map_err(ConnectError::Binding)?;
        let offered = TlsScheme::ALL.map(|scheme| SignatureScheme::from(scheme.code()));
        let signer = identity.certified_key().key.choose_scheme(&offered).ok_or(IdentityError::Scheme)?;
        let scheme = TlsScheme::from_code(u16::from(signer.scheme())).ok_or(IdentityError::Scheme)?;
        let signature = signer.sign(&request.tls_message()).map_err(IdentityError::Tls)?;
        request.finish(scheme, &signature).map_err(ConnectError::Binding)
    }
}

/// Whom our certificate names: by the first trust domain that it leads to, or else by the first whose source it has a
/// name in. Whether the broker believes it, the broker says.
fn own_principal(identity: &Identity, trust: &TrustStore, now_ms: u64) -> Result<Principal, IdentityError> {
    // With one domain there is nothing to choose, and the answer would be the same.
    if trust.domains().len() > 1 {
        let mut verified = trust.domains().iter().map(|domain| domain.verify_at(identity.chain(), now_ms));
        if let Some(leaf) = verified.find_map(Result::ok) {
            return Ok(leaf.principal().clone());
        }
    }
    let leaf = identity.chain().first().ok_or(IdentityError::Nobody { reason: "there is none".into() })?;
    let mut reason = String::from("there is no trust domain");
    for domain in trust.domains() {
        match principal_of(leaf, domain.source()) {
            Ok(principal) => return Ok(principal),
            Err(error) => reason = error.to_string(),
        }
    }
    Err(IdentityError::Nobody { reason })
}

fn nobody(error: impl std::fmt::Display) -> IdentityError {
    IdentityError::Nobody { reason: error.to_string() }
}

fn random<const N: usize>() -> Result<[u8; N], ConnectError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(ConnectError::Entropy)?;
    Ok(bytes)
}
