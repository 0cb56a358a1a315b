//! Checking a stream whole: from the files that a broker wrote, or from what it delivers. Neither believes the broker.
//!
//! Read `findings` for what there is to find, then `offline` with `copied_log` and `judge`, and `online` with `prover`.

mod copied_log;
mod findings;
mod held;
mod judge;
mod offline;
mod online;
mod prover;

pub(crate) use findings::{Findings, Judgement, result};
pub(crate) use offline::{Folder, verify as offline};
pub(crate) use online::verify as online;
pub(crate) use prover::prove_patiently;
