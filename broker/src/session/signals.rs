//! What others tell a session: another policy, other certificates, leave.

use std::sync::Arc;

use bytes::Buf as _;
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
        {
            client.answer_admin(&mut self.wire, request, answer);
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
        let revoked = client.adopt();
        let now = client.generation();
        if before != now {
            self.wire.generation(&now);
        }
        let at = self.written.saturating_add(self.wire.outgoing().remaining() as u64);
        // A marker that is still on its way is covered by this one.
        if let Some(earlier) = self.marker.replace(Marker { at, barrier }) {
            self.until_silent.push(earlier.barrier);
        }
        if let Some(rule) = revoked {
            self.cut(CutReason::PrincipalRevoked(rule));
        }
        Going::On
    }

    /// Certificates, roots or revocation lists have changed: the peer's own are judged by the new ones.
    fn recheck(&mut self, barrier: Arc<Barrier>) {
        let Stage::Serving(client) = &mut self.stage else { return };
        let id = client.handle().id;
        let checked = self.port.tls.load().check_peer(&self.peer.chain, self.bus.clock.now_ms());
        match checked {
            Ok(_) => barrier.arrive(id),
            Err(error) => {
                self.until_silent.push(barrier);
                self.cut(CutReason::CertificateRefused(error.to_string()));
            }
        }
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
