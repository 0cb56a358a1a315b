//! What can be said on the command line.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::shape::ShapeArguments;

const AFTER_HELP: &str = "\
Workloads: 1to1-128 1to1-1k 1to1-16k 1to8-128 1to8-1k 1to8-16k 8to8-128 durable-1k-256 durable-1k-1
           latency-1k latency-10k connects idle
Subjects:  nats mosquitto redis relay sealbus; one that is not installed is skipped

Examples:
  compare --quick
  compare --json run.jsonl --svg chart.svg
  compare --only sealbus,relay --workload 1to1-128 --repetitions 5 --pinned-only";

/// Sealbus beside other brokers, in one run: throughput, durable publishing, latency, connects, memory.
#[derive(Debug, Parser)]
#[command(name = "compare", version, after_help = AFTER_HELP, args_conflicts_with_subcommands = true)]
#[command(disable_help_subcommand = true)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) compare: CompareArguments,
    #[command(subcommand)]
    pub(crate) part: Option<Part>,
}

/// What is compared, and how long.
#[derive(Debug, Clone, Args)]
pub(crate) struct CompareArguments {
    /// Everything once, in short windows and unpinned: under two minutes, and too short for figures to be quoted.
    #[arg(long)]
    pub(crate) quick: bool,
    /// Only these subjects.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub(crate) only: Vec<String>,
    /// Only these workloads.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub(crate) workload: Vec<String>,
    /// How often each is measured; 3 when left out.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(crate) repetitions: Option<u32>,
    /// Seconds of each window; 2 when left out. The warm-up before it is half as long.
    #[arg(long, value_name = "NUMBER", value_parser = seconds)]
    pub(crate) seconds: Option<f64>,
    /// Where the brokers' folders are made, which says which disk is measured; where temporary files are when left out.
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
    /// Write every measurement and the summary there, a line of JSON each.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Draw the summary there.
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,
    /// Only with all cores for everybody.
    #[arg(long, conflicts_with = "pinned_only")]
    pub(crate) unpinned_only: bool,
    /// Only with the broker on one core and the clients on another.
    #[arg(long)]
    pub(crate) pinned_only: bool,
    /// Only the relay and Sealbus, whatever is installed.
    #[arg(long, conflicts_with = "only")]
    pub(crate) without_peers: bool,
}

/// Something else than the comparison, or this program as a part of a run.
#[derive(Debug, Subcommand)]
pub(crate) enum Part {
    /// Sealbus alone: what a message costs the broker against topics, subscribers, rules, connections and sizes.
    Shape(ShapeArguments),
    /// Measure once and print what was found.
    #[command(hide = true)]
    Load(LoadArguments),
    /// Be the relay.
    #[command(hide = true)]
    Relay {
        #[arg(long)]
        port: u16,
        #[arg(long)]
        pki: PathBuf,
    },
    /// Become another program, on one core, and end with the parent.
    #[command(hide = true)]
    Child {
        #[arg(long)]
        core: Option<usize>,
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
}

/// One measurement, of a subject that runs.
#[derive(Debug, Clone, Args)]
pub(crate) struct LoadArguments {
    #[arg(long)]
    pub(crate) subject: String,
    #[arg(long)]
    pub(crate) workload: String,
    /// The profile's name.
    #[arg(long)]
    pub(crate) profile: String,
    #[arg(long)]
    pub(crate) port: u16,
    /// The broker's process.
    #[arg(long)]
    pub(crate) process: u32,
    /// The folder of the certificates.
    #[arg(long)]
    pub(crate) pki: PathBuf,
    /// The subject's own folder.
    #[arg(long)]
    pub(crate) folder: PathBuf,
    #[arg(long, value_parser = seconds)]
    pub(crate) warm_up: f64,
    #[arg(long, value_parser = seconds)]
    pub(crate) seconds: f64,
}

/// The longest window, in seconds: a run has more than a hundred of them.
const SECONDS_MAX: f64 = 600.0;

pub(crate) fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.05..=SECONDS_MAX).contains(&seconds) => Ok(seconds),
        Ok(_) | Err(_) => Err(format!("{text} is no number from 0.05 to {SECONDS_MAX}")),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::workload;

    #[test]
    fn the_arguments_do_not_contradict_each_other() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn the_help_names_every_workload() {
        for workload in workload::ALL {
            assert!(AFTER_HELP.contains(workload.name), "{}", workload.name);
        }
    }

    #[test]
    fn a_child_s_arguments_are_its_own() {
        let parsed = Arguments::try_parse_from(["compare", "child", "--core", "1", "--", "a", "--core", "2"]);
        match parsed.unwrap().part {
            Some(Part::Child { core, command }) => {
                assert_eq!((core, command), (Some(1), ["a", "--core", "2"].map(OsString::from).to_vec()));
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn windows_have_a_length() {
        assert_eq!(seconds("0.5"), Ok(0.5));
        for text in ["0", "-1", "NaN", "inf", "1e9", "", "a"] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }
}
