//! The batch: the unit that is signed, stored and delivered.
//!
//! ```text
//!   0             296            360                       360 + body_len
//!   +-------------+--------------+-------------------------+
//!   | preamble    | signature    | body: count records     |
//!   +-------------+--------------+-------------------------+
//!   '---- Ed25519 signs this     '-- BLAKE3 of this is in the preamble
//! ```
//!
//! Read [`preamble`] for the bytes, [`record`] for what is inside, [`signed`] for the whole and its proof, [`produce`]
//! for how one is made, [`accept`] for how a broker judges one and [`read`] for how a consumer does. A batch is never
//! re-encoded: what arrived is what is hashed, verified, stored and handed on.

pub mod accept;
pub mod preamble;
pub mod produce;
pub mod read;
pub mod record;
pub mod signed;
pub mod span;
#[cfg(test)]
pub(crate) mod testing;

pub use preamble::{Content, FormatError, HEAD_LEN, PREAMBLE_LEN, Position, Preamble, Seal};
pub use record::{Headers, HeadersBuf, Record, RecordError, Records};
pub use signed::{Batch, VerifiedBatch, VerifyError};
pub use span::RecordSpan;
