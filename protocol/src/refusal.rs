//! Refusals: a code that programs act on, and a sentence for the person at three in the morning.

use std::fmt;

use crate::limits::REASON_BYTES_MAX;

/// What was found wrong, in the words of SPEC.md. The numbers are on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum Code {
    /// The bytes are not the object that they should be.
    Format = 1,
    /// A batch of another bus, stream or topic, or a key binding that does not hold.
    Binding = 2,
    /// The session proof does not hold, or a batch is not of this session's key and incarnation.
    Session = 3,
    /// Older than what is remembered, or across two remembered batches: it cannot be told from a replay.
    Stale = 4,
    /// No rule allows it, or one forbids it.
    Denied = 5,
    /// The topic's stream wants another seal, or this version does not open sealed batches.
    Seal = 6,
    /// A time too far from the judge's clock.
    Time = 7,
    /// A newer incarnation of the same instance has taken over.
    Fenced = 8,
    /// Ahead of the sequence: something before it is missing.
    Gap = 9,
    /// Not chained to the batch before it.
    Chain = 10,
    /// Content hash or signature does not verify.
    Signature = 11,
    /// A second batch under a used sequence number, properly signed: evidence against its producer.
    Equivocation = 12,
    /// A limit that WELCOME or the configuration names was reached.
    Limit = 13,
    /// No room on the disk.
    StorageFull = 14,
    /// The audit log cannot be written, so nothing that must be in it can be done.
    AuditUnavailable = 15,
    /// Asked for with a policy version that is no longer in force.
    StaleVersion = 16,
    /// Known, but not in this version.
    Unsupported = 17,
    /// The broker is shutting down.
    Draining = 18,
    /// Our own failure, not the peer's.
    Internal = 19,
    /// What was asked for exists already, with other settings.
    Conflict = 20,
}

/// What the receiver of a refusal can do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Action {
    /// The same request may succeed later, here or on a new connection.
    Retry = 1,
    /// Something that the sender holds is out of date: fetch it anew, then retry.
    Refresh = 2,
    /// The same request will be refused again.
    Final = 3,
}

impl Code {
    const ALL: [Self; 20] = [
        Self::Format,
        Self::Binding,
        Self::Session,
        Self::Stale,
        Self::Denied,
        Self::Seal,
        Self::Time,
        Self::Fenced,
        Self::Gap,
        Self::Chain,
        Self::Signature,
        Self::Equivocation,
        Self::Limit,
        Self::StorageFull,
        Self::AuditUnavailable,
        Self::StaleVersion,
        Self::Unsupported,
        Self::Draining,
        Self::Internal,
        Self::Conflict,
    ];

    /// The code with this number, when there is one.
    #[must_use]
    pub fn from_wire(number: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|code| *code as u16 == number)
    }

    /// The word that documentation, logs and audit events use.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Format => "FORMAT",
            Self::Binding => "BINDING",
            Self::Session => "SESSION",
            Self::Stale => "STALE",
            Self::Denied => "DENIED",
            Self::Seal => "SEAL",
            Self::Time => "TIME",
            Self::Fenced => "FENCED",
            Self::Gap => "GAP",
            Self::Chain => "CHAIN",
            Self::Signature => "SIGNATURE",
            Self::Equivocation => "EQUIVOCATION",
            Self::Limit => "LIMIT",
            Self::StorageFull => "STORAGE_FULL",
            Self::AuditUnavailable => "AUDIT_UNAVAILABLE",
            Self::StaleVersion => "STALE_VERSION",
            Self::Unsupported => "UNSUPPORTED",
            Self::Draining => "DRAINING",
            Self::Internal => "INTERNAL",
            Self::Conflict => "CONFLICT",
        }
    }

    /// What the receiver can do about it.
    #[must_use]
    pub const fn action(self) -> Action {
        match self {
            Self::Limit | Self::StorageFull | Self::AuditUnavailable | Self::Draining | Self::Internal => {
                Action::Retry
            }
            Self::StaleVersion | Self::Time => Action::Refresh,
            Self::Format
            | Self::Binding
            | Self::Session
            | Self::Stale
            | Self::Denied
            | Self::Seal
            | Self::Fenced
            | Self::Gap
            | Self::Chain
            | Self::Signature
            | Self::Equivocation
            | Self::Unsupported
            | Self::Conflict => Action::Final,
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Action {
    /// The action with this number, when there is one.
    #[must_use]
    pub const fn from_wire(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Retry),
            2 => Some(Self::Refresh),
            3 => Some(Self::Final),
            _ => None,
        }
    }
}

/// A refusal, as it is sent, logged and audited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    code: Code,
    reason: String,
}

impl Refusal {
    /// A refusal with its reason: what was attempted, on what, and what was found. Reasons are cut at
    /// [`REASON_BYTES_MAX`], at a character border.
    #[must_use]
    pub fn new(code: Code, reason: impl Into<String>) -> Self {
        let mut reason = reason.into();
        if reason.len() > REASON_BYTES_MAX {
            reason.truncate(reason.floor_char_boundary(REASON_BYTES_MAX));
        }
        Self { code, reason }
    }

    /// What was found wrong.
    #[must_use]
    pub const fn code(&self) -> Code {
        self.code
    }

    /// What the receiver can do about it.
    #[must_use]
    pub const fn action(&self) -> Action {
        self.code.action()
    }

    /// The sentence.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.reason)
    }
}

impl std::error::Error for Refusal {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_one_number_and_one_word() {
        for code in Code::ALL {
            assert_eq!(Code::from_wire(code as u16), Some(code));
            assert_eq!(Action::from_wire(code.action() as u8), Some(code.action()));
            assert_eq!(Code::ALL.iter().filter(|other| other.as_str() == code.as_str()).count(), 1);
        }
        assert_eq!(Code::from_wire(0), None);
        assert_eq!(Code::from_wire(21), None);
        assert_eq!(Action::from_wire(0), None);
    }

    #[test]
    fn long_reasons_are_cut_at_a_character() {
        let refusal = Refusal::new(Code::Denied, "é".repeat(REASON_BYTES_MAX));
        assert_eq!(refusal.reason().len(), REASON_BYTES_MAX);
    }
}
