//! Asking for checkpoints and proofs.

use std::sync::atomic::Ordering;
use std::time::Duration;

use sealbus_protocol::frame::CheckpointReply;
use sealbus_protocol::ids::{BusId, StreamId};
use sealbus_protocol::refusal::Code;
use sealbus_protocol::stream_name::StreamName;
use sealbus_protocol::tlog::{Hash, LeafFields, verify_inclusion};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

use crate::bus::Bus;
use crate::clock;
use crate::connection::command::{CheckpointWant, Inquiry};
use crate::error::RequestError;
use crate::event::Event;
use crate::message::{Delivery, LeafPlace, Message};
use crate::sync::locked;

use super::error::{CheckpointError, ProveError};
use super::ledger::{Heard, LogTrust};
use super::types::{Checkpoint, InclusionProof};

/// Between two looks for a checkpoint that has a message in it: brokers sign one a second while a stream grows.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

impl Bus {
    /// The newest checkpoint of a stream: signed by the log key that the trust file names, and proven to continue every
    /// one that this bus has seen of the stream before.
    ///
    /// Cancel-safe.
    ///
    /// # Errors
    /// [`CheckpointError`]. A history that was cut or rewritten is also told as [`Event::CheckpointInconsistent`].
    pub async fn checkpoint(&self, stream: &str) -> Result<Checkpoint, CheckpointError> {
        let stream = StreamName::parse(stream).map_err(CheckpointError::Stream)?;
        self.ask_checkpoint(&stream, None).await.map(|(checkpoint, _)| checkpoint)
    }

    /// Proves that a message is in its stream's log, exactly as it was delivered: offset, append time and policy version
    /// included. Waits for the checkpoint that has it, which comes within a second or two.
    ///
    /// When this bus had seen such a checkpoint while the producer's certificate held, the message is
    /// [`crate::Dated::Witnessed`] from then on.
    ///
    /// Cancel-safe.
    ///
    /// # Errors
    /// [`ProveError`] when it cannot be proven within the request deadline.
    pub async fn prove(&self, message: &Message) -> Result<InclusionProof, ProveError> {
        let delivery = message.delivery();
        let (stream, leaf) = match (&delivery.stream, delivery.leaf) {
            (Some(stream @ StreamName::Plain(_)), Some(leaf)) => (stream, leaf),
            (Some(StreamName::Plain(_) | StreamName::DeadLetters { .. }) | None, _) => {
                return Err(ProveError::NoPlace);
            }
        };
        let shared = self.shared();
        let deadline = Instant::now() + shared.request_timeout;
        loop {
            let (checkpoint, reply) = match self.ask_checkpoint(stream, Some(leaf.leaf_index)).await {
                // A stream that has just begun has no checkpoint at all for a second.
                Err(CheckpointError::Request(RequestError::Refused(refusal)))
                    if refusal.code() == Code::Limit && Instant::now() + LOOK_AGAIN < deadline =>
                {
                    sleep(LOOK_AGAIN).await;
                    continue;
                }
                asked => asked?,
            };
            if checkpoint.stream_id() != delivery.stream_id {
                return Err(ProveError::OtherStream);
            }
            let (size, index) = (checkpoint.size(), leaf.leaf_index);
            if index < size {
                let seen_ms = locked(&shared.ledger).seen_ms(delivery.stream_id, index);
                return prove(self.shared().bus_id, delivery, leaf, checkpoint, &reply, seen_ms);
            }
            if Instant::now() + LOOK_AGAIN >= deadline {
                return Err(ProveError::NotYet { size, index });
            }
            sleep(LOOK_AGAIN).await;
        }
    }

    /// Asks until an answer leads from what is known. Each question is asked with what was known at its time; others
    /// may learn more meanwhile.
    async fn ask_checkpoint(
        &self,
        stream: &StreamName,
        leaf_index: Option<u64>,
    ) -> Result<(Checkpoint, Box<CheckpointReply>), CheckpointError> {
        let shared = self.shared();
        let key = shared.log_key.ok_or(CheckpointError::NoLogKey)?;
        let trust = LogTrust { bus_id: shared.bus_id, key };
        let deadline = Instant::now() + shared.request_timeout;
        loop {
            let asked = locked(&shared.ledger).reference(stream);
            let old_size = asked.map_or(0, |reference| reference.size);
            let (reply, answer) = oneshot::channel();
            let want = CheckpointWant { stream: stream.clone(), old_size, leaf_index };
            let reply = self.inquire(Inquiry::Checkpoint { want, reply }, answer).await;
            let reply = reply.map_err(CheckpointError::Request)?;
            let heard = locked(&shared.ledger).handle_reply_at(trust, stream, asked, &reply, clock::now_ms());
            match heard {
                Ok(Heard::Believed(checkpoint)) => return Ok((checkpoint, reply)),
                Ok(Heard::AskAgain) if Instant::now() < deadline => {}
                Ok(Heard::AskAgain) => {
                    let after_ms = clock::milliseconds(shared.request_timeout);
                    return Err(CheckpointError::Request(RequestError::Timeout { after_ms }));
                }
                Err(error) => {
                    self.tell_inconsistent(stream, &error);
                    return Err(error);
                }
            }
        }
    }

    fn tell_inconsistent(&self, stream: &StreamName, error: &CheckpointError) {
        let (CheckpointError::RolledBack { older, newer, .. }
        | CheckpointError::Inconsistent { older, newer, .. }) = error
        else {
            return;
        };
        tracing::error!(stream = %stream, error = %error, "a history is not the one that was seen before");
        self.shared().events.tell(&Event::CheckpointInconsistent {
            stream: stream.clone(),
            older: older.clone(),
            newer: newer.clone(),
        });
    }
}

/// Verifies that a delivery is the leaf that the checkpoint has at its place.
fn prove(
    bus_id: BusId,
    delivery: &Delivery,
    leaf: LeafPlace,
    checkpoint: Checkpoint,
    reply: &CheckpointReply,
    seen_ms: Option<u64>,
) -> Result<InclusionProof, ProveError> {
    let (Some(base_offset), Some(first_seen_ms)) = (delivery.offset, seen_ms) else {
        return Err(ProveError::NoPlace);
    };
    let stream_id: StreamId = delivery.stream_id;
    let LeafPlace { leaf_index, append_ms, policy_version } = leaf;
    let fields = LeafFields { bus_id, stream_id, base_offset, append_ms, policy_version };
    let batch = delivery.batch.batch();
    let hash = fields.leaf_hash(batch.preamble_bytes(), batch.signature());
    let hashes: Vec<Hash> = reply.inclusion.iter().copied().map(Hash::new).collect();
    verify_inclusion(leaf_index, checkpoint.size(), &hash, checkpoint.tree_root(), &hashes)
        .map_err(ProveError::NotIncluded)?;
    if first_seen_ms <= delivery.dating.not_after_ms {
        delivery.dating.witnessed.store(true, Ordering::Relaxed);
    }
    Ok(InclusionProof::new(checkpoint, leaf_index, hashes, first_seen_ms))
}
