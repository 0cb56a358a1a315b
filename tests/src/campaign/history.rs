//! What was handed over and acknowledged, as whoever publishes and consumes knows it: plain lists, and nothing that the
//! broker says of itself.
//!
//! ```text
//!   operations of the disk   ......b.............a............n.....
//!                                  |             |            '-- power lost: acknowledged, so it must be there
//!                                  |             '-- acknowledged
//!                                  '-- handed over: before this it cannot be there, from here on it may be
//! ```

use std::collections::BTreeMap;

use bytes::Bytes;
use sealbus_protocol::batch::{HEAD_LEN, PREAMBLE_LEN};
use sealbus_protocol::ids::StreamId;
use sealbus_protocol::tlog::LeafFields;
use sha2::{Digest as _, Sha256};

use super::author::BUS;

/// SHA-256 of something that is kept.
pub type Fingerprint = [u8; 32];

/// When something was handed over and acknowledged, in operations of the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct When {
    /// Operations before it was handed over.
    pub begun: usize,
    /// Operations when it had been acknowledged.
    pub acked: Option<usize>,
}

impl When {
    /// Handed over now.
    #[must_use]
    pub const fn begun(operations: usize) -> Self {
        Self { begun: operations, acked: None }
    }

    /// Handed over and refused: it may be found, and is never promised.
    #[must_use]
    pub const fn refused(begun: usize) -> Self {
        Self { begun, acked: Some(usize::MAX) }
    }

    /// Whether it was acknowledged at all.
    #[must_use]
    pub fn is_acknowledged(&self) -> bool {
        self.must_be_there(usize::MAX - 1)
    }

    /// There from the beginning.
    pub const ALWAYS: Self = Self { begun: 0, acked: Some(0) };

    /// Whether it may be found when power is lost after so many operations.
    #[must_use]
    pub const fn may_be_there(&self, operations: usize) -> bool {
        self.begun < operations || matches!(self.acked, Some(0))
    }

    /// Whether it must be found then.
    #[must_use]
    pub fn must_be_there(&self, operations: usize) -> bool {
        self.acked.is_some_and(|acked| acked <= operations)
    }
}

/// What a batch is in its stream.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// Its first offset.
    pub offset: u64,
    /// Offsets that it takes.
    pub messages: u32,
    /// When it was appended.
    pub append_ms: u64,
    /// The policy in force.
    pub policy_version: u64,
    /// The record with its producer's key.
    pub key_record: u64,
    /// Its topic.
    pub topic: &'a str,
    /// The batch.
    pub batch: &'a [u8],
}

impl Facts<'_> {
    /// What tells it from every other.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        let mut hash = Sha256::new();
        for number in
            [self.offset, self.messages.into(), self.append_ms, self.policy_version, self.key_record]
        {
            hash.update(number.to_be_bytes());
        }
        hash.update((self.topic.len() as u64).to_be_bytes());
        hash.update(self.topic);
        hash.update(self.batch);
        hash.finalize().into()
    }
}

/// A batch that was handed over.
#[derive(Debug, Clone)]
pub struct BatchEntry {
    /// Its first offset.
    pub offset: u64,
    /// Offsets that it takes: none for a sign of life.
    pub messages: u32,
    /// Of everything about it.
    pub fingerprint: Fingerprint,
    /// When it was appended, and under which policy: neither goes back from one batch to the next.
    pub appended: (u64, u64),
    /// Its leaf.
    pub leaf: Fingerprint,
    /// Who signed it.
    pub author: usize,
    /// Its first sequence number, the one after its last, and the digest of its preamble.
    pub place: (u64, u64, [u8; 32]),
    /// The batch, for a retry.
    pub batch: Bytes,
    /// When.
    pub when: When,
}

/// What was handed over and refused, for lack of room. A power loss may yet leave it behind what was there, for as long as
/// the disk has not been told to forget it: nobody was promised it, and nobody was promised that it is gone.
#[derive(Debug, Clone)]
pub struct Ghost<T> {
    /// How many were there before it.
    pub after: usize,
    /// What was refused.
    pub entries: Vec<T>,
    /// Operations before it was handed over.
    pub begun: usize,
    /// Operations when it had been forgotten for good.
    pub until: Option<usize>,
}

impl<T> Ghost<T> {
    /// Whether it may be found when power is lost after so many operations.
    #[must_use]
    pub fn may_be_there(&self, operations: usize) -> bool {
        self.begun < operations && self.until.is_none_or(|until| operations <= until)
    }
}

fn forget<T>(ghosts: &mut [Ghost<T>], operations: usize) {
    for ghost in ghosts {
        ghost.until.get_or_insert(operations);
    }
}

/// A removal of old batches.
#[derive(Debug, Clone, Copy)]
pub struct Trim {
    /// The stream begins here afterwards.
    pub first: u64,
    /// When.
    pub when: When,
}

/// A checkpoint that was signed.
#[derive(Debug, Clone, Copy)]
pub struct Signed {
    /// Batches under it.
    pub size: u64,
    /// When.
    pub when: When,
}

/// A stream.
#[derive(Debug, Clone)]
pub struct StreamHistory {
    /// Its id.
    pub id: StreamId,
    /// All batches ever, in the order in which they were handed over.
    pub entries: Vec<BatchEntry>,
    /// All removals.
    pub trims: Vec<Trim>,
    /// All checkpoints.
    pub checkpoints: Vec<Signed>,
    /// What was refused.
    pub ghosts: Vec<Ghost<BatchEntry>>,
}

/// A batch as it is handed over.
#[derive(Debug, Clone)]
pub struct Handed<'a> {
    /// Who signed it.
    pub author: usize,
    /// Its topic.
    pub topic: &'a str,
    /// The record with its producer's key.
    pub key_record: u64,
    /// The policy in force.
    pub policy_version: u64,
    /// The clock.
    pub now_ms: u64,
    /// Messages.
    pub messages: u32,
    /// Its first sequence number, the one after its last, and the digest of its preamble.
    pub place: (u64, u64, [u8; 32]),
    /// The batch.
    pub batch: Bytes,
}

impl StreamHistory {
    /// A stream that nobody has published to.
    #[must_use]
    pub const fn new(id: StreamId) -> Self {
        Self { id, entries: Vec::new(), trims: Vec::new(), checkpoints: Vec::new(), ghosts: Vec::new() }
    }

    /// The offset of the next batch.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.entries.last().map_or(0, |last| last.offset + u64::from(last.messages))
    }

    /// The offset behind the acknowledged batches.
    #[must_use]
    pub fn acked_end(&self) -> u64 {
        let acked = self.entries.iter().rev().find(|entry| entry.when.acked.is_some());
        acked.map_or(0, |last| last.offset + u64::from(last.messages))
    }

    /// A batch was handed over.
    ///
    /// # Panics
    /// When it is shorter than a head.
    pub fn hand_over(&mut self, handed: Handed<'_>, begun: usize) {
        let Handed { author, topic, key_record, policy_version, now_ms, messages, place, batch } = handed;
        // What a power loss took away holds nothing up: only what is there does.
        let (last_ms, last_policy) = self.entries.last().map_or((0, 0), |last| last.appended);
        let (append_ms, policy_version) = (now_ms.max(last_ms), policy_version.max(last_policy));
        let offset = self.end();
        let facts = Facts { offset, messages, append_ms, policy_version, key_record, topic, batch: &batch };
        let fields =
            LeafFields { bus_id: BUS, stream_id: self.id, base_offset: offset, append_ms, policy_version };
        let head: &[u8; HEAD_LEN] = batch.first_chunk().expect("a batch has a head");
        let (preamble, signature) = head.split_at(PREAMBLE_LEN);
        let preamble = preamble.try_into().expect("the head begins with a preamble");
        let signature = signature.try_into().expect("the head ends with a signature");
        let leaf = fields.leaf_bytes(preamble, signature);
        let leaf = Sha256::new().chain_update([0]).chain_update(leaf).finalize().into();
        let fingerprint = facts.fingerprint();
        let when = When::begun(begun);
        let appended = (append_ms, policy_version);
        self.entries.push(BatchEntry {
            offset,
            messages,
            fingerprint,
            appended,
            leaf,
            author,
            place,
            batch,
            when,
        });
    }

    /// Everything that was handed over has been acknowledged.
    pub fn acknowledge(&mut self, operations: usize) {
        let open = self.entries.iter_mut().rev().take_while(|entry| entry.when.acked.is_none());
        open.for_each(|entry| entry.when.acked = Some(operations));
    }

    /// What was handed over last was refused: so many batches.
    pub fn take_back(&mut self, batches: usize, begun: usize) {
        let after = self.entries.len().saturating_sub(batches);
        let entries = self.entries.split_off(after);
        self.ghosts.push(Ghost { after, entries, begun, until: None });
    }

    /// What was refused will not be found any more.
    pub fn forget_ghosts(&mut self, operations: usize) {
        forget(&mut self.ghosts, operations);
    }

    /// The stream as it would be if what was refused were there.
    #[must_use]
    pub fn haunted_by(&self, ghost: &Ghost<BatchEntry>) -> Self {
        let mut haunted = self.clone();
        haunted.entries.truncate(ghost.after);
        haunted.entries.extend(ghost.entries.iter().cloned());
        haunted
    }

    /// Another life begins with so many batches.
    pub fn settle(&mut self, records: usize, first: u64, checkpoint: Option<u64>) {
        self.entries.truncate(records);
        self.ghosts.clear();
        self.entries.iter_mut().for_each(|entry| entry.when = When::ALWAYS);
        self.trims = vec![Trim { first, when: When::ALWAYS }];
        self.checkpoints = checkpoint.map(|size| Signed { size, when: When::ALWAYS }).into_iter().collect();
    }

    /// The roots of the trees over its first so many batches, from none to all, as RFC 6962 defines them.
    #[must_use]
    pub fn roots(&self) -> Vec<Fingerprint> {
        let leaves: Vec<Fingerprint> = self.entries.iter().map(|entry| entry.leaf).collect();
        (0..=leaves.len()).map(|size| root_of(leaves.get(..size).unwrap_or_default())).collect()
    }
}

fn root_of(leaves: &[Fingerprint]) -> Fingerprint {
    match leaves {
        [] => Sha256::digest([]).into(),
        [leaf] => *leaf,
        _ => {
            let (left, right) = leaves.split_at(leaves.len().next_power_of_two() / 2);
            let (left, right) = (root_of(left), root_of(right));
            Sha256::new().chain_update([1]).chain_update(left).chain_update(right).finalize().into()
        }
    }
}

/// A log of the broker's own.
#[derive(Debug, Clone, Default)]
pub struct PlainHistory {
    /// All records.
    pub entries: Vec<(Fingerprint, When)>,
    /// What was refused.
    pub ghosts: Vec<Ghost<(Fingerprint, When)>>,
}

impl PlainHistory {
    /// A record was handed over.
    pub fn hand_over(&mut self, payload: &[u8], begun: usize) {
        self.entries.push((Sha256::digest(payload).into(), When::begun(begun)));
    }

    /// Everything that was handed over has been acknowledged.
    pub fn acknowledge(&mut self, operations: usize) {
        let open = self.entries.iter_mut().rev().take_while(|(_, when)| when.acked.is_none());
        open.for_each(|(_, when)| when.acked = Some(operations));
        forget(&mut self.ghosts, operations);
    }

    /// What was handed over behind so many records was refused.
    pub fn take_back(&mut self, after: usize, begun: usize) {
        let entries = self.entries.split_off(after.min(self.entries.len()));
        self.ghosts.push(Ghost { after, entries, begun, until: None });
    }

    /// The log as it would be if what was refused were there.
    #[must_use]
    pub fn haunted_by(&self, ghost: &Ghost<(Fingerprint, When)>) -> Self {
        let mut haunted = self.clone();
        haunted.entries.truncate(ghost.after);
        haunted.entries.extend(ghost.entries.iter().copied());
        haunted
    }

    /// Another life begins with so many records.
    pub fn settle(&mut self, records: usize) {
        self.entries.truncate(records);
        self.ghosts.clear();
        self.entries.iter_mut().for_each(|(_, when)| *when = When::ALWAYS);
    }
}

/// Where a consumer was said to stand; nowhere once it was removed.
pub type Position = Option<u64>;

/// A consumer: its stream and its name.
pub type Consumer = (usize, String);

/// Everything that was handed over to a broker.
#[derive(Debug, Clone)]
pub struct History {
    /// The streams.
    pub streams: [StreamHistory; 2],
    /// `$keys`.
    pub keys: PlainHistory,
    /// `$policy`.
    pub policies: PlainHistory,
    /// `$producers`.
    pub producers: PlainHistory,
    /// `$cursors`: for each consumer all places at which it was said to stand.
    pub cursors: BTreeMap<Consumer, Vec<(Position, When)>>,
}

impl History {
    /// Nothing yet.
    #[must_use]
    pub fn new(streams: [StreamId; 2]) -> Self {
        Self {
            streams: streams.map(StreamHistory::new),
            keys: PlainHistory::default(),
            policies: PlainHistory::default(),
            producers: PlainHistory::default(),
            cursors: BTreeMap::new(),
        }
    }

    /// A consumer was said to stand somewhere.
    pub fn stand(&mut self, consumer: &Consumer, position: Position, begun: usize) {
        self.cursors.entry(consumer.clone()).or_default().push((position, When::begun(begun)));
    }

    /// All places of consumers have been acknowledged.
    pub fn acknowledge_cursors(&mut self, operations: usize) {
        for (_, when) in self.cursors.values_mut().flatten() {
            when.acked.get_or_insert(operations);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_handed_over_may_be_there_and_what_is_acknowledged_must() {
        let when = When { begun: 5, acked: Some(8) };
        let may: Vec<bool> = (4..10).map(|operations| when.may_be_there(operations)).collect();
        assert_eq!(may, [false, false, true, true, true, true]);
        let must: Vec<bool> = (4..10).map(|operations| when.must_be_there(operations)).collect();
        assert_eq!(must, [false, false, false, false, true, true]);
        assert!(When::ALWAYS.may_be_there(0) && When::ALWAYS.must_be_there(0));
    }

    #[test]
    fn roots_are_those_of_the_protocol() {
        use sealbus_protocol::tlog::{Hash, root_of as protocol_root};
        let leaves: Vec<Fingerprint> = (0..9_u8).map(|byte| [byte; 32]).collect();
        for size in 0..=leaves.len() {
            let expected = protocol_root(leaves[..size].iter().map(|leaf| Hash::new(*leaf)));
            assert_eq!(root_of(&leaves[..size]), *expected.as_bytes(), "{size}");
        }
    }
}
