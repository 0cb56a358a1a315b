//! A client of the bus: the state of one welcomed session, and the way of its requests to who answers them.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use sealbus_protocol::batch::accept::ProvenProducer;
use sealbus_protocol::binding::KeyBinding;
use sealbus_protocol::frame::{
    BindingGet, Credit, Generation, InstanceKind, RequestId, SubscriptionId, What,
};
use sealbus_protocol::ids::{Kid, StreamId};
use sealbus_protocol::policy::{Name, RuleId};
use sealbus_protocol::refusal::{Code, Refusal};
use sealbus_protocol::session::{BrokerEvent, BrokerSession, Tick};

use super::admin::Administering;
use super::capture::KeyRecord;
use super::consuming::{Joining, Membership};
use super::decide::Decisions;
use super::deliver::{Announced, Filled};
use super::open::OpenTopic;
use super::patience::Patience;
use super::pending::Pending;
use super::reading::Readings;
use super::replay::Beginning;
use super::subscribe::Subscription;
use super::summaries::{self, Summaries};
use crate::audit::{Actor, AuditUnavailable, CutReason, Event, SessionTraffic};
use crate::bindings::Binding;
use crate::bus::Bus;
use crate::letters::Letter;
use crate::locks::lock;
use crate::outbox::LaneId;
use crate::party::Party;
use crate::quotas::SessionPlace;
use crate::sessions::{Handle, News};
use crate::telemetry;
use crate::tls::TlsMaterial;

/// A welcomed client: all that the broker knows of one session, besides the bytes of its connection.
///
/// Dropping it takes the session off the bus. That comes after its connection is closed, so that whoever waits for the
/// session's end knows that nothing more is written.
#[derive(Debug)]
pub(crate) struct Client {
    pub(super) bus: Arc<Bus>,
    pub(super) handle: Arc<Handle>,
    pub(super) party: Arc<Party>,
    pub(super) source: SocketAddr,
    pub(super) producer: ProvenProducer,
    pub(super) binding: Arc<Binding>,
    /// Whether its instance id is configured, and so fences.
    pub(super) instance_kind: InstanceKind,
    /// Where the binding is in `$keys`, once somebody asked.
    pub(super) key_record: KeyRecord,
    pub(super) decisions: Decisions,
    /// By publish alias.
    pub(super) topics: Vec<Option<OpenTopic>>,
    /// Batches whose streams have not answered yet.
    pub(super) pending: Pending,
    /// Subscriptions that read streams, by lane.
    pub(super) readings: Readings,
    /// Those of them that have no READY yet.
    pub(super) beginnings: HashMap<LaneId, Beginning>,
    /// Its places in durable consumers, by lane.
    pub(super) memberships: HashMap<LaneId, Membership>,
    /// Those that it has no READY for yet.
    pub(super) joinings: HashMap<LaneId, Joining>,
    pub(super) subscriptions: HashMap<LaneId, Subscription>,
    pub(super) lanes: HashMap<SubscriptionId, LaneId>,
    pub(super) lane_next: u64,
    /// The newest binding of each kid that the peer was sent.
    pub(super) announced: HashMap<Kid, Announced>,
    pub(super) intake: Intake,
    pub(super) administering: Administering,
    /// Proofs that are being made for it.
    pub(super) proofs_awaited: HashMap<RequestId, (Name, StreamId)>,
    /// The session's place among those of its principal.
    pub(super) place: SessionPlace,
    /// When the client may be heard again.
    pub(crate) patience: Patience,
    pub(super) summaries: Summaries,
    /// When certificate or key binding end, whichever is first, in Unix milliseconds.
    pub(super) ends_ms: u64,
    pub(super) traffic: SessionTraffic,
    pub(super) ended: Ended,
}

/// Whether requests are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Intake {
    Open,
    /// The broker is shutting down.
    Closed,
}

/// How the session ended, for the audit log.
#[derive(Debug)]
pub(crate) enum Ended {
    /// It never began, and was refused elsewhere.
    Never,
    /// As sessions do, with a sentence.
    Closed(String),
    /// The broker ended it.
    Cut(CutReason),
}

impl Client {
    /// What others see of the session.
    pub(crate) fn handle(&self) -> &Arc<Handle> {
        &self.handle
    }

    /// Answers a request, or says why the session cannot go on.
    pub(crate) fn handle_event(
        &mut self,
        wire: &mut BrokerSession,
        event: BrokerEvent,
    ) -> Result<(), Refusal> {
        match event {
            BrokerEvent::Hello(_) => Err(Refusal::new(Code::Session, "HELLO came a second time")),
            BrokerEvent::Open { request, topic } => self.open(wire, request, topic),
            BrokerEvent::Publish { request, alias, batch } => self.publish(wire, request, alias, batch),
            BrokerEvent::Subscribe(subscribe) => self.subscribe(wire, subscribe),
            BrokerEvent::Replay(replay) => self.replay(wire, replay),
            BrokerEvent::Consume(consume) => self.consume(wire, consume),
            BrokerEvent::Settle(settle) => self.settle(wire, settle),
            BrokerEvent::CheckpointGet(get) => self.prove(wire, get),
            BrokerEvent::Close(What::Alias(alias)) => self.close_topic(alias),
            BrokerEvent::Close(What::Subscription(subscription)) => self.unsubscribe(wire, subscription),
            BrokerEvent::Credit(Credit { subscription, bytes }) => {
                if let Some(lane) = self.lanes.get(&subscription) {
                    self.handle.outbox.credited(*lane);
                    self.readings.unpark(*lane);
                    self.credit_consumer(*lane, bytes);
                }
                Ok(())
            }
            BrokerEvent::BindingGet(get) => {
                // Every authenticated principal may read every binding: it proves something, and gives nothing away.
                let known = lock(&self.bus.bindings).find(&get.kid);
                match known {
                    Some(binding) => wire.binding(get.request, binding.bytes.clone()),
                    // Perhaps it published to a stream once: then it is on the disk.
                    None => self.look_for_key(get),
                }
                Ok(())
            }
            BrokerEvent::Admin(admin) => self.administer(wire, admin),
            BrokerEvent::Failed(refusal) => {
                self.ended = Ended::Closed(format!("the client gave up: {refusal}"));
                Ok(())
            }
        }
    }

    /// Adopts the policy in force: from this call on nothing is decided by the one before. Returns why the session
    /// cannot go on under it, if it cannot.
    pub(crate) fn adopt(&mut self, wire: &mut BrokerSession) -> Option<CutReason> {
        self.decisions.adopt(self.bus.policy.load_full());
        if let Some(rule) = self.revoked() {
            return Some(CutReason::PrincipalRevoked(rule));
        }
        if self.streams_have_changed() {
            return Some(CutReason::StreamsChanged);
        }
        self.recheck_readings(wire);
        self.recheck_memberships(wire);
        None
    }

    /// Takes in what threads and tasks have brought, and answers what streams have made durable.
    pub(crate) fn handle_news(&mut self, wire: &mut BrokerSession) -> Result<Filled, Refusal> {
        let Some(News { letters }) = self.handle.take_news() else { return Ok(Filled::Nothing) };
        self.answer_durable(wire);
        self.readings.handle_commit();
        for letter in letters {
            match letter {
                Letter::KeyRecorded(outcome) => self.handle_key_recorded(wire, outcome)?,
                Letter::Key(get, found) => match found {
                    Some(binding) => wire.binding(get.request, binding),
                    None => {
                        let reason = format!("no binding of the key {} is known here", get.kid);
                        self.refuse(wire, get.request, Refusal::new(Code::Binding, reason));
                    }
                },
                Letter::Begin(lane, at) => self.begin_reading(wire, lane, at),
                Letter::Page(lane, page) => self.handle_page(lane, page)?,
                Letter::Joined(lane, joined) => self.handle_joined(wire, lane, joined)?,
                Letter::Handed(lane, batch) => self.handle_handed(wire, lane, &batch),
                Letter::Skipped(lane, skipped) => self.handle_skipped(wire, lane, skipped),
                Letter::Settled(request, outcome) => self.handle_settled(wire, request, outcome),
                Letter::Checkpoint(request, answer) => self.handle_proof(wire, request, answer),
            }
        }
        Ok(Filled::Some)
    }

    fn look_for_key(&self, get: BindingGet) {
        let (bus, handle) = (Arc::clone(&self.bus), Arc::clone(&self.handle));
        tokio::task::spawn_blocking(move || {
            let found = bus.storage.find_key(&get.kid).map(|key| key.bytes.clone());
            handle.post(Letter::Key(get, found));
        });
    }

    /// Whether so much waits for the disk that nothing more is taken in.
    pub(crate) const fn is_congested(&self) -> bool {
        self.pending.is_full()
    }

    /// What clients are told of the adopted policy.
    pub(crate) fn generation(&self) -> Generation {
        self.decisions.generation()
    }

    /// The entry of the adopted policy that revokes the principal now.
    pub(crate) fn revoked(&self) -> Option<RuleId> {
        self.decisions.subject().revoked(self.bus.clock.now_ms()).cloned()
    }

    /// Judges the certificates that the session's key is bound with, which need not be those of its connection.
    pub(crate) fn check_binding(&self, tls: &TlsMaterial, now_ms: u64) -> Result<(), String> {
        let binding = KeyBinding::decode(self.binding.bytes.clone()).map_err(|error| error.to_string())?;
        tls.check_binding(&binding, now_ms).map(drop).map_err(|error| error.to_string())
    }

    /// What is signed with the session's key is not delivered any more.
    pub(crate) fn revoke_binding(&self) {
        self.binding.revoke();
    }

    /// When the adopted policy will revoke the principal, if it says so, in Unix milliseconds.
    pub(crate) fn revocation_due_ms(&self) -> Option<u64> {
        self.decisions.subject().revocation_due_ms(self.bus.clock.now_ms())
    }

    /// When certificate or key binding end, whichever is first, in Unix milliseconds.
    pub(crate) const fn ends_ms(&self) -> u64 {
        self.ends_ms
    }

    /// When [`Client::summarise`] wants to be called.
    pub(crate) const fn summary_due(&self) -> Option<Tick> {
        self.summaries.due()
    }

    /// Takes no more requests in. What was accepted is still delivered.
    pub(crate) fn close_intake(&mut self) {
        self.intake = Intake::Closed;
    }

    /// Notes how the session ended.
    pub(crate) fn end(&mut self, ended: Ended) {
        self.ended = ended;
    }

    /// Refuses a request. Refusals cost us more than they cost the sender, so that they are counted.
    pub(super) fn refuse(&mut self, wire: &mut BrokerSession, request: RequestId, refusal: Refusal) {
        self.patience.spend_at(self.bus.clock.tick());
        self.bus.counts.refused();
        wire.refuse(request, refusal);
    }

    /// Why no request is taken now, whatever it asks for.
    pub(super) fn closed_to_requests(&self) -> Option<Refusal> {
        match self.intake {
            Intake::Closed => Some(Refusal::new(Code::Draining, "the broker is shutting down")),
            Intake::Open if !self.bus.audit.is_available() => Some(audit_unavailable(None)),
            Intake::Open => None,
        }
    }

    /// Records what must be known. If it cannot be, the session cannot go on.
    pub(super) fn record(&self, event: Event) -> Result<(), Refusal> {
        self.bus.audit.record(event).map_err(|error| audit_unavailable(Some(&error)))
    }

    /// Records what the client has done and may do again. The principal pays for the line, and the session rests when
    /// it cannot: who is allowed something must not be able to fill the disk by it.
    pub(super) fn record_act(&mut self, event: Event) -> Result<(), Refusal> {
        if let Some(until) = self.place.spend_at(self.bus.clock.tick()) {
            self.patience.rest_until(until);
        }
        self.record(event)
    }

    /// Who acts, as audit events name it.
    pub(crate) fn actor(&self) -> Actor {
        Actor { session: self.handle.id, principal: self.party.principal.clone(), source: self.source }
    }
}

/// What a client is told when nothing can be recorded.
pub(super) fn audit_unavailable(error: Option<&AuditUnavailable>) -> Refusal {
    let reason = error.map_or_else(|| "the audit log cannot be written".to_owned(), ToString::to_string);
    Refusal::new(Code::AuditUnavailable, reason)
}

impl Drop for Client {
    fn drop(&mut self) {
        let ended = self.subscriptions.drain();
        let (ended, places): (Vec<_>, Vec<_>) =
            ended.map(|(lane, Subscription { id: _, filter, place })| ((lane, filter), place)).unzip();
        // Routes that publishers and streams keep may hold the outbox for long: it must not hold its batches for them.
        for (lane, _) in &ended {
            self.handle.outbox.close(*lane);
        }
        self.bus.router.unsubscribe_all(self.handle.id, ended);
        // Not before they are free.
        drop(places);
        drop(self.readings.drain());
        self.leave_all();
        let topics: Vec<OpenTopic> = self.topics.drain(..).flatten().collect();
        {
            let mut producers = lock(&self.bus.producers);
            for open in &topics {
                producers.close(self.producer.incarnation_id, &open.key);
            }
            producers.release(self.producer.incarnation_id, self.handle.id);
        }
        let (actor, traffic) = (self.actor(), self.traffic);
        summaries::tell_last(&self.bus.audit, &topics, &actor);
        let (cut, reason) = match std::mem::replace(&mut self.ended, Ended::Never) {
            Ended::Never => (None, None),
            Ended::Closed(reason) => (None, Some(reason)),
            Ended::Cut(why) => (Some(why.clone()), Some(why.to_string())),
        };
        let cut = cut.map(|why| Event::SessionCut { actor: actor.clone(), why });
        let closed = reason.map(|reason| Event::SessionClosed { actor: actor.clone(), reason, traffic });
        for event in cut.into_iter().chain(closed) {
            // There is nothing left that could be refused; the log itself says that it failed.
            if let Err(error) = self.bus.audit.record(event) {
                tracing::error!(
                    { telemetry::ERROR } = %error,
                    { telemetry::SESSION } = %self.handle.id,
                    "the end of a session is not in the audit log"
                );
            }
        }
        self.bus.sessions.remove(&self.handle);
    }
}
