//! What holds of the segmented store: the suite on two file systems, and what the suite cannot ask.

mod core;
mod engines;
mod guards;
mod memory;
mod threads;
mod verify;
