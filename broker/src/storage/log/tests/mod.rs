//! The log as a whole: what it promises, on disks that break that.

mod crashes;
mod damage;
mod model;
mod recovery;
mod writing;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sealbus_protocol::ids::{BusId, StreamId};
use sha2::{Digest as _, Sha256};

use super::{FrameView, Log, LogOptions, LogReader, NewFrame, OwnedFrame, Recovery, Skipped};
use crate::vfs::{SimVfs, Vfs};

const DIR: &str = "/data/log";

/// Salts differ and do not depend on anything.
fn salt() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn digest(frame: &FrameView<'_>, _: &LogOptions) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(frame.offset.to_be_bytes());
    hash.update(frame.payload);
    hash.finalize().into()
}

fn options() -> LogOptions {
    LogOptions {
        bus_id: BusId::new([1; 16]),
        log_id: StreamId::new([2; 16]),
        segment_bytes: 4_096,
        digest: Some(digest),
        salt,
    }
}

fn sim() -> SimVfs {
    SimVfs::new()
}

fn try_open(vfs: &SimVfs) -> Result<(Log, Recovery), super::LogError> {
    Log::open(Arc::new(vfs.clone()), Path::new(DIR), options())
}

fn open(vfs: &SimVfs) -> (Log, Recovery) {
    try_open(vfs).unwrap()
}

/// Opens a log with which nothing is wrong.
fn open_whole(vfs: &SimVfs) -> Log {
    let (log, recovery) = open(vfs);
    assert_eq!(recovery.damage, []);
    log
}

/// The payload that belongs to an offset, so that it can be told whether what is read is what was written.
fn payload(offset: u64, len: usize) -> Vec<u8> {
    (0..len as u64).map(|n| (offset.wrapping_mul(131).wrapping_add(n * 7)) as u8).collect()
}

/// Appends one frame with so many offsets.
fn append(log: &mut Log, count: u32, len: usize, time_ms: u64) -> std::ops::Range<u64> {
    let content = payload(log.end_offset(), len);
    let (front, back) = content.split_at(len / 3);
    log.append(&[NewFrame { kind: 1, flags: 1, count, time_ms, payload: &[front, back] }]).unwrap()
}

/// A log of so many frames of 10 offsets and 140 bytes, all synced: 28 of them fill a segment.
fn filled(vfs: &SimVfs, frames: u64) -> Log {
    let (mut log, _) = open(vfs);
    for n in 0..frames {
        append(&mut log, 10, 100, 1_000 + n);
        log.sync().unwrap();
    }
    log
}

/// Everything that can be read, in pages of so many bytes.
fn read_all(reader: &LogReader, bytes_max: usize) -> (Vec<OwnedFrame>, Vec<Skipped>) {
    let (mut frames, mut skipped) = (Vec::new(), Vec::new());
    let mut from = 0;
    loop {
        let page = reader.read(from, bytes_max).unwrap();
        frames.extend(page.frames);
        skipped.extend(page.skipped);
        if page.next == from {
            return (frames, skipped);
        }
        assert!(page.next > from);
        from = page.next;
    }
}

/// The offsets of frames, which must hold what was written there.
fn offsets(frames: &[OwnedFrame]) -> Vec<u64> {
    for frame in frames {
        assert_eq!(frame.payload, payload(frame.offset, frame.payload.len()), "{}", frame.offset);
    }
    frames.iter().map(|frame| frame.offset).collect()
}

/// The files of the log with this ending, in order.
fn files(vfs: &SimVfs, ending: &str) -> Vec<PathBuf> {
    let names = vfs.list(Path::new(DIR)).unwrap();
    names.iter().filter(|name| name.ends_with(ending)).map(|name| Path::new(DIR).join(name)).collect()
}

fn content(vfs: &SimVfs, path: &Path) -> Vec<u8> {
    vfs.read(path, u64::MAX).unwrap()
}
