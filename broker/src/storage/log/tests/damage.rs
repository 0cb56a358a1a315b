//! Every single bit that turns over: nothing bad is served, what is not touched is served, and what is lost is said.

use std::ops::ControlFlow;

use super::*;
use crate::storage::log::{Damage, IndexOutcome};
use crate::vfs::Operation;

/// A small log with three segments, cleanly written.
fn small() -> (SimVfs, Vec<u64>) {
    let vfs = sim();
    let mut log = filled(&vfs, 60);
    log.set_state(b"state".to_vec());
    log.write_watermark().unwrap();
    drop(log);
    (vfs, (0..60).map(|n| n * 10).collect())
}

/// Opens, reads everything, and gives the offsets that were lost. Checks all that must hold whatever was flipped.
fn inspect(vfs: &SimVfs, all: &[u64]) -> (Vec<u64>, Vec<Damage>) {
    let (mut log, _) = open(vfs);
    let (frames, skipped) = read_all(&log.reader(), 3_000);
    let served = offsets(&frames);
    assert!(frames.iter().all(|frame| frame.record * 10 == frame.offset));
    let lost: Vec<u64> = all.iter().copied().filter(|offset| !served.contains(offset)).collect();
    for offset in &lost {
        assert!(
            skipped.iter().any(|skip| skip.from <= *offset && *offset < skip.to),
            "{offset} was not said"
        );
    }
    for skip in &skipped {
        assert!(
            (skip.from..skip.to).step_by(10).all(|offset| lost.contains(&offset)),
            "{skip:?} says too much"
        );
    }
    assert_eq!(log.end_offset(), 600, "offsets stay");
    assert_eq!(append(&mut log, 10, 100, 0), 600..610);
    (lost, log.damage())
}

/// Flips bits of a file, each on a copy of the log. Every bit of what decides about others; of frames, enough of each.
fn flip_each(path: &Path, vfs: &SimVfs, all: &[u64], step: usize, check: impl Fn(u64, &[u64], &[Damage])) {
    let whole = vfs.snapshot();
    let bits = content(vfs, path).len() as u64 * 8;
    for bit in (0..bits).step_by(step) {
        let vfs = SimVfs::from_snapshot(&whole);
        vfs.flip_bit(path, bit).unwrap();
        let (lost, damage) = inspect(&vfs, all);
        check(bit, &lost, &damage);
    }
}

/// A flipped bit of a segment loses the frame that it is in, and is reported.
#[test]
fn a_flipped_bit_of_a_segment_loses_its_frame_and_no_other() {
    let (vfs, all) = small();
    let segments = files(&vfs, ".log");
    assert_eq!(segments.len(), 3);
    for (segment, path) in segments.iter().enumerate() {
        let base = segment as u64 * 280;
        flip_each(path, &vfs, &all, 7, |bit, lost, damage| {
            assert_eq!(damage.len(), 1, "{bit} {damage:?}");
            match (bit / 8).checked_sub(96) {
                None => {
                    assert_eq!((lost, &damage[0]), (&[][..], &Damage::Header { base_offset: base }));
                }
                Some(within) => {
                    let offset = base + within / 140 * 10;
                    assert_eq!(lost, [offset], "{bit}");
                    assert!(
                        matches!(&damage[0], Damage::Corrupt(lost) if lost.offsets == (offset..offset + 10))
                    );
                }
            }
        });
    }
}

/// The same when the power went before the watermark was written again: then what frames say about each other tells.
#[test]
fn a_flipped_bit_above_the_watermark_loses_its_frame_and_no_other() {
    let vfs = sim();
    drop(filled(&vfs, 60));
    let all: Vec<u64> = (0..60).map(|n| n * 10).collect();
    let path = files(&vfs, ".log")[2].clone();
    let whole = vfs.snapshot();
    // The very last frame cannot be told from one that was being written.
    for bit in (96 * 8..(96 + 3 * 140) * 8).step_by(3) {
        let vfs = SimVfs::from_snapshot(&whole);
        vfs.flip_bit(&path, bit).unwrap();
        let (lost, damage) = inspect(&vfs, &all);
        assert_eq!(lost, [560 + (bit / 8 - 96) / 140 * 10], "{bit}");
        assert_eq!(damage.len(), 1);
    }
}

#[test]
fn a_flipped_bit_of_an_index_loses_nothing() {
    let (vfs, all) = small();
    let digests = open_whole(&vfs).reader().digests(0..60).unwrap();
    let whole = vfs.snapshot();
    for path in files(&vfs, ".idx") {
        for bit in (0..content(&vfs, &path).len() as u64 * 8).step_by(5) {
            let vfs = SimVfs::from_snapshot(&whole);
            vfs.flip_bit(&path, bit).unwrap();
            let log = open(&vfs).0;
            assert_eq!(log.reader().digests(0..60).unwrap(), digests, "{bit}");
            log.reader().scrub().unwrap();
            assert_eq!(log.damage().len(), 1, "{bit}");
            drop(log);
            assert_eq!(inspect(&vfs, &all).0, Vec::<u64>::new());
        }
    }
}

#[test]
fn a_flipped_bit_of_a_watermark_loses_nothing() {
    let (vfs, all) = small();
    for path in [files(&vfs, ".a"), files(&vfs, ".b")].concat() {
        flip_each(&path, &vfs, &all, 31, |bit, lost, damage| {
            assert_eq!((lost, damage), (&[][..], &[][..]), "{bit}");
        });
    }
}

/// Damage that comes while the log is open is found by whoever reads it, and said once.
#[test]
fn damage_is_found_when_it_is_read_and_said_once() {
    let (vfs, _) = small();
    let log = open_whole(&vfs);
    let reader = log.reader();
    vfs.flip_bit(&files(&vfs, ".log")[1], (96 + 140 * 5 + 60) * 8).unwrap();
    vfs.flip_bit(&files(&vfs, ".log")[2], (96 + 140 + 60) * 8).unwrap();
    assert_eq!(log.take_new_damage(), []);
    for _ in 0..2 {
        assert_eq!(read_all(&reader, 500).0.len(), 58);
    }
    let new = reader.take_new_damage();
    let ranges: Vec<_> = new.iter().map(Damage::offsets).collect();
    assert_eq!(ranges, [330..340, 570..580]);
    assert_eq!(log.take_new_damage(), []);
    let report = reader.scrub().unwrap();
    assert_eq!((report.frames, report.segments, report.damage), (58, 3, new));
    assert_eq!(report.bytes, 58 * 140);
}

/// A payload made of headers does not make the search for the next frame long, and is not taken for frames: neither when
/// the growing segment is gone through nor when a sealed one is read.
#[test]
fn headers_in_a_payload_are_not_taken_for_frames() {
    let mut fake = Vec::new();
    for _ in 0..40_000 {
        fake.extend_from_slice(&(1_900_000_u32).to_be_bytes());
        fake.extend_from_slice(&[1, 2, 3, 4, 0x5e, 0xa1, 1, 0, 0, 0, 0, 1]);
        fake.extend_from_slice(&20_u64.to_be_bytes());
        fake.extend_from_slice(&10_u64.to_be_bytes());
    }
    for segment_bytes in [4_096, 64 * 1_024 * 1_024] {
        let vfs = sim();
        let options = LogOptions { segment_bytes, ..options() };
        let (mut log, _) = Log::open(Arc::new(vfs.clone()), Path::new(DIR), options).unwrap();
        append(&mut log, 10, 100, 0);
        log.sync().unwrap();
        let fakes: Vec<&[u8]> = vec![&fake, &[0; 700_000]];
        log.append(&[NewFrame { kind: 1, flags: 0, count: 10, time_ms: 0, payload: &fakes }]).unwrap();
        log.sync().unwrap();
        append(&mut log, 10, 100, 0);
        log.sync().unwrap();
        log.write_watermark().unwrap();
        drop(log);
        let segments = files(&vfs, ".log");
        let (path, at) = match segments.as_slice() {
            [one] => (one, 96 + 140),
            [_, second, ..] => (second, 96),
            [] => unreachable!("there is a segment"),
        };
        vfs.flip_bit(path, (at + 33) * 8).unwrap();
        let (log, _) = open(&vfs);
        assert_eq!(offsets(&read_all(&log.reader(), 999).0), [0, 20]);
        let damage = log.damage();
        assert!(
            matches!(damage.as_slice(), [Damage::Corrupt(lost)] if lost.offsets == (10..20)),
            "{damage:?}"
        );
    }
}

/// A disk that has become read-only still gives what is on it: nothing that reads asks for the right to write.
#[test]
fn everything_is_read_from_a_disk_that_takes_no_writes() {
    const EROFS: i32 = 30;
    let (vfs, all) = small();
    let log = open_whole(&vfs);
    for operation in [Operation::OpenData, Operation::Create, Operation::Write, Operation::Rename] {
        vfs.fail_from(operation, 1, EROFS);
    }
    let reader = log.reader();
    assert_eq!(offsets(&read_all(&reader, 999).0), all);
    assert!(reader.digests(0..60).unwrap().iter().all(Option::is_some));
    assert_eq!(reader.scrub().unwrap().damage, []);
}

/// A scrub says what it found and leaves it: it is the next opening that makes an index again, and says so.
#[test]
fn a_scrub_stops_when_it_is_told_and_mends_nothing() {
    let (vfs, _) = small();
    let log = open_whole(&vfs);
    let path = files(&vfs, ".idx")[0].clone();
    vfs.flip_bit(&path, 100).unwrap();
    let bad = content(&vfs, &path);
    let mut asked = 0;
    let report = log.reader().scrub_while(&mut || {
        asked += 1;
        ControlFlow::Break(())
    });
    assert_eq!((asked, report.unwrap().frames), (1, 0));
    log.reader().scrub().unwrap();
    let left = Damage::Index { base_offset: 0, outcome: IndexOutcome::Left };
    assert_eq!((log.take_new_damage(), content(&vfs, &path) == bad), (vec![left], true));
    drop(log);
    let rebuilt = Damage::Index { base_offset: 0, outcome: IndexOutcome::Rebuilt };
    assert_eq!(open(&vfs).1.damage, [rebuilt]);
}
