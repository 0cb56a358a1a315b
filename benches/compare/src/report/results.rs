//! Everything that was measured, and the questions that a report asks of it.

use std::fmt;

use serde::Serialize;

use crate::outcome::{Outcome, Quantity, ratio};
use crate::subject::{Facts, Profile};
use crate::workload::{Kind, Workload};

/// Who is what he is measured by.
pub(super) const OURS: &str = "sealbus";

/// Not a broker, but the limit of every broker.
pub(super) const LIMIT: &str = "relay";

/// Which cores everybody may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Placement {
    /// All of them, for everybody.
    Unpinned,
    /// The broker one, the clients another.
    Pinned,
}

impl fmt::Display for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unpinned => "unpinned",
            Self::Pinned => "pinned",
        })
    }
}

/// A subject as it is configured for a workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entrant {
    /// Its name.
    pub subject: &'static str,
    /// How it is configured.
    pub profile: Profile,
}

impl fmt::Display for Entrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.profile {
            Profile::Live | Profile::Durable => f.write_str(self.subject),
            Profile::DurableEverySecond => write!(f, "{} everysec", self.subject),
        }
    }
}

impl Entrant {
    /// Whether it is another broker.
    pub(super) fn is_peer(self) -> bool {
        self.subject != OURS && self.subject != LIMIT
    }
}

/// One measurement.
#[derive(Debug, Clone, Copy)]
pub struct Measurement {
    /// On which cores.
    pub placement: Placement,
    /// Of what.
    pub workload: Workload,
    /// Of whom.
    pub entrant: Entrant,
    /// Which repetition, from 1.
    pub repetition: u32,
    /// What was found.
    pub outcome: Outcome,
}

/// A subject that takes part.
#[derive(Debug, Clone)]
pub struct Participant {
    /// Its name.
    pub name: &'static str,
    /// As the program itself says it.
    pub version: String,
    /// What it does for a message and what it does not.
    pub facts: Facts,
    /// What an acknowledgement means in each durable profile.
    pub acknowledgements: Vec<(Profile, &'static str)>,
}

/// A measurement that there is not, or a subject that does not take part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Absent {
    /// What.
    pub what: String,
    /// Why.
    pub why: String,
}

/// Everything.
#[derive(Debug, Clone, Default)]
pub struct Results {
    /// Who took part.
    pub participants: Vec<Participant>,
    /// In the order in which it was measured.
    pub measurements: Vec<Measurement>,
    /// What was skipped because it is not there.
    pub skipped: Vec<Absent>,
    /// What was tried and failed.
    pub failed: Vec<Absent>,
}

/// A figure of several repetitions.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Range {
    pub(super) median: f64,
    pub(super) lowest: f64,
    pub(super) highest: f64,
}

impl Range {
    /// Of figures in any order; the median of an even number is in the middle of the two in the middle.
    pub(super) fn of(mut figures: Vec<f64>) -> Option<Self> {
        figures.sort_by(f64::total_cmp);
        let (lowest, highest) = (*figures.first()?, *figures.last()?);
        let middle = figures.len() / 2;
        let above = *figures.get(middle)?;
        let below = *figures.get(figures.len().saturating_sub(1) / 2)?;
        Some(Self { median: f64::midpoint(below, above), lowest, highest })
    }
}

/// Which of two figures is the better one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Better {
    More,
    Less,
}

/// What a workload is compared by.
pub(super) const fn headline(kind: Kind) -> (Quantity, Better) {
    match kind {
        Kind::Spread(_) | Kind::Durable { .. } | Kind::Connects => (Quantity::PerSecond, Better::More),
        Kind::Latency { .. } => (Quantity::P99Us, Better::Less),
        Kind::Idle { .. } => (Quantity::ConnectionKib, Better::Less),
    }
}

impl Results {
    /// The placements that were measured.
    pub(super) fn placements(&self) -> Vec<Placement> {
        let measured = |placement: &Placement| self.measurements.iter().any(|m| m.placement == *placement);
        [Placement::Unpinned, Placement::Pinned].into_iter().filter(measured).collect()
    }

    /// The workloads that were measured there, in their order.
    pub(super) fn workloads(&self, placement: Placement) -> Vec<Workload> {
        let mut workloads = Vec::new();
        for measurement in self.measurements.iter().filter(|m| m.placement == placement) {
            if !workloads.contains(&measurement.workload) {
                workloads.push(measurement.workload);
            }
        }
        workloads
    }

    /// Who was measured there, in the order in which it came.
    pub(super) fn entrants(&self, placement: Placement, workload: Workload) -> Vec<Entrant> {
        let mut entrants = Vec::new();
        for measurement in self.of(placement, workload) {
            if !entrants.contains(&measurement.entrant) {
                entrants.push(measurement.entrant);
            }
        }
        entrants
    }

    /// A figure over all repetitions.
    pub(super) fn range(
        &self,
        placement: Placement,
        workload: Workload,
        entrant: Entrant,
        quantity: Quantity,
    ) -> Option<Range> {
        let of_entrant = self.of(placement, workload).filter(|m| m.entrant == entrant);
        Range::of(of_entrant.filter_map(|m| quantity.of(&m.outcome)).collect())
    }

    /// The median over all repetitions, of a subject in its strictest profile.
    pub(super) fn median(
        &self,
        placement: Placement,
        workload: Workload,
        subject: &str,
        quantity: Quantity,
    ) -> Option<f64> {
        let entrants = self.entrants(placement, workload);
        let strictest = entrants
            .into_iter()
            .find(|entrant| entrant.subject == subject && entrant.profile != Profile::DurableEverySecond)?;
        self.range(placement, workload, strictest, quantity).map(|range| range.median)
    }

    /// The peer with the best median, and that.
    pub(super) fn best_peer(
        &self,
        placement: Placement,
        workload: Workload,
        quantity: Quantity,
        better: Better,
    ) -> Option<(Entrant, f64)> {
        let peers = self.entrants(placement, workload).into_iter().filter(|entrant| entrant.is_peer());
        let medians = peers.filter_map(|entrant| {
            Some((entrant, self.range(placement, workload, entrant, quantity)?.median))
        });
        match better {
            Better::More => medians.max_by(|(_, a), (_, b)| a.total_cmp(b)),
            Better::Less => medians.min_by(|(_, a), (_, b)| a.total_cmp(b)),
        }
    }

    /// How many times as good an entrant is as a figure to compare with, by what the workload is compared by.
    pub(super) fn times_as_good(
        &self,
        placement: Placement,
        workload: Workload,
        entrant: Entrant,
        compared: f64,
    ) -> Option<f64> {
        let (quantity, better) = headline(workload.kind);
        let own = self.range(placement, workload, entrant, quantity)?.median;
        match better {
            Better::More => ratio(own, compared),
            Better::Less => ratio(compared, own),
        }
    }

    /// What was sent and never came, over all repetitions.
    pub(super) fn lost(&self, placement: Placement, workload: Workload, entrant: Entrant) -> u64 {
        let of_entrant = self.of(placement, workload).filter(|m| m.entrant == entrant);
        of_entrant.map(|m| m.outcome.lost()).fold(0, u64::saturating_add)
    }

    /// What a subject lost, in all of its profiles.
    pub(super) fn lost_by(&self, placement: Placement, workload: Workload, subject: &str) -> u64 {
        let of_subject = self.of(placement, workload).filter(|m| m.entrant.subject == subject);
        of_subject.map(|m| m.outcome.lost()).fold(0, u64::saturating_add)
    }

    fn of(&self, placement: Placement, workload: Workload) -> impl Iterator<Item = &Measurement> {
        self.measurements.iter().filter(move |m| m.placement == placement && m.workload == workload)
    }
}

#[cfg(test)]
pub(super) mod examples {
    use super::*;
    use crate::outcome::{Latency, Memory, Rate};

    /// A run with these rates, one for each repetition.
    pub(in crate::report) fn rates(rates: &[(&'static str, &'static str, &[u64])]) -> Results {
        let mut results = Results::default();
        for (workload, subject, counted) in rates {
            for (repetition, counted) in (1..).zip(counted.iter().copied()) {
                let rate = Rate { counted, seconds: 1.0, broker_cpu_seconds: 0.5, lost: 0 };
                add(&mut results, workload, subject, repetition, Outcome::Rate(rate));
            }
        }
        results
    }

    pub(in crate::report) fn latency(
        results: &mut Results,
        workload: &str,
        subject: &'static str,
        (p50_us, p99_us): (f64, f64),
    ) {
        let latency = Latency {
            p50_us,
            p99_us,
            p999_us: p99_us,
            max_us: p99_us,
            counted: 1_000,
            broker_cpu_seconds: 0.1,
            lost: 0,
        };
        add(results, workload, subject, 1, Outcome::Latency(latency));
    }

    /// One repetition more, of which so many messages never came.
    pub(in crate::report) fn lossy(results: &mut Results, workload: &str, subject: &'static str, lost: u64) {
        let (p50_us, p99_us) = (1.0, 1.0);
        let latency = Latency {
            p50_us,
            p99_us,
            p999_us: 1.0,
            max_us: 1.0,
            counted: 1_000,
            broker_cpu_seconds: 0.1,
            lost,
        };
        add(results, workload, subject, 2, Outcome::Latency(latency));
    }

    pub(in crate::report) fn memory(
        results: &mut Results,
        subject: &'static str,
        (alone_mib, connection_kib): (u64, u64),
    ) {
        let alone_bytes = alone_mib * 1_024 * 1_024;
        let loaded_bytes = alone_bytes + connection_kib * 1_024 * 1_000;
        let memory = Memory { alone_bytes, loaded_bytes, connections: 1_000 };
        add(results, "idle", subject, 1, Outcome::Memory(memory));
    }

    pub(in crate::report) fn entrant(workload: &str, subject: &'static str) -> Entrant {
        let profile = if workload.starts_with("durable") { Profile::Durable } else { Profile::Live };
        Entrant { subject, profile }
    }

    fn add(results: &mut Results, workload: &str, subject: &'static str, repetition: u32, outcome: Outcome) {
        results.measurements.push(Measurement {
            placement: Placement::Unpinned,
            workload: Workload::named(workload).expect("examples name workloads that there are"),
            entrant: entrant(workload, subject),
            repetition,
            outcome,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::examples::{entrant, latency, rates};
    use super::*;

    #[test]
    fn a_range_has_its_median_in_the_middle() {
        for (figures, expected) in [
            (vec![3.0, 1.0, 2.0], Some((2.0, 1.0, 3.0))),
            (vec![4.0, 1.0, 2.0, 10.0], Some((3.0, 1.0, 10.0))),
            (vec![7.0], Some((7.0, 7.0, 7.0))),
            (vec![], None),
        ] {
            let range = Range::of(figures).map(|range| (range.median, range.lowest, range.highest));
            assert_eq!(range, expected);
        }
    }

    #[test]
    fn the_best_peer_is_neither_sealbus_nor_the_relay() {
        let results = rates(&[
            ("1to1-128", "nats", &[3, 1, 2]),
            ("1to1-128", "redis", &[1, 9, 1]),
            ("1to1-128", "relay", &[50]),
            ("1to1-128", "sealbus", &[8]),
        ]);
        let workload = Workload::named("1to1-128").unwrap();
        let best = results.best_peer(Placement::Unpinned, workload, Quantity::PerSecond, Better::More);
        assert_eq!(best, Some((entrant("1to1-128", "nats"), 2.0)));
        let ours = entrant("1to1-128", "sealbus");
        assert_eq!(results.times_as_good(Placement::Unpinned, workload, ours, 2.0), Some(4.0));
        assert_eq!(results.placements(), [Placement::Unpinned]);
    }

    #[test]
    fn half_the_latency_is_twice_as_good() {
        let mut results = Results::default();
        latency(&mut results, "latency-1k", "sealbus", (10.0, 50.0));
        let workload = Workload::named("latency-1k").unwrap();
        let ours = entrant("latency-1k", "sealbus");
        assert_eq!(results.times_as_good(Placement::Unpinned, workload, ours, 100.0), Some(2.0));
    }
}
