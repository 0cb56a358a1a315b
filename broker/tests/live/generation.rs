//! A change is a fact (P4): what a new policy forbids is not written after its marker, nor after the reload returned.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use sealbus_protocol::frame::Narrowed;
use sealbus_protocol::refusal::Code;
use sealbus_protocol::session::ClientEvent;

use crate::harness::{Bus, Client, Publisher, allow, policy};

const FLIPS: u64 = 60;

/// Publishes without pause until told to stop. Returns how many batches were acknowledged.
fn flood(mut client: Client, name: &'static str, stop: &Arc<AtomicBool>) -> std::thread::JoinHandle<u64> {
    let stop = Arc::clone(stop);
    let mut publisher: Publisher = client.publisher(name);
    std::thread::spawn(move || {
        let mut accepted = 0;
        while !stop.load(Ordering::Relaxed) {
            let batch = client.sign(&mut publisher, &[&[7; 2_000]]);
            let request = client.send(&publisher, batch.bytes().clone());
            loop {
                match client.event() {
                    ClientEvent::Ack(ack) if ack.request == request => break accepted += 1,
                    ClientEvent::Generation(_) => {}
                    other => panic!("found {other:?}"),
                }
            }
        }
        accepted
    })
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
    let reader = std::thread::spawn({
        let stop = Arc::clone(&stop);
        move || {
            let mut version = 1;
            let (mut open, mut closed, mut after) = (0u64, 0u64, 0u64);
            let mut markers = 0;
            while !stop.load(Ordering::Relaxed) {
                match ben.event_within(Duration::from_millis(100)).unwrap() {
                    Some(ClientEvent::Generation(generation)) => {
                        assert_eq!(generation.policy_version, version + 1, "every marker, in order");
                        version = generation.policy_version;
                        markers += 1;
                    }
                    Some(ClientEvent::Deliver(delivered)) if delivered.topic.as_str() == "t/open" => {
                        open += 1
                    }
                    Some(ClientEvent::Deliver(_)) => {
                        closed += 1;
                        after += u64::from(version % 2 == 0);
                    }
                    Some(ClientEvent::Binding(_) | ClientEvent::Lagged(_)) | None => {}
                    Some(other) => panic!("found {other:?}"),
                }
            }
            (open, closed, after, markers)
        }
    });
    for version in 2..2 + FLIPS {
        let report = bus.reload_policy(&if version % 2 == 0 { withdrawn(version) } else { given(version) });
        assert_eq!((report.version, report.sessions_cut), (version, 0));
        std::thread::sleep(Duration::from_millis(5));
    }
    std::thread::sleep(Duration::from_millis(100));
    stop.store(true, Ordering::Relaxed);
    let (open, closed, after, markers) = reader.join().unwrap();
    for publisher in publishers {
        let accepted = publisher.join().unwrap();
        assert!(accepted > FLIPS, "{accepted}");
    }
    assert_eq!(markers, FLIPS);
    assert!(open > FLIPS && closed > 0, "both topics flowed: {open} and {closed}");
    assert_eq!(after, 0, "of {closed} batches on the topic");
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
    let mut slowest = Duration::ZERO;
    for _ in 0..60 {
        let began = Instant::now();
        anna.publish(&mut publisher, &[&vec![1; 900_000]]).unwrap();
        assert_eq!(cleo.payloads().1.len(), 1);
        slowest = slowest.max(began.elapsed());
    }
    assert!(slowest < Duration::from_secs(5), "{slowest:?}");
    let began = Instant::now();
    let report = bus.reload_policy(&text(2));
    let took = began.elapsed();
    assert_eq!(report.sessions_cut, 1);
    assert!(took >= Duration::from_millis(200) && took < Duration::from_secs(5), "{took:?}");
    assert!(matches!(cleo.event(), ClientEvent::Generation(_)));
    assert!(matches!(anna.event(), ClientEvent::Generation(_)));
    anna.publish(&mut publisher, &[b"on"]).unwrap();
    assert_eq!(cleo.payloads().1, [b"on"]);
    bus.audit_has(&["marker-timeout", "spiffe://acme.example/ben"]);
    // What the stuck one still finds was written before; there is no marker, and then the connection is gone.
    loop {
        match stuck.event_within(Duration::from_secs(5)) {
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
