//! The bus as a program holds it.

use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sealbus_protocol::frame::{Narrowed, Ready, StreamStart};
use sealbus_protocol::identity::Principal;
use sealbus_protocol::ids::{BusId, PolicyHash};
use sealbus_protocol::keys::PUBLIC_KEY_LEN;
use sealbus_protocol::topic::{Topic, TopicFilter};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::checkpoint::Ledger;
use crate::clock;
use crate::connection::command::{Command, Inquiry};
use crate::error::{CloseError, CloseReason, OpenError, RequestError, SubscribeError};
use crate::event::{EventHub, Events};
use crate::publisher::Publisher;
use crate::subscription::bindings::Keyring;
use crate::subscription::reader::FeedGuard;
use crate::subscription::want::Want;
use crate::subscription::{ConsumeBuilder, ReplayBuilder, Subscription};
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
    /// Who signs the broker's checkpoints.
    pub(crate) log_key: Option<[u8; PUBLIC_KEY_LEN]>,
    /// What was seen of the streams' logs.
    pub(crate) ledger: Mutex<Ledger>,
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
        let (guard, ready) = self.read(Want::Live(filter)).await?;
        Ok(Subscription::new(guard, self.shared(), ready.narrowed))
    }

    /// Reads a stream's history, and then what follows it. Await it, or set more first:
    ///
    /// ```no_run
    /// # use sealbus_client::{Bus, Start};
    /// # async fn example(bus: Bus) -> Result<(), Box<dyn std::error::Error>> {
    /// let all = bus.replay("orders").await?;
    /// let today = bus.replay("orders").from(Start::Last(100)).filter("orders/eu/#").until_end().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn replay(&self, stream: &str) -> ReplayBuilder {
        ReplayBuilder::new(self.clone(), stream)
    }

    /// Creates or joins a durable consumer of a stream: a group that shares its messages out until they are
    /// acknowledged. Await it, or set more first.
    ///
    /// ```no_run
    /// # use std::time::Duration;
    /// # use sealbus_client::Bus;
    /// # async fn example(bus: Bus) -> Result<(), Box<dyn std::error::Error>> {
    /// let mut billing = bus.consume("orders", "billing").ack_wait(Duration::from_secs(60)).await?;
    /// while let Some(message) = billing.try_next().await? {
    ///     message.ack().await?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn consume(&self, stream: &str, name: &str) -> ConsumeBuilder {
        ConsumeBuilder::new(self.clone(), stream, name)
    }

    /// Reads a stream; gives where it begins.
    pub(crate) async fn read_stream(&self, want: Want) -> Result<(FeedGuard, Begun), SubscribeError> {
        let (guard, ready) = self.read(want).await?;
        let start = ready.start.expect("the connection takes no READY of a stream without its begin");
        Ok((guard, Begun { start, narrowed: ready.narrowed }))
    }

    async fn read(&self, want: Want) -> Result<(FeedGuard, Ready), SubscribeError> {
        let (reply, answer) = oneshot::channel();
        match self.ask(Command::Read { want, reply }, answer).await {
            Ok(answer) => answer,
            Err(Unanswered::Late) => Err(SubscribeError::Timeout { after_ms: self.request_timeout_ms() }),
            Err(Unanswered::Ended) => Err(SubscribeError::Closed(self.shared.seen.end())),
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

    /// Asks a question that is answered once.
    pub(crate) async fn inquire<T>(
        &self,
        inquiry: Inquiry,
        answer: oneshot::Receiver<Result<T, RequestError>>,
    ) -> Result<T, RequestError> {
        match self.ask(Command::Inquire(inquiry), answer).await {
            Ok(answer) => answer,
            Err(Unanswered::Late) => Err(RequestError::Timeout { after_ms: self.request_timeout_ms() }),
            Err(Unanswered::Ended) => Err(RequestError::Closed(self.shared.seen.end())),
        }
    }

    pub(crate) fn shared(&self) -> Arc<BusShared> {
        Arc::clone(&self.shared)
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

/// Where a stream that is read begins.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Begun {
    pub(crate) start: StreamStart,
    pub(crate) narrowed: Narrowed,
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
