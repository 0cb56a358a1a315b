//! From a topic to the stream that keeps it, and from a session's key to its record in `$keys`.
//!
//! A batch in a stream names the record that holds its producer's key binding, and that record is durable before the
//! first batch is taken: whoever reads the stream in ten years finds the certificate that proves it.

use std::sync::Arc;

use sealbus_protocol::frame::RequestId;
use sealbus_protocol::ids::StreamId;
use sealbus_protocol::refusal::{Code, Refusal};
use sealbus_protocol::session::BrokerSession;
use sealbus_protocol::topic::Topic;

use super::client::Client;
use crate::letters::Letter;
use crate::storage::stream::store::StreamStore;

/// A stream that keeps a topic, by the policy.
pub(super) struct Captured {
    stream: StreamId,
    store: Arc<dyn StreamStore>,
}

/// A stream that keeps a topic of this session.
pub(super) struct Capture {
    pub(super) stream: StreamId,
    pub(super) store: Arc<dyn StreamStore>,
    /// The record of `$keys` that binds the session's key.
    pub(super) key_record: u64,
}

/// Whether the binding of the session's key is in `$keys`.
#[derive(Debug, Default)]
pub(super) enum KeyRecord {
    /// Nobody has asked.
    #[default]
    Unknown,
    /// It is being written; these topics are opened when it is durable.
    Awaited(Vec<(RequestId, Topic)>),
    /// This record.
    Known(u64),
}

impl Client {
    /// The stream that keeps a topic; none when it is live only.
    pub(super) fn capture(&self, topic: &Topic) -> Result<Option<Captured>, Refusal> {
        let Some(stream) = self.decisions.policy().compiled.stream_of(topic) else { return Ok(None) };
        match self.bus.storage.stream(stream.id()) {
            Some(store) => Ok(Some(Captured { stream: stream.id(), store })),
            // The policy came into force with its streams; one that is missing could not be opened.
            None => {
                let reason = format!("publish on {topic}: stream {} is not open here", stream.name());
                Err(Refusal::new(Code::Internal, reason))
            }
        }
    }

    /// Adds the record of the session's key. None when it is not durable yet: the topic is opened later.
    pub(super) fn with_key_record(
        &mut self,
        request: RequestId,
        topic: &Topic,
        captured: Captured,
    ) -> Option<Capture> {
        if let KeyRecord::Unknown = self.key_record
            && let Some(record) = self.bus.storage.known_key(&self.binding.bytes)
        {
            self.key_record = KeyRecord::Known(record);
        }
        match &mut self.key_record {
            KeyRecord::Known(key_record) => {
                let Captured { stream, store } = captured;
                return Some(Capture { stream, store, key_record: *key_record });
            }
            KeyRecord::Awaited(topics) => topics.push((request, topic.clone())),
            KeyRecord::Unknown => {
                self.key_record = KeyRecord::Awaited(vec![(request, topic.clone())]);
                let handle = Arc::clone(&self.handle);
                let (kid, principal, bytes) =
                    (self.producer.kid, self.party.principal.clone(), self.binding.bytes.clone());
                self.bus.storage.record_key(kid, &principal, bytes, move |outcome| {
                    handle.post(Letter::KeyRecorded(outcome))
                });
            }
        }
        None
    }

    /// Opens the topics that waited for the key's record.
    pub(super) fn handle_key_recorded(
        &mut self,
        wire: &mut BrokerSession,
        outcome: Result<u64, String>,
    ) -> Result<(), Refusal> {
        let awaited = match std::mem::take(&mut self.key_record) {
            KeyRecord::Awaited(topics) => topics,
            KeyRecord::Unknown | KeyRecord::Known(_) => Vec::new(),
        };
        match outcome {
            Ok(record) => {
                self.key_record = KeyRecord::Known(record);
                awaited.into_iter().try_for_each(|(request, topic)| self.open(wire, request, topic))
            }
            Err(reason) => {
                for (request, topic) in awaited {
                    let reason = format!("publish on {topic}: the key binding cannot be kept: {reason}");
                    self.refuse(wire, request, Refusal::new(Code::Internal, reason));
                }
                Ok(())
            }
        }
    }
}

impl std::fmt::Debug for Capture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Capture")
            .field("stream", &self.stream)
            .field("key_record", &self.key_record)
            .finish_non_exhaustive()
    }
}
