//! The rules of a group, one at a time, and the registry around it.

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};

use sealbus_protocol::ids::{BusId, StreamId};
use sealbus_protocol::policy::Name;
use sealbus_protocol::session::Tick;
use sealbus_protocol::topic::TopicFilter;

use super::delivery::{HandedOut, HandedRange};
use super::flusher::CursorFlusher;
use super::group::{BatchMeta, Group, Handled, Lease, Matches, MemberError, What};
use super::limits::{CONSUMERS_PER_STREAM_MAX, MEMBERS_PER_GROUP_MAX, RANGES_PER_DELIVERY_MAX};
use super::member::MemberId;
use super::registry::{Consumers, JoinError, Origin};
use crate::clock::{Clock, ManualClock};
use crate::locks::lock;
use crate::storage::stream::store::Waiter;
use crate::storage::system::{
    AskedSettings, ConsumerKey, ConsumerSettings, Cursor, CursorChange, DeliveryCount, MaxDeliver,
    SystemError, SystemLogs,
};
use crate::vfs::{Limits, Operation, SimVfs, Vfs};

const A: MemberId = MemberId { session: 1, lane: 1 };
const B: MemberId = MemberId { session: 2, lane: 1 };

const NOW: Tick = Tick(1_000);

fn asked() -> AskedSettings {
    AskedSettings { ack_wait_ms: Some(100), ..AskedSettings::default() }
}

fn group(asked: AskedSettings) -> Group {
    Group::restore(ConsumerSettings::new(asked).unwrap(), &Cursor::at(0), 0)
}

fn batch(offset: u64, records: u32) -> BatchMeta {
    BatchMeta { offset, records, bytes: 100, matches: Matches::Whole }
}

fn lease(group: &mut Group, end: u64) -> Lease {
    match group.poll_assignment(NOW, end).map(|assignment| assignment.what) {
        Some(What::NewFrom { lease, .. }) => lease,
        other => panic!("{other:?} is no lease"),
    }
}

/// Brings one batch, and says who got what.
fn bring(group: &mut Group, batch: &BatchMeta) -> (MemberId, HandedOut) {
    let lease = lease(group, u64::MAX);
    let handled = group.handle_batch(lease, batch, NOW);
    group.finish_read(lease);
    match handled {
        Handled::Assigned(member, handed_out) => (member, handed_out),
        other => panic!("{other:?}"),
    }
}

fn redelivered(group: &mut Group, now: Tick) -> Option<(MemberId, HandedOut)> {
    let assignment = group.poll_assignment(now, 0)?;
    match assignment.what {
        What::Redeliver(handed_out) => Some((assignment.member, handed_out)),
        What::NewFrom { .. } => None,
    }
}

fn range(first: u32, count: u32, deliveries: u32) -> HandedRange {
    HandedRange { first, count, deliveries }
}

#[test]
fn a_batch_goes_whole_to_one_member_and_the_next_to_the_next() {
    let mut group = group(asked());
    group.join(A, 1_000).unwrap();
    group.join(B, 1_000).unwrap();
    let mut turns = Vec::new();
    for index in 0..4 {
        let (member, handed_out) = bring(&mut group, &batch(index * 10, 10));
        assert_eq!(handed_out, HandedOut { batch: index * 10, ranges: vec![range(0, 10, 1)] });
        turns.push(member);
    }
    assert_eq!(turns, [A, B, A, B]);
}

#[test]
fn whoever_has_no_credit_gets_nothing_until_it_has() {
    let mut group = group(asked());
    group.join(A, 150).unwrap();
    bring(&mut group, &batch(0, 1));
    bring(&mut group, &batch(1, 1));
    assert_eq!(group.poll_assignment(NOW, 10), None, "overdrawn by one batch");
    group.credit(A, 51);
    assert!(group.poll_assignment(NOW, 10).is_some());
}

#[test]
fn what_a_member_leaves_behind_goes_to_another_at_once_and_counts() {
    let mut group = group(asked());
    group.join(A, 1_000).unwrap();
    bring(&mut group, &batch(0, 4));
    assert_eq!(group.ack(A, 1, 1), 1);
    group.join(B, 1_000).unwrap();
    group.leave(A);
    let (member, handed_out) = redelivered(&mut group, NOW).unwrap();
    assert_eq!((member, handed_out.ranges), (B, vec![range(0, 1, 2), range(2, 2, 2)]));
    assert_eq!(group.ack(A, 0, 1), 1, "it was A's before, and is not settled");
    assert_eq!(group.ack(A, 1, 1), 0, "settled");
    assert_eq!(group.ack(B, 0, 4), 2);
    assert_eq!((group.position(), group.unacknowledged()), (4, 0));
}

#[test]
fn a_delivery_that_takes_too_long_is_made_again_after_the_backoff() {
    let mut group = group(AskedSettings { backoff_ms: Some(vec![50, 500]), ..asked() });
    group.join(A, 1_000).unwrap();
    bring(&mut group, &batch(0, 1));
    assert_eq!(group.poll_timeout(), Some(NOW.after_ms(100)));
    assert_eq!(redelivered(&mut group, NOW.after_ms(99)), None);
    assert_eq!(redelivered(&mut group, NOW.after_ms(100)), None);
    assert_eq!(group.poll_timeout(), Some(NOW.after_ms(150)));
    let (_, second) = redelivered(&mut group, NOW.after_ms(150)).unwrap();
    assert_eq!(second.ranges, [range(0, 1, 2)]);
    group.handle_timeout_at(NOW.after_ms(250));
    assert_eq!(group.poll_timeout(), Some(NOW.after_ms(750)), "the second step");
}

#[test]
fn a_nack_names_its_delay_within_a_day() {
    let mut group = group(asked());
    group.join(A, 1_000).unwrap();
    bring(&mut group, &batch(0, 3));
    assert_eq!(group.nack(A, 0, 1, 70, NOW), 1);
    assert_eq!(group.nack(A, 1, 1, u32::MAX, NOW), 1);
    assert_eq!(group.nack(A, 2, 1, 0, NOW), 1);
    assert_eq!(group.nack(A, 0, 3, 0, NOW), 0, "A has none of them any more");
    assert_eq!(redelivered(&mut group, NOW).unwrap().1.ranges, [range(2, 1, 2)]);
    assert_eq!(redelivered(&mut group, NOW.after_ms(70)).unwrap().1.ranges, [range(0, 1, 2)]);
    group.ack(A, 0, 3);
    assert_eq!(group.poll_timeout(), None, "late, and it counts");
    assert_eq!(group.position(), 3);
}

#[test]
fn after_max_deliver_a_record_is_settled_only_by_its_dead_letter() {
    let one = Some(MaxDeliver::Times(std::num::NonZeroU32::MIN));
    let mut group = group(AskedSettings { max_deliver: one, ..asked() });
    group.join(A, 1_000).unwrap();
    bring(&mut group, &batch(0, 3));
    group.ack(A, 1, 1);
    group.handle_timeout_at(NOW.after_ms(100));
    assert_eq!(redelivered(&mut group, NOW.after_ms(100)), None);
    let letter = group.poll_dead().unwrap();
    assert_eq!(letter.batch, 0);
    let ranges: Vec<_> =
        letter.ranges.iter().map(|range| (range.first, range.count, range.deliveries)).collect();
    assert_eq!(ranges, [(0, 1, 1), (2, 1, 1)]);
    assert_eq!(group.poll_dead(), None);
    assert_eq!(group.ack(A, 0, 3), 0, "it is being decided");
    assert_eq!(group.position(), 0);

    group.not_buried(&letter, NOW.after_ms(300));
    assert!(!group.has_dead());
    assert_eq!(group.poll_timeout(), Some(NOW.after_ms(300)));
    group.handle_timeout_at(NOW.after_ms(300));
    assert_eq!(group.poll_dead(), Some(letter.clone()));
    assert_eq!(group.buried(&letter), 2);
    assert_eq!((group.position(), group.totals().dead), (3, 2));
}

/// FAILURES T49 and T62.
#[test]
fn acknowledgements_of_anything_else_change_nothing() {
    let mut group = group(asked());
    group.join(A, 1_000).unwrap();
    group.join(B, 1_000).unwrap();
    bring(&mut group, &batch(0, 10));
    let before = group.snapshot();
    for (member, offset, records) in [
        (B, 0, 10),
        (A, 10, u32::MAX),
        (A, u64::MAX, u32::MAX),
        (A, u64::MAX, 0),
        (A, u64::MAX - 1, 1),
        (A, 3, 0),
        (MemberId { session: u64::MAX, lane: u64::MAX }, 0, 10),
    ] {
        assert_eq!(group.ack(member, offset, records), 0);
        assert_eq!(group.nack(member, offset, records, 1, NOW), 0);
    }
    assert_eq!((group.snapshot(), group.unacknowledged()), (before, 10));
    assert_eq!(group.ack(A, 8, u32::MAX), 2, "what is beyond is not there");
    assert_eq!(group.ack(A, 8, u32::MAX), 0);
}

#[test]
fn the_last_offsets_are_not_overrun() {
    let settings = ConsumerSettings::new(asked()).unwrap();
    let start = u64::MAX - 10;
    let mut group = Group::restore(settings, &Cursor::at(start), u64::MAX);
    group.join(A, 1_000).unwrap();
    let lease = lease(&mut group, u64::MAX);
    let beyond = group.handle_batch(lease, &batch(start, 11), NOW);
    assert!(matches!(beyond, Handled::Gap { .. }), "{beyond:?}");
    assert!(matches!(group.handle_batch(lease, &batch(start, 10), NOW), Handled::Assigned(..)));
    assert_eq!(group.ack(A, start, u32::MAX), 0, "beyond the last offset there is nothing");
    assert_eq!(group.ack(A, start, 10), 10);
    assert_eq!((group.position(), group.lag(u64::MAX)), (u64::MAX, 0));
    group.skip(u64::MAX - 1..u64::MAX);
    group.assert_whole();
}

#[test]
fn unacknowledged_work_is_bounded_to_the_record() {
    let mut group = group(AskedSettings { unacknowledged_max: Some(10), ..asked() });
    group.join(A, 1_000).unwrap();
    bring(&mut group, &batch(0, 6));
    let first = lease(&mut group, 100);
    assert_eq!(group.handle_batch(first, &batch(6, 5), NOW), Handled::Blocked);
    assert_eq!(group.poll_assignment(NOW, 100), None, "there is no room for that batch");
    group.ack(A, 0, 1);
    let (_, second) = bring(&mut group, &batch(6, 5));
    assert_eq!((second.batch, group.unacknowledged()), (6, 10));
    group.ack(A, 1, 10);
    let (_, large) = bring(&mut group, &batch(11, 50));
    assert_eq!(large.ranges, [range(0, 50, 1)], "a batch larger than the bound goes alone");
    assert_eq!(group.poll_assignment(NOW, 100), None);
}

#[test]
fn a_batch_that_does_not_match_is_settled_unseen() {
    let mut group = group(asked());
    group.join(A, 1_000).unwrap();
    let lease = lease(&mut group, 100);
    let other = BatchMeta { matches: Matches::None, ..batch(0, 5) };
    assert_eq!(group.handle_batch(lease, &other, NOW), Handled::Nothing);
    assert_eq!(group.handle_batch(lease, &batch(5, 0), NOW), Handled::Nothing, "a heartbeat");
    assert_eq!((group.position(), group.unacknowledged()), (5, 0));
}

#[test]
fn nothing_is_taken_out_of_order_or_under_a_lease_that_is_over() {
    let mut group = group(asked());
    group.join(A, 1_000).unwrap();
    group.join(B, 1_000).unwrap();
    let of_a = lease(&mut group, 100);
    assert_eq!(group.poll_assignment(NOW, 100), None, "one reads at a time");
    assert_eq!(group.handle_batch(of_a, &batch(3, 2), NOW), Handled::Gap { expected: 0 });
    group.leave(A);
    assert_eq!(group.handle_batch(of_a, &batch(0, 3), NOW), Handled::Stale);
    let of_b = lease(&mut group, 100);
    group.finish_read(of_a);
    assert!(matches!(group.handle_batch(of_b, &batch(0, 3), NOW), Handled::Assigned(B, _)));
    group.reset(50);
    assert_eq!(group.handle_batch(of_b, &batch(3, 3), NOW), Handled::Stale);
}

#[test]
fn skipped_records_are_settled_whoever_has_them() {
    let mut group = group(asked());
    group.join(A, 1_000).unwrap();
    bring(&mut group, &batch(0, 4));
    group.skip(2..9);
    assert_eq!((group.position(), group.unacknowledged()), (0, 2));
    group.ack(A, 0, 4);
    assert_eq!(group.position(), 9);
    assert!(matches!(group.poll_assignment(NOW, 100).unwrap().what, What::NewFrom { from: 9, .. }));
    group.skip(0..5);
    group.skip(20..30);
    group.skip(9..20);
    assert_eq!((group.position(), group.lag(40)), (30, 10));
    group.assert_whole();
}

#[test]
fn a_delivery_that_never_arrived_does_not_count() {
    let mut group = group(asked());
    group.join(A, 100).unwrap();
    let (_, handed_out) = bring(&mut group, &batch(0, 2));
    assert_eq!(group.next_member(), None, "its credit is spent");
    group.withdraw(A, &handed_out, NOW.after_ms(5));
    assert_eq!(redelivered(&mut group, NOW), None);
    let (_, again) = redelivered(&mut group, NOW.after_ms(5)).unwrap();
    assert_eq!((again, group.totals().delivered), (handed_out, 2));
}

#[test]
fn redeliveries_and_new_batches_take_turns() {
    let mut group = group(asked());
    group.join(A, 10_000).unwrap();
    bring(&mut group, &batch(0, 1));
    let mut turns = Vec::new();
    for index in 1..4 {
        group.nack(A, 0, 1, 0, NOW);
        for _ in 0..2 {
            match group.poll_assignment(NOW, 100).unwrap().what {
                What::NewFrom { lease, .. } => {
                    group.handle_batch(lease, &batch(index, 1), NOW);
                    group.finish_read(lease);
                    turns.push("new");
                }
                What::Redeliver(_) => turns.push("again"),
            }
        }
    }
    assert_eq!(turns, ["again", "new", "again", "new", "again", "new"]);
}

#[test]
fn a_batch_in_many_pieces_goes_out_in_several_deliveries() {
    let mut group = group(asked());
    group.join(A, 1_000_000).unwrap();
    bring(&mut group, &batch(0, 1_000));
    (0..500).for_each(|index| assert_eq!(group.ack(A, 2 * index, 1), 1));
    group.handle_timeout_at(NOW.after_ms(100));
    let mut pieces = 0;
    while let Some((_, handed_out)) = redelivered(&mut group, NOW.after_ms(100)) {
        assert!(handed_out.ranges.len() <= RANGES_PER_DELIVERY_MAX);
        pieces += handed_out.ranges.len();
    }
    assert_eq!(pieces, 500);
}

#[test]
fn restored_counts_go_on_and_a_stream_that_became_shorter_hides_nothing() {
    let settings = ConsumerSettings::new(asked()).unwrap();
    let counts = vec![
        DeliveryCount { offset: 10, records: 1, deliveries: 3 },
        DeliveryCount { offset: 11, records: 1, deliveries: 5 },
    ];
    let cursor = Cursor::new(10, vec![12..14, 20..30], counts).unwrap();
    let mut group = Group::restore(settings.clone(), &cursor, 40);
    assert_eq!(group.snapshot(), cursor);
    assert!(!group.take_changed());
    group.join(A, 1_000).unwrap();
    let (_, handed_out) = bring(&mut group, &batch(8, 10));
    assert_eq!(handed_out.ranges, [range(2, 1, 4), range(6, 4, 1)], "11 was handed out five times");
    assert_eq!(group.poll_dead().map(|letter| letter.ranges.len()), Some(1));
    group.assert_whole();

    let shorter = Group::restore(settings.clone(), &cursor, 25);
    assert_eq!(shorter.snapshot().settled(), [12..14, 20..25]);
    let mut shortest = Group::restore(settings, &cursor, 5);
    assert_eq!(shortest.snapshot(), Cursor::at(5), "what comes at 5 to 10 is new");
    assert!(shortest.take_changed());
}

#[test]
fn a_cursor_with_many_holes_is_read_on_from_all_the_same() {
    let settings =
        ConsumerSettings::new(AskedSettings { unacknowledged_max: Some(65_536), ..asked() }).unwrap();
    let settled: Vec<_> = (0..10_000).map(|index| 2 * index + 1..2 * index + 2).collect();
    let mut group = Group::restore(settings, &Cursor::new(0, settled, Vec::new()).unwrap(), 20_000);
    group.join(A, u64::MAX).unwrap();
    let mut offset = 0;
    while group.position() < 20_000 {
        let (_, handed_out) = match group.poll_assignment(NOW, 20_000).unwrap().what {
            What::NewFrom { lease, .. } => {
                let handled = group.handle_batch(lease, &batch(offset, 100), NOW);
                group.finish_read(lease);
                offset += 100;
                let Handled::Assigned(to, handed_out) = handled else { panic!("{handled:?}") };
                (to, handed_out)
            }
            What::Redeliver(handed_out) => (A, handed_out),
        };
        for range in handed_out.ranges {
            group.ack(A, handed_out.batch + u64::from(range.first), range.count);
        }
    }
}

#[test]
fn a_group_has_so_many_members_and_each_once() {
    let mut group = group(asked());
    for session in 0..MEMBERS_PER_GROUP_MAX as u64 {
        group.join(MemberId { session, lane: 0 }, 0).unwrap();
    }
    assert_eq!(group.join(MemberId { session: 5, lane: 0 }, 0), Err(MemberError::Already));
    assert_eq!(group.join(MemberId { session: 5, lane: 1 }, 0), Err(MemberError::Full));
}

#[derive(Default)]
struct Bell(AtomicU32);

impl Waiter for Bell {
    fn committed(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

fn rung(bell: &Bell) -> u32 {
    bell.0.swap(0, Ordering::SeqCst)
}

fn key(name: &str) -> ConsumerKey {
    ConsumerKey { stream: StreamId::new([3; 16]), name: Name::parse(name).unwrap() }
}

#[test]
fn a_consumer_is_created_once_and_then_found_with_the_same_settings() {
    let consumers = Consumers::default();
    let (_, origin) = consumers.find_or_create(&key("a"), asked(), 7).unwrap();
    assert_eq!(origin, Origin::Created);
    let (found, origin) = consumers.find_or_create(&key("a"), AskedSettings::default(), 99).unwrap();
    assert_eq!((origin, found.info(10).position, found.info(10).lag), (Origin::Found, 7, 3));
    let filter = TopicFilter::parse("a.*").unwrap();
    let other = AskedSettings { filter: Some(filter), ..asked() };
    assert!(matches!(consumers.find_or_create(&key("a"), other, 0), Err(JoinError::Conflict(_))));
    let bad = AskedSettings { unacknowledged_max: Some(0), ..asked() };
    assert!(matches!(consumers.find_or_create(&key("b"), bad, 0), Err(JoinError::Settings(_))));
    assert!(consumers.find(&key("b")).is_none());
}

#[test]
fn a_stream_has_so_many_consumers() {
    let consumers = Consumers::default();
    for index in 0..CONSUMERS_PER_STREAM_MAX {
        consumers.find_or_create(&key(&format!("c{index}")), asked(), 0).unwrap();
    }
    let other = ConsumerKey { stream: StreamId::new([4; 16]), ..key("c") };
    consumers.find_or_create(&other, asked(), 0).unwrap();
    let refused = consumers.find_or_create(&key("one-more"), asked(), 0).map(|_| ());
    assert_eq!(refused, Err(JoinError::TooManyConsumers));
    assert_eq!(consumers.list(Some(other.stream)).len(), 1);
    assert_eq!(consumers.list(None).len(), CONSUMERS_PER_STREAM_MAX + 1);
}

/// Hands its first batch of ten to A.
fn consumer_with_work(consumers: &Consumers, bell: &Arc<Bell>) -> Arc<super::registry::Consumer> {
    let (consumer, _) = consumers.find_or_create(&key("a"), asked(), 0).unwrap();
    consumer.join(A, 1_000, Arc::clone(bell) as Arc<dyn Waiter>).unwrap();
    consumer.act(|group| bring(group, &batch(0, 10)));
    consumer
}

fn durable(consumers: &Consumers) -> Arc<Mutex<Option<Result<(), SystemError>>>> {
    let told = Arc::new(Mutex::new(None));
    let teller = Arc::clone(&told);
    consumers.when_durable(Box::new(move |outcome| *lock(&teller) = Some(outcome)));
    told
}

#[test]
fn whoever_waits_is_told_when_what_was_settled_before_is_written() {
    let consumers = Consumers::default();
    let consumer = consumer_with_work(&consumers, &Arc::default());
    consumer.act(|group| group.ack(A, 0, 2));
    let first = durable(&consumers);
    let (batch, changes) = consumers.take_changes();
    let [CursorChange::Stands(kept)] = &changes[..] else { panic!("{changes:?}") };
    assert_eq!(kept.cursor, Cursor::at(2));

    consumer.act(|group| group.ack(A, 2, 2));
    let second = durable(&consumers);
    consumers.flushed(batch, &Ok(()));
    assert_eq!((lock(&first).clone(), lock(&second).clone()), (Some(Ok(())), None), "came after the take");

    let (batch, _) = consumers.take_changes();
    consumers.flushed(batch, &Err(SystemError::Busy));
    assert_eq!(lock(&second).clone(), Some(Err(SystemError::Busy)));
    let (batch, changes) = consumers.take_changes();
    assert_eq!(changes.len(), 1, "it is to be written still");
    consumers.flushed(batch, &Ok(()));
    assert!(consumers.take_changes().1.is_empty());
    consumers.close();
    assert_eq!(lock(&durable(&consumers)).clone(), Some(Err(SystemError::Closed)));
}

#[test]
fn what_is_due_is_done_and_the_member_whose_turn_it_is_woken() {
    let (consumers, bell) = (Consumers::default(), Arc::new(Bell::default()));
    let consumer = consumer_with_work(&consumers, &bell);
    assert_eq!(consumers.handle_timeouts_at(NOW), Some(NOW.after_ms(100)));
    assert_eq!(rung(&bell), 0);
    assert_eq!(consumers.handle_timeouts_at(NOW.after_ms(100)), None);
    assert_eq!((rung(&bell), consumer.info(10).redelivering), (1, 10));

    let other = Arc::new(Bell::default());
    consumer.join(B, 1_000, Arc::clone(&other) as Arc<dyn Waiter>).unwrap();
    assert_eq!(consumer.join(B, 1, Arc::default() as Arc<Bell>), Err(JoinError::AlreadyMember));
    consumer.leave(A);
    assert_eq!((rung(&bell), rung(&other)), (0, 1));
}

#[test]
fn the_undertaker_is_told_of_the_dead_and_finds_them() {
    let (consumers, undertaker) = (Consumers::default(), Arc::new(Bell::default()));
    consumers.set_undertaker(Arc::clone(&undertaker) as Arc<dyn Waiter>);
    let one = Some(MaxDeliver::Times(std::num::NonZeroU32::MIN));
    let (consumer, _) =
        consumers.find_or_create(&key("a"), AskedSettings { max_deliver: one, ..asked() }, 0).unwrap();
    consumer.join(A, 1_000, Arc::default() as Arc<Bell>).unwrap();
    consumer.act(|group| bring(group, &batch(0, 10)));
    assert!(consumers.poll_dead().is_none());
    consumer.leave(A);
    assert_eq!(rung(&undertaker), 1);
    let found = consumers.poll_dead().unwrap();
    let letter = found.act(Group::poll_dead).unwrap();
    assert!(consumers.poll_dead().is_none());
    found.act(|group| group.buried(&letter));
    assert_eq!(found.info(10).position, 10);
}

/// Whoever may consume can have records given up without end. It must not be at the cost of another's.
#[test]
fn the_undertaker_takes_the_dead_of_all_consumers_in_turn() {
    let consumers = Consumers::default();
    for name in ["a", "b", "c"] {
        let one = Some(MaxDeliver::Times(std::num::NonZeroU32::MIN));
        let asked = AskedSettings { max_deliver: one, ..asked() };
        let (consumer, _) = consumers.find_or_create(&key(name), asked, 0).unwrap();
        consumer.join(A, 1_000, Arc::default() as Arc<Bell>).unwrap();
        for offset in [0, 10] {
            consumer.act(|group| bring(group, &batch(offset, 10)));
        }
        consumer.leave(A);
    }
    let mut turns = Vec::new();
    while let Some(consumer) = consumers.poll_dead() {
        let letter = consumer.act(Group::poll_dead).unwrap();
        consumer.act(|group| group.buried(&letter));
        turns.push(consumer.key().name.to_string());
    }
    assert_eq!(turns, ["a", "b", "c", "a", "b", "c"]);
}

#[test]
fn a_removed_consumer_is_gone_with_its_members() {
    let (consumers, bell) = (Consumers::default(), Arc::new(Bell::default()));
    let consumer = consumer_with_work(&consumers, &bell);
    assert!(consumers.remove(&key("a")).is_some());
    assert_eq!((rung(&bell), consumer.is_removed()), (1, true));
    assert_eq!(consumer.join(B, 1, Arc::default() as Arc<Bell>), Err(JoinError::Removed));
    consumer.act(|group| group.ack(A, 0, 10));
    assert_eq!(consumers.handle_timeouts_at(Tick(u64::MAX)), None);
    assert_eq!(consumers.take_changes().1, [CursorChange::Removed(key("a"))]);
    assert!(consumers.remove(&key("a")).is_none());
}

/// The whole way: acknowledged, durable, and found after a start.
#[test]
fn what_is_acknowledged_durably_is_found_again() {
    let vfs = SimVfs::new();
    let open = |vfs: &SimVfs| {
        let shared: Arc<dyn Vfs> = Arc::new(vfs.clone());
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::new(1));
        let (logs, recovered) =
            SystemLogs::open(&shared, Path::new("/system"), BusId::new([1; 16]), Arc::clone(&clock)).unwrap();
        let consumers = Arc::new(Consumers::restore(recovered.cursors.consumers, |_| Some(10)));
        let flusher = CursorFlusher::start(Arc::clone(&consumers), Arc::new(logs), clock).unwrap();
        (consumers, flusher)
    };
    let wait = |consumers: &Consumers| {
        let (sender, receiver) = channel();
        consumers.when_durable(Box::new(move |outcome| sender.send(outcome).unwrap()));
        receiver.recv().unwrap()
    };
    let (consumers, flusher) = open(&vfs);
    let consumer = consumer_with_work(&consumers, &Arc::default());
    assert_eq!(wait(&consumers), Ok(()), "created");
    consumer.act(|group| group.ack(A, 0, 4));
    consumer.act(|group| group.ack(A, 6, 1));
    assert_eq!(wait(&consumers), Ok(()));
    let durable = vfs.operations();
    vfs.fail_from(Operation::Write, 1, 28);
    consumer.act(|group| group.ack(A, 4, 1));
    assert!(matches!(wait(&consumers), Err(SystemError::NotNow(_))), "the disk is full");
    vfs.heal();
    assert_eq!(wait(&consumers), Ok(()), "it is written by itself when there is room");

    for (_, crashed) in vfs.crash_states(durable, Limits::sampled(10, 3)) {
        let (consumers, _flusher) = open(&crashed);
        let info = consumers.find(&key("a")).unwrap().info(10);
        assert_eq!((info.position, info.lag), (4, 5));
    }
    consumer.act(|group| group.ack(A, 5, 1));
    flusher.stop();
    let (consumers, _flusher) = open(&vfs);
    assert_eq!(consumers.find(&key("a")).unwrap().info(10).position, 7, "a shutdown writes what has changed");
}
