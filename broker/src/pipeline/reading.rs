//! Reading a stream for one subscription: where it stands, and what it waits for.
//!
//! ```text
//!              page is empty: look at the tail
//!   Ready ---- from memory --> page      --'     Ready: in the session's list of readings that can go on
//!     |------- on disk ------> Disk  ----.       Disk:  a thread reads; its letter makes it ready again
//!     |------- at the end ---> Tail  ----|       Tail:  the stream's next commit makes it ready again
//!     '------- no credit ----> Parked ---'       Parked: CREDIT makes it ready again
//! ```
//!
//! History and what follows it come through the same cursor, by offset, so that there is no seam between them to lose
//! or repeat anything at.

use std::collections::{HashMap, VecDeque};

use sealbus_protocol::frame::SubscriptionId;
use sealbus_protocol::ids::StreamId;
use sealbus_protocol::policy::Name;
use sealbus_protocol::topic::TopicFilter;

use crate::outbox::LaneId;
use crate::quotas::SubscriptionPlace;
use crate::storage::page::{Entry, Source};
use crate::storage::stream::store::WatchGuard;

/// A subscription that replays a stream.
#[derive(Debug)]
pub(super) struct Reading {
    /// What the client calls it.
    pub(super) id: SubscriptionId,
    /// The stream whose rules decide. Dead letters are read by the rules of the stream that they came from.
    pub(super) stream: Name,
    /// The stream that the batches were signed for.
    pub(super) stream_id: StreamId,
    /// Where they are read.
    pub(super) source: Source,
    /// What is wanted; none for everything.
    pub(super) filter: Option<TopicFilter>,
    /// It is closed at this offset; none when it goes on for ever.
    pub(super) until: Option<u64>,
    /// The offset that is looked at next.
    pub(super) next: u64,
    /// What has been read and not been delivered.
    pub(super) page: VecDeque<Entry>,
    /// Where to read on after the page.
    pub(super) page_next: u64,
    pub(super) turn: Turn,
    /// Its place among those of the principal, until it is dropped.
    pub(super) _place: SubscriptionPlace,
}

/// What a reading waits for.
#[derive(Debug)]
pub(super) enum Turn {
    /// Nothing: it is in the list of those that can go on.
    Ready,
    /// A letter with a page, or with where to begin.
    Disk,
    /// The stream's next commit, which is told for as long as the guard is held.
    Tail {
        /// Ends the watch.
        _guard: WatchGuard,
    },
    /// Credit.
    Parked,
}

/// The readings of a session.
#[derive(Debug, Default)]
pub(super) struct Readings {
    of: HashMap<LaneId, Reading>,
    /// Those that can go on, in turn. Each stands here at most once.
    ready: VecDeque<LaneId>,
}

impl Readings {
    pub(super) fn insert(&mut self, lane: LaneId, reading: Reading) {
        if let Turn::Ready = reading.turn {
            self.ready.push_back(lane);
        }
        self.of.insert(lane, reading);
    }

    pub(super) fn remove(&mut self, lane: LaneId) -> Option<Reading> {
        self.ready.retain(|ready| *ready != lane);
        self.of.remove(&lane)
    }

    pub(super) fn get_mut(&mut self, lane: LaneId) -> Option<&mut Reading> {
        self.of.get_mut(&lane)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (LaneId, &Reading)> {
        self.of.iter().map(|(lane, reading)| (*lane, reading))
    }

    pub(super) fn drain(&mut self) -> Vec<Reading> {
        self.ready.clear();
        self.of.drain().map(|(_, reading)| reading).collect()
    }

    /// The next that can go on. It stands in the list no longer, and is put back by [`Readings::make_ready`].
    pub(super) fn next_ready(&mut self) -> Option<LaneId> {
        self.ready.pop_front()
    }

    /// Puts a reading among those that can go on, whatever it waited for.
    pub(super) fn make_ready(&mut self, lane: LaneId) {
        let Some(reading) = self.of.get_mut(&lane) else { return };
        reading.turn = Turn::Ready;
        if !self.ready.contains(&lane) {
            self.ready.push_back(lane);
        }
    }

    /// It has credit. One that waits for the disk or the stream's end goes on waiting.
    pub(super) fn unpark(&mut self, lane: LaneId) {
        if self.of.get(&lane).is_some_and(|reading| matches!(reading.turn, Turn::Parked)) {
            self.make_ready(lane);
        }
    }

    /// A stream has moved: whoever waits at its end looks again.
    pub(super) fn handle_commit(&mut self) {
        let moved: Vec<LaneId> = self
            .of
            .iter()
            .filter(|(_, reading)| match &reading.turn {
                Turn::Tail { .. } => reading.source.bounds().end > reading.next,
                Turn::Ready | Turn::Disk | Turn::Parked => false,
            })
            .map(|(lane, _)| *lane)
            .collect();
        moved.into_iter().for_each(|lane| self.make_ready(lane));
    }
}
