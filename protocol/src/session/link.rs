//! What both halves have in common: the deframer, the outgoing bytes, and the watch over silence.

use bytes::BytesMut;

use crate::frame::{Deframer, Nonce, RawFrame};
use crate::limits::{PING_AFTER_MS, SILENCE_MS_MAX};

use super::error::SessionError;
use super::outgoing::Outgoing;
use super::tick::Tick;

#[derive(Debug)]
pub(super) struct Link {
    pub(super) deframer: Deframer,
    pub(super) outgoing: Outgoing,
    heard: Tick,
    pinged: Option<Tick>,
    /// PING may only be sent once both sides have greeted each other; before that a deadline watches.
    is_greeted: bool,
}

impl Link {
    pub(super) fn new_at(now: Tick) -> Self {
        Self {
            deframer: Deframer::unauthenticated(),
            outgoing: Outgoing::default(),
            heard: now,
            pinged: None,
            is_greeted: false,
        }
    }

    /// Both sides have greeted each other: frames may have their full length, and silence is asked about.
    pub(super) fn greeted(&mut self) {
        self.deframer.authenticate();
        self.is_greeted = true;
    }

    pub(super) fn space(&mut self) -> &mut BytesMut {
        self.deframer.space()
    }

    pub(super) fn handle_input_at(&mut self, now: Tick) {
        self.heard = now;
        self.pinged = None;
    }

    pub(super) fn poll_frame(&mut self) -> Result<Option<RawFrame>, SessionError> {
        Ok(self.deframer.poll_frame()?)
    }

    pub(super) fn pong(&mut self, nonce: Nonce) {
        self.outgoing.gather(|out| nonce.encode_pong(out));
    }

    /// The next moment at which silence means something: a ping, or the end.
    pub(super) fn poll_timeout(&self) -> Tick {
        let asks = self.is_greeted && self.pinged.is_none();
        self.heard.after_ms(if asks { PING_AFTER_MS } else { SILENCE_MS_MAX })
    }

    pub(super) fn handle_timeout_at(&mut self, now: Tick) -> Result<(), SessionError> {
        let silent_ms = now.since(self.heard);
        if silent_ms >= SILENCE_MS_MAX {
            return Err(SessionError::Silence { ms: silent_ms });
        }
        if silent_ms >= PING_AFTER_MS && self.is_greeted && self.pinged.is_none() {
            self.pinged = Some(now);
            self.outgoing.gather(|out| Nonce(now.0).encode_ping(out));
        }
        Ok(())
    }
}
