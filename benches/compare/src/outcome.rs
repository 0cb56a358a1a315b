//! What one measurement found, as the load says it to the orchestrator and the orchestrator to the report.

use serde::{Deserialize, Serialize};

/// What one measurement found.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Outcome {
    /// Things that were counted in a window of time: deliveries, acknowledgements, connects.
    Rate(Rate),
    /// How long messages took.
    Latency(Latency),
    /// Memory of the broker.
    Memory(Memory),
}

/// Things that were counted in a window of time.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Rate {
    /// How many, in the window.
    pub counted: u64,
    /// The window.
    pub seconds: f64,
    /// What the broker used in the window, user and system.
    pub broker_cpu_seconds: f64,
    /// What was sent, at any time of the run, and never came.
    pub lost: u64,
}

/// How long messages took, each from the moment that it was due.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// Half of them took no longer.
    pub p50_us: f64,
    /// 99 of 100 took no longer.
    pub p99_us: f64,
    /// 999 of 1,000 took no longer.
    pub p999_us: f64,
    /// The slowest.
    pub max_us: f64,
    /// How many there were after the warm-up.
    pub counted: u64,
    /// What the broker used from the end of the warm-up on, user and system.
    pub broker_cpu_seconds: f64,
    /// What was sent, at any time of the run, and never came.
    pub lost: u64,
}

/// Memory of the broker.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Memory {
    /// Resident, before anybody connected.
    pub alone_bytes: u64,
    /// Resident, with all connections.
    pub loaded_bytes: u64,
    /// The connections.
    pub connections: u32,
}

/// A figure of an outcome that can be compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quantity {
    /// What was counted, per second.
    PerSecond,
    /// Broker CPU seconds per million of what was counted.
    CpuPerMillion,
    /// The median latency.
    P50Us,
    /// The latency of the hundredth message.
    P99Us,
    /// Memory of the broker alone, MiB.
    AloneMib,
    /// Memory for each connection, KiB.
    ConnectionKib,
}

impl Quantity {
    /// The figure, when such an outcome has it.
    #[must_use]
    pub fn of(self, outcome: &Outcome) -> Option<f64> {
        let per_million = |cpu_seconds: f64, counted: u64| ratio(cpu_seconds * 1e6, counted as f64);
        match (self, outcome) {
            (Self::PerSecond, Outcome::Rate(rate)) => ratio(rate.counted as f64, rate.seconds),
            (Self::CpuPerMillion, Outcome::Rate(rate)) => per_million(rate.broker_cpu_seconds, rate.counted),
            (Self::CpuPerMillion, Outcome::Latency(latency)) => {
                per_million(latency.broker_cpu_seconds, latency.counted)
            }
            (Self::P50Us, Outcome::Latency(latency)) => Some(latency.p50_us),
            (Self::P99Us, Outcome::Latency(latency)) => Some(latency.p99_us),
            (Self::AloneMib, Outcome::Memory(memory)) => Some(memory.alone_bytes as f64 / 1_024.0 / 1_024.0),
            (Self::ConnectionKib, Outcome::Memory(memory)) => {
                let more_bytes = memory.loaded_bytes.saturating_sub(memory.alone_bytes);
                ratio(more_bytes as f64 / 1_024.0, f64::from(memory.connections))
            }
            (
                Self::PerSecond
                | Self::CpuPerMillion
                | Self::P50Us
                | Self::P99Us
                | Self::AloneMib
                | Self::ConnectionKib,
                Outcome::Rate(_) | Outcome::Latency(_) | Outcome::Memory(_),
            ) => None,
        }
    }
}

impl Outcome {
    /// What was sent and never came.
    #[must_use]
    pub const fn lost(&self) -> u64 {
        match self {
            Self::Rate(rate) => rate.lost,
            Self::Latency(latency) => latency.lost,
            Self::Memory(_) => 0,
        }
    }
}

/// A quotient, when there is one.
#[must_use]
pub fn ratio(above: f64, below: f64) -> Option<f64> {
    (below > 0.0).then(|| above / below)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_taken_from_outcomes_that_have_them_and_from_no_others() {
        let rate = Outcome::Rate(Rate { counted: 4_000, seconds: 2.0, broker_cpu_seconds: 0.5, lost: 3 });
        let memory = Outcome::Memory(Memory {
            alone_bytes: 2 * 1_024 * 1_024,
            loaded_bytes: 3 * 1_024 * 1_024,
            connections: 4,
        });
        for (quantity, outcome, expected) in [
            (Quantity::PerSecond, rate, Some(2_000.0)),
            (Quantity::CpuPerMillion, rate, Some(125.0)),
            (Quantity::P99Us, rate, None),
            (Quantity::AloneMib, memory, Some(2.0)),
            (Quantity::ConnectionKib, memory, Some(256.0)),
            (Quantity::PerSecond, memory, None),
        ] {
            assert_eq!(quantity.of(&outcome), expected, "{quantity:?}");
        }
        assert_eq!((rate.lost(), memory.lost()), (3, 0));
    }

    #[test]
    fn nothing_counted_is_no_figure() {
        let nothing = Outcome::Rate(Rate { counted: 0, seconds: 1.0, broker_cpu_seconds: 0.5, lost: 0 });
        assert_eq!(Quantity::CpuPerMillion.of(&nothing), None);
        assert_eq!(Quantity::PerSecond.of(&nothing), Some(0.0));
    }

    #[test]
    fn an_outcome_survives_the_pipe_between_two_processes() {
        let latency = Latency {
            p50_us: 10.5,
            p99_us: 20.0,
            p999_us: 30.0,
            max_us: 40.0,
            counted: 7,
            broker_cpu_seconds: 0.25,
            lost: 0,
        };
        let text = serde_json::to_string(&Outcome::Latency(latency)).unwrap();
        assert!(text.starts_with(r#"{"kind":"latency","#), "{text}");
        assert_eq!(serde_json::from_str::<Outcome>(&text).unwrap(), Outcome::Latency(latency));
    }
}
