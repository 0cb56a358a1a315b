//! Kills the broker a thousand times while others publish, read and consume, and lets an independent program judge what
//! they saw.
//!
//! `cargo run --release -p sealbus-tests --bin kill-campaign -- --kills 1000 [--seed N] [--folder DIR]`. The tests run the
//! same with thirty. Ends with 1 when an invariant does not hold; then history, broker's log and broker's files stay in the
//! folder. With `--folder` they stay in any case.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use sealbus_tests::killing::{Options, check, run};
use serde_json::json;

/// Kills when nobody says how many.
const KILLS_DEFAULT: u64 = 1_000;

const USAGE: &str = "kill-campaign [--kills NUMBER] [--seed NUMBER] [--folder DIR]";

fn main() -> ExitCode {
    // The broker, and the program that verifies what it left, are this very program once more.
    if matches!(std::env::args().nth(1).as_deref(), Some("serve" | "stream")) {
        return sealbus::run();
    }
    match Arguments::parse(std::env::args().skip(1)) {
        Ok(arguments) => campaign(&arguments),
        Err(problem) => {
            eprintln!("{problem}\nusage: {USAGE}");
            ExitCode::from(2)
        }
    }
}

struct Arguments {
    kills: u64,
    seed: u64,
    folder: Option<PathBuf>,
}

impl Arguments {
    fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut parsed = Self { kills: KILLS_DEFAULT, seed: drawn_seed(), folder: None };
        while let Some(name) = arguments.next() {
            let value = arguments.next().ok_or_else(|| format!("{name} needs a value"))?;
            let number = || value.parse::<u64>().map_err(|_| format!("{name}: {value} is no number"));
            match name.as_str() {
                "--kills" => parsed.kills = number()?,
                "--seed" => parsed.seed = number()?,
                "--folder" => parsed.folder = Some(PathBuf::from(value)),
                _ => return Err(format!("{name} is not known")),
            }
        }
        Ok(parsed)
    }
}

fn drawn_seed() -> u64 {
    let mut seed = [0; 4];
    getrandom::fill(&mut seed).expect("the system gives randomness");
    u32::from_be_bytes(seed).into()
}

fn campaign(arguments: &Arguments) -> ExitCode {
    let Arguments { kills, seed, folder } = arguments;
    let program = std::env::current_exe().expect("a program knows where it is");
    let is_kept = folder.is_some();
    let folder = folder.clone().unwrap_or_else(|| std::env::temp_dir().join(format!("kill-campaign-{seed}")));
    if let Err(error) = std::fs::create_dir_all(&folder) {
        eprintln!("{} cannot be made: {error}", folder.display());
        return ExitCode::from(2);
    }
    eprintln!("{kills} kills with the seed {seed}; history and logs are in {}", folder.display());
    let options = Options { kills: *kills, seed: *seed, program, folder: folder.clone() };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime can be started");
    let outcome = runtime.block_on(Box::pin(run(&options)));
    let verdict = check(outcome.history());
    print!("{}", verdict.report);
    let [p50, p99] = [50, 99].map(|percent| outcome.start_percentile(percent).as_secs_f64() * 1_000.0);
    println!(
        "{}",
        json!({ "test": "kill-start", "n": outcome.starts().len(), "p50_ms": p50, "p99_ms": p99 })
    );
    if !verdict.is_good {
        outcome.keep_files();
        return ExitCode::FAILURE;
    }
    if !is_kept {
        remove(&folder);
    }
    ExitCode::SUCCESS
}

fn remove(folder: &Path) {
    if let Err(error) = std::fs::remove_dir_all(folder) {
        eprintln!("{} is left behind: {error}", folder.display());
    }
}
