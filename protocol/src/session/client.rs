//! The client's half of a session.

use std::collections::HashMap;

use bytes::{Bytes, BytesMut};

use crate::frame::{
    Ack, AdminRequest, AdminResult, Alias, BindingGet, BindingReply, BrokerFrame, Close, Closed, Credit,
    Deliver, Drain, ErrorFrame, FrameType, Generation, Hello, Lagged, Open, Opened, Operation, Publish,
    Ready, Refused, RequestId, Subscribe, SubscriptionId, Welcome, What,
};
use crate::ids::Kid;
use crate::limits::{DELIVERY_ALIASES_MAX, REQUESTS_OUTSTANDING_MAX, SUBSCRIPTIONS_PER_CONNECTION_MAX};
use crate::refusal::Refusal;
use crate::topic::{Topic, TopicFilter};

use super::error::SessionError;
use super::link::Link;
use super::outgoing::Outgoing;
use super::tick::Tick;

/// What a broker tells a client.
#[derive(Debug)]
pub enum ClientEvent {
    /// The session serves from here on.
    Welcome(Box<Welcome>),
    /// A publish alias is granted.
    Opened(Opened),
    /// A batch was accepted.
    Ack(Ack),
    /// A request was refused.
    Refused(Refused),
    /// A subscription is in effect.
    Ready(Ready),
    /// An alias or subscription has ended.
    Closed(What),
    /// A batch for a subscription, not yet verified.
    Deliver(Delivered),
    /// Messages were lost because this client was slow.
    Lagged(Lagged),
    /// From here on another policy holds.
    Generation(Generation),
    /// A key binding, not yet verified.
    Binding(BindingReply),
    /// The answer to an administrative request.
    AdminResult(AdminResult),
    /// The broker is shutting down.
    Drain(Drain),
    /// The broker gives up, for this reason; the connection ends.
    Failed(Refusal),
}

/// A delivery with its alias resolved. What the broker says of it is not proven.
#[derive(Debug, Clone)]
pub struct Delivered {
    /// The subscription that it is for.
    pub subscription: SubscriptionId,
    /// The topic that the broker names.
    pub topic: Topic,
    /// Offset of its first message in its stream, as the broker says.
    pub offset: Option<u64>,
    /// When the broker says that it accepted it, milliseconds since 1970.
    pub broker_ms: u64,
    /// The batch's bytes.
    pub batch: Bytes,
}

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
    requests: HashMap<RequestId, Awaited>,
    request_next: u32,
    subscriptions: HashMap<SubscriptionId, Subscription>,
    subscription_next: u32,
    delivery_topics: HashMap<Alias, Topic>,
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

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Awaited {
    Opened,
    Ack,
    Ready(SubscriptionId),
    Binding,
    AdminResult,
}

impl ClientSession {
    /// A session whose connection has just passed TLS.
    #[must_use]
    pub fn new_at(now: Tick) -> Self {
        Self {
            state: State::Start,
            link: Link::new_at(now),
            requests: HashMap::new(),
            request_next: 1,
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
                self.answered(opened.request, Awaited::Opened)?;
                ClientEvent::Opened(opened)
            }
            BrokerFrame::Ack(ack) => {
                self.answered(ack.request, Awaited::Ack)?;
                ClientEvent::Ack(ack)
            }
            BrokerFrame::Refused(refused) => {
                let awaited = self.requests.remove(&refused.request);
                if let Awaited::Ready(id) = awaited.ok_or(SessionError::UnknownRequest(refused.request))? {
                    self.subscriptions.remove(&id);
                }
                ClientEvent::Refused(refused)
            }
            BrokerFrame::Ready(ready) => {
                self.answered(ready.request, Awaited::Ready(ready.subscription))?;
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
            BrokerFrame::Generation(generation) => ClientEvent::Generation(generation),
            BrokerFrame::Binding(binding) => {
                if let Some(request) = binding.request {
                    self.answered(request, Awaited::Binding)?;
                }
                ClientEvent::Binding(binding)
            }
            BrokerFrame::AdminResult(result) => {
                self.answered(result.request, Awaited::AdminResult)?;
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
        let topic = match deliver.topic {
            Some(_) if deliver.alias.0 >= DELIVERY_ALIASES_MAX => {
                return Err(SessionError::UnknownAlias(deliver.alias));
            }
            Some(topic) => {
                self.delivery_topics.insert(deliver.alias, topic.clone());
                topic
            }
            None => {
                let known = self.delivery_topics.get(&deliver.alias);
                known.ok_or(SessionError::UnknownAlias(deliver.alias))?.clone()
            }
        };
        Ok((state == Subscription::Open).then_some(Delivered {
            subscription: deliver.subscription,
            topic,
            offset: deliver.offset,
            broker_ms: deliver.broker_ms,
            batch: deliver.batch,
        }))
    }

    fn handle_closed(&mut self, what: What) -> Result<(), SessionError> {
        match what {
            What::Alias(_) => Ok(()),
            What::Subscription(id) => {
                self.subscriptions.remove(&id).map(drop).ok_or(SessionError::UnknownSubscription(id))
            }
        }
    }

    /// Asks for an alias to publish to a topic.
    ///
    /// # Errors
    /// [`SessionError::TooManyRequests`].
    pub fn open(&mut self, topic: Topic) -> Result<RequestId, SessionError> {
        let request = self.request(Awaited::Opened)?;
        self.link.outgoing.push(&Open { request, topic });
        Ok(request)
    }

    /// Sends a batch.
    ///
    /// # Errors
    /// [`SessionError::TooManyRequests`].
    pub fn publish(&mut self, alias: Alias, batch: Bytes) -> Result<RequestId, SessionError> {
        let request = self.request(Awaited::Ack)?;
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
        if self.subscriptions.len() >= SUBSCRIPTIONS_PER_CONNECTION_MAX {
            return Err(SessionError::TooManySubscriptions);
        }
        let mut subscription = SubscriptionId(self.subscription_next);
        while self.subscriptions.contains_key(&subscription) {
            subscription = SubscriptionId(subscription.0.wrapping_add(1));
        }
        let request = self.request(Awaited::Ready(subscription))?;
        self.subscription_next = subscription.0.wrapping_add(1);
        self.subscriptions.insert(subscription, Subscription::Opening);
        self.link.outgoing.push(&Subscribe { request, subscription, credit_bytes, filter });
        Ok((request, subscription))
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
        let request = self.request(Awaited::Binding)?;
        self.link.outgoing.push(&BindingGet { request, kid });
        Ok(request)
    }

    /// Sends an administrative request.
    ///
    /// # Errors
    /// [`SessionError::TooManyRequests`].
    pub fn admin(&mut self, operation: Operation) -> Result<RequestId, SessionError> {
        let request = self.request(Awaited::AdminResult)?;
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

    /// The next request id that is free; 0 means "not asked for" on the wire and is never used.
    fn request(&mut self, awaited: Awaited) -> Result<RequestId, SessionError> {
        if self.requests.len() >= REQUESTS_OUTSTANDING_MAX {
            return Err(SessionError::TooManyRequests);
        }
        let mut request = RequestId(self.request_next);
        while request.0 == 0 || self.requests.contains_key(&request) {
            request = RequestId(request.0.wrapping_add(1));
        }
        self.request_next = request.0.wrapping_add(1);
        self.requests.insert(request, awaited);
        Ok(request)
    }

    fn answered(&mut self, request: RequestId, awaited: Awaited) -> Result<(), SessionError> {
        if self.requests.get(&request) != Some(&awaited) {
            return Err(SessionError::UnknownRequest(request));
        }
        self.requests.remove(&request);
        Ok(())
    }
}
