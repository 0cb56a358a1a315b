//! ADMIN: changes, questions and audit lines, over the same session and by the same decisions as everything else.
//!
//! What takes time is done by a task of its own, which signals the answer to the session. A session has at most one
//! such task: the next request is refused until the answer is there.

use std::sync::Arc;

use bytes::Bytes;
use sealbus_protocol::frame::admin::{AUDIT_BYTES_MAX, Decision, Question};
use sealbus_protocol::frame::{AdminRequest, AdminResult, Operation, Outcome, RequestId};
use sealbus_protocol::identity::Principal;
use sealbus_protocol::policy::{Act, Denial, Name, RuleId, StreamVerb};
use sealbus_protocol::refusal::{Code, Refusal};
use sealbus_protocol::session::BrokerSession;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::oneshot;

use super::client::Client;
use crate::audit::{Event, Initiator, ReadError};
use crate::bus::Bus;
use crate::change::{ChangeRequest, ReloadError, ReloadReport};

/// What a session has under way as an administrator.
#[derive(Debug, Default)]
pub(super) struct Administering {
    awaited: Option<RequestId>,
    /// Reading the audit log is recorded once for a session: a reader that follows the log would otherwise find a new
    /// line each time it looks, its own.
    has_read_audit: bool,
}

/// What came of the decision about an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Checked {
    Permitted,
    /// The request has its answer, and the audit log its event.
    Refused,
}

const RELOAD: &str = "policy reload";
const CAN_I: &str = "can-i about another principal";
const AUDIT_READ: &str = "audit read";
const CONSUMER_RESET: &str = "consumer reset";
const STATS: &str = "stats";

impl Client {
    pub(super) fn administer(
        &mut self,
        wire: &mut BrokerSession,
        admin: AdminRequest,
    ) -> Result<(), Refusal> {
        let AdminRequest { request, operation } = admin;
        if let Some(refusal) = self.closed_to_requests() {
            self.refuse(wire, request, refusal);
            return Ok(());
        }
        match operation {
            Operation::PolicyReload => {
                if self.check(wire, request, RELOAD, Act::Admin)? == Checked::Refused {
                    return Ok(());
                }
                let by = Initiator::Session(self.actor());
                self.begin(wire, request, |bus| reload(bus, by));
                Ok(())
            }
            Operation::CanI { principal, question } => {
                let other = principal.filter(|principal| *principal != self.party.principal);
                if other.is_some() {
                    if self.check(wire, request, CAN_I, Act::Admin)? == Checked::Refused {
                        return Ok(());
                    }
                    self.record(Event::AdminDone { actor: self.actor(), operation: CAN_I })?;
                }
                let outcome = self.answer(other.as_ref(), &question);
                wire.admin_result(&AdminResult { request, outcome });
                Ok(())
            }
            Operation::Streams { name, after } => {
                self.list_streams(wire, request, name.as_ref(), after.as_ref());
                Ok(())
            }
            Operation::Consumers { stream, after } => {
                self.list_consumers(wire, request, stream.as_ref(), after.as_ref());
                Ok(())
            }
            Operation::ConsumerReset { consumer, from } => {
                if self.check(wire, request, CONSUMER_RESET, Act::Admin)? == Checked::Refused {
                    return Ok(());
                }
                self.record(Event::AdminDone { actor: self.actor(), operation: CONSUMER_RESET })?;
                let reset = self.reset_consumer(&consumer, from);
                self.begin(wire, request, |_| reset);
                Ok(())
            }
            Operation::Stats => {
                if self.check(wire, request, STATS, Act::Admin)? == Checked::Permitted {
                    self.count(wire, request);
                }
                Ok(())
            }
            Operation::AuditRead { from, lines_max } => {
                if self.check(wire, request, AUDIT_READ, Act::Audit)? == Checked::Refused {
                    return Ok(());
                }
                if !std::mem::replace(&mut self.administering.has_read_audit, true) {
                    self.record(Event::AdminDone { actor: self.actor(), operation: AUDIT_READ })?;
                }
                self.begin(wire, request, move |bus| read_audit(bus, from, lines_max));
                Ok(())
            }
        }
    }

    /// Takes the answer of the session's task, and decides once more whether it may be given.
    pub(crate) fn answer_admin(
        &mut self,
        wire: &mut BrokerSession,
        request: RequestId,
        answer: Result<Outcome, Refusal>,
    ) -> Result<(), Refusal> {
        if self.administering.awaited.take_if(|awaited| *awaited == request).is_none() {
            return Ok(());
        }
        match answer {
            // The right may have been withdrawn while the lines were read, and they would come after the marker.
            Ok(Outcome::AuditLines { .. })
                if self.check(wire, request, AUDIT_READ, Act::Audit)? == Checked::Refused => {}
            Ok(outcome) => wire.admin_result(&AdminResult { request, outcome }),
            Err(refusal) => self.refuse(wire, request, refusal),
        }
        Ok(())
    }

    /// Decides about an operation, and answers and records a denial.
    fn check(
        &mut self,
        wire: &mut BrokerSession,
        request: RequestId,
        operation: &'static str,
        act: Act<'_>,
    ) -> Result<Checked, Refusal> {
        match self.decisions.on_bus(act, self.bus.clock.now_ms()) {
            Ok(_) => Ok(Checked::Permitted),
            Err(denial) => {
                let rule = denial.rule().clone();
                self.record(Event::AdminDenied { actor: self.actor(), operation, rule })?;
                self.refuse(wire, request, Refusal::new(Code::Denied, format!("{operation}: {denial}")));
                Ok(Checked::Refused)
            }
        }
    }

    fn begin<F>(&mut self, wire: &mut BrokerSession, request: RequestId, work: impl FnOnce(Arc<Bus>) -> F)
    where
        F: Future<Output = Result<Outcome, Refusal>> + Send + 'static,
    {
        if self.administering.awaited.is_some() {
            let reason = "the answer to another administrative request of this connection is awaited";
            self.refuse(wire, request, Refusal::new(Code::Limit, reason));
            return;
        }
        self.administering.awaited = Some(request);
        let (work, handle) = (work(Arc::clone(&self.bus)), Arc::clone(&self.handle));
        tokio::spawn(async move {
            let answer = work.await;
            handle.signal(|control| control.answer = Some((request, answer)));
        });
    }

    /// Answers a question by the policy in force here, for the place that the asker is in.
    fn answer(&self, other: Option<&Principal>, question: &Question) -> Outcome {
        let act = match question {
            Question::Replay(stream) => return self.answer_stream(other, StreamVerb::Replay, stream),
            Question::Consume(stream) => return self.answer_stream(other, StreamVerb::Consume, stream),
            Question::Describe(stream) => Act::Describe(stream),
            Question::Publish(topic) => Act::Publish(topic),
            Question::Subscribe(topic) => Act::Subscribe(topic),
            Question::Admin => Act::Admin,
            Question::Audit => Act::Audit,
        };
        let now_ms = self.bus.clock.now_ms();
        let decided = match other {
            None => self.decisions.on_bus(act, now_ms),
            Some(principal) => {
                let subject = self.decisions.policy().compiled.subject(principal);
                subject.decide(act, &self.party.context_at(now_ms))
            }
        };
        decided_outcome(decided.as_ref().map(|permit| permit.rule()))
    }

    /// Whether somebody may read a stream at all.
    fn answer_stream(&self, other: Option<&Principal>, verb: StreamVerb, stream: &Name) -> Outcome {
        let now_ms = self.bus.clock.now_ms();
        let decided = match other {
            None => self.decisions.on_stream(verb, stream, None, now_ms),
            Some(principal) => {
                let subject = self.decisions.policy().compiled.subject(principal);
                subject.decide_stream(verb, stream, None, &self.party.context_at(now_ms))
            }
        };
        match &decided {
            Ok(permit) => match permit.rules().first() {
                Some(rule) => decided_outcome(Ok(rule)),
                None => Outcome::Decided { decision: Decision::Permitted, why: "some rule".to_owned() },
            },
            Err(denial) => decided_outcome(Err(denial)),
        }
    }
}

fn decided_outcome(decided: Result<&RuleId, &Denial>) -> Outcome {
    match decided {
        Ok(rule) => Outcome::Decided { decision: Decision::Permitted, why: format!("rule \"{rule}\"") },
        Err(denial) => Outcome::Decided { decision: Decision::Denied, why: denial.to_string() },
    }
}

/// Asks for a change and waits until it is a fact, or refused.
async fn reload(bus: Arc<Bus>, by: Initiator) -> Result<Outcome, Refusal> {
    let (reply, outcome) = oneshot::channel();
    let asked = bus.changes.try_send(ChangeRequest { by, reply });
    let report = match asked {
        Ok(()) => outcome.await.unwrap_or(Err(ReloadError::Stopping)),
        Err(TrySendError::Full(_)) => Err(ReloadError::Busy),
        Err(TrySendError::Closed(_)) => Err(ReloadError::Stopping),
    };
    match report {
        Ok(report) => Ok(outcome_of(&report)),
        Err(error) => {
            let code = match &error {
                ReloadError::Policy(_) | ReloadError::Tls { .. } => Code::Format,
                ReloadError::Storage(_) => Code::Internal,
                ReloadError::Audit(_) => Code::AuditUnavailable,
                ReloadError::Busy => Code::Limit,
                ReloadError::Stopping => Code::Draining,
            };
            Err(Refusal::new(code, format!("{RELOAD}: {error}")))
        }
    }
}

fn outcome_of(report: &ReloadReport) -> Outcome {
    let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    Outcome::PolicyReloaded {
        generation: report.generation,
        version: report.version,
        hash: report.hash,
        rules_before: count(report.rules_before),
        rules_after: count(report.rules_after),
        sessions_cut: count(report.sessions_cut),
    }
}

/// Reads lines on a thread that may block.
async fn read_audit(bus: Arc<Bus>, from: u64, lines_max: u32) -> Result<Outcome, Refusal> {
    let read = tokio::task::spawn_blocking(move || bus.audit.read(from, lines_max, AUDIT_BYTES_MAX));
    match read.await {
        // Beyond the end there is nothing yet; whoever asks is told where the end is.
        Ok(Err(ReadError::PastEnd { lines, .. })) => {
            Ok(Outcome::AuditLines { from, next: lines, lines: Bytes::new() })
        }
        Ok(Ok(page)) => Ok(Outcome::AuditLines { from, next: page.next, lines: page.lines }),
        Ok(Err(error)) => Err(Refusal::new(Code::Internal, format!("{AUDIT_READ} from {from}: {error}"))),
        Err(_) => Err(Refusal::new(Code::Internal, format!("{AUDIT_READ} from {from}: the reader failed"))),
    }
}
