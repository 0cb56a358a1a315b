//! One stream, single-threaded: a log, the tree over it, what is known of its producers, and what it keeps.
//!
//! ```text
//!   append_group --> one write --> commit: fdatasync --> visible, acknowledged
//!        |                            '--> an error stops the stream for good
//!        '--> no room: cut back, as if it had never been tried
//!   maintain: watermark --> checkpoint (never over more than the watermark) --> retention
//! ```
//!
//! No threads, no clock: moments come in, so that a simulation drives exactly what the broker runs. Whatever is
//! returned from `commit` survives a power loss; the order of `maintain` makes sure that a checkpoint never names a
//! record that a power loss could take back.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use sealbus_protocol::session::Tick;
use sealbus_protocol::tlog::{Checkpoint, CompactRange, stream_origin};

use super::opening::{CHECKPOINT_FILE, OpenError, Opened, Recovered, log_options, recover, reported};
use super::producers::{ProducerSnapshot, ProducerTable, recover as follow};
use super::record::{NewRecord, RecordHead, encode_head, leaf_of};
use super::retention::{Decision, Moment, RetentionClock, Whole, trimmable};
use super::settings::{Level, Retention, Snapshots, StreamOptions};
use super::store::{Bounds, SignedCheckpoint, Stored, StreamEvent, TrimReason};
use super::tree::KeptState;
use crate::storage::log::{Log, LogError, LogReader, NewFrame, SegmentInfo, SegmentPhase};
use crate::vfs::{Vfs, replace};

/// How far apart watermarks and checkpoints are while a stream grows.
pub const MAINTAIN_MS: u64 = 1_000;

/// How far apart passes of retention are.
const RETENTION_PASS_MS: u64 = 10_000;

/// One stream.
pub struct StreamCore {
    vfs: Arc<dyn Vfs>,
    dir: PathBuf,
    options: StreamOptions,
    log: Log,
    reader: LogReader,
    /// Over everything that was appended, whether it is durable or not.
    tree: CompactRange,
    policy_version: u64,
    checkpoint: Option<Arc<SignedCheckpoint>>,
    /// By what is visible.
    producers: ProducerTable,
    /// Appended and not visible before it is durable: of the level `fsync` only.
    unsynced: Vec<Arc<Stored>>,
    retention_clock: RetentionClock,
    retained_at: Option<Tick>,
    maintained_at: Option<Tick>,
    /// Records under the newest watermark.
    watermark_record: u64,
    sealed: usize,
    damaged: u32,
    /// What is before this record is in a durable snapshot of the producers.
    snapshot_record: u64,
}

impl StreamCore {
    /// Opens the stream in `dir`, which is made when it is not there, and recovers it. Of `snapshot` are taken those
    /// producers whose batches are not read again.
    ///
    /// # Errors
    /// [`OpenError`] when the disk does not answer or the files are another stream's. Damage is no error: it is
    /// in [`Opened`], and the stream can be read.
    pub fn open(
        vfs: Arc<dyn Vfs>,
        dir: &Path,
        options: StreamOptions,
        snapshot: Option<ProducerSnapshot>,
    ) -> Result<(Self, Opened), OpenError> {
        vfs.create_dir_all(dir).map_err(|source| OpenError::Directory { path: dir.to_owned(), source })?;
        let (mut log, recovery) = Log::open(Arc::clone(&vfs), dir, log_options(&options))?;
        // What a killed process left in the system's cache is whole and may have been seen: it becomes durable before
        // anybody is told of it.
        log.sync()?;
        if options.level != Level::Fsync {
            log.show_unsynced();
        }
        let reader = log.reader();
        let Recovered { tree, edge, checkpoint, kept_policy_version, mut damage, stopped } =
            recover(&*vfs, dir, &options, &log, recovery.state.as_ref())?;
        let mut core = Self {
            vfs,
            dir: dir.to_owned(),
            options,
            reader,
            tree,
            policy_version: kept_policy_version,
            checkpoint: checkpoint.map(Arc::new),
            producers: ProducerTable::default(),
            unsynced: Vec::new(),
            retention_clock: RetentionClock::default(),
            retained_at: None,
            maintained_at: None,
            watermark_record: recovery.state.as_ref().map_or(0, |state| state.record),
            sealed: 0,
            damaged: 0,
            snapshot_record: 0,
            log,
        };
        let durability = core.options.level.durability();
        let followed = follow(&core.log, snapshot, durability, core.watermark_record, core.policy_version)?;
        core.producers = followed.producers;
        core.policy_version = followed.policy_version;
        damage.extend(followed.damage);
        core.sealed = core.sealed_segments().len();
        let mut events = damage.into_iter().map(StreamEvent::Damaged).collect();
        core.take_damage(&mut events);
        Ok((core, Opened { events, cut: recovery.cut, stopped, edge }))
    }

    /// Writes some records in one go. They are not durable before [`StreamCore::commit`].
    ///
    /// # Errors
    /// [`LogError`]; when it is usable, the stream is as it was before.
    pub fn append_group(&mut self, group: &[NewRecord]) -> Result<Vec<Arc<Stored>>, LogError> {
        let stored = self.place(group);
        let heads: Vec<RecordHead> = stored.iter().map(|stored| encode_head(stored)).collect();
        let payloads: Vec<[&[u8]; 2]> = stored
            .iter()
            .zip(&heads)
            .map(|(stored, head)| [head.bytes.as_slice(), stored.batch.as_ref()])
            .collect();
        let frames: Vec<NewFrame<'_>> = stored
            .iter()
            .zip(heads.iter().zip(&payloads))
            .map(|(stored, (head, payload))| NewFrame {
                kind: head.kind,
                flags: head.flags,
                count: stored.messages,
                time_ms: stored.append_ms,
                payload,
            })
            .collect();
        // Should this call complete a segment first, then the state is as of its end. The tree also has what is not
        // durable yet, which the log would take for durable: then the state from before stays, which is as true.
        if self.is_synced() {
            self.log.set_state(self.kept_state());
        }
        let offsets = self.log.append(&frames)?;
        assert_eq!(
            Some(offsets.start),
            stored.first().map(|first| first.offset).or(Some(offsets.start)),
            "log and stream agree about the next offset"
        );
        for stored in &stored {
            self.tree.push(leaf_of(stored, self.options.bus_id, self.options.stream_id));
            if stored.origin.is_none() {
                self.policy_version = stored.policy_version;
            }
        }
        match self.options.level {
            Level::Fsync => self.unsynced.extend(stored.iter().cloned()),
            Level::Interval | Level::Memory => stored.iter().for_each(|stored| self.observe(stored)),
        }
        Ok(stored)
    }

    /// Makes everything appended durable.
    ///
    /// # Errors
    /// [`LogError`]: nobody knows what of it is on the disk. The stream must not be used any more.
    pub fn commit(&mut self) -> Result<(), LogError> {
        self.log.sync()?;
        for stored in std::mem::take(&mut self.unsynced) {
            self.observe(&stored);
        }
        Ok(())
    }

    /// What is due: a watermark and a checkpoint a second after the last while the stream grows, and retention. `hold`
    /// is the offset of the slowest durable consumer.
    ///
    /// # Errors
    /// [`LogError`]; what had happened by then is in `events`. One that is usable is tried again at the next call.
    pub fn maintain(
        &mut self,
        now: Moment,
        hold: Option<u64>,
        events: &mut Vec<StreamEvent>,
    ) -> Result<(), LogError> {
        self.take_damage(events);
        if self.maintained_at.is_none_or(|last| now.tick.since(last) >= MAINTAIN_MS) && self.is_behind() {
            let sealed = self.report_seals(events);
            if sealed && self.options.level == Level::Memory {
                // A segment's end is where even this level becomes durable, and so where it is vouched for.
                self.commit()?;
            }
            if self.is_synced() {
                self.maintained_at = Some(now.tick);
                self.write_watermark()?;
                self.sign_checkpoint(events)?;
            }
        }
        if self.retained_at.is_none_or(|last| now.tick.since(last) >= RETENTION_PASS_MS) {
            self.retained_at = Some(now.tick);
            self.retain(now, hold, events)?;
        }
        Ok(())
    }

    /// How long until [`StreamCore::maintain`] has something to do; none when only retention may.
    #[must_use]
    pub fn maintain_due_in_ms(&self, tick: Tick) -> Option<u64> {
        if !self.is_behind() || !self.is_synced() {
            return None;
        }
        let since_ms = self.maintained_at.map_or(MAINTAIN_MS, |last| tick.since(last));
        Some(MAINTAIN_MS.saturating_sub(since_ms))
    }

    /// Makes everything durable and vouches for it. Nothing more may be appended.
    ///
    /// # Errors
    /// [`LogError`]; what is missing is found again at the next start.
    pub fn close(&mut self, events: &mut Vec<StreamEvent>) -> Result<(), LogError> {
        self.commit()?;
        self.report_seals(events);
        if self.is_behind() {
            self.write_watermark()?;
            self.sign_checkpoint(events)?;
            // Once more, so that it knows the last checkpoint: putting an older one back is noticed.
            self.watermark_record = 0;
            self.write_watermark()?;
        }
        Ok(())
    }

    /// Removes whole segments below an offset, and says where the stream begins now. What is not in a durable snapshot
    /// of the producers stays, when somebody keeps such.
    ///
    /// # Errors
    /// [`LogError`] when the disk refuses.
    pub fn trim(
        &mut self,
        before: u64,
        why: TrimReason,
        events: &mut Vec<StreamEvent>,
    ) -> Result<u64, LogError> {
        let from = self.log.first_offset();
        let sealed = self.sealed_segments();
        let before = match self.options.snapshots {
            Snapshots::Kept => trimmable(before, &sealed, self.snapshot_record, self.log.last_time_ms()),
            Snapshots::None => Some(before),
        };
        let Some(before) = before else { return Ok(from) };
        if !sealed.iter().any(|segment| segment.end_offset <= before) {
            return Ok(from);
        }
        self.commit()?;
        self.log.set_state(self.kept_state());
        let report = self.log.trim(before)?;
        self.sealed = self.sealed_segments().len();
        if report.segments > 0 {
            events.push(StreamEvent::Trimmed { from, to: report.first_offset, why });
        }
        Ok(report.first_offset)
    }

    /// Producers by what is durable.
    ///
    /// # Errors
    /// As [`StreamCore::commit`]: a snapshot must not know more than a power loss leaves.
    pub fn producers(&mut self) -> Result<ProducerSnapshot, LogError> {
        // Also when the log is synced: completing a segment syncs it, and what that made durable is not observed yet.
        self.commit()?;
        Ok(self.producers.snapshot(self.log.end_record()))
    }

    /// A snapshot of the producers up to this record is durable.
    pub fn set_snapshot_record(&mut self, record: u64) {
        self.snapshot_record = self.snapshot_record.max(record);
    }

    /// The record with which the growing segment begins: a snapshot that reaches it lets all in front be trimmed.
    #[must_use]
    pub fn sealed_record(&self) -> u64 {
        self.log.sealed_record()
    }

    /// Damage that readers have found since it was last asked for.
    pub fn take_damage(&mut self, events: &mut Vec<StreamEvent>) {
        let found = self.log.take_new_damage();
        self.damaged = self.damaged.saturating_add(u32::try_from(found.len()).unwrap_or(u32::MAX));
        events.extend(found.iter().map(reported).map(StreamEvent::Damaged));
    }

    /// Changes what the policy says about the stream.
    pub fn configure(&mut self, retention: Retention, level: Level) {
        self.options.retention = retention;
        self.options.level = level;
        if level != Level::Fsync {
            self.log.show_unsynced();
        }
    }

    /// What it was opened with, as it was changed since.
    #[must_use]
    pub const fn options(&self) -> &StreamOptions {
        &self.options
    }

    /// What the log has, durable or not.
    #[must_use]
    pub fn bounds(&self) -> Bounds {
        Bounds { first: self.log.first_offset(), end: self.log.end_offset() }
    }

    /// Records in the log, durable or not.
    #[must_use]
    pub fn end_record(&self) -> u64 {
        self.log.end_record()
    }

    /// Everything below this offset is durable.
    #[must_use]
    pub fn synced_offset(&self) -> u64 {
        self.log.synced_offset()
    }

    /// Whether everything appended is durable.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        self.log.synced_record() == self.log.end_record()
    }

    /// The tree over everything appended.
    #[must_use]
    pub const fn tree(&self) -> &CompactRange {
        &self.tree
    }

    /// The newest checkpoint.
    #[must_use]
    pub const fn checkpoint(&self) -> Option<&Arc<SignedCheckpoint>> {
        self.checkpoint.as_ref()
    }

    /// Reads the log.
    #[must_use]
    pub fn reader(&self) -> LogReader {
        self.reader.clone()
    }

    /// How many segments there were when they were last looked at.
    #[must_use]
    pub const fn segment_count(&self) -> usize {
        self.sealed.saturating_add(1)
    }

    /// The segments, oldest first.
    #[must_use]
    pub fn segments(&self) -> Vec<SegmentInfo> {
        self.log.segments()
    }

    /// Bytes of all segments.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.log.bytes()
    }

    /// Damaged ranges that were found since the start.
    #[must_use]
    pub const fn damaged(&self) -> u32 {
        self.damaged
    }

    /// Gives each record its place.
    fn place(&self, group: &[NewRecord]) -> Vec<Arc<Stored>> {
        let (mut offset, mut leaf_index) = (self.log.end_offset(), self.log.end_record());
        let (mut append_ms, mut policy_version) = (self.log.last_time_ms(), self.policy_version);
        let place = |record: &NewRecord| {
            append_ms = append_ms.max(record.now_ms);
            let version = match &record.origin {
                None => {
                    policy_version = policy_version.max(record.policy_version);
                    policy_version
                }
                Some(origin) => origin.policy_version,
            };
            let stored = Stored {
                offset,
                leaf_index,
                append_ms,
                policy_version: version,
                key_record: record.key_record,
                topic: record.topic.clone(),
                messages: record.messages,
                batch: record.batch.clone(),
                instance_kind: record.instance_kind,
                origin: record.origin.clone(),
            };
            offset = stored.next_offset();
            leaf_index = leaf_index.saturating_add(1);
            Arc::new(stored)
        };
        group.iter().map(place).collect()
    }

    fn kept_state(&self) -> Vec<u8> {
        let checkpoint = self.checkpoint.as_ref().map(|checkpoint| (checkpoint.size, checkpoint.root));
        KeptState { policy_version: self.policy_version, checkpoint, tree: self.tree.clone() }.encode()
    }

    /// Whether something durable is not under the watermark, or not under the checkpoint, yet.
    fn is_behind(&self) -> bool {
        let size = self.tree.size();
        let signed = self.checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.size);
        size > self.watermark_record || (self.options.signer.is_some() && size > signed)
    }

    fn write_watermark(&mut self) -> Result<(), LogError> {
        if self.log.end_record() > self.watermark_record {
            self.log.set_state(self.kept_state());
            self.log.write_watermark()?;
            self.watermark_record = self.log.end_record();
        }
        Ok(())
    }

    /// Signs the tree, which is durable and under the watermark.
    fn sign_checkpoint(&mut self, events: &mut Vec<StreamEvent>) -> Result<(), LogError> {
        let Some(signer) = &self.options.signer else { return Ok(()) };
        let size = self.tree.size();
        if self.checkpoint.as_ref().is_some_and(|checkpoint| checkpoint.size >= size) || size == 0 {
            return Ok(());
        }
        assert!(
            self.is_synced() && size <= self.watermark_record,
            "a checkpoint is signed only over what is durable and under the watermark"
        );
        let root = self.tree.root();
        let origin = stream_origin(&self.options.bus_id, &self.options.stream_id);
        let note = Checkpoint::new(origin, size, root)
            .and_then(|checkpoint| checkpoint.sign(signer))
            .expect("the signer was made for this stream")
            .to_string();
        let path = self.dir.join(CHECKPOINT_FILE);
        replace(&*self.vfs, &path, note.as_bytes())
            .map_err(|source| LogError::usable("keep the checkpoint in", &path, source))?;
        self.checkpoint = Some(Arc::new(SignedCheckpoint { note, size, root }));
        events.push(StreamEvent::CheckpointSigned { size });
        Ok(())
    }

    fn retain(
        &mut self,
        now: Moment,
        hold: Option<u64>,
        events: &mut Vec<StreamEvent>,
    ) -> Result<(), LogError> {
        let sealed: Vec<Whole> = self.sealed_segments().iter().map(Whole::of).collect();
        let active_bytes = self.log.bytes().saturating_sub(sealed.iter().map(|segment| segment.bytes).sum());
        let end_offset = self.log.end_offset();
        let active = Whole { base_offset: end_offset, end_offset, bytes: active_bytes, newest_ms: None };
        let retention = self.options.retention;
        match self.retention_clock.decide_at(now, &retention, &sealed, active, hold) {
            Decision::Jumped { clock_ms, tick_ms } => {
                events.push(StreamEvent::ClockJumped { clock_ms, tick_ms });
            }
            Decision::Keep => self.producers.forget_at(self.retention_clock.trusted_ms(now)),
            Decision::Trim(before, why) => {
                self.trim(before, why, events)?;
                self.producers.forget_at(self.retention_clock.trusted_ms(now));
            }
        }
        Ok(())
    }

    fn sealed_segments(&self) -> Vec<SegmentInfo> {
        let mut segments = self.log.segments();
        segments.retain(|segment| segment.phase == SegmentPhase::Sealed);
        segments
    }

    fn observe(&mut self, stored: &Stored) {
        if stored.origin.is_none() {
            self.producers
                .observe(stored, self.options.level.durability())
                .expect("a batch that was accepted has a preamble that parses");
        }
    }

    /// Reports the segments that were completed since the last call, and says whether there are any.
    fn report_seals(&mut self, events: &mut Vec<StreamEvent>) -> bool {
        let sealed = self.sealed_segments();
        events.extend(sealed.iter().skip(self.sealed).map(|segment| StreamEvent::SegmentSealed {
            base_offset: segment.base_offset,
            end_offset: segment.end_offset,
            bytes: segment.bytes,
        }));
        std::mem::replace(&mut self.sealed, sealed.len()) < sealed.len()
    }
}
