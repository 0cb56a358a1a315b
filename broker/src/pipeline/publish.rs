//! PUBLISH: how a batch gets in.
//!
//! ```text
//!   PUBLISH --> decode --> decide --> lock the sequence: judge --> outboxes ----> commit --> unlock --> ACK live
//!               FORMAT     cached                        |   '---> the stream --> commit --> unlock ... durable --> ACK
//!                                                        '--> REFUSED, and an audit event
//! ```
//!
//! The sequence is locked once for a batch, from the judgement to the last outbox or to its place in the stream's
//! queue: two connections of one incarnation cannot put a topic's batches out of order, and a verdict is committed to
//! the state that it was made on. Whether the session was superseded is asked under the same lock: the session that
//! took its place resumes where the sequence then stands, and nothing of this one comes after that.
//!
//! A batch that a stream keeps is fanned out by the stream's writer ([`super::fan_out`]) once it is durable: nobody is
//! shown what a power cut could still take back.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use sealbus_protocol::batch::Batch;
use sealbus_protocol::batch::accept::{
    Accepted, Circumstances, Durability, Equivocation, Receipt, SequenceState, Verdict,
};
use sealbus_protocol::frame::{Ack, Alias, Freshness, InstanceKind, RequestId};
use sealbus_protocol::policy::{DenialRule, Verb};
use sealbus_protocol::refusal::{Code, Refusal};
use sealbus_protocol::session::BrokerSession;
use sealbus_protocol::topic::Topic;

use super::capture::Capture;
use super::client::Client;
use super::decide::{Decision, Want};
use super::fan_out::Fanned;
use super::open::{Destination, OpenTopic, place_of};
use super::pending::{Answer, refusal_of};
use super::route::Route;
use crate::audit::{BatchHead, Event, Target};
use crate::bindings::Binding;
use crate::bus::Bus;
use crate::locks::lock;
use crate::outbox::Published;
use crate::party::Party;
use crate::policy::PolicyInForce;
use crate::storage::stream::store::{AppendError, NewBatch, Ticket, Waiter};

/// No stream captures the topic: a batch is handed to the subscribers of this moment, and kept nowhere.
const LIVE: Receipt = Receipt { durability: Durability::Live, offset: None };

/// What came of a batch, once its sequence is unlocked again.
enum Judged {
    /// It is with those who listen.
    Live(Freshness),
    /// It is in a stream's queue, or was before.
    Queued(Freshness, Receipt, Ticket),
    /// It goes nowhere.
    Refused(Topic, Fault),
}

/// Why a batch is refused, as far as that is recorded differently.
enum Fault {
    /// The policy denies it, by this rule.
    Denied(DenialRule, Refusal),
    /// Something else is wrong with it.
    Batch(Refusal),
    /// Nothing is wrong with it: there is no room, or no disk.
    Storage(Refusal),
    /// It proves that its producer signs twice.
    Equivocation(Box<Equivocation>),
}

impl Fault {
    /// A refusal says that the policy denies; which rule spoke, the decision knows.
    fn of_refusal(refusal: Refusal, decision: &Decision) -> Self {
        match decision {
            Err(denial) if refusal.code() == Code::Denied => Self::Denied(denial.rule().clone(), refusal),
            Ok(_) | Err(_) => Self::Batch(refusal),
        }
    }

    fn of_append(error: &AppendError) -> Self {
        Self::Storage(refusal_of(error))
    }
}

impl Client {
    pub(super) fn publish(
        &mut self,
        wire: &mut BrokerSession,
        request: RequestId,
        alias: Alias,
        bytes: Bytes,
    ) -> Result<(), Refusal> {
        if let Some(refusal) = self.closed_to_requests() {
            self.refuse(wire, request, refusal);
            return Ok(());
        }
        let now_ms = self.bus.clock.now_ms();
        let bytes_len = bytes.len();
        let Some(judged) = self.judge(alias, bytes, now_ms) else {
            return Err(Refusal::new(Code::Session, format!("alias {alias} is not open")));
        };
        self.summaries.expect_from(self.bus.clock.tick());
        match judged {
            Judged::Live(freshness) => {
                wire.ack(&Ack { request, receipt: LIVE, freshness, broker_ms: now_ms });
                Ok(())
            }
            Judged::Queued(freshness, receipt, ticket) => {
                let ack = Ack { request, receipt, freshness, broker_ms: now_ms };
                self.await_durable(alias, ticket, ack, bytes_len);
                if freshness == Freshness::Duplicate {
                    // It may have been durable long before it was sent again: then nobody will tell this session.
                    self.answer_durable(wire);
                }
                Ok(())
            }
            Judged::Refused(topic, Fault::Denied(rule, refusal)) => {
                let target = Target::Topic(topic);
                self.refuse_denied(wire, request, target, (Verb::Publish, rule), refusal)
            }
            Judged::Refused(topic, Fault::Batch(refusal)) => self.refuse_batch(wire, request, topic, refusal),
            Judged::Refused(_, Fault::Storage(refusal)) => {
                // The stream's own event is in the audit log: one line for a full disk, not one for each batch.
                self.refuse(wire, request, refusal);
                Ok(())
            }
            Judged::Refused(topic, Fault::Equivocation(evidence)) => {
                self.refuse_equivocation(wire, request, topic, &evidence)
            }
        }
    }

    /// Answers what has become durable, or was given up, since the session last looked.
    pub(super) fn answer_durable(&mut self, wire: &mut BrokerSession) {
        for answer in self.pending.take_settled() {
            match answer {
                Answer::Kept(ack) => wire.ack(&ack),
                Answer::Refused(request, refusal) => self.refuse(wire, request, refusal),
            }
        }
    }

    fn await_durable(&mut self, alias: Alias, ticket: Ticket, ack: Ack, bytes: usize) {
        let open = self.topics.get(place_of(alias)).and_then(Option::as_ref);
        if let Some(OpenTopic { destination: Destination::Stream(capture), .. }) = open {
            self.pending.push(capture.stream, &capture.store, ticket, ack, bytes);
        }
    }

    /// Judges a batch, sends a good one on its way, and counts it. None when the alias is not open.
    fn judge(&mut self, alias: Alias, bytes: Bytes, now_ms: u64) -> Option<Judged> {
        let open = self.topics.get_mut(place_of(alias))?.as_mut()?;
        let bytes_len = bytes.len();
        let batch = match Batch::decode(bytes) {
            Ok(batch) => batch,
            Err(error) => {
                let reason = format!("publish on {}: {error}", open.topic());
                return Some(refused(open, Fault::Batch(Refusal::new(Code::Format, reason))));
            }
        };
        let messages = batch.preamble().content.messages();
        let policy = Arc::clone(self.decisions.policy());
        let decision = self.decisions.on_topic(Want::Publish, &open.key.topic, now_ms);
        let mut state = lock(&open.state);
        let circumstances = Circumstances {
            bus_id: self.bus.id,
            topic: &open.key.topic,
            topic_digest: open.digest,
            producer: &self.producer,
            policy_version: policy.compiled.version(),
            decision: decision.as_ref(),
            // Asked under the lock: see above.
            fence: self.handle.fence(),
            now_ms,
        };
        let sender = Sender {
            bus: &self.bus,
            party: &self.party,
            binding: &self.binding,
            instance_kind: self.instance_kind,
            policy: &policy,
            now_ms,
        };
        let waiter = Arc::clone(&self.handle) as Arc<dyn Waiter>;
        let judged = match state.judge(batch, &circumstances) {
            Verdict::Accept(accepted) => match &mut open.destination {
                Destination::Live(route) => {
                    sender.send(&open.key.topic, &accepted, route);
                    state.commit(&accepted, LIVE);
                    Ok(Judged::Live(Freshness::New))
                }
                Destination::Stream(capture) => {
                    let appended = sender.append(&open.key.topic, &accepted, capture, &open.state, waiter);
                    appended.map(|(ticket, receipt)| {
                        state.commit(&accepted, receipt);
                        Judged::Queued(Freshness::New, receipt, ticket)
                    })
                }
            },
            Verdict::Duplicate(receipt) => again(&open.destination, receipt, waiter),
            Verdict::Refuse(refusal) => Err(Fault::of_refusal(refusal, decision)),
            Verdict::Equivocate(evidence) => Err(Fault::Equivocation(evidence)),
        };
        drop(state);
        if let Ok(Judged::Live(Freshness::New) | Judged::Queued(Freshness::New, ..)) = &judged {
            open.traffic.messages = open.traffic.messages.saturating_add(u64::from(messages));
            open.traffic.bytes = open.traffic.bytes.saturating_add(bytes_len as u64);
            self.traffic.published = self.traffic.published.saturating_add(u64::from(messages));
            self.bus.counts.published(messages, bytes_len);
        }
        Some(judged.unwrap_or_else(|fault| refused(open, fault)))
    }

    fn refuse_batch(
        &mut self,
        wire: &mut BrokerSession,
        request: RequestId,
        topic: Topic,
        refusal: Refusal,
    ) -> Result<(), Refusal> {
        let (code, reason) = (refusal.code(), refusal.reason().to_owned());
        self.record(Event::BatchRefused { actor: self.actor(), topic, code, reason })?;
        self.refuse(wire, request, refusal);
        Ok(())
    }

    fn refuse_equivocation(
        &mut self,
        wire: &mut BrokerSession,
        request: RequestId,
        topic: Topic,
        evidence: &Equivocation,
    ) -> Result<(), Refusal> {
        let reason = format!("another batch was signed and accepted at sequence {}", evidence.first_seq);
        self.record(Event::Equivocation {
            actor: self.actor(),
            topic,
            first_seq: evidence.first_seq,
            accepted_head: evidence.accepted_head.as_ref().map(BatchHead::new),
            refused_head: BatchHead::new(&evidence.refused_head),
        })?;
        self.refuse(wire, request, Refusal::new(Code::Equivocation, reason));
        Ok(())
    }
}

/// What goes with a batch, wherever it goes.
struct Sender<'a> {
    bus: &'a Bus,
    party: &'a Arc<Party>,
    binding: &'a Arc<Binding>,
    instance_kind: InstanceKind,
    policy: &'a PolicyInForce,
    now_ms: u64,
}

impl Sender<'_> {
    /// To the outboxes of those who listen.
    fn send(&self, topic: &Topic, accepted: &Accepted, route: &mut Route) {
        let batch = accepted.batch();
        let published = Arc::new(Published {
            topic: topic.clone(),
            batch: batch.bytes().clone(),
            messages: batch.preamble().content.messages(),
            broker_ms: self.now_ms,
            generation: self.policy.generation,
            producer: Arc::clone(self.party),
            binding: Arc::clone(self.binding),
            kept: None,
        });
        route.push(&self.bus.router, self.policy, &published, self.now_ms);
    }

    /// To the queue of its stream.
    fn append(
        &self,
        topic: &Topic,
        accepted: &Accepted,
        capture: &Capture,
        sequence: &Arc<Mutex<SequenceState>>,
        waiter: Arc<dyn Waiter>,
    ) -> Result<(Ticket, Receipt), Fault> {
        let fanned = Fanned {
            generation: self.policy.generation,
            producer: Arc::clone(self.party),
            binding: Arc::clone(self.binding),
        };
        let batch = NewBatch {
            accepted: accepted.clone(),
            topic: topic.clone(),
            key_record: capture.key_record,
            instance_kind: self.instance_kind,
            policy_version: self.policy.compiled.version(),
            context: Arc::new(fanned),
            sequence: Arc::clone(sequence),
            waiter,
        };
        let ticket = capture.store.append(batch, self.now_ms).map_err(|error| Fault::of_append(&error))?;
        let receipt = Receipt { durability: capture.store.durability(), offset: Some(ticket.offset()) };
        Ok((ticket, receipt))
    }
}

/// A batch came again. It was accepted; whether it is durable by now is its stream's to say.
fn again(destination: &Destination, receipt: Receipt, waiter: Arc<dyn Waiter>) -> Result<Judged, Fault> {
    match (destination, receipt.offset) {
        (Destination::Stream(capture), Some(offset)) => {
            let ticket = capture.store.again(offset, waiter).map_err(|error| Fault::of_append(&error))?;
            Ok(Judged::Queued(Freshness::Duplicate, receipt, ticket))
        }
        (Destination::Stream(_), None) | (Destination::Live(_), _) => Ok(Judged::Live(Freshness::Duplicate)),
    }
}

fn refused(open: &mut OpenTopic, fault: Fault) -> Judged {
    open.traffic.refused = open.traffic.refused.saturating_add(1);
    Judged::Refused(open.key.topic.clone(), fault)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{NOW_MS, bus, client};
    use super::*;

    #[test]
    fn a_batch_is_accepted_and_its_sequence_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let (bus, state) = (bus(dir.path()), Arc::default());
        let (mut client, batch) = client(&bus, &state);
        let judged = client.judge(Alias(0), batch, NOW_MS);
        assert!(matches!(judged, Some(Judged::Live(Freshness::New))));
        assert_eq!(lock(&state).resume_point().unwrap().next_seq, 1);
    }

    /// A session that is superseded while its batch waits for the sequence must not publish it: the session that took
    /// its place has been told where the sequence stands.
    #[test]
    fn nothing_of_a_superseded_session_follows_the_place_where_its_successor_resumes() {
        let dir = tempfile::tempdir().unwrap();
        let bus = bus(dir.path());
        for _ in 0..20 {
            let state = Arc::default();
            let (mut client, batch) = client(&bus, &state);
            let (handle, policy) = (Arc::clone(&client.handle), Arc::clone(client.decisions.policy()));
            let holders = || Arc::strong_count(&policy);
            let before = holders();
            let resume = lock(&state);
            let judged = std::thread::scope(|scope| {
                let publishing = scope.spawn(|| client.judge(Alias(0), batch, NOW_MS));
                // It holds the policy from shortly before it waits for the sequence, which is taken here.
                while holders() == before {
                    std::thread::yield_now();
                }
                (0..1_000).for_each(|_| std::thread::yield_now());
                handle.supersede();
                assert_eq!(resume.resume_point(), None);
                drop(resume);
                publishing.join().unwrap()
            });
            let Some(Judged::Refused(_, Fault::Batch(refusal))) = judged else { panic!("it is superseded") };
            assert_eq!(refusal.code(), Code::Fenced);
            assert_eq!(lock(&state).resume_point(), None);
        }
    }
}
