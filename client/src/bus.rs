//! The bus as a program holds it.

use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sealbus_protocol::frame::admin::{Decision, Question};
use sealbus_protocol::frame::{Operation, Outcome};
use sealbus_protocol::identity::Principal;
use sealbus_protocol::ids::{BusId, PolicyHash};
use sealbus_protocol::topic::{Topic, TopicFilter};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::clock;
use crate::connection::command::Command;
use crate::error::{CloseError, CloseReason, OpenError, RequestError, SubscribeError};
use crate::event::{EventHub, Events};
use crate::publisher::Publisher;
use crate::subscription::Subscription;
use crate::subscription::bindings::Keyring;
use crate::sync::locked;

/// A connection to a bus, which is made anew whenever it breaks. Cloning gives another handle to the same one.
///
/// When the last handle, publisher and subscription are gone, what is queued is sent and the connection closed.
#[derive(Clone)]
pub struct Bus {
    shared: Arc<BusShared>,
}

/// What the handles of one bus share with its connection, and what keeps the connection alive.
pub(crate) struct BusShared {
    pub(crate) commands: mpsc::Sender<Command>,
    pub(crate) events: Arc<EventHub>,
    pub(crate) keyring: Arc<Keyring>,
    pub(crate) seen: Arc<Seen>,
    pub(crate) bus_id: BusId,
    pub(crate) principal: Principal,
    pub(crate) request_timeout: Duration,
}

/// What the connection last saw, for whoever asks.
#[derive(Debug)]
pub(crate) struct Seen {
    state: Mutex<SeenState>,
}

#[derive(Debug)]
struct SeenState {
    policy: PolicySeen,
    ended: Option<CloseReason>,
}

impl Seen {
    pub(crate) const fn new(policy: PolicySeen) -> Self {
        Self { state: Mutex::new(SeenState { policy, ended: None }) }
    }

    pub(crate) fn policy(&self) -> PolicySeen {
        locked(&self.state).policy
    }

    pub(crate) fn handle_policy(&self, policy: PolicySeen) {
        locked(&self.state).policy = policy;
    }

    pub(crate) fn handle_end(&self, reason: &CloseReason) {
        locked(&self.state).ended.get_or_insert_with(|| reason.clone());
    }

    /// Why the connection's task is gone.
    fn end(&self) -> CloseReason {
        locked(&self.state).ended.clone().unwrap_or(CloseReason::ByCaller)
    }
}

/// The policy that the broker says is in force. A consumer does not check it: it is not signed yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PolicySeen {
    /// Counts the policies that the broker process has put in force.
    pub generation: u64,
    /// Its version.
    pub version: u64,
    /// SHA-256 of its document.
    pub hash: PolicyHash,
}

/// A decision of the broker about an act that was asked about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Permitted or denied.
    pub decision: Decision,
    /// The rule that decided, in words.
    pub why: String,
}

impl Answer {
    /// Whether the act is permitted.
    #[must_use]
    pub const fn is_permitted(&self) -> bool {
        matches!(self.decision, Decision::Permitted)
    }
}

/// What a reload of the policy did. It is in force on every connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReloadReport {
    /// The policy that is in force now.
    pub policy: PolicySeen,
    /// Rules of the policy before it.
    pub rules_before: u32,
    /// Rules of this one.
    pub rules_after: u32,
    /// Sessions that were closed because of it.
    pub sessions_cut: u32,
}

/// Lines of the audit log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditPage {
    /// Index of the first line.
    pub from: u64,
    /// Index to ask for next.
    pub next: u64,
    /// The lines, without their line feeds.
    pub lines: Vec<String>,
}

impl Bus {
    pub(crate) const fn new(shared: Arc<BusShared>) -> Self {
        Self { shared }
    }

    /// Who the broker takes this client for: what its certificate says.
    #[must_use]
    pub fn principal(&self) -> Principal {
        self.shared.principal.clone()
    }

    /// The policy that the broker last said is in force.
    #[must_use]
    pub fn policy(&self) -> PolicySeen {
        self.shared.seen.policy()
    }

    /// What happens from here on.
    #[must_use]
    pub fn events(&self) -> Events {
        self.shared.events.listen()
    }

    /// Opens a topic for publishing. Asking twice gives two handles to one queue.
    ///
    /// Cancel-safe: a topic that is opened for nobody is closed again.
    ///
    /// # Errors
    /// [`OpenError`] when the broker refuses the topic, or says nothing within the request deadline.
    pub async fn publisher(&self, topic: &str) -> Result<Publisher, OpenError> {
        let topic = Topic::parse(topic).map_err(OpenError::Topic)?;
        let (reply, answer) = oneshot::channel();
        let handle = match self.ask(Command::Open { topic, reply }, answer).await {
            Ok(answer) => answer?,
            Err(Unanswered::Late) => return Err(OpenError::Timeout { after_ms: self.request_timeout_ms() }),
            Err(Unanswered::Ended) => return Err(OpenError::Closed(self.shared.seen.end())),
        };
        Ok(Publisher::new(handle, Arc::clone(&self.shared)))
    }

    /// Subscribes to live messages. When it returns, the subscription is in effect: what is acknowledged to a
    /// producer from now on is delivered.
    ///
    /// Cancel-safe: a subscription that is made for nobody is closed again.
    ///
    /// # Errors
    /// [`SubscribeError`] when the broker refuses it, or says nothing within the request deadline.
    pub async fn subscribe(&self, filter: &str) -> Result<Subscription, SubscribeError> {
        let filter = TopicFilter::parse(filter).map_err(SubscribeError::Filter)?;
        let (reply, answer) = oneshot::channel();
        let (guard, narrowed) = match self.ask(Command::Subscribe { filter, reply }, answer).await {
            Ok(answer) => answer?,
            Err(Unanswered::Late) => {
                return Err(SubscribeError::Timeout { after_ms: self.request_timeout_ms() });
            }
            Err(Unanswered::Ended) => return Err(SubscribeError::Closed(self.shared.seen.end())),
        };
        Ok(Subscription::new(guard, Arc::clone(&self.shared), narrowed))
    }

    /// Asks whether a principal may do something; `None` asks about this client itself.
    ///
    /// Cancel-safe.
    ///
    /// # Errors
    /// [`RequestError`]; asking about others needs the verb `admin`.
    pub async fn can_i(
        &self,
        principal: Option<&Principal>,
        question: Question,
    ) -> Result<Answer, RequestError> {
        match self.administer(Operation::CanI { principal: principal.cloned(), question }).await? {
            Outcome::Decided { decision, why } => Ok(Answer { decision, why }),
            Outcome::PolicyReloaded { .. } | Outcome::AuditLines { .. } => Err(RequestError::OtherAnswer),
        }
    }

    /// Makes the broker read its policy and TLS files again. Needs the verb `admin`.
    ///
    /// Not cancel-safe: dropped after the first poll, the reload may happen all the same.
    ///
    /// # Errors
    /// [`RequestError`]; a policy that is refused leaves the old one in force, and the reason says why.
    pub async fn reload_policy(&self) -> Result<ReloadReport, RequestError> {
        match self.administer(Operation::PolicyReload).await? {
            Outcome::PolicyReloaded {
                generation,
                version,
                hash,
                rules_before,
                rules_after,
                sessions_cut,
            } => {
                let policy = PolicySeen { generation, version, hash };
                Ok(ReloadReport { policy, rules_before, rules_after, sessions_cut })
            }
            Outcome::Decided { .. } | Outcome::AuditLines { .. } => Err(RequestError::OtherAnswer),
        }
    }

    /// Reads lines of the broker's audit log. Needs the verb `audit`.
    ///
    /// Cancel-safe.
    ///
    /// # Errors
    /// [`RequestError`].
    pub async fn read_audit(&self, from: u64, lines_max: u32) -> Result<AuditPage, RequestError> {
        match self.administer(Operation::AuditRead { from, lines_max }).await? {
            Outcome::AuditLines { from, next, lines } => {
                let lines = String::from_utf8_lossy(&lines).lines().map(str::to_owned).collect();
                Ok(AuditPage { from, next, lines })
            }
            Outcome::PolicyReloaded { .. } | Outcome::Decided { .. } => Err(RequestError::OtherAnswer),
        }
    }

    /// Sends what is queued, waits for its acknowledgement until the publish deadline, and closes the connection.
    /// Other handles find the bus closed.
    ///
    /// Not cancel-safe: dropped after the first poll, the bus closes all the same.
    ///
    /// # Errors
    /// [`CloseError`] when something was not acknowledged, or the bus had ended before. It is closed in any case.
    pub async fn close(self) -> Result<(), CloseError> {
        let (reply, answer) = oneshot::channel();
        if self.shared.commands.send(Command::Close { reply }).await.is_err() {
            return Err(CloseError::Ended(self.shared.seen.end()));
        }
        // The connection's task ends within the publish deadline, and its end is an answer too.
        answer.await.unwrap_or_else(|_| Err(CloseError::Ended(self.shared.seen.end())))
    }

    async fn administer(&self, operation: Operation) -> Result<Outcome, RequestError> {
        let (reply, answer) = oneshot::channel();
        match self.ask(Command::Administer { operation, reply }, answer).await {
            Ok(answer) => answer,
            Err(Unanswered::Late) => Err(RequestError::Timeout { after_ms: self.request_timeout_ms() }),
            Err(Unanswered::Ended) => Err(RequestError::Closed(self.shared.seen.end())),
        }
    }

    /// Gives the connection a command and waits for its answer, within the request deadline.
    fn ask<T>(
        &self,
        command: Command,
        answer: oneshot::Receiver<T>,
    ) -> impl Future<Output = Result<T, Unanswered>> {
        let shared = Arc::clone(&self.shared);
        async move {
            let asked = async {
                shared.commands.send(command).await.map_err(|_| Unanswered::Ended)?;
                answer.await.map_err(|_| Unanswered::Ended)
            };
            timeout(shared.request_timeout, asked).await.map_err(|_| Unanswered::Late)?
        }
    }

    fn request_timeout_ms(&self) -> u64 {
        clock::milliseconds(self.shared.request_timeout)
    }
}

/// Why a command has no answer.
enum Unanswered {
    Late,
    Ended,
}

impl fmt::Debug for Bus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bus")
            .field("bus_id", &self.shared.bus_id)
            .field("principal", &self.shared.principal)
            .finish_non_exhaustive()
    }
}
