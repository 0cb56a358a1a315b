//! The router: which sessions want a topic.
//!
//! Publishers keep what they found ([`Router::matches`]) for as long as [`Router::version`] stays the same, so that
//! the table is walked once per topic and change, and not once per batch. [`table`] holds the pure part.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock};

use sealbus_protocol::topic::{Topic, TopicFilter};

use crate::locks::{read, write};
use crate::outbox::{LaneId, Outbox};
use crate::party::Party;

mod table;

use table::Table;

/// A subscription, as publishers see it.
#[derive(Debug)]
pub(crate) struct Subscriber {
    /// Which of its session's subscriptions.
    pub(crate) lane: LaneId,
    /// Whose it is.
    pub(crate) party: Arc<Party>,
    /// Where its batches go. One outbox is one session.
    pub(crate) outbox: Arc<Outbox>,
}

impl Subscriber {
    fn is(&self, outbox: &Arc<Outbox>, lane: LaneId) -> bool {
        self.lane == lane && Arc::ptr_eq(&self.outbox, outbox)
    }
}

/// All subscriptions of the bus.
#[derive(Debug)]
pub(crate) struct Router {
    table: RwLock<Table<Arc<Subscriber>>>,
    version: AtomicU64,
}

impl Router {
    /// A router without subscriptions.
    pub(crate) fn new() -> Self {
        Self { table: RwLock::new(Table::new()), version: AtomicU64::new(0) }
    }

    /// Changes whenever a subscription comes or goes.
    pub(crate) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Adds a subscription. Whatever is published after this returns finds it.
    pub(crate) fn subscribe(&self, filter: &TopicFilter, subscriber: Subscriber) {
        let mut table = write(&self.table);
        table.insert(filter, Arc::new(subscriber));
        self.version.fetch_add(1, Ordering::Release);
    }

    /// Removes a subscription.
    pub(crate) fn unsubscribe(&self, filter: &TopicFilter, outbox: &Arc<Outbox>, lane: LaneId) {
        let mut table = write(&self.table);
        table.remove(filter, |subscriber| subscriber.is(outbox, lane));
        self.version.fetch_add(1, Ordering::Release);
    }

    /// The subscriptions whose filter matches the topic, and the version that this is true of.
    pub(crate) fn matches(&self, topic: &Topic) -> (u64, Vec<Arc<Subscriber>>) {
        let table = read(&self.table);
        let mut found = Vec::new();
        table.for_each_match(topic, |subscriber| found.push(Arc::clone(subscriber)));
        (self.version(), found)
    }

    /// Subscriptions that there are.
    pub(crate) fn len(&self) -> usize {
        read(&self.table).len()
    }
}
