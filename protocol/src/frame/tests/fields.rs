//! What the fields of the frames of streams may be, and what not.

use bytes::Bytes;

use super::samples::*;
use crate::frame::*;
use crate::ids::StreamId;
use crate::limits::{
    BACKOFF_STEPS_MAX, BATCH_BYTES_MAX, RANGES_MAX, SETTLE_ITEMS_MAX, STREAM_FILTERS_MAX, TOPIC_BYTES_MAX,
    UNACKNOWLEDGED_MAX,
};

/// The payload of the frame with some bytes of it replaced.
fn edited(frame: &Bytes, at: usize, bytes: &[u8]) -> RawFrame {
    let mut copy = frame.to_vec();
    copy[HEADER_LEN + at..HEADER_LEN + at + bytes.len()].copy_from_slice(bytes);
    raw(&copy.into())
}

fn flagged(frame: &Bytes, flags: u8) -> RawFrame {
    let mut flagged = raw(frame);
    flagged.header.flags = flags;
    flagged
}

fn client_refuses(frame: &RawFrame, field: &str) {
    let error = BrokerFrame::decode(frame).unwrap_err().to_string();
    assert!(error.contains(field), "{field}: {error}");
}

fn broker_refuses(frame: &RawFrame, field: &str) {
    let error = ClientFrame::decode(frame).unwrap_err().to_string();
    assert!(error.contains(field), "{field}: {error}");
}

#[test]
fn a_replay_says_where_it_begins_and_ends_in_one_way() {
    let replay = replays()[0].encode();
    for kind in [0, 6, 0xff] {
        broker_refuses(&edited(&replay, 16, &[kind]), "from");
    }
    broker_refuses(&edited(&replay, 17, &[2]), "until");
    broker_refuses(&edited(&replay, 18, &[1]), "zero");
    broker_refuses(&edited(&replay, 19, &[1]), "zero");
    for (kind, name) in [(1, "the beginning"), (5, "the end")] {
        let valued = edited(&replay, 16, &[kind, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        assert!(ClientFrame::decode(&valued).is_err(), "{name} is told without a number");
    }
    broker_refuses(&edited(&replay, 30, b"$"), "stream");
    broker_refuses(&edited(&replay, 28, &[0xff, 0xff]), "stream");
    broker_refuses(&edited(&replays()[7].encode(), 38, b"#"), "filter");
}

#[test]
fn a_consumer_is_within_its_limits() {
    let consume = consumes()[2].encode();
    broker_refuses(&edited(&consume, 16, &[0]), "from");
    broker_refuses(&edited(&consume, 17, &[1]), "zero");
    broker_refuses(&edited(&consume, 18, &[0, 17]), "backoff");
    broker_refuses(&edited(&consume, 36, &(UNACKNOWLEDGED_MAX + 1).to_be_bytes()), "unacknowledged_max");
    broker_refuses(&edited(&consume, 42, b"$"), "stream");
    broker_refuses(&edited(&consume, 50, b"/"), "consumer");
    assert!(ClientFrame::decode(&edited(&consume, 36, &UNACKNOWLEDGED_MAX.to_be_bytes())).is_ok());

    let steps = ConsumerChoices { backoff_ms: vec![1; BACKOFF_STEPS_MAX + 1], ..ConsumerChoices::default() };
    assert_eq!(
        ConsumerSettings::new(steps),
        Err(SettingsError::BackoffSteps { found: BACKOFF_STEPS_MAX + 1 })
    );
    let found = some(UNACKNOWLEDGED_MAX + 1);
    let held = ConsumerChoices { unacknowledged_max: Some(found), ..ConsumerChoices::default() };
    assert_eq!(ConsumerSettings::new(held), Err(SettingsError::Unacknowledged { found }));
}

#[test]
fn what_a_consumer_does_not_choose_has_its_default() {
    let settings = ConsumerSettings::default();
    assert_eq!((settings.ack_wait_ms(), settings.max_deliver()), (30_000, Some(5)));
    assert_eq!((settings.unacknowledged_max(), settings.backoff_ms()), (1_000, &[][..]));
    let [chosen, unlimited, _] = &consumes()[..] else { panic!("three of them") };
    assert_eq!((chosen.settings.ack_wait_ms(), chosen.settings.max_deliver()), (1, Some(u32::MAX - 1)));
    assert_eq!(unlimited.settings.max_deliver(), None);
}

#[test]
fn what_is_settled_is_told_in_one_way() {
    let settle = settles()[1].encode();
    broker_refuses(&edited(&settle, 8, &[0, 0]), "items");
    broker_refuses(&edited(&settle, 8, &[0xff, 0xff]), "items");
    broker_refuses(&edited(&settle, 8, &(SETTLE_ITEMS_MAX as u16 + 1).to_be_bytes()), "items");
    broker_refuses(&edited(&settle, 18, &[0; 4]), "count");
    broker_refuses(&edited(&settle, 18, &[0xff; 4]), "offset");
    for verdict in [0, 1, 3] {
        broker_refuses(&edited(&settle, 22, &[verdict]), "verdict");
    }
    broker_refuses(&edited(&settle, 23, &[1]), "zero");
    broker_refuses(&flagged(&settle, 2), "flags");
    let none = [&settle[HEADER_LEN..HEADER_LEN + 8], &[0, 0]].concat();
    let header = FrameHeader { kind: FrameType::Settle, flags: 0, payload_len: none.len() };
    broker_refuses(&RawFrame { header, payload: none.into() }, "items");
}

#[test]
fn ready_is_of_a_stream_or_of_none() {
    let frames = broker_frames();
    let mut readies =
        frames.iter().filter(|(_, frame)| frame.kind() == FrameType::Ready).map(|(bytes, _)| bytes);
    let (live, of_stream) = (readies.next().unwrap(), readies.next().unwrap());
    client_refuses(&edited(live, 35, &[1]), "stream_id");
    client_refuses(&edited(live, 36, &[0; 8]), "stream_id");
    client_refuses(&edited(live, 44, &[0; 8]), "stream_id");
    client_refuses(&edited(of_stream, 20, &[0; 16]), "stream_id");
    client_refuses(&edited(of_stream, 36, &[0xff; 8]), "stream_id");
    client_refuses(&edited(of_stream, 44, &[0xff; 8]), "stream_id");
}

#[test]
fn ranges_are_in_order_and_within_a_batch() {
    let delivers = delivers();
    let some_of_it = delivers[3].encode();
    let ranges = 24 + 2 + "orders/eu".len() + 16 + 16;
    client_refuses(&edited(&some_of_it, ranges, &[0, 0]), "ranges");
    client_refuses(&edited(&some_of_it, ranges, &(RANGES_MAX as u16 + 1).to_be_bytes()), "ranges");
    client_refuses(&edited(&some_of_it, ranges + 6, &[0; 4]), "count");
    client_refuses(&edited(&some_of_it, ranges + 10, &[0; 4]), "deliveries");
    client_refuses(&edited(&some_of_it, ranges + 14, &1u32.to_be_bytes()), "ranges");
    client_refuses(&edited(&some_of_it, ranges + 30, &[0, 0, 0, 2]), "ranges");
    client_refuses(&edited(&some_of_it, ranges + 26, &[0xff; 8]), "ranges");
}

#[test]
fn flags_of_a_delivery_need_each_other() {
    let [live, _, stored, ..] = &delivers()[..] else { panic!("five of them") };
    client_refuses(&flagged(&live.encode(), 4), "flags");
    client_refuses(&flagged(&live.encode(), 8), "flags");
    client_refuses(&edited(&stored.encode(), 8, &[0; 8]), "offset");
}

#[test]
fn the_longest_frames_are_within_their_limits() {
    let longest = topic(&"t".repeat(TOPIC_BYTES_MAX));
    let named = Some(StreamTopic { topic: longest, stream: StreamId::ZERO });
    let batch = Bytes::from(vec![0; BATCH_BYTES_MAX]);
    let deliver = Deliver { topic: named, batch, ..delivers()[4].clone() };
    assert!(FrameHeader::decode(deliver.encode().first_chunk().unwrap(), usize::MAX).is_ok());
}

#[test]
fn skipped_offsets_are_some() {
    let skipped =
        Skipped { subscription: SubscriptionId(4), why: SkippedWhy::Trimmed, from: 5, to: 6 }.encode();
    client_refuses(&edited(&skipped, 16, &5u64.to_be_bytes()), "to");
    client_refuses(&edited(&skipped, 16, &[0; 8]), "to");
    client_refuses(&edited(&skipped, 7, &[0]), "why");
    client_refuses(&edited(&skipped, 7, &[4]), "why");
}

#[test]
fn proofs_and_notes_are_bounded() {
    let [empty, _] = checkpoints();
    let empty = empty.encode();
    client_refuses(&edited(&empty, 12, &[0, 65]), "prefix");
    client_refuses(&edited(&empty, 14, &[0, 65]), "consistency");
    client_refuses(&edited(&empty, 16, &[0, 65]), "inclusion");
    client_refuses(&edited(&empty, 18, &[0x10, 1]), "note");
}

#[test]
fn reports_have_the_values_that_they_may() {
    let request = RequestId(7);
    let streams =
        |streams| AdminResult { request, outcome: Outcome::Streams { streams, more: More::No } }.encode();
    let one = streams(vec![stream_info()]);
    client_refuses(&edited(&one, 8, &[2]), "more");
    client_refuses(&edited(&one, 9, &[1]), "zero");
    let durability = 12 + 8 + 16 + 2 + 10 + 12;
    client_refuses(&edited(&one, 36, &[0, 65]), "topics");
    client_refuses(&edited(&one, durability, &[0]), "durability");
    client_refuses(&edited(&one, durability + 1, &[4]), "state");
    client_refuses(&edited(&one, durability + 2, &[1]), "zero");
}

#[test]
fn half_of_a_consumers_name_is_none() {
    let after = Operation::Consumers { stream: None, after: Some(consumer()) };
    let bytes = AdminRequest { request: RequestId(7), operation: after }.encode();
    let (start, name_len) = (8 + 2, "orders".len());
    let halves = [
        [&bytes[HEADER_LEN..HEADER_LEN + start], &[0, 0], &bytes[HEADER_LEN + start + 2 + name_len..]]
            .concat(),
        [&bytes[HEADER_LEN..HEADER_LEN + start + 2 + name_len], &[0, 0]].concat(),
    ];
    for half in halves {
        let header = FrameHeader { kind: FrameType::Admin, flags: 0, payload_len: half.len() };
        broker_refuses(&RawFrame { header, payload: half.into() }, "after");
    }
}

#[test]
fn a_list_is_cut_where_a_frame_ends_and_says_so() {
    let long = filter(&"t".repeat(TOPIC_BYTES_MAX));
    let longest = StreamInfo { topics: vec![long; STREAM_FILTERS_MAX], ..stream_info() };
    let outcome = Outcome::streams(vec![longest; 3]);
    assert!(matches!(&outcome, Outcome::Streams { streams, more: More::Yes } if streams.len() == 1));
    let result = AdminResult { request: RequestId(7), outcome };
    let decoded = BrokerFrame::decode(&raw(&result.encode()));
    assert_eq!(decoded, Ok(BrokerFrame::AdminResult(result)));

    let outcome = Outcome::consumers(vec![consumer_info(); 10]);
    assert!(matches!(outcome, Outcome::Consumers { consumers, more: More::No } if consumers.len() == 10));
    let outcome = Outcome::consumers(std::iter::repeat_n(consumer_info(), 10_000));
    assert!(matches!(&outcome, Outcome::Consumers { consumers, more: More::Yes } if consumers.len() > 1_000));
    AdminResult { request: RequestId(7), outcome }.encode();
}
