//! What a reader of a stream holds against the broker: which stream it is, and that its history only goes forward. Pure.

use sealbus_protocol::batch::read::{Place, SEQUENCES_MAX};
use sealbus_protocol::frame::{Narrowed, RecordRange, Start, StreamStart};
use sealbus_protocol::ids::StreamId;
use sealbus_protocol::stream_name::StreamName;

use crate::message::LeafPlace;
use crate::rejection::RejectionCode;

use super::feed::Skip;
use super::offsets::{Arrival, OffsetError, OffsetPlace, OffsetReader, Order};
use super::want::{ReplayWant, Want};

/// One stream, as one reader has seen it.
#[derive(Debug)]
pub(super) struct History {
    stream: StreamName,
    stream_id: StreamId,
    order: Order,
    offsets: OffsetReader,
    /// The first offset that is to be handed out.
    begin: u64,
    /// The end of the stream when reading began.
    end: u64,
    /// Whether every offset from the begin on must come.
    coverage: Coverage,
    /// The leaf that was read last, in a log.
    leaf: Option<LeafPlace>,
    /// Sequences that were joined since reading began at the stream's own begin; none when it did not, or offsets were
    /// missing since.
    joined_from_zero: Option<usize>,
    /// A batch was refused, so offsets that are missing next have been told of.
    excused: bool,
}

/// Which offsets of a stream must come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Coverage {
    /// All of them.
    Whole,
    /// Those that a filter or a grant lets through, which only the broker knows.
    Partial,
}

/// Offsets that a batch or a word of the broker leaves out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Hole {
    pub(super) from: u64,
    pub(super) to: u64,
}

impl Hole {
    pub(super) const fn messages(self) -> u64 {
        self.to.saturating_sub(self.from)
    }
}

/// The place of a batch that is in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// It was handed out before.
    Again,
    /// It is to be handed out; these offsets before it are missing and were not explained.
    Fresh { hole: Option<Hole> },
}

impl History {
    /// Begins to read; none for live messages.
    pub(super) fn begin(want: &Want, start: StreamStart, narrowed: Narrowed) -> Option<Self> {
        let stream = want.stream()?;
        let order = match (want, &stream) {
            (Want::Consume(_), _) => Order::Shared,
            (Want::Live(_) | Want::Replay(_), StreamName::Plain(_)) => Order::Log,
            (Want::Live(_) | Want::Replay(_), StreamName::DeadLetters { .. }) => Order::DeadLetters,
        };
        // What was asked for by its offset and is not there any more is missing, and must be told.
        let position = match want {
            Want::Replay(ReplayWant { from: Start::Offset(asked), .. }) => start.offset.min(*asked),
            Want::Live(_) | Want::Replay(_) | Want::Consume(_) => start.offset,
        };
        let mut history = Self {
            stream,
            stream_id: start.stream_id,
            order,
            offsets: OffsetReader::new(order, position),
            begin: start.offset,
            end: start.end,
            coverage: Coverage::Whole,
            leaf: None,
            joined_from_zero: (start.offset == 0).then_some(0),
            excused: false,
        };
        history.cover(want, narrowed);
        Some(history)
    }

    /// Goes on, on another connection. That it is the same stream, the feed has seen.
    pub(super) fn cover(&mut self, want: &Want, narrowed: Narrowed) {
        let whole = want.filter().is_none() && narrowed == Narrowed::No;
        self.coverage = if whole { Coverage::Whole } else { Coverage::Partial };
    }

    pub(super) const fn stream(&self) -> &StreamName {
        &self.stream
    }

    pub(super) const fn order(&self) -> Order {
        self.order
    }

    /// The first offset that is to be handed out: a batch may begin before it.
    pub(super) const fn first(&self) -> u64 {
        match self.order {
            Order::Log | Order::DeadLetters => self.begin,
            // Where a group's work is taken up, its ranges say.
            Order::Shared => 0,
        }
    }

    /// The offset that reading goes on from after a reconnect.
    pub(super) const fn position(&self) -> u64 {
        self.offsets.next()
    }

    /// Whether everything has come that there was when reading began, as far as that can be known.
    pub(super) fn is_finished(&self) -> bool {
        self.coverage == Coverage::Partial || self.offsets.next() >= self.end
    }

    /// The stream that a producer must have signed its topic for. Dead letters were signed for the stream that they
    /// come from, which the broker names.
    pub(super) fn expected_stream_id(&self) -> Option<StreamId> {
        match self.order {
            Order::Log | Order::Shared => Some(self.stream_id),
            Order::DeadLetters => None,
        }
    }

    /// Offsets that a batch takes: all of its messages, or of dead letters those that were given up.
    pub(super) fn offsets_of(&self, messages: u32, ranges: Option<&[RecordRange]>) -> u32 {
        match (self.order, ranges) {
            (Order::DeadLetters, Some(ranges)) => {
                ranges.iter().fold(0, |sum: u32, range| sum.saturating_add(range.count.get()))
            }
            (Order::DeadLetters | Order::Log | Order::Shared, _) => messages,
        }
    }

    /// Judges the place of a verified batch and, when it is in order, moves past it.
    pub(super) fn handle(
        &mut self,
        arrival: Arrival,
        leaf: LeafPlace,
    ) -> Result<Standing, (RejectionCode, String)> {
        let place = self.offsets.judge(arrival).map_err(|error| (code_of(error), error.to_string()))?;
        let hole = match place {
            OffsetPlace::Again => return Ok(Standing::Again),
            OffsetPlace::AfterGap { from } => Some(Hole { from, to: arrival.offset }),
            OffsetPlace::Next => None,
        };
        self.check_leaf(leaf)?;
        self.offsets.advance(arrival);
        self.leaf = Some(leaf);
        let excused = std::mem::take(&mut self.excused);
        let hole = hole.filter(|_| self.coverage == Coverage::Whole && !excused);
        if hole.is_some() {
            self.joined_from_zero = None;
        }
        Ok(Standing::Fresh { hole })
    }

    /// Whether a leaf may follow those before it: times and versions of a log never go back.
    fn check_leaf(&self, leaf: LeafPlace) -> Result<(), (RejectionCode, String)> {
        let (Order::Log, Some(before)) = (self.order, self.leaf) else { return Ok(()) };
        for (what, found, before) in [
            ("append time", leaf.append_ms, before.append_ms),
            ("policy version", leaf.policy_version, before.policy_version),
        ] {
            if found < before {
                let reason = format!("its {what} is {found}, which goes back behind {before}");
                return Err((RejectionCode::Time, reason));
            }
        }
        Ok(())
    }

    /// The broker says that offsets will not come. Gives those that had not come yet.
    pub(super) fn handle_skipped(&mut self, skip: Skip) -> Option<Hole> {
        let position = self.offsets.next();
        let from = match self.coverage {
            Coverage::Whole => position,
            Coverage::Partial => position.max(skip.from),
        };
        self.offsets.skip_to(skip.to);
        self.joined_from_zero = None;
        match self.order {
            Order::Log | Order::DeadLetters => (from < skip.to).then_some(Hole { from, to: skip.to }),
            Order::Shared => Some(Hole { from: skip.from, to: skip.to }),
        }
    }

    /// A batch was refused: what is missing next is no news.
    pub(super) fn handle_rejected(&mut self) {
        self.excused = true;
        self.joined_from_zero = None;
    }

    /// What a producer's sequence has lost at this place. One that begins in the middle has lost its begin, unless
    /// that lies before the begin of reading.
    pub(super) fn missed(&mut self, place: Place, first_seq: u64) -> u64 {
        match (place, &mut self.joined_from_zero) {
            (Place::AfterGap { missed }, _) => missed,
            // With more sequences than are followed, one may only have been forgotten.
            (Place::Joined, Some(joined)) if *joined < SEQUENCES_MAX => {
                *joined += 1;
                first_seq
            }
            (Place::Joined | Place::Next | Place::Again, _) => 0,
        }
    }
}

const fn code_of(error: OffsetError) -> RejectionCode {
    match error {
        OffsetError::Back { .. } | OffsetError::Elsewhere { .. } => RejectionCode::Replay,
        OffsetError::Rewrite { .. } => RejectionCode::Rewrite,
        OffsetError::End { .. } => RejectionCode::Format,
    }
}

#[cfg(test)]
mod tests {
    use sealbus_protocol::frame::{SkippedWhy, Until};
    use sealbus_protocol::ids::PreambleDigest;
    use sealbus_protocol::topic::TopicFilter;

    use super::*;

    const STREAM: StreamId = StreamId::new([3; 16]);

    fn want(filter: Option<&str>) -> Want {
        let stream = StreamName::parse("orders").unwrap();
        let filter = filter.map(|filter| TopicFilter::parse(filter).unwrap());
        Want::Replay(ReplayWant { stream, filter, from: Start::Earliest, until: Until::End })
    }

    fn start(offset: u64) -> StreamStart {
        StreamStart { stream_id: STREAM, offset, end: 10 }
    }

    fn history(filter: Option<&str>, offset: u64) -> History {
        History::begin(&want(filter), start(offset), Narrowed::No).unwrap()
    }

    fn leaf(append_ms: u64, policy_version: u64) -> LeafPlace {
        LeafPlace { leaf_index: 0, append_ms, policy_version }
    }

    fn at(offset: u64) -> Arrival {
        let digest = PreambleDigest::new([u8::try_from(offset).unwrap(); 32]);
        Arrival { offset, messages: 1, digest, connection: 1 }
    }

    fn hole(from: u64, to: u64) -> Result<Standing, (RejectionCode, String)> {
        Ok(Standing::Fresh { hole: Some(Hole { from, to }) })
    }

    const NEXT: Result<Standing, (RejectionCode, String)> = Ok(Standing::Fresh { hole: None });

    #[test]
    fn offsets_left_out_are_news_only_where_all_must_come() {
        let mut whole = history(None, 0);
        assert_eq!(whole.handle(at(0), leaf(1, 1)), NEXT);
        assert_eq!(whole.handle(at(5), leaf(1, 1)), hole(1, 5));
        let mut partial = history(Some("a/#"), 0);
        assert_eq!(partial.handle(at(5), leaf(1, 1)), NEXT);
        let mut narrowed = History::begin(&want(None), start(0), Narrowed::Yes).unwrap();
        assert_eq!(narrowed.handle(at(5), leaf(1, 1)), NEXT);
        assert!(partial.is_finished() && narrowed.is_finished() && !whole.is_finished());
    }

    #[test]
    fn what_was_refused_or_skipped_is_not_missing_a_second_time() {
        let mut history = history(None, 0);
        history.handle_rejected();
        assert_eq!(history.handle(at(2), leaf(1, 1)), NEXT);
        let skip = |from, to| Skip { from, to, why: SkippedWhy::Damaged };
        assert_eq!(history.handle_skipped(skip(3, 6)), Some(Hole { from: 3, to: 6 }));
        assert_eq!(history.handle_skipped(skip(3, 6)), None);
        assert_eq!(history.handle_skipped(skip(7, 8)), Some(Hole { from: 6, to: 8 }), "6 is missing too");
        assert_eq!(history.handle(at(8), leaf(1, 1)), NEXT);
        assert_eq!(history.handle(at(11), leaf(1, 1)), hole(9, 11));
    }

    #[test]
    fn what_was_asked_for_and_is_gone_is_told() {
        let Want::Replay(earliest) = want(None) else { panic!("it is a replay") };
        let asked = Want::Replay(ReplayWant { from: Start::Offset(2), ..earliest });
        let begin = || History::begin(&asked, start(6), Narrowed::No).unwrap();
        let mut told = begin();
        assert_eq!(
            told.handle_skipped(Skip { from: 2, to: 6, why: SkippedWhy::Trimmed }),
            Some(Hole { from: 2, to: 6 })
        );
        assert_eq!(told.handle(at(6), leaf(1, 1)), NEXT);
        assert_eq!(begin().handle(at(6), leaf(1, 1)), hole(2, 6), "also when the broker says nothing");
        assert_eq!(history(None, 6).handle(at(6), leaf(1, 1)), NEXT, "the earliest is wherever it is");
    }

    #[test]
    fn times_and_versions_never_go_back() {
        let mut history = history(None, 0);
        history.handle(at(0), leaf(50, 7)).unwrap();
        assert_eq!(history.check_leaf(leaf(50, 7)), Ok(()));
        for leaf in [leaf(49, 7), leaf(50, 6)] {
            assert_eq!(history.handle(at(1), leaf).unwrap_err().0, RejectionCode::Time);
        }
        let again = Arrival { connection: 2, ..at(0) };
        history.handle(at(1), leaf(60, 7)).unwrap();
        assert_eq!(
            history.handle(again, leaf(50, 7)),
            Ok(Standing::Again),
            "what came before is as old as it was"
        );
    }

    #[test]
    fn a_sequence_that_begins_in_the_middle_has_lost_its_begin_unless_reading_did_too() {
        assert_eq!(history(None, 0).missed(Place::Joined, 4), 4);
        assert_eq!(history(None, 1).missed(Place::Joined, 4), 0);
        let mut trimmed = history(None, 0);
        trimmed.handle_skipped(Skip { from: 0, to: 3, why: SkippedWhy::Trimmed });
        assert_eq!(trimmed.missed(Place::Joined, 4), 0);
        assert_eq!(trimmed.missed(Place::AfterGap { missed: 2 }, 9), 2);
    }
}
