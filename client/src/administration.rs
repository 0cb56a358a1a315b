//! Administration: what operators ask a broker, over the same connection as everything else.

use sealbus_protocol::frame::admin::{Decision, Question};
use sealbus_protocol::frame::{
    BrokerStats, ConsumerInfo, ConsumerKey, More, Operation, Outcome, Start, StreamInfo,
};
use sealbus_protocol::identity::Principal;
use sealbus_protocol::policy::Name;
use sealbus_protocol::stream_name::StreamName;
use tokio::sync::oneshot;

use crate::bus::{Bus, PolicySeen};
use crate::connection::command::Inquiry;
use crate::error::RequestError;

/// Entries of a list that is put together from several answers, so that no broker can fill memory: each of the most
/// streams with a hundred consumers.
const LISTED_MAX: usize = 128 * sealbus_protocol::limits::STREAMS_MAX;

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
            Outcome::PolicyReloaded { .. }
            | Outcome::AuditLines { .. }
            | Outcome::Streams { .. }
            | Outcome::Consumers { .. }
            | Outcome::ConsumerReset { .. }
            | Outcome::Stats(_) => Err(RequestError::OtherAnswer),
        }
    }

    /// Makes the broker read its policy and TLS files again. Needs the verb `admin`.
    ///
    /// Not cancel-safe: dropped after the first poll, the reload may happen all the same.
    ///
    /// # Errors
    /// [`RequestError`]; a policy that is refused leaves the old one in force, and the reason says why.
    pub async fn reload_policy(&self) -> Result<ReloadReport, RequestError> {
        let outcome = self.administer(Operation::PolicyReload).await?;
        let Outcome::PolicyReloaded { generation, version, hash, rules_before, rules_after, sessions_cut } =
            outcome
        else {
            return Err(RequestError::OtherAnswer);
        };
        let policy = PolicySeen { generation, version, hash };
        Ok(ReloadReport { policy, rules_before, rules_after, sessions_cut })
    }

    /// Reads lines of the broker's audit log. Needs the verb `audit`.
    ///
    /// Cancel-safe.
    ///
    /// # Errors
    /// [`RequestError`].
    pub async fn read_audit(&self, from: u64, lines_max: u32) -> Result<AuditPage, RequestError> {
        let outcome = self.administer(Operation::AuditRead { from, lines_max }).await?;
        let Outcome::AuditLines { from, next, lines } = outcome else {
            return Err(RequestError::OtherAnswer);
        };
        let lines = String::from_utf8_lossy(&lines).lines().map(str::to_owned).collect();
        Ok(AuditPage { from, next, lines })
    }

    /// Streams that this client may see, in the order of their names: all of them, or the one that is called so.
    /// Needs the verb `describe`.
    ///
    /// Cancel-safe.
    ///
    /// # Errors
    /// [`RequestError`]; a name that is none is refused without asking.
    pub async fn streams(&self, name: Option<&str>) -> Result<Vec<StreamInfo>, RequestError> {
        let name = name.map(StreamName::parse).transpose().map_err(RequestError::Stream)?;
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let operation = Operation::Streams { name: name.clone(), after };
            let Outcome::Streams { streams, more } = self.administer(operation).await? else {
                return Err(RequestError::OtherAnswer);
            };
            after = streams.last().map(|stream| stream.name.clone());
            found.extend(streams);
            if is_last(more, after.is_some(), found.len())? {
                return Ok(found);
            }
        }
    }

    /// Durable consumers that this client may see: all of them, or those of one stream. Needs the verb `describe`.
    ///
    /// Cancel-safe.
    ///
    /// # Errors
    /// [`RequestError`]; a name that is none is refused without asking.
    pub async fn consumers(&self, stream: Option<&str>) -> Result<Vec<ConsumerInfo>, RequestError> {
        let stream = stream.map(Name::parse).transpose().map_err(RequestError::Name)?;
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let operation = Operation::Consumers { stream: stream.clone(), after };
            let Outcome::Consumers { consumers, more } = self.administer(operation).await? else {
                return Err(RequestError::OtherAnswer);
            };
            after = consumers
                .last()
                .map(|found| ConsumerKey { stream: found.stream.clone(), consumer: found.name.clone() });
            found.extend(consumers);
            if is_last(more, after.is_some(), found.len())? {
                return Ok(found);
            }
        }
    }

    /// Lets a durable consumer begin anew at another place; gives the offset. Needs the verb `admin`.
    ///
    /// Not cancel-safe: dropped after the first poll, it may happen all the same.
    ///
    /// # Errors
    /// [`RequestError`]; a name that is none is refused without asking.
    pub async fn reset_consumer(&self, stream: &str, name: &str, from: Start) -> Result<u64, RequestError> {
        let stream = Name::parse(stream).map_err(RequestError::Name)?;
        let consumer = Name::parse(name).map_err(RequestError::Name)?;
        let operation = Operation::ConsumerReset { consumer: ConsumerKey { stream, consumer }, from };
        let Outcome::ConsumerReset { position } = self.administer(operation).await? else {
            return Err(RequestError::OtherAnswer);
        };
        Ok(position)
    }

    /// What the broker counts. Needs the verb `admin`.
    ///
    /// Cancel-safe.
    ///
    /// # Errors
    /// [`RequestError`].
    pub async fn stats(&self) -> Result<BrokerStats, RequestError> {
        let Outcome::Stats(stats) = self.administer(Operation::Stats).await? else {
            return Err(RequestError::OtherAnswer);
        };
        Ok(*stats)
    }

    async fn administer(&self, operation: Operation) -> Result<Outcome, RequestError> {
        let (reply, answer) = oneshot::channel();
        self.inquire(Inquiry::Administer { operation, reply }, answer).await
    }
}

/// Whether a list is whole. One that has more and does not get on, or has more than there can be, is no honest answer.
fn is_last(more: More, any: bool, found: usize) -> Result<bool, RequestError> {
    match more {
        More::No => Ok(true),
        More::Yes if any && found < LISTED_MAX => Ok(false),
        More::Yes => Err(RequestError::OtherAnswer),
    }
}
