//! The shape of cost: what a message costs the broker, against one variable at a time.
//!
//! ```text
//!   for each series: for each repetition: for each value:      1 10 100 ... 1 10 100 ..., so that no row has a bad minute
//!       a bus with this policy and these principals ── broker ── load, through the real client ── stop
//!   rows: medians, growth against the first, a word where it grows faster than it must ── table, JSON lines, chart
//! ```
//!
//! Sealbus alone: what is asked is not who is faster, but whether something grows that should not. Everything but the
//! variable is at the baseline of [`series`]: one publisher, one subscriber, one topic, 128 B, ten rules.

mod arguments;
mod chart;
mod json;
mod load;
mod policy;
mod rows;
mod series;
mod stage;
mod table;

use std::time::Duration;

use crate::child;
use crate::failure::Failure;
use crate::orchestrate::{Interrupt, progress, temporary, write};
use crate::pki::Pki;
use crate::report::Machine;

pub(crate) use self::arguments::ShapeArguments;
use self::rows::{Row, Sample, rows};
use self::series::Series;
use self::stage::Stage;

const REPETITIONS: u32 = 3;
const SECONDS: f64 = 2.0;

/// A quick run has twelve measurements and forty seconds.
const QUICK_SECONDS: f64 = 0.5;

/// What was measured, in the order in which it was.
#[derive(Debug, Default)]
struct Findings {
    samples: Vec<(Series, u32, Sample)>,
    failed: Vec<String>,
}

impl Findings {
    /// The rows of each series that was measured.
    fn rows(&self) -> Vec<(Series, Vec<Row>)> {
        let of = |series: Series| {
            let samples = self.samples.iter().filter(|(of, ..)| *of == series);
            let samples: Vec<_> = samples.map(|(_, value, sample)| (*value, *sample)).collect();
            (series, rows(series, &samples))
        };
        Series::ALL.into_iter().map(of).filter(|(_, rows)| !rows.is_empty()).collect()
    }
}

/// Measures the shape and prints it.
pub(crate) fn run(arguments: &ShapeArguments) -> Result<(), Failure> {
    let chosen = Series::named(&arguments.only)?;
    let repetitions = arguments.repetitions.unwrap_or(if arguments.quick { 1 } else { REPETITIONS });
    let seconds = arguments.seconds.unwrap_or(if arguments.quick { QUICK_SECONDS } else { SECONDS });
    let interrupt = Interrupt::listen()?;
    // The clients of thousands of connections are in this process.
    child::raise_open_files()?;
    let folder = temporary(arguments.dir.as_deref())?;
    let machine = Machine::of(folder.path());
    let own_program = std::env::current_exe().map_err(|error| Failure::new("find this program", error))?;
    let stage = Stage {
        own_program: &own_program,
        folder: folder.path(),
        pki: &Pki::at(folder.path()),
        window: Duration::from_secs_f64(seconds),
        interrupt: &interrupt,
    };
    let steps = steps(&chosen, repetitions, arguments.quick);
    let mut findings = Findings::default();
    // Whoever interrupts a long run still sees what it has found.
    let ended = measure(&stage, &steps, &mut findings);
    let rows = findings.rows();
    print!("{}", table::report(&rows, &machine, repetitions, seconds));
    if let Some(path) = &arguments.json {
        write(path, &json::lines(&findings.samples, &rows, &machine, repetitions, seconds))?;
    }
    if let Some(path) = &arguments.svg {
        write(path, &chart::chart(&rows))?;
    }
    ended?;
    match findings.failed.len() {
        0 => Ok(()),
        failed => Err(Failure::new("measure everything", format!("{failed} measurements failed, see above"))),
    }
}

/// Every measurement, each value once before any is measured again.
fn steps(chosen: &[Series], repetitions: u32, quick: bool) -> Vec<(Series, u32)> {
    let mut steps = Vec::new();
    for series in chosen.iter().copied() {
        let values = if quick { series.quick_values() } else { series.values() };
        for _ in 0..repetitions {
            steps.extend(values.iter().map(|value| (series, *value)));
        }
    }
    steps
}

/// One measurement after the other; one that fails does not keep the others from being made.
fn measure(stage: &Stage<'_>, steps: &[(Series, u32)], findings: &mut Findings) -> Result<(), Failure> {
    let bar = progress(steps.len());
    for (series, value) in steps.iter().copied() {
        let what = format!("{series} {value}");
        bar.set_message(what.clone());
        match stage.measure(series, value) {
            Ok(sample) => findings.samples.push((series, value, sample)),
            Err(failure) => {
                stage.interrupt.check()?;
                bar.suspend(|| eprintln!("failed: {what}: {failure}"));
                findings.failed.push(what);
            }
        }
        bar.inc(1);
        stage.interrupt.check()?;
    }
    bar.finish_and_clear();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_measured_once_before_any_is_measured_again() {
        let found = steps(&[Series::Subscribers], 2, false);
        let values: Vec<u32> = found.iter().map(|(_, value)| *value).collect();
        assert_eq!(values, [1, 10, 100, 1_000, 1, 10, 100, 1_000]);
        assert_eq!(steps(&Series::ALL, 1, true).len(), 2 * Series::ALL.len());
    }

    #[test]
    fn findings_are_shown_by_series_and_those_that_are_not_there_not_at_all() {
        let sample = rows::examples::sample;
        let findings = Findings {
            samples: vec![
                (Series::Rules, 10, sample(1.0, 9.0)),
                (Series::Topics, 1, sample(1.0, 9.0)),
                (Series::Rules, 100, sample(1.0, 9.0)),
            ],
            failed: Vec::new(),
        };
        let found: Vec<_> = findings.rows().iter().map(|(series, rows)| (*series, rows.len())).collect();
        assert_eq!(found, [(Series::Topics, 1), (Series::Rules, 2)]);
    }
}
