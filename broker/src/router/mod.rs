//! The router: which sessions want a topic.
//!
//! Publishers keep what they found ([`Router::matches`]) for as long as [`Router::version`] stays the same, so that
//! the table is walked once per topic and change, and not once per batch. [`table`] holds the pure part.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock};

use sealbus_protocol::topic::{Topic, TopicFilter};

use crate::audit::SessionId;
use crate::locks::{read, write};
use crate::outbox::{LaneId, Outbox};
use crate::party::Party;

mod table;

use table::Table;

/// Subscriptions of an ending session that are removed before others get at the table: they have it for about a tenth
/// of a millisecond, whatever the session leaves behind.
const REMOVED_AT_ONCE: usize = 128;

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

/// All subscriptions of the bus.
#[derive(Debug)]
pub(crate) struct Router {
    /// A session's number and a lane of it are never given twice.
    table: RwLock<Table<(SessionId, LaneId), Arc<Subscriber>>>,
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

    /// Adds a subscription of a session. Whatever is published after this returns finds it.
    pub(crate) fn subscribe(&self, filter: &TopicFilter, session: SessionId, subscriber: Subscriber) {
        let mut table = write(&self.table);
        table.insert(filter, (session, subscriber.lane), Arc::new(subscriber));
        self.version.fetch_add(1, Ordering::Release);
    }

    /// Removes a subscription of a session.
    pub(crate) fn unsubscribe(&self, filter: &TopicFilter, session: SessionId, lane: LaneId) {
        let mut table = write(&self.table);
        table.remove(filter, &(session, lane));
        self.version.fetch_add(1, Ordering::Release);
    }

    /// Removes what an ending session leaves behind, in steps between which others get at the table. To publishers it
    /// is one change, told when all is removed: until then they may leave batches for a session that reads none.
    pub(crate) fn unsubscribe_all(
        &self,
        session: SessionId,
        subscriptions: impl IntoIterator<Item = (LaneId, TopicFilter)>,
    ) {
        let mut subscriptions = subscriptions.into_iter();
        let mut has_changed = false;
        loop {
            let step: Vec<_> = subscriptions.by_ref().take(REMOVED_AT_ONCE).collect();
            if step.is_empty() {
                break;
            }
            has_changed = true;
            let mut table = write(&self.table);
            for (lane, filter) in &step {
                table.remove(filter, &(session, *lane));
            }
        }
        if has_changed {
            self.version.fetch_add(1, Ordering::Release);
        }
    }

    /// The subscriptions whose filter matches the topic, and the version that this is true of.
    pub(crate) fn matches(&self, topic: &Topic) -> (u64, Vec<Arc<Subscriber>>) {
        let table = read(&self.table);
        let mut found = Vec::new();
        table.for_each_match(topic, |subscriber| found.push(Arc::clone(subscriber)));
        (self.version(), found)
    }

    /// Subscriptions that there are.
    #[cfg(test)]
    fn len(&self) -> usize {
        read(&self.table).len()
    }
}

#[cfg(test)]
mod tests {
    use sealbus_protocol::identity::Principal;

    use super::*;

    fn filter() -> TopicFilter {
        TopicFilter::parse("t/#").unwrap()
    }

    fn subscribe(router: &Router, session: SessionId, lanes: u64) {
        let principal = Principal::parse("spiffe://a.example/anna").unwrap();
        let party = Arc::new(Party { principal, source: [127, 0, 0, 1].into(), zone: "internal".into() });
        let outbox = Arc::new(Outbox::new(1_000));
        for lane in (0..lanes).map(LaneId) {
            let subscriber = Subscriber { lane, party: Arc::clone(&party), outbox: Arc::clone(&outbox) };
            router.subscribe(&filter(), session, subscriber);
        }
    }

    #[test]
    fn an_ending_session_has_the_table_for_a_step_at_a_time_and_is_one_change() {
        let router = Router::new();
        subscribe(&router, SessionId(1), 1_000);
        subscribe(&router, SessionId(2), 3);
        let (before, found) = router.matches(&Topic::parse("t/1").unwrap());
        assert_eq!(found.len(), 1_003);
        let mut seen = Vec::new();
        // What is still to be removed is asked for between the steps: then the table is free.
        let subscriptions = (0..1_000).map(LaneId).map(|lane| {
            let table = router.table.try_read().expect("nobody has the table between two steps");
            seen.push(table.len());
            (lane, filter())
        });
        router.unsubscribe_all(SessionId(1), subscriptions);
        seen.push(router.len());
        assert!(seen.windows(2).all(|pair| pair[0] - pair[1] <= 128), "{seen:?}");
        let (after, found) = router.matches(&Topic::parse("t/1").unwrap());
        assert_eq!((found.len(), router.len()), (3, 3), "those of the other session");
        assert_eq!(after, before + 1);
        router.unsubscribe_all(SessionId(3), []);
        assert_eq!(router.version(), after, "nothing has changed");
    }

    #[test]
    fn a_subscription_is_removed_by_its_session_and_lane() {
        let router = Router::new();
        subscribe(&router, SessionId(1), 2);
        subscribe(&router, SessionId(2), 2);
        let before = router.version();
        router.unsubscribe(&filter(), SessionId(2), LaneId(0));
        assert_eq!((router.len(), router.version()), (3, before + 1));
        router.unsubscribe(&filter(), SessionId(2), LaneId(0));
        assert_eq!(router.len(), 3);
    }
}
