//! The command line of Sealbus: one binary, `sealbus`.
//!
//! What a command does is in `command`, one file each; the demo and the benches have folders of their own. Data goes
//! to stdout, talk to stderr. No decision about messages, certificates or rights is made here: those are the broker's,
//! the client's and the protocol's.
//!
//! Read `arguments` for what can be said, then the file of the command. [`pki`], [`fake_broker`] and
//! [`process_usage`] are public for the demo, the tests and the benches, and for nobody else.

use std::process::ExitCode;

use clap::Parser as _;

mod arguments;
mod audit_line;
mod base64;
mod bench;
mod broker_process;
mod bus_folder;
mod command;
mod context;
mod demo;
mod failure;
mod message_text;
mod output;
mod prometheus;
mod receiving;
mod signals;
mod start;
mod style;
mod table;
mod talk;
mod template;
mod text;
mod verify;

pub mod fake_broker;
pub mod pki;
pub mod process_usage;

/// Does what the process's arguments say.
#[must_use]
pub fn run() -> ExitCode {
    let arguments = arguments::Arguments::parse();
    match command::run(arguments) {
        Ok(verdict) => verdict.exit_code(),
        Err(failure) => failure.report(),
    }
}
