//! A stream that was closed in order, of which it is known which byte of which file belongs to which record: what the
//! corruption campaign damages.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use sealbus_broker::storage::stream::{Moment, NewRecord, Snapshots, StreamCore, StreamOptions};
use sealbus_broker::vfs::{SimVfs, Snapshot, Vfs};
use sealbus_protocol::batch::Batch;
use sealbus_protocol::frame::InstanceKind;

use super::author::{Author, POLICY_VERSION, START_MS};
use super::history::{Handed, StreamHistory};
use super::place::{Plan, stream_dir, stream_id};
use super::random::{Random, seed_salts};

/// Bytes of a segment's header, as the format says.
pub const SEGMENT_HEADER_BYTES: u64 = 96;

/// Bytes of a frame besides its payload, and of a payload besides topic and batch, as the formats say.
const FRAME_HEADER_BYTES: u64 = 40;
const RECORD_HEAD_BYTES: u64 = 18;

/// Bytes of the longest batch that fills a segment: more than any other batch has.
const LAST_BYTES_MAX: usize = 4_500;

/// What a file is to the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A segment that is complete.
    Sealed,
    /// The segment that grows.
    Active,
    /// The index file of a complete segment.
    Index,
    /// One of the two watermarks.
    Watermark,
    /// The checkpoint.
    Checkpoint,
}

/// A file of the stream.
#[derive(Debug, Clone)]
pub struct File {
    /// Where.
    pub path: PathBuf,
    /// What it is.
    pub kind: Kind,
    /// What is in it.
    pub bytes: Vec<u8>,
    /// For a segment, its records: which, from which byte, to which.
    pub records: Vec<(usize, u64, u64)>,
}

/// The stream, whole.
pub struct Subject {
    /// The disk.
    pub snapshot: Snapshot,
    /// The stream's directory.
    pub dir: PathBuf,
    /// How it is opened.
    pub options: StreamOptions,
    /// Everything that was published, all of it acknowledged.
    pub history: StreamHistory,
    /// Its files: segments in order, then the others.
    pub files: Vec<File>,
}

impl Subject {
    /// A stream of this many bytes in segments of this many.
    ///
    /// # Panics
    /// When the engine cannot write it to a disk without faults, or its files are not as the format says.
    #[must_use]
    pub fn new(segment_bytes: u64, bytes: u64) -> Self {
        seed_salts(0x0c0f_fee0);
        let sim = SimVfs::new();
        let vfs: Arc<dyn Vfs> = Arc::new(sim.clone());
        let (dir, plan) = (stream_dir(0), Plan { segment_bytes, keep_messages: None, ..Plan::SMALL });
        let options = StreamOptions { snapshots: Snapshots::None, ..plan.stream(0) };
        let (mut core, _) =
            StreamCore::open(vfs, &dir, options.clone(), None).expect("an empty disk can be opened");
        let mut history = StreamHistory::new(stream_id(0));
        let mut random = Random::new(77);
        let mut authors =
            [Author::new(1, "orders/eu", stream_id(0)), Author::new(2, "orders/us", stream_id(0))];
        let mut now_ms = START_MS;
        while core.bytes() < bytes {
            let author = usize::from(random.one_in(2));
            let Some(signing) = authors.get_mut(author) else { break };
            let active_bytes = core.segments().last().map_or(0, |active| active.bytes);
            let rest = segment_bytes.saturating_sub(active_bytes);
            let batch = match (fitting(rest, signing), random.between(1, 6)) {
                // The last of a segment fills it to its last byte.
                (Some(bytes), _) => signing.sign(1, bytes, &mut random),
                (None, 1) => signing.sign_heartbeat(),
                (None, 2..=4) => {
                    let (messages, bytes) = (random.between(1, 3) as u32, random.between(10, 200) as usize);
                    signing.sign(messages, bytes, &mut random)
                }
                (None, _) => signing.sign(2, random.between(400, 1_500) as usize, &mut random),
            };
            let topic = signing.identity().topic().clone();
            let batch = Batch::decode(batch).expect("an author's batch is well formed");
            let preamble = batch.preamble();
            now_ms += 137;
            history.hand_over(
                Handed {
                    author,
                    topic: topic.as_str(),
                    key_record: 5,
                    policy_version: POLICY_VERSION,
                    now_ms,
                    messages: preamble.content.messages(),
                    place: (preamble.first_seq, preamble.next_seq(), *batch.digest().as_bytes()),
                    batch: batch.bytes().clone(),
                },
                0,
            );
            let record = NewRecord::of_batch(&batch, topic, 5, InstanceKind::Random, POLICY_VERSION, now_ms);
            core.append_group(&[record]).expect("a disk without faults takes a batch");
            core.commit().expect("a disk without faults syncs");
            core.maintain(Moment::simulated(now_ms), None, &mut Vec::new()).expect("and keeps what is due");
        }
        history.acknowledge(0);
        core.close(&mut Vec::new()).expect("a disk without faults closes");
        drop(core);
        let files = files_of(&sim, &dir, &history);
        Self { snapshot: sim.snapshot(), dir, options, history, files }
    }

    /// A disk of its own with the stream on it.
    #[must_use]
    pub fn disk(&self) -> SimVfs {
        SimVfs::from_snapshot(&self.snapshot)
    }

    /// The files of a kind, with their numbers.
    pub fn files_of(&self, kind: Kind) -> impl Iterator<Item = (usize, &File)> {
        self.files.iter().enumerate().filter(move |(_, file)| file.kind == kind)
    }
}

/// Bytes of the message with which a batch takes all that is left of a segment, when little is left.
fn fitting(rest: u64, author: &Author) -> Option<usize> {
    let overhead = FRAME_HEADER_BYTES + RECORD_HEAD_BYTES + author.identity().topic().as_str().len() as u64;
    let batch = usize::try_from(rest.checked_sub(overhead)?).ok().filter(|batch| *batch < LAST_BYTES_MAX)?;
    (0..batch).rev().take(512).find(|bytes| Author::len_of(*bytes) == batch)
}

/// The files, with the records worked out from what was published.
fn files_of(sim: &SimVfs, dir: &Path, history: &StreamHistory) -> Vec<File> {
    let mut paths: Vec<PathBuf> = sim.files().into_iter().filter(|path| path.starts_with(dir)).collect();
    paths.sort_by_key(|path| (path.extension().is_none_or(|extension| extension != "log"), path.clone()));
    let segments =
        paths.iter().filter(|path| path.extension().is_some_and(|extension| extension == "log")).count();
    let mut record = 0;
    let mut files = Vec::new();
    for (number, path) in paths.into_iter().enumerate() {
        let bytes = sim.read(&path, u64::MAX).expect("what is listed can be read");
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let kind = match path.extension().and_then(|extension| extension.to_str()) {
            Some("log") if number + 1 == segments => Kind::Active,
            Some("log") => Kind::Sealed,
            Some("idx") => Kind::Index,
            Some("a" | "b") => Kind::Watermark,
            _ => {
                assert_eq!(name, "checkpoint", "no other file is known");
                Kind::Checkpoint
            }
        };
        let mut records = Vec::new();
        if number < segments {
            let mut at = SEGMENT_HEADER_BYTES;
            while at < bytes.len() as u64 {
                let entry = history.entries.get(record).expect("there are no more frames than batches");
                let topic = if entry.author == 0 { "orders/eu" } else { "orders/us" };
                let payload = RECORD_HEAD_BYTES + topic.len() as u64 + entry.batch.len() as u64;
                let end = at + FRAME_HEADER_BYTES + payload;
                records.push((record, at, end));
                (at, record) = (end, record + 1);
            }
            assert_eq!(at, bytes.len() as u64, "a segment has its frames and nothing else");
        }
        files.push(File { path, kind, bytes, records });
    }
    assert_eq!(record, history.entries.len(), "every batch is in a segment");
    files
}
