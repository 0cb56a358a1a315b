//! Shutting down: what was acknowledged is delivered, and nothing more is taken.

use sealbus_protocol::refusal::Code;
use sealbus_protocol::session::ClientEvent;

use crate::harness::{Bus, PATIENCE, allow, payloads_of, policy};

fn open_policy() -> String {
    policy(
        1,
        &[
            allow("anna-writes", "anna", "publish", &["t/#"]),
            allow("ben-reads", "ben", "subscribe", &["t/#"]),
        ],
    )
}

#[test]
fn everything_acknowledged_is_delivered_before_the_end() {
    let mut bus = Bus::start(&open_policy());
    let mut ben = bus.client("ben");
    ben.subscribe("t/#").unwrap();
    let mut anna = bus.client("anna");
    let mut publisher = anna.publisher("t/1");
    let (under_way, enough) = std::sync::mpsc::channel();
    let publishing = std::thread::spawn(move || {
        let mut acknowledged = 0u64;
        loop {
            let batch = anna.sign(&mut publisher, &[&[1; 3_000]]);
            let request = anna.send(&publisher, batch.bytes().clone());
            loop {
                match anna.event_within(PATIENCE) {
                    Ok(Some(ClientEvent::Ack(ack))) if ack.request == request => {
                        acknowledged += 1;
                        if acknowledged == 50 {
                            under_way.send(()).unwrap();
                        }
                    }
                    Ok(Some(ClientEvent::Drain(_))) => continue,
                    Ok(Some(ClientEvent::Refused(refused))) => {
                        assert_eq!(refused.refusal.code(), Code::Draining);
                        return acknowledged;
                    }
                    Ok(Some(ClientEvent::Failed(refusal))) => {
                        assert_eq!(refusal.code(), Code::Draining);
                        return acknowledged;
                    }
                    // It may be closed before a batch that is on its way can be refused.
                    Err(_) => return acknowledged,
                    Ok(other) => panic!("found {other:?}"),
                }
                break;
            }
        }
    });
    let reading = std::thread::spawn(move || {
        let (mut delivered, mut was_drained) = (0u64, false);
        loop {
            match ben.event_within(PATIENCE) {
                Ok(Some(ClientEvent::Deliver(_))) => delivered += 1,
                Ok(Some(ClientEvent::Drain(_))) => was_drained = true,
                Ok(Some(ClientEvent::Binding(_))) => {}
                Ok(Some(ClientEvent::Failed(refusal))) => {
                    assert_eq!(refusal.code(), Code::Draining);
                    return (delivered, was_drained);
                }
                other => panic!("found {other:?}"),
            }
        }
    });
    enough.recv().unwrap();
    bus.shutdown();
    let acknowledged = publishing.join().unwrap();
    let (delivered, was_drained) = reading.join().unwrap();
    assert!(acknowledged >= 50, "{acknowledged}");
    assert!(was_drained);
    assert_eq!(delivered, acknowledged);
    let log = std::fs::read_to_string(bus.path("data/audit/audit.jsonl")).unwrap();
    let last = log.lines().next_back().unwrap();
    assert!(last.contains("600204"), "{last}");
}

/// Who does not take what is left in time is ended, and the shutdown returns.
#[test]
fn a_stuck_session_does_not_hold_up_the_end() {
    let mut bus = Bus::start_with(&open_policy(), |config| config.limits.drain_timeout_ms = 300);
    let mut ben = bus.client("ben");
    ben.subscribe("t/#").unwrap();
    let mut anna = bus.client("anna");
    let mut publisher = anna.publisher("t/1");
    for _ in 0..40 {
        anna.publish(&mut publisher, &[&vec![1; 900_000]]).unwrap();
    }
    let began = std::time::Instant::now();
    bus.shutdown();
    assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
    bus.audit_has(&["drained", "spiffe://acme.example/ben"]);
}

/// What waits for credit is still delivered, when the credit comes before the deadline.
#[test]
fn what_waits_for_credit_is_not_left_behind() {
    let mut bus = Bus::start(&open_policy());
    let mut ben = bus.client("ben");
    let subscription = ben.subscribe_with("t/#", 1).unwrap().subscription;
    let mut anna = bus.client("anna");
    let mut publisher = anna.publisher("t/1");
    for number in 0..20u8 {
        anna.publish(&mut publisher, &[&[number]]).unwrap();
    }
    let reading = std::thread::spawn(move || {
        let (mut found, mut was_drained) = (Vec::new(), false);
        loop {
            match ben.event_within(PATIENCE) {
                Ok(Some(ClientEvent::Deliver(batch))) => found.push(payloads_of(&batch.batch)[0][0]),
                Ok(Some(ClientEvent::Drain(_))) => {
                    was_drained = true;
                    ben.session.credit(subscription, 1_000_000);
                    ben.flush();
                }
                Ok(Some(ClientEvent::Binding(_))) => {}
                Ok(Some(ClientEvent::Failed(refusal))) => {
                    assert_eq!(refusal.code(), Code::Draining);
                    return (found, was_drained);
                }
                other => panic!("found {other:?}"),
            }
        }
    });
    bus.shutdown();
    let (found, was_drained) = reading.join().unwrap();
    assert!(was_drained);
    assert_eq!(found, (0..20).collect::<Vec<u8>>());
}
