//! How long a message takes when there is room.
//!
//! Messages are due at a fixed rate, and each latency is counted from the moment that its message was due: a bus that
//! stalls for a second makes a thousand messages late, and they all count.

use std::num::NonZeroU64;
use std::time::{Duration, Instant};

use rustix::thread::set_current_timer_slack;
use sealbus_client::{Bus, Publisher, Subscription};

use crate::failure::Failure;

use super::measured::MeasuredBroker;
use super::{Received, Report, Stopwatch, connect, histogram, missed, next, payload, progress, stamp};

const TOPIC: &str = "bench/latency";

/// What is measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Latency {
    pub(crate) messages_per_second: u32,
    pub(crate) size_bytes: u32,
    pub(crate) seconds: u64,
}

/// Runs the bench.
pub(crate) async fn run(latency: &Latency) -> Result<Report, Failure> {
    let Latency { messages_per_second, size_bytes, seconds } = *latency;
    let broker = MeasuredBroker::start(None, "")?;
    let subscriber = connect(&broker, "subscriber").await?;
    let subscription = subscriber
        .subscribe(TOPIC)
        .await
        .map_err(|error| Failure::new(format!("subscribe to {TOPIC}"), error))?;
    let bus = connect(&broker, "publisher").await?;
    let publisher =
        bus.publisher(TOPIC).await.map_err(|error| Failure::new(format!("publish to {TOPIC}"), error))?;
    let messages = u64::from(messages_per_second).saturating_mul(seconds);
    let stopwatch = Stopwatch::start();
    let receiving = tokio::spawn(receive(subscriber, subscription, messages, stopwatch));

    let bar = progress(format!("latency: {messages_per_second}/s, {size_bytes} B, {seconds} s"));
    let before = broker.usage()?;
    let start = Instant::now();
    let schedule = Schedule { start, messages, messages_per_second, size_bytes, stopwatch };
    let sender = publisher.clone();
    // On a thread of its own: the runtime's timer counts in milliseconds.
    tokio::task::spawn_blocking(move || schedule.send(&sender))
        .await
        .map_err(|error| Failure::new("publish", error))??;
    publisher.flush().await.map_err(|error| Failure::new(format!("publish to {TOPIC}"), error))?;
    let received = receiving.await.map_err(|error| Failure::new("receive", error))??;
    let usage = broker.usage()?.since(before);
    bar.finish_and_clear();
    drop(bus);
    Ok(Report::new("latency", size_bytes, (1, 1), messages, (vec![received], start), usage))
}

/// When each message is due.
struct Schedule {
    start: Instant,
    messages: u64,
    messages_per_second: u32,
    size_bytes: u32,
    stopwatch: Stopwatch,
}

impl Schedule {
    fn send(&self, publisher: &Publisher) -> Result<(), Failure> {
        // Otherwise the system may wake this thread 50 us late, to save power. Where it cannot be set, latencies show it.
        let _ = set_current_timer_slack(NonZeroU64::new(1));
        let mut payload = payload(self.size_bytes);
        let start_ns = Stopwatch::nanoseconds(self.start.saturating_duration_since(self.stopwatch.0));
        for index in 0..self.messages {
            let due_after = Duration::from_secs_f64(index as f64 / f64::from(self.messages_per_second));
            if let Some(early) = due_after.checked_sub(self.start.elapsed()) {
                std::thread::sleep(early);
            }
            stamp(&mut payload, start_ns.saturating_add(Stopwatch::nanoseconds(due_after)));
            let receipt = publisher.enqueue(&payload[..]);
            drop(receipt.map_err(|error| {
                Failure::new(format!("publish at {}/s", self.messages_per_second), error)
            })?);
        }
        Ok(())
    }
}

/// Receives everything. The bus is held so that it stays open.
async fn receive(
    _bus: Bus,
    mut subscription: Subscription,
    expected: u64,
    stopwatch: Stopwatch,
) -> Result<Received, Failure> {
    let mut latencies = histogram();
    let (mut messages, mut lost) = (0_u64, 0_u64);
    while messages.saturating_add(lost) < expected {
        match next(&mut subscription).await? {
            Ok(message) => {
                let now_ns = stopwatch.now_ns();
                messages = messages.saturating_add(1);
                let due_ns = Stopwatch::stamp_of(&message).unwrap_or(now_ns);
                latencies.saturating_record(now_ns.saturating_sub(due_ns).max(1));
            }
            Err(error) => lost = lost.saturating_add(missed(error)?),
        }
    }
    Ok(Received { messages, missed: lost, latencies, last: Instant::now() })
}
