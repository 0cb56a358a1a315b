//! Why something has ended for good.

use std::fmt;

use sealbus_protocol::refusal::{Code, Refusal};

/// Why a bus, or one reader on it, has ended for good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CloseReason {
    /// This program closed it.
    ByCaller,
    /// The broker refuses it, and would refuse it again.
    Refused(Refusal),
    /// The broker ended the subscription without giving a reason.
    ByBroker,
    /// Another stream has the name now, so that reading cannot go on where it was.
    OtherStream,
    /// Every allowed attempt to reconnect has failed.
    GaveUp {
        /// How many attempts were made.
        attempts: u32,
        /// What the last one met.
        last: String,
    },
}

impl CloseReason {
    /// The broker's code, where it refused.
    #[must_use]
    pub const fn code(&self) -> Option<Code> {
        match self {
            Self::Refused(refusal) => Some(refusal.code()),
            Self::ByCaller | Self::ByBroker | Self::OtherStream | Self::GaveUp { .. } => None,
        }
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ByCaller => f.write_str("this program closed it"),
            Self::Refused(refusal) => write!(f, "the broker refused: {refusal}"),
            Self::ByBroker => f.write_str("the broker ended it"),
            Self::OtherStream => f.write_str("another stream has the name now"),
            Self::GaveUp { attempts, last } => {
                write!(f, "gave up after {attempts} attempts to reconnect: {last}")
            }
        }
    }
}
