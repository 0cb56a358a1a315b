//! A grant is withdrawn while messages flow.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use sealbus_client::{Bus, Subscription};
use tokio::task::JoinHandle;

use crate::bus_folder::OPERATOR;
use crate::failure::Failure;
use crate::text::thousands;

use super::ensure;
use super::flights::Flight;
use super::stage::{BOARD, CONTROL, DISPLAY, DisplayGrant, Stage};
use super::teller::Teller;

const CHAPTER: &str = "that a withdrawn grant is a fact at once";

/// Messages that must have come before the grant is withdrawn, and again after it.
const ENOUGH: u64 = 300;

/// How long any of this may take.
const TIMEOUT: Duration = Duration::from_secs(20);

/// How long the display is watched after everything has been published.
const WATCH: Duration = Duration::from_millis(200);

/// Counts of one consumer, apart by the GENERATION marker that it saw before each message.
#[derive(Debug, Default)]
struct Counts {
    before: AtomicU64,
    after: AtomicU64,
    others: AtomicU64,
}

/// Publishes without a pause, withdraws the display's grant, and counts.
pub(super) async fn tell(stage: &Stage, flights: &[Flight], teller: &Teller) -> Result<(), Failure> {
    teller.chapter("A grant is withdrawn while messages flow", "publishing without a pause")?;
    let failed = |found: &dyn std::fmt::Display| Failure::new(format!("show {CHAPTER}"), found);
    let (operator, board) = (stage.connect(OPERATOR).await?, stage.connect(BOARD).await?);
    let (control, display) = (stage.connect(CONTROL).await?, stage.connect(DISPLAY).await?);
    let old = operator.policy().generation;
    let (control_counts, control_task) = count(&control, old).await?;
    let (display_counts, display_task) = count(&display, old).await?;
    let stop = Arc::new(AtomicBool::new(false));
    let jfk = flights.iter().filter(|flight| flight.topic == "flights/JFK/B6").map(|flight| flight.json);
    let publishing = tokio::spawn(publish(board.clone(), jfk.collect(), Arc::clone(&stop)));

    until("messages to flow", || display_counts.before.load(Ordering::Relaxed) >= ENOUGH).await?;
    stage.write_policy(2, DisplayGrant::Withdrawn)?;
    let start = Instant::now();
    let report = operator.reload_policy().await.map_err(|error| failed(&error))?;
    let took = start.elapsed();
    until("messages to flow on", || control_counts.after.load(Ordering::Relaxed) >= ENOUGH).await?;
    stop.store(true, Ordering::Relaxed);
    let published = publishing.await.map_err(|error| failed(&error))??;
    let all = || control_counts.before.load(Ordering::Relaxed) + control_counts.after.load(Ordering::Relaxed);
    until("control to receive everything", || all() >= published).await?;
    tokio::time::sleep(WATCH).await;

    let generation = report.policy.generation;
    ensure(generation > old, CHAPTER, || format!("the generation is still {old}"))?;
    ensure(display.policy().generation == generation, CHAPTER, || {
        format!("the display has seen no marker of generation {generation}")
    })?;
    let [before, after] =
        [&display_counts.before, &display_counts.after].map(|count| count.load(Ordering::Relaxed));
    ensure(after == 0, CHAPTER, || format!("{after} messages were delivered after the marker"))?;
    let others =
        control_counts.others.load(Ordering::Relaxed) + display_counts.others.load(Ordering::Relaxed);
    ensure(all() == published && others == 0, CHAPTER, || {
        format!("control received {} of {published}, and {others} other things came", all())
    })?;
    control_task.abort();
    display_task.abort();
    teller.say(&format!(
        "The board publishes without a pause. {} takes the rule display-reads-jfk out of policy.toml and reloads: \
         version {}, generation {generation}, in force on every connection after {:.1} ms.",
        operator.principal(),
        report.policy.version,
        took.as_secs_f64() * 1_000.0
    ))?;
    teller.say(&format!(
        "The display had received {} messages when its GENERATION marker came. The board published {} in all, and \
         control received each of them, {} after its own marker.",
        thousands(before),
        thousands(published),
        thousands(control_counts.after.load(Ordering::Relaxed))
    ))?;
    teller.holds(&format!("Delivered to the display after its marker: {after}."))?;
    for bus in [operator, board, control, display] {
        // A courtesy; everything was counted.
        let _ = bus.close().await;
    }
    Ok(())
}

/// Subscribes and counts in a task.
async fn count(bus: &Bus, old: u64) -> Result<(Arc<Counts>, JoinHandle<()>), Failure> {
    let subscription: Subscription = bus
        .subscribe("flights/JFK/+")
        .await
        .map_err(|error| Failure::new(format!("subscribe to flights/JFK/+ as {}", bus.principal()), error))?;
    let counts = Arc::new(Counts::default());
    let task = tokio::spawn(count_into(subscription, Arc::clone(&counts), old));
    Ok((counts, task))
}

async fn count_into(mut subscription: Subscription, counts: Arc<Counts>, old: u64) {
    while let Some(delivery) = subscription.next().await {
        let count = match delivery {
            Ok(message) if message.generation() <= old => &counts.before,
            Ok(_) => &counts.after,
            Err(_) => &counts.others,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

/// Publishes the flights round and round until it is told to stop. How many were acknowledged.
async fn publish(board: Bus, flights: Vec<&'static str>, stop: Arc<AtomicBool>) -> Result<u64, Failure> {
    let failed = |error: &dyn std::fmt::Display| Failure::new("publish without a pause", error);
    let publisher = board.publisher("flights/JFK/B6").await.map_err(|error| failed(&error))?;
    let mut published = 0_u64;
    for flight in flights.iter().cycle() {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        publisher.publish(*flight).await.map_err(|error| failed(&error))?;
        published = published.saturating_add(1);
    }
    Ok(published)
}

/// Waits for something that happens by itself.
async fn until(what: &str, holds: impl Fn() -> bool) -> Result<(), Failure> {
    let deadline = Instant::now() + TIMEOUT;
    while !holds() {
        if Instant::now() > deadline {
            let found = format!("waited {} s for {what}", TIMEOUT.as_secs());
            return Err(Failure::new(format!("show {CHAPTER}"), found));
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Ok(())
}
