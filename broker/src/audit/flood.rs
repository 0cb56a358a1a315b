//! Flood control: an attacker must not fill the disk with its own failures.
//!
//! ```text
//!  failure --admit_at--> Single    the first few of a kind in a second are written as they are
//!                    \-> Held      the others are counted; drain gives one event for all of a kind
//! ```
//!
//! A kind is what failed, where it comes from, why it failed, and who failed, when that is known. Nothing is dropped: what is held
//! is counted, and the count is written. Pure: the time comes in.

use std::collections::HashMap;
use std::fmt;
use std::mem::{Discriminant, discriminant};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use sealbus_protocol::identity::Principal;
use sealbus_protocol::refusal::Code;
use sealbus_protocol::session::Tick;

use super::event::{Actor, Event};

/// Milliseconds after which what is held is written.
pub(super) const HELD_MS_MAX: u64 = 10_000;

/// Kinds that are told apart. Beyond it failures are counted by what and why alone, so that one that comes from
/// everywhere costs 4 MiB at worst.
const KINDS_MAX: usize = 4_096;

/// How long the first few of a kind are counted together.
const WINDOW_MS: u64 = 1_000;

/// What decides between single and held.
#[derive(Debug)]
pub(super) struct Flood {
    singles_max: u32,
    kinds: HashMap<Kind, Window>,
    forgot: Tick,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Kind {
    /// Events of two variants never stand for each other: the one that is written says which variant it counts.
    variant: Discriminant<Event>,
    origin: Origin,
    reason: &'static str,
    principal: Option<Principal>,
}

#[derive(Debug)]
struct Window {
    since: Tick,
    singles: u32,
    held: Option<Held>,
}

#[derive(Debug)]
struct Held {
    sample: Event,
    span: Span,
}

/// Where failures come from, as coarse as they are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Origin {
    /// This network.
    Network(IpAddr, u8),
    /// Anywhere.
    Anywhere,
}

/// Events of one kind that are recorded as one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) origin: Origin,
    pub(super) count: u64,
    pub(super) start_ms: u64,
    pub(super) end_ms: u64,
}

/// What becomes of an event.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is recorded as it is.
    Single(Event),
    /// It was counted, and [`Flood::drain`] will give it.
    Held,
}

impl Flood {
    pub(super) fn new(singles_max: u32) -> Self {
        Self { singles_max, kinds: HashMap::new(), forgot: Tick(0) }
    }

    /// Takes an event that happened at `now_ms`, which is `tick`.
    pub(super) fn admit_at(&mut self, event: Event, now_ms: u64, tick: Tick) -> Verdict {
        let Some(mut kind) = kind_of(&event) else { return Verdict::Single(event) };
        if !self.kinds.contains_key(&kind) && self.kinds.len() >= KINDS_MAX {
            self.forget_at(tick);
            if self.kinds.len() >= KINDS_MAX {
                // Reasons are words of ours, so that this adds a few dozen kinds at most.
                kind = Kind { origin: Origin::Anywhere, principal: None, ..kind };
            }
        }
        let origin = kind.origin;
        let window = self.kinds.entry(kind).or_insert(Window { since: tick, singles: 0, held: None });
        if tick.since(window.since) >= WINDOW_MS {
            window.since = tick;
            window.singles = 0;
        }
        if window.singles < self.singles_max {
            window.singles += 1;
            return Verdict::Single(event);
        }
        let held = window.held.get_or_insert(Held {
            sample: event,
            span: Span { origin, count: 0, start_ms: now_ms, end_ms: now_ms },
        });
        held.span.count = held.span.count.saturating_add(1);
        held.span.end_ms = now_ms;
        Verdict::Held
    }

    /// Everything that is held, one event for each kind, in the order in which the kinds were first held.
    pub(super) fn drain(&mut self) -> Vec<(Event, Span)> {
        let held = self.kinds.values_mut().filter_map(|window| window.held.take());
        let mut drained: Vec<(Event, Span)> = held.map(|held| (held.sample, held.span)).collect();
        drained.sort_by_key(|(_, span)| span.start_ms);
        drained
    }

    /// Drops kinds that hold nothing and have been silent. At most once in a window, since it looks at all of them.
    fn forget_at(&mut self, tick: Tick) {
        if tick.since(self.forgot) < WINDOW_MS {
            return;
        }
        self.forgot = tick;
        self.kinds.retain(|_, window| window.held.is_some() || tick.since(window.since) < WINDOW_MS);
    }
}

/// The kind of a failure. What succeeds is not flood controlled: the policy allowed it.
fn kind_of(event: &Event) -> Option<Kind> {
    let variant = discriminant(event);
    let of_actor = |actor: &Actor, reason| Kind {
        variant,
        origin: origin(actor.source.ip(), 32),
        reason,
        principal: Some(actor.principal.clone()),
    };
    match event {
        // Nobody stands behind the address yet, so that neighbours count as one.
        Event::HandshakeFailed { source, reason, .. } => {
            Some(Kind { variant, origin: origin(source.ip(), 24), reason, principal: None })
        }
        Event::SessionRefused { source, principal, code, .. } => Some(Kind {
            variant,
            origin: origin(source.ip(), 32),
            reason: code.as_str(),
            principal: principal.clone(),
        }),
        Event::Denied { actor, verb, .. } => Some(of_actor(actor, verb.as_str())),
        Event::AdminDenied { actor, operation, .. } => Some(of_actor(actor, operation)),
        Event::BatchRefused { actor, code, .. } => Some(of_actor(actor, code.as_str())),
        Event::Equivocation { actor, .. } => Some(of_actor(actor, Code::Equivocation.as_str())),
        Event::BrokerStarted { .. }
        | Event::BrokerStopped
        | Event::PolicyReloaded { .. }
        | Event::PolicyRefused { .. }
        | Event::TlsReloaded { .. }
        | Event::TlsRefused { .. }
        | Event::SessionOpened { .. }
        | Event::SessionClosed { .. }
        | Event::SessionCut { .. }
        | Event::Subscribed { .. }
        | Event::Unsubscribed { .. }
        | Event::Replaying { .. }
        | Event::Consuming { .. }
        | Event::Stream { .. }
        | Event::IndexRebuilt { .. }
        | Event::Opened { .. }
        | Event::AdminDone { .. }
        | Event::PublishSummary { .. } => None,
    }
}

/// The network of an address: `bits` of IPv4, and always 56 of IPv6, since whoever has one address there has them all.
fn origin(ip: IpAddr, bits: u8) -> Origin {
    match ip.to_canonical() {
        IpAddr::V4(ip) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(bits.min(32))).unwrap_or(0);
            Origin::Network(Ipv4Addr::from_bits(ip.to_bits() & mask).into(), bits)
        }
        IpAddr::V6(ip) => Origin::Network(Ipv6Addr::from_bits(ip.to_bits() & (u128::MAX << 72)).into(), 56),
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(ip, bits) => write!(f, "{ip}/{bits}"),
            Self::Anywhere => f.write_str("anywhere"),
        }
    }
}

#[cfg(test)]
mod tests {
    use sealbus_protocol::topic::Topic;

    use super::*;
    use crate::audit::event::SessionId;
    use crate::clock::{Clock as _, ManualClock};

    fn failure(source: &str, reason: &'static str) -> Event {
        Event::HandshakeFailed {
            source: source.parse().unwrap(),
            listener: "127.0.0.1:7433".parse().unwrap(),
            reason,
            detail: String::new(),
        }
    }

    fn admit(flood: &mut Flood, clock: &ManualClock, event: Event) -> bool {
        matches!(flood.admit_at(event, clock.now_ms(), clock.tick()), Verdict::Single(_))
    }

    #[test]
    fn the_first_few_of_a_second_are_single_and_the_others_are_counted() {
        let (clock, mut flood) = (ManualClock::new(1_000_000), Flood::new(10));
        let singles = (0..1_000_000)
            .filter(|_| admit(&mut flood, &clock, failure("192.0.2.1:5000", "not-tls")))
            .count();
        assert_eq!(singles, 10);
        clock.advance(999);
        assert!(!admit(&mut flood, &clock, failure("192.0.2.1:5000", "not-tls")));
        clock.advance(1);
        assert!(admit(&mut flood, &clock, failure("192.0.2.1:5000", "not-tls")));
        let [(event, span)] = flood.drain().try_into().unwrap();
        assert_eq!(event, failure("192.0.2.1:5000", "not-tls"));
        assert_eq!((span.count, span.start_ms, span.end_ms), (999_991, 1_000_000, 1_000_999));
        assert_eq!(span.origin.to_string(), "192.0.2.0/24");
        assert_eq!(flood.drain(), []);
    }

    #[test]
    fn a_flood_of_one_kind_hides_no_other() {
        let (clock, mut flood) = (ManualClock::new(0), Flood::new(1));
        for (source, reason, single) in [
            ("192.0.2.1:1", "not-tls", true),
            ("192.0.2.1:1", "not-tls", false),
            ("192.0.2.200:9", "not-tls", false),
            ("192.0.2.1:1", "expired", true),
            ("192.0.3.1:1", "not-tls", true),
            ("[2001:db8::1]:1", "not-tls", true),
            ("[2001:db8:0:99::1]:1", "not-tls", false),
            ("[2001:db8:0:100::1]:1", "not-tls", true),
            ("[::ffff:192.0.2.7]:1", "not-tls", false),
        ] {
            assert_eq!(admit(&mut flood, &clock, failure(source, reason)), single, "{source} {reason}");
        }
        assert_eq!(flood.drain().iter().map(|(_, span)| span.count).sum::<u64>(), 4);
    }

    /// A session and a batch can be refused with one code, from one place, to one principal.
    #[test]
    fn events_of_two_variants_are_counted_apart() {
        let (clock, mut flood) = (ManualClock::new(0), Flood::new(1));
        let principal = Principal::parse("spiffe://a.example/anna").unwrap();
        let source = "192.0.2.1:1".parse().unwrap();
        let (code, reason) = (Code::Binding, String::new());
        let actor = Actor { session: SessionId(1), principal: principal.clone(), source };
        let topic = Topic::parse("t").unwrap();
        let batch = Event::BatchRefused { actor, topic, code, reason: reason.clone() };
        let session = Event::SessionRefused { source, principal: Some(principal), code, reason };
        for event in [&session, &batch] {
            assert!(admit(&mut flood, &clock, event.clone()));
            assert!(!admit(&mut flood, &clock, event.clone()));
        }
        let drained = flood.drain();
        assert_eq!(drained.iter().map(|(_, span)| span.count).collect::<Vec<_>>(), [1, 1]);
        assert!([&session, &batch].iter().all(|event| drained.iter().any(|(sample, _)| sample == *event)));
    }

    #[test]
    fn what_succeeds_is_always_single() {
        let (clock, mut flood) = (ManualClock::new(0), Flood::new(1));
        assert!((0..100).all(|_| admit(&mut flood, &clock, Event::BrokerStopped)));
    }

    #[test]
    fn failures_from_everywhere_take_bounded_memory_and_are_all_counted() {
        let (clock, mut flood) = (ManualClock::new(0), Flood::new(1));
        let mut singles = 0_u64;
        for host in 0..100_000_u32 {
            let source = Ipv4Addr::from_bits(host << 8);
            singles += u64::from(admit(&mut flood, &clock, failure(&format!("{source}:1"), "not-tls")));
            assert!(flood.kinds.len() <= KINDS_MAX + 1);
        }
        let held: u64 = flood.drain().iter().map(|(_, span)| span.count).sum();
        assert_eq!((singles, singles + held), (KINDS_MAX as u64 + 1, 100_000));
        clock.advance(WINDOW_MS);
        assert!(admit(&mut flood, &clock, failure("203.0.113.1:1", "not-tls")));
        assert_eq!(flood.kinds.len(), 1);
    }
}
