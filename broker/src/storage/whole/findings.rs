//! What was found where nobody was there to be told: it waits for whoever writes the audit log.
//!
//! Streams that are open tell their observer. What remains is what opening finds, what becomes of the broker's own logs,
//! and what keeps a stream from being opened at all.

use std::sync::Mutex;

use sealbus_protocol::ids::StreamId;

use super::storage::Storage;
use super::streams::OpenedStream;
use crate::locks::lock;
use crate::storage::log::{Damage, IndexOutcome};
use crate::storage::stream::Opened;
use crate::storage::stream::store::{StreamDamage, StreamEvent};
use crate::storage::system::SystemLog;

/// The name under which the broker's own logs are reported.
const SYSTEM: &str = "$system";

/// Findings that wait at most. Each log says each thing once, and somebody looks every second: more than this is a disk
/// of which enough is known.
const WAITING_MAX: usize = 4_096;

/// Something to tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The stream; zero for the broker's own logs.
    pub id: StreamId,
    /// Its name.
    pub name: String,
    /// What there is to tell.
    pub event: StreamEvent,
}

/// What waits to be told.
#[derive(Debug, Default)]
pub(super) struct Findings(Mutex<Vec<Finding>>);

impl Findings {
    pub(super) fn add(&self, id: StreamId, name: &str, event: StreamEvent) {
        let mut waiting = lock(&self.0);
        if waiting.len() < WAITING_MAX {
            waiting.push(Finding { id, name: name.to_owned(), event });
        }
    }

    /// Of a stream for which nobody else reports what opening it found.
    pub(super) fn add_opened(&self, id: StreamId, name: &str, opened: Opened) {
        opened.events.into_iter().for_each(|event| self.add(id, name, event));
        if let Some(reason) = opened.stopped {
            self.add(id, name, StreamEvent::Stopped(reason));
        }
    }

    /// Of a stream that was opened and is closed again: what was mended or cut is not found a second time.
    pub(super) fn add_given_up(&self, stream: OpenedStream) {
        let OpenedStream { id, name, opened, index_remark, .. } = stream;
        if let Some(remark) = index_remark {
            self.add(id, &name, StreamEvent::Damaged(StreamDamage::IndexRebuilt(remark)));
        }
        self.add_opened(id, &name, opened);
    }

    /// Of one of the broker's own logs.
    pub(super) fn add_system(&self, text: String) {
        self.add(StreamId::ZERO, SYSTEM, StreamEvent::Damaged(StreamDamage::Log(text)));
    }
}

impl Storage {
    /// What was found since the last call. Never blocks for long.
    #[must_use]
    pub fn take_findings(&self) -> Vec<Finding> {
        self.look_at_system_logs();
        std::mem::take(&mut *lock(&self.findings.0))
    }

    /// What opening or any reader found in the broker's own logs.
    pub(super) fn look_at_system_logs(&self) {
        for log in SystemLog::ALL {
            for damage in self.system.reader(log).take_new_damage() {
                let text = format!("{log}: {damage}");
                let found = match damage {
                    Damage::Index { outcome: IndexOutcome::Rebuilt, .. } => StreamDamage::IndexRebuilt(text),
                    Damage::Index { outcome: IndexOutcome::Left | IndexOutcome::Lost, .. }
                    | Damage::Corrupt(_)
                    | Damage::Truncated(_)
                    | Damage::Missing(_)
                    | Damage::Header { .. }
                    | Damage::Watermarks => StreamDamage::Log(text),
                };
                self.findings.add(StreamId::ZERO, SYSTEM, StreamEvent::Damaged(found));
            }
        }
    }
}
