//! Every bound of durable consumers that is not written into their cursors, by name and with its reason.

use sealbus_protocol::limits::{FRAME_OVERHEAD_BYTES_MAX, TOPIC_BYTES_MAX};

/// Consumers of one stream. Each keeps a cursor that is written up to ten times a second.
pub const CONSUMERS_PER_STREAM_MAX: usize = 1_024;

/// Members of one group: the processes that share its work, with room to scale out.
pub const MEMBERS_PER_GROUP_MAX: usize = 1_024;

/// Settled ranges above the position beyond which nothing new is handed out: a group that leaves so many holes must
/// close some first. What is in flight by then may still be settled, so that no acknowledgement is ever refused for
/// lack of room; that adds at most one range for each record that is unacknowledged.
pub const SETTLED_RANGES_MAX: usize = 4_096;

/// Ranges of records that one delivery or dead letter names. They travel in what a frame may have besides its batch;
/// a batch in more pieces is handed out in several deliveries.
pub const RANGES_PER_DELIVERY_MAX: usize = 64;

/// The longest delay that a member may ask for with a nack. A longer one is cut: a record that is wanted no sooner
/// than tomorrow is not work in hand.
pub const NACK_DELAY_MS_MAX: u32 = 24 * 60 * 60 * 1_000;

/// How long a change of a cursor may wait to be written, in the hope of company. Acknowledged work is durable within
/// twice this: what is promised is 100 ms.
pub const FLUSH_WITHIN_MS: u64 = 50;

/// How long the flusher waits after a write that failed, before it tries again.
pub const FLUSH_RETRY_MS: u64 = 500;

/// Callers that may wait for their acknowledgement to be durable, of all sessions together. Each session waits for
/// bounded many; this holds for those that would open many sessions.
pub const SYNC_WAITERS_MAX: usize = 65_536;

/// A range in a delivery: first record, count, deliveries.
const RANGE_BYTES: usize = 12;

// Beside the ranges a delivery has a topic and less than 128 bytes of fixed fields.
const _: () =
    assert!(RANGES_PER_DELIVERY_MAX * RANGE_BYTES + TOPIC_BYTES_MAX + 128 <= FRAME_OVERHEAD_BYTES_MAX);
