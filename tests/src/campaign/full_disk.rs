//! A real file system of 64 MB that is filled to the brim, and one that turns read-only: what no simulation can promise
//! for the system that it stands for.
//!
//! ```text
//!   storage-campaign disk            unshare --mount, of this very program
//!     '--> storage-campaign disk-inside KIND DIR      mounts, fills, empties, breaks; its mounts end with it
//! ```
//!
//! It needs the right to mount. Where that is missing, it says so and counts as neither good nor bad.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sealbus_broker::storage::stream::store::{StreamEvent, StreamState, StreamStore as _};
use sealbus_broker::vfs::{OsVfs, Vfs};

use super::live::{Live, Publisher, REFUSED_WITHIN, RESUMED_WITHIN, Refusal, await_open};

/// Bytes of the file systems.
const DISK_BYTES: u64 = 64 * 1_024 * 1_024;

/// Bytes of a file that is there from the beginning and is removed when the disk is full.
const BALLAST_BYTES: usize = 16 * 1_024 * 1_024;

/// Bytes of a batch.
const BATCH_BYTES: usize = 48 * 1_024;

/// Batches that no disk of that size holds.
const BATCHES_MAX: usize = 4_000;

/// A file system to be filled or broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A file system in a file, to the last byte.
    Ext4,
    /// The same, with a reserve.
    Ext4WithReserve,
    /// One in memory, to the last byte.
    Tmpfs,
    /// A file system in a file that turns read-only by an error.
    ReadOnly,
}

/// What came of it.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// Batches that were acknowledged.
    pub acknowledged: usize,
    /// What must not be.
    pub wrong: Vec<String>,
    /// What is worth knowing.
    pub remarks: Vec<String>,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Ext4, Self::Ext4WithReserve, Self::Tmpfs, Self::ReadOnly];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Ext4WithReserve => "ext4-with-reserve",
            Self::Tmpfs => "tmpfs",
            Self::ReadOnly => "read-only",
        }
    }

    /// The name that its report has.
    #[must_use]
    pub const fn test(self) -> &'static str {
        match self {
            Self::Ext4 => "storage-full-disk-ext4",
            Self::Ext4WithReserve => "storage-full-disk-ext4-with-reserve",
            Self::Tmpfs => "storage-full-disk-tmpfs",
            Self::ReadOnly => "storage-disk-turns-read-only",
        }
    }

    /// The kind of this name.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    const fn reserve_bytes(self) -> u64 {
        match self {
            Self::Ext4WithReserve => 4 * 1_024 * 1_024,
            Self::Ext4 | Self::Tmpfs | Self::ReadOnly => 0,
        }
    }
}

/// Mounts a file system of this kind below `dir` and does with it what it is for. Its caller is in a mount namespace of
/// its own.
///
/// # Errors
/// What could not be done, in words: then nothing was shown.
pub fn run(kind: Kind, dir: &Path) -> Result<Outcome, String> {
    let mounted = Mounted::new(kind, dir)?;
    match kind {
        Kind::Ext4 | Kind::Ext4WithReserve | Kind::Tmpfs => Ok(fill(kind, &mounted.at)),
        Kind::ReadOnly => turn_read_only(&mounted),
    }
}

fn fill(kind: Kind, at: &Path) -> Outcome {
    let mut outcome = Outcome::default();
    let ballast = at.join("ballast");
    if let Err(error) = fs::write(&ballast, vec![1; BALLAST_BYTES]) {
        outcome.wrong.push(format!("the ballast cannot be written: {error}"));
    }
    let mut publisher = Publisher::new(21);
    let vfs: Arc<dyn Vfs> = Arc::new(OsVfs);
    let live = Live::start(Arc::clone(&vfs), &at.join("streams"), kind.reserve_bytes());
    let (stream, _) = live.open(&publisher);
    for round in 0..2 {
        let (refusal, took) = publish_until_refused(&mut publisher, &stream);
        match refusal {
            Some(refusal) if refusal.is_full() => {}
            other => outcome.wrong.push(format!("a full disk is answered with {other:?}")),
        }
        if took > REFUSED_WITHIN {
            outcome.wrong.push(format!("a publisher waited {took:?} to be told that the disk is full"));
        }
        let free = vfs.free_bytes(at).unwrap_or_default();
        let kept = publisher.acknowledged();
        outcome
            .remarks
            .push(format!("full after {kept} batches with {free} bytes left, said within {took:?}"));
        if stream.state() != StreamState::Full {
            outcome.wrong.push(format!("the disk is full and the stream is {:?}", stream.state()));
        }
        outcome.wrong.extend(publisher.check(&stream).into_iter().map(|wrong| format!("full: {wrong}")));
        if round == 0 {
            if let Err(error) = fs::remove_file(&ballast) {
                outcome.wrong.push(format!("the ballast cannot be removed: {error}"));
            }
            let took = await_open(&stream);
            outcome.remarks.push(format!("went on by itself {took:?} after there was room"));
            if took > RESUMED_WITHIN {
                outcome.wrong.push(format!("it took {took:?} to go on"));
            }
            if let Err(refusal) = publisher.publish(&stream, BATCH_BYTES) {
                outcome.wrong.push(format!("there is room, and a batch is refused: {refusal:?}"));
            }
        }
    }
    live.close();
    // What is full must be readable after a start, and can be opened although nothing can be written to it.
    let live = Live::start(vfs, &at.join("streams"), kind.reserve_bytes());
    let (stream, opened) = live.open(&publisher);
    if !opened.events.is_empty() {
        outcome.wrong.push(format!("opened again it reports {:?}", opened.events));
    }
    outcome.wrong.extend(publisher.check(&stream).into_iter().map(|wrong| format!("opened again: {wrong}")));
    outcome.acknowledged = publisher.acknowledged();
    live.close();
    outcome
}

fn turn_read_only(mounted: &Mounted) -> Result<Outcome, String> {
    let mut outcome = Outcome::default();
    let streams = mounted.at.join("streams");
    let mut publisher = Publisher::new(22);
    let live = Live::start(Arc::new(OsVfs), &streams, 0);
    let (stream, _) = live.open(&publisher);
    for _ in 0..100 {
        if let Err(refusal) = publisher.publish(&stream, BATCH_BYTES) {
            outcome.wrong.push(format!("a disk without faults refuses: {refusal:?}"));
        }
    }
    let trigger = PathBuf::from("/sys/fs/ext4").join(mounted.loop_device()?).join("trigger_fs_error");
    fs::write(&trigger, "1").map_err(|error| format!("{}: {error}", trigger.display()))?;
    let (refusal, took) = publish_until_refused(&mut publisher, &stream);
    let reason = refusal.as_ref().and_then(Refusal::stopped);
    match reason {
        Some(reason) => outcome.remarks.push(format!("stopped within {took:?}: {reason}")),
        None => outcome.wrong.push(format!("a read-only disk is answered with {refusal:?}")),
    }
    if took > REFUSED_WITHIN {
        outcome.wrong.push(format!("a publisher waited {took:?} to be told that the disk is read-only"));
    }
    if !live.events.has(|event| matches!(event, StreamEvent::Stopped(_))) {
        outcome.wrong.push("nobody is told that the stream has stopped".to_owned());
    }
    outcome.wrong.extend(publisher.check(&stream).into_iter().map(|wrong| format!("read-only: {wrong}")));
    live.close();
    // It holds the files open.
    drop(stream);
    mounted.mend()?;
    let live = Live::start(Arc::new(OsVfs), &streams, 0);
    let (stream, opened) = live.open(&publisher);
    outcome.remarks.push(format!("mended, it reports {:?} and cut {:?}", opened.events, opened.cut));
    outcome.wrong.extend(publisher.check(&stream).into_iter().map(|wrong| format!("mended: {wrong}")));
    if let Err(refusal) = publisher.publish(&stream, BATCH_BYTES) {
        outcome.wrong.push(format!("mended, it refuses: {refusal:?}"));
    }
    outcome.acknowledged = publisher.acknowledged();
    live.close();
    Ok(outcome)
}

/// The first refusal, and how long that publisher waited for it.
fn publish_until_refused(
    publisher: &mut Publisher,
    stream: &sealbus_broker::storage::stream::Stream,
) -> (Option<Refusal>, Duration) {
    for _ in 0..BATCHES_MAX {
        let since = Instant::now();
        if let Err(refusal) = publisher.publish(stream, BATCH_BYTES) {
            return (Some(refusal), since.elapsed());
        }
    }
    (None, Duration::ZERO)
}

/// A file system that is mounted for as long as this lives.
struct Mounted {
    at: PathBuf,
    image: Option<PathBuf>,
}

impl Mounted {
    fn new(kind: Kind, dir: &Path) -> Result<Self, String> {
        let at = dir.join(format!("mnt-{}", kind.name()));
        fs::create_dir_all(&at).map_err(|error| format!("{}: {error}", at.display()))?;
        let at_text = at.display().to_string();
        let image = match kind {
            Kind::Tmpfs => {
                let size = format!("size={DISK_BYTES}");
                run_program("mount", &["-t", "tmpfs", "-o", &size, "none", &at_text])?;
                None
            }
            Kind::Ext4 | Kind::Ext4WithReserve | Kind::ReadOnly => {
                let image = dir.join(format!("{}.img", kind.name()));
                let made = fs::File::create(&image).and_then(|file| file.set_len(DISK_BYTES));
                made.map_err(|error| format!("{}: {error}", image.display()))?;
                let image_text = image.display().to_string();
                run_program("mkfs.ext4", &["-q", "-F", "-m", "0", &image_text])?;
                run_program("mount", &["-o", "loop,errors=remount-ro", &image_text, &at_text])?;
                Some(image)
            }
        };
        Ok(Self { at, image })
    }

    /// The name of the device that stands for the image.
    fn loop_device(&self) -> Result<String, String> {
        let mounts =
            fs::read_to_string("/proc/self/mounts").map_err(|error| format!("the mounts: {error}"))?;
        let at = self.at.display().to_string();
        let line = mounts.lines().find(|line| line.split(' ').nth(1) == Some(at.as_str()));
        let device =
            line.and_then(|line| line.split(' ').next()).and_then(|device| device.strip_prefix("/dev/"));
        device.map(str::to_owned).ok_or_else(|| format!("{at} is on no device"))
    }

    /// Takes it away, has it checked, and mounts it anew.
    fn mend(&self) -> Result<(), String> {
        let Some(image) = &self.image else { return Err("there is no image".to_owned()) };
        let (at, image) = (self.at.display().to_string(), image.display().to_string());
        run_program("umount", &[&at])?;
        // It says 1 when it has mended something.
        let checked = Command::new("e2fsck").args(["-f", "-y", &image]).output();
        let checked = checked.map_err(|error| format!("e2fsck: {error}"))?;
        if checked.status.code().is_none_or(|code| code > 1) {
            return Err(format!("e2fsck: {}", String::from_utf8_lossy(&checked.stdout)));
        }
        run_program("mount", &["-o", "loop", &image, &at])
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // What is not taken away here ends with the namespace.
        let _ = run_program("umount", &[&self.at.display().to_string()]);
        let _ = fs::remove_dir(&self.at);
        if let Some(image) = &self.image {
            let _ = fs::remove_file(image);
        }
    }
}

fn run_program(name: &str, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(name).args(arguments).output().map_err(|error| format!("{name}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{name} {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim()))
}
