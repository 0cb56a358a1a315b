//! Who may come in: how many that have said nothing, how many connections, and how many handshakes at once.
//!
//! ```text
//!   accept --> too many of this source? --> [newcomers] --> ClientHello --> connections_max? --> [handshake slot] --> HELLO
//!              yes: closed at once           of the source with most,       no: closed            8 per source,       judged:
//!                                            the oldest gives way                                 64 in all, in turn  slot is free
//! ```
//!
//! A handshake is the most work that an unknown peer can make for us, so that it is what is rationed, and nobody gets
//! a ration for opening a connection: it takes a whole ClientHello. Whoever is silent takes neither a slot nor a
//! connection's place, and gives way when many are. A burst of good clients from one address waits its turn; a flood is
//! turned away before anything is set aside for it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::config::LimitsConfig;
use crate::locks::lock;

/// Connections of one source that may wait for a handshake slot, for each slot that the source may have. With the
/// default of 8 slots, 64: what one host's services open when they all come back at once.
const WAITING_PER_SLOT: usize = 8;

/// Of the newcomers, one in this many is room for those that were asked to leave and have not closed yet.
const LEAVING_SHARE: usize = 4;

/// The counters at the door.
#[derive(Debug)]
pub(crate) struct Admission {
    connections: Arc<Semaphore>,
    handshakes: Arc<Semaphore>,
    per_source_max: usize,
    newcomers_max: usize,
    hall: Mutex<Hall>,
}

/// Those that have not finished their handshake.
#[derive(Debug, Default)]
struct Hall {
    sources: HashMap<IpAddr, Source>,
    /// Newcomers, and those among them that were not asked to leave.
    newcomers: usize,
    welcome: usize,
    /// Numbers newcomers in the order in which they came.
    next: u64,
}

#[derive(Debug)]
struct Source {
    slots: Arc<Semaphore>,
    /// Connections that have not finished their handshake.
    pending: usize,
    /// Those of them that have not sent their ClientHello, the oldest first. Dropping the sender asks one to leave.
    newcomers: BTreeMap<u64, oneshot::Sender<Infallible>>,
}

/// A connection that has not sent its ClientHello.
#[derive(Debug)]
pub(crate) struct Newcomer {
    // Dropped before `pending`, which may forget the source.
    seat: Seat,
    asked_to_leave: oneshot::Receiver<Infallible>,
    pending: Pending,
}

/// A newcomer's place. Dropping it gives it back.
#[derive(Debug)]
struct Seat {
    admission: Arc<Admission>,
    source: IpAddr,
    number: u64,
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
    /// As many have not sent their ClientHello as may.
    Newcomers,
}

impl TurnedAway {
    /// One word, the same in every version.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Connections => "connections-limit",
            Self::Source => "source-limit",
            Self::Newcomers => "newcomers-limit",
        }
    }
}

impl fmt::Display for TurnedAway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connections => "the broker has as many connections as it may",
            Self::Source => "as many connections of this source wait for their handshake as may",
            Self::Newcomers => {
                "as many connections have not sent their ClientHello as may, most of them of this source"
            }
        })
    }
}

impl Admission {
    /// A door with these limits, and this many connections that have not sent their ClientHello.
    pub(crate) fn new(limits: &LimitsConfig, newcomers_max: usize) -> Arc<Self> {
        Arc::new(Self {
            connections: Arc::new(Semaphore::new(limits.connections_max)),
            handshakes: Arc::new(Semaphore::new(limits.handshakes_max)),
            per_source_max: limits.handshakes_per_source_max,
            newcomers_max,
            hall: Mutex::default(),
        })
    }

    /// Lets a connection in, or turns it away. Nothing is waited for here.
    pub(crate) fn enter(self: &Arc<Self>, source: IpAddr) -> Result<Newcomer, TurnedAway> {
        let source = counted_as(source);
        let mut hall = lock(&self.hall);
        let of_source = hall.sources.get(&source).map_or(0, |source| source.pending);
        if of_source >= self.per_source_max.saturating_mul(WAITING_PER_SLOT) {
            return Err(TurnedAway::Source);
        }
        if hall.newcomers >= self.newcomers_max {
            return Err(TurnedAway::Newcomers);
        }
        if hall.welcome >= self.newcomers_max.saturating_sub(self.newcomers_max / LEAVING_SHARE) {
            hall.ask_one_to_leave();
        }
        let (leave, asked_to_leave) = oneshot::channel();
        let number = hall.next;
        hall.next = hall.next.saturating_add(1);
        hall.newcomers = hall.newcomers.saturating_add(1);
        hall.welcome = hall.welcome.saturating_add(1);
        let entry = hall.sources.entry(source).or_insert_with(|| Source {
            slots: Arc::new(Semaphore::new(self.per_source_max)),
            pending: 0,
            newcomers: BTreeMap::new(),
        });
        entry.pending = entry.pending.saturating_add(1);
        entry.newcomers.insert(number, leave);
        let seat = Seat { admission: Arc::clone(self), source, number };
        let pending = Pending { admission: Arc::clone(self), source, slots: Arc::clone(&entry.slots) };
        Ok(Newcomer { seat, asked_to_leave, pending })
    }
}

impl Hall {
    /// The oldest of the source that has most. A good client is here for one round trip, and alone or nearly so.
    fn ask_one_to_leave(&mut self) {
        let first = |source: &Source| source.newcomers.first_key_value().map(|(number, _)| *number);
        let greediest =
            self.sources.values_mut().max_by_key(|source| (source.newcomers.len(), Reverse(first(source))));
        if let Some((_, leave)) = greediest.and_then(|source| source.newcomers.pop_first()) {
            self.welcome = self.welcome.saturating_sub(1);
            drop(leave);
        }
    }
}

impl Newcomer {
    /// Waits until it must give way to others.
    pub(crate) async fn asked_to_leave(&mut self) {
        // Nothing is ever sent: the sender is dropped.
        let _ = (&mut self.asked_to_leave).await;
    }

    /// Its ClientHello is here. It makes room for others, and gets a connection's place, when there is one.
    pub(crate) fn said_hello(self) -> Result<(Place, Pending), TurnedAway> {
        let Self { seat, asked_to_leave: _, pending } = self;
        drop(seat);
        let connections = Arc::clone(&pending.admission.connections);
        let connection = connections.try_acquire_owned().map_err(|_| TurnedAway::Connections)?;
        Ok((Place { _connection: connection }, pending))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut hall = lock(&self.admission.hall);
        hall.newcomers = hall.newcomers.saturating_sub(1);
        let source = hall.sources.get_mut(&self.source);
        // Not there when it was asked to leave.
        if source.and_then(|source| source.newcomers.remove(&self.number)).is_some() {
            hall.welcome = hall.welcome.saturating_sub(1);
        }
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
        let mut hall = lock(&self.admission.hall);
        if let Some(entry) = hall.sources.get_mut(&self.source) {
            entry.pending = entry.pending.saturating_sub(1);
            if entry.pending == 0 {
                hall.sources.remove(&self.source);
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

    const NEWCOMERS: usize = 100;

    fn admission(connections_max: usize, handshakes_max: usize, per_source_max: usize) -> Arc<Admission> {
        let limits = LimitsConfig {
            connections_max,
            handshakes_max,
            handshakes_per_source_max: per_source_max,
            ..LimitsConfig::default()
        };
        Admission::new(&limits, NEWCOMERS)
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn must_leave(newcomer: &mut Newcomer) -> bool {
        newcomer.asked_to_leave.try_recv() == Err(oneshot::error::TryRecvError::Closed)
    }

    fn greet(door: &Arc<Admission>, source: &str) -> (Place, Pending) {
        door.enter(address(source)).unwrap().said_hello().unwrap()
    }

    #[tokio::test]
    async fn a_source_has_its_slots_and_no_more() {
        let door = admission(100, 10, 1);
        let (_place, pending) = greet(&door, "10.0.0.1");
        let slot = pending.slot().await;
        let (_second_place, second) = greet(&door, "10.0.0.1");
        {
            let waiting = pin!(second.slot());
            assert!(waiting.poll(&mut Context::from_waker(Waker::noop())).is_pending());
        }
        let (_other_place, other) = greet(&door, "10.0.0.2");
        other.slot().await;
        drop(slot);
        let (_third_place, third) = greet(&door, "10.0.0.1");
        third.slot().await;
        let hall = lock(&door.hall);
        assert!(hall.sources.is_empty());
        assert_eq!((hall.newcomers, hall.welcome), (0, 0));
    }

    #[test]
    fn a_flood_of_one_source_is_turned_away() {
        let door = admission(20, 10, 2);
        let mut entered: Vec<_> = std::iter::from_fn(|| door.enter(address("2001:db8::1")).ok()).collect();
        assert_eq!(entered.len(), 2 * WAITING_PER_SLOT);
        assert!(matches!(door.enter(address("2001:db8::2")), Err(TurnedAway::Source)), "the same /64");
        // Those that have said hello are still of this source.
        let greeted = entered.pop().unwrap().said_hello().unwrap();
        assert!(matches!(door.enter(address("2001:db8::2")), Err(TurnedAway::Source)));
        drop(greeted);
        assert!(door.enter(address("2001:db8::2")).is_ok());
    }

    /// Whoever says nothing is no connection, and no handshake.
    #[test]
    fn the_silent_take_no_places() {
        let door = admission(2, 1, 2);
        let _silent: Vec<_> = (0..20).map(|host| door.enter([10, 0, 0, host].into()).unwrap()).collect();
        let _places = [greet(&door, "10.0.1.1"), greet(&door, "10.0.1.2")];
        let third = door.enter(address("10.0.1.3")).unwrap();
        assert!(matches!(third.said_hello(), Err(TurnedAway::Connections)));
    }

    #[test]
    fn the_oldest_of_the_greediest_source_gives_way() {
        let door = admission(10, 10, 10);
        let mut good = door.enter(address("10.1.0.1")).unwrap();
        let mut greedy: Vec<_> = (0..26).map(|_| door.enter(address("10.2.0.1")).unwrap()).collect();
        let mut others: Vec<_> = (0..48).map(|host| door.enter([10, 3, 0, host].into()).unwrap()).collect();
        assert!(!greedy.iter_mut().any(must_leave), "there is room");
        // 75 of 100 are welcome: from now on each makes another leave, while there is room for those that leave.
        for turn in 0..25 {
            others.push(door.enter([10, 4, 0, turn].into()).unwrap());
            let leaving: Vec<_> = greedy.iter_mut().map(must_leave).collect();
            let expected: Vec<_> = (0..26).map(|number| number <= turn).collect();
            assert_eq!(leaving, expected, "the oldest first");
        }
        assert!(matches!(door.enter(address("10.5.0.1")), Err(TurnedAway::Newcomers)), "none has closed yet");
        greedy.clear();
        assert!(!must_leave(&mut good) && !others.iter_mut().any(must_leave), "who has only one stays");
        assert!(door.enter(address("10.5.0.1")).is_ok());
        drop((good, others));
        let hall = lock(&door.hall);
        assert_eq!((hall.newcomers, hall.welcome, hall.sources.len()), (0, 0, 0));
    }
}
