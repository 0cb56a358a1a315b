//! HELLO: from a TLS connection to a session that acts as one principal.
//!
//! ```text
//!   bus -> version -> frames -> binding (ours, this principal's) -> kid -> proof on this TLS connection   examine: pure
//!       -> audit log -> quota -> on the list -> policy: revoked? -> incarnation: whose, since when, fenced? admit
//!       -> SessionOpened -> WELCOME
//! ```
//!
//! The session is on the list of sessions before it reads the policy, and before it is asked for the last time whether
//! roots and revocation lists are still the same: a change that comes between is told to it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use sealbus_protocol::batch::accept::ProvenProducer;
use sealbus_protocol::binding::{KeyBinding, VerifiedBinding};
use sealbus_protocol::frame::{Hello, Limits, Welcome};
use sealbus_protocol::identity::VerifiedChain;
use sealbus_protocol::ids::BusId;
use sealbus_protocol::limits::{
    BATCH_BYTES_MAX, FRAME_BYTES_MAX, PAYLOAD_BYTES_MAX, SUBSCRIPTIONS_PER_CONNECTION_MAX,
    TOPICS_PER_CONNECTION_MAX,
};
use sealbus_protocol::proof::{self, Exporter};
use sealbus_protocol::refusal::{Code, Refusal};
use sealbus_protocol::session::MINOR;

use super::admin::Administering;
use super::capture::KeyRecord;
use super::client::{Client, Ended, Intake, audit_unavailable};
use super::decide::Decisions;
use super::patience::Patience;
use super::pending::Pending;
use super::reading::Readings;
use super::summaries::Summaries;
use crate::audit::{CutReason, Event, SessionTraffic};
use crate::bus::Bus;
use crate::locks::lock;
use crate::outbox::Outbox;
use crate::party::Party;
use crate::port::Port;
use crate::producers::{Claim, ClaimError, Claimed, Displaced};
use crate::sessions::{Closed, Handle};
use crate::tls::TlsMaterial;

/// What TLS has proven of a connection.
#[derive(Debug)]
pub(crate) struct Peer {
    /// Where it comes from.
    pub(crate) source: SocketAddr,
    /// The zone of the listener.
    pub(crate) zone: Arc<str>,
    /// The peer's certificates, and whose they are.
    pub(crate) chain: VerifiedChain,
    /// What this TLS connection, and no other, exports.
    pub(crate) exporter: Exporter,
    /// By what they were judged.
    pub(crate) tls: Arc<TlsMaterial>,
}

/// By which certificates, roots and lists the peer's chain was judged.
#[derive(Debug, Clone, Copy)]
enum Judged {
    /// Those of the handshake, which are still in force.
    AsAccepted,
    /// Those that have replaced them.
    Anew,
}

/// Judges what HELLO claims. The binding that comes out is by this listener's own roots, and of the principal that TLS
/// has proven.
fn examine(
    hello: &Hello,
    binding: Bytes,
    peer: &Peer,
    (tls, judged): (&TlsMaterial, Judged),
    bus_id: BusId,
    now_ms: u64,
) -> Result<VerifiedBinding, Refusal> {
    let refuse = |code, reason: String| Err(Refusal::new(code, format!("hello: {reason}")));
    if hello.bus_id != bus_id {
        return refuse(Code::Binding, format!("it is for bus {}, this is bus {bus_id}", hello.bus_id));
    }
    if !(hello.minor_min..=hello.minor_max).contains(&MINOR) {
        let (min, max) = (hello.minor_min, hello.minor_max);
        return refuse(
            Code::Unsupported,
            format!("it speaks minor versions {min} to {max}, this broker {MINOR}"),
        );
    }
    let frame_bytes_max = usize::try_from(hello.frame_bytes_max).unwrap_or(usize::MAX);
    if frame_bytes_max < FRAME_BYTES_MAX {
        let reason =
            format!("it takes frames of {frame_bytes_max} bytes, a batch may need {FRAME_BYTES_MAX}");
        return refuse(Code::Limit, reason);
    }
    let binding = match KeyBinding::decode(binding) {
        Ok(binding) => binding,
        Err(error) => return refuse(Code::Binding, format!("the key binding is malformed: {error}")),
    };
    let verified = match judged {
        Judged::AsAccepted => tls.check_binding_of(&peer.chain, &binding, now_ms),
        Judged::Anew => tls.check_binding(&binding, now_ms),
    };
    let verified = match verified {
        Ok(verified) => verified,
        Err(error) => return refuse(Code::Binding, error.to_string()),
    };
    if verified.principal() != peer.chain.leaf().principal() {
        let (bound, proven) = (verified.principal(), peer.chain.leaf().principal());
        return refuse(
            Code::Binding,
            format!("the key is bound to {bound}, the TLS certificate is {proven}'s"),
        );
    }
    if verified.kid() != hello.kid {
        let reason = format!("the key binding binds {}, the session names key {}", verified.kid(), hello.kid);
        return refuse(Code::Binding, reason);
    }
    if proof::verify(verified.key(), &peer.exporter, &bus_id, &hello.fields(), &hello.proof).is_err() {
        let reason = "the session proof does not verify on this TLS connection under the bound key";
        return refuse(Code::Session, reason.to_owned());
    }
    Ok(verified)
}

/// Judges HELLO and, when it is good, makes the peer a client of the bus.
pub(crate) fn admit(
    bus: &Arc<Bus>,
    port: &Port,
    peer: &Peer,
    hello: &Hello,
) -> Result<(Client, Welcome), Refusal> {
    let now_ms = bus.clock.now_ms();
    let tls = port.tls.load_full();
    let judged = if Arc::ptr_eq(&tls, &peer.tls) {
        Judged::AsAccepted
    } else {
        // They were replaced after the handshake: the peer is judged by those in force.
        tls.check_peer(peer.chain.certificates(), now_ms)
            .map_err(|error| Refusal::new(Code::Binding, format!("hello: {error}")))?;
        Judged::Anew
    };
    let verified = examine(hello, binding_of(hello, bus)?, peer, (&tls, judged), bus.id, now_ms)?;
    if !bus.audit.is_available() {
        return Err(audit_unavailable(None));
    }
    let place = bus
        .quotas
        .admit_at(peer.chain.leaf().principal(), bus.clock.tick())
        .map_err(|error| Refusal::new(Code::Limit, format!("hello: {error}")))?;
    let party = Arc::new(Party {
        principal: peer.chain.leaf().principal().clone(),
        source: peer.source.ip(),
        zone: Arc::clone(&peer.zone),
    });
    let outbox = Arc::new(Outbox::new(bus.limits.outbox_bytes_max));
    let handle = Arc::new(Handle::new(bus.next_session(), outbox));
    bus.sessions
        .add(&handle)
        .map_err(|Closed| Refusal::new(Code::Draining, "the broker is shutting down"))?;
    let client = Client {
        bus: Arc::clone(bus),
        handle,
        decisions: Decisions::new(Arc::clone(&party), bus.policy.load_full()),
        party,
        source: peer.source,
        producer: ProvenProducer {
            kid: verified.kid(),
            key: *verified.key(),
            instance_id: hello.instance_id,
            started_ms: hello.started_ms,
            incarnation_id: hello.incarnation_id,
        },
        binding: lock(&bus.bindings).keep(&verified),
        instance_kind: hello.instance_kind,
        key_record: KeyRecord::default(),
        topics: Vec::new(),
        pending: Pending::default(),
        readings: Readings::default(),
        beginnings: HashMap::new(),
        memberships: HashMap::new(),
        joinings: HashMap::new(),
        subscriptions: HashMap::new(),
        lanes: HashMap::new(),
        lane_next: 1,
        announced: HashMap::new(),
        intake: Intake::Open,
        administering: Administering::default(),
        proofs_awaited: HashMap::new(),
        place,
        patience: Patience::new_at(bus.clock.tick()),
        summaries: Summaries::default(),
        ends_ms: verified.validity().not_after_ms.min(peer.chain.leaf().validity().not_after_ms),
        traffic: SessionTraffic::default(),
        ended: Ended::Never,
    };
    if !Arc::ptr_eq(&tls, &port.tls.load()) {
        // They were replaced just now, and this session may have been told or not. Let it come again.
        return Err(Refusal::new(Code::Internal, "hello: certificates were replaced at this moment"));
    }
    client.begin_session(peer, hello, now_ms)
}

/// The binding that HELLO brings, or the one that is known of its key.
fn binding_of(hello: &Hello, bus: &Bus) -> Result<Bytes, Refusal> {
    if !hello.binding.is_empty() {
        return Ok(hello.binding.clone());
    }
    let known = lock(&bus.bindings).find(&hello.kid).map(|known| known.bytes.clone());
    known.ok_or_else(|| {
        Refusal::new(Code::Binding, "hello: no binding of its key is known here; it must be sent")
    })
}

impl Client {
    /// From here on the session is on the list; if it is refused, dropping it takes it off again.
    fn begin_session(mut self, peer: &Peer, hello: &Hello, now_ms: u64) -> Result<(Self, Welcome), Refusal> {
        if let Some(rule) = self.revoked() {
            return Err(Refusal::new(Code::Denied, format!("hello: the principal is revoked by \"{rule}\"")));
        }
        let claim = Claim {
            principal: self.party.principal.clone(),
            kid: hello.kid,
            instance_id: hello.instance_id,
            instance_kind: hello.instance_kind,
            started_ms: hello.started_ms,
            incarnation_id: hello.incarnation_id,
        };
        let (id, holder) = (self.handle.id, Arc::clone(&self.handle));
        let claimed = lock(&self.bus.producers).claim_at(claim, id, holder, now_ms);
        let Claimed { incarnation, displaced } = claimed.map_err(|error| refusal_of(&error))?;
        // Before anything can fail: the newer incarnation is remembered now, and nobody would end the older one later.
        for displaced in displaced {
            let (older, why) = match displaced {
                Displaced::Superseded(older) => (older, CutReason::Superseded),
                Displaced::Fenced(older) => (older, CutReason::Fenced),
            };
            older.supersede();
            older.signal(|control| control.cut = Some(why));
        }
        self.record(Event::SessionOpened {
            actor: self.actor(),
            serial: peer.chain.leaf().serial(),
            issuer: peer.chain.leaf().issuer().to_owned(),
            kid: hello.kid,
            agent: hello.agent.clone(),
            zone: peer.zone.to_string(),
        })?;
        self.ended = Ended::Closed("the connection was closed".to_owned());
        let policy = self.decisions.generation();
        let welcome = Welcome {
            minor: MINOR,
            incarnation,
            features: 0,
            limits: limits(),
            session_id: self.handle.id.0,
            broker_ms: now_ms,
            generation: policy.generation,
            policy_version: policy.policy_version,
            policy_hash: policy.policy_hash,
            principal: self.party.principal.clone(),
        };
        Ok((self, welcome))
    }
}

fn refusal_of(error: &ClaimError) -> Refusal {
    let code = match error {
        ClaimError::OtherIdentity => Code::Session,
        ClaimError::Time { .. } => Code::Time,
        ClaimError::Fenced => Code::Fenced,
        ClaimError::TooMany => Code::Limit,
    };
    Refusal::new(code, format!("hello: {error}"))
}

fn limits() -> Limits {
    let limit = |limit: usize| u32::try_from(limit).unwrap_or(u32::MAX);
    Limits {
        frame_bytes_max: limit(FRAME_BYTES_MAX),
        batch_bytes_max: limit(BATCH_BYTES_MAX),
        payload_bytes_max: limit(PAYLOAD_BYTES_MAX),
        topics_max: limit(TOPICS_PER_CONNECTION_MAX),
        subscriptions_max: limit(SUBSCRIPTIONS_PER_CONNECTION_MAX),
    }
}
