//! Rows in sled. The only place that calls it.
//!
//! sled 0.34 panics where others give errors, above all on what it reads from a damaged file. Every call is therefore
//! fenced; after the first panic or error it is not called again, not even to be closed: closing writes, and a panic
//! while another unwinds ends the process.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};
use rustix::io::retry_on_intr;

use super::error::IndexError;
use super::row_index::RowIndex;
use super::rows::{Changes, Row, Rows, Visit};

/// The index on the disk.
pub type SledIndex = RowIndex<SledRows>;

/// Bytes of pages that sled keeps in memory. The index is read when the broker starts and hardly ever afterwards.
const CACHE_BYTES: u64 = 16 * 1_024 * 1_024;

/// How long a thread of sled's may take to let go of a database that was closed. It takes milliseconds; one that died
/// never does, and the broker must be able to stop all the same.
const UNLOCKED_WITHIN: Duration = Duration::from_secs(5);

/// Rows in the default tree of a sled database.
pub struct SledRows {
    /// There until this is dropped.
    database: Option<::sled::Db>,
    /// The file that sled locks while it has the database open.
    lock: PathBuf,
    failed: AtomicBool,
}

impl SledRows {
    /// Opens or makes the database in a directory.
    ///
    /// # Errors
    /// [`IndexError`] when sled refuses or panics.
    pub(super) fn open(dir: &Path) -> Result<Self, IndexError> {
        let config = ::sled::Config::new()
            .path(dir)
            .cache_capacity(CACHE_BYTES)
            .mode(::sled::Mode::LowSpace)
            // Its owner says when, so that there is no thread of sled's own that fails unseen.
            .flush_every_ms(None);
        let database = fenced("open", || config.open())?;
        Ok(Self { database: Some(database), lock: dir.join("db"), failed: AtomicBool::new(false) })
    }

    /// Calls sled, unless it has failed before.
    fn call<T>(
        &self,
        doing: &'static str,
        call: impl FnOnce(&::sled::Db) -> Result<T, ::sled::Error>,
    ) -> Result<T, IndexError> {
        if self.failed.load(Ordering::Acquire) {
            return Err(IndexError::Failed { doing });
        }
        let database = self.database.as_ref().expect("the database is there until this is dropped");
        fenced(doing, || call(database)).inspect_err(|_| self.failed.store(true, Ordering::Release))
    }
}

impl Rows for SledRows {
    fn row(&self, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError> {
        self.call("read a row", |database| Ok(database.get(key)?.map(|value| value.to_vec())))
    }

    fn scan(&self, prefix: &[u8], visit: &mut Visit<'_>) -> Result<(), IndexError> {
        let mut rows = self.call("read rows", |database| Ok(database.scan_prefix(prefix)))?;
        while let Some((key, value)) = self.call("read rows", |_| rows.next().transpose())? {
            visit(&key, &value)?;
        }
        Ok(())
    }

    fn last_within(&self, first: &[u8], last: &[u8]) -> Result<Option<Row>, IndexError> {
        self.call("read rows", |database| {
            let found = database.range(first..=last).next_back().transpose()?;
            Ok(found.map(|(key, value)| (key.to_vec(), value.to_vec())))
        })
    }

    fn write(&self, changes: Changes) -> Result<(), IndexError> {
        let mut batch = ::sled::Batch::default();
        for (key, value) in changes {
            match value {
                Some(value) => batch.insert(key, value),
                None => batch.remove(key),
            }
        }
        self.call("write rows", |database| database.apply_batch(batch))
    }

    fn flush(&self) -> Result<(), IndexError> {
        self.call("flush", |database| database.flush().map(drop))
    }
}

impl std::fmt::Debug for SledRows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SledRows").field("failed", &self.failed).finish_non_exhaustive()
    }
}

impl Drop for SledRows {
    fn drop(&mut self) {
        let Some(database) = self.database.take() else { return };
        if *self.failed.get_mut() {
            // Left as it is, with its file and its lock: closing it is one more chance to panic.
            std::mem::forget(database);
        } else if catch_unwind(AssertUnwindSafe(move || drop(database))).is_ok() {
            await_unlocked(&self.lock);
        } else {
            // What was flushed before is there, and the next start looks at every row.
        }
    }
}

/// Returns once sled's lock on a database that was closed is gone, or after [`UNLOCKED_WITHIN`]. A thread of sled's may
/// still be at the end of its work then, and whoever opened the database again in that moment would find it locked, and
/// take it for damaged.
fn await_unlocked(lock: &Path) {
    // Where the file cannot be opened or locked, whoever opens the database next is told.
    let Ok(file) = open(lock, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) else { return };
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
        return;
    }
    let (sender, unlocked) = mpsc::channel();
    let waiting = thread::Builder::new().name("sealbus-index".to_owned()).spawn(move || {
        let _ = retry_on_intr(|| flock(&file, FlockOperation::LockExclusive));
        drop(file);
        let _ = sender.send(());
    });
    if waiting.is_ok() && unlocked.recv_timeout(UNLOCKED_WITHIN).is_err() {
        tracing::warn!(
            "the index is still locked after it was closed: whoever opens it next may make a new one"
        );
    }
}

/// Calls sled and turns a panic into an error. That nothing is half changed is no concern: what sled holds is never
/// used again, and of ours it borrows nothing that it could change.
fn fenced<T>(doing: &'static str, call: impl FnOnce() -> Result<T, ::sled::Error>) -> Result<T, IndexError> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(source)) => Err(IndexError::Engine { doing, source }),
        Err(_) => Err(IndexError::Panicked { doing }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error_and_the_last_call() {
        let directory = tempfile::tempdir().unwrap();
        let rows = SledRows::open(directory.path()).unwrap();
        rows.write([(b"a".to_vec(), Some(b"1".to_vec()))].into()).unwrap();
        rows.flush().unwrap();
        let error =
            rows.call("try", |_| -> Result<(), ::sled::Error> { panic!("as sled does") }).unwrap_err();
        assert!(matches!(error, IndexError::Panicked { doing: "try" }), "{error}");
        let error = rows.row(b"a").unwrap_err();
        assert!(matches!(error, IndexError::Failed { doing: "read a row" }), "{error}");
        assert!(rows.write(Changes::new()).is_err() && rows.flush().is_err());
        // It is left open: nobody in this process opens it again, and the next process finds what was flushed.
        drop(rows);
        assert!(matches!(SledRows::open(directory.path()), Err(IndexError::Engine { doing: "open", .. })));
    }

    /// It failed three times in four while nobody waited for sled's lock.
    #[test]
    fn what_was_closed_can_be_opened_at_once() {
        let directory = tempfile::tempdir().unwrap();
        for round in 0..100u32 {
            let rows = SledRows::open(directory.path()).expect("nobody has it open");
            rows.write([(round.to_be_bytes().to_vec(), Some(vec![1; 64 * 1_024]))].into()).unwrap();
        }
    }

    #[test]
    fn a_scan_ends_with_its_prefix_and_with_its_visitor() {
        let directory = tempfile::tempdir().unwrap();
        let rows = SledRows::open(directory.path()).unwrap();
        rows.write([b"a1", b"b1", b"b2", b"c1"].map(|key| (key.to_vec(), Some(Vec::new()))).into()).unwrap();
        let mut seen = Vec::new();
        rows.scan(b"b", &mut |key, _| {
            seen.push(key.to_vec());
            Ok(())
        })
        .unwrap();
        assert_eq!(seen, [b"b1", b"b2"]);
        let ended = rows.scan(b"", &mut |_, _| Err(crate::storage::index::error::Damage::Key.into()));
        assert!(matches!(ended, Err(IndexError::Damaged { .. })));
        // What a visitor says is not a failure of sled's.
        assert_eq!(rows.last_within(b"a", b"b9").unwrap(), Some((b"b2".to_vec(), Vec::new())));
    }
}
