//! Signed messages from a certified producer to two consumers with different grants.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use sealbus_client::{Bus, Principal, Publisher, Subscription};

use crate::failure::Failure;
use crate::table::Table;
use crate::text::thousands;

use super::ensure;
use super::flights::{Expected, Flight};
use super::stage::{BOARD, CONTROL, DISPLAY, Stage};
use super::tap::{Kept, Tap};
use super::teller::Teller;

const CHAPTER: &str = "that signed messages reach who may see them";

/// How long everything may take to arrive. It takes milliseconds; a machine may be busy.
const ARRIVAL_TIMEOUT: Duration = Duration::from_secs(20);

/// How long a consumer is watched for messages that it should not get.
const WATCH: Duration = Duration::from_millis(150);

/// Publishes and receives everything; returns what a tap on the broker kept.
pub(super) async fn tell(stage: &Stage, flights: &[Flight], teller: &Teller) -> Result<Vec<Kept>, Failure> {
    teller.chapter("Signed messages, to those who may see them", "publishing and verifying")?;
    let control = Consumer::subscribe(stage, CONTROL, flights.iter()).await?;
    let jfk = flights.iter().filter(|flight| flight.topic.starts_with("flights/JFK/"));
    let display = Consumer::subscribe(stage, DISPLAY, jfk).await?;
    ensure(control.narrowing() == "all of it", CHAPTER, || "control's subscription was narrowed".to_owned())?;
    ensure(display.narrowing() != "all of it", CHAPTER, || {
        "the display's subscription was not narrowed".to_owned()
    })?;
    let identity = stage.folder().identity(CONTROL);
    let tap = Tap::open(stage.address(), stage.bus_id(), &identity, &stage.folder().path("ca/ca.pem")).await;
    let tap = tap.map_err(|error| Failure::new("listen in on the broker", error))?;

    let start = Instant::now();
    let control = tokio::spawn(control.receive());
    let display = tokio::spawn(display.receive());
    let kept = tokio::spawn(tap.keep_messages(flights.len()));
    let topics = publish(stage, flights).await?;
    let published = start.elapsed();
    let gone = |error: &dyn std::fmt::Display| Failure::new(format!("show {CHAPTER}"), error);
    let (control, display) =
        (control.await.map_err(|error| gone(&error))??, display.await.map_err(|error| gone(&error))??);
    let received = control.last.max(display.last).saturating_duration_since(start);
    let kept = tokio::time::timeout(ARRIVAL_TIMEOUT, kept).await.map_err(|error| gone(&error))?;
    let kept = kept.map_err(|error| gone(&error))?.map_err(|error| gone(&error))?;

    let board = Stage::principal(BOARD)?;
    teller.say(&format!(
        "{board} publishes each departure on flights/<origin>/<carrier>: {} messages on {topics} topics, each \
         acknowledged, in {} ms. Every batch is signed with a key that the board's certificate vouches for.",
        thousands(flights.len() as u64),
        published.as_millis()
    ))?;
    let mut table = Table::new(["consumer", "asked for", "was granted", "received", "verified", "in order"]);
    for consumer in [&control, &display] {
        let count = consumer.received.to_string();
        table.row([consumer.name, "flights/#", consumer.narrowing, &count, &count, "yes"]);
    }
    teller.table(&table.render())?;
    teller.holds(&format!(
        "After {} ms each consumer had exactly what it may see, once, byte for byte as published, and had proven the \
         producer of each message with its own copy of the CA.",
        received.as_millis()
    ))?;
    Ok(kept)
}

/// Publishes everything and waits for every acknowledgement. How many topics there were.
async fn publish(stage: &Stage, flights: &[Flight]) -> Result<usize, Failure> {
    let failed = |error: &dyn std::fmt::Display| Failure::new("publish the departures", error);
    let bus = stage.connect(BOARD).await?;
    let mut publishers: HashMap<&str, Publisher> = HashMap::new();
    let mut receipts = Vec::with_capacity(flights.len());
    for Flight { topic, json } in flights {
        if !publishers.contains_key(topic.as_str()) {
            let publisher = bus.publisher(topic).await.map_err(|error| failed(&error))?;
            publishers.insert(topic, publisher);
        }
        let publisher = publishers.get(topic.as_str()).expect("the publisher was just made sure of");
        receipts.push(publisher.enqueue_when_ready(*json).await.map_err(|error| failed(&error))?);
    }
    for receipt in receipts {
        receipt.await.map_err(|error| failed(&error))?;
    }
    let topics = publishers.len();
    drop(publishers);
    bus.close().await.map_err(|error| failed(&error))?;
    Ok(topics)
}

/// A consumer that knows what it shall receive.
struct Consumer {
    name: &'static str,
    bus: Bus,
    subscription: Subscription,
    expected: Expected,
    producer: Principal,
}

/// What became of it.
struct Served {
    name: &'static str,
    narrowing: &'static str,
    received: usize,
    /// When it had everything.
    last: Instant,
}

impl Consumer {
    async fn subscribe<'f>(
        stage: &Stage,
        name: &'static str,
        flights: impl Iterator<Item = &'f Flight>,
    ) -> Result<Self, Failure> {
        let bus = stage.connect(name).await?;
        let subscription = bus
            .subscribe("flights/#")
            .await
            .map_err(|error| Failure::new(format!("subscribe to flights/# as {name}"), error))?;
        Ok(Self {
            name,
            bus,
            subscription,
            expected: Expected::of(flights),
            producer: Stage::principal(BOARD)?,
        })
    }

    fn narrowing(&self) -> &'static str {
        if self.subscription.narrowed() { "flights/JFK/+ (narrowed)" } else { "all of it" }
    }

    /// Receives what it shall, and then watches that nothing more comes.
    async fn receive(mut self) -> Result<Served, Failure> {
        let narrowing = self.narrowing();
        let total = self.expected.left();
        let failed = |found: &dyn std::fmt::Display| Failure::new(format!("show {CHAPTER}"), found);
        let deadline = tokio::time::Instant::now() + ARRIVAL_TIMEOUT;
        while self.expected.left() > 0 {
            let next = tokio::time::timeout_at(deadline, self.subscription.next()).await;
            let next = next.map_err(|_| {
                failed(&format!("{} still misses {} messages", self.name, self.expected.left()))
            })?;
            let message =
                next.ok_or_else(|| failed(&"the subscription ended"))?.map_err(|error| failed(&error))?;
            if *message.producer() != self.producer {
                return Err(failed(&format!(
                    "a message of {}, not of {}",
                    message.producer(),
                    self.producer
                )));
            }
            let struck = self.expected.strike_off(message.topic().as_str(), message.payload());
            struck.map_err(|found| failed(&format!("{} received {found}", self.name)))?;
        }
        let last = Instant::now();
        if let Ok(Some(more)) = tokio::time::timeout(WATCH, self.subscription.next()).await {
            let found = more.map_or_else(
                |error| error.to_string(),
                |message| format!("a message on {}", message.topic()),
            );
            return Err(failed(&format!("{} received more than it may see: {found}", self.name)));
        }
        drop(self.subscription);
        // A courtesy; the messages are here.
        let _ = self.bus.close().await;
        Ok(Served { name: self.name, narrowing, received: total, last })
    }
}
