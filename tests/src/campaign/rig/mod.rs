//! A broker's storage without the broker: the engine is driven step by step, and what it is told and what it says is
//! written into a [`History`](super::history::History).
//!
//! ```text
//!   driver    opens, closes, kills, takes the next step        opened   everything as the broker opens it
//!     streams   batches, commits, checkpoints, trims           settle   the history of the life before, and this one
//!     system    keys, policies, cursors                        part     who refused what
//! ```

mod driver;
mod opened;
mod part;
mod producers;
mod settle;
mod streams;
mod system;

pub use driver::{Before, Rest, Rig};
pub use part::{Part, Refused};
pub use producers::{Producers, Shape};
pub use system::cursor_of;
