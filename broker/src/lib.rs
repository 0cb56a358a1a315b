//! The Sealbus broker, as a library: start it with [`Broker::start`], stop it with [`Broker::shutdown`].
//!
//! # The story of a message
//!
//! A connection passes `admission` and TLS (`listener`) and becomes a `session`: one task that owns the stream and
//! turns bytes into requests. HELLO is judged once (`pipeline::hello`); from then on the session acts as one principal.
//! A batch (`pipeline::publish`) is decided about, judged by its sequence, verified, and left in the `outbox` of every
//! session that the `router` finds for its topic. When a stream keeps the topic it goes to `storage` first, and is shown
//! and acknowledged when it is durable. Sessions decide again (`pipeline::deliver`, `pipeline::replay`), frame and write.
//! When policy or certificates change (`reload`), every session marks the place before the change is called done.
//!
//! Every file imports only from below:
//!
//! ```text
//! broker                                             start, stop, wiring
//! listener  reload                                   accept, TLS; changes that reach everybody
//! session/                                           one task per connection
//! keeping                                            what is kept, opened and closed in the right order
//! pipeline/                                          the order of a request, once, in the open
//! bus                                                what all sessions share
//! router/  outbox  producers  bindings  sessions     who wants what, who publishes, who is there
//! quotas  letters  counts                            what each principal takes; what threads bring back; numbers
//! consumers/                                         durable consumers: groups, their drivers, dead letters
//! party  port  change  admission  descriptors        small words that they share
//! storage/                                           streams, system streams, index: what is on the disk
//! audit/  policy  tls/                               what is recorded, decided, believed
//! config/  clock  vfs  shutdown  telemetry  locks
//! ```
//!
//! Read `pipeline`, then `session`, then `reload`; for what is kept `STORAGE.md` beside this crate, then `storage::log`,
//! `storage::stream`, `consumers`. What is not here: any byte format of the wire or rule of the protocol, which are
//! `sealbus_protocol`'s.

pub mod audit;
pub mod clock;
pub mod config;
#[doc(hidden)]
pub mod consumers;
pub mod policy;
pub mod shutdown;
#[doc(hidden)]
pub mod storage;
pub mod tls;
pub mod vfs;

mod admission;
mod bindings;
mod broker;
mod bus;
mod change;
mod counts;
mod descriptors;
mod keeping;
mod letters;
mod listener;
mod locks;
mod outbox;
mod party;
mod pipeline;
mod port;
mod producers;
mod quotas;
mod reload;
mod router;
mod session;
mod sessions;
mod telemetry;

pub use broker::{Broker, Parts, RunError, StartError};
pub use change::{ReloadError, ReloadReport};
pub use descriptors::TooFewDescriptors;
