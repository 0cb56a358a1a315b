//! A broker's storage without the broker: the engine is driven step by step, and what it is told and what it says is
//! written into a [`History`].

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use sealbus_broker::storage::log::{Log, LogError, NewFrame};
use sealbus_broker::storage::stream::store::{StreamEvent, TrimReason};
use sealbus_broker::storage::stream::{Moment, NewRecord, StreamCore};
use sealbus_broker::storage::system::keys::{KEY_FRAME, encode_key};
use sealbus_broker::storage::system::policies::{POLICY_FRAME, encode_policy};
use sealbus_broker::storage::system::producers::{PRODUCERS_FRAME, encode_producers};
use sealbus_broker::storage::system::{
    AskedSettings, ConsumerKey, ConsumerSettings, Cursor, CursorAppendError, CursorChange, CursorLog,
    KeptConsumer, SystemFrame, SystemLog,
};
use sealbus_broker::vfs::Vfs;
use sealbus_protocol::batch::accept::{Accepted, Durability, Receipt, SequenceState, Verdict};
use sealbus_protocol::frame::InstanceKind;
use sealbus_protocol::ids::{PolicyHash, StreamId};
use sealbus_protocol::policy::Name;
use sha2::{Digest as _, Sha256};

use super::author::{Author, Identity, POLICY_VERSION, START_MS, principal};
use super::history::{Consumer, Handed, History, Signed, Trim, When};
use super::place::{Plan, STREAMS, stream_dir, stream_id, system_dir, system_options};
use super::random::Random;
use super::seen::read_snapshots;

/// The producers: on which stream, and on which topic. Two of them share one.
const AUTHORS: [(usize, &str); 5] =
    [(0, "orders/eu"), (0, "orders/us"), (0, "orders/eu"), (1, "bills/eu"), (1, "bills/us")];

/// The consumers.
const CONSUMERS: [(usize, &str); 3] = [(0, "billing"), (0, "audit"), (1, "mail")];

/// A part of the storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// A stream.
    Stream(usize),
    /// A log of the broker's own.
    System(SystemLog),
}

/// Something did not do what it was told.
#[derive(Debug, Clone)]
pub struct Refused {
    /// Which part.
    pub part: Part,
    /// What it said.
    pub text: String,
    /// Whether it said that there is no room.
    pub is_full: bool,
    /// Whether it said that it can be used as before.
    pub is_usable: bool,
}

impl Refused {
    fn by(part: Part, error: &LogError) -> Self {
        Self { part, text: error.to_string(), is_full: error.is_full(), is_usable: error.is_usable() }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stream(number) => write!(f, "stream {number}"),
            Self::System(log) => log.fmt(f),
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.part, self.text)
    }
}

/// What a producer sends.
#[derive(Debug, Clone, Copy)]
pub enum Shape {
    /// So many messages of so many bytes.
    Messages(u32, usize),
    /// A sign of life.
    Heartbeat,
}

/// A producer, and how far the broker is with it.
pub struct Producer {
    author: Author,
    stream: usize,
    sequence: SequenceState,
    /// Signed, and not taken yet.
    to_send: VecDeque<Bytes>,
    key_record: u64,
}

/// The producers, who live longer than the broker.
pub struct Producers(Vec<Producer>);

impl Producers {
    /// New ones.
    #[must_use]
    pub fn new() -> Self {
        let author = |(number, (stream, topic)): (usize, &(usize, &str))| Producer {
            author: Author::new(number as u8 + 1, topic, stream_id(*stream)),
            stream: *stream,
            sequence: SequenceState::from_start(),
            to_send: VecDeque::new(),
            key_record: 0,
        };
        Self(AUTHORS.iter().enumerate().map(author).collect())
    }

    /// Who they are.
    #[must_use]
    pub fn identities(&self) -> Vec<Identity> {
        self.0.iter().map(|producer| producer.author.identity().clone()).collect()
    }
}

impl Default for Producers {
    fn default() -> Self {
        Self::new()
    }
}

/// The open storage.
pub struct Rig {
    operations: Box<dyn Fn() -> usize + Send>,
    plan: Plan,
    random: Random,
    now_ms: u64,
    policy_version: u64,
    /// What was handed over.
    pub history: History,
    /// What must not be, and is, while everything runs.
    pub wrong: Vec<String>,
    producers: Producers,
    streams: Vec<StreamCore>,
    keys: Log,
    policies: Log,
    kept_producers: Log,
    cursors: CursorLog,
    stopped: BTreeMap<Part, Refused>,
    done: BTreeMap<&'static str, u64>,
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
            1..=36 => self.append_some(stream),
            37..=58 => self.commit(stream),
            59..=68 => {
                let passed_ms = *self.random.pick(&[200, 1_100, 11_000]);
                self.maintain(stream, passed_ms)
            }
            69..=82 => self.move_consumer(),
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

    fn append_some(&mut self, stream: usize) -> Result<(), Refused> {
        let authors: Vec<usize> = self.authors_of(stream).collect();
        let batches = self.random.between(1, 4);
        let group: Vec<(usize, Shape)> = (0..batches)
            .map(|_| {
                let shape = match self.random.between(1, 10) {
                    1..=2 => Shape::Heartbeat,
                    3..=6 => Shape::Messages(1, self.random.between(0, 300) as usize),
                    7..=9 => Shape::Messages(
                        self.random.between(2, 9) as u32,
                        self.random.between(0, 120) as usize,
                    ),
                    _ => Shape::Messages(
                        self.random.between(1, 3) as u32,
                        self.random.between(500, 1_800) as usize,
                    ),
                };
                (*self.random.pick(&authors), shape)
            })
            .collect();
        self.append(stream, &group)
    }

    /// Hands a group over. What a producer has still to send goes before anything new.
    ///
    /// # Errors
    /// [`Refused`]; when that says so, the group is with its producers again.
    pub fn append(&mut self, stream: usize, group: &[(usize, Shape)]) -> Result<(), Refused> {
        self.on_stream(stream, |rig, core| {
            let begun = rig.now();
            let taken: Vec<(usize, Box<Accepted>)> =
                group.iter().filter_map(|(author, shape)| rig.take_batch(*author, *shape, begun)).collect();
            let records: Vec<NewRecord> =
                taken.iter().map(|(author, accepted)| rig.record_of(*author, accepted)).collect();
            let offsets = rig.offsets_of_last(stream, records.len());
            match core.append_group(&records) {
                Ok(stored) => {
                    rig.did("groups");
                    let given: Vec<u64> = stored.iter().map(|stored| stored.offset).collect();
                    if given != offsets {
                        rig.wrong
                            .push(format!("I3: batches got the offsets {given:?} in place of {offsets:?}"));
                    }
                    Ok(())
                }
                Err(error) => {
                    if error.is_usable() {
                        rig.give_back(stream, taken);
                    }
                    Err(error)
                }
            }
        })
    }

    /// Makes what was appended to a stream durable, and acknowledges it.
    ///
    /// # Errors
    /// [`Refused`] by the stream.
    pub fn commit(&mut self, stream: usize) -> Result<(), Refused> {
        self.on_stream(stream, |rig, core| {
            core.commit()?;
            rig.did("commits");
            rig.acknowledge(stream);
            Ok(())
        })
    }

    fn maintain(&mut self, stream: usize, passed_ms: u64) -> Result<(), Refused> {
        // As the broker does, though not always in time: what is in no snapshot must not be trimmed.
        if self.random.one_in(2) {
            self.keep_producers(stream)?;
        }
        self.now_ms += passed_ms;
        let now = Moment::simulated(self.now_ms);
        self.on_stream(stream, |rig, core| {
            let begun = rig.now();
            rig.expect_checkpoint(stream, begun);
            if let Some(keep) = rig.plan.keep_messages.filter(|_| stream == 0) {
                let end = core.bounds().end;
                rig.expect_trim(stream, end.saturating_sub(keep), begun);
            }
            let mut events = Vec::new();
            let done = core.maintain(now, None, &mut events);
            rig.take_events(stream, begun, &events);
            done
        })
    }

    fn trim_some(&mut self, stream: usize) -> Result<(), Refused> {
        let end = self.history.streams.get(stream).map_or(0, |history| history.acked_end());
        let before = self.random.between(end / 4, end * 3 / 4);
        self.on_stream(stream, |rig, core| {
            let begun = rig.now();
            rig.expect_trim(stream, before, begun);
            let mut events = Vec::new();
            let first = core.trim(before, TrimReason::Asked, &mut events)?;
            if first > before.max(core.bounds().first) {
                rig.wrong.push(format!("trimmed to {first} although asked for {before}"));
            }
            rig.take_events(stream, begun, &events);
            Ok(())
        })
    }

    fn keep_producers(&mut self, stream: usize) -> Result<(), Refused> {
        let mut frames = Vec::new();
        let mut record = 0;
        self.on_stream(stream, |rig, core| {
            let snapshot = core.producers()?;
            rig.acknowledge(stream);
            record = snapshot.record;
            frames = encode_producers(stream_id(stream), &snapshot);
            Ok(())
        })?;
        let begun = self.now();
        frames.iter().for_each(|payload| self.history.producers.hand_over(payload, begun));
        self.write_plain(SystemLog::Producers, PRODUCERS_FRAME, &frames)?;
        self.history.producers.acknowledge(self.now());
        self.did("snapshots_of_producers");
        self.on_stream(stream, |_, core| {
            core.set_snapshot_record(record);
            Ok(())
        })
    }

    fn bind_key(&mut self) -> Result<(), Refused> {
        let record = self.history.keys.entries.len() as u64;
        let author = usize::try_from(record).unwrap_or_default() % AUTHORS.len();
        let Some(kid) = self.producers.0.get(author).map(|producer| producer.author.identity().kid()) else {
            return Ok(());
        };
        let binding_len = self.random.between(150, 700) as usize;
        let payload = encode_key(&kid, &principal(), &self.random.bytes(binding_len));
        let begun = self.now();
        self.history.keys.hand_over(&payload, begun);
        self.write_plain(SystemLog::Keys, KEY_FRAME, &[payload])?;
        self.history.keys.acknowledge(self.now());
        self.did("keys");
        // Only now may the producer publish under it.
        if let Some(producer) = self.producers.0.get_mut(author) {
            producer.key_record = record;
        }
        Ok(())
    }

    fn change_policy(&mut self) -> Result<(), Refused> {
        let version = self.policy_version + 1;
        let document_len = self.random.between(100, 2_000) as usize;
        let document = self.random.bytes(document_len);
        let hash = PolicyHash::new(Sha256::digest(&document).into());
        let frames = encode_policy(version, hash, self.now_ms, &document);
        let begun = self.now();
        frames.iter().for_each(|payload| self.history.policies.hand_over(payload, begun));
        self.write_plain(SystemLog::Policy, POLICY_FRAME, &frames)?;
        self.history.policies.acknowledge(self.now());
        self.did("policies");
        self.policy_version = version;
        Ok(())
    }

    fn move_consumer(&mut self) -> Result<(), Refused> {
        let (stream, name) = *self.random.pick(&CONSUMERS);
        let consumer: Consumer = (stream, name.to_owned());
        let end = self.history.streams.get(stream).map_or(0, |history| history.acked_end());
        let places = self.history.cursors.get(&consumer);
        let last = places.and_then(|places| places.last()).and_then(|(position, _)| *position).unwrap_or(0);
        let position = self.random.between(last, end.max(last));
        let settled = (1..).map(|number| position + 2 * number..position + 2 * number + 1);
        let most = self.random.between(0, 60) as usize;
        let settled: Vec<Range<u64>> = settled.take_while(|range| range.end <= end).take(most).collect();
        self.change_consumer(&consumer, Some((position, settled)))
    }

    fn remove_consumer(&mut self) -> Result<(), Refused> {
        let (stream, name) = *self.random.pick(&CONSUMERS);
        self.change_consumer(&(stream, name.to_owned()), None)
    }

    fn change_consumer(
        &mut self,
        consumer: &Consumer,
        to: Option<(u64, Vec<Range<u64>>)>,
    ) -> Result<(), Refused> {
        let part = Part::System(SystemLog::Cursors);
        self.check_running(part)?;
        let (stream, name) = consumer;
        let position = to.as_ref().map(|(position, _)| *position);
        let frame = match to {
            Some((position, settled)) => cursor_of(name, *stream, position, settled).0,
            None => CursorChange::Removed(consumer_key(name, *stream)).encode(),
        };
        self.history.stand(consumer, position, (self.operations)());
        match self.cursors.append(&[frame], self.now_ms) {
            Ok(_) => Ok(()),
            Err(CursorAppendError::Log(error)) => {
                if error.is_usable()
                    && let Some(places) = self.history.cursors.get_mut(consumer)
                {
                    places.pop();
                }
                Err(self.refused(part, &error))
            }
            Err(CursorAppendError::Record(error)) => {
                self.wrong.push(format!("a cursor is refused: {error}"));
                Ok(())
            }
        }
    }

    fn sync_cursors(&mut self) -> Result<(), Refused> {
        let part = Part::System(SystemLog::Cursors);
        self.check_running(part)?;
        let (now_ms, began) = (self.now_ms, self.cursors.log().first_offset());
        self.cursors.sync(now_ms).map_err(|error| self.refused(part, &error))?;
        self.did("cursor_commits");
        if self.cursors.log().first_offset() > began {
            self.did("cursor_logs_shortened");
        }
        self.history.acknowledge_cursors((self.operations)());
        Ok(())
    }

    fn write_system_watermarks(&mut self) -> Result<(), Refused> {
        for which in [SystemLog::Keys, SystemLog::Policy, SystemLog::Producers, SystemLog::Cursors] {
            let part = Part::System(which);
            if self.stopped.contains_key(&part) {
                continue;
            }
            let written = self.plain(which).write_watermark();
            written.map_err(|error| self.refused(part, &error))?;
        }
        Ok(())
    }

    fn write_plain(&mut self, which: SystemLog, kind: u8, payloads: &[Bytes]) -> Result<(), Refused> {
        let part = Part::System(which);
        let before = self.plain(which).end_record();
        let time_ms = self.now_ms;
        let parts: Vec<[&[u8]; 1]> = payloads.iter().map(|payload| [&payload[..]]).collect();
        let frames: Vec<NewFrame<'_>> =
            parts.iter().map(|payload| NewFrame { kind, flags: 0, count: 1, time_ms, payload }).collect();
        let written = match self.check_running(part) {
            Err(refused) => Err((refused, true)),
            Ok(()) => match self.plain(which).append(&frames) {
                Err(error) => Err((self.refused(part, &error), error.is_usable())),
                Ok(_) => self.plain(which).sync().map_err(|error| (self.refused(part, &error), false)),
            },
        };
        written.map_err(|(refused, is_as_before)| {
            if is_as_before {
                let history = self.plain_history(which);
                history.entries.truncate(usize::try_from(before).unwrap_or(usize::MAX));
            }
            refused
        })
    }

    const fn plain(&mut self, which: SystemLog) -> &mut Log {
        match which {
            SystemLog::Keys => &mut self.keys,
            SystemLog::Policy => &mut self.policies,
            SystemLog::Producers => &mut self.kept_producers,
            SystemLog::Cursors => self.cursors.log(),
        }
    }

    const fn plain_history(&mut self, which: SystemLog) -> &mut super::history::PlainHistory {
        match which {
            SystemLog::Keys => &mut self.history.keys,
            SystemLog::Policy => &mut self.history.policies,
            SystemLog::Producers | SystemLog::Cursors => &mut self.history.producers,
        }
    }

    fn authors_of(&self, stream: usize) -> impl Iterator<Item = usize> {
        let authors = self.producers.0.iter().enumerate();
        authors.filter(move |(_, producer)| producer.stream == stream).map(|(author, _)| author)
    }

    /// The producer's next batch, accepted and in the history.
    fn take_batch(&mut self, author: usize, shape: Shape, begun: usize) -> Option<(usize, Box<Accepted>)> {
        let producer = self.producers.0.get_mut(author)?;
        let batch = match (producer.to_send.pop_front(), shape) {
            (Some(batch), _) => batch,
            (None, Shape::Messages(messages, bytes)) => {
                producer.author.sign(messages, bytes, &mut self.random)
            }
            (None, Shape::Heartbeat) => producer.author.sign_heartbeat(),
        };
        let identity = producer.author.identity();
        let accepted = match identity.judge(&producer.sequence, batch.clone()) {
            Verdict::Accept(accepted) => accepted,
            other => {
                self.wrong.push(format!("I5: the next batch of producer {author} {}", said(&other)));
                return None;
            }
        };
        let preamble = accepted.batch().preamble();
        let messages = preamble.content.messages();
        let digest = *accepted.batch().digest().as_bytes();
        let history = self.history.streams.get_mut(producer.stream)?;
        let offset = Some(history.end());
        history.hand_over(
            Handed {
                author,
                topic: identity.topic().as_str(),
                key_record: producer.key_record,
                policy_version: self.policy_version,
                now_ms: self.now_ms,
                messages,
                place: (preamble.first_seq, preamble.next_seq(), digest),
                batch,
            },
            begun,
        );
        producer.sequence.commit(&accepted, Receipt { durability: Durability::Fsync, offset });
        Some((author, Box::new(accepted)))
    }

    fn record_of(&self, author: usize, accepted: &Accepted) -> NewRecord {
        let producer = self.producers.0.get(author).expect("the batch is one of a producer");
        NewRecord::of_batch(
            accepted.batch(),
            producer.author.identity().topic().clone(),
            producer.key_record,
            InstanceKind::Random,
            self.policy_version,
            self.now_ms,
        )
    }

    fn offsets_of_last(&self, stream: usize, batches: usize) -> Vec<u64> {
        let entries =
            self.history.streams.get(stream).map(|history| history.entries.as_slice()).unwrap_or_default();
        let from = entries.len().saturating_sub(batches);
        entries.iter().skip(from).map(|entry| entry.offset).collect()
    }

    /// A group was refused: it is with its producers again, and their sequences are where they were.
    fn give_back(&mut self, stream: usize, taken: Vec<(usize, Box<Accepted>)>) {
        if let Some(history) = self.history.streams.get_mut(stream) {
            history.take_back(taken.len());
        }
        for (author, accepted) in taken.into_iter().rev() {
            if let Some(producer) = self.producers.0.get_mut(author) {
                producer.sequence.withdraw(&accepted);
                producer.to_send.push_front(accepted.batch().bytes().clone());
            }
        }
    }

    fn acknowledge(&mut self, stream: usize) {
        let operations = (self.operations)();
        if let Some(history) = self.history.streams.get_mut(stream) {
            history.acknowledge(operations);
        }
    }

    /// A checkpoint over everything may be signed from now on.
    fn expect_checkpoint(&mut self, stream: usize, begun: usize) {
        if let Some(history) = self.history.streams.get_mut(stream) {
            let size = history.entries.len() as u64;
            history.checkpoints.push(Signed { size, when: When::begun(begun) });
        }
    }

    /// Batches below this offset may go from now on.
    fn expect_trim(&mut self, stream: usize, first: u64, begun: usize) {
        if let Some(history) = self.history.streams.get_mut(stream) {
            history.trims.push(Trim { first, when: When::begun(begun) });
        }
    }

    fn take_events(&mut self, stream: usize, begun: usize, events: &[StreamEvent]) {
        let acked = Some((self.operations)());
        for event in events {
            match event {
                StreamEvent::CheckpointSigned { .. } => self.did("checkpoints"),
                StreamEvent::Trimmed { why: TrimReason::Asked, .. } => self.did("trims_asked_for"),
                StreamEvent::Trimmed { .. } => self.did("trims_by_retention"),
                StreamEvent::SegmentSealed { .. } => self.did("segments_completed"),
                StreamEvent::ClockJumped { .. }
                | StreamEvent::Damaged(_)
                | StreamEvent::Stopped(_)
                | StreamEvent::Full
                | StreamEvent::Resumed => {}
            }
        }
        let Some(history) = self.history.streams.get_mut(stream) else { return };
        for event in events {
            match event {
                StreamEvent::CheckpointSigned { size } => {
                    if *size != history.entries.len() as u64 {
                        self.wrong
                            .push(format!("a checkpoint over {size} of {} batches", history.entries.len()));
                    }
                    history.checkpoints.push(Signed { size: *size, when: When { begun, acked } });
                }
                StreamEvent::Trimmed { to, .. } => {
                    history.trims.push(Trim { first: *to, when: When { begun, acked } });
                }
                StreamEvent::SegmentSealed { .. } | StreamEvent::ClockJumped { .. } => {}
                StreamEvent::Damaged(_)
                | StreamEvent::Stopped(_)
                | StreamEvent::Full
                | StreamEvent::Resumed => self.wrong.push(format!("stream {stream} reports {event:?}")),
            }
        }
    }

    /// Works with a stream that has not stopped; one that cannot be used afterwards has.
    fn on_stream(
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
    fn check_silent(&mut self, stream: usize, core: &mut StreamCore) {
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

    fn check_running(&self, part: Part) -> Result<(), Refused> {
        self.stopped.get(&part).map_or(Ok(()), |refused| Err(refused.clone()))
    }

    fn refused(&mut self, part: Part, error: &LogError) -> Refused {
        let refused = Refused::by(part, error);
        // As the broker's threads do: whatever is not a lack of room stops the part.
        if !(refused.is_full && refused.is_usable) {
            self.stopped.entry(part).or_insert_with(|| refused.clone());
        }
        refused
    }

    fn did(&mut self, what: &'static str) {
        *self.done.entry(what).or_default() += 1;
    }

    fn now(&self) -> usize {
        (self.operations)()
    }

    /// Brings the history to what was opened, and has the producers go on.
    fn settle(&mut self, positions: &BTreeMap<(StreamId, String), u64>, before: Before) {
        let operations = self.now();
        let mut ends = Vec::new();
        for (number, core) in self.streams.iter_mut().enumerate() {
            let (records, bounds) = (usize::try_from(core.end_record()).unwrap_or(usize::MAX), core.bounds());
            let checkpoint = core.checkpoint().map(|checkpoint| checkpoint.size);
            let Some(history) = self.history.streams.get_mut(number) else { continue };
            let must = history.entries.iter().take_while(|entry| entry.when.acked.is_some()).count();
            if before == Before::SameDisk && (records < must || records > history.entries.len()) {
                let handed = history.entries.len();
                let text = format!(
                    "I1: stream {number} has {records} batches, {must} acknowledged, {handed} handed over"
                );
                self.wrong.push(text);
            }
            ends.push(history.entries.get(records..).unwrap_or_default().to_vec());
            match before {
                Before::SameDisk => {
                    history.entries.truncate(records);
                    history.acknowledge(operations);
                }
                Before::PowerLoss => history.settle(records, bounds.first, checkpoint),
            }
        }
        for which in [SystemLog::Keys, SystemLog::Policy, SystemLog::Producers] {
            let records = usize::try_from(self.plain(which).end_record()).unwrap_or(usize::MAX);
            let history = self.plain_history(which);
            match before {
                Before::SameDisk => {
                    history.entries.truncate(records);
                    history.acknowledge(operations);
                }
                Before::PowerLoss => history.settle(records),
            }
        }
        self.policy_version =
            self.policy_version.max(POLICY_VERSION + self.history.policies.entries.len() as u64);
        self.settle_cursors(positions, before);
        self.settle_producers(&ends);
    }

    fn settle_cursors(&mut self, positions: &BTreeMap<(StreamId, String), u64>, before: Before) {
        let operations = self.now();
        for ((stream, name), places) in &mut self.history.cursors {
            let found = positions.get(&(stream_id(*stream), name.clone())).copied();
            // One that was removed and one that never was cannot be told apart.
            let from = places.iter().rposition(|(_, when)| when.acked.is_some()).unwrap_or(0);
            let tail = places.get(from..).unwrap_or_default();
            match tail.iter().rposition(|(position, _)| *position == found) {
                Some(place) => places.truncate(from + place + 1),
                None if found.is_none() && tail.iter().all(|(_, when)| when.acked.is_none()) => {
                    places.clear()
                }
                None if before == Before::PowerLoss => {
                    // An older one, of the moment at which the power was lost. The check of that state has judged it.
                    places.retain(|(position, _)| *position == found);
                    places.truncate(1);
                }
                None => {
                    self.wrong.push(format!("{name} of stream {stream} stands at {found:?}, not in {tail:?}"))
                }
            }
            for (_, when) in places {
                *when = match before {
                    Before::PowerLoss => When::ALWAYS,
                    Before::SameDisk => When { acked: when.acked.or(Some(operations)), ..*when },
                };
            }
        }
    }

    /// Each producer sends again what was handed over and is not there; what is there is known as a duplicate.
    fn settle_producers(&mut self, ends: &[Vec<super::history::BatchEntry>]) {
        for (number, core) in self.streams.iter_mut().enumerate() {
            let known = match core.producers() {
                Ok(known) => known,
                Err(error) => {
                    self.wrong.push(format!("stream {number} does not tell its producers: {error}"));
                    continue;
                }
            };
            for (author, producer) in self.producers.0.iter_mut().enumerate() {
                if producer.stream != number {
                    continue;
                }
                let identity = producer.author.identity();
                let recovered = known
                    .producers
                    .iter()
                    .find(|found| found.claim.incarnation_id == identity.incarnation_id());
                let sequence = recovered
                    .and_then(|found| found.topics.iter().find(|(topic, _)| topic == identity.topic()));
                producer.sequence =
                    sequence.map_or_else(SequenceState::from_start, |(_, state)| state.clone());
                let history = self.history.streams.get(number);
                let kept = history.map(|history| history.entries.as_slice()).unwrap_or_default();
                for entry in kept.iter().rev().filter(|entry| entry.author == author).take(3) {
                    match identity.judge(&producer.sequence, entry.batch.clone()) {
                        Verdict::Duplicate(receipt) if receipt.offset == Some(entry.offset) => {
                            *self.done.entry("duplicates_recognised").or_default() += 1;
                        }
                        other => self.wrong.push(format!(
                            "I5: the batch of producer {author} at {} is sent again and {}",
                            entry.offset,
                            said(&other)
                        )),
                    }
                }
                let lost = ends.get(number).into_iter().flatten().filter(|entry| entry.author == author);
                for entry in lost.rev() {
                    *self.done.entry("batches_sent_again").or_default() += 1;
                    producer.to_send.push_front(entry.batch.clone());
                }
                producer.key_record =
                    producer.key_record.min((self.history.keys.entries.len() as u64).saturating_sub(1));
            }
        }
    }
}

/// What opening gives.
struct Opened {
    streams: Vec<StreamCore>,
    keys: Log,
    policies: Log,
    kept_producers: Log,
    cursors: CursorLog,
    positions: BTreeMap<(StreamId, String), u64>,
    damage: Vec<String>,
}

impl Opened {
    fn of(vfs: &Arc<dyn Vfs>, plan: &Plan) -> Result<Self, Refused> {
        let other = |part: Part, text: String| Refused { part, text, is_full: false, is_usable: false };
        let mut damage = Vec::new();
        let mut open = |which: SystemLog| {
            let (log, recovery) = Log::open(Arc::clone(vfs), &system_dir(which), system_options(which))
                .map_err(|error| Refused::by(Part::System(which), &error))?;
            damage.extend(recovery.damage.iter().map(|damage| format!("{which}: {damage:?}")));
            Ok(log)
        };
        let (policies, keys, kept_producers) =
            (open(SystemLog::Policy)?, open(SystemLog::Keys)?, open(SystemLog::Producers)?);
        let which = SystemLog::Cursors;
        let (cursors, recovered) =
            CursorLog::open(Arc::clone(vfs), &system_dir(which), system_options(which))
                .map_err(|error| other(Part::System(which), error.to_string()))?;
        damage.extend(recovered.recovery.damage.iter().map(|damage| format!("{which}: {damage:?}")));
        damage.extend(recovered.refused.iter().map(ToString::to_string));
        let positions = recovered.consumers.iter();
        let positions = positions
            .map(|kept| ((kept.key.stream, kept.key.name.to_string()), kept.cursor.position()))
            .collect();
        let producers = Part::System(SystemLog::Producers);
        let mut snapshots =
            read_snapshots(&kept_producers.reader()).map_err(|error| other(producers, error))?;
        let mut streams = Vec::new();
        for stream in 0..STREAMS.len() {
            let snapshot = snapshots.take(stream_id(stream));
            let record = snapshot.record;
            let (dir, options) = (stream_dir(stream), plan.stream(stream));
            let (mut core, opened) = StreamCore::open(Arc::clone(vfs), &dir, options, Some(snapshot))
                .map_err(|error| other(Part::Stream(stream), error.to_string()))?;
            core.set_snapshot_record(record);
            damage.extend(opened.events.iter().map(|event| format!("stream {stream}: {event:?}")));
            streams.push(core);
        }
        Ok(Self { streams, keys, policies, kept_producers, cursors, positions, damage })
    }
}

fn said(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Accept(_) => "is accepted as a new one".to_owned(),
        Verdict::Duplicate(receipt) => format!("is a duplicate of the one at {:?}", receipt.offset),
        Verdict::Refuse(refusal) => format!("is refused: {refusal:?}"),
        Verdict::Equivocate(_) => "is another one in its place".to_owned(),
    }
}

fn consumer_key(name: &str, stream: usize) -> ConsumerKey {
    let name = Name::parse(name).expect("the campaign's names are names");
    ConsumerKey { stream: stream_id(stream), name }
}

/// A record of `$cursors`, and whose it is.
///
/// # Panics
/// When the name or the cursor is none.
#[must_use]
pub fn cursor_of(
    name: &str,
    stream: usize,
    position: u64,
    settled: Vec<Range<u64>>,
) -> (SystemFrame, (StreamId, String)) {
    let key = consumer_key(name, stream);
    let settings = ConsumerSettings::new(AskedSettings::default()).expect("the defaults are allowed");
    let cursor = Cursor::new(position, settled, Vec::new()).expect("the campaign's cursors are cursors");
    let whose = (key.stream, key.name.to_string());
    (CursorChange::Stands(KeptConsumer { key, settings, cursor }).encode(), whose)
}
