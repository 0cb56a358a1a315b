//! What one principal may take: the rest of the bus does not notice who takes all of it. The broker's clock stands
//! still, so that nothing comes back before a test says so.

use std::sync::Arc;
use std::time::Duration;

use sealbus_broker::clock::ManualClock;
use sealbus_protocol::frame::{SubscriptionId, What};
use sealbus_protocol::refusal::Code;
use sealbus_protocol::session::ClientEvent;
use sealbus_protocol::topic::TopicFilter;

use crate::harness::{Bus, Client, Incarnation, PATIENCE, allow, now_ms, policy};

/// What a principal may do at once that is recorded.
const ACTS_AT_ONCE: usize = 16_384;

/// Subscriptions of a principal, and of one session.
const SUBSCRIPTIONS_MAX: usize = 16_384;
const PER_SESSION: usize = 1_024;

/// Subscriptions that are asked for before the answers are read.
const TOGETHER: usize = 64;

fn bus() -> (Bus, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::new(now_ms()));
    let rules = [
        allow("anna-reads", "anna", "subscribe", &["t/#"]),
        allow("ben-reads", "ben", "subscribe", &["t/#"]),
        allow("ben-writes", "ben", "publish", &["t/#"]),
    ];
    let bus = Bus::start_at(Arc::clone(&clock) as _, &policy(1, &rules), |config| {
        // The tests are faster than a disk may be.
        config.audit.queue_events_max = 100_000;
    });
    (bus, clock)
}

fn ask(client: &mut Client) {
    for _ in 0..TOGETHER {
        client.session.subscribe(TopicFilter::parse("t/x").unwrap(), 1_000).unwrap();
    }
    client.flush();
}

/// The next subscription that is ready within this time, over the ends of others.
fn ready_within(client: &mut Client, timeout: Duration) -> Option<SubscriptionId> {
    loop {
        match client.event_within(timeout).unwrap()? {
            ClientEvent::Ready(ready) => return Some(ready.subscription),
            ClientEvent::Closed(_) => {}
            other => panic!("READY was expected, found {other:?}"),
        }
    }
}

fn ready(client: &mut Client) -> SubscriptionId {
    ready_within(client, PATIENCE).expect("READY comes in time")
}

#[test]
fn who_subscribes_and_closes_without_end_is_slowed_down_and_alone() {
    let (bus, clock) = bus();
    let mut calm = bus.client("ben");
    let mut publisher = calm.publisher("t/calm");
    let mut loops = bus.client("ben");
    for _ in 0..ACTS_AT_ONCE / (2 * TOGETHER) {
        ask(&mut loops);
        for _ in 0..TOGETHER {
            let subscription = ready(&mut loops);
            loops.session.close_subscription(subscription);
        }
        loops.flush();
    }
    ask(&mut loops);
    let early = ready_within(&mut loops, Duration::from_millis(300));
    assert_eq!(early, None, "its principal has to pay first");

    let again = Incarnation::new(bus.identity("ben"));
    let mut refused = bus.connect(&again);
    refused.greet(&again);
    let refusal = refused.expect_failure();
    assert_eq!(refusal.code(), Code::Limit);
    assert!(refusal.reason().contains("have done 16384 things that are recorded"), "{refusal}");

    // Neither a session of the same principal that does nothing of the kind is held up, nor anybody else.
    calm.publish(&mut publisher, &[b"still here"]).unwrap();
    bus.client("anna").subscribe("t/#").unwrap();

    clock.advance(1_000);
    // It was not cut.
    for _ in 0..TOGETHER {
        ready(&mut loops);
    }
    bus.client_as(&again);
}

#[test]
fn a_principal_has_so_many_subscriptions_over_all_of_its_sessions() {
    let (bus, clock) = bus();
    let mut sessions: Vec<Client> = (0..SUBSCRIPTIONS_MAX / PER_SESSION).map(|_| bus.client("ben")).collect();
    let mut last = bus.client("ben");
    // The sessions and their subscriptions are a few more acts than there may be at once.
    clock.advance(1_000);
    for session in &mut sessions[1..] {
        for _ in 0..PER_SESSION / TOGETHER {
            ask(session);
            for _ in 0..TOGETHER {
                ready(session);
            }
        }
    }
    clock.advance(1_000);
    let first = &mut sessions[0];
    let held: Vec<_> = (0..PER_SESSION).map(|_| first.subscribe("t/y").unwrap().subscription).collect();
    let refusal = last.subscribe("t/z").unwrap_err();
    assert_eq!(refusal.code(), Code::Limit);
    assert_eq!(refusal.reason(), "subscribe: the principal has 16384 subscriptions, and one may have 16384");
    bus.client("anna").subscribe("t/z").unwrap();

    first.close_subscription(held[0]);
    let ended = first.event();
    assert!(matches!(ended, ClientEvent::Closed(What::Subscription(id)) if id == held[0]), "found {ended:?}");
    last.subscribe("t/z").unwrap();
    assert_eq!(last.subscribe("t/z").unwrap_err().code(), Code::Limit);
}
