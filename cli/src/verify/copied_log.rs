//! One of the broker's own logs, read from a copy: opening a log mends it, and a check must leave every byte as it is.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use sealbus_broker::storage::log::{Log, LogOptions, random_salt};
use sealbus_broker::storage::system::SystemLog;
use sealbus_broker::vfs::OsVfs;
use sealbus_protocol::ids::BusId;
use tempfile::TempDir;

use crate::failure::Failure;

/// An opened copy, which goes when this is dropped.
pub(super) struct CopiedLog {
    pub(super) log: Log,
    _folder: TempDir,
}

impl CopiedLog {
    /// Copies the log and opens the copy. These logs are small: bindings and policies.
    pub(super) fn open(data_dir: &Path, bus_id: BusId, which: SystemLog) -> Result<Self, Failure> {
        let original = data_dir.join("system").join(which.directory());
        let failed = |error: &dyn std::fmt::Display| {
            Failure::new(format!("read {which} in {}", original.display()), error)
        };
        let folder = tempfile::tempdir().map_err(|error| failed(&error))?;
        for entry in fs::read_dir(&original).map_err(|error| failed(&error))? {
            let entry = entry.map_err(|error| failed(&error))?;
            fs::copy(entry.path(), folder.path().join(entry.file_name())).map_err(|error| failed(&error))?;
        }
        let options = LogOptions {
            bus_id,
            log_id: which.log_id(),
            segment_bytes: u64::MAX,
            digest: None,
            salt: random_salt,
        };
        let opened = Log::open(Arc::new(OsVfs), folder.path(), options);
        let (log, _) = opened.map_err(|error| failed(&error))?;
        Ok(Self { log, _folder: folder })
    }
}
