//! Bytes that came and were not taken yet, in one piece, in a buffer that grows as far as it is needed.
//!
//! ```text
//!   bytes: [ taken | unread ........ | room ]
//!                  start             end
//! ```

/// The first size: what an idle connection needs.
const BYTES_MIN: usize = 8 * 1024;

/// A buffer for what one side writes in pieces and the other takes in items.
#[derive(Debug)]
pub(crate) struct Window {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
    bytes_max: usize,
    /// Whether the last piece filled all the room there was: then more would have come.
    was_filled: bool,
}

impl Window {
    /// An empty one that grows up to this size.
    pub(crate) const fn new(bytes_max: usize) -> Self {
        Self { bytes: Vec::new(), start: 0, end: 0, bytes_max, was_filled: true }
    }

    /// What is there.
    pub(crate) fn unread(&self) -> &[u8] {
        self.bytes.get(self.start..self.end).unwrap_or_default()
    }

    /// Takes so many of the unread bytes, or all when there are fewer.
    pub(crate) fn take(&mut self, count: usize) {
        self.start = self.start.saturating_add(count).min(self.end);
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
    }

    /// Where the next bytes may be put; empty when the window is full and as large as it may become. What is unread is
    /// moved only when little room is left behind it, so that most items stay where they were put.
    pub(crate) fn room(&mut self) -> &mut [u8] {
        let size = self.bytes.len();
        if self.start > 0 && size.saturating_sub(self.end) < size / 4 {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end.saturating_sub(self.start));
        }
        if (self.was_filled || self.end > size / 2) && size < self.bytes_max {
            self.bytes.resize(size.saturating_mul(2).clamp(BYTES_MIN, self.bytes_max), 0);
        }
        self.was_filled = false;
        self.bytes.get_mut(self.end..).unwrap_or_default()
    }

    /// So many bytes were put into the room.
    pub(crate) fn put(&mut self, count: usize) {
        self.end = self.end.saturating_add(count).min(self.bytes.len());
        self.was_filled = self.end == self.bytes.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_out_as_they_went_in() {
        for (piece, item) in [(1, 1), (7, 3), (5_000, 333), (70_000, 11), (300, 299)] {
            let mut window = Window::new(64 * 1024);
            let (mut put, mut taken) = (0_usize, 0_usize);
            while taken < 300_000 {
                let room = window.room();
                let count = room.len().min(piece);
                for byte in &mut room[..count] {
                    *byte = u8::try_from(put % 251).unwrap();
                    put += 1;
                }
                window.put(count);
                while let Some(bytes) = window.unread().get(..item) {
                    for byte in bytes {
                        assert_eq!(usize::from(*byte), taken % 251, "piece {piece}, item {item}");
                        taken += 1;
                    }
                    window.take(item);
                }
            }
        }
    }

    #[test]
    fn a_full_window_grows_to_its_limit_and_then_has_no_room() {
        let mut window = Window::new(20_000);
        let mut put = 0;
        loop {
            let count = window.room().len();
            if count == 0 {
                break;
            }
            window.put(count);
            put += count;
        }
        assert_eq!((put, window.unread().len()), (20_000, 20_000));
    }

    #[test]
    fn small_pieces_do_not_make_it_grow() {
        let mut window = Window::new(1 << 20);
        for _ in 0..10_000 {
            assert!(window.room().len() >= 100);
            window.put(100);
            window.take(100);
        }
        assert_eq!(window.bytes.len(), BYTES_MIN);
    }
}
