//! The order of a request, once, in the open.
//!
//! ```text
//!  HELLO ---> hello    bus, version, binding, kid, proof, policy, incarnation ---> WELCOME, and a Client
//!
//!  OPEN ----> publish  decide --> sequence state ---------------------------------> OPENED
//!  PUBLISH -> publish  FORMAT, decide --> judge (one lock) --> route --> outboxes -> ACK
//!                                                                 |
//!  SUBSCRIBE> subscribe decide the filter --> table --> READY     |
//!                                                                 v
//!             deliver  outbox --> decide again --> BINDING once --> DELIVER, LAGGED
//!
//!  ADMIN ---> admin    decide --> change, question or audit lines ----------------> RESULT
//! ```
//!
//! Every decision about a topic, at publish and at delivery, goes through [`decide::Decisions::on_topic`] and is made
//! by the one policy that the session has adopted; [`Client::adopt`] changes it, and nothing else does. Nothing here
//! waits: a step either answers at once or leaves the answer to a task that signals the session.
//!
//! Read [`hello`], then [`publish`], [`subscribe`] and [`deliver`].

mod admin;
mod client;
mod decide;
mod deliver;
mod hello;
mod patience;
mod publish;
mod route;
mod subscribe;

pub(crate) use client::{Client, Ended};
pub(crate) use deliver::Filled;
pub(crate) use hello::{Peer, admit};
