//! The states in which a simulated disk may be found when power is lost.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::os::unix::ffi::OsStrExt as _;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::choice::{DataChoice, Kept, data_choices, name_choices};
use super::content::{Content, ContentDigest, half};
use super::disk::{Disk, Inode, Names, Node};
use super::random::Random;
use super::vfs::SimVfs;

/// How many states of each moment are looked at. What is over a limit is sampled by the seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// States of one moment. Some of them may turn out to be equal and come once.
    pub states_max: usize,
    /// Borders between sectors at which one write is torn. Borders between blocks are beside them.
    pub borders_max: usize,
    /// Ways in which the names of one moment are kept or lost.
    pub names_max: usize,
    /// Where the sampling begins: another seed, other states.
    pub seed: u64,
}

impl Limits {
    /// Enough that nothing is left out of a script with groups of some tens of operations and writes of some KiB.
    #[must_use]
    pub fn thorough() -> Self {
        Self { states_max: 100_000, borders_max: 1_000, names_max: 1_000, seed: 0 }
    }

    /// A sample of this many states for each moment.
    #[must_use]
    pub fn sampled(states_max: usize, seed: u64) -> Self {
        Self { states_max, borders_max: 8, names_max: 16, seed }
    }
}

/// How a state came to be, for the person who must find out why it is not recovered from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    operations: usize,
    last: Arc<str>,
    names: Kept,
    data: DataChoice,
}

impl Description {
    /// After how many operations the power was lost.
    #[must_use]
    pub fn operations(&self) -> usize {
        self.operations
    }
}

impl fmt::Display for Description {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { operations, last, names, data } = self;
        write!(
            f,
            "power lost after operation {operations} ({last}); unsynced names: {names}; unsynced bytes: {data}"
        )
    }
}

/// The states of one moment, each once.
pub struct CrashStates {
    disk: Disk,
    operations: usize,
    last: Arc<str>,
    names: Vec<(Kept, Arc<Names>)>,
    data: Vec<DataChoice>,
    /// Which of the data choices with which of the names, by data choice; the next one last.
    pairs: Vec<(u32, u32)>,
    /// Of the data choice that is being combined.
    contents: Option<(u32, BTreeMap<Inode, Content>)>,
    seen: HashSet<ContentDigest>,
}

impl CrashStates {
    pub(super) fn new(mut disk: Disk, operations: usize, last: String, limits: Limits) -> Self {
        disk.forget_nameless();
        let mut random = Random::new(limits.seed ^ (operations as u64).rotate_left(32));
        let names = name_choices(&disk, &mut random, limits.names_max);
        let data = data_choices(&disk, &mut random, limits.borders_max, limits.states_max);
        let mut pairs = pairs(names.len(), data.len(), &mut random, limits.states_max);
        pairs.sort_unstable_by(|a, b| b.cmp(a));
        let last = last.into();
        Self { disk, operations, last, names, data, pairs, contents: None, seen: HashSet::new() }
    }

    fn contents_of(&mut self, index: u32) -> Option<BTreeMap<Inode, Content>> {
        if self.contents.as_ref().is_none_or(|(of, _)| *of != index) {
            let choice = self.data.get(index as usize)?;
            self.contents = Some((index, choice.contents(&self.disk)));
        }
        self.contents.as_ref().map(|(_, contents)| contents.clone())
    }
}

impl Iterator for CrashStates {
    type Item = (Description, SimVfs);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (data, names) = self.pairs.pop()?;
            let contents = self.contents_of(data)?;
            let (kept, names) = self.names.get(names as usize)?;
            if !self.seen.insert(digest(names, &contents)) {
                continue;
            }
            let description = Description {
                operations: self.operations,
                last: Arc::clone(&self.last),
                names: kept.clone(),
                data: self.data.get(data as usize)?.clone(),
            };
            return Some((description, SimVfs::of(Arc::clone(names), contents)));
        }
    }
}

/// What tells two states apart without comparing them: names, kinds and contents.
pub(super) fn digest(names: &Names, contents: &BTreeMap<Inode, Content>) -> ContentDigest {
    let mut hash = Sha256::new();
    for (path, node) in names {
        let path = path.as_os_str().as_bytes();
        hash.update((path.len() as u64).to_be_bytes());
        hash.update(path);
        match node {
            Node::Directory => hash.update([0]),
            Node::File(inode) => {
                hash.update([1]);
                hash.update(contents.get(inode).map_or_else(|| Content::default().digest(), Content::digest));
            }
        }
    }
    half(&hash.finalize())
}

/// Which data choice meets which choice of names: all of them when that is not too much. Otherwise first those in which
/// the one or the other is the plainest, all kept or all lost, which are the first two of each.
fn pairs(names: usize, data: usize, random: &mut Random, most: usize) -> Vec<(u32, u32)> {
    let index = |index: usize| u32::try_from(index).unwrap_or(u32::MAX);
    let all = (0..data).flat_map(|data| (0..names).map(move |names| (data, names)));
    let (mut plain, mut other) = (Vec::new(), Vec::new());
    for (data, names) in all {
        let pair = (index(data), index(names));
        if data < 2 && names < 2 {
            plain.insert(0, pair);
        } else if data < 2 || names < 2 {
            plain.push(pair);
        } else {
            other.push(pair);
        }
    }
    let left = most.saturating_sub(plain.len());
    let mut pairs = random.sample(plain, 4, most);
    pairs.extend(random.sample(other, 0, left));
    pairs
}
