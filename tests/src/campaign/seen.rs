//! What is found after a power loss: everything is opened as the broker opens it, read through the readers that the
//! broker has, opened again, added to, and opened once more.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use sealbus_broker::storage::log::{Log, LogReader, NewFrame, SkipReason};
use sealbus_broker::storage::stream::{
    Moment, NewRecord, ProducerSnapshot, StreamCore, StreamOptions, decode,
};
use sealbus_broker::storage::system::keys::KeyDirectory;
use sealbus_broker::storage::system::producers::{Snapshots, decode_producers};
use sealbus_broker::storage::system::{CursorLog, SystemLog};
use sealbus_broker::vfs::Vfs;
use sealbus_protocol::frame::InstanceKind;
use sealbus_protocol::ids::{IncarnationId, StreamId};
use sealbus_protocol::tlog::{Checkpoint, NoteSigner};
use sealbus_protocol::topic::Topic;
use sha2::{Digest as _, Sha256};

use super::history::{Facts, Fingerprint};
use super::place::system_options;

/// What a window remembers of a batch: its place in the sequence, its digest, its offset.
pub type Remembered = (u64, u64, [u8; 32], Option<u64>);

/// A record of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordSeen {
    /// Its number.
    pub record: u64,
    /// Its first offset.
    pub offset: u64,
    /// Offsets that it takes.
    pub messages: u32,
    /// Of everything about it.
    pub fingerprint: Fingerprint,
}

/// A stream.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StreamSeen {
    /// What can be read, record by record.
    pub records: Vec<RecordSeen>,
    /// First offset, end offset, and the record after the last.
    pub first: u64,
    /// The offset after the last.
    pub end: u64,
    /// The record after the last.
    pub end_record: u64,
    /// Offsets that a reader from 0 was told will not come, with whether they were trimmed.
    pub skipped: Vec<(u64, u64, bool)>,
    /// What was reported.
    pub damage: Vec<String>,
    /// Why nothing may be appended.
    pub stopped: Option<String>,
    /// The checkpoint, whose signature is good.
    pub checkpoint: Option<(u64, Fingerprint)>,
    /// The root of the tree over everything.
    pub root: Fingerprint,
    /// Where each producer stands on each topic.
    pub windows: BTreeMap<(IncarnationId, Topic), Vec<Remembered>>,
    /// What was wrong with reading, opening again or adding.
    pub wrong: Vec<String>,
}

/// A log of the broker's own.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PlainSeen {
    /// Its records.
    pub records: Vec<Fingerprint>,
    /// What was reported.
    pub damage: Vec<String>,
    /// What was wrong with reading, opening again or adding.
    pub wrong: Vec<String>,
}

/// `$cursors`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CursorsSeen {
    /// Where each consumer stands.
    pub positions: BTreeMap<(StreamId, String), u64>,
    /// What was reported.
    pub damage: Vec<String>,
    /// What was wrong with opening again or adding.
    pub wrong: Vec<String>,
}

/// What is added to a stream after it was recovered.
#[derive(Debug, Clone)]
pub struct Probe {
    /// A batch of nobody else.
    pub batch: Bytes,
    /// Its topic.
    pub topic: Topic,
    /// Its messages.
    pub messages: u32,
    /// When, and under which policy: not before anything else.
    pub at: (u64, u64),
}

/// How a stream is opened.
#[derive(Clone)]
pub struct StreamPlace<'a> {
    /// The disk.
    pub vfs: &'a Arc<dyn Vfs>,
    /// The directory.
    pub dir: &'a Path,
    /// How it is kept.
    pub options: &'a StreamOptions,
    /// What was kept of its producers.
    pub snapshot: Option<&'a ProducerSnapshot>,
    /// Bytes of a reader's page: less than a segment, so that pages end within them.
    pub page_bytes: usize,
}

impl StreamPlace<'_> {
    /// Opens it once.
    ///
    /// # Errors
    /// Why it cannot be opened or read, in words.
    pub fn see(&self) -> Result<StreamSeen, String> {
        self.open().map(|(_, seen)| seen)
    }

    /// Opens it, opens it again, adds to it, and opens it once more. The first is what is returned; what the others
    /// show otherwise is in `wrong`. `between` is called when it has been opened for the first time.
    ///
    /// # Errors
    /// Why it cannot be opened or read the first time, in words.
    pub fn see_and_go_on(&self, probe: &Probe, between: &mut dyn FnMut()) -> Result<StreamSeen, String> {
        let mut seen = self.see()?;
        between();
        match self.go_on(&seen, probe) {
            Ok(()) => {}
            Err(wrong) => seen.wrong.push(wrong),
        }
        Ok(seen)
    }

    fn go_on(&self, before: &StreamSeen, probe: &Probe) -> Result<(), String> {
        let (mut core, again) = self.open().map_err(|error| format!("opening it again: {error}"))?;
        let unreported = StreamSeen { damage: before.damage.clone(), ..again.clone() };
        if unreported != *before || (before.damage.is_empty() && !again.damage.is_empty()) {
            return Err(format!("opened again it is another: {again:?} in place of {before:?}"));
        }
        if before.stopped.is_some() {
            return Ok(());
        }
        let record = NewRecord {
            topic: probe.topic.clone(),
            key_record: 0,
            instance_kind: InstanceKind::Random,
            policy_version: probe.at.1,
            messages: probe.messages,
            batch: probe.batch.clone(),
            origin: None,
            now_ms: probe.at.0,
        };
        let stored = core.append_group(&[record]).map_err(|error| format!("adding to it: {error}"))?;
        core.commit().map_err(|error| format!("committing what was added: {error}"))?;
        if stored.first().map(|stored| (stored.offset, stored.leaf_index))
            != Some((before.end, before.end_record))
        {
            return Err(format!("what was added got the place {stored:?}"));
        }
        let mut events = Vec::new();
        core.maintain(Moment::simulated(probe.at.0), None, &mut events)
            .map_err(|error| format!("maintaining it: {error}"))?;
        drop(core);
        let (_, after) = self.open().map_err(|error| format!("opening it after adding: {error}"))?;
        let known = after.records.len().saturating_sub(1);
        let kept = after.records.get(..known) == Some(before.records.as_slice());
        let added = after.records.last().is_some_and(|last| {
            (last.offset, last.record, last.messages) == (before.end, before.end_record, probe.messages)
        });
        let whole = before.damage.is_empty();
        let signed = after.checkpoint.map(|(size, _)| size) == Some(after.end_record);
        let clean = after.damage.is_empty() && after.wrong.is_empty() && after.stopped.is_none();
        if !kept || !added || (whole && !(signed && clean)) {
            return Err(format!("after adding a batch it is {after:?}; before it was {before:?}"));
        }
        Ok(())
    }

    fn open(&self) -> Result<(StreamCore, StreamSeen), String> {
        let (vfs, snapshot) = (Arc::clone(self.vfs), self.snapshot.cloned());
        let (mut core, opened) = StreamCore::open(vfs, self.dir, self.options.clone(), snapshot)
            .map_err(|error| format!("it cannot be opened: {error}"))?;
        let mut seen = StreamSeen {
            first: core.bounds().first,
            end: core.bounds().end,
            end_record: core.end_record(),
            damage: opened.events.iter().map(|event| format!("{event:?}")).collect(),
            stopped: opened.stopped.map(|reason| reason.to_string()),
            root: *core.tree().root().as_bytes(),
            ..StreamSeen::default()
        };
        seen.records = read_records(&core.reader(), self.page_bytes, &mut seen.wrong)?;
        seen.skipped = read_offsets(&core.reader(), self.page_bytes, &seen.records, &mut seen.wrong)?;
        seen.checkpoint = match core.checkpoint() {
            None => None,
            Some(signed) => {
                let signer: Option<&NoteSigner> = self.options.signer.as_ref();
                let signer = signer.ok_or("a checkpoint without a signer")?;
                let opened = Checkpoint::open(signed.note.as_bytes(), &signer.verifier())
                    .map_err(|error| format!("its checkpoint is not good: {error}"))?;
                Some((opened.size(), *opened.root().as_bytes()))
            }
        };
        // What reading came across.
        let found = core.reader().take_new_damage();
        seen.damage.extend(found.iter().map(|damage| format!("{damage:?}")));
        let known = core.producers().map_err(|error| format!("its producers: {error}"))?;
        for producer in known.producers {
            for (topic, state) in producer.topics {
                let window = state.remembered().map(|batch| {
                    (batch.first_seq, batch.next_seq, *batch.digest.as_bytes(), batch.receipt.offset)
                });
                seen.windows.insert((producer.claim.incarnation_id, topic), window.collect());
            }
        }
        Ok((core, seen))
    }
}

fn read_records(
    reader: &LogReader,
    page_bytes: usize,
    wrong: &mut Vec<String>,
) -> Result<Vec<RecordSeen>, String> {
    let mut records: Vec<RecordSeen> = Vec::new();
    let mut from = reader.first_record();
    loop {
        let page =
            reader.read_records(from, page_bytes).map_err(|error| format!("it cannot be read: {error}"))?;
        for frame in &page.frames {
            match decode(frame) {
                Ok(stored) => {
                    let facts = Facts {
                        offset: stored.offset,
                        messages: stored.messages,
                        append_ms: stored.append_ms,
                        policy_version: stored.policy_version,
                        key_record: stored.key_record,
                        topic: stored.topic.as_str(),
                        batch: &stored.batch,
                    };
                    records.push(RecordSeen {
                        record: frame.record,
                        offset: stored.offset,
                        messages: stored.messages,
                        fingerprint: facts.fingerprint(),
                    });
                }
                Err(error) => wrong.push(format!("record {} holds no batch: {error}", frame.record)),
            }
        }
        if page.next_record <= from {
            return Ok(records);
        }
        from = page.next_record;
    }
}

/// Reads from offset 0 on, which must give the same batches, and says what was skipped.
fn read_offsets(
    reader: &LogReader,
    page_bytes: usize,
    records: &[RecordSeen],
    wrong: &mut Vec<String>,
) -> Result<Vec<(u64, u64, bool)>, String> {
    let mut expected = records.iter().filter(|record| record.messages > 0);
    let mut skipped = Vec::new();
    let mut from = 0;
    loop {
        let page = reader.read(from, page_bytes).map_err(|error| format!("it cannot be read: {error}"))?;
        for frame in &page.frames {
            let found = (frame.record, frame.offset, frame.count);
            match expected.next().map(|record| (record.record, record.offset, record.messages)) {
                Some(record) if record == found => {}
                other => wrong.push(format!("by offset {found:?} comes, by record {other:?}")),
            }
        }
        let trimmed = |why| match why {
            SkipReason::Trimmed => true,
            SkipReason::Damaged => false,
        };
        skipped.extend(page.skipped.iter().map(|gap| (gap.from, gap.to, trimmed(gap.why))));
        if page.next <= from {
            break;
        }
        from = page.next;
    }
    if let Some(missing) = expected.next() {
        wrong.push(format!("by offset {missing:?} does not come"));
    }
    if from != reader.end_offset() {
        wrong.push(format!("reading ends at {from}, the stream at {}", reader.end_offset()));
    }
    Ok(skipped)
}

/// Opens a log of the broker's own, and then as [`StreamPlace::see_and_go_on`].
///
/// # Errors
/// Why it cannot be opened or read the first time, in words.
pub fn see_plain(vfs: &Arc<dyn Vfs>, dir: &Path, which: SystemLog) -> Result<PlainSeen, String> {
    let (_, mut seen) = open_plain(vfs, dir, which)?;
    if let Err(wrong) = go_on_plain(vfs, dir, which, &seen) {
        seen.wrong.push(wrong);
    }
    Ok(seen)
}

fn go_on_plain(vfs: &Arc<dyn Vfs>, dir: &Path, which: SystemLog, before: &PlainSeen) -> Result<(), String> {
    let (mut log, again) =
        open_plain(vfs, dir, which).map_err(|error| format!("opening it again: {error}"))?;
    if again.records != before.records || !again.damage.is_empty() && before.damage.is_empty() {
        return Err(format!("opened again it is another: {again:?} in place of {before:?}"));
    }
    let payload: &[u8] = b"a record that nobody wrote before";
    let frame = NewFrame { kind: 99, flags: 0, count: 1, time_ms: log.last_time_ms(), payload: &[payload] };
    log.append(&[frame]).map_err(|error| format!("adding to it: {error}"))?;
    log.sync().map_err(|error| format!("syncing what was added: {error}"))?;
    drop(log);
    let (_, after) =
        open_plain(vfs, dir, which).map_err(|error| format!("opening it after adding: {error}"))?;
    let mut expected = before.records.clone();
    expected.push(Sha256::digest(payload).into());
    if after.records != expected {
        return Err("after adding a record there is not that one more".to_owned());
    }
    Ok(())
}

fn open_plain(vfs: &Arc<dyn Vfs>, dir: &Path, which: SystemLog) -> Result<(Log, PlainSeen), String> {
    let (log, recovery) = Log::open(Arc::clone(vfs), dir, system_options(which))
        .map_err(|error| format!("it cannot be opened: {error}"))?;
    let damage = recovery.damage.iter().map(|damage| format!("{damage:?}")).collect();
    let mut seen = PlainSeen { damage, ..PlainSeen::default() };
    let reader = log.reader();
    let keys = KeyDirectory::new(log.reader());
    let mut numbers = Vec::new();
    reader
        .scan(0, &mut |frame| {
            numbers.push(frame.record);
            seen.records.push(Sha256::digest(frame.payload).into());
            ControlFlow::Continue(())
        })
        .map_err(|error| format!("it cannot be read: {error}"))?;
    if !numbers.iter().copied().eq(0..numbers.len() as u64) {
        seen.wrong.push(format!("its records have the numbers {numbers:?}"));
    }
    if which == SystemLog::Keys {
        for record in numbers.iter().take(seen.records.len()) {
            if let Err(error) = keys.load(*record)
                && *record + 1 < numbers.len() as u64
            {
                seen.wrong.push(format!("a key does not come: {error}"));
            }
        }
    }
    Ok((log, seen))
}

/// The newest snapshot of each stream's producers.
///
/// # Errors
/// Why it cannot be read, in words.
pub fn read_snapshots(producers: &LogReader) -> Result<Snapshots, String> {
    let mut snapshots = Snapshots::default();
    producers
        .scan(0, &mut |frame| {
            if let Ok(part) = decode_producers(frame.payload) {
                snapshots.take_in(part);
            }
            ControlFlow::Continue(())
        })
        .map_err(|error| format!("$producers cannot be read: {error}"))?;
    Ok(snapshots)
}

/// As [`see_plain`] of `$producers`, with the newest snapshot of each stream.
///
/// # Errors
/// Why it cannot be opened or read the first time, in words.
pub fn see_producers(vfs: &Arc<dyn Vfs>, dir: &Path) -> Result<(PlainSeen, Snapshots), String> {
    let snapshots = {
        let (log, _) = open_plain(vfs, dir, SystemLog::Producers)?;
        read_snapshots(&log.reader())?
    };
    Ok((see_plain(vfs, dir, SystemLog::Producers)?, snapshots))
}

/// Opens `$cursors`, and then as [`StreamPlace::see_and_go_on`].
///
/// # Errors
/// Why it cannot be opened the first time, in words.
pub fn see_cursors(vfs: &Arc<dyn Vfs>, dir: &Path) -> Result<CursorsSeen, String> {
    let (_, mut seen) = open_cursors(vfs, dir)?;
    if let Err(wrong) = go_on_cursors(vfs, dir, &seen) {
        seen.wrong.push(wrong);
    }
    Ok(seen)
}

fn go_on_cursors(vfs: &Arc<dyn Vfs>, dir: &Path, before: &CursorsSeen) -> Result<(), String> {
    let (mut log, again) = open_cursors(vfs, dir).map_err(|error| format!("opening it again: {error}"))?;
    if again != *before {
        return Err(format!("opened again it is another: {again:?} in place of {before:?}"));
    }
    let (change, key) = super::rig::cursor_of("probe", 0, 77, Vec::new());
    log.append(&[change], 0).map_err(|error| format!("adding to it: {error}"))?;
    log.sync(0).map_err(|error| format!("syncing what was added: {error}"))?;
    drop(log);
    let (_, after) = open_cursors(vfs, dir).map_err(|error| format!("opening it after adding: {error}"))?;
    let mut expected = before.positions.clone();
    expected.insert(key, 77);
    if after.positions != expected {
        return Err(format!("after adding a cursor they are {after:?}, before they were {before:?}"));
    }
    Ok(())
}

fn open_cursors(vfs: &Arc<dyn Vfs>, dir: &Path) -> Result<(CursorLog, CursorsSeen), String> {
    let (log, recovered) = CursorLog::open(Arc::clone(vfs), dir, system_options(SystemLog::Cursors))
        .map_err(|error| format!("it cannot be opened: {error}"))?;
    let mut seen = CursorsSeen::default();
    seen.damage.extend(recovered.recovery.damage.iter().map(|damage| format!("{damage:?}")));
    seen.damage.extend(recovered.refused.iter().map(ToString::to_string));
    for kept in recovered.consumers {
        seen.positions.insert((kept.key.stream, kept.key.name.to_string()), kept.cursor.position());
    }
    Ok((log, seen))
}
