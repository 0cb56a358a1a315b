//! All cases of a kind.

use std::fmt;

use super::case::Case;
use crate::campaign::subject::{File, Kind, SEGMENT_HEADER_BYTES, Subject};

/// What a disk or a file system exchanges as a whole.
pub(super) const BLOCK_BYTES: u64 = 4_096;

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
    pub(super) const fn is_large(self) -> bool {
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
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
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
