//! The report as text, in Markdown that reads well unrendered.

use crate::outcome::Quantity;
use crate::subject::Profile;
use crate::workload::{Kind, Workload};

use super::columns::Columns;
use super::figures::{figure, from_to, grouped, times};
use super::floors::judge;
use super::machine::Machine;
use super::results::{Absent, Better, Entrant, LIMIT, OURS, Placement, Results, headline};

/// Everything that a reader needs to believe the figures or not.
#[must_use]
pub fn report(results: &Results, machine: &Machine, repetitions: u32, seconds: f64) -> String {
    let mut text = String::new();
    for placement in results.placements() {
        text.push_str(&format!("## {}\n\n", title(placement)));
        text.push_str(&overview(results, placement));
        text.push_str(
            "\nMedians; in brackets what the broker used, user and system, in us of CPU for each of them (so in \
             seconds per million).\nLatency: p50 / p99 in us from the intended send time. Idle: MiB alone / KiB for each \
             connection.\nThe relay is no broker but a yardstick: TLS in and out, no parsing, no queues, no access rules.\n",
        );
        text.push_str(&format!("\n### Sealbus compared, {placement}\n\n{}", ratios(results, placement)));
        let floors = floors(results, placement);
        if !floors.is_empty() {
            text.push_str(&format!("\n### Floors, {placement}\n\n{floors}"));
        }
        text.push_str(&format!("\n### In detail, {placement}\n\n{}\n", details(results, placement)));
    }
    text.push_str(&format!("## What each does\n\n{}\n{NOTES}", facts(results)));
    if cfg!(debug_assertions) {
        text.push_str(
            "\nThis was a debug build: no figure of Sealbus, the relay or the clients means anything.\n",
        );
    }
    text.push_str(&format!(
        "\n{}, {} cores, Linux {}, TCP with {}; brokers write to {}. {repetitions} repetitions, windows of {seconds} s.\n",
        machine.processor, machine.cores, machine.kernel, machine.congestion_control, machine.file_system,
    ));
    if machine.writes_to_memory() {
        text.push_str("That is memory: no sync there means anything. Name a folder on a disk with --dir.\n");
    }
    for (word, absent) in [("skipped", &results.skipped), ("failed", &results.failed)] {
        for Absent { what, why } in absent {
            text.push_str(&format!("{word}: {what}: {why}\n"));
        }
    }
    text
}

/// What a reader should know who looks for what is unequal.
const NOTES: &str = "\
The key exchange of Sealbus and the relay is post-quantum (X25519MLKEM768), that of the others is theirs. NATS and Redis
hand out session tickets with each handshake, which nobody uses here; Sealbus and the relay hand out none. The peers are
built as their packages are; Sealbus, the relay and all clients are one program, built for any x86-64.
";

pub(super) const fn title(placement: Placement) -> &'static str {
    match placement {
        Placement::Unpinned => "Unpinned: every core for everybody",
        Placement::Pinned => "Pinned: the broker on one core, all clients on another",
    }
}

/// A workload in a line, everybody in a column.
fn overview(results: &Results, placement: Placement) -> String {
    let workloads = results.workloads(placement);
    let everybody = everybody(results, placement, &workloads);
    let heads = ["workload".to_owned(), "unit".to_owned()].into_iter().chain(everybody.iter().cloned());
    let mut columns = Columns::new(2, heads);
    for workload in workloads {
        let entrants = results.entrants(placement, workload);
        let cells = everybody.iter().map(|name| {
            let entrant = entrants.iter().find(|entrant| entrant.to_string() == *name);
            entrant.map_or_else(|| "-".to_owned(), |entrant| cell(results, placement, workload, *entrant))
        });
        columns.row([workload.name.to_owned(), workload.unit().to_owned()].into_iter().chain(cells));
    }
    columns.render()
}

/// In the order of those who take part, whoever was measured first.
fn everybody(results: &Results, placement: Placement, workloads: &[Workload]) -> Vec<String> {
    let mut entrants: Vec<Entrant> = Vec::new();
    for workload in workloads {
        for entrant in results.entrants(placement, *workload) {
            if !entrants.iter().any(|known| known.to_string() == entrant.to_string()) {
                entrants.push(entrant);
            }
        }
    }
    entrants.sort_by_key(|entrant| {
        results.participants.iter().position(|participant| participant.name == entrant.subject)
    });
    entrants.iter().map(Entrant::to_string).collect()
}

fn cell(results: &Results, placement: Placement, workload: Workload, entrant: Entrant) -> String {
    let median = |quantity| {
        let range = results.range(placement, workload, entrant, quantity)?;
        Some(figure(quantity, range.median))
    };
    let pair = |first, second| Some(format!("{} / {}", median(first)?, median(second)?));
    let text = match workload.kind {
        Kind::Spread(_) | Kind::Durable { .. } | Kind::Connects => {
            median(Quantity::PerSecond).map(|rate| match median(Quantity::CpuPerMillion) {
                Some(cpu) => format!("{rate} ({cpu})"),
                None => rate,
            })
        }
        Kind::Latency { .. } => pair(Quantity::P50Us, Quantity::P99Us),
        Kind::Idle { .. } => pair(Quantity::AloneMib, Quantity::ConnectionKib),
    };
    text.unwrap_or_else(|| "-".to_owned())
}

/// How many times as good Sealbus is.
fn ratios(results: &Results, placement: Placement) -> String {
    let mut columns = Columns::new(2, ["workload", "compared by", "NATS", "best peer", "which", "the relay"]);
    for workload in results.workloads(placement) {
        let (quantity, better) = headline(workload.kind);
        let entrants = results.entrants(placement, workload);
        let Some(ours) = entrants.into_iter().find(|entrant| entrant.subject == OURS) else { continue };
        let best = results.best_peer(placement, workload, quantity, better);
        let compared = |theirs: Option<f64>| {
            let quotient = theirs.and_then(|theirs| results.times_as_good(placement, workload, ours, theirs));
            quotient.map_or_else(|| "-".to_owned(), times)
        };
        columns.row([
            workload.name.to_owned(),
            compared_by(quantity, better),
            compared(results.median(placement, workload, "nats", quantity)),
            compared(best.map(|(_, median)| median)),
            best.map_or_else(|| "-".to_owned(), |(peer, _)| peer.to_string()),
            compared(results.median(placement, workload, LIMIT, quantity)),
        ]);
    }
    columns.render()
}

fn compared_by(quantity: Quantity, better: Better) -> String {
    let quantity = match quantity {
        Quantity::PerSecond => "rate",
        Quantity::CpuPerMillion => "broker CPU",
        Quantity::P50Us => "p50",
        Quantity::P99Us => "p99",
        Quantity::AloneMib => "memory alone",
        Quantity::ConnectionKib => "memory of a connection",
    };
    match better {
        Better::More => quantity.to_owned(),
        Better::Less => format!("{quantity}, inverted"),
    }
}

fn floors(results: &Results, placement: Placement) -> String {
    let judged = judge(results, placement);
    if judged.is_empty() {
        return String::new();
    }
    let mut columns = Columns::new(4, ["workload", "floor", "verdict", "found"]);
    for judged in judged {
        columns.row([
            judged.workload.to_owned(),
            judged.floor.to_owned(),
            judged.verdict.to_string(),
            judged.found,
        ]);
    }
    columns.render()
}

/// A workload and a subject in a line, with the ranges.
fn details(results: &Results, placement: Placement) -> String {
    let heads = ["workload", "subject", "figure", "median", "lowest - highest", "broker CPU us", "lost"];
    let mut columns = Columns::new(3, heads);
    for workload in results.workloads(placement) {
        for entrant in results.entrants(placement, workload) {
            for (place, (name, quantity)) in quantities(workload.kind).iter().enumerate() {
                let Some(range) = results.range(placement, workload, entrant, *quantity) else { continue };
                let cpu = results.range(placement, workload, entrant, Quantity::CpuPerMillion);
                let cpu = cpu.map_or_else(String::new, |range| figure(Quantity::CpuPerMillion, range.median));
                let lost = grouped(results.lost(placement, workload, entrant) as f64);
                columns.row([
                    workload.name.to_owned(),
                    entrant.to_string(),
                    (*name).to_owned(),
                    figure(*quantity, range.median),
                    from_to(*quantity, range),
                    if place == 0 { cpu } else { String::new() },
                    if place == 0 { lost } else { String::new() },
                ]);
            }
        }
    }
    columns.render()
}

const fn quantities(kind: Kind) -> &'static [(&'static str, Quantity)] {
    match kind {
        Kind::Spread(_) => &[("delivered/s", Quantity::PerSecond)],
        Kind::Durable { .. } => &[("acknowledged/s", Quantity::PerSecond)],
        Kind::Connects => &[("connects/s", Quantity::PerSecond)],
        Kind::Latency { .. } => &[("p50 us", Quantity::P50Us), ("p99 us", Quantity::P99Us)],
        Kind::Idle { .. } => {
            &[("alone MiB", Quantity::AloneMib), ("a connection KiB", Quantity::ConnectionKib)]
        }
    }
}

/// What stands behind the figures.
fn facts(results: &Results) -> String {
    let heads = ["subject", "version", "durable: acknowledged", "signatures", "access rules"];
    let mut columns = Columns::new(heads.len(), heads);
    for participant in &results.participants {
        let acknowledgements = participant.acknowledgements.iter().map(|(profile, means)| match profile {
            Profile::Live | Profile::Durable => (*means).to_owned(),
            Profile::DurableEverySecond => format!("everysec: {means}"),
        });
        let acknowledgements: Vec<String> = acknowledgements.collect();
        let durable =
            if acknowledgements.is_empty() { "cannot".to_owned() } else { acknowledgements.join("; ") };
        columns.row([
            participant.name,
            &participant.version,
            &durable,
            participant.facts.signatures,
            participant.facts.access,
        ]);
    }
    columns.render()
}

#[cfg(test)]
mod tests {
    use super::super::results::Participant;
    use super::super::results::examples::{latency, memory, rates};
    use super::*;
    use crate::subject::Facts;

    fn machine(file_system: &str) -> Machine {
        Machine {
            processor: "a processor".to_owned(),
            cores: 2,
            kernel: "6.1".to_owned(),
            file_system: file_system.to_owned(),
            congestion_control: "cubic".to_owned(),
        }
    }

    #[test]
    fn everybody_stands_in_the_overview_with_rate_and_cost() {
        let mut results = rates(&[
            ("1to1-128", "nats", &[1_000_000, 900_000, 1_100_000]),
            ("1to1-128", "sealbus", &[4_000_000]),
            ("durable-1k-256", "sealbus", &[200_000]),
        ]);
        latency(&mut results, "latency-1k", "sealbus", (165.0, 350.0));
        memory(&mut results, "sealbus", (12, 30));
        let expected = "\
| workload       | unit                        |          nats |       sealbus |
|----------------|-----------------------------|--------------:|--------------:|
| 1to1-128       | messages/s                  | 1.00 M (0.50) | 4.00 M (0.12) |
| durable-1k-256 | acknowledged/s              |             - |  200 k (2.50) |
| latency-1k     | us, p50 / p99               |             - |     165 / 350 |
| idle           | MiB alone / KiB a connection |            - |  12.0 / 30.0 |
";
        let squeezed = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        let without_lines =
            |text: &str| text.lines().filter(|line| !line.contains("---")).map(squeezed).collect::<Vec<_>>();
        assert_eq!(without_lines(&overview(&results, Placement::Unpinned)), without_lines(expected));
        let details = details(&results, Placement::Unpinned);
        assert!(details.contains(" 900 k - 1.10 M |"), "{details}");
    }

    #[test]
    fn what_was_not_measured_is_not_compared() {
        let results = rates(&[("1to1-128", "sealbus", &[4]), ("1to1-128", "relay", &[8])]);
        let ratios = ratios(&results, Placement::Unpinned);
        let last = ratios.lines().last().unwrap();
        let cells: Vec<&str> = last.split('|').map(str::trim).collect();
        assert_eq!(cells, ["", "1to1-128", "rate", "-", "-", "-", "0.50x", ""]);
    }

    #[test]
    fn the_report_says_what_stands_behind_its_figures() {
        let mut results = rates(&[("1to1-128", "sealbus", &[4])]);
        results.participants.push(Participant {
            name: "sealbus",
            version: "1.2.3".to_owned(),
            facts: Facts { signatures: "all", access: "some" },
            acknowledgements: vec![(Profile::Durable, "after fdatasync")],
        });
        results.skipped.push(Absent { what: "nats".to_owned(), why: "it is not installed".to_owned() });
        let text = report(&results, &machine("ext4"), 3, 2.0);
        for part in
            ["1.2.3", "after fdatasync", "a processor, 2 cores, Linux 6.1, TCP with cubic", "3 repetitions"]
        {
            assert!(text.contains(part), "{part} is in\n{text}");
        }
        assert!(text.contains("skipped: nats: it is not installed\n"));
        assert!(!text.contains("That is memory"));
        assert!(report(&results, &machine("tmpfs"), 3, 2.0).contains("That is memory"));
    }
}
