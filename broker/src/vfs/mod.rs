//! Files: the only place of the broker that names `std::fs`.
//!
//! Everything that is kept goes through [`Vfs`], so that tests can lose power, fill the disk and make it fail at any
//! point. What the broker creates is for its own user alone (FAILURES T48).

mod fault;
mod faulty;
mod os;
mod replace;
mod sim;
mod traits;

#[cfg(test)]
mod tests;

#[doc(hidden)]
pub use fault::{Fault, Operation};
#[doc(hidden)]
pub use faulty::{FaultyVfs, Synced};
pub use os::OsVfs;
pub use replace::replace;
#[doc(hidden)]
pub use sim::{CrashStates, Description, Limits, SimVfs, Snapshot};
pub use traits::{AppendFile, DataFile, Lock, Vfs};
