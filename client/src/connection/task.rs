//! The life of a bus: a connection, what ended it, the next one.
//!
//! ```text
//!   serve ──ended──> disconnected ──pause──> attempt ──WELCOME──> serve
//!     |                                  ^      |
//!     |                                  '------' failed, and may succeed later
//!     '──certificate renewed: the new connection is made while the old one serves
//! ```

use std::sync::Arc;
use std::time::Duration;

use sealbus_protocol::memory;
use sealbus_protocol::refusal::{Action, Code, Refusal};
use tokio::time::{sleep, timeout};

use crate::clock;
use crate::error::{CloseReason, ConnectError};
use crate::event::Event;
use crate::identity::Identity;

use super::core::{Core, End};
use super::dial::Dial;
use super::driver::{Inputs, Served, farewell, serve, work_until};
use super::establish::{Established, Plan, establish};

/// How often the identity's files are looked at while a connection serves.
const IDENTITY_CHECK: Duration = Duration::from_secs(60);

/// An incarnation that lived no longer than this is followed by another only after a pause.
const YOUNG_MS: u64 = 1_000;

/// How long the last bytes of a connection may take.
const FAREWELL: Duration = Duration::from_secs(1);

/// Runs a bus until it ends.
pub(super) async fn run<D: Dial>(
    mut core: Core,
    mut inputs: Inputs,
    dialer: Arc<D>,
    mut identity: Identity,
    first: Established<D::Transport>,
) {
    let mut connection = first;
    let reason = loop {
        let Established { mut transport, session, welcome } = connection;
        core.handle_welcome_at(session, &welcome, core.ticker.tick());
        drop(welcome);
        let mut renewal = Box::pin(renew(Arc::clone(&dialer), identity.clone(), plan(&core)));
        let served = serve(&mut core, &mut inputs, &mut transport, renewal.as_mut()).await;
        if let Some(session) = &mut core.session {
            // The peer may be gone already, which is no news.
            let _ = timeout(FAREWELL, farewell(session, &mut transport)).await;
        }
        drop((transport, renewal));
        let (told, pause): (String, Pause) = match served {
            Served::Interrupted((renewed, next)) => {
                core.handle_disconnected("the certificate was renewed");
                core.events.tell(&Event::IdentityReloaded);
                identity = renewed;
                connection = next;
                continue;
            }
            Served::Ended(End::Closed) => break CloseReason::ByCaller,
            Served::Ended(End::Final(refusal)) => {
                core.handle_disconnected(&refusal.to_string());
                break CloseReason::Refused(refusal);
            }
            Served::Ended(End::NewIncarnation(because)) => {
                core.handle_disconnected("publishing goes on under a new incarnation");
                // One after the other in quick succession means that something is wrong after all.
                let lived_ms = clock::now_ms().saturating_sub(core.context.started_ms);
                let pause = if lived_ms < YOUNG_MS { Pause::Full } else { Pause::Short };
                match core.begin_incarnation(because) {
                    Ok(()) => ("a new incarnation begins".into(), pause),
                    Err(error) => break gave_up(0, &error),
                }
            }
            Served::Ended(End::Lost(reason)) => {
                core.handle_disconnected(&reason);
                (reason, Pause::Full)
            }
        };
        tracing::debug!(reason = told, "reconnecting");
        match reconnect(&mut core, &mut inputs, &dialer, &mut identity, pause).await {
            Ok(next) => connection = next,
            Err(reason) => break reason,
        }
    };
    core.finish(&reason);
}

/// How long to wait before the first attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pause {
    /// Nothing is wrong with the broker.
    Short,
    Full,
}

/// Attempts until a session serves. Meanwhile deadlines run and handles are answered.
async fn reconnect<D: Dial>(
    core: &mut Core,
    inputs: &mut Inputs,
    dialer: &Arc<D>,
    identity: &mut Identity,
    pause: Pause,
) -> Result<Established<D::Transport>, CloseReason> {
    let options = core.options.reconnect;
    let mut delay = match pause {
        Pause::Short => options.initial.min(Duration::from_millis(10)),
        Pause::Full => options.initial,
    };
    let mut attempt: u32 = 0;
    loop {
        attempt = attempt.saturating_add(1);
        let wait = jittered(delay);
        core.events.tell(&Event::Reconnecting { attempt, in_ms: clock::milliseconds(wait) });
        let next = async {
            sleep(wait).await;
            reload(identity.clone()).await
        };
        match work_until(core, inputs, next).await {
            None => return Err(CloseReason::ByCaller),
            Some(None) => {}
            Some(Some(renewed)) => {
                *identity = renewed;
                core.events.tell(&Event::IdentityReloaded);
            }
        }
        let plan = plan(core);
        let attempted = establish(&**dialer, identity, &plan);
        let error = match work_until(core, inputs, attempted).await {
            None => return Err(CloseReason::ByCaller),
            Some(Ok(established)) => return Ok(established),
            Some(Err(error)) => error,
        };
        tracing::debug!(attempt, error = %error, "could not reconnect");
        if let ConnectError::Refused(refusal) = &error {
            match judge(refusal) {
                Judgement::Later => {}
                Judgement::NewIncarnation => {
                    core.begin_incarnation(refusal.clone()).map_err(|error| gave_up(attempt, &error))?;
                }
                Judgement::Never => return Err(CloseReason::Refused(refusal.clone())),
            }
        }
        if options.attempts.is_some_and(|attempts| attempt >= attempts) {
            return Err(gave_up(attempt, &error));
        }
        delay = delay.max(options.initial).saturating_mul(2).min(options.max.max(options.initial));
    }
}

enum Judgement {
    Later,
    NewIncarnation,
    Never,
}

/// What a refused HELLO means. A broker that was restarted does not know our incarnation, and takes one that began
/// long ago for a replay; a fresh one it takes.
fn judge(refusal: &Refusal) -> Judgement {
    let unknown = [Code::Time, Code::Stale, Code::StaleVersion, Code::Session].contains(&refusal.code());
    match refusal.action() {
        Action::Retry => Judgement::Later,
        Action::Refresh | Action::Final if unknown => Judgement::NewIncarnation,
        Action::Refresh | Action::Final => Judgement::Never,
    }
}

fn gave_up(attempts: u32, error: &ConnectError) -> CloseReason {
    CloseReason::GaveUp { attempts, last: error.to_string() }
}

fn plan(core: &Core) -> Plan {
    Plan {
        keys: Arc::clone(&core.keys),
        context: core.context.clone(),
        agent: core.options.agent.clone(),
        connect_timeout: core.options.connect_timeout,
        ticker: core.ticker,
    }
}

/// Watches the identity's files, and memory that nobody uses any more; makes a connection with the new certificate when they change.
async fn renew<D: Dial>(
    dialer: Arc<D>,
    mut identity: Identity,
    plan: Plan,
) -> (Identity, Established<D::Transport>) {
    loop {
        sleep(IDENTITY_CHECK).await;
        memory::release_unused();
        let Some(renewed) = reload(identity.clone()).await else { continue };
        match establish(&*dialer, &renewed, &plan).await {
            Ok(established) => return (renewed, established),
            Err(error) => {
                // The connection that serves goes on; the new files are tried again when they change again, or with
                // the next connection.
                tracing::warn!(error = %error, "could not connect with the renewed certificate");
                identity = renewed;
            }
        }
    }
}

/// The identity as it is on the disk now, when it has changed. Files are read off the task.
async fn reload(identity: Identity) -> Option<Identity> {
    match tokio::task::spawn_blocking(move || identity.reload()).await {
        Ok(Ok(renewed)) => renewed,
        Ok(Err(error)) => {
            tracing::warn!(error = %error, "the identity cannot be read again; the one in memory is kept");
            None
        }
        Err(error) => {
            tracing::error!(error = %error, "reading the identity failed");
            None
        }
    }
}

/// A random part of up to a half taken off. Without random bytes, the whole pause.
fn jittered(delay: Duration) -> Duration {
    let share = getrandom::u32().map_or(0.0, |random| f64::from(random) / f64::from(u32::MAX));
    delay.mul_f64(1.0 - share / 2.0)
}
