//! What may have become of the changes that were not synced: each choice is one way to lose power.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use super::content::Content;
use super::disk::{DataChange, Disk, FileChange, Inode, Names, Pending};
use super::random::Random;

/// What a disk writes whole or not at all.
const SECTOR_BYTES: u64 = 512;

/// What a system writes back at once.
const BLOCK_BYTES: u64 = 4096;

/// Of the unsynced writes of one file, only the last ones are torn; those before them are kept or lost whole.
const TORN_WRITES_MAX: usize = 4;

/// Which of the unsynced changes are there. Numbers are those of operations, from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kept {
    All,
    None,
    UpTo(usize),
    AllBut(usize),
    Only(usize),
    /// All but those of the file that this operation changed.
    AllButTheFileOf(usize),
    OnlyTheFileOf(usize),
}

/// What is there of the bytes that were not synced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum DataChoice {
    Whole(Kept),
    /// A write of which some sectors are there.
    Torn {
        operation: usize,
        part: Part,
        others: Others,
    },
    /// The new length of a file, with zeros for its new bytes.
    LengthOnly {
        operation: usize,
        others: Others,
    },
}

/// What is there of a torn write. Numbers are bytes of the write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// The first bytes, and the file ends with them when it was not longer before.
    First(u64),
    /// The first bytes, and the file is as long as the whole write made it.
    FirstAndLength(u64),
    /// What comes from here on.
    From(u64),
    /// Everything but what is between these.
    AllBut(u64, u64),
}

/// The unsynced changes beside the one that a choice is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Others {
    Kept,
    Lost,
}

/// The choices for unsynced names, with what they lead to, without repetition.
pub(super) fn name_choices(disk: &Disk, random: &mut Random, most: usize) -> Vec<(Kept, Arc<Names>)> {
    let operations: Vec<usize> = disk.name_changes.iter().map(|pending| pending.operation).collect();
    let mut found: Vec<(Kept, Arc<Names>)> = Vec::new();
    for kept in random.sample(whole_choices(&operations), 2, most) {
        let mut names = Names::clone(&disk.names);
        for pending in &disk.name_changes {
            if kept.keeps(pending.operation, |_| false) {
                pending.change.apply(&mut names);
            }
        }
        drop_orphans(&mut names);
        if found.iter().all(|(_, other)| **other != names) {
            found.push((kept, Arc::new(names)));
        }
    }
    found
}

/// The choices for unsynced bytes: all kept, all lost, then the others.
pub(super) fn data_choices(
    disk: &Disk,
    random: &mut Random,
    borders_max: usize,
    most: usize,
) -> Vec<DataChoice> {
    let changes = &disk.data_changes;
    let operations: Vec<usize> = changes.iter().map(|pending| pending.operation).collect();
    let mut choices: Vec<DataChoice> =
        whole_choices(&operations).into_iter().map(DataChoice::Whole).collect();

    let mut files: BTreeMap<Inode, Vec<&Pending<FileChange>>> = BTreeMap::new();
    for pending in changes {
        files.entry(pending.change.0).or_default().push(pending);
    }
    let several: &[Others] = if changes.len() > 1 { &[Others::Kept, Others::Lost] } else { &[Others::Kept] };
    for pendings in files.values() {
        let Some(last) = pendings.last().map(|pending| pending.operation) else {
            continue;
        };
        if files.len() > 1 {
            choices.push(DataChoice::Whole(Kept::AllButTheFileOf(last)));
            choices.push(DataChoice::Whole(Kept::OnlyTheFileOf(last)));
        }
        for others in several {
            choices.push(DataChoice::LengthOnly { operation: last, others: *others });
            for pending in pendings.iter().rev().take(TORN_WRITES_MAX) {
                let operation = pending.operation;
                let torn = parts(&pending.change.1, random, borders_max).into_iter();
                choices.extend(torn.map(|part| DataChoice::Torn { operation, part, others: *others }));
            }
        }
    }
    random.sample(choices, 2, most)
}

impl Kept {
    /// `same_file` says whether the change is one of the file that this operation changed.
    fn keeps(&self, operation: usize, same_file: impl Fn(usize) -> bool) -> bool {
        match self {
            Self::All => true,
            Self::None => false,
            Self::UpTo(last) => operation <= *last,
            Self::AllBut(lost) => operation != *lost,
            Self::Only(kept) => operation == *kept,
            Self::AllButTheFileOf(lost) => !same_file(*lost),
            Self::OnlyTheFileOf(kept) => same_file(*kept),
        }
    }
}

impl DataChoice {
    /// The contents that this choice leads to.
    pub(super) fn contents(&self, disk: &Disk) -> BTreeMap<Inode, Content> {
        let mut contents = disk.contents.clone();
        let file_of = |operation: usize| {
            let found = disk.data_changes.iter().find(|pending| pending.operation == operation);
            found.map(|pending| pending.change.0)
        };
        for pending in &disk.data_changes {
            let (inode, change) = &pending.change;
            let content = contents.entry(*inode).or_default();
            match self {
                Self::Whole(kept) => {
                    if kept.keeps(pending.operation, |operation| file_of(operation) == Some(*inode)) {
                        change.apply(content);
                    }
                }
                Self::Torn { operation, part, .. } if *operation == pending.operation => {
                    part.apply(change, content);
                }
                // The bytes of this file are lost, and those of the others are not.
                Self::LengthOnly { operation, others: Others::Kept }
                    if file_of(*operation) == Some(*inode) => {}
                Self::Torn { others: Others::Kept, .. } | Self::LengthOnly { others: Others::Kept, .. } => {
                    change.apply(content);
                }
                Self::Torn { others: Others::Lost, .. } | Self::LengthOnly { others: Others::Lost, .. } => {}
            }
        }
        if let Self::LengthOnly { operation, .. } = self
            && let Some(inode) = file_of(*operation)
        {
            let len = disk.content_with_all(inode).len();
            contents.entry(inode).or_default().extend(len);
        }
        contents
    }
}

impl Part {
    fn apply(self, change: &DataChange, content: &mut Content) {
        let DataChange::Write { offset, bytes } = change else {
            return;
        };
        let write = |content: &mut Content, from: u64, to: u64| {
            let (from, to) = (usize::try_from(from).ok(), usize::try_from(to).ok());
            if let Some((from, to)) = from.zip(to)
                && let Some(part) = bytes.get(from..to)
            {
                content.write(offset.saturating_add(from as u64), part);
            }
        };
        let end = bytes.len() as u64;
        match self {
            Self::First(to) => write(content, 0, to),
            Self::FirstAndLength(to) => {
                write(content, 0, to);
                content.extend(offset.saturating_add(end));
            }
            Self::From(from) => write(content, from, end),
            Self::AllBut(from, to) => {
                write(content, 0, from);
                write(content, to, end);
            }
        }
    }
}

/// All, none, each prefix, each without one, each one alone.
fn whole_choices(operations: &[usize]) -> Vec<Kept> {
    let mut choices = vec![Kept::All, Kept::None];
    if let [before @ .., _] = operations
        && !before.is_empty()
    {
        choices.extend(before.iter().map(|operation| Kept::UpTo(*operation)));
        choices.extend(operations.iter().map(|operation| Kept::AllBut(*operation)));
        choices.extend(operations.iter().map(|operation| Kept::Only(*operation)));
    }
    choices
}

/// The ways in which a write can be torn: at each border between sectors.
fn parts(change: &DataChange, random: &mut Random, borders_max: usize) -> Vec<Part> {
    let DataChange::Write { offset, bytes } = change else {
        return Vec::new();
    };
    let end = offset.saturating_add(bytes.len() as u64);
    let sectors = borders(*offset, end, SECTOR_BYTES);
    let blocks = borders(*offset, end, BLOCK_BYTES);
    let chosen = random.sample(sectors, 0, borders_max);
    let mut parts = vec![Part::FirstAndLength(0)];
    for border in chosen.iter().chain(&blocks) {
        parts.extend([Part::First(*border), Part::FirstAndLength(*border), Part::From(*border)]);
    }
    // One sector away, one block away, and everything but the edges away.
    for borders in [&chosen, &blocks] {
        parts.extend(borders.windows(2).filter_map(|pair| match pair {
            [from, to] => Some(Part::AllBut(*from, *to)),
            _ => None,
        }));
        if let [first, _, .., last] = borders.as_slice() {
            parts.push(Part::AllBut(*first, *last));
        }
    }
    parts
}

/// Where such units of the disk begin within a write, as bytes of the write.
fn borders(offset: u64, end: u64, unit: u64) -> Vec<u64> {
    let first = (offset / unit).saturating_add(1).saturating_mul(unit);
    let units = (0..).map(|number: u64| first.saturating_add(number.saturating_mul(unit)));
    units.take_while(|border| *border < end).map(|border| border - offset).collect()
}

/// What stood in a directory that is not there is not there either.
fn drop_orphans(names: &mut Names) {
    let mut present = Names::new();
    for (path, node) in std::mem::take(names) {
        let above = path.parent().unwrap_or(Path::new("/"));
        if above.parent().is_none() || present.contains_key(above) {
            present.insert(path, node);
        }
    }
    *names = present;
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all kept"),
            Self::None => f.write_str("all lost"),
            Self::UpTo(last) => write!(f, "kept up to operation {last}"),
            Self::AllBut(lost) => write!(f, "all kept but operation {lost}"),
            Self::Only(kept) => write!(f, "only operation {kept} kept"),
            Self::AllButTheFileOf(lost) => write!(f, "all kept but the file of operation {lost}"),
            Self::OnlyTheFileOf(kept) => write!(f, "only the file of operation {kept} kept"),
        }
    }
}

impl fmt::Display for DataChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole(kept) => write!(f, "{kept}"),
            Self::Torn { operation, part, others } => {
                write!(f, "of operation {operation} {part}, the others {others}")
            }
            Self::LengthOnly { operation, others } => {
                write!(f, "only the length of the file of operation {operation} kept, the others {others}")
            }
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::First(to) => write!(f, "the first {to} bytes kept"),
            Self::FirstAndLength(to) => write!(f, "the first {to} bytes and the length kept"),
            Self::From(from) => write!(f, "the first {from} bytes lost"),
            Self::AllBut(from, to) => write!(f, "the bytes from {from} to {to} lost"),
        }
    }
}

impl fmt::Display for Others {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kept => "kept",
            Self::Lost => "lost",
        })
    }
}
