//! What is kept: segmented logs, and what stands on them.

pub mod index;
pub mod indexing;
pub mod log;
pub mod log_key;
pub mod page;
pub mod stream;
pub mod system;
pub mod whole;
