//! The audit log: what was decided, by which rule, for whom, on the disk before or shortly after it has an effect.
//!
//! ```text
//!  callers --record--> flood (per source and reason) --> queue --> one thread: encode, append, fdatasync --> waiters
//!             Err <-- queue full, or the log has failed                         \--> read (durable lines only)
//! ```
//!
//! `event` is the closed list of what is recorded, `encode` makes one OCSF line of JSON of each, `flood` keeps an
//! attacker from filling the disk, `queue` is the bounded room between callers and the thread, `file` the lines on the
//! disk, and `writer` the thread. After a failed write nothing is retried: the log refuses from then on, and whoever
//! asks it refuses too (FAILURES T60). A Merkle log will replace the file behind the same handle.

mod encode;
mod event;
mod file;
mod flood;
mod handle;
mod queue;
mod stream;
mod writer;

#[cfg(test)]
mod samples;
#[cfg(test)]
mod tests;

pub use event::{
    Actor, BatchHead, Class, CutReason, Event, Initiator, PolicyFacts, PreviousRun, PublishTraffic,
    SessionId, SessionTraffic, Target,
};
pub use file::{AuditPage, LINE_BYTES_MAX, ReadError};
pub use handle::{Audit, AuditStartError, AuditThread, AuditUnavailable};
pub use stream::StreamChange;
