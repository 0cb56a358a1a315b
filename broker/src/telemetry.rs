//! The names of the fields in the broker's log, so that one thing has one name wherever it is logged.
//!
//! Use them as `tracing::info!({ telemetry::SESSION } = id, "session opened")`. Payloads, keys and whole certificates
//! have no name here, because they are never logged.

/// The address that a listener accepts connections on.
pub const LISTENER: &str = "listener";

/// The zone that a listener stands in.
pub const ZONE: &str = "zone";

/// The address that a connection comes from.
pub const SOURCE: &str = "source";

/// The number of a session, the same as in the audit log.
pub const SESSION: &str = "session";

/// Who acts.
pub const PRINCIPAL: &str = "principal";

/// A topic.
pub const TOPIC: &str = "topic";

/// A topic filter.
pub const FILTER: &str = "filter";

/// The rule that spoke.
pub const RULE: &str = "rule";

/// The code of a refusal.
pub const CODE: &str = "code";

/// Why, in a word or a sentence.
pub const REASON: &str = "reason";

/// The error behind it.
pub const ERROR: &str = "error";

/// The generation of a policy in force.
pub const GENERATION: &str = "generation";

/// The version that a policy document states.
pub const POLICY_VERSION: &str = "policy_version";

/// A number of things.
pub const COUNT: &str = "count";

/// A number of bytes.
pub const BYTES: &str = "bytes";

/// A duration in milliseconds.
pub const ELAPSED_MS: &str = "elapsed_ms";

/// A file or directory.
pub const PATH: &str = "path";
