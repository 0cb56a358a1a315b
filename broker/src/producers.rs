//! The incarnations that have published or may, and where each of their sequences stands. Pure.
//!
//! ```text
//!   claim --> incarnation (one session at a time holds it) --open--> (incarnation, topic): sequence state
//!                 '--release--> idle                          '--close--> idle, oldest first out
//! ```
//!
//! An incarnation belongs to one principal, key and instance for as long as it is remembered: the same id from anybody
//! else is refused, and a second connection of the same client ends the first. States that a session has open are not
//! dropped; of the others those that were closed longest ago go first.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex};

use sealbus_protocol::batch::accept::SequenceState;
use sealbus_protocol::frame::{IncarnationState, InstanceKind};
use sealbus_protocol::identity::Principal;
use sealbus_protocol::ids::{IncarnationId, InstanceId, Kid, StreamId};
use sealbus_protocol::limits::{
    CLOCK_AHEAD_MS_MAX, SEQUENCE_STATES_PER_PRINCIPAL_MAX, STARTED_BEHIND_MS_MAX,
};
use sealbus_protocol::topic::Topic;

use crate::audit::SessionId;

/// Incarnations of one principal that are remembered. Each client process is one, so that this holds a large fleet
/// that restarts often; a subscriber's has no states and costs next to nothing.
const INCARNATIONS_PER_PRINCIPAL_MAX: usize = 4_096;

/// Configured instances of one principal that are remembered. One is a replica in somebody's deployment.
const INSTANCES_PER_PRINCIPAL_MAX: usize = 4_096;

/// Who wants to be an incarnation, as its session has proven.
#[derive(Debug, Clone)]
pub(crate) struct Claim {
    /// Whose it is.
    pub(crate) principal: Principal,
    /// The key that signs for it.
    pub(crate) kid: Kid,
    /// Its process or replica.
    pub(crate) instance_id: InstanceId,
    /// Whether that fences.
    pub(crate) instance_kind: InstanceKind,
    /// Its start, milliseconds since 1970.
    pub(crate) started_ms: u64,
    /// The incarnation.
    pub(crate) incarnation_id: IncarnationId,
}

/// What a sequence is of: a topic, within the stream that captures it. A topic that another stream captures from some
/// day on has another sequence there, whose digests are other ones too.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct SequenceKey {
    /// The stream; zero for a topic that is live only.
    pub(crate) stream: StreamId,
    /// The topic.
    pub(crate) topic: Topic,
}

impl SequenceKey {
    /// A sequence of which nothing is known. A stream knows its producers from its own log, so that one which it does
    /// not know begins at 0; a live topic takes the sequence up where its producer stands.
    fn unknown(&self) -> SequenceState {
        if self.stream.is_zero() { SequenceState::new() } else { SequenceState::from_start() }
    }
}

/// A granted claim.
#[derive(Debug)]
pub(crate) struct Claimed<H> {
    /// Whether the incarnation was known.
    pub(crate) incarnation: IncarnationState,
    /// The sessions that must end for it.
    pub(crate) displaced: Vec<Displaced<H>>,
}

/// A session whose place another has taken.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Displaced<H> {
    /// By the same incarnation, on a new connection.
    Superseded(H),
    /// By a newer incarnation of the same configured instance.
    Fenced(H),
}

/// Why a claim is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ClaimError {
    /// The incarnation is another principal's, or has another key, instance or start.
    OtherIdentity,
    /// A new incarnation that began too long ago, or in the future.
    Time {
        /// When it says that it began.
        started_ms: u64,
        /// The broker's clock.
        now_ms: u64,
    },
    /// A newer incarnation of the same configured instance is known.
    Fenced,
    /// All remembered incarnations of the principal are connected.
    TooMany,
}

impl fmt::Display for ClaimError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OtherIdentity => {
                f.write_str("the incarnation is known with another principal, key, instance or start")
            }
            Self::Time { started_ms, now_ms } => write!(
                f,
                "a new incarnation begins within {STARTED_BEHIND_MS_MAX} ms of the broker's clock, which shows \
                 {now_ms} ms; this one says {started_ms} ms"
            ),
            Self::Fenced => f.write_str("a newer incarnation of this configured instance has taken over"),
            Self::TooMany => {
                write!(f, "{INCARNATIONS_PER_PRINCIPAL_MAX} incarnations of the principal are connected")
            }
        }
    }
}

/// All sequence states of the principal are in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooManyTopics;

/// The remembered incarnations. `H` is how a session is told that it has to end.
#[derive(Debug)]
pub(crate) struct Producers<H> {
    incarnations: HashMap<IncarnationId, Incarnation<H>>,
    principals: HashMap<Principal, Remembered>,
    next: u64,
}

#[derive(Debug)]
struct Incarnation<H> {
    claim: Claim,
    holder: Option<(SessionId, H)>,
    idle_since: Option<u64>,
    topics: HashMap<SequenceKey, Entry>,
}

#[derive(Debug)]
struct Entry {
    state: Arc<Mutex<SequenceState>>,
    opens: usize,
    idle_since: Option<u64>,
}

/// What is remembered of one principal, and in which order it may be forgotten.
#[derive(Debug, Default)]
struct Remembered {
    incarnations: usize,
    states: usize,
    idle_incarnations: BTreeMap<u64, IncarnationId>,
    idle_states: BTreeMap<u64, (IncarnationId, SequenceKey)>,
    /// The newest incarnation of each configured instance.
    instances: HashMap<InstanceId, (u64, IncarnationId)>,
}

impl<H: Clone> Producers<H> {
    /// Nothing is remembered: a broker that has just been started.
    pub(crate) fn new() -> Self {
        Self { incarnations: HashMap::new(), principals: HashMap::new(), next: 0 }
    }

    /// Makes a session the holder of an incarnation.
    pub(crate) fn claim_at(
        &mut self,
        claim: Claim,
        session: SessionId,
        holder: H,
        now_ms: u64,
    ) -> Result<Claimed<H>, ClaimError> {
        let known = self.incarnations.get(&claim.incarnation_id);
        let incarnation = match known {
            Some(known) if !known.claim.is_same(&claim) => return Err(ClaimError::OtherIdentity),
            Some(_) => IncarnationState::Resumed,
            None => {
                claim.check_start(now_ms)?;
                IncarnationState::New
            }
        };
        let mut displaced = Vec::new();
        let newest = (claim.started_ms, claim.incarnation_id);
        let fencing = match claim.instance_kind {
            InstanceKind::Random => None,
            InstanceKind::Configured => self
                .principals
                .get(&claim.principal)
                .and_then(|remembered| remembered.instances.get(&claim.instance_id))
                .copied(),
        };
        if let Some(current) = fencing
            && current > newest
        {
            return Err(ClaimError::Fenced);
        }
        if incarnation == IncarnationState::New {
            self.make_room_for_incarnation(&claim.principal)?;
        }
        if let Some((_, older)) = fencing
            && older != claim.incarnation_id
            && let Some((_, holder)) = self.incarnations.get(&older).and_then(|older| older.holder.clone())
        {
            displaced.push(Displaced::Fenced(holder));
        }

        let id = claim.incarnation_id;
        let remembered = self.principals.entry(claim.principal.clone()).or_default();
        match claim.instance_kind {
            InstanceKind::Random => {}
            InstanceKind::Configured => remembered.remember_instance(claim.instance_id, newest),
        }
        let entry = self.incarnations.entry(id).or_insert_with(|| {
            remembered.incarnations = remembered.incarnations.saturating_add(1);
            Incarnation { claim, holder: None, idle_since: None, topics: HashMap::new() }
        });
        if let Some(stamp) = entry.idle_since.take() {
            remembered.idle_incarnations.remove(&stamp);
        }
        if let Some((_, before)) = entry.holder.replace((session, holder)) {
            displaced.push(Displaced::Superseded(before));
        }
        Ok(Claimed { incarnation, displaced })
    }

    /// Takes up an incarnation that is known from the logs, with the sequences that it has in them: it comes back as one
    /// that nobody holds. One of which something is known already gets the sequences that it has not.
    ///
    /// What goes beyond the limits is left out, oldest first when they are brought in the order of their use.
    pub(crate) fn restore(&mut self, claim: Claim, sequences: Vec<(SequenceKey, SequenceState)>) {
        let (id, principal) = (claim.incarnation_id, claim.principal.clone());
        if !self.incarnations.contains_key(&id) && self.make_room_for_incarnation(&principal).is_err() {
            return;
        }
        let stamp = self.stamp();
        let remembered = self.principals.entry(principal.clone()).or_default();
        match claim.instance_kind {
            InstanceKind::Random => {}
            InstanceKind::Configured => {
                let newest = (claim.started_ms, id);
                if remembered.instances.get(&claim.instance_id).is_none_or(|known| *known < newest) {
                    remembered.remember_instance(claim.instance_id, newest);
                }
            }
        }
        let incarnation = self.incarnations.entry(id).or_insert_with(|| {
            remembered.incarnations = remembered.incarnations.saturating_add(1);
            remembered.idle_incarnations.insert(stamp, id);
            Incarnation { claim, holder: None, idle_since: Some(stamp), topics: HashMap::new() }
        });
        let unknown: Vec<_> =
            sequences.into_iter().filter(|(key, _)| !incarnation.topics.contains_key(key)).collect();
        for (key, state) in unknown {
            if self.make_room_for_state(&principal).is_err() {
                return;
            }
            let stamp = self.stamp();
            let Some(incarnation) = self.incarnations.get_mut(&id) else { return };
            let remembered = self.principals.entry(principal.clone()).or_default();
            remembered.states = remembered.states.saturating_add(1);
            remembered.idle_states.insert(stamp, (id, key.clone()));
            let state = Arc::new(Mutex::new(state));
            incarnation.topics.insert(key, Entry { state, opens: 0, idle_since: Some(stamp) });
        }
    }

    /// Opens a sequence for the session that holds the incarnation.
    pub(crate) fn open(
        &mut self,
        id: IncarnationId,
        key: &SequenceKey,
    ) -> Result<Arc<Mutex<SequenceState>>, TooManyTopics> {
        let incarnation = self.incarnations.get(&id).ok_or(TooManyTopics)?;
        let principal = incarnation.claim.principal.clone();
        if !incarnation.topics.contains_key(key) {
            self.make_room_for_state(&principal)?;
        }
        let incarnation = self.incarnations.get_mut(&id).ok_or(TooManyTopics)?;
        let remembered = self.principals.entry(principal).or_default();
        let entry = incarnation.topics.entry(key.clone()).or_insert_with(|| {
            remembered.states = remembered.states.saturating_add(1);
            Entry { state: Arc::new(Mutex::new(key.unknown())), opens: 0, idle_since: None }
        });
        if let Some(stamp) = entry.idle_since.take() {
            remembered.idle_states.remove(&stamp);
        }
        entry.opens = entry.opens.saturating_add(1);
        Ok(Arc::clone(&entry.state))
    }

    /// A session has no more use for a topic that it had opened.
    pub(crate) fn close(&mut self, id: IncarnationId, key: &SequenceKey) {
        let stamp = self.stamp();
        let Some(incarnation) = self.incarnations.get_mut(&id) else { return };
        let Some(entry) = incarnation.topics.get_mut(key) else { return };
        entry.opens = entry.opens.saturating_sub(1);
        if entry.opens == 0
            && let Some(remembered) = self.principals.get_mut(&incarnation.claim.principal)
        {
            entry.idle_since = Some(stamp);
            remembered.idle_states.insert(stamp, (id, key.clone()));
        }
    }

    /// A session ends. If it still holds its incarnation, nobody does now.
    pub(crate) fn release(&mut self, id: IncarnationId, session: SessionId) {
        let stamp = self.stamp();
        let Some(incarnation) = self.incarnations.get_mut(&id) else { return };
        if incarnation.holder.take_if(|(holder, _)| *holder == session).is_some()
            && let Some(remembered) = self.principals.get_mut(&incarnation.claim.principal)
        {
            incarnation.idle_since = Some(stamp);
            remembered.idle_incarnations.insert(stamp, id);
        }
    }

    fn make_room_for_incarnation(&mut self, principal: &Principal) -> Result<(), ClaimError> {
        let Some(remembered) = self.principals.get_mut(principal) else { return Ok(()) };
        if remembered.incarnations < INCARNATIONS_PER_PRINCIPAL_MAX {
            return Ok(());
        }
        let (_, oldest) = remembered.idle_incarnations.pop_first().ok_or(ClaimError::TooMany)?;
        remembered.incarnations = remembered.incarnations.saturating_sub(1);
        if let Some(forgotten) = self.incarnations.remove(&oldest) {
            remembered.states = remembered.states.saturating_sub(forgotten.topics.len());
            for entry in forgotten.topics.values() {
                if let Some(stamp) = entry.idle_since {
                    remembered.idle_states.remove(&stamp);
                }
            }
        }
        Ok(())
    }

    fn make_room_for_state(&mut self, principal: &Principal) -> Result<(), TooManyTopics> {
        let Some(remembered) = self.principals.get_mut(principal) else { return Ok(()) };
        if remembered.states < SEQUENCE_STATES_PER_PRINCIPAL_MAX {
            return Ok(());
        }
        let (_, (id, key)) = remembered.idle_states.pop_first().ok_or(TooManyTopics)?;
        remembered.states = remembered.states.saturating_sub(1);
        if let Some(incarnation) = self.incarnations.get_mut(&id) {
            incarnation.topics.remove(&key);
        }
        Ok(())
    }

    fn stamp(&mut self) -> u64 {
        self.next = self.next.saturating_add(1);
        self.next
    }
}

impl Claim {
    fn is_same(&self, other: &Self) -> bool {
        self.principal == other.principal
            && self.kid == other.kid
            && self.instance_id == other.instance_id
            && self.instance_kind == other.instance_kind
            && self.started_ms == other.started_ms
    }

    fn check_start(&self, now_ms: u64) -> Result<(), ClaimError> {
        let earliest = now_ms.saturating_sub(STARTED_BEHIND_MS_MAX);
        let latest = now_ms.saturating_add(CLOCK_AHEAD_MS_MAX);
        if (earliest..=latest).contains(&self.started_ms) {
            return Ok(());
        }
        Err(ClaimError::Time { started_ms: self.started_ms, now_ms })
    }
}

impl Remembered {
    /// When there are too many, the one that began first is forgotten: what is older than a forgotten instance has
    /// begun too long ago to be seen for the first time.
    fn remember_instance(&mut self, instance: InstanceId, newest: (u64, IncarnationId)) {
        self.instances.insert(instance, newest);
        if self.instances.len() > INSTANCES_PER_PRINCIPAL_MAX
            && let Some(oldest) = self.instances.iter().min_by_key(|(_, began)| **began).map(|(id, _)| *id)
        {
            self.instances.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: u64 = 1_000_000_000;

    fn number(number: u64) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[8..].copy_from_slice(&number.to_be_bytes());
        bytes
    }

    fn claim(principal: &str, incarnation: u64) -> Claim {
        Claim {
            principal: Principal::parse(&format!("spiffe://a.example/{principal}")).unwrap(),
            kid: Kid::new([1; 32]),
            instance_id: InstanceId::new([2; 16]),
            instance_kind: InstanceKind::Random,
            started_ms: NOW_MS,
            incarnation_id: IncarnationId::new(number(incarnation)),
        }
    }

    fn topic(index: usize) -> SequenceKey {
        SequenceKey { stream: StreamId::ZERO, topic: Topic::parse(&format!("t/{index}")).unwrap() }
    }

    fn stored(index: usize) -> SequenceKey {
        SequenceKey { stream: StreamId::new([9; 16]), ..topic(index) }
    }

    #[test]
    fn an_incarnation_has_one_identity() {
        let mut producers = Producers::new();
        let first = claim("anna", 1);
        let claimed = producers.claim_at(first.clone(), SessionId(1), 'a', NOW_MS).unwrap();
        assert_eq!((claimed.incarnation, claimed.displaced), (IncarnationState::New, vec![]));
        for other in [
            claim("ben", 1),
            Claim { kid: Kid::new([9; 32]), ..first.clone() },
            Claim { instance_id: InstanceId::new([9; 16]), ..first.clone() },
            Claim { instance_kind: InstanceKind::Configured, ..first.clone() },
            Claim { started_ms: NOW_MS + 1, ..first.clone() },
        ] {
            let refused = producers.claim_at(other, SessionId(2), 'b', NOW_MS);
            assert_eq!(refused.map(|_| ()), Err(ClaimError::OtherIdentity));
        }
        let claimed = producers.claim_at(first.clone(), SessionId(3), 'c', NOW_MS).unwrap();
        assert_eq!(claimed.incarnation, IncarnationState::Resumed);
        assert_eq!(claimed.displaced, [Displaced::Superseded('a')]);
        // The first session ends only now: the second keeps its place.
        producers.release(first.incarnation_id, SessionId(1));
        let claimed = producers.claim_at(first, SessionId(4), 'd', NOW_MS).unwrap();
        assert_eq!(claimed.displaced, [Displaced::Superseded('c')]);
    }

    #[test]
    fn a_new_incarnation_begins_now_and_a_known_one_whenever_it_did() {
        let mut producers = Producers::new();
        for started_ms in [0, NOW_MS - STARTED_BEHIND_MS_MAX - 1, NOW_MS + CLOCK_AHEAD_MS_MAX + 1, u64::MAX] {
            let refused =
                producers.claim_at(Claim { started_ms, ..claim("anna", 1) }, SessionId(1), (), NOW_MS);
            assert_eq!(refused.map(|_| ()), Err(ClaimError::Time { started_ms, now_ms: NOW_MS }));
        }
        producers.claim_at(claim("anna", 1), SessionId(1), (), NOW_MS).unwrap();
        producers.release(IncarnationId::new(number(1)), SessionId(1));
        let later_ms = NOW_MS + 24 * 60 * 60 * 1_000;
        let claimed = producers.claim_at(claim("anna", 1), SessionId(2), (), later_ms).unwrap();
        assert_eq!(claimed.incarnation, IncarnationState::Resumed);
    }

    #[test]
    fn an_incarnation_that_the_logs_know_comes_back_whenever_it_began() {
        let mut producers = Producers::new();
        let old = Claim { instance_kind: InstanceKind::Configured, ..claim("anna", 1) };
        producers.restore(old.clone(), vec![(stored(1), SequenceState::from_start())]);
        producers.restore(old.clone(), vec![(stored(2), SequenceState::from_start())]);
        let later_ms = NOW_MS + 24 * 60 * 60 * 1_000;
        let claimed = producers.claim_at(old.clone(), SessionId(1), (), later_ms).unwrap();
        assert_eq!(claimed.incarnation, IncarnationState::Resumed);
        let other = Claim { kid: Kid::new([9; 32]), ..old.clone() };
        let refused = producers.claim_at(other, SessionId(2), (), NOW_MS);
        assert_eq!(refused.map(|_| ()), Err(ClaimError::OtherIdentity));
        let elder =
            Claim { started_ms: NOW_MS - 1, incarnation_id: IncarnationId::new(number(2)), ..old.clone() };
        let fenced = producers.claim_at(elder, SessionId(3), (), NOW_MS);
        assert_eq!(fenced.map(|_| ()), Err(ClaimError::Fenced), "fencing survives a restart too");
        producers.open(old.incarnation_id, &stored(1)).unwrap();
        producers.open(old.incarnation_id, &topic(1)).unwrap();
        let remembered = &producers.principals[&old.principal];
        assert_eq!((remembered.states, remembered.idle_states.len(), remembered.incarnations), (3, 1, 1));
    }

    #[test]
    fn only_a_configured_instance_fences_and_only_its_elders() {
        let configured = |incarnation, started_ms| Claim {
            instance_kind: InstanceKind::Configured,
            started_ms,
            ..claim("anna", incarnation)
        };
        let mut producers = Producers::new();
        producers.claim_at(configured(1, NOW_MS), SessionId(1), 'a', NOW_MS).unwrap();
        let claimed = producers.claim_at(configured(2, NOW_MS + 5), SessionId(2), 'b', NOW_MS).unwrap();
        assert_eq!(claimed.displaced, [Displaced::Fenced('a')]);
        for elder in [configured(1, NOW_MS), configured(3, NOW_MS + 4)] {
            let refused = producers.claim_at(elder, SessionId(3), 'c', NOW_MS);
            assert_eq!(refused.map(|_| ()), Err(ClaimError::Fenced));
        }
        let other = Claim { instance_kind: InstanceKind::Configured, ..claim("ben", 4) };
        assert!(producers.claim_at(other, SessionId(4), 'd', NOW_MS).unwrap().displaced.is_empty());
        assert!(
            producers.claim_at(claim("anna", 5), SessionId(5), 'e', NOW_MS).unwrap().displaced.is_empty()
        );
    }

    #[test]
    fn the_state_that_was_closed_longest_ago_is_forgotten_first() {
        let mut producers = Producers::new();
        let id = IncarnationId::new(number(1));
        producers.claim_at(claim("anna", 1), SessionId(1), (), NOW_MS).unwrap();
        for index in 0..SEQUENCE_STATES_PER_PRINCIPAL_MAX {
            producers.open(id, &topic(index)).unwrap();
        }
        assert_eq!(producers.open(id, &topic(1_000_000)).map(|_| ()), Err(TooManyTopics));
        let kept = producers.open(id, &topic(5)).unwrap();
        producers.close(id, &topic(5));
        for index in [7, 6, 8] {
            producers.close(id, &topic(index));
        }
        producers.open(id, &topic(1_000_000)).unwrap();
        let topics = &producers.incarnations[&id].topics;
        assert!(!topics.contains_key(&topic(7)) && topics.contains_key(&topic(6)));
        assert!(Arc::ptr_eq(&kept, &topics[&topic(5)].state), "opened twice, closed once");
        assert_eq!(topics.len(), SEQUENCE_STATES_PER_PRINCIPAL_MAX);
        producers.claim_at(claim("ben", 2), SessionId(2), (), NOW_MS).unwrap();
        producers.open(IncarnationId::new(number(2)), &topic(0)).unwrap();
        assert_eq!(
            producers.principals[&claim("anna", 1).principal].states,
            SEQUENCE_STATES_PER_PRINCIPAL_MAX
        );
    }

    #[test]
    fn incarnations_are_bounded_and_connected_ones_stay() {
        let mut producers = Producers::new();
        for index in 0..INCARNATIONS_PER_PRINCIPAL_MAX as u64 {
            producers.claim_at(claim("anna", index), SessionId(index), (), NOW_MS).unwrap();
            producers.open(IncarnationId::new(number(index)), &topic(0)).unwrap();
        }
        let one_more = claim("anna", 1_000_000);
        let refused = producers.claim_at(one_more.clone(), SessionId(1_000_000), (), NOW_MS);
        assert_eq!(refused.map(|_| ()), Err(ClaimError::TooMany));
        let oldest = IncarnationId::new(number(17));
        producers.close(oldest, &topic(0));
        producers.release(oldest, SessionId(17));
        producers.claim_at(one_more, SessionId(1_000_000), (), NOW_MS).unwrap();
        assert!(!producers.incarnations.contains_key(&oldest));
        let remembered = &producers.principals[&claim("anna", 0).principal];
        assert_eq!(remembered.incarnations, INCARNATIONS_PER_PRINCIPAL_MAX);
        assert_eq!(remembered.states, INCARNATIONS_PER_PRINCIPAL_MAX - 1);
        assert!(remembered.idle_states.is_empty());
    }
}
