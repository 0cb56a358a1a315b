//! The load: one measurement in a process of its own, so that a broker's clients share nothing with those of the broker
//! before it. Prints one line.

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::arguments::LoadArguments;
use crate::failure::Failure;
use crate::measure::{Timing, measure};
use crate::outcome::Outcome;
use crate::peers::mosquitto::Mosquitto;
use crate::peers::nats::Nats;
use crate::peers::redis::Redis;
use crate::peers::relay::Relay;
use crate::pki::Pki;
use crate::pump::Raw;
use crate::sealbus::SealbusTalk;
use crate::subject::{Peer, Profile, Subject as _};
use crate::workload::Workload;

/// How long a measurement may take beside its window: connecting, waiting for stragglers, closing.
const SLACK: Duration = Duration::from_secs(60);

/// The line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Answer {
    /// What was found.
    Found(Outcome),
    /// Why nothing was.
    Failed(String),
}

/// Measures, and says what was found.
pub(crate) fn run(arguments: &LoadArguments) -> Result<(), Failure> {
    let answer = match found(arguments) {
        Ok(outcome) => Answer::Found(outcome),
        Err(failure) => Answer::Failed(failure.to_string()),
    };
    let failed = |error: &dyn std::fmt::Display| Failure::new("say what was measured", error);
    let line = serde_json::to_string(&answer).map_err(|error| failed(&error))?;
    writeln!(std::io::stdout(), "{line}").map_err(|error| failed(&error))
}

fn found(arguments: &LoadArguments) -> Result<Outcome, Failure> {
    let attempted = || format!("measure {} at {}", arguments.workload, arguments.subject);
    let workload = Workload::named(&arguments.workload)
        .ok_or_else(|| Failure::new(attempted(), "there is no such workload"))?;
    let profile = serde_json::from_value::<Profile>(arguments.profile.as_str().into())
        .map_err(|error| Failure::new(attempted(), error))?;
    let timing = Timing {
        warm_up: Duration::from_secs_f64(arguments.warm_up),
        window: Duration::from_secs_f64(arguments.seconds),
        broker: arguments.process,
    };
    // As many workers as this process may use cores: one when it is pinned.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new("start the runtime", error))?;
    // Boxed: it holds the whole state of a measurement, and stacks are small.
    let outcome = runtime.block_on(Box::pin(async {
        let deadline = timing.warm_up + timing.window + SLACK;
        let measuring = Box::pin(of_subject(arguments, profile, &workload, &timing));
        tokio::time::timeout(deadline, measuring).await.map_err(|_| {
            Failure::new(attempted(), format!("it is not done after {} s", deadline.as_secs()))
        })?
    }));
    runtime.shutdown_background();
    outcome
}

async fn of_subject(
    arguments: &LoadArguments,
    profile: Profile,
    workload: &Workload,
    timing: &Timing,
) -> Result<Outcome, Failure> {
    let pki = Pki::at(&arguments.pki);
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, arguments.port));
    let subject = arguments.subject.as_str();
    if subject == Nats.name() {
        Box::pin(measure(&raw(Nats, profile, address, &pki)?, workload, timing)).await
    } else if subject == Mosquitto.name() {
        Box::pin(measure(&raw(Mosquitto, profile, address, &pki)?, workload, timing)).await
    } else if subject == Redis.name() {
        Box::pin(measure(&raw(Redis, profile, address, &pki)?, workload, timing)).await
    } else if subject == Relay.name() {
        Box::pin(measure(&raw(Relay, profile, address, &pki)?, workload, timing)).await
    } else if subject == crate::sealbus::Sealbus.name() {
        Box::pin(measure(&SealbusTalk::new(&arguments.folder, address)?, workload, timing)).await
    } else {
        Err(Failure::new(format!("talk to {subject}"), "there is no such subject"))
    }
}

fn raw<P: Peer>(peer: P, profile: Profile, address: SocketAddr, pki: &Pki) -> Result<Raw<P>, Failure> {
    Ok(Raw { peer, profile, address, tls: pki.client_config()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_an_answer_too() {
        let failed = Answer::Failed("cannot connect".to_owned());
        let line = serde_json::to_string(&failed).unwrap();
        assert_eq!(line, r#"{"failed":"cannot connect"}"#);
        assert_eq!(serde_json::from_str::<Answer>(&line).unwrap(), failed);
    }
}
