//! Where records go that were delivered as often as they may be: into the dead letters of their consumer.
//!
//! One task for all consumers. A record is settled only once its letter is durable; until then it stays with the group,
//! and when the disk has no room for the letter it stays there longer.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use super::delivery::DeadLetter;
use super::registry::{Consumer, Consumers};
use crate::audit::{Audit, Event, StreamChange};
use crate::clock::Clock;
use crate::storage::page::{Entry, Proven};
use crate::storage::stream::store::{Fate, NewDeadLetter, StreamStore, Ticket, Waiter};
use crate::storage::whole::Storage;
use crate::telemetry;

/// How long a letter that could not be kept waits for the next attempt.
const RETRY_MS: u64 = 5_000;

/// What the undertaker works with.
pub(crate) struct Undertaker {
    /// Whose dead it buries.
    pub(crate) consumers: Arc<Consumers>,
    /// Where.
    pub(crate) storage: Arc<Storage>,
    /// The time.
    pub(crate) clock: Arc<dyn Clock>,
    /// Told of each letter.
    pub(crate) audit: Audit,
}

/// What became of a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Burial {
    /// It is durable.
    Kept,
    /// Retention has removed its batch, or it is damaged: there is nothing left to keep.
    Gone,
}

/// Wakes a task.
struct Bell(Notify);

impl Waiter for Bell {
    fn committed(&self) {
        self.0.notify_one();
    }
}

impl Undertaker {
    /// Works for as long as the broker does.
    pub(crate) async fn run(self) {
        let bell = Arc::new(Bell(Notify::new()));
        self.consumers.set_undertaker(Arc::clone(&bell) as Arc<dyn Waiter>);
        loop {
            while let Some(consumer) = self.consumers.poll_dead() {
                let letter = consumer.act(|group| group.poll_dead());
                if let Some(letter) = letter {
                    self.bury(&consumer, &letter).await;
                }
            }
            // A letter that is to be tried again has a tick and no bell.
            let now = self.clock.tick();
            let due = self.consumers.handle_timeouts_at(now);
            let wait_ms = due.map_or(RETRY_MS, |due| due.since(now).clamp(1, RETRY_MS));
            let _ = tokio::time::timeout(Duration::from_millis(wait_ms), bell.0.notified()).await;
        }
    }

    async fn bury(&self, consumer: &Arc<Consumer>, letter: &DeadLetter) {
        match self.keep(consumer, letter).await {
            Ok(Burial::Kept) => {
                let records = consumer.act(|group| group.buried(letter));
                self.tell(consumer, letter.batch, records);
            }
            Ok(Burial::Gone) => consumer.act(|group| {
                for range in &letter.ranges {
                    let from = letter.batch.saturating_add(u64::from(range.first));
                    group.skip(from..from.saturating_add(u64::from(range.count)));
                }
            }),
            Err(reason) => {
                tracing::warn!({ telemetry::ERROR } = %reason, "a dead letter could not be kept");
                let retry_at = self.clock.tick().after_ms(RETRY_MS);
                consumer.act(|group| group.not_buried(letter, retry_at));
            }
        }
    }

    /// Returns once the letter is durable, or its batch was found to be gone.
    async fn keep(&self, consumer: &Arc<Consumer>, letter: &DeadLetter) -> Result<Burial, String> {
        let (storage, key, offset) = (Arc::clone(&self.storage), consumer.key().clone(), letter.batch);
        let found = tokio::task::spawn_blocking(move || {
            let store = storage.open_dead_letters(&key).map_err(|error| error.to_string())?;
            let source = storage.source(key.stream).ok_or("its stream is not open")?;
            let page = source.read(offset).map_err(|error| error.to_string())?;
            let batch = page.entries.into_iter().find_map(|entry| match entry {
                Entry::Batch(proven) if proven.stored.offset == offset && proven.stored.messages > 0 => {
                    Some(proven)
                }
                Entry::Batch(_) | Entry::Skipped(_) => None,
            });
            Ok::<_, String>((store, batch))
        });
        let (store, batch) = found.await.map_err(|_| "reading the batch failed".to_owned())??;
        let Some(Proven { stored, .. }) = batch else { return Ok(Burial::Gone) };
        let bell = Arc::new(Bell(Notify::new()));
        let new = NewDeadLetter {
            stored,
            ranges: letter.ranges.clone(),
            // Nobody listens for dead letters live: there is nothing to fan out.
            context: Arc::new(()),
            waiter: Arc::clone(&bell) as Arc<dyn Waiter>,
        };
        let ticket = store.append_dead_letter(new, self.clock.now_ms()).map_err(|error| error.to_string())?;
        await_fate(&*store, &ticket, &bell).await.map(|()| Burial::Kept)
    }

    fn tell(&self, consumer: &Arc<Consumer>, offset: u64, records: u64) {
        let id = consumer.key().stream;
        let change =
            StreamChange::DeadLettered { consumer: consumer.key().name.to_string(), offset, records };
        let event = Event::Stream { name: self.storage.name_of(id), id, change };
        if let Err(error) = self.audit.record(event) {
            tracing::error!({ telemetry::ERROR } = %error, "a dead letter is not in the audit log");
        }
    }
}

/// Returns when a letter is durable, or will not be.
async fn await_fate(store: &dyn StreamStore, ticket: &Ticket, bell: &Bell) -> Result<(), String> {
    loop {
        match store.fate(ticket) {
            Fate::Kept => return Ok(()),
            Fate::Withdrawn => return Err("the disk has no room".to_owned()),
            Fate::Stopped(reason) => return Err(reason.to_string()),
            Fate::Pending => bell.0.notified().await,
        }
    }
}
