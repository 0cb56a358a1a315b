//! The broker over real TLS, with clients made of the protocol's own half and a blocking socket.
//!
//! `harness` makes the bus; the rest are stories.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod harness;

mod admin;
mod certificates;
mod doors;
mod drain;
mod generation;
mod greeting;
mod lag;
mod publishing;
mod quotas;
mod served;
