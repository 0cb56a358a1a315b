//! Corruption: something on the disk is not what was written, behind everybody's back.
//!
//! What must hold of every case: no altered byte comes out of a reader; every record whose bytes were not touched comes;
//! one that was touched comes as it was or is reported and skipped; the stream ends where it ended; nothing is deleted.
//!
//! ```text
//!   family   which cases there are        case   what it changes, and what that may do        verdict   what it did
//! ```

mod case;
mod family;
mod verdict;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use super::random::seed_salts;
use super::report::Report;
use super::states::Tally;
use super::subject::Subject;

pub use case::Case;
pub use family::Family;
pub use verdict::{Look, judge, judge_disk};

/// One case in so many of a large family is looked at closely.
const CLOSE_ONE_IN: usize = 16;

/// Cases that a thread takes at a time.
const CASES_AT_A_TIME: usize = 64;

impl Family {
    /// Goes through the cases.
    #[must_use]
    pub fn run(self, subject: &Subject, (every, threads): (u64, usize), done: &AtomicUsize) -> Report {
        let since = Instant::now();
        let cases = self.cases(subject, every);
        let (tally, next) = (Tally::default(), AtomicUsize::new(0));
        thread::scope(|scope| {
            for _ in 0..threads.max(1) {
                scope.spawn(|| {
                    loop {
                        let from = next.fetch_add(CASES_AT_A_TIME, Ordering::Relaxed);
                        let Some(mine) = cases.get(from..cases.len().min(from + CASES_AT_A_TIME)) else {
                            return;
                        };
                        for (number, case) in mine.iter().enumerate() {
                            seed_salts(from as u64);
                            let is_near = self.is_large() && number % CLOSE_ONE_IN > 0;
                            let look = if is_near { Look::Near } else { Look::Close };
                            for wrong in judge(subject, case, look) {
                                tally.violation(format!("{}: {wrong}", case.describe(subject)));
                            }
                            tally.states.fetch_add(1, Ordering::Relaxed);
                            done.fetch_add(1, Ordering::Relaxed);
                        }
                        if mine.is_empty() {
                            return;
                        }
                    }
                });
            }
        });
        let mut report = Report::of(self.name(), 0, since, &tally);
        report.more.clear();
        report
    }
}
