//! How far a campaign is, for whoever watches a terminal.

use std::io::{IsTerminal as _, Write as _, stderr};
use std::time::{Duration, Instant};

const BAR_COLUMNS: u64 = 30;

/// How often the line is written anew.
const EVERY: Duration = Duration::from_millis(200);

/// A line that is written again and again; nothing where nobody watches.
#[derive(Debug)]
pub(super) struct Progress {
    kills: u64,
    begun: Instant,
    written: Option<Instant>,
    is_watched: bool,
}

impl Progress {
    pub(super) fn new(kills: u64) -> Self {
        Self { kills, begun: Instant::now(), written: None, is_watched: stderr().is_terminal() }
    }

    /// So much is done.
    pub(super) fn tell(&mut self, killed: u64, acknowledged: u64) {
        let is_due = self.written.is_none_or(|written| written.elapsed() >= EVERY) || killed == self.kills;
        if !self.is_watched || !is_due {
            return;
        }
        self.written = Some(Instant::now());
        let done = (killed * BAR_COLUMNS).checked_div(self.kills).unwrap_or(BAR_COLUMNS);
        let bar: String = (0..BAR_COLUMNS).map(|column| if column < done { '#' } else { '.' }).collect();
        let (kills, seconds) = (self.kills, self.begun.elapsed().as_secs());
        // Nobody is helped by a campaign that fails because its terminal is gone.
        let _ =
            write!(stderr(), "\r[{bar}] {killed}/{kills} kills, {acknowledged} acknowledged, {seconds} s ");
    }

    /// The line is left.
    pub(super) fn end(&self) {
        if self.is_watched {
            eprintln!();
        }
    }
}
