//! What is known to be damaged: each thing once, however many readers come across it.

use std::collections::HashSet;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::layout::EntryKind;
use super::limits::DAMAGE_MAX;
use super::types::{Damage, IndexOutcome, Lost};

/// The damage of a log.
#[derive(Default)]
pub(super) struct DamageList {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    known: HashSet<Damage>,
    all: Vec<Damage>,
    /// How many of them have been taken.
    taken: usize,
}

impl DamageList {
    /// Adds what was not known. Beyond the limit nothing is added: what is there is reason enough to act.
    pub(super) fn note(&self, damage: Damage) {
        let mut state = self.lock();
        if state.all.len() < DAMAGE_MAX && state.known.insert(damage.clone()) {
            state.all.push(damage);
        }
    }

    /// All of it.
    pub(super) fn all(&self) -> Vec<Damage> {
        self.lock().all.clone()
    }

    /// What was added since the last call.
    pub(super) fn take_new(&self) -> Vec<Damage> {
        let mut state = self.lock();
        let new = state.all.iter().skip(state.taken).cloned().collect();
        state.taken = state.all.len();
        new
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held, and a list is never half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Damage {
    /// What a gap in the frames is.
    pub(super) fn of_gap(kind: EntryKind, lost: Lost) -> Self {
        match kind {
            EntryKind::Truncated => Self::Truncated(lost),
            EntryKind::Corrupt | EntryKind::Frames => Self::Corrupt(lost),
        }
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Corrupt(lost) => write!(f, "{lost} are not what was written"),
            Self::Truncated(lost) => write!(f, "{lost} were cut off"),
            Self::Missing(lost) => write!(f, "{lost} are missing, with their files"),
            Self::Header { base_offset } => {
                write!(f, "the segment that begins at offset {base_offset} has a damaged header")
            }
            Self::Index { base_offset, outcome } => {
                write!(f, "the index of the segment that begins at offset {base_offset} is damaged, ")?;
                f.write_str(match outcome {
                    IndexOutcome::Rebuilt => "and was made again",
                    IndexOutcome::Left => "and is made again by the next start",
                    IndexOutcome::Lost => "and cannot be made again",
                })
            }
            Self::Watermarks => f.write_str("both watermarks are gone, although there are frames"),
        }
    }
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (offsets, records) = (&self.offsets, &self.records);
        write!(
            f,
            "offsets {} to {} (records {} to {})",
            offsets.start, offsets.end, records.start, records.end
        )
    }
}
