//! Batches in a row, any bytes or a good one with some bytes changed and perhaps signed anew: no panic, one encoding for
//! one value, and a broker's and a consumer's sequences that only ever move forwards.

#![no_main]

use std::net::{IpAddr, Ipv4Addr};
use std::sync::LazyLock;

use arbitrary::Arbitrary;
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use sealbus_protocol::batch::accept::{
    Circumstances, Durability, Fence, ProvenProducer, Receipt, SequenceState, Verdict,
};
use sealbus_protocol::batch::produce::{OpenBatch, ProducerChain, ProducerContext};
use sealbus_protocol::batch::read::SequenceReader;
use sealbus_protocol::batch::{Batch, HEAD_LEN, HeadersBuf, PREAMBLE_LEN, Records, Seal};
use sealbus_protocol::identity::Principal;
use sealbus_protocol::ids::{BusId, IncarnationId, InstanceId, StreamId};
use sealbus_protocol::keys::{Purpose, SigningKey};
use sealbus_protocol::policy::{Act, CompiledPolicy, Context, Permit, Policy, decide};
use sealbus_protocol::topic::Topic;
use zeroize::Zeroizing;

const NOW_MS: u64 = 1_767_225_600_000;
const LIVE: Receipt = Receipt { durability: Durability::Live, offset: None };
const POLICY: &str =
    "version = 1\n[[allow]]\nid = \"a\"\nwho = [\"dns:a\"]\nverbs = [\"publish\"]\ntopics = [\"#\"]\n";

/// One batch to be judged.
#[derive(Debug, Arbitrary)]
enum Attempt {
    /// These bytes.
    Raw(Vec<u8>),
    /// The good batch of this number, with some bytes changed.
    Edited { number: u8, edits: Vec<(u16, u8)>, resigned: Resigned },
    /// The good batch's head over this body.
    OtherBody { number: u8, count: u16, body: Vec<u8> },
}

#[derive(Debug, Arbitrary)]
enum Resigned {
    No,
    Preamble,
    BodyAndPreamble,
}

/// A producer, what it made, and what it may do.
struct World {
    key: SigningKey,
    producer: ProvenProducer,
    topic: Topic,
    permit: Permit,
    good: Vec<Bytes>,
}

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let key = SigningKey::from_seed(&Zeroizing::new([3; 32]));
    let principal = Principal::parse("dns:a").expect("a principal");
    let topic = Topic::parse("a/b").expect("a topic");
    let policy = CompiledPolicy::compile(Policy::parse(POLICY).expect("a policy"), NOW_MS).expect("no tests");
    let place = Context { source: IpAddr::V4(Ipv4Addr::LOCALHOST), zone: None, now_ms: NOW_MS };
    let permit = decide(&policy, &principal, Act::Publish(&topic), &place).expect("rule a");
    let public = key.verifying_key();
    let context = ProducerContext {
        bus_id: BusId::new([2; 16]),
        kid: public.kid(&principal),
        instance_id: InstanceId::new([3; 16]),
        started_ms: NOW_MS,
        incarnation_id: IncarnationId::new([4; 16]),
        policy_version: 1,
    };
    let producer = ProvenProducer {
        kid: context.kid,
        key: public,
        instance_id: context.instance_id,
        started_ms: context.started_ms,
        incarnation_id: context.incarnation_id,
    };
    let mut chain = ProducerChain::new(topic.digest(&StreamId::ZERO));
    let headers = HeadersBuf::new([("a", &b"1"[..]), ("b", b"")]).expect("headers");
    let good = (0..4_usize).map(|number| {
        let mut open = OpenBatch::new(NOW_MS);
        for _ in 0..=number {
            open.push(NOW_MS, b"key", headers.headers(), b"payload").expect("room");
        }
        chain.sign(open, &context, &key).bytes().clone()
    });
    let good = good.collect();
    World { key, producer, topic, permit, good }
});

fuzz_target!(|attempts: Vec<Attempt>| {
    let mut state = SequenceState::new();
    let mut reader = SequenceReader::new();
    for attempt in attempts.iter().take(16) {
        let bytes = bytes_of(attempt);
        let batch = match Batch::decode(bytes.clone()) {
            Ok(batch) => batch,
            Err(error) => {
                assert!(!error.to_string().is_empty());
                continue;
            }
        };
        check_form(&batch, &bytes);
        judge(&mut state, &batch);
        if let Ok(verified) = batch.verify(&WORLD.producer.key) {
            let first = reader.handle(&verified);
            assert!(reader.handle(&verified).is_err(), "the same again is a replay, after {first:?}");
        }
    }
});

fn bytes_of(attempt: &Attempt) -> Bytes {
    let good = |number: &u8| WORLD.good[usize::from(*number) % WORLD.good.len()].to_vec();
    match attempt {
        Attempt::Raw(bytes) => bytes.clone().into(),
        Attempt::Edited { number, edits, resigned } => {
            let mut batch = good(number);
            for (at, value) in edits {
                let at = usize::from(*at) % batch.len();
                batch[at] = *value;
            }
            match resigned {
                Resigned::No => {}
                Resigned::Preamble => sign(&mut batch),
                Resigned::BodyAndPreamble => {
                    hash(&mut batch);
                    sign(&mut batch);
                }
            }
            batch.into()
        }
        Attempt::OtherBody { number, count, body } => {
            let mut batch = good(number);
            batch.truncate(HEAD_LEN);
            batch.extend_from_slice(body);
            let body_len = u32::try_from(body.len()).expect("the fuzzer's input is short");
            batch[144..148].copy_from_slice(&u32::from(*count).to_be_bytes());
            batch[148..152].copy_from_slice(&body_len.to_be_bytes());
            hash(&mut batch);
            sign(&mut batch);
            batch.into()
        }
    }
}

fn hash(batch: &mut [u8]) {
    let hash = blake3::hash(&batch[HEAD_LEN..]);
    batch[264..296].copy_from_slice(hash.as_bytes());
}

fn sign(batch: &mut [u8]) {
    let signature = WORLD.key.sign(Purpose::Batch, &[&batch[..PREAMBLE_LEN]]);
    batch[PREAMBLE_LEN..HEAD_LEN].copy_from_slice(&signature);
}

/// What decodes has one encoding, and records that add up.
fn check_form(batch: &Batch, bytes: &Bytes) {
    assert_eq!(batch.bytes(), bytes);
    assert_eq!(&batch.preamble().encode(), batch.preamble_bytes());
    if batch.preamble().seal != Seal::None {
        return;
    }
    let mut body = Vec::new();
    let mut count = 0;
    for record in Records::new(batch.body()) {
        let record = record.expect("decode has parsed them all");
        record.encode(&mut body).expect("what was decoded is within its limits");
        assert!(record.headers.iter().count() <= 64);
        count += 1;
    }
    assert_eq!(count, batch.preamble().content.messages());
    assert_eq!(body, batch.body());
}

fn judge(state: &mut SequenceState, batch: &Batch) {
    let circumstances = Circumstances {
        bus_id: BusId::new([2; 16]),
        topic: &WORLD.topic,
        topic_digest: WORLD.topic.digest(&StreamId::ZERO),
        producer: &WORLD.producer,
        policy_version: 1,
        decision: Ok(&WORLD.permit),
        fence: Fence::Open,
        now_ms: NOW_MS,
    };
    let before = state.resume_point();
    match state.judge(batch.clone(), &circumstances) {
        Verdict::Accept(accepted) => {
            let first_seq = batch.preamble().first_seq;
            assert!(before.is_none_or(|before| before.next_seq == first_seq));
            assert!(before.is_none_or(|before| before.last == batch.preamble().prev));
            state.commit(&accepted, LIVE);
            let after = state.resume_point().expect("a batch was committed");
            assert!(after.next_seq > first_seq && after.last == batch.digest());
            let again = state.judge(batch.clone(), &circumstances);
            assert!(matches!(again, Verdict::Duplicate(LIVE)), "{again:?}");
        }
        Verdict::Duplicate(receipt) => assert_eq!(receipt, LIVE),
        Verdict::Refuse(refusal) => assert!(!refusal.reason().is_empty()),
        Verdict::Equivocate(evidence) => {
            assert_eq!(evidence.first_seq, batch.preamble().first_seq);
            assert_ne!(evidence.accepted, batch.digest());
        }
    }
}
