//! The report as lines of JSON: the machine, who took part, every measurement, the floors.

use serde_json::{Value, json};

use super::floors::judge;
use super::machine::Machine;
use super::results::{Absent, Measurement, Participant, Results};

/// The lines, each ended.
#[must_use]
pub fn lines(results: &Results, machine: &Machine, repetitions: u32, seconds: f64) -> String {
    let mut values = vec![json!({
        "type": "run",
        "machine": machine,
        "repetitions": repetitions,
        "seconds": seconds,
    })];
    values.extend(results.participants.iter().map(participant));
    values.extend(results.measurements.iter().map(measurement));
    for placement in results.placements() {
        values.extend(
            judge(results, placement)
                .into_iter()
                .map(|judged| json!({ "type": "floor", "placement": placement, "floor": judged })),
        );
    }
    for (kind, absent) in [("skipped", &results.skipped), ("failed", &results.failed)] {
        values.extend(
            absent.iter().map(|Absent { what, why }| json!({ "type": kind, "what": what, "why": why })),
        );
    }
    values.iter().map(|value| format!("{value}\n")).collect()
}

fn participant(participant: &Participant) -> Value {
    let acknowledged: Vec<Value> = participant
        .acknowledgements
        .iter()
        .map(|(profile, means)| json!({ "profile": profile, "means": means }))
        .collect();
    json!({
        "type": "subject",
        "subject": participant.name,
        "version": participant.version,
        "signatures": participant.facts.signatures,
        "access": participant.facts.access,
        "acknowledged": acknowledged,
    })
}

fn measurement(measurement: &Measurement) -> Value {
    let Measurement { placement, workload, entrant, repetition, outcome } = measurement;
    json!({
        "type": "measurement",
        "placement": placement,
        "workload": workload.name,
        "subject": entrant.subject,
        "profile": entrant.profile,
        "repetition": repetition,
        "outcome": outcome,
    })
}

#[cfg(test)]
mod tests {
    use super::super::results::examples::rates;
    use super::*;

    #[test]
    fn every_line_is_json_and_says_what_it_is() {
        let results = rates(&[("1to1-1k", "nats", &[3, 1]), ("1to1-1k", "sealbus", &[8])]);
        let machine = Machine {
            processor: "a \"processor\"".to_owned(),
            cores: 2,
            kernel: String::new(),
            file_system: String::new(),
            congestion_control: String::new(),
        };
        let text = lines(&results, &machine, 2, 0.5);
        let values: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let types: Vec<&str> = values.iter().filter_map(|value| value["type"].as_str()).collect();
        assert_eq!(types, ["run", "measurement", "measurement", "measurement", "floor"]);
        assert_eq!(values[0]["machine"]["processor"], "a \"processor\"");
        assert_eq!(values[2]["outcome"]["counted"], 1);
        assert_eq!(values[4]["floor"]["verdict"], "met");
    }
}
