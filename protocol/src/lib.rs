//! What both sides of Sealbus must agree on, and nothing else: bytes, rules and states.
//!
//! Pure by intention. There is no socket, clock, disk or task in here, no `async`, and no randomness: moments, keys and
//! bytes are handed in, values come out. The one lock is that of [`memory`], on which no outcome depends. That is what
//! lets the same code stand in the broker, in the client, in a test that cuts a connection at every byte, and in a
//! fuzzer. `SPEC.md` beside this crate describes every byte for those who write another implementation; `vectors/` holds
//! what they can check it against.
//!
//! Not in here: how connections are made, what a broker does with an accepted batch, how a client reconnects.
//!
//! # In which order to read
//!
//! 1. [`topic`] and [`identity`]: what is spoken about, and who speaks.
//! 2. [`binding`] and [`proof`]: how a signing key comes to speak for a certificate, and a session for a key.
//! 3. [`batch`]: the unit that is signed; how a broker accepts it and how a consumer reads it.
//! 4. [`policy`]: who may do what, and which rule said so.
//! 5. [`tlog`]: how a stream's history proves itself.
//! 6. [`frame`] and [`session`]: what travels, and which frame may come when.
//!
//! [`ids`], [`stream_name`], [`keys`], [`wire`], [`limits`], [`refusal`] and [`spelling`] are the ground they stand on.

pub mod batch;
pub mod binding;
pub mod frame;
pub mod identity;
pub mod ids;
pub mod keys;
pub mod limits;
pub mod memory;
pub mod policy;
pub mod proof;
pub mod refusal;
pub mod session;
pub mod spelling;
pub mod stream_name;
pub mod tlog;
pub mod topic;
pub mod wire;
