//! What one principal may take of the bus, over all of its sessions: places, and lines of the audit log.
//!
//! ```text
//!   HELLO ------> admit_at ----> SessionPlace --- subscribe ---> SubscriptionPlace
//!                    |                '---------- spend_at ----> go on, or rest until that moment
//!                    '--> LIMIT: no place, or the bucket is empty
//! ```
//!
//! A place is given back by dropping it, so that none is lost. What is allowed is also recorded, and a record stays:
//! without the bucket a principal with the least of grants could fill the disk by doing and undoing what it may do.
//! Whoever overdraws the bucket rests until it has paid, in the order in which the sessions came; sessions of the
//! principal that do nothing of the kind are not held up by those that do.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use sealbus_protocol::identity::Principal;
use sealbus_protocol::limits::{PING_AFTER_MS, SUBSCRIPTIONS_PER_CONNECTION_MAX};
use sealbus_protocol::session::Tick;

use crate::locks::lock;

/// Sessions of one principal. A fleet of equal workers may share a principal, and two thousand are a large one; it
/// leaves most of the default 10,000 connections to others.
const SESSIONS_MAX: usize = 2_048;

/// Subscriptions of one principal, over its sessions: eight for each of as many sessions as it may have, or as many as
/// a connection may have for each of sixteen. It leaves most of the default 100,000 to others.
const SUBSCRIPTIONS_MAX: usize = 16_384;

/// Audited acts of one principal at once: the largest fleet that it may have comes back together, each session with
/// seven topics or subscriptions. At some 600 bytes a line they are 10 MB.
const ACTS_AT_ONCE: u64 = 16_384;

/// Audited acts of one principal in a second, in the long run. An endless loop writes 0.3 MB a second and not
/// hundreds, which leaves an operator days to notice it; a large fleet that has come back is ready to do so again in
/// half a minute.
const ACTS_PER_SECOND: u64 = 512;

/// Principals that are remembered before it is looked for those that can be forgotten.
const ACCOUNTS_KEPT: usize = 64;

const _: () =
    assert!(SUBSCRIPTIONS_MAX >= SUBSCRIPTIONS_PER_CONNECTION_MAX, "one session may have its own limit");
// Each session overdraws the bucket by one act at most. The last of them still reads the answer to its PING in time.
const _: () = assert!(SESSIONS_MAX as u64 * 1_000 / ACTS_PER_SECOND < PING_AFTER_MS);

/// The accounts of all principals that have sessions or have been busy a moment ago.
#[derive(Debug, Default)]
pub(crate) struct Quotas {
    accounts: Mutex<Accounts>,
    /// Subscriptions of all principals: live ones, replays and members of consumers.
    subscriptions: Arc<AtomicUsize>,
}

#[derive(Debug, Default)]
struct Accounts {
    of: HashMap<Principal, Arc<Account>>,
    /// So many are looked through next. It is twice of what was kept the last time, so that looking costs each
    /// newcomer a constant.
    sweep_at: usize,
}

/// What one principal has taken.
#[derive(Debug, Default)]
struct Account {
    usage: Mutex<Usage>,
    subscriptions_of_all: Arc<AtomicUsize>,
}

#[derive(Debug, Default)]
struct Usage {
    bucket: Bucket,
    sessions: usize,
    subscriptions: usize,
}

/// The place of a session. Dropping it gives the place back.
#[derive(Debug)]
pub(crate) struct SessionPlace {
    account: Arc<Account>,
}

/// The place of a subscription. Dropping it gives the place back.
#[derive(Debug)]
pub(crate) struct SubscriptionPlace {
    account: Arc<Account>,
}

/// Why a principal may not begin a session now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoSession {
    /// It has so many.
    TooMany(usize),
    /// Its sessions have done more than may be recorded.
    TooBusy,
}

/// The principal may not subscribe: it has so many subscriptions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooManySubscriptions(usize);

impl Quotas {
    /// A place for a session of the principal, whose beginning is paid with this.
    pub(crate) fn admit_at(&self, principal: &Principal, now: Tick) -> Result<SessionPlace, NoSession> {
        let mut accounts = lock(&self.accounts);
        let account = accounts.find_at(principal, now, &self.subscriptions);
        let mut usage = lock(&account.usage);
        if usage.sessions >= SESSIONS_MAX {
            return Err(NoSession::TooMany(usage.sessions));
        }
        if usage.bucket.is_empty_at(now) {
            return Err(NoSession::TooBusy);
        }
        usage.bucket.spend_at(now);
        usage.sessions = usage.sessions.saturating_add(1);
        drop(usage);
        Ok(SessionPlace { account })
    }

    /// Subscriptions that there are.
    pub(crate) fn subscriptions(&self) -> usize {
        self.subscriptions.load(Ordering::Relaxed)
    }
}

impl Accounts {
    fn find_at(&mut self, principal: &Principal, now: Tick, of_all: &Arc<AtomicUsize>) -> Arc<Account> {
        if let Some(account) = self.of.get(principal) {
            return Arc::clone(account);
        }
        if self.of.len() >= self.sweep_at.max(ACCOUNTS_KEPT) {
            // Sessions are only counted under the lock that is held here, so that none can begin meanwhile.
            self.of.retain(|_, account| {
                let usage = lock(&account.usage);
                usage.sessions > 0 || !usage.bucket.is_full_at(now)
            });
            self.sweep_at = self.of.len().saturating_mul(2);
        }
        let new = || {
            let subscriptions_of_all = Arc::clone(of_all);
            Arc::new(Account { usage: Mutex::default(), subscriptions_of_all })
        };
        Arc::clone(self.of.entry(principal.clone()).or_insert_with(new))
    }
}

impl SessionPlace {
    /// Pays for an act that is recorded. When that overdraws the account, the moment at which it is paid: until then
    /// the session does nothing more.
    pub(crate) fn spend_at(&self, now: Tick) -> Option<Tick> {
        lock(&self.account.usage).bucket.spend_at(now)
    }

    /// A place for a subscription.
    pub(crate) fn subscribe(&self) -> Result<SubscriptionPlace, TooManySubscriptions> {
        let mut usage = lock(&self.account.usage);
        if usage.subscriptions >= SUBSCRIPTIONS_MAX {
            return Err(TooManySubscriptions(usage.subscriptions));
        }
        usage.subscriptions = usage.subscriptions.saturating_add(1);
        self.account.subscriptions_of_all.fetch_add(1, Ordering::Relaxed);
        Ok(SubscriptionPlace { account: Arc::clone(&self.account) })
    }
}

impl Drop for SessionPlace {
    fn drop(&mut self) {
        let mut usage = lock(&self.account.usage);
        usage.sessions = usage.sessions.saturating_sub(1);
    }
}

impl Drop for SubscriptionPlace {
    fn drop(&mut self) {
        let mut usage = lock(&self.account.usage);
        usage.subscriptions = usage.subscriptions.saturating_sub(1);
        self.account.subscriptions_of_all.fetch_sub(1, Ordering::Relaxed);
    }
}

impl fmt::Display for NoSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooMany(sessions) => {
                write!(f, "the principal has {sessions} sessions, and one may have {SESSIONS_MAX}")
            }
            Self::TooBusy => write!(
                f,
                "the principal's sessions have done {ACTS_AT_ONCE} things that are recorded, and one may do \
                 {ACTS_PER_SECOND} more each second"
            ),
        }
    }
}

impl fmt::Display for TooManySubscriptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(subscriptions) = self;
        write!(f, "the principal has {subscriptions} subscriptions, and one may have {SUBSCRIPTIONS_MAX}")
    }
}

/// A bucket of acts that fills again with time, and that can be overdrawn. Pure.
///
/// ```text
///   time, counted in thousandths of an act:   now            paid
///                                             |--- missing ---|
///                                             |------ ACTS_AT_ONCE ------|   what lies beyond is owed
/// ```
#[derive(Debug, Default)]
struct Bucket {
    /// When it will be full.
    paid: u64,
}

/// Time and acts are counted in this part of an act: as many of them pass in a millisecond as acts in a second.
const PARTS: u64 = 1_000;

impl Bucket {
    /// Takes an act out. When there was none, the moment at which there will have been.
    fn spend_at(&mut self, now: Tick) -> Option<Tick> {
        self.paid = self.paid.max(time_of(now)).saturating_add(PARTS);
        let due = self.paid.saturating_sub(ACTS_AT_ONCE.saturating_mul(PARTS)).div_ceil(ACTS_PER_SECOND);
        (now < Tick(due)).then_some(Tick(due))
    }

    /// Whether there is no act in it.
    fn is_empty_at(&self, now: Tick) -> bool {
        self.missing_at(now).saturating_add(PARTS) > ACTS_AT_ONCE.saturating_mul(PARTS)
    }

    fn is_full_at(&self, now: Tick) -> bool {
        self.missing_at(now) == 0
    }

    fn missing_at(&self, now: Tick) -> u64 {
        self.paid.saturating_sub(time_of(now))
    }
}

fn time_of(now: Tick) -> u64 {
    now.0.saturating_mul(ACTS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn principal(name: impl fmt::Display) -> Principal {
        Principal::parse(&format!("spiffe://a.example/{name}")).unwrap()
    }

    #[test]
    fn an_overdrawn_bucket_is_paid_in_order_and_at_the_agreed_pace() {
        let mut bucket = Bucket::default();
        for _ in 0..ACTS_AT_ONCE {
            assert!(!bucket.is_empty_at(Tick(0)));
            assert_eq!(bucket.spend_at(Tick(0)), None);
        }
        assert!(bucket.is_empty_at(Tick(0)));
        // As many sessions as there can be, each of which rests after it has overdrawn.
        let dues: Vec<Tick> =
            (0..SESSIONS_MAX).map(|_| bucket.spend_at(Tick(0)).expect("nothing is left")).collect();
        assert!(dues.is_sorted(), "who came first goes on first");
        assert_eq!(dues[0], Tick(2));
        assert_eq!(dues[SESSIONS_MAX - 1], Tick(SESSIONS_MAX as u64 * 1_000 / ACTS_PER_SECOND));
        let paid = dues[SESSIONS_MAX - 1];
        assert!(bucket.is_empty_at(paid) && !bucket.is_empty_at(paid.after_ms(2)));
        assert_eq!(bucket.spend_at(paid.after_ms(2)), None);
        let full = paid.after_ms(2 + ACTS_AT_ONCE * 1_000 / ACTS_PER_SECOND);
        assert!(!bucket.is_full_at(Tick(full.0 - 2)) && bucket.is_full_at(full));
        // A bucket does not fill beyond its size.
        let late = full.after_ms(3_600_000);
        assert!((0..ACTS_AT_ONCE).all(|_| bucket.spend_at(late).is_none()));
        assert!(bucket.spend_at(late).is_some());
    }

    #[test]
    fn a_loop_of_any_length_is_held_to_the_pace() {
        let mut bucket = Bucket::default();
        let (mut now, acts) = (Tick(0), 100_000);
        for _ in 0..acts {
            now = bucket.spend_at(now).unwrap_or(now);
        }
        assert_eq!(now, Tick(((acts - ACTS_AT_ONCE) * 1_000).div_ceil(ACTS_PER_SECOND)));
    }

    #[test]
    fn all_sessions_of_a_principal_share_one_account_and_others_do_not() {
        let quotas = Quotas::default();
        let anna = principal("anna");
        let one = quotas.admit_at(&anna, Tick(0)).unwrap();
        let two = quotas.admit_at(&anna, Tick(0)).unwrap();
        for _ in 0..ACTS_AT_ONCE / 2 - 1 {
            assert_eq!((one.spend_at(Tick(0)), two.spend_at(Tick(0))), (None, None));
        }
        assert_eq!(quotas.admit_at(&anna, Tick(0)).unwrap_err(), NoSession::TooBusy);
        // To come again is no way out.
        drop((one, two));
        assert_eq!(quotas.admit_at(&anna, Tick(1)).unwrap_err(), NoSession::TooBusy);
        assert_eq!(
            NoSession::TooBusy.to_string(),
            "the principal's sessions have done 16384 things that are recorded, and one may do 512 more each second"
        );
        quotas.admit_at(&principal("ben"), Tick(0)).unwrap();
        quotas.admit_at(&anna, Tick(2)).unwrap();
    }

    #[test]
    fn sessions_of_a_principal_are_counted_until_they_end() {
        let quotas = Quotas::default();
        let anna = principal("anna");
        let mut places: Vec<_> =
            (0..SESSIONS_MAX).map(|_| quotas.admit_at(&anna, Tick(0)).unwrap()).collect();
        let refused = quotas.admit_at(&anna, Tick(0)).unwrap_err();
        assert_eq!(refused.to_string(), "the principal has 2048 sessions, and one may have 2048");
        quotas.admit_at(&principal("ben"), Tick(0)).unwrap();
        places.pop();
        places.push(quotas.admit_at(&anna, Tick(0)).unwrap());
        assert!(quotas.admit_at(&anna, Tick(0)).is_err());
    }

    #[test]
    fn subscriptions_of_a_principal_are_counted_over_its_sessions_until_they_end() {
        let quotas = Quotas::default();
        let anna = principal("anna");
        let (one, two) = (quotas.admit_at(&anna, Tick(0)).unwrap(), quotas.admit_at(&anna, Tick(0)).unwrap());
        let mut places: Vec<_> = (0..SUBSCRIPTIONS_MAX / 2)
            .flat_map(|_| [one.subscribe().unwrap(), two.subscribe().unwrap()])
            .collect();
        let refused = two.subscribe().unwrap_err();
        assert_eq!(refused.to_string(), "the principal has 16384 subscriptions, and one may have 16384");
        places.pop();
        let again = one.subscribe().unwrap();
        assert!(one.subscribe().is_err());
        drop((places, again));
        assert_eq!(lock(&one.account.usage).subscriptions, 0);
    }

    #[test]
    fn who_is_gone_and_has_paid_is_forgotten() {
        let quotas = Quotas::default();
        let stays = quotas.admit_at(&principal("stays"), Tick(0)).unwrap();
        for round in 0..10 {
            // Longer than it takes to pay for one session each.
            let now = Tick(round * 10);
            for name in 0..ACCOUNTS_KEPT {
                drop(quotas.admit_at(&principal(format_args!("{round}-{name}")), now).unwrap());
                assert!(lock(&quotas.accounts).of.len() <= 2 * ACCOUNTS_KEPT + 1);
            }
        }
        assert!(lock(&quotas.accounts).of.contains_key(&principal("stays")), "it has a session");
        drop(stays);
    }
}
