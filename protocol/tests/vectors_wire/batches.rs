//! `batch.json`.

use std::net::{IpAddr, Ipv4Addr};

use sealbus_protocol::batch::accept::{
    Circumstances, Durability, Fence, ProvenProducer, Receipt, SequenceState, Verdict,
};
use sealbus_protocol::batch::preamble::{Sealing, preamble_digest};
use sealbus_protocol::batch::produce::{OpenBatch, ProducerChain, ProducerContext};
use sealbus_protocol::batch::read::{Place, SequenceError, SequenceReader};
use sealbus_protocol::batch::{
    Batch, Content, HeadersBuf, Position, Preamble, Seal, VerifiedBatch, VerifyError,
};
use sealbus_protocol::ids::StreamId;
use sealbus_protocol::keys::{SigningKey, VerifyingKey};
use sealbus_protocol::policy::{Act, CompiledPolicy, Context, Denial, Permit, Policy, decide};
use sealbus_protocol::topic::Topic;
use serde_json::Value;
use zeroize::Zeroizing;

use crate::build::{array, bytes, format_word, id, list, number, principal, text, topic};

pub(crate) const FILE: &str = include_str!("../../vectors/batch.json");

fn signing_key(file: &Value) -> SigningKey {
    SigningKey::from_seed(&Zeroizing::new(array(&file["producer"]["signing_seed"])))
}

fn context(file: &Value) -> ProducerContext {
    let producer = &file["producer"];
    ProducerContext {
        bus_id: id(&producer["bus_id"]),
        kid: id(&producer["kid"]),
        instance_id: id(&producer["instance_id"]),
        started_ms: number(&producer["started_ms"]),
        incarnation_id: id(&producer["incarnation_id"]),
        policy_version: number(&producer["policy_version"]),
    }
}

fn decoded(case: &Value) -> Batch {
    Batch::decode(bytes(&case["batch"])).expect("a well-formed batch")
}

fn verified(file: &Value, case: &Value) -> VerifiedBatch {
    decoded(case).verify(&signing_key(file).verifying_key()).expect("a signed batch")
}

#[test]
fn the_producer_has_this_key_and_id() {
    let file = crate::parse(FILE);
    let key = signing_key(&file).verifying_key();
    assert_eq!(key.as_bytes(), &array(&file["producer"]["signing_key"]));
    assert_eq!(key.kid(&principal(&file["producer"]["principal"])), id(&file["producer"]["kid"]));
}

#[test]
fn batches_are_made_and_read_byte_for_byte() {
    let file = crate::parse(FILE);
    let (key, context) = (signing_key(&file), context(&file));
    let chains = list(&file["chains"]);
    assert_eq!(chains.len(), 5);
    for chain in chains {
        let name = text(&chain["name"]);
        let stream: StreamId = id(&chain["stream_id"]);
        let digest = topic(&file["producer"]["topic"]).digest(&stream);
        assert_eq!(digest, id(&chain["topic_digest"]), "{name}");
        let mut producer = ProducerChain::new(digest);
        for case in list(&chain["batches"]) {
            let created_ms = number(&case["created_ms"]);
            let mut open = OpenBatch::new(created_ms);
            for message in list(&case["messages"]) {
                let headers = headers(message);
                let published_ms = number(&message["published_ms"]);
                let (key, payload) = (bytes(&message["key"]), bytes(&message["payload"]));
                open.push(published_ms, &key, headers.headers(), &payload).expect("room for a message");
            }
            assert_eq!(producer.next_seq(), number(&case["first_seq"]), "{name}");
            let signed = if open.count() == 0 {
                producer.sign_heartbeat(created_ms, &context, &key)
            } else {
                producer.sign(open, &context, &key)
            };
            let expected =
                [bytes(&case["preamble"]), bytes(&case["signature"]), bytes(&case["body"])].concat();
            assert_eq!(signed.bytes(), &expected, "{name}");
            assert_eq!(signed.digest(), id(&case["digest"]), "{name}");
            assert_eq!(producer.next_seq(), number(&case["next_seq"]), "{name}");
            check_reading(&Batch::decode(expected.into()).expect(name), case, &key);
        }
    }
}

fn check_reading(batch: &Batch, case: &Value, key: &SigningKey) {
    assert_eq!(batch.preamble_bytes(), &array(&case["preamble"]));
    assert_eq!(batch.preamble().encode(), array(&case["preamble"]));
    assert_eq!(batch.preamble().prev, id(&case["prev"]));
    assert_eq!(batch.preamble().content_hash, id(&case["content_hash"]));
    assert_eq!(batch.digest(), id(&case["digest"]));
    let verified = batch.clone().verify(&key.verifying_key()).expect("a signed batch");
    let messages = list(&case["messages"]);
    assert_eq!(verified.records().count(), messages.len());
    for (record, message) in verified.records().zip(messages) {
        let published_ms = i128::from(number(&message["published_ms"]));
        let created_ms = i128::from(number(&case["created_ms"]));
        assert_eq!(i128::from(record.time_delta_ms), published_ms - created_ms);
        assert_eq!(
            (record.key, record.payload),
            (&bytes(&message["key"])[..], &bytes(&message["payload"])[..])
        );
        assert_eq!(record.headers.encoded(), headers(message).headers().encoded());
        for header in list(&message["headers"]) {
            assert_eq!(record.headers.value(text(&header[0])), Some(&bytes(&header[1])[..]));
        }
    }
}

fn headers(message: &Value) -> HeadersBuf {
    let headers: Vec<_> =
        list(&message["headers"]).iter().map(|header| (text(&header[0]), bytes(&header[1]))).collect();
    HeadersBuf::new(headers.iter().map(|(name, value)| (*name, &value[..]))).expect("headers")
}

#[test]
fn preambles_are_made_and_read_byte_for_byte() {
    let file = crate::parse(FILE);
    let context = context(&file);
    let cases = list(&file["preambles"]);
    assert_eq!(cases.len(), 5);
    for case in cases {
        let with = Sealing {
            key_epoch: u32::try_from(number(&case["key_epoch"])).expect("an epoch"),
            salt: array(&case["salt"]),
            sender_key: array(&case["sender_key"]),
        };
        let (flags, count) = (number(&case["flags"]), number(&case["count"]));
        let preamble = Preamble {
            seal: match number(&case["seal"]) {
                0 => Seal::None,
                1 => Seal::ChaCha20Poly1305 { with },
                _ => Seal::Aes256Gcm { with },
            },
            content: if flags & 1 == 1 {
                Content::Heartbeat
            } else {
                Content::Messages(u32::try_from(count).expect("a count"))
            },
            position: if flags & 2 == 2 { Position::Last } else { Position::Open },
            bus_id: context.bus_id,
            topic: id(&case["topic_digest"]),
            policy_version: context.policy_version,
            kid: context.kid,
            instance_id: context.instance_id,
            started_ms: context.started_ms,
            incarnation_id: context.incarnation_id,
            first_seq: u64::from_be_bytes(array(&case["first_seq"])),
            body_len: u32::try_from(number(&case["body_len"])).expect("a length"),
            created_ms: number(&case["created_ms"]),
            prev: id(&case["prev"]),
            content_hash: id(&case["content_hash"]),
        };
        let name = text(&case["name"]);
        assert_eq!(preamble.encode(), array(&case["preamble"]), "{name}");
        assert_eq!(Preamble::decode(&array(&case["preamble"])), Ok(preamble), "{name}");
        assert_eq!(preamble_digest(&array(&case["preamble"])), id(&case["digest"]), "{name}");
    }
}

#[test]
fn malformed_batches_are_refused_for_this_reason() {
    let file = crate::parse(FILE);
    let cases = list(&file["format"]);
    assert_eq!(cases.len(), 45);
    for case in cases {
        let name = text(&case["name"]);
        let error = Batch::decode(bytes(&case["batch"])).expect_err(name);
        assert_eq!(format_word(&error), text(&case["expect"]), "{name}");
    }
}

#[test]
fn signatures_and_hashes_are_verified() {
    let file = crate::parse(FILE);
    let cases = list(&file["verify"]);
    assert_eq!(cases.len(), 13);
    for case in cases {
        let key = VerifyingKey::parse(&array(&case["key"])).expect("a key");
        let found = match decoded(case).verify(&key) {
            Ok(_) => "valid",
            Err(VerifyError::ContentHash) => "content-hash",
            Err(VerifyError::Signature) => "signature",
        };
        assert_eq!(found, text(&case["expect"]), "{}", text(&case["name"]));
    }
}

#[test]
fn weak_keys_are_no_keys() {
    let file = crate::parse(FILE);
    let cases = list(&file["weak_keys"]);
    assert_eq!(cases.len(), 7);
    for case in cases {
        assert!(VerifyingKey::parse(&array(&case["key"])).is_err(), "{}", text(&case["name"]));
    }
}

/// The decision about publishing, by a policy whose only rule has this verb.
fn decision(file: &Value, name: &Topic, verb: &str, now_ms: u64) -> Result<Permit, Denial> {
    let producer = principal(&file["producer"]["principal"]);
    let document = format!(
        "version = 7\n[[allow]]\nid = \"rule\"\nwho = [\"{producer}\"]\nverbs = [\"{verb}\"]\ntopics = [\"#\"]\n"
    );
    let policy =
        CompiledPolicy::compile(Policy::parse(&document).expect("a policy"), now_ms).expect("no tests");
    let place = Context { source: IpAddr::V4(Ipv4Addr::LOCALHOST), zone: None, now_ms };
    decide(&policy, &producer, Act::Publish(name), &place)
}

#[test]
fn a_broker_judges_in_this_order() {
    let file = crate::parse(FILE);
    let context = context(&file);
    let name = topic(&file["producer"]["topic"]);
    let producer = ProvenProducer {
        kid: context.kid,
        key: signing_key(&file).verifying_key(),
        instance_id: context.instance_id,
        started_ms: context.started_ms,
        incarnation_id: context.incarnation_id,
    };
    let mut state = SequenceState::new();
    let steps = list(&file["broker"]);
    assert_eq!(steps.len(), 27);
    for step in steps {
        let now_ms = number(&step["now_ms"]);
        let verb = if text(&step["decision"]) == "permitted" { "publish" } else { "subscribe" };
        let decision = decision(&file, &name, verb, now_ms);
        let circumstances = Circumstances {
            bus_id: context.bus_id,
            topic: &name,
            topic_digest: name.digest(&StreamId::ZERO),
            producer: &producer,
            policy_version: number(&step["policy_version"]),
            decision: decision.as_ref(),
            fence: if text(&step["fence"]) == "open" { Fence::Open } else { Fence::Superseded },
            now_ms,
        };
        let found = match state.judge(decoded(step), &circumstances) {
            Verdict::Accept(accepted) => {
                state.commit(&accepted, Receipt { durability: Durability::Live, offset: None });
                "ACCEPTED"
            }
            Verdict::Duplicate(_) => "DUPLICATE",
            Verdict::Refuse(refusal) => refusal.code().as_str(),
            Verdict::Equivocate(_) => "EQUIVOCATION",
        };
        assert_eq!(found, text(&step["expect"]), "{}", text(&step["name"]));
    }
}

#[test]
fn a_consumer_follows_a_sequence_so() {
    let file = crate::parse(FILE);
    let mut reader = SequenceReader::new();
    let steps = list(&file["consumer"]);
    assert_eq!(steps.len(), 9);
    for step in steps {
        let found = match reader.handle(&verified(&file, step)) {
            Ok(Place::Next) => "next".to_owned(),
            Ok(Place::Again) => "again".to_owned(),
            Ok(Place::Joined) => "joined".to_owned(),
            Ok(Place::AfterGap { missed }) => format!("gap of {missed}"),
            Err(SequenceError::Replay { .. }) => "REPLAY".to_owned(),
            Err(SequenceError::Equivocation { .. }) => "EQUIVOCATION".to_owned(),
            Err(SequenceError::Chain { .. }) => "CHAIN".to_owned(),
        };
        assert_eq!(found, text(&step["expect"]), "{}", text(&step["name"]));
    }
}
