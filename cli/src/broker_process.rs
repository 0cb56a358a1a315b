//! A broker in a process of its own: this program again, with `serve`.

use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::failure::Failure;
use crate::process_usage::Usage;

const ATTEMPTED: &str = "start a broker in a process of its own";

/// A broker's process. It is told to stop, and waited for, when this is dropped.
pub(crate) struct BrokerProcess {
    child: Child,
}

impl BrokerProcess {
    /// Starts a broker with this configuration and waits until it listens. Blocks.
    pub(crate) fn start(config: &Path) -> Result<Self, Failure> {
        let failed = |error: &dyn std::fmt::Display| Failure::new(ATTEMPTED, error);
        let program = std::env::current_exe().map_err(|error| failed(&error))?;
        let mut child = Command::new(program)
            .arg("serve")
            .arg("--config")
            .arg(config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| failed(&error))?;
        let stderr = child.stderr.take().expect("stderr was asked to be a pipe");
        let process = Self { child };
        wait_until_it_listens(stderr)?;
        Ok(process)
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Ends it as `kill -9` does, so that it does nothing more, and waits until it is gone.
    pub(crate) fn kill(mut self) -> Result<(), Failure> {
        let killed = self.child.kill().and_then(|()| self.child.wait());
        killed.map(drop).map_err(|error| Failure::new("kill the broker", error))
    }

    /// What it has used so far.
    pub(crate) fn usage(&self) -> Result<Usage, Failure> {
        Usage::of(self.child.id()).map_err(|error| Failure::new("measure what the broker uses", error))
    }
}

impl Drop for BrokerProcess {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid {
            let _ = kill_process(pid, Signal::TERM);
        }
        for _ in 0..100 {
            if matches!(self.child.try_wait(), Ok(Some(_)) | Err(_)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        // A broker that does not stop by itself is killed: nobody else will.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads what the broker says until it listens; afterwards a thread keeps its pipe empty.
fn wait_until_it_listens(stderr: ChildStderr) -> Result<(), Failure> {
    let mut lines = BufReader::new(stderr).lines();
    let mut said = Vec::new();
    for line in lines.by_ref().map_while(Result::ok) {
        if line.starts_with("listening on ") {
            std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
            return Ok(());
        }
        said.push(line);
    }
    let said = if said.is_empty() { "it ended without a word".to_owned() } else { said.join("\n") };
    Err(Failure::new(ATTEMPTED, said))
}

/// A port of 127.0.0.1 that is free now. Somebody else may take it before the broker does, and then the broker says so.
pub(crate) fn free_address() -> Result<SocketAddr, Failure> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    listener
        .and_then(|listener| listener.local_addr())
        .map_err(|error| Failure::new("find a free port of 127.0.0.1", error))
}
