//! The bytes of a simulated file, in pages that copies share until one of them writes.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use sha2::{Digest as _, Sha256};

const PAGE_BYTES: usize = 4096;

/// What tells two contents apart without comparing them: the first half of a SHA-256.
pub(super) type ContentDigest = [u8; 16];

/// The bytes of a file. Pages that were never written are zeros and take no memory.
#[derive(Clone, Default)]
pub(super) struct Content {
    len: u64,
    pages: Arc<BTreeMap<u64, Arc<Page>>>,
    digest: OnceLock<ContentDigest>,
}

#[derive(Clone)]
struct Page {
    bytes: [u8; PAGE_BYTES],
    /// None for a page of zeros, which is as good as none.
    digest: OnceLock<Option<ContentDigest>>,
}

impl Content {
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Writes, with zeros up to `offset` when the file is shorter. The caller keeps `offset` within what a file can
    /// hold.
    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let mut at = offset;
        let mut rest = bytes;
        while !rest.is_empty() {
            let (number, within) = page_of(at);
            let (now, later) = rest.split_at(rest.len().min(PAGE_BYTES - within));
            let (_, onwards) = self.page_mut(number).bytes.split_at_mut(within);
            let (place, _) = onwards.split_at_mut(now.len());
            place.copy_from_slice(now);
            at = at.saturating_add(now.len() as u64);
            rest = later;
        }
        self.extend(at);
    }

    /// Makes the file at least this long, with zeros.
    pub(super) fn extend(&mut self, len: u64) {
        self.len = self.len.max(len);
        self.digest = OnceLock::new();
    }

    /// Makes the file this long: cut, or filled up with zeros.
    pub(super) fn truncate(&mut self, len: u64) {
        if len < self.len {
            let (number, within) = page_of(len);
            let pages = Arc::make_mut(&mut self.pages);
            pages.split_off(&number.saturating_add(u64::from(within > 0)));
            if within > 0 && pages.contains_key(&number) {
                // What grows back there later is zeros.
                self.page_mut(number).bytes.split_at_mut(within).1.fill(0);
            }
        }
        self.len = len;
        self.digest = OnceLock::new();
    }

    /// Reads into `buf`, and says how many bytes: 0 at the end.
    pub(super) fn read(&self, offset: u64, buf: &mut [u8]) -> usize {
        let left = usize::try_from(self.len.saturating_sub(offset)).unwrap_or(usize::MAX);
        let wanted = buf.len().min(left);
        let (mut rest, _) = buf.split_at_mut(wanted);
        let mut at = offset;
        while !rest.is_empty() {
            let (number, within) = page_of(at);
            let now_bytes = rest.len().min(PAGE_BYTES - within);
            let (now, later) = rest.split_at_mut(now_bytes);
            match self.pages.get(&number) {
                Some(page) => {
                    let (_, onwards) = page.bytes.split_at(within);
                    now.copy_from_slice(onwards.split_at(now.len()).0);
                }
                None => now.fill(0),
            }
            at = at.saturating_add(now.len() as u64);
            rest = later;
        }
        wanted
    }

    /// Turns one bit over.
    pub(super) fn flip(&mut self, bit: u64) {
        let mut byte = [0];
        if self.read(bit / 8, &mut byte) == 1 {
            self.write(bit / 8, &byte.map(|byte| byte ^ (1 << (bit % 8))));
        }
    }

    pub(super) fn digest(&self) -> ContentDigest {
        *self.digest.get_or_init(|| {
            let mut hash = Sha256::new();
            hash.update(self.len.to_be_bytes());
            for (number, page) in self.pages.iter() {
                if let Some(digest) = page.digest() {
                    hash.update(number.to_be_bytes());
                    hash.update(digest);
                }
            }
            half(&hash.finalize())
        })
    }

    fn page_mut(&mut self, number: u64) -> &mut Page {
        let page = Arc::make_mut(&mut self.pages).entry(number).or_default();
        let page = Arc::make_mut(page);
        page.digest = OnceLock::new();
        page
    }
}

impl Page {
    fn digest(&self) -> Option<ContentDigest> {
        *self.digest.get_or_init(|| {
            if self.bytes == [0; PAGE_BYTES] {
                return None;
            }
            Some(half(&Sha256::digest(self.bytes)))
        })
    }
}

impl Default for Page {
    fn default() -> Self {
        Self { bytes: [0; PAGE_BYTES], digest: OnceLock::new() }
    }
}

/// The first half of a digest.
pub(super) fn half(digest: &[u8]) -> ContentDigest {
    digest.first_chunk().copied().expect("a SHA-256 has more than sixteen bytes")
}

/// The page of a place and the place in the page.
fn page_of(offset: u64) -> (u64, usize) {
    let page_bytes = PAGE_BYTES as u64;
    let within = usize::try_from(offset % page_bytes).expect("a place in a page is small");
    (offset / page_bytes, within)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(content: &Content) -> Vec<u8> {
        let mut bytes = vec![7; usize::try_from(content.len()).unwrap()];
        assert_eq!(content.read(0, &mut bytes), bytes.len());
        bytes
    }

    proptest! {
        /// Against a plain vector, with copies taken on the way that must stay as they were.
        #[test]
        fn a_content_is_a_vector_of_bytes(steps in prop::collection::vec(
            (0_usize..3 * PAGE_BYTES, 0_usize..2 * PAGE_BYTES, any::<u8>(), any::<bool>()), 1..12,
        )) {
            let (mut content, mut naive) = (Content::default(), Vec::new());
            for (offset, len, byte, cut) in steps {
                let before = (content.clone(), naive.clone());
                if cut {
                    content.truncate(offset as u64);
                    naive.resize(offset, 0);
                } else {
                    content.write(offset as u64, &vec![byte; len]);
                    if len > 0 {
                        naive.resize(naive.len().max(offset + len), 0);
                        naive[offset..offset + len].fill(byte);
                    }
                }
                prop_assert_eq!(&all(&content), &naive);
                prop_assert_eq!(all(&before.0), before.1);
                let mut fresh = Content::default();
                fresh.write(0, &naive);
                prop_assert_eq!(fresh.digest(), content.digest());
                if !naive.is_empty() {
                    fresh.flip((offset % naive.len()) as u64 * 8 + 3);
                    prop_assert_ne!(fresh.digest(), content.digest());
                }
            }
        }
    }

    #[test]
    fn contents_of_other_lengths_have_other_digests() {
        let mut zeros = Content::default();
        zeros.extend(4096);
        let mut written = Content::default();
        written.write(0, &[0; 4096]);
        assert_eq!(zeros.digest(), written.digest());
        zeros.extend(4097);
        assert_ne!(zeros.digest(), written.digest());
    }
}
