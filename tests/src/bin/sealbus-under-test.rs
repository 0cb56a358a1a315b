//! The program `sealbus` once more, so that scenarios find it beside them however they are built.

use std::process::ExitCode;

fn main() -> ExitCode {
    sealbus::run()
}
