//! Proving that messages are in the log, each batch at least once, by as few questions as may be.
//!
//! ```text
//!   messages   m m m m m m m m m      a run: one producer, one topic, one moment
//!   leaves     4 4 4 5 5 5 5 6 6
//!              ^       ^       ^      the ends first; between two neighbouring leaves there is nothing to ask,
//!                                     otherwise the middle, and so on
//! ```
//!
//! A proof is of a whole batch: the leaf holds what its producer signed, and where and when it was stored. Offsets and
//! leaves grow together, so that the batches between two messages of one leaf are that one.

use std::collections::BTreeSet;
use std::time::Duration;

use sealbus_client::{Bus, CheckpointError, Code, IncarnationId, InclusionProof, Message, ProveError, Topic};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::failure::Failure;

/// Runs that are proven at a time. A broker takes a few more from one connection.
const AT_ONCE: usize = 8;

/// Messages of one run; a longer one is cut, and proven as two.
const RUN_MESSAGES_MAX: usize = 65_536;

/// For how long a broker is asked again that refuses with LIMIT: it has no checkpoint with the message in it yet, or
/// makes too many proofs already. Checkpoints come within a second or two.
const PATIENCE: Duration = Duration::from_secs(10);

/// Between two such questions.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// What makes a run.
#[derive(Debug, Clone, PartialEq, Eq)]
struct RunKey {
    topic: Topic,
    incarnation_id: IncarnationId,
    appended_ms: Option<u64>,
}

/// What was proven so far.
#[derive(Debug, Default)]
pub(super) struct Proven {
    /// The leaves that have messages.
    pub(super) leaves: BTreeSet<u64>,
    /// Messages that a proof does not lead to a checkpoint, in words.
    pub(super) refused: Vec<String>,
    /// Messages that no checkpoint covers yet, or that the broker cannot prove any more.
    pub(super) uncovered: u64,
}

/// Takes messages in the order of their offsets, and proves them.
pub(super) struct Prover {
    bus: Bus,
    run: Vec<Message>,
    key: Option<RunKey>,
    proving: JoinSet<Result<Proven, Failure>>,
    proven: Proven,
}

impl Prover {
    pub(super) fn new(bus: Bus) -> Self {
        Self { bus, run: Vec::new(), key: None, proving: JoinSet::new(), proven: Proven::default() }
    }

    /// Takes the next message. Waits when too many runs are being proven.
    pub(super) async fn take(&mut self, message: Message) -> Result<(), Failure> {
        let key = RunKey {
            topic: message.topic().clone(),
            incarnation_id: message.incarnation_id(),
            appended_ms: message.appended_ms(),
        };
        if self.key.as_ref() != Some(&key) || self.run.len() >= RUN_MESSAGES_MAX {
            self.end_run().await?;
            self.key = Some(key);
        }
        self.run.push(message);
        Ok(())
    }

    /// Waits for everything.
    pub(super) async fn finish(mut self) -> Result<Proven, Failure> {
        self.end_run().await?;
        while !self.proving.is_empty() {
            self.join_one().await?;
        }
        Ok(self.proven)
    }

    async fn end_run(&mut self) -> Result<(), Failure> {
        if self.run.is_empty() {
            return Ok(());
        }
        while self.proving.len() >= AT_ONCE {
            self.join_one().await?;
        }
        let (bus, run) = (self.bus.clone(), std::mem::take(&mut self.run));
        self.proving.spawn(prove(bus, run));
        Ok(())
    }

    /// Waits for one of the runs that are being proven, if there is one.
    async fn join_one(&mut self) -> Result<(), Failure> {
        let Some(ended) = self.proving.join_next().await else { return Ok(()) };
        let proven = ended.map_err(|error| Failure::new("prove messages", error))??;
        let Proven { leaves, refused, uncovered } = proven;
        self.proven.leaves.extend(leaves);
        self.proven.refused.extend(refused);
        self.proven.uncovered = self.proven.uncovered.saturating_add(uncovered);
        Ok(())
    }
}

/// Proves a run: its ends, and then the middle of whatever may have leaves that were not met.
async fn prove(bus: Bus, run: Vec<Message>) -> Result<Proven, Failure> {
    let mut proven = Proven::default();
    let last = run.len().saturating_sub(1);
    let (Some(low), Some(high)) =
        (leaf(&bus, &run, 0, &mut proven).await?, leaf(&bus, &run, last, &mut proven).await?)
    else {
        return Ok(proven);
    };
    let mut open = vec![((0, low), (last, high))];
    while let Some(((from, low), (to, high))) = open.pop() {
        if high <= low.saturating_add(1) || to <= from + 1 {
            continue;
        }
        let middle = from.midpoint(to);
        if let Some(found) = leaf(&bus, &run, middle, &mut proven).await? {
            open.push(((from, low), (middle, found)));
            open.push(((middle, found), (to, high)));
        }
    }
    Ok(proven)
}

/// Proves a message; asks again for a while when the broker says that it cannot answer now.
pub(crate) async fn prove_patiently(bus: &Bus, message: &Message) -> Result<InclusionProof, ProveError> {
    let until = Instant::now() + PATIENCE;
    loop {
        match bus.prove(message).await {
            Err(ProveError::Checkpoint(error))
                if error.code() == Some(Code::Limit) && Instant::now() < until =>
            {
                sleep(LOOK_AGAIN).await;
            }
            proven => return proven,
        }
    }
}

/// The leaf of a message, once it is proven; none when it is not.
async fn leaf(bus: &Bus, run: &[Message], index: usize, proven: &mut Proven) -> Result<Option<u64>, Failure> {
    let Some(message) = run.get(index) else { return Ok(None) };
    let offset = message.offset().unwrap_or_default();
    match prove_patiently(bus, message).await {
        Ok(proof) => {
            proven.leaves.insert(proof.index());
            Ok(Some(proof.index()))
        }
        Err(ProveError::NotYet { .. }) => {
            proven.uncovered = proven.uncovered.saturating_add(1);
            Ok(None)
        }
        Err(error @ (ProveError::NotIncluded(_) | ProveError::OtherStream | ProveError::NoPlace)) => {
            proven.refused.push(format!("offset {offset}: {error}"));
            Ok(None)
        }
        // The broker's disk has lost a leaf that the proof needs: nothing is proven, and what is lost is found elsewhere.
        Err(ProveError::Checkpoint(error)) if error.code() == Some(Code::Internal) => {
            proven.uncovered = proven.uncovered.saturating_add(1);
            Ok(None)
        }
        Err(ProveError::Checkpoint(error @ CheckpointError::Request(_))) => {
            Err(Failure::new(format!("prove the message at offset {offset}"), error))
        }
        // A history that is another than it was a moment ago. Whoever asks for the checkpoint next is told the same.
        Err(ProveError::Checkpoint(error)) => {
            proven.refused.push(format!("offset {offset}: {error}"));
            Ok(None)
        }
    }
}
