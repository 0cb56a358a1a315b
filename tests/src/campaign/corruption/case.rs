//! One way in which a disk is not what it was, and what it may do to the stream.

use std::collections::BTreeSet;

use sealbus_broker::vfs::SimVfs;

use super::family::BLOCK_BYTES;
use crate::campaign::subject::{Kind, Subject};

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
pub(super) struct Allowed {
    /// Records that were touched.
    pub(super) records: BTreeSet<usize>,
    /// Which of them, or how many, may be lost.
    pub(super) loss: Loss,
    /// Whether something must be reported although every record comes.
    pub(super) reported: Reported,
}

/// What may be lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Loss {
    /// What was touched.
    Touched,
    /// As many as were touched: frames that verify stand in another place, and nothing tells which ones are out of order,
    /// those that were moved or those between.
    AsManyAsTouched,
}

/// Whether something must be reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reported {
    Must,
    /// The other one of two is enough, or a check of the whole finds it.
    May,
}

impl Case {
    pub(super) fn apply(&self, subject: &Subject, disk: &SimVfs) {
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

    pub(super) fn allowed(&self, subject: &Subject) -> Allowed {
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

    pub(super) fn describe(&self, subject: &Subject) -> String {
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
