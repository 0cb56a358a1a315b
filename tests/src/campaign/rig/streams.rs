//! What is done to streams.

use sealbus_broker::storage::stream::store::{StreamEvent, TrimReason};
use sealbus_broker::storage::stream::{Moment, NewRecord};
use sealbus_broker::storage::system::SystemLog;
use sealbus_broker::storage::system::producers::{PRODUCERS_FRAME, encode_producers};
use sealbus_protocol::batch::accept::{Accepted, Durability, Receipt, Verdict};
use sealbus_protocol::frame::InstanceKind;

use super::driver::Rig;
use super::part::Refused;
use super::producers::{Shape, said};
use crate::campaign::history::{Handed, Signed, Trim, When};
use crate::campaign::place::stream_id;

impl Rig {
    pub(super) fn append_some(&mut self, stream: usize) -> Result<(), Refused> {
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
                    rig.forget_ghosts(stream);
                    let given: Vec<u64> = stored.iter().map(|stored| stored.offset).collect();
                    if given != offsets {
                        rig.wrong
                            .push(format!("I3: batches got the offsets {given:?} in place of {offsets:?}"));
                    }
                    Ok(())
                }
                Err(error) => {
                    if error.is_usable() {
                        rig.give_back(stream, taken, begun);
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

    pub(super) fn maintain(&mut self, stream: usize, passed_ms: u64) -> Result<(), Refused> {
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

    pub(super) fn trim_some(&mut self, stream: usize) -> Result<(), Refused> {
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

    pub(super) fn keep_producers(&mut self, stream: usize) -> Result<(), Refused> {
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

    pub(super) fn authors_of(&self, stream: usize) -> impl Iterator<Item = usize> {
        let authors = self.producers.0.iter().enumerate();
        authors.filter(move |(_, producer)| producer.stream == stream).map(|(author, _)| author)
    }

    /// The producer's next batch, accepted and in the history.
    pub(super) fn take_batch(
        &mut self,
        author: usize,
        shape: Shape,
        begun: usize,
    ) -> Option<(usize, Box<Accepted>)> {
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

    pub(super) fn record_of(&self, author: usize, accepted: &Accepted) -> NewRecord {
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

    pub(super) fn offsets_of_last(&self, stream: usize, batches: usize) -> Vec<u64> {
        let entries =
            self.history.streams.get(stream).map(|history| history.entries.as_slice()).unwrap_or_default();
        let from = entries.len().saturating_sub(batches);
        entries.iter().skip(from).map(|entry| entry.offset).collect()
    }

    /// A group was refused: it is with its producers again, and their sequences are where they were.
    pub(super) fn give_back(&mut self, stream: usize, taken: Vec<(usize, Box<Accepted>)>, begun: usize) {
        if let Some(history) = self.history.streams.get_mut(stream) {
            history.take_back(taken.len(), begun);
        }
        for (author, accepted) in taken.into_iter().rev() {
            if let Some(producer) = self.producers.0.get_mut(author) {
                producer.sequence.withdraw(&accepted);
                producer.to_send.push_front(accepted.batch().bytes().clone());
            }
        }
    }

    /// The disk has been told where the stream ends.
    pub(super) fn forget_ghosts(&mut self, stream: usize) {
        let operations = (self.operations)();
        if let Some(history) = self.history.streams.get_mut(stream) {
            history.forget_ghosts(operations);
        }
    }

    pub(super) fn acknowledge(&mut self, stream: usize) {
        let operations = (self.operations)();
        if let Some(history) = self.history.streams.get_mut(stream) {
            history.acknowledge(operations);
            history.forget_ghosts(operations);
        }
    }

    /// A checkpoint over everything may be signed from now on.
    pub(super) fn expect_checkpoint(&mut self, stream: usize, begun: usize) {
        if let Some(history) = self.history.streams.get_mut(stream) {
            let size = history.entries.len() as u64;
            history.checkpoints.push(Signed { size, when: When::begun(begun) });
        }
    }

    /// Batches below this offset may go from now on.
    pub(super) fn expect_trim(&mut self, stream: usize, first: u64, begun: usize) {
        if let Some(history) = self.history.streams.get_mut(stream) {
            history.trims.push(Trim { first, when: When::begun(begun) });
        }
    }

    pub(super) fn take_events(&mut self, stream: usize, begun: usize, events: &[StreamEvent]) {
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
}
