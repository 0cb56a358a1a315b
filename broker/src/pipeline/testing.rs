//! A bus and a client on it, without a network: for the tests of this module.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use sealbus_protocol::batch::Headers;
use sealbus_protocol::batch::accept::{ProvenProducer, SequenceState};
use sealbus_protocol::batch::produce::{OpenBatch, ProducerChain, ProducerContext};
use sealbus_protocol::frame::InstanceKind;
use sealbus_protocol::identity::Principal;
use sealbus_protocol::ids::{BusId, IncarnationId, InstanceId, PolicyHash, StreamId};
use sealbus_protocol::keys::SigningKey;
use sealbus_protocol::policy::{CompiledPolicy, Policy};
use sealbus_protocol::session::Tick;
use sealbus_protocol::topic::Topic;
use tokio::sync::mpsc;

use super::admin::Administering;
use super::capture::KeyRecord;
use super::client::{Client, Ended, Intake};
use super::decide::Decisions;
use super::fan_out::FanOut;
use super::open::{Destination, OpenTopic};
use super::patience::Patience;
use super::pending::Pending;
use super::reading::Readings;
use super::route::Route;
use super::summaries::Summaries;
use crate::audit::{Actor, Audit, AuditThread, Event, PublishTraffic, SessionId, SessionTraffic};
use crate::bindings::Binding;
use crate::bus::{Beginnings, Bus};
use crate::clock::ManualClock;
use crate::config::{AuditConfig, LimitsConfig, StorageConfig};
use crate::outbox::Outbox;
use crate::party::Party;
use crate::policy::PolicyInForce;
use crate::producers::SequenceKey;
use crate::sessions::Handle;
use crate::storage::whole::{Storage, StorageParts};
use crate::vfs::{OsVfs, Vfs};

pub(super) const NOW_MS: u64 = 1_700_000_000_000;

const POLICY: &str = r#"
version = 1
[[allow]]
id = "anna-writes"
who = ["spiffe://a.example/anna"]
verbs = ["publish"]
topics = ["t"]
"#;

/// A bus, and what moves it.
pub(super) struct Parts {
    pub(super) bus: Arc<Bus>,
    pub(super) clock: Arc<ManualClock>,
    pub(super) thread: AuditThread,
}

/// A bus as it is by default.
pub(super) fn bus(dir: &Path) -> Arc<Bus> {
    bus_of(&OsVfs, &AuditConfig::default(), dir).bus
}

/// A bus whose audit log has these settings and is written by `vfs`.
pub(super) fn bus_of(vfs: &dyn Vfs, config: &AuditConfig, dir: &Path) -> Parts {
    let clock = Arc::new(ManualClock::new(NOW_MS));
    let (audit, thread) = Audit::start(vfs, Arc::clone(&clock) as _, config, dir).unwrap();
    let compiled = CompiledPolicy::compile(Policy::parse(POLICY).unwrap(), 0).unwrap();
    let (storage, _) = Storage::open(StorageParts {
        vfs: Arc::new(OsVfs),
        clock: Arc::clone(&clock) as _,
        observer: Arc::new(FanOut::default()),
        bus_id: BusId::new([1; 16]),
        data_dir: dir.to_owned(),
        config: StorageConfig::default(),
    })
    .unwrap();
    let bus = Arc::new(Bus::new(Beginnings {
        id: BusId::new([1; 16]),
        clock: Arc::clone(&clock) as _,
        limits: LimitsConfig::default(),
        audit,
        policy: PolicyInForce {
            generation: 1,
            hash: PolicyHash::ZERO,
            compiled,
            document: POLICY.as_bytes().into(),
        },
        storage: Arc::new(storage),
        consumers: Arc::default(),
        changes: mpsc::channel(1).0,
    }));
    Parts { bus, clock, thread }
}

/// A topic that is open and that nobody has published on.
pub(super) fn open_topic(name: &str) -> OpenTopic {
    let topic = Topic::parse(name).unwrap();
    OpenTopic {
        digest: topic.digest(&StreamId::ZERO),
        key: SequenceKey { stream: StreamId::ZERO, topic },
        state: Arc::default(),
        destination: Destination::Live(Route::default()),
        traffic: PublishTraffic::default(),
    }
}

/// An event that cannot wait.
pub(super) fn actor_done() -> Event {
    let principal = Principal::parse("spiffe://a.example/anna").unwrap();
    let actor = Actor { session: SessionId(1), principal, source: "127.0.0.1:1".parse().unwrap() };
    Event::AdminDone { actor, operation: "policy reload" }
}

/// A client that publishes on the topic of alias 0, and the batch that comes first on it.
pub(super) fn client(bus: &Arc<Bus>, state: &Arc<Mutex<SequenceState>>) -> (Client, Bytes) {
    let principal = Principal::parse("spiffe://a.example/anna").unwrap();
    let key = SigningKey::from_seed(&[7; 32].into());
    let producer = ProvenProducer {
        kid: key.verifying_key().kid(&principal),
        key: key.verifying_key(),
        instance_id: InstanceId::new([2; 16]),
        started_ms: NOW_MS,
        incarnation_id: IncarnationId::new([3; 16]),
    };
    let context = ProducerContext {
        bus_id: bus.id,
        kid: producer.kid,
        instance_id: producer.instance_id,
        started_ms: producer.started_ms,
        incarnation_id: producer.incarnation_id,
        policy_version: 1,
    };
    let open = OpenTopic { state: Arc::clone(state), ..open_topic("t") };
    let mut batch = OpenBatch::new(NOW_MS);
    batch.push(NOW_MS, b"", Headers::NONE, b"payload").unwrap();
    let batch = ProducerChain::new(open.digest).sign(batch, &context, &key);
    let source: SocketAddr = "127.0.0.1:1".parse().unwrap();
    let party =
        Arc::new(Party { principal: principal.clone(), source: source.ip(), zone: "internal".into() });
    let client = Client {
        bus: Arc::clone(bus),
        handle: Arc::new(Handle::new(bus.next_session(), Arc::new(Outbox::new(1_000)))),
        decisions: Decisions::new(Arc::clone(&party), bus.policy.load_full()),
        party,
        source,
        producer,
        binding: Binding::testing(&principal),
        instance_kind: InstanceKind::Random,
        key_record: KeyRecord::default(),
        topics: vec![Some(open)],
        pending: Pending::default(),
        readings: Readings::default(),
        beginnings: HashMap::new(),
        memberships: HashMap::new(),
        joinings: HashMap::new(),
        proofs_awaited: HashMap::new(),
        subscriptions: HashMap::new(),
        lanes: HashMap::new(),
        lane_next: 1,
        announced: HashMap::new(),
        intake: Intake::Open,
        administering: Administering::default(),
        place: bus.quotas.admit_at(&principal, Tick(0)).unwrap(),
        patience: Patience::new_at(Tick(0)),
        summaries: Summaries::default(),
        ends_ms: u64::MAX,
        traffic: SessionTraffic::default(),
        ended: Ended::Never,
    };
    (client, batch.bytes().clone())
}
