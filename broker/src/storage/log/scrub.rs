//! Looking at everything, so that damage is found before somebody needs what is damaged.

use std::ops::ControlFlow;

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
        self.scrub_while(&mut || ControlFlow::Continue(()))
    }

    /// The same, asking after each mebibyte whether to go on: whoever is asked may take its time. Told to stop, it
    /// gives what it has found so far.
    ///
    /// # Errors
    /// As [`LogReader::scrub`].
    pub fn scrub_while(&self, go_on: &mut dyn FnMut() -> ControlFlow<()>) -> Result<ScrubReport, ReadError> {
        let mut report = ScrubReport::default();
        let mut looked = self.check_files(go_on, &mut report);
        let mut from = self.first_record();
        while looked.is_continue() {
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
            looked = go_on();
        }
        report.damage = self.shared.damage.all();
        Ok(report)
    }

    fn check_files(
        &self,
        go_on: &mut dyn FnMut() -> ControlFlow<()>,
        report: &mut ScrubReport,
    ) -> ControlFlow<()> {
        let (sealed, active): (Vec<SegmentName>, SegmentName) = {
            let table = self.shared.table();
            (table.sealed.iter().map(|segment| segment.name).collect(), table.active.name)
        };
        for name in &sealed {
            self.check_header(*name);
            self.check_index(*name);
            report.segments = report.segments.saturating_add(1);
            go_on()?;
        }
        self.check_header(active);
        report.segments = report.segments.saturating_add(1);
        ControlFlow::Continue(())
    }

    fn check_header(&self, name: SegmentName) {
        let shared = &self.shared;
        let path = name.path(&shared.dir, FileKind::Log);
        let mut bytes = [0; SEGMENT_HEADER_LEN];
        // A file that is gone was trimmed, or is missed when its frames are read.
        let Ok(file) = shared.vfs.open_read(&path) else { return };
        // It is the disk that is asked, not what the system's memory has of it.
        file.forget_cached();
        let Ok(read) = file.read_at(0, &mut bytes) else { return };
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
            Ok(index) => match shared.vfs.open_read(&path) {
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
            let outcome = IndexOutcome::Left;
            shared.damage.note(Damage::Index { base_offset: name.base_offset, outcome });
        }
    }
}
