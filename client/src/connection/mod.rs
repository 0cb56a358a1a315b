//! The one task that owns a bus's connection.
//!
//! Read [`establish`] for how a session comes about, [`core`] for what is decided, [`driver`] for the loop, and
//! [`task`] for what happens between connections.

mod buffered;
pub(crate) mod command;
mod core;
mod dial;
mod driver;
mod establish;
mod inquiring;
mod keys;
mod lines;
mod publishing;
mod settling;
mod subscribing;
mod task;
pub(crate) mod wake;

use std::sync::{Arc, Mutex};

use tokio::sync::mpsc;

use crate::builder::Options;
use crate::bus::{Bus, BusShared, PolicySeen, Seen};
use crate::clock::{self, Ticker};
use crate::error::ConnectError;
use crate::event::EventHub;
use crate::identity::Identity;
use crate::subscription::bindings::Keyring;
use crate::tls::Server;
use crate::trust::Trust;

use self::command::COMMANDS_MAX;
use self::core::{Core, CoreParts};
use self::dial::{Dial, TlsDialer};
use self::driver::Inputs;
use self::establish::{Plan, establish};
use self::keys::Keys;
use self::wake::Wake;

/// Makes the first connection, and starts the task that keeps it.
pub(crate) async fn connect(
    server: String,
    identity: Identity,
    trust: Trust,
    options: Options,
) -> Result<Bus, ConnectError> {
    let server = Server::parse(&server)?;
    let dialer = TlsDialer { server, trust: trust.clone() };
    connect_by(dialer, identity, trust, options).await
}

async fn connect_by<D: Dial>(
    dialer: D,
    identity: Identity,
    trust: Trust,
    options: Options,
) -> Result<Bus, ConnectError> {
    let now_ms = clock::now_ms();
    let ticker = Ticker::new();
    let keys = Arc::new(Keys::draw(&identity, trust.producers(), options.instance_id, now_ms)?);
    let context = keys.incarnation(trust.bus_id(), now_ms, None)?;
    let plan = Plan {
        keys: Arc::clone(&keys),
        context: context.clone(),
        agent: options.agent.clone(),
        connect_timeout: options.connect_timeout,
        ticker,
    };
    let first = establish(&dialer, &identity, &plan).await?;

    let wake = Arc::new(Wake::default());
    let events = Arc::new(EventHub::default());
    let keyring = Arc::new(Keyring::new(Arc::clone(trust.shared_producers()), Arc::clone(&wake)));
    let seen = Arc::new(Seen::new(PolicySeen {
        generation: first.welcome.generation,
        version: first.welcome.policy_version,
        hash: first.welcome.policy_hash,
    }));
    let (commands, receiver) = mpsc::channel(COMMANDS_MAX);
    let shared = Arc::new(BusShared {
        commands,
        events: Arc::clone(&events),
        keyring: Arc::clone(&keyring),
        seen: Arc::clone(&seen),
        bus_id: trust.bus_id(),
        log_key: trust.log_key().copied(),
        ledger: Mutex::default(),
        principal: keys.principal.clone(),
        request_timeout: options.request_timeout,
    });
    let inputs = Inputs::new(receiver, Arc::clone(&wake));
    let limits = first.welcome.limits;
    let core = Core::new(CoreParts { options, ticker, keys, context, wake, events, keyring, seen, limits });
    tokio::spawn(task::run(core, inputs, Arc::new(dialer), identity, first));
    Ok(Bus::new(shared))
}

#[cfg(test)]
mod tests;
