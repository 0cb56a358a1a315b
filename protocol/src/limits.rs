//! Every bound of the protocol, by name and with its reason.
//!
//! A limit stands here when both sides, or several modules, must agree on it. Limits that only one process cares
//! about live in that process, beside what they bound. A length that a peer declares is compared with
//! its limit *before* memory is set aside for it.

/// Bytes of a topic name or filter. MQTT 5 allows 65,535; a kilobyte holds every sane hierarchy and bounds tables.
pub const TOPIC_BYTES_MAX: usize = 1_024;

/// Levels of a topic name or filter, so that walking one is bounded work.
pub const TOPIC_LEVELS_MAX: usize = 64;

/// Bytes of a principal's text form. SPIFFE bounds its identifiers to this (SPIFFE-ID section 2.3).
pub const PRINCIPAL_BYTES_MAX: usize = 2_048;

/// Certificates in a chain that a key binding carries, leaf first. Real chains have two or three.
pub const CHAIN_CERTIFICATES_MAX: usize = 4;

/// Bytes of one certificate in a chain. Real ones have one or two kilobytes; every extension is looked at.
pub const CERTIFICATE_BYTES_MAX: usize = 8 * 1_024;

/// Bytes of an encoded key binding. With HELLO's other fields it fits what is held for an unauthenticated peer.
pub const BINDING_BYTES_MAX: usize = 14 * 1_024;

/// Bytes held for a peer before it has proven who it is: one HELLO frame and nothing else.
pub const UNAUTHENTICATED_BYTES_MAX: usize = 16 * 1_024;

/// Key bindings of one principal that a broker keeps at a time, least recently used dropped first.
pub const BINDINGS_PER_PRINCIPAL_MAX: usize = 64;

/// Messages in a batch. A signature and a sync are shared by so many that their cost is lost in the noise.
pub const BATCH_MESSAGES_MAX: u32 = 65_536;

/// Bytes of a batch: preamble, signature and body. It is verified as a whole and by one task, which takes half a
/// millisecond for one so large: more would delay everybody behind it.
pub const BATCH_BYTES_MAX: usize = 1_024 * 1_024;

/// Bytes of one message's payload: a round number that fits a batch together with the longest key and headers.
pub const PAYLOAD_BYTES_MAX: usize = 1_000_000;

/// Bytes of one message's key: twice the longest principal. Its length is a u16 on the wire.
pub const KEY_BYTES_MAX: usize = 4_096;

/// Headers of one message. They are searched one after the other.
pub const HEADERS_MAX: usize = 64;

/// Bytes of one message's headers, encoded: as much as web servers take. Their length is a u16 on the wire.
pub const HEADERS_BYTES_MAX: usize = 16 * 1_024;

/// Bytes of a frame's payload, beyond the 8-byte header: a whole batch and the words around it.
pub const FRAME_BYTES_MAX: usize = BATCH_BYTES_MAX + FRAME_OVERHEAD_BYTES_MAX;

/// What PUBLISH and DELIVER add to the batch that they carry: fixed fields, a topic name, and the ranges of records
/// that a durable consumer is to hand out.
pub const FRAME_OVERHEAD_BYTES_MAX: usize = 16 * 1_024;

/// Bytes of a frame that carries no batch. ADMIN results are the largest.
pub const CONTROL_FRAME_BYTES_MAX: usize = 128 * 1_024;

/// Bytes of the sentence that goes with a refusal or an error. Longer ones are cut: nobody reads them.
pub const REASON_BYTES_MAX: usize = 1_024;

/// Publish topics that one connection may hold open. Each costs the broker a sequence state and a route.
pub const TOPICS_PER_CONNECTION_MAX: usize = 1_024;

/// Subscriptions that one connection may hold open. Each costs the broker a queue and a place in its router.
pub const SUBSCRIPTIONS_PER_CONNECTION_MAX: usize = 1_024;

/// Aliases that a broker gives to delivered topics on one connection; the oldest is named anew when they run out.
pub const DELIVERY_ALIASES_MAX: u32 = 4_096;

/// Batches that a producer leaves unacknowledged on one topic, and preamble digests that a broker remembers of it.
/// The two are one number on purpose: a retry is always within the window.
pub const UNACKNOWLEDGED_BATCHES_MAX: usize = 64;

/// Producer sequence states that a broker keeps for one principal, least recently used dropped first.
pub const SEQUENCE_STATES_PER_PRINCIPAL_MAX: usize = 16_384;

/// How far ahead of the judge's clock `created_ms` and `started_ms` may lie. A synchronised clock is off by
/// milliseconds, a neglected one by a minute or two.
pub const CLOCK_AHEAD_MS_MAX: u64 = 5 * 60 * 1_000;

/// How far behind the broker's clock the start of an incarnation may lie when it is first seen. One that began
/// earlier may have been forgotten since, and its batches could not be told from a replay.
pub const STARTED_BEHIND_MS_MAX: u64 = 5 * 60 * 1_000;

/// How far behind the broker's clock `created_ms` may lie. A client that was cut off for a night still delivers.
pub const CREATED_BEHIND_MS_MAX: u64 = 24 * 60 * 60 * 1_000;

/// Silence after which a side sends PING: half of what ends the connection, so that the answer has as long again.
pub const PING_AFTER_MS: u64 = 15 * 1_000;

/// Silence after which a side closes the connection. Middle boxes forget idle connections after a minute or more.
pub const SILENCE_MS_MAX: u64 = 30 * 1_000;

/// Requests of one connection that may await their answer: all the batches that 64 busy topics may leave
/// unacknowledged.
pub const REQUESTS_OUTSTANDING_MAX: usize = 4_096;

/// Bytes of a policy document. Ten thousand rules fit.
pub const POLICY_BYTES_MAX: usize = 4 * 1_024 * 1_024;

/// Bytes of a name that a policy gives: of a rule, a role, a zone. They stand in every refusal and audit line.
pub const POLICY_NAME_BYTES_MAX: usize = 64;

/// Streams that a policy may define. Each costs the broker a directory, open files and a place in every snapshot.
pub const STREAMS_MAX: usize = 1_024;

/// Filters of one stream. They are listed whole in one RESULT, and searched with every publish.
pub const STREAM_FILTERS_MAX: usize = 64;

/// Bytes of a stream's name on the wire: `$dead/`, a stream, `/` and a consumer are the longest.
pub const STREAM_NAME_BYTES_MAX: usize = 2 * POLICY_NAME_BYTES_MAX + 7;

/// Items of one SETTLE: ranges of offsets with one verdict each. A client that has more sends another.
pub const SETTLE_ITEMS_MAX: usize = 1_024;

/// Ranges of records in one DELIVER. A batch whose records are scattered wider is delivered in several.
pub const RANGES_MAX: usize = 1_024;

/// Steps of a durable consumer's backoff; the last one is used again. Sixteen doublings of a second are most of a day.
pub const BACKOFF_STEPS_MAX: usize = 16;

/// Messages that a durable consumer may hold unacknowledged: each is an entry that the broker keeps in memory and
/// walks when an acknowledgement is late.
pub const UNACKNOWLEDGED_MAX: u32 = 65_536;

/// Unacknowledged messages of a durable consumer that does not say how many.
pub const UNACKNOWLEDGED_DEFAULT: u32 = 1_000;

/// How long a durable consumer's delivery may stay unacknowledged before it is given out again, when the consumer
/// does not say: longer than most work takes, shorter than people wait.
pub const ACK_WAIT_MS_DEFAULT: u32 = 30_000;

/// Deliveries of one message before it becomes a dead letter, when the consumer does not say.
pub const DELIVERIES_DEFAULT: u32 = 5;

/// Hashes of one Merkle proof: a tree of 2^64 leaves has as many levels.
pub const PROOF_HASHES_MAX: usize = 64;

/// Bytes of a signed checkpoint: three lines of text, and room for a few witnesses' signatures.
pub const NOTE_BYTES_MAX: usize = 4 * 1_024;

const _: () = assert!(BINDING_BYTES_MAX + PRINCIPAL_BYTES_MAX <= UNAUTHENTICATED_BYTES_MAX);
const _: () = assert!(PAYLOAD_BYTES_MAX + KEY_BYTES_MAX + HEADERS_BYTES_MAX + 4_096 <= BATCH_BYTES_MAX);
// DELIVER: fixed fields, topic and stream, what is stored, ranges of 12 bytes.
const _: () = assert!(24 + 2 + TOPIC_BYTES_MAX + 16 + 16 + 2 + 12 * RANGES_MAX <= FRAME_OVERHEAD_BYTES_MAX);
// SETTLE: items of 20 bytes. CHECKPOINT: three proofs and a note. RESULT: one stream with all of its filters.
const _: () = assert!(10 + 20 * SETTLE_ITEMS_MAX <= CONTROL_FRAME_BYTES_MAX);
const _: () = assert!(12 + 3 * (2 + 32 * PROOF_HASHES_MAX) + 2 + NOTE_BYTES_MAX <= CONTROL_FRAME_BYTES_MAX);
const _: () =
    assert!(STREAM_FILTERS_MAX * (2 + TOPIC_BYTES_MAX) + REASON_BYTES_MAX + 1_024 <= CONTROL_FRAME_BYTES_MAX);
const _: () = assert!(NOTE_BYTES_MAX <= u16::MAX as usize);
const _: () = assert!(SETTLE_ITEMS_MAX <= u16::MAX as usize && RANGES_MAX <= u16::MAX as usize);
const _: () = assert!(FRAME_BYTES_MAX < u32::MAX as usize);
// What stands behind a u16 length can be counted by one.
const _: () = assert!(TOPIC_BYTES_MAX <= u16::MAX as usize);
const _: () = assert!(PRINCIPAL_BYTES_MAX <= u16::MAX as usize);
const _: () = assert!(BINDING_BYTES_MAX <= u16::MAX as usize);
const _: () = assert!(KEY_BYTES_MAX <= u16::MAX as usize);
const _: () = assert!(HEADERS_BYTES_MAX <= u16::MAX as usize);
const _: () = assert!(REASON_BYTES_MAX <= u16::MAX as usize);
const _: () = assert!(REQUESTS_OUTSTANDING_MAX >= 64 * UNACKNOWLEDGED_BATCHES_MAX);
const _: () = assert!(2 * PING_AFTER_MS <= SILENCE_MS_MAX);
const _: () = assert!(UNAUTHENTICATED_BYTES_MAX <= CONTROL_FRAME_BYTES_MAX);
