//! Failures that tests ask for: the words that every failing file system shares.

use std::collections::BTreeMap;
use std::io;

/// What may be made to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// An append that leaves nothing, as when the disk is full.
    Append,
    /// An append that leaves half of its bytes.
    TornAppend,
    /// A sync of a file, of either kind.
    Sync,
    /// Opening a file for appending.
    Open,
    /// Creating a data file.
    Create,
    /// Opening a data file.
    OpenData,
    /// Opening a data file for reading alone.
    OpenRead,
    /// A write into a data file that leaves nothing.
    Write,
    /// A write into a data file that leaves half of its bytes.
    TornWrite,
    /// A read of a whole file, or of a part of a data file.
    Read,
    /// Cutting a file, of either kind.
    Truncate,
    /// Giving a file another name.
    Rename,
    /// Removing a file.
    Remove,
    /// A sync of a directory.
    SyncDir,
}

/// One failure to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// What fails.
    pub operation: Operation,
    /// Which one of its kind, from 1, across all files.
    pub nth: u64,
    /// With which error of the system.
    pub errno: i32,
}

/// What has been done and what is to fail.
#[derive(Debug, Default)]
pub(super) struct Faults {
    once: Vec<Fault>,
    from: Vec<Fault>,
    done: BTreeMap<Operation, u64>,
}

impl Faults {
    /// The fault's number counts from the very first operation of its kind.
    pub(super) fn add(&mut self, fault: Fault) {
        self.once.push(fault);
    }

    /// The fault's number counts from now: 1 is the next operation of its kind.
    pub(super) fn add_from_now(&mut self, fault: Fault) {
        let nth = self.done(fault.operation).saturating_add(fault.nth);
        self.once.push(Fault { nth, ..fault });
    }

    /// As [`Faults::add_from_now`], and every one after it fails as well.
    pub(super) fn add_lasting(&mut self, fault: Fault) {
        let nth = self.done(fault.operation).saturating_add(fault.nth);
        self.from.push(Fault { nth, ..fault });
    }

    /// Nothing fails from now on.
    pub(super) fn heal(&mut self) {
        self.once.clear();
        self.from.clear();
    }

    /// How many of these there were, failed ones among them.
    pub(super) fn done(&self, operation: Operation) -> u64 {
        self.done.get(&operation).copied().unwrap_or_default()
    }

    /// Counts one more of these, and says whether and how it fails.
    pub(super) fn next(&mut self, operation: Operation) -> io::Result<()> {
        let done = self.done.entry(operation).or_default();
        *done += 1;
        let nth = *done;
        let once = self.once.iter().find(|fault| fault.operation == operation && fault.nth == nth);
        let lasting = self.from.iter().find(|fault| fault.operation == operation && fault.nth <= nth);
        match once.or(lasting) {
            Some(fault) => Err(io::Error::from_raw_os_error(fault.errno)),
            None => Ok(()),
        }
    }
}
