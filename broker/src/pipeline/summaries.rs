//! What was published, for the audit log: a line for each topic, every ten seconds and at the session's end.
//!
//! ```text
//!   PUBLISH --> counted with its topic --- ten seconds after the first ---> a line for each topic that counted anything
//!                                                                                |                          ^
//!                                  half of the queue taken, or enough for one go '---- 100 ms, the rest ----'
//! ```
//!
//! The lines of a session that goes on can come later: what they count goes on being counted. Sessions that began
//! together, as after a restart, tell all of theirs in the same moment. The other half of the queue is for lines that
//! cannot wait, and without which something would be refused or a session closed. The last lines of a session have
//! room of their own behind the queue.

use sealbus_protocol::refusal::Refusal;
use sealbus_protocol::session::Tick;

use super::client::{Client, audit_unavailable};
use super::open::OpenTopic;
use crate::audit::{Actor, Audit, AuditUnavailable, PublishTraffic};
use crate::telemetry;

/// How long a session's publishing is counted before the audit log is told.
const AFTER_MS: u64 = 10_000;

/// Lines of one go: each costs its session a microsecond, and the session's signals wait meanwhile.
const LINES_PER_TURN: usize = 128;

/// How long what is left waits: long enough for the log's thread to have written thousands of lines.
const PAUSE_MS: u64 = 100;

/// When a session tells what was published, and from which of its topics on.
#[derive(Debug, Default)]
pub(super) struct Summaries {
    due: Option<Tick>,
    next: usize,
}

impl Summaries {
    /// When they want to be told; none when there is nothing to tell.
    pub(super) const fn due(&self) -> Option<Tick> {
        self.due
    }

    /// Something is published now.
    pub(super) fn expect_from(&mut self, now: Tick) {
        if self.due.is_none() {
            self.due = Some(now.after_ms(AFTER_MS));
        }
    }
}

impl Client {
    /// Tells the audit log what was published, when it is time to.
    ///
    /// # Errors
    /// When the log has failed: the session must not go on. A log that is only busy is told later.
    pub(crate) fn summarise(&mut self) -> Result<(), Refusal> {
        let now = self.bus.clock.tick();
        if self.summaries.due.is_none_or(|due| now < due) {
            return Ok(());
        }
        let actor = self.actor();
        let mut told = 0;
        while let Some(slot) = self.topics.get_mut(self.summaries.next) {
            if let Some(open) = slot
                && let Some(summary) = open.summary(actor.clone())
            {
                let recorded = if told < LINES_PER_TURN {
                    self.bus.audit.record_unless_busy(summary)
                } else {
                    Err(AuditUnavailable::QueueFull)
                };
                match recorded {
                    Ok(()) => {
                        open.traffic = PublishTraffic::default();
                        told += 1;
                    }
                    Err(AuditUnavailable::QueueFull) => {
                        self.summaries.due = Some(now.after_ms(PAUSE_MS));
                        return Ok(());
                    }
                    Err(error) => return Err(audit_unavailable(Some(&error))),
                }
            }
            self.summaries.next += 1;
        }
        self.summaries = Summaries::default();
        // What was published on the first topics while the last ones were still to be told.
        if self.topics.iter().flatten().any(OpenTopic::has_traffic) {
            self.summaries.expect_from(now);
        }
        Ok(())
    }
}

/// Tells the audit log the last of a session. It has room for those of many sessions, since a broker that stops ends all
/// of its sessions at once. What finds none is missing: its messages are still in the sum of the session's end, its bytes
/// and refusals are nowhere. That is said where operators look.
pub(super) fn tell_last(audit: &Audit, topics: &[OpenTopic], actor: &Actor) {
    let mut summaries = topics.iter().filter_map(|open| open.summary(actor.clone()));
    let Some(error) = summaries.find_map(|summary| audit.record_last(summary).err()) else { return };
    tracing::error!(
        { telemetry::ERROR } = %error,
        { telemetry::SESSION } = %actor.session,
        { telemetry::COUNT } = summaries.count() + 1,
        "topics of a session that has ended are not in the audit log: their messages are in its sum, no more"
    );
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::future::Future;
    use std::path::Path;
    use std::pin::pin;
    use std::task::{Context, Waker};

    use super::super::testing::{Parts, actor_done, bus_of, client, open_topic};
    use super::*;
    use crate::config::AuditConfig;
    use crate::vfs::{FaultyVfs, OsVfs};

    /// A client that has published once on each of so many topics.
    fn publisher(parts: &Parts, topics: usize) -> Client {
        let (mut client, _) = client(&parts.bus, &std::sync::Arc::default());
        client.topics = (0..topics).map(|topic| Some(open_topic(&format!("t/{topic}")))).collect();
        client.topics.iter_mut().flatten().for_each(publish);
        client.summaries.expect_from(parts.bus.clock.tick());
        client
    }

    fn publish(open: &mut OpenTopic) {
        open.traffic.messages += 1;
    }

    /// What the log says of each topic: lines, and messages.
    fn told(audit: &Audit) -> BTreeMap<String, (u64, u64)> {
        let page = audit.read(0, u32::MAX, usize::MAX).unwrap();
        let mut told = BTreeMap::new();
        for line in page.lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let line: serde_json::Value = serde_json::from_slice(line).unwrap();
            if line["unmapped"]["messages"].is_null() {
                continue;
            }
            let topic = line["resources"][0]["name"].as_str().unwrap().to_owned();
            let entry: &mut (u64, u64) = told.entry(topic).or_default();
            entry.0 += 1;
            entry.1 += line["unmapped"]["messages"].as_u64().unwrap();
        }
        told
    }

    /// Returns once everything that was recorded is written.
    fn settle(audit: &Audit) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(audit.record_durable(actor_done())).unwrap();
    }

    /// A bus whose audit log has room for 64 events and hangs in the sync of its first line.
    fn hung_bus(vfs: &FaultyVfs, dir: &Path) -> Parts {
        let config = AuditConfig { queue_events_max: 64, ..AuditConfig::default() };
        let parts = bus_of(vfs, &config, dir);
        vfs.hold_syncs();
        {
            // The line stays when nobody waits for it any more.
            let first = pin!(parts.bus.audit.record_durable(actor_done()));
            assert!(first.poll(&mut Context::from_waker(Waker::noop())).is_pending());
        }
        vfs.await_held_sync();
        parts
    }

    #[test]
    fn nothing_is_told_before_its_time_and_nothing_twice() {
        let dir = tempfile::tempdir().unwrap();
        let parts = bus_of(&OsVfs, &AuditConfig::default(), dir.path());
        let mut client = publisher(&parts, 3);
        parts.clock.advance(AFTER_MS - 1);
        client.summarise().unwrap();
        settle(&parts.bus.audit);
        assert_eq!(told(&parts.bus.audit).len(), 0);
        parts.clock.advance(1);
        client.summarise().unwrap();
        assert_eq!(client.summary_due(), None);
        client.summarise().unwrap();
        settle(&parts.bus.audit);
        let told = told(&parts.bus.audit);
        assert_eq!(told.len(), 3);
        assert!(told.values().all(|told| *told == (1, 1)), "{told:?}");
    }

    /// Many sessions that are due at once took the log from each other, and were closed for it.
    #[test]
    fn a_busy_log_is_told_later_and_has_room_for_what_cannot_wait() {
        let dir = tempfile::tempdir().unwrap();
        let vfs = FaultyVfs::new(OsVfs, []);
        let parts = hung_bus(&vfs, dir.path());
        let audit = &parts.bus.audit;
        let mut clients: Vec<Client> = (0..3).map(|_| publisher(&parts, 50)).collect();
        parts.clock.advance(AFTER_MS);
        for client in &mut clients {
            client.summarise().expect("it is told later");
            assert_eq!(client.summary_due(), Some(parts.bus.clock.tick().after_ms(PAUSE_MS)));
            client.topics.iter_mut().flatten().for_each(publish);
        }
        for _ in 0..32 {
            audit.record(actor_done()).expect("there is room for what cannot wait");
        }
        vfs.release_syncs();
        let mut turns = 0;
        while clients.iter().any(|client| client.summary_due().is_some()) {
            settle(audit);
            parts.clock.advance(AFTER_MS);
            clients.iter_mut().for_each(|client| client.summarise().unwrap());
            turns += 1;
            assert!(turns < 100, "it ends");
        }
        settle(audit);
        let told = told(audit);
        assert_eq!(told.len(), 50);
        assert!(told.values().all(|(_, messages)| *messages == 3 * 2), "counted once, all of it: {told:?}");
    }

    /// As when a broker stops.
    #[test]
    fn sessions_that_end_together_have_all_of_their_topics_told() {
        let dir = tempfile::tempdir().unwrap();
        let vfs = FaultyVfs::new(OsVfs, []);
        let parts = hung_bus(&vfs, dir.path());
        let audit = &parts.bus.audit;
        let clients: Vec<Client> = (0..3).map(|_| publisher(&parts, 50)).collect();
        drop(clients);
        vfs.release_syncs();
        parts.thread.stop().unwrap();
        let told = told(audit);
        assert_eq!(told.len(), 50);
        assert!(told.values().all(|told| *told == (3, 3)), "{told:?}");
    }

    #[test]
    fn first_topics_that_never_rest_do_not_keep_the_last_from_being_told() {
        let dir = tempfile::tempdir().unwrap();
        let parts = bus_of(&OsVfs, &AuditConfig::default(), dir.path());
        let topics = 3 * LINES_PER_TURN;
        let mut client = publisher(&parts, topics);
        parts.clock.advance(AFTER_MS);
        for _ in 0..3 {
            client.summarise().unwrap();
            client.topics.iter_mut().flatten().take(LINES_PER_TURN).for_each(publish);
            parts.clock.advance(PAUSE_MS);
        }
        settle(&parts.bus.audit);
        assert_eq!(told(&parts.bus.audit).len(), topics);
        assert!(client.summary_due().is_some(), "what came meanwhile is told next time");
    }

    #[test]
    fn a_log_that_has_ended_ends_the_session() {
        let dir = tempfile::tempdir().unwrap();
        let parts = bus_of(&OsVfs, &AuditConfig::default(), dir.path());
        let mut client = publisher(&parts, 1);
        parts.thread.stop().unwrap();
        parts.clock.advance(AFTER_MS);
        let refusal = client.summarise().unwrap_err();
        assert_eq!(refusal.code(), sealbus_protocol::refusal::Code::AuditUnavailable);
    }
}
