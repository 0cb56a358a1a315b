//! Judges the last segment: the only one in which bytes may be that nobody was told are kept.
//!
//! ```text
//! | header | frames ... | bad | frames ... | bad | frames ... |
//!                        below the durable end:   at it or above:
//!                        damage, kept, skipped    a torn tail, cut with all behind it
//! ```
//!
//! The durable end is what the watermark says, and what each whole frame says about those in front of it. Bytes above it
//! were being written when the power went; frames among them that are whole are kept, and are durable before anybody sees
//! them.

use std::sync::Arc;

use super::error::LogError;
use super::frame::Before;
use super::layout::{Anchor, Layout};
use super::scan::{Mark, Scan};
use super::sealed::{Walked, walk};
use super::segment::{FIRST_FRAME_AT, FileKind};
use super::site::{Site, settle};
use super::survey::{Found, Header};
use super::table::Segment;
use super::types::{Cut, Damage, Lost};
use super::watermark::Watermark;
use crate::vfs::DataFile;

/// What the last segment is.
pub(super) enum Tail {
    /// Whole, up to where it may have been cut: new frames go here.
    Growing(Segment, Arc<dyn DataFile>, Option<Cut>),
    /// Without a header and without room for a frame: its making was cut short.
    Unmade,
    /// Damaged below the durable end. It stays as it is, and new frames go to a new segment.
    Damaged(Segment, Vec<Damage>),
}

/// Below which place everything had been durable.
#[derive(Debug, Clone, Copy)]
struct Durable {
    position: u64,
    offset: u64,
}

/// Judges the last segment, cuts what is torn, and returns once the result is durable.
pub(super) fn open_tail(
    site: &Site<'_>,
    found: &Found,
    watermark: Option<&Watermark>,
) -> Result<Tail, LogError> {
    let path = found.name.path(site.dir, FileKind::Log);
    let failed = |doing| {
        let path = path.clone();
        move |source| LogError::fatal(doing, &path, source)
    };
    let file = site.vfs.open(&path).map_err(failed("open the segment"))?;
    settle(&*file).map_err(failed("sync the segment"))?;
    let len = file.len().map_err(failed("measure the segment"))?;
    let marked = watermark.filter(|watermark| watermark.segment == found.name);
    let promised = marked.filter(|marked| marked.bytes > FIRST_FRAME_AT);
    if found.header == Header::Bad && len <= FIRST_FRAME_AT && promised.is_none() {
        return Ok(Tail::Unmade);
    }
    let mut walked = walk(site, found, &*file, u64::MAX, watermark)?;
    let torn = torn_tail(&walked.scan, marked);
    if let Some(gap) = torn {
        walked.cut_at_gap(gap);
    }
    let frames = walked.scan.frames.len();
    let kept = walked.scan.position_after(frames);
    let anchors: Vec<Anchor> = marked.and_then(|marked| anchor(&walked.scan, marked)).into_iter().collect();
    let natural = Layout::of(&walked.scan, &anchors, None, len);
    let whole_header = matches!(found.header, Header::Whole(_));
    let short = marked.is_some_and(|marked| {
        natural.end.offset < marked.end_offset || natural.end.record < marked.end_record
    });
    if whole_header && walked.scan.gaps.is_empty() && !short {
        let segment = Segment::of_layout(site, found, &natural, &walked, watermark);
        let mut cut = None;
        if len > kept {
            file.truncate(kept).map_err(failed("cut the torn tail of"))?;
            file.sync_data().map_err(failed("sync the segment"))?;
            cut = Some(Cut { offset: natural.end.offset, bytes: len.saturating_sub(kept) });
        }
        return Ok(Tail::Growing(segment, file, cut));
    }
    let layout = match marked.filter(|_| short) {
        Some(marked) => {
            walked.scan.end_in_a_gap(len);
            let end = Mark {
                offset: marked.end_offset.max(natural.end.offset),
                record: marked.end_record.max(natural.end.record),
                position: kept,
            };
            Layout::of(&walked.scan, &anchors, Some(end), len)
        }
        None => natural,
    };
    let segment = Segment::of_layout(site, found, &layout, &walked, watermark);
    let mut damage = segment.known_damage();
    if !whole_header {
        damage.insert(0, Damage::Header { base_offset: found.name.base_offset });
    }
    Ok(Tail::Damaged(segment, damage))
}

/// The first gap that nobody was promised anything about.
fn torn_tail(scan: &Scan, marked: Option<&Watermark>) -> Option<usize> {
    let mut durable = match marked {
        Some(marked) => Durable { position: marked.bytes, offset: marked.end_offset },
        None => Durable { position: scan.start.position, offset: scan.start.offset },
    };
    for frame in &scan.frames {
        durable.offset = durable.offset.max(frame.synced);
        match frame.before {
            Before::Durable => durable.position = durable.position.max(frame.position),
            Before::BelowSynced => {}
        }
    }
    scan.gaps.iter().position(|gap| {
        gap.position >= durable.position && scan.offset_after(gap.frames_before) >= durable.offset
    })
}

/// A frame whose record the watermark tells: the one that begins at its end, or else the one that ends there. The other
/// one may be behind a gap that begins there.
fn anchor(scan: &Scan, marked: &Watermark) -> Option<Anchor> {
    let next = scan.frames.partition_point(|frame| frame.position < marked.bytes);
    if scan.frames.get(next).is_some_and(|frame| frame.position == marked.bytes) {
        return Some(Anchor { frame: next, record: marked.end_record });
    }
    let last = next.checked_sub(1)?;
    let ends_there = scan.frames.get(last).is_some_and(|frame| frame.end_position == marked.bytes);
    ends_there.then_some(Anchor { frame: last, record: marked.end_record.checked_sub(1)? })
}

impl Walked {
    /// Forgets a gap and everything behind it.
    fn cut_at_gap(&mut self, gap: usize) {
        let frames = self.scan.gaps.get(gap).map_or(0, |gap| gap.frames_before);
        self.scan.gaps.truncate(gap);
        self.scan.frames.truncate(frames);
        self.digests.truncate(frames);
    }
}

/// What is missing from one place to another.
pub(super) fn lost_between(from: Mark, to: Mark) -> Option<Lost> {
    let lost = Lost {
        offsets: from.offset..to.offset.max(from.offset),
        records: from.record..to.record.max(from.record),
    };
    (!lost.offsets.is_empty() || !lost.records.is_empty()).then_some(lost)
}
