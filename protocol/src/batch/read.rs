//! How a consumer judges the batches of a live subscription: by the sequence of each producer's incarnation.
//!
//! The consumer trusts no broker. A batch that verifies may still be an old one sent again, one of two that a
//! producer signed for one place, or the first after others were held back; the chain of preambles tells.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt;

use crate::ids::{IncarnationId, Kid, PreambleDigest, TopicDigest};

use super::preamble::Preamble;
use super::signed::VerifiedBatch;

/// Sequences that one subscription follows. When there are more, the keys that have the most of them lose their least
/// recently used ones; a dropped one counts as `Joined` when its producer is heard again.
pub const SEQUENCES_MAX: usize = 16_384;

/// Digests remembered of each sequence, to tell a replay from an equivocation.
const DIGESTS_KEPT: usize = 16;

/// A batch's place in its producer's sequence, when nothing is wrong with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The one after the last.
    Next,
    /// The first of its sequence that this subscription sees.
    Joined,
    /// Messages between the last one and this one were not delivered.
    AfterGap {
        /// How many sequence numbers are missing.
        missed: u64,
    },
    /// It was delivered before, on an earlier connection: a producer that lost its acknowledgement sends a batch
    /// again, and a broker that has been restarted does not know it. Not to be handed out a second time.
    Again,
}

/// What is wrong with a verified batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SequenceError {
    /// It was delivered before, or is older than what was.
    Replay {
        /// Its first sequence number.
        first_seq: u64,
        /// The number that is expected next.
        expected: u64,
    },
    /// Its producer signed two batches for one place.
    Equivocation {
        /// The place.
        first_seq: u64,
    },
    /// It is next by number, but not chained to the one before.
    Chain {
        /// Its first sequence number.
        first_seq: u64,
    },
}

impl fmt::Display for SequenceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Replay { first_seq, expected } => {
                write!(f, "sequence {first_seq} was delivered before; {expected} is expected next")
            }
            Self::Equivocation { first_seq } => {
                write!(f, "the producer signed two different batches for sequence {first_seq}")
            }
            Self::Chain { first_seq } => {
                write!(f, "the batch at sequence {first_seq} is not chained to the one before it")
            }
        }
    }
}

impl std::error::Error for SequenceError {}

/// Follows the sequences of every producer that a subscription hears.
#[derive(Debug, Default)]
pub struct SequenceReader {
    sequences: HashMap<SequenceKey, Sequence>,
    clock: u64,
    connection: u64,
}

type SequenceKey = (Kid, IncarnationId, TopicDigest);

#[derive(Debug)]
struct Sequence {
    /// The connection on which it was last moved.
    connection: u64,
    next_seq: u64,
    digests: VecDeque<(u64, PreambleDigest)>,
    used_at: u64,
}

impl SequenceReader {
    /// Follows nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What comes from here on comes on a new connection.
    pub fn handle_reconnected(&mut self) {
        self.connection += 1;
    }

    /// Judges a verified batch and, when it is in order, moves its sequence past it.
    ///
    /// # Errors
    /// [`SequenceError`]; the sequence stays where it was, and the batch must not be handed out.
    pub fn handle(&mut self, batch: &VerifiedBatch) -> Result<Place, SequenceError> {
        let preamble = batch.batch().preamble();
        let digest = batch.batch().digest();
        let key = (preamble.kid, preamble.incarnation_id, preamble.topic);
        self.clock += 1;
        let Some(sequence) = self.sequences.get_mut(&key) else {
            self.make_room();
            let digests = VecDeque::from([(preamble.first_seq, digest)]);
            let (connection, used_at) = (self.connection, self.clock);
            let sequence = Sequence { connection, next_seq: preamble.next_seq(), digests, used_at };
            self.sequences.insert(key, sequence);
            return Ok(Place::Joined);
        };
        let place = sequence.judge(preamble, digest, self.connection)?;
        sequence.used_at = self.clock;
        match place {
            Place::Again => {}
            Place::Next | Place::Joined | Place::AfterGap { .. } => {
                sequence.advance(preamble, digest);
                sequence.connection = self.connection;
            }
        }
        Ok(place)
    }

    /// Room is made by the keys that hold the most sequences, down to a common level, each by its oldest: a producer that
    /// opens many can only make this reader forget its own, and not another's, whose old batches would then look new. A
    /// sixteenth of all is forgotten at once, which keeps the search off the path of single batches.
    fn make_room(&mut self) {
        if self.sequences.len() < SEQUENCES_MAX {
            return;
        }
        let mut ages: HashMap<Kid, Vec<u64>> = HashMap::new();
        for ((kid, ..), sequence) in &self.sequences {
            ages.entry(*kid).or_default().push(sequence.used_at);
        }
        let mut ages: Vec<Vec<u64>> = ages.into_values().collect();
        ages.iter_mut().for_each(|ages| ages.sort_unstable());
        let forgotten = forgotten(&ages, SEQUENCES_MAX / 16);
        self.sequences.retain(|_, sequence| !forgotten.contains(&sequence.used_at));
    }
}

/// So many of the moments in `ages`, each list of which is of one key and in order: the longest lists lose their oldest
/// until they are as long as the next longest. Of lists of the same length that cannot all lose one, those with the
/// oldest do.
fn forgotten(ages: &[Vec<u64>], count: usize) -> HashSet<u64> {
    let above = |level: usize| ages.iter().map(|ages| ages.len().saturating_sub(level)).sum::<usize>();
    let longest = ages.iter().map(Vec::len).max().unwrap_or(0);
    // The lowest level above which there are no more than are wanted.
    let (mut low, mut high) = (0, longest);
    while low < high {
        let middle = low.midpoint(high);
        if above(middle) <= count { high = middle } else { low = middle + 1 }
    }
    let mut forgotten: HashSet<u64> =
        ages.iter().flat_map(|ages| &ages[..ages.len().saturating_sub(low)]).copied().collect();
    let next = |ages: &Vec<u64>| ages.get(ages.len().saturating_sub(low)).copied();
    let mut next: Vec<u64> = ages.iter().filter(|ages| ages.len() >= low).filter_map(next).collect();
    next.sort_unstable();
    let missing = count.saturating_sub(forgotten.len());
    forgotten.extend(next.into_iter().take(missing));
    forgotten
}

impl Sequence {
    fn judge(
        &self,
        preamble: &Preamble,
        digest: PreambleDigest,
        connection: u64,
    ) -> Result<Place, SequenceError> {
        let first_seq = preamble.first_seq;
        if first_seq > self.next_seq {
            return Ok(Place::AfterGap { missed: first_seq - self.next_seq });
        }
        if first_seq == self.next_seq {
            let chained = self.digests.back().is_some_and(|(_, last)| *last == preamble.prev);
            return if chained { Ok(Place::Next) } else { Err(SequenceError::Chain { first_seq }) };
        }
        match self.digests.iter().find(|(seq, _)| *seq == first_seq) {
            Some((_, seen)) if *seen != digest => Err(SequenceError::Equivocation { first_seq }),
            Some(_) if self.connection < connection => Ok(Place::Again),
            Some(_) | None => Err(SequenceError::Replay { first_seq, expected: self.next_seq }),
        }
    }

    fn advance(&mut self, preamble: &Preamble, digest: PreambleDigest) {
        if self.digests.len() == DIGESTS_KEPT {
            self.digests.pop_front();
        }
        self.digests.push_back((preamble.first_seq, digest));
        self.next_seq = preamble.next_seq();
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Producer;
    use super::*;
    use crate::batch::Batch;

    fn verified(producer: &Producer, batch: Batch) -> VerifiedBatch {
        batch.verify(&producer.key.verifying_key()).unwrap()
    }

    #[test]
    fn batches_in_order_are_next() {
        let mut producer = Producer::new("orders/eu");
        let mut reader = SequenceReader::new();
        let mut places = Vec::new();
        for _ in 0..3 {
            let batch = producer.batch(&[b"one", b"two"]);
            places.push(reader.handle(&verified(&producer, batch)).unwrap());
        }
        assert_eq!(places, [Place::Joined, Place::Next, Place::Next]);
    }

    #[test]
    fn a_gap_is_counted_and_the_sequence_goes_on_behind_it() {
        let mut producer = Producer::new("orders/eu");
        let mut reader = SequenceReader::new();
        let first = producer.batch(&[b"one"]);
        let _held_back = producer.batch(&[b"two", b"three"]);
        let third = producer.batch(&[b"four"]);
        let fourth = producer.batch(&[b"five"]);
        assert_eq!(reader.handle(&verified(&producer, first)), Ok(Place::Joined));
        assert_eq!(reader.handle(&verified(&producer, third)), Ok(Place::AfterGap { missed: 2 }));
        assert_eq!(reader.handle(&verified(&producer, fourth)), Ok(Place::Next));
    }

    #[test]
    fn a_batch_sent_again_is_a_replay_however_old() {
        let mut producer = Producer::new("orders/eu");
        let mut reader = SequenceReader::new();
        let first = producer.batch(&[b"one"]);
        reader.handle(&verified(&producer, first.clone())).unwrap();
        for _ in 0..2 * DIGESTS_KEPT {
            let replayed = reader.handle(&verified(&producer, first.clone()));
            assert!(matches!(replayed, Err(SequenceError::Replay { first_seq: 0, .. })));
            let next = producer.batch(&[b"more"]);
            reader.handle(&verified(&producer, next)).unwrap();
        }
    }

    /// A lost acknowledgement, then a broker that was restarted: the producer sends the same bytes, and they are
    /// delivered on the new connection.
    #[test]
    fn what_was_delivered_on_an_earlier_connection_comes_again_and_is_no_replay() {
        let mut producer = Producer::new("orders/eu");
        let mut reader = SequenceReader::new();
        let batches = [producer.batch(&[b"one"]), producer.batch(&[b"two"]), producer.batch(&[b"three"])];
        let [one, two, three] = batches.map(|batch| verified(&producer, batch));
        reader.handle(&one).unwrap();
        reader.handle(&two).unwrap();
        assert!(reader.handle(&two).is_err(), "on the same connection it is a replay");
        reader.handle_reconnected();
        assert_eq!(reader.handle(&one), Ok(Place::Again));
        assert_eq!(reader.handle(&two), Ok(Place::Again));
        assert_eq!(reader.handle(&three), Ok(Place::Next));
        assert!(
            matches!(reader.handle(&two), Err(SequenceError::Replay { .. })),
            "the sequence has moved on here"
        );
    }

    #[test]
    fn two_batches_for_one_place_are_an_equivocation() {
        let mut producer = Producer::new("orders/eu");
        let mut twin = Producer::new("orders/eu");
        let mut reader = SequenceReader::new();
        let (one, other) = (producer.batch(&[b"one"]), twin.batch(&[b"uno"]));
        reader.handle(&verified(&producer, one)).unwrap();
        assert_eq!(reader.handle(&verified(&twin, other)), Err(SequenceError::Equivocation { first_seq: 0 }));
    }

    #[test]
    fn a_batch_that_follows_another_history_breaks_the_chain() {
        let mut producer = Producer::new("orders/eu");
        let mut twin = Producer::new("orders/eu");
        let mut reader = SequenceReader::new();
        let one = producer.batch(&[b"one"]);
        reader.handle(&verified(&producer, one)).unwrap();
        let _ = twin.batch(&[b"uno"]);
        let other = twin.batch(&[b"due"]);
        assert_eq!(reader.handle(&verified(&twin, other)), Err(SequenceError::Chain { first_seq: 1 }));
    }

    /// Follows so many sequences of one key.
    fn fill(reader: &mut SequenceReader, kid: Kid, count: usize) {
        for number in 0..count {
            let mut id = [0; 16];
            id[..8].copy_from_slice(&(number as u64).to_be_bytes());
            reader.clock += 1;
            reader.make_room();
            let key = (kid, IncarnationId::new(id), TopicDigest::ZERO);
            let sequence =
                Sequence { connection: 0, next_seq: 0, digests: VecDeque::new(), used_at: reader.clock };
            reader.sequences.insert(key, sequence);
        }
    }

    #[test]
    fn sequences_are_bounded_and_the_oldest_go_first() {
        let mut reader = SequenceReader::new();
        let mut producer = Producer::new("orders/eu");
        fill(&mut reader, Kid::ZERO, SEQUENCES_MAX + 10);
        assert!(reader.sequences.len() <= SEQUENCES_MAX);
        assert!(!reader.sequences.contains_key(&(Kid::ZERO, IncarnationId::ZERO, TopicDigest::ZERO)));
        let batch = producer.batch(&[b"one"]);
        assert_eq!(reader.handle(&verified(&producer, batch)), Ok(Place::Joined));
    }

    /// Otherwise an insider with many topics could have another's old batches accepted as new.
    #[test]
    fn a_key_with_many_sequences_makes_only_its_own_forgotten() {
        let mut reader = SequenceReader::new();
        let mut producer = Producer::new("orders/eu");
        let batch = producer.batch(&[b"one"]);
        reader.handle(&verified(&producer, batch.clone())).unwrap();
        fill(&mut reader, Kid::new([9; 32]), 2 * SEQUENCES_MAX);
        assert!(reader.sequences.len() <= SEQUENCES_MAX);
        let replayed = reader.handle(&verified(&producer, batch));
        assert!(matches!(replayed, Err(SequenceError::Replay { .. })), "{replayed:?}");
    }

    /// However many keys share the room: the search for it goes through all sequences.
    #[test]
    fn room_is_made_for_many_at_once() {
        let mut reader = SequenceReader::new();
        for kid in 0..128 {
            fill(&mut reader, Kid::new([kid; 32]), SEQUENCES_MAX / 128);
        }
        fill(&mut reader, Kid::new([200; 32]), 1);
        assert_eq!(reader.sequences.len(), SEQUENCES_MAX - SEQUENCES_MAX / 16 + 1);
        let of =
            |wanted: u8| reader.sequences.keys().filter(|(kid, ..)| *kid == Kid::new([wanted; 32])).count();
        assert!((0..128).all(|kid| of(kid) == SEQUENCES_MAX / 128 * 15 / 16), "each of equals loses as many");
    }

    #[test]
    fn the_longest_lose_their_oldest_down_to_a_level() {
        let lists = [vec![1, 2, 3, 4, 5, 6], vec![11, 12, 13, 14], vec![21, 22], vec![0]];
        for (count, expected) in [
            (0, vec![]),
            (1, vec![1]),
            (2, vec![1, 2]),
            (3, vec![1, 2, 3]),
            (4, vec![1, 2, 3, 11]),
            (5, vec![1, 2, 3, 4, 11]),
            (9, vec![1, 2, 3, 4, 5, 11, 12, 13, 21]),
            (10, vec![0, 1, 2, 3, 4, 5, 11, 12, 13, 21]),
            (13, vec![0, 1, 2, 3, 4, 5, 6, 11, 12, 13, 14, 21, 22]),
            (99, vec![0, 1, 2, 3, 4, 5, 6, 11, 12, 13, 14, 21, 22]),
        ] {
            let mut found: Vec<u64> = forgotten(&lists, count).into_iter().collect();
            found.sort_unstable();
            assert_eq!(found, expected, "{count}");
        }
        assert!(forgotten(&[], 5).is_empty());
    }

    /// With one sequence to each key there is no heaviest, and the oldest goes.
    #[test]
    fn among_equals_the_oldest_goes() {
        let mut reader = SequenceReader::new();
        for number in 0..=SEQUENCES_MAX {
            let mut kid = [0; 32];
            kid[..8].copy_from_slice(&(number as u64).to_be_bytes());
            fill(&mut reader, Kid::new(kid), 1);
        }
        assert!(!reader.sequences.contains_key(&(Kid::ZERO, IncarnationId::ZERO, TopicDigest::ZERO)));
        assert_eq!(reader.sequences.len(), SEQUENCES_MAX - SEQUENCES_MAX / 16 + 1);
    }
}
