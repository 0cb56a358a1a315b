//! Runs the real binary.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Output};

/// What a run of the binary came to.
pub(crate) struct Ran {
    /// The exit code.
    pub(crate) code: i32,
    /// What it wrote to stdout.
    pub(crate) stdout: String,
    /// What it wrote to stderr.
    pub(crate) stderr: String,
}

/// The binary with these arguments, in a home of its own.
pub(crate) fn sealbus(home: &Path, arguments: &[impl AsRef<OsStr>]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sealbus"));
    command
        .args(arguments)
        .current_dir(home)
        .env_remove("SEALBUS_CONTEXT")
        .env_remove("XDG_CONFIG_HOME")
        .env("HOME", home)
        .env("NO_COLOR", "1");
    command
}

/// Runs the binary to its end.
pub(crate) fn run(home: &Path, arguments: &[impl AsRef<OsStr>]) -> Ran {
    ran(sealbus(home, arguments).output().expect("the binary runs"))
}

/// Runs the binary to its end, which must be a good one; its stdout.
pub(crate) fn done(home: &Path, arguments: &[&str]) -> String {
    let Ran { code, stdout, stderr } = run(home, arguments);
    assert_eq!(code, 0, "{arguments:?}\nstdout:\n{stdout}\nstderr:\n{stderr}");
    stdout
}

/// What an ended process came to.
pub(crate) fn ran(output: Output) -> Ran {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("our output is UTF-8");
    Ran {
        code: output.status.code().expect("no signal ended it"),
        stdout: text(output.stdout),
        stderr: text(output.stderr),
    }
}
