//! What all sessions share: the policy in force, the subscriptions, the producers, the sessions themselves.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;
use sealbus_protocol::ids::BusId;
use sealbus_protocol::session::Tick;
use tokio::sync::mpsc;

use crate::audit::{Audit, SessionId};
use crate::bindings::Bindings;
use crate::change::ChangeRequest;
use crate::clock::Clock;
use crate::config::LimitsConfig;
use crate::consumers::driver::Drivers;
use crate::consumers::registry::Consumers;
use crate::counts::Counts;
use crate::policy::PolicyInForce;
use crate::producers::Producers;
use crate::quotas::Quotas;
use crate::router::Router;
use crate::sessions::{Handle, Sessions};
use crate::storage::whole::Storage;

/// What all sessions share.
pub(crate) struct Bus {
    /// The bus that this broker serves.
    pub(crate) id: BusId,
    /// The time.
    pub(crate) clock: Arc<dyn Clock>,
    /// What one broker spends at worst.
    pub(crate) limits: LimitsConfig,
    /// The audit log.
    pub(crate) audit: Audit,
    /// The policy in force. A session reads it when it begins and when it is told to, and decides by what it read.
    pub(crate) policy: ArcSwap<PolicyInForce>,
    /// Who wants which topics.
    pub(crate) router: Router,
    /// Who publishes, and where each sequence stands.
    pub(crate) producers: Mutex<Producers<Arc<Handle>>>,
    /// What binds their keys.
    pub(crate) bindings: Mutex<Bindings>,
    /// Who is connected.
    pub(crate) sessions: Sessions,
    /// What each principal has taken.
    pub(crate) quotas: Quotas,
    /// What is kept.
    pub(crate) storage: Arc<Storage>,
    /// Durable consumers.
    pub(crate) consumers: Arc<Consumers>,
    /// What moves them.
    pub(crate) drivers: Arc<Drivers>,
    /// When the broker was started.
    pub(crate) started: Tick,
    /// What has been done.
    pub(crate) counts: Counts,
    /// Where changes are asked for.
    pub(crate) changes: mpsc::Sender<ChangeRequest>,
    session_next: AtomicU64,
    cut: AtomicU64,
}

/// What a bus begins with.
pub(crate) struct Beginnings {
    pub(crate) id: BusId,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) limits: LimitsConfig,
    pub(crate) audit: Audit,
    pub(crate) policy: PolicyInForce,
    pub(crate) storage: Arc<Storage>,
    pub(crate) consumers: Arc<Consumers>,
    pub(crate) changes: mpsc::Sender<ChangeRequest>,
}

impl Bus {
    /// A bus without sessions.
    pub(crate) fn new(beginnings: Beginnings) -> Self {
        let Beginnings { id, clock, limits, audit, policy, storage, consumers, changes } = beginnings;
        let started = clock.tick();
        Self {
            id,
            clock,
            limits,
            audit,
            policy: ArcSwap::from_pointee(policy),
            router: Router::new(),
            producers: Mutex::new(Producers::new()),
            bindings: Mutex::default(),
            sessions: Sessions::default(),
            quotas: Quotas::default(),
            storage,
            consumers,
            drivers: Arc::default(),
            started,
            counts: Counts::default(),
            changes,
            session_next: AtomicU64::new(1),
            cut: AtomicU64::new(0),
        }
    }

    /// A number for a session, never given twice.
    pub(crate) fn next_session(&self) -> SessionId {
        SessionId(self.session_next.fetch_add(1, Ordering::Relaxed))
    }

    /// A session was ended because of a change.
    pub(crate) fn note_cut(&self) {
        self.cut.fetch_add(1, Ordering::Relaxed);
    }

    /// Sessions that were ended because of changes so far.
    pub(crate) fn cut(&self) -> u64 {
        self.cut.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for Bus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bus").field("id", &self.id).finish_non_exhaustive()
    }
}
