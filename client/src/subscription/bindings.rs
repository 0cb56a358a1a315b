//! The keys that are known, by what a batch names and its judge adds: a `kid`, and the moment in question.
//!
//! ```text
//!   BINDING ──> unverified ──(first batch of a moment in which it holds)──> verified, by our own roots
//!                                                                      └──> not believed: forgotten
//!   unknown kid ──> asked for, once ──> the answer, or none ──> unbelieved for a minute
//! ```
//!
//! A key outlives its certificate when that is renewed, so one kid may have several bindings, each with its own span. A
//! live batch is judged at the consumer's own time, a stored one at its append time; a binding that does not hold at
//! the moment in question is kept for another moment.
//!
//! Shared by all readers of a bus. Verifying costs a chain of signatures, so it happens in the consumer's task,
//! outside the lock, and once for each binding.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use sealbus_protocol::binding::KeyBinding;
use sealbus_protocol::identity::{Principal, TrustStore, Validity};
use sealbus_protocol::ids::Kid;
use sealbus_protocol::keys::VerifyingKey;

use crate::connection::wake::Wake;
use crate::sync::locked;

/// Keys that are kept verified; the oldest is dropped first and asked for again when it is needed. As many as the
/// sequences that one subscription follows.
const VERIFIED_MAX: usize = sealbus_protocol::batch::read::SEQUENCES_MAX;

/// Spans of one key that are kept verified. Certificates are renewed daily or hourly, and a history is read in order.
const SPANS_MAX: usize = 8;

/// Bytes of bindings that wait for a batch that needs them: of a history that was made by thousands of processes, what
/// comes ahead of its reader. The oldest are dropped first, and asked for again.
const UNVERIFIED_BYTES_MAX: usize = 256 * sealbus_protocol::limits::BINDING_BYTES_MAX;

/// Keys that are remembered as not believed, so that each of their batches does not ask again.
const UNBELIEVED_MAX: usize = 1_024;

/// For how long they are: a binding may become true, or come late.
const UNBELIEVED_MS: u64 = 60_000;

/// A key whose owner is proven for a span of time.
#[derive(Debug, Clone)]
pub(crate) struct KnownKey {
    pub(crate) principal: Principal,
    pub(crate) key: VerifyingKey,
    pub(crate) validity: Validity,
}

/// The answer to a look-up.
#[derive(Debug)]
pub(crate) enum Lookup {
    Known(KnownKey),
    /// Nothing that we believe binds the key to anybody; in words.
    Unbelieved(String),
}

/// The moments that a look-up is about.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    /// When the key must have been bound.
    pub(crate) judged_ms: u64,
    /// This process's clock.
    pub(crate) now_ms: u64,
}

/// All key bindings that a bus has heard of.
#[derive(Debug)]
pub(crate) struct Keyring {
    trust: Arc<TrustStore>,
    wake: Arc<Wake>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// What each key was bound to and when, oldest news first.
    verified: HashMap<Kid, VecDeque<KnownKey>>,
    verified_order: VecDeque<Kid>,
    /// What came and has not been looked at.
    arrived: VecDeque<Bytes>,
    /// What has its form and may hold at another moment than those that were looked at.
    unverified: VecDeque<KeyBinding>,
    /// Of both; at most [`UNVERIFIED_BYTES_MAX`].
    waiting_bytes: usize,
    unbelieved: HashMap<Kid, Unbelieved>,
    asked: HashMap<Kid, Asked>,
    /// Why the last binding that was not believed was not.
    last_refused: Option<String>,
}

#[derive(Debug)]
struct Unbelieved {
    reason: String,
    until_ms: u64,
}

#[derive(Debug)]
enum Asked {
    /// The answer is awaited by these.
    Waiting(Vec<Waker>),
    /// It has come: a binding, which lies among the unverified, or a reason why there is none.
    Answered(Option<String>),
}

impl Keyring {
    pub(crate) fn new(trust: Arc<TrustStore>, wake: Arc<Wake>) -> Self {
        Self { trust, wake, state: Mutex::default() }
    }

    /// A binding came. It is only kept.
    pub(crate) fn handle_binding(&self, binding: Bytes) {
        let mut state = locked(&self.state);
        state.waiting_bytes += cost(&binding);
        while state.waiting_bytes > UNVERIFIED_BYTES_MAX {
            let oldest = state.unverified.pop_front().map(|binding| binding.bytes().clone());
            let Some(dropped) = oldest.or_else(|| state.arrived.pop_front()) else { break };
            state.waiting_bytes = state.waiting_bytes.saturating_sub(cost(&dropped));
        }
        state.arrived.push_back(binding);
    }

    /// The answer to a question came; `none_because` when there is no binding.
    pub(crate) fn handle_answer(&self, kid: Kid, none_because: Option<String>) {
        let mut state = locked(&self.state);
        let before = state.asked.insert(kid, Asked::Answered(none_because));
        drop(state);
        if let Some(Asked::Waiting(wakers)) = before {
            wakers.into_iter().for_each(Waker::wake);
        }
    }

    /// The keys that were asked for and not answered.
    pub(crate) fn unanswered(&self) -> Vec<Kid> {
        let state = locked(&self.state);
        let waiting = state.asked.iter().filter(|(_, asked)| matches!(asked, Asked::Waiting(_)));
        waiting.map(|(kid, _)| *kid).collect()
    }

    /// Whose key this was at the moment in question. Pending while the broker is being asked.
    pub(crate) fn poll_lookup(&self, kid: Kid, moment: Moment, cx: &mut Context<'_>) -> Poll<Lookup> {
        loop {
            let mut state = locked(&self.state);
            if let Some(known) = state.known_at(kid, moment.judged_ms) {
                return Poll::Ready(Lookup::Known(known.clone()));
            }
            let Some(binding) = state.take_unverified_at(moment.judged_ms) else {
                return state.ask(kid, moment.now_ms, cx, &self.wake).map(Lookup::Unbelieved);
            };
            drop(state);
            let verdict = self.verify_at(&binding, moment.judged_ms);
            locked(&self.state).handle_verdict(verdict);
        }
    }

    fn verify_at(&self, binding: &KeyBinding, judged_ms: u64) -> Result<(Kid, KnownKey), String> {
        let verified = binding
            .verify_at(&self.trust, judged_ms)
            .map_err(|error| format!("the one of {} was refused: {error}", binding.principal()))?;
        let key = KnownKey {
            principal: verified.principal().clone(),
            key: *verified.key(),
            validity: verified.validity(),
        };
        Ok((verified.kid(), key))
    }
}

impl State {
    fn known_at(&self, kid: Kid, judged_ms: u64) -> Option<&KnownKey> {
        self.verified.get(&kid)?.iter().find(|known| known.validity.holds_at(judged_ms))
    }

    /// A binding that may hold at that moment and has not been verified. The others wait for another moment.
    fn take_unverified_at(&mut self, judged_ms: u64) -> Option<KeyBinding> {
        while let Some(bytes) = self.arrived.pop_front() {
            let cost = cost(&bytes);
            match KeyBinding::decode(bytes) {
                Ok(binding) => self.unverified.push_back(binding),
                Err(error) => {
                    self.waiting_bytes = self.waiting_bytes.saturating_sub(cost);
                    self.last_refused = Some(error.to_string());
                }
            }
        }
        let index = self.unverified.iter().position(|binding| binding.validity().holds_at(judged_ms))?;
        let binding = self.unverified.remove(index)?;
        self.waiting_bytes = self.waiting_bytes.saturating_sub(cost(binding.bytes()));
        Some(binding)
    }

    fn handle_verdict(&mut self, verdict: Result<(Kid, KnownKey), String>) {
        match verdict {
            Err(reason) => self.last_refused = Some(reason),
            Ok((kid, key)) => {
                self.unbelieved.remove(&kid);
                if let Some(Asked::Waiting(wakers)) = self.asked.remove(&kid) {
                    // Who waits for another moment of this key asks again.
                    wakers.into_iter().for_each(Waker::wake);
                }
                if !self.verified.contains_key(&kid) {
                    self.verified_order.push_back(kid);
                }
                let spans = self.verified.entry(kid).or_default();
                if spans.len() == SPANS_MAX {
                    spans.pop_front();
                }
                spans.push_back(key);
                if self.verified_order.len() > VERIFIED_MAX
                    && let Some(oldest) = self.verified_order.pop_front()
                {
                    self.verified.remove(&oldest);
                }
            }
        }
    }

    /// Nothing that came binds the key: asks once, and then says why it is not believed.
    fn ask(&mut self, kid: Kid, now_ms: u64, cx: &Context<'_>, wake: &Wake) -> Poll<String> {
        if let Some(unbelieved) = self.unbelieved.get(&kid)
            && now_ms < unbelieved.until_ms
        {
            return Poll::Ready(unbelieved.reason.clone());
        }
        match self.asked.get_mut(&kid) {
            Some(Asked::Waiting(wakers)) => {
                if !wakers.iter().any(|waker| waker.will_wake(cx.waker())) {
                    wakers.push(cx.waker().clone());
                }
                Poll::Pending
            }
            Some(Asked::Answered(none_because)) => {
                let detail = none_because.take().or_else(|| self.last_refused.clone());
                self.asked.remove(&kid);
                let reason = match detail {
                    Some(detail) => format!("no key binding that we believe names its key {kid}: {detail}"),
                    None => format!("no key binding that we believe names its key {kid} at that time"),
                };
                self.disbelieve(kid, reason.clone(), now_ms);
                Poll::Ready(reason)
            }
            None => {
                if self.asked.len() >= UNBELIEVED_MAX {
                    // Answers that nobody came back for.
                    self.asked.retain(|_, asked| matches!(asked, Asked::Waiting(_)));
                }
                self.asked.insert(kid, Asked::Waiting(vec![cx.waker().clone()]));
                wake.binding_wanted(kid);
                Poll::Pending
            }
        }
    }

    fn disbelieve(&mut self, kid: Kid, reason: String, now_ms: u64) {
        if self.unbelieved.len() >= UNBELIEVED_MAX {
            self.unbelieved.retain(|_, unbelieved| now_ms < unbelieved.until_ms);
        }
        if self.unbelieved.len() >= UNBELIEVED_MAX {
            self.unbelieved.clear();
        }
        self.unbelieved.insert(kid, Unbelieved { reason, until_ms: now_ms.saturating_add(UNBELIEVED_MS) });
    }
}

/// Even an empty one takes its place.
const fn cost(binding: &Bytes) -> usize {
    binding.len() + size_of::<KeyBinding>()
}
