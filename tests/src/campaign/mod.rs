//! Campaigns against the storage: every crash point, every flipped bit, every failing operation of the disk.
//!
//! ```text
//!   rig       drives the engine by seeded steps ----> history   what was handed over and acknowledged, in plain lists
//!     |                                                   |
//!   SimVfs    every state the disk may be found in        |
//!     |                                                   v
//!   states -> seen    recovered, read by the readers -> judge    compares; each sentence is a violation
//!
//!   crash     scripts with several lives       corruption   flips, cuts, swapped blocks, files taken away
//!   faults    errors at the nth operation      full_disk    a real file system that is full or read-only
//! ```
//!
//! The history and the judge know nothing of the engine: offsets, roots and producers' places are worked out from what
//! was handed over.

pub mod author;
pub mod corruption;
pub mod crash;
pub mod faults;
pub mod forgetful;
pub mod full_disk;
pub mod history;
pub mod judge;
pub mod live;
pub mod place;
pub mod random;
pub mod report;
pub mod rig;
pub mod seen;
pub mod states;
pub mod subject;
