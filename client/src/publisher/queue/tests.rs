//! The queue's rules, one by one, and series beside single messages.

use proptest::prelude::*;

use super::*;

const LIMITS: QueueLimits =
    QueueLimits { batch_bytes_max: 1_000, pending_bytes_max: 2_000, publish_timeout_ms: 10_000 };

fn queue() -> Queue<u32> {
    Queue::new(LIMITS)
}

fn push_at<'q>(
    queue: &'q mut Queue<u32>,
    at_ms: u64,
    payload: &[u8],
) -> Result<Pushed<'q, u32>, EnqueueError> {
    let message = NewMessage { published_ms: at_ms, key: &[], headers: Headers::NONE, payload };
    queue.push(message, || Tick(at_ms), || u32::try_from(at_ms).unwrap())
}

fn taken(queue: &mut Queue<u32>, take: Take) -> Option<u32> {
    match queue.take(take) {
        Taken::Batch(collected) => Some(collected.batch.count()),
        Taken::Growing | Taken::Nothing => None,
    }
}

#[test]
fn an_idle_line_takes_the_first_message_at_once() {
    let mut queue = queue();
    assert_eq!(push_at(&mut queue, 0, b"one").unwrap().notice, Notice::Due);
    assert_eq!(taken(&mut queue, Take::Any), Some(1));
    assert!(matches!(queue.take(Take::Any), Taken::Nothing));
    assert_eq!(push_at(&mut queue, 0, b"two").unwrap().notice, Notice::Due);
}

#[test]
fn a_busy_line_takes_only_what_is_full() {
    let mut queue = queue();
    for _ in 0..3 {
        push_at(&mut queue, 0, &[0; 200]).unwrap();
    }
    assert!(matches!(queue.take(Take::Full), Taken::Growing));
    let fourth = push_at(&mut queue, 0, &[0; 200]).unwrap();
    assert_eq!(
        (fourth.notice, fourth.index),
        (Notice::Due, 0),
        "a batch became full, so the line must be told"
    );
    assert_eq!(taken(&mut queue, Take::Full), Some(3));
    assert_eq!(taken(&mut queue, Take::Full), None);
    assert_eq!(taken(&mut queue, Take::Any), Some(1));
}

#[test]
fn notice_is_given_once_for_many_messages() {
    let mut queue = queue();
    let notices: Vec<_> = (0..5).map(|_| push_at(&mut queue, 0, b"x").unwrap().notice).collect();
    assert_eq!(notices, [Notice::Due, Notice::None, Notice::None, Notice::None, Notice::None]);
}

#[test]
fn pending_bytes_are_bounded_until_the_answer() {
    let mut queue = queue();
    push_at(&mut queue, 0, &[0; 988]).unwrap();
    push_at(&mut queue, 0, &[0; 988]).unwrap();
    assert!(matches!(push_at(&mut queue, 0, b"more"), Err(EnqueueError::Full { pending_bytes_max: 2_000 })));
    let Taken::Batch(first) = queue.take(Take::Full) else { panic!("a full batch waits") };
    assert!(push_at(&mut queue, 0, b"more").is_err(), "sent is not answered");
    queue.settle(first.cargo.number, 1_000, None);
    push_at(&mut queue, 0, b"more").unwrap();
}

#[test]
fn a_message_above_all_limits_fits_an_empty_queue() {
    let mut queue = queue();
    push_at(&mut queue, 0, &[0; 5_000]).unwrap();
    assert_eq!(taken(&mut queue, Take::Full), Some(1));
}

#[test]
fn an_old_batch_takes_no_more_messages() {
    let mut queue = queue();
    let first = *push_at(&mut queue, 0, b"x").unwrap().ticket;
    assert_eq!(*push_at(&mut queue, 1_000, b"x").unwrap().ticket, first);
    assert_ne!(*push_at(&mut queue, 1_001, b"x").unwrap().ticket, first);
}

#[test]
fn what_cannot_be_sent_leaves_no_trace() {
    let mut queue = queue();
    let oversized = vec![0; sealbus_protocol::limits::PAYLOAD_BYTES_MAX + 1];
    assert!(matches!(push_at(&mut queue, 0, &oversized), Err(EnqueueError::Message(_))));
    assert!(queue.is_settled() && !queue.has_batches());
    push_at(&mut queue, 0, b"x").unwrap();
    assert!(push_at(&mut queue, 0, &oversized).is_err());
    assert_eq!(taken(&mut queue, Take::Any), Some(1));
}

#[test]
fn a_flush_waits_for_what_came_before_it_and_for_nothing_else() {
    let mut queue = queue();
    push_at(&mut queue, 0, &[0; 988]).unwrap();
    let mark = queue.flush_mark();
    push_at(&mut queue, 0, b"later").unwrap();
    assert!(!queue.is_flushed(mark));
    queue.settle(BatchNumber(0), 1_000, Some(&PublishError::Lost));
    assert!(queue.is_flushed(mark));
    assert_eq!(queue.take_failure(), Some(PublishError::Lost));
    assert_eq!(queue.take_failure(), None);
}

#[test]
fn deadlines_expire_in_order() {
    let mut queue = queue();
    push_at(&mut queue, 0, b"x").unwrap();
    push_at(&mut queue, 5_000, b"x").unwrap();
    assert_eq!(queue.deadline(), Some(Tick(10_000)));
    assert_eq!(queue.take_expired_at(Some(Tick(9_999))).len(), 0);
    assert_eq!(queue.take_expired_at(Some(Tick(10_000))).len(), 1);
    assert_eq!(queue.deadline(), Some(Tick(15_000)));
    assert_eq!(queue.take_expired_at(None).len(), 1);
}

#[test]
fn notice_is_given_again_once_nothing_waits_however_it_went() {
    let mut queue = queue();
    push_at(&mut queue, 0, b"x").unwrap();
    queue.rest();
    assert_eq!(push_at(&mut queue, 0, b"x").unwrap().notice, Notice::None, "something waits");
    assert_eq!(queue.take_expired_at(Some(Tick(10_000))).len(), 1);
    assert_eq!(push_at(&mut queue, 0, b"x").unwrap().notice, Notice::Due);
    assert_eq!(taken(&mut queue, Take::Any), Some(1));
    queue.rest();
    assert_eq!(push_at(&mut queue, 0, b"x").unwrap().notice, Notice::Due, "taken, and not asked for more");
}

#[test]
fn a_closed_queue_says_why() {
    let mut queue = queue();
    queue.close(&CloseReason::ByBroker);
    queue.close(&CloseReason::ByCaller);
    assert_eq!(push_at(&mut queue, 0, b"x").unwrap_err(), EnqueueError::Closed(CloseReason::ByBroker));
}

/// The line must hear at once of a batch that is full to the byte, also when a series has filled it.
#[test]
fn a_series_that_fills_a_batch_to_the_byte_gives_notice() {
    let mut queue = queue();
    let payload = [0; 148];
    let message = NewMessage { published_ms: 0, key: &[], headers: Headers::NONE, payload: &payload };
    let series = |queue: &mut Queue<u32>, messages: &[NewMessage<'_>]| {
        queue.push_all(messages, || Tick(0), || 0, |_, _, _| {}).notice
    };
    assert_eq!(series(&mut queue, &[message]), Notice::Due);
    assert_eq!(series(&mut queue, &[message]), Notice::None);
    assert_eq!(series(&mut queue, &[message, message]), Notice::Due);
    assert_eq!(taken(&mut queue, Take::Full), Some(4));
}

/// What a queue has become, in words that two of them can be compared by.
fn shape(queue: &mut Queue<u32>) -> (usize, Vec<(u32, usize, u32)>) {
    let pending = queue.pending_bytes;
    let mut batches = Vec::new();
    while let Taken::Batch(collected) = queue.take(Take::Any) {
        batches.push((collected.batch.count(), collected.batch.bytes_len(), collected.cargo.ticket));
    }
    (pending, batches)
}

proptest! {
    /// A series is nothing but its messages one after the other: the same batches, tickets, places, notices and the
    /// same refusal at the same message.
    #[test]
    fn a_series_is_its_messages_one_by_one(
        series in prop::collection::vec(
            (0_u64..3_000, prop::collection::vec(prop_oneof![Just(5_usize), 0..400_usize], 1..20)),
            1..8,
        ),
        key_len in prop_oneof![Just(0_usize), Just(3), Just(sealbus_protocol::limits::KEY_BYTES_MAX + 1)],
        settled in any::<bool>(),
    ) {
        let (mut together, mut single) = (queue(), queue());
        let (key, bytes) = (vec![7; key_len], vec![1; 400]);
        for (number, (published_ms, lens)) in series.iter().enumerate() {
            let ticket = || u32::try_from(number).unwrap();
            let now = || Tick(*published_ms);
            // One in three has a key, so that one that cannot be sent is met in the middle as well.
            let messages: Vec<NewMessage<'_>> = lens
                .iter()
                .map(|len| NewMessage {
                    published_ms: *published_ms,
                    key: if len % 3 == 0 { &key } else { &[] },
                    headers: Headers::NONE,
                    payload: &bytes[..*len],
                })
                .collect();
            let mut places = Vec::new();
            let note = |ticket: &u32, first: u32, count: u32| {
                places.extend((first..first + count).map(|index| (*ticket, index)));
            };
            let series = together.push_all(&messages, now, ticket, note);
            let (mut expected, mut notice, mut error) = (Vec::new(), Notice::None, None);
            for message in &messages {
                match single.push(*message, now, ticket) {
                    Ok(pushed) => {
                        expected.push((*pushed.ticket, pushed.index));
                        notice = notice.or(pushed.notice);
                    }
                    Err(refused) => {
                        error = Some(refused);
                        break;
                    }
                }
            }
            prop_assert_eq!(&places, &expected);
            prop_assert_eq!(series.count, expected.len());
            prop_assert_eq!(series.notice, notice);
            prop_assert_eq!(series.error, error);
            if settled {
                prop_assert_eq!(shape(&mut together), shape(&mut single));
                (together, single) = (queue(), queue());
            }
        }
        prop_assert_eq!(shape(&mut together), shape(&mut single));
    }
}
