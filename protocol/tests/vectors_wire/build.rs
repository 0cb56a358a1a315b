//! From the words of the vector files to the values of this crate. The generator of the files uses it to make the
//! bytes, the tests to compare them: what is in the files stays what it is when either changes.

use std::str::FromStr;

use bytes::{Bytes, BytesMut};
use sealbus_protocol::batch::accept::{Durability, Receipt, ResumePoint};
use sealbus_protocol::batch::{FormatError, RecordError};
use sealbus_protocol::frame::admin::{Decision, Question};
use sealbus_protocol::frame::{
    Ack, AdminRequest, AdminResult, Alias, BindingGet, BindingReply, BrokerFrame, ClientFrame, Close, Closed,
    Credit, Deliver, Drain, ErrorFrame, Frame, Freshness, Generation, Hello, IncarnationState, InstanceKind,
    Lagged, Limits, Narrowed, Nonce, Open, Opened, Operation, Outcome, Publish, Ready, Refused, RequestId,
    Settled, StreamTopic, Subscribe, SubscriptionId, Welcome, What,
};
use sealbus_protocol::identity::Principal;
use sealbus_protocol::ids::ParseIdError;
use sealbus_protocol::refusal::{Code, Refusal};
use sealbus_protocol::topic::{Topic, TopicFilter};
use sealbus_protocol::wire::DecodeError;
use serde_json::Value;

use crate::stream_build;

pub(crate) fn unhex(text: &str) -> Vec<u8> {
    assert_eq!(text.len() % 2, 0, "hex digits come in pairs");
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("hex digits"))
        .collect()
}

pub(crate) fn list(value: &Value) -> &[Value] {
    value.as_array().expect("a list")
}

pub(crate) fn text(value: &Value) -> &str {
    value.as_str().expect("a text")
}

pub(crate) fn number(value: &Value) -> u64 {
    value.as_u64().expect("a number")
}

pub(crate) fn bytes(value: &Value) -> Bytes {
    unhex(text(value)).into()
}

pub(crate) fn array<const N: usize>(value: &Value) -> [u8; N] {
    unhex(text(value)).try_into().expect("as many bytes as the field has")
}

/// An identifier of whichever kind is wanted.
pub(crate) fn id<T: FromStr<Err = ParseIdError>>(value: &Value) -> T {
    text(value).parse().expect("an identifier")
}

pub(crate) fn number32(value: &Value) -> u32 {
    u32::try_from(number(value)).expect("a number of four bytes")
}

fn number8(value: &Value) -> u8 {
    u8::try_from(number(value)).expect("a number of one byte")
}

pub(crate) fn topic(value: &Value) -> Topic {
    Topic::parse(text(value)).expect("a topic")
}

pub(crate) fn filter(value: &Value) -> TopicFilter {
    TopicFilter::parse(text(value)).expect("a filter")
}

pub(crate) fn principal(value: &Value) -> Principal {
    Principal::parse(text(value)).expect("a principal")
}

pub(crate) fn request(fields: &Value) -> RequestId {
    RequestId(number32(&fields["request"]))
}

pub(crate) fn alias(fields: &Value) -> Alias {
    Alias(number32(&fields["alias"]))
}

pub(crate) fn subscription(fields: &Value) -> SubscriptionId {
    SubscriptionId(number32(&fields["subscription"]))
}

/// The subscription that CLOSED is of.
pub(crate) fn subscription_of(fields: &Value) -> SubscriptionId {
    let id = match what(fields) {
        What::Subscription(id) => Some(id),
        What::Alias(_) => None,
    };
    id.expect("a subscription")
}

pub(crate) fn offset(fields: &Value) -> Option<u64> {
    fields["offset"].as_u64()
}

pub(crate) fn code(value: &Value) -> Code {
    let codes = (0..=u16::from(u8::MAX)).filter_map(Code::from_wire);
    codes.into_iter().find(|code| code.as_str() == text(value)).expect("the word of a code")
}

pub(crate) fn refusal(fields: &Value) -> Refusal {
    Refusal::new(code(&fields["code"]), text(&fields["reason"]))
}

pub(crate) fn what(fields: &Value) -> What {
    match text(&fields["what"]) {
        "alias" => What::Alias(Alias(number32(&fields["id"]))),
        word => {
            assert_eq!(word, "subscription");
            What::Subscription(SubscriptionId(number32(&fields["id"])))
        }
    }
}

pub(crate) fn receipt(fields: &Value) -> Receipt {
    let levels = (1..=4).filter_map(Durability::from_wire);
    let word = text(&fields["level"]);
    let durability =
        levels.into_iter().find(|level| level.as_str() == word).expect("the word of a durability");
    Receipt { durability, offset: offset(fields) }
}

/// One of two words.
fn either<T>(value: &Value, choices: [(&str, T); 2]) -> T {
    let word = text(value);
    let found = choices.into_iter().find(|(choice, _)| *choice == word);
    found.expect("one of two words").1
}

pub(crate) fn narrowed(fields: &Value) -> Narrowed {
    if fields["narrowed"].as_bool().expect("true or false") { Narrowed::Yes } else { Narrowed::No }
}

pub(crate) fn hello(fields: &Value) -> Hello {
    Hello {
        bus_id: id(&fields["bus_id"]),
        minor_min: number8(&fields["minor_min"]),
        minor_max: number8(&fields["minor_max"]),
        instance_kind: either(
            &fields["instance_kind"],
            [("random", InstanceKind::Random), ("configured", InstanceKind::Configured)],
        ),
        features: number(&fields["features"]),
        frame_bytes_max: number32(&fields["frame_bytes_max"]),
        instance_id: id(&fields["instance_id"]),
        started_ms: number(&fields["started_ms"]),
        incarnation_id: id(&fields["incarnation_id"]),
        kid: id(&fields["kid"]),
        binding: bytes(&fields["binding"]),
        agent: text(&fields["agent"]).to_owned(),
        proof: array(&fields["proof"]),
    }
}

pub(crate) fn welcome(fields: &Value) -> Welcome {
    Welcome {
        minor: number8(&fields["minor"]),
        incarnation: either(
            &fields["incarnation"],
            [("new", IncarnationState::New), ("resumed", IncarnationState::Resumed)],
        ),
        features: number(&fields["features"]),
        limits: Limits {
            frame_bytes_max: number32(&fields["frame_bytes_max"]),
            batch_bytes_max: number32(&fields["batch_bytes_max"]),
            payload_bytes_max: number32(&fields["payload_bytes_max"]),
            topics_max: number32(&fields["topics_max"]),
            subscriptions_max: number32(&fields["subscriptions_max"]),
        },
        session_id: number(&fields["session_id"]),
        broker_ms: number(&fields["broker_ms"]),
        generation: number(&fields["generation"]),
        policy_version: number(&fields["policy_version"]),
        policy_hash: id(&fields["policy_hash"]),
        principal: principal(&fields["principal"]),
    }
}

pub(crate) fn resume(fields: &Value) -> Option<ResumePoint> {
    let point = fields["resume"].as_object()?;
    Some(ResumePoint { next_seq: number(&point["next_seq"]), last: id(&point["last"]) })
}

pub(crate) fn generation(fields: &Value) -> Generation {
    Generation {
        generation: number(&fields["generation"]),
        policy_version: number(&fields["policy_version"]),
        policy_hash: id(&fields["policy_hash"]),
    }
}

pub(crate) fn operation(fields: &Value) -> Operation {
    match text(&fields["operation"]) {
        "policy-reload" => Operation::PolicyReload,
        "can-i" => Operation::CanI {
            principal: fields["principal"].is_string().then(|| principal(&fields["principal"])),
            question: match text(&fields["verb"]) {
                "publish" => Question::Publish(topic(&fields["topic"])),
                "subscribe" => Question::Subscribe(topic(&fields["topic"])),
                "admin" => Question::Admin,
                "audit" => Question::Audit,
                "replay" => Question::Replay(stream_build::name(&fields["stream"])),
                "consume" => Question::Consume(stream_build::name(&fields["stream"])),
                word => {
                    assert_eq!(word, "describe");
                    Question::Describe(stream_build::name(&fields["stream"]))
                }
            },
        },
        "audit-read" => {
            Operation::AuditRead { from: number(&fields["from"]), lines_max: number32(&fields["lines_max"]) }
        }
        _ => stream_build::operation(fields),
    }
}

pub(crate) fn outcome(fields: &Value) -> Outcome {
    match text(&fields["operation"]) {
        "policy-reload" => Outcome::PolicyReloaded {
            generation: number(&fields["generation"]),
            version: number(&fields["version"]),
            hash: id(&fields["hash"]),
            rules_before: number32(&fields["rules_before"]),
            rules_after: number32(&fields["rules_after"]),
            sessions_cut: number32(&fields["sessions_cut"]),
        },
        "can-i" => Outcome::Decided {
            decision: either(
                &fields["decision"],
                [("permitted", Decision::Permitted), ("denied", Decision::Denied)],
            ),
            why: text(&fields["why"]).to_owned(),
        },
        "audit-read" => Outcome::AuditLines {
            from: number(&fields["from"]),
            next: number(&fields["next"]),
            lines: bytes(&fields["lines"]),
        },
        _ => stream_build::outcome(fields),
    }
}

fn ping(nonce: Nonce) -> Bytes {
    let mut out = BytesMut::new();
    nonce.encode_ping(&mut out);
    out.freeze()
}

fn pong(nonce: Nonce) -> Bytes {
    let mut out = BytesMut::new();
    nonce.encode_pong(&mut out);
    out.freeze()
}

pub(crate) fn nonce(fields: &Value) -> Nonce {
    Nonce(u64::from_be_bytes(array(&fields["nonce"])))
}

/// A frame that a client sends: its bytes, and what a broker must read in them.
pub(crate) fn client_frame(name: &str, fields: &Value) -> (Bytes, ClientFrame) {
    match name {
        "HELLO" => both(hello(fields), |hello| ClientFrame::Hello(Box::new(hello))),
        "OPEN" => both(Open { request: request(fields), topic: topic(&fields["topic"]) }, ClientFrame::Open),
        "PUBLISH" => both(
            Publish { request: request(fields), alias: alias(fields), batch: bytes(&fields["batch"]) },
            ClientFrame::Publish,
        ),
        "SUBSCRIBE" => both(
            Subscribe {
                request: request(fields),
                subscription: subscription(fields),
                credit_bytes: number(&fields["credit_bytes"]),
                filter: filter(&fields["filter"]),
            },
            ClientFrame::Subscribe,
        ),
        "CLOSE" => both(Close(what(fields)), ClientFrame::Close),
        "CREDIT" => both(
            Credit { subscription: subscription(fields), bytes: number(&fields["bytes"]) },
            ClientFrame::Credit,
        ),
        "BINDING_GET" => {
            both(BindingGet { request: request(fields), kid: id(&fields["kid"]) }, ClientFrame::BindingGet)
        }
        "ADMIN" => {
            both(AdminRequest { request: request(fields), operation: operation(fields) }, ClientFrame::Admin)
        }
        "PING" => (ping(nonce(fields)), ClientFrame::Ping(nonce(fields))),
        "PONG" => (pong(nonce(fields)), ClientFrame::Pong(nonce(fields))),
        "REPLAY" => both(stream_build::replay(fields), ClientFrame::Replay),
        "CONSUME" => both(stream_build::consume(fields), ClientFrame::Consume),
        "SETTLE" => both(stream_build::settle(fields), ClientFrame::Settle),
        "CHECKPOINT_GET" => both(stream_build::checkpoint_get(fields), ClientFrame::CheckpointGet),
        other => {
            assert_eq!(other, "ERROR", "a frame of clients");
            both(ErrorFrame(refusal(fields)), ClientFrame::Error)
        }
    }
}

/// A frame that a broker sends: its bytes, and what a client must read in them.
pub(crate) fn broker_frame(name: &str, fields: &Value) -> (Bytes, BrokerFrame) {
    match name {
        "WELCOME" => both(welcome(fields), |welcome| BrokerFrame::Welcome(Box::new(welcome))),
        "OPENED" => both(
            Opened {
                request: request(fields),
                alias: alias(fields),
                stream: id(&fields["stream_id"]),
                resume: resume(fields),
            },
            BrokerFrame::Opened,
        ),
        "ACK" => both(ack(fields), BrokerFrame::Ack),
        "REFUSED" => {
            both(Refused { request: request(fields), refusal: refusal(fields) }, BrokerFrame::Refused)
        }
        "READY" => both(
            Ready {
                request: request(fields),
                subscription: subscription(fields),
                narrowed: narrowed(fields),
                generation: number(&fields["generation"]),
                start: stream_build::stream_start(fields),
            },
            BrokerFrame::Ready,
        ),
        "CLOSED" => both(Closed(what(fields)), BrokerFrame::Closed),
        "DELIVER" => both(
            Deliver {
                subscription: subscription(fields),
                alias: alias(fields),
                offset: offset(fields),
                broker_ms: number(&fields["broker_ms"]),
                topic: fields["topic"].is_string().then(|| StreamTopic {
                    topic: topic(&fields["topic"]),
                    stream: id(&fields["stream_id"]),
                }),
                stored: stream_build::stored(fields),
                ranges: stream_build::ranges(fields),
                batch: bytes(&fields["batch"]),
            },
            BrokerFrame::Deliver,
        ),
        "LAGGED" => both(
            Lagged { subscription: subscription(fields), missed: number(&fields["missed"]) },
            BrokerFrame::Lagged,
        ),
        "SKIPPED" => both(stream_build::skipped(fields), BrokerFrame::Skipped),
        "SETTLED" => both(Settled { request: request(fields) }, BrokerFrame::Settled),
        "CHECKPOINT" => {
            both(stream_build::checkpoint(fields), |reply| BrokerFrame::Checkpoint(Box::new(reply)))
        }
        "GENERATION" => both(generation(fields), BrokerFrame::Generation),
        "BINDING" => both(
            BindingReply {
                request: fields["request"].is_u64().then(|| request(fields)),
                binding: bytes(&fields["binding"]),
            },
            BrokerFrame::Binding,
        ),
        "RESULT" => {
            both(AdminResult { request: request(fields), outcome: outcome(fields) }, BrokerFrame::AdminResult)
        }
        "PING" => (ping(nonce(fields)), BrokerFrame::Ping(nonce(fields))),
        "PONG" => (pong(nonce(fields)), BrokerFrame::Pong(nonce(fields))),
        "DRAIN" => both(Drain { deadline_ms: number32(&fields["deadline_ms"]) }, BrokerFrame::Drain),
        other => {
            assert_eq!(other, "ERROR", "a frame of brokers");
            both(ErrorFrame(refusal(fields)), BrokerFrame::Error)
        }
    }
}

pub(crate) fn ack(fields: &Value) -> Ack {
    Ack {
        request: request(fields),
        receipt: receipt(fields),
        freshness: either(&fields["fresh"], [("new", Freshness::New), ("duplicate", Freshness::Duplicate)]),
        broker_ms: number(&fields["broker_ms"]),
    }
}

fn both<F: Frame, T>(frame: F, wrap: impl FnOnce(F) -> T) -> (Bytes, T) {
    (frame.encode(), wrap(frame))
}

/// The word of the vector files for what is wrong with a batch.
pub(crate) fn format_word(error: &FormatError) -> &'static str {
    match error {
        FormatError::Magic => "magic",
        FormatError::Suite { .. } => "suite",
        FormatError::Seal { .. } => "seal",
        FormatError::SealFields => "seal-fields",
        FormatError::Flags { .. } => "flags",
        FormatError::Count { .. } => "count",
        FormatError::BodyTooLong { .. } => "body-too-long",
        FormatError::BodyLength { .. } => "body-length",
        FormatError::SequenceExhausted => "sequence-exhausted",
        FormatError::ChainStart => "chain-start",
        FormatError::Field(DecodeError::Value { field: "reserved" }) => "reserved",
        FormatError::Field(_) => "field",
        FormatError::Length { .. } => "length",
        FormatError::Record { error, .. } => match error {
            RecordError::TooLong { part: "payload", .. } => "payload-too-long",
            RecordError::TooLong { part: "key", .. } => "key-too-long",
            RecordError::TooLong { .. } => "headers-too-long",
            RecordError::TooManyHeaders => "too-many-headers",
            RecordError::HeaderName => "header-name",
            RecordError::HeaderOrder => "header-order",
            RecordError::Count => "record-count",
            RecordError::Field(_) => "record-cut",
        },
    }
}
