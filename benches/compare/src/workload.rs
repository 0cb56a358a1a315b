//! What is measured, as data.

/// Connections that are made at the same time by the workload `connects`.
pub const CONNECTS_AT_ONCE: usize = 8;

/// Connections that hold a subscription in the workload `idle`.
const IDLE_CONNECTIONS: u32 = 1_000;

/// Bytes of payload in latency workloads.
const LATENCY_SIZE_BYTES: usize = 256;

/// Bytes of payload in durable workloads.
const DURABLE_SIZE_BYTES: usize = 1_024;

/// Every workload, in the order in which they run and are shown.
pub const ALL: [Workload; 13] = [
    Workload::spread("1to1-128", Spread { topics: 1, subscribers_each: 1, size_bytes: 128 }),
    Workload::spread("1to1-1k", Spread { topics: 1, subscribers_each: 1, size_bytes: 1_024 }),
    Workload::spread("1to1-16k", Spread { topics: 1, subscribers_each: 1, size_bytes: 16 * 1_024 }),
    Workload::spread("1to8-128", Spread { topics: 1, subscribers_each: 8, size_bytes: 128 }),
    Workload::spread("1to8-1k", Spread { topics: 1, subscribers_each: 8, size_bytes: 1_024 }),
    Workload::spread("1to8-16k", Spread { topics: 1, subscribers_each: 8, size_bytes: 16 * 1_024 }),
    Workload::spread("8to8-128", Spread { topics: 8, subscribers_each: 1, size_bytes: 128 }),
    Workload::durable("durable-1k-256", 256),
    Workload::durable("durable-1k-1", 1),
    Workload::latency("latency-1k", 1_000),
    Workload::latency("latency-10k", 10_000),
    Workload { name: "connects", kind: Kind::Connects },
    Workload { name: "idle", kind: Kind::Idle { connections: IDLE_CONNECTIONS } },
];

/// One thing that is measured of every subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Workload {
    /// As the arguments and the table have it.
    pub name: &'static str,
    /// What is done.
    pub kind: Kind,
}

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// As many live messages as go through.
    Spread(Spread),
    /// One publisher of messages that must be kept.
    Durable {
        /// Bytes of payload.
        size_bytes: usize,
        /// Messages that may be unacknowledged.
        in_flight: u32,
    },
    /// Live messages at a fixed rate, from one publisher to one subscriber.
    Latency {
        /// The rate.
        messages_per_second: u32,
        /// Bytes of payload.
        size_bytes: usize,
    },
    /// Connections that are made, logged in and closed, [`CONNECTS_AT_ONCE`] at once.
    Connects,
    /// Connections that hold a subscription and are silent.
    Idle {
        /// How many.
        connections: u32,
    },
}

/// Who publishes to whom: each topic has one publisher and subscribers of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spread {
    /// Topics, so publishers too.
    pub topics: u32,
    /// Subscribers of each topic.
    pub subscribers_each: u32,
    /// Bytes of payload.
    pub size_bytes: usize,
}

impl Workload {
    const fn spread(name: &'static str, spread: Spread) -> Self {
        Self { name, kind: Kind::Spread(spread) }
    }

    const fn durable(name: &'static str, in_flight: u32) -> Self {
        Self { name, kind: Kind::Durable { size_bytes: DURABLE_SIZE_BYTES, in_flight } }
    }

    const fn latency(name: &'static str, messages_per_second: u32) -> Self {
        Self { name, kind: Kind::Latency { messages_per_second, size_bytes: LATENCY_SIZE_BYTES } }
    }

    /// The workload of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        ALL.into_iter().find(|workload| workload.name == name)
    }

    /// What its main figure counts.
    #[must_use]
    pub const fn unit(&self) -> &'static str {
        match self.kind {
            Kind::Spread(Spread { topics: 1, subscribers_each: 1, .. }) => "messages/s",
            Kind::Spread(_) => "deliveries/s",
            Kind::Durable { .. } => "acknowledged/s",
            Kind::Latency { .. } => "us, p50 / p99",
            Kind::Connects => "connects/s",
            Kind::Idle { .. } => "MiB alone / KiB a connection",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_workloads_apart() {
        for workload in ALL {
            assert_eq!(Workload::named(workload.name), Some(workload));
        }
        assert_eq!(Workload::named("1to1"), None);
    }
}
