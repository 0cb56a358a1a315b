//! Hostile peers at the door, while a good pair goes on.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};

use sealbus_protocol::session::{ALPN, ClientEvent};
use tokio::net::TcpSocket;

use crate::harness::{Bus, Client, Incarnation, PATIENCE, allow, policy};

#[test]
fn two_hundred_bad_connections_harm_nobody_else() {
    let text = policy(
        1,
        &[
            allow("anna-writes", "anna", "publish", &["t/#"]),
            allow("ben-reads", "ben", "subscribe", &["t/#"]),
        ],
    );
    let bus = Bus::start(&text);
    let mut ben = bus.client("ben");
    ben.subscribe("t/#").unwrap();
    let mut anna = bus.client("anna");
    let mut publisher = anna.publisher("t/1");
    let mut bad = Vec::new();
    for number in 0..200u32 {
        let Ok(mut stream) = TcpStream::connect(bus.address()) else { continue };
        let _ = match number % 4 {
            0 => stream.write_all(b"GET / HTTP/1.1\r\n\r\n"),
            1 => stream.write_all(&[0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00]),
            2 => stream.write_all(&[0x16, 0x03, 0x03, 0xff, 0xff, 0xff]),
            _ => Ok(()),
        };
        bad.push((number, stream));
    }
    for number in 0..100u32 {
        anna.publish(&mut publisher, &[&number.to_be_bytes()]).unwrap();
        assert_eq!(ben.payloads().1, [number.to_be_bytes()]);
    }
    bus.audit_has(&["not-tls"]);
    bus.audit_has(&["source-limit"]);
    // Those that are waited for go, and what was not TLS gets an alert, or nothing, and its end.
    let (garbage, waited_for): (Vec<_>, Vec<_>) = bad.into_iter().partition(|(number, _)| number % 2 == 0);
    drop(waited_for);
    for (_, mut stream) in garbage {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut found = Vec::new();
        if let Err(error) = stream.read_to_end(&mut found) {
            assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        }
        assert!(found.is_empty() || (found.len() <= 7 && found[0] == 0x15), "{found:?}");
    }
    // The door opens again when they are gone.
    let (identity, began) = (bus.identity("anna"), Instant::now());
    while Client::connect(bus.address(), &bus.ca, Some(&identity), &[ALPN]).is_err() {
        assert!(began.elapsed() < PATIENCE);
    }
}

/// Nobody gets a handshake slot for opening a connection, nor for a part of a ClientHello: a newcomer is served while
/// far more connections than there are slots say nothing, from as many sources as it takes to have all slots.
#[test]
fn silence_from_many_sources_locks_nobody_out() {
    const SOURCES: u8 = 125;
    const OF_EACH: usize = 8;
    // Longer than anybody here waits: no slot that silence took would become free.
    let bus = Bus::start_with(&policy(1, &[allow("anna-writes", "anna", "publish", &["t/#"])]), |config| {
        config.limits.handshake_timeout_ms = 3 * u64::try_from(PATIENCE.as_millis()).unwrap();
    });
    let address = bus.address();
    let mut silent = Vec::new();
    bus.runtime.block_on(async {
        for host in 1..=SOURCES {
            for number in 0..OF_EACH {
                let socket = TcpSocket::new_v4().unwrap();
                socket.bind((Ipv4Addr::new(127, 0, 2, host), 0).into()).unwrap();
                let stream = socket.connect(address).await.unwrap();
                if number % 2 == 0 {
                    // The beginning of a ClientHello. The broker may have closed the connection already.
                    stream.writable().await.unwrap();
                    let _ = stream.try_write(&[0x16, 3, 1, 2, 0, 1, 0]);
                }
                silent.push(stream);
            }
        }
    });
    let mut anna = bus.client("anna");
    let mut publisher = anna.publisher("t/1");
    anna.publish(&mut publisher, &[b"served"]).unwrap();
    // Some gave way to others, the rest had their time.
    bus.audit_has(&["handshake-failed", "newcomers-limit", "127.0.2."]);
    bus.audit_has(&["handshake-failed", "timeout", "127.0.2."]);
    bus.runtime.block_on(async {
        for stream in silent {
            let closed = tokio::time::timeout(PATIENCE, stream.readable()).await;
            assert!(closed.is_ok(), "a silent connection is closed");
        }
    });
    anna.publish(&mut publisher, &[b"still"]).unwrap();
}

/// A ClientHello has an end.
#[test]
fn a_client_hello_without_end_is_refused() {
    let bus = Bus::start(&policy(1, &[]));
    let mut stream = TcpStream::connect(bus.address()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // Announces 64 KiB of it, and sends them in records of a kilobyte.
    let mut bytes = vec![0x16, 3, 1, 4, 0, 1, 0, 0xff, 0xff];
    bytes.resize(5 + 1_024, 0);
    for _ in 0..64 {
        // Refused before all of it is there.
        let _ = stream.write_all(&bytes);
        bytes.clear();
        bytes.extend_from_slice(&[0x16, 3, 3, 4, 0]);
        bytes.resize(5 + 1_024, 0);
    }
    bus.audit_has(&["handshake-failed", "this one goes on"]);
}

/// Frames that lie, from a client that has been welcomed.
#[test]
fn lying_frames_end_their_sender_and_nobody_else() {
    let bus = Bus::start(&policy(1, &[allow("anna-writes", "anna", "publish", &["t/#"])]));
    let mut witness = bus.client("anna");
    let lies: [&[u8]; 7] = [
        &[0, 0, 0, 0, 0, 0, 0, 0],
        &[0xff; 64],
        &[5, 0, 0, 0, 0xff, 0xff, 0xff, 0xff],
        &[5, 0, 0, 0, 0, 0, 0, 0],
        &[2, 0, 0, 0, 0, 0, 0, 0],
        &[3, 9, 0, 0, 0, 0, 0, 4, 0, 0, 0, 1],
        &[0x10, 0, 0, 1, 0, 0, 0, 12],
    ];
    for lie in lies {
        let mut liar = bus.client_as(&Incarnation::new(bus.identity("anna")));
        liar.send_raw(lie);
        liar.expect_failure();
    }
    let mut publisher = witness.publisher("t/1");
    witness.publish(&mut publisher, &[b"unharmed"]).unwrap();
}

/// Requests without end, whose answers are not read: the sender is not read from any more, and is alone with it.
#[test]
fn answers_that_are_not_read_are_bounded() {
    let bus = Bus::start(&policy(1, &[]));
    let began = Instant::now();
    let mut greedy = bus.client("anna");
    let mut witness = bus.client("ben");
    // Refused by the policy each, so that patience ends as well.
    for _ in 0..4_000 {
        let topic = crate::harness::topic(&"x/".repeat(30));
        greedy.session.open(topic).unwrap();
    }
    greedy.flush();
    let refusal = witness.open("t/1").unwrap_err();
    assert_eq!(refusal.code(), sealbus_protocol::refusal::Code::Denied);
    // A burst of 1,024 at once, and after that 64 in a second.
    for _ in 0..1_024 + 64 {
        match greedy.event() {
            ClientEvent::Refused(_) => {}
            other => panic!("found {other:?}"),
        }
    }
    assert!(began.elapsed() >= Duration::from_millis(950), "{:?}", began.elapsed());
}
