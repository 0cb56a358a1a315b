//! Replays, durable consumers and checkpoints.

use std::num::NonZeroU32;

use bytes::Bytes;

use super::pair::{Pair, feed, live, topic};
use crate::frame::{
    CheckpointReply, Close, Closed, Consume, ConsumerKey, ConsumerSettings, Credit, Frame as _, Narrowed,
    RecordRange, Refused, Replay, RequestId, Settle, SettleItem, Settled, Settlement, Skipped, SkippedWhy,
    Start, StoredAt, StreamStart, Subscribe, SubscriptionId, Sync, Until, What,
};
use crate::ids::StreamId;
use crate::limits::{REQUESTS_OUTSTANDING_MAX, SETTLE_ITEMS_MAX, SUBSCRIPTIONS_PER_CONNECTION_MAX};
use crate::policy::Name;
use crate::refusal::{Code, Refusal};
use crate::session::{BrokerEvent, ClientEvent, Delivery, SessionError};
use crate::stream_name::StreamName;
use crate::topic::TopicFilter;

const STREAM: StreamId = StreamId::new([7; 16]);
const BEGIN: StreamStart = StreamStart { stream_id: STREAM, offset: 3, end: 9 };

fn orders() -> StreamName {
    StreamName::parse("orders").unwrap()
}

fn billing() -> ConsumerKey {
    let name = |text| Name::parse(text).unwrap();
    ConsumerKey { stream: name("orders"), consumer: name("billing") }
}

fn acks(offset: u64) -> Vec<SettleItem> {
    vec![SettleItem { offset, count: NonZeroU32::MIN, settlement: Settlement::Ack }]
}

/// A replay that is in effect.
fn replaying(pair: &mut Pair) -> SubscriptionId {
    let (request, id) = pair.client.replay(orders(), Start::Earliest, Until::End, None, 1_000).unwrap();
    assert!(matches!(pair.broker_event(), Some(BrokerEvent::Replay(_))));
    pair.broker.ready(request, id, Narrowed::No, 1, Some(BEGIN));
    assert!(matches!(pair.client_event(), Some(ClientEvent::Ready(ready)) if ready.start == Some(BEGIN)));
    id
}

/// A durable consumer that is joined.
fn consuming(pair: &mut Pair) -> SubscriptionId {
    let settings = ConsumerSettings::default();
    let (request, id) = pair.client.consume(billing(), Start::End, settings, None, 1_000).unwrap();
    assert!(matches!(pair.broker_event(), Some(BrokerEvent::Consume(_))));
    pair.broker.ready(request, id, Narrowed::No, 1, Some(BEGIN));
    assert!(matches!(pair.client_event(), Some(ClientEvent::Ready(_))));
    id
}

#[test]
fn a_stream_is_read_however_its_bytes_are_cut() {
    for step in [1, 7, 64, 100_000] {
        let mut pair = Pair::serving(step);
        let filter = TopicFilter::parse("orders/#").unwrap();
        let asked = pair.client.replay(orders(), Start::Offset(3), Until::Live, Some(filter.clone()), 50);
        let (request, id) = asked.unwrap();
        let Some(BrokerEvent::Replay(replay)) = pair.broker_event() else { panic!("REPLAY") };
        let expected = Replay {
            request,
            subscription: id,
            credit_bytes: 50,
            from: Start::Offset(3),
            until: Until::Live,
            stream: orders(),
            filter: Some(filter),
        };
        assert_eq!(replay, expected);
        pair.broker.ready(request, id, Narrowed::Yes, 1, Some(BEGIN));
        assert!(matches!(pair.client_event(), Some(ClientEvent::Ready(ready)) if ready.start == Some(BEGIN)));

        let skipped = Skipped { subscription: id, why: SkippedWhy::Damaged, from: 3, to: 5 };
        pair.broker.skipped(&skipped);
        assert!(matches!(pair.client_event(), Some(ClientEvent::Skipped(found)) if found == skipped));

        let (wanted, batch) = (topic("orders/eu"), Bytes::from(vec![3; 5_000]));
        let stored = Some(StoredAt { policy_version: 2, leaf_index: 4 });
        let ranges = [RecordRange { first: 1, count: NonZeroU32::MIN, deliveries: NonZeroU32::MIN }];
        for _ in 0..2 {
            pair.broker.deliver(&Delivery {
                stream: STREAM,
                offset: Some(5),
                stored,
                ranges: Some(&ranges),
                ..live(id, &wanted, &batch)
            });
            let Some(ClientEvent::Deliver(delivered)) = pair.client_event() else { panic!("DELIVER") };
            assert_eq!((delivered.topic, delivered.stream_id), (wanted.clone(), STREAM));
            assert_eq!((delivered.offset, delivered.stored), (Some(5), stored));
            assert_eq!(delivered.ranges.as_deref(), Some(&ranges[..]));
            assert_eq!(delivered.batch, batch);
        }
        assert!(!pair.broker.has_credit(id), "credit is that of subscriptions");
    }
}

#[test]
fn a_topic_has_an_alias_for_each_of_its_streams() {
    let mut pair = Pair::serving(64);
    let id = replaying(&mut pair);
    let (wanted, batch) = (topic("a"), Bytes::from_static(b"batch"));
    for (stream, aliases) in [(StreamId::ZERO, 1), (STREAM, 2), (StreamId::ZERO, 2), (STREAM, 2)] {
        pair.broker.deliver(&Delivery { stream, ..live(id, &wanted, &batch) });
        assert_eq!(pair.broker.delivery_alias_count(), aliases);
        let Some(ClientEvent::Deliver(delivered)) = pair.client_event() else { panic!("DELIVER") };
        assert_eq!((delivered.topic, delivered.stream_id), (wanted.clone(), stream));
    }
}

#[test]
fn a_settlement_is_answered_when_that_is_wanted() {
    let mut pair = Pair::serving(64);
    let id = consuming(&mut pair);
    let request = pair.client.settle(id, acks(5), Sync::Yes).unwrap().expect("an answer is awaited");
    let Some(BrokerEvent::Settle(settle)) = pair.broker_event() else { panic!("SETTLE") };
    assert_eq!(settle, Settle { request, subscription: id, sync: Sync::Yes, items: acks(5) });
    assert_eq!(pair.broker.unanswered(), 1);
    pair.broker.settled(request);
    assert_eq!(pair.broker.unanswered(), 0);
    assert!(matches!(pair.client_event(), Some(ClientEvent::Settled(settled)) if settled.request == request));

    assert_eq!(pair.client.settle(id, acks(6), Sync::No), Ok(None));
    let Some(BrokerEvent::Settle(settle)) = pair.broker_event() else { panic!("SETTLE") };
    assert!(!settle.request.is_awaited());
    assert_eq!(pair.broker.unanswered(), 0, "nothing is owed");
    assert!(pair.client_event().is_none());
}

#[test]
fn what_awaits_no_answer_is_not_counted_and_may_be_refused() {
    let mut pair = Pair::serving(100_000);
    let id = consuming(&mut pair);
    for offset in 0..2 * REQUESTS_OUTSTANDING_MAX as u64 {
        assert_eq!(pair.client.settle(id, acks(offset), Sync::No), Ok(None));
    }
    let mut last = None;
    while let Some(event) = pair.broker_event() {
        let BrokerEvent::Settle(settle) = event else { panic!("SETTLE") };
        last = Some(settle.request);
    }
    let open = pair.client.settle(id, acks(0), Sync::Yes).unwrap();
    pair.broker_event();
    pair.broker.refuse(last.unwrap(), Refusal::new(Code::Denied, "the right is gone"));
    assert_eq!(pair.broker.unanswered(), 1, "of the one that is awaited");
    let Some(ClientEvent::Refused(refused)) = pair.client_event() else { panic!("REFUSED") };
    assert_eq!(Some(refused.request), last);
    pair.broker.refuse(open.unwrap(), Refusal::new(Code::Denied, "the right is gone"));
    assert!(matches!(pair.client_event(), Some(ClientEvent::Refused(_))));
}

#[test]
fn what_was_never_settled_cannot_be_refused() {
    let refused = |request| Refused { request, refusal: Refusal::new(Code::Denied, "no") };
    let never = RequestId(RequestId::UNAWAITED);
    assert_eq!(Pair::client_refuses(&refused(never).encode()), SessionError::UnknownRequest(never));
    let settled = Settled { request: RequestId(9) };
    assert_eq!(Pair::client_refuses(&settled.encode()), SessionError::UnknownRequest(RequestId(9)));
}

#[test]
fn ids_say_whether_an_answer_is_awaited() {
    let settle = |request, sync| {
        let subscription = SubscriptionId(1);
        Settle { request: RequestId(request), subscription, sync, items: acks(0) }.encode()
    };
    for (request, sync) in
        [(RequestId::UNAWAITED, Sync::Yes), (u32::MAX, Sync::Yes), (0, Sync::Yes), (1, Sync::No)]
    {
        let refused = Pair::broker_refuses(&settle(request, sync));
        assert_eq!(refused, SessionError::UnknownRequest(RequestId(request)));
    }
    let get = crate::frame::BindingGet { request: RequestId(u32::MAX), kid: crate::ids::Kid::ZERO };
    assert_eq!(Pair::broker_refuses(&get.encode()), SessionError::UnknownRequest(RequestId(u32::MAX)));
}

#[test]
fn only_deliveries_of_a_durable_consumer_are_settled() {
    let mut pair = Pair::serving(64);
    let (live, replayed) = (pair.subscribed(1), replaying(&mut pair));
    for id in [live, replayed] {
        let settle = Settle { request: RequestId(99), subscription: id, sync: Sync::Yes, items: acks(0) };
        assert_eq!(feed(&mut pair.broker, &settle.encode()), Err(SessionError::NotAConsumer(id)));
    }
}

#[test]
fn nothing_is_settled_on_a_subscription_that_is_not_open() {
    let mut pair = Pair::serving(64);
    let settings = ConsumerSettings::default();
    let (_, opening) = pair.client.consume(billing(), Start::End, settings, None, 1).unwrap();
    assert!(matches!(pair.broker_event(), Some(BrokerEvent::Consume(_))));
    let open = consuming(&mut pair);
    assert_eq!(pair.client.settle(opening, acks(0), Sync::Yes), Ok(None));
    assert_eq!(pair.client.settle(SubscriptionId(77), acks(0), Sync::Yes), Ok(None));
    assert_eq!(pair.client.settle(open, Vec::new(), Sync::Yes), Ok(None));
    assert!(pair.client.outgoing().is_empty());
}

#[test]
#[should_panic(expected = "whoever settles keeps to the limit")]
fn too_many_items_are_a_mistake_of_this_side() {
    let mut pair = Pair::serving(64);
    let id = consuming(&mut pair);
    let _ = pair.client.settle(id, vec![acks(0)[0]; SETTLE_ITEMS_MAX + 1], Sync::No);
}

#[test]
fn a_broker_ends_a_replay_that_is_over() {
    let mut pair = Pair::serving(64);
    let id = replaying(&mut pair);
    pair.broker.close_subscription(id);
    assert!(!pair.broker.has_credit(id));
    assert!(
        matches!(pair.client_event(), Some(ClientEvent::Closed(What::Subscription(closed))) if closed == id)
    );
    let (wanted, batch) = (topic("a"), Bytes::from_static(b"batch"));
    pair.broker.deliver(&live(id, &wanted, &batch));
    pair.broker.lagged(id, 1);
    pair.broker.skipped(&Skipped { subscription: id, why: SkippedWhy::Trimmed, from: 0, to: 1 });
    pair.broker.close_subscription(id);
    assert!(pair.client_event().is_none(), "nothing follows CLOSED");
    pair.client.close_subscription(id);
    pair.client.credit(id, 1);
    assert!(pair.client.outgoing().is_empty(), "and nothing is said of it any more");
}

/// Both ends close at once: each takes the other's word for the end, and neither is answered twice.
#[test]
fn closings_may_cross() {
    let mut pair = Pair::serving(64);
    let id = consuming(&mut pair);
    pair.client.credit(id, 7);
    assert_eq!(pair.client.settle(id, acks(0), Sync::No), Ok(None));
    let settled = pair.client.settle(id, acks(1), Sync::Yes).unwrap();
    pair.client.close_subscription(id);
    pair.broker.close_subscription(id);
    assert!(pair.broker_event().is_none(), "what was said of it meanwhile is passed over");
    assert!(matches!(pair.client_event(), Some(ClientEvent::Closed(_))));
    let Some(ClientEvent::Refused(refused)) = pair.client_event() else { panic!("REFUSED") };
    assert_eq!((Some(refused.request), refused.refusal.code()), (settled, Code::Session));
    assert!(pair.client_event().is_none());
    assert_eq!(pair.broker.unanswered(), 0);
    consuming(&mut pair);
}

#[test]
fn a_broker_ends_only_what_is_ready() {
    let mut pair = Pair::serving(64);
    let (_, id) = pair.client.replay(orders(), Start::End, Until::Live, None, 1).unwrap();
    pair.client.space().extend_from_slice(&Closed(What::Subscription(id)).encode());
    assert!(matches!(pair.client.poll_event(), Err(SessionError::UnknownSubscription(found)) if found == id));
}

#[test]
fn all_subscriptions_share_their_ids_and_their_limit() {
    let (request, subscription, credit_bytes, from) = (RequestId(1), SubscriptionId(1), 0, Start::End);
    let ConsumerKey { stream, consumer } = billing();
    let settings = ConsumerSettings::default();
    let subscribe =
        Subscribe { request, subscription, credit_bytes, filter: TopicFilter::parse("#").unwrap() };
    let replay = Replay {
        request,
        subscription,
        credit_bytes,
        from,
        until: Until::Live,
        stream: orders(),
        filter: None,
    };
    let consume =
        Consume { request, subscription, credit_bytes, from, settings, stream, consumer, filter: None };
    let all = [subscribe.encode(), replay.encode(), consume.encode()];
    for (first, second) in all.iter().flat_map(|first| all.iter().map(move |second| (first, second))) {
        let refused = Pair::broker_refuses(&[&first[..], second].concat());
        assert_eq!(refused, SessionError::SubscriptionInUse(subscription));
    }

    let mut pair = Pair::serving(100_000);
    for _ in 0..SUBSCRIPTIONS_PER_CONNECTION_MAX {
        pair.client.replay(orders(), Start::End, Until::Live, None, 1).unwrap();
    }
    let settings = ConsumerSettings::default();
    let refused = pair.client.consume(billing(), Start::End, settings, None, 1);
    assert_eq!(refused, Err(SessionError::TooManySubscriptions));
    let one_more = Replay { subscription: SubscriptionId(u32::MAX), request: RequestId(9_999), ..replay };
    while pair.broker_event().is_some() {}
    assert_eq!(feed(&mut pair.broker, &one_more.encode()), Err(SessionError::TooManySubscriptions));
}

#[test]
fn a_refused_replay_is_forgotten_by_both() {
    let mut pair = Pair::serving(64);
    let (request, id) = pair.client.replay(orders(), Start::End, Until::Live, None, 1).unwrap();
    pair.broker_event();
    pair.broker.refuse_subscription(request, id, Refusal::new(Code::Denied, "no rule allows it"));
    assert!(matches!(pair.client_event(), Some(ClientEvent::Refused(_))));
    assert!(!pair.broker.has_credit(id));
    pair.client.close_subscription(id);
    assert!(pair.client.outgoing().is_empty());
}

#[test]
fn what_comes_for_a_subscription_that_is_gone_is_ignored() {
    let id = SubscriptionId(9);
    let settle =
        Settle { request: RequestId(RequestId::UNAWAITED), subscription: id, sync: Sync::No, items: acks(0) };
    let said = [
        Close(What::Subscription(id)).encode(),
        Credit { subscription: id, bytes: 1 }.encode(),
        settle.encode(),
    ];
    let mut pair = Pair::serving(64);
    assert_eq!(feed(&mut pair.broker, &said.concat()), Ok(0));
    assert!(pair.broker.outgoing().is_empty());
}

#[test]
fn a_checkpoint_is_asked_for_and_given() {
    let mut pair = Pair::serving(7);
    let request = pair.client.checkpoint_get(orders(), 3, Some(2)).unwrap();
    let Some(BrokerEvent::CheckpointGet(get)) = pair.broker_event() else { panic!("CHECKPOINT_GET") };
    assert_eq!((get.request, get.stream, get.old_size, get.leaf_index), (request, orders(), 3, Some(2)));
    let reply = CheckpointReply {
        request,
        size: 5,
        prefix: vec![[1; 32], [2; 32]],
        consistency: vec![[3; 32]],
        inclusion: vec![[4; 32]; 3],
        note: "a note\n".into(),
    };
    pair.broker.checkpoint(&reply);
    assert_eq!(pair.broker.unanswered(), 0);
    assert!(matches!(pair.client_event(), Some(ClientEvent::Checkpoint(found)) if *found == reply));
    assert_eq!(Pair::client_refuses(&reply.encode()), SessionError::UnknownRequest(request));
}
