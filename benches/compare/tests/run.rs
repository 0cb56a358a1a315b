//! The whole run, in small: this program starts brokers, measures them, tells what it found, and leaves nothing behind.

#![allow(clippy::unwrap_used, reason = "a test says what it found by failing")]

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// How long a condition may take to hold, on a machine however busy.
const PATIENCE: Duration = Duration::from_secs(60);

fn compare(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_compare"));
    command.arg("--dir").arg(dir).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn is_empty(dir: &Path) -> bool {
    fs::read_dir(dir).unwrap().next().is_none()
}

#[test]
fn a_run_measures_everything_loses_nothing_and_leaves_nothing_behind() {
    let (dir, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (json, svg) = (out.path().join("lines"), out.path().join("chart"));
    let workloads = ["1to1-128", "1to8-1k", "8to8-128", "durable-1k-256", "latency-1k", "connects"];
    let output = compare(dir.path())
        .args(["--without-peers", "--quick", "--seconds", "0.2", "--workload", &workloads.join(",")])
        .arg("--json")
        .arg(&json)
        .arg("--svg")
        .arg(&svg)
        .output()
        .unwrap();
    let [stdout, stderr] = [output.stdout, output.stderr].map(|said| String::from_utf8(said).unwrap());
    assert!(output.status.success(), "{stdout}\n{stderr}");
    assert!(is_empty(dir.path()));

    let lines: Vec<Value> =
        fs::read_to_string(&json).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let measurements: Vec<&Value> = lines.iter().filter(|line| line["type"] == "measurement").collect();
    // The relay keeps nothing.
    assert_eq!(measurements.len(), workloads.len() * 2 - 1, "{stdout}");
    for measurement in &measurements {
        assert_eq!(measurement["outcome"]["lost"], 0, "{measurement}");
        assert!(measurement["outcome"]["counted"].as_u64().is_some_and(|count| count > 0), "{measurement}");
    }
    for workload in workloads {
        assert!(stdout.contains(&format!("| {workload}")), "{workload} is in\n{stdout}");
    }
    assert!(fs::read_to_string(&svg).unwrap().starts_with("<svg "));
}

#[test]
fn what_there_is_not_is_refused_before_anything_starts() {
    let dir = tempfile::tempdir().unwrap();
    for arguments in [["--only", "kafka"], ["--workload", "1to1"], ["--seconds", "0"]] {
        let output = compare(dir.path()).args(arguments).output().unwrap();
        assert!(!output.status.success(), "{arguments:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{arguments:?}");
        assert!(is_empty(dir.path()));
    }
}

/// Everything that was started in this folder and runs: processes name it in their arguments.
fn processes_of(dir: &Path) -> Vec<String> {
    let name = dir.to_str().unwrap();
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let lines = processes.filter_map(|process| fs::read(process.path().join("cmdline")).ok());
    lines
        .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
        .filter(|line| line.contains(name))
        .collect()
}

fn eventually(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A run in the middle of a long measurement.
fn measuring(dir: &Path) -> Child {
    let mut run = compare(dir);
    let child =
        run.args(["--only", "sealbus", "--workload", "1to1-128", "--seconds", "500", "--unpinned-only"]);
    let child = child.spawn().unwrap();
    eventually("the load runs", || processes_of(dir).iter().any(|line| line.contains(" load --subject ")));
    child
}

fn tell(child: &Child, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    kill_process(pid, signal).unwrap();
}

#[test]
fn a_run_that_is_interrupted_ends_its_children_and_cleans_up() {
    for signal in [Signal::INT, Signal::TERM] {
        let dir = tempfile::tempdir().unwrap();
        let child = measuring(dir.path());
        tell(&child, signal);
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && said.contains("interrupted"), "{said}");
        assert!(is_empty(dir.path()));
        assert_eq!(processes_of(dir.path()), Vec::<String>::new());
    }
}

#[test]
fn children_do_not_outlive_a_run_that_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = measuring(dir.path());
    tell(&child, Signal::KILL);
    child.wait().unwrap();
    eventually("all children are gone", || processes_of(dir.path()).is_empty());
}
