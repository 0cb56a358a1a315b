//! A store that keeps everything in memory: it shows that the suite is about streams, not about one engine.

use std::sync::{Arc, Mutex};

use sealbus_protocol::batch::accept::{Accepted, Durability, SequenceState};
use sealbus_protocol::ids::StreamId;
use sealbus_protocol::tlog::{
    Checkpoint, Hash, LogKey, NoteSigner, VerifierKey, consistency_proof, inclusion_proof, node_hash,
    prefix_at, root_of, stream_origin,
};

use crate::locks::lock;
use crate::storage::stream::conformance::{BUS, Engine};
use crate::storage::stream::record::leaf_of;
use crate::storage::stream::store::*;

/// Batches that go at once when the stream is trimmed.
const SEGMENT: usize = 16;

struct MemoryStore {
    stream_id: StreamId,
    signer: NoteSigner,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    batches: Vec<Arc<Stored>>,
    first: u64,
    end: u64,
    condition: Condition,
    watchers: Vec<(u64, Arc<dyn Waiter>)>,
    watched: u64,
    /// What was taken while the disk was full, and is given back after the append.
    withdrawn: u64,
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum Condition {
    #[default]
    Good,
    Full,
    /// The next batch breaks it.
    Brittle,
    Broken,
}

pub(super) struct MemoryEngine {
    store: Arc<MemoryStore>,
}

impl MemoryEngine {
    pub(super) fn new() -> Self {
        let stream_id = StreamId::new([0x57; 16]);
        let signer = LogKey::from_seed(&[9; 32].into()).signer(stream_origin(&BUS, &stream_id));
        Self { store: Arc::new(MemoryStore { stream_id, signer, state: Mutex::default() }) }
    }
}

impl Engine for MemoryEngine {
    fn stream_id(&self) -> StreamId {
        self.store.stream_id
    }

    fn verifier(&self) -> VerifierKey {
        self.store.signer.verifier()
    }

    fn open(&mut self) -> Arc<dyn StreamStore> {
        lock(&self.store.state).condition = Condition::Good;
        Arc::new(Shared(Arc::clone(&self.store)))
    }

    fn close(&mut self) {}

    fn fill_disk(&mut self) {
        lock(&self.store.state).condition = Condition::Full;
    }

    fn empty_disk(&mut self) {
        lock(&self.store.state).condition = Condition::Good;
        self.store.tell();
    }

    fn break_disk(&mut self) {
        lock(&self.store.state).condition = Condition::Brittle;
    }
}

struct Shared(Arc<MemoryStore>);

impl MemoryStore {
    fn tell(&self) {
        let watchers = lock(&self.state).watchers.clone();
        watchers.iter().for_each(|(_, waiter)| waiter.committed());
    }

    fn leaves(&self) -> Vec<Hash> {
        lock(&self.state).batches.iter().map(|stored| leaf_of(stored, BUS, self.stream_id)).collect()
    }

    fn prove<T>(
        &self,
        sizes: [u64; 2],
        prove: impl Fn(&dyn Fn(u8, u64) -> Option<Hash>) -> T,
    ) -> Result<T, StoreError> {
        let leaves = self.leaves();
        let size = leaves.len() as u64;
        if let Some(asked) = sizes.into_iter().find(|asked| *asked > size) {
            return Err(StoreError::NoSuchTree { asked, size });
        }
        fn node(leaves: &[Hash], level: u8, index: u64) -> Option<Hash> {
            match level {
                0 => leaves.get(usize::try_from(index).ok()?).copied(),
                _ => Some(node_hash(
                    &node(leaves, level - 1, index * 2)?,
                    &node(leaves, level - 1, index * 2 + 1)?,
                )),
            }
        }
        Ok(prove(&|level, index| node(&leaves, level, index)))
    }

    fn add(&self, make: impl FnOnce(u64, u64, u64) -> Stored) -> Result<Ticket, AppendError> {
        let ticket = {
            let mut state = lock(&self.state);
            let (offset, record) = (state.end, state.batches.len() as u64);
            match state.condition {
                Condition::Good => {
                    let last_ms = state.batches.last().map_or(0, |last| last.append_ms);
                    let stored = Arc::new(make(offset, record, last_ms));
                    state.end = stored.next_offset();
                    state.batches.push(stored);
                }
                Condition::Full => return Err(AppendError::Full),
                Condition::Brittle => state.condition = Condition::Broken,
                Condition::Broken => return Err(AppendError::Stopped { reason: "broken".into() }),
            }
            Ticket { offset, end_record: record + 1, epoch: state.withdrawn }
        };
        self.tell();
        Ok(ticket)
    }
}

fn stored(accepted: &Accepted, batch: &NewBatch) -> Stored {
    Stored {
        offset: 0,
        leaf_index: 0,
        append_ms: 0,
        policy_version: batch.policy_version,
        key_record: batch.key_record,
        topic: batch.topic.clone(),
        messages: accepted.batch().preamble().content.messages(),
        batch: accepted.batch().bytes().clone(),
        instance_kind: batch.instance_kind,
        origin: None,
    }
}

impl StreamStore for Shared {
    fn append(&self, batch: NewBatch, now_ms: u64) -> Result<Ticket, AppendError> {
        let _: &Arc<Mutex<SequenceState>> = &batch.sequence;
        self.0.add(|offset, leaf_index, last_ms| Stored {
            offset,
            leaf_index,
            append_ms: now_ms.max(last_ms),
            ..stored(&batch.accepted, &batch)
        })
    }

    fn append_dead_letter(&self, letter: NewDeadLetter, now_ms: u64) -> Result<Ticket, AppendError> {
        let NewDeadLetter { stored, ranges, waiter, .. } = letter;
        let ticket = self.0.add(|offset, leaf_index, last_ms| Stored {
            offset,
            leaf_index,
            append_ms: now_ms.max(last_ms),
            messages: ranges.iter().map(|range| range.count).sum(),
            origin: Some(Arc::new(Origin {
                offset: stored.offset,
                leaf_index: stored.leaf_index,
                append_ms: stored.append_ms,
                policy_version: stored.policy_version,
                ranges,
            })),
            ..Stored::clone(&stored)
        });
        waiter.committed();
        ticket
    }

    fn again(&self, offset: u64, _waiter: Arc<dyn Waiter>) -> Result<Ticket, AppendError> {
        if lock(&self.0.state).condition == Condition::Broken {
            return Err(AppendError::Stopped { reason: "broken".into() });
        }
        Ok(Ticket { offset, end_record: 0, epoch: 0 })
    }

    fn fate(&self, ticket: &Ticket) -> Fate {
        let state = lock(&self.0.state);
        if ticket.end_record <= state.batches.len() as u64 {
            Fate::Kept
        } else {
            Fate::Stopped("broken".into())
        }
    }

    fn bounds(&self) -> Bounds {
        let state = lock(&self.0.state);
        Bounds { first: state.first, end: state.end }
    }

    fn state(&self) -> StreamState {
        match lock(&self.0.state).condition {
            Condition::Good | Condition::Brittle => StreamState::Open,
            Condition::Full => StreamState::Full,
            Condition::Broken => StreamState::Stopped("broken".into()),
        }
    }

    fn durability(&self) -> Durability {
        Durability::Memory
    }

    fn tail(&self, from: u64, bytes_max: usize) -> Tail {
        let Bounds { first, end } = self.bounds();
        if from >= end {
            return Tail::AtEnd;
        }
        if from < first {
            return Tail::OnDisk;
        }
        Tail::Here(self.read(from, bytes_max).unwrap().batches)
    }

    fn read(&self, from: u64, bytes_max: usize) -> Result<StoredPage, StoreError> {
        let state = lock(&self.0.state);
        let mut page = StoredPage { batches: Vec::new(), next: from, skipped: Vec::new() };
        if from < state.first {
            page.skipped.push(SkippedOffsets { from, to: state.first, why: SkipReason::Trimmed });
            page.next = state.first;
        }
        let (start, mut bytes, mut whole) = (page.next, 0, 0);
        let follows = |stored: &&Arc<Stored>| stored.offset >= start || stored.next_offset() > start;
        for stored in state.batches.iter().filter(follows) {
            bytes += stored.batch.len();
            if bytes > bytes_max && whole > 0 {
                break;
            }
            page.batches.push(Arc::clone(stored));
            if stored.messages > 0 {
                whole = page.batches.len();
                page.next = stored.next_offset();
            }
        }
        page.batches.truncate(whole);
        Ok(page)
    }

    fn watch(&self, waiter: Arc<dyn Waiter>) -> WatchGuard {
        let mut state = lock(&self.0.state);
        state.watched += 1;
        let place = state.watched;
        state.watchers.push((place, waiter));
        let store = Arc::clone(&self.0);
        WatchGuard::new(move || lock(&store.state).watchers.retain(|(other, _)| *other != place))
    }

    fn offset_at(&self, time_ms: u64) -> Result<u64, StoreError> {
        let state = lock(&self.0.state);
        let found = state.batches.iter().find(|stored| stored.append_ms >= time_ms);
        Ok(found.map_or(state.end, |stored| stored.offset))
    }

    fn trim(&self, before: u64) -> Result<u64, StoreError> {
        let mut state = lock(&self.0.state);
        let ends = state.batches.chunks(SEGMENT).filter_map(|segment| segment.last());
        let cut = ends.map(|last| last.next_offset()).take_while(|end| *end <= before).last();
        state.first = state.first.max(cut.unwrap_or(0));
        Ok(state.first)
    }

    fn checkpoint(&self) -> Option<Arc<SignedCheckpoint>> {
        let leaves = self.0.leaves();
        let (size, root) = (leaves.len() as u64, root_of(leaves));
        let origin = stream_origin(&BUS, &self.0.stream_id);
        let note = Checkpoint::new(origin, size, root).unwrap().sign(&self.0.signer).unwrap().to_string();
        Some(Arc::new(SignedCheckpoint { note, size, root }))
    }

    fn consistency(&self, old_size: u64, size: u64) -> Result<ConsistencyAnswer, StoreError> {
        self.0.prove([old_size, size], |nodes| ConsistencyAnswer {
            prefix: prefix_at(old_size, nodes).unwrap().hashes().to_vec(),
            proof: consistency_proof(old_size, size, nodes).unwrap(),
        })
    }

    fn inclusion(&self, leaf: u64, size: u64) -> Result<Vec<Hash>, StoreError> {
        self.0.prove([leaf + 1, size], |nodes| inclusion_proof(leaf, size, nodes).unwrap())
    }

    fn stats(&self) -> StreamStats {
        let bounds = self.bounds();
        let records = lock(&self.0.state).batches.len() as u64;
        StreamStats {
            bounds,
            records,
            bytes: 0,
            segments: 0,
            damaged: 0,
            appends: records,
            syncs: 0,
            last_sync_micros: 0,
            scrubs: 0,
            checkpoint_size: records,
            checkpoint_root: root_of(self.0.leaves()),
            state: self.state(),
        }
    }
}
