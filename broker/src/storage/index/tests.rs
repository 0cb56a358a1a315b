//! The index is lost, stale, cut, flipped and filled with garbage: what is then believed was written so.

use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use proptest::prelude::*;
use sealbus_protocol::batch::accept::{Durability, Receipt, RememberedBatch};
use sealbus_protocol::frame::InstanceKind;
use sealbus_protocol::identity::{Principal, Validity};
use sealbus_protocol::ids::{BusId, IncarnationId, InstanceId, Kid, PreambleDigest, StreamId};
use sealbus_protocol::policy::Name;
use sealbus_protocol::topic::Topic;

use super::error::Damage;
use super::row_index::Held;
use super::*;
use crate::vfs::OsVfs;

const BUS: BusId = BusId::new([0xb5; 16]);

fn log(number: u8) -> StreamId {
    StreamId::new([number; 16])
}

fn watermark(records: u64) -> Watermark {
    let mut digest = [0; 32];
    digest[..8].copy_from_slice(&records.to_be_bytes());
    Watermark { end_record: records, end_offset: records * 3, digest }
}

fn producer(number: u64) -> Update {
    let batch = |number| RememberedBatch {
        first_seq: number,
        next_seq: number + 1,
        digest: PreambleDigest::new([number as u8; 32]),
        receipt: Receipt { durability: Durability::Fsync, offset: Some(number) },
    };
    Update::Producer {
        key: ProducerKey {
            incarnation_id: IncarnationId::new([(number % 5) as u8; 16]),
            topic: Topic::parse(&format!("orders/{}", number % 7)).unwrap(),
        },
        entry: ProducerEntry {
            kid: Kid::new([3; 32]),
            instance_id: InstanceId::new([4; 16]),
            instance_kind: InstanceKind::Configured,
            started_ms: 5,
            key_record: number,
            window: (0..number % 64).map(batch).collect(),
            last_used_ms: number,
        },
    }
}

fn key(number: u64) -> Update {
    Update::Key {
        place: KeyPlace { kid: Kid::new([(number % 3) as u8; 32]), record: number },
        entry: KeyEntry {
            principal: Principal::parse("spiffe://acme.example/billing").unwrap(),
            validity: Validity { not_before_ms: number, not_after_ms: number + 1_000 },
        },
    }
}

fn cursor_key(number: u64) -> CursorKey {
    CursorKey { stream: log(7), consumer: Name::parse(&format!("consumer-{}", number % 4)).unwrap() }
}

fn cursor(number: u64, bytes: usize) -> Update {
    Update::Cursor { key: cursor_key(number), cursor: vec![number as u8; bytes].into() }
}

/// What a record of the scenario changes.
fn updates(record: u64) -> Vec<Update> {
    let mut updates = vec![producer(record), cursor(record, 100 + record as usize % 900)];
    updates.push(Update::Time { minute: record / 4, first_offset: record * 3 });
    if record.is_multiple_of(3) {
        updates.push(key(record));
    }
    if record % 10 == 9 {
        updates.push(Update::TimesForgottenBefore { minute: record / 8 });
        updates.push(Update::CursorForgotten { key: cursor_key(record + 1) });
        let Update::Key { place, .. } = key(record / 3 * 3) else { unreachable!() };
        updates.push(Update::KeyForgotten { place });
    }
    updates
}

fn follow(index: &dyn Index, log: &StreamId, records: std::ops::Range<u64>) {
    for record in records {
        index.apply(log, &updates(record), &watermark(record + 1)).unwrap();
    }
}

/// Everything that is kept of a log.
type Held4 =
    (Vec<(KeyPlace, KeyEntry)>, Vec<(CursorKey, Bytes)>, Vec<(ProducerKey, ProducerEntry)>, Vec<(u64, u64)>);

fn all(index: &dyn Index, log: &StreamId) -> Held4 {
    (
        index.load_keys(log).unwrap(),
        index.load_cursors(log).unwrap(),
        index.load_producers(log).unwrap(),
        index.load_times(log).unwrap(),
    )
}

/// What an index holds that has followed this many records and was never in danger.
fn reference(log: &StreamId, records: u64) -> Held4 {
    let index = MemoryIndex::fresh(&BUS);
    follow(&index, log, 0..records);
    all(&index, log)
}

/// Whatever an index holds, its rows are those of its watermark.
fn is_what_was_written(index: &dyn Index, logs: &[StreamId], records: u64) {
    for log in logs {
        let followed = index.watermark(log).unwrap().map_or(0, |watermark| watermark.end_record);
        assert!(followed <= records);
        if followed > 0 {
            assert_eq!(index.watermark(log).unwrap(), Some(watermark(followed)));
        }
        assert!(all(index, log) == reference(log, followed), "{log} after {followed} records");
    }
}

#[test]
fn what_is_applied_is_loaded() {
    let directory = tempfile::tempdir().unwrap();
    let (on_disk, opened) = open_or_rebuild(&OsVfs, &directory.path().join("index"), &BUS).unwrap();
    assert_eq!(opened, Opened::Fresh);
    let memory = MemoryIndex::fresh(&BUS);
    for index in [&on_disk as &dyn Index, &memory] {
        assert_eq!(index.watermark(&log(1)).unwrap(), None);
        assert_eq!(index.logs().unwrap(), []);
        follow(index, &log(1), 0..40);
        follow(index, &log(2), 0..3);
        assert_eq!(index.logs().unwrap(), [log(1), log(2)]);
        assert_eq!(index.watermark(&log(1)).unwrap(), Some(watermark(40)));
        let times = index.load_times(&log(1)).unwrap();
        assert_eq!(times.first(), Some(&(4, 48)));
        assert_eq!(times.last(), Some(&(9, 108)));
        assert_eq!(index.offset_by(&log(1), 3).unwrap(), None);
        assert_eq!(index.offset_by(&log(1), 7).unwrap(), Some((7, 84)));
        assert_eq!(index.offset_by(&log(1), u64::MAX).unwrap(), Some((9, 108)));
        let keys = index.load_key(&log(1), &Kid::new([0; 32])).unwrap();
        assert!(keys.iter().map(|(record, _)| *record).eq([0, 3, 6, 12, 15, 21, 24, 30, 33, 36]), "{keys:?}");
        index.flush().unwrap();
    }
    assert!(all(&on_disk, &log(1)) == all(&memory, &log(1)));
}

#[test]
fn the_lowest_offset_of_a_minute_is_kept() {
    let index = MemoryIndex::fresh(&BUS);
    let time = |minute, first_offset| Update::Time { minute, first_offset };
    index.apply(&log(1), &[time(5, 30), time(5, 20), time(5, 40), time(6, 50)], &watermark(1)).unwrap();
    index.apply(&log(1), &[time(5, 10), time(6, 60)], &watermark(2)).unwrap();
    assert_eq!(index.load_times(&log(1)).unwrap(), [(5, 10), (6, 50)]);
    let both = [time(7, 70), Update::TimesForgottenBefore { minute: 8 }, time(8, 80)];
    index.apply(&log(1), &both, &watermark(3)).unwrap();
    assert_eq!(index.load_times(&log(1)).unwrap(), [(8, 80)]);
}

#[test]
fn a_log_that_is_cleared_is_followed_anew() {
    let index = MemoryIndex::fresh(&BUS);
    follow(&index, &log(1), 0..9);
    follow(&index, &log(2), 0..9);
    let error = index.apply(&log(1), &[], &watermark(8)).unwrap_err();
    assert!(matches!(error, IndexError::Backwards { kept: 9, given: 8 }), "{error}");
    index.clear(&log(1)).unwrap();
    assert_eq!(index.logs().unwrap(), [log(2)]);
    follow(&index, &log(1), 0..3);
    is_what_was_written(&index, &[log(1), log(2)], 9);
}

#[test]
fn an_update_that_is_refused_changes_nothing() {
    let index = MemoryIndex::fresh(&BUS);
    follow(&index, &log(1), 0..9);
    let before = index.snapshot();
    let error = index.apply(&log(1), &[key(100), cursor(9, LARGE + 1)], &watermark(10)).unwrap_err();
    assert!(matches!(error, IndexError::TooLarge { .. }), "{error}");
    assert!(index.snapshot() == before);
}

#[test]
fn every_flipped_bit_and_every_lost_row_is_noticed() {
    let index = MemoryIndex::fresh(&BUS);
    follow(&index, &log(1), 0..6);
    follow(&index, &log(2), 0..2);
    let whole = index.snapshot();
    assert!(matches!(MemoryIndex::reopen(whole.clone(), &BUS), Ok((_, Held::Rows))));
    for bit in 0..whole.bits() {
        let flipped = whole.with_bit_flipped(bit);
        assert!(flipped != whole, "bit {bit}");
        let error = MemoryIndex::reopen(flipped, &BUS).map(drop).unwrap_err();
        assert!(matches!(error, IndexError::Damaged { .. }), "bit {bit}: {error}");
    }
    for row in 0..whole.rows() {
        let error = MemoryIndex::reopen(whole.without_row(row), &BUS).map(drop).unwrap_err();
        assert!(matches!(error, IndexError::Damaged { .. }), "row {row}: {error}");
    }
    let other_bus = MemoryIndex::reopen(whole, &BusId::new([1; 16])).map(drop).unwrap_err();
    assert!(matches!(other_bus, IndexError::Damaged { what: Damage::OtherBus }), "{other_bus}");
}

#[test]
fn a_row_that_was_there_before_is_noticed() {
    let index = MemoryIndex::fresh(&BUS);
    follow(&index, &log(1), 0..6);
    let old = index.snapshot();
    index.apply(&log(1), &[Update::CursorForgotten { key: cursor_key(1) }], &watermark(7)).unwrap();
    let new = index.snapshot();
    // A watermark that came through a crash without the rows that it was written with, and the reverse.
    for (rows, watermark_of) in [(&old, &new), (&new, &old)] {
        let mixed = mix(rows, watermark_of);
        assert!(mixed != *rows && mixed != *watermark_of);
        let error = MemoryIndex::reopen(mixed, &BUS).map(drop).unwrap_err();
        assert!(matches!(error, IndexError::Damaged { what: Damage::Tally }), "{error}");
    }
}

fn mix(rows: &MemorySnapshot, watermark_of: &MemorySnapshot) -> MemorySnapshot {
    let mut mixed = rows.clone();
    mixed.take_row_of(watermark_of, &rows::RowKey::Watermark.encode(&log(1)));
    mixed
}

#[test]
fn a_stale_index_is_followed_further() {
    let index = MemoryIndex::fresh(&BUS);
    follow(&index, &log(1), 0..20);
    let stale = index.snapshot();
    follow(&index, &log(1), 20..50);
    let (index, _) = MemoryIndex::reopen(stale, &BUS).unwrap();
    let kept = index.watermark(&log(1)).unwrap();
    let end = LogEnd { record: 50, offset: 150 };
    let standing = Watermark::judge(kept.as_ref(), end, |record| Some(watermark(record + 1).digest));
    assert_eq!(standing, Standing::Follow { from_record: 20 });
    follow(&index, &log(1), 20..50);
    is_what_was_written(&index, &[log(1)], 50);
}

proptest! {
    /// Whatever the order and the grouping of updates: the tally is that of the rows.
    #[test]
    fn rows_and_tally_agree(records in proptest::collection::vec(0_u64..60, 1..40), group in 1_usize..5) {
        let index = MemoryIndex::fresh(&BUS);
        for (number, group) in (1..).zip(records.chunks(group)) {
            let updates: Vec<Update> = group.iter().flat_map(|record| updates(*record)).collect();
            index.apply(&log(1), &updates, &watermark(number)).unwrap();
        }
        prop_assert!(MemoryIndex::reopen(index.snapshot(), &BUS).is_ok());
    }
}

/// A directory with an index of two logs, and a copy of it from the middle of its life.
struct OnDisk {
    directory: tempfile::TempDir,
}

const RECORDS: u64 = 60;

/// Bytes of a cursor that sled keeps in a file of its own.
const LARGE: usize = 2 * 1_024 * 1_024;

impl OnDisk {
    fn new() -> Self {
        let disk = Self { directory: tempfile::tempdir().unwrap() };
        let (index, opened) = disk.open();
        assert_eq!(opened, Opened::Fresh);
        follow(&index, &log(1), 0..RECORDS / 2);
        index.flush().unwrap();
        copy(&disk.index(), &disk.path("stale"));
        follow(&index, &log(2), 0..RECORDS);
        follow(&index, &log(1), RECORDS / 2..RECORDS);
        index.apply(&log(3), &[cursor(1, LARGE)], &watermark(1)).unwrap();
        // Files as they are at some moment of being written.
        copy(&disk.index(), &disk.path("unflushed"));
        index.flush().unwrap();
        copy(&disk.index(), &disk.path("flushed"));
        drop(index);
        copy(&disk.index(), &disk.path("closed"));
        disk
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn index(&self) -> PathBuf {
        self.path("index")
    }

    fn open(&self) -> (SledIndex, Opened) {
        open_or_rebuild(&OsVfs, &self.index(), &BUS).unwrap()
    }

    /// Puts a copy in the index's place.
    fn put(&self, name: &str) {
        if self.index().exists() {
            fs::remove_dir_all(self.index()).unwrap();
        }
        copy(&self.path(name), &self.index());
    }

    /// Opens whatever is there: it is what was written, or it was moved aside and the new one is empty and works.
    fn is_sound(&self) -> Opened {
        let (index, opened) = self.open();
        match &opened {
            Opened::Kept | Opened::Fresh => {
                is_what_was_written(&index, &[log(1), log(2)], RECORDS);
                let cursors = index.load_cursors(&log(3)).unwrap();
                assert!(cursors.iter().all(|(_, cursor)| **cursor == [1; LARGE]));
            }
            Opened::MovedAside { to, .. } => {
                assert!(to.exists());
                assert_eq!(index.logs().unwrap(), []);
                follow(&index, &log(1), 0..5);
                is_what_was_written(&index, &[log(1)], RECORDS);
            }
        }
        opened
    }

    fn damaged(&self) -> Vec<String> {
        let names = fs::read_dir(self.directory.path()).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.filter(|name| name.contains("damaged")).collect();
        names.sort();
        names
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.path().is_dir() {
            copy(&entry.path(), &to.join(entry.file_name()));
        } else {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

/// The files of an index, the largest first.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { dirs.push(path) } else { files.push(path) }
        }
    }
    files.sort_by_key(|path| std::cmp::Reverse(path.metadata().unwrap().len()));
    files
}

#[test]
fn an_index_that_was_closed_or_left_open_is_kept() {
    let disk = OnDisk::new();
    for name in ["closed", "flushed", "stale"] {
        disk.put(name);
        assert_eq!(disk.is_sound(), Opened::Kept, "{name}");
        assert_eq!(disk.is_sound(), Opened::Kept, "{name}, once more");
    }
    disk.put("closed");
    let (index, _) = disk.open();
    assert_eq!(index.watermark(&log(1)).unwrap(), Some(watermark(RECORDS)));
    assert_eq!(index.load_cursors(&log(3)).unwrap().len(), 1);
    assert_eq!(disk.damaged(), [""; 0]);
}

#[test]
fn a_destroyed_index_is_made_anew() {
    let disk = OnDisk::new();
    fs::remove_dir_all(disk.index()).unwrap();
    assert_eq!(disk.is_sound(), Opened::Fresh);
    fs::remove_dir_all(disk.index()).unwrap();
    fs::create_dir(disk.index()).unwrap();
    assert_eq!(disk.is_sound(), Opened::Fresh);
    // A file where the directory should be, and somebody else's directory.
    fs::remove_dir_all(disk.index()).unwrap();
    fs::create_dir(disk.index()).unwrap();
    fs::write(disk.index().join("notes.txt"), "mine").unwrap();
    let Opened::MovedAside { to, .. } = disk.is_sound() else { panic!("it was not moved aside") };
    assert_eq!(fs::read_to_string(to.join("notes.txt")).unwrap(), "mine");
}

#[test]
fn garbage_in_every_file_is_moved_aside() {
    let disk = OnDisk::new();
    let mut random = Random(0x5ea1_b055);
    let mut garbage = |path: &Path| {
        let bytes: Vec<u8> = (0..fs::metadata(path).unwrap().len()).map(|_| random.byte()).collect();
        fs::write(path, bytes).unwrap();
    };
    for name in ["closed", "flushed"] {
        for place in 0..files(&disk.path(name)).len() {
            disk.put(name);
            let path = &files(&disk.index())[place];
            garbage(path);
            let opened = disk.is_sound();
            // A file beside these may be one that sled does not need any more.
            if ["db", "conf"].contains(&path.file_name().unwrap().to_str().unwrap()) {
                assert!(
                    matches!(opened, Opened::MovedAside { .. }),
                    "{name}, {}: {opened:?}",
                    path.display()
                );
            }
        }
        disk.put(name);
        files(&disk.index()).iter().for_each(|path| garbage(path));
        assert!(matches!(disk.is_sound(), Opened::MovedAside { .. }), "{name}");
    }
    assert_eq!(disk.damaged().len(), 3);
}

#[test]
fn every_file_cut_anywhere_is_sound() {
    let disk = OnDisk::new();
    let mut random = Random(1);
    let mut moved = 0;
    for name in ["closed", "flushed", "unflushed"] {
        for place in 0..files(&disk.path(name)).len() {
            for cut in 0..8 {
                disk.put(name);
                let path = &files(&disk.index())[place];
                let len = fs::metadata(path).unwrap().len();
                let len = if cut == 0 { 0 } else { random.below(len) };
                fs::File::options().write(true).open(path).unwrap().set_len(len).unwrap();
                moved += usize::from(matches!(disk.is_sound(), Opened::MovedAside { .. }));
            }
        }
    }
    assert!(moved > 0, "no cut was noticed");
    assert!(disk.damaged().len() <= 3, "{:?}", disk.damaged());
}

#[test]
fn flipped_and_zeroed_and_missing_parts_are_sound() {
    let disk = OnDisk::new();
    let mut random = Random(2);
    let mut moved = 0;
    for round in 0..60 {
        disk.put(["closed", "flushed", "unflushed", "closed"][round % 4]);
        let files = files(&disk.index());
        let path = &files[if round % 3 == 0 { random.below(files.len() as u64) as usize } else { 0 }];
        let mut bytes = fs::read(path).unwrap();
        let at = random.below(bytes.len() as u64) as usize;
        match round % 5 {
            0 => fs::remove_file(path).unwrap(),
            1 => bytes[at] ^= 1 << random.below(8),
            2 => bytes.iter_mut().skip(at).take(512).for_each(|byte| *byte = 0),
            3 => bytes.iter_mut().skip(at).take(4_096).for_each(|byte| *byte = random.byte()),
            _ => bytes.iter_mut().step_by(997).for_each(|byte| *byte ^= 0x10),
        }
        if path.exists() {
            fs::write(path, bytes).unwrap();
        }
        moved += usize::from(matches!(disk.is_sound(), Opened::MovedAside { .. }));
    }
    assert!(moved > 0, "no damage was noticed");
}

#[test]
fn files_of_two_moments_are_sound() {
    const PAIRS: [(&str, &str); 5] = [
        ("closed", "stale"),
        ("stale", "closed"),
        ("flushed", "stale"),
        ("stale", "flushed"),
        ("unflushed", "closed"),
    ];
    let disk = OnDisk::new();
    disk.put("unflushed");
    disk.is_sound();
    for (name, other) in PAIRS {
        for file in files(&disk.path(other)) {
            disk.put(name);
            let place = disk.index().join(file.strip_prefix(disk.path(other)).unwrap());
            fs::create_dir_all(place.parent().unwrap()).unwrap();
            fs::copy(&file, place).unwrap();
            disk.is_sound();
        }
    }
}

#[test]
fn at_most_three_damaged_ones_are_kept() {
    let disk = OnDisk::new();
    for round in 1..=6_u64 {
        disk.put("closed");
        fs::write(disk.index().join("db"), "garbage").unwrap();
        let Opened::MovedAside { to, reason } = disk.is_sound() else { panic!("it was not moved aside") };
        assert_eq!(to, disk.path(&format!("index.damaged-{round}")));
        assert!(!reason.is_empty());
    }
    assert_eq!(disk.damaged(), ["index.damaged-4", "index.damaged-5", "index.damaged-6"]);
}

#[test]
fn the_index_of_another_bus_is_moved_aside() {
    let disk = OnDisk::new();
    let (_, opened) = open_or_rebuild(&OsVfs, &disk.index(), &BusId::new([1; 16])).unwrap();
    let Opened::MovedAside { reason, .. } = opened else { panic!("it was not moved aside") };
    assert_eq!(reason, "the index is damaged: it is of another bus");
}

#[test]
fn where_nothing_can_be_made_the_error_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    let error = open_or_rebuild(&OsVfs, &file.join("index"), &BUS).map(drop).unwrap_err();
    assert!(matches!(error, IndexError::Engine { doing: "open", .. }), "{error}");
}

/// A generator with a seed: xorshift64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn byte(&mut self) -> u8 {
        (self.next() >> 32) as u8
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}
