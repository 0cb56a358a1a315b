//! What the storage of a broker does as a whole, when something of it is damaged, missing or behind.

use std::any::Any;
use std::fs;
use std::ops::ControlFlow;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use bytes::Bytes;
use sealbus_protocol::batch::accept::{Durability, Receipt, RememberedBatch, SequenceState};
use sealbus_protocol::frame::InstanceKind;
use sealbus_protocol::identity::Principal;
use sealbus_protocol::ids::{IncarnationId, InstanceId, Kid, PreambleDigest, StreamId};
use sealbus_protocol::policy::{Name, Policy};
use sealbus_protocol::topic::Topic;

use super::findings::Finding;
use super::producers::Ledger;
use super::storage::{Storage, StorageParts};
use super::streams::{OpenedStream, Unopened, stream_dir};
use crate::clock::ManualClock;
use crate::config::StorageConfig;
use crate::locks::lock;
use crate::storage::page::{Entry, Source};
use crate::storage::stream::conformance::{Author, BUS, NOW_MS};
use crate::storage::stream::store::{
    CommitObserver, Fate, StoreError, Stored, StreamDamage, StreamEvent, StreamStore,
};
use crate::storage::stream::{ProducerSnapshot, RecoveredClaim, RecoveredProducer};
use crate::storage::system::keys::KeyDirectory;
use crate::storage::system::{ConsumerKey, SystemLog, dead_letters_id};
use crate::vfs::{FaultyVfs, Operation, OsVfs, Vfs};

const ORDERS: StreamId = StreamId::new([0x11; 16]);
const BILLS: StreamId = StreamId::new([0x22; 16]);
const EIO: i32 = 5;
const KEY: &str = "PRIVATE+KEY+broker.example/audit+ba46f2a9+AQABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f\n";

/// Writes down what it is told.
#[derive(Default)]
struct Witness(Mutex<Vec<(StreamId, StreamEvent)>>);

impl CommitObserver for Witness {
    fn committed(&self, _: StreamId, _: &[(Arc<Stored>, Arc<dyn Any + Send + Sync>)]) {}

    fn event(&self, stream: StreamId, event: &StreamEvent) {
        lock(&self.0).push((stream, event.clone()));
    }
}

impl Witness {
    fn damage(&self) -> usize {
        lock(&self.0).iter().filter(|(_, event)| matches!(event, StreamEvent::Damaged(_))).count()
    }
}

fn policy() -> Policy {
    let stream = |name, id: StreamId| {
        format!("[[stream]]\nname = \"{name}\"\nid = \"{id}\"\ntopics = [\"{name}/#\"]\n")
    };
    Policy::parse(&format!("version = 1\n{}{}", stream("orders", ORDERS), stream("bills", BILLS))).unwrap()
}

/// Opens the storage in a directory, with segments of four kilobytes.
fn open(vfs: impl Vfs, dir: &Path) -> (Storage, Arc<Witness>) {
    let key = dir.join("log.key");
    fs::write(&key, KEY).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    let witness = Arc::new(Witness::default());
    let parts = StorageParts {
        vfs: Arc::new(vfs),
        clock: Arc::new(ManualClock::new(NOW_MS)),
        observer: Arc::clone(&witness) as _,
        bus_id: BUS,
        data_dir: dir.join("data"),
        config: StorageConfig {
            log_key: Some(key),
            segment_bytes: 4_096,
            reserve_bytes: 1,
            ..StorageConfig::default()
        },
    };
    (Storage::open(parts).unwrap().0, witness)
}

fn follow(storage: &Storage) -> Vec<OpenedStream> {
    let opened = storage.follow(&policy(), Unopened::StaysShut).unwrap();
    storage.admit(opened.iter().map(|stream| stream.id));
    opened
}

fn publish(storage: &Storage, author: &mut Author, stream: StreamId, batches: u32) {
    let store = storage.stream(stream).unwrap();
    for _ in 0..batches {
        assert_eq!(author.publish(&*store, 1).unwrap().1, Fate::Kept);
    }
}

/// Waits for what another thread does.
fn eventually(what: &str, mut look: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !look() {
        assert!(begun.elapsed() < Duration::from_secs(20), "{what}");
        std::thread::yield_now();
    }
}

fn segments(dir: &Path, ending: &str) -> Vec<PathBuf> {
    let names = OsVfs.list(dir).unwrap();
    names.iter().filter(|name| name.ends_with(ending)).map(|name| dir.join(name)).collect()
}

fn spoil(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 0xff;
    fs::write(path, bytes).unwrap();
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

#[test]
fn a_stream_that_cannot_be_read_does_not_keep_the_others_shut() {
    let home = tempfile::tempdir().unwrap();
    let mut author = Author::new(1, "orders/a", ORDERS);
    let (storage, _) = open(OsVfs, home.path());
    follow(&storage);
    publish(&storage, &mut author, ORDERS, 3);
    storage.close();
    drop(storage);

    let disk = FaultyVfs::below(OsVfs, stream_dir(&home.path().join("data"), ORDERS), []);
    let (storage, _) = open(disk.clone(), home.path());
    disk.fail_from(Operation::Read, 1, EIO);
    assert!(
        storage.follow(&policy(), Unopened::RefusesPolicy).is_err(),
        "a policy in force is better than this"
    );
    let opened = follow(&storage);
    assert!(opened.iter().all(|stream| stream.id == BILLS));
    assert!(storage.stream(ORDERS).is_none() && storage.stream(BILLS).is_some());
    let found = storage.take_findings();
    let [finding] = &found[..] else { panic!("{found:?}") };
    assert!(matches!(&finding.event, StreamEvent::Stopped(reason) if reason.contains("cannot be opened")));
    assert_eq!((finding.id, finding.name.as_str()), (ORDERS, "orders"));
    let again = storage.follow(&policy(), Unopened::RefusesPolicy).unwrap();
    assert!(again.is_empty(), "it is not in the way of the next policy");
    disk.heal();
    let opened = storage.follow(&policy(), Unopened::RefusesPolicy).unwrap();
    storage.admit(opened.iter().map(|stream| stream.id));
    assert_eq!((opened.len(), storage.stream(ORDERS).unwrap().bounds().end), (1, 3), "mended, it goes on");
    storage.close();
}

/// Five keys in `$keys`: the author's is record 3, and what looks at the newest one does not bring it into memory.
fn record_keys(storage: &Storage) {
    let principal = Principal::parse("spiffe://a.example/anna").unwrap();
    for number in 0..5 {
        let (done, kept) = mpsc::channel();
        let binding = Bytes::from(format!("binding {number}"));
        storage.record_key(Kid::new([number; 32]), &principal, binding, move |kept| done.send(kept).unwrap());
        assert_eq!(kept.recv().unwrap(), Ok(u64::from(number)));
    }
}

/// A reader that passed over a batch for it would never see that batch again, and a consumer's cursor would settle it.
#[test]
fn a_key_that_the_disk_does_not_give_just_now_is_no_reason_to_skip_its_batch() {
    let home = tempfile::tempdir().unwrap();
    let mut author = Author::new(1, "orders/a", ORDERS);
    let disk = FaultyVfs::below(OsVfs, home.path().join("data/system/keys"), []);
    let (storage, _) = open(disk.clone(), home.path());
    record_keys(&storage);
    follow(&storage);
    publish(&storage, &mut author, ORDERS, 3);
    // Nothing of $keys is in the memory of this one.
    let keys = Arc::new(KeyDirectory::new(storage.system().reader(SystemLog::Keys)));
    let source = Source::new(storage.stream(ORDERS).unwrap(), keys);
    disk.fail_from(Operation::Read, 1, EIO);
    for _ in 0..3 {
        let told = source.read(0).map(|page| page.entries.len());
        assert!(matches!(&told, Err(StoreError::Disk(text)) if text.contains("$keys")), "{told:?}");
    }
    disk.heal();
    let page = source.read(0).unwrap();
    assert!(page.entries.iter().all(|entry| matches!(entry, Entry::Batch(_))), "{page:?}");
    assert_eq!((page.entries.len(), page.next), (3, 3));
    assert_eq!(storage.take_findings(), vec![], "nothing was damaged");
    storage.close();
}

/// Without the key of a producer nobody knows whose sequence it is. Opened like that, the stream would take everything
/// once more that is sent again.
#[test]
fn a_stream_stays_shut_for_as_long_as_the_key_of_a_producer_cannot_be_read() {
    let home = tempfile::tempdir().unwrap();
    let mut author = Author::new(1, "orders/a", ORDERS);
    let (storage, _) = open(OsVfs, home.path());
    record_keys(&storage);
    follow(&storage);
    publish(&storage, &mut author, ORDERS, 3);
    storage.close();
    drop(storage);

    let disk = FaultyVfs::below(OsVfs, home.path().join("data/system/keys"), []);
    let (storage, _) = open(disk.clone(), home.path());
    disk.fail_from(Operation::Read, 1, EIO);
    let opened = follow(&storage);
    assert!(opened.iter().all(|stream| stream.id == BILLS), "it is not opened without its producers");
    assert!(storage.stream(ORDERS).is_none());
    let reason = storage.why_shut(ORDERS).unwrap();
    assert!(reason.contains("cannot be opened") && reason.contains("record 3 of $keys"), "{reason}");
    let found = storage.take_findings();
    assert!(
        matches!(&found[..], [Finding { id: ORDERS, event: StreamEvent::Stopped(said), .. }] if *said == reason),
        "{found:?}"
    );
    disk.heal();
    let opened = follow(&storage);
    let producers: Vec<_> = opened.iter().flat_map(|stream| &stream.producers).collect();
    let [(principal, producer)] = &producers[..] else { panic!("{} producers", producers.len()) };
    assert_eq!(principal.as_str(), "spiffe://a.example/anna");
    assert_eq!(producer.topics[0].1.resume_point().unwrap().next_seq, 3);
    assert_eq!(storage.why_shut(ORDERS), None);
    storage.close();
}

/// Whoever reloads again gets all of what the streams know of their producers, also of those that had been opened before
/// one could not be.
#[test]
fn what_a_refused_policy_had_opened_is_opened_again_by_the_next_with_its_producers() {
    let home = tempfile::tempdir().unwrap();
    let mut author = Author::new(1, "orders/a", ORDERS);
    let (storage, _) = open(OsVfs, home.path());
    record_keys(&storage);
    follow(&storage);
    // A snapshot and what follows it: both must be known to each opening.
    publish(&storage, &mut author, ORDERS, 40);
    storage.close();
    drop(storage);

    let disk = FaultyVfs::below(OsVfs, stream_dir(&home.path().join("data"), BILLS), []);
    let (storage, _) = open(disk.clone(), home.path());
    for _ in 0..2 {
        disk.fail_from(Operation::Read, 1, EIO);
        assert!(storage.follow(&policy(), Unopened::RefusesPolicy).is_err());
        assert!(storage.is_empty(), "all of them or none");
        disk.heal();
    }
    // It is opened, and what comes after that comes to nothing: the audit log refuses, say.
    for _ in 0..2 {
        let opened = storage.follow(&policy(), Unopened::RefusesPolicy).unwrap();
        let known = opened.iter().flat_map(|stream| &stream.producers).map(|(_, producer)| producer);
        let next: Vec<u64> = known
            .flat_map(|producer| &producer.topics)
            .map(|(_, state)| state.resume_point().unwrap().next_seq)
            .collect();
        assert_eq!((opened.len(), next), (2, vec![40]));
        assert!(storage.stream(ORDERS).is_none(), "nobody publishes before its producers are taken up");
    }
    storage.admit([ORDERS, BILLS]);
    assert_eq!(storage.stream(ORDERS).unwrap().bounds().end, 40);
    let again = storage.follow(&policy(), Unopened::RefusesPolicy).unwrap();
    assert!(again.is_empty() && storage.stream(ORDERS).is_some(), "what is in force stays open");
    storage.close();
}

/// What the first opening mended and cut is not forgotten because the index turned out to be of another life.
#[test]
fn what_is_found_before_the_index_is_refused_is_told_once() {
    let home = tempfile::tempdir().unwrap();
    let (data, old) = (home.path().join("data"), home.path().join("old"));
    let mut author = Author::new(1, "orders/a", ORDERS);
    for round in 0..2 {
        let (storage, _) = open(OsVfs, home.path());
        follow(&storage);
        publish(&storage, &mut author, ORDERS, 60);
        storage.close();
        drop(storage);
        if round == 0 {
            copy(&data, &old);
        }
    }
    for part in ["streams", "system"] {
        fs::remove_dir_all(data.join(part)).unwrap();
        copy(&old.join(part), &data.join(part));
    }
    fs::remove_file(&segments(&stream_dir(&data, ORDERS), ".idx")[0]).unwrap();
    let (storage, witness) = open(OsVfs, home.path());
    let opened = follow(&storage);
    let orders = opened.iter().find(|stream| stream.id == ORDERS).unwrap();
    assert!(orders.index_remark.is_some(), "the index had followed sixty batches more");
    assert!(
        matches!(&orders.opened.events[..], [StreamEvent::Damaged(StreamDamage::IndexRebuilt(_))]),
        "{:?}",
        orders.opened.events
    );
    assert_eq!(
        (witness.damage(), storage.take_findings()),
        (0, vec![]),
        "whoever opens it tells it, and nobody else"
    );
    storage.close();
}

#[test]
fn damage_of_dead_letters_and_of_the_system_logs_is_found_once() {
    let home = tempfile::tempdir().unwrap();
    let data = home.path().join("data");
    let key = ConsumerKey { stream: ORDERS, name: Name::parse("billing").unwrap() };
    let (storage, _) = open(OsVfs, home.path());
    follow(&storage);
    drop(storage.open_dead_letters(&key).unwrap());
    storage.record_policy(1, sealbus_protocol::ids::PolicyHash::ZERO, &[7; 100], |_| ());
    storage.close();
    drop(storage);

    let letters = stream_dir(&data, dead_letters_id(&key));
    for mark in segments(&letters, ".log").iter().chain(&segments(&data.join("system/policy"), ".log")) {
        // A bit of the header, which is understood all the same.
        let mut bytes = fs::read(mark).unwrap();
        bytes[20] ^= 1;
        fs::write(mark, bytes).unwrap();
    }
    let (storage, _) = open(OsVfs, home.path());
    follow(&storage);
    let found = storage.take_findings();
    let text = |event: &StreamEvent| match event {
        StreamEvent::Damaged(damage) => damage.to_string(),
        other => format!("{other:?}"),
    };
    let said: Vec<(String, String)> =
        found.iter().map(|finding| (finding.name.clone(), text(&finding.event))).collect();
    assert!(
        matches!(&said[..], [(name, text)] if name == "$system" && text.starts_with("$policy: the segment")),
        "{said:?}"
    );
    storage.open_known_dead_letters([key]);
    let found = storage.take_findings();
    assert!(matches!(&found[..], [letters] if letters.name == "$dead/orders/billing"), "{found:?}");

    // What becomes bad while it is open is found by whoever reads it, and told with the next look.
    spoil(&segments(&data.join("system/policy"), ".log")[0], 180);
    let reader = storage.system().reader(SystemLog::Policy);
    for _ in 0..2 {
        reader.scan(0, &mut |_| ControlFlow::Continue(())).unwrap();
    }
    assert_eq!((storage.take_findings().len(), storage.take_findings().len()), (1, 0));
    storage.close();
}

/// Sealing one segment and trimming another leaves as many as there were: the producers are kept all the same.
#[test]
fn producers_are_kept_before_a_segment_goes_however_many_there_are() {
    let home = tempfile::tempdir().unwrap();
    let mut author = Author::new(1, "orders/a", ORDERS);
    let (storage, _) = open(OsVfs, home.path());
    follow(&storage);
    let stream = storage.streams.find(ORDERS).unwrap();
    let kept = || lock(&storage.ledger).record(ORDERS);
    let mut segments = None;
    for _ in 0..4 {
        let before = stream.sealed_record();
        while stream.sealed_record() == before {
            publish(&storage, &mut author, ORDERS, 1);
            eventually("it is looked at", || stream.stats().segments > 0);
        }
        let sealed = stream.sealed_record();
        assert!(kept() < sealed);
        assert!(stream.trim(u64::MAX).unwrap() <= kept(), "nothing goes that is not kept");
        storage.keep_producers();
        eventually("a snapshot becomes durable", || kept() >= sealed);
        eventually("what is kept may go", || stream.trim(u64::MAX).unwrap() >= sealed);
        eventually("it is looked at", || segments.is_none_or(|segments| stream.stats().segments == segments));
        segments = Some(stream.stats().segments);
    }
    let records = storage.system().reader(SystemLog::Producers).end_record();
    storage.keep_producers();
    storage.close();
    let after = storage.system().reader(SystemLog::Producers).end_record();
    assert!(after - records <= 1, "nothing new is not kept again");
}

/// A snapshot of about a megabyte.
fn large(record: u64) -> ProducerSnapshot {
    let batch = |number: u64| RememberedBatch {
        first_seq: number,
        next_seq: number + 1,
        digest: PreambleDigest::new([7; 32]),
        receipt: Receipt { durability: Durability::Fsync, offset: Some(number) },
    };
    let topic = |number: u64| {
        let topic = Topic::parse(&format!("orders/{number}")).unwrap();
        (topic, SequenceState::restore((0..64).map(batch)))
    };
    let producer = RecoveredProducer {
        claim: RecoveredClaim {
            kid: Kid::new([1; 32]),
            instance_id: InstanceId::new([1; 16]),
            instance_kind: InstanceKind::Random,
            started_ms: 1,
            incarnation_id: IncarnationId::new([1; 16]),
        },
        key_record: 0,
        topics: (0..300).map(topic).collect(),
        last_ms: NOW_MS,
    };
    ProducerSnapshot { record, producers: vec![producer] }
}

#[test]
fn the_log_of_producers_is_shortened_and_loses_nobody() {
    const GONE: StreamId = StreamId::new([0x33; 16]);
    const BUSY: StreamId = StreamId::new([0x44; 16]);
    let home = tempfile::tempdir().unwrap();
    let mut author = Author::new(1, "orders/a", ORDERS);
    let (storage, _) = open(OsVfs, home.path());
    follow(&storage);
    publish(&storage, &mut author, ORDERS, 5);
    storage.write_snapshot(GONE, &ProducerSnapshot { producers: Vec::new(), ..large(9) });
    storage.close();
    drop(storage);

    let (storage, _) = open(OsVfs, home.path());
    follow(&storage);
    let reader = storage.system().reader(SystemLog::Producers);
    // Of two streams there is one old snapshot each, one of them of a stream that no policy has; a third is busy.
    for record in 1..=16 {
        storage.write_snapshot(BUSY, &large(record));
        eventually("a snapshot becomes durable", || lock(&storage.ledger).record(BUSY) == record);
    }
    assert!(reader.bytes() > 12 * 1_024 * 1_024 && reader.first_offset() == 0);
    eventually("what is superseded is trimmed", || {
        storage.keep_producers();
        reader.bytes() <= 9 * 1_024 * 1_024
    });
    storage.close();
    let (ledger, snapshots) = Ledger::read(&reader, &mut |refused| panic!("{refused}")).unwrap();
    let records = [ORDERS, GONE, BUSY].map(|id| (ledger.record(id), snapshots.find(id).unwrap().record));
    assert_eq!(records, [(5, 5), (9, 9), (16, 16)]);
    assert_eq!(
        snapshots.find(BUSY).unwrap().producers.iter().map(|known| known.topics.len()).sum::<usize>(),
        300
    );
}

#[test]
fn a_look_at_everything_finds_what_nobody_reads_and_tells_it_once() {
    let home = tempfile::tempdir().unwrap();
    let mut author = Author::new(1, "orders/a", ORDERS);
    let (storage, witness) = open(OsVfs, home.path());
    follow(&storage);
    publish(&storage, &mut author, ORDERS, 60);
    spoil(&segments(&stream_dir(&home.path().join("data"), ORDERS), ".log")[0], 900);
    let scrubs = |id| storage.stream(id).unwrap().stats().scrubs;
    storage.scrub_while(&mut || ControlFlow::Break(()));
    assert_eq!((scrubs(ORDERS), scrubs(BILLS)), (0, 0), "it was told to stop");
    for pass in 1..=2 {
        storage.scrub_while(&mut || ControlFlow::Continue(()));
        assert_eq!((scrubs(ORDERS), scrubs(BILLS)), (pass, pass));
        eventually("the writer tells it", || witness.damage() == 1);
    }
    storage.close();
    assert_eq!((witness.damage(), storage.take_findings()), (1, vec![]));
}

#[test]
fn the_thread_that_looks_stops_at_once() {
    let home = tempfile::tempdir().unwrap();
    let (storage, _) = open(OsVfs, home.path());
    follow(&storage);
    let storage = Arc::new(storage);
    let scrubber = super::scrub::Scrubber::start(Arc::clone(&storage)).unwrap();
    scrubber.stop();
    assert_eq!(Arc::strong_count(&storage), 1, "its thread is gone");
    storage.close();
}
