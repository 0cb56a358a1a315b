//! The open storage, step by step.

use std::collections::BTreeMap;
use std::sync::Arc;

use sealbus_broker::storage::log::{Log, LogError};
use sealbus_broker::storage::stream::StreamCore;
use sealbus_broker::storage::system::CursorLog;
use sealbus_broker::vfs::Vfs;

use super::opened::Opened;
use super::part::{Part, Refused};
use super::producers::{AUTHORS, Producers, Shape};
use crate::campaign::author::{POLICY_VERSION, START_MS};
use crate::campaign::history::History;
use crate::campaign::place::{Plan, STREAMS};
use crate::campaign::random::Random;

/// The open storage.
pub struct Rig {
    pub(super) operations: Box<dyn Fn() -> usize + Send>,
    pub(super) plan: Plan,
    pub(super) random: Random,
    pub(super) now_ms: u64,
    pub(super) policy_version: u64,
    /// What was handed over.
    pub history: History,
    /// What must not be, and is, while everything runs.
    pub wrong: Vec<String>,
    pub(super) producers: Producers,
    pub(super) streams: Vec<StreamCore>,
    pub(super) keys: Log,
    pub(super) policies: Log,
    pub(super) kept_producers: Log,
    pub(super) cursors: CursorLog,
    pub(super) stopped: BTreeMap<Part, Refused>,
    pub(super) done: BTreeMap<&'static str, u64>,
}

/// What is left of a rig when it is closed or its power is lost.
pub struct Rest {
    /// The producers.
    pub producers: Producers,
    /// What was handed over.
    pub history: History,
    /// What must not have been.
    pub wrong: Vec<String>,
    /// The clock.
    pub now_ms: u64,
    /// What was done, by name.
    pub done: BTreeMap<&'static str, u64>,
}

/// Whether the power was lost before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Before {
    /// Nothing was there, or it was closed or killed on the same disk.
    SameDisk,
    /// This disk is one of those that may be found after a power loss.
    PowerLoss,
}

impl Rest {
    /// A beginning.
    #[must_use]
    pub fn nothing() -> Self {
        let history = History::new(STREAMS);
        let (producers, wrong, done) = (Producers::new(), Vec::new(), BTreeMap::new());
        Self { producers, history, wrong, now_ms: START_MS, done }
    }
}

impl Rig {
    /// Opens everything, and has the producers send again what they do not know to be kept.
    ///
    /// # Errors
    /// [`Refused`] by what cannot be opened, with what can be tried again.
    pub fn open(
        vfs: &Arc<dyn Vfs>,
        operations: impl Fn() -> usize + Send + 'static,
        (plan, seed): (Plan, u64),
        rest: Rest,
        before: Before,
    ) -> Result<Self, Box<(Refused, Rest)>> {
        let opened = Opened::of(vfs, &plan);
        let Opened { streams, keys, policies, kept_producers, cursors, positions, damage } = match opened {
            Ok(opened) => opened,
            Err(refused) => return Err(Box::new((refused, rest))),
        };
        let Rest { producers, history, mut wrong, now_ms, done } = rest;
        wrong.extend(damage.into_iter().map(|damage| format!("opening reports {damage}")));
        let mut rig = Self {
            operations: Box::new(operations),
            plan,
            random: Random::new(seed),
            now_ms,
            policy_version: POLICY_VERSION,
            history,
            wrong,
            producers,
            streams,
            keys,
            policies,
            kept_producers,
            cursors,
            stopped: BTreeMap::new(),
            done,
        };
        rig.settle(&positions, before);
        Ok(rig)
    }

    /// The producers and the history, without closing anything: the process was killed, or the power lost.
    #[must_use]
    pub fn kill(self) -> Rest {
        let Self { producers, history, wrong, now_ms, done, .. } = self;
        Rest { producers, history, wrong, now_ms, done }
    }

    /// Closes everything in order.
    ///
    /// # Errors
    /// [`Refused`] by the first that does not do it.
    pub fn close(&mut self) -> Result<(), Refused> {
        for stream in 0..self.streams.len() {
            self.on_stream(stream, |rig, core| {
                let begun = rig.now();
                rig.expect_checkpoint(stream, begun);
                let mut events = Vec::new();
                let closed = core.close(&mut events);
                if closed.is_ok() {
                    rig.acknowledge(stream);
                }
                rig.take_events(stream, begun, &events);
                closed
            })?;
        }
        self.write_system_watermarks()
    }

    /// The parts that have stopped, and why.
    #[must_use]
    pub const fn stopped(&self) -> &BTreeMap<Part, Refused> {
        &self.stopped
    }

    /// One step that the seed chooses.
    ///
    /// # Errors
    /// [`Refused`] by the part that did not do it.
    pub fn step(&mut self) -> Result<(), Refused> {
        let stream = usize::from(self.random.one_in(2));
        match self.random.between(1, 100) {
            1..=32 => self.append_some(stream),
            33..=52 => self.commit(stream),
            53..=62 => {
                let passed_ms = *self.random.pick(&[200, 1_100, 11_000]);
                self.maintain(stream, passed_ms)
            }
            63..=82 => self.move_consumer(),
            83..=88 => self.sync_cursors(),
            89..=90 => self.bind_key(),
            91..=92 => self.change_policy(),
            93..=95 => self.trim_some(stream),
            96 => self.remove_consumer(),
            97 => self.keep_producers(stream),
            _ => self.write_system_watermarks(),
        }
    }

    /// What every broker does first: a policy, and a key for each producer.
    ///
    /// # Errors
    /// [`Refused`] by the part that did not do it.
    pub fn begin(&mut self) -> Result<(), Refused> {
        self.change_policy()?;
        for _ in 0..AUTHORS.len() {
            self.bind_key()?;
        }
        Ok(())
    }

    /// A batch to each stream, durable, and every cursor.
    ///
    /// # Errors
    /// [`Refused`] by the part that did not do it.
    pub fn prove_usable(&mut self) -> Result<(), Refused> {
        for stream in 0..self.streams.len() {
            let author = self.authors_of(stream).next().unwrap_or_default();
            self.append(stream, &[(author, Shape::Messages(3, 40))])?;
            self.commit(stream)?;
        }
        self.move_consumer()?;
        self.sync_cursors()?;
        self.bind_key()?;
        self.change_policy()
    }

    /// Works with a stream that has not stopped; one that cannot be used afterwards has.
    pub(super) fn on_stream(
        &mut self,
        stream: usize,
        work: impl FnOnce(&mut Self, &mut StreamCore) -> Result<(), LogError>,
    ) -> Result<(), Refused> {
        let part = Part::Stream(stream);
        self.check_running(part)?;
        let mut streams = std::mem::take(&mut self.streams);
        let worked = streams.get_mut(stream).map_or(Ok(()), |core| work(self, core));
        if let (Err(error), Some(core)) = (&worked, streams.get_mut(stream))
            && !error.is_usable()
        {
            self.check_silent(stream, core);
        }
        self.streams = streams;
        worked.map_err(|error| self.refused(part, &error))
    }

    /// After a failure that leaves it unknown what is on the disk, nothing is acknowledged any more, and everything that
    /// was can be read.
    pub(super) fn check_silent(&mut self, stream: usize, core: &mut StreamCore) {
        let again = [core.commit().err(), core.append_group(&[]).err()];
        for error in again {
            match error {
                Some(LogError::Poisoned { .. }) => {}
                other => self.wrong.push(format!("stream {stream} has stopped, and then says {other:?}")),
            }
        }
        let acked = self.history.streams.get(stream).map_or(0, |history| history.acked_end());
        let visible = core.reader().end_offset();
        if visible < acked {
            self.wrong.push(format!("stream {stream} has stopped, and shows {visible} of {acked} messages"));
        }
    }

    pub(super) fn check_running(&self, part: Part) -> Result<(), Refused> {
        self.stopped.get(&part).map_or(Ok(()), |refused| Err(refused.clone()))
    }

    pub(super) fn refused(&mut self, part: Part, error: &LogError) -> Refused {
        let refused = Refused::by(part, error);
        // As the broker's threads do: whatever is not a lack of room stops the part.
        if !(refused.is_full && refused.is_usable) {
            self.stopped.entry(part).or_insert_with(|| refused.clone());
        }
        refused
    }

    pub(super) fn did(&mut self, what: &'static str) {
        *self.done.entry(what).or_default() += 1;
    }

    pub(super) fn now(&self) -> usize {
        (self.operations)()
    }
}
