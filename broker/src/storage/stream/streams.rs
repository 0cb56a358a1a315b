//! All streams of a broker, and the threads that write them.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use sealbus_protocol::ids::StreamId;

use super::core::StreamCore;
use super::handle::Stream;
use super::inbox::Inbox;
use super::opening::{OpenError, Opened};
use super::producers::ProducerSnapshot;
use super::settings::StreamOptions;
use super::store::CommitObserver;
use super::writer::Writer;
use crate::clock::Clock;
use crate::locks::lock;
use crate::vfs::Vfs;

/// What the streams of a broker stand on.
pub struct StreamsParts {
    /// The disk.
    pub vfs: Arc<dyn Vfs>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Told of what is committed.
    pub observer: Arc<dyn CommitObserver>,
    /// The directory that holds one for each stream, named by its id.
    pub dir: PathBuf,
    /// Writer threads; streams are spread over them by their ids. At least one is started.
    pub threads: usize,
}

/// The open streams.
pub struct Streams {
    parts: StreamsParts,
    inboxes: Vec<Arc<Inbox>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    open: Mutex<HashMap<StreamId, Arc<Stream>>>,
    /// Those that are being read from the disk.
    opening: Mutex<HashSet<StreamId>>,
}

impl Streams {
    /// Makes the directory and starts the threads.
    ///
    /// # Errors
    /// What the system says.
    pub fn start(parts: StreamsParts) -> io::Result<Self> {
        parts.vfs.create_dir_all(&parts.dir)?;
        let mut inboxes = Vec::new();
        let mut threads = Vec::new();
        for number in 0..parts.threads.max(1) {
            let inbox = Arc::new(Inbox::default());
            let writer = Writer::new(
                Arc::clone(&parts.vfs),
                Arc::clone(&parts.clock),
                parts.dir.clone(),
                Arc::clone(&inbox),
            );
            let named = thread::Builder::new().name(format!("streams-{number}"));
            threads.push(named.spawn(move || writer.run())?);
            inboxes.push(inbox);
        }
        Ok(Self {
            parts,
            inboxes,
            threads: Mutex::new(threads),
            open: Mutex::default(),
            opening: Mutex::default(),
        })
    }

    /// Opens a stream and recovers it. Damage is in what is returned, for the caller to report. May block.
    ///
    /// # Errors
    /// [`OpenError`] when the disk does not answer or the files are another stream's.
    ///
    /// # Panics
    /// When the stream is open already: two writers of one log would destroy it.
    pub fn open(
        &self,
        options: StreamOptions,
        snapshot: Option<ProducerSnapshot>,
    ) -> Result<(Arc<Stream>, Opened), OpenError> {
        let id = options.stream_id;
        // Whoever looks for a stream does not wait until another one was read from the disk.
        let is_alone = lock(&self.opening).insert(id);
        assert!(is_alone && self.find(id).is_none(), "a stream is opened once");
        let dir = self.parts.dir.join(id.to_string());
        let recovered = StreamCore::open(Arc::clone(&self.parts.vfs), &dir, options, snapshot);
        let mut open = lock(&self.open);
        lock(&self.opening).remove(&id);
        let (core, opened) = recovered?;
        let inbox = self.inbox_of(id);
        let observer = Arc::clone(&self.parts.observer);
        let stream = Stream::new(core, &opened, observer, Arc::clone(inbox));
        if let Err(reason) = inbox.join(&stream) {
            stream.stop(&reason);
            stream.closed();
        }
        open.insert(id, Arc::clone(&stream));
        drop(open);
        stream.wake();
        Ok((stream, opened))
    }

    /// An open stream.
    #[must_use]
    pub fn find(&self, id: StreamId) -> Option<Arc<Stream>> {
        lock(&self.open).get(&id).cloned()
    }

    /// All open streams, in no particular order.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Stream>> {
        lock(&self.open).values().cloned().collect()
    }

    /// Closes a stream: nothing more is taken, what is queued is written, and a last checkpoint signed. Blocks until
    /// that is done.
    pub fn close(&self, id: StreamId) {
        let stream = lock(&self.open).remove(&id);
        if let Some(stream) = stream {
            stream.close();
            stream.await_closed();
        }
    }

    /// Closes all streams and ends the threads. Blocks until that is done.
    pub fn shutdown(&self) {
        let all: Vec<_> = lock(&self.open).drain().map(|(_, stream)| stream).collect();
        all.iter().for_each(|stream| stream.close());
        all.iter().for_each(|stream| stream.await_closed());
        self.inboxes.iter().for_each(|inbox| inbox.end());
        let threads = std::mem::take(&mut *lock(&self.threads));
        for thread in threads {
            // A thread that panicked has stopped its streams, which says more than its payload.
            let _ = thread.join();
        }
    }

    fn inbox_of(&self, id: StreamId) -> &Arc<Inbox> {
        let [number, ..] = *id.as_bytes();
        let place = usize::from(number).checked_rem(self.inboxes.len()).unwrap_or_default();
        self.inboxes.get(place).expect("at least one thread was started, and the place is below their number")
    }
}

impl Drop for Streams {
    fn drop(&mut self) {
        self.shutdown();
    }
}

impl fmt::Debug for Streams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Streams").field("open", &lock(&self.open).len()).finish_non_exhaustive()
    }
}
