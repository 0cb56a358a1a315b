//! Numbers in byte order, one after the other.

/// Takes fields from the front. What is not there is `None`, and the caller says what that means.
pub(super) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(*array)
    }

    pub(super) fn bytes(&mut self, len: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        Some(bytes)
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_be_bytes)
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }
}

/// A block of known size that is filled from the front; what is not filled is zero.
pub(super) struct Filled<const N: usize> {
    bytes: [u8; N],
    filled: usize,
}

impl<const N: usize> Filled<N> {
    pub(super) fn new() -> Self {
        Self { bytes: [0; N], filled: 0 }
    }

    /// Adds a field. The layouts are fixed and fit; what would not fit is a mistake of ours.
    #[must_use]
    pub(super) fn put(mut self, field: &[u8]) -> Self {
        let end = self.filled.saturating_add(field.len());
        let place = self.bytes.get_mut(self.filled..end).expect("the fields of a fixed layout fit into it");
        place.copy_from_slice(field);
        self.filled = end;
        self
    }

    /// The block with the checksum of everything before its last four bytes in those.
    pub(super) fn sealed(mut self) -> [u8; N] {
        let (front, back) = self.bytes.split_last_chunk_mut().expect("the layouts have room for a checksum");
        *back = crc32c::crc32c(front).to_be_bytes();
        self.bytes
    }

    pub(super) fn bytes(self) -> [u8; N] {
        self.bytes
    }
}

/// Everything before the last four bytes, when those are its checksum.
pub(super) fn checked(bytes: &[u8]) -> Option<&[u8]> {
    let (front, back) = bytes.split_last_chunk()?;
    (crc32c::crc32c(front) == u32::from_be_bytes(*back)).then_some(front)
}

/// Like [`checked`] of the block as it must have been if one bit of it has turned over. The checksum tells such a block
/// from every other that has one to three wrong bits.
pub(super) fn checked_but_for_one_bit<const N: usize>(bytes: &[u8; N]) -> Option<[u8; N]> {
    let mut tried = *bytes;
    for at in 0..N {
        for bit in 0..8 {
            *tried.get_mut(at)? ^= 1 << bit;
            if checked(&tried).is_some() {
                return Some(tried);
            }
            *tried.get_mut(at)? ^= 1 << bit;
        }
    }
    None
}
