//! Random lives of a log beside a list of what it should hold.

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Step {
    Append(Vec<(u32, usize)>),
    Sync,
    Discard,
    Trim(u64),
    Watermark,
    Reopen,
    Read(u64, usize),
}

fn step() -> impl Strategy<Value = Step> {
    let frame = (0_u32..4, prop_oneof![0_usize..200, 0_usize..3_000]);
    prop_oneof![
        6 => proptest::collection::vec(frame, 1..6).prop_map(Step::Append),
        4 => Just(Step::Sync),
        1 => Just(Step::Discard),
        1 => (0_u64..120).prop_map(Step::Trim),
        1 => Just(Step::Watermark),
        1 => Just(Step::Reopen),
        3 => (0_u64..150, 0_usize..6_000).prop_map(|(from, bytes)| Step::Read(from, bytes)),
    ]
}

/// What was appended: count and content.
#[derive(Debug, Default)]
struct Model {
    frames: Vec<(u64, u32, Vec<u8>)>,
    synced: usize,
    end: u64,
}

impl Model {
    fn synced_end(&self) -> u64 {
        self.frames.get(self.synced).map_or(self.end, |frame| frame.0)
    }
}

fn check_read(log: &Log, model: &Model, from: u64, bytes_max: usize) {
    let page = log.reader().read(from, bytes_max).unwrap();
    let start = from.max(log.first_offset());
    let mut expected = model
        .frames
        .iter()
        .take(model.synced)
        .filter(|(offset, count, _)| *count > 0 && offset + u64::from(*count) > start);
    let mut bytes = 0;
    for frame in &page.frames {
        let (offset, count, content) = expected.next().unwrap();
        assert_eq!((frame.offset, frame.count, &frame.payload[..]), (*offset, *count, content.as_slice()));
        assert_eq!(model.frames[usize::try_from(frame.record).unwrap()].0, frame.offset);
        bytes += frame.payload.len() + 40;
    }
    assert!(bytes <= bytes_max || page.frames.len() <= 1);
    match expected.next() {
        Some((offset, ..)) => assert_eq!(page.next, *offset, "a page ends at a frame"),
        None => assert_eq!(page.next, from.max(model.synced_end())),
    }
    assert!(!page.frames.is_empty() || page.next >= model.synced_end().min(page.next));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn a_log_holds_what_was_appended(steps in proptest::collection::vec(step(), 1..60)) {
        let vfs = sim();
        let (mut log, _) = open(&vfs);
        let mut model = Model::default();
        for step in steps {
            match step {
                Step::Append(frames) => {
                    let before = model.end;
                    let mut contents = Vec::new();
                    for (count, len) in &frames {
                        let content = payload(model.frames.len() as u64, *len);
                        model.frames.push((model.end, *count, content.clone()));
                        model.end += u64::from(*count);
                        contents.push((*count, content));
                    }
                    let parts: Vec<[&[u8]; 1]> = contents.iter().map(|(_, content)| [&content[..]]).collect();
                    let frames: Vec<NewFrame<'_>> = contents
                        .iter()
                        .zip(&parts)
                        .map(|((count, _), payload)| NewFrame { kind: 2, flags: 0, count: *count, time_ms: 0, payload })
                        .collect();
                    prop_assert_eq!(log.append(&frames).unwrap(), before..model.end);
                    // A roll syncs what is in front.
                    model.synced = model.synced.max(usize::try_from(log.synced_record()).unwrap());
                }
                Step::Sync => {
                    log.sync().unwrap();
                    model.synced = model.frames.len();
                }
                Step::Discard => {
                    log.discard_unsynced().unwrap();
                    model.end = model.synced_end();
                    model.frames.truncate(model.synced);
                }
                Step::Trim(before) => {
                    let report = log.trim(before).unwrap();
                    prop_assert!(report.segments == 0 || report.first_offset <= before);
                }
                Step::Watermark => log.write_watermark().unwrap(),
                Step::Reopen => {
                    drop(log);
                    log = open_whole(&vfs);
                    // What was written is still in memory after a process ends, and is kept.
                    model.synced = model.frames.len();
                }
                Step::Read(from, bytes_max) => check_read(&log, &model, from, bytes_max),
            }
            prop_assert_eq!(log.end_offset(), model.end);
            prop_assert_eq!(log.end_record(), model.frames.len() as u64);
            prop_assert_eq!(log.synced_record(), model.synced as u64);
        }
        log.sync().unwrap();
        model.synced = model.frames.len();
        drop(log);
        let log = open_whole(&vfs);
        let digests = log.reader().digests(0..u64::MAX).unwrap();
        prop_assert_eq!(digests.len(), model.frames.len());
        prop_assert!(digests.iter().all(Option::is_some));
        for from in 0..model.end {
            check_read(&log, &model, from, 500);
        }
    }
}
