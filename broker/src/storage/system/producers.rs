//! `$producers`: where the producers of each stream stood at some record of it, so that what retention removes from a
//! stream takes no sequence with it.
//!
//! ```text
//!   frames of kind 34, one item each; a snapshot is all parts of the newest (stream, record) that are there
//!   0           16       24     28      32
//!   +-----------+--------+------+-------+---+------------------------------------------------------------------+
//!   | stream_id | record | part | parts | n | n x producer                                                     |
//!   +-----------+--------+------+-------+---+------------------------------------------------------------------+
//!     (16)        u64      u32    u32    u32
//!
//!   producer   kid (32) | instance_id (16) | configured u8 | started_ms u64 | incarnation_id (16) | key_record u64
//!              last_ms u64 | u16 n, n x topic
//!   topic      u16 len, name | u8 n, n x (first_seq u64 | next_seq u64 | digest (32) | durability u8 | offset u64)
//! ```

use bytes::{BufMut as _, Bytes, BytesMut};
use sealbus_protocol::batch::accept::{Durability, Receipt, RememberedBatch, SequenceState};
use sealbus_protocol::frame::InstanceKind;
use sealbus_protocol::ids::{IncarnationId, InstanceId, Kid, PreambleDigest, StreamId};
use sealbus_protocol::limits::TOPIC_BYTES_MAX;
use sealbus_protocol::topic::Topic;
use sealbus_protocol::wire::{DecodeError, Reader, Write as _};

use crate::storage::stream::{ProducerSnapshot, RecoveredClaim, RecoveredProducer};

/// The kind of a frame that holds a part of a snapshot.
pub const PRODUCERS_FRAME: u8 = 34;

/// Bytes after which a part is complete. One producer more may follow it; the largest, with all the topics that one
/// record takes, has less than half of a frame.
const PART_BYTES: usize = 256 * 1_024;

/// Topics of one producer in one record; a producer with more stands there several times.
const TOPICS_PER_ENTRY: usize = 128;

/// A part of a snapshot.
#[derive(Debug)]
pub struct ProducersPart {
    /// The stream.
    pub stream: StreamId,
    /// Everything before this record of the stream is in the snapshot.
    pub record: u64,
    /// Which part, from 0.
    pub part: u32,
    /// How many there are.
    pub parts: u32,
    /// The producers of the part.
    pub producers: Vec<RecoveredProducer>,
}

/// The payloads of the records that hold a snapshot: at least one.
#[must_use]
pub fn encode_producers(stream: StreamId, snapshot: &ProducerSnapshot) -> Vec<Bytes> {
    let mut bodies = vec![(0_u32, BytesMut::new())];
    for producer in &snapshot.producers {
        for topics in producer.topics.chunks(TOPICS_PER_ENTRY) {
            let (count, body) = bodies.last_mut().expect("there is one from the beginning");
            *count += 1;
            encode_producer(producer, topics, body);
            if body.len() >= PART_BYTES {
                bodies.push((0, BytesMut::new()));
            }
        }
    }
    let parts = u32::try_from(bodies.len()).unwrap_or(u32::MAX);
    (0..parts)
        .zip(bodies)
        .map(|(part, (count, body))| {
            let mut out = BytesMut::with_capacity(64 + body.len());
            out.raw(stream.as_bytes());
            out.u64(snapshot.record);
            out.u32(part);
            out.u32(parts);
            out.u32(count);
            out.put(body);
            out.freeze()
        })
        .collect()
}

fn encode_producer(producer: &RecoveredProducer, topics: &[(Topic, SequenceState)], out: &mut BytesMut) {
    let RecoveredProducer { claim, key_record, topics: _, last_ms } = producer;
    out.raw(claim.kid.as_bytes());
    out.raw(claim.instance_id.as_bytes());
    out.u8(match claim.instance_kind {
        InstanceKind::Random => 0,
        InstanceKind::Configured => 1,
    });
    out.u64(claim.started_ms);
    out.raw(claim.incarnation_id.as_bytes());
    out.u64(*key_record);
    out.u64(*last_ms);
    out.u16(u16::try_from(topics.len()).expect("an entry has few topics"));
    for (topic, state) in topics {
        out.bytes16(topic.as_str().as_bytes());
        let batches = state.remembered();
        out.u8(u8::try_from(batches.len()).expect("a window has 64 batches"));
        for RememberedBatch { first_seq, next_seq, digest, receipt } in batches {
            out.u64(first_seq);
            out.u64(next_seq);
            out.raw(digest.as_bytes());
            out.u8(receipt.durability as u8);
            out.u64(receipt.offset.unwrap_or(u64::MAX));
        }
    }
}

/// Reads a record.
///
/// # Errors
/// [`DecodeError`] when it is not one of ours.
pub fn decode_producers(payload: &[u8]) -> Result<ProducersPart, DecodeError> {
    let mut reader = Reader::new(payload);
    let stream = StreamId::new(reader.array("stream_id")?);
    let record = reader.u64("record")?;
    let (part, parts) = (reader.u32("part")?, reader.u32("parts")?);
    if part >= parts {
        return Err(DecodeError::Value { field: "part" });
    }
    // No memory is set aside by the number: each producer has a hundred bytes, and they may not be there.
    let count = reader.u32("producers")?;
    let producers = (0..count).map(|_| decode_producer(&mut reader)).collect::<Result<_, _>>()?;
    reader.finish()?;
    Ok(ProducersPart { stream, record, part, parts, producers })
}

fn decode_producer(reader: &mut Reader<'_>) -> Result<RecoveredProducer, DecodeError> {
    let kid = Kid::new(reader.array("kid")?);
    let instance_id = InstanceId::new(reader.array("instance_id")?);
    let instance_kind = match reader.u8("configured")? {
        0 => InstanceKind::Random,
        1 => InstanceKind::Configured,
        _ => return Err(DecodeError::Value { field: "configured" }),
    };
    let started_ms = reader.u64("started_ms")?;
    let incarnation_id = IncarnationId::new(reader.array("incarnation_id")?);
    let claim = RecoveredClaim { kid, instance_id, instance_kind, started_ms, incarnation_id };
    let (key_record, last_ms) = (reader.u64("key_record")?, reader.u64("last_ms")?);
    let count = reader.u16("topics")?;
    let topics = (0..count).map(|_| decode_topic(reader)).collect::<Result<_, _>>()?;
    Ok(RecoveredProducer { claim, key_record, topics, last_ms })
}

fn decode_topic(reader: &mut Reader<'_>) -> Result<(Topic, SequenceState), DecodeError> {
    let name = reader.text16("topic", TOPIC_BYTES_MAX)?;
    let topic = Topic::parse(name).map_err(|_| DecodeError::Value { field: "topic" })?;
    let count = reader.u8("batches")?;
    let batches: Vec<RememberedBatch> = (0..count).map(|_| decode_batch(reader)).collect::<Result<_, _>>()?;
    Ok((topic, SequenceState::restore(batches)))
}

fn decode_batch(reader: &mut Reader<'_>) -> Result<RememberedBatch, DecodeError> {
    Ok(RememberedBatch {
        first_seq: reader.u64("first_seq")?,
        next_seq: reader.u64("next_seq")?,
        digest: PreambleDigest::new(reader.array("digest")?),
        receipt: Receipt {
            durability: Durability::from_wire(reader.u8("durability")?)
                .ok_or(DecodeError::Value { field: "durability" })?,
            offset: match reader.u64("offset")? {
                u64::MAX => None,
                offset => Some(offset),
            },
        },
    })
}

/// The newest whole snapshot of each stream, of records in the order in which they were written.
#[derive(Debug, Default)]
pub struct Snapshots {
    whole: std::collections::HashMap<StreamId, ProducerSnapshot>,
    begun: std::collections::HashMap<StreamId, (u32, u32, ProducerSnapshot)>,
}

impl Snapshots {
    /// The next record. Gives the stream whose snapshot is whole with it.
    pub fn take_in(&mut self, part: ProducersPart) -> Option<StreamId> {
        let ProducersPart { stream, record, part, parts, producers } = part;
        let begun = match self.begun.remove(&stream) {
            Some((next, of, snapshot)) if (next, of, snapshot.record) == (part, parts, record) => {
                Some(snapshot)
            }
            // One whose writing was cut short is as good as none: the one before it stands.
            Some(_) | None => (part == 0).then(|| ProducerSnapshot { record, producers: Vec::new() }),
        };
        let mut snapshot = begun?;
        snapshot.producers.extend(producers);
        if part + 1 == parts {
            self.whole.insert(stream, snapshot);
            Some(stream)
        } else {
            self.begun.insert(stream, (part + 1, parts, snapshot));
            None
        }
    }

    /// The snapshot of a stream, which stays here.
    #[must_use]
    pub fn find(&self, stream: StreamId) -> Option<&ProducerSnapshot> {
        self.whole.get(&stream)
    }

    /// The snapshot of a stream; an empty one when there is none.
    #[must_use]
    pub fn take(&mut self, stream: StreamId) -> ProducerSnapshot {
        self.whole.remove(&stream).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(record: u64, producers: u8, topics: usize) -> ProducerSnapshot {
        let batch = |seq: u64| RememberedBatch {
            first_seq: seq,
            next_seq: seq + 3,
            digest: PreambleDigest::new([seq as u8; 32]),
            receipt: Receipt { durability: Durability::Fsync, offset: Some(seq + 100) },
        };
        let producer = |number: u8| RecoveredProducer {
            claim: RecoveredClaim {
                kid: Kid::new([number; 32]),
                instance_id: InstanceId::new([number; 16]),
                instance_kind: InstanceKind::Configured,
                started_ms: 5,
                incarnation_id: IncarnationId::new([number; 16]),
            },
            key_record: 7,
            topics: (0..topics)
                .map(|topic| {
                    let topic = Topic::parse(&format!("t/{topic}")).unwrap();
                    (topic, SequenceState::restore((0..64).map(|batch_number| batch(batch_number * 3))))
                })
                .collect(),
            last_ms: 9,
        };
        ProducerSnapshot { record, producers: (0..producers).map(producer).collect() }
    }

    fn sequences(snapshot: &ProducerSnapshot) -> Vec<(IncarnationId, Topic, Vec<RememberedBatch>)> {
        let mut found = Vec::new();
        for producer in &snapshot.producers {
            for (topic, state) in &producer.topics {
                found.push((producer.claim.incarnation_id, topic.clone(), state.remembered().collect()));
            }
        }
        found
    }

    #[test]
    fn a_snapshot_comes_back_from_its_parts() {
        let stream = StreamId::new([3; 16]);
        let before = snapshot(17, 3, 300);
        let records = encode_producers(stream, &before);
        assert!(records.len() > 2, "{}", records.len());
        assert!(records.iter().all(|record| record.len() < 1_024 * 1_024));
        let mut snapshots = Snapshots::default();
        for record in &records {
            snapshots.take_in(decode_producers(record).unwrap());
        }
        let after = snapshots.take(stream);
        assert_eq!(after.record, 17);
        assert_eq!(sequences(&after), sequences(&before));
        assert!(snapshots.take(stream).producers.is_empty());
    }

    #[test]
    fn a_snapshot_that_was_cut_short_leaves_the_one_before() {
        let stream = StreamId::new([3; 16]);
        let mut snapshots = Snapshots::default();
        let whole = encode_producers(stream, &snapshot(17, 1, 1));
        let short = encode_producers(stream, &snapshot(20, 3, 300));
        for record in whole.iter().chain(&short[..1]).chain(&short[2..]) {
            snapshots.take_in(decode_producers(record).unwrap());
        }
        assert_eq!(snapshots.take(stream).record, 17);
    }

    #[test]
    fn what_is_cut_or_longer_is_refused() {
        let record = &encode_producers(StreamId::new([3; 16]), &snapshot(17, 1, 1))[0];
        for cut in 0..record.len() {
            assert!(decode_producers(&record[..cut]).is_err(), "{cut}");
        }
        assert!(decode_producers(&[&record[..], &[0]].concat()).is_err());
    }
}
