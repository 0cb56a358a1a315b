//! Goes through the states in which a disk may be found, and has each recovered and judged.
//!
//! Most states of a script differ from the one before in one log only. What was found of a directory is kept for as long
//! as its content does not change, so that a state costs the recovery of what is new in it; every state is judged whole.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::ops::RangeInclusive;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use bytes::Bytes;
use sealbus_broker::storage::stream::ProducerSnapshot;
use sealbus_broker::storage::system::SystemLog;
use sealbus_broker::vfs::{Limits, SimVfs, Vfs};
use sealbus_protocol::topic::Topic;

use super::author::{Author, Identity};
use super::history::History;
use super::judge::{Judge, Seen};
use super::place::{Plan, STREAMS, stream_dir, stream_id, system_dir};
use super::random::{Random, seed_salts};
use super::seen::{
    CursorsSeen, PlainSeen, Probe, StreamPlace, StreamSeen, see_cursors, see_plain, see_producers,
};

/// Directories of one kind whose recoveries a thread remembers.
const REMEMBERED_MAX: usize = 512;

/// Moments that a thread takes at a time: neighbours have most of their directories in common.
const MOMENTS_AT_A_TIME: usize = 8;

/// Bytes of a reader's page.
const PAGE_BYTES: usize = 3_000;

/// Violations that are told in full.
const EXAMPLES_MAX: usize = 12;

/// States of each moment of an interrupted recovery.
const NESTED_STATES: usize = 4;

/// A recovery that takes longer does not end, as far as an operator is concerned.
const RECOVERY_MS_MAX: u64 = 20_000;

/// What was gone through.
#[derive(Debug, Default)]
pub struct Tally {
    /// States that were judged.
    pub states: AtomicUsize,
    /// Logs that were recovered for them.
    pub recoveries: AtomicUsize,
    /// States in the middle of a recovery.
    pub nested: AtomicUsize,
    /// Moments at which the power was lost.
    pub moments: AtomicUsize,
    /// Sentences about what was wrong.
    pub violations: AtomicUsize,
    /// Those of them that say that something acknowledged is lost.
    pub losses: AtomicUsize,
    /// The longest recovery, microseconds.
    pub slowest_us: AtomicU64,
    examples: Mutex<Vec<String>>,
    done: Mutex<BTreeMap<&'static str, u64>>,
}

impl Tally {
    /// What scripts did, by name.
    pub fn did(&self, done: &BTreeMap<&'static str, u64>) {
        let mut all = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, times) in done {
            *all.entry(name).or_default() += times;
        }
    }

    /// What the scripts did, by name.
    #[must_use]
    pub fn done(&self) -> BTreeMap<&'static str, u64> {
        self.done.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Something is wrong.
    pub fn violation(&self, text: String) {
        self.violations.fetch_add(1, Ordering::Relaxed);
        if text.contains("I1:") {
            self.losses.fetch_add(1, Ordering::Relaxed);
        }
        let mut examples = self.examples.lock().unwrap_or_else(PoisonError::into_inner);
        if examples.len() < EXAMPLES_MAX {
            examples.push(text);
        }
    }

    /// The first violations.
    #[must_use]
    pub fn examples(&self) -> Vec<String> {
        self.examples.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Violations so far.
    #[must_use]
    pub fn violations(&self) -> usize {
        self.violations.load(Ordering::Relaxed)
    }

    /// States so far, without those within recoveries.
    #[must_use]
    pub fn states(&self) -> usize {
        self.states.load(Ordering::Relaxed)
    }

    /// How many violations are of what was acknowledged and is lost.
    #[must_use]
    pub fn losses(&self) -> usize {
        self.losses.load(Ordering::Relaxed)
    }

    fn took(&self, since: Instant, what: &str) {
        let micros = u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.slowest_us.fetch_max(micros, Ordering::Relaxed);
        if micros > RECOVERY_MS_MAX * 1_000 {
            self.violation(format!("I8: recovering {what} took {micros} µs"));
        }
    }
}

/// A disk with its history, ready to lose power at any moment.
#[derive(Clone, Copy)]
pub struct Run<'a> {
    /// The disk.
    pub sim: &'a SimVfs,
    /// What was handed over.
    pub history: &'a History,
    /// By whom.
    pub identities: &'a [Identity],
    /// How it is kept.
    pub plan: Plan,
    /// The latest moment and policy.
    pub latest: (u64, u64),
    /// Of the script.
    pub seed: u64,
}

/// How much of it is looked at.
#[derive(Clone, Copy)]
pub struct Depth {
    /// States of each moment.
    pub limits: Limits,
    /// Threads.
    pub threads: usize,
    /// States after which no further moment is begun.
    pub states_max: usize,
    /// One recovery in so many is itself interrupted at each of its operations.
    pub nested_one_in: u64,
}

impl Run<'_> {
    /// Loses power at every moment, in every way within the limits.
    pub fn lose_power(&self, depth: Depth, tally: &Tally) {
        self.lose_power_within(0..=self.sim.operations(), depth, tally);
    }

    /// Loses power at these moments, in every way within the limits.
    pub fn lose_power_within(&self, moments: RangeInclusive<usize>, depth: Depth, tally: &Tally) {
        let (first, last) = moments.into_inner();
        let judge = Judge::new(self.history, self.identities);
        let next = AtomicUsize::new(first);
        thread::scope(|scope| {
            for _ in 0..depth.threads.max(1) {
                scope.spawn(|| {
                    let mut finder = Finder::new(self, depth.nested_one_in, tally);
                    loop {
                        let from = next.fetch_add(MOMENTS_AT_A_TIME, Ordering::Relaxed);
                        if from > last {
                            return;
                        }
                        for moment in from..=last.min(from + MOMENTS_AT_A_TIME - 1) {
                            if tally.states() >= depth.states_max {
                                return;
                            }
                            self.moment(moment, depth.limits, &judge, &mut finder, tally);
                        }
                    }
                });
            }
        });
    }

    fn moment(
        &self,
        moment: usize,
        limits: Limits,
        judge: &Judge<'_>,
        finder: &mut Finder<'_>,
        tally: &Tally,
    ) {
        tally.moments.fetch_add(1, Ordering::Relaxed);
        for (description, state) in self.sim.crash_states(moment, limits) {
            seed_salts(self.seed ^ moment as u64 ^ 0x5a17_0000_0000);
            let seen = finder.find(&state);
            tally.states.fetch_add(1, Ordering::Relaxed);
            for wrong in judge.judge(&seen, moment) {
                tally.violation(format!("seed {}: {description}: {wrong}", self.seed));
            }
        }
    }
}

/// What tells the content of a directory from others.
type DirDigest = [u8; 16];

/// What is found of `$producers`, and of each stream's producers in it.
type ProducersSeen = (Arc<Result<PlainSeen, String>>, [ProducerSnapshot; 2]);

/// Recovers what it does not remember.
struct Finder<'a> {
    tally: &'a Tally,
    nested_one_in: u64,
    plan: Plan,
    probes: Vec<Probe>,
    random: Random,
    streams: [Remembered<(DirDigest, DirDigest), Result<StreamSeen, String>>; 2],
    plain: [Remembered<DirDigest, Result<PlainSeen, String>>; 2],
    producers: Remembered<DirDigest, ProducersSeen>,
    cursors: Remembered<DirDigest, Result<CursorsSeen, String>>,
}

struct Remembered<K, V>(HashMap<K, Arc<V>>);

impl<K: Hash + Eq, V> Remembered<K, V> {
    fn new() -> Self {
        Self(HashMap::new())
    }

    fn get(&mut self, key: K, find: impl FnOnce() -> V) -> Arc<V> {
        if let Some(known) = self.0.get(&key) {
            return Arc::clone(known);
        }
        if self.0.len() >= REMEMBERED_MAX {
            self.0.clear();
        }
        let found = Arc::new(find());
        self.0.insert(key, Arc::clone(&found));
        found
    }
}

impl<'a> Finder<'a> {
    fn new(run: &Run<'_>, nested_one_in: u64, tally: &'a Tally) -> Self {
        Self {
            tally,
            nested_one_in,
            plan: run.plan,
            probes: (0..STREAMS.len()).map(|stream| probe(stream, run.latest)).collect(),
            random: Random::new(run.seed),
            streams: [Remembered::new(), Remembered::new()],
            plain: [Remembered::new(), Remembered::new()],
            producers: Remembered::new(),
            cursors: Remembered::new(),
        }
    }

    fn find(&mut self, state: &SimVfs) -> Seen {
        let vfs: Arc<dyn Vfs> = Arc::new(state.clone());
        let key_of = |dir: &Path| state.digest_below(dir).unwrap_or_default();
        let (tally, nested_one_in) = (self.tally, self.nested_one_in);
        let [keys, policies] = &mut self.plain;
        let [keys, policies] =
            [(keys, SystemLog::Keys), (policies, SystemLog::Policy)].map(|(known, which)| {
                let dir = system_dir(which);
                known.get(key_of(&dir), || recover(tally, &dir, || see_plain(&vfs, &dir, which)))
            });
        let dir = system_dir(SystemLog::Cursors);
        let cursors = self.cursors.get(key_of(&dir), || recover(tally, &dir, || see_cursors(&vfs, &dir)));
        let dir = system_dir(SystemLog::Producers);
        let producers_key = key_of(&dir);
        let producers = self.producers.get(producers_key, || {
            let (found, mut snapshots) = match recover(tally, &dir, || see_producers(&vfs, &dir)) {
                Ok((found, snapshots)) => (Ok(found), snapshots),
                Err(error) => (Err(error), sealbus_broker::storage::system::producers::Snapshots::default()),
            };
            (Arc::new(found), [0, 1].map(|stream| snapshots.take(stream_id(stream))))
        });
        let mut streams = Vec::new();
        for (number, known) in self.streams.iter_mut().enumerate() {
            let dir = stream_dir(number);
            let options = self.plan.stream(number);
            let snapshot = producers.1.get(number);
            let place =
                StreamPlace { vfs: &vfs, dir: &dir, options: &options, snapshot, page_bytes: PAGE_BYTES };
            let probe = self.probes.get(number);
            let random = &mut self.random;
            streams.push(known.get((key_of(&dir), producers_key), || {
                let begun = state.operations();
                let mut opened = begun;
                let seen = recover(tally, &dir, || {
                    let probe = probe.ok_or("there is a probe for each stream")?;
                    place.see_and_go_on(probe, &mut || opened = state.operations())
                })?;
                if random.one_in(nested_one_in) && seen.wrong.is_empty() {
                    let seed = random.number();
                    return recover(&Tally::default(), &dir, || {
                        Ok(interrupt(tally, &place, state, (begun, opened), seen, seed))
                    });
                }
                Ok(seen)
            }));
        }
        let nothing = || Arc::new(Err("not looked at".to_owned()));
        let mut streams = streams.into_iter();
        Seen {
            streams: [streams.next().unwrap_or_else(nothing), streams.next().unwrap_or_else(nothing)],
            keys,
            policies,
            producers: Arc::clone(&producers.0),
            cursors,
        }
    }
}

/// Loses power again, while the stream is recovered and while it is added to. What is found must be what was found
/// without that, but for the batch that was being added.
fn interrupt(
    tally: &Tally,
    place: &StreamPlace<'_>,
    state: &SimVfs,
    (begun, opened): (usize, usize),
    mut seen: StreamSeen,
    seed: u64,
) -> StreamSeen {
    for moment in begun + 1..=state.operations() {
        for (description, state) in state.crash_states(moment, Limits::sampled(NESTED_STATES, seed)) {
            tally.nested.fetch_add(1, Ordering::Relaxed);
            let vfs: Arc<dyn Vfs> = Arc::new(state);
            let place = StreamPlace { vfs: &vfs, ..place.clone() };
            let again = match place.see() {
                Ok(again) => again,
                Err(error) => {
                    seen.wrong.push(format!("interrupted while it was recovered: {description}: {error}"));
                    continue;
                }
            };
            let is_same = StreamSeen { damage: again.damage.clone(), ..seen.clone() } == again;
            let kept = again.records.get(..seen.records.len()) == Some(seen.records.as_slice());
            let added = again.records.len().saturating_sub(seen.records.len()) <= 1;
            let may_be_added = moment > opened && kept && added && again.wrong.is_empty();
            let is_quiet = again.damage.is_empty() || !seen.damage.is_empty();
            if !(is_quiet && (is_same || may_be_added)) {
                seen.wrong.push(format!(
                    "interrupted while it was recovered: {description}: {again:?} in place of what was found"
                ));
            }
        }
    }
    seen
}

fn recover<T>(tally: &Tally, dir: &Path, find: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    let since = Instant::now();
    tally.recoveries.fetch_add(1, Ordering::Relaxed);
    let found = catch_unwind(AssertUnwindSafe(find)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(format!("recovering it panicked: {}", text.unwrap_or_default()))
    });
    let name: PathBuf = dir.to_owned();
    tally.took(since, &name.display().to_string());
    found
}

/// What is added to a stream after it was recovered.
fn probe(stream: usize, latest: (u64, u64)) -> Probe {
    let topic = "probe/of/recovery";
    let mut author = Author::new(200 + stream as u8, topic, stream_id(stream));
    let batch: Bytes = author.sign(2, 30, &mut Random::new(stream as u64));
    let topic = Topic::parse(topic).expect("the probe's topic is one");
    Probe { batch, topic, messages: 2, at: latest }
}
