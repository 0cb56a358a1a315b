//! The writer's threads: groups, levels, room on the disk, and the end.

use std::any::Any;
use std::io::IoSlice;
use std::sync::{Arc, Mutex};

use sealbus_protocol::batch::accept::Durability;
use sealbus_protocol::ids::StreamId;

use super::engines::{STREAM, options};
use crate::clock::{Clock, ManualClock, SystemClock};
use crate::locks::lock;
use crate::storage::stream::conformance::{Author, Bell, NOW_MS};
use crate::storage::stream::store::{
    AppendError, CommitObserver, Fate, Stored, StreamEvent, StreamState, StreamStore, Ticket, Waiter,
};
use crate::storage::stream::{Level, Retention, Stream, StreamOptions, Streams, StreamsParts};
use crate::vfs::{FaultyVfs, Operation, OsVfs, Vfs as _};

/// Writes down what it is told, and panics when it is asked to.
#[derive(Default)]
struct Witness {
    offsets: Mutex<Vec<u64>>,
    events: Mutex<Vec<StreamEvent>>,
    panics: Mutex<bool>,
    /// While the test holds it the writer's thread stands still behind a commit, with no lock of the stream.
    gate: Mutex<()>,
}

impl CommitObserver for Witness {
    fn committed(&self, _: StreamId, batches: &[(Arc<Stored>, Arc<dyn Any + Send + Sync>)]) {
        assert!(!*lock(&self.panics), "the test asked for it");
        lock(&self.offsets).extend(batches.iter().map(|(stored, _)| stored.offset));
        drop(lock(&self.gate));
    }

    fn event(&self, _: StreamId, event: &StreamEvent) {
        lock(&self.events).push(event.clone());
    }
}

struct Bench {
    disk: FaultyVfs,
    witness: Arc<Witness>,
    streams: Streams,
    stream: Arc<Stream>,
    _home: tempfile::TempDir,
}

fn bench(options: StreamOptions, clock: Arc<dyn Clock>) -> Bench {
    let home = tempfile::tempdir().unwrap();
    let disk = FaultyVfs::new(OsVfs, []);
    disk.set_free_bytes(u64::MAX);
    let witness = Arc::new(Witness::default());
    let parts = StreamsParts {
        vfs: Arc::new(disk.clone()),
        clock,
        observer: Arc::clone(&witness) as _,
        dir: home.path().join("streams"),
        threads: 1,
    };
    let streams = Streams::start(parts).unwrap();
    let (stream, _) = streams.open(options, None).unwrap();
    Bench { disk, witness, streams, stream, _home: home }
}

fn settled(store: &dyn StreamStore, bell: &Bell, ticket: &Ticket) -> Fate {
    bell.await_some(|| match store.fate(ticket) {
        Fate::Pending => None,
        fate => Some(fate),
    })
}

fn offer(author: &mut Author, store: &Stream, bell: &Arc<Bell>) -> Result<Ticket, AppendError> {
    let batch = author.sign(1, 100);
    author.offer(store, batch, Arc::clone(bell) as _, NOW_MS)
}

#[test]
fn what_comes_during_a_sync_is_one_group() {
    let Bench { disk, witness, stream, streams: _streams, _home } =
        bench(options(), Arc::new(ManualClock::new(NOW_MS)));
    let mut author = Author::new(1, "a", STREAM);
    let bell = Bell::new();
    // The first of a stream is followed by its watermark and checkpoint, and then it is quiet for a second.
    let (_, fate) = author.publish(&*stream, 1).unwrap();
    assert_eq!(fate, Fate::Kept);
    let watch = Bell::new();
    let _guard = stream.watch(Arc::clone(&watch) as _);
    watch.await_some(|| stream.checkpoint());
    let before = stream.stats();
    disk.hold_syncs();
    let first = offer(&mut author, &stream, &bell).unwrap();
    disk.await_held_sync();
    let tickets: Vec<_> = (0..50).map(|_| offer(&mut author, &stream, &bell).unwrap()).collect();
    assert!(tickets.iter().all(|ticket| stream.fate(ticket) == Fate::Pending));
    assert_eq!(stream.bounds().end, 1, "nothing is seen before it is durable");
    let rung = bell.rung();
    disk.release_syncs();
    assert_eq!(settled(&*stream, &bell, tickets.last().unwrap()), Fate::Kept);
    assert_eq!(stream.fate(&first), Fate::Kept);
    assert!(bell.rung() - rung <= 2, "a waiter is told once for each group");
    assert_eq!(*lock(&witness.offsets), (0..52).collect::<Vec<u64>>(), "in order, before those who wait");
    let after = stream.stats();
    assert_eq!((after.appends - before.appends, after.syncs - before.syncs), (2, 2));
}

/// What a receipt says is what was done, also when the policy lowered the level while the batch was queued.
#[test]
fn a_queued_batch_becomes_as_durable_as_its_receipt_says() {
    let Bench { disk, witness, stream, streams: _streams, _home } =
        bench(options(), Arc::new(ManualClock::new(NOW_MS)));
    let mut author = Author::new(1, "a", STREAM);
    let bell = Bell::new();
    let gate = lock(&witness.gate);
    let first = offer(&mut author, &stream, &bell).unwrap();
    // It is shown, and the writer stands at the gate.
    while stream.fate(&first) != Fate::Kept {
        std::thread::yield_now();
    }
    let second = offer(&mut author, &stream, &bell).unwrap();
    assert_eq!(stream.durability(), Durability::Fsync, "its receipt says so");
    stream.configure(Retention::default(), Level::Memory);
    let synced = disk.synced();
    drop(gate);
    assert_eq!(settled(&*stream, &bell, &second), Fate::Kept);
    assert!(
        disk.synced() > synced && lock(&stream.core).is_synced(),
        "it was acknowledged and is not durable"
    );
    let third = offer(&mut author, &stream, &bell).unwrap();
    assert_eq!((stream.durability(), settled(&*stream, &bell, &third)), (Durability::Memory, Fate::Kept));
    assert!(!lock(&stream.core).is_synced(), "the lower level counts by now");
    // And the other way: no receipt names the higher level before what is there has reached it.
    stream.configure(Retention::default(), Level::Fsync);
    assert!(lock(&stream.core).is_synced());
}

#[test]
fn a_queue_without_end_is_refused() {
    let Bench { disk, stream, witness: _, streams: _streams, _home } =
        bench(options(), Arc::new(ManualClock::new(NOW_MS)));
    let mut author = Author::new(1, "a", STREAM);
    let bell = Bell::new();
    disk.hold_syncs();
    let mut last = offer(&mut author, &stream, &bell).unwrap();
    disk.await_held_sync();
    let mut taken = 0_usize;
    let refused = loop {
        let batch = author.sign(1, 900_000);
        taken += batch.len();
        match author.offer(&*stream, batch, Arc::clone(&bell) as _, NOW_MS) {
            Ok(ticket) => last = ticket,
            Err(error) => break error,
        }
        assert!(taken < 80 << 20, "the queue is bounded");
    };
    assert_eq!(refused, AppendError::Busy);
    disk.release_syncs();
    assert_eq!(settled(&*stream, &bell, &last), Fate::Kept);
}

#[test]
fn relaxed_levels_show_what_is_written_and_say_so() {
    for (level, durability) in [(Level::Interval, Durability::Interval), (Level::Memory, Durability::Memory)]
    {
        let clock = Arc::new(ManualClock::new(NOW_MS));
        let Bench { disk, streams, stream, witness: _, _home } =
            bench(StreamOptions { level, ..options() }, Arc::clone(&clock) as _);
        assert_eq!(stream.durability(), durability);
        let mut author = Author::new(1, "a", STREAM);
        let watch = Bell::new();
        let _guard = stream.watch(Arc::clone(&watch) as _);
        disk.hold_syncs();
        for _ in 0..3 {
            assert_eq!(author.publish(&*stream, 1).unwrap().1, Fate::Kept, "no sync is waited for");
        }
        assert_eq!(stream.read(0, 100_000).unwrap().batches.len(), 3, "what is visible can be read");
        assert!(stream.checkpoint().is_none(), "nothing is vouched for that a power loss could take");
        disk.release_syncs();
        match level {
            Level::Interval => {
                clock.advance(options().interval_ms);
                stream.wake();
                let size = watch.await_some(|| stream.checkpoint()).size;
                assert_eq!(size, 3);
            }
            Level::Memory | Level::Fsync => {}
        }
        streams.close(STREAM);
        assert_eq!(stream.checkpoint().unwrap().size, 3, "closing makes it durable");
        assert_eq!(stream.state(), StreamState::Closed);
        assert_eq!(author.publish(&*stream, 1).unwrap_err(), AppendError::Closed);
    }
}

#[test]
fn little_room_refuses_publishers_before_there_is_none() {
    let Bench { disk, witness, stream, streams: _streams, _home } =
        bench(options(), Arc::new(SystemClock::new()));
    let mut author = Author::new(1, "a", STREAM);
    author.publish(&*stream, 1).unwrap();
    let watch = Bell::new();
    let _guard = stream.watch(Arc::clone(&watch) as _);
    disk.set_free_bytes(options().reserve_bytes - 1);
    let refused = loop {
        match author.publish(&*stream, 1) {
            Ok((_, fate)) => assert_eq!(fate, Fate::Kept, "there is the reserve for it"),
            Err(error) => break error,
        }
    };
    assert_eq!((refused, stream.state()), (AppendError::Full, StreamState::Full));
    disk.set_free_bytes(options().reserve_bytes * 2);
    watch.await_some(|| (stream.state() == StreamState::Open).then_some(()));
    let events = lock(&witness.events).clone();
    let states: Vec<_> =
        events.iter().filter(|event| matches!(event, StreamEvent::Full | StreamEvent::Resumed)).collect();
    assert_eq!(states, [&StreamEvent::Full, &StreamEvent::Resumed]);
}

/// A panic is a defect, and must not become silence.
#[test]
fn a_panic_of_the_writer_stops_its_streams_and_tells_everybody() {
    let Bench { witness, streams, stream, disk: _, _home } =
        bench(options(), Arc::new(ManualClock::new(NOW_MS)));
    let mut author = Author::new(1, "a", STREAM);
    author.publish(&*stream, 1).unwrap();
    let watch = Bell::new();
    let _guard = stream.watch(Arc::clone(&watch) as _);
    *lock(&witness.panics) = true;
    let bell = Bell::new();
    let ticket = offer(&mut author, &stream, &bell).unwrap();
    watch.await_some(|| matches!(stream.state(), StreamState::Stopped(_)).then_some(()));
    assert_eq!(stream.fate(&ticket), Fate::Kept, "it had been shown");
    assert!(matches!(offer(&mut author, &stream, &bell), Err(AppendError::Stopped { .. })));
    let other = StreamOptions { stream_id: StreamId::new([1; 16]), signer: None, ..options() };
    let (other, _) = streams.open(other, None).unwrap();
    assert!(matches!(other.state(), StreamState::Stopped(_)), "nobody would write it");
    streams.shutdown();
}

#[test]
fn closing_writes_what_waits() {
    let Bench { disk, streams, stream, witness: _, _home } =
        bench(options(), Arc::new(ManualClock::new(NOW_MS)));
    let mut author = Author::new(1, "a", STREAM);
    let bell = Bell::new();
    disk.hold_syncs();
    let tickets: Vec<_> = (0..30).map(|_| offer(&mut author, &stream, &bell).unwrap()).collect();
    disk.await_held_sync();
    std::thread::scope(|scope| {
        let closing = scope.spawn(|| streams.close(STREAM));
        let watch: Arc<Bell> = Bell::new();
        let _guard = stream.watch(Arc::clone(&watch) as Arc<dyn Waiter>);
        disk.release_syncs();
        closing.join().unwrap();
    });
    assert!(tickets.iter().all(|ticket| stream.fate(ticket) == Fate::Kept));
    assert_eq!(stream.checkpoint().unwrap().size, 30);
    assert!(streams.find(STREAM).is_none());
    let (again, opened) = streams.open(options(), None).unwrap();
    assert_eq!((again.bounds().end, opened.stopped), (30, None));
}

/// A stopped stream is still read, and what its readers come across is told.
#[test]
fn damage_that_is_found_in_a_stopped_stream_is_said() {
    let Bench { disk, witness, stream, streams: _streams, _home: home } =
        bench(options(), Arc::new(ManualClock::new(NOW_MS)));
    let mut author = Author::new(1, "a", STREAM);
    for _ in 0..100 {
        author.publish(&*stream, 1).unwrap();
    }
    disk.fail_nth(Operation::Sync, 1, 5);
    assert!(matches!(author.publish(&*stream, 1).unwrap().1, Fate::Stopped(_)));
    disk.heal();
    let dir = home.path().join("streams").join(STREAM.to_string());
    let first = dir.join(format!("{:020}-{:020}.log", 0, 0));
    OsVfs.open(&first).unwrap().write_at(1_000, &[IoSlice::new(&[0xff; 8])]).unwrap();
    let found =
        || lock(&witness.events).iter().filter(|event| matches!(event, StreamEvent::Damaged(_))).count();
    assert_eq!(found(), 0);
    for _ in 0..3 {
        assert_ne!(stream.read(0, 100_000).unwrap().skipped, []);
        // The writer says it in its own time.
        let patience = std::time::Instant::now();
        while found() == 0 && patience.elapsed().as_secs() < 20 {
            std::thread::yield_now();
        }
        assert_eq!(found(), 1, "once");
    }
    assert_eq!(stream.stats().damaged, 1);
}
