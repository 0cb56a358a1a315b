//! The check of a stream over the network: everything is read from the oldest message on and verified here, and every
//! batch is proven to be in the log that the broker's checkpoint is over.

use std::time::Duration;

use indicatif::ProgressBar;
use sealbus_client::{Bus, CheckpointError, Code, DeliveryError, Message, Missing, Replay, Start};

use crate::failure::Failure;
use crate::text::{hex, thousands};

use super::findings::{CheckpointSeen, Findings, Judgement, PROBLEMS_MAX};
use super::prover::{Proven, Prover};

/// A stream that has just grown has its checkpoint within a second or two.
const FIRST_CHECKPOINT_TIMEOUT: Duration = Duration::from_secs(5);

/// Between two looks for it.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// Checks a stream of a broker that runs.
pub(crate) async fn verify(bus: &Bus, name: &str, bar: &ProgressBar) -> Result<Findings, Failure> {
    let attempted = || format!("check the stream {name} as {}", bus.principal());
    let mut replay = bus.replay(name).from(Start::Earliest).until_end().await.map_err(|error| {
        Failure::new(attempted(), error)
            .advising(format!("`sealbus policy can-i replay {name}` names the rule"))
    })?;
    let range = replay.range();
    bar.set_length(range.end.saturating_sub(range.start));
    let mut findings = Findings {
        stream: name.to_owned(),
        stream_id: replay.stream_id(),
        offsets: range.clone(),
        batches: 0,
        messages: 0,
        bytes: None,
        stored_ms: None,
        rows: Vec::new(),
        problems: Vec::new(),
        problem_count: 0,
        checkpoint: None,
    };
    if replay.narrowed() {
        let found = "the policy lets this principal read only some of its topics";
        findings.add("grant", Judgement::Incomplete, found);
    }
    let extent = if range.end == 0 { Extent::Empty } else { Extent::Grown };
    let vouched = checkpoint(bus, name, extent, &mut findings).await?;
    let mut reading = Reading { findings, next_offset: range.start, lost: 0, refused: 0, bar };
    let mut prover = Prover::new(bus.clone());
    while let Some(message) = reading.next(&mut replay, name).await? {
        if vouched == Vouched::Yes {
            prover.take(message).await?;
        }
    }
    drop(replay);
    let Reading { mut findings, lost, refused, .. } = reading;
    if vouched == Vouched::Yes {
        let proven = prover.finish().await?;
        // The newest, which every proof leads to; what has become of the history meanwhile is told here, too.
        let _ = checkpoint(bus, name, extent, &mut findings).await?;
        conclude(&mut findings, &proven, range.start);
    }
    match (refused, lost) {
        (0, 0) => findings.add(
            "messages",
            Judgement::Whole,
            format!(
                "{} verified, dense, by certificates that were good when they were stored",
                thousands(findings.messages)
            ),
        ),
        (refused, lost) => findings.add(
            "messages",
            Judgement::Tampered,
            format!(
                "{} verified, {refused} batches refused, {lost} offsets missing",
                thousands(findings.messages)
            ),
        ),
    }
    Ok(findings)
}

/// What has been read.
struct Reading<'b> {
    findings: Findings,
    next_offset: u64,
    /// Offsets that should be there and are not.
    lost: u64,
    /// Batches that do not prove themselves.
    refused: u64,
    bar: &'b ProgressBar,
}

impl Reading<'_> {
    /// The next message; none at the end.
    async fn next(&mut self, replay: &mut Replay, name: &str) -> Result<Option<Message>, Failure> {
        loop {
            let error = match replay.next().await {
                None => return Ok(None),
                Some(Ok(message)) => {
                    self.note(&message);
                    return Ok(Some(message));
                }
                Some(Err(error)) => error,
            };
            match &error {
                DeliveryError::Closed(reason) => {
                    return Err(Failure::new(format!("read {name} to its end"), reason));
                }
                DeliveryError::Rejected(_) => self.refused = self.refused.saturating_add(1),
                DeliveryError::Skipped { from, to, why } => {
                    self.next_offset = *to;
                    if *why != Missing::Trimmed {
                        self.lost = self.lost.saturating_add(to.saturating_sub(*from));
                    }
                }
                DeliveryError::Gap { missed, .. } | DeliveryError::Lagged { missed } => {
                    self.lost = self.lost.saturating_add(*missed);
                }
            }
            self.problem(error.to_string());
        }
    }

    fn note(&mut self, message: &Message) {
        let findings = &mut self.findings;
        findings.messages = findings.messages.saturating_add(1);
        if let Some(appended_ms) = message.appended_ms() {
            let first_ms = findings.stored_ms.map_or(appended_ms, |(first_ms, _)| first_ms);
            findings.stored_ms = Some((first_ms, appended_ms));
        }
        let offset = message.offset().unwrap_or(self.next_offset);
        if findings.messages.is_multiple_of(256) {
            self.bar.set_position(offset.saturating_sub(findings.offsets.start));
        }
        if offset != self.next_offset {
            self.lost = self.lost.saturating_add(offset.abs_diff(self.next_offset));
            self.problem(format!("offset {offset} where {} was next", self.next_offset));
        }
        self.next_offset = offset.saturating_add(1);
    }

    fn problem(&mut self, what: String) {
        self.findings.problem_count = self.findings.problem_count.saturating_add(1);
        if self.findings.problems.len() < PROBLEMS_MAX {
            self.findings.problems.push(what);
        }
    }
}

/// Whether a stream has ever had a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extent {
    Empty,
    Grown,
}

/// Whether there is a checkpoint that can be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Vouched {
    Yes,
    No,
}

/// Asks for the newest checkpoint, which the client verifies.
async fn checkpoint(
    bus: &Bus,
    name: &str,
    extent: Extent,
    findings: &mut Findings,
) -> Result<Vouched, Failure> {
    let until = tokio::time::Instant::now() + FIRST_CHECKPOINT_TIMEOUT;
    let error = loop {
        match bus.checkpoint(name).await {
            Ok(checkpoint) => {
                findings.checkpoint = Some(CheckpointSeen {
                    size: checkpoint.size(),
                    root: *checkpoint.root(),
                    note: checkpoint.note().to_owned(),
                });
                return Ok(Vouched::Yes);
            }
            Err(error)
                if error.code() == Some(Code::Limit)
                    && extent == Extent::Grown
                    && tokio::time::Instant::now() < until =>
            {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
            Err(error) => break error,
        }
    };
    let (judgement, found) = match &error {
        CheckpointError::Request(request) => match request.code() {
            Some(Code::Limit) if extent == Extent::Empty => {
                (Judgement::Whole, "none, and nothing to vouch for".to_owned())
            }
            Some(Code::Limit | Code::Unsupported) => {
                (Judgement::Incomplete, "none: nobody vouches for the whole".to_owned())
            }
            // The broker's own hashes do not lead to it. What is damaged shows in the messages.
            Some(Code::Internal) => (Judgement::Incomplete, format!("none that can be proven: {error}")),
            Some(_) | None => {
                return Err(Failure::new(format!("read the checkpoint of {name}"), error));
            }
        },
        CheckpointError::NoLogKey => (Judgement::Incomplete, error.to_string()),
        CheckpointError::RolledBack { .. } => (Judgement::RolledBack, error.to_string()),
        CheckpointError::Origin { .. }
        | CheckpointError::Key(_)
        | CheckpointError::Signature(_)
        | CheckpointError::Size { .. }
        | CheckpointError::Inconsistent { .. } => (Judgement::Tampered, error.to_string()),
        CheckpointError::Stream(_) | CheckpointError::TooManyLogs { .. } => {
            return Err(Failure::new(format!("read the checkpoint of {name}"), error));
        }
    };
    findings.add("checkpoint", judgement, found);
    Ok(Vouched::No)
}

/// Holds what was proven against the checkpoint.
fn conclude(findings: &mut Findings, proven: &Proven, first_offset: u64) {
    findings.batches = proven.leaves.len() as u64;
    let Some(checkpoint) = &findings.checkpoint else { return };
    let (size, root) = (checkpoint.size, hex(&checkpoint.root));
    findings.problem_count = findings.problem_count.saturating_add(proven.refused.len() as u64);
    let room = PROBLEMS_MAX.saturating_sub(findings.problems.len());
    findings.problems.extend(proven.refused.iter().take(room).cloned());
    if proven.refused.is_empty() {
        let found = format!(
            "{} proven to be among the {} that the log key has signed, root {root}",
            thousands(findings.batches),
            thousands(size)
        );
        findings.add("batches", Judgement::Whole, found);
    } else {
        let found = format!("{} are not what the log key has signed", thousands(proven.refused.len() as u64));
        findings.add("batches", Judgement::Tampered, found);
    }
    let first = proven.leaves.first().copied().unwrap_or(0);
    if first_offset > 0 {
        let found = format!("{} batches were removed before offset {first_offset}", thousands(first));
        findings.add("retention", Judgement::Incomplete, found);
    }
    let span = proven.leaves.last().map_or(0, |last| last.saturating_sub(first).saturating_add(1));
    let unseen = span.saturating_sub(findings.batches);
    if unseen > 0 {
        let found = format!("{} batches without messages, known by their leaves alone", thousands(unseen));
        findings.add("heartbeats", Judgement::Whole, found);
    }
    if proven.uncovered > 0 {
        findings.add("newest", Judgement::Incomplete, "no checkpoint covers the newest messages yet");
    }
}
