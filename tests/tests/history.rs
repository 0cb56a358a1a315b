//! A stream's history proves itself: to code that we did not write, across kills, and against whoever touches the disk.
//! FAILURES T59.

#![allow(clippy::panic, clippy::unwrap_used, reason = "what helps a test fails the test")]

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use sealbus_client::{Bus, CheckpointError, DeliveryError, Event, Missing, Start};
use sealbus_protocol::batch::HEAD_LEN;
use sealbus_protocol::frame::Until;
use sealbus_protocol::ids::StreamId;
use sealbus_protocol::session::{ClientEvent, Delivered};
use sealbus_protocol::tlog::{VerifierKey, stream_origin};
use sealbus_tests::audit::{event, mentions};
use sealbus_tests::member::CREDIT;
use sealbus_tests::reading::{ORDERS, checkpoint_of, next_replayed, numbered, publish, replayed, text};
use sealbus_tests::wait::{eventually_async, within};
use sealbus_tests::{Member, TestBus, allow, sealbus_program, stream};
use signed_note::{Note, StandardVerifier, VerifierList};
use tlog_tiles::{Error, Hash, HashReader};

const BILLS: &str = "b1115000000000000000000000000001";

fn policy() -> String {
    stream("orders", ORDERS, "orders/#", "")
        + &stream("bills", BILLS, "bills/#", "")
        + &allow("write", "shop", "publish\", \"subscribe", "#")
        + "\n[[allow]]\nid = \"read\"\nwho = [\"spiffe://bus.test/auditor\"]\nverbs = [\"replay\"]\nstreams = [\"orders\", \
           \"bills\"]\n"
}

/// A tree as the foreign crate keeps it, built from the leaves as they are written down in `SECURITY.md`.
#[derive(Default)]
struct Foreign {
    leaves: Vec<Vec<u8>>,
    stored: Vec<Hash>,
}

impl HashReader for Foreign {
    fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<Hash>, Error> {
        Ok(indexes.iter().map(|index| self.stored[usize::try_from(*index).unwrap()]).collect())
    }
}

impl Foreign {
    fn push(&mut self, leaf: Vec<u8>) {
        let index = u64::try_from(self.leaves.len()).unwrap();
        let hashes = tlog_tiles::stored_hashes(index, &leaf, self).unwrap();
        self.stored.extend(hashes);
        self.leaves.push(leaf);
    }

    fn len(&self) -> u64 {
        u64::try_from(self.leaves.len()).unwrap()
    }

    fn root(&self, size: u64) -> Hash {
        tlog_tiles::tree_hash(size, self).unwrap()
    }
}

/// `"SBL1" | bus_id | stream_id | u64 base_offset | u64 append_ms | u64 policy_version | preamble | signature`
fn leaf_of(bus: &TestBus, stream: StreamId, delivered: &Delivered) -> Vec<u8> {
    let stored = delivered.stored.as_ref().expect("it is stored");
    let mut leaf = b"SBL1".to_vec();
    leaf.extend_from_slice(bus.bus_id().as_bytes());
    leaf.extend_from_slice(stream.as_bytes());
    leaf.extend_from_slice(&delivered.offset.expect("it is stored").to_be_bytes());
    leaf.extend_from_slice(&delivered.broker_ms.to_be_bytes());
    leaf.extend_from_slice(&stored.policy_version.to_be_bytes());
    leaf.extend_from_slice(&delivered.batch[..HEAD_LEN]);
    leaf
}

/// All batches of a stream as they are on the wire.
async fn batches(auditor: &mut Member, stream: &str) -> Vec<Delivered> {
    let ready =
        auditor.session.replay(stream, Start::Earliest, Until::End, None, CREDIT).await.expect("it may");
    let mut batches = Vec::new();
    loop {
        match auditor.event().await {
            ClientEvent::Deliver(delivered) => batches.push(delivered),
            ClientEvent::Closed(_) => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(ready.start.expect("a replay says where it begins").offset, 0);
    batches
}

fn hash(bytes: &[u8; 32]) -> Hash {
    Hash(*bytes)
}

fn hashes(bytes: &[[u8; 32]]) -> Vec<Hash> {
    bytes.iter().map(hash).collect()
}

/// What the foreign crates read in a note that they believe.
fn foreign_checkpoint(bus: &TestBus, stream: StreamId, note: &str) -> tlog_tiles::Checkpoint {
    let origin = stream_origin(&bus.bus_id(), &stream);
    let key = VerifierKey::new(origin.clone(), &bus.log_key()).expect("the key is good");
    let verifiers = VerifierList::new(vec![Box::new(StandardVerifier::new(&key.to_string()).unwrap())]);
    let note = Note::from_bytes(note.as_bytes()).expect("it is a note");
    note.verify(&verifiers).expect("the log key has signed it");
    let checkpoint = tlog_tiles::Checkpoint::from_bytes(note.text()).expect("it is a checkpoint");
    assert_eq!(checkpoint.origin(), origin.as_str());
    checkpoint
}

/// Two streams grow, are killed and grow on; each checkpoint, each batch's inclusion, and the way from each older
/// checkpoint to each newer one is proven to `signed_note` and `tlog_tiles`, on a tree that they built themselves.
#[tokio::test(flavor = "multi_thread")]
async fn code_that_we_did_not_write_accepts_every_checkpoint_and_every_proof() {
    let bus = TestBus::with_storage("segment_bytes = \"64KiB\"\n");
    let mut broker = bus.serve_with(sealbus_program!(), &policy()).await;
    let shop = bus.connect(broker.address(), "shop").await;
    let mut seen: Vec<(&str, u64, Hash)> = Vec::new();
    for round in 0..4_u64 {
        for (name, id, topic) in [("orders", ORDERS, "orders/eu"), ("bills", BILLS, "bills/eu")] {
            let stream = id.parse::<StreamId>().unwrap();
            let publisher = shop.publisher(topic).await.expect("the topic opens");
            for number in 0..13 + round {
                let size = if number % 3 == 0 { 9_000 } else { 10 };
                let messages = (0..=number % 4).map(|_| vec![b'x'; size]);
                within("publishing", publisher.publish_all(messages)).await.expect("it is kept");
            }
            let mut auditor = Member::open(&bus, broker.address(), "auditor").await;
            let mut foreign = Foreign::default();
            for (index, delivered) in batches(&mut auditor, name).await.iter().enumerate() {
                let stored = delivered.stored.as_ref().expect("it is stored");
                assert_eq!(stored.leaf_index, u64::try_from(index).unwrap(), "leaves are dense");
                foreign.push(leaf_of(&bus, stream, delivered));
            }
            let client = bus.connect(broker.address(), "auditor").await;
            assert_eq!(checkpoint_of(&client, name, foreign.len()).await.size(), foreign.len());
            let olds: Vec<(u64, Hash)> =
                seen.iter().filter(|(of, ..)| *of == name).map(|(_, size, root)| (*size, *root)).collect();
            for (old_size, old_root) in
                olds.iter().copied().chain((1..=foreign.len()).map(|size| (size, foreign.root(size))))
            {
                let reply = auditor.session.checkpoint(name, old_size, None).await.expect("it may");
                let checkpoint = foreign_checkpoint(&bus, stream, &reply.note);
                assert_eq!((checkpoint.size(), checkpoint.hash()), (reply.size, &foreign.root(reply.size)));
                let proof = hashes(&reply.consistency);
                tlog_tiles::check_tree(&proof, reply.size, *checkpoint.hash(), old_size, old_root)
                    .unwrap_or_else(|error| panic!("{name}: {old_size} to {}: {error:?}", reply.size));
            }
            for leaf in 0..foreign.len() {
                let reply = auditor.session.checkpoint(name, 0, Some(leaf)).await.expect("it may");
                let root = foreign.root(reply.size);
                let record = tlog_tiles::record_hash(&foreign.leaves[usize::try_from(leaf).unwrap()]);
                tlog_tiles::check_record(&hashes(&reply.inclusion), reply.size, root, leaf, record)
                    .unwrap_or_else(|error| panic!("{name}: leaf {leaf}: {error:?}"));
            }
            seen.push((name, foreign.len(), foreign.root(foreign.len())));
        }
        broker.kill();
        broker = bus.serve(sealbus_program!()).await;
    }
}

/// The client's own ledger, through kills: each checkpoint continues the one before, and each message is proven by it.
#[tokio::test(flavor = "multi_thread")]
async fn checkpoints_continue_each_other_when_the_broker_is_killed() {
    let bus = TestBus::new();
    let mut broker = bus.serve_with(sealbus_program!(), &policy()).await;
    let shop = bus.connect(broker.address(), "shop").await;
    let auditor = bus.connect(broker.address(), "auditor").await;
    let mut events = auditor.events();
    let mut replay = auditor.replay("orders").await.expect("it may");
    for round in 0..5 {
        publish(&shop, "orders/eu", round * 7..round * 7 + 7).await;
        assert!(checkpoint_of(&auditor, "orders", round * 7 + 7).await.size() >= round * 7 + 7);
        for number in round * 7..round * 7 + 7 {
            let message = next_replayed(&mut replay).await.expect("it goes on");
            assert_eq!(text(&message), number.to_string());
            let proof = within("a proof", auditor.prove(&message)).await.expect("it is in the log");
            assert_eq!(proof.index(), number);
        }
        // At once after the last acknowledgement too, before the next checkpoint is due.
        publish(&shop, "bills/eu", round..round + 1).await;
        broker.kill();
        broker = bus.serve(sealbus_program!()).await;
    }
    drop(auditor.close().await);
    while let Some(event) = events.next().await {
        assert!(!matches!(event, Event::CheckpointInconsistent { .. }), "{event:?}");
    }
}

/// The files of a stream's segments, oldest first.
fn segments(bus: &TestBus, id: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(bus.stream_dir(id)).expect("the stream has a folder");
    let paths = entries.map(|entry| entry.expect("it can be listed").path());
    let mut segments: Vec<_> =
        paths.filter(|path| path.extension().is_some_and(|ext| ext == "log")).collect();
    segments.sort();
    segments
}

/// Flips a bit of the byte that follows these ones.
fn flip_after(path: &Path, bytes: &[u8]) {
    let mut content = fs::read(path).expect("the segment can be read");
    let at =
        content.windows(bytes.len()).position(|window| window == bytes).expect("it is there") + bytes.len();
    content[at] ^= 0x10;
    fs::write(path, content).expect("the segment can be written");
}

/// Payloads that can be found on the disk and are long enough for a few segments.
fn payload(number: u64) -> Vec<u8> {
    let mut payload = format!("message {number:04}: ").into_bytes();
    payload.resize(3_000, b'.');
    payload
}

async fn publish_large(bus: &Bus, numbers: Range<u64>) {
    let publisher = bus.publisher("orders/eu").await.expect("the topic opens");
    for number in numbers {
        within("publishing", publisher.publish(payload(number))).await.expect("it is kept");
    }
}

/// What is readable, and what is said to be damaged.
async fn readable(bus: &Bus) -> (Vec<u64>, Vec<Range<u64>>) {
    let mut replay = bus.replay("orders").until_end().await.expect("it may");
    let (mut found, mut damaged) = (Vec::new(), Vec::new());
    loop {
        match within("replaying", replay.try_next()).await {
            Ok(Some(message)) => {
                let offset = message.offset().expect("it is stored");
                assert_eq!(message.payload(), payload(offset), "nothing altered is delivered");
                found.push(offset);
            }
            Ok(None) => return (found, damaged),
            Err(DeliveryError::Skipped { from, to, why }) => {
                assert_eq!(why, Missing::Damaged);
                damaged.push(from..to);
            }
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_byte_is_reported_and_its_batch_skipped_and_nothing_else() {
    let bus = TestBus::with_storage("segment_bytes = \"64KiB\"\n");
    let broker = bus.serve_with(sealbus_program!(), &policy()).await;
    let shop = bus.connect(broker.address(), "shop").await;
    publish_large(&shop, 0..60).await;
    assert!(broker.terminate().await.success());
    let files = segments(&bus, ORDERS);
    assert!(files.len() >= 3, "{files:?}");
    // In the oldest segment, and in the one that grows.
    flip_after(&files[0], b"message 0005: ");
    flip_after(files.last().expect("there are some"), b"message 0059: ");

    let mut broker = bus.serve(sealbus_program!()).await;
    let auditor = bus.connect(broker.address(), "auditor").await;
    let expected: Vec<u64> = (0..59).filter(|number| *number != 5).collect();
    assert_eq!(readable(&auditor).await, (expected.clone(), vec![5..6, 59..60]));
    let damage = |line: &serde_json::Value| event(line) == "stream-damaged" && mentions(line, "orders");
    for offset in ["5", "59"] {
        bus.audit().await_line("the damage", |line| damage(line) && mentions(line, offset)).await;
    }
    // While it runs, and in a segment that it has read before.
    flip_after(&files[1], b"message 0030: ");
    let expected: Vec<u64> = expected.into_iter().filter(|number| *number != 30).collect();
    let auditor_now = bus.connect(broker.address(), "auditor").await;
    assert_eq!(readable(&auditor_now).await, (expected.clone(), vec![5..6, 30..31, 59..60]));
    bus.audit().await_line("the damage", |line| damage(line) && mentions(line, "30")).await;
    // It goes on behind the damage; nothing is given twice, nothing is deleted.
    let shop = bus.connect(broker.address(), "shop").await;
    publish_large(&shop, 60..65).await;
    // What is proven after the damage is proven by the nodes that the last watermark kept; after another start those are
    // fewer and larger, and the damaged leaf is in the largest.
    for provable in [[0, 10, 31, 64].as_slice(), &[64]] {
        let auditor = bus.connect(broker.address(), "auditor").await;
        let all: Vec<u64> = expected.iter().copied().chain(60..65).collect();
        assert_eq!(readable(&auditor).await, (all, vec![5..6, 30..31, 59..60]));
        let checkpoint = checkpoint_of(&auditor, "orders", 65).await;
        assert_eq!(checkpoint.size(), 65, "damaged batches stay in the signed history");
        let mut prover = Member::open(&bus, broker.address(), "auditor").await;
        for leaf in provable {
            let reply = prover.session.checkpoint("orders", 0, Some(*leaf)).await;
            let reply =
                reply.unwrap_or_else(|refusal| panic!("leaf {leaf} is not near the damage: {refusal}"));
            assert!(!reply.inclusion.is_empty());
        }
        broker.kill();
        broker = bus.serve(sealbus_program!()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_cut_below_what_was_acknowledged_is_reported_and_its_offsets_are_not_given_again() {
    let bus = TestBus::new();
    let broker = bus.serve_with(sealbus_program!(), &policy()).await;
    let shop = bus.connect(broker.address(), "shop").await;
    publish_large(&shop, 0..20).await;
    assert!(broker.terminate().await.success());
    let last = segments(&bus, ORDERS).pop().expect("there is one");
    let content = fs::read(&last).expect("the segment can be read");
    // At the border of a frame: every frame that is left is whole.
    let magic = content.windows(14).rposition(|window| window == b"message 0017: ").expect("it is there");
    fs::write(&last, &content[..magic - 1_000]).expect("the segment can be written");

    let mut broker = bus.serve(sealbus_program!()).await;
    bus.audit()
        .await_line("the damage", |line| event(line) == "stream-damaged" && mentions(line, "orders"))
        .await;
    let auditor = bus.connect(broker.address(), "auditor").await;
    let (found, damaged) = readable(&auditor).await;
    let kept = u64::try_from(found.len()).unwrap();
    assert!(found == (0..kept).collect::<Vec<_>>() && (14..18).contains(&kept), "{found:?}");
    assert_eq!(damaged.iter().map(|range| range.end - range.start).sum::<u64>(), 20 - kept, "{damaged:?}");
    // New messages, if the stream still takes them, stand behind the old end.
    let shop = bus.connect(broker.address(), "shop").await;
    let publisher = shop.publisher("orders/eu").await.expect("the topic opens");
    match within("publishing", publisher.publish(payload(20))).await {
        Ok(receipt) => assert_eq!(receipt.offset(), Some(20)),
        Err(error) => panic!("{error}"),
    }
    broker.kill();
    broker = bus.serve(sealbus_program!()).await;
    let auditor = bus.connect(broker.address(), "auditor").await;
    assert_eq!(readable(&auditor).await.0.last(), Some(&20));
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("the folder can be made");
    for entry in fs::read_dir(from).expect("the folder can be read") {
        let path = entry.expect("it can be listed").path();
        let target = to.join(path.file_name().expect("it has a name"));
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(&path, &target).expect("the file can be copied");
        }
    }
}

async fn bad_checkpoint(auditor: &Bus) -> CheckpointError {
    eventually_async("the ledger speaks", async || {
        match within("a checkpoint", auditor.checkpoint("orders")).await {
            Err(error @ (CheckpointError::RolledBack { .. } | CheckpointError::Inconsistent { .. })) => {
                Some(error)
            }
            Ok(_) | Err(_) => None,
        }
    })
    .await
}

/// FAILURES T59: everything that the broker has is put back to an older copy; each file of it is whole.
#[tokio::test(flavor = "multi_thread")]
async fn a_history_that_is_put_back_to_an_older_copy_is_noticed_by_whoever_saw_more_of_it() {
    let bus = TestBus::new();
    let broker = bus.serve_with(sealbus_program!(), &policy()).await;
    let shop = bus.connect(broker.address(), "shop").await;
    publish(&shop, "orders/eu", 0..10).await;
    drop(shop);
    assert!(broker.terminate().await.success());
    let (data, older) = (bus.path("data"), bus.path("older"));
    copy(&data, &older);

    let broker = bus.serve(sealbus_program!()).await;
    let auditor = bus.connect(broker.address(), "auditor").await;
    let mut events = auditor.events();
    let shop = bus.connect(broker.address(), "shop").await;
    publish(&shop, "orders/eu", 10..20).await;
    drop(shop);
    let seen = checkpoint_of(&auditor, "orders", 20).await;
    let mut reader = auditor.replay("orders").await.expect("it may");
    for number in 0..20 {
        assert_eq!(text(&next_replayed(&mut reader).await.expect("it goes on")), number.to_string());
    }
    assert!(broker.terminate().await.success());
    fs::remove_dir_all(&data).expect("the data can be removed");
    copy(&older, &data);

    let broker = bus.serve(sealbus_program!()).await;
    match bad_checkpoint(&auditor).await {
        CheckpointError::RolledBack { seen: before, found, older, newer } => {
            assert_eq!((before, found), (20, 10));
            assert_eq!(older, seen.note());
            let id = ORDERS.parse::<StreamId>().unwrap();
            assert_eq!(
                foreign_checkpoint(&bus, id, &newer).size(),
                10,
                "both notes are evidence for anybody"
            );
        }
        other => panic!("{other}"),
    }
    let told = within("an event", async {
        loop {
            if let Event::CheckpointInconsistent { older, .. } = events.next().await.expect("the bus goes on")
            {
                return older;
            }
        }
    })
    .await;
    assert_eq!(told, seen.note());
    // Another history of the same length, and then a longer one, is no better.
    let shop = bus.connect(broker.address(), "shop").await;
    publish(&shop, "orders/eu", 100..115).await;
    eventually_async("the other history", async || {
        match within("a checkpoint", auditor.checkpoint("orders")).await {
            Err(CheckpointError::Inconsistent { older, .. }) => {
                assert_eq!(older, seen.note());
                Some(())
            }
            Err(CheckpointError::RolledBack { .. } | CheckpointError::Request(_)) => None,
            other => panic!("{other:?}"),
        }
    })
    .await;
    // Whoever goes on reading does not take the new messages for a continuation of the old ones.
    match within("the reader", reader.next()).await {
        Some(Err(DeliveryError::Gap { missed: 10, .. } | DeliveryError::Rejected(_))) => {}
        other => panic!("{other:?} as if nothing had happened"),
    }
    // A newcomer cannot know.
    let newcomer = bus.connect(broker.address(), "auditor").await;
    assert_eq!(replayed(&newcomer, "orders").await.len(), 25);
    assert_eq!(replayed(&newcomer, "orders").await[..10], numbered(0..10));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_whose_files_do_not_fit_its_checkpoint_takes_nothing_more_and_says_so() {
    let bus = TestBus::new();
    let broker = bus.serve_with(sealbus_program!(), &policy()).await;
    let shop = bus.connect(broker.address(), "shop").await;
    publish(&shop, "orders/eu", 0..10).await;
    drop(shop);
    assert!(broker.terminate().await.success());
    let (stream, older) = (bus.stream_dir(ORDERS), bus.path("older"));
    copy(&stream, &older);
    let broker = bus.serve(sealbus_program!()).await;
    let shop = bus.connect(broker.address(), "shop").await;
    publish(&shop, "orders/eu", 10..20).await;
    drop(shop);
    assert!(broker.terminate().await.success());
    // The log of before with the checkpoint of after.
    fs::copy(stream.join("checkpoint"), older.join("checkpoint")).expect("there is a checkpoint");
    fs::remove_dir_all(&stream).expect("the stream can be removed");
    copy(&older, &stream);

    let broker = bus.serve(sealbus_program!()).await;
    bus.audit()
        .await_line("the damage", |line| event(line) == "stream-damaged" && mentions(line, "orders"))
        .await;
    bus.audit()
        .await_line("the stop", |line| event(line) == "stream-stopped" && mentions(line, "orders"))
        .await;
    let auditor = bus.connect(broker.address(), "auditor").await;
    assert_eq!(replayed(&auditor, "orders").await, numbered(0..10), "what is there is still read");
    let mut shop = Member::open(&bus, broker.address(), "shop").await;
    let refusal = shop.publish("orders/eu", b"x").await.expect_err("the stream is stopped");
    assert!(refusal.reason().contains("checkpoint"), "{refusal}");
    shop.publish("bills/eu", b"x").await.expect("the other stream goes on");
}

/// FAILURES T48: nobody but the broker reads what is kept, whatever the process's mask is.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_kept_is_for_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let bus = TestBus::with_storage("segment_bytes = \"64KiB\"\n");
    let broker = bus.serve_with(sealbus_program!(), &policy()).await;
    let shop = bus.connect(broker.address(), "shop").await;
    publish_large(&shop, 0..50).await;
    let auditor = bus.connect(broker.address(), "auditor").await;
    checkpoint_of(&auditor, "orders", 50).await;
    let (mut folders, mut files) = (vec![bus.path("data")], 0);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("the folder can be read") {
            let path = entry.expect("it can be listed").path();
            let mode = fs::metadata(&path).expect("it is there").permissions().mode();
            // The engine of the index has files of its own, which nobody else can reach.
            let is_reachable = !folder.ends_with("data/index");
            assert!(mode & 0o077 == 0 || !is_reachable, "{}: {mode:o}", path.display());
            if path.is_dir() && is_reachable {
                folders.push(path);
            } else {
                files += 1;
            }
        }
    }
    assert!(files > 10, "{files} files");
}
