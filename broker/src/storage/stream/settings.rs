//! What a stream is told about itself: by the policy, by the configuration, and by nobody else.

use sealbus_protocol::batch::accept::Durability;
use sealbus_protocol::ids::{BusId, StreamId};
use sealbus_protocol::policy;
use sealbus_protocol::tlog::NoteSigner;

/// Bytes of a segment, unless the configuration says otherwise: what retention removes at once, and what a start
/// reads again of each stream.
pub const SEGMENT_BYTES_DEFAULT: u64 = 64 * 1_024 * 1_024;

/// How long a batch of the level `interval` may wait for its sync, unless the configuration says otherwise.
pub const INTERVAL_MS_DEFAULT: u64 = 1_000;

/// Free bytes of the disk below which publishers are refused, unless the configuration says otherwise: room for the
/// audit log, cursors, the policy, and for what is queued already.
pub const RESERVE_BYTES_DEFAULT: u64 = 64 * 1_024 * 1_024;

/// Bytes of a stream's newest batches that stay in memory, unless the configuration says otherwise. A reader that
/// falls further behind reads the disk.
pub const TAIL_BYTES_DEFAULT: usize = 8 * 1_024 * 1_024;

/// How far a batch must have come before it is acknowledged and visible.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Written and synced.
    Fsync,
    /// Written; synced within the stream's interval.
    Interval,
    /// Written to the system's cache; synced when memory would otherwise forget it, at a segment's end and at close.
    Memory,
}

impl Level {
    /// The level that a policy asks for.
    #[must_use]
    pub const fn asked(durability: policy::Durability) -> Self {
        match durability {
            policy::Durability::Fsync => Self::Fsync,
            policy::Durability::Interval => Self::Interval,
            policy::Durability::Memory => Self::Memory,
        }
    }

    /// The level as receipts name it.
    #[must_use]
    pub const fn durability(self) -> Durability {
        match self {
            Self::Fsync => Durability::Fsync,
            Self::Interval => Durability::Interval,
            Self::Memory => Durability::Memory,
        }
    }

    /// The one of two that promises more.
    #[must_use]
    pub const fn stricter(self, other: Self) -> Self {
        match (self, other) {
            (Self::Fsync, _) | (_, Self::Fsync) => Self::Fsync,
            (Self::Interval, _) | (_, Self::Interval) => Self::Interval,
            (Self::Memory, Self::Memory) => Self::Memory,
        }
    }

    /// The level of a receipt; none for what is not kept.
    #[must_use]
    pub const fn from_durability(durability: Durability) -> Option<Self> {
        match durability {
            Durability::Live => None,
            Durability::Memory => Some(Self::Memory),
            Durability::Interval => Some(Self::Interval),
            Durability::Fsync => Some(Self::Fsync),
        }
    }
}

/// How much a stream keeps. Each limit is for itself; without any, everything is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Retention {
    /// Milliseconds since a batch was appended.
    pub age_ms: Option<u64>,
    /// Bytes of all segments.
    pub bytes: Option<u64>,
    /// Messages.
    pub messages: Option<u64>,
}

/// Whether somebody keeps where a stream's producers stand, so that trimming takes no sequence with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Snapshots {
    /// Nobody, and trimming waits for nothing: dead letters have no sequences.
    None,
    /// Its owner, who says how far they are durable
    /// ([`StreamCore::set_snapshot_record`](super::StreamCore::set_snapshot_record)).
    Kept,
}

/// A stream, and how it is kept.
#[derive(Debug, Clone)]
pub struct StreamOptions {
    /// The bus.
    pub bus_id: BusId,
    /// The stream.
    pub stream_id: StreamId,
    /// Its name, for people.
    pub name: String,
    /// How much it keeps.
    pub retention: Retention,
    /// When a batch is acknowledged.
    pub level: Level,
    /// Bytes after which a segment is complete.
    pub segment_bytes: u64,
    /// For the level `interval`.
    pub interval_ms: u64,
    /// Free bytes of the disk below which publishers are refused.
    pub reserve_bytes: u64,
    /// Bytes of the newest batches that stay in memory.
    pub tail_bytes: usize,
    /// Signs checkpoints; its name is the stream's origin. Without one there are no checkpoints.
    pub signer: Option<NoteSigner>,
    /// Draws a segment's salt.
    pub salt: fn() -> u64,
    /// Whether trimming waits for snapshots of its producers.
    pub snapshots: Snapshots,
}

impl StreamOptions {
    /// A stream with the defaults: kept for ever, acknowledged when synced, without checkpoints.
    #[must_use]
    pub fn new(bus_id: BusId, stream_id: StreamId, name: &str, salt: fn() -> u64) -> Self {
        Self {
            bus_id,
            stream_id,
            name: name.to_owned(),
            retention: Retention::default(),
            level: Level::Fsync,
            segment_bytes: SEGMENT_BYTES_DEFAULT,
            interval_ms: INTERVAL_MS_DEFAULT,
            reserve_bytes: RESERVE_BYTES_DEFAULT,
            tail_bytes: TAIL_BYTES_DEFAULT,
            signer: None,
            salt,
            snapshots: Snapshots::None,
        }
    }
}
