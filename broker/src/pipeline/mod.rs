//! The order of a request, once, in the open.
//!
//! ```text
//!  HELLO ---> hello    bus, version, binding, kid, proof, policy, incarnation ---> WELCOME, and a Client
//!
//!  OPEN ----> open     decide --> sequence state ---------------------------------> OPENED
//!  PUBLISH -> publish  FORMAT, decide --> judge (one lock) --> route --> outboxes -> ACK
//!                                              |                  ^
//!                                              '--> stream -------'--- durable ----> ACK
//!  SUBSCRIBE> subscribe decide the filter --> table --> READY     |
//!                                                                 v
//!             deliver  outbox --> decide again --> BINDING once --> DELIVER, LAGGED
//!
//!  REPLAY --> replay    decide the stream --> READY; page --> decide again --> DELIVER ... CLOSED
//!  CONSUME -> consuming decide the stream --> join the group --> READY; assignment --> decide again --> DELIVER
//!  SETTLE --> consuming ack, nack --> cursors
//!
//!  ADMIN ---> admin    decide --> change, question or audit lines ----------------> RESULT
//! ```
//!
//! Every decision about a topic goes through [`decide::Decisions::on_topic`], at publish and at delivery, or through
//! [`decide::Decisions::on_history`] when a stream is read. It is made by the one policy that the session has adopted;
//! [`Client::adopt`] changes that, and nothing else does. Nothing here waits: a step either answers at once or leaves
//! the answer to a task that signals the session.
//!
//! Read [`hello`], then [`open`], [`publish`], [`subscribe`] and [`deliver`]; for streams [`capture`], [`pending`] and
//! [`fan_out`] as they are written, [`reading`], [`replay`], [`consuming`] and [`stored`] as they are read. What was
//! published is told to the audit log by [`summaries`].

mod admin;
mod capture;
mod client;
mod consumer;
mod consuming;
mod decide;
mod deliver;
mod describe;
mod fan_out;
mod hello;
mod open;
mod patience;
mod pending;
mod proving;
mod publish;
mod reading;
mod refuse;
mod replay;
mod route;
mod stored;
mod subscribe;
mod summaries;
#[cfg(test)]
mod testing;

pub(crate) use client::{Client, Ended};
pub(crate) use deliver::Filled;
pub(crate) use fan_out::FanOut;
pub(crate) use hello::{Peer, admit};
