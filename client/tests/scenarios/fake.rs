//! A scripted broker: protocol's own half of a session over real TLS, honest unless a test says otherwise.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use bytes::{Buf as _, BufMut as _, Bytes};
use rustls::ServerConfig;
use sealbus_protocol::batch::accept::{
    Circumstances, Durability, Fence, ProvenProducer, Receipt, SequenceState, Verdict,
};
use sealbus_protocol::batch::{Batch, Records};
use sealbus_protocol::binding::KeyBinding;
use sealbus_protocol::frame::admin::Decision;
use sealbus_protocol::frame::{
    Ack, AdminResult, Alias, BrokerStats, Closed, Consume, ConsumerInfo, Frame as _, Freshness, Generation,
    Hello, IncarnationState, Limits, More, Narrowed, Operation, Outcome, Replay, RequestId, RetentionInfo,
    Settle, Skipped, SkippedWhy, Start, StreamHealth, StreamInfo, SubscriptionId, Sync, Until, Welcome, What,
};
use sealbus_protocol::identity::{Principal, TrustStore};
use sealbus_protocol::ids::{IncarnationId, Kid, PolicyHash, StreamId};
use sealbus_protocol::limits::{BATCH_BYTES_MAX, FRAME_BYTES_MAX, PAYLOAD_BYTES_MAX};
use sealbus_protocol::policy::{Act, CompiledPolicy, Context, Name, Permit, Policy, decide};
use sealbus_protocol::proof::{self, EXPORTER_LABEL, EXPORTER_LEN, Exporter};
use sealbus_protocol::refusal::{Code, Refusal};
use sealbus_protocol::session::{BrokerEvent, BrokerSession, Delivery, Tick};
use sealbus_protocol::stream_name::StreamName;
use sealbus_protocol::topic::{Topic, TopicFilter};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::fake_stream::{Kept, Stream};
use crate::pki::{BUS_ID, Pki, localhost};

/// What the broker does with a batch. Without a reaction it accepts it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Reaction {
    Accept,
    Refuse(Code),
    /// Accepts it, and cuts the connection before the acknowledgement.
    AcceptAndCut,
    /// Reads it and says nothing.
    Silence,
}

/// What a test makes the broker say.
#[derive(Debug, Clone)]
pub(crate) enum Say {
    /// Delivers these bytes on every subscription of the connection.
    Deliver {
        topic: Topic,
        batch: Bytes,
    },
    /// Delivers this to every replay and durable consumer of the connection, honest or not.
    Stored(Kept),
    /// Delivers what replays and durable consumers have not got.
    Kept,
    Skipped {
        from: u64,
        to: u64,
        why: SkippedWhy,
    },
    Lagged(u64),
    Generation(u64),
    Raw(Vec<u8>),
    Error(Refusal),
    Drain(u32),
    CloseSubscriptions,
    Cut,
}

#[derive(Default)]
pub(crate) struct Script {
    pub(crate) reactions: VecDeque<Reaction>,
    pub(crate) denied: HashSet<String>,
    pub(crate) narrowed: bool,
    /// Not delivered, but kept for the test.
    pub(crate) withhold: bool,
    /// What it does with SETTLE. Without a reaction it accepts it.
    pub(crate) settling: VecDeque<Reaction>,
    /// Never sent, not even when asked for.
    pub(crate) hide_bindings: bool,
    /// Nothing is answered at all after WELCOME.
    pub(crate) mute: bool,
    pub(crate) hello_refusals: VecDeque<Refusal>,
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) script: Script,
    sequences: HashMap<(IncarnationId, Topic), SequenceState>,
    /// By their names.
    pub(crate) streams: HashMap<String, Stream>,
    pub(crate) bindings: HashMap<Kid, Bytes>,
    connections: Vec<mpsc::UnboundedSender<Say>>,
    /// Every batch that came, accepted or not.
    pub(crate) received: Vec<Bytes>,
    pub(crate) accepted: Vec<(Topic, Bytes)>,
    pub(crate) incarnations: Vec<IncarnationId>,
    pub(crate) hellos: usize,
    pub(crate) opens: usize,
    /// Where each replay began.
    pub(crate) replays: Vec<Start>,
    pub(crate) consumes: usize,
    /// SETTLE frames that came.
    pub(crate) settles: usize,
}

impl State {
    fn stream_of(&self, topic: &Topic) -> Option<(&String, &Stream)> {
        self.streams.iter().find(|(_, stream)| stream.filter.matches(topic))
    }
}

/// Who reads a stream on a connection.
#[derive(Debug)]
struct StreamReader {
    stream: String,
    kind: ReaderKind,
}

#[derive(Debug)]
enum ReaderKind {
    Replay {
        filter: Option<TopicFilter>,
        next: u64,
    },
    /// A member of a group, and what it was given.
    Member {
        group: String,
        given: BTreeSet<u64>,
    },
}

#[derive(Clone)]
pub(crate) struct Fake {
    pub(crate) address: SocketAddr,
    pub(crate) state: Arc<Mutex<State>>,
    trust: Arc<TrustStore>,
}

impl Fake {
    pub(crate) async fn start(pki: &Pki) -> Self {
        Self::start_with(pki, pki.server(&localhost(), &pki.ca, b"sealbus/1")).await
    }

    pub(crate) async fn start_with(pki: &Pki, tls: Arc<ServerConfig>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let fake = Self {
            address: listener.local_addr().unwrap(),
            state: Arc::default(),
            trust: Arc::new(pki.broker_trust()),
        };
        let acceptor = TlsAcceptor::from(tls);
        let server = fake.clone();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (server, acceptor) = (server.clone(), acceptor.clone());
                tokio::spawn(async move {
                    if let Ok(stream) = acceptor.accept(socket).await {
                        Connection::new(server, stream).run().await;
                    }
                });
            }
        });
        fake
    }

    pub(crate) fn server(&self) -> String {
        format!("localhost:{}", self.address.port())
    }

    pub(crate) fn state<R>(&self, look: impl FnOnce(&mut State) -> R) -> R {
        look(&mut self.state.lock().unwrap())
    }

    /// Says something on every connection.
    pub(crate) fn say(&self, say: &Say) {
        self.state(|state| state.connections.retain(|connection| connection.send(say.clone()).is_ok()));
    }

    /// The payloads that were accepted on a topic, in order.
    pub(crate) fn payloads(&self, topic: &str) -> Vec<Vec<u8>> {
        self.state(|state| {
            let batches = state.accepted.iter().filter(|(name, _)| name.as_str() == topic);
            batches.flat_map(|(_, batch)| payloads(batch)).collect()
        })
    }

    /// Forgets all sequences, as a restarted broker does.
    pub(crate) fn forget(&self) {
        self.state(|state| state.sequences.clear());
    }
}

pub(crate) fn payloads(batch: &Bytes) -> Vec<Vec<u8>> {
    let batch = Batch::decode(batch.clone()).unwrap();
    Records::new(batch.body()).map(|record| record.unwrap().payload.to_vec()).collect()
}

struct Connection {
    fake: Fake,
    stream: TlsStream<TcpStream>,
    session: BrokerSession,
    producer: Option<(Principal, ProvenProducer)>,
    topics: HashMap<Alias, (Topic, StreamId)>,
    subscriptions: HashMap<SubscriptionId, TopicFilter>,
    readers: BTreeMap<SubscriptionId, StreamReader>,
    announced: HashSet<Kid>,
    open: bool,
}

impl Connection {
    fn new(fake: Fake, stream: TlsStream<TcpStream>) -> Self {
        let session = BrokerSession::new_at(Tick(0));
        let (topics, subscriptions, readers, announced) = Default::default();
        Self { fake, stream, session, producer: None, topics, subscriptions, readers, announced, open: true }
    }

    async fn run(mut self) {
        let (sender, mut orders) = mpsc::unbounded_channel();
        let mut registered = Some(sender);
        while self.open {
            while self.session.outgoing().has_remaining() {
                if self.stream.write_buf(self.session.outgoing()).await.is_err() {
                    return;
                }
            }
            if self.stream.flush().await.is_err() || self.session.is_ended() {
                return;
            }
            if self.producer.is_some()
                && let Some(sender) = registered.take()
            {
                self.fake.state(|state| state.connections.push(sender));
            }
            let space_len = self.session.space_len();
            let mut space = self.session.space().limit(space_len);
            tokio::select! {
                read = self.stream.read_buf(&mut space) => match read {
                    Ok(0) | Err(_) => return,
                    Ok(_) => self.handle_input(),
                },
                Some(say) = orders.recv() => self.say(say).await,
            }
        }
    }

    fn handle_input(&mut self) {
        self.session.handle_input_at(Tick(0));
        while self.open {
            match self.session.poll_event() {
                Ok(Some(event)) => self.handle(event),
                Ok(None) => return,
                Err(error) => {
                    self.session.fail(error.refusal());
                    return;
                }
            }
        }
    }

    fn handle(&mut self, event: BrokerEvent) {
        let mute = self.fake.state(|state| state.script.mute);
        match event {
            BrokerEvent::Hello(hello) => self.hello(&hello),
            _ if mute => {}
            BrokerEvent::Open { request, topic } => self.open(request, topic),
            BrokerEvent::Publish { request, alias, batch } => self.publish(request, alias, batch),
            BrokerEvent::Subscribe(subscribe) => {
                let (denied, narrowed) = self.fake.state(|state| {
                    (state.script.denied.contains(subscribe.filter.as_str()), state.script.narrowed)
                });
                if denied {
                    let refusal = Refusal::new(Code::Denied, "no rule allows it");
                    self.session.refuse_subscription(subscribe.request, subscribe.subscription, refusal);
                } else {
                    self.subscriptions.insert(subscribe.subscription, subscribe.filter);
                    let narrowed = if narrowed { Narrowed::Yes } else { Narrowed::No };
                    self.session.ready(subscribe.request, subscribe.subscription, narrowed, 1, None);
                }
            }
            BrokerEvent::Close(What::Subscription(id)) => {
                self.subscriptions.remove(&id);
                self.readers.remove(&id);
            }
            BrokerEvent::Close(What::Alias(alias)) => drop(self.topics.remove(&alias)),
            BrokerEvent::BindingGet(get) => {
                let known = self.fake.state(|state| {
                    state.bindings.get(&get.kid).filter(|_| !state.script.hide_bindings).cloned()
                });
                match known {
                    Some(binding) => self.session.binding(get.request, binding),
                    None => self
                        .session
                        .refuse(get.request, Refusal::new(Code::Binding, "no such key is known here")),
                }
            }
            BrokerEvent::Admin(admin) => {
                let outcome = match admin.operation {
                    Operation::CanI { .. } => {
                        Outcome::Decided { decision: Decision::Permitted, why: "rule all".into() }
                    }
                    Operation::AuditRead { from, .. } => Outcome::AuditLines {
                        from,
                        next: from + 2,
                        lines: Bytes::from_static(b"{\"a\":1}\n{\"b\":2}\n"),
                    },
                    // One at a time, as if no more fitted.
                    Operation::Streams { after, .. } => Outcome::Streams {
                        more: if after.is_none() { More::Yes } else { More::No },
                        streams: vec![stream_info(if after.is_none() { "orders" } else { "payments" })],
                    },
                    Operation::Consumers { after, .. } => Outcome::Consumers {
                        more: if after.is_none() { More::Yes } else { More::No },
                        consumers: vec![consumer_info(if after.is_none() { "audit" } else { "billing" })],
                    },
                    Operation::ConsumerReset { from, .. } => {
                        let Start::Offset(position) = from else { panic!("the test resets to an offset") };
                        Outcome::ConsumerReset { position }
                    }
                    Operation::Stats => {
                        Outcome::Stats(Box::new(BrokerStats { uptime_ms: 17, ..BrokerStats::default() }))
                    }
                    Operation::PolicyReload => {
                        let refusal = Refusal::new(Code::Denied, "needs the verb admin");
                        return self.session.refuse(admin.request, refusal);
                    }
                };
                self.session.admin_result(&AdminResult { request: admin.request, outcome });
            }
            BrokerEvent::Replay(replay) => self.replay(replay),
            BrokerEvent::Consume(consume) => self.consume(&consume),
            BrokerEvent::Settle(settle) => self.settle(&settle),
            BrokerEvent::CheckpointGet(get) => {
                let reply = self.fake.state(|state| {
                    state.streams.get_mut(&get.stream.to_string()).map(|stream| stream.checkpoint(&get))
                });
                match reply {
                    Some(reply) => self.session.checkpoint(&reply),
                    None => self.session.refuse(get.request, Refusal::new(Code::Denied, "no rule allows it")),
                }
            }
            BrokerEvent::Credit(_) => {}
            BrokerEvent::Failed(_) => self.open = false,
        }
    }

    /// Everything that a real broker checks, so that a client that proves itself wrongly is caught here.
    fn hello(&mut self, hello: &Hello) {
        let refusal = self.fake.state(|state| {
            state.hellos += 1;
            state.script.hello_refusals.pop_front()
        });
        if let Some(refusal) = refusal {
            return self.session.fail(refusal);
        }
        if hello.bus_id != BUS_ID {
            return self.session.fail(Refusal::new(Code::Binding, "another bus is meant"));
        }
        let (_, tls) = self.stream.get_ref();
        let exporter = tls.export_keying_material([0; EXPORTER_LEN], EXPORTER_LABEL, None).unwrap();
        let binding = KeyBinding::decode(hello.binding.clone()).unwrap();
        let verified = binding.verify_at(&self.fake.trust, now_ms()).unwrap();
        assert_eq!(verified.kid(), hello.kid);
        let exporter = Exporter::new(exporter);
        proof::verify(verified.key(), &exporter, &hello.bus_id, &hello.fields(), &hello.proof).unwrap();
        let incarnation = self.fake.state(|state| {
            state.bindings.insert(hello.kid, hello.binding.clone());
            let known = state.incarnations.contains(&hello.incarnation_id);
            state.incarnations.push(hello.incarnation_id);
            if known { IncarnationState::Resumed } else { IncarnationState::New }
        });
        let principal = verified.principal().clone();
        self.session.welcome(&Welcome {
            minor: 0,
            incarnation,
            features: 0,
            limits: Limits {
                frame_bytes_max: u32::try_from(FRAME_BYTES_MAX).unwrap(),
                batch_bytes_max: u32::try_from(BATCH_BYTES_MAX).unwrap(),
                payload_bytes_max: u32::try_from(PAYLOAD_BYTES_MAX).unwrap(),
                topics_max: 1_024,
                subscriptions_max: 1_024,
            },
            session_id: 1,
            broker_ms: now_ms(),
            generation: 1,
            policy_version: 1,
            policy_hash: PolicyHash::new([1; 32]),
            principal: principal.clone(),
        });
        let producer = ProvenProducer {
            kid: hello.kid,
            key: *verified.key(),
            instance_id: hello.instance_id,
            started_ms: hello.started_ms,
            incarnation_id: hello.incarnation_id,
        };
        self.producer = Some((principal, producer));
    }

    fn open(&mut self, request: RequestId, topic: Topic) {
        let (_, producer) = self.producer.as_ref().unwrap();
        let key = (producer.incarnation_id, topic.clone());
        let (denied, resume) = self.fake.state(|state| {
            state.opens += 1;
            let resume = state.sequences.get(&key).and_then(SequenceState::resume_point);
            (state.script.denied.contains(topic.as_str()), resume)
        });
        if denied {
            return self.session.refuse(request, Refusal::new(Code::Denied, "no rule allows it"));
        }
        let stream_id =
            self.fake.state(|state| state.stream_of(&topic).map_or(StreamId::ZERO, |(_, stream)| stream.id));
        let alias = self.session.opened(request, stream_id, resume).unwrap();
        self.topics.insert(alias, (topic, stream_id));
    }

    fn publish(&mut self, request: RequestId, alias: Alias, bytes: Bytes) {
        let (topic, stream_id) = self.topics[&alias].clone();
        let reaction = self.fake.state(|state| {
            state.received.push(bytes.clone());
            state.script.reactions.pop_front().unwrap_or(Reaction::Accept)
        });
        if let Reaction::Silence = reaction {
            return;
        }
        let (principal, producer) = self.producer.clone().unwrap();
        let permit = permit(&principal, &topic);
        let circumstances = Circumstances {
            bus_id: BUS_ID,
            topic: &topic,
            topic_digest: topic.digest(&stream_id),
            producer: &producer,
            policy_version: 1,
            decision: Ok(&permit),
            fence: Fence::Open,
            now_ms: now_ms(),
        };
        let mut receipt = Receipt { durability: Durability::Live, offset: None };
        let key = (producer.incarnation_id, topic.clone());
        let batch = Batch::decode(bytes.clone()).unwrap();
        let verdict = self.fake.state(|state| {
            let verdict = state.sequences.entry(key.clone()).or_default().judge(batch, &circumstances);
            if let (Verdict::Accept(accepted), Reaction::Accept | Reaction::AcceptAndCut) =
                (&verdict, reaction)
            {
                let stream = state.streams.values_mut().find(|stream| stream.id == stream_id);
                if let Some(stream) = stream {
                    let offset = stream.append(&topic, &bytes, now_ms());
                    receipt = Receipt { durability: Durability::Fsync, offset: Some(offset) };
                }
                state.sequences.entry(key).or_default().commit(accepted, receipt);
                state.accepted.push((topic.clone(), bytes.clone()));
            }
            verdict
        });
        if let Verdict::Duplicate(before) = &verdict {
            receipt = *before;
        }
        let freshness = match (verdict, reaction) {
            (Verdict::Refuse(refusal), _) => return self.session.refuse(request, refusal),
            (Verdict::Equivocate(_), _) => panic!("the client signed two batches under one sequence number"),
            (Verdict::Accept(_), Reaction::Refuse(code)) => {
                return self.session.refuse(request, Refusal::new(code, "by the test"));
            }
            (Verdict::Duplicate(_), _) => Freshness::Duplicate,
            (Verdict::Accept(_), _) => Freshness::New,
        };
        if freshness == Freshness::New && !self.fake.state(|state| state.script.withhold) {
            self.fake.say(&if stream_id.is_zero() {
                Say::Deliver { topic, batch: bytes }
            } else {
                Say::Kept
            });
        }
        if let Reaction::AcceptAndCut = reaction {
            self.open = false;
            return;
        }
        self.session.ack(&Ack { request, receipt, freshness, broker_ms: now_ms() });
    }

    fn replay(&mut self, replay: Replay) {
        let name = replay.stream.to_string();
        let Some((start, first, denied)) = self.fake.state(|state| {
            state.replays.push(replay.from);
            let denied = state.script.denied.contains(&name);
            state.streams.get(&name).map(|stream| (stream.start(replay.from), stream.first, denied))
        }) else {
            let refusal = Refusal::new(Code::Denied, "no rule allows it");
            return self.session.refuse_subscription(replay.request, replay.subscription, refusal);
        };
        if denied {
            let refusal = Refusal::new(Code::Denied, "no rule allows it");
            return self.session.refuse_subscription(replay.request, replay.subscription, refusal);
        }
        let id = replay.subscription;
        self.session.ready(replay.request, id, Narrowed::No, 1, Some(start));
        if start.offset < first {
            let why = SkippedWhy::Trimmed;
            self.session.skipped(&Skipped { subscription: id, why, from: start.offset, to: first });
        }
        let kind = ReaderKind::Replay { filter: replay.filter, next: start.offset };
        self.readers.insert(id, StreamReader { stream: name, kind });
        if !self.fake.state(|state| state.script.withhold) {
            self.deliver_kept();
        }
        if replay.until == Until::End {
            self.readers.remove(&id);
            self.session.close_subscription(id);
        }
    }

    fn consume(&mut self, consume: &Consume) {
        let name = consume.stream.to_string();
        let Some(start) = self.fake.state(|state| {
            state.consumes += 1;
            state.streams.get(&name).map(|stream| stream.start(consume.from))
        }) else {
            let refusal = Refusal::new(Code::Denied, "no rule allows it");
            return self.session.refuse_subscription(consume.request, consume.subscription, refusal);
        };
        self.session.ready(consume.request, consume.subscription, Narrowed::No, 1, Some(start));
        let kind = ReaderKind::Member { group: consume.consumer.to_string(), given: BTreeSet::new() };
        self.readers.insert(consume.subscription, StreamReader { stream: name, kind });
        if !self.fake.state(|state| state.script.withhold) {
            self.deliver_kept();
        }
    }

    fn settle(&mut self, settle: &Settle) {
        let reaction = self.fake.state(|state| {
            state.settles += 1;
            state.script.settling.pop_front().unwrap_or(Reaction::Accept)
        });
        match reaction {
            Reaction::Accept | Reaction::AcceptAndCut => {}
            Reaction::Refuse(code) => {
                return self.session.refuse(settle.request, Refusal::new(code, "by the test"));
            }
            Reaction::Silence => return,
        }
        let Some(StreamReader { stream, kind: ReaderKind::Member { group, given } }) =
            self.readers.get_mut(&settle.subscription)
        else {
            panic!("only a durable consumer's messages are settled");
        };
        let again =
            self.fake.state(|state| state.streams.get_mut(stream).unwrap().settle(group, &settle.items));
        given.retain(|offset| !again.contains(offset));
        if let Reaction::AcceptAndCut = reaction {
            self.open = false;
            return;
        }
        if settle.sync == Sync::Yes {
            self.session.settled(settle.request);
        }
        self.deliver_kept();
    }

    /// Delivers to every reader of a stream what it has not got.
    fn deliver_kept(&mut self) {
        let mut due = Vec::new();
        for (id, reader) in &mut self.readers {
            let kept = self.fake.state(|state| match &mut reader.kind {
                ReaderKind::Replay { filter, next } => {
                    let kept = state.streams[&reader.stream].from(*next, filter.as_ref());
                    *next = (*next).max(state.streams[&reader.stream].end());
                    kept
                }
                ReaderKind::Member { group, given } => {
                    let work = state.streams.get_mut(&reader.stream).unwrap().work(group, given);
                    for kept in &work {
                        given.extend(kept.offset..kept.end());
                    }
                    work
                }
            });
            due.extend(kept.into_iter().map(|kept| (*id, kept)));
        }
        for (id, kept) in due {
            self.deliver_stored(id, &kept);
        }
    }

    fn deliver_stored(&mut self, id: SubscriptionId, kept: &Kept) {
        self.announce(&kept.batch);
        self.session.deliver(&Delivery {
            subscription: id,
            topic: &kept.topic,
            stream: kept.stream_id,
            offset: Some(kept.offset),
            broker_ms: kept.append_ms,
            stored: Some(kept.at),
            ranges: kept.ranges.as_deref(),
            batch: &kept.batch,
        });
    }

    async fn say(&mut self, say: Say) {
        match say {
            Say::Stored(kept) => {
                for id in self.readers.keys().copied().collect::<Vec<_>>() {
                    self.deliver_stored(id, &kept);
                }
            }
            Say::Kept => self.deliver_kept(),
            Say::Skipped { from, to, why } => {
                for id in self.readers.keys() {
                    self.session.skipped(&Skipped { subscription: *id, why, from, to });
                }
            }
            Say::Deliver { topic, batch } => self.deliver(&topic, &batch),
            Say::Lagged(missed) => {
                for id in self.subscriptions.keys() {
                    self.session.lagged(*id, missed);
                }
            }
            Say::Generation(generation) => {
                let policy_hash = PolicyHash::new([2; 32]);
                self.session.generation(&Generation { generation, policy_version: generation, policy_hash });
            }
            Say::Raw(bytes) => {
                // The client may hang up in the middle, as it should.
                let _ = self.stream.write_all(&bytes).await;
            }
            Say::Error(refusal) => self.session.fail(refusal),
            Say::Drain(deadline_ms) => self.session.drain(deadline_ms),
            Say::CloseSubscriptions => {
                let readers = std::mem::take(&mut self.readers).into_keys();
                for id in self.subscriptions.drain().map(|(id, _)| id).chain(readers) {
                    let _ = self.stream.write_all(&Closed(What::Subscription(id)).encode()).await;
                }
            }
            Say::Cut => self.open = false,
        }
    }

    /// Sends the key binding of a batch before its key's first delivery.
    fn announce(&mut self, batch: &Bytes) {
        let kid = Batch::decode(batch.clone()).ok().map(|batch| batch.preamble().kid);
        if let Some(kid) = kid
            && self.announced.insert(kid)
        {
            let binding = self
                .fake
                .state(|state| state.bindings.get(&kid).filter(|_| !state.script.hide_bindings).cloned());
            if let Some(binding) = binding {
                self.session.announce_binding(binding);
            }
        }
    }

    fn deliver(&mut self, topic: &Topic, batch: &Bytes) {
        self.announce(batch);
        let wanted: Vec<_> = self.subscriptions.iter().filter(|(_, filter)| filter.matches(topic)).collect();
        for (id, _) in wanted {
            self.session.deliver(&Delivery {
                subscription: *id,
                topic,
                stream: StreamId::ZERO,
                offset: None,
                broker_ms: now_ms(),
                stored: None,
                ranges: None,
                batch,
            });
        }
    }
}

fn stream_info(name: &str) -> StreamInfo {
    StreamInfo {
        name: StreamName::parse(name).unwrap(),
        id: StreamId::new([7; 16]),
        topics: Vec::new(),
        durability: Durability::Fsync,
        health: StreamHealth::Open,
        reason: String::new(),
        first: 0,
        end: 1,
        records: 1,
        bytes: 500,
        segments: 1,
        damaged: 0,
        checkpoint_size: 1,
        checkpoint_root: [1; 32],
        retention: RetentionInfo::default(),
        consumers: 2,
    }
}

fn consumer_info(name: &str) -> ConsumerInfo {
    ConsumerInfo {
        stream: Name::parse("orders").unwrap(),
        name: Name::parse(name).unwrap(),
        filter: None,
        position: 0,
        end: 1,
        unacknowledged: 0,
        redelivering: 0,
        members: 1,
        lag: 1,
        delivered: 0,
        acknowledged: 0,
        dead: 0,
        ack_wait_ms: 30_000,
        max_deliver: 5,
        unacknowledged_max: 1_000,
    }
}

fn permit(principal: &Principal, topic: &Topic) -> Permit {
    let document = format!(
        "version = 1\n[[allow]]\nid = \"all\"\nwho = [\"{principal}\"]\nverbs = [\"publish\"]\ntopics = [\"#\"]\n"
    );
    let policy = CompiledPolicy::compile(Policy::parse(&document).unwrap(), now_ms()).unwrap();
    let context = Context { source: IpAddr::V4(Ipv4Addr::LOCALHOST), zone: None, now_ms: now_ms() };
    decide(&policy, principal, Act::Publish(topic), &context).unwrap()
}

pub(crate) fn now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    u64::try_from(since.as_millis()).unwrap()
}
