//! Making changes facts: the policy, and certificates with their roots and revocation lists.
//!
//! ```text
//!   read and check --> $policy, its streams --> audit, durable --> swap --> barrier: every session adopts, marks,
//!                                                                          arrives --> done
//!        refused: as it was                           late after 50 ms: ended, and awaited
//! ```
//!
//! One task makes one change at a time. When a reload returns, no session decides by the policy before, and none writes
//! what only that policy allowed.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::audit::{CutReason, Event, Initiator, PolicyFacts};
use crate::bus::Bus;
use crate::change::{ChangeRequest, ReloadError, ReloadReport};
use crate::config::Config;
use crate::keeping;
use crate::policy::{self, PolicyInForce, PolicyLoadError};
use crate::port::Port;
use crate::storage::whole::{OpenedStream, StorageError};
use crate::telemetry;
use crate::tls::{self, TlsMaterial};
use crate::vfs::Vfs;

/// Milliseconds in which every session must have judged its peer by new roots and revocation lists. A chain takes a
/// tenth of a millisecond, and ten thousand sessions may share two processors.
const RECHECK_MS: u64 = 5_000;

/// Milliseconds in which every session's task must have had its turn after a change of policy, besides the time that
/// its peer has to take the marker. Turns are fair and short: a session that has none for so long never will.
const TURN_GRACE_MS: u64 = 5_000;

/// The task that makes changes.
pub(crate) struct Changes {
    pub(crate) bus: Arc<Bus>,
    pub(crate) ports: Vec<Arc<Port>>,
    pub(crate) config: Arc<Config>,
    pub(crate) vfs: Arc<dyn Vfs>,
}

impl Changes {
    /// Makes changes as they are asked for, until nobody can ask any more.
    pub(crate) async fn run(self, mut requests: mpsc::Receiver<ChangeRequest>) {
        while let Some(ChangeRequest { by, reply }) = requests.recv().await {
            let outcome = self.reload(by).await;
            match &outcome {
                Ok(report) => tracing::info!(
                    { telemetry::GENERATION } = report.generation,
                    { telemetry::POLICY_VERSION } = report.version,
                    "policy and certificates were read again"
                ),
                Err(error) => tracing::error!({ telemetry::ERROR } = %error, "a reload was refused"),
            }
            // Whoever asked may have left.
            let _ = reply.send(outcome);
        }
    }

    async fn reload(&self, by: Initiator) -> Result<ReloadReport, ReloadError> {
        let before = self.bus.policy.load_full();
        let cut_before = self.bus.cut();
        let (policy, materials) = self.read(before.generation.saturating_add(1)).await?;
        let by_policy = self.change_policy(&before, policy, by.clone()).await;
        let by_tls = self.change_tls(materials, by).await;
        let (after, late) = by_policy?;
        let late = late.saturating_add(by_tls?);
        let cut = usize::try_from(self.bus.cut().saturating_sub(cut_before)).unwrap_or(usize::MAX);
        Ok(ReloadReport {
            generation: after.generation,
            version: after.compiled.version(),
            hash: after.hash,
            rules_before: before.compiled.rule_count(),
            rules_after: after.compiled.rule_count(),
            sessions_cut: cut.saturating_add(late),
        })
    }

    /// Reads everything, on a thread that may block.
    async fn read(
        &self,
        generation: u64,
    ) -> Result<(Result<PolicyInForce, PolicyLoadError>, Result<Vec<TlsMaterial>, ReloadError>), ReloadError>
    {
        let (config, vfs, clock) =
            (Arc::clone(&self.config), Arc::clone(&self.vfs), Arc::clone(&self.bus.clock));
        let read = move || {
            let policy = policy::load_for(&*vfs, &config, generation, clock.now_ms());
            let load = |listener| {
                tls::load(&*vfs, listener, Arc::clone(&clock))
                    .map_err(|error| ReloadError::Tls { listener: listener.address, error: Box::new(error) })
            };
            (policy, config.listeners.iter().map(load).collect())
        };
        tokio::task::spawn_blocking(read).await.map_err(|_| ReloadError::Stopping)
    }

    async fn change_policy(
        &self,
        before: &PolicyInForce,
        policy: Result<PolicyInForce, PolicyLoadError>,
        by: Initiator,
    ) -> Result<(Arc<PolicyInForce>, usize), ReloadError> {
        let after = match policy {
            Ok(after) => Arc::new(after),
            Err(error) => {
                let event = Event::PolicyRefused { reason: error.to_string(), by };
                self.bus.audit.record_durable(event).await.map_err(ReloadError::Audit)?;
                return Err(ReloadError::Policy(error));
            }
        };
        let opened = match self.prepare(&after).await {
            Ok(opened) => opened,
            Err(error) => {
                let event = Event::PolicyRefused { reason: error.to_string(), by };
                self.bus.audit.record_durable(event).await.map_err(ReloadError::Audit)?;
                return Err(ReloadError::Storage(error));
            }
        };
        let event = Event::PolicyReloaded {
            generation: after.generation,
            before: Some(facts(before)),
            after: facts(&after),
            by,
        };
        self.bus.audit.record_durable(event).await.map_err(ReloadError::Audit)?;
        for stream in &opened {
            self.bus.consumers.handle_stream_opened(stream.id, stream.bounds.end);
        }
        keeping::admit(&self.bus, opened);
        self.bus.policy.store(Arc::clone(&after));
        let barrier = self.bus.sessions.raise(|control, barrier| control.policy = Some(barrier));
        // Each session watches over its own marker; the grace is for their turns, and ends one that never has its own.
        let timeout = Duration::from_millis(self.bus.limits.marker_timeout_ms.saturating_add(TURN_GRACE_MS));
        let late = self.bus.sessions.settle(&barrier, timeout, &CutReason::MarkerTimeout).await;
        let (storage, policy) = (Arc::clone(&self.bus.storage), after.compiled.policy().clone());
        let configured = tokio::task::spawn_blocking(move || storage.configure(&policy));
        configured.await.map_err(|_| ReloadError::Stopping)?;
        Ok((after, late.len()))
    }

    /// Keeps a policy and opens its streams, before it comes into force.
    async fn prepare(&self, after: &PolicyInForce) -> Result<Vec<OpenedStream>, StorageError> {
        keeping::record_policy(&self.bus.storage, after).await?;
        keeping::follow(&self.bus.storage, after, &self.bus.audit).await
    }

    /// All listeners or none.
    async fn change_tls(
        &self,
        materials: Result<Vec<TlsMaterial>, ReloadError>,
        by: Initiator,
    ) -> Result<usize, ReloadError> {
        let materials = match materials {
            Ok(materials) => materials,
            Err(error) => {
                let event = Event::TlsRefused { reason: error.to_string(), by };
                self.bus.audit.record_durable(event).await.map_err(ReloadError::Audit)?;
                return Err(error);
            }
        };
        self.bus.audit.record_durable(Event::TlsReloaded { by }).await.map_err(ReloadError::Audit)?;
        for (port, material) in self.ports.iter().zip(materials) {
            port.tls.store(Arc::new(material));
        }
        let barrier = self.bus.sessions.raise(|control, barrier| control.tls = Some(barrier));
        let why = CutReason::CertificateRefused("it could not be judged anew in time".to_owned());
        let late = self.bus.sessions.settle(&barrier, Duration::from_millis(RECHECK_MS), &why).await;
        Ok(late.len())
    }
}

/// A policy, as a change of it is recorded.
pub(crate) fn facts(policy: &PolicyInForce) -> PolicyFacts {
    PolicyFacts { version: policy.compiled.version(), hash: policy.hash, rules: policy.compiled.rule_count() }
}
