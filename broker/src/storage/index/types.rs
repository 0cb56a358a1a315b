//! What the index keeps of a log, and the changes that a record can make to it.

use bytes::Bytes;
use sealbus_protocol::batch::accept::RememberedBatch;
use sealbus_protocol::frame::InstanceKind;
use sealbus_protocol::identity::{Principal, Validity};
use sealbus_protocol::ids::{IncarnationId, InstanceId, Kid, StreamId};
use sealbus_protocol::policy::Name;
use sealbus_protocol::topic::Topic;

/// Bytes of a cursor. It is a frame of its system stream, and no frame has more.
pub const CURSOR_BYTES_MAX: usize = 2 * 1_024 * 1_024;

/// The minute of the time index to which a moment belongs.
#[must_use]
pub const fn minute_of(time_ms: u64) -> u64 {
    time_ms / 60_000
}

/// Where a key binding stands in `$keys`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyPlace {
    /// The bound key.
    pub kid: Kid,
    /// The number of the record. A key that is bound anew has one for each time.
    pub record: u64,
}

/// What is found of a key binding without reading its record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyEntry {
    /// Whose key it is.
    pub principal: Principal,
    /// When the binding holds.
    pub validity: Validity,
}

/// A durable consumer.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CursorKey {
    /// Its stream.
    pub stream: StreamId,
    /// Its name within the stream.
    pub consumer: Name,
}

/// One producer's sequence on one topic of the log.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ProducerKey {
    /// The incarnation.
    pub incarnation_id: IncarnationId,
    /// The topic.
    pub topic: Topic,
}

/// Where a producer's sequence stands, and who the producer claims to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProducerEntry {
    /// The key that signs for it.
    pub kid: Kid,
    /// Its process or replica.
    pub instance_id: InstanceId,
    /// Whether that fences.
    pub instance_kind: InstanceKind,
    /// The start of its incarnation, milliseconds since 1970.
    pub started_ms: u64,
    /// The record of `$keys` that holds its binding.
    pub key_record: u64,
    /// The last batches, oldest first; at most as many as a producer may leave unacknowledged.
    pub window: Vec<RememberedBatch>,
    /// When its last batch was appended, milliseconds since 1970.
    pub last_used_ms: u64,
}

/// What a record changes in the index of its log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Update {
    /// A binding was written.
    Key {
        /// Where.
        place: KeyPlace,
        /// What of it is kept here.
        entry: KeyEntry,
    },
    /// A binding was pruned.
    KeyForgotten {
        /// Where it was.
        place: KeyPlace,
    },
    /// A consumer's cursor was written, in whatever form its owner gives it.
    Cursor {
        /// Whose.
        key: CursorKey,
        /// Its bytes, at most [`CURSOR_BYTES_MAX`].
        cursor: Bytes,
    },
    /// A consumer was removed.
    CursorForgotten {
        /// Whose.
        key: CursorKey,
    },
    /// A producer's sequence moved on.
    Producer {
        /// Which.
        key: ProducerKey,
        /// Where it stands.
        entry: ProducerEntry,
    },
    /// A producer's sequence is too old to matter.
    ProducerForgotten {
        /// Which.
        key: ProducerKey,
    },
    /// A batch was appended in this minute. The lowest offset of a minute is kept, whatever order they come in.
    Time {
        /// The minute, by [`minute_of`] its time of appending.
        minute: u64,
        /// The batch's first offset.
        first_offset: u64,
    },
    /// The log was trimmed: nothing of the minutes before this one is there any more.
    TimesForgottenBefore {
        /// The first minute that stays.
        minute: u64,
    },
}
