//! The Sealbus broker, as a library.

pub mod audit;
pub mod clock;
pub mod config;
pub mod policy;
pub mod shutdown;
pub mod telemetry;
pub mod tls;
pub mod vfs;
