//! Writing, and reading what was written.

use std::ops::ControlFlow;
use std::thread;

use super::*;
use crate::storage::log::{FRAME_PAYLOAD_BYTES_MAX, FrameRefused, LogError, SegmentPhase, SkipReason};
use crate::vfs::{Operation, OsVfs};

const ENOSPC: i32 = 28;
const EIO: i32 = 5;

#[test]
fn only_what_is_synced_is_read() {
    let vfs = sim();
    let mut log = open_whole(&vfs);
    let reader = log.reader();
    assert_eq!(append(&mut log, 3, 10, 5), 0..3);
    assert_eq!(append(&mut log, 2, 10, 6), 3..5);
    assert_eq!((reader.end_offset(), log.end_offset(), log.synced_offset()), (0, 5, 0));
    assert!(reader.read(0, 1_000).unwrap().frames.is_empty());
    log.sync().unwrap();
    let page = reader.read(1, 1_000).unwrap();
    assert_eq!((offsets(&page.frames), page.next, page.next_record), (vec![0, 3], 5, 2));
    assert_eq!((page.frames[1].record, page.frames[1].synced, page.frames[1].flags), (1, 0, 1));
    let page = reader.read(5, 1_000).unwrap();
    assert_eq!((page.frames.len(), page.next), (0, 5));
    log.show_unsynced();
    append(&mut log, 1, 10, 7);
    assert_eq!(offsets(&reader.read(5, 1_000).unwrap().frames), [5]);
}

#[test]
fn segments_roll_and_pages_go_across_them() {
    let vfs = sim();
    let log = filled(&vfs, 100);
    let segments = log.segments();
    assert_eq!(segments.len(), 4);
    assert!(segments[..3].iter().all(|segment| segment.phase == SegmentPhase::Sealed));
    assert!(segments.windows(2).all(|pair| pair[0].end_offset == pair[1].base_offset));
    assert_eq!(log.bytes(), 4 * 96 + 100 * 140);
    let expected: Vec<u64> = (0..100).map(|n| n * 10).collect();
    for bytes_max in [1, 200, 5_000, usize::MAX] {
        let (frames, skipped) = read_all(&log.reader(), bytes_max);
        assert_eq!((offsets(&frames), skipped), (expected.clone(), vec![]), "{bytes_max}");
        assert!(frames.iter().enumerate().all(|(n, frame)| frame.record == n as u64));
    }
    drop(log);
    let log = open_whole(&vfs);
    assert_eq!(log.segments(), segments);
    assert_eq!(offsets(&read_all(&log.reader(), 999).0), expected);
}

#[test]
fn frames_without_offsets_are_records_and_take_no_place() {
    let vfs = sim();
    let mut log = open_whole(&vfs);
    for n in 0..200 {
        append(&mut log, u32::from(n % 4 == 0), 20, n);
    }
    log.sync().unwrap();
    let check = |log: &Log| {
        assert_eq!((log.end_offset(), log.end_record()), (50, 200));
        assert_eq!(read_all(&log.reader(), 300).0.len(), 50);
        let mut records = Vec::new();
        log.reader()
            .scan(3, &mut |frame| {
                records.push((frame.record, frame.offset));
                ControlFlow::Continue(())
            })
            .unwrap();
        let expected: Vec<(u64, u64)> = (3..200).map(|n: u64| (n, n.div_ceil(4))).collect();
        assert_eq!(records, expected);
    };
    check(&log);
    drop(log);
    check(&open_whole(&vfs));
}

#[test]
fn time_never_goes_back_and_offsets_are_found_by_it() {
    let vfs = sim();
    let mut log = open_whole(&vfs);
    for n in 0..90_u64 {
        append(&mut log, 2, 100, if n % 10 == 9 { 5 } else { 1_000 + n * 10 });
    }
    log.sync().unwrap();
    log.write_watermark().unwrap();
    for log in [log, open_whole(&vfs)] {
        let reader = log.reader();
        let frames = read_all(&reader, 5_000).0;
        assert!(frames.is_sorted_by_key(|frame| frame.time_ms));
        for time_ms in (0..2_000).step_by(3) {
            let first =
                frames.iter().find(|frame| frame.time_ms >= time_ms).map_or(180, |frame| frame.offset);
            assert_eq!(reader.offset_at(time_ms).unwrap(), first, "{time_ms}");
        }
        assert_eq!((reader.offset_of_last(7), reader.offset_of_last(1_000)), (173, 0));
        assert_eq!(log.last_time_ms(), 1_880);
    }
}

#[test]
fn what_is_trimmed_is_skipped_and_its_digests_stay() {
    let vfs = sim();
    let mut log = filled(&vfs, 100);
    let reader = log.reader();
    let digests = reader.digests(0..u64::MAX).unwrap();
    assert_eq!(digests.len(), 100);
    assert!(digests.iter().all(Option::is_some));
    // A reader that holds the file open may finish; one that comes later is told.
    let report = log.trim(600).unwrap();
    let first = log.first_offset();
    assert_eq!((report.segments, report.first_offset, first), (2, 560, 560));
    let check = |log: &Log| {
        assert_eq!(log.reader().digests(0..100).unwrap(), digests);
        assert_eq!(log.reader().digest(3).unwrap(), digests[3]);
        let (frames, skipped) = read_all(&log.reader(), 1_000);
        assert_eq!(skipped, [Skipped { from: 0, to: first, why: SkipReason::Trimmed }]);
        assert_eq!(offsets(&frames), (56..100).map(|n| n * 10).collect::<Vec<_>>());
        assert_eq!(log.reader().offset_at(0).unwrap(), first);
    };
    check(&log);
    assert_eq!((files(&vfs, ".log").len(), files(&vfs, ".idx").len()), (2, 3));
    drop(log);
    check(&open_whole(&vfs));
}

#[test]
fn the_state_of_the_owner_comes_back_with_its_place() {
    let vfs = sim();
    let (mut log, recovery) = open(&vfs);
    assert_eq!(recovery.state, None);
    append(&mut log, 4, 10, 0);
    log.sync().unwrap();
    log.set_state(b"after four".to_vec());
    log.write_watermark().unwrap();
    append(&mut log, 4, 10, 0);
    log.sync().unwrap();
    log.set_state(vec![0; 4_000]);
    let refused = log.write_watermark();
    assert!(matches!(refused, Err(LogError::Frame(FrameRefused::StateTooLong { bytes: 4_000 }))));
    drop(log);
    let state = open(&vfs).1.state.unwrap();
    assert_eq!((state.bytes.as_slice(), state.offset, state.record), (b"after four".as_slice(), 4, 1));
}

#[test]
fn what_cannot_be_written_is_refused_and_changes_nothing() {
    let vfs = sim();
    let mut log = open_whole(&vfs);
    let long = vec![0; FRAME_PAYLOAD_BYTES_MAX + 1];
    let mut refuse = |flags, payload: &[u8]| {
        let good = NewFrame { kind: 1, flags: 0, count: 1, time_ms: 0, payload: &[b"good"] };
        log.append(&[good, NewFrame { flags, payload: &[payload], ..good }]).unwrap_err()
    };
    assert!(matches!(refuse(0, &long), LogError::Frame(FrameRefused::TooLong { .. })));
    assert!(matches!(refuse(0x80, b"b"), LogError::Frame(FrameRefused::ReservedFlag)));
    assert_eq!(log.append(&[]).unwrap(), 0..0);
    assert_eq!((log.end_offset(), log.poisoned()), (0, None));
    let largest = vec![7; FRAME_PAYLOAD_BYTES_MAX];
    log.append(&[NewFrame { kind: 1, flags: 0, count: 1, time_ms: 0, payload: &[&largest] }]).unwrap();
    log.sync().unwrap();
    assert_eq!(log.reader().read(0, 1).unwrap().frames[0].payload, largest);
    drop(log);
    assert_eq!(open_whole(&vfs).reader().read(0, 1).unwrap().frames[0].payload, largest);
}

#[test]
fn a_failed_sync_stops_the_log_and_nothing_more_is_shown() {
    let vfs = sim();
    let mut log = filled(&vfs, 3);
    let reader = log.reader();
    append(&mut log, 1, 10, 0);
    vfs.fail_nth(Operation::Sync, 1, EIO);
    let error = log.sync().unwrap_err();
    assert!(!error.is_usable());
    assert!(log.poisoned().unwrap().contains("sync"));
    assert!(matches!(log.sync(), Err(LogError::Poisoned { .. })));
    assert!(matches!(log.append(&[]), Err(LogError::Poisoned { .. })));
    assert!(matches!(log.discard_unsynced(), Err(LogError::Poisoned { .. })));
    assert!(matches!(log.write_watermark(), Err(LogError::Poisoned { .. })));
    assert!(matches!(log.trim(u64::MAX), Err(LogError::Poisoned { .. })));
    assert_eq!((reader.end_offset(), read_all(&reader, 999).0.len()), (30, 3));
}

#[test]
fn a_full_disk_leaves_the_log_as_it_was() {
    for torn in [Operation::Write, Operation::TornWrite] {
        let vfs = sim();
        let mut log = filled(&vfs, 20);
        append(&mut log, 5, 50, 0);
        let before = (log.end_offset(), log.synced_offset(), log.bytes());
        vfs.fail_nth(torn, 1, ENOSPC);
        let content = payload(log.end_offset(), 500);
        let frame = NewFrame { kind: 1, flags: 0, count: 1, time_ms: 0, payload: &[&content] };
        let error = log.append(&[frame, frame]).unwrap_err();
        assert!(error.is_usable() && error.is_full(), "{error}");
        assert_eq!((log.end_offset(), log.synced_offset(), log.bytes()), before);
        append(&mut log, 7, 60, 0);
        log.sync().unwrap();
        let expected: Vec<u64> = (0..20).map(|n| n * 10).chain([200, 205]).collect();
        assert_eq!(offsets(&read_all(&log.reader(), 999).0), expected);
        drop(log);
        assert_eq!(offsets(&read_all(&open_whole(&vfs).reader(), 999).0), expected);
    }
}

/// Whichever operation of a roll finds no room, the log is as before, and goes on when there is room.
#[test]
fn a_roll_without_room_is_finished_later() {
    for operation in [Operation::Create, Operation::Write, Operation::Rename] {
        for nth in 1..=3 {
            let vfs = sim();
            let mut log = filled(&vfs, 28);
            vfs.fail_nth(operation, nth, ENOSPC);
            let content = payload(280, 100);
            let frame = [NewFrame { kind: 1, flags: 0, count: 10, time_ms: 0, payload: &[&content] }];
            if let Err(error) = log.append(&frame) {
                assert!(error.is_usable(), "{operation:?} {nth}: {error}");
                assert_eq!((log.end_offset(), log.poisoned()), (280, None));
                // A small one would fit into the old segment, and must not go there any more.
                append(&mut log, 10, 1, 0);
            }
            log.sync().unwrap();
            assert_eq!(log.segments().len(), 2, "{operation:?} {nth}");
            drop(log);
            let log = open_whole(&vfs);
            assert_eq!(log.end_offset(), 290);
            assert_eq!(read_all(&log.reader(), 999).0.len(), 29);
        }
    }
}

#[test]
fn what_is_discarded_does_not_come_back() {
    let vfs = sim();
    let mut log = filled(&vfs, 2);
    append(&mut log, 10, 300, 0);
    append(&mut log, 10, 300, 0);
    log.discard_unsynced().unwrap();
    assert_eq!((log.end_offset(), log.end_record()), (20, 2));
    append(&mut log, 3, 20, 0);
    log.sync().unwrap();
    drop(log);
    let log = open_whole(&vfs);
    assert_eq!(offsets(&read_all(&log.reader(), 999).0), [0, 10, 20]);
    assert_eq!(log.end_offset(), 23);
}

#[test]
fn the_files_of_another_log_are_refused() {
    let vfs = sim();
    drop(filled(&vfs, 40));
    let other = LogOptions { log_id: StreamId::new([3; 16]), ..options() };
    let before = vfs.digest();
    let refused = Log::open(Arc::new(vfs.clone()), Path::new(DIR), other.clone());
    assert!(matches!(refused, Err(LogError::Foreign { .. })));
    for mark in files(&vfs, ".a").into_iter().chain(files(&vfs, ".b")) {
        vfs.remove_file(&mark).unwrap();
    }
    let refused = Log::open(Arc::new(vfs.clone()), Path::new(DIR), other);
    assert!(matches!(refused, Err(LogError::Foreign { .. })));
    assert_ne!(vfs.digest(), before);
}

#[test]
fn a_segment_can_be_completed_before_it_is_full() {
    let vfs = sim();
    let mut log = filled(&vfs, 3);
    for _ in 0..2 {
        log.complete_segment().unwrap();
        assert_eq!(log.segments().len(), 2);
    }
    assert_eq!(log.trim(30).unwrap().segments, 1);
    assert_eq!((log.first_offset(), log.end_offset(), log.bytes()), (30, 30, 96));
    drop(log);
    let mut log = open_whole(&vfs);
    assert_eq!((append(&mut log, 1, 10, 0), log.end_record()), (30..31, 4));
}

/// Readers go on while the writer appends, takes back, completes segments and removes them: they never see anything
/// but frames, and never take for damage what is only gone.
#[test]
fn readers_never_see_anything_but_frames() {
    let vfs = sim();
    let mut log = open_whole(&vfs);
    log.show_unsynced();
    let readers: Vec<_> = (0..3)
        .map(|n| {
            let reader = log.reader();
            thread::spawn(move || {
                let mut from = 0;
                while reader.end_offset() < 12_000 {
                    let page = reader.read(from, 500 * n).unwrap();
                    offsets(&page.frames);
                    assert!(page.skipped.iter().all(|skip| skip.why == SkipReason::Trimmed), "{page:?}");
                    // What was taken back can make the end come nearer.
                    from = if page.next > reader.end_offset() { reader.first_offset() } else { page.next };
                }
            })
        })
        .collect();
    let mut n = 0_usize;
    while log.end_offset() < 12_000 {
        n += 1;
        append(&mut log, 10, 50 + n * 37 % 300, 0);
        match n % 11 {
            3 | 7 => log.sync().unwrap(),
            5 => log.discard_unsynced().unwrap(),
            9 => drop(log.trim(log.synced_offset().saturating_sub(1_000)).unwrap()),
            _ => {}
        }
    }
    for reader in readers {
        reader.join().unwrap();
    }
    assert_eq!(log.damage(), []);
}

#[test]
fn a_read_that_fails_once_is_tried_again_and_a_disk_that_reads_nothing_has_lost_nothing() {
    let vfs = sim();
    drop(filled(&vfs, 40));
    let log = open_whole(&vfs);
    vfs.fail_nth(Operation::Read, 1, EIO);
    assert_eq!(read_all(&log.reader(), 999).0.len(), 40);
    vfs.fail_from(Operation::Read, 1, EIO);
    for _ in 0..3 {
        assert!(log.reader().read(0, 999).is_err(), "nobody may pass over what may be read a moment later");
    }
    assert_eq!(log.damage(), []);
    vfs.heal();
    assert_eq!(read_all(&log.reader(), 999).0.len(), 40);
    vfs.fail_from(Operation::Read, 1, EIO);
    assert!(try_open(&vfs).is_err(), "what cannot be read is not judged");
}

/// A file of three pages, of which the first cannot be read and then the last.
#[test]
fn a_page_that_cannot_be_read_although_others_can_is_damage() {
    let vfs = sim();
    let options = LogOptions { segment_bytes: 64 * 1_024, ..options() };
    let (mut log, _) = Log::open(Arc::new(vfs.clone()), Path::new(DIR), options).unwrap();
    for n in 0..20 {
        append(&mut log, 1, 560, n);
    }
    log.sync().unwrap();
    // The whole stretch, then its first page alone; the last page of the file is read.
    vfs.fail_nth(Operation::Read, 1, EIO);
    vfs.fail_nth(Operation::Read, 2, EIO);
    let page = log.reader().read(0, 999_999).unwrap();
    let [skipped] = &page.skipped[..] else { panic!("{:?}", page.skipped) };
    assert_eq!((skipped.from, skipped.to), (0, 7), "the frames of one page, and the one that ends behind it");
    assert_eq!(offsets(&page.frames), (7..20).collect::<Vec<u64>>());
    assert_eq!(log.damage().len(), 1);
    assert_eq!(log.reader().read(0, 999_999).unwrap().frames.len(), 20);
}

#[test]
fn it_works_on_the_files_of_the_system() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("streams/log");
    let reopen = || Log::open(Arc::new(OsVfs), &path, options()).unwrap();
    let (mut log, _) = reopen();
    for n in 0..100 {
        append(&mut log, 10, 100, n);
    }
    log.sync().unwrap();
    log.trim(300).unwrap();
    drop(log);
    let (log, recovery) = reopen();
    assert_eq!((recovery.damage.len(), log.end_offset(), log.first_offset()), (0, 1_000, 280));
    assert_eq!(offsets(&read_all(&log.reader(), 999).0).len(), 72);
    assert!(log.reader().digests(0..100).unwrap().iter().all(Option::is_some));
    let shared = std::fs::read_dir(&path).unwrap().count();
    assert_eq!(shared, 2 + 3 + 3, "watermarks, segments, index files");
}
