//! The broker's half of a session.

use std::collections::HashMap;

use bytes::{Bytes, BytesMut};

use crate::batch::accept::ResumePoint;
use crate::frame::{
    Ack, AdminResult, Alias, BindingReply, CheckpointReply, ClientFrame, Close, Closed, Deliver, Drain,
    ErrorFrame, FrameType, Generation, Hello, Lagged, Narrowed, Opened, Publish, Ready, RecordRange, Refused,
    RequestId, Settle, Settled, Skipped, StreamStart, SubscriptionId, Sync, Welcome, What,
};
use crate::ids::StreamId;
use crate::limits::{REQUESTS_OUTSTANDING_MAX, SUBSCRIPTIONS_PER_CONNECTION_MAX};
use crate::refusal::{Code, Refusal};

use super::broker_event::BrokerEvent;
use super::delivery::{Delivery, DeliveryAliases};
use super::error::SessionError;
use super::link::Link;
use super::outgoing::Outgoing;
use super::publish_aliases::PublishAliases;
use super::tick::Tick;

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
    publish_aliases: PublishAliases,
    subscriptions: HashMap<SubscriptionId, Subscription>,
    delivery_aliases: DeliveryAliases,
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

/// Credit may be overdrawn by one batch, so it is signed.
#[derive(Debug)]
struct Subscription {
    kind: Kind,
    credit: i64,
}

/// SUBSCRIBE, REPLAY and CONSUME share ids and credit; only what a durable consumer was given can be settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Live,
    Replay,
    Consumer,
}

impl BrokerSession {
    /// A session whose connection has just passed TLS.
    #[must_use]
    pub fn new_at(now: Tick) -> Self {
        Self {
            state: State::ExpectHello,
            link: Link::new_at(now),
            publish_aliases: PublishAliases::default(),
            subscriptions: HashMap::new(),
            delivery_aliases: DeliveryAliases::default(),
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
                self.publish_aliases.expect_open(alias)?;
                Ok(Some(BrokerEvent::Publish { request, alias, batch }))
            }
            ClientFrame::Subscribe(subscribe) => {
                self.begin(subscribe.request, subscribe.subscription, subscribe.credit_bytes, Kind::Live)?;
                Ok(Some(BrokerEvent::Subscribe(subscribe)))
            }
            ClientFrame::Replay(replay) => {
                self.begin(replay.request, replay.subscription, replay.credit_bytes, Kind::Replay)?;
                Ok(Some(BrokerEvent::Replay(replay)))
            }
            ClientFrame::Consume(consume) => {
                self.begin(consume.request, consume.subscription, consume.credit_bytes, Kind::Consumer)?;
                Ok(Some(BrokerEvent::Consume(consume)))
            }
            ClientFrame::Settle(settle) => self.handle_settle(settle),
            ClientFrame::Close(Close(what)) => self.handle_close(what),
            ClientFrame::Credit(credit) => {
                // A subscription that has just ended here may still be credited by a client that does not know it.
                let Some(subscription) = self.subscriptions.get_mut(&credit.subscription) else {
                    return Ok(None);
                };
                subscription.credit = subscription.credit.saturating_add(clamp_credit(credit.bytes));
                Ok(Some(BrokerEvent::Credit(credit)))
            }
            ClientFrame::BindingGet(get) => {
                self.expect_answer(get.request)?;
                Ok(Some(BrokerEvent::BindingGet(get)))
            }
            ClientFrame::CheckpointGet(get) => {
                self.expect_answer(get.request)?;
                Ok(Some(BrokerEvent::CheckpointGet(get)))
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

    /// SUBSCRIBE, REPLAY or CONSUME: the subscription exists from here on, and has its first credit.
    fn begin(
        &mut self,
        request: RequestId,
        id: SubscriptionId,
        credit_bytes: u64,
        kind: Kind,
    ) -> Result<(), SessionError> {
        self.expect_answer(request)?;
        if self.subscriptions.contains_key(&id) {
            return Err(SessionError::SubscriptionInUse(id));
        }
        if self.subscriptions.len() >= SUBSCRIPTIONS_PER_CONNECTION_MAX {
            return Err(SessionError::TooManySubscriptions);
        }
        self.subscriptions.insert(id, Subscription { kind, credit: clamp_credit(credit_bytes) });
        Ok(())
    }

    /// What a client that wants no answer says of a subscription that has just ended here is nobody's business any
    /// more: its deliveries are given out again.
    fn handle_settle(&mut self, settle: Settle) -> Result<Option<BrokerEvent>, SessionError> {
        match settle.sync {
            Sync::Yes => self.expect_answer(settle.request)?,
            Sync::No if settle.request.is_awaited() => {
                return Err(SessionError::UnknownRequest(settle.request));
            }
            Sync::No => {}
        }
        match self.subscriptions.get(&settle.subscription).map(|subscription| subscription.kind) {
            Some(Kind::Consumer) => Ok(Some(BrokerEvent::Settle(settle))),
            Some(Kind::Live | Kind::Replay) => Err(SessionError::NotAConsumer(settle.subscription)),
            None => {
                if settle.sync == Sync::Yes {
                    let reason = format!("settle: subscription {} has ended", settle.subscription);
                    self.refuse(settle.request, Refusal::new(Code::Session, reason));
                }
                Ok(None)
            }
        }
    }

    /// A subscription that is not there has just been ended by this side, and its CLOSED is on the way: CLOSE is not
    /// answered with a second one.
    fn handle_close(&mut self, what: What) -> Result<Option<BrokerEvent>, SessionError> {
        match what {
            What::Alias(alias) => self.publish_aliases.close(alias)?,
            What::Subscription(id) => {
                if self.subscriptions.remove(&id).is_none() {
                    return Ok(None);
                }
            }
        }
        self.link.outgoing.push(&Closed(what));
        Ok(Some(BrokerEvent::Close(what)))
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
        let alias = self.publish_aliases.open()?;
        self.answered();
        self.link.outgoing.push(&Opened { request, alias, stream, resume });
        Ok(alias)
    }

    /// Acknowledges a batch.
    pub fn ack(&mut self, ack: &Ack) {
        self.answered();
        self.link.outgoing.push(ack);
    }

    /// Refuses a request, also one that wants no answer.
    pub fn refuse(&mut self, request: RequestId, refusal: Refusal) {
        if request.is_awaited() {
            self.answered();
        }
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

    /// A subscription is in effect. `start` says where a replay or durable consumer begins.
    pub fn ready(
        &mut self,
        request: RequestId,
        subscription: SubscriptionId,
        narrowed: Narrowed,
        generation: u64,
        start: Option<StreamStart>,
    ) {
        self.answered();
        self.link.outgoing.push(&Ready { request, subscription, narrowed, generation, start });
    }

    /// Ends a subscription that is READY: a replay has come to its end, or the right to it is gone. What its client
    /// still says of it is ignored. Nothing is sent when it has been closed meanwhile.
    pub fn close_subscription(&mut self, subscription: SubscriptionId) {
        if self.subscriptions.remove(&subscription).is_some() {
            self.link.outgoing.push(&Closed(What::Subscription(subscription)));
        }
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
        let (alias, topic) = self.delivery_aliases.alias_of(delivery.topic, delivery.stream);
        self.link.outgoing.push(&Deliver {
            subscription: delivery.subscription,
            alias,
            offset: delivery.offset,
            broker_ms: delivery.broker_ms,
            topic,
            stored: delivery.stored,
            ranges: delivery.ranges.map(<[RecordRange]>::to_vec),
            batch: delivery.batch.clone(),
        });
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

    /// Says which offsets a replay or durable consumer does not get. Nothing is sent when it has been closed meanwhile.
    pub fn skipped(&mut self, skipped: &Skipped) {
        if self.subscriptions.contains_key(&skipped.subscription) {
            self.link.outgoing.push(skipped);
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

    /// Answers a SETTLE that wants to know when it is on the disk.
    pub fn settled(&mut self, request: RequestId) {
        self.answered();
        self.link.outgoing.push(&Settled { request });
    }

    /// Answers a request for a stream's checkpoint.
    pub fn checkpoint(&mut self, reply: &CheckpointReply) {
        self.answered();
        self.link.outgoing.push(reply);
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

    /// 0 is not a request: in BINDING it stands for "not asked for". Ids with the highest bit are of requests that are
    /// not answered.
    fn expect_answer(&mut self, request: RequestId) -> Result<(), SessionError> {
        if request.0 == 0 || !request.is_awaited() {
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
