//! Where each producer's sequence stands by what is durable in one stream.
//!
//! Kept beside the log and never from anything else, so that it is exactly as old as the log: a batch that was
//! acknowledged before the power went is recognised as a duplicate afterwards (FAILURES T61). A snapshot names the
//! record up to which it holds, and what was appended since is read again.

use std::collections::{HashMap, VecDeque};
use std::ops::ControlFlow;

use sealbus_protocol::batch::accept::{Durability, Receipt, RememberedBatch, SequenceState};
use sealbus_protocol::batch::preamble::{Preamble, preamble_digest};
use sealbus_protocol::batch::{FormatError, PREAMBLE_LEN};
use sealbus_protocol::frame::InstanceKind;
use sealbus_protocol::ids::{IncarnationId, InstanceId, Kid};
use sealbus_protocol::limits::{CREATED_BEHIND_MS_MAX, UNACKNOWLEDGED_BATCHES_MAX};
use sealbus_protocol::topic::Topic;

use super::record::decode_view;
use super::store::{Stored, StreamDamage};
use crate::storage::log::{Log, ReadError};

/// How long a sequence is remembered after its last batch. A batch older than [`CREATED_BEHIND_MS_MAX`] is refused
/// whatever is known of its producer, and an hour is more than clocks differ.
pub const REMEMBERED_MS: u64 = CREATED_BEHIND_MS_MAX + 60 * 60 * 1_000;

/// Sequences remembered of one stream, those longest unused dropped first. A full one has 4 KiB, most have a batch or
/// two: this is some tens of megabytes where a stream has that many producers at all.
const SEQUENCES_MAX: usize = 65_536;

/// A producer as a stream knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecoveredClaim {
    /// The key that signs for it.
    pub kid: Kid,
    /// Its process or replica.
    pub instance_id: InstanceId,
    /// Whether that fences.
    pub instance_kind: InstanceKind,
    /// Its start, milliseconds since 1970.
    pub started_ms: u64,
    /// The incarnation.
    pub incarnation_id: IncarnationId,
}

/// A producer with its sequences.
#[derive(Debug, Clone)]
pub struct RecoveredProducer {
    /// Who it is.
    pub claim: RecoveredClaim,
    /// The record of `$keys` that holds its binding.
    pub key_record: u64,
    /// Where it stands on each topic.
    pub topics: Vec<(Topic, SequenceState)>,
    /// When its last batch was appended, milliseconds since 1970.
    pub last_ms: u64,
}

/// All producers of a stream, as of one record.
#[derive(Debug, Clone, Default)]
pub struct ProducerSnapshot {
    /// Everything before this record is in it, and nothing after.
    pub record: u64,
    /// In no particular order.
    pub producers: Vec<RecoveredProducer>,
}

/// What one stream knows of its producers.
#[derive(Debug, Default)]
pub(super) struct ProducerTable {
    incarnations: HashMap<IncarnationId, Known>,
    sequences: usize,
}

#[derive(Debug)]
struct Known {
    claim: RecoveredClaim,
    key_record: u64,
    topics: HashMap<Topic, Sequence>,
}

#[derive(Debug, Default)]
struct Sequence {
    /// Oldest first.
    window: VecDeque<RememberedBatch>,
    last_ms: u64,
}

/// What following a log's records brought, besides the producers.
pub(super) struct Followed {
    pub(super) producers: ProducerTable,
    /// Of the last record.
    pub(super) policy_version: u64,
    pub(super) damage: Vec<StreamDamage>,
}

/// Takes the producers from a snapshot and the records after it; without one, from those that are young enough to
/// matter. Every record from `unwatched` on is looked at: the watermark does not know under which policy it was
/// written.
pub(super) fn recover(
    log: &Log,
    snapshot: Option<ProducerSnapshot>,
    durability: Durability,
    unwatched: u64,
    policy_version: u64,
) -> Result<Followed, ReadError> {
    let end_record = log.end_record();
    let (producers, from_record) = match snapshot {
        Some(snapshot) if snapshot.record <= end_record => {
            let record = snapshot.record;
            (ProducerTable::restore(snapshot), record)
        }
        // One that is ahead of the log is of another life of it.
        Some(_) | None => {
            let young_ms = log.last_time_ms().saturating_sub(REMEMBERED_MS);
            let segments = log.segments();
            let young = segments.iter().find(|segment| segment.last_time_ms >= young_ms);
            (ProducerTable::default(), young.map_or(end_record, |segment| segment.first_record))
        }
    };
    let mut followed = Followed { producers, policy_version, damage: Vec::new() };
    log.reader().scan(from_record.min(unwatched), &mut |frame| {
        let observed = decode_view(frame).map_err(|error| error.to_string()).and_then(|stored| {
            if stored.origin.is_some() {
                return Ok(());
            }
            followed.policy_version = followed.policy_version.max(stored.policy_version);
            if frame.record < from_record {
                return Ok(());
            }
            followed.producers.observe(&stored, durability).map_err(|error| error.to_string())
        });
        if let Err(reason) = observed {
            followed.damage.push(StreamDamage::Record { offset: frame.offset, reason });
        }
        ControlFlow::Continue(())
    })?;
    Ok(followed)
}

impl ProducerTable {
    pub(super) fn restore(snapshot: ProducerSnapshot) -> Self {
        let mut table = Self::default();
        for producer in snapshot.producers {
            let RecoveredProducer { claim, key_record, topics, last_ms } = producer;
            let id = claim.incarnation_id;
            let known = Known { claim, key_record, topics: HashMap::new() };
            let known = table.incarnations.entry(id).or_insert(known);
            for (topic, state) in topics {
                let window = state.remembered().collect();
                if known.topics.insert(topic, Sequence { window, last_ms }).is_none() {
                    table.sequences = table.sequences.saturating_add(1);
                }
            }
        }
        table
    }

    /// Follows a batch that is durable.
    pub(super) fn observe(&mut self, stored: &Stored, durability: Durability) -> Result<(), FormatError> {
        let head = stored.batch.first_chunk::<PREAMBLE_LEN>().expect("a stored batch has a whole head");
        let preamble = Preamble::decode(head)?;
        let known = self.incarnations.entry(preamble.incarnation_id).or_insert_with(|| Known {
            claim: RecoveredClaim {
                kid: preamble.kid,
                instance_id: preamble.instance_id,
                instance_kind: stored.instance_kind,
                started_ms: preamble.started_ms,
                incarnation_id: preamble.incarnation_id,
            },
            key_record: stored.key_record,
            topics: HashMap::new(),
        });
        known.key_record = stored.key_record;
        let sequence = match known.topics.get_mut(&stored.topic) {
            Some(sequence) => sequence,
            None => {
                self.sequences = self.sequences.saturating_add(1);
                known.topics.entry(stored.topic.clone()).or_default()
            }
        };
        if sequence.window.len() == UNACKNOWLEDGED_BATCHES_MAX {
            sequence.window.pop_front();
        }
        sequence.window.push_back(RememberedBatch {
            first_seq: preamble.first_seq,
            next_seq: preamble.next_seq(),
            digest: preamble_digest(head),
            receipt: Receipt { durability, offset: Some(stored.offset) },
        });
        sequence.last_ms = stored.append_ms;
        if self.sequences > SEQUENCES_MAX {
            self.make_room();
        }
        Ok(())
    }

    /// Drops what nobody can go on with any more.
    pub(super) fn forget_at(&mut self, now_ms: u64) {
        self.forget_before(now_ms.saturating_sub(REMEMBERED_MS));
    }

    /// As of the record that the caller has followed last.
    pub(super) fn snapshot(&self, record: u64) -> ProducerSnapshot {
        let producers = self.incarnations.values().map(|known| RecoveredProducer {
            claim: known.claim.clone(),
            key_record: known.key_record,
            topics: known
                .topics
                .iter()
                .map(|(topic, sequence)| {
                    (topic.clone(), SequenceState::restore(sequence.window.iter().cloned()))
                })
                .collect(),
            last_ms: known.topics.values().map(|sequence| sequence.last_ms).max().unwrap_or_default(),
        });
        ProducerSnapshot { record, producers: producers.collect() }
    }

    /// A sixteenth at once, so that the search is not on the path of every batch.
    fn make_room(&mut self) {
        let sequences = self.incarnations.values().flat_map(|known| known.topics.values());
        let mut ages: Vec<u64> = sequences.map(|sequence| sequence.last_ms).collect();
        let place = ages.len() / 16;
        let (_, cut, _) = ages.select_nth_unstable(place);
        let cut = *cut;
        self.forget_before(cut.saturating_add(1));
    }

    fn forget_before(&mut self, before_ms: u64) {
        let mut left = 0_usize;
        self.incarnations.retain(|_, known| {
            known.topics.retain(|_, sequence| sequence.last_ms >= before_ms);
            left = left.saturating_add(known.topics.len());
            !known.topics.is_empty()
        });
        self.sequences = left;
    }
}
