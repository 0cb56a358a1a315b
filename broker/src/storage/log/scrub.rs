//! Looking at everything, so that damage is found before somebody needs what is damaged.

use super::error::ReadError;
use super::frame::HEADER_LEN;
use super::index_file::{BLOCK_DIGESTS, Index, IndexFault, read_digests};
use super::read::LogReader;
use super::segment::{FileKind, Owner, SEGMENT_HEADER_LEN, SegmentHeader, SegmentName};
use super::types::{Damage, IndexOutcome, ScrubReport};

/// Bytes that are looked at in one page.
const PAGE_BYTES: usize = 1_024 * 1_024;

impl LogReader {
    /// Reads every frame, every header and every index file, and says what is wrong. It takes as long as reading all of
    /// it takes.
    ///
    /// # Errors
    /// When the disk does not read. Damage is no error.
    pub fn scrub(&self) -> Result<ScrubReport, ReadError> {
        let mut report = ScrubReport::default();
        let sealed: Vec<SegmentName> =
            self.shared.table().sealed.iter().map(|segment| segment.name).collect();
        for name in &sealed {
            self.check_header(*name);
            self.check_index(*name);
        }
        self.check_header(self.shared.table().active.name);
        report.segments = (sealed.len() as u64).saturating_add(1);
        let mut from = self.first_record();
        loop {
            let page = self.read_records(from, PAGE_BYTES)?;
            for frame in &page.frames {
                report.frames = report.frames.saturating_add(1);
                let len = frame.payload.len().saturating_add(HEADER_LEN);
                report.bytes = report.bytes.saturating_add(len as u64);
            }
            if page.next_record <= from {
                break;
            }
            from = page.next_record;
        }
        report.damage = self.shared.damage.all();
        Ok(report)
    }

    fn check_header(&self, name: SegmentName) {
        let shared = &self.shared;
        let path = name.path(&shared.dir, FileKind::Log);
        let mut bytes = [0; SEGMENT_HEADER_LEN];
        // A file that is gone was trimmed, or is missed when its frames are read.
        let Ok(read) = shared.vfs.open(&path).and_then(|file| file.read_at(0, &mut bytes)) else { return };
        let whole = SegmentHeader::decode(bytes.get(..read).unwrap_or_default())
            .is_ok_and(|header| header.name == name && header.owner == Owner::of(&shared.options));
        if !whole {
            shared.damage.note(Damage::Header { base_offset: name.base_offset });
        }
    }

    fn check_index(&self, name: SegmentName) {
        let shared = &self.shared;
        let path = name.path(&shared.dir, FileKind::Index);
        let whole = match Index::read(&*shared.vfs, &path, Owner::of(&shared.options), name) {
            Ok(index) => match shared.vfs.open(&path) {
                Ok(file) => {
                    let records = index.records_with_digests();
                    let mut blocks = 0..records.div_ceil(BLOCK_DIGESTS);
                    blocks.all(|number| read_digests(&*file, number, records).is_ok())
                }
                Err(_) => false,
            },
            Err(IndexFault::Absent | IndexFault::Bad | IndexFault::Io(_)) => false,
        };
        if !whole {
            let outcome = IndexOutcome::Rebuilt;
            shared.damage.note(Damage::Index { base_offset: name.base_offset, outcome });
        }
    }
}
