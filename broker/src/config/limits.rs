//! `[limits]`, `[storage]` and `[audit]`: the bounds that an operator may move, within reason.
//!
//! Limits that both sides of the wire must agree on are in [`sealbus_protocol::limits`] and are not configurable.

use std::path::PathBuf;

/// Bytes of a configuration file. The largest sensible one has a few hundred lines.
pub const CONFIG_BYTES_MAX: u64 = 256 * 1_024;

/// Listeners of a broker. Each has its own roots and its own accept loop; nobody needs one for each client.
pub const LISTENERS_MAX: usize = 64;

/// Connections that have not sent their ClientHello, over all listeners. A good client is one of them for the time of
/// one round trip. When it is close, those that wait longest of the source with the most give way, so that it takes
/// attackers of a thousand networks to be in the way of one. Each holds at most [`CLIENT_HELLO_BYTES_MAX`], so
/// 16 MiB at worst.
pub const NEWCOMERS_MAX: usize = 1_024;

/// Milliseconds from accepting a connection to its whole ClientHello. Clients speak first, and at once: this is room
/// for three packets of the same bytes to be lost, one after the other.
pub const CLIENT_HELLO_TIMEOUT_MS: u64 = 2_000;

/// Bytes in which a ClientHello must end. Those with post-quantum key shares have two thousand.
pub const CLIENT_HELLO_BYTES_MAX: usize = 16 * 1_024;

/// Descriptors that no connection may have, beside one for each listener: standard streams, the runtime's own, lock
/// and audit log are a dozen; the others are for reading policy, certificates and the audit log while the broker is
/// full, and for connections that are being closed.
pub const DESCRIPTORS_RESERVED: usize = 64;

/// `[limits]`: what one broker spends, at worst.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitsConfig {
    /// Connections at once, over all listeners. Default 10,000, from 1 to 1,000,000. An idle one holds about 30 KiB,
    /// so 300 MiB at worst, without what `outbox_bytes_max` allows. A connection counts from its ClientHello on; before
    /// that [`NEWCOMERS_MAX`] bounds it. Lowered at start when the system's limit of open files has no room for so many.
    pub connections_max: usize,
    /// TLS handshakes at once, over all listeners, each from its ClientHello to its HELLO. Default 64, from 1 to 10,000. One holds at most 64 KiB of a peer's
    /// messages, so 4 MiB at worst.
    pub handshakes_max: usize,
    /// TLS handshakes at once from one source address. Default 8, from 1 to `handshakes_max`.
    pub handshakes_per_source_max: usize,
    /// Milliseconds from accepting a connection to its HELLO, TLS included. Default 10,000, from 100 to 60,000.
    pub handshake_timeout_ms: u64,
    /// Bytes of batches that wait for one slow session before it misses some. Default 8 MiB, from 2 MiB (two of the
    /// largest batches) to 1 GiB. Batches are shared between sessions, so that the worst is this much for every
    /// session only if each waits for other batches.
    pub outbox_bytes_max: usize,
    /// Subscriptions over all sessions. Default 100,000, from 1 to 10,000,000. Each takes about 500 bytes, so 50 MiB
    /// at worst.
    pub subscriptions_max: usize,
    /// Milliseconds in which a session must have written its GENERATION marker before it is cut. Default 50, from 10
    /// to 10,000. It is how long a policy change may take to be a fact.
    pub marker_timeout_ms: u64,
    /// Milliseconds in which sessions may finish when the broker shuts down. Default 10,000, from 0 to 600,000.
    pub drain_timeout_ms: u64,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            connections_max: 10_000,
            handshakes_max: 64,
            handshakes_per_source_max: 8,
            handshake_timeout_ms: 10_000,
            outbox_bytes_max: 8 * 1_024 * 1_024,
            subscriptions_max: 100_000,
            marker_timeout_ms: 50,
            drain_timeout_ms: 10_000,
        }
    }
}

/// `[audit]`: how much may wait for the audit log. Whether there is one is not configurable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditConfig {
    /// Events that wait to be written before the acts that they are about are refused. Default 8,192, from 64 to
    /// 1,000,000. Each takes about 500 bytes, so 4 MiB at worst. The last lines of sessions that have ended have room
    /// beside it, for 65,536.
    pub queue_events_max: usize,
    /// Milliseconds in which an event of a session or a refusal is on the disk. Default 250, from 1 to 900: the
    /// promise is a second. Changes never wait.
    pub sync_within_ms: u64,
    /// Events with one source and one reason that are written singly in a second; more are written as one with their
    /// count. Default 10, from 1 to 1,000.
    pub singles_per_second_max: u32,
}

impl Default for AuditConfig {
    fn default() -> Self {
        Self { queue_events_max: 8_192, sync_within_ms: 250, singles_per_second_max: 10 }
    }
}

/// `[storage]`: how streams are kept on the disk. Which streams there are, for how long and how surely, is in the policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StorageConfig {
    /// The private key that signs checkpoints, in the form of `operator/signing.key`, readable by nobody but its owner.
    /// Its public half is under `[log]` in `trust.toml`. No default: required when the policy has streams.
    pub log_key: Option<PathBuf>,
    /// Bytes of a segment before the next one is begun. Default 64 MiB, from 64 KiB to 1 GiB; a text as in `"64MiB"`, or
    /// a number. Retention removes whole segments, so that a stream holds up to one more than it is allowed.
    pub segment_bytes: u64,
    /// Bytes of the disk that are left free: with less, publishers are refused until there is room, and readers go on.
    /// Default 64 MiB, from 1 MiB to 1 TiB. What is on its way when the disk fills fits in the least of it.
    pub reserve_bytes: u64,
    /// Milliseconds in which a stream with `durability = "interval"` is on the disk, so what a power cut can take from
    /// it. Default 1,000, from 10 to 60,000.
    pub interval_ms: u64,
    /// Threads that write, each with a share of the streams. Default 1, from 1 to 8: more help when the disk syncs
    /// several files faster than one after the other. Each holds at most 8 MiB of what it writes for each stream.
    pub writers: usize,
}

impl Default for StorageConfig {
    fn default() -> Self {
        Self {
            log_key: None,
            segment_bytes: 64 * 1_024 * 1_024,
            reserve_bytes: 64 * 1_024 * 1_024,
            interval_ms: 1_000,
            writers: 1,
        }
    }
}
