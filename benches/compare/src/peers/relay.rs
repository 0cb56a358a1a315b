//! The limit: a server that decrypts what publishers send and encrypts it for the subscribers, and does nothing else.
//!
//! It knows neither messages nor limits nor rights, and signs and verifies nothing. What it does is what no broker can do
//! without. Its clients put a length in front of each message, so that a receiver can tell one from the next; the server
//! itself looks at nothing behind a connection's first two frames.

mod frames;
mod server;
mod topics;

use crate::failure::Failure;
use crate::subject::{Facts, Peer, Profile, Running, Setting, Subject};

pub use frames::RelayWire;
pub use server::serve;

/// The subject.
#[derive(Debug, Clone, Copy)]
pub struct Relay;

impl Subject for Relay {
    fn name(&self) -> &'static str {
        "relay"
    }

    fn version(&self) -> Result<String, Failure> {
        Ok(env!("CARGO_PKG_VERSION").to_owned())
    }

    fn facts(&self) -> Facts {
        Facts { signatures: "none", access: "any certificate of the authority" }
    }

    fn durable_profiles(&self) -> &'static [Profile] {
        &[]
    }

    fn acknowledged_means(&self, profile: Profile) -> &'static str {
        match profile {
            Profile::Live | Profile::Durable | Profile::DurableEverySecond => "nothing is acknowledged",
        }
    }

    fn start(&self, setting: &Setting<'_>) -> Result<Running, Failure> {
        let port = setting.port.to_string();
        let pki = setting.pki.folder();
        setting.run(
            setting.own_program,
            ["relay".as_ref(), "--port".as_ref(), port.as_ref(), "--pki".as_ref(), pki.as_os_str()],
        )
    }
}

impl Peer for Relay {
    type Wire = RelayWire;

    fn wire(&self, _profile: Profile) -> RelayWire {
        RelayWire::default()
    }
}
