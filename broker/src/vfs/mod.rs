//! Files: the only place of the broker that names `std::fs`.
//!
//! Everything that is kept goes through [`Vfs`], so that tests can lose power, fill the disk and make it fail at any
//! point. What the broker creates is for its own user alone (FAILURES T48).

mod faulty;
mod os;
mod traits;

#[doc(hidden)]
pub use faulty::{Fault, FaultyVfs, Operation, Synced};
pub use os::OsVfs;
pub use traits::{AppendFile, Lock, Vfs};
