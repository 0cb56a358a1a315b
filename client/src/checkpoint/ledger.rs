//! What is believed of the streams' logs: the newest checkpoint of each, and when each size was first seen. Pure.
//!
//! ```text
//!   note ──signature──> (size, root) ──consistency with the one before──> believed ──> the one before of the next
//!                             |
//!                             '── smaller, or another root ──> the history was rewritten: both notes are kept as evidence
//! ```
//!
//! A broker that shows two histories must show them to two clients, or one of them takes notice.

use std::collections::HashMap;

use sealbus_protocol::frame::CheckpointReply;
use sealbus_protocol::ids::{BusId, StreamId};
use sealbus_protocol::keys::PUBLIC_KEY_LEN;
use sealbus_protocol::stream_name::StreamName;
use sealbus_protocol::tlog::{self, Hash, SignedNote, VerifierKey, stream_origin, verify_consistency};

use super::error::CheckpointError;
use super::types::Checkpoint;

/// Sizes of one log of which it is remembered when they were first seen. With one a minute they reach back most of a
/// week; the oldest are forgotten first, so that a message may seem to have been seen later, never earlier.
const SIGHTINGS_MAX: usize = 8_192;

/// Logs that are followed: as many as a policy may define streams, twice, since one may be given a new id.
const LOGS_MAX: usize = 2 * sealbus_protocol::limits::STREAMS_MAX;

/// Whom checkpoints of a bus must be signed by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LogTrust {
    pub(crate) bus_id: BusId,
    pub(crate) key: [u8; PUBLIC_KEY_LEN],
}

/// The checkpoints of one bus that have been verified.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    logs: HashMap<StreamId, Log>,
    /// Which log a name led to when it was last asked about.
    names: HashMap<StreamName, StreamId>,
}

#[derive(Debug)]
struct Log {
    newest: Checkpoint,
    sightings: Vec<Sighting>,
}

#[derive(Debug, Clone, Copy)]
struct Sighting {
    size: u64,
    seen_ms: u64,
}

/// What a question was asked with: the answer's proof leads from there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reference {
    stream_id: StreamId,
    pub(crate) size: u64,
    root: Hash,
}

/// What an answer came to.
#[derive(Debug)]
pub(crate) enum Heard {
    /// It is signed, and continues what was seen before.
    Believed(Checkpoint),
    /// It is signed, and was not asked to lead from what is known of its log: that is another one than the name led to
    /// before, or somebody else has heard more of it meanwhile.
    AskAgain,
}

impl Ledger {
    /// What is known of the log that the name leads to.
    pub(crate) fn reference(&self, stream: &StreamName) -> Option<Reference> {
        let stream_id = self.names.get(stream)?;
        self.logs.get(stream_id).map(Log::reference)
    }

    /// When a checkpoint was first seen that has this leaf in it.
    pub(crate) fn seen_ms(&self, stream_id: StreamId, leaf_index: u64) -> Option<u64> {
        let sightings = &self.logs.get(&stream_id)?.sightings;
        let index = sightings.partition_point(|sighting| sighting.size <= leaf_index);
        sightings.get(index).map(|sighting| sighting.seen_ms)
    }

    /// Judges an answer, and remembers it when it is believed.
    pub(crate) fn handle_reply_at(
        &mut self,
        trust: LogTrust,
        stream: &StreamName,
        asked: Option<Reference>,
        reply: &CheckpointReply,
        now_ms: u64,
    ) -> Result<Heard, CheckpointError> {
        let checkpoint = open(trust, reply)?;
        let stream_id = checkpoint.stream_id();
        if self.logs.len() >= LOGS_MAX && !self.logs.contains_key(&stream_id) {
            return Err(CheckpointError::TooManyLogs { max: LOGS_MAX });
        }
        self.names.insert(stream.clone(), stream_id);
        let Some(log) = self.logs.get_mut(&stream_id) else {
            let sightings = vec![Sighting { size: checkpoint.size(), seen_ms: now_ms }];
            self.logs.insert(stream_id, Log { newest: checkpoint.clone(), sightings });
            return Ok(Heard::Believed(checkpoint));
        };
        if asked != Some(log.reference()) {
            return Ok(Heard::AskAgain);
        }
        log.check(&checkpoint, &reply.consistency)?;
        log.advance_at(checkpoint.clone(), now_ms);
        Ok(Heard::Believed(checkpoint))
    }
}

impl Log {
    const fn reference(&self) -> Reference {
        Reference {
            stream_id: self.newest.stream_id(),
            size: self.newest.size(),
            root: *self.newest.tree_root(),
        }
    }

    /// Whether a signed checkpoint continues the newest.
    fn check(&self, next: &Checkpoint, consistency: &[[u8; 32]]) -> Result<(), CheckpointError> {
        let (older, newer) = (|| self.newest.note().to_owned(), || next.note().to_owned());
        if next.size() < self.newest.size() {
            let (seen, found) = (self.newest.size(), next.size());
            return Err(CheckpointError::RolledBack { seen, found, older: older(), newer: newer() });
        }
        let proof: Vec<Hash> = consistency.iter().copied().map(Hash::new).collect();
        verify_consistency(self.newest.size(), next.size(), self.newest.tree_root(), next.tree_root(), &proof)
            .map_err(|error| CheckpointError::Inconsistent { older: older(), newer: newer(), error })
    }

    fn advance_at(&mut self, next: Checkpoint, now_ms: u64) {
        if next.size() > self.newest.size() {
            if self.sightings.len() == SIGHTINGS_MAX {
                self.sightings.remove(0);
            }
            self.sightings.push(Sighting { size: next.size(), seen_ms: now_ms });
        }
        self.newest = next;
    }
}

/// Verifies an answer's note: it names a log of this bus, and its key signed it under that log's name.
fn open(trust: LogTrust, reply: &CheckpointReply) -> Result<Checkpoint, CheckpointError> {
    let signature = |error: tlog::CheckpointError| CheckpointError::Signature(error);
    let note = SignedNote::parse(reply.note.as_bytes())
        .map_err(|error| signature(tlog::CheckpointError::Note(error)))?;
    let claimed = tlog::Checkpoint::parse(note.text_unverified()).map_err(signature)?;
    let origin = claimed.origin().as_str();
    let stream_id = origin
        .strip_prefix(&format!("{}/stream/", trust.bus_id))
        .and_then(|id| id.parse().ok())
        .ok_or_else(|| CheckpointError::Origin { found: origin.to_owned() })?;
    let key = VerifierKey::new(stream_origin(&trust.bus_id, &stream_id), &trust.key)
        .map_err(CheckpointError::Key)?;
    let checkpoint = tlog::Checkpoint::open(reply.note.as_bytes(), &key).map_err(signature)?;
    if checkpoint.size() != reply.size {
        return Err(CheckpointError::Size { signed: checkpoint.size(), said: reply.size });
    }
    Ok(Checkpoint::new(stream_id, checkpoint, reply.note.clone()))
}

#[cfg(test)]
mod tests {
    use sealbus_protocol::frame::RequestId;
    use sealbus_protocol::tlog::{CompactRange, LogKey, leaf_hash, root_of};
    use zeroize::Zeroizing;

    use super::*;

    const BUS: BusId = BusId::new([1; 16]);
    const STREAM: StreamId = StreamId::new([2; 16]);
    const OTHER: StreamId = StreamId::new([3; 16]);

    fn log_key(seed: u8) -> LogKey {
        LogKey::from_seed(&Zeroizing::new([seed; 32]))
    }

    fn trust() -> LogTrust {
        LogTrust { bus_id: BUS, key: log_key(7).public() }
    }

    fn name() -> StreamName {
        StreamName::parse("orders").unwrap()
    }

    /// The leaves of a log, of which each seed has its own.
    fn leaves(seed: u8, size: u64) -> Vec<Hash> {
        (0..size).map(|index| leaf_hash(&[&[seed][..], &index.to_be_bytes()].concat())).collect()
    }

    fn reply(key: &LogKey, stream_id: StreamId, leaves: &[Hash], old_size: u64) -> CheckpointReply {
        let origin = stream_origin(&BUS, &stream_id);
        let root = root_of(leaves.iter().copied());
        let size = leaves.len() as u64;
        let note =
            tlog::Checkpoint::new(origin.clone(), size, root).unwrap().sign(&key.signer(origin)).unwrap();
        let subtree = |level: u32, index: u64| {
            let (from, to) = (index << level, (index + 1) << level);
            let slice = leaves.get(usize::try_from(from).ok()?..usize::try_from(to).ok()?)?;
            Some(root_of(slice.iter().copied()))
        };
        let consistency = if old_size == 0 || old_size >= size {
            Vec::new()
        } else {
            tlog::consistency_proof(old_size, size, &|level, index| subtree(level.into(), index)).unwrap()
        };
        CheckpointReply {
            request: RequestId(1),
            size,
            prefix: CompactRange::new().hashes().iter().map(|hash| *hash.as_bytes()).collect(),
            consistency: consistency.iter().map(|hash| *hash.as_bytes()).collect(),
            inclusion: Vec::new(),
            note: note.to_string(),
        }
    }

    struct Scene {
        ledger: Ledger,
        now_ms: u64,
    }

    impl Scene {
        fn new() -> Self {
            Self { ledger: Ledger::default(), now_ms: 0 }
        }

        fn hear(&mut self, reply: &CheckpointReply) -> Result<Heard, CheckpointError> {
            let asked = self.ledger.reference(&name());
            self.hear_asked(asked, reply)
        }

        fn hear_asked(
            &mut self,
            asked: Option<Reference>,
            reply: &CheckpointReply,
        ) -> Result<Heard, CheckpointError> {
            self.now_ms += 1;
            self.ledger.handle_reply_at(trust(), &name(), asked, reply, self.now_ms)
        }

        fn believe(&mut self, reply: &CheckpointReply) {
            assert!(matches!(self.hear(reply), Ok(Heard::Believed(_))));
        }
    }

    #[test]
    fn a_log_that_grows_is_believed_and_remembered() {
        let mut scene = Scene::new();
        let (key, leaves) = (log_key(7), leaves(0, 9));
        for (size, old) in [(3, 0), (3, 3), (8, 3), (9, 8)] {
            scene.believe(&reply(&key, STREAM, &leaves[..size], old));
        }
        let seen = [0, 2, 3, 7, 8, 9].map(|leaf| scene.ledger.seen_ms(STREAM, leaf));
        assert_eq!(seen, [Some(1), Some(1), Some(3), Some(3), Some(4), None]);
    }

    #[test]
    fn a_history_that_shrinks_or_is_another_is_refused_with_both_notes() {
        let mut scene = Scene::new();
        let key = log_key(7);
        let first = reply(&key, STREAM, &leaves(0, 6), 0);
        scene.believe(&first);
        let shrunk = reply(&key, STREAM, &leaves(0, 5), 6);
        let found = scene.hear(&shrunk).unwrap_err();
        let expected =
            CheckpointError::RolledBack { seen: 6, found: 5, older: first.note.clone(), newer: shrunk.note };
        assert_eq!(found, expected);
        for (size, old) in [(6, 6), (9, 6)] {
            let other = reply(&key, STREAM, &leaves(1, size), old);
            let found = scene.hear(&other).unwrap_err();
            assert!(
                matches!(&found, CheckpointError::Inconsistent { older, newer, .. }
                    if *older == first.note && *newer == other.note),
                "{found}"
            );
        }
        scene.believe(&reply(&key, STREAM, &leaves(0, 7), 6));
    }

    #[test]
    fn only_the_logs_key_under_the_logs_name_is_believed() {
        let mut scene = Scene::new();
        let forged = reply(&log_key(8), STREAM, &leaves(0, 3), 0);
        assert!(matches!(scene.hear(&forged), Err(CheckpointError::Signature(_))));
        let honest = reply(&log_key(7), STREAM, &leaves(0, 3), 0);
        let altered =
            CheckpointReply { note: honest.note.replacen("\n3\n", "\n4\n", 1), size: 4, ..honest.clone() };
        assert!(matches!(scene.hear(&altered), Err(CheckpointError::Signature(_))));
        let lying = CheckpointReply { size: 4, ..honest.clone() };
        assert_eq!(scene.hear(&lying).unwrap_err(), CheckpointError::Size { signed: 3, said: 4 });
        let elsewhere = CheckpointReply {
            note: honest.note.replace(&BUS.to_string(), &BusId::new([9; 16]).to_string()),
            ..honest
        };
        assert!(matches!(scene.hear(&elsewhere), Err(CheckpointError::Origin { .. })));
        assert_eq!(scene.ledger.reference(&name()), None);
    }

    #[test]
    fn an_answer_to_an_older_question_is_asked_again() {
        let mut scene = Scene::new();
        let (key, leaves) = (log_key(7), leaves(0, 9));
        let before = scene.ledger.reference(&name());
        scene.believe(&reply(&key, STREAM, &leaves[..5], 0));
        let late = scene.hear_asked(before, &reply(&key, STREAM, &leaves[..3], 0));
        assert!(matches!(late, Ok(Heard::AskAgain)), "an older answer that was overtaken is no roll-back");
    }

    #[test]
    fn a_name_that_leads_to_another_log_has_that_logs_own_past() {
        let mut scene = Scene::new();
        let (key, ours, other) = (log_key(7), leaves(0, 6), leaves(1, 4));
        scene.believe(&reply(&key, STREAM, &ours, 0));
        scene.believe(&reply(&key, OTHER, &other[..3], 0));
        assert!(matches!(scene.hear(&reply(&key, STREAM, &ours[..5], 0)), Ok(Heard::AskAgain)));
        let back = scene.hear(&reply(&key, STREAM, &ours[..5], 6));
        assert!(matches!(back, Err(CheckpointError::RolledBack { .. })), "its past is not forgotten");
    }
}
