//! Applies a case, opens the stream, and says what must not be.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;

use sealbus_broker::storage::stream::StreamCore;
use sealbus_broker::vfs::{SimVfs, Vfs};

use super::case::{Allowed, Case, Loss, Reported};
use crate::campaign::seen::{StreamPlace, StreamSeen};
use crate::campaign::subject::{File, Kind, Subject};

/// Bytes of a reader's page.
const PAGE_BYTES: usize = 24 * 1_024;

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
    judge_disk(subject, case, look, &disk)
}

/// What is wrong with how the stream is found on a disk of which it is said that this case happened to it.
#[must_use]
pub fn judge_disk(subject: &Subject, case: &Case, look: Look, disk: &SimVfs) -> Vec<String> {
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
    judge_files(subject, case, look, disk, &SimVfs::from_snapshot(&before), &mut wrong);
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

fn is_aside(disk: &SimVfs, kept: &[PathBuf], file: &File, content: &[u8]) -> bool {
    let name = file.path.display().to_string();
    kept.iter()
        .filter(|path| **path != file.path && path.display().to_string().starts_with(&name))
        .any(|path| disk.read(path, u64::MAX).is_ok_and(|now| now == content))
}
