//! From what a walk through a segment found to what is known about it: records, entries, and what is lost.

use super::frame::HEADER_LEN;
use super::limits::{INDEX_STEP_BYTES, SEGMENT_FILE_BYTES_MAX};
use super::scan::{Mark, Scan};
use super::types::Lost;

/// Records that a segment can have.
pub(super) const SEGMENT_RECORDS_MAX: u64 = SEGMENT_FILE_BYTES_MAX / HEADER_LEN as u64;

/// What 32 bytes stand for a record.
pub(super) type Digest = [u8; 32];

/// Stands for the digest of a record that is lost.
pub(super) const NO_DIGEST: Digest = [0; 32];

/// A known place of a segment. What is from it to the next one is found by reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) kind: EntryKind,
    pub(super) mark: Mark,
    /// Of the frame here; of the one before for what is no frame.
    pub(super) time_ms: u64,
}

/// What begins at a known place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EntryKind {
    /// Frames.
    Frames,
    /// Bytes that are none, up to the next entry.
    Corrupt,
    /// The end of the file, although there was more.
    Truncated,
}

/// The frame with this index has this record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Anchor {
    pub(super) frame: usize,
    pub(super) record: u64,
}

/// What is known about a segment, or about a part of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) entries: Vec<Entry>,
    pub(super) end: Mark,
    /// Of each whole frame.
    pub(super) records: Vec<u64>,
    /// In order, with the kind of each.
    pub(super) lost: Vec<(EntryKind, Lost)>,
    pub(super) first_time_ms: u64,
    pub(super) last_time_ms: u64,
}

/// Where the next entry of a growing segment is due.
pub(super) fn entry_due(entries: &[Entry], position: u64) -> bool {
    entries.last().is_none_or(|last| {
        last.kind != EntryKind::Frames || position.saturating_sub(last.mark.position) >= INDEX_STEP_BYTES
    })
}

impl Layout {
    /// What a walk tells. With `end`, it is known where the stretch ended; otherwise it ends with its last frame.
    pub(super) fn of(scan: &Scan, anchors: &[Anchor], end: Option<Mark>, file_len: u64) -> Self {
        let runs = Runs::of(scan, anchors, end);
        let end = end.unwrap_or_else(|| Mark {
            offset: scan.offset_after(scan.frames.len()),
            record: runs.record_after_last(),
            position: scan.position_after(scan.frames.len()),
        });
        let mut layout = Self {
            entries: Vec::new(),
            end,
            records: Vec::with_capacity(scan.frames.len()),
            lost: Vec::new(),
            first_time_ms: scan.frames.first().map_or(0, |frame| frame.time_ms),
            last_time_ms: scan.frames.last().map_or(0, |frame| frame.time_ms),
        };
        for (number, run) in runs.0.iter().enumerate() {
            layout.add_run(scan, run);
            if let (Some(gap), next) = (scan.gaps.get(number), runs.0.get(number.saturating_add(1))) {
                let kind = if gap.position >= file_len { EntryKind::Truncated } else { EntryKind::Corrupt };
                let from = Mark {
                    offset: scan.offset_after(gap.frames_before),
                    record: run.record.saturating_add(run.len as u64),
                    position: gap.position,
                };
                let next_frame = scan.frames.get(gap.frames_before);
                let to_offset = next_frame.map_or(end.offset, |frame| frame.offset);
                let to_record = next.filter(|run| run.len > 0).map_or(end.record, |run| run.record);
                layout.add_gap(kind, from, to_offset, to_record);
            }
        }
        layout
    }

    fn add_run(&mut self, scan: &Scan, run: &Run) {
        for (within, frame) in scan.frames.iter().skip(run.frame).take(run.len).enumerate() {
            let record = run.record.saturating_add(within as u64);
            self.records.push(record);
            if within == 0 || entry_due(&self.entries, frame.position) {
                let mark = Mark { offset: frame.offset, record, position: frame.position };
                self.entries.push(Entry { kind: EntryKind::Frames, mark, time_ms: frame.time_ms });
            }
        }
    }

    fn add_gap(&mut self, kind: EntryKind, from: Mark, to_offset: u64, to_record: u64) {
        let lost = Lost {
            offsets: from.offset..to_offset.max(from.offset),
            records: from.record..to_record.max(from.record),
        };
        // What is behind the end of a segment that ended before is nobody's.
        if lost.offsets.is_empty() && lost.records.is_empty() {
            return;
        }
        let time_ms = self.entries.last().map_or(0, |entry| entry.time_ms);
        self.entries.push(Entry { kind, mark: from, time_ms });
        self.lost.push((kind, lost));
    }

    /// The digests of the segment's records, from those of its whole frames.
    pub(super) fn digests(&self, first_record: u64, of_frames: &[Digest]) -> Vec<Digest> {
        let records = self.end.record.saturating_sub(first_record).min(SEGMENT_RECORDS_MAX);
        let mut digests = vec![NO_DIGEST; usize::try_from(records).unwrap_or(0)];
        for (record, digest) in self.records.iter().zip(of_frames) {
            let at = usize::try_from(record.saturating_sub(first_record)).unwrap_or(usize::MAX);
            if let Some(place) = digests.get_mut(at) {
                *place = *digest;
            }
        }
        digests
    }
}

/// Frames that follow each other without a gap.
#[derive(Debug, Clone, Copy)]
struct Run {
    /// The index of its first frame.
    frame: usize,
    len: usize,
    /// The record of its first frame.
    record: u64,
    /// Records that the gap in front seems to have.
    likely_before: u64,
}

/// The runs of a walk. Frames do not carry their record: in front of the first gap it is counted from the start, behind
/// the last one from the end, and between two by what the gaps seem to have held.
struct Runs(Vec<Run>);

impl Runs {
    fn of(scan: &Scan, anchors: &[Anchor], end: Option<Mark>) -> Self {
        let mut runs = Vec::with_capacity(scan.gaps.len().saturating_add(1));
        let starts = scan.gaps.iter().map(|gap| (gap.frames_before, gap.frames_likely));
        for (frame, likely_before) in [(0, 0)].into_iter().chain(starts) {
            runs.push(Run { frame, len: 0, record: scan.start.record, likely_before });
        }
        let ends: Vec<usize> =
            scan.gaps.iter().map(|gap| gap.frames_before).chain([scan.frames.len()]).collect();
        for (run, end) in runs.iter_mut().zip(ends) {
            run.len = end.saturating_sub(run.frame);
        }
        let mut runs = Self(runs);
        runs.count_on_from(0);
        let trailing_gap = runs.0.last().is_some_and(|run| run.len == 0);
        let last =
            end.filter(|_| !trailing_gap).map(|end| Anchor { frame: scan.frames.len(), record: end.record });
        for anchor in anchors.iter().copied().chain(last) {
            runs.set(anchor);
        }
        runs
    }

    fn record_after_last(&self) -> u64 {
        self.0.last().map_or(0, |run| run.record.saturating_add(run.len as u64))
    }

    /// Moves the run with this frame to where it is known to be, and the others out of its way. The first one stays: its
    /// records are counted from the segment's start.
    fn set(&mut self, anchor: Anchor) {
        let holds = |run: &Run| run.len > 0 && run.frame <= anchor.frame;
        let Some(number) = self.0.iter().rposition(holds).filter(|number| *number > 0) else { return };
        let Some(run) = self.0.get_mut(number) else { return };
        let within = anchor.frame.saturating_sub(run.frame) as u64;
        run.record = anchor.record.saturating_sub(within);
        self.count_on_from(number);
        let mut limit = anchor.record.saturating_sub(within);
        for run in self.0.iter_mut().take(number).skip(1).rev() {
            run.record = run.record.min(limit.saturating_sub(run.len as u64));
            limit = run.record;
        }
    }

    fn count_on_from(&mut self, number: usize) {
        let mut next = None;
        for run in self.0.iter_mut().skip(number) {
            run.record = next.map_or(run.record, |next: u64| next.saturating_add(run.likely_before));
            next = Some(run.record.saturating_add(run.len as u64));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::frame::Before;
    use super::super::scan::{FrameAt, Gap};
    use super::*;

    /// Frames of 100 bytes and ten offsets, and gaps of so many frames that seem to be so many.
    fn scan(parts: &[(u64, u64, u64)]) -> Scan {
        let start = Mark { offset: 0, record: 500, position: 96 };
        let mut scan = Scan { start, frames: Vec::new(), gaps: Vec::new() };
        let mut place = 0;
        for (whole, lost, frames_likely) in parts {
            for _ in 0..*whole {
                scan.frames.push(FrameAt {
                    position: 96 + place * 100,
                    end_position: 196 + place * 100,
                    offset: place * 10,
                    end_offset: place * 10 + 10,
                    synced: 0,
                    before: Before::BelowSynced,
                    time_ms: place,
                });
                place += 1;
            }
            if *lost > 0 {
                let (position, end_position) = (96 + place * 100, 96 + (place + lost) * 100);
                let frames_before = scan.frames.len();
                scan.gaps.push(Gap { frames_before, position, end_position, frames_likely: *frames_likely });
                place += lost;
            }
        }
        scan
    }

    fn end(frames: u64) -> Mark {
        Mark { offset: frames * 10, record: 500 + frames, position: 96 + frames * 100 }
    }

    fn lost(layout: &Layout) -> Vec<(u64, u64, u64, u64)> {
        let lost = layout.lost.iter().map(|(_, lost)| lost);
        lost.map(|lost| (lost.offsets.start, lost.offsets.end, lost.records.start, lost.records.end))
            .collect()
    }

    #[test]
    fn without_gaps_records_are_counted() {
        let layout = Layout::of(&scan(&[(3, 0, 0)]), &[], None, 1_000);
        assert_eq!((layout.records.clone(), layout.end), (vec![500, 501, 502], end(3)));
        assert_eq!((layout.entries.len(), layout.first_time_ms, layout.last_time_ms), (1, 0, 2));
        assert_eq!(lost(&layout), []);
    }

    #[test]
    fn behind_the_last_gap_records_are_counted_from_the_end() {
        // The gap of four looks like one.
        let layout = Layout::of(&scan(&[(2, 4, 1), (2, 0, 0)]), &[], Some(end(8)), 1_000);
        assert_eq!(layout.records, [500, 501, 506, 507]);
        assert_eq!(lost(&layout), [(20, 60, 502, 506)]);
        let kinds: Vec<_> = layout.entries.iter().map(|entry| (entry.kind, entry.mark.record)).collect();
        use EntryKind::{Corrupt, Frames};
        assert_eq!(kinds, [(Frames, 500), (Corrupt, 502), (Frames, 506)]);
    }

    #[test]
    fn between_two_gaps_records_are_as_likely_and_never_cross() {
        let layout = Layout::of(&scan(&[(1, 2, 2), (1, 1, 1), (1, 0, 0)]), &[], Some(end(6)), 1_000);
        assert_eq!(layout.records, [500, 503, 505]);
        let layout = Layout::of(&scan(&[(1, 2, 40), (1, 1, 1), (1, 0, 0)]), &[], Some(end(6)), 1_000);
        assert_eq!(layout.records, [500, 504, 505]);
        let anchor = Anchor { frame: 1, record: 503 };
        let layout = Layout::of(&scan(&[(1, 2, 1), (1, 1, 1), (1, 0, 0)]), &[anchor], None, 1_000);
        assert_eq!(layout.records, [500, 503, 505]);
    }

    #[test]
    fn what_is_missing_at_the_end_is_truncated_or_corrupt_by_the_length_of_the_file() {
        for (file_len, kind) in [(296, EntryKind::Truncated), (297, EntryKind::Corrupt)] {
            let layout = Layout::of(&scan(&[(2, 3, 1)]), &[], Some(end(5)), file_len);
            assert_eq!(lost(&layout), [(20, 50, 502, 505)]);
            assert_eq!(layout.lost[0].0, kind);
        }
        // Bytes behind the end of what belongs to the segment are nobody's.
        let layout = Layout::of(&scan(&[(2, 3, 1)]), &[], Some(end(2)), 1_000);
        assert_eq!((lost(&layout), layout.entries.len()), (vec![], 1));
    }

    #[test]
    fn digests_leave_places_for_what_is_lost() {
        let layout = Layout::of(&scan(&[(1, 2, 2), (1, 0, 0)]), &[], Some(end(4)), 1_000);
        let digests = layout.digests(500, &[[1; 32], [2; 32]]);
        assert_eq!(digests, [[1; 32], NO_DIGEST, NO_DIGEST, [2; 32]]);
    }
}
