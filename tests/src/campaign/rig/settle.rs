//! A new life: the history is brought to what was opened, and the producers go on from there.

use std::collections::BTreeMap;

use sealbus_broker::storage::system::SystemLog;
use sealbus_protocol::batch::accept::{SequenceState, Verdict};
use sealbus_protocol::ids::StreamId;

use super::driver::{Before, Rig};
use super::producers::said;
use crate::campaign::author::POLICY_VERSION;
use crate::campaign::history::{BatchEntry, When};
use crate::campaign::place::stream_id;

impl Rig {
    /// Brings the history to what was opened, and has the producers go on.
    pub(super) fn settle(&mut self, positions: &BTreeMap<(StreamId, String), u64>, before: Before) {
        let operations = self.now();
        let mut ends = Vec::new();
        for (number, core) in self.streams.iter_mut().enumerate() {
            let (records, bounds) = (usize::try_from(core.end_record()).unwrap_or(usize::MAX), core.bounds());
            let checkpoint = core.checkpoint().map(|checkpoint| checkpoint.size);
            let Some(history) = self.history.streams.get_mut(number) else { continue };
            let must = history.entries.iter().take_while(|entry| entry.when.acked.is_some()).count();
            if before == Before::SameDisk && (records < must || records > history.entries.len()) {
                let handed = history.entries.len();
                let text = format!(
                    "I1: stream {number} has {records} batches, {must} acknowledged, {handed} handed over"
                );
                self.wrong.push(text);
            }
            ends.push(history.entries.get(records..).unwrap_or_default().to_vec());
            match before {
                Before::SameDisk => {
                    history.entries.truncate(records);
                    history.acknowledge(operations);
                    history.forget_ghosts(operations);
                }
                Before::PowerLoss => history.settle(records, bounds.first, checkpoint),
            }
        }
        for which in [SystemLog::Keys, SystemLog::Policy, SystemLog::Producers] {
            let records = usize::try_from(self.plain(which).end_record()).unwrap_or(usize::MAX);
            let history = self.plain_history(which);
            match before {
                Before::SameDisk => {
                    history.entries.truncate(records);
                    history.acknowledge(operations);
                }
                Before::PowerLoss => history.settle(records),
            }
        }
        self.policy_version =
            self.policy_version.max(POLICY_VERSION + self.history.policies.entries.len() as u64);
        self.settle_cursors(positions, before);
        self.settle_producers(&ends);
    }

    pub(super) fn settle_cursors(&mut self, positions: &BTreeMap<(StreamId, String), u64>, before: Before) {
        let operations = self.now();
        for ((stream, name), places) in &mut self.history.cursors {
            let found = positions.get(&(stream_id(*stream), name.clone())).copied();
            // One that was removed and one that never was cannot be told apart.
            let from = places.iter().rposition(|(_, when)| when.is_acknowledged()).unwrap_or(0);
            let tail = places.get(from..).unwrap_or_default();
            match tail.iter().rposition(|(position, _)| *position == found) {
                Some(place) => places.truncate(from + place + 1),
                None if found.is_none() && tail.iter().all(|(_, when)| !when.is_acknowledged()) => {
                    places.clear()
                }
                None if before == Before::PowerLoss => {
                    // An older one, of the moment at which the power was lost. The check of that state has judged it.
                    places.retain(|(position, _)| *position == found);
                    places.truncate(1);
                }
                None => {
                    self.wrong.push(format!("{name} of stream {stream} stands at {found:?}, not in {tail:?}"))
                }
            }
            for (_, when) in places {
                *when = match before {
                    Before::PowerLoss => When::ALWAYS,
                    Before::SameDisk => When { acked: when.acked.or(Some(operations)), ..*when },
                };
            }
        }
    }

    /// Each producer sends again what was handed over and is not there; what is there is known as a duplicate.
    pub(super) fn settle_producers(&mut self, ends: &[Vec<BatchEntry>]) {
        for (number, core) in self.streams.iter_mut().enumerate() {
            let known = match core.producers() {
                Ok(known) => known,
                Err(error) => {
                    self.wrong.push(format!("stream {number} does not tell its producers: {error}"));
                    continue;
                }
            };
            for (author, producer) in self.producers.0.iter_mut().enumerate() {
                if producer.stream != number {
                    continue;
                }
                let identity = producer.author.identity();
                let recovered = known
                    .producers
                    .iter()
                    .find(|found| found.claim.incarnation_id == identity.incarnation_id());
                let sequence = recovered
                    .and_then(|found| found.topics.iter().find(|(topic, _)| topic == identity.topic()));
                producer.sequence =
                    sequence.map_or_else(SequenceState::from_start, |(_, state)| state.clone());
                let history = self.history.streams.get(number);
                let kept = history.map(|history| history.entries.as_slice()).unwrap_or_default();
                for entry in kept.iter().rev().filter(|entry| entry.author == author).take(3) {
                    match identity.judge(&producer.sequence, entry.batch.clone()) {
                        Verdict::Duplicate(receipt) if receipt.offset == Some(entry.offset) => {
                            *self.done.entry("duplicates_recognised").or_default() += 1;
                        }
                        other => self.wrong.push(format!(
                            "I5: the batch of producer {author} at {} is sent again and {}",
                            entry.offset,
                            said(&other)
                        )),
                    }
                }
                let lost = ends.get(number).into_iter().flatten().filter(|entry| entry.author == author);
                for entry in lost.rev() {
                    *self.done.entry("batches_sent_again").or_default() += 1;
                    producer.to_send.push_front(entry.batch.clone());
                }
                producer.key_record =
                    producer.key_record.min((self.history.keys.entries.len() as u64).saturating_sub(1));
            }
        }
    }
}
