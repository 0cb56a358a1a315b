//! What opening makes of what it finds, as a table of disks.

use super::*;
use crate::storage::log::{Damage, IndexOutcome, LogError, Lost, SkipReason};

/// The active segment's file.
fn active(vfs: &SimVfs) -> PathBuf {
    files(vfs, ".log").pop().unwrap()
}

/// Writes the file with these bytes in place of those at `at`.
fn overwrite(vfs: &SimVfs, path: &Path, at: usize, bytes: &[u8]) {
    let mut whole = content(vfs, path);
    whole[at..at + bytes.len()].copy_from_slice(bytes);
    vfs.write_file(path, &whole).unwrap();
}

fn lost(offsets: std::ops::Range<u64>, records: std::ops::Range<u64>) -> Lost {
    Lost { offsets, records }
}

fn damaged(from: u64, to: u64) -> Vec<Skipped> {
    vec![Skipped { from, to, why: SkipReason::Damaged }]
}

/// Ten frames of which the watermark knows five, and five more in one group.
fn half_known(vfs: &SimVfs) -> Log {
    let mut log = filled(vfs, 5);
    log.write_watermark().unwrap();
    for n in 5..10 {
        append(&mut log, 10, 100, 1_000 + n);
    }
    log
}

const FRAME: usize = 140;

fn at(frame: usize) -> usize {
    96 + frame * FRAME
}

#[test]
fn a_torn_tail_is_cut_at_every_length() {
    for cut in 0..=5 * FRAME {
        let vfs = sim();
        drop(half_known(&vfs));
        let len = content(&vfs, &active(&vfs)).len() - cut;
        vfs.truncate_file(&active(&vfs), len as u64).unwrap();
        let (mut log, recovery) = open(&vfs);
        let whole = 10 - cut.div_ceil(FRAME) as u64;
        assert_eq!((recovery.damage.len(), log.end_offset()), (0, whole * 10), "{cut}");
        assert_eq!(recovery.cut.is_some(), !cut.is_multiple_of(FRAME), "{cut}");
        assert_eq!(append(&mut log, 1, 10, 0).start, whole * 10);
        log.sync().unwrap();
        assert_eq!(read_all(&log.reader(), 999).1, []);
        drop(log);
        assert_eq!(open_whole(&vfs).end_offset(), whole * 10 + 1);
    }
}

/// The middle of a group did not reach the disk and its end did: nobody was promised anything, and all is cut.
#[test]
fn a_hole_above_the_durable_end_is_cut_with_all_behind_it() {
    let vfs = sim();
    drop(half_known(&vfs));
    overwrite(&vfs, &active(&vfs), at(7), &[0; FRAME]);
    let (log, recovery) = open(&vfs);
    assert_eq!((recovery.damage.len(), log.end_offset()), (0, 70));
    assert_eq!(recovery.cut.unwrap().bytes, 3 * FRAME as u64);
    assert_eq!(content(&vfs, &active(&vfs)).len(), at(7));
    assert_eq!(offsets(&read_all(&log.reader(), 999).0), [0, 10, 20, 30, 40, 50, 60]);
}

/// The same bytes, but a later group was synced: its first frame proves that the hole had been durable.
#[test]
fn a_hole_below_a_later_group_is_damage_and_stays() {
    for later_is_synced_by in ["offset", "flag"] {
        let vfs = sim();
        let mut log = half_known(&vfs);
        log.sync().unwrap();
        append(&mut log, 10, 100, 2_000);
        append(&mut log, 10, 100, 2_000);
        drop(log);
        let file = active(&vfs);
        overwrite(&vfs, &file, at(7), &[0; FRAME]);
        if later_is_synced_by == "offset" {
            // Without the first frame of the later group, the second one's `synced` still tells.
            overwrite(&vfs, &file, at(10), &[0; FRAME]);
        }
        let before = content(&vfs, &file);
        let (mut log, recovery) = open(&vfs);
        assert_eq!(recovery.damage[0], Damage::Corrupt(lost(70..80, 7..8)));
        assert_eq!(recovery.cut, None);
        assert_eq!(content(&vfs, &file), before, "the damaged segment is as it was");
        let end = log.end_offset();
        assert_eq!(end, if later_is_synced_by == "offset" { 100 } else { 120 });
        assert_ne!(active(&vfs), file, "new frames go to a new segment");
        assert_eq!(append(&mut log, 1, 10, 0).start, end);
        log.sync().unwrap();
        let (frames, skipped) = read_all(&log.reader(), 300);
        assert_eq!(skipped, damaged(70, 80));
        assert_eq!(frames.len() as u64, end / 10);
        drop(log);
        let (log, again) = open(&vfs);
        assert_eq!(again.damage, [Damage::Corrupt(lost(70..80, 7..8))]);
        assert_eq!(log.end_offset(), end + 1);
        offsets(&read_all(&log.reader(), 300).0);
    }
}

#[test]
fn a_frame_without_offsets_is_known_to_have_been_durable() {
    let vfs = sim();
    let mut log = filled(&vfs, 2);
    append(&mut log, 0, 100, 0);
    log.sync().unwrap();
    append(&mut log, 10, 100, 0);
    log.sync().unwrap();
    drop(log);
    overwrite(&vfs, &active(&vfs), at(2) + 60, b"!");
    let (log, recovery) = open(&vfs);
    assert_eq!(recovery.damage, [Damage::Corrupt(lost(20..20, 2..3))]);
    assert_eq!((log.end_offset(), log.end_record()), (30, 4));
    assert_eq!(offsets(&read_all(&log.reader(), 999).0), [0, 10, 20]);
}

#[test]
fn a_log_that_ends_below_its_watermark_is_truncated_and_goes_on_at_it() {
    for frames in 0..10_u64 {
        for rest in [0, 1, 39, 41, 139] {
            let vfs = sim();
            let mut log = filled(&vfs, 10);
            log.set_state(b"ten".to_vec());
            log.write_watermark().unwrap();
            drop(log);
            let file = active(&vfs);
            vfs.truncate_file(&file, (at(frames as usize) + rest) as u64).unwrap();
            let before = content(&vfs, &file);
            let (mut log, recovery) = open(&vfs);
            let gone = lost(frames * 10..100, frames..10);
            let expected = if rest == 0 { Damage::Truncated(gone) } else { Damage::Corrupt(gone) };
            assert_eq!(recovery.damage, [expected], "{frames} {rest}");
            assert_eq!(recovery.state.unwrap().offset, 100);
            assert_eq!(content(&vfs, &file), before);
            assert_eq!(append(&mut log, 10, 100, 0), 100..110);
            log.sync().unwrap();
            for log in [log, open(&vfs).0] {
                let (read, skipped) = read_all(&log.reader(), 300);
                assert_eq!(skipped, damaged(frames * 10, 100));
                assert_eq!(offsets(&read), (0..frames).chain([10]).map(|n| n * 10).collect::<Vec<_>>());
                assert_eq!(log.end_record(), 11);
            }
        }
    }
}

#[test]
fn a_missing_active_segment_is_truncation() {
    let vfs = sim();
    let mut log = filled(&vfs, 40);
    log.write_watermark().unwrap();
    drop(log);
    vfs.remove_file(&active(&vfs)).unwrap();
    let (mut log, recovery) = open(&vfs);
    assert_eq!(recovery.damage, [Damage::Truncated(lost(280..400, 28..40))]);
    assert_eq!(append(&mut log, 1, 10, 0).start, 400);
    log.sync().unwrap();
    assert_eq!(read_all(&log.reader(), 999).1, damaged(280, 400));
    drop(log);
    assert_eq!(open(&vfs).1.damage, [Damage::Missing(lost(280..400, 28..40))]);
}

#[test]
fn everything_missing_but_the_watermark_is_truncation() {
    let vfs = sim();
    let mut log = filled(&vfs, 40);
    log.write_watermark().unwrap();
    drop(log);
    for file in files(&vfs, ".log").into_iter().chain(files(&vfs, ".idx")) {
        vfs.remove_file(&file).unwrap();
    }
    let (log, recovery) = open(&vfs);
    assert_eq!(recovery.damage, [Damage::Truncated(lost(0..400, 0..40))]);
    assert_eq!((log.end_offset(), log.end_record()), (400, 40));
    assert_eq!(read_all(&log.reader(), 999).1, damaged(0, 400));
}

#[test]
fn a_missing_middle_or_first_segment_is_a_hole() {
    for (missing, gone) in [(0, 0..28), (1, 28..56)] {
        let vfs = sim();
        drop(filled(&vfs, 90));
        vfs.remove_file(&files(&vfs, ".log")[missing]).unwrap();
        for _ in 0..2 {
            let (log, recovery) = open(&vfs);
            let offsets = gone.start * 10..gone.end * 10;
            assert_eq!(recovery.damage, [Damage::Missing(lost(offsets.clone(), gone.clone()))]);
            let (frames, skipped) = read_all(&log.reader(), 999);
            assert_eq!((frames.len(), skipped), (62, damaged(offsets.start, offsets.end)));
            // The index file is still there.
            let digests = log.reader().digests(0..90).unwrap();
            assert!(digests.iter().all(Option::is_some));
        }
    }
}

#[test]
fn a_shorter_sealed_segment_is_truncated() {
    for (len, whole) in [(at(20), 20), (at(20) + 50, 20), (96, 0), (10, 0), (0, 0)] {
        let vfs = sim();
        drop(filled(&vfs, 90));
        vfs.truncate_file(&files(&vfs, ".log")[1], len as u64).unwrap();
        for _ in 0..2 {
            let (log, recovery) = open(&vfs);
            let from = 280 + whole * 10;
            let gone = Damage::Truncated(lost(from..560, from / 10..56));
            assert_eq!(recovery.damage.iter().filter(|damage| **damage == gone).count(), 1, "{len}");
            assert_eq!(recovery.damage.len(), if len < 96 { 2 } else { 1 });
            assert_eq!(read_all(&log.reader(), 999).1, damaged(from, 560));
            assert!(log.reader().digests(0..90).unwrap().iter().all(Option::is_some));
        }
    }
}

#[test]
fn a_lost_or_bad_index_is_made_again() {
    for (garbage, with_marks) in [(None, true), (Some(vec![7; 300]), true), (None, false)] {
        let vfs = sim();
        let log = filled(&vfs, 90);
        let digests = log.reader().digests(0..90).unwrap();
        drop(log);
        let path = files(&vfs, ".idx")[1].clone();
        match garbage {
            None => vfs.remove_file(&path).unwrap(),
            Some(bytes) => vfs.write_file(&path, &bytes).unwrap(),
        }
        if !with_marks {
            vfs.remove_file(&files(&vfs, ".a")[0]).unwrap();
            vfs.remove_file(&files(&vfs, ".b")[0]).unwrap();
        }
        let (log, recovery) = open(&vfs);
        let rebuilt = Damage::Index { base_offset: 280, outcome: IndexOutcome::Rebuilt };
        assert!(recovery.damage.contains(&rebuilt));
        assert_eq!(recovery.damage.contains(&Damage::Watermarks), !with_marks);
        assert_eq!(log.reader().digests(0..90).unwrap(), digests);
        assert_eq!(read_all(&log.reader(), 999).0.len(), 90);
        drop(log);
        open_whole(&vfs);
    }
}

/// With a damaged frame and no index, records behind the damage are counted from the segment's end.
#[test]
fn records_keep_their_numbers_behind_damage() {
    let vfs = sim();
    drop(filled(&vfs, 90));
    overwrite(&vfs, &files(&vfs, ".log")[1], at(3), &[0xff; 2 * FRAME]);
    vfs.remove_file(&files(&vfs, ".idx")[1]).unwrap();
    for _ in 0..2 {
        let (log, recovery) = open(&vfs);
        assert!(recovery.damage.contains(&Damage::Corrupt(lost(310..330, 31..33))));
        let (frames, skipped) = read_all(&log.reader(), 999);
        assert_eq!(skipped, damaged(310, 330));
        assert!(frames.iter().all(|frame| frame.record * 10 == frame.offset));
    }
}

#[test]
fn with_both_watermarks_gone_frames_tell_what_was_durable() {
    let vfs = sim();
    let mut log = filled(&vfs, 40);
    log.set_state(b"forty".to_vec());
    log.write_watermark().unwrap();
    for n in 0..5 {
        append(&mut log, 10, 100, n);
    }
    drop(log);
    for name in [".a", ".b"] {
        let file = files(&vfs, name)[0].clone();
        overwrite(&vfs, &file, 50, b"garbage");
    }
    overwrite(&vfs, &active(&vfs), at(2), &[0; FRAME]);
    let (log, recovery) = open(&vfs);
    assert!(recovery.damage.contains(&Damage::Watermarks));
    assert!(recovery.damage.contains(&Damage::Corrupt(lost(300..310, 30..31))));
    assert_eq!(log.end_offset(), 450);
    assert_eq!(read_all(&log.reader(), 999).1, damaged(300, 310));
    drop(log);
    // They were written again.
    assert_eq!(open(&vfs).1.damage, [Damage::Corrupt(lost(300..310, 30..31))]);
}

#[test]
fn swapped_segments_are_not_served_and_come_back_when_swapped_back() {
    let vfs = sim();
    let mut log = filled(&vfs, 90);
    log.write_watermark().unwrap();
    drop(log);
    let (logs, whole) = (files(&vfs, ".log"), vfs.snapshot());
    for (one, other) in [(0, 1), (1, 3)] {
        let vfs = SimVfs::from_snapshot(&whole);
        let (a, b) = (content(&vfs, &logs[one]), content(&vfs, &logs[other]));
        vfs.write_file(&logs[one], &b).unwrap();
        vfs.write_file(&logs[other], &a).unwrap();
        let (log, recovery) = open(&vfs);
        assert!(recovery.damage.contains(&Damage::Header { base_offset: one as u64 * 280 }));
        let (frames, skipped) = read_all(&log.reader(), 999);
        let served = offsets(&frames);
        let gone = |offset: u64| skipped.iter().any(|skip| (skip.from..skip.to).contains(&offset));
        for offset in (0..900).step_by(10) {
            assert!(served.contains(&offset) != gone(offset), "{offset}");
        }
        assert_eq!(log.end_offset(), 900);
        drop(log);
        vfs.write_file(&logs[one], &a).unwrap();
        vfs.write_file(&logs[other], &b).unwrap();
        let (log, _) = open(&vfs);
        assert_eq!(log.end_offset(), 900);
        if other != 3 {
            assert_eq!(read_all(&log.reader(), 999).0.len(), 90);
        }
    }
}

#[test]
fn files_that_are_not_ours_are_left_alone() {
    let vfs = sim();
    drop(filled(&vfs, 40));
    let foreign = [
        "notes.txt",
        "00000000000000000280-00000000000000000028.log.old",
        "watermark.c",
        // Even with the name of a segment, when nothing shows that it is one.
        "00000000000000000100-00000000000000000010.log",
        "00000000000000009999-00000000000000000999.log",
    ];
    for name in foreign {
        vfs.write_file(&Path::new(DIR).join(name), name.as_bytes()).unwrap();
    }
    let (log, recovery) = open(&vfs);
    let unexplained = [Damage::Header { base_offset: 100 }, Damage::Header { base_offset: 9_999 }];
    assert_eq!(recovery.damage, unexplained);
    assert_eq!((log.end_offset(), read_all(&log.reader(), 999).1), (400, vec![]));
    for name in foreign {
        assert_eq!(content(&vfs, &Path::new(DIR).join(name)), name.as_bytes());
    }
}

/// The power went while a new segment was being made.
#[test]
fn a_segment_that_was_being_made_is_made_again() {
    for len in 0..=96_u64 {
        for zeros in [false, true] {
            let vfs = sim();
            let mut log = filled(&vfs, 28);
            log.write_watermark().unwrap();
            let marks = [files(&vfs, ".a"), files(&vfs, ".b")].concat();
            let marks: Vec<_> = marks.iter().map(|mark| (mark, content(&vfs, mark))).collect();
            append(&mut log, 10, 100, 0);
            drop(log);
            for (mark, bytes) in &marks {
                vfs.write_file(mark, bytes).unwrap();
            }
            let file = active(&vfs);
            vfs.truncate_file(&file, len).unwrap();
            if zeros {
                vfs.write_file(&file, &vec![0; len as usize]).unwrap();
            }
            let mut log = open_whole(&vfs);
            assert_eq!(append(&mut log, 10, 100, 0), 280..290);
            log.sync().unwrap();
            drop(log);
            assert_eq!(read_all(&open_whole(&vfs).reader(), 999).0.len(), 29);
        }
    }
}

#[test]
fn a_destroyed_header_takes_no_frame_with_it() {
    for segment in [0, 1] {
        let vfs = sim();
        let mut log = filled(&vfs, 40);
        log.write_watermark().unwrap();
        drop(log);
        let file = files(&vfs, ".log")[segment].clone();
        overwrite(&vfs, &file, 0, &[0xaa; 96]);
        let before = content(&vfs, &file);
        for _ in 0..2 {
            let (mut log, recovery) = open(&vfs);
            assert_eq!(recovery.damage, [Damage::Header { base_offset: segment as u64 * 280 }]);
            append(&mut log, 10, 100, 0);
            log.sync().unwrap();
            assert_eq!(read_all(&log.reader(), 999).1, []);
        }
        assert_eq!(content(&vfs, &file), before);
        assert_eq!(read_all(&open(&vfs).0.reader(), 999).0.len(), 42);
    }
}

#[test]
fn a_segment_of_another_version_is_refused_untouched() {
    let vfs = sim();
    drop(filled(&vfs, 5));
    let file = active(&vfs);
    let mut bytes = content(&vfs, &file);
    bytes[11] = 2;
    let crc = crc32c::crc32c(&bytes[..92]).to_be_bytes();
    bytes[92..96].copy_from_slice(&crc);
    vfs.write_file(&file, &bytes).unwrap();
    assert!(matches!(try_open(&vfs), Err(LogError::Version { found: 2, .. })));
    assert_eq!(content(&vfs, &file), bytes);
}

#[test]
fn opening_twice_changes_nothing_the_second_time() {
    let vfs = sim();
    drop(half_known(&vfs));
    overwrite(&vfs, &active(&vfs), at(2), b"damage");
    drop(open(&vfs));
    let once = vfs.digest();
    drop(open(&vfs));
    assert_eq!(vfs.digest(), once);
}
