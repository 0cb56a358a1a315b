//! What can be said about a shape.

use std::path::PathBuf;

use clap::Args;

const AFTER_HELP: &str = "\
Series: topics subscribers rules connections size batch

Examples:
  compare shape
  compare shape --only topics,rules --repetitions 5
  compare shape --json shape.jsonl --svg shape.svg";

/// What is measured, and how long.
#[derive(Debug, Clone, Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct ShapeArguments {
    /// Two values of each series, once, in short windows: under 40 seconds, and too short for figures to be quoted.
    #[arg(long)]
    pub(super) quick: bool,
    /// Only these series.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub(super) only: Vec<String>,
    /// How often each value is measured; 3 when left out.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(super) repetitions: Option<u32>,
    /// Seconds of each window; 2 when left out. The warm-up before it is half as long.
    #[arg(long, value_name = "NUMBER", value_parser = crate::arguments::seconds)]
    pub(super) seconds: Option<f64>,
    /// Where the brokers' folders are made; where temporary files are when left out.
    #[arg(long, value_name = "DIR")]
    pub(super) dir: Option<PathBuf>,
    /// Write every measurement and every row there, a line of JSON each.
    #[arg(long, value_name = "FILE")]
    pub(super) json: Option<PathBuf>,
    /// Draw the rows there.
    #[arg(long, value_name = "FILE")]
    pub(super) svg: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shape::series::Series;

    #[test]
    fn the_help_names_every_series() {
        for series in Series::ALL {
            assert!(AFTER_HELP.contains(series.name()), "{series}");
        }
    }
}
