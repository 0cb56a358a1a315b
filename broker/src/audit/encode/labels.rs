//! What is fixed for each kind of event: its OCSF class and activity, how much it matters, and how it ended.

use sealbus_protocol::policy::Verb;
use sealbus_protocol::refusal::Code;

use crate::audit::event::{CutReason, Event, PreviousRun};
use crate::audit::stream::StreamChange;

/// An OCSF class, with what its events must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OcsfClass {
    DetectionFinding = 2004,
    Authentication = 3002,
    EntityManagement = 3004,
    NetworkActivity = 4001,
    ApplicationLifecycle = 6002,
    ApiActivity = 6003,
}

/// How much a person should care.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Severity {
    Informational = 1,
    Low = 2,
    Medium = 3,
    High = 4,
    Critical = 5,
}

/// Whether what was attempted was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    Success = 1,
    Failure = 2,
}

/// What was decided, in the words of the profile `security_control`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Disposition {
    Allowed = 1,
    Dropped = 6,
    AccessRevoked = 24,
    Rejected = 25,
    Unauthorized = 26,
}

/// What is fixed for an event's kind.
pub(super) struct Labels {
    pub(super) name: &'static str,
    pub(super) class: OcsfClass,
    pub(super) activity: u64,
    pub(super) severity: Severity,
    pub(super) status: Status,
    pub(super) disposition: Option<Disposition>,
}

/// The labels of an event.
pub(super) fn labels(event: &Event) -> Labels {
    use Disposition::{AccessRevoked, Allowed, Dropped, Rejected, Unauthorized};
    use OcsfClass::{
        ApiActivity, ApplicationLifecycle, Authentication, DetectionFinding, EntityManagement,
        NetworkActivity,
    };
    use Severity::{Critical, High, Informational, Low, Medium};
    use Status::{Failure, Success};

    let (name, class, activity, severity, status, disposition) = match event {
        Event::BrokerStarted { previous: PreviousRun::None | PreviousRun::Stopped, .. } => {
            ("broker-started", ApplicationLifecycle, 3, Informational, Success, None)
        }
        Event::BrokerStarted { previous: PreviousRun::Unclean { .. }, .. } => {
            ("broker-started", ApplicationLifecycle, 3, Medium, Success, None)
        }
        Event::BrokerStopped => ("broker-stopped", ApplicationLifecycle, 4, Informational, Success, None),
        Event::PolicyReloaded { before: None, .. } => {
            ("policy-reloaded", EntityManagement, 1, Informational, Success, None)
        }
        Event::PolicyReloaded { before: Some(_), .. } => {
            ("policy-reloaded", EntityManagement, 3, Informational, Success, None)
        }
        Event::PolicyRefused { .. } => ("policy-refused", EntityManagement, 3, Medium, Failure, None),
        Event::TlsReloaded { .. } => ("tls-reloaded", EntityManagement, 3, Informational, Success, None),
        Event::TlsRefused { .. } => ("tls-refused", EntityManagement, 3, Medium, Failure, None),
        Event::HandshakeFailed { .. } => ("handshake-failed", NetworkActivity, 4, Low, Failure, None),
        Event::SessionRefused { .. } => ("session-refused", Authentication, 1, Low, Failure, Some(Rejected)),
        Event::SessionOpened { .. } => ("session-opened", Authentication, 1, Informational, Success, None),
        Event::SessionClosed { .. } => ("session-closed", Authentication, 2, Informational, Success, None),
        Event::SessionCut { why, .. } => {
            let disposition = match why {
                CutReason::PrincipalRevoked(_)
                | CutReason::CertificateRefused(_)
                | CutReason::CertificateExpired => AccessRevoked,
                CutReason::MarkerTimeout
                | CutReason::Fenced
                | CutReason::Superseded
                | CutReason::Drained
                | CutReason::StreamsChanged
                | CutReason::AuditUnavailable => Dropped,
            };
            ("session-cut", Authentication, 2, Low, Success, Some(disposition))
        }
        Event::Subscribed { .. } => ("subscribed", ApiActivity, 2, Informational, Success, Some(Allowed)),
        Event::Unsubscribed { .. } => ("unsubscribed", ApiActivity, 2, Informational, Success, None),
        Event::Opened { .. } => ("opened", ApiActivity, 1, Informational, Success, Some(Allowed)),
        Event::Replaying { .. } => ("replaying", ApiActivity, 2, Informational, Success, Some(Allowed)),
        Event::Consuming { .. } => ("consuming", ApiActivity, 2, Informational, Success, Some(Allowed)),
        Event::Stream { change, .. } => {
            let (activity, severity, status) = match change {
                StreamChange::Created => (1, Informational, Success),
                StreamChange::Opened { .. } | StreamChange::Resumed | StreamChange::SegmentSealed { .. } => {
                    (3, Informational, Success)
                }
                StreamChange::Trimmed { .. } => (4, Informational, Success),
                StreamChange::DeadLettered { .. } | StreamChange::Repaired(_) => (3, Low, Success),
                StreamChange::Full => (3, High, Failure),
                StreamChange::Stopped(_) | StreamChange::Damaged(_) => (3, Critical, Failure),
            };
            (change.name(), EntityManagement, activity, severity, status, None)
        }
        Event::IndexRebuilt { .. } => ("index-rebuilt", EntityManagement, 3, Medium, Success, None),
        Event::Denied { verb, .. } => {
            let activity = match verb {
                Verb::Publish => 1,
                Verb::Subscribe | Verb::Replay | Verb::Consume | Verb::Describe | Verb::Audit => 2,
                Verb::Admin => 3,
            };
            ("denied", ApiActivity, activity, Low, Failure, Some(Unauthorized))
        }
        Event::BatchRefused { code, .. } => match suspicion(*code) {
            Suspicion::Attack => ("batch-refused", DetectionFinding, 1, High, Failure, Some(Rejected)),
            Suspicion::Fault => ("batch-refused", ApiActivity, 1, Low, Failure, Some(Rejected)),
        },
        Event::Equivocation { .. } => {
            ("equivocation", DetectionFinding, 1, Critical, Failure, Some(Rejected))
        }
        Event::AdminDone { .. } => ("admin-done", ApiActivity, 3, Informational, Success, Some(Allowed)),
        Event::AdminDenied { .. } => ("admin-denied", ApiActivity, 3, Low, Failure, Some(Unauthorized)),
        Event::PublishSummary { .. } => ("publish-summary", ApiActivity, 1, Informational, Success, None),
    };
    Labels { name, class, activity, severity, status, disposition }
}

/// What a refused batch lets one think of its sender.
pub(super) enum Suspicion {
    /// It may be forged, moved or replayed.
    Attack,
    /// It is late, malformed or too much.
    Fault,
}

/// What a refusal with this code lets one think.
pub(super) const fn suspicion(code: Code) -> Suspicion {
    match code {
        Code::Binding | Code::Session | Code::Stale | Code::Chain | Code::Signature | Code::Equivocation => {
            Suspicion::Attack
        }
        Code::Format
        | Code::Denied
        | Code::Seal
        | Code::Time
        | Code::Fenced
        | Code::Gap
        | Code::Limit
        | Code::StorageFull
        | Code::AuditUnavailable
        | Code::StaleVersion
        | Code::Unsupported
        | Code::Draining
        | Code::Conflict
        | Code::Internal => Suspicion::Fault,
    }
}
