//! What waits to be written: small frames side by side in one buffer, large batches where they lie.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes, BytesMut};

use crate::frame::Frame;

/// A batch of at least this many bytes is sent from where it lies; a smaller one is cheaper to copy than to chain.
const COPIED_BYTES_MAX: usize = 4 * 1_024;

/// Bytes of small frames that are gathered before the gathered piece is closed.
const PIECE_BYTES: usize = 64 * 1_024;

/// The bytes that a session wants to send, in order. A [`Buf`], so that one vectored write drains many frames.
#[derive(Debug, Default)]
pub struct Outgoing {
    pieces: VecDeque<Bytes>,
    tail: BytesMut,
    len: usize,
}

impl Outgoing {
    /// Appends a frame.
    pub(super) fn push<F: Frame>(&mut self, frame: &F) {
        self.gather(|tail| frame.encode_head(tail));
        let Some(batch) = frame.batch() else { return };
        if batch.len() < COPIED_BYTES_MAX {
            self.gather(|tail| tail.extend_from_slice(batch));
        } else {
            self.close_piece();
            self.len += batch.len();
            self.pieces.push_back(batch.clone());
        }
    }

    /// Appends what `write` writes.
    pub(super) fn gather(&mut self, write: impl FnOnce(&mut BytesMut)) {
        let before = self.tail.len();
        write(&mut self.tail);
        self.len += self.tail.len() - before;
        if self.tail.len() >= PIECE_BYTES {
            self.close_piece();
        }
    }

    /// Whether nothing waits.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn close_piece(&mut self) {
        if !self.tail.is_empty() {
            self.pieces.push_back(self.tail.split().freeze());
        }
    }
}

impl Buf for Outgoing {
    fn remaining(&self) -> usize {
        self.len
    }

    fn chunk(&self) -> &[u8] {
        self.pieces.front().map_or(&self.tail[..], |piece| &piece[..])
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let pieces = self.pieces.iter().map(|piece| &piece[..]).chain([&self.tail[..]]);
        let filled = pieces.filter(|piece| !piece.is_empty()).zip(slices.iter_mut());
        filled.map(|(piece, slice)| *slice = IoSlice::new(piece)).count()
    }

    fn advance(&mut self, mut count: usize) {
        assert!(count <= self.len, "only what was queued can have been written");
        self.len -= count;
        while let Some(piece) = self.pieces.front_mut() {
            if count < piece.len() {
                piece.advance(count);
                return;
            }
            count -= piece.len();
            self.pieces.pop_front();
        }
        self.tail.advance(count);
        if self.tail.is_empty() && self.tail.capacity() > PIECE_BYTES {
            // An idle connection holds no memory for the frames of its busy time.
            self.tail = BytesMut::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{Alias, Publish, RequestId};

    fn publish(len: usize) -> Publish {
        Publish { request: RequestId(1), alias: Alias(2), batch: Bytes::from(vec![7; len]) }
    }

    #[test]
    fn bytes_come_out_in_order_however_they_are_taken() {
        let frames: Vec<_> = [10, 100_000, 0, 3, 5_000, 20].map(publish).into();
        let expected: Vec<u8> = frames.iter().flat_map(|frame| frame.encode()).collect();
        for step in [1, 7, 4_096, 1_000_000] {
            let mut outgoing = Outgoing::default();
            frames.iter().for_each(|frame| outgoing.push(frame));
            assert_eq!(outgoing.remaining(), expected.len());
            let mut found = Vec::new();
            while outgoing.has_remaining() {
                let take = step.min(outgoing.chunk().len());
                found.extend_from_slice(&outgoing.chunk()[..take]);
                outgoing.advance(take);
            }
            assert_eq!(found, expected, "step {step}");
        }
    }

    #[test]
    fn a_vectored_write_sees_all_pieces() {
        let mut outgoing = Outgoing::default();
        [10, 100_000, 3].map(publish).iter().for_each(|frame| outgoing.push(frame));
        let mut slices = [IoSlice::new(&[]); 8];
        let filled = outgoing.chunks_vectored(&mut slices);
        assert_eq!(filled, 3);
        assert_eq!(slices[..filled].iter().map(|slice| slice.len()).sum::<usize>(), outgoing.remaining());
    }

    #[test]
    fn a_large_batch_is_not_copied() {
        let mut outgoing = Outgoing::default();
        let frame = publish(100_000);
        outgoing.push(&frame);
        assert_eq!(outgoing.pieces[1].as_ptr(), frame.batch.as_ptr());
    }
}
