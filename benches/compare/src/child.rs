//! This program in the place of another: it goes to its core, ties its life to its parent's, and becomes the other.
//!
//! ```text
//!   compare ──spawn──> compare child --core 0 -- nats-server -c nats.conf ──exec──> nats-server -c nats.conf
//! ```
//!
//! What has to happen between fork and exec would be unsafe code; a short life as this program in between needs none,
//! and no other program such as `taskset` either.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use rustix::process::{Resource, Rlimit, Signal, getrlimit, set_parent_process_death_signal, setrlimit};
use rustix::thread::{CpuSet, sched_setaffinity};

use crate::failure::Failure;

/// What `child` is called on the command line.
pub const COMMAND: &str = "child";

/// The argument in front of a core.
pub const CORE: &str = "--core";

/// Becomes `program`, on one core if so wished. It ends when the thread that started it does, so that is best the first
/// one. Returns only when it cannot.
#[must_use]
pub fn become_program(program: &Path, arguments: &[OsString], core: Option<usize>) -> Failure {
    let attempted = || format!("become {}", program.display());
    if let Err(failure) = prepare(core) {
        return failure;
    }
    Failure::new(attempted(), Command::new(program).args(arguments).exec())
}

/// Goes to its core, ends with its parent, and may open as many files as the system lets it: some brokers raise that
/// limit by themselves and others do not, and a thousand connections are more than is usual.
fn prepare(core: Option<usize>) -> Result<(), Failure> {
    set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|error| Failure::new("end together with the parent", error))?;
    if let Some(core) = core {
        pin(core)?;
    }
    raise_open_files()
}

/// Lets this process, and all that it starts, open as many files as the system lets it.
pub(crate) fn raise_open_files() -> Result<(), Failure> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
        .map_err(|error| Failure::new("raise the limit of open files", error))
}

/// Lets this thread, and all that it starts, run on one core only.
///
/// # Errors
/// [`Failure`] when there is no such core, or it may not be used.
pub fn pin(core: usize) -> Result<(), Failure> {
    let failed = |error: &dyn std::fmt::Display| Failure::new(format!("run on core {core} only"), error);
    if core >= CpuSet::MAX_CPU {
        return Err(failed(&"there is no such core"));
    }
    let mut cores = CpuSet::new();
    cores.set(core);
    sched_setaffinity(None, &cores).map_err(|error| failed(&error))
}
