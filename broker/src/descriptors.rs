//! Descriptors: how many connections the process may have, so that there is always one for a reload.
//!
//! ```text
//!   |<------------------------ limit of open files ------------------------>|
//!   | connections_max              | newcomers_max | listeners + reserved   |
//! ```
//!
//! A broker whose connections take the last descriptor cannot read its policy any more, and whoever holds them could
//! not be revoked.

use std::fmt;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::{DESCRIPTORS_RESERVED, NEWCOMERS_MAX};
use crate::telemetry;

/// Of what is left for connections, one in this many is for those that have not sent their ClientHello.
const NEWCOMERS_SHARE: usize = 4;

/// With fewer of them none can give way to another: see the door's share for those that are leaving.
const NEWCOMERS_MIN: usize = 4;

/// How many connections there may be at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Share {
    /// From their ClientHello on.
    pub(crate) connections_max: usize,
    /// Before that.
    pub(crate) newcomers_max: usize,
}

/// The limit of open files leaves nothing for connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooFewDescriptors {
    limit: usize,
    needed: usize,
}

impl fmt::Display for TooFewDescriptors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { limit, needed } = self;
        write!(
            f,
            "the process may open {limit} files, and a broker with these listeners needs {needed} at least: raise the \
             hard limit (`ulimit -Hn`, or LimitNOFILE= of its service)"
        )
    }
}

impl std::error::Error for TooFewDescriptors {}

/// Raises the soft limit of open files to the hard one, and shares it out. Says so in the log when it allows fewer
/// connections than are configured.
pub(crate) fn share_out(listeners: usize, connections_max: usize) -> Result<Share, TooFewDescriptors> {
    let limit = raise();
    let share = share(limit, listeners, connections_max)?;
    if share.connections_max < connections_max {
        tracing::warn!(
            { telemetry::COUNT } = share.connections_max,
            { telemetry::REASON } = %Lowered { configured: connections_max, limit },
            "fewer connections are accepted than `connections_max` says"
        );
    }
    Ok(share)
}

/// The limit of open files after it has been raised as far as this process may.
fn raise() -> usize {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => maximum,
        Err(error) => {
            tracing::warn!({ telemetry::ERROR } = %error, "the limit of open files cannot be raised");
            current
        }
    };
    // None is no limit.
    raised.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX)
}

fn share(limit: usize, listeners: usize, connections_max: usize) -> Result<Share, TooFewDescriptors> {
    let reserved = DESCRIPTORS_RESERVED.saturating_add(listeners);
    let left = limit.saturating_sub(reserved);
    let newcomers_max = (left / NEWCOMERS_SHARE).min(NEWCOMERS_MAX);
    if newcomers_max < NEWCOMERS_MIN {
        return Err(TooFewDescriptors {
            limit,
            needed: reserved.saturating_add(NEWCOMERS_MIN * NEWCOMERS_SHARE),
        });
    }
    Ok(Share { connections_max: connections_max.min(left.saturating_sub(newcomers_max)), newcomers_max })
}

/// Why fewer connections are accepted.
struct Lowered {
    configured: usize,
    limit: usize,
}

impl fmt::Display for Lowered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { configured, limit } = self;
        write!(
            f,
            "`connections_max` is {configured}, and the process may open {limit} files, some of which are kept for the \
             broker's own"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_what_the_broker_needs() {
        let cases = [
            // limit, listeners, configured; connections, newcomers
            ((usize::MAX, 1, 10_000), (10_000, 1_024)),
            ((1_048_576, 64, 1_000_000), (1_000_000, 1_024)),
            ((20_000, 1, 10_000), (10_000, 1_024)),
            ((1_024, 1, 10_000), (720, 239)),
            ((200, 1, 10_000), (102, 33)),
            ((200, 1, 5), (5, 33)),
            ((200, 64, 10_000), (54, 18)),
            ((81, 1, 10_000), (12, 4)),
        ];
        for ((limit, listeners, configured), (connections_max, newcomers_max)) in cases {
            let found = share(limit, listeners, configured).unwrap();
            assert_eq!(found, Share { connections_max, newcomers_max }, "{limit} {listeners} {configured}");
            assert!(connections_max + newcomers_max + listeners + DESCRIPTORS_RESERVED <= limit);
        }
    }

    #[test]
    fn too_few_are_refused_with_how_many_are_needed() {
        for limit in [0, 3, 64, 80] {
            assert_eq!(share(limit, 1, 10), Err(TooFewDescriptors { limit, needed: 81 }));
        }
        let refused = share(1_024, usize::MAX, 10).unwrap_err();
        assert!(refused.to_string().contains("may open 1024 files"), "{refused}");
    }

    #[test]
    fn the_soft_limit_is_raised_to_the_hard_one() {
        raise();
        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        assert_eq!(current, maximum);
    }
}
