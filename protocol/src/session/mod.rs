//! Both halves of a session, sans-IO: bytes and moments go in, events and bytes come out.
//!
//! ```text
//!            socket                                                       decisions
//!   bytes ---------> space / handle_input_at --> poll_event ------------> events
//!   bytes <--------- outgoing (a Buf) <--------- answer methods <-------- answers
//!   clock ---------> handle_timeout_at   poll_timeout --> when to call it
//! ```
//!
//! A half knows which frame may come when, which aliases, subscriptions and requests exist, and how much credit is
//! left. It does not know policies, signatures or certificates, and it never waits. Tasks own a half each, so that
//! tests can put two of them in a box and cut the bytes between them wherever they like.

mod broker;
mod broker_event;
mod client;
mod client_event;
mod delivery;
mod error;
mod link;
mod outgoing;
mod publish_aliases;
mod requests;
mod tick;

pub use broker::BrokerSession;
pub use broker_event::BrokerEvent;
pub use client::ClientSession;
pub use client_event::{ClientEvent, Delivered};
pub use delivery::Delivery;
pub use error::SessionError;
pub use outgoing::Outgoing;
pub use tick::Tick;

/// The minor version that this crate speaks.
pub const MINOR: u8 = 0;

/// The application protocol that both sides name in TLS; the major version of the wire is in it.
pub const ALPN: &[u8] = b"sealbus/1";

#[cfg(test)]
mod tests;
