//! Corruption: something on the disk is not what was written, behind everybody's back.
//!
//! What must hold of every case: no altered byte comes out of a reader; every record whose bytes were not touched comes;
//! one that was touched comes as it was or is reported and skipped; the stream ends where it ended; nothing is deleted.

use std::collections::BTreeSet;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use sealbus_broker::storage::stream::StreamCore;
use sealbus_broker::vfs::{SimVfs, Vfs};

use super::random::seed_salts;
use super::report::Report;
use super::seen::{StreamPlace, StreamSeen};
use super::states::Tally;
use super::subject::{File, Kind, SEGMENT_HEADER_BYTES, Subject};

/// What a disk or a file system exchanges as a whole.
const BLOCK_BYTES: u64 = 4_096;

/// Bytes of a reader's page.
const PAGE_BYTES: usize = 24 * 1_024;

/// One case in so many of a large family is looked at closely.
const CLOSE_ONE_IN: usize = 16;

/// Cases that a thread takes at a time.
const CASES_AT_A_TIME: usize = 64;

/// One way in which the disk is not what it was. Files by their numbers in the subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Case {
    /// A bit is turned over.
    Flip(usize, u64),
    /// A bit of each is turned over.
    FlipBoth([(usize, u64); 2]),
    /// The file ends here.
    Cut(usize, u64),
    /// Two blocks have changed their places.
    Swap(usize, u64, u64),
    /// Files are gone.
    Remove(Vec<usize>),
}

/// What a case may do to the stream.
struct Allowed {
    /// Records that were touched.
    records: BTreeSet<usize>,
    /// Which of them, or how many, may be lost.
    loss: Loss,
    /// Whether something must be reported although every record comes.
    reported: Reported,
}

/// What may be lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Loss {
    /// What was touched.
    Touched,
    /// As many as were touched: frames that verify stand in another place, and nothing tells which ones are out of order,
    /// those that were moved or those between.
    AsManyAsTouched,
}

/// Whether something must be reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reported {
    Must,
    /// The other one of two is enough, or a check of the whole finds it.
    May,
}

/// All cases of a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Every bit of the first complete segment.
    SealedFlips,
    /// Every bit of the segment that grows.
    ActiveFlips,
    /// Every bit of the first index file.
    IndexFlips,
    /// Every bit of both watermarks, one at a time.
    WatermarkFlips,
    /// A bit of each watermark.
    BothWatermarkFlips,
    /// Every bit of the checkpoint.
    CheckpointFlips,
    /// The segment that grows ends at every byte below the watermark.
    ActiveCuts,
    /// The first complete segment ends at every byte.
    SealedCuts,
    /// Every two blocks of a segment have changed places.
    Swaps,
    /// Every file is gone, and some together.
    Removals,
}

impl Family {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::SealedFlips,
        Self::ActiveFlips,
        Self::IndexFlips,
        Self::WatermarkFlips,
        Self::BothWatermarkFlips,
        Self::CheckpointFlips,
        Self::ActiveCuts,
        Self::SealedCuts,
        Self::Swaps,
        Self::Removals,
    ];

    /// The name that its report has.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::SealedFlips => "storage-flips-sealed-segment",
            Self::ActiveFlips => "storage-flips-active-segment",
            Self::IndexFlips => "storage-flips-index",
            Self::WatermarkFlips => "storage-flips-watermark",
            Self::BothWatermarkFlips => "storage-flips-both-watermarks",
            Self::CheckpointFlips => "storage-flips-checkpoint",
            Self::ActiveCuts => "storage-cuts-active-segment",
            Self::SealedCuts => "storage-cuts-sealed-segment",
            Self::Swaps => "storage-swapped-blocks",
            Self::Removals => "storage-removed-files",
        }
    }

    /// Its cases, of which only every so many-th is wanted; those in headers and at borders between frames are always.
    #[must_use]
    pub fn cases(self, subject: &Subject, every: u64) -> Vec<Case> {
        let kind = match self {
            Self::SealedFlips | Self::SealedCuts => Kind::Sealed,
            Self::ActiveFlips | Self::ActiveCuts => Kind::Active,
            Self::IndexFlips => Kind::Index,
            Self::WatermarkFlips | Self::BothWatermarkFlips => Kind::Watermark,
            Self::CheckpointFlips => Kind::Checkpoint,
            Self::Swaps => return swaps(subject),
            Self::Removals => return removals(subject),
        };
        let files: Vec<(usize, &File)> = match self {
            Self::SealedFlips | Self::SealedCuts | Self::IndexFlips => {
                subject.files_of(kind).take(1).collect()
            }
            _ => subject.files_of(kind).collect(),
        };
        if self == Self::BothWatermarkFlips {
            let [(first, file), (second, _), ..] = files.as_slice() else { return Vec::new() };
            let bits = (0..file.bytes.len() as u64 * 8).step_by(31 * usize::try_from(every).unwrap_or(1));
            return bits.map(|bit| Case::FlipBoth([(*first, bit), (*second, bit)])).collect();
        }
        let mut cases = Vec::new();
        for (number, file) in files {
            let len = file.bytes.len() as u64;
            match self {
                Self::ActiveCuts | Self::SealedCuts => {
                    let wanted = |cut: &u64| cut.is_multiple_of(every) || is_border(file, *cut);
                    cases.extend((0..len).filter(wanted).map(|cut| Case::Cut(number, cut)));
                }
                _ => {
                    let wanted = |bit: &u64| bit.is_multiple_of(every) || is_header(file, bit / 8);
                    cases.extend((0..len * 8).filter(wanted).map(|bit| Case::Flip(number, bit)));
                }
            }
        }
        cases
    }

    /// Whether it has so many cases that not all of them are looked at closely.
    const fn is_large(self) -> bool {
        match self {
            Self::SealedFlips
            | Self::ActiveFlips
            | Self::WatermarkFlips
            | Self::ActiveCuts
            | Self::SealedCuts => true,
            Self::IndexFlips
            | Self::BothWatermarkFlips
            | Self::CheckpointFlips
            | Self::Swaps
            | Self::Removals => false,
        }
    }

    /// Goes through the cases.
    #[must_use]
    pub fn run(self, subject: &Subject, (every, threads): (u64, usize), done: &AtomicUsize) -> Report {
        let since = Instant::now();
        let cases = self.cases(subject, every);
        let (tally, next) = (Tally::default(), AtomicUsize::new(0));
        thread::scope(|scope| {
            for _ in 0..threads.max(1) {
                scope.spawn(|| {
                    loop {
                        let from = next.fetch_add(CASES_AT_A_TIME, Ordering::Relaxed);
                        let Some(mine) = cases.get(from..cases.len().min(from + CASES_AT_A_TIME)) else {
                            return;
                        };
                        for (number, case) in mine.iter().enumerate() {
                            seed_salts(from as u64);
                            let is_near = self.is_large() && number % CLOSE_ONE_IN > 0;
                            let look = if is_near { Look::Near } else { Look::Close };
                            for wrong in judge(subject, case, look) {
                                tally.violation(format!("{}: {wrong}", case.describe(subject)));
                            }
                            tally.states.fetch_add(1, Ordering::Relaxed);
                            done.fetch_add(1, Ordering::Relaxed);
                        }
                        if mine.is_empty() {
                            return;
                        }
                    }
                });
            }
        });
        let mut report = Report::of(self.name(), 0, since, &tally);
        report.more.clear();
        report
    }
}

/// The header of a segment, of an index file, of a frame at the front, or all that a watermark says.
fn is_header(file: &File, byte: u64) -> bool {
    match file.kind {
        Kind::Sealed | Kind::Active => {
            byte < SEGMENT_HEADER_BYTES + 40
                || file.records.last().is_some_and(|(_, at, _)| (*at..*at + 40).contains(&byte))
        }
        Kind::Index => byte < 160 || byte + 64 > file.bytes.len() as u64,
        Kind::Watermark => byte < 160 || byte + 8 > file.bytes.len() as u64,
        Kind::Checkpoint => true,
    }
}

fn is_border(file: &File, cut: u64) -> bool {
    cut <= SEGMENT_HEADER_BYTES || file.records.iter().any(|(_, at, _)| cut.abs_diff(*at) <= 1)
}

fn swaps(subject: &Subject) -> Vec<Case> {
    let mut cases = Vec::new();
    for (number, file) in subject.files.iter().enumerate() {
        if !matches!(file.kind, Kind::Sealed | Kind::Active) {
            continue;
        }
        let blocks = file.bytes.len() as u64 / BLOCK_BYTES;
        for first in 0..blocks {
            cases.extend((first + 1..blocks).map(|second| Case::Swap(number, first, second)));
        }
    }
    cases
}

fn removals(subject: &Subject) -> Vec<Case> {
    let mut cases: Vec<Case> = (0..subject.files.len()).map(|number| Case::Remove(vec![number])).collect();
    let of = |kind| subject.files_of(kind).map(|(number, _)| number).collect::<Vec<usize>>();
    let (sealed, indexes, marks) = (of(Kind::Sealed), of(Kind::Index), of(Kind::Watermark));
    cases.extend(sealed.iter().zip(&indexes).map(|(log, index)| Case::Remove(vec![*log, *index])));
    cases.push(Case::Remove(indexes.clone()));
    cases.push(Case::Remove(marks.clone()));
    cases.push(Case::Remove([indexes, marks].concat()));
    cases.push(Case::Remove([sealed, of(Kind::Active)].concat()));
    cases
}

impl Case {
    fn apply(&self, subject: &Subject, disk: &SimVfs) {
        let path = |number: &usize| &subject.files.get(*number).expect("the case is about a file").path;
        let done = match self {
            Self::Flip(number, bit) => disk.flip_bit(path(number), *bit),
            Self::FlipBoth(flips) => {
                flips.iter().try_for_each(|(number, bit)| disk.flip_bit(path(number), *bit))
            }
            Self::Cut(number, len) => disk.truncate_file(path(number), *len),
            Self::Swap(number, first, second) => {
                let mut bytes = subject.files.get(*number).expect("the case is about a file").bytes.clone();
                for place in 0..BLOCK_BYTES {
                    let at = |block: u64| usize::try_from(block * BLOCK_BYTES + place).unwrap_or(usize::MAX);
                    bytes.swap(at(*first), at(*second));
                }
                disk.write_file(path(number), &bytes)
            }
            Self::Remove(numbers) => numbers.iter().try_for_each(|number| disk.remove_file(path(number))),
        };
        done.expect("the case can be done");
    }

    fn allowed(&self, subject: &Subject) -> Allowed {
        let touched = |number: usize, is_touched: &dyn Fn(u64, u64) -> bool| -> BTreeSet<usize> {
            let records = subject.files.get(number).map(|file| file.records.as_slice()).unwrap_or_default();
            records.iter().filter(|(_, at, end)| is_touched(*at, *end)).map(|(record, ..)| *record).collect()
        };
        let kind = |number: &usize| subject.files.get(*number).map(|file| file.kind);
        let report = |number: &usize| match kind(number) {
            // An older watermark, and a digest that is made again, are enough to go on with.
            Some(Kind::Watermark | Kind::Index) => Reported::May,
            Some(Kind::Sealed | Kind::Active | Kind::Checkpoint) | None => Reported::Must,
        };
        match self {
            Self::Flip(number, bit) => {
                let byte = bit / 8;
                let records = touched(*number, &|at, end| (at..end).contains(&byte));
                Allowed { records, loss: Loss::Touched, reported: report(number) }
            }
            Self::FlipBoth(_) => {
                Allowed { records: BTreeSet::new(), loss: Loss::Touched, reported: Reported::Must }
            }
            Self::Cut(number, len) => {
                let records = touched(*number, &|_, end| end > *len);
                Allowed { records, loss: Loss::Touched, reported: report(number) }
            }
            Self::Swap(number, first, second) => {
                let overlaps = |block: u64, at: u64, end: u64| {
                    at < (block + 1) * BLOCK_BYTES && end > block * BLOCK_BYTES
                };
                let records =
                    touched(*number, &|at, end| overlaps(*first, at, end) || overlaps(*second, at, end));
                Allowed { records, loss: Loss::AsManyAsTouched, reported: Reported::Must }
            }
            Self::Remove(numbers) => {
                let records = numbers.iter().flat_map(|number| touched(*number, &|_, _| true)).collect();
                let both = numbers.iter().filter(|number| kind(number) == Some(Kind::Watermark)).count() == 2;
                let any = both || numbers.iter().any(|number| report(number) == Reported::Must);
                let any = any || numbers.iter().any(|number| kind(number) == Some(Kind::Index));
                let reported = if any { Reported::Must } else { Reported::May };
                Allowed { records, loss: Loss::Touched, reported }
            }
        }
    }

    fn describe(&self, subject: &Subject) -> String {
        let name = |number: &usize| {
            let path = subject.files.get(*number).map(|file| file.path.as_path());
            path.and_then(|path| path.file_name())
                .map(|name| name.to_string_lossy().into_owned())
                .unwrap_or_default()
        };
        match self {
            Self::Flip(number, bit) => format!("bit {bit} of {} is turned over", name(number)),
            Self::FlipBoth([(first, bit), (second, _)]) => {
                format!("bit {bit} of {} and {} is turned over", name(first), name(second))
            }
            Self::Cut(number, len) => format!("{} ends at {len}", name(number)),
            Self::Swap(number, first, second) => {
                format!("blocks {first} and {second} of {} are swapped", name(number))
            }
            Self::Remove(numbers) => {
                let names: Vec<String> = numbers.iter().map(name).collect();
                format!("{} gone", names.join(", "))
            }
        }
    }
}

/// How closely a case is looked at, besides reading everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// At the file that was touched.
    Near,
    /// At every digest, with a check of everything, and at every file.
    Close,
}

/// What is wrong with how the stream is found after a case.
#[must_use]
pub fn judge(subject: &Subject, case: &Case, look: Look) -> Vec<String> {
    let disk = subject.disk();
    case.apply(subject, &disk);
    let before = disk.snapshot();
    let mut wrong = Vec::new();
    let found = catch_unwind(AssertUnwindSafe(|| {
        let vfs: Arc<dyn Vfs> = Arc::new(disk.clone());
        let place = StreamPlace {
            vfs: &vfs,
            dir: &subject.dir,
            options: &subject.options,
            snapshot: None,
            page_bytes: PAGE_BYTES,
        };
        let seen = place.see()?;
        let closer = match look {
            Look::Near => Closer::default(),
            Look::Close => look_closer(subject, &vfs)?,
        };
        Ok::<_, String>((seen, closer))
    }));
    match found {
        Err(_) => wrong.push("opening or reading it panicked".to_owned()),
        Ok(Err(error)) => wrong.push(error),
        Ok(Ok((seen, closer))) => {
            judge_seen(subject, &case.allowed(subject), &seen, &closer, &mut wrong);
        }
    }
    judge_files(subject, case, look, &disk, &SimVfs::from_snapshot(&before), &mut wrong);
    wrong
}

/// What a check of everything finds, and the digests as they are given for proofs.
#[derive(Default)]
struct Closer {
    damage: Vec<String>,
    digests: Vec<Option<[u8; 32]>>,
}

fn look_closer(subject: &Subject, vfs: &Arc<dyn Vfs>) -> Result<Closer, String> {
    let (core, _) = StreamCore::open(Arc::clone(vfs), &subject.dir, subject.options.clone(), None)
        .map_err(|error| format!("it cannot be opened again: {error}"))?;
    let reader = core.reader();
    let digests = reader.digests(0..core.end_record()).map_err(|error| error.to_string())?;
    let report = reader.scrub().map_err(|error| error.to_string())?;
    Ok(Closer { damage: report.damage.iter().map(|damage| format!("{damage:?}")).collect(), digests })
}

fn judge_seen(
    subject: &Subject,
    allowed: &Allowed,
    seen: &StreamSeen,
    closer: &Closer,
    wrong: &mut Vec<String>,
) {
    let entries = &subject.history.entries;
    let mut lost: BTreeSet<usize> = (0..entries.len()).collect();
    for record in &seen.records {
        let number = usize::try_from(record.record).unwrap_or(usize::MAX);
        // Behind damage that has lost count, a record may have another number; never another offset.
        let is_it =
            |place: &usize| entries.get(*place).is_some_and(|entry| entry.fingerprint == record.fingerprint);
        let entry = Some(number).filter(is_it).or_else(|| (0..entries.len()).find(is_it));
        match entry {
            Some(place) => {
                lost.remove(&place);
                if place != number && allowed.records.is_empty() {
                    wrong.push(format!("I3: record {place} comes as record {number}"));
                }
            }
            None => wrong.push(format!("I2: record {number} at offset {} is altered", record.offset)),
        }
    }
    let is_allowed = match allowed.loss {
        Loss::Touched => false,
        Loss::AsManyAsTouched => lost.len() <= allowed.records.len(),
    };
    if let Some(beyond) = lost.difference(&allowed.records).next().filter(|_| !is_allowed) {
        let count = lost.difference(&allowed.records).count();
        wrong.push(format!("I1: record {beyond} was not touched and does not come, as {count} in all"));
    }
    if seen.end != subject.history.end() || seen.end_record != entries.len() as u64 {
        wrong.push(format!(
            "I3: it ends at offset {} and record {}, not at {} and {}",
            seen.end,
            seen.end_record,
            subject.history.end(),
            entries.len()
        ));
    }
    let expected = gaps_of(subject, &lost);
    let told = merged(seen.skipped.iter().map(|(from, to, _)| (*from, *to)));
    if told != expected {
        wrong.push(format!("a reader is told to skip {told:?}, lost is {expected:?}"));
    }
    let must = allowed.reported == Reported::Must || !lost.is_empty();
    if must && seen.damage.is_empty() && closer.damage.is_empty() {
        wrong.push("nothing is reported".to_owned());
    }
    if !lost.is_empty() && seen.damage.is_empty() {
        wrong.push("what does not come is not reported".to_owned());
    }
    if let Some(reason) = &seen.stopped {
        wrong.push(format!("nothing may be appended: {reason}"));
    }
    if lost.is_empty() && !seen.wrong.is_empty() {
        wrong.push(format!("reading: {:?}", seen.wrong));
    }
    if allowed.loss == Loss::AsManyAsTouched {
        // Between two gaps without a known place, records have likely numbers. A proof that is made with them does not
        // lead to the checkpoint, and is not given.
        return;
    }
    for (number, digest) in closer.digests.iter().enumerate() {
        let leaf = entries.get(number).map(|entry| entry.leaf);
        match digest {
            Some(digest) if Some(*digest) == leaf => {}
            None if lost.contains(&number) => {}
            Some(_) => wrong.push(format!("I2: the digest of record {number} is another")),
            None => wrong.push(format!("the digest of record {number} is lost, the record is not")),
        }
    }
}

/// The offsets of these records, joined where they touch.
fn gaps_of(subject: &Subject, records: &BTreeSet<usize>) -> Vec<(u64, u64)> {
    let entries = records.iter().filter_map(|record| subject.history.entries.get(*record));
    merged(entries.map(|entry| (entry.offset, entry.offset + u64::from(entry.messages))))
}

fn merged(ranges: impl Iterator<Item = (u64, u64)>) -> Vec<(u64, u64)> {
    let mut merged: Vec<(u64, u64)> = Vec::new();
    for (from, to) in ranges.filter(|(from, to)| from < to) {
        match merged.last_mut() {
            Some(last) if last.1 == from => last.1 = to,
            _ => merged.push((from, to)),
        }
    }
    merged
}

/// Nothing is deleted, and no segment is changed: it may only get another name.
fn judge_files(
    subject: &Subject,
    case: &Case,
    look: Look,
    disk: &SimVfs,
    before: &SimVfs,
    wrong: &mut Vec<String>,
) {
    let touched = |number: usize| match case {
        Case::Flip(touched, _) | Case::Cut(touched, _) | Case::Swap(touched, ..) => *touched == number,
        Case::FlipBoth(flips) => flips.iter().any(|(touched, _)| *touched == number),
        Case::Remove(_) => true,
    };
    let kept: Vec<_> = disk.files();
    for (number, file) in subject.files.iter().enumerate() {
        if look == Look::Near && !touched(number) && kept.contains(&file.path) {
            continue;
        }
        let Ok(content) = before.read(&file.path, u64::MAX) else { continue };
        let is_segment = matches!(file.kind, Kind::Sealed | Kind::Active);
        match disk.read(&file.path, u64::MAX) {
            Ok(now) if now == content || !is_segment => {}
            // Another segment may have taken the name of one in which nothing can be read.
            Ok(_) | Err(_) if is_segment && touched(number) && is_aside(disk, &kept, file, &content) => {}
            Ok(now) => wrong.push(format!(
                "{} was changed: it has {} bytes in place of {}",
                file.path.display(),
                now.len(),
                content.len()
            )),
            Err(_) => wrong.push(format!("{} was deleted", file.path.display())),
        }
    }
}

fn is_aside(disk: &SimVfs, kept: &[std::path::PathBuf], file: &File, content: &[u8]) -> bool {
    let name = file.path.display().to_string();
    kept.iter()
        .filter(|path| **path != file.path && path.display().to_string().starts_with(&name))
        .any(|path| disk.read(path, u64::MAX).is_ok_and(|now| now == content))
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
