//! How a consumer judges what is delivered: one order, each refusal with its own code. Nothing here believes the
//! broker.
//!
//! ```text
//!   FORMAT -> BINDING -> SEAL -> BINDING -> SIGNATURE -> REPLAY, EQUIVOCATION, CHAIN
//!   (decode)  bus, topic,        key, by     hash, then    (the producer's own sequence)
//!             filter             our roots   Ed25519
//! ```

use std::task::{Context, Poll, ready};

use sealbus_protocol::batch::read::{Place, SequenceError, SequenceReader};
use sealbus_protocol::batch::{Batch, Seal};
use sealbus_protocol::ids::{BusId, Kid, StreamId};
use sealbus_protocol::topic::{Topic, TopicFilter};

use crate::message::{Delivery, Rejection, RejectionCode};

use super::bindings::{Keyring, Lookup};
use super::feed::Unverified;

/// What a subscription judges by.
pub(super) struct Judge<'a> {
    pub(super) bus_id: BusId,
    pub(super) filter: &'a TopicFilter,
    pub(super) keyring: &'a Keyring,
    pub(super) sequences: &'a mut SequenceReader,
}

/// A delivery that proves itself, and its place.
pub(super) struct Judged {
    pub(super) delivery: Delivery,
    pub(super) place: Place,
}

impl Judge<'_> {
    /// Judges a delivery. Pending while the broker is asked for a key binding; nothing has changed then.
    pub(super) fn poll_judge_at(
        &mut self,
        unverified: &Unverified,
        now_ms: u64,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Judged, Rejection>> {
        let topic = &unverified.delivered.topic;
        let refuse =
            |code, kid, reason| Poll::Ready(Err(Rejection { code, topic: topic.clone(), reason, kid }));
        let batch = match Batch::decode(unverified.delivered.batch.clone()) {
            Ok(batch) => batch,
            Err(error) => return refuse(RejectionCode::Format, None, error.to_string()),
        };
        let kid = batch.preamble().kid;
        if let Err((code, reason)) = self.check_purpose(&batch, topic) {
            return refuse(code, Some(kid), reason);
        }
        let known = match ready!(self.keyring.poll_lookup_at(kid, now_ms, cx)) {
            Lookup::Known(known) => known,
            Lookup::Unbelieved(reason) => return refuse(RejectionCode::Binding, Some(kid), reason),
        };
        let batch = match batch.verify(&known.key) {
            Ok(batch) => batch,
            Err(error) => return refuse(RejectionCode::Signature, Some(kid), error.to_string()),
        };
        let place = match self.sequences.handle(&batch) {
            Ok(place) => place,
            Err(error) => return refuse(code_of(error), Some(kid), error.to_string()),
        };
        let delivery = Delivery {
            batch,
            topic: topic.clone(),
            producer: known.principal,
            offset: unverified.delivered.offset,
            generation: unverified.generation,
        };
        Poll::Ready(Ok(Judged { delivery, place }))
    }

    /// Whether the batch was made for this bus and for the topic that the broker names, and was asked for.
    fn check_purpose(&self, batch: &Batch, topic: &Topic) -> Result<(), (RejectionCode, String)> {
        let preamble = batch.preamble();
        if preamble.bus_id != self.bus_id {
            let reason = format!("it was made for bus {}, this is bus {}", preamble.bus_id, self.bus_id);
            return Err((RejectionCode::Binding, reason));
        }
        if preamble.topic != topic.digest(&StreamId::ZERO) {
            return Err((RejectionCode::Binding, "it was made for another topic or stream".into()));
        }
        if !self.filter.matches(topic) {
            let reason = format!("its topic is not among those that {} asks for", self.filter);
            return Err((RejectionCode::Binding, reason));
        }
        if preamble.seal != Seal::None {
            let reason = "it is sealed; sealed streams are not in this version".into();
            return Err((RejectionCode::Seal, reason));
        }
        Ok(())
    }
}

const fn code_of(error: SequenceError) -> RejectionCode {
    match error {
        SequenceError::Replay { .. } => RejectionCode::Replay,
        SequenceError::Equivocation { .. } => RejectionCode::Equivocation,
        SequenceError::Chain { .. } => RejectionCode::Chain,
    }
}

/// The key that a rejection names, for logs.
pub(super) fn kid_text(kid: Option<Kid>) -> String {
    kid.map_or_else(|| "unreadable".into(), |kid| kid.to_string())
}
