//! The measurements, one file for each kind of workload, generic over the way to talk.
//!
//! Every one of them connects first, then lets everybody run, throws the warm-up away, and counts in a fixed window of
//! time, in which the broker's CPU time is taken too. What was sent and never came is counted at the end.

mod connects;
mod course;
mod durable;
mod idle;
mod latency;
mod payload;
mod throughput;
mod timing;

use crate::conversation::Talk;
use crate::failure::Failure;
use crate::outcome::Outcome;
use crate::workload::{Kind, Workload};

pub(crate) use course::{Course, Turn};
pub(crate) use payload::payload;
pub(crate) use throughput::receive;
pub use timing::Timing;
pub(crate) use timing::{lost, run_until};

/// Measures a workload.
///
/// # Errors
/// [`Failure`] when a connection fails, what came is not what was sent, or the broker is gone.
pub async fn measure<T: Talk>(talk: &T, workload: &Workload, timing: &Timing) -> Result<Outcome, Failure> {
    match workload.kind {
        Kind::Spread(spread) => throughput::measure(talk, spread, timing).await.map(Outcome::Rate),
        Kind::Durable { size_bytes, in_flight } => {
            durable::measure(talk, size_bytes, in_flight, timing).await.map(Outcome::Rate)
        }
        Kind::Latency { messages_per_second, size_bytes } => {
            latency::measure(talk, messages_per_second, size_bytes, timing).await.map(Outcome::Latency)
        }
        Kind::Connects => connects::measure(talk, timing).await.map(Outcome::Rate),
        Kind::Idle { connections } => idle::measure(talk, connections, timing).await.map(Outcome::Memory),
    }
}
