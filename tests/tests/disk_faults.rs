//! A disk that fails or is full: nothing is acknowledged after the first failed sync, the stream says why it has stopped,
//! what was acknowledged is there after a start; without room everything is given back, can be read, and goes on by itself.
//! `storage-campaign faults` and `storage-campaign disk` are the same at full size and on real file systems.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Instant;

use sealbus_broker::storage::stream::store::{StreamEvent, StreamState, StreamStore as _};
use sealbus_broker::vfs::{FaultyVfs, Operation, OsVfs, SimVfs, Vfs};
use sealbus_tests::campaign::faults::{Fault, Faults};
use sealbus_tests::campaign::live::{Live, Publisher, REFUSED_WITHIN, RESUMED_WITHIN, Refusal, await_open};

const EIO: i32 = 5;
const ENOSPC: i32 = 28;
const BATCH_BYTES: usize = 2_000;

#[test]
fn each_operation_of_a_script_may_fail() {
    // Every operation of a short script; `storage-campaign faults` takes longer ones.
    let campaign = Faults { seed: 3, steps: 40, every: 1, threads: 2, nested_one_in: 64 };
    for fault in Fault::ALL {
        let report = campaign.run(fault, &AtomicUsize::new(0));
        println!("{}", report.json());
        assert!(report.n >= 20, "the script is too short: {report}");
        assert_eq!(report.violations, 0, "{report}");
    }
}

fn publish_some(publisher: &mut Publisher, stream: &sealbus_broker::storage::stream::Stream) {
    for _ in 0..30 {
        publisher.publish(stream, BATCH_BYTES).expect("a disk without faults takes a batch");
    }
}

fn reopened(vfs: Arc<dyn Vfs>, dir: &Path, publisher: &mut Publisher) -> Vec<String> {
    let live = Live::start(vfs, dir, 0);
    let (stream, opened) = live.open(publisher);
    let mut wrong = publisher.check(&stream);
    wrong.extend(opened.events.iter().map(|event| format!("opened again it reports {event:?}")));
    if let Err(refusal) = publisher.publish(&stream, BATCH_BYTES) {
        wrong.push(format!("opened again it refuses: {refusal:?}"));
    }
    live.close();
    wrong
}

#[test]
fn a_full_disk_is_said_within_a_second_and_the_stream_goes_on_by_itself() {
    let (disk, dir) = (SimVfs::new(), Path::new("/data/streams"));
    let used = |disk: &SimVfs| {
        let sizes =
            disk.files().into_iter().map(|path| disk.read(&path, u64::MAX).map_or(0, |bytes| bytes.len()));
        sizes.sum::<usize>() as u64
    };
    let live = Live::start(Arc::new(disk.clone()), dir, 0);
    let mut publisher = Publisher::new(31);
    let (stream, _) = live.open(&publisher);
    publish_some(&mut publisher, &stream);
    disk.set_capacity(Some(used(&disk) + 10_000));
    let mut refusal = None;
    for _ in 0..100 {
        let since = Instant::now();
        if let Err(found) = publisher.publish(&stream, BATCH_BYTES) {
            assert!(since.elapsed() < REFUSED_WITHIN, "a publisher waited {:?}", since.elapsed());
            refusal = Some(found);
            break;
        }
    }
    assert!(refusal.as_ref().is_some_and(Refusal::is_full), "{refusal:?}");
    assert_eq!(stream.state(), StreamState::Full);
    assert_eq!(publisher.check(&stream), Vec::<String>::new(), "a full disk is read");
    disk.set_capacity(None);
    let took = await_open(&stream);
    assert!(took < RESUMED_WITHIN, "{took:?}");
    publish_some(&mut publisher, &stream);
    assert!(live.events.has(|event| matches!(event, StreamEvent::Full)));
    assert!(live.events.has(|event| matches!(event, StreamEvent::Resumed)));
    live.close();
    assert_eq!(reopened(Arc::new(disk), dir, &mut publisher), Vec::<String>::new());
}

#[test]
fn a_full_disk_is_answered_alike_by_the_files_of_the_system() {
    let home = tempfile::tempdir().expect("a temporary folder can be made");
    let disk = FaultyVfs::new(OsVfs, []);
    let live = Live::start(Arc::new(disk.clone()), home.path(), 1_024);
    let mut publisher = Publisher::new(32);
    let (stream, _) = live.open(&publisher);
    publish_some(&mut publisher, &stream);
    disk.set_free_bytes(0);
    disk.fail_from(Operation::Write, 1, ENOSPC);
    let refusal = publisher.publish(&stream, BATCH_BYTES).expect_err("a full disk takes nothing");
    assert!(refusal.is_full(), "{refusal:?}");
    assert_eq!(publisher.check(&stream), Vec::<String>::new());
    disk.heal();
    disk.set_free_bytes(u64::MAX);
    let took = await_open(&stream);
    assert!(took < RESUMED_WITHIN, "{took:?}");
    publish_some(&mut publisher, &stream);
    live.close();
    assert_eq!(reopened(Arc::new(OsVfs), home.path(), &mut publisher), Vec::<String>::new());
}

#[test]
fn a_failed_sync_stops_its_stream_with_the_reason_and_no_other() {
    let (disk, dir) = (SimVfs::new(), Path::new("/data/streams"));
    let live = Live::start(Arc::new(disk.clone()), dir, 0);
    let (mut broken, mut sound) = (Publisher::new(33), Publisher::new(34));
    let (stream, _) = live.open(&broken);
    let (other, _) = live.open(&sound);
    publish_some(&mut broken, &stream);
    publish_some(&mut sound, &other);
    disk.fail_nth(Operation::Sync, 1, EIO);
    let refusal = broken.publish(&stream, BATCH_BYTES).expect_err("what is not synced is not acknowledged");
    let reason = refusal.stopped().unwrap_or_default();
    assert!(reason.contains("could not sync") && reason.contains("os error 5"), "{refusal:?}");
    let synced = disk.done(Operation::Sync);
    for _ in 0..3 {
        let refusal = broken.publish(&stream, BATCH_BYTES).expect_err("nothing is acknowledged any more");
        assert!(refusal.stopped().is_some(), "{refusal:?}");
    }
    assert_eq!(disk.done(Operation::Sync), synced, "a sync that failed is not tried again");
    assert!(live.events.has(|event| matches!(event, StreamEvent::Stopped(_))));
    assert_eq!(broken.check(&stream), Vec::<String>::new(), "what was acknowledged is read");
    publish_some(&mut sound, &other);
    live.close();
    assert_eq!(reopened(Arc::new(disk.clone()), dir, &mut broken), Vec::<String>::new());
    assert_eq!(reopened(Arc::new(disk), dir, &mut sound), Vec::<String>::new());
}
