//! What a stream has made durable goes to those who listen, in the order of its offsets.
//!
//! The streams' writer threads call this. They push to outboxes as publishing sessions do for live topics: one lock
//! and at most one wake-up per session, and nobody waits for a slow one.

use std::any::Any;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, Weak};

use sealbus_protocol::ids::StreamId;
use sealbus_protocol::topic::Topic;

use super::route::Route;
use crate::audit::{Event, StreamChange};
use crate::bindings::Binding;
use crate::bus::Bus;
use crate::locks::lock;
use crate::outbox::{Kept, Published};
use crate::party::Party;
use crate::storage::stream::store::{CommitObserver, Stored, StreamDamage, StreamEvent, TrimReason};
use crate::telemetry;

/// Topics whose routes a stream's writer keeps. One route is a few hundred bytes; when there are more topics the routes
/// are found anew, which takes some microseconds for each.
const ROUTES_KEPT_MAX: usize = 16_384;

/// What travels with a batch through its stream, for those who listen live.
#[derive(Debug)]
pub(super) struct Fanned {
    /// Generation of the policy that it was accepted under.
    pub(super) generation: u64,
    /// Who published it, and from where.
    pub(super) producer: Arc<Party>,
    /// What binds its key.
    pub(super) binding: Arc<Binding>,
}

/// Watches all streams of a bus.
#[derive(Debug, Default)]
pub(crate) struct FanOut {
    /// The bus is made after its streams, and owns them.
    bus: OnceLock<Weak<Bus>>,
    /// Where the topics of each stream go. Found once and kept, as a publishing session keeps its own.
    routes: Mutex<HashMap<StreamId, HashMap<Topic, Route>>>,
}

impl FanOut {
    /// From now on committed batches go to this bus. Nothing is appended before.
    pub(crate) fn begin(&self, bus: &Arc<Bus>) {
        let _ = self.bus.set(Arc::downgrade(bus));
    }

    fn bus(&self) -> Option<Arc<Bus>> {
        self.bus.get().and_then(Weak::upgrade)
    }
}

impl CommitObserver for FanOut {
    fn committed(&self, stream: StreamId, batches: &[(Arc<Stored>, Arc<dyn Any + Send + Sync>)]) {
        let Some(bus) = self.bus() else { return };
        let policy = bus.policy.load_full();
        let now_ms = bus.clock.now_ms();
        // Two writers never have one stream, and a stream's routes are taken out while they are used: writers do not
        // wait for each other.
        let mut routes = lock(&self.routes).remove(&stream).unwrap_or_default();
        for (stored, context) in batches {
            // A dead letter has nobody who listens for it live.
            let Some(fanned) = context.downcast_ref::<Fanned>() else { continue };
            if routes.len() >= ROUTES_KEPT_MAX && !routes.contains_key(&stored.topic) {
                routes.clear();
            }
            let published = Arc::new(Published {
                topic: stored.topic.clone(),
                batch: stored.batch.clone(),
                messages: stored.messages,
                broker_ms: stored.append_ms,
                generation: fanned.generation,
                producer: Arc::clone(&fanned.producer),
                binding: Arc::clone(&fanned.binding),
                kept: Some(Kept {
                    stream,
                    offset: stored.offset,
                    policy_version: stored.policy_version,
                    leaf_index: stored.leaf_index,
                }),
            });
            routes.entry(stored.topic.clone()).or_default().push(&bus.router, &policy, &published, now_ms);
        }
        lock(&self.routes).insert(stream, routes);
    }

    fn event(&self, stream: StreamId, event: &StreamEvent) {
        tracing::info!({ telemetry::STREAM } = %stream, { telemetry::EVENT } = ?event, "stream");
        let Some(bus) = self.bus() else { return };
        let name = bus.storage.name_of(stream);
        let change = match event {
            StreamEvent::Damaged(StreamDamage::IndexRebuilt(text)) => StreamChange::Repaired(text.clone()),
            StreamEvent::Damaged(damage) => StreamChange::Damaged(damage.to_string()),
            StreamEvent::Stopped(reason) => StreamChange::Stopped(reason.to_string()),
            StreamEvent::Full => StreamChange::Full,
            StreamEvent::Resumed => StreamChange::Resumed,
            StreamEvent::SegmentSealed { base_offset: from, end_offset: to, bytes } => {
                StreamChange::SegmentSealed { from: *from, to: *to, bytes: *bytes }
            }
            StreamEvent::Trimmed { from, to, why } => {
                StreamChange::Trimmed { from: *from, to: *to, why: trim_word(*why) }
            }
            // Operators see the first in the log above; the second is proof by itself.
            StreamEvent::ClockJumped { .. } | StreamEvent::CheckpointSigned { .. } => return,
        };
        if let Err(error) = bus.audit.record(Event::Stream { name, id: stream, change }) {
            tracing::error!({ telemetry::ERROR } = %error, "an event of a stream is not in the audit log");
        }
    }
}

/// The word for why a stream was trimmed, the same in every version.
const fn trim_word(why: TrimReason) -> &'static str {
    match why {
        TrimReason::Asked => "asked",
        TrimReason::Age => "age",
        TrimReason::Bytes => "bytes",
        TrimReason::Messages => "messages",
    }
}
