//! What is measured, of whom, and in which order: decided before anything starts.

use std::time::Duration;

use rustix::thread::{CpuSet, sched_getaffinity};

use crate::arguments::CompareArguments;
use crate::failure::Failure;
use crate::peers::mosquitto::Mosquitto;
use crate::peers::nats::Nats;
use crate::peers::redis::Redis;
use crate::peers::relay::Relay;
use crate::report::{Absent, Entrant, Participant, Placement, Results};
use crate::sealbus::Sealbus;
use crate::subject::{Profile, Subject};
use crate::workload::{self, Kind, Workload};

use super::step::{Cores, Windows};

/// Everybody, in the order in which they are measured and shown.
const SUBJECTS: [&dyn Subject; 5] = [&Nats, &Mosquitto, &Redis, &Relay, &Sealbus];

const REPETITIONS: u32 = 3;
const SECONDS: f64 = 2.0;

/// A quick run has about seventy measurements and two minutes, and starting and stopping brokers takes most of them.
const QUICK_SECONDS: f64 = 0.5;

/// A run.
pub(super) struct Plan {
    pub(super) repetitions: u32,
    pub(super) timing: Windows,
    /// The cores of the pinned half.
    pub(super) cores: Option<Cores>,
    workloads: Vec<Workload>,
    placements: Vec<Placement>,
    participants: Vec<(&'static dyn Subject, String)>,
    skipped: Vec<Absent>,
}

/// One measurement to be made.
pub(super) struct Step {
    pub(super) placement: Placement,
    pub(super) workload: Workload,
    pub(super) repetition: u32,
    pub(super) participant: &'static dyn Subject,
    pub(super) entrant: Entrant,
}

impl Plan {
    /// What the arguments ask for, of what is there.
    pub(super) fn new(arguments: &CompareArguments) -> Result<Self, Failure> {
        let mut skipped = Vec::new();
        let mut participants = Vec::new();
        for subject in subjects(&arguments.only, arguments.without_peers)? {
            match subject.version() {
                Ok(version) => participants.push((subject, version)),
                Err(failure) => {
                    skipped.push(Absent { what: subject.name().to_owned(), why: failure.to_string() });
                }
            }
        }
        let cores = cores(&allowed_cores()?);
        let mut placements = Vec::new();
        if !arguments.pinned_only {
            placements.push(Placement::Unpinned);
        }
        let wants_pinned = arguments.pinned_only || !(arguments.unpinned_only || arguments.quick);
        match cores {
            Some(_) if wants_pinned => placements.push(Placement::Pinned),
            None if wants_pinned => skipped.push(Absent {
                what: Placement::Pinned.to_string(),
                why: "only one core may be used here, and two are needed".to_owned(),
            }),
            Some(_) | None => {}
        }
        let seconds = arguments.seconds.unwrap_or(if arguments.quick { QUICK_SECONDS } else { SECONDS });
        let window = Duration::from_secs_f64(seconds);
        Ok(Self {
            repetitions: arguments.repetitions.unwrap_or(if arguments.quick { 1 } else { REPETITIONS }),
            timing: Windows { warm_up: window / 2, window },
            cores,
            workloads: workloads(&arguments.workload)?,
            placements,
            participants,
            skipped,
        })
    }

    /// Every measurement, in the order A B C A B C: what the machine does meanwhile happens to all of them.
    pub(super) fn steps(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        for placement in self.placements.iter().copied() {
            for workload in self.workloads.iter().copied() {
                for repetition in 1..=self.repetitions {
                    for (participant, _) in &self.participants {
                        let subject = participant.name();
                        steps.extend(profiles(*participant, workload.kind).iter().map(|profile| Step {
                            placement,
                            workload,
                            repetition,
                            participant: *participant,
                            entrant: Entrant { subject, profile: *profile },
                        }));
                    }
                }
            }
        }
        steps
    }

    /// The results before anything was measured.
    pub(super) fn results(&self) -> Results {
        let participants = self.participants.iter().map(|(subject, version)| Participant {
            name: subject.name(),
            version: version.clone(),
            facts: subject.facts(),
            acknowledgements: subject
                .durable_profiles()
                .iter()
                .map(|profile| (*profile, subject.acknowledged_means(*profile)))
                .collect(),
        });
        Results { participants: participants.collect(), skipped: self.skipped.clone(), ..Results::default() }
    }
}

/// How a subject is configured for a workload; not at all when it cannot do that.
fn profiles(subject: &dyn Subject, kind: Kind) -> &'static [Profile] {
    match kind {
        Kind::Durable { .. } => subject.durable_profiles(),
        Kind::Spread(_) | Kind::Latency { .. } | Kind::Connects | Kind::Idle { .. } => &[Profile::Live],
    }
}

fn subjects(only: &[String], without_peers: bool) -> Result<Vec<&'static dyn Subject>, Failure> {
    if without_peers {
        return Ok(vec![&Relay, &Sealbus]);
    }
    let names = SUBJECTS.map(|subject| subject.name());
    if let Some(unknown) = only.iter().find(|name| !names.contains(&name.as_str())) {
        let found = format!("there are {}", names.join(", "));
        return Err(Failure::new(format!("compare \"{unknown}\""), found));
    }
    let wanted = |subject: &&dyn Subject| only.is_empty() || only.iter().any(|name| name == subject.name());
    Ok(SUBJECTS.into_iter().filter(wanted).collect())
}

fn workloads(only: &[String]) -> Result<Vec<Workload>, Failure> {
    if only.is_empty() {
        return Ok(workload::ALL.to_vec());
    }
    let named = only.iter().map(|name| {
        Workload::named(name).ok_or_else(|| {
            let found = workload::ALL.map(|workload| workload.name).join(", ");
            Failure::new(format!("measure \"{name}\""), format!("there are {found}"))
        })
    });
    named.collect()
}

/// The cores that this process may use.
fn allowed_cores() -> Result<Vec<usize>, Failure> {
    let allowed =
        sched_getaffinity(None).map_err(|error| Failure::new("find the cores that may be used", error))?;
    Ok((0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core)).collect())
}

/// The first two.
fn cores(allowed: &[usize]) -> Option<Cores> {
    match *allowed {
        [broker, load, ..] => Some(Cores { broker, load }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(participants: &[&'static dyn Subject], repetitions: u32) -> Plan {
        let window = Duration::from_secs(1);
        Plan {
            repetitions,
            timing: Windows { warm_up: window, window },
            cores: None,
            workloads: workloads(&["1to1-128".to_owned(), "durable-1k-1".to_owned()]).unwrap(),
            placements: vec![Placement::Unpinned],
            participants: participants.iter().map(|subject| (*subject, String::new())).collect(),
            skipped: Vec::new(),
        }
    }

    #[test]
    fn everybody_is_measured_in_turn_and_whoever_cannot_be_durable_is_not_asked_to() {
        let steps = plan(&[&Relay, &Sealbus], 2).steps();
        let order: Vec<_> =
            steps.iter().map(|step| (step.workload.name, step.repetition, step.entrant.subject)).collect();
        assert_eq!(
            order,
            [
                ("1to1-128", 1, "relay"),
                ("1to1-128", 1, "sealbus"),
                ("1to1-128", 2, "relay"),
                ("1to1-128", 2, "sealbus"),
                ("durable-1k-1", 1, "sealbus"),
                ("durable-1k-1", 2, "sealbus"),
            ]
        );
        assert_eq!(steps.last().map(|step| step.entrant.profile), Some(Profile::Durable));
    }

    #[test]
    fn what_there_is_not_is_refused_by_name() {
        assert!(subjects(&["kafka".to_owned()], false).is_err());
        assert!(workloads(&["1to1".to_owned()]).is_err());
        assert_eq!(subjects(&[], true).unwrap().len(), 2);
        assert_eq!(subjects(&[], false).unwrap().len(), SUBJECTS.len());
        assert_eq!(subjects(&["nats".to_owned()], false).unwrap().len(), 1);
    }

    #[test]
    fn one_core_is_not_enough_to_be_pinned() {
        assert_eq!(cores(&[3]), None);
        assert_eq!(cores(&[2, 5, 7]), Some(Cores { broker: 2, load: 5 }));
    }
}
