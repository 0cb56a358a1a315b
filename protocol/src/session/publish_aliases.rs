//! The aliases that a broker gives to the topics that a client publishes to.

use crate::frame::Alias;
use crate::limits::TOPICS_PER_CONNECTION_MAX;

use super::error::SessionError;

/// Small numbers, used again after CLOSE.
#[derive(Debug, Default)]
pub(super) struct PublishAliases {
    /// Which are open; the alias is the index.
    slots: Vec<Slot>,
    free: Vec<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slot {
    Open,
    Free,
}

impl PublishAliases {
    /// Opens the alias that was freed last, or the next one.
    pub(super) fn open(&mut self) -> Result<Alias, SessionError> {
        let alias = match self.free.pop() {
            Some(free) => Alias(free),
            None if self.slots.len() >= TOPICS_PER_CONNECTION_MAX => return Err(SessionError::TooManyTopics),
            None => {
                self.slots.push(Slot::Free);
                Alias(u32::try_from(self.slots.len() - 1).expect("aliases are bounded by their limit"))
            }
        };
        if let Some(slot) = self.slot(alias) {
            *slot = Slot::Open;
        }
        Ok(alias)
    }

    /// An alias that a client names must be open.
    pub(super) fn expect_open(&mut self, alias: Alias) -> Result<(), SessionError> {
        self.open_slot(alias).map(drop)
    }

    /// Frees an open alias.
    pub(super) fn close(&mut self, alias: Alias) -> Result<(), SessionError> {
        *self.open_slot(alias)? = Slot::Free;
        self.free.push(alias.0);
        Ok(())
    }

    fn open_slot(&mut self, alias: Alias) -> Result<&mut Slot, SessionError> {
        self.slot(alias).filter(|slot| **slot == Slot::Open).ok_or(SessionError::UnknownAlias(alias))
    }

    fn slot(&mut self, alias: Alias) -> Option<&mut Slot> {
        self.slots.get_mut(usize::try_from(alias.0).ok()?)
    }
}
