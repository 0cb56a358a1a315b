use std::future::Future;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use serde_json::Value;

use super::queue::LAST_MAX;
use super::samples::{actor, admin_done, denied, topic};
use super::*;
use crate::clock::{Clock, ManualClock, SystemClock};
use crate::config::AuditConfig;
use crate::vfs::{Fault, FaultyVfs, Operation, OsVfs, Vfs};

const AT_MS: u64 = 1_767_225_600_000;
const ENOSPC: i32 = 28;
const EIO: i32 = 5;

fn start_at(vfs: &dyn Vfs, clock: Arc<dyn Clock>, dir: &Path) -> (Audit, AuditThread) {
    Audit::start(vfs, clock, &AuditConfig::default(), dir).unwrap()
}

fn start(vfs: &dyn Vfs, dir: &Path) -> (Audit, AuditThread) {
    start_at(vfs, Arc::new(ManualClock::new(AT_MS)), dir)
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

fn subscribed(seq: u64) -> Event {
    let filter = sealbus_protocol::topic::TopicFilter::parse(&format!("orders/{seq}")).unwrap();
    Event::Unsubscribed { actor: actor(), filter }
}

fn lines(page: &AuditPage) -> Vec<Value> {
    let text = std::str::from_utf8(&page.lines).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn all_lines(audit: &Audit) -> Vec<Value> {
    lines(&audit.read(0, u32::MAX, usize::MAX).unwrap())
}

fn file(dir: &Path) -> std::path::PathBuf {
    dir.join("audit.jsonl")
}

fn is_failed(result: &Result<(), AuditUnavailable>) -> bool {
    matches!(result, Err(AuditUnavailable::Failed { .. }))
}

// What fails.

/// FAILURES T60: for each place where the disk can refuse.
#[test]
fn after_a_failed_write_the_log_refuses_and_serves_nothing_of_it() {
    for (operation, nth, errno) in [
        (Operation::Append, 1, ENOSPC),
        (Operation::Append, 3, ENOSPC),
        (Operation::TornAppend, 1, EIO),
        (Operation::TornAppend, 3, ENOSPC),
        // The first sync is that of opening.
        (Operation::Sync, 2, EIO),
        (Operation::Sync, 4, EIO),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let vfs = FaultyVfs::new(OsVfs, [Fault { operation, nth, errno }]);
        let (audit, thread) = start(&vfs, dir.path());
        let written = if operation == Operation::Sync { nth - 2 } else { nth - 1 };
        for _ in 0..written {
            wait(audit.record_durable(admin_done())).unwrap();
        }
        assert!(audit.is_available());
        let refused = wait(audit.record_durable(admin_done()));
        assert!(is_failed(&refused), "{operation:?} {nth}: {refused:?}");
        assert!(!audit.is_available());
        let (appends, syncs) = (vfs.appends(), vfs.syncs());
        assert!(is_failed(&wait(audit.record_durable(admin_done()))));
        assert!(is_failed(&audit.record(subscribed(0))));
        assert!(is_failed(&audit.record(denied(actor(), topic()))));
        assert_eq!(all_lines(&audit).len() as u64, written);
        assert_eq!(audit.durable_lines(), written);
        assert!(is_failed(&thread.stop()));
        assert_eq!((vfs.appends(), vfs.syncs()), (appends, syncs), "nothing is tried again");

        // Start-up recovers: what was cut is said, and the log goes on where it can be trusted.
        let (audit, thread) = start(&OsVfs, dir.path());
        let torn = operation == Operation::TornAppend;
        match audit.previous_run() {
            PreviousRun::None => assert!(!torn && written == 0 && operation == Operation::Append),
            PreviousRun::Stopped => panic!("it did not stop of its own will"),
            PreviousRun::Unclean { cut_bytes, .. } => assert_eq!(cut_bytes > 0, torn),
        }
        wait(audit.record_durable(admin_done())).unwrap();
        thread.stop().unwrap();
        let seqs: Vec<u64> =
            all_lines(&audit).iter().map(|line| line["unmapped"]["seq"].as_u64().unwrap()).collect();
        assert_eq!(seqs, (0..seqs.len() as u64).collect::<Vec<_>>());
    }
}

#[test]
fn a_failed_sync_of_queued_events_is_found_out_without_anybody_waiting() {
    let dir = tempfile::tempdir().unwrap();
    let vfs = FaultyVfs::new(OsVfs, [Fault { operation: Operation::Sync, nth: 2, errno: EIO }]);
    let (audit, thread) = start(&vfs, dir.path());
    vfs.hold_syncs();
    audit.record(subscribed(0)).unwrap();
    vfs.await_held_sync();
    vfs.release_syncs();
    assert!(is_failed(&thread.stop()));
    assert!(!audit.is_available());
    assert_eq!(all_lines(&audit), Vec::<Value>::new());
}

/// A log with room for 64 events that hangs in the sync of its first line.
fn start_hung(vfs: &FaultyVfs, dir: &Path) -> (Audit, AuditThread) {
    let config = AuditConfig { queue_events_max: 64, ..AuditConfig::default() };
    let (audit, thread) = Audit::start(vfs, Arc::new(ManualClock::new(AT_MS)), &config, dir).unwrap();
    vfs.hold_syncs();
    {
        // The line stays when nobody waits for it any more.
        let first = pin!(audit.record_durable(admin_done()));
        assert!(first.poll(&mut Context::from_waker(Waker::noop())).is_pending());
    }
    vfs.await_held_sync();
    (audit, thread)
}

/// When a broker stops, all of its sessions end at once, with a line for each of their topics.
#[test]
fn last_lines_wait_behind_the_queue_and_are_all_written() {
    let dir = tempfile::tempdir().unwrap();
    let vfs = FaultyVfs::new(OsVfs, []);
    let (audit, thread) = start_hung(&vfs, dir.path());
    // Half of the queue, and the room behind it.
    let last = u64::try_from(32 + LAST_MAX).unwrap();
    for seq in 0..last {
        audit.record_last(subscribed(seq)).unwrap();
    }
    assert_eq!(audit.record_last(subscribed(last)), Err(AuditUnavailable::QueueFull));
    for seq in 0..32 {
        audit.record(subscribed(last + seq)).expect("the other half is free");
    }
    vfs.release_syncs();
    thread.stop().unwrap();
    let lines = all_lines(&audit);
    assert_eq!(lines.len(), 1 + 64 + LAST_MAX);
    let topic_of = |line: usize| lines[line]["resources"][0]["name"].as_str().unwrap();
    assert_eq!(topic_of(1), "orders/0", "in their order while there is room");
    assert_eq!(topic_of(33), format!("orders/{last}"), "what cannot wait does not wait behind them");
    assert_eq!(topic_of(64 + LAST_MAX), format!("orders/{}", last - 1));
}

#[test]
fn a_full_queue_refuses_but_keeps_room_for_changes() {
    let dir = tempfile::tempdir().unwrap();
    let vfs = FaultyVfs::new(OsVfs, []);
    let (audit, thread) = start_hung(&vfs, dir.path());
    for seq in 0..32 {
        audit.record_unless_busy(subscribed(seq)).unwrap();
    }
    assert_eq!(audit.record_unless_busy(subscribed(32)), Err(AuditUnavailable::QueueFull), "half is taken");
    for seq in 32..64 {
        audit.record(subscribed(seq)).unwrap();
    }
    assert_eq!(audit.record(subscribed(64)), Err(AuditUnavailable::QueueFull));
    assert_eq!(audit.record_unless_busy(subscribed(64)), Err(AuditUnavailable::QueueFull));
    assert!(audit.is_available(), "a full queue is no failure of the log");

    let mut context = Context::from_waker(Waker::noop());
    let mut changes: Vec<_> = (0..64).map(|_| Box::pin(audit.record_durable(admin_done()))).collect();
    for change in &mut changes {
        assert!(change.as_mut().poll(&mut context).is_pending());
    }
    let mut too_many = pin!(audit.record_durable(admin_done()));
    assert_eq!(too_many.as_mut().poll(&mut context), Poll::Ready(Err(AuditUnavailable::QueueFull)));

    vfs.release_syncs();
    for change in changes {
        wait(change).unwrap();
    }
    thread.stop().unwrap();
    assert_eq!(all_lines(&audit).len(), 1 + 64 + 64);
}

#[test]
fn a_log_that_cannot_be_opened_is_no_log() {
    for nth in [1, 2] {
        let dir = tempfile::tempdir().unwrap();
        let vfs = FaultyVfs::new(OsVfs, [Fault { operation: Operation::Open, nth, errno: EIO }]);
        let clock = Arc::new(ManualClock::new(AT_MS));
        let error = Audit::start(&vfs, clock, &AuditConfig::default(), dir.path()).unwrap_err();
        assert!(error.to_string().starts_with("audit log "), "{error}");
        assert!(error.to_string().contains("cannot be opened: "), "{error}");
    }
}

#[test]
fn a_damaged_line_before_whole_ones_is_not_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    let (audit, thread) = start(&OsVfs, dir.path());
    for seq in 0..5 {
        audit.record(subscribed(seq)).unwrap();
    }
    thread.stop().unwrap();
    let mut bytes = std::fs::read(file(dir.path())).unwrap();
    let second = bytes.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    bytes[second] = b'x';
    std::fs::write(file(dir.path()), &bytes).unwrap();
    let clock = Arc::new(ManualClock::new(AT_MS));
    let error = Audit::start(&OsVfs, clock, &AuditConfig::default(), dir.path()).unwrap_err();
    assert!(error.to_string().contains(&format!("line 1, at byte {second}, is damaged")), "{error}");
    assert_eq!(std::fs::read(file(dir.path())).unwrap(), bytes, "evidence is left alone");
}

#[test]
fn a_torn_end_is_cut_at_every_byte_and_nothing_else_is() {
    let dir = tempfile::tempdir().unwrap();
    let (audit, thread) = start(&OsVfs, dir.path());
    for seq in 0..3 {
        audit.record(subscribed(seq)).unwrap();
    }
    thread.stop().unwrap();
    drop(audit);
    let whole = std::fs::read(file(dir.path())).unwrap();
    let ends: Vec<usize> = (1..=whole.len()).filter(|end| whole[end - 1] == b'\n').collect();
    for len in ends[1]..whole.len() {
        std::fs::write(file(dir.path()), &whole[..len]).unwrap();
        let (audit, thread) = start(&OsVfs, dir.path());
        let cut_bytes = (len - ends[1]) as u64;
        assert_eq!(audit.previous_run(), PreviousRun::Unclean { last_seq: Some(1), cut_bytes });
        assert_eq!(all_lines(&audit).len(), 2);
        thread.stop().unwrap();
        assert_eq!(std::fs::read(file(dir.path())).unwrap(), &whole[..ends[1]]);
    }
    // A disk may also have kept the length and lost the content.
    for rest in [vec![0; 70_000], vec![b'\n'; 3], b"{}{\n\0\0".to_vec()] {
        std::fs::write(file(dir.path()), [&whole[..], &rest].concat()).unwrap();
        let (audit, thread) = start(&OsVfs, dir.path());
        let cut_bytes = rest.len() as u64;
        assert_eq!(audit.previous_run(), PreviousRun::Unclean { last_seq: Some(2), cut_bytes });
        thread.stop().unwrap();
        assert_eq!(std::fs::read(file(dir.path())).unwrap(), whole);
    }
}

#[test]
fn nothing_is_recorded_after_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let (audit, thread) = start(&OsVfs, dir.path());
    thread.stop().unwrap();
    assert_eq!(audit.record(subscribed(0)), Err(AuditUnavailable::Stopped));
    assert_eq!(wait(audit.record_durable(admin_done())), Err(AuditUnavailable::Stopped));
    assert!(!audit.is_available());
}

#[test]
fn reading_is_bounded_and_stays_within_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let (audit, thread) = start(&OsVfs, dir.path());
    for seq in 0..600 {
        audit.record(subscribed(seq)).unwrap();
    }
    thread.stop().unwrap();
    let whole = std::fs::read(file(dir.path())).unwrap();
    let first_len = whole.iter().position(|byte| *byte == b'\n').unwrap() + 1;

    assert!(matches!(audit.read(601, 1, usize::MAX), Err(ReadError::PastEnd { from: 601, lines: 600 })));
    assert!(matches!(audit.read(u64::MAX, 1, usize::MAX), Err(ReadError::PastEnd { .. })));
    assert!(matches!(audit.read(0, 1, first_len - 1), Err(ReadError::NoRoom { .. })));
    let empty = |next| AuditPage { next, lines: bytes::Bytes::new() };
    assert_eq!(audit.read(600, 10, usize::MAX).unwrap(), empty(600));
    assert_eq!(audit.read(3, 0, usize::MAX).unwrap(), empty(3));
    assert_eq!(audit.read(0, 10, first_len).unwrap().next, 1);
    assert_eq!(audit.read(0, u32::MAX, 2 * first_len - 1).unwrap().next, 1);
    assert_eq!(audit.read(0, u32::MAX, usize::MAX).unwrap().lines, whole);
    for from in [0, 1, 255, 256, 257, 511, 512, 599] {
        let page = audit.read(from, 7, usize::MAX).unwrap();
        let seqs: Vec<u64> =
            lines(&page).iter().map(|line| line["unmapped"]["seq"].as_u64().unwrap()).collect();
        assert_eq!(seqs, (from..(from + 7).min(600)).collect::<Vec<_>>());
        assert_eq!(page.next, (from + 7).min(600));
    }

    // The index that start-up makes is the one that writing made.
    let (reopened, thread) = start(&OsVfs, dir.path());
    assert_eq!(reopened.read(513, 20, usize::MAX).unwrap(), audit.read(513, 20, usize::MAX).unwrap());
    thread.stop().unwrap();

    std::fs::write(file(dir.path()), &whole[..whole.len() / 2]).unwrap();
    assert!(matches!(audit.read(599, 1, usize::MAX), Err(ReadError::Shortened)));
}

// What works.

#[test]
fn durable_means_synced_first() {
    let dir = tempfile::tempdir().unwrap();
    let vfs = FaultyVfs::new(OsVfs, []);
    let (audit, thread) = start(&vfs, dir.path());
    vfs.hold_syncs();
    let mut recorded = pin!(audit.record_durable(admin_done()));
    let mut context = Context::from_waker(Waker::noop());
    assert!(recorded.as_mut().poll(&mut context).is_pending());
    vfs.await_held_sync();
    assert!(recorded.as_mut().poll(&mut context).is_pending(), "appended is not durable");
    assert_eq!(audit.read(0, 1, usize::MAX).unwrap().next, 0, "and is not served");
    vfs.release_syncs();
    wait(recorded).unwrap();
    assert_eq!(audit.read(0, 1, usize::MAX).unwrap().next, 1);
    thread.stop().unwrap();
}

#[test]
fn what_waits_shares_one_append_and_one_sync() {
    let dir = tempfile::tempdir().unwrap();
    let vfs = FaultyVfs::new(OsVfs, []);
    let (audit, thread) = start(&vfs, dir.path());
    vfs.hold_syncs();
    let mut context = Context::from_waker(Waker::noop());
    let mut first = pin!(audit.record_durable(admin_done()));
    assert!(first.as_mut().poll(&mut context).is_pending());
    vfs.await_held_sync();
    let (appends, syncs) = (vfs.appends(), vfs.syncs());
    let mut others: Vec<_> = (0..50).map(|_| Box::pin(audit.record_durable(admin_done()))).collect();
    for other in &mut others {
        assert!(other.as_mut().poll(&mut context).is_pending());
    }
    vfs.release_syncs();
    wait(first).unwrap();
    for other in others {
        wait(other).unwrap();
    }
    assert_eq!((vfs.appends(), vfs.syncs()), (appends + 1, syncs + 1));
    thread.stop().unwrap();
}

/// With real time, since what is promised is time.
#[test]
fn queued_events_are_durable_soon_without_anybody_waiting() {
    let dir = tempfile::tempdir().unwrap();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let vfs = FaultyVfs::new(OsVfs, []);
    let (audit, thread) = start_at(&vfs, Arc::clone(&clock), dir.path());
    vfs.hold_syncs();
    let before = clock.tick();
    audit.record(subscribed(0)).unwrap();
    vfs.await_held_sync();
    assert!(clock.tick().since(before) < 1_000);
    vfs.release_syncs();
    thread.stop().unwrap();
    assert_eq!(all_lines(&audit).len(), 1);
}

#[test]
fn lines_keep_the_order_and_the_time_of_recording() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::new(AT_MS));
    let (audit, thread) = start_at(&OsVfs, Arc::clone(&clock) as Arc<dyn Clock>, dir.path());
    for seq in 0..2_000 {
        audit.record(subscribed(seq)).unwrap();
        clock.advance(1);
    }
    thread.stop().unwrap();
    for (seq, line) in (0_u64..).zip(all_lines(&audit)) {
        assert_eq!(line["resources"][0]["name"], format!("orders/{seq}"));
        assert_eq!((line["unmapped"]["seq"].as_u64(), line["time"].as_u64()), (Some(seq), Some(AT_MS + seq)));
    }
}

#[test]
fn a_flood_is_counted_to_the_last_and_written_every_ten_seconds_and_at_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::new(AT_MS));
    let (audit, thread) = start_at(&OsVfs, Arc::clone(&clock) as Arc<dyn Clock>, dir.path());
    for _ in 0..1_000 {
        audit.record(denied(actor(), topic())).unwrap();
    }
    clock.advance(9_999);
    wait(audit.record_durable(admin_done())).unwrap();
    assert_eq!(all_lines(&audit).len(), 10 + 1);
    clock.advance(1);
    wait(audit.record_durable(admin_done())).unwrap();
    let aggregated = &all_lines(&audit)[11..];
    let is_aggregated = |line: &&Value| line.get("count").is_some();
    let counts: Vec<_> = aggregated.iter().filter(is_aggregated).map(|line| line["count"].as_u64()).collect();
    assert_eq!(counts, [Some(990)]);

    for _ in 0..12 {
        audit.record(denied(actor(), topic())).unwrap();
    }
    thread.stop().unwrap();
    let lines = all_lines(&audit);
    let held: u64 = lines.iter().filter_map(|line| line["count"].as_u64()).sum();
    let singles =
        lines.iter().filter(|line| line["unmapped"]["event"] == "denied" && line.get("count").is_none());
    assert_eq!(held + singles.count() as u64, 1_012);
}

#[test]
fn how_the_last_life_ended_is_known() {
    let dir = tempfile::tempdir().unwrap();
    let (audit, thread) = start(&OsVfs, dir.path());
    assert_eq!(audit.previous_run(), PreviousRun::None);
    wait(audit.record_durable(admin_done())).unwrap();
    thread.stop().unwrap();

    let (audit, thread) = start(&OsVfs, dir.path());
    assert_eq!(audit.previous_run(), PreviousRun::Unclean { last_seq: Some(0), cut_bytes: 0 });
    wait(audit.record_durable(Event::BrokerStopped)).unwrap();
    thread.stop().unwrap();

    let (audit, thread) = start(&OsVfs, dir.path());
    assert_eq!(audit.previous_run(), PreviousRun::Stopped);
    thread.stop().unwrap();
    assert_eq!(audit.durable_lines(), 2);
}

/// FAILURES T48.
#[test]
fn nobody_else_can_read_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let audit_dir = dir.path().join("data/audit");
    let (_audit, thread) = start(&OsVfs, &audit_dir);
    thread.stop().unwrap();
    assert_eq!(OsVfs.mode(&file(&audit_dir)).unwrap(), 0o600);
    assert_eq!(OsVfs.mode(&audit_dir).unwrap(), 0o700);
}
