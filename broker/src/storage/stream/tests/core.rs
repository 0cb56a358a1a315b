//! The core by itself: what survives, what is refused, what is never removed.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use sealbus_protocol::batch::Batch;
use sealbus_protocol::batch::accept::{Receipt, SequenceState, Verdict};
use sealbus_protocol::frame::InstanceKind;
use sealbus_protocol::ids::StreamId;
use sealbus_protocol::session::Tick;
use sealbus_protocol::tlog::{Checkpoint, root_of};

use super::engines::{STREAM, options, signer};
use crate::storage::log::OwnedFrame;
use crate::storage::stream::conformance::{Author, BUS, NOW_MS, POLICY_VERSION};
use crate::storage::stream::record::leaf_of;
use crate::storage::stream::store::{StreamDamage, StreamEvent, TrimReason};
use crate::storage::stream::{
    CHECKPOINT_FILE, Level, Moment, NewRecord, Opened, ProducerSnapshot, Retention, StreamCore,
    StreamOptions, decode,
};
use crate::vfs::{Limits, Operation, SimVfs, Vfs};

const DIR: &str = "/stream";

fn open(vfs: &SimVfs) -> (StreamCore, Opened) {
    open_with(vfs, options())
}

fn open_with(vfs: &SimVfs, options: StreamOptions) -> (StreamCore, Opened) {
    StreamCore::open(Arc::new(vfs.clone()), Path::new(DIR), options, None).unwrap()
}

fn record(author: &mut Author, messages: u32, now_ms: u64) -> NewRecord {
    let batch = Batch::decode(author.sign(messages, 100)).unwrap();
    NewRecord::of_batch(&batch, author.topic().clone(), 3, InstanceKind::Random, POLICY_VERSION, now_ms)
}

/// Appends and commits batches of one message.
fn grow(core: &mut StreamCore, author: &mut Author, batches: u32, now_ms: u64) {
    for _ in 0..batches {
        core.append_group(&[record(author, 1, now_ms)]).unwrap();
        core.commit().unwrap();
    }
}

fn frames(core: &StreamCore) -> Vec<OwnedFrame> {
    let (mut frames, mut next) = (Vec::new(), 0);
    loop {
        let page = core.reader().read_records(next, 1 << 20).unwrap();
        if page.frames.is_empty() && page.next_record <= next {
            return frames;
        }
        next = page.next_record;
        frames.extend(page.frames);
    }
}

fn maintain(core: &mut StreamCore, now_ms: u64) -> Vec<StreamEvent> {
    let mut events = Vec::new();
    core.maintain(Moment::simulated(now_ms), None, &mut events).unwrap();
    events
}

fn has_damage(opened: &Opened) -> bool {
    opened.events.iter().any(|event| matches!(event, StreamEvent::Damaged(_)))
}

#[test]
fn the_tree_and_the_policy_are_found_again() {
    let vfs = SimVfs::new();
    let mut author = Author::new(1, "a", STREAM);
    let (mut core, _) = open(&vfs);
    for round in 0..5 {
        grow(&mut core, &mut author, 7, NOW_MS + round);
        maintain(&mut core, NOW_MS + 10_000 * round);
        grow(&mut core, &mut author, 3, NOW_MS + round);
        let root = core.tree().root();
        drop(core);
        let opened;
        (core, opened) = open(&vfs);
        assert!(!has_damage(&opened) && opened.stopped.is_none(), "{opened:?}");
        assert_eq!((core.tree().root(), core.tree().size()), (root, (round + 1) * 10));
        let leaves = frames(&core)
            .iter()
            .map(|frame| leaf_of(&decode(frame).unwrap(), BUS, STREAM))
            .collect::<Vec<_>>();
        assert_eq!(root_of(leaves), root);
    }
    let older = NewRecord { policy_version: 1, now_ms: 5, ..record(&mut author, 1, NOW_MS) };
    let stored = core.append_group(&[older]).unwrap();
    assert_eq!(
        (stored[0].policy_version, stored[0].append_ms),
        (POLICY_VERSION, NOW_MS + 4),
        "neither goes back"
    );
}

#[test]
fn a_checkpoint_is_signed_over_what_is_durable_and_a_second_apart() {
    let vfs = SimVfs::new();
    let mut author = Author::new(1, "a", STREAM);
    let (mut core, _) = open(&vfs);
    grow(&mut core, &mut author, 2, NOW_MS);
    assert!(maintain(&mut core, NOW_MS).contains(&StreamEvent::CheckpointSigned { size: 2 }));
    core.append_group(&[record(&mut author, 1, NOW_MS)]).unwrap();
    assert_eq!(maintain(&mut core, NOW_MS + 5_000), [], "the third is not durable");
    core.commit().unwrap();
    assert_eq!(core.maintain_due_in_ms(Tick(NOW_MS + 400)), Some(600));
    assert_eq!(maintain(&mut core, NOW_MS + 999), []);
    assert_eq!(maintain(&mut core, NOW_MS + 1_000), [StreamEvent::CheckpointSigned { size: 3 }]);
    assert_eq!(core.maintain_due_in_ms(Tick(NOW_MS + 2_000)), None);
    let note = vfs.read(&Path::new(DIR).join(CHECKPOINT_FILE), 10_000).unwrap();
    let checkpoint = Checkpoint::open(&note, &signer().verifier()).unwrap();
    assert_eq!((checkpoint.size(), *checkpoint.root()), (3, core.tree().root()));
}

/// FAILURES T61.
#[test]
fn a_batch_sent_again_after_a_restart_is_the_first_one() {
    let vfs = SimVfs::new();
    let mut author = Author::new(1, "a", STREAM);
    let (mut core, _) = open(&vfs);
    grow(&mut core, &mut author, 3, NOW_MS);
    let batch = author.sign(2, 10);
    let new = NewRecord::of_batch(
        &Batch::decode(batch.clone()).unwrap(),
        author.topic().clone(),
        3,
        InstanceKind::Configured,
        POLICY_VERSION,
        NOW_MS,
    );
    let stored = core.append_group(&[new]).unwrap();
    assert_eq!(core.producers().unwrap().record, 4, "a snapshot makes durable what it knows");
    let receipt = Receipt { durability: Level::Fsync.durability(), offset: Some(stored[0].offset) };
    drop(core);

    let check = |snapshot: Option<ProducerSnapshot>| {
        let (mut core, _) =
            StreamCore::open(Arc::new(vfs.clone()), Path::new(DIR), options(), snapshot).unwrap();
        let found = core.producers().unwrap();
        let [producer] = found.producers.as_slice() else { panic!("one producer, found {found:?}") };
        assert_eq!(producer.claim.incarnation_id, author.incarnation_id());
        assert_eq!((producer.key_record, producer.last_ms), (3, NOW_MS));
        let [(topic, state)] = producer.topics.as_slice() else { panic!("one topic") };
        assert_eq!((topic, state.remembered().count()), (author.topic(), 4));
        match author.judge(state, batch.clone()) {
            Verdict::Duplicate(known) => assert_eq!(known, receipt),
            other => panic!("it is a duplicate, not {other:?}"),
        }
        found
    };
    let snapshot = check(None);
    check(Some(snapshot.clone()));
    check(Some(ProducerSnapshot { record: 99, ..snapshot }));
    assert!(matches!(author.judge(&SequenceState::from_start(), batch.clone()), Verdict::Refuse(_)));
}

#[test]
fn a_snapshot_and_the_records_after_it_are_the_whole() {
    let vfs = SimVfs::new();
    let (mut one, mut two) = (Author::new(1, "a", STREAM), Author::new(2, "b", STREAM));
    let (mut core, _) = open(&vfs);
    grow(&mut core, &mut one, 5, NOW_MS);
    let snapshot = core.producers().unwrap();
    grow(&mut core, &mut one, 5, NOW_MS);
    grow(&mut core, &mut two, 5, NOW_MS);
    drop(core);
    let opened = StreamCore::open(Arc::new(vfs), Path::new(DIR), options(), Some(snapshot));
    let found = opened.unwrap().0.producers().unwrap();
    let mut seen: Vec<_> = found
        .producers
        .iter()
        .map(|producer| (producer.claim.incarnation_id, producer.topics[0].1.remembered().count()))
        .collect();
    seen.sort();
    assert_eq!(seen, [(one.incarnation_id(), 10), (two.incarnation_id(), 5)]);
}

#[test]
fn without_room_nothing_has_happened() {
    let vfs = SimVfs::new();
    let mut author = Author::new(1, "a", STREAM);
    let (mut core, _) = open(&vfs);
    grow(&mut core, &mut author, 3, NOW_MS);
    let (tree, bounds) = (core.tree().clone(), core.bounds());
    let new = record(&mut author, 2, NOW_MS);
    vfs.fail_nth(Operation::TornWrite, 1, 28);
    let error = core.append_group(std::slice::from_ref(&new)).unwrap_err();
    assert!(error.is_full() && error.is_usable(), "{error}");
    assert_eq!((core.tree(), core.bounds()), (&tree, bounds));
    core.append_group(&[new]).unwrap();
    core.commit().unwrap();
    let root = core.tree().root();
    drop(core);
    assert_eq!(open(&vfs).0.tree().root(), root);
}

#[test]
fn after_a_failed_sync_nothing_is_promised_any_more() {
    for nth in 1..4 {
        let vfs = SimVfs::new();
        let mut author = Author::new(1, "a", STREAM);
        let (mut core, _) = open(&vfs);
        vfs.fail_nth(Operation::Sync, nth, 5);
        let mut committed = 0;
        for _ in 0..6 {
            let appended = core.append_group(&[record(&mut author, 1, NOW_MS)]);
            if appended.and_then(|_| core.commit()).is_err() {
                break;
            }
            committed += 1;
        }
        assert_eq!(committed, nth - 1);
        assert!(core.append_group(&[record(&mut author, 1, NOW_MS)]).is_err());
        assert!(core.commit().is_err());
        assert!(core.producers().is_err());
        assert!(core.reader().end_offset() <= committed, "what is not durable is not shown");
        drop(core);
        let (core, opened) = open(&vfs);
        assert!(opened.stopped.is_none());
        assert!(core.bounds().end >= committed);
    }
}

#[test]
fn retention_removes_whole_segments_and_a_jump_of_the_clock_none() {
    let keep = Retention { age_ms: Some(7 * 24 * 3_600_000), ..Retention::default() };
    let vfs = SimVfs::new();
    let mut author = Author::new(1, "a", STREAM);
    let (mut core, _) = open_with(&vfs, StreamOptions { retention: keep, ..options() });
    grow(&mut core, &mut author, 200, NOW_MS);
    assert!(core.segments().len() > 3);
    let pass = |core: &mut StreamCore, now_ms: u64, tick_ms: u64| {
        let mut events = Vec::new();
        core.maintain(Moment { now_ms, tick: Tick(tick_ms) }, None, &mut events).unwrap();
        events
    };
    pass(&mut core, NOW_MS, 0);
    let ten_years_ms = 10 * 365 * 24 * 3_600_000;
    let events = pass(&mut core, NOW_MS + ten_years_ms, 10_000);
    assert!(events.iter().any(|event| matches!(event, StreamEvent::ClockJumped { .. })), "{events:?}");
    for later in 2..20 {
        pass(&mut core, NOW_MS + ten_years_ms + later * 10_000, later * 10_000);
    }
    assert_eq!(core.bounds().first, 0, "ten years by a wrong clock are no age");

    let bytes = Retention { bytes: Some(40_000), ..Retention::default() };
    core.configure(bytes, Level::Fsync);
    let before = core.tree().root();
    let now_ms = NOW_MS + ten_years_ms + 200_000;
    let events = pass(&mut core, now_ms, 200_000);
    let trimmed = events
        .iter()
        .any(|event| matches!(event, StreamEvent::Trimmed { from: 0, why: TrimReason::Bytes, .. }));
    assert!(trimmed, "{events:?}");
    assert!(core.bytes() <= 40_000 + 2 * 16 * 1_024 && core.bounds().first > 0);
    drop(core);
    let (core, opened) = open(&vfs);
    assert!(!has_damage(&opened), "{opened:?}");
    assert_eq!((core.tree().root(), core.tree().size()), (before, 200), "leaves stay when bodies go");
}

#[test]
fn a_log_that_does_not_lead_to_its_checkpoint_is_read_and_not_written() {
    let vfs = SimVfs::new();
    let checkpoint = Path::new(DIR).join(CHECKPOINT_FILE);
    let mut author = Author::new(1, "a", STREAM);
    let (mut core, _) = open(&vfs);
    grow(&mut core, &mut author, 3, NOW_MS);
    maintain(&mut core, NOW_MS);
    let older = vfs.read(&checkpoint, 10_000).unwrap();
    grow(&mut core, &mut author, 3, NOW_MS);
    core.close(&mut Vec::new()).unwrap();
    drop(core);

    vfs.write_file(&checkpoint, &older).unwrap();
    let (_, opened) = open(&vfs);
    let lost = |opened: &Opened| {
        opened
            .events
            .iter()
            .any(|event| matches!(event, StreamEvent::Damaged(StreamDamage::CheckpointLost(_))))
    };
    assert!(
        lost(&opened) && opened.stopped.is_none(),
        "an older one says that something was put back: {opened:?}"
    );
    vfs.remove_file(&checkpoint).unwrap();
    let (_, opened) = open(&vfs);
    assert!(lost(&opened) && opened.stopped.is_none(), "{opened:?}");

    for (size, root) in [(6, *b"another root of thirty-two bytes"), (7, *b"a future that nobody has written")]
    {
        let origin = sealbus_protocol::tlog::stream_origin(&BUS, &STREAM);
        let root = sealbus_protocol::tlog::Hash::new(root);
        let signed = Checkpoint::new(origin, size, root).unwrap().sign(&signer()).unwrap().to_string();
        vfs.write_file(&checkpoint, signed.as_bytes()).unwrap();
        let (core, opened) = open(&vfs);
        assert!(opened.stopped.is_some(), "size {size}");
        assert_eq!(frames(&core).len(), 6);
    }
}

/// A script with rolls, checkpoints and trims; then every place where the power may go, with what a disk may make of
/// it. Gives how many states were looked at, and the first that breaks a promise.
fn lose_power(vfs: &SimVfs) -> (usize, Option<String>) {
    let mut author = Author::new(1, "a", STREAM);
    let retention = Retention { bytes: Some(20_000), ..Retention::default() };
    let settings = || StreamOptions { retention, segment_bytes: 4_096, ..options() };
    // What was promised after so many operations: how many records are durable, and how many are vouched for.
    let mut promises = vec![(vfs.operations(), 0, 0)];
    let mut sent = Vec::new();
    let (mut core, _) = open_with(vfs, settings());
    for round in 0..36_u64 {
        let group: Vec<_> = (0..round % 3 + 1).map(|_| record(&mut author, 2, NOW_MS + round)).collect();
        sent.extend(group.iter().map(|record| record.batch.clone()));
        core.append_group(&group).unwrap();
        core.commit().unwrap();
        let signed = |core: &StreamCore| core.checkpoint().map_or(0, |checkpoint| checkpoint.size);
        promises.push((vfs.operations(), core.end_record(), signed(&core)));
        maintain(&mut core, NOW_MS + round * 11_000);
        promises.push((vfs.operations(), core.end_record(), signed(&core)));
    }
    core.close(&mut Vec::new()).unwrap();
    assert!(core.bounds().first > 0, "the script trims");
    drop(core);

    let mut states = 0;
    for operations in 0..=vfs.operations() {
        let promised = promises.iter().rev().find(|(at, ..)| *at <= operations);
        let (_, promised, signed) = promised.copied().unwrap_or_default();
        for (description, disk) in vfs.crash_states(operations, Limits::sampled(16, operations as u64)) {
            states += 1;
            if let Some(broken) = broken_promise(&disk, settings(), promised, signed, &sent) {
                return (states, Some(format!("{broken}, after {description:?}")));
            }
        }
    }
    (states, None)
}

fn broken_promise(
    disk: &SimVfs,
    settings: StreamOptions,
    promised: u64,
    signed: u64,
    sent: &[Bytes],
) -> Option<String> {
    let (core, opened) = open_with(disk, settings);
    if opened.stopped.is_some() || has_damage(&opened) {
        return Some(format!("{opened:?}"));
    }
    if core.end_record() < promised {
        return Some(format!("{} of {promised} records are there", core.end_record()));
    }
    if core.checkpoint().map_or(0, |checkpoint| checkpoint.size) < signed {
        return Some(format!("the checkpoint over {signed} is gone"));
    }
    let is_sent = |frame: &OwnedFrame| {
        let place = usize::try_from(frame.record).unwrap();
        decode(frame).unwrap().batch == sent[place] && frame.offset == frame.record * 2
    };
    frames(&core)
        .iter()
        .find(|frame| !is_sent(frame))
        .map(|frame| format!("record {} is another", frame.record))
}

#[test]
fn whatever_is_committed_survives_any_loss_of_power() {
    let (states, broken) = lose_power(&SimVfs::new());
    assert_eq!(broken, None);
    assert!(states > 1_000, "{states} states");
}

/// The same on a disk that does nothing when it is told to sync: that must be seen, or the test above shows nothing.
#[test]
fn a_disk_that_lies_is_found_out() {
    let disk = SimVfs::new();
    disk.skip_syncs(true);
    assert!(lose_power(&disk).1.is_some());
}

#[test]
fn another_stream_does_not_open_the_files_of_this_one() {
    let vfs = SimVfs::new();
    let mut author = Author::new(1, "a", STREAM);
    let (mut core, _) = open(&vfs);
    grow(&mut core, &mut author, 1, NOW_MS);
    core.close(&mut Vec::new()).unwrap();
    drop(core);
    let other = StreamOptions { stream_id: StreamId::new([1; 16]), signer: None, ..options() };
    assert!(StreamCore::open(Arc::new(vfs), Path::new(DIR), other, None).is_err());
}

#[test]
fn a_segment_that_is_completed_over_unsynced_batches_keeps_a_state_that_fits() {
    let sim = SimVfs::new();
    let (mut core, _) = open_with(&sim, StreamOptions { level: Level::Interval, ..options() });
    let mut author = Author::new(1, "orders/eu", STREAM);
    // Nothing is committed but by what completes segments.
    while core.segments().len() < 3 {
        core.append_group(&[record(&mut author, 1, NOW_MS)]).unwrap();
    }
    let end = core.end_record();
    drop(core);
    let (core, opened) = open_with(&sim, StreamOptions { level: Level::Interval, ..options() });
    assert_eq!((opened.events, opened.stopped, core.end_record()), (Vec::new(), None, end));
    let leaves =
        frames(&core).iter().map(|frame| leaf_of(&decode(frame).unwrap(), BUS, STREAM)).collect::<Vec<_>>();
    assert_eq!(core.tree().root(), root_of(leaves));
}

#[test]
fn a_snapshot_of_producers_has_what_became_durable_without_a_commit() {
    let sim = SimVfs::new();
    let (mut core, _) = open(&sim);
    let mut author = Author::new(1, "orders/eu", STREAM);
    while core.bytes() + 2_000 < options().segment_bytes {
        core.append_group(&[record(&mut author, 1, NOW_MS)]).unwrap();
    }
    // The segment is completed and synced, and then there is no room for the batch.
    let large = Batch::decode(author.sign(2, 1_500)).unwrap();
    let topic = author.topic().clone();
    let large = NewRecord::of_batch(&large, topic, 3, InstanceKind::Random, POLICY_VERSION, NOW_MS);
    let seals = sim.done(Operation::Write);
    let mut other = Author::new(2, "orders/us", STREAM);
    for nth in 1.. {
        sim.fail_nth(Operation::Write, nth, 28);
        let refused = core.append_group(std::slice::from_ref(&large)).is_err();
        sim.heal();
        assert!(refused, "the write of the batch itself is refused at last");
        if core.is_synced() && core.segments().len() == 2 {
            break;
        }
        assert!(sim.done(Operation::Write) < seals + 100, "completing a segment takes some writes");
    }
    let records = core.end_record();
    let snapshot = core.producers().unwrap();
    assert_eq!(snapshot.record, records);
    let remembered: usize = snapshot
        .producers
        .iter()
        .flat_map(|producer| &producer.topics)
        .map(|(_, state)| state.remembered().len())
        .sum();
    assert_eq!(remembered as u64, records.min(64));
    core.append_group(&[record(&mut other, 1, NOW_MS)]).unwrap();
    core.commit().unwrap();
}
