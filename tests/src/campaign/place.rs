//! Where everything is on the disk of a campaign, and how it is opened: small segments, so that a short script completes
//! many.

use std::path::PathBuf;

use sealbus_broker::storage::log::LogOptions;
use sealbus_broker::storage::stream::{Level, Retention, Snapshots, StreamOptions};
use sealbus_broker::storage::system::SystemLog;
use sealbus_protocol::ids::StreamId;
use sealbus_protocol::tlog::{LogKey, NoteSigner, stream_origin};

use super::author::BUS;
use super::random::salt;

/// The streams.
pub const STREAMS: [StreamId; 2] = [StreamId::new([0xa1; 16]), StreamId::new([0xb2; 16])];

/// Bytes of the segments of `$cursors`, `$keys`, `$policy` and `$producers`: the least that a log allows.
const SYSTEM_SEGMENT_BYTES: u64 = 4 * 1_024;

/// How the streams of a campaign are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// Bytes after which a segment is complete.
    pub segment_bytes: u64,
    /// When a stream's batches are acknowledged.
    pub levels: [Level; 2],
    /// Messages that the first stream keeps.
    pub keep_messages: Option<u64>,
}

impl Plan {
    /// Small segments, everything synced before it is acknowledged, the first stream bounded.
    pub const SMALL: Self =
        Self { segment_bytes: 8 * 1_024, levels: [Level::Fsync, Level::Fsync], keep_messages: Some(60) };

    /// How a stream is opened.
    #[must_use]
    pub fn stream(&self, stream: usize) -> StreamOptions {
        let id = stream_id(stream);
        let messages = self.keep_messages.filter(|_| stream == 0);
        StreamOptions {
            retention: Retention { messages, ..Retention::default() },
            level: self.levels.get(stream).copied().unwrap_or(Level::Fsync),
            segment_bytes: self.segment_bytes,
            signer: Some(signer(stream)),
            reserve_bytes: 0,
            snapshots: Snapshots::Kept,
            ..StreamOptions::new(BUS, id, "campaign", salt)
        }
    }
}

/// The id of a stream.
#[must_use]
pub fn stream_id(stream: usize) -> StreamId {
    STREAMS.get(stream).copied().unwrap_or(StreamId::ZERO)
}

/// The directory of a stream.
#[must_use]
pub fn stream_dir(stream: usize) -> PathBuf {
    PathBuf::from("/data/streams").join(stream_id(stream).to_string())
}

/// The directory of a log of the broker's own.
#[must_use]
pub fn system_dir(which: SystemLog) -> PathBuf {
    PathBuf::from("/data/system").join(which.directory())
}

/// How a log of the broker's own is opened.
#[must_use]
pub fn system_options(which: SystemLog) -> LogOptions {
    LogOptions {
        bus_id: BUS,
        log_id: which.log_id(),
        segment_bytes: SYSTEM_SEGMENT_BYTES,
        digest: None,
        salt,
    }
}

/// Signs the checkpoints of a stream.
#[must_use]
pub fn signer(stream: usize) -> NoteSigner {
    LogKey::from_seed(&[9; 32].into()).signer(stream_origin(&BUS, &stream_id(stream)))
}
