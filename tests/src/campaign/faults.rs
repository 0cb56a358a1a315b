//! A disk that fails: the nth sync with EIO, the nth write without room, for every n that a script comes to.
//!
//! ```text
//!   script ....... nth sync fails: that part has stopped, the others go on ....... killed, or power lost
//!                                                                                       '--> opened again: I1 to I5
//!   script ....... nth write has no room: given back, read on ... room again, steps ... '--> the same
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use sealbus_broker::vfs::{Limits, Operation, SimVfs, Vfs};

use super::author::POLICY_VERSION;
use super::place::Plan;
use super::random::seed_salts;
use super::report::Report;
use super::rig::{Before, Refused, Rest, Rig};
use super::states::{Depth, Run, Tally};

const EIO: i32 = 5;
const ENOSPC: i32 = 28;

/// States of each of the last moments of a run.
const STATES: usize = 6;

/// Moments before and after the failure at which power is lost besides.
const BEFORE: usize = 6;
const AFTER: usize = 24;

/// What the disk does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The nth sync of a file fails.
    Sync,
    /// The nth sync of a directory fails.
    SyncDirectory,
    /// The nth write has no room, and nothing of it is there.
    NoRoom,
    /// The nth write has no room for its second half.
    NoRoomForHalf,
    /// From the nth write on there is no room, for some steps.
    NoRoomForSomeTime,
    /// There is no room for the nth file.
    NoRoomForFile,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Sync,
        Self::SyncDirectory,
        Self::NoRoom,
        Self::NoRoomForHalf,
        Self::NoRoomForSomeTime,
        Self::NoRoomForFile,
    ];

    /// The name that its report has.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sync => "storage-eio-at-each-sync",
            Self::SyncDirectory => "storage-eio-at-each-directory-sync",
            Self::NoRoom => "storage-enospc-at-each-write",
            Self::NoRoomForHalf => "storage-enospc-in-each-write",
            Self::NoRoomForSomeTime => "storage-enospc-from-each-write",
            Self::NoRoomForFile => "storage-enospc-at-each-file",
        }
    }

    const fn operation(self) -> Operation {
        match self {
            Self::Sync => Operation::Sync,
            Self::SyncDirectory => Operation::SyncDir,
            Self::NoRoom | Self::NoRoomForSomeTime => Operation::Write,
            Self::NoRoomForHalf => Operation::TornWrite,
            Self::NoRoomForFile => Operation::Create,
        }
    }

    const fn is_lack_of_room(self) -> bool {
        match self {
            Self::Sync | Self::SyncDirectory => false,
            Self::NoRoom | Self::NoRoomForHalf | Self::NoRoomForSomeTime | Self::NoRoomForFile => true,
        }
    }

    fn arm(self, sim: &SimVfs, nth: u64) {
        match self {
            Self::Sync | Self::SyncDirectory => sim.fail_nth(self.operation(), nth, EIO),
            Self::NoRoomForSomeTime => sim.fail_from(self.operation(), nth, ENOSPC),
            Self::NoRoom | Self::NoRoomForHalf | Self::NoRoomForFile => {
                sim.fail_nth(self.operation(), nth, ENOSPC)
            }
        }
    }
}

/// A campaign through the operations of one script.
#[derive(Debug, Clone, Copy)]
pub struct Faults {
    /// Of the script.
    pub seed: u64,
    /// Its steps.
    pub steps: usize,
    /// Every so many-th operation.
    pub every: u64,
    /// Threads.
    pub threads: usize,
    /// One recovery in so many is itself interrupted.
    pub nested_one_in: u64,
}

impl Faults {
    /// Lets each operation of its kind fail, one in each run.
    #[must_use]
    pub fn run(&self, fault: Fault, done: &AtomicUsize) -> Report {
        let since = Instant::now();
        let (tally, next, cases) = (Tally::default(), AtomicUsize::new(0), AtomicUsize::new(0));
        let operations = self.operations(fault, &tally);
        thread::scope(|scope| {
            for _ in 0..self.threads.max(1) {
                scope.spawn(|| {
                    loop {
                        let case = next.fetch_add(1, Ordering::Relaxed) as u64;
                        let nth = case * self.every + 1;
                        if nth > operations {
                            return;
                        }
                        self.case(fault, nth, &tally);
                        cases.fetch_add(1, Ordering::Relaxed);
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        });
        let mut report = Report::of(fault.name(), self.seed, since, &tally);
        report.more.insert(0, ("states", report.n));
        report.n = cases.load(Ordering::Relaxed) as u64;
        report
    }

    /// How many operations of the kind the script has when none fails.
    fn operations(&self, fault: Fault, tally: &Tally) -> u64 {
        let sim = SimVfs::new();
        let life = Life::new(self, &sim);
        match life.open(Rest::nothing(), Before::SameDisk) {
            Err(failed) => tally.violation(format!("without a fault: {}", failed.0)),
            Ok(mut rig) => {
                for _ in 0..self.steps {
                    if let Err(refused) = rig.step() {
                        tally.violation(format!("without a fault: {refused}"));
                    }
                }
            }
        }
        sim.done(fault.operation())
    }

    fn case(&self, fault: Fault, nth: u64, tally: &Tally) {
        let sim = SimVfs::new();
        fault.arm(&sim, nth);
        let life = Life::new(self, &sim);
        let report = |wrong: Vec<String>, more: Vec<String>| {
            wrong
                .into_iter()
                .chain(more)
                .for_each(|wrong| tally.violation(format!("{fault:?} {nth}: {wrong}")));
        };
        let mut wrong = Vec::new();
        let mut rest = Rest::nothing();
        // An opening that fails is tried again when the disk is well.
        let opened = loop {
            match life.open(rest, Before::SameDisk) {
                Ok(rig) => break Some(rig),
                Err(failed) => {
                    let (refused, again) = *failed;
                    rest = again;
                    if !is_from_disk(&refused) {
                        wrong.push(format!("opening: {refused}"));
                    }
                    sim.heal();
                }
            }
            if fault == Fault::SyncDirectory {
                // The system still shows names that the disk will never have, and nothing tells which. Only a disk that
                // was mounted anew can be believed.
                break None;
            }
        };
        let Some(mut rig) = opened else { return };
        let mut refusals: Vec<Refused> = Vec::new();
        let mut first_at = None;
        for _ in 0..self.steps {
            if let Err(refused) = rig.step() {
                first_at.get_or_insert_with(|| sim.operations());
                if refusals.len() == 3 {
                    sim.heal();
                }
                refusals.push(refused);
            }
        }
        sim.heal();
        for refused in &refusals {
            if !is_from_disk(refused) {
                wrong.push(format!("it says {refused}"));
            }
            if fault.is_lack_of_room() && !(refused.is_full && refused.is_usable) {
                wrong.push(format!("a lack of room stops it: {refused}"));
            }
        }
        if fault.is_lack_of_room()
            && let Err(refused) = rig.prove_usable()
        {
            wrong.push(format!("there is room again, and it does not go on: {refused}"));
        }
        let latest = |rest: &Rest| (rest.now_ms + 2_000, POLICY_VERSION + 1_000_000);
        // Power lost while it fails, and at the end.
        let rest = rig.kill();
        let identities = rest.producers.identities();
        let last = sim.operations();
        let run = Run {
            sim: &sim,
            history: &rest.history,
            identities: &identities,
            plan: Plan::SMALL,
            latest: latest(&rest),
            seed: self.seed,
        };
        let nested_one_in = self.nested_one_in;
        let depth =
            Depth { limits: Limits::sampled(STATES, nth), threads: 1, states_max: usize::MAX, nested_one_in };
        run.lose_power_within(last..=last, depth, tally);
        if let Some(at) = first_at {
            run.lose_power_within(at.saturating_sub(BEFORE)..=last.min(at + AFTER), depth, tally);
        }
        if fault == Fault::SyncDirectory {
            report(wrong, rest.wrong);
            return;
        }
        // Killed, and started again on what the system has.
        match life.open(rest, Before::SameDisk) {
            Ok(mut rig) => {
                if let Err(refused) = rig.prove_usable() {
                    wrong.push(format!("started again, it does not go on: {refused}"));
                }
                let rest = rig.kill();
                let run = Run {
                    sim: &sim,
                    history: &rest.history,
                    identities: &identities,
                    plan: Plan::SMALL,
                    latest: latest(&rest),
                    seed: self.seed,
                };
                let last = sim.operations();
                run.lose_power_within(last..=last, depth, tally);
                wrong.extend(rest.wrong);
            }
            Err(failed) => wrong.push(format!("it cannot be opened again: {}", failed.0)),
        }
        report(wrong, Vec::new());
    }
}

struct Life<'a> {
    faults: &'a Faults,
    sim: &'a SimVfs,
}

impl<'a> Life<'a> {
    fn new(faults: &'a Faults, sim: &'a SimVfs) -> Self {
        seed_salts(faults.seed);
        Self { faults, sim }
    }

    fn open(&self, rest: Rest, before: Before) -> Result<Rig, Box<(Refused, Rest)>> {
        let (counted, vfs): (SimVfs, Arc<dyn Vfs>) = (self.sim.clone(), Arc::new(self.sim.clone()));
        Rig::open(&vfs, move || counted.operations(), (Plan::SMALL, self.faults.seed), rest, before)
    }
}

/// Whether somebody who reads it learns what happened: it names the error of the system.
fn is_from_disk(refused: &Refused) -> bool {
    ["(os error 5)", "(os error 28)"].iter().any(|error| refused.text.contains(error))
}
