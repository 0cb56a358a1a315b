//! Every file system does the same, and those that fail on request fail alike.

use std::fs;
use std::io::{ErrorKind, IoSlice};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use proptest::prelude::*;

use super::fault::{Fault, Operation};
use super::faulty::{FaultyVfs, Synced};
use super::os::OsVfs;
use super::replace::replace;
use super::sim::SimVfs;
use super::traits::{DataFile, Vfs};

const EIO: i32 = 5;

/// The system's own in a directory of its own, the simulated one, and both behind one that could fail.
fn on_each(check: impl Fn(&dyn Vfs, &Path)) {
    let vfses: [Box<dyn Vfs>; 4] = [
        Box::new(OsVfs),
        Box::new(SimVfs::new()),
        Box::new(FaultyVfs::new(OsVfs, [])),
        Box::new(FaultyVfs::new(SimVfs::new(), [])),
    ];
    for vfs in vfses {
        let dir = tempfile::tempdir().unwrap();
        vfs.create_dir_all(dir.path()).unwrap();
        check(&*vfs, dir.path());
    }
}

fn write(file: &dyn DataFile, offset: u64, bytes: &[u8]) {
    file.write_at(offset, &[IoSlice::new(bytes)]).unwrap();
}

fn kind<T>(result: std::io::Result<T>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind())
}

#[test]
fn data_files_are_written_and_read_anywhere() {
    on_each(|vfs, dir| {
        let path = dir.join("f");
        let file = vfs.create(&path).unwrap();
        assert!(file.is_empty().unwrap());
        file.write_at(3, &[IoSlice::new(b"de"), IoSlice::new(b""), IoSlice::new(b"fgh")]).unwrap();
        let other = vfs.open(&path).unwrap();
        assert_eq!(other.len().unwrap(), 8);
        let mut buf = [9; 10];
        assert_eq!((other.read_at(1, &mut buf).unwrap(), &buf), (7, b"\0\0defgh\x09\x09\x09"));
        assert_eq!((other.read_at(8, &mut buf).unwrap(), other.read_at(99, &mut buf).unwrap()), (0, 0));
        write(&*other, 0, b"abc");
        file.sync_data().unwrap();
        file.forget_cached();
        assert_eq!(vfs.read(&path, 8).unwrap(), b"abcdefgh");
        file.truncate(2).unwrap();
        file.truncate(4).unwrap();
        assert_eq!(vfs.read(&path, 8).unwrap(), b"ab\0\0");
        file.write_at(50, &[]).unwrap();
        assert_eq!((file.len().unwrap(), kind(vfs.read(&path, 3))), (4, Some(ErrorKind::FileTooLarge)));
        assert_eq!(vfs.mode(&path).unwrap(), 0o600);
    });
}

#[test]
fn names_are_taken_changed_and_given_back() {
    on_each(|vfs, dir| {
        let (a, b, below) = (dir.join("a"), dir.join("b"), dir.join("d/e"));
        assert_eq!(kind(vfs.open(&a)), Some(ErrorKind::NotFound));
        write(&*vfs.create(&a).unwrap(), 0, b"a");
        assert_eq!(kind(vfs.create(&a)), Some(ErrorKind::AlreadyExists));
        let old = vfs.create(&b).unwrap();
        write(&*old, 0, b"b");
        vfs.create_dir_all(&below).unwrap();
        vfs.create_dir_all(&below).unwrap();
        assert_eq!(vfs.mode(&below).unwrap(), 0o700);
        assert_eq!(vfs.list(dir).unwrap(), ["a", "b", "d"]);
        assert_eq!(kind(vfs.list(&dir.join("z"))), Some(ErrorKind::NotFound));
        assert_eq!(kind(vfs.list(&a)), Some(ErrorKind::NotADirectory));
        assert_eq!(kind(vfs.rename(&a, &below.join("a"))), Some(ErrorKind::InvalidInput));
        vfs.rename(&a, &b).unwrap();
        vfs.rename(&b, &b).unwrap();
        assert_eq!(kind(vfs.rename(&a, &b)), Some(ErrorKind::NotFound));
        assert_eq!(
            (vfs.list(dir).unwrap(), vfs.read(&b, 9).unwrap()),
            (vec!["b".into(), "d".into()], b"a".to_vec())
        );
        write(&*old, 1, b"!");
        assert_eq!(old.len().unwrap(), 2, "a file without a name is there as long as it is open");
        vfs.sync_dir(dir).unwrap();
        vfs.remove(&b).unwrap();
        assert_eq!(kind(vfs.remove(&b)), Some(ErrorKind::NotFound));
        assert_eq!(kind(vfs.open(&below)), Some(ErrorKind::IsADirectory));
        assert_eq!(kind(vfs.create(&below)), Some(ErrorKind::AlreadyExists));
        assert_eq!(kind(vfs.rename(&dir.join("x"), &dir.join("y"))), Some(ErrorKind::NotFound));
        assert_eq!(kind(vfs.create(&dir.join("z/f"))), Some(ErrorKind::NotFound));
        assert_eq!(kind(vfs.sync_dir(&dir.join("z"))), Some(ErrorKind::NotFound));
        assert!(vfs.free_bytes(dir).unwrap() > 0);
        assert_eq!(kind(vfs.mode(&b)), Some(ErrorKind::NotFound));
    });
}

#[test]
fn appended_files_and_locks_are_alike() {
    on_each(|vfs, dir| {
        let path = dir.join("log");
        let mut file = vfs.open_append(&path).unwrap();
        file.append(b"abc").unwrap();
        write(&*vfs.open(&path).unwrap(), 1, b"BC");
        file.append(b"def").unwrap();
        file.sync_data().unwrap();
        file.truncate(5).unwrap();
        let mut buf = [0; 9];
        assert_eq!((file.len(), file.read_at(1, &mut buf).unwrap(), &buf[..4]), (5, 4, &b"BCde"[..]));
        assert_eq!(vfs.open_append(&path).unwrap().len(), 5);
        let lock = vfs.lock(&dir.join("LOCK")).unwrap();
        assert_eq!(kind(vfs.lock(&dir.join("LOCK"))), Some(ErrorKind::WouldBlock));
        drop(lock);
        vfs.lock(&dir.join("LOCK")).unwrap();
        assert_eq!(vfs.list(dir).unwrap(), ["LOCK", "log"]);
    });
}

#[test]
fn a_replaced_file_has_the_new_content_and_nothing_beside_it() {
    on_each(|vfs, dir| {
        let path = dir.join("f");
        // What an attempt before this one left.
        write(&*vfs.create(&dir.join("f.tmp")).unwrap(), 0, b"a longer one than the new one");
        for content in ["first", "second", ""] {
            replace(vfs, &path, content.as_bytes()).unwrap();
            assert_eq!(vfs.read(&path, 99).unwrap(), content.as_bytes());
            assert_eq!((vfs.list(dir).unwrap(), vfs.mode(&path).unwrap()), (vec!["f".to_owned()], 0o600));
        }
        assert_eq!(kind(replace(vfs, Path::new("/"), b"")), Some(ErrorKind::InvalidInput));
    });
}

/// Every step of replacing fails once, and the old content is there, alone.
#[test]
fn a_replacement_that_fails_leaves_the_old_content() {
    for operation in
        [Operation::Create, Operation::Write, Operation::TornWrite, Operation::Sync, Operation::Rename]
    {
        let sim = SimVfs::new();
        let path = Path::new("/f");
        replace(&sim, path, b"old").unwrap();
        sim.fail_nth(operation, 1, EIO);
        assert_eq!(replace(&sim, path, b"new").unwrap_err().raw_os_error(), Some(EIO), "{operation:?}");
        assert_eq!((sim.read(path, 9).unwrap(), sim.files().len()), (b"old".to_vec(), 1), "{operation:?}");
    }
}

/// A step on one of a few files; numbers become places and lengths.
#[derive(Debug, Clone)]
enum Step {
    Create(u8),
    Write(u8, u16, u16),
    Append(u8, u16),
    Truncate(u8, u16),
    Sync(u8),
    Rename(u8, u8),
    Remove(u8),
    Replace(u8, u16),
}

fn step() -> impl Strategy<Value = Step> {
    let (name, number) = (0_u8..3, 0_u16..9000);
    prop_oneof![
        name.clone().prop_map(Step::Create),
        (name.clone(), number.clone(), number.clone()).prop_map(|(name, at, len)| Step::Write(name, at, len)),
        (name.clone(), number.clone()).prop_map(|(name, len)| Step::Append(name, len)),
        (name.clone(), number.clone()).prop_map(|(name, len)| Step::Truncate(name, len)),
        name.clone().prop_map(Step::Sync),
        (name.clone(), name.clone()).prop_map(|(from, to)| Step::Rename(from, to)),
        name.clone().prop_map(Step::Remove),
        (name, number).prop_map(|(name, len)| Step::Replace(name, len)),
    ]
}

fn take(vfs: &dyn Vfs, dir: &Path, step: &Step, byte: u8) -> Option<ErrorKind> {
    let path = |name: &u8| dir.join(name.to_string());
    let bytes = |len: &u16| vec![byte; usize::from(*len)];
    kind(match step {
        Step::Create(name) => vfs.create(&path(name)).map(|_| ()),
        Step::Write(name, at, len) => vfs.open(&path(name)).and_then(|file| {
            let bytes = bytes(len);
            let (first, second) = bytes.split_at(bytes.len() / 3);
            file.write_at(u64::from(*at), &[IoSlice::new(first), IoSlice::new(second)])
        }),
        Step::Append(name, len) => vfs.open_append(&path(name)).and_then(|mut file| file.append(&bytes(len))),
        Step::Truncate(name, len) => vfs.open(&path(name)).and_then(|file| file.truncate(u64::from(*len))),
        Step::Sync(name) => vfs.open(&path(name)).and_then(|file| file.sync_data()),
        Step::Rename(from, to) => vfs.rename(&path(from), &path(to)),
        Step::Remove(name) => vfs.remove(&path(name)),
        Step::Replace(name, len) => replace(vfs, &path(name), &bytes(len)),
    })
}

/// Names and contents.
fn all(vfs: &dyn Vfs, dir: &Path) -> Vec<(String, Vec<u8>)> {
    let names = vfs.list(dir).unwrap();
    names.into_iter().map(|name| (name.clone(), vfs.read(&dir.join(name), u64::MAX).unwrap())).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn the_simulated_file_system_does_what_the_systems_does(steps in prop::collection::vec(step(), 1..40)) {
        let dir = tempfile::tempdir().unwrap();
        let (sim, at) = (SimVfs::new(), PathBuf::from("/data"));
        sim.create_dir_all(&at).unwrap();
        for (number, step) in steps.iter().enumerate() {
            let byte = u8::try_from(number + 1).unwrap();
            prop_assert_eq!(take(&OsVfs, dir.path(), step, byte), take(&sim, &at, step, byte), "{:?}", step);
            prop_assert_eq!(all(&OsVfs, dir.path()), all(&sim, &at));
        }
    }
}

/// Each operation in turn, on a file that is there: its second time fails, and the first and third do not.
#[test]
fn the_nth_operation_of_a_kind_fails() {
    use Operation::{
        Append, Create, Open, OpenData, OpenRead, Read, Remove, Rename, Sync, SyncDir, TornAppend, TornWrite,
        Truncate, Write,
    };
    let operations = [
        Append, TornAppend, Sync, Open, Create, OpenData, OpenRead, Write, TornWrite, Read, Truncate, Rename,
        Remove, SyncDir,
    ];
    for operation in operations {
        let fault = Fault { operation, nth: 2, errno: EIO };
        let sim = SimVfs::new();
        sim.fail_nth(operation, 2, EIO);
        let vfses: [(Box<dyn Vfs>, &str); 2] =
            [(Box::new(FaultyVfs::new(SimVfs::new(), [fault])), "faulty"), (Box::new(sim), "simulated")];
        for (vfs, which) in vfses {
            let failed: Vec<bool> = (0..3).map(|number| fails(&*vfs, operation, number)).collect();
            assert_eq!(failed, [false, true, false], "{operation:?} of the {which} one");
        }
    }
}

/// Prepares and does one operation. Opening a file for it must not fail.
fn fails(vfs: &dyn Vfs, operation: Operation, number: u32) -> bool {
    let path = PathBuf::from(format!("/{number}"));
    let prepared = || vfs.open_append(&path).unwrap();
    let done = match operation {
        Operation::Append => prepared().append(b"ab"),
        Operation::TornAppend => {
            let done = prepared().append(b"ab");
            assert_eq!(vfs.read(&path, 9).unwrap(), if done.is_err() { "a" } else { "ab" }.as_bytes());
            done
        }
        Operation::Sync => match number {
            1 => prepared().sync_data(),
            _ => vfs.create(&path).unwrap().sync_data(),
        },
        Operation::Open => vfs.open_append(&path).map(|_| ()),
        Operation::Create => vfs.create(&path).map(|_| ()),
        Operation::OpenData => {
            prepared();
            vfs.open(&path).map(|_| ())
        }
        Operation::OpenRead => {
            prepared();
            vfs.open_read(&path).map(|_| ())
        }
        Operation::Write => vfs.create(&path).unwrap().write_at(0, &[IoSlice::new(b"ab")]),
        Operation::TornWrite => {
            let done = vfs.create(&path).unwrap().write_at(0, &[IoSlice::new(b"ab"), IoSlice::new(b"cd")]);
            assert_eq!(vfs.read(&path, 9).unwrap(), if done.is_err() { "ab" } else { "abcd" }.as_bytes());
            done
        }
        Operation::Read if number == 1 => {
            prepared();
            vfs.read(&path, 9).map(|_| ())
        }
        Operation::Read => vfs.create(&path).unwrap().read_at(0, &mut [0]).map(|_| ()),
        Operation::Truncate => match number {
            1 => prepared().truncate(0),
            _ => vfs.create(&path).unwrap().truncate(1),
        },
        Operation::Rename => {
            prepared();
            vfs.rename(&path, Path::new("/to"))
        }
        Operation::Remove => {
            prepared();
            vfs.remove(&path)
        }
        Operation::SyncDir => vfs.sync_dir(Path::new("/")),
    };
    done.is_err_and(|error| error.raw_os_error() == Some(EIO))
}

/// What only reads needs no right to write, and changes no mode.
#[test]
fn a_file_that_is_opened_for_reading_is_left_as_it_is() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let (on_disk, simulated) = (dir.path().join("f"), PathBuf::from("/f"));
    let sim = SimVfs::new();
    for (vfs, path) in [(&OsVfs as &dyn Vfs, &on_disk), (&sim, &simulated)] {
        write(&*vfs.create(path).unwrap(), 0, b"abc");
        let file = vfs.open_read(path).unwrap();
        let mut bytes = [0; 3];
        assert_eq!((file.read_at(0, &mut bytes).unwrap(), &bytes, file.len().unwrap()), (3, b"abc", 3));
        file.forget_cached();
        assert!(file.write_at(0, &[IoSlice::new(b"x")]).is_err() && file.truncate(0).is_err());
        assert_eq!(vfs.read(path, 9).unwrap(), b"abc");
        let missing = vfs.open_read(Path::new("/nowhere/at all")).err().map(|error| error.kind());
        assert_eq!(missing, Some(std::io::ErrorKind::NotFound));
    }
    fs::set_permissions(&on_disk, fs::Permissions::from_mode(0o444)).unwrap();
    OsVfs.open_read(&on_disk).unwrap();
    assert_eq!(OsVfs.mode(&on_disk).unwrap(), 0o444);
}

#[test]
fn a_sync_of_a_data_file_is_held_and_counted() {
    let vfs = FaultyVfs::new(SimVfs::new(), []);
    let file = vfs.create(Path::new("/f")).unwrap();
    vfs.hold_syncs();
    let syncing = thread::spawn(move || file.sync_data());
    vfs.await_held_sync();
    assert_eq!((vfs.syncs(), vfs.synced()), (1, 0));
    assert_eq!(vfs.await_synced(0, Duration::ZERO), Synced::NotInTime);
    vfs.release_syncs();
    syncing.join().unwrap().unwrap();
    assert_eq!((vfs.await_synced(0, Duration::ZERO), vfs.synced()), (Synced::More, 1));
}

#[test]
fn faults_lasting_and_below_a_directory() {
    let vfs = FaultyVfs::below(SimVfs::new(), "/data", []);
    vfs.create_dir_all(Path::new("/data")).unwrap();
    let (inside, outside) = (vfs.create(Path::new("/data/f")).unwrap(), vfs.create(Path::new("/f")).unwrap());
    vfs.fail_from(Operation::Write, 2, EIO);
    vfs.set_free_bytes(17);
    for number in 0..4 {
        let slices = [IoSlice::new(b"x")];
        outside.write_at(0, &slices).unwrap();
        assert_eq!(inside.write_at(0, &slices).is_err(), number > 0);
    }
    assert_eq!((vfs.done(Operation::Write), vfs.free_bytes(Path::new("/data")).unwrap()), (4, 17));
    vfs.heal();
    write(&*inside, 0, b"x");
    assert!(vfs.free_bytes(Path::new("/data")).unwrap() > 17);
    vfs.fail_nth(Operation::SyncDir, 2, EIO);
    vfs.sync_dir(Path::new("/data")).unwrap();
    vfs.sync_dir(Path::new("/")).unwrap();
    vfs.sync_dir(Path::new("/data")).unwrap_err();
}

#[test]
fn names_that_are_not_text_are_not_listed() {
    use std::os::unix::ffi::OsStrExt as _;
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join(std::ffi::OsStr::from_bytes(b"\xff")), "").unwrap();
    fs::write(dir.path().join("f"), "").unwrap();
    assert_eq!(OsVfs.list(dir.path()).unwrap(), ["f"]);
}
