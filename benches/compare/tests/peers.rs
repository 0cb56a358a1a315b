//! Every peer that is installed, and the relay, as the comparison uses them: everything comes, once, and as it was sent.

#![allow(clippy::panic, clippy::unwrap_used, reason = "a test says what it found by failing")]

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use sealbus_compare::conversation::{Conversation, Talk};
use sealbus_compare::failure::Failure;
use sealbus_compare::peers::mosquitto::Mosquitto;
use sealbus_compare::peers::nats::Nats;
use sealbus_compare::peers::redis::Redis;
use sealbus_compare::peers::relay::Relay;
use sealbus_compare::pki::Pki;
use sealbus_compare::pump::Raw;
use sealbus_compare::subject::{Peer, Profile, Running, Setting, free_port};
use sealbus_compare::wire::DURABLE_TOPIC;

/// Far longer than any of it takes.
const TIMEOUT: Duration = Duration::from_secs(30);

const MESSAGES: u32 = 10_000;

const DURABLE_MESSAGES: u32 = 1_000;

/// A peer that runs, and a way to talk to it. It is stopped before its folder is removed.
struct Started<P> {
    talk: Raw<P>,
    running: Running,
    folder: tempfile::TempDir,
}

/// Nothing, and a printed line, when it is not installed.
fn start<P: Peer>(peer: P, profile: Profile) -> Option<Started<P>> {
    match peer.version() {
        Ok(version) => assert!(version.starts_with(|first: char| first.is_ascii_digit()), "{version}"),
        Err(failure) => {
            println!("skipped: {failure}");
            return None;
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let pki = Pki::create(folder.path()).unwrap();
    let broker = folder.path().join("broker");
    std::fs::create_dir(&broker).unwrap();
    let setting = Setting {
        own_program: Path::new(env!("CARGO_BIN_EXE_compare")),
        folder: &broker,
        pki: &pki,
        profile,
        port: free_port().unwrap(),
        core: None,
    };
    let running = peer.start(&setting).unwrap_or_else(|failure| panic!("{failure}"));
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, running.port()));
    let tls = pki.client_config().unwrap();
    Some(Started { talk: Raw { peer, profile, address, tls }, running, folder })
}

fn run(story: impl Future<Output = Result<(), Failure>>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let told = runtime.block_on(async { tokio::time::timeout(TIMEOUT, story).await });
    told.expect("it does not take so long").unwrap_or_else(|failure| panic!("{failure}"));
}

/// Its number, and bytes that belong to that number, ends of lines among them.
fn payload(number: u32, size_bytes: usize) -> Vec<u8> {
    let mut payload = number.to_be_bytes().to_vec();
    let rest = size_bytes.saturating_sub(payload.len());
    payload.extend((0..rest).map(|at| b"\r\n $*>0MSG"[(at + number as usize) % 10]));
    payload
}

/// Messages of all sizes, each different, one after the other; the subscriber sees the same in the same order.
async fn all_come_as_they_were_sent<P: Peer>(talk: &Raw<P>) -> Result<(), Failure> {
    let size = |number: u32| [128, 16 * 1_024, 4, 1_024][number as usize % 4];
    let (mut subscriber, mut publisher) = (talk.connect().await?, talk.connect().await?);
    subscriber.subscribe("load/0").await?;
    let receiving = tokio::spawn(async move {
        let mut came = 0_u32;
        while came < MESSAGES {
            subscriber
                .receive(|found| {
                    assert!(found == payload(came, size(came)), "message {came}");
                    came += 1;
                })
                .await?;
        }
        assert_eq!(came, MESSAGES);
        subscriber.close().await
    });
    for number in 0..MESSAGES {
        publisher.publish("load/0", &payload(number, size(number)), 1).await?;
    }
    receiving.await.unwrap()?;
    publisher.close().await
}

/// Many copies of one message in one call, to two subscribers, while another topic has a publisher of its own.
async fn copies_come_in_their_number<P: Peer>(talk: &Raw<P>) -> Result<(), Failure> {
    let mut receiving = Vec::new();
    for topic in ["load/1", "load/1", "load/2"] {
        let mut subscriber = talk.connect().await?;
        subscriber.subscribe(topic).await?;
        receiving.push(tokio::spawn(async move {
            let expected = payload(if topic == "load/1" { 1 } else { 2 }, 128);
            let mut came = 0_u32;
            while came < MESSAGES {
                subscriber
                    .receive(|found| {
                        assert!(found == expected, "message {came} of {topic}");
                        came += 1;
                    })
                    .await?;
            }
            assert_eq!(came, MESSAGES, "{topic}");
            subscriber.close().await
        }));
    }
    for (topic, number) in [("load/1", 1), ("load/2", 2)] {
        let mut publisher = talk.connect().await?;
        for copies in [1, 0, 2, 7_000, MESSAGES - 7_003] {
            publisher.publish(topic, &payload(number, 128), copies).await?;
        }
        publisher.close().await?;
    }
    for received in receiving {
        received.await.unwrap()?;
    }
    Ok(())
}

/// In pieces with an unequal number of copies, and all of them acknowledged.
async fn all_are_acknowledged<P: Peer>(talk: &Raw<P>) -> Result<(), Failure> {
    let mut publisher = talk.connect().await?;
    let mut acknowledged = 0_u32;
    publisher.publish_durable(DURABLE_TOPIC, &payload(0, 1_024), 1).await?;
    acknowledged += publisher.acknowledged().await?;
    assert_eq!(acknowledged, 1, "one in flight, and one answer");
    let mut handed_over = 1;
    while handed_over < DURABLE_MESSAGES {
        let copies = (DURABLE_MESSAGES - handed_over).min(256);
        publisher.publish_durable(DURABLE_TOPIC, &payload(handed_over, 1_024), copies).await?;
        handed_over += copies;
        while acknowledged < handed_over {
            acknowledged += publisher.acknowledged().await?;
        }
        assert_eq!(acknowledged, handed_over);
    }
    publisher.close().await
}

/// One connection in both directions, where the peer knows such: what comes while it publishes is not lost.
async fn a_connection_may_hear_itself<P: Peer>(talk: &Raw<P>) -> Result<(), Failure> {
    let mut both = talk.connect().await?;
    both.subscribe("load/3").await?;
    let sent = payload(3, 1_024);
    both.publish("load/3", &sent, MESSAGES).await?;
    let mut came = 0_u32;
    while came < MESSAGES {
        both.receive(|found| {
            assert!(found == sent, "message {came}");
            came += 1;
        })
        .await?;
    }
    assert_eq!(came, MESSAGES);
    both.close().await
}

/// What every peer must be able to do.
fn live<P: Peer>(peer: P) -> Option<Started<P>> {
    let started = start(peer, Profile::Live)?;
    run(all_come_as_they_were_sent(&started.talk));
    run(copies_come_in_their_number(&started.talk));
    Some(started)
}

fn durable<P: Peer>(peer: &P, keeps: Keeps) {
    for profile in peer.durable_profiles() {
        let Some(started) = start(peer.clone(), *profile) else { return };
        run(all_are_acknowledged(&started.talk));
        if *profile == Profile::Durable && keeps == Keeps::InFiles {
            let kept_bytes = bytes_below(&started.folder.path().join("broker"));
            assert!(kept_bytes >= u64::from(DURABLE_MESSAGES) * 1_024, "{kept_bytes} bytes of files");
        }
    }
}

/// Where a durable message is when it is acknowledged.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Keeps {
    InFiles,
    InMemory,
}

fn bytes_below(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).unwrap().map(Result::unwrap);
    entries
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => bytes_below(&entry.path()),
            Ok(metadata) => metadata.len(),
            // Brokers rename and remove files as they like.
            Err(_) => 0,
        })
        .sum()
}

#[test]
fn nats_brings_everything_live() {
    if let Some(started) = live(Nats) {
        run(a_connection_may_hear_itself(&started.talk));
    }
}

#[test]
fn nats_acknowledges_everything_durable() {
    durable(&Nats, Keeps::InFiles);
}

#[test]
fn redis_brings_everything_live() {
    if let Some(started) = live(Redis) {
        run(a_connection_may_hear_itself(&started.talk));
    }
}

#[test]
fn redis_acknowledges_everything_durable() {
    durable(&Redis, Keeps::InFiles);
}

#[test]
fn mosquitto_brings_everything_live() {
    if let Some(started) = live(Mosquitto) {
        run(a_connection_may_hear_itself(&started.talk));
    }
}

#[test]
fn mosquitto_acknowledges_everything_durable() {
    durable(&Mosquitto, Keeps::InMemory);
}

#[test]
fn the_relay_brings_everything() {
    assert!(live(Relay).is_some(), "it is this program, so it is installed");
}

/// Nobody in this run talks to a peer without a certificate, and nobody could.
#[test]
fn nobody_talks_without_a_certificate() {
    fn refuses<P: Peer>(peer: P) {
        let Some(mut started) = start(peer, Profile::Live) else { return };
        let stranger = tempfile::tempdir().unwrap();
        let pki = Pki::create(stranger.path()).unwrap();
        // It believes in the server's authority, and shows a certificate of another.
        std::fs::copy(started.folder.path().join("ca.pem"), pki.authority()).unwrap();
        let own = std::mem::replace(&mut started.talk.tls, pki.client_config().unwrap());
        run(async {
            assert!(started.talk.connect().await.is_err(), "{}", started.talk.peer.name());
            Ok(())
        });
        started.talk.tls = own;
        run(async { started.talk.connect().await?.close().await });
    }
    refuses(Nats);
    refuses(Redis);
    refuses(Mosquitto);
    refuses(Relay);
}

/// A broker leaves with whoever started it.
#[test]
fn a_broker_is_stopped_when_it_is_dropped() {
    let started = start(Relay, Profile::Live).unwrap();
    let process = std::path::PathBuf::from(format!("/proc/{}", started.running.id()));
    assert!(process.exists());
    drop(started);
    assert!(!process.exists());
}
