//! Runs the real binary.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Output, Stdio};

/// The 842 departures of a day.
pub(crate) const FLIGHTS: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/data/flights-2013-01-01.jsonl");

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

/// A process that is killed when the test ends, however it ends.
pub(crate) struct Process {
    pub(crate) child: Child,
    stderr: BufReader<ChildStderr>,
}

impl Process {
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().expect("the binary starts");
        let stderr = BufReader::new(child.stderr.take().expect("stderr is a pipe"));
        Self { child, stderr }
    }

    /// Reads stderr up to a line that begins so.
    pub(crate) fn wait_for(&mut self, beginning: &str) {
        let mut said = String::new();
        while !said.lines().last().is_some_and(|line| line.starts_with(beginning)) {
            assert_ne!(
                self.stderr.read_line(&mut said).expect("stderr is text"),
                0,
                "{beginning:?} after {said}"
            );
        }
    }

    /// Waits until it ends; both pipes are read at once, since a full one would keep it from ending.
    pub(crate) fn end(mut self) -> Ran {
        let pipe = self.child.stdout.take();
        let stdout = std::thread::spawn(move || {
            let mut stdout = String::new();
            pipe.map(|mut pipe| pipe.read_to_string(&mut stdout)).transpose().map(|_| stdout)
        });
        let mut stderr = String::new();
        self.stderr.read_to_string(&mut stderr).expect("stderr is text");
        let stdout = stdout.join().expect("the thread ends").expect("stdout is text");
        let code = self.child.wait().expect("the process ends").code().expect("no signal ended it");
        Ran { code, stdout, stderr }
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).expect("the process is there");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Already ended is what most tests hope for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A bus in the folder `bus`, on a free port, with these identities.
pub(crate) fn bus(home: &Path, identities: &[&str]) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port is free");
    let address = listener.local_addr().expect("a listener has an address").to_string();
    drop(listener);
    done(home, &["init", "bus", "--address", &address]);
    for name in identities {
        done(home, &["identity", "issue", name, "--dir", "bus"]);
    }
}

/// Adds rules to the policy.
pub(crate) fn grant(home: &Path, rules: &str) {
    let path = home.join("bus/policy.toml");
    let policy = fs::read_to_string(&path).expect("init wrote a policy");
    fs::write(&path, policy + rules).expect("the policy can be written");
}

/// A broker, once it listens.
pub(crate) fn serve(home: &Path) -> Process {
    let mut broker = Process::start(&mut sealbus(home, &["serve", "--config", "bus/sealbus.toml"]));
    broker.wait_for("listening on 127.0.0.1:");
    broker
}
