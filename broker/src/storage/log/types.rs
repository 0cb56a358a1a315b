//! What goes into a log and comes out of it.

use std::ops::Range;

use bytes::Bytes;
use sealbus_protocol::ids::{BusId, StreamId};

/// Gives the 32 bytes that stand for a frame in the index files: the hash of its leaf.
pub type DigestFn = fn(&FrameView<'_>, &LogOptions) -> [u8; 32];

/// What a log must know to be opened.
#[derive(Clone)]
pub struct LogOptions {
    /// The bus that it belongs to. Files of another bus are refused.
    pub bus_id: BusId,
    /// The stream that it is. Files of another stream are refused.
    pub log_id: StreamId,
    /// Bytes after which a new segment begins. Held between the bounds of `limits`.
    pub segment_bytes: u64,
    /// What is kept of each frame when the frame itself is trimmed away; without it nothing is.
    pub digest: Option<DigestFn>,
    /// A random number for a new segment: [`random_salt`], or a seeded one in simulation.
    pub salt: fn() -> u64,
}

/// A salt from the system's randomness.
///
/// # Panics
/// Never on a system that has randomness, without which the broker does not start.
#[must_use]
pub fn random_salt() -> u64 {
    getrandom::u64().expect("a system that gave randomness for TLS gives it here")
}

/// A frame to be appended.
#[derive(Debug, Clone, Copy)]
pub struct NewFrame<'a> {
    /// The owner's: what the payload is.
    pub kind: u8,
    /// The owner's, except for the highest bit, which is the log's.
    pub flags: u8,
    /// Offsets that it takes. May be 0.
    pub count: u32,
    /// When. A moment before the last frame's is raised to it.
    pub time_ms: u64,
    /// Its content, in parts that are written as they are.
    pub payload: &'a [&'a [u8]],
}

impl NewFrame<'_> {
    /// Bytes of the content.
    #[must_use]
    pub fn payload_bytes(&self) -> usize {
        self.payload.iter().fold(0, |sum, part| sum.saturating_add(part.len()))
    }
}

/// A frame that was read and is whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameView<'a> {
    /// The owner's: what the payload is.
    pub kind: u8,
    /// The owner's.
    pub flags: u8,
    /// Offsets that it takes.
    pub count: u32,
    /// The first of them.
    pub offset: u64,
    /// Its number among the frames of the log.
    pub record: u64,
    /// Everything below this offset was durable when it was written.
    pub synced: u64,
    /// When it was appended. Never before the frame in front.
    pub time_ms: u64,
    /// Its content.
    pub payload: &'a [u8],
}

/// [`FrameView`] that owns its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnedFrame {
    /// The owner's: what the payload is.
    pub kind: u8,
    /// The owner's.
    pub flags: u8,
    /// Offsets that it takes.
    pub count: u32,
    /// The first of them.
    pub offset: u64,
    /// Its number among the frames of the log.
    pub record: u64,
    /// Everything below this offset was durable when it was written.
    pub synced: u64,
    /// When it was appended.
    pub time_ms: u64,
    /// Its content.
    pub payload: Bytes,
}

impl OwnedFrame {
    /// The offset after its last.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.offset.saturating_add(u64::from(self.count))
    }

    /// The same without owning.
    #[must_use]
    pub fn view(&self) -> FrameView<'_> {
        FrameView {
            kind: self.kind,
            flags: self.flags,
            count: self.count,
            offset: self.offset,
            record: self.record,
            synced: self.synced,
            time_ms: self.time_ms,
            payload: &self.payload,
        }
    }
}

/// What one reading gave.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// Whole frames, in order.
    pub frames: Vec<OwnedFrame>,
    /// The offset from which to read on.
    pub next: u64,
    /// The record from which to read on.
    pub next_record: u64,
    /// What was asked for and will not come, in order.
    pub skipped: Vec<Skipped>,
}

/// Offsets that will not come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Skipped {
    /// The first.
    pub from: u64,
    /// The one after the last.
    pub to: u64,
    /// Why.
    pub why: SkipReason,
}

/// Why offsets will not come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SkipReason {
    /// Removed as the retention says.
    Trimmed,
    /// Something is wrong with the bytes, which are kept and not served.
    Damaged,
}

/// Something that is not as it was written. The bytes are left as they are.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Damage {
    /// Frames that are there and do not verify.
    Corrupt(Lost),
    /// Frames that are not there any more although the end of their file had been durable.
    Truncated(Lost),
    /// Whole segments that are not there.
    Missing(Lost),
    /// The header of the segment that begins at this offset. No frame is lost by it alone.
    Header {
        /// Where the segment begins.
        base_offset: u64,
    },
    /// The index file of the segment that begins at this offset.
    Index {
        /// Where the segment begins.
        base_offset: u64,
        /// What could be done.
        outcome: IndexOutcome,
    },
    /// Both watermarks, although there are frames. Until the next one is written a shortened log is not noticed.
    Watermarks,
}

/// What is lost.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Lost {
    /// Its offsets. Empty when only frames without offsets are lost.
    pub offsets: Range<u64>,
    /// Its records. An estimate when a damaged stretch has no known place on its other side.
    pub records: Range<u64>,
}

/// What became of a bad index file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum IndexOutcome {
    /// The log was being opened, and the file was made again from the segment.
    Rebuilt,
    /// The log was open already: what it said is taken from the segment, and the next opening makes the file again.
    Left,
    /// It belonged to a trimmed segment, or that one is damaged too: its digests are lost.
    Lost,
}

impl Damage {
    /// The offsets that are lost by it; empty when none are.
    #[must_use]
    pub fn offsets(&self) -> Range<u64> {
        match self {
            Self::Corrupt(lost) | Self::Truncated(lost) | Self::Missing(lost) => lost.offsets.clone(),
            Self::Header { base_offset } | Self::Index { base_offset, .. } => *base_offset..*base_offset,
            Self::Watermarks => 0..0,
        }
    }
}

/// What opening found and did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovery {
    /// What is wrong below the durable end.
    pub damage: Vec<Damage>,
    /// The torn tail that was cut: nobody had been told that it was kept.
    pub cut: Option<Cut>,
    /// The owner's state that was kept last.
    pub state: Option<OwnerState>,
}

/// A tail that was cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// The offset at which the log goes on.
    pub offset: u64,
    /// Bytes that were cut.
    pub bytes: u64,
}

/// What the owner gave to be kept with the watermark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnerState {
    /// As it was given.
    pub bytes: Vec<u8>,
    /// It describes everything below this offset.
    pub offset: u64,
    /// It describes everything below this record.
    pub record: u64,
}

/// A segment, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentInfo {
    /// Its first offset.
    pub base_offset: u64,
    /// The offset after its last.
    pub end_offset: u64,
    /// Its first record.
    pub first_record: u64,
    /// The record after its last.
    pub end_record: u64,
    /// Bytes of its file.
    pub bytes: u64,
    /// When its first frame was appended; 0 without frames.
    pub first_time_ms: u64,
    /// When its last frame was appended; 0 without frames.
    pub last_time_ms: u64,
    /// Whether it still grows.
    pub phase: SegmentPhase,
}

/// Whether a segment grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SegmentPhase {
    /// New frames go here.
    Active,
    /// It is complete.
    Sealed,
}

/// What trimming did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TrimReport {
    /// Segments that were removed.
    pub segments: u32,
    /// Their bytes.
    pub bytes: u64,
    /// The first offset that is kept.
    pub first_offset: u64,
}

/// What a full check found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ScrubReport {
    /// Segments that were looked at.
    pub segments: u64,
    /// Frames that are whole.
    pub frames: u64,
    /// Their bytes.
    pub bytes: u64,
    /// What is wrong.
    pub damage: Vec<Damage>,
}
