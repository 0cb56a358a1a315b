//! What a broker keeps, as one thing: opened first, closed last.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, RwLock};

use sealbus_protocol::ids::{BusId, StreamId};
use sealbus_protocol::tlog::LogKey;

use super::error::StorageError;
use super::findings::Findings;
use super::producers::Ledger;
use crate::clock::Clock;
use crate::config::StorageConfig;
use crate::locks::lock;
use crate::storage::indexing::Indexing;
use crate::storage::log_key;
use crate::storage::stream::store::{CommitObserver, StreamStore as _};
use crate::storage::stream::{Streams, StreamsParts};
use crate::storage::system::keys::{KeyDirectory, StoredKey};
use crate::storage::system::producers::Snapshots;
use crate::storage::system::{KeptConsumer, RecoveredSystem, SystemLog, SystemLogs};
use crate::vfs::Vfs;

/// What a storage stands on.
pub struct StorageParts {
    /// The disk.
    pub vfs: Arc<dyn Vfs>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Told of what streams commit.
    pub observer: Arc<dyn CommitObserver>,
    /// The bus.
    pub bus_id: BusId,
    /// The broker's directory.
    pub data_dir: PathBuf,
    /// How streams are kept.
    pub config: StorageConfig,
}

/// The streams of a broker and what belongs to them.
pub struct Storage {
    pub(super) vfs: Arc<dyn Vfs>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) bus_id: BusId,
    pub(super) data_dir: PathBuf,
    pub(super) config: StorageConfig,
    pub(super) log_key: Option<LogKey>,
    pub(super) streams: Streams,
    pub(super) system: Arc<SystemLogs>,
    pub(super) keys: Arc<KeyDirectory>,
    pub(super) names: RwLock<HashMap<StreamId, String>>,
    /// Of streams that are not open: those that are know their producers themselves.
    pub(super) snapshots: Mutex<Snapshots>,
    pub(super) ledger: Arc<Mutex<Ledger>>,
    pub(super) indexing: Indexing,
    /// Keys that the index has not been told of yet.
    pub(super) keys_noted: Arc<Mutex<Vec<StoredKey>>>,
    /// Streams of the policy in force that could not be opened, and why.
    pub(super) unopened: Mutex<HashMap<StreamId, Arc<str>>>,
    /// Streams that are being opened, or are open and not admitted yet: nobody is shown them.
    pub(super) withheld: Mutex<HashSet<StreamId>>,
    pub(super) findings: Findings,
}

/// What opening found, besides what [`Storage::take_findings`] gives.
pub struct Recovered {
    /// Where the durable consumers stood.
    pub consumers: Vec<KeptConsumer>,
    /// Why the index was made anew, when it was.
    pub index_remarks: Vec<String>,
}

impl Storage {
    /// Opens the broker's own logs. Streams are opened by [`Storage::follow`]. Blocks.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn open(parts: StorageParts) -> Result<(Self, Recovered), StorageError> {
        let StorageParts { vfs, clock, observer, bus_id, data_dir, config } = parts;
        let log_key = match &config.log_key {
            Some(path) => Some(log_key::load(&*vfs, path).map_err(StorageError::LogKey)?),
            None => None,
        };
        let system_dir = data_dir.join("system");
        vfs.create_dir_all(&system_dir).map_err(|error| StorageError::Dir(system_dir.clone(), error))?;
        let (system, recovered) =
            SystemLogs::open(&vfs, &system_dir, bus_id, Arc::clone(&clock)).map_err(StorageError::System)?;
        let RecoveredSystem { cursors, .. } = recovered;
        let findings = Findings::default();
        cursors.refused.iter().for_each(|refused| findings.add_system(refused.to_string()));
        let streams_dir = data_dir.join("streams");
        let streams = Streams::start(StreamsParts {
            vfs: Arc::clone(&vfs),
            clock: Arc::clone(&clock),
            observer,
            dir: streams_dir.clone(),
            threads: config.writers,
        })
        .map_err(|error| StorageError::Dir(streams_dir, error))?;
        let (ledger, snapshots) =
            Ledger::read(&system.reader(SystemLog::Producers), &mut |refused| findings.add_system(refused))
                .map_err(|error| StorageError::Read("$producers", error.to_string()))?;
        let keys = Arc::new(KeyDirectory::new(system.reader(SystemLog::Keys)));
        let (indexing, index_remark) = Indexing::open(&*vfs, &data_dir.join("index"), &bus_id);
        let storage = Self {
            vfs,
            clock,
            bus_id,
            data_dir,
            config,
            log_key,
            streams,
            system: Arc::new(system),
            keys,
            names: RwLock::default(),
            snapshots: Mutex::new(snapshots),
            ledger: Arc::new(Mutex::new(ledger)),
            indexing,
            keys_noted: Arc::default(),
            unopened: Mutex::default(),
            withheld: Mutex::default(),
            findings,
        };
        storage.follow_keys();
        let index_remarks = index_remark.into_iter().collect();
        Ok((storage, Recovered { consumers: cursors.consumers, index_remarks }))
    }

    /// The broker's own logs, for whoever writes to `$cursors`.
    #[must_use]
    pub fn system(&self) -> &Arc<SystemLogs> {
        &self.system
    }

    /// Open streams, dead letters among them.
    #[must_use]
    pub fn len(&self) -> usize {
        self.streams.all().len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of all streams.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.streams.all().iter().map(|stream| stream.stats().bytes).sum()
    }

    /// Bytes that the disk has left for the broker.
    ///
    /// # Errors
    /// What the system says.
    pub fn free_bytes(&self) -> io::Result<u64> {
        self.vfs.free_bytes(&self.data_dir)
    }

    /// Bytes of the disk that are kept for what must go on when it is full.
    #[must_use]
    pub const fn reserve_bytes(&self) -> u64 {
        self.config.reserve_bytes
    }

    /// Writes what waits, signs the last checkpoints, and ends the threads. Blocks.
    pub fn close(&self) {
        self.keep_all_producers();
        self.follow_with_index();
        self.streams.shutdown();
        self.system.close();
    }
}

impl fmt::Debug for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Storage")
            .field("streams", &self.len())
            .field("unopened", &lock(&self.unopened).keys())
            .finish_non_exhaustive()
    }
}
