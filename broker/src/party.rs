//! A party: who acts, and from where. What every decision about a session is made on, besides the time.

use std::net::IpAddr;
use std::sync::Arc;

use sealbus_protocol::identity::Principal;
use sealbus_protocol::policy::Context;

/// A principal as a session has proven it, and the place that it connects from. Shared, since decisions about a
/// subscriber are made by its publishers too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Party {
    /// Who.
    pub(crate) principal: Principal,
    /// The peer's address.
    pub(crate) source: IpAddr,
    /// The zone of the listener.
    pub(crate) zone: Arc<str>,
}

impl Party {
    /// The circumstances of a decision about this party at this time.
    pub(crate) fn context_at(&self, now_ms: u64) -> Context<'_> {
        Context { source: self.source, zone: Some(&self.zone), now_ms }
    }
}
