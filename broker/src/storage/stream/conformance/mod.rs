//! What every [`StreamStore`] must do, as a suite that is run on whatever claims to be one.
//!
//! The broker knows streams by the trait alone, so that another engine may stand behind it one day. An engine is
//! brought as an [`Engine`]: something that opens a store, closes it so that it can be opened again with what it kept,
//! and whose disk can be filled, emptied and broken. [`run`] gives it every check, each on an engine of its own.

use std::collections::HashMap;
use std::sync::Arc;

use sealbus_protocol::batch::Batch;
use sealbus_protocol::batch::accept::Verdict;
use sealbus_protocol::ids::StreamId;
use sealbus_protocol::tlog::{
    Checkpoint, CompactRange, Hash, VerifierKey, stream_origin, verify_consistency, verify_inclusion,
};

mod bench;

pub use bench::{Author, BUS, Bell, NOW_MS, POLICY_VERSION};

use super::record::leaf_of;
use super::store::{
    AppendError, Bounds, DeadRange, Fate, NewDeadLetter, SkipReason, SkippedOffsets, StoreError, Stored,
    StreamState, StreamStore, Tail,
};
use crate::locks::lock;

/// Something that has one stream, and a disk that can be tampered with. Segments are small: a hundred batches of the
/// suite fill several.
pub trait Engine {
    /// The stream.
    fn stream_id(&self) -> StreamId;
    /// The key that signs its checkpoints.
    fn verifier(&self) -> VerifierKey;
    /// Opens the store, with everything that it kept when it was closed. It is closed when this is called.
    fn open(&mut self) -> Arc<dyn StreamStore>;
    /// Closes the store.
    fn close(&mut self);
    /// From now on nothing can be written.
    fn fill_disk(&mut self);
    /// There is room again.
    fn empty_disk(&mut self);
    /// The next attempt to make something durable fails.
    fn break_disk(&mut self);
}

/// Runs every check on a fresh engine.
///
/// # Panics
/// When the engine does not do what a store must do.
pub fn run<E: Engine>(mut make: impl FnMut() -> E) {
    let checks: [fn(&mut E); 12] = [
        what_is_kept_is_read_as_it_came,
        pages_end_where_the_next_begins,
        signs_of_life_come_once_and_with_what_follows,
        watchers_are_told_until_they_leave,
        trimmed_offsets_are_named,
        the_past_is_proven,
        a_full_disk_gives_batches_back_and_goes_on,
        a_broken_disk_stops_the_stream,
        what_was_kept_is_there_after_a_restart,
        a_retry_has_the_fate_of_the_first,
        many_publish_at_once,
        dead_letters_keep_where_they_come_from,
    ];
    for check in checks {
        let mut engine = make();
        check(&mut engine);
        engine.close();
    }
}

fn publish_kept(author: &mut Author, store: &dyn StreamStore, messages: u32) -> u64 {
    let (ticket, fate) = author.publish(store, messages).expect("an open stream takes a batch");
    assert_eq!(fate, Fate::Kept);
    assert!(store.bounds().end >= ticket.offset() + u64::from(messages), "what is kept is visible");
    ticket.offset()
}

/// Everything from an offset on, by the disk.
fn read_all(store: &dyn StreamStore, from: u64, bytes_max: usize) -> (Vec<Arc<Stored>>, Vec<SkippedOffsets>) {
    let (mut batches, mut skipped, mut next) = (Vec::new(), Vec::new(), from);
    let end = store.bounds().end;
    while next < end {
        let page = store.read(next, bytes_max).expect("the disk can be read");
        assert!(page.next > next, "a page that is not at the end goes on");
        next = page.next;
        batches.extend(page.batches);
        skipped.extend(page.skipped);
    }
    (batches, skipped)
}

fn what_is_kept_is_read_as_it_came(engine: &mut impl Engine) {
    let store = engine.open();
    assert_eq!((store.bounds(), store.state()), (Bounds { first: 0, end: 0 }, StreamState::Open));
    assert!(matches!(store.tail(0, 1_000), Tail::AtEnd));
    let mut author = Author::new(1, "orders/eu", engine.stream_id());
    let mut sent = Vec::new();
    let mut offset = 0;
    for messages in [1, 3, 2, 500] {
        let batch = author.sign(messages, 20);
        let (ticket, fate) =
            author.publish_bytes(&*store, batch.clone()).expect("an open stream takes a batch");
        assert_eq!((ticket.offset(), fate), (offset, Fate::Kept));
        sent.push((offset, messages, batch));
        offset += u64::from(messages);
    }
    assert_eq!(store.bounds(), Bounds { first: 0, end: offset });
    let (from_disk, skipped) = read_all(&*store, 0, 1 << 20);
    assert!(skipped.is_empty());
    let from_memory = match store.tail(0, 1 << 20) {
        Tail::Here(batches) => batches,
        other => unreachable!("so little is in memory: {other:?}"),
    };
    for batches in [&from_disk, &from_memory] {
        let found: Vec<_> =
            batches.iter().map(|stored| (stored.offset, stored.messages, stored.batch.clone())).collect();
        assert_eq!(found, sent);
        for (index, stored) in batches.iter().enumerate() {
            assert_eq!(stored.leaf_index, index as u64);
            assert_eq!((stored.append_ms, stored.policy_version), (NOW_MS, POLICY_VERSION));
            assert_eq!((&stored.topic, stored.key_record), (author.topic(), 3));
            assert_eq!(stored.origin, None);
        }
    }
    assert_eq!(store.offset_at(0).expect("the disk can be read"), 0);
    assert_eq!(store.offset_at(NOW_MS + 1).expect("the disk can be read"), offset);
}

fn pages_end_where_the_next_begins(engine: &mut impl Engine) {
    let store = engine.open();
    let mut author = Author::new(1, "orders/eu", engine.stream_id());
    for _ in 0..100 {
        publish_kept(&mut author, &*store, 3);
    }
    for bytes_max in [1, 2_000, 100_000] {
        let (batches, _) = read_all(&*store, 0, bytes_max);
        let offsets: Vec<_> = batches.iter().map(|stored| stored.offset).collect();
        assert_eq!(
            offsets,
            (0..100).map(|batch| batch * 3).collect::<Vec<u64>>(),
            "{bytes_max} bytes a page"
        );
        let mut next = 297;
        while let Tail::Here(batches) = store.tail(next, bytes_max) {
            next = batches.last().expect("something is here").next_offset();
        }
        assert_eq!(next, 300);
    }
    let page = store.read(4, 1).expect("the disk can be read");
    assert_eq!(page.batches.first().map(|stored| stored.offset), Some(3), "the whole batch around an offset");
    let page = store.read(300, 1).expect("the disk can be read");
    assert_eq!((page.batches.len(), page.next), (0, 300));
    assert!(matches!(store.tail(300, 1), Tail::AtEnd));
    assert!(matches!(store.tail(u64::MAX, 1), Tail::AtEnd));
}

fn signs_of_life_come_once_and_with_what_follows(engine: &mut impl Engine) {
    let store = engine.open();
    let mut author = Author::new(1, "orders/eu", engine.stream_id());
    let mut expected = Vec::new();
    for _ in 0..10 {
        for _ in 0..3 {
            let heartbeat = author.sign_heartbeat();
            let (ticket, fate) = author.publish_bytes(&*store, heartbeat).expect("it is taken");
            assert_eq!(fate, Fate::Kept);
            expected.push((ticket.offset(), 0));
        }
        expected.push((publish_kept(&mut author, &*store, 2), 2));
    }
    let last = author.sign_heartbeat();
    author.publish_bytes(&*store, last).expect("it is taken");
    assert_eq!(store.bounds().end, 20);
    assert_eq!(store.stats().records, 41);
    let shape = |batches: &[Arc<Stored>]| -> Vec<(u64, u32)> {
        batches.iter().map(|stored| (stored.offset, stored.messages)).collect()
    };
    for bytes_max in [1, 1_500, 100_000] {
        assert_eq!(shape(&read_all(&*store, 0, bytes_max).0), expected, "{bytes_max} bytes a page");
        let (mut next, mut batches) = (0, Vec::new());
        while let Tail::Here(page) = store.tail(next, bytes_max) {
            next = page.last().expect("something is here").next_offset();
            batches.extend(page);
        }
        assert_eq!(shape(&batches), expected, "{bytes_max} bytes a page, from memory");
    }
}

fn watchers_are_told_until_they_leave(engine: &mut impl Engine) {
    let store = engine.open();
    let mut author = Author::new(1, "orders/eu", engine.stream_id());
    let bell = Bell::new();
    let guard = store.watch(Arc::clone(&bell) as _);
    publish_kept(&mut author, &*store, 1);
    bell.await_some(|| (store.bounds().end == 1 && bell.rung() > 0).then_some(()));
    drop(guard);
    let before = bell.rung();
    publish_kept(&mut author, &*store, 1);
    publish_kept(&mut author, &*store, 1);
    assert_eq!(bell.rung(), before);
}

fn trimmed_offsets_are_named(engine: &mut impl Engine) {
    let store = engine.open();
    let mut author = Author::new(1, "orders/eu", engine.stream_id());
    for _ in 0..100 {
        publish_kept(&mut author, &*store, 1);
    }
    let first = store.trim(60).expect("the disk obeys");
    assert!(first > 0 && first <= 60, "whole segments below 60 are gone, found {first}");
    assert_eq!(store.bounds(), Bounds { first, end: 100 });
    let (batches, skipped) = read_all(&*store, 0, 1_000);
    assert_eq!(skipped, [SkippedOffsets { from: 0, to: first, why: SkipReason::Trimmed }]);
    let offsets: Vec<_> = batches.iter().map(|stored| stored.offset).collect();
    assert_eq!(offsets, (first..100).collect::<Vec<u64>>());
    assert_eq!(store.trim(0).expect("the disk obeys"), first, "what is gone stays gone");
    assert_eq!(publish_kept(&mut author, &*store, 1), 100);
}

/// Waits for the checkpoint over everything.
fn checkpoint_over(store: &dyn StreamStore, size: u64, verifier: &VerifierKey) -> (u64, Hash) {
    let bell = Bell::new();
    let _guard = store.watch(Arc::clone(&bell) as _);
    let signed = bell.await_some(|| store.checkpoint().filter(|signed| signed.size >= size));
    let checkpoint = Checkpoint::open(signed.note.as_bytes(), verifier).expect("it is signed");
    assert_eq!((checkpoint.size(), *checkpoint.root()), (signed.size, signed.root));
    assert_eq!(signed.size, size, "it is over what is kept");
    (signed.size, signed.root)
}

fn the_past_is_proven(engine: &mut impl Engine) {
    let store = engine.open();
    let stream_id = engine.stream_id();
    let verifier = engine.verifier();
    assert_eq!(*verifier.name(), stream_origin(&BUS, &stream_id));
    let mut author = Author::new(1, "orders/eu", stream_id);
    let mut roots = Vec::new();
    for grow in [1, 2, 97] {
        for _ in 0..grow {
            publish_kept(&mut author, &*store, 2);
        }
        let size = store.stats().records;
        roots.push(checkpoint_over(&*store, size, &verifier));
    }
    let (size, root) = *roots.last().expect("there are three");
    let (batches, _) = read_all(&*store, 0, 1 << 20);
    store.trim(120).expect("the disk obeys");
    let leaves: Vec<Hash> = batches.iter().map(|stored| leaf_of(stored, BUS, stream_id)).collect();
    for (index, leaf) in (0..).zip(&leaves) {
        let proof = store.inclusion(index, size).expect("it can be proven, trimmed or not");
        verify_inclusion(index, size, leaf, &root, &proof).expect("the proof leads to the checkpoint");
    }
    for (old_size, old_root) in &roots {
        let answer = store.consistency(*old_size, size).expect("it can be proven");
        verify_consistency(*old_size, size, old_root, &root, &answer.proof).expect("one tree grew");
        let prefix = CompactRange::from_parts(*old_size, answer.prefix);
        assert_eq!(prefix.expect("it is a tree's").root(), *old_root);
    }
    assert!(matches!(store.inclusion(size, size), Err(StoreError::NoSuchTree { .. })));
    assert!(matches!(store.inclusion(0, size + 1), Err(StoreError::NoSuchTree { .. })));
    assert!(matches!(store.consistency(size + 1, size), Err(StoreError::NoSuchTree { .. })));
}

fn a_full_disk_gives_batches_back_and_goes_on(engine: &mut impl Engine) {
    let store = engine.open();
    let mut author = Author::new(1, "orders/eu", engine.stream_id());
    publish_kept(&mut author, &*store, 1);
    engine.fill_disk();
    let refused = author.sign(1, 1_000);
    match author.publish_bytes(&*store, refused.clone()) {
        Ok((_, fate)) => assert_eq!(fate, Fate::Withdrawn),
        Err(error) => assert_eq!(error, AppendError::Full),
    }
    let resume = lock(&author.sequence).resume_point();
    assert_eq!(resume.map(|resume| resume.next_seq), Some(1), "its number is free again");
    assert_eq!(store.bounds().end, 1);
    assert_eq!(store.state(), StreamState::Full);
    assert_eq!(read_all(&*store, 0, 1_000).0.len(), 1, "readers go on");
    let bell = Bell::new();
    let _guard = store.watch(Arc::clone(&bell) as _);
    engine.empty_disk();
    bell.await_some(|| (store.state() == StreamState::Open).then_some(()));
    let (ticket, fate) = author.publish_bytes(&*store, refused).expect("there is room");
    assert_eq!((ticket.offset(), fate), (1, Fate::Kept), "the offset was given to nobody");
    assert_eq!(publish_kept(&mut author, &*store, 1), 2);
}

fn a_broken_disk_stops_the_stream(engine: &mut impl Engine) {
    let store = engine.open();
    let mut author = Author::new(1, "orders/eu", engine.stream_id());
    publish_kept(&mut author, &*store, 1);
    engine.break_disk();
    let broken = author.sign(1, 100);
    match author.publish_bytes(&*store, broken.clone()) {
        Ok((_, fate)) => assert!(matches!(fate, Fate::Stopped(_)), "{fate:?}"),
        // The store may have tried to make something else durable first.
        Err(error) => assert!(matches!(error, AppendError::Stopped { .. }), "{error:?}"),
    }
    assert_eq!(store.bounds().end, 1, "what is not known to be kept is not shown");
    for _ in 0..3 {
        let refused = author.publish_bytes(&*store, broken.clone());
        assert!(matches!(refused, Err(AppendError::Stopped { .. })), "a failed sync is not retried");
    }
    assert!(matches!(store.state(), StreamState::Stopped(_)));
    assert_eq!(read_all(&*store, 0, 1_000).0.len(), 1, "readers go on");
    engine.close();
    let store = engine.open();
    assert_eq!(store.state(), StreamState::Open);
    assert!(store.bounds().end >= 1, "what was kept is there");
}

fn what_was_kept_is_there_after_a_restart(engine: &mut impl Engine) {
    let verifier = engine.verifier();
    let mut author = Author::new(1, "orders/eu", engine.stream_id());
    let mut before: Vec<Arc<Stored>> = Vec::new();
    for round in 0..4_u64 {
        let store = engine.open();
        assert_eq!(store.bounds(), Bounds { first: 0, end: round * 50 });
        let (found, skipped) = read_all(&*store, 0, 10_000);
        assert!(skipped.is_empty());
        let same = |one: &Stored, other: &Stored| {
            (one.offset, one.leaf_index, one.append_ms, &one.batch)
                == (other.offset, other.leaf_index, other.append_ms, &other.batch)
        };
        assert_eq!(found.len(), before.len());
        assert!(found.iter().zip(&before).all(|(one, other)| same(one, other)));
        if round > 0 {
            checkpoint_over(&*store, before.len() as u64, &verifier);
        }
        for _ in 0..25 {
            publish_kept(&mut author, &*store, 2);
        }
        before = read_all(&*store, 0, 10_000).0;
        drop(store);
        engine.close();
    }
}

fn a_retry_has_the_fate_of_the_first(engine: &mut impl Engine) {
    let store = engine.open();
    let mut author = Author::new(1, "orders/eu", engine.stream_id());
    let batch = author.sign(2, 10);
    let (first, _) = author.publish_bytes(&*store, batch.clone()).expect("it is taken");
    assert!(matches!(author.judge(&lock(&author.sequence), batch.clone()), Verdict::Duplicate(_)));
    let (again, fate) = author.publish_bytes(&*store, batch).expect("it is known");
    assert_eq!((again.offset(), fate), (first.offset(), Fate::Kept));
    let heartbeat = author.sign_heartbeat();
    author.publish_bytes(&*store, heartbeat.clone()).expect("it is taken");
    publish_kept(&mut author, &*store, 1);
    let (_, fate) = author.publish_bytes(&*store, heartbeat).expect("it is known");
    assert_eq!(fate, Fate::Kept);
    assert_eq!(store.bounds().end, 3, "nothing was stored twice");
}

fn many_publish_at_once(engine: &mut impl Engine) {
    let store = engine.open();
    let stream_id = engine.stream_id();
    std::thread::scope(|scope| {
        for number in 1..=4_u8 {
            let store = &store;
            scope.spawn(move || {
                let mut author = Author::new(number, &format!("orders/{number}"), stream_id);
                let bell = Bell::new();
                let batches: Vec<_> = (0..40).map(|_| author.sign(u32::from(number), 50)).collect();
                let offered = batches.into_iter().map(|batch| {
                    let waiter = Arc::clone(&bell) as _;
                    author.offer(&**store, batch, waiter, NOW_MS).expect("the queue has room")
                });
                let tickets: Vec<_> = offered.collect();
                for ticket in tickets {
                    let fate = bell.await_some(|| match store.fate(&ticket) {
                        Fate::Pending => None,
                        fate => Some(fate),
                    });
                    assert_eq!(fate, Fate::Kept);
                }
            });
        }
    });
    assert_eq!(store.bounds().end, 40 * (1 + 2 + 3 + 4));
    let (batches, _) = read_all(&*store, 0, 10_000);
    let mut next_offset = 0;
    let mut next_seq = HashMap::new();
    for stored in &batches {
        assert_eq!(stored.offset, next_offset, "offsets are dense");
        next_offset = stored.next_offset();
        let batch = Batch::decode(stored.batch.clone()).expect("it is a batch");
        let preamble = batch.preamble();
        let expected = next_seq.insert(preamble.incarnation_id, preamble.next_seq()).unwrap_or(0);
        assert_eq!(preamble.first_seq, expected, "each producer's order is kept");
    }
    assert_eq!(batches.len(), 160);
}

fn dead_letters_keep_where_they_come_from(engine: &mut impl Engine) {
    let store = engine.open();
    let mut author = Author::new(1, "orders/eu", engine.stream_id());
    publish_kept(&mut author, &*store, 5);
    let (batches, _) = read_all(&*store, 0, 10_000);
    let stored = Arc::clone(batches.first().expect("one was published"));
    let ranges = vec![
        DeadRange { first: 1, count: 1, deliveries: 5 },
        DeadRange { first: 3, count: 2, deliveries: 6 },
    ];
    let bell = Bell::new();
    let letter = NewDeadLetter {
        stored: Arc::clone(&stored),
        ranges: ranges.clone(),
        context: Arc::new(()),
        waiter: Arc::clone(&bell) as _,
    };
    let ticket = store.append_dead_letter(letter, NOW_MS + 9).expect("it is taken");
    assert_eq!(ticket.offset(), 5);
    bell.await_some(|| (store.fate(&ticket) == Fate::Kept).then_some(()));
    drop(store);
    engine.close();
    let store = engine.open();
    assert_eq!(store.bounds().end, 8, "it takes an offset for each record that it hands over");
    let (batches, _) = read_all(&*store, 5, 10_000);
    let letter = batches.first().expect("it is there");
    assert_eq!((letter.messages, letter.append_ms, &letter.batch), (3, NOW_MS + 9, &stored.batch));
    let origin = letter.origin.as_deref().expect("it says where it comes from");
    assert_eq!((origin.offset, origin.leaf_index, origin.append_ms), (0, 0, NOW_MS));
    assert_eq!((origin.policy_version, &origin.ranges), (POLICY_VERSION, &ranges));
}
