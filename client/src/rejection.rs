//! What a reader yields in place of messages: what is missing, and what was not believed.

use std::fmt;

use sealbus_protocol::frame::SkippedWhy;
use sealbus_protocol::identity::Principal;
use sealbus_protocol::ids::Kid;
use sealbus_protocol::refusal::Code;
use sealbus_protocol::topic::Topic;

use crate::error::CloseReason;

/// What a subscription, replay or consumer yields in place of a message. The stream goes on after every one but [`DeliveryError::Closed`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeliveryError {
    /// This consumer was too slow, and the broker dropped messages here.
    Lagged {
        /// Exactly how many, as the broker says.
        missed: u64,
    },
    /// Sequence numbers of a producer are missing here that no lag explains. After a reconnect, this is what was
    /// published meanwhile.
    Gap {
        /// The topic.
        topic: Topic,
        /// The producer.
        producer: Principal,
        /// How many sequence numbers are missing.
        missed: u64,
    },
    /// Offsets of a stream that will not come.
    Skipped {
        /// The first.
        from: u64,
        /// The offset after the last.
        to: u64,
        /// Why, as far as it is known.
        why: Missing,
    },
    /// A batch that does not prove itself. Nothing of it is handed out.
    Rejected(Rejection),
    /// It has ended for good.
    Closed(CloseReason),
}

impl fmt::Display for DeliveryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lagged { missed } => {
                write!(f, "{missed} messages were dropped here because this consumer was slow")
            }
            Self::Gap { topic, producer, missed } => {
                write!(f, "{missed} messages of {producer} on {topic} are missing here")
            }
            Self::Skipped { from, to, why } => {
                write!(f, "offsets {from} to {} are missing here: {why}", to.saturating_sub(1))
            }
            Self::Rejected(rejection) => rejection.fmt(f),
            Self::Closed(reason) => write!(f, "the subscription has ended: {reason}"),
        }
    }
}

impl std::error::Error for DeliveryError {}

/// Why offsets of a stream are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Missing {
    /// Retention has removed them, as the broker says.
    Trimmed,
    /// The broker has found them damaged on its disk.
    Damaged,
    /// A right was withdrawn: this reader's, while it was reading, or their producer's, before they were stored.
    Withdrawn,
    /// The broker went on behind them and said nothing.
    Unexplained,
}

impl Missing {
    /// The word that output uses.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Trimmed => "trimmed",
            Self::Damaged => "damaged",
            Self::Withdrawn => "withdrawn",
            Self::Unexplained => "unexplained",
        }
    }
}

impl From<SkippedWhy> for Missing {
    fn from(why: SkippedWhy) -> Self {
        match why {
            SkippedWhy::Trimmed => Self::Trimmed,
            SkippedWhy::Damaged => Self::Damaged,
            SkippedWhy::Withdrawn => Self::Withdrawn,
        }
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Trimmed => "retention has removed them",
            Self::Damaged => "they are damaged on the broker's disk",
            Self::Withdrawn => "a right was withdrawn: to read them, or of who published them",
            Self::Unexplained => "the broker went on behind them without a word",
        })
    }
}

/// A batch that was delivered and not believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// What was found wrong.
    pub code: RejectionCode,
    /// The topic that the broker named.
    pub topic: Topic,
    /// The sentence for a person.
    pub reason: String,
    /// The key that the batch names, when it could be read.
    pub kid: Option<Kid>,
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: a batch on {} was refused: {}", self.code, self.topic, self.reason)
    }
}

impl std::error::Error for Rejection {}

/// What a consumer finds wrong with a batch, in the words that brokers use too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RejectionCode {
    /// The bytes are not a batch.
    Format,
    /// It was made for another bus, stream or topic, or nothing that we believe binds its key to a principal.
    Binding,
    /// Content hash or signature does not verify.
    Signature,
    /// It was delivered before, or a history goes back.
    Replay,
    /// Another batch stood at its offset before.
    Rewrite,
    /// Its append time or policy version goes back, which those of a log never do.
    Time,
    /// Its producer signed two batches for one place.
    Equivocation,
    /// It is not chained to the batch before it.
    Chain,
    /// It is sealed, and this version does not open sealed batches.
    Seal,
}

impl RejectionCode {
    /// The word that documentation, logs and output use.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Format => Code::Format.as_str(),
            Self::Binding => Code::Binding.as_str(),
            Self::Signature => Code::Signature.as_str(),
            // No broker says this to anybody: it is what a consumer says of a broker.
            Self::Replay => "REPLAY",
            Self::Rewrite => "REWRITE",
            Self::Time => Code::Time.as_str(),
            Self::Equivocation => Code::Equivocation.as_str(),
            Self::Chain => Code::Chain.as_str(),
            Self::Seal => Code::Seal.as_str(),
        }
    }
}

impl fmt::Display for RejectionCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
