//! Cuts at every byte, frames out of turn, and peers that lie.

use bytes::Bytes;
use proptest::prelude::*;

use super::pair::{Pair, START, feed, hello, live, take, topic, welcome};
use crate::batch::accept::{Durability, Receipt};
use crate::frame::{
    Ack, Alias, Close, Credit, Deliver, Drain, Frame as _, FrameType, Freshness, Narrowed, Open, Publish,
    RequestId, Subscribe, SubscriptionId, What,
};
use crate::ids::StreamId;
use crate::limits::{
    DELIVERY_ALIASES_MAX, PING_AFTER_MS, REQUESTS_OUTSTANDING_MAX, SILENCE_MS_MAX,
    SUBSCRIPTIONS_PER_CONNECTION_MAX, TOPICS_PER_CONNECTION_MAX,
};
use crate::refusal::{Code, Refusal};
use crate::session::{BrokerEvent, BrokerSession, ClientEvent, SessionError, Tick};
use crate::topic::{Topic, TopicFilter};

#[test]
fn a_session_lives_however_its_bytes_are_cut() {
    for step in [1, 2, 3, 7, 8, 9, 64, 100_000] {
        let mut pair = Pair::serving(step);
        let request = pair.client.open(topic("orders/eu")).unwrap();
        let Some(BrokerEvent::Open { request: asked, topic: wanted }) = pair.broker_event() else {
            panic!("OPEN")
        };
        assert_eq!((asked, wanted), (request, topic("orders/eu")));
        let alias = pair.broker.opened(request, StreamId::ZERO, None).unwrap();
        assert!(matches!(pair.client_event(), Some(ClientEvent::Opened(opened)) if opened.alias == alias));

        let batch = Bytes::from(vec![3; 50_000]);
        let request = pair.client.publish(alias, batch.clone()).unwrap();
        let Some(BrokerEvent::Publish { batch: arrived, .. }) = pair.broker_event() else {
            panic!("PUBLISH")
        };
        assert_eq!(arrived, batch);
        let receipt = Receipt { durability: Durability::Live, offset: None };
        pair.broker.ack(&Ack { request, receipt, freshness: Freshness::New, broker_ms: 1 });
        assert!(matches!(pair.client_event(), Some(ClientEvent::Ack(ack)) if ack.request == request));

        let id = pair.subscribed(1_000_000);
        for _ in 0..2 {
            let wanted = topic("orders/eu");
            pair.broker.deliver(&live(id, &wanted, &batch));
            let Some(ClientEvent::Deliver(delivered)) = pair.client_event() else { panic!("DELIVER") };
            assert_eq!((delivered.topic, delivered.batch), (wanted, batch.clone()));
        }
        pair.client.close_subscription(id);
        assert!(
            matches!(pair.broker_event(), Some(BrokerEvent::Close(What::Subscription(closed))) if closed == id)
        );
        assert!(matches!(pair.client_event(), Some(ClientEvent::Closed(_))));
        pair.broker.drain(1_000);
        assert!(matches!(pair.client_event(), Some(ClientEvent::Drain(Drain { deadline_ms: 1_000 }))));
        pair.broker.fail(Refusal::new(Code::Draining, "shutting down"));
        assert!(
            matches!(pair.client_event(), Some(ClientEvent::Failed(refusal)) if refusal.code() == Code::Draining)
        );
        assert!(pair.client.is_ended());
    }
}

#[test]
fn nothing_but_hello_comes_first() {
    for frame in [
        Open { request: RequestId(1), topic: topic("a") }.encode(),
        Publish { request: RequestId(1), alias: Alias(0), batch: Bytes::new() }.encode(),
        Credit { subscription: SubscriptionId(1), bytes: 1 }.encode(),
    ] {
        let mut broker = BrokerSession::new_at(START);
        let refused = feed(&mut broker, &frame);
        assert!(matches!(refused, Err(SessionError::Unexpected { awaited: "HELLO", .. })), "{refused:?}");
    }
}

#[test]
fn a_second_hello_is_refused() {
    let refused = Pair::broker_refuses(&hello().encode());
    assert!(matches!(refused, SessionError::Unexpected { kind: FrameType::Hello, .. }));
}

#[test]
fn nothing_is_read_while_hello_is_judged() {
    let mut broker = BrokerSession::new_at(START);
    let stream = [hello().encode(), Open { request: RequestId(1), topic: topic("a") }.encode()].concat();
    assert_eq!(feed(&mut broker, &stream), Ok(1));
    broker.welcome(&welcome());
    assert!(matches!(broker.poll_event(), Ok(Some(BrokerEvent::Open { .. }))));
}

#[test]
fn an_unauthenticated_peer_cannot_announce_a_large_frame() {
    let mut broker = BrokerSession::new_at(START);
    let header = [FrameType::Hello as u8, 0, 0, 0, 0, 1, 0, 0];
    let refused = feed(&mut broker, &header).unwrap_err();
    assert_eq!(refused.refusal().code(), Code::Limit);
}

#[test]
fn aliases_and_subscriptions_must_exist() {
    let publish = Publish { request: RequestId(1), alias: Alias(0), batch: Bytes::new() };
    assert_eq!(Pair::broker_refuses(&publish.encode()), SessionError::UnknownAlias(Alias(0)));
    let huge = Publish { alias: Alias(u32::MAX), ..publish };
    assert_eq!(Pair::broker_refuses(&huge.encode()), SessionError::UnknownAlias(Alias(u32::MAX)));
    let close = Close(What::Alias(Alias(3)));
    assert_eq!(Pair::broker_refuses(&close.encode()), SessionError::UnknownAlias(Alias(3)));
    let subscribe = Subscribe {
        request: RequestId(1),
        subscription: SubscriptionId(1),
        credit_bytes: 0,
        filter: TopicFilter::parse("#").unwrap(),
    };
    let twice = [subscribe.encode(), subscribe.encode()].concat();
    assert_eq!(Pair::broker_refuses(&twice), SessionError::SubscriptionInUse(SubscriptionId(1)));
}

#[test]
fn a_closed_alias_is_not_open_and_is_given_again() {
    let mut pair = Pair::serving(64);
    let request = pair.client.open(topic("a")).unwrap();
    pair.broker_event();
    let alias = pair.broker.opened(request, StreamId::ZERO, None).unwrap();
    pair.client.close_alias(alias);
    assert!(matches!(pair.broker_event(), Some(BrokerEvent::Close(What::Alias(closed))) if closed == alias));
    let _ = pair.client.publish(alias, Bytes::new());
    let sent = take(pair.client.outgoing(), usize::MAX);
    assert_eq!(feed(&mut pair.broker, &sent), Err(SessionError::UnknownAlias(alias)));
    assert_eq!(pair.broker.opened(RequestId(9), StreamId::ZERO, None), Ok(alias));
}

#[test]
fn topics_subscriptions_and_requests_are_bounded() {
    let mut broker = BrokerSession::new_at(START);
    for _ in 0..TOPICS_PER_CONNECTION_MAX {
        broker.opened(RequestId(1), StreamId::ZERO, None).unwrap();
    }
    assert_eq!(broker.opened(RequestId(1), StreamId::ZERO, None), Err(SessionError::TooManyTopics));

    let subscribe = |id: u32| Subscribe {
        request: RequestId(id),
        subscription: SubscriptionId(id),
        credit_bytes: 0,
        filter: TopicFilter::parse("#").unwrap(),
    };
    let many: Vec<u8> =
        (1..=SUBSCRIPTIONS_PER_CONNECTION_MAX as u32 + 1).flat_map(|id| subscribe(id).encode()).collect();
    assert_eq!(Pair::broker_refuses(&many), SessionError::TooManySubscriptions);

    let open = |id: u32| Open { request: RequestId(id), topic: topic("a") }.encode();
    let many: Vec<u8> = (1..=REQUESTS_OUTSTANDING_MAX as u32 + 1).flat_map(open).collect();
    assert_eq!(Pair::broker_refuses(&many), SessionError::TooManyRequests);
}

#[test]
fn credit_is_overdrawn_by_at_most_one_batch() {
    let mut pair = Pair::serving(100_000);
    let id = pair.subscribed(10);
    let (wanted, batch) = (topic("a"), Bytes::from_static(&[0; 100]));
    let delivery = live(id, &wanted, &batch);
    assert!(pair.broker.has_credit(id));
    pair.broker.deliver(&delivery);
    assert!(!pair.broker.has_credit(id));
    pair.client.credit(id, 90);
    assert!(matches!(pair.broker_event(), Some(BrokerEvent::Credit(_))));
    assert!(!pair.broker.has_credit(id), "the overdraft is paid first");
    pair.client.credit(id, u64::MAX);
    pair.broker_event();
    assert!(pair.broker.has_credit(id));
}

#[test]
fn delivery_aliases_are_given_anew_when_they_run_out() {
    let mut pair = Pair::serving(100_000);
    let id = pair.subscribed(1 << 40);
    let batch = Bytes::from_static(b"batch");
    let topics: Vec<Topic> =
        (0..DELIVERY_ALIASES_MAX + 10).map(|number| topic(&format!("t/{number}"))).collect();
    for wanted in topics.iter().chain(&topics) {
        pair.broker.deliver(&live(id, wanted, &batch));
        let Some(ClientEvent::Deliver(delivered)) = pair.client_event() else { panic!("DELIVER") };
        assert_eq!(&delivered.topic, wanted);
    }
    assert!(pair.broker.delivery_alias_count() <= DELIVERY_ALIASES_MAX as usize);
}

#[test]
fn a_subscription_closed_before_it_is_ready_is_closed_then() {
    let mut pair = Pair::serving(64);
    let (_, id) = pair.client.subscribe(TopicFilter::parse("#").unwrap(), 1).unwrap();
    let Some(BrokerEvent::Subscribe(subscribe)) = pair.broker_event() else { panic!("SUBSCRIBE") };
    pair.client.close_subscription(id);
    assert!(pair.client.outgoing().is_empty(), "a broker that refuses it would not know what to close");
    pair.broker.ready(subscribe.request, id, Narrowed::No, 1, None);
    pair.client_event();
    assert!(matches!(pair.broker_event(), Some(BrokerEvent::Close(What::Subscription(_)))));

    let (request, id) = pair.client.subscribe(TopicFilter::parse("#").unwrap(), 1).unwrap();
    pair.broker_event();
    pair.client.close_subscription(id);
    pair.broker.refuse_subscription(request, id, Refusal::new(Code::Denied, "no rule"));
    assert!(matches!(pair.client_event(), Some(ClientEvent::Closed(_))), "the first one");
    assert!(matches!(pair.client_event(), Some(ClientEvent::Refused(_))));
    assert!(pair.broker_event().is_none());
}

#[test]
fn deliveries_on_their_way_to_a_closed_subscription_are_dropped() {
    let mut pair = Pair::serving(64);
    let id = pair.subscribed(1_000);
    let (wanted, batch) = (topic("a"), Bytes::from_static(b"batch"));
    pair.client.close_subscription(id);
    pair.broker.deliver(&live(id, &wanted, &batch));
    pair.broker.lagged(id, 3);
    pair.broker_event();
    assert!(matches!(pair.client_event(), Some(ClientEvent::Closed(_))));
    let late = live(id, &wanted, &batch);
    pair.broker.deliver(&late);
    assert!(pair.client_event().is_none(), "the broker sends nothing after CLOSED");
}

#[test]
fn a_broker_that_lies_is_refused_by_its_client() {
    let ack = Ack {
        request: RequestId(77),
        receipt: Receipt { durability: Durability::Live, offset: None },
        freshness: Freshness::New,
        broker_ms: 0,
    };
    assert_eq!(Pair::client_refuses(&ack.encode()), SessionError::UnknownRequest(RequestId(77)));
    let refused = Pair::client_refuses(&welcome().encode());
    assert!(matches!(refused, SessionError::Unexpected { kind: FrameType::Welcome, .. }));
    let deliver = Deliver {
        subscription: SubscriptionId(1),
        alias: Alias(0),
        offset: None,
        broker_ms: 0,
        topic: None,
        stored: None,
        ranges: None,
        batch: Bytes::new(),
    };
    assert_eq!(Pair::client_refuses(&deliver.encode()), SessionError::UnknownSubscription(SubscriptionId(1)));
}

#[test]
fn an_alias_without_a_topic_is_refused() {
    let mut pair = Pair::serving(64);
    let id = pair.subscribed(1_000);
    for (alias, wanted) in [(Alias(5), None), (Alias(DELIVERY_ALIASES_MAX), Some(topic("a").into()))] {
        let deliver = Deliver {
            subscription: id,
            alias,
            offset: None,
            broker_ms: 0,
            topic: wanted,
            stored: None,
            ranges: None,
            batch: Bytes::new(),
        };
        pair.client.space().extend_from_slice(&deliver.encode());
        assert!(matches!(pair.client.poll_event(), Err(SessionError::UnknownAlias(found)) if found == alias));
        pair = Pair::serving(64);
        pair.subscribed(1_000);
    }
}

#[test]
fn silence_is_asked_about_and_then_ends_the_session() {
    let mut pair = Pair::serving(64);
    assert_eq!(pair.broker.poll_timeout(), Tick(PING_AFTER_MS));
    pair.broker.handle_timeout_at(Tick(PING_AFTER_MS)).unwrap();
    assert_eq!(pair.broker.poll_timeout(), Tick(SILENCE_MS_MAX));
    assert!(pair.client_event().is_none());
    assert!(!pair.client.outgoing().is_empty(), "PONG");
    assert!(pair.broker_event().is_none());
    assert_eq!(pair.broker.poll_timeout(), Tick(PING_AFTER_MS), "heard at the start of this test's clock");
    let silent = pair.broker.handle_timeout_at(Tick(SILENCE_MS_MAX));
    assert_eq!(silent, Err(SessionError::Silence { ms: SILENCE_MS_MAX }));
}

#[test]
fn what_follows_the_end_is_not_read() {
    let mut pair = Pair::serving(64);
    pair.broker.fail(Refusal::new(Code::Fenced, "a newer incarnation"));
    assert_eq!(feed(&mut pair.broker, &hello().encode()), Ok(0));
    assert!(pair.broker.is_ended());
}

proptest! {
    /// Whatever comes, the broker's half answers or refuses; it does not panic, and holds what its limits say.
    #[test]
    fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..2_000), greeted in any::<u8>()) {
        let mut broker = if greeted % 2 == 0 { BrokerSession::new_at(START) } else { Pair::serving(64).broker };
        let _ = feed(&mut broker, &bytes);
    }

    /// A valid stream with one byte changed is survived by both halves.
    #[test]
    fn a_changed_byte_is_survived(at in 0usize..400, value in any::<u8>()) {
        let frames = [
            Open { request: RequestId(1), topic: topic("orders/eu") }.encode(),
            Publish { request: RequestId(2), alias: Alias(0), batch: Bytes::from_static(&[1; 100]) }.encode(),
            Credit { subscription: SubscriptionId(1), bytes: 7 }.encode(),
            hello().encode(),
        ];
        let mut stream = frames.concat();
        let at = at % stream.len();
        stream[at] = value;
        let mut pair = Pair::serving(64);
        let _ = feed(&mut pair.broker, &stream);
        pair.client.space().extend_from_slice(&stream);
        while let Ok(Some(_)) = pair.client.poll_event() {}
    }
}
