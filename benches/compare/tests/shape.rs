//! The shape of cost, in small: real brokers, a real client, and nothing left behind.

#![allow(clippy::unwrap_used, reason = "a test says what it found by failing")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

fn shape(dir: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_compare"));
    command.args(["shape", "--dir"]).arg(dir).args(arguments).output().unwrap()
}

#[test]
fn a_shape_has_two_rows_for_each_series_loses_nothing_and_leaves_nothing_behind() {
    let (dir, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (json, svg) = (out.path().join("lines"), out.path().join("chart"));
    let files = ["--json", json.to_str().unwrap(), "--svg", svg.to_str().unwrap()];
    let output =
        shape(dir.path(), &[&["--quick", "--seconds", "0.1", "--only", "topics,rules"], &files[..]].concat());
    let [stdout, stderr] = [output.stdout, output.stderr].map(|said| String::from_utf8(said).unwrap());
    assert!(output.status.success(), "{stdout}\n{stderr}");
    assert!(fs::read_dir(dir.path()).unwrap().next().is_none());

    let lines: Vec<Value> =
        fs::read_to_string(&json).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let rows: Vec<&Value> = lines.iter().filter(|line| line["type"] == "row").collect();
    let of: Vec<_> = rows
        .iter()
        .map(|row| (row["series"].as_str().unwrap(), row["row"]["value"].as_u64().unwrap()))
        .collect();
    assert_eq!(of, [("topics", 1), ("topics", 1_000), ("rules", 10), ("rules", 10_000)]);
    for row in rows {
        assert_eq!(row["row"]["lost"], 0, "{row}");
        assert!(row["row"]["cpu_us"]["median"].as_f64().is_some(), "{row}");
        assert!(row["row"]["deliveries_per_second"]["lowest"].as_f64().unwrap() > 0.0, "{row}");
    }
    assert!(stdout.contains("| 10,000 |") && stdout.contains("reload ms"), "{stdout}");
    assert!(fs::read_to_string(&svg).unwrap().starts_with("<svg "));
}

#[test]
fn a_series_that_there_is_not_is_refused_before_anything_starts() {
    let dir = tempfile::tempdir().unwrap();
    let output = shape(dir.path(), &["--only", "topics,colours"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && said.contains("\"colours\""), "{said}");
    assert!(output.stdout.is_empty());
    assert!(fs::read_dir(dir.path()).unwrap().next().is_none());
}
