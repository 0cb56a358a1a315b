//! The client's half of a session.

use std::collections::HashMap;

use bytes::{Bytes, BytesMut};

use crate::frame::{
    AdminRequest, Alias, BindingGet, BrokerFrame, CheckpointGet, Close, Closed, Consume, ConsumerKey,
    ConsumerSettings, Credit, Deliver, ErrorFrame, FrameType, Hello, Open, Operation, Publish, Replay,
    RequestId, Settle, SettleItem, Start, StreamTopic, Subscribe, SubscriptionId, Sync, Until, What,
};
use crate::ids::Kid;
use crate::limits::{DELIVERY_ALIASES_MAX, SETTLE_ITEMS_MAX, SUBSCRIPTIONS_PER_CONNECTION_MAX};
use crate::refusal::Refusal;
use crate::stream_name::StreamName;
use crate::topic::{Topic, TopicFilter};

use super::client_event::{ClientEvent, Delivered};
use super::error::SessionError;
use super::link::Link;
use super::outgoing::Outgoing;
use super::requests::{Awaited, Requests};
use super::tick::Tick;

/// The client's half of a session.
///
/// ```text
///   Start --hello--> ExpectWelcome --WELCOME--> Serving
///                          |                       |
///                          '------- error, fail ---'--> Ended
/// ```
#[derive(Debug)]
pub struct ClientSession {
    state: State,
    link: Link,
    requests: Requests,
    subscriptions: HashMap<SubscriptionId, Subscription>,
    subscription_next: u32,
    delivery_topics: HashMap<Alias, StreamTopic>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Start,
    ExpectWelcome,
    Serving,
    Ended,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Subscription {
    /// READY or REFUSED is awaited.
    Opening,
    /// As [`Subscription::Opening`], and CLOSE is sent as soon as it is READY: a broker that has just refused a
    /// subscription knows nothing that could be closed.
    OpeningToClose,
    Open,
    Closing,
}

impl ClientSession {
    /// A session whose connection has just passed TLS.
    #[must_use]
    pub fn new_at(now: Tick) -> Self {
        Self {
            state: State::Start,
            link: Link::new_at(now),
            requests: Requests::default(),
            subscriptions: HashMap::new(),
            subscription_next: 1,
            delivery_topics: HashMap::new(),
        }
    }

    /// Where received bytes are appended, at most [`ClientSession::space_len`] of them.
    pub fn space(&mut self) -> &mut BytesMut {
        self.link.space()
    }

    /// Bytes that [`ClientSession::space`] takes now.
    #[must_use]
    pub fn space_len(&self) -> usize {
        self.link.deframer.space_len()
    }

    /// Bytes were appended; [`ClientSession::poll_event`] says what they mean.
    pub fn handle_input_at(&mut self, now: Tick) {
        self.link.handle_input_at(now);
    }

    /// Says who the client is.
    ///
    /// # Panics
    /// When it has been said before.
    pub fn hello(&mut self, hello: &Hello) {
        assert_eq!(self.state, State::Start, "HELLO is the first frame, once");
        self.state = State::ExpectWelcome;
        self.link.outgoing.push(hello);
    }

    /// The next thing that the broker tells; none when more bytes are needed.
    ///
    /// # Errors
    /// [`SessionError`] when the broker breaks the protocol. Nothing further is read.
    pub fn poll_event(&mut self) -> Result<Option<ClientEvent>, SessionError> {
        while self.state != State::Ended {
            let Some(raw) = self.link.poll_frame()? else { return Ok(None) };
            let kind = raw.header.kind;
            let awaited = match self.state {
                State::Serving => kind != FrameType::Welcome,
                State::ExpectWelcome => matches!(kind, FrameType::Welcome | FrameType::Error),
                State::Start | State::Ended => kind == FrameType::Error,
            };
            if !awaited {
                let awaited = if self.state == State::Serving { "anything but WELCOME" } else { "WELCOME" };
                return Err(SessionError::Unexpected { kind, awaited });
            }
            if let Some(event) = self.handle_frame(BrokerFrame::decode(&raw)?)? {
                return Ok(Some(event));
            }
        }
        Ok(None)
    }

    fn handle_frame(&mut self, frame: BrokerFrame) -> Result<Option<ClientEvent>, SessionError> {
        Ok(Some(match frame {
            BrokerFrame::Welcome(welcome) => {
                self.state = State::Serving;
                self.link.greeted();
                ClientEvent::Welcome(welcome)
            }
            BrokerFrame::Opened(opened) => {
                self.requests.answered(opened.request, Awaited::Opened)?;
                ClientEvent::Opened(opened)
            }
            BrokerFrame::Ack(ack) => {
                self.requests.answered(ack.request, Awaited::Ack)?;
                ClientEvent::Ack(ack)
            }
            BrokerFrame::Refused(refused) => {
                if let Some(Awaited::Ready(id)) = self.requests.refused(refused.request)? {
                    self.subscriptions.remove(&id);
                }
                ClientEvent::Refused(refused)
            }
            BrokerFrame::Ready(ready) => {
                self.requests.answered(ready.request, Awaited::Ready(ready.subscription))?;
                self.handle_ready(ready.subscription)?;
                ClientEvent::Ready(ready)
            }
            BrokerFrame::Closed(Closed(what)) => {
                self.handle_closed(what)?;
                ClientEvent::Closed(what)
            }
            BrokerFrame::Deliver(deliver) => match self.handle_deliver(deliver)? {
                Some(delivered) => ClientEvent::Deliver(delivered),
                None => return Ok(None),
            },
            BrokerFrame::Lagged(lagged) => {
                if self.subscription(lagged.subscription)? != Subscription::Open {
                    return Ok(None);
                }
                ClientEvent::Lagged(lagged)
            }
            BrokerFrame::Skipped(skipped) => {
                if self.subscription(skipped.subscription)? != Subscription::Open {
                    return Ok(None);
                }
                ClientEvent::Skipped(skipped)
            }
            BrokerFrame::Settled(settled) => {
                self.requests.answered(settled.request, Awaited::Settled)?;
                ClientEvent::Settled(settled)
            }
            BrokerFrame::Checkpoint(reply) => {
                self.requests.answered(reply.request, Awaited::Checkpoint)?;
                ClientEvent::Checkpoint(reply)
            }
            BrokerFrame::Generation(generation) => ClientEvent::Generation(generation),
            BrokerFrame::Binding(binding) => {
                if let Some(request) = binding.request {
                    self.requests.answered(request, Awaited::Binding)?;
                }
                ClientEvent::Binding(binding)
            }
            BrokerFrame::AdminResult(result) => {
                self.requests.answered(result.request, Awaited::AdminResult)?;
                ClientEvent::AdminResult(result)
            }
            BrokerFrame::Ping(nonce) => {
                self.link.pong(nonce);
                return Ok(None);
            }
            BrokerFrame::Pong(_) => return Ok(None),
            BrokerFrame::Drain(drain) => ClientEvent::Drain(drain),
            BrokerFrame::Error(ErrorFrame(refusal)) => {
                self.state = State::Ended;
                ClientEvent::Failed(refusal)
            }
        }))
    }

    fn handle_ready(&mut self, id: SubscriptionId) -> Result<(), SessionError> {
        let state = self.subscriptions.get_mut(&id).ok_or(SessionError::UnknownSubscription(id))?;
        let to_close = *state == Subscription::OpeningToClose;
        *state = Subscription::Open;
        if to_close {
            self.close_subscription(id);
        }
        Ok(())
    }

    /// Resolves the alias. Batches that were on their way when the subscription was closed are dropped, but an alias
    /// that one of them gives is kept.
    fn handle_deliver(&mut self, deliver: Deliver) -> Result<Option<Delivered>, SessionError> {
        let state = self.subscription(deliver.subscription)?;
        let named = match deliver.topic {
            Some(_) if deliver.alias.0 >= DELIVERY_ALIASES_MAX => {
                return Err(SessionError::UnknownAlias(deliver.alias));
            }
            Some(named) => {
                self.delivery_topics.insert(deliver.alias, named.clone());
                named
            }
            None => {
                let known = self.delivery_topics.get(&deliver.alias);
                known.ok_or(SessionError::UnknownAlias(deliver.alias))?.clone()
            }
        };
        Ok((state == Subscription::Open).then_some(Delivered {
            subscription: deliver.subscription,
            topic: named.topic,
            stream_id: named.stream,
            offset: deliver.offset,
            broker_ms: deliver.broker_ms,
            stored: deliver.stored,
            ranges: deliver.ranges,
            batch: deliver.batch,
        }))
    }

    /// A broker ends only what it has said to be READY.
    fn handle_closed(&mut self, what: What) -> Result<(), SessionError> {
        let What::Subscription(id) = what else { return Ok(()) };
        match self.subscription(id)? {
            Subscription::Opening | Subscription::OpeningToClose => {
                Err(SessionError::UnknownSubscription(id))
            }
            Subscription::Open | Subscription::Closing => {
                self.subscriptions.remove(&id);
                Ok(())
            }
        }
    }

    /// Asks for an alias to publish to a topic.
    ///
    /// # Errors
    /// [`SessionError::TooManyRequests`].
    pub fn open(&mut self, topic: Topic) -> Result<RequestId, SessionError> {
        let request = self.requests.begin(Awaited::Opened)?;
        self.link.outgoing.push(&Open { request, topic });
        Ok(request)
    }

    /// Sends a batch.
    ///
    /// # Errors
    /// [`SessionError::TooManyRequests`].
    pub fn publish(&mut self, alias: Alias, batch: Bytes) -> Result<RequestId, SessionError> {
        let request = self.requests.begin(Awaited::Ack)?;
        self.link.outgoing.push(&Publish { request, alias, batch });
        Ok(request)
    }

    /// Asks for live messages, with credit for the first of them.
    ///
    /// # Errors
    /// [`SessionError::TooManySubscriptions`] or [`SessionError::TooManyRequests`].
    pub fn subscribe(
        &mut self,
        filter: TopicFilter,
        credit_bytes: u64,
    ) -> Result<(RequestId, SubscriptionId), SessionError> {
        let (request, subscription) = self.begin()?;
        self.link.outgoing.push(&Subscribe { request, subscription, credit_bytes, filter });
        Ok((request, subscription))
    }

    /// Asks for a stream's messages from a place on, with credit for the first of them.
    ///
    /// # Errors
    /// [`SessionError::TooManySubscriptions`] or [`SessionError::TooManyRequests`].
    pub fn replay(
        &mut self,
        stream: StreamName,
        from: Start,
        until: Until,
        filter: Option<TopicFilter>,
        credit_bytes: u64,
    ) -> Result<(RequestId, SubscriptionId), SessionError> {
        let (request, subscription) = self.begin()?;
        let replay = Replay { request, subscription, credit_bytes, from, until, stream, filter };
        self.link.outgoing.push(&replay);
        Ok((request, subscription))
    }

    /// Creates or joins a durable consumer, with credit for its first messages.
    ///
    /// # Errors
    /// [`SessionError::TooManySubscriptions`] or [`SessionError::TooManyRequests`].
    pub fn consume(
        &mut self,
        consumer: ConsumerKey,
        from: Start,
        settings: ConsumerSettings,
        filter: Option<TopicFilter>,
        credit_bytes: u64,
    ) -> Result<(RequestId, SubscriptionId), SessionError> {
        let (request, subscription) = self.begin()?;
        let ConsumerKey { stream, consumer } = consumer;
        let consume =
            Consume { request, subscription, credit_bytes, from, settings, stream, consumer, filter };
        self.link.outgoing.push(&consume);
        Ok((request, subscription))
    }

    /// Says what became of deliveries of a durable consumer. Gives the request when its answer is awaited; nothing is
    /// sent, and none given, when the subscription is not open any more or there are no items: what is not settled is
    /// delivered again.
    ///
    /// # Errors
    /// [`SessionError::TooManyRequests`].
    ///
    /// # Panics
    /// When there are more than [`SETTLE_ITEMS_MAX`] items.
    pub fn settle(
        &mut self,
        subscription: SubscriptionId,
        items: Vec<SettleItem>,
        sync: Sync,
    ) -> Result<Option<RequestId>, SessionError> {
        assert!(items.len() <= SETTLE_ITEMS_MAX, "whoever settles keeps to the limit");
        if items.is_empty() || self.subscriptions.get(&subscription) != Some(&Subscription::Open) {
            return Ok(None);
        }
        let request = match sync {
            Sync::Yes => self.requests.begin(Awaited::Settled)?,
            Sync::No => self.requests.begin_unawaited(),
        };
        self.link.outgoing.push(&Settle { request, subscription, sync, items });
        Ok(request.is_awaited().then_some(request))
    }

    /// Asks for a stream's newest checkpoint, and for proofs that lead to it: from an older one of `old_size` leaves
    /// (0: none), and of one leaf.
    ///
    /// # Errors
    /// [`SessionError::TooManyRequests`].
    pub fn checkpoint_get(
        &mut self,
        stream: StreamName,
        old_size: u64,
        leaf_index: Option<u64>,
    ) -> Result<RequestId, SessionError> {
        let request = self.requests.begin(Awaited::Checkpoint)?;
        self.link.outgoing.push(&CheckpointGet { request, old_size, leaf_index, stream });
        Ok(request)
    }

    /// Lets the broker deliver more on a subscription.
    pub fn credit(&mut self, subscription: SubscriptionId, bytes: u64) {
        if bytes > 0 && self.subscriptions.get(&subscription) == Some(&Subscription::Open) {
            self.link.outgoing.push(&Credit { subscription, bytes });
        }
    }

    /// Ends a publish alias. No batch may be sent on it afterwards.
    pub fn close_alias(&mut self, alias: Alias) {
        self.link.outgoing.push(&Close(What::Alias(alias)));
    }

    /// Ends a subscription. What is still on its way is dropped.
    pub fn close_subscription(&mut self, subscription: SubscriptionId) {
        let Some(state) = self.subscriptions.get_mut(&subscription) else { return };
        match state {
            Subscription::Opening => *state = Subscription::OpeningToClose,
            Subscription::Open => {
                *state = Subscription::Closing;
                self.link.outgoing.push(&Close(What::Subscription(subscription)));
            }
            Subscription::OpeningToClose | Subscription::Closing => {}
        }
    }

    /// Asks for a key binding.
    ///
    /// # Errors
    /// [`SessionError::TooManyRequests`].
    pub fn binding_get(&mut self, kid: Kid) -> Result<RequestId, SessionError> {
        let request = self.requests.begin(Awaited::Binding)?;
        self.link.outgoing.push(&BindingGet { request, kid });
        Ok(request)
    }

    /// Sends an administrative request.
    ///
    /// # Errors
    /// [`SessionError::TooManyRequests`].
    pub fn admin(&mut self, operation: Operation) -> Result<RequestId, SessionError> {
        let request = self.requests.begin(Awaited::AdminResult)?;
        self.link.outgoing.push(&AdminRequest { request, operation });
        Ok(request)
    }

    /// Ends the session: the reason is the last frame.
    pub fn fail(&mut self, refusal: Refusal) {
        if self.state != State::Ended {
            self.state = State::Ended;
            self.link.outgoing.push(&ErrorFrame(refusal));
        }
    }

    /// Whether the session has ended.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        self.state == State::Ended
    }

    /// The bytes to write.
    pub fn outgoing(&mut self) -> &mut Outgoing {
        &mut self.link.outgoing
    }

    /// When [`ClientSession::handle_timeout_at`] wants to be called next.
    #[must_use]
    pub fn poll_timeout(&self) -> Tick {
        self.link.poll_timeout()
    }

    /// Pings a silent broker.
    ///
    /// # Errors
    /// [`SessionError::Silence`] when it has been silent for too long.
    pub fn handle_timeout_at(&mut self, now: Tick) -> Result<(), SessionError> {
        self.link.handle_timeout_at(now)
    }

    /// Gives back the read memory while nothing is in it.
    pub fn release(&mut self) {
        self.link.deframer.release();
    }

    fn subscription(&self, id: SubscriptionId) -> Result<Subscription, SessionError> {
        self.subscriptions.get(&id).copied().ok_or(SessionError::UnknownSubscription(id))
    }

    /// A new subscription, and the request that its READY will answer.
    fn begin(&mut self) -> Result<(RequestId, SubscriptionId), SessionError> {
        if self.subscriptions.len() >= SUBSCRIPTIONS_PER_CONNECTION_MAX {
            return Err(SessionError::TooManySubscriptions);
        }
        let mut subscription = SubscriptionId(self.subscription_next);
        while self.subscriptions.contains_key(&subscription) {
            subscription = SubscriptionId(subscription.0.wrapping_add(1));
        }
        let request = self.requests.begin(Awaited::Ready(subscription))?;
        self.subscription_next = subscription.0.wrapping_add(1);
        self.subscriptions.insert(subscription, Subscription::Opening);
        Ok((request, subscription))
    }
}
