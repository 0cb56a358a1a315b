//! The broker is killed in the middle of publishing, and started again.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use sealbus_client::{Bus, Durability, Message, PendingReceipt, Reconnect, Start};

use crate::broker_process::BrokerProcess;
use crate::failure::Failure;
use crate::text::{hex, thousands};
use crate::verify::prove_patiently;

use super::ensure;
use super::flights::{Expected, Flight};
use super::stage::{BOARD, CONTROL, Closed, STREAM};
use super::teller::Teller;

const CHAPTER: &str = "that what was acknowledged outlives kill -9";

/// Messages that are on their way at a time. Few, so that the kill comes in the middle.
const WINDOW: usize = 64;

/// Acknowledgements after which the broker is killed.
const KILL_AFTER: usize = 300;

/// How long any of this may take.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Where a flight was stored, as its receipt says.
struct Stored {
    offset: u64,
    flight: usize,
}

/// What became of publishing.
struct Published {
    stored: Vec<Stored>,
    acknowledged_before: usize,
    /// Sent by then, and not acknowledged.
    open_then: usize,
    down_for: Duration,
    killed_id: u32,
}

/// Publishes everything to a stream while the broker is killed, and reads it back.
pub(super) async fn tell(stage: &Closed, flights: &[Flight], teller: &Teller) -> Result<(), Failure> {
    teller.chapter("The broker is killed in the middle of publishing", "killing the broker")?;
    let failed = |found: &dyn std::fmt::Display| Failure::new(format!("show {CHAPTER}"), found);
    stage.write_stream_policy()?;
    let config = stage.folder().path("sealbus.toml");
    let process = BrokerProcess::start(&config)?;
    let published = tokio::time::timeout(TIMEOUT, publish(stage, flights, process)).await;
    let (published, process) =
        published.map_err(|_| failed(&format!("publishing took over {} s", TIMEOUT.as_secs())))??;
    let Published { stored, acknowledged_before, open_then, down_for, killed_id } = &published;
    teller.say(&format!(
        "The same bus, its broker now a process of its own, with a stream that keeps flights/# and acknowledges a \
         message when fdatasync has returned. The board publishes; after {acknowledged_before} acknowledgements, with \
         {open_then} messages on their way, process {killed_id} gets kill -9, and another broker is started {} ms later.",
        down_for.as_millis()
    ))?;
    let read = tokio::time::timeout(TIMEOUT, read_back(stage, flights, stored));
    let read = read.await.map_err(|_| failed(&format!("reading took over {} s", TIMEOUT.as_secs())))??;
    teller.say(&format!(
        "The board's client has noticed, come back by itself, and sent again what was not acknowledged: in the end {} \
         of {} flights are. Control replays the stream and verifies each message with its own copy of the CA.",
        thousands(stored.len() as u64),
        thousands(flights.len() as u64)
    ))?;
    teller.holds(&format!(
        "Every acknowledged flight is there, once, at the offset of its receipt, in order: {} of {}, offsets 0 to {}.",
        thousands(read.messages as u64),
        thousands(stored.len() as u64),
        read.messages.saturating_sub(1)
    ))?;
    teller.holds(&format!(
        "A checkpoint over {} batches, signed by the log key, root {}…: the last flight that was acknowledged before \
         the kill is proven to be in it.",
        thousands(read.checkpoint_size),
        hex(read.root.get(..8).unwrap_or_default())
    ))?;
    drop(process);
    Ok(())
}

/// Publishes all flights in their order, a few at a time; the broker is killed on the way.
async fn publish(
    stage: &Closed,
    flights: &[Flight],
    process: BrokerProcess,
) -> Result<(Published, BrokerProcess), Failure> {
    let failed = |error: &dyn std::fmt::Display| Failure::new("publish while the broker is killed", error);
    let bus = connect(stage, BOARD).await?;
    let config = stage.folder().path("sealbus.toml");
    let killed_id = process.id();
    let (mut running, mut restarting) = (Some(process), None);
    let mut open: VecDeque<(usize, PendingReceipt)> = VecDeque::new();
    let mut stored = Vec::with_capacity(flights.len());
    let (mut acknowledged_before, mut open_then) = (0, 0);
    for (index, Flight { topic, json }) in flights.iter().enumerate() {
        // Asking again for a topic that is open gives a handle to the same queue.
        let publisher = bus.publisher(topic).await.map_err(|error| failed(&error))?;
        open.push_back((index, publisher.enqueue_when_ready(*json).await.map_err(|error| failed(&error))?));
        if open.len() >= WINDOW {
            settle(&mut open, &mut stored).await?;
        }
        if stored.len() >= KILL_AFTER
            && let Some(process) = running.take()
        {
            (acknowledged_before, open_then) = (stored.len(), open.len());
            let config = config.clone();
            restarting = Some(tokio::task::spawn_blocking(move || {
                process.kill()?;
                let killed = Instant::now();
                BrokerProcess::start(&config).map(|process| (process, killed.elapsed()))
            }));
        }
    }
    while !open.is_empty() {
        settle(&mut open, &mut stored).await?;
    }
    let restarting = restarting.ok_or_else(|| failed(&"there were too few flights to kill the broker"))?;
    let (process, down_for) = restarting.await.map_err(|error| failed(&error))??;
    bus.close().await.map_err(|error| failed(&error))?;
    Ok((Published { stored, acknowledged_before, open_then, down_for, killed_id }, process))
}

/// Waits for the oldest receipt.
async fn settle(
    open: &mut VecDeque<(usize, PendingReceipt)>,
    stored: &mut Vec<Stored>,
) -> Result<(), Failure> {
    let Some((flight, receipt)) = open.pop_front() else { return Ok(()) };
    let receipt = receipt.await.map_err(|error| Failure::new("publish while the broker is killed", error))?;
    ensure(receipt.durability() == Durability::Fsync, CHAPTER, || {
        format!("a flight was acknowledged as {}", receipt.durability().as_str())
    })?;
    let offset =
        receipt.offset().ok_or_else(|| Failure::new("publish to a stream", "a receipt has no offset"))?;
    stored.push(Stored { offset, flight });
    Ok(())
}

/// What control found.
struct Read {
    messages: usize,
    checkpoint_size: u64,
    root: [u8; 32],
}

/// Replays everything, compares it with what was acknowledged, and has it proven.
async fn read_back(stage: &Closed, flights: &[Flight], stored: &[Stored]) -> Result<Read, Failure> {
    let failed = |found: &dyn std::fmt::Display| Failure::new(format!("show {CHAPTER}"), found);
    let bus = connect(stage, CONTROL).await?;
    let replay = bus.replay(STREAM).from(Start::Earliest).until_end().await;
    let mut replay = replay.map_err(|error| failed(&error))?;
    let mut messages: Vec<Message> = Vec::with_capacity(stored.len());
    while let Some(message) = replay.next().await {
        messages.push(message.map_err(|error| failed(&error))?);
    }
    let mut expected = Expected::of(flights.iter());
    for (offset, message) in (0_u64..).zip(&messages) {
        ensure(message.offset() == Some(offset), CHAPTER, || {
            format!("offset {:?} where {offset} was next", message.offset())
        })?;
        expected.strike_off(message.topic().as_str(), message.payload()).map_err(|found| failed(&found))?;
    }
    ensure(expected.left() == 0, CHAPTER, || format!("{} flights are missing", expected.left()))?;
    for Stored { offset, flight } in stored {
        let found = usize::try_from(*offset).ok().and_then(|offset| messages.get(offset));
        let published = flights.get(*flight);
        let same = found
            .zip(published)
            .is_some_and(|(found, published)| found.payload() == published.json.as_bytes());
        ensure(same, CHAPTER, || format!("another flight is at offset {offset} than its receipt says"))?;
    }
    // Receipts were awaited in the order of publishing: this is the last one that came before the kill.
    let last = stored.get(KILL_AFTER.saturating_sub(1)).map(|stored| stored.offset);
    let last = last.and_then(|offset| messages.get(usize::try_from(offset).ok()?));
    let last = last.ok_or_else(|| failed(&"there is no last flight before the kill"))?;
    let proof = prove_patiently(&bus, last).await.map_err(|error| failed(&error))?;
    let read = Read {
        messages: messages.len(),
        checkpoint_size: proof.checkpoint().size(),
        root: *proof.checkpoint().root(),
    };
    drop(replay);
    // A courtesy; everything was read.
    let _ = bus.close().await;
    Ok(read)
}

/// Connects as one of the identities, and comes back soon when the broker is gone.
async fn connect(stage: &Closed, name: &str) -> Result<Bus, Failure> {
    let context = stage.context(name)?;
    let (identity, trust) = context.load()?;
    let soon =
        Reconnect { initial: Duration::from_millis(20), max: Duration::from_millis(100), attempts: None };
    let builder = sealbus_client::builder().server(&context.server).identity(identity).trust(trust);
    builder
        .reconnect(soon)
        .publish_timeout(TIMEOUT)
        .connect()
        .await
        .map_err(|error| context.not_connected(&error))
}
