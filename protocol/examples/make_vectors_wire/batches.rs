//! Batches: made, refused, verified, judged by a broker and by a consumer.

use bytes::Bytes;
use sealbus_protocol::batch::preamble::preamble_digest;
use sealbus_protocol::batch::produce::{OpenBatch, ProducerChain, ProducerContext, SignedBatch};
use sealbus_protocol::batch::{
    Batch, Content, HEAD_LEN, HeadersBuf, PREAMBLE_LEN, Position, Preamble, Seal, preamble::Sealing,
};
use sealbus_protocol::identity::Principal;
use sealbus_protocol::ids::{BusId, IncarnationId, InstanceId, PreambleDigest, StreamId};
use sealbus_protocol::keys::{Purpose, SIGNATURE_LEN, SigningKey};
use sealbus_protocol::topic::Topic;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::build::{format_word, unhex};
use crate::{hex, judged};

const SEED: [u8; 32] = [3; 32];
const OTHER_SEED: [u8; 32] = [4; 32];
const PRINCIPAL: &str = "spiffe://a.example/orders";
const TOPIC: &str = "orders/eu/created";
const STREAM: StreamId = StreamId::new([0x5e; 16]);
/// 1 January 2026.
const STARTED_MS: u64 = 1_767_225_600_000;
pub(crate) const CREATED_MS: u64 = STARTED_MS + 1_000;

/// One message: when it was published, key, headers, payload.
pub(crate) type Message<'a> = (u64, &'a [u8], &'a [(&'a str, &'a [u8])], &'a [u8]);

pub(crate) const ONE: Message<'static> = (CREATED_MS, b"", &[], b"one");

pub(crate) fn key() -> SigningKey {
    SigningKey::from_seed(&Zeroizing::new(SEED))
}

pub(crate) fn context() -> ProducerContext {
    let principal = Principal::parse(PRINCIPAL).expect("a principal");
    ProducerContext {
        bus_id: BusId::new([0xb5; 16]),
        kid: key().verifying_key().kid(&principal),
        instance_id: InstanceId::new([0x15; 16]),
        started_ms: STARTED_MS,
        incarnation_id: IncarnationId::new([0x1c; 16]),
        policy_version: 7,
    }
}

fn topic() -> Topic {
    Topic::parse(TOPIC).expect("a topic")
}

pub(crate) fn chain(stream: StreamId) -> ProducerChain {
    ProducerChain::new(topic().digest(&stream))
}

/// The first batch of the producer of these vectors, with one message.
pub(crate) fn first_batch() -> Bytes {
    signed(&mut chain(StreamId::ZERO), &[ONE]).bytes().clone()
}

pub(crate) fn signed(chain: &mut ProducerChain, messages: &[Message<'_>]) -> SignedBatch {
    let mut open = OpenBatch::new(CREATED_MS);
    for (published_ms, key, headers, payload) in messages {
        let headers = HeadersBuf::new(headers.iter().copied()).expect("headers that are allowed");
        open.push(*published_ms, key, headers.headers(), payload).expect("a batch has room for it");
    }
    chain.sign(open, &context(), &key())
}

pub(crate) fn vectors() -> Value {
    let context = context();
    json!({
        "about": "Batches, as SPEC.md describes them. 'producer' holds for all. 'chains': each batch follows from its \
                  fields, the producer and the batch before it. 'preambles': forms that this version's producers do \
                  not make, but that are well formed. 'format': bytes that are refused with FORMAT, and the rule that \
                  they break. 'verify': well-formed batches under a key. 'broker' and 'consumer': batches in a row, \
                  judged by one that knew nothing before the first.",
        "producer": {
            "signing_seed": hex(&SEED),
            "signing_key": hex(key().verifying_key().as_bytes()),
            "principal": PRINCIPAL,
            "kid": context.kid.to_string(),
            "bus_id": context.bus_id.to_string(),
            "instance_id": context.instance_id.to_string(),
            "started_ms": context.started_ms,
            "incarnation_id": context.incarnation_id.to_string(),
            "policy_version": context.policy_version,
            "topic": TOPIC,
        },
        "chains": chains(),
        "preambles": preambles(),
        "format": format(),
        "verify": verify(),
        "weak_keys": weak_keys(),
        "broker": judged::broker(),
        "consumer": judged::consumer(),
    })
}

fn chains() -> Value {
    let headers: &[(&str, &[u8])] = &[
        ("content-type", b"application/json"),
        ("message-id", b"17"),
        ("traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    ];
    let one = ONE;
    let with_key = (CREATED_MS + 2, &b"customer-17"[..], headers, &b"{\"id\":17}"[..]);
    let before = (CREATED_MS - 3, &b""[..], &[("empty", &b""[..])][..], &b""[..]);
    let binary = (CREATED_MS + 5, &[0, 0xff][..], &[][..], &[0, 1, 2, 0xfd, 0xfe, 0xff][..]);
    json!([
        one_chain("one message", StreamId::ZERO, &[Some(&[one])]),
        one_chain("in a stream", STREAM, &[Some(&[one])]),
        one_chain(
            "several messages with keys and headers",
            StreamId::ZERO,
            &[Some(&[with_key, before, binary])]
        ),
        one_chain("heartbeat, then data", StreamId::ZERO, &[None, Some(&[one])]),
        one_chain(
            "three batches",
            StreamId::ZERO,
            &[Some(&[one, before]), Some(&[with_key]), Some(&[binary, one, one])]
        ),
    ])
}

/// A chain of batches; `None` is a heartbeat.
fn one_chain(name: &str, stream: StreamId, batches: &[Option<&[Message<'_>]>]) -> Value {
    let mut chain = chain(stream);
    let batches: Vec<Value> = batches
        .iter()
        .map(|messages| {
            let signed = match messages {
                Some(messages) => signed(&mut chain, messages),
                None => chain.sign_heartbeat(CREATED_MS, &context(), &key()),
            };
            let batch = Batch::decode(signed.bytes().clone()).expect("what was just made is well formed");
            let preamble = batch.preamble();
            json!({
                "messages": messages.unwrap_or_default().iter().map(message).collect::<Vec<_>>(),
                "created_ms": CREATED_MS,
                "first_seq": preamble.first_seq,
                "next_seq": preamble.next_seq(),
                "prev": preamble.prev.to_string(),
                "body": hex(batch.body()),
                "content_hash": preamble.content_hash.to_string(),
                "preamble": hex(batch.preamble_bytes()),
                "signature": hex(batch.signature()),
                "digest": batch.digest().to_string(),
            })
        })
        .collect();
    json!({
        "name": name,
        "stream_id": stream.to_string(),
        "topic_digest": topic().digest(&stream).to_string(),
        "batches": batches,
    })
}

fn message((published_ms, key, headers, payload): &Message<'_>) -> Value {
    json!({
        "published_ms": published_ms,
        "key": hex(key),
        "headers": headers.iter().map(|(name, value)| json!([name, hex(value)])).collect::<Vec<_>>(),
        "payload": hex(payload),
    })
}

fn base() -> Preamble {
    let batch = Batch::decode(first_batch()).expect("what was just made is well formed");
    batch.preamble().clone()
}

fn preambles() -> Value {
    let sealing = Sealing { key_epoch: 3, salt: [0x5a; 32], sender_key: [0x5b; 32] };
    let later = Preamble { first_seq: 9, prev: PreambleDigest::new([9; 32]), ..base() };
    let end = Preamble { first_seq: u64::MAX - 1, prev: PreambleDigest::new([9; 32]), ..base() };
    [
        ("last batch", Preamble { position: Position::Last, ..base() }),
        (
            "last batch, a heartbeat",
            Preamble { position: Position::Last, content: Content::Heartbeat, body_len: 0, ..later.clone() },
        ),
        ("sealed with ChaCha20-Poly1305", Preamble {
            seal: Seal::ChaCha20Poly1305 { with: sealing },
            body_len: 28,
            ..base()
        }),
        ("sealed with AES-256-GCM", Preamble {
            seal: Seal::Aes256Gcm { with: sealing },
            body_len: 28,
            ..later
        }),
        ("the end of the sequence numbers", end),
    ]
    .into_iter()
    .map(|(name, preamble)| {
        let sealing = match &preamble.seal {
            Seal::None => None,
            Seal::ChaCha20Poly1305 { with } | Seal::Aes256Gcm { with } => Some(with),
        };
        json!({
            "name": name,
            "seal": match &preamble.seal {
                Seal::None => 0,
                Seal::ChaCha20Poly1305 { .. } => 1,
                Seal::Aes256Gcm { .. } => 2,
            },
            "flags": u8::from(preamble.content == Content::Heartbeat) + 2 * u8::from(preamble.position == Position::Last),
            "first_seq": format!("{:016x}", preamble.first_seq),
            "count": preamble.content.messages(),
            "body_len": preamble.body_len,
            "key_epoch": sealing.map_or(0, |sealing| sealing.key_epoch),
            "salt": hex(&sealing.map_or([0; 32], |sealing| sealing.salt)),
            "sender_key": hex(&sealing.map_or([0; 32], |sealing| sealing.sender_key)),
            "prev": preamble.prev.to_string(),
            "topic_digest": preamble.topic.to_string(),
            "created_ms": preamble.created_ms,
            "content_hash": preamble.content_hash.to_string(),
            "preamble": hex(&preamble.encode()),
            "digest": preamble_digest(&preamble.encode()).to_string(),
        })
    })
    .collect()
}

/// `first_batch` with some of its bytes replaced.
fn edited(at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut batch = first_batch().to_vec();
    batch[at..at + bytes.len()].copy_from_slice(bytes);
    batch
}

/// A batch of one message with this body. Its signature and content hash do not matter: FORMAT comes first.
fn with_body(body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(body.len()).expect("a short body").to_be_bytes();
    let mut batch = edited(148, &len);
    batch.truncate(HEAD_LEN);
    batch.extend_from_slice(body);
    batch
}

fn record(payload_len: u32, key_len: u16, headers: &[u8], rest: &[u8]) -> Vec<u8> {
    let headers_len = u16::try_from(headers.len()).expect("headers of a u16");
    [
        &payload_len.to_be_bytes()[..],
        &key_len.to_be_bytes(),
        &headers_len.to_be_bytes(),
        &[0; 4],
        headers,
        rest,
    ]
    .concat()
}

fn header(name: &[u8], value_len: u16, value: &[u8]) -> Vec<u8> {
    let name_len = u8::try_from(name.len()).expect("a short name");
    [&[name_len][..], name, &value_len.to_be_bytes(), value].concat()
}

fn format() -> Value {
    let whole = first_batch();
    let two = [header(b"a", 0, b""), header(b"b", 0, b"")].concat();
    let swapped = [header(b"b", 0, b""), header(b"a", 0, b"")].concat();
    let twice = [header(b"a", 0, b""), header(b"a", 0, b"")].concat();
    let many: Vec<u8> =
        (0..65_u8).flat_map(|number| header(&[b'a' + number / 10, b'0' + number % 10], 0, b"")).collect();
    let long: Vec<u8> = (0..2).flat_map(|number| header(&[b'a' + number], 8_190, &[0; 8_190])).collect();
    let headers = |headers: &[u8]| with_body(&record(0, 0, headers, b""));
    let two_records = [record(0, 0, b"", b""), record(0, 0, b"", b"")].concat();
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("nothing", Vec::new(), "length"),
        ("a preamble alone", whole[..PREAMBLE_LEN].to_vec(), "length"),
        ("the signature is cut", whole[..HEAD_LEN - 1].to_vec(), "length"),
        ("the body is cut", whole[..whole.len() - 1].to_vec(), "length"),
        ("a byte follows the body", [&whole[..], &[0]].concat(), "length"),
        ("another magic", edited(0, b"SBB2"), "magic"),
        ("suite 0", edited(4, &[0]), "suite"),
        ("suite 2", edited(4, &[2]), "suite"),
        ("seal 3", edited(5, &[3]), "seal"),
        ("sealed without key fields", edited(5, &[1]), "seal-fields"),
        ("an epoch without a seal", edited(152, &[0, 0, 0, 1]), "seal-fields"),
        ("a salt without a seal", edited(168, &[1]), "seal-fields"),
        ("a sender key without a seal", edited(200, &[1]), "seal-fields"),
        ("flag 4", edited(6, &[0, 4]), "flags"),
        ("flag 0x8000", edited(6, &[0x80, 0]), "flags"),
        ("a heartbeat with messages", edited(6, &[0, 1]), "count"),
        ("no message and no heartbeat", edited(144, &[0; 4]), "count"),
        ("65,537 messages", edited(144, &[0, 1, 0, 1]), "count"),
        ("a count without a body", edited(144, &[0, 1, 0, 0]), "body-length"),
        ("a body of 11 bytes for one message", edited(148, &[0, 0, 0, 11]), "body-length"),
        (
            "a heartbeat with a body",
            {
                let mut batch = edited(6, &[0, 1]);
                batch[144..148].copy_from_slice(&[0; 4]);
                batch
            },
            "body-length",
        ),
        ("a body of 4 GiB", edited(148, &[0xff; 4]), "body-too-long"),
        ("a batch of 1 MiB and one byte", edited(148, &1_048_217_u32.to_be_bytes()), "body-too-long"),
        ("the sequence numbers end inside", edited(136, &[0xff; 8]), "sequence-exhausted"),
        ("a predecessor before sequence 0", edited(232, &[1]), "chain-start"),
        ("no predecessor after sequence 0", edited(143, &[1]), "chain-start"),
        ("the reserved bytes", edited(159, &[1]), "reserved"),
        ("more records than messages", with_body(&two_records), "record-count"),
        (
            "fewer records than messages",
            {
                let mut batch = with_body(&record(12, 0, b"", &[0; 12]));
                batch[144..148].copy_from_slice(&2_u32.to_be_bytes());
                batch
            },
            "record-count",
        ),
        ("a record of which the payload is cut", with_body(&record(4, 0, b"", b"one")), "record-cut"),
        ("a record of which the key is cut", with_body(&record(0, 4, b"", b"one")), "record-cut"),
        (
            "bytes that are no record follow the last",
            with_body(&record(3, 0, b"", b"one and more")),
            "record-cut",
        ),
        ("a payload of 4 GiB", with_body(&record(u32::MAX, 0, b"", b"")), "payload-too-long"),
        ("a payload of 1,000,001 bytes", with_body(&record(1_000_001, 0, b"", b"")), "payload-too-long"),
        ("a key of 4,097 bytes", with_body(&record(0, 4_097, b"", &[0; 4_097])), "key-too-long"),
        ("headers of 16,386 bytes", headers(&long), "headers-too-long"),
        ("65 headers", headers(&many), "too-many-headers"),
        ("headers that are not sorted", headers(&swapped), "header-order"),
        ("a header twice", headers(&twice), "header-order"),
        ("a header name in capitals", headers(&header(b"Principal", 0, b"")), "header-name"),
        ("a header name with a line end", headers(&header(b"a\r\nb", 0, b"")), "header-name"),
        ("an empty header name", headers(&header(b"", 0, b"")), "header-name"),
        ("a header name that is not ASCII", headers(&header("é".as_bytes(), 0, b"")), "header-name"),
        ("headers of which the last is cut", headers(&two[..two.len() - 1]), "record-cut"),
        ("a header value longer than the headers", headers(&header(b"a", 4, b"one")), "record-cut"),
    ];
    cases
        .into_iter()
        .map(|(name, batch, expect)| {
            let error = Batch::decode(batch.clone().into()).expect_err(name);
            assert_eq!(format_word(&error), expect, "{name}");
            json!({ "name": name, "batch": hex(&batch), "expect": expect })
        })
        .collect()
}

fn verify() -> Value {
    let whole = first_batch();
    let public = *key().verifying_key().as_bytes();
    let other = SigningKey::from_seed(&Zeroizing::new(OTHER_SEED));
    let flipped = |at: usize| edited(at, &[whole[at] ^ 1]);
    let resigned = |purpose, key: &SigningKey| {
        let signature = key.sign(purpose, &[&whole[..PREAMBLE_LEN]]);
        edited(PREAMBLE_LEN, &signature)
    };
    let case = |name: &str, key: &[u8], batch: &[u8], expect: &str| json!({ "name": name, "key": hex(key), "batch": hex(batch), "expect": expect });
    json!([
        case("valid", &public, &whole, "valid"),
        case("one payload byte changed", &public, &flipped(whole.len() - 1), "content-hash"),
        case("the content hash changed", &public, &flipped(264), "content-hash"),
        case("the time changed", &public, &flipped(167), "signature"),
        case("the topic changed", &public, &flipped(24), "signature"),
        case("the signature changed", &public, &flipped(PREAMBLE_LEN), "signature"),
        case("the scalar of the signature changed", &public, &flipped(HEAD_LEN - 32), "signature"),
        case("the scalar of the signature plus the group order", &public, &malleated(&whole), "signature"),
        case("no signature", &public, &edited(PREAMBLE_LEN, &[0; SIGNATURE_LEN]), "signature"),
        case("under another label", &public, &resigned(Purpose::Session, &key()), "signature"),
        case("by another key", &public, &resigned(Purpose::Batch, &other), "signature"),
        case("under another key", other.verifying_key().as_bytes(), &whole, "signature"),
        case(
            "by and under another key",
            other.verifying_key().as_bytes(),
            &resigned(Purpose::Batch, &other),
            "valid"
        ),
    ])
}

/// The same signature with its scalar written in a second way, which a lenient verifier accepts.
fn malleated(batch: &[u8]) -> Vec<u8> {
    let order = unhex("edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010");
    let scalar = &batch[HEAD_LEN - 32..HEAD_LEN];
    let mut carry = 0_u16;
    let sum: Vec<u8> = scalar
        .iter()
        .zip(order)
        .map(|(one, two)| {
            let sum = u16::from(*one) + u16::from(two) + carry;
            carry = sum >> 8;
            sum.to_le_bytes()[0]
        })
        .collect();
    assert_eq!(carry, 0, "twice the order fits 32 bytes");
    edited(HEAD_LEN - 32, &sum)
}

fn weak_keys() -> Value {
    let one = |first: u8, middle: u8, last: u8| {
        let mut key = [middle; 32];
        key[0] = first;
        key[31] = last;
        hex(&key)
    };
    json!([
        { "name": "the identity", "key": one(1, 0, 0) },
        { "name": "order 2", "key": one(0xec, 0xff, 0x7f) },
        { "name": "order 4", "key": one(0, 0, 0) },
        { "name": "order 4, negative", "key": one(0, 0, 0x80) },
        { "name": "order 8", "key": "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a" },
        { "name": "order 8, negative", "key": "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa" },
        { "name": "not a point", "key": one(2, 0, 0) },
    ])
}
