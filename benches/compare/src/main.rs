//! The `compare` command. Everything is in the library, where tests reach it.

use std::process::ExitCode;

fn main() -> ExitCode {
    // The Sealbus broker that is measured, and the program that makes its bus, are this very program once more.
    if matches!(std::env::args().nth(1).as_deref(), Some("serve" | "init")) {
        return sealbus::run();
    }
    sealbus_compare::run()
}
