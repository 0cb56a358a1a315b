//! What keeps a stream from being trimmed too early, read too trustingly, or damaged in silence.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use sealbus_protocol::batch::Batch;
use sealbus_protocol::frame::InstanceKind;
use sealbus_protocol::limits::NOTE_BYTES_MAX;

use super::engines::{STREAM, options};
use crate::storage::stream::conformance::{Author, NOW_MS, POLICY_VERSION};
use crate::storage::stream::store::{StreamDamage, StreamEvent, TrimReason};
use crate::storage::stream::{
    CHECKPOINT_FILE, Moment, NewRecord, Opened, REMEMBERED_MS, Retention, Snapshots, StreamCore,
    StreamOptions,
};
use crate::vfs::{SimVfs, Vfs};

const DIR: &str = "/stream";

fn open_with(vfs: &SimVfs, options: StreamOptions) -> (StreamCore, Opened) {
    StreamCore::open(Arc::new(vfs.clone()), Path::new(DIR), options, None).unwrap()
}

/// A stream whose producers are kept by somebody, and of which retention keeps next to nothing.
fn guarded() -> StreamOptions {
    let retention = Retention { messages: Some(1), ..Retention::default() };
    StreamOptions { retention, snapshots: Snapshots::Kept, ..options() }
}

fn grow(core: &mut StreamCore, author: &mut Author, batches: u32, now_ms: u64) {
    for _ in 0..batches {
        let batch = Batch::decode(author.sign(1, 100)).unwrap();
        let topic = author.topic().clone();
        let record = NewRecord::of_batch(&batch, topic, 3, InstanceKind::Random, POLICY_VERSION, now_ms);
        core.append_group(&[record]).unwrap();
        core.commit().unwrap();
    }
}

/// Two passes of retention, the first of which only sets the clock.
fn retain(core: &mut StreamCore, now_ms: u64) {
    for pass in 0..2 {
        let mut events = Vec::new();
        core.maintain(Moment::simulated(now_ms + pass * 11_000), None, &mut events).unwrap();
    }
}

#[test]
fn nothing_is_trimmed_that_no_durable_snapshot_holds() {
    let vfs = SimVfs::new();
    let mut author = Author::new(1, "a", STREAM);
    let (mut core, _) = open_with(&vfs, guarded());
    grow(&mut core, &mut author, 200, NOW_MS);
    retain(&mut core, NOW_MS);
    assert_eq!(core.bounds().first, 0, "nobody has kept the producers");
    let ends: Vec<u64> = core.segments().iter().map(|segment| segment.end_record).collect();
    assert!(ends.len() > 4 && core.sealed_record() == ends[ends.len() - 2]);
    core.set_snapshot_record(ends[1] + 1);
    assert_eq!(core.trim(u64::MAX, TrimReason::Asked, &mut Vec::new()).unwrap(), ends[1]);
    core.set_snapshot_record(ends[2] - 1);
    retain(&mut core, NOW_MS + 100_000);
    assert_eq!(core.bounds().first, ends[1], "a segment goes as a whole");
    core.set_snapshot_record(core.end_record());
    retain(&mut core, NOW_MS + 200_000);
    assert_eq!(core.bounds().first, core.sealed_record());
}

/// A broker whose `$producers` has stopped must not fill its disk for ever.
#[test]
fn what_no_sequence_needs_any_more_is_trimmed_without_a_snapshot() {
    let vfs = SimVfs::new();
    let mut author = Author::new(1, "a", STREAM);
    let (mut core, _) = open_with(&vfs, guarded());
    grow(&mut core, &mut author, 200, NOW_MS);
    let old = core.sealed_record();
    grow(&mut core, &mut author, 200, NOW_MS + REMEMBERED_MS + 1);
    retain(&mut core, NOW_MS + REMEMBERED_MS + 2);
    let first = core.bounds().first;
    assert!(first >= old && first < core.sealed_record(), "{first}");
}

/// A segment of nothing but signs of life ends at the offset at which the one in front ends, and is not trimmed with it.
#[test]
fn signs_of_life_that_no_snapshot_holds_stay() {
    let vfs = SimVfs::new();
    let mut author = Author::new(1, "a", STREAM);
    let (mut core, _) = open_with(&vfs, guarded());
    let beat = |core: &mut StreamCore, author: &mut Author| {
        let batch = Batch::decode(author.sign_heartbeat()).unwrap();
        let topic = author.topic().clone();
        let record = NewRecord::of_batch(&batch, topic, 3, InstanceKind::Random, POLICY_VERSION, NOW_MS);
        core.append_group(&[record]).unwrap();
        core.commit().unwrap();
    };
    for held in [0, 1] {
        let segments = core.segments().len();
        grow(&mut core, &mut author, held, NOW_MS);
        while core.segments().len() < segments + 3 {
            beat(&mut core, &mut author);
        }
        let sealed = core.sealed_record();
        let kept = core.segments().iter().rev().nth(2).unwrap().end_record;
        core.set_snapshot_record(kept);
        core.trim(u64::MAX, TrimReason::Asked, &mut Vec::new()).unwrap();
        let first = core.segments().first().unwrap().first_record;
        assert!(first <= kept && kept < sealed, "{first} of {sealed} went, {kept} are kept");
    }
}

/// A checkpoint that could not be sent to anybody is no checkpoint.
#[test]
fn a_checkpoint_that_is_too_long_is_damage() {
    let vfs = SimVfs::new();
    let mut author = Author::new(1, "a", STREAM);
    let (mut core, _) = open_with(&vfs, options());
    grow(&mut core, &mut author, 3, NOW_MS);
    core.close(&mut Vec::new()).unwrap();
    drop(core);
    let path = PathBuf::from(DIR).join(CHECKPOINT_FILE);
    let mut note = String::from_utf8(vfs.read(&path, 10_000).unwrap()).unwrap();
    let line = note.lines().last().unwrap().to_owned();
    while note.len() <= NOTE_BYTES_MAX {
        // Whoever adds signatures of others to a note does not make it less ours.
        note.push_str(&line.replacen('s', "t", 1));
        note.push('\n');
    }
    vfs.write_file(&path, note.as_bytes()).unwrap();
    let (mut core, opened) = open_with(&vfs, options());
    let [StreamEvent::Damaged(StreamDamage::CheckpointLost(text)), ..] = &opened.events[..] else {
        panic!("{opened:?}")
    };
    assert!(text.contains("more than 4096 bytes") && core.checkpoint().is_none(), "{text}");
    grow(&mut core, &mut author, 1, NOW_MS);
    core.close(&mut Vec::new()).unwrap();
    assert_eq!(core.checkpoint().unwrap().size, 4);
}

#[test]
fn an_index_that_was_made_again_is_no_loss_and_said_as_such() {
    let vfs = SimVfs::new();
    let mut author = Author::new(1, "a", STREAM);
    let (mut core, _) = open_with(&vfs, options());
    grow(&mut core, &mut author, 200, NOW_MS);
    drop(core);
    let index = vfs.list(Path::new(DIR)).unwrap().into_iter().find(|name| name.ends_with(".idx")).unwrap();
    vfs.remove_file(&Path::new(DIR).join(index)).unwrap();
    let (_, opened) = open_with(&vfs, options());
    assert!(
        matches!(&opened.events[..], [StreamEvent::Damaged(StreamDamage::IndexRebuilt(_))]),
        "{opened:?}"
    );
}
