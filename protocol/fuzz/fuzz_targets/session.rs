//! Two halves in a box, driven by a list of operations, with the bytes between them cut anywhere and sometimes
//! changed: no panic, and the limits hold. While no byte was changed, neither half finds fault with the other.

#![no_main]

use std::collections::{BTreeSet, VecDeque};
use std::num::NonZeroU32;

use arbitrary::Arbitrary;
use bytes::{Buf as _, Bytes};
use libfuzzer_sys::fuzz_target;
use sealbus_protocol::batch::accept::{Durability, Receipt, ResumePoint};
use sealbus_protocol::frame::{
    Ack, AdminResult, Alias, CheckpointReply, ConsumerKey, ConsumerSettings, Freshness, Generation, Hello,
    IncarnationState, InstanceKind, Limits, Narrowed, Operation, Outcome, RecordRange, RequestId, SettleItem,
    Settlement, Skipped, SkippedWhy, Start, StoredAt, StreamStart, SubscriptionId, Sync, Until, Welcome,
    What,
};
use sealbus_protocol::identity::Principal;
use sealbus_protocol::ids::{BusId, IncarnationId, InstanceId, Kid, PolicyHash, PreambleDigest, StreamId};
use sealbus_protocol::limits::{DELIVERY_ALIASES_MAX, FRAME_BYTES_MAX, REQUESTS_OUTSTANDING_MAX};
use sealbus_protocol::policy::Name;
use sealbus_protocol::refusal::{Code, Refusal};
use sealbus_protocol::session::{
    BrokerEvent, BrokerSession, ClientEvent, ClientSession, Delivery, MINOR, Outgoing, SessionError, Tick,
};
use sealbus_protocol::stream_name::StreamName;
use sealbus_protocol::topic::{Topic, TopicFilter};

const BEGIN: StreamStart = StreamStart { stream_id: StreamId::new([1; 16]), offset: 0, end: 1 };

const TOPICS: [&str; 4] = ["a", "a/b", "b", "$sys"];

#[derive(Debug, Arbitrary)]
enum Act {
    /// The client does something.
    Client(ClientAct),
    /// The broker does something unasked.
    Broker(BrokerAct),
    /// The broker answers one of the requests that wait.
    Answer { which: u8, refused: bool },
    /// Some bytes arrive.
    Move { to: Side, bytes: u16, change: Option<(u16, u8)> },
    /// Time passes.
    Pass { ms: u16 },
}

#[derive(Debug, Clone, Copy, Arbitrary)]
enum Side {
    Client,
    Broker,
}

#[derive(Debug, Arbitrary)]
enum ClientAct {
    Open { topic: u8 },
    Publish { alias: u8, len: u16 },
    Subscribe { credit_bytes: u64 },
    Replay { credit_bytes: u64, offset: u64 },
    Consume { credit_bytes: u64 },
    Settle { subscription: u8, offset: u64, delay_ms: Option<u32>, sync: bool },
    CheckpointGet { old_size: u64, leaf_index: Option<u64> },
    Credit { subscription: u8, bytes: u64 },
    CloseAlias { alias: u8 },
    CloseSubscription { subscription: u8 },
    BindingGet,
    Admin,
    Release,
    Fail,
}

#[derive(Debug, Arbitrary)]
enum BrokerAct {
    Deliver {
        subscription: u8,
        topic: u16,
        len: u16,
        offset: Option<u32>,
        stream: u8,
        leaf_index: Option<u32>,
    },
    Skipped {
        subscription: u8,
        from: u32,
    },
    CloseSubscription {
        subscription: u8,
    },
    RefuseSettle,
    Lagged {
        subscription: u8,
        missed: u64,
    },
    Generation,
    Binding,
    Drain,
    Release,
    Fail,
}

/// A request as the broker holds it until it answers.
enum Waiting {
    Open(RequestId),
    Publish(RequestId),
    Subscribe(RequestId, SubscriptionId, Option<StreamStart>),
    Settle(RequestId),
    CheckpointGet(RequestId),
    BindingGet(RequestId),
    Admin(RequestId),
}

/// Both halves, and what their owners know.
struct Pair {
    client: ClientSession,
    broker: BrokerSession,
    now: Tick,
    judging: bool,
    serving: bool,
    changed: bool,
    waiting: VecDeque<Waiting>,
    ready: BTreeSet<SubscriptionId>,
    /// The last SETTLE that wanted no answer.
    settled: Option<RequestId>,
    aliases: Vec<Alias>,
    subscriptions: Vec<SubscriptionId>,
    consumers: BTreeSet<SubscriptionId>,
}

fuzz_target!(|acts: Vec<Act>| {
    let mut pair = Pair::new();
    pair.client.hello(&hello());
    for act in acts.iter().take(512) {
        if pair.apply(act).is_err() {
            return;
        }
        pair.check_limits();
    }
});

/// A session has ended, as it must; the owners let go of it.
struct Over;

impl Pair {
    fn new() -> Self {
        Self {
            client: ClientSession::new_at(Tick(0)),
            broker: BrokerSession::new_at(Tick(0)),
            now: Tick(0),
            judging: false,
            serving: false,
            changed: false,
            waiting: VecDeque::new(),
            ready: BTreeSet::new(),
            settled: None,
            aliases: Vec::new(),
            subscriptions: Vec::new(),
            consumers: BTreeSet::new(),
        }
    }

    fn apply(&mut self, act: &Act) -> Result<(), Over> {
        match act {
            Act::Client(act) if self.serving && !self.client.is_ended() => self.client_acts(act),
            Act::Broker(act) if self.serving && !self.broker.is_ended() => {
                self.broker_acts(act);
                Ok(())
            }
            Act::Answer { which, refused } => self.answer(*which, *refused),
            Act::Move { to, bytes, change } => self.bytes_arrive(*to, usize::from(*bytes), *change),
            // The handshake has a deadline of its own, well before anybody pings.
            Act::Pass { ms } if self.serving => self.time_passes(u64::from(*ms)),
            Act::Client(_) | Act::Broker(_) | Act::Pass { .. } => Ok(()),
        }
    }

    fn client_acts(&mut self, act: &ClientAct) -> Result<(), Over> {
        let sent = match act {
            ClientAct::Open { topic } => self.client.open(topic_of(u16::from(*topic))).map(drop),
            ClientAct::Publish { alias, len } => match pick(&self.aliases, *alias) {
                Some(alias) => self.client.publish(alias, vec![7; usize::from(*len)].into()).map(drop),
                None => Ok(()),
            },
            ClientAct::Subscribe { credit_bytes } => {
                let filter = TopicFilter::parse("#").expect("a filter");
                self.client.subscribe(filter, *credit_bytes).map(|(_, id)| self.subscriptions.push(id))
            }
            ClientAct::Replay { credit_bytes, offset } => {
                let (stream, from) = (StreamName::from(name("orders")), Start::Offset(*offset));
                let begun = self.client.replay(stream, from, Until::End, None, *credit_bytes);
                begun.map(|(_, id)| self.subscriptions.push(id))
            }
            ClientAct::Consume { credit_bytes } => {
                let key = ConsumerKey { stream: name("orders"), consumer: name("billing") };
                let settings = ConsumerSettings::default();
                let begun = self.client.consume(key, Start::End, settings, None, *credit_bytes);
                begun.map(|(_, id)| {
                    self.subscriptions.push(id);
                    self.consumers.insert(id);
                })
            }
            ClientAct::Settle { subscription, offset, delay_ms, sync } => {
                let consumers: Vec<SubscriptionId> = self.consumers.iter().copied().collect();
                let Some(id) = pick(&consumers, *subscription) else { return Ok(()) };
                let settlement = delay_ms.map_or(Settlement::Ack, |delay_ms| Settlement::Nack { delay_ms });
                let offset = offset.saturating_sub(1);
                let items = vec![SettleItem { offset, count: NonZeroU32::MIN, settlement }];
                self.client.settle(id, items, if *sync { Sync::Yes } else { Sync::No }).map(drop)
            }
            ClientAct::CheckpointGet { old_size, leaf_index } => {
                let leaf_index = leaf_index.filter(|index| *index < u64::MAX);
                self.client.checkpoint_get(name("orders").into(), *old_size, leaf_index).map(drop)
            }
            ClientAct::Credit { subscription, bytes } => {
                if let Some(id) = pick(&self.subscriptions, *subscription) {
                    self.client.credit(id, *bytes);
                }
                Ok(())
            }
            ClientAct::CloseAlias { alias } => {
                if let Some(alias) = pick(&self.aliases, *alias) {
                    self.aliases.retain(|open| *open != alias);
                    self.client.close_alias(alias);
                }
                Ok(())
            }
            ClientAct::CloseSubscription { subscription } => {
                if let Some(id) = pick(&self.subscriptions, *subscription) {
                    self.client.close_subscription(id);
                }
                Ok(())
            }
            ClientAct::BindingGet => self.client.binding_get(Kid::ZERO).map(drop),
            ClientAct::Admin => self.client.admin(Operation::PolicyReload).map(drop),
            ClientAct::Release => {
                self.client.release();
                Ok(())
            }
            ClientAct::Fail => {
                self.client.fail(Refusal::new(Code::Internal, "the client gives up"));
                Ok(())
            }
        };
        match sent {
            Ok(()) => Ok(()),
            Err(SessionError::TooManyRequests | SessionError::TooManySubscriptions) => Ok(()),
            Err(error) => panic!("a client's own act: {error}"),
        }
    }

    fn broker_acts(&mut self, act: &BrokerAct) {
        match act {
            BrokerAct::Deliver { subscription, topic, len, offset, stream, leaf_index } => {
                let Some(subscription) = self.pick_ready(*subscription) else { return };
                let topic = topic_of(*topic);
                let batch = Bytes::from(vec![9; usize::from(*len)]);
                let offset = offset.map(u64::from);
                let stored = offset
                    .and(*leaf_index)
                    .map(|index| StoredAt { policy_version: 1, leaf_index: u64::from(index) });
                let one = NonZeroU32::MIN;
                let ranges = [RecordRange { first: u32::from(*len), count: one, deliveries: one }];
                self.broker.deliver(&Delivery {
                    subscription,
                    topic: &topic,
                    stream: StreamId::new([*stream % 2; 16]),
                    offset,
                    broker_ms: 1,
                    stored,
                    ranges: stored.map(|_| &ranges[..]),
                    batch: &batch,
                });
                let _ = self.broker.has_credit(subscription);
            }
            BrokerAct::Skipped { subscription, from } => {
                let Some(subscription) = self.pick_ready(*subscription) else { return };
                let from = u64::from(*from);
                self.broker.skipped(&Skipped { subscription, why: SkippedWhy::Trimmed, from, to: from + 1 });
            }
            BrokerAct::CloseSubscription { subscription } => {
                let Some(subscription) = self.pick_ready(*subscription) else { return };
                self.ready.remove(&subscription);
                self.broker.close_subscription(subscription);
            }
            BrokerAct::RefuseSettle => {
                let Some(request) = self.settled.take() else { return };
                self.broker.refuse(request, Refusal::new(Code::Denied, "the right is gone"));
            }
            BrokerAct::Lagged { subscription, missed } => {
                let Some(subscription) = self.pick_ready(*subscription) else { return };
                self.broker.lagged(subscription, *missed);
            }
            BrokerAct::Generation => {
                let policy_hash = PolicyHash::ZERO;
                self.broker.generation(&Generation { generation: 2, policy_version: 2, policy_hash });
            }
            BrokerAct::Binding => self.broker.announce_binding(Bytes::from_static(b"binding")),
            BrokerAct::Drain => self.broker.drain(1_000),
            BrokerAct::Release => self.broker.release(),
            BrokerAct::Fail => self.broker.fail(Refusal::new(Code::Draining, "the broker gives up")),
        }
    }

    fn pick_ready(&self, which: u8) -> Option<SubscriptionId> {
        let ready: Vec<SubscriptionId> = self.ready.iter().copied().collect();
        pick(&ready, which)
    }

    fn answer(&mut self, which: u8, refused: bool) -> Result<(), Over> {
        if self.judging {
            self.judging = false;
            if refused {
                self.broker.fail(Refusal::new(Code::Session, "the proof does not hold"));
            } else {
                self.broker.welcome(&welcome());
            }
            return Ok(());
        }
        if self.waiting.is_empty() || self.broker.is_ended() {
            return Ok(());
        }
        let index = usize::from(which) % self.waiting.len();
        let Some(waiting) = self.waiting.remove(index) else { return Ok(()) };
        let refusal = Refusal::new(Code::Denied, "no rule allows it");
        match waiting {
            Waiting::Subscribe(request, id, _) if refused => {
                self.broker.refuse_subscription(request, id, refusal);
            }
            Waiting::Open(request)
            | Waiting::Publish(request)
            | Waiting::Settle(request)
            | Waiting::CheckpointGet(request)
            | Waiting::BindingGet(request)
            | Waiting::Admin(request)
                if refused =>
            {
                self.broker.refuse(request, refusal);
            }
            Waiting::Open(request) => {
                let resume =
                    (which > 127).then_some(ResumePoint { next_seq: 1, last: PreambleDigest::new([1; 32]) });
                if let Err(error) = self.broker.opened(request, StreamId::ZERO, resume) {
                    assert_eq!(error, SessionError::TooManyTopics);
                    self.broker.fail(error.refusal());
                }
            }
            Waiting::Publish(request) => {
                let receipt = Receipt { durability: Durability::Live, offset: None };
                self.broker.ack(&Ack { request, receipt, freshness: Freshness::New, broker_ms: 1 });
            }
            Waiting::Subscribe(request, id, start) => {
                self.broker.ready(request, id, Narrowed::No, 1, start);
                self.ready.insert(id);
            }
            Waiting::Settle(request) => self.broker.settled(request),
            Waiting::CheckpointGet(request) => self.broker.checkpoint(&CheckpointReply {
                request,
                size: 1,
                prefix: Vec::new(),
                consistency: vec![[1; 32]; usize::from(which % 4)],
                inclusion: Vec::new(),
                note: "a note".into(),
            }),
            Waiting::BindingGet(request) => self.broker.binding(request, Bytes::from_static(b"binding")),
            Waiting::Admin(request) => {
                let outcome = Outcome::AuditLines { from: 0, next: 0, lines: Bytes::new() };
                self.broker.admin_result(&AdminResult { request, outcome });
            }
        }
        Ok(())
    }

    fn bytes_arrive(&mut self, to: Side, bytes: usize, change: Option<(u16, u8)>) -> Result<(), Over> {
        let (from, room) = match to {
            Side::Broker => (self.client.outgoing(), self.broker.space_len()),
            Side::Client => (self.broker.outgoing(), self.client.space_len()),
        };
        let mut moved = take(from, bytes.min(room));
        let over = match to {
            Side::Broker => self.broker.is_ended(),
            Side::Client => self.client.is_ended(),
        };
        if over {
            // The owner of a half that has ended reads no more: it writes what is queued, and closes.
            return Ok(());
        }
        if let (Some((at, value)), false) = (change, moved.is_empty()) {
            let at = usize::from(at) % moved.len();
            self.changed |= moved[at] != value;
            moved[at] = value;
        }
        let read = match to {
            Side::Broker => {
                self.broker.space().extend_from_slice(&moved);
                self.broker.handle_input_at(self.now);
                self.broker_reads()
            }
            Side::Client => {
                self.client.space().extend_from_slice(&moved);
                self.client.handle_input_at(self.now);
                self.client_reads()
            }
        };
        read.map_err(|error| {
            assert!(self.changed, "nothing was changed, and still: {error}");
            assert!(!error.refusal().reason().is_empty());
            Over
        })
    }

    fn broker_reads(&mut self) -> Result<(), SessionError> {
        while let Some(event) = self.broker.poll_event()? {
            match event {
                BrokerEvent::Hello(_) => self.judging = true,
                BrokerEvent::Open { request, .. } => self.waiting.push_back(Waiting::Open(request)),
                BrokerEvent::Publish { request, .. } => self.waiting.push_back(Waiting::Publish(request)),
                BrokerEvent::Subscribe(subscribe) => {
                    let waiting = Waiting::Subscribe(subscribe.request, subscribe.subscription, None);
                    self.waiting.push_back(waiting);
                }
                BrokerEvent::Replay(replay) => {
                    let waiting = Waiting::Subscribe(replay.request, replay.subscription, Some(BEGIN));
                    self.waiting.push_back(waiting);
                }
                BrokerEvent::Consume(consume) => {
                    let waiting = Waiting::Subscribe(consume.request, consume.subscription, Some(BEGIN));
                    self.waiting.push_back(waiting);
                }
                BrokerEvent::Settle(settle) => match settle.sync {
                    Sync::Yes => self.waiting.push_back(Waiting::Settle(settle.request)),
                    Sync::No => self.settled = Some(settle.request),
                },
                BrokerEvent::CheckpointGet(get) => {
                    self.waiting.push_back(Waiting::CheckpointGet(get.request));
                }
                BrokerEvent::Close(What::Subscription(id)) => drop(self.ready.remove(&id)),
                BrokerEvent::Close(What::Alias(_)) | BrokerEvent::Credit(_) => {}
                BrokerEvent::BindingGet(get) => self.waiting.push_back(Waiting::BindingGet(get.request)),
                BrokerEvent::Admin(admin) => self.waiting.push_back(Waiting::Admin(admin.request)),
                BrokerEvent::Failed(_) => assert!(self.broker.is_ended()),
            }
        }
        Ok(())
    }

    fn client_reads(&mut self) -> Result<(), SessionError> {
        while let Some(event) = self.client.poll_event()? {
            match event {
                ClientEvent::Welcome(_) => self.serving = true,
                ClientEvent::Opened(opened) => self.aliases.push(opened.alias),
                ClientEvent::Closed(What::Subscription(id)) => {
                    self.subscriptions.retain(|open| *open != id);
                    self.consumers.remove(&id);
                }
                ClientEvent::Skipped(skipped) => assert!(skipped.from < skipped.to),
                ClientEvent::Failed(_) => assert!(self.client.is_ended()),
                ClientEvent::Lagged(lagged) => assert!(lagged.missed > 0),
                ClientEvent::Deliver(delivered) => assert!(!delivered.topic.as_str().is_empty()),
                ClientEvent::Closed(What::Alias(_))
                | ClientEvent::Ack(_)
                | ClientEvent::Refused(_)
                | ClientEvent::Ready(_)
                | ClientEvent::Settled(_)
                | ClientEvent::Checkpoint(_)
                | ClientEvent::Generation(_)
                | ClientEvent::Binding(_)
                | ClientEvent::AdminResult(_)
                | ClientEvent::Drain(_) => {}
            }
        }
        Ok(())
    }

    fn time_passes(&mut self, ms: u64) -> Result<(), Over> {
        self.now = self.now.after_ms(ms);
        let client = self.client.handle_timeout_at(self.now);
        let broker = self.broker.handle_timeout_at(self.now);
        for passed in [client, broker] {
            match passed {
                Ok(()) => {}
                Err(SessionError::Silence { .. }) => return Err(Over),
                Err(error) => panic!("only silence ends a session by time: {error}"),
            }
        }
        assert!(self.client.poll_timeout() > Tick(0) && self.broker.poll_timeout() > Tick(0));
        Ok(())
    }

    fn check_limits(&mut self) {
        assert!(self.broker.unanswered() <= REQUESTS_OUTSTANDING_MAX);
        assert!(self.broker.delivery_alias_count() <= DELIVERY_ALIASES_MAX as usize);
        assert!((1..=FRAME_BYTES_MAX).contains(&self.broker.space_len()));
        assert!((1..=FRAME_BYTES_MAX).contains(&self.client.space_len()));
        assert_eq!(self.broker.outgoing().is_empty(), !self.broker.outgoing().has_remaining());
    }
}

fn take(outgoing: &mut Outgoing, max: usize) -> Vec<u8> {
    let len = max.min(outgoing.remaining());
    outgoing.copy_to_bytes(len).to_vec()
}

fn name(text: &str) -> Name {
    Name::parse(text).expect("a name")
}

fn pick<T: Copy>(values: &[T], which: u8) -> Option<T> {
    values.get(usize::from(which) % values.len().max(1)).copied()
}

/// One of four names, or of many, so that delivery aliases run out.
fn topic_of(which: u16) -> Topic {
    let text = match TOPICS.get(usize::from(which)) {
        Some(text) => (*text).to_owned(),
        None => format!("t/{which}"),
    };
    Topic::parse(&text).expect("a topic")
}

fn hello() -> Hello {
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
        binding: Bytes::from_static(b"binding"),
        agent: "fuzz".into(),
        proof: [9; 64],
    }
}

fn welcome() -> Welcome {
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
        principal: Principal::parse("spiffe://a.example/anna").expect("a principal"),
    }
}
