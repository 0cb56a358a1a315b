//! How a session ends: what is framed is written, both directions are closed, and only then the connection.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Buf as _;
use sealbus_protocol::refusal::{Code, Refusal};
use sealbus_protocol::session::{SessionError, Tick};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::driver::{Driver, Going, Stage};
use crate::audit::{CutReason, Event};
use crate::pipeline::Ended;
use crate::telemetry;

/// Milliseconds in which a peer may take what is left for it when its session ends, and close its side.
const CLOSE_MS: u64 = 1_000;

pub(super) struct Ending {
    pub(super) deadline: Tick,
    pub(super) step: Step,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// What is framed is written.
    Writing,
    /// TLS and the connection are shut down in our direction.
    Closing,
    /// The peer may still send, which is thrown away: closing now would take from it what it has not yet read.
    Lingering,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Driver<S> {
    /// Nothing more comes. What is framed is still written: the peer may have closed its direction only.
    pub(super) fn handle_closed(&mut self, reason: String) {
        self.has_heard_end = true;
        match self.stage {
            Stage::Greeting { .. } => {
                self.refuse_greeting(Refusal::new(Code::Session, format!("hello: {reason}")))
            }
            Stage::Serving(_) => {
                self.note_end(Ended::Closed(reason));
                self.begin_ending();
            }
        }
    }

    /// Leaves when that was asked for and nothing is left to do. Returns whether there are last words to write.
    pub(super) fn finish(&mut self) -> bool {
        if !self.is_finishing || !self.is_open() || self.wire.unanswered() > 0 || !self.is_all_sent() {
            return false;
        }
        if let Stage::Serving(client) = &mut self.stage
            && client.is_drained()
        {
            client.end(Ended::Closed("the broker shut down".to_owned()));
            self.wire.fail(Refusal::new(Code::Draining, "the broker is shutting down"));
            self.begin_ending();
            return true;
        }
        false
    }

    pub(super) fn is_all_sent(&mut self) -> bool {
        !self.wire.outgoing().has_remaining() && self.flushed == self.written
    }

    /// Takes the steps of the end, once it has begun.
    pub(super) fn end(&mut self, cx: &mut Context<'_>) -> Going {
        while let Some(step) = self.ending.as_ref().map(|ending| ending.step) {
            let next = match step {
                Step::Writing if self.is_all_sent() => Step::Closing,
                Step::Writing => return Going::On,
                Step::Closing => match Pin::new(&mut self.io).poll_shutdown(cx) {
                    Poll::Pending => return Going::On,
                    Poll::Ready(Ok(())) if !self.has_heard_end => Step::Lingering,
                    Poll::Ready(Ok(()) | Err(_)) => return Going::Over,
                },
                Step::Lingering => {
                    self.pass_silent_barriers();
                    let mut scratch = [0; 4_096];
                    let mut thrown_away = ReadBuf::new(&mut scratch);
                    match Pin::new(&mut self.io).poll_read(cx, &mut thrown_away) {
                        Poll::Pending => return Going::On,
                        Poll::Ready(Ok(())) if !thrown_away.filled().is_empty() => Step::Lingering,
                        Poll::Ready(Ok(()) | Err(_)) => return Going::Over,
                    }
                }
            };
            if let Some(ending) = &mut self.ending {
                ending.step = next;
            }
        }
        Going::On
    }

    fn pass_silent_barriers(&mut self) {
        if let Stage::Serving(client) = &self.stage {
            self.until_silent.drain(..).for_each(|barrier| barrier.arrive(client.handle().id));
        }
    }

    pub(super) fn begin_ending(&mut self) {
        if self.ending.is_none() {
            let deadline = self.bus.clock.tick().after_ms(CLOSE_MS);
            self.ending = Some(Ending { deadline, step: Step::Writing });
        }
    }

    pub(super) fn note_end(&mut self, ended: Ended) {
        if let Stage::Serving(client) = &mut self.stage {
            client.end(ended);
        }
    }

    /// The broker ends the session, and tells the peer why.
    pub(super) fn cut(&mut self, why: CutReason) {
        if self.ending.is_none() {
            self.wire.fail(Refusal::new(code_of(&why), why.to_string()));
            if matches!(
                why,
                CutReason::PrincipalRevoked(_) | CutReason::CertificateRefused(_) | CutReason::StreamsChanged
            ) {
                self.bus.note_cut();
            }
            self.note_end(Ended::Cut(why));
            self.begin_ending();
        }
    }

    /// The session cannot go on for this reason.
    pub(super) fn fail(&mut self, refusal: Refusal) {
        let ended = if refusal.code() == Code::AuditUnavailable {
            Ended::Cut(CutReason::AuditUnavailable)
        } else {
            Ended::Closed(refusal.to_string())
        };
        self.wire.fail(refusal);
        self.note_end(ended);
        self.begin_ending();
    }

    /// The peer broke the protocol.
    pub(super) fn break_off(&mut self, error: &SessionError) {
        match self.stage {
            Stage::Greeting { .. } => self.refuse_greeting(error.refusal()),
            Stage::Serving(_) => self.fail(error.refusal()),
        }
    }

    /// The peer is not welcome.
    pub(super) fn refuse_greeting(&mut self, refusal: Refusal) {
        let event = Event::SessionRefused {
            source: self.peer.source,
            principal: Some(self.peer.chain.leaf().principal().clone()),
            code: refusal.code(),
            reason: refusal.reason().to_owned(),
        };
        if let Err(error) = self.bus.audit.record(event) {
            tracing::error!(
                { telemetry::ERROR } = %error,
                { telemetry::SOURCE } = %self.peer.source,
                "a refused session is not in the audit log"
            );
        }
        if let Stage::Greeting { slot, .. } = &mut self.stage {
            *slot = None;
        }
        self.wire.fail(refusal);
        self.begin_ending();
    }
}

/// What a peer is told whose session is cut for this reason.
const fn code_of(why: &CutReason) -> Code {
    match why {
        CutReason::PrincipalRevoked(_) => Code::Denied,
        CutReason::CertificateRefused(_) | CutReason::CertificateExpired => Code::Binding,
        CutReason::Fenced => Code::Fenced,
        CutReason::Superseded => Code::Session,
        CutReason::MarkerTimeout => Code::Limit,
        // Retried on a new connection, on which the topics are opened anew.
        CutReason::Drained | CutReason::StreamsChanged => Code::Draining,
        CutReason::AuditUnavailable => Code::AuditUnavailable,
    }
}
