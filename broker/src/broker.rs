//! Start, run, stop: the broker as its process sees it.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinHandle, JoinSet};

use crate::admission::Admission;
use crate::audit::{Audit, AuditStartError, AuditThread, AuditUnavailable, CutReason, Event, Initiator};
use crate::bus::{Beginnings, Bus};
use crate::change::{CHANGES_WAITING_MAX, ChangeRequest, ReloadError, ReloadReport};
use crate::clock::{Clock, SystemClock};
use crate::config::Config;
use crate::descriptors::{self, TooFewDescriptors};
use crate::keeping::{self, Keeping};
use crate::listener::listen;
use crate::policy::{self, PolicyInForce, PolicyLoadError};
use crate::port::Port;
use crate::reload::{Changes, facts};
use crate::shutdown::{Shutdown, Trigger};
use crate::storage::whole::StorageError;
use crate::telemetry;
use crate::tls::{self, TlsError, TlsMaterial};
use crate::vfs::{Lock, OsVfs, Vfs};

/// The version that the audit log names.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What the broker gets its time and its files from.
#[derive(Clone)]
pub struct Parts {
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// The files.
    pub vfs: Arc<dyn Vfs>,
}

impl Parts {
    /// The system's own.
    #[must_use]
    pub fn system() -> Self {
        Self { clock: Arc::new(SystemClock::new()), vfs: Arc::new(OsVfs) }
    }
}

impl fmt::Debug for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Parts")
    }
}

/// A broker that runs.
///
/// [`Broker::shutdown`] lets sessions finish; a broker that is dropped instead closes them where they are.
pub struct Broker {
    bus: Arc<Bus>,
    addresses: Vec<SocketAddr>,
    trigger: Trigger,
    listeners: Vec<JoinHandle<JoinSet<()>>>,
    changes: JoinHandle<()>,
    keeping: Keeping,
    audit_thread: AuditThread,
    lock: Box<dyn Lock>,
}

impl Broker {
    /// Starts a broker: everything is read and checked, the start is in the audit log, and only then it listens.
    ///
    /// # Errors
    /// [`StartError`] says what is wrong. Nothing runs then.
    pub async fn start(mut config: Config, parts: Parts) -> Result<Self, StartError> {
        let Parts { clock, vfs } = parts;
        let share = descriptors::share_out(config.listeners.len(), config.limits.connections_max)
            .map_err(StartError::Descriptors)?;
        config.limits.connections_max = share.connections_max;
        let data_dir = &config.data_dir;
        let lock_path = data_dir.join("LOCK");
        vfs.create_dir_all(data_dir)
            .map_err(|error| StartError::DataDir { path: data_dir.clone(), error })?;
        let lock = vfs.lock(&lock_path).map_err(|error| StartError::Lock { path: lock_path, error })?;

        let now_ms = clock.now_ms();
        let policy = policy::load_for(&*vfs, &config, 1, now_ms).map_err(StartError::Policy)?;
        let load = |listener| {
            tls::load(&*vfs, listener, Arc::clone(&clock))
                .map_err(|error| StartError::Tls { listener: listener.address, error: Box::new(error) })
        };
        let materials = config.listeners.iter().map(load).collect::<Result<Vec<_>, _>>()?;

        let (audit, audit_thread) =
            Audit::start(&*vfs, Arc::clone(&clock), &config.audit, &data_dir.join("audit"))
                .map_err(StartError::AuditStart)?;
        record_start(&audit, &config, &policy).await.map_err(StartError::Audit)?;
        let begun = match keeping::open(&config, &policy, (&vfs, &clock), &audit).await {
            Ok(kept) => match bind(&config, materials).await {
                Ok(bound) => Ok((kept, bound)),
                Err(error) => {
                    kept.close().await;
                    Err(error)
                }
            },
            Err(error) => Err(StartError::Storage(error)),
        };
        let (kept, bound) = match begun {
            Ok(begun) => begun,
            Err(error) => {
                // The log says that it started, and must say that this was not a crash. Why it does not start is
                // what its operator has to know, and is returned whatever becomes of that.
                if let Err(unrecorded) = stop_audit(&audit, audit_thread).await {
                    tracing::error!({ telemetry::ERROR } = %unrecorded, "the end of a start is not in the audit log");
                }
                return Err(error);
            }
        };

        let (changes, requests) = mpsc::channel(CHANGES_WAITING_MAX);
        let bus = Arc::new(Bus::new(Beginnings {
            id: config.bus_id,
            clock,
            limits: config.limits.clone(),
            audit,
            policy,
            storage: Arc::clone(&kept.storage),
            consumers: Arc::clone(&kept.consumers),
            changes,
        }));
        let keeping = kept.begin(&bus);
        let (trigger, shutdown) = Shutdown::new();
        let admission = Admission::new(&config.limits, share.newcomers_max);
        let (sockets, ports): (Vec<_>, Vec<_>) = bound.into_iter().unzip();
        let addresses = ports.iter().map(|port| port.address).collect();
        let listeners = sockets
            .into_iter()
            .zip(&ports)
            .map(|(socket, port)| {
                let (bus, admission) = (Arc::clone(&bus), Arc::clone(&admission));
                tokio::spawn(listen(socket, Arc::clone(port), bus, admission, shutdown.clone()))
            })
            .collect();
        let changes = Changes { bus: Arc::clone(&bus), ports, config: Arc::new(config), vfs };
        let changes = tokio::spawn(changes.run(requests));
        Ok(Self { bus, addresses, trigger, listeners, changes, keeping, audit_thread, lock })
    }

    /// Where it listens, in the order of the configuration; a port 0 of the configuration is the one it got.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Reads policy, certificates, roots and revocation lists again: the policy as a whole, and the others as a whole.
    /// When it returns, what was accepted is in force on every connection. Dropping the future does not stop it.
    ///
    /// # Errors
    /// [`ReloadError`]; what is refused stays as it was.
    pub async fn reload(&self) -> Result<ReloadReport, ReloadError> {
        let (reply, outcome) = oneshot::channel();
        let request = ChangeRequest { by: Initiator::Process, reply };
        self.bus.changes.send(request).await.map_err(|_| ReloadError::Stopping)?;
        outcome.await.unwrap_or(Err(ReloadError::Stopping))
    }

    /// Stops: accepts no more, takes nothing more in, delivers what was acknowledged, closes every connection, and
    /// says so in the audit log. Sessions that have not finished in time are ended.
    ///
    /// # Errors
    /// [`AuditUnavailable`] when the last events could not be written. The broker has stopped all the same.
    pub async fn shutdown(self) -> Result<(), AuditUnavailable> {
        let Self { bus, addresses: _, trigger, listeners, changes, keeping, audit_thread, lock } = self;
        trigger.trigger();
        bus.sessions.close();
        let timeout_ms = bus.limits.drain_timeout_ms;
        if tokio::time::timeout(Duration::from_millis(timeout_ms), drain(&bus, timeout_ms)).await.is_err() {
            tracing::warn!(
                { telemetry::COUNT } = bus.sessions.len(),
                "sessions had not finished in time and are ended"
            );
            bus.sessions.tell(|control| control.kill = Some(CutReason::Drained));
            bus.sessions.wait_empty().await;
        }
        for listener in listeners {
            // Whoever is left has no session yet.
            if let Ok(mut connections) = listener.await {
                connections.shutdown().await;
            }
        }
        changes.abort();
        keeping.stop().await;
        let stopped = stop_audit(&bus.audit, audit_thread).await;
        drop(lock);
        stopped
    }

    /// Runs until SIGTERM or SIGINT, then stops as [`Broker::shutdown`] does. SIGHUP reloads.
    ///
    /// # Errors
    /// [`RunError`] when signals cannot be heard, in which case the broker stops, or when the last events could not be
    /// written.
    #[cfg(unix)]
    pub async fn run_until_signalled(self) -> Result<(), RunError> {
        use tokio::signal::unix::{SignalKind, signal};
        let hear = || {
            Ok((
                signal(SignalKind::terminate())?,
                signal(SignalKind::interrupt())?,
                signal(SignalKind::hangup())?,
            ))
        };
        let (mut terminate, mut interrupt, mut hang_up) = match hear() {
            Ok(signals) => signals,
            Err(error) => {
                self.shutdown().await.map_err(RunError::Audit)?;
                return Err(RunError::Signals(error));
            }
        };
        loop {
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                _ = hang_up.recv() => {
                    // The outcome is in the log and in the audit log.
                    let _ = self.reload().await;
                }
            }
        }
        tracing::info!("stopping");
        self.shutdown().await.map_err(RunError::Audit)
    }
}

impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Broker").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

/// First nobody takes anything in, then everybody sends what is left. In this order, since what one session accepts
/// last is another's to deliver.
async fn drain(bus: &Bus, timeout_ms: u64) {
    let deadline_ms = u32::try_from(timeout_ms).unwrap_or(u32::MAX);
    bus.sessions.raise(|control, barrier| control.drain = Some((deadline_ms, barrier))).wait().await;
    bus.sessions.tell(|control| control.finish = true);
    bus.sessions.wait_empty().await;
}

async fn record_start(
    audit: &Audit,
    config: &Config,
    policy: &PolicyInForce,
) -> Result<(), AuditUnavailable> {
    audit
        .record_durable(Event::BrokerStarted {
            version: VERSION,
            bus: config.bus_id,
            previous: audit.previous_run(),
        })
        .await?;
    audit
        .record_durable(Event::PolicyReloaded {
            generation: policy.generation,
            before: None,
            after: facts(policy),
            by: Initiator::Process,
        })
        .await
}

async fn stop_audit(audit: &Audit, thread: AuditThread) -> Result<(), AuditUnavailable> {
    let recorded = audit.record_durable(Event::BrokerStopped).await;
    let stopped =
        tokio::task::spawn_blocking(|| thread.stop()).await.unwrap_or(Err(AuditUnavailable::Stopped));
    recorded.and(stopped)
}

async fn bind(
    config: &Config,
    materials: Vec<TlsMaterial>,
) -> Result<Vec<(TcpListener, Arc<Port>)>, StartError> {
    let mut bound = Vec::new();
    for (listener, material) in config.listeners.iter().zip(materials) {
        let refuse = |error| StartError::Bind { address: listener.address, error };
        let socket = TcpListener::bind(listener.address).await.map_err(refuse)?;
        let address = socket.local_addr().map_err(refuse)?;
        let tls = ArcSwap::from_pointee(material);
        bound.push((socket, Arc::new(Port { address, zone: listener.zone.as_str().into(), tls })));
    }
    Ok(bound)
}

/// Why the broker does not start.
#[derive(Debug)]
pub enum StartError {
    /// The data directory cannot be made.
    DataDir {
        /// The directory.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// Another broker has the data directory, or it cannot be locked.
    Lock {
        /// The lock.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// The process may not open as many files as the least that a broker needs.
    Descriptors(TooFewDescriptors),
    /// The audit log cannot be opened.
    AuditStart(AuditStartError),
    /// The start could not be recorded.
    Audit(AuditUnavailable),
    /// The policy is refused.
    Policy(PolicyLoadError),
    /// What the broker keeps cannot be opened.
    Storage(StorageError),
    /// A listener's certificates, roots or revocation lists are refused.
    Tls {
        /// The listener.
        listener: SocketAddr,
        /// What is wrong.
        error: Box<TlsError>,
    },
    /// An address cannot be listened on.
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        error: io::Error,
    },
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DataDir { path, error } => write!(f, "data directory {}: {error}", path.display()),
            Self::Lock { path, error } => {
                write!(f, "{} cannot be locked, another broker may be running there: {error}", path.display())
            }
            Self::Descriptors(error) => error.fmt(f),
            Self::AuditStart(error) => error.fmt(f),
            Self::Audit(error) => write!(f, "the start cannot be recorded: {error}"),
            Self::Policy(error) => error.fmt(f),
            Self::Storage(error) => write!(f, "storage: {error}"),
            Self::Tls { listener, error } => write!(f, "listener {listener}: {error}"),
            Self::Bind { address, error } => write!(f, "cannot listen on {address}: {error}"),
        }
    }
}

impl std::error::Error for StartError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::DataDir { error, .. } | Self::Lock { error, .. } | Self::Bind { error, .. } => Some(error),
            Self::Descriptors(error) => Some(error),
            Self::AuditStart(error) => Some(error),
            Self::Audit(error) => Some(error),
            Self::Policy(error) => Some(error),
            Self::Storage(error) => Some(error),
            Self::Tls { error, .. } => Some(error),
        }
    }
}

/// Why a running broker did not end well.
#[derive(Debug)]
pub enum RunError {
    /// Signals cannot be heard.
    Signals(io::Error),
    /// The last events could not be written.
    Audit(AuditUnavailable),
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Signals(error) => write!(f, "signals cannot be heard: {error}"),
            Self::Audit(error) => write!(f, "the end cannot be recorded: {error}"),
        }
    }
}

impl std::error::Error for RunError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Signals(error) => Some(error),
            Self::Audit(error) => Some(error),
        }
    }
}
