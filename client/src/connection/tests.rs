//! Silence, in simulated time: a broker at the other end of a pipe that stops talking.

use std::os::unix::fs::PermissionsExt as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Buf as _, BufMut as _};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair, SanType,
    date_time_ymd,
};
use sealbus_protocol::frame::{IncarnationState, Limits, Narrowed, Nonce, Welcome};
use sealbus_protocol::ids::{BusId, PolicyHash, StreamId};
use sealbus_protocol::proof::{EXPORTER_LEN, Exporter};
use sealbus_protocol::session::{BrokerEvent, BrokerSession, Tick};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio::time::Instant;

use super::dial::Link;
use super::*;
use crate::event::Event;
use crate::{PublishError, Reconnect};

/// How long the broker at the other end talks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Talks {
    /// Answers HELLO, OPEN and SUBSCRIBE, and no batch; never PING.
    UntilServing,
    /// Says nothing at all.
    Never,
    /// Once it serves, sends PING without end and reads nothing any more.
    Floods,
}

struct Pipe {
    talks: Talks,
    dialed: Arc<AtomicUsize>,
    /// Bytes that a flooding broker got rid of.
    flooded: Arc<AtomicUsize>,
}

impl Dial for Pipe {
    type Transport = DuplexStream;

    fn server(&self) -> &str {
        "pipe:1"
    }

    async fn dial(&self, _: &Identity) -> Result<Link<DuplexStream>, ConnectError> {
        self.dialed.fetch_add(1, Ordering::Relaxed);
        let (ours, theirs) = duplex(64 * 1_024);
        tokio::spawn(broker(theirs, self.talks, Arc::clone(&self.flooded)));
        Ok(Link { transport: ours, exporter: Exporter::new([7; EXPORTER_LEN]) })
    }
}

async fn broker(mut stream: DuplexStream, talks: Talks, flooded: Arc<AtomicUsize>) {
    let mut session = BrokerSession::new_at(Tick(0));
    loop {
        let space_len = session.space_len();
        match stream.read_buf(&mut session.space().limit(space_len)).await {
            Ok(1..) if talks == Talks::Never => continue,
            Ok(1..) => session.handle_input_at(Tick(0)),
            Ok(0) | Err(_) => return,
        }
        let mut ponged = false;
        while let Ok(Some(event)) = session.poll_event() {
            match event {
                BrokerEvent::Hello(_) => session.welcome(&welcome()),
                BrokerEvent::Open { request, .. } => drop(session.opened(request, StreamId::ZERO, None)),
                BrokerEvent::Subscribe(subscribe) => {
                    session.ready(subscribe.request, subscribe.subscription, Narrowed::No, 1, None);
                }
                _ => ponged = true,
            }
        }
        if !ponged && session.outgoing().remaining() == PONG_LEN {
            // The session answers PING by itself; this broker is dead and does not.
            session.outgoing().advance(PONG_LEN);
        }
        while session.outgoing().has_remaining() {
            if stream.write_buf(session.outgoing()).await.is_err() {
                return;
            }
        }
        if talks == Talks::Floods {
            return flood(stream, &flooded).await;
        }
    }
}

async fn flood(mut stream: DuplexStream, flooded: &AtomicUsize) {
    let mut ping = bytes::BytesMut::new();
    Nonce(7).encode_ping(&mut ping);
    let pings = ping.repeat(4_096);
    // An end all the same, so that a client without a bound fails the test instead of hanging it.
    while flooded.load(Ordering::Relaxed) < 64 * 1_024 * 1_024 && stream.write_all(&pings).await.is_ok() {
        flooded.fetch_add(pings.len(), Ordering::Relaxed);
    }
}

const PONG_LEN: usize = 16;

fn welcome() -> Welcome {
    Welcome {
        minor: 0,
        incarnation: IncarnationState::New,
        features: 0,
        limits: Limits {
            frame_bytes_max: 1 << 20,
            batch_bytes_max: 1 << 20,
            payload_bytes_max: 1_000_000,
            topics_max: 2,
            subscriptions_max: 2,
        },
        session_id: 1,
        broker_ms: 0,
        generation: 1,
        policy_version: 1,
        policy_hash: PolicyHash::ZERO,
        principal: sealbus_protocol::identity::Principal::parse("spiffe://bus.example/orders").unwrap(),
    }
}

fn identity_and_trust() -> (tempfile::TempDir, Identity, Trust) {
    let dir = tempfile::tempdir().unwrap();
    let params = || {
        let mut params = CertificateParams::default();
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2040, 1, 1);
        params
    };
    let mut root = params();
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root = CertifiedIssuer::self_signed(root, KeyPair::generate().unwrap()).unwrap();
    let mut leaf = params();
    leaf.subject_alt_names.push(SanType::URI("spiffe://bus.example/orders".try_into().unwrap()));
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let key = KeyPair::generate().unwrap();
    let certificate = leaf.signed_by(&key, &root).unwrap();
    let write = |name: &str, text: String| std::fs::write(dir.path().join(name), text).unwrap();
    write("ca.pem", root.pem());
    write("tls.crt", certificate.pem());
    write("tls.key", key.serialize_pem());
    std::fs::set_permissions(dir.path().join("tls.key"), std::fs::Permissions::from_mode(0o600)).unwrap();
    let bus_id = BusId::new([1; 16]);
    write(
        "trust.toml",
        format!(
            "bus_id = \"{bus_id}\"\nbroker_roots = \"ca.pem\"\n[[trust_domain]]\nname = \"bus.example\"\n\
             principal = \"spiffe\"\nroots = \"ca.pem\"\n"
        ),
    );
    let identity = Identity::from_dir(dir.path()).unwrap();
    let trust = Trust::from_file(dir.path().join("trust.toml")).unwrap();
    (dir, identity, trust)
}

async fn connect_to(talks: Talks) -> (Result<Bus, ConnectError>, Arc<AtomicUsize>) {
    let (_dir, identity, trust) = identity_and_trust();
    let dialed = Arc::new(AtomicUsize::new(0));
    let pipe = Pipe { talks, dialed: Arc::clone(&dialed), flooded: Arc::default() };
    let reconnect =
        Reconnect { initial: Duration::from_secs(1), max: Duration::from_secs(4), attempts: None };
    let options = Options { reconnect, ..Options::default() };
    (connect_by(pipe, identity, trust, options).await, dialed)
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_never_speaks_is_given_up_at_the_connect_deadline() {
    let begin = Instant::now();
    let (connected, _) = connect_to(Talks::Never).await;
    assert!(matches!(connected, Err(ConnectError::Timeout { after_ms: 10_000, .. })));
    assert_eq!(begin.elapsed().as_secs(), 10);
}

#[tokio::test(start_paused = true)]
async fn a_batch_without_an_answer_fails_at_the_publish_deadline() {
    let (connected, _) = connect_to(Talks::UntilServing).await;
    let publisher = connected.unwrap().publisher("a").await.unwrap();
    let begin = Instant::now();
    assert_eq!(publisher.publish("x").await, Err(PublishError::Unanswered { after_ms: 10_000 }));
    assert_eq!(begin.elapsed().as_secs(), 10);
}

#[tokio::test(start_paused = true)]
async fn a_silent_broker_is_pinged_and_left_after_thirty_seconds() {
    let (connected, dialed) = connect_to(Talks::UntilServing).await;
    let bus = connected.unwrap();
    let mut events = bus.events();
    let begin = Instant::now();
    loop {
        if let Event::Disconnected { reason } = events.next().await.unwrap() {
            assert!(reason.contains("nothing was heard"), "{reason}");
            break;
        }
    }
    assert_eq!(begin.elapsed().as_secs(), 30);
    assert_eq!(dialed.load(Ordering::Relaxed), 1);
    assert!(matches!(events.next().await, Some(Event::Reconnecting { attempt: 1, .. })));
    assert!(matches!(events.next().await, Some(Event::Connected { .. })));
    assert!(begin.elapsed() < Duration::from_secs(32));
}

/// What it asks is answered into memory: the client stops reading before that grows.
#[tokio::test(start_paused = true)]
async fn a_broker_that_asks_without_end_and_reads_nothing_fills_no_memory() {
    let (_dir, identity, trust) = identity_and_trust();
    let flooded = Arc::new(AtomicUsize::new(0));
    let pipe = Pipe { talks: Talks::Floods, dialed: Arc::default(), flooded: Arc::clone(&flooded) };
    let bus = connect_by(pipe, identity, trust, Options::default()).await.unwrap();
    // Time stands still until nobody can go on: the broker because nothing is read, the client because of that.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let taken = flooded.load(Ordering::Relaxed);
    assert!((1..8 * 1_024 * 1_024).contains(&taken), "{taken}");
    drop(bus);
}

#[tokio::test(start_paused = true)]
async fn closing_does_not_wait_longer_than_the_publish_deadline() {
    let (connected, _) = connect_to(Talks::UntilServing).await;
    let bus = connected.unwrap();
    let publisher = bus.publisher("a").await.unwrap();
    drop(publisher.enqueue("x").unwrap());
    let begin = Instant::now();
    assert!(bus.close().await.is_err());
    assert!(begin.elapsed() <= Duration::from_secs(12));
}

#[tokio::test(start_paused = true)]
async fn the_brokers_limits_are_kept() {
    let (connected, _) = connect_to(Talks::UntilServing).await;
    let bus = connected.unwrap();
    let _publishers = (bus.publisher("a").await.unwrap(), bus.publisher("b").await.unwrap());
    assert_eq!(bus.publisher("c").await.unwrap_err(), crate::OpenError::TooManyTopics { max: 2 });
    let _subscriptions = (bus.subscribe("a").await.unwrap(), bus.subscribe("b").await.unwrap());
    assert_eq!(bus.subscribe("c").await.unwrap_err(), crate::SubscribeError::TooManySubscriptions { max: 2 });
}
