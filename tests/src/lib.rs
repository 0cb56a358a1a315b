//! What the scenarios share: a bus in a temporary folder, its broker as a process, peers that behave and peers that do
//! not. The scenarios are in `tests/`, one story per file, each test named for the rule that it holds.
//!
//! ```text
//!   TestBus       folder with authority, configuration, policy, identities
//!     ├─ serve ──> BrokerProcess      the real program: signals, memory, descriptors, what it says on stderr
//!     ├─ connect ──> client::Bus      the real client
//!     ├─ Producer, RawSession         protocol's client half, one frame at a time, as badly as the test wants
//!     ├─ EvilBroker, EvilSession      protocol's broker half behind the broker's own certificate
//!     └─ audit ──> AuditLog           the lines on the disk
//! ```
//!
//! Nothing here waits for a length of time: [`wait`] polls a condition up to a deadline that is far beyond what a slow
//! machine needs. A process prints what it said when the test that owns it fails.

#![allow(clippy::panic, reason = "a harness fails the test that uses it, with a sentence")]

pub mod audit;
pub mod bus;
pub mod campaign;
pub mod evil;
pub mod flights;
pub mod killing;
pub mod member;
pub mod pki;
pub mod process;
pub mod producer;
pub mod raw;
pub mod reading;
pub mod wait;

pub use audit::AuditLog;
pub use bus::{OPERATOR, TestBus, allow, allow_stream, deny, stream};
pub use evil::{EvilBroker, EvilSession};
pub use member::Member;
pub use pki::{Authority, Credential};
pub use process::{BrokerProcess, Process};
pub use producer::Producer;
pub use raw::{Ending, RawClient, RawSession, TlsOptions};
pub use wait::{DEADLINE, eventually};

/// The program under test, for a scenario: Cargo tells its path to integration tests alone.
#[macro_export]
macro_rules! sealbus_program {
    () => {
        std::path::Path::new(env!("CARGO_BIN_EXE_sealbus-under-test"))
    };
}
