//! The async client of Sealbus: publish signed messages, receive verified ones.
//!
//! ```no_run
//! use sealbus_client::{Identity, Trust};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let identity = Identity::from_dir("/etc/orders")?; // tls.crt and tls.key
//! let trust = Trust::from_file("/etc/orders/trust.toml")?;
//! let bus = sealbus_client::connect("bus.acme.example:7433", identity, trust).await?;
//!
//! let mut created = bus.subscribe("orders/+/created").await?;
//!
//! let orders = bus.publisher("orders/eu/created").await?;
//! let receipt = orders.publish("{\"id\":17}").await?; // accepted by the broker
//! println!("sequence {}, {}", receipt.sequence(), receipt.durability().as_str());
//!
//! while let Some(message) = created.try_next().await? {
//!     println!("{} says {:?}", message.producer(), message.payload()); // a proven principal
//! }
//! # Ok(())
//! # }
//! ```
//!
//! What a stream keeps can be read again, shared out among a group until it is acknowledged, and proven:
//!
//! ```no_run
//! # use sealbus_client::{Bus, Start};
//! # async fn example(bus: Bus) -> Result<(), Box<dyn std::error::Error>> {
//! let mut history = bus.replay("orders").from(Start::Earliest).until_end().await?;
//! while let Some(message) = history.try_next().await? {
//!     println!("{:?} {}", message.offset(), message.topic());
//! }
//!
//! let mut billing = bus.consume("orders", "billing").await?;
//! if let Some(message) = billing.try_next().await? {
//!     println!("{} bytes, proven to be kept", message.payload().len());
//!     std::fs::write("order.tlog-proof", bus.prove(&message).await?.to_tlog_proof())?;
//!     message.ack().await?; // or it is delivered again
//! }
//! # Ok(())
//! # }
//! ```
//!
//! **What it does.** One task per [`Bus`] owns the connection: TLS 1.3 with certificates on both sides, reconnects with
//! backoff, and the resumption of what was unacknowledged, byte for byte. A fresh signing key per process is bound to
//! the certificate; batches are signed in that task, and verified in the consumer's. Consumers believe nobody but
//! their own trust file: a broker that alters, moves, replays or forges is caught, with the code that says how.
//!
//! **What it does not contain.** The bytes, rules and session states are in `sealbus-protocol`. The policy is not
//! checked by consumers yet, since it is not signed yet. There is no sealing in this version. Nothing here blocks in
//! `Drop`, waits without a deadline, or queues without a bound.
//!
//! **Reading order.** [`Builder`] and [`Bus`] (the surface); `publisher/queue`, `publisher/line` (how messages become
//! batches, and what becomes of those: pure); `connection/core` (what the task decides: no I/O), `connection/driver`
//! and `connection/task` (its I/O); `subscription/verify` (the order of judgement), `subscription/bindings` (whose
//! keys are believed), `subscription/history` (what is held against a stream); `checkpoint/ledger` (what is believed of
//! a log).

mod administration;
mod builder;
mod bus;
mod checkpoint;
mod clock;
mod connection;
mod error;
mod event;
mod identity;
mod message;
mod publisher;
mod rejection;
mod subscription;
mod sync;
mod tls;
mod trust;

pub use sealbus_protocol::batch::RecordError;
pub use sealbus_protocol::batch::accept::Durability;
pub use sealbus_protocol::frame::admin::{Decision, Question};
pub use sealbus_protocol::frame::{
    BrokerStats, ConsumerInfo, RetentionInfo, SettingsError, Start, StreamHealth, StreamInfo,
};
pub use sealbus_protocol::identity::{Principal, PrincipalError};
pub use sealbus_protocol::ids::{BusId, IncarnationId, InstanceId, Kid, PolicyHash, StreamId};
pub use sealbus_protocol::policy::{Name, NameError};
pub use sealbus_protocol::refusal::{Action, Code, Refusal};
pub use sealbus_protocol::stream_name::{StreamName, StreamNameError};
pub use sealbus_protocol::topic::{Topic, TopicError, TopicFilter};

pub use administration::{Answer, AuditPage, ReloadReport};
pub use builder::{Builder, Reconnect};
pub use bus::{Bus, PolicySeen};
pub use checkpoint::{Checkpoint, CheckpointError, InclusionProof, ProveError};
pub use error::{
    CloseError, CloseReason, ConnectError, EnqueueAllError, EnqueueError, OpenError, PublishAllError,
    PublishError, RequestError, SettleError, SubscribeError,
};
pub use event::{Event, Events};
pub use identity::{Identity, IdentityError};
pub use message::{Dated, Message};
pub use publisher::{IntoMessage, Json, MessageError, Outgoing, PendingReceipt, Publisher, Receipt};
pub use rejection::{DeliveryError, Missing, Rejection, RejectionCode};
pub use subscription::{ConsumeBuilder, Consumer, MessageBatch, Replay, ReplayBuilder, Subscription};
pub use trust::{Problem, Trust, TrustFileError};

/// Connects with the defaults. When it returns, the first connection has been made, or refused.
///
/// # Errors
/// [`ConnectError`] says which step failed, and on what.
pub async fn connect(server: &str, identity: Identity, trust: Trust) -> Result<Bus, ConnectError> {
    builder().server(server).identity(identity).trust(trust).connect().await
}

/// A connection with options.
pub fn builder() -> Builder {
    Builder::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handles_and_their_futures_go_to_other_threads() {
        fn assert_send<T: Send>(_: &T) {}
        fn assert_shared<T: Send + Sync + 'static>() {}
        assert_shared::<Bus>();
        assert_shared::<Publisher>();
        assert_shared::<PendingReceipt>();
        assert_shared::<Subscription>();
        assert_shared::<Replay>();
        assert_shared::<Consumer>();
        assert_shared::<Events>();
        assert_shared::<Message>();
        assert_send(&builder().connect());
        let _ = |bus: Bus, publisher: Publisher, mut subscription: Subscription| {
            assert_send(&bus.publisher("a"));
            assert_send(&bus.subscribe("a"));
            assert_send(&bus.replay("a").start());
            assert_send(&bus.consume("a", "b").start());
            assert_send(&bus.checkpoint("a"));
            assert_send(&bus.reload_policy());
            assert_send(&publisher.publish("a"));
            assert_send(&publisher.publish_all(["a"]));
            assert_send(&publisher.flush());
            assert_send(&subscription.next());
            assert_send(&subscription.next_batch());
        };
        let _ = |bus: Bus, message: Message| {
            assert_send(&message.ack());
            assert_send(&message.ack_sync());
            assert_send(&bus.prove(&message));
        };
    }
}

/// What the README shows compiles.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
