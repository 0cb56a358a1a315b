//! Programs under test: what they say is kept, and they end with the test that started them.

use std::io::{BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use rustix::process::{Pid, Signal, kill_process};

use crate::wait::eventually;

/// A running program. Killed when dropped; when a test fails, what it said on stderr is printed.
pub struct Process {
    name: String,
    child: Child,
    stdout: Arc<Said>,
    stderr: Arc<Said>,
}

#[derive(Default)]
struct Said {
    bytes: Mutex<Vec<u8>>,
    is_complete: AtomicBool,
}

impl Said {
    fn keep(self: &Arc<Self>, pipe: impl Read + Send + 'static) {
        let said = Arc::clone(self);
        thread::spawn(move || {
            let mut pipe = BufReader::new(pipe);
            let mut bytes = [0; 8 * 1_024];
            while let Ok(count @ 1..) = pipe.read(&mut bytes) {
                said.bytes.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&bytes[..count]);
            }
            said.is_complete.store(true, Ordering::SeqCst);
        });
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }
}

impl Process {
    /// Starts a program. Its stdin is what the command says.
    #[must_use]
    pub fn start(name: &str, command: &mut Command) -> Self {
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = child.unwrap_or_else(|error| panic!("{name} cannot be started: {error}"));
        let (stdout, stderr) = (Arc::new(Said::default()), Arc::new(Said::default()));
        stdout.keep(child.stdout.take().expect("stdout is piped"));
        stderr.keep(child.stderr.take().expect("stderr is piped"));
        Self { name: name.to_owned(), child, stdout, stderr }
    }

    /// What it has said on stdout so far.
    #[must_use]
    pub fn stdout(&self) -> String {
        self.stdout.text()
    }

    /// What it has said on stderr so far.
    #[must_use]
    pub fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// Its stdin, once.
    pub fn stdin(&mut self) -> std::process::ChildStdin {
        self.child.stdin.take().expect("stdin is piped and was not taken")
    }

    /// The whole lines that it has said on stdout so far.
    #[must_use]
    pub fn stdout_lines(&self) -> Vec<String> {
        let text = self.stdout();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.split('\n').filter(|_| !whole.is_empty()).map(str::to_owned).collect()
    }

    /// Waits until it says this on stderr.
    pub async fn await_stderr(&mut self, text: &str) -> String {
        let what = format!("{} says {text:?} on stderr", self.name);
        eventually(&what, || {
            let said = self.stderr();
            if said.contains(text) {
                return Some(said);
            }
            if let Ok(Some(status)) = self.child.try_wait() {
                panic!("{} ended with {status} before it said {text:?}:\n{}", self.name, self.stderr());
            }
            None
        })
        .await
    }

    /// Waits until it has ended and everything that it said has been read.
    pub async fn await_end(&mut self) -> ExitStatus {
        let what = format!("{} ends", self.name);
        let child = &mut self.child;
        let status = eventually(&what, || child.try_wait().expect("a child can be waited for")).await;
        eventually("its last words are read", || {
            [&self.stdout, &self.stderr]
                .iter()
                .all(|said| said.is_complete.load(Ordering::SeqCst))
                .then_some(())
        })
        .await;
        status
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal)
            .unwrap_or_else(|error| panic!("{} cannot be signalled: {error}", self.name));
    }

    /// Ends it at once, as a power loss would for its memory.
    pub fn kill(&mut self) {
        self.child.kill().expect("a child can be killed");
        self.child.wait().expect("a child can be waited for");
    }

    /// KiB of memory that it holds.
    #[must_use]
    pub fn rss_kib(&self) -> u64 {
        let status = self.proc("status");
        let line =
            status.lines().find(|line| line.starts_with("VmRSS:")).expect("the system tells the memory");
        line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("the memory is a number")
    }

    /// Hundredths of a second of processor time that it has used.
    #[must_use]
    pub fn cpu_ticks(&self) -> u64 {
        let stat = self.proc("stat");
        let (_, fields) = stat.rsplit_once(')').expect("a process has a name");
        let fields: Vec<&str> = fields.split_whitespace().collect();
        let ticks = |index: usize| fields[index].parse::<u64>().expect("processor time is a number");
        ticks(11) + ticks(12)
    }

    /// Descriptors that it has open.
    #[must_use]
    pub fn open_descriptors(&self) -> usize {
        let folder = format!("/proc/{}/fd", self.child.id());
        std::fs::read_dir(folder).expect("the system tells the descriptors").count()
    }

    /// Its arguments, as every user of the system may read them.
    #[must_use]
    pub fn command_line(&self) -> String {
        self.proc("cmdline").replace('\0', " ")
    }

    fn proc(&self, file: &str) -> String {
        let path = format!("/proc/{}/{file}", self.child.id());
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    fn pid(&self) -> Pid {
        i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("a child has a process id")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // One that was stopped could not be killed by a polite signal; this one needs no cooperation.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("--- {} said on stderr:\n{}---", self.name, self.stderr());
        }
    }
}

/// A broker in a process of its own, listening.
pub struct BrokerProcess {
    process: Process,
    addresses: Vec<SocketAddr>,
}

impl BrokerProcess {
    /// Starts a broker and waits until it listens.
    pub async fn start(program: &Path, config: &Path) -> Self {
        let mut command = Command::new(program);
        command.args(["serve", "--config"]).arg(config).stdin(Stdio::null());
        Self::of(Process::start("the broker", &mut command)).await
    }

    /// The same, with at most this many descriptors.
    pub async fn start_with_descriptors(program: &Path, config: &Path, descriptors_max: u32) -> Self {
        let mut command = Command::new("sh");
        command.arg("-c").arg(format!("ulimit -n {descriptors_max} && exec \"$0\" serve --config \"$1\""));
        command.arg(program).arg(config).stdin(Stdio::null());
        Self::of(Process::start("the broker", &mut command)).await
    }

    /// The same, with a disk of its own below `folder`, of so many mebibytes. None where the system does not let us mount
    /// one. It is seen by the broker alone, and by whoever looks through [`BrokerProcess::disk`].
    pub async fn start_with_disk(
        program: &Path,
        config: &Path,
        folder: &Path,
        mebibytes: u32,
    ) -> Option<Self> {
        let mount = format!("mount -t tmpfs -o size={mebibytes}m,mode=0700 tmpfs \"$1\"");
        let unshared = |script: &str| {
            let mut command = Command::new("unshare");
            command.args(["--user", "--map-root-user", "--mount", "sh", "-c", script, "sh"]).arg(folder);
            command.stdin(Stdio::null());
            command
        };
        std::fs::create_dir_all(folder).expect("the folder can be made");
        let tried = unshared(&mount).stdout(Stdio::null()).stderr(Stdio::null()).status();
        if !tried.is_ok_and(|status| status.success()) {
            return None;
        }
        let mut command = unshared(&format!("{mount} && exec \"$2\" serve --config \"$3\""));
        command.arg(program).arg(config);
        Some(Self::of(Process::start("the broker", &mut command)).await)
    }

    /// Where others see a folder as the broker sees it.
    #[must_use]
    pub fn disk(&self, folder: &Path) -> PathBuf {
        let below = folder.strip_prefix("/").expect("folders of tests are absolute");
        PathBuf::from(format!("/proc/{}/root", self.child.id())).join(below)
    }

    /// Tries to start a broker that must refuse; returns what it said.
    ///
    /// # Panics
    /// When it ends as if all were well.
    pub async fn start_refused(program: &Path, config: &Path) -> String {
        let mut command = Command::new(program);
        command.args(["serve", "--config"]).arg(config).stdin(Stdio::null());
        let mut process = Process::start("the broker that must refuse", &mut command);
        let status = process.await_end().await;
        let said = process.stderr();
        assert!(!status.success(), "the broker started and ended well, but should have refused:\n{said}");
        assert!(!said.contains("listening on"), "the broker listened before it refused:\n{said}");
        said
    }

    async fn of(mut process: Process) -> Self {
        const MARK: &str = "listening on ";
        let whole_line = |said: &str| {
            let (_, rest) = said.split_once(MARK)?;
            rest.split_once('\n').map(|(line, _)| line.to_owned())
        };
        process.await_stderr(MARK).await;
        let line = eventually("the broker says where it listens", || whole_line(&process.stderr())).await;
        let parse = |address: &str| address.parse().unwrap_or_else(|error| panic!("{address:?}: {error}"));
        let addresses = line.split(", ").map(parse).collect();
        Self { process, addresses }
    }

    /// Where it listens first.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.addresses[0]
    }

    /// Where it listens, in the order of its configuration.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// SIGTERM, and the status with which it ends.
    pub async fn terminate(mut self) -> ExitStatus {
        self.process.signal(Signal::TERM);
        self.process.await_end().await
    }
}

impl std::ops::Deref for BrokerProcess {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.process
    }
}

impl std::ops::DerefMut for BrokerProcess {
    fn deref_mut(&mut self) -> &mut Process {
        &mut self.process
    }
}
