//! One measurement: a broker in a fresh folder, the load beside it, and the end of both.

use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use crate::failure::Failure;
use crate::load::Answer;
use crate::outcome::Outcome;
use crate::pki::Pki;
use crate::report::{Entrant, Placement};
use crate::subject::{Profile, Running, Setting, Subject, free_port, guarded};
use crate::workload::Workload;

use super::interrupt::Interrupt;

/// What all measurements of a run share.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bench<'r> {
    pub(super) own_program: &'r Path,
    /// The folder of the run.
    pub(super) folder: &'r Path,
    pub(super) pki: &'r Pki,
    pub(super) cores: Option<Cores>,
    pub(super) timing: Windows,
    pub(super) interrupt: &'r Interrupt,
}

/// Where everybody runs when they are pinned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cores {
    pub(super) broker: usize,
    pub(super) load: usize,
}

/// How long is measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Windows {
    pub(super) warm_up: Duration,
    pub(super) window: Duration,
}

impl Bench<'_> {
    /// Starts, measures, stops. Blocks, on the first thread: children end with the thread that started them.
    pub(super) fn measure(
        &self,
        subject: &dyn Subject,
        entrant: Entrant,
        placement: Placement,
        workload: Workload,
    ) -> Result<Outcome, Failure> {
        let folder = self.folder.join("subject");
        fs::create_dir(&folder).map_err(|error| Failure::new(format!("make {}", folder.display()), error))?;
        let cores = match placement {
            Placement::Unpinned => None,
            Placement::Pinned => self.cores,
        };
        let setting = Setting {
            own_program: self.own_program,
            folder: &folder,
            pki: self.pki,
            profile: entrant.profile,
            port: free_port()?,
            core: cores.map(|cores| cores.broker),
        };
        let measured = subject.start(&setting).and_then(|broker| {
            let measured = self.load(entrant, workload, &broker, &folder, cores.map(|cores| cores.load));
            // Whatever was found, the broker is gone before its folder is, and before the next one starts.
            drop(broker);
            measured
        });
        fs::remove_dir_all(&folder)
            .map_err(|error| Failure::new(format!("remove {}", folder.display()), error))?;
        measured
    }

    fn load(
        &self,
        entrant: Entrant,
        workload: Workload,
        broker: &Running,
        folder: &Path,
        core: Option<usize>,
    ) -> Result<Outcome, Failure> {
        let failed = |found: &dyn std::fmt::Display| {
            Failure::new(format!("measure {} at {entrant}", workload.name), found)
        };
        let argument = |seconds: Duration| seconds.as_secs_f64().to_string();
        let mut child = guarded(self.own_program, self.own_program, core)
            .arg("load")
            .args(["--subject", entrant.subject, "--workload", workload.name])
            .args(["--profile", &profile(entrant.profile)?])
            .args(["--port", &broker.port().to_string(), "--process", &broker.id().to_string()])
            .arg("--pki")
            .arg(self.pki.folder())
            .arg("--folder")
            .arg(folder)
            .args(["--warm-up", &argument(self.timing.warm_up), "--seconds", &argument(self.timing.window)])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| failed(&error))?;
        self.interrupt.handle_started(child.id());
        let mut said = String::new();
        let mut stdout = child.stdout.take().expect("stdout was asked to be a pipe");
        let read = stdout.read_to_string(&mut said);
        self.interrupt.handle_ended();
        let status = child.wait().map_err(|error| failed(&error))?;
        self.interrupt.check()?;
        read.map_err(|error| failed(&error))?;
        match serde_json::from_str(&said) {
            Ok(Answer::Found(outcome)) => Ok(outcome),
            Ok(Answer::Failed(why)) => Err(failed(&why)),
            Err(_) => Err(failed(&format!("the load ended with {status} and said \"{}\"", said.trim()))),
        }
    }
}

/// A profile as the load's arguments have it.
fn profile(profile: Profile) -> Result<String, Failure> {
    let named = serde_json::to_value(profile).map_err(|error| Failure::new("name a profile", error))?;
    named.as_str().map(str::to_owned).ok_or_else(|| Failure::new("name a profile", "it has no name"))
}
