//! Campaigns against the storage at full size; the tests run the same, smaller.
//!
//! ```text
//! storage-campaign crash   [--states N] [--per-moment N] [--steps N]    power lost at every operation of scripts
//! storage-campaign flips   [--every N]                                  bits, cuts, swapped blocks, files taken away
//! storage-campaign faults  [--scripts N] [--steps N]                    errors at the nth sync and write, for every n
//! storage-campaign disk    [--dir DIR]                                  file systems of 64 MB, full and read-only
//!                          [--seed N] [--threads N] [--results FILE]    all of them
//! ```
//!
//! Standard output gets a line of JSON for each campaign, which `--results` also appends to a file; people read standard
//! error. Ends with 1 when something was violated.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use sealbus_tests::campaign::corruption::Family;
use sealbus_tests::campaign::crash::{Crashes, Disk};
use sealbus_tests::campaign::faults::{Fault, Faults};
use sealbus_tests::campaign::full_disk::{Kind, run as run_on_disk};
use sealbus_tests::campaign::report::Report;
use sealbus_tests::campaign::states::Tally;
use sealbus_tests::campaign::subject::Subject;

const USAGE: &str = "storage-campaign crash|flips|faults|disk [--states N] [--per-moment N] [--steps N] [--every N] \
                     [--scripts N] [--seed N] [--threads N] [--dir DIR] [--results FILE]";

/// One recovery in so many is itself interrupted at each of its operations.
const NESTED_ONE_IN: u64 = 8;

/// How often the progress is shown anew.
const SHOW_EVERY: Duration = Duration::from_millis(100);

/// Bytes of the segment whose every bit is turned over, and of the whole stream.
const FLIPPED_SEGMENT_BYTES: u64 = 64 * 1_024;
const FLIPPED_STREAM_BYTES: u64 = 72 * 1_024;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let [inside, kind, dir] = words.as_slice()
        && inside == "disk-inside"
    {
        return disk_inside(kind, Path::new(dir));
    }
    let campaign = match words.split_first() {
        Some((name, rest)) => Arguments::parse(rest).map(|arguments| (name.as_str(), arguments)),
        None => Err("no campaign is named".to_owned()),
    };
    let ran = campaign.and_then(|(name, arguments)| match name {
        "crash" => Ok(crash(&arguments)),
        "flips" => Ok(flips(&arguments)),
        "faults" => Ok(faults(&arguments)),
        "disk" => Ok(disk(&arguments)),
        _ => Err(format!("{name} is no campaign")),
    });
    match ran {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(problem) => {
            eprintln!("{problem}\nusage: {USAGE}");
            ExitCode::from(2)
        }
    }
}

struct Arguments {
    states: usize,
    per_moment: Option<usize>,
    steps: usize,
    every: u64,
    scripts: u64,
    seed: u64,
    threads: usize,
    dir: PathBuf,
    results: Option<PathBuf>,
}

impl Arguments {
    fn parse(words: &[String]) -> Result<Self, String> {
        let mut parsed = Self {
            states: 200_000,
            per_moment: None,
            steps: 240,
            every: 1,
            scripts: 4,
            seed: 1,
            threads: 2,
            dir: std::env::temp_dir(),
            results: None,
        };
        let mut words = words.iter();
        while let Some(name) = words.next() {
            let value = words.next().ok_or_else(|| format!("{name} needs a value"))?;
            let number = || value.parse::<u64>().map_err(|_| format!("{name}: {value} is no number"));
            let count = || value.parse::<usize>().map_err(|_| format!("{name}: {value} is no number"));
            match name.as_str() {
                "--states" => parsed.states = count()?,
                "--per-moment" => parsed.per_moment = Some(count()?),
                "--steps" => parsed.steps = count()?,
                "--every" => parsed.every = number()?.max(1),
                "--scripts" => parsed.scripts = number()?,
                "--seed" => parsed.seed = number()?,
                "--threads" => parsed.threads = count()?,
                "--dir" => parsed.dir = PathBuf::from(value),
                "--results" => parsed.results = Some(PathBuf::from(value)),
                _ => return Err(format!("{name} is not known")),
            }
        }
        Ok(parsed)
    }

    /// Says what a campaign came to, and whether it was good.
    fn say(&self, report: &Report) -> bool {
        eprint!("{report}");
        let line = report.json();
        println!("{line}");
        if let Some(path) = &self.results {
            let opened = OpenOptions::new().create(true).append(true).open(path);
            if let Err(error) = opened.and_then(|mut file| writeln!(file, "{line}")) {
                eprintln!("{}: {error}", path.display());
                return false;
            }
        }
        report.violations == 0
    }
}

fn crash(arguments: &Arguments) -> bool {
    let campaign = Crashes {
        seed: arguments.seed,
        states: arguments.states,
        states_per_moment: arguments.per_moment,
        steps: arguments.steps,
        threads: arguments.threads,
        nested_one_in: NESTED_ONE_IN,
        disk: Disk::Honest,
    };
    let tally = Tally::default();
    let report = watched("states", Some(arguments.states), &|| tally.states(), || campaign.run(&tally));
    arguments.say(&report)
}

fn flips(arguments: &Arguments) -> bool {
    let subject = Subject::new(FLIPPED_SEGMENT_BYTES, FLIPPED_STREAM_BYTES);
    let mut is_good = true;
    for family in Family::ALL {
        let cases = family.cases(&subject, arguments.every).len();
        let done = AtomicUsize::new(0);
        let report = watched(family.name(), Some(cases), &|| done.load(Ordering::Relaxed), || {
            family.run(&subject, (arguments.every, arguments.threads), &done)
        });
        is_good &= arguments.say(&report);
    }
    is_good
}

fn faults(arguments: &Arguments) -> bool {
    let mut is_good = true;
    for seed in arguments.seed..arguments.seed.saturating_add(arguments.scripts) {
        let (steps, every, threads) = (arguments.steps, arguments.every, arguments.threads);
        let campaign = Faults { seed, steps, every, threads, nested_one_in: NESTED_ONE_IN };
        for fault in Fault::ALL {
            let done = AtomicUsize::new(0);
            let report =
                watched(fault.name(), None, &|| done.load(Ordering::Relaxed), || campaign.run(fault, &done));
            is_good &= arguments.say(&report);
        }
    }
    is_good
}

/// Runs each kind in a mount namespace of its own, so that no mount outlives it.
fn disk(arguments: &Arguments) -> bool {
    let program = std::env::current_exe().expect("a program knows where it is");
    let mut is_good = true;
    for kind in Kind::ALL {
        let output = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "--"])
            .arg(&program)
            .args(["disk-inside", kind.name()])
            .arg(&arguments.dir)
            .output();
        match output {
            Ok(output) if output.status.code() == Some(i32::from(SKIPPED)) => {
                eprintln!("{}: skipped: {}", kind.name(), String::from_utf8_lossy(&output.stderr).trim());
            }
            Ok(output) if !output.stdout.is_empty() => {
                eprint!("{}", String::from_utf8_lossy(&output.stderr));
                let _ = io::stdout().write_all(&output.stdout);
                if let Some(path) = &arguments.results {
                    let opened = OpenOptions::new().create(true).append(true).open(path);
                    is_good &= opened.and_then(|mut file| file.write_all(&output.stdout)).is_ok();
                }
                is_good &= output.status.success();
            }
            // Without the right to have mounts of its own it does not even begin.
            Ok(output) => {
                eprintln!("{}: skipped: {}", kind.name(), String::from_utf8_lossy(&output.stderr).trim());
            }
            Err(error) => eprintln!("{}: skipped: unshare: {error}", kind.name()),
        }
    }
    is_good
}

/// The code with which the inner program says that it could not do it.
const SKIPPED: u8 = 77;

fn disk_inside(kind: &str, dir: &Path) -> ExitCode {
    let Some(kind) = Kind::of(kind) else {
        eprintln!("{kind} is no kind of file system");
        return ExitCode::from(2);
    };
    let since = Instant::now();
    let outcome = match run_on_disk(kind, dir) {
        Ok(outcome) => outcome,
        Err(problem) => {
            eprintln!("{problem}");
            return ExitCode::from(SKIPPED);
        }
    };
    outcome.remarks.iter().for_each(|remark| eprintln!("{}: {remark}", kind.name()));
    let report = Report {
        test: kind.test(),
        seed: 0,
        n: outcome.acknowledged as u64,
        violations: outcome.wrong.len() as u64,
        wall_s: since.elapsed().as_secs_f64(),
        more: Vec::new(),
        examples: outcome.wrong,
    };
    eprint!("{report}");
    println!("{}", report.json());
    if report.violations == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Works, and shows on a terminal how far it is.
fn watched<T>(
    what: &str,
    of: Option<usize>,
    done: &(dyn Fn() -> usize + Sync),
    work: impl FnOnce() -> T,
) -> T {
    let bar = of.map_or_else(ProgressBar::new_spinner, |of| ProgressBar::new(of as u64));
    let style = match of {
        Some(_) => "{msg} {wide_bar} {pos}/{len} {per_sec} {eta}",
        None => "{spinner} {msg} {pos} {elapsed}",
    };
    bar.set_style(ProgressStyle::with_template(style).expect("the style of the progress is one"));
    bar.set_message(what.to_owned());
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                bar.set_position(done() as u64);
                thread::park_timeout(SHOW_EVERY);
            }
        });
        let result = work();
        is_over.store(true, Ordering::Relaxed);
        bar.finish_and_clear();
        result
    })
}
