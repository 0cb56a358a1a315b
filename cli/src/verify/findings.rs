//! What a check of a stream has found, and what it comes to.

use std::ops::Range;

use sealbus_protocol::ids::StreamId;
use serde_json::{Value, json};

use crate::failure::Verdict;
use crate::text::{binary_bytes, count, hex, rfc3339_ms};

/// Problems that are told one by one; the rest is counted.
pub(crate) const PROBLEMS_MAX: usize = 20;

/// The check in one word, worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Judgement {
    /// Something is not what was signed, or can no longer be read.
    Tampered,
    /// A checkpoint is over more than there is: the stream was cut, or is an older one.
    RolledBack,
    /// All that is there is good, but it is not all, or nobody vouches for it.
    Incomplete,
    /// Every batch that was ever stored is there, as it was signed.
    Whole,
}

impl Judgement {
    /// The word that output uses.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Tampered => "tampered",
            Self::RolledBack => "rolled-back",
            Self::Incomplete => "incomplete",
            Self::Whole => "whole",
        }
    }

    /// What the process ends with.
    pub(crate) const fn verdict(self) -> Verdict {
        match self {
            Self::Tampered => Verdict::Tampered,
            Self::RolledBack => Verdict::RolledBack,
            Self::Incomplete => Verdict::Incomplete,
            Self::Whole => Verdict::Done,
        }
    }
}

/// A row of what was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    /// What was looked at.
    pub(crate) what: &'static str,
    /// What was found, in words.
    pub(crate) found: String,
    /// What that comes to.
    pub(crate) judgement: Judgement,
}

/// Everything that was found.
#[derive(Debug, Clone)]
pub(crate) struct Findings {
    pub(crate) stream: String,
    pub(crate) stream_id: StreamId,
    /// Offsets that are kept.
    pub(crate) offsets: Range<u64>,
    /// Batches that were verified, and the messages in them.
    pub(crate) batches: u64,
    pub(crate) messages: u64,
    /// Bytes that were read; not known of what came over the network.
    pub(crate) bytes: Option<u64>,
    /// When the first and the last that are kept were stored.
    pub(crate) stored_ms: Option<(u64, u64)>,
    pub(crate) rows: Vec<Finding>,
    /// The first problems, in words.
    pub(crate) problems: Vec<String>,
    /// How many there are.
    pub(crate) problem_count: u64,
    /// The checkpoint that it was held against, when there is one.
    pub(crate) checkpoint: Option<CheckpointSeen>,
}

/// A checkpoint as output shows it.
#[derive(Debug, Clone)]
pub(crate) struct CheckpointSeen {
    pub(crate) size: u64,
    pub(crate) root: [u8; 32],
    /// The signed note.
    pub(crate) note: String,
}

impl Findings {
    pub(crate) fn add(&mut self, what: &'static str, judgement: Judgement, found: impl Into<String>) {
        self.rows.push(Finding { what, found: found.into(), judgement });
    }

    /// The worst of it.
    pub(crate) fn judgement(&self) -> Judgement {
        self.rows.iter().map(|row| row.judgement).min().unwrap_or(Judgement::Incomplete)
    }

    /// What was read, in words.
    pub(crate) fn extent(&self) -> String {
        let size = self.bytes.map_or_else(String::new, |bytes| format!(", {}", binary_bytes(bytes)));
        let stored = self.stored_ms.map_or_else(String::new, |(first_ms, last_ms)| {
            format!(", stored {} to {}", rfc3339_ms(first_ms), rfc3339_ms(last_ms))
        });
        format!(
            "{} in {}, offsets {} to {}{size}{stored}",
            count(self.messages, "message", "messages"),
            count(self.batches, "batch", "batches"),
            self.offsets.start,
            self.offsets.end
        )
    }

    /// The verdict, for a person.
    pub(crate) fn sentence(&self) -> String {
        let stream = &self.stream;
        match self.judgement() {
            Judgement::Whole => {
                format!(
                    "{stream} is whole: every batch is there, as its producer and the broker have signed it"
                )
            }
            Judgement::Incomplete => {
                format!("{stream} is incomplete: what is there is as it was signed, but it is not everything")
            }
            Judgement::RolledBack => {
                format!("{stream} is rolled back: a checkpoint was signed over more than there is")
            }
            Judgement::Tampered => {
                format!("{stream} is tampered with or damaged: what was stored is not there as it was signed")
            }
        }
    }

    pub(crate) fn json(&self) -> Value {
        let rows: Vec<Value> = self
            .rows
            .iter()
            .map(|row| json!({"check": row.what, "found": row.found, "result": result(row.judgement)}))
            .collect();
        json!({
            "stream": self.stream,
            "id": self.stream_id.to_string(),
            "verdict": self.judgement().as_str(),
            "first": self.offsets.start,
            "end": self.offsets.end,
            "batches": self.batches,
            "messages": self.messages,
            "bytes": self.bytes,
            "stored_from": self.stored_ms.map(|(first_ms, _)| rfc3339_ms(first_ms)),
            "stored_to": self.stored_ms.map(|(_, last_ms)| rfc3339_ms(last_ms)),
            "checks": rows,
            "problems": self.problems,
            "problem_count": self.problem_count,
            "checkpoint": self.checkpoint.as_ref().map(|checkpoint| json!({
                "batches": checkpoint.size,
                "root": hex(&checkpoint.root),
                "note": checkpoint.note,
            })),
        })
    }
}

/// The result of one check, in a word.
pub(crate) const fn result(judgement: Judgement) -> &'static str {
    match judgement {
        Judgement::Whole => "good",
        Judgement::Incomplete => "incomplete",
        Judgement::RolledBack => "rolled back",
        Judgement::Tampered => "BAD",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_finding_is_the_verdict() {
        let mut findings = Findings {
            stream: "s".to_owned(),
            stream_id: StreamId::new([7; 16]),
            offsets: 0..9,
            batches: 2,
            messages: 9,
            bytes: None,
            stored_ms: None,
            rows: Vec::new(),
            problems: Vec::new(),
            problem_count: 0,
            checkpoint: None,
        };
        assert_eq!(findings.judgement(), Judgement::Incomplete, "nothing was looked at");
        for (judgement, worst) in [
            (Judgement::Whole, Judgement::Whole),
            (Judgement::Incomplete, Judgement::Incomplete),
            (Judgement::RolledBack, Judgement::RolledBack),
            (Judgement::Whole, Judgement::RolledBack),
            (Judgement::Tampered, Judgement::Tampered),
        ] {
            findings.add("x", judgement, "y");
            assert_eq!(findings.judgement(), worst);
        }
    }
}
