//! What of a stream can be seen: its bounds, its newest batches, and what became of each ticket. Pure.

use std::collections::VecDeque;
use std::sync::Arc;

use super::store::{Bounds, Fate, SignedCheckpoint, Stored, StreamState, StreamStats, Tail, Ticket};
use super::tail::TailBuffer;

/// Withdrawals that are remembered. A ticket older than that is said to be withdrawn: its batch is sent again, and is
/// recognised as a duplicate if it was kept.
const WITHDRAWALS_KEPT: usize = 1_024;

/// Sizes that change with each group.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Gauges {
    pub(super) bytes: u64,
    pub(super) segments: u32,
    pub(super) damaged: u32,
    pub(super) appends: u64,
    pub(super) syncs: u64,
    pub(super) last_sync_micros: u64,
    pub(super) sealed_record: u64,
    pub(super) scrubs: u64,
}

#[derive(Debug)]
pub(super) struct Visible {
    first: u64,
    tail: TailBuffer,
    end_record: u64,
    /// For each epoch from `oldest_epoch` on, the records that were kept when it ended.
    withdrawals: VecDeque<u64>,
    oldest_epoch: u64,
    stopped: Option<Arc<str>>,
    pub(super) checkpoint: Option<Arc<SignedCheckpoint>>,
    pub(super) gauges: Gauges,
}

impl Visible {
    pub(super) fn new(
        bounds: Bounds,
        end_record: u64,
        tail_bytes: usize,
        checkpoint: Option<Arc<SignedCheckpoint>>,
    ) -> Self {
        Self {
            first: bounds.first,
            tail: TailBuffer::new(bounds.end, tail_bytes),
            end_record,
            withdrawals: VecDeque::new(),
            oldest_epoch: 0,
            stopped: None,
            checkpoint,
            gauges: Gauges::default(),
        }
    }

    pub(super) const fn bounds(&self) -> Bounds {
        Bounds { first: self.first, end: self.tail.end() }
    }

    pub(super) const fn end_record(&self) -> u64 {
        self.end_record
    }

    pub(super) fn show(&mut self, batches: &[Arc<Stored>]) {
        self.end_record = self.end_record.saturating_add(batches.len() as u64);
        self.tail.push(batches.iter().cloned());
    }

    pub(super) const fn trimmed(&mut self, first: u64) {
        self.first = first;
    }

    /// An epoch has ended: what was not visible by now never will be.
    pub(super) fn withdrawn(&mut self) {
        self.withdrawals.push_back(self.end_record);
        if self.withdrawals.len() > WITHDRAWALS_KEPT {
            self.withdrawals.pop_front();
            self.oldest_epoch = self.oldest_epoch.saturating_add(1);
        }
    }

    pub(super) fn stopped(&mut self, reason: Arc<str>) {
        self.stopped.get_or_insert(reason);
    }

    pub(super) fn fate(&self, ticket: &Ticket) -> Fate {
        let Some(age) = ticket.epoch.checked_sub(self.oldest_epoch) else { return Fate::Withdrawn };
        let kept = usize::try_from(age).ok().and_then(|age| self.withdrawals.get(age));
        if kept.is_some_and(|kept| ticket.end_record > *kept) {
            return Fate::Withdrawn;
        }
        if ticket.end_record <= self.end_record {
            return Fate::Kept;
        }
        match &self.stopped {
            Some(reason) => Fate::Stopped(Arc::clone(reason)),
            None => Fate::Pending,
        }
    }

    pub(super) fn tail(&self, from: u64, bytes_max: usize) -> Tail {
        self.tail.read(from, bytes_max)
    }

    pub(super) fn stats(&self, state: StreamState) -> StreamStats {
        let Gauges { bytes, segments, damaged, appends, syncs, last_sync_micros, sealed_record: _, scrubs } =
            self.gauges;
        let checkpoint = self.checkpoint.as_ref();
        StreamStats {
            bounds: self.bounds(),
            records: self.end_record,
            bytes,
            segments,
            damaged,
            appends,
            syncs,
            last_sync_micros,
            scrubs,
            checkpoint_size: checkpoint.map_or(0, |checkpoint| checkpoint.size),
            checkpoint_root: checkpoint
                .map_or_else(sealbus_protocol::tlog::Hash::empty_root, |checkpoint| checkpoint.root),
            state,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticket(end_record: u64, epoch: u64) -> Ticket {
        Ticket { offset: 0, end_record, epoch }
    }

    /// The offset of a batch that could not be kept is given to another: its ticket must not become that one's.
    #[test]
    fn a_withdrawn_ticket_stays_withdrawn_whatever_takes_its_place() {
        let mut visible = Visible::new(Bounds { first: 0, end: 0 }, 5, 1_000, None);
        assert_eq!(visible.fate(&ticket(5, 0)), Fate::Kept);
        assert_eq!(visible.fate(&ticket(6, 0)), Fate::Pending);
        visible.withdrawn();
        assert_eq!((visible.fate(&ticket(5, 0)), visible.fate(&ticket(6, 0))), (Fate::Kept, Fate::Withdrawn));
        assert_eq!(visible.fate(&ticket(6, 1)), Fate::Pending);
        visible.end_record = 8;
        assert_eq!(visible.fate(&ticket(6, 0)), Fate::Withdrawn);
        assert_eq!(visible.fate(&ticket(6, 1)), Fate::Kept);
        visible.withdrawn();
        assert_eq!((visible.fate(&ticket(8, 1)), visible.fate(&ticket(9, 1))), (Fate::Kept, Fate::Withdrawn));
        visible.stopped("broken".into());
        assert_eq!(visible.fate(&ticket(9, 2)), Fate::Stopped("broken".into()));
        for _ in 0..WITHDRAWALS_KEPT {
            visible.withdrawn();
        }
        assert_eq!(visible.fate(&ticket(5, 1)), Fate::Withdrawn, "too long ago to know");
        assert_eq!(visible.fate(&ticket(0, u64::MAX)), Fate::Kept);
    }
}
