//! The suite, on the segmented store over two file systems and on a store that is nothing like it.

use std::path::PathBuf;
use std::sync::Arc;

use sealbus_protocol::ids::StreamId;
use sealbus_protocol::tlog::{LogKey, NoteSigner, VerifierKey, stream_origin};
use tempfile::TempDir;

use super::memory::MemoryEngine;
use crate::clock::SystemClock;
use crate::storage::log::random_salt;
use crate::storage::stream::conformance::{BUS, Engine, run};
use crate::storage::stream::store::{CommitObserver, Stored, StreamEvent, StreamStore};
use crate::storage::stream::{Level, StreamOptions, Streams, StreamsParts};
use crate::vfs::{FaultyVfs, Operation, OsVfs, SimVfs, Vfs};

pub(super) const STREAM: StreamId = StreamId::new([0x57; 16]);

pub(super) fn signer() -> NoteSigner {
    LogKey::from_seed(&[9; 32].into()).signer(stream_origin(&BUS, &STREAM))
}

/// A stream with small segments.
pub(super) fn options() -> StreamOptions {
    StreamOptions {
        signer: Some(signer()),
        segment_bytes: 16 * 1_024,
        reserve_bytes: 1_024 * 1_024,
        ..StreamOptions::new(BUS, STREAM, "orders", random_salt)
    }
}

/// Nobody.
pub(super) struct Unobserved;

impl CommitObserver for Unobserved {
    fn committed(&self, _: StreamId, _: &[(Arc<Stored>, Arc<dyn std::any::Any + Send + Sync>)]) {}
    fn event(&self, _: StreamId, _: &StreamEvent) {}
}

/// The disk's ways to fail, on either file system.
trait Disk: Vfs + Clone {
    fn fill(&self);
    fn empty(&self);
    fn break_next_sync(&self);
    fn repair(&self);
}

const EIO: i32 = 5;
const ENOSPC: i32 = 28;

impl Disk for FaultyVfs {
    fn fill(&self) {
        self.fail_from(Operation::Write, 1, ENOSPC);
        self.set_free_bytes(0);
    }
    fn empty(&self) {
        self.heal();
        self.set_free_bytes(u64::MAX);
    }
    fn break_next_sync(&self) {
        self.fail_nth(Operation::Sync, 1, EIO);
    }
    fn repair(&self) {
        self.heal();
    }
}

impl Disk for SimVfs {
    fn fill(&self) {
        let used: u64 = self.files().iter().map(|path| self.read(path, u64::MAX).unwrap().len() as u64).sum();
        self.set_capacity(Some(used));
    }
    fn empty(&self) {
        self.set_capacity(None);
    }
    fn break_next_sync(&self) {
        self.fail_nth(Operation::Sync, 1, EIO);
    }
    fn repair(&self) {
        self.heal();
    }
}

struct Segmented<D> {
    disk: D,
    dir: PathBuf,
    level: Level,
    streams: Option<Streams>,
    /// Held for as long as its files are used.
    _home: Option<TempDir>,
}

impl<D: Disk> Engine for Segmented<D> {
    fn stream_id(&self) -> StreamId {
        STREAM
    }

    fn verifier(&self) -> VerifierKey {
        signer().verifier()
    }

    fn open(&mut self) -> Arc<dyn StreamStore> {
        let parts = StreamsParts {
            vfs: Arc::new(self.disk.clone()),
            clock: Arc::new(SystemClock::new()),
            observer: Arc::new(Unobserved),
            dir: self.dir.clone(),
            threads: 1,
        };
        let streams = self.streams.insert(Streams::start(parts).unwrap());
        let options = StreamOptions { level: self.level, interval_ms: 20, ..options() };
        let (stream, opened) = streams.open(options, None).unwrap();
        assert_eq!((opened.events, opened.stopped), (Vec::new(), None));
        stream
    }

    fn close(&mut self) {
        drop(self.streams.take());
        self.disk.repair();
    }

    fn fill_disk(&mut self) {
        self.disk.fill();
    }

    fn empty_disk(&mut self) {
        self.disk.empty();
    }

    fn break_disk(&mut self) {
        self.disk.break_next_sync();
    }
}

fn on_files() -> Segmented<FaultyVfs> {
    let home = tempfile::tempdir().unwrap();
    let disk = FaultyVfs::new(OsVfs, []);
    disk.set_free_bytes(u64::MAX);
    Segmented {
        disk,
        dir: home.path().join("streams"),
        level: Level::Fsync,
        streams: None,
        _home: Some(home),
    }
}

fn simulated() -> Segmented<SimVfs> {
    let disk = SimVfs::new();
    Segmented { disk, dir: "/data/streams".into(), level: Level::Fsync, streams: None, _home: None }
}

#[test]
fn the_segmented_store_on_files_is_a_store() {
    run(on_files);
}

#[test]
fn the_segmented_store_on_a_simulated_disk_is_a_store() {
    run(simulated);
}

#[test]
fn a_store_in_memory_is_a_store() {
    run(MemoryEngine::new);
}
