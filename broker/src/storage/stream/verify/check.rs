//! The check on its way through the records. Pure but for the digests that it asks the log for.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use sealbus_protocol::batch::Batch;
use sealbus_protocol::ids::{IncarnationId, Kid, PreambleDigest, TopicDigest};
use sealbus_protocol::tlog::{CompactRange, Hash};

use super::question::{KeyJudge, KeyQuestion, VerifyOptions};
use super::report::{CheckpointFinding, Fault, VerifyReport};
use super::signed::Signed;
use crate::storage::log::{FrameView, LogReader, ReadError};
use crate::storage::stream::record::{decode_view, leaf_digest, leaf_of};
use crate::storage::stream::store::Stored;
use crate::storage::stream::tree::lost_leaf;

/// Faults that are listed; the rest is counted.
const FAULTS_MAX: usize = 1_000;

/// Digests that are read at once.
const CHUNK: u64 = 65_536;

type ChainKey = (Kid, IncarnationId, TopicDigest);

/// Where a producer's chain stands.
struct Chain {
    next_seq: u64,
    last: PreambleDigest,
}

/// The check on its way through the records.
pub(super) struct Check<'a> {
    options: &'a VerifyOptions,
    pub(super) tree: CompactRange,
    root_at: Option<Hash>,
    chains: HashMap<ChainKey, Chain>,
    /// Whether something that a chain may have led through is not there any more.
    pub(super) is_holed: bool,
    next_offset: u64,
    end_record: u64,
    last_ms: u64,
    last_version: u64,
    pub(super) trimmed_records: u64,
    lost_records: u64,
    first_lost: Option<u64>,
    verified: u64,
    messages: u64,
    bytes: u64,
    times_ms: Option<(u64, u64)>,
    faults: Vec<Fault>,
    fault_count: u64,
}

impl<'a> Check<'a> {
    pub(super) fn new(options: &'a VerifyOptions, first_offset: u64, end_record: u64) -> Self {
        Self {
            options,
            tree: CompactRange::new(),
            root_at: None,
            chains: HashMap::new(),
            is_holed: false,
            next_offset: first_offset,
            end_record,
            last_ms: 0,
            last_version: 0,
            trimmed_records: 0,
            lost_records: 0,
            first_lost: None,
            verified: 0,
            messages: 0,
            bytes: 0,
            times_ms: None,
            faults: Vec::new(),
            fault_count: 0,
        }
    }

    fn push(&mut self, leaf: Hash, checkpoint: &Signed) {
        self.tree.push(leaf);
        if checkpoint.size() == Some(self.tree.size()) {
            self.root_at = Some(self.tree.root());
        }
    }

    /// Takes the leaves of records that cannot be read, where they are left.
    pub(super) fn lost(
        &mut self,
        reader: &LogReader,
        records: Range<u64>,
        checkpoint: &Signed,
    ) -> Result<(), ReadError> {
        let mut from = records.start;
        while from < records.end {
            let to = records.end.min(from.saturating_add(CHUNK));
            for (record, digest) in (from..to).zip(reader.digests(from..to)?) {
                let leaf = digest.map_or_else(
                    || {
                        self.lost_records = self.lost_records.saturating_add(1);
                        self.first_lost.get_or_insert(record);
                        lost_leaf(record)
                    },
                    Hash::new,
                );
                self.push(leaf, checkpoint);
            }
            from = to;
        }
        Ok(())
    }

    pub(super) fn frame(
        &mut self,
        frame: &FrameView<'_>,
        reader: &LogReader,
        checkpoint: &Signed,
        judge: &mut KeyJudge<'_>,
    ) -> Result<(), ReadError> {
        if frame.record > self.tree.size() {
            self.is_holed = true;
            self.lost(reader, self.tree.size()..frame.record, checkpoint)?;
        } else if frame.record < self.tree.size() {
            self.fault(frame, format!("{} is the next record", self.tree.size()));
            return Ok(());
        } else if frame.offset != self.next_offset {
            self.fault(frame, format!("{} is the next offset", self.next_offset));
        }
        self.next_offset = frame.offset.saturating_add(u64::from(frame.count));
        self.bytes = self.bytes.saturating_add(frame.payload.len() as u64);
        let stored = match decode_view(frame) {
            Ok(stored) => stored,
            Err(error) => {
                self.fault(frame, error.to_string());
                let digest = leaf_digest(frame, self.options.bus_id, self.options.stream_id);
                self.push(Hash::new(digest), checkpoint);
                return Ok(());
            }
        };
        self.push(leaf_of(&stored, self.options.bus_id, self.options.stream_id), checkpoint);
        self.order(frame, &stored);
        match self.batch(&stored, judge) {
            Ok(()) => {
                self.verified = self.verified.saturating_add(1);
                self.messages = self.messages.saturating_add(u64::from(stored.messages));
            }
            Err(what) => self.fault(frame, what),
        }
        Ok(())
    }

    fn order(&mut self, frame: &FrameView<'_>, stored: &Stored) {
        if stored.append_ms < self.last_ms {
            let what = format!("appended at {} ms, before the record in front", stored.append_ms);
            self.fault(frame, what);
        }
        self.last_ms = self.last_ms.max(stored.append_ms);
        let first_ms = self.times_ms.map_or(stored.append_ms, |(first_ms, _)| first_ms);
        self.times_ms = Some((first_ms, stored.append_ms));
        if stored.origin.is_none() {
            if stored.policy_version < self.last_version {
                let what = format!("under policy {}, after {}", stored.policy_version, self.last_version);
                self.fault(frame, what);
            }
            self.last_version = self.last_version.max(stored.policy_version);
        }
    }

    /// Who made it, and what came before it. A dead letter is judged as of when it was stored first; its topic is
    /// bound to that stream and its chain leads through it.
    fn batch(&mut self, stored: &Stored, judge: &mut KeyJudge<'_>) -> Result<(), String> {
        let batch = Batch::decode(stored.batch.clone()).map_err(|error| error.to_string())?;
        let preamble = batch.preamble().clone();
        if preamble.bus_id != self.options.bus_id {
            return Err(format!("made for bus {}", preamble.bus_id));
        }
        if stored.origin.is_none() && preamble.topic != stored.topic.digest(&self.options.stream_id) {
            return Err("made for another topic or stream".to_owned());
        }
        let append_ms = stored.origin.as_ref().map_or(stored.append_ms, |origin| origin.append_ms);
        let question = KeyQuestion {
            key_record: stored.key_record,
            kid: preamble.kid,
            topic: &stored.topic,
            append_ms,
            policy_version: stored.policy_version,
        };
        let key = judge(&question)?;
        let digest = batch.digest();
        batch.verify(&key).map_err(|error| error.to_string())?;
        if stored.origin.is_some() {
            return Ok(());
        }
        let chain_key = (preamble.kid, preamble.incarnation_id, preamble.topic);
        let chain = Chain { next_seq: preamble.next_seq(), last: digest };
        match self.chains.insert(chain_key, chain) {
            Some(before) if before.next_seq == preamble.first_seq && before.last == preamble.prev => Ok(()),
            Some(before) if self.is_holed && preamble.first_seq > before.next_seq => Ok(()),
            Some(before) => Err(format!(
                "sequence {} does not follow its producer's last batch, which ends at {}",
                preamble.first_seq, before.next_seq
            )),
            None if preamble.first_seq == 0 || self.is_holed => Ok(()),
            None => Err(format!("its producer's first batch here is at sequence {}", preamble.first_seq)),
        }
    }

    fn fault(&mut self, frame: &FrameView<'_>, what: String) {
        self.fault_count = self.fault_count.saturating_add(1);
        if self.faults.len() < FAULTS_MAX {
            self.faults.push(Fault { record: Some(frame.record), offset: Some(frame.offset), what });
        }
    }

    pub(super) fn report(
        self,
        offsets: Range<u64>,
        checkpoint: Signed,
        damage: Vec<String>,
        torn_bytes: u64,
    ) -> VerifyReport {
        let checkpoint = match checkpoint {
            Signed::Missing => CheckpointFinding::Missing,
            Signed::Refused(why) => CheckpointFinding::Refused(why),
            Signed::Checkpoint(signed) => match self.root_at {
                None => CheckpointFinding::Beyond { size: signed.size() },
                Some(found) if found == *signed.root() => {
                    CheckpointFinding::Confirmed { size: signed.size(), root: found }
                }
                Some(_) if self.first_lost.is_some_and(|lost| lost < signed.size()) => {
                    CheckpointFinding::Unprovable { size: signed.size() }
                }
                Some(found) => {
                    CheckpointFinding::Contradicted { size: signed.size(), signed: *signed.root(), found }
                }
            },
        };
        let incarnations: HashSet<_> = self.chains.keys().map(|(_, incarnation, _)| *incarnation).collect();
        VerifyReport {
            offsets,
            records: self.end_record,
            trimmed_records: self.trimmed_records,
            lost_records: self.lost_records,
            verified: self.verified,
            messages: self.messages,
            bytes: self.bytes,
            incarnations: incarnations.len() as u64,
            times_ms: self.times_ms,
            root: self.tree.root(),
            checkpoint,
            damage,
            faults: self.faults,
            fault_count: self.fault_count,
            torn_bytes,
        }
    }
}
