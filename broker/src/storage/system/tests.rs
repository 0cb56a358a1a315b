//! `$cursors` through power losses, and the thread that writes the system logs through a failing disk.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};

use bytes::Bytes;
use sealbus_protocol::ids::{BusId, StreamId};
use sealbus_protocol::policy::Name;

use super::consumer::{AskedSettings, ConsumerKey, ConsumerSettings, Cursor};
use super::cursor_record::{CursorChange, KeptConsumer};
use super::cursors::{CursorLog, RecoveredCursors};
use super::frame::{SystemError, SystemFrame, SystemLog};
use super::writer::SystemLogs;
use crate::clock::ManualClock;
use crate::storage::log::LogOptions;
use crate::vfs::{Limits, Operation, SimVfs, Vfs};

const BUS: BusId = BusId::new([1; 16]);

/// ENOSPC and EIO, as the system numbers them.
const NO_SPACE: i32 = 28;
const INPUT_OUTPUT: i32 = 5;

fn options() -> LogOptions {
    let log_id = SystemLog::Cursors.log_id();
    LogOptions { bus_id: BUS, log_id, segment_bytes: 4_096, digest: None, salt: || 0x5a17 }
}

fn key(name: usize) -> ConsumerKey {
    ConsumerKey { stream: StreamId::new([3; 16]), name: Name::parse(&format!("c{name}")).unwrap() }
}

fn stands(name: usize, position: u64) -> CursorChange {
    let settings = ConsumerSettings::new(AskedSettings::default()).unwrap();
    let settled = (1..5).map(|index| position + 2 * index..position + 2 * index + 1).collect();
    let cursor = Cursor::new(position, settled, Vec::new()).unwrap();
    CursorChange::Stands(KeptConsumer { key: key(name), settings, cursor })
}

type Consumers = BTreeMap<ConsumerKey, KeptConsumer>;

fn follow(consumers: &mut Consumers, change: &CursorChange) {
    match change {
        CursorChange::Stands(kept) => {
            consumers.insert(kept.key.clone(), kept.clone());
        }
        CursorChange::Removed(key) => {
            consumers.remove(key);
        }
    }
}

fn open(vfs: &SimVfs) -> (CursorLog, RecoveredCursors) {
    let vfs: Arc<dyn Vfs> = Arc::new(vfs.clone());
    vfs.create_dir_all(Path::new("/cursors")).unwrap();
    CursorLog::open(vfs, Path::new("/cursors"), options()).unwrap()
}

fn found(recovered: &RecoveredCursors) -> Consumers {
    recovered.consumers.iter().map(|kept| (kept.key.clone(), kept.clone())).collect()
}

/// A change that was appended, between which operations, and who stands where after it.
struct Appended {
    operations: Range<usize>,
    after: Consumers,
}

/// Consumers that move, appear and go, in groups of one to three, over several segments.
fn script(vfs: &SimVfs, groups: usize) -> Vec<Appended> {
    let (mut log, _) = open(vfs);
    let mut consumers = Consumers::new();
    let mut history = Vec::new();
    for group in 0..groups {
        let change = |index: usize| match (group + index) % 11 {
            10 => CursorChange::Removed(key(index)),
            _ => stands((group + index) % 4, (group * 10 + index) as u64),
        };
        let changes: Vec<CursorChange> = (0..1 + group % 3).map(change).collect();
        let frames: Vec<SystemFrame> = changes.iter().map(CursorChange::encode).collect();
        let before = vfs.operations();
        log.append(&frames, group as u64).unwrap();
        log.sync(group as u64).unwrap();
        for change in &changes {
            follow(&mut consumers, change);
            history.push(Appended { operations: before..vfs.operations(), after: consumers.clone() });
        }
    }
    history
}

/// Opens every state in which the disk may be found: how many there were, and the first that is not right.
fn check_every_crash(vfs: &SimVfs, history: &[Appended]) -> (usize, Option<String>) {
    let mut states = 0;
    for operations in 0..=vfs.operations() {
        let least = history.iter().take_while(|appended| appended.operations.end <= operations).count();
        let most = history.iter().take_while(|appended| appended.operations.start < operations).count();
        for (description, crashed) in vfs.crash_states(operations, Limits::sampled(24, 7)) {
            states += 1;
            let (mut log, recovered) = open(&crashed);
            if !recovered.recovery.damage.is_empty() || !recovered.refused.is_empty() {
                return (states, Some(format!("{description}: {recovered:?}")));
            }
            let is_one_of_them = (least..=most).any(|count| match count.checked_sub(1) {
                None => recovered.consumers.is_empty(),
                Some(last) => history[last].after == found(&recovered),
            });
            if !is_one_of_them {
                let found = format!("{description}: after {least} to {most} changes, found {recovered:?}");
                return (states, Some(found));
            }
            log.append(&[stands(9, 9).encode()], 0).unwrap();
            log.sync(0).unwrap();
            let mut expected = found(&recovered);
            follow(&mut expected, &stands(9, 9));
            if found(&open(&crashed).1) != expected {
                return (states, Some(format!("{description}, and one more change")));
            }
        }
    }
    (states, None)
}

#[test]
fn cursors_survive_a_power_loss_at_every_operation() {
    let vfs = SimVfs::new();
    let history = script(&vfs, 300);
    assert!(vfs.journal().iter().any(|operation| operation.contains("remove")), "it was made shorter");
    let (states, wrong) = check_every_crash(&vfs, &history);
    assert_eq!(wrong, None);
    assert!(states > 2_000, "{states} states are too few to say anything");
}

#[test]
fn a_disk_that_only_says_that_it_synced_is_found_out() {
    let vfs = SimVfs::new();
    vfs.skip_syncs(true);
    let history = script(&vfs, 20);
    assert!(check_every_crash(&vfs, &history).1.is_some());
}

#[test]
fn the_log_stays_short_however_often_consumers_move() {
    let vfs = SimVfs::new();
    let history = script(&vfs, 2_000);
    let (mut log, recovered) = open(&vfs);
    assert_eq!(found(&recovered), history.last().unwrap().after);
    assert!(log.log().bytes() <= 4 * 4_096, "{} bytes", log.log().bytes());
    assert!(log.log().first_offset() > 3_000);
}

#[test]
fn a_log_that_cannot_be_made_shorter_loses_nothing_and_is_when_it_can() {
    let vfs = SimVfs::new();
    let (mut log, _) = open(&vfs);
    let mut consumers = Consumers::new();
    let mut longest = 0;
    for round in 0..600 {
        log.append(&[stands(round % 4, round as u64).encode()], 0).unwrap();
        if round < 300 {
            // What was appended had room; what is written anew after it has not.
            vfs.fail_from(Operation::Write, 1, NO_SPACE);
        }
        log.sync(0).unwrap();
        vfs.heal();
        follow(&mut consumers, &stands(round % 4, round as u64));
        longest = longest.max(log.log().bytes());
    }
    assert!(longest > 6 * 4_096, "{longest} bytes: it could not be made shorter");
    assert!(log.log().bytes() < 4 * 4_096, "and was when there was room");
    drop(log);
    assert_eq!(found(&open(&vfs).1), consumers);
}

type Outcome = Result<Range<u64>, SystemError>;

fn open_logs(vfs: &SimVfs) -> SystemLogs {
    let vfs: Arc<dyn Vfs> = Arc::new(vfs.clone());
    SystemLogs::open(&vfs, Path::new("/system"), BUS, Arc::new(ManualClock::new(5))).unwrap().0
}

fn append(logs: &SystemLogs, log: SystemLog, texts: &[&str]) -> Receiver<Outcome> {
    let frames = texts.iter().map(|text| SystemFrame {
        kind: 77,
        flags: 0,
        payload: Bytes::copy_from_slice(text.as_bytes()),
    });
    let (sender, receiver) = channel();
    logs.append(log, frames.collect(), Box::new(move |outcome| sender.send(outcome).unwrap()));
    receiver
}

fn texts(logs: &SystemLogs, log: SystemLog) -> Vec<String> {
    let mut texts = Vec::new();
    logs.reader(log)
        .scan(0, &mut |frame| {
            texts.push(String::from_utf8(frame.payload.to_vec()).unwrap());
            std::ops::ControlFlow::Continue(())
        })
        .unwrap();
    texts
}

#[test]
fn what_is_done_is_durable_and_has_its_record_numbers() {
    let vfs = SimVfs::new();
    let logs = open_logs(&vfs);
    assert_eq!(append(&logs, SystemLog::Keys, &["a", "b"]).recv().unwrap(), Ok(0..2));
    assert_eq!(append(&logs, SystemLog::Policy, &["p"]).recv().unwrap(), Ok(0..1));
    assert_eq!(append(&logs, SystemLog::Keys, &["c"]).recv().unwrap(), Ok(2..3));
    for (_, crashed) in vfs.crash_states(vfs.operations(), Limits::sampled(20, 1)) {
        let logs = open_logs(&crashed);
        assert_eq!(texts(&logs, SystemLog::Keys), ["a", "b", "c"]);
        assert_eq!(texts(&logs, SystemLog::Policy), ["p"]);
    }
    logs.close();
    let closed = append(&logs, SystemLog::Keys, &["d"]).recv().unwrap();
    assert_eq!(closed, Err(SystemError::Closed));
    assert_eq!(append(&open_logs(&vfs), SystemLog::Keys, &["d"]).recv().unwrap(), Ok(3..4));
}

#[test]
fn a_failed_sync_stops_its_log_for_ever_and_no_other() {
    let vfs = SimVfs::new();
    let logs = open_logs(&vfs);
    assert!(append(&logs, SystemLog::Keys, &["a"]).recv().unwrap().is_ok());
    vfs.fail_nth(Operation::Sync, 1, INPUT_OUTPUT);
    let failed = append(&logs, SystemLog::Keys, &["b"]).recv().unwrap();
    let Err(SystemError::Stopped(reason)) = failed else { panic!("{failed:?}") };
    let again = append(&logs, SystemLog::Keys, &["c"]).recv().unwrap();
    assert_eq!(again, Err(SystemError::Stopped(Arc::clone(&reason))));
    assert_eq!(logs.stopped(SystemLog::Keys), Some(reason));
    assert_eq!(append(&logs, SystemLog::Policy, &["p"]).recv().unwrap(), Ok(0..1));
    assert_eq!(logs.stopped(SystemLog::Policy), None);
}

#[test]
fn a_full_disk_stops_nothing() {
    let vfs = SimVfs::new();
    let logs = open_logs(&vfs);
    assert!(append(&logs, SystemLog::Keys, &["a"]).recv().unwrap().is_ok());
    vfs.fail_from(Operation::Write, 1, NO_SPACE);
    let full = append(&logs, SystemLog::Keys, &["b"]).recv().unwrap();
    assert!(matches!(full, Err(SystemError::NotNow(_))), "{full:?}");
    vfs.heal();
    assert_eq!(append(&logs, SystemLog::Keys, &["c"]).recv().unwrap(), Ok(1..2));
    assert_eq!(texts(&logs, SystemLog::Keys), ["a", "c"]);
}

#[test]
fn a_record_that_is_no_cursor_does_not_get_into_cursors() {
    let logs = open_logs(&SimVfs::new());
    let refused = append(&logs, SystemLog::Cursors, &["a"]).recv().unwrap();
    assert!(matches!(refused, Err(SystemError::Refused(_))), "{refused:?}");
    let (sender, receiver) = channel();
    let frames = vec![stands(1, 5).encode()];
    logs.append(SystemLog::Cursors, frames, Box::new(move |outcome| sender.send(outcome).unwrap()));
    assert_eq!(receiver.recv().unwrap(), Ok(0..1));
}
