//! The broker is killed at random moments while others publish, read and consume; what each of them was told is written
//! down, and judged afterwards by a program that shares no code with this one (`tests/checker/check.py`).
//!
//! ```text
//!   8 producers ──┐                              ┌── live subscriber
//!   auditor ──────┤── real clients, real TLS ────┤── durable consumer, acknowledging
//!   operator ─────┘         broker               └── a whole replay at the end, twice
//!                             ^
//!   nemesis ── SIGKILL, start ┘      everybody ──> history.jsonl ──> check.py: the invariants, with counts
//! ```
//!
//! A seed repeats the choices: who publishes what in which manner, and what the nemesis waits for before it kills. It does
//! not repeat the moments themselves, which are the system's.

mod auditor;
mod author;
mod campaign;
mod consumer;
mod ground;
mod history;
mod nemesis;
mod progress;
mod random;
mod screen;
mod victim;

pub use campaign::{Options, Outcome, Verdict, check, run};
