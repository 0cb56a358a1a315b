//! Measuring the bus from outside, as a service sees it.
//!
//! Every run makes its own bus in a temporary folder and its own broker process, so that the broker's CPU time and
//! memory are its own. A payload begins with the moment that its latency is counted from.

use std::future::{Future as _, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use sealbus_client::{Bus, DeliveryError, Message, MessageBatch, Subscription};
use serde_json::{Value, json};

use crate::context::{Context, FILE_NAME};
use crate::failure::{Failure, Verdict};
use crate::process_usage::Usage;
use crate::table::fields;
use crate::text::thousands;

mod durable;
mod latency;
mod measured;
mod pubsub;

pub(crate) use durable::{Durable, run as durable};
pub(crate) use latency::{Latency, run as latency};
pub(crate) use pubsub::{Amount, Pubsub, run as pubsub};

use measured::MeasuredBroker;

/// Bytes of the moment at the beginning of a payload.
const STAMP_LEN: usize = size_of::<u64>();

/// How long a subscriber may wait for messages that were acknowledged before they count as lost.
const STRAGGLERS_TIMEOUT: Duration = Duration::from_secs(10);

/// Moments as they stand in payloads: nanoseconds since a start that all tasks of a run share.
#[derive(Debug, Clone, Copy)]
struct Stopwatch(Instant);

impl Stopwatch {
    fn start() -> Self {
        Self(Instant::now())
    }

    fn now_ns(self) -> u64 {
        Self::nanoseconds(self.0.elapsed())
    }

    fn nanoseconds(span: Duration) -> u64 {
        u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
    }

    /// The moment at the beginning of a message's payload.
    fn stamp_of(message: &Message) -> Option<u64> {
        message.payload().first_chunk().map(|stamp| u64::from_be_bytes(*stamp))
    }
}

/// A payload with room for the moment.
fn payload(size_bytes: u32) -> Vec<u8> {
    vec![b'x'; (size_bytes as usize).max(STAMP_LEN)]
}

fn stamp(payload: &mut [u8], moment_ns: u64) {
    if let Some(place) = payload.first_chunk_mut() {
        *place = moment_ns.to_be_bytes();
    }
}

/// Latencies up to a minute, in nanoseconds, with three digits.
fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3)
        .expect("the bounds are those of the documentation's example")
}

async fn connect(broker: &MeasuredBroker, identity: &str) -> Result<Bus, Failure> {
    Context::read(&broker.folder().identity(identity).join(FILE_NAME))?.connect().await
}

/// What one subscriber found.
struct Received {
    messages: u64,
    missed: u64,
    latencies: Histogram<u64>,
    last: Instant,
}

/// What is told of a delivery that is no message; a bench that loses something says so and fails.
fn missed(error: DeliveryError) -> Result<u64, Failure> {
    match error {
        DeliveryError::Lagged { missed } | DeliveryError::Gap { missed, .. } => Ok(missed),
        DeliveryError::Rejected(rejection) => Err(Failure::new("measure", rejection)),
        error @ DeliveryError::Skipped { .. } => Err(Failure::new("measure to the end", error)),
        DeliveryError::Closed(reason) => Err(Failure::new("measure to the end", reason)),
    }
}

/// The next delivery, within the time that stragglers have. One that is there already is taken without a look at the
/// clock, which would be a good part of what a message costs.
async fn next(subscription: &mut Subscription) -> Result<Result<Message, DeliveryError>, Failure> {
    let mut next = pin!(subscription.next());
    let ready = poll_fn(|cx| match next.as_mut().poll(cx) {
        Poll::Ready(delivery) => Poll::Ready(Some(delivery)),
        Poll::Pending => Poll::Ready(None),
    });
    let delivery = match ready.await {
        Some(delivery) => delivery,
        None => tokio::time::timeout(STRAGGLERS_TIMEOUT, next).await.map_err(|_| silent())?,
    };
    delivery.ok_or_else(subscription_ended)
}

/// The next batch of deliveries, within the time that stragglers have.
async fn next_batch(
    subscription: &mut Subscription,
) -> Result<Result<MessageBatch<'_>, DeliveryError>, Failure> {
    let next = tokio::time::timeout(STRAGGLERS_TIMEOUT, subscription.next_batch()).await;
    next.map_err(|_| silent())?.ok_or_else(subscription_ended)
}

fn silent() -> Failure {
    let silence = format!("nothing came for {} s", STRAGGLERS_TIMEOUT.as_secs());
    Failure::new("receive everything that was acknowledged", silence)
}

fn subscription_ended() -> Failure {
    Failure::new("measure to the end", "the subscription ended")
}

/// What a run found.
pub(crate) struct Report {
    bench: &'static str,
    size_bytes: u32,
    publishers: u32,
    subscribers: u32,
    published: u64,
    delivered: u64,
    missed: u64,
    elapsed: Duration,
    latencies: Histogram<u64>,
    broker: Usage,
}

impl Report {
    /// Of everything that was received.
    fn new(
        bench: &'static str,
        size_bytes: u32,
        (publishers, subscribers): (u32, u32),
        published: u64,
        (received, start): (Vec<Received>, Instant),
        broker: Usage,
    ) -> Self {
        let mut latencies = histogram();
        let (mut delivered, mut missed, mut elapsed) = (0_u64, 0_u64, Duration::ZERO);
        for subscriber in received {
            delivered = delivered.saturating_add(subscriber.messages);
            missed = missed.saturating_add(subscriber.missed);
            elapsed = elapsed.max(subscriber.last.saturating_duration_since(start));
            latencies.add(subscriber.latencies).expect("all histograms have the same bounds");
        }
        Self {
            bench,
            size_bytes,
            publishers,
            subscribers,
            published,
            delivered,
            missed,
            elapsed,
            latencies,
            broker,
        }
    }

    /// Done when each subscriber received everything.
    pub(crate) fn verdict(&self) -> Verdict {
        let expected = self.published.saturating_mul(u64::from(self.subscribers));
        if self.delivered == expected && self.missed == 0 { Verdict::Done } else { Verdict::Refused }
    }

    fn per_second(&self, count: u64) -> f64 {
        count as f64 / self.elapsed.as_secs_f64().max(f64::EPSILON)
    }

    fn megabytes_per_second(&self) -> f64 {
        self.per_second(self.delivered) * f64::from(self.size_bytes) / 1e6
    }

    fn cpu_seconds_per_million(&self) -> f64 {
        self.broker.cpu.as_secs_f64() * 1e6 / (self.published.max(1) as f64)
    }

    /// Percentiles in microseconds, by name.
    fn percentiles(&self) -> [(&'static str, f64); 5] {
        let at = |percentile| self.latencies.value_at_percentile(percentile) as f64 / 1e3;
        [
            ("p50", at(50.0)),
            ("p90", at(90.0)),
            ("p99", at(99.0)),
            ("p99.9", at(99.9)),
            ("max", self.latencies.max() as f64 / 1e3),
        ]
    }

    pub(crate) fn json(&self) -> Value {
        let rounded = |number: f64| (number * 1_000.0).round() / 1_000.0;
        let latencies: serde_json::Map<String, Value> =
            self.percentiles().into_iter().map(|(name, us)| (name.to_owned(), json!(rounded(us)))).collect();
        json!({
            "bench": self.bench,
            "size_bytes": self.size_bytes,
            "publishers": self.publishers,
            "subscribers": self.subscribers,
            "seconds": rounded(self.elapsed.as_secs_f64()),
            "published": self.published,
            "delivered": self.delivered,
            "missed": self.missed,
            "messages_per_second": self.per_second(self.published).round(),
            "delivered_per_second": self.per_second(self.delivered).round(),
            "megabytes_per_second": rounded(self.megabytes_per_second()),
            "latency_us": latencies,
            "broker": {
                "cpu_seconds": rounded(self.broker.cpu.as_secs_f64()),
                "cpu_seconds_per_million_messages": rounded(self.cpu_seconds_per_million()),
                "resident_mib": rounded(self.broker.resident_bytes as f64 / (1_024.0 * 1_024.0)),
            },
        })
    }

    pub(crate) fn table(&self) -> String {
        let whole = |number: f64| thousands(number.round() as u64);
        let microseconds = |us: f64| format!("{us:.1} µs");
        let mut rows = vec![
            (
                "bench",
                format!("{}, {} B, {} → {}", self.bench, self.size_bytes, self.publishers, self.subscribers),
            ),
            ("published", format!("{} in {:.2} s", thousands(self.published), self.elapsed.as_secs_f64())),
            ("delivered", format!("{}, missed {}", thousands(self.delivered), thousands(self.missed))),
            ("messages/s", whole(self.per_second(self.published))),
            ("delivered/s", whole(self.per_second(self.delivered))),
            ("MB/s", format!("{:.1}", self.megabytes_per_second())),
        ];
        rows.extend(self.percentiles().into_iter().map(|(name, us)| (name, microseconds(us))));
        rows.extend([
            ("broker CPU", format!("{:.3} s per million messages", self.cpu_seconds_per_million())),
            (
                "broker memory",
                format!("{:.1} MiB resident", self.broker.resident_bytes as f64 / (1_024.0 * 1_024.0)),
            ),
        ]);
        fields(rows)
    }
}

/// A spinner on stderr that says what is measured; hidden by itself when stderr is no terminal.
fn progress(what: String) -> Arc<indicatif::ProgressBar> {
    let bar = indicatif::ProgressBar::new_spinner();
    bar.set_message(what);
    bar.enable_steady_tick(Duration::from_millis(100));
    Arc::new(bar)
}
