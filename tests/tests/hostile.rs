//! Bad input costs its sender only: garbage, half handshakes, lies about lengths, and too many at once, while a good
//! pair goes on. FAILURES T17 to T22.

#![allow(clippy::panic, reason = "what helps a test fails the test")]

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, prlimit};
use sealbus_protocol::frame::{Frame as _, FrameType, HEADER_LEN, Open, RequestId};
use sealbus_protocol::topic::Topic;
use sealbus_tests::audit::{event, reason, source_port};
use sealbus_tests::raw::{RawEnd, tcp};
use sealbus_tests::wait::within;
use sealbus_tests::{
    BrokerProcess, Credential, Producer, RawClient, RawSession, TestBus, TlsOptions, allow, eventually,
    sealbus_program,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::Instant;

/// How much more memory the broker may hold when its attackers have gone.
const MEMORY_KIB_MAX: u64 = 16 * 1_024;

/// A loopback address of its own for every eight attackers: each source may have eight handshakes at a time.
fn source(index: usize) -> IpAddr {
    let host = u8::try_from(index / 8 + 2).expect("there are few attackers");
    Ipv4Addr::new(127, 0, 1, host).into()
}

fn header(kind: u8, length: u32) -> [u8; HEADER_LEN] {
    let [a, b, c, d] = length.to_be_bytes();
    [kind, 0, 0, 0, a, b, c, d]
}

fn attacker(bus: &TestBus, credential: &Credential) -> Producer {
    Producer::new(bus.bus_id(), &bus.principal("attacker"), credential)
}

async fn authenticated(bus: &TestBus, broker: &BrokerProcess, credential: &Credential) -> RawSession {
    let opened = RawSession::open(bus, broker.address(), credential, &attacker(bus, credential)).await;
    opened.unwrap_or_else(|end| panic!("a certified attacker gets in, and met {end}")).0
}

async fn tls_only(bus: &TestBus, broker: &BrokerProcess, credential: &Credential) -> RawClient {
    RawClient::connect(bus, broker.address(), &TlsOptions::of(credential))
        .await
        .expect("the handshake is good")
}

/// FAILURES T17, T20, T22: before HELLO nothing but HELLO is read, and not more than 16 KiB of it.
#[tokio::test(flavor = "multi_thread")]
async fn before_hello_every_frame_is_refused() {
    let bus = TestBus::with("[audit]\nsingles_per_second_max = 1000\n");
    let broker = bus.serve(sealbus_program!()).await;
    let credential = bus.credential("attacker");
    let opening = Open { request: RequestId(1), topic: Topic::parse("t").unwrap() }.encode().to_vec();
    let mut cases: Vec<(String, Vec<u8>)> = vec![
        ("a good OPEN".to_owned(), opening),
        ("a HELLO of 4 GiB".to_owned(), header(FrameType::Hello as u8, u32::MAX).to_vec()),
        ("a HELLO of 17 KiB".to_owned(), header(FrameType::Hello as u8, 17 * 1_024).to_vec()),
        ("an empty HELLO".to_owned(), header(FrameType::Hello as u8, 0).to_vec()),
        ("a HELLO of noughts".to_owned(), [&header(FrameType::Hello as u8, 512)[..], &[0; 512]].concat()),
        ("reserved bytes".to_owned(), vec![FrameType::Hello as u8, 0, 1, 0, 0, 0, 0, 0]),
        ("a flag".to_owned(), vec![FrameType::Hello as u8, 1, 0, 0, 0, 0, 0, 0]),
    ];
    for kind in (0..=u8::MAX).filter(|kind| *kind != FrameType::Hello as u8) {
        if kind <= 0x20 || kind % 32 == 31 {
            cases.push((format!("type {kind:#04x}"), header(kind, 0).to_vec()));
        }
    }
    for (name, bytes) in cases {
        let mut client = tls_only(&bus, &broker, &credential).await;
        client.send(&bytes).await.unwrap();
        let (received, _) = client.ending().await;
        let said = String::from_utf8_lossy(&received).into_owned();
        assert_eq!(
            received.first(),
            Some(&(FrameType::Error as u8)),
            "{name}: an ERROR frame says why: {said:?}"
        );
        assert!(received.len() < 2_048, "{name}: and nothing else: {said:?}");
    }
    assert!(bus.audit().matching(|line| event(line) == "session-opened").is_empty());
}

/// FAILURES T17, T20: the same after HELLO. The reason comes back, and the connection ends.
#[tokio::test(flavor = "multi_thread")]
async fn after_hello_each_lie_is_answered_with_its_code() {
    let bus = TestBus::with("[audit]\nsingles_per_second_max = 1000\n");
    let broker = bus.serve(sealbus_program!()).await;
    let credential = bus.credential("attacker");
    let publish = FrameType::Publish as u8;
    let cases: [(&str, Vec<u8>, &str); 12] = [
        ("4 GiB announced", header(publish, u32::MAX).to_vec(), "LIMIT"),
        ("2 GiB announced", header(publish, 1 << 31).to_vec(), "LIMIT"),
        ("a control frame of a megabyte", header(FrameType::Subscribe as u8, 1 << 20).to_vec(), "LIMIT"),
        ("an unknown type", header(0xff, 0).to_vec(), "FORMAT"),
        ("type 0", header(0, 0).to_vec(), "FORMAT"),
        ("reserved bytes", vec![publish, 0, 0, 1, 0, 0, 0, 0], "FORMAT"),
        ("an unknown flag", vec![FrameType::Subscribe as u8, 4, 0, 0, 0, 0, 0, 0], "FORMAT"),
        ("the broker's own frame", header(FrameType::Welcome as u8, 0).to_vec(), "FORMAT"),
        ("an empty OPEN", header(FrameType::Open as u8, 0).to_vec(), "FORMAT"),
        (
            "an alias that is not open",
            [&header(publish, 8)[..], &[0, 0, 0, 1, 0, 0, 0, 9]].concat(),
            "SESSION",
        ),
        (
            "a topic with a wildcard",
            [&header(FrameType::Open as u8, 9)[..], &[0, 0, 0, 1, 0, 3], b"a/+"].concat(),
            "FORMAT",
        ),
        (
            "a filter in the middle of which is a #",
            [&header(FrameType::Subscribe as u8, 23)[..], &[0; 17], &[5], b"a/#/b"].concat(),
            "FORMAT",
        ),
    ];
    for (name, bytes, code) in cases {
        let mut session = authenticated(&bus, &broker, &credential).await;
        session.client.send(&bytes).await.unwrap();
        match session.ended().await {
            RawEnd::Refused(refusal) => assert_eq!(refusal.code().as_str(), code, "{name}: {refusal}"),
            end => panic!("{name}: the broker does not say why: {end}"),
        }
    }
    // A second HELLO, as good as the first.
    let producer = attacker(&bus, &credential);
    let (mut session, _) = RawSession::open(&bus, broker.address(), &credential, &producer).await.unwrap();
    let mut hello = producer.hello();
    session.prove(&mut hello, &producer);
    session.client.send(&hello.encode()).await.unwrap();
    match session.ended().await {
        RawEnd::Refused(refusal) => assert_eq!(refusal.code().as_str(), "SESSION", "{refusal}"),
        end => panic!("the broker does not say why: {end}"),
    }
}

/// What an attacker does with its connection, until it is closed or the attack is over.
#[derive(Debug, Clone, Copy)]
enum Attack {
    Garbage,
    HalfHandshake,
    SilentAfterTcp,
    SilentAfterTls,
    DribbledHello,
    LengthBeforeHello,
    FourGibibytes,
    MegabyteNeverSent,
    TwoHellos,
    UnknownType,
}

const ATTACKS: [Attack; 10] = [
    Attack::Garbage,
    Attack::HalfHandshake,
    Attack::SilentAfterTcp,
    Attack::SilentAfterTls,
    Attack::DribbledHello,
    Attack::LengthBeforeHello,
    Attack::FourGibibytes,
    Attack::MegabyteNeverSent,
    Attack::TwoHellos,
    Attack::UnknownType,
];

/// Nothing in here may fail: a broker may close whatever it likes whenever it likes.
async fn attack(
    bus: Arc<TestBus>,
    broker: Arc<BrokerProcess>,
    credential: Arc<Credential>,
    index: usize,
) -> Option<Held> {
    let address = broker.address();
    let options = TlsOptions { source: Some(source(index)), ..TlsOptions::of(&credential) };
    let tls = async || RawClient::connect(&bus, address, &options).await.ok();
    let session = async || {
        let producer = attacker(&bus, &credential);
        let hello = producer.hello();
        RawSession::open_with(&bus, address, &options, &producer, hello)
            .await
            .ok()
            .map(|(session, _)| session)
    };
    match ATTACKS[index % ATTACKS.len()] {
        Attack::Garbage => {
            let mut stream = tcp(address, options.source).await.ok()?;
            let mut garbage = vec![0; 64 * 1_024];
            getrandom::fill(&mut garbage).ok()?;
            let _ = stream.write_all(&garbage).await;
            Some(Held::Tcp(stream))
        }
        Attack::HalfHandshake => {
            let mut stream = tcp(address, options.source).await.ok()?;
            // The beginning of a ClientHello of 512 bytes.
            let _ = stream.write_all(&[22, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]).await;
            Some(Held::Tcp(stream))
        }
        Attack::SilentAfterTcp => tcp(address, options.source).await.ok().map(Held::Tcp),
        Attack::SilentAfterTls => tls().await.map(|client| Held::Tls(Box::new(client))),
        Attack::DribbledHello => {
            let mut client = tls().await?;
            for byte in header(FrameType::Hello as u8, 8_192).into_iter().chain(std::iter::repeat_n(0, 64)) {
                client.send(&[byte]).await.ok()?;
            }
            Some(Held::Tls(Box::new(client)))
        }
        Attack::LengthBeforeHello => {
            let mut client = tls().await?;
            client.send(&header(FrameType::Hello as u8, u32::MAX)).await.ok()?;
            Some(Held::Tls(Box::new(client)))
        }
        Attack::FourGibibytes => {
            let mut session = session().await?;
            session.client.send(&header(FrameType::Publish as u8, u32::MAX)).await.ok()?;
            Some(Held::Session(Box::new(session)))
        }
        Attack::MegabyteNeverSent => {
            let mut session = session().await?;
            session.client.send(&header(FrameType::Publish as u8, 1_000_000)).await.ok()?;
            session.client.send(&[0; 1_000]).await.ok()?;
            Some(Held::Session(Box::new(session)))
        }
        Attack::TwoHellos => {
            let producer = attacker(&bus, &credential);
            let mut client = tls().await?;
            client.send(&producer.hello().encode()).await.ok()?;
            client.send(&producer.hello().encode()).await.ok()?;
            Some(Held::Tls(Box::new(client)))
        }
        Attack::UnknownType => {
            let mut session = session().await?;
            session.client.send(&header(0xee, 16)).await.ok()?;
            Some(Held::Session(Box::new(session)))
        }
    }
}

/// A connection that an attacker keeps.
#[expect(dead_code, reason = "connections are held, not used")]
enum Held {
    Tcp(TcpStream),
    Tls(Box<RawClient>),
    Session(Box<RawSession>),
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_attackers_cost_a_good_pair_no_message_and_the_broker_no_memory() {
    const ATTACKERS: usize = 200;
    let bus = Arc::new(TestBus::with("[limits]\nhandshake_timeout_ms = 2000\n"));
    bus.write_policy(
        &(allow("in", "producer", "publish", "good/#") + &allow("out", "consumer", "subscribe", "good/#")),
    );
    let broker = Arc::new(bus.serve(sealbus_program!()).await);
    let credential = Arc::new(bus.credential("attacker"));
    let consumer = bus.connect(broker.address(), "consumer").await;
    let mut messages = consumer.subscribe("good/#").await.unwrap();
    let producer = bus.connect(broker.address(), "producer").await;
    let publisher = producer.publisher("good/t").await.unwrap();
    let mut exchanged = 0_u64;
    let mut exchange = async || {
        publisher.publish(exchanged.to_string()).await.expect("a good publish is acknowledged");
        let message = within("a good message", messages.next()).await.expect("the subscription goes on");
        let message = message.expect("the good pair loses nothing");
        assert_eq!(message.payload(), exchanged.to_string().as_bytes(), "in order, once");
        exchanged += 1;
    };
    for _ in 0..200 {
        exchange().await;
    }
    let (memory_before, descriptors_before) = (broker.rss_kib(), broker.open_descriptors());

    // Three waves of attackers, so that what one leaves behind would add up.
    for wave in 0..3 {
        let attackers: Vec<_> = (0..ATTACKERS)
            .map(|index| {
                let (bus, broker, credential) =
                    (Arc::clone(&bus), Arc::clone(&broker), Arc::clone(&credential));
                tokio::spawn(attack(bus, broker, credential, index))
            })
            .collect();
        let mut held = Vec::new();
        for attacker in attackers {
            while !attacker.is_finished() {
                exchange().await;
            }
            held.push(attacker.await.expect("an attacker does not panic"));
        }
        let got_through = held.iter().flatten().count();
        assert!(
            got_through >= ATTACKERS / 4,
            "wave {wave}: only {got_through} attackers got anything through"
        );
        for _ in 0..50 {
            exchange().await;
        }
        drop(held);
    }
    eventually("the attackers' descriptors are given back", || {
        (broker.open_descriptors() <= descriptors_before).then_some(())
    })
    .await;
    let limit = memory_before + MEMORY_KIB_MAX;
    let give_up = Instant::now() + Duration::from_secs(10);
    while broker.rss_kib() > limit {
        assert!(Instant::now() < give_up, "{} KiB, before it was {memory_before} KiB", broker.rss_kib());
        exchange().await;
    }
    exchange().await;
}

/// FAILURES T18.
#[tokio::test(flavor = "multi_thread")]
async fn the_handshake_deadline_ends_who_dribbles_at_any_stage() {
    let bus = TestBus::with("[limits]\nhandshake_timeout_ms = 500\n");
    let broker = bus.serve(sealbus_program!()).await;
    let credential = bus.credential("attacker");
    let log = bus.audit();

    // Before TLS, one byte at a time: each is progress, and none of them moves the deadline.
    let mut stream = tcp(broker.address(), None).await.unwrap();
    let port = stream.local_addr().unwrap().port();
    let record = [&[22, 3, 1, 0x3f, 0xff][..], &[0; 16 * 1_024]].concat();
    let dribble = async {
        for byte in record {
            if stream.write_all(&[byte]).await.is_err() {
                return;
            }
            let mut answer = [0; 64];
            match tokio::time::timeout(Duration::from_millis(20), stream.read(&mut answer)).await {
                Err(_) | Ok(Ok(1..)) => {}
                Ok(Ok(0) | Err(_)) => return,
            }
        }
        panic!("a dribbler was let finish");
    };
    within("a dribbler is ended", dribble).await;
    let line = log.await_line("the dribbler", |line| source_port(line) == u64::from(port)).await;
    assert_eq!((event(&line), reason(&line)), ("handshake-failed", "timeout"), "{line}");

    // After TLS, without HELLO, and with half a HELLO.
    for part in [&[][..], &header(FrameType::Hello as u8, 1_000)[..]] {
        let mut client = tls_only(&bus, &broker, &credential).await;
        client.send(part).await.unwrap();
        let port = client.stream.get_ref().0.local_addr().unwrap().port();
        client.ending().await;
        let line = log.await_line("no HELLO", |line| source_port(line) == u64::from(port)).await;
        assert!(["handshake-failed", "session-refused"].contains(&event(&line)), "{line}");
    }
    // Who has said HELLO in time may be silent for longer than that.
    let mut session = authenticated(&bus, &broker, &credential).await;
    let patience = Instant::now() + Duration::from_millis(1_000);
    let answer = tokio::time::timeout_at(patience, session.next()).await;
    assert!(answer.is_err(), "the deadline is for handshakes only: {answer:?}");
}

/// FAILURES T18: one source cannot use up what all sources share. Of four handshakes at once and eight times as many
/// that wait, the next is turned away.
#[tokio::test(flavor = "multi_thread")]
async fn one_source_has_few_handshakes_and_leaves_the_rest_to_others() {
    const PENDING: usize = 4 * 8;
    let limits =
        "[limits]\nhandshakes_max = 16\nhandshakes_per_source_max = 4\nhandshake_timeout_ms = 60000\n";
    let bus = TestBus::with(limits);
    let broker = bus.serve(sealbus_program!()).await;
    let greedy: IpAddr = Ipv4Addr::new(127, 0, 0, 9).into();
    let credential = bus.credential("anna");
    let options = |source: IpAddr| TlsOptions { source: Some(source), ..TlsOptions::of(&credential) };
    let mut held = Vec::new();
    for _ in 0..PENDING {
        let mut stream = tcp(broker.address(), Some(greedy)).await.unwrap();
        stream.write_all(&[22, 3, 1]).await.unwrap();
        held.push(stream);
    }
    // The next of this source is turned away, without a word of TLS, and a line says why.
    let mut turned_away = tcp(broker.address(), Some(greedy)).await.unwrap();
    let port = turned_away.local_addr().unwrap().port();
    let mut answer = Vec::new();
    let _ = within("the next is closed", turned_away.read_to_end(&mut answer)).await;
    assert_eq!(answer, b"");
    let log = bus.audit();
    let line = log.await_line("the next", |line| source_port(line) == u64::from(port)).await;
    assert_eq!((event(&line), reason(&line)), ("handshake-failed", "source-limit"), "{line}");
    // Another source is served as if nothing were.
    let producer = Producer::new(bus.bus_id(), &bus.principal("anna"), &credential);
    let other = options(Ipv4Addr::new(127, 0, 0, 10).into());
    let hello = producer.hello();
    RawSession::open_with(&bus, broker.address(), &other, &producer, hello).await.expect("another source");
    // And when the handshakes of the first have ended, it is served again.
    drop(held);
    let give_up = Instant::now() + sealbus_tests::DEADLINE;
    loop {
        let producer = Producer::new(bus.bus_id(), &bus.principal("anna"), &credential);
        let hello = producer.hello();
        match RawSession::open_with(&bus, broker.address(), &options(greedy), &producer, hello).await {
            Ok(_) => break,
            Err(end) => assert!(Instant::now() < give_up, "the source is not served again: {end}"),
        }
    }
}

/// The id of the broker's process, by the configuration that it serves.
fn process_of(bus: &TestBus) -> Pid {
    let config = bus.config();
    let config = config.to_str().expect("the path of a temporary folder is text");
    let serves = |id: &i32| {
        let arguments = std::fs::read_to_string(format!("/proc/{id}/cmdline")).unwrap_or_default();
        arguments.split('\0').any(|argument| argument == config)
    };
    let processes = std::fs::read_dir("/proc").expect("the system tells its processes");
    let ids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let id = { ids }.find(serves).expect("the broker of this bus is running");
    Pid::from_raw(id).expect("a process has an id")
}

/// Without descriptors the broker waits; it does not spin, and it does not forget whom it serves. It keeps connections
/// below the limit that it starts with, so that this one is lowered afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn a_broker_without_descriptors_backs_off_and_recovers() {
    const SESSIONS: usize = 16;
    let bus = TestBus::new();
    bus.write_policy(
        &(allow("in", "producer", "publish", "good/#") + &allow("out", "consumer", "subscribe", "good/#")),
    );
    let broker = bus.serve(sealbus_program!()).await;
    let consumer = bus.connect(broker.address(), "consumer").await;
    let mut messages = consumer.subscribe("good/#").await.unwrap();
    let producer = bus.connect(broker.address(), "producer").await;
    let publisher = producer.publisher("good/t").await.unwrap();

    let process = process_of(&bus);
    let hard = getrlimit(Resource::Nofile).maximum;
    let full = broker.open_descriptors() + SESSIONS;
    let limit = Rlimit { current: u64::try_from(full).ok(), maximum: hard };
    prlimit(Some(process), Resource::Nofile, limit).expect("a process of one's own can be limited");
    let credential = bus.credential("attacker");
    let mut sessions = Vec::new();
    while broker.open_descriptors() < full {
        sessions.push(authenticated(&bus, &broker, &credential).await);
    }
    let mut held = Vec::new();
    for _ in 0..2 * SESSIONS {
        held.push(tcp(broker.address(), None).await.expect("the system's own queue takes it"));
    }

    // While nothing can be accepted, for a second of the clock: what exists works, and the processor is idle. An
    // accept loop that spins would use all hundred ticks of it.
    let ticks_before = broker.cpu_ticks();
    let until = Instant::now() + Duration::from_secs(1);
    let mut exchanged = 0_u32;
    while Instant::now() < until {
        if exchanged < 20 {
            publisher.publish(exchanged.to_string()).await.expect("an open session is served");
            let message = within("a message", messages.next()).await.unwrap().unwrap();
            assert_eq!(message.payload(), exchanged.to_string().as_bytes());
            exchanged += 1;
        } else {
            tokio::time::sleep_until(until).await;
        }
    }
    assert_eq!(exchanged, 20);
    let used = broker.cpu_ticks() - ticks_before;
    assert!(used < 50, "{used} ticks of a hundred were used while nothing could be accepted");
    assert!(broker.stderr().contains("a connection could not be accepted"), "and it says so");

    drop((held, sessions));
    let late = bus.connect(broker.address(), "late").await;
    assert_eq!(late.principal(), bus.principal("late"));
}

/// Whoever has no rights, but a certificate, can take all connections, but not the descriptor that the broker needs to
/// read the policy which revokes it.
#[tokio::test(flavor = "multi_thread")]
async fn a_broker_full_of_connections_can_still_revoke_them() {
    const DESCRIPTORS: u32 = 200;
    let bus = TestBus::new();
    let mut broker =
        BrokerProcess::start_with_descriptors(sealbus_program!(), &bus.config(), DESCRIPTORS).await;
    broker.await_stderr("fewer connections are accepted than `connections_max` says").await;
    // As many identities as it may take, of eight sessions each.
    let mut sessions = Vec::new();
    let mut attackers = Vec::new();
    'full: loop {
        let name = format!("attacker-{}", attackers.len());
        let credential = bus.credential(&name);
        let principal = bus.principal(&name);
        attackers.push(principal.clone());
        for _ in 0..8 {
            let producer = Producer::new(bus.bus_id(), &principal, &credential);
            match RawSession::open(&bus, broker.address(), &credential, &producer).await {
                Ok((session, _)) => sessions.push(session),
                Err(_) => break 'full,
            }
            assert!(sessions.len() < usize::try_from(DESCRIPTORS).unwrap(), "there is an end to it");
        }
    }
    assert!(sessions.len() > 64, "only {} connections of 200 descriptors", sessions.len());
    let log = bus.audit();
    log.await_line("the last", |line| {
        event(line) == "handshake-failed" && reason(line) == "connections-limit"
    })
    .await;
    // Those that say nothing come on top.
    let mut silent = Vec::new();
    for index in 0..DESCRIPTORS {
        let index = usize::try_from(index).unwrap();
        silent
            .push(tcp(broker.address(), Some(source(index))).await.expect("the system's own queue takes it"));
    }
    let revocations: String =
        attackers.iter().map(|principal| format!("\n[[revoke]]\nprincipal = \"{principal}\"\n")).collect();
    bus.write_policy(&revocations);
    broker.signal(Signal::HUP);
    for session in &mut sessions {
        match session.ended().await {
            RawEnd::Refused(refusal) => assert_eq!(refusal.code().as_str(), "DENIED", "{refusal}"),
            RawEnd::Ended(_) => {}
            end => panic!("a revoked session ends by revocation, and met {end}"),
        }
    }
    log.await_line("the cut", |line| event(line) == "session-cut" && reason(line) == "principal-revoked")
        .await;
    assert!(!broker.stderr().contains("Too many open files"), "{}", broker.stderr());
    drop((sessions, silent));
    let late = bus.connect(broker.address(), "late").await;
    assert_eq!(late.principal(), bus.principal("late"));
}

/// FAILURES T21: whoever does not read what it is told holds up nobody, and not much is kept for it.
#[tokio::test(flavor = "multi_thread")]
async fn answers_that_nobody_reads_are_bounded() {
    let bus = TestBus::with("[audit]\nsingles_per_second_max = 1\n");
    let broker = bus.serve(sealbus_program!()).await;
    let credential = bus.credential("attacker");
    let memory_before = {
        authenticated(&bus, &broker, &credential).await;
        broker.rss_kib()
    };
    let mut session = authenticated(&bus, &broker, &credential).await;
    // Refusals of 60 bytes and more for requests of 14, as many as the connection takes.
    let mut requests = Vec::new();
    for request in 1..=2_000_u32 {
        requests.extend_from_slice(&header(FrameType::Open as u8, 7));
        requests.extend_from_slice(&request.to_be_bytes());
        requests.extend_from_slice(&[0, 1, b't']);
    }
    let stopped = AtomicBool::new(false);
    let send = async {
        let mut sent = 0_usize;
        while sent < 64 * 1_024 * 1_024 {
            match tokio::time::timeout(Duration::from_secs(1), session.client.send(&requests)).await {
                Ok(Ok(())) => sent += requests.len(),
                // The broker reads no more, or has ended the connection: either is right.
                Ok(Err(_)) | Err(_) => {
                    stopped.store(true, Ordering::SeqCst);
                    return sent;
                }
            }
        }
        sent
    };
    let sent = within("the attack", send).await;
    assert!(
        stopped.load(Ordering::SeqCst),
        "{sent} bytes of requests were taken without anybody reading an answer"
    );
    let limit = memory_before + MEMORY_KIB_MAX;
    assert!(broker.rss_kib() < limit, "{} KiB, before it was {memory_before} KiB", broker.rss_kib());
    // A good client is served meanwhile.
    let anna = bus.connect(broker.address(), "anna").await;
    assert_eq!(anna.principal(), bus.principal("anna"));
}
