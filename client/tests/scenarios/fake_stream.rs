//! The scripted broker's streams: what is kept, who reads it, and what is proven of it.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::num::NonZeroU32;

use bytes::Bytes;
use sealbus_client::{StreamId, Topic, TopicFilter};
use sealbus_protocol::batch::Batch;
use sealbus_protocol::frame::{
    CheckpointGet, CheckpointReply, RecordRange, SettleItem, Settlement, Start, StoredAt, StreamStart,
};
use sealbus_protocol::tlog::{self, Hash, LeafFields, LogKey, root_of, stream_origin};
use zeroize::Zeroizing;

use crate::pki::BUS_ID;

/// The version of the policy under which everything is kept.
pub(crate) const POLICY_VERSION: u64 = 1;

pub(crate) const ORDERS: StreamId = StreamId::new([0x0d; 16]);

/// A batch that is kept.
#[derive(Debug, Clone)]
pub(crate) struct Kept {
    pub(crate) topic: Topic,
    pub(crate) stream_id: StreamId,
    pub(crate) offset: u64,
    pub(crate) append_ms: u64,
    pub(crate) at: StoredAt,
    pub(crate) ranges: Option<Vec<RecordRange>>,
    pub(crate) batch: Bytes,
}

impl Kept {
    pub(crate) fn count(&self) -> u32 {
        Batch::decode(self.batch.clone()).map_or(0, |batch| batch.preamble().content.messages())
    }

    pub(crate) fn end(&self) -> u64 {
        self.offset + u64::from(self.count())
    }
}

/// What the broker says of a history, where it is not honest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lie {
    /// Signs with another key.
    Forged,
    /// Signs only so many leaves.
    Cut(u64),
    /// Signs a log whose leaves are others.
    Rewritten,
    /// Signs the truth, and proves another leaf.
    OtherLeaf,
}

/// A durable consumer.
#[derive(Debug, Default)]
pub(crate) struct Group {
    settled: BTreeSet<u64>,
    deliveries: HashMap<u64, u32>,
    /// Everything that was settled, in the order in which it came.
    pub(crate) settlements: Vec<(u64, Settlement)>,
}

/// A stream.
pub(crate) struct Stream {
    pub(crate) id: StreamId,
    pub(crate) filter: TopicFilter,
    pub(crate) first: u64,
    pub(crate) kept: Vec<Kept>,
    pub(crate) groups: HashMap<String, Group>,
    pub(crate) lies: VecDeque<Lie>,
    /// Appended from now on at this time, instead of now.
    pub(crate) append_ms: Option<u64>,
}

impl Stream {
    pub(crate) fn new(filter: &str) -> Self {
        Self {
            id: ORDERS,
            filter: TopicFilter::parse(filter).unwrap(),
            first: 0,
            kept: Vec::new(),
            groups: HashMap::new(),
            lies: VecDeque::new(),
            append_ms: None,
        }
    }

    pub(crate) fn end(&self) -> u64 {
        self.kept.last().map_or(0, Kept::end)
    }

    pub(crate) fn append(&mut self, topic: &Topic, batch: &Bytes, now_ms: u64) -> u64 {
        let offset = self.end();
        self.kept.push(Kept {
            topic: topic.clone(),
            stream_id: self.id,
            offset,
            append_ms: self.append_ms.unwrap_or(now_ms),
            at: StoredAt { policy_version: POLICY_VERSION, leaf_index: self.kept.len() as u64 },
            ranges: None,
            batch: batch.clone(),
        });
        offset
    }

    pub(crate) fn start(&self, from: Start) -> StreamStart {
        let end = self.end();
        let at =
            |time_ms| self.kept.iter().find(|kept| kept.append_ms >= time_ms).map_or(end, |kept| kept.offset);
        let offset = match from {
            Start::Earliest => self.first,
            Start::Offset(offset) => offset,
            Start::Time(time_ms) => at(time_ms),
            Start::Last(messages) => end.saturating_sub(messages).max(self.first),
            Start::End => end,
        };
        StreamStart { stream_id: self.id, offset, end }
    }

    /// What a replay gets that stands at this offset.
    pub(crate) fn from(&self, next: u64, filter: Option<&TopicFilter>) -> Vec<Kept> {
        let next = next.max(self.first);
        let wanted =
            |kept: &&Kept| filter.is_none_or(|filter| filter.matches(&kept.topic)) && kept.end() > next;
        self.kept.iter().filter(wanted).cloned().collect()
    }

    /// What a member of a group gets now: everything that is not settled, and was not given to this membership.
    pub(crate) fn work(&mut self, group: &str, given: &BTreeSet<u64>) -> Vec<Kept> {
        let group = self.groups.entry(group.to_owned()).or_default();
        let mut work = Vec::new();
        for kept in &self.kept {
            let mut ranges = Vec::new();
            for index in 0..kept.count() {
                let offset = kept.offset + u64::from(index);
                if group.settled.contains(&offset) || given.contains(&offset) {
                    continue;
                }
                let deliveries = group.deliveries.entry(offset).or_default();
                *deliveries += 1;
                let deliveries = NonZeroU32::new(*deliveries).unwrap();
                match ranges.last_mut() {
                    Some(RecordRange { first, count, deliveries: before })
                        if *first + count.get() == index && *before == deliveries =>
                    {
                        *count = count.checked_add(1).unwrap();
                    }
                    _ => ranges.push(RecordRange { first: index, count: NonZeroU32::MIN, deliveries }),
                }
            }
            if !ranges.is_empty() {
                work.push(Kept { ranges: Some(ranges), ..kept.clone() });
            }
        }
        work
    }

    /// Settles, and gives the offsets that are to be delivered again.
    pub(crate) fn settle(&mut self, group: &str, items: &[SettleItem]) -> Vec<u64> {
        let group = self.groups.entry(group.to_owned()).or_default();
        let mut again = Vec::new();
        for item in items {
            for offset in item.offset..item.offset + u64::from(item.count.get()) {
                group.settlements.push((offset, item.settlement));
                match item.settlement {
                    Settlement::Ack => {
                        group.settled.insert(offset);
                    }
                    Settlement::Nack { .. } => again.push(offset),
                }
            }
        }
        again
    }

    fn leaves(&self) -> Vec<Hash> {
        let leaves = self.kept.iter().map(|kept| {
            let fields = LeafFields {
                bus_id: BUS_ID,
                stream_id: self.id,
                base_offset: kept.offset,
                append_ms: kept.append_ms,
                policy_version: POLICY_VERSION,
            };
            let batch = Batch::decode(kept.batch.clone()).unwrap();
            fields.leaf_hash(batch.preamble_bytes(), batch.signature())
        });
        leaves.collect()
    }

    pub(crate) fn checkpoint(&mut self, get: &CheckpointGet) -> CheckpointReply {
        let (mut leaves, mut signer, mut leaf_index) = (self.leaves(), log_key(), get.leaf_index);
        match self.lies.pop_front() {
            None => {}
            Some(Lie::Forged) => signer = LogKey::from_seed(&Zeroizing::new([1; 32])),
            Some(Lie::Cut(size)) => leaves.truncate(usize::try_from(size).unwrap()),
            Some(Lie::Rewritten) => leaves.reverse(),
            Some(Lie::OtherLeaf) => leaf_index = leaf_index.map(|index| index ^ 1),
        }
        let size = leaves.len() as u64;
        let origin = stream_origin(&BUS_ID, &self.id);
        let root = root_of(leaves.iter().copied());
        let checkpoint = tlog::Checkpoint::new(origin.clone(), size, root).unwrap();
        let nodes = |level, index| node(&leaves, level, index);
        let hashes = |hashes: Vec<Hash>| hashes.iter().map(|hash| *hash.as_bytes()).collect();
        let consistency = if get.old_size == 0 || get.old_size >= size {
            Vec::new()
        } else {
            tlog::consistency_proof(get.old_size, size, &nodes).unwrap()
        };
        let inclusion = match leaf_index {
            Some(index) if index < size => tlog::inclusion_proof(index, size, &nodes).unwrap(),
            Some(_) | None => Vec::new(),
        };
        CheckpointReply {
            request: get.request,
            size,
            prefix: Vec::new(),
            consistency: hashes(consistency),
            inclusion: hashes(inclusion),
            note: checkpoint.sign(&signer.signer(origin)).unwrap().to_string(),
        }
    }
}

/// The root of a perfect subtree: `level` says how large, `index` which.
fn node(leaves: &[Hash], level: impl Into<u64>, index: u64) -> Option<Hash> {
    let size = 1_u64 << level.into();
    let from = usize::try_from(index * size).ok()?;
    let to = usize::try_from((index + 1) * size).ok()?;
    Some(root_of(leaves.get(from..to)?.iter().copied()))
}

pub(crate) fn log_key() -> LogKey {
    LogKey::from_seed(&Zeroizing::new([0x4c; 32]))
}
