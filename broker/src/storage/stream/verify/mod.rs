//! The check of a whole stream, by nothing but its files, the log key and whoever judges certificates.
//!
//! ```text
//!   each frame  -> CRC, offsets dense -> batch: format, bus, topic, content hash, signature (strict), key judged then
//!               -> its producer's chain -> leaf: time and policy never go back -> tree
//!   the tree    -> root = the checkpoint's, and that is signed by the log key
//! ```
//!
//! Nothing of it trusts the broker that wrote the files: what a broker could have changed is found, as far as a
//! checkpoint that somebody holds covers it. Nothing of it writes.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use sealbus_protocol::tlog::{VerifierKey, stream_origin};

mod check;
mod question;
mod report;
mod signed;

pub use question::{KeyJudge, KeyQuestion, VerifyOptions, VerifyProgress};
pub use report::{CheckpointFinding, Fault, Verdict, VerifyError, VerifyReport};

use self::check::Check;
use self::signed::read_checkpoint;
use super::opening::describe;
use super::overlay::Overlay;
use super::record::leaf_digest;
use crate::storage::log::{Log, LogOptions};
use crate::vfs::Vfs;

/// Checks the stream in `dir` whole. Blocks for as long as it takes to read it all.
///
/// # Errors
/// [`VerifyError`] when it cannot be read at all. Whatever is wrong with what can be read is in the report.
pub fn verify_stream(
    vfs: Arc<dyn Vfs>,
    dir: &Path,
    options: &VerifyOptions,
    judge: &mut KeyJudge<'_>,
    progress: &mut dyn FnMut(VerifyProgress),
) -> Result<VerifyReport, VerifyError> {
    let verifier = match &options.log_key {
        Some(key) => Some(
            VerifierKey::new(stream_origin(&options.bus_id, &options.stream_id), key)
                .map_err(|_| VerifyError::LogKey)?,
        ),
        None => None,
    };
    vfs.list(dir).map_err(|source| VerifyError::Directory { path: dir.to_owned(), source })?;
    let overlay: Arc<dyn Vfs> = Arc::new(Overlay::new(vfs));
    let (log, recovery) =
        Log::open(Arc::clone(&overlay), dir, log_options(options)).map_err(VerifyError::Log)?;
    let reader = log.reader();
    let checkpoint = read_checkpoint(&*overlay, dir, options, verifier.as_ref())?;

    let end_record = log.end_record();
    let mut check = Check::new(options, log.first_offset(), end_record);
    let first_record = log.segments().iter().map(|segment| segment.first_record).min().unwrap_or(end_record);
    check.is_holed = first_record > 0;
    check.trimmed_records = first_record;
    check.lost(&reader, 0..first_record, &checkpoint).map_err(VerifyError::Read)?;
    let mut unread = Ok(());
    reader
        .scan(first_record, &mut |frame| {
            unread = check.frame(frame, &reader, &checkpoint, judge);
            if frame.record.is_multiple_of(1_024) {
                progress(VerifyProgress { records: frame.record, end_record });
            }
            if unread.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })
        .map_err(VerifyError::Read)?;
    unread.map_err(VerifyError::Read)?;
    let rest = check.tree.size()..end_record;
    check.lost(&reader, rest, &checkpoint).map_err(VerifyError::Read)?;
    progress(VerifyProgress { records: end_record, end_record });

    let damage = recovery.damage.into_iter().chain(reader.take_new_damage());
    let mut damage: Vec<String> = damage.map(|damage| describe(&damage)).collect();
    damage.sort();
    damage.dedup();
    Ok(check.report(
        log.first_offset()..log.end_offset(),
        checkpoint,
        damage,
        recovery.cut.map_or(0, |cut| cut.bytes),
    ))
}

fn log_options(options: &VerifyOptions) -> LogOptions {
    LogOptions {
        bus_id: options.bus_id,
        log_id: options.stream_id,
        segment_bytes: u64::MAX,
        digest: Some(|frame, options| leaf_digest(frame, options.bus_id, options.log_id)),
        // Nothing is written but to memory, so that no salt is ever used.
        salt: || 0,
    }
}
