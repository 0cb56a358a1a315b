//! What must hold, as ratios within one run: the floors of the issue that the comparison was made for.

use std::fmt;

use crate::outcome::{Quantity, ratio};
use crate::workload::Workload;

use super::figures::{figure, times};
use super::results::{Better, LIMIT, OURS, Placement, Results};

/// One floor.
struct Floor {
    says: &'static str,
    workload: &'static str,
    quantity: Quantity,
    bound: Bound,
}

/// What a figure of ours must be.
enum Bound {
    /// At least so many times that of another.
    AtLeast(f64, Rival),
    /// At most so many times that of another.
    AtMost(f64, Rival),
    /// At most so much more than the worst peer's.
    WorstPeerAnd(f64),
    /// At most so much.
    Fixed(f64),
}

enum Rival {
    Subject(&'static str),
    BestPeer,
}

const FLOORS: [Floor; 14] = [
    floor("2.5 times NATS", "1to1-128", Quantity::PerSecond, Bound::AtLeast(2.5, Rival::Subject("nats"))),
    floor("0.35 of the relay", "1to1-128", Quantity::PerSecond, Bound::AtLeast(0.35, Rival::Subject(LIMIT))),
    floor(
        "at most a quarter of NATS's broker CPU",
        "1to1-128",
        Quantity::CpuPerMillion,
        Bound::AtMost(0.25, Rival::Subject("nats")),
    ),
    floor("1.5 times the best peer", "1to1-1k", Quantity::PerSecond, Bound::AtLeast(1.5, Rival::BestPeer)),
    floor("at least the best peer", "1to1-16k", Quantity::PerSecond, Bound::AtLeast(1.0, Rival::BestPeer)),
    floor("2.5 times the best peer", "1to8-128", Quantity::PerSecond, Bound::AtLeast(2.5, Rival::BestPeer)),
    floor(
        "3 times Redis with appendfsync always",
        "durable-1k-256",
        Quantity::PerSecond,
        Bound::AtLeast(3.0, Rival::Subject("redis")),
    ),
    floor(
        "at least JetStream, which does not sync",
        "durable-1k-256",
        Quantity::PerSecond,
        Bound::AtLeast(1.0, Rival::Subject("nats")),
    ),
    floor("at least the best peer", "connects", Quantity::PerSecond, Bound::AtLeast(1.0, Rival::BestPeer)),
    floor("p99 at most the worst peer's + 150 us", "latency-1k", Quantity::P99Us, Bound::WorstPeerAnd(150.0)),
    floor("p50 at most 250 us", "latency-10k", Quantity::P50Us, Bound::Fixed(250.0)),
    floor("p99 at most 500 us", "latency-10k", Quantity::P99Us, Bound::Fixed(500.0)),
    floor("under 20 MiB alone", "idle", Quantity::AloneMib, Bound::Fixed(20.0)),
    floor("under 40 KiB for each connection", "idle", Quantity::ConnectionKib, Bound::Fixed(40.0)),
];

const fn floor(says: &'static str, workload: &'static str, quantity: Quantity, bound: Bound) -> Floor {
    Floor { says, workload, quantity, bound }
}

/// Whether a floor holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// It does.
    Met,
    /// It does not.
    NotMet,
    /// Who it is about was not measured.
    NoPeer,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Met => "met",
            Self::NotMet => "not met",
            Self::NoPeer => "no peer to compare",
        })
    }
}

/// A floor, and what was found of it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Judged {
    /// Of which workload.
    pub workload: &'static str,
    /// What it says.
    pub floor: &'static str,
    /// Whether it holds.
    pub verdict: Verdict,
    /// The figures that say so.
    pub found: String,
}

/// Every floor whose workload was measured of Sealbus there.
#[must_use]
pub fn judge(results: &Results, placement: Placement) -> Vec<Judged> {
    let judged = FLOORS.iter().filter_map(|floor| {
        let workload = Workload::named(floor.workload)?;
        let ours = results.median(placement, workload, OURS, floor.quantity)?;
        let (verdict, mut found) = found(results, placement, workload, floor, ours);
        // Who drops messages is not fast.
        let lost = results.lost_by(placement, workload, OURS);
        let verdict = if lost > 0 { Verdict::NotMet } else { verdict };
        if lost > 0 {
            found.push_str(&format!("; it lost {lost}"));
        }
        Some(Judged { workload: floor.workload, floor: floor.says, verdict, found })
    });
    judged.collect()
}

fn found(
    results: &Results,
    placement: Placement,
    workload: Workload,
    floor: &Floor,
    ours: f64,
) -> (Verdict, String) {
    let quantity = floor.quantity;
    let met = |holds: bool| if holds { Verdict::Met } else { Verdict::NotMet };
    let of_rival = |rival: &Rival| match rival {
        Rival::Subject(subject) => {
            let median = results.median(placement, workload, subject, quantity)?;
            Some(((*subject).to_owned(), median))
        }
        Rival::BestPeer => {
            let (peer, median) = results.best_peer(placement, workload, quantity, Better::More)?;
            Some((peer.to_string(), median))
        }
    };
    let alone = || (Verdict::NoPeer, figure(quantity, ours));
    let beside = |verdict, name: &str, theirs: f64| {
        let quotient = ratio(ours, theirs).map(exact_times).unwrap_or_default();
        (
            verdict,
            format!("{} beside {} of {name}: {quotient}", figure(quantity, ours), figure(quantity, theirs)),
        )
    };
    match &floor.bound {
        Bound::AtLeast(least, rival) => match of_rival(rival) {
            Some((name, theirs)) => beside(met(ours >= theirs * least), &name, theirs),
            None => alone(),
        },
        Bound::AtMost(most, rival) => match of_rival(rival) {
            Some((name, theirs)) => beside(met(ours <= theirs * most), &name, theirs),
            None => alone(),
        },
        Bound::WorstPeerAnd(more) => match results.best_peer(placement, workload, quantity, Better::More) {
            Some((peer, theirs)) => beside(met(ours <= theirs + more), &peer.to_string(), theirs),
            None => alone(),
        },
        Bound::Fixed(most) => (met(ours <= *most), figure(quantity, ours)),
    }
}

/// With a digit more where it is below one: 0.254 is shown as what it is, when the floor is 0.25.
fn exact_times(value: f64) -> String {
    if value < 1.0 { format!("{value:.3}x") } else { times(value) }
}

#[cfg(test)]
mod tests {
    use super::super::results::examples::{latency, lossy, memory, rates};
    use super::*;

    fn verdicts(results: &Results) -> Vec<(&'static str, Verdict)> {
        let judged = judge(results, Placement::Unpinned);
        judged.into_iter().map(|judged| (judged.floor, judged.verdict)).collect()
    }

    #[test]
    fn every_floor_names_a_workload_that_there_is() {
        for floor in &FLOORS {
            assert!(Workload::named(floor.workload).is_some(), "{}", floor.workload);
        }
    }

    #[test]
    fn a_ratio_is_met_from_its_bound_on() {
        for (ours, verdict) in [(249, Verdict::NotMet), (250, Verdict::Met)] {
            let results = rates(&[("1to8-128", "sealbus", &[ours]), ("1to8-128", "redis", &[100])]);
            assert_eq!(verdicts(&results), [("2.5 times the best peer", verdict)], "{ours}");
        }
    }

    #[test]
    fn the_best_peer_counts_and_not_the_first() {
        let results = rates(&[
            ("1to1-1k", "nats", &[100]),
            ("1to1-1k", "redis", &[200]),
            ("1to1-1k", "relay", &[900]),
            ("1to1-1k", "sealbus", &[299]),
        ]);
        assert_eq!(verdicts(&results), [("1.5 times the best peer", Verdict::NotMet)]);
    }

    #[test]
    fn cpu_for_each_message_must_be_less_and_the_relay_is_asked_by_name() {
        // The same CPU time for five times as many messages.
        let results = rates(&[
            ("1to1-128", "nats", &[100]),
            ("1to1-128", "relay", &[1_000]),
            ("1to1-128", "sealbus", &[500]),
        ]);
        assert!(verdicts(&results).iter().all(|(_, verdict)| *verdict == Verdict::Met));
        let results = rates(&[
            ("1to1-128", "nats", &[200]),
            ("1to1-128", "relay", &[1_500]),
            ("1to1-128", "sealbus", &[500]),
        ]);
        let verdicts: Vec<_> = verdicts(&results).into_iter().map(|(_, verdict)| verdict).collect();
        assert_eq!(verdicts, [Verdict::Met, Verdict::NotMet, Verdict::NotMet]);
    }

    #[test]
    fn without_a_peer_nothing_is_claimed() {
        let results = rates(&[("durable-1k-256", "sealbus", &[100])]);
        assert_eq!(
            judge(&results, Placement::Unpinned).into_iter().map(|judged| judged.verdict).collect::<Vec<_>>(),
            [Verdict::NoPeer, Verdict::NoPeer]
        );
        assert!(judge(&results, Placement::Pinned).is_empty());
    }

    #[test]
    fn who_loses_messages_meets_nothing() {
        let mut results = Results::default();
        latency(&mut results, "latency-10k", "sealbus", (100.0, 200.0));
        assert!(verdicts(&results).iter().all(|(_, verdict)| *verdict == Verdict::Met));
        lossy(&mut results, "latency-10k", "sealbus", 1);
        assert!(verdicts(&results).iter().all(|(_, verdict)| *verdict == Verdict::NotMet));
    }

    #[test]
    fn latency_is_compared_with_the_worst_peer_and_with_fixed_bounds() {
        let mut results = Results::default();
        latency(&mut results, "latency-1k", "nats", (90.0, 200.0));
        latency(&mut results, "latency-1k", "redis", (90.0, 300.0));
        latency(&mut results, "latency-1k", "relay", (90.0, 900.0));
        latency(&mut results, "latency-1k", "sealbus", (200.0, 451.0));
        latency(&mut results, "latency-10k", "sealbus", (250.0, 501.0));
        memory(&mut results, "sealbus", (12, 41));
        assert_eq!(
            verdicts(&results),
            [
                ("p99 at most the worst peer's + 150 us", Verdict::NotMet),
                ("p50 at most 250 us", Verdict::Met),
                ("p99 at most 500 us", Verdict::NotMet),
                ("under 20 MiB alone", Verdict::Met),
                ("under 40 KiB for each connection", Verdict::NotMet),
            ]
        );
    }
}
