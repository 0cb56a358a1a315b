//! Every frame, in every form that it has.

use std::num::{NonZeroU32, NonZeroU64};

use bytes::{Bytes, BytesMut};

use crate::batch::accept::{Durability, Receipt, ResumePoint};
use crate::frame::admin::{Decision, Question};
use crate::frame::*;
use crate::identity::Principal;
use crate::ids::{BusId, IncarnationId, InstanceId, Kid, PolicyHash, PreambleDigest, StreamId};
use crate::limits::{
    BACKOFF_STEPS_MAX, BATCH_MESSAGES_MAX, NOTE_BYTES_MAX, PROOF_HASHES_MAX, RANGES_MAX, SETTLE_ITEMS_MAX,
    UNACKNOWLEDGED_MAX,
};
use crate::policy::Name;
use crate::refusal::{Code, Refusal};
use crate::stream_name::StreamName;
use crate::topic::{Topic, TopicFilter};

pub(super) fn topic(name: &str) -> Topic {
    Topic::parse(name).unwrap()
}

pub(super) fn filter(text: &str) -> TopicFilter {
    TopicFilter::parse(text).unwrap()
}

pub(super) fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

pub(super) fn stream(text: &str) -> StreamName {
    StreamName::parse(text).unwrap()
}

pub(super) fn some(number: u32) -> NonZeroU32 {
    NonZeroU32::new(number).unwrap()
}

pub(super) fn principal() -> Principal {
    Principal::parse("spiffe://acme.example/orders").unwrap()
}

pub(super) fn hello() -> Hello {
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

pub(super) fn welcome() -> Welcome {
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

pub(super) fn refusal() -> Refusal {
    Refusal::new(Code::Denied, "publish on flights/JFK/AA: no rule allows it")
}

/// Every frame that a client sends.
pub(super) fn client_frames() -> Vec<(Bytes, ClientFrame)> {
    let request = RequestId(7);
    let open = Open { request, topic: topic("flights/JFK/AA") };
    let publish = Publish { request, alias: Alias(3), batch: Bytes::from_static(b"batch") };
    let subscribe = Subscribe {
        request,
        subscription: SubscriptionId(4),
        credit_bytes: 1 << 20,
        filter: filter("flights/+/AA"),
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
    frames.extend(replays().into_iter().map(|replay| (replay.encode(), ClientFrame::Replay(replay))));
    frames.extend(consumes().into_iter().map(|consume| (consume.encode(), ClientFrame::Consume(consume))));
    frames.extend(settles().into_iter().map(|settle| (settle.encode(), ClientFrame::Settle(settle))));
    for leaf_index in [None, Some(0), Some(u64::MAX - 1)] {
        let get = CheckpointGet { request, old_size: 7, leaf_index, stream: stream("orders") };
        frames.push((get.encode(), ClientFrame::CheckpointGet(get)));
    }
    let questions = [
        Question::Publish(topic("a")),
        Question::Subscribe(topic("a/b")),
        Question::Admin,
        Question::Audit,
        Question::Replay(name("orders")),
        Question::Consume(name("orders")),
        Question::Describe(name("orders")),
    ];
    let operations = questions
        .into_iter()
        .flat_map(|question| {
            [None, Some(principal())]
                .map(|principal| Operation::CanI { principal, question: question.clone() })
        })
        .chain([Operation::PolicyReload, Operation::AuditRead { from: 5, lines_max: 6 }, Operation::Stats])
        .chain(listings())
        .chain(starts().map(|from| Operation::ConsumerReset { consumer: consumer(), from }));
    for operation in operations {
        let admin = AdminRequest { request, operation };
        frames.push((admin.encode(), ClientFrame::Admin(admin)));
    }
    let mut ping = BytesMut::new();
    Nonce(5).encode_ping(&mut ping);
    frames.push((ping.freeze(), ClientFrame::Ping(Nonce(5))));
    frames
}

pub(super) fn starts() -> [Start; 7] {
    [
        Start::Earliest,
        Start::Offset(0),
        Start::Offset(u64::MAX),
        Start::Time(1),
        Start::Last(0),
        Start::Last(10),
        Start::End,
    ]
}

pub(super) fn replays() -> Vec<Replay> {
    let replay = Replay {
        request: RequestId(7),
        subscription: SubscriptionId(4),
        credit_bytes: 1 << 20,
        from: Start::Earliest,
        until: Until::Live,
        stream: stream("orders"),
        filter: None,
    };
    let to_the_end = Replay { until: Until::End, filter: Some(filter("orders/#")), ..replay.clone() };
    let dead = Replay { stream: stream("$dead/orders/billing"), ..replay.clone() };
    let begun = starts().map(|from| Replay { from, ..replay.clone() });
    begun.into_iter().chain([to_the_end, dead]).collect()
}

pub(super) fn consumes() -> Vec<Consume> {
    let consume = Consume {
        request: RequestId(7),
        subscription: SubscriptionId(4),
        credit_bytes: 1 << 20,
        from: Start::Last(10),
        settings: ConsumerSettings::default(),
        stream: name("orders"),
        consumer: name("billing"),
        filter: None,
    };
    let choices = ConsumerChoices {
        ack_wait_ms: Some(some(1)),
        max_deliver: Some(MaxDeliver::Times(some(u32::MAX - 1))),
        unacknowledged_max: Some(some(UNACKNOWLEDGED_MAX)),
        backoff_ms: (0..BACKOFF_STEPS_MAX as u32).collect(),
    };
    let unlimited = ConsumerChoices { max_deliver: Some(MaxDeliver::NoLimit), ..ConsumerChoices::default() };
    let chosen = [choices, unlimited].map(|choices| Consume {
        settings: ConsumerSettings::new(choices).unwrap(),
        filter: Some(filter("orders/+")),
        ..consume.clone()
    });
    chosen.into_iter().chain([consume]).collect()
}

pub(super) fn settles() -> [Settle; 3] {
    let item = |offset, count, settlement| SettleItem { offset, count: some(count), settlement };
    let settle = |sync, items| {
        let request = RequestId(if sync == Sync::Yes { 7 } else { RequestId::UNAWAITED });
        Settle { request, subscription: SubscriptionId(4), sync, items }
    };
    let nack = Settlement::Nack { delay_ms: 5_000 };
    let many = (0..SETTLE_ITEMS_MAX as u64).map(|at| item(2 * at, 1, Settlement::Ack)).collect();
    [
        settle(Sync::No, vec![item(0, 1, Settlement::Ack)]),
        settle(Sync::Yes, vec![item(u64::MAX - 3, 3, nack), item(9, 1, Settlement::Nack { delay_ms: 0 })]),
        settle(Sync::Yes, many),
    ]
}

pub(super) fn consumer() -> ConsumerKey {
    ConsumerKey { stream: name("orders"), consumer: name("billing") }
}

pub(super) fn listings() -> [Operation; 6] {
    [
        Operation::Streams { name: None, after: None },
        Operation::Streams { name: Some(stream("orders")), after: None },
        Operation::Streams { name: None, after: Some(stream("$dead/orders/billing")) },
        Operation::Consumers { stream: None, after: None },
        Operation::Consumers { stream: Some(name("orders")), after: None },
        Operation::Consumers { stream: None, after: Some(consumer()) },
    ]
}

pub(super) fn stream_info() -> StreamInfo {
    StreamInfo {
        name: stream("orders"),
        id: StreamId::new([5; 16]),
        topics: vec![filter("orders/#"), filter("invoices/+")],
        durability: Durability::Interval,
        health: StreamHealth::Full,
        reason: "1 MiB is free, 64 MiB are reserved".into(),
        first: 1,
        end: 2,
        records: 3,
        bytes: 4,
        segments: 5,
        damaged: 6,
        checkpoint_size: 7,
        checkpoint_root: [8; 32],
        retention: RetentionInfo { age_ms: NonZeroU64::new(9), bytes: None, messages: NonZeroU64::new(10) },
        consumers: 11,
    }
}

pub(super) fn consumer_info() -> ConsumerInfo {
    ConsumerInfo {
        stream: name("orders"),
        name: name("billing"),
        filter: Some(filter("orders/+")),
        position: 1,
        end: 2,
        unacknowledged: 3,
        redelivering: 4,
        members: 5,
        lag: 6,
        delivered: 7,
        acknowledged: 8,
        dead: 9,
        ack_wait_ms: 10,
        max_deliver: 0,
        unacknowledged_max: 12,
    }
}

pub(super) fn broker_stats() -> BrokerStats {
    BrokerStats {
        uptime_ms: 1,
        sessions: 2,
        subscriptions: 3,
        streams: 4,
        consumers: 5,
        published: 6,
        published_bytes: 7,
        delivered: 8,
        acknowledged_batches: 9,
        refused: 10,
        disk_free: 11,
        disk_reserve: 12,
        data_bytes: 13,
        audit_lines: 14,
    }
}

/// What RESULT tells of streams and consumers.
pub(super) fn reports() -> Vec<Outcome> {
    let stopped = StreamInfo {
        name: stream("$dead/orders/billing"),
        topics: Vec::new(),
        health: StreamHealth::Stopped,
        retention: RetentionInfo::default(),
        ..stream_info()
    };
    let open = StreamInfo { health: StreamHealth::Open, reason: String::new(), ..stream_info() };
    let everything = ConsumerInfo { filter: None, ..consumer_info() };
    vec![
        Outcome::Streams { streams: vec![stream_info(), stopped, open], more: More::Yes },
        Outcome::Streams { streams: Vec::new(), more: More::No },
        Outcome::Consumers { consumers: vec![consumer_info(), everything], more: More::No },
        Outcome::ConsumerReset { position: 9 },
        Outcome::Stats(Box::new(broker_stats())),
    ]
}

pub(super) fn checkpoints() -> [CheckpointReply; 2] {
    let empty = CheckpointReply {
        request: RequestId(7),
        size: 0,
        prefix: Vec::new(),
        consistency: Vec::new(),
        inclusion: Vec::new(),
        note: String::new(),
    };
    let full = CheckpointReply {
        size: 9,
        prefix: vec![[1; 32]],
        consistency: vec![[2; 32], [3; 32]],
        inclusion: vec![[4; 32]; PROOF_HASHES_MAX],
        note: "é".repeat(NOTE_BYTES_MAX / 2),
        ..empty
    };
    [empty, full]
}

pub(super) fn delivers() -> Vec<Deliver> {
    let live = Deliver {
        subscription: SubscriptionId(4),
        alias: Alias(2),
        offset: Some(17),
        broker_ms: 18,
        topic: None,
        stored: None,
        ranges: None,
        batch: Bytes::from_static(b"batch"),
    };
    let named = Deliver { topic: Some(topic("flights/JFK/AA").into()), ..live.clone() };
    let of_stream = StreamTopic { topic: topic("orders/eu"), stream: StreamId::new([5; 16]) };
    let stored = StoredAt { policy_version: 3, leaf_index: 4 };
    let stored = Deliver { stored: Some(stored), offset: Some(0), ..live.clone() };
    let range =
        |first, count, deliveries| RecordRange { first, count: some(count), deliveries: some(deliveries) };
    let ranges = vec![range(0, 2, 1), range(2, 1, 5), range(BATCH_MESSAGES_MAX - 1, 1, u32::MAX)];
    let some_of_it = Deliver { ranges: Some(ranges), topic: Some(of_stream), ..stored.clone() };
    let scattered = (0..RANGES_MAX as u32).map(|at| range(2 * at, 1, 1)).collect();
    let most_of_it = Deliver { ranges: Some(scattered), ..stored.clone() };
    vec![live, named, stored, some_of_it, most_of_it]
}

/// Every frame that a broker sends.
pub(super) fn broker_frames() -> Vec<(Bytes, BrokerFrame)> {
    let request = RequestId(7);
    let resume = Some(ResumePoint { next_seq: 9, last: PreambleDigest::new([3; 32]) });
    let opened =
        [None, resume].map(|resume| Opened { request, alias: Alias(1), stream: StreamId::ZERO, resume });
    let receipts = [
        (Receipt { durability: Durability::Live, offset: None }, Freshness::New),
        (Receipt { durability: Durability::Fsync, offset: Some(0) }, Freshness::Duplicate),
    ];
    let refused = Refused { request, refusal: refusal() };
    let start = StreamStart { stream_id: StreamId::new([5; 16]), offset: 0, end: u64::MAX - 1 };
    let readies = [None, Some(start)].map(|start| Ready {
        request,
        subscription: SubscriptionId(4),
        narrowed: Narrowed::Yes,
        generation: 12,
        start,
    });
    let skips = [SkippedWhy::Trimmed, SkippedWhy::Damaged, SkippedWhy::Withdrawn].map(|why| Skipped {
        subscription: SubscriptionId(4),
        why,
        from: 0,
        to: u64::MAX,
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
        (Settled { request }.encode(), BrokerFrame::Settled(Settled { request })),
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
    frames.extend(readies.map(|ready| (ready.encode(), BrokerFrame::Ready(ready))));
    frames.extend(skips.map(|skipped| (skipped.encode(), BrokerFrame::Skipped(skipped))));
    frames.extend(checkpoints().map(|reply| (reply.encode(), BrokerFrame::Checkpoint(Box::new(reply)))));
    frames.extend(delivers().into_iter().map(|deliver| (deliver.encode(), BrokerFrame::Deliver(deliver))));
    frames.extend(outcomes.into_iter().chain(reports()).map(|outcome| {
        let result = AdminResult { request, outcome };
        (result.encode(), BrokerFrame::AdminResult(result))
    }));
    frames
}

pub(super) fn raw(bytes: &Bytes) -> RawFrame {
    let header = FrameHeader::decode(bytes.first_chunk().unwrap(), usize::MAX).unwrap();
    RawFrame { header, payload: bytes.slice(HEADER_LEN..) }
}
