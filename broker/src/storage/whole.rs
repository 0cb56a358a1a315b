//! All that a broker keeps, opened and closed together.
//!
//! ```text
//!   data_dir/streams/<id>/   the policy's streams, and dead letters, each a log with its tree
//!            system/         $policy, $keys, $cursors, $producers
//!            index/          what can be made again from the logs
//! ```
//!
//! The order matters: a policy is durable before its streams are opened under it, a key before the first batch that it
//! signs, a snapshot of producers before their batches are trimmed.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, RwLock};

use bytes::Bytes;
use sealbus_protocol::identity::Principal;
use sealbus_protocol::ids::{BusId, Kid, PolicyHash, StreamId};
use sealbus_protocol::policy::{self, Name, Policy};
use sealbus_protocol::tlog::{LogKey, stream_origin};

use super::index::LogEnd;
use super::indexing::Indexing;
use super::log::random_salt;
use super::log_key::{self, LogKeyError};
use super::page::Source;
use super::stream::store::{CommitObserver, StreamStore};
use super::stream::{
    Level, OpenError, Opened, RecoveredProducer, Retention, Stream, StreamOptions, Streams, StreamsParts,
};
use super::system::keys::{KEY_FRAME, KeyDirectory, StoredKey, encode_key};
use super::system::policies::{POLICY_FRAME, decode_policy, encode_policy};
use super::system::producers::{PRODUCERS_FRAME, Snapshots, decode_producers, encode_producers};
use super::system::{
    ConsumerKey, KeptConsumer, RecoveredSystem, SystemError, SystemFrame, SystemLog, SystemLogs,
    SystemOpenError, dead_letters_id, dead_letters_name,
};
use crate::clock::Clock;
use crate::config::StorageConfig;
use crate::locks::{lock, read, write};
use crate::vfs::Vfs;

/// Bytes of a segment of dead letters, which are few.
const DEAD_SEGMENT_BYTES: u64 = 4 * 1_024 * 1_024;

/// Bytes of dead letters that stay in memory.
const DEAD_TAIL_BYTES: usize = 256 * 1_024;

/// Keys that the index is told of at a time when it has to learn all of them.
const KEYS_AT_ONCE: usize = 1_024;

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
    vfs: Arc<dyn Vfs>,
    clock: Arc<dyn Clock>,
    bus_id: BusId,
    data_dir: PathBuf,
    config: StorageConfig,
    log_key: Option<LogKey>,
    streams: Streams,
    system: Arc<SystemLogs>,
    keys: Arc<KeyDirectory>,
    names: RwLock<HashMap<StreamId, String>>,
    snapshots: Mutex<Snapshots>,
    indexing: Indexing,
    /// Keys that the index has not been told of yet.
    keys_noted: Arc<Mutex<Vec<StoredKey>>>,
    /// Segments of each stream when its producers were last kept.
    kept: Mutex<HashMap<StreamId, u32>>,
}

/// What opening found.
pub struct Recovered {
    /// Where the durable consumers stood.
    pub consumers: Vec<KeptConsumer>,
    /// What is worth telling of the broker's own logs.
    pub remarks: Vec<String>,
    /// Why the index was made anew, when it was.
    pub index_remarks: Vec<String>,
}

/// A stream that was opened.
pub struct OpenedStream {
    /// Its id.
    pub id: StreamId,
    /// Its name.
    pub name: String,
    /// Whether it was made just now.
    pub is_new: bool,
    /// The producers that it knows, each with its principal.
    pub producers: Vec<(Principal, RecoveredProducer)>,
    /// What was found.
    pub opened: Opened,
    /// Why the index was not believed, when it was not.
    pub index_remark: Option<String>,
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
        let mut remarks: Vec<String> = cursors.refused.iter().map(ToString::to_string).collect();
        remarks.extend(cursors.recovery.damage.iter().map(|damage| format!("$cursors: {damage:?}")));
        for (name, recovery) in
            [("$policy", &recovered.policy), ("$keys", &recovered.keys), ("$producers", &recovered.producers)]
        {
            remarks.extend(recovery.damage.iter().map(|damage| format!("{name}: {damage:?}")));
        }
        let streams_dir = data_dir.join("streams");
        let streams = Streams::start(StreamsParts {
            vfs: Arc::clone(&vfs),
            clock: Arc::clone(&clock),
            observer,
            dir: streams_dir.clone(),
            threads: config.writers,
        })
        .map_err(|error| StorageError::Dir(streams_dir, error))?;
        let mut snapshots = Snapshots::default();
        system
            .reader(SystemLog::Producers)
            .scan(0, &mut |frame| {
                if frame.kind == PRODUCERS_FRAME {
                    match decode_producers(frame.payload) {
                        Ok(part) => snapshots.take_in(part),
                        Err(error) => remarks.push(format!("$producers, record {}: {error}", frame.record)),
                    }
                }
                std::ops::ControlFlow::Continue(())
            })
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
            indexing,
            keys_noted: Arc::default(),
            kept: Mutex::default(),
        };
        storage.follow_keys();
        let index_remarks = index_remark.into_iter().collect();
        Ok((storage, Recovered { consumers: cursors.consumers, remarks, index_remarks }))
    }

    /// Opens the streams of a policy that are not open yet, so that it can come into force. Blocks. What it opened
    /// stays open when the policy does not come into force after all: nothing is published to it.
    ///
    /// # Errors
    /// [`StorageError`] names the stream.
    pub fn follow(&self, policy: &Policy) -> Result<Vec<OpenedStream>, StorageError> {
        if self.log_key.is_none() && !policy.streams().is_empty() {
            return Err(StorageError::NoLogKey);
        }
        let mut opened = Vec::new();
        for stream in policy.streams() {
            write(&self.names).insert(stream.id(), stream.name().to_string());
            if self.streams.find(stream.id()).is_none() {
                opened.push(self.open_stream(stream)?);
            }
        }
        Ok(opened)
    }

    /// A policy is in force: its retention and durability count from now on. Blocks.
    pub fn configure(&self, policy: &Policy) {
        for stream in policy.streams() {
            if let Some(open) = self.streams.find(stream.id()) {
                open.configure(retention_of(stream), level_of(stream));
            }
        }
    }

    fn open_stream(&self, stream: &policy::Stream) -> Result<OpenedStream, StorageError> {
        let (id, name) = (stream.id(), stream.name().to_string());
        let mut options = StreamOptions::new(self.bus_id, id, &name, random_salt);
        options.retention = retention_of(stream);
        options.level = level_of(stream);
        options.segment_bytes = self.config.segment_bytes;
        options.interval_ms = self.config.interval_ms;
        options.reserve_bytes = self.config.reserve_bytes;
        options.signer = self.log_key.as_ref().map(|key| key.signer(stream_origin(&self.bus_id, &id)));
        let snapshot = lock(&self.snapshots).take(id);
        let fail = |error: String| StorageError::Stream(name.clone(), error);
        let open = |snapshot| {
            let opened = self.streams.open(options.clone(), Some(snapshot));
            opened.map_err(|error: OpenError| fail(error.to_string()))
        };
        // The index may have followed further than the last snapshot goes.
        let indexed = self.indexing.producers(id).filter(|(_, indexed)| indexed.record > snapshot.record);
        let ((open, opened), index_remark) = match indexed {
            None => (open(snapshot)?, None),
            Some((watermark, indexed)) => {
                let first = open(indexed)?;
                let stats = first.0.stats();
                let end = LogEnd { record: stats.records, offset: stats.bounds.end };
                match self.indexing.judge(id, &watermark, end, |record| first.0.digest_of(record)) {
                    None => (first, None),
                    Some(remark) => {
                        self.streams.close(id);
                        (open(snapshot)?, Some(remark))
                    }
                }
            }
        };
        let known = open.producers().map_err(|error| fail(error.to_string()))?;
        let producers = known
            .producers
            .into_iter()
            .filter_map(|producer| {
                // One whose key is lost cannot be told from anybody else, and begins a new incarnation.
                let key = self.keys.load(producer.key_record).ok()?;
                Some((key.principal.clone(), producer))
            })
            .collect();
        let bounds = open.bounds();
        Ok(OpenedStream { id, name, is_new: bounds.end == 0, producers, opened, index_remark })
    }

    /// Keeps a policy, and says when it is durable. One that is the newest there already is not kept again.
    pub fn record_policy(
        &self,
        version: u64,
        hash: PolicyHash,
        document: &[u8],
        done: impl FnOnce(Result<(), SystemError>) + Send + 'static,
    ) {
        if self.newest_policy() == Some(hash) {
            return done(Ok(()));
        }
        let at_ms = self.clock.now_ms();
        let frames = encode_policy(version, hash, at_ms, document)
            .into_iter()
            .map(|payload| SystemFrame { kind: POLICY_FRAME, flags: 0, payload })
            .collect();
        self.system.append(SystemLog::Policy, frames, Box::new(move |kept| done(kept.map(drop))));
    }

    fn newest_policy(&self) -> Option<PolicyHash> {
        let reader = self.system.reader(SystemLog::Policy);
        let last = reader.offset_of_last(1);
        let page = reader.read(last, 1).ok()?;
        let frame = page.frames.last().filter(|frame| frame.kind == POLICY_FRAME)?;
        decode_policy(&frame.payload).ok().filter(|part| part.part + 1 == part.parts).map(|part| part.hash)
    }

    /// An open stream.
    #[must_use]
    pub fn stream(&self, id: StreamId) -> Option<Arc<dyn StreamStore>> {
        self.streams.find(id).map(|stream| stream as Arc<dyn StreamStore>)
    }

    /// An open stream, for reading.
    #[must_use]
    pub fn source(&self, id: StreamId) -> Option<Source> {
        Some(Source::new(self.stream(id)?, Arc::clone(&self.keys)))
    }

    /// The dead letters of a consumer, for reading: those that were opened, which a consumer's are when it has any.
    #[must_use]
    pub fn dead_letters(&self, stream: StreamId, consumer: &Name) -> Option<Source> {
        let key = ConsumerKey { stream, name: consumer.clone() };
        self.source(dead_letters_id(&key))
    }

    /// The stream of a consumer's dead letters, made when it is not there. Blocks.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn open_dead_letters(&self, key: &ConsumerKey) -> Result<Arc<dyn StreamStore>, StorageError> {
        let id = dead_letters_id(key);
        if let Some(open) = self.stream(id) {
            return Ok(open);
        }
        let name = dead_letters_name(&self.name_of(key.stream), key.name.as_str());
        let mut options = StreamOptions::new(self.bus_id, id, &name, random_salt);
        options.segment_bytes = DEAD_SEGMENT_BYTES;
        options.tail_bytes = DEAD_TAIL_BYTES;
        options.reserve_bytes = self.config.reserve_bytes;
        let opened = self.streams.open(options, None);
        let (open, _) = opened.map_err(|error| StorageError::Stream(name.clone(), error.to_string()))?;
        write(&self.names).insert(id, name);
        Ok(open as Arc<dyn StreamStore>)
    }

    /// Opens the dead letters of these consumers that have any. Blocks.
    pub fn open_known_dead_letters(&self, keys: impl IntoIterator<Item = ConsumerKey>) {
        for key in keys {
            let dir = self.data_dir.join("streams").join(dead_letters_id(&key).to_string());
            if self.vfs.list(&dir).is_ok_and(|names| !names.is_empty())
                && let Err(error) = self.open_dead_letters(&key)
            {
                tracing::error!({ crate::telemetry::ERROR } = %error, "dead letters cannot be opened");
            }
        }
    }

    /// What a stream is called.
    #[must_use]
    pub fn name_of(&self, id: StreamId) -> String {
        read(&self.names).get(&id).cloned().unwrap_or_else(|| id.to_string())
    }

    /// The record of `$keys` that holds this binding, when that is known without looking.
    #[must_use]
    pub fn known_key(&self, binding: &[u8]) -> Option<u64> {
        self.keys.known(binding)
    }

    /// Writes a binding to `$keys`, and says when it is durable.
    pub fn record_key(
        &self,
        kid: Kid,
        principal: &Principal,
        binding: Bytes,
        done: impl FnOnce(Result<u64, String>) + Send + 'static,
    ) {
        let frame = SystemFrame { kind: KEY_FRAME, flags: 0, payload: encode_key(&kid, principal, &binding) };
        let (keys, principal) = (Arc::clone(&self.keys), principal.clone());
        let to_index = Arc::clone(&self.keys_noted);
        let noted = move |kept: Result<std::ops::Range<u64>, SystemError>| {
            done(match kept {
                Ok(records) => {
                    let record = records.start;
                    let key = StoredKey { record, kid, principal, bytes: binding };
                    lock(&to_index).push(key.clone());
                    keys.note(key);
                    Ok(record)
                }
                Err(error) => Err(error.to_string()),
            });
        };
        self.system.append(SystemLog::Keys, vec![frame], Box::new(noted));
    }

    /// The broker's own logs, for whoever writes to `$cursors`.
    #[must_use]
    pub fn system(&self) -> &Arc<SystemLogs> {
        &self.system
    }

    /// The newest binding of a key that ever published to a stream. Blocks.
    #[must_use]
    pub fn find_key(&self, kid: &Kid) -> Option<Arc<StoredKey>> {
        let noted = lock(&self.keys_noted).iter().rev().find(|key| key.kid == *kid).map(|key| key.record);
        let record = noted.or_else(|| self.indexing.key_record(SystemLog::Keys.log_id(), kid))?;
        self.keys.load(record).ok()
    }

    /// Has the index follow what has been kept since it was last asked to. Blocks.
    pub fn follow_with_index(&self) {
        for stream in self.streams.all() {
            let Ok(snapshot) = stream.producers() else { continue };
            if let Ok(Some((end_offset, digest))) = stream.place_of(snapshot.record) {
                self.indexing.follow(stream.id(), end_offset, digest, &snapshot);
            }
        }
        let mut noted = lock(&self.keys_noted);
        noted.sort_by_key(|key| key.record);
        self.indexing.note_keys(&noted);
        noted.clear();
        drop(noted);
        self.indexing.flush();
    }

    /// Tells the index of the keys that it does not know.
    fn follow_keys(&self) {
        let reader = self.system.reader(SystemLog::Keys);
        let end = LogEnd { record: reader.end_record(), offset: reader.end_offset() };
        let from = self.indexing.keys_from(end, |record| self.keys.load(record).ok());
        let mut unknown = Vec::new();
        for record in from..end.record {
            unknown.extend(self.keys.load(record).ok().map(Arc::unwrap_or_clone));
            if unknown.len() >= KEYS_AT_ONCE {
                self.indexing.note_keys(&unknown);
                unknown.clear();
            }
        }
        self.indexing.note_keys(&unknown);
    }

    /// Keeps the producers of each stream that has begun another segment since they were kept. Blocks.
    pub fn keep_producers(&self) {
        for stream in self.streams.all() {
            let segments = stream.stats().segments;
            if lock(&self.kept).get(&stream.id()) != Some(&segments) {
                self.keep_producers_of(&stream);
                lock(&self.kept).insert(stream.id(), segments);
            }
        }
    }

    fn keep_producers_of(&self, stream: &Stream) {
        let Ok(snapshot) = stream.producers() else { return };
        let frames = encode_producers(stream.id(), &snapshot)
            .into_iter()
            .map(|payload| SystemFrame { kind: PRODUCERS_FRAME, flags: 0, payload })
            .collect();
        let id = stream.id();
        let done = move |kept: Result<std::ops::Range<u64>, SystemError>| {
            if let Err(error) = kept {
                tracing::error!({ crate::telemetry::ERROR } = %error, { crate::telemetry::STREAM } = %id, "producers were not kept");
            }
        };
        self.system.append(SystemLog::Producers, frames, Box::new(done));
    }

    /// Where the slowest durable consumer of a stream stands, which its retention is patient with.
    pub fn set_hold(&self, id: StreamId, offset: Option<u64>) {
        if let Some(stream) = self.streams.find(id) {
            stream.set_hold(offset);
        }
    }

    /// The open streams, dead letters among them.
    #[must_use]
    pub fn ids(&self) -> Vec<StreamId> {
        self.streams.all().iter().map(|stream| stream.id()).collect()
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
        for stream in self.streams.all() {
            self.keep_producers_of(&stream);
        }
        self.follow_with_index();
        self.streams.shutdown();
        self.system.close();
    }
}

fn retention_of(stream: &policy::Stream) -> Retention {
    let policy::Retention { age_ms, bytes, messages } = stream.retention();
    Retention { age_ms, bytes, messages }
}

fn level_of(stream: &policy::Stream) -> Level {
    match stream.durability() {
        policy::Durability::Fsync => Level::Fsync,
        policy::Durability::Interval => Level::Interval,
        policy::Durability::Memory => Level::Memory,
    }
}

impl fmt::Debug for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Storage").field("streams", &self.len()).finish_non_exhaustive()
    }
}

/// Why something that is kept cannot be opened.
#[derive(Debug)]
pub enum StorageError {
    /// A directory cannot be made, or its threads not be started.
    Dir(PathBuf, io::Error),
    /// The policy has streams, and no key is configured that signs their checkpoints.
    NoLogKey,
    /// The key cannot be had.
    LogKey(LogKeyError),
    /// One of the broker's own logs cannot be opened.
    System(SystemOpenError),
    /// One of the broker's own logs cannot be read.
    Read(&'static str, String),
    /// Something was not kept.
    NotKept(&'static str, String),
    /// A stream cannot be opened.
    Stream(String, String),
}

impl fmt::Display for StorageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dir(path, error) => write!(f, "{}: {error}", path.display()),
            Self::NoLogKey => f.write_str(
                "the policy has streams, and [storage] log_key names no key to sign their checkpoints with",
            ),
            Self::LogKey(error) => error.fmt(f),
            Self::System(error) => error.fmt(f),
            Self::Read(log, error) => write!(f, "{log} cannot be read: {error}"),
            Self::NotKept(log, error) => write!(f, "{log}: {error}"),
            Self::Stream(name, error) => write!(f, "stream {name}: {error}"),
        }
    }
}

impl std::error::Error for StorageError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Dir(_, error) => Some(error),
            Self::LogKey(error) => Some(error),
            Self::System(error) => Some(error),
            Self::NoLogKey | Self::Read(..) | Self::NotKept(..) | Self::Stream(..) => None,
        }
    }
}

/// Where the files of a stream are, below the broker's directory.
#[must_use]
pub fn stream_dir(data_dir: &Path, id: StreamId) -> PathBuf {
    data_dir.join("streams").join(id.to_string())
}
