//! Opens a log: finds out what is on the disk, makes good what a power loss left half done, and reports the rest.
//!
//! Nothing that was promised is changed: bytes below the durable end stay as they are, whatever is wrong with them. What
//! is done is durable before the log is used, and doing it again after another power loss gives the same.

use std::sync::Arc;

use super::damage::DamageList;
use super::error::LogError;
use super::scan::Mark;
use super::sealed::open_sealed;
use super::segment::{FIRST_FRAME_AT, FileKind, SegmentName};
use super::site::Site;
use super::survey::{Found, Survey, is_ours};
use super::table::{Segment, Table};
use super::tail::{Tail, lost_between, open_tail};
use super::types::{Cut, Damage, OwnerState};
use super::watermark::{Watermark, Watermarks};
use crate::vfs::DataFile;

/// A log that was opened.
pub(super) struct Recovered {
    pub(super) table: Table,
    pub(super) damage: DamageList,
    pub(super) watermarks: Watermarks,
    pub(super) state: Option<OwnerState>,
    pub(super) cut: Option<Cut>,
    pub(super) last_time_ms: u64,
}

/// The segment that grows.
struct Active {
    segment: Segment,
    file: Arc<dyn DataFile>,
    cut: Option<Cut>,
}

pub(super) fn recover(site: &Site<'_>) -> Result<Recovered, LogError> {
    site.vfs
        .create_dir_all(site.dir)
        .map_err(|source| LogError::fatal("create the directory", site.dir, source))?;
    // What is listed from here on is there for good, and what is not listed does not come back.
    site.sync_dir()?;
    let (mut watermarks, watermark) = Watermarks::load(site.vfs, site.dir, site.options.log_id)?;
    let survey = Survey::of(site, watermark.as_ref())?;
    let damage = DamageList::default();
    for name in &survey.unexplained {
        damage.note(Damage::Header { base_offset: name.base_offset });
    }
    let mut sealed = Vec::new();
    let active = open_segments(site, &survey, watermark.as_ref(), &mut sealed, &damage)?;
    let has_frames = !sealed.is_empty() || active.segment.end.position > FIRST_FRAME_AT;
    if watermark.is_none() && has_frames {
        damage.note(Damage::Watermarks);
    }
    let first = sealed.first().map_or(active.segment.name, |segment| segment.name);
    let state = match &watermark {
        Some(watermark) => watermark.state.clone(),
        None => survey.state(),
    };
    let last_time_ms = sealed
        .iter()
        .map(|segment| segment.last_time_ms)
        .chain([active.segment.last_time_ms, watermark.as_ref().map_or(0, |watermark| watermark.time_ms)])
        .max()
        .unwrap_or(0);
    let table = Table {
        visible: active.segment.end,
        first_offset: watermark.as_ref().map_or(first.base_offset, |watermark| watermark.first_offset),
        first_record: watermark.as_ref().map_or(first.first_record, |watermark| watermark.first_record),
        cuts: 0,
        index_only: survey.index_only.clone(),
        sealed: sealed.into_iter().map(Arc::new).collect(),
        active: active.segment,
        active_file: active.file,
    };
    let reached = table.watermark(table.visible, last_time_ms, state.clone());
    if watermark.as_ref() != Some(&reached) {
        watermarks.write(site.vfs, &reached)?;
    }
    while !watermarks.both_whole() {
        watermarks.write(site.vfs, &reached)?;
    }
    finish_trim(site, &survey);
    Ok(Recovered { table, damage, watermarks, state, cut: active.cut, last_time_ms })
}

/// Opens the sealed segments, then the last one, and makes a new one where the last cannot grow.
fn open_segments(
    site: &Site<'_>,
    survey: &Survey,
    watermark: Option<&Watermark>,
    sealed: &mut Vec<Segment>,
    damage: &DamageList,
) -> Result<Active, LogError> {
    let first = survey.segments.first().map(|found| found.name);
    // Everything is sealed when the watermark knows a later segment: that one is missing.
    let later =
        watermark.filter(|watermark| survey.segments.last().is_none_or(|last| last.name < watermark.segment));
    let (tail, others) = match (survey.segments.split_last(), later) {
        (Some((tail, others)), None) => (Some(tail), others),
        (Some(_) | None, _) => (None, survey.segments.as_slice()),
    };
    let behind = later.map(|watermark| watermark.segment).or(tail.map(|tail| tail.name));
    let nexts = survey.segments.iter().skip(1).map(|found| found.name).chain(behind);
    let mut reached = start_of(first, watermark);
    for (found, next) in others.iter().zip(nexts) {
        note_missing(reached, found.name, damage);
        let mut note = |new| damage.note(new);
        let mut segment = open_sealed(site, found, next.start(), watermark, &mut note)?;
        segment.keep_time_from(sealed.last());
        reached = segment.end;
        sealed.push(segment);
    }
    match (tail, watermark) {
        (Some(tail), _) => {
            note_missing(reached, tail.name, damage);
            open_last(site, tail, watermark, sealed, damage)
        }
        (None, Some(watermark)) => {
            let end = watermark.end();
            if let Some(lost) = lost_between(reached, end) {
                damage.note(Damage::Truncated(lost));
            }
            new_segment(site, SegmentName::at(end), reached.position)
        }
        (None, None) => new_segment(site, SegmentName::FIRST, 0),
    }
}

fn open_last(
    site: &Site<'_>,
    found: &Found,
    watermark: Option<&Watermark>,
    sealed: &mut Vec<Segment>,
    damage: &DamageList,
) -> Result<Active, LogError> {
    let previous_len = sealed.last().map_or(0, |segment| segment.end.position);
    match open_tail(site, found, watermark)? {
        Tail::Growing(mut segment, file, cut) => {
            segment.keep_time_from(sealed.last());
            Ok(Active { segment, file, cut })
        }
        Tail::Unmade => {
            if watermark.is_some_and(|watermark| watermark.segment == found.name) {
                damage.note(Damage::Header { base_offset: found.name.base_offset });
            }
            new_segment(site, found.name, previous_len)
        }
        Tail::Damaged(mut segment, found_damage) => {
            found_damage.into_iter().for_each(|new| damage.note(new));
            segment.keep_time_from(sealed.last());
            let (end, len) = (segment.end, segment.end.position);
            if SegmentName::at(end) == segment.name {
                // There is nothing in it that could be read, and the new one needs its name.
                site.set_aside(segment.name)?;
                return new_segment(site, SegmentName::at(end), previous_len);
            }
            site.seal(&segment, None)?;
            sealed.push(segment);
            new_segment(site, SegmentName::at(end), len)
        }
    }
}

fn new_segment(site: &Site<'_>, name: SegmentName, previous_len: u64) -> Result<Active, LogError> {
    let (segment, file) = site.create_segment(name, previous_len)?;
    Ok(Active { segment, file, cut: None })
}

/// Where the log should begin.
fn start_of(first: Option<SegmentName>, watermark: Option<&Watermark>) -> Mark {
    let name = match (watermark, first) {
        (Some(watermark), _) => {
            SegmentName { base_offset: watermark.first_offset, first_record: watermark.first_record }
        }
        (None, Some(first)) => first,
        (None, None) => SegmentName::FIRST,
    };
    name.start()
}

fn note_missing(reached: Mark, next: SegmentName, damage: &DamageList) {
    if let Some(lost) = lost_between(reached, next.start()) {
        damage.note(Damage::Missing(lost));
    }
}

/// Removes what the watermark had said to be trimmed when the power went. What cannot be removed is left for next time.
fn finish_trim(site: &Site<'_>, survey: &Survey) {
    let removed = survey
        .trimmed
        .iter()
        .filter(|name| is_ours(site, **name) && site.vfs.remove(&name.path(site.dir, FileKind::Log)).is_ok());
    if removed.count() > 0 {
        let _ = site.sync_dir();
    }
}

impl Segment {
    /// Time does not go back from one segment to the next, also when no frame of one could be read.
    fn keep_time_from(&mut self, previous: Option<&Self>) {
        let floor = previous.map_or(0, |previous| previous.last_time_ms);
        self.last_time_ms = self.last_time_ms.max(floor);
    }
}

impl Watermark {
    /// The durable end.
    fn end(&self) -> Mark {
        Mark { offset: self.end_offset, record: self.end_record, position: self.bytes }
    }
}

impl SegmentName {
    /// Of a segment that begins here.
    pub(super) fn at(mark: Mark) -> Self {
        Self { base_offset: mark.offset, first_record: mark.record }
    }
}

impl Table {
    /// What is to be said about the log when it is durable up to `end`, which is in the active segment.
    pub(super) fn watermark(&self, end: Mark, time_ms: u64, state: Option<OwnerState>) -> Watermark {
        Watermark {
            end_offset: end.offset,
            end_record: end.record,
            time_ms,
            segment: self.active.name,
            bytes: end.position,
            salt: self.active.salt,
            first_offset: self.first_offset,
            first_record: self.first_record,
            state,
        }
    }
}
