//! What is compared, as the orchestrator sees it: a program with a version that can be started in a folder.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::child;
use crate::failure::Failure;
use crate::pki::Pki;
use crate::wire::Wire;

/// How long a broker may take from its start until it accepts connections.
const START_TIMEOUT: Duration = Duration::from_secs(20);

/// How long a broker may take to stop before it is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// Between two looks at a broker that starts or stops.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Bytes of a broker's log that an error repeats.
const LOG_TAIL_BYTES: usize = 2_000;

/// A broker, or what stands in for one.
pub trait Subject: Sync {
    /// One lower-case word, as the arguments and the table have it.
    fn name(&self) -> &'static str;

    /// The version, as the program itself says it; why there is none when it is not installed.
    ///
    /// # Errors
    /// [`Failure`] when the program cannot be found or does not answer.
    fn version(&self) -> Result<String, Failure>;

    /// What it does for a message and what it does not.
    fn facts(&self) -> Facts;

    /// The ways in which it can be durable, the strictest first; none when it cannot.
    fn durable_profiles(&self) -> &'static [Profile];

    /// What an acknowledgement means in this profile, in a few words, such as "after fdatasync".
    fn acknowledged_means(&self, profile: Profile) -> &'static str;

    /// Starts it and waits until it accepts connections.
    ///
    /// # Errors
    /// [`Failure`] with the end of its log.
    fn start(&self, setting: &Setting<'_>) -> Result<Running, Failure>;
}

/// A subject that raw clients talk to.
pub trait Peer: Subject + Clone + Send + Sync + 'static {
    /// Its protocol.
    type Wire: Wire;

    /// The client's half of a new connection.
    fn wire(&self, profile: Profile) -> Self::Wire;
}

/// How a subject is configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Profile {
    /// Nothing is kept.
    Live,
    /// As surely as the subject can.
    Durable,
    /// Synced each second, whatever was acknowledged.
    DurableEverySecond,
}

/// For the honest table: what stands behind a figure.
#[derive(Debug, Clone, Copy)]
pub struct Facts {
    /// Who signs and who verifies messages; "none" mostly.
    pub signatures: &'static str,
    /// Which access rules are checked in this run.
    pub access: &'static str,
}

/// Where and how a subject is started.
#[derive(Debug, Clone, Copy)]
pub struct Setting<'s> {
    /// This program, `compare`: it starts the others, and is the relay itself.
    pub own_program: &'s Path,
    /// An empty folder that is its own.
    pub folder: &'s Path,
    /// The certificates.
    pub pki: &'s Pki,
    /// How it is configured.
    pub profile: Profile,
    /// A port of 127.0.0.1 that is free.
    pub port: u16,
    /// The one core that it may use, or all of them.
    pub core: Option<usize>,
}

impl Setting<'_> {
    /// Writes a file into the subject's folder and returns its path.
    ///
    /// # Errors
    /// [`Failure`] when it cannot be written.
    pub fn write(&self, name: &str, text: &str) -> Result<PathBuf, Failure> {
        let path = self.folder.join(name);
        fs::write(&path, text).map_err(|error| Failure::new(format!("write {}", path.display()), error))?;
        Ok(path)
    }

    /// Starts a program, on its core, with its output in `log` in the folder, and waits until it accepts connections.
    ///
    /// # Errors
    /// [`Failure`] with the end of its log.
    pub fn run<A: AsRef<OsStr>>(
        &self,
        program: &Path,
        arguments: impl IntoIterator<Item = A>,
    ) -> Result<Running, Failure> {
        let attempted = || format!("start {}", program.display());
        let failed = |error: &dyn std::fmt::Display| Failure::new(attempted(), error);
        let log_path = self.folder.join("log");
        let log = File::create(&log_path).map_err(|error| failed(&error))?;
        let child = guarded(self.own_program, program, self.core)
            .args(arguments)
            .current_dir(self.folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(|error| failed(&error))?)
            .stderr(log)
            .spawn()
            .map_err(|error| failed(&error))?;
        let mut running = Running { child, port: self.port };
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        let deadline = Instant::now() + START_TIMEOUT;
        let said = || fs::read(&log_path).map(|log| tail(&log)).unwrap_or_default();
        loop {
            if let Ok(Some(status)) = running.child.try_wait() {
                return Err(failed(&format!("it ended with {status}\n{}", said())));
            }
            if TcpStream::connect(address).is_ok() {
                return Ok(running);
            }
            if Instant::now() > deadline {
                let seconds = START_TIMEOUT.as_secs();
                return Err(failed(&format!("it does not listen after {seconds} s\n{}", said())));
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

/// A program that runs on one core, if so wished, and ends when this one does: see [`child`].
#[must_use]
pub fn guarded(own_program: &Path, program: &Path, core: Option<usize>) -> Command {
    let mut command = Command::new(own_program);
    command.arg(child::COMMAND);
    if let Some(core) = core {
        command.arg(child::CORE).arg(core.to_string());
    }
    command.arg("--").arg(program);
    command
}

/// A broker that runs. It is stopped, and waited for, when this is dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    port: u16,
}

impl Running {
    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Where it listens, on 127.0.0.1.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // It may have ended by itself meanwhile.
            let _ = kill_process(pid, Signal::TERM);
        }
        let deadline = Instant::now() + STOP_TIMEOUT;
        while Instant::now() < deadline {
            if matches!(self.child.try_wait(), Ok(Some(_)) | Err(_)) {
                return;
            }
            std::thread::sleep(LOOK_EVERY);
        }
        // What does not stop by itself is killed: nobody else will.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port of 127.0.0.1 that is free now. Somebody else may take it before the broker does, and then the broker says so.
///
/// # Errors
/// [`Failure`] when there is none.
pub fn free_port() -> Result<u16, Failure> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .map_err(|error| Failure::new("find a free port of 127.0.0.1", error))
}

/// A program by its name, also where Debian keeps servers, which is not in everybody's `PATH`.
///
/// # Errors
/// [`Failure`] when it is not installed.
pub fn program(name: &str) -> Result<PathBuf, Failure> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let servers = ["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(servers)
        .map(|folder| folder.join(name))
        .find(|program| program.is_file())
        .ok_or_else(|| Failure::new(format!("find {name}"), "it is not installed"))
}

/// What a program prints when it is asked for its version: the first line that is not empty, from either stream.
///
/// # Errors
/// [`Failure`] when it is not installed or says nothing.
pub fn first_line_of(name: &str, argument: &str) -> Result<String, Failure> {
    let attempted = || format!("ask {name} {argument}");
    let output = Command::new(program(name)?)
        .arg(argument)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| Failure::new(attempted(), error))?;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    let line = said.lines().map(str::trim).find(|line| !line.is_empty());
    line.map(str::to_owned).ok_or_else(|| Failure::new(attempted(), "it says nothing"))
}

fn tail(log: &[u8]) -> String {
    let start = log.len().saturating_sub(LOG_TAIL_BYTES);
    String::from_utf8_lossy(log.get(start..).unwrap_or_default()).into_owned()
}
