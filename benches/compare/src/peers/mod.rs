//! The peers, one file each: how it is started, and its protocol.

mod codec;
pub mod mosquitto;
pub mod nats;
pub mod redis;
pub mod relay;
#[cfg(test)]
mod tests;
