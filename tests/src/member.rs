//! A principal without a client: its producer, and its session with the broker, one frame at a time.

use std::net::SocketAddr;

use sealbus_protocol::frame::{Ack, Hello, SubscriptionId};
use sealbus_protocol::ids::IncarnationId;
use sealbus_protocol::refusal::Refusal;
use sealbus_protocol::session::ClientEvent;

use crate::bus::TestBus;
use crate::pki::Credential;
use crate::producer::Producer;
use crate::raw::{RawEnd, RawSession, TlsOptions};

/// More credit than a test needs.
pub const CREDIT: u64 = 1 << 40;

/// An identity of the bus, connected.
pub struct Member {
    /// What signs for it.
    pub producer: Producer,
    /// Its session.
    pub session: RawSession,
    credential: Credential,
}

impl Member {
    /// Connects as an identity of the bus, as a new incarnation.
    pub async fn open(bus: &TestBus, address: SocketAddr, name: &str) -> Self {
        let credential = bus.credential(name);
        let producer = Producer::new(bus.bus_id(), &bus.principal(name), &credential);
        let hello = producer.hello();
        let opened =
            RawSession::open_with(bus, address, &TlsOptions::of(&credential), &producer, hello).await;
        let (session, _) = opened.unwrap_or_else(|end| panic!("{name} cannot connect: {end}"));
        Self { producer, session, credential }
    }

    /// Connects once more, as the same incarnation.
    pub async fn reconnect(&mut self, bus: &TestBus, address: SocketAddr) {
        let hello = self.producer.hello();
        let opened = self.hello(bus, address, hello).await;
        self.session = opened.unwrap_or_else(|end| panic!("the incarnation does not go on: {end}"));
    }

    /// Says HELLO on a new connection.
    ///
    /// # Errors
    /// [`RawEnd`] when there is no WELCOME.
    pub async fn hello(
        &self,
        bus: &TestBus,
        address: SocketAddr,
        hello: Hello,
    ) -> Result<RawSession, RawEnd> {
        let options = TlsOptions::of(&self.credential);
        RawSession::open_with(bus, address, &options, &self.producer, hello).await.map(|(session, _)| session)
    }

    /// Its incarnation.
    #[must_use]
    pub const fn incarnation(&self) -> IncarnationId {
        self.producer.context.incarnation_id
    }

    /// Opens a topic, and publishes one message there, for the stream that captures it.
    ///
    /// # Errors
    /// The broker's refusal.
    pub async fn publish(&mut self, topic: &str, payload: &[u8]) -> Result<Ack, Refusal> {
        let opened = self.session.open_for(topic).await?;
        let batch = self.producer.batch_in(opened.stream, topic, &[payload]);
        let ack = self.session.publish_for_ack(opened.alias, batch).await?;
        self.session.session.close_alias(opened.alias);
        Ok(ack)
    }

    /// The next thing that is not news of keys.
    pub async fn event(&mut self) -> ClientEvent {
        loop {
            match self.session.next().await {
                Ok(ClientEvent::Binding(_)) => {}
                Ok(event) => return event,
                Err(end) => panic!("the session ended: {end}"),
            }
        }
    }

    /// The topics and offsets of what is delivered to a subscription until it is closed.
    pub async fn delivered_until_closed(&mut self, subscription: SubscriptionId) -> Vec<(String, u64)> {
        let mut delivered = Vec::new();
        loop {
            match self.event().await {
                ClientEvent::Deliver(delivery) if delivery.subscription == subscription => {
                    let offset = delivery.offset.expect("what is stored has an offset");
                    delivered.push((delivery.topic.as_str().to_owned(), offset));
                }
                ClientEvent::Closed(sealbus_protocol::frame::What::Subscription(closed))
                    if closed == subscription =>
                {
                    return delivered;
                }
                _ => {}
            }
        }
    }
}
