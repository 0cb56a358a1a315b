//! Every frame: there and back, cut at every byte, lengthened, in the wrong direction.

use bytes::{Bytes, BytesMut};

use super::*;
use crate::batch::accept::{Durability, Receipt, ResumePoint};
use crate::frame::admin::{Decision, Question};
use crate::identity::Principal;
use crate::ids::{BusId, IncarnationId, InstanceId, Kid, PolicyHash, PreambleDigest, StreamId};
use crate::refusal::{Code, Refusal};
use crate::topic::{Topic, TopicFilter};

fn topic(name: &str) -> Topic {
    Topic::parse(name).unwrap()
}

fn principal() -> Principal {
    Principal::parse("spiffe://acme.example/orders").unwrap()
}

fn hello() -> Hello {
    Hello {
        bus_id: BusId::new([1; 16]),
        minor_min: 0,
        minor_max: 1,
        instance_kind: InstanceKind::Configured,
        features: 3,
        frame_bytes_max: 4,
        instance_id: InstanceId::new([5; 16]),
        started_ms: 6,
        incarnation_id: IncarnationId::new([7; 16]),
        kid: Kid::new([8; 32]),
        binding: Bytes::from_static(b"binding"),
        agent: "sealbus-client/0.1.0".into(),
        proof: [9; 64],
    }
}

fn welcome() -> Welcome {
    Welcome {
        minor: 0,
        incarnation: IncarnationState::Resumed,
        features: 1,
        limits: Limits {
            frame_bytes_max: 2,
            batch_bytes_max: 3,
            payload_bytes_max: 4,
            topics_max: 5,
            subscriptions_max: 6,
        },
        session_id: 7,
        broker_ms: 8,
        generation: 9,
        policy_version: 10,
        policy_hash: PolicyHash::new([11; 32]),
        principal: principal(),
    }
}

fn refusal() -> Refusal {
    Refusal::new(Code::Denied, "publish on flights/JFK/AA: no rule allows it")
}

/// Every frame that a client sends.
fn client_frames() -> Vec<(Bytes, ClientFrame)> {
    let request = RequestId(7);
    let open = Open { request, topic: topic("flights/JFK/AA") };
    let publish = Publish { request, alias: Alias(3), batch: Bytes::from_static(b"batch") };
    let subscribe = Subscribe {
        request,
        subscription: SubscriptionId(4),
        credit_bytes: 1 << 20,
        filter: TopicFilter::parse("flights/+/AA").unwrap(),
    };
    let close = Close(What::Subscription(SubscriptionId(4)));
    let credit = Credit { subscription: SubscriptionId(4), bytes: 9 };
    let get = BindingGet { request, kid: Kid::new([1; 32]) };
    let mut frames = vec![
        (hello().encode(), ClientFrame::Hello(Box::new(hello()))),
        (open.encode(), ClientFrame::Open(open)),
        (publish.encode(), ClientFrame::Publish(publish)),
        (subscribe.encode(), ClientFrame::Subscribe(subscribe)),
        (close.encode(), ClientFrame::Close(close)),
        (credit.encode(), ClientFrame::Credit(credit)),
        (get.encode(), ClientFrame::BindingGet(get)),
        (ErrorFrame(refusal()).encode(), ClientFrame::Error(ErrorFrame(refusal()))),
    ];
    let questions =
        [Question::Publish(topic("a")), Question::Subscribe(topic("a/b")), Question::Admin, Question::Audit];
    let operations = questions
        .into_iter()
        .flat_map(|question| {
            [None, Some(principal())]
                .map(|principal| Operation::CanI { principal, question: question.clone() })
        })
        .chain([Operation::PolicyReload, Operation::AuditRead { from: 5, lines_max: 6 }]);
    for operation in operations {
        let admin = AdminRequest { request, operation };
        frames.push((admin.encode(), ClientFrame::Admin(admin)));
    }
    let mut ping = BytesMut::new();
    Nonce(5).encode_ping(&mut ping);
    frames.push((ping.freeze(), ClientFrame::Ping(Nonce(5))));
    frames
}

/// Every frame that a broker sends.
fn broker_frames() -> Vec<(Bytes, BrokerFrame)> {
    let request = RequestId(7);
    let resume = Some(ResumePoint { next_seq: 9, last: PreambleDigest::new([3; 32]) });
    let opened =
        [None, resume].map(|resume| Opened { request, alias: Alias(1), stream: StreamId::ZERO, resume });
    let receipts = [
        (Receipt { durability: Durability::Live, offset: None }, Freshness::New),
        (Receipt { durability: Durability::Fsync, offset: Some(0) }, Freshness::Duplicate),
    ];
    let refused = Refused { request, refusal: refusal() };
    let ready = Ready { request, subscription: SubscriptionId(4), narrowed: Narrowed::Yes, generation: 12 };
    let delivers = [None, Some(topic("flights/JFK/AA"))].map(|topic| Deliver {
        subscription: SubscriptionId(4),
        alias: Alias(2),
        offset: Some(17),
        broker_ms: 18,
        topic,
        batch: Bytes::from_static(b"batch"),
    });
    let lagged = Lagged { subscription: SubscriptionId(4), missed: 1 };
    let generation = Generation { generation: 1, policy_version: 2, policy_hash: PolicyHash::new([3; 32]) };
    let binding = BindingReply { request: None, binding: Bytes::from_static(b"binding") };
    let closed = Closed(What::Alias(Alias(3)));
    let drain = Drain { deadline_ms: 10_000 };
    let outcomes = [
        Outcome::PolicyReloaded {
            generation: 1,
            version: 2,
            hash: PolicyHash::new([4; 32]),
            rules_before: 5,
            rules_after: 6,
            sessions_cut: 7,
        },
        Outcome::Decided { decision: Decision::Denied, why: "no rule allows it".into() },
        Outcome::AuditLines { from: 0, next: 2, lines: Bytes::from_static(b"{}\n{}\n") },
    ];
    let mut frames = vec![
        (welcome().encode(), BrokerFrame::Welcome(Box::new(welcome()))),
        (refused.encode(), BrokerFrame::Refused(refused)),
        (ready.encode(), BrokerFrame::Ready(ready)),
        (closed.encode(), BrokerFrame::Closed(closed)),
        (lagged.encode(), BrokerFrame::Lagged(lagged)),
        (generation.encode(), BrokerFrame::Generation(generation)),
        (binding.encode(), BrokerFrame::Binding(binding)),
        (drain.encode(), BrokerFrame::Drain(drain)),
        (ErrorFrame(refusal()).encode(), BrokerFrame::Error(ErrorFrame(refusal()))),
    ];
    frames.extend(opened.map(|opened| (opened.encode(), BrokerFrame::Opened(opened))));
    frames.extend(receipts.map(|(receipt, freshness)| {
        let ack = Ack { request, receipt, freshness, broker_ms: 5 };
        (ack.encode(), BrokerFrame::Ack(ack))
    }));
    frames.extend(delivers.map(|deliver| (deliver.encode(), BrokerFrame::Deliver(deliver))));
    frames.extend(outcomes.map(|outcome| {
        let result = AdminResult { request, outcome };
        (result.encode(), BrokerFrame::AdminResult(result))
    }));
    frames
}

fn raw(bytes: &Bytes) -> RawFrame {
    let header = FrameHeader::decode(bytes.first_chunk().unwrap(), usize::MAX).unwrap();
    RawFrame { header, payload: bytes.slice(HEADER_LEN..) }
}

#[test]
fn frames_come_back_as_they_were() {
    for (bytes, frame) in client_frames() {
        assert_eq!(ClientFrame::decode(&raw(&bytes)).as_ref(), Ok(&frame));
        assert_eq!(raw(&bytes).header.kind, frame.kind());
    }
    for (bytes, frame) in broker_frames() {
        assert_eq!(BrokerFrame::decode(&raw(&bytes)).as_ref(), Ok(&frame));
        assert_eq!(raw(&bytes).header.kind, frame.kind());
    }
}

#[test]
fn frames_do_not_parse_in_the_other_direction() {
    let both_ways = |kind| matches!(kind, FrameType::Ping | FrameType::Pong | FrameType::Error);
    for (bytes, frame) in client_frames() {
        assert_eq!(BrokerFrame::decode(&raw(&bytes)).is_ok(), both_ways(frame.kind()), "{}", frame.kind());
    }
    for (bytes, frame) in broker_frames() {
        assert_eq!(ClientFrame::decode(&raw(&bytes)).is_ok(), both_ways(frame.kind()), "{}", frame.kind());
    }
}

#[test]
fn cut_payloads_are_refused() {
    let carries_batch = |kind| matches!(kind, FrameType::Publish | FrameType::Deliver);
    let cut = |bytes: &Bytes, len| {
        let mut cut = raw(bytes);
        cut.payload.truncate(len);
        cut
    };
    for (bytes, frame) in client_frames() {
        let fixed = bytes.len() - HEADER_LEN - if carries_batch(frame.kind()) { "batch".len() } else { 0 };
        for len in 0..fixed {
            assert!(ClientFrame::decode(&cut(&bytes, len)).is_err(), "{} cut at {len}", frame.kind());
        }
    }
    for (bytes, frame) in broker_frames() {
        let fixed = bytes.len() - HEADER_LEN - if carries_batch(frame.kind()) { "batch".len() } else { 0 };
        for len in 0..fixed {
            assert!(BrokerFrame::decode(&cut(&bytes, len)).is_err(), "{} cut at {len}", frame.kind());
        }
    }
}

#[test]
fn bytes_behind_the_end_and_unknown_flags_are_refused() {
    let longer = |bytes: &Bytes| {
        let mut longer = raw(bytes);
        longer.payload = [&longer.payload[..], &[0]].concat().into();
        longer
    };
    let flagged = |bytes: &Bytes| {
        let mut flagged = raw(bytes);
        flagged.header.flags |= 0x80;
        flagged
    };
    for (bytes, frame) in client_frames() {
        assert!(frame.kind() == FrameType::Publish || ClientFrame::decode(&longer(&bytes)).is_err());
        assert!(ClientFrame::decode(&flagged(&bytes)).is_err(), "{}", frame.kind());
    }
    for (bytes, frame) in broker_frames() {
        assert!(frame.kind() == FrameType::Deliver || BrokerFrame::decode(&longer(&bytes)).is_err());
        assert!(BrokerFrame::decode(&flagged(&bytes)).is_err(), "{}", frame.kind());
    }
}

#[test]
fn frames_of_later_versions_are_known_by_name() {
    for kind in [FrameType::Replay, FrameType::Consume, FrameType::Settle] {
        let header = FrameHeader { kind, flags: 0, payload_len: 6 };
        let frame = RawFrame { header, payload: Bytes::from_static(&[0, 0, 0, 9, 1, 2]) };
        assert_eq!(
            ClientFrame::decode(&frame),
            Ok(ClientFrame::Later(Later { kind, request: RequestId(9) }))
        );
    }
}

#[test]
fn the_proof_covers_every_field_of_hello_but_the_bus_which_stands_before_them() {
    let payload = raw(&hello().encode()).payload;
    let covered = [hello().bus_id.as_bytes(), &hello().fields()[..]].concat();
    assert_eq!(payload[..payload.len() - 64], covered);
}
