//! What everybody in a campaign shares: the bus, where its broker listens, the history, and when to stop.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use sealbus_client::{Bus, Event, Reconnect};
use serde_json::json;

use crate::bus::{TestBus, allow, allow_stream, stream};

use super::history::History;

/// Producers of a campaign.
pub(super) const PRODUCERS: u64 = 8;

/// Segments as small as may be, so that hardly a life of the broker passes without a new one.
pub(super) const STORAGE: &str = "segment_bytes = \"64KiB\"";

/// How long a message may wait for its answer: longer than a broker is ever away.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(30);

/// Clients come back at once, as impatient ones would.
const RECONNECT: Reconnect =
    Reconnect { initial: Duration::from_millis(4), max: Duration::from_millis(60), attempts: None };

/// How long somebody waits who could not connect, or whose request came to nothing.
pub(super) const PATIENCE: Duration = Duration::from_millis(10);

/// A stream of the campaign.
#[derive(Debug)]
pub(super) struct KeptStream {
    /// Also the first level of its topics.
    pub(super) name: &'static str,
    pub(super) id: &'static str,
    pub(super) durability: &'static str,
    /// Messages that retention must leave; none when it removes nothing.
    pub(super) retained: Option<u64>,
    pub(super) topics: &'static [&'static str],
    /// How often it is chosen, beside the others.
    pub(super) weight: u64,
}

/// A stream of each durability. A process that is killed takes nothing from any of them: what it wrote is in the
/// system's cache. The last one is trimmed all the time.
pub(super) const STREAMS: [KeptStream; 3] = [
    KeptStream {
        name: "orders",
        id: "0a000000000000000000000000000001",
        durability: "fsync",
        retained: None,
        topics: &["orders/eu", "orders/us", "orders/asia"],
        weight: 5,
    },
    KeptStream {
        name: "events",
        id: "0a000000000000000000000000000002",
        durability: "interval",
        retained: None,
        topics: &["events/door", "events/lamp"],
        weight: 3,
    },
    KeptStream {
        name: "recent",
        id: "0a000000000000000000000000000003",
        durability: "memory",
        retained: Some(300),
        topics: &["recent/news"],
        weight: 2,
    },
];

/// The stream that has a durable consumer.
pub(super) const CONSUMED: &str = "orders";

/// The durable consumer.
pub(super) const CONSUMER: &str = "billing";

pub(super) struct Ground {
    pub(super) bus: TestBus,
    pub(super) address: SocketAddr,
    pub(super) history: Arc<History>,
    pub(super) seed: u64,
    /// Messages that may still be published in this life of the broker, so that the disk lasts for a thousand of them.
    fuel: AtomicI64,
    producers_stop: AtomicBool,
    readers_stop: AtomicBool,
}

impl Ground {
    pub(super) fn new(bus: TestBus, address: SocketAddr, history: Arc<History>, seed: u64) -> Arc<Self> {
        Arc::new(Self {
            bus,
            address,
            history,
            seed,
            fuel: AtomicI64::new(0),
            producers_stop: AtomicBool::new(false),
            readers_stop: AtomicBool::new(false),
        })
    }

    /// Connects for the first time, however long it takes, and tells the history what happens to it from then on.
    pub(super) async fn connect(&self, who: &str) -> Bus {
        loop {
            let builder = sealbus_client::builder()
                .server(self.address.to_string())
                .identity(self.bus.client_identity(who))
                .trust(self.bus.trust())
                .publish_timeout(PUBLISH_TIMEOUT)
                .reconnect(RECONNECT);
            if let Ok(bus) = builder.connect().await {
                self.watch(who, &bus);
                return bus;
            }
            tokio::time::sleep(PATIENCE).await;
        }
    }

    /// What a client only tells when it is asked, and what should not happen to one whose broker forgets nothing.
    fn watch(&self, who: &str, bus: &Bus) {
        let (mut events, history, who) = (bus.events(), Arc::clone(&self.history), who.to_owned());
        tokio::spawn(async move {
            while let Some(event) = events.next().await {
                let op = match event {
                    Event::NewIncarnation { .. } => "new-incarnation",
                    Event::Lost { .. } => "lost",
                    Event::CheckpointInconsistent { .. } => "inconsistent",
                    _ => continue,
                };
                history.note(op, &json!({ "who": who, "why": format!("{event:?}") }));
            }
        });
    }

    /// Gives producers so many messages for the life that begins.
    pub(super) fn refuel(&self, messages: u64) {
        self.fuel.store(i64::try_from(messages).unwrap_or(i64::MAX), Ordering::Relaxed);
    }

    /// Whether there is fuel left. Then so much of it is used up.
    pub(super) fn burn(&self, messages: u64) -> bool {
        let messages = i64::try_from(messages).unwrap_or(i64::MAX);
        self.fuel.load(Ordering::Relaxed) > 0 && self.fuel.fetch_sub(messages, Ordering::Relaxed) > 0
    }

    pub(super) fn stop_producers(&self) {
        self.producers_stop.store(true, Ordering::SeqCst);
    }

    pub(super) fn producers_stop(&self) -> bool {
        self.producers_stop.load(Ordering::SeqCst)
    }

    pub(super) fn stop_readers(&self) {
        self.readers_stop.store(true, Ordering::SeqCst);
    }

    pub(super) fn readers_stop(&self) -> bool {
        self.readers_stop.load(Ordering::SeqCst)
    }
}

/// Who may do what, and what is kept.
pub(super) fn policy() -> String {
    let mut policy = String::new();
    for KeptStream { name, id, durability, retained, .. } in &STREAMS {
        let retention = retained.map(|messages| format!("\nretention = {{ messages = {messages} }}"));
        let settings = format!("durability = \"{durability}\"{}", retention.unwrap_or_default());
        policy += &stream(name, id, &format!("{name}/#"), &settings);
        policy += &allow_stream(&format!("read-{name}"), "auditor", "replay\", \"describe", name);
    }
    for producer in 0..PRODUCERS {
        policy += &allow(&format!("write-{producer}"), &producer_name(producer), "publish", "#");
    }
    policy += &allow("live", "screen", "subscribe", "#");
    policy += &allow_stream("work", "worker", "consume", CONSUMED);
    policy
}

/// Producers are told apart by the number at the end.
pub(super) fn producer_name(producer: u64) -> String {
    format!("producer-{producer}")
}
