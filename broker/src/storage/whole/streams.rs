//! The streams of the policy, and those of dead letters: opened as they are wanted, each once.

use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use sealbus_protocol::identity::Principal;
use sealbus_protocol::ids::StreamId;
use sealbus_protocol::policy::{self, Name, Policy};
use sealbus_protocol::tlog::stream_origin;

use super::error::StorageError;
use super::storage::Storage;
use crate::locks::{lock, read, write};
use crate::storage::index::LogEnd;
use crate::storage::log::random_salt;
use crate::storage::page::Source;
use crate::storage::stream::store::{Bounds, StreamEvent, StreamStore};
use crate::storage::stream::{
    Level, OpenError, Opened, ProducerSnapshot, RecoveredProducer, Retention, Snapshots, Stream,
    StreamOptions,
};
use crate::storage::system::keys::KeyError;
use crate::storage::system::{ConsumerKey, dead_letters_id, dead_letters_name};

/// Bytes of a segment of dead letters, which are few.
const DEAD_SEGMENT_BYTES: u64 = 4 * 1_024 * 1_024;

/// Bytes of dead letters that stay in memory.
const DEAD_TAIL_BYTES: usize = 256 * 1_024;

/// Streams that are opened at a time. They wait for the disk rather than for a processor.
const OPENERS: usize = 16;

/// A stream that was opened.
pub struct OpenedStream {
    /// Its id.
    pub id: StreamId,
    /// Its name.
    pub name: String,
    /// What can be read of it.
    pub bounds: Bounds,
    /// The producers that it knows, each with its principal.
    pub producers: Vec<(Principal, RecoveredProducer)>,
    /// What was found.
    pub opened: Opened,
    /// Why the index was not believed, when it was not.
    pub index_remark: Option<String>,
}

/// What becomes of a stream that cannot be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unopened {
    /// The policy does not come into force: there is one that works.
    RefusesPolicy,
    /// It stays shut, and the others are opened: a broker that starts has no other policy to go by.
    StaysShut,
}

impl Storage {
    /// Opens the streams of a policy that are not open yet, so that it can come into force. Blocks. Nobody finds what it
    /// opened before [`Storage::admit`]: whoever published to a stream before the bus knows its producers could publish
    /// once more what is in it. When the policy is refused, or does not come into force after all, what was opened for
    /// it is closed, at the latest by the next call.
    ///
    /// A stream that stays shut is refused to everybody, and is a finding. It is tried again with the next policy, and
    /// does not stand in the way of that.
    ///
    /// # Errors
    /// [`StorageError`] names the stream. Nothing was opened then.
    pub fn follow(&self, policy: &Policy, otherwise: Unopened) -> Result<Vec<OpenedStream>, StorageError> {
        if self.log_key.is_none() && !policy.streams().is_empty() {
            return Err(StorageError::NoLogKey);
        }
        {
            let mut names = write(&self.names);
            names.extend(policy.streams().iter().map(|stream| (stream.id(), stream.name().to_string())));
        }
        self.close_withheld();
        let mut shut = policy.streams().iter().collect::<Vec<_>>();
        shut.retain(|stream| self.streams.find(stream.id()).is_none());
        lock(&self.withheld).extend(shut.iter().map(|stream| stream.id()));
        let (mut opened, mut failed) = (Vec::new(), Vec::new());
        for (stream, outcome) in shut.iter().zip(self.open_together(&shut)) {
            match outcome {
                Ok(stream) => opened.push(stream),
                Err(error) => failed.push((*stream, error)),
            }
        }
        let refuses = |stream: &policy::Stream| {
            otherwise == Unopened::RefusesPolicy && !lock(&self.unopened).contains_key(&stream.id())
        };
        if let Some(at) = failed.iter().position(|(stream, _)| refuses(stream)) {
            opened.into_iter().for_each(|stream| self.findings.add_given_up(stream));
            self.close_withheld();
            return Err(failed.swap_remove(at).1);
        }
        for (stream, error) in failed {
            let reason: Arc<str> = format!("it cannot be opened: {error}").into();
            lock(&self.withheld).remove(&stream.id());
            lock(&self.unopened).insert(stream.id(), Arc::clone(&reason));
            self.findings.add(stream.id(), stream.name().as_str(), StreamEvent::Stopped(reason));
        }
        Ok(opened)
    }

    /// The policy with these streams comes into force, and the bus has taken up their producers: from now on they are
    /// found.
    pub fn admit(&self, ids: impl IntoIterator<Item = StreamId>) {
        for id in ids {
            // From now on the stream knows better.
            drop(lock(&self.snapshots).take(id));
            lock(&self.unopened).remove(&id);
            lock(&self.withheld).remove(&id);
        }
    }

    /// Why a stream of the policy in force is not open; none when it is.
    #[must_use]
    pub fn why_shut(&self, id: StreamId) -> Option<Arc<str>> {
        lock(&self.unopened).get(&id).cloned()
    }

    /// Closes what was opened for a policy that did not come into force. The next opening brings their producers again.
    fn close_withheld(&self) {
        let withheld: Vec<StreamId> = lock(&self.withheld).iter().copied().collect();
        for id in withheld {
            self.streams.close(id);
            lock(&self.withheld).remove(&id);
        }
    }

    /// Opens streams, several at a time: each waits for the disk a few times, and a thousand would do it one after the
    /// other for half a minute. The outcomes are in their order.
    fn open_together(&self, streams: &[&policy::Stream]) -> Vec<Result<OpenedStream, StorageError>> {
        let share = streams.len().div_ceil(OPENERS).max(1);
        let open = |share: &[&policy::Stream]| -> Vec<_> {
            share.iter().map(|stream| self.open_stream(stream)).collect()
        };
        thread::scope(|scope| {
            let openers: Vec<_> =
                streams.chunks(share).map(|share| scope.spawn(move || open(share))).collect();
            let joined =
                openers.into_iter().map(|opener| opener.join().unwrap_or_else(|panic| resume_unwind(panic)));
            joined.flatten().collect()
        })
    }

    /// A policy is in force: its retention and durability count from now on. Blocks.
    pub fn configure(&self, policy: &Policy) {
        for stream in policy.streams() {
            if let Some(open) = self.streams.find(stream.id()) {
                open.configure(retention_of(stream), Level::asked(stream.durability()));
            }
        }
    }

    fn open_stream(&self, stream: &policy::Stream) -> Result<OpenedStream, StorageError> {
        let (id, name) = (stream.id(), stream.name().to_string());
        let mut options = StreamOptions::new(self.bus_id, id, &name, random_salt);
        options.retention = retention_of(stream);
        options.level = Level::asked(stream.durability());
        options.segment_bytes = self.config.segment_bytes;
        options.interval_ms = self.config.interval_ms;
        options.reserve_bytes = self.config.reserve_bytes;
        options.signer = self.log_key.as_ref().map(|key| key.signer(stream_origin(&self.bus_id, &id)));
        options.snapshots = Snapshots::Kept;
        let fail = |error: String| StorageError::Stream(name.clone(), error);
        let (open, opened, index_remark) = self.open_with_producers(id, &options).map_err(fail)?;
        // The index is not what trimming may rely on: it promises nothing.
        open.set_snapshot_record(lock(&self.ledger).record(id));
        let bounds = open.bounds();
        let known = open.producers().map_err(|error| error.to_string());
        let known = known.and_then(|known| self.with_principals(known).map_err(|error| error.to_string()));
        let opened =
            OpenedStream { id, name: name.clone(), bounds, producers: Vec::new(), opened, index_remark };
        match known {
            Ok(producers) => Ok(OpenedStream { producers, ..opened }),
            Err(error) => {
                self.findings.add_given_up(opened);
                self.streams.close(id);
                Err(fail(error))
            }
        }
    }

    /// Producers with whose they are. One whose key is lost cannot be told from anybody else, and begins a new
    /// incarnation. One whose key cannot be read just now must not: it would be taken for somebody who never published.
    fn with_principals(
        &self,
        known: ProducerSnapshot,
    ) -> Result<Vec<(Principal, RecoveredProducer)>, KeyError> {
        let mut producers = Vec::with_capacity(known.producers.len());
        for producer in known.producers {
            match self.keys.load(producer.key_record) {
                Ok(key) => producers.push((key.principal.clone(), producer)),
                Err(KeyError::Missing { .. } | KeyError::Malformed { .. }) => {}
                Err(error @ KeyError::Read { .. }) => return Err(error),
            }
        }
        Ok(producers)
    }

    /// Opens a stream with what the index knows of its producers, if that goes further than the newest snapshot and can
    /// be believed; otherwise with the snapshot.
    fn open_with_producers(
        &self,
        id: StreamId,
        options: &StreamOptions,
    ) -> Result<(Arc<Stream>, Opened, Option<String>), String> {
        let snapshot = lock(&self.snapshots).find(id).cloned().unwrap_or_default();
        let open = |snapshot: ProducerSnapshot| {
            let opened = self.streams.open(options.clone(), Some(snapshot));
            opened.map_err(|error: OpenError| error.to_string())
        };
        let indexed = self.indexing.producers(id).filter(|(_, indexed)| indexed.record > snapshot.record);
        let Some((watermark, indexed)) = indexed else {
            let (open, opened) = open(snapshot)?;
            return Ok((open, opened, None));
        };
        let (first, found) = open(indexed)?;
        let stats = first.stats();
        let end = LogEnd { record: stats.records, offset: stats.bounds.end };
        match self.indexing.judge(id, &watermark, end, |record| first.digest_of(record)) {
            None => Ok((first, found, None)),
            Some(remark) => {
                self.streams.close(id);
                let (second, again) = open(snapshot)?;
                Ok((second, found.and_then(again), Some(remark)))
            }
        }
    }

    /// An open stream that was admitted.
    #[must_use]
    pub fn stream(&self, id: StreamId) -> Option<Arc<dyn StreamStore>> {
        let withheld = lock(&self.withheld);
        self.streams.find(id).filter(|_| !withheld.contains(&id)).map(|stream| stream as Arc<dyn StreamStore>)
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
        let (open, opened) = opened.map_err(|error| StorageError::Stream(name.clone(), error.to_string()))?;
        self.findings.add_opened(id, &name, opened);
        write(&self.names).insert(id, name);
        Ok(open as Arc<dyn StreamStore>)
    }

    /// Opens the dead letters of these consumers that have any. Blocks.
    pub fn open_known_dead_letters(&self, keys: impl IntoIterator<Item = ConsumerKey>) {
        for key in keys {
            let id = dead_letters_id(&key);
            if self.vfs.list(&stream_dir(&self.data_dir, id)).is_ok_and(|names| !names.is_empty())
                && let Err(error) = self.open_dead_letters(&key)
            {
                let name = dead_letters_name(&self.name_of(key.stream), key.name.as_str());
                let reason = format!("it cannot be opened: {error}");
                self.findings.add(id, &name, StreamEvent::Stopped(reason.into()));
            }
        }
    }

    /// What a stream is called.
    #[must_use]
    pub fn name_of(&self, id: StreamId) -> String {
        read(&self.names).get(&id).cloned().unwrap_or_else(|| id.to_string())
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

    /// The open streams of the policy: those that have producers.
    pub(super) fn captured(&self) -> Vec<Arc<Stream>> {
        let mut all = self.streams.all();
        all.retain(|stream| stream.snapshots() == Snapshots::Kept);
        all
    }
}

impl Opened {
    /// What this opening found and another one right after it: each thing once.
    fn and_then(mut self, again: Self) -> Self {
        let new: Vec<StreamEvent> =
            again.events.into_iter().filter(|event| !self.events.contains(event)).collect();
        self.events.extend(new);
        let (cut, stopped) = (self.cut.or(again.cut), again.stopped.or(self.stopped));
        Self { events: self.events, cut, stopped, edge: again.edge }
    }
}

fn retention_of(stream: &policy::Stream) -> Retention {
    let policy::Retention { age_ms, bytes, messages } = stream.retention();
    Retention { age_ms, bytes, messages }
}

/// Where the files of a stream are, below the broker's directory.
#[must_use]
pub fn stream_dir(data_dir: &Path, id: StreamId) -> PathBuf {
    data_dir.join("streams").join(id.to_string())
}
