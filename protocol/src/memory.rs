//! Memory for large batches, which is used again.
//!
//! ```text
//!   of(len) ──> filled ──> freeze ──> Bytes, cloned and sliced ──the last one is dropped──┐
//!      ^                                                                                  |
//!      '-------------------- spares: at most 8 MiB, the oldest go first <─────────────────'
//! ```
//!
//! A general allocator gives a quarter of a megabyte back to the system when it is freed, and asks for it anew for the
//! next batch: every page is then zeroed by the kernel and taken in by a fault. That was a quarter of all CPU time of a
//! busy bus. Here the pages stay, in a number that is bounded for the whole process, and none of what they held can be
//! seen by whoever takes them next: memory comes out empty, and only what was written into it can be read.
//!
//! This is the one place of the crate with a lock and with something that outlives a value. It is an allocator's: no
//! outcome depends on it.

use std::collections::VecDeque;
use std::mem;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};

/// Memory of fewer bytes is the allocator's business: it keeps that without our help.
pub const REUSED_BYTES_MIN: usize = 16 * 1_024;

/// Bytes that are kept, in the whole process.
const KEPT_BYTES_MAX: usize = 8 * 1_024 * 1_024;

/// Pieces that are kept: as many as fill that when they are small.
const KEPT_MAX: usize = 128;

/// Sizes are rounded up to multiples of this, so that batches of nearly the same length can take turns.
const STEP_BYTES: usize = 4 * 1_024;

static SPARES: Mutex<Spares> = Mutex::new(Spares::new());

/// Empty memory with room for `len` bytes: a spare piece that is at most a quarter larger, or new.
#[must_use]
pub fn of(len: usize) -> BytesMut {
    if len < REUSED_BYTES_MIN {
        return BytesMut::with_capacity(len);
    }
    let spare = spares().take(len);
    spare.unwrap_or_else(|| BytesMut::with_capacity(len.next_multiple_of(STEP_BYTES)))
}

/// What was filled, to be read. Its memory is spare when the last who reads it is done.
#[must_use]
pub fn freeze(filled: BytesMut) -> Bytes {
    if filled.capacity() < REUSED_BYTES_MIN {
        return filled.freeze();
    }
    Bytes::from_owner(Lent(filled))
}

/// Memory that was not needed after all.
pub fn give_back(mut memory: BytesMut) {
    memory.clear();
    // Asked for more than it shows, it takes back what was read from its front, unless somebody holds a part of it.
    let _ = memory.try_reclaim(memory.capacity().saturating_add(1));
    if memory.capacity() < REUSED_BYTES_MIN {
        return;
    }
    // Freed, if it must be, after the lock is given back: that is a call to the system.
    let surplus = spares().give(memory);
    drop(surplus);
}

/// Frees what has not been used since this was called before. The broker does so each second, a client each minute, so that
/// a process that is busy no more holds nothing for long.
pub fn release_unused() {
    let unused = spares().take_unused();
    drop(unused);
}

fn spares() -> MutexGuard<'static, Spares> {
    SPARES.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Lent(BytesMut);

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        give_back(mem::take(&mut self.0));
    }
}

/// Pieces of memory, the one that was given last at the end.
#[derive(Debug)]
struct Spares {
    pieces: VecDeque<BytesMut>,
    bytes: usize,
    /// The fewest pieces that there were since somebody last asked for the unused ones.
    fewest: usize,
}

impl Spares {
    const fn new() -> Self {
        Self { pieces: VecDeque::new(), bytes: 0, fewest: 0 }
    }

    /// The piece that was used last among those that fit: what it held is most likely still in a cache. One that is
    /// more than a quarter larger does not fit, so that what waits in queues takes hardly more than it counts for.
    fn take(&mut self, len: usize) -> Option<BytesMut> {
        let fits = |piece: &BytesMut| (len..=len.saturating_add(len / 4)).contains(&piece.capacity());
        let place = self.pieces.iter().rposition(fits)?;
        let piece = self.pieces.remove(place)?;
        self.bytes -= piece.capacity();
        self.fewest = self.fewest.min(self.pieces.len());
        Some(piece)
    }

    /// Keeps a piece, and returns those that have to go for it.
    fn give(&mut self, mut piece: BytesMut) -> Vec<BytesMut> {
        piece.clear();
        if piece.capacity() > KEPT_BYTES_MAX {
            return vec![piece];
        }
        self.bytes += piece.capacity();
        self.pieces.push_back(piece);
        let mut surplus = Vec::new();
        while self.bytes > KEPT_BYTES_MAX || self.pieces.len() > KEPT_MAX {
            let Some(oldest) = self.pieces.pop_front() else { break };
            self.bytes -= oldest.capacity();
            surplus.push(oldest);
        }
        self.fewest = self.fewest.min(self.pieces.len());
        surplus
    }

    /// The oldest, as many as there always were.
    fn take_unused(&mut self) -> Vec<BytesMut> {
        let unused: Vec<_> = self.pieces.drain(..self.fewest.min(self.pieces.len())).collect();
        self.bytes -= unused.iter().map(BytesMut::capacity).sum::<usize>();
        self.fewest = self.pieces.len();
        unused
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(bytes: usize) -> BytesMut {
        let mut piece = BytesMut::with_capacity(bytes);
        piece.extend_from_slice(b"of somebody else");
        piece
    }

    #[test]
    fn memory_is_used_again_and_shows_nothing_of_what_it_held() {
        let mut spares = Spares::new();
        let given = piece(100_000);
        let place = given.as_ptr();
        assert!(spares.give(given).is_empty());
        let taken = spares.take(90_000).unwrap();
        assert_eq!((taken.as_ptr(), taken.len()), (place, 0));
        assert!(spares.take(1).is_none());
        assert_eq!(spares.bytes, 0);
    }

    #[test]
    fn memory_that_is_far_too_large_is_left_for_others() {
        let mut spares = Spares::new();
        spares.give(piece(100_000));
        assert!(spares.take(79_999).is_none() && spares.take(100_001).is_none());
        assert!(spares.take(80_000).is_some());
    }

    #[test]
    fn what_is_kept_is_bounded_and_the_oldest_goes_first() {
        let mut spares = Spares::new();
        let first = piece(KEPT_BYTES_MAX / 2);
        let place = first.as_ptr();
        spares.give(first);
        spares.give(piece(KEPT_BYTES_MAX / 4));
        let surplus = spares.give(piece(KEPT_BYTES_MAX / 2));
        assert_eq!((surplus.len(), surplus[0].as_ptr()), (1, place));
        assert!(spares.bytes <= KEPT_BYTES_MAX);
        assert_eq!(spares.give(piece(KEPT_BYTES_MAX + 1)).len(), 1, "one that no place is large enough for");
        for _ in 0..2 * KEPT_MAX {
            spares.give(piece(REUSED_BYTES_MIN));
        }
        assert_eq!(spares.pieces.len(), KEPT_MAX);
        assert_eq!(spares.bytes, spares.pieces.iter().map(BytesMut::capacity).sum::<usize>());
    }

    #[test]
    fn what_nobody_used_for_a_while_is_freed() {
        let mut spares = Spares::new();
        (0..4).for_each(|_| drop(spares.give(piece(20_000))));
        assert_eq!(spares.take_unused().len(), 0, "they have only just come");
        let used = spares.take(20_000).unwrap();
        spares.give(used);
        assert_eq!(spares.take_unused().len(), 3);
        assert_eq!(spares.take_unused().len(), 1);
        assert_eq!(spares.bytes, 0);
    }

    #[test]
    fn what_was_read_from_its_front_comes_back_too() {
        // The spares are those of the whole process: no other test asks for this size.
        const BYTES: usize = 3 << 20;
        for read in [1, 200, BYTES / 2, BYTES] {
            let mut memory = of(BYTES);
            memory.resize(BYTES, 7);
            let place = memory.as_ptr();
            bytes::Buf::advance(&mut memory, read);
            give_back(memory);
            let again = of(BYTES);
            assert_eq!((again.as_ptr(), again.capacity()), (place, BYTES), "{read} bytes read");
            give_back(again);
        }
    }

    #[test]
    fn a_part_that_others_still_read_does_not_come_back() {
        let mut filled = of(40_000);
        filled.extend_from_slice(&[7; 40_000]);
        let place = filled.as_ptr();
        let whole = freeze(filled);
        let part = whole.slice(100..200);
        drop(whole);
        assert_eq!((&part[..], part.as_ptr()), (&[7; 100][..], place.wrapping_add(100)));
        // The other tests of this process take from the same spares: what is asked for here is of a size of its own.
        let other = of(40_000);
        assert_ne!(other.as_ptr(), place);
    }
}
