//! A campaign from its first message to its verdict.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::{JoinError, JoinHandle, JoinSet};
use tokio::time::timeout;

use crate::bus::TestBus;
use crate::process::BrokerProcess;

use super::auditor::{self, Passes};
use super::ground::{CONSUMED, CONSUMER, Ground, PRODUCERS, STORAGE, STREAMS, policy};
use super::history::History;
use super::nemesis::Nemesis;
use super::progress::Progress;
use super::victim::Victim;
use super::{author, consumer, screen};

/// How long the consumer may take for what is left when nothing more is published.
const DRAIN_DEADLINE: Duration = Duration::from_secs(120);

/// The program that judges, which knows nothing of ours.
const CHECKER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/checker/check.py");

/// What a campaign is to be.
#[derive(Debug, Clone)]
pub struct Options {
    /// How often the broker is killed.
    pub kills: u64,
    /// What the choices come from.
    pub seed: u64,
    /// The program with `sealbus serve`.
    pub program: PathBuf,
    /// Where the history and the broker's log go. It is there.
    pub folder: PathBuf,
}

/// What a campaign came to.
pub struct Outcome {
    history: PathBuf,
    starts: Vec<Duration>,
    ground: Arc<Ground>,
}

/// What the checker says.
#[derive(Debug, Clone)]
pub struct Verdict {
    /// Whether every invariant holds.
    pub is_good: bool,
    /// The table of the invariants, and a JSON line.
    pub report: String,
}

/// Runs a campaign. [`check`] judges it.
///
/// # Panics
/// When somebody cannot go on who should, the broker does not start again, or nobody gets on.
pub async fn run(options: &Options) -> Outcome {
    let Options { kills, seed, program, folder } = options;
    let path = folder.join("history.jsonl");
    let history = History::create(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let history = Arc::new(history);
    let streams: Vec<Value> =
        STREAMS.iter().map(|stream| json!({ "name": stream.name, "durability": stream.durability, "retained": stream.retained })).collect();
    history.note("campaign", &json!({ "seed": seed, "kills": kills, "streams": streams }));

    let bus = TestBus::with_storage(STORAGE);
    bus.write_policy(&policy());
    let first = BrokerProcess::start(program, &bus.config()).await;
    // From now on at this address.
    bus.listen_on(first.address().port());
    let ground = Ground::new(bus, first.address(), history, *seed);
    let evidence = Evidence { ground: &ground, folder };
    let mut nemesis =
        Nemesis::new(Arc::clone(&ground), program.clone(), folder.join("broker.log"), *kills).await;
    let cast = Cast::enter(&ground);
    drop(first);
    let cast = attack(&ground, &mut nemesis, cast, *kills).await;
    let passes = calm_down(&ground, &mut nemesis, cast).await;
    judge_the_rest(&ground, &mut nemesis, passes, program).await;
    ground.history.flush();
    drop(evidence);
    let mut starts = nemesis.starts().to_vec();
    starts.sort_unstable();
    Outcome { history: path, starts, ground }
}

/// Everybody but the nemesis.
struct Cast {
    authors: JoinSet<()>,
    readers: JoinSet<()>,
    auditor: JoinHandle<Passes>,
}

impl Cast {
    fn enter(ground: &Arc<Ground>) -> Self {
        let (mut authors, mut readers) = (JoinSet::new(), JoinSet::new());
        for producer in 0..PRODUCERS {
            authors.spawn(author::publish(Arc::clone(ground), producer));
        }
        readers.spawn(screen::watch(Arc::clone(ground)));
        readers.spawn(consumer::work(Arc::clone(ground)));
        let auditor = tokio::spawn(auditor::read_parts(Arc::clone(ground)));
        Self { authors, readers, auditor }
    }

    /// Nobody leaves before the end.
    async fn assert_present(mut self) -> Self {
        if let Some(left) = self.authors.try_join_next().or_else(|| self.readers.try_join_next()) {
            carry_on(left);
            panic!("a producer or reader ended before the campaign did");
        }
        if self.auditor.is_finished() {
            carry_on(self.auditor.await);
            panic!("the auditor ended before the campaign did");
        }
        self
    }
}

async fn attack(ground: &Ground, nemesis: &mut Nemesis, mut cast: Cast, kills: u64) -> Cast {
    let mut progress = Progress::new(kills);
    for kill in 1..=kills {
        nemesis.kill_next().await;
        cast = cast.assert_present().await;
        progress.tell(kill, ground.history.acknowledged_count());
    }
    progress.end();
    cast
}

/// Nobody is killed any more: producers get their answers, the consumer works off what is left, and the broker stops in
/// good order.
async fn calm_down(ground: &Ground, nemesis: &mut Nemesis, cast: Cast) -> Passes {
    let Cast { mut authors, mut readers, auditor } = cast;
    let victim = nemesis.spare().await;
    ground.stop_producers();
    let answered = async {
        while let Some(left) = authors.join_next().await {
            carry_on(left);
        }
    };
    timeout(DRAIN_DEADLINE, answered)
        .await
        .expect("producers get their answers when nobody kills the broker");
    let worked_off = async {
        while nemesis.positions().await.is_none_or(|(position, end)| position != end) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    if timeout(DRAIN_DEADLINE, worked_off).await.is_err() {
        ground.history.note("stalled", &json!({ "consumer": CONSUMER, "stream": CONSUMED }));
    }
    ground.stop_readers();
    while let Some(left) = readers.join_next().await {
        carry_on(left);
    }
    let mut passes = carry_on(auditor.await);
    auditor::read_everything(ground, &mut passes).await;
    stop(victim).await;
    passes
}

/// After a clean stop everything is read once more: by the client from another life of the broker, and by the program from
/// the files.
async fn judge_the_rest(ground: &Ground, nemesis: &mut Nemesis, mut passes: Passes, program: &Path) {
    let victim = nemesis.spare().await;
    auditor::read_everything(ground, &mut passes).await;
    consumer::look_for_rest(ground).await;
    nemesis.positions().await;
    ground.history.note("settled", &json!({ "consumer": CONSUMER, "stream": CONSUMED }));
    stop(victim).await;
    for stream in &STREAMS {
        let mut verify = Command::new(program);
        verify.args(["stream", "verify", stream.name, "--dir"]).arg(ground.bus.folder());
        let done = verify.stdin(Stdio::null()).output().expect("the program can be started");
        let said =
            String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
        ground
            .history
            .note("verified", &json!({ "stream": stream.name, "code": done.status.code(), "text": said }));
    }
}

async fn stop(victim: Victim) {
    let status = victim.terminate().await;
    assert!(status.success(), "a broker that is asked to stop ended with {status}");
}

/// What a task came to. Its panic is ours.
fn carry_on<T>(left: Result<T, JoinError>) -> T {
    left.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

/// Lets the checker judge a campaign.
///
/// # Panics
/// When there is no Python.
#[must_use]
pub fn check(history: &Path) -> Verdict {
    let done = Command::new("python3").arg(CHECKER).arg(history).stdin(Stdio::null()).output();
    let done = done.expect("the checker needs python3 (nothing but its standard library): install it");
    let report = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
    Verdict { is_good: done.status.success(), report }
}

impl Outcome {
    /// What everybody saw.
    #[must_use]
    pub fn history(&self) -> &Path {
        &self.history
    }

    /// From start to listening, in ascending order.
    #[must_use]
    pub fn starts(&self) -> &[Duration] {
        &self.starts
    }

    /// How long so many of a hundred starts took at most.
    #[must_use]
    pub fn start_percentile(&self, percent: usize) -> Duration {
        let place = (self.starts.len() * percent / 100).min(self.starts.len().saturating_sub(1));
        self.starts.get(place).copied().unwrap_or_default()
    }

    /// Copies the broker's files beside the history, for whoever wants to know why.
    pub fn keep_files(&self) {
        let folder = self.history.parent().expect("the history is in a folder");
        Evidence { ground: &self.ground, folder }.keep();
    }
}

/// The files of a campaign that does not come to its end.
struct Evidence<'a> {
    ground: &'a Ground,
    folder: &'a Path,
}

impl Evidence<'_> {
    fn keep(&self) {
        self.ground.history.flush();
        let to = self.folder.join("bus");
        let copied = Command::new("cp").arg("-r").arg(self.ground.bus.folder()).arg(&to).status();
        match copied {
            Ok(status) if status.success() => eprintln!("the broker's files are in {}", to.display()),
            Ok(_) | Err(_) => eprintln!("the broker's files could not be copied to {}", to.display()),
        }
    }
}

impl Drop for Evidence<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.keep();
        }
    }
}
