//! One segmented log on a [`Vfs`](crate::vfs::Vfs): what a stream, and everything else that must not be lost, stands on.
//! No threads, no clock, no runtime: moments come in, and the caller decides when to sync.
//!
//! ```text
//!  trimmed        sealed segments                       the active segment
//!  . . . . . | header frames ... | header frames ... | header frames ... frames ... |
//!  first_offset                                                 synced_offset     end_offset
//!            '---------------- readers see ---------------------'
//! ```
//!
//! What holds, and what the files beside the segments are for:
//!
//! - A frame that was synced is never lost, altered or served altered. What does not verify is skipped, reported with its
//!   offsets, and left as it is.
//! - Offsets are dense, stay, and are never given twice.
//! - A torn tail is told from damage by the *watermark*, and by what each frame says about those in front of it. Only what
//!   nobody was promised is ever cut.
//! - A log that became shorter, at whatever place, is noticed, since the watermark says how long it was.
//! - *Index files* find frames by offset, record and time, and keep the digests of what is trimmed. They can be lost.
//!
//! Read `frame` and `segment` for the bytes, `scan` for how frames are found, `tail` and `recover` for what opening does,
//! then `writer` and `read`.

mod crc;
mod damage;
mod digests;
mod error;
mod fields;
mod frame;
mod index_file;
mod layout;
mod limits;
mod order;
mod read;
mod recover;
mod scan;
mod scrub;
mod sealed;
mod segment;
mod site;
mod survey;
mod table;
mod tail;
mod types;
mod upkeep;
mod watermark;
mod writer;

#[cfg(test)]
mod tests;

pub use error::{FrameRefused, LogError, ReadError};
pub use limits::{FRAME_PAYLOAD_BYTES_MAX, GROUP_BYTES_MAX, STATE_BYTES_MAX};
pub use read::LogReader;
pub use types::{
    Cut, Damage, DigestFn, FrameView, IndexOutcome, LogOptions, Lost, NewFrame, OwnedFrame, OwnerState, Page,
    Recovery, ScrubReport, SegmentInfo, SegmentPhase, SkipReason, Skipped, TrimReport, random_salt,
};
pub use writer::Log;
