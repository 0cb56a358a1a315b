//! The broker that is measured: in a process of its own, on a bus of its own, in a temporary folder.

use std::fs;
use std::path::Path;

use crate::broker_process::{BrokerProcess, free_address};
use crate::bus_folder::{BusFolder, NewBus};
use crate::failure::Failure;
use crate::process_usage::Usage;

/// The identities of a bench, and what they may do.
const POLICY: &str = r#"version = 1

[[allow]]
id = "publish"
who = ["spiffe://bench.local/publisher"]
verbs = ["publish"]
topics = ["bench/#"]

[[allow]]
id = "subscribe"
who = ["spiffe://bench.local/subscriber"]
verbs = ["subscribe"]
topics = ["bench/#"]
"#;

/// A broker and its bus. The broker is stopped, and the folder removed, when this is dropped.
pub(super) struct MeasuredBroker {
    // The broker goes before its files.
    process: BrokerProcess,
    folder: BusFolder,
    temporary: tempfile::TempDir,
}

impl MeasuredBroker {
    /// Starts a broker and waits until it listens. Its folder is made in `parent`, or where temporary files are; `more`
    /// is added to its policy.
    pub(super) fn start(parent: Option<&Path>, more: &str) -> Result<Self, Failure> {
        let failed = |error: &dyn std::fmt::Display| Failure::new("make a bus to measure", error);
        let temporary = match parent {
            Some(parent) => tempfile::tempdir_in(parent),
            None => tempfile::tempdir(),
        };
        let temporary = temporary.map_err(|error| failed(&error))?;
        let new =
            NewBus { trust_domain: "bench.local".to_owned(), hosts: Vec::new(), address: free_address()? };
        let (folder, _) = BusFolder::create(temporary.path().join("bus"), &new)?;
        for identity in ["publisher", "subscriber"] {
            folder.issue(identity, &[])?;
        }
        fs::write(folder.path("policy.toml"), format!("{POLICY}{more}")).map_err(|error| failed(&error))?;
        let process = BrokerProcess::start(&folder.path("sealbus.toml"))?;
        Ok(Self { process, folder, temporary })
    }

    /// Its folder.
    pub(super) const fn folder(&self) -> &BusFolder {
        &self.folder
    }

    /// What it has used so far.
    pub(super) fn usage(&self) -> Result<Usage, Failure> {
        self.process.usage()
    }

    /// Stops the broker and gives what it left on the disk.
    pub(super) fn stop(self) -> (BusFolder, tempfile::TempDir) {
        let Self { process, folder, temporary } = self;
        drop(process);
        (folder, temporary)
    }
}
