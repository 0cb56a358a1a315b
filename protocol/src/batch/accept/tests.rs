//! The order of judgement, and what each step refuses.

use std::net::{IpAddr, Ipv4Addr};

use proptest::prelude::*;

use super::*;
use crate::batch::testing::Producer;
use crate::batch::{Headers, produce::OpenBatch};
use crate::identity::Principal;
use crate::ids::StreamId;
use crate::policy::{Act, CompiledPolicy, Context, Policy, decide};

const NOW_MS: u64 = 1_000_200;
const TOPIC: &str = "orders/eu";
const LIVE: Receipt = Receipt { durability: Durability::Live, offset: None };

/// A broker's view of one producer and topic.
struct Bench {
    topic: Topic,
    proven: ProvenProducer,
    decision: Result<Permit, Denial>,
    state: SequenceState,
    fence: Fence,
    now_ms: u64,
    policy_version: u64,
}

impl Bench {
    fn new(producer: &Producer) -> Self {
        Self {
            topic: Topic::parse(TOPIC).unwrap(),
            proven: ProvenProducer {
                kid: producer.context.kid,
                key: producer.key.verifying_key(),
                instance_id: producer.context.instance_id,
                started_ms: producer.context.started_ms,
                incarnation_id: producer.context.incarnation_id,
            },
            decision: decision("publish"),
            state: SequenceState::new(),
            fence: Fence::Open,
            now_ms: NOW_MS,
            policy_version: 1,
        }
    }

    fn judge(&self, batch: Batch) -> Verdict {
        self.state.judge(
            batch,
            &Circumstances {
                bus_id: BusId::new([2; 16]),
                topic: &self.topic,
                topic_digest: self.topic.digest(&StreamId::ZERO),
                producer: &self.proven,
                policy_version: self.policy_version,
                decision: self.decision.as_ref(),
                fence: self.fence,
                now_ms: self.now_ms,
            },
        )
    }

    fn accept(&mut self, batch: Batch) {
        let Verdict::Accept(accepted) = self.judge(batch) else { panic!("the batch is good") };
        self.state.commit(&accepted, LIVE);
    }

    fn code(&self, batch: Batch) -> Code {
        match self.judge(batch) {
            Verdict::Refuse(refusal) => refusal.code(),
            Verdict::Equivocate(_) => Code::Equivocation,
            verdict @ (Verdict::Accept(_) | Verdict::Duplicate(_)) => panic!("not refused: {verdict:?}"),
        }
    }
}

/// The decision about publishing under a policy whose only rule has this verb.
fn decision(verb: &str) -> Result<Permit, Denial> {
    let document = format!(
        "version = 1\n[[allow]]\nid = \"anna\"\nwho = [\"spiffe://a.example/anna\"]\nverbs = [\"{verb}\"]\ntopics = [\"#\"]\n"
    );
    let policy = CompiledPolicy::compile(Policy::parse(&document).unwrap(), NOW_MS).unwrap();
    let anna = Principal::parse("spiffe://a.example/anna").unwrap();
    let topic = Topic::parse(TOPIC).unwrap();
    let context = Context { source: IpAddr::V4(Ipv4Addr::LOCALHOST), zone: None, now_ms: NOW_MS };
    decide(&policy, &anna, Act::Publish(&topic), &context)
}

/// The batch with some bytes of it replaced.
fn edited(batch: &Batch, at: usize, bytes: &[u8]) -> Batch {
    let mut copy = batch.bytes().to_vec();
    copy[at..at + bytes.len()].copy_from_slice(bytes);
    Batch::decode(copy.into()).unwrap()
}

#[test]
fn batches_in_order_are_accepted() {
    let mut producer = Producer::new(TOPIC);
    let mut bench = Bench::new(&producer);
    for _ in 0..3 * UNACKNOWLEDGED_BATCHES_MAX {
        let batch = producer.batch(&[b"one", b"two"]);
        bench.accept(batch);
    }
    let resume = bench.state.resume_point().unwrap();
    assert_eq!(resume.next_seq, 6 * UNACKNOWLEDGED_BATCHES_MAX as u64);
}

/// A batch that breaks every rule at once is refused by the first; with that one mended, by the next.
#[test]
fn the_first_broken_rule_in_order_speaks() {
    let mut producer = Producer::new(TOPIC);
    let mut bench = Bench::new(&producer);
    let first = producer.batch(&[b"one"]);
    let _skipped = producer.batch(&[b"two"]);
    let third = producer.batch(&[b"three"]);
    bench.accept(first);
    bench.decision = decision("subscribe");
    bench.fence = Fence::Superseded;
    bench.now_ms = NOW_MS + CREATED_BEHIND_MS_MAX + 1_000;

    let last = third.bytes().len() - 1;
    let bad_body = edited(&third, last, &[third.body()[third.body().len() - 1] ^ 1]);
    let bad_chain = edited(&bad_body, 232, &[0xff]);
    let other_life = edited(&bad_chain, 96, &[0xff]);
    let other_bus = edited(&other_life, 8, &[0xff]);

    assert_eq!(bench.code(other_bus), Code::Binding);
    assert_eq!(bench.code(other_life), Code::Session);
    assert_eq!(bench.code(bad_chain.clone()), Code::Denied);
    bench.decision = decision("publish");
    assert_eq!(bench.code(bad_chain.clone()), Code::Time);
    bench.now_ms = NOW_MS;
    assert_eq!(bench.code(bad_chain.clone()), Code::Fenced);
    bench.fence = Fence::Open;
    assert_eq!(bench.code(bad_chain.clone()), Code::Gap);
    bench.accept(_skipped);
    assert_eq!(bench.code(bad_chain), Code::Chain);
    assert_eq!(bench.code(bad_body), Code::Signature);
    bench.accept(third);
}

#[test]
fn a_batch_is_bound_to_bus_topic_and_policy() {
    let mut producer = Producer::new(TOPIC);
    let bench = Bench::new(&producer);
    let elsewhere = Producer::new("orders/us").batch(&[b"one"]);
    assert_eq!(bench.code(elsewhere), Code::Binding);
    let batch = producer.batch(&[b"one"]);
    assert_eq!(bench.code(edited(&batch, 56, &9u64.to_be_bytes())), Code::Binding, "a policy of the future");
}

#[test]
fn each_field_of_the_session_must_agree() {
    let batch = Producer::new(TOPIC).batch(&[b"one"]);
    let bench = Bench::new(&Producer::new(TOPIC));
    for (field, at) in [("kid", 64), ("instance", 96), ("started_ms", 112), ("incarnation", 120)] {
        assert_eq!(bench.code(edited(&batch, at, &[0xee])), Code::Session, "{field}");
    }
}

#[test]
fn a_retry_is_acknowledged_again_whatever_changed_since() {
    let mut producer = Producer::new(TOPIC);
    let mut bench = Bench::new(&producer);
    let batches: Vec<Batch> = (0..UNACKNOWLEDGED_BATCHES_MAX).map(|_| producer.batch(&[b"one"])).collect();
    batches.iter().for_each(|batch| bench.accept(batch.clone()));
    bench.decision = decision("subscribe");
    bench.fence = Fence::Superseded;
    bench.now_ms = NOW_MS + CREATED_BEHIND_MS_MAX + 1_000;
    for batch in batches {
        assert!(matches!(bench.judge(batch), Verdict::Duplicate(LIVE)));
    }
}

#[test]
fn what_is_older_than_the_window_or_across_batches_is_stale() {
    let mut producer = Producer::new(TOPIC);
    let mut bench = Bench::new(&producer);
    let oldest = producer.batch(&[b"one", b"two"]);
    bench.accept(oldest.clone());
    for _ in 0..UNACKNOWLEDGED_BATCHES_MAX {
        let batch = producer.batch(&[b"one", b"two"]);
        bench.accept(batch);
    }
    assert_eq!(bench.code(oldest), Code::Stale);
    let newest = producer.batch(&[b"one", b"two"]);
    bench.accept(newest.clone());
    let inside = newest.preamble().first_seq + 1;
    assert_eq!(bench.code(edited(&newest, 136, &inside.to_be_bytes())), Code::Stale);
}

#[test]
fn two_signed_batches_under_one_number_are_evidence() {
    let mut producer = Producer::new(TOPIC);
    let mut twin = Producer::new(TOPIC);
    let mut bench = Bench::new(&producer);
    let (one, other) = (producer.batch(&[b"one"]), twin.batch(&[b"uno"]));
    bench.accept(one.clone());
    let Verdict::Equivocate(evidence) = bench.judge(other.clone()) else { panic!("equivocation") };
    assert_eq!(evidence.first_seq, 0);
    assert_eq!(evidence.accepted, one.digest());
    assert_eq!(evidence.accepted_head.as_ref().unwrap()[..], one.bytes()[..HEAD_LEN]);
    assert_eq!(evidence.refused_head[..], other.bytes()[..HEAD_LEN]);
}

#[test]
fn an_unsigned_rival_is_no_evidence_against_its_supposed_producer() {
    let mut producer = Producer::new(TOPIC);
    let mut bench = Bench::new(&producer);
    let one = producer.batch(&[b"one"]);
    bench.accept(one.clone());
    assert_eq!(bench.code(edited(&one, 160, &[1])), Code::Time, "created_ms is far away");
    assert_eq!(bench.code(edited(&one, 167, &[one.bytes()[167] ^ 1])), Code::Signature);
}

#[test]
fn old_evidence_keeps_the_digest_only() {
    let mut producer = Producer::new(TOPIC);
    let mut twin = Producer::new(TOPIC);
    let mut bench = Bench::new(&producer);
    for _ in 0..=HEADS_KEPT {
        let batch = producer.batch(&[b"one"]);
        bench.accept(batch);
    }
    let Verdict::Equivocate(evidence) = bench.judge(twin.batch(&[b"uno"])) else { panic!("equivocation") };
    assert_eq!(evidence.accepted_head, None);
    assert!(!evidence.accepted.is_zero());
}

#[test]
fn a_heartbeat_takes_its_number_and_data_goes_on_behind_it() {
    let mut producer = Producer::new(TOPIC);
    let mut bench = Bench::new(&producer);
    let heartbeat = producer.chain.sign_heartbeat(1_000_100, &producer.context, &producer.key);
    bench.accept(Batch::decode(heartbeat.bytes().clone()).unwrap());
    let batch = producer.batch(&[b"one"]);
    assert_eq!(batch.preamble().first_seq, 1);
    bench.accept(batch);
}

#[test]
fn times_are_judged_at_both_ends() {
    let producer = Producer::new(TOPIC);
    let created = |created_ms| {
        let mut producer = Producer::new(TOPIC);
        let mut open = OpenBatch::new(created_ms);
        open.push(created_ms, b"", Headers::NONE, b"one").unwrap();
        let signed = producer.chain.sign(open, &producer.context, &producer.key);
        Batch::decode(signed.bytes().clone()).unwrap()
    };
    let mut bench = Bench::new(&producer);
    bench.now_ms = 10 * CREATED_BEHIND_MS_MAX;
    assert_eq!(bench.code(created(bench.now_ms + CLOCK_AHEAD_MS_MAX + 1)), Code::Time);
    assert_eq!(bench.code(created(bench.now_ms - CREATED_BEHIND_MS_MAX - 1)), Code::Time);
    assert_eq!(bench.code(created(u64::MAX)), Code::Time);
    assert_eq!(bench.code(created(0)), Code::Time);
    assert!(matches!(bench.judge(created(bench.now_ms + CLOCK_AHEAD_MS_MAX)), Verdict::Accept(_)));
    assert!(matches!(bench.judge(created(bench.now_ms - CREATED_BEHIND_MS_MAX)), Verdict::Accept(_)));
}

#[test]
fn a_restarted_broker_takes_the_sequence_from_the_first_batch() {
    let mut producer = Producer::new(TOPIC);
    let mut bench = Bench::new(&producer);
    let _before = producer.batch(&[b"one"]);
    let after = producer.batch(&[b"two"]);
    bench.accept(after);
    assert_eq!(bench.state.resume_point().unwrap().next_seq, 2);
}

/// Accepts `count` batches at these offsets, and gives them back with what stood behind each.
fn accepted(bench: &mut Bench, producer: &mut Producer, count: usize) -> Vec<Accepted> {
    let accept = |offset| {
        let batch = producer.batch(&[b"one", b"two"]);
        let Verdict::Accept(accepted) = bench.judge(batch) else { panic!("the batch is good") };
        let receipt = Receipt { durability: Durability::Fsync, offset: Some(offset) };
        bench.state.commit(&accepted, receipt);
        accepted
    };
    (0..count as u64).map(|at| 2 * at).map(accept).collect()
}

/// All that a judgement depends on.
fn told(state: &SequenceState) -> (Option<ResumePoint>, Vec<RememberedBatch>) {
    (state.end, state.remembered().collect())
}

#[test]
fn a_stream_begins_at_zero() {
    let mut producer = Producer::new(TOPIC);
    let mut bench = Bench::new(&producer);
    bench.state = SequenceState::from_start();
    let (first, second) = (producer.batch(&[b"one"]), producer.batch(&[b"two"]));
    assert_eq!(bench.state.resume_point(), None, "there is nothing to go on from");
    assert_eq!(bench.code(second.clone()), Code::Gap);
    bench.accept(first);
    assert_eq!(bench.state.resume_point().unwrap().next_seq, 1);
    bench.accept(second);
}

#[test]
fn batches_withdrawn_in_reverse_order_leave_the_state_as_it_was() {
    let mut producer = Producer::new(TOPIC);
    let mut bench = Bench::new(&producer);
    bench.state = SequenceState::from_start();
    let mut before = Vec::new();
    let mut batches = Vec::new();
    for _ in 0..UNACKNOWLEDGED_BATCHES_MAX {
        before.push(told(&bench.state));
        batches.extend(accepted(&mut bench, &mut producer, 1));
    }
    while let (Some(batch), Some(before)) = (batches.pop(), before.pop()) {
        bench.state.withdraw(&batch);
        assert_eq!(told(&bench.state), before);
    }
    assert_eq!(told(&bench.state), told(&SequenceState::from_start()));
}

#[test]
fn a_retry_of_what_was_withdrawn_is_new() {
    let mut producer = Producer::new(TOPIC);
    let mut bench = Bench::new(&producer);
    bench.state = SequenceState::from_start();
    let batches = accepted(&mut bench, &mut producer, 3);
    let [first, second, third] = &batches[..] else { panic!("three of them") };
    bench.state.withdraw(third);
    bench.state.withdraw(second);
    assert_eq!(bench.code(third.batch().clone()), Code::Gap);
    assert!(matches!(bench.judge(first.batch().clone()), Verdict::Duplicate(_)));
    bench.accept(second.batch().clone());
    bench.accept(third.batch().clone());
    assert!(matches!(bench.judge(third.batch().clone()), Verdict::Duplicate(LIVE)), "with its new receipt");
}

#[test]
fn the_number_of_what_was_withdrawn_may_be_used_for_another_batch() {
    let mut producer = Producer::new(TOPIC);
    let mut bench = Bench::new(&producer);
    let rival = Producer::new(TOPIC).batch(&[b"uno"]);
    let batches = accepted(&mut bench, &mut producer, 1);
    bench.state.withdraw(&batches[0]);
    bench.accept(rival);
}

#[test]
fn what_the_window_has_lost_does_not_come_back() {
    let mut producer = Producer::new(TOPIC);
    let mut bench = Bench::new(&producer);
    let batches = accepted(&mut bench, &mut producer, UNACKNOWLEDGED_BATCHES_MAX + 2);
    batches.iter().rev().take(2).for_each(|batch| bench.state.withdraw(batch));
    assert_eq!(bench.state.remembered().len(), UNACKNOWLEDGED_BATCHES_MAX - 2);
    for lost in &batches[..2] {
        assert_eq!(bench.code(lost.batch().clone()), Code::Stale);
    }
    assert!(matches!(bench.judge(batches[2].batch().clone()), Verdict::Duplicate(_)));
    bench.accept(batches[UNACKNOWLEDGED_BATCHES_MAX].batch().clone());
}

#[test]
#[should_panic(expected = "what was committed last is withdrawn first")]
fn only_the_last_batch_is_withdrawn() {
    let mut producer = Producer::new(TOPIC);
    let mut bench = Bench::new(&producer);
    let batches = accepted(&mut bench, &mut producer, 2);
    bench.state.withdraw(&batches[0]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// Whatever comes, the restored state says what the original says. Only the head of an equivocation is forgotten.
    #[test]
    fn a_restored_state_judges_as_the_original(
        count in 0usize..2 * UNACKNOWLEDGED_BATCHES_MAX,
        withdrawn in 0usize..4,
        picks in proptest::collection::vec(any::<prop::sample::Index>(), 12),
    ) {
        let (mut producer, mut twin) = (Producer::new(TOPIC), Producer::new(TOPIC));
        let mut bench = Bench::new(&producer);
        bench.state = SequenceState::from_start();
        let batches = accepted(&mut bench, &mut producer, count);
        batches.iter().rev().take(withdrawn).for_each(|batch| bench.state.withdraw(batch));
        let restored = SequenceState::restore(bench.state.remembered());
        prop_assert_eq!(told(&restored), told(&bench.state));
        prop_assert_eq!(restored.resume_point(), bench.state.resume_point());
        prop_assert!(restored.remembered().len() <= UNACKNOWLEDGED_BATCHES_MAX);

        let mut candidates: Vec<Batch> = batches.iter().map(|accepted| accepted.batch().clone()).collect();
        candidates.extend((0..2).map(|_| producer.batch(&[b"one", b"two"])));
        candidates.extend((0..count + 2).map(|_| twin.batch(&[b"uno", b"due"])));
        for pick in picks {
            let batch = pick.get(&candidates).clone();
            let original = verdict_in_words(&bench.judge(batch.clone()));
            let state = std::mem::replace(&mut bench.state, restored.clone());
            prop_assert_eq!(verdict_in_words(&bench.judge(batch)), original);
            bench.state = state;
        }
    }
}

fn verdict_in_words(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Accept(accepted) => format!("accept {}", accepted.digest),
        Verdict::Duplicate(receipt) => format!("duplicate {receipt:?}"),
        Verdict::Refuse(refusal) => refusal.to_string(),
        Verdict::Equivocate(evidence) => {
            format!("equivocation {} {:?} {}", evidence.accepted, evidence.refused_head, evidence.first_seq)
        }
    }
}

#[test]
fn of_more_batches_than_the_window_holds_the_last_are_restored() {
    let mut producer = Producer::new(TOPIC);
    let mut bench = Bench::new(&producer);
    let mut all = Vec::new();
    for _ in 0..UNACKNOWLEDGED_BATCHES_MAX + 3 {
        accepted(&mut bench, &mut producer, 1);
        all.extend(bench.state.remembered().last());
    }
    let restored = SequenceState::restore(all);
    assert_eq!(told(&restored), told(&bench.state));
    assert_eq!(told(&SequenceState::restore([])), told(&SequenceState::from_start()));
}

#[test]
fn a_refused_batch_consumes_no_sequence_number() {
    let mut producer = Producer::new(TOPIC);
    let mut bench = Bench::new(&producer);
    let batch = producer.batch(&[b"one"]);
    bench.decision = decision("subscribe");
    assert_eq!(bench.code(batch.clone()), Code::Denied);
    bench.decision = decision("publish");
    bench.accept(batch);
}

#[test]
#[should_panic(expected = "a permit is shown for the act that it was given for")]
fn a_permit_for_one_topic_is_not_good_for_another() {
    let mut producer = Producer::new("orders/us");
    let mut bench = Bench::new(&producer);
    bench.topic = Topic::parse("orders/us").unwrap();
    let _ = bench.judge(producer.batch(&[b"one"]));
}
