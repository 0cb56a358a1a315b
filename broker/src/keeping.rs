//! What the broker keeps, from its start to its stop: opened in the right order, looked after, and closed again.
//!
//! ```text
//!   $keys, $cursors, .. --> the policy into $policy, durable --> its streams --> producers, consumers --> sessions
//!   stop: sessions are gone --> cursors --> producers --> streams --> $...
//! ```

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use sealbus_protocol::ids::StreamId;
use sealbus_protocol::memory;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::audit::{Audit, Event, StreamChange};
use crate::bus::Bus;
use crate::clock::Clock;
use crate::config::Config;
use crate::consumers::flusher::CursorFlusher;
use crate::consumers::registry::Consumers;
use crate::consumers::undertaker::Undertaker;
use crate::locks::lock;
use crate::pipeline::FanOut;
use crate::policy::PolicyInForce;
use crate::producers::{Claim, SequenceKey};
use crate::storage::stream::RecoveredProducer;
use crate::storage::stream::store::{Bounds, StreamDamage, StreamEvent};
use crate::storage::whole::{
    Finding, OpenedStream, Recovered, Scrubber, Storage, StorageError, StorageParts, Unopened,
};
use crate::telemetry;
use crate::vfs::Vfs;

/// How often it is looked whether producers have to be kept, how far the slowest consumers are, and what was found.
const LOOK_AFTER_MS: u64 = 1_000;

/// The index follows the logs once in so many of these looks: what it saves is a start's reading of some seconds of log.
const INDEX_EVERY: u64 = 30;

/// What was opened, before there is a bus.
pub(crate) struct Kept {
    /// Streams and the broker's own logs.
    pub(crate) storage: Arc<Storage>,
    /// Durable consumers, where they stood.
    pub(crate) consumers: Arc<Consumers>,
    fan_out: Arc<FanOut>,
    opened: Vec<OpenedStream>,
    clock: Arc<dyn Clock>,
}

/// What looks after it.
#[derive(Debug)]
pub(crate) struct Keeping {
    storage: Arc<Storage>,
    /// Writes cursors; none when its thread could not be started.
    flusher: Option<CursorFlusher>,
    scrubber: Option<Scrubber>,
    tasks: Vec<JoinHandle<()>>,
    /// Told of what was found and not told yet.
    audit: Audit,
}

/// Opens everything that a broker keeps.
pub(crate) async fn open(
    config: &Config,
    policy: &PolicyInForce,
    (vfs, clock): (&Arc<dyn Vfs>, &Arc<dyn Clock>),
    audit: &Audit,
) -> Result<Kept, StorageError> {
    let fan_out = Arc::new(FanOut::default());
    let parts = StorageParts {
        vfs: Arc::clone(vfs),
        clock: Arc::clone(clock),
        observer: Arc::clone(&fan_out) as _,
        bus_id: config.bus_id,
        data_dir: config.data_dir.clone(),
        config: config.storage.clone(),
    };
    let (storage, recovered) = blocking(move || Storage::open(parts)).await?;
    let Recovered { consumers: kept, index_remarks } = recovered;
    let storage = Arc::new(storage);
    // Damage of the broker's own logs is told before anything is decided by what is left of them.
    report_findings(&storage, audit);
    for reason in index_remarks {
        index_rebuilt(audit, reason);
    }
    record_policy(&storage, policy).await?;
    let opened = follow_or(&storage, policy, audit, Unopened::StaysShut).await?;
    let ends: HashMap<StreamId, u64> = opened.iter().map(|stream| (stream.id, stream.bounds.end)).collect();
    let keys: Vec<_> = kept.iter().map(|kept| kept.key.clone()).collect();
    let consumers = Arc::new(Consumers::restore(kept, |id| ends.get(&id).copied()));
    let of = Arc::clone(&storage);
    blocking(move || of.open_known_dead_letters(keys)).await;
    report_findings(&storage, audit);
    Ok(Kept { storage, consumers, fan_out, opened, clock: Arc::clone(clock) })
}

/// Opens the streams of a policy that is about to come into force, and tells the audit log what was found. The producers
/// that they know are in what it returns.
pub(crate) async fn follow(
    storage: &Arc<Storage>,
    policy: &PolicyInForce,
    audit: &Audit,
) -> Result<Vec<OpenedStream>, StorageError> {
    follow_or(storage, policy, audit, Unopened::RefusesPolicy).await
}

async fn follow_or(
    storage: &Arc<Storage>,
    policy: &PolicyInForce,
    audit: &Audit,
    otherwise: Unopened,
) -> Result<Vec<OpenedStream>, StorageError> {
    let (of, streams) = (Arc::clone(storage), policy.compiled.policy().clone());
    let followed = blocking(move || of.follow(&streams, otherwise)).await;
    report_findings(storage, audit);
    let opened = followed?;
    for stream in &opened {
        let change = match stream.bounds {
            Bounds { end: 0, .. } => StreamChange::Created,
            Bounds { first, end } => StreamChange::Opened { first, end },
        };
        record(audit, &stream.name, stream.id, change);
        stream.opened.events.iter().for_each(|event| report(audit, &stream.name, stream.id, event));
        if let Some(reason) = &stream.index_remark {
            index_rebuilt(audit, format!("stream {}: {reason}", stream.name));
        }
        if let Some(reason) = &stream.opened.stopped {
            report(audit, &stream.name, stream.id, &StreamEvent::Stopped(Arc::clone(reason)));
        }
    }
    Ok(opened)
}

/// Returns when a policy is in `$policy`, durable.
pub(crate) async fn record_policy(
    storage: &Arc<Storage>,
    policy: &PolicyInForce,
) -> Result<(), StorageError> {
    let (done, kept) = oneshot::channel();
    let (storage, document) = (Arc::clone(storage), Arc::clone(&policy.document));
    let (version, hash) = (policy.compiled.version(), policy.hash);
    blocking(move || {
        storage.record_policy(version, hash, &document, move |outcome| {
            // Whoever asked may have gone.
            let _ = done.send(outcome);
        });
    })
    .await;
    match kept.await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(StorageError::NotKept("$policy", error.to_string())),
        Err(_) => Err(StorageError::NotKept("$policy", "the broker is stopping".to_owned())),
    }
}

/// Gives the producers that streams know back to the bus, which from then on has these streams.
pub(crate) fn admit(bus: &Bus, opened: Vec<OpenedStream>) {
    let ids: Vec<StreamId> = opened.iter().map(|stream| stream.id).collect();
    restore_producers(bus, opened);
    bus.storage.admit(ids);
}

fn restore_producers(bus: &Bus, opened: Vec<OpenedStream>) {
    let mut producers = lock(&bus.producers);
    let mut found: Vec<_> = opened
        .into_iter()
        .flat_map(|OpenedStream { id, producers, .. }| {
            producers.into_iter().map(move |(principal, producer)| (id, principal, producer))
        })
        .collect();
    // The least recently used come first, since those are forgotten first.
    found.sort_by_key(|(_, _, producer)| producer.last_ms);
    for (stream, principal, producer) in found {
        let RecoveredProducer { claim, topics, .. } = producer;
        let claim = Claim {
            principal,
            kid: claim.kid,
            instance_id: claim.instance_id,
            instance_kind: claim.instance_kind,
            started_ms: claim.started_ms,
            incarnation_id: claim.incarnation_id,
        };
        let sequences =
            topics.into_iter().map(|(topic, state)| (SequenceKey { stream, topic }, state)).collect();
        producers.restore(claim, sequences);
    }
}

impl Kept {
    /// There is a bus: from now on what streams commit goes to those who listen.
    pub(crate) fn begin(self, bus: &Arc<Bus>) -> Keeping {
        let Self { storage, consumers, fan_out, opened, clock } = self;
        fan_out.begin(bus);
        admit(bus, opened);
        let system = Arc::clone(storage.system());
        let flusher = match CursorFlusher::start(Arc::clone(&consumers), system, Arc::clone(&clock)) {
            Ok(flusher) => Some(flusher),
            Err(error) => {
                tracing::error!({ telemetry::ERROR } = %error, "no thread for cursors: consumers are redelivered to");
                None
            }
        };
        let scrubber = match Scrubber::start(Arc::clone(&storage)) {
            Ok(scrubber) => Some(scrubber),
            Err(error) => {
                tracing::error!({ telemetry::ERROR } = %error, "no thread to look for damage: it is found when it is read");
                None
            }
        };
        let undertaker = Undertaker {
            consumers: Arc::clone(&consumers),
            storage: Arc::clone(&storage),
            clock,
            audit: bus.audit.clone(),
        };
        let tasks = vec![
            tokio::spawn(undertaker.run()),
            tokio::spawn(look_after(Arc::clone(&storage), Arc::clone(&consumers), bus.audit.clone())),
        ];
        Keeping { storage, flusher, scrubber, tasks, audit: bus.audit.clone() }
    }

    /// It came to nothing.
    pub(crate) async fn close(self) {
        let storage = self.storage;
        blocking(move || storage.close()).await;
    }
}

impl Keeping {
    /// Nobody publishes or consumes any more: writes what waits, closes, and tells the audit log what was found since it
    /// was last told, or by closing. The next start would not find all of it again.
    pub(crate) async fn stop(self) {
        let Self { storage, flusher, scrubber, tasks, audit } = self;
        // Both only do again at the next start what they leave undone here.
        for task in tasks {
            task.abort();
        }
        blocking(move || {
            if let Some(scrubber) = scrubber {
                scrubber.stop();
            }
            if let Some(flusher) = flusher {
                flusher.stop();
            }
            storage.close();
            report_findings(&storage, &audit);
        })
        .await;
    }
}

/// Does from time to time what nobody waits for.
async fn look_after(storage: Arc<Storage>, consumers: Arc<Consumers>, audit: Audit) {
    for look in 1_u64.. {
        tokio::time::sleep(Duration::from_millis(LOOK_AFTER_MS)).await;
        memory::release_unused();
        let (storage, consumers, audit) = (Arc::clone(&storage), Arc::clone(&consumers), audit.clone());
        blocking(move || {
            storage.keep_producers();
            if look.is_multiple_of(INDEX_EVERY) {
                storage.follow_with_index();
            }
            for id in storage.ids() {
                let slowest = consumers.list(Some(id)).iter().map(|consumer| consumer.info(0).position).min();
                storage.set_hold(id, slowest);
            }
            report_findings(&storage, &audit);
        })
        .await;
    }
}

/// Tells the audit log what was found where nobody could tell it.
fn report_findings(storage: &Storage, audit: &Audit) {
    for Finding { id, name, event } in storage.take_findings() {
        report(audit, &name, id, &event);
    }
}

fn report(audit: &Audit, name: &str, id: StreamId, event: &StreamEvent) {
    let change = match event {
        StreamEvent::Damaged(StreamDamage::IndexRebuilt(text)) => StreamChange::Repaired(text.clone()),
        StreamEvent::Damaged(damage) => StreamChange::Damaged(damage.to_string()),
        StreamEvent::Stopped(reason) => StreamChange::Stopped(reason.to_string()),
        // Opening and reading do nothing of this; a stream that is written tells its observer.
        StreamEvent::Full
        | StreamEvent::Resumed
        | StreamEvent::SegmentSealed { .. }
        | StreamEvent::Trimmed { .. }
        | StreamEvent::ClockJumped { .. }
        | StreamEvent::CheckpointSigned { .. } => return,
    };
    tracing::error!({ telemetry::STREAM } = %name, { telemetry::ERROR } = %change, "found in what is kept");
    record(audit, name, id, change);
}

/// Runs what may wait for the disk where that holds nobody up. A panic of it is a panic here.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

fn index_rebuilt(audit: &Audit, reason: String) {
    tracing::warn!({ telemetry::REASON } = %reason, "the index is made anew");
    if let Err(error) = audit.record(Event::IndexRebuilt { reason }) {
        tracing::error!({ telemetry::ERROR } = %error, "a rebuilt index is not in the audit log");
    }
}

/// Records what happened to a stream. A failure is logged and no more: the audit log itself has stopped the bus then.
fn record(audit: &Audit, name: &str, id: StreamId, change: StreamChange) {
    if let Err(error) = audit.record(Event::Stream { name: name.to_owned(), id, change }) {
        tracing::error!({ telemetry::ERROR } = %error, "an event of a stream is not in the audit log");
    }
}
