//! How long a message takes when there is room.
//!
//! ```text
//!   due 0   due 1   due 2   due 3 ...      fixed by the rate alone
//!     |--latency-->|  each counted from the moment that it was due to the moment that the subscriber has it
//! ```
//!
//! The loop is open: a message is published when it is due, whatever became of those before it. A bus that stalls for a
//! second makes a thousand messages late, and they all count.

use std::num::NonZeroU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use rustix::thread::set_current_timer_slack;
use tokio::runtime::Handle;
use tokio::task::JoinSet;

use crate::conversation::{Conversation, Talk};
use crate::failure::Failure;
use crate::outcome::Latency;

use super::payload::{payload, stamp, stamp_of};
use super::timing::{Timing, lost};

const TOPIC: &str = "load/0";

/// How long before its moment a publisher is awake: about what a timer is late. The rest of the time goes to whoever
/// else wants the core.
const AWAKE_BEFORE: Duration = Duration::from_micros(20);

/// The longest latency that is told from longer ones.
const LATENCY_NS_MAX: u64 = 60_000_000_000;

/// What has come.
#[derive(Debug)]
struct Arrivals {
    latencies: Histogram<u64>,
    messages: u64,
}

/// When each message is due.
#[derive(Debug, Clone, Copy)]
struct Schedule {
    start: Instant,
    messages: u64,
    warm_up_messages: u64,
    messages_per_second: u32,
}

impl Schedule {
    fn new(messages_per_second: u32, timing: &Timing) -> Self {
        let messages_in = |span: Duration| (span.as_secs_f64() * f64::from(messages_per_second)) as u64;
        let warm_up_messages = messages_in(timing.warm_up);
        Self {
            start: Instant::now(),
            messages: warm_up_messages.saturating_add(messages_in(timing.window)),
            warm_up_messages,
            messages_per_second,
        }
    }

    fn due_after(&self, index: u64) -> Duration {
        Duration::from_secs_f64(index as f64 / f64::from(self.messages_per_second))
    }
}

pub(super) async fn measure<T: Talk>(
    talk: &T,
    messages_per_second: u32,
    size_bytes: usize,
    timing: &Timing,
) -> Result<Latency, Failure> {
    let latencies = Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3)
        .map_err(|error| Failure::new("count latencies", error))?;
    let arrivals = Arc::new(Mutex::new(Arrivals { latencies, messages: 0 }));
    let expected = payload(size_bytes);
    let mut subscriber = talk.connect().await?;
    subscriber.subscribe(TOPIC).await?;
    let publisher = talk.connect().await?;

    let schedule = Schedule::new(messages_per_second, timing);
    let mut receiving = JoinSet::new();
    receiving.spawn(receive(subscriber, schedule, expected.clone(), Arc::clone(&arrivals)));
    let runtime = Handle::current();
    // On a thread of its own: the runtime's timer counts in milliseconds.
    let sending = tokio::task::spawn_blocking(move || runtime.block_on(send(publisher, schedule, expected)));
    tokio::time::sleep(timing.warm_up).await;
    let usage_before = timing.usage()?;
    let publisher = sending.await.map_err(|error| Failure::new("publish", error))??;
    let come = || locked(&arrivals).messages;
    let lost = lost(&mut receiving, schedule.messages, come).await?;
    let broker_cpu = timing.usage()?.since(usage_before).cpu;
    publisher.close().await?;

    let latencies = &locked(&arrivals).latencies;
    let at = |quantile: f64| latencies.value_at_quantile(quantile) as f64 / 1e3;
    Ok(Latency {
        p50_us: at(0.50),
        p99_us: at(0.99),
        p999_us: at(0.999),
        max_us: latencies.max() as f64 / 1e3,
        counted: latencies.len(),
        broker_cpu_seconds: broker_cpu.as_secs_f64(),
        lost,
    })
}

/// Publishes every message when it is due. Nothing else is done on this thread.
async fn send<C: Conversation>(
    mut conversation: C,
    schedule: Schedule,
    mut payload: Vec<u8>,
) -> Result<C, Failure> {
    // Otherwise the system may wake it 50 us late, to save power. Where it cannot be set, latencies show it, everybody's.
    let _ = set_current_timer_slack(NonZeroU64::new(1));
    for index in 0..schedule.messages {
        let due_after = schedule.due_after(index);
        if let Some(early) = due_after.checked_sub(schedule.start.elapsed()) {
            std::thread::sleep(early.saturating_sub(AWAKE_BEFORE));
        }
        while schedule.start.elapsed() < due_after {
            std::thread::yield_now();
        }
        stamp(&mut payload, nanoseconds(due_after));
        conversation.publish(TOPIC, &payload, 1).await?;
    }
    Ok(conversation)
}

/// Receives for ever.
async fn receive<C: Conversation>(
    mut conversation: C,
    schedule: Schedule,
    expected: Vec<u8>,
    arrivals: Arc<Mutex<Arrivals>>,
) -> Result<(), Failure> {
    let counted_from_ns = nanoseconds(schedule.due_after(schedule.warm_up_messages));
    loop {
        let mut damaged = false;
        conversation
            .receive(|payload| {
                let now_ns = nanoseconds(schedule.start.elapsed());
                let Some(due_ns) = stamp_of(payload, &expected) else {
                    damaged = true;
                    return;
                };
                let mut arrivals = locked(&arrivals);
                arrivals.messages = arrivals.messages.saturating_add(1);
                if due_ns >= counted_from_ns {
                    arrivals.latencies.saturating_record(now_ns.saturating_sub(due_ns).max(1));
                }
            })
            .await?;
        if damaged {
            return Err(Failure::new("receive", "a message came that nobody has sent"));
        }
    }
}

fn nanoseconds(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

/// Counters are whole whatever became of whoever counted last.
fn locked(arrivals: &Mutex<Arrivals>) -> std::sync::MutexGuard<'_, Arrivals> {
    arrivals.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_due_at_the_rate_and_the_warm_up_comes_first() {
        let timing =
            Timing { warm_up: Duration::from_millis(500), window: Duration::from_secs(2), broker: 1 };
        let schedule = Schedule::new(1_000, &timing);
        assert_eq!((schedule.warm_up_messages, schedule.messages), (500, 2_500));
        assert_eq!(schedule.due_after(schedule.warm_up_messages), timing.warm_up);
    }
}
