//! CHECKPOINT_GET: the newest signed statement about a stream, and proofs by it.

use std::sync::Arc;

use sealbus_protocol::frame::{CheckpointGet, CheckpointReply, RequestId};
use sealbus_protocol::policy::{Denial, Name, StreamVerb, Verb};
use sealbus_protocol::refusal::{Code, Refusal};
use sealbus_protocol::session::BrokerSession;
use sealbus_protocol::stream_name::StreamName;
use sealbus_protocol::tlog::Hash;

use super::client::Client;
use super::refuse::denied;
use crate::audit::Target;
use crate::letters::Letter;
use crate::storage::stream::store::{StoreError, StreamStore};

/// Proofs that one session may await. Each is some reads of a disk.
const AWAITED_MAX: usize = 16;

impl Client {
    /// Answers with the newest checkpoint of a stream that the session may read, in either way. A thread that may block
    /// makes the proofs.
    pub(super) fn prove(&mut self, wire: &mut BrokerSession, get: CheckpointGet) -> Result<(), Refusal> {
        let CheckpointGet { request, ref stream, .. } = get;
        if let Some(refusal) = self.closed_to_requests() {
            self.refuse(wire, request, refusal);
            return Ok(());
        }
        if let Err(denial) = self.may_prove(stream.governing()) {
            let refusal = denied("read the checkpoint of", stream, &denial);
            let (target, rule) = (Target::Stream(stream.to_string()), denial.rule().clone());
            return self.refuse_denied(wire, request, target, (Verb::Replay, rule), refusal);
        }
        let found = match stream {
            StreamName::Plain(name) => {
                let id = self.decisions.policy().compiled.stream(name.as_str()).map(|stream| stream.id());
                id.and_then(|id| Some((name.clone(), id, self.bus.storage.stream(id)?)))
            }
            // Dead letters are proven by the stream that they came from.
            StreamName::DeadLetters { .. } => None,
        };
        let Some((name, id, store)) = found else {
            let reason = format!("there is no checkpoint of {stream} here");
            self.refuse(wire, request, Refusal::new(Code::Unsupported, reason));
            return Ok(());
        };
        if self.proofs_awaited.contains_key(&request) {
            return Err(Refusal::new(Code::Session, format!("request {} still waits", request.0)));
        }
        if self.proofs_awaited.len() >= AWAITED_MAX {
            let reason = format!("{AWAITED_MAX} proofs are being made for this connection");
            self.refuse(wire, request, Refusal::new(Code::Limit, reason));
            return Ok(());
        }
        self.proofs_awaited.insert(request, (name, id));
        let handle = Arc::clone(&self.handle);
        tokio::task::spawn_blocking(move || {
            let answer = answer(&*store, &get);
            handle.post(Letter::Checkpoint(request, answer.map(Box::new)));
        });
        Ok(())
    }

    /// Whether the session may read any of a stream, in either way.
    fn may_prove(&self, stream: &Name) -> Result<(), Denial> {
        let now_ms = self.bus.clock.now_ms();
        let may = |verb| self.decisions.on_stream(verb, stream, None, now_ms);
        may(StreamVerb::Replay).or_else(|_| may(StreamVerb::Consume)).map(drop)
    }

    /// A thread has made the proofs, or could not. The right to them may have ended meanwhile.
    pub(super) fn handle_proof(
        &mut self,
        wire: &mut BrokerSession,
        request: RequestId,
        answer: Result<Box<CheckpointReply>, Refusal>,
    ) {
        let Some((name, id)) = self.proofs_awaited.remove(&request) else { return };
        match answer {
            Ok(_) if !self.is_stream(&name, id) || self.may_prove(&name).is_err() => {
                let reason = "checkpoint: the right to read the stream was withdrawn";
                self.refuse(wire, request, Refusal::new(Code::Denied, reason));
            }
            Ok(reply) => wire.checkpoint(&reply),
            Err(refusal) => self.refuse(wire, request, refusal),
        }
    }
}

/// Reads the disk.
fn answer(store: &dyn StreamStore, get: &CheckpointGet) -> Result<CheckpointReply, Refusal> {
    let CheckpointGet { request, old_size, leaf_index, stream: _ } = *get;
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
    let consistency = store.consistency(old_size, size).map_err(|error| refuse(&error))?;
    let inclusion = match leaf_index {
        Some(leaf) if leaf < size => store.inclusion(leaf, size).map_err(|error| refuse(&error))?,
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

fn refuse(error: &StoreError) -> Refusal {
    let code = match error {
        StoreError::NoSuchTree { .. } => Code::Limit,
        StoreError::Disk(_) | StoreError::Unproven { .. } => Code::Internal,
    };
    Refusal::new(code, format!("proof: {error}"))
}
