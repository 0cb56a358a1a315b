//! A line against a model broker: protocol's own judgement of sequences, behind a wire that loses what it likes.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr};

use proptest::prelude::*;
use sealbus_protocol::batch::accept::{
    Circumstances, Durability, Fence, ProvenProducer, Receipt, SequenceState, Verdict,
};
use sealbus_protocol::batch::{HEAD_LEN, Headers, Preamble};
use sealbus_protocol::frame::{Freshness, RequestId};
use sealbus_protocol::identity::Principal;
use sealbus_protocol::ids::{BusId, IncarnationId, InstanceId, PreambleDigest, StreamId};
use sealbus_protocol::policy::{Act, CompiledPolicy, Context, Permit, Policy, decide};
use sealbus_protocol::topic::Topic;
use zeroize::Zeroizing;

use super::*;
use crate::publisher::queue::{NewMessage, Queue, QueueLimits, Take, Taken};

const NOW_MS: u64 = 1_767_225_600_000;
const PRINCIPAL: &str = "spiffe://bus.example/producer";
const TIMEOUT_MS: u64 = 10_000;

/// Everything that can happen to a line.
#[derive(Debug, Clone)]
enum Step {
    Publish {
        bytes: usize,
    },
    /// The client sends what it may.
    Pump,
    /// The broker judges the oldest batch on the wire.
    Judge,
    /// The broker refuses the oldest batch on the wire, unless it accepted it before.
    Refuse(Code),
    /// The client reads the oldest answer.
    Answer,
    Disconnect,
    Reconnect,
    BrokerRestarts,
    Wait {
        ms: u64,
    },
}

struct World {
    key: SigningKey,
    context: ProducerContext,
    topic: Topic,
    permit: Permit,
    queue: Queue<u64>,
    line: Line<u64>,
    now: Tick,
    connected: bool,
    incarnation: u8,
    to_broker: VecDeque<Transmit>,
    to_client: VecDeque<(u64, Result<Ack, Refusal>)>,
    broker: SequenceState,
    /// Messages as the broker accepted them, by the incarnation's state that it keeps.
    accepted: Vec<u64>,
    accepted_digests: Vec<PreambleDigest>,
    signed: HashMap<(IncarnationId, u64), PreambleDigest>,
    message_next: u64,
    ticket_next: u64,
    tickets: BTreeMap<u64, Vec<u64>>,
    outcomes: BTreeMap<u64, Result<BatchReceipt, PublishError>>,
    broker_forgot: bool,
}

impl World {
    fn new() -> Self {
        let key = SigningKey::from_seed(&Zeroizing::new([7; 32]));
        let principal = Principal::parse(PRINCIPAL).unwrap();
        let topic = Topic::parse("orders/eu").unwrap();
        let context = ProducerContext {
            bus_id: BusId::new([1; 16]),
            kid: key.verifying_key().kid(&principal),
            instance_id: InstanceId::new([2; 16]),
            started_ms: NOW_MS,
            incarnation_id: IncarnationId::new([0; 16]),
            policy_version: 0,
        };
        let limits =
            QueueLimits { batch_bytes_max: 700, pending_bytes_max: 20_000, publish_timeout_ms: TIMEOUT_MS };
        Self {
            line: Line::new(topic.digest(&StreamId::ZERO), TIMEOUT_MS),
            permit: permit(&principal, &topic),
            key,
            context,
            topic,
            queue: Queue::new(limits),
            now: Tick(0),
            connected: true,
            incarnation: 0,
            to_broker: VecDeque::new(),
            to_client: VecDeque::new(),
            broker: SequenceState::new(),
            accepted: Vec::new(),
            accepted_digests: Vec::new(),
            signed: HashMap::new(),
            message_next: 0,
            ticket_next: 0,
            tickets: BTreeMap::new(),
            outcomes: BTreeMap::new(),
            broker_forgot: false,
        }
    }

    fn run(&mut self, step: &Step) {
        match step {
            Step::Publish { bytes } => self.publish(*bytes),
            Step::Pump => self.pump(),
            Step::Judge => self.judge(None),
            Step::Refuse(code) => self.judge(Some(*code)),
            Step::Answer => self.answer(),
            Step::Disconnect => self.disconnect(),
            Step::Reconnect => self.reconnect(),
            Step::BrokerRestarts => {
                self.disconnect();
                self.broker = SequenceState::new();
                self.broker_forgot = true;
            }
            Step::Wait { ms } => self.wait(*ms),
        }
    }

    fn publish(&mut self, bytes: usize) {
        let mut payload = self.message_next.to_be_bytes().to_vec();
        payload.resize(8 + bytes, 0);
        let message = NewMessage {
            published_ms: NOW_MS + self.now.0,
            key: &[],
            headers: Headers::NONE,
            payload: &payload,
        };
        let (now, ticket) = (self.now, self.ticket_next);
        let Ok(pushed) = self.queue.push(message, || now, || ticket) else { return };
        self.ticket_next = self.ticket_next.max(pushed.ticket + 1);
        let messages = self.tickets.entry(*pushed.ticket).or_default();
        assert_eq!(messages.len(), pushed.index as usize);
        messages.push(self.message_next);
        self.message_next += 1;
    }

    fn pump(&mut self) {
        while self.connected {
            if self.line.can_sign() && !self.line.has_unsent() {
                match self.queue.take(Take::Any) {
                    Taken::Batch(collected) => self.line.sign(collected, &self.context, &self.key),
                    Taken::Growing | Taken::Nothing => {}
                }
            }
            let Some(transmit) = self.line.poll_transmit_at(self.now) else { break };
            let batch = Batch::decode(transmit.bytes.clone()).unwrap();
            let place = (batch.preamble().incarnation_id, batch.preamble().first_seq);
            let first = *self.signed.entry(place).or_insert(batch.digest());
            assert_eq!(first, batch.digest(), "two preambles for one sequence number");
            self.to_broker.push_back(transmit);
        }
        let more = self.line.has_orphans() || self.queue.has_batches();
        if self.line.spoiled().is_some() && more && self.line.can_restart() {
            self.begin_incarnation();
        }
    }

    fn begin_incarnation(&mut self) {
        self.disconnect();
        self.incarnation += 1;
        self.context.incarnation_id = IncarnationId::new([self.incarnation; 16]);
        self.broker = SequenceState::new();
        let restarted = self.line.restart(&self.context, &self.key);
        assert!(
            restarted.settled.is_empty() || self.broker_forgot,
            "nobody who could still be answered is left behind"
        );
        self.settle(restarted.settled);
        self.reconnect();
    }

    fn judge(&mut self, refuse: Option<Code>) {
        let Some(Transmit { first_seq, bytes }) = self.to_broker.pop_front() else { return };
        let batch = Batch::decode(bytes).unwrap();
        let producer = ProvenProducer {
            kid: self.context.kid,
            key: self.key.verifying_key(),
            instance_id: self.context.instance_id,
            started_ms: self.context.started_ms,
            incarnation_id: self.context.incarnation_id,
        };
        let circumstances = Circumstances {
            bus_id: self.context.bus_id,
            topic: &self.topic,
            topic_digest: self.topic.digest(&StreamId::ZERO),
            producer: &producer,
            policy_version: 1,
            decision: Ok(&self.permit),
            fence: Fence::Open,
            now_ms: NOW_MS + self.now.0,
        };
        let answer = match (self.broker.judge(batch, &circumstances), refuse) {
            (Verdict::Duplicate(receipt), _) => Ok(ack(receipt, Freshness::Duplicate)),
            (Verdict::Refuse(refusal), _) => Err(refusal),
            (Verdict::Accept(_), Some(code)) => Err(Refusal::new(code, "by the test")),
            (Verdict::Accept(accepted), None) => {
                let receipt = Receipt { durability: Durability::Live, offset: None };
                self.broker.commit(&accepted, receipt);
                self.accepted_digests.push(accepted.batch().digest());
                for record in Records::new(accepted.batch().body()) {
                    let id = record.unwrap().payload.first_chunk().copied().unwrap();
                    self.accepted.push(u64::from_be_bytes(id));
                }
                Ok(ack(receipt, Freshness::New))
            }
            (Verdict::Equivocate(_), _) => panic!("the line signed two batches under one sequence number"),
        };
        self.to_client.push_back((first_seq, answer));
    }

    fn answer(&mut self) {
        let Some((first_seq, answer)) = self.to_client.pop_front() else { return };
        let settled = match answer {
            Ok(ack) => self.line.handle_ack(first_seq, &ack, &self.context),
            Err(refusal) => self.line.handle_refused_at(first_seq, refusal, self.now),
        };
        self.settle(settled);
    }

    fn disconnect(&mut self) {
        self.connected = false;
        self.to_broker.clear();
        self.to_client.clear();
        self.line.handle_disconnected();
    }

    fn reconnect(&mut self) {
        if !self.connected {
            self.connected = true;
            self.line.handle_opened(self.broker.resume_point());
        }
    }

    fn wait(&mut self, ms: u64) {
        self.now = self.now.after_ms(ms);
        let settled = self.line.handle_timeout_at(self.now);
        self.settle(settled);
        for collected in self.queue.take_expired_at(Some(self.now)) {
            let bytes = collected.batch.bytes_len() - HEAD_LEN;
            let outcome = Err(PublishError::NotSent { after_ms: TIMEOUT_MS, last: None });
            self.settle([Settled { cargo: collected.cargo, bytes, outcome }]);
        }
    }

    fn settle(&mut self, settled: impl IntoIterator<Item = Settled<u64>>) {
        for Settled { cargo, bytes, outcome } in settled {
            self.queue.settle(cargo.number, bytes, outcome.as_ref().err());
            let before = self.outcomes.insert(cargo.ticket, outcome);
            assert!(before.is_none(), "a batch was settled twice");
        }
    }

    /// A good broker and a good wire, until everything has its answer.
    fn run_to_the_end(&mut self) {
        for _ in 0..10_000 {
            if self.queue.is_settled() {
                return;
            }
            self.reconnect();
            self.pump();
            self.judge(None);
            self.answer();
            self.wait(10);
        }
        panic!("not everything has an answer: {:?}", self.line);
    }

    fn check(&self) {
        for (ticket, messages) in &self.tickets {
            let outcome = self.outcomes.get(ticket).expect("every message has an answer");
            for message in messages {
                let times = self.accepted.iter().filter(|accepted| *accepted == message).count();
                match outcome {
                    Ok(_) if self.broker_forgot => assert!(times >= 1),
                    Ok(_) => assert_eq!(times, 1, "message {message} was acknowledged"),
                    Err(PublishError::Refused(_) | PublishError::NotSent { .. }) => {
                        assert_eq!(times, 0, "message {message} was reported as not accepted: {outcome:?}");
                    }
                    Err(_) if self.broker_forgot => {}
                    Err(_) => assert!(times <= 1, "message {message} was accepted twice"),
                }
            }
        }
        if !self.broker_forgot {
            assert!(self.accepted.is_sorted(), "out of order: {:?}", self.accepted);
        }
    }
}

fn ack(receipt: Receipt, freshness: Freshness) -> Ack {
    Ack { request: RequestId(1), receipt, freshness, broker_ms: NOW_MS }
}

fn permit(principal: &Principal, topic: &Topic) -> Permit {
    let document = format!(
        "version = 1\n[[allow]]\nid = \"all\"\nwho = [\"{PRINCIPAL}\"]\nverbs = [\"publish\"]\ntopics = [\"#\"]\n"
    );
    let policy = CompiledPolicy::compile(Policy::parse(&document).unwrap(), NOW_MS).unwrap();
    let context = Context { source: IpAddr::V4(Ipv4Addr::LOCALHOST), zone: None, now_ms: NOW_MS };
    decide(&policy, principal, Act::Publish(topic), &context).unwrap()
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let code = prop_oneof![
        Just(Code::Limit),
        Just(Code::Internal),
        Just(Code::Denied),
        Just(Code::Time),
        Just(Code::Signature)
    ];
    let step = prop_oneof![
        6 => (0usize..900).prop_map(|bytes| Step::Publish { bytes }),
        6 => Just(Step::Pump),
        6 => Just(Step::Judge),
        1 => code.prop_map(Step::Refuse),
        6 => Just(Step::Answer),
        1 => Just(Step::Disconnect),
        3 => Just(Step::Reconnect),
        2 => (1u64..400).prop_map(|ms| Step::Wait { ms }),
    ];
    proptest::collection::vec(step, 0..200)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn every_message_is_accepted_once_in_order_or_reported(steps in steps()) {
        let mut world = World::new();
        steps.iter().for_each(|step| world.run(step));
        world.run_to_the_end();
        world.check();
    }

    #[test]
    fn deadlines_and_a_forgetful_broker_leave_nothing_unanswered(
        steps in proptest::collection::vec(
            prop_oneof![
                10 => steps(),
                1 => Just(vec![Step::BrokerRestarts]),
                1 => Just(vec![Step::Wait { ms: TIMEOUT_MS }]),
            ],
            0..4,
        )
    ) {
        let mut world = World::new();
        steps.iter().flatten().for_each(|step| world.run(step));
        world.run_to_the_end();
        world.check();
    }
}

fn world_with(messages: usize) -> World {
    let mut world = World::new();
    // The first batch alone, so that the broker follows the sequence; then one batch for each message.
    world.publish(0);
    world.run_to_the_end();
    for _ in 0..messages {
        world.publish(650);
    }
    world.pump();
    assert_eq!(world.to_broker.len(), messages);
    world
}

fn outcome_codes(world: &World) -> Vec<Option<Code>> {
    world
        .outcomes
        .values()
        .skip(1)
        .map(|outcome| outcome.as_ref().err().and_then(PublishError::code))
        .collect()
}

#[test]
fn a_lost_acknowledgement_is_answered_by_the_same_bytes() {
    let mut world = world_with(1);
    let sent = world.to_broker[0].bytes.clone();
    world.judge(None);
    world.disconnect();
    world.reconnect();
    world.pump();
    assert_eq!(world.to_broker[0].bytes, sent);
    world.run_to_the_end();
    world.check();
}

#[test]
fn after_a_final_refusal_what_came_behind_goes_on_in_a_new_incarnation() {
    let mut world = world_with(3);
    world.run(&Step::Refuse(Code::Time));
    world.run_to_the_end();
    world.check();
    assert_eq!(outcome_codes(&world), [Some(Code::Time), None, None]);
    assert_eq!(world.incarnation, 1);
    assert_eq!(world.accepted, [0, 2, 3]);
}

#[test]
fn a_refusal_that_may_pass_sends_the_same_bytes_after_a_pause() {
    let mut world = world_with(3);
    world.run(&Step::Refuse(Code::StorageFull));
    (0..2).for_each(|_| world.judge(None));
    (0..3).for_each(|_| world.answer());
    world.pump();
    assert!(world.to_broker.is_empty(), "the pause is kept");
    world.run_to_the_end();
    world.check();
    assert_eq!((world.incarnation, outcome_codes(&world)), (0, vec![None; 3]));
}

#[test]
fn a_refusal_that_never_passes_is_the_answer_at_the_deadline() {
    let mut world = world_with(2);
    for _ in 0..TIMEOUT_MS / RETRY_PAUSE_MS + 2 {
        while !world.to_broker.is_empty() {
            world.run(&Step::Refuse(Code::StorageFull));
            world.answer();
        }
        world.wait(RETRY_PAUSE_MS);
        world.pump();
    }
    world.run_to_the_end();
    world.check();
    assert_eq!(outcome_codes(&world), [Some(Code::StorageFull); 2]);
    let last = world.outcomes.values().last();
    assert!(
        matches!(last, Some(Err(PublishError::NotSent { after_ms: TIMEOUT_MS, last: Some(_) }))),
        "{last:?}"
    );
}

#[test]
fn a_broker_that_remembers_another_batch_ends_the_incarnation() {
    let mut world = world_with(1);
    world.judge(None);
    world.disconnect();
    let next_seq = world.broker.resume_point().unwrap().next_seq;
    world.line.handle_opened(Some(ResumePoint { next_seq, last: PreambleDigest::new([9; 32]) }));
    assert_eq!(world.line.spoiled().map(Refusal::code), Some(Code::Chain));
    world.line.spoiled = None;
    world.line.handle_opened(Some(ResumePoint { next_seq: 1_000, last: PreambleDigest::new([9; 32]) }));
    assert_eq!(world.line.spoiled().map(Refusal::code), Some(Code::Gap));
}

#[test]
fn a_restart_says_what_is_lost() {
    let mut world = world_with(2);
    world.judge(None);
    world.answer();
    let restarted = world.line.restart(&world.context, &world.key);
    assert_eq!(restarted.lost, [LostSpan { from: 2, to: 2 }]);
    assert_eq!(restarted.settled.len(), 1);
    assert!(matches!(restarted.settled[0].outcome, Err(PublishError::Lost)));
}

#[test]
fn a_stream_that_becomes_another_loses_what_was_sent_and_signs_the_rest_for_the_new_one() {
    let mut world = world_with(2);
    world.publish(1);
    let Taken::Batch(collected) = world.queue.take(Take::Any) else { panic!("a batch waits") };
    world.line.sign(collected, &world.context, &world.key);
    world.judge(None);
    world.disconnect();
    let stream = StreamId::new([9; 16]);
    world.line.handle_topic(world.topic.digest(&stream));
    world.line.handle_opened(None);
    assert_eq!(world.line.spoiled().map(Refusal::code), Some(Code::Binding));
    assert!(
        world.line.poll_transmit_at(world.now).is_none(),
        "nothing of the old stream goes to the new one"
    );
    assert!(world.line.can_restart() && world.line.has_orphans());
    world.context.incarnation_id = IncarnationId::new([9; 16]);
    let restarted = world.line.restart(&world.context, &world.key);
    assert_eq!(restarted.lost, [LostSpan { from: 1, to: 1 }, LostSpan { from: 2, to: 2 }]);
    let anew = world.line.poll_transmit_at(world.now).unwrap().bytes;
    let preamble = Preamble::decode(anew.first_chunk().unwrap()).unwrap();
    assert_eq!((preamble.first_seq, preamble.topic), (0, world.topic.digest(&stream)));
    // A line that has signed nothing takes any stream.
    let mut unused: Line<u64> = Line::new(world.topic.digest(&StreamId::ZERO), TIMEOUT_MS);
    unused.handle_topic(world.topic.digest(&stream));
    assert!(unused.spoiled().is_none());
}

#[test]
fn at_most_a_window_of_batches_is_unacknowledged() {
    let mut world = World::new();
    world.publish(0);
    world.run_to_the_end();
    let limits =
        QueueLimits { batch_bytes_max: 1, pending_bytes_max: 1 << 20, publish_timeout_ms: TIMEOUT_MS };
    world.queue = Queue::new(limits);
    world.tickets.clear();
    world.outcomes.clear();
    (0..UNACKNOWLEDGED_BATCHES_MAX + 10).for_each(|_| world.publish(1));
    world.pump();
    assert_eq!(world.to_broker.len(), UNACKNOWLEDGED_BATCHES_MAX);
}

#[test]
fn a_batch_that_is_signed_anew_keeps_its_messages_and_their_times() {
    let mut world = World::new();
    world.publish(3);
    world.now = Tick(70);
    world.publish(5);
    let Taken::Batch(collected) = world.queue.take(Take::Any) else { panic!("a batch waits") };
    world.line.sign(collected, &world.context, &world.key);
    let first = world.line.poll_transmit_at(world.now).unwrap().bytes;
    world.line.handle_disconnected();
    world.line.spoil(Refusal::new(Code::Time, "by the test"));
    world.line.stand(0, Standing::Orphaned);
    world.context.incarnation_id = IncarnationId::new([9; 16]);
    assert!(world.line.restart(&world.context, &world.key).lost.is_empty());
    let second = world.line.poll_transmit_at(world.now).unwrap().bytes;
    assert_ne!(first, second);
    assert_eq!(first[HEAD_LEN..], second[HEAD_LEN..]);
    let created = |bytes: &Bytes| Preamble::decode(bytes.first_chunk().unwrap()).unwrap().created_ms;
    assert_eq!(created(&first), created(&second));
}
