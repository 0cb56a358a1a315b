//! What moves a durable consumer: a task that asks its group what to do, reads for it, and hands over what it gives out.
//!
//! ```text
//!   commit, credit, ack, nack, leave --notify--> poll_assignment --> NewFrom: read a page, handle_batch each
//!                                   a tick --'         |         --> Redeliver: read that batch again
//!                                                      '--> Recipient::hand_over, the member's session
//! ```
//!
//! A consumer has a driver while it has members. The group decides; the driver reads and carries.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sealbus_protocol::session::Tick;
use tokio::sync::Notify;

use super::delivery::HandedOut;
use super::group::{BatchMeta, Handled, Lease, Matches, What};
use super::member::MemberId;
use super::registry::Consumer;
use crate::clock::Clock;
use crate::locks::lock;
use crate::storage::page::{Entry, Glance, Page, Proven, Source};
use crate::storage::stream::store::{SkipReason, SkippedOffsets, Waiter};
use crate::storage::system::ConsumerKey;
use crate::telemetry;

/// How long a disk that could not be read is left alone. It is asked again for as long as there are members.
const READ_AGAIN_MS: u64 = 1_000;

/// A batch, or some of its records, on its way to a member.
#[derive(Debug)]
pub struct HandedBatch {
    /// The batch.
    pub proven: Proven,
    /// The records that are handed over.
    pub handed: HandedOut,
}

/// Where a member takes what it is given. It must not block.
pub trait Recipient: Send + Sync {
    /// Records for the member.
    fn hand_over(&self, batch: HandedBatch);

    /// Offsets that nobody gets.
    fn skip(&self, skipped: SkippedOffsets);
}

/// The drivers that run.
#[derive(Default)]
pub struct Drivers {
    running: Mutex<HashMap<ConsumerKey, Arc<Running>>>,
}

/// A driver, as members and streams see it.
pub struct Running {
    notify: Notify,
    recipients: Mutex<HashMap<MemberId, Arc<dyn Recipient>>>,
}

/// There may be something for the group to do.
impl Waiter for Running {
    fn committed(&self) {
        self.notify.notify_one();
    }
}

impl Drivers {
    /// Gives a member of a consumer its driver, which is started when it does not run. Must be called on a runtime.
    pub fn attend(
        self: &Arc<Self>,
        consumer: &Arc<Consumer>,
        source: &Source,
        clock: &Arc<dyn Clock>,
        (member, recipient): (MemberId, Arc<dyn Recipient>),
    ) -> Arc<Running> {
        let mut running = lock(&self.running);
        if let Some(driver) = running.get(consumer.key()) {
            lock(&driver.recipients).insert(member, recipient);
            return Arc::clone(driver);
        }
        let recipients = Mutex::new(HashMap::from([(member, recipient)]));
        let driver = Arc::new(Running { notify: Notify::new(), recipients });
        running.insert(consumer.key().clone(), Arc::clone(&driver));
        let task = Driver {
            drivers: Arc::clone(self),
            running: Arc::clone(&driver),
            consumer: Arc::clone(consumer),
            source: source.clone(),
            clock: Arc::clone(clock),
        };
        tokio::spawn(task.run());
        driver
    }
}

impl Running {
    /// A member takes nothing more. The driver ends with the last one.
    pub fn dismiss(&self, member: MemberId) {
        lock(&self.recipients).remove(&member);
        self.notify.notify_one();
    }

    fn recipient(&self, member: MemberId) -> Option<Arc<dyn Recipient>> {
        lock(&self.recipients).get(&member).cloned()
    }
}

struct Driver {
    drivers: Arc<Drivers>,
    running: Arc<Running>,
    consumer: Arc<Consumer>,
    source: Source,
    clock: Arc<dyn Clock>,
}

impl Driver {
    async fn run(self) {
        let watch = self.source.watch(Arc::clone(&self.running) as Arc<dyn Waiter>);
        loop {
            if self.ends() {
                drop(watch);
                return;
            }
            self.work().await;
            let due = self.consumer.act(|group| group.poll_timeout());
            let notified = self.running.notify.notified();
            match due {
                // Dropped half-way, a wait loses nothing: a notice that came meanwhile is kept for the next.
                None => notified.await,
                Some(due) => {
                    // At least a millisecond, so that a clock that stands still is not asked without end.
                    let wait_ms = due.since(self.clock.tick()).max(1);
                    let _ = tokio::time::timeout(Duration::from_millis(wait_ms), notified).await;
                }
            }
        }
    }

    /// Whether nobody is left. Then it takes itself off the list, so that the next member starts another.
    fn ends(&self) -> bool {
        let mut running = lock(&self.drivers.running);
        let ends = lock(&self.running.recipients).is_empty();
        if ends {
            running.remove(self.consumer.key());
        }
        ends
    }

    /// Does all that there is to do now.
    async fn work(&self) {
        loop {
            let (now, end) = (self.clock.tick(), self.source.bounds().end);
            let Some(assignment) = self.consumer.act(|group| group.poll_assignment(now, end)) else { return };
            let done = match assignment.what {
                What::NewFrom { from, lease } => self.read_new(from, lease).await,
                What::Redeliver(handed) => self.redeliver(assignment.member, handed).await,
            };
            if done.is_err() {
                tokio::time::sleep(Duration::from_millis(READ_AGAIN_MS)).await;
            }
        }
    }

    /// Brings the group what follows, and hands over what it gives out. The lease is given back whatever comes of it.
    async fn read_new(&self, from: u64, lease: Lease) -> Result<(), Unreadable> {
        let page = match self.page(from).await {
            Ok(Some(page)) => page,
            Ok(None) => {
                self.consumer.act(|group| group.finish_read(lease));
                return Ok(());
            }
            Err(unreadable) => {
                self.consumer.act(|group| group.finish_read(lease));
                return Err(unreadable);
            }
        };
        for entry in page.entries {
            match entry {
                Entry::Batch(proven) => {
                    if self.offer(lease, proven) == Offered::LeaseOver {
                        return Ok(());
                    }
                }
                Entry::Skipped(skipped) => self.skip(skipped),
            }
        }
        self.consumer.act(|group| group.finish_read(lease));
        Ok(())
    }

    /// Brings the group one batch.
    fn offer(&self, lease: Lease, proven: Proven) -> Offered {
        let mut handled = self.bring(lease, &proven);
        if let Handled::Gap { expected: from } = handled {
            // A page names its holes. One that has another is as good as damaged, and is told like that.
            let to = proven.stored.offset;
            tracing::error!({ telemetry::CONSUMER } = %self.consumer.key(), from, to, "a page has a hole");
            self.skip(SkippedOffsets { from, to, why: SkipReason::Damaged });
            handled = self.bring(lease, &proven);
        }
        match handled {
            Handled::Assigned(member, handed) => {
                self.hand_over(member, HandedBatch { proven, handed });
                Offered::Done
            }
            Handled::Nothing => Offered::Done,
            Handled::Blocked | Handled::Stale | Handled::Gap { .. } => Offered::LeaseOver,
        }
    }

    fn bring(&self, lease: Lease, proven: &Proven) -> Handled {
        let (stored, now) = (&proven.stored, self.clock.tick());
        self.consumer.act(|group| {
            let wanted = group.settings().filter().is_none_or(|filter| filter.matches(&stored.topic));
            let meta = BatchMeta {
                offset: stored.offset,
                records: stored.messages,
                bytes: u32::try_from(stored.batch.len()).unwrap_or(u32::MAX),
                matches: if wanted { Matches::Whole } else { Matches::None },
            };
            group.handle_batch(lease, &meta, now)
        })
    }

    async fn redeliver(&self, member: MemberId, handed: HandedOut) -> Result<(), Unreadable> {
        let now = self.clock.tick();
        let page = match self.page(handed.batch).await {
            Ok(page) => page,
            Err(unreadable) => {
                let retry_at = now.after_ms(READ_AGAIN_MS);
                self.consumer.act(|group| group.withdraw(member, &handed, retry_at));
                return Err(unreadable);
            }
        };
        let entries = page.map(|page| page.entries).unwrap_or_default();
        match entries.into_iter().find(|entry| stands_at(entry, handed.batch)) {
            Some(Entry::Batch(proven)) => self.hand_over(member, HandedBatch { proven, handed }),
            Some(Entry::Skipped(skipped)) => {
                // Taken back first: what is not delivered must not be paid for with the member's credit.
                self.withdraw(member, &handed, now);
                self.skip(skipped);
            }
            // A page that does not hold what it was read for is as good as a disk that did not answer.
            None => self.withdraw(member, &handed, now.after_ms(READ_AGAIN_MS)),
        }
        Ok(())
    }

    fn hand_over(&self, member: MemberId, batch: HandedBatch) {
        match self.running.recipient(member) {
            Some(recipient) => recipient.hand_over(batch),
            // It left a moment ago, and the group is about to be told.
            None => self.withdraw(member, &batch.handed, self.clock.tick()),
        }
    }

    fn withdraw(&self, member: MemberId, handed: &HandedOut, retry_at: Tick) {
        self.consumer.act(|group| group.withdraw(member, handed, retry_at));
    }

    /// Offsets that nobody gets are settled, and a member is told of them.
    fn skip(&self, skipped: SkippedOffsets) {
        self.consumer.act(|group| group.skip(skipped.from..skipped.to));
        let recipient = lock(&self.running.recipients).values().next().cloned();
        if let Some(recipient) = recipient {
            recipient.skip(skipped);
        }
    }

    /// What is stored from an offset on; none at the end.
    async fn page(&self, from: u64) -> Result<Option<Page>, Unreadable> {
        match self.source.glance(from) {
            Glance::Page(page) => Ok(Some(page)),
            Glance::AtEnd => Ok(None),
            Glance::OnDisk => {
                let source = self.source.clone();
                let read = tokio::task::spawn_blocking(move || source.read(from)).await;
                match read {
                    Ok(Ok(page)) => Ok(Some(page)),
                    Ok(Err(error)) => {
                        tracing::error!(
                            { telemetry::ERROR } = %error,
                            { telemetry::CONSUMER } = %self.consumer.key(),
                            "a consumer's stream cannot be read"
                        );
                        Err(Unreadable)
                    }
                    Err(_) => Err(Unreadable),
                }
            }
        }
    }
}

/// Whether an entry is about the batch that begins at an offset. A batch without messages takes no offset, and stands
/// where the next one does.
fn stands_at(entry: &Entry, offset: u64) -> bool {
    match entry {
        Entry::Batch(proven) => proven.stored.messages > 0 && proven.stored.offset == offset,
        Entry::Skipped(skipped) => (skipped.from..skipped.to).contains(&offset),
    }
}

/// Whether more may be brought under a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Offered {
    Done,
    LeaseOver,
}

/// The disk did not answer. It has been logged.
#[derive(Debug)]
struct Unreadable;

impl fmt::Debug for Drivers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Drivers").field("running", &lock(&self.running).len()).finish()
    }
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running").field("members", &lock(&self.recipients).len()).finish_non_exhaustive()
    }
}
