//! Streams with their threads, as the broker has them, and somebody who publishes to one and remembers what was
//! acknowledged: on a disk that fills up, fails or turns read-only.

use std::any::Any;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use sealbus_broker::clock::SystemClock;
use sealbus_broker::storage::log::random_salt;
use sealbus_broker::storage::stream::conformance::{Author, BUS, Bell};
use sealbus_broker::storage::stream::store::{
    AppendError, CommitObserver, Fate, Stored, StreamEvent, StreamState, StreamStore, Waiter,
};
use sealbus_broker::storage::stream::{Opened, Stream, StreamOptions, Streams, StreamsParts};
use sealbus_broker::vfs::Vfs;
use sealbus_protocol::ids::StreamId;
use sealbus_protocol::tlog::{LogKey, stream_origin};

use super::random::Random;

/// Bytes of a segment: small enough that a small disk holds many.
const SEGMENT_BYTES: u64 = 1_024 * 1_024;

/// Bytes of a reader's page.
const PAGE_BYTES: usize = 1_024 * 1_024;

/// A publisher is refused within this time when the disk is full, or fails.
pub const REFUSED_WITHIN: Duration = Duration::from_secs(1);

/// A stream goes on within this time when there is room.
pub const RESUMED_WITHIN: Duration = Duration::from_secs(5);

/// What streams say of themselves.
#[derive(Default)]
pub struct Events(Mutex<Vec<(StreamId, StreamEvent)>>);

impl Events {
    /// So far.
    #[must_use]
    pub fn all(&self) -> Vec<(StreamId, StreamEvent)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether there is one like this.
    #[must_use]
    pub fn has(&self, is_it: impl Fn(&StreamEvent) -> bool) -> bool {
        self.all().iter().any(|(_, event)| is_it(event))
    }
}

impl CommitObserver for Events {
    fn committed(&self, _: StreamId, _: &[(Arc<Stored>, Arc<dyn Any + Send + Sync>)]) {}

    fn event(&self, stream: StreamId, event: &StreamEvent) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((stream, event.clone()));
    }
}

/// What a publisher knows: survives the broker.
pub struct Publisher {
    author: Author,
    stream_id: StreamId,
    /// Offset, messages and bytes of each acknowledged batch.
    acknowledged: Vec<(u64, u32, Bytes)>,
    /// Signed, and not acknowledged.
    open: Option<(u32, Bytes)>,
    random: Random,
}

impl Publisher {
    /// One for each number, on a stream of its own.
    #[must_use]
    pub fn new(number: u8) -> Self {
        let stream_id = StreamId::new([number; 16]);
        let author = Author::new(number, "orders/eu", stream_id);
        let random = Random::new(number.into());
        Self { author, stream_id, acknowledged: Vec::new(), open: None, random }
    }

    /// Batches that were acknowledged.
    #[must_use]
    pub const fn acknowledged(&self) -> usize {
        self.acknowledged.len()
    }

    /// Publishes the batch that was not acknowledged last, or another one, and waits for what becomes of it.
    ///
    /// # Errors
    /// Why it was not taken, or what became of it.
    pub fn publish(&mut self, stream: &Stream, bytes: usize) -> Result<(), Refusal> {
        let (messages, batch) = self.open.take().unwrap_or_else(|| {
            let messages = self.random.between(1, 8) as u32;
            (messages, self.author.sign(messages, bytes / messages as usize))
        });
        match self.author.publish_bytes(stream, batch.clone()) {
            Ok((ticket, Fate::Kept)) => {
                self.acknowledged.push((ticket.offset(), messages, batch));
                Ok(())
            }
            Ok((_, fate)) => {
                self.open = Some((messages, batch));
                Err(Refusal::Fate(fate))
            }
            Err(error) => {
                self.open = Some((messages, batch));
                Err(Refusal::Append(error))
            }
        }
    }

    /// What of the acknowledged batches does not come as it was sent, from the disk, in the place that was named.
    #[must_use]
    pub fn check(&self, stream: &Stream) -> Vec<String> {
        let (mut wrong, mut from, mut found) = (Vec::new(), 0, Vec::new());
        loop {
            match stream.read(from, PAGE_BYTES) {
                Ok(page) => {
                    if !page.skipped.is_empty() {
                        wrong.push(format!("I1: a reader is told to skip {:?}", page.skipped));
                    }
                    found.extend(page.batches);
                    if page.next <= from {
                        break;
                    }
                    from = page.next;
                }
                Err(error) => {
                    wrong.push(format!("it cannot be read: {error}"));
                    break;
                }
            }
        }
        for (place, (offset, messages, batch)) in self.acknowledged.iter().enumerate() {
            match found.get(place) {
                Some(stored) if stored.batch != *batch => wrong.push(format!("I2: batch {place} is altered")),
                Some(stored) if (stored.offset, stored.messages) != (*offset, *messages) => {
                    wrong.push(format!("I3: batch {place} is at {}, not at {offset}", stored.offset));
                }
                Some(_) => {}
                None => wrong.push(format!("I1: batch {place} at offset {offset} does not come")),
            }
        }
        // One that was not acknowledged may be there, once, behind all that were.
        let beyond = found.len().saturating_sub(self.acknowledged.len());
        if beyond > usize::from(self.open.is_some()) {
            wrong.push(format!("I5: {beyond} batches come that were not acknowledged"));
        }
        wrong
    }
}

/// Why a batch was not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// It was not taken.
    Append(AppendError),
    /// It was taken, and then this.
    Fate(Fate),
}

impl Refusal {
    /// Whether there was no room.
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Append(AppendError::Full) | Self::Fate(Fate::Withdrawn))
    }

    /// Why the stream has stopped, if it has.
    #[must_use]
    pub fn stopped(&self) -> Option<&str> {
        match self {
            Self::Append(AppendError::Stopped { reason }) | Self::Fate(Fate::Stopped(reason)) => Some(reason),
            Self::Append(AppendError::Full | AppendError::Busy | AppendError::Closed)
            | Self::Fate(Fate::Pending | Fate::Kept | Fate::Withdrawn) => None,
        }
    }
}

/// Open streams.
pub struct Live {
    streams: Streams,
    /// What they say.
    pub events: Arc<Events>,
    reserve_bytes: u64,
}

impl Live {
    /// Starts the threads.
    ///
    /// # Panics
    /// When the system does not let them be started.
    #[must_use]
    pub fn start(vfs: Arc<dyn Vfs>, dir: &Path, reserve_bytes: u64) -> Self {
        let events = Arc::new(Events::default());
        let parts = StreamsParts {
            vfs,
            clock: Arc::new(SystemClock::new()),
            observer: Arc::clone(&events) as _,
            dir: PathBuf::from(dir),
            threads: 1,
        };
        let streams = Streams::start(parts).expect("the streams' threads can be started");
        Self { streams, events, reserve_bytes }
    }

    /// Opens a publisher's stream.
    ///
    /// # Panics
    /// When it cannot be opened.
    #[must_use]
    pub fn open(&self, publisher: &Publisher) -> (Arc<Stream>, Opened) {
        let id = publisher.stream_id;
        let signer = LogKey::from_seed(&[9; 32].into()).signer(stream_origin(&BUS, &id));
        let options = StreamOptions {
            segment_bytes: SEGMENT_BYTES,
            reserve_bytes: self.reserve_bytes,
            signer: Some(signer),
            // So that readers read the disk.
            tail_bytes: 1,
            ..StreamOptions::new(BUS, id, "campaign", random_salt)
        };
        self.streams.open(options, None).expect("a stream of a disk that answers can be opened")
    }

    /// Closes everything.
    pub fn close(self) {
        self.streams.shutdown();
    }
}

/// Waits until a stream takes batches again, and says how long that took.
#[must_use]
pub fn await_open(stream: &Stream) -> Duration {
    let since = Instant::now();
    let bell = Bell::new();
    let watch = stream.watch(Arc::clone(&bell) as Arc<dyn Waiter>);
    bell.await_some(|| (stream.state() == StreamState::Open).then_some(()));
    drop(watch);
    since.elapsed()
}
