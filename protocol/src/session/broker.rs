//! The broker's half of a session.

use std::collections::HashMap;

use bytes::{Bytes, BytesMut};

use crate::batch::accept::ResumePoint;
use crate::frame::{
    Ack, AdminRequest, AdminResult, Alias, BindingGet, BindingReply, ClientFrame, Close, Closed, Deliver,
    Drain, ErrorFrame, FrameType, Generation, Hello, Lagged, Later, Narrowed, Opened, Publish, Ready,
    Refused, RequestId, Subscribe, SubscriptionId, Welcome, What,
};
use crate::ids::StreamId;
use crate::limits::{
    DELIVERY_ALIASES_MAX, REQUESTS_OUTSTANDING_MAX, SUBSCRIPTIONS_PER_CONNECTION_MAX,
    TOPICS_PER_CONNECTION_MAX,
};
use crate::refusal::Refusal;
use crate::topic::Topic;

use super::error::SessionError;
use super::link::Link;
use super::outgoing::Outgoing;
use super::tick::Tick;

/// What a client asks of the broker. Each event that carries a request id is answered exactly once.
#[derive(Debug)]
pub enum BrokerEvent {
    /// The client says who it is. Answered by [`BrokerSession::welcome`] or [`BrokerSession::fail`].
    Hello(Box<Hello>),
    /// It wants to publish to a topic. Answered by [`BrokerSession::opened`] or [`BrokerSession::refuse`].
    Open {
        /// The request.
        request: RequestId,
        /// The topic.
        topic: Topic,
    },
    /// A batch. Answered by [`BrokerSession::ack`] or [`BrokerSession::refuse`].
    Publish {
        /// The request.
        request: RequestId,
        /// An open alias.
        alias: Alias,
        /// The batch's bytes, not yet looked at.
        batch: Bytes,
    },
    /// It wants live messages. Answered by [`BrokerSession::ready`] or [`BrokerSession::refuse_subscription`].
    Subscribe(Subscribe),
    /// A request of a later version. Answered by [`BrokerSession::refuse`].
    Later(Later),
    /// A publish alias or a subscription ends. CLOSED has been queued; nothing may be delivered on it any more.
    Close(What),
    /// More may be delivered on a subscription.
    Credit(SubscriptionId),
    /// It wants a key binding. Answered by [`BrokerSession::binding`] or [`BrokerSession::refuse`].
    BindingGet(BindingGet),
    /// It administers. Answered by [`BrokerSession::admin_result`] or [`BrokerSession::refuse`].
    Admin(AdminRequest),
    /// It gives up, for this reason; the connection ends.
    Failed(Refusal),
}

/// A batch on its way to a subscription.
#[derive(Debug, Clone)]
pub struct Delivery<'a> {
    /// The subscription.
    pub subscription: SubscriptionId,
    /// Its topic.
    pub topic: &'a Topic,
    /// Offset of its first message in its stream; none when it is live only.
    pub offset: Option<u64>,
    /// The broker's clock when it was accepted, milliseconds since 1970.
    pub broker_ms: u64,
    /// The batch, as its producer sent it.
    pub batch: &'a Bytes,
}

/// The broker's half of a session.
///
/// ```text
///   ExpectHello --Hello--> Judging --welcome--> Serving --drain--> Draining
///        |                    |                    |                  |
///        '---------- error ---'--------------------'--- error, fail --'--> Ended
/// ```
#[derive(Debug)]
pub struct BrokerSession {
    state: State,
    link: Link,
    /// Which publish aliases are open; the alias is the index.
    aliases: Vec<Slot>,
    free_aliases: Vec<u32>,
    subscriptions: HashMap<SubscriptionId, Subscription>,
    delivery_aliases: HashMap<Topic, Alias>,
    delivery_topics: Vec<Topic>,
    delivery_next: usize,
    unanswered: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    ExpectHello,
    Judging,
    Serving,
    Draining,
    Ended,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slot {
    Open,
    Free,
}

/// Credit may be overdrawn by one batch, so it is signed.
#[derive(Debug)]
struct Subscription {
    credit: i64,
}

impl BrokerSession {
    /// A session whose connection has just passed TLS.
    #[must_use]
    pub fn new_at(now: Tick) -> Self {
        Self {
            state: State::ExpectHello,
            link: Link::new_at(now),
            aliases: Vec::new(),
            free_aliases: Vec::new(),
            subscriptions: HashMap::new(),
            delivery_aliases: HashMap::new(),
            delivery_topics: Vec::new(),
            delivery_next: 0,
            unanswered: 0,
        }
    }

    /// Where received bytes are appended, at most [`BrokerSession::space_len`] of them.
    pub fn space(&mut self) -> &mut BytesMut {
        self.link.space()
    }

    /// Bytes that [`BrokerSession::space`] takes now.
    #[must_use]
    pub fn space_len(&self) -> usize {
        self.link.deframer.space_len()
    }

    /// Bytes were appended; [`BrokerSession::poll_event`] says what they mean.
    pub fn handle_input_at(&mut self, now: Tick) {
        self.link.handle_input_at(now);
    }

    /// The next thing that the client asks; none when more bytes are needed, or while HELLO is being judged.
    ///
    /// # Errors
    /// [`SessionError`] when the client breaks the protocol. Nothing further is read; [`BrokerSession::fail`] tells
    /// it why.
    pub fn poll_event(&mut self) -> Result<Option<BrokerEvent>, SessionError> {
        while !matches!(self.state, State::Judging | State::Ended) {
            let Some(raw) = self.link.poll_frame()? else { return Ok(None) };
            let kind = raw.header.kind;
            if self.state == State::ExpectHello && !matches!(kind, FrameType::Hello | FrameType::Error) {
                return Err(SessionError::Unexpected { kind, awaited: "HELLO" });
            }
            if let Some(event) = self.handle_frame(ClientFrame::decode(&raw)?)? {
                return Ok(Some(event));
            }
        }
        Ok(None)
    }

    fn handle_frame(&mut self, frame: ClientFrame) -> Result<Option<BrokerEvent>, SessionError> {
        match frame {
            ClientFrame::Hello(hello) => self.handle_hello(hello).map(Some),
            ClientFrame::Open(open) => {
                self.expect_answer(open.request)?;
                Ok(Some(BrokerEvent::Open { request: open.request, topic: open.topic }))
            }
            ClientFrame::Publish(Publish { request, alias, batch }) => {
                self.expect_answer(request)?;
                self.open_slot(alias)?;
                Ok(Some(BrokerEvent::Publish { request, alias, batch }))
            }
            ClientFrame::Subscribe(subscribe) => self.handle_subscribe(subscribe).map(Some),
            ClientFrame::Later(later) => {
                self.expect_answer(later.request)?;
                Ok(Some(BrokerEvent::Later(later)))
            }
            ClientFrame::Close(Close(what)) => self.handle_close(what).map(Some),
            ClientFrame::Credit(credit) => {
                // A subscription that was just refused may still be credited by a client that does not know it.
                let Some(subscription) = self.subscriptions.get_mut(&credit.subscription) else {
                    return Ok(None);
                };
                subscription.credit = subscription.credit.saturating_add(clamp_credit(credit.bytes));
                Ok(Some(BrokerEvent::Credit(credit.subscription)))
            }
            ClientFrame::BindingGet(get) => {
                self.expect_answer(get.request)?;
                Ok(Some(BrokerEvent::BindingGet(get)))
            }
            ClientFrame::Admin(admin) => {
                self.expect_answer(admin.request)?;
                Ok(Some(BrokerEvent::Admin(admin)))
            }
            ClientFrame::Ping(nonce) => {
                self.link.pong(nonce);
                Ok(None)
            }
            ClientFrame::Pong(_) => Ok(None),
            ClientFrame::Error(ErrorFrame(refusal)) => {
                self.state = State::Ended;
                Ok(Some(BrokerEvent::Failed(refusal)))
            }
        }
    }

    fn handle_hello(&mut self, hello: Box<Hello>) -> Result<BrokerEvent, SessionError> {
        if self.state != State::ExpectHello {
            return Err(SessionError::Unexpected {
                kind: FrameType::Hello,
                awaited: "anything but a second HELLO",
            });
        }
        self.state = State::Judging;
        Ok(BrokerEvent::Hello(hello))
    }

    fn handle_subscribe(&mut self, subscribe: Subscribe) -> Result<BrokerEvent, SessionError> {
        self.expect_answer(subscribe.request)?;
        if self.subscriptions.contains_key(&subscribe.subscription) {
            return Err(SessionError::SubscriptionInUse(subscribe.subscription));
        }
        if self.subscriptions.len() >= SUBSCRIPTIONS_PER_CONNECTION_MAX {
            return Err(SessionError::TooManySubscriptions);
        }
        let credit = clamp_credit(subscribe.credit_bytes);
        self.subscriptions.insert(subscribe.subscription, Subscription { credit });
        Ok(BrokerEvent::Subscribe(subscribe))
    }

    fn handle_close(&mut self, what: What) -> Result<BrokerEvent, SessionError> {
        match what {
            What::Alias(alias) => {
                *self.open_slot(alias)? = Slot::Free;
                self.free_aliases.push(alias.0);
            }
            What::Subscription(id) => {
                self.subscriptions.remove(&id).ok_or(SessionError::UnknownSubscription(id))?;
            }
        }
        self.link.outgoing.push(&Closed(what));
        Ok(BrokerEvent::Close(what))
    }

    /// HELLO has been judged good: the session serves from here on.
    ///
    /// # Panics
    /// When no HELLO is being judged.
    pub fn welcome(&mut self, welcome: &Welcome) {
        assert_eq!(self.state, State::Judging, "WELCOME answers HELLO");
        self.state = State::Serving;
        self.link.greeted();
        self.link.outgoing.push(welcome);
    }

    /// Grants an alias for a topic. Aliases are small numbers, used again after CLOSE.
    ///
    /// # Errors
    /// [`SessionError::TooManyTopics`]; the request is not answered then, and is to be refused.
    pub fn opened(
        &mut self,
        request: RequestId,
        stream: StreamId,
        resume: Option<ResumePoint>,
    ) -> Result<Alias, SessionError> {
        let alias = match self.free_aliases.pop() {
            Some(free) => Alias(free),
            None if self.aliases.len() >= TOPICS_PER_CONNECTION_MAX => {
                return Err(SessionError::TooManyTopics);
            }
            None => {
                self.aliases.push(Slot::Free);
                Alias(u32::try_from(self.aliases.len() - 1).expect("aliases are bounded by their limit"))
            }
        };
        if let Some(slot) = self.slot(alias) {
            *slot = Slot::Open;
        }
        self.answered();
        self.link.outgoing.push(&Opened { request, alias, stream, resume });
        Ok(alias)
    }

    /// Acknowledges a batch.
    pub fn ack(&mut self, ack: &Ack) {
        self.answered();
        self.link.outgoing.push(ack);
    }

    /// Refuses a request.
    pub fn refuse(&mut self, request: RequestId, refusal: Refusal) {
        self.answered();
        self.link.outgoing.push(&Refused { request, refusal });
    }

    /// Refuses a subscription and forgets it.
    pub fn refuse_subscription(
        &mut self,
        request: RequestId,
        subscription: SubscriptionId,
        refusal: Refusal,
    ) {
        self.subscriptions.remove(&subscription);
        self.refuse(request, refusal);
    }

    /// A subscription is in effect.
    pub fn ready(
        &mut self,
        request: RequestId,
        subscription: SubscriptionId,
        narrowed: Narrowed,
        generation: u64,
    ) {
        self.answered();
        self.link.outgoing.push(&Ready { request, subscription, narrowed, generation });
    }

    /// Whether a subscription exists and has credit left.
    #[must_use]
    pub fn has_credit(&self, subscription: SubscriptionId) -> bool {
        self.subscriptions.get(&subscription).is_some_and(|subscription| subscription.credit > 0)
    }

    /// Delivers a batch, overdrawing the credit by at most this one. Nothing is sent when the subscription has been
    /// closed meanwhile.
    pub fn deliver(&mut self, delivery: &Delivery<'_>) {
        let Some(subscription) = self.subscriptions.get_mut(&delivery.subscription) else { return };
        subscription.credit = subscription.credit.saturating_sub_unsigned(delivery.batch.len() as u64);
        let (alias, topic) = self.delivery_alias(delivery.topic);
        self.link.outgoing.push(&Deliver {
            subscription: delivery.subscription,
            alias,
            offset: delivery.offset,
            broker_ms: delivery.broker_ms,
            topic,
            batch: delivery.batch.clone(),
        });
    }

    /// The alias of a delivered topic, with the topic when the alias is given now. When all are in use the next one
    /// in turn is given anew.
    fn delivery_alias(&mut self, topic: &Topic) -> (Alias, Option<Topic>) {
        if let Some(alias) = self.delivery_aliases.get(topic) {
            return (*alias, None);
        }
        let index = self.delivery_next;
        let alias = Alias(u32::try_from(index).expect("aliases are bounded by their limit"));
        self.delivery_next = (index + 1) % DELIVERY_ALIASES_MAX as usize;
        match self.delivery_topics.get_mut(index) {
            Some(previous) => {
                self.delivery_aliases.remove(&std::mem::replace(previous, topic.clone()));
            }
            None => self.delivery_topics.push(topic.clone()),
        }
        self.delivery_aliases.insert(topic.clone(), alias);
        (alias, Some(topic.clone()))
    }

    /// Delivered topics that have an alias now.
    #[must_use]
    pub fn delivery_alias_count(&self) -> usize {
        self.delivery_aliases.len()
    }

    /// Says how many messages a subscription lost. Nothing is sent when it has been closed meanwhile.
    pub fn lagged(&mut self, subscription: SubscriptionId, missed: u64) {
        if missed > 0 && self.subscriptions.contains_key(&subscription) {
            self.link.outgoing.push(&Lagged { subscription, missed });
        }
    }

    /// Marks the place from which on a policy holds.
    pub fn generation(&mut self, generation: &Generation) {
        self.link.outgoing.push(generation);
    }

    /// Sends a key binding, ahead of its key's first delivery.
    pub fn announce_binding(&mut self, binding: Bytes) {
        self.link.outgoing.push(&BindingReply { request: None, binding });
    }

    /// Answers a request for a key binding.
    pub fn binding(&mut self, request: RequestId, binding: Bytes) {
        self.answered();
        self.link.outgoing.push(&BindingReply { request: Some(request), binding });
    }

    /// Answers an administrative request.
    pub fn admin_result(&mut self, result: &AdminResult) {
        self.answered();
        self.link.outgoing.push(result);
    }

    /// Says that the broker is shutting down. The client may still be answered; it should not ask more.
    pub fn drain(&mut self, deadline_ms: u32) {
        if self.state == State::Serving {
            self.state = State::Draining;
            self.link.outgoing.push(&Drain { deadline_ms });
        }
    }

    /// Ends the session: the reason is the last frame, nothing further is read.
    pub fn fail(&mut self, refusal: Refusal) {
        if self.state != State::Ended {
            self.state = State::Ended;
            self.link.outgoing.push(&ErrorFrame(refusal));
        }
    }

    /// Whether the session has ended: what is in [`BrokerSession::outgoing`] is written, then the connection closed.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        self.state == State::Ended
    }

    /// Requests that have not been answered.
    #[must_use]
    pub const fn unanswered(&self) -> usize {
        self.unanswered
    }

    /// The bytes to write.
    pub fn outgoing(&mut self) -> &mut Outgoing {
        &mut self.link.outgoing
    }

    /// When [`BrokerSession::handle_timeout_at`] wants to be called next.
    #[must_use]
    pub fn poll_timeout(&self) -> Tick {
        self.link.poll_timeout()
    }

    /// Pings a silent client.
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

    fn slot(&mut self, alias: Alias) -> Option<&mut Slot> {
        self.aliases.get_mut(usize::try_from(alias.0).ok()?)
    }

    fn open_slot(&mut self, alias: Alias) -> Result<&mut Slot, SessionError> {
        self.slot(alias).filter(|slot| **slot == Slot::Open).ok_or(SessionError::UnknownAlias(alias))
    }

    /// 0 is not a request: in BINDING it stands for "not asked for".
    fn expect_answer(&mut self, request: RequestId) -> Result<(), SessionError> {
        if request.0 == 0 {
            return Err(SessionError::UnknownRequest(request));
        }
        if self.unanswered >= REQUESTS_OUTSTANDING_MAX {
            return Err(SessionError::TooManyRequests);
        }
        self.unanswered += 1;
        Ok(())
    }

    fn answered(&mut self) {
        self.unanswered = self.unanswered.saturating_sub(1);
    }
}

fn clamp_credit(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
