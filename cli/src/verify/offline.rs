//! The check of a stream's files: no broker, no network, and not one byte is changed.
//!
//! ```text
//!   DIR/sealbus.toml  ──> data directory, bus id        or DIR is the data directory itself
//!   $policy           ──> which stream is called so
//!   $keys, trust.toml ──> who signed, judged as of when it was stored
//!   streams/ID/       ──> every frame, every batch, every leaf, and the root against the checkpoint
//! ```

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use indicatif::ProgressBar;
use sealbus_broker::config::Config;
use sealbus_broker::storage::stream::{
    CHECKPOINT_FILE, CheckpointFinding, VerifyOptions, VerifyReport, verify_stream,
};
use sealbus_broker::storage::system::keys::KeyDirectory;
use sealbus_broker::storage::system::policies::{POLICY_FRAME, decode_policy};
use sealbus_broker::storage::system::{ConsumerKey, SystemLog, dead_letters_id};
use sealbus_broker::storage::whole::stream_dir;
use sealbus_broker::vfs::{Lock, OsVfs, Vfs};
use sealbus_client::{StreamId, StreamName, Trust};
use sealbus_protocol::policy::Policy;

use crate::failure::Failure;
use crate::text::{binary_bytes, count, hex, thousands};

use super::copied_log::CopiedLog;
use super::findings::{CheckpointSeen, Findings, Judgement, PROBLEMS_MAX};
use super::held::HeldCheckpoint;
use super::judge::Judge;

/// Bytes of a note; a checkpoint has about two hundred.
const NOTE_BYTES_MAX: u64 = 64 * 1_024;

/// Where a broker keeps its files.
pub(crate) struct Folder {
    data_dir: PathBuf,
    /// The `trust.toml` of a bus folder.
    pub(crate) trust: Option<PathBuf>,
}

impl Folder {
    /// What a person named: a bus folder, or a data directory.
    pub(crate) fn find(dir: &Path) -> Result<Self, Failure> {
        let config = dir.join("sealbus.toml");
        if config.is_file() {
            let config = Config::load(&OsVfs, &config).map_err(|error| {
                Failure::new(format!("read the configuration {}", config.display()), error)
            })?;
            let trust = Some(dir.join("trust.toml")).filter(|path| path.is_file());
            return Ok(Self { data_dir: config.data_dir, trust });
        }
        if dir.join("streams").is_dir() {
            return Ok(Self { data_dir: dir.to_owned(), trust: None });
        }
        let found = "there is neither a sealbus.toml nor a folder named streams in it";
        Err(Failure::new(format!("find a broker's files in {}", dir.display()), found)
            .advising("name a bus folder, as `sealbus init` makes it, or the `data_dir` of its sealbus.toml"))
    }

    /// Keeps a broker from starting meanwhile. One that runs is in the way: what it writes would look like damage.
    fn lock(&self) -> Result<Option<Box<dyn Lock>>, Failure> {
        let path = self.data_dir.join("LOCK");
        if !path.is_file() {
            return Ok(None);
        }
        match OsVfs.lock(&path) {
            Ok(lock) => Ok(Some(lock)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(Failure::new(
                format!("check the files in {}", self.data_dir.display()),
                "a broker is using them",
            )
            .advising("leave --dir out to check over the network, stop the broker, or check a copy")),
            // A copy on a medium that cannot be written is what nobody else writes to, either.
            Err(_) => Ok(None),
        }
    }

    /// The stream that is called so by every policy that was kept and has one of that name; or of this id. The newest
    /// policy alone does not tell: it is kept before it comes into force, and may have been refused then.
    fn stream(&self, trust: &Trust, name: &str) -> Result<StreamId, Failure> {
        let attempted = || format!("find the stream {name} in {}", self.data_dir.display());
        if let Ok(id) = name.parse::<StreamId>() {
            return Ok(id);
        }
        let parsed = StreamName::parse(name).map_err(|error| Failure::usage(attempted(), error))?;
        let policies = self.policies(trust)?;
        let policy = policies.last().expect("there is at least one, or reading them fails");
        let governing = parsed.governing();
        let mut named: Vec<StreamId> = policies
            .iter()
            .filter_map(|policy| policy.streams().iter().find(|stream| stream.name() == governing))
            .map(|stream| stream.id())
            .collect();
        named.sort();
        named.dedup();
        if named.len() > 1 {
            let ids: Vec<String> = named.iter().map(ToString::to_string).collect();
            return Err(Failure::new(
                attempted(),
                format!("policies gave that name to {} streams, one after the other", ids.len()),
            )
            .advising(format!("name the stream by its id: {}", ids.join(", "))));
        }
        let id = named.first().copied().ok_or_else(|| {
            let known: Vec<&str> = policy.streams().iter().map(|stream| stream.name().as_str()).collect();
            Failure::new(
                attempted(),
                format!("version {} of the policy has none of that name", policy.version()),
            )
            .advising(format!("it has: {}. A stream can be named by its id, too", known.join(", ")))
        })?;
        Ok(match parsed {
            StreamName::Plain(_) => id,
            StreamName::DeadLetters { consumer, .. } => {
                dead_letters_id(&ConsumerKey { stream: id, name: consumer })
            }
        })
    }

    /// Every policy that was kept, in their order: at least one.
    fn policies(&self, trust: &Trust) -> Result<Vec<Policy>, Failure> {
        let copied = CopiedLog::open(&self.data_dir, trust.bus_id(), SystemLog::Policy)?;
        let failed = |found: String| {
            Failure::new(format!("read the policies in {}", self.data_dir.display()), found)
                .advising("name the stream by its id, which is the name of its folder in data/streams")
        };
        let (reader, mut document, mut policies) = (copied.log.reader(), Vec::new(), Vec::new());
        let scanned = reader.scan(reader.first_record(), &mut |frame| {
            let payload = bytes::Bytes::copy_from_slice(frame.payload);
            if let (POLICY_FRAME, Ok(part)) = (frame.kind, decode_policy(&payload)) {
                if part.part == 0 {
                    document.clear();
                }
                document.extend_from_slice(&part.bytes);
                // One that is damaged or was cut short is none; what it named is named by its id.
                let text = (part.part + 1 == part.parts).then(|| std::str::from_utf8(&document).ok());
                policies.extend(text.flatten().and_then(|text| Policy::parse(text).ok()));
            }
            std::ops::ControlFlow::Continue(())
        });
        scanned.map_err(|error| failed(error.to_string()))?;
        if policies.is_empty() {
            return Err(failed("there is none that is whole".to_owned()));
        }
        Ok(policies)
    }
}

/// Checks a stream's files. Blocks for as long as it takes to read them all.
pub(crate) fn verify(
    folder: &Folder,
    trust: &Trust,
    name: &str,
    held: Option<&Path>,
    bar: &ProgressBar,
) -> Result<Findings, Failure> {
    let _lock = folder.lock()?;
    let stream_id = folder.stream(trust, name)?;
    let dir = stream_dir(&folder.data_dir, stream_id);
    let attempted = || format!("check the stream {name} in {}", dir.display());
    let copied_keys = CopiedLog::open(&folder.data_dir, trust.bus_id(), SystemLog::Keys)?;
    let keys = KeyDirectory::new(copied_keys.log.reader());
    let options = VerifyOptions { bus_id: trust.bus_id(), stream_id, log_key: trust.log_key().copied() };
    let mut judge = Judge::new(trust.producers(), &keys);
    let mut check = |vfs: Arc<dyn Vfs>| {
        verify_stream(vfs, &dir, &options, &mut |question| judge.judge(question), &mut |progress| {
            bar.set_length(progress.end_record);
            bar.set_position(progress.records);
        })
        .map_err(|error| Failure::new(attempted(), error))
    };
    let report = check(Arc::new(OsVfs))?;
    let mut findings = findings(name, stream_id, trust, &report);
    if let Some(held) = held {
        let note = OsVfs.read(held, NOTE_BYTES_MAX);
        let note =
            note.map_err(|error| Failure::new(format!("read the checkpoint {}", held.display()), error))?;
        let report = check(Arc::new(HeldCheckpoint { inner: Arc::new(OsVfs), note }))?;
        let (judgement, found) = of_checkpoint(&report, trust);
        findings.add("the one held", judgement, found);
    }
    let note = OsVfs.read(&dir.join(CHECKPOINT_FILE), NOTE_BYTES_MAX).unwrap_or_default();
    if let CheckpointFinding::Confirmed { size, root } = &report.checkpoint {
        let note = String::from_utf8_lossy(&note).into_owned();
        findings.checkpoint = Some(CheckpointSeen { size: *size, root: *root.as_bytes(), note });
    }
    let producers = judge.producers.len();
    findings.add(
        "producers",
        Judgement::Whole,
        format!(
            "{} of {}",
            count(report.incarnations, "incarnation", "incarnations"),
            count(producers as u64, "principal", "principals")
        ),
    );
    Ok(findings)
}

fn findings(name: &str, stream_id: StreamId, trust: &Trust, report: &VerifyReport) -> Findings {
    let damage = report.damage.iter().cloned();
    let problems = damage.chain(report.faults.iter().map(ToString::to_string)).take(PROBLEMS_MAX).collect();
    let mut findings = Findings {
        stream: name.to_owned(),
        stream_id,
        offsets: report.offsets.clone(),
        batches: report.verified,
        messages: report.messages,
        bytes: Some(report.bytes),
        stored_ms: report.times_ms,
        rows: Vec::new(),
        problems,
        problem_count: report.fault_count.saturating_add(report.damage.len() as u64),
        checkpoint: None,
    };
    let kept = report.records.saturating_sub(report.trimmed_records);
    match (report.damage.len(), report.lost_records) {
        (0, 0) => findings.add(
            "files",
            Judgement::Whole,
            format!("{}, each intact", count(kept, "record", "records")),
        ),
        (damage, lost) => findings.add(
            "files",
            Judgement::Tampered,
            format!(
                "{}, {} lost with their leaves",
                count(damage as u64, "damaged place", "damaged places"),
                count(lost, "record", "records")
            ),
        ),
    }
    if report.torn_bytes > 0 {
        let torn = binary_bytes(report.torn_bytes);
        findings.add("tail", Judgement::Whole, format!("{torn} torn at the end, of which nobody was told"));
    }
    if report.trimmed_records > 0 {
        let trimmed = thousands(report.trimmed_records);
        let found = format!(
            "{trimmed} batches were removed before offset {}; their leaves are here",
            report.offsets.start
        );
        findings.add("retention", Judgement::Incomplete, found);
    }
    match report.fault_count {
        0 => {
            let found = format!(
                "{} of {} good: each by a certificate that was good when it was stored, chained, dense",
                thousands(report.verified),
                thousands(report.verified)
            );
            findings.add("batches", Judgement::Whole, found);
        }
        faults => {
            let found =
                format!("{} good, {}", thousands(report.verified), count(faults, "problem", "problems"));
            findings.add("batches", Judgement::Tampered, found);
        }
    }
    let (judgement, found) = of_checkpoint(report, trust);
    findings.add("checkpoint", judgement, found);
    findings
}

fn of_checkpoint(report: &VerifyReport, trust: &Trust) -> (Judgement, String) {
    let signed = match trust.log_key() {
        Some(_) => "signed by the log key",
        None => "whose signature was not checked: trust.toml has no [log] key",
    };
    match &report.checkpoint {
        CheckpointFinding::Confirmed { size, root } => {
            let judgement = if trust.log_key().is_some() { Judgement::Whole } else { Judgement::Incomplete };
            let behind = match report.records.saturating_sub(*size) {
                0 => String::new(),
                later => format!(", {} stored after it", thousands(later)),
            };
            let size = count(*size, "batch", "batches");
            (judgement, format!("{size}, {signed}{behind}; the same root {}", hex(root.as_bytes())))
        }
        CheckpointFinding::Missing if report.records == 0 => {
            (Judgement::Whole, "none, and nothing to vouch for".to_owned())
        }
        CheckpointFinding::Missing => {
            (Judgement::Incomplete, "none: nobody vouches for the whole".to_owned())
        }
        CheckpointFinding::Refused(why) => (Judgement::Tampered, why.clone()),
        CheckpointFinding::Beyond { size } => (
            Judgement::RolledBack,
            format!(
                "{}, {signed}; there are {}",
                count(*size, "batch", "batches"),
                thousands(report.records)
            ),
        ),
        CheckpointFinding::Unprovable { size } => (
            Judgement::Incomplete,
            format!(
                "{}, {signed}; some of their leaves are lost, so that no root can be compared",
                count(*size, "batch", "batches")
            ),
        ),
        CheckpointFinding::Contradicted { size, signed: root, found } => (
            Judgement::Tampered,
            format!(
                "{}, {signed}, with the root {}; these have {}",
                count(*size, "batch", "batches"),
                hex(root.as_bytes()),
                hex(found.as_bytes())
            ),
        ),
    }
}
