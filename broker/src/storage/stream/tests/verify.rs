//! The check of a whole stream: what it confirms, and what it does not overlook.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use sealbus_protocol::batch::Batch;
use sealbus_protocol::frame::InstanceKind;
use sealbus_protocol::keys::VerifyingKey;
use sealbus_protocol::tlog::LogKey;

use super::engines::{STREAM, options, signer};
use crate::storage::stream::conformance::{Author, BUS, NOW_MS, POLICY_VERSION};
use crate::storage::stream::store::TrimReason;
use crate::storage::stream::{
    CheckpointFinding, KeyQuestion, Moment, NewRecord, StreamCore, Verdict, VerifyOptions, VerifyReport,
    verify_stream,
};
use crate::vfs::{SimVfs, Vfs};

const DIR: &str = "/stream";
const BATCHES: u64 = 60;

struct Made {
    vfs: SimVfs,
    key: VerifyingKey,
}

/// A stream of some segments, closed.
fn made() -> Made {
    let vfs = SimVfs::new();
    let mut author = Author::new(1, "orders/eu", STREAM);
    let core = StreamCore::open(Arc::new(vfs.clone()), Path::new(DIR), options(), None);
    let (mut core, _) = core.unwrap();
    for number in 0..BATCHES {
        let bytes = if number % 7 == 0 { author.sign_heartbeat() } else { author.sign(2, 300) };
        let batch = Batch::decode(bytes).unwrap();
        let topic = author.topic().clone();
        let record =
            NewRecord::of_batch(&batch, topic, 3, InstanceKind::Random, POLICY_VERSION, NOW_MS + number);
        core.append_group(&[record]).unwrap();
        core.commit().unwrap();
    }
    core.close(&mut Vec::new()).unwrap();
    assert!(core.segments().len() > 2);
    Made { vfs, key: author.verifying_key() }
}

fn log_key() -> [u8; 32] {
    LogKey::from_seed(&[9; 32].into()).public()
}

impl Made {
    fn verify(&self) -> VerifyReport {
        self.verify_judged(&mut |_| Ok(self.key))
    }

    fn verify_judged(
        &self,
        judge: &mut dyn FnMut(&KeyQuestion<'_>) -> Result<VerifyingKey, String>,
    ) -> VerifyReport {
        let options = VerifyOptions { bus_id: BUS, stream_id: STREAM, log_key: Some(log_key()) };
        let vfs: Arc<dyn Vfs> = Arc::new(self.vfs.clone());
        let before = self.vfs.operations();
        let mut progressed = 0;
        let report = verify_stream(vfs, Path::new(DIR), &options, judge, &mut |progress| {
            assert!(progress.records <= progress.end_record);
            progressed += 1;
        });
        assert!(progressed > 0);
        assert_eq!(self.vfs.operations(), before, "a check changes nothing");
        report.unwrap()
    }

    fn segments(&self) -> Vec<PathBuf> {
        let logs = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "log");
        let mut segments: Vec<_> = self.vfs.files().into_iter().filter(logs).collect();
        segments.sort();
        segments
    }

    fn reopen(&self) -> StreamCore {
        StreamCore::open(Arc::new(self.vfs.clone()), Path::new(DIR), options(), None).unwrap().0
    }
}

#[test]
fn a_whole_stream_is_confirmed() {
    let made = made();
    let report = made.verify();
    assert_eq!((report.verdict(), report.faults.as_slice()), (Verdict::Whole, [].as_slice()), "{report:?}");
    assert_eq!((report.records, report.verified), (BATCHES, BATCHES));
    assert_eq!(report.messages, 2 * (BATCHES - BATCHES.div_ceil(7)));
    assert_eq!(report.times_ms, Some((NOW_MS, NOW_MS + BATCHES - 1)));
    assert_eq!(report.checkpoint, CheckpointFinding::Confirmed { size: BATCHES, root: report.root });
}

#[test]
fn a_judge_is_asked_as_of_the_time_of_appending() {
    let made = made();
    let report = made.verify_judged(&mut |question| {
        assert_eq!((question.key_record, question.topic.as_str()), (3, "orders/eu"));
        if question.append_ms < NOW_MS + 10 { Ok(made.key) } else { Err("had been revoked".to_owned()) }
    });
    assert_eq!((report.verdict(), report.verified, report.fault_count), (Verdict::Altered, 10, BATCHES - 10));
    assert!(report.faults[0].to_string().ends_with("had been revoked"), "{}", report.faults[0]);
}

#[test]
fn a_stream_without_a_checkpoint_is_vouched_for_by_nobody() {
    let made = made();
    made.vfs.remove_file(&Path::new(DIR).join("checkpoint")).unwrap();
    assert_eq!(made.verify().verdict(), Verdict::Unvouched);
}

#[test]
fn any_flipped_bit_of_a_segment_is_found() {
    let made = made();
    let whole = made.vfs.snapshot();
    let path = made.segments()[1].clone();
    let bits = made.vfs.read(&path, 1 << 20).unwrap().len() as u64 * 8;
    for bit in (0..bits).step_by(1_009) {
        made.vfs.flip_bit(&path, bit).unwrap();
        let report = made.verify();
        // One bit of a header may be mended by the log, which says so; nothing else may pass.
        assert!(
            matches!(report.verdict(), Verdict::Damaged | Verdict::Altered),
            "bit {bit} of {bits}: {report:?}"
        );
        assert!(report.verified >= BATCHES - 2, "bit {bit} costs one record at most: {report:?}");
        made.vfs.restore(&whole);
    }
}

#[test]
fn a_stream_that_was_cut_is_found() {
    let made = made();
    let path = made.segments().pop().unwrap();
    let bytes = made.vfs.read(&path, 1 << 20).unwrap();
    made.vfs.truncate_file(&path, bytes.len() as u64 - 1_000).unwrap();
    let report = made.verify();
    assert_eq!(report.verdict(), Verdict::Damaged, "{report:?}");
    assert_eq!(
        (report.records, report.checkpoint),
        (BATCHES, CheckpointFinding::Unprovable { size: BATCHES })
    );
    // The broker says so, too, goes on behind what is lost, and gives no offset twice.
    let (core, opened) = StreamCore::open(Arc::new(made.vfs), Path::new(DIR), options(), None).unwrap();
    assert!(!opened.events.is_empty() && opened.stopped.is_none(), "{opened:?}");
    assert_eq!((core.end_record(), core.bounds().end), (BATCHES, report.offsets.end));
}

#[test]
fn a_trimmed_stream_still_leads_to_its_checkpoint() {
    let made = made();
    let mut core = made.reopen();
    core.maintain(Moment::simulated(NOW_MS), None, &mut Vec::new()).unwrap();
    let first = core.trim(60, TrimReason::Asked, &mut Vec::new()).unwrap();
    assert!(first > 0);
    drop(core);
    let report = made.verify();
    assert_eq!(report.verdict(), Verdict::Whole, "{report:?}");
    assert_eq!(report.offsets.start, first);
    assert!(report.trimmed_records > 0 && report.verified < BATCHES);
    assert_eq!(report.verified + report.trimmed_records, BATCHES);
}

/// The broker's own programs, used against its users: records that are whole and were never signed over.
#[test]
fn a_stream_that_was_written_anew_is_found() {
    let (made, rewritten) = (made(), SimVfs::new());
    let mut author = Author::new(1, "orders/eu", STREAM);
    let core = StreamCore::open(Arc::new(rewritten.clone()), Path::new(DIR), options(), None);
    let (mut core, _) = core.unwrap();
    for number in 0..BATCHES {
        let batch = Batch::decode(author.sign(2, 301)).unwrap();
        let topic = author.topic().clone();
        let record =
            NewRecord::of_batch(&batch, topic, 3, InstanceKind::Random, POLICY_VERSION, NOW_MS + number);
        core.append_group(&[record]).unwrap();
        core.commit().unwrap();
    }
    drop(core);
    let name = Path::new(DIR).join("checkpoint");
    let signed = made.vfs.read(&name, 10_000).unwrap();
    rewritten.write_file(&name, &signed).unwrap();
    let key = made.key;
    let report = Made { vfs: rewritten, key }.verify();
    assert_eq!(report.verified, BATCHES, "its producer did sign all of it");
    assert!(matches!(report.checkpoint, CheckpointFinding::Contradicted { .. }), "{report:?}");
    assert_eq!(report.verdict(), Verdict::Altered);
}

#[test]
fn a_checkpoint_by_another_key_is_refused() {
    let made = made();
    let name = Path::new(DIR).join("checkpoint");
    let note = made.vfs.read(&name, 10_000).unwrap();
    let text = sealbus_protocol::tlog::SignedNote::parse(&note).unwrap().text_unverified().to_owned();
    let other = LogKey::from_seed(&[8; 32].into()).signer(signer().name().clone());
    made.vfs.write_file(&name, other.sign(&text).unwrap().to_string().as_bytes()).unwrap();
    let report = made.verify();
    assert!(matches!(report.checkpoint, CheckpointFinding::Refused(_)), "{report:?}");
    assert_eq!(report.verdict(), Verdict::Altered);
}
