//! The names of the fields in the broker's log, so that one thing has one name wherever it is logged.
//!
//! Use them as `tracing::info!({ telemetry::SESSION } = id, "a session was opened")`. Payloads, keys and whole
//! certificates have no name here, because they are never logged.

/// The address that a listener accepts connections on.
pub(crate) const LISTENER: &str = "listener";

/// The address that a connection comes from.
pub(crate) const SOURCE: &str = "source";

/// The number of a session, the same as in the audit log.
pub(crate) const SESSION: &str = "session";

/// Why, in a word.
pub(crate) const REASON: &str = "reason";

/// The error behind it.
pub(crate) const ERROR: &str = "error";

/// The generation of a policy in force.
pub(crate) const GENERATION: &str = "generation";

/// The version that a policy document states.
pub(crate) const POLICY_VERSION: &str = "policy_version";

/// A number of things.
pub(crate) const COUNT: &str = "count";

/// The id of a stream.
pub(crate) const STREAM: &str = "stream";

/// A durable consumer.
pub(crate) const CONSUMER: &str = "consumer";

/// What happened, where it has no sentence of its own.
pub(crate) const EVENT: &str = "event";
