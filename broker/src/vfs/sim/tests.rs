//! Small scripts whose crash states are known, each in full.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;

use super::{Limits, SimVfs};
use crate::vfs::fault::Operation;
use crate::vfs::replace::replace;
use crate::vfs::traits::{DataFile, Vfs};

const EIO: i32 = 5;
const ENOSPC: i32 = 28;

/// A sector for each letter; a dot is one of zeros.
fn sectors(letters: &str) -> Vec<u8> {
    letters.bytes().flat_map(|letter| [if letter == b'.' { 0 } else { letter }; 512]).collect()
}

/// The letters of whole sectors.
fn letters(bytes: &[u8]) -> String {
    assert_eq!(bytes.len() % 512, 0, "only whole sectors are written");
    let letters = bytes.chunks(512).map(|sector| {
        assert!(sector.iter().all(|byte| *byte == sector[0]), "no sector is torn");
        if sector[0] == 0 { '.' } else { char::from(sector[0]) }
    });
    letters.collect()
}

type Files = BTreeMap<String, String>;

fn files(of: &[(&str, &str)]) -> Files {
    of.iter().map(|(path, letters)| ((*path).to_owned(), (*letters).to_owned())).collect()
}

fn files_of(sim: &SimVfs) -> Files {
    let read = |path: &Path| letters(&sim.read(path, u64::MAX).unwrap());
    sim.files().iter().map(|path| (path.display().to_string(), read(path))).collect()
}

/// All states after the last operation.
fn states(sim: &SimVfs) -> BTreeSet<Files> {
    states_after(sim, sim.operations())
}

fn states_after(sim: &SimVfs, operations: usize) -> BTreeSet<Files> {
    let (mut states, mut digests) = (BTreeSet::new(), BTreeSet::new());
    for (description, state) in sim.crash_states(operations, Limits::thorough()) {
        assert_eq!(description.operations(), operations);
        assert!(digests.insert(state.digest()), "each state comes once: {description}");
        states.insert(files_of(&state));
    }
    states
}

fn sets(of: &[&[(&str, &str)]]) -> BTreeSet<Files> {
    of.iter().map(|state| files(state)).collect()
}

/// The states of the only file, `/f`.
fn contents(of: &[&str]) -> BTreeSet<Files> {
    of.iter().map(|letters| files(&[("/f", letters)])).collect()
}

/// A disk with `/f` on it for good.
fn disk_with(letters: &str) -> (SimVfs, Arc<dyn DataFile>) {
    let sim = SimVfs::new();
    sim.write_file(Path::new("/f"), &sectors(letters)).unwrap();
    let file = sim.open(Path::new("/f")).unwrap();
    (sim, file)
}

fn write(file: &dyn DataFile, sector: u64, letters: &str) {
    file.write_at(sector * 512, &[IoSlice::new(&sectors(letters))]).unwrap();
}

#[test]
fn an_unsynced_write_is_there_or_not_or_torn_at_every_sector() {
    let (sim, file) = disk_with("oooo");
    assert_eq!(states(&sim), contents(&["oooo"]));
    write(&*file, 0, "nnnn");
    let torn = ["nooo", "nnoo", "nnno", "onnn", "oonn", "ooon", "nonn", "nnon", "noon"];
    let mut expected = contents(&torn);
    expected.extend(contents(&["oooo", "nnnn"]));
    assert_eq!(states(&sim), expected);
    file.sync_data().unwrap();
    assert_eq!(states(&sim), contents(&["nnnn"]), "what was synced is there");
    assert_eq!(states_after(&sim, 2), expected, "a sync that is cut off leaves what there was before it");
    assert_eq!(states_after(&sim, 1), contents(&["oooo"]));
}

#[test]
fn sectors_are_those_of_the_file_and_not_of_the_write() {
    let (sim, file) = disk_with("oo");
    // It begins and ends in the middle of a sector.
    file.write_at(256, &[IoSlice::new(&[b'n'; 512])]).unwrap();
    let found: BTreeSet<Vec<u8>> = sim
        .crash_states(sim.operations(), Limits::thorough())
        .map(|(_, state)| state.read(Path::new("/f"), 2048).unwrap())
        .collect();
    let bytes = |first: u8, second: u8| [[b'o'; 256], [first; 256], [second; 256], [b'o'; 256]].concat();
    let expected = [bytes(b'o', b'o'), bytes(b'n', b'n'), bytes(b'n', b'o'), bytes(b'o', b'n')];
    assert_eq!(found, BTreeSet::from(expected));
}

#[test]
fn a_file_that_grows_may_have_its_length_without_its_bytes() {
    let (sim, file) = disk_with("o");
    write(&*file, 1, "nn");
    assert_eq!(states(&sim), contents(&["o", "onn", "on", "on.", "o.n", "o.."]));
    file.sync_data().unwrap();
    assert_eq!(states(&sim), contents(&["onn"]));
}

#[test]
fn a_long_write_is_torn_at_blocks_too() {
    let (sim, file) = disk_with(&"o".repeat(32));
    write(&*file, 0, &"n".repeat(32));
    let few = Limits { borders_max: 0, ..Limits::thorough() };
    let found: BTreeSet<Files> =
        sim.crash_states(sim.operations(), few).map(|(_, state)| files_of(&state)).collect();
    let blocks = ["oooo", "nnnn", "nooo", "nnoo", "nnno", "onnn", "oonn", "ooon", "nonn", "nnon", "noon"];
    let expected: Vec<String> = blocks
        .iter()
        .map(|blocks| blocks.chars().map(|letter| letter.to_string().repeat(8)).collect())
        .collect();
    assert_eq!(found, expected.iter().map(|letters| files(&[("/f", letters)])).collect());
}

#[test]
fn unsynced_writes_come_in_any_order() {
    let (sim, file) = disk_with("oooo");
    for (sector, letter) in ["a", "b", "c", "d"].into_iter().enumerate() {
        write(&*file, sector as u64, letter);
    }
    let whole = ["oooo", "abcd"];
    let prefixes = ["aooo", "aboo", "abco"];
    let without_one = ["obcd", "aocd", "abod", "abco"];
    let alone = ["aooo", "oboo", "ooco", "oood"];
    let mut expected = contents(&whole);
    expected.extend([prefixes.as_slice(), &without_one, &alone].into_iter().flat_map(contents));
    assert_eq!(states(&sim), expected);
}

#[test]
fn the_length_of_several_writes_may_be_there_without_their_bytes() {
    let (sim, file) = disk_with("o");
    write(&*file, 1, "a");
    write(&*file, 2, "b");
    assert_eq!(states(&sim), contents(&["o", "oab", "oa", "o.b", "oa.", "o..", "o."]));
}

#[test]
fn files_are_written_back_apart() {
    let (sim, file) = disk_with("o");
    sim.write_file(Path::new("/g"), &sectors("o")).unwrap();
    let other = sim.open(Path::new("/g")).unwrap();
    write(&*file, 0, "a");
    write(&*other, 0, "b");
    write(&*other, 0, "c");
    write(&*file, 0, "d");
    let found = states(&sim);
    for (f, g) in [("o", "o"), ("a", "o"), ("a", "b"), ("a", "c"), ("d", "c"), ("o", "c"), ("d", "o")] {
        assert!(found.contains(&files(&[("/f", f), ("/g", g)])), "{f} {g} in {found:?}");
    }
    other.sync_data().unwrap();
    assert!(states(&sim).iter().all(|state| state["/g"] == "c"), "a sync of one file keeps that file");
}

#[test]
fn a_cut_is_lost_until_it_is_synced() {
    let (sim, file) = disk_with("ooo");
    file.truncate(512).unwrap();
    assert_eq!(states(&sim), contents(&["o", "ooo"]));
    write(&*file, 1, "n");
    assert_eq!(states(&sim), contents(&["ooo", "o", "on", "o.", "ono"]));
    file.sync_data().unwrap();
    assert_eq!(states(&sim), contents(&["on"]));
}

#[test]
fn a_created_file_has_its_name_only_after_a_sync_of_the_directory() {
    let sim = SimVfs::new();
    let file = sim.create(Path::new("/f")).unwrap();
    assert_eq!(states(&sim), sets(&[&[], &[("/f", "")]]));
    write(&*file, 0, "n");
    assert_eq!(states(&sim), sets(&[&[], &[("/f", "")], &[("/f", ".")], &[("/f", "n")]]));
    file.sync_data().unwrap();
    assert_eq!(states(&sim), sets(&[&[], &[("/f", "n")]]), "with its name go its bytes");
    sim.sync_dir(Path::new("/")).unwrap();
    assert_eq!(states(&sim), contents(&["n"]));

    let sim = SimVfs::new();
    write(&*sim.create(Path::new("/f")).unwrap(), 0, "n");
    sim.sync_dir(Path::new("/")).unwrap();
    assert_eq!(states(&sim), contents(&["", ".", "n"]), "a sync of the directory keeps no bytes");
}

#[test]
fn a_removed_file_comes_back_until_the_directory_is_synced() {
    let (sim, file) = disk_with("o");
    write(&*file, 0, "n");
    sim.remove(Path::new("/f")).unwrap();
    assert_eq!(states(&sim), sets(&[&[], &[("/f", "o")], &[("/f", "n")]]));
    let again = sim.create(Path::new("/f")).unwrap();
    write(&*again, 0, "x");
    again.sync_data().unwrap();
    let expected = sets(&[&[], &[("/f", "o")], &[("/f", "n")], &[("/f", "x")]]);
    assert_eq!(states(&sim), expected);
    sim.sync_dir(Path::new("/")).unwrap();
    assert_eq!(states(&sim), contents(&["x"]));
}

#[test]
fn names_in_a_directory_change_in_any_order() {
    let sim = SimVfs::new();
    for name in ["/a", "/b", "/c"] {
        sim.create(Path::new(name)).unwrap();
    }
    sim.create(Path::new("/d")).unwrap();
    let found: BTreeSet<String> =
        states(&sim).iter().map(|state| state.keys().map(|path| &path[1..]).collect()).collect();
    let expected = ["", "abcd", "a", "ab", "abc", "bcd", "acd", "abd", "b", "c", "d"];
    assert_eq!(found, expected.map(String::from).into());
}

#[test]
fn a_replaced_file_is_old_or_new_and_whole_at_every_moment() {
    let (sim, _) = disk_with("oooo");
    let before = sim.operations();
    replace(&sim, Path::new("/f"), &sectors("nnnn")).unwrap();
    let mut seen = BTreeSet::new();
    for operations in before..=sim.operations() {
        for state in states_after(&sim, operations) {
            seen.insert(state["/f"].clone());
        }
    }
    assert_eq!(seen, ["oooo", "nnnn"].map(String::from).into());
    assert_eq!(states(&sim), contents(&["nnnn"]), "and nothing is left beside it");
}

#[test]
fn a_file_that_is_renamed_before_it_is_synced_may_be_torn_or_empty() {
    let (sim, _) = disk_with("oooo");
    let file = sim.create(Path::new("/f.tmp")).unwrap();
    write(&*file, 0, "nnnn");
    sim.rename(Path::new("/f.tmp"), Path::new("/f")).unwrap();
    sim.sync_dir(Path::new("/")).unwrap();
    let found = states(&sim);
    for torn in ["", "....", "nn", "nn..", ".nnn", "n.nn", "nnnn"] {
        assert!(found.contains(&files(&[("/f", torn)])), "{torn} in {found:?}");
    }
    assert!(found.iter().all(|state| state.len() == 1 && state["/f"] != "oooo"));
}

#[test]
fn a_rename_is_done_whole_or_not_at_all() {
    let (sim, _) = disk_with("o");
    sim.rename(Path::new("/f"), Path::new("/g")).unwrap();
    assert_eq!(states(&sim), sets(&[&[("/f", "o")], &[("/g", "o")]]));
    sim.sync_dir(Path::new("/")).unwrap();
    assert_eq!(states(&sim), sets(&[&[("/g", "o")]]));
}

#[test]
fn appends_and_directories_are_there_as_promised() {
    let sim = SimVfs::new();
    sim.create_dir_all(Path::new("/a/b")).unwrap();
    let mut file = sim.open_append(Path::new("/a/b/f")).unwrap();
    assert_eq!(states(&sim), sets(&[&[("/a/b/f", "")]]), "a file for appending is there once it is open");
    file.append(&sectors("n")).unwrap();
    assert_eq!(states(&sim), sets(&[&[("/a/b/f", "")], &[("/a/b/f", ".")], &[("/a/b/f", "n")]]));
    file.sync_data().unwrap();
    assert_eq!(states(&sim), sets(&[&[("/a/b/f", "n")]]));
    let (_, state) = sim.crash_states(1, Limits::thorough()).last().unwrap();
    assert!(state.list(Path::new("/")).unwrap().is_empty(), "the directory was not synced yet");
}

#[test]
fn with_a_directory_goes_what_is_in_it() {
    let sim = SimVfs::new();
    sim.skip_directory_syncs(true);
    sim.create_dir_all(Path::new("/a")).unwrap();
    let file = sim.create(Path::new("/a/f")).unwrap();
    write(&*file, 0, "n");
    file.sync_data().unwrap();
    assert_eq!(states(&sim), sets(&[&[], &[("/a/f", "n")]]));
    for (description, state) in sim.crash_states(sim.operations(), Limits::thorough()) {
        let names = state.list(Path::new("/a")).ok();
        assert_eq!(names.is_some_and(|names| names == ["f"]), !state.files().is_empty(), "{description}");
    }
}

#[test]
fn a_disk_that_lies_about_its_syncs_loses_what_was_synced() {
    let (sim, _) = disk_with("oo");
    sim.skip_syncs(true);
    replace(&sim, Path::new("/f"), &sectors("nn")).unwrap();
    let found: BTreeSet<String> = states(&sim).iter().map(|state| state["/f"].clone()).collect();
    assert!(found.contains("oo") && found.contains("") && found.contains("n.") && found.contains("nn"));
    sim.skip_syncs(false);
    replace(&sim, Path::new("/f"), &sectors("ww")).unwrap();
    assert!(states(&sim).iter().all(|state| state["/f"] == "ww"));
}

#[test]
fn what_a_failed_sync_should_have_kept_no_later_sync_keeps() {
    let (sim, file) = disk_with("o");
    write(&*file, 0, "n");
    sim.fail_nth(Operation::Sync, 1, EIO);
    assert_eq!(file.sync_data().unwrap_err().raw_os_error(), Some(EIO));
    assert_eq!(files_of(&sim)["/f"], "n", "it is still in memory");
    assert_eq!(states(&sim), contents(&["o", "n"]));
    write(&*file, 1, "m");
    file.sync_data().unwrap();
    assert_eq!(files_of(&sim)["/f"], "nm");
    assert_eq!(
        states(&sim),
        contents(&["om"]),
        "the second sync is a success that keeps nothing of the first"
    );

    let (sim, file) = disk_with("o");
    write(&*file, 0, "n");
    sim.fail_nth(Operation::Sync, 1, EIO);
    file.sync_data().unwrap_err();
    write(&*file, 1, "m");
    file.forget_cached();
    assert_eq!(files_of(&sim)["/f"], "om", "what is read now comes from the disk");
    assert_eq!(states(&sim), contents(&["o", "o.", "om"]), "and is what the disk has");
    file.sync_data().unwrap();
    assert_eq!(states(&sim), contents(&["om"]));

    let sim = SimVfs::new();
    sim.create(Path::new("/f")).unwrap();
    sim.fail_nth(Operation::SyncDir, 1, EIO);
    sim.sync_dir(Path::new("/")).unwrap_err();
    sim.sync_dir(Path::new("/")).unwrap();
    assert_eq!(states(&sim), sets(&[&[]]));
}

#[test]
fn a_full_disk_takes_what_there_is_room_for() {
    let (sim, file) = disk_with("oo");
    sim.set_capacity(Some(2048));
    assert_eq!(sim.free_bytes(Path::new("/")).unwrap(), 1024);
    let error = file.write_at(512, &[IoSlice::new(&sectors("nnnn"))]).unwrap_err();
    assert_eq!((error.kind(), error.raw_os_error()), (io::ErrorKind::StorageFull, Some(ENOSPC)));
    assert_eq!((files_of(&sim)["/f"].as_str(), sim.free_bytes(Path::new("/")).unwrap()), ("onnn", 0));
    write(&*file, 0, "xxxx");
    assert_eq!(replace(&sim, Path::new("/g"), b"g").unwrap_err().kind(), io::ErrorKind::StorageFull);
    assert_eq!(sim.files(), [Path::new("/f")], "an attempt leaves nothing on a full disk");
    let mut log = sim.open_append(Path::new("/log")).unwrap();
    assert_eq!(log.append(b"line").unwrap_err().kind(), io::ErrorKind::StorageFull);
    file.truncate(1024).unwrap();
    assert_eq!(sim.free_bytes(Path::new("/")).unwrap(), 1024);
    log.append(&sectors("l")).unwrap();
    sim.remove(Path::new("/f")).unwrap();
    assert_eq!(sim.free_bytes(Path::new("/")).unwrap(), 1536);
    sim.set_capacity(None);
    assert!(sim.free_bytes(Path::new("/")).unwrap() > 1 << 30);
}

#[test]
fn faults_last_until_they_are_healed() {
    let (sim, file) = disk_with("o");
    sim.fail_from(Operation::Write, 2, ENOSPC);
    let slices = [IoSlice::new(b"x")];
    file.write_at(0, &slices).unwrap();
    let before = sim.operations();
    for _ in 0..3 {
        assert_eq!(file.write_at(0, &slices).unwrap_err().raw_os_error(), Some(ENOSPC));
    }
    assert_eq!((sim.operations(), sim.done(Operation::Write)), (before, 4), "a failed write leaves nothing");
    sim.heal();
    file.write_at(0, &slices).unwrap();
}

#[test]
fn tampering_is_for_good_and_past_everybody() {
    let (sim, file) = disk_with("oo");
    let path = Path::new("/f");
    write(&*file, 0, "a");
    sim.flip_bit(path, 8 * 513).unwrap();
    let mut expected = [vec![b'a'; 512], vec![b'o'; 512]].concat();
    expected[513] ^= 1;
    let found: Vec<Vec<u8>> = sim
        .crash_states(sim.operations(), Limits::thorough())
        .map(|(_, state)| state.read(path, 2048).unwrap())
        .collect();
    assert_eq!(found, [expected.clone()]);
    assert_eq!(sim.read(path, 2048).unwrap(), expected);
    assert_eq!(sim.flip_bit(path, 8 * 1024).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    assert_eq!(sim.flip_bit(Path::new("/g"), 0).unwrap_err().kind(), io::ErrorKind::NotFound);
    sim.truncate_file(path, 512).unwrap();
    assert_eq!(states(&sim), contents(&["a"]));
    sim.remove_file(path).unwrap();
    assert_eq!(states(&sim), sets(&[&[]]));
    sim.write_file(path, &sectors("o")).unwrap();
    sim.remove(path).unwrap();
    sim.write_file(path, &sectors("w")).unwrap();
    assert_eq!(states(&sim), contents(&["w"]));
    assert_eq!(sim.journal().len(), sim.operations());
    assert_eq!(sim.journal()[1], "write 512 bytes at 0 of file 1");
}

#[test]
fn a_snapshot_brings_everything_back() {
    let (sim, file) = disk_with("o");
    let (snapshot, digest) = (sim.snapshot(), sim.digest());
    write(&*file, 0, "n");
    sim.create(Path::new("/g")).unwrap();
    let _lock = sim.lock(Path::new("/LOCK")).unwrap();
    assert_ne!(sim.digest(), digest);
    let other = SimVfs::from_snapshot(&snapshot);
    assert_eq!((files_of(&other), other.digest()), (files(&[("/f", "o")]), digest));
    sim.restore(&snapshot);
    assert_eq!((sim.operations(), sim.digest(), states(&sim)), (0, digest, contents(&["o"])));
    sim.lock(Path::new("/LOCK")).unwrap();
}

#[test]
fn a_state_has_no_locks_and_a_life_of_its_own() {
    let (sim, file) = disk_with("o");
    let _lock = sim.lock(Path::new("/LOCK")).unwrap();
    write(&*file, 0, "n");
    let expected: Vec<Files> =
        sim.crash_states(sim.operations(), Limits::thorough()).map(|(_, state)| files_of(&state)).collect();
    let mut again = Vec::new();
    for (_, state) in sim.crash_states(sim.operations(), Limits::thorough()) {
        again.push(files_of(&state));
        state.lock(Path::new("/LOCK")).unwrap();
        write(&*state.open(Path::new("/f")).unwrap(), 0, "zzz");
        assert_eq!(state.journal().last().unwrap(), "write 1536 bytes at 0 of file 1");
    }
    assert_eq!(again, expected);
    assert_eq!(files_of(&sim)["/f"], "n");
}

#[test]
fn a_sample_is_bounded_and_follows_from_its_seed() {
    let (sim, file) = disk_with("o");
    for sector in 0..40 {
        write(&*file, sector, "abcdefgh");
        sim.create(Path::new(&format!("/{sector}"))).unwrap();
    }
    let digests = |limits| -> Vec<[u8; 16]> {
        sim.crash_states(sim.operations(), limits).map(|(_, state)| state.digest()).collect()
    };
    let sample = digests(Limits::sampled(100, 7));
    assert!(sample.len() > 50 && sample.len() <= 100, "{}", sample.len());
    assert_eq!(sample, digests(Limits::sampled(100, 7)));
    assert_ne!(sample, digests(Limits::sampled(100, 8)));
    assert!(sample.contains(&sim.digest()), "that everything is there is always among them");
    let (description, _) = sim.crash_states(sim.operations(), Limits::sampled(4, 0)).last().unwrap();
    let description = description.to_string();
    assert!(
        description.starts_with("power lost after operation 81 (create /39 as file 41); "),
        "{description}"
    );
}

/// What is done to a few files in the proptest below.
#[derive(Debug, Clone)]
enum Step {
    Create(u8),
    Write(u8, u8, u8),
    Truncate(u8, u8),
    SyncData(u8),
    Rename(u8, u8),
    Remove(u8),
    SyncDir,
}

fn step() -> impl Strategy<Value = Step> {
    let name = 0_u8..4;
    prop_oneof![
        name.clone().prop_map(Step::Create),
        (name.clone(), 0_u8..6, 1_u8..6).prop_map(|(name, sector, count)| Step::Write(name, sector, count)),
        (name.clone(), 0_u8..8).prop_map(|(name, sector)| Step::Truncate(name, sector)),
        name.clone().prop_map(Step::SyncData),
        (name.clone(), name.clone()).prop_map(|(from, to)| Step::Rename(from, to)),
        name.prop_map(Step::Remove),
        Just(Step::SyncDir),
    ]
}

/// Steps on files that are not there fail and change nothing.
fn take(sim: &SimVfs, step: &Step, number: usize) -> io::Result<()> {
    let path = |name: &u8| format!("/{name}");
    match step {
        Step::Create(name) => sim.create(Path::new(&path(name))).map(|_| ()),
        Step::Write(name, sector, count) => {
            let letter = char::from(b'a' + u8::try_from(number % 26).unwrap()).to_string();
            let bytes = sectors(&letter.repeat(usize::from(*count)));
            sim.open(Path::new(&path(name)))?.write_at(u64::from(*sector) * 512, &[IoSlice::new(&bytes)])
        }
        Step::Truncate(name, sector) => sim.open(Path::new(&path(name)))?.truncate(u64::from(*sector) * 512),
        Step::SyncData(name) => sim.open(Path::new(&path(name)))?.sync_data(),
        Step::Rename(from, to) => sim.rename(Path::new(&path(from)), Path::new(&path(to))),
        Step::Remove(name) => sim.remove(Path::new(&path(name))),
        Step::SyncDir => sim.sync_dir(Path::new("/")),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// At each moment of a random script, long enough that going back to a moment begins at a kept disk: what was seen
    /// then is among the states, and each state comes once. Once everything is synced there is one state.
    #[test]
    fn states_are_what_was_done(steps in prop::collection::vec(step(), 1..140)) {
        let sim = SimVfs::new();
        let mut seen = vec![sim.digest()];
        for (number, step) in steps.iter().enumerate() {
            // What fails changes nothing, which is what the operations count.
            let _ = take(&sim, step, number);
            seen.resize(sim.operations() + 1, sim.digest());
        }
        let limits = Limits::sampled(24, 3);
        for (operations, digest) in seen.iter().enumerate() {
            let states: Vec<[u8; 16]> =
                sim.crash_states(operations, limits).map(|(_, state)| state.digest()).collect();
            prop_assert!(states.contains(digest), "after operation {}", operations);
            let distinct: BTreeSet<&[u8; 16]> = states.iter().collect();
            prop_assert_eq!(distinct.len(), states.len());
        }
        for path in sim.files() {
            sim.open(&path).unwrap().sync_data().unwrap();
        }
        sim.sync_dir(Path::new("/")).unwrap();
        let states: Vec<[u8; 16]> =
            sim.crash_states(sim.operations(), limits).map(|(_, state)| state.digest()).collect();
        prop_assert_eq!(states, vec![sim.digest()]);
    }
}
