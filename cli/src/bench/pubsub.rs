//! As many messages as go through.

use std::iter::{once, repeat_n};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use sealbus_client::{Bus, Publisher, Subscription};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::failure::Failure;

use super::measured::MeasuredBroker;
use super::{Received, Report, Stopwatch, connect, histogram, missed, next_batch, payload, progress, stamp};

/// Bytes of payload that publishers may be ahead of the slowest subscriber: half of what a session's outbox holds, so
/// that nothing is lost and the pipe stays full.
const AHEAD_BYTES_MAX: u64 = 4 * 1_024 * 1_024;

/// Messages that a publisher sends between two looks at how far ahead it is. The first of them has its latency taken: two
/// readings of the clock for each would be a good part of its cost.
const LOOK_EVERY: u64 = 64;

/// What is measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pubsub {
    pub(crate) size_bytes: u32,
    pub(crate) amount: Amount,
    pub(crate) publishers: u32,
    pub(crate) subscribers: u32,
}

/// When it is enough.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Amount {
    /// After so much time.
    Seconds(u64),
    /// After so many messages of all publishers together.
    Messages(u64),
}

/// How far everybody is.
struct Course {
    sent: AtomicU64,
    received: Vec<AtomicU64>,
    moved: Notify,
    ahead_max: u64,
    /// What was sent in all, once that is known; `u64::MAX` before.
    total: AtomicU64,
    /// Told when that is known: a subscriber may have received everything by then, and waits for what never comes.
    ended: Notify,
}

impl Course {
    fn slowest(&self) -> u64 {
        self.received.iter().map(|received| received.load(Ordering::Relaxed)).min().unwrap_or(0)
    }

    async fn wait_for_room(&self) {
        loop {
            let moved = self.moved.notified();
            if self.sent.load(Ordering::Relaxed).saturating_sub(self.slowest()) < self.ahead_max {
                return;
            }
            moved.await;
        }
    }
}

/// Runs the bench.
pub(crate) async fn run(pubsub: &Pubsub) -> Result<Report, Failure> {
    let Pubsub { size_bytes, amount, publishers, subscribers } = *pubsub;
    let broker = MeasuredBroker::start(None, "")?;
    let course = Arc::new(Course {
        sent: AtomicU64::new(0),
        received: (0..subscribers).map(|_| AtomicU64::new(0)).collect(),
        moved: Notify::new(),
        ahead_max: (AHEAD_BYTES_MAX / u64::from(size_bytes)).clamp(LOOK_EVERY * 2, 64 * 1_024),
        total: AtomicU64::new(u64::MAX),
        ended: Notify::new(),
    });
    let stopwatch = Stopwatch::start();
    let mut receiving = JoinSet::new();
    for index in 0..subscribers as usize {
        let bus = connect(&broker, "subscriber").await?;
        let subscription =
            bus.subscribe("bench/#").await.map_err(|error| Failure::new("subscribe to bench/#", error))?;
        receiving.spawn(receive(bus, subscription, Arc::clone(&course), index, stopwatch));
    }
    let mut lanes = Vec::new();
    for index in 0..publishers {
        let bus = connect(&broker, "publisher").await?;
        let topic = format!("bench/{index}");
        let publisher = bus
            .publisher(&topic)
            .await
            .map_err(|error| Failure::new(format!("publish to {topic}"), error))?;
        lanes.push((bus, publisher));
    }

    let bar = progress(format!("pubsub: {size_bytes} B, {publishers} → {subscribers}"));
    let before = broker.usage()?;
    let start = Instant::now();
    let mut sending = JoinSet::new();
    for ((bus, publisher), messages) in lanes.into_iter().zip(shares(amount, publishers)) {
        let until = match amount {
            Amount::Seconds(seconds) => Some(start + Duration::from_secs(seconds)),
            Amount::Messages(_) => None,
        };
        sending.spawn(send(
            bus,
            publisher,
            Arc::clone(&course),
            Lane { size_bytes, messages, until, stopwatch },
        ));
    }
    let mut published = 0_u64;
    let mut buses = Vec::new();
    while let Some(sent) = sending.join_next().await {
        let (bus, sent) = sent.map_err(|error| Failure::new("publish", error))??;
        published = published.saturating_add(sent);
        buses.push(bus);
    }
    course.total.store(published, Ordering::Release);
    course.ended.notify_waiters();
    let mut received = Vec::new();
    while let Some(subscriber) = receiving.join_next().await {
        received.push(subscriber.map_err(|error| Failure::new("receive", error))??);
    }
    let usage = broker.usage()?.since(before);
    bar.finish_and_clear();
    Ok(Report::new("pubsub", size_bytes, (publishers, subscribers), published, (received, start), usage))
}

/// How many messages each publisher sends; without end when time ends it.
pub(super) fn shares(amount: Amount, publishers: u32) -> Vec<u64> {
    let publishers = u64::from(publishers);
    (0..publishers)
        .map(|index| match amount {
            Amount::Seconds(_) => u64::MAX,
            Amount::Messages(messages) => messages / publishers + u64::from(index < messages % publishers),
        })
        .collect()
}

/// What one publisher does.
struct Lane {
    size_bytes: u32,
    messages: u64,
    until: Option<Instant>,
    stopwatch: Stopwatch,
}

async fn send(
    bus: Bus,
    publisher: Publisher,
    course: Arc<Course>,
    lane: Lane,
) -> Result<(Bus, u64), Failure> {
    let failed =
        |error: &dyn std::fmt::Display| Failure::new(format!("publish to {}", publisher.topic()), error);
    let mut plain = payload(lane.size_bytes);
    stamp(&mut plain, u64::MAX);
    let mut stamped = plain.clone();
    let mut sent = 0_u64;
    while sent < lane.messages && lane.until.is_none_or(|until| Instant::now() < until) {
        course.wait_for_room().await;
        let round = LOOK_EVERY.min(lane.messages.saturating_sub(sent));
        stamp(&mut stamped, lane.stopwatch.now_ns());
        // Receipts are not waited for here: `flush` below answers for every message.
        let rest = usize::try_from(round).unwrap_or(usize::MAX).saturating_sub(1);
        let messages = once(&stamped[..]).chain(repeat_n(&plain[..], rest));
        publisher.enqueue_all(messages).await.map_err(|error| failed(&error))?;
        sent = sent.saturating_add(round);
        course.sent.fetch_add(round, Ordering::Relaxed);
    }
    publisher.flush().await.map_err(|error| failed(&error))?;
    Ok((bus, sent))
}

/// Receives until everything has come that was sent. The bus is held so that it stays open.
async fn receive(
    _bus: Bus,
    mut subscription: Subscription,
    course: Arc<Course>,
    index: usize,
    stopwatch: Stopwatch,
) -> Result<Received, Failure> {
    let mine = course.received.get(index).expect("there is a counter for each subscriber");
    let mut latencies = histogram();
    let (mut messages, mut lost) = (0_u64, 0_u64);
    loop {
        let ended = course.ended.notified();
        if messages.saturating_add(lost) >= course.total.load(Ordering::Acquire) {
            break;
        }
        let item = tokio::select! {
            biased;
            item = next_batch(&mut subscription) => item?,
            () = ended => continue,
        };
        match item {
            Ok(mut batch) => {
                while let Some(message) = batch.next_message() {
                    messages = messages.saturating_add(1);
                    match Stopwatch::stamp_of(message) {
                        Some(u64::MAX) | None => {}
                        Some(sent_ns) => {
                            latencies.saturating_record(stopwatch.now_ns().saturating_sub(sent_ns).max(1));
                        }
                    }
                }
            }
            Err(error) => lost = lost.saturating_add(missed(error)?),
        }
        mine.store(messages.saturating_add(lost), Ordering::Relaxed);
        course.moved.notify_waiters();
    }
    course.moved.notify_waiters();
    Ok(Received { messages, missed: lost, latencies, last: Instant::now() })
}
