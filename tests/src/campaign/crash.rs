//! Every crash point: scripts from seeds, each with several lives, and power lost at every operation of each.
//!
//! ```text
//!   life 1    begin, steps, close, open, steps ......... every moment: all states, recovered and judged
//!                              |
//!   life 2                     '-- one of those states: producers send again what is lost, steps ... every moment
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use sealbus_broker::storage::stream::Level;
use sealbus_broker::vfs::{Limits, SimVfs, Vfs};

use super::author::POLICY_VERSION;
use super::forgetful::{Forgetful, Forgets};
use super::place::Plan;
use super::random::{Random, seed_salts};
use super::report::Report;
use super::rig::{Before, Rest, Rig};
use super::states::{Depth, Run, Tally};

/// Lives of a script.
const LIVES: u64 = 3;

/// What the disk does with syncs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disk {
    /// What they say.
    Honest,
    /// Nothing: a campaign that finds nothing on such a disk proves nothing.
    SkipsSyncs,
    /// Nothing for directories.
    SkipsDirectorySyncs,
    /// Nothing for some files.
    Forgets(Forgets),
}

/// A campaign.
#[derive(Debug, Clone, Copy)]
pub struct Crashes {
    /// The first script's; the next scripts have the numbers that follow.
    pub seed: u64,
    /// States to go through, at least.
    pub states: usize,
    /// States of each moment, at most; none for all of them.
    pub states_per_moment: Option<usize>,
    /// Steps of each life.
    pub steps: usize,
    /// Threads.
    pub threads: usize,
    /// One recovery in so many is itself interrupted.
    pub nested_one_in: u64,
    /// What the disk does.
    pub disk: Disk,
}

impl Crashes {
    /// Goes through scripts until there are enough states. `progress` is told after each life.
    #[must_use]
    pub fn run(&self, tally: &Tally) -> Report {
        let since = Instant::now();
        let mut seed = self.seed;
        while tally.states() < self.states {
            self.script(seed, tally);
            seed = seed.wrapping_add(1);
            if self.disk != Disk::Honest && tally.violations() > 0 {
                break;
            }
        }
        let test = match self.disk {
            Disk::Honest => "storage-crash-points",
            Disk::SkipsSyncs => "storage-crash-points-without-syncs",
            Disk::SkipsDirectorySyncs => "storage-crash-points-without-directory-syncs",
            Disk::Forgets(_) => "storage-crash-points-without-some-syncs",
        };
        Report::of(test, self.seed, since, tally)
    }

    fn script(&self, seed: u64, tally: &Tally) {
        let plan = plan_of(seed);
        let mut sim = SimVfs::new();
        let mut rest = Rest::nothing();
        let mut before = Before::SameDisk;
        for life in 0..LIVES {
            let life_seed = seed.wrapping_mul(1_000_003).wrapping_add(life);
            seed_salts(life_seed);
            match self.disk {
                Disk::Honest | Disk::Forgets(_) => {}
                Disk::SkipsSyncs => sim.skip_syncs(true),
                Disk::SkipsDirectorySyncs => sim.skip_directory_syncs(true),
            }
            let lived = self.live(&sim, (plan, life_seed), rest, before);
            let producers = lived.producers.identities();
            for wrong in &lived.wrong {
                tally.violation(format!("seed {seed}, life {life}: {wrong}"));
            }
            tally.did(&lived.done);
            let policy_version = POLICY_VERSION + 1_000_000;
            let run = Run {
                sim: &sim,
                history: &lived.history,
                identities: &producers,
                plan,
                latest: (lived.now_ms + 2_000, policy_version),
                seed,
            };
            let limits = match self.states_per_moment {
                None => Limits { seed: life_seed, ..Limits::thorough() },
                Some(states) => Limits::sampled(states, life_seed),
            };
            run.lose_power(
                Depth {
                    limits,
                    threads: self.threads,
                    states_max: self.states,
                    nested_one_in: self.nested_one_in,
                },
                tally,
            );
            if tally.states() >= self.states || tally.violations() > 0 {
                return;
            }
            let mut random = Random::new(life_seed);
            let operations = sim.operations();
            let moment = random.between(operations as u64 / 2, operations as u64) as usize;
            let nth = random.between(0, 40) as usize;
            let Some((_, next)) = sim.crash_states(moment, limits).take(nth + 1).last() else { return };
            rest = Rest { wrong: Vec::new(), done: BTreeMap::new(), ..lived };
            sim = next;
            before = Before::PowerLoss;
        }
    }

    /// One life on an honest disk: none of its steps may fail.
    fn live(&self, sim: &SimVfs, (plan, seed): (Plan, u64), rest: Rest, before: Before) -> Rest {
        let opened = self.open(sim, (plan, seed), rest, before);
        let mut rig = match opened {
            Ok(rig) => rig,
            Err(rest) => return *rest,
        };
        let mut done = rig.begin();
        for _ in 0..self.steps / 2 {
            done = done.and_then(|()| rig.step());
        }
        done = done.and_then(|()| rig.close());
        if let Err(refused) = &done {
            rig.wrong.push(format!("on a disk without faults: {refused}"));
        }
        let mut rig = match self.open(sim, (plan, seed ^ 0xffff), rig.kill(), Before::SameDisk) {
            Ok(rig) => rig,
            Err(rest) => return *rest,
        };
        for _ in 0..self.steps / 2 {
            if let Err(refused) = rig.step() {
                rig.wrong.push(format!("on a disk without faults: {refused}"));
                break;
            }
        }
        rig.kill()
    }

    fn open(&self, sim: &SimVfs, plan: (Plan, u64), rest: Rest, before: Before) -> Result<Rig, Box<Rest>> {
        let counted = sim.clone();
        let vfs: Arc<dyn Vfs> = match self.disk {
            Disk::Honest | Disk::SkipsSyncs | Disk::SkipsDirectorySyncs => Arc::new(sim.clone()),
            Disk::Forgets(forgets) => Arc::new(Forgetful::new(sim.clone(), forgets)),
        };
        Rig::open(&vfs, move || counted.operations(), plan, rest, before).map_err(|failed| {
            let (refused, mut rest) = *failed;
            rest.wrong.push(format!("on a disk without faults: {refused}"));
            Box::new(rest)
        })
    }
}

/// Scripts differ in how their streams are kept.
fn plan_of(seed: u64) -> Plan {
    let segment_bytes = match seed % 3 {
        0 => 4 * 1_024,
        1 => 8 * 1_024,
        _ => 16 * 1_024,
    };
    let second = match seed % 4 {
        0 | 1 => Level::Fsync,
        2 => Level::Interval,
        _ => Level::Memory,
    };
    Plan { segment_bytes, levels: [Level::Fsync, second], ..Plan::SMALL }
}
