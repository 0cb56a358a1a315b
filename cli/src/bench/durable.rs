//! How many messages are acknowledged after fdatasync, beside a bare loop that writes and syncs the same bytes.
//!
//! ```text
//!   publishers ──> broker ──> groups: one write and one fdatasync each     messages / s
//!                                |
//!                 read from the log afterwards: which sizes, in which order
//!                                v
//!   bare loop on a file beside it: write(size), fdatasync, write(size), fdatasync ...
//! ```
//!
//! Each frame of a log says up to where everything was durable when it was written. Frames that say the same were
//! written as one group; so the sizes of the broker's groups are not estimated but known.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sealbus_broker::storage::log::{Log, LogOptions, random_salt};
use sealbus_broker::storage::stream::leaf_digest;
use sealbus_broker::storage::whole::stream_dir;
use sealbus_broker::vfs::OsVfs;
use sealbus_client::{Bus, Durability, EnqueueError, Publisher, Trust};
use sealbus_protocol::ids::{BusId, StreamId};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::failure::{Failure, Verdict};
use crate::table::fields;
use crate::text::{binary_bytes, thousands};

use super::measured::MeasuredBroker;
use super::pubsub::{Amount, shares};
use super::{connect, payload, progress};

/// The stream of the bench. The bus is a fresh one, so that any id will do.
const STREAM_ID: StreamId = StreamId::new([0xbe; StreamId::LEN]);

/// Bytes of a frame's header in the log.
const FRAME_HEADER_BYTES: u64 = 40;

/// Messages that a publisher sends between two looks at the clock.
const LOOK_EVERY: u64 = 64;

/// What is measured.
#[derive(Debug, Clone)]
pub(crate) struct Durable {
    pub(crate) size_bytes: u32,
    pub(crate) amount: Amount,
    /// Publishers of each run.
    pub(crate) publishers: Vec<u32>,
    /// Where the temporary folder is made, which says which disk is measured.
    pub(crate) dir: Option<PathBuf>,
}

/// What the runs found.
pub(crate) struct DurableReport {
    size_bytes: u32,
    file_system: String,
    runs: Vec<Run>,
}

/// One run, and the bare loop after it.
struct Run {
    publishers: u32,
    messages: u64,
    elapsed: Duration,
    groups: Vec<u64>,
    /// Messages that the log holds.
    stored: u64,
    bare: Duration,
    broker_cpu: Duration,
}

/// Runs the bench.
pub(crate) async fn run(durable: &Durable) -> Result<DurableReport, Failure> {
    let mut runs = Vec::new();
    let mut file_system = String::new();
    for publishers in &durable.publishers {
        let broker = MeasuredBroker::start(durable.dir.as_deref(), &policy())?;
        file_system = file_system_of(broker.folder().root());
        let bar = progress(format!("durable: {} B, {publishers} publishers", durable.size_bytes));
        let before = broker.usage()?;
        let (messages, elapsed) = publish_all(&broker, durable, *publishers).await?;
        let broker_cpu = broker.usage()?.since(before).cpu;
        bar.set_message("bare write and fdatasync of the same sizes");
        let (folder, temporary) = broker.stop();
        let trust = Trust::from_file(folder.path("trust.toml"))
            .map_err(|error| Failure::new("read the bench's trust.toml", error))?;
        let (groups, stored) = groups(&folder.path("data"), trust.bus_id())?;
        let bare = bare_loop(temporary.path(), &groups)?;
        bar.finish_and_clear();
        runs.push(Run { publishers: *publishers, messages, elapsed, groups, stored, bare, broker_cpu });
    }
    Ok(DurableReport { size_bytes: durable.size_bytes, file_system, runs })
}

fn policy() -> String {
    format!(
        "\n[[stream]]\nname = \"bench\"\nid = \"{STREAM_ID}\"\ntopics = [\"bench/#\"]\ndurability = \"fsync\"\n"
    )
}

async fn publish_all(
    broker: &MeasuredBroker,
    durable: &Durable,
    publishers: u32,
) -> Result<(u64, Duration), Failure> {
    let mut lanes = Vec::new();
    for index in 0..publishers {
        let bus = connect(broker, "publisher").await?;
        let topic = format!("bench/{index}");
        let publisher = bus.publisher(&topic).await;
        lanes.push((bus, publisher.map_err(|error| Failure::new(format!("publish to {topic}"), error))?));
    }
    let start = Instant::now();
    let until = match durable.amount {
        Amount::Seconds(seconds) => Some(start + Duration::from_secs(seconds)),
        Amount::Messages(_) => None,
    };
    let mut sending = JoinSet::new();
    for ((bus, publisher), messages) in lanes.into_iter().zip(shares(durable.amount, publishers)) {
        sending.spawn(send(bus, publisher, durable.size_bytes, messages, until));
    }
    let (mut sent, mut buses) = (0_u64, Vec::new());
    while let Some(lane) = sending.join_next().await {
        let (bus, messages) = lane.map_err(|error| Failure::new("publish", error))??;
        sent = sent.saturating_add(messages);
        buses.push(bus);
    }
    Ok((sent, start.elapsed()))
}

/// Publishes as fast as acknowledgements come; returns when all of them have.
async fn send(
    bus: Bus,
    publisher: Publisher,
    size_bytes: u32,
    messages: u64,
    until: Option<Instant>,
) -> Result<(Bus, u64), Failure> {
    let failed =
        |error: &dyn std::fmt::Display| Failure::new(format!("publish to {}", publisher.topic()), error);
    let payload = payload(size_bytes);
    let (mut sent, mut last) = (0_u64, None);
    while sent < messages && until.is_none_or(|until| Instant::now() < until) {
        for _ in 0..LOOK_EVERY.min(messages.saturating_sub(sent)) {
            last = Some(match publisher.enqueue(&payload[..]) {
                Ok(receipt) => receipt,
                Err(EnqueueError::Full { .. }) => {
                    publisher.enqueue_when_ready(&payload[..]).await.map_err(|error| failed(&error))?
                }
                Err(error) => return Err(failed(&error)),
            });
            sent = sent.saturating_add(1);
        }
    }
    publisher.flush().await.map_err(|error| failed(&error))?;
    if let Some(receipt) = last {
        let durability = receipt.await.map_err(|error| failed(&error))?.durability();
        if durability != Durability::Fsync {
            return Err(failed(&format!("it was acknowledged as {}, not as fsync", durability.as_str())));
        }
    }
    Ok((bus, sent))
}

/// The bytes of each group that the broker wrote and synced, in order, and the messages in them.
fn groups(data_dir: &Path, bus_id: BusId) -> Result<(Vec<u64>, u64), Failure> {
    let dir = stream_dir(data_dir, STREAM_ID);
    let failed = |error: &dyn std::fmt::Display| Failure::new("read what the broker wrote", error);
    let options = LogOptions {
        bus_id,
        log_id: STREAM_ID,
        segment_bytes: u64::MAX,
        digest: Some(|frame, options| leaf_digest(frame, options.bus_id, options.log_id)),
        salt: random_salt,
    };
    let (log, _) = Log::open(Arc::new(OsVfs), &dir, options).map_err(|error| failed(&error))?;
    let (mut groups, mut synced_before, mut messages) = (Vec::new(), None, 0_u64);
    let scanned = log.reader().scan(0, &mut |frame| {
        let bytes = FRAME_HEADER_BYTES.saturating_add(frame.payload.len() as u64);
        match groups.last_mut() {
            Some(group) if synced_before == Some(frame.synced) => *group = u64::saturating_add(*group, bytes),
            Some(_) | None => groups.push(bytes),
        }
        synced_before = Some(frame.synced);
        messages = messages.saturating_add(u64::from(frame.count));
        std::ops::ControlFlow::Continue(())
    });
    scanned.map_err(|error| failed(&error))?;
    Ok((groups, messages))
}

/// Writes and syncs so many bytes at a time, to the end of a file on the same disk.
fn bare_loop(dir: &Path, sizes: &[u64]) -> Result<Duration, Failure> {
    let failed = |error: &dyn std::fmt::Display| Failure::new("write and sync without a broker", error);
    let largest = sizes.iter().copied().max().unwrap_or(0);
    let mut bytes = vec![0; usize::try_from(largest).map_err(|error| failed(&error))?];
    // Nothing that a file system could leave out or make smaller.
    getrandom::fill(&mut bytes).map_err(|error| failed(&error))?;
    let mut file = File::create(dir.join("bare")).map_err(|error| failed(&error))?;
    let start = Instant::now();
    for size in sizes {
        let part = usize::try_from(*size).ok().and_then(|size| bytes.get(..size));
        let part = part.expect("no size is above the largest");
        file.write_all(part).and_then(|()| file.sync_data()).map_err(|error| failed(&error))?;
    }
    Ok(start.elapsed())
}

/// What kind of file system a folder is on: on one that is in memory, a sync costs nothing and means nothing.
fn file_system_of(folder: &Path) -> String {
    let unknown = || "unknown".to_owned();
    let (Ok(folder), Ok(mounts)) = (folder.canonicalize(), fs::read_to_string("/proc/self/mountinfo")) else {
        return unknown();
    };
    // id parent major:minor root MOUNT options [tags] - TYPE source
    let mounts = mounts.lines().filter_map(|line| {
        let (head, tail) = line.split_once(" - ")?;
        let mount = head.split(' ').nth(4)?;
        folder.starts_with(mount).then_some((mount.len(), tail.split(' ').next()?))
    });
    // The last of several on one place is the one that is seen.
    mounts.max_by_key(|(len, _)| *len).map_or_else(unknown, |(_, kind)| kind.to_owned())
}

impl Run {
    fn per_second(&self, count: u64) -> f64 {
        count as f64 / self.elapsed.as_secs_f64().max(f64::EPSILON)
    }

    fn bare_per_second(&self) -> f64 {
        self.messages as f64 / self.bare.as_secs_f64().max(f64::EPSILON)
    }

    fn ratio(&self) -> f64 {
        self.per_second(self.messages) / self.bare_per_second().max(f64::EPSILON)
    }

    fn written_bytes(&self) -> u64 {
        self.groups.iter().sum()
    }

    fn syncs(&self) -> u64 {
        self.groups.len() as u64
    }

    fn each_sync(&self, amount: u64) -> f64 {
        amount as f64 / self.syncs().max(1) as f64
    }
}

impl DurableReport {
    /// Done when the log holds exactly what was acknowledged.
    pub(crate) fn verdict(&self) -> Verdict {
        let holds = self.runs.iter().all(|run| run.stored == run.messages && run.messages > 0);
        if holds { Verdict::Done } else { Verdict::Refused }
    }

    pub(crate) fn json(&self) -> Value {
        let rounded = |number: f64| (number * 1_000.0).round() / 1_000.0;
        let runs: Vec<Value> = self
            .runs
            .iter()
            .map(|run| {
                json!({
                    "publishers": run.publishers,
                    "messages_acknowledged": run.messages,
                    "messages_stored": run.stored,
                    "seconds": rounded(run.elapsed.as_secs_f64()),
                    "messages_per_second": run.per_second(run.messages).round(),
                    "payload_megabytes_per_second":
                        rounded(run.per_second(run.messages) * f64::from(self.size_bytes) / 1e6),
                    "broker_cpu_seconds": rounded(run.broker_cpu.as_secs_f64()),
                    "log": {
                        "bytes_written": run.written_bytes(),
                        "syncs": run.syncs(),
                        "bytes_per_sync": run.each_sync(run.written_bytes()).round(),
                        "messages_per_sync": rounded(run.each_sync(run.messages)),
                    },
                    "bare_loop": {
                        "seconds": rounded(run.bare.as_secs_f64()),
                        "microseconds_per_sync": rounded(run.each_sync(1) * run.bare.as_secs_f64() * 1e6),
                        "messages_per_second": run.bare_per_second().round(),
                    },
                    "ratio_to_bare_loop": rounded(run.ratio()),
                })
            })
            .collect();
        json!({
            "bench": "pubsub-durable",
            "size_bytes": self.size_bytes,
            "durability": Durability::Fsync.as_str(),
            "file_system": self.file_system,
            "bare_loop_is": "write and fdatasync to one file beside the broker's, without broker, network or signatures: \
                             as many bytes at a time as each of the broker's groups had, in their order, as its log \
                             records them",
            "runs": runs,
        })
    }

    pub(crate) fn table(&self) -> String {
        let whole = |number: f64| thousands(number.round() as u64);
        let mut text = fields([
            ("bench", format!("pubsub, durable, {} B", self.size_bytes)),
            ("file system", self.file_system.clone()),
        ]);
        for run in &self.runs {
            text.push('\n');
            text.push_str(&fields([
                ("publishers", run.publishers.to_string()),
                (
                    "acknowledged",
                    format!(
                        "{} after fdatasync, in {:.2} s",
                        thousands(run.messages),
                        run.elapsed.as_secs_f64()
                    ),
                ),
                ("messages/s", whole(run.per_second(run.messages))),
                (
                    "groups",
                    format!(
                        "{} syncs of {} and {:.1} messages on average",
                        thousands(run.syncs()),
                        binary_bytes(run.each_sync(run.written_bytes()).round() as u64),
                        run.each_sync(run.messages)
                    ),
                ),
                (
                    "bare loop",
                    format!(
                        "{} messages/s: the same sizes, written and synced",
                        whole(run.bare_per_second())
                    ),
                ),
                ("ratio", format!("{:.2} of the bare loop", run.ratio())),
                ("broker CPU", format!("{:.2} s", run.broker_cpu.as_secs_f64())),
            ]));
        }
        text
    }
}
