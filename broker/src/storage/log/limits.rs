//! The bounds of a log, each with its reason.

/// Bytes of a frame's payload. A record is a batch of at most one mebibyte and some words around it; twice that leaves
/// room for what the formats may add, and is the most that a length from the disk can make a reader set aside.
pub const FRAME_PAYLOAD_BYTES_MAX: usize = 2 * 1_024 * 1_024;

/// Bytes of what one call appends. The writer gathers at most 8 MiB for a stream at a time.
pub const GROUP_BYTES_MAX: u64 = 32 * 1_024 * 1_024;

/// Bytes after which a segment is full, at least. Smaller ones are all header, index and directory.
pub(super) const SEGMENT_BYTES_MIN: u64 = 4 * 1_024;

/// Bytes after which a segment is full, at most. The one that grows is read whole when the log is opened.
pub(super) const SEGMENT_BYTES_MAX: u64 = 1_024 * 1_024 * 1_024;

/// Bytes that a segment's file can have. What lies behind is not ours and is not looked at.
pub(super) const SEGMENT_FILE_BYTES_MAX: u64 = SEGMENT_BYTES_MAX + GROUP_BYTES_MAX;

/// Bytes from one entry of a segment's index to the next, so that finding a frame reads no more. Half a kilobyte of
/// memory for a mebibyte of log.
pub(super) const INDEX_STEP_BYTES: u64 = 64 * 1_024;

/// Bytes of an index file's entries and state. One gibibyte has half a mebibyte of entries; damage adds some.
pub(super) const INDEX_BODY_BYTES_MAX: u64 = 64 * 1_024 * 1_024;

/// Bytes of the owner's state in a watermark. The watermark is one page of the disk.
pub const STATE_BYTES_MAX: usize = 3_900;

/// Files of sealed segments that one log's readers keep open. Readers go through segments in order, so that one is
/// enough for each of them; there may be a thousand logs.
pub(super) const OPEN_SEGMENTS_MAX: usize = 16;

/// Places of damage that are remembered. A disk that has more of them needs no longer list.
pub(super) const DAMAGE_MAX: usize = 4_096;

/// Bytes that are read at a time when a segment is walked through.
pub(super) const READ_AHEAD_BYTES: usize = 256 * 1_024;

/// Bytes in which the next whole frame is looked for at a time.
pub(super) const SEARCH_BYTES: usize = 1_024 * 1_024;

/// Blocks that one page may look at without finding a frame to give, so that a page is bounded work.
pub(super) const FRUITLESS_BLOCKS_MAX: usize = 64;

/// Records whose digests one call gives, so that a mistaken range cannot ask for all memory.
pub(super) const DIGESTS_MAX: u64 = 1_048_576;

const _: () = assert!(SEGMENT_BYTES_MIN < SEGMENT_BYTES_MAX, "a segment can have a size");
const _: () = assert!(GROUP_BYTES_MAX as usize > 2 * FRAME_PAYLOAD_BYTES_MAX, "a group holds frames");
