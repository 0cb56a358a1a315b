//! What both sides of the Sealbus protocol must agree on, and nothing else.

pub mod identity;
pub mod ids;
pub mod keys;
pub mod limits;
pub mod wire;
