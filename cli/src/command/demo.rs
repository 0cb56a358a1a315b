//! `sealbus demo`: everything at once on real data.

use std::path::PathBuf;

use clap::Args;

use crate::command::block_on;
use crate::demo;
use crate::failure::{Failure, Verdict};

/// Everything at once on real data: start here.
///
/// Makes a PKI in a temporary folder, starts a broker over TLS on a free port of 127.0.0.1, and publishes the 842
/// departures from New York of 1 January 2013. Then it shows what is refused, and with which words. The exit code is 0
/// only if every step did what it says.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  sealbus demo\n  sealbus demo --keep bus    leaves the bus in ./bus and prints \
                        commands to explore it"
)]
pub(crate) struct DemoArguments {
    /// Leave the bus in this folder, which must not exist or be empty.
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
}

pub(crate) fn run(arguments: &DemoArguments) -> Result<Verdict, Failure> {
    block_on(demo::run(arguments.keep.as_deref()))
}
