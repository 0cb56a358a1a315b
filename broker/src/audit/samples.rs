//! Events for the tests of this module.

use sealbus_protocol::batch::{HEAD_LEN, PREAMBLE_LEN};
use sealbus_protocol::identity::{CertificateFacts, Principal, SerialNumber};
use sealbus_protocol::ids::{BusId, Kid, PolicyHash, StreamId};
use sealbus_protocol::policy::{
    Act, CompiledPolicy, Context, DenialRule, Narrowed, Policy, RuleId, Verb, decide,
};
use sealbus_protocol::refusal::Code;
use sealbus_protocol::topic::{Topic, TopicFilter};

use super::event::{
    Actor, BatchHead, CutReason, Event, Initiator, PolicyFacts, PreviousRun, PublishTraffic, SessionId,
    SessionTraffic, Target,
};
use super::stream::StreamChange;

/// The class, and what tells one line from another: class_uid, type_uid, severity, status, disposition.
pub(super) type Labels = (&'static str, u64, u64, u64, u64, Option<u64>);

pub(super) fn principal() -> Principal {
    Principal::parse("spiffe://acme.example/orders").unwrap()
}

pub(super) fn actor() -> Actor {
    actor_of(principal())
}

pub(super) fn actor_of(principal: Principal) -> Actor {
    Actor { session: SessionId(17), principal, source: "[::ffff:192.0.2.1]:5000".parse().unwrap() }
}

pub(super) fn topic() -> Topic {
    Topic::parse("orders/eu/created").unwrap()
}

pub(super) fn denied(actor: Actor, topic: Topic) -> Event {
    Event::Denied { actor, verb: Verb::Publish, target: Target::Topic(topic), rule: DenialRule::Default }
}

pub(super) fn admin_done() -> Event {
    Event::AdminDone { actor: actor(), operation: "policy reload" }
}

fn filter() -> TopicFilter {
    TopicFilter::parse("orders/#").unwrap()
}

/// Rule names are made by policies alone.
fn rule() -> RuleId {
    let text = "version = 1\n[[allow]]\nid = \"who-may\"\nwho = [\"spiffe://acme.example/orders\"]\nverbs = [\"admin\"]\n";
    let policy = CompiledPolicy::compile(Policy::parse(text).unwrap(), 0).unwrap();
    let context = Context { source: "192.0.2.1".parse().unwrap(), zone: None, now_ms: 0 };
    decide(&policy, &principal(), Act::Admin, &context).unwrap().rule().clone()
}

fn serial() -> SerialNumber {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.serial_number = Some(vec![0x01, 0xab].into());
    CertificateFacts::parse(params.self_signed(&key).unwrap().der()).unwrap().serial
}

fn head(preamble: u8, signature: u8) -> BatchHead {
    let mut bytes = [signature; HEAD_LEN];
    bytes[..PREAMBLE_LEN].fill(preamble);
    BatchHead::new(&bytes)
}

fn facts(version: u64) -> PolicyFacts {
    PolicyFacts { version, hash: PolicyHash::new([7; 32]), rules: 3 }
}

/// Each variant, and those of its cases that differ, with what its line must say.
pub(super) fn table() -> Vec<(Event, Labels)> {
    let source = "192.0.2.1:5000".parse().unwrap();
    let listener = "127.0.0.1:7433".parse().unwrap();
    let start = |previous| Event::BrokerStarted { version: "1.2.3", bus: BusId::new([1; 16]), previous };
    let reload = |before| Event::PolicyReloaded {
        generation: 2,
        before,
        after: facts(2),
        by: Initiator::Session(actor()),
    };
    let cut = |why| Event::SessionCut { actor: actor(), why };
    let deny = |verb, target| Event::Denied { actor: actor(), verb, target, rule: DenialRule::Deny(rule()) };
    let refuse =
        |code| Event::BatchRefused { actor: actor(), topic: topic(), code, reason: "a reason".to_owned() };
    let refused = |principal| Event::SessionRefused {
        source,
        principal,
        code: Code::Session,
        reason: "a reason".to_owned(),
    };
    let equivocation = |accepted_head| Event::Equivocation {
        actor: actor(),
        topic: topic(),
        first_seq: 9,
        accepted_head,
        refused_head: head(0xab, 0xcd),
    };
    let stream = |change| Event::Stream { name: "orders".to_owned(), id: StreamId::new([5; 16]), change };
    let process = || Initiator::Process;
    let reason = || "a reason".to_owned();
    vec![
        (start(PreviousRun::None), ("broker-started", 6002, 600_203, 1, 1, None)),
        (start(PreviousRun::Stopped), ("broker-started", 6002, 600_203, 1, 1, None)),
        (
            start(PreviousRun::Unclean { last_seq: Some(4), cut_bytes: 10 }),
            ("broker-started", 6002, 600_203, 3, 1, None),
        ),
        (
            start(PreviousRun::Unclean { last_seq: None, cut_bytes: 10 }),
            ("broker-started", 6002, 600_203, 3, 1, None),
        ),
        (Event::BrokerStopped, ("broker-stopped", 6002, 600_204, 1, 1, None)),
        (reload(None), ("policy-reloaded", 3004, 300_401, 1, 1, None)),
        (reload(Some(facts(1))), ("policy-reloaded", 3004, 300_403, 1, 1, None)),
        (
            Event::PolicyRefused { reason: reason(), by: process() },
            ("policy-refused", 3004, 300_403, 3, 2, None),
        ),
        (Event::TlsReloaded { by: process() }, ("tls-reloaded", 3004, 300_403, 1, 1, None)),
        (Event::TlsRefused { reason: reason(), by: process() }, ("tls-refused", 3004, 300_403, 3, 2, None)),
        (
            Event::HandshakeFailed { source, listener, reason: "not-tls", detail: reason() },
            ("handshake-failed", 4001, 400_104, 2, 2, None),
        ),
        (refused(None), ("session-refused", 3002, 300_201, 2, 2, Some(25))),
        (refused(Some(principal())), ("session-refused", 3002, 300_201, 2, 2, Some(25))),
        (
            Event::SessionOpened {
                actor: actor(),
                serial: serial(),
                issuer: "CN=Acme CA".to_owned(),
                kid: Kid::new([2; 32]),
                agent: "test/1".to_owned(),
                zone: "internal".to_owned(),
            },
            ("session-opened", 3002, 300_201, 1, 1, None),
        ),
        (
            Event::SessionClosed {
                actor: actor(),
                reason: reason(),
                traffic: SessionTraffic { published: 1, delivered: 2 },
            },
            ("session-closed", 3002, 300_202, 1, 1, None),
        ),
        (cut(CutReason::PrincipalRevoked(rule())), ("session-cut", 3002, 300_202, 2, 1, Some(24))),
        (cut(CutReason::CertificateRefused(reason())), ("session-cut", 3002, 300_202, 2, 1, Some(24))),
        (cut(CutReason::CertificateExpired), ("session-cut", 3002, 300_202, 2, 1, Some(24))),
        (cut(CutReason::MarkerTimeout), ("session-cut", 3002, 300_202, 2, 1, Some(6))),
        (cut(CutReason::Fenced), ("session-cut", 3002, 300_202, 2, 1, Some(6))),
        (cut(CutReason::Superseded), ("session-cut", 3002, 300_202, 2, 1, Some(6))),
        (cut(CutReason::Drained), ("session-cut", 3002, 300_202, 2, 1, Some(6))),
        (cut(CutReason::AuditUnavailable), ("session-cut", 3002, 300_202, 2, 1, Some(6))),
        (
            Event::Subscribed {
                actor: actor(),
                filter: filter(),
                narrowed: Narrowed::Yes,
                rules: vec![rule(); 20],
            },
            ("subscribed", 6003, 600_302, 1, 1, Some(1)),
        ),
        (
            Event::Unsubscribed { actor: actor(), filter: filter() },
            ("unsubscribed", 6003, 600_302, 1, 1, None),
        ),
        (
            Event::Opened { actor: actor(), topic: topic(), rule: rule() },
            ("opened", 6003, 600_301, 1, 1, Some(1)),
        ),
        (
            Event::Replaying {
                actor: actor(),
                stream: "orders".to_owned(),
                from: 17,
                narrowed: Narrowed::Yes,
                rules: vec![rule()],
            },
            ("replaying", 6003, 600_302, 1, 1, Some(1)),
        ),
        (
            Event::Consuming {
                actor: actor(),
                stream: "orders".to_owned(),
                consumer: "billing".to_owned(),
                rules: vec![rule()],
            },
            ("consuming", 6003, 600_302, 1, 1, Some(1)),
        ),
        (stream(StreamChange::Created), ("stream-created", 3004, 300_401, 1, 1, None)),
        (stream(StreamChange::Opened { first: 3, end: 9 }), ("stream-opened", 3004, 300_403, 1, 1, None)),
        (stream(StreamChange::Damaged(reason())), ("stream-damaged", 3004, 300_403, 5, 2, None)),
        (stream(StreamChange::Repaired(reason())), ("stream-repaired", 3004, 300_403, 2, 1, None)),
        (stream(StreamChange::Stopped(reason())), ("stream-stopped", 3004, 300_403, 5, 2, None)),
        (stream(StreamChange::Full), ("stream-full", 3004, 300_403, 4, 2, None)),
        (stream(StreamChange::Resumed), ("stream-resumed", 3004, 300_403, 1, 1, None)),
        (
            stream(StreamChange::SegmentSealed { from: 0, to: 9, bytes: 4_096 }),
            ("segment-sealed", 3004, 300_403, 1, 1, None),
        ),
        (
            stream(StreamChange::Trimmed { from: 0, to: 9, why: "age" }),
            ("stream-trimmed", 3004, 300_404, 1, 1, None),
        ),
        (
            stream(StreamChange::DeadLettered { consumer: "billing".to_owned(), offset: 7, records: 2 }),
            ("dead-lettered", 3004, 300_403, 2, 1, None),
        ),
        (Event::IndexRebuilt { reason: reason() }, ("index-rebuilt", 3004, 300_403, 3, 1, None)),
        (deny(Verb::Replay, Target::Stream("orders".to_owned())), ("denied", 6003, 600_302, 2, 2, Some(26))),
        (cut(CutReason::StreamsChanged), ("session-cut", 3002, 300_202, 2, 1, Some(6))),
        (deny(Verb::Publish, Target::Topic(topic())), ("denied", 6003, 600_301, 2, 2, Some(26))),
        (deny(Verb::Subscribe, Target::Filter(filter())), ("denied", 6003, 600_302, 2, 2, Some(26))),
        (deny(Verb::Audit, Target::Bus), ("denied", 6003, 600_302, 2, 2, Some(26))),
        (deny(Verb::Admin, Target::Bus), ("denied", 6003, 600_303, 2, 2, Some(26))),
        (refuse(Code::Signature), ("batch-refused", 2004, 200_401, 4, 2, Some(25))),
        (refuse(Code::Binding), ("batch-refused", 2004, 200_401, 4, 2, Some(25))),
        (refuse(Code::Gap), ("batch-refused", 6003, 600_301, 2, 2, Some(25))),
        (equivocation(None), ("equivocation", 2004, 200_401, 5, 2, Some(25))),
        (equivocation(Some(head(1, 2))), ("equivocation", 2004, 200_401, 5, 2, Some(25))),
        (admin_done(), ("admin-done", 6003, 600_303, 1, 1, Some(1))),
        (
            Event::AdminDenied { actor: actor(), operation: "audit read", rule: DenialRule::Default },
            ("admin-denied", 6003, 600_303, 2, 2, Some(26)),
        ),
        (
            Event::PublishSummary {
                actor: actor(),
                topic: topic(),
                traffic: PublishTraffic { messages: 10, bytes: 2_000, refused: 1 },
            },
            ("publish-summary", 6003, 600_301, 1, 1, None),
        ),
    ]
}
