//! A file system in memory that can lose power: for tests.
//!
//! It does what the traits say and writes every write-class operation into a journal. From the journal it makes, for
//! any moment, the states in which the disk may be found when power is lost then ([`SimVfs::crash_states`]). It fails,
//! fills up, lies about its syncs and has its bits flipped on request.
//!
//! ```text
//! vfs      what tests and the broker see     files     handles of open files, and locks
//! state    names, contents, the journal      crash     the states of a moment, each once
//! disk     what is kept for good and what    choice    what may have become of each change
//!          may still be lost                 content   bytes, shared by copies
//! ```
//!
//! The model is the one that POSIX promises and no more. A sync of a file keeps its bytes and its length, not its name;
//! a sync of a directory keeps names, not bytes. Unsynced changes reach the disk in any order. A sector of 512 bytes is
//! written whole or not at all, and a rename is done whole or not at all.

mod choice;
mod content;
mod crash;
mod disk;
mod files;
mod random;
mod state;
mod vfs;

#[cfg(test)]
mod tests;

pub use crash::{CrashStates, Description, Limits};
pub use vfs::{SimVfs, Snapshot};
