//! Reading a stream for one subscription: where it stands, and what it waits for.
//!
//! ```text
//!              its page is empty: look at what follows
//!   Ready --.---- in memory --> a page, and still Ready
//!           |---- on disk ----> Disk       a thread reads; its letter makes it ready again
//!           '---- nothing ----> Tail       the stream's next commit makes it ready again
//!              it has no credit
//!   Ready --------------------> Parked     CREDIT makes it ready again
//! ```
//!
//! History and what follows it come through the same cursor, by offset, so that there is no seam between them to lose
//! or repeat anything at.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use sealbus_protocol::frame::SubscriptionId;
use sealbus_protocol::ids::StreamId;
use sealbus_protocol::policy::Name;
use sealbus_protocol::topic::TopicFilter;

use crate::outbox::LaneId;
use crate::quotas::SubscriptionPlace;
use crate::storage::page::{Entry, Glance, Page, Source};
use crate::storage::stream::store::{Waiter, WatchGuard};

/// Readings without credit that keep the pages that were read for them. Others read theirs again when they get some: a
/// client may have a thousand of them, and must not make the broker hold as many pages.
const PAGES_KEPT_MAX: usize = 16;

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
    /// The leaf that is looked at next, or later: what a page has before it was delivered. Offsets do not say, since a
    /// heartbeat has that of what follows it.
    pub(super) leaf_next: u64,
    /// What it waits for.
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

/// What follows the page of a reading.
#[derive(Debug)]
pub(super) enum Look {
    /// This.
    Page(Page),
    /// Something that must be read, on a thread that may block.
    OnDisk,
    /// Nothing yet. The next commit is told for as long as the guard is held.
    AtEnd(WatchGuard),
}

impl Reading {
    /// Looks at what follows the page; at the end, has `waiter` told of the next commit.
    pub(super) fn look(&self, waiter: impl FnOnce() -> Arc<dyn Waiter>) -> Look {
        match self.source.glance(self.page_next) {
            Glance::Page(page) => return Look::Page(page),
            Glance::OnDisk => return Look::OnDisk,
            Glance::AtEnd => {}
        }
        // Whatever is committed between the look and the watch would be missed: so look again.
        let guard = self.source.watch(waiter());
        match self.source.glance(self.page_next) {
            Glance::Page(page) => Look::Page(page),
            Glance::OnDisk => Look::OnDisk,
            Glance::AtEnd => Look::AtEnd(guard),
        }
    }

    /// Takes what follows. A page begins with the batch that holds the offset, which may begin before it.
    pub(super) fn take_page(&mut self, page: Page) {
        self.page_next = page.next;
        self.page.extend(page.entries);
    }

    /// The next of the page that has not been delivered.
    pub(super) fn next_entry(&mut self) -> Option<Entry> {
        loop {
            let entry = self.page.pop_front()?;
            match &entry {
                Entry::Batch(proven) if proven.stored.leaf_index < self.leaf_next => {}
                Entry::Batch(proven) => {
                    self.leaf_next = proven.stored.leaf_index.saturating_add(1);
                    return Some(entry);
                }
                Entry::Skipped(_) => return Some(entry),
            }
        }
    }

    /// Gives the page up. It is read again from where it was delivered to.
    fn put_page_back(&mut self) {
        self.page = VecDeque::new();
        self.page_next = self.next;
    }
}

/// The readings of a session.
#[derive(Debug, Default)]
pub(super) struct Readings {
    by_lane: HashMap<LaneId, Reading>,
    /// Those that can go on, in turn. Each stands here at most once.
    ready: VecDeque<LaneId>,
}

impl Readings {
    /// Adds a reading.
    pub(super) fn insert(&mut self, lane: LaneId, reading: Reading) {
        if let Turn::Ready = reading.turn {
            self.ready.push_back(lane);
        }
        self.by_lane.insert(lane, reading);
    }

    /// Takes a reading out.
    pub(super) fn remove(&mut self, lane: LaneId) -> Option<Reading> {
        self.ready.retain(|ready| *ready != lane);
        self.by_lane.remove(&lane)
    }

    pub(super) fn get_mut(&mut self, lane: LaneId) -> Option<&mut Reading> {
        self.by_lane.get_mut(&lane)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (LaneId, &Reading)> {
        self.by_lane.iter().map(|(lane, reading)| (*lane, reading))
    }

    /// Takes all of them out.
    pub(super) fn drain(&mut self) -> Vec<Reading> {
        self.ready.clear();
        self.by_lane.drain().map(|(_, reading)| reading).collect()
    }

    /// The next that can go on. It stands in the list no longer, and is put back by [`Readings::make_ready`].
    pub(super) fn next_ready(&mut self) -> Option<LaneId> {
        self.ready.pop_front()
    }

    /// Puts a reading among those that can go on, whatever it waited for.
    pub(super) fn make_ready(&mut self, lane: LaneId) {
        let Some(reading) = self.by_lane.get_mut(&lane) else { return };
        reading.turn = Turn::Ready;
        if !self.ready.contains(&lane) {
            self.ready.push_back(lane);
        }
    }

    /// A reading waits for credit.
    pub(super) fn park(&mut self, lane: LaneId) {
        let pages = self.by_lane.values().filter(|reading| !reading.page.is_empty()).count();
        let Some(reading) = self.by_lane.get_mut(&lane) else { return };
        reading.turn = Turn::Parked;
        if pages > PAGES_KEPT_MAX {
            reading.put_page_back();
        }
    }

    /// It has credit. One that waits for the disk or the stream's end goes on waiting.
    pub(super) fn unpark(&mut self, lane: LaneId) {
        if self.by_lane.get(&lane).is_some_and(|reading| matches!(reading.turn, Turn::Parked)) {
            self.make_ready(lane);
        }
    }

    /// A stream has moved: whoever waits at its end looks again.
    pub(super) fn handle_commit(&mut self) {
        let moved: Vec<LaneId> = self
            .by_lane
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
