//! Two halves and the bytes between them.

use bytes::{Buf as _, Bytes};

use crate::frame::{Hello, IncarnationState, InstanceKind, Limits, Narrowed, SubscriptionId, Welcome};
use crate::identity::Principal;
use crate::ids::{BusId, IncarnationId, InstanceId, Kid, PolicyHash};
use crate::session::{
    BrokerEvent, BrokerSession, ClientEvent, ClientSession, Delivery, MINOR, Outgoing, SessionError, Tick,
};
use crate::topic::{Topic, TopicFilter};

pub(super) const START: Tick = Tick(0);

pub(super) fn hello() -> Hello {
    Hello {
        bus_id: BusId::new([1; 16]),
        minor_min: MINOR,
        minor_max: MINOR,
        instance_kind: InstanceKind::Random,
        features: 0,
        frame_bytes_max: 1 << 20,
        instance_id: InstanceId::new([5; 16]),
        started_ms: 6,
        incarnation_id: IncarnationId::new([7; 16]),
        kid: Kid::new([8; 32]),
        binding: Bytes::new(),
        agent: String::new(),
        proof: [9; 64],
    }
}

pub(super) fn welcome() -> Welcome {
    Welcome {
        minor: MINOR,
        incarnation: IncarnationState::New,
        features: 0,
        limits: Limits {
            frame_bytes_max: 1 << 20,
            batch_bytes_max: 1 << 20,
            payload_bytes_max: 1_000_000,
            topics_max: 1_024,
            subscriptions_max: 1_024,
        },
        session_id: 1,
        broker_ms: 2,
        generation: 1,
        policy_version: 1,
        policy_hash: PolicyHash::ZERO,
        principal: Principal::parse("spiffe://a.example/anna").unwrap(),
    }
}

pub(super) fn topic(name: &str) -> Topic {
    Topic::parse(name).unwrap()
}

/// Two halves and the bytes between them, moved `step` at a time.
pub(super) struct Pair {
    pub(super) broker: BrokerSession,
    pub(super) client: ClientSession,
    step: usize,
}

impl Pair {
    pub(super) fn new(step: usize) -> Self {
        Self { broker: BrokerSession::new_at(START), client: ClientSession::new_at(START), step }
    }

    /// A pair past its handshake.
    pub(super) fn serving(step: usize) -> Self {
        let mut pair = Self::new(step);
        pair.client.hello(&hello());
        assert!(matches!(pair.broker_event(), Some(BrokerEvent::Hello(_))));
        pair.broker.welcome(&welcome());
        assert!(matches!(pair.client_event(), Some(ClientEvent::Welcome(_))));
        pair
    }

    /// Moves bytes to the broker until it has an event or there are no more.
    pub(super) fn broker_event(&mut self) -> Option<BrokerEvent> {
        loop {
            if let Some(event) = self.broker.poll_event().unwrap() {
                return Some(event);
            }
            let room = self.broker.space_len();
            let sent = take(self.client.outgoing(), self.step.min(room));
            if sent.is_empty() {
                return None;
            }
            self.broker.space().extend_from_slice(&sent);
            self.broker.handle_input_at(START);
        }
    }

    pub(super) fn client_event(&mut self) -> Option<ClientEvent> {
        loop {
            if let Some(event) = self.client.poll_event().unwrap() {
                return Some(event);
            }
            let room = self.client.space_len();
            let sent = take(self.broker.outgoing(), self.step.min(room));
            if sent.is_empty() {
                return None;
            }
            self.client.space().extend_from_slice(&sent);
            self.client.handle_input_at(START);
        }
    }

    /// A subscription that is in effect.
    pub(super) fn subscribed(&mut self, credit: u64) -> SubscriptionId {
        let (_, id) = self.client.subscribe(TopicFilter::parse("#").unwrap(), credit).unwrap();
        let Some(BrokerEvent::Subscribe(subscribe)) = self.broker_event() else { panic!("SUBSCRIBE") };
        self.broker.ready(subscribe.request, id, Narrowed::No, 1, None);
        assert!(matches!(self.client_event(), Some(ClientEvent::Ready(_))));
        id
    }

    /// What the broker's half says to raw bytes from a client past its handshake.
    pub(super) fn broker_refuses(bytes: &[u8]) -> SessionError {
        let mut pair = Self::serving(64);
        feed(&mut pair.broker, bytes).unwrap_err()
    }

    pub(super) fn client_refuses(bytes: &[u8]) -> SessionError {
        let mut pair = Self::serving(64);
        pair.client.space().extend_from_slice(bytes);
        loop {
            match pair.client.poll_event() {
                Err(error) => return error,
                Ok(event) => assert!(event.is_some(), "the bytes were taken"),
            }
        }
    }
}

pub(super) fn take(outgoing: &mut Outgoing, max: usize) -> Bytes {
    let len = max.min(outgoing.chunk().len());
    outgoing.copy_to_bytes(len)
}

/// Feeds bytes and polls until nothing more comes.
pub(super) fn feed(broker: &mut BrokerSession, bytes: &[u8]) -> Result<usize, SessionError> {
    let mut events = 0;
    let mut rest = bytes;
    loop {
        while broker.poll_event()?.is_some() {
            events += 1;
        }
        if rest.is_empty() || broker.is_ended() {
            return Ok(events);
        }
        let (now, later) = rest.split_at(broker.space_len().min(rest.len()));
        broker.space().extend_from_slice(now);
        broker.handle_input_at(START);
        rest = later;
        if now.is_empty() {
            return Ok(events);
        }
    }
}

/// A delivery of a topic that is live only.
pub(super) fn live<'a>(subscription: SubscriptionId, topic: &'a Topic, batch: &'a Bytes) -> Delivery<'a> {
    Delivery {
        subscription,
        topic,
        stream: crate::ids::StreamId::ZERO,
        offset: None,
        broker_ms: 5,
        stored: None,
        ranges: None,
        batch,
    }
}
