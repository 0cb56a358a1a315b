//! Hostile peers at the door, while a good pair goes on.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use sealbus_protocol::session::{ALPN, ClientEvent};

use crate::harness::{Bus, Client, Incarnation, allow, policy};

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
        bad.push(stream);
    }
    for number in 0..100u32 {
        anna.publish(&mut publisher, &[&number.to_be_bytes()]).unwrap();
        assert_eq!(ben.payloads().1, [number.to_be_bytes()]);
    }
    // What was not TLS got at most an alert.
    for mut stream in bad.drain(..) {
        stream.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        let mut room = [0; 64];
        if let Ok(len @ 1..) = stream.read(&mut room) {
            assert!(len <= 7 && room[0] == 0x15, "{:?}", &room[..len]);
        }
    }
    bus.audit_has(&["not-tls"]);
    bus.audit_has(&["source-limit"]);
    // The door opens again when they are gone.
    let began = Instant::now();
    loop {
        let identity = bus.identity("anna");
        if Client::connect(bus.address(), &bus.ca, Some(&identity), &[ALPN]).is_ok() {
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(10));
        std::thread::sleep(Duration::from_millis(20));
    }
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
    let mut answered = 0;
    while answered < 1_024 {
        match greedy.event() {
            ClientEvent::Refused(_) => answered += 1,
            other => panic!("found {other:?}"),
        }
    }
    // After the burst they come slowly.
    let began = Instant::now();
    let mut more = 0;
    while began.elapsed() < Duration::from_millis(500) {
        if let Some(ClientEvent::Refused(_)) = greedy.event_within(Duration::from_millis(50)).unwrap() {
            more += 1;
        }
    }
    assert!((1..400).contains(&more), "{more} more in half a second");
}
