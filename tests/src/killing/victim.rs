//! The broker as a process that is about to be killed.

use std::fs::OpenOptions;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tokio::sync::oneshot;

use crate::wait::{eventually, within};

use super::history::History;

/// Lines that a broker may say before it listens are kept, for the sentence with which a campaign fails.
const LAST_WORDS: usize = 20;

/// One life of the broker. Killed when dropped.
#[derive(Debug)]
pub(super) struct Victim {
    child: Child,
    started: Instant,
    listening: Option<oneshot::Receiver<Listening>>,
    trimmed: Option<oneshot::Receiver<()>>,
    reader: Option<JoinHandle<Vec<String>>>,
}

/// When it began to listen, and where.
#[derive(Debug, Clone, Copy)]
struct Listening {
    at: Instant,
    address: SocketAddr,
}

impl Victim {
    /// Starts it. What it says goes to the end of `log`; what it says is wrong, into the history too.
    pub(super) fn start(program: &Path, config: &Path, log: &Path, history: &Arc<History>) -> Self {
        let mut command = Command::new(program);
        command
            .args(["serve", "--config"])
            .arg(config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let started = Instant::now();
        let mut child =
            command.spawn().unwrap_or_else(|error| panic!("the broker cannot be started: {error}"));
        let stderr = child.stderr.take().expect("stderr is piped");
        let (tell_listening, listening) = oneshot::channel();
        let (tell_trimmed, trimmed) = oneshot::channel();
        let mut tell = Tell { listening: Some(tell_listening), trimmed: Some(tell_trimmed) };
        let log = OpenOptions::new().create(true).append(true).open(log);
        let mut log = log.unwrap_or_else(|error| panic!("the broker's log cannot be opened: {error}"));
        let history = Arc::clone(history);
        let reader = std::thread::spawn(move || {
            let kept = listen(stderr, &mut tell, &history, |line| log.write_all(line));
            kept.unwrap_or_else(|error| panic!("what the broker says cannot be kept: {error}"))
        });
        Self { child, started, listening: Some(listening), trimmed: Some(trimmed), reader: Some(reader) }
    }

    /// Waits until it listens, and says after how long it did.
    pub(super) async fn listening(&mut self) -> (Duration, SocketAddr) {
        let listening = self.listening.take().expect("it is asked once");
        match within("the broker listens", listening).await {
            Ok(Listening { at, address }) => (at.saturating_duration_since(self.started), address),
            Err(_) => {
                let status = self.child.wait().expect("a child can be waited for");
                let words = self.last_words();
                panic!("the broker ended with {status} instead of listening:\n{}", words.join(""))
            }
        }
    }

    /// After how long it listened, if it does so already.
    pub(super) fn listened(&mut self) -> Option<Duration> {
        let listening = self.listening.as_mut()?.try_recv().ok()?;
        Some(listening.at.saturating_duration_since(self.started))
    }

    /// Waits until it has trimmed a stream, at most so long; says whether it has.
    pub(super) async fn has_trimmed_within(&mut self, wait: Duration) -> bool {
        let Some(trimmed) = &mut self.trimmed else { return true };
        let has_trimmed = matches!(tokio::time::timeout(wait, trimmed).await, Ok(Ok(())));
        if has_trimmed {
            self.trimmed = None;
        }
        has_trimmed
    }

    /// SIGKILL.
    pub(super) fn kill(mut self) {
        let ended = self.child.try_wait().expect("a child can be waited for");
        self.child.kill().expect("a child can be killed");
        self.child.wait().expect("a child can be waited for");
        let words = self.last_words();
        if let Some(status) = ended {
            panic!("the broker had ended by itself with {status}:\n{}", words.join(""));
        }
    }

    /// SIGTERM, and the status with which it ends.
    pub(super) async fn terminate(mut self) -> ExitStatus {
        let pid =
            i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("a child has a process id");
        kill_process(pid, Signal::TERM).expect("a child can be signalled");
        let child = &mut self.child;
        eventually("the broker ends", || child.try_wait().expect("a child can be waited for")).await
    }

    fn last_words(&mut self) -> Vec<String> {
        let reader = self.reader.take().map(JoinHandle::join);
        reader.and_then(Result::ok).unwrap_or_default()
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        // It may have ended, which is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Who waits for something that it says. They may have killed it instead.
struct Tell {
    listening: Option<oneshot::Sender<Listening>>,
    trimmed: Option<oneshot::Sender<()>>,
}

/// Reads what it says, to the end.
fn listen(
    stderr: ChildStderr,
    tell: &mut Tell,
    history: &History,
    mut keep: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<Vec<String>> {
    let (mut lines, mut line) = (BufReader::new(stderr), Vec::new());
    let mut words = Vec::new();
    loop {
        line.clear();
        if lines.read_until(b'\n', &mut line)? == 0 {
            return Ok(words);
        }
        let at = Instant::now();
        keep(&line)?;
        let text = String::from_utf8_lossy(&line).into_owned();
        if let Some(address) = address(&text)
            && let Some(tell) = tell.listening.take()
        {
            let _ = tell.send(Listening { at, address });
        }
        if text.contains("event=Trimmed")
            && let Some(tell) = tell.trimmed.take()
        {
            let _ = tell.send(());
        }
        if text.contains(" ERROR ") || text.contains("panicked at") {
            history.note("broker-error", &json!({ "text": text.trim_end() }));
        }
        words.push(text);
        if words.len() > LAST_WORDS {
            words.remove(0);
        }
    }
}

fn address(line: &str) -> Option<SocketAddr> {
    line.strip_prefix("listening on ")?.trim_end().split(", ").next()?.parse().ok()
}
