//! The run: who takes part, in which order everybody is measured, and what becomes of the findings.

mod interrupt;
mod plan;
mod step;

use std::fs;
use std::path::Path;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tempfile::TempDir;

use crate::arguments::CompareArguments;
use crate::failure::Failure;
use crate::pki::Pki;
use crate::report::{Absent, Machine, Measurement, Results, chart, lines, report};

pub(crate) use self::interrupt::Interrupt;
use self::plan::{Plan, Step};
use self::step::Bench;

/// Runs the comparison and prints the report.
pub(crate) fn run(arguments: &CompareArguments) -> Result<(), Failure> {
    let plan = Plan::new(arguments)?;
    let interrupt = Interrupt::listen()?;
    let folder = temporary(arguments.dir.as_deref())?;
    let machine = Machine::of(folder.path());
    let pki_folder = folder.path().join("pki");
    fs::create_dir(&pki_folder)
        .map_err(|error| Failure::new(format!("make {}", pki_folder.display()), error))?;
    let pki = Pki::create(&pki_folder)?;
    let own_program = std::env::current_exe().map_err(|error| Failure::new("find this program", error))?;
    let bench = Bench {
        own_program: &own_program,
        folder: folder.path(),
        pki: &pki,
        cores: plan.cores,
        timing: plan.timing,
        interrupt: &interrupt,
    };
    let mut results = plan.results();
    for Absent { what, why } in &results.skipped {
        eprintln!("skipped: {what}: {why}");
    }
    // Whoever interrupts a long run still sees what it has found.
    let ended = measure(&plan, &bench, &mut results);
    let seconds = plan.timing.window.as_secs_f64();
    print!("{}", report(&results, &machine, plan.repetitions, seconds));
    if let Some(path) = &arguments.json {
        write(path, &lines(&results, &machine, plan.repetitions, seconds))?;
    }
    if let Some(path) = &arguments.svg {
        write(path, &chart(&results))?;
    }
    ended?;
    match results.failed.len() {
        0 => Ok(()),
        failed => Err(Failure::new("measure everything", format!("{failed} measurements failed, see above"))),
    }
}

/// One measurement after the other; one that fails does not keep the others from being made.
fn measure(plan: &Plan, bench: &Bench<'_>, results: &mut Results) -> Result<(), Failure> {
    let steps = plan.steps();
    let bar = progress(steps.len());
    for Step { placement, workload, repetition, participant, entrant } in steps {
        let what = format!("{placement} {} {entrant} {repetition}/{}", workload.name, plan.repetitions);
        bar.set_message(what.clone());
        match bench.measure(participant, entrant, placement, workload) {
            Ok(outcome) => {
                results.measurements.push(Measurement { placement, workload, entrant, repetition, outcome });
            }
            Err(failure) => {
                bench.interrupt.check()?;
                bar.suspend(|| eprintln!("failed: {what}: {failure}"));
                results.failed.push(Absent { what, why: failure.to_string() });
            }
        }
        bar.inc(1);
        bench.interrupt.check()?;
    }
    bar.finish_and_clear();
    Ok(())
}

/// The folder of the run. It is removed with everything in it, however the run ends, unless it is killed.
pub(crate) fn temporary(parent: Option<&Path>) -> Result<TempDir, Failure> {
    let made = match parent {
        Some(parent) => tempfile::tempdir_in(parent),
        None => tempfile::tempdir(),
    };
    made.map_err(|error| Failure::new("make a folder for the brokers", error))
}

/// A bar on stderr, hidden by itself when that is no terminal.
pub(crate) fn progress(steps: usize) -> ProgressBar {
    let bar = ProgressBar::new(steps as u64);
    let style = ProgressStyle::with_template("{elapsed_precise} {bar:30} {pos}/{len} {eta} left  {msg}");
    bar.set_style(style.expect("the template is one"));
    // Often enough for a clock of seconds; more would be work beside what is measured.
    bar.enable_steady_tick(Duration::from_secs(1));
    bar
}

pub(crate) fn write(path: &Path, text: &str) -> Result<(), Failure> {
    fs::write(path, text).map_err(|error| Failure::new(format!("write {}", path.display()), error))
}
