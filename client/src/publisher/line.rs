//! What becomes of the batches of one topic once they are signed. Pure: moments and answers come in, bytes to send
//! and settled batches come out.
//!
//! ```text
//!              sign                poll_transmit              ack
//!   collected ------> Waiting ------------------> Sent ------------------> accepted
//!                        ^                         | |
//!                        |     connection lost     | |
//!                        |<------------------------' | refused, to be retried: Held until a short pause is over
//!                        |<--------------------------|
//!                                                    | refused for good: failed, and the sequence is SPOILED:
//!                                                    | what came behind it in vain is Orphaned
//!                                                    v
//!   new incarnation <--- restart <-------------- Orphaned
//! ```
//!
//! A sequence number is signed once in an incarnation. So a batch that will never be accepted leaves a hole that
//! nothing may fill: the line is *spoiled*. Answers to what was sent are still awaited; then a new incarnation begins
//! at 0, and what is known not to have been accepted is signed anew there, in order. What is not known is lost, and
//! said to be.
//!
//! The same happens when the topic's stream has become another: its identifier is part of what is signed. A broker that
//! keeps a stream knows from the log where a sequence goes on, also after a restart; what it has not stored is sent
//! again byte for byte.

use std::collections::VecDeque;

use bytes::Bytes;
use sealbus_protocol::batch::accept::ResumePoint;
use sealbus_protocol::batch::produce::{OpenBatch, ProducerChain, ProducerContext, SignedBatch};
use sealbus_protocol::batch::{Batch, Records};
use sealbus_protocol::frame::Ack;
use sealbus_protocol::ids::TopicDigest;
use sealbus_protocol::keys::SigningKey;
use sealbus_protocol::limits::UNACKNOWLEDGED_BATCHES_MAX;
use sealbus_protocol::refusal::{Action, Code, Refusal};
use sealbus_protocol::session::Tick;

use crate::error::PublishError;

use super::entry::{Doubt, Entry, Settled, Standing, Waiters};
use super::queue::Collected;
use super::receipt::BatchReceipt;

/// How long a refusal that may pass is waited out before the same bytes are sent again.
const RETRY_PAUSE_MS: u64 = 250;

/// The signed batches of one topic, oldest first. `T` is what the waiting messages of a batch share.
#[derive(Debug)]
pub(crate) struct Line<T> {
    topic: TopicDigest,
    chain: ProducerChain,
    entries: VecDeque<Entry<T>>,
    spoiled: Option<Refusal>,
    resend_at: Option<Tick>,
    footing: Footing,
    /// What the broker last refused with leave to try again, until it accepts something.
    holding: Option<Refusal>,
    publish_timeout_ms: u64,
}

/// Whether the broker is known to follow the sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Footing {
    /// It takes the sequence from the first batch that it accepts, whichever that is. So one is sent alone: were the
    /// second accepted and the first refused, the first could never be sent again.
    Unsure,
    Sure,
}

/// Bytes to send; `first_seq` names the batch in the answer.
#[derive(Debug)]
pub(crate) struct Transmit {
    pub(crate) first_seq: u64,
    pub(crate) bytes: Bytes,
}

/// Sequence numbers of which nobody knows whether they were accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LostSpan {
    pub(crate) from: u64,
    pub(crate) to: u64,
}

/// What a restart makes of the old incarnation's batches.
#[derive(Debug)]
pub(crate) struct Restarted<T> {
    pub(crate) settled: Vec<Settled<T>>,
    pub(crate) lost: Vec<LostSpan>,
}

impl<T> Line<T> {
    pub(crate) const fn new(topic: TopicDigest, publish_timeout_ms: u64) -> Self {
        Self {
            topic,
            chain: ProducerChain::new(topic),
            entries: VecDeque::new(),
            spoiled: None,
            resend_at: None,
            footing: Footing::Unsure,
            holding: None,
            publish_timeout_ms,
        }
    }

    /// Whether another batch may be signed.
    pub(crate) fn can_sign(&self) -> bool {
        let places = match self.footing {
            Footing::Unsure => 1,
            Footing::Sure => UNACKNOWLEDGED_BATCHES_MAX,
        };
        self.spoiled.is_none() && self.resend_at.is_none() && self.entries.len() < places
    }

    /// Signs a batch into the next place.
    pub(crate) fn sign(&mut self, collected: Collected<T>, context: &ProducerContext, key: &SigningKey) {
        debug_assert!(self.spoiled.is_none(), "nothing is signed into a spoiled sequence");
        let batch = self.chain.sign(collected.batch, context, key);
        let (cargo, standing) = (collected.cargo, Standing::Unsent);
        self.entries.push_back(Entry {
            batch,
            cargo,
            standing,
            waiters: Waiters::Waiting,
            doubt: Doubt::None,
        });
    }

    /// The next batch to send, in order. On a spoiled line only what may have been accepted is sent again, to learn.
    pub(crate) fn poll_transmit_at(&mut self, now: Tick) -> Option<Transmit> {
        if self.resend_at.is_some_and(|at| now < at) {
            return None;
        }
        if self.resend_at.take().is_some() {
            for entry in self.entries.iter_mut().filter(|entry| matches!(entry.standing, Standing::Held(_))) {
                entry.standing = Standing::Unsent;
            }
        }
        let is_sent = |entry: &Entry<T>| matches!(entry.standing, Standing::Sent);
        if self.footing == Footing::Unsure && self.entries.iter().any(is_sent) {
            return None;
        }
        let spoiled = self.spoiled.is_some();
        let entry = self.entries.iter_mut().find(|entry| match entry.standing {
            Standing::Unsent => !spoiled,
            Standing::Unknown => true,
            Standing::Sent | Standing::Held(_) | Standing::Orphaned => false,
        })?;
        entry.standing = Standing::Sent;
        Some(Transmit { first_seq: entry.batch.first_seq(), bytes: entry.batch.bytes().clone() })
    }

    /// The broker accepted a batch. Nothing settles when its waiters were told before that it took too long.
    pub(crate) fn handle_ack(
        &mut self,
        first_seq: u64,
        ack: &Ack,
        context: &ProducerContext,
    ) -> Option<Settled<T>> {
        let entry = self.remove_sent(first_seq)?;
        self.footing = Footing::Sure;
        self.holding = None;
        let receipt = BatchReceipt {
            first_seq,
            durability: ack.receipt.durability,
            offset: ack.receipt.offset,
            incarnation_id: context.incarnation_id,
            broker_ms: ack.broker_ms,
        };
        entry.settle(Ok(receipt))
    }

    /// The broker refused a batch.
    pub(crate) fn handle_refused_at(
        &mut self,
        first_seq: u64,
        refusal: Refusal,
        now: Tick,
    ) -> Option<Settled<T>> {
        let index = self.index_of_sent(first_seq)?;
        let behind_another =
            self.entries.range(..index).any(|entry| !matches!(entry.standing, Standing::Orphaned));
        let in_vain = matches!(refusal.code(), Code::Gap | Code::Chain);
        if refusal.action() == Action::Retry {
            self.holding = Some(refusal.clone());
        }
        if self.spoiled.is_none() && (refusal.action() == Action::Retry || (in_vain && behind_another)) {
            self.resend_at.get_or_insert(now.after_ms(RETRY_PAUSE_MS));
            self.stand(index, Standing::Held(refusal));
            return None;
        }
        if in_vain || refusal.action() == Action::Retry {
            // The refusal says nothing about the messages, only that they cannot be accepted in this place.
            self.stand(index, Standing::Orphaned);
            self.spoil(refusal);
            return None;
        }
        let entry = self.entries.remove(index)?;
        self.spoil(refusal.clone());
        if refusal.code() == Code::Stale {
            // The broker cannot tell it from a replay, so it may have been accepted long ago.
            return entry.settle(Err(PublishError::Lost));
        }
        entry.settle_unaccepted(PublishError::Refused(refusal))
    }

    /// The connection is gone, and with it every answer that was on its way.
    pub(crate) fn handle_disconnected(&mut self) {
        self.resend_at = None;
        for entry in &mut self.entries {
            match entry.standing {
                Standing::Sent => entry.standing = Standing::Unknown,
                Standing::Held(_) => entry.standing = Standing::Unsent,
                Standing::Unsent | Standing::Unknown | Standing::Orphaned => {}
            }
        }
    }

    /// The topic is open, captured by a stream or by none, which is part of what is signed. A sequence that was begun
    /// for another stream ends: what was sent to that one can be asked for no more, the rest is signed anew.
    pub(crate) fn handle_topic(&mut self, topic: TopicDigest) {
        if self.topic == topic {
            return;
        }
        self.topic = topic;
        if self.is_unused() {
            self.chain = ProducerChain::new(topic);
            return;
        }
        for entry in &mut self.entries {
            if matches!(entry.standing, Standing::Sent | Standing::Unknown) {
                entry.standing = Standing::Orphaned;
                entry.doubt = Doubt::Forgotten;
            }
        }
        self.spoil(Refusal::new(Code::Binding, "another stream captures the topic now"));
    }

    /// The topic is open again. A broker that remembers the sequence says where it goes on, which must be a place
    /// that this line can go on from.
    pub(crate) fn handle_opened(&mut self, resume: Option<ResumePoint>) {
        let Some(point) = resume else {
            self.footing = Footing::Unsure;
            for entry in self.entries.iter_mut().filter(|entry| matches!(entry.standing, Standing::Unknown)) {
                entry.doubt = Doubt::Forgotten;
            }
            return;
        };
        self.footing = Footing::Sure;
        let oldest = self.entries.front().map_or(self.chain.next_seq(), |entry| entry.batch.first_seq());
        if point.next_seq > self.chain.next_seq() || (point.next_seq < oldest && self.spoiled.is_none()) {
            let reason = format!(
                "the broker goes on at sequence {}, this client holds {oldest} to {}",
                point.next_seq,
                self.chain.next_seq()
            );
            self.spoil(Refusal::new(Code::Gap, reason));
            return;
        }
        let last = self.entries.iter().find(|entry| {
            entry.batch.first_seq().saturating_add(u64::from(entry.batch.count())) == point.next_seq
        });
        if last.is_some_and(|last| last.batch.digest() != point.last) {
            self.spoil(Refusal::new(Code::Chain, "the broker remembers another batch than was sent"));
        }
    }

    /// Tells those whose deadline has passed. A batch that was never accepted is dropped, which spoils the sequence;
    /// one that may have been keeps its place, unheard.
    pub(crate) fn handle_timeout_at(&mut self, now: Tick) -> Vec<Settled<T>>
    where
        T: Clone,
    {
        let mut settled = Vec::new();
        let after_ms = self.publish_timeout_ms;
        let mut index = 0;
        while let Some(entry) = self.entries.get_mut(index) {
            if entry.cargo.deadline > now || entry.waiters == Waiters::Told {
                index += 1;
                continue;
            }
            let error = match &entry.standing {
                Standing::Sent | Standing::Unknown => {
                    entry.waiters = Waiters::Told;
                    let (cargo, bytes) = (entry.cargo.clone(), entry.body_len());
                    settled.push(Settled {
                        cargo,
                        bytes,
                        outcome: Err(PublishError::Unanswered { after_ms }),
                    });
                    index += 1;
                    continue;
                }
                // What came behind a refused batch was refused for its place; the reason is the first one's.
                Standing::Held(refusal) => {
                    PublishError::Refused(self.holding.clone().unwrap_or_else(|| refusal.clone()))
                }
                Standing::Unsent | Standing::Orphaned => {
                    PublishError::NotSent { after_ms, last: self.holding.clone() }
                }
            };
            let entry = self.entries.remove(index).expect("the entry was just looked at");
            if !matches!(entry.standing, Standing::Orphaned) {
                self.spoil(Refusal::new(Code::Gap, "a batch was given up before it could be accepted"));
            }
            settled.extend(entry.settle_unaccepted(error));
        }
        settled
    }

    /// Why this sequence cannot go on, when it cannot.
    pub(crate) const fn spoiled(&self) -> Option<&Refusal> {
        self.spoiled.as_ref()
    }

    /// Why nothing is accepted at present, when the broker has said that it may pass.
    pub(crate) const fn holding(&self) -> Option<&Refusal> {
        self.holding.as_ref()
    }

    /// Whether nobody waits for an answer that may still come, so that a restart loses nothing.
    pub(crate) fn can_restart(&self) -> bool {
        !self.entries.iter().any(|entry| {
            entry.waiters == Waiters::Waiting && matches!(entry.standing, Standing::Sent | Standing::Unknown)
        })
    }

    /// Whether batches wait to be signed anew.
    pub(crate) fn has_orphans(&self) -> bool {
        let wanted = |entry: &Entry<T>| entry.waiters == Waiters::Waiting;
        self.entries.iter().any(|entry| wanted(entry) && matches!(entry.standing, Standing::Orphaned))
    }

    /// Whether a signed batch waits to be sent, and is next.
    pub(crate) fn has_unsent(&self) -> bool {
        self.entries.iter().any(|entry| matches!(entry.standing, Standing::Unsent | Standing::Unknown))
    }

    /// A batch could not be handed to the session after all.
    pub(crate) fn handle_unsent(&mut self, first_seq: u64) {
        if let Some(index) = self.index_of_sent(first_seq) {
            self.stand(index, Standing::Unknown);
        }
    }

    /// Whether nothing is kept here that the broker has not answered.
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether no batch was ever signed in this incarnation, so that forgetting the line forgets nothing.
    pub(crate) const fn is_unused(&self) -> bool {
        self.chain.next_seq() == 0
    }

    /// Begins a new incarnation. What is known not to have been accepted is signed anew, in order.
    pub(crate) fn restart(&mut self, context: &ProducerContext, key: &SigningKey) -> Restarted<T> {
        let mut restarted = Restarted { settled: Vec::new(), lost: Vec::new() };
        let entries = std::mem::take(&mut self.entries);
        self.chain = ProducerChain::new(self.topic);
        self.spoiled = None;
        self.resend_at = None;
        self.footing = Footing::Unsure;
        for entry in entries {
            let may_be_accepted = matches!(entry.standing, Standing::Sent | Standing::Unknown)
                || entry.doubt == Doubt::Forgotten;
            if may_be_accepted {
                let from = entry.batch.first_seq();
                let to = from.saturating_add(u64::from(entry.batch.count())).saturating_sub(1);
                restarted.lost.push(LostSpan { from, to });
                restarted.settled.extend(entry.settle(Err(PublishError::Lost)));
            } else if entry.waiters == Waiters::Waiting {
                // What was reported as unanswered is not sent after all: that would come as a surprise.
                let (batch, created_ms) = reopen(&entry.batch);
                self.sign(Collected { batch, created_ms, cargo: entry.cargo }, context, key);
            }
        }
        restarted
    }

    /// The topic is refused as a whole: what is known not to have been accepted has this answer.
    pub(crate) fn fail_unsent(&mut self, error: &PublishError) -> Vec<Settled<T>> {
        let mut settled = Vec::new();
        for entry in std::mem::take(&mut self.entries) {
            match entry.standing {
                Standing::Sent | Standing::Unknown => self.entries.push_back(entry),
                Standing::Orphaned => settled.extend(entry.settle_unaccepted(error.clone())),
                Standing::Unsent | Standing::Held(_) => {
                    self.spoil(Refusal::new(Code::Gap, "a batch was given up because its topic was refused"));
                    settled.extend(entry.settle_unaccepted(error.clone()));
                }
            }
        }
        settled
    }

    /// The bus has ended: every batch has its answer now.
    pub(crate) fn abandon(&mut self, error: &PublishError) -> Vec<Settled<T>> {
        self.entries.drain(..).filter_map(|entry| entry.settle(Err(error.clone()))).collect()
    }

    /// When [`Line::handle_timeout_at`] has something to tell.
    pub(crate) fn deadline(&self) -> Option<Tick> {
        let waiting = self.entries.iter().filter(|entry| entry.waiters == Waiters::Waiting);
        waiting.map(|entry| entry.cargo.deadline).min()
    }

    /// When what was held back may be sent again.
    pub(crate) const fn resend_at(&self) -> Option<Tick> {
        self.resend_at
    }

    /// The sequence is at its end. Whatever was not sent cannot be accepted any more.
    fn spoil(&mut self, because: Refusal) {
        self.spoiled.get_or_insert(because);
        self.resend_at = None;
        for entry in &mut self.entries {
            if matches!(entry.standing, Standing::Unsent | Standing::Held(_)) {
                entry.standing = Standing::Orphaned;
            }
        }
    }

    fn stand(&mut self, index: usize, standing: Standing) {
        if let Some(entry) = self.entries.get_mut(index) {
            entry.standing = standing;
        }
    }

    fn index_of_sent(&self, first_seq: u64) -> Option<usize> {
        self.entries.iter().position(|entry| {
            entry.batch.first_seq() == first_seq && matches!(entry.standing, Standing::Sent)
        })
    }

    fn remove_sent(&mut self, first_seq: u64) -> Option<Entry<T>> {
        self.entries.remove(self.index_of_sent(first_seq)?)
    }
}

/// The messages of a batch that was signed in vain, ready to be signed again elsewhere.
fn reopen(signed: &SignedBatch) -> (OpenBatch, u64) {
    let batch = Batch::decode(signed.bytes().clone()).expect("what was signed here is well formed");
    let created_ms = batch.preamble().created_ms;
    let mut open = OpenBatch::new(created_ms);
    for record in Records::new(batch.body()) {
        let record = record.expect("a decoded batch has only records that parse");
        let published_ms = created_ms.saturating_add_signed(i64::from(record.time_delta_ms));
        open.push(published_ms, record.key, record.headers, record.payload)
            .expect("what fitted one batch fits another");
    }
    (open, created_ms)
}

#[cfg(test)]
mod tests;
