//! How a broker judges a batch: one order, each refusal with its own code.
//!
//! ```text
//!   FORMAT -> BINDING -> SESSION -> deduplicate -> DENIED -> SEAL -> TIME -> FENCED -> GAP -> CHAIN -> SIGNATURE -> EQUIVOCATION
//!   (decode)  bus, topic  key and   same digest:   policy            clock   newer     ahead  prev     hash, then   used number,
//!                         life      ack again;                               life                      Ed25519      other digest
//!                                   older: STALE
//! ```
//!
//! The cheap checks come first, so that a flood of bad batches costs its sender more than us. Deduplication comes
//! before the policy: a retry of what was accepted is acknowledged again even if the right was withdrawn since. A
//! refused batch consumes no sequence number.

use std::collections::VecDeque;

use crate::ids::{BusId, IncarnationId, InstanceId, Kid, PreambleDigest, TopicDigest};
use crate::keys::VerifyingKey;
use crate::limits::{CLOCK_AHEAD_MS_MAX, CREATED_BEHIND_MS_MAX, UNACKNOWLEDGED_BATCHES_MAX};
use crate::policy::{Denial, Permit, Verb};
use crate::refusal::{Code, Refusal};
use crate::topic::Topic;

use super::preamble::{HEAD_LEN, Preamble, Seal};
use super::signed::{Batch, VerifiedBatch};

/// Heads of accepted batches that are kept whole, as one half of the evidence against a producer that signs twice.
/// Of older batches in the window only the digest is kept.
const HEADS_KEPT: usize = 4;

/// How far an acknowledged batch is from being lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Durability {
    /// Handed to the subscribers of this moment; kept nowhere.
    Live = 1,
    /// In the broker's memory.
    Memory = 2,
    /// On its way to the disk within the stream's interval.
    Interval = 3,
    /// On the disk: written and synced.
    Fsync = 4,
}

impl Durability {
    /// The level with this number, when there is one.
    #[must_use]
    pub const fn from_wire(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Live),
            2 => Some(Self::Memory),
            3 => Some(Self::Interval),
            4 => Some(Self::Fsync),
            _ => None,
        }
    }

    /// The word that documentation and output use.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Memory => "memory",
            Self::Interval => "interval",
            Self::Fsync => "fsync",
        }
    }
}

/// What a producer is told about an accepted batch, and told again when it retries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    /// How durable it is.
    pub durability: Durability,
    /// Offset of its first message in its stream; none when it is live only.
    pub offset: Option<u64>,
}

/// The producer that a session has proven to speak for.
#[derive(Debug, Clone)]
pub struct ProvenProducer {
    /// The id of its signing key.
    pub kid: Kid,
    /// Its signing key.
    pub key: VerifyingKey,
    /// Its process or replica.
    pub instance_id: InstanceId,
    /// Start of its incarnation, milliseconds since 1970.
    pub started_ms: u64,
    /// Its incarnation.
    pub incarnation_id: IncarnationId,
}

/// Whether the incarnation may still publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fence {
    /// It is the newest of its instance, or the instance does not fence.
    Open,
    /// A newer incarnation of the configured instance has been seen.
    Superseded,
}

/// What a batch is judged against.
#[derive(Debug)]
pub struct Circumstances<'a> {
    /// This bus.
    pub bus_id: BusId,
    /// The topic that the batch was sent to.
    pub topic: &'a Topic,
    /// Its digest within its stream; computed once per topic and session, not once per batch.
    pub topic_digest: TopicDigest,
    /// The session's producer.
    pub producer: &'a ProvenProducer,
    /// Version of the policy in force.
    pub policy_version: u64,
    /// The decision about publishing to this topic.
    pub decision: Result<&'a Permit, &'a Denial>,
    /// Whether the incarnation is fenced.
    pub fence: Fence,
    /// The broker's clock, milliseconds since 1970.
    pub now_ms: u64,
}

/// The outcome of a judgement.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "accepting is the common case and should not cost an allocation"
)]
pub enum Verdict {
    /// Permitted, verified and next in its sequence.
    Accept(Accepted),
    /// Accepted before: this is what to answer again.
    Duplicate(Receipt),
    /// Refused; nothing changes.
    Refuse(Refusal),
    /// Refused, and proof that the producer signed two batches under one sequence number.
    Equivocate(Box<Equivocation>),
}

/// A batch that a permit and a verification stand behind. Nothing else can be stored or fanned out.
#[derive(Debug, Clone)]
pub struct Accepted {
    batch: VerifiedBatch,
    permit: Permit,
    digest: PreambleDigest,
}

impl Accepted {
    /// The batch.
    #[must_use]
    pub const fn batch(&self) -> &Batch {
        self.batch.batch()
    }

    /// The permit that it was accepted under.
    #[must_use]
    pub const fn permit(&self) -> &Permit {
        &self.permit
    }
}

/// Two batches under one sequence number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Equivocation {
    /// Digest of the batch that was accepted.
    pub accepted: PreambleDigest,
    /// Its preamble and signature, while they are still kept.
    pub accepted_head: Option<[u8; HEAD_LEN]>,
    /// Preamble and signature of the other batch.
    pub refused_head: [u8; HEAD_LEN],
    /// The sequence number that both claim.
    pub first_seq: u64,
}

/// Where a producer goes on after a reconnect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResumePoint {
    /// The sequence number that is expected next.
    pub next_seq: u64,
    /// Digest of the last accepted batch.
    pub last: PreambleDigest,
}

/// What a broker remembers of one (incarnation, topic).
#[derive(Debug, Clone, Default)]
pub struct SequenceState {
    /// The end of the sequence; none until a first batch is accepted.
    end: Option<ResumePoint>,
    /// The last accepted batches, oldest first.
    window: VecDeque<Remembered>,
}

#[derive(Debug, Clone)]
struct Remembered {
    batch: RememberedBatch,
    head: Option<Box<[u8; HEAD_LEN]>>,
}

/// What is kept of an accepted batch across a restart, so that a retry of it is known again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RememberedBatch {
    /// Where it begins.
    pub first_seq: u64,
    /// Where the next one begins.
    pub next_seq: u64,
    /// The digest of its preamble.
    pub digest: PreambleDigest,
    /// What its producer was told.
    pub receipt: Receipt,
}

impl SequenceState {
    /// Nothing is known: the first accepted batch sets the sequence. That is how a broker that was restarted goes on
    /// with a topic that is live only.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Nothing was accepted yet, and whatever had been would be known: the sequence begins at 0, chained to nothing.
    /// That is how a stream begins, which forgets nobody.
    #[must_use]
    pub fn from_start() -> Self {
        Self { end: Some(ResumePoint { next_seq: 0, last: PreambleDigest::ZERO }), window: VecDeque::new() }
    }

    /// The state that remembers these batches, oldest first, of which the last [`UNACKNOWLEDGED_BATCHES_MAX`] count.
    /// It judges as the state did whose [`SequenceState::remembered`] they are, and has forgotten only the heads that
    /// an equivocation would show; of none, it is [`SequenceState::from_start`].
    #[must_use]
    pub fn restore(batches: impl IntoIterator<Item = RememberedBatch>) -> Self {
        let mut state = Self::from_start();
        for batch in batches {
            state.remember(Remembered { batch, head: None });
        }
        state
    }

    /// The last accepted batches, oldest first.
    pub fn remembered(&self) -> impl ExactSizeIterator<Item = RememberedBatch> {
        self.window.iter().map(|remembered| remembered.batch)
    }

    /// Where the producer goes on; none when nothing is known, or nothing was accepted yet.
    #[must_use]
    pub fn resume_point(&self) -> Option<ResumePoint> {
        self.end.filter(|end| end.next_seq > 0)
    }

    /// Judges a well-formed batch. The state does not change: [`SequenceState::commit`] does that once the batch has
    /// been stored or handed on.
    #[must_use]
    pub fn judge(&self, batch: Batch, circumstances: &Circumstances<'_>) -> Verdict {
        let (permit, used) = match self.check(&batch, circumstances) {
            Err(refusal) => return Verdict::Refuse(refusal),
            Ok(Standing::Duplicate(receipt)) => return Verdict::Duplicate(receipt),
            Ok(Standing::Next(permit)) => (permit, None),
            Ok(Standing::Used(permit, remembered)) => (permit, Some(remembered)),
        };
        let batch = match batch.verify(&circumstances.producer.key) {
            Ok(batch) => batch,
            Err(error) => return Verdict::Refuse(Refusal::new(Code::Signature, error.to_string())),
        };
        match used {
            Some(remembered) => Verdict::Equivocate(Box::new(equivocation(remembered, batch.batch()))),
            None => {
                let digest = batch.batch().digest();
                Verdict::Accept(Accepted { batch, permit: permit.clone(), digest })
            }
        }
    }

    /// Moves the sequence past an accepted batch.
    ///
    /// # Panics
    /// When the batch is not the next one: state and verdict must be of one moment.
    pub fn commit(&mut self, accepted: &Accepted, receipt: Receipt) {
        let preamble = accepted.batch().preamble();
        if let Some(end) = self.end {
            assert_eq!(
                end.next_seq, preamble.first_seq,
                "a verdict is committed to the state that it was made on"
            );
        }
        self.remember(Remembered {
            batch: RememberedBatch {
                first_seq: preamble.first_seq,
                next_seq: preamble.next_seq(),
                digest: accepted.digest,
                receipt,
            },
            head: Some(Box::new(head_of(accepted.batch()))),
        });
    }

    /// Goes back to before a batch that could not be kept after all: its numbers are free, and a retry of it is new.
    /// Several are withdrawn in reverse order. What their commits pushed out of the window does not come back; that is
    /// no loss, since a producer that had so many unacknowledged had seen it acknowledged. A state that knew nothing
    /// before the batch expects this one.
    ///
    /// # Panics
    /// When the batch is not the last one that was committed.
    pub fn withdraw(&mut self, accepted: &Accepted) {
        assert_eq!(
            self.end.map(|end| end.last),
            Some(accepted.digest),
            "what was committed last is withdrawn first"
        );
        self.window.pop_back();
        let preamble = accepted.batch().preamble();
        self.end = Some(ResumePoint { next_seq: preamble.first_seq, last: preamble.prev });
    }

    /// Moves the end behind a batch, and the window with it.
    fn remember(&mut self, remembered: Remembered) {
        self.end = Some(ResumePoint { next_seq: remembered.batch.next_seq, last: remembered.batch.digest });
        if self.window.len() == UNACKNOWLEDGED_BATCHES_MAX {
            self.window.pop_front();
        }
        if let Some(index) = self.window.len().checked_sub(HEADS_KEPT) {
            self.window[index].head = None;
        }
        self.window.push_back(remembered);
    }

    /// All checks that come before the signature, in their order.
    fn check<'a>(
        &'a self,
        batch: &Batch,
        circumstances: &Circumstances<'a>,
    ) -> Result<Standing<'a>, Refusal> {
        let preamble = batch.preamble();
        check_binding(preamble, circumstances)?;
        check_session(preamble, circumstances.producer)?;
        let used = match self.deduplicate(batch)? {
            Deduplicated::Before(receipt) => return Ok(Standing::Duplicate(receipt)),
            Deduplicated::Other(remembered) => Some(remembered),
            Deduplicated::New => None,
        };
        let permit = circumstances.decision.map_err(|denial| denied(circumstances.topic, denial))?;
        assert_eq!(permit.verb(), Verb::Publish, "a permit is shown for the act that it was given for");
        assert_eq!(
            permit.topic(),
            Some(circumstances.topic),
            "a permit is shown for the act that it was given for"
        );
        if preamble.seal != Seal::None {
            return Err(Refusal::new(
                Code::Seal,
                "the batch is sealed; sealed streams are not in this version",
            ));
        }
        check_time(preamble, circumstances.now_ms)?;
        if circumstances.fence == Fence::Superseded {
            return Err(Refusal::new(Code::Fenced, "a newer incarnation of this instance has taken over"));
        }
        match used {
            Some(remembered) => Ok(Standing::Used(permit, remembered)),
            None => self.check_place(preamble).map(|()| Standing::Next(permit)),
        }
    }

    /// Same digest in the window: accepted before. Another digest where a remembered batch begins: judged further,
    /// since only a valid signature makes it evidence. Anything else behind the end cannot be told from a replay.
    fn deduplicate(&self, batch: &Batch) -> Result<Deduplicated<'_>, Refusal> {
        let Some(end) = self.end else { return Ok(Deduplicated::New) };
        let first_seq = batch.preamble().first_seq;
        if first_seq >= end.next_seq {
            return Ok(Deduplicated::New);
        }
        let Some(remembered) = self.window.iter().find(|remembered| remembered.batch.first_seq == first_seq)
        else {
            let reason = format!(
                "sequence {first_seq} begins none of the last {UNACKNOWLEDGED_BATCHES_MAX} batches; {} is next",
                end.next_seq
            );
            return Err(Refusal::new(Code::Stale, reason));
        };
        if remembered.batch.digest == batch.digest() {
            return Ok(Deduplicated::Before(remembered.batch.receipt));
        }
        Ok(Deduplicated::Other(remembered))
    }

    fn check_place(&self, preamble: &Preamble) -> Result<(), Refusal> {
        let Some(end) = self.end else { return Ok(()) };
        if preamble.first_seq > end.next_seq {
            let reason = format!("sequence {} came while {} is expected", preamble.first_seq, end.next_seq);
            return Err(Refusal::new(Code::Gap, reason));
        }
        if preamble.prev != end.last {
            let reason =
                format!("the batch at sequence {} is not chained to the one before it", preamble.first_seq);
            return Err(Refusal::new(Code::Chain, reason));
        }
        Ok(())
    }
}

/// Where a batch stands in its sequence, before its signature is looked at.
enum Standing<'a> {
    Next(&'a Permit),
    Used(&'a Permit, &'a Remembered),
    Duplicate(Receipt),
}

/// What the window of remembered batches says of a batch.
enum Deduplicated<'a> {
    New,
    Before(Receipt),
    Other(&'a Remembered),
}

fn denied(topic: &Topic, denial: &Denial) -> Refusal {
    Refusal::new(Code::Denied, format!("publish on {topic}: {denial}"))
}

fn check_binding(preamble: &Preamble, circumstances: &Circumstances<'_>) -> Result<(), Refusal> {
    if preamble.bus_id != circumstances.bus_id {
        let reason =
            format!("the batch was made for bus {}, this is bus {}", preamble.bus_id, circumstances.bus_id);
        return Err(Refusal::new(Code::Binding, reason));
    }
    if preamble.topic != circumstances.topic_digest {
        return Err(Refusal::new(Code::Binding, "the batch was made for another topic or stream"));
    }
    if preamble.policy_version > circumstances.policy_version {
        let reason = format!(
            "the batch names policy version {}, the one in force is {}",
            preamble.policy_version, circumstances.policy_version
        );
        return Err(Refusal::new(Code::Binding, reason));
    }
    Ok(())
}

fn check_session(preamble: &Preamble, producer: &ProvenProducer) -> Result<(), Refusal> {
    let same = preamble.kid == producer.kid
        && preamble.instance_id == producer.instance_id
        && preamble.started_ms == producer.started_ms
        && preamble.incarnation_id == producer.incarnation_id;
    if same {
        return Ok(());
    }
    Err(Refusal::new(Code::Session, "the batch is of another key or incarnation than this session's"))
}

fn check_time(preamble: &Preamble, now_ms: u64) -> Result<(), Refusal> {
    let created_ms = preamble.created_ms;
    if created_ms > now_ms.saturating_add(CLOCK_AHEAD_MS_MAX) {
        let reason = format!("created {} ms ahead of the broker's clock", created_ms - now_ms);
        return Err(Refusal::new(Code::Time, reason));
    }
    if created_ms < now_ms.saturating_sub(CREATED_BEHIND_MS_MAX) {
        let reason = format!("created {} ms behind the broker's clock", now_ms - created_ms);
        return Err(Refusal::new(Code::Time, reason));
    }
    Ok(())
}

fn equivocation(remembered: &Remembered, refused: &Batch) -> Equivocation {
    Equivocation {
        accepted: remembered.batch.digest,
        accepted_head: remembered.head.as_deref().copied(),
        refused_head: head_of(refused),
        first_seq: remembered.batch.first_seq,
    }
}

fn head_of(batch: &Batch) -> [u8; HEAD_LEN] {
    *batch.bytes().first_chunk().expect("decode has seen a whole head")
}

#[cfg(test)]
mod tests;
