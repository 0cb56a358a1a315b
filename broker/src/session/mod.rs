//! A session: one task per connection, from bytes to requests and back.
//!
//! ```text
//!                  HELLO judged good
//!   Greeting ---------------------------> Serving ------------------------------.
//!      |  deadline, refused                  |  cut, failed, finished, closed   |
//!      '---------------------------------.   v                                  | kill: dropped as it is
//!                                         Ending: write what is framed,         |
//!                                         close_notify, read until the peer     v
//!                                         closes too ----------------------> Over
//!
//!   one poll:  time, then turns until nothing moves
//!              due
//!   one turn:  signals --> take in --> fill --> put out --> marker
//!              control     read,       outbox,  write,      written and flushed?
//!                          answer      decide   flush       then arrive
//! ```
//!
//! The task owns the TLS stream and the session's state; nothing is split, and no lock is held while it waits. What can
//! wake it is the socket, the outbox's waker (a batch, or a signal), and one timer. While a GENERATION marker is on its
//! way nothing is read or framed: all that precedes the marker was decided before, and nothing can follow it that was.
//!
//! A turn that is dropped half-way loses nothing but the connection: dropping the driver closes the stream first and
//! takes the session off the bus after that.

use std::future::poll_fn;

use tokio::io::{AsyncRead, AsyncWrite};

mod driver;
mod ending;
mod read_ahead;
mod signals;
mod timer;

pub(crate) use driver::{Driver, Setting};
pub(crate) use read_ahead::ReadAhead;

/// Runs a session on a connection that has passed TLS, until it is over.
pub(crate) async fn run<S: AsyncRead + AsyncWrite + Unpin>(io: S, setting: Setting) {
    let mut driver = Box::new(Driver::new(io, setting));
    poll_fn(|cx| driver.poll(cx)).await;
}
