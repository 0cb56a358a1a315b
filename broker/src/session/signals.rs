//! What others tell a session: another policy, other certificates, leave.

use std::sync::Arc;

use bytes::Buf as _;
use sealbus_protocol::session::Tick;
use tokio::io::{AsyncRead, AsyncWrite};

use super::driver::{Driver, Going, Stage};
use super::ending::{Ending, Step};
use crate::audit::CutReason;
use crate::pipeline::Ended;
use crate::sessions::{Barrier, Control};

/// A GENERATION marker that is on its way.
pub(super) struct Marker {
    /// It ends here in the stream of all bytes written.
    at: u64,
    /// Until when the kernel must have taken it. It counts from the moment at which the session's own task queued the
    /// marker, so that a session is judged by its peer and not by how many others had their turn before it.
    pub(super) deadline: Tick,
    barrier: Arc<Barrier>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Driver<S> {
    /// Does what others have told the session.
    pub(super) fn handle_signals(&mut self) -> Going {
        let Stage::Serving(client) = &mut self.stage else { return Going::On };
        let Some(control) = client.handle().take_signals() else { return Going::On };
        let Control { policy, tls, drain, finish, cut, kill, answer } = control;
        if let Some(why) = kill {
            let is_silent = self.ending.as_ref().is_some_and(|ending| ending.step == Step::Lingering);
            if !is_silent {
                client.end(Ended::Cut(why));
            }
            return Going::Over;
        }
        let id = client.handle().id;
        if let Some((request, answer)) = answer
            && self.ending.is_none()
            && let Err(refusal) = client.answer_admin(&mut self.wire, request, answer)
        {
            self.fail(refusal);
            return Going::On;
        }
        if let Some((deadline_ms, barrier)) = drain {
            client.close_intake();
            self.wire.drain(deadline_ms);
            barrier.arrive(id);
        }
        self.is_finishing |= finish;
        if let Some(barrier) = policy
            && self.adopt(barrier) == Going::Over
        {
            return Going::Over;
        }
        if let Some(barrier) = tls {
            self.recheck(barrier);
        }
        if let Some(why) = cut {
            self.cut(why);
        }
        Going::On
    }

    /// Another policy is in force. From here on nothing is decided by the one before; what was, is already framed, and
    /// the marker goes behind it.
    fn adopt(&mut self, barrier: Arc<Barrier>) -> Going {
        let Stage::Serving(client) = &mut self.stage else { return Going::On };
        match &self.ending {
            // What is still being written was decided by the policy before. There is no marker after the last frame,
            // so it is not written.
            Some(Ending { step: Step::Writing | Step::Closing, .. }) => return Going::Over,
            Some(Ending { step: Step::Lingering, .. }) => {
                barrier.arrive(client.handle().id);
                return Going::On;
            }
            None => {}
        }
        let before = client.generation();
        let over = client.adopt(&mut self.wire);
        let now = client.generation();
        if before != now {
            self.wire.generation(&now);
        }
        let at = self.written.saturating_add(self.wire.outgoing().remaining() as u64);
        // A marker that is still on its way is covered by this one.
        let deadline = self.bus.clock.tick().after_ms(self.bus.limits.marker_timeout_ms);
        if let Some(earlier) = self.marker.replace(Marker { at, deadline, barrier }) {
            self.until_silent.push(earlier.barrier);
        }
        if let Some(why) = over {
            self.cut(why);
        }
        Going::On
    }

    /// Certificates, roots or revocation lists have changed: those of the peer's connection, and those that its key
    /// is bound with, are judged by the new ones. What waits of a producer that fails is not delivered any more.
    fn recheck(&mut self, barrier: Arc<Barrier>) {
        let Stage::Serving(client) = &mut self.stage else { return };
        let (tls, now_ms) = (self.port.tls.load(), self.bus.clock.now_ms());
        let checked = tls
            .check_peer(self.peer.chain.certificates(), now_ms)
            .map_err(|error| error.to_string())
            .and_then(|_| client.check_binding(&tls, now_ms));
        match checked {
            Ok(()) => barrier.arrive(client.handle().id),
            Err(reason) => {
                client.revoke_binding();
                self.until_silent.push(barrier);
                self.cut(CutReason::CertificateRefused(reason));
            }
        }
    }

    /// The marker has not become a fact in time: the session is over, as it is.
    pub(super) fn handle_marker_timeout_at(&mut self, now: Tick) -> Going {
        if self.marker.as_ref().is_none_or(|marker| now < marker.deadline) {
            return Going::On;
        }
        self.bus.note_cut();
        self.note_end(Ended::Cut(CutReason::MarkerTimeout));
        Going::Over
    }

    /// The marker is a fact once the kernel has all bytes up to its end. Returns whether it became one now.
    pub(super) fn settle_marker(&mut self) -> bool {
        let Stage::Serving(client) = &self.stage else { return false };
        let flushed = self.flushed;
        let Some(marker) = self.marker.take_if(|marker| marker.at <= flushed) else { return false };
        marker.barrier.arrive(client.handle().id);
        true
    }
}
