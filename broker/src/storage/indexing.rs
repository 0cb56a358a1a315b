//! The index beside the logs: what a start would otherwise have to read again.
//!
//! ```text
//!   start   index: producers of a stream as of record n  --> the stream opens and reads from n on
//!           is record n - 1 still what the index followed?  no --> forgotten, and the stream is opened without it
//!   later   from time to time: producers of each stream, and where each key is bound
//! ```
//!
//! Nothing here is the truth. An index that is lost, stale or damaged costs the time of reading, and is told to operators
//! and the audit log; an index that fails while the broker runs is left alone until the next start.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use sealbus_protocol::batch::accept::SequenceState;
use sealbus_protocol::binding::KeyBinding;
use sealbus_protocol::ids::{BusId, IncarnationId, Kid, StreamId};
use sealbus_protocol::topic::Topic;
use sha2::{Digest as _, Sha256};

use super::index::{
    Index, IndexError, KeyEntry, KeyPlace, LogEnd, MemoryIndex, Opened, ProducerEntry, ProducerKey, Standing,
    Update, Watermark, open_or_rebuild,
};
use super::stream::{ProducerSnapshot, RecoveredClaim, RecoveredProducer};
use super::system::SystemLog;
use super::system::keys::StoredKey;
use crate::locks::lock;
use crate::telemetry;
use crate::vfs::Vfs;

/// The index and what it followed.
pub struct Indexing {
    index: Box<dyn Index>,
    works: AtomicBool,
    /// Records of each stream that it has followed.
    followed: Mutex<HashMap<StreamId, u64>>,
}

impl Indexing {
    /// Opens the index, or makes an empty one. Says what must be told, when it is not as it was left.
    #[must_use]
    pub fn open(vfs: &dyn Vfs, dir: &Path, bus_id: &BusId) -> (Self, Option<String>) {
        let (index, remark): (Box<dyn Index>, _) = match open_or_rebuild(vfs, dir, bus_id) {
            Ok((index, Opened::Fresh | Opened::Kept)) => (Box::new(index), None),
            Ok((index, moved @ Opened::MovedAside { .. })) => (Box::new(index), Some(moved.to_string())),
            Err(error) => {
                (Box::new(MemoryIndex::fresh(bus_id)), Some(format!("{error}; this run goes without one")))
            }
        };
        (Self::with(index), remark)
    }

    /// Goes by this index.
    #[must_use]
    pub fn with(index: Box<dyn Index>) -> Self {
        Self { index, works: AtomicBool::new(true), followed: Mutex::default() }
    }

    /// The producers of a stream as the index has them; none when it has none.
    #[must_use]
    pub fn producers(&self, stream: StreamId) -> Option<(Watermark, ProducerSnapshot)> {
        let watermark = self.ask(|index| index.watermark(&stream))??;
        let rows = self.ask(|index| index.load_producers(&stream))?;
        let mut producers: HashMap<IncarnationId, RecoveredProducer> = HashMap::new();
        for (key, entry) in rows {
            let ProducerEntry {
                kid,
                instance_id,
                instance_kind,
                started_ms,
                key_record,
                window,
                last_used_ms,
            } = entry;
            let incarnation_id = key.incarnation_id;
            let claim = RecoveredClaim { kid, instance_id, instance_kind, started_ms, incarnation_id };
            let producer = producers.entry(incarnation_id).or_insert_with(|| RecoveredProducer {
                claim,
                key_record,
                topics: Vec::new(),
                last_ms: last_used_ms,
            });
            producer.last_ms = producer.last_ms.max(last_used_ms);
            producer.topics.push((key.topic, SequenceState::restore(window)));
        }
        let snapshot =
            ProducerSnapshot { record: watermark.end_record, producers: producers.into_values().collect() };
        Some((watermark, snapshot))
    }

    /// Whether the index followed the stream that was opened with what it gave. When it did not, it forgets the stream,
    /// and this says why.
    #[must_use]
    pub fn judge(
        &self,
        stream: StreamId,
        kept: &Watermark,
        end: LogEnd,
        digest_of: impl FnOnce(u64) -> Option<[u8; 32]>,
    ) -> Option<String> {
        match Watermark::judge(Some(kept), end, digest_of) {
            Standing::Follow { from_record } => {
                lock(&self.followed).insert(stream, from_record);
                None
            }
            Standing::Rebuild { why } => {
                self.ask(|index| index.clear(&stream));
                Some(why.to_string())
            }
        }
    }

    /// Follows a stream up to a snapshot of its producers, unless it has already. `digest` is that of the record before.
    pub fn follow(&self, stream: StreamId, end_offset: u64, digest: [u8; 32], snapshot: &ProducerSnapshot) {
        if lock(&self.followed).get(&stream) == Some(&snapshot.record) {
            return;
        }
        let watermark = Watermark { end_record: snapshot.record, end_offset, digest };
        let Some(rows) = self.ask(|index| index.load_producers(&stream)) else { return };
        // What the stream has forgotten goes from here too, or the index would grow with every incarnation there was.
        let known: HashSet<(IncarnationId, &Topic)> = snapshot
            .producers
            .iter()
            .flat_map(|producer| {
                producer.topics.iter().map(|(topic, _)| (producer.claim.incarnation_id, topic))
            })
            .collect();
        let gone = rows
            .into_iter()
            .map(|(key, _)| key)
            .filter(|key| !known.contains(&(key.incarnation_id, &key.topic)))
            .map(|key| Update::ProducerForgotten { key });
        let updates: Vec<Update> = snapshot.producers.iter().flat_map(rows_of).chain(gone).collect();
        if self.ask(|index| index.apply(&stream, &updates, &watermark)).is_some() {
            lock(&self.followed).insert(stream, snapshot.record);
        }
    }

    /// The first record of `$keys` that the index does not know. When it followed another log it forgets that, and
    /// knows none.
    #[must_use]
    pub fn keys_from(&self, end: LogEnd, load: impl FnOnce(u64) -> Option<Arc<StoredKey>>) -> u64 {
        let log = SystemLog::Keys.log_id();
        let kept = self.ask(|index| index.watermark(&log)).flatten();
        let standing = Watermark::judge(kept.as_ref(), end, |record| load(record).map(|key| digest(&key)));
        match standing {
            Standing::Follow { from_record } => from_record,
            Standing::Rebuild { .. } => {
                self.ask(|index| index.clear(&log));
                0
            }
        }
    }

    /// Notes where keys are bound, in the order of their records.
    pub fn note_keys(&self, keys: &[StoredKey]) {
        let Some(last) = keys.last() else { return };
        let end = last.record.saturating_add(1);
        let watermark = Watermark { end_record: end, end_offset: end, digest: digest(last) };
        let updates: Vec<Update> = keys
            .iter()
            .filter_map(|key| {
                let validity = KeyBinding::decode(key.bytes.clone()).ok()?.validity();
                let place = KeyPlace { kid: key.kid, record: key.record };
                Some(Update::Key { place, entry: KeyEntry { principal: key.principal.clone(), validity } })
            })
            .collect();
        self.ask(|index| index.apply(&SystemLog::Keys.log_id(), &updates, &watermark));
    }

    /// The newest record that binds a key.
    #[must_use]
    pub fn key_record(&self, keys_log: StreamId, kid: &Kid) -> Option<u64> {
        self.ask(|index| index.load_key(&keys_log, kid))?.last().map(|(record, _)| *record)
    }

    /// Asks for what was noted to be kept.
    pub fn flush(&self) {
        self.ask(|index| index.flush());
    }

    /// After a failure the index is not asked again.
    fn ask<T>(&self, ask: impl FnOnce(&dyn Index) -> Result<T, IndexError>) -> Option<T> {
        if !self.works.load(Ordering::Acquire) {
            return None;
        }
        match ask(&*self.index) {
            Ok(answer) => Some(answer),
            Err(error) => {
                self.works.store(false, Ordering::Release);
                tracing::warn!({ telemetry::ERROR } = %error, "the index is of no more use until the next start");
                None
            }
        }
    }
}

fn digest(key: &StoredKey) -> [u8; 32] {
    Sha256::digest(&key.bytes).into()
}

fn rows_of(producer: &RecoveredProducer) -> impl Iterator<Item = Update> + '_ {
    let RecoveredProducer { claim, key_record, topics, last_ms } = producer;
    topics.iter().map(move |(topic, state)| Update::Producer {
        key: ProducerKey { incarnation_id: claim.incarnation_id, topic: topic.clone() },
        entry: ProducerEntry {
            kid: claim.kid,
            instance_id: claim.instance_id,
            instance_kind: claim.instance_kind,
            started_ms: claim.started_ms,
            key_record: *key_record,
            window: state.remembered().collect(),
            last_used_ms: *last_ms,
        },
    })
}

impl std::fmt::Debug for Indexing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Indexing").field("followed", &lock(&self.followed).len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use sealbus_protocol::batch::accept::{Durability, Receipt, RememberedBatch};
    use sealbus_protocol::frame::InstanceKind;
    use sealbus_protocol::ids::{InstanceId, PreambleDigest};

    use super::*;

    const STREAM: StreamId = StreamId::new([5; 16]);

    fn producer(number: u8) -> RecoveredProducer {
        let batch = RememberedBatch {
            first_seq: 0,
            next_seq: 1,
            digest: PreambleDigest::new([number; 32]),
            receipt: Receipt { durability: Durability::Fsync, offset: Some(3) },
        };
        RecoveredProducer {
            claim: RecoveredClaim {
                kid: Kid::new([number; 32]),
                instance_id: InstanceId::new([number; 16]),
                instance_kind: InstanceKind::Random,
                started_ms: 1,
                incarnation_id: IncarnationId::new([number; 16]),
            },
            key_record: 0,
            topics: vec![(Topic::parse("t").unwrap(), SequenceState::restore([batch]))],
            last_ms: 9,
        }
    }

    /// A producer that starts again is a new incarnation: without this, each start would leave its rows for ever.
    #[test]
    fn what_a_stream_has_forgotten_goes_from_the_index() {
        let indexing = Indexing::with(Box::new(MemoryIndex::fresh(&BusId::new([1; 16]))));
        for number in 1..=20 {
            let record = u64::from(number);
            let snapshot =
                ProducerSnapshot { record, producers: vec![producer(number), producer(number + 1)] };
            indexing.follow(STREAM, record, [number; 32], &snapshot);
            let (watermark, mut kept) = indexing.producers(STREAM).unwrap();
            kept.producers.sort_by_key(|producer| producer.claim.incarnation_id);
            let ids: Vec<u8> =
                kept.producers.iter().map(|producer| producer.claim.incarnation_id.as_bytes()[0]).collect();
            assert_eq!((watermark.end_record, ids), (record, vec![number, number + 1]));
        }
    }
}
