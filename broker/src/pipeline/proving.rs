//! CHECKPOINT_GET: the newest signed statement about a stream, and proofs by it.

use std::sync::Arc;

use sealbus_protocol::frame::{CheckpointGet, CheckpointReply, RequestId};
use sealbus_protocol::policy::{StreamVerb, Verb};
use sealbus_protocol::refusal::{Code, Refusal};
use sealbus_protocol::session::BrokerSession;
use sealbus_protocol::stream_name::StreamName;
use sealbus_protocol::tlog::Hash;

use super::client::Client;
use super::publish::denied;
use crate::audit::Target;
use crate::letters::Letter;
use crate::storage::stream::store::{StoreError, StreamStore};

/// Proofs that one session may await. Each is some reads of a disk.
const AWAITED_MAX: usize = 16;

impl Client {
    /// Answers with the newest checkpoint of a stream that the session may read, in either way.
    pub(super) fn prove(&mut self, wire: &mut BrokerSession, get: CheckpointGet) -> Result<(), Refusal> {
        let CheckpointGet { request, old_size, leaf_index, stream } = get;
        if let Some(refusal) = self.closed_to_requests() {
            self.refuse(wire, request, refusal);
            return Ok(());
        }
        let (governing, now_ms) = (stream.governing(), self.bus.clock.now_ms());
        let may_replay = self.decisions.on_stream(StreamVerb::Replay, governing, None, now_ms);
        let may =
            may_replay.or_else(|_| self.decisions.on_stream(StreamVerb::Consume, governing, None, now_ms));
        if let Err(denial) = may {
            let refusal = denied("read the checkpoint of", &stream, &denial);
            let (target, rule) = (Target::Stream(stream.to_string()), denial.rule().clone());
            return self.refuse_denied(wire, request, target, (Verb::Replay, rule), refusal);
        }
        let store = match &stream {
            StreamName::Plain(name) => {
                let id = self.decisions.policy().compiled.stream(name.as_str()).map(|stream| stream.id());
                id.and_then(|id| self.bus.storage.stream(id))
            }
            // Dead letters are proven by the stream that they came from.
            StreamName::DeadLetters { .. } => None,
        };
        let Some(store) = store else {
            let reason = format!("there is no checkpoint of {stream} here");
            self.refuse(wire, request, Refusal::new(Code::Unsupported, reason));
            return Ok(());
        };
        if self.proofs_awaited >= AWAITED_MAX {
            let reason = format!("{AWAITED_MAX} proofs are being made for this connection");
            self.refuse(wire, request, Refusal::new(Code::Limit, reason));
            return Ok(());
        }
        self.proofs_awaited += 1;
        let handle = Arc::clone(&self.handle);
        tokio::task::spawn_blocking(move || {
            let answer = answer(&*store, request, old_size, leaf_index);
            handle.post(Letter::Checkpoint(request, answer.map(Box::new)));
        });
        Ok(())
    }

    pub(super) fn handle_proof(
        &mut self,
        wire: &mut BrokerSession,
        request: RequestId,
        answer: Result<Box<CheckpointReply>, Refusal>,
    ) {
        self.proofs_awaited = self.proofs_awaited.saturating_sub(1);
        match answer {
            Ok(reply) => wire.checkpoint(&reply),
            Err(refusal) => self.refuse(wire, request, refusal),
        }
    }
}

/// Reads the disk.
fn answer(
    store: &dyn StreamStore,
    request: RequestId,
    old_size: u64,
    leaf_index: Option<u64>,
) -> Result<CheckpointReply, Refusal> {
    let refuse = |error: StoreError| {
        let code = match &error {
            StoreError::NoSuchTree { .. } => Code::Limit,
            _ => Code::Internal,
        };
        Refusal::new(code, format!("proof: {error}"))
    };
    let Some(checkpoint) = store.checkpoint() else {
        return Err(Refusal::new(
            Code::Limit,
            "the stream has no checkpoint yet: it is empty, or a second old",
        ));
    };
    let size = checkpoint.size;
    if old_size > size {
        // Nothing is proven; the asker sees that the stream has gone back.
        let (prefix, consistency, inclusion) = (Vec::new(), Vec::new(), Vec::new());
        let note = checkpoint.note.clone();
        return Ok(CheckpointReply { request, size, prefix, consistency, inclusion, note });
    }
    let consistency = store.consistency(old_size, size).map_err(refuse)?;
    let inclusion = match leaf_index {
        Some(leaf) if leaf < size => store.inclusion(leaf, size).map_err(refuse)?,
        // A batch that is a second old may not be under a checkpoint yet: the asker sees it by the size, and asks again.
        Some(_) | None => Vec::new(),
    };
    let bytes = |hashes: Vec<Hash>| hashes.iter().map(|hash| *hash.as_bytes()).collect();
    Ok(CheckpointReply {
        request,
        size,
        prefix: bytes(consistency.prefix),
        consistency: bytes(consistency.proof),
        inclusion: bytes(inclusion),
        note: checkpoint.note.clone(),
    })
}
