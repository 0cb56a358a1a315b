//! What a campaign says at its end: a line for machines, and a few for people.

use std::fmt;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::states::Tally;

/// What a campaign came to.
#[derive(Debug, Clone)]
pub struct Report {
    /// Which one.
    pub test: &'static str,
    /// Its seed.
    pub seed: u64,
    /// States or cases that were judged.
    pub n: u64,
    /// What was wrong with them.
    pub violations: u64,
    /// Seconds that it took.
    pub wall_s: f64,
    /// Further numbers, by name.
    pub more: Vec<(&'static str, u64)>,
    /// The first violations, in words.
    pub examples: Vec<String>,
}

impl Report {
    /// The report of a campaign through states.
    #[must_use]
    pub fn of(test: &'static str, seed: u64, since: Instant, tally: &Tally) -> Self {
        let count = |of: &std::sync::atomic::AtomicUsize| of.load(Ordering::Relaxed) as u64;
        Self {
            test,
            seed,
            n: tally.states() as u64,
            violations: tally.violations() as u64,
            wall_s: since.elapsed().as_secs_f64(),
            more: [
                ("states_within_recoveries", count(&tally.nested)),
                ("moments", count(&tally.moments)),
                ("recoveries", count(&tally.recoveries)),
                ("slowest_recovery_us", tally.slowest_us.load(Ordering::Relaxed)),
            ]
            .into_iter()
            .chain(tally.done())
            .collect(),
            examples: tally.examples(),
        }
    }

    /// One line of JSON.
    #[must_use]
    pub fn json(&self) -> String {
        let mut line = serde_json::json!({
            "test": self.test,
            "seed": self.seed,
            "n": self.n,
            "violations": self.violations,
            "wall_s": (self.wall_s * 1_000.0).round() / 1_000.0,
        });
        for (name, value) in &self.more {
            line[*name] = serde_json::json!(value);
        }
        line.to_string()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{}: {} judged, {} violations, {:.1} s (seed {})",
            self.test, self.n, self.violations, self.wall_s, self.seed
        )?;
        for (name, value) in &self.more {
            writeln!(f, "  {name:<26} {value}")?;
        }
        for example in &self.examples {
            writeln!(f, "  violation: {example}")?;
        }
        Ok(())
    }
}
