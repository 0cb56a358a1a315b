//! Sealbus beside other brokers, in one run.
//!
//! ```text
//!   orchestrate: for each placement, workload, repetition and subject, interleaved A B C A B C:
//!       start the broker in a fresh folder ── load: this program again, measures, prints one line ── stop
//!   report: table, floors, JSON lines, chart
//! ```
//!
//! **What it does.** Peers are measured through raw pipelined clients ([`pump`] over a [`wire`]), so that their broker is
//! the limit; Sealbus through its real client crate, which signs and verifies. All through TLS 1.3 with client
//! certificates, on loopback, over the same workloads in the same run.
//!
//! **What it does not contain.** Nothing is tuned that a user would have to tune, no figure is taken from another run,
//! and nothing but children of the run is started or stopped.
//!
//! **Reading order.** [`workload`] (what is measured), [`subject`] and [`conversation`] (of whom, and how one talks to
//! it), [`measure`], [`orchestrate`], [`report`].

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser as _;

use crate::arguments::{Arguments, Part};
use crate::failure::Failure;
use crate::pki::Pki;

mod arguments;
pub mod child;
pub mod conversation;
pub mod failure;
mod link;
mod load;
pub mod measure;
pub mod orchestrate;
pub mod outcome;
pub mod peers;
pub mod pki;
pub mod pump;
mod read_ahead;
pub mod report;
pub mod sealbus;
mod shape;
pub mod subject;
mod window;
pub mod wire;
pub mod workload;

/// Does what the process's arguments say.
#[must_use]
pub fn run() -> ExitCode {
    let Arguments { compare, part } = Arguments::parse();
    let done = match part {
        None => orchestrate::run(&compare),
        Some(Part::Shape(arguments)) => shape::run(&arguments),
        Some(Part::Load(arguments)) => load::run(&arguments),
        Some(Part::Relay { port, pki }) => peers::relay::serve(port, &Pki::at(&pki)),
        Some(Part::Child { core, command }) => Err(become_program(command, core)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::FAILURE
        }
    }
}

fn become_program(command: Vec<std::ffi::OsString>, core: Option<usize>) -> Failure {
    let mut command = command.into_iter();
    match command.next() {
        Some(program) => {
            let arguments: Vec<_> = command.collect();
            child::become_program(&PathBuf::from(program), &arguments, core)
        }
        None => Failure::new("become another program", "none is named"),
    }
}
