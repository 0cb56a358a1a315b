//! A change is a fact (P4): what a new policy forbids is not written after its marker, nor after the reload returned.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use sealbus_protocol::frame::Narrowed;
use sealbus_protocol::refusal::Code;
use sealbus_protocol::session::ClientEvent;

use crate::harness::{Bus, Client, PATIENCE, Publisher, allow, policy};

const FLIPS: u64 = 60;
const LAST_VERSION: u64 = 1 + FLIPS;

/// Publishes without pause until told to stop.
fn flood(mut client: Client, name: &'static str, stop: &Arc<AtomicBool>) -> std::thread::JoinHandle<()> {
    let stop = Arc::clone(stop);
    let mut publisher: Publisher = client.publisher(name);
    std::thread::spawn(move || {
        while !stop.load(Ordering::Relaxed) {
            let batch = client.sign(&mut publisher, &[&[7; 2_000]]);
            let request = client.send(&publisher, batch.bytes().clone());
            loop {
                match client.event() {
                    ClientEvent::Ack(ack) if ack.request == request => break,
                    ClientEvent::Generation(_) => {}
                    other => panic!("found {other:?}"),
                }
            }
        }
    })
}

/// Reads until the policy of the last flip is in force and the topic that it is about has flowed under it. Says after
/// each marker, with its version, that the topic to look for has come: under an even version `t/open`, since `t/closed`
/// must not, and under an odd one `t/closed`.
fn read_through_flips(mut client: Client, flowed: &Sender<u64>) {
    let (mut version, mut is_awaited) = (1, false);
    loop {
        match client.event() {
            ClientEvent::Generation(generation) => {
                assert_eq!(generation.policy_version, version + 1, "every marker, in order");
                (version, is_awaited) = (generation.policy_version, true);
            }
            ClientEvent::Deliver(delivered) => {
                let is_withdrawn = version % 2 == 0;
                let is_closed = delivered.topic.as_str() == "t/closed";
                assert!(
                    !(is_closed && is_withdrawn),
                    "a batch on t/closed came after the marker of {version}"
                );
                if is_awaited && is_closed != is_withdrawn {
                    is_awaited = false;
                    flowed.send(version).unwrap();
                    if version == LAST_VERSION {
                        return;
                    }
                }
            }
            ClientEvent::Binding(_) | ClientEvent::Lagged(_) => {}
            other => panic!("found {other:?}"),
        }
    }
}

/// The grant of one topic is taken from and given to the subscriber, again and again, while two publishers flood. A
/// marker with an even version withdraws it: nothing of that topic may come until the next one.
#[test]
fn nothing_forbidden_follows_the_marker_while_publishers_flood() {
    let given = |version| {
        policy(
            version,
            &[
                allow("anna-writes", "anna", "publish", &["t/#"]),
                allow("ben-reads-all", "ben", "subscribe", &["t/#"]),
            ],
        )
    };
    let withdrawn = |version| {
        policy(
            version,
            &[
                allow("anna-writes", "anna", "publish", &["t/#"]),
                allow("ben-reads-some", "ben", "subscribe", &["t/open"]),
            ],
        )
    };
    let bus = Bus::start_with(&given(1), |config| config.limits.marker_timeout_ms = 10_000);
    let mut ben = bus.client("ben");
    assert_eq!(ben.subscribe("t/#").unwrap().narrowed, Narrowed::No);
    let stop = Arc::new(AtomicBool::new(false));
    let publishers =
        [flood(bus.client("anna"), "t/open", &stop), flood(bus.client("anna"), "t/closed", &stop)];
    let (flowed, flows) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || read_through_flips(ben, &flowed));
    for version in 2..=LAST_VERSION {
        let report = bus.reload_policy(&if version % 2 == 0 { withdrawn(version) } else { given(version) });
        assert_eq!((report.version, report.sessions_cut), (version, 0));
        assert_eq!(flows.recv_timeout(PATIENCE), Ok(version), "the other topic, or both, flow");
    }
    reader.join().unwrap();
    stop.store(true, Ordering::Relaxed);
    publishers.into_iter().for_each(|publisher| publisher.join().unwrap());
}

/// The same for the right to publish: what was accepted before and still waits in an outbox is not written after the
/// subscriber's marker, and nothing is accepted after the reload returned.
#[test]
fn nothing_of_a_producer_without_the_right_follows_the_marker() {
    let reader = allow("ben-reads", "ben", "subscribe", &["t/#"]);
    let given =
        |version| policy(version, &[allow("anna-writes", "anna", "publish", &["t/#"]), reader.clone()]);
    let withdrawn = |version| policy(version, std::slice::from_ref(&reader));
    let bus = Bus::start_with(&given(1), |config| config.limits.marker_timeout_ms = 10_000);
    let mut ben = bus.client("ben");
    let subscription = ben.subscribe_with("t/#", 1).unwrap().subscription;
    let mut anna = bus.client("anna");
    let mut publisher = anna.publisher("t/1");
    for flip in 0..5 {
        let generation = 2 * flip;
        // One is delivered, overdrawing the credit; the others wait in the outbox.
        for _ in 0..5 {
            anna.publish(&mut publisher, &[b"accepted"]).unwrap();
        }
        assert_eq!(ben.payloads().0, "t/1");
        bus.reload_policy(&withdrawn(2 + generation));
        assert!(matches!(anna.event(), ClientEvent::Generation(_)));
        let batch = anna.sign(&mut publisher, &[b"too late"]);
        let request = anna.send(&publisher, batch.bytes().clone());
        assert_eq!(anna.answer(request).unwrap_err().code(), Code::Denied);
        ben.session.credit(subscription, 1_000_000);
        ben.flush();
        assert!(matches!(ben.event(), ClientEvent::Generation(_)));
        ben.expect_silence();
        bus.reload_policy(&given(3 + generation));
        assert!(matches!(anna.event(), ClientEvent::Generation(_)));
        assert!(matches!(ben.event(), ClientEvent::Generation(_)));
        // The credit is spent down again, so that the next round waits as this one did.
        ben.close_subscription(subscription);
        drop(ben);
        ben = bus.client("ben");
        assert_eq!(ben.subscribe_with("t/#", 1).unwrap().subscription, subscription);
        // A refused batch consumes no number: the same bytes are good once the right is back.
        let request = anna.send(&publisher, batch.bytes().clone());
        anna.answer(request).unwrap();
        assert_eq!(ben.payloads().1, [b"too late"]);
        ben.close_subscription(subscription);
        drop(ben);
        ben = bus.client("ben");
        assert_eq!(ben.subscribe_with("t/#", 1).unwrap().subscription, subscription);
    }
}

/// A subscriber that has stopped reading cannot place its marker: it is cut, the reload returns soon after the
/// timeout, and another subscriber notices nothing.
#[test]
fn who_cannot_place_the_marker_is_cut_and_others_are_not_delayed() {
    let text = |version| {
        policy(
            version,
            &[
                allow("anna-writes", "anna", "publish", &["t/#"]),
                allow("ben-reads", "ben", "subscribe", &["t/#"]),
                allow("cleo-reads", "cleo", "subscribe", &["t/#"]),
            ],
        )
    };
    let bus = Bus::start_with(&text(1), |config| config.limits.marker_timeout_ms = 200);
    let mut stuck = bus.client("ben");
    stuck.subscribe("t/#").unwrap();
    let mut cleo = bus.client("cleo");
    cleo.subscribe("t/#").unwrap();
    let mut anna = bus.client("anna");
    let mut publisher = anna.publisher("t/1");
    // More than the kernel takes for a peer that does not read.
    for _ in 0..60 {
        anna.publish(&mut publisher, &[&vec![1; 900_000]]).unwrap();
        assert_eq!(cleo.payloads().1.len(), 1);
    }
    let began = Instant::now();
    let report = bus.reload_policy(&text(2));
    let took = began.elapsed();
    assert_eq!(report.sessions_cut, 1);
    assert!(took >= Duration::from_millis(200) && took < PATIENCE, "{took:?}");
    assert!(matches!(cleo.event(), ClientEvent::Generation(_)));
    assert!(matches!(anna.event(), ClientEvent::Generation(_)));
    anna.publish(&mut publisher, &[b"on"]).unwrap();
    assert_eq!(cleo.payloads().1, [b"on"]);
    bus.audit_has(&["marker-timeout", "spiffe://acme.example/ben"]);
    // What the stuck one still finds was written before; there is no marker, and then the connection is gone.
    loop {
        match stuck.event_within(PATIENCE) {
            Ok(Some(ClientEvent::Generation(_))) => panic!("the marker was placed after all"),
            Ok(Some(_)) => {}
            Ok(None) => panic!("the connection was not closed"),
            Err(_) => break,
        }
    }
}

/// A bad file changes nothing, and says why (FAILURES T27).
#[test]
fn a_refused_policy_leaves_the_one_before_in_force() {
    let good = policy(1, &[allow("anna-writes", "anna", "publish", &["t/#"])]);
    let bus = Bus::start(&good);
    let mut anna = bus.client("anna");
    let mut publisher = anna.publisher("t/1");
    for bad in ["", "version = 2\n[[alow]]\n", "version = 2\nversion = 3\n", "\u{0}"] {
        bus.write("policy.toml", bad);
        let error = bus.reload().unwrap_err();
        assert!(error.to_string().contains("policy.toml"), "{error}");
        anna.publish(&mut publisher, &[b"still"]).unwrap();
    }
    std::fs::remove_file(bus.path("policy.toml")).unwrap();
    assert!(bus.reload().is_err());
    anna.publish(&mut publisher, &[b"still"]).unwrap();
    bus.write("policy.toml", &good);
    assert_eq!(bus.reload().unwrap().generation, 2);
}
