//! Who may come in: how many connections, and how many handshakes at once.
//!
//! ```text
//!   accept --> connections_max? --> waiting for this source? --> [handshake slot] --> HELLO judged --> slot is free
//!              no: closed at once   too many: closed at once      8 per source, 64 in all, in turn
//! ```
//!
//! A handshake is the most work that an unknown peer can make for us, so that it is what is rationed. A burst of good
//! clients from one address waits its turn; a flood is turned away before anything is set aside for it.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::LimitsConfig;
use crate::locks::lock;

/// Connections of one source that may wait for a handshake slot, for each slot that the source may have. With the
/// default of 8 slots, 64: what one host's services open when they all come back at once.
const WAITING_PER_SLOT: usize = 8;

/// The two counters at the door.
#[derive(Debug)]
pub(crate) struct Admission {
    connections: Arc<Semaphore>,
    handshakes: Arc<Semaphore>,
    per_source_max: usize,
    sources: Mutex<HashMap<IpAddr, Source>>,
}

#[derive(Debug)]
struct Source {
    slots: Arc<Semaphore>,
    /// Connections that wait for a slot or have one.
    pending: usize,
}

/// A connection's place. Dropping it gives it back.
#[derive(Debug)]
pub(crate) struct Place {
    _connection: OwnedSemaphorePermit,
}

/// The right to a handshake. Dropping it gives it back.
#[derive(Debug)]
pub(crate) struct Slot {
    _source: OwnedSemaphorePermit,
    _all: OwnedSemaphorePermit,
    _pending: Pending,
}

/// A connection that has not finished its handshake.
#[derive(Debug)]
pub(crate) struct Pending {
    admission: Arc<Admission>,
    source: IpAddr,
    slots: Arc<Semaphore>,
}

/// Why a connection is turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TurnedAway {
    /// There are as many connections as may be.
    Connections,
    /// As many of this source wait as may.
    Source,
}

impl TurnedAway {
    /// One word, the same in every version.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Connections => "connections-limit",
            Self::Source => "source-limit",
        }
    }
}

impl fmt::Display for TurnedAway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connections => "the broker has as many connections as it may",
            Self::Source => "as many connections of this source wait for their handshake as may",
        })
    }
}

impl Admission {
    /// A door with these limits.
    pub(crate) fn new(limits: &LimitsConfig) -> Arc<Self> {
        Arc::new(Self {
            connections: Arc::new(Semaphore::new(limits.connections_max)),
            handshakes: Arc::new(Semaphore::new(limits.handshakes_max)),
            per_source_max: limits.handshakes_per_source_max,
            sources: Mutex::default(),
        })
    }

    /// Lets a connection in, or turns it away. Nothing is waited for here.
    pub(crate) fn enter(self: &Arc<Self>, source: IpAddr) -> Result<(Place, Pending), TurnedAway> {
        let connection =
            Arc::clone(&self.connections).try_acquire_owned().map_err(|_| TurnedAway::Connections)?;
        let source = counted_as(source);
        let mut sources = lock(&self.sources);
        let entry = sources
            .entry(source)
            .or_insert_with(|| Source { slots: Arc::new(Semaphore::new(self.per_source_max)), pending: 0 });
        if entry.pending >= self.per_source_max.saturating_mul(WAITING_PER_SLOT) {
            return Err(TurnedAway::Source);
        }
        entry.pending = entry.pending.saturating_add(1);
        let slots = Arc::clone(&entry.slots);
        Ok((Place { _connection: connection }, Pending { admission: Arc::clone(self), source, slots }))
    }
}

impl Pending {
    /// Waits for a slot. First among its own, so that a source with many handshakes does not stand in everybody's way.
    pub(crate) async fn slot(self) -> Slot {
        let source = acquire(&self.slots).await;
        let all = acquire(&self.admission.handshakes).await;
        Slot { _source: source, _all: all, _pending: self }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        let mut sources = lock(&self.admission.sources);
        if let Some(entry) = sources.get_mut(&self.source) {
            entry.pending = entry.pending.saturating_sub(1);
            if entry.pending == 0 {
                sources.remove(&self.source);
            }
        }
    }
}

async fn acquire(semaphore: &Arc<Semaphore>) -> OwnedSemaphorePermit {
    Arc::clone(semaphore).acquire_owned().await.expect("the door's semaphores are never closed")
}

/// An IPv6 host has a /64 to itself, and may use every address of it.
fn counted_as(source: IpAddr) -> IpAddr {
    match source.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Waker};

    use super::*;

    fn admission(connections_max: usize, handshakes_max: usize, per_source_max: usize) -> Arc<Admission> {
        Admission::new(&LimitsConfig {
            connections_max,
            handshakes_max,
            handshakes_per_source_max: per_source_max,
            ..LimitsConfig::default()
        })
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[tokio::test]
    async fn a_source_has_its_slots_and_no_more() {
        let door = admission(100, 10, 1);
        let (_place, pending) = door.enter(address("10.0.0.1")).unwrap();
        let slot = pending.slot().await;
        let (_second_place, second) = door.enter(address("10.0.0.1")).unwrap();
        {
            let waiting = pin!(second.slot());
            assert!(waiting.poll(&mut Context::from_waker(Waker::noop())).is_pending());
        }
        let (_other_place, other) = door.enter(address("10.0.0.2")).unwrap();
        other.slot().await;
        drop(slot);
        let (_third_place, third) = door.enter(address("10.0.0.1")).unwrap();
        third.slot().await;
        assert!(lock(&door.sources).is_empty());
    }

    #[test]
    fn a_flood_is_turned_away() {
        let door = admission(20, 10, 2);
        let entered: Vec<_> = std::iter::from_fn(|| door.enter(address("2001:db8::1")).ok()).collect();
        assert_eq!(entered.len(), 2 * WAITING_PER_SLOT);
        assert!(matches!(door.enter(address("2001:db8::2")), Err(TurnedAway::Source)), "the same /64");
        let others: Vec<_> = (0..4).map(|host| door.enter([10, 0, 0, host].into()).unwrap()).collect();
        assert!(matches!(door.enter(address("10.0.1.1")), Err(TurnedAway::Connections)));
        drop((entered, others));
        assert!(door.enter(address("10.0.1.1")).is_ok());
    }
}
